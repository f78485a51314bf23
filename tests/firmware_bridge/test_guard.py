"""The guard lets through what is allowed, on the limit too, and refuses everything else, for every joint and sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from numba import config

from firmware_bridge import guard
from firmware_bridge.body import BOX_ROOMS, CLEARANCE_M, FACE_ROOMS, FLOOR_PARTS, PAIRS, PART_NAMES, ROOMS
from firmware_bridge.frames import BridgeError
from firmware_bridge.guard import (
    ALLOWED,
    COLLIDING,
    NOT_FINITE,
    OUTSIDE_BOX,
    TOO_ABRUPT,
    TOO_FAST,
    TOO_HIGH,
    TOO_LOW,
    TOO_STRONG,
    JointLimits,
    LimitsImpossible,
    SetpointRefused,
    check_place,
    check_setpoint,
    narrow,
    refusal_text,
)

DT_S = 1.0 / 240.0
LIMITS = JointLimits(
    lower_rad=np.array([-2.6, 0.0, 0.0, -1.7, -1.5, -2.0]),
    upper_rad=np.array([3.1, 3.6, 3.1, 1.5, 1.5, 2.0]),
    velocity_rad_s=np.array([3.0, 3.0, 3.0, 6.0, 6.0, 6.0]),
    torque_nm=np.array([25.0, 25.0, 25.0, 7.0, 7.0, 7.0]),
    acceleration_rad_s2=np.array([60.0, 60.0, 60.0, 120.0, 120.0, 120.0]),
)
FIELDS = ("lower_rad", "upper_rad", "velocity_rad_s", "torque_nm", "acceleration_rad_s2")
MIDDLE = (LIMITS.lower_rad + LIMITS.upper_rad) / 2
STILL = np.zeros(6)
JUST = 1e-9
FORMS = ("python",) if config.DISABLE_JIT else ("compiled", "python")
ROUNDING_RAD = 1e-12


@pytest.fixture(params=FORMS, autouse=True)
def _both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every case on the compiled rules and on their Python source, which coverage and mutation tests can see."""
    if request.param == "python":
        for name in ("find_refusal", "find_trespass"):
            rule = getattr(guard, name)
            monkeypatch.setattr(guard, name, getattr(rule, "py_func", rule))


def check(
    target: np.ndarray,
    last: np.ndarray,
    last_velocity: np.ndarray,
    torque: np.ndarray,
    limits: JointLimits = LIMITS,
) -> int:
    """Return the rule that the guard finds broken."""
    try:
        check_setpoint(target, last, last_velocity, torque, limits, DT_S)
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
    return pose, pose, STILL, STILL


def high(joint: int, by: float) -> tuple[Any, ...]:
    pose = at(joint, LIMITS.upper_rad[joint] + by, MIDDLE)
    return pose, pose, STILL, STILL


def moving(joint: int, velocity: float, before: float) -> tuple[Any, ...]:
    """Return a period at one joint velocity after a period at another."""
    return at(joint, MIDDLE[joint] + velocity * DT_S, MIDDLE), MIDDLE, at(joint, before, STILL), STILL


def faster(joint: int, by: float) -> tuple[Any, ...]:
    velocity = LIMITS.velocity_rad_s[joint]
    return moving(joint, velocity + by, velocity)


def faster_back(joint: int, by: float) -> tuple[Any, ...]:
    velocity = -LIMITS.velocity_rad_s[joint]
    return moving(joint, velocity - by, velocity)


def more_abrupt(joint: int, by: float) -> tuple[Any, ...]:
    return moving(joint, 1.0 + LIMITS.acceleration_rad_s2[joint] * DT_S + by, 1.0)


def more_abrupt_back(joint: int, by: float) -> tuple[Any, ...]:
    return moving(joint, 1.0 - LIMITS.acceleration_rad_s2[joint] * DT_S - by, 1.0)


def stronger(joint: int, by: float) -> tuple[Any, ...]:
    return MIDDLE, MIDDLE, STILL, at(joint, LIMITS.torque_nm[joint] + by, STILL)


def stronger_back(joint: int, by: float) -> tuple[Any, ...]:
    return MIDDLE, MIDDLE, STILL, at(joint, -LIMITS.torque_nm[joint] - by, STILL)


