"""CAN frames as the binary records of DaMiao's USB2CAN adapter, and back.

- Towards the adapter a frame is 30 bytes, `55 AA 1E 03` to CRC-8; command 03 asks for no acknowledgement.
- From it every record is 16 bytes, `AA` to `55`. These bytes occur in data too and there is no checksum, so a record
  also needs a known kind, a length of at most 8 and, where it carries a frame, an identifier that fits its flags.
- Notices (heartbeat, "sent", "bitrate set") are skipped; failures are counted as errors.
- Identifiers from the adapter are read little-endian. One client of three says big-endian: its standard frames would
  all be counted as garbage here, not mistaken for others.

Source: the vendor's manual, as collected in the project's facts on the YAM arm; never tried on an adapter.
"""

from __future__ import annotations

import numpy as np
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

BAUD = 921_600  # factory setting
SENT_BYTES, TAKEN_BYTES = 30, 16
SEND_QUIETLY = 0x03
REPEATS, INTERVAL_100_US = 1, 0x0A  # the vendor's usual values; a frame goes out once, so the interval is idle
SENT_ID_AT, SENT_DATA_AT, CRC_AT = 13, 21, 29
HEAD, FOOT = 0xAA, 0x55
KIND_AT, FLAGS_AT, TAKEN_ID_AT, TAKEN_DATA_AT = 1, 2, 3, 7
LENGTH_BITS, EXTENDED_BIT, REMOTE_BIT = 0x3F, 0x40, 0x80
RECEIVED, RECEIVE_FAILED, SEND_FAILED, BITRATE_FAILED, FAILED = 0x11, 0x01, 0x02, 0x03, 0xEE
HEARTBEAT, SENT, BITRATE_SET = 0x00, 0x12, 0x13
POLYNOMIAL = 0x8C  # 0x31 reflected

# Index of each bitrate whose index is known.
BITRATES = {
    1_000_000: 0,
    800_000: 1,
    666_000: 2,
    500_000: 3,
    400_000: 4,
    250_000: 5,
    200_000: 6,
    125_000: 7,
    100_000: 8,
    5_000: 14,
}
CLOSING = bytes.fromhex("5503aa55")  # stop


def opening(bitrate: int) -> bytes:
    """Return the command that sets the CAN bitrate; the adapter has none to open.

    Raises:
        BridgeError: a bitrate that the adapter does not have.
    """
    if bitrate not in BITRATES:
        raise BridgeError(f"USB2CAN has no bitrate {bitrate} (it has {', '.join(map(str, BITRATES))})")
    return bytes([0x55, 0x05, BITRATES[bitrate], 0xAA, 0x55])


def _crc_table() -> Frames:
    """Return the CRC-8 of every byte, (256,)."""
    table = np.arange(256, dtype=np.uint8)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ POLYNOMIAL, table >> 1).astype(np.uint8)
    return table


CRC_TABLE = _crc_table()


@njit(cache=True, nogil=True)
def encode(frames: Frames, out: Frames) -> int:
    """Write the records of frames (n, 16) into `out` (at least 30 n,), return the bytes; error frames have none."""
    at = 0
    for row in range(frames.shape[0]):
        if not read_id(frames[row]) & ERROR_FLAG:
            _write_record(frames[row], out[at : at + SENT_BYTES])
            at += SENT_BYTES
    return at


@njit(cache=True, nogil=True)
def decode(buffer: Frames, filled: int, frames_out: Frames) -> tuple[int, int, int, int]:
    """Read the complete records in the first `filled` bytes of `buffer` into `frames_out` (m, 16).

    Returns:
        frames read, bytes consumed (what follows them, at most 15 unless `frames_out` is full, waits for more),
        garbage bytes among those consumed, and failures that the adapter told.
    """
    count, at, garbage, failures = 0, 0, 0, 0
    while at < filled and count < frames_out.shape[0]:
        if buffer[at] == HEAD and filled - at < TAKEN_BYTES:
            break
        if buffer[at] != HEAD or not _is_record(buffer[at : at + TAKEN_BYTES]):
            garbage += 1
            at += 1
            continue
        kind = buffer[at + KIND_AT]
        if kind == RECEIVED:
            _read_record(buffer[at : at + TAKEN_BYTES], frames_out[count])
            count += 1
        elif kind in (RECEIVE_FAILED, SEND_FAILED, BITRATE_FAILED, FAILED):
            failures += 1
        at += TAKEN_BYTES
    return count, at, garbage, failures


@njit(cache=True)
def _write_record(row: Frames, record: Frames) -> None:
    """Write one frame (16,) as a record (30,)."""
    identifier = read_id(row)
    extended = identifier & EXTENDED_FLAG != 0
    identifier &= EXTENDED_MASK if extended else STANDARD_MASK
    record[:] = 0
    record[0], record[1], record[2], record[3] = 0x55, 0xAA, SENT_BYTES, SEND_QUIETLY
    record[4], record[8] = REPEATS, INTERVAL_100_US
    record[12] = 1 if extended else 0
    for byte in range(LENGTH_AT):
        record[SENT_ID_AT + byte] = identifier >> 8 * byte & 0xFF
    record[17] = 1 if read_id(row) & REMOTE_FLAG else 0
    record[18] = min(int(row[LENGTH_AT]), DATA_BYTES)
    record[SENT_DATA_AT:CRC_AT] = row[DATA_AT:]
    record[CRC_AT] = _crc(record)


@njit(cache=True)
def _crc(record: Frames) -> int:
    """Return the CRC-8 of a record whose own CRC byte is still zero."""
    crc = 0
    for byte in range(record.shape[0]):
        crc = int(CRC_TABLE[crc ^ int(record[byte])])
    return crc


@njit(cache=True)
def _is_record(record: Frames) -> bool:
    """Return whether sixteen bytes, the first of them `AA`, are a record."""
    kind, flags = record[KIND_AT], record[FLAGS_AT]
    if record[TAKEN_BYTES - 1] != FOOT or flags & LENGTH_BITS > DATA_BYTES:
        return False
    if kind in (RECEIVED, RECEIVE_FAILED):
        return read_id(record[TAKEN_ID_AT:]) <= (EXTENDED_MASK if flags & EXTENDED_BIT else STANDARD_MASK)
    return kind in (HEARTBEAT, SENT, SEND_FAILED, BITRATE_SET, BITRATE_FAILED, FAILED)


@njit(cache=True)
def _read_record(record: Frames, row: Frames) -> None:
    """Read the frame in a record (16,) into `row` (16,)."""
    flags = int(record[FLAGS_AT])
    length = flags & LENGTH_BITS
    row[:] = 0
    row[:LENGTH_AT] = record[TAKEN_ID_AT:TAKEN_DATA_AT]
    # The record's two flag bits lie one above the other, in the other order than in a frame's identifier.
    row[LENGTH_AT - 1] |= (flags & EXTENDED_BIT) << 1 | (flags & REMOTE_BIT) >> 1
    row[LENGTH_AT] = length
    if not flags & REMOTE_BIT:
        row[DATA_AT : DATA_AT + length] = record[TAKEN_DATA_AT : TAKEN_DATA_AT + length]
