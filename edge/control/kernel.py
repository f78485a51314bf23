"""One control period, compiled: feedback frames in, seven MIT command frames out.

Order: decode, gravity, heat, watch the motors, aim, feed forward, guard, encode.

- Rows 0..5 are joints in the joint frame, row 6 is the gripper motor in motor radians.
- A setpoint is reached by a straight line over `line_ticks`; without a valid one the arm brakes and holds.
- The controller clips: range, velocity, acceleration, torque, and it brakes before a wall. The guard then refuses what
  is still wrong (a NaN passes every clip).
- A refused setpoint ends in holding, a motor's fault in damping (kp 0, the joint's own kd, gravity), an overheated
  motor in stowing, which ends in damping. Each stays until the driver clears it. Where a motor is silent or astray, the
  pose is not known and gravity compensation ends too, slowly.
- After enabling, the gains rise from zero at the measured pose: first gravity compensation, then stiffness.
- Nothing is allocated, and no state lives outside `memory`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge import arm, messages
from edge.arm import gravity_torque
from edge.messages import MOTORS
from firmware_bridge import body, damiao, guard
from firmware_bridge.body import ROOMS, measure_room
from firmware_bridge.compiled import sources_of
from firmware_bridge.damiao import KD, KP, POSITION, TORQUE, VELOCITY, decode_samples, encode_commands
from firmware_bridge.frames import Frames
from firmware_bridge.guard import ALLOWED, TOO_STRONG, find_refusal, find_trespass
from policies.interface import JOINTS

SOURCES = sources_of(damiao, guard, body, arm, messages)
GRIPPER = MOTORS - 1
FOLLOWING_SHARE = 0.1  # a jaw that moves at less of its asked-for velocity counts as blocked
STRAY_RAD = 0.25  # a joint so far from where it is told to be is blocked, pushed, or its encoder lies
# The controller brakes so far before the guard's walls: a braking arm leaves the line by some millimetres.
WALL_M = 0.006
# Degrees Celsius where derating begins and where it is complete; the motors trip at 100 (coil) and 120 (MOSFET).
COIL_C, MOSFET_C = (75.0, 95.0), (90.0, 110.0)
# How long a motor may give its torque limit before it must be down at its rated torque. No source gives the motors'
# thermal time; peak torque for some seconds is what drives of this size commonly allow.
PEAK_S = 10.0
CARRY_SHARE = 1.2  # of the gravity that it carries, what a motor must be able to give while it is strained
STOW_RAD_S = 0.5  # the joint with the longest way; the others arrive with it
ROUNDING = 1.0 - 1e-9  # keeps a torque that was scaled to its bound from being rounded above it
# Fault codes above the guard's.
MOTOR_SILENT, MOTOR_STATUS, NOT_ENCODABLE, STRAYED, OVERHEATED, NOT_WOKEN = 16, 17, 18, 19, 20, 21
DISABLED, ENABLED = 0, 1
FOLLOW, HOLD, STOW, DAMP = 0, 1, 2, 3  # what the arm does; HOLD and DAMP wait to be cleared

Record = NDArray[Any]  # one row of DRIVE, BODY or MEMORY

DRIVE = np.dtype(
    [
        ("dt_s", np.float64),
        ("line_ticks", np.int64),  # from the policy's rate to the control's
        ("silent_ticks", np.int64),  # a motor may leave so many periods unanswered, or stray for so long
        ("starting_ticks", np.int64),  # a motor may still report "disabled" so long after enable was sent
        ("ramp_ticks", np.int64),  # over which the gains rise after enabling
        ("let_down_ticks", np.int64),  # over which gravity compensation ends where the pose is not known
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
        ("acceleration_rad_s2", np.float64, MOTORS),
        ("torque_nm", np.float64, MOTORS),
        ("rated_nm", np.float64, MOTORS),  # what the motor bears for good
        ("rest_rad", np.float64, JOINTS),  # where the arm is stowed
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
        ("lost", np.int64),  # answers that did not come in their period
        ("extra", np.int64),  # answers beyond one a motor and period
        ("sampled_ns", np.int64),  # when all motors last answered together
        ("position", np.float64, MOTORS),  # joint frame
        ("velocity", np.float64, MOTORS),
        ("torque", np.float64, MOTORS),
        ("heat_nm2_s", np.float64, MOTORS),  # torque squared above the rated one, summed
        ("strain", np.float64, MOTORS),  # 0 cool, 1 no more than the rated torque
        ("allowed_nm", np.float64, MOTORS),
        # What was asked for.
        ("origin", np.float64, MOTORS),  # where the line began
        ("target", np.float64, MOTORS),
        ("passing_rad_s", np.float64, MOTORS),  # at which the target may be passed, as the stream of them goes on
        ("phase", np.int64),  # ticks since the setpoint came
        ("line_ticks", np.int64),  # of the present line
        ("expires_ns", np.int64),
        # What the guard let through last.
        ("admitted", np.float64, MOTORS),
        ("admitted_velocity", np.float64, MOTORS),
        ("room_m", np.float64, ROOMS),
        ("stop_room_m", np.float64, ROOMS),  # where the arm would come to rest if it braked now
        ("blocked", np.int64),  # which wall the arm brakes for, -1 for none
        # How it stands.
        ("ticks", np.int64),  # since the start
        ("awake_ticks", np.int64),  # since every motor was enabled
        ("stray_ticks", np.int64, JOINTS),
        ("blind_ticks", np.int64),  # of damping, since the pose is not known
        ("mode", np.int64),
        ("fault", np.int64),
        ("fault_motor", np.int64),
        ("fault_value", np.float64),
        ("fault_limit", np.float64),
        # Room to work in.
        ("asked", np.float64, MOTORS),
        ("asked_velocity", np.float64, MOTORS),
        ("stop", np.float64, MOTORS),
        ("asked_room_m", np.float64, ROOMS),
        ("asked_stop_room_m", np.float64, ROOMS),
        ("gravity_nm", np.float64, JOINTS),
        ("feed_nm", np.float64, MOTORS),
        ("push_share", np.float64, MOTORS),
        ("push_nm", np.float64, MOTORS),
        ("link_position", np.float64, (JOINTS, 3)),
        ("link_orientation", np.float64, (JOINTS, 3, 3)),
        ("command", np.float64, (MOTORS, 5)),
    ],
    align=True,
)


@njit(cache=True, nogil=True)
def step(feedback: Frames, now_ns: int, drives: Record, bodies: Record, memories: Record, out: Frames) -> int:
    """Run one control period and return the fault code, 0 when all is well.

    Args:
        feedback: (n, 16) frames since the last period, in any order.
        drives: (1,) of DRIVE.
        bodies: (1,) of BODY, where the arm's body may be.
        memories: (1,) of MEMORY.
        out: (7, 16) the command frames.
    """
    drive, memory = drives[0], memories[0]
    memory["ticks"] += 1
    _sense(feedback, now_ns, drive, memory)
    _weigh(drive, memory)
    _warm(drive, memory)
    ready = memory["mode"] != DAMP and _watch(drive, memory)
    if memory["mode"] != DAMP:
        _aim(ready, now_ns, drive, bodies, memory)
        if not _admit(drive, bodies, memory):
            # Refused: brake instead, and where not even that is let through, damp.
            _brake(drive, memory)
            if not _admit(drive, bodies, memory):
                memory["mode"] = DAMP
    if memory["mode"] == DAMP:
        _damp(drive, memory)
    else:
        _command(drive, memory)
    if encode_commands(memory["command"], drive["scale"], drive["esc_ids"], out) >= 0:
        # Cannot come from finite samples and an admitted pose; should it, the old frames must not go out again.
        _latch(memory, DAMP, NOT_ENCODABLE, 0, 0.0, 0.0)
        out[:] = 0
    return int(memory["fault"])


@njit(cache=True, nogil=True)
def take_setpoint(memory: Record, drive: Record, target: NDArray[np.float64], expires_ns: int, now_ns: int) -> None:
    """Begin the line to `target` (7,); when it has expired, or the arm may not move, nothing changes."""
    if memory["mode"] != FOLLOW or now_ns > expires_ns:
        return
    streaming = now_ns <= memory["expires_ns"]
    for motor in range(MOTORS):
        wanted = _clip(target[motor], drive["lower_rad"][motor], drive["upper_rad"][motor])
        passing = (wanted - memory["target"][motor]) / (drive["line_ticks"] * drive["dt_s"]) if streaming else 0.0
        fastest = drive["velocity_rad_s"][motor]
        memory["passing_rad_s"][motor] = _clip(passing, -fastest, fastest)
        memory["target"][motor] = wanted
        memory["origin"][motor] = memory["admitted"][motor]
    memory["phase"] = 0
    memory["line_ticks"] = drive["line_ticks"]
    memory["expires_ns"] = expires_ns


@njit(cache=True, nogil=True)
def begin_stow(memory: Record, drive: Record) -> None:
    """Begin the line to the arm's rest, the jaw as it is; at its end the arm is damped. A damped arm stays damped."""
    if memory["mode"] == DAMP:
        return
    memory["mode"] = STOW
    memory["origin"][:] = memory["admitted"]
    memory["target"][:] = memory["admitted"]
    memory["target"][:JOINTS] = drive["rest_rad"]
    memory["passing_rad_s"][:] = 0.0
    longest_rad = np.abs(memory["target"] - memory["origin"]).max()
    memory["phase"] = 0
    memory["line_ticks"] = max(int(np.ceil(longest_rad / (STOW_RAD_S * drive["dt_s"]))), drive["line_ticks"])


