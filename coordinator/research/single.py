"""One change at a time: an idea switched on, a parameter a step up or down."""

from __future__ import annotations

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.reading import STALE, deserved
from coordinator.research.scales import LOG_STEPS, stepped
from policies.space import PolicySpace


def switches(space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return the ideas that are off, each to be switched on."""
    off = [idea for idea in space.ideas if not context.incumbent[idea.name]]
    return [
        Option("switch", {idea.name: True}, deserved(idea.helps, tries(idea.name, context), context)) for idea in off
    ]


def steps(space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return a step up and a step down for each parameter: the long one first, whose effect shows in few trials."""
    options = []
    for parameter in space.parameters:
        now = float(context.incumbent[parameter.name])
        for up in (False, True):
            count = tries(parameter.name, context, up)
            value = stepped(parameter, now, up, min(int(count), len(LOG_STEPS) - 1))
            if value != now:
                weight = deserved(parameter.helps, count, context)
                options.append(Option("parameter", {parameter.name: value}, weight))
    return options


def tries(name: str, context: ResearchContext, up: bool | None = None) -> float:
    """Return how often an item was changed; with `up`, only to beyond where the incumbent has it, on that side.

    One of several changes at once was tried for its share only. What was tried against an earlier incumbent says little
    about this one: changes work together.
    """
    now = context.incumbent[name]
    count = 0.0
    for tried in context.tried:
        if tried.verdict == "accept":
            count *= STALE
        elif name in tried.changes:
            value = tried.changes[name]
            moved = up is None or (value > now if up else value < now)
            count += moved / len(tried.changes)
    return count
