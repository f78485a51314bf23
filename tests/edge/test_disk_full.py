"""The disk fills up at every place that writes: no trial is lost, and work goes on by itself once there is room."""

from __future__ import annotations

import base64
import builtins
import errno
import io
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader

from edge.activation.journal import Journal
from edge.disk import Rung, Space, disk_space
from edge.emulation.stations import make_stations
from edge.ledger import DiskFull, Ledger, LedgerError
from edge.messages import ArmState, Setpoint
from edge.planning.kinematics import chain_of
from edge.records import Assignment, Lease, Outcome, Trial, decode
from edge.retention import Retention, purge, reserve_of
from edge.sandbox.process import PolicyHost
from edge.station import Station, load_station
from edge.tasks.task import Readiness, Start, Verdict
from edge.trials import runner
from edge.trials.robot import PERIOD_NS, Bench, StationRobot
from edge.trials.rollout import Rollout
from edge.trials.runner import Rig, run_trial, work
from policies import bundle
from policies.interface import Robot, Scene
from tests.harness.bundles import bundle_of

POLICY = Path(bundle.__file__).parent / "push_t"
STEPS, LOOKS = 60, 6
CODE = f"""
from policies.interface import JointTarget


def run(robot, params):
    here = robot.observe().joints_rad
    for step in range({STEPS}):
        robot.step(JointTarget(here))
        if step % {STEPS // LOOKS} == 0:
            robot.scene()
"""
ABOVE_THE_TABLE_RAD = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])
PICTURE = np.random.default_rng(1).integers(0, 256, (480, 640, 3), dtype=np.uint8)  # noise, which no JPEG makes small
PLENTY = Space(50_000.0, 60_000.0)


class Standstill:
    """A task whose scene is always ready, and every attempt at it a success."""

    name = "push_t"
    time_limit_s = 60.0

    def ready(self, robot: Robot, start: Start) -> Readiness:
        """Look."""
        robot.scene()
        return Readiness(True, {})

    def reset(self, robot: Robot, start: Start) -> None:
        """Never needed."""

    def verify(self, robot: Robot, start: Start) -> Verdict:
        """Look."""
        robot.scene()
        return Verdict(Outcome.SUCCESS, 1.0, "", "it stands")


@dataclass
class Arm:
    """Drivers of an arm that is where it is sent."""

    now_ns: int = 0
    advances: int = 0
    every_period: Callable[[], None] = lambda: None

    def advance(self, setpoint: Setpoint) -> ArmState:
        self.now_ns += PERIOD_NS
        self.advances += 1
        self.every_period()
        return self.state()

    def limit(self, station: Station) -> None:
        """Where it is sent is within any limits."""

    def state(self) -> ArmState:
        return ArmState(self.now_ns, ABOVE_THE_TABLE_RAD, np.zeros(6), np.zeros(6), 0.0)


@dataclass
class Here:
    """One station at work, and what it said."""

    station: Station
    arm: Arm
    ledger: Ledger
    rig: Rig
    bundle: str
    said: list[tuple[str, str]] = field(default_factory=list)
    stop: list[bool] = field(default_factory=list)
    waits: int = 0
    on_wait: Callable[[], None] = lambda: None
    leased: int = 0

    def wait(self) -> None:
        self.waits += 1
        assert self.waits < 1000, self.said[-1]
        self.on_wait()

    def lease(self, count: int = 1) -> list[Assignment]:
        """Lease attempts, as the uplink would."""
        names = [f"a{self.leased + n}" for n in range(count)]
        self.leased += count
        items = tuple(Assignment(name, self.bundle, "s1", {}, 1, "play") for name in names)
        self.ledger.add_lease(Lease(f"l{self.leased}", "push_t", items, time.time() + 3600))
        return list(items)

    def work(self, trials: int, on_wait: Callable[[], None] = lambda: None) -> list[Trial]:
        """Work until so many more trials are sealed, or `on_wait` asks for a stop; return the new ones."""
        before = len(self.trials())
        self.stop.clear()
        self.waits = 0

        def waited() -> None:
            on_wait()
            if len(self.trials()) - before >= trials:
                self.stop.append(True)

        self.on_wait = waited
        self.lease(trials)
        work(self.rig)
        return self.trials()[before:]

    def trials(self) -> list[Trial]:
        """Return every trial that is sealed and not acknowledged, in order."""
        return [decode(Trial, sealed.body) for sealed in self.ledger.unacked(999)]

    def recordings(self) -> list[str]:
        """Return the names of what is in the folder of recordings."""
        folder = self.station.folder / "recordings"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture(scope="module")
