"""Copies a run into another folder while its coordinator works on, and marks what stations need no longer keep.

In this order, so that a crash anywhere leaves nothing marked that the other folder does not hold:

- the database is copied under an unfinished name and checked; all that follows goes by what this copy lists;
- recordings that are missing there are linked, or copied where that is another disk, and hashed on the way;
- all of it is synced, and the copy of the database gets its name;
- then the run notes the backup and marks those trials and recordings as replicated.

A backup is never replaced by one that holds less. To restore one, copy it over an empty run folder; the keys that sign
bundles are not in it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from coordinator.errors import CoordinatorError
from coordinator.store import FILE, Store

LOCK = "backup.lock"
UNFINISHED = ".part"
BUSY_S = 30.0  # to wait for the coordinator's commits
MARKED_AT_ONCE = 1000  # in one transaction, as the coordinator has to wait for it,
PAUSE_S = 0.05  # and time between two for it to go first
CHUNK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)

LISTED = "SELECT sha256, file, bytes, replicated FROM recordings"
UNMARKED = "SELECT edge, epoch, sequence, content_sha256 FROM trials WHERE replicated = 0"
MARK_TRIAL = """
UPDATE trials SET replicated = 1
WHERE edge = ? AND epoch = ? AND sequence = ? AND content_sha256 = ? AND replicated = 0
"""
MARK_RECORDING = "UPDATE recordings SET replicated = 1 WHERE sha256 = ? AND replicated = 0"
NOTE = "INSERT INTO backups (folder, trials, recordings, bytes, made_unix_s) VALUES (?, ?, ?, ?, ?)"
LACKING = """
SELECT COUNT(*) FROM earlier.trials AS kept WHERE NOT EXISTS (
    SELECT 1 FROM main.trials AS new WHERE new.edge = kept.edge AND new.epoch = kept.epoch
    AND new.sequence = kept.sequence AND new.content_sha256 = kept.content_sha256
)
"""
FOREIGN = "SELECT COUNT(*) FROM earlier.campaigns WHERE campaign_id NOT IN (SELECT campaign_id FROM main.campaigns)"

Progress = Callable[[str, int, int], None]  # what is being copied, how much of it is done, of how much


class BackupRefused(CoordinatorError):
    """What was asked for would be no backup, or would destroy one; nothing was changed."""


class BackupFailed(CoordinatorError):
    """It could not be finished; an earlier one in the same folder is as it was."""


@dataclass(frozen=True)
class Backup:
    """What a finished backup holds."""

    folder: str
    trials: int
    recordings: int
    bytes: int
    newly_replicated: int  # trials that no backup held before
    damaged: tuple[str, ...]  # recordings that the run has lost or that are broken there: their stations keep them
    same_disk: bool  # as the run: then it does not outlive that disk


@dataclass(frozen=True)
class _Recording:
    """A recording as the copied database lists it."""

    sha256: str
    file: str  # under the run folder
    bytes: int
    replicated: int  # 1 where an earlier backup held it


def make_backup(run_dir: Path, dest: Path, progress: Progress) -> Backup:
    """Copy the run in `run_dir` into the folder `dest`, made if need be, and return what the copy holds.

    Raises:
        BackupRefused: no run, or a destination that cannot be one.
        BackupFailed: a disk is full or broken, or the database stays busy.
        StoreError: the run's database is of another version.
    """
    _check(run_dir, dest)
    with _explained(dest):
        dest.mkdir(exist_ok=True)
        _sync(dest.parent)
    with _locked(dest), _unfinished(dest) as copy_path:
        with _explained(dest):
            progress("database", 0, 1)
            _copy_database(run_dir / FILE, copy_path)
            progress("database", 1, 1)
        with closing(sqlite3.connect(f"{copy_path.resolve().as_uri()}?mode=ro", uri=True)) as copy:
            _refuse_less(copy, dest / FILE)
            with _explained(dest):
                listed = [_Recording(*row) for row in copy.execute(LISTED)]
                held = _copy_recordings(run_dir, dest, listed, progress)
                _sync(copy_path)
                copy_path.replace(dest / FILE)
                _sync(dest)
            [trials] = copy.execute("SELECT COUNT(*) FROM trials").fetchone()
            size_bytes = (dest / FILE).stat().st_size + sum(item.bytes for item in held)
            with _explained(run_dir):
                newly = _mark(run_dir / FILE, copy, held)
                _note(run_dir / FILE, (str(dest.resolve()), trials, len(held), size_bytes, time.time()))
    return Backup(
        folder=str(dest),
        trials=trials,
        recordings=len(held),
        bytes=size_bytes,
        newly_replicated=newly,
        damaged=tuple(sorted({item.sha256 for item in listed} - {item.sha256 for item in held})),
        same_disk=run_dir.stat().st_dev == dest.stat().st_dev,
    )


def _check(run_dir: Path, dest: Path) -> None:
    if not (run_dir / FILE).is_file():
        raise BackupRefused(f"{run_dir} holds no {FILE}; give the folder of a run, such as runs/<id>")
    if not dest.parent.is_dir():
        raise BackupRefused(f"there is no folder {dest.parent}; make it, or mount its disk")
    if dest.exists() and not dest.is_dir():
        raise BackupRefused(f"{dest} is a file; give a folder")
    if dest.resolve().is_relative_to(run_dir.resolve()):
        raise BackupRefused(f"{dest} lies in the run itself; give a folder elsewhere, best on another disk")
    beside = [name for name in (f"{FILE}-wal", f"{FILE}-journal") if (dest / name).exists()]
    if beside:  # renaming another database under them would break it
        raise BackupRefused(
            f"{dest / beside[0]} shows that a program uses that database; close it, or give another folder"
        )


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    with _explained(dest), open(dest / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupRefused(f"another backup is being written to {dest}; wait for it") from error
        yield


@contextmanager
def _unfinished(dest: Path) -> Iterator[Path]:
    """Give a name for the copy of the database; what still has it at the end, or had it before, is removed."""
    path = dest / f"{FILE}{UNFINISHED}"
    path.unlink(missing_ok=True)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _copy_database(source: Path, copy: Path) -> None:
    with closing(_open(source)) as run:
        outdated = not run.execute("SELECT 1 FROM pragma_table_info('trials') WHERE name = 'replicated'").fetchone()
    if outdated:
        Store(source).close()  # brings it to the newest version
    _refuse_full(copy.parent, source.stat().st_size)
    with closing(_open(source)) as run:
        run.execute("VACUUM INTO ?", (str(copy),))
    with closing(sqlite3.connect(f"{copy.resolve().as_uri()}?mode=ro", uri=True)) as made:
        [verdict] = made.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise BackupFailed(f"the copy of {source} is damaged ({verdict}); check both disks, and try again")


def _open(database: Path) -> sqlite3.Connection:
    """Return a connection to a database that its coordinator may be writing."""
    run = sqlite3.connect(f"{database.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_S)
    run.execute("PRAGMA synchronous = FULL")
    return run


def _refuse_full(folder: Path, wanted_bytes: int) -> None:
    free_mb, wanted_mb = shutil.disk_usage(folder).free / 1e6, wanted_bytes / 1e6
    if not free_mb >= wanted_mb:
        raise BackupFailed(f"disk full: {free_mb:.0f} MB free on {folder}, {wanted_mb:.0f} MB needed; free some first")


def _refuse_less(copy: sqlite3.Connection, earlier: Path) -> None:
    """Raise where the backup that is there holds anything that the new one lacks: it may be another run's."""
    if not earlier.exists():
        return
    try:
        copy.execute("ATTACH ? AS earlier", (f"{earlier.resolve().as_uri()}?mode=ro",))
        [lacking], [foreign] = copy.execute(LACKING).fetchone(), copy.execute(FOREIGN).fetchone()
        copy.execute("DETACH earlier")
    except sqlite3.Error as error:
        raise BackupRefused(f"{earlier} is no database of a run ({error}); give another folder") from error
    if lacking or foreign:
        raise BackupRefused(
            f"{earlier} holds {lacking} trials and {foreign} campaigns that this run lacks; give another folder"
        )


