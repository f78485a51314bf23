"""A Gymnasium environment as a station: an arm's runner, sandbox and records, and the environment's own rule."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.activation.journal import Journal
from edge.gym_station.bench import EnvironmentFault, GymBench, NoEnvironment
from edge.gym_station.process import rig_of
from edge.gym_station.spec import GymSpec, Resetting, Rule, Spot
from edge.gym_station.stations import make_gym_stations
from edge.ledger import Ledger
from edge.messages import ArmState, Setpoint
from edge.records import Assignment, Lease, Outcome, Trial
from edge.retention import Retention
from edge.sandbox.process import PolicyHost
from edge.station import load_station
from edge.trials.armless import DONE, GOES_ON, NO_MORE_STEPS
from edge.trials.board import Board
from edge.trials.runner import Rig, run_trial
from edge.trials.shadow import run_shadow, still
from policies.bundle import read_unpacked
from policies.interface import OutOfReach, Scene
from tests.harness.bundles import unpacked

pytest.importorskip("gymnasium")

PUCK = "tests.harness.tiny_gym:enpire/Puck-v0"
STATION = f"""
name = "station-1"
task = "puck"
station = {{ kind = "gymnasium" }}
workspace = {{ x_m = [0.0, 1.0], y_m = [0.0, 1.0], z_m = [-0.1, 0.1] }}
coordinator = {{ endpoint = "tcp/127.0.0.1:1" }}
recording = {{ camera = "CAMERA" }}
storage = {{ reserve_mb = 4, disk_mb = 2000 }}

