"""The T of gym-pusht as numbers: its outline, its perimeter, its goal, and how far one T lies from another.

Its frame's origin lies in the middle of the bar's outer edge, the stem along +y. A pixel counts as a millimetre; x and
y are the picture's, so that angles turn from x to y.
"""

from __future__ import annotations

import numpy as np

from policies.interface import Array

GOAL = np.array([0.256, 0.256, np.pi / 4])
TOOL_RADIUS_M = 0.015
LOW_M, HIGH_M = 0.022, 0.489  # of the tool's centre, within the walls
WALLS_M = (0.012, 0.499)  # of the T's corners, so that no wall takes part in a push
OUTLINE_M = np.array(
    [
        [-0.060, 0.000],
        [0.060, 0.000],
        [0.060, 0.030],
        [0.015, 0.030],
        [0.015, 0.120],
        [-0.015, 0.120],
        [-0.015, 0.030],
        [-0.060, 0.030],
    ]
)
EDGES_M = np.roll(OUTLINE_M, -1, axis=0) - OUTLINE_M
LENGTHS_M = np.hypot(EDGES_M[:, 0], EDGES_M[:, 1])
MIDDLE_M = np.array([0.0, 0.0407])  # of the area
SPREAD_M2 = float(((OUTLINE_M - OUTLINE_M.mean(axis=0)) ** 2).sum(axis=1).mean())


def on_perimeter(place: float) -> tuple[Array, Array]:
    """Return a point of the outline and the inward normal there, (2,) each; `place` in [0, 1) runs once round."""
    at_m = (place % 1.0) * LENGTHS_M.sum()
    ends = np.cumsum(LENGTHS_M)
    edge = min(int(np.searchsorted(ends, at_m, side="right")), len(ends) - 1)
    along = EDGES_M[edge] / LENGTHS_M[edge]
    point = OUTLINE_M[edge] + along * (at_m - ends[edge] + LENGTHS_M[edge])
    return point, np.array([-along[1], along[0]])


def turned(vector: Array, angle_rad: float) -> Array:
    """Return (..., 2) turned from x to y."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.asarray(vector @ np.array([[cosine, sine], [-sine, cosine]]))


def to_world(pose: Array, points: Array) -> Array:
    """Return points (..., 2) of the T's frame in the base frame."""
    return turned(points, float(pose[2])) + pose[:2]


def to_tee(pose: Array, points: Array) -> Array:
    """Return points (..., 2) of the base frame in the T's frame."""
    return turned(points - pose[:2], -float(pose[2]))


def moved(poses: Array, motion: Array) -> Array:
    """Return poses (..., 3) after motions (..., 3) in the T's own frame; both broadcast."""
    cosine, sine = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    x = poses[..., 0] + cosine * motion[..., 0] - sine * motion[..., 1]
    y = poses[..., 1] + sine * motion[..., 0] + cosine * motion[..., 1]
    return np.stack(np.broadcast_arrays(x, y, poses[..., 2] + motion[..., 2]), axis=-1)


def motion_between(before: Array, after: Array) -> Array:
    """Return the motion (3,) in the T's frame that leads from one pose to another."""
    away = turned(after[:2] - before[:2], -float(before[2]))
    turn = (after[2] - before[2] + np.pi) % (2 * np.pi) - np.pi
    return np.array([away[0], away[1], turn])


def error_m(poses: Array) -> Array:
    """Return about the root mean square distance (...,) of the corners of poses (..., 3) from the goal's.

    Angles count by the arc and not by the chord, so that half a turn away every turn is a gain.
    """
    middle = OUTLINE_M.mean(axis=0)
    cosine, sine = np.cos(poses[..., 2]), np.sin(poses[..., 2])
    x = poses[..., 0] + cosine * middle[0] - sine * middle[1]
    y = poses[..., 1] + sine * middle[0] + cosine * middle[1]
    goal = to_world(GOAL, middle)
    turn = (poses[..., 2] - GOAL[2] + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(np.sqrt((x - goal[0]) ** 2 + (y - goal[1]) ** 2 + SPREAD_M2 * turn**2))


def corners_apart_m(one: Array, other: Array) -> float:
    """Return the root mean square distance of the corners of two poses."""
    apart = to_world(one, OUTLINE_M) - to_world(other, OUTLINE_M)
    return float(np.sqrt((apart**2).sum(axis=1).mean()))


def distance_m(points: Array) -> Array:
    """Return how far points (n, 2) of the T's frame are from the T, 0 inside."""
    away = points[:, None, :] - OUTLINE_M[None]
    along = np.clip((away * EDGES_M).sum(axis=-1) / LENGTHS_M**2, 0.0, 1.0)
    gap = away - along[..., None] * EDGES_M
    nearest = np.hypot(gap[..., 0], gap[..., 1]).min(axis=1)
    x, y = points[:, 0], points[:, 1]
    in_bar = (np.abs(x) < 0.060) & (y > 0.0) & (y < 0.030)
    in_stem = (np.abs(x) < 0.015) & (y >= 0.030) & (y < 0.120)
    return np.where(in_bar | in_stem, 0.0, nearest)


def is_free_of_walls(pose: Array) -> bool:
    """Return whether no corner of the T is near a wall."""
    corners = to_world(pose, OUTLINE_M)
    return bool(((corners > WALLS_M[0]) & (corners < WALLS_M[1])).all())
