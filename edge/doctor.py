"""Checks in order whether a station's arm can be run, one line each, with what to do where it cannot.

- A check that fails ends the list where the next ones need it; what could not be checked is listed as skipped.
- What `run` would refuse is told in the words of `run`.
- Nothing moves but by the last check, which needs leave: the motors are enabled in gravity compensation for a moment,
  and an arm that sinks or rises tells whose gravity factor is wrong.
- Nothing is written to a motor.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from calibration.records import CalibrationError
from edge.control.kernel import step
from edge.control.loop import ControlError, ControlLoop, loop_of
from edge.control.process import enable, motors_of, open_bus
from edge.control.realtime import PRIORITY
from edge.disk import Rung, Space, disk_space, usage
from edge.doctor_trust import check_trust
from edge.finding import FAILED, OK, SKIPPED, WARNING, Finding
from edge.gym_station.check import check_environment
from edge.messages import MOTORS
from edge.retention import TRIAL_ROOM_MB, outlook_of, reserve_of
from edge.sandbox.process import SandboxError, layers
from edge.station import FILE, Can, Station, StationError, load_station
from firmware_bridge.damiao import (
    MOTOR_TYPES,
    WATCHDOG_TICK_NS,
    Feedback,
    NotFeedback,
    Special,
    decode_feedback,
    special_frames,
)
from firmware_bridge.frames import FRAME_BYTES, BridgeError, CanBus, no_frames
from firmware_bridge.inspection import MotorExpectation, MotorReport, inspect_motor
from firmware_bridge.registers import Register, refresh_request
from policies.cage.layers import unmet
from policies.interface import JOINTS, Array

WARM_C = 60
STILL_RAD = 0.005  # the encoder's noise is a step or two of 0.0004
SAG_S, SAG_RAD = 1.0, 0.05
READINGS = 5
CHECK_HZ = 240.0
COMMITS = 20


class Patient(Protocol):
    """An arm's bus, and the time that passes on it."""

    bus: CanBus

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def now_ns(self) -> int:
        """Return the arm's time."""
        ...


