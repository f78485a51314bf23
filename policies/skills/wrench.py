"""What the tool presses against, felt through the joints' torques.

A force f of the tool on the world costs the joints J' f of torque (J the Jacobian of the tool's tip), on top of what
holds up the arm. So torques are measured in the air once, and later ones less those are solved for f by least squares.
Joint friction makes that uncertain by 1 to 2 N; the further the arm has moved since, the more so.
"""

from __future__ import annotations

import numpy as np

from policies.interface import JOINTS, Array, Observation

# The YAM's links: origin in the link before, quaternion w x y z at angle 0, joint axis. A test compares them with the
# edge's own model, which no policy may import.
ORIGIN_M = np.array(
    [
        [0.0, 0.0, 0.068],
        [-0.0455, -0.0339, -0.02],
        [0.0, -0.0688, 0.264],
        [-0.06, -0.0688, -0.245],
        [-0.0405, 0.0339, -0.074],
        [0.0405, 0.0, -0.0356],
    ]
)
HALF = np.sqrt(0.5)
TURN_WXYZ = ((0, -HALF, 0, HALF), (0, 0, 0, -1), (0, 0, 0, -1), (1, 0, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0))
AXIS = np.array([[-1.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0], [0, 1.0, 0], [1.0, 0, 0], [0, 0, -1.0]])


def jacobian(joints_rad: Array, tip_m: Array) -> Array:
    """Return how the point at `tip_m` (3,) of the last link moves with each joint, (3, 6) m/rad in the base frame."""
    place, turn = np.zeros(3), np.eye(3)
    columns = np.empty((3, JOINTS))
    for joint in range(JOINTS):
        place = place + turn @ ORIGIN_M[joint]
        turn = turn @ _matrix(*TURN_WXYZ[joint])
        columns[:, joint] = np.cross(turn @ AXIS[joint], tip_m - place)
        turn = turn @ _about(AXIS[joint], float(joints_rad[joint]))
    return columns


def force_n(seen: Observation, free_nm: Array) -> Array:
    """Return the tool's force on the world (3,) in the base frame; `free_nm` (6,) are the torques in the air nearby."""
    columns = jacobian(seen.joints_rad, seen.tool_position_m)
    force, *_ = np.linalg.lstsq(columns.T, seen.joint_torque_nm - free_nm, rcond=None)
    return np.asarray(force)


def _matrix(w: float, x: float, y: float, z: float) -> Array:
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _about(axis: Array, angle_rad: float) -> Array:
    sine = np.sin(angle_rad / 2)
    return _matrix(float(np.cos(angle_rad / 2)), *(float(part) for part in sine * axis))
