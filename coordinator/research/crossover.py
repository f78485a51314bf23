"""Two candidates that win from different starts, as one change."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from coordinator.evolution.archive import success_by_start
from coordinator.evolution.ideas import ResearchContext, Standing
from coordinator.research.code import MergeLines, together
from coordinator.research.option import Option
from coordinator.research.reading import WHOLE, led
from policies.interface import Value

LEAST_LEAD = 0.3  # of either
WINS_APART = 2  # starts from which one wins and the other does not, both ways together
MANY = 4  # such starts deserve a try like nothing else
MOST = 3


def crossings(context: ResearchContext, merge_lines: MergeLines) -> list[Option]:
    """Return the pairs that complement one another best, each as one change; none whose code clashes."""
    base = success_by_start(context.dev)
    able = [item for item in context.standings if item.candidate_id and item.dev and led(item, context) >= LEAST_LEAD]
    pairs = [(_apart(one, other, base), one, other) for one, other in combinations(able, 2)]
    crossed: list[tuple[int, Standing, Standing, dict[str, bytes]]] = []
    for apart, one, other in sorted((pair for pair in pairs if pair[0] >= WINS_APART), key=lambda pair: -pair[0]):
        if len(crossed) == MOST:
            break
        kept, code = together(context.files, (one, other), merge_lines)
        if len(kept) == 2 and _differ(one, other, code):
            crossed.append((apart, one, other, code))
    return [_crossed(context, *pair) for pair in crossed]


def _crossed(context: ResearchContext, apart: int, one: Standing, other: Standing, code: Mapping[str, bytes]) -> Option:
    """Return both changes; where they want the same, the one that leads has it."""
    weaker, stronger = sorted((one, other), key=lambda item: led(item, context))
    changes: dict[str, Value] = {**weaker.changes, **stronger.changes}
    files = {**weaker.files, **stronger.files, **code}
    parents = tuple(sorted((one.candidate_id, other.candidate_id)))
    says = f"candidates {parents[0]} and {parents[1]} win from different starts, and together from both"
    return Option("crossover", changes, WHOLE * apart / MANY, files, says, parents)


def _apart(one: Standing, other: Standing, base: dict[str, float]) -> int:
    """Return from how many starts exactly one of two candidates beats the incumbent; 0 unless each does from some."""
    won, lost = _wins(one, base), _wins(other, base)
    return len(won ^ lost) if won - lost and lost - won else 0


def _wins(item: Standing, base: dict[str, float]) -> set[str]:
    return {start for start, rate in success_by_start(item.dev).items() if rate > base.get(start, 1.0) and rate > 0.5}


def _differ(one: Standing, other: Standing, code: Mapping[str, bytes]) -> bool:
    """Return whether two changes together are more than either of them."""
    changes = {**one.changes, **other.changes}
    wrote = any(data not in (one.files.get(name), other.files.get(name)) for name, data in code.items())
    return wrote or changes not in (one.changes, other.changes) or bool(set(one.files) ^ set(other.files))
