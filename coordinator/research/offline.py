"""The researcher that needs no key: it varies what a policy declares, and learns which kind of change pays.

- It knows the policy's declared parameters and ideas, what was tried, and the failure classes of the incumbent on
  development starts; no simulator, no seed, no outcome by gate or held-out start.
- Kinds of change: switch an idea on, move one parameter, merge all that lead against the incumbent, combine a switch
  with a parameter, move two parameters at once (scrambled Sobol points). How often a kind pays is drawn from what was
  accepted so far (Thompson sampling).
- All changes at hand then compete: one is drawn by its kind's rate, by whether it claims to help against the failures
  seen, and by how little it was tried. So every single change is soon tried once, and the promising ones first.
- It never proposes what is closed, and never runs dry: Sobol points do not end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.interface import Value
from policies.space import Idea, Parameter, PolicySpace, SpaceError

# Accepted and refused attempts that each kind starts with: ideas are written because somebody believes in them.
PRIORS = {
    "switch": (4.0, 1.0),
    "parameter": (3.0, 2.0),
    "merge": (8.0, 1.0),
    "combine": (1.0, 3.0),
    "sobol": (1.0, 9.0),
}
MERGE_LEAD = 1.2  # an idea is merged that leads the incumbent by so many standard deviations
STALE = 0.25  # what a test against an earlier incumbent counts
LOG_STEPS = (2.5, 1.6)
LINEAR_STEPS = (0.35, 0.15)  # of the range
HELP_WEIGHT = 8.0


@dataclass(frozen=True)
class Tried:
    """A change that was tested, against whatever was the incumbent then."""

    kind: str
    changes: Mapping[str, Value]
    verdict: str  # of its decision


@dataclass(frozen=True)
class Standing:
    """How a change has done against the present incumbent so far, whatever came of it."""

    changes: Mapping[str, Value]
    lead: float  # in the screen, in standard deviations


@dataclass(frozen=True)
class ResearchContext:
    """What a researcher is shown."""

    incumbent: Mapping[str, Value]
    tried: Sequence[Tried]
    known: frozenset[str]  # canonical texts of the configurations that are closed: in test, or turned down often
    failures: Mapping[str, int]  # class -> count, the incumbent's on development starts
    standings: Sequence[Standing]


@dataclass(frozen=True)
class Proposal:
    """A change to the incumbent and the sentence that it tests."""

    kind: str
    changes: Mapping[str, Value]
    sentence: str
    falsifier: str


def canonical(params: Mapping[str, Value]) -> str:
    """Return one text for one configuration."""
    return ";".join(f"{name}={_text(params[name])}" for name in sorted(params))


@dataclass(frozen=True)
class _Option:
    """A change that could be proposed, and how much it deserves a try."""

    kind: str
    changes: dict[str, Value]
    weight: float


class OfflineResearcher:
    """Proposes changes within a policy's declared space."""

    name = "offline"

    def __init__(self, space: PolicySpace, seed: int) -> None:
        """Vary what `space` declares.

        Raises:
            SpaceError: it declares nothing that can be varied without end.
        """
        if not any(item.scale != "integer" for item in space.parameters):
            raise SpaceError(f"{space.name} declares no continuous parameter, so that ideas would run out; declare one")
        self._space = space
        self._rng = np.random.default_rng([seed, 0x0FF1])
        self._sobol = _sobol_points(len(space.parameters), seed)

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change that is not closed."""
        rates = {kind: self._draw_rate(kind, context) for kind in PRIORS}
        while True:
            single = [*self._switches(context), *self._steps(context)]
            options = [*single, *_merge(context), *self._combination(single), self._two_parameters()]
            fresh = [o for o in options if canonical({**context.incumbent, **o.changes}) not in context.known]
            if fresh:
                chosen = fresh[self._index([rates[option.kind] * option.weight for option in fresh])]
                return self._proposal(chosen.kind, chosen.changes, context)

    def _draw_rate(self, kind: str, context: ResearchContext) -> float:
        """Draw how often this kind of change is accepted, from what is known of that (Thompson 1933)."""
        accepted, refused = PRIORS[kind]
        mine = [item.verdict for item in context.tried if item.kind == kind]
        won, lost = mine.count("accept"), mine.count("reject") + mine.count("inconclusive")
        return float(self._rng.beta(accepted + won, refused + lost))

    def _switches(self, context: ResearchContext) -> list[_Option]:
        """Return the ideas that are off, each to be switched on."""
        off = [idea for idea in self._space.ideas if not context.incumbent[idea.name]]
        return [_Option("switch", {idea.name: True}, _weight(idea, _tries(idea, context), context)) for idea in off]

    def _steps(self, context: ResearchContext) -> list[_Option]:
        """Return a step up and a step down for each parameter: the long one first, whose effect shows in few trials."""
        options = []
        for parameter in self._space.parameters:
            now = float(context.incumbent[parameter.name])
            for up in (False, True):
                tries = _tries(parameter, context, up)
                value = _moved(parameter, now, up, min(int(tries), len(LOG_STEPS) - 1))
                if value != now:
                    weight = _weight(parameter, tries, context)
                    options.append(_Option("parameter", {parameter.name: value}, weight))
        return options

    def _combination(self, single: Sequence[_Option]) -> list[_Option]:
        """Return one switch with one step, drawn by what each deserves; none where there is no switch left."""
        switches = [option for option in single if option.kind == "switch"]
        steps = [option for option in single if option.kind == "parameter"]
        if not (switches and steps):
            return []
        switch, step = (part[self._index([item.weight for item in part])] for part in (switches, steps))
        return [_Option("combine", {**switch.changes, **step.changes}, max(switch.weight, step.weight))]

    def _two_parameters(self) -> _Option:
        """Return two parameters at once, from a sequence that fills the space evenly and does not end."""
        point = next(self._sobol)
        parameters = self._space.parameters
        chosen = sorted(self._rng.choice(len(parameters), size=min(2, len(parameters)), replace=False))
        return _Option("sobol", {parameters[i].name: _at_share(parameters[i], float(point[i])) for i in chosen}, 1.0)

    def _index(self, weights: Sequence[float]) -> int:
        shares = np.asarray(weights) / np.sum(weights)
        return int(self._rng.choice(len(weights), p=shares))

    def _proposal(self, kind: str, changes: Mapping[str, Value], context: ResearchContext) -> Proposal:
        parts = [self._clause(name, value, context) for name, value in changes.items()]
        return Proposal(
            kind=kind,
            changes=changes,
            sentence=" and ".join(parts),
            falsifier="no more wins than losses against the incumbent, pair by pair on fresh starts",
        )

    def _clause(self, name: str, value: Value, context: ResearchContext) -> str:
        for idea in self._space.ideas:
            if idea.name == name:
                return f"{name} on: {idea.claim}"
        about = next(item.about for item in self._space.parameters if item.name == name)
        return f"{name} {_text(context.incumbent[name])} → {_text(value)} ({about})"


def _merge(context: ResearchContext) -> list[_Option]:
    """Return all changes that lead against the incumbent as one; none unless there are two."""
    leading = [item for item in context.standings if item.lead >= MERGE_LEAD]
    changes: dict[str, Value] = {}
    for item in sorted(leading, key=lambda item: item.lead):  # where two want the same parameter, the stronger has it
        changes |= item.changes
    if len(leading) < 2 or any(changes == item.changes for item in context.standings):
        return []
    return [_Option("merge", changes, 1.0 + HELP_WEIGHT)]


def _weight(item: Idea | Parameter, tries: float, context: ResearchContext) -> float:
    """Return how much a change of `item` deserves a try: it claims to help, and was tried little."""
    total = sum(context.failures.values())
    helped = sum(count for name, count in context.failures.items() if name in item.helps)
    return (1.0 + HELP_WEIGHT * (helped / total if total else 0.0)) / (1.0 + tries) ** 2


def _tries(item: Idea | Parameter, context: ResearchContext, up: bool | None = None) -> float:
    """Return how often `item` was changed; with `up`, only to beyond where the incumbent has it, on that side.

    What was tried against an earlier incumbent says little about this one: changes work together.
    """
    now = context.incumbent[item.name]
    tries = 0.0
    for tried in context.tried:
        if tried.verdict == "accept":
            tries *= STALE
        elif item.name in tried.changes:
            value = tried.changes[item.name]
            tries += up is None or (value > now if up else value < now)
    return tries


def _moved(parameter: Parameter, now: float, up: bool, size: int) -> float:
    """Return the parameter a step up or down, inside its range."""
    if parameter.scale == "log":
        factor = LOG_STEPS[size]
        value = now * factor if up else now / factor
    elif parameter.scale == "integer":
        factor = LOG_STEPS[size]
        value = max(now + 1, round(now * factor)) if up else min(now - 1, round(now / factor))
    else:
        step = LINEAR_STEPS[size] * (parameter.high - parameter.low)
        value = now + step if up else now - step
    return _tidy(parameter, min(max(value, parameter.low), parameter.high))


def _at_share(parameter: Parameter, share: float) -> float:
    """Return the value at a share of the parameter's range, on its own scale."""
    if parameter.scale == "log":
        value = parameter.low * (parameter.high / parameter.low) ** share
    else:
        value = parameter.low + (parameter.high - parameter.low) * share
    return _tidy(parameter, value)


def _tidy(parameter: Parameter, value: float) -> float:
    """Return the value with three significant digits, or whole, still inside the range."""
    tidy = float(round(value)) if parameter.scale == "integer" else float(f"{value:.3g}")
    return min(max(tidy, parameter.low), parameter.high)


def _text(value: Value) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def _sobol_points(dimensions: int, seed: int) -> Iterator[np.ndarray]:
    from scipy.stats import qmc  # only where it is needed: it is heavy to import

    sampler = qmc.Sobol(max(1, dimensions), seed=seed)
    while True:
        yield from sampler.random(32)
