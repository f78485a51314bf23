"""What keeps going wrong: failure classes, counted over starts and over the reigns of incumbents.

- A generation is the time of one incumbent: every attempt on a development start by the candidates made from it, and
  for the present one its own attempts too.
- A class grew or shrank where its share of the attempts changed by more than chance makes likely; it persists where
  each of the last generations knows it; it is gone where the last one should have seen some and saw none.
- A start is stubborn where many attempts by policies of more than one generation, or of several candidates, all fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from coordinator.evolution.ideas import DevResult, Tried

LIKELY_Z = 1.64  # one side, 5 %
PERSISTING = 3  # generations
EXPECTED = 3.0  # failures of a class that a generation without any would have had to see
LEAST_ATTEMPTS, LEAST_POLICIES = 4, 2  # of a start that is called stubborn
UNNAMED = "unknown"
SHOWN = 5


@dataclass(frozen=True)
class Generation:
    """The attempts under one incumbent."""

    incumbent_id: int
    attempts: int
    failures: Mapping[str, int]  # by class

    def share(self, cause: str) -> float:
        """Return how much of its attempts ended in this class, 0 to 1."""
        return self.failures.get(cause, 0) / self.attempts if self.attempts else 0.0


@dataclass(frozen=True)
class FailureClass:
    """One class over the generations."""

    cause: str
    counts: tuple[int, ...]  # by generation
    trend: str  # new, grew, shrank, gone or steady, in the last generation
    persists: bool


@dataclass(frozen=True)
class StubbornStart:
    """A start on which every attempt fails."""

    start_id: str
    attempts: int
    policies: int
    cause: str  # the commonest


@dataclass(frozen=True)
class Mined:
    """What was found."""

    generations: tuple[Generation, ...]
    classes: tuple[FailureClass, ...]  # the commonest of the last generation first
    stubborn: tuple[StubbornStart, ...]  # the most tried first


def mine(tried: Sequence[Tried], dev: Sequence[DevResult]) -> Mined:
    """Return what the failures say.

    Args:
        tried: in the order in which they were decided.
        dev: the present incumbent's own attempts.
    """
    reigns = _reigns(tried, dev)
    generations = tuple(_generation(reign, results) for reign, results in reigns)
    causes = sorted(
        {cause for generation in generations for cause in generation.failures},
        key=lambda cause: (-generations[-1].failures.get(cause, 0), cause),
    )
    classes = tuple(_class(cause, generations) for cause in causes)
    return Mined(generations, classes, _stubborn(tried, dev))


def text(mined: Mined) -> str:
    """Return the findings in a few lines, the most telling first; empty where nothing failed."""
    lines = []
    for item in mined.classes[:SHOWN]:
        counts = " > ".join(
            f"{count}/{generation.attempts}"
            for count, generation in zip(item.counts[-SHOWN:], mined.generations[-SHOWN:], strict=True)
        )
        said = [item.trend] if item.trend != "steady" else []
        said += [f"in each of the last {PERSISTING} generations"] if item.persists else []
        lines.append("; ".join([f"{item.cause}: {counts}", *said]))
    for start in mined.stubborn[:SHOWN]:
        lines.append(
            f"{start.start_id}: failed {start.attempts} of {start.attempts} times by {start.policies} policies, "
            f"mostly {start.cause}"
        )
    return "\n".join(lines)


def _reigns(tried: Sequence[Tried], dev: Sequence[DevResult]) -> list[tuple[int, list[DevResult]]]:
    """Return (incumbent's id, attempts) in the order in which the incumbents came; none without attempts."""
    reigns: dict[int, list[DevResult]] = {}
    for item in tried:
        reigns.setdefault(item.parent_id, []).extend(item.dev)
    if dev:
        accepted = [item.candidate_id for item in tried if item.verdict == "accept"]
        reigns.setdefault(accepted[-1] if accepted else next(iter(reigns), 0), []).extend(dev)
    return [(incumbent, results) for incumbent, results in reigns.items() if results]


def _generation(incumbent_id: int, results: Sequence[DevResult]) -> Generation:
    return Generation(incumbent_id, len(results), Counter(_cause(result) for result in results if not result.success))


def _class(cause: str, generations: Sequence[Generation]) -> FailureClass:
    counts = tuple(generation.failures.get(cause, 0) for generation in generations)
    persists = len(counts) >= PERSISTING and all(counts[-PERSISTING:])
    return FailureClass(cause, counts, _trend(cause, generations), persists)


def _trend(cause: str, generations: Sequence[Generation]) -> str:
    """Return how the last generation differs from the one before it that knew the class, or from the one before."""
    if len(generations) < 2:
        return "steady"
    *earlier, last = generations
    known = [generation for generation in earlier if generation.failures.get(cause, 0)]
    before = known[-1] if known else earlier[-1]
    if not last.failures.get(cause, 0):
        return "gone" if before.share(cause) * last.attempts >= EXPECTED else "steady"
    z = _z(last, before, cause)
    if z > LIKELY_Z:
        return "grew" if known else "new"
    return "shrank" if z < -LIKELY_Z else "steady"


def _z(last: Generation, before: Generation, cause: str) -> float:
    """Return by how many standard deviations the share has grown (two proportions, pooled variance)."""
    attempts = last.attempts + before.attempts
    pooled = (last.failures.get(cause, 0) + before.failures.get(cause, 0)) / attempts
    deviation = sqrt(pooled * (1.0 - pooled) * (1.0 / last.attempts + 1.0 / before.attempts))
    return (last.share(cause) - before.share(cause)) / deviation if deviation > 0.0 else 0.0


def _stubborn(tried: Sequence[Tried], dev: Sequence[DevResult]) -> tuple[StubbornStart, ...]:
    causes: dict[str, Counter[str]] = {}
    policies: Counter[str] = Counter()
    solved: set[str] = set()
    for results in (*(item.dev for item in tried), dev):
        policies.update({result.start_id for result in results})
        for result in results:
            if result.success:
                solved.add(result.start_id)
            else:
                causes.setdefault(result.start_id, Counter())[_cause(result)] += 1
    found = [
        StubbornStart(start_id, counted.total(), policies[start_id], min(counted, key=lambda c: (-counted[c], c)))
        for start_id, counted in causes.items()
        if start_id not in solved and counted.total() >= LEAST_ATTEMPTS and policies[start_id] >= LEAST_POLICIES
    ]
    return tuple(sorted(found, key=lambda start: (-start.attempts, start.start_id)))


def _cause(result: DevResult) -> str:
    return result.cause or UNNAMED
