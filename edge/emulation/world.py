"""One emulated bench: physics, motors on their bus, and a camera, advanced in lock-step by whoever owns the clock.

The only way in is CAN frames, the only ways out are feedback frames and pictures. Simulator truth is read by
`truth` alone, which the benches use to check the judge and nothing else may.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.emulation.hidden import Hidden, draw
from edge.emulation.mjcf import build
from edge.emulation.pin_insertion import PinSetting
from edge.emulation.push_t import PushTSetting
from edge.emulation.setting import Setting, Truth
from edge.emulation.surfaces import PHYSICS_DT_S
from edge.messages import CONTROL_HZ, MOTORS
from edge.station import Station, StationError
from firmware_bridge.fault_script import FaultScript
from firmware_bridge.faults import FaultyBus, MotorFaults
from firmware_bridge.frames import CanBus
from firmware_bridge.motors import EmulatedBus, MotorBank
from policies.interface import Array

Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]
GRIPPER = MOTORS - 1
STEPS_PER_TICK = round(1.0 / (CONTROL_HZ * PHYSICS_DT_S))
TICK_NS = round(1e9 / CONTROL_HZ)
# A motor that is not enabled shorts its windings. How hard that brakes is our estimate; no source gives it.
SHORTED_DAMPING = 2.0
BLOCKED_DAMPING = 1e5  # N m s/rad, N s/m at the jaw: a shaft that is blocked creeps less than an encoder step a second
STOWED_RAD = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])  # tool down, clear of the camera
SETTINGS: dict[str, type[PushTSetting] | type[PinSetting]] = {"push_t": PushTSetting, "pin_insertion": PinSetting}
NOISE_SAMPLES = 1 << 21  # drawn once: drawing a picture's worth each time costs more than rendering it


class NoGraphics(Exception):
    """The camera cannot be rendered here; the message names the package to install."""


class World:
    """Physics, motors and camera of one station, with what `faults` lets go wrong in them."""

    def __init__(self, station: Station, seed: int, faults: FaultScript | None = None) -> None:
        self.hidden = draw(seed)
        self.setting = _setting(station, self.hidden, seed)
        self.model = build(station, self.hidden, self.setting)
        self.data = mujoco.MjData(self.model)
        self._rng = np.random.default_rng([seed, 0x5EED])
        self._noise = self._rng.normal(0.0, self.hidden.pixel_noise, NOISE_SAMPLES).round().astype(np.int16)
        names = [f"joint{i}" for i in range(1, MOTORS + 1)]
        self._q = np.array([self.model.joint(name).qposadr[0] for name in names])
        self._dq = np.array([self.model.joint(name).dofadr[0] for name in names])
        self._bias_rad = np.append(self.hidden.zero_bias_rad, 0.0)
        arm = station.arm
        self._gear = np.append(np.ones(6), 2 * arm.gripper.rad_per_m)  # the jaw opens by both slides
        self.bank = MotorBank(arm.motor_types, arm.esc_ids, arm.mst_ids)
        self.bus: CanBus = EmulatedBus(self.bank, self._shafts, lambda: self.now_ns)
        self.ticks = 0
        self._faults = faults
        if faults is not None:
            self.bus = FaultyBus(self.bus, faults, lambda: self.now_ns, arm.esc_ids, arm.mst_ids)
            self._motor_faults = MotorFaults(self.bank, faults)
            self._free_damping = self.model.dof_damping[self._dq].copy()
        self._programs = np.zeros((self.hidden.latency_ticks + 1, MOTORS, 3))  # a ring: motor laws, newest and before
        self._renderer: mujoco.Renderer | None = None
        self.data.qpos[self._q[:6]] = STOWED_RAD
        self.setting.begin(self.model, self.data, self._rng)
        self._go_wrong()

    @property
    def now_ns(self) -> int:
        """Simulated time."""
        return self.ticks * TICK_NS

    def tick(self) -> None:
        """Let one control period pass."""
        self.bank.tick(self.now_ns)
        self._program_actuators()
        mujoco.mj_step(self.model, self.data, STEPS_PER_TICK)
        self.ticks += 1
        self.setting.tick()
        self._go_wrong()

    def picture(self) -> NDArray[np.uint8]:
        """Return what the top camera sees now, (height, width, 3) red, green, blue."""
        if self._renderer is None:
            self._renderer = _renderer(self.model)
        self._renderer.update_scene(self.data, camera="top")
        clean = self._renderer.render()
        start = int(self._rng.integers(0, NOISE_SAMPLES // 2))
        noise = self._noise[start : start + clean.size].reshape(clean.shape)
        noisy: NDArray[np.uint8] = np.clip(clean + noise, 0, 255).astype(np.uint8)
        return noisy

    def place_tee(self, pose: Truth) -> None:
        """Put the T down: the emulator's first placement, before anything is measured."""
        self.setting.place(pose)

    def truth(self) -> Truth:
        """Return how the task really stands; for measuring the judge, never for judging."""
        return self.setting.truth()

    def close(self) -> None:
        """Free the graphics context, which complains when it is left to the interpreter's end."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _shafts(self) -> tuple[Array, Array, Array]:
        position, velocity = np.empty(MOTORS), np.empty(MOTORS)
        _read_shafts(self.data.qpos, self.data.qvel, self._q, self._dq, self._gear, self._bias_rad, position, velocity)
        return position, velocity, self.data.actuator_force.copy()

    def _go_wrong(self) -> None:
        """Let the script's faults of motors and shafts act."""
        if self._faults is None:
            return
        self._motor_faults.act(self.now_ns)
        blocked = self._faults.blocked(self.now_ns)
        self.model.dof_damping[self._dq] = np.where(blocked, BLOCKED_DAMPING, self._free_damping)
        if self._faults.slipping(self.now_ns) and self.bank.kp[GRIPPER] > 0.0:
            # The motor meets no resistance and stands where it is told to.
            self._bias_rad[GRIPPER] += self.bank.p_des[GRIPPER] - self._shafts()[0][GRIPPER]

    def _program_actuators(self) -> None:
        """Give each actuator the law of its motor, as it was commanded `latency_ticks` ago."""
        bank, length = self.bank, len(self._programs)
        newest = self._programs[self.ticks % length]
        _write_laws(bank.tau_ff, bank.kp, bank.kd, bank.p_des, bank.v_des, bank.enabled, self._bias_rad, newest)
        oldest = self._programs[max(0, self.ticks - length + 1) % length]
        self.model.actuator_biasprm[:, :3] = oldest
        if self._faults is not None and self._faults.slipping(self.now_ns):
            self.model.actuator_biasprm[GRIPPER, :3] = 0.0  # the jaw feels nothing of its motor


