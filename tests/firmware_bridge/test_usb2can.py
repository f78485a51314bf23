"""USB2CAN records keep every frame, however the stream is cut and whatever garbage lies between."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import usb2can
from firmware_bridge.frames import ERROR_FLAG, EXTENDED_FLAG, EXTENDED_MASK, REMOTE_FLAG, BridgeError, Frames, frame

pytestmark = pytest.mark.filterwarnings("error::numba.core.errors.NumbaWarning")

COMMAND = frame(0x002, bytes.fromhex("8a3c7ff28ffff891"))
ENABLE = frame(0x001, bytes.fromhex("fffffffffffffffc"))
FEEDBACK = frame(0x012, bytes.fromhex("128a3d86692a2328"))
ROOM = 3  # frames a call of the decoder, so that longer streams need several
# Whole records, and bytes that look like their ends.
TRICKY = st.sampled_from([b"\xaa", b"\x55", b"\xaa\x11\x08", b"\xaa\x00", bytes(14) + b"\x55"])


def raw(identifier: int, data: bytes, length: int | None = None) -> bytes:
    """Return the sixteen bytes of a frame, flags included in the identifier."""
    size = len(data) if length is None else length
    return identifier.to_bytes(4, "little") + bytes([size, 0, 0, 0]) + data.ljust(8, b"\0")


def record(row: bytes, kind: int = 0x11) -> bytes:
    """Return what an adapter says when it received the frame `row`."""
    identifier = int.from_bytes(row[:4], "little")
    flags = row[4] | (0x40 if identifier & EXTENDED_FLAG else 0) | (0x80 if identifier & REMOTE_FLAG else 0)
    return bytes([0xAA, kind, flags]) + (identifier & EXTENDED_MASK).to_bytes(4, "little") + row[8:] + b"\x55"


def frames_of(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw data and remote frames of both identifier lengths."""
    extended = st.integers(0, EXTENDED_MASK).map(lambda identifier: identifier | EXTENDED_FLAG)
    identifiers = st.integers(0, 0x7FF) | extended
    remote = st.builds(
        lambda identifier, size: raw(identifier | REMOTE_FLAG, b"", size), identifiers, st.integers(0, 8)
    )
    return st.builds(raw, identifiers, data) | remote


ANY_FRAMES = frames_of(st.binary(max_size=8) | st.lists(st.sampled_from([0xAA, 0x55]), max_size=8).map(bytes))
PLAIN_FRAMES = ANY_FRAMES.filter(lambda row: 0x55 not in row)


def encoded(rows: list[bytes]) -> bytes:
    frames = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16).copy()
    out = np.full(len(rows) * usb2can.SENT_BYTES, 0xEE, dtype=np.uint8)
    return out[: usb2can.encode(frames, out)].tobytes()


def decoded(*pieces: bytes) -> tuple[list[bytes], int, int]:
    """Return frames, garbage bytes and failures of a stream that comes in pieces."""
    rows, garbage, failures, tail = [], 0, 0, b""
    for piece in pieces:
        tail += piece
        count = ROOM
        while count == ROOM:
            frames = np.full((ROOM, 16), 0xEE, dtype=np.uint8)
            buffer = np.frombuffer(tail or b"\0", dtype=np.uint8).copy()
            count, consumed, spoiled, failed = usb2can.decode(buffer, len(tail), frames)
            rows += [row.tobytes() for row in frames[:count]]
            tail, garbage, failures = tail[consumed:], garbage + spoiled, failures + failed
    return rows, garbage, failures


@pytest.mark.parametrize(
    ("row", "hex_bytes"),
    [
        (COMMAND, "55aa1e03010000000a0000000002000000000800008a3c7ff28ffff891bc"),
        (ENABLE, "55aa1e03010000000a000000000100000000080000fffffffffffffffcc1"),
    ],  # the CRC at their ends follows from the vendor's example frame
)
def test_a_frame_is_sent_as_this_record(row: Frames, hex_bytes: str) -> None:
    assert encoded([row.tobytes()]).hex() == hex_bytes


@given(ANY_FRAMES)
def test_a_sent_record_holds_the_frame(row: bytes) -> None:
    sent = encoded([row])
    identifier = int.from_bytes(row[:4], "little")
    assert int.from_bytes(sent[13:17], "little") == identifier & EXTENDED_MASK
    assert (sent[12], sent[17]) == (identifier >> 31, identifier >> 30 & 1)
    assert (sent[18], sent[21:29]) == (row[4], row[8:])


