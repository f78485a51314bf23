"""The control loop holds, follows, clips, expires and stops, over real bytes to emulated motors on ideal shafts."""

from __future__ import annotations

import numpy as np
import pytest

from edge.arm import load_arm
from edge.control.loop import ControlError, ControlLoop
from edge.messages import Setpoint
from firmware_bridge.damiao import Special, Status, special_frames
from firmware_bridge.frames import Frames, can_id, frame, no_frames
from firmware_bridge.guard import JointLimits, narrow
from firmware_bridge.motors import MotorBank

TICK_NS = 4_166_667
HOME = np.array([0.0, 1.75, 1.1, -0.93, 0.1, 0.2])
ARM = load_arm()
ONE_STEP = 25.0 / 65535  # of the motors' position field
FAR_NS = 10**15


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
        return self.run(1)

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


def test_a_setpoint_is_reached_on_a_straight_line_in_eight_ticks() -> None:
    bench, poses = started(), []
    bench.ask(near(0, 0.08))
    for _ in range(9):
        bench.run(1)
        poses.append(bench.loop.admitted_rad[0] - HOME[0])
    np.testing.assert_allclose(poses, [*np.arange(1, 9) * 0.01, 0.08], atol=2 * ONE_STEP)


def test_the_velocity_of_the_line_is_fed_forward_and_ends_with_it() -> None:
    bench = started()
    bench.ask(near(0, 0.08))
    assert bench.run(4).bank.v_des[0] == pytest.approx(0.01 * 240, abs=0.02)
    assert bench.run(6).bank.v_des[0] == pytest.approx(0.0, abs=0.01)


def test_a_new_setpoint_begins_where_the_guard_let_the_arm_come() -> None:
    bench = started()
    bench.ask(near(0, 0.08))
    bench.run(4)
    bench.ask(near(0, 0.0))
    steps = np.diff([bench.run(1).loop.admitted_rad[0] for _ in range(8)])
    assert np.abs(steps).max() < 0.01


def test_an_expired_setpoint_means_hold() -> None:
    bench = started()
    bench.ask(near(0, 0.08), for_ns=4 * TICK_NS)
    bench.run(20)
    assert bench.loop.admitted_rad[0] == pytest.approx(0.04, abs=2 * ONE_STEP)
    assert bench.loop.fault == ""


def test_a_setpoint_that_comes_expired_changes_nothing() -> None:
    bench = started()
    bench.ask(near(0, 0.08), for_ns=-1)
    assert bench.run(10).loop.admitted_rad[0] == pytest.approx(0.0, abs=2 * ONE_STEP)


@pytest.mark.parametrize("joint", range(6))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_range_and_velocity_are_clipped_for_every_joint(joint: int, side: float) -> None:
    bench = started()
    bench.ask(near(joint, side * 100.0))
    last, fastest = bench.loop.admitted_rad, 0.0
    for _ in range(600):
        bench.run(1)
        fastest = max(fastest, abs(bench.loop.admitted_rad[joint] - last[joint]) * 240)
        last = bench.loop.admitted_rad
    limit = ARM.limits.upper_rad if side > 0 else ARM.limits.lower_rad
    assert bench.loop.fault == ""
    assert last[joint] == limit[joint]
    assert fastest == pytest.approx(ARM.limits.velocity_rad_s[joint], rel=1e-6)


def test_narrower_limits_hold() -> None:
    site = JointLimits(HOME - 0.05, HOME + 0.05, np.full(6, 0.5), np.full(6, 25.0))
    bench = started(narrow(ARM.limits, site))
    bench.ask(HOME + 1.0)
    assert bench.run(100).loop.fault == ""
    np.testing.assert_allclose(bench.loop.admitted_rad, HOME + 0.05)


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_what_is_a_number_moves_the_arm(joint: int, value: float) -> None:
    bench, target = started(), np.array([*HOME, 0.02])
    target[joint] = value
    bench.ask(target[:6], target[6])
    bench.run(3)
    if np.isnan(value):
        assert f"joint {joint + 1}: nan is not a finite number" in bench.loop.fault
        assert not bench.bank.kp.any()
    else:  # clipped like any other far target
        assert bench.loop.fault == ""


