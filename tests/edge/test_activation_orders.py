"""An order comes out of its JSON as it went in, and JSON that no coordinator of ours writes is refused by name."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.records import (
    MOST_STARTS,
    ROLLOUT_STAGES,
    RecordError,
    RolloutOrder,
    RolloutStart,
    order_from_json,
    order_to_json,
)

HASH = "ab" * 32
START = RolloutStart("dev-1", {"x_m": 0.3, "yaw_rad": -1.0}, 7)
ORDER = RolloutOrder(3, HASH, "push_t", "active", (START,), 1_700_000_000.0, 1_700_003_600.0, False, "cd" * 32)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
STARTS = st.builds(
    RolloutStart, st.text(), st.dictionaries(st.text(), NUMBERS, max_size=3), st.integers(-(2**63), 2**63 - 1)
)


@st.composite
def orders(draw: st.DrawFn) -> RolloutOrder:
    times = sorted([draw(NUMBERS), draw(NUMBERS)])
    rollback = draw(st.booleans())
    starts = tuple(draw(st.lists(STARTS, min_size=1, max_size=3)))
    bundle = draw(HASHES | st.just("")) if rollback else draw(HASHES)
    number, stage, parent = (
        draw(st.integers(1, 2**53)),
        draw(st.sampled_from(ROLLOUT_STAGES)),
        draw(HASHES | st.just("")),
    )
    return RolloutOrder(number, bundle, draw(st.text()), stage, starts, times[0], times[1], rollback, parent)


def changed(**values: object) -> bytes:
    """Return the JSON of an order with some keys set to other values."""
    return json.dumps(json.loads(order_to_json(ORDER)) | values).encode()


@given(orders())
def test_an_order_comes_out_of_its_json_as_it_went_in(order: RolloutOrder) -> None:
    body = order_to_json(order)
    assert order_from_json(body) == order
    assert order_to_json(order_from_json(body)) == body


def test_the_json_is_the_same_wherever_it_is_written() -> None:
    assert order_to_json(ORDER) == (
        b'{"bundle":"' + HASH.encode() + b'","issued_unix_s":1700000000.0,"number":3,"parent":"' + b"cd" * 32
        + b'","rollback":false,"stage":"active","starts":[{"seed":7,"start":{"x_m":0.3,"yaw_rad":-1.0},"start_id":'
        + b'"dev-1"}],"task":"push_t","until_unix_s":1700003600.0}'
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "number": (0, -1, 2**53 + 1, 2**63, 1.0, "1", None, True, [1]),
        "bundle": ("", HASH.upper(), HASH[:-1], HASH + "0", "x" * 64, HASH[:-1] + "\n", 1, None),
        "task": (1, None, ["push_t"]),
        "stage": ("", "probation", "Active", None, 1),
        "starts": ([], {}, None, "dev-1", [1], [[]], [{}]),
        "issued_unix_s": (1_700_003_600.1, "now", None, True, 10**400),
        "until_unix_s": (1_699_999_999.9, "then", None, False),
        "rollback": (0, 1, "false", None),
        "parent": ("x", HASH[:-1], 1, None),
    }.items(),
)
def test_a_value_that_cannot_be_followed_is_refused(name: str, values: tuple[object, ...]) -> None:
    assert name in {item.name for item in fields(RolloutOrder)}
    for value in values:
        with pytest.raises(RecordError) as caught:
            order_from_json(changed(**{name: value}))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("start_id", 1), ("start", []), ("start", {"x_m": "0"}), ("start", {"x_m": True}), ("seed", 2**63), ("seed", 0.5)],
)
def test_a_start_is_checked_as_well(key: str, value: object) -> None:
    start: dict[str, Any] = json.loads(order_to_json(ORDER))["starts"][0]
    assert order_from_json(changed(starts=[start])) == ORDER
    for wrong in (
        start | {key: value},
        start | {"colour": "red"},
        {name: start[name] for name in start if name != key},
    ):
        with pytest.raises(RecordError, match=r"RolloutStart|seed"):
            order_from_json(changed(starts=[wrong]))


@pytest.mark.parametrize("name", [item.name for item in fields(RolloutOrder)])
def test_a_key_that_is_missing_there_twice_or_unknown_is_refused(name: str) -> None:
    raw = json.loads(order_to_json(ORDER))
    with pytest.raises(RecordError, match=name):
        order_from_json(json.dumps({key: raw[key] for key in raw if key != name}).encode())
    twice = order_to_json(ORDER)[:-1] + f',"{name}":{json.dumps(raw[name])}}}'.encode()
    with pytest.raises(RecordError, match="twice"):
        order_from_json(twice)
    with pytest.raises(RecordError, match="colour"):
        order_from_json(changed(colour="red"))


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("where", ['"issued_unix_s":1700000000.0', '"until_unix_s":1700003600.0', '"x_m":0.3'])
def test_what_is_no_number_is_refused(word: str, where: str) -> None:
    body = order_to_json(ORDER).decode()
    with pytest.raises(RecordError):
        order_from_json(body.replace(where, f"{where.split(':')[0]}:{word}").encode())


def test_too_many_starts_are_refused() -> None:
    most = replace(ORDER, starts=(START,) * MOST_STARTS)
    assert order_from_json(order_to_json(most)) == most
    with pytest.raises(RecordError, match="starts"):
        order_from_json(order_to_json(replace(most, starts=(*most.starts, START))))


def test_only_the_shadow_and_the_way_back_need_no_starts() -> None:
    for order in (replace(ORDER, starts=(), stage="shadow"), replace(ORDER, starts=(), rollback=True, bundle="")):
        assert order_from_json(order_to_json(order)) == order
    for stage in ("canary", "active"):
        with pytest.raises(RecordError, match="starts"):
            order_from_json(order_to_json(replace(ORDER, starts=(), stage=stage)))


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_at_all_raise_anything_else(body: bytes) -> None:
    with pytest.raises(RecordError):
        order_from_json(body)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"1" * 10_000, b"{}", b"[]", b"null", b"\xff", order_to_json(ORDER) + b"{}"]
)
def test_what_is_no_order_is_refused(body: bytes) -> None:
    with pytest.raises(RecordError):
        order_from_json(body)
