"""Runs one assignment from reset to sealed trial, and keeps a station at work.

- The trial is in the ledger before the arm moves and stays there whatever happens.
- A verdict outlives the process as soon as it is found, also where the ledger cannot be written.
- On a full disk no trial is begun; one that fills it is sealed with its verdict, and without a recording.
- What the policy does wrong is a failure, what the station does wrong is invalid; both are evidence, both are sealed.
- The verdict is the task's, but how a policy ended overrules it: a crash beside a perfectly placed T is a failure.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from edge import software
from edge.activation.journal import ActivationError, Journal
from edge.disk import Rung
from edge.envelope import EnvelopeImpossible, narrowed, to_text
from edge.ledger import Ledger, LedgerError
from edge.records import Assignment, Outcome, Trial
from edge.retention import Retention, purge
from edge.sandbox.process import PolicyEnd, PolicyHost
from edge.station import RecordingTier, Station
from edge.tasks.task import Readiness, Task, Verdict
from edge.trials.aftermath import forget, forget_all, keep, recording_path, rescue, seal_kept
from edge.trials.recorder import Recorder
from edge.trials.robot import EpisodeOver, SafetyStop, StopAsked, Tape, TimeUp, TrialRobot
from edge.trials.rollout import Rollout
from policies.bundle import BundleError, Manifest, read_unpacked
from policies.interface import OutOfReach, TrialOver

LOG = logging.getLogger("edge.trials")
RESET_TRIES = 3
RESET_LIMIT_S = 90.0
VERIFY_LIMIT_S = 30.0
HELP_AFTER = {"reset": 2, "disk": 1}  # causes that a person can cure, and how many such trials in a row are too many
HELP_PAUSE_S = 10.0

Written = TypeVar("Written")
Say = Callable[[str, str, Assignment | None, int], None]  # state, detail, assignment, sequence


@dataclass(frozen=True)
class Rig:
    """All that a station runs trials with."""

    station: Station
    task: Task
    robot: TrialRobot
    host: PolicyHost
    ledger: Ledger
    retention: Retention
    rollout: Rollout
    station_time_s: Callable[[], float]
    stop_asked: Callable[[], bool]
    say: Say
    wait: Callable[[], None]  # a moment in which there is nothing to do


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


def work(rig: Rig) -> None:
    """Run assignments until a stop is asked.

    Raises:
        LedgerError: what a crashed run left open, or the trial at hand, cannot be sealed; the next start tries again.
    """
    _recover(rig)
    rig.rollout.started()
    in_a_row = 0
    last_cause = ""
    while not rig.stop_asked():
        try:
            rig.rollout.tend()
            outlook = rig.retention.look(rig.ledger, time.time())
            found = None if outlook.rung is Rung.PARKED else rig.ledger.next_assignment(time.time())
            blank = None if found is None else _begin(rig, *found)
        except (LedgerError, ActivationError) as error:
            rig.say("fault", str(error), None, 0)
            rig.wait()
            continue
        if found is None or blank is None:
            parked = outlook.rung is Rung.PARKED
            rig.say(*(("fault", outlook.sentence) if parked else ("waiting", "no work leased")), None, 0)
            rig.wait()
            continue
        trial = _run(rig, found[0], blank)
        in_a_row = in_a_row + 1 if trial.cause == last_cause else 1
        last_cause = trial.cause
        if in_a_row >= HELP_AFTER.get(trial.cause, float("inf")):
            _wait_for_help(rig, trial)


def _recover(rig: Rig) -> None:
    """Seal what a crashed run left open."""
    folder = rig.station.folder

    def recover() -> list[Trial]:
        seal_kept(folder, rig.ledger, time.time())
        return rig.ledger.recover(
            time.time(),
            task=rig.task.name,
            station_hash=rig.station.station_hash,
            calibration_hash=rig.station.calibration_hash,
            software=software.versions(),
            rescue=lambda trial: rescue(folder, trial),
        )

    for trial in _insist(rig, recover):
        LOG.warning("trial %d was cut short by a crash and is sealed as invalid", trial.sequence)
    forget_all(folder)


def _insist(rig: Rig, write: Callable[[], Written]) -> Written:
    """Write to the ledger, on a full disk once there is room; what the coordinator gets meanwhile may go for it."""

    def again(why: str) -> bool:
        with suppress(LedgerError, OSError):  # of which `write` will hear as well
            purge(rig.station.folder / "recordings", rig.ledger, True, time.time())
        return _again(rig, why)

    return rig.retention.insist(write, again)


def _again(rig: Rig, why: str) -> bool:
    """Wait a moment for what a person has to cure; return whether to try again."""
    rig.say("fault", why, None, 0)
    rig.wait()
    return not rig.stop_asked()


def _wait_for_help(rig: Rig, trial: Trial) -> None:
    """Let some time pass before the next try: what goes wrong every time must not burn through leased work."""
    what = "the scene cannot be reset: put it right by hand" if trial.cause == "reset" else "nothing can be recorded"
    LOG.error("%s (%s); trying again in %.0f s", what, trial.detail, HELP_PAUSE_S)
    until_s = time.monotonic() + HELP_PAUSE_S
    while time.monotonic() < until_s and _again(rig, f"{what} ({trial.detail})"):
        pass


def run_trial(rig: Rig, assignment: Assignment, lease_id: str) -> Trial:
    """Run one assignment and return the sealed trial.

    Raises:
        LedgerError: it cannot be begun, and nothing has moved; or it cannot be sealed, and the next start does that.
    """
    return _run(rig, assignment, _begin(rig, assignment, lease_id))


def _begin(rig: Rig, assignment: Assignment, lease_id: str) -> Trial:
    """Commit that a trial begins and return what is known of it."""
    epoch, sequence = rig.ledger.open_trial(assignment, lease_id, time.time())
    return _blank(rig, assignment, lease_id, epoch, sequence)


def _run(rig: Rig, assignment: Assignment, blank: Trial) -> Trial:
    """Run and seal a trial that was begun."""
    folder, tier = rig.station.folder, rig.retention.tier
    keep(folder, blank)
    path = recording_path(folder, blank.epoch, blank.sequence)
    with Recorder(path, tier) as recorder:
        rig.robot.recording = recorder
        rig.robot.log("trial", _identity(assignment, blank))
        rig.robot.log("tier", json.dumps(asdict(tier)))
        tape = rig.rollout.tape_for(assignment)
        try:
            # A disk that does not even take the beginning is no place for evidence: the arm is not moved.
            trial = _invalid(blank, "disk", recorder.lost) if recorder.lost else _attempt(rig, assignment, blank, tape)
        finally:
            rig.robot.recording = None
        recorder.event(round(rig.station_time_s() * 1e9), "verdict", f"{trial.outcome}: {trial.detail}")
        trial = replace(_noted(rig, trial, tier, recorder.lost), ended_unix_s=time.time())
        # Before the recording is sealed: no kill in between can part the two.
        kept = keep(folder, trial)
        sha256, size = recorder.seal()
    trial = replace(_noted(rig, trial, tier, recorder.lost), recording=sha256, recording_bytes=size)
    if recorder.lost or not kept:  # a recording that was given up has left its room, and a note
        keep(folder, trial)
    ended = trial
    trial = _insist(rig, lambda: rig.ledger.seal(ended, path if sha256 else None))
    forget(folder, blank)
    rig.rollout.sealed(trial, tape)
    LOG.info("trial %d %s %s: %s", blank.sequence, assignment.start_id, trial.outcome, trial.detail)
    return trial


def _noted(rig: Rig, trial: Trial, tier: RecordingTier, lost: str) -> Trial:
    """Return the trial with a note where there is less of a recording than station.toml says."""
    if not lost and tier == rig.station.recording:
        return trial
    note = lost or f"less than station.toml says, as the disk filled up: {_tier(tier)}"
    return replace(trial, notes={**trial.notes, "recording": note})


def _tier(tier: RecordingTier) -> str:
    pictures = "no pictures" if tier.camera == "none" else f"{tier.camera} pictures"
    return f"joints at {tier.joint_hz:g} Hz, {pictures}"


def _attempt(rig: Rig, assignment: Assignment, blank: Trial, tape: Tape | None) -> Trial:
    """Reset, run, verify; return the trial but for its recording. What may not run here moves nothing."""
    try:
        permit = rig.rollout.permit(assignment)
    except ActivationError as error:  # the trial is in the ledger already, and must be sealed
        return _invalid(blank, "disk", str(error))
    if not permit.allowed:
        return _invalid(blank, "bundle", permit.why)
    clock = _Clock.start(rig)
    readiness, tries, stopped = _make_ready(rig, assignment, blank.sequence)
    reset_s, wall_reset_s = clock.lap(rig)
    start = dict(readiness.measured)
    blank = replace(blank, reset_s=reset_s, wall_reset_s=wall_reset_s, reset_tries=tries, achieved_start=start)
    if stopped is not None:
        return _invalid(blank, "stopped", str(stopped))
    if not readiness.ready:
        return _invalid(blank, "reset", f"not ready after {tries} resets: {readiness.detail}")
    try:
        manifest, folder = _policy(rig, assignment)
        station = narrowed(rig.station, manifest.envelope, permit.full_envelope)
    except (BundleError, EnvelopeImpossible) as error:
        return _invalid(blank, "bundle", str(error))
    if unfit := rig.robot.why_unfit(station):
        return _invalid(blank, "bundle", unfit)
    rig.say("trial", "", assignment, blank.sequence)
    clock = _Clock.start(rig)
    end = _run_policy(rig, manifest, folder, station, tape)
    trial_s, _ = clock.lap(rig)
    over, notes = rig.robot.over, _notes_of(rig)
    rig.robot.log("stage", "verify")
    verdict = _verify(rig, assignment)
    rig.robot.log("judged", json.dumps(asdict(verdict)))
    _, wall_trial_s = clock.lap(rig)
    blank = replace(blank, trial_s=trial_s, wall_trial_s=wall_trial_s, policy_steps=end.steps, notes=notes)
    return _conclude(blank, verdict, end, over)


def _run_policy(rig: Rig, manifest: Manifest, folder: Path, station: Station, tape: Tape | None) -> PolicyEnd:
    """Run the policy within the limits of `station`, and take them back."""
    robot = rig.robot
    robot.log("stage", "run")
    robot.log("limits", to_text(station))
    try:
        with robot.confined(station):
            robot.tape, robot.why_stop = tape, lambda: rig.rollout.why_stop(folder.name)
            robot.begin(min(rig.task.time_limit_s, manifest.envelope.trial_s or rig.task.time_limit_s))
            end = rig.host.run(folder, manifest.entry, manifest.params, robot, manifest.resources)
    finally:
        robot.tape, robot.why_stop = None, lambda: ""
    robot.log("limits", to_text(rig.station))
    robot.log("policy", json.dumps(asdict(end)))
    return end


def _notes_of(rig: Rig) -> dict[str, str]:
    """Return what the policy left of words, none where it was silent."""
    text = rig.robot.notes.text
    return {"policy": text} if text else {}


def _make_ready(rig: Rig, assignment: Assignment, sequence: int) -> tuple[Readiness, int, StopAsked | None]:
    """Return the last readiness, the resets it took, and the order to stop if one came."""
    rig.say("reset", "", assignment, sequence)
    rig.robot.log("stage", "reset")
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
    try:
        manifest = read_unpacked(folder)
    except BundleError:
        with suppress(ActivationError), Journal(rig.station.folder / "activation.db") as journal:
            if assignment.bundle not in journal.pinned():  # of those the steward takes care
                journal.missing(assignment.bundle)  # and the next lease has it fetched anew
        raise
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
    """Return the failure class of a policy that did not end by itself, empty for one that did or had no need to."""
    if isinstance(over, TimeUp):
        return "timeout"
    if isinstance(over, SafetyStop):
        return "safety"
    return "" if end.kind == "finished" or isinstance(over, EpisodeOver) else end.kind


def _identity(assignment: Assignment, blank: Trial) -> str:
    """Return, as JSON, what a recording says about its trial: whose it is, what was asked for, what judged it."""
    names = ("edge", "epoch", "sequence", "task", "bundle", "start_id", "purpose", "seed")
    hashes = ("station_hash", "calibration_hash", "software")
    return json.dumps({name: getattr(blank, name) for name in names + hashes} | {"start": dict(assignment.start)})


def _invalid(trial: Trial, cause: str, detail: str) -> Trial:
    return replace(trial, outcome=Outcome.INVALID, cause=cause, detail=detail, progress=0.0)


def _blank(rig: Rig, assignment: Assignment, lease_id: str, epoch: str, sequence: int) -> Trial:
    """Return the trial before anything has happened: a crash, until more is known."""
    return Trial(
        edge=rig.ledger.edge,
        epoch=epoch,
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
        detail="the station's process ended during this attempt",
        progress=0.0,
        measures={},
        achieved_start={},
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
