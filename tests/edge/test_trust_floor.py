"""A bad sector under one copy of the version floor stops nobody, and under both of them nothing is believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge.trust.errors import TrustError
from edge.trust.floor import Floor, mend_floor, read_floor, write_floor


def unreadable(monkeypatch: pytest.MonkeyPatch, *copies: Path) -> list[int]:
    """Let the disk not read what now lies at some paths; return descriptors that keep the inodes from others."""
    held = [os.open(path, os.O_RDONLY) for path in copies]
    bad, read = {os.fstat(descriptor).st_ino for descriptor in held}, Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.stat().st_ino in bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    return held


@pytest.mark.parametrize("lost", [0, 1])
def test_a_copy_with_a_bad_sector_is_made_anew_from_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    copies = (tmp_path / "one.json", tmp_path / "other.json")
    floor = write_floor(copies, Floor(revoked={"b": "now"}))
    held = unreadable(monkeypatch, copies[lost])
    assert read_floor(copies) == floor
    mend_floor(copies, floor)
    assert copies[0].read_bytes() == copies[1].read_bytes()
    assert len(list(map(os.close, held))) == 1


@pytest.mark.parametrize("other", ["bad", "missing", "damaged"])
def test_no_floor_is_begun_anew_where_one_cannot_be_read_and_no_other_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    copies = (tmp_path / "one.json", tmp_path / "other.json")
    write_floor(copies, Floor())
    held = unreadable(monkeypatch, *(copies if other == "bad" else copies[:1]))
    if other == "missing":
        copies[1].unlink()
    elif other == "damaged":
        copies[1].write_bytes(b"no floor")
    with pytest.raises(TrustError, match="cannot read"):
        read_floor(copies)
    for descriptor in held:
        os.close(descriptor)
