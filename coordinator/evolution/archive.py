"""The best candidate of each kind of approach against each kind of failure.

- A cell is an approach (the operator and the files that it touched) and the failure class that most of the candidate's
  failures belong to; its elite is the candidate with the best posterior success.
- Scores are of attempts on development starts against the incumbent of the time; who goes on from an elite measures it
  again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.evolution.ideas import DevResult, Tried

NO_FAILURE = "none"
PARAMETERS = "policy.toml"  # what a candidate touches that changes parameters only
PRIOR = (1.0, 1.0)  # successes and failures that everybody begins with
UNTESTED = "superseded"  # a verdict that says nothing of the candidate


@dataclass(frozen=True)
class Cell:
    """One kind of approach against one kind of failure."""

    approach: str
    failure: str


@dataclass(frozen=True)
class Elite:
    """The best candidate of a cell."""

    cell: Cell
    candidate_id: int
    parent_id: int
    sentence: str
    successes: int
    attempts: int
    progress: float  # mean, [0, 1]

    @property
    def posterior(self) -> float:
        """The mean of its success rate's posterior."""
        return (self.successes + PRIOR[0]) / (self.attempts + sum(PRIOR))


def approach(kind: str, files: Sequence[str]) -> str:
    """Return the family of an approach: the operator and the files that it touched."""
    return f"{kind}: {', '.join(sorted(set(files))) or PARAMETERS}"


def dominant(dev: Sequence[DevResult]) -> str:
    """Return the class that most failures belong to, the first by name where several do; `none` without failures."""
    causes = Counter(result.cause or "unknown" for result in dev if not result.success)
    return min(causes, key=lambda cause: (-causes[cause], cause), default=NO_FAILURE)


def elites(tried: Sequence[Tried]) -> dict[Cell, Elite]:
    """Return the best of each cell, of all that have attempts on development starts; the same whatever their order."""
    found: dict[Cell, Elite] = {}
    for item in tried:
        if not item.dev or item.verdict == UNTESTED:
            continue
        elite = _elite(item)
        best = found.get(elite.cell)
        if best is None or _rank(elite) > _rank(best):
            found[elite.cell] = elite
    return {cell: found[cell] for cell in sorted(found, key=lambda cell: (cell.approach, cell.failure))}


def success_by_start(dev: Sequence[DevResult]) -> dict[str, float]:
    """Return the success rate on each start that was tried."""
    attempts = Counter(result.start_id for result in dev)
    successes = Counter(result.start_id for result in dev if result.success)
    return {start_id: successes[start_id] / attempts[start_id] for start_id in sorted(attempts)}


def _elite(item: Tried) -> Elite:
    return Elite(
        Cell(approach(item.kind, item.files), dominant(item.dev)),
        item.candidate_id,
        item.parent_id,
        item.sentence,
        sum(result.success for result in item.dev),
        len(item.dev),
        sum(result.progress for result in item.dev) / len(item.dev),
    )


def _rank(elite: Elite) -> tuple[float, float, int]:
    return elite.posterior, elite.progress, -elite.candidate_id
