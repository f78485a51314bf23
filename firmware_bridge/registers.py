"""The registers in which a DaMiao motor keeps its configuration, and the frames that read, write and save them.

- Requests go to identifier 0x7FF with the motor's number in the data; the answer comes where feedback comes.
- An answer counts only if motor (D0, D1), operation (D2) and register (D3) are those asked for.
- A register is a float32 or a u32, little-endian. Flash that was never written answers 0xFFFFFFFF, which is a NaN.
- A write lasts until power-off. A save stores every register, works on a disabled motor only, and flash wears out
  (about 10 000 times). Its answer has four bytes and proves nothing: only a power cycle and a reading do.
- The bus must be otherwise idle, because an answer shares its identifier with feedback.

Source: the maker's host software and the vendor manuals, as collected in the project's facts on the YAM arm.
"""

from __future__ import annotations

import math
import struct
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.damiao import MOTOR_TYPES, WATCHDOG_TICKS, Mode
from firmware_bridge.frames import BridgeError, Frames, can_id, data, frame

REGISTER_ID = 0x7FF
UNWRITTEN = 0xFFFFFFFF
WORD_MAX = 0xFFFFFFFF
REGISTER_SPACE = 82  # one above the highest register
SAVE_FLAG = 0x01


class RegisterError(BridgeError):
    """A register request that must not be sent."""


class NotRegisterReply(BridgeError):
    """A frame that does not answer the register request that was made."""


class Op(IntEnum):
    """Third byte of a register request."""

    READ = 0x33
    WRITE = 0x55
    SAVE = 0xAA
    REFRESH = 0xCC


class Register(IntEnum):
    """Number of a register, with the vendor's name."""

    UV_VALUE = 0  # under-voltage threshold, V
    KT_VALUE = 1  # torque constant, N m/A
    OT_VALUE = 2  # coil over-temperature threshold, degrees Celsius
    OC_VALUE = 3  # over-current threshold, share of the driver's greatest current
    ACC = 4
    DEC = 5
    MAX_SPD = 6
    MST_ID = 7  # identifier of every answer
    ESC_ID = 8  # identifier that the motor listens to
    TIMEOUT = 9  # watchdog, 50 us each, 0 is off
    CTRL_MODE = 10
    DAMP = 11
    INERTIA = 12
    HW_VER = 13
    SW_VER = 14
    SN = 15
    NPP = 16  # pole pairs
    RS = 17
    LS = 18
    FLUX = 19
    GR = 20  # gear ratio: the only register that identifies the part
    PMAX = 21
    VMAX = 22
    TMAX = 23
    I_BW = 24
    KP_ASR = 25
    KI_ASR = 26
    KP_APR = 27
    KI_APR = 28
    OV_VALUE = 29  # over-voltage threshold, V
    GREF = 30
    DETA = 31
    V_BW = 32
    IQ_C1 = 33
    VL_C1 = 34
    CAN_BR = 35  # bit rate code, 4 is 1 Mbit/s
    SUB_VER = 36
    U_OFF = 50
    V_OFF = 51
    K1 = 52
    K2 = 53
    M_OFF = 54
    DIR = 55
    P_M = 80  # rotor angle now
    XOUT = 81  # output angle now


WHOLE = frozenset(map(Register, (7, 8, 9, 10, 13, 14, 15, 16, 35, 36)))  # u32; every other one is a float32
WRITABLE = frozenset(map(Register, (*range(11), *range(21, 36))))
# From the facts where they name a value: the thresholds of the 24 V version, a DM4340's bench reading and firmware
# number, the 43 series' pole pairs. The others are zero.
FACTORY: dict[Register, float] = {
    Register.UV_VALUE: 15.0,
    Register.OT_VALUE: 100.0,
    Register.ACC: 2.0,
    Register.MAX_SPD: 600.0,
    Register.CTRL_MODE: Mode.MIT,
    Register.SW_VER: 925970741,
    Register.NPP: 14,
    Register.I_BW: 1000.0,
    Register.OV_VALUE: 32.0,
    Register.V_BW: 40.0,
    Register.CAN_BR: 4,
}