def _copy_recordings(run_dir: Path, dest: Path, listed: list[_Recording], progress: Progress) -> list[_Recording]:
    """Bring every recording that is whole in the run to the destination, and return those that are there, synced."""
    missing = [item for item in listed if not _is_there(dest, item)]
    if run_dir.stat().st_dev != dest.stat().st_dev:
        _refuse_full(dest, sum(item.bytes for item in missing))
    lost = set()
    for done, item in enumerate(missing):
        progress("recordings", done, len(missing))
        if not _bring(run_dir, dest, item):
            lost.add(item.sha256)
    progress("recordings", len(missing), len(missing))
    held = [item for item in listed if item.sha256 not in lost]
    for folder in {(dest / item.file).parent for item in held}:
        _sync(folder)
    return held


def _is_there(dest: Path, item: _Recording) -> bool:
    # It got its name once its content was hashed and synced, so its size suffices.
    path = dest / item.file
    return _is_plain(item.file) and path.is_file() and path.stat().st_size == item.bytes


def _bring(run_dir: Path, dest: Path, item: _Recording) -> bool:
    """Bring one recording, and return whether the run had it whole."""
    source, target = run_dir / item.file, dest / item.file
    if not _is_plain(item.file) or not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}{UNFINISHED}")
    unfinished.unlink(missing_ok=True)
    try:
        try:
            os.link(source, unfinished)
        except OSError:  # another disk, or one without links
            shutil.copyfile(source, unfinished)
        with open(unfinished, "rb") as copied:
            os.fsync(copied.fileno())
            whole = hashlib.file_digest(copied, "sha256").hexdigest() == item.sha256
        if whole:
            unfinished.replace(target)
        return whole
    finally:
        unfinished.unlink(missing_ok=True)


