"""What a policy can see and do: the Robot, and the plain values that pass through it.

A policy is `run(robot, params)`: ordinary sequential Python, no threads, no clock of its own.

- `observe` returns the newest observation and costs no time.
- `step` sends one target and returns the observation one policy period (1/30 s) later.
- `scene` takes one camera picture now and returns what was found; an object that could not be placed is absent.
- `note` leaves a text for whoever reads about the attempt; it costs no time and counts for nothing.
- Everything is in the base frame of the arm, SI units, quaternions w x y z.
- A station without an arm has a tool that slides: its joints are zeros, it takes tool targets only, and a step there
  lasts as long as that station says, which `time_s` shows.
- When the trial is over (time used up, stop asked, limit touched) a call raises `TrialOver`; a policy lets it pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Value = float | bool
Params = Mapping[str, Value]

JOINTS = 6
POLICY_HZ = 30.0
# The tool's z axis leaves the gripper, so a tool that points straight down is turned by pi about y (x stays in plane).
TOOL_DOWN_WXYZ = (0.0, 0.0, 1.0, 0.0)


class PolicyError(Exception):
    """Base of everything that the policy side raises."""


class TrialOver(PolicyError):
    """The robot takes no more targets in this trial."""


class OutOfReach(PolicyError):
    """No joint position inside the limits carries the tool to the asked-for pose."""


@dataclass(frozen=True)
class Observation:
    """One measured moment of the arm."""

    time_s: float  # since the trial began
    joints_rad: Array  # (6,)
    joint_velocity_rad_s: Array  # (6,)
    joint_torque_nm: Array  # (6,) measured
    tool_position_m: Array  # (3,) tool centre in the base frame, from the encoders
    tool_quat_wxyz: Array  # (4,)
    gripper_m: float  # jaw opening


@dataclass(frozen=True)
class JointTarget:
    """Joint positions to reach within one policy period, (6,) rad."""

    joints_rad: Array


@dataclass(frozen=True)
class ToolTarget:
    """Tool pose to reach within one policy period; straight down unless said otherwise."""

    position_m: Array  # (3,)
    quat_wxyz: tuple[float, float, float, float] = TOOL_DOWN_WXYZ


@dataclass(frozen=True)
class SceneObject:
    """A thing on the table: where its frame stands and how well the picture supports that."""

    name: str
    x_m: float
    y_m: float
    yaw_rad: float
    sigma_m: float  # one standard deviation of position, as the fit judges itself
    sigma_rad: float
    z_m: float = 0.0  # height of its frame, where the task's things do not all lie on the table


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    time_s: float
    objects: tuple[SceneObject, ...]

    def find(self, name: str) -> SceneObject | None:
        """Return the object of that name, or None where the picture does not support one."""
        return next((item for item in self.objects if item.name == name), None)


class Robot(Protocol):
    """All that a policy can see and do."""

    def observe(self) -> Observation:
        """Return the newest observation.

        Raises:
            TrialOver: the trial has ended.
        """
        ...

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        """Send one target and return the observation one policy period later.

        Raises:
            OutOfReach: no joint position inside the limits carries the tool there.
            TrialOver: the trial has ended.
        """
        ...

    def scene(self) -> Scene:
        """Take one picture and return what stands where.

        Raises:
            TrialOver: the trial has ended.
        """
        ...

    def note(self, text: str) -> None:
        """Leave a text that travels with the attempt's record, at most 16 KiB an attempt; more is cut.

        Raises:
            TrialOver: the trial has ended.
        """
        ...
