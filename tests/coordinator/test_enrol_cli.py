"""What a person types to enrol an edge, and what is said where that cannot be."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coordinator.access import access_control
from coordinator.cli import app
from coordinator.enrolment import Enrolment
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from coordinator.rollouts import Rollout
from coordinator.store import FILE, Store
from edge.enrol import prepare, read_ticket
from edge.identity import check_certificate, load_key, validity
from edge.records import RolloutOrder, order_to_json
from edge.wire.enrolment import Request
from edge.wire.tls import Tls

EDGE, NOW_S = "arm-01", 1_700_000_000.0
AT = ["--endpoint", "tls/lab.example:7447"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    Repository.create(folder / "trust", Keyring.for_demo(folder / "keys"))
    monkeypatch.chdir(tmp_path)
    return folder


def enrol(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["enrol", *map(str, arguments)])


def come(run: Path, ticket_file: Path) -> Request:
    """Let a machine come with a ticket, as it does at the door."""
    station = run.parent / "station"
    station.mkdir(exist_ok=True)
    (station / "station.toml").write_text(f'name = "{EDGE}"\n')
    request = prepare(station, read_ticket(ticket_file))
    with Enrolment(run / FILE) as people:
        row = people.of_ticket(request.ticket)
        assert row is not None
        people.bind(row, request.tls_key.hex(), request.ledger_key.hex(), request.fingerprint, NOW_S)
    return request


def test_a_console_gets_an_identity_that_only_its_owner_reads_and_may_listen_until_it_is_revoked(run: Path) -> None:
    made = enrol("console", run, "ann", "--days", 2)
    assert made.exit_code == 0, made.output
    tls = Tls.of(run.parent / "ann.console")
    assert made.stdout.split() == [
        str(path.relative_to(run.parent)) for path in (tls.authority, tls.certificate, tls.key)
    ]
    for path in (tls.authority, tls.certificate, tls.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(tls.key.parent.stat().st_mode) == 0o700
    check_certificate(tls.certificate.read_text(), tls.authority.read_bytes(), "console:ann", load_key(tls.key))
    since, until = validity(tls.certificate)
    assert timedelta(days=2) <= until - since <= timedelta(days=2, hours=1)
    with Enrolment(run / FILE) as people:
        assert people.edges() == {"console:ann"}
        rules = access_control([*people.edges(), EDGE])
        assert enrol("revoke", run, "console:ann").exit_code == 0
        assert people.edges() == frozenset()
    assert rules == access_control([EDGE], ["console:ann"])
    refused = enrol("console", run, "ann", "--out", "again")
    assert (refused.exit_code, "would be let in again" in refused.stderr) == (2, True)
    assert not (run.parent / "again").exists()


@pytest.mark.parametrize(
    "words",
    [("a:b",), ("",), ("ann", "--days", 0), ("ann", "--days", 1e9), ("ann", "--days", "nan"), ("ann", "--out", ".")],
)
def test_no_console_is_made_of_nonsense(run: Path, words: tuple[object, ...]) -> None:
    (run.parent / "key.pem").write_text("somebody's")
    refused = enrol("console", run, *words)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
    assert states(run) == []
    assert (run.parent / "key.pem").read_text() == "somebody's"


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o775, 0o702, 0o720, 0o777, 0o1777])
def test_a_private_key_goes_into_no_folder_that_others_can_write_to(run: Path, mode: int) -> None:
    folder = run.parent / "there"
    folder.mkdir()
    folder.chmod(mode)
    made = enrol("console", run, "ann", "--out", "there")
    if mode & 0o022:
        assert (made.exit_code, len(made.stderr.splitlines())) == (2, 1)
        assert "chmod go-w there" in made.stderr
        assert (list(folder.iterdir()), states(run)) == ([], [])
        folder.chmod(mode & ~0o022)
        assert enrol("console", run, "ann", "--out", "there").exit_code == 0  # as it said
    else:
        assert made.exit_code == 0, made.output
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.iterdir())


def states(run: Path) -> list[str]:
    said = json.loads(enrol("list", run, "--json").stdout)
    assert all("certificate" not in row for row in said)
    return [row["state"] for row in said]


def test_a_ticket_holds_all_that_a_machine_needs_and_only_its_owner_reads_it(run: Path) -> None:
    made = enrol("ticket", run, EDGE, "--hours", 2, *AT)
    assert (made.exit_code, made.stdout) == (0, f"{EDGE}.ticket\n")
    path = run.parent / f"{EDGE}.ticket"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ticket = read_ticket(path)
    assert (ticket.edge, ticket.endpoint, ticket.door) == (EDGE, "tls/lab.example:7447", "tls/lab.example:7448")
    assert ticket.authority == (run / "authority" / "ca.pem").read_text()
    assert ticket.root.encode() == Repository.open(run / "trust").root()
    assert ticket.secret not in (run / FILE).read_bytes().hex()
    assert ticket.secret.encode() not in (run / FILE).read_bytes()


def test_a_ticket_holds_the_number_of_the_newest_order(run: Path) -> None:
    enrol("ticket", run, EDGE, *AT)
    assert read_ticket(Path(f"{EDGE}.ticket")).order == 0
    given = RolloutOrder(1500, "", "push_t", "active", (), NOW_S, NOW_S + 60.0, rollback=True)
    Repository.open(run / "trust").assign(EDGE, order_to_json(given), Keyring.for_demo(run / "keys"))
    enrol("ticket", run, EDGE, *AT)
    assert read_ticket(Path(f"{EDGE}.ticket")).order == 1500
    store = Store(run / FILE)  # as after a backup that is older than what the station knows
    store.rollouts([Rollout(EDGE, "b" * 64, 1600, "active", "", "{}", NOW_S)], NOW_S)
    store.leave()
    enrol("ticket", run, EDGE, *AT)
    assert read_ticket(Path(f"{EDGE}.ticket")).order == 1600


def test_a_person_sees_who_waits_and_approves_by_six_words(run: Path) -> None:
    enrol("ticket", run, EDGE, *AT, "--out", "one.ticket")
    assert states(run) == ["ticket"]
    words = come(run, Path("one.ticket")).fingerprint
    first, second = enrol("list", run).stdout.splitlines()
    assert first.split()[:2] == [EDGE, "waiting"]
    assert second.strip() == words
    refused = enrol("approve", run, EDGE, "--fingerprint", "six other words")
    assert (refused.exit_code, states(run)) == (2, ["waiting"])
    assert words in refused.stderr
    assert enrol("approve", run, EDGE, "--fingerprint", words).exit_code == 0
    assert states(run) == ["approved"]
    assert enrol("revoke", run, EDGE).exit_code == 0
    assert states(run) == ["revoked"]


def test_a_person_turns_a_machine_away(run: Path) -> None:
    enrol("ticket", run, EDGE, *AT)
    come(run, Path(f"{EDGE}.ticket"))
    assert enrol("deny", run, EDGE).stdout == f"{EDGE}: 1 turned away\n"
    assert states(run) == ["denied"]


def test_the_endpoint_is_what_the_coordinator_said_or_what_is_given(run: Path) -> None:
    with Enrolment(run / FILE) as people:
        people.listens("tls/10.0.0.5:7447", "tls/10.0.0.5:9000")
    for options, found in (
        ([], ("tls/10.0.0.5:7447", "tls/10.0.0.5:9000")),
        (["--door", "tls/other:1"], ("tls/10.0.0.5:7447", "tls/other:1")),
        (AT, ("tls/lab.example:7447", "tls/lab.example:7448")),
    ):
        assert enrol("ticket", run, EDGE, *options).exit_code == 0
        ticket = read_ticket(run.parent / f"{EDGE}.ticket")
        assert (ticket.endpoint, ticket.door) == found


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["ticket", "run", EDGE], "say --endpoint"),
        (["ticket", "nowhere", EDGE, *AT], "no repository"),
        (["ticket", "run", "a/b", *AT], "not a name"),
        (["ticket", "run", EDGE, *AT, "--hours", "0"], "0 hours"),
        (["ticket", "run", EDGE, *AT, "--hours", "nan"], "nan hours"),
        (["ticket", "run", EDGE, "--endpoint", "tcp/lab:1"], "write it as tls/HOST:PORT"),
        (["ticket", "run", EDGE, "--endpoint", "tls/lab:65536"], "write it as tls/HOST:PORT"),
        (["ticket", "run", EDGE, *AT, "--door", "lab"], "write it as tls/HOST:PORT"),
        (["ticket", "run", EDGE, *AT, "--out", "nowhere/t"], "cannot write nowhere/t"),
        (["ticket", "run", EDGE, *AT, "--out", "notes.txt"], "notes.txt is there already"),
        (["list", "nowhere"], "no run"),
        (["approve", "run", EDGE, "--fingerprint", "six words"], "no machine waits"),
        (["deny", "run", EDGE], "no machine waits"),
        (["revoke", "run", EDGE], "nothing to revoke"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(run: Path, arguments: list[str], why: str) -> None:
    notes = run.parent / "notes.txt"
    notes.write_text("important")
    result = enrol(*arguments)
    assert notes.read_text() == "important"
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert why in result.stderr
