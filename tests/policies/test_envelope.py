"""An envelope is numbers that allow something, in SI units and of the right count; all else is refused."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from policies.envelope import Envelope, EnvelopeError, read_envelope

MOST = {
    "lower_rad": 10.0,
    "upper_rad": 10.0,
    "velocity_rad_s": 100.0,
    "acceleration_rad_s2": 10_000.0,
    "torque_nm": 1_000.0,
    "box_lower_m": 5.0,
    "box_upper_m": 5.0,
    "trial_s": 3_600.0,
}
COUNTS = {name: 3 if name.startswith("box") else 6 for name in MOST if name != "trial_s"}
SIGNED = ("lower_rad", "upper_rad", "box_lower_m", "box_upper_m")
WHOLE: dict[str, Any] = {
    "lower_rad": [-3, -2, -1, -1, -1, -1],
    "upper_rad": [3, 2, 1, 1, 1, 1],
    "velocity_rad_s": [1, 2, 3, 4, 5, 6],
    "acceleration_rad_s2": [10, 20, 30, 40, 50, 60],
    "torque_nm": [1.5, 1.5, 1.5, 0.5, 0.5, 0.5],
    "box_lower_m": [0.2, -0.3, 0],
    "box_upper_m": [0.6, 0.3, 0.4],
    "trial_s": 30,
}


def with_one(name: str, value: object) -> dict[str, Any]:
    """Return a table that holds `value` as the last number of a limit."""
    return {name: [0.5] * (COUNTS[name] - 1) + [value] if name in COUNTS else value}


def last(envelope: Envelope, name: str) -> float:
    value = getattr(envelope, name)
    return float(value if name == "trial_s" else value[-1])


def refusal(table: dict[str, Any]) -> str:
    with pytest.raises(EnvelopeError) as caught:
        read_envelope(table)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    return message


def test_every_limit_has_its_place_and_is_left_out_where_it_is_not_given() -> None:
    assert [item.name for item in fields(Envelope)] == list(MOST) == list(WHOLE)
    whole = read_envelope(WHOLE)
    for name, value in WHOLE.items():
        given = tuple(value) if name in COUNTS else value
        assert getattr(whole, name) == given
        assert read_envelope({name: value}) == Envelope(**{name: given})
    assert read_envelope({}) == Envelope()
    assert {getattr(Envelope(), name) for name in MOST} == {None}


def test_numbers_are_floats_however_they_are_written() -> None:
    whole = read_envelope(WHOLE)
    assert {type(number) for name in COUNTS for number in getattr(whole, name)} == {float}
    assert type(whole.trial_s) is float


def test_an_envelope_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        read_envelope(WHOLE).trial_s = 60.0  # type: ignore[misc]


@pytest.mark.parametrize("name", MOST)
def test_a_number_is_allowed_up_to_and_on_its_limits_and_refused_beyond(name: str) -> None:
    most = MOST[name]
    least = -most if name in SIGNED else math.nextafter(0.0, 1.0)
    for allowed in (most, math.nextafter(most, 0.0), least):
        assert last(read_envelope(with_one(name, allowed)), name) == allowed
    beyond = [math.nextafter(most, math.inf), most + 1, -most - 1, math.inf, -math.inf, math.nan, 10**400]
    for value in beyond if name in SIGNED else [*beyond, 0, 0.0, -0.0, -1]:
        said = f"{-most:g}" if name in SIGNED else "more than 0"
        assert refusal(with_one(name, value)) == f"envelope.{name} holds {value!r:.30}; allowed is {said} to {most:g}"


@pytest.mark.parametrize("name", COUNTS)
def test_there_is_a_number_for_each_joint_or_axis(name: str) -> None:
    count = COUNTS[name]
    for value in ([0.5] * (count - 1), [0.5] * (count + 1), [], 0.5, None, "0.5" * count, {"a": 0.5}, (0.5,) * count):
        assert refusal({name: value}) == f"envelope.{name} is not a list of {count} numbers"


@pytest.mark.parametrize("value", [True, False, "1", None, [1], {"a": 1}])
@pytest.mark.parametrize("name", MOST)
def test_what_is_not_a_number_is_refused(name: str, value: object) -> None:
    assert refusal(with_one(name, value)) == f"envelope.{name} holds something that is not a number"


@pytest.mark.parametrize(("low", "high"), [("lower_rad", "upper_rad"), ("box_lower_m", "box_upper_m")])
def test_a_lower_limit_is_below_its_upper_one_on_every_joint_and_axis(low: str, high: str) -> None:
    count = COUNTS[low]
    for at in range(count):
        lower, upper = [-0.5] * count, [0.5] * count
        lower[at], upper[at] = 0.25, math.nextafter(0.25, 1.0)
        assert getattr(read_envelope({low: lower, high: upper}), low)[at] == 0.25
        for value in (0.25, -0.25):
            upper[at] = value
            text = f"envelope.{low} holds 0.25, which is not below {value:g} of {high}"
            assert refusal({low: lower, high: upper}) == text


def test_a_limit_that_is_not_known_is_refused() -> None:
    message = refusal({"trial_s": 1, "jerk_rad_s3": [1] * 6})
    assert message == f"envelope.jerk_rad_s3 is not known here; known are {', '.join(MOST)}"
