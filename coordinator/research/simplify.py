"""A piece taken out again: what is not missed goes.

Only once the incumbent succeeds often, as until then trials are better spent on what it lacks.
"""

from __future__ import annotations

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.programs import shorter
from coordinator.research.reading import success_rate
from coordinator.research.single import tries
from policies.space import PolicySpace

OFTEN, LEAST_TRIALS = 0.9, 12


def simplifications(shipped: PolicySpace, space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return each idea and parameter that differs from what ships, set back, and each step that can be taken out.

    Args:
        shipped: the space of the policy as it ships; the incumbent's own, `space`, may have other defaults.
    """
    if len(context.dev) < LEAST_TRIALS or success_rate(context) < OFTEN:
        return []
    options = shorter(space, context)
    known = {item.name for item in space.items}
    for item in shipped.items:
        if item.name in known and context.incumbent[item.name] != item.default:
            weight = 1.0 / (1.0 + tries(item.name, context)) ** 2
            options.append(Option("simplify", {item.name: item.default}, weight, not_worse=True))
    return options
