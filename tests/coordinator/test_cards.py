"""A card says what was changed and what came of it in at most 2 KiB, and comes back from its JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution.cards import MAX_BYTES, difference, from_json, make, text, to_json
from coordinator.evolution.ideas import DevResult, Tried
from coordinator.evolution.rates import exact_interval
from policies.interface import Value
from policies.skills.program import write_steps

LAW = settings(deadline=None, max_examples=60)


def attempts(outcomes: str) -> tuple[DevResult, ...]:
    return tuple(
        DevResult(f"dev-{k:04d}", x == "s", float(x == "s"), "" if x == "s" else "missed", 7.0)
        for k, x in enumerate(outcomes)
    )


def tried(outcomes: str, changes: dict[str, Value] | None = None, sentence: str = "It helps.") -> Tried:
    dev = attempts(outcomes)
    return Tried(7, 3, "switch", changes or {}, (), sentence, "accept", "gate", 2.0, 12.5, 8.25, dev)


def test_a_card_counts_wins_and_losses_by_start_against_the_incumbent() -> None:
    card = make(tried("ssmms", {"tries": 3.0, "ease": True}), attempts("smsm"), "wealth 21.3 of 20")
    assert (card.successes, card.attempts) == (3, 5)
    assert (card.low, card.high) == exact_interval(3, 5)
    assert (card.wins, card.losses) == (("dev-0001",), ("dev-0002",))  # the last start the incumbent never had
    assert text(card).splitlines() == [
        "candidate 7 of 3, switch: It helps.",
        "  change: ease = true; tries = 3",
        f"  success: 3/5 on development starts ({card.low:.0%} to {card.high:.0%}), +12.5 points, 8.2 robot minutes",
        "  wins on: dev-0001; loses on: dev-0002",
        "  verdict: accept in the gate, wealth 21.3 of 20",
    ]


def test_a_candidate_without_attempts_has_a_card_that_claims_nothing() -> None:
    card = make(tried(""), ())
    assert (card.low, card.high, card.wins, card.losses) == (0.0, 1.0, (), ())
    assert "0/0 on development starts (0% to 100%)" in text(card)


def test_the_difference_is_parameters_steps_and_lines() -> None:
    before = {"policy.py": b"a\nb\nc\n", "policy.toml": b"x = 1", "program.toml": write_steps(("look", "press"))}
    after = {
        "policy.py": b"a\nB\nc\nd\n", "policy.toml": b"x = 2", "new.json": b"[1]\n",
        "program.toml": write_steps(("look", "settle", "press")),
    }  # fmt: skip
    assert difference({"x": 2.0}, before, after) == (
        "x = 2; new.json +1 -0 lines; policy.py +2 -1 lines; program +settle (look > settle > press)"
    )
    assert difference({}, before, before) == ""
    assert difference({}, {}, {}, ("program.toml", "policy.py")) == "policy.py; program.toml"
    assert difference({}, {"program.toml": b"?"}, {"program.toml": b"!\n"}) == "program.toml +1 -1 lines"


@LAW
@given(
    st.text(max_size=4000),
    st.text(max_size=4000),
    st.dictionaries(st.text("abé", min_size=1, max_size=90), st.floats(0, 1e300) | st.booleans(), max_size=40),
    st.text("ms", max_size=60),
    st.text("ms", max_size=60),
)
def test_any_card_is_small_of_plain_lines_and_comes_back(
    sentence: str, reason: str, changes: dict[str, Value], mine: str, theirs: str
) -> None:
    card = make(tried(mine, changes, sentence), attempts(theirs), reason)
    said = text(card)
    assert len(said.encode()) <= MAX_BYTES
    assert len(said.split("\n")) <= 5
    assert all(line.isprintable() for line in said.split("\n"))
    assert from_json(to_json(card)) == card
    assert "\n" not in to_json(card)
    assert not set(card.wins) & set(card.losses)
    mirrored = make(tried(theirs), attempts(mine))
    assert (mirrored.wins, mirrored.losses) == (card.losses, card.wins)


@pytest.mark.parametrize("line", ["", "[]", "{}", json.dumps({"candidate_id": 1})])
def test_what_is_no_card_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not an evidence card|Expecting value"):
        from_json(line)