@njit(cache=True)
def _sense(feedback: Frames, now_ns: int, drive: Record, memory: Record) -> None:
    """Read the frames and turn motor angles into joint angles."""
    rejected = decode_samples(
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
    memory["rejected"] += rejected
    memory["lost"] += MOTORS - answered
    memory["extra"] += feedback.shape[0] - rejected - answered
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
def _warm(drive: Record, memory: Record) -> None:
    """Write the torque that each motor may give now: from its limit when cool down to its rated one when strained.

    Strain is the largest of three shares: of the heat that torque above the rated one has left (I squared t), and of
    the way of coil and MOSFET from warm to too hot.
    """
    for motor in range(MOTORS):
        limit, rated = drive["torque_nm"][motor], min(drive["torque_nm"][motor], drive["rated_nm"][motor])
        bearable = max((limit**2 - rated**2) * PEAK_S, rated**2)
        heat = memory["heat_nm2_s"][motor] + (memory["torque"][motor] ** 2 - rated**2) * drive["dt_s"]
        memory["heat_nm2_s"][motor] = _clip(heat, 0.0, bearable)
        mosfet = (memory["temperature"][motor, 0] - MOSFET_C[0]) / (MOSFET_C[1] - MOSFET_C[0])
        coil = (memory["temperature"][motor, 1] - COIL_C[0]) / (COIL_C[1] - COIL_C[0])
        strain = _clip(max(memory["heat_nm2_s"][motor] / bearable, mosfet, coil), 0.0, 1.0)
        memory["strain"][motor] = strain
        memory["allowed_nm"][motor] = limit + (rated - limit) * strain


@njit(cache=True)
def _watch(drive: Record, memory: Record) -> bool:
    """Return whether every motor is enabled; latch a fault when one is silent, in another state, astray or too hot."""
    ready = True
    for motor in range(MOTORS):
        status = memory["status"][motor]
        starting = status == DISABLED and memory["ticks"] <= drive["starting_ticks"]
        if memory["silent_ticks"][motor] >= drive["silent_ticks"]:
            _latch(memory, DAMP, MOTOR_SILENT, motor, float(memory["silent_ticks"][motor]), 0.0)
            return False
        if status != ENABLED and not starting:
            _latch(memory, DAMP, MOTOR_STATUS, motor, float(status), float(ENABLED))
            return False
        ready = ready and status == ENABLED
    memory["awake_ticks"] = memory["awake_ticks"] + 1 if ready else 0
    for joint in range(JOINTS):
        stray_rad = abs(memory["admitted"][joint] - memory["position"][joint])
        astray = memory["awake_ticks"] > drive["ramp_ticks"] and not stray_rad <= STRAY_RAD
        memory["stray_ticks"][joint] = memory["stray_ticks"][joint] + 1 if astray else 0
        if memory["stray_ticks"][joint] >= drive["silent_ticks"]:
            _latch(memory, DAMP, STRAYED, joint, stray_rad, STRAY_RAD)
            memory["blind_ticks"] = 1
            return False
    for motor in range(MOTORS):
        if _is_spent(motor, drive, memory) and memory["mode"] < STOW:
            _latch(memory, FOLLOW, OVERHEATED, motor, float(memory["temperature"][motor, 1]), 0.0)
            begin_stow(memory, drive)
    return ready


@njit(cache=True)
def _is_spent(motor: int, drive: Record, memory: Record) -> bool:
    """Return whether a motor is strained so far that it must rest, or can soon no longer carry the arm to its rest."""
    wanted = CARRY_SHARE * abs(memory["gravity_nm"][motor]) if motor < JOINTS else 0.0
    strained = drive["torque_nm"][motor] >= wanted and memory["allowed_nm"][motor] < wanted
    return bool(memory["strain"][motor] >= 1.0 or strained)


@njit(cache=True)
def _aim(ready: bool, now_ns: int, drive: Record, bodies: Record, memory: Record) -> None:
    """Write into `asked` where this period should end: on the line, within range, velocity and acceleration.

    Without a valid setpoint, and before a wall, that is on the way to rest.
    """
    awake = ready and memory["awake_ticks"] > drive["ramp_ticks"]
    stowing = memory["mode"] == STOW
    if not awake or not (stowing or (memory["mode"] == FOLLOW and now_ns <= memory["expires_ns"])):
        _brake(drive, memory)
        return
    if stowing and memory["phase"] > memory["line_ticks"] + drive["ramp_ticks"]:
        memory["mode"] = DAMP  # at rest, or as near to it as walls let it come
    before = min(memory["phase"] / memory["line_ticks"], 1.0)
    memory["phase"] += 1
    share = min(memory["phase"] / memory["line_ticks"], 1.0)
    for motor in range(MOTORS):
        origin = memory["origin"][motor]
        way = memory["target"][motor] - origin
        _approach(motor, origin + way * before, way * (share - before), drive, memory)
    # What is not finite is for the guard to refuse by name.
    if np.isfinite(memory["stop"]).all() and not _stops_inside(bodies, memory):
        _brake(drive, memory)


@njit(cache=True)
def _approach(motor: int, on_line: float, along: float, drive: Record, memory: Record) -> None:
    """Write one motor's next position and velocity: along the line, and back to it where limits held it off.

    The target is passed no faster than the stream of setpoints goes on, so that the last one is not run over.

    Args:
        on_line: where on the line the last period should have ended.
        along: what this period should add.
    """
    dt_s, last = float(drive["dt_s"]), memory["admitted"][motor]
    grain = drive["acceleration_rad_s2"][motor] * dt_s  # the largest change of velocity in one period
    behind = on_line - last
    catch_up = min(abs(behind) / dt_s, _stoppable(abs(behind), grain, dt_s)) * np.sign(behind)
    velocity = along / dt_s + catch_up
    fastest, before = drive["velocity_rad_s"][motor], memory["admitted_velocity"][motor]
    velocity = _clip(velocity, -fastest, fastest)
    way, passing = memory["target"][motor] - last, memory["passing_rad_s"][motor]
    beyond = abs(passing) * (abs(passing) / grain + 1.0) / 2.0 * dt_s  # what braking from there takes
    velocity = _clip(
        velocity,
        -_stoppable(max(-way, 0.0) + (beyond if passing < 0.0 else 0.0), grain, dt_s),
        _stoppable(max(way, 0.0) + (beyond if passing > 0.0 else 0.0), grain, dt_s),
    )
    velocity = _clip(
        velocity,
        -_stoppable(last - drive["lower_rad"][motor], grain, dt_s),
        _stoppable(drive["upper_rad"][motor] - last, grain, dt_s),
    )
    _ask(motor, _clip(velocity, before - grain, before + grain), drive, memory)


@njit(cache=True)
def _brake(drive: Record, memory: Record) -> None:
    """Write the next period on the way to a standstill."""
    for motor in range(MOTORS):
        grain = drive["acceleration_rad_s2"][motor] * drive["dt_s"]
        velocity = memory["admitted_velocity"][motor]
        _ask(motor, velocity - _clip(velocity, -grain, grain), drive, memory)


@njit(cache=True)
def _ask(motor: int, velocity: float, drive: Record, memory: Record) -> None:
    """Write the asked-for position after one period at `velocity`, and where braking from there would end."""
    dt_s, last = drive["dt_s"], memory["admitted"][motor]
    # Clipped once more, because the sum may round to just outside.
    asked = _clip(last + velocity * dt_s, drive["lower_rad"][motor], drive["upper_rad"][motor])
    grain = drive["acceleration_rad_s2"][motor] * dt_s
    periods = np.floor(abs(velocity) / grain)
    braking_rad = (abs(velocity) * periods - grain * periods * (periods + 1.0) / 2.0) * dt_s
    memory["asked"][motor] = asked
    memory["asked_velocity"][motor] = velocity
    memory["stop"][motor] = asked + np.sign(velocity) * braking_rad


@njit(cache=True)
def _stoppable(way_rad: float, grain: float, dt_s: float) -> float:
    """Return the largest velocity at which the arm, one period later, can still brake to rest within `way_rad`.

    Braking takes `grain` off the velocity each period. From (n + f) grains, 0 <= f < 1, the way is
    (n + 1) (n + 2 f) / 2 grains times the period, the first period at full velocity included.
    """
    grains = max(way_rad, 0.0) / (grain * dt_s)
    whole = math.floor(-0.5 + math.sqrt(0.25 + 2.0 * grains))
    return (whole + max(grains / (whole + 1.0) - whole / 2.0, 0.0)) * grain


@njit(cache=True)
def _stops_inside(bodies: Record, memory: Record) -> bool:
    """Return whether the arm, should it brake after this period, comes to rest inside all walls or no further out."""
    measure_room(bodies, memory["stop"][:JOINTS], memory["asked_stop_room_m"])
    memory["blocked"] = -1
    for wall in range(ROOMS):
        room = memory["asked_stop_room_m"][wall]
        if not (room >= WALL_M or room >= memory["stop_room_m"][wall]):
            memory["blocked"] = wall
            return False
    return True


@njit(cache=True)
def _admit(drive: Record, bodies: Record, memory: Record) -> bool:
    """Pass the guard and make the asked-for pose the admitted one, or latch the refusal and return False."""
    _feed_forward(drive, memory)
    for motor in range(MOTORS):
        memory["push_nm"][motor] += memory["feed_nm"][motor]  # now all that the motor will give
    rule, motor, value, limit = find_refusal(
        memory["asked"],
        memory["admitted"],
        memory["admitted_velocity"],
        memory["push_nm"],
        drive["lower_rad"],
        drive["upper_rad"],
        drive["velocity_rad_s"],
        drive["acceleration_rad_s2"],
        memory["allowed_nm"],
        float(drive["dt_s"]),
    )
    if rule == ALLOWED:
        measure_room(bodies, memory["asked"][:JOINTS], memory["asked_room_m"])
        rule, motor, value, limit = find_trespass(memory["asked_room_m"], memory["room_m"])
    if rule != ALLOWED:
        _latch(memory, DAMP if rule == TOO_STRONG else HOLD, rule, motor, value, limit)
        return False
    memory["admitted"][:] = memory["asked"]
    memory["admitted_velocity"][:] = memory["asked_velocity"]
    memory["room_m"][:] = memory["asked_room_m"]
    measure_room(bodies, memory["stop"][:JOINTS], memory["stop_room_m"])
    return True


@njit(cache=True)
def _feed_forward(drive: Record, memory: Record) -> None:
    """Write gravity plus Coulomb friction along the motion, and how much of the gains the torque limit leaves.

    A motor gives `feed + share (kp error + kd velocity error)`; the share keeps that within what it may give now. The
    gripper motor, which is bounded by `_soften`, has neither gravity nor friction.
    """
    gain = min(memory["awake_ticks"] / max(drive["ramp_ticks"], 1), 1.0)
    for row in range(MOTORS):
        feed, share = 0.0, 1.0
        velocity = memory["asked_velocity"][row]
        push = gain * drive["kp"][row] * (memory["asked"][row] - memory["position"][row])
        push += drive["kd"][row] * (velocity - memory["velocity"][row])
        if row < JOINTS:
            feed = memory["gravity_nm"][row] + drive["coulomb_nm"][row] * np.sign(velocity)
            spare = memory["allowed_nm"][row] * ROUNDING - np.sign(push) * feed
            if abs(push) > spare:
                share = max(spare, 0.0) / abs(push)
        else:
            push = 0.0
        memory["feed_nm"][row], memory["push_share"][row], memory["push_nm"][row] = feed, share, push * share


@njit(cache=True)
def _command(drive: Record, memory: Record) -> None:
    """Write the command rows of the admitted pose."""
    gain = min(memory["awake_ticks"] / max(drive["ramp_ticks"], 1), 1.0)
    for row in range(MOTORS):
        sign, share = drive["direction"][row], memory["push_share"][row]
        position, velocity = memory["admitted"][row], memory["admitted_velocity"][row]
        if row == GRIPPER:
            position, velocity = _soften(position, velocity, drive, memory)
        memory["command"][row, POSITION] = position * sign + drive["zero_rad"][row]
        memory["command"][row, VELOCITY] = velocity * sign
        memory["command"][row, KP] = drive["kp"][row] * gain * share
        memory["command"][row, KD] = drive["kd"][row] * share
        memory["command"][row, TORQUE] = memory["feed_nm"][row] * sign


@njit(cache=True)
def _soften(asked: float, velocity: float, drive: Record, memory: Record) -> tuple[float, float]:
    """Return the jaw's position and velocity command, moved so that a blocked jaw gets at most the allowed torque.

    The position leads the measured one by no more than that torque's worth of stiffness, and the velocity is fed
    forward only while the jaw follows.
    """
    lead_rad = memory["allowed_nm"][GRIPPER] / drive["kp"][GRIPPER]
    position, measured = memory["position"][GRIPPER], memory["velocity"][GRIPPER]
    follows = measured * velocity > 0.0 and abs(measured) >= FOLLOWING_SHARE * abs(velocity)
    inside = _clip(asked, drive["lower_rad"][GRIPPER], drive["upper_rad"][GRIPPER])
    # The lead is bounded last: a jaw outside its range is not torn back into it.
    return position + _clip(inside - position, -lead_rad, lead_rad), velocity if follows else 0.0


@njit(cache=True)
def _damp(drive: Record, memory: Record) -> None:
    """Write commands that hold nothing but gravity, slowed by the motors' own damping.

    Once a motor was silent or astray the pose is not known, and what carries another pose swings the arm: then it is
    let down.
    """
    memory["admitted_velocity"][:] = 0.0
    if memory["blind_ticks"] > 0 or memory["silent_ticks"].max() >= drive["silent_ticks"]:
        memory["blind_ticks"] += 1
    share = max(1.0 - memory["blind_ticks"] / drive["let_down_ticks"], 0.0)
    for row in range(MOTORS):
        feed = 0.0
        if row < JOINTS:
            feed = share * _clip(memory["gravity_nm"][row], -memory["allowed_nm"][row], memory["allowed_nm"][row])
        sign = drive["direction"][row]
        memory["command"][row, POSITION] = memory["admitted"][row] * sign + drive["zero_rad"][row]
        memory["command"][row, VELOCITY] = 0.0
        memory["command"][row, KP] = 0.0
        memory["command"][row, KD] = drive["kd"][row]
        memory["command"][row, TORQUE] = feed * sign


@njit(cache=True)
def _latch(memory: Record, mode: int, fault: int, motor: int, value: float, limit: float) -> None:
    """Note a fault and what the arm does about it; the first cause is kept, but holding may still turn into damping."""
    refused_on_the_way_to_rest = memory["mode"] == STOW and mode == HOLD
    memory["mode"] = DAMP if refused_on_the_way_to_rest else max(memory["mode"], mode)
    if memory["fault"] == ALLOWED:
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
