"""A Gymnasium environment as a station's drivers: one call of `advance` is one step of the environment.

The environment's clock is counted, not waited for, unless a pace asks to wait. What it raises is the station's fault
and never a policy's.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.gym_station.spec import AXES, Entry, GymSpec, Spot
from edge.messages import ArmState, Setpoint
from edge.trials.armless import DONE, GOES_ON, NO_MORE_STEPS
from policies.interface import JOINTS, Array, OutOfReach, Scene, SceneObject

EXTRA = "pip install 'enpire[gymnasium]', or what the environment is a part of"
PICTURE_PERIOD_S = 0.5  # of station time: rendering costs as much as several steps
ZEROS = np.zeros(JOINTS)


class NoEnvironment(Exception):
    """The environment cannot be made here; says what to do."""


class EnvironmentFault(Exception):
    """The environment raised, or gave something that is not what its station's file says."""


class GymBench:
    """One environment; `pace` is the factor of real time to keep to, 0 for as fast as it goes."""

    def __init__(self, spec: GymSpec, pace: float = 0.0, pictures: bool = False) -> None:
        """Make the environment.

        Raises:
            NoEnvironment: it is not installed, or not as its station's file describes it.
        """
        self._spec, self._pace, self._pictures = spec, pace, pictures
        self._environment = _make(spec, pictures)
        self._steps = 0
        self._episode_steps = 0
        self._pictured_s = -math.inf
        self._wall_from_s, self._station_from_s = time.monotonic(), 0.0
        self.info: Mapping[str, Any] = {}
        self.start: Mapping[str, float] | None = None  # where the environment stands, until it is stepped
        self.episode = GOES_ON
        try:
            self._observation, self.info = self._environment.reset(seed=0)
            self.state()
            self._objects()
        except Exception as error:
            self.close()
            raise NoEnvironment(f"{spec.environment} is not as [gymnasium] says: {_line(error)}") from error

    def close(self) -> None:
        """Let the environment go."""
        self._environment.close()

    @property
    def now_s(self) -> float:
        """Station time."""
        return self._steps / self._spec.rate_hz

    def reset(self, start: Mapping[str, float]) -> None:
        """Begin an episode where `start` says.

        Two attempts on one start share their luck: the environment's seed is drawn from the start.

        Raises:
            KeyError: the start lacks a coordinate.
            EnvironmentFault: the environment raised.
        """
        resetting = self._spec.reset
        values = [float(start[name]) for name in resetting.entries]
        options = {resetting.option: values} if resetting.option else None
        seed = zlib.crc32(np.array(values).tobytes()) if resetting.option else int(values[0])
        try:
            self._observation, self.info = self._environment.reset(seed=seed, options=options)
        except Exception as error:  # whatever an environment of somebody's raises
            raise EnvironmentFault(f"{self._spec.environment} cannot be reset: {_line(error)}") from error
        self.start, self.episode, self._episode_steps = dict(start), GOES_ON, 0

    def advance(self, setpoint: Setpoint) -> ArmState:
        """Take one step towards the place in the setpoint.

        Raises:
            OutOfReach: the environment has no such action.
            EnvironmentFault: the environment raised.
        """
        action = self._action(setpoint.position_rad[:3])
        try:
            self._observation, _, terminated, truncated, self.info = self._environment.step(action)
        except Exception as error:
            raise EnvironmentFault(f"{self._spec.environment} cannot be stepped: {_line(error)}") from error
        self._steps += 1
        self._episode_steps += 1
        self.start = None
        if terminated:
            self.episode = DONE
        elif truncated or self._episode_steps >= self._spec.steps:
            self.episode = NO_MORE_STEPS
        self._keep_pace()
        return self.state()

    def state(self) -> ArmState:
        """Return where the tool is; see `edge.trials.armless` for what the numbers mean.

        Raises:
            EnvironmentFault: the observation is not what the station's file says.
        """
        place = np.concatenate([self._place(self._spec.tool), np.zeros(JOINTS - 3)])
        return ArmState(round(self.now_s * 1e9), place, ZEROS, ZEROS, 0.0)

    def look(self) -> tuple[NDArray[np.uint8] | None, Scene]:
        """Return what stands where, now and then with a picture."""
        return self._picture(), Scene(self.now_s, self._objects())

    def _objects(self) -> tuple[SceneObject, ...]:
        found = []
        for name, spot in self._spec.objects.items():
            x_m, y_m, z_m = self._place(spot)
            yaw_rad = 0.0 if spot.yaw is None else math.remainder(self._value(spot.yaw), math.tau)
            found.append(SceneObject(name, float(x_m), float(y_m), yaw_rad, 0.0, 0.0, float(z_m)))
        return tuple(found)

    def _picture(self) -> NDArray[np.uint8] | None:
        if not self._pictures or abs(self.now_s - self._pictured_s) < PICTURE_PERIOD_S:
            return None
        self._pictured_s = self.now_s
        try:
            return np.asarray(self._environment.render(), dtype=np.uint8)
        except Exception as error:
            raise EnvironmentFault(f"{self._spec.environment} cannot be rendered: {_line(error)}") from error

    def _place(self, spot: Spot) -> Array:
        entries = (spot.x, spot.y, spot.z)
        return np.array([0.0 if entry is None else self._value(entry) * self._spec.unit_m for entry in entries])

    def _value(self, entry: Entry) -> float:
        found: Any = self._observation
        try:
            for key in entry:
                found = found[key]
            value = float(found)
        except (LookupError, TypeError, ValueError) as error:
            where = ".".join(map(str, entry))
            raise EnvironmentFault(f"the observation has no number at {where}: {_line(error)}") from error
        if not math.isfinite(value):
            raise EnvironmentFault(f"the observation holds {value} at {'.'.join(map(str, entry))}")
        return value

    def _action(self, place_m: Array) -> Any:
        if self._spec.relative:
            place_m = place_m - self._place(self._spec.tool)
        values = [float(place_m[AXES.index(axis)]) / self._spec.unit_m for axis in self._spec.action]
        space: Any = self._environment.action_space
        whole = np.issubdtype(space.dtype, np.integer)
        action = np.array(np.round(values) if whole else values, dtype=space.dtype)
        if space.shape == () and action.size == 1:
            action = action[0]
        if not space.contains(action):
            raise OutOfReach(f"the environment's actions are {space}, and {np.round(values, 4).tolist()} is none")
        return action

    def _keep_pace(self) -> None:
        if self._pace > 0:
            ahead_s = (self.now_s - self._station_from_s) / self._pace - (time.monotonic() - self._wall_from_s)
            if ahead_s > 0:
                time.sleep(ahead_s)
            elif ahead_s < -1.0:  # after a wait for work the station does not hurry to catch up
                self._wall_from_s, self._station_from_s = time.monotonic(), self.now_s


def _make(spec: GymSpec, pictures: bool) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise NoEnvironment(f"gymnasium is not installed here: {EXTRA}") from error
    arguments = dict(spec.arguments) | ({"render_mode": "rgb_array"} if pictures else {})
    try:
        return gymnasium.make(spec.environment, disable_env_checker=True, **arguments)
    except ImportError as error:
        raise NoEnvironment(f"{spec.environment} is not installed here ({_line(error)}): {EXTRA}") from error
    except Exception as error:
        raise NoEnvironment(f"{spec.environment} cannot be made: {_line(error)}") from error


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
