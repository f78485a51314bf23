"""A new policy comes into force on a station by its own trials, and goes by them; the arm here is where it is sent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from edge.activation.gates import Gates
from edge.activation.journal import ActivationError, Journal, OrderRefused
from edge.emulation.stations import make_stations
from edge.envelope import UNPROVEN_SHARE
from edge.ledger import Ledger
from edge.messages import ArmState, Setpoint
from edge.planning.kinematics import chain_of
from edge.records import Assignment, Lease, Outcome, RolloutOrder, RolloutStart, Trial
from edge.replay.recorded import read_recording
from edge.retention import Retention
from edge.sandbox.process import PolicyHost
from edge.station import Station, load_station
from edge.tasks.task import Readiness, Start, Verdict
from edge.trials.robot import PERIOD_NS, Bench, StationRobot
from edge.trials.rollout import Rollout
from edge.trials.runner import Rig, work
from edge.trust.floor import FILE as FLOOR
from edge.trust.floor import Floor, write_floor
from policies import bundle
from policies.interface import JointTarget, Robot, Scene
from tests.harness.bundles import unpacked

POLICY = Path(bundle.__file__).parent / "push_t"
HOME_RAD = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
FAR_RAD = 0.3  # of the base joint: what counts as done
GATES = Gates(shadow_steps=20, step_p99_s=1.0, canary_pairs=3, probation_trials=3)
STARTS = (RolloutStart("s1", {"x_m": 0.3}, 1), RolloutStart("s2", {"x_m": 0.31}, 2))
HEADER = """
import numpy as np
from policies.interface import JointTarget

def turn(robot, to_rad, steps=12):
    here = robot.observe().joints_rad
    for k in range(1, steps + 1):
        target = here.copy()
        target[0] += (to_rad - here[0]) * k / steps
        robot.step(JointTarget(target))

