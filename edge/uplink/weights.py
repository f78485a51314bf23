"""Brings down the files of weights that bundles want: in parts, for a moment at a time, so that other work goes on.

- What was found whole is not read again for as long as a bundle waits for it, unless it changes.
- A file that gets no answer, as its disk may have failed or the link is too thin for it, is still coming: it is asked
  for again after a while. Nothing else waits for it, and the other files come meanwhile.
- A file of other bytes than were signed refuses its bundle, which is asked for again after a while.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path

from edge.trust.client import Tampered, Trust, TrustError, Unreachable
from edge.trust.parts import arrived
from edge.uplink.settings import UplinkError
from policies.bundle import Bundle
from policies.space import Weight

PART_BYTES = 256 << 10
WITHIN_S = 0.2  # in each turn: nothing else is sent or heard while they come
AFTER_TAMPERED_S = AFTER_NO_ANSWER_S = 30.0
# To wait for an answer that does not come takes seconds of a turn; however many files get none, most turns do not.
PAUSE_S = 10.0

Stamp = tuple[int, int, int]  # of a file: its inode, its bytes and when it was written
Later = tuple[float, TrustError | None]  # when to ask again, and why not now
AT_ONCE: Later = (float("-inf"), None)


class NotSupplied(UplinkError):
    """A bundle that cannot be had; one line that says why."""


class StillComing(NotSupplied):
    """A bundle that waits for its weights, which are on their way."""


class Weights:
    """The files of weights of one station, each under its sha256."""

    def __init__(self, trust: Trust, folder: Path, clock: Callable[[], float], within_s: float) -> None:
        """Keep in `folder` what `trust` names; each call fetches parts for `within_s` by `clock`, one at least."""
        self._trust, self._folder, self._clock, self._within_s = trust, folder, clock, within_s
        self._found_whole: dict[str, Stamp] = {}
        self._later: dict[str, Later] = {}
        self._pause = AT_ONCE  # of all files

    def missing_mb(self, opened: Bundle) -> float:
        """Return how much of a bundle's weights has not come yet."""
        here = [(weight, arrived(self._folder / weight.sha256)) for weight in _files(opened)]
        return sum(max(weight.size_bytes - arrived_bytes, 0) for weight, arrived_bytes in here) / 1e6

    def fetch(self, opened: Bundle) -> None:
        """Have all of a bundle's weights here, or some more of them.

        Raises:
            StillComing: they are not whole yet.
            TrustError: as `Trust.more_weights`, but for `Unreachable`.
        """
        until_s = self._clock() + self._within_s
        while missing := [weight for weight in _files(opened) if not self._is_whole(weight.sha256)]:
            self._fetch_one_of(opened, missing, lambda: not self._clock() < until_s)

    def forget_but(self, wanted: Collection[str]) -> None:
        """Remember only of the files that are wanted that they are whole, or when to ask for them again."""
        self._found_whole = {sha256: stamp for sha256, stamp in self._found_whole.items() if sha256 in wanted}
        self._later = {sha256: later for sha256, later in self._later.items() if sha256 in wanted}

    # -----------------------------------------------------------------------------------------------------------------

    def _fetch_one_of(self, opened: Bundle, missing: list[Weight], time_is_up: Callable[[], bool]) -> None:
        """Fetch a part of the first file that can be asked for now.

        Raises: as `fetch`; StillComing where none can, or where the time is up and some of it is missing.
        """
        sha256 = self._first_of(opened, missing)
        try:
            left = self._trust.more_weights(sha256, self._folder, PART_BYTES, time_is_up)
        except Tampered as error:
            self._later[sha256] = self._clock() + AFTER_TAMPERED_S, error
            raise
        except Unreachable as error:
            self._later[sha256] = self._clock() + AFTER_NO_ANSWER_S, error
            self._pause = self._clock() + PAUSE_S, error
            return
        if not left and (stamp := _stamp(self._folder / sha256)):
            self._found_whole[sha256] = stamp
        if time_is_up() and (left or len(missing) > 1):
            raise StillComing(self._waits(opened))

    def _first_of(self, opened: Bundle, missing: list[Weight]) -> str:
        """Return the first of the missing files that can be asked for now.

        Raises:
            StillComing: none can.
            Tampered: one had other bytes a short while ago.
        """
        until_s, why = self._pause
        if self._clock() < until_s:
            raise StillComing(f"{self._waits(opened)}; {why}")
        for weight in missing:
            until_s, why = self._later.get(weight.sha256, AT_ONCE)
            if not self._clock() < until_s:
                return weight.sha256
            if isinstance(why, Tampered):
                raise Tampered(str(why))
        raise StillComing(f"{self._waits(opened)}; {why}")

    def _is_whole(self, sha256: str) -> bool:
        """Return whether a file was found whole, and is still what was found."""
        found = self._found_whole.get(sha256)
        return found is not None and found == _stamp(self._folder / sha256)

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
