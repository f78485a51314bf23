"""From a ticket to a certificate, over real links: what a person approved gets in, and nothing else does."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.enrolment import EnrolmentRefused
from coordinator.publish.repository import Repository
from coordinator.registrar import LIFE_S
from edge.enrol import EnrolRefused, ask, at_the_door, keep, prepare
from edge.identity import load_key
from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.uplink.renewal import AGAIN_S, Renewal
from edge.wire import RENEW, key_of
from edge.wire.enrolment import make_csr, make_request, pack
from edge.wire.ticket import Ticket
from edge.wire.tls import Tls
from tests.harness.certificates import make_identity
from tests.harness.enrolment_world import EDGE, LONG_S, OTHER, World, answered

HOUR_S = 3600.0
SHORT_S = 0.5  # for what is to get no answer; the coordinator answers in milliseconds


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def test_a_machine_that_a_person_approved_becomes_the_edge(world: World) -> None:
    station, ticket = world.station(), world.ticket()
    world.wait(station, ticket)
    world.wait(station, ticket)  # asking again changes nothing
    [row] = world.people.rows()
    request = prepare(station, ticket)
    assert (row.edge, row.state, row.fingerprint) == (EDGE, "waiting", request.fingerprint)
    with pytest.raises(EnrolmentRefused, match='not "acorn'):
        world.people.approve(EDGE, "acorn " * 6, world.now_s)
    with pytest.raises(EnrolmentRefused, match="no machine waits"):
        world.people.approve(OTHER, request.fingerprint, world.now_s)
    world.people.approve(EDGE, request.fingerprint.upper().replace(" ", "-"), world.now_s)
    certificate = world.come(station, ticket)
    assert certificate is not None
    assert world.come(station, ticket) == certificate  # an answer that got lost comes again
    keep(station, ticket, certificate)
    assert (station / "trust" / "root.json").read_bytes() == Repository.open(world.run / "trust").root()
    with world.linked(station) as line:
        assert line.ask(key_of(EDGE, "lease")) == b"work"
    assert world.states() == ["approved"]


def test_what_waits_for_a_person_may_not_talk(world: World) -> None:
    other = world.enrol(OTHER)
    station, ticket = world.station(), world.ticket()
    world.wait(station, ticket)
    own = make_identity(world.authority, world.folder / "early", EDGE)  # as if it had a certificate
    with Coordinator(world.endpoint, EDGE, own) as line, world.linked(other, OTHER):
        assert until_unanswered(line) == set()
        world.people.approve(EDGE, prepare(station, ticket).fingerprint, world.now_s)
        assert answered(lambda: line.ask(key_of(EDGE, "lease"))) == b"work"


# Each spoils the chances of a station with a ticket; what it is told is named after it.
REFUSALS: dict[str, tuple[Callable[[World, Path, Ticket], object], str]] = {
    "a ticket that has run out": (lambda w, s, t: setattr(w, "now_s", w.now_s + 24 * HOUR_S), "has run out"),
    "a ticket that a newer one replaced": (lambda w, s, t: w.ticket(), "good no more"),
    "a ticket that another machine used": (lambda w, s, t: w.wait(w.station(EDGE, "thief"), t), "other keys"),
    "a ticket that another machine used and was approved with": (
        lambda w, s, t: (w.wait(thief := w.station(EDGE, "thief"), t), w.approve(thief, t)), "other keys",
    ),
    "a ticket that was revoked": (lambda w, s, t: w.people.revoke(EDGE, w.now_s), "good no more"),
    "a wait that was denied": (lambda w, s, t: (w.wait(s, t), w.people.deny(EDGE, w.now_s)), "was denied"),
    "a wait that was revoked": (lambda w, s, t: (w.wait(s, t), w.people.revoke(EDGE, w.now_s)), "good no more"),
    "a wait that another's approval ended": (
        lambda w, s, t: (w.wait(s, t), w.enrol(EDGE, "better")), "good no more",
    ),
    "a certificate that was revoked": (
        lambda w, s, t: (w.wait(s, t), w.approve(s, t), w.people.revoke(EDGE, w.now_s)), "good no more",
    ),
    "a certificate that has ended": (
        lambda w, s, t: (w.wait(s, t), w.approve(s, t), setattr(w, "now_s", w.now_s + LIFE_S)), "has ended",
    ),
    "a ticket that was bound to another ledger's key": (
        lambda w, s, t: (w.wait(s, t), *[path.unlink() for path in s.glob("*.key")], (s / "ledger.db").unlink()),
        "other keys",
    ),
    "a ticket that was bound to another TLS key": (
        lambda w, s, t: (w.wait(s, t), Tls.of(s / "identity").key.unlink()), "other keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "why"), REFUSALS.values(), ids=REFUSALS)
def test_there_is_no_certificate_for(world: World, spoil: Callable[[World, Path, Ticket], object], why: str) -> None:
    station, ticket = world.station(), world.ticket()
    spoil(world, station, ticket)
    before = world.states()
    with pytest.raises(EnrolRefused, match=why) as error:
        world.come(station, ticket)
    assert "\n" not in str(error.value)
    assert world.states() == before


def test_a_ticket_that_nobody_made_or_made_for_another_is_refused(world: World) -> None:
    ticket = world.ticket(OTHER)
    keys = ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate()
    with at_the_door(ticket) as line:
        for secret in (bytes(16), bytes.fromhex(ticket.secret)):
            request = make_request(EDGE, secret, *keys)
            with pytest.raises(EnrolRefused, match=f"nobody made this ticket for '{EDGE}'"):
                answered(lambda request=request: ask(line, request))
        request = make_request(OTHER, bytes.fromhex(ticket.secret), *keys)
        with pytest.raises(Refused, match=f"asked as '{EDGE}', but in the name of '{OTHER}'"):
            line.ask(key_of(EDGE, "enrol"), pack(request))
        with pytest.raises(Refused, match="not a request"):
            line.ask(key_of(EDGE, "enrol"), b"noise")
    assert world.states() == ["ticket"]


def test_an_edge_that_was_revoked_is_answered_nothing_and_comes_back_once_its_certificate_has_ended(
    world: World,
) -> None:
    station, other = world.enrol(), world.enrol(OTHER)
    with world.linked(station) as line, world.linked(other, OTHER) as another:
        world.people.revoke(EDGE, world.now_s)
        assert until_unanswered(line) <= {f"'{EDGE}' was revoked; enrol it anew"}
        assert answered(lambda: another.ask(key_of(OTHER, "lease"))) == b"work"
        ticket = world.ticket()
        world.wait(station, ticket)
        words = prepare(station, ticket).fingerprint
        with pytest.raises(EnrolmentRefused, match="another name"):
            world.people.approve(EDGE, words, world.now_s)
        world.people.approve(EDGE, words, world.now_s + LIFE_S)  # as if a week had gone by
        keep(station, ticket, world.come(station, ticket) or "")
        assert answered(lambda: line.ask(key_of(EDGE, "lease"))) == b"work"
    assert world.states() == ["revoked", "approved", "approved"]
    with pytest.raises(EnrolmentRefused, match="nothing to revoke"):
        world.people.revoke("arm-09", world.now_s)
    with pytest.raises(EnrolmentRefused, match="use enrol revoke"):
        world.people.deny(EDGE, world.now_s)


def test_a_revoked_name_is_given_to_no_machine_while_a_stolen_certificate_is_good(world: World) -> None:
    stolen = world.enrol(EDGE, "stolen")
    first_until_s = world.now_s + LIFE_S
    world.now_s += HOUR_S
    replaced_it = world.enrol(EDGE, "replaced it")
    world.people.revoke(EDGE, world.now_s)
    until_s = world.now_s + LIFE_S
    newcomer, ticket = world.station(EDGE, "newcomer"), world.ticket()
    world.wait(newcomer, ticket)
    words = prepare(newcomer, ticket).fingerprint
    said = datetime.fromtimestamp(until_s, UTC).isoformat(" ", "seconds")
    for now_s in (world.now_s, first_until_s, until_s - 0.001, float("nan")):
        with pytest.raises(EnrolmentRefused, match=re.escape(f"is good until {said}")) as error:
            world.people.approve(EDGE, words, now_s)
        assert "\n" not in str(error.value)
        assert world.states() == ["revoked", "revoked", "waiting"]
    own = (Tls.of(folder / "identity") for folder in (stolen, replaced_it))
    for tls in own:
        with Coordinator(world.endpoint, EDGE, tls) as line, pytest.raises(NoAnswer):
            line.ask(key_of(EDGE, "lease"), timeout_s=SHORT_S)
    world.people.approve(EDGE, words, until_s)
    assert world.states() == ["revoked", "revoked", "approved"]


def test_a_machine_that_was_replaced_and_not_revoked_keeps_nobody_waiting(world: World) -> None:
    for folder in ("first", "second", "third"):
        world.enrol(EDGE, folder)
    assert world.states() == ["replaced", "replaced", "approved"]


def until_unanswered(line: Coordinator) -> set[str]:
    """Ask until the coordinator lets this edge's questions in no more; return how it refused some until then."""
    refusals, deadline_s, silent = set(), time.monotonic() + LONG_S, 0
    while silent < 3:  # once may be while all links are opened anew
        assert time.monotonic() < deadline_s, "it is still answered"
        silent += 1
        try:
            line.ask(key_of(EDGE, "lease"), timeout_s=SHORT_S)
            silent = 0
        except Refused as error:
            refusals.add(str(error))
            silent = 0
        except NoAnswer:
            time.sleep(0.1)
    return refusals


