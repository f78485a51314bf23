"""The control loop holds, follows, clips, expires and stops, over real bytes to emulated motors on ideal shafts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.arm import body_of, load_arm
from edge.control.loop import LET_DOWN_S, ControlError, ControlLoop
from edge.messages import LONGEST_LIFE_NS, Setpoint
from edge.planning.kinematics import chain_of, tool_pose
from firmware_bridge.body import FACE_ROOMS
from firmware_bridge.damiao import Special, Status, special_frames
from firmware_bridge.frames import Frames, can_id, frame, no_frames
from firmware_bridge.guard import JointLimits, narrow
from firmware_bridge.motors import MotorBank

TICK_NS = 4_166_667
HOME = np.array([0.0, 1.75, 1.1, -0.93, 0.1, 0.2])
ARM = load_arm()
ONE_STEP = 25.0 / 65535  # of the motors' position field
FAR_NS = 10**15
RAMP_TICKS = 120
HOLD_TICKS = 24  # 0.1 s


class Bench:
    """Motors whose joints stand wherever they are told to and whose jaw has inertia, and the loop that drives them."""

    def __init__(self, loop: ControlLoop, joints_rad: np.ndarray = HOME, opening_m: float = 0.02) -> None:
        self.loop, self.now_ns = loop, 0
        self.bank = MotorBank(ARM.motor_types, ARM.esc_ids, ARM.mst_ids)
        self.shafts = np.array([*joints_rad, ARM.gripper.motor_rad(opening_m)])
        self.velocity = np.zeros(7)
        self.feedback: Frames = no_frames()
        self.sent: Frames = no_frames()

    def send(self, frames: Frames) -> None:
        self.sent = frames
        self.feedback = self.bank.exchange(frames, self.now_ns, self.shafts, self.velocity, np.zeros(7))

    def start(self) -> Bench:
        self.send(self.loop.probe())
        self.send(self.loop.start(self.feedback, self.now_ns))
        return self.run(RAMP_TICKS + 2)

    def run(self, ticks: int, follow: bool = True) -> Bench:
        for _ in range(ticks):
            self.now_ns += TICK_NS
            self.send(self.loop.step(self.feedback, self.now_ns))
            if follow and self.bank.kp.all():
                self.shafts[:6] = self.bank.p_des[:6]
                self.swing_jaw()
        return self

    def swing_jaw(self) -> None:
        """Let the gripper motor's law act for one period on the inertia of rotor and fingers."""
        bank, parts, inertia_kgm2 = self.bank, 40, 0.003
        for _ in range(parts):
            push = bank.kp[6] * (bank.p_des[6] - self.shafts[6]) + bank.kd[6] * (bank.v_des[6] - self.velocity[6])
            self.velocity[6] += push / inertia_kgm2 * TICK_NS * 1e-9 / parts
            self.shafts[6] += self.velocity[6] * TICK_NS * 1e-9 / parts

    def follow(self, joints_rad: np.ndarray, ticks: int, opening_m: float = 0.02) -> Bench:
        """Ask for the same pose at 30 Hz, as a policy does."""
        for _ in range(ticks // 8):
            self.ask(joints_rad, opening_m)
            self.run(8)
        return self

    def ask(self, joints_rad: np.ndarray, opening_m: float = 0.02, for_ns: int = FAR_NS) -> None:
        self.loop.set(Setpoint(joints_rad, opening_m, self.now_ns + for_ns), self.now_ns)


def started(limits: JointLimits = ARM.limits, **options: object) -> Bench:
    return Bench(ControlLoop(ARM, limits, **options)).start()  # type: ignore[arg-type]


def near(joint: int, by: float) -> np.ndarray:
    target = HOME.copy()
    target[joint] += by
    return target


def test_start_holds_the_measured_pose_with_gravity_and_the_arms_gains() -> None:
    bench = started().run(3)
    np.testing.assert_allclose(bench.bank.p_des[:6], HOME, atol=3 * ONE_STEP)
    np.testing.assert_allclose(bench.bank.kp, ARM.kp, atol=500 / 4095)
    np.testing.assert_allclose(bench.bank.kd, ARM.kd, atol=5 / 4095)
    assert bench.loop.fault == ""
    assert bench.bank.tau_ff[1] < -3.0  # the arm leans forward: the shoulder pushes back


def test_stiffness_rises_from_zero_at_the_measured_pose() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits))
    bench.send(bench.loop.probe())
    bench.send(bench.loop.start(bench.feedback, 0))
    stiffness = []
    for _ in range(RAMP_TICKS + 2):
        bench.run(1)
        stiffness.append(bench.bank.kp[0])
        np.testing.assert_allclose(bench.bank.kd, ARM.kd, atol=5 / 4095)
    assert stiffness[0] < 1.5
    assert (np.diff(stiffness) >= 0).all()
    assert stiffness[-1] == pytest.approx(80.0, abs=500 / 4095)
    np.testing.assert_allclose(bench.bank.p_des[:6], HOME, atol=3 * ONE_STEP)