EDGES = [
    (low, TOO_LOW),
    (high, TOO_HIGH),
    (faster, TOO_FAST),
    (faster_back, TOO_FAST),
    (more_abrupt, TOO_ABRUPT),
    (more_abrupt_back, TOO_ABRUPT),
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
def test_positions_and_torques_have_no_tolerance(joint: int) -> None:
    assert check(*low(joint, 1e-15 + np.spacing(2.0))) == TOO_LOW
    assert check(*high(joint, np.spacing(4.0))) == TOO_HIGH
    assert check(*stronger(joint, np.spacing(32.0))) == TOO_STRONG


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_may_be_off_by_rounding_and_by_no_more(sign: float) -> None:
    origin = np.zeros(6)
    fastest, hardest = LIMITS.velocity_rad_s[3], LIMITS.acceleration_rad_s2[3]
    for share, rule in ((1.0, ALLOWED), (2.0, TOO_FAST)):
        step = at(3, sign * (fastest * DT_S + share * ROUNDING_RAD), origin)
        assert check(step, origin, at(3, sign * fastest, origin), STILL) == rule
    for share, rule in ((1.0, ALLOWED), (2.0, TOO_ABRUPT)):
        step = at(3, sign * (hardest * DT_S * DT_S + share * ROUNDING_RAD), origin)
        assert check(step, origin, origin, STILL) == rule


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(joint: int, value: float) -> None:
    assert check(at(joint, value, MIDDLE), MIDDLE, STILL, STILL) == NOT_FINITE
    assert check(MIDDLE, MIDDLE, STILL, at(joint, value, STILL)) == NOT_FINITE
    assert check(MIDDLE, at(joint, value, MIDDLE), STILL, STILL) == TOO_FAST
    assert check(MIDDLE, MIDDLE, at(joint, value, STILL), STILL) == TOO_ABRUPT


def test_an_allowed_setpoint_is_no_refusal() -> None:
    assert check(MIDDLE, MIDDLE, STILL, STILL) == ALLOWED


@pytest.mark.parametrize("joints", [1, 6, 7])
def test_the_rules_hold_for_any_number_of_joints(joints: int) -> None:
    one = np.ones(joints)
    limits = JointLimits(-one, one, one, one, one)
    check_setpoint(one * 0, one * 0, one * 0, one * 0, limits, DT_S)
    last = joints - 1
    with pytest.raises(SetpointRefused, match=f"joint {joints}: position 1.5000 rad"):
        check_setpoint(at(last, 1.5, one * 0), one * 0, one * 0, one * 0, limits, DT_S)


def raw_refusal(**changed: np.ndarray) -> tuple[int, int, float, float]:
    """Return what the rule itself finds when the arm stands still, past the constructors that check limits."""
    given = {name: getattr(LIMITS, name) for name in FIELDS} | {"target": MIDDLE, "torque": STILL} | changed
    return guard.find_refusal(
        given["target"],
        MIDDLE,
        STILL,
        given["torque"],
        given["lower_rad"],
        given["upper_rad"],
        given["velocity_rad_s"],
        given["acceleration_rad_s2"],
        given["torque_nm"],
        DT_S,
    )


def test_the_rule_itself_answers_with_rule_joint_value_and_limit() -> None:
    assert raw_refusal() == (ALLOWED, -1, 0.0, 0.0)
    assert raw_refusal(target=at(2, -0.5, MIDDLE)) == (TOO_LOW, 2, -0.5, 0.0)
    assert raw_refusal(target=at(2, 3.5, MIDDLE)) == (TOO_HIGH, 2, 3.5, 3.1)
    assert raw_refusal(target=at(2, np.inf, MIDDLE)) == (NOT_FINITE, 2, np.inf, 0.0)
    assert raw_refusal(torque=at(2, -np.inf, STILL)) == (NOT_FINITE, 2, -np.inf, 0.0)
    assert raw_refusal(torque=at(2, -26.0, STILL)) == (TOO_STRONG, 2, -26.0, 25.0)
    assert raw_refusal(target=at(4, 0.1234, MIDDLE)) == (TOO_FAST, 4, pytest.approx(29.616), 6.0)
    assert raw_refusal(target=at(4, 0.01234, MIDDLE)) == (TOO_ABRUPT, 4, pytest.approx(710.784), 120.0)


@pytest.mark.parametrize("field", FIELDS)
def test_a_limit_that_is_nan_refuses_everything(field: str) -> None:
    rule, joint, _, _ = raw_refusal(**{field: at(2, np.nan, getattr(LIMITS, field))})
    assert (rule != ALLOWED, joint) == (True, 2)


@pytest.mark.parametrize(
    ("target", "last", "torque", "text"),
    [
        (at(2, -0.5, MIDDLE), MIDDLE, STILL, "joint 3: position -0.5000 rad is not above its lower limit 0.0000 rad"),
        (at(5, 2.5, MIDDLE), MIDDLE, STILL, "joint 6: position 2.5000 rad is not below its upper limit 2.0000 rad"),
        (at(0, MIDDLE[0] + 0.1, MIDDLE), MIDDLE, STILL, "joint 1: velocity +24.000 rad/s is not within 3.000 rad/s"),
        (
            at(0, MIDDLE[0] + 0.01, MIDDLE),
            MIDDLE,
            STILL,
            "joint 1: acceleration +576.0 rad/s^2 is not within 60.0 rad/s^2",
        ),
        (MIDDLE, MIDDLE, at(3, -8.0, STILL), "joint 4: torque -8.000 N m is not within 7.000 N m"),
        (at(1, np.nan, MIDDLE), MIDDLE, STILL, "joint 2: nan is not a finite number"),
    ],
)
def test_a_refusal_says_joint_value_and_limit(
    target: np.ndarray, last: np.ndarray, torque: np.ndarray, text: str
) -> None:
    with pytest.raises(SetpointRefused) as refusal:
        check_setpoint(target, last, STILL, torque, LIMITS, DT_S)
    assert str(refusal.value) == text


def test_a_refusal_carries_its_numbers() -> None:
    with pytest.raises(SetpointRefused) as refusal:
        check_setpoint(MIDDLE, MIDDLE, STILL, at(3, 8.0, STILL), LIMITS, DT_S)
    told = refusal.value
    assert (told.rule, told.which, told.value, told.limit) == (TOO_STRONG, 4, 8.0, 7.0)
    assert isinstance(told, BridgeError)


def test_the_first_joint_at_fault_is_named() -> None:
    with pytest.raises(SetpointRefused, match="joint 2"):
        check_setpoint(at(1, 9.0, at(4, 9.0, MIDDLE)), MIDDLE, STILL, STILL, LIMITS, DT_S)


def test_the_rules_have_the_numbers_that_recordings_hold() -> None:
    rules = (ALLOWED, NOT_FINITE, TOO_LOW, TOO_HIGH, TOO_FAST, TOO_STRONG, TOO_ABRUPT, OUTSIDE_BOX, COLLIDING)
    assert rules == tuple(range(9))


INSIDE_M = np.full(ROOMS, 0.1)


def rule_of_row(row: int) -> int:
    return OUTSIDE_BOX if row < FACE_ROOMS else COLLIDING


def check_rooms(room: np.ndarray, last: np.ndarray) -> tuple[int, int, float, float]:
    """Return what the guard refuses, from both its forms of answer."""
    found = guard.find_trespass(room, last)
    try:
        check_place(room, last)
    except SetpointRefused as refusal:
        told = (refusal.rule, refusal.which, refusal.value, refusal.limit)
        np.testing.assert_array_equal(told, found)  # equal NaNs too
    else:
        assert found == (ALLOWED, -1, 0.0, 0.0)
    return found


def test_every_wall_is_allowed_up_to_and_on_it_and_refused_beyond() -> None:
    for row in range(ROOMS):
        assert check_rooms(at(row, JUST, INSIDE_M), INSIDE_M)[0] == ALLOWED
        assert check_rooms(at(row, 0.0, INSIDE_M), INSIDE_M)[0] == ALLOWED
        assert check_rooms(at(row, -JUST, INSIDE_M), INSIDE_M) == (rule_of_row(row), row, -JUST, 0.0)
        assert check_rooms(at(row, np.nan, INSIDE_M), INSIDE_M)[:2] == (rule_of_row(row), row)


def test_an_arm_outside_may_stay_and_come_back_but_go_no_further() -> None:
    for row in range(ROOMS):
        outside = at(row, -0.01, INSIDE_M)
        assert check_rooms(at(row, -0.01 + JUST, INSIDE_M), outside)[0] == ALLOWED
        assert check_rooms(outside, outside)[0] == ALLOWED
        assert check_rooms(at(row, -0.01 - JUST, INSIDE_M), outside) == (rule_of_row(row), row, -0.01 - JUST, -0.01)


def test_where_the_last_place_is_unknown_only_the_inside_is_allowed() -> None:
    unknown = np.full(ROOMS, np.nan)
    assert check_rooms(INSIDE_M, unknown)[0] == ALLOWED
    assert check_rooms(at(4, -JUST, INSIDE_M), unknown)[:2] == (OUTSIDE_BOX, 4)


def test_the_first_wall_at_fault_is_named() -> None:
    assert check_rooms(at(5, -0.1, at(20, -0.2, INSIDE_M)), INSIDE_M) == (OUTSIDE_BOX, 5, -0.1, 0.0)


FACES = ("behind", "beyond", "right of", "left of", "below", "above")


@pytest.mark.parametrize("face", range(6))
def test_a_refusal_says_which_point_is_on_which_side_of_its_box(face: int) -> None:
    for point, name in enumerate(("tool", "elbow")):
        text = refusal_text(OUTSIDE_BOX, point * 6 + face, -0.012, 0.0)
        assert text == f"the {name} would be 12.0 mm {FACES[face]} its box; allowed is 0.0 mm"
    text = refusal_text(OUTSIDE_BOX, face, -1.2, -1.1)
    assert text == f"the tool would be 1200.0 mm {FACES[face]} its box; allowed is 1100.0 mm"


def test_parts_that_overlap_are_less_than_nothing_apart() -> None:
    text = refusal_text(COLLIDING, FACE_ROOMS, -0.012, -0.011)
    assert text.endswith("would come within -7.0 mm of the base plate; allowed is -6.0 mm")


@pytest.mark.parametrize("row", range(len(FLOOR_PARTS)))
def test_a_refusal_says_what_is_too_close_to_the_floor(row: int) -> None:
    part = PART_NAMES[FLOOR_PARTS[row]]
    text = refusal_text(OUTSIDE_BOX, BOX_ROOMS + row, 0.002 - CLEARANCE_M, 0.0)
    assert text == f"the {part} would come within 2.0 mm of the floor; allowed is 5.0 mm"


def test_a_refusal_names_the_two_parts_that_come_too_close() -> None:
    for pair in range(len(PAIRS)):
        near, far = PAIRS[pair]
        text = refusal_text(COLLIDING, FACE_ROOMS + pair, 0.002 - CLEARANCE_M, -0.001)
        assert text == f"the {PART_NAMES[far]} would come within 2.0 mm of the {PART_NAMES[near]}; allowed is 4.0 mm"


# What a bug may hand over: numbers of all sizes, among them those at which comparisons go wrong.
SIZES = np.array([0.0, -0.0, 1e-300, 1e-12, 1e-3, 1.0, -1.0, 3.0, -30.0, 1e300, np.inf, -np.inf, np.nan])
ROUNDS = 2000


def test_whatever_comes_only_what_keeps_all_limits_is_let_through() -> None:
    rng = np.random.default_rng(1)
    for _ in range(ROUNDS):
        numbers = np.array([MIDDLE, MIDDLE, STILL, STILL])
        joint, row = rng.integers(6), rng.integers(4)
        numbers[row, joint] = rng.choice(SIZES) + rng.choice([0.0, MIDDLE[joint]])
        target, last, last_velocity, torque = numbers
        with np.errstate(all="ignore"):
            velocity = (target - last) / DT_S
            allowed = (target >= LIMITS.lower_rad) & (target <= LIMITS.upper_rad) & (np.abs(torque) <= LIMITS.torque_nm)
            allowed &= np.abs(velocity) <= LIMITS.velocity_rad_s + JUST
            allowed &= np.abs(velocity - last_velocity) <= LIMITS.acceleration_rad_s2 * DT_S + JUST
            assert (check(target, last, last_velocity, torque) == ALLOWED) == bool(allowed.all())


def test_whatever_room_is_measured_nothing_goes_further_out() -> None:
    rng = np.random.default_rng(2)
    for _ in range(ROUNDS):
        room, last = rng.choice(SIZES, (2, 3))
        allowed = bool(((room >= 0.0) | (room >= last)).all())
        assert (guard.find_trespass(room, last)[0] == ALLOWED) == allowed


def test_narrow_keeps_what_all_allow() -> None:
    site = JointLimits(
        LIMITS.lower_rad + 0.1,
        LIMITS.upper_rad + 1.0,
        LIMITS.velocity_rad_s * 2,
        LIMITS.torque_nm / 2,
        LIMITS.acceleration_rad_s2 / 3,
    )
    for both in (narrow(LIMITS, site), narrow(site, LIMITS)):
        np.testing.assert_array_equal(both.lower_rad, LIMITS.lower_rad + 0.1)
        np.testing.assert_array_equal(both.upper_rad, LIMITS.upper_rad)
        np.testing.assert_array_equal(both.velocity_rad_s, LIMITS.velocity_rad_s)
        np.testing.assert_array_equal(both.torque_nm, LIMITS.torque_nm / 2)
        np.testing.assert_array_equal(both.acceleration_rad_s2, LIMITS.acceleration_rad_s2 / 3)


def with_field(field: str, value: float) -> dict[str, np.ndarray]:
    arrays = {name: getattr(LIMITS, name).copy() for name in FIELDS}
    arrays[field][3] = value
    return arrays


ORDER = "a lower limit that is not below its upper limit"
IMPOSSIBLE = [
    *((field, value, f"{field} that is not finite") for field in FIELDS for value in (np.nan, np.inf, -np.inf)),
    ("lower_rad", 1.5, ORDER),  # equals the upper limit
    ("upper_rad", -1.8, ORDER),
    *(
        (field, value, f"{what} limit that is not above zero")
        for field, what in (
            ("velocity_rad_s", "a velocity"),
            ("torque_nm", "a torque"),
            ("acceleration_rad_s2", "an acceleration"),
        )
        for value in (0.0, -1.0)
    ),
]


@pytest.mark.parametrize(("field", "value", "fault"), IMPOSSIBLE)
def test_limits_that_allow_nothing_or_anything_are_impossible(field: str, value: float, fault: str) -> None:
    with pytest.raises(LimitsImpossible) as impossible:
        JointLimits(**with_field(field, value))
    text = str(impossible.value)
    assert text.startswith(f"joint 4 has {fault} (lower_rad ")
    assert f"{field} {value:g}" in text


@pytest.mark.parametrize("field", ["velocity_rad_s", "torque_nm", "acceleration_rad_s2"])
def test_a_limit_may_be_as_small_as_one_likes(field: str) -> None:
    assert getattr(JointLimits(**with_field(field, JUST)), field)[3] == JUST


@pytest.mark.parametrize("field", FIELDS[1:])
@pytest.mark.parametrize("joints", [5, 7])
def test_limits_of_two_sizes_are_impossible(field: str, joints: int) -> None:
    arrays = with_field(field, 1.0)
    arrays[field] = np.ones(joints)
    with pytest.raises(LimitsImpossible, match=rf"{field} has shape \({joints},\), lower_rad has \(6,\)"):
        JointLimits(**arrays)


def test_disjoint_limits_leave_nothing() -> None:
    elsewhere = JointLimits(
        LIMITS.upper_rad + 1,
        LIMITS.upper_rad + 2,
        LIMITS.velocity_rad_s,
        LIMITS.torque_nm,
        LIMITS.acceleration_rad_s2,
    )
    with pytest.raises(LimitsImpossible, match="joint 1"):
        narrow(LIMITS, elsewhere)


@pytest.mark.parametrize("field", FIELDS)
def test_limits_cannot_be_changed(field: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(LIMITS, field)[0] = 9.0
    with pytest.raises(FrozenInstanceError):
        setattr(LIMITS, field, np.zeros(6))


def test_limits_are_their_own_copy() -> None:
    arrays = with_field("torque_nm", 2.0)
    limits = JointLimits(**arrays)
    arrays["torque_nm"][0] = 99.0
    assert limits.torque_nm[0] == LIMITS.torque_nm[0]
