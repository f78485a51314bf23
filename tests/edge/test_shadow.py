"""A policy in the shadow is shown what another saw, and what it asks for goes nowhere and is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.emulation.stations import make_stations
from edge.messages import ArmState
from edge.planning.kinematics import chain_of
from edge.sandbox.process import PolicyHost
from edge.station import Station, load_station
from edge.trials.robot import PERIOD_NS, Tape
from edge.trials.shadow import ShadowRun, run_shadow, still
from policies import bundle
from policies.bundle import read_unpacked
from policies.interface import Scene, SceneObject
from tests.harness.bundles import unpacked

POLICY = Path(bundle.__file__).parent / "push_t"
HOME_RAD = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
STEPS = 40
HEADER = "import numpy as np\nfrom policies.interface import JointTarget\n\n"


def state(number: int) -> ArmState:
    joints = HOME_RAD.copy()
    joints[0] = 0.001 * number
    return ArmState(number * PERIOD_NS, joints, np.zeros(6), np.zeros(6), 0.0)


def tee(x_m: float) -> Scene:
    return Scene(0.0, (SceneObject("tee", x_m, 0.0, 0.0, 0.001, 0.01),))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Station:
    folder = tmp_path_factory.mktemp("stations")
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    made = load_station(folder / "station-1")
    everywhere = replace(made.workspace, lower_m=np.full(3, -1.0), upper_m=np.full(3, 1.0))
    return replace(made, workspace=everywhere, arena=everywhere)


@pytest.fixture(scope="module")
def host() -> Iterator[PolicyHost]:
    with PolicyHost() as host:
        yield host


@pytest.fixture
def tape() -> Tape:
    """The first picture shows the T at 0.3 m, one after ten steps at 0.35 m."""
    return Tape([state(number) for number in range(STEPS + 1)], [(0, tee(0.3)), (10 * PERIOD_NS, tee(0.35))])


def run(code: str, tape: Tape, station: Station, host: PolicyHost, folder: Path) -> ShadowRun:
    source = folder / "source"
    source.mkdir()
    (source / "policy.toml").write_text((POLICY / "policy.toml").read_text())
    (source / "policy.py").write_text(HEADER + code)
    where = folder / "bundles" / unpacked(source, folder)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    return run_shadow(host, where, read_unpacked(where), tape, station, chain)


HOLD = """
def run(robot, params):
    here = robot.observe().joints_rad
    while True:
        robot.step(JointTarget(here))
"""


def test_it_is_shown_the_tape_step_by_step_to_its_end(
    tape: Tape, station: Station, host: PolicyHost, tmp_path: Path
) -> None:
    code = (
        "def run(robot, params):\n    at = robot.observe().joints_rad\n    for k in range(1, 31):\n"
        "        seen = robot.step(JointTarget(at + 0.01))\n        assert abs(seen.joints_rad[0] - 0.001 * k) < 1e-9\n"
        "        x = robot.scene().find('tee').x_m\n        assert x == (0.3 if k < 10 else 0.35), (k, x)\n"
    )
    done = run(code, tape, station, host, tmp_path)
    assert (done.end.kind, done.fault, done.steps, done.breaches) == ("finished", "", 30, 0), done.end
    assert done.gaps_s.shape == (29,)
    assert (done.gaps_s > 0.0).all()


def test_the_end_of_the_tape_is_the_end_of_its_trial_and_no_fault(
    tape: Tape, station: Station, host: PolicyHost, tmp_path: Path
) -> None:
    done = run(HOLD, tape, station, host, tmp_path)
    assert (done.end.kind, done.fault, done.steps) == ("over", "", STEPS)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("def run(robot, params):\n    raise ValueError('no idea')\n", "crashed"),
        ("def run(robot, params):\n    robot.step(JointTarget(np.full(6, np.nan)))\n", "bad_target"),
    ],
)
def test_what_it_does_wrong_is_a_fault(
    tape: Tape, station: Station, host: PolicyHost, tmp_path: Path, code: str, kind: str
) -> None:
    assert run(code, tape, station, host, tmp_path).fault.startswith(kind)


def test_targets_beyond_its_limits_are_counted(tape: Tape, station: Station, host: PolicyHost, tmp_path: Path) -> None:
    limits = replace(station.limits, upper_rad=np.minimum(station.limits.upper_rad, HOME_RAD + 0.05))
    code = (
        "def run(robot, params):\n    here = robot.observe().joints_rad\n"
        "    for by in (0.04, 0.06, 0.2):\n        target = here.copy()\n        target[0] += by\n"
        "        robot.step(JointTarget(target))\n"
    )
    done = run(code, tape, replace(station, limits=limits), host, tmp_path)
    assert (done.steps, done.breaches) == (3, 2)


def test_an_arm_that_stands_still_makes_a_tape_without_a_fault() -> None:
    made = still(replace(state(0), fault="joint 2 is hot"), tee(0.3), steps=5)
    assert [item.time_ns for item in made.states] == [number * PERIOD_NS for number in range(6)]
    assert {item.fault for item in made.states} == {""}
    assert made.scenes == [(0, tee(0.3))]