def test_a_fault_damps_under_gravity_until_cleared_then_holds_where_it_is() -> None:
    bench = started()
    bench.ask(near(2, np.nan))
    bench.run(2)
    gravity_nm = bench.bank.tau_ff.copy()
    bench.ask(near(0, 0.08))
    bench.run(10)
    assert "the guard refused" in bench.loop.state(bench.now_ns).fault
    assert not bench.bank.kp.any()
    np.testing.assert_allclose(bench.bank.kd, ARM.kd, atol=5 / 4095)
    assert gravity_nm[1] < -3.0
    bench.shafts[0] += 0.3  # someone pushes the damped arm
    bench.run(2)
    bench.loop.clear()
    assert bench.run(2).loop.fault == ""
    assert bench.loop.admitted_rad[0] == pytest.approx(0.3, abs=2 * ONE_STEP)


def test_too_little_torque_for_gravity_is_refused_not_clipped() -> None:
    weak = JointLimits(ARM.limits.lower_rad, ARM.limits.upper_rad, ARM.limits.velocity_rad_s, np.full(6, 1.0))
    bench = started(weak)
    assert "joint 2: feed-forward torque" in bench.loop.fault
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
    assert bench.start().run(3).loop.fault == ""
    assert bench.bank.enabled.all()


def test_a_motor_that_is_disabled_behind_our_back_is_a_fault() -> None:
    bench = started().run(30)
    bench.bank.exchange(special_frames([3], Special.DISABLE), bench.now_ns, bench.shafts, np.zeros(7), np.zeros(7))
    assert bench.run(2).loop.fault == "motor 3 reports disabled"


def without(feedback: Frames, motor: int) -> Frames:
    return np.stack([row for row in feedback if can_id(row) != 0x11 + motor])


@pytest.mark.parametrize(("periods", "faulted"), [(24, False), (25, True)])
def test_a_motor_may_be_silent_for_24_periods_and_no_longer(periods: int, faulted: bool) -> None:
    bench = started().run(30)
    for _ in range(periods):
        bench.feedback = without(bench.feedback, 4)
        bench.run(1)
    assert (bench.loop.fault == "motor 5 has not answered for more than 24 control periods") == faulted


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
    bench.run(1)
    bench.ask(near(0, 0.08))
    assert bench.run(8).loop.admitted_rad[0] == pytest.approx(0.08, abs=2 * ONE_STEP)


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
    bench.ask(HOME, 0.08)
    bench.run(48)
    assert 0.04 <= bench.loop.state(bench.now_ns).gripper_m <= 0.02 + 0.15 * 0.2
    bench.run(100)
    assert bench.loop.state(bench.now_ns).gripper_m == pytest.approx(0.08, abs=1e-4)


@pytest.mark.parametrize("opening_m", [0.0, 0.09])
def test_a_blocked_jaw_gets_bounded_torque(opening_m: float) -> None:
    bench = started()
    bench.ask(HOME, opening_m)
    for _ in range(200):
        bench.run(1, follow=False)
        law = bench.bank.kp[6] * (bench.bank.p_des[6] - bench.shafts[6]) + bench.bank.kd[6] * bench.bank.v_des[6]
        assert abs(law) <= ARM.gripper.torque_nm + 0.06  # steps of the command's fields


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
    bench.ask(near(0, -0.08))
    assert bench.run(3).bank.tau_ff[0] == pytest.approx(still_nm - 0.3, abs=2 * 56 / 4095)


def test_the_loop_repeats_bit_for_bit() -> None:
    streams = []
    for _ in range(2):
        bench = started()
        bench.ask(HOME + 0.05, 0.05)
        streams.append(b"".join(bench.run(1).sent.tobytes() for _ in range(40)))
    assert streams[0] == streams[1]
