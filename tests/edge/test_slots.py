"""Slots hand over the newest value, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge.slots import CHECK, HEADER_WORDS, ORDER, SETPOINT, STOW, ArmTaken, Slots, SlotsMissing, claim_arm, slots_path


def setpoint(value: float) -> np.ndarray:
    made = np.zeros(1, dtype=SETPOINT)
    made["target"][0], made["expires_ns"] = value, round(value * 10)
    return made


def test_an_empty_slot_has_number_zero(tmp_path: Path) -> None:
    assert Slots(tmp_path / "slots", create=True).newest("setpoint")[0] == 0


def test_a_reader_gets_the_newest_value_and_its_number(tmp_path: Path) -> None:
    writer = Slots(tmp_path / "slots", create=True)
    reader = Slots(tmp_path / "slots")
    for value in (1.0, 2.0, 3.0):
        writer.put("setpoint", setpoint(value))
    number, newest = reader.newest("setpoint")
    assert (number, newest["target"][0].tolist(), int(newest["expires_ns"][0])) == (3, [3.0] * 7, 30)
    assert reader.newest("order")[0] == 0  # the others are untouched


@pytest.mark.parametrize("word", range(HEADER_WORDS + 8))
def test_a_half_written_value_is_not_taken(tmp_path: Path, word: int) -> None:
    slots = Slots(tmp_path / "slots", create=True)
    slots.put("setpoint", setpoint(1.0))
    slots.words("setpoint")[word] ^= np.uint64(1 << 40)
    assert slots.newest("setpoint")[0] == 0


def test_an_order_survives_until_the_next(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots", create=True)
    order = np.zeros(1, dtype=ORDER)
    order["what"] = STOW
    slots.put("order", order)
    assert [slots.newest("order")[0], int(slots.newest("order")[1]["what"][0])] == [1, STOW]
    assert slots.words("order")[CHECK] != 0


def test_a_new_control_process_empties_the_slots(tmp_path: Path) -> None:
    Slots(tmp_path / "slots", create=True).put("setpoint", setpoint(1.0))
    assert Slots(tmp_path / "slots", create=True).newest("setpoint")[0] == 0


def test_without_a_control_process_there_are_no_slots(tmp_path: Path) -> None:
    with pytest.raises(SlotsMissing, match="no control process runs"):
        Slots(tmp_path / "slots")
    (tmp_path / "other").write_bytes(b"12345678")
    with pytest.raises(SlotsMissing, match="another version"):
        Slots(tmp_path / "other")


def test_an_arm_is_claimed_once_and_the_other_is_told_by_whom_and_what_to_do(tmp_path: Path) -> None:
    name = f"claimed-{os.getpid()}"  # the claim is one of the machine's, and tests run beside each other
    with claim_arm(name, tmp_path / "one"):
        with (
            pytest.raises(ArmTaken, match=rf"process {os.getpid()} has the arm of {name}: stop"),
            claim_arm(name, tmp_path / "one"),
        ):
            pass
        for _ in range(2):  # who is refused takes nothing away of what the next one is told
            with (
                pytest.raises(ArmTaken, match=f"another station named {name}, that of {tmp_path / 'one'}.*`name`"),
                claim_arm(name, tmp_path / "two"),
            ):
                pass
    with claim_arm(name, tmp_path / "two"):
        pass
    slots_path(name).with_suffix(".lock").unlink()