def test_no_setpoint_is_followed_before_the_arm_is_stiff() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits))
    bench.send(bench.loop.probe())
    bench.send(bench.loop.start(bench.feedback, 0))
    bench.follow(near(0, 0.08), RAMP_TICKS - 8)
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME, atol=ONE_STEP)


def test_a_gentle_setpoint_is_reached_on_a_straight_line_in_eight_ticks() -> None:
    bench, poses = started(), []
    bench.ask(near(0, 0.008))
    for _ in range(9):
        bench.run(1)
        poses.append(bench.loop.admitted_rad[0] - HOME[0])
    np.testing.assert_allclose(poses, [*np.arange(1, 9) * 0.001, 0.008], atol=2 * ONE_STEP)


def test_a_stream_of_setpoints_is_followed_without_stops_between_them() -> None:
    bench, speeds = started(), []
    for number in range(1, 13):
        bench.ask(near(0, 0.03 * number))
        for _ in range(8):
            bench.run(1)
            speeds.append(bench.bank.v_des[0])
    assert min(speeds[8:]) > 0.85
    assert max(speeds) < 1.6


def test_the_velocity_of_the_line_is_fed_forward_and_ends_with_it() -> None:
    bench = started()
    bench.ask(near(0, 0.008))
    assert bench.run(4).bank.v_des[0] == pytest.approx(0.001 * 240, abs=0.02)
    assert bench.run(6).bank.v_des[0] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_far_setpoint_is_not_run_over(side: float) -> None:
    bench, furthest = started(), 0.0
    for tick in range(400):
        if tick % 8 == 0:
            bench.ask(near(0, side * 0.9))
        furthest = max(furthest, side * bench.run(1).loop.admitted_rad[0])
    assert furthest <= 0.9 + 2 * ONE_STEP


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_far_setpoint_is_reached_and_stays_reached(side: float) -> None:
    bench = started().follow(near(0, side * 0.9), 400)
    assert bench.loop.admitted_rad[0] == pytest.approx(side * 0.9, abs=2 * ONE_STEP)
    places = [bench.follow(near(0, side * 0.9), 8).loop.admitted_rad[0] for _ in range(10)]
    assert np.ptp(places) < ONE_STEP


def test_an_expired_setpoint_means_hold() -> None:
    bench = started()
    bench.ask(near(0, 0.008), for_ns=4 * TICK_NS)
    bench.run(20)
    assert bench.loop.admitted_rad[0] == pytest.approx(0.004, abs=2 * ONE_STEP)
    assert bench.loop.fault == ""


def test_a_setpoint_that_comes_expired_changes_nothing() -> None:
    bench = started()
    bench.ask(near(0, 0.08), for_ns=-1)
    assert bench.run(10).loop.admitted_rad[0] == pytest.approx(0.0, abs=2 * ONE_STEP)