def _is_plain(file: str) -> bool:
    """Return whether a file's name from the database stays under the folder that it is put to."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _mark(database: Path, copy: sqlite3.Connection, held: Sequence[_Recording]) -> int:
    """Mark in the run what the copy and its folder hold; return how many trials no backup held before."""
    trials = copy.execute(UNMARKED).fetchall()
    recordings = [(item.sha256,) for item in held if not item.replicated]
    with closing(_open(database)) as run:
        marked = _in_parts(run, MARK_TRIAL, trials)
        _in_parts(run, MARK_RECORDING, recordings)
    return marked


def _note(database: Path, row: tuple[str, int, int, int, float]) -> None:
    with closing(_open(database)) as run:
        run.execute(NOTE, row)


def _in_parts(run: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Run a statement for each row, in transactions short enough to wait for; return how many it changed."""
    changed = 0
    for first in range(0, len(rows), MARKED_AT_ONCE):
        if first:
            time.sleep(PAUSE_S)
        run.execute("BEGIN IMMEDIATE")
        changed += run.executemany(statement, rows[first : first + MARKED_AT_ONCE]).rowcount
        run.execute("COMMIT")
    return changed


def _sync(path: Path) -> None:
    """Put a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(where: Path) -> Iterator[None]:
    """Say in one line what a disk or a database refused.

    Raises:
        BackupFailed: it did.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "errno", None) in FULL or getattr(error, "sqlite_errorcode", None) in SQLITE_FULL:
            raise BackupFailed(f"disk full: free space on {where}; stations keep what no backup holds") from error
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise BackupFailed(f"the database in {where} stays busy; try again") from error
        raise BackupFailed(f"the backup failed at {where}: {error}; nothing is marked that it does not hold") from error
