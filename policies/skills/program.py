"""Programs of typed skills: what a `program.toml` lists is run in order, and each step needs what the last one gave.

- The first step needs the state `start`, each further one what the step before it gives, and the last gives `done`.
- Which skills there are, and what each needs and gives, the policy's own policy.toml says (`PolicySpace.skills`).
- A program is changed by one step at a time: `insertions`, `removals` and `replacements` return every valid program
  that is one such edit away. A step is never put beside itself: doing the same twice at once is no other idea.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence

from policies.space_tables import WORD, SpaceError
from policies.space_work import Skill

PROGRAM = "program.toml"
START, DONE = "start", "done"
MAX_STEPS = 32

Steps = tuple[str, ...]


def read_steps(data: bytes) -> Steps:
    """Return the steps in the bytes of a program.toml.

    Raises:
        SpaceError: not a program; whether its steps fit together is for `check`.
    """
    try:
        raw = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise SpaceError(f"{PROGRAM}: not TOML: {' '.join(str(error).split()):.300}") from error
    match raw:
        case {"steps": list(steps), **rest} if not rest and all(map(_is_step, steps)):
            if 0 < len(steps) <= MAX_STEPS:
                return tuple(steps)
    raise SpaceError(f"{PROGRAM}: it must hold `steps`, a list of 1 to {MAX_STEPS} names of skills, and nothing else")


def write_steps(steps: Sequence[str]) -> bytes:
    """Return a program.toml of these steps, one a line, so that two edits at different places merge."""
    return "".join(["steps = [\n", *(f'    "{step}",\n' for step in steps), "]\n"]).encode()


def check(steps: Sequence[str], skills: Sequence[Skill]) -> None:
    """Raise unless the steps fit together.

    Raises:
        SpaceError: an unknown skill, or a step that needs what does not hold there; the first at fault is named.
    """
    known = {skill.name: skill for skill in skills}
    state = START
    if not 0 < len(steps) <= MAX_STEPS:
        raise SpaceError(f"a program of {len(steps)} steps; allowed is 1 to {MAX_STEPS}")
    for number, step in enumerate(steps, 1):
        if step not in known:
            raise SpaceError(f"step {number} is {step!r:.80}, which is no skill; there are {', '.join(sorted(known))}")
        if known[step].needs != state:
            raise SpaceError(f"step {number}, {step}, needs {known[step].needs!r}, and there it is {state!r}")
        state = known[step].gives
    if state != DONE:
        raise SpaceError(f"the program ends with {state!r}; its last step must give {DONE!r}")


def insertions(steps: Sequence[str], skills: Sequence[Skill]) -> tuple[Steps, ...]:
    """Return every valid program with one step more."""
    return _valid(
        skills,
        (
            (*steps[:place], skill.name, *steps[place:])
            for place in range(len(steps) + 1)
            for skill in skills
            if skill.name not in steps[max(place - 1, 0) : place + 1]
        ),
    )


def removals(steps: Sequence[str], skills: Sequence[Skill]) -> tuple[Steps, ...]:
    """Return every valid program with one step less."""
    return _valid(skills, ((*steps[:place], *steps[place + 1 :]) for place in range(len(steps))))


def replacements(steps: Sequence[str], skills: Sequence[Skill]) -> tuple[Steps, ...]:
    """Return every valid program with one step exchanged for another."""
    return _valid(
        skills,
        (
            (*steps[:place], skill.name, *steps[place + 1 :])
            for place in range(len(steps))
            for skill in skills
            if skill.name not in steps[max(place - 1, 0) : place + 2]
        ),
    )


def _valid(skills: Sequence[Skill], programs: Iterator[Steps]) -> tuple[Steps, ...]:
    return tuple(dict.fromkeys(steps for steps in programs if _fits(steps, skills)))


def _fits(steps: Steps, skills: Sequence[Skill]) -> bool:
    try:
        check(steps, skills)
    except SpaceError:
        return False
    return True


def _is_step(step: object) -> bool:
    return isinstance(step, str) and WORD.fullmatch(step) is not None
