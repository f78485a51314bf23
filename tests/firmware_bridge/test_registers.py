"""Register frames equal the golden bytes, and only the right answer to the right question is read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.damiao import MOTOR_TYPES
from firmware_bridge.frames import can_id, data, frame
from firmware_bridge.registers import (
    REGISTER_ID,
    UNWRITTEN,
    WHOLE,
    WRITABLE,
    NotRegisterReply,
    Op,
    Register,
    RegisterError,
    check_save_reply,
    decode_reply,
    factory_words,
    from_word,
    is_unwritten,
    read_request,
    refresh_request,
    save_request,
    to_word,
    write_request,
)

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "damiao.json").read_text())
REPLY = bytes.fromhex("03003309401f0000")


@pytest.mark.parametrize("vector", GOLDEN["registers"], ids=lambda vector: str(vector["request_hex"]))
def test_requests_and_answers_equal_the_golden_bytes(vector: dict[str, Any]) -> None:
    op, register, esc_id = Op[vector["op"]], Register[vector["register"]], vector["esc_id"]
    write = op is Op.WRITE
    row = write_request(esc_id, register, vector["value"]) if write else read_request(esc_id, register)
    assert (can_id(row), data(row).hex()) == (REGISTER_ID, vector["request_hex"])
    reply = frame(vector["reply_id"], bytes.fromhex(vector["reply_hex"]))
    assert decode_reply(reply, esc_id, esc_id + 0x10, op, register) == vector["value"]


def test_save_is_short_and_refresh_is_long() -> None:
    assert data(save_request(3)).hex() == GOLDEN["register_frames"]["save_of_3_hex"]
    assert data(refresh_request(3)).hex() == GOLDEN["register_frames"]["refresh_of_3_hex"]


def test_both_bytes_of_the_number_travel() -> None:
    assert data(read_request(0x123, Register.GR))[:4] == bytes([0x23, 0x01, 0x33, 20])


@pytest.mark.parametrize(
    "row",
    [
        frame(0x14, REPLY),  # another motor's identifier
        frame(0x13, b"\x04" + REPLY[1:]),  # D0: another motor
        frame(0x13, b"\x03\x01" + REPLY[2:]),  # D1
        frame(0x13, REPLY[:2] + b"\x55" + REPLY[3:]),  # D2: another operation
        frame(0x13, REPLY[:3] + b"\x0a" + REPLY[4:]),  # D3: another register
        frame(0x13, REPLY[:7]),  # short
        frame(0x13, bytes.fromhex("137fff8007ff1e1f")),  # feedback
        frame(0x13, REPLY) | np.array([0, 0, 0, 0x20] + [0] * 12, dtype=np.uint8),  # error flag
    ],
)
def test_what_does_not_answer_the_question_is_refused(row: np.ndarray) -> None:
    assert decode_reply(frame(0x13, REPLY), 3, 0x13, Op.READ, Register.TIMEOUT) == 8000
    with pytest.raises(NotRegisterReply, match="READ TIMEOUT of motor 3"):
        decode_reply(row, 3, 0x13, Op.READ, Register.TIMEOUT)


def test_a_save_is_acknowledged_by_four_bytes() -> None:
    check_save_reply(frame(0x13, bytes.fromhex("0300aa01")), 3, 0x13)
    check_save_reply(frame(0x13, bytes.fromhex("0300aa00")), 3, 0x13)  # the fourth is not known to mean anything
    for wrong in ("0400aa01", "03003301", "0300aa0100000000", "0300aa"):
        with pytest.raises(NotRegisterReply, match="save of motor 3"):
            check_save_reply(frame(0x13, bytes.fromhex(wrong)), 3, 0x13)


@given(st.sampled_from(sorted(set(Register) - WHOLE)), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_comes_back(register: Register, value: float) -> None:
    assert from_word(register, to_word(register, value)) == value


@given(st.sampled_from(sorted(WHOLE)), st.integers(0, UNWRITTEN))
def test_a_whole_number_comes_back(register: Register, value: int) -> None:
    assert from_word(register, to_word(register, value)) == value


@pytest.mark.parametrize("register", [Register.TIMEOUT, Register.VMAX])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_written(register: Register, value: float) -> None:
    with pytest.raises(RegisterError, match=register.name):
        write_request(1, register, value)


@pytest.mark.parametrize("value", [-1, 0.5, UNWRITTEN + 1])
def test_a_whole_register_takes_whole_numbers_in_range(value: float) -> None:
    with pytest.raises(RegisterError, match="TIMEOUT"):
        write_request(1, Register.TIMEOUT, value)


@pytest.mark.parametrize("register", sorted(set(Register) - WRITABLE))
def test_a_read_only_register_is_not_written(register: Register) -> None:
    with pytest.raises(RegisterError, match="read-only"):
        write_request(1, register, 1)


@pytest.mark.parametrize("register", Register)
def test_unwritten_flash_is_recognised_in_every_register(register: Register) -> None:
    assert is_unwritten(register, from_word(register, UNWRITTEN))
    assert not is_unwritten(register, from_word(register, 0))


@pytest.mark.parametrize("name", sorted(MOTOR_TYPES))
def test_a_motor_is_delivered_with_the_scale_and_gear_of_its_type(name: str) -> None:
    words = factory_words(name, 5, 0x15)
    told = [from_word(register, int(words[register])) for register in (Register.PMAX, Register.VMAX, Register.TMAX)]
    np.testing.assert_allclose(told, MOTOR_TYPES[name].scale, rtol=1e-7)
    gear = from_word(Register.GR, int(words[Register.GR]))
    assert gear == MOTOR_TYPES[name].gear_ratio or (MOTOR_TYPES[name].gear_ratio is None and math.isnan(gear))
    assert (words[Register.ESC_ID], words[Register.MST_ID], words[Register.CTRL_MODE]) == (5, 0x15, 1)
