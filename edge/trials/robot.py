"""The Robot of one station: turns a policy's targets into setpoints, and the camera's pictures into scenes.

`TrialRobot` is what every station's robot does: the clock of an attempt, its recording, its end. `StationRobot` adds an
arm.

It checks what control and guard cannot know: whether a pose can be reached, whether the tool stays in the workspace,
whether the trial's time is used up. It never repairs a target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from edge.arm import rotation
from edge.messages import LONGEST_LIFE_NS, ArmState, Setpoint
from edge.planning.kinematics import Reach, ToolChain, quat_of, reach, tool_pose
from edge.station import Station
from edge.trials.notes import Notes
from edge.trials.recorder import Recorder
from policies.interface import (
    JOINTS,
    POLICY_HZ,
    Array,
    JointTarget,
    Observation,
    OutOfReach,
    Scene,
    ToolTarget,
    TrialOver,
)

PERIOD_NS = round(1e9 / POLICY_HZ)
REACH_TOLERANCE_M, REACH_TOLERANCE_RAD = 0.002, 0.05
WAY_BACK_M = 0.01  # the first step of a way back up and in may reach a little less


class TimeUp(TrialOver):
    """The attempt used up its station time."""


class EpisodeOver(TrialOver):
    """The attempt has come to its natural end, and the judge says how; no fault of the policy's."""


class SafetyStop(TrialOver):
    """Control or guard refused to go on; the message says why."""


class StopAsked(TrialOver):
    """Somebody asked the station to stop."""


@dataclass(frozen=True)
class Bench:
    """What a station's drivers offer, emulated or real: one policy period of motion, and one picture."""

    advance: Callable[[Setpoint], ArmState]
    state: Callable[[], ArmState]
    # The picture (height, width, 3), None where none is kept, and what it shows.
    look: Callable[[], tuple[NDArray[np.uint8] | None, Scene]]
    stop_asked: Callable[[], bool]
    restart: Callable[[], None]  # after a fault: enable again, holding the measured pose
    limit: Callable[[Station], None]  # allow from now on what this station's limits and body allow


@dataclass
class Tape:
    """What the policy of one trial was shown."""

    states: list[ArmState] = field(default_factory=list)
    scenes: list[tuple[int, Scene]] = field(default_factory=list)  # station time in ns, and what the picture showed


class TrialRobot(ABC):
    """Implements `policies.interface.Robot` on a bench, but for what the robot is made of."""

    def __init__(self, bench: Bench, station: Station, gripper_m: float) -> None:
        self._bench = bench
        self._station = station
        self._workspace = station.workspace
        self._gripper_m = gripper_m
        self._began_ns = bench.state().time_ns
        self._limit_ns = 0
        self._joints_rad = bench.state().position_rad.copy()
        self.recording: Recorder | None = None
        self.tape: Tape | None = None  # while there is one, what is seen is put on it
        self.why_stop: Callable[[], str] = lambda: ""  # asked before each call; a sentence ends the work
        self.over: TrialOver | None = None
        self.notes = Notes()  # of the policy, since `begin`

    @contextmanager
    def confined(self, station: Station) -> Iterator[None]:
        """Work within the limits and the workspace of `station`, which is this one or narrower."""
        self._bench.limit(station)
        self._workspace = station.workspace
        try:
            yield
        finally:
            self._workspace = self._station.workspace
            self._bench.limit(self._station)

    def begin(self, limit_s: float) -> None:
        """Start a stretch of work with its own clock; calls raise `TimeUp` once `limit_s` of station time is used."""
        state = self._bench.state()
        if state.fault:
            self.log("restart", state.fault)
            self._bench.restart()
            state = self._bench.state()
        self.over, self.notes = None, Notes()
        self._began_ns = state.time_ns
        self._limit_ns = round(limit_s * 1e9)
        self._joints_rad = state.position_rad.copy()
        if self.recording is not None:  # the pose that a replay begins from
            self.recording.joints(state.time_ns, self._observation(state))

    @abstractmethod
    def why_unfit(self, station: Station) -> str:
        """Return why the robot cannot begin within these limits where it stands now, empty where it can."""

    @abstractmethod
    def _joints_of(self, target: JointTarget | ToolTarget) -> Array:
        """Return the setpoint (6,) of a target, or raise OutOfReach."""

    @abstractmethod
    def _observation(self, state: ArmState) -> Observation:
        """Return what a policy sees of a measured moment."""

    def glance(self) -> tuple[ArmState, Scene]:
        """Return where the arm stands and what the camera shows, between two stretches of work."""
        return self._bench.state(), self._bench.look()[1]

    @property
    def elapsed_s(self) -> float:
        """Station time since `begin`."""
        return (self._bench.state().time_ns - self._began_ns) * 1e-9

    def observe(self) -> Observation:
        """Return the newest observation."""
        return self._observation(self._check_going_on())

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        """Send one target and let one policy period pass."""
        now_ns = self._check_going_on().time_ns
        self._joints_rad = self._joints_of(target)
        setpoint = Setpoint(self._joints_rad, self._gripper_m, now_ns + LONGEST_LIFE_NS)
        if self.recording is not None:  # first: what the guard refuses must be in the recording too
            self.recording.setpoint(now_ns, setpoint)
        state = self._bench.advance(setpoint)
        seen = self._observation(state)
        if self.recording is not None:
            self.recording.joints(state.time_ns, seen)
        if self.tape is not None:
            self.tape.states.append(state)
        if state.fault:
            self._end(SafetyStop(state.fault))
        return seen

    def scene(self) -> Scene:
        """Take one picture and return what stands where."""
        now_ns = self._check_going_on().time_ns
        picture, found = self._bench.look()
        scene = Scene((now_ns - self._began_ns) * 1e-9, found.objects)
        if self.recording is not None:
            self.recording.scene(now_ns, scene)
            if picture is not None:
                self.recording.picture(now_ns, picture)
        if self.tape is not None:
            self.tape.scenes.append((now_ns, scene))
        return scene

    def note(self, text: str) -> None:
        """Keep what the policy leaves for a reader, as much of it as there is room for."""
        self._check_going_on()
        if (kept := self.notes.add(text)) and self.recording is not None:
            self.log("note", kept)

    def log(self, kind: str, text: str) -> None:
        """Record that something happened now."""
        if self.recording is not None:
            self.recording.event(self._bench.state().time_ns, kind, text)

    def _check_going_on(self) -> ArmState:
        """Return the newest measurement, or end the work where it must not go on."""
        state = self._bench.state()
        if self._bench.stop_asked():
            self._end(StopAsked("the station was asked to stop"))
        if why := self.why_stop():
            self._end(StopAsked(why))
        if state.fault:
            self._end(SafetyStop(state.fault))
        if state.time_ns - self._began_ns >= self._limit_ns:
            self._end(TimeUp(f"{self._limit_ns * 1e-9:.0f} s of station time are used up"))
        return state

    def _end(self, why: TrialOver) -> NoReturn:
        if self.over is None:
            self.log("fault" if isinstance(why, SafetyStop) else "over", str(why))
        self.over = why
        raise why


