"""A coordinator that runs for years never shows a certificate that has ended."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from coordinator.enrolment import Enrolment
from coordinator.errors import CoordinatorError
from coordinator.network import Network, free_endpoint
from coordinator.publish.authority import FOLDER, SERVER_LIFE, Authority, hosts_in
from coordinator.registrar import LOOK_EVERY_S, Registrar
from coordinator.store import FILE
from edge.wire.tls import Tls

HOSTS = ("lab.example",)


def tls_endpoint() -> str:
    return free_endpoint().replace("tcp/", "tls/")


def shown_at(endpoint: str | None) -> bytes:
    """Return the certificate that an endpoint shows, as DER."""
    assert endpoint is not None
    host, port = endpoint.removeprefix("tls/").split(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))


def kept(tls: Tls) -> bytes:
    """Return the certificate in the authority's folder, as DER."""
    return ssl.PEM_cert_to_DER_cert(tls.certificate.read_text())


class Coordinator:
    """One that was started when its certificate was as old as told, in parts of its life."""

    def __init__(self, run: Path, age: float) -> None:
        self.authority = Authority(run / FOLDER)
        self.own = self.authority.server(HOSTS, datetime.now(UTC) - age * SERVER_LIFE)
        self.enrolment = Enrolment(run / FILE)
        self.network = Network(tls_endpoint(), self.own, door=tls_endpoint())
        self.registrar = Registrar(self.enrolment, self.authority, HOSTS)

    def shown(self) -> set[bytes]:
        return {shown_at(self.network.endpoint), shown_at(self.network.door)}

    def close(self) -> None:
        self.network.close()
        self.enrolment.close()


@pytest.fixture
def half_way(tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(tmp_path, 0.51)
    yield made
    made.close()


def test_past_half_of_its_life_a_new_one_is_shown_at_both_endpoints(half_way: Coordinator) -> None:
    old = kept(half_way.own)
    assert half_way.shown() == {old}
    half_way.registrar.tend(half_way.network, 0.0)
    new = kept(half_way.own)
    assert new != old
    assert half_way.shown() == {new}
    ends = x509.load_der_x509_certificate(new).not_valid_after_utc
    assert ends - datetime.now(UTC) > 0.99 * SERVER_LIFE
    assert {*HOSTS} <= {*hosts_in(half_way.own.certificate)}
    sessions = half_way.network._session, half_way.network._door_session
    half_way.registrar.tend(half_way.network, LOOK_EVERY_S)
    assert (half_way.network._session, half_way.network._door_session) == sessions  # no link is opened anew for nothing


def test_before_that_nothing_changes(tmp_path: Path) -> None:
    young = Coordinator(tmp_path, 0.49)
    try:
        old, session = kept(young.own), young.network._session
        young.registrar.tend(young.network, 0.0)
        assert (kept(young.own), young.network._session) == (old, session)
    finally:
        young.close()


def test_what_fails_is_said_and_tried_again(half_way: Coordinator) -> None:
    old = kept(half_way.own)
    obstacle = half_way.own.key.with_name(half_way.own.key.name + ".part")
    obstacle.mkdir()
    with pytest.raises(CoordinatorError, match="cannot renew the coordinator's certificate"):
        half_way.registrar.tend(half_way.network, 0.0)
    half_way.registrar.tend(half_way.network, LOOK_EVERY_S - 1.0)
    assert half_way.shown() == {old}
    obstacle.rmdir()
    half_way.registrar.tend(half_way.network, LOOK_EVERY_S)
    assert half_way.shown() == {kept(half_way.own)} != {old}
