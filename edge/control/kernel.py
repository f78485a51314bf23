"""One control period, compiled: seven feedback frames in, seven MIT command frames out.

Order: decode, watch the motors, gravity, interpolate, clip, guard, encode.

- Rows 0..5 are joints in the joint frame, row 6 is the gripper motor in motor radians.
- A setpoint is reached by a straight line over `INTERPOLATION_TICKS`; past its expiry the last admitted pose is held.
- The controller clips position and velocity; the guard then refuses what is still wrong (a NaN passes every clip).
- Any fault ends in damping: kp 0, the joint's own kd, gravity. It stays until the driver clears it.
- Nothing is allocated, and no state lives outside `memory`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge import arm, messages
from edge.arm import gravity_torque
from edge.messages import CONTROL_HZ, MOTORS
from firmware_bridge import damiao, guard
from firmware_bridge.compiled import sources_of
from firmware_bridge.damiao import KD, KP, POSITION, TORQUE, VELOCITY, decode_samples, encode_commands
from firmware_bridge.frames import Frames
from firmware_bridge.guard import ALLOWED, find_refusal
from policies.interface import JOINTS

SOURCES = sources_of(damiao, guard, arm, messages)
DT_S = 1.0 / CONTROL_HZ
INTERPOLATION_TICKS = 8  # from the policy's 30 Hz to the control's 240 Hz
SILENT_TICKS = 24  # 0.1 s, a quarter of the motors' own watchdog
STARTING_TICKS = 24  # a motor may still report "disabled" so long after enable was sent
GRIPPER = MOTORS - 1
FOLLOWING_SHARE = 0.1  # a jaw that moves at less of its asked-for velocity counts as blocked
# Fault codes above the guard's.
MOTOR_SILENT, MOTOR_STATUS, NOT_ENCODABLE = 16, 17, 18
DISABLED, ENABLED = 0, 1

Record = NDArray[Any]  # one row of DRIVE or MEMORY

DRIVE = np.dtype(
    [
        ("mst_ids", np.int64, MOTORS),
        ("esc_ids", np.int64, MOTORS),
        ("scale", np.float64, (MOTORS, 3)),
        ("direction", np.float64, MOTORS),
        ("zero_rad", np.float64, MOTORS),  # motor angle where the joint is at zero
        ("kp", np.float64, MOTORS),
        ("kd", np.float64, MOTORS),
        ("lower_rad", np.float64, MOTORS),
        ("upper_rad", np.float64, MOTORS),
        ("velocity_rad_s", np.float64, MOTORS),
        ("torque_nm", np.float64, MOTORS),
        ("gravity_factor", np.float64, JOINTS),
        ("coulomb_nm", np.float64, JOINTS),
        ("joint_pos", np.float64, (JOINTS, 3)),
        ("joint_rot", np.float64, (JOINTS, 3, 3)),
        ("joint_axis", np.float64, (JOINTS, 3)),
        ("link_mass", np.float64, JOINTS),
        ("link_com", np.float64, (JOINTS, 3)),
        # Empty; its name is part of the kernel's signature and so keys numba's cache (see firmware_bridge.compiled).
        (f"sources_{SOURCES:08x}", np.uint8),
    ],
    align=True,
)
MEMORY = np.dtype(
    [
        # What the motors said.
        ("sample", np.float64, (MOTORS, 3)),  # motor frame: position, velocity, torque
        ("temperature", np.uint8, (MOTORS, 2)),
        ("status", np.uint8, MOTORS),
        ("fresh", np.uint8, MOTORS),
        ("silent_ticks", np.int64, MOTORS),
        ("rejected", np.int64),  # frames of nobody, since the start
        ("sampled_ns", np.int64),  # when all motors last answered together
        ("position", np.float64, MOTORS),  # joint frame
        ("velocity", np.float64, MOTORS),
        ("torque", np.float64, MOTORS),
        # What was asked for.
        ("origin", np.float64, MOTORS),  # where the interpolation began
        ("target", np.float64, MOTORS),
        ("admitted", np.float64, MOTORS),  # what the guard let through last
        ("phase", np.int64),  # ticks since the setpoint came
        ("expires_ns", np.int64),
        # How it stands.
        ("ticks", np.int64),  # since the start
        ("fault", np.int64),
        ("fault_motor", np.int64),
        ("fault_value", np.float64),
        ("fault_limit", np.float64),
        # Room to work in.
        ("asked", np.float64, MOTORS),
        ("gravity_nm", np.float64, JOINTS),
        ("feed_nm", np.float64, MOTORS),
        ("link_position", np.float64, (JOINTS, 3)),
        ("link_orientation", np.float64, (JOINTS, 3, 3)),
        ("command", np.float64, (MOTORS, 5)),
    ],
    align=True,
)


@njit(cache=True, nogil=True)
def step(feedback: Frames, now_ns: int, drives: Record, memories: Record, out: Frames) -> int:
    """Run one control period and return the fault code, 0 when all is well.

    Args:
        feedback: (n, 16) frames since the last period, in any order.
        drives: (1,) of DRIVE.
        memories: (1,) of MEMORY.
        out: (7, 16) the command frames.
    """
    drive, memory = drives[0], memories[0]
    memory["ticks"] += 1
    _sense(feedback, now_ns, drive, memory)
    _weigh(drive, memory)
    if memory["fault"] == ALLOWED:
        ready = _watch_motors(memory)
        _aim(ready and now_ns <= memory["expires_ns"], drive, memory)
        _feed_forward(drive, memory)
    if memory["fault"] == ALLOWED:
        _admit(drive, memory)
    if memory["fault"] != ALLOWED:
        _damp(drive, memory)
    if encode_commands(memory["command"], drive["scale"], drive["esc_ids"], out) >= 0:
        # Cannot come from finite samples and an admitted pose; should it, the old frames must not go out again.
        memory["fault"] = NOT_ENCODABLE
        out[:] = 0
    return int(memory["fault"])


@njit(cache=True)
def _sense(feedback: Frames, now_ns: int, drive: Record, memory: Record) -> None:
    """Read the frames and turn motor angles into joint angles."""
    memory["rejected"] += decode_samples(
        feedback,
        drive["mst_ids"],
        drive["esc_ids"],
        drive["scale"],
        memory["sample"],
        memory["temperature"],
        memory["status"],
        memory["fresh"],
    )
    answered = 0
    for motor in range(MOTORS):
        sign = drive["direction"][motor]
        memory["position"][motor] = (memory["sample"][motor, 0] - drive["zero_rad"][motor]) * sign
        memory["velocity"][motor] = memory["sample"][motor, 1] * sign
        memory["torque"][motor] = memory["sample"][motor, 2] * sign
        if memory["fresh"][motor]:
            memory["silent_ticks"][motor] = 0
            answered += 1
        else:
            memory["silent_ticks"][motor] += 1
    if answered == MOTORS:
        memory["sampled_ns"] = now_ns


@njit(cache=True)
def _weigh(drive: Record, memory: Record) -> None:
    """Write the gravity torque at the measured joints, scaled by each joint's factor."""
    gravity_torque(
        memory["position"][:JOINTS],
        drive["joint_pos"],
        drive["joint_rot"],
        drive["joint_axis"],
        drive["link_mass"],
        drive["link_com"],
        memory["link_position"],
        memory["link_orientation"],
        memory["gravity_nm"],
    )
    for joint in range(JOINTS):
        memory["gravity_nm"][joint] *= drive["gravity_factor"][joint]


