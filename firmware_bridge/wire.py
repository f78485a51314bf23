"""The system calls behind every CAN transport, compiled, so that a real-time loop makes them without the interpreter.

- A wire is one record of `WIRE`; one thread at a time may write, and one may read, without blocking.
- A socket carries one 16-byte frame a packet: raw AF_CAN and AF_UNIX SOCK_SEQPACKET behave alike.
- A serial port carries the bytes of an adapter's codec: one `write` for up to 64 frames, one `read` for what waits.
- When a port takes only part of them, the frame cut in two is finished by the next call, before anything new; the
  frames behind it are dropped and counted as unsent, for a late setpoint is worse than none.
- Error frames of the kernel are counted and set or clear `bus_off`; they are never delivered.

Linux only: numbers of flags and the name of errno's location are glibc's and musl's.
"""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from firmware_bridge import damiao, frames, slcan, usb2can
from firmware_bridge.compiled import sources_of
from firmware_bridge.damiao import read_id
from firmware_bridge.frames import BUS_OFF_ERROR, ERROR_FLAG, FRAME_BYTES, RESTARTED_ERROR, Frames

SOURCES = sources_of(frames, damiao, slcan, usb2can)
SOCKET, SLCAN, USB2CAN = 0, 1, 2
CHUNK_FRAMES = 64
BUFFER_BYTES = 4096
ERRNO_PEER_GONE = errno.EPIPE
EAGAIN, ENOBUFS = errno.EAGAIN, errno.ENOBUFS
WITHOUT_WAITING = 0x40 | 0x4000  # MSG_DONTWAIT, MSG_NOSIGNAL

Record = NDArray[Any]  # one row of WIRE

WIRE = np.dtype(
    [
        ("fd", np.int32),
        ("kind", np.int32),
        ("bus_off", np.uint8),  # 1 from the kernel's "bus off" to its "restarted"
        # Counted since the start.
        ("sent", np.int64),
        ("received", np.int64),
        ("unsent", np.int64),
        ("error_frames", np.int64),  # of the kernel; refusals and failures told by an adapter
        ("garbage_bytes", np.int64),
        # Bytes from the port that are no whole frame yet.
        ("incoming", np.uint8, BUFFER_BYTES),
        ("filled", np.int64),
        # Bytes to the port, where each frame of them ends, and the rest of a frame that was cut in two.
        ("outgoing", np.uint8, CHUNK_FRAMES * max(slcan.LINE_BYTES, usb2can.SENT_BYTES)),
        ("ends", np.int64, CHUNK_FRAMES),
        ("cut_from", np.int64),
        ("cut_to", np.int64),
        # Empty; its name is part of the functions' signature and so keys numba's cache (see firmware_bridge.compiled).
        (f"sources_{SOURCES:08x}", np.uint8),
    ],
    align=True,
)

# By name, not by address as through ctypes, so that numba can keep on disk what calls them.
_libc_send: Any = types.ExternalFunction("send", types.intp(types.intc, types.voidptr, types.uintp, types.intc))
_libc_recv: Any = types.ExternalFunction("recv", types.intp(types.intc, types.voidptr, types.uintp, types.intc))
_libc_write: Any = types.ExternalFunction("write", types.intp(types.intc, types.voidptr, types.uintp))
_libc_read: Any = types.ExternalFunction("read", types.intp(types.intc, types.voidptr, types.uintp))
_libc_errno: Any = types.ExternalFunction("__errno_location", types.CPointer(types.intc)())  # type: ignore[no-untyped-call]


def new_wire(fd: int, kind: int) -> Record:
    """Return the record (1,) of an open, non-blocking file descriptor."""
    wires = np.zeros(1, dtype=WIRE)
    wires["fd"], wires["kind"] = fd, kind
    return wires


@njit(cache=True, nogil=True)
def write_frames(wires: Record, rows: Frames) -> int:
    """Send frames (n, 16), in order, without waiting.

    Returns:
        how many were sent, fewer than n when the queue is full, or -errno.
    """
    wire = wires[0]
    if wire["kind"] == SOCKET:
        sent, error = _send_packets(wire, rows)
    else:
        sent, error = _write_stream(wire, rows)
    wire["sent"] += sent
    wire["unsent"] += rows.shape[0] - sent
    return -error if error not in (0, EAGAIN, ENOBUFS) else sent


@njit(cache=True, nogil=True)
def read_frames(wires: Record, rows: Frames) -> int:
    """Read the frames that wait, oldest first, into `rows` (m, 16), without waiting.

    Returns:
        how many, m when more may wait, or -errno; -EPIPE when the other end has closed.
    """
    wire = wires[0]
    if wire["kind"] == SOCKET:
        count, error = _receive_packets(wire, rows)
    else:
        count, error = _read_stream(wire, rows)
    wire["received"] += count
    # What came before the error is delivered first; an end that is gone says so again at the next call.
    return -error if count == 0 and error not in (0, EAGAIN) else count