def test_from_full_speed_the_arm_stands_a_tenth_of_a_second_after_its_last_setpoint() -> None:
    bench = started().follow(HOME + 1.0, 96)
    bench.ask(HOME + 2.0)
    bench.run(HOLD_TICKS)
    stands = bench.loop.admitted_rad
    np.testing.assert_array_equal(bench.run(50).loop.admitted_rad, stands)
    assert LONGEST_LIFE_NS < HOLD_TICKS * TICK_NS


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_range_velocity_and_acceleration_are_clipped_for_every_joint(joint: int, side: float) -> None:
    bench, poses = started(), []
    for tick in range(600):
        if tick % 8 == 0:
            bench.ask(near(joint, side * 100.0))
        bench.run(1)
        poses.append(bench.loop.admitted_rad[joint])
    limits, velocity = ARM.limits, np.diff(poses) * 240
    assert bench.loop.fault == ""
    folds_onto_itself = joint == 2 and side < 0  # the gripper would meet the upper arm before the elbow's own stop
    assert (bench.loop.records[2]["blocked"][0] >= FACE_ROOMS) == folds_onto_itself
    if not folds_onto_itself:
        assert poses[-1] == pytest.approx((limits.upper_rad if side > 0 else limits.lower_rad)[joint], abs=1e-9)
    assert np.abs(velocity).max() == pytest.approx(limits.velocity_rad_s[joint], rel=1e-6)
    assert np.abs(np.diff(velocity) * 240).max() <= limits.acceleration_rad_s2[joint] * (1 + 1e-6)


def test_narrower_limits_hold() -> None:
    site = JointLimits(HOME - 0.05, HOME + 0.05, np.full(6, 0.5), np.full(6, 25.0), np.full(6, 60.0))
    bench = started(narrow(ARM.limits, site))
    assert bench.follow(HOME + 1.0, 104).loop.fault == ""
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME + 0.05, atol=1e-9)


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_what_is_a_number_moves_the_arm(joint: int, value: float) -> None:
    bench, target = started(), np.array([*HOME, 0.02])
    target[joint] = value
    bench.ask(target[:6], target[6])
    bench.run(3)
    if np.isnan(value):
        assert f"joint {joint + 1}: nan is not a finite number" in bench.loop.fault
        stands = bench.loop.admitted_rad
        np.testing.assert_array_equal(bench.follow(HOME + 0.1, 48).loop.admitted_rad, stands)
        assert bench.bank.kp.all()
    else:  # clipped like any other far target
        assert bench.loop.fault == ""


def test_a_refused_setpoint_holds_until_cleared() -> None:
    bench = started()
    bench.ask(near(2, np.nan))
    bench.run(2)
    bench.follow(near(0, 0.08), 16)
    assert "the guard refused" in bench.loop.state(bench.now_ns).fault
    assert bench.loop.admitted_rad[0] == pytest.approx(0.0, abs=ONE_STEP)
    bench.loop.clear()
    assert bench.run(RAMP_TICKS + 2).follow(near(0, 0.02), 24).loop.fault == ""
    assert bench.loop.admitted_rad[0] == pytest.approx(0.02, abs=2 * ONE_STEP)


def test_a_motor_fault_damps_under_gravity_and_after_it_stiffness_rises_where_the_arm_is() -> None:
    bench = started()
    bench.bank.inject(0, Status.OVERLOAD)
    bench.run(2)
    bench.follow(near(0, 0.08), 16)
    assert not bench.bank.kp.any()
    np.testing.assert_allclose(bench.bank.kd[1:], ARM.kd[1:], atol=5 / 4095)
    assert bench.bank.tau_ff[1] < -3.0
    bench.shafts[0] += 0.3  # someone pushes the damped arm
    bench.send(bench.loop.probe())
    bench.send(bench.loop.start(bench.feedback, bench.now_ns))
    bench.run(2)
    assert bench.loop.fault == ""
    assert bench.bank.kp[0] < 2.0
    assert bench.loop.admitted_rad[0] == pytest.approx(0.3, abs=2 * ONE_STEP)


def test_too_little_torque_for_gravity_is_refused_not_clipped() -> None:
    weak = JointLimits(
        ARM.limits.lower_rad,
        ARM.limits.upper_rad,
        ARM.limits.velocity_rad_s,
        np.full(6, 1.0),
        ARM.limits.acceleration_rad_s2,
    )
    bench = started(weak)
    assert "joint 2: torque" in bench.loop.fault
    assert abs(bench.bank.tau_ff[1]) <= 1.0 + 56 / 4095