def host() -> Iterator[PolicyHost]:
    with PolicyHost() as host:
        yield host


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """The policy above as a bundle: its name and its bytes."""
    source = tmp_path_factory.mktemp("source")
    shutil.copy(POLICY / "policy.toml", source)
    (source / "policy.py").write_text(CODE)
    return bundle_of(source)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    folder = tmp_path_factory.mktemp("stations")
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return load_station(folder / "station-1")


@contextmanager
def at_work(station: Station, host: PolicyHost, bundled: tuple[str, bytes], retention: Retention) -> Iterator[Here]:
    """A station with the policy unpacked, and its ledger open."""
    name, data = bundled
    bundle.unpack(bundle.open_bundle(data, name), station.folder / "bundles")
    arm = Arm()
    stop: list[bool] = []
    said: list[tuple[str, str]] = []
    drivers = Bench(
        arm.advance, arm.state, lambda: (PICTURE, Scene(0.0, ())), lambda: bool(stop), lambda: None, arm.limit
    )
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    robot = StationRobot(drivers, chain, station, 0.0)
    with (
        Ledger(station.folder / "ledger.db", station.name) as ledger,
        Journal(station.folder / "activation.db") as journal,
    ):
        journal.verified(name, "candidates", time.time() + 3600.0, "push_t")
        rig = Rig(
            station=station,
            task=Standstill(),
            robot=robot,
            host=host,
            ledger=ledger,
            retention=retention,
            rollout=Rollout(station, host, ledger, journal, robot, chain),
            station_time_s=lambda: arm.now_ns * 1e-9,
            stop_asked=lambda: bool(stop),
            say=lambda state, detail, assignment, sequence: said.append((state, detail)),
            wait=lambda: here.wait(),
        )
        here = Here(station, arm, ledger, rig, name, said, stop)
        yield here


@pytest.fixture
def here(made: Station, tmp_path: Path, host: PolicyHost, bundled: tuple[str, bytes]) -> Iterator[Here]:
    station = replace(made, folder=tmp_path / "station-1")
    station.folder.mkdir()
    with at_work(station, host, bundled, Retention(station, lambda _: PLENTY)) as here:
        here.rig.retention.look(here.ledger, time.time())
        yield here