def _setting(station: Station, hidden: Hidden, seed: int) -> Setting:
    """Return the things of the station's task.

    Raises:
        StationError: there is no emulated bench for that task.
    """
    if station.task not in SETTINGS:
        raise StationError(f"no emulated bench for task {station.task!r}; known: {', '.join(SETTINGS)}")
    return SETTINGS[station.task](hidden, seed)


@njit(cache=True)
def _read_shafts(
    qpos: Array, qvel: Array, q: Indices, dq: Indices, gear: Array, bias_rad: Array, position: Array, velocity: Array
) -> None:
    """Write what the motors' encoders say, (7,) each."""
    for motor in range(MOTORS):
        position[motor] = qpos[q[motor]] * gear[motor] + bias_rad[motor]
        velocity[motor] = qvel[dq[motor]] * gear[motor]


@njit(cache=True)
def _write_laws(
    tau_ff: Array, kp: Array, kd: Array, p_des: Array, v_des: Array, enabled: Flags, bias_rad: Array, laws: Array
) -> None:
    """Write each motor's torque as constant, share of angle and share of speed into `laws` (7, 3)."""
    for motor in range(MOTORS):
        laws[motor, 0] = tau_ff[motor] + kp[motor] * (p_des[motor] - bias_rad[motor]) + kd[motor] * v_des[motor]
        laws[motor, 1] = -kp[motor]
        laws[motor, 2] = -kd[motor] if enabled[motor] else -SHORTED_DAMPING


def _renderer(model: mujoco.MjModel) -> mujoco.Renderer:
    width, height = model.vis.global_.offwidth, model.vis.global_.offheight
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:
        raise NoGraphics(
            "cannot render the camera: no EGL found; on Debian and Ubuntu install libegl1 and libgl1-mesa-dri"
        ) from error