@pytest.mark.parametrize("motor", range(7))
def test_a_motor_that_faults_stops_the_arm_and_is_named(motor: int) -> None:
    bench = started().run(30)
    bench.bank.inject(motor, Status.COIL_TOO_HOT)
    bench.run(2)
    name = "the gripper's motor" if motor == 6 else f"motor {motor + 1}"
    assert bench.loop.fault == f"{name} reports coil too hot"
    assert not bench.bank.kp.any()


def test_a_cleared_fault_that_still_stands_comes_back() -> None:
    bench = started().run(30)
    bench.bank.inject(3, Status.OVERLOAD)
    bench.run(2)
    bench.loop.clear()
    assert "motor 4 reports overload" in bench.run(1).loop.fault
    assert bench.start().loop.fault == ""
    assert bench.bank.enabled.all()


def test_a_motor_that_is_disabled_behind_our_back_is_a_fault() -> None:
    bench = started().run(30)
    bench.bank.exchange(special_frames([3], Special.DISABLE), bench.now_ns, bench.shafts, np.zeros(7), np.zeros(7))
    assert bench.run(2).loop.fault == "motor 3 reports disabled"


def without(feedback: Frames, motor: int) -> Frames:
    return np.stack([row for row in feedback if can_id(row) != 0x11 + motor])


@pytest.mark.parametrize(("periods", "faulted"), [(23, False), (24, True)])
def test_a_motor_may_be_silent_for_23_periods_and_no_longer(periods: int, faulted: bool) -> None:
    bench = started().run(30)
    for _ in range(periods):
        bench.feedback = without(bench.feedback, 4)
        bench.run(1)
    assert (bench.loop.fault == "motor 5 has not answered for 24 control periods") == faulted


def test_frames_of_others_do_not_count_as_an_answer() -> None:
    bench = started().run(30)
    for _ in range(25):
        wrong = frame(0x15, b"\x16" + bytes(7))  # right identifier, another motor's nibble
        bench.feedback = np.vstack([without(bench.feedback, 4), wrong[None]])
        bench.run(1)
    assert "motor 5 has not answered" in bench.loop.fault


def test_the_arm_does_not_move_before_every_motor_is_enabled() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits))
    bench.send(bench.loop.probe())
    late = bench.loop.start(bench.feedback, 0)
    bench.ask(near(0, 0.08))
    bench.run(5)
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME, atol=ONE_STEP)
    bench.send(late)
    bench.run(RAMP_TICKS + 2)
    bench.ask(near(0, 0.008))
    assert bench.run(8).loop.admitted_rad[0] == pytest.approx(0.008, abs=2 * ONE_STEP)


def test_zero_offsets_shift_measurements_and_commands_alike() -> None:
    offsets = np.array([0.01, -0.02, 0.03, -0.01, 0.02, 0.0])
    bench = Bench(ControlLoop(ARM, ARM.limits, zero_offsets_rad=offsets), HOME + offsets).start().run(2)
    np.testing.assert_allclose(bench.loop.state(bench.now_ns).position_rad, HOME, atol=2 * ONE_STEP)
    np.testing.assert_allclose(bench.bank.p_des[:6], HOME + offsets, atol=3 * ONE_STEP)


@pytest.mark.parametrize("turn", [-2 * np.pi, 2 * np.pi])
def test_an_encoder_that_woke_up_a_turn_off_is_put_right(turn: float) -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits), HOME + np.array([0, 0, 0, turn, 0, 0])).start()
    assert bench.loop.state(bench.now_ns).position_rad[3] == pytest.approx(HOME[3], abs=ONE_STEP)
    assert bench.bank.p_des[3] == pytest.approx(HOME[3] + turn, abs=2 * ONE_STEP)


def test_start_refuses_an_arm_outside_its_limits() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits), HOME - np.array([0, 2.0, 0, 0, 0, 0]))
    with pytest.raises(ControlError, match=r"joint 2 stands at -0\.250 rad"):
        bench.start()


