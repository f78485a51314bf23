"""Pushes the T to the goal drawn on the table, one straight push at a time: look, choose, push, step back, look again.

As it ships it is naive: it pushes through the T's middle, fast, a dozen times. `policy.toml` says what may be varied.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from policies.interface import Array, Params, Robot
from policies.skills.motion import GENTLE_M_S2, Mover
from policies.skills.pushing import Block, Choice, Contacts, Pose, Push, choose, contacts, cost_m, distance_m

GOAL: Pose = (0.32, 0.0, np.pi / 4)
# Bar 120 x 30 mm, stem 30 x 90 mm, origin at the centroid of the area, stem along +y.
OUTLINE_M = np.array(
    [
        [-0.060, -0.0407],
        [0.060, -0.0407],
        [0.060, -0.0107],
        [0.015, -0.0107],
        [0.015, 0.0793],
        [-0.015, 0.0793],
        [-0.015, -0.0107],
        [-0.060, -0.0107],
    ]
)
BLOCK = Block(OUTLINE_M)
CLEAR_OF_VIEW_M = np.array([0.155, 0.0, 0.075])  # the top camera sees the whole T from here on
TRAVEL_HEIGHT_M = 0.05
RETREAT_M = 0.012
ENCODER_GAIN = 0.2
SETTLED_M = 0.001
PATIENCE_S = 0.15  # for the stick to come to rest before and after a push
GOOD_ENOUGH_M = 0.0015  # error with yaw counted at ANGLE_WEIGHT_M a radian; success is about 0.002
CLOSE_M = 0.015
LEARNING_RATE = 0.5
FURTHEST_M = 0.006
ANGLE_WEIGHT_M = 0.05
LOOKS_BEFORE_GIVING_UP = 4


def run(robot: Robot, params: Params) -> None:
    """Push until the T is predicted good enough or the pushes are used up."""
    gain = ENCODER_GAIN if params["close_encoder_loop"] else 0.0
    mover = Mover(robot, gain, eased=bool(params["ease_motion"]))
    places = contacts(BLOCK)
    last: tuple[Pose, Push] | None = None
    further_m = 0.0
    for _ in range(int(params["most_pushes"])):
        pose = _look(mover, params)
        if pose is None:
            return
        if last is not None and params["learn_reach"]:
            further_m = float(np.clip(further_m + LEARNING_RATE * _shortfall_m(*last, pose), -FURTHEST_M, FURTHEST_M))
        if float(cost_m(np.asarray(pose), GOAL, ANGLE_WEIGHT_M)) <= GOOD_ENOUGH_M:
            return
        push = _choose(places, pose, params)
        if push is None:
            return
        last = (pose, push)
        _push(mover, _longer(push, further_m), params)
    _clear_view(mover, params)


def _look(mover: Mover, params: Params) -> Pose | None:
    """Step out of the camera's view and return where the T stands, None where it cannot be seen."""
    _clear_view(mover, params)
    wanted = 3 if params["average_looks"] else 1
    poses: list[Pose] = []
    for _ in range(wanted + LOOKS_BEFORE_GIVING_UP):
        tee = mover.robot.scene().find("tee")
        if tee is None:
            mover.settle(0.0, 0.1)
            continue
        poses.append((tee.x_m, tee.y_m, tee.yaw_rad))
        if len(poses) == wanted:
            break
    if not poses:
        return None
    yaw = np.arctan2(np.mean(np.sin([p[2] for p in poses])), np.mean(np.cos([p[2] for p in poses])))
    return (float(np.mean([p[0] for p in poses])), float(np.mean([p[1] for p in poses])), float(yaw))


def _clear_view(mover: Mover, params: Params) -> None:
    speed = float(params["travel_speed_m_s"])
    mover.lift(TRAVEL_HEIGHT_M, speed)
    mover.line(CLEAR_OF_VIEW_M, speed)


def _choose(places: Contacts, pose: Pose, params: Params) -> Push | None:
    if not params["choose_by_model"]:
        return _through_the_middle(pose)
    close = float(cost_m(np.asarray(pose), GOAL, ANGLE_WEIGHT_M)) <= CLOSE_M
    if params["fine_last_pushes"] and close:
        options = Choice(step_m=0.0005, longest_m=0.025, angle_weight_m=ANGLE_WEIGHT_M)
    else:
        options = Choice(angle_weight_m=ANGLE_WEIGHT_M)
    return choose(BLOCK, places, pose, GOAL, options)


def _through_the_middle(pose: Pose) -> Push | None:
    """Return the push along the line from the T's middle to the goal's."""
    away = np.asarray(GOAL[:2]) - np.asarray(pose[:2])
    distance = float(np.linalg.norm(away))
    if distance < 1e-3:
        return None
    direction = away / distance
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    backwards = np.array([[cosine, sine], [-sine, cosine]]) @ -direction
    reach = np.linspace(0.0, 0.12, 121)
    outside = distance_m(OUTLINE_M, reach[:, None] * backwards[None]) > 0.0
    edge_m = float(reach[int(np.argmax(outside))]) if outside.any() else float(reach[-1])
    start = np.asarray(pose[:2]) - direction * (edge_m + 0.0225)
    return Push(start, start + direction * (distance + 0.015), GOAL, 0.0)


def _shortfall_m(before: Pose, push: Push, after: Pose) -> float:
    """Return how much less than predicted the T was pushed along the push's direction at its end."""
    direction = _unit(push.end_m - push.start_m)
    wanted = _contact_m(push.end_m, before, push.predicted) - push.end_m
    got = _contact_m(push.end_m, before, after) - push.end_m
    return float(direction @ (wanted - got))


def _contact_m(place_m: Array, before: Pose, after: Pose) -> Array:
    """Return where the block's point that lay at `place_m` before lies after."""
    turn = after[2] - before[2]
    cosine, sine = np.cos(turn), np.sin(turn)
    moved_m = np.array([[cosine, -sine], [sine, cosine]]) @ (place_m - np.asarray(before[:2]))
    return np.asarray(np.asarray(after[:2]) + moved_m)


def _longer(push: Push, further_m: float) -> Push:
    return replace(push, end_m=push.end_m + further_m * _unit(push.end_m - push.start_m))


def _push(mover: Mover, push: Push, params: Params) -> None:
    travel, speed = float(params["travel_speed_m_s"]), float(params["push_speed_m_s"])
    height = float(params["stick_height_m"])
    direction = _unit(push.end_m - push.start_m)
    mover.line(_at(push.start_m, TRAVEL_HEIGHT_M), travel)
    mover.line(_at(push.start_m, height), travel, GENTLE_M_S2)
    mover.settle(SETTLED_M, PATIENCE_S)
    mover.line(_at(push.end_m, height), speed, GENTLE_M_S2)
    mover.settle(SETTLED_M, PATIENCE_S)
    mover.line(_at(push.end_m - direction * RETREAT_M, height), travel, GENTLE_M_S2)


def _at(place_m: Array, height_m: float) -> Array:
    return np.array([place_m[0], place_m[1], height_m])


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))
