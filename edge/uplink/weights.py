"""Brings down the files that bundles want: in parts, for a moment at a time, so that other work goes on.

These are weights, and the bundles' own archives.

- What was found whole is not read again for as long as a bundle waits for it, unless it changes.
- A file that gets no answer, as its disk may have failed or the link is too thin for it, is still coming: it is asked
  for again after a while, which grows. Nothing else waits for it, and the other files come meanwhile.
- A file of other bytes than were signed, or that the disk here does not take, refuses its bundle, which is asked for
  again after a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from edge.trust.client import Trust, TrustError, Unreachable
from edge.trust.errors import NotThere
from edge.trust.parts import arrived, part_of
from edge.uplink.settings import UplinkError
from policies.bundle import Bundle
from policies.space import Weight

ARCHIVES = "archives"  # the folder of those that have not all come, beside that of the weights
PART_BYTES = 256 << 10
WITHIN_S = 0.2  # in each turn: nothing else is sent or heard while they come
AFTER_TAMPERED_S = AFTER_NO_ANSWER_S = 30.0
LONGEST_S = 16 * AFTER_NO_ANSWER_S  # as every question without an answer costs the other files a pause
# To wait for an answer that does not come takes seconds of a turn; however many files get none, most turns do not.
PAUSE_S = 10.0

Stamp = tuple[int, int, int]  # of a file: its inode, its bytes and when it was written
More = Callable[[str, Callable[[], bool]], int]  # fetches a part of a file, until the time is up; as Trust.more_weights


class Later(NamedTuple):
    """When to ask for a file again."""

    until_s: float
    why: TrustError | None  # not now
    wait_s: float = AFTER_NO_ANSWER_S  # the time before until_s


AT_ONCE = Later(float("-inf"), None)


class NotSupplied(UplinkError):
    """A bundle that cannot be had; one line that says why."""


class StillComing(NotSupplied):
    """A bundle that is on its way, or waits for its weights, which are."""


class Unanswered(StillComing):
    """One of which nothing can be asked for now, as there was no answer."""


class Weights:
    """The files of weights of one station, each under its sha256."""

    def __init__(self, trust: Trust, folder: Path, clock: Callable[[], float], within_s: float) -> None:
        """Keep in `folder` what `trust` names; each call fetches parts for `within_s` by `clock`, one at least."""
        self._trust, self._folder, self._clock, self._within_s = trust, folder, clock, within_s
        self.archives = folder.with_name(ARCHIVES)
        self._found_whole: dict[Path, Stamp] = {}
        self._later: dict[str, Later] = {}
        self._pause: dict[Path, Later] = {}  # folder -> of all files that come to it

    def missing_mb(self, opened: Bundle) -> float:
        """Return how much of a bundle's weights has not come yet."""
        here = [(weight, arrived(self._folder / weight.sha256)) for weight in _files(opened)]
        return sum(max(weight.size_bytes - arrived_bytes, 0) for weight, arrived_bytes in here) / 1e6

    def paths(self, opened: Bundle) -> set[Path]:
        """Return where a bundle's weights lie, whole or in part."""
        final = {self._folder / weight.sha256 for weight in _files(opened)}
        return final | {part_of(path) for path in final}

    def archive(self, task: str, bundle: str) -> bytes:
        """Return the bytes of a bundle, or fetch some more of them.

        Raises:
            StillComing: they are not whole yet.
            TrustError: as `Trust.more_of_bundle`, but for `Unreachable`; or the disk does not give them.
        """

        def more(name: str, time_is_up: Callable[[], bool]) -> int:
            return self._trust.more_of_bundle(task, name, self.archives, PART_BYTES, time_is_up)

        path = self.archives / bundle
        self._fetch_all([path], more, lambda: f"bundle {bundle[:12]} is on its way")
        try:
            return path.read_bytes()
        except OSError as error:
            unreadable = TrustError(f"cannot read {path}: {error.strerror}")
            self._later[bundle] = Later(self._clock() + AFTER_TAMPERED_S, unreadable)
            raise unreadable from error
        finally:
            path.unlink(missing_ok=True)

    def fetch(self, opened: Bundle) -> None:
        """Have all of a bundle's weights here, or some more of them.

        Raises:
            StillComing: they are not whole yet.
            TrustError: as `Trust.more_weights`, but for `Unreachable`.
            OSError: the disk does not say what is here.
        """

        def more(name: str, time_is_up: Callable[[], bool]) -> int:
            return self._trust.more_weights(name, self._folder, PART_BYTES, time_is_up)

        paths = [self._folder / weight.sha256 for weight in _files(opened)]
        self._fetch_all(paths, more, lambda: self._waits(opened))

    def doubt(self, opened: Bundle) -> None:
        """Forget that a bundle's weights were found whole: a disk may change bytes and not say so."""
        for path in self.paths(opened):
            self._found_whole.pop(path, None)

    def forget_but(self, wanted: Collection[Path]) -> None:
        """Remember only of the files that are wanted that they are whole."""
        self._found_whole = {path: stamp for path, stamp in self._found_whole.items() if path in wanted}
        self._later = {name: later for name, later in self._later.items() if self._clock() < later.until_s + LONGEST_S}

    # -----------------------------------------------------------------------------------------------------------------

    def _fetch_all(self, paths: list[Path], more: More, waits: Callable[[], str]) -> None:
        until_s = self._clock() + self._within_s

        def time_is_up() -> bool:
            return not self._clock() < until_s

        while missing := [path for path in paths if not self._is_whole(path)]:
            path = self._first_of(missing, waits)
            left = self._fetch_part(path, more, time_is_up)
            if left is not None and time_is_up() and (left or len(missing) > 1):
                raise StillComing(waits())

    def _fetch_part(self, path: Path, more: More, time_is_up: Callable[[], bool]) -> int | None:
        """Fetch a part of a file; return how many bytes are missing then, None where there was no answer."""
        try:
            left = more(path.name, time_is_up)
        except Unreachable as error:
            before = self._later.get(path.name)
            wait_s = min(2 * before.wait_s, LONGEST_S) if before else AFTER_NO_ANSWER_S
            self._later[path.name] = Later(self._clock() + wait_s, error, wait_s)
            if not isinstance(error, NotThere):
                self._pause[path.parent] = Later(self._clock() + PAUSE_S, error)
            return None
        except TrustError as error:
            self._later[path.name] = Later(self._clock() + AFTER_TAMPERED_S, error)
            raise
        self._later.pop(path.name, None)
        if not left and (stamp := _stamp(path)):
            self._found_whole[path] = stamp
        return left

    def _first_of(self, missing: list[Path], waits: Callable[[], str]) -> Path:
        """Return the first of the missing files that can be asked for now.

        Raises:
            Unanswered: none can.
            TrustError: one was refused a short while ago.
        """
        until_s, why, _ = self._pause.get(missing[0].parent, AT_ONCE)
        if self._clock() < until_s:
            raise Unanswered(f"{waits()}; {why}")
        for path in missing:
            until_s, why, _ = self._later.get(path.name, AT_ONCE)
            if not self._clock() < until_s:
                return path
            if why is not None and not isinstance(why, Unreachable):
                raise type(why)(str(why))
        raise Unanswered(f"{waits()}; {why}")

    def _is_whole(self, path: Path) -> bool:
        """Return whether a file was found whole, and is still what was found."""
        found = self._found_whole.get(path)
        return found is not None and found == _stamp(path)

    def _waits(self, opened: Bundle) -> str:
        all_mb = sum(weight.size_bytes for weight in _files(opened)) / 1e6
        tenths = math.floor(10 * (1.0 - self.missing_mb(opened) / all_mb))
        return f"bundle {opened.id[:12]} waits for its weights: {tenths} tenths of {all_mb:.1f} MB are here"


def _files(opened: Bundle) -> list[Weight]:
    """Return the files of weights of a bundle, each once, however many names it has there."""
    return list({weight.sha256: weight for weight in opened.manifest.weights.values()}.values())


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
