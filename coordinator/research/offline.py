"""The researcher that needs no key: it varies what a policy declares, and learns which kind of change pays.

- It knows the policy's declared parameters and ideas, what was tried, and the failure classes of the incumbent on
  development starts; no simulator, no seed, no outcome by gate or held-out start.
- Kinds of change: switch an idea on, move one parameter, move two at once (scrambled Sobol points), combine a switch
  with a parameter. Which kind is tried is drawn by Thompson sampling on what was accepted so far.
- Within a kind, what claims to help against the failures seen is preferred, and what was tried less.
- It never proposes what is closed, and never runs dry: Sobol points do not end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.interface import Value
from policies.space import Idea, Parameter, PolicySpace

# Accepted and refused attempts that each kind starts with: ideas are written because somebody believes in them.
PRIORS = {"switch": (4.0, 1.0), "parameter": (3.0, 2.0), "combine": (1.0, 3.0), "sobol": (1.0, 9.0)}
LOG_STEPS = (2.5, 1.6)
LINEAR_STEPS = (0.35, 0.15)  # of the range
HELP_WEIGHT = 4.0
ATTEMPTS = 24


@dataclass(frozen=True)
class Tried:
    """A change that was tested, against whatever was the incumbent then."""

    kind: str
    changes: Mapping[str, Value]
    verdict: str  # of its decision
    lead: int  # wins minus losses where it ended


@dataclass(frozen=True)
class ResearchContext:
    """What a researcher is shown."""

    incumbent: Mapping[str, Value]
    tried: Sequence[Tried]
    known: frozenset[str]  # canonical texts of the configurations that are closed: in test, or turned down often
    failures: Mapping[str, int]  # class -> count, the incumbent's on development starts


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


class OfflineResearcher:
    """Proposes changes within a policy's declared space."""

    name = "offline"

    def __init__(self, space: PolicySpace, seed: int) -> None:
        self._space = space
        self._rng = np.random.default_rng([seed, 0x0FF1])
        self._sobol = _sobol_points(len(space.parameters), seed)

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change that is not closed."""
        for _ in range(ATTEMPTS):
            kind = self._draw_kind(context)
            changes = self._changes(kind, context)
            if changes and canonical({**context.incumbent, **changes}) not in context.known:
                return self._proposal(kind, changes, context)
        while True:
            changes = self._two_parameters(context)
            if canonical({**context.incumbent, **changes}) not in context.known:
                return self._proposal("sobol", changes, context)

    def _draw_kind(self, context: ResearchContext) -> str:
        draws = {}
        for kind, (accepted, refused) in PRIORS.items():
            mine = [item for item in context.tried if item.kind == kind]
            won = sum(item.verdict == "accept" for item in mine)
            lost = sum(item.verdict in ("reject", "inconclusive") for item in mine)
            draws[kind] = self._rng.beta(accepted + won, refused + lost)
        return max(draws, key=lambda kind: draws[kind])

    def _changes(self, kind: str, context: ResearchContext) -> dict[str, Value]:
        if kind == "switch":
            return self._switch(context)
        if kind == "parameter":
            return self._step(context, self._space.parameters)
        if kind == "combine":
            return {**self._switch(context), **self._step(context, self._space.parameters)}
        return self._two_parameters(context)

    def _switch(self, context: ResearchContext) -> dict[str, Value]:
        off = [idea for idea in self._space.ideas if not context.incumbent[idea.name]]
        if not off:
            return {}
        return {self._pick(off, context).name: True}

    def _step(self, context: ResearchContext, among: Sequence[Parameter]) -> dict[str, Value]:
        if not among:
            return {}
        parameter = among[self._index([self._weight(item, context) for item in among])]
        now = float(context.incumbent[parameter.name])
        up = bool(self._rng.integers(0, 2))
        value = _moved(parameter, now, up, int(self._rng.integers(0, 2)))
        return {} if value == now else {parameter.name: value}

    def _two_parameters(self, context: ResearchContext) -> dict[str, Value]:
        point = next(self._sobol)
        chosen = self._rng.choice(len(self._space.parameters), size=min(2, len(self._space.parameters)), replace=False)
        return {
            self._space.parameters[i].name: _at_share(self._space.parameters[i], float(point[i]))
            for i in sorted(chosen)
        }

    def _pick(self, ideas: Sequence[Idea], context: ResearchContext) -> Idea:
        return ideas[self._index([self._weight(item, context) for item in ideas])]

    def _weight(self, item: Idea | Parameter, context: ResearchContext) -> float:
        """Return how much an item deserves a try: it claims to help, and was tried little."""
        total = sum(context.failures.values())
        helped = sum(count for name, count in context.failures.items() if name in item.helps)
        tries = sum(item.name in tried.changes for tried in context.tried)
        return (1.0 + HELP_WEIGHT * (helped / total if total else 0.0)) / (1.0 + tries) ** 2

    def _index(self, weights: Sequence[float]) -> int:
        shares = np.asarray(weights) / np.sum(weights)
        return int(self._rng.choice(len(weights), p=shares))

    def _proposal(self, kind: str, changes: Mapping[str, Value], context: ResearchContext) -> Proposal:
        parts = [self._clause(name, value, context) for name, value in changes.items()]
        return Proposal(
            kind=kind,
            changes=changes,
            sentence=" and ".join(parts),
            falsifier="no more wins than losses against the incumbent on the same starts",
        )

    def _clause(self, name: str, value: Value, context: ResearchContext) -> str:
        for idea in self._space.ideas:
            if idea.name == name:
                return f"{name} on: {idea.claim}"
        about = next(item.about for item in self._space.parameters if item.name == name)
        return f"{name} {_text(context.incumbent[name])} → {_text(value)} ({about})"


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
