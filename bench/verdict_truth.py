"""How often the camera's verdict agrees with where the T really lies, in the hard band around the threshold.

200 still T's whose true coverage of the goal lies within 0.05 of the threshold, on several benches with their own
camera noise and light; the arm stands where it stands when it judges. Nothing else
reads the emulator's truth.
Usage: python bench/verdict_truth.py [STATES] [SEED]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.planning.kinematics import chain_of
from edge.records import Outcome
from edge.station import load_station
from edge.tasks.push_t.geometry import Pose, coverage
from edge.tasks.push_t.task import GOAL, SUCCESS_COVERAGE, PushT
from edge.trials.robot import Bench, StationRobot

BENCHES = 4
HARD_BAND = (SUCCESS_COVERAGE - 0.05, SUCCESS_COVERAGE + 0.05)


def main(states: int, seed: int) -> None:
    """Judge the states and print the figures."""
    rng = np.random.default_rng(seed)
    counts = {"true_success": 0, "false_success": 0, "true_failure": 0, "false_failure": 0, "abstained": 0}
    errors_mm = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(make_stations(Path(folder), BENCHES, seed, "push_t", "tcp/127.0.0.1:1")):
            share = states // BENCHES + (number < states % BENCHES)
            for truth, verdict, error_mm in _judge_states(Path(folder) / name, share, rng):
                counts[_kind(truth, verdict)] += 1
                errors_mm.append(error_mm)
            print(f"{name}: {counts}", file=sys.stderr)
    said_success = counts["true_success"] + counts["false_success"]
    were_success = counts["true_success"] + counts["false_failure"]
    rows = [
        _row("precision of the verdict in the hard band", counts["true_success"], said_success, 0.98),
        _row("recall of the verdict in the hard band", counts["true_success"], were_success, 0.98),
        {
            "what": "abstained in the hard band, always as invalid",
            "figure": f"{counts['abstained']}/{states} = {100 * counts['abstained'] / states:.1f} %",
            "bound": "at most 20 %",
            "holds": counts["abstained"] <= 0.2 * states,
        },
        {
            "what": "position error of the picture, mm",
            "figure": f"median {np.median(errors_mm):.2f}, largest {max(errors_mm):.2f} (seed {seed})",
            "bound": "",
            "holds": None,
        },
    ]
    print(json.dumps({"name": "verdict_truth", "rows": rows}))


def _row(what: str, right: int, said: int, least: float) -> dict[str, object]:
    figure = f"{right}/{said} = {100 * right / said:.1f} %"
    return {"what": what, "figure": figure, "bound": f"at least {100 * least:.0f} %", "holds": right >= least * said}


def _judge_states(folder: Path, states: int, rng: np.random.Generator) -> list[tuple[float, Outcome, float]]:
    """Return (true coverage, verdict, position error in mm) of T's laid down in the hard band."""
    station = load_station(folder)
    assert station.emulation is not None
    world = World(station, station.emulation.seed)
    bench = EmulatedBench(station, world)
    drivers = Bench(bench.advance, bench.state, bench.look, lambda: False, bench.power_up, bench.limit)
    robot = StationRobot(drivers, chain_of(station.arm, station.tool.length_m, station.limits), station, 0.0)
    task = PushT()
    judged = []
    for _ in range(states):
        world.place_tee(_hard_pose(rng))
        robot.begin(30.0)
        verdict = task.verify(robot, {})
        truth = world.truth()
        seen = robot.scene().find("tee")
        assert seen is not None
        judged.append(
            (coverage(truth, GOAL), verdict.outcome, 1e3 * np.hypot(seen.x_m - truth[0], seen.y_m - truth[1]))
        )
    world.close()
    return judged


def _hard_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose whose coverage is spread evenly over the hard band."""
    wanted = rng.uniform(*HARD_BAND)
    direction, turn = rng.uniform(-np.pi, np.pi), rng.uniform(-1.0, 1.0)
    low, high = 0.0, 0.02
    for _ in range(40):  # coverage falls along the ray: bisect for the wanted one
        size = (low + high) / 2
        pose = _along(direction, turn, size)
        low, high = (size, high) if coverage(pose, GOAL) > wanted else (low, size)
    return _along(direction, turn, low)


def _along(direction: float, turn: float, size: float) -> Pose:
    away = size * (1 - abs(turn))
    return (GOAL[0] + away * np.cos(direction), GOAL[1] + away * np.sin(direction), GOAL[2] + turn * size / 0.05)


def _kind(truth: float, verdict: Outcome) -> str:
    if verdict is Outcome.INVALID:
        return "abstained"
    right = (verdict is Outcome.SUCCESS) == (truth > SUCCESS_COVERAGE)
    return f"{'true' if right else 'false'}_{verdict.value}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
