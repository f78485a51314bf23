"""Runs one assignment from reset to sealed trial, and keeps a station at work.

- The trial is in the ledger before the arm moves and stays there whatever happens.
- What the policy does wrong is a failure, what the station does wrong is invalid; both are evidence, both are sealed.
- The verdict is the task's, but how a policy ended overrules it: a crash beside a perfectly placed T is a failure.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge import software
from edge.ledger import Ledger, LedgerError, room
from edge.records import Assignment, Outcome, Trial
from edge.sandbox.process import PolicyEnd, PolicyHost
from edge.station import Station
from edge.tasks.task import Readiness, Task, Verdict
from edge.trials.recording import Recording
from edge.trials.robot import SafetyStop, StationRobot, StopAsked, TimeUp
from policies.bundle import BundleError, Manifest, read_unpacked
from policies.interface import OutOfReach, TrialOver

LOG = logging.getLogger("edge.trials")
RESET_TRIES = 3
RESET_LIMIT_S = 90.0
VERIFY_LIMIT_S = 30.0
TRIAL_ROOM_MB = 64.0
UNREADY_BEFORE_HELP = 2  # trials in a row
HELP_PAUSE_S = 10.0

Say = Callable[[str, str, Assignment | None, int], None]  # state, detail, assignment, sequence


@dataclass(frozen=True)
class Rig:
    """All that a station runs trials with."""

    station: Station
    task: Task
    robot: StationRobot
    host: PolicyHost
    ledger: Ledger
    station_time_s: Callable[[], float]
    stop_asked: Callable[[], bool]
    say: Say


@dataclass
class _Clock:
    """Station and wall time of one stretch."""

    station_s: float
    wall_s: float

    @staticmethod
    def start(rig: Rig) -> _Clock:
        return _Clock(rig.station_time_s(), time.monotonic())

    def lap(self, rig: Rig) -> tuple[float, float]:
        return rig.station_time_s() - self.station_s, time.monotonic() - self.wall_s


def work(rig: Rig, wait: Callable[[], None]) -> None:
    """Run assignments until a stop is asked; `wait` is called while there is nothing to do."""
    recovered = rig.ledger.recover(
        time.time(),
        task=rig.task.name,
        station_hash=rig.station.station_hash,
        calibration_hash=rig.station.calibration_hash,
        software=software.versions(),
    )
    for trial in recovered:
        LOG.warning("trial %d was cut short by a crash and is sealed as invalid", trial.sequence)
    unready = 0
    while not rig.stop_asked():
        try:
            room(rig.station.folder, TRIAL_ROOM_MB)
            found = rig.ledger.next_assignment(time.time())
        except LedgerError as error:
            rig.say("fault", str(error), None, 0)
            wait()
            continue
        if found is None:
            rig.say("waiting", "no work leased", None, 0)
            wait()
            continue
        trial = run_trial(rig, *found)
        unready = unready + 1 if trial.cause == "reset" else 0
        if unready >= UNREADY_BEFORE_HELP:
            _wait_for_help(rig, wait, trial)


def _wait_for_help(rig: Rig, wait: Callable[[], None], trial: Trial) -> None:
    """Let some time pass before the next try: a scene that cannot be reset must not burn through leased work."""
    LOG.error(
        "the scene cannot be reset (%s): put it right by hand; trying again in %.0f s", trial.detail, HELP_PAUSE_S
    )
    until_s = time.monotonic() + HELP_PAUSE_S
    while not rig.stop_asked() and time.monotonic() < until_s:
        rig.say("fault", f"the scene cannot be reset: put it right by hand ({trial.detail})", None, 0)
        wait()


def run_trial(rig: Rig, assignment: Assignment, lease_id: str) -> Trial:
    """Run one assignment and return the sealed trial."""
    sequence = rig.ledger.open_trial(assignment, lease_id, time.time())
    blank = _blank(rig, assignment, lease_id, sequence)
    path = rig.station.folder / "recordings" / f"{rig.ledger.epoch}-{sequence:06d}.mcap"
    with Recording(path) as recording:
        rig.robot.recording = recording
        try:
            trial = _attempt(rig, assignment, blank)
        finally:
            rig.robot.recording = None
        recording.event(round(rig.station_time_s() * 1e9), "verdict", f"{trial.outcome}: {trial.detail}")
        sha256, size = recording.seal()
    trial = replace(trial, ended_unix_s=time.time(), recording=sha256, recording_bytes=size)
    rig.ledger.seal(trial, path)
    LOG.info("trial %d %s %s: %s", sequence, assignment.start_id, trial.outcome, trial.detail)
    return trial


def _attempt(rig: Rig, assignment: Assignment, blank: Trial) -> Trial:
    """Reset, run, verify; return the trial but for its recording."""
    clock = _Clock.start(rig)
    readiness, tries, stopped = _make_ready(rig, assignment, blank.sequence)
    reset_s, wall_reset_s = clock.lap(rig)
    blank = replace(
        blank,
        reset_s=reset_s,
        wall_reset_s=wall_reset_s,
        reset_tries=tries,
        achieved_start=dict(readiness.measured),
    )
    if stopped is not None:
        return _invalid(blank, "stopped", str(stopped))
    if not readiness.ready:
        return _invalid(blank, "reset", f"not ready after {tries} resets: {readiness.detail}")
    try:
        manifest, folder = _policy(rig, assignment)
    except BundleError as error:
        return _invalid(blank, "bundle", str(error))
    rig.say("trial", "", assignment, blank.sequence)
    clock = _Clock.start(rig)
    rig.robot.begin(rig.task.time_limit_s)
    end = rig.host.run(folder, manifest.entry, manifest.params, rig.robot)
    trial_s, _ = clock.lap(rig)
    over = rig.robot.over
    verdict = _verify(rig, assignment)
    _, wall_trial_s = clock.lap(rig)
    blank = replace(blank, trial_s=trial_s, wall_trial_s=wall_trial_s, policy_steps=end.steps)
    return _conclude(blank, verdict, end, over)


def _make_ready(rig: Rig, assignment: Assignment, sequence: int) -> tuple[Readiness, int, StopAsked | None]:
    """Return the last readiness, the resets it took, and the order to stop if one came."""
    rig.say("reset", "", assignment, sequence)
    readiness = Readiness(False, {}, "not looked yet")
    tries = 0
    for _ in range(RESET_TRIES + 1):
        try:
            rig.robot.begin(RESET_LIMIT_S)
            readiness = rig.task.ready(rig.robot, assignment.start)
            if readiness.ready or tries == RESET_TRIES:
                break
            tries += 1
            rig.task.reset(rig.robot, assignment.start)
        except StopAsked as over:
            return readiness, tries, over
        except (TrialOver, OutOfReach) as error:
            LOG.warning("reset %d: %s", tries, error)
            readiness = Readiness(False, readiness.measured, str(error))
    return readiness, tries, None


def _policy(rig: Rig, assignment: Assignment) -> tuple[Manifest, Path]:
    """Return the manifest and folder of a bundle that the uplink has verified, every file hashed again."""
    folder = rig.station.folder / "bundles" / assignment.bundle
    manifest = read_unpacked(folder)
    if manifest.task != rig.task.name:
        raise BundleError(
            f"bundle {assignment.bundle[:12]} is for task {manifest.task}, this station does {rig.task.name}"
        )
    return manifest, folder


def _verify(rig: Rig, assignment: Assignment) -> Verdict:
    try:
        rig.robot.begin(VERIFY_LIMIT_S)
        return rig.task.verify(rig.robot, assignment.start)
    except StopAsked as over:
        return Verdict(Outcome.INVALID, 0.0, "stopped", str(over))
    except (TrialOver, OutOfReach) as error:
        return Verdict(Outcome.INVALID, 0.0, "verify", str(error))


def _conclude(blank: Trial, verdict: Verdict, end: PolicyEnd, over: TrialOver | None) -> Trial:
    """Combine the judge's verdict with how the policy ended."""
    judged = replace(
        blank,
        outcome=verdict.outcome,
        cause=verdict.cause,
        detail=verdict.detail,
        progress=verdict.progress,
        measures=dict(verdict.measures),
    )
    if isinstance(over, StopAsked):
        return _invalid(judged, "stopped", str(over))
    cause = _policy_fault(end, over)
    if not cause:
        return judged
    detail = f"{end.detail or over}; {verdict.detail}"
    # A failed attempt never shows full progress, wherever the T happens to lie.
    return replace(judged, outcome=Outcome.FAILURE, cause=cause, detail=detail, progress=min(judged.progress, 0.99))


