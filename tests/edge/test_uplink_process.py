"""The line to the coordinator, and the process that holds it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgpack
import pytest

from coordinator.network import free_endpoint
from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from edge.uplink.__main__ import FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S, back_off_s
from edge.uplink.memory import group_memory_mb
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.settings import UplinkError
from edge.wire import key_of
from tests.harness.lab_folder import TASK, LabFolder
from tests.harness.uplink_world import (
    EDGE,
    LONG_S,
    NOW_S,
    TRIAL,
    Desk,
    lease,
    leases,
    listening,
    say,
    until_heard,
)


def test_the_coordinator_may_come_later_and_sees_who_is_there(tmp_path: Path) -> None:
    desk, endpoint = Desk(), free_endpoint()
    with Coordinator(endpoint, "station-1") as line:
        with pytest.raises(NoAnswer):
            line.ask(key_of(EDGE, "lease"))
        line.publish_status(b"nobody hears this")
        with listening(endpoint, desk):
            until_heard(line, desk)
            assert desk.here.wait(LONG_S)
            assert not desk.away.is_set()
            deadline_s = time.monotonic() + LONG_S
            while not desk.status_came.is_set() and time.monotonic() < deadline_s:
                line.publish_status(b"resetting")
            assert desk.statuses[0] == (key_of(EDGE, "status"), b"resetting")
            line.close()
            assert desk.away.wait(LONG_S)


@pytest.mark.parametrize("endpoint", ["pigeon/127.0.0.1:1", "nonsense", "", "tcp/", "a\nb/c:1"])
def test_an_endpoint_that_is_none_is_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(UplinkError, match=r"write it as tcp/HOST:PORT") as caught:
        Coordinator(endpoint, "station-1")
    assert repr(endpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a#", "a/b", "$*", "a?", "*", "a*", "a b", "", "a\n", "Bänk"])
def test_an_edge_whose_name_is_no_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UplinkError, match=r"letters, digits, - and _") as caught:
        Coordinator("tcp/127.0.0.1:1", name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_waits_after_failures_grow_to_a_limit_and_differ_across_a_fleet() -> None:
    for draw in (0.0, 0.5, 0.999):
        waits = [back_off_s(failures, draw) for failures in range(1, 2000)]
        assert waits == sorted(waits)
        assert FIRST_BACK_OFF_S / 2 <= waits[0] <= FIRST_BACK_OFF_S
        assert LONGEST_BACK_OFF_S / 2 <= waits[-1] <= LONGEST_BACK_OFF_S
    assert len({back_off_s(3, draw / 10) for draw in range(10)}) == 10


@pytest.mark.parametrize("arguments", [[], ["/nowhere"]])
def test_an_uplink_without_a_station_says_so_and_refuses_its_configuration(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "edge.uplink", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_the_process_carries_until_sigterm_and_reports_meanwhile(tmp_path: Path) -> None:
    lab, desk, endpoint = LabFolder(tmp_path), Desk(), free_endpoint()
    desk.repository = lab.repository
    make_stations(tmp_path, 1, 3, TASK, endpoint, lab.root)
    folder = tmp_path / "station-1"
    with Ledger(folder / "ledger.db", "station-1") as ledger:
        ledger.add_lease(lease("a1", "a2"))
        for sequence in (1, 2):
            found = ledger.next_assignment(NOW_S)
            assert found is not None
            assert ledger.open_trial(*found, NOW_S) == (ledger.epoch, sequence)
        trials = [replace(TRIAL, epoch=ledger.epoch, sequence=n, assignment_id=f"a{n}") for n in (1, 2)]
        ledger.seal(trials[0], None)
        desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity for trial in trials]})
        desk.replies[key_of(EDGE, "lease")] = leases()
        with (
            listening(endpoint, desk),
            subprocess.Popen([sys.executable, "-m", "edge.uplink", str(folder)], stderr=subprocess.PIPE) as uplink,
        ):
            try:
                assert desk.trial_came.wait(LONG_S)
                assert desk.status_came.wait(LONG_S)
                ledger.seal(trials[1], None)
                uplink.send_signal(signal.SIGINT)  # a Ctrl-C is for the supervisor
                uplink.terminate()
                uplink.communicate(timeout=LONG_S)
            finally:
                uplink.kill()
        assert uplink.returncode == 0
        assert desk.away.wait(LONG_S)
        assert ledger.unacked(9) == []
    status = msgpack.unpackb(desk.statuses[0][1])
    assert (status["edge"], status["detail"]) == ("station-1", "the station has not started yet")
    assert status["memory_mb"] > 0


@contextmanager
def group(code: str, processes: int = 1) -> Iterator[int]:
    """Run a program in a process group of its own, and give the group's number once all its processes are there."""
    command = [sys.executable, "-S", "-c", f"{code}\nprint(flush=True)\ninput()"]
    with subprocess.Popen(
        command, process_group=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(processes)] == [b"\n"] * processes
        yield process.pid


def test_a_group_s_memory_is_what_its_processes_hold() -> None:
    with group("") as idle, group("kept = b'x' * 50_000_000") as busy:
        difference_mb = group_memory_mb(busy) - group_memory_mb(idle)
        assert 45.0 < difference_mb < 60.0
    assert group_memory_mb(busy) == 0.0


def test_pages_that_processes_share_are_counted_once() -> None:
    forks = "import os\nkept = b'x' * 50_000_000\nos.fork() and os.fork()"
    with group("") as idle, group(forks, processes=3) as shared:
        assert 50.0 < group_memory_mb(shared) < 100.0 + group_memory_mb(idle)


def test_the_uplink_counts_its_group_and_the_supervisor_outside() -> None:
    counting = "from edge.uplink.memory import own_group_memory_mb as own; print(own())"
    supervisor = "import subprocess, sys\nkept = b'x' * {}\n" + (
        f"subprocess.run([sys.executable, '-c', {counting!r}], process_group=0, check=True)"
    )
    counted_mb = [
        float(subprocess.run([sys.executable, "-c", supervisor.format(size)], capture_output=True, check=True).stdout)
        for size in (0, 50_000_000)
    ]
    assert counted_mb[0] > 0.0
    assert 45.0 < counted_mb[1] - counted_mb[0] < 60.0
