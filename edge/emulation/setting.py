"""What stands on an emulated bench and what the arm holds: the part of the world that belongs to a task.

One world, many settings. A setting adds its things to the model, is told when physics has moved on, and knows the
truth, which the benches use to check the judge and nothing else may.
"""

from __future__ import annotations

from typing import Any, Protocol

import mujoco
import numpy as np

from edge.station import Station

Truth = tuple[float, float, float]


class Setting(Protocol):
    """One task's things in the world of one station."""

    def furnish(self, spec: Any) -> None:
        """Put the things on the table, before the arm is built."""
        ...

    def arm(self, hand: Any, station: Station) -> None:
        """Put the tool into the gripper; `hand` is the gripper's body."""
        ...

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Take the compiled world over and place what is loose."""
        ...

    def tick(self) -> None:
        """Let happen what physics does not know of, once a control period."""
        ...

    def place(self, pose: Truth) -> None:
        """Put the loose thing down at a pose of the form that `truth` returns."""
        ...

    def truth(self) -> Truth:
        """Return how the task really stands; for measuring the judge, never for judging."""
        ...
