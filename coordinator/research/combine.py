"""Several changes at once, for those that help only in company.

Each piece (an idea on, a skill in the program, a parameter up or down) has an effect that adds up in the screen's
lead; a Bayesian linear model learns it from every test, whatever else was in it, and one draw from what it believes
picks the pieces (Thompson sampling for linear bandits: Agrawal and Goyal 2013). So a piece that was seen to do nothing
alone still comes along where it was in groups that led, and one that spoils groups soon stays out. Groups are large
where everything fails, as something in them may be what is needed, and small where most is right already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.programs import gained, steps_in, told, with_skill
from coordinator.research.reading import SCREEN_FULL, WHOLE, Effect, effects, help_share, success_rate
from coordinator.research.scales import at_share, share_of
from policies.interface import Array, Value
from policies.skills.program import PROGRAM, insertions, replacements, write_steps
from policies.space import Idea, Parameter, PolicySpace
from policies.space_work import Skill

# Believed of a piece before any test, in standard deviations of a screen's lead.
IDEA_EFFECT, HELPING_EFFECT = 0.2, 0.6
IDEA_SPREAD = 1.2
STEP_EFFECT, STEP_SPREAD = -0.5, 0.7
SIZES = (3, 4, 6, 9)
LEAST, MORE = 2, 8  # pieces at most: where all succeeds, and how many more where all fails
STEP_SHARES = (0.08, 0.35)  # of a parameter's range


@dataclass(frozen=True)
class Piece:
    """A change that can be one of several."""

    item: Idea | Parameter | Skill
    up: bool  # on, or one step of the skill more
    effect: float  # believed before any test
    spread: float

    def within(self, effect: Effect, context: ResearchContext) -> bool:
        """Return whether it was part of what was tested."""
        name = self.item.name
        if isinstance(self.item, Skill):
            return gained(steps_in(context.files), steps_in(effect.files))[name] > 0
        value = effect.changes.get(name, context.incumbent[name])
        return value > context.incumbent[name] if self.up else value < context.incumbent[name]


def combinations(space: PolicySpace, context: ResearchContext, rng: np.random.Generator, count: int) -> list[Option]:
    """Return up to `count` groups of at least two pieces."""
    pieces = _pieces(space, context)
    if len(pieces) < 2:
        return []
    centre, root = _posterior(pieces, context)
    most = LEAST + round(MORE * (1.0 - success_rate(context)))
    groups = []
    for _ in range(count):
        drawn = centre + root @ rng.standard_normal(len(pieces))
        groups += _option(space, _best(pieces, drawn, min(most, int(rng.choice(SIZES)))), context, rng)
    return groups


def _pieces(space: PolicySpace, context: ResearchContext) -> list[Piece]:
    """Return the pieces that the incumbent does not have."""

    def believed(item: Idea | Skill) -> Piece:
        return Piece(item, True, IDEA_EFFECT + HELPING_EFFECT * help_share(item.helps, context), IDEA_SPREAD)

    now = steps_in(context.files)
    able = {name for steps in (*insertions(now, space.skills), *replacements(now, space.skills)) for name in steps}
    pieces = [believed(idea) for idea in space.ideas if not context.incumbent[idea.name]]
    pieces += [believed(skill) for skill in space.skills if skill.name in able - set(now)]
    for parameter in space.parameters:
        share = share_of(parameter, float(context.incumbent[parameter.name]))
        pieces += [Piece(parameter, False, STEP_EFFECT, STEP_SPREAD)] if share > 0.0 else []
        pieces += [Piece(parameter, True, STEP_EFFECT, STEP_SPREAD)] if share < 1.0 else []
    return pieces


def _posterior(pieces: Sequence[Piece], context: ResearchContext) -> tuple[Array, Array]:
    """Return the mean and a root of the covariance of what is believed of each piece after every test."""
    spread = np.array([piece.spread for piece in pieces])
    precision = np.diag(spread**-2.0)
    pull = np.array([piece.effect for piece in pieces]) / spread**2
    for effect in effects(context):
        within = np.array([float(piece.within(effect, context)) for piece in pieces])
        sure = effect.attempts / SCREEN_FULL
        precision += sure * np.outer(within, within)
        pull += sure * effect.lead * within
    covariance = np.linalg.inv(precision)
    return covariance @ pull, np.linalg.cholesky(covariance)


def _best(pieces: Sequence[Piece], drawn: Array, size: int) -> list[Piece]:
    """Return up to `size` pieces that the draw believes to help, no parameter both up and down."""
    group: dict[str, Piece] = {}
    for index in np.argsort(-drawn):
        piece = pieces[int(index)]
        if len(group) == size or (drawn[index] <= 0.0 and len(group) >= 2):
            break
        group.setdefault(piece.item.name, piece)
    return list(group.values())


def _option(
    space: PolicySpace, group: Sequence[Piece], context: ResearchContext, rng: np.random.Generator
) -> list[Option]:
    """Return the group as one change, nothing where less than two pieces of it can be made."""
    now = steps = steps_in(context.files)
    changes: dict[str, Value] = {}
    for piece in group:
        if isinstance(piece.item, Skill):
            steps = with_skill(steps, piece.item.name, space.skills, rng)
        else:
            value = _value(piece.item, piece.up, context, rng)
            changes |= {piece.item.name: value} if value != context.incumbent[piece.item.name] else {}
    if len(changes) + gained(now, steps).total() < 2:
        return []
    if steps == now:
        return [Option("combine", changes, WHOLE)]
    return [Option("combine", changes, WHOLE, {PROGRAM: write_steps(steps)}, told(space, now, steps))]


def _value(item: Idea | Parameter, up: bool, context: ResearchContext, rng: np.random.Generator) -> Value:
    if isinstance(item, Idea):
        return True
    share = share_of(item, float(context.incumbent[item.name]))
    way = float(rng.uniform(*STEP_SHARES))
    return at_share(item, min(1.0, share + way) if up else max(0.0, share - way))
