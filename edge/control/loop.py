"""The control loop of one arm: a thin driver around the compiled kernel, fed with frames and time.

    bus.send(loop.probe())                          # clears latched errors; every motor says where it is
    bus.send(loop.start(bus.receive(), now_ns))     # enables the motors; the arm holds its measured pose
    every 1/240 s: bus.send(loop.step(bus.receive(), now_ns))

- `set` gives the next 30 Hz setpoint. Past its expiry the last admitted pose is held.
- On a fault the arm is damped under gravity compensation until `clear`; then it holds its measured pose.
- A motor that left the enabled state needs `probe` and `start` again.
"""

from __future__ import annotations

import numpy as np

from edge.arm import ArmModel, Payload
from edge.control.kernel import (
    DRIVE,
    GRIPPER,
    MEMORY,
    MOTOR_SILENT,
    MOTOR_STATUS,
    NOT_ENCODABLE,
    SILENT_TICKS,
    step,
)
from edge.messages import MOTORS, ArmState, Setpoint
from firmware_bridge.damiao import Special, Status, decode_samples, scales, special_frames, status_name
from firmware_bridge.frames import FRAME_BYTES, Frames
from firmware_bridge.guard import ALLOWED, JointLimits, refusal_text
from policies.interface import JOINTS, Array

TURN_RAD = 2.0 * np.pi
# An arm may stand a little outside its limits at start (zeros set by hand, a sagging stop); further out it is not ours.
START_MARGIN_RAD = 0.15
STALE_NS = 100_000_000


class ControlError(Exception):
    """The control loop cannot do what was asked."""


class ControlLoop:
    """Drives seven motors from setpoints, one call of `step` each control period.

    Args:
        limits: the narrowest of site, arm and bundle.
        zero_offsets_rad: (6,) motor angle where the joint is at zero.
        payload: what the mount carries besides its gripper.
        gravity_factor: (6,) share of the model's gravity to feed forward; the arm's own factors where None.
        friction_share: share of the arm's Coulomb friction to feed forward.
    """

    def __init__(
        self,
        arm: ArmModel,
        limits: JointLimits,
        zero_offsets_rad: Array | None = None,
        payload: Payload | None = None,
        gravity_factor: Array | None = None,
        friction_share: float = 0.0,
    ) -> None:
        self._arm = arm if payload is None else arm.carrying(payload)
        self._zero_rad = np.zeros(MOTORS)
        self._zero_rad[:JOINTS] = 0.0 if zero_offsets_rad is None else zero_offsets_rad
        self._drive = _drive(self._arm, limits, arm.gravity_factor if gravity_factor is None else gravity_factor)
        self._drive["coulomb_nm"][0] = arm.coulomb_nm * friction_share
        self._drive["zero_rad"][0] = self._zero_rad
        self._memory = np.zeros(1, dtype=MEMORY)
        self._started = False

    def probe(self) -> Frames:
        """Return clear-error frames, (7, 16): every motor answers with where it is, disarmed."""
        return special_frames(self._arm.esc_ids, Special.CLEAR_ERROR)

    def start(self, feedback: Frames, now_ns: int = 0) -> Frames:
        """Take the measured pose as the one to hold and return the enable frames, (7, 16).

        A joint whose encoder woke up a turn off is put right where that brings it inside its limits.

        Raises:
            ControlError: a motor did not answer or has latched an error, or a joint stands outside its limits.
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
        drive["zero_rad"][:] = self._zero_rad + _whole_turns(memory["sample"][:, 0] - self._zero_rad, drive)
        memory["position"][:] = (memory["sample"][:, 0] - drive["zero_rad"]) * drive["direction"]
        memory["sampled_ns"] = now_ns
        self._hold_measured()
        self._started = True
        return special_frames(self._arm.esc_ids, Special.ENABLE)

    def step(self, feedback: Frames, now_ns: int) -> Frames:
        """Run one control period on the frames that came since the last, and return the commands, (7, 16).

        Raises:
            ControlError: called before `start`.
        """
        if not self._started:
            raise ControlError("the control loop was not started: probe the motors, then start")
        out = np.empty((MOTORS, FRAME_BYTES), dtype=np.uint8)
        step(feedback, now_ns, self._drive, self._memory, out)
        return out

    def set(self, setpoint: Setpoint, now_ns: int) -> None:
        """Take the next setpoint; one that has expired or that comes while a fault stands changes nothing.

        Raises:
            ControlError: not six joints.
        """
        if setpoint.position_rad.shape != (JOINTS,):
            raise ControlError(f"a setpoint has {JOINTS} joints, this one has shape {setpoint.position_rad.shape}")
        memory = self._memory[0]
        if memory["fault"] != ALLOWED or now_ns > setpoint.expires_ns:
            return
        memory["origin"][:] = memory["admitted"]
        memory["target"][:JOINTS] = setpoint.position_rad
        memory["target"][GRIPPER] = self._arm.gripper.motor_rad(setpoint.gripper_m)
        memory["phase"] = 0
        memory["expires_ns"] = setpoint.expires_ns

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
        memory = self._memory[0]
        fault, motor, value = int(memory["fault"]), int(memory["fault_motor"]), float(memory["fault_value"])
        if fault == ALLOWED:
            return ""
        if fault == MOTOR_SILENT:
            return f"{_name(motor)} has not answered for more than {SILENT_TICKS} control periods"
        if fault == MOTOR_STATUS:
            return f"{_name(motor)} reports {status_name(int(value))}"
        if fault == NOT_ENCODABLE:
            return "a command held a number that is not finite and was not sent"
        return "the guard refused a setpoint: " + refusal_text(fault, motor + 1, value, float(memory["fault_limit"]))

    @property
    def admitted_rad(self) -> Array:
        """The pose that the guard let through last, (6,)."""
        admitted: Array = self._memory["admitted"][0, :JOINTS].copy()
        return admitted

    def clear(self) -> None:
        """Forget the fault and hold the measured pose; a cause that still stands comes back with the next step."""
        self._memory["fault"] = ALLOWED
        self._memory["silent_ticks"] = 0
        self._hold_measured()

    def _hold_measured(self) -> None:
        """Make the measured pose the admitted one.

        Raises:
            ControlError: a joint stands outside its limits.
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
        for name in ("admitted", "origin", "target"):
            memory[name][:] = inside
        memory["expires_ns"] = -1

    def _staleness(self, now_ns: int) -> str:
        age_ns = now_ns - int(self._memory["sampled_ns"][0])
        return "" if age_ns <= STALE_NS else f"the newest measurement is {age_ns / 1e6:.0f} ms old"


