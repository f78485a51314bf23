"""The Robot of a station without an arm: a tool that slides where it is sent, as a Gymnasium environment has it.

What an arm's joints are to the bench, the tool's place is here: the first three numbers of a setpoint and of a measured
state are x, y, z in metres, the others zeros. A policy sees zeros for joints.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge.messages import ArmState
from edge.station import Station
from edge.trials.robot import Bench, EpisodeOver, TimeUp, TrialRobot
from policies.interface import JOINTS, TOOL_DOWN_WXYZ, Array, JointTarget, Observation, OutOfReach, ToolTarget

GOES_ON, DONE, NO_MORE_STEPS = "goes on", "done", "no more steps"
DOWN = np.array(TOOL_DOWN_WXYZ)


class ArmlessRobot(TrialRobot):
    """Checks that a target is within the workspace; there are no joints whose limits it could break."""

    def __init__(self, bench: Bench, station: Station, episode: Callable[[], str] = lambda: GOES_ON) -> None:
        """`episode` says whether the attempt goes on, is done, or has no more steps."""
        super().__init__(bench, station, gripper_m=0.0)
        self._episode = episode

    def why_unfit(self, station: Station) -> str:
        """Return nothing: what does not move cannot move too fast."""
        return ""

    def _check_going_on(self) -> ArmState:
        said = self._episode()
        if said == DONE:
            self._end(EpisodeOver("the environment says that the attempt is done"))
        if said == NO_MORE_STEPS:
            self._end(TimeUp("the environment gives an attempt no more steps"))
        return super()._check_going_on()

    def _joints_of(self, target: JointTarget | ToolTarget) -> Array:
        if isinstance(target, JointTarget):
            raise OutOfReach("this station has no arm: give it tool targets")
        place_m = np.asarray(target.position_m, dtype=np.float64)
        if place_m.shape != (3,) or not np.isfinite(place_m).all():
            raise OutOfReach(f"a tool target must be three finite numbers, got {place_m!r}")
        if not self._workspace.leads_in(self._bench.state().position_rad[:3], place_m):
            raise OutOfReach(f"the tool at {np.round(place_m * 1e3).tolist()} mm leaves the workspace")
        return np.concatenate([place_m, np.zeros(JOINTS - 3)])

    def _observation(self, state: ArmState) -> Observation:
        nothing = np.zeros(JOINTS)
        return Observation(
            time_s=(state.time_ns - self._began_ns) * 1e-9,
            joints_rad=nothing,
            joint_velocity_rad_s=nothing,
            joint_torque_nm=nothing,
            tool_position_m=state.position_rad[:3],
            tool_quat_wxyz=DOWN,
            gripper_m=0.0,
        )
