"""Every fault that motors, bus and clients can have ends in the safe state that the table names, whenever it comes.

Real bytes to emulated motors on ideal shafts, in simulated time; every command on the wire is decoded and must keep the
arm's limits. Each row is run at twenty random times.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest

from edge.arm import load_arm
from edge.control.kernel import DAMP, FOLLOW, HOLD, MOTOR_SILENT, MOTOR_STATUS, OVERHEATED, STRAYED
from edge.control.loop import ControlError, ControlLoop
from edge.messages import LONGEST_LIFE_NS, Setpoint
from firmware_bridge import slcan
from firmware_bridge.damiao import Special, Status, decode_command, scales, special_frames
from firmware_bridge.fault_script import FaultScript
from firmware_bridge.faults import FaultyBus, MotorFaults
from firmware_bridge.frames import FRAME_BYTES, BusFull, BusGone, BusOff, Frames, no_frames
from firmware_bridge.guard import ALLOWED
from firmware_bridge.inspection import MotorRefused, expectations, inspect_arm
from firmware_bridge.motors import EmulatedBus, MotorBank

ARM = load_arm()
SCALE = scales(ARM.motor_types)
HOME = np.array([0.0, 1.75, 1.1, -0.93, 0.1, 0.2])
TICK_NS = 4_166_667
HOLD_NS = 100_000_000
WATCHDOG_NS = 400_000_000
LATEST_NS = 2_000_000_000  # of what shows only as the arm moves
TIMES = 20
FASTEST_RAD = 20.0 / 240  # what a shaft turns in one period at the most
RUN_TICKS = 600  # after the ramp
RUNS, HOLDS, DAMPS, STOWS, REFUSED = "runs on", "holds", "damps", "stows, then damps", "refuses to start"


@dataclass(frozen=True)
class Row:
    """A fault, written as its script or as what the client does, and the safe state that must follow."""

    name: str
    state: str
    fault: str = ""
    client: str = ""  # "dies": no setpoint more; "hangs": the same setpoint for ever
    at_start: bool = False
    within_ns: int = LATEST_NS  # from the fault to the safe state
    because: int = ALLOWED  # what the arm says of it


def motor_rows(name: str, state: str, fault: str, **more: object) -> Row:
    return Row(name, state, f'kind = "{fault}"' if " = " not in fault else fault, **more)  # type: ignore[arg-type]


def silent_rows(name: str, fault: str) -> Row:
    """A motor that is not heard of for 0.1 s."""
    return motor_rows(name, DAMPS, fault, within_ns=HOLD_NS, because=MOTOR_SILENT)


TABLE = [
    Row("the client dies", HOLDS, client="dies", within_ns=HOLD_NS),
    Row("the policy hangs", HOLDS, client="hangs", within_ns=HOLD_NS),
    motor_rows("a third of the answers is lost", RUNS, 'kind = "drop"\nprobability = 0.33'),
    motor_rows("no answer for 90 ms", RUNS, 'kind = "drop"\nfor_s = 0.09'),
    silent_rows("no answer from one motor", 'kind = "drop"\nmotor = {motor}'),
    silent_rows("no answer at all", "drop"),
    motor_rows("answers come twice", RUNS, "duplicate"),
    motor_rows("answers come 10 ms late", RUNS, 'kind = "late"\ndelay_s = 0.01'),
    silent_rows("answers come 1 s late", 'kind = "late"\ndelay_s = 1.0'),
    motor_rows("an encoder freezes in motion", DAMPS, 'kind = "stale"\nmotor = 1', because=STRAYED),
    silent_rows("answers on another identifier", 'kind = "wrong_id"\nmotor = {motor}'),
    silent_rows("answers in another motor's name", 'kind = "wrong_nibble"\nmotor = {motor}'),
    silent_rows("answers too short", 'kind = "short"\nmotor = {motor}'),
    motor_rows("error frames", RUNS, "error_frame"),
    silent_rows("commands to one motor are lost", 'kind = "watchdog"\nmotor = {motor}'),
    silent_rows("the controller leaves the bus", "bus_off"),
    silent_rows("the adapter is unplugged", "unplug"),
    motor_rows("the queue is full for 50 ms", RUNS, 'kind = "full"\nfor_s = 0.05'),
    silent_rows("the queue stays full", "full"),
    *(
        motor_rows(
            f"status {status:#x}", DAMPS, f'kind = "status"\nmotor = {{motor}}\nstatus = {status}', because=MOTOR_STATUS
        )
        for status in (*(each.value for each in Status if each is not Status.ENABLED), 0x5)
    ),
    motor_rows(
        "a coil warms up to 98 C",
        STOWS,
        'kind = "over_temperature"\nmotor = {motor}\nc_per_s = 64.0\nfor_s = 1.03',
        within_ns=10**10,
        because=OVERHEATED,
    ),
    motor_rows("an encoder jumps by a turn", DAMPS, 'kind = "boot_offset"\nmotor = {joint}', because=STRAYED),
    motor_rows("an encoder woke up a turn off", RUNS, 'kind = "boot_offset"\nmotor = {joint}', at_start=True),
    motor_rows("a joint is blocked", DAMPS, 'kind = "stall"\nmotor = 1', because=STRAYED),
    motor_rows("the jaw is blocked", RUNS, 'kind = "stall"\nmotor = 7'),
    motor_rows("the jaw slips", RUNS, "slip"),
    motor_rows("garbage between serial frames", RUNS, 'kind = "serial_garbage"\nprobability = 0.2'),
    motor_rows("serial frames in pieces", RUNS, 'kind = "split"'),
    motor_rows("a wrong scale", REFUSED, 'kind = "wrong_scale"\nmotor = {motor}', at_start=True),
    motor_rows("a wrong torque scale", REFUSED, 'kind = "wrong_scale"\nregister = "TMAX"\nfactor = 2.8', at_start=True),
    motor_rows("a wrong control mode", REFUSED, 'kind = "wrong_mode"\nmotor = {motor}', at_start=True),
    motor_rows("a wrong part", REFUSED, 'kind = "wrong_part"\nmotor = {motor}', at_start=True),
    motor_rows("a register never written", REFUSED, 'kind = "nan_register"\nmotor = {motor}', at_start=True),
    motor_rows("the watchdog is off", REFUSED, 'kind = "watchdog_off"\nmotor = {motor}', at_start=True),
    motor_rows("a motor does not answer at start", REFUSED, 'kind = "drop"\nmotor = {motor}', at_start=True),
]


class Rig:
    """One arm on emulated motors with a script of faults, its loop, and a client that waves the arm to and fro."""

    def __init__(self, script: FaultScript, fault_ns: int, client: str) -> None:
        self.now_ns, self.fault_ns, self.client, self.script = 0, fault_ns, client, script
        self.bank = MotorBank(ARM.motor_types, ARM.esc_ids, ARM.mst_ids)
        self.shafts, self.jaw_told = np.array([*HOME, ARM.gripper.motor_rad(0.02)]), 0.0
        bus = EmulatedBus(self.bank, lambda: (self.shafts, np.zeros(7), np.zeros(7)), lambda: self.now_ns)
        self.bus = FaultyBus(bus, script, lambda: self.now_ns)
        self.faults = MotorFaults(self.bank, script)
        self.faults.act(0)
        self.loop = ControlLoop(ARM, ARM.limits)
        self.tail = b""
        self.poses: list[np.ndarray] = []
        self.velocities: list[np.ndarray] = []
        self.setpoint: Setpoint | None = None

    def start(self) -> None:
        inspect_arm(self.bus, expectations(ARM.motor_types, ARM.esc_ids, ARM.mst_ids), lambda: None)
        self.bus.send(self.loop.probe())
        self.bus.send(self.loop.start(self.bus.receive(), self.now_ns))

    def tick(self) -> None:
        self.now_ns += TICK_NS
        self.faults.act(self.now_ns)
        self.bank.tick(self.now_ns)
        self.ask()
        commands = self.loop.step(self.serial(self.receive()), self.now_ns)
        self.check(commands)
        with suppress(BusFull, BusOff, BusGone):
            self.bus.send(commands)
        free = (self.bank.kp > 0) & ~self.script.blocked(self.now_ns)
        way_rad = np.clip(self.bank.p_des - self.shafts, -FASTEST_RAD, FASTEST_RAD)
        self.shafts[free] += way_rad[free]

    def receive(self) -> Frames:
        try:
            return self.bus.receive()
        except (BusOff, BusGone):
            return no_frames()

    def serial(self, frames: Frames) -> Frames:
        """Take the frames over a serial line where the script has faults for one."""
        if not any(fault.kind in ("serial_garbage", "split") for fault in self.script.faults):
            return frames
        line = np.zeros(4096, dtype=np.uint8)
        written = slcan.encode(frames, line)
        out, found = np.zeros((64, FRAME_BYTES), dtype=np.uint8), []
        for piece in self.script.garble(line[:written].tobytes(), self.now_ns):
            self.tail += piece
            room = np.frombuffer(self.tail.ljust(4096, b"\0"), dtype=np.uint8).copy()
            count, consumed, _, _ = slcan.decode(room, len(self.tail), out)
            self.tail = self.tail[consumed:]
            found.append(out[:count].copy())
        return np.concatenate(found) if found else no_frames()

    def ask(self) -> None:
        """Send a setpoint every 1/30 s, unless the client is dead or hangs."""
        tick = round(self.now_ns / TICK_NS)
        if tick % 8:
            return
        gone = self.client and self.now_ns >= self.fault_ns
        if not gone:
            wave = 0.6 * np.sin(self.now_ns * 1e-9 * 3.0) * np.array([1.0, 0.2, 0.2, 0.3, 0.5, 0.5])
            self.setpoint = Setpoint(HOME + wave, 0.05, self.now_ns + LONGEST_LIFE_NS)
        if self.setpoint is not None and (not gone or self.client == "hangs"):
            self.loop.set(self.setpoint, self.now_ns)

    def check(self, commands: Frames) -> None:
        """Every command keeps the arm's limits, as the bytes say it: a field is one step coarse."""
        drive, memory = self.loop.records[0][0], self.loop.records[2][0]
        rows = np.zeros((7, 5))
        for motor in range(7):
            decode_command(commands[motor], SCALE[motor], rows[motor])
        step_rad, step_nm = 2 * SCALE[:, 0] / 65535, 2 * SCALE[:, 2] / 4095
        pose = (rows[:, 0] - drive["zero_rad"]) * drive["direction"]
        assert (pose[:6] >= ARM.limits.lower_rad - step_rad[:6]).all()
        assert (pose[:6] <= ARM.limits.upper_rad + step_rad[:6]).all()
        assert (np.abs(rows[:6, 4]) <= ARM.limits.torque_nm + step_nm[:6]).all()
        admitted, velocity = memory["admitted"].copy(), memory["admitted_velocity"].copy()
        if self.poses and memory["mode"] != DAMP:
            moved = np.abs(admitted - self.poses[-1])[:6] * 240
            assert (moved <= ARM.limits.velocity_rad_s * (1 + 1e-6)).all()
            changed = np.abs(velocity - self.velocities[-1])[:6] * 240
            assert (changed <= ARM.limits.acceleration_rad_s2 * (1 + 1e-6)).all()
            assert np.abs(pose - admitted)[:6].max() <= step_rad.max()
        self.poses.append(admitted)
        self.velocities.append(velocity)

    @property
    def mode(self) -> int:
        return int(self.loop.records[2]["mode"][0])


