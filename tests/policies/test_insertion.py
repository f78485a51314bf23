"""Skills of touch, on a springy arm over a plate with one hole: what they feel, where they end, what they never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.interface import TOOL_DOWN_WXYZ, Array, JointTarget, Observation, OutOfReach, Robot, Scene, ToolTarget
from policies.skills.insertion import DEEPEST_M, OFFSET_LIMIT_M, Hand, Search, descend, press, search
from policies.skills.wrench import force_n, jacobian

LAW = settings(deadline=None, max_examples=25)
JOINTS_RAD = np.array([0.0, 1.6, 1.2, -1.1, 0.0, 0.0])
FACE_M, FLOOR_M = 0.030, 0.010
HOLE_M = 0.0008
STIFFNESS_N_M = 800.0
GRAVITY_NM = np.array([0.1, -6.0, 5.0, 0.4, 0.0, 0.0])
HOME_M = np.array([0.32, 0.0, 0.040])


class SpringArm:
    """Is where it was sent, but for a bias, and where the plate holds it: then its springs press."""

    def __init__(self, hole_m: Array, bias_m: Array | None = None, lean_rad: float = 0.0) -> None:
        self._hole_m = hole_m
        self._bias_m = np.zeros(3) if bias_m is None else bias_m
        self._lean = np.array([np.cos(lean_rad / 2), np.sin(lean_rad / 2), 0.0, 0.0])
        self.targets: list[Array] = []
        self.lowest_m = HOME_M[2]
        self._seen = self._at(HOME_M, HOME_M)

    def observe(self) -> Observation:
        return self._seen

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        assert isinstance(target, ToolTarget)
        if target.position_m[2] < -0.02:
            raise OutOfReach("the tool leaves the workspace")
        self.targets.append(np.asarray(target.position_m))
        wanted_m = self.targets[-1] + self._bias_m
        self._seen = self._at(wanted_m, self._held(wanted_m), target.quat_wxyz)
        self.lowest_m = min(self.lowest_m, self._seen.tool_position_m[2])
        return self._seen

    def scene(self) -> Scene:
        return Scene(0.0, ())

    @property
    def push_n(self) -> float:
        return STIFFNESS_N_M * float(self._seen.tool_position_m[2] - self.targets[-1][2] - self._bias_m[2])

    def _held(self, wanted_m: Array) -> Array:
        here_m = self._seen.tool_position_m
        over = np.hypot(*(wanted_m[:2] - self._hole_m)) <= HOLE_M
        if here_m[2] < FACE_M:  # in the hole its walls hold
            return np.array([*here_m[:2], max(wanted_m[2], FLOOR_M)])
        return np.array([*wanted_m[:2], max(wanted_m[2], FLOOR_M if over else FACE_M)])

    def _at(self, wanted_m: Array, here_m: Array, quat_wxyz: tuple[float, ...] = TOOL_DOWN_WXYZ) -> Observation:
        force = STIFFNESS_N_M * (wanted_m - here_m)
        torque = GRAVITY_NM + jacobian(JOINTS_RAD, here_m).T @ force
        return Observation(0.0, JOINTS_RAD, np.zeros(6), torque, here_m.copy(), _times(self._lean, quat_wxyz), 0.0)


def _times(one: Array, other: tuple[float, ...]) -> Array:
    w, v, u = one[0], one[1:], np.asarray(other[1:])
    return np.array([w * other[0] - v @ u, *(w * u + other[0] * v + np.cross(v, u))])


AWAY_M = np.array([0.40, 0.1])
forces = st.tuples(*[st.floats(-20.0, 20.0)] * 3)


def test_the_spring_arm_is_a_robot() -> None:
    robot: Robot = SpringArm(AWAY_M)
    assert robot.observe().tool_position_m.shape == (3,)


@LAW
@given(forces)
def test_a_force_on_the_tip_is_read_back_from_the_torques_it_costs(force: tuple[float, float, float]) -> None:
    torque = GRAVITY_NM + jacobian(JOINTS_RAD, HOME_M).T @ np.array(force)
    seen = Observation(0.0, JOINTS_RAD, np.zeros(6), torque, HOME_M, np.array(TOOL_DOWN_WXYZ), 0.0)
    np.testing.assert_allclose(force_n(seen, GRAVITY_NM), force, atol=1e-9)


@LAW
@given(st.floats(2.0, 30.0), st.floats(0.003, 0.1))
def test_the_way_down_ends_at_the_force_that_was_asked_for(until_n: float, speed_m_s: float) -> None:
    arm = SpringArm(AWAY_M)
    hand = Hand(arm)
    deepest_n = STIFFNESS_N_M * (FACE_M - DEEPEST_M)
    felt = descend(hand, 0.026, speed_m_s, until_n)
    assert felt == (until_n <= deepest_n)
    assert arm.push_n <= until_n + STIFFNESS_N_M * speed_m_s / 30.0 + 1e-6  # at most a step further


def test_the_way_down_over_the_hole_feels_nothing_and_ends_at_its_bound() -> None:
    arm = SpringArm(HOME_M[:2])
    assert not descend(Hand(arm), 0.026, 0.03, 5.0)
    assert 0.024 < arm.lowest_m <= 0.026


@LAW
@given(st.floats(0.0, 0.0028), st.floats(-np.pi, np.pi))
def test_a_spiral_finds_each_hole_within_its_radius(away_m: float, side: float) -> None:
    arm = SpringArm(HOME_M[:2] + away_m * np.array([np.cos(side), np.sin(side)]))
    hand = Hand(arm)
    if descend(hand, 0.026, 0.03, 3.0):
        assert search(hand, Search(radius_m=0.003, pitch_m=0.0008, speed_m_s=0.01, press_n=4.0))
    assert arm.lowest_m < FACE_M - 0.0015


@pytest.mark.parametrize("dip_m", [None, 0.0002])
def test_a_spiral_without_a_hole_ends_within_its_radius_and_its_force(dip_m: float | None) -> None:
    arm = SpringArm(AWAY_M)
    hand = Hand(arm)
    assert descend(hand, 0.026, 0.03, 3.0)
    begun = len(arm.targets)
    assert not search(hand, Search(0.002, 0.0008, 0.01, press_n=4.0, dip_m=dip_m))
    assert all(np.hypot(*(target[:2] - HOME_M[:2])) <= 0.0025 for target in arm.targets[begun:])
    assert arm.push_n == pytest.approx(4.0, abs=1.0)


def test_a_pin_in_the_hole_is_pressed_to_where_it_sits_and_a_pin_that_cannot_go_is_given_up() -> None:
    arm = SpringArm(HOME_M[:2])
    hand = Hand(arm)
    descend(hand, 0.026, 0.03, 5.0)
    assert press(hand, 0.012, 8.0, 6.0)
    assert arm.lowest_m <= 0.012
    arm = SpringArm(AWAY_M)
    hand = Hand(arm)
    descend(hand, 0.026, 0.03, 5.0)
    assert not press(hand, 0.012, 8.0, 6.0)
    assert arm.push_n == pytest.approx(8.0, abs=1.0)


@LAW
@given(st.floats(1.0, 40.0))
def test_no_press_sends_the_tip_below_the_deepest_target(press_n: float) -> None:
    arm = SpringArm(AWAY_M)
    hand = Hand(arm)
    press(hand, 0.012, press_n, 4.0)
    assert min(target[2] for target in arm.targets) >= DEEPEST_M - 1e-9


def test_a_hand_that_lets_go_presses_no_more() -> None:
    arm = SpringArm(AWAY_M)
    hand = Hand(arm, encoder_gain=0.2)
    descend(hand, 0.026, 0.03, 10.0)
    hand.let_go()
    assert arm.push_n == pytest.approx(0.0, abs=1e-6)


@LAW
@given(st.tuples(st.floats(-0.008, 0.008), st.floats(-0.008, 0.008), st.floats(-0.005, 0.005)))
def test_a_closed_loop_takes_out_what_the_arm_misses_by_and_an_open_one_does_not(bias: tuple[float, ...]) -> None:
    for gain, left_m in ((0.2, 0.0), (0.0, float(np.linalg.norm(bias)))):
        arm = SpringArm(AWAY_M, bias_m=np.array(bias))
        hand = Hand(arm, gain)
        hand.line(HOME_M + np.array([0.01, 0.01, 0.02]), 0.1)
        assert hand.settle(1e-5, 3.0) == pytest.approx(left_m, abs=2e-4)
        assert (np.abs(hand.offset_m) <= OFFSET_LIMIT_M).all()


@pytest.mark.parametrize("lean_rad", [-0.05, 0.0, 0.05])
def test_an_upright_hand_takes_out_the_lean(lean_rad: float) -> None:
    arm = SpringArm(AWAY_M, lean_rad=lean_rad)
    hand = Hand(arm, upright_gain=0.1)
    for _ in range(90):
        seen = hand.send(HOME_M)
    down = abs(float(np.asarray(TOOL_DOWN_WXYZ) @ seen.tool_quat_wxyz))
    assert down == pytest.approx(1.0, abs=1e-6)


def test_corrections_give_way_at_the_workspace_s_edge() -> None:
    arm = SpringArm(AWAY_M)
    hand = Hand(arm)
    hand.offset_m = np.array([0.0, 0.0, -0.006])
    hand.send(np.array([0.32, 0.0, -0.018]))
    assert arm.targets[-1][2] == -0.018
    assert not hand.offset_m.any()
