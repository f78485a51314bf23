"""Emulated motors keep the rules of the real firmware, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from firmware_bridge.damiao import MOTOR_TYPES as TYPES
from firmware_bridge.damiao import (
    Feedback,
    Special,
    Status,
    decode_feedback,
    encode_commands,
    scales,
    special_frames,
)
from firmware_bridge.frames import CanBus, Frames, can_id, frame, no_frames
from firmware_bridge.motors import EmulatedBus, MotorBank

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
