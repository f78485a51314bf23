"""Where the files of a dataset stand, and those of numbers: one after another, none longer than it should be."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

FILES_IN_A_CHUNK = 1000
DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{PLACE}.parquet"
VIDEO_PATH = "videos/{video_key}/" + f"{PLACE}.mp4"
EPISODES_PATH = f"meta/episodes/{PLACE}.parquet"
CAMERA = "observation.images.top"


class Place(NamedTuple):
    """Which of the files of a kind."""

    chunk_index: int
    file_index: int

    def after(self) -> Place:
        """Return the place of the next file."""
        last = self.file_index == FILES_IN_A_CHUNK - 1
        return Place(self.chunk_index + 1, 0) if last else Place(self.chunk_index, self.file_index + 1)

    def path(self, folder: Path, pattern: str) -> Path:
        """Return where that file stands, in a folder that is there."""
        path = folder / pattern.format(video_key=CAMERA, **self._asdict())
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class ParquetFiles:
    """Parquet files of one kind, one after another."""

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder, self._pattern = folder, pattern
        self._open = ExitStack()
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self._last_bytes = 0
        self._place = Place(0, 0)

    def close(self) -> None:
        """Write the end of the file, without which it cannot be read."""
        self._open.close()
        self._file = None

    def begin(self) -> Place:
        """Return where the next rows will stand."""
        if self._file is not None and self._file.tell() + self._last_bytes >= DATA_FILE_MB << 20:
            self.close()
            self._place = self._place.after()
        return self._place

    def write(self, table: pa.Table) -> None:
        """Write rows there."""
        if self._file is None:
            self._file = self._open.enter_context(self._place.path(self._folder, self._pattern).open("wb"))
            self._writer = self._open.enter_context(pq.ParquetWriter(self._file, table.schema, compression="snappy"))
        before = self._file.tell()
        self._writer.write_table(table)
        self._last_bytes = self._file.tell() - before
