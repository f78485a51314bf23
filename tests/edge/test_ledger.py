"""No trial that was begun is lost, doubled or invented, whoever crashes and whatever arrives twice."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.ledger import DiskFull, Held, Identity, Ledger, LedgerError, Rescued
from edge.records import Assignment, Lease, Outcome, Trial, decode, encode, first_link

NOW_S = 1_700_000_000.0
LATER_S = NOW_S + 600.0
EDGE = "station-1"
# A child that was forgotten ends by itself, so that no reader of its output waits for ever.
CHILD = """
import signal, sys
from dataclasses import replace
from pathlib import Path
from edge.ledger import Ledger, LedgerError
from edge.records import Trial, decode
signal.alarm(60)
def say(*words):
    print(*words, flush=True)
"""
# Opens the ledger when it is told to, and whatever is pending when it is told again.
RACER = """
say("ready")
input()
ledger = Ledger(Path(sys.argv[1]), "station-1")
say(ledger.epoch)
input()
while found := ledger.next_assignment(0.0):
    try:
        say(ledger.open_trial(*found, 0.0)[1], found[0].assignment_id)
    except LedgerError:  # another was faster
        continue
"""
# Begins and seals trials, one step a line that it is sent.
WORKER = """
ledger = Ledger(Path(sys.argv[1]), "station-1")
trial = decode(Trial, bytes.fromhex(sys.argv[2]))
while input():
    assignment, lease_id = ledger.next_assignment(0.0)
    _, sequence = ledger.open_trial(assignment, lease_id, 0.0)
    say("open", sequence)
    input()
    ledger.seal(replace(trial, epoch=ledger.epoch, sequence=sequence, assignment_id=assignment.assignment_id), None)
    say("sealed", sequence)
"""


def unacked(ledger: Ledger, limit: int) -> list[bytes]:
    return [sealed.body for sealed in ledger.unacked(limit)]


def assignments(*names: str) -> tuple[Assignment, ...]:
    return tuple(Assignment(name, "b" * 64, "dev-1", {"x_m": 0.3}, 7, "screen") for name in names)


def lease(*names: str, lease_id: str = "l1", expires_unix_s: float = LATER_S) -> Lease:
    return Lease(lease_id, "push_t", assignments(*names), expires_unix_s)


def trial_of(ledger: Ledger, sequence: int, name: str = "a1", recording: str = "") -> Trial:
    """Return a finished trial that the ledger may seal."""
    return Trial(
        edge=ledger.edge, epoch=ledger.epoch, sequence=sequence, assignment_id=name, lease_id="l1", task="push_t",
        bundle="b" * 64, start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="", detail="done",
        progress=1.0, measures={"coverage": 0.97}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0,
        policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5,
        station_hash="5" * 64, calibration_hash="6" * 64, software="s", recording=recording,
    )  # fmt: skip


def begin(ledger: Ledger) -> tuple[int, Assignment]:
    """Open the next assignment and return its number."""
    found = ledger.next_assignment(NOW_S)
    assert found is not None
    return ledger.open_trial(*found, NOW_S)[1], found[0]


def recover(ledger: Ledger) -> list[Trial]:
    return ledger.recover(
        LATER_S, task="push_t", station_hash="5" * 64, calibration_hash="6" * 64, software="after the crash"
    )


def rows(path: Path, query: str) -> list[Any]:
    """Return what the file itself holds."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        return database.execute(query).fetchall()