# -- renewal ----------------------------------------------------------------------------------------------------------


def certificate_of(station: Path) -> bytes:
    return Tls.of(station / "identity").certificate.read_bytes()


def test_a_certificate_is_renewed_at_half_of_its_life_and_no_sooner(world: World) -> None:
    station = world.enrol()
    first, began_s = certificate_of(station), world.now_s
    with world.linked(station) as line:
        renewal = Renewal(Tls.of(station / "identity"), EDGE, line)
        world.now_s = began_s + 0.49 * LIFE_S
        assert not renewal.tend(world.now_s, 0.0)
        assert certificate_of(station) == first
        world.now_s = began_s + 0.5 * LIFE_S
        assert renewal.tend(world.now_s, AGAIN_S)
        second = certificate_of(station)
        assert second != first
        assert not renewal.tend(world.now_s + HOUR_S, HOUR_S)
        assert [row.certificate.encode() for row in world.people.rows()] == [second]
        assert line.ask(key_of(EDGE, "lease")) == b"work"


def test_a_renewal_whose_answer_got_lost_gets_the_same_answer(world: World) -> None:
    station = world.enrol()
    csr = make_csr(EDGE, load_key(Tls.of(station / "identity").key))
    world.now_s += 0.5 * LIFE_S
    with world.linked(station) as line:
        once, again = (msgpack.unpackb(line.ask(key_of(EDGE, RENEW), csr)) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda key: make_csr(EDGE, ec.generate_private_key(ec.SECP256R1())), "another key"),
        (lambda key: make_csr(OTHER, key), "is for"),
        (lambda key: b"noise", "cannot be read"),
        (lambda key: bytes(5000), "5000 bytes"),
    ],
    ids=["another key", "another name", "noise", "too much"],
)
def test_there_is_no_renewal_for(world: World, make: Callable[[ec.EllipticCurvePrivateKey], bytes], why: str) -> None:
    station = world.enrol()
    world.now_s += 0.5 * LIFE_S
    before = [row.certificate for row in world.people.rows()]
    with world.linked(station) as line, pytest.raises(Refused, match=why):
        line.ask(key_of(EDGE, RENEW), make(load_key(Tls.of(station / "identity").key)))
    assert [row.certificate for row in world.people.rows()] == before