@njit(cache=True)
def _errno() -> int:
    return int(_libc_errno()[0])


@njit(cache=True)
def _send_packets(wire: Record, rows: Frames) -> tuple[int, int]:
    """Return how many frames were sent, and the error that ended it."""
    for row in range(rows.shape[0]):
        if _libc_send(wire["fd"], rows[row].ctypes, FRAME_BYTES, WITHOUT_WAITING) < 0:
            return row, _errno()
    return rows.shape[0], 0


@njit(cache=True)
def _receive_packets(wire: Record, rows: Frames) -> tuple[int, int]:
    """Return how many frames were read, and the error that ended it."""
    count = 0
    while count < rows.shape[0]:
        got = _libc_recv(wire["fd"], rows[count].ctypes, FRAME_BYTES, WITHOUT_WAITING)
        if got < 0:
            return count, _errno()
        if got == 0:
            return count, ERRNO_PEER_GONE
        if got != FRAME_BYTES:
            wire["garbage_bytes"] += got
        elif read_id(rows[count]) & ERROR_FLAG:
            _note_error(wire, read_id(rows[count]))
        else:
            count += 1
    return count, 0


@njit(cache=True)
def _note_error(wire: Record, identifier: int) -> None:
    """Count an error frame of the kernel and follow the controller off the bus and back."""
    wire["error_frames"] += 1
    if identifier & BUS_OFF_ERROR:
        wire["bus_off"] = 1
    if identifier & RESTARTED_ERROR:
        wire["bus_off"] = 0


@njit(cache=True)
def _write_stream(wire: Record, rows: Frames) -> tuple[int, int]:
    """Return how many frames were sent, the cut one included, and the error that ended it."""
    wire["cut_from"], error = _write_bytes(wire, int(wire["cut_from"]), int(wire["cut_to"]))
    sent = 0
    while error == 0 and sent < rows.shape[0]:
        count = min(rows.shape[0] - sent, CHUNK_FRAMES)
        written, error = _write_bytes(wire, 0, _encode_chunk(wire, rows[sent : sent + count]))
        if error != 0:
            count = _cut(wire, written)
        sent += count
    return sent, error


@njit(cache=True)
def _encode_chunk(wire: Record, rows: Frames) -> int:
    """Encode up to 64 frames, note where each ends and return how many bytes they are."""
    end = 0
    for row in range(rows.shape[0]):
        if wire["kind"] == SLCAN:
            end += slcan.encode(rows[row : row + 1], wire["outgoing"][end:])
        else:
            end += usb2can.encode(rows[row : row + 1], wire["outgoing"][end:])
        wire["ends"][row] = end
    return end


@njit(cache=True)
def _write_bytes(wire: Record, begin: int, end: int) -> tuple[int, int]:
    """Write the outgoing bytes from `begin` to `end`; return where it stopped, and EAGAIN or another error if early."""
    if begin == end:
        return end, 0
    got = _libc_write(wire["fd"], wire["outgoing"][begin:].ctypes, end - begin)
    if got < 0:
        return begin, _errno()
    return begin + got, 0 if begin + got == end else EAGAIN


@njit(cache=True)
def _cut(wire: Record, written: int) -> int:
    """Keep the rest of the frame that was cut in two after `written` bytes; return how many frames were begun."""
    begun, end = 0, 0
    while end < written:
        end = wire["ends"][begun]
        begun += 1
    wire["cut_from"], wire["cut_to"] = written, end
    return begun


@njit(cache=True)
def _read_stream(wire: Record, rows: Frames) -> tuple[int, int]:
    """Return how many frames were read, and the error that ended it."""
    count = _decode(wire, rows)
    while count < rows.shape[0]:
        room = wire["incoming"][wire["filled"] :]
        got = _libc_read(wire["fd"], room.ctypes, room.shape[0])
        if got <= 0:
            return count, _errno() if got < 0 else ERRNO_PEER_GONE
        wire["filled"] += got
        count += _decode(wire, rows[count:])
    return count, 0


@njit(cache=True)
def _decode(wire: Record, rows: Frames) -> int:
    """Decode what was read, keep the tail and return how many frames there were."""
    if wire["kind"] == SLCAN:
        count, consumed, garbage, errors = slcan.decode(wire["incoming"], int(wire["filled"]), rows)
    else:
        count, consumed, garbage, errors = usb2can.decode(wire["incoming"], int(wire["filled"]), rows)
    wire["garbage_bytes"] += garbage
    wire["error_frames"] += errors
    wire["filled"] -= consumed
    for at in range(wire["filled"]):
        wire["incoming"][at] = wire["incoming"][at + consumed]
    return count