def _drive(arm: ArmModel, limits: JointLimits, gravity_factor: Array) -> np.ndarray:
    """Return the kernel's constants, (1,) of DRIVE."""
    drive = np.zeros(1, dtype=DRIVE)
    row, grip = drive[0], arm.gripper
    row["mst_ids"][:], row["esc_ids"][:] = arm.mst_ids, arm.esc_ids
    row["scale"][:] = scales(arm.motor_types)
    for name in ("direction", "kp", "kd"):
        row[name][:] = getattr(arm, name)
    ends = sorted((grip.motor_rad(0.0), grip.motor_rad(grip.stroke_m)))
    row["lower_rad"][:] = [*limits.lower_rad, ends[0]]
    row["upper_rad"][:] = [*limits.upper_rad, ends[1]]
    row["velocity_rad_s"][:] = [*limits.velocity_rad_s, abs(grip.motor_rad(grip.velocity_m_s))]
    row["torque_nm"][:] = [*limits.torque_nm, grip.torque_nm]
    row["gravity_factor"][:] = gravity_factor
    for name in ("joint_pos", "joint_rot", "joint_axis", "link_mass", "link_com"):
        row[name][:] = getattr(arm.chain, name)
    return drive


def _whole_turns(motor_rad: Array, drive: np.void) -> Array:
    """Return the whole turns, (7,) rad, to take from motor angles so that joints come inside their limits."""
    turns = np.zeros(MOTORS)
    for joint in range(JOINTS):
        low, high = drive["lower_rad"][joint] - START_MARGIN_RAD, drive["upper_rad"][joint] + START_MARGIN_RAD
        for turn in (0.0, -TURN_RAD, TURN_RAD):
            if low <= (motor_rad[joint] - turn) * drive["direction"][joint] <= high:
                turns[joint] = turn
                break
    return turns


def _name(motor: int) -> str:
    return "the gripper's motor" if motor == GRIPPER else f"motor {motor + 1}"
