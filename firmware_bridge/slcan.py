"""CAN frames as the text lines of an SLCAN (LAWICEL) adapter, and back.

- `tIIILdd..` is a data frame, `T` one with a 29-bit identifier, `r` and `R` ask for data; carriage return ends a line.
- Four hexadecimal digits after the data are the adapter's timestamp; they are skipped.
- An empty line, `z` or `Z` acknowledges and says nothing more; a BELL refuses and is counted as an error.
- Only the last letter of a line can begin a frame, for all that follows it is hexadecimal. So whatever garbage stands
  before a frame costs nothing but itself.
- There is no checksum: a flipped digit is another frame.

Source: the LAWICEL command set, as collected in the project's facts on the YAM arm; never tried on an adapter.
"""

from __future__ import annotations

from numba import njit

from firmware_bridge.damiao import read_id
from firmware_bridge.frames import (
    DATA_AT,
    DATA_BYTES,
    ERROR_FLAG,
    EXTENDED_FLAG,
    EXTENDED_MASK,
    LENGTH_AT,
    REMOTE_FLAG,
    STANDARD_MASK,
    BridgeError,
    Frames,
)

LINE_BYTES = 27  # the longest line that is sent: T, 8 + 1 + 16 digits, carriage return
LONGEST_TAIL = 30  # the longest line that comes, timestamp included, before its carriage return
CR, BELL = 0x0D, 0x07
DATA, DATA_EXTENDED, REMOTE, REMOTE_EXTENDED = 0x74, 0x54, 0x72, 0x52  # t T r R
LOWER_Z, UPPER_Z = 0x7A, 0x5A
STANDARD_DIGITS, EXTENDED_DIGITS, TIMESTAMP_DIGITS = 3, 8, 4

# Digit after S for each bitrate. DaMiao's USB2CANFD numbers anew: the usual S8 for 1 Mbit/s sets 5 Mbit/s on it.
BITRATES = {
    "lawicel": {
        10_000: 0,
        20_000: 1,
        50_000: 2,
        100_000: 3,
        125_000: 4,
        250_000: 5,
        500_000: 6,
        800_000: 7,  # CANable firmware sets 750 kbit/s
        1_000_000: 8,
    },
    "damiao": {
        100_000: 0,
        125_000: 1,
        200_000: 2,
        250_000: 3,
        500_000: 4,
        1_000_000: 5,
        2_000_000: 6,
        4_000_000: 7,
        5_000_000: 8,
    },
}
CLOSING = b"C\r"


def opening(adapter: str, bitrate: int) -> bytes:
    """Return the commands that close the channel, set its bitrate and open it.

    An adapter whose channel was closed already may refuse the first with a BELL.

    Raises:
        BridgeError: unknown adapter, or a bitrate that it does not have.
    """
    if adapter not in BITRATES:
        raise BridgeError(f"unknown SLCAN adapter {adapter!r} (known: {', '.join(BITRATES)})")
    if bitrate not in BITRATES[adapter]:
        known = ", ".join(map(str, BITRATES[adapter]))
        raise BridgeError(f"SLCAN adapter {adapter!r} has no bitrate {bitrate} (it has {known})")
    return CLOSING + f"S{BITRATES[adapter][bitrate]}\rO\r".encode()


@njit(cache=True, nogil=True)
def encode(frames: Frames, out: Frames) -> int:
    """Write the lines of frames (n, 16) into `out` (at least 27 n,), return the bytes; error frames have none."""
    at = 0
    for row in range(frames.shape[0]):
        if not read_id(frames[row]) & ERROR_FLAG:
            at = _write_line(frames[row], out, at)
    return at


@njit(cache=True, nogil=True)
def decode(buffer: Frames, filled: int, frames_out: Frames) -> tuple[int, int, int, int]:
    """Read the complete lines in the first `filled` bytes of `buffer` into `frames_out` (m, 16).

    Returns:
        frames read, bytes consumed (what follows them, at most 30 unless `frames_out` is full, waits for more),
        garbage bytes among those consumed, and refusals of the adapter.
    """
    count, consumed, garbage, refusals = 0, 0, 0, 0
    for at in range(filled):
        if count == frames_out.shape[0]:
            return count, consumed, garbage, refusals
        if buffer[at] == BELL:
            refusals += 1
            garbage += at - consumed
            consumed = at + 1
        elif buffer[at] == CR:
            start = _read_line(buffer, consumed, at, frames_out[count])
            if start >= 0:
                count += 1
                garbage += start - consumed
            elif not _acknowledges(buffer, consumed, at):
                garbage += at + 1 - consumed
            consumed = at + 1
    excess = max(filled - consumed - LONGEST_TAIL, 0)
    return count, consumed + excess, garbage + excess, refusals


