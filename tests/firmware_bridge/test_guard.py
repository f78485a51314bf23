"""The guard lets through what is allowed, on the limit too, and refuses everything else, for every joint and sign."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from firmware_bridge import guard
from firmware_bridge.guard import (
    ALLOWED,
    NOT_FINITE,
    TOO_FAST,
    TOO_HIGH,
    TOO_LOW,
    TOO_STRONG,
    JointLimits,
    LimitsImpossible,
    SetpointRefused,
    check_setpoint,
    find_refusal,
    narrow,
)

DT_S = 1.0 / 240.0
LIMITS = JointLimits(
    lower_rad=np.array([-2.6, 0.0, 0.0, -1.7, -1.5, -2.0]),
    upper_rad=np.array([3.1, 3.6, 3.1, 1.5, 1.5, 2.0]),
    velocity_rad_s=np.array([3.0, 3.0, 3.0, 6.0, 6.0, 6.0]),
    torque_nm=np.array([25.0, 25.0, 25.0, 7.0, 7.0, 7.0]),
)
MIDDLE = (LIMITS.lower_rad + LIMITS.upper_rad) / 2
JUST = 1e-9


@pytest.fixture(params=["compiled", "python"], autouse=True)
def _both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every case on the compiled rule and on its Python source, which coverage and mutation tests can see."""
    if request.param == "python":
        monkeypatch.setattr(guard, "find_refusal", find_refusal.py_func)


def check(target: np.ndarray, last: np.ndarray, torque: np.ndarray, limits: JointLimits = LIMITS) -> int:
    """Return the rule that the guard finds broken."""
    try:
        check_setpoint(target, last, torque, limits, DT_S)
    except SetpointRefused as refusal:
        return refusal.rule
    return ALLOWED


def at(joint: int, value: float, base: np.ndarray) -> np.ndarray:
    """Return `base` with one joint changed."""
    changed = base.copy()
    changed[joint] = value
    return changed


def low(joint: int, by: float) -> tuple[Any, ...]:
    pose = at(joint, LIMITS.lower_rad[joint] - by, MIDDLE)
    return pose, pose, np.zeros(6)


def high(joint: int, by: float) -> tuple[Any, ...]:
    pose = at(joint, LIMITS.upper_rad[joint] + by, MIDDLE)
    return pose, pose, np.zeros(6)


def faster(joint: int, by: float) -> tuple[Any, ...]:
    return at(joint, MIDDLE[joint] + (LIMITS.velocity_rad_s[joint] + by) * DT_S, MIDDLE), MIDDLE, np.zeros(6)


def faster_back(joint: int, by: float) -> tuple[Any, ...]:
    return at(joint, MIDDLE[joint] - (LIMITS.velocity_rad_s[joint] + by) * DT_S, MIDDLE), MIDDLE, np.zeros(6)


def stronger(joint: int, by: float) -> tuple[Any, ...]:
    return MIDDLE, MIDDLE, at(joint, LIMITS.torque_nm[joint] + by, np.zeros(6))


def stronger_back(joint: int, by: float) -> tuple[Any, ...]:
    return MIDDLE, MIDDLE, at(joint, -LIMITS.torque_nm[joint] - by, np.zeros(6))


EDGES = [
    (low, TOO_LOW),
    (high, TOO_HIGH),
    (faster, TOO_FAST),
    (faster_back, TOO_FAST),
    (stronger, TOO_STRONG),
    (stronger_back, TOO_STRONG),
]


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize(("case", "rule"), EDGES)
def test_each_limit_is_allowed_up_to_and_on_it_and_refused_beyond(
    case: Callable[[int, float], tuple[Any, ...]], rule: int, joint: int
) -> None:
    assert check(*case(joint, -JUST)) == ALLOWED
    assert check(*case(joint, 0.0)) == ALLOWED
    # Steps may be off by rounding (1e-12 rad), so just outside means a velocity that shows.
    assert check(*case(joint, 1e-6)) == rule


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(joint: int, value: float) -> None:
    assert check(at(joint, value, MIDDLE), MIDDLE, np.zeros(6)) == NOT_FINITE
    assert check(MIDDLE, MIDDLE, at(joint, value, np.zeros(6))) == NOT_FINITE
    assert check(MIDDLE, at(joint, value, MIDDLE), np.zeros(6)) == TOO_FAST


def test_an_allowed_setpoint_is_no_refusal() -> None:
    assert check(MIDDLE, MIDDLE, np.zeros(6)) == ALLOWED


