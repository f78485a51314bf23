"""The order of skills in a policy's program: a step put in, taken out or exchanged, so that the program stays valid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

import numpy as np

from coordinator.evolution.ideas import ResearchContext
from coordinator.research.option import Option
from coordinator.research.reading import deserved
from policies.skills.program import (
    PROGRAM,
    Steps,
    check,
    insertions,
    read_steps,
    removals,
    replacements,
    write_steps,
)
from policies.space import PolicySpace, SpaceError
from policies.space_work import Skill

SHORTER = 0.3  # what taking a step out deserves against putting one in, before the policy works


def steps_in(files: Mapping[str, bytes]) -> Steps:
    """Return the steps of the program among the files, none where there is no program that can be read."""
    if PROGRAM not in files:
        return ()
    try:
        return read_steps(files[PROGRAM])
    except SpaceError:
        return ()


def gained(before: Sequence[str], after: Sequence[str]) -> Counter[str]:
    """Return which skills `after` has more often than `before`."""
    return Counter(after) - Counter(before)


def edits(space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return every valid program that is one step away from the incumbent's."""
    now = steps_in(context.files)
    if not now:
        return []
    tried = [steps_in(item.files) for item in context.standings]
    found = []
    for steps in (*insertions(now, space.skills), *replacements(now, space.skills), *removals(now, space.skills)):
        new, old = gained(now, steps), gained(steps, now)
        helps = tuple(word for skill in space.skills if skill.name in new for word in skill.helps)
        alike = sum(gained(now, other) == new and gained(other, now) == old for other in tried if other)
        weight = deserved(helps, tried.count(steps) + alike, context) * (1.0 if new else SHORTER)
        found.append(_option("program", space, now, steps, weight))
    return _one_a_skill(found)


def shorter(space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return every valid program with one step less, to be kept if it is not worse."""
    now = steps_in(context.files)
    programs = removals(now, space.skills) if now else ()
    options = [_option("simplify", space, now, steps, 1.0) for steps in programs]
    return [Option("simplify", {}, item.weight, item.files, item.says, not_worse=True) for item in options]


def with_skill(steps: Steps, name: str, skills: Sequence[Skill], rng: np.random.Generator) -> Steps:
    """Return the program with one step of that skill more, in a place or instead of a step that is drawn.

    The program itself is returned where there is no valid one.
    """
    options = [item for item in insertions(steps, skills) if gained(steps, item)[name]]
    options = options or [item for item in replacements(steps, skills) if gained(steps, item)[name]]
    return options[int(rng.integers(len(options)))] if options else steps


def joined(base: Steps, one: Steps, other: Steps, skills: Sequence[Skill]) -> Steps | None:
    """Return what `other` put in against `base`, put into `one` too; None where that is no valid program."""
    inserted: dict[int, list[str]] = {}
    for steps in (one, other):
        for change, start, _, first, last in SequenceMatcher(a=base, b=steps, autojunk=False).get_opcodes():
            if change == "equal":
                continue
            if change != "insert":
                return None
            there = inserted.setdefault(start, [])
            there += [step for step in steps[first:last] if step not in there]
    merged = [step for place in range(len(base) + 1) for step in (*inserted.get(place, ()), *base[place : place + 1])]
    try:
        check(merged, skills)
    except SpaceError:
        return None
    return tuple(merged)


def told(space: PolicySpace, now: Steps, steps: Steps) -> str:
    """Return what a program does otherwise, with the claim of what was put in."""
    new, old = list(gained(now, steps).elements()), list(gained(steps, now).elements())
    claims = [skill.claim for skill in space.skills if skill.name in new]
    parts = [f"{', '.join(new)} put in"] if new else []
    parts += [f"{', '.join(old)} taken out"] if old else []
    text = " and ".join(parts) or "the same steps in another order"
    return f"{text} ({' > '.join(steps)}): {' '.join(claims)}" if claims else f"{text} ({' > '.join(steps)})"


def _option(kind: str, space: PolicySpace, now: Steps, steps: Steps, weight: float) -> Option:
    return Option(kind, {}, weight, {PROGRAM: write_steps(steps)}, told(space, now, steps))


def _one_a_skill(options: list[Option]) -> list[Option]:
    """Share the weight of one change among the places where it could be made."""
    names = [item.says.partition(" (")[0] for item in options]
    counts = Counter(names)
    return [
        Option(item.kind, {}, item.weight / counts[name], item.files, item.says)
        for item, name in zip(options, names, strict=True)
    ]
