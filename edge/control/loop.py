"""The control loop of one arm: a thin driver around the compiled kernel, fed with frames and time.

    bus.send(loop.probe())                          # clears latched errors; every motor says where it is
    bus.send(loop.start(bus.receive(), now_ns))     # enables the motors; the arm holds its measured pose
    every 1/240 s: bus.send(loop.step(bus.receive(), now_ns))

- `set` gives the next 30 Hz setpoint. Past its expiry, and after `LONGEST_LIFE_NS` at the latest, the arm brakes and
  holds.
- On a fault the arm holds or is damped, under gravity compensation where its pose is known, as the kernel says, until
  `clear`; then its gains rise again at the measured pose.
- A motor that left the enabled state needs `probe` and `start` again.
- `stow` takes the arm to its rest and damps it there.
"""

from __future__ import annotations

import numpy as np

from edge.arm import ArmModel, Payload, body_of
from edge.control.kernel import (
    DAMP,
    DRIVE,
    FOLLOW,
    GRIPPER,
    MEMORY,
    MOTOR_SILENT,
    MOTOR_STATUS,
    NOT_ENCODABLE,
    NOT_WOKEN,
    OVERHEATED,
    STRAYED,
    begin_stow,
    step,
    take_setpoint,
)
from edge.messages import CONTROL_HZ, LONGEST_LIFE_NS, MOTORS, ArmState, Setpoint
from edge.station import Station
from firmware_bridge.body import FACE_ROOMS, measure_room
from firmware_bridge.damiao import Special, Status, decode_samples, scales, special_frames, status_name
from firmware_bridge.frames import FRAME_BYTES, Frames
from firmware_bridge.guard import ALLOWED, COLLIDING, OUTSIDE_BOX, JointLimits, refusal_text
from firmware_bridge.inspection import whole_turns
from policies.interface import JOINTS, POLICY_HZ, Array

# An arm may stand a little outside its limits at start (zeros set by hand, a sagging stop); further out it is not ours.
START_MARGIN_RAD = 0.15
START_MARGIN_M = 0.02
STALE_NS = 100_000_000
LIMP_TICKS = 10**9
SILENT_S = 0.1  # a quarter of the motors' own watchdog
STARTING_S = 0.1
RAMP_S = 0.5  # over which stiffness rises after enabling
LET_DOWN_S = 4.0  # over which a damped arm is left to sink; its dampers brake it
# Where nothing is known about the bench: no walls but the arm itself.
ANYWHERE_M = np.full(3, 10.0)


class ControlError(Exception):
    """The control loop cannot do what was asked."""


