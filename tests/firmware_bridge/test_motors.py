"""Emulated motors keep the rules of the real firmware, byte for byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from firmware_bridge.damiao import MOTOR_TYPES as TYPES
from firmware_bridge.damiao import (
    Feedback,
    Mode,
    MotorType,
    Special,
    Status,
    decode_feedback,
    encode_commands,
    force_position_frame,
    position_velocity_frame,
    scales,
    special_frames,
    velocity_frame,
)
from firmware_bridge.frames import BridgeError, CanBus, Frames, can_id, data, frame, no_frames
from firmware_bridge.motors import EmulatedBus, MotorBank
from firmware_bridge.registers import (
    REGISTER_ID,
    UNWRITTEN,
    WHOLE,
    WRITABLE,
    Op,
    Register,
    check_save_reply,
    decode_reply,
    from_word,
    is_unwritten,
    read_request,
    refresh_request,
    save_request,
    write_request,
)

KINDS = ["DM4340"] * 3 + ["DM4310"] * 4
ESC = list(range(1, 8))
MST = [identifier + 0x10 for identifier in ESC]
WATCHDOG_NS = 400_000_000
STILL = np.zeros(7)


def bank() -> MotorBank:
    return MotorBank(KINDS, ESC, MST)


def commands(position: float = 0.5) -> Frames:
    """Return one MIT command for each motor."""
    out = np.zeros((7, 16), dtype=np.uint8)
    encode_commands(np.tile([position, 0.1, 10.0, 1.0, 0.3], (7, 1)), scales(KINDS), np.array(ESC), out)
    return out


def send(motors: MotorBank, frames: Frames, now_ns: int = 0, shafts: np.ndarray = STILL) -> list[Feedback]:
    """Exchange frames and return what the replies say."""
    replies = motors.exchange(frames, now_ns, shafts, STILL, STILL)
    return [decode_feedback(TYPES[KINDS[can_id(row) - 0x11]], can_id(row) - 0x10, can_id(row), row) for row in replies]


def special(motors: MotorBank, code: Special, now_ns: int = 0) -> set[int]:
    """Send a special frame to all and return the statuses they answer with."""
    return {told.status for told in send(motors, special_frames(ESC, code), now_ns)}


def enabled() -> MotorBank:
    motors = bank()
    assert special(motors, Special.ENABLE) == {Status.ENABLED}
    return motors


def test_a_disabled_motor_answers_and_does_not_act() -> None:
    motors = bank()
    assert [told.status for told in send(motors, commands())] == [Status.DISABLED] * 7
    assert not motors.enabled.any()
    assert not motors.kp.any()
    assert not motors.tau_ff.any()


def test_an_enabled_motor_takes_the_command() -> None:
    motors = enabled()
    send(motors, commands())
    assert motors.enabled.all()
    np.testing.assert_allclose(motors.p_des, 0.5, atol=25 / 65535)
    np.testing.assert_allclose(motors.v_des, 0.1, atol=60 / 4095)
    np.testing.assert_allclose(motors.kp, 10.0, atol=500 / 4095)
    np.testing.assert_allclose(motors.kd, 1.0, atol=5 / 4095)
    np.testing.assert_allclose(motors.tau_ff, 0.3, atol=56 / 4095)


def test_every_frame_gets_one_reply_in_order_on_the_reply_identifier() -> None:
    replies = bank().exchange(commands()[::-1].copy(), 0, STILL, STILL, STILL)
    assert [can_id(row) for row in replies] == MST[::-1]


def test_frames_for_nobody_get_no_reply() -> None:
    strangers = np.stack([frame(0x08, bytes(8)), frame(0x7FF, bytes(8)), frame(0x01, bytes(7)), frame(0x11, bytes(8))])
    assert bank().exchange(strangers, 0, STILL, STILL, STILL).shape == (0, 16)


def test_no_frames_give_no_replies() -> None:
    assert bank().exchange(no_frames(), 0, STILL, STILL, STILL).shape == (0, 16)


def test_feedback_is_the_shaft_as_it_was() -> None:
    shafts = np.linspace(-1.0, 1.0, 7)
    told = send(enabled(), commands(), shafts=shafts)
    np.testing.assert_allclose([one.position_rad for one in told], shafts, atol=25 / 65535)


def test_position_wraps_at_the_ends_of_its_range() -> None:
    told = send(bank(), commands(), shafts=np.full(7, 13.0))
    np.testing.assert_allclose([one.position_rad for one in told], -12.0, atol=25 / 65535)


def test_disable_forgets_the_command() -> None:
    motors = enabled()
    send(motors, commands())
    assert special(motors, Special.DISABLE) == {Status.DISABLED}
    special(motors, Special.ENABLE)
    assert motors.enabled.all()
    assert not motors.kp.any()


def test_clear_error_disarms() -> None:
    motors = enabled()
    assert special(motors, Special.CLEAR_ERROR) == {Status.DISABLED}
    assert not motors.enabled.any()


@pytest.mark.parametrize("status", [status for status in Status if status > Status.ENABLED])
def test_a_latched_fault_needs_clearing_before_enable(status: Status) -> None:
    motors = enabled()
    send(motors, commands())
    motors.inject(2, status)
    assert not motors.enabled[2]
    assert motors.kp[2] == 0.0
    assert special(motors, Special.ENABLE) == {Status.ENABLED, status}
    assert special(motors, Special.DISABLE) == {Status.DISABLED, status}
    assert special(motors, Special.CLEAR_ERROR) == {Status.DISABLED}
    assert special(motors, Special.ENABLE) == {Status.ENABLED}


def test_the_watchdog_counts_only_while_enabled() -> None:
    motors = bank()
    motors.tick(10 * WATCHDOG_NS)
    assert special(motors, Special.ENABLE, 10 * WATCHDOG_NS) == {Status.ENABLED}


def test_silence_latches_communication_lost() -> None:
    motors = enabled()
    send(motors, commands(), 1000)
    motors.tick(1000 + WATCHDOG_NS - 1)
    assert motors.enabled.all()
    motors.tick(1000 + WATCHDOG_NS)
    assert not motors.enabled.any()
    assert not motors.kp.any()
    assert {told.status for told in send(motors, commands(), 1001 + WATCHDOG_NS)} == {Status.COMMUNICATION_LOST}


def test_a_late_frame_finds_the_watchdog_expired() -> None:
    motors = enabled()
    assert {told.status for told in send(motors, commands(), WATCHDOG_NS)} == {Status.COMMUNICATION_LOST}


def test_only_the_motor_that_is_spoken_to_is_fed() -> None:
    motors = enabled()
    send(motors, commands()[:1], WATCHDOG_NS - 1)
    motors.tick(WATCHDOG_NS)
    assert motors.enabled.tolist() == [True] + [False] * 6


def test_a_frame_of_another_mode_feeds_and_is_answered_and_does_nothing() -> None:
    motors = enabled()
    told = send(motors, frame(0x101, bytes(8))[None], WATCHDOG_NS - 1)
    motors.tick(WATCHDOG_NS)
    assert (len(told), motors.enabled[0], motors.kp[0]) == (1, True, 0.0)


def test_a_watchdog_of_zero_never_expires() -> None:
    motors = MotorBank(KINDS, ESC, MST, watchdog_ticks=0)
    special(motors, Special.ENABLE)
    motors.tick(1000 * WATCHDOG_NS)
    assert motors.enabled.all()


def test_set_zero_moves_reports_and_commands_alike() -> None:
    motors, shafts = enabled(), np.full(7, 0.7)
    send(motors, special_frames(ESC, Special.SET_ZERO), shafts=shafts)
    told = send(motors, commands(0.1), shafts=shafts)
    np.testing.assert_allclose([one.position_rad for one in told], 0.0, atol=25 / 65535)
    np.testing.assert_allclose(motors.p_des, 0.8, atol=25 / 65535)  # in the shaft's frame


def test_the_world_cannot_write_the_command() -> None:
    with pytest.raises(ValueError, match="read-only"):
        bank().kp[0] = 1.0


def test_the_emulated_bus_carries_frames_like_a_bus() -> None:
    bus: CanBus = EmulatedBus(bank(), lambda: (STILL, STILL, STILL), lambda: 0)
    assert bus.receive().shape == (0, 16)
    bus.send(commands()[:2])
    bus.send(commands()[2:])
    assert [can_id(row) for row in bus.receive()] == MST
    assert bus.receive().shape == (0, 16)


def value(motors: MotorBank, motor: int, register: Register) -> float | int:
    """Return a register as the motor itself holds it."""
    return from_word(register, motors.word(motor, register))


def ask(motors: MotorBank, row: Frames, now_ns: int = 0, shafts: np.ndarray = STILL) -> Frames:
    """Exchange one frame and return its only reply."""
    replies = motors.exchange(row[None], now_ns, shafts, STILL, STILL)
    assert len(replies) == 1
    answer: Frames = replies[0]
    return answer


def write(motors: MotorBank, motor: int, register: Register, number: float) -> float | int:
    """Write a register over the bus and return what the answer says."""
    esc_id, mst_id = motors.word(motor, Register.ESC_ID), motors.word(motor, Register.MST_ID)
    row = frame(REGISTER_ID, bytes([esc_id, 0, Op.WRITE, register]) + _bits(register, number))
    return decode_reply(ask(motors, row), esc_id, mst_id, Op.WRITE, register)


def _bits(register: Register, number: float) -> bytes:
    """Return a value as four bytes, NaN included."""
    return struct.pack("<I", int(number)) if register in WHOLE else struct.pack("<f", number)


@pytest.mark.parametrize("register", Register)
def test_every_register_answers_with_what_the_motor_holds(register: Register) -> None:
    motors = bank()
    told = decode_reply(ask(motors, read_request(2, register)), 2, 0x12, Op.READ, register)
    assert told == (value(motors, 1, register) if register < Register.P_M else pytest.approx(0.0, abs=1e-3))


@pytest.mark.parametrize("rid", [37, 49, 56, 79, 82, 255])
def test_where_there_is_no_register_unwritten_flash_answers(rid: int) -> None:
    reply = ask(bank(), frame(REGISTER_ID, bytes([2, 0, Op.READ, rid, 0, 0, 0, 0])))
    assert data(reply) == bytes([2, 0, Op.READ, rid]) + b"\xff" * 4


@pytest.mark.parametrize("register", sorted(set(Register) - WRITABLE - {Register.P_M, Register.XOUT}))
def test_a_write_to_a_read_only_register_answers_with_the_old_value(register: Register) -> None:
    motors = bank()
    before = value(motors, 1, register)
    assert write(motors, 1, register, 77) == before
    assert value(motors, 1, register) == before


@pytest.mark.parametrize("register", sorted(WRITABLE))
def test_a_write_answers_with_the_new_value_and_touches_no_other_motor_or_register(register: Register) -> None:
    motors, others = bank(), bank()
    number = {Register.OT_VALUE: 90.0, Register.CTRL_MODE: 3, Register.CAN_BR: 9}.get(register, 33)
    if register is Register.ESC_ID:
        row = frame(REGISTER_ID, bytes([2, 0, Op.WRITE, 8, 33, 0, 0, 0]))
        assert data(ask(motors, row)) == bytes([33, 0, Op.WRITE, 8, 33, 0, 0, 0])  # it takes effect at the write
    elif register is Register.MST_ID:
        row = frame(REGISTER_ID, bytes([2, 0, Op.WRITE, 7, 33, 0, 0, 0]))
        assert can_id(ask(motors, row)) == 33
    else:
        assert write(motors, 1, register, number) == number
    changed = [
        (motor, each) for motor in range(7) for each in Register if motors.word(motor, each) != others.word(motor, each)
    ]
    assert changed == [(1, register)]


@pytest.mark.parametrize(
    ("register", "number"),
    [
        (Register.CTRL_MODE, 0),
        (Register.CTRL_MODE, 5),
        (Register.ESC_ID, 0),
        (Register.ESC_ID, 0x100),
        (Register.MST_ID, 0),
        (Register.MST_ID, 0x7FF),
        (Register.CAN_BR, 10),
        (Register.OT_VALUE, 79.9),
        (Register.OT_VALUE, 200.0),
        (Register.OT_VALUE, np.nan),
        (Register.VMAX, 0.0),
        (Register.VMAX, -1.0),
        (Register.VMAX, np.inf),
        (Register.PMAX, np.nan),
        (Register.ACC, np.nan),
    ],
)
def test_a_value_that_a_register_cannot_hold_is_not_taken(register: Register, number: float) -> None:
    motors = bank()
    before = motors.word(1, register)
    write(motors, 1, register, number)
    assert motors.word(1, register) == before


def test_a_written_scale_rescales_what_is_said_and_done() -> None:
    motors = enabled()
    write(motors, 1, Register.VMAX, 8.0)
    send(motors, commands())
    np.testing.assert_allclose(motors.v_des[[0, 1]], [0.1, 0.08], atol=20 / 4095)
    narrow = MotorType(12.5, 8.0, 28.0)
    reply = motors.exchange(commands()[1:2], 0, STILL, np.full(7, 4.0), STILL)[0]
    assert decode_feedback(narrow, 2, 0x12, reply).velocity_rad_s == pytest.approx(4.0, abs=16 / 4095)


def test_a_written_watchdog_counts_from_then_on() -> None:
    motors = enabled()
    assert write(motors, 1, Register.TIMEOUT, 2000) == 2000
    motors.tick(WATCHDOG_NS // 4)
    assert motors.enabled.tolist() == [True, False] + [True] * 5
    assert write(motors, 2, Register.TIMEOUT, 0) == 0
    motors.tick(10 * WATCHDOG_NS)
    assert motors.enabled.tolist() == [False, False, True] + [False] * 4


def test_register_frames_do_not_feed_the_watchdog() -> None:
    motors = enabled()
    for row in (read_request(1, Register.GR), refresh_request(1), write_request(1, Register.ACC, 3.0)):
        ask(motors, row, WATCHDOG_NS - 1)
    motors.tick(WATCHDOG_NS)
    assert not motors.enabled[0]


@pytest.mark.parametrize("long", [False, True])
def test_what_was_saved_survives_a_power_cycle_and_nothing_else(long: bool) -> None:
    motors = bank()
    write(motors, 1, Register.TIMEOUT, 4000)
    request = frame(REGISTER_ID, bytes([2, 0, Op.SAVE, 1, 0, 0, 0, 0])) if long else save_request(2)
    check_save_reply(ask(motors, request), 2, 0x12)
    write(motors, 1, Register.TIMEOUT, 3000)
    motors.power_cycle(1)
    assert value(motors, 1, Register.TIMEOUT) == 4000
    assert motors.status[1] == Status.DISABLED


def test_an_enabled_motor_does_not_save() -> None:
    motors = enabled()
    write(motors, 1, Register.TIMEOUT, 4000)
    check_save_reply(ask(motors, save_request(2)), 2, 0x12)  # an answer proves nothing
    motors.power_cycle(1)
    assert value(motors, 1, Register.TIMEOUT) == 8000


def test_refresh_answers_ordinary_feedback_and_live_values() -> None:
    motors, shafts = enabled(), np.full(7, 0.7)
    told = decode_feedback(TYPES["DM4340"], 2, 0x12, ask(motors, refresh_request(2), shafts=shafts))
    assert (told.status, told.position_rad) == (Status.ENABLED, pytest.approx(0.7, abs=25 / 65535))
    for rid, expected in ((1, 0.7), (2, 0.2), (3, -1.5)):
        row = frame(REGISTER_ID, bytes([2, 0, Op.REFRESH, rid, 0, 0, 0, 0]))
        reply = motors.exchange(row[None], 0, shafts, np.full(7, 0.2), np.full(7, -1.5))[0]
        assert data(reply)[:4] == bytes([2, 0, Op.REFRESH, rid])
        assert struct.unpack("<f", data(reply)[4:])[0] == pytest.approx(expected)


def test_the_runtime_positions_are_the_outputs_and_the_rotors() -> None:
    shafts = np.full(7, 0.5)
    for register, expected in ((Register.XOUT, 0.5), (Register.P_M, 20.0)):
        reply = ask(bank(), read_request(2, register), shafts=shafts)
        assert decode_reply(reply, 2, 0x12, Op.READ, register) == pytest.approx(expected)


COMMANDS = {
    Mode.MIT: lambda: commands()[1],
    Mode.POS_VEL: lambda: position_velocity_frame(2, 0.5, 1.0),
    Mode.VEL: lambda: velocity_frame(2, 0.3),
    Mode.FORCE_POS: lambda: force_position_frame(2, 0.5, 1.0, 0.5),
}


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("sent", Mode)
@pytest.mark.parametrize("mode", Mode)
def test_a_command_acts_in_its_own_mode_only(mode: Mode, sent: Mode, answers: bool) -> None:
    motors = MotorBank(KINDS, ESC, MST, answers_wrong_mode=answers)
    write(motors, 1, Register.CTRL_MODE, mode)
    special(motors, Special.ENABLE)
    replies = motors.exchange(COMMANDS[sent]()[None], WATCHDOG_NS - 1, STILL, STILL, STILL)
    assert len(replies) == (sent is mode or answers)
    assert bool(motors.kd[1]) == (sent is mode)
    motors.tick(WATCHDOG_NS)
    assert motors.enabled[1]  # fed in any case


@pytest.mark.parametrize("mode", [Mode.POS_VEL, Mode.VEL, Mode.FORCE_POS])
def test_a_disabled_motor_acts_in_no_mode(mode: Mode) -> None:
    motors = bank()
    write(motors, 1, Register.CTRL_MODE, mode)
    ask(motors, COMMANDS[mode]())
    assert not motors.kp.any()
    assert not motors.kd.any()


def test_a_change_of_mode_clears_the_command() -> None:
    motors = enabled()
    send(motors, commands())
    write(motors, 1, Register.CTRL_MODE, Mode.VEL)
    assert motors.enabled.all()
    assert motors.kp.tolist()[:3:2] == pytest.approx([10.0, 10.0], abs=500 / 4095)
    assert (motors.kp[1], motors.kd[1], motors.tau_ff[1], motors.v_des[1], motors.p_des[1]) == (0, 0, 0, 0, 0)
    write(motors, 0, Register.CTRL_MODE, Mode.MIT)  # no change
    assert motors.kp[0] > 0.0


def in_mode(mode: Mode) -> MotorBank:
    motors = bank()
    write(motors, 1, Register.CTRL_MODE, mode)
    special(motors, Special.ENABLE)
    return motors


@pytest.mark.parametrize("content", [struct.pack("<f", -0.3), struct.pack("<ff", -0.3, 99.0)])
def test_vel_damps_towards_a_speed_in_either_length(content: bytes) -> None:
    motors = in_mode(Mode.VEL)
    ask(motors, frame(0x202, content))
    assert (motors.kp[1], motors.v_des[1]) == (0.0, pytest.approx(-0.3))


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_a_position_mode_runs_ahead_of_the_shaft_no_further_than_its_speed_allows(direction: float) -> None:
    motors, shafts = in_mode(Mode.POS_VEL), np.zeros(7)
    ask(motors, position_velocity_frame(2, direction * 0.5, 1.0))
    kp, kd = motors.kp[1], motors.kd[1]
    # Where spring and damper are in balance the shaft goes 1 rad/s.
    assert kp * motors.p_des[1] / kd == pytest.approx(direction * 1.0)
    shafts[1] = direction * 0.499
    ask(motors, read_request(2, Register.GR), shafts=shafts)
    assert motors.p_des[1] == pytest.approx(direction * 0.5)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_force_pos_never_pushes_harder_than_its_share(direction: float) -> None:
    motors = in_mode(Mode.FORCE_POS)
    ask(motors, force_position_frame(2, direction * 12.0, 100.0, 0.1))
    assert motors.kp[1] * motors.p_des[1] == pytest.approx(direction * 2.8)


@pytest.mark.parametrize("content", [struct.pack("<ff", np.nan, 1.0), struct.pack("<ff", 1.0, np.inf)])
def test_a_command_that_is_not_finite_is_answered_and_does_nothing(content: bytes) -> None:
    motors = in_mode(Mode.POS_VEL)
    ask(motors, frame(0x102, content))
    assert motors.kp[1] == 0.0
    assert np.isfinite(motors.p_des).all()


HOT_NS = 400_000_000


@pytest.mark.parametrize(
    ("mosfet_c", "coil_c", "status"),
    [
        (119.9, 99.9, Status.ENABLED),
        (120.0, 99.9, Status.MOSFET_TOO_HOT),
        (119.9, 100.0, Status.COIL_TOO_HOT),
        (-40.0, -40.0, Status.ENABLED),
    ],
)
def test_heat_latches_after_its_time_in_the_motor_that_is_hot(mosfet_c: float, coil_c: float, status: Status) -> None:
    motors = MotorBank(KINDS, ESC, MST, watchdog_ticks=0)
    special(motors, Special.ENABLE)
    motors.warm(4, mosfet_c, coil_c)
    motors.tick(1000)
    motors.tick(1000 + HOT_NS - 1)
    assert motors.enabled.all()
    motors.tick(1000 + HOT_NS)
    assert motors.status.tolist() == [1, 1, 1, 1, status, 1, 1]


def test_heat_must_last_and_a_hot_motor_trips_again_after_clearing() -> None:
    motors = MotorBank(KINDS, ESC, MST, watchdog_ticks=0)
    special(motors, Special.ENABLE)
    for now_ns, coil_c in ((0, 100.0), (HOT_NS - 1, 99.0), (HOT_NS, 100.0), (2 * HOT_NS - 1, 100.0)):
        motors.warm(4, 30.0, coil_c)
        motors.tick(now_ns)
    assert motors.enabled[4]
    motors.tick(2 * HOT_NS)
    assert motors.status[4] == Status.COIL_TOO_HOT
    for code in (Special.CLEAR_ERROR, Special.ENABLE):
        special(motors, code, 2 * HOT_NS)
    motors.tick(3 * HOT_NS - 1)
    assert motors.enabled[4]
    motors.tick(3 * HOT_NS)
    assert motors.status[4] == Status.COIL_TOO_HOT


def test_the_coils_limit_is_a_register() -> None:
    motors = enabled()
    write(motors, 4, Register.OT_VALUE, 80.0)
    motors.warm(4, 30.0, 80.0)
    motors.tick(0)
    send(motors, commands(), HOT_NS - 1)
    motors.tick(HOT_NS)
    assert motors.status[4] == Status.COIL_TOO_HOT


@pytest.mark.parametrize(("told_c", "reported_c"), [(-5.0, 0), (41.9, 41), (255.0, 255), (300.0, 255)])
def test_temperatures_are_reported_in_whole_degrees(told_c: float, reported_c: int) -> None:
    motors = bank()
    motors.warm(3, told_c, told_c)
    told = send(motors, commands())
    assert (told[3].mosfet_c, told[3].coil_c) == (reported_c, reported_c)
    assert (told[2].mosfet_c, told[2].coil_c) == (30, 32)


@pytest.mark.parametrize("turns", [1, -1])
def test_a_boot_offset_shifts_what_is_said_and_what_is_done(turns: int) -> None:
    motors = enabled()
    send(motors, commands())
    motors.boot_turns(2, turns)
    assert motors.p_des[2] == pytest.approx(0.5 - turns * 2 * np.pi, abs=25 / 65535)
    told = send(motors, commands(), shafts=np.full(7, 0.25))
    expected = np.full(7, 0.25) + np.where(np.arange(7) == 2, turns * 2 * np.pi, 0.0)
    np.testing.assert_allclose([one.position_rad for one in told], expected, atol=25 / 65535)
    motors.boot_turns(2, -turns)
    np.testing.assert_allclose(motors.p_des, 0.5, atol=25 / 65535)


@pytest.mark.parametrize("register", [Register.PMAX, Register.VMAX, Register.TMAX, Register.CTRL_MODE, Register.ESC_ID])
def test_unwritten_flash_is_answered_and_not_obeyed(register: Register) -> None:
    motors = enabled()
    motors.set_word(1, register, UNWRITTEN)
    assert is_unwritten(register, decode_reply(ask(motors, read_request(2, register)), 2, 0x12, Op.READ, register))
    send(motors, commands())
    np.testing.assert_allclose(motors.p_des, 0.5, atol=25 / 65535)


def test_an_unknown_motor_type_is_refused() -> None:
    with pytest.raises(BridgeError, match="DM9999"):
        MotorBank(["DM9999"], [1], [0x11])