class StationRobot(TrialRobot):
    """The robot of a station with an arm."""

    def __init__(self, bench: Bench, chain: ToolChain, station: Station, gripper_m: float) -> None:
        super().__init__(bench, station, gripper_m)
        self._chain = chain

    def why_unfit(self, station: Station) -> str:
        """Return why the arm cannot begin within these limits where it stands now, empty where it can."""
        state, limits = self._bench.state(), station.limits
        inside = (limits.lower_rad <= state.position_rad) & (state.position_rad <= limits.upper_rad)
        if not inside.all():
            joint = int(np.argmin(inside))
            return f"joint {joint + 1} stands at {state.position_rad[joint]:.3f} rad, outside the bundle's limits"
        slow = np.abs(state.velocity_rad_s) <= limits.velocity_rad_s
        return "" if slow.all() else f"joint {int(np.argmin(slow)) + 1} moves faster than the bundle's limits allow"

    def _joints_of(self, target: JointTarget | ToolTarget) -> Array:
        if isinstance(target, JointTarget):
            joints = np.asarray(target.joints_rad, dtype=np.float64)
            if joints.shape != (JOINTS,) or not np.isfinite(joints).all():
                raise OutOfReach(f"a joint target must be {JOINTS} finite numbers, got {target.joints_rad!r}")
            place, _ = tool_pose(self._chain, joints)
        else:
            place = np.asarray(target.position_m, dtype=np.float64)
            joints = self._inverse(place, target.quat_wxyz)
        here, _ = tool_pose(self._chain, self._bench.state().position_rad)
        if not self._workspace.leads_in(here, place):
            raise OutOfReach(f"the tool at {_mm(place)} mm leaves the workspace")
        return joints

    def _inverse(self, place_m: Array, quat_wxyz: tuple[float, float, float, float]) -> Array:
        if place_m.shape != (3,) or not (np.isfinite(place_m).all() and np.isfinite(quat_wxyz).all()):
            raise OutOfReach(f"a tool target must be finite numbers, got {place_m!r} {quat_wxyz!r}")
        turn = rotation(np.asarray(quat_wxyz))
        found = reach(self._chain, place_m, turn, self._joints_rad)
        reached = found.position_error_m <= REACH_TOLERANCE_M and found.rotation_error_rad <= REACH_TOLERANCE_RAD
        if not (reached or self._comes_back(found, turn)):
            raise OutOfReach(
                f"the tool cannot reach {_mm(place_m)} mm: misses by {found.position_error_m * 1e3:.1f} mm"
            )
        return found.joints_rad

    def _comes_back(self, found: Reach, turn: Array) -> bool:
        """Return whether the arm stands where the tool cannot be turned so, and a target is no worse: the way back."""
        here_m, _ = tool_pose(self._chain, self._bench.state().position_rad)
        here = reach(self._chain, here_m, turn, self._joints_rad)
        return (
            here.position_error_m > REACH_TOLERANCE_M and found.position_error_m <= here.position_error_m + WAY_BACK_M
        )

    def _observation(self, state: ArmState) -> Observation:
        place, turn = tool_pose(self._chain, state.position_rad)
        return Observation(
            time_s=(state.time_ns - self._began_ns) * 1e-9,
            joints_rad=state.position_rad,
            joint_velocity_rad_s=state.velocity_rad_s,
            joint_torque_nm=state.torque_nm,
            tool_position_m=place,
            tool_quat_wxyz=quat_of(turn),
            gripper_m=state.gripper_m,
        )


def _mm(place_m: Array) -> str:
    return "(" + ", ".join(f"{value * 1e3:.0f}" for value in place_m) + ")"
