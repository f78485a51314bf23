"""Whole trials on an emulated station: what each kind of policy leaves in the ledger."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest
from mcap.reader import make_reader

from edge.activation.journal import Journal
from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.ledger import Ledger
from edge.planning.kinematics import chain_of
from edge.records import Assignment, Lease, Outcome, Trial, decode, encode
from edge.retention import Retention
from edge.sandbox.process import PolicyHost
from edge.station import load_station
from edge.tasks.push_t.task import PushT
from edge.trials import runner
from edge.trials.recorder import Recorder
from edge.trials.robot import Bench, StationRobot
from edge.trials.rollout import Rollout
from edge.trials.runner import Rig, run_trial, work
from policies import bundle
from tests.harness.bundles import unpacked

POLICY = Path(bundle.__file__).parent / "push_t"
START = {"x_m": 0.30, "y_m": -0.05, "yaw_rad": 1.0}
HEADER = "import numpy as np\nfrom policies.interface import JointTarget, ToolTarget\n\n\n"


@dataclass
class Here:
    rig: Rig
    folder: Path
    stop: list[bool]
    world: World
    give: Callable[[str], Assignment]


@contextmanager
def at_work(tmp_path: Path) -> Iterator[Here]:
    """One start of a station in a folder, which may have been started before."""
    if not (tmp_path / "station-1").exists():
        make_stations(tmp_path, 1, 5, "push_t", "tcp/127.0.0.1:1")
    station = load_station(tmp_path / "station-1")
    assert station.emulation is not None
    world = World(station, station.emulation.seed)
    bench = EmulatedBench(station, world)
    stop: list[bool] = []
    drivers = Bench(bench.advance, bench.state, bench.look, lambda: bool(stop), bench.power_up, bench.limit)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    robot = StationRobot(drivers, chain, station, 0.0)

    def give(code: str) -> Assignment:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        shutil.copy(POLICY / "policy.toml", source)
        (source / "policy.py").write_text(HEADER + code if code else (POLICY / "policy.py").read_text())
        name = unpacked(source, station.folder)
        assignment = Assignment(f"a-{name[:8]}-{time.monotonic_ns()}", name, "s1", START, 1, "play")
        rig.ledger.add_lease(Lease(assignment.assignment_id, "push_t", (assignment,), time.time() + 600))
        return assignment

    with (
        PolicyHost() as host,
        Ledger(station.folder / "ledger.db", station.name) as ledger,
        Journal(station.folder / "activation.db") as journal,
    ):
        rig = Rig(
            station=station,
            task=PushT(),
            robot=robot,
            host=host,
            ledger=ledger,
            retention=Retention(station),
            rollout=Rollout(station, host, ledger, journal, robot, chain),
            station_time_s=lambda: bench.now_s,
            stop_asked=lambda: bool(stop),
            say=lambda state, detail, assignment, sequence: None,
            wait=lambda: None,
        )
        yield Here(rig, station.folder, stop, world, give)
    world.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with at_work(tmp_path) as here:
        yield here


def test_the_seed_policy_s_trial_is_sealed_with_its_recording(here: Here) -> None:
    trial = run_trial(here.rig, here.give(""), "l1")
    assert trial.outcome is Outcome.FAILURE
    assert 0.0 <= trial.progress < 1.0
    assert trial.policy_steps > 100
    assert [decode(Trial, sealed.body) for sealed in here.rig.ledger.unacked(9)] == [trial]
    assert len(list((here.folder / "recordings").glob("*.mcap"))) == 1
    assert trial.recording_bytes > 10_000


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("def run(robot, params):\n    raise ValueError('no idea')\n", "crashed"),
        ("def run(robot, params):\n    robot.step(ToolTarget(np.array([np.nan, 0.0, 0.1])))\n", "bad_target"),
        ("def run(robot, params):\n    robot.step(ToolTarget(np.array([9.0, 0.0, 0.1])))\n", "crashed"),
        (
            "def run(robot, params):\n    while True:\n        robot.step(JointTarget(robot.observe().joints_rad))\n",
            "timeout",
        ),
        ("import os\n\n\ndef run(robot, params):\n    os._exit(3)\n", "crashed"),
    ],
)
def test_a_policy_s_own_fault_is_a_failure_with_its_class(here: Here, code: str, cause: str) -> None:
    trial = run_trial(here.rig, here.give(code), "l1")
    assert (trial.outcome, trial.cause) == (Outcome.FAILURE, cause), trial.detail
    assert trial.detail
    assert "\n" not in trial.detail


def test_a_policy_s_notes_travel_with_its_trial_and_its_recording(here: Here) -> None:
    code = "def run(robot, params):\n    robot.note('one')\n    robot.note('two\\x00')\n    robot.step(None)\n"
    trial = run_trial(here.rig, here.give(code), "l1")
    assert (trial.outcome, trial.cause) == (Outcome.FAILURE, "bad_target")
    assert trial.notes["policy"] == "one\ntwo\ufffd"
    assert [text for kind, text in recorded(here, trial) if kind == "note"] == ["one", "two\ufffd"]
    silent = run_trial(here.rig, here.give("def run(robot, params):\n    pass\n"), "l1")
    assert "policy" not in silent.notes


def test_an_altered_bundle_never_runs_and_is_not_the_policy_s_fault(here: Here) -> None:
    assignment = here.give("def run(robot, params):\n    pass\n")
    entry = here.folder / "bundles" / assignment.bundle / "policy.py"
    entry.chmod(0o644)
    entry.write_text("def run(robot, params):\n    raise SystemExit\n")
    trial = run_trial(here.rig, assignment, "l1")
    assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.INVALID, "bundle", 0)


def test_a_stop_in_the_middle_leaves_an_invalid_trial_not_a_lost_one(here: Here) -> None:
    here.stop.append(True)
    trial = run_trial(here.rig, here.give(""), "l1")
    assert (trial.outcome, trial.cause) == (Outcome.INVALID, "stopped")
    assert not here.rig.ledger.open_trials()


def test_a_motor_fault_during_reset_is_retried_and_does_not_count_against_the_policy(here: Here) -> None:
    here.world.bank.inject(3, 0xE)
    trial = run_trial(here.rig, here.give("def run(robot, params):\n    pass\n"), "l1")
    assert trial.outcome is not Outcome.INVALID, trial.detail
    assert trial.reset_tries >= 1


# -- what a process leaves that ends in the middle --------------------------------------------------------------------

# Looks so often that its recording has whole chunks before it is sealed.
LOOKS = 20
STILL = f"""
def run(robot, params):
    robot.step(JointTarget(robot.observe().joints_rad))
    for _ in range({LOOKS}):
        robot.scene()
