"""A local search around the incumbent that learns which way is up: CMA-ES (Hansen 2016) over continuous parameters.

The search keeps no state: it is made anew from the incumbent and told again, in order, what was measured of its points.
It learns by worth on development starts, noise and all, for which its learning rate adapts (Nomura et al. 2023). What
it returns is a candidate like any other: the gate decides, so a search that drifts costs trials and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from cmaes import CMA

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.reading import WHOLE, seen, worth
from coordinator.research.scales import at_share, canonical, share_of
from policies.interface import Array, Value
from policies.space import Parameter, PolicySpace

KIND = "cma"
SIGMA = 0.12  # of each parameter's range
POPULATION = 8
MOST_GENERATIONS = 40
INSIDE = 1e-3  # the mean starts so far from the edges of the ranges


def climbs(space: PolicySpace, context: ResearchContext, seed: int) -> list[Option]:
    """Return the search's next point; none while a generation waits for its last results."""
    parameters = [item for item in space.parameters if item.scale != "integer"]
    if len(parameters) < 2:
        return []
    search = _search(parameters, context, seed)
    known, running = _measured(context)
    for _ in range(MOST_GENERATIONS):
        asked = [search.ask() for _ in range(search.population_size)]
        changes = [_changes(parameters, point, context) for point in asked]
        missing = [item for item in changes if canonical(item) not in known]
        if missing:
            fresh = [item for item in missing if item and canonical(item) not in running]
            return [Option(KIND, fresh[0], WHOLE)] if fresh else []
        search.tell([(point, -known[canonical(item)]) for point, item in zip(asked, changes, strict=True)])
    return []


def _search(parameters: list[Parameter], context: ResearchContext, seed: int) -> CMA:
    mean = np.array([share_of(item, float(context.incumbent[item.name])) for item in parameters])
    rounds = sum(item.verdict == "accept" for item in context.tried)
    return CMA(
        mean=np.clip(mean, INSIDE, 1.0 - INSIDE),
        sigma=SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(parameters)),
        seed=int(np.random.default_rng([seed, rounds, 0xC3A]).integers(2**31)),
        population_size=POPULATION,
        lr_adapt=True,
    )


def _measured(context: ResearchContext) -> tuple[dict[str, float], set[str]]:
    """Return the worth of each change whose test has ended, no change among them, and those whose test runs."""
    sums: dict[str, list[float]] = {"": [0.0]}
    running = set()
    for item in seen(context):
        if item.decided:
            sums.setdefault(canonical(item.changes), []).append(worth(item.dev, context.dev))
        else:
            running.add(canonical(item.changes))
    return {key: float(np.mean(values)) for key, values in sums.items()}, running


def _changes(parameters: list[Parameter], point: Array, context: ResearchContext) -> Mapping[str, Value]:
    values = {item.name: at_share(item, float(share)) for item, share in zip(parameters, point, strict=True)}
    return {name: value for name, value in values.items() if value != context.incumbent[name]}
