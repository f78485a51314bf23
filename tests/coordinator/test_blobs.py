"""A recording is kept whole under the hash of its content, whenever the coordinator was killed in between."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coordinator.blobs import BlobRefused, Blobs

DATA = b"what happened" * 100
SHA256, SIZE = hashlib.sha256(DATA).hexdigest(), len(DATA)


def part(folder: Path) -> Path:
    return folder / f"{SHA256}.part"


@pytest.mark.parametrize("offset", [0, SIZE - 1, SIZE])
def test_one_that_was_written_whole_before_a_kill_is_finished_when_it_is_asked_about_again(
    tmp_path: Path, offset: int
) -> None:
    part(tmp_path).write_bytes(DATA)
    blobs = Blobs(tmp_path)
    assert blobs.take(SHA256, SIZE, offset, DATA[offset:]) == SIZE
    assert blobs.path(SHA256).read_bytes() == DATA
    assert not part(tmp_path).exists()


@pytest.mark.parametrize("damaged", [DATA[:-1] + b"?", bytes(SIZE), DATA + b"more"])
def test_one_that_a_cut_left_damaged_is_dropped_and_may_come_again(tmp_path: Path, damaged: bytes) -> None:
    part(tmp_path).write_bytes(damaged)
    blobs = Blobs(tmp_path)
    with pytest.raises(BlobRefused, match="hash"):
        blobs.take(SHA256, SIZE, SIZE, b"")
    assert blobs.take(SHA256, SIZE, 0, b"") == 0
    assert blobs.take(SHA256, SIZE, 0, DATA) == SIZE
    assert blobs.path(SHA256).read_bytes() == DATA


@pytest.mark.parametrize("here", [0, 1, SIZE - 1])
def test_one_that_was_cut_short_goes_on_from_there(tmp_path: Path, here: int) -> None:
    part(tmp_path).write_bytes(DATA[:here])
    blobs = Blobs(tmp_path)
    assert blobs.take(SHA256, SIZE, SIZE, b"") == here
    assert blobs.take(SHA256, SIZE, here, DATA[here:]) == SIZE
    assert blobs.path(SHA256).read_bytes() == DATA
