"""What was said to be on the disk is there after a power cut or a storm of kills, and nothing else.

Short versions of bench/power_cuts.py and bench/kill_storm.py, and of the files that are sealed by a sync and a rename
every cut there is.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.blobs import BlobRefused, Blobs
from coordinator.network import free_endpoint
from edge.ledger import Ledger
from edge.ledger_file import _load_key
from edge.records import Assignment, Lease, Outcome, Trial
from edge.trials.recording import Recording
from edge.trust.floor import Floor, mend_floor, read_floor, write_floor
from edge.uplink.courier import Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.settings import Settings
from tests.harness.accounts import (
    broken_links,
    missing_recordings,
    quarantined,
    read_accounts,
    torn_recordings,
)
from tests.harness.folder_power import FolderDisk, PowerIsOff
from tests.harness.lab_folder import TASK, LabFolder, supplied

ROOT = Path(__file__).parents[2]
EDGE = "station-1"
NOW_S = 1_700_000_000.0
LONG_S = 60.0  # bound of a wait; nothing is measured by it
CUTS = 20
DRAWS = 12  # of what is left after one cut
DATA = b"what happened" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
STORM = {"trials": 300, "kills": 6, "seed": 4}


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["ledger", "store"])
def test_nothing_that_a_call_promised_is_lost_in_power_cuts(what: str) -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    from bench.power_cuts import cut_all

    counts = cut_all(what, None, CUTS, seed=1)
    assert counts["cuts"] == CUTS
    assert counts["promised"] > 10 * CUTS
    assert counts - Counter(cuts=CUTS, promised=counts["promised"]) == Counter()


@pytest.mark.parametrize("what", ["ledger", "store"])
def test_the_same_cuts_lose_something_where_commits_are_not_synced(what: str) -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    from bench.power_cuts import cut_all

    assert cut_all(what, "NORMAL", CUTS, seed=1)["lost"] > 0


def test_what_is_lost_invented_or_cut_in_two_is_counted() -> None:
    pytest.importorskip("apsw", reason="only the standard module, which takes no disk of one's own")
    from bench.power_cuts import compare
    from tests.harness.world import ANY, Step

    flight = Step(dict, {("c",): 3, ("d",): ANY})
    promised = {("a",): 1, ("b",): 2}
    for found, expected in (
        ({**promised}, {}),
        ({**promised, ("c",): 3, ("d",): 9}, {}),
        ({**promised, ("c",): 3}, {"halved": 1}),
        ({**promised, ("c",): 4, ("d",): 9}, {"halved": 1, "invented": 1}),
        ({**promised, ("e",): 5}, {"invented": 1}),
        ({("a",): 1}, {"lost": 1}),
        ({("a",): 1, ("b",): 0}, {"lost": 1}),
    ):
        assert +compare(promised, flight, found) == Counter(expected)


# -- files that are sealed by a sync and a rename ---------------------------------------------------------------------


def write_recording(folder: Path) -> str:
    recording = Recording(folder / "r.mcap")
    recording.event(1_000, "trial", "it began")
    return recording.seal()[0]


def check_recording(folder: Path, promised: str | None) -> None:
    path = folder / "r.mcap"
    if promised or path.exists():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert digest == promised or not promised
        assert path.read_bytes().endswith(b"\x89MCAP0\r\n")


def take_blob(folder: Path) -> str:
    blobs = Blobs(folder)
    assert blobs.take(SHA256, len(DATA), 0, DATA[:500]) == 500
    assert blobs.take(SHA256, len(DATA), 500, DATA[500:]) == len(DATA)
    return SHA256


def check_blob(folder: Path, promised: str | None) -> None:
    blobs = Blobs(folder)
    if promised or blobs.path(SHA256).exists():
        assert blobs.path(SHA256).read_bytes() == DATA
    for _ in range(2):  # the first attempt may find that what was left is damaged, and drop it
        try:
            here = 0
            while here < len(DATA):
                here = blobs.take(SHA256, len(DATA), here, DATA[here:])
            break
        except BlobRefused:
            continue
    assert blobs.path(SHA256).read_bytes() == DATA


def make_key(folder: Path) -> str:
    return _load_key(folder / "edge.key").private_bytes_raw().hex()


def check_key(folder: Path, promised: str | None) -> None:
    found = make_key(folder)
    assert found == promised or not promised
    assert make_key(folder) == found


def raise_floor(folder: Path) -> str:
    copies = folder / "floor.json", folder / "second.json"
    for revoked in ({"a": "now"}, {"a": "now", "b": "now"}):
        floor = write_floor(copies, replace(read_floor(copies) or Floor(), revoked=revoked))
    return " ".join(floor.revoked)


def check_floor(folder: Path, promised: str | None) -> None:
    copies = folder / "floor.json", folder / "second.json"
    found = read_floor(copies)
    assert found is not None or not promised
    if found is not None:
        assert promised in (None, " ".join(found.revoked))
        mend_floor(copies, found)
        assert all(read_floor([path]) == found for path in copies)


Sealing = tuple[Callable[[Path], str], Callable[[Path, str | None], None]]
SEALED: dict[str, Sealing] = {
    "recording": (write_recording, check_recording),
    "blob": (take_blob, check_blob),
    "key": (make_key, check_key),
    "floor": (raise_floor, check_floor),
}


def cut_everywhere(folder: Path, sealing: Sealing, lies: bool = False) -> int:
    """Cut before each operation, then after the last, look each time, and return how many operations there were."""
    work, check = sealing
    for operations in range(100):
        for seed in range(DRAWS):
            place = folder / f"{operations}-{seed}"
            place.mkdir()
            promised = None
            with FolderDisk(place, cut_before=operations, lies=lies) as disk, suppress(PowerIsOff):
                promised = work(place)
            disk.restart(random.Random(seed))
            check(place, promised)
        if promised:
            return operations
    raise AssertionError("it never ends")


@pytest.mark.parametrize("name", SEALED)
def test_a_sealed_file_is_whole_or_not_there_wherever_the_power_is_cut(name: str, tmp_path: Path) -> None:
    assert cut_everywhere(tmp_path, SEALED[name]) >= 3  # file, rename, folder


@pytest.mark.parametrize("name", SEALED)
def test_a_disk_that_lies_about_its_syncs_is_found_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - each file says it in its own way
        cut_everywhere(tmp_path, SEALED[name], lies=True)


def make_ledger(settings: Settings) -> Ledger:
    """Return a ledger with one trial and its recording."""
    (settings.folder / "r.mcap").write_bytes(DATA)
    assignment = Assignment("a1", settings.station_hash, "dev-1", {}, 7, "screen")
    ledger = Ledger(settings.ledger_path, settings.name)
    ledger.add_lease(Lease("l1", settings.task, (assignment,), NOW_S + 1.0))
    epoch, sequence = ledger.open_trial(assignment, "l1", NOW_S)
    trial = Trial(
        edge=settings.name, epoch=epoch, sequence=sequence, assignment_id="a1", lease_id="l1", task=settings.task,
        bundle=assignment.bundle, start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="",
        detail="done", progress=1.0, measures={}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0,
        policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5,
        station_hash=settings.station_hash, calibration_hash=settings.calibration_hash, software="s",
        recording=SHA256, recording_bytes=len(DATA),
    )  # fmt: skip
    ledger.seal(trial, settings.folder / "r.mcap")
    return ledger


def test_a_recording_that_a_cut_left_damaged_at_the_coordinator_is_sent_anew_without_a_restart(tmp_path: Path) -> None:
    lab, settings = LabFolder(tmp_path / "desk"), Settings(tmp_path, EDGE, TASK, free_endpoint(), "5" * 64, "6" * 64)
    lab.admit(settings.folder)
    command = [sys.executable, str(ROOT / "tests" / "harness" / "desk.py"), settings.endpoint, str(tmp_path / "desk")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as desk, make_ledger(settings) as ledger:
        try:
            assert desk.stdout is not None
            assert desk.stdout.readline()  # it listens
            recordings = tmp_path / "desk" / "recordings"
            with (
                Coordinator(settings.endpoint, settings.name) as line,
                supplied(settings, ZenohFetcher(line, settings.name)) as supply,
            ):
                courier = Courier(settings, ledger, line, supply, "s")
                while not courier.answered:  # the session opens without the coordinator
                    with suppress(NoAnswer):
                        courier.send_trials(NOW_S, LONG_S)
                (recordings / f"{SHA256}.part").write_bytes(bytes(len(DATA)))
                assert courier.send_piece(NOW_S) == courier.send_piece(NOW_S) == 0
                assert "hash" in courier.refusal
                courier.turn(NOW_S)
            assert ledger.unsent_recordings(1) == []
            assert (recordings / f"{SHA256}.mcap").read_bytes() == DATA
        finally:
            desk.terminate()


# -- kills ------------------------------------------------------------------------------------------------------------


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


ONE = "rowid = (SELECT MAX(rowid) FROM trials WHERE cause = '')"
OTHER_LINK = f"UPDATE trials SET chain = '{'0' * 64}' WHERE {ONE}"
OTHER_RECORDING = f"UPDATE trials SET recording = '{'0' * 64}' WHERE {ONE}"


def test_no_kill_loses_doubles_or_invents_a_trial_and_whatever_one_might_do_is_counted(tmp_path: Path) -> None:
    folder, edges = tmp_path / "run", [f"station-{number}" for number in range(1, 5)]
    options = [f"--{name}={value}" for name, value in STORM.items()]
    command = [sys.executable, str(ROOT / "bench" / "kill_storm.py"), *options, "--folder", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert [row for row in rows if row["holds"] is False] == []
    assert sum(row["holds"] is True for row in rows) > 10

    database = folder / "coordinator.db"
    whole = database.read_bytes()

    def counts() -> tuple[int, ...]:
        said = read_accounts(folder, edges)
        found = (said.lost, said.forgotten, said.doubled, said.invented, broken_links(folder))
        database.write_bytes(whole)
        return found

    assert counts() == (0, 0, 0, 0, 0)
    write(database, f"DELETE FROM trials WHERE {ONE}")
    assert counts()[:4] == (1, 2, 0, 0)  # its opening and its sealing
    write(database, f"UPDATE trials SET content_sha256 = '{'0' * 64}' WHERE {ONE}")
    assert counts()[:4] == (0, 1, 0, 2)
    write(database, f"UPDATE trials SET sequence = 100000 WHERE {ONE}")
    assert counts()[0] == 1
    write(database, "UPDATE trials SET assignment_id = (SELECT MIN(assignment_id) FROM trials)")
    assert counts()[2] == STORM["trials"] - 1
    write(database, OTHER_LINK)
    assert counts()[4] == 1
    write(database, OTHER_RECORDING)
    assert missing_recordings(folder) == 1
    assert torn_recordings(folder) == quarantined(folder) == 0
    next((folder / "recordings").glob("*.mcap")).write_bytes(b"torn")
    assert torn_recordings(folder) == 1
