"""Writes what a run left behind into a folder of files for other programs: tables, or a dataset to train on.

- What is written stands under `<out>.part` until all of it is on the disk; only then does it get its name, so that a
  broken export is never taken for a whole one. What a broken one left behind, the next one to the same place removes.
- The database is read in one transaction and never written; the coordinator may be at work in it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from coordinator.errors import CoordinatorError
from coordinator.export.lerobot import LEFT_OUT, write_dataset
from coordinator.export.recording import RecordedTrial
from coordinator.export.tables import read_tables, write_tables

DATABASE = "coordinator.db"
FORMATS = ("parquet", "csv", "lerobot")
OUTCOMES = ("success", "failure", "invalid", "all")
MARK = ".enpire-export"  # lies in a folder while an export writes it, and is locked
MOST_NAMED = 10  # trials that are left out, in what a person reads
PREFIX = re.compile(r"[0-9a-f]{1,64}", re.ASCII)

Progress = Callable[[int, int], None]  # done, of


class ExportError(CoordinatorError):
    """Nothing was exported; the message says what to do."""


@dataclass(frozen=True)
class Request:
    """What shall be written."""

    run: Path  # the folder of a run
    form: str  # one of FORMATS
    out: Path | None = None  # None: beside the database
    outcome: str = "all"  # one of OUTCOMES; of episodes
    policy: str = ""  # how the sha256 of the bundle begins; of episodes
    video: bool = True

    @property
    def folder(self) -> Path:
        """Where it will stand."""
        return Path(os.path.abspath(self.out or self.run / f"export-{self.form}"))


def export(request: Request, progress: Progress, dry_run: bool = False) -> dict[str, Any]:
    """Write the export and return what is in it; with `dry_run` only say what would be.

    Raises:
        ExportError: it cannot be made; nothing stands under its name.
    """
    _check(request)
    try:
        with _reading(request.run) as database:
            if request.form == "lerobot":
                return _dataset(request, database, progress, dry_run)
            return _tables(request, database, progress, dry_run)
    except sqlite3.Error as error:
        raise ExportError(f"{request.run / DATABASE} cannot be read as the database of a run: {error}") from error
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(f"cannot write {request.folder}: {reason}; make room there or give another --out") from error


def _check(request: Request) -> None:
    if request.form not in FORMATS:
        raise ExportError(f"--format {request.form} is not known; known: {', '.join(FORMATS)}")
    if request.outcome not in OUTCOMES:
        raise ExportError(f"--outcome {request.outcome} is not known; known: {', '.join(OUTCOMES)}")
    if request.policy and not PREFIX.fullmatch(request.policy):
        raise ExportError(f"--policy {request.policy} is not how a sha256 begins; give its first hex digits")
    if request.form != "lerobot" and (request.outcome != "all" or request.policy or not request.video):
        raise ExportError(f"{request.form} holds every trial; --outcome, --policy and --no-video go with lerobot")
    if os.path.lexists(request.folder):
        raise ExportError(f"{request.folder} is there already; delete it or give another --out")


def describe(told: Mapping[str, Any]) -> list[str]:
    """Return what `export` returned in lines for a person; the first says what and where."""
    left_out = told.get("left_out", {})
    if "tables" in told:
        what = f"{len(told['tables'])} tables of {sum(told['tables'].values())} rows"
    elif "episodes" in told:
        what = f"{told['episodes']} episodes of {told['frames']} frames"
    else:
        what = f"up to {told['recordings']} episodes of {told['frames']} frames out of {told['trials']} trials"
    if "dry_run" in told:
        return [f"would write {told['out']}: {what}"]
    lines = [f"{told['out']}: {what}, {told['bytes'] / 1e6:.1f} MB"]
    lines += [f"left out {name}: {why}" for name, why in islice(left_out.items(), MOST_NAMED)]
    if len(left_out) > MOST_NAMED:
        lines.append(f"left out {len(left_out) - MOST_NAMED} more; {told['out']}/{LEFT_OUT} names them all")
    return lines


@contextmanager
def _reading(run: Path) -> Iterator[sqlite3.Connection]:
    path = run / DATABASE
    if not path.is_file():
        raise ExportError(f"{run} holds no {DATABASE}; give the folder of a run, such as runs/<id>")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)) as database:
        database.text_factory = lambda text: text.decode("utf-8", "replace")
        database.execute("BEGIN")  # all that follows sees one state
        yield database


def _tables(request: Request, database: sqlite3.Connection, progress: Progress, dry_run: bool) -> dict[str, Any]:
    tables = read_tables(database)
    if not tables:
        raise ExportError(f"{request.run / DATABASE} holds no table; it is not the database of a run")
    told = {"format": request.form, "out": str(request.folder), "tables": {table.name: table.rows for table in tables}}
    if dry_run:
        return told | {"dry_run": True}
    with whole_folder(request.folder) as part:
        write_tables(database, tables, part, "csv" if request.form == "csv" else "parquet", progress)
    return told | {"bytes": _bytes(request.folder)}


def _dataset(request: Request, database: sqlite3.Connection, progress: Progress, dry_run: bool) -> dict[str, Any]:
    trials = _trials(request, database)
    recordings = request.run / "recordings"
    told: dict[str, Any] = {"format": request.form, "out": str(request.folder), "trials": len(trials)}
    if dry_run:
        there = [trial for trial in trials if (recordings / f"{trial.recording}.mcap").is_file()]
        frames = sum(trial.policy_steps for trial in there)
        return told | {"recordings": len(there), "frames": frames, "dry_run": True}
    with whole_folder(request.folder) as part:
        written = write_dataset(part, trials, recordings, request.video, progress)
    return told | {
        "episodes": len(written.episodes),
        "frames": written.frames,
        "left_out": dict(written.left_out),
        "bytes": _bytes(request.folder),
    }


def _trials(request: Request, database: sqlite3.Connection) -> list[RecordedTrial]:
    """Return the trials that are asked for, in the order in which they began."""
    if request.policy:
        _one_policy(request.policy, database)
    names = [item.name for item in fields(RecordedTrial)]
    rows = database.execute(
        f"SELECT {', '.join(names)} FROM trials WHERE (outcome = ?1 OR ?1 = 'all') AND substr(bundle, 1, ?2) = ?3"
        " ORDER BY started_unix_s, edge, epoch, sequence",
        (request.outcome, len(request.policy), request.policy),
    )
    return [RecordedTrial(*row) for row in rows]


def _one_policy(prefix: str, database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT DISTINCT bundle FROM trials WHERE substr(bundle, 1, ?) = ?", (len(prefix), prefix))
    found = [row[0] for row in rows]
    if not found:
        raise ExportError(f"no trial of a policy {prefix}...; `enpire-coord report` lists what was tried")
    if len(found) > 1:
        raise ExportError(
            f"{len(found)} policies begin with {prefix}; give more digits of one, such as {found[0][:12]}"
        )


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, and its name `out` once all that was written is on the disk.

    Raises:
        ExportError: another export writes there, or what lies under `<out>.part` is none.
    """
    part = out.with_name(out.name + ".part")
    with _claimed(part):
        try:
            _empty(part)
            yield part
            _sync(part)
            (part / MARK).unlink()
            part.rename(out)  # fails where a folder with something in it has come to stand there
            _sync_folder(out.parent)
        except BaseException:
            with suppress(OSError):  # already renamed, or not to be deleted
                _empty(part)
                (part / MARK).unlink(missing_ok=True)
                part.rmdir()
            raise


@contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """Hold the folder, which is made where there is none, as the only one who writes there."""
    part.mkdir(parents=True, exist_ok=True)
    here = os.listdir(part)
    if here and MARK not in here:
        raise ExportError(f"{part} holds something else; move it away or give another --out")
    busy = ExportError(f"another export is writing {part}; wait for it or give another --out")
    try:
        mark = open(part / MARK, "r+" if here else "x")  # noqa: SIM115 - closed below
    except (FileExistsError, FileNotFoundError):  # another one began or ended at this moment
        raise busy from None
    with mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(mark.fileno()), os.stat(part / MARK))  # not one that is gone by now
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            raise busy
        yield


def _empty(part: Path) -> None:
    for path in part.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sync(folder: Path) -> None:
    for path, _, files in os.walk(folder):
        for name in files:
            with open(Path(path, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
