"""A backup holds what it says, marks exactly that, and a crash at any point marks nothing that it does not hold."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator import backup as module
from coordinator.backup import BackupFailed, BackupRefused, make_backup
from coordinator.store import FILE, Store

ROOT = Path(__file__).parents[2]
TRIAL = {
    "edge": "station-1", "epoch": "e1", "content_sha256": "c", "received_unix_s": 1.0, "assignment_id": "a",
    "lease_id": "l", "task": "t", "bundle": "b", "start_id": "s", "purpose": "screen", "seed": 1, "outcome": "failure",
    "cause": "near", "detail": "2 mm off", "progress": 0.9, "measures": "{}", "achieved_start": "{}", "reset_s": 1.0,
    "reset_tries": 1, "trial_s": 1.0, "policy_steps": 30, "wall_reset_s": 1.0, "wall_trial_s": 1.0,
    "started_unix_s": 1.0, "ended_unix_s": 2.0, "station_hash": "", "calibration_hash": "", "software": "",
    "recording_bytes": 0, "notes": "{}",
}  # fmt: skip


def quiet(what: str, done: int, total: int) -> None:
    """Show no progress."""


def insert(db: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))


def add_trials(run: Path, sequences: range, with_recording: bool = True) -> None:
    """Keep trials, each with its recording on the disk."""
    (run / "recordings").mkdir(exist_ok=True)
    with closing(sqlite3.connect(run / FILE)) as db, db:
        for sequence in sequences:
            content = f"recording {sequence}".encode() * 50
            sha256 = hashlib.sha256(content).hexdigest() if with_recording else ""
            insert(db, "trials", TRIAL | {"sequence": sequence, "content_sha256": f"{sequence}", "recording": sha256})
            if with_recording:
                file = f"recordings/{sha256}.mcap"
                (run / file).write_bytes(content)
                size = {"sha256": sha256, "edge": "station-1", "file": file, "bytes": len(content)}
                insert(db, "recordings", size | {"received_unix_s": 1.0})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    Store(folder / FILE).close()
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        campaign = {"campaign_id": "run", "task": "t", "seed": 1, "stations": 1, "target_successes": 1}
        insert(db, "campaigns", campaign | {"target_trials": 1, "budget_minutes": 1.0, "started_unix_s": 1.0})
    add_trials(folder, range(1, 4))
    return folder


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def column(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute(query)]


def marked(run: Path) -> tuple[list[int], list[str]]:
    """Return the numbers of the replicated trials, and the names of the replicated recordings."""
    trials = column(run / FILE, "SELECT sequence FROM trials WHERE replicated = 1 ORDER BY 1")
    return trials, column(run / FILE, "SELECT sha256 FROM recordings WHERE replicated = 1 ORDER BY 1")


def check_marked_is_held(run: Path, dest: Path) -> None:
    """Nothing is marked that the backup does not hold whole."""
    trials, recordings = marked(run)
    held = column(dest / FILE, "SELECT sequence FROM trials") if (dest / FILE).exists() else []
    assert set(trials) <= set(held)
    for sha256 in recordings:
        assert hashlib.sha256((dest / "recordings" / f"{sha256}.mcap").read_bytes()).hexdigest() == sha256


def test_a_backup_holds_the_run_and_says_so_in_it(run: Path, dest: Path) -> None:
    made = make_backup(run, dest, quiet)
    assert (made.trials, made.recordings, made.newly_replicated, made.damaged) == (3, 3, 3, ())
    assert column(dest / FILE, "SELECT sequence FROM trials") == [1, 2, 3]
    assert column(dest / FILE, "PRAGMA integrity_check") == ["ok"]
    assert marked(run)[0] == [1, 2, 3]
    assert len(marked(run)[1]) == 3
    check_marked_is_held(run, dest)
    assert column(run / FILE, "SELECT folder FROM backups") == [str(dest)]
    assert column(run / FILE, "SELECT bytes FROM backups") == [made.bytes] == [sum(
        path.stat().st_size for path in [dest / FILE, *(dest / "recordings").iterdir()]
    )]  # fmt: skip
    assert sorted(path.name for path in dest.iterdir()) == ["backup.lock", FILE, "recordings"]


def test_a_restored_backup_is_a_run(run: Path, dest: Path, tmp_path: Path) -> None:
    make_backup(run, dest, quiet)
    restored = shutil.copytree(dest, tmp_path / "restored")
    with Store(restored / FILE):
        pass
    files = column(restored / FILE, "SELECT file FROM recordings")
    assert all((restored / file).is_file() for file in files)
    assert column(restored / FILE, "SELECT name FROM search WHERE search MATCH 'near'") == [
        f"station-1/e1/{sequence}" for sequence in (1, 2, 3)
    ]


def test_the_next_backup_brings_only_what_is_new(run: Path, dest: Path) -> None:
    make_backup(run, dest, quiet)
    old = {path.name: path.stat().st_ino for path in (dest / "recordings").iterdir()}
    add_trials(run, range(4, 6))
    steps: list[tuple[str, int, int]] = []
    made = make_backup(run, dest, lambda *step: steps.append(step))
    assert (made.trials, made.recordings, made.newly_replicated) == (5, 5, 2)
    assert [step for step in steps if step[0] == "recordings"] == [("recordings", done, 2) for done in (0, 1, 2)]
    assert {path.name: path.stat().st_ino for path in (dest / "recordings").iterdir()}.items() >= old.items()
    assert marked(run)[0] == [1, 2, 3, 4, 5]


def test_what_comes_while_it_is_made_is_not_marked(run: Path, dest: Path) -> None:
    def meanwhile(what: str, done: int, total: int) -> None:
        if (what, done) == ("database", 1):
            add_trials(run, range(4, 5))

    assert make_backup(run, dest, meanwhile).trials == 3
    assert marked(run)[0] == [1, 2, 3]
    check_marked_is_held(run, dest)


def test_a_trial_of_other_content_under_the_same_name_is_not_marked(run: Path, dest: Path) -> None:
    def meanwhile(what: str, done: int, total: int) -> None:
        if what == "recordings" and done == total:
            with closing(sqlite3.connect(run / FILE)) as db, db:
                db.execute("UPDATE trials SET content_sha256 = 'other' WHERE sequence = 2")

    make_backup(run, dest, meanwhile)
    assert marked(run)[0] == [1, 3]


@pytest.mark.parametrize("harm", ["lost", "broken", "cut"])
def test_a_recording_that_the_run_has_not_whole_is_told_and_not_marked(run: Path, dest: Path, harm: str) -> None:
    [name] = column(run / FILE, "SELECT sha256 FROM recordings LIMIT 1")
    path = run / "recordings" / f"{name}.mcap"
    content = path.read_bytes()
    path.unlink()
    if harm != "lost":
        path.write_bytes({"broken": b"?" + content[1:], "cut": b""}[harm])
    made = make_backup(run, dest, quiet)
    assert (made.damaged, made.recordings) == ((name,), 2)
    assert name not in marked(run)[1]
    assert not (dest / "recordings" / f"{name}.mcap").exists()
    path.write_bytes(content)  # its station has sent it again
    assert make_backup(run, dest, quiet).damaged == ()
    assert name in marked(run)[1]


def test_a_recording_that_was_cut_in_the_backup_is_brought_again(run: Path, dest: Path) -> None:
    make_backup(run, dest, quiet)
    [name] = column(run / FILE, "SELECT sha256 FROM recordings LIMIT 1")
    path = dest / "recordings" / f"{name}.mcap"
    path.unlink()  # it is a link to the run's own
    path.write_bytes(b"cut")
    make_backup(run, dest, quiet)
    check_marked_is_held(run, dest)


def test_without_links_it_copies(run: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    assert make_backup(run, dest, quiet).recordings == 3
    inodes = [{path.stat().st_ino for path in (folder / "recordings").iterdir()} for folder in (run, dest)]
    assert inodes[0] & inodes[1] == set()
    check_marked_is_held(run, dest)


@pytest.mark.parametrize("file", ["/etc/passwd", "../run/coordinator.db", "recordings/../../x"])
def test_a_name_that_leads_out_of_the_folder_is_not_followed(run: Path, dest: Path, file: str) -> None:
    with closing(sqlite3.connect(run / FILE)) as db, db:
        row = {"sha256": "f" * 64, "edge": "station-1", "file": file, "bytes": os.path.getsize("/etc/passwd")}
        insert(db, "recordings", row | {"received_unix_s": 1.0})
    assert make_backup(run, dest, quiet).damaged == ("f" * 64,)
    assert "f" * 64 not in marked(run)[1]


def test_a_running_coordinator_goes_on_meanwhile(run: Path, dest: Path) -> None:
    with Store(run / FILE) as store:
        store.note("info", "before", None, 1.0)
        make_backup(run, dest, lambda *step: store.note("info", f"{step}", None, 2.0))
        store.note("info", "after", None, 3.0)
        assert marked(run)[0] == [1, 2, 3]
        assert column(run / FILE, "SELECT COUNT(*) FROM events") == [8]
    assert column(dest / FILE, "SELECT text FROM events")[0] == "before"


def test_it_waits_for_a_commit(run: Path, dest: Path) -> None:
    release = threading.Event()
    began = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(run / FILE, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            began.set()
            release.wait(10.0)
            db.execute("ROLLBACK")

    def progress(what: str, done: int, total: int) -> None:
        if what == "recordings" and done == total:
            writer.start()
            began.wait(10.0)
            threading.Timer(0.2, release.set).start()

    writer = threading.Thread(target=write)
    assert make_backup(run, dest, progress).newly_replicated == 3
    writer.join()


def test_a_database_that_stays_busy_is_said_and_nothing_is_marked(
    run: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.01)
    with closing(sqlite3.connect(run / FILE, isolation_level=None)) as db:

        def progress(what: str, done: int, total: int) -> None:
            if what == "recordings" and done == total:
                db.execute("BEGIN IMMEDIATE")

        with pytest.raises(BackupFailed, match="stays busy; try again"):
            make_backup(run, dest, progress)
    assert marked(run) == ([], [])
    assert make_backup(run, dest, quiet).newly_replicated == 3


def test_an_older_database_is_brought_up_first(tmp_path: Path, dest: Path) -> None:
    run = tmp_path / "old"
    run.mkdir()
    with closing(sqlite3.connect(run / FILE)) as old:
        old.executescript((ROOT / "coordinator" / "migrations" / "0001_first.sql").read_text())
        old.execute("PRAGMA user_version = 1")
        insert(old, "trials", TRIAL | {"sequence": 1, "recording": ""})
        old.commit()
    assert make_backup(run, dest, quiet).trials == 1
    assert marked(run)[0] == [1]


# -- refusals ---------------------------------------------------------------------------------------------------------


def refused(run: Path, dest: Path) -> str:
    before = marked(run) if (run / FILE).exists() else None
    with pytest.raises(BackupRefused) as caught:
        make_backup(run, dest, quiet)
    if before is not None:
        assert marked(run) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_run_no_parent_no_folder_and_the_run_itself_are_refused(run: Path, dest: Path, tmp_path: Path) -> None:
    assert "holds no coordinator.db" in refused(tmp_path, dest)
    assert "mount its disk" in refused(run, tmp_path / "not mounted" / "backup")
    assert not (tmp_path / "not mounted").exists()
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(run, tmp_path / "file")
    (tmp_path / "link").symlink_to(run)
    for inside in (run, run / "recordings", run / "new", tmp_path / "run" / ".." / "run", tmp_path / "link"):
        assert "lies in the run itself" in refused(run, inside)
    assert not (run / "new").exists()


def test_another_runs_backup_is_not_replaced(run: Path, dest: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    add_trials(other, range(9, 10))
    make_backup(other, dest, quiet)
    before = (dest / FILE).read_bytes()
    assert "holds 1 trials and 0 campaigns that this run lacks" in refused(run, dest)
    assert (dest / FILE).read_bytes() == before


def test_a_run_that_was_reset_does_not_replace_its_backup(run: Path, dest: Path) -> None:
    make_backup(run, dest, quiet)
    (run / FILE).unlink()
    Store(run / FILE).close()
    assert "holds 3 trials and 1 campaigns" in refused(run, dest)


@pytest.mark.parametrize("content", [b"", b"some other file" * 100])
def test_what_is_no_database_of_a_run_is_not_replaced(run: Path, dest: Path, content: bytes) -> None:
    dest.mkdir()
    (dest / FILE).write_bytes(content)
    assert "is no database of a run" in refused(run, dest)
    assert (dest / FILE).read_bytes() == content


def test_the_folder_of_a_run_that_goes_on_is_no_destination(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Store(other / FILE) as store:
        store.note("info", "it runs", None, 1.0)
        assert "a program uses that database" in refused(run, other)


def test_two_backups_at_once_are_refused(run: Path, dest: Path) -> None:
    dest.mkdir()
    with open(dest / "backup.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another backup is being written" in refused(run, dest)
    assert make_backup(run, dest, quiet).trials == 3


# -- a disk that is full, and crashes ---------------------------------------------------------------------------------

LIMITED = """
import os, resource, sys
from pathlib import Path
from coordinator.backup import BackupFailed, make_backup
def no_link(*_): raise OSError(18, "Invalid cross-device link")
os.link = no_link
limit = int(sys.argv[3])
def progress(what, done, total):
    if what == sys.argv[4] and done == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    make_backup(Path(sys.argv[1]), Path(sys.argv[2]), progress)