def test_start_refuses_a_silent_motor() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits))
    bench.send(bench.loop.probe())
    with pytest.raises(ControlError, match="motor 5 did not answer"):
        bench.loop.start(without(bench.feedback, 4))


def test_step_refuses_before_start() -> None:
    with pytest.raises(ControlError, match="not started"):
        ControlLoop(ARM, ARM.limits).step(no_frames(), 0)


def test_a_setpoint_of_another_size_is_refused() -> None:
    with pytest.raises(ControlError, match="6 joints"):
        started().ask(np.zeros(7))


def test_the_jaw_goes_where_it_is_told_and_no_faster_than_its_speed() -> None:
    bench = started()
    bench.follow(HOME, 48, 0.08)
    assert 0.04 <= bench.loop.state(bench.now_ns).gripper_m <= 0.02 + 0.15 * 0.2
    bench.follow(HOME, 104, 0.08)
    assert bench.loop.state(bench.now_ns).gripper_m == pytest.approx(0.08, abs=1e-4)


@pytest.mark.parametrize("opening_m", [0.0, 0.09])
def test_a_blocked_jaw_gets_bounded_torque(opening_m: float) -> None:
    bench = started()
    for tick in range(200):
        if tick % 8 == 0:
            bench.ask(HOME, opening_m)
        bench.run(1, follow=False)
        law = bench.bank.kp[6] * (bench.bank.p_des[6] - bench.shafts[6]) + bench.bank.kd[6] * bench.bank.v_des[6]
        assert abs(law) <= ARM.gripper.torque_nm + 0.06  # steps of the command's fields


@pytest.mark.parametrize("motor_rad", [3.0, -9.5])
def test_a_jaw_whose_motor_woke_up_in_another_turn_is_not_driven(motor_rad: float) -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits))
    bench.shafts[6] = motor_rad
    with pytest.raises(ControlError, match="close it by hand and switch the arm off and on"):
        bench.start()


@pytest.mark.parametrize("motor_rad", [0.14, 3.0, -9.5])
def test_a_jaw_outside_its_range_is_brought_back_with_bounded_torque(motor_rad: float) -> None:
    bench = started()
    bench.shafts[6] = motor_rad
    bench.run(2, follow=False)  # until it is measured
    for _ in range(60):
        bench.ask(HOME, 0.05)
        bench.run(1, follow=False)
        law = bench.bank.kp[6] * (bench.bank.p_des[6] - bench.shafts[6]) + bench.bank.kd[6] * bench.bank.v_des[6]
        assert abs(law) <= ARM.gripper.torque_nm + 0.06


def test_state_is_stamped_when_it_was_measured_and_says_when_it_is_old() -> None:
    bench = started().run(5)
    assert bench.loop.state(bench.now_ns).time_ns == bench.now_ns
    assert bench.loop.state(bench.now_ns + 100_000_000).fault == ""
    assert "101 ms old" in bench.loop.state(bench.now_ns + 101_000_000).fault


def test_gravity_factors_scale_the_feed_forward() -> None:
    plain = started(gravity_factor=np.ones(6)).run(2)
    scaled = started(gravity_factor=np.full(6, 1.1)).run(2)
    np.testing.assert_allclose(scaled.bank.tau_ff[:6], 1.1 * plain.bank.tau_ff[:6], atol=56 / 4095)


def test_friction_is_fed_forward_along_the_motion_only_when_asked_for() -> None:
    bench = started(friction_share=1.0)
    still_nm = bench.bank.tau_ff[0]
    bench.ask(near(0, -0.008))
    assert bench.run(3).bank.tau_ff[0] == pytest.approx(still_nm - 0.3, abs=2 * 56 / 4095)


def test_the_loop_repeats_bit_for_bit() -> None:
    streams = []
    for _ in range(2):
        bench = started()
        bench.ask(HOME + 0.05, 0.05)
        streams.append(b"".join(bench.run(1).sent.tobytes() for _ in range(40)))
    assert streams[0] == streams[1]


