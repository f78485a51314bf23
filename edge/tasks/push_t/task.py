"""Push-T: the arm pushes the block to a commanded start, the top camera says when it stands there and how it ended.

- Success is coverage of the goal above 0.95, the rule of gym-pusht; about 2 mm or 2.4 degrees.
- The verdict is the mean of several pictures; too close to the threshold for what the fit can tell, it abstains.
- Nobody carries the block: the reset plans its own pushes with the appliance's skills, never with a bundle's. Its tool
  leans where a policy's must not go, so that it gets behind a T that a policy has pushed away: to 0.6 m from the base
  where the workspace goes so far, and as far aside as a part of the T is in view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge.records import Outcome
from edge.tasks.push_t.geometry import Pose, coverage, outline_m, wrap
from edge.tasks.task import Readiness, Start, Verdict
from policies.interface import Array, OutOfReach, Robot, SceneObject
from policies.skills.motion import GENTLE_M_S2, UPRIGHT_M, Mover
from policies.skills.pushing import Block, Choice, Contacts, Push, choose, contacts, cost_m

GOAL: Pose = (0.32, 0.0, float(np.pi / 4))
SUCCESS_COVERAGE = 0.95
ABSTAIN_BAND = 0.004  # coverage; bench/verdict_truth.py measures what it buys and costs
VERDICT_LOOKS = 5
READY_M, READY_RAD = 0.020, 0.20
RESET_AIM_M, RESET_AIM_RAD = 0.012, 0.12  # stop pushing inside this, so that a last slip still leaves it ready
RESET_PUSHES = 16
RESET_SPEED_M_S, RESET_TRAVEL_M_S = 0.10, 0.50
ENCODER_GAIN = 0.2
STICK_HEIGHT_M = 0.012
TRAVEL_HEIGHT_M = 0.05
OVER_THE_T_M, STRETCHING_M_S = 0.06, 0.20
NOT_FLAT = "blue thing"  # of the T's colour, and no T lying flat
KNOCK_RUN_M, KNOCK_HEIGHT_M = 0.06, 0.045
RAKE_BEHIND_M, RAKE_ROOM_M, RAKE_RUN_M = 0.14, 0.11, 0.03  # the rest of it lies further out
CLEAR_OF_VIEW_M = np.array([0.155, 0.0, 0.075])
# A class names what an attempt lacked, so that ideas can be matched to it.
FAR_M, ROTATED_RAD = 0.015, 0.15
BLOCK = Block(outline_m())
FURTHEST_M = 0.60  # from the base axis, where a leaning tool still stands clear of a T that it is to bring back
OPTIONS = Choice(tilts_rad=(-0.3, 0.0, 0.3), ring_m=(0.155, FURTHEST_M))
ANGLE_WEIGHTS_M = (OPTIONS.angle_weight_m, 0.005)  # the second brings it home first


@dataclass(frozen=True)
class Seen:
    """The T as the mean of some pictures."""

    pose: Pose
    looks: int


class PushT:
    """The task as the trial runner sees it."""

    name = "push_t"
    time_limit_s = 60.0

    def ready(self, robot: Robot, start: Start) -> Readiness:
        """Look, and say whether the T stands within 20 mm and 0.2 rad of the start."""
        _clear_view(_mover(robot))
        seen = _look(robot, 1)
        if seen is None:
            return Readiness(False, {}, "the camera does not see the whole T")
        measured = {"x_m": seen.pose[0], "y_m": seen.pose[1], "yaw_rad": seen.pose[2]}
        away_m, turned_rad = _errors(seen.pose, _pose_of(start))
        ready = away_m <= READY_M and abs(turned_rad) <= READY_RAD
        return Readiness(ready, measured, f"{away_m * 1e3:.0f} mm and {np.degrees(turned_rad):+.0f} deg from the start")

    def reset(self, robot: Robot, start: Start) -> None:
        """Push the T until it stands at the start or the pushes are used up."""
        mover, furthest_m = _mover(robot), FURTHEST_M
        places = contacts(BLOCK)
        for number in range(RESET_PUSHES):
            try:
                _clear_view(mover, furthest_m)
                if not _bring_nearer(mover, places, _pose_of(start), furthest_m, number):
                    return
            except OutOfReach:
                if furthest_m <= UPRIGHT_M:
                    raise
                mover, furthest_m = _mover(robot), UPRIGHT_M  # this station's workspace ends sooner

    def verify(self, robot: Robot, start: Start) -> Verdict:
        """Step out of view, look several times, and judge by coverage of the goal."""
        _clear_view(_mover(robot))
        seen = _look(robot, VERDICT_LOOKS)
        if seen is None and robot.scene().find(NOT_FLAT) is not None:
            return Verdict(Outcome.FAILURE, 0.0, "tipped", "the T does not lie flat in view")
        if seen is None:  # it was in view when the attempt began
            return Verdict(Outcome.FAILURE, 0.0, "lost", "the camera does not see the T any more")
        return judge(seen.pose)


def judge(pose: Pose) -> Verdict:
    """Return the verdict on a T seen at `pose`."""
    covered = coverage(pose, GOAL)
    away_m, turned_rad = _errors(pose, GOAL)
    measures = {
        "coverage": covered,
        "position_error_mm": away_m * 1e3,
        "angle_error_deg": float(np.degrees(turned_rad)),
    }
    progress = min(1.0, covered / SUCCESS_COVERAGE)
    detail = f"coverage {covered:.3f}, {away_m * 1e3:.1f} mm and {np.degrees(turned_rad):+.1f} deg off"
    if abs(covered - SUCCESS_COVERAGE) <= ABSTAIN_BAND:
        return Verdict(Outcome.INVALID, progress, "undecided", f"{detail}: too close to the threshold", measures)
    if covered > SUCCESS_COVERAGE:
        return Verdict(Outcome.SUCCESS, 1.0, "", detail, measures)
    return Verdict(Outcome.FAILURE, progress, _failure_class(away_m, turned_rad), detail, measures)


def _failure_class(away_m: float, turned_rad: float) -> str:
    if abs(turned_rad) > ROTATED_RAD and abs(turned_rad) / ROTATED_RAD >= away_m / FAR_M:
        return "rotated"
    return "far" if away_m > FAR_M else "near"


def _look(robot: Robot, looks: int) -> Seen | None:
    """Return the T's mean pose over `looks` pictures; None unless most of them show it."""
    found: list[SceneObject] = []
    for _ in range(looks):
        tee = robot.scene().find("tee")
        if tee is not None:
            found.append(tee)
    if 2 * len(found) <= looks:
        return None
    yaw = np.arctan2(np.mean([np.sin(t.yaw_rad) for t in found]), np.mean([np.cos(t.yaw_rad) for t in found]))
    return Seen(
        (float(np.mean([t.x_m for t in found])), float(np.mean([t.y_m for t in found])), float(yaw)), len(found)
    )


