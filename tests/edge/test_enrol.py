"""A station becomes known: its keys are made here, and whatever interrupts that, the same command goes on with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from coordinator.publish.authority import Authority
from edge.activation.journal import Journal, OrderRefused
from edge.cli import app
from edge.emulation.stations import make_stations
from edge.enrol import JOURNAL_FILE, EnrolRefused, ask, at_the_door, keep, prepare, read_ticket
from edge.ledger_file import LedgerFile
from edge.records import RolloutOrder
from edge.uplink.network import NoAnswer
from edge.wire import key_of
from edge.wire.ticket import Ticket, TicketRefused, parse_ticket
from edge.wire.tls import Tls
from tests.harness.certificates import make_identity
from tests.harness.enrolment_world import EDGE, LONG_S, OTHER, World

NOW_S = 1.7e9
TICKET = Ticket(EDGE, "00" * 16, 1.8e9, "tls/127.0.0.1:1", "tls/127.0.0.1:2", "PEM", "{}")


@pytest.fixture
def station(tmp_path: Path) -> Path:
    folder = tmp_path / "station"
    folder.mkdir()
    (folder / "station.toml").write_text(f'name = "{EDGE}"\n')
    return folder


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def ticket(authority: Authority) -> Ticket:
    return replace(TICKET, authority=authority.file.read_text())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as made:
        yield made


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- tickets ----------------------------------------------------------------------------------------------------------


def test_a_ticket_is_read_as_it_was_written() -> None:
    assert parse_ticket(TICKET.to_text()) == TICKET


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "of format 2"), ({"edge": "a/b"}, "not a ticket"), ({"secret": "00"}, "not a ticket"),
        ({"secret": "x" * 32}, "not a ticket"), ({"more": 1}, "not a ticket"), ({"until_unix_s": "soon"}, "not a"),
        ({"authority": None}, "not a ticket"), ({"order": -1}, "not a ticket"), ({"order": 2**53 + 1}, "not a ticket"),
        ({"order": True}, "not a ticket"), ({"order": "7"}, "not a ticket"), ({"order": 7.0}, "not a ticket"),
    ],
)  # fmt: skip
def test_what_is_no_ticket_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(TicketRefused, match=why):
        parse_ticket(json.dumps(json.loads(TICKET.to_text()) | change))


def test_a_ticket_of_the_version_before_says_nothing_of_orders() -> None:
    raw = json.loads(TICKET.to_text())
    del raw["order"]
    assert parse_ticket(json.dumps(raw)) == TICKET


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\udcff"])
def test_noise_is_no_ticket(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.ticket"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EnrolRefused, match=r"t\.ticket"):
        read_ticket(path)


# -- keys and files ---------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_only_the_owner_reads_them(station: Path, ticket: Ticket) -> None:
    first = prepare(station, ticket)
    for path in (Tls.of(station / "identity").key, station / "edge.key"):
        assert path.stat().st_mode & 0o777 == 0o600
    again = prepare(station, ticket)
    assert (again.tls_key, again.ledger_key, again.fingerprint) == (first.tls_key, first.ledger_key, first.fingerprint)


def test_the_key_that_seals_trials_is_the_one_that_is_asked_for(station: Path, ticket: Ticket) -> None:
    used = LedgerFile(station / "ledger.db", EDGE)  # a station that has run before
    used.db.close()
    assert prepare(station, ticket).ledger_key.hex() == used.public_key


def test_a_station_takes_only_its_own_ticket(station: Path, ticket: Ticket) -> None:
    with pytest.raises(EnrolRefused, match=f"is for '{OTHER}'"):
        prepare(station, replace(ticket, edge=OTHER))
    assert list(files(station)) == ["station.toml"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda folder: (folder / "station.toml").unlink(), "cannot read"),
        (lambda folder: (folder / "station.toml").write_text("name"), "does not name"),
        (lambda folder: (folder / "edge.key").write_text("none"), "not an edge's key"),
        (lambda folder: (folder / "identity").write_text("a file"), "identity"),
        (lambda folder: keep_key(folder, b"none", 0o600), "not a private key"),
        (lambda folder: keep_key(folder, private_pem(ec.SECP384R1()), 0o600), "not a P-256 key"),
        (lambda folder: keep_key(folder, private_pem(ec.SECP256R1()), 0o640), "others can read"),
    ],
)
def test_a_station_that_cannot_be_used_says_why(
    station: Path, ticket: Ticket, spoil: Callable[[Path], object], why: str
) -> None:
    spoil(station)
    with pytest.raises(EnrolRefused, match=why) as error:
        prepare(station, ticket)
    assert "\n" not in str(error.value)


def private_pem(curve: ec.EllipticCurve) -> bytes:
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(curve).private_bytes(serialization.Encoding.PEM, form, nothing)


def certificate_for(station: Path, ticket: Ticket, authority: Authority) -> str:
    return authority.issue(prepare(station, ticket).csr, EDGE, datetime.now(UTC)).decode()


def order(number: int) -> RolloutOrder:
    return RolloutOrder(number, "a" * 64, "push_t", "shadow", (), NOW_S, NOW_S + 60.0)


def offered(station: Path, number: int) -> bool:
    with Journal(station / JOURNAL_FILE, lambda: NOW_S) as journal:
        return journal.offer(order(number))


def test_a_station_set_up_anew_takes_the_order_that_its_ticket_speaks_of_and_no_earlier_one(
    station: Path, ticket: Ticket, authority: Authority
) -> None:
    with pytest.raises(OrderRefused, match="if this edge was set up anew, enrol it"):
        offered(station, 5000)
    brought = replace(ticket, order=5000)
    keep(station, brought, certificate_for(station, brought, authority))
    with pytest.raises(OrderRefused, match="up to 4999 were seen here"):
        offered(station, 4999)
    with pytest.raises(OrderRefused, match="over 1,000 above 4999"):
        offered(station, 6000)
    assert offered(station, 5000)


@pytest.mark.parametrize("number", [0, 1, 7, 8])
def test_no_ticket_takes_a_station_back_to_an_earlier_order(
    station: Path, ticket: Ticket, authority: Authority, number: int
) -> None:
    offered(station, 8)
    older = replace(ticket, order=number)
    keep(station, older, certificate_for(station, older, authority))
    with Journal(station / JOURNAL_FILE) as journal:
        assert (journal.line().floor, journal.line().order) == (8, order(8))


def keep_key(folder: Path, data: bytes, mode: int) -> None:
    path = Tls.of(folder / "identity").key
    path.parent.mkdir()
    path.write_bytes(data)
    path.chmod(mode)


def test_nothing_but_identity_and_a_missing_root_is_written(
    station: Path, ticket: Ticket, authority: Authority
) -> None:
    request = prepare(station, ticket)
    before = files(station)
    certificate = authority.issue(request.csr, EDGE, datetime.now(UTC)).decode()
    written = keep(station, ticket, certificate)
    after = files(station)
    assert {*after} - {*before} == {"identity/ca.pem", "identity/certificate.pem", "trust/root.json"}
    assert {str(path.relative_to(station)) for path in written} == {*after} - {*before}
    assert {name: after[name] for name in before} == before
    keep(station, replace(ticket, root="another"), certificate)
    assert files(station) == after  # a root that is trusted already stays


def no_certificates(authority: Authority, folder: Path, csr: bytes) -> dict[str, tuple[bytes, str]]:
    stranger = Authority(folder / "stranger").issue(csr, EDGE, datetime.now(UTC))
    other_key, other_name = (make_identity(authority, folder / name, name) for name in (EDGE, OTHER))
    return {
        "noise": (b"noise", "not a certificate of the authority's"),
        "another authority's": (stranger, "not a certificate of the authority's"),
        "for another key": (other_key.certificate.read_bytes(), "another key"),
        "for another name": (other_name.certificate.read_bytes(), "another name"),
    }


def test_a_certificate_that_is_not_for_this_station_is_not_kept(
    station: Path, ticket: Ticket, authority: Authority, tmp_path: Path
) -> None:
    request = prepare(station, ticket)
    before = files(station)
    for name, (certificate, why) in no_certificates(authority, tmp_path, request.csr).items():
        with pytest.raises(EnrolRefused, match=why):
            keep(station, ticket, certificate.decode())
        assert files(station) == before, name


# -- the command ------------------------------------------------------------------------------------------------------

# A test may be run by what ignores SIGINT, which children inherit.
COMMAND = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from edge.cli import main; main()"


def start(folder: Path, ticket: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "enrol", str(folder), str(ticket)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def write(ticket: Ticket, path: Path) -> Path:
    path.write_text(ticket.to_text())
    return path


def until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


def test_the_command_waits_for_a_person_and_goes_on_after_an_interruption(world: World, station: Path) -> None:
    ticket = write(world.ticket(), station.parent / "t.ticket")
    with start(station, ticket) as first:
        until(lambda: world.states() == ["waiting"])
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=LONG_S)
    assert first.returncode == 130
    assert said.splitlines()[-1] == "enpire-edge: stopped; the same command goes on with it"
    [row] = world.people.rows()
    assert f"this station's fingerprint: {row.fingerprint}" in said
    world.people.approve(EDGE, row.fingerprint, world.now_s)
    with start(station, ticket) as second:
        written, said = second.communicate(timeout=LONG_S)
    assert second.returncode == 0
    names = {str(Path(line).relative_to(station)) for line in written.splitlines()}
    assert names == {"identity/ca.pem", "identity/certificate.pem", "trust/root.json"}
    assert f'endpoint = "{world.endpoint}"' in said
    with world.linked(station) as line:
        assert line.ask(key_of(EDGE, "lease")) == b"work"


def test_the_command_waits_for_a_coordinator_that_is_not_there(station: Path, ticket: Ticket) -> None:
    with start(station, write(ticket, station.parent / "t.ticket")) as waiting:
        until(lambda: (station / "identity" / "key.pem").exists())
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.0)
        waiting.send_signal(signal.SIGINT)
        waiting.communicate(timeout=LONG_S)
    assert waiting.returncode == 130
    assert not Tls.of(station / "identity").certificate.exists()


def test_the_command_ends_with_the_coordinator_s_no(world: World, station: Path) -> None:
    ticket = world.ticket()
    world.wait(station, ticket)
    world.people.deny(EDGE, world.now_s)
    result = CliRunner().invoke(app, ["enrol", str(station), str(write(ticket, station.parent / "t.ticket"))])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        "enpire-edge: the coordinator refuses: it was denied at the coordinator; ask there why"
    )


def test_the_command_without_a_ticket_says_so(station: Path) -> None:
    result = CliRunner().invoke(app, ["enrol", str(station), str(station / "none.ticket")])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "cannot read" in result.stderr


def test_only_the_ticket_s_coordinator_is_asked(world: World, station: Path, authority: Authority) -> None:
    """A ticket that pins another authority finds nobody at this coordinator's door."""
    ticket = world.ticket()
    other = replace(ticket, authority=authority.file.read_text())
    with at_the_door(other) as line:
        for _ in range(5):
            with pytest.raises(NoAnswer):
                ask(line, prepare(station, other))
            time.sleep(0.1)
    assert world.states() == ["ticket"]
    world.wait(station, ticket)


def test_the_uplink_of_an_enrolled_station_shows_its_certificate_and_renews_it(world: World) -> None:
    [name] = make_stations(world.folder, 1, 3, "push_t", world.endpoint)
    station = world.folder / name
    world.now_s -= 4 * 86400.0  # so that more than half of its life is over now
    ticket = world.ticket(name)
    world.wait(station, ticket)
    world.approve(station, ticket)
    world.now_s = time.time()
    certificate = Tls.of(station / "identity").certificate
    first = certificate.read_bytes()
    with subprocess.Popen([sys.executable, "-m", "edge.uplink", str(station)], stderr=subprocess.PIPE) as uplink:
        try:
            until(lambda: certificate.read_bytes() != first)
            until(lambda: any(key.startswith(key_of(name, "")) for key in world.asked))
            uplink.terminate()
            _, said = uplink.communicate(timeout=LONG_S)
        finally:
            uplink.kill()
    assert uplink.returncode == 0
    assert b"the certificate is renewed" in said
    [row] = world.people.rows()
    assert certificate.read_text() == row.certificate