@pytest.mark.parametrize(
    ("kind", "rows", "garbage", "failures"),
    [
        (0x11, [FEEDBACK.tobytes()], 0, 0),
        (0x00, [], 0, 0),
        (0x12, [], 0, 0),
        (0x13, [], 0, 0),
        (0x01, [], 0, 1),
        (0x02, [], 0, 1),
        (0x03, [], 0, 1),
        (0xEE, [], 0, 1),
        (0x55, [], 16, 0),
    ],
)
def test_a_record_says(kind: int, rows: list[bytes], garbage: int, failures: int) -> None:
    assert decoded(record(FEEDBACK.tobytes(), kind)) == (rows, garbage, failures)


@pytest.mark.parametrize(
    "spoiled",
    [
        "aa110912000000128a3d86692a232855",  # nine bytes
        "aa110800080000128a3d86692a232855",  # twelve bits of identifier
        "aa110800000012128a3d86692a232855",  # identifier big-endian
        "aa114800000020128a3d86692a232855",  # thirty bits
        "aa110812000000128a3d86692a232854",  # no end
    ],
)
def test_no_record_is_garbage(spoiled: str) -> None:
    assert decoded(bytes.fromhex(spoiled) + record(FEEDBACK.tobytes())) == ([FEEDBACK.tobytes()], 16, 0)


@given(st.lists(ANY_FRAMES, max_size=8))
def test_records_become_their_frames(rows: list[bytes]) -> None:
    assert decoded(b"".join(map(record, rows))) == (rows, 0, 0)


@given(st.lists(ANY_FRAMES, min_size=1, max_size=4), st.binary(max_size=40) | TRICKY)
def test_where_the_stream_is_cut_changes_nothing(rows: list[bytes], garbage: bytes) -> None:
    stream = garbage + b"".join(map(record, rows))
    whole = decoded(stream)
    for at in range(len(stream) + 1):
        assert decoded(stream[:at], stream[at:]) == whole
    assert decoded(*(bytes([byte]) for byte in stream)) == whole


@given(st.lists(ANY_FRAMES, min_size=1, max_size=4), st.binary(max_size=40), st.data())
def test_garbage_without_heads_costs_only_itself(rows: list[bytes], noise: bytes, data: st.DataObject) -> None:
    garbage = noise.replace(b"\xaa", b"")
    hit = data.draw(st.integers(0, len(rows)), label="before frame")
    records = [record(row) for row in rows]
    stream = b"".join([*records[:hit], garbage, *records[hit:]])
    assert decoded(stream) == (rows, len(garbage), 0)


@given(st.lists(PLAIN_FRAMES, min_size=2, max_size=5), st.binary(max_size=15) | TRICKY, st.data())
def test_any_garbage_leaves_frames_without_a_foot_in_them_intact(
    rows: list[bytes], garbage: bytes, data: st.DataObject
) -> None:
    hit = data.draw(st.integers(0, len(rows)), label="before frame")
    records = [record(row) for row in rows]
    stream = b"".join([*records[:hit], garbage, *records[hit:]])
    assert decoded(stream)[0] == rows


@given(st.lists(PLAIN_FRAMES, min_size=2, max_size=5), st.integers(1, 15), st.data())
def test_a_truncated_record_costs_only_itself(rows: list[bytes], kept: int, data: st.DataObject) -> None:
    hit = data.draw(st.integers(0, len(rows) - 2), label="frame hit")
    records = [record(row) for row in rows]
    records[hit] = records[hit][:kept]
    assert decoded(b"".join(records))[0] == rows[:hit] + rows[hit + 1 :]


def test_error_frames_do_not_become_records() -> None:
    assert encoded([raw(ERROR_FLAG | 0x40, bytes(8)), COMMAND.tobytes()]) == encoded([COMMAND.tobytes()])


def test_the_bitrate_is_set_by_its_index() -> None:
    assert usb2can.opening(1_000_000).hex() == "550500aa55"
    assert usb2can.opening(5_000).hex() == "55050eaa55"


def test_a_bitrate_that_the_adapter_lacks_is_refused() -> None:
    with pytest.raises(BridgeError, match="1000000"):
        usb2can.opening(2_000_000)
