"""Records come out of their bytes as they went in, and bytes that are not a record are refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Assignment, Lease, Outcome, RecordError, Trial, content_hash, decode, encode

NOW_S = 1_700_000_000.0
ASSIGNMENT = Assignment("a1", "b" * 64, "dev-1", {"x_m": 0.3, "yaw_rad": -1.0}, 7, "screen")
LEASE = Lease("l1", "push_t", (ASSIGNMENT, replace(ASSIGNMENT, assignment_id="a2")), NOW_S)
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.FAILURE, cause="near", detail="2 mm off",
    progress=0.9, measures={"coverage": 0.93}, achieved_start={"x_m": 0.3}, reset_s=9.0, reset_tries=1, trial_s=20.0,
    policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5,
    station_hash="5" * 64, calibration_hash="6" * 64, software="s", recording="", notes={"why": "a note"},
)  # fmt: skip
RECORDS = (ASSIGNMENT, LEASE, TRIAL)

NUMBERS = st.floats(allow_nan=False)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(-(2**63), 2**64 - 1),  # what msgpack can carry
    float: NUMBERS,
    Outcome: st.sampled_from(Outcome),
    Mapping[str, float]: st.dictionaries(st.text(), NUMBERS, max_size=4),
    Mapping[str, str]: st.dictionaries(st.text(), st.text(), max_size=4),
}


def any_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Return records of a kind with anything in every field."""
    return st.builds(kind, **{name: VALUES[hint] for name, hint in get_type_hints(kind).items()})


VALUES[tuple[Assignment, ...]] = st.lists(any_of(Assignment), max_size=3).map(tuple)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.binary() | st.sampled_from([item.name for item in fields(Assignment)]), inner)
    ),
    max_leaves=8,
)

# What another program, or another version of this one, might put where a value of the type should be.
MISTAKES: dict[Any, tuple[object, ...]] = {
    str: (1, None, b"bytes", ["text"], True),
    int: (1.0, "1", None, True, [1]),
    float: ("1.0", None, True, [1.0], b"1"),
    Outcome: ("won", "", 1, None, ["success"], True),
    Mapping[str, float]: ([], "x", None, 1.0, {b"x": 1.0}, {"x": "1.0"}, {"x": None}, {"x": True}, {"x": [1.0]}),
    Mapping[str, str]: ([], "x", None, 1.0, {b"x": "y"}, {"x": 1}, {"x": None}, {"x": b"y"}, {"x": {}}),
    tuple[Assignment, ...]: ("x", None, 1, 1.0, True, {}, b"x"),
}


def packed(record: Assignment | Lease | Trial, **values: object) -> bytes:
    """Return the bytes of a record with some keys set to other values."""
    data: bytes = msgpack.packb(msgpack.unpackb(encode(record)) | values)
    return data


@pytest.mark.parametrize("kind", [Assignment, Lease, Trial])
@settings(deadline=None)
@given(data=st.data())
def test_a_record_comes_out_of_its_bytes_as_it_went_in(kind: type[Any], data: st.DataObject) -> None:
    record = data.draw(any_of(kind))
    again = decode(kind, encode(record))
    assert again == record
    assert encode(again) == encode(record)
    assert content_hash(again) == content_hash(record) == hashlib.sha256(encode(record)).hexdigest()


@settings(deadline=None)
@given(ANYTHING)
def test_whatever_else_msgpack_carries_is_refused(value: object) -> None:
    with pytest.raises(RecordError):
        decode(Assignment, msgpack.packb(value))


@pytest.mark.parametrize("record", RECORDS)
@settings(deadline=None)
@given(data=st.data())
def test_anything_in_the_fields_gives_a_record_of_the_right_types_or_is_refused(
    record: Assignment | Lease | Trial, data: st.DataObject
) -> None:
    names = st.sampled_from([item.name for item in fields(record)])
    values = data.draw(st.dictionaries(names, ANYTHING, min_size=1, max_size=2))
    try:
        again = decode(type(record), packed(record, **values))
    except RecordError:
        return
    assert encode(decode(type(record), encode(again))) == encode(again)


