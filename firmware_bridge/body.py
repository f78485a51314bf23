"""Where the arm's body is for given joints, and how much room is left to the walls and between its parts.

- The body is a few capsules, each fixed to a link: all that is within a radius of a segment.
- Two points, the tool's tip and the elbow, must each stay in a box.
- What lies beyond the elbow must keep `CLEARANCE_M` from the floor, and parts that can meet must keep it from one
  another. The fingers and the tool are left out at the floor: they work there, inside the tool's box.
- Room is signed: metres to the wall, positive inside. In order, the rooms are: the faces of the points' boxes (row
  `point * FACES + axis * 2 + side`, side 0 the lower face), the floor under `FLOOR_PARTS` (from row `BOX_ROOMS`), and
  the pairs (from row `FACE_ROOMS`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bodies = NDArray[Any]  # (1,) of BODY

LINKS = 6
POINT_NAMES = ("tool", "elbow")
# Parts in order along the arm. Those beyond the forearm can meet those before it; the forearm can meet the base; the
# others are neighbours, or kept apart by the ranges of the joints between them.
NEAR_PARTS = ("base plate", "base", "shoulder", "shoulder motor", "upper arm")
FAR_PARTS = ("wrist motor", "wrist", "gripper", "fingers", "tool")
PART_NAMES = (*NEAR_PARTS, "forearm", *FAR_PARTS)
PAIR_NAMES = (
    ("base plate", "forearm"),
    ("base", "forearm"),
    *((near, far) for near in NEAR_PARTS for far in FAR_PARTS),
)
PAIRS = tuple((PART_NAMES.index(near), PART_NAMES.index(far)) for near, far in PAIR_NAMES)
FLOOR_PARTS = tuple(PART_NAMES.index(name) for name in ("forearm", "wrist motor", "wrist", "gripper"))
CLEARANCE_M = 0.005  # what the capsules leave uncovered (see yam.json) and a joint's following error
FACE_NAMES = ("behind", "beyond", "right of", "left of", "below", "above")  # x, y, z of a box, lower face first

POINTS, CAPSULES = len(POINT_NAMES), len(PART_NAMES)
FACES = len(FACE_NAMES)
BOX_ROOMS = POINTS * FACES
FACE_ROOMS = BOX_ROOMS + len(FLOOR_PARTS)
ROOMS = FACE_ROOMS + len(PAIRS)
# What each room from row BOX_ROOMS on keeps apart.
APART_NAMES = (
    *((PART_NAMES[part], "floor") for part in FLOOR_PARTS),
    *((far, near) for near, far in PAIR_NAMES),
)
BASE = -1  # in place of a link: what does not move

BODY = np.dtype(
    [
        ("joint_pos", np.float64, (LINKS, 3)),
        ("joint_rot", np.float64, (LINKS, 3, 3)),
        ("joint_axis", np.float64, (LINKS, 3)),
        ("point_link", np.int64, POINTS),
        ("point_offset", np.float64, (POINTS, 3)),  # in its link
        ("box_lower", np.float64, (POINTS, 3)),  # in the base frame
        ("box_upper", np.float64, (POINTS, 3)),
        ("capsule_link", np.int64, CAPSULES),  # BASE for what does not move
        ("capsule_a", np.float64, (CAPSULES, 3)),  # the segment's ends, in its link
        ("capsule_b", np.float64, (CAPSULES, 3)),
        ("capsule_radius", np.float64, CAPSULES),
        ("floor", np.float64),  # its height in the base frame
        # Room to work in.
        ("link_position", np.float64, (LINKS, 3)),
        ("link_orientation", np.float64, (LINKS, 3, 3)),
        ("ends", np.float64, (CAPSULES, 2, 3)),  # in the base frame
    ],
    align=True,
)


@njit(cache=True)
def link_frames(
    q_rad: Floats, joint_pos: Floats, joint_rot: Floats, joint_axis: Floats, position: Floats, orientation: Floats
) -> None:
    """Write where each link stands in the base frame: `position` (6, 3), `orientation` (6, 3, 3)."""
    for link in range(q_rad.shape[0]):
        x, y, z = joint_axis[link]
        c, s = math.cos(q_rad[link]), math.sin(q_rad[link])
        turn = (  # Rodrigues' formula
            (c + x * x * (1 - c), x * y * (1 - c) - z * s, x * z * (1 - c) + y * s),
            (y * x * (1 - c) + z * s, c + y * y * (1 - c), y * z * (1 - c) - x * s),
            (z * x * (1 - c) - y * s, z * y * (1 - c) + x * s, c + z * z * (1 - c)),
        )
        fixed, offset = joint_rot[link], joint_pos[link]
        for row in range(3):
            if link == 0:
                before = (fixed[row, 0], fixed[row, 1], fixed[row, 2])
                position[0, row] = offset[row]
            else:
                up = orientation[link - 1]
                before = (
                    up[row, 0] * fixed[0, 0] + up[row, 1] * fixed[1, 0] + up[row, 2] * fixed[2, 0],
                    up[row, 0] * fixed[0, 1] + up[row, 1] * fixed[1, 1] + up[row, 2] * fixed[2, 1],
                    up[row, 0] * fixed[0, 2] + up[row, 1] * fixed[1, 2] + up[row, 2] * fixed[2, 2],
                )
                position[link, row] = (
                    position[link - 1, row] + up[row, 0] * offset[0] + up[row, 1] * offset[1] + up[row, 2] * offset[2]
                )
            for column in range(3):
                orientation[link, row, column] = (
                    before[0] * turn[0][column] + before[1] * turn[1][column] + before[2] * turn[2][column]
                )


@njit(cache=True)
def measure_room(bodies: Bodies, q_rad: Floats, room_m: Floats) -> None:
    """Write the room (ROOMS,) that an arm at `q_rad` (6,) has.

    Args:
        bodies: (1,) of BODY; its room to work in is written over.
    """
    body = bodies[0]
    link_frames(
        q_rad,
        body["joint_pos"],
        body["joint_rot"],
        body["joint_axis"],
        body["link_position"],
        body["link_orientation"],
    )
    _place_capsules(body)
    _measure_boxes(body, room_m)
    _measure_floor(body, room_m)
    _measure_pairs(body, room_m)


@njit(cache=True)
def _measure_boxes(body: Bodies, room_m: Floats) -> None:
    for point in range(POINTS):
        for axis in range(3):
            place_m = _place(body, body["point_link"][point], body["point_offset"][point], axis)
            room_m[point * FACES + axis * 2] = place_m - body["box_lower"][point, axis]
            room_m[point * FACES + axis * 2 + 1] = body["box_upper"][point, axis] - place_m


@njit(cache=True)
def _measure_floor(body: Bodies, room_m: Floats) -> None:
    for row in range(len(FLOOR_PARTS)):
        part = FLOOR_PARTS[row]
        lowest_m = min(body["ends"][part, 0, 2], body["ends"][part, 1, 2]) - body["capsule_radius"][part]
        room_m[BOX_ROOMS + row] = lowest_m - body["floor"] - CLEARANCE_M


@njit(cache=True)
def _measure_pairs(body: Bodies, room_m: Floats) -> None:
    for pair in range(len(PAIRS)):
        one, other = PAIRS[pair]
        distance_m = segment_distance(body["ends"][one], body["ends"][other])
        radii_m = body["capsule_radius"][one] + body["capsule_radius"][other]
        room_m[FACE_ROOMS + pair] = distance_m - radii_m - CLEARANCE_M


@njit(cache=True)
def _place_capsules(body: Bodies) -> None:
    for capsule in range(CAPSULES):
        link = body["capsule_link"][capsule]
        for axis in range(3):
            body["ends"][capsule, 0, axis] = _place(body, link, body["capsule_a"][capsule], axis)
            body["ends"][capsule, 1, axis] = _place(body, link, body["capsule_b"][capsule], axis)


@njit(cache=True)
def _place(body: Bodies, link: int, offset_m: Floats, axis: int) -> float:
    """Return one base coordinate of a point that is fixed to a link."""
    if link == BASE:
        return float(offset_m[axis])
    turn = body["link_orientation"][link, axis]
    place_m = body["link_position"][link, axis] + turn[0] * offset_m[0] + turn[1] * offset_m[1] + turn[2] * offset_m[2]
    return float(place_m)


@njit(cache=True)
def segment_distance(one: Floats, other: Floats) -> float:
    """Return the smallest distance between two segments, each (2, 3) its ends.

    Either the segments' lines pass closest inside both, or an end of one is closest: the least of five candidates.
    """
    ux, uy, uz = one[1, 0] - one[0, 0], one[1, 1] - one[0, 1], one[1, 2] - one[0, 2]
    vx, vy, vz = other[1, 0] - other[0, 0], other[1, 1] - other[0, 1], other[1, 2] - other[0, 2]
    nearest = min(
        min(_end_distance(one[0], other), _end_distance(one[1], other)),
        min(_end_distance(other[0], one), _end_distance(other[1], one)),
    )
    # The common normal of the two lines, and where it meets them (Cramer's rule).
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    square = nx * nx + ny * ny + nz * nz
    wx, wy, wz = other[0, 0] - one[0, 0], other[0, 1] - one[0, 1], other[0, 2] - one[0, 2]
    along_one = (wy * vz - wz * vy) * nx + (wz * vx - wx * vz) * ny + (wx * vy - wy * vx) * nz
    along_other = (wy * uz - wz * uy) * nx + (wz * ux - wx * uz) * ny + (wx * uy - wy * ux) * nz
    if 0.0 < along_one < square and 0.0 < along_other < square:
        return min(nearest, float(abs(wx * nx + wy * ny + wz * nz)) / math.sqrt(square))
    return nearest


@njit(cache=True)
def _end_distance(end: Floats, segment: Floats) -> float:
    """Return how far a point (3,) is from a segment."""
    wx, wy, wz = end[0] - segment[0, 0], end[1] - segment[0, 1], end[2] - segment[0, 2]
    ux, uy, uz = segment[1, 0] - segment[0, 0], segment[1, 1] - segment[0, 1], segment[1, 2] - segment[0, 2]
    along, square = wx * ux + wy * uy + wz * uz, ux * ux + uy * uy + uz * uz
    share = min(max(along / square, 0.0), 1.0) if square > 0.0 else 0.0
    dx, dy, dz = wx - share * ux, wy - share * uy, wz - share * uz
    return math.sqrt(dx * dx + dy * dy + dz * dz)
