"""Push-T's things: the T block, the goal drawn on the table, and a stick in the gripper.

The stick is a capsule. Against a box a cylinder is collided by a general convex algorithm, which now and then reports a
contact as deep as the whole block, and the block leaves at metres a second.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from edge.emulation.hidden import Hidden
from edge.emulation.setting import Truth
from edge.emulation.surfaces import BLUE, GOAL_GREEN, SOLIMP, SOLREF, UP
from edge.station import Station
from edge.tasks.push_t.geometry import HEIGHT_M, Pose, boxes_m
from edge.tasks.push_t.task import GOAL

T_MASS_KG = 0.12
STICK_RADIUS_M = 0.0075


class PushTSetting:
    """A T that the stick pushes over the table."""

    def __init__(self, hidden: Hidden, seed: int) -> None:
        self._friction = [hidden.table_friction, 0.005, 0.0001]

    def furnish(self, spec: Any) -> None:
        """Draw the goal and lay the T down."""
        mark = spec.worldbody.add_body(name="goal", pos=[GOAL[0], GOAL[1], 0.0], quat=_yaw_quat(GOAL[2]))
        for centre_y, half_x, half_y in boxes_m():
            mark.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, size=[half_x, half_y, 0.0002], pos=[0, centre_y, 0], rgba=GOAL_GREEN,
                contype=0, conaffinity=0,
            )  # fmt: skip
        block = spec.worldbody.add_body(name="tee", pos=[0.32, 0.0, HEIGHT_M / 2])
        block.add_freejoint(name="tee")
        area = sum(4 * half_x * half_y for _, half_x, half_y in boxes_m())
        for centre_y, half_x, half_y in boxes_m():
            block.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX, size=[half_x, half_y, HEIGHT_M / 2], pos=[0, centre_y, 0], rgba=BLUE,
                mass=T_MASS_KG * 4 * half_x * half_y / area, contype=1, conaffinity=1, condim=4,
                friction=self._friction, solref=SOLREF, solimp=SOLIMP,
            )  # fmt: skip

    def arm(self, hand: Any, station: Station) -> None:
        """Fix the stick to the gripper."""
        arm, tool = station.arm, station.tool
        tip_m = arm.tool_position_m - np.array([0, 0, tool.length_m])
        hand.add_geom(
            name="stick", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[STICK_RADIUS_M, 0, 0],
            fromto=[*(tip_m + STICK_RADIUS_M * UP), *(tip_m + (tool.length_m + 0.01) * UP)], rgba=[0.1, 0.1, 0.1, 1.0],
            mass=0, contype=1, conaffinity=1, condim=4, friction=[0.3, 0.005, 0.0001], solref=SOLREF, solimp=SOLIMP,
        )  # fmt: skip
        hand.add_site(name="tool", pos=tip_m, quat=arm.tool_quat_wxyz)
        held = hand.add_body(name="tool", pos=tip_m + tool.length_m / 2 * UP)
        held.mass, held.inertia, held.explicitinertial = tool.mass_kg, [1e-5, 1e-5, 1e-6], True

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Lay the T somewhere."""
        self._model, self._data = model, data
        self._tee = model.joint("tee").qposadr[0]
        self.place(_somewhere(rng))

    def tick(self) -> None:
        """Do nothing: physics knows all that happens to a T."""

    def place(self, pose: Pose) -> None:
        """Put the T down."""
        at = self._tee
        self._data.qpos[at : at + 3] = [pose[0], pose[1], HEIGHT_M / 2]
        self._data.qpos[at + 3 : at + 7] = [np.cos(pose[2] / 2), 0.0, 0.0, np.sin(pose[2] / 2)]
        mujoco.mj_forward(self._model, self._data)

    def truth(self) -> Truth:
        """Return where the T really stands: x_m, y_m, yaw_rad."""
        at = self._tee
        w, x, y, z = self._data.qpos[at + 3 : at + 7]
        yaw = float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
        return (float(self._data.qpos[at]), float(self._data.qpos[at + 1]), yaw)


def _yaw_quat(yaw_rad: float) -> list[float]:
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def _somewhere(rng: np.random.Generator) -> Pose:
    """Return a first place for the T that the arm reaches on all sides."""
    return (float(rng.uniform(0.28, 0.34)), float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-np.pi, np.pi)))
