"""Lets today's judge look at what the judge of a recorded trial saw, and compares what they say.

The judge steps out of view and looks through the same `StationRobot` as then, on an arm without physics and with the
recorded scenes for a camera.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.control.loop import ControlError
from edge.planning.kinematics import chain_of
from edge.records import Outcome
from edge.replay.arm import IdealArm
from edge.replay.recorded import Look, Pose, Recorded
from edge.station import Station
from edge.tasks.task import Task, Verdict
from edge.trials.judges import TASKS
from edge.trials.robot import Bench, StationRobot
from edge.trials.runner import VERIFY_LIMIT_S
from policies.interface import OutOfReach, Scene, TrialOver

FEELING = ("pin_insertion",)  # tasks whose judge touches things
UNJUDGED = ("stopped", "verify")  # causes that say that the judge did not come to a verdict
NO_PICTURE: NDArray[np.uint8] = np.zeros((1, 1, 3), dtype=np.uint8)


class LooksUsedUp(TrialOver):
    """The judge wants to look more often than it did then."""


@dataclass(frozen=True)
class VerdictReplay:
    """What the judge said then and what it says now."""

    then: str  # outcome
    now: str  # empty where it comes to no verdict
    then_cause: str
    now_cause: str
    then_detail: str
    now_detail: str
    then_measures: Mapping[str, float]
    now_measures: Mapping[str, float]
    same: bool


def replay_verdict(station: Station, recorded: Recorded) -> VerdictReplay | str:
    """Return today's verdict beside the recorded one, or one line about what the recording lacks."""
    name = str(recorded.trial.get("task", station.task))
    if name not in TASKS:
        return f"no judge of task {name!r} is here; known: {', '.join(TASKS)}"
    if name in FEELING:
        return f"the judge of {name} feels forces, which an arm without physics does not give"
    then = _said_then(recorded)
    if isinstance(then, str):
        return then
    now = _judge(TASKS[name](), station, recorded)
    if isinstance(now, str):
        return now
    if not recorded.said("judged") and then.outcome is Outcome.INVALID and now.cause in UNJUDGED:
        return f"it was never judged ({then.detail})"
    return VerdictReplay(
        then=then.outcome,
        now="" if now.cause in UNJUDGED else now.outcome,
        then_cause=then.cause,
        now_cause=now.cause,
        then_detail=then.detail,
        now_detail=now.detail,
        then_measures=_finite(then.measures),
        now_measures=_finite(now.measures),
        same=_same(then, now, whole=bool(recorded.said("judged"))),
    )


def _finite(measures: Mapping[str, float]) -> dict[str, float]:
    """Return what JSON can hold of some measures."""
    return {name: value for name, value in measures.items() if math.isfinite(value)}


def _said_then(recorded: Recorded) -> Verdict | str:
    """Return the recorded verdict, or why there is none."""
    judged, ended = recorded.said("judged"), recorded.event("verdict")
    try:
        if judged:
            measures = {str(name): float(value) for name, value in judged["measures"].items()}
            outcome, progress = Outcome(judged["outcome"]), float(judged["progress"])
            then = Verdict(outcome, progress, str(judged["cause"]), str(judged["detail"]), measures)
            return f"it was never judged ({then.detail})" if then.cause in UNJUDGED else then
        if ended is None:
            return "it holds no verdict: it was cut short"
        if recorded.trial:
            return f"it was never judged ({ended.text})"
        word, _, detail = ended.text.partition(": ")
        return Verdict(Outcome(word), 0.0, detail=detail)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return f"its verdict is not one of this version: {error}"


def _judge(task: Task, station: Station, recorded: Recorded) -> Verdict | str:
    """Return what a judge says who sees what was seen then, or why the arm cannot begin where it stood."""
    poses = [pose for pose in recorded.poses if pose.is_finite and not pose.asked]
    # The one measured as the stage began, or else the last one.
    pose = next((pose for pose in poses if pose.at > recorded.verify_at), poses[-1] if poses else None)
    if pose is None:
        return "it holds no measured joints for the judge to begin from"
    looks = iter([look for look in recorded.looks if look.at > recorded.verify_at])
    try:
        robot = _robot(station, pose, looks)
    except ControlError as error:
        return f"the judge's arm cannot begin where it stood: {error}"
    try:
        robot.begin(VERIFY_LIMIT_S)
        return task.verify(robot, recorded.trial.get("start", {}))
    except (TrialOver, OutOfReach) as error:
        return Verdict(Outcome.INVALID, 0.0, "verify", str(error))


def _robot(station: Station, pose: Pose, looks: Iterator[Look]) -> StationRobot:
    """Return the robot on an ideal arm that holds at `pose`, its camera showing `looks` one after the other.

    Raises:
        ControlError: the pose is outside the limits.
    """
    arm = IdealArm(station)
    arm.wake(pose.joints_rad, pose.gripper_m, pose.time_ns)

    def look() -> tuple[NDArray[np.uint8], Scene]:
        found = next(looks, None)
        if found is None:
            raise LooksUsedUp("the judge looks more often than it did then, and there is nothing left to see")
        return NO_PICTURE, found.scene

    bench = Bench(arm.advance, arm.state, look, lambda: False, lambda: None, arm.limit)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    return StationRobot(bench, chain, station, pose.gripper_m)


def _same(then: Verdict, now: Verdict, whole: bool) -> bool:
    """Return whether two verdicts agree; of an old recording (not `whole`) only the trial's outcome is known."""
    if now.cause in UNJUDGED:
        return False
    if whole:
        return (then.outcome, then.cause) == (now.outcome, now.cause)
    # How the policy ended overruled the judge, who is quoted after it.
    overruled = then.outcome is Outcome.FAILURE and then.detail.endswith(f"; {now.detail}")
    return then.outcome is now.outcome or overruled
