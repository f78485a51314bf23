"""Which failures persist, grow and go, on which starts nothing helps, whatever the order of attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution.ideas import DevResult, Tried
from coordinator.evolution.mining import Mined, mine, text

LAW = settings(deadline=None, max_examples=60)


def attempts(outcomes: str, first: int = 0) -> tuple[DevResult, ...]:
    """One attempt a letter on starts that count up: m missed, f forced, s success."""
    causes = {"m": "missed", "f": "forced", "u": "", "s": ""}
    return tuple(
        DevResult(f"dev-{k:02d}", letter == "s", float(letter == "s"), causes[letter], 7.0)
        for k, letter in enumerate(outcomes, first)
    )


def tried(number: int, parent: int, outcomes: str, verdict: str = "reject", first: int = 0) -> Tried:
    dev = attempts(outcomes, first)
    return Tried(number, parent, "switch", {}, (), "It helps.", verdict, "screen", 0.0, 0.0, 1.0, dev)


def found(mined: Mined, cause: str) -> tuple[tuple[int, ...], str, bool]:
    [item] = [item for item in mined.classes if item.cause == cause]
    return item.counts, item.trend, item.persists


def test_nothing_tried_is_nothing_found() -> None:
    empty = mine([], ())
    assert (empty.generations, empty.classes, empty.stubborn, text(empty)) == ((), (), (), "")
    assert mine([tried(1, 0, "")], ()).generations == ()


def test_a_generation_is_all_that_was_made_of_one_incumbent_and_the_present_one_itself() -> None:
    mined = mine(
        [tried(1, 0, "mmms"), tried(2, 0, "mfss", "accept"), tried(3, 2, "fs"), tried(4, 2, "ffss", "accept")],
        attempts("fsss"),
    )
    assert [(item.incumbent_id, item.attempts, dict(item.failures)) for item in mined.generations] == [
        (0, 8, {"missed": 4, "forced": 1}),
        (2, 6, {"forced": 3}),
        (4, 4, {"forced": 1}),
    ]
    assert found(mined, "missed")[0] == (4, 0, 0)
    assert [item.cause for item in mined.classes] == ["forced", "missed"]


@pytest.mark.parametrize(
    ("before", "now", "trend"),
    [
        ("m" * 10 + "s" * 10, "m" * 10 + "s" * 10, "steady"),
        ("m" * 4 + "s" * 16, "m" * 16 + "s" * 4, "grew"),
        ("m" * 16 + "s" * 4, "m" * 4 + "s" * 16, "shrank"),
        ("m" * 16 + "s" * 4, "s" * 20, "gone"),
        ("m" * 16 + "s" * 4, "s" * 3, "steady"),  # too few to have had to see one
        ("s" * 20, "m" * 10 + "s" * 10, "new"),
        ("mss", "mms", "steady"),  # chance
    ],
)
def test_a_class_grows_shrinks_comes_and_goes_beyond_chance(before: str, now: str, trend: str) -> None:
    mined = mine([tried(1, 0, before, "accept")], attempts(now))
    assert found(mined, "missed")[1] == trend


def test_a_class_persists_that_each_of_the_last_three_generations_knows() -> None:
    line = [tried(1, 0, "ms", "accept"), tried(2, 1, "mf", "accept"), tried(3, 2, "ms", "accept")]
    assert found(mine(line, attempts("ss")), "missed")[2] is False
    mined = mine(line, attempts("ms"))
    assert found(mined, "missed") == ((1, 1, 1, 1), "steady", True)
    assert found(mined, "forced")[2] is False
    assert "in each of the last 3 generations" in text(mined)


def test_a_start_is_stubborn_that_several_policies_tried_and_none_solved() -> None:
    line = [tried(1, 0, "mm"), tried(2, 0, "ms"), tried(3, 0, "ff"), tried(4, 0, "m")]
    [start] = mine(line, ()).stubborn
    assert (start.start_id, start.attempts, start.policies, start.cause) == ("dev-00", 4, 4, "missed")
    assert mine(line, attempts("s")).stubborn == ()
    alone = Tried(1, 0, "k", {}, (), "S.", "reject", "screen", 0, 0, 0, attempts("m") * 9)
    assert mine([alone], ()).stubborn == ()


def test_a_failure_without_a_class_has_a_name_too() -> None:
    assert mine([], attempts("u")).classes[0].cause == "unknown"


OUTCOMES = st.text("mfs", max_size=12)


@LAW
@given(st.lists(st.tuples(st.integers(0, 3), OUTCOMES), max_size=6), OUTCOMES, st.randoms(use_true_random=False))
def test_counts_add_up_and_the_order_of_attempts_never_counts(
    rows: list[tuple[int, str]], now: str, random: object
) -> None:
    line = [tried(10 + k, parent, outcomes) for k, (parent, outcomes) in enumerate(rows)]
    mined = mine(line, attempts(now))
    failures = sum(outcomes.count("m") + outcomes.count("f") for outcomes in [*(item for _, item in rows), now])
    assert sum(sum(item.counts) for item in mined.classes) == failures
    assert sum(item.attempts for item in mined.generations) == sum(len(item) for _, item in rows) + len(now)
    again = [replace(item, dev=item.dev[::-1]) for item in line]
    assert mine(again, attempts(now)[::-1]) == mined
    assert len(text(mined).splitlines()) <= 10