def test_a_refused_renewal_leaves_the_certificate_and_is_tried_again_later(world: World) -> None:
    station = world.enrol()
    first = certificate_of(station)
    with world.linked(station) as line:
        renewal = Renewal(Tls.of(station / "identity"), EDGE, line)
        Tls.of(station / "identity").key.chmod(0o644)
        world.now_s += 0.5 * LIFE_S
        assert not renewal.tend(world.now_s, 0.0)
        assert certificate_of(station) == first
        Tls.of(station / "identity").key.chmod(0o600)
        assert not renewal.tend(world.now_s + 1.0, 1.0)
        assert renewal.tend(world.now_s + HOUR_S, HOUR_S)


def test_a_date_that_was_wrong_for_a_moment_puts_no_renewal_off(world: World) -> None:
    station = world.enrol()
    with world.linked(station) as line:
        renewal = Renewal(Tls.of(station / "identity"), EDGE, line)
        assert not renewal.tend(world.now_s + 365 * 24 * HOUR_S, 0.0)
        world.now_s += 0.5 * LIFE_S
        assert not renewal.tend(world.now_s, AGAIN_S - 1.0)
        assert renewal.tend(world.now_s, AGAIN_S)


def test_a_certificate_that_has_ended_is_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    station = world.enrol()
    with world.linked(station) as line:
        assert not Renewal(Tls.of(station / "identity"), EDGE, line).tend(world.now_s + LIFE_S, 0.0)
    assert "run enpire-edge enrol" in caplog.text
