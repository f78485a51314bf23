"""A disk that loses power, under SQLite, and an adapter by which code that calls `sqlite3.connect` works on it.

- Files are real and in one folder. Beside each the disk keeps what is surely on it (all up to the last sync) and, in
  order, what was written or cut off since, in sectors of 512 bytes.
- When the power is cut, each of those sectors is there or not, by the draw; a few are torn, old after the first bytes.
  A file that was made, or deleted, since its folder was last synced is there or not.
- A sector that is torn keeps the bytes that were not written to, as SQLite expects of a disk (powersafe overwrite). The
  disk does not lie: what it was told to sync is there.
"""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR_BYTES = 512
TORN_ONE_IN = 8
MADE_WITH_ITS_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL  # SQLite syncs the folder of these only
PRAGMA_SYNCHRONOUS = "PRAGMA SYNCHRONOUS"


class PowerIsOff(apsw.IOError):
    """The disk does nothing any more."""

    extendedresult = apsw.SQLITE_IOERR


@dataclass
class Image:
    """One file, as far as it is on the disk."""

    synced: bytes = b""
    since: list[tuple[int, bytes] | int] = field(default_factory=list)  # sectors written (from, bytes); lengths cut to

    def write(self, data: bytes, offset: int) -> None:
        """Note what was written, sector by sector."""
        first = offset
        while first < offset + len(data):
            after = min((first // SECTOR_BYTES + 1) * SECTOR_BYTES, offset + len(data))
            self.since.append((first, data[first - offset : after - offset]))
            first = after

    def sync(self) -> None:
        """Bring all of it onto the disk."""
        self.synced = _apply(self.synced, self.since)
        self.since.clear()

    def after_cut(self, draw: random.Random) -> bytes:
        """Return what is left of it."""
        share = draw.random()
        kept = (item for item in self.since if draw.random() < share)
        return _apply(self.synced, (_torn(item, draw) for item in kept))


class Disk(apsw.VFS):
    """A folder of databases, and the power of its disk."""

    def __init__(self, name: str, draw: random.Random, synchronous: str | None = None) -> None:
        """Put the disk under the name of an SQLite VFS; `synchronous` overrules what the code under test sets."""
        super().__init__(name, "")
        self.name = name
        self.synchronous = synchronous
        self.operations = 0  # writes, truncations and syncs, ever
        self.on = True
        self._draw = draw
        self._left = math.inf  # operations until the cut
        self._files: dict[str, Image] = {}
        self._on_disk: dict[str, Image] = {}  # the folder as it was last synced
        self._connections: list[apsw.Connection] = []

    def cut_after(self, operations: int) -> None:
        """Cut the power at the n-th operation from here."""
        self._left = operations

    def adopt(self, path: Path) -> None:
        """Take a file that is there already, all of it surely on the disk."""
        self._files[str(path)] = self._on_disk[str(path)] = Image(path.read_bytes())

    def restart(self) -> None:
        """Cut the power, if that is still to come, leave in the folder what is on the disk, and give power again."""
        self.on = False
        for connection in self._connections:
            with suppress(apsw.Error):
                connection.close(True)
        self._connections.clear()
        survivors: dict[str, bytes] = {}
        for path in sorted({*self._files, *self._on_disk}):
            # Where the folder was synced since, both are the same.
            image = self._draw.choice([self._files.get(path), self._on_disk.get(path)])
            if image is not None:
                survivors[path] = image.after_cut(self._draw)
            for left in (Path(path), Path(f"{path}-shm")):  # the latter is memory
                left.unlink(missing_ok=True)
        self._files = {path: Image(data) for path, data in survivors.items()}
        self._on_disk = dict(self._files)
        for path, data in survivors.items():
            Path(path).write_bytes(data)
        self._left, self.on = math.inf, True

    def connect(self, path: Path, isolation_level: None) -> Connection:
        """Stand in for `sqlite3.connect`."""
        with _translated():
            connection = apsw.Connection(str(path), vfs=self.name)
        self._connections.append(connection)
        return Connection(connection, self.synchronous)

    # What SQLite calls.

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        """Open a file, noting a new one."""
        if name is None:  # temporary, gone with the power
            return apsw.VFSFile("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path not in self._files:
            self.operate()
        file = DiskFile(self, name, flags)
        file.image = self._files.get(path) or Image()
        file.syncs_folder = path not in self._files and bool(flags[0] & MADE_WITH_ITS_FOLDER)
        self._files[path] = file.image
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        """Delete a file."""
        self.operate()
        super().xDelete(filename, syncdir)
        self._files.pop(filename, None)
        if syncdir:
            self.sync_folder()

    def excepthook(self, *_: object) -> bool:
        """Say nothing: the power was cut where SQLite takes no error."""
        return True

    def operate(self) -> None:
        """Let one operation pass, or cut the power.

        Raises:
            PowerIsOff: it is cut.
        """
        self.operations += 1
        self._left -= 1
        self.on = self.on and self._left > 0
        if not self.on:
            raise PowerIsOff

    def sync_folder(self) -> None:
        """Bring onto the disk which files there are."""
        self._on_disk = dict(self._files)


class DiskFile(apsw.VFSFile):
    """An open file on a disk."""

    image: Image
    syncs_folder: bool  # with the next sync of the file

    def __init__(self, disk: Disk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        """Write; it is on the disk after the next sync, and perhaps before."""
        if self._disk.on:
            self.image.write(data, offset)
        self._disk.operate()
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        """Cut to a length."""
        if self._disk.on:
            self.image.since.append(newsize)
        self._disk.operate()
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        """Bring the file onto the disk."""
        self._disk.operate()
        self.image.sync()
        if self.syncs_folder:
            self._disk.sync_folder()
            self.syncs_folder = False

    def excepthook(self, *_: object) -> bool:
        """Say nothing: the power was cut where SQLite takes no error."""
        return True


@dataclass
class Rows:
    """As much of `sqlite3.Cursor` as the code under test uses."""

    rows: list[Any]
    rowcount: int

    def fetchone(self) -> Any:
        """Return the next row, None after the last."""
        return self.rows.pop(0) if self.rows else None

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        return self.rows


class Connection:
    """As much of `sqlite3.Connection` as the code under test uses, in autocommit mode."""

    def __init__(self, connection: apsw.Connection, synchronous: str | None) -> None:
        self._db = connection
        self._synchronous = synchronous

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    def execute(self, query: str, values: Sequence[Any] = ()) -> Rows:
        """Run one statement to its end."""
        if self._synchronous and query.upper().startswith(PRAGMA_SYNCHRONOUS):
            query = f"{PRAGMA_SYNCHRONOUS} = {self._synchronous}"
        with _translated():
            rows = self._db.execute(query, values).fetchall()
            return Rows(rows, self._db.changes())

    def executemany(self, query: str, many: Iterable[Sequence[Any]]) -> None:
        """Run one statement with each of some values."""
        for values in many:
            self.execute(query, values)

    def executescript(self, script: str) -> None:
        """Run some statements."""
        self.execute(script)

    def close(self) -> None:
        """Close it; the last one to close folds the write-ahead log into the file."""
        with _translated():
            self._db.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what the standard module would."""
    try:
        yield
    except apsw.Error as error:
        kind: type[sqlite3.Error] = sqlite3.OperationalError
        if isinstance(error, apsw.ConstraintError):
            kind = sqlite3.IntegrityError
        elif isinstance(error, apsw.CorruptError | apsw.NotADBError):
            kind = sqlite3.DatabaseError
        translated = kind(str(error))
        translated.sqlite_errorcode = getattr(error, "extendedresult", apsw.SQLITE_ERROR)
        raise translated from error


def _apply(data: bytes, changes: Iterable[tuple[int, bytes] | int]) -> bytes:
    result = bytearray(data)
    for change in changes:
        if isinstance(change, int):
            result = result[:change].ljust(change, b"\0")
        else:
            offset, sector = change
            result.extend(bytes(max(0, offset - len(result))))
            result[offset : offset + len(sector)] = sector
    return bytes(result)


def _torn(change: tuple[int, bytes] | int, draw: random.Random) -> tuple[int, bytes] | int:
    if isinstance(change, int) or draw.randrange(TORN_ONE_IN):
        return change
    offset, sector = change
    return offset, sector[: draw.randrange(len(sector))]