def to_word(register: Register, value: float) -> int:
    """Return the 32 bits that stand for `value` in `register`.

    Raises:
        RegisterError: not a finite float32, or for a u32 not a whole number in its range.
    """
    if register in WHOLE:
        if not (0 <= value <= WORD_MAX and value == int(value)):
            raise RegisterError(f"{register.name} takes a whole number in 0..{WORD_MAX}, not {value}")
        return int(value)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise RegisterError(f"{register.name} takes a finite float32, not {value}")
    return int.from_bytes(struct.pack("<f", value), "little")


def from_word(register: Register, word: int) -> float | int:
    """Return the value that 32 bits stand for in `register`; unwritten flash is NaN, or 0xFFFFFFFF in a u32."""
    if register in WHOLE:
        return word
    value: float = struct.unpack("<f", word.to_bytes(4, "little"))[0]
    return value


def is_unwritten(register: Register, value: float) -> bool:
    """Return whether `value` is what flash answers that was never written."""
    return value == UNWRITTEN if register in WHOLE else math.isnan(value)


def read_request(esc_id: int, register: Register) -> Frames:
    """Return the frame that asks for one register, (16,)."""
    return _request(esc_id, Op.READ, register, 0)


def write_request(esc_id: int, register: Register, value: float) -> Frames:
    """Return the frame that sets one register until power-off, (16,).

    Raises:
        RegisterError: the register is read-only, or the value does not fit it.
    """
    if register not in WRITABLE:
        raise RegisterError(f"{register.name} is read-only")
    return _request(esc_id, Op.WRITE, register, to_word(register, value))


def save_request(esc_id: int) -> Frames:
    """Return the frame that stores every register in flash, (16,); the motor must be disabled."""
    return frame(REGISTER_ID, esc_id.to_bytes(2, "little") + bytes([Op.SAVE, SAVE_FLAG]))


def refresh_request(esc_id: int) -> Frames:
    """Return the frame that asks for ordinary feedback without a command, (16,)."""
    return _request(esc_id, Op.REFRESH, 0, 0)


def decode_reply(row: Frames, esc_id: int, mst_id: int, op: Op, register: Register) -> float | int:
    """Return the value in the answer to a read or a write.

    Raises:
        NotRegisterReply: other identifier, length, motor, operation or register.
    """
    content = data(row)
    asked = esc_id.to_bytes(2, "little") + bytes([op, register])
    if can_id(row) != mst_id or row[4] != 8 or content[:4] != asked:
        raise NotRegisterReply(
            f"frame {can_id(row):#x} {content.hex()} does not answer {op.name} {register.name} of motor {esc_id}"
        )
    return from_word(register, int.from_bytes(content[4:], "little"))


def check_save_reply(row: Frames, esc_id: int, mst_id: int) -> None:
    """Raise unless `row` acknowledges a save; that the registers are in flash it does not prove.

    Raises:
        NotRegisterReply: other identifier, length, motor or operation.
    """
    content = data(row)
    if can_id(row) != mst_id or row[4] != 4 or content[:3] != esc_id.to_bytes(2, "little") + bytes([Op.SAVE]):
        raise NotRegisterReply(f"frame {can_id(row):#x} {content.hex()} does not answer the save of motor {esc_id}")


def factory_words(
    motor_type: str, esc_id: int, mst_id: int, watchdog_ticks: int = WATCHDOG_TICKS
) -> NDArray[np.uint32]:
    """Return what the registers of a motor as delivered hold, (82,); `UNWRITTEN` where there is no register."""
    motor = MOTOR_TYPES[motor_type]
    values: dict[Register, float] = dict.fromkeys(Register, 0.0) | FACTORY
    values |= {Register.ESC_ID: esc_id, Register.MST_ID: mst_id, Register.TIMEOUT: watchdog_ticks}
    values |= dict(zip((Register.PMAX, Register.VMAX, Register.TMAX), motor.scale, strict=True))
    values[Register.SN] = 1000 + esc_id
    words = np.full(REGISTER_SPACE, UNWRITTEN, dtype=np.uint32)
    for register, value in values.items():
        words[register] = to_word(register, value)
    words[Register.GR] = UNWRITTEN if motor.gear_ratio is None else to_word(Register.GR, motor.gear_ratio)
    return words


def _request(esc_id: int, op: Op, register: int, word: int) -> Frames:
    return frame(REGISTER_ID, esc_id.to_bytes(2, "little") + bytes([op, register]) + word.to_bytes(4, "little"))
