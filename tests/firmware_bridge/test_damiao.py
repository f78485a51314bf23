"""The codec equals the maker's host bit for bit, and its two directions undo each other."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.damiao import (
    MOTOR_TYPES,
    Command,
    NotEncodable,
    NotFeedback,
    Special,
    decode_command,
    decode_feedback,
    encode_command,
    encode_commands,
    encode_feedback,
    f32_from_word,
    force_position_frame,
    position_velocity_frame,
    scales,
    special_frames,
    status_name,
    velocity_frame,
    word_from_f32,
)
from firmware_bridge.frames import BridgeError, can_id, data, frame

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "golden" / "damiao.json").read_text())
DM4310 = MOTOR_TYPES["DM4310"]
NAMES = ("position_rad", "velocity_rad_s", "kp", "kd", "torque_nm")
unit = st.floats(-1.0, 1.0)
share = st.floats(0.0, 1.0)


@pytest.mark.parametrize("vector", GOLDEN["mit_command"], ids=lambda vector: str(vector["truncating_hex"]))
def test_commands_equal_the_golden_bytes(vector: dict[str, Any]) -> None:
    command = Command(vector["pos_rad"], vector["vel_rad_s"], vector["kp"], vector["kd"], vector["torque_nm"])
    row = encode_command(MOTOR_TYPES[vector["motor_type"]], 3, command)
    assert (can_id(row), data(row).hex()) == (3, vector["truncating_hex"])


@pytest.mark.parametrize("vector", GOLDEN["feedback"], ids=lambda vector: str(vector["data_hex"]))
def test_feedback_decodes_to_the_golden_values(vector: dict[str, Any]) -> None:
    row = frame(vector["can_id"], bytes.fromhex(vector["data_hex"]))
    told = decode_feedback(MOTOR_TYPES[vector["motor_type"]], vector["can_id"] - 0x10, vector["can_id"], row)
    assert told.status == vector["status"]
    assert told.position_rad == vector["pos_rad"]
    assert told.velocity_rad_s == vector["vel_rad_s"]
    assert told.torque_nm == vector["torque_nm"]
    assert (told.mosfet_c, told.coil_c) == (vector["temp_mos_c"], vector["temp_rotor_c"])


# The first call may compile, so no example has a deadline.
@settings(deadline=None)
@given(st.sampled_from(sorted(MOTOR_TYPES)), unit, unit, share, share, unit)
def test_a_command_comes_back_at_most_one_step_lower(
    name: str, position: float, velocity: float, kp: float, kd: float, torque: float
) -> None:
    motor = MOTOR_TYPES[name]
    command = np.array(
        [
            position * motor.position_rad,
            velocity * motor.velocity_rad_s,
            kp * 500.0,
            kd * 5.0,
            torque * motor.torque_nm,
        ]
    )
    row, back = np.zeros((1, 16), dtype=np.uint8), np.zeros(5)
    assert encode_commands(command[None], scales([name]), np.array([1]), row) == -1
    decode_command(row[0], scales([name])[0], back)
    span = np.array([2 * motor.position_rad, 2 * motor.velocity_rad_s, 500.0, 5.0, 2 * motor.torque_nm])
    steps = np.array([65535, 4095, 4095, 4095, 4095])
    lost = (command - back) / span * steps
    assert (lost > -1e-6).all()
    assert (lost < 1.0 + 1e-6).all()


# The first call may compile, so no example has a deadline.
@settings(deadline=None)
@given(st.sampled_from(sorted(MOTOR_TYPES)), unit, unit, unit, st.integers(0, 15))
def test_feedback_comes_back(name: str, position: float, velocity: float, torque: float, status: int) -> None:
    motor, row = MOTOR_TYPES[name], np.zeros(16, dtype=np.uint8)
    sample = np.array([position * motor.position_rad, velocity * motor.velocity_rad_s, torque * motor.torque_nm])
    encode_feedback(row, 0x15, 5, status, sample, scales([name])[0], np.array([30, 31], dtype=np.uint8))
    told = decode_feedback(motor, 5, 0x15, row)
    assert told.status == status
    assert told.position_rad == pytest.approx(sample[0], abs=2 * motor.position_rad / 65535)
    assert told.velocity_rad_s == pytest.approx(sample[1], abs=2 * motor.velocity_rad_s / 4095)
    assert told.torque_nm == pytest.approx(sample[2], abs=2 * motor.torque_nm / 4095)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_becomes_bytes(name: str, value: float) -> None:
    command = Command(**{**dict.fromkeys(NAMES, 0.0), name: value})
    with pytest.raises(NotEncodable, match="motor 2"):
        encode_command(DM4310, 2, command)


def test_one_bad_row_leaves_every_row_unwritten() -> None:
    commands = np.zeros((7, 5))
    commands[4, 2] = np.nan
    out = np.full((7, 16), 0xAA, dtype=np.uint8)
    assert encode_commands(commands, scales(["DM4310"] * 7), np.arange(1, 8), out) == 4
    assert (out == 0xAA).all()


GOOD = bytes.fromhex("147fff8007ff1e1f")


@pytest.mark.parametrize(
    "row",
    [
        frame(0x15, GOOD),  # another motor's reply identifier
        frame(0x14, GOOD[:7]),  # short
        frame(0x14, b"\x15" + GOOD[1:]),  # another motor's nibble
        frame(0x14, GOOD) | np.array([0, 0, 0, 0x20] + [0] * 12, dtype=np.uint8),  # error flag
        frame(0x14, GOOD) | np.array([0, 0, 0, 0x80] + [0] * 12, dtype=np.uint8),  # extended flag
    ],
)
def test_a_frame_that_is_not_this_motors_feedback_is_refused(row: np.ndarray) -> None:
    with pytest.raises(NotFeedback, match="motor 4"):
        decode_feedback(DM4310, 4, 0x14, row)


def test_special_frames_end_in_their_code() -> None:
    assert [data(row).hex() for row in special_frames([1, 7], Special.ENABLE)] == ["fffffffffffffffc"] * 2
    codes = [special_frames([1], special)[0, 15] for special in Special]
    assert codes == [0xFB, 0xFC, 0xFD, 0xFE]


def test_statuses_have_names_and_others_say_so() -> None:
    assert status_name(0xD) == "communication lost"
    assert status_name(0x5) == "unknown status 0x5"


def test_an_unknown_motor_type_is_named() -> None:
    with pytest.raises(BridgeError, match="DM9999"):
        scales(["DM4310", "DM9999"])


def test_encoding_is_monotonic() -> None:
    rows = [data(encode_command(DM4310, 1, Command(p, 0, 0, 0, 0)))[:2] for p in np.linspace(-13.0, 13.0, 999)]
    assert all(a <= b for a, b in pairwise(rows))


@pytest.mark.parametrize(("identifier", "content"), [(0x800, b""), (-1, b""), (1, bytes(9))])
def test_what_is_no_classic_frame_is_refused(identifier: int, content: bytes) -> None:
    with pytest.raises(BridgeError, match="not a classic CAN frame"):
        frame(identifier, content)


FRAMES: dict[str, Callable[..., np.ndarray]] = {
    "position_velocity": position_velocity_frame,
    "velocity": velocity_frame,
    "force_position": force_position_frame,
}


@pytest.mark.parametrize("vector", GOLDEN["other_modes"], ids=lambda vector: str(vector["data_hex"]))
def test_frames_of_the_other_modes_equal_the_golden_bytes(vector: dict[str, Any]) -> None:
    numbers = {key: value for key, value in vector.items() if key not in ("frame", "can_id", "data_hex", "note")}
    row = FRAMES[vector["frame"]](**numbers)
    assert (can_id(row), data(row).hex()) == (vector["can_id"], vector["data_hex"])


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (position_velocity_frame, (np.nan, 1.0)),
        (position_velocity_frame, (np.inf, 1.0)),
        (position_velocity_frame, (1e39, 1.0)),  # finite, but not as a float32
        (position_velocity_frame, (0.0, -1e-9)),
        (position_velocity_frame, (0.0, np.nan)),
        (velocity_frame, (-np.inf,)),
        (velocity_frame, (np.nan,)),
        (force_position_frame, (np.nan, 1.0, 0.1)),
        (force_position_frame, (0.0, -1.0, 0.1)),
        (force_position_frame, (0.0, 1.0, -0.1)),
        (force_position_frame, (0.0, np.inf, 0.1)),
        (force_position_frame, (0.0, 1.0, np.nan)),
    ],
)
def test_a_frame_of_another_mode_refuses_what_it_cannot_say(
    make: Callable[..., np.ndarray], numbers: tuple[float, ...]
) -> None:
    with pytest.raises(NotEncodable, match="motor 5"):
        make(5, *numbers)


@given(st.floats(width=32))
def test_words_and_float32_are_the_same_bits(value: float) -> None:
    word = int.from_bytes(struct.pack("<f", value), "little")
    assert word_from_f32(value) == word or np.isnan(value)
    assert f32_from_word(word) == value or np.isnan(value)


def test_every_type_has_ranges_above_zero_and_a_gear_ratio_or_none() -> None:
    assert (scales(list(MOTOR_TYPES)) > 0.0).all()
    assert {name: motor.gear_ratio for name, motor in MOTOR_TYPES.items() if motor.gear_ratio} == {
        "DM3507": 7.0,
        "DM4310": 10.0,
        "DM4310V": 10.0,
        "DM4340": 40.0,
        "DM6248": 48.0,
        "DM8009": 9.0,
        "DM_FLOW_WHEEL": 10.0,
    }