def _policy_fault(end: PolicyEnd, over: TrialOver | None) -> str:
    """Return the failure class of a policy that did not end by itself, empty for one that did."""
    if isinstance(over, TimeUp):
        return "timeout"
    if isinstance(over, SafetyStop):
        return "safety"
    return "" if end.kind == "finished" else end.kind


def _invalid(trial: Trial, cause: str, detail: str) -> Trial:
    return replace(trial, outcome=Outcome.INVALID, cause=cause, detail=detail, progress=0.0)


def _blank(rig: Rig, assignment: Assignment, lease_id: str, sequence: int) -> Trial:
    """Return the trial before anything has happened."""
    nothing: Mapping[str, float] = {}
    return Trial(
        edge=rig.ledger.edge,
        epoch=rig.ledger.epoch,
        sequence=sequence,
        assignment_id=assignment.assignment_id,
        lease_id=lease_id,
        task=rig.task.name,
        bundle=assignment.bundle,
        start_id=assignment.start_id,
        purpose=assignment.purpose,
        seed=assignment.seed,
        outcome=Outcome.INVALID,
        cause="crash",
        detail="",
        progress=0.0,
        measures=nothing,
        achieved_start=nothing,
        reset_s=0.0,
        reset_tries=0,
        trial_s=0.0,
        policy_steps=0,
        wall_reset_s=0.0,
        wall_trial_s=0.0,
        started_unix_s=time.time(),
        ended_unix_s=0.0,
        station_hash=rig.station.station_hash,
        calibration_hash=rig.station.calibration_hash,
        software=software.versions(),
        recording="",
    )
