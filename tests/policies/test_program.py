"""A program is valid where each step needs what the last one gave; an edit of one step gives a valid one or none."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.skills.program import (
    DONE,
    MAX_STEPS,
    START,
    check,
    insertions,
    read_steps,
    removals,
    replacements,
    write_steps,
)
from policies.space import Skill, SpaceError

SKILLS = tuple(
    Skill(name, needs, gives, "It helps.", ())
    for name, needs, gives in (
        ("look", START, "seen"),
        ("guess", START, "seen"),
        ("above", "seen", "above"),
        ("settle", "above", "above"),
        ("descend", "above", "touching"),
        ("spiral", "touching", "touching"),
        ("press", "touching", DONE),
        ("again", DONE, DONE),
    )
)
NAMES = [skill.name for skill in SKILLS]
NAIVE = ("look", "above", "descend", "press")


@st.composite
def programs(draw: st.DrawFn) -> tuple[str, ...]:
    """A walk from start to done, made apart from the code under test."""
    return (
        draw(st.sampled_from(["look", "guess"])),
        "above",
        *(["settle"] * draw(st.integers(0, 2))),
        "descend",
        *(["spiral"] * draw(st.integers(0, 2))),
        "press",
        *(["again"] * draw(st.integers(0, 2))),
    )


def fits(steps: tuple[str, ...]) -> bool:
    try:
        check(steps, SKILLS)
    except SpaceError:
        return False
    return True


@settings(deadline=None)
@given(programs())
def test_a_program_comes_back_from_its_file(steps: tuple[str, ...]) -> None:
    check(steps, SKILLS)
    assert read_steps(write_steps(steps)) == steps
    assert write_steps(steps).count(b"\n") == len(steps) + 2


@settings(deadline=None, max_examples=30)
@given(programs())
def test_the_edits_are_all_valid_programs_one_step_away_but_for_doubled_steps(steps: tuple[str, ...]) -> None:
    places = range(len(steps))
    longer = {(*steps[:k], name, *steps[k:]) for k, name in product(range(len(steps) + 1), NAMES)}
    shorter = {(*steps[:k], *steps[k + 1 :]) for k in places}
    others = {(*steps[:k], name, *steps[k + 1 :]) for k, name in product(places, NAMES)} - {steps}

    def doubled(program: tuple[str, ...]) -> int:
        return sum(one == other for one, other in pairwise(program))

    for found, wanted in ((insertions, longer), (replacements, others)):
        made = found(steps, SKILLS)
        assert len(set(made)) == len(made)
        assert set(made) == {program for program in wanted if fits(program) and doubled(program) <= doubled(steps)}
    assert set(removals(steps, SKILLS)) == {program for program in shorter if fits(program)}


def test_an_insertion_can_be_taken_back() -> None:
    for longer in insertions(NAIVE, SKILLS):
        assert NAIVE in removals(longer, SKILLS)


def test_the_naive_program_has_the_edits_that_one_can_count() -> None:
    assert insertions(NAIVE, SKILLS) == (
        ("look", "above", "settle", "descend", "press"),
        ("look", "above", "descend", "spiral", "press"),
        ("look", "above", "descend", "press", "again"),
    )
    assert removals(NAIVE, SKILLS) == ()
    assert replacements(NAIVE, SKILLS) == (("guess", "above", "descend", "press"),)


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((), "a program of 0 steps; allowed is 1 to 32"),
        (("look", "above", *["settle"] * (MAX_STEPS - 3), "descend", "press"), "a program of 33 steps"),
        (("above",), "step 1, above, needs 'seen', and there it is 'start'"),
        (("look", "above", "press"), "step 3, press, needs 'touching', and there it is 'above'"),
        (("look", "above"), "the program ends with 'above'; its last step must give 'done'"),
        (("look", "dance"), "step 2 is 'dance', which is no skill; there are above, again, descend, "),
    ],
)
def test_a_program_that_does_not_fit_together_is_refused(steps: tuple[str, ...], text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        check(steps, SKILLS)
    assert str(caught.value).startswith(text)


def test_a_program_may_have_as_many_steps_as_are_allowed_and_no_edit_makes_more() -> None:
    steps = ("look", "above", *["settle"] * (MAX_STEPS - 4), "descend", "press")
    check(steps, SKILLS)
    assert insertions(steps, SKILLS) == ()


@pytest.mark.parametrize(
    "data",
    [
        b"steps = [",
        b"\xff",
        b"",
        b"steps = []",
        b'steps = ["look"]\nmore = 1',
        b'steps = "look"',
        b"steps = [1]",
        b'steps = ["Look"]',
        b'steps = ["../look"]',
        b"steps = " + b"[" * 9000,
        b'steps = ["look",' + b'"look",' * MAX_STEPS + b"]",
    ],
)
def test_what_is_no_program_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(SpaceError) as caught:
        read_steps(data)
    assert str(caught.value).startswith("program.toml: ")
    assert "\n" not in str(caught.value)