@njit(cache=True)
def _watch_motors(memory: Record) -> bool:
    """Return whether every motor is enabled; latch a fault when one is silent for too long or in another state."""
    ready = True
    for motor in range(MOTORS):
        status = memory["status"][motor]
        starting = status == DISABLED and memory["ticks"] <= STARTING_TICKS
        if memory["silent_ticks"][motor] > SILENT_TICKS:
            _latch(memory, MOTOR_SILENT, motor, float(memory["silent_ticks"][motor]), float(SILENT_TICKS))
            return False
        if status != ENABLED and not starting:
            _latch(memory, MOTOR_STATUS, motor, float(status), float(ENABLED))
            return False
        ready = ready and status == ENABLED
    return ready


@njit(cache=True)
def _aim(valid: bool, drive: Record, memory: Record) -> None:
    """Write into `asked` where this period should end: on the line to the target, within range and velocity.

    Without a `valid` setpoint that is where the last period ended.
    """
    if not valid:
        memory["phase"] = INTERPOLATION_TICKS
        memory["origin"][:] = memory["admitted"]
        memory["target"][:] = memory["admitted"]
    memory["phase"] = min(memory["phase"] + 1, INTERPOLATION_TICKS)
    share = memory["phase"] / INTERPOLATION_TICKS
    for motor in range(MOTORS):
        origin, target, last = memory["origin"][motor], memory["target"][motor], memory["admitted"][motor]
        lower, upper = drive["lower_rad"][motor], drive["upper_rad"][motor]
        reach_rad = drive["velocity_rad_s"][motor] * DT_S
        step_rad = origin + (_clip(target, lower, upper) - origin) * share - last
        # Clipped once more, because the sum may round to just outside.
        memory["asked"][motor] = _clip(last + _clip(step_rad, -reach_rad, reach_rad), lower, upper)