class ControlLoop:
    """Drives seven motors from setpoints, one call of `step` each control period.

    Args:
        limits: the narrowest of site, arm and bundle.
        zero_offsets_rad: (6,) motor angle where the joint is at zero.
        payload: what the mount carries besides its gripper.
        body: (1,) of BODY, where tool and elbow may be; no walls but the arm itself where None.
        gravity_factor: (6,) share of the model's gravity to feed forward; the arm's own factors where None.
        friction_share: share of the arm's Coulomb friction to feed forward.
        control_hz: how often `step` will be called.
    """

    def __init__(
        self,
        arm: ArmModel,
        limits: JointLimits,
        zero_offsets_rad: Array | None = None,
        payload: Payload | None = None,
        gravity_factor: Array | None = None,
        friction_share: float = 0.0,
        body: np.ndarray | None = None,
        control_hz: float = CONTROL_HZ,
    ) -> None:
        self._arm = arm if payload is None else arm.carrying(payload)
        self._zero_rad = np.zeros(MOTORS)
        self._zero_rad[:JOINTS] = 0.0 if zero_offsets_rad is None else zero_offsets_rad
        self._gravity_factor = arm.gravity_factor if gravity_factor is None else gravity_factor
        self._drive = _drive(self._arm, limits, self._gravity_factor, control_hz)
        self._drive["coulomb_nm"][0] = arm.coulomb_nm * friction_share
        self._drive["zero_rad"][0] = self._zero_rad
        self._body = body_of(arm, 0.0, -ANYWHERE_M, ANYWHERE_M, -ANYWHERE_M[2]) if body is None else body
        self._memory = np.zeros(1, dtype=MEMORY)
        self._started = False

    def probe(self) -> Frames:
        """Return clear-error frames, (7, 16): every motor answers with where it is, disarmed."""
        return special_frames(self._arm.esc_ids, Special.CLEAR_ERROR)

    def start(self, feedback: Frames, now_ns: int = 0) -> Frames:
        """Take the measured pose as the one to hold and return the enable frames, (7, 16).

        A joint whose encoder woke up a turn off is put right where that brings it inside its limits.

        Raises:
            ControlError: a motor did not answer or has latched an error, or a joint or the jaw stands outside its
                limits.
        """
        before, zero_before_rad = self._memory.copy(), self._drive["zero_rad"].copy()
        try:
            self._take_measured(feedback, now_ns)
        except ControlError:
            # The motors are disarmed now, or are not what they were: nothing may move as if they were well.
            self._memory[:], self._drive["zero_rad"] = before, zero_before_rad
            self._memory["mode"], self._memory["fault"] = DAMP, NOT_WOKEN
            raise
        self._started = True
        return special_frames(self._arm.esc_ids, Special.ENABLE)

    def _take_measured(self, feedback: Frames, now_ns: int) -> None:
        """Read where the disarmed motors are and make that the pose to hold.

        Raises:
            ControlError: see `start`.
        """
        self._memory[:] = np.zeros(1, dtype=MEMORY)
        memory, drive = self._memory[0], self._drive[0]
        decode_samples(
            feedback,
            drive["mst_ids"],
            drive["esc_ids"],
            drive["scale"],
            memory["sample"],
            memory["temperature"],
            memory["status"],
            memory["fresh"],
        )
        for motor in range(MOTORS):
            if not memory["fresh"][motor]:
                raise ControlError(f"{_name(motor)} did not answer: check its power and the bus, then probe again")
            if memory["status"][motor] not in (Status.DISABLED, Status.ENABLED):
                raise ControlError(f"{_name(motor)} reports {status_name(int(memory['status'][motor]))}: probe again")
        drive["zero_rad"][:] = self._zero_rad
        joints = slice(0, JOINTS)  # the gripper goes through more than a turn: where it woke up cannot be told
        drive["zero_rad"][joints] += whole_turns(
            memory["sample"][joints, 0],
            drive["direction"][joints],
            self._zero_rad[joints],
            drive["lower_rad"][joints],
            drive["upper_rad"][joints],
            START_MARGIN_RAD,
        )
        memory["position"][:] = (memory["sample"][:, 0] - drive["zero_rad"]) * drive["direction"]
        memory["sampled_ns"] = now_ns
        self._hold_measured()

    def step(self, feedback: Frames, now_ns: int) -> Frames:
        """Run one control period on the frames that came since the last, and return the commands, (7, 16).

        Raises:
            ControlError: called before `start`.
        """
        if not self._started:
            raise ControlError("the control loop was not started: probe the motors, then start")
        out = np.empty((MOTORS, FRAME_BYTES), dtype=np.uint8)
        step(feedback, now_ns, self._drive, self._body, self._memory, out)
        return out

    @property
    def records(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The kernel's drive, body and memory, (1,) each, for a loop that calls the kernel itself."""
        return self._drive, self._body, self._memory

    def set(self, setpoint: Setpoint, now_ns: int) -> None:
        """Take the next setpoint; one that has expired or that comes while the arm may not move changes nothing.

        Raises:
            ControlError: not six joints.
        """
        if setpoint.position_rad.shape != (JOINTS,):
            raise ControlError(f"a setpoint has {JOINTS} joints, this one has shape {setpoint.position_rad.shape}")
        target = np.append(setpoint.position_rad, self._arm.gripper.motor_rad(setpoint.gripper_m))
        expires_ns = min(setpoint.expires_ns, now_ns + LONGEST_LIFE_NS)
        take_setpoint(self._memory[0], self._drive[0], target, expires_ns, now_ns)

    def stow(self) -> None:
        """Take the arm to its rest and damp it there; an arm that is damped by a fault stays as it is."""
        begin_stow(self._memory[0], self._drive[0])

    def stay_limp(self) -> None:
        """Let the gains never rise: gravity compensation only, for a test of its factors."""
        self._drive["ramp_ticks"] = LIMP_TICKS

    def damp(self) -> None:
        """Hold nothing but gravity from now on, as after a fault."""
        self._memory["mode"] = DAMP

    def bear(self, share: float) -> None:
        """Feed forward only a share of gravity: a damped arm sinks onto what is below it, braked by its dampers."""
        self._drive["gravity_factor"][0] = self._gravity_factor * share

    def limit(self, limits: JointLimits, body: np.ndarray) -> None:
        """Allow what `limits` and `body` allow from now on; call it while the arm stands still, between two programs.

        It must stand inside `limits`, or the guard refuses its pose and the arm is damped. Outside `body` it keeps its
        pose, and only the way in is free.
        """
        row = self._drive[0]
        joints = slice(0, JOINTS)
        row["lower_rad"][joints], row["upper_rad"][joints] = limits.lower_rad, limits.upper_rad
        row["velocity_rad_s"][joints] = limits.velocity_rad_s
        row["acceleration_rad_s2"][joints] = limits.acceleration_rad_s2
        row["torque_nm"][joints] = limits.torque_nm
        row["rest_rad"][:] = np.clip(self._arm.rest_rad, limits.lower_rad, limits.upper_rad)
        self._body = body.copy()
        memory = self._memory[0]
        measure_room(self._body, memory["admitted"][joints], memory["room_m"])
        memory["stop_room_m"][:] = memory["room_m"]

    @property
    def waking(self) -> bool:
        """Whether stiffness still rises after enabling; until it has risen no setpoint is followed."""
        memory, drive = self._memory[0], self._drive[0]
        return bool(memory["mode"] == FOLLOW and memory["awake_ticks"] <= drive["ramp_ticks"])

    @property
    def damped(self) -> bool:
        """Whether the motors hold nothing but gravity: stowed, or after a fault."""
        return bool(self._memory["mode"][0] == DAMP)

    def state(self, now_ns: int) -> ArmState:
        """Return the newest measurement, stamped with its own time; one that is too old at `now_ns` says so."""
        memory = self._memory[0]
        return ArmState(
            time_ns=int(memory["sampled_ns"]),
            position_rad=memory["position"][:JOINTS].copy(),
            velocity_rad_s=memory["velocity"][:JOINTS].copy(),
            torque_nm=memory["torque"][:JOINTS].copy(),
            gripper_m=self._arm.gripper.opening_m(float(memory["position"][GRIPPER])),
            fault=self.fault or self._staleness(now_ns),
        )

    @property
    def fault(self) -> str:
        """One sentence about what stopped the arm, empty while nothing has."""
        return fault_text(self._memory[0])

    @property
    def admitted_rad(self) -> Array:
        """The pose that the guard let through last, (6,)."""
        admitted: Array = self._memory["admitted"][0, :JOINTS].copy()
        return admitted

    def clear(self) -> None:
        """Forget the fault: gravity compensation where the arm is, then stiffness; a cause that still stands returns.

        Raises:
            ControlError: a joint stands outside its limits, or a part of the arm in another.
        """
        memory = self._memory[0]
        self._hold_measured()
        memory["mode"], memory["fault"], memory["awake_ticks"] = FOLLOW, ALLOWED, 0
        memory["silent_ticks"][:], memory["stray_ticks"][:], memory["blind_ticks"] = 0, 0, 0

    def _hold_measured(self) -> None:
        """Make the measured pose the admitted one; outside the box, as a rest pose may be, only the way in is free.

        Raises:
            ControlError: a joint stands outside its limits, or a part of the arm in another.
        """
        memory, drive = self._memory[0], self._drive[0]
        inside = np.clip(memory["position"], drive["lower_rad"], drive["upper_rad"])
        allowed = np.abs(memory["position"] - inside)[:JOINTS] <= START_MARGIN_RAD
        if not allowed.all():
            joint = int(np.argmin(allowed))
            low, high = drive["lower_rad"][joint], drive["upper_rad"][joint]
            raise ControlError(
                f"joint {joint + 1} stands at {memory['position'][joint]:.3f} rad, "
                f"outside {low:.3f} .. {high:.3f} rad: move it inside by hand, or check its zero"
            )
        if abs(memory["position"][GRIPPER] - inside[GRIPPER]) > START_MARGIN_RAD:
            opening_m = self._arm.gripper.opening_m(float(memory["position"][GRIPPER]))
            raise ControlError(
                f"the gripper says that it is open by {1e3 * opening_m:.0f} mm of"
                f" {1e3 * self._arm.gripper.stroke_m:.0f} mm: its motor woke up in another turn than its zero is in;"
                " close it by hand and switch the arm off and on"
            )
        measure_room(self._body, inside[:JOINTS], memory["room_m"])
        apart_m = memory["room_m"][FACE_ROOMS:]
        if not (apart_m >= -START_MARGIN_M).all():
            pair = FACE_ROOMS + int(np.argmin(apart_m))
            raise ControlError(
                f"{refusal_text(COLLIDING, pair, float(memory['room_m'][pair]), 0.0)}:"
                " move the arm apart by hand, or check its joint zeros"
            )
        memory["stop_room_m"][:] = memory["room_m"]
        for name in ("admitted", "origin", "target"):
            memory[name][:] = inside
        memory["admitted_velocity"][:], memory["passing_rad_s"][:] = 0.0, 0.0
        memory["line_ticks"], memory["blocked"], memory["expires_ns"] = 1, -1, -1

    def _staleness(self, now_ns: int) -> str:
        age_ns = now_ns - int(self._memory["sampled_ns"][0])
        return "" if age_ns <= STALE_NS else f"the newest measurement is {age_ns / 1e6:.0f} ms old"


def loop_of(station: Station, rate_hz: float = CONTROL_HZ) -> ControlLoop:
    """Return the control loop of a station's arm."""
    return ControlLoop(
        station.arm,
        station.limits,
        zero_offsets_rad=station.calibration.joint_zero_rad,
        payload=station.payload,
        gravity_factor=station.calibration.gravity_factor,
        body=station.body,
        control_hz=rate_hz,
    )


def fault_text(memory: np.void) -> str:
    """Return one sentence about the fault in a row of MEMORY, empty without one."""
    fault, motor, value = int(memory["fault"]), int(memory["fault_motor"]), float(memory["fault_value"])
    limit = float(memory["fault_limit"])
    if fault == ALLOWED:
        return ""
    if fault == MOTOR_SILENT:
        return f"{_name(motor)} has not answered for {value:.0f} control periods"
    if fault == MOTOR_STATUS:
        return f"{_name(motor)} reports {status_name(int(value))}"
    if fault == STRAYED:
        return (
            f"{_name(motor)} is {value:.2f} rad from where it is told to be: blocked, pushed, or its encoder is wrong"
        )
    if fault == NOT_WOKEN:
        return "the arm could not be enabled: probe the motors and start again once what was said is cured"
    if fault == OVERHEATED:
        return f"{_name(motor)} is too hot (coil {value:.0f} C) or gave too much torque for too long: the arm is stowed"
    if fault == NOT_ENCODABLE:
        return "a command held a number that is not finite and was not sent"
    which = motor if fault in (OUTSIDE_BOX, COLLIDING) else motor + 1
    return "the guard refused a setpoint: " + refusal_text(fault, which, value, limit)


def _drive(arm: ArmModel, limits: JointLimits, gravity_factor: Array, control_hz: float) -> np.ndarray:
    """Return the kernel's constants, (1,) of DRIVE."""
    drive = np.zeros(1, dtype=DRIVE)
    row, grip = drive[0], arm.gripper
    row["dt_s"] = 1.0 / control_hz
    row["line_ticks"] = round(control_hz / POLICY_HZ)
    periods = {
        "silent_ticks": SILENT_S, "starting_ticks": STARTING_S, "ramp_ticks": RAMP_S, "let_down_ticks": LET_DOWN_S,
    }  # fmt: skip
    for name, seconds in periods.items():
        row[name] = round(seconds * control_hz)
    row["mst_ids"][:], row["esc_ids"][:] = arm.mst_ids, arm.esc_ids
    row["scale"][:] = scales(arm.motor_types)
    for name in ("direction", "kp", "kd"):
        row[name][:] = getattr(arm, name)
    ends = sorted((grip.motor_rad(0.0), grip.motor_rad(grip.stroke_m)))
    row["lower_rad"][:] = [*limits.lower_rad, ends[0]]
    row["upper_rad"][:] = [*limits.upper_rad, ends[1]]
    row["velocity_rad_s"][:] = [*limits.velocity_rad_s, abs(grip.motor_rad(grip.velocity_m_s))]
    row["acceleration_rad_s2"][:] = [*limits.acceleration_rad_s2, grip.acceleration_rad_s2]
    row["torque_nm"][:] = [*limits.torque_nm, grip.torque_nm]
    row["rated_nm"][:], row["rest_rad"][:] = arm.rated_nm, np.clip(arm.rest_rad, limits.lower_rad, limits.upper_rad)
    row["gravity_factor"][:] = gravity_factor
    for name in ("joint_pos", "joint_rot", "joint_axis", "link_mass", "link_com"):
        row[name][:] = getattr(arm.chain, name)
    return drive


def _name(motor: int) -> str:
    return "the gripper's motor" if motor == GRIPPER else f"motor {motor + 1}"
