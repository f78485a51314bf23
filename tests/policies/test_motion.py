"""The mover sends straight lines of the asked speed and smoothness, and learns a constant error away up to a bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.interface import (
    JOINTS,
    POLICY_HZ,
    TOOL_DOWN_WXYZ,
    Array,
    JointTarget,
    Observation,
    OutOfReach,
    Robot,
    Scene,
    ToolTarget,
)
from policies.skills.motion import (
    BRISK_M_S2,
    GENTLE_M_S2,
    LEARN_BELOW_M_S,
    LIFT_PATIENCE,
    LIFT_SLACK_M,
    OFFSET_LIMIT_M,
    Mover,
    lean_wxyz,
)

LAW = settings(deadline=None, max_examples=30)
HOME_M = np.array([0.25, 0.05, 0.10])
GAIN = 0.2
# Half a period late, as the mover takes the arm to be.
HALF_LATE = 0.5


class IdealRobot:
    """Is where it was sent one period later, but for a constant bias, and refuses what lies past its reach.

    With `late` above zero it is that share of a step behind.
    """

    def __init__(
        self, start_m: Array = HOME_M, bias_m: Array | None = None, reach_m: float = math.inf, late: float = 0.0
    ) -> None:
        self.bias_m = np.zeros(3) if bias_m is None else bias_m
        self.reach_m = reach_m
        self.late = late
        self.targets: list[Array] = []  # every one that was carried out
        self.refused: list[Array] = []
        self._sent_m = start_m
        self._seen = self._at(start_m)

    def observe(self) -> Observation:
        return self._seen

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        assert isinstance(target, ToolTarget)
        assert target.quat_wxyz == TOOL_DOWN_WXYZ
        if not math.hypot(*target.position_m[:2]) <= self.reach_m:
            self.refused.append(target.position_m)
            raise OutOfReach(f"{target.position_m} lies past {self.reach_m}")
        self.targets.append(target.position_m)
        self._seen = self._at((1 - self.late) * target.position_m + self.late * self._sent_m)
        self._sent_m = target.position_m
        return self._seen

    def scene(self) -> Scene:
        return Scene(len(self.targets) / POLICY_HZ, ())

    def _at(self, tool_m: Array) -> Observation:
        still = np.zeros(JOINTS)
        time_s = len(self.targets) / POLICY_HZ
        return Observation(time_s, still, still, still, tool_m + self.bias_m, np.array(TOOL_DOWN_WXYZ), 0.0)


def path(robot: IdealRobot, start_m: Array = HOME_M) -> Array:
    """Return where the tool was sent (targets + 1, 3), from its start on."""
    return np.array([start_m, *robot.targets])


def speeds_m_s(places_m: Array) -> Array:
    return np.asarray(np.linalg.norm(np.diff(places_m, axis=0), axis=1) * POLICY_HZ)


PLACES = hnp.arrays(np.float64, 3, elements=st.floats(-0.6, 0.6))
SPEEDS = st.floats(0.03, 0.8)
ACCELERATIONS = st.sampled_from([GENTLE_M_S2, BRISK_M_S2])


def test_the_ideal_robot_is_a_robot() -> None:
    robot: Robot = IdealRobot()
    assert robot.step(ToolTarget(np.zeros(3))).time_s == robot.scene().time_s == 1 / POLICY_HZ


# Lines.


@LAW
@given(start=PLACES, goal=PLACES, speed=SPEEDS, acceleration=ACCELERATIONS, eased=st.booleans())
def test_a_line_goes_straight_and_only_forward_and_ends_at_its_goal(
    start: Array, goal: Array, speed: float, acceleration: float, eased: bool
) -> None:
    robot = IdealRobot(start)
    seen = Mover(robot, eased=eased).line(goal, speed, acceleration)
    np.testing.assert_allclose(seen.tool_position_m, goal, atol=1e-12)
    steps = np.diff(path(robot, start), axis=0)
    whole = goal - start
    np.testing.assert_allclose(np.cross(steps, whole), 0.0, atol=1e-12)
    assert (steps @ whole >= -1e-12).all()


@LAW
@given(goal=PLACES, speed=SPEEDS)
def test_a_plain_line_keeps_its_speed_and_takes_no_period_more_than_that_needs(goal: Array, speed: float) -> None:
    robot = IdealRobot()
    Mover(robot, eased=False).line(goal, speed)
    assert (speeds_m_s(path(robot)) <= speed * (1 + 1e-9)).all()
    needed = float(np.linalg.norm(goal - HOME_M)) / speed * POLICY_HZ
    assert len(robot.targets) - 1 <= needed <= len(robot.targets)


@LAW
@given(goal=PLACES, speed=SPEEDS, acceleration=ACCELERATIONS)
def test_an_eased_line_starts_and_ends_at_rest_within_its_acceleration(
    goal: Array, speed: float, acceleration: float
) -> None:
    robot = IdealRobot()
    Mover(robot).line(goal, speed, acceleration)
    # At rest before and after: the first and the last place once more.
    places = np.pad(path(robot), ((1, 1), (0, 0)), mode="edge")
    accelerations = np.linalg.norm(np.diff(places, 2, axis=0), axis=1) * POLICY_HZ**2
    distance_m = float(np.linalg.norm(goal - HOME_M))
    # A line of one period is a jump, which a line this short may be.
    assert (accelerations <= acceleration * (1 + 2e-3)).all() or distance_m < acceleration / POLICY_HZ**2
    assert distance_m / (len(robot.targets) / POLICY_HZ) <= speed * (1 + 1e-9)


@pytest.mark.parametrize("acceleration", [GENTLE_M_S2, BRISK_M_S2])
def test_an_eased_line_in_a_hurry_uses_the_acceleration_it_may(acceleration: float) -> None:
    robot = IdealRobot()
    Mover(robot).line(HOME_M + np.array([0.0, 0.4, 0.0]), 100.0, acceleration)
    peak = np.linalg.norm(np.diff(path(robot), 2, axis=0), axis=1).max() * POLICY_HZ**2
    assert 0.9 * acceleration <= peak <= acceleration


@LAW
@given(goal=PLACES, speed=SPEEDS, acceleration=ACCELERATIONS)
def test_an_eased_line_is_the_same_there_and_back(goal: Array, speed: float, acceleration: float) -> None:
    there, back = IdealRobot(), IdealRobot(goal)
    Mover(there).line(goal, speed, acceleration)
    Mover(back).line(HOME_M, speed, acceleration)
    np.testing.assert_allclose(path(there), path(back, goal)[::-1], atol=1e-12)


def test_easing_takes_longer_only_where_the_acceleration_asks_for_it() -> None:
    counts = {}
    for eased in (False, True):
        for distance_m in (0.009, 0.299):
            robot = IdealRobot()
            Mover(robot, eased=eased).line(HOME_M + np.array([0.0, 0.0, distance_m]), 0.1)
            counts[eased, distance_m] = len(robot.targets)
    assert counts[True, 0.299] == counts[False, 0.299] == 90
    assert counts[True, 0.009] > counts[False, 0.009] == 3


@pytest.mark.parametrize("eased", [False, True])
def test_a_line_to_where_the_tool_stands_is_one_target(eased: bool) -> None:
    robot = IdealRobot()
    Mover(robot, eased=eased).line(HOME_M, 0.1)
    np.testing.assert_array_equal(robot.targets, [HOME_M])


def test_a_line_starts_where_the_last_one_was_sent_not_where_the_tool_is_seen() -> None:
    robot = IdealRobot(bias_m=np.array([0.0, 0.004, 0.0]))
    mover = Mover(robot, eased=False)
    corner_m = np.array([0.3, 0.0, 0.1])
    mover.line(corner_m, 0.1)
    before = len(robot.targets)
    mover.line(corner_m + np.array([0.0, 0.0, 0.1]), 0.1)
    np.testing.assert_allclose(np.array(robot.targets)[before:, :2], [corner_m[:2]] * (len(robot.targets) - before))


# Lifting.


@LAW
@given(
    angle=st.floats(-math.pi, math.pi), radius=st.floats(0.1, 0.6), height=st.floats(0.12, 0.3), far=st.floats(0.2, 0.5)
)
def test_a_lift_ends_at_its_height_and_inside_its_ring_in_the_same_direction(
    angle: float, radius: float, height: float, far: float
) -> None:
    robot = IdealRobot(np.array([radius * math.cos(angle), radius * math.sin(angle), 0.1]))
    x, y, z = Mover(robot).lift(height, 0.3, far).tool_position_m
    assert z == pytest.approx(height)
    assert math.hypot(x, y) == pytest.approx(min(radius, far))
    assert math.remainder(math.atan2(y, x) - angle, 2 * math.pi) == pytest.approx(0.0, abs=1e-9)


def test_a_lift_on_the_base_axis_goes_straight_up() -> None:
    robot = IdealRobot(np.array([0.0, 0.0, 0.1]))
    np.testing.assert_allclose(Mover(robot).lift(0.2, 0.3).tool_position_m, [0.0, 0.0, 0.2])


@pytest.mark.parametrize(
    ("below_m", "extra"),
    [(0.0, 0), (LIFT_SLACK_M - 1e-9, 0), (LIFT_SLACK_M + 1e-9, LIFT_PATIENCE), (0.02, LIFT_PATIENCE), (-0.02, 0)],
)
def test_a_lift_waits_for_a_tool_that_hangs_too_low_but_not_for_ever(below_m: float, extra: int) -> None:
    prompt, low = IdealRobot(), IdealRobot(bias_m=np.array([0.0, 0.0, -below_m]))
    # Both are sent the same way, from the same place, however they see themselves.
    for robot in (prompt, low):
        mover = Mover(robot)
        mover.sent_m = HOME_M
        mover.lift(0.2, 0.3)
    assert len(low.targets) - len(prompt.targets) == extra


# Settling and learning.

BIASES = [[0.004, 0.0, 0.0], [-0.004, 0.003, 0.0], [0.0, 0.0, -0.005], [0.009, -0.009, 0.005], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bias", BIASES)
def test_without_a_gain_the_error_stays_and_the_targets_are_untouched(bias: list[float]) -> None:
    robot = IdealRobot(bias_m=np.array(bias))
    mover = Mover(robot)
    goal = np.array([0.3, 0.0, 0.05])
    mover.line(goal, 0.1)
    before = len(robot.targets)
    assert mover.settle(1e-6, 1.0) == pytest.approx(float(np.linalg.norm(bias)))
    assert len(robot.targets) - before == (POLICY_HZ if any(bias) else 1)
    np.testing.assert_allclose(robot.targets[before:], [goal] * (len(robot.targets) - before))
    np.testing.assert_array_equal(mover.offset_m, 0.0)


@pytest.mark.parametrize("late", [0.0, HALF_LATE])
@pytest.mark.parametrize("bias", BIASES)
def test_with_a_gain_a_constant_error_goes_away(bias: list[float], late: float) -> None:
    robot = IdealRobot(bias_m=np.array(bias), late=late)
    mover = Mover(robot, GAIN)
    mover.line(np.array([0.3, 0.0, 0.05]), 0.1)
    assert mover.settle(1e-5, 3.0) <= 1e-5
    assert len(robot.targets) < 3.0 * POLICY_HZ
    np.testing.assert_allclose(mover.offset_m, -np.array(bias), atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(bias=hnp.arrays(np.float64, 3, elements=st.floats(-0.05, 0.05)), gain=st.floats(0.1, 1.0))
def test_no_error_is_corrected_by_more_than_the_limit(bias: Array, gain: float) -> None:
    robot = IdealRobot(bias_m=bias)
    mover = Mover(robot, gain)
    mover.sent_m = HOME_M
    for _ in range(200):
        mover.settle(0.0, 1 / POLICY_HZ)
        assert (np.abs(mover.offset_m) <= OFFSET_LIMIT_M).all()
        assert (np.abs(robot.targets[-1] - HOME_M) <= OFFSET_LIMIT_M + 1e-12).all()
    left = bias - np.clip(bias, -OFFSET_LIMIT_M, OFFSET_LIMIT_M)
    np.testing.assert_allclose(mover.seen.tool_position_m - HOME_M, left, atol=1e-6)


@pytest.mark.parametrize("eased", [False, True])
def test_a_tool_half_a_period_late_teaches_nothing(eased: bool) -> None:
    robot = IdealRobot(late=HALF_LATE)
    mover = Mover(robot, GAIN, eased)
    mover.line(np.array([0.3, -0.1, 0.05]), 0.1)
    np.testing.assert_allclose(mover.offset_m, 0.0, atol=1e-12)


@pytest.mark.parametrize(("share", "learns"), [(0.99, True), (1.01, False), (3.0, False)])
def test_a_fast_tool_teaches_nothing(share: float, learns: bool) -> None:
    robot = IdealRobot(bias_m=np.array([0.0, 0.004, 0.0]), late=HALF_LATE)
    mover = Mover(robot, GAIN, eased=False)
    # Whole periods, so that the speed is the one that was asked for.
    speed = share * LEARN_BELOW_M_S
    mover.line(mover.sent_m + np.array([6.0 * speed / POLICY_HZ, 0.0, 0.0]), speed * (1 + 1e-9))
    assert len(robot.targets) == 6
    assert bool(np.any(mover.offset_m)) == learns


@pytest.mark.parametrize(("tolerance_m", "periods"), [(0.0041, 1), (0.0039, 15)])
def test_settling_ends_at_once_within_tolerance_and_at_its_timeout_outside(tolerance_m: float, periods: int) -> None:
    robot = IdealRobot(bias_m=np.array([0.004, 0.0, 0.0]))
    mover = Mover(robot)
    mover.line(np.array([0.3, 0.0, 0.1]), 0.1)
    before = len(robot.targets)
    assert mover.settle(tolerance_m, 0.5) == pytest.approx(0.004)
    assert len(robot.targets) - before == periods


def test_settling_waits_until_the_tool_is_slow() -> None:
    robot = IdealRobot(late=HALF_LATE)
    mover = Mover(robot, eased=False)
    mover.line(np.array([0.3, 0.0, 0.1]), 0.3)
    before = len(robot.targets)
    assert mover.settle(1.0, 1.0) == pytest.approx(0.0)
    assert len(robot.targets) - before == 2  # in the first of them it still moves, half a step


def test_even_no_patience_is_one_look() -> None:
    robot = IdealRobot(bias_m=np.array([0.004, 0.0, 0.0]))
    mover = Mover(robot)
    mover.sent_m = HOME_M
    assert mover.settle(0.0, 0.0) == pytest.approx(0.004)
    assert len(robot.targets) == 1


# Out of reach.


def test_where_a_correction_leads_out_of_reach_it_is_dropped_and_the_plain_target_is_sent() -> None:
    edge_m = np.array([0.3, 0.0, 0.1])
    robot = IdealRobot(edge_m - np.array([0.1, 0.0, 0.0]), bias_m=np.array([-0.008, 0.0, 0.0]), reach_m=0.3)
    mover = Mover(robot, GAIN)
    mover.settle(1e-6, 3.0)
    assert mover.offset_m[0] > 0.0
    mover.line(edge_m, 0.1)
    np.testing.assert_allclose(robot.targets[-1], edge_m)
    assert robot.refused
    # One period of learning at most is what it holds again.
    assert mover.offset_m[0] <= GAIN * 0.008 + 0.1 / POLICY_HZ
    mover.settle(0.0, 1.0)
    np.testing.assert_allclose(robot.targets[-1], edge_m)


@pytest.mark.parametrize("gain", [0.0, GAIN])
def test_a_goal_out_of_reach_is_the_policys_to_handle(gain: float) -> None:
    robot = IdealRobot(reach_m=0.3)
    with pytest.raises(OutOfReach):
        Mover(robot, gain).line(np.array([0.4, 0.0, 0.1]), 0.1)
    assert max(math.hypot(*target[:2]) for target in robot.targets) <= 0.3


@given(st.floats(0.0, 0.7), st.floats(-np.pi, np.pi), st.floats(0.0, 0.3))
def test_a_leaning_tool_stands_upright_near_the_base_and_goes_tip_first_further_out(
    out_m: float, way_rad: float, height_m: float
) -> None:
    way = np.array([np.cos(way_rad), np.sin(way_rad), 0.0])
    w, x, y, z = lean_wxyz(out_m * way + np.array([0.0, 0.0, height_m]))
    assert w * w + x * x + y * y + z * z == pytest.approx(1.0)
    points = np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])  # the tool's z axis
    ahead = float(points @ way)
    assert np.linalg.norm(points - ahead * way - points[2] * np.array([0.0, 0.0, 1.0])) < 1e-6
    assert ahead == pytest.approx(np.sin(np.clip(4.0 * (out_m - 0.46), 0.0, 0.6)), abs=1e-6)