def child(path: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that does with the ledger what `code` says."""
    command = [sys.executable, "-c", CHILD + code, str(path), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_a_trial_goes_from_open_to_sealed_to_acknowledged(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        sequence, assignment = begin(ledger)
        assert [(item.sequence, item.lease_id, item.assignment) for item in ledger.open_trials()] == [
            (sequence, "l1", assignment)
        ]
        assert unacked(ledger, 9) == []
        trial = trial_of(ledger, sequence)
        ledger.seal(trial, None)
        assert ledger.open_trials() == []
        assert unacked(ledger, 9) == [encode(trial)]
        ledger.acknowledge([trial.identity], NOW_S)
        assert unacked(ledger, 9) == []
        assert ledger.next_assignment(NOW_S) is None


def test_what_one_connection_commits_the_other_sees(path: Path) -> None:
    with Ledger(path, EDGE) as station, Ledger(path, EDGE) as uplink:
        uplink.add_lease(lease("a1"))
        trial = trial_of(station, begin(station)[0])
        station.seal(trial, None)
        assert unacked(uplink, 9) == [encode(trial)]
        uplink.acknowledge([trial.identity], NOW_S)
        assert unacked(station, 9) == []


def test_a_second_seal_is_refused_and_the_first_stays(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        first = trial_of(ledger, begin(ledger)[0])
        ledger.seal(first, None)
        for again in (first, replace(first, outcome=Outcome.FAILURE, cause="near")):
            with pytest.raises(LedgerError, match="not open"):
                ledger.seal(again, None)
        assert unacked(ledger, 9) == [encode(first)]
        ledger.acknowledge([first.identity], NOW_S)
        with pytest.raises(LedgerError, match="not open"):
            ledger.seal(first, None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"edge": "station-2"}, "not of this ledger"),
        ({"epoch": "another"}, "not open"),
        ({"sequence": 2}, "not open"),
        ({"sequence": -1}, "not open"),
    ],
)
def test_a_trial_that_was_not_begun_here_is_not_sealed(path: Path, values: dict[str, object], complaint: str) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        trial = trial_of(ledger, begin(ledger)[0])
        with pytest.raises(LedgerError, match=complaint):
            ledger.seal(replace(trial, **values), None)  # type: ignore[arg-type]
        assert unacked(ledger, 9) == []
        ledger.seal(trial, None)


def test_an_assignment_is_opened_once_and_a_refusal_uses_up_no_number(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2"))
        sequence, first = begin(ledger)
        for refused in (first, *assignments("never leased")):
            with pytest.raises(LedgerError, match="not pending"):
                ledger.open_trial(refused, "l1", NOW_S)
        ledger.seal(trial_of(ledger, sequence), None)
        with pytest.raises(LedgerError, match="not pending"):
            ledger.open_trial(first, "l1", NOW_S)
        assert begin(ledger)[0] == sequence + 1


def test_a_lease_may_arrive_twice(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        assert [ledger.add_lease(lease("a1", "a2")) for _ in range(3)] == [True, False, False]
        assert ledger.pending_count(NOW_S) == 2
        ledger.seal(trial_of(ledger, begin(ledger)[0]), None)
        assert not ledger.add_lease(lease("a1", "a2"))
        assert ledger.pending_count(NOW_S) == 1


def test_a_lease_is_kept_whole_or_not_at_all(path: Path) -> None:
    whole = lease("a1", "a2")
    broken = replace(whole, assignments=(whole.assignments[0], replace(whole.assignments[1], seed=1 << 70)))
    with Ledger(path, EDGE) as ledger:
        with pytest.raises(OverflowError):
            ledger.add_lease(broken)
        assert ledger.pending_count(NOW_S) == 0
        assert ledger.add_lease(whole)
        assert ledger.pending_count(NOW_S) == 2


def test_an_assignment_that_comes_in_two_leases_is_run_once(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2"))
        assert ledger.add_lease(lease("a2", "a3", lease_id="l2"))
        begun = [begin(ledger)[1].assignment_id for _ in range(ledger.pending_count(NOW_S))]
        assert begun == ["a1", "a2", "a3"]
        assert ledger.next_assignment(NOW_S) is None


@pytest.mark.parametrize(
    ("now_unix_s", "left"), [(LATER_S - 1.0, 1), (LATER_S - 1e-3, 1), (LATER_S, 0), (LATER_S + 1e-3, 0)]
)
def test_work_is_begun_only_before_its_lease_expires(path: Path, now_unix_s: float, left: int) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        assert ledger.pending_count(now_unix_s) == left
        assert (ledger.next_assignment(now_unix_s) is not None) == bool(left)
        # A clock that is set back does not bring back what was given up.
        assert ledger.pending_count(NOW_S) == left
        if not left:
            with pytest.raises(LedgerError, match="not pending"):
                ledger.open_trial(assignments("a1")[0], "l1", NOW_S)


def test_an_expired_lease_takes_only_its_own_pending_work_with_it(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2", expires_unix_s=NOW_S + 1))
        ledger.add_lease(lease("b1", lease_id="l2"))
        sequence, _ = begin(ledger)
        found = ledger.next_assignment(NOW_S + 2)
        assert found is not None
        assert (found[0].assignment_id, found[1]) == ("b1", "l2")
        ledger.seal(trial_of(ledger, sequence), None)
        assert len(unacked(ledger, 9)) == 1


def test_unacked_returns_the_oldest_first_byte_for_byte(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2", "a3"))
        begun = [begin(ledger) for _ in range(3)]
        bodies = {}
        for sequence, assignment in reversed(begun):
            trial = replace(trial_of(ledger, sequence, assignment.assignment_id), notes={"sealed": f"as {sequence}"})
            ledger.seal(trial, None)
            bodies[sequence] = encode(trial)
        oldest_first = [bodies[sequence] for sequence in sorted(bodies)]
        assert [unacked(ledger, limit) for limit in range(5)] == [oldest_first[:limit] for limit in range(5)]


@pytest.mark.parametrize(
    "foreign",
    [
        lambda mine: ("station-2", mine[1], mine[2]),
        lambda mine: (mine[0], "another epoch", mine[2]),
        lambda mine: (mine[0], mine[1], mine[2] + 1),
    ],
)
def test_what_is_said_of_other_trials_is_passed_over(path: Path, foreign: Callable[[Identity], Identity]) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        trial = trial_of(ledger, begin(ledger)[0])
        ledger.seal(trial, None)
        ledger.acknowledge([foreign(trial.identity)], NOW_S)
        ledger.refused(foreign(trial.identity), "who knows")
        assert unacked(ledger, 9) == [encode(trial)]


def test_an_acknowledgement_before_the_seal_changes_nothing(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        trial = trial_of(ledger, begin(ledger)[0])
        ledger.acknowledge([trial.identity], NOW_S)
        ledger.refused(trial.identity, "too early")
        ledger.seal(trial, None)
        assert unacked(ledger, 9) == [encode(trial)]


def test_a_refused_trial_is_kept_and_sent_no_more(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        trial = trial_of(ledger, begin(ledger)[0], recording="1" * 64)
        ledger.seal(trial, path.parent / "a.mcap")
        ledger.refused(trial.identity, "never seen such a bundle")
        ledger.acknowledge([trial.identity], NOW_S)
        assert (unacked(ledger, 9), ledger.unsent_recordings(9)) == ([], [])
    kept = rows(path, "SELECT state, body, refused_because FROM trials")
    assert kept == [("refused", encode(trial), "never seen such a bundle")]


def test_a_recording_is_sent_after_its_trial_and_once(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2", "a3"))
        trials = []
        for number, recording in enumerate(("1" * 64, "", "2" * 64)):
            sequence, assignment = begin(ledger)
            trials.append(trial_of(ledger, sequence, assignment.assignment_id, recording))
            ledger.seal(trials[-1], path.parent / f"{number}.mcap" if recording else None)
        assert ledger.unsent_recordings(9) == []
        ledger.acknowledge([item.identity for item in trials], NOW_S)
        waiting = [("1" * 64, path.parent / "0.mcap"), ("2" * 64, path.parent / "2.mcap")]
        assert [ledger.unsent_recordings(limit) for limit in (1, 9)] == [waiting[:1], waiting]
        ledger.recording_sent("1" * 64, NOW_S)
        assert ledger.unsent_recordings(9) == waiting[1:]


def test_a_crash_leaves_an_invalid_trial_under_the_number_that_was_begun(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2", "a3"))
        ledger.seal(trial_of(ledger, begin(ledger)[0]), None)
        begun = [begin(ledger) for _ in range(2)]
    with Ledger(path, EDGE) as ledger:
        found = recover(ledger)
        assert [(item.sequence, item.assignment_id) for item in found] == [
            (sequence, item.assignment_id) for sequence, item in begun
        ]
        for item in found:
            assert (item.outcome, item.cause, item.recording) == (Outcome.INVALID, "crash", "")
            assert (item.edge, item.epoch, item.lease_id) == (EDGE, ledger.epoch, "l1")
            assert (item.started_unix_s, item.ended_unix_s) == (NOW_S, LATER_S)
        assert unacked(ledger, 9)[1:] == [encode(item) for item in found]
        assert (recover(ledger), ledger.open_trials(), ledger.pending_count(NOW_S)) == ([], [], 0)
        with pytest.raises(LedgerError, match="not open"):
            ledger.seal(trial_of(ledger, begun[0][0]), None)


def test_what_a_crashed_run_had_recorded_goes_with_its_trial(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2"))
        begun = [begin(ledger)[0] for _ in range(2)]
        rescued = {begun[0]: Rescued(path.with_name("cut.mcap"), "7" * 64, 5)}
        found = ledger.recover(
            LATER_S, task="push_t", station_hash="5" * 64, calibration_hash="6" * 64, software="s",
            rescue=lambda trial: rescued.get(trial.sequence),
        )  # fmt: skip
        assert [(trial.recording, trial.recording_bytes) for trial in found] == [("7" * 64, 5), ("", 0)]
        ledger.acknowledge([trial.identity for trial in found], NOW_S)
        assert ledger.unsent_recordings(9) == [("7" * 64, path.with_name("cut.mcap"))]


def test_no_kill_between_open_and_seal_loses_a_number(path: Path) -> None:
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    draw = random.Random(seed)
    said_sealed: set[int] = set()
    for round_number in range(8):
        with Ledger(path, EDGE) as ledger:
            ledger.add_lease(lease(*(f"{round_number}-{i}" for i in range(9)), lease_id=f"l{round_number}"))
            template = encode(trial_of(ledger, 1))
        # Half of the workers wait between open and seal when they are killed, the others may be anywhere.
        waits_open = round_number % 2 == 0
        steps = 2 * draw.randrange(1, 6) + 1
        with child(path, WORKER, template.hex()) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n" * steps)
            worker.stdin.flush()
            said = [worker.stdout.readline() for _ in range(steps if waits_open else draw.randrange(steps))]
            worker.kill()
            said += worker.stdout.readlines()
        assert worker.returncode == -signal.SIGKILL
        said_sealed |= {int(line.split()[1]) for line in said if line.startswith("sealed")}
        with Ledger(path, EDGE) as ledger:
            left_open = [item.sequence for item in ledger.open_trials()]
            assert len(left_open) == 1 if waits_open else len(left_open) <= 1
            assert [item.sequence for item in recover(ledger)] == left_open
            kept = [decode(Trial, body) for body in unacked(ledger, 999)]
        assert [item.sequence for item in kept] == list(range(1, len(kept) + 1))
        assert len({item.assignment_id for item in kept}) == len(kept)
        sound = {item.sequence for item in kept if item.outcome is Outcome.SUCCESS}
        assert said_sealed <= sound
        assert {item.cause for item in kept if item.sequence not in sound} <= {"crash"}


def test_of_processes_that_come_first_at_once_one_makes_the_ledger_and_each_assignment_is_opened_once(
    path: Path,
) -> None:
    racers = [child(path, RACER) for _ in range(3)]

    def let_all_go_on() -> None:
        for process in racers:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def next_lines() -> list[str]:
        return [process.stdout.readline().strip() for process in racers if process.stdout is not None]

    assert next_lines() == ["ready"] * 3
    let_all_go_on()
    epochs = next_lines()
    with Ledger(path, EDGE) as ledger:
        assert epochs == [ledger.epoch] * 3
        ledger.add_lease(lease(*(f"a{number:02d}" for number in range(50))))
    let_all_go_on()
    opened = [line for process in racers for line in process.communicate()[0].splitlines()]
    assert sorted(opened) == sorted(f"{number + 1} a{number:02d}" for number in range(50))
    assert [process.returncode for process in racers] == [0, 0, 0]
    assert rows(path, "SELECT COUNT(*) FROM identity") == [(1,)]


def test_a_random_walk_never_loses_doubles_or_invents_a_trial(path: Path) -> None:
    seed = time.time_ns() % 2**32
    print(f"seed {seed}")
    draw = random.Random(seed)
    pending: list[str] = []
    begun: dict[int, str] = {}
    sealed: dict[int, bytes] = {}
    gone = 0
    ledger = Ledger(path, EDGE)
    for step in range(250):
        move = draw.choice(["lease", "begin", "begin", "seal", "seal", "answer", "again", "crash"])
        if move == "lease":
            names = [f"{step}-{i}" for i in range(draw.randrange(4))]
            ledger.add_lease(lease(*names, lease_id=f"l{step}"))
            pending += names
        elif move == "begin" and pending:
            sequence, assignment = begin(ledger)
            assert assignment.assignment_id == pending.pop(0)
            assert sequence == gone + len(sealed) + len(begun) + 1
            begun[sequence] = assignment.assignment_id
        elif move == "seal" and begun:
            sequence = draw.choice(list(begun))
            trial = trial_of(ledger, sequence, begun.pop(sequence))
            ledger.seal(trial, None)
            sealed[sequence] = encode(trial)
        elif move == "answer" and sealed:
            sequence = draw.choice(list(sealed))
            identity = (EDGE, ledger.epoch, sequence)
            if draw.random() < 0.8:
                ledger.acknowledge([identity], NOW_S)
            else:
                ledger.refused(identity, "no")
            del sealed[sequence]
            gone += 1
        elif move in ("again", "crash"):
            ledger.close()
            ledger = Ledger(path, EDGE)
        if move == "crash":
            sealed |= {trial.sequence: encode(trial) for trial in recover(ledger)}
            begun.clear()
        assert unacked(ledger, 999) == [sealed[sequence] for sequence in sorted(sealed)]
        assert [item.sequence for item in ledger.open_trials()] == sorted(begun)
        assert ledger.pending_count(NOW_S) == len(pending)
    ledger.close()


def test_a_ledger_keeps_its_epoch_and_a_new_one_gets_another(path: Path) -> None:
    epochs = []
    for _ in range(3):
        for _ in range(2):
            with Ledger(path, EDGE) as ledger:
                epochs.append(ledger.epoch)
        shutil.rmtree(path.parent)
    assert epochs[::2] == epochs[1::2]
    assert len(set(epochs)) == 3
    assert all(epochs)


def test_a_ledger_serves_only_its_own_edge(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
    with pytest.raises(LedgerError, match=r"belongs to edge 'station-1', not 'station-2'"):
        Ledger(path, "station-2")
    with Ledger(path, EDGE) as ledger:
        assert ledger.pending_count(NOW_S) == 1


def test_a_newer_format_is_refused_and_left_alone(path: Path) -> None:
    Ledger(path, EDGE).close()
    rows(path, "PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="format 99"):
        Ledger(path, EDGE)
    assert rows(path, "PRAGMA user_version") == [(99,)]


def test_what_is_no_ledger_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "noise.db").write_bytes(b"not a database" * 100)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.db").mkdir()
    for wrong in ("noise.db", "file/ledger.db", "folder.db"):
        with pytest.raises(LedgerError, match="cannot use the ledger") as caught:
            Ledger(tmp_path / wrong, EDGE)
        assert "\n" not in str(caught.value)


def test_a_full_disk_is_said_and_loses_nothing(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1", "a2"))
        trial = trial_of(ledger, begin(ledger)[0])
        ledger._db.execute("PRAGMA max_page_count = 1")  # SQLite then allows no page more than there are
        big = lease(*(f"b{number}" for number in range(999)), lease_id="l2")
        with pytest.raises(LedgerError, match=f"disk full: free space on {path.parent}, nothing was lost"):
            ledger.add_lease(big)
        assert [item.sequence for item in ledger.open_trials()] == [trial.sequence]
        assert ledger.pending_count(NOW_S) == 1
        ledger._db.execute("PRAGMA max_page_count = 1000000")
        assert ledger.add_lease(big)
        ledger.seal(trial, None)
        assert unacked(ledger, 9) == [encode(trial)]


def test_a_write_that_the_disk_does_not_take_is_said_and_undone(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        ledger.add_lease(lease("a1"))
        sequence, _ = begin(ledger)
        body = encode(trial_of(ledger, sequence))
    code = """
import resource
ledger = Ledger(Path(sys.argv[1]), "station-1")
trial = decode(Trial, bytes.fromhex(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        ledger.seal(trial, None)
    except LedgerError as error:
        say(error)
say([item.sequence for item in ledger.open_trials()])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.seal(trial, None)
"""
    with child(path, code, body.hex()) as process:
        said = process.communicate()[0].splitlines()
    assert process.returncode == 0
    assert said == [f"disk full: free space on {path.parent}, nothing was lost"] * 2 + [f"[{sequence}]"]
    with Ledger(path, EDGE) as ledger:
        assert unacked(ledger, 9) == [body]


def sealed_trials(ledger: Ledger, count: int, recording: str = "") -> list[Trial]:
    """Run `count` trials; each has a recording of its own where there is one."""
    names = [f"{ledger.epoch}-{number}" for number in range(count)]
    ledger.add_lease(lease(*names, lease_id=f"l-{ledger.epoch}"))
    trials = []
    for name in names:
        found = ledger.next_assignment(NOW_S)
        assert found is not None
        _, sequence = ledger.open_trial(*found, NOW_S)
        trials.append(trial_of(ledger, sequence, name, recording and f"{recording}{name}"))
        ledger.seal(trials[-1], Path(f"/{name}.mcap") if recording else None)
    return trials


def test_each_trial_is_chained_to_the_one_sealed_before_it_and_signed(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        sealed_trials(ledger, 3)
        link, key = first_link(ledger.epoch), Ed25519PublicKey.from_public_bytes(bytes.fromhex(ledger.unacked_key()))
        for sealed in ledger.unacked(9):
            assert sealed.previous == link
            key.verify(sealed.signature, sealed.chain)
            link = sealed.chain
    with Ledger(path, EDGE) as again:
        assert again.unacked_key() == key.public_bytes_raw().hex()
        again.acknowledge([(EDGE, again.epoch, number) for number in (1, 2, 3)], NOW_S)
        assert (again.unacked_key(), again.unacked(9)) == ("", [])
    assert path.with_name("edge.key").stat().st_mode & 0o077 == 0


def test_a_ledger_whose_key_was_lost_numbers_anew_and_sends_the_old_ones_under_the_old_key(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        old, old_key = sealed_trials(ledger, 1), ledger.unacked_key()
    path.with_name("edge.key").unlink()
    with Ledger(path, EDGE) as ledger:
        new = sealed_trials(ledger, 2)
        assert (old[0].epoch != new[0].epoch, new[0].sequence) == (True, 1)
        assert (unacked(ledger, 9), ledger.unacked_key()) == ([encode(old[0])], old_key)
        ledger.acknowledge([old[0].identity], NOW_S)
        assert unacked(ledger, 9) == [encode(trial) for trial in new]
        assert ledger.unacked_key() != old_key


def test_each_process_seals_under_its_own_key_and_only_in_epochs_of_it(path: Path) -> None:
    with Ledger(path, EDGE) as station:
        first = sealed_trials(station, 1)[0]
        path.with_name("edge.key").unlink()
        with Ledger(path, EDGE) as uplink:  # makes a new key, while the station holds the old one
            assert uplink.epoch != first.epoch
            then = sealed_trials(station, 2)
            assert [trial.sequence for trial in then] == [1, 2]
            assert then[0].epoch == then[1].epoch == station.epoch
            keys = []
            for expected in ([first], then):
                batch = uplink.batch(9)
                assert [sealed.body for sealed in batch.trials.values()] == [encode(trial) for trial in expected]
                keys.append(batch.key)
                for sealed in batch.trials.values():
                    Ed25519PublicKey.from_public_bytes(bytes.fromhex(batch.key)).verify(sealed.signature, sealed.chain)
                uplink.acknowledge([trial.identity for trial in expected], NOW_S)
            assert keys == [keys[0]] * 2
    # Whichever key the epochs were begun with, each holds seals of that one only.
    assert not rows(path, "SELECT 1 FROM trials JOIN epochs USING (epoch) WHERE trials.public_key != epochs.public_key")


@pytest.mark.parametrize("how", ["seal", "recover"])
def test_a_trial_begun_under_a_key_that_is_lost_is_sealed_under_a_new_number(path: Path, how: str) -> None:
    with Ledger(path, EDGE) as ledger:
        sealed_trials(ledger, 1)
        ledger.add_lease(lease("open", lease_id="l-open"))
        begin(ledger)
        began = trial_of(ledger, 2, "open")
    path.with_name("edge.key").unlink()
    with Ledger(path, EDGE) as ledger:
        sealed = ledger.seal(replace(began, notes={"said": "so"}), None) if how == "seal" else recover(ledger)[0]
        assert sealed.identity == (EDGE, ledger.epoch, 1) != began.identity
        assert (sealed.assignment_id, sealed.notes["was"]) == ("open", f"{began.epoch}/2")
        assert (how == "seal") == ("said" in sealed.notes)
        assert ledger.open_trials() == []
        ledger.acknowledge([(EDGE, began.epoch, 1)], NOW_S)
        batch = ledger.batch(9)
        assert {identity: item.body for identity, item in batch.trials.items()} == {sealed.identity: encode(sealed)}
        assert [item.previous for item in batch.trials.values()] == [first_link(ledger.epoch)]
        with pytest.raises(LedgerError, match="not open"):
            ledger.seal(began, None)
        assert sealed_trials(ledger, 1)[0].sequence == 2
    # The row stayed, the second of three; its assignment is done.
    assert rows(path, "SELECT sequence FROM trials ORDER BY number") == [(1,), (1,), (2,)]
    assert rows(path, "SELECT state FROM assignments WHERE assignment_id = 'open'") == [("done",)]


def test_a_trial_whose_place_is_taken_goes_under_a_new_number_with_its_recording_and_only_once(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        taken, other = sealed_trials(ledger, 2, recording="r")
        again = ledger.forked(taken.identity, "another stands there")
        assert again is not None
        assert again.identity == (EDGE, ledger.epoch, 1)
        assert again.epoch != taken.epoch
        assert again.notes == {"was": f"{taken.epoch}/1", "forked": "another stands there"}
        assert replace(again, epoch=taken.epoch, sequence=1, notes={}) == taken
        for _ in range(2):
            assert ledger.forked(taken.identity, "another stands there") is None
            ledger.refused(taken.identity, "another reason")
        assert unacked(ledger, 9) == [encode(other)]
        ledger.acknowledge([other.identity], NOW_S)
        assert unacked(ledger, 9) == [encode(again)]
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(ledger.unacked_key()))
        key.verify(ledger.unacked(1)[0].signature, ledger.unacked(1)[0].chain)
        ledger.acknowledge([again.identity], NOW_S)
        file = Path(f"/{taken.assignment_id}.mcap")
        assert (taken.recording, file) in ledger.unsent_recordings(9)
        assert sealed_trials(ledger, 1)[0].identity == (EDGE, again.epoch, 2)
    refused = "SELECT sequence, refused_because FROM trials WHERE state = 'refused'"
    assert rows(path, refused) == [(1, "another stands there")]


def test_no_coordinator_makes_a_ledger_seal_one_trial_for_ever(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        [trial] = sealed_trials(ledger, 1)
        ledger.acknowledge([trial.identity], NOW_S)
        assert ledger.forked(trial.identity, "it is kept already") is None
        ledger.reopen(trial.epoch, 0, [])
        assert ledger.forked(("station-2", trial.epoch, 1), "not of here") is None
        again = ledger.forked(trial.identity, "no")
        assert again is not None
        assert ledger.forked(again.identity, "no again") is None
        assert unacked(ledger, 9) == []
    assert rows(path, "SELECT refused_because FROM trials ORDER BY number") == [("no",), ("no again",)]


def test_a_key_that_is_none_is_refused_in_one_line(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("edge.key").write_text("noise")
    with pytest.raises(LedgerError, match="not an edge's key"):
        Ledger(path, EDGE)


def test_what_the_coordinator_turns_out_not_to_have_is_sent_again(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        trials = sealed_trials(ledger, 6)
        ledger.acknowledge([trial.identity for trial in trials[:5]], NOW_S)
        ledger.refused(trials[5].identity, "noise")
        ledger.replicated(ledger.epoch, [(1, 1), (3, 3)])
        assert ledger.held() == [Held(ledger.epoch, 1, 6)]
        assert ledger.reopen(ledger.epoch, 3, [(1, 1)]) == 3  # it was restored from a copy that is older still
        assert unacked(ledger, 9) == [encode(trials[number]) for number in (0, 3, 4)]
        assert ledger.reopen(ledger.epoch, 3, [(1, 1)]) == 0
        assert ledger.reopen("another", 0, []) == 0


@pytest.mark.parametrize(
    ("steps", "state", "waits"),
    [
        ("sent", "here", True),
        ("sent safe", "here", True),
        ("sent safe replicated", "here", True),
        ("sent safe replicated purging", "here", True),  # the file may still be there
        ("sent safe replicated purging purged", "purged", False),
    ],
)
def test_with_a_trial_that_is_sent_again_goes_its_recording_unless_it_is_deleted(
    path: Path, steps: str, state: str, waits: bool
) -> None:
    with Ledger(path, EDGE) as ledger:
        [trial] = sealed_trials(ledger, 1, recording="r")
        ledger.acknowledge([trial.identity], NOW_S)
        walk(ledger, trial, steps)
        assert ledger.reopen(ledger.epoch, 0, []) == 1
        ledger.acknowledge([trial.identity], NOW_S)
        assert bool(ledger.unsent_recordings(9)) == waits
    assert rows(path, "SELECT recording_state FROM trials") == [(state,)]


def walk(ledger: Ledger, trial: Trial, steps: str) -> None:
    """Mark the recording of an acknowledged trial, a step at a time."""
    does: dict[str, Callable[[], object]] = {
        "sent": lambda: ledger.recording_sent(trial.recording, NOW_S),
        "safe": lambda: ledger.recordings_replicated([trial.recording]),
        "replicated": lambda: ledger.replicated(ledger.epoch, [(1, 1)]),
        "lost": lambda: ledger.recordings_lost([trial.recording]),
        "purging": lambda: ledger.begin_purge(1, False, NOW_S),
        "purged": lambda: ledger.purged(1),
    }
    for step in steps.split():
        does[step]()


@pytest.mark.parametrize(
    ("steps", "begins", "state"),
    [
        ("", False, "here"),
        ("sent", False, "sent"),
        ("sent safe", False, "replicated"),
        ("sent safe replicated", True, "purging"),
        ("sent safe replicated lost", False, "here"),  # after it was found to be one that may go
        ("sent safe replicated purging", True, "purging"),  # a crash came in between
        ("sent safe replicated purging lost", True, "purging"),
        ("sent safe replicated purging purged", False, "purged"),
        ("sent safe replicated purging purged lost", False, "purged"),
    ],
)
def test_a_deletion_begins_only_where_the_recording_may_still_go(
    path: Path, steps: str, begins: bool, state: str
) -> None:
    with Ledger(path, EDGE) as ledger:
        [trial] = sealed_trials(ledger, 1, recording="r")
        ledger.acknowledge([trial.identity], NOW_S)
        walk(ledger, trial, steps)
        assert bool(ledger.purgeable(False, NOW_S)) == begins
        assert ledger.begin_purge(1, False, NOW_S) == begins
        assert not ledger.begin_purge(2, False, NOW_S)
    assert rows(path, "SELECT recording_state FROM trials") == [(state,)]


@pytest.mark.parametrize(("acked_s", "sent_s"), [(0.0, 0.0), (0.0, 5.0), (5.0, 0.0)])
def test_the_week_of_grace_counts_from_when_trial_and_recording_were_both_there(
    path: Path, acked_s: float, sent_s: float
) -> None:
    with Ledger(path, EDGE) as ledger:
        [trial] = sealed_trials(ledger, 1, recording="r")
        ledger.acknowledge([trial.identity], NOW_S + acked_s)
        ledger.recording_sent(trial.recording, NOW_S + sent_s)
        until_s = NOW_S + max(acked_s, sent_s) + 7 * 86400.0
        assert (ledger.purgeable(True, until_s), ledger.begin_purge(1, True, until_s)) == ([], False)
        assert len(ledger.purgeable(True, until_s + 1.0)) == 1
        assert ledger.begin_purge(1, True, until_s + 1.0)


def test_recordings_that_the_coordinator_should_have_are_listed_in_pages_until_they_are_deleted(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        trials = sealed_trials(ledger, 7, recording="r")
        ledger.acknowledge([trial.identity for trial in trials], NOW_S)
        for trial in trials[:6]:
            ledger.recording_sent(trial.recording, NOW_S)
        ledger.recordings_replicated([trials[number].recording for number in (1, 4)])
        ledger.purged(3)
        away = [(number, trials[number - 1].recording) for number in (1, 2, 4, 5, 6)]
        assert [ledger.recordings_away(after, 2) for after in (0, 2, 5, 6)] == [away[:2], away[2:4], away[4:], []]


def test_a_ledger_that_knows_less_than_the_coordinator_numbers_anew(path: Path) -> None:
    with Ledger(path, EDGE) as ledger:
        old = ledger.epoch
        sealed_trials(ledger, 2)
        assert not ledger.knows_less_than(old, 2)
        assert ledger.knows_less_than(old, 3)
        ledger.add_lease(lease("open", lease_id="l-open"))
        found = ledger.next_assignment(NOW_S)
        assert found is not None
        assert ledger.open_trial(*found, NOW_S) == (old, 3)
        new = ledger.begin_epoch()
        assert new == ledger.epoch != old
        assert not ledger.knows_less_than(old, 9)  # it is past
        [trial] = sealed_trials(ledger, 1)
        assert trial.identity == (EDGE, new, 1)
        ledger.seal(replace(trial_of(ledger, 3, "open"), epoch=old), None)  # what was begun before keeps its number
        assert ledger.held() == [Held(old, 1, 3), Held(new, 1, 1)]
        with pytest.raises(sqlite3.IntegrityError):
            ledger._db.execute("INSERT INTO epochs (epoch, public_key) VALUES (?, '')", (old,))


@pytest.mark.parametrize(
    ("steps", "may_go", "may_go_under_pressure"),
    [
        ("", False, False),
        ("acked", False, False),
        ("acked sent", False, True),
        ("acked sent safe", False, True),  # its trial is in no backup yet
        ("acked sent replicated", False, True),
        ("acked sent safe replicated", True, True),
        ("acked sent safe replicated lost", False, False),
        ("acked sent safe replicated reopened", False, False),
    ],
)
def test_a_recording_may_be_deleted_only_where_nothing_would_be_lost(
    path: Path, steps: str, may_go: bool, may_go_under_pressure: bool
) -> None:
    with Ledger(path, EDGE) as ledger:
        [trial] = sealed_trials(ledger, 1, recording="r")
        does: dict[str, Callable[[], object]] = {
            "acked": lambda: ledger.acknowledge([trial.identity], NOW_S),
            "sent": lambda: ledger.recording_sent(trial.recording, NOW_S),
            "safe": lambda: ledger.recordings_replicated([trial.recording]),
            "replicated": lambda: ledger.replicated(ledger.epoch, [(1, 1)]),
            "lost": lambda: ledger.recordings_lost([trial.recording]),
            "reopened": lambda: ledger.reopen(ledger.epoch, 0, []),
        }
        for step in steps.split():
            does[step]()
        week_s = 7 * 86400.0
        assert bool(ledger.purgeable(False, NOW_S + 2 * week_s)) == may_go
        assert ledger.purgeable(True, NOW_S + week_s) == ledger.purgeable(False, NOW_S)
        late = ledger.purgeable(True, NOW_S + week_s + 1.0)
        assert bool(late) == may_go_under_pressure
        for row, file in late:
            assert file == Path(f"/{trial.assignment_id}.mcap")
            assert ledger.begin_purge(row, True, NOW_S + week_s + 1.0)
            assert ledger.purgeable(False, NOW_S) == late
            ledger.purged(row)
        assert ledger.purgeable(True, NOW_S + 2 * week_s) == []


@pytest.mark.parametrize(
    ("cause", "full"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(122, "Disk quota exceeded"), True),
        (OSError(13, "Permission denied"), False),
        (sqlite3.OperationalError("locked"), False),
    ],
)
def test_a_full_disk_is_told_from_other_errors(path: Path, cause: Exception, full: bool) -> None:
    with Ledger(path, EDGE) as ledger, pytest.raises(LedgerError) as caught, ledger._file.explained():
        raise cause
    assert isinstance(caught.value, DiskFull) is full
