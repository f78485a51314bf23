"""A killed process's folders are swept; those in which somebody works, and those of others, stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from coordinator.agents.scratch import DAY_S, PREFIX, scratch, sweep

HOLDS = """
import time
from coordinator.agents.scratch import scratch
with scratch() as folder:
    (folder / "work").mkdir()
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_with_its_run_whatever_happens(temporary: Path) -> None:
    def fails() -> None:
        with scratch() as folder:
            (folder / "work").mkdir()
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert list(temporary.iterdir()) == []


def test_a_folder_in_use_stays_and_that_of_a_killed_process_is_swept(temporary: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", HOLDS], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    with scratch() as mine:
        assert sweep() == 0
        assert (folder / "work").is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert sweep() == 1
        assert not folder.exists()
        assert mine.is_dir()


def test_what_is_nobody_s_to_sweep_stays(temporary: Path) -> None:
    other, new, old = (temporary / name for name in ("other-agent-1", f"{PREFIX}new", f"{PREFIX}old"))
    for folder in (other, new, old):
        folder.mkdir()
    (other / "lock").touch()
    (temporary / f"{PREFIX}link").symlink_to(other)
    past_s = time.time() - 2 * DAY_S
    os.utime(old, (past_s, past_s))
    assert sweep() == 1
    assert sorted(path.name for path in temporary.iterdir()) == [f"{PREFIX}link", f"{PREFIX}new", other.name]
