"""A lab with a TUF repository, a station that trusts it, and a fetcher whose answers a test decides."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from coordinator.publish.keys import Keyring, make
from coordinator.publish.repository import Repository
from edge.trust.client import Trust

TASK, EDGE, OTHER_EDGE = "push_t", "arm-01", "arm-02"
CHUNK_BYTES = 250
ENDLESS_BYTES = 64 << 20  # what an endless answer ends at, so that a test which lets it through ends too

Files = dict[str, bytes]


def sha256(data: bytes) -> str:
    """Return the name of a bundle."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Served(FetcherInterface):
    """Answers as a coordinator would, or as somebody in its place."""

    files: Files
    silent: set[str] = field(default_factory=set)  # no answer
    missing: set[str] = field(default_factory=set)  # "404"
    refused: set[str] = field(default_factory=set)  # another error
    endless: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)  # breaks off in the middle
    slow: set[str] = field(default_factory=set)
    pass_s: Callable[[float], None] = lambda seconds: None  # lets time go by while a slow one answers
    asked: list[str] = field(default_factory=list)

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked.append(url)
        if url in self.silent:
            raise DownloadError(f"no answer to {url}")
        if url in self.refused:
            raise DownloadError(f"the coordinator refused {url}: it is busy")
        if url in self.missing or url not in self.files:
            raise DownloadHTTPError(f"{url} is not in the repository", 404)
        if url in self.endless:
            yield from itertools.repeat(b"{" * CHUNK_BYTES, ENDLESS_BYTES // CHUNK_BYTES)
        data = self.files[url]
        for start in range(0, len(data), CHUNK_BYTES):
            if url in self.cut and start:
                raise DownloadError(f"the coordinator stopped in the middle of {url}")
            yield data[start : start + CHUNK_BYTES]
            if url in self.slow:
                self.pass_s(60.0)


class Lab:
    """People, their keys, a coordinator's repository and the folder of one station."""

    def __init__(self, folder: Path, now_unix_s: float, humans: int = 3, threshold: int = 2) -> None:
        """Make all of it in `folder`; time stands still at `now_unix_s` until a test moves it."""
        self.now_unix_s = now_unix_s
        self.monotonic_s = 0.0
        self.folder = folder
        make(folder / "keys", humans, threshold)
        self.ring = Keyring.open(folder / "keys", humans=True)
        self.repository = Repository.create(folder / "run" / "trust", self.ring, self.clock)
        self.station = folder / "station"
        (self.station / "trust").mkdir(parents=True)
        (self.station / "trust" / "root.json").write_bytes(self.repository.root())

    def clock(self) -> float:
        """Return the time of day."""
        return self.now_unix_s

    def monotonic(self) -> float:
        """Return a time that only runs."""
        return self.monotonic_s

    def pass_s(self, seconds: float) -> None:
        """Let time go by."""
        self.monotonic_s += seconds

    def files(self) -> Files:
        """Return what the coordinator serves now."""
        return {
            path.relative_to(self.repository.folder).as_posix(): path.read_bytes()
            for top in ("metadata", "targets")
            for path in (self.repository.folder / top).rglob("*")
            if path.is_file()
        }

    def served(self, files: Files | None = None) -> Served:
        """Return a fetcher of some files, of those that the coordinator serves now without them."""
        return Served(dict(self.files() if files is None else files), pass_s=self.pass_s)

    def trust(self, fetcher: FetcherInterface | None = None, station: Path | None = None) -> Trust:
        """Return a station's trust, as after it was started."""
        folder = (station or self.station) / "trust"
        return Trust(folder, fetcher or self.served(), self.clock, monotonic=self.monotonic)

    def clone(self, into: Path) -> Path:
        """Return a copy of the station's folder."""
        shutil.copytree(self.station, into, symlinks=True)
        return into