"""
GOOD = HEADER + "def run(robot, params):\n    turn(robot, 0.4)\n"
ALSO_GOOD = HEADER + "def run(robot, params):\n    turn(robot, 0.41)\n"
LAZY = HEADER + "def run(robot, params):\n    turn(robot, 0.1)\n"
CRASHES = HEADER + "def run(robot, params):\n    raise ValueError('no idea')\n"
CRASHES_ONE_DAY = HEADER + (
    "def run(robot, params):\n    if robot.observe().gripper_m > 0.01:\n        raise ValueError('no grip')\n"
    "    turn(robot, 0.42)\n"
)
WAITS = HEADER + "def run(robot, params):\n    while True:\n        turn(robot, robot.observe().joints_rad[0])\n"


@dataclass
class Arm:
    """Drivers of an arm that is where it is sent."""

    now_ns: int = 0
    joints_rad: np.ndarray = field(default_factory=HOME_RAD.copy)
    gripper_m: float = 0.0
    limits: list[Station] = field(default_factory=list)
    each_period: Callable[[], None] = lambda: None

    def advance(self, setpoint: Setpoint) -> ArmState:
        self.now_ns += PERIOD_NS
        self.joints_rad = setpoint.position_rad.copy()
        self.each_period()
        return self.state()

    def state(self) -> ArmState:
        return ArmState(self.now_ns, self.joints_rad.copy(), np.zeros(6), np.zeros(6), self.gripper_m)

    def limit(self, station: Station) -> None:
        self.limits.append(station)


class Turn:
    """Done once the base has been turned."""

    name = "push_t"
    time_limit_s = 5.0

    def ready(self, robot: Robot, start: Start) -> Readiness:
        return Readiness(abs(robot.observe().joints_rad[0]) < 1e-6, {})

    def reset(self, robot: Robot, start: Start) -> None:
        robot.step(JointTarget(HOME_RAD.copy()))

    def verify(self, robot: Robot, start: Start) -> Verdict:
        done = robot.observe().joints_rad[0] > FAR_RAD
        return Verdict(Outcome.SUCCESS if done else Outcome.FAILURE, float(done), "" if done else "short")


@dataclass
class Here:
    station: Station
    arm: Arm
    journal: Journal
    ledger: Ledger
    rig: Rig
    folder: Path
    stop: list[bool]
    waits: list[int]
    orders: int = 0

    def bundle_of(self, code: str, role: str = "released", tables: str = "") -> str:
        """Have a bundle here, as the uplink does; return its name."""
        source = self.folder / "source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        (source / "policy.toml").write_text((POLICY / "policy.toml").read_text() + tables)
        (source / "policy.py").write_text(code)
        return unpacked(source, self.station.folder, role)

    def order(self, name: str, stage: str = "active") -> None:
        """Order that a bundle come into force."""
        self.orders += 1
        now = time.time()
        self.journal.offer(RolloutOrder(self.orders, name, "push_t", stage, STARTS, now, now + 600.0))

    def lease(self, name: str, count: int = 1) -> None:
        """Lease attempts with a bundle, as the coordinator does."""
        names = [f"leased-{time.monotonic_ns()}-{number}" for number in range(count)]
        items = tuple(Assignment(item, name, "s1", {"x_m": 0.3}, 1, "play") for item in names)
        self.ledger.add_lease(Lease(names[0], "push_t", items, time.time() + 600.0))

    def work(self) -> list[Trial]:
        """Work until there is nothing to do any more; return the new trials."""
        before = len(self.ledger.newest(999))
        self.stop.clear()
        self.waits.clear()
        work(self.rig)
        return self.ledger.newest(999)[before:]

    def states(self, name: str) -> list[str]:
        """Return the states that a bundle went through."""
        return [change.target for change in self.journal.changes(999) if change.bundle == name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    folder = tmp_path_factory.mktemp("stations")
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return replace(load_station(folder / "station-1"), gates=GATES)


@pytest.fixture(scope="module")
def host() -> Iterator[PolicyHost]:
    with PolicyHost() as host:
        yield host


@pytest.fixture
def here(made: Station, host: PolicyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.setattr("edge.trials.rollout.TEND_EVERY_S", 0.0)
    monkeypatch.setattr("edge.trials.rollout.ASKED_EVERY_S", 0.0)
    station = replace(made, folder=tmp_path / "station-1")
    station.folder.mkdir()
    arm, stop, waits = Arm(), [], []  # type: ignore[var-annotated]
    picture = (np.zeros((4, 4, 3), np.uint8), Scene(0.0, ()))
    drivers = Bench(arm.advance, arm.state, lambda: picture, lambda: bool(stop), lambda: None, arm.limit)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    # The tool may be anywhere: this is not about the workspace.
    everywhere = replace(station.workspace, lower_m=np.full(3, -1.0), upper_m=np.full(3, 1.0))
    wide = replace(station, workspace=everywhere, arena=everywhere)
    robot = StationRobot(drivers, chain, wide, 0.0)

    def wait() -> None:
        waits.append(1)
        if len(waits) > 3:
            stop.append(True)

    with (
        Ledger(station.folder / "ledger.db", station.name) as ledger,
        Journal(station.folder / "activation.db") as journal,
    ):
        rig = Rig(
            station=wide,
            task=Turn(),
            robot=robot,
            host=host,
            ledger=ledger,
            retention=Retention(station),
            rollout=Rollout(wide, host, ledger, journal, robot, chain),
            station_time_s=lambda: arm.now_ns * 1e-9,
            stop_asked=lambda: bool(stop),
            say=lambda state, detail, assignment, sequence: None,
            wait=wait,
        )
        yield Here(wide, arm, journal, ledger, rig, tmp_path, stop, waits)


def activate(here: Here, code: str) -> str:
    """Bring a policy into force, and return its name."""
    name = here.bundle_of(code)
    here.order(name)
    here.work()
    assert here.journal.line().active == name, here.journal.row(name)
    return name


def test_the_first_policy_comes_into_force_by_its_own_trials(here: Here) -> None:
    name = here.bundle_of(GOOD)
    here.order(name)
    trials = here.work()
    ways = ["verified", "staged", "shadow", "canary", "probation", "active"]
    assert list(dict.fromkeys(here.states(name))) == ways
    assert [trial.purpose for trial in trials] == ["canary"] * 3 + ["probation"] * 3
    assert {trial.outcome for trial in trials} == {Outcome.SUCCESS}
    assert here.journal.line().active == name


def test_a_better_policy_takes_the_place_of_the_active_one_after_pairs_on_the_same_starts(here: Here) -> None:
    old = activate(here, GOOD)
    new = here.bundle_of(ALSO_GOOD)
    here.order(new)
    trials = here.work()
    shadowed = [trial for trial in trials if trial.purpose == "shadow"]
    assert {trial.bundle for trial in shadowed} == {old}  # run for the shadow to see, as there was no other work
    assert here.journal.line().active == new
    assert here.journal.line().last_good == old
    canary = [trial for trial in trials if trial.purpose == "canary"]
    assert [trial.bundle for trial in canary] == [new, old, old, new, new, old]
    assert [trial.start_id for trial in canary] == ["s1", "s1", "s2", "s2", "s1", "s1"]
    assert here.journal.row(new).watched.steps >= GATES.shadow_steps


def test_a_worse_policy_is_taken_back_and_the_active_one_goes_on(here: Here) -> None:
    old = activate(here, GOOD)
    worse = here.bundle_of(LAZY)
    here.order(worse)
    here.lease(old, 2)
    here.work()
    assert here.journal.row(worse).state == "rolled_back"
    assert here.journal.line().active == old
    here.lease(old)
    [trial] = here.work()
    assert (trial.bundle, trial.outcome) == (old, Outcome.SUCCESS)


def test_a_policy_that_crashes_in_its_self_test_never_moves_the_arm(here: Here) -> None:
    name = here.bundle_of(CRASHES)
    here.order(name)
    assert here.work() == []
    assert here.journal.row(name).state == "rejected"
    assert "no idea" in here.journal.row(name).reason
    assert here.arm.now_ns == 0


def test_what_asks_for_more_than_its_limits_in_the_shadow_is_taken_back_before_it_moves_the_arm(here: Here) -> None:
    old = activate(here, GOOD)
    name = here.bundle_of(GOOD, tables="\n[envelope]\nupper_rad = [0.35, 2.0, 2.0, 1.0, 1.0, 1.0]\n")
    here.order(name)
    here.lease(old, 2)
    trials = here.work()
    assert {trial.bundle for trial in trials} == {old}
    assert here.journal.row(name).state in ("rejected", "rolled_back")
    assert here.journal.line().active == old


def test_three_crashes_take_the_active_one_back_without_asking_anyone(here: Here) -> None:
    old = activate(here, GOOD)
    name = here.bundle_of(CRASHES_ONE_DAY)
    here.order(name)
    here.lease(old, 2)
    here.work()
    assert here.journal.line().active == name
    here.arm.gripper_m = 0.02
    here.lease(name, 4)
    trials = here.work()
    assert [(trial.outcome, trial.cause) for trial in trials] == [
        *[(Outcome.FAILURE, "crashed")] * 3, (Outcome.INVALID, "bundle"),
    ]  # fmt: skip
    assert here.journal.line().active == old
    with pytest.raises(OrderRefused, match="denies"):
        here.order(name)


def test_a_candidate_runs_leased_trials_only_and_slower(here: Here) -> None:
    name = here.bundle_of(GOOD, role="candidates")
    here.order(name)
    here.lease(name)
    [trial] = here.work()
    assert trial.outcome is Outcome.SUCCESS
    assert here.journal.line().active == ""
    assert here.journal.row(name).state == "verified"
    [slower, back] = here.arm.limits
    np.testing.assert_allclose(slower.limits.velocity_rad_s, UNPROVEN_SHARE * here.station.limits.velocity_rad_s)
    assert back is here.station


def test_the_active_one_has_the_whole_of_its_limits_and_says_so_in_its_recordings(here: Here) -> None:
    name = activate(here, GOOD)
    here.arm.limits.clear()
    here.lease(name)
    [trial] = here.work()
    assert here.arm.limits[0].limits.velocity_rad_s.tolist() == here.station.limits.velocity_rad_s.tolist()
    path = here.station.folder / "recordings" / f"{trial.epoch}-{trial.sequence:06d}.mcap"
    limits = [json.loads(event.text) for event in read_recording(path).events if event.kind == "limits"]
    assert [item["velocity_rad_s"] for item in limits] == [here.station.limits.velocity_rad_s.tolist()] * 2


def test_what_nobody_has_verified_moves_nothing(here: Here) -> None:
    name = "c" * 64
    here.lease(name)
    [trial] = here.work()
    assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.INVALID, "bundle", 0)
    assert "nobody has verified it" in trial.detail
    assert here.arm.now_ns == 0


def test_a_revocation_for_now_ends_a_trial_in_its_middle(here: Here) -> None:
    name = here.bundle_of(WAITS, role="candidates")
    here.lease(name)
    steps = [0]

    def revoke_at_the_tenth() -> None:
        steps[0] += 1
        if steps[0] == 10:
            here.journal.revoke(name, "now")

    here.arm.each_period = revoke_at_the_tenth
    [trial] = here.work()
    assert (trial.outcome, trial.cause) == (Outcome.INVALID, "stopped")
    assert "revoked" in trial.detail
    assert trial.policy_steps <= 11
    here.lease(name)
    [after] = here.work()
    assert (after.cause, after.policy_steps) == ("bundle", 0)


def test_a_restart_in_the_middle_of_a_canary_goes_on_where_it_was(here: Here) -> None:
    name = here.bundle_of(GOOD)
    here.order(name)
    periods = [0]

    def stop_in_the_second() -> None:
        periods[0] += 1
        if periods[0] == 20:
            here.stop.append(True)

    here.arm.each_period = stop_in_the_second
    here.work()
    assert here.journal.row(name).state == "canary"
    here.arm.each_period = lambda: None
    rig = here.rig
    again = Rollout(
        here.station,
        rig.host,
        here.ledger,
        here.journal,
        rig.robot,
        chain_of(here.station.arm, here.station.tool.length_m, here.station.limits),
    )
    here.rig = replace(rig, rollout=again)
    here.work()
    assert here.journal.line().active == name
    names = [trial.assignment_id for trial in here.ledger.newest(999)]
    assert len(names) == len(set(names))


def test_limits_that_leave_the_arm_nothing_are_the_bundle_s_fault_and_move_nothing(here: Here) -> None:
    name = here.bundle_of(GOOD, "candidates", "\n[envelope]\nupper_rad = [-5.0, 2.0, 2.0, 1.0, 1.0, 1.0]\n")
    here.lease(name)
    [trial] = here.work()
    assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.INVALID, "bundle", 0)
    assert "leave this arm nothing" in trial.detail


def test_an_arm_that_stands_outside_a_bundle_s_limits_is_not_moved_by_it(here: Here) -> None:
    name = here.bundle_of(GOOD, "candidates", "\n[envelope]\nupper_rad = [0.5, 0.9, 2.0, 1.0, 1.0, 1.0]\n")
    here.lease(name)
    [trial] = here.work()
    assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.INVALID, "bundle", 0)
    assert "joint 2 stands at 1.000 rad" in trial.detail
    assert here.arm.limits == []


def test_with_a_clock_that_cannot_be_right_only_what_stands_here_runs(here: Here) -> None:
    old = activate(here, GOOD)
    other = here.bundle_of(ALSO_GOOD, "candidates")
    (here.station.folder / "trust").mkdir()
    write_floor(
        (here.station.folder / "trust" / FLOOR, here.station.folder / FLOOR), Floor(wall_unix_s=time.time() + 1e6)
    )
    here.lease(old)
    here.lease(other)
    first, second = here.work()
    assert (first.bundle, first.outcome) == (old, Outcome.SUCCESS)
    assert (second.cause, second.policy_steps) == ("bundle", 0)
    assert "clock" in second.detail


def test_a_journal_that_fails_in_the_middle_of_a_trial_ends_none_and_loses_none(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = here.bundle_of(GOOD, "candidates")
    here.lease(name)

    def fail(bundle: str) -> NoReturn:
        raise ActivationError("disk I/O error")

    def fail_from_now_on() -> None:
        monkeypatch.setattr(here.journal, "row", fail)

    here.arm.each_period = fail_from_now_on
    [trial] = here.work()
    assert (trial.outcome, trial.policy_steps) == (Outcome.SUCCESS, 12)
