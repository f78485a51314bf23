"""Asks every motor what it is and how it is set, before the arm is enabled; what does not fit is refused, never mended.

- Nothing is written and nothing is saved: a host that rescales or repairs hides a wrong part.
- A wrong scale raises no error on the bus; it only falsifies every command and every reading. So the three ranges must
  be equal to those of the motor type, and a NaN is equal to nothing.
- Every finding is one sentence: which motor, what was read, what is expected, what to do.
- Answers of other motors and to other questions are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from firmware_bridge.damiao import MOTOR_TYPES, WATCHDOG_TICK_NS, WATCHDOG_TICKS, Floats, Mode, scales
from firmware_bridge.frames import BridgeError, CanBus
from firmware_bridge.registers import (
    UNWRITTEN,
    NotRegisterReply,
    Op,
    Register,
    decode_reply,
    is_unwritten,
    read_request,
)

Wait = Callable[[], object]  # lets a moment pass in which an answer may come
Finding = str

TRIES = 5
WAITS = 20  # for one answer
SCALE_TOLERANCE = 1e-6  # relative; a float32 is good to 6e-8
COIL_LIMITS_C = (100.0, 200.0)  # above where control derates and stows; the firmware takes less than 200 as OT_Value
TURN_RAD = 2.0 * math.pi
INSPECTED = (
    Register.ESC_ID,
    Register.MST_ID,
    Register.CTRL_MODE,
    Register.TIMEOUT,
    Register.GR,
    Register.PMAX,
    Register.VMAX,
    Register.TMAX,
    Register.OT_VALUE,
    Register.SW_VER,
)
SET_UP = "set it with the motor maker's tool, save, switch the motor off and on, and inspect again"
ANOTHER_PART = "another motor is fitted: fit the right one, or name this one in the arm's file"


class RegisterSilent(BridgeError):
    """A motor that did not answer a register request, after every try."""


class MotorRefused(BridgeError):
    """Motors that are not what the arm needs; `findings` holds one sentence each."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("\n".join(findings))
        self.findings = tuple(findings)


@dataclass(frozen=True)
class MotorExpectation:
    """What one motor must be; motors are numbered from 1.

    Raises:
        BridgeError: an unknown motor type.
    """

    number: int
    esc_id: int
    mst_id: int
    motor_type: str
    longest_watchdog_ticks: int = WATCHDOG_TICKS

    def __post_init__(self) -> None:
        """Refuse a type that nothing is known about."""
        scales([self.motor_type])

    @property
    def name(self) -> str:
        """The motor in words."""
        return f"motor {self.number} ({self.motor_type})"


@dataclass(frozen=True)
class MotorReport:
    """What one motor answered, and what of it does not fit."""

    expectation: MotorExpectation
    values: Mapping[Register, float]
    findings: tuple[Finding, ...]


def expectations(
    types: Sequence[str], esc_ids: Sequence[int], mst_ids: Sequence[int], longest_watchdog_ticks: int = WATCHDOG_TICKS
) -> tuple[MotorExpectation, ...]:
    """Return what the motors of an arm must be, numbered in this order.

    Raises:
        BridgeError: an unknown motor type.
    """
    rows = zip(esc_ids, mst_ids, types, strict=True)
    return tuple(MotorExpectation(number, *row, longest_watchdog_ticks) for number, row in enumerate(rows, start=1))


def read_register(bus: CanBus, esc_id: int, mst_id: int, register: Register, wait: Wait) -> float | int:
    """Return the value of one register; frames that do not answer this question are dropped.

    Raises:
        RegisterSilent: no answer in `TRIES` requests, each waited for `WAITS` times.
    """
    for _ in range(TRIES):
        bus.send(read_request(esc_id, register)[None])
        for _ in range(WAITS):
            wait()
            for row in bus.receive():
                try:
                    return decode_reply(row, esc_id, mst_id, Op.READ, register)
                except NotRegisterReply:
                    continue
    raise RegisterSilent(f"identifier {esc_id:#x} did not answer for {register.name} in {TRIES} tries")