def test_no_joint_gives_more_than_its_torque_however_far_it_is_held_off() -> None:
    bench = started()
    for tick in range(60):  # blocked where it stands, while the target runs away
        if tick % 8 == 0:
            bench.ask(near(0, 1.0))
        bench.run(1, follow=False)
        bank = bench.bank
        law = bank.tau_ff[:6] + bank.kp[:6] * (bank.p_des[:6] - bench.shafts[:6]) + bank.kd[:6] * bank.v_des[:6]
        assert (np.abs(law) <= ARM.limits.torque_nm + 0.25).all()  # steps of the command's fields


def test_a_blocked_joint_is_given_up_after_a_tenth_of_a_second() -> None:
    bench = started()
    for tick in range(80):
        if tick % 8 == 0:
            bench.ask(near(0, 1.0))
        bench.run(1, follow=False)
    assert "motor 1 is" in bench.loop.fault
    assert "from where it is told to be" in bench.loop.fault
    assert bench.loop.damped


def walled(lower_m: tuple[float, float, float], upper_m: tuple[float, float, float]) -> Bench:
    return started(body=body_of(ARM, 0.05, np.array(lower_m), np.array(upper_m), -0.05))


def test_the_arm_brakes_before_a_wall_and_can_leave_it_again() -> None:
    bench = walled((-1.0, -0.1, -1.0), (1.0, 0.1, 1.0))
    _, _, memories = bench.loop.records
    for turn in (1.0, -1.0, 1.0):
        bench.follow(near(0, turn), 240)
        assert bench.loop.fault == ""
        assert abs(bench.loop.admitted_rad[0]) < 0.6
        assert (memories["room_m"][0] >= 0).all()
    assert 0 <= memories["blocked"][0] < 12
    bench.follow(HOME, 240)
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME, atol=1e-6)


def test_an_arm_that_wakes_outside_its_box_can_only_come_back_in() -> None:
    bench = walled((-1.0, 0.05, -1.0), (1.0, 1.0, 1.0))
    _, _, memories = bench.loop.records
    outside_m = memories["room_m"][0].min()
    assert outside_m < -0.02
    bench.follow(near(0, -0.5), 120)
    assert memories["room_m"][0].min() >= outside_m
    bench.follow(near(0, 0.4), 240)
    assert bench.loop.fault == ""
    assert memories["room_m"][0].min() > 0


def test_stowing_ends_damped_at_rest() -> None:
    bench = started()
    bench.loop.stow()
    bench.follow(HOME, 1200)  # setpoints no longer count
    assert bench.loop.damped
    assert bench.loop.fault == ""
    np.testing.assert_allclose(bench.loop.admitted_rad, ARM.rest_rad, atol=1e-3)
    assert not bench.bank.kp.any()


def test_heat_takes_torque_away_and_at_last_stows_the_arm() -> None:
    bench = started()
    allowed = []
    for celsius in (60, 80, 90, 94):
        bench.bank.warm(1, 40.0, celsius)
        bench.run(2)
        allowed.append(bench.loop.records[2]["allowed_nm"][0, 1])
    assert allowed == sorted(allowed, reverse=True)
    assert (allowed[0], allowed[-1]) == (25.0, pytest.approx(9.8, abs=0.1))
    bench.bank.warm(1, 40.0, 96.0)
    bench.run(1200)
    assert "motor 2 is too hot (coil 96 C)" in bench.loop.fault
    np.testing.assert_allclose(bench.loop.admitted_rad, ARM.rest_rad, atol=1e-3)
    assert bench.loop.damped


OUT = np.array([0.0, 1.9, 1.6, -0.4, 0.0, 0.0])  # the arm far out: its shoulder carries more than it does for good


def test_an_arm_that_is_held_far_out_goes_to_its_rest_while_it_still_can() -> None:
    bench = Bench(ControlLoop(ARM, ARM.limits), OUT).start()
    carried = abs(bench.loop.records[2]["gravity_nm"][0, 1])
    assert 9.0 < carried < 20.0
    for celsius in np.arange(74.0, 96.0, 0.5):
        bench.bank.warm(1, 40.0, celsius)
        bench.run(2)
        if bench.loop.fault:
            break
    assert "motor 2 is too hot" in bench.loop.fault
    assert celsius < 95.0
    bench.run(2000)
    assert bench.loop.damped
    np.testing.assert_allclose(bench.loop.admitted_rad, ARM.rest_rad, atol=1e-3)


