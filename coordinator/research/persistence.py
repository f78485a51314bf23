"""Failures that outlast generations, and which kinds of change were tried against them in vain."""

from __future__ import annotations

from collections import Counter

from coordinator.evolution.ideas import DevResult, ResearchContext
from coordinator.evolution.mining import mine
from coordinator.research.reading import dominant

TESTS_A_GENERATION = 20  # tests without a gain count like a generation
MOST = 1.0
LONG = 2.0  # what a failure counts that lasts


def persisted(context: ResearchContext) -> float:
    """Return for how many generations the incumbent's dominant failure class has been dominant, the present one 0.

    So many tests since the last gain count as one more.
    """
    name = dominant(context)
    if not name:
        return 0.0
    accepted = [item for item in context.tried if item.verdict == "accept"]
    generations = 0
    for item in reversed(accepted[:-1]):  # the last accepted is the incumbent itself
        if _dominant(item.dev) != name:
            break
        generations += 1
    since = len(context.tried) - max(
        (k + 1 for k, item in enumerate(context.tried) if item.verdict == "accept"), default=0
    )
    return min(MOST, generations + since / TESTS_A_GENERATION)


def shifts(context: ResearchContext, kinds: tuple[str, ...]) -> dict[str, float]:
    """Return by how much each kind is favoured: the less it was tried against a failure that persists, the more.

    1 for every kind while nothing persists.
    """
    generations = persisted(context)
    tried = Counter(item.kind for item in context.tried if item.verdict in ("reject", "inconclusive"))
    most = max(tried.values(), default=0)
    return {kind: 1.0 + generations * (1.0 - tried[kind] / most if most else 0.0) for kind in kinds}


def lasting(context: ResearchContext) -> dict[str, float]:
    """Return the incumbent's failures by class, those double that grew or that each of the last incumbents knew."""
    classes = mine(context.tried, context.dev).classes
    long = {item.cause for item in classes if item.persists or item.trend in ("grew", "new")}
    return {cause: count * (LONG if cause in long else 1.0) for cause, count in context.failures.items()}


def _dominant(dev: tuple[DevResult, ...]) -> str:
    causes = Counter(item.cause for item in dev if not item.success)
    return max(sorted(causes), key=lambda name: causes[name], default="")