def inspect_motor(bus: CanBus, expectation: MotorExpectation, wait: Wait) -> MotorReport:
    """Read one motor's registers and compare; a motor that falls silent is a finding too."""
    values: dict[Register, float] = {}
    try:
        for register in INSPECTED:
            values[register] = read_register(bus, expectation.esc_id, expectation.mst_id, register, wait)
    except RegisterSilent as silent:
        remedy = "check its power, its cable and its identifiers"
        return MotorReport(expectation, values, (f"{expectation.name}: {silent}: {remedy}",))
    return MotorReport(expectation, values, find_misfits(expectation, values))


def inspect_arm(bus: CanBus, wanted: Sequence[MotorExpectation], wait: Wait) -> tuple[MotorReport, ...]:
    """Inspect every motor and return the reports.

    Raises:
        MotorRefused: with the findings of all motors.
    """
    reports = tuple(inspect_motor(bus, expectation, wait) for expectation in wanted)
    findings = [finding for report in reports for finding in report.findings]
    if findings:
        raise MotorRefused(findings)
    return reports


def find_misfits(expectation: MotorExpectation, values: Mapping[Register, float]) -> tuple[Finding, ...]:
    """Return one sentence for each of `values` that is not as expected."""
    findings = []
    for register, span in _spans(expectation).items():
        if register in values and not span.low <= values[register] <= span.high:
            read = f"{values[register]:.10g}" + (" (never written)" if is_unwritten(register, values[register]) else "")
            findings.append(f"{expectation.name}: {register.name} is {read}, expected {span.words}: {span.remedy}")
    return tuple(findings)


@dataclass(frozen=True)
class _Span:
    """What a register may hold, both ends included; a NaN lies in no span."""

    low: float
    high: float
    words: str
    remedy: str = SET_UP


def _spans(expectation: MotorExpectation) -> dict[Register, _Span]:
    motor, longest = MOTOR_TYPES[expectation.motor_type], expectation.longest_watchdog_ticks
    longest_ms = longest * WATCHDOG_TICK_NS / 1e6
    below_c = math.nextafter(COIL_LIMITS_C[1], 0.0)
    spans = {
        Register.ESC_ID: _near(expectation.esc_id),
        Register.MST_ID: _near(expectation.mst_id),
        Register.CTRL_MODE: _near(Mode.MIT),
        Register.TIMEOUT: _Span(1, longest, f"1..{longest} (at most {longest_ms:g} ms; 0 is off)"),
        Register.PMAX: _near(motor.position_rad),
        Register.VMAX: _near(motor.velocity_rad_s),
        Register.TMAX: _near(motor.torque_nm),
        Register.OT_VALUE: _Span(COIL_LIMITS_C[0], below_c, "100 up to below 200 degrees Celsius"),
        Register.SW_VER: _Span(0, UNWRITTEN - 1, "a version number"),
    }
    if motor.gear_ratio is not None:  # else there is nothing to compare with
        spans[Register.GR] = _near(motor.gear_ratio, ANOTHER_PART)
    return spans


def _near(wanted: float, remedy: str = SET_UP) -> _Span:
    spare = SCALE_TOLERANCE * wanted
    return _Span(wanted - spare, wanted + spare, f"{wanted:.9g}", remedy)


def whole_turns(
    motor_rad: Floats, direction: Floats, zero_rad: Floats, lower_rad: Floats, upper_rad: Floats, margin_rad: float
) -> Floats:
    """Return the whole turns, (n,) rad, to take from motor angles so that the joints come inside their limits.

    A motor loses its count of turns at power-off and wakes up within half a turn of its own zero. The joint stands at
    (motor - zero - turns) * direction. Where none of no turn, one back and one forward fits, or more than one does, the
    answer is 0: which turn is right cannot be told here, and the caller's check of the limits decides.

    Args:
        motor_rad: (n,) as the motors report.
        direction: (n,) joint angle per motor angle, +1 or -1.
        zero_rad: (n,) motor angle where the joint is at zero.
        lower_rad: (n,) in the joint frame, like `upper_rad`.
        margin_rad: how far outside its limits a joint may stand.
    """
    candidates = np.array([0.0, -TURN_RAD, TURN_RAD])[:, None]
    joint_rad = (motor_rad - zero_rad - candidates) * direction
    fits = (joint_rad >= lower_rad - margin_rad) & (joint_rad <= upper_rad + margin_rad)
    turns: Floats = np.where(fits.sum(axis=0) == 1, (fits * candidates).sum(axis=0), 0.0)
    return turns
