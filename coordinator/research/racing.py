"""Points spread over several parameters at once, the best of which race on.

- The points of one incumbent are one scrambled Sobol sequence over all parameters; which of the parameters a point
  changes goes with its number: two, half of them, all.
- A campaign's screen ends a poor point after three attempts, so a point is cheap. The best third of those tested once
  are tested again, the best third of those a third time: asynchronous successive halving (Li et al. 2020), which needs
  no waiting for slow tests. A test more is what moves a good point past an unlucky screen.
- The sequence does not end, so there is always something to propose.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.reading import WHOLE, help_share, present, seen, worth
from coordinator.research.scales import at_share, canonical
from policies.interface import Array, Value
from policies.space import PolicySpace

KIND = "sobol"
KEPT = 3  # one of so many goes on
TESTS = 3  # of one point
WIDTHS = (2.0, 0.5, 1.0)  # parameters that a point changes; up to 1, a share of all
MOST_POINTS = 4096


def races(space: PolicySpace, context: ResearchContext, seed: int) -> list[Option]:
    """Return the point that has the race's next test."""
    again = promoted(context)
    if again is not None:
        return [Option(KIND, again, WHOLE)]
    return [Option(KIND, changes, WHOLE) for changes in islice(points(space, context, seed), 1)]


def promoted(context: ResearchContext) -> dict[str, Value] | None:
    """Return the best point that is among the best third of its rung and was not tested further; None without one."""
    rungs: dict[str, list[float]] = {}
    changes: dict[str, dict[str, Value]] = {}
    running = {canonical(item.changes) for item in seen(context) if not item.decided}
    for tried in present(context):
        if tried.kind == KIND:
            key = canonical(tried.changes)
            changes[key] = dict(tried.changes)
            rungs.setdefault(key, []).append(worth(tried.dev, context.dev))
    for rung in range(TESTS - 1, 0, -1):
        arrived = sorted((key for key in rungs if len(rungs[key]) >= rung), key=lambda key: -np.mean(rungs[key][:rung]))
        for key in arrived[: len(arrived) // KEPT]:
            if len(rungs[key]) == rung and key not in running:
                return changes[key]
    return None


def points(space: PolicySpace, context: ResearchContext, seed: int) -> Iterator[dict[str, Value]]:
    """Yield the points that were not proposed to this incumbent yet, in order."""
    done = {canonical(item.changes) for item in seen(context)}
    rounds = sum(item.verdict == "accept" for item in context.tried)
    parameters = space.parameters
    pull = np.array([0.5 + help_share(item.helps, context) for item in parameters])
    for number, point in enumerate(_sobol(len(parameters), [seed, rounds])):
        rng = np.random.default_rng([seed, rounds, number])
        width = _width(number, len(parameters))
        chosen = sorted(rng.choice(len(parameters), size=width, replace=False, p=pull / pull.sum()))
        changes: dict[str, Value] = {parameters[i].name: at_share(parameters[i], float(point[i])) for i in chosen}
        if canonical(changes) not in done:
            yield changes


def _width(number: int, parameters: int) -> int:
    width = WIDTHS[number % len(WIDTHS)]
    return min(parameters, round(width) if width > 1.0 else max(1, round(width * parameters)))


def _sobol(dimensions: int, seed: list[int]) -> Iterator[Array]:
    from scipy.stats import qmc  # only where it is needed: it is heavy to import

    sampler = qmc.Sobol(dimensions, rng=np.random.default_rng([*seed, 0x50B]))
    for _ in range(MOST_POINTS // 32):
        yield from sampler.random(32)
