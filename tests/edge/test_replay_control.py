"""Recorded setpoints go through today's control: what it refuses, where it begins anew, and what it cannot replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.emulation.stations import make_stations
from edge.messages import Setpoint
from edge.replay.replay import replay
from edge.replay.result import Replay
from edge.trials.recording import Recording
from policies.interface import Observation

PERIOD_NS = 33_333_336
POSE = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])


@pytest.fixture
def station(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return tmp_path / "station-1"


def seen(joints_rad: np.ndarray) -> Observation:
    return Observation(0.0, joints_rad, np.zeros(6), np.zeros(6), np.zeros(3), np.array([1.0, 0, 0, 0]), 0.0)


def moved(path: Path, poses: list[tuple[int, np.ndarray, np.ndarray]], *faults: tuple[int, str]) -> Path:
    """Record periods of (time, asked-for, measured), each with a measurement before and after, and faults."""
    with Recording(path) as recording:
        recording.event(0, "trial", "{}")
        for time_ns, asked, measured in poses:
            for fault_ns, text in faults:
                if time_ns - PERIOD_NS < fault_ns <= time_ns:
                    recording.event(fault_ns, "fault", text)
            recording.joints(time_ns, seen(measured))
            recording.setpoint(time_ns, Setpoint(asked, 0.0, time_ns))
            recording.joints(time_ns + PERIOD_NS, seen(measured))
        recording.seal()
    return path


def still(from_ns: int, pose: np.ndarray, periods: int = 30) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [(from_ns + number * PERIOD_NS, pose, pose) for number in range(periods)]


def control_of(path: Path, station: Path) -> Replay:
    result = replay(path, station)
    assert result.control is not None
    assert result.perception is result.verdict is None
    return result


def test_what_the_guard_refuses_now_and_let_pass_then_is_said(station: Path, tmp_path: Path) -> None:
    poses = still(0, POSE)
    poses[12] = (poses[12][0], np.full(6, np.nan), POSE)
    result = control_of(moved(tmp_path / "nan.mcap", poses), station)
    assert result.control is not None
    [stop] = result.control.new_refusals
    assert "the guard refused" in stop.text
    assert stop.at_s == pytest.approx(13 * PERIOD_NS * 1e-9, abs=1e-6)
    assert result.control.compared > 50  # it goes on after that
    assert not result.same


def test_the_same_refusal_then_and_now_is_no_difference(station: Path, tmp_path: Path) -> None:
    poses = still(0, POSE)
    poses[12] = (poses[12][0], np.full(6, np.nan), POSE)
    fault = (13 * PERIOD_NS, "the guard refused a setpoint: joint 1 is not finite")
    result = control_of(moved(tmp_path / "nan.mcap", poses, fault), station)
    assert result.same
    assert any("was stopped at 0.43 s: the guard refused" in note for note in result.notes)


def test_a_refusal_that_does_not_come_any_more_is_said(station: Path, tmp_path: Path) -> None:
    faults = [
        (9 * PERIOD_NS, "the guard refused a setpoint: joint 1 moves too fast"),
        (19 * PERIOD_NS, "motor 2 is silent"),
    ]
    result = control_of(moved(tmp_path / "gone.mcap", still(0, POSE), *faults), station)
    assert result.control is not None
    assert [stop.text for stop in result.control.gone_refusals] == [faults[0][1]]  # the motor is not the guard's
    assert not result.same


@pytest.mark.parametrize(("pause_s", "same"), [(0.6, True), (0.0, False)])
def test_after_a_pause_the_arm_begins_where_it_was_measured(
    station: Path, tmp_path: Path, pause_s: float, same: bool
) -> None:
    there = POSE + np.array([0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    poses = still(0, POSE, 20) + still(20 * PERIOD_NS + round(pause_s * 1e9), there, 20)
    assert control_of(moved(tmp_path / "pause.mcap", poses), station).same is same


def test_a_clock_that_jumps_by_a_year_ends_nothing(station: Path, tmp_path: Path) -> None:
    poses = still(0, POSE, 20) + still(365 * 86_400 * 10**9, POSE, 20)
    assert control_of(moved(tmp_path / "year.mcap", poses), station).same