except BackupFailed as error:
    print(error)
"""


@pytest.mark.parametrize(("what", "limit"), [("database", 8192), ("recordings", 100)])
def test_a_disk_that_takes_no_more_is_said_and_nothing_is_marked(run: Path, dest: Path, what: str, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED, str(run), str(dest), f"{limit}", what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"disk full: free space on {dest}; stations keep what no backup holds\n", done.stderr
    assert marked(run) == ([], [])
    assert [path.name for path in dest.rglob("*.part")] == []
    assert make_backup(run, dest, quiet).newly_replicated == 3


def test_too_little_room_is_said_before_anything_is_copied(
    run: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(BackupFailed, match=r"disk full: 0 MB free on .*; free some first"):
        make_backup(run, dest, quiet)
    assert not (dest / FILE).exists()


def test_everything_is_on_the_disk_before_anything_is_marked(
    run: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        assert marked(run) == ([], [])

    def noted_replace(source: Path, target: Path) -> None:
        replace(source, target)
        steps.append(("name", Path(target).name))
        assert marked(run) == ([], [])

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    make_backup(run, dest, quiet)
    names = column(run / FILE, "SELECT sha256 || '.mcap' FROM recordings")
    for name in names:
        assert steps.index(("sync", f"{name}.part")) < steps.index(("name", name)) < steps.index(("sync", "recordings"))
    end = [("sync", "recordings"), ("sync", f"{FILE}.part"), ("name", FILE), ("sync", dest.name)]
    assert steps[-4:] == end
    assert marked(run)[0] == [1, 2, 3]


def lines_run(action: Callable[[], object], die_at: int = 0) -> list[tuple[str, int]]:
    """Run something and return the module's lines that it went through; at one of them the process is gone."""
    lines: list[tuple[str, int]] = []

    def trace(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            lines.append((frame.f_code.co_name, frame.f_lineno))
            if len(lines) == die_at:
                os._exit(9)
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return lines


def test_killed_at_any_line_it_has_marked_nothing_that_it_does_not_hold(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MARKED_AT_ONCE", 2)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)

    def fresh(number: int) -> tuple[Path, Path]:
        return shutil.copytree(run, tmp_path / f"run-{number}"), tmp_path / f"backup-{number}"

    here, there = fresh(0)
    lines = lines_run(lambda: make_backup(here, there, quiet))
    # Each line when it is first come to, those that mark every time.
    moments = [n for n, line in enumerate(lines, 1) if line not in lines[: n - 1] or line[0] == "_in_parts"]
    assert len(moments) > 70
    partly = 0
    for die_at in moments:
        here, there = fresh(die_at)
        child = os.fork()
        if child == 0:
            lines_run(lambda here=here, there=there: make_backup(here, there, quiet), die_at)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        check_marked_is_held(here, there)
        partly += 0 < len(marked(here)[0]) < 3
        if die_at % 7 == 0:
            assert make_backup(here, there, quiet).trials == 3
            assert marked(here)[0] == [1, 2, 3]
        shutil.rmtree(here)
        shutil.rmtree(there, ignore_errors=True)
    assert partly > 0