def _bring_nearer(mover: Mover, places: Contacts, target: Pose, furthest_m: float, number: int) -> bool:
    """Look, and push the T once; return whether that was needed and possible."""
    seen = _look(mover.robot, 1)
    if seen is None:  # it stands on an edge, or lies half out of view: both are tried in turn
        if number % 2:
            return _rake_in(mover, furthest_m) or _knock_over(mover, furthest_m)
        return _knock_over(mover, furthest_m) or _rake_in(mover, furthest_m)
    away_m, turned_rad = _errors(seen.pose, target)
    if away_m <= RESET_AIM_M and abs(turned_rad) <= RESET_AIM_RAD:
        return False
    push = _better(places, seen.pose, target, furthest_m)
    if push is not None:
        _push(mover, push)
    return push is not None


def _better(places: Contacts, pose: Pose, target: Pose, furthest_m: float) -> Push | None:
    """Return the best push that brings the T closer, by position alone where yaw leaves none; None where none does."""
    for weight_m in ANGLE_WEIGHTS_M:
        options = replace(OPTIONS, angle_weight_m=weight_m, ring_m=(OPTIONS.ring_m[0], furthest_m))
        push = choose(BLOCK, places, pose, target, options)
        if push is not None and push.cost_m < float(cost_m(np.asarray(pose), target, options.angle_weight_m)):
            return push
    return None


