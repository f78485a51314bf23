"""Processes are started again until that is pointless, stopped in order, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONG_S = 60.0  # bound of a wait; nothing is measured by it
# Whatever fails ends by itself, so that no reader waits for ever: the supervisor first, and with it its children.
SUPERVISOR = """
import json, logging, signal, sys
signal.alarm(60)
from edge.supervisor import Restarts, supervise
logging.basicConfig(format="%(message)s")
sys.exit(supervise(json.loads(sys.argv[1]), Restarts(**json.loads(sys.argv[2]))))
"""
CHILD = """
import os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
signal.alarm(120)
"""
# Says its name, process and process group, then waits for signals.
WAITS = "say('up', {0!r}, os.getpid(), os.getpgrp())\nwhile True: signal.pause()"
# Ends well at SIGTERM, and says when that came and when it was done with it.
ENDS_WELL = """
def end(*_):
    say('asked', {0!r})
    say('gone', {0!r})
    os._exit(0)
signal.signal(signal.SIGTERM, end)
"""
IGNORES = (
    "signal.signal(signal.SIGTERM, lambda *_: say('asked', {0!r}))\n"
    "signal.signal(signal.SIGINT, lambda *_: say('hurried', {0!r}))\n"
)
PATIENT = {"quick_s": 1000.0, "most_quick": 1000, "first_wait_s": 0.01, "longest_wait_s": 0.05}


def child(code: str, name: str = "") -> list[str]:
    """Return the command of a child; `{0!r}` in its code is its name."""
    return [sys.executable, "-S", "-c", CHILD + code.format(name), "the", "child", name]


def counting(path: Path, then: str) -> list[str]:
    """Return a child that adds a line to a file whenever it starts; `runs` is how many there are then."""
    code = f"with open({str(path)!r}, 'a+') as f:\n    f.write('x\\n')\n    f.seek(0)\n    runs = len(f.readlines())\n"
    return [sys.executable, "-S", "-c", CHILD + code + then, "the", "counting", "child"]


@contextmanager
def supervised(*commands: list[str], **restarts: float) -> Iterator[subprocess.Popen[str]]:
    """Run a supervisor; its children write to the same pipe."""
    command = [sys.executable, "-c", SUPERVISOR, json.dumps(commands), json.dumps(PATIENT | restarts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(*commands: list[str], **restarts: float) -> tuple[int, str, str]:
    """Supervise until that ends by itself; return the exit code, what was said and what was logged.

    The output ends only once nobody holds the pipe, so this also waits for every child.
    """
    with supervised(*commands, **restarts) as process:
        out, err = process.communicate(timeout=LONG_S)
        return process.returncode, out, err


def heard(process: subprocess.Popen[str], count: int) -> list[list[str]]:
    """Return the next lines that the children say, as words."""
    assert process.stdout is not None
    return [process.stdout.readline().split() for _ in range(count)]


def runs(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_when_the_station_ends_well_all_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "up")
    station = child(f"open({str(tmp_path / 'up')!r}).read()")
    uplink = child(f"{ENDS_WELL}open({str(tmp_path / 'up')!r}, 'w').close()\nwhile True: signal.pause()", "uplink")
    code, out, err = ended(station, uplink)
    assert (code, out.split("\n"), err) == (0, ["asked uplink", "gone uplink", ""], "")


@pytest.mark.parametrize("death", ["os._exit(1)", "os._exit(255)", "os.kill(os.getpid(), 9)", "os.abort()"])
def test_a_station_that_dies_is_started_again(tmp_path: Path, death: str) -> None:
    code, _, err = ended(counting(tmp_path / "runs", f"if runs < 4: {death}"))
    assert (code, runs(tmp_path / "runs")) == (0, 4)
    assert err.count("starting it again") == 3


def test_an_uplink_that_ends_is_started_again_even_if_it_ended_well(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "third")
    station = child(f"open({str(tmp_path / 'third')!r}).read()")
    code, _, _ = ended(
        station,
        counting(tmp_path / "runs", f"if runs < 3: sys.exit(0)\nopen({str(tmp_path / 'third')!r}, 'w').close()"),
    )
    assert code == 0
    assert runs(tmp_path / "runs") >= 3


@pytest.mark.parametrize(
    ("death", "how"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), 40)", "signal 40"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_one_that_only_dies_quickly_stops_everything(tmp_path: Path, death: str, how: str, place: int) -> None:
    commands = [child(ENDS_WELL + WAITS, "other")]
    commands.insert(place, counting(tmp_path / "runs", death))
    code, _, err = ended(*commands, most_quick=3)
    assert (code, runs(tmp_path / "runs")) == (1, 3)
    last = err.splitlines()[-1]
    assert "3 times" in last
    assert how in last


def test_deaths_that_are_not_quick_are_forgiven(tmp_path: Path) -> None:
    code, _, _ = ended(counting(tmp_path / "runs", "if runs < 5: os._exit(1)"), quick_s=0.0, most_quick=2)
    assert (code, runs(tmp_path / "runs")) == (0, 5)


@pytest.mark.parametrize("place", [0, 1])
def test_a_fault_that_no_restart_cures_is_not_tried_again(tmp_path: Path, place: int) -> None:
    commands = [child(ENDS_WELL + WAITS, "other")]
    commands.insert(place, counting(tmp_path / "runs", "sys.exit(2)"))
    code, _, err = ended(*commands)
    assert (code, runs(tmp_path / "runs")) == (2, 1)
    assert "no restart cures" in err


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("path", ["/nowhere/python", "/"])
def test_a_command_that_cannot_be_started_stops_everything(path: str, place: int) -> None:
    commands = [child(ENDS_WELL + WAITS, "other")]
    commands.insert(place, [path, "the", "child"])
    code, _, err = ended(*commands)
    assert code == 127
    [line] = err.splitlines()
    assert f"cannot start {path}: " in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_asks_one_after_the_other_in_the_order_given(number: int) -> None:
    names = ["station", "second", "uplink"]
    with supervised(*(child(ENDS_WELL + WAITS, name) for name in names)) as process:
        assert sorted(words[1] for words in heard(process, 3)) == sorted(names)
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG_S)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == [f"{word} {name}" for name in names for word in ("asked", "gone")]


def test_one_that_does_not_end_in_time_is_killed() -> None:
    commands = child(IGNORES + WAITS, "station"), child(ENDS_WELL + WAITS, "uplink")
    with supervised(*commands, stop_grace_s=1.0) as process:
        heard(process, 2)
        process.terminate()
        out, err = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert out.splitlines()[-2:] == ["asked uplink", "gone uplink"]
    assert "the child station did not end within 1 s" in err


def test_asked_a_second_time_it_waits_no_longer() -> None:
    with supervised(child(IGNORES + WAITS, "station"), stop_grace_s=1e6) as process:
        heard(process, 1)
        process.terminate()
        assert heard(process, 1) == [["asked", "station"]]
        process.terminate()
        out, err = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert "hurried station" in out.splitlines()
    assert "second signal" in err


def test_what_waits_for_its_next_start_is_not_started_by_a_stop(tmp_path: Path) -> None:
    station = child(ENDS_WELL + WAITS, "station")
    uplink = counting(tmp_path / "runs", "os._exit(1)")
    with supervised(station, uplink, first_wait_s=1e6, longest_wait_s=1e6) as process:
        assert process.stderr is not None
        heard(process, 1)
        assert "starting it again in 1000000.0 s" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=LONG_S)
    assert (process.returncode, runs(tmp_path / "runs")) == (0, 1)


def test_when_the_supervisor_is_killed_its_children_die() -> None:
    with supervised(*(child(IGNORES + WAITS, name) for name in ("station", "uplink"))) as process:
        heard(process, 2)
        process.kill()
        # The pipe ends when nobody is left who could write to it; an "asked" would be a SIGTERM, which nobody sent.
        out, _ = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (-signal.SIGKILL, "")


def test_all_children_are_in_one_group_of_their_own_also_after_a_new_start() -> None:
    with supervised(*(child(WAITS, name) for name in ("station", "uplink"))) as process:
        said = heard(process, 2)
        [first] = [int(words[2]) for words in said if words[1] == "station"]
        os.kill(first, signal.SIGKILL)
        [again] = heard(process, 1)
    assert (again[1], int(again[2]) != first) == ("station", True)
    groups = {words[3] for words in [*said, again]}
    assert len(groups) == 1
    assert groups.isdisjoint({str(process.pid), str(os.getpgrp())})