@pytest.mark.parametrize("field", ["lower_rad", "upper_rad", "velocity_rad_s", "torque_nm"])
def test_a_limit_that_is_nan_refuses_everything(field: str) -> None:
    arrays = {name: getattr(LIMITS, name).copy() for name in ("lower_rad", "upper_rad", "velocity_rad_s", "torque_nm")}
    arrays[field][2] = np.nan
    # Past the constructor, which would not have it, straight into the rule.
    lower, upper, velocity, torque = arrays.values()
    rule, joint, _, _ = guard.find_refusal(MIDDLE, MIDDLE, np.zeros(6), lower, upper, velocity, torque, DT_S)
    assert (rule != ALLOWED, joint) == (True, 2)


@pytest.mark.parametrize(
    ("target", "last", "torque", "text"),
    [
        (at(2, -0.5, MIDDLE), MIDDLE, np.zeros(6), "joint 3: position -0.5000 rad is not above its lower limit 0.0000"),
        (at(5, 2.5, MIDDLE), MIDDLE, np.zeros(6), "joint 6: position 2.5000 rad is not below its upper limit 2.0000"),
        (at(0, MIDDLE[0] + 0.1, MIDDLE), MIDDLE, np.zeros(6), "joint 1: velocity +24.000 rad/s is not within 3.000"),
        (MIDDLE, MIDDLE, at(3, -8.0, np.zeros(6)), "joint 4: feed-forward torque -8.000 N m is not within 7.000"),
        (at(1, np.nan, MIDDLE), MIDDLE, np.zeros(6), "joint 2: nan is not a finite number"),
    ],
)
def test_a_refusal_says_joint_value_and_limit(
    target: np.ndarray, last: np.ndarray, torque: np.ndarray, text: str
) -> None:
    with pytest.raises(SetpointRefused) as refusal:
        check_setpoint(target, last, torque, LIMITS, DT_S)
    assert text in str(refusal.value)


def test_a_refusal_carries_its_numbers() -> None:
    with pytest.raises(SetpointRefused) as refusal:
        check_setpoint(MIDDLE, MIDDLE, at(3, 8.0, np.zeros(6)), LIMITS, DT_S)
    told = refusal.value
    assert (told.rule, told.joint, told.value, told.limit) == (TOO_STRONG, 4, 8.0, 7.0)


def test_the_first_joint_at_fault_is_named() -> None:
    with pytest.raises(SetpointRefused, match="joint 2"):
        check_setpoint(at(1, 9.0, at(4, 9.0, MIDDLE)), MIDDLE, np.zeros(6), LIMITS, DT_S)


def test_narrow_keeps_what_all_allow() -> None:
    site = JointLimits(LIMITS.lower_rad + 0.1, LIMITS.upper_rad + 1.0, LIMITS.velocity_rad_s * 2, LIMITS.torque_nm / 2)
    both = narrow(LIMITS, site)
    np.testing.assert_array_equal(both.lower_rad, LIMITS.lower_rad + 0.1)
    np.testing.assert_array_equal(both.upper_rad, LIMITS.upper_rad)
    np.testing.assert_array_equal(both.velocity_rad_s, LIMITS.velocity_rad_s)
    np.testing.assert_array_equal(both.torque_nm, LIMITS.torque_nm / 2)


def with_field(field: str, value: float) -> dict[str, np.ndarray]:
    arrays = {name: getattr(LIMITS, name).copy() for name in ("lower_rad", "upper_rad", "velocity_rad_s", "torque_nm")}
    arrays[field][3] = value
    return arrays


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lower_rad", np.nan),
        ("lower_rad", -np.inf),
        ("lower_rad", 1.5),  # equals the upper limit
        ("upper_rad", np.nan),
        ("upper_rad", np.inf),
        ("upper_rad", -1.8),
        ("velocity_rad_s", 0.0),
        ("velocity_rad_s", -1.0),
        ("velocity_rad_s", np.nan),
        ("velocity_rad_s", np.inf),
        ("torque_nm", 0.0),
        ("torque_nm", np.nan),
        ("torque_nm", np.inf),
    ],
)
def test_limits_that_allow_nothing_or_anything_are_impossible(field: str, value: float) -> None:
    with pytest.raises(LimitsImpossible, match="joint 4"):
        JointLimits(**with_field(field, value))


def test_limits_of_two_sizes_are_impossible() -> None:
    with pytest.raises(LimitsImpossible, match="torque_nm has shape"):
        JointLimits(LIMITS.lower_rad, LIMITS.upper_rad, LIMITS.velocity_rad_s, np.ones(5))


def test_disjoint_limits_leave_nothing() -> None:
    elsewhere = JointLimits(LIMITS.upper_rad + 1, LIMITS.upper_rad + 2, LIMITS.velocity_rad_s, LIMITS.torque_nm)
    with pytest.raises(LimitsImpossible, match="joint 1"):
        narrow(LIMITS, elsewhere)


def test_limits_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        LIMITS.lower_rad[0] = -9.0