def script_of(row: Row, rng: np.random.Generator, at_s: float) -> FaultScript:
    if not row.fault:
        return FaultScript()
    text = row.fault.format(motor=int(rng.integers(1, 8)), joint=int(rng.integers(1, 7)))
    return FaultScript.parse(
        f"seed = {int(rng.integers(1000))}\n[[fault]]\n{text}\nat_s = {0.0 if row.at_start else at_s}\n"
    )


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_fault_ends_in_its_safe_state(row: Row) -> None:
    rng = np.random.default_rng([TABLE.index(row), 20])
    for _ in range(TIMES):
        at_s = float(rng.uniform(0.6, 1.6))
        rig = Rig(script_of(row, rng, at_s), round(at_s * 1e9), row.client)
        if row.state == REFUSED:
            with pytest.raises((MotorRefused, ControlError)):
                rig.start()
            assert not rig.bank.enabled.any()
            continue
        rig.start()
        while not row.at_start and rig.now_ns + TICK_NS < rig.fault_ns:
            rig.tick()
        assert row.at_start or follows(rig)  # it was well until then
        reached = run(rig, row)
        assert reached is not None, rig.loop.fault
        assert rig.loop.records[2]["fault"][0] == row.because, rig.loop.fault
        assert row.state == RUNS or 0 <= reached - rig.fault_ns <= row.within_ns + TICK_NS


