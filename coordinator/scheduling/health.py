"""Which stations are to be believed: one that has drifted, fails its resets or cannot judge gets canaries only.

- Drift: each valid attempt of the incumbent on a station is compared with one of the same incumbent on another sound
  station. While the stations are alike, a station is quarantined wrongly after `RUN` comparisons on average, or more.
  What was compared with a station whose verdicts are doubted is forgotten. One on which the incumbent succeeds more
  often is believed: benches differ, and no count of successes tells an easy one from a judge that sees too many.
- Verdicts: of the incumbent's attempts on a sound station at most a share `INVALID` is invalid, or `MARGIN` more than
  on the others where that is more, as what a policy leaves everywhere damns no station. By Laplace's rule nothing known
  of the others is one in two, so a lone station is believed up to six in ten. `RUN` as before.
- Resets: `RESETS` in a row that failed.
- A quarantined station runs canaries: the incumbent on development starts. It is back after a block of `CANARIES` of
  which enough were valid, and as many succeeded, as on a station like the others but for a chance of 2 % at most; nine
  valid ones are enough, and are wanted where the others are not known.
- A sound station gets a canary after an attempt of a candidate that could not be judged, since it may be the station,
  and after `CHECK_EVERY` attempts without one of the incumbent.
- The purpose of a canary is `check`: stations keep the word for the trials of their own roll-outs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from coordinator.evolution.regression import needed
from coordinator.scheduling.detector import Detector

RUN = 1000.0  # comparisons, or attempts, to a false alarm: the mean number is at least this
DRIFT_BETS = (0.3, 0.6, 0.9)
INVALID, MARGIN = 0.2, 0.1
INVALID_BETS = (0.2, 0.6)
RESETS = 3
CANARIES = 12
MOST_INVALID = 3  # of a block of canaries, or what the others' attempts make likely
CHECK_EVERY = 30
SUSPECT_AFTER = 5  # attempts between two canaries for attempts that could not be judged
OTHERS_KEPT = 8  # outcomes of others that wait to be compared; older ones say less
Fault = tuple[str, str]  # a station that is quarantined from now on, and why


@dataclass
class _Station:
    drift: Detector = field(default_factory=lambda: Detector(DRIFT_BETS, RUN))
    invalid: Detector = field(default_factory=lambda: Detector(INVALID_BETS, RUN))
    mine: deque[bool] = field(default_factory=deque)
    theirs: deque[bool] = field(default_factory=lambda: deque(maxlen=OTHERS_KEPT))
    attempts: int = 0  # of the incumbent,
    judged: int = 0  # and how many of them were valid
    failed_resets: int = 0  # in a row
    quarantine: str = ""  # why
    doubted: bool = False  # whether that is for its verdicts
    block: list[bool | None] = field(default_factory=list)  # canaries since the quarantine began; None: invalid
    since_check: int = 0  # attempts handed out since the last one of the incumbent
    since_canary: int = 0
    suspect: bool = False
    usable: bool = True  # it is not away


class Health:
    """What is known of each station."""

    def __init__(self) -> None:
        self._stations: dict[str, _Station] = {}

    def quarantined(self, edge: str) -> bool:
        """Return whether a station gets canaries only."""
        return edge in self._stations and bool(self._stations[edge].quarantine)

    def doubted(self, edge: str) -> bool:
        """Return whether a station is quarantined for its verdicts, not for its resets alone."""
        return edge in self._stations and self._stations[edge].doubted

    @property
    def usable(self) -> frozenset[str]:
        """The stations that are there and to be believed."""
        return frozenset(edge for edge, item in self._stations.items() if item.usable and not item.quarantine)

    def present(self, edge: str, here: bool) -> None:
        """Note that a station came or is away."""
        self._station(edge).usable = here

    def due(self, edge: str) -> bool:
        """Return whether a station's next attempt is a canary."""
        known = self._stations.get(edge)
        if known is None or known.quarantine:
            return known is not None
        return known.since_check >= CHECK_EVERY or (known.suspect and known.since_canary >= SUSPECT_AFTER)

    def handed(self, edge: str, incumbent: bool, canary: bool) -> None:
        """Note an attempt that was handed out."""
        known = self._station(edge)
        known.since_check = 0 if incumbent else known.since_check + 1
        known.since_canary = 0 if canary else known.since_canary + 1
        known.suspect = known.suspect and not canary

    def _station(self, edge: str) -> _Station:
        """Return what is known of a station, which is known of from now on."""
        return self._stations.setdefault(edge, _Station())

    def forget_outcomes(self) -> None:
        """Begin anew with another incumbent: outcomes of two incumbents are not compared."""
        for known in self._stations.values():
            known.mine.clear()
            known.theirs.clear()
            known.attempts = known.judged = 0
            known.block.clear()

    def reset_failed(self, edge: str, failed: bool) -> list[Fault]:
        """Take in whether an attempt's reset failed; return what was found."""
        known = self._station(edge)
        known.failed_resets = known.failed_resets + 1 if failed else 0
        if known.quarantine or known.failed_resets < RESETS:
            return []
        return [self._quarantine(edge, f"{RESETS} resets in a row failed")]

    def unjudged(self, edge: str) -> None:
        """Note that an attempt of a candidate was invalid."""
        self._station(edge).suspect = True

    def outcome(self, edge: str, success: bool | None) -> list[Fault]:
        """Take in an attempt of the incumbent, None for an invalid one; return what was found."""
        known = self._station(edge)
        if known.quarantine:
            return []
        judged, attempts = self._judged_elsewhere(edge)
        share = max(INVALID, (attempts - judged + 1) / (attempts + 2) + MARGIN)
        known.invalid = known.invalid.step(((success is None) - share) / share)
        known.attempts, known.judged = known.attempts + 1, known.judged + (success is not None)
        if known.invalid.alarm:
            return [self._doubt(edge, "too many of its attempts cannot be judged")]
        if success is None:
            return []
        known.mine.append(success)
        for name, other in self._stations.items():
            if name != edge and not other.quarantine:
                other.theirs.append(success)
        return self._compare()

    def canary(self, edge: str, success: bool | None, successes: int, trials: int) -> bool:
        """Take in a canary of a quarantined station; return whether the station is to be believed again.

        Args:
            successes: of the incumbent on sound stations.
            trials: those attempts, with those that could not be judged.
        """
        known = self._station(edge)
        known.block.append(success)
        if len(known.block) < CANARIES:
            return False
        valid = [item for item in known.block if item is not None]
        judged, attempts = self._judged_elsewhere(edge)
        least = CANARIES - MOST_INVALID
        if attempts >= CANARIES:
            least = min(least, needed(CANARIES, judged, attempts))
        good = len(valid) >= least and sum(valid) >= needed(len(valid), successes, trials)
        known.block = []
        if good:
            self._stations[edge] = _Station(usable=known.usable)
        return good

    def _judged_elsewhere(self, edge: str) -> tuple[int, int]:
        """Return how many attempts of the incumbent on all other sound stations were valid, and how many there were."""
        others = [item for name, item in self._stations.items() if name != edge and not item.quarantine]
        return sum(item.judged for item in others), sum(item.attempts for item in others)

    def _compare(self) -> list[Fault]:
        found = []
        for edge, known in list(self._stations.items()):
            while known.mine and known.theirs:
                known.drift = known.drift.step(float(known.theirs.popleft()) - float(known.mine.popleft()))
            if known.drift.alarm:
                found.append(self._doubt(edge, "the incumbent succeeds less often on it than elsewhere"))
        return found

    def _doubt(self, edge: str, why: str) -> Fault:
        """Quarantine a station for its verdicts, and forget what was compared with them."""
        fault = self._quarantine(edge, why)
        self._stations[edge].doubted = True
        for known in self._stations.values():
            known.drift = Detector(DRIFT_BETS, RUN)
            known.mine.clear()
            known.theirs.clear()
        return fault

    def _quarantine(self, edge: str, why: str) -> Fault:
        usable = self._station(edge).usable
        self._stations[edge] = _Station(quarantine=why, usable=usable)
        return edge, why
