"""SLCAN lines keep every frame, however the stream is cut and whatever garbage lies between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import slcan
from firmware_bridge.frames import (
    ERROR_FLAG,
    EXTENDED_FLAG,
    EXTENDED_MASK,
    REMOTE_FLAG,
    BridgeError,
    Frames,
    frame,
)

pytestmark = pytest.mark.filterwarnings("error::numba.core.errors.NumbaWarning")

COMMAND = frame(0x001, bytes.fromhex("7fff7ff0000007ff"))
FEEDBACK = frame(0x012, bytes.fromhex("128a3d86692a2328"))
ROOM = 3  # frames a call of the decoder, so that longer streams need several


def raw(identifier: int, data: bytes, length: int | None = None) -> bytes:
    """Return the sixteen bytes of a frame, flags included in the identifier."""
    size = len(data) if length is None else length
    return identifier.to_bytes(4, "little") + bytes([size, 0, 0, 0]) + data.ljust(8, b"\0")


def frames_of() -> st.SearchStrategy[bytes]:
    """Draw data and remote frames of both identifier lengths."""
    data, length = st.binary(max_size=8), st.integers(0, 8)
    standard = st.integers(0, 0x7FF)
    extended = st.integers(0, EXTENDED_MASK).map(lambda identifier: identifier | EXTENDED_FLAG)
    identifiers = standard | extended
    remote = st.builds(lambda identifier, size: raw(identifier | REMOTE_FLAG, b"", size), identifiers, length)
    return st.builds(raw, identifiers, data) | remote


def encoded(rows: list[bytes]) -> bytes:
    frames = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16).copy()
    out = np.zeros(len(rows) * slcan.LINE_BYTES, dtype=np.uint8)
    return out[: slcan.encode(frames, out)].tobytes()


def decoded(*pieces: bytes) -> tuple[list[bytes], int, int]:
    """Return frames, garbage bytes and refusals of a stream that comes in pieces."""
    rows, garbage, refusals, tail = [], 0, 0, b""
    for piece in pieces:
        tail += piece
        count = ROOM
        while count == ROOM:
            frames = np.full((ROOM, 16), 0xEE, dtype=np.uint8)
            buffer = np.frombuffer(tail or b"\0", dtype=np.uint8).copy()
            count, consumed, spoiled, refused = slcan.decode(buffer, len(tail), frames)
            rows += [row.tobytes() for row in frames[:count]]
            tail, garbage, refusals = tail[consumed:], garbage + spoiled, refusals + refused
    return rows, garbage, refusals


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (COMMAND, "t00187FFF7FF0000007FF\r"),
        (FEEDBACK, "t0128128A3D86692A2328\r"),
        (frame(0x7FF, b""), "t7FF0\r"),
    ],
)
def test_a_frame_is_this_line(row: Frames, line: str) -> None:
    assert encoded([row.tobytes()]) == line.encode()
    assert decoded(line.encode()) == ([row.tobytes()], 0, 0)


@pytest.mark.parametrize(
    ("line", "rows", "garbage", "refusals"),
    [
        (b"\r", [], 0, 0),
        (b"z\rZ\r", [], 0, 0),
        (b"\x07\x07", [], 0, 2),
        (b"t0121AB1F2e\r", [raw(0x012, b"\xab")], 0, 0),  # timestamp
        (b"t0121aB\r", [raw(0x012, b"\xab")], 0, 0),
        (b"r0128\r", [raw(0x012 | REMOTE_FLAG, b"", 8)], 0, 0),
        (b"T1FFFFFFF0\r", [raw(EXTENDED_MASK | EXTENDED_FLAG, b"")], 0, 0),
        (b"T200000000\r", [], 11, 0),  # thirty bits
        (b"t8000\r", [], 6, 0),  # twelve bits
        (b"t0129000102030405060708\r", [], 24, 0),  # nine bytes
        (b"t0122AB\r", [], 8, 0),  # one byte short
        (b"t0121ABCD\r", [], 10, 0),  # one byte long
        (b"t012\r", [], 5, 0),
        (b"V1013\r", [], 6, 0),
        (b"t01t0121AB\r", [raw(0x012, b"\xab")], 3, 0),  # a carriage return was lost
        (b"t012\x07t0121AB\r", [raw(0x012, b"\xab")], 4, 1),
    ],
)
def test_a_line_says(line: bytes, rows: list[bytes], garbage: int, refusals: int) -> None:
    assert decoded(line) == (rows, garbage, refusals)


@given(st.lists(frames_of(), max_size=8))
def test_what_is_encoded_is_decoded(rows: list[bytes]) -> None:
    assert decoded(encoded(rows)) == (rows, 0, 0)


@given(st.lists(frames_of(), min_size=1, max_size=4), st.binary(max_size=40))
def test_where_the_stream_is_cut_changes_nothing(rows: list[bytes], garbage: bytes) -> None:
    stream = garbage + encoded(rows)
    whole = decoded(stream)
    for at in range(len(stream) + 1):
        assert decoded(stream[:at], stream[at:]) == whole
    assert decoded(*(bytes([byte]) for byte in stream)) == whole


@given(st.lists(frames_of(), min_size=1, max_size=4), st.binary(max_size=80), st.data())
def test_garbage_costs_no_more_than_the_frame_that_it_falls_into(
    rows: list[bytes], noise: bytes, data: st.DataObject
) -> None:
    garbage = noise.translate(None, b"tTrR")  # which could begin a frame of its own
    hit = data.draw(st.integers(0, len(rows) - 1), label="frame hit")
    line = encoded([rows[hit]])
    at = data.draw(st.integers(0, len(line) - 1), label="byte hit")
    stream = encoded(rows[:hit]) + line[:at] + garbage + line[at:] + encoded(rows[hit + 1 :])
    got = decoded(stream)[0]
    assert got[:hit] == rows[:hit]
    assert got[len(got) - len(rows[hit + 1 :]) :] == rows[hit + 1 :]
    if at == 0:
        assert got == rows


def test_a_stream_without_an_end_is_not_kept() -> None:
    noise = np.full(1000, ord("5"), dtype=np.uint8)
    assert slcan.decode(noise, 1000, np.zeros((1, 16), dtype=np.uint8)) == (0, 970, 970, 0)


def test_error_frames_do_not_become_lines() -> None:
    assert encoded([raw(ERROR_FLAG | 0x40, bytes(8)), COMMAND.tobytes()]) == encoded([COMMAND.tobytes()])


@pytest.mark.parametrize(("adapter", "letters"), [("lawicel", b"S8"), ("damiao", b"S5")])
def test_one_megabit_has_another_number_on_each_adapter(adapter: str, letters: bytes) -> None:
    assert slcan.opening(adapter, 1_000_000) == b"C\r" + letters + b"\rO\r"


@pytest.mark.parametrize(("adapter", "bitrate"), [("lawicel", 5_000_000), ("damiao", 800_000), ("canable", 1_000_000)])
def test_a_bitrate_that_the_adapter_lacks_is_refused(adapter: str, bitrate: int) -> None:
    with pytest.raises(BridgeError, match=r"lawicel|damiao"):
        slcan.opening(adapter, bitrate)