@pytest.mark.parametrize("kind", [Assignment, Lease, Trial])
@settings(deadline=None)
@given(st.binary() | ANYTHING.map(msgpack.packb))
def test_no_bytes_at_all_raise_anything_else(kind: type[Any], body: bytes) -> None:
    with pytest.raises(RecordError):
        decode(kind, body)


@pytest.mark.parametrize("record", RECORDS)
def test_the_keys_travel_in_the_order_of_the_fields(record: Assignment | Lease | Trial) -> None:
    assert list(msgpack.unpackb(encode(record))) == [item.name for item in fields(record)]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_cut_short_or_with_something_behind_it_is_refused(record: Assignment | Lease | Trial) -> None:
    body = encode(record)
    for wrong in [*(body[:size] for size in range(len(body))), body + b"\0"]:
        with pytest.raises(RecordError):
            decode(type(record), wrong)


@pytest.mark.parametrize("value", [None, 1, "text", [], [1], b"bytes"])
def test_what_is_no_map_is_no_record(value: object) -> None:
    with pytest.raises(RecordError, match="not a Trial"):
        decode(Trial, msgpack.packb(value))


@pytest.mark.parametrize("record", RECORDS)
def test_a_missing_or_an_unknown_key_is_refused_by_name(record: Assignment | Lease | Trial) -> None:
    raw = msgpack.unpackb(encode(record))
    for name in raw:
        with pytest.raises(RecordError, match=name):
            decode(type(record), msgpack.packb({key: value for key, value in raw.items() if key != name}))
    with pytest.raises(RecordError, match="colour"):
        decode(type(record), packed(record, colour="red"))


@pytest.mark.parametrize(
    ("record", "name", "value"),
    [
        (record, name, value)
        for record in RECORDS
        for name, hint in get_type_hints(type(record)).items()
        for value in MISTAKES[hint]
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(
    record: Assignment | Lease | Trial, name: str, value: object
) -> None:
    with pytest.raises(RecordError, match=name) as caught:
        decode(type(record), packed(record, **{name: value}))
    assert "\n" not in str(caught.value)


def test_an_assignment_inside_a_lease_is_checked_as_one_outside() -> None:
    item = msgpack.unpackb(encode(ASSIGNMENT))
    for wrong in (item | {"seed": "7"}, item | {"colour": "red"}, {}, 3, None, "a1", [item]):
        with pytest.raises(RecordError, match="Assignment"):
            decode(Lease, packed(LEASE, assignments=[item, wrong]))


def test_keys_of_more_than_one_kind_are_refused_by_name() -> None:
    raw: dict[str | bytes, object] = {b"colour": "red", "shape": "round"}
    with pytest.raises(RecordError, match=r"b'colour', bundle, .*shape, start"):
        decode(Assignment, msgpack.packb(raw))


def test_a_whole_number_may_stand_where_a_number_should() -> None:
    trial = decode(Trial, packed(TRIAL, progress=1, measures={"coverage": 1}))
    assert trial.progress == trial.measures["coverage"] == 1.0
    assert isinstance(trial.progress, float)
    assert isinstance(trial.measures["coverage"], float)


@pytest.mark.parametrize("record", RECORDS)
def test_the_hash_changes_with_every_field(record: Assignment | Lease | Trial) -> None:
    others: dict[Any, object] = {
        str: "another", int: 99, float: 0.123, Outcome: Outcome.INVALID, Mapping[str, float]: {"y_m": 1.0},
        Mapping[str, str]: {}, tuple[Assignment, ...]: (ASSIGNMENT,),
    }  # fmt: skip
    changed = [replace(record, **{name: others[hint]}) for name, hint in get_type_hints(type(record)).items()]
    assert len({content_hash(item) for item in [record, *changed]}) == len(fields(record)) + 1


def test_a_trial_is_known_by_edge_epoch_and_sequence() -> None:
    assert TRIAL.identity == ("station-1", "e1", 1)
