"""Whole trials on an emulated station: what each kind of policy leaves in the ledger."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.ledger import Ledger
from edge.planning.kinematics import chain_of
from edge.records import Assignment, Lease, Outcome, Trial, decode
from edge.retention import Retention
from edge.sandbox.process import PolicyHost
from edge.station import load_station
from edge.tasks.push_t.task import PushT
from edge.trials.robot import Bench, StationRobot
from edge.trials.runner import Rig, run_trial
from policies import bundle

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


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    make_stations(tmp_path, 1, 5, "push_t", "tcp/127.0.0.1:1", [])
    station = load_station(tmp_path / "station-1")
    assert station.emulation is not None
    world = World(station, station.emulation.seed)
    bench = EmulatedBench(station, world)
    stop: list[bool] = []
    drivers = Bench(bench.advance, bench.state, bench.look, lambda: bool(stop), bench.power_up)
    robot = StationRobot(drivers, chain_of(station.arm, station.tool.length_m, station.limits), station.workspace, 0.0)
    key = Ed25519PrivateKey.generate()

    def give(code: str) -> Assignment:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        shutil.copy(POLICY / "policy.toml", source)
        (source / "policy.py").write_text(HEADER + code if code else (POLICY / "policy.py").read_text())
        payload = bundle.build(source, {}, {}, None)
        public = key.public_key().public_bytes_raw()
        signed = bundle.pack_signed(payload, key.sign(payload), bundle.key_id(public))
        unpacked = bundle.unpack(bundle.open_bundle(signed, [public]), station.folder / "bundles")
        assignment = Assignment(f"a-{unpacked.name[:8]}-{time.monotonic_ns()}", unpacked.name, "s1", START, 1, "play")
        rig.ledger.add_lease(Lease(assignment.assignment_id, "push_t", (assignment,), time.time() + 600))
        return assignment

    with PolicyHost() as host, Ledger(station.folder / "ledger.db", station.name) as ledger:
        rig = Rig(
            station=station,
            task=PushT(),
            robot=robot,
            host=host,
            ledger=ledger,
            retention=Retention(station),
            station_time_s=lambda: bench.now_s,
            stop_asked=lambda: bool(stop),
            say=lambda state, detail, assignment, sequence: None,
            wait=lambda: None,
        )
        yield Here(rig, station.folder, stop, world, give)
    world.close()


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