@njit(cache=True)
def _feed_forward(drive: Record, memory: Record) -> None:
    """Write gravity plus Coulomb friction along the commanded motion; the gripper motor needs neither."""
    for joint in range(JOINTS):
        along = np.sign(memory["asked"][joint] - memory["admitted"][joint])
        memory["feed_nm"][joint] = memory["gravity_nm"][joint] + drive["coulomb_nm"][joint] * along
    memory["feed_nm"][GRIPPER] = 0.0


@njit(cache=True)
def _admit(drive: Record, memory: Record) -> None:
    """Pass the guard and write the command rows, or latch the refusal."""
    rule, motor, value, limit = find_refusal(
        memory["asked"],
        memory["admitted"],
        memory["feed_nm"],
        drive["lower_rad"],
        drive["upper_rad"],
        drive["velocity_rad_s"],
        drive["torque_nm"],
        DT_S,
    )
    if rule != ALLOWED:
        _latch(memory, rule, motor, value, limit)
        return
    for row in range(MOTORS):
        sign = drive["direction"][row]
        velocity = (memory["asked"][row] - memory["admitted"][row]) / DT_S
        asked = memory["asked"][row]
        if row == GRIPPER:
            asked, velocity = _soften(asked, velocity, drive, memory)
        memory["admitted"][row] = memory["asked"][row]
        memory["command"][row, POSITION] = asked * sign + drive["zero_rad"][row]
        memory["command"][row, VELOCITY] = velocity * sign
        memory["command"][row, KP] = drive["kp"][row]
        memory["command"][row, KD] = drive["kd"][row]
        memory["command"][row, TORQUE] = memory["feed_nm"][row] * sign


@njit(cache=True)
def _soften(asked: float, velocity: float, drive: Record, memory: Record) -> tuple[float, float]:
    """Return the jaw's position and velocity command, moved so that a blocked jaw gets at most the allowed torque.

    The position leads the measured one by no more than that torque's worth of stiffness, and the velocity is fed
    forward only while the jaw follows.
    """
    lead_rad = drive["torque_nm"][GRIPPER] / drive["kp"][GRIPPER]
    position, measured = memory["position"][GRIPPER], memory["velocity"][GRIPPER]
    follows = measured * velocity > 0.0 and abs(measured) >= FOLLOWING_SHARE * abs(velocity)
    return position + _clip(asked - position, -lead_rad, lead_rad), velocity if follows else 0.0


@njit(cache=True)
def _damp(drive: Record, memory: Record) -> None:
    """Write commands that hold nothing but gravity, slowed by the motors' own damping."""
    for row in range(MOTORS):
        feed = 0.0
        if row < JOINTS:
            feed = _clip(memory["gravity_nm"][row], -drive["torque_nm"][row], drive["torque_nm"][row])
        sign = drive["direction"][row]
        memory["command"][row, POSITION] = memory["admitted"][row] * sign + drive["zero_rad"][row]
        memory["command"][row, VELOCITY] = 0.0
        memory["command"][row, KP] = 0.0
        memory["command"][row, KD] = drive["kd"][row]
        memory["command"][row, TORQUE] = feed * sign


@njit(cache=True)
def _latch(memory: Record, fault: int, motor: int, value: float, limit: float) -> None:
    memory["fault"] = fault
    memory["fault_motor"] = motor
    memory["fault_value"] = value
    memory["fault_limit"] = limit


@njit(cache=True)
def _clip(value: float, low: float, high: float) -> float:
    """Return `value` within its limits; NaN stays NaN, for the guard to refuse."""
    if value < low:
        return low
    if value > high:
        return high
    return value
