"""A CAN frame as a row of sixteen bytes, and the bus that carries such rows.

- A row is laid out like Linux `struct can_frame`: u32 identifier (little-endian), u8 length, 3 bytes of padding,
  8 bytes of data.
- Identifiers are compared as whole u32, so that error, remote and extended frames (flags in the top bits) match nobody.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # (n, 16)

FRAME_BYTES = 16
LENGTH_AT = 4
DATA_AT = 8
DATA_BYTES = 8
# Top bits of an identifier, as in linux/can.h; the rest of an error frame's identifier says what happened.
EXTENDED_FLAG, REMOTE_FLAG, ERROR_FLAG = 0x80000000, 0x40000000, 0x20000000
STANDARD_MASK, EXTENDED_MASK = 0x7FF, 0x1FFFFFFF
BUS_OFF_ERROR, RESTARTED_ERROR = 0x40, 0x100  # linux/can/error.h


class BridgeError(Exception):
    """Base of everything that the firmware bridge raises."""


class BusGone(BridgeError):
    """The adapter was unplugged, the interface taken down or the other end closed."""


class BusOff(BridgeError):
    """The CAN controller left the bus after too many errors."""


class BusFull(BridgeError):
    """Frames were not sent, because the queue towards the bus is full."""


class CanBus(Protocol):
    """Carries frames to and from the motors of one arm."""

    def send(self, frames: Frames) -> None:
        """Send every row of `frames` (n, 16), in order."""
        ...

    def receive(self) -> Frames:
        """Return all frames that wait, oldest first, (n, 16); (0, 16) when there are none."""
        ...


def no_frames() -> Frames:
    """Return an empty (0, 16) array."""
    return np.zeros((0, FRAME_BYTES), dtype=np.uint8)


def frame(can_id: int, data: bytes) -> Frames:
    """Return one frame, (16,).

    Raises:
        BridgeError: more than eight bytes of data, or an identifier of more than eleven bits.
    """
    if len(data) > DATA_BYTES or not 0 <= can_id <= 0x7FF:
        raise BridgeError(
            f"not a classic CAN frame: identifier {can_id:#x} with {len(data)} bytes (0..0x7ff, at most 8)"
        )
    row = np.zeros(FRAME_BYTES, dtype=np.uint8)
    row[0], row[1] = can_id & 0xFF, can_id >> 8
    row[LENGTH_AT] = len(data)
    row[DATA_AT : DATA_AT + len(data)] = np.frombuffer(data, dtype=np.uint8)
    return row


def can_id(row: Frames) -> int:
    """Return the identifier of one frame, flags included."""
    return int.from_bytes(row[:LENGTH_AT].tobytes(), "little")


def data(row: Frames) -> bytes:
    """Return the data bytes of one frame, as many as its length says."""
    return row[DATA_AT : DATA_AT + min(int(row[LENGTH_AT]), DATA_BYTES)].tobytes()