@njit(cache=True)
def _write_line(row: Frames, out: Frames, at: int) -> int:
    """Write one frame's line at `at` and return where it ends."""
    identifier, length = read_id(row), min(int(row[LENGTH_AT]), DATA_BYTES)
    remote = identifier & REMOTE_FLAG != 0
    if identifier & EXTENDED_FLAG:
        out[at] = REMOTE_EXTENDED if remote else DATA_EXTENDED
        at = _write_hex(identifier & EXTENDED_MASK, EXTENDED_DIGITS, out, at + 1)
    else:
        out[at] = REMOTE if remote else DATA
        at = _write_hex(identifier & STANDARD_MASK, STANDARD_DIGITS, out, at + 1)
    at = _write_hex(length, 1, out, at)
    if not remote:
        for byte in range(length):
            at = _write_hex(int(row[DATA_AT + byte]), 2, out, at)
    out[at] = CR
    return at + 1


@njit(cache=True)
def _write_hex(value: int, digits: int, out: Frames, at: int) -> int:
    """Write `value` in upper-case digits at `at` and return where they end."""
    for place in range(digits):
        nibble = value >> 4 * (digits - 1 - place) & 0xF
        out[at + place] = nibble + 0x30 if nibble < 10 else nibble + 0x37
    return at + digits


@njit(cache=True)
def _read_line(buffer: Frames, begin: int, end: int, row: Frames) -> int:
    """Read the frame at the end of a line into `row` (16,) and return where it starts, -1 when there is none."""
    digits_at = end
    while digits_at > begin and _nibble(buffer[digits_at - 1]) >= 0:
        digits_at -= 1
    start = digits_at - 1
    if start < begin:
        return -1
    letter = buffer[start]
    extended = letter in (DATA_EXTENDED, REMOTE_EXTENDED)
    if not (extended or letter in (DATA, REMOTE)):
        return -1
    remote = letter in (REMOTE, REMOTE_EXTENDED)
    return start if _read_digits(buffer, digits_at, end, extended, remote, row) else -1


@njit(cache=True)
def _read_digits(buffer: Frames, begin: int, end: int, extended: bool, remote: bool, row: Frames) -> bool:
    """Read identifier, length and data; return whether the digits are as many as the length asks for."""
    id_digits = EXTENDED_DIGITS if extended else STANDARD_DIGITS
    if end - begin <= id_digits:
        return False
    identifier = _read_hex(buffer, begin, id_digits)
    length = _read_hex(buffer, begin + id_digits, 1)
    data_at = begin + id_digits + 1
    spare = end - data_at - (0 if remote else 2 * length)
    fits = identifier <= (EXTENDED_MASK if extended else STANDARD_MASK) and length <= DATA_BYTES
    if not fits or spare not in (0, TIMESTAMP_DIGITS):
        return False
    _write_header(row, identifier | (EXTENDED_FLAG if extended else 0) | (REMOTE_FLAG if remote else 0), length)
    if not remote:
        for byte in range(length):
            row[DATA_AT + byte] = _read_hex(buffer, data_at + 2 * byte, 2)
    return True


@njit(cache=True)
def _write_header(row: Frames, identifier: int, length: int) -> None:
    """Clear one frame and write its identifier, flags included, and its length."""
    row[:] = 0
    for byte in range(LENGTH_AT):
        row[byte] = identifier >> 8 * byte & 0xFF
    row[LENGTH_AT] = length


@njit(cache=True)
def _read_hex(buffer: Frames, at: int, digits: int) -> int:
    value = 0
    for place in range(digits):
        value = value << 4 | _nibble(buffer[at + place])
    return value


@njit(cache=True)
def _nibble(character: int) -> int:
    """Return the value of a hexadecimal digit of either case, -1 for any other character."""
    if 0x30 <= character <= 0x39:
        return int(character) - 0x30
    if 0x41 <= character <= 0x46:
        return int(character) - 0x37
    if 0x61 <= character <= 0x66:
        return int(character) - 0x57
    return -1


@njit(cache=True)
def _acknowledges(buffer: Frames, begin: int, end: int) -> bool:
    return begin == end or (end - begin == 1 and buffer[begin] in (LOWER_Z, UPPER_Z))