def run(rig: Rig, row: Row) -> int | None:
    """Run to the end and return when the safe state was reached for good, None if never."""
    reached: int | None = None
    for _ in range(RUN_TICKS + (1500 if row.state == STOWS else 0)):
        rig.tick()
        if not AT[row.state](rig):
            reached = None
        elif reached is None:
            reached = rig.now_ns
    return reached


def follows(rig: Rig) -> bool:
    return rig.mode == FOLLOW and rig.loop.fault == ""


def stands(rig: Rig) -> bool:
    moving = len(rig.poses) > 1 and not np.array_equal(rig.poses[-1], rig.poses[-2])
    return not moving and rig.mode in (FOLLOW, HOLD) and bool(rig.bank.kp.all())


def is_damped(rig: Rig) -> bool:
    return rig.mode == DAMP and rig.loop.fault != ""


def is_stowed(rig: Rig) -> bool:
    return is_damped(rig) and bool(np.allclose(rig.poses[-1][:6], ARM.rest_rad, atol=2e-3))


AT: dict[str, Callable[[Rig], bool]] = {RUNS: follows, HOLDS: stands, DAMPS: is_damped, STOWS: is_stowed}


@pytest.mark.parametrize("kind", ["bus_off", "unplug", "full"])
def test_motors_that_hear_nothing_damp_themselves_within_their_watchdog(kind: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(TIMES):
        at_s = float(rng.uniform(0.6, 1.6))
        rig = Rig(FaultScript.parse(f'[[fault]]\nkind = "{kind}"\nat_s = {at_s}\n'), round(at_s * 1e9), "")
        rig.start()
        while rig.bank.enabled.any():
            rig.tick()
        assert rig.now_ns - rig.fault_ns <= WATCHDOG_NS + TICK_NS
        assert (rig.bank.status == Status.COMMUNICATION_LOST).all()
        assert not rig.bank.kp.any()


def test_after_a_fault_the_arm_wakes_in_gravity_compensation_where_it_is() -> None:
    rig = Rig(FaultScript.parse('[[fault]]\nkind = "status"\nmotor = 2\nat_s = 1.0\nfor_s = 0.1\n'), 10**9, "")
    rig.start()
    for _ in range(400):
        rig.tick()
    assert is_damped(rig)
    rig.shafts[:6] += 0.1  # it sank
    rig.bus.send(special_frames(ARM.esc_ids, Special.CLEAR_ERROR))
    rig.poses.clear()
    rig.start()
    rig.tick()
    assert (rig.bank.kp < 1.0).all()
    assert (rig.bank.kd > 0.4).all()
    np.testing.assert_allclose(rig.bank.p_des[:6], rig.shafts[:6], atol=1e-3)
