"""All that leads against the incumbent, as one change."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.evolution.ideas import ResearchContext, Standing
from coordinator.research.code import MergeLines, together
from coordinator.research.option import Option
from coordinator.research.programs import joined, steps_in
from coordinator.research.reading import WHOLE, led
from policies.interface import Value
from policies.skills.program import PROGRAM, write_steps
from policies.space import PolicySpace

MERGE_LEAD = 1.2  # an idea is merged that leads the incumbent by so many standard deviations


def merges(space: PolicySpace, context: ResearchContext, merge_lines: MergeLines) -> list[Option]:
    """Return all changes that lead against the incumbent as one; none unless there are two.

    Where two want the same parameter or data, the stronger has it; steps that two put into the program are all in it,
    and so is code that two changed in different places. One whose code clashes with a stronger's stays out.
    """
    leading = [item for item in context.standings if led(item, context) >= MERGE_LEAD]
    leading.sort(key=lambda item: led(item, context))
    kept, code = together(context.files, leading[::-1], merge_lines)
    leading = kept[::-1]
    changes: dict[str, Value] = {}
    files: dict[str, bytes] = {}
    for item in leading:
        changes |= item.changes
        files |= _with_program(space, context, files, item.files)
    files |= code
    if len(leading) < 2 or any((changes, files) == (item.changes, item.files) for item in context.standings):
        return []
    parents = tuple(sorted({item.candidate_id for item in leading if _is_in(item, changes, files, code)} - {0}))
    says = f"what changes {', '.join(sorted(files))}" if files else ""
    return [Option("merge", changes, WHOLE, files, says, parents)]


def _is_in(item: Standing, changes: Mapping[str, Value], files: Mapping[str, bytes], code: Mapping[str, bytes]) -> bool:
    """Return whether anything of a candidate is in what was merged: a stronger may have all that it wanted."""
    own = any(changes[name] == value for name, value in item.changes.items())
    return own or any(name in code or name == PROGRAM or files[name] == data for name, data in item.files.items())


def _with_program(
    space: PolicySpace, context: ResearchContext, weaker: Mapping[str, bytes], stronger: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the stronger's files, its program with the weaker's steps in it where that is possible."""
    base, one, other = steps_in(context.files), steps_in(weaker), steps_in(stronger)
    both = joined(base, other, one, space.skills) if base and one and other else None
    return {**stronger, PROGRAM: write_steps(both)} if both else dict(stronger)