def _push(mover: Mover, push: Push, tip_m: float = STICK_HEIGHT_M) -> None:
    """Go round to where the push starts, high and, far out, slowly: an arm that lags dips where it stretches."""
    far = float(np.linalg.norm(push.start_m)) > UPRIGHT_M
    travel_m_s, height_m = (STRETCHING_M_S, OVER_THE_T_M) if far else (RESET_TRAVEL_M_S, TRAVEL_HEIGHT_M)
    mover.line(_at(push.start_m, height_m), travel_m_s)
    mover.line(_at(push.start_m, tip_m), travel_m_s, GENTLE_M_S2)
    mover.settle(0.003, 0.3)
    mover.line(_at(push.end_m, tip_m), RESET_SPEED_M_S, GENTLE_M_S2)
    mover.settle(0.003, 0.3)


def _knock_over(mover: Mover, furthest_m: float) -> bool:
    """Push a T that stands on an edge over, across the line along which it stands; return whether there was one.

    Pushed higher than half its thickness over the friction, a standing block tips instead of sliding.
    """
    standing = mover.robot.scene().find(NOT_FLAT)
    if standing is None:
        return False
    centre = np.array([standing.x_m, standing.y_m])
    across = np.array([-np.sin(standing.yaw_rad), np.cos(standing.yaw_rad)])
    lines = [(centre - side * KNOCK_RUN_M * across, centre + side * KNOCK_RUN_M * across) for side in (1, -1)]
    low, high = OPTIONS.ring_m[0], furthest_m
    usable = [line for line in lines if low <= np.linalg.norm(line[0]) <= high]
    if not usable:
        return False
    # Towards the base where there is a choice: nothing is pushed out of reach.
    start, end = min(usable, key=lambda line: float(np.linalg.norm(line[1])))
    end = end * min(1.0, high / float(np.linalg.norm(end)))
    _push(mover, Push(start, end, GOAL, 0.0), KNOCK_HEIGHT_M)
    return True


def _mover(robot: Robot) -> Mover:
    return Mover(robot, ENCODER_GAIN, leaning=True)


def _rake_in(mover: Mover, furthest_m: float) -> bool:
    """Pull a T of which only a part is in view towards the base, from well behind that; return whether there is one."""
    part = mover.robot.scene().find(NOT_FLAT)
    if part is None:
        return False
    seen_m = np.array([part.x_m, part.y_m])
    out_m = max(float(np.linalg.norm(seen_m)), 1e-9)
    if furthest_m - out_m < RAKE_ROOM_M:  # it would come down on the T
        return False
    start, end = (seen_m * min(out_m + run_m, furthest_m) / out_m for run_m in (RAKE_BEHIND_M, -RAKE_RUN_M))
    _push(mover, Push(start, end, GOAL, 0.0))
    return True


def _clear_view(mover: Mover, furthest_m: float = UPRIGHT_M) -> None:
    mover.lift(TRAVEL_HEIGHT_M, RESET_TRAVEL_M_S, furthest_m)
    mover.line(CLEAR_OF_VIEW_M, RESET_TRAVEL_M_S)


def _errors(pose: Pose, target: Pose) -> tuple[float, float]:
    """Return (distance in metres, yaw error in radians)."""
    return float(np.hypot(pose[0] - target[0], pose[1] - target[1])), wrap(pose[2] - target[2])


def _pose_of(start: Start) -> Pose:
    return (start["x_m"], start["y_m"], start["yaw_rad"])


def _at(place_m: Array, height_m: float) -> Array:
    return np.array([place_m[0], place_m[1], height_m])