@contextmanager
def no_byte_more() -> Iterator[None]:
    """Let the kernel refuse every byte that this process writes to a file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def refuse(patch: pytest.MonkeyPatch, owner: object, method: str, while_: Callable[[], bool]) -> list[int]:
    """Let a method meet a full disk for as long as `while_` says; return a list that grows with each refusal."""
    real = getattr(owner, method)
    refusals: list[int] = []

    def on_a_full_disk(*arguments: Any, **more: Any) -> Any:
        if not while_():
            return real(*arguments, **more)
        refusals.append(len(refusals))
        with no_byte_more():
            return real(*arguments, **more)

    patch.setattr(owner, method, on_a_full_disk)
    return refusals


# -- recordings -------------------------------------------------------------------------------------------------------


class Disk:
    """Counts what is written below a folder, and refuses all of it from the `full_at`-th write on, until freed."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self.free()

    def free(self, full_at: int = 0) -> None:
        """Take everything again, up to the `full_at`-th write from now where that is not zero."""
        self.sites: list[str] = []
        self._full_at = full_at

    def reach(self, site: str, path: object) -> None:
        """Note a write, or refuse it."""
        if str(path).startswith(self._folder):
            self.sites.append(site)
            if 0 < self._full_at <= len(self.sites):
                raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk(here: Here, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk under the station's recordings."""
    disk = Disk(here.station.folder / "recordings")
    real_open, real_fsync, real_replace, real_mkdir = builtins.open, os.fsync, os.replace, os.mkdir

    class Watched(io.FileIO):
        def write(self, data: Any) -> int:
            disk.reach("write", self.name)
            return super().write(data)

    def watched_open(file: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        if mode != "wb":
            return real_open(file, mode, *arguments, **more)
        disk.reach("open", file)
        return io.BufferedWriter(Watched(file, mode))

    def watched_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        disk.reach("fsync folder" if os.path.isdir(path) else "fsync", path)
        real_fsync(descriptor)

    def watched_replace(source: Any, target: Any) -> None:
        disk.reach("rename", target)
        real_replace(source, target)

    def watched_mkdir(path: Any, *arguments: Any) -> None:
        disk.reach("mkdir", path)
        real_mkdir(path, *arguments)

    monkeypatch.setattr(builtins, "open", watched_open)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "mkdir", watched_mkdir)
    return disk


def test_a_recording_that_the_disk_refuses_at_any_write_costs_no_trial(here: Here, disk: Disk) -> None:
    whole = run_trial(here.rig, *here.lease(), "l1")
    sites = list(disk.sites)
    kept = ["write", "fsync", "rename", "fsync folder"]  # what the trial would be sealed as
    assert sites[:8] == ["mkdir", "open", *kept, "mkdir", "open"]
    verdict = sites.index("open", 8)
    assert sites[verdict : verdict + 5] == ["open", *kept]
    assert sites[-3:] == ["fsync", "rename", "fsync folder"]
    assert sites.count("write") >= 8
    assert (whole.outcome, whole.recording_bytes > 100_000) == (Outcome.SUCCESS, True)
    for number, site in list(enumerate(sites))[1:]:  # not the folder itself, which is there by now
        before = here.recordings()
        moved = here.arm.advances
        disk.free(full_at=number + 1)
        trial = run_trial(here.rig, *here.lease(), "l1")
        assert disk.sites[number] == site
        assert (trial.recording, trial.recording_bytes, here.recordings()) == ("", 0, before)
        assert "No space left on device" in trial.notes["recording"]
        if here.arm.advances == moved:
            assert (trial.outcome, trial.cause) == (Outcome.INVALID, "disk")
        else:  # what was measured stays evidence
            assert (trial.outcome, trial.cause, trial.policy_steps) == (Outcome.SUCCESS, "", STEPS)
        assert here.trials()[-1] == trial
        disk.free()
        assert run_trial(here.rig, *here.lease(), "l1").recording
    begun_and_refused = [trial for trial in here.trials() if trial.cause == "disk"]
    assert len(kept) < len(begun_and_refused) < len(kept) + 6
    assert [trial.sequence for trial in here.trials()] == list(range(1, 2 * len(sites)))
    assert not here.ledger.open_trials()


def test_a_disk_on_which_no_recording_can_begin_does_not_burn_leased_work(
    here: Here, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the free space looks plentiful, as under a quota."""
    clock_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock_s[0])
    disk.free(full_at=1)
    begun: list[int] = []

    def second() -> None:
        clock_s[0] += 1.0
        begun.append(len(here.trials()))
        if len(begun) == 15:
            disk.free()

    trials = here.work(4, second)
    assert [trial.cause for trial in trials] == ["disk", "disk", "", ""]
    assert begun[:15] == [1] * 10 + [2] * 5  # one each ten seconds
    assert ("fault", f"nothing can be recorded ({trials[0].detail})") in here.said


# -- the ledger -------------------------------------------------------------------------------------------------------


def test_a_trial_that_cannot_be_begun_waits_for_room(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = refuse(monkeypatch, here.ledger, "open_trial", lambda: here.waits < 3)
    trials = here.work(2)
    assert len(refusals) == 3
    assert here.said[:3] == [("fault", f"disk full: free space on {here.station.folder}, nothing was lost")] * 3
    assert [(trial.sequence, trial.outcome) for trial in trials] == [(1, Outcome.SUCCESS), (2, Outcome.SUCCESS)]
    assert reserve_of(here.station).stands  # nothing was at stake


def test_the_reserve_seals_a_trial_that_the_disk_has_no_room_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = reserve_of(here.station)
    refusals = refuse(monkeypatch, here.ledger, "seal", lambda: reserve.stands and not refusals)
    trials = here.work(2)
    assert len(refusals) == 1
    assert [(trial.outcome, trial.cause) for trial in trials] == [(Outcome.SUCCESS, "")] * 2
    assert all(trial.recording for trial in trials)
    assert "fault" not in [state for state, _ in here.said]
    assert reserve.stands  # made again for the second


def test_a_verdict_waits_for_room_where_the_reserve_is_not_enough(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = refuse(monkeypatch, here.ledger, "seal", lambda: here.waits < 4)
    trials = here.work(2)
    assert len(refusals) == 5  # one that gives the reserve up, four that wait
    assert [state for state, _ in here.said].count("fault") == 4
    assert [(trial.outcome, trial.cause) for trial in trials] == [(Outcome.SUCCESS, "")] * 2


def test_a_trial_that_could_not_be_sealed_before_the_stop_is_sealed_by_the_next_start(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, here.ledger, "seal", lambda: True)
        with pytest.raises(DiskFull):
            here.work(1, lambda: here.stop.append(True))
    assert (len(here.ledger.open_trials()), here.trials()) == (1, [])
    # The next start finds the disk full as well, and then not.
    refusals = refuse(monkeypatch, here.ledger, "seal", lambda: here.waits < 2)
    trials = here.work(1)
    assert len(refusals) == 2
    assert [(trial.sequence, trial.outcome, bool(trial.recording)) for trial in trials] == [
        (1, Outcome.SUCCESS, True),
        (2, Outcome.SUCCESS, True),
    ]
    assert not here.ledger.open_trials()


def test_a_trial_of_which_no_verdict_could_be_kept_is_a_crash_and_keeps_its_recording(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runner, "keep", lambda folder, trial: False)
        refuse(patch, here.ledger, "seal", lambda: True)
        with pytest.raises(DiskFull):
            here.work(1, lambda: here.stop.append(True))
    first, _ = here.work(1)
    assert (first.outcome, first.cause, first.recording_bytes > 100_000) == (Outcome.INVALID, "crash", True)


def test_what_a_crash_left_of_a_recording_waits_for_the_room_to_recover_it(
    here: Here, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Standstill, "verify", None)  # not callable: a bug
        with pytest.raises(TypeError):
            run_trial(here.rig, *here.lease(), "l1")
    reserve = reserve_of(here.station)
    assert reserve.stands
    disk.free(full_at=1)

    def room_comes_back() -> None:
        if here.waits == 3:
            assert not reserve.stands
            assert not here.trials()
            disk.free()

    crashed, after = here.work(1, room_comes_back)
    assert (crashed.outcome, crashed.cause, after.outcome) == (Outcome.INVALID, "crash", Outcome.SUCCESS)
    assert crashed.recording_bytes > 100_000
    assert "No space left on device" in next(detail for state, detail in here.said if state == "fault")
    assert here.recordings() == [f"{crashed.epoch}-000001.cut.mcap", f"{crashed.epoch}-000002.mcap"]


def test_while_a_verdict_waits_for_room_what_a_backup_holds_makes_it(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    (held,) = here.work(1)
    here.ledger.acknowledge([held.identity], time.time())
    here.ledger.recording_sent(held.recording, time.time())
    here.ledger.replicated(held.epoch, [(1, 1)])
    here.ledger.recordings_replicated([held.recording])
    path = here.station.folder / "recordings" / f"{held.epoch}-000001.mcap"
    refusals = refuse(monkeypatch, here.ledger, "seal", path.exists)
    here.stop.clear()
    trial = run_trial(here.rig, *here.lease(), "l1")
    assert len(refusals) == 2  # the reserve does not help as long as the file is there
    assert trial.outcome is Outcome.SUCCESS
    assert here.trials() == [trial]


def test_what_could_not_be_marked_is_sent_again(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = run_trial(here.rig, *here.lease(), "l1")
    with no_byte_more():
        for mark in (
            lambda: here.ledger.acknowledge([trial.identity], time.time()),
            lambda: here.ledger.refused(trial.identity, "no"),
            lambda: here.ledger.add_lease(Lease("l9", "push_t", (), 1e12)),
        ):
            with pytest.raises(LedgerError, match="disk full"):
                mark()
    assert here.trials() == [trial]
    here.ledger.acknowledge([trial.identity], time.time())
    assert here.trials() == []
    assert [sha256 for sha256, _ in here.ledger.unsent_recordings(9)] == [trial.recording]
    with no_byte_more(), pytest.raises(LedgerError, match="disk full"):
        here.ledger.recording_sent(trial.recording, time.time())
    assert len(here.ledger.unsent_recordings(9)) == 1


def test_a_recording_is_deleted_only_once_that_is_marked_and_is_marked_as_gone_the_next_time(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = run_trial(here.rig, *here.lease(), "l1")
    here.ledger.acknowledge([trial.identity], 0.0)
    here.ledger.recording_sent(trial.recording, 0.0)
    folder = here.station.folder / "recordings"
    with no_byte_more(), pytest.raises(LedgerError, match="disk full"):
        purge(folder, here.ledger, True, 1e9)
    assert len(here.recordings()) == 1
    real = here.ledger.purged

    def full(row: int) -> None:
        with no_byte_more():
            real(row)

    with monkeypatch.context() as patch:
        patch.setattr(here.ledger, "purged", full)
        with pytest.raises(LedgerError, match="disk full"):
            purge(folder, here.ledger, True, 1e9)
    assert here.recordings() == []
    assert len(here.ledger.purgeable(True, 1e9)) == 1
    assert purge(folder, here.ledger, True, 1e9) == (0, 0)
    assert here.ledger.purgeable(True, 1e9) == []


def test_a_bundle_that_does_not_fit_leaves_nothing_and_is_unpacked_later(
    here: Here, bundled: tuple[str, bytes], tmp_path: Path
) -> None:
    opened = bundle.open_bundle(bundled[1], bundled[0])
    with no_byte_more(), pytest.raises(bundle.BundleError, match="cannot unpack") as caught:
        bundle.unpack(opened, tmp_path / "bundles")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "bundles").iterdir()) == []
    assert bundle.read_unpacked(bundle.unpack(opened, tmp_path / "bundles")).task == "push_t"


# -- the ladder -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """What a recording holds of a trial."""

    joints: int
    setpoints: int
    scenes: int
    picture_heights: frozenset[int]
    joint_hz: float  # as the recording says itself


def kept_in(path: Path) -> Kept:
    found: dict[str, list[dict[str, Any]]] = {}
    with open(path, "rb") as stream:
        for _, channel, message in make_reader(stream).iter_messages():
            found.setdefault(channel.topic, []).append(json.loads(message.data))
    jpegs = [base64.b64decode(item["data"]) for item in found.get("/camera/top", [])]
    heights = {cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[0] for jpeg in jpegs}
    tier = next(json.loads(item["text"]) for item in found["/events"] if item["kind"] == "tier")
    return Kept(
        len(found["/joints"]), len(found["/setpoint"]), len(found["/scene"]), frozenset(heights), tier["joint_hz"]
    )


def test_on_the_way_down_less_is_recorded_then_no_trial_begins_and_all_comes_back(
    made: Station, tmp_path: Path, host: PolicyHost, bundled: tuple[str, bytes]
) -> None:
    station = replace(made, folder=tmp_path)
    free_mb = [900.0]
    with at_work(station, host, bundled, Retention(station, lambda _: Space(free_mb[0], 1000.0))) as here:
        kept, notes = {}, {}
        for share in (0.25, 0.15, 0.07):
            free_mb[0] = share * 1000
            (trial,) = here.work(1)
            assert trial.outcome is Outcome.SUCCESS
            notes[share] = trial.notes.get("recording", "")
            kept[share] = kept_in(tmp_path / "recordings" / f"{trial.epoch}-{trial.sequence:06d}.mcap")
        looks = LOOKS + 2  # and the task's own
        assert kept[0.25].setpoints == kept[0.15].setpoints == STEPS
        assert kept[0.25].joints == kept[0.15].joints >= STEPS
        assert kept[0.07].setpoints == pytest.approx(STEPS / 6, abs=1)
        assert kept[0.07].joints == pytest.approx(STEPS / 6, abs=1)
        assert [item.scenes for item in kept.values()] == [looks] * 3
        assert [item.picture_heights for item in kept.values()] == [{240}, {120}, set()]
        assert [item.joint_hz for item in kept.values()] == [30.0, 30.0, 5.0]
        assert notes[0.25] == ""
        assert "small pictures" in notes[0.15]
        assert "joints at 5 Hz, no pictures" in notes[0.07]

        free_mb[0] = 45.0
        moved, begun, said = here.arm.advances, len(here.trials()), len(here.said)

        def room_comes_back() -> None:
            if here.waits < 50:
                assert (here.arm.advances, len(here.trials())) == (moved, begun)
            else:
                free_mb[0] = 900.0

        (trial,) = here.work(1, room_comes_back)
        assert here.said[said][0] == "fault"
        assert "disk nearly full, no trial is begun and nothing was lost: 45 MB free, 4%" in here.said[said][1]
        assert (trial.outcome, dict(trial.notes)) == (Outcome.SUCCESS, {})
        assert here.rig.retention.outlook is not None
        assert here.rig.retention.outlook.rung is Rung.FULL
        assert [trial.sequence for trial in here.trials()] == [1, 2, 3, 4]


@pytest.mark.parametrize(("joint_hz", "kept_of_30"), [(30.0, 30), (20.0, 20), (7.5, 7.5), (1.0, 1)])
def test_a_station_records_joints_at_its_own_rate(
    made: Station, tmp_path: Path, host: PolicyHost, bundled: tuple[str, bytes], joint_hz: float, kept_of_30: float
) -> None:
    station = replace(made, folder=tmp_path, recording=replace(made.recording, joint_hz=joint_hz, camera="none"))
    with at_work(station, host, bundled, Retention(station, lambda _: PLENTY)) as here:
        (trial,) = here.work(1)
        assert dict(trial.notes) == {}  # it is what station.toml says
        kept = kept_in(tmp_path / "recordings" / f"{trial.epoch}-{trial.sequence:06d}.mcap")
    assert kept.setpoints == pytest.approx(STEPS * kept_of_30 / 30, abs=1)
    assert kept.picture_heights == set()


# -- a real small disk ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["tmpfs", "ext4"])
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of 8 MB of its own."""
    place, image = tmp_path / "disk", tmp_path / "disk.img"
    place.mkdir()
    commands = [["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]]
    if request.param == "ext4":
        with open(image, "wb") as out:
            out.truncate(8 << 20)
        commands = [["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(place)]]
    for command in commands:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no disk of 8 MB can be mounted here: there is no `{command[0]}`")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no disk of 8 MB can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def host_there(small_disk: Path) -> Iterator[PolicyHost]:
    """A host that was started when the disk was there: it may see no disk that is mounted later."""
    with PolicyHost() as host:
        yield host


def fill(folder: Path) -> None:
    """Write until the disk takes no byte more."""
    with open(folder / "ballast", "ab", buffering=0) as out:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    out.write(bytes(size))


def test_on_a_small_disk_no_trial_is_lost(
    made: Station, small_disk: Path, host_there: PolicyHost, bundled: tuple[str, bytes]
) -> None:
    station = replace(made, folder=small_disk, storage=replace(made.storage, reserve_mb=1.0))
    ballast, reserve = small_disk / "ballast", reserve_of(station)
    retention = Retention(station, disk_space, room_mb=0.5)
    with at_work(station, host_there, bundled, retention) as here:

        def until_parked() -> None:
            assert retention.outlook is not None
            if retention.outlook.rung is Rung.PARKED:
                here.stop.append(True)

        # By its own recordings the station comes down the ladder, a trial at a time.
        trials = here.work(99, until_parked)
        assert retention.outlook is not None
        assert retention.outlook.rung is Rung.PARKED
        assert len(trials) > 5
        assert all(trial.recording for trial in trials)
        assert any("small pictures" in trial.notes.get("recording", "") for trial in trials)
    with Ledger(small_disk / "ledger.db", station.name) as uplink:  # the coordinator has them, and a backup
        uplink.acknowledge([trial.identity for trial in trials], time.time())
        for trial in trials:
            uplink.recording_sent(trial.recording, time.time())
        uplink.replicated(trials[0].epoch, [(1, trials[-1].sequence)])
        uplink.recordings_replicated(trial.recording for trial in trials)

    # The next start deletes them by itself and goes on. Then the disk fills up to the last byte in the middle of a
    # trial, and takes what the recording leaves as well: the reserve seals it.
    retention = Retention(station, disk_space, room_mb=0.5)
    with at_work(station, host_there, bundled, retention) as here:
        parked: list[str] = []

        def fill_midway() -> None:
            if here.arm.advances >= STEPS // 2 and not parked:
                fill(small_disk)

        def room_comes_back() -> None:
            if ballast.exists():
                assert not reserve.stands
                parked.append(here.said[-1][1])
                ballast.unlink()

        here.arm.every_period = fill_midway
        cut, *after = here.work(5, room_comes_back)
        assert "No space left on device" in cut.notes["recording"]
        assert (cut.outcome, cut.recording, cut.policy_steps) == (Outcome.SUCCESS, "", STEPS)
        assert len(parked) == 1
        assert "no trial is begun and nothing was lost" in parked[0]
        assert [(trial.outcome, bool(trial.recording)) for trial in after] == [(Outcome.SUCCESS, True)] * len(after)
        assert len(after) > 3
        assert [trial.sequence for trial in (*trials, cut, *after)] == list(range(1, len(trials) + len(after) + 2))
    with Ledger(small_disk / "ledger.db", station.name) as again:
        assert not again.open_trials()
        assert [decode(Trial, sealed.body) for sealed in again.unacked(99)] == [cut, *after]


@pytest.mark.parametrize("reserved", [True, False])
def test_a_start_on_a_full_disk_takes_the_reserve_or_waits_for_room(
    made: Station, small_disk: Path, host_there: PolicyHost, bundled: tuple[str, bytes], reserved: bool
) -> None:
    station = replace(made, folder=small_disk, storage=replace(made.storage, reserve_mb=1.0))
    retention = Retention(station, disk_space, room_mb=0.5)
    reserve = reserve_of(station)
    with at_work(station, host_there, bundled, retention) as here:
        assert reserve.make()
        here.ledger.open_trial(here.lease()[0], "l1", time.time())  # and the process is killed
    if not reserved:
        reserve.give_up()
    fill(small_disk)
    waits: list[str] = []

    def again(why: str) -> bool:
        waits.append(why)
        (small_disk / "ballast").unlink()
        return True

    with retention.insist(lambda: Ledger(small_disk / "ledger.db", station.name), again) as ledger:
        assert len(ledger.open_trials()) == 1
    assert len(waits) == (0 if reserved else 1)
    assert not reserve.stands
    (small_disk / "ballast").unlink(missing_ok=True)
    with at_work(station, host_there, bundled, retention) as here:
        crashed, after = here.work(2)
        assert (crashed.outcome, crashed.cause, after.outcome) == (Outcome.INVALID, "crash", Outcome.SUCCESS)