def test_an_arm_whose_pose_is_not_known_is_let_down_and_one_whose_pose_is_known_is_borne() -> None:
    silent, broken = started(), started()
    broken.bank.inject(2, Status.OVER_CURRENT)
    held = abs(silent.bank.tau_ff[1])
    assert held > 3.0
    shares = []
    for _ in range(round((LET_DOWN_S + 0.5) * 240)):
        silent.feedback = without(silent.feedback, 1)
        silent.run(1, follow=False)
        broken.run(1, follow=False)
        shares.append(abs(silent.bank.tau_ff[1]) / held)
    assert silent.loop.damped
    assert "motor 2 has not answered" in silent.loop.fault
    assert (np.diff(shares) <= 0.01).all()
    assert shares[240] > 0.5
    assert shares[-1] == pytest.approx(0.0, abs=0.01)
    assert broken.loop.damped
    assert abs(broken.bank.tau_ff[1]) == pytest.approx(held, rel=0.02)


def test_lost_and_doubled_answers_are_counted() -> None:
    bench = started()
    memory = bench.loop.records[2]
    before = int(memory["lost"][0]), int(memory["extra"][0])
    bench.feedback = without(bench.feedback, 4)
    bench.run(1)
    bench.feedback = np.vstack([bench.feedback, bench.feedback[:2]])
    bench.run(1)
    assert (int(memory["lost"][0]) - before[0], int(memory["extra"][0]) - before[1]) == (1, 2)
    assert bench.loop.fault == ""


# -- limits that are narrowed between two programs --------------------------------------------------------------------


def test_narrower_limits_hold_from_the_next_setpoint_on_and_wider_ones_too() -> None:
    bench = started()
    loop, limits = bench.loop, ARM.limits
    body = loop.records[1].copy()
    slow = replace(limits, velocity_rad_s=limits.velocity_rad_s * 0.1)
    loop.limit(slow, body)
    bench.follow(near(0, 0.3), 240)
    velocity = abs(loop.records[2]["admitted_velocity"][0, 0])
    assert loop.fault == ""
    assert velocity <= slow.velocity_rad_s[0] + 1e-12
    loop.limit(limits, body)
    fastest = 0.0
    for _ in range(24):
        bench.ask(near(0, -0.6))
        bench.run(1)
        fastest = max(fastest, abs(loop.records[2]["admitted_velocity"][0, 0]))
    assert fastest > slow.velocity_rad_s[0]


def test_a_pose_outside_narrower_limits_is_not_gone_to() -> None:
    bench = started()
    limits = ARM.limits
    narrower = replace(limits, upper_rad=np.minimum(limits.upper_rad, HOME + 0.05))
    bench.loop.limit(narrower, bench.loop.records[1].copy())
    bench.follow(near(0, 0.2), 160)
    assert bench.loop.admitted_rad[0] <= HOME[0] + 0.05


def test_an_arm_outside_a_narrower_box_keeps_its_pose_and_may_come_back_in() -> None:
    bench = started()
    here_m, _ = tool_pose(chain_of(ARM, 0.0, ARM.limits), HOME)
    box = body_of(ARM, 0.0, np.full(3, -1.0), np.array([1.0, here_m[1] - 0.02, 1.0]), -1.0)
    bench.loop.limit(ARM.limits, box)
    bench.run(60)
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME, atol=2 * ONE_STEP)
    assert bench.loop.fault == ""
    inwards = -0.1 if here_m[0] > 0 else 0.1  # a turn of the base that lowers the tool's y
    bench.follow(near(0, inwards), 160)
    assert bench.loop.fault == ""
    assert bench.loop.admitted_rad[0] == pytest.approx(HOME[0] + inwards, abs=0.01)
