"""The status of a station is read whole as it was written, or not at all."""

from __future__ import annotations

import errno
import json
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edge.status import STATES, Status, StatusError, read_status, write_status

STATUS = Status("station-1", "trial", "pushing", "b" * 64, "dev-1", 7, 12.5, 1_700_000_000.0, 310.0)


@pytest.mark.parametrize("state", STATES)
def test_a_status_is_read_as_it_was_written(tmp_path: Path, state: str) -> None:
    path = tmp_path / "status.json"
    for sequence in (1, 2):
        disk = {"free_mb": 1234.5, "rung": "small", "trials_left": 17 if sequence > 1 else None}
        status = replace(STATUS, state=state, sequence=sequence, detail='a "quoted" word – and two\nlines', **disk)
        write_status(path, status)
        assert read_status(path) == status
    assert list(tmp_path.iterdir()) == [path]


def test_no_status_was_written_yet(tmp_path: Path) -> None:
    assert read_status(tmp_path / "status.json") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        json.dumps(asdict(STATUS)).encode()[:-1],
        json.dumps(asdict(STATUS) | {"colour": "red"}).encode(),
    ],
)
def test_what_is_no_status_is_refused_in_one_line_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "status.json"
    path.write_bytes(content)
    with pytest.raises(StatusError, match="delete it") as caught:
        read_status(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("site", ["write_text", "replace"])
def test_a_full_disk_leaves_the_status_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    path = tmp_path / "status.json"
    write_status(path, STATUS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, site, full)
        with pytest.raises(OSError, match="No space"):
            write_status(path, replace(STATUS, sequence=8))
    assert read_status(path) == STATUS
    assert list(tmp_path.iterdir()) == [path]
    write_status(path, replace(STATUS, sequence=9))
    assert read_status(path) == replace(STATUS, sequence=9)


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    statuses = [replace(STATUS, sequence=number, detail="x" * (10 * number)) for number in range(300)]
    write_status(path, statuses[0])

    def write_all() -> None:
        for status in statuses:
            write_status(path, status)

    writer = threading.Thread(target=write_all)
    writer.start()
    seen = [read_status(path)]
    while writer.is_alive():
        seen.append(read_status(path))
    writer.join()
    assert all(status in statuses for status in seen)
    assert read_status(path) == statuses[-1]
