"""Budgets and prices of agents' calls: sums are exact, and what is set aside is never promised twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.agents.prices import NANO_USD, Price, PricesError, load_prices
from coordinator.agents.purse import Budget, BudgetSpent, Cost, Purse
from coordinator.agents.stream import Events
from coordinator.agents.usage import CHAT, MESSAGES, RESPONSES, Meter, Usage

COUNTS = st.integers(0, 10**6)
CALLS = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=40)


@given(CALLS)
def test_no_order_of_calls_overspends(calls: Sequence[tuple[int, int]]) -> None:
    """Each call costs at most what was set aside for it; every second one is booked late."""
    above = Purse(Budget(tokens=1500))
    purse = Purse(Budget(tokens=2000, nano_usd=1800), parent=above)
    open_calls: list[tuple[Cost, Cost]] = []
    for number, (most, cost) in enumerate(calls):
        try:
            purse.set_aside(Cost(most, most), 0.0)
        except BudgetSpent:
            continue
        open_calls.append((Cost(most, most), Cost(min(cost, most), min(cost, most))))
        if number % 2:
            purse.book(*open_calls.pop(0))
        assert purse.spent.tokens + sum(most.tokens for most, _ in open_calls) <= 1500
    for most_cost in open_calls:
        purse.book(*most_cost)
    assert above.spent == purse.spent
    left = purse.left(0.0)
    assert left.tokens == 1500 - purse.spent.tokens
    assert left.nano_usd == 1800 - purse.spent.nano_usd


def test_what_the_campaign_refuses_is_not_set_aside_in_the_lane() -> None:
    purse = Purse(Budget(tokens=100), parent=Purse(Budget(tokens=10)))
    with pytest.raises(BudgetSpent, match="10 left, this call may need 50"):
        purse.set_aside(Cost(50), 0.0)
    purse.set_aside(Cost(10), 0.0)


def test_time_runs_from_the_opening_on() -> None:
    purse = Purse(Budget(seconds=10), opened_s=100)
    purse.set_aside(Cost(1), 109.9)
    with pytest.raises(BudgetSpent, match="time"):
        purse.set_aside(Cost(1), 110.0)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_every_protocol_tells_the_same_tokens(fresh: int, read: int, written: int, output: int, thought: int) -> None:
    inside, outside = fresh + read + written, output + thought
    told = {
        MESSAGES: {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "output_tokens": outside,
            "output_tokens_details": {"thinking_tokens": thought},
        },
        RESPONSES: {
            "input_tokens": inside,
            "input_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
            "output_tokens": outside,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": inside + outside + 5,
        },
        CHAT: {
            "prompt_tokens": inside,
            "cached_tokens": read,
            "prompt_tokens_details": {"cache_write_tokens": written},
            "completion_tokens": outside,
            "completion_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": inside + outside + 5,
        },
    }
    for protocol, usage in told.items():
        meter = Meter(protocol)
        meter.whole(repr({"usage": usage}).replace("'", '"').encode())
        other = 0 if protocol == MESSAGES else 5
        assert meter.told == Usage(fresh, read, written, output, thought, other)
        assert meter.guessed(999) == Usage()


@given(st.sampled_from([MESSAGES, RESPONSES, CHAT]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "message", "usage", "delta", "choices", "response", "input_tokens", "output_tokens"]),
        inner, max_size=4,
    ), max_leaves=20,
))  # fmt: skip
def test_no_answer_upsets_the_meter(protocol: str, event: object) -> None:
    meter = Meter(protocol)
    if isinstance(event, dict):
        meter.parsed(event)
    assert meter.told.total >= 0
    assert meter.guessed(10).total >= 0


@given(
    st.lists(st.text(alphabet="abü{}: ", min_size=1, max_size=12), max_size=8),
    st.integers(1, 9),
    st.sampled_from(["\n", "\r\n"]),
)
def test_events_come_out_as_they_went_in_however_they_are_cut(texts: Sequence[str], size: int, ending: str) -> None:
    stream = "".join(f"event: x{ending}data: {text}{ending}{ending}" for text in texts).encode()
    events = Events()
    found = [event for i in range(0, len(stream), size) for event in events.feed(stream[i : i + size])]
    assert [data for _, data in found] == [text.strip() for text in texts]
    assert b"".join(raw for raw, _ in found) + events.rest() == stream


def test_a_price_is_the_newest_of_the_longest_name_that_fits() -> None:
    prices = load_prices()
    before, after = (prices.of("claude-sonnet-5-5", date(2026, 10, day)) for day in (6, 7))
    assert before is not None
    assert after is not None
    assert (before.cache_read, after.cache_read) == (200, 100)
    opus = prices.of("claude-opus-5-5-20260922", date(2026, 11, 1))
    assert opus is not None
    assert opus.model == "claude-opus-5-5*"
    assert prices.of("claude-opus-5-5", date(2026, 9, 21)).model == "claude-opus-5*"  # type: ignore[union-attr]
    assert prices.of("nobody's", date(2030, 1, 1)) is None


def test_a_million_tokens_cost_what_the_table_says() -> None:
    price = Price("m", date.min, 3000, 300, 3750, 6000, 15000)
    million = 10**6
    usage = Usage(million, million, 2 * million, million, million, 0, million)
    assert price.cost(usage) == round((3 + 0.3 + 3.75 + 6 + 15 + 15) * NANO_USD)


@pytest.mark.parametrize(
    "row",
    [
        'model = "m"\nas_of = 2026-01-01\nusd = { fresh = 1.0 }',
        'model = "m"\nas_of = "soon"\nusd = { fresh = 1, cache_read = 1, cache_write = 1, output = 1 }',
        'model = "m"\nas_of = 2026-01-01\nusd = { fresh = -1, cache_read = 1, cache_write = 1, output = 1 }',
        'model = "m"\nas_of = 2026-01-01\nusd = { fresh = 0.0001, cache_read = 1, cache_write = 1, output = 1 }',
        'model = "m"\nas_of = 2026-01-01\nusd = { fresh = 1, cache_read = 1, cache_write = 1, output = 1, outptu = 1 }',
    ],
)
def test_a_row_that_is_no_price_is_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(f"[[price]]\n{row}\n")
    with pytest.raises(PricesError):
        load_prices(path)