"""


def die(*arguments: object) -> NoReturn:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives on")


def die_with_the_verdict(folder: Path, trial: Trial) -> bool:
    """Keep the beginning of a trial, and die before its verdict is kept."""
    return die() if trial.ended_unix_s else keep(folder, trial)


keep = runner.keep
# where the process ends -> what is replaced there
ENDS: dict[str, tuple[object, str, Callable[..., object]]] = {
    "before the policy": (PushT, "ready", die),
    "before the verdict": (PushT, "verify", die),
    "before the verdict is kept": (runner, "keep", die_with_the_verdict),
    "before the recording is sealed": (Recorder, "seal", die),
    "before the ledger is sealed": (Ledger, "seal", die),
    "after the ledger is sealed": (runner, "forget", die),
}


def killed(folder: Path, end: str) -> None:
    """Let a process of its own begin a trial and be killed in it."""
    process = subprocess.run([sys.executable, __file__, str(folder), end], capture_output=True, text=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr


def begin_and_die(folder: Path, end: str) -> None:
    """Begin a trial in a process that ends in it."""
    with at_work(folder) as here:
        assignment = here.give(STILL)
        setattr(*ENDS[end])
        run_trial(here.rig, assignment, "l1")


def start_again(here: Here) -> Trial:
    """Return what the next start makes of the only trial; its station has been changed since."""
    here.stop.append(True)
    work(replace(here.rig, station=replace(here.rig.station, station_hash="another")))
    assert here.rig.ledger.open_trials() == []
    [sealed] = here.rig.ledger.unacked(9)
    return decode(Trial, sealed.body)


def recorded(here: Here, trial: Trial) -> list[tuple[str, str]]:
    """Return the (kind, text) of the events in the recording that the ledger holds for a trial."""
    here.rig.ledger.acknowledge([trial.identity], 1.0)
    [(sha256, path)] = here.rig.ledger.unsent_recordings(9)
    assert (sha256, path.stat().st_size) == (trial.recording, trial.recording_bytes)
    with open(path, "rb") as file:
        found = [json.loads(message.data) for _, _, message in make_reader(file).iter_messages(["/events"])]
    return [(item["kind"], item["text"]) for item in found]


@pytest.mark.parametrize(
    ("end", "judged", "last"),
    [
        ("before the verdict", False, "cut"),
        ("before the verdict is kept", False, "cut"),
        ("before the recording is sealed", True, "cut"),
        ("before the ledger is sealed", True, "verdict"),
        ("after the ledger is sealed", True, "verdict"),
    ],
)
def test_whenever_the_process_is_killed_what_was_found_by_then_is_sealed(
    tmp_path: Path, end: str, judged: bool, last: str
) -> None:
    killed(tmp_path, end)
    with at_work(tmp_path) as here:
        trial = start_again(here)
        if judged:
            assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.FAILURE, "far", 1), trial.detail
        else:
            assert (trial.outcome, trial.cause) == (Outcome.INVALID, "crash")
            assert trial.detail == "the station's process ended during this attempt"
        assert trial.station_hash == here.rig.station.station_hash  # which it began with
        assert trial.ended_unix_s >= trial.started_unix_s > 0.0
        kinds = [kind for kind, _ in recorded(here, trial)]
        assert (kinds[0], kinds[-1]) == ("trial", last)
        assert [path.suffixes[-1] for path in (here.folder / "recordings").iterdir()] == [".mcap"]


def test_a_trial_too_short_to_have_left_anything_says_so(tmp_path: Path) -> None:
    killed(tmp_path, "before the policy")
    with at_work(tmp_path) as here:
        trial = start_again(here)
        assert (trial.outcome, trial.cause, trial.recording) == (Outcome.INVALID, "crash", "")
        assert trial.notes == {"recording": "nothing of it was found after the crash"}
        assert trial.station_hash == here.rig.station.station_hash
        assert [path.suffixes[-1] for path in (here.folder / "recordings").iterdir()] == [".torn"]


@pytest.mark.parametrize(
    "damage", ["torn", "empty", "of another trial", "of another attempt", "of another format", "gone"]
)
def test_a_verdict_that_cannot_be_believed_counts_as_a_crash_with_the_whole_recording(
    tmp_path: Path, damage: str
) -> None:
    killed(tmp_path, "before the ledger is sealed")
    [path] = (tmp_path / "station-1" / "recordings").glob("*.trial")
    trial = decode(Trial, path.read_bytes())
    written = {
        "torn": path.read_bytes()[:-9],
        "empty": b"",
        "of another trial": encode(replace(trial, sequence=2)),
        "of another attempt": encode(replace(trial, assignment_id="a-2")),
        "of another format": encode(Assignment("a", "b", "s", {}, 1, "play")),
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(written[damage])
    with at_work(tmp_path) as here:
        trial = start_again(here)
        assert (trial.outcome, trial.cause) == (Outcome.INVALID, "crash")
        assert recorded(here, trial)[-1][0] == "verdict"
        if damage != "gone":
            assert path.with_name(f"{path.name}.torn").read_bytes() == written[damage]


def test_a_bug_in_the_middle_of_a_trial_leaves_what_was_recorded_up_to_it(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*arguments: object) -> NoReturn:
        raise RuntimeError("the gripper is gone")

    assignment = here.give("def run(robot, params):\n    pass\n")
    with monkeypatch.context() as patch:
        patch.setattr(PushT, "verify", stumble)
        with pytest.raises(RuntimeError, match="the gripper is gone"):
            run_trial(here.rig, assignment, "l1")
    trial = start_again(here)
    assert (trial.outcome, trial.cause) == (Outcome.INVALID, "crash")
    kinds = [kind for kind, _ in recorded(here, trial)]
    assert kinds[0] == "trial"
    assert kinds[-4:] == ["policy", "stage", "error", "cut"]
    assert ("error", "RuntimeError: the gripper is gone") in recorded(here, trial)


if __name__ == "__main__":
    begin_and_die(Path(sys.argv[1]), sys.argv[2])