[gymnasium]
environment = "{PUCK}"
rate_hz = 20.0
steps = 40
unit_m = 0.01
arguments = {{ fault = "FAULT" }}
tool = {{ x = "tool.0", y = "tool.1" }}
objects = {{ shadow = {{ x = "tool.1", y = "tool.0", yaw = "tool.0" }} }}
action = {{ axes = ["x", "y"] }}
reset = {{ option = "place", entries = ["x", "y"] }}
success = {{ SUCCESS }}
"""
POLICY = 'name = "puck"\ntask = "puck"\napi = 1\nentry = "policy.py"\n'
HEADER = "import numpy as np\nfrom policies.interface import JointTarget, ToolTarget\n\n\ndef run(robot, params):\n    "
THERE = "[robot.step(ToolTarget(np.array([0.5, 0.5, 0.0]))) for _ in range(30)]"
SPOT = Spot((0,), None, None, None)


@dataclass
class Here:
    rig: Rig
    folder: Path
    give: Callable[[str, dict[str, float]], Assignment]


@contextmanager
def at_work(
    tmp_path: Path, fault: str = "", camera: str = "none", success: str = 'info = "solved", progress = "closeness"'
) -> Iterator[Here]:
    make_gym_stations(tmp_path, 1, "gym_pusht", "tcp/127.0.0.1:1")
    folder = tmp_path / "station-1"
    settings = STATION.replace("FAULT", fault).replace("CAMERA", camera).replace("SUCCESS", success)
    (folder / "station.toml").write_text(settings)
    station = load_station(folder)
    assert station.gym is not None
    bench = GymBench(station.gym, pictures=camera != "none")
    retention = Retention(station)

    def give(code: str, start: dict[str, float]) -> Assignment:
        source = tmp_path / f"source-{time.monotonic_ns()}"
        source.mkdir()
        (source / "policy.toml").write_text(POLICY)
        (source / "policy.py").write_text(f"{HEADER}{code}\n")
        name = unpacked(source, folder)
        assignment = Assignment(f"a-{time.monotonic_ns()}", name, "s1", start, 1, "play")
        rig.ledger.add_lease(Lease(assignment.assignment_id, "puck", (assignment,), time.time() + 600))
        return assignment

    with (
        PolicyHost(grace_s=0.2) as host,
        Ledger(folder / "ledger.db", "station-1") as ledger,
        Journal(folder / "activation.db") as journal,
    ):
        board = Board(station, lambda: bench.now_s, retention)
        rig = rig_of(station, bench, board, host, ledger, journal, retention, threading.Event(), lambda: None)
        yield Here(rig, folder, give)
    bench.close()


@pytest.mark.parametrize(
    ("success", "code", "outcome"),
    [
        ('info = "closeness", above = -0.05', "pass", Outcome.FAILURE),
        ('info = "closeness", above = 0.95', THERE, Outcome.SUCCESS),
        ('info = "closeness", above = 2.0', THERE, Outcome.FAILURE),
        ('info = "sloved"', "pass", Outcome.FAILURE),
        ('info = "sloved"', THERE, Outcome.FAILURE),
    ],
)
def test_only_what_the_environment_says_is_a_success(tmp_path: Path, success: str, code: str, outcome: Outcome) -> None:
    trial = tried(tmp_path, code, success=success)
    assert trial.outcome is outcome
    assert ("nothing said of sloved" in trial.detail) is ("sloved" in success)


def tried(tmp_path: Path, code: str, start: dict[str, float] | None = None, **how: str) -> Trial:
    with at_work(tmp_path, **how) as here:
        return run_trial(here.rig, here.give(code, start or {"x": 10.0, "y": 20.0}), "l1")


@pytest.mark.parametrize(
    ("code", "outcome", "cause"),
    [
        (THERE, Outcome.SUCCESS, ""),
        (f"{THERE}; raise ValueError", Outcome.SUCCESS, ""),  # it never gets there: the attempt is over
        ("pass", Outcome.FAILURE, "far"),
        ("robot.step(ToolTarget(np.array([0.5, 0.4, 0.0])))", Outcome.FAILURE, "near"),
        ("robot.step(ToolTarget(np.array([0.5, 0.5, 0.0]))); raise ValueError", Outcome.FAILURE, "crashed"),
        ("[robot.step(ToolTarget(robot.observe().tool_position_m)) for _ in range(99)]", Outcome.FAILURE, "timeout"),
        ("robot.step(ToolTarget(np.array([1.1, 0.5, 0.0])))", Outcome.FAILURE, "crashed"),
        ("robot.step(ToolTarget(np.array([np.nan, 0.5, 0.0])))", Outcome.FAILURE, "bad_target"),
        ("robot.step(JointTarget(np.zeros(6)))", Outcome.FAILURE, "crashed"),
    ],
)
def test_an_attempt_ends_as_the_environment_says_unless_the_policy_is_at_fault(
    tmp_path: Path, code: str, outcome: Outcome, cause: str
) -> None:
    trial = tried(tmp_path, code)
    assert (trial.outcome, trial.cause) == (outcome, cause), trial.detail
    assert (trial.progress == 1.0) == (outcome is Outcome.SUCCESS)
    assert trial.reset_tries == 1
    assert trial.achieved_start == pytest.approx(
        {
            "tool_x_m": 0.1, "tool_y_m": 0.2, "shadow_x_m": 0.2, "shadow_y_m": 0.1,
            "shadow_yaw_rad": 10.0 - 4 * np.pi,
        }
    )  # fmt: skip
    assert trial.recording_bytes > 0


def test_what_a_policy_sees_is_the_tool_zeros_for_joints_and_the_station_s_own_time(tmp_path: Path) -> None:
    code = (
        "seen = robot.step(ToolTarget(np.array([0.3, 0.2, 0.0])));"
        "assert np.allclose(seen.tool_position_m, [0.2, 0.2, 0.0]), seen;"
        "assert seen.time_s == 0.05, seen; assert seen.joints_rad.shape == (6,) and not seen.joints_rad.any();"
        "found = robot.scene().find('shadow'); assert (found.x_m, found.y_m) == (0.2, 0.2), found; robot.note('seen')"
    )
    trial = tried(tmp_path, code)
    assert (trial.cause, trial.notes["policy"], trial.policy_steps) == ("near", "seen", 1), trial.detail
    assert trial.trial_s == pytest.approx(0.05)


def test_a_start_that_the_environment_cannot_be_reset_by_is_the_harness_s_fault(tmp_path: Path) -> None:
    trial = tried(tmp_path, "pass", {"x": 10.0})
    assert (trial.outcome, trial.cause) == (Outcome.INVALID, "reset")
    assert "no y" in trial.detail


@pytest.mark.parametrize("fault", ["reset", "step"])
def test_what_an_environment_raises_ends_the_station_s_process_and_never_counts_against_a_policy(
    tmp_path: Path, fault: str
) -> None:
    with at_work(tmp_path, fault) as here:
        with pytest.raises(EnvironmentFault, match="is gone"):
            run_trial(here.rig, here.give(THERE, {"x": 1.0, "y": 1.0}), "l1")
        assert len(here.rig.ledger.open_trials()) == 1


def test_pictures_are_recorded_where_the_station_keeps_them(tmp_path: Path) -> None:
    without = tried(tmp_path / "without", "robot.scene()")
    within = tried(tmp_path / "within", "robot.scene()", camera="full")
    assert within.recording_bytes > without.recording_bytes


def test_a_shadow_runs_without_an_arm(tmp_path: Path) -> None:
    with at_work(tmp_path) as here:
        assignment = here.give(THERE, {"x": 1.0, "y": 1.0})
        folder = here.folder / "bundles" / assignment.bundle
        state = ArmState(0, np.array([0.1, 0.1, 0.0, 0.0, 0.0, 0.0]), np.zeros(6), np.zeros(6), 0.0)
        run = run_shadow(
            here.rig.host, folder, read_unpacked(folder), still(state, Scene(0.0, ())), here.rig.station, None
        )
    assert (run.fault, run.steps, run.breaches) == ("", 30, 0)


def spec(environment: object = PUCK, **changes: object) -> GymSpec:
    plain = {
        "environment": environment, "arguments": {}, "rate_hz": 10.0, "steps": 50, "unit_m": 1.0, "tool": SPOT,
        "objects": {}, "action": ("x",), "relative": False, "reset": Resetting("", ("seed",)),
        "success": Rule("at", 2.5, "", 1.0),
    }  # fmt: skip
    return GymSpec(**(plain | changes))  # type: ignore[arg-type]


def go(bench: GymBench, *place: float) -> ArmState:
    return bench.advance(Setpoint(np.array([*place, *[0.0] * (6 - len(place))]), 0.0, 0))


def test_whole_actions_and_seeds_do_where_an_environment_has_nothing_else() -> None:
    bench = GymBench(spec("tests.harness.tiny_gym:enpire/Switch-v0"))
    bench.reset({"seed": 3.0})
    begun = bench.state().position_rad[0]
    bench.reset({"seed": 3.0})
    assert bench.state().position_rad[0] == begun
    assert go(bench, 1.0).position_rad[0] == begun + 1
    assert go(bench, 0.2).position_rad[0] == begun
    with pytest.raises(OutOfReach):
        go(bench, 2.0)
    while bench.episode == GOES_ON:
        go(bench, 1.0)
    assert bench.episode == NO_MORE_STEPS


def test_relative_actions_are_the_way_from_the_tool() -> None:
    tool = Spot(("tool", 0), ("tool", 1), None, None)
    plain = spec(PUCK, tool=tool, action=("x", "y"), relative=True, reset=Resetting("place", ("x", "y")))
    bench = GymBench(plain)
    bench.reset({"x": 20.0, "y": 10.0})
    # It is told (30, 40) by the way there, and goes halfway towards what it was told.
    assert go(bench, 50.0, 50.0).position_rad[:2].tolist() == [25.0, 25.0]


def test_the_same_start_has_the_same_luck_and_another_start_another() -> None:
    tool = Spot(("tool", 0), None, None, None)
    bench = GymBench(spec(PUCK, tool=tool, reset=Resetting("place", ("x", "y"))))

    def luck(start: dict[str, float]) -> float:
        bench.reset(start)
        return float(bench._environment.unwrapped.luck)

    one, other = {"x": 20.0, "y": 10.0}, {"x": 20.0, "y": 11.0}
    assert luck(one) == luck(one)
    assert luck(one) != luck(other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": "enpire/Nowhere-v0"}, "cannot be made"),
        ({"environment": "nowhere_at_all:Env-v0"}, "Env-v0 is not installed here (ModuleNotFoundError"),
        ({"arguments": {"speed": 1}}, "cannot be made"),
        ({"arguments": {"fault": "nan"}}, "nan at tool.0"),
        ({"tool": Spot(("tool", 7), None, None, None)}, "no number at tool.7"),
        ({"tool": Spot(("hand",), None, None, None)}, "no number at hand"),
    ],
)
def test_an_environment_that_is_not_as_its_station_says_is_refused_in_one_line(
    changes: dict[str, object], said: str
) -> None:
    with pytest.raises(NoEnvironment) as refused:
        GymBench(spec(**({"environment": PUCK, "tool": Spot(("tool", 0), None, None, None)} | changes)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_gym_pusht_stands_where_a_start_says_and_ends_where_it_is_solved() -> None:
    pytest.importorskip("gym_pusht")
    from tomllib import loads

    from edge.gym_station.spec import read_spec
    from edge.gym_station.stations import ENVIRONMENTS

    bench = GymBench(read_spec(loads(ENVIRONMENTS["gym_pusht"])["gymnasium"]))
    # Its reset turns the block about its centre of mass, which lies 45 up the stem.
    at = np.array([256.0, 256.0]) + 45.0 * np.array([-np.sin(np.pi / 4), np.cos(np.pi / 4)]) - [0.0, 45.0]
    names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    bench.reset(dict(zip(names, [60.0, 70.0, *at.tolist(), np.pi / 4], strict=True)))
    assert bench.state().position_rad[:2] == pytest.approx([0.06, 0.07])
    [tee] = bench.look()[1].objects
    assert (tee.x_m, tee.y_m, tee.yaw_rad) == pytest.approx((0.256, 0.256, np.pi / 4))
    go(bench, 0.06, 0.07)
    assert (bench.episode, bench.info["is_success"]) == (DONE, True)
