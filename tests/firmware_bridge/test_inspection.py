"""Inspection accepts the motors that the arm names, refuses every other, and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from firmware_bridge.damiao import MOTOR_TYPES
from firmware_bridge.frames import BridgeError, Frames, can_id, data, frame, no_frames
from firmware_bridge.inspection import (
    INSPECTED,
    TRIES,
    TURN_RAD,
    WAITS,
    MotorExpectation,
    MotorRefused,
    RegisterSilent,
    expectations,
    inspect_arm,
    inspect_motor,
    read_register,
    whole_turns,
)
from firmware_bridge.motors import EmulatedBus, MotorBank
from firmware_bridge.registers import REGISTER_ID, UNWRITTEN, WHOLE, Op, Register, to_word

KINDS = ["DM4340"] * 3 + ["DM4310"] * 4
ESC = list(range(1, 8))
MST = [identifier + 0x10 for identifier in ESC]
STILL = np.zeros(7)
WANTED = expectations(KINDS, ESC, MST)


def wait() -> None:
    """An emulated bus answers at once."""


class Recorder(EmulatedBus):
    """The emulated bus of seven motors; keeps what was sent, and lets `reply` have its way with the answers."""

    def __init__(self, reply: Callable[[Frames], Frames] = lambda frames: frames) -> None:
        self.bank = MotorBank(KINDS, ESC, MST)
        super().__init__(self.bank, lambda: (STILL, STILL, STILL), lambda: 0)
        self.sent: list[Frames] = []
        self._reply = reply

    def send(self, frames: Frames) -> None:
        self.sent += list(frames)
        super().send(frames)

    def receive(self) -> Frames:
        return self._reply(super().receive())


def test_motors_as_delivered_pass_and_nothing_is_written() -> None:
    bus = Recorder()
    reports = inspect_arm(bus, WANTED, wait)
    assert [report.expectation.number for report in reports] == ESC
    assert all(set(report.values) == set(INSPECTED) for report in reports)
    assert {(can_id(row), data(row)[2]) for row in bus.sent} == {(REGISTER_ID, Op.READ)}


@pytest.mark.parametrize("name", sorted(MOTOR_TYPES))
def test_every_known_type_passes_as_itself(name: str) -> None:
    bank = MotorBank([name], [1], [0x11])
    bus = EmulatedBus(bank, lambda: (STILL[:1], STILL[:1], STILL[:1]), lambda: 0)
    assert inspect_arm(bus, [MotorExpectation(1, 1, 0x11, name)], wait)


@pytest.mark.parametrize(
    ("register", "value", "says"),
    [
        (Register.VMAX, 8.0, "VMAX is 8, expected 10: set it"),
        (Register.VMAX, 10.0 * (1 + 1e-5), "VMAX"),
        (Register.PMAX, 12.4999, "PMAX"),
        (Register.TMAX, 10.0, "TMAX is 10, expected 28"),
        (Register.TMAX, -28.0, "TMAX"),
        (Register.GR, 10.0, "GR is 10, expected 40: another motor is fitted"),
        (Register.CTRL_MODE, 2, "CTRL_MODE is 2, expected 1"),
        (Register.TIMEOUT, 0, "TIMEOUT is 0, expected 1..8000"),
        (Register.TIMEOUT, 8001, "TIMEOUT is 8001, expected 1..8000"),
        (Register.OT_VALUE, 99.9, "OT_VALUE"),
        (Register.OT_VALUE, 200.0, "OT_VALUE is 200, expected 100 up to below 200"),
        (Register.PMAX, math.nan, "PMAX is nan .never written."),
        (Register.VMAX, math.nan, "VMAX is nan"),
        (Register.TMAX, math.nan, "TMAX is nan"),
        (Register.GR, math.nan, "GR is nan"),
        (Register.OT_VALUE, math.nan, "OT_VALUE is nan"),
        (Register.TIMEOUT, UNWRITTEN, "TIMEOUT is 4294967295 .never written."),
        (Register.CTRL_MODE, UNWRITTEN, "CTRL_MODE"),
        (Register.SW_VER, UNWRITTEN, "SW_VER"),
        (Register.MST_ID, UNWRITTEN, "MST_ID"),
    ],
)
def test_each_misfit_is_refused_by_name(register: Register, value: float, says: str) -> None:
    bus = Recorder()
    bus.bank.set_word(2, register, UNWRITTEN if math.isnan(value) else to_word(register, value))
    before = bus.bank.word(2, register)
    with pytest.raises(MotorRefused, match=says) as refused:
        inspect_arm(bus, WANTED, wait)
    assert len(refused.value.findings) == 1
    assert refused.value.findings[0].startswith("motor 3 (DM4340): ")
    assert bus.bank.word(2, register) == before


@pytest.mark.parametrize(
    ("register", "value"),
    [
        (Register.VMAX, 10.0 * (1 + 5e-7)),
        (Register.TIMEOUT, 1),
        (Register.TIMEOUT, 8000),
        (Register.OT_VALUE, 100.0),
        (Register.OT_VALUE, 199.9),
    ],
)
def test_what_is_just_inside_passes(register: Register, value: float) -> None:
    bus = Recorder()
    bus.bank.set_word(2, register, to_word(register, value))
    assert len(inspect_arm(bus, WANTED, wait)) == 7


def test_all_findings_of_all_motors_are_listed() -> None:
    bus = Recorder()
    for motor, register in ((0, Register.VMAX), (0, Register.TMAX), (6, Register.GR)):
        bus.bank.set_word(motor, register, to_word(register, 1.0))
    with pytest.raises(MotorRefused) as refused:
        inspect_arm(bus, WANTED, wait)
    assert [finding.split(" is ")[0] for finding in refused.value.findings] == [
        "motor 1 (DM4340): VMAX",
        "motor 1 (DM4340): TMAX",
        "motor 7 (DM4310): GR",
    ]


def test_a_silent_motor_is_a_finding_after_a_bounded_number_of_tries() -> None:
    bus, waits = Recorder(lambda frames: no_frames()), []
    report = inspect_motor(bus, WANTED[3], lambda: waits.append(1))
    assert (len(bus.sent), len(waits)) == (TRIES, TRIES * WAITS)
    assert report.findings[0].startswith("motor 4 (DM4310): identifier 0x4 did not answer for ESC_ID in 5 tries")


def test_an_answer_that_needs_waiting_for_is_waited_for() -> None:
    passed: list[int] = []

    def late(frames: Frames) -> Frames:
        held.extend(frames)
        return np.stack(held) if len(passed) >= 3 and held else no_frames()

    held: list[Frames] = []
    bus = Recorder(late)
    assert read_register(bus, 1, 0x11, Register.GR, lambda: passed.append(1)) == 40.0
    assert len(bus.sent) == 1


IMPOSTORS = {
    "another motor": lambda row: frame(0x12, data(row)),
    "another motor's number": lambda row: frame(0x11, b"\x02" + data(row)[1:]),
    "another register": lambda row: frame(0x11, data(row)[:3] + b"\x16" + data(row)[4:]),
    "another operation": lambda row: frame(0x11, data(row)[:2] + b"\x55" + data(row)[3:]),
    "feedback": lambda row: frame(0x11, bytes.fromhex("117fff8007ff1e1f")),
    "short": lambda row: frame(0x11, data(row)[:5]),
}


@pytest.mark.parametrize("spoil", IMPOSTORS.values(), ids=IMPOSTORS)
def test_answers_of_others_are_skipped_and_never_mistaken(spoil: Callable[[Frames], Frames]) -> None:
    def before(frames: Frames) -> Frames:
        return np.stack([row for frame_ in frames for row in (spoil(frame_), frame_)]) if len(frames) else frames

    def instead(frames: Frames) -> Frames:
        return np.stack([spoil(row) for row in frames]) if len(frames) else frames

    assert read_register(Recorder(before), 1, 0x11, Register.TIMEOUT, wait) == 8000
    with pytest.raises(RegisterSilent, match="0x1 did not answer for TIMEOUT"):
        read_register(Recorder(instead), 1, 0x11, Register.TIMEOUT, wait)


def test_a_gear_that_nobody_knows_is_not_compared() -> None:
    assert MOTOR_TYPES["DM6006"].gear_ratio is None
    assert Register.GR not in WHOLE  # so that unwritten is a NaN, which would equal nothing


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(BridgeError, match="DM9999"):
        expectations(["DM9999"], [1], [0x11])


LOWER, UPPER, MARGIN = np.array([-2.618]), np.array([3.1416]), 0.15


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("zero", [0.0, 0.4, -0.7])
@pytest.mark.parametrize("joint", [-2.7, -1.0, 0.0, 3.0, 3.29])
@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_a_turn_too_many_is_found_in_both_directions(direction: float, zero: float, joint: float, turns: int) -> None:
    told = np.array([joint * direction + zero + turns * TURN_RAD])
    arguments = (np.array([direction]), np.array([zero]), LOWER, UPPER, MARGIN)
    assert whole_turns(told, *arguments) == pytest.approx([turns * TURN_RAD])


@pytest.mark.parametrize(
    ("motor_rad", "lower", "upper"),
    [
        (3.5, -2.618, 3.1416),  # 0.36 outside, and a turn back is 0.17 outside the other end
        (20.0, -2.6, 3.1),  # three turns off
        (math.nan, -2.6, 3.1),
        (6.0, -7.0, 7.0),  # two fit
        (0.0, -7.0, 7.0),  # three fit
    ],
)
def test_what_no_turn_or_more_than_one_explains_is_left_alone(motor_rad: float, lower: float, upper: float) -> None:
    one, none = np.ones(1), np.zeros(1)
    assert whole_turns(np.array([motor_rad]), one, none, np.array([lower]), np.array([upper]), 0.0) == [0.0]


def test_joints_are_put_right_one_by_one() -> None:
    told, lower, upper = np.array([0.1, 0.1 - TURN_RAD, 3.0]), np.full(3, -1.0), np.full(3, 1.0)
    turns = whole_turns(told, np.ones(3), np.zeros(3), lower, upper, 0.1)
    assert turns == pytest.approx([0.0, -TURN_RAD, 0.0])
