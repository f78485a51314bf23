"""Where the tool is for given joints, and which joints carry it to a pose: forward and inverse kinematics of one arm.

Inverse kinematics is damped least squares from a warm start, which for 30 Hz targets converges in one to three rounds.
Rotation counts 0.3 of position, as on a six-joint arm without a spherical wrist the two compete near the limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from edge.arm import ArmModel, Chain, rotation
from firmware_bridge import body
from firmware_bridge.body import link_frames
from firmware_bridge.compiled import sources_of
from firmware_bridge.guard import JointLimits
from policies.interface import Array

SOURCES = sources_of(body)
ROTATION_WEIGHT = 0.3
DAMPING = 1e-4
STEP_LIMIT_RAD = 0.3
ROUNDS = 60
POSITION_TOLERANCE_M = 2e-5
ROTATION_TOLERANCE_RAD = 2e-4


@dataclass(frozen=True)
class ToolChain:
    """The arm's joints with the frame of what it holds at the end, inside some limits."""

    links: Chain
    tool_position_m: Array  # (3,) in the last link's frame
    tool_rotation: Array  # (3, 3)
    lower_rad: Array  # (6,)
    upper_rad: Array  # (6,)


@dataclass(frozen=True)
class Reach:
    """What inverse kinematics found."""

    joints_rad: Array  # (6,)
    position_error_m: float
    rotation_error_rad: float


def chain_of(arm: ArmModel, tool_length_m: float, limits: JointLimits) -> ToolChain:
    """Return the chain of an arm that holds a tool of this length along its grasp axis."""
    turn = rotation(arm.tool_quat_wxyz)
    return ToolChain(
        links=arm.chain,
        tool_position_m=arm.tool_position_m + turn @ np.array([0.0, 0.0, tool_length_m]),
        tool_rotation=np.ascontiguousarray(turn),
        lower_rad=limits.lower_rad,
        upper_rad=limits.upper_rad,
    )


@njit(cache=True)
def _turn_between(have, want):  # type: ignore[no-untyped-def]
    """Return the rotation vector, in the base frame, that carries `have` to `want`."""
    difference = want @ have.T
    trace = min(3.0, max(-1.0, difference[0, 0] + difference[1, 1] + difference[2, 2]))
    angle = np.arccos((trace - 1.0) / 2.0)
    vector = np.array(
        [
            difference[2, 1] - difference[1, 2],
            difference[0, 2] - difference[2, 0],
            difference[1, 0] - difference[0, 1],
        ]
    )
    sine = np.sin(angle)
    if angle < 1e-9:
        return vector * 0.5
    if sine < 1e-6:  # half a turn: any axis will do, the next round sees a proper one
        return np.array([0.0, 0.0, angle])
    return vector * (angle / (2.0 * sine))


@njit(cache=True)
def _solve(start, want_place, want_turn, chain, limits, settings, sources=SOURCES):  # type: ignore[no-untyped-def]
    offsets, turns, axes, tool_position, tool_rotation = chain
    lower, upper = limits
    weight, damping, step_limit, rounds, place_tolerance, turn_tolerance = settings
    joints = start.copy()
    anchors, frames = np.empty((6, 3)), np.empty((6, 3, 3))
    jacobian, error = np.empty((6, 6)), np.empty(6)
    for _ in range(rounds):
        link_frames(joints, offsets, turns, axes, anchors, frames)
        place = anchors[5] + frames[5] @ tool_position
        error[:3] = want_place - place
        error[3:] = _turn_between(frames[5] @ tool_rotation, want_turn)
        place_error, turn_error = np.linalg.norm(error[:3]), np.linalg.norm(error[3:])
        if place_error < place_tolerance and turn_error < turn_tolerance:
            break
        error[3:] *= weight
        for i in range(6):
            axis = frames[i] @ axes[i]
            jacobian[:3, i] = np.cross(axis, place - anchors[i])
            jacobian[3:, i] = axis * weight
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + damping * np.eye(6), error)
        largest = np.max(np.abs(step))
        if largest > step_limit:
            step *= step_limit / largest
        joints = np.minimum(np.maximum(joints + step, lower), upper)
    return joints, place_error, turn_error


def tool_pose(chain: ToolChain, joints_rad: Array) -> tuple[Array, Array]:
    """Return the tool's position (3,) and rotation (3, 3) in the base frame."""
    links = chain.links
    anchors, frames = np.empty((6, 3)), np.empty((6, 3, 3))
    link_frames(joints_rad, links.joint_pos, links.joint_rot, links.joint_axis, anchors, frames)
    return anchors[5] + frames[5] @ chain.tool_position_m, frames[5] @ chain.tool_rotation


def reach(chain: ToolChain, position_m: Array, turn: Array, start_rad: Array) -> Reach:
    """Return the joints that bring the tool closest to a pose, from a warm start, inside the limits."""
    links = chain.links
    joints, place_error, turn_error = _solve(
        np.ascontiguousarray(start_rad, dtype=np.float64),
        np.ascontiguousarray(position_m, dtype=np.float64),
        np.ascontiguousarray(turn),
        (links.joint_pos, links.joint_rot, links.joint_axis, chain.tool_position_m, chain.tool_rotation),
        (chain.lower_rad, chain.upper_rad),
        (ROTATION_WEIGHT, DAMPING, STEP_LIMIT_RAD, ROUNDS, POSITION_TOLERANCE_M, ROTATION_TOLERANCE_RAD),
    )
    return Reach(joints, float(place_error), float(turn_error))


def quat_of(rotation: Array) -> Array:
    """Return the quaternion w x y z of a rotation matrix (3, 3), w >= 0."""
    # Shepperd's method: divide by the largest of the four, so that nothing is lost near half turns.
    trace = np.trace(rotation)
    candidates = np.array([trace, rotation[0, 0], rotation[1, 1], rotation[2, 2]])
    largest = int(np.argmax(candidates))
    if largest == 0:
        quat = np.array(
            [
                1 + trace,
                rotation[2, 1] - rotation[1, 2],
                rotation[0, 2] - rotation[2, 0],
                rotation[1, 0] - rotation[0, 1],
            ]
        )
    else:
        i = largest - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        quat = np.empty(4)
        quat[0] = rotation[k, j] - rotation[j, k]
        quat[1 + i] = 1 + rotation[i, i] - rotation[j, j] - rotation[k, k]
        quat[1 + j] = rotation[j, i] + rotation[i, j]
        quat[1 + k] = rotation[k, i] + rotation[i, k]
    quat = quat / np.linalg.norm(quat)
    return np.asarray(quat if quat[0] >= 0 else -quat)
