"""The researcher that needs no key: it varies what a policy declares, and learns which kind of change pays.

- It knows what a policy declares (parameters, ideas, skills, play), what was tried and the sums that each test ended
  with, and results on development starts; no simulator, no seed, no outcome of any other start.
- It keeps no state: every draw is seeded by its seed and the number of proposals made, so the same context gives the
  same proposal, before and after a restart.
- Each kind of change is a module beside this one and lists its options. A kind is drawn by how often it paid for its
  robot time (`rates`), by whether it is fresh to a failure that persists (`persistence`), and by what its best option
  deserves; then one of its options: those that claim to help against the failures seen, double against those that grew
  or that each of the last incumbents knew (`mining`), and were tried little.
- It never proposes what is closed, and never runs dry: points of the race do not end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from coordinator.evolution.ideas import Play, Proposal, ResearchContext
from coordinator.research import (
    combine,
    crossover,
    local,
    merge,
    persistence,
    play,
    programs,
    racing,
    rates,
    simplify,
    single,
)
from coordinator.research.code import MergeLines, clash
from coordinator.research.option import Option
from coordinator.research.persistence import lasting
from coordinator.research.scales import canonical as canonical
from coordinator.research.scales import text
from policies.interface import Value
from policies.space import FILE, PolicySpace, SpaceError, parse_space

KeyOf = Callable[[Mapping[str, Value], Mapping[str, bytes]], str | None]

GROUPS = 3  # combinations at hand
LONG_LIST = 2  # changes whose claims are told; of more only what they are
FALSIFIER = "no more wins than losses against the incumbent, pair by pair on fresh starts"
NOT_WORSE_FALSIFIER = "it succeeds less often than the incumbent on fresh starts"


class OfflineResearcher:
    """Proposes changes within what a policy declares."""

    name = "offline"

    def __init__(
        self, space: PolicySpace, seed: int, key_of: KeyOf | None = None, merge_lines: MergeLines = clash
    ) -> None:
        """Vary what `space`, the policy as it ships, declares.

        Args:
            key_of: the key of the source that changes and files would make of the incumbent, as in `context.known`;
                None where it cannot be made. Without it the key is `canonical` of the parameters.
            merge_lines: makes one file of code of two that both changed.

        Raises:
            SpaceError: it declares nothing that can be varied without end.
        """
        if not any(item.scale != "integer" for item in space.parameters):
            raise SpaceError(f"{space.name} declares no continuous parameter, so that ideas would run out; declare one")
        self._shipped, self._seed, self._key_of = space, seed, key_of
        self._merge_lines = merge_lines

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change that is not closed."""
        rng = self._draws(context, 0)
        space = self._space(context)
        context = replace(context, failures=lasting(context))
        for option in self._in_order(space, context, rng):
            key = self._key(option, context)
            if key is not None and key not in context.known:
                return _proposal(space, option, context)
        raise SpaceError(
            f"{space.name} has no change left that is not closed; no point of {racing.MOST_POINTS} was new"
        )

    def play(self, context: ResearchContext) -> Play | None:
        """Return an attempt that teaches what came of moves, where the policy plays."""
        return play.asked(self._space(context), context, self._draws(context, 1))

    def _draws(self, context: ResearchContext, purpose: int) -> np.random.Generator:
        played = len(context.played) if purpose else 0
        return np.random.default_rng([self._seed, 0x0FF1, context.proposals, purpose, played])

    def _space(self, context: ResearchContext) -> PolicySpace:
        """Return what the incumbent itself declares, which others may have changed."""
        return parse_space(context.files[FILE]) if FILE in context.files else self._shipped

    def _key(self, option: Option, context: ResearchContext) -> str | None:
        if self._key_of is not None:
            return self._key_of(option.changes, option.files)
        digest = hashlib.sha256(b"".join(option.files[name] for name in sorted(option.files))).hexdigest()
        key = canonical({**context.incumbent, **option.changes})
        return f"{key};{digest}" if option.files else key

    def _in_order(self, space: PolicySpace, context: ResearchContext, rng: np.random.Generator) -> Iterator[Option]:
        """Yield every option, drawn one by one: a kind, and one of the kind by its weight; then points without end."""
        drawn = rates.drawn_rates(context, rng)
        shifts = persistence.shifts(context, tuple(rates.PRIORS))
        kinds: dict[str, list[Option]] = {}
        for option in self._options(space, context, rng):
            kinds.setdefault(option.kind, []).append(option)
        while kinds:
            best = [drawn[kind] * shifts[kind] * max(item.weight for item in of) for kind, of in kinds.items()]
            of = kinds[list(kinds)[_index(best, rng)]]
            option = of.pop(_index([item.weight for item in of], rng))
            yield option
            if not of:
                del kinds[option.kind]
        for changes in racing.points(space, context, self._seed):
            yield Option(racing.KIND, changes, 1.0)

    def _options(self, space: PolicySpace, context: ResearchContext, rng: np.random.Generator) -> list[Option]:
        return [
            *single.switches(space, context),
            *single.steps(space, context),
            *programs.edits(space, context),
            *merge.merges(space, context, self._merge_lines),
            *crossover.crossings(context, self._merge_lines),
            *combine.combinations(space, context, rng, GROUPS),
            *racing.races(space, context, self._seed),
            *local.climbs(space, context, self._seed),
            *play.learned(space, context),
            *simplify.simplifications(self._shipped, space, context),
        ]


def _index(weights: Sequence[float], rng: np.random.Generator) -> int:
    shares = np.asarray(weights) / np.sum(weights)
    return int(rng.choice(len(shares), p=shares))


def _proposal(space: PolicySpace, option: Option, context: ResearchContext) -> Proposal:
    return Proposal(
        kind=option.kind,
        changes=dict(option.changes),
        sentence=_sentence(space, option, context),
        falsifier=NOT_WORSE_FALSIFIER if option.not_worse else FALSIFIER,
        files=dict(option.files),
        parents=option.parents,
        not_worse=option.not_worse,
    )


def _sentence(space: PolicySpace, option: Option, context: ResearchContext) -> str:
    told = len(option.changes) <= LONG_LIST and not option.not_worse
    parts = [_clause(space, name, value, context, told) for name, value in option.changes.items()]
    parts += [option.says] if option.says else []
    if option.not_worse:
        return f"without it nothing is lost: {' and '.join(parts)}"
    if len(parts) > LONG_LIST:
        return f"together, whatever each does alone: {', '.join(parts)}"
    return " and ".join(parts)


def _clause(space: PolicySpace, name: str, value: Value, context: ResearchContext, told: bool) -> str:
    for idea in space.ideas:
        if idea.name == name:
            return f"{name} {text(value)}" + (f": {idea.claim}" if told and value else "")
    about = next((item.about for item in space.parameters if item.name == name), "")
    return f"{name} {text(context.incumbent[name])} → {text(value)}" + (f" ({about})" if told else "")