class RealArm:
    """A patient on the real clock."""

    def __init__(self, bus: CanBus) -> None:
        self.bus = bus

    def wait(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def now_ns(self) -> int:
        """Return the monotonic time."""
        return time.monotonic_ns()


def examine(
    folder: Path,
    confirm_motion: bool,
    emulated: Callable[[Station], Patient] | None = None,
    space: Callable[[Path], Space] = disk_space,
) -> Iterator[Finding]:
    """Yield the finding of each check in order.

    Args:
        emulated: makes the patient of a station without a real arm.
        space: measures the disk.
    """
    try:
        station = load_station(folder)
    except (StationError, CalibrationError) as error:
        yield Finding("station files", FAILED, str(error))
        return
    what = station.arm.name if station.gym is None else station.gym.environment
    yield Finding("station files", OK, f"{station.name}: {what}, task {station.task}")
    yield from _copied(station)
    yield _disk(station, space(folder))
    yield from _limits()
    yield from _cage()
    yield from check_trust(station, time.time())
    if station.gym is not None:
        yield from check_environment(station.gym)
        return
    try:
        patient = emulated(station) if emulated is not None else RealArm(open_bus(_can(station)))
    except BridgeError as error:
        detail, _, remedy = str(error).partition("; ")
        yield Finding("port", FAILED, detail, remedy)
        yield Finding("motors", SKIPPED, "the port cannot be used")
        return
    yield Finding("port", OK, "emulated motors" if emulated is not None else f"{_can(station).port} is open")
    try:
        yield from _motors(station, patient, confirm_motion)
    except BridgeError as error:
        yield Finding("bus", FAILED, str(error), "check power and emergency stop, cable and termination")


def _cage() -> Iterator[Finding]:
    """Which layers of a policy's cage this machine can enforce."""
    try:
        found = layers()
    except SandboxError as error:
        yield Finding("policy cage", FAILED, str(error), "policies cannot be run here")
        return
    missing = unmet(found)
    if missing:
        yield Finding("policy cage", FAILED, missing, "policies are not run on this machine")
    for layer in found:
        remedy = "" if layer.enforced else "the other layers stand; see that the kernel allows this one"
        yield Finding(f"policy cage: {layer.name}", OK if layer.enforced else WARNING, layer.why, remedy)


def _can(station: Station) -> Can:
    assert station.can is not None
    return station.can


def _copied(station: Station) -> Iterator[Finding]:
    """Say what shows that the folder is a copy of another station's, with what is that one's alone."""
    here = station.folder.resolve()
    owner, key = _ledger_owner(here), _bytes_of(here / "edge.key")
    if owner and owner != station.name:
        remedy = "once the other has sent its trials, take ledger.db*, edge.key and recordings out of this folder"
        yield Finding("identity", FAILED, f"the ledger here belongs to {owner}, not to {station.name}", remedy)
        key = b""  # said already
    for other in sorted(path.parent for path in here.parent.glob(f"*/{FILE}") if path.parent != here):
        if key and key == _bytes_of(other / "edge.key"):
            remedy = "in the copy, take edge.key and ledger.db* away: it gets its own at its next start"
            yield Finding("identity", WARNING, f"{other} has the same key: one is a copy of the other", remedy)
        elif _name_in(other / FILE) == station.name:
            remedy = "give one of them another `name`: the coordinator and /dev/shm know a station by it"
            yield Finding("identity", WARNING, f"{other} is named {station.name} too", remedy)
    if station.can is not None and station.calibration.residual_px == 0.0:
        remedy = "calibrate this arm and its camera, and write what was measured"
        yield Finding("calibration", WARNING, "a residual of 0 px is an emulated bench's: not measured here", remedy)


def _ledger_owner(folder: Path) -> str:
    """Return whose ledger lies in an absolute folder, empty where none can be read."""
    try:
        db = sqlite3.connect(f"{(folder / 'ledger.db').as_uri()}?mode=ro", uri=True)
        try:
            return str(db.execute("SELECT edge FROM identity").fetchone()[0])
        finally:
            db.close()
    except sqlite3.Error:
        return ""


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _name_in(path: Path) -> object:
    try:
        return tomllib.loads(path.read_text()).get("name")
    except (OSError, ValueError):
        return None


def _disk(station: Station, space: Space) -> Finding:
    """Say what the disk allows, for how long, and how fast it takes what must not be lost."""
    spent = usage(station.folder / "recordings")
    outlook = outlook_of(station, space, reserve_of(station), TRIAL_ROOM_MB, spent)
    if outlook.rung is Rung.PARKED:  # the last bytes are for the station, not for a measurement
        return Finding("disk", FAILED, outlook.finding, outlook.remedy)
    outcome = OK if outlook.rung is Rung.FULL else WARNING
    return Finding("disk", outcome, f"{outlook.finding}; {_commit_rate(station.folder)}", outlook.remedy)


def _commit_rate(folder: Path) -> str:
    """Return how many small commits a second are on the disk of `folder` for good, one after the other."""
    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=folder) as scratch:
            db = sqlite3.connect(Path(scratch, "commits.db"), isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute("CREATE TABLE trials (body BLOB)")
                began_s = time.perf_counter()
                for _ in range(COMMITS):
                    db.execute("INSERT INTO trials VALUES (zeroblob(2000))")
                took_s = time.perf_counter() - began_s
            finally:
                db.close()
    except (OSError, sqlite3.Error) as error:
        return f"commits cannot be tried there ({error})"
    return f"{COMMITS / took_s:.0f} commits a second"


def _limits() -> Iterator[Finding]:
    priority = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    unlimited = priority == resource.RLIM_INFINITY or os.geteuid() == 0
    yield (
        Finding("real-time limits", OK, "real-time scheduling is allowed")
        if unlimited or priority >= PRIORITY
        else Finding(
            "real-time limits", WARNING, "no real-time scheduling: periods may begin milliseconds late",
            "`LimitRTPRIO=90` in the service, or `rtprio 90` in /etc/security/limits.conf",
        )
    )  # fmt: skip
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    yield (
        Finding("memory lock", OK, "memory may be locked")
        if locked == resource.RLIM_INFINITY or os.geteuid() == 0
        else Finding(
            "memory lock", WARNING, f"only {locked // 1024} KiB may be locked: a page fault may delay a period",
            "`LimitMEMLOCK=infinity` in the service, or `memlock unlimited` in /etc/security/limits.conf",
        )
    )  # fmt: skip


def _motors(station: Station, patient: Patient, confirm_motion: bool) -> Iterator[Finding]:
    """Check every motor, then the arm as a whole."""
    wanted = motors_of(station)
    reports = [inspect_motor(patient.bus, each, lambda: patient.wait(0.002)) for each in wanted]
    if not any(report.values for report in reports):
        remedy = "check power and emergency stop, cable, termination (two times 120 ohm), and the motors' own bitrate"
        yield Finding("bitrate", FAILED, "no motor answers", remedy)
        return
    yield Finding("bitrate", OK, f"{sum(bool(report.values) for report in reports)} of {MOTORS} motors answer")
    for report in reports:
        yield from _motor(report)
    feedback = read_feedback(patient, wanted)
    yield from _temperatures(feedback)
    yield from _encoders(station, patient, wanted)
    if any(report.findings for report in reports):
        yield Finding("gravity", SKIPPED, "the motors must be right first")
    elif not confirm_motion:
        yield Finding(
            "gravity", SKIPPED, "the arm would be enabled for a second", "clear its space and add --confirm-motion"
        )
    else:
        yield sag_test(station, patient)


def _motor(report: MotorReport) -> Iterator[Finding]:
    motor, values = report.expectation, report.values
    for finding in report.findings:
        detail, _, remedy = finding.removeprefix(f"{motor.name}: ").partition(": ")
        yield Finding(motor.name, FAILED, detail, remedy)
    if not report.findings:
        gear = MOTOR_TYPES[motor.motor_type].gear_ratio
        watchdog_ms = values[Register.TIMEOUT] * WATCHDOG_TICK_NS / 1e6
        part = f"gear {values[Register.GR]:g}" if gear is not None else "part unknown by gear"
        yield Finding(motor.name, OK, f"{part}, scales as expected, MIT mode, watchdog {watchdog_ms:.0f} ms")


def read_feedback(patient: Patient, wanted: tuple[MotorExpectation, ...]) -> dict[int, Feedback]:
    """Return the feedback of each motor, by its number, that answers a question about its state; nothing moves."""
    patient.bus.receive()
    patient.bus.send(np.stack([refresh_request(each.esc_id) for each in wanted]))
    patient.wait(0.02)
    found: dict[int, Feedback] = {}
    for row in patient.bus.receive():
        for each in wanted:
            try:
                found[each.number] = decode_feedback(MOTOR_TYPES[each.motor_type], each.esc_id, each.mst_id, row)
            except NotFeedback:
                continue
    return found


def _temperatures(feedback: dict[int, Feedback]) -> Iterator[Finding]:
    hottest = max(feedback.items(), key=lambda item: max(item[1].coil_c, item[1].mosfet_c), default=None)
    if hottest is None:
        yield Finding("temperatures", FAILED, "no motor tells its state", "switch the arm off and on")
        return
    number, worst = hottest
    celsius = max(worst.coil_c, worst.mosfet_c)
    remedy = "" if celsius < WARM_C else "let the arm cool in its rest pose; torque is derated from 75 C"
    yield Finding(
        "temperatures", OK if celsius < WARM_C else WARNING, f"hottest is motor {number}, {celsius} C", remedy
    )


def _encoders(station: Station, patient: Patient, wanted: tuple[MotorExpectation, ...]) -> Iterator[Finding]:
    """Read the joints some times: they must stand still, and inside their limits."""
    readings = []
    for _ in range(READINGS):
        feedback = read_feedback(patient, wanted)
        if len(feedback) < MOTORS:
            yield Finding("encoders", FAILED, f"only {len(feedback)} of {MOTORS} motors answered", "check the bus")
            return
        readings.append([feedback[each.number].position_rad for each in wanted])
    spread_rad = np.ptp(np.array(readings), axis=0)[:JOINTS]
    if not (spread_rad <= STILL_RAD).all():
        joint = int(np.argmax(spread_rad))
        remedy = "hold the arm still and check again; if it does, the encoder is at fault"
        yield Finding("encoders", WARNING, f"joint {joint + 1} moves by {spread_rad[joint]:.3f} rad", remedy)
        return
    try:
        joints_rad = _measured(loop_of(station, CHECK_HZ), patient)
    except ControlError as error:
        yield Finding("encoders", FAILED, str(error))
        return
    yield Finding("encoders", OK, "joints at " + ", ".join(f"{value:.2f}" for value in joints_rad) + " rad")


def _measured(loop: ControlLoop, patient: Patient) -> Array:
    """Return where the joints stand, turns and zeros taken off; the enable frames are thrown away.

    Raises:
        ControlError: a motor is silent or a joint stands outside its limits.
    """
    patient.bus.receive()
    patient.bus.send(loop.probe())
    patient.wait(0.02)
    loop.start(patient.bus.receive(), patient.now_ns())
    return loop.admitted_rad


def sag_test(station: Station, patient: Patient) -> Finding:
    """Hold the arm by gravity compensation alone for a second and say how far it sank or rose."""
    loop = loop_of(station, CHECK_HZ)
    loop.stay_limp()
    # Compiled now: enabled motors wait for 0.4 s only.
    drives, bodies, memories = (record.copy() for record in loop.records)
    step(no_frames(), 0, drives, bodies, memories, np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8))
    try:
        enable(loop, patient.bus, lambda: patient.wait(0.05), patient.now_ns())
        begin = loop.admitted_rad
        for _ in range(round(SAG_S * CHECK_HZ)):
            patient.wait(1.0 / CHECK_HZ)
            patient.bus.send(loop.step(patient.bus.receive(), patient.now_ns()))
        moved_rad = loop.state(patient.now_ns()).position_rad - begin
        fault = loop.fault
    except (BridgeError, ControlError) as error:
        return Finding("gravity", FAILED, str(error))
    finally:
        with suppress(BridgeError):
            patient.bus.send(special_frames(station.arm.esc_ids, Special.DISABLE))
    if fault:
        return Finding("gravity", FAILED, fault)
    joint = int(np.argmax(np.abs(moved_rad)))
    detail = f"joint {joint + 1} moved most, {moved_rad[joint]:+.3f} rad in {SAG_S:g} s without stiffness"
    if abs(moved_rad[joint]) <= SAG_RAD:
        return Finding("gravity", OK, detail)
    remedy = f"correct gravity_factor of joint {joint + 1} in calibration.toml, or the tool's mass in station.toml"
    return Finding("gravity", WARNING, detail, remedy)
