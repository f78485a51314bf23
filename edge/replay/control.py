"""Feeds recorded setpoints through a station's real control loop and compares where they lead with where they led.

- The arm begins at the pose that was measured before the first setpoint, and again after every pause, as an arm does
  that was enabled anew.
- Motors that fell silent, blocked shafts and pushes do not happen again: only what the guard refused is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.control.loop import ControlError
from edge.envelope import EnvelopeImpossible, from_text
from edge.messages import LONGEST_LIFE_NS
from edge.replay.arm import IdealArm
from edge.replay.recorded import Pose, Recorded
from edge.station import Station
from policies.interface import JOINTS, POLICY_HZ, Array

# Sixty recorded trials of emulated arms, which lag and rub, were at most 0.09 and 0.02 away.
LARGEST_RAD, MEDIAN_RAD = 0.15, 0.03
PAUSE_NS = 500_000_000  # no arm is enabled anew in less
FRESH_NS = 100_000_000  # a pose to begin from is not older
NEAR_NS = 200_000_000  # the same refusal then and now
MOST_STOPS = 20
REFUSED = "the guard refused"


@dataclass(frozen=True)
class Stop:
    """What stopped the arm, and when, in seconds of the recording."""

    at_s: float
    text: str


@dataclass(frozen=True)
class ControlReplay:
    """How far the arm is now from where it was then; differences are (6,) rad, 0 where nothing could be compared."""

    setpoints: int
    compared: int
    largest_rad: tuple[float, ...]
    median_rad: tuple[float, ...]
    largest_at_s: float
    new_refusals: tuple[Stop, ...]  # now and not then
    gone_refusals: tuple[Stop, ...]  # then and not now
    same: bool


def replay_control(station: Station, recorded: Recorded) -> ControlReplay | str:
    """Return how the recorded setpoints fare today, or one line about what the recording lacks."""
    setpoints = sum(pose.asked for pose in recorded.poses)
    if setpoints in (0, len(recorded.poses)):
        return "it holds no motion: no setpoints, or no measured joints"
    kept_hz = recorded.said("tier").get("joint_hz")
    if isinstance(kept_hz, int | float) and kept_hz < POLICY_HZ:
        return f"of its setpoints only {kept_hz:g} a second were kept: set recording.joint_hz to {POLICY_HZ:g}"
    arm = IdealArm(station)
    run = _Run(arm, recorded.start_ns)
    try:
        limits = _limits_then(station, recorded)
    except EnvelopeImpossible as error:
        return f"its limits cannot be read: {error}"
    for pose in recorded.poses:
        while limits and limits[0][0] < pose.at:
            arm.limit(limits.popleft()[1])
        run.take(pose)
    if not run.differences and not run.stops:
        return "no measured joints follow on its setpoints, or none that are recent enough lead up to them"
    return _compared(run, setpoints, _stops_then(recorded))


def _limits_then(station: Station, recorded: Recorded) -> deque[tuple[int, Station]]:
    """Return from where in the file on which limits held; before the first those of the station do.

    Raises:
        EnvelopeImpossible: an event that does not hold limits.
    """
    events = [event for event in recorded.events if event.kind == "limits"]
    return deque((event.at, from_text(station, event.text)) for event in events)


class _Run:
    """An arm that is taken through the poses of a recording, one after the other."""

    def __init__(self, arm: IdealArm, start_ns: int) -> None:
        self._arm = arm
        self._start_ns = start_ns
        self._newest: Pose | None = None  # measured
        self._before_ns = start_ns
        self._awake = False
        self._barred = False  # the pose to begin from was refused; until the next pause
        self.differences: list[tuple[float, Array]] = []
        self.stops: list[Stop] = []

    def take(self, pose: Pose) -> None:
        """Ask for a pose that was asked for, or compare with one that was measured."""
        if pose.time_ns - self._before_ns >= PAUSE_NS:
            self._awake = self._barred = False
        self._before_ns = pose.time_ns
        if pose.asked:
            self._ask(pose)
        elif pose.is_finite:
            self._compare(pose)

    def _compare(self, pose: Pose) -> None:
        self._newest = pose
        if self._awake:
            self._arm.run_to(pose.time_ns)
            self._check(pose.time_ns)
            difference = np.abs(self._arm.state().position_rad - pose.joints_rad)
            self.differences.append((self._seconds(pose.time_ns), difference))

    def _ask(self, pose: Pose) -> None:
        if self._awake:
            self._arm.run_to(pose.time_ns)
        elif not self._wake(pose.time_ns):
            return
        self._arm.ask(pose.joints_rad, pose.gripper_m, pose.time_ns + LONGEST_LIFE_NS)

    def _wake(self, now_ns: int) -> bool:
        """Enable the arm where it was measured just now; return whether that could be done."""
        newest = self._newest
        if self._barred or len(self.stops) >= MOST_STOPS or newest is None or now_ns - newest.time_ns > FRESH_NS:
            return False
        try:
            self._arm.wake(newest.joints_rad, newest.gripper_m, now_ns)
        except ControlError as error:
            self.stops.append(Stop(self._seconds(now_ns), str(error)))
            self._barred = True
            return False
        self._awake = True
        return True

    def _check(self, now_ns: int) -> None:
        if self._arm.fault:
            self.stops.append(Stop(self._seconds(now_ns), self._arm.fault))
            self._awake = False

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._start_ns) * 1e-9


def _stops_then(recorded: Recorded) -> list[Stop]:
    return [
        Stop((event.time_ns - recorded.start_ns) * 1e-9, event.text)
        for event in recorded.events
        if event.kind == "fault" and event.text.startswith(REFUSED)
    ]


def _compared(run: _Run, setpoints: int, then: Sequence[Stop]) -> ControlReplay:
    differences = np.array([difference for _, difference in run.differences]).reshape(-1, JOINTS)
    largest = differences.max(axis=0) if len(differences) else np.zeros(JOINTS)
    median = np.median(differences, axis=0) if len(differences) else np.zeros(JOINTS)
    worst = int(differences.max(axis=1).argmax()) if len(differences) else 0
    new, gone = _unmatched(run.stops, then), _unmatched(then, run.stops)
    near = bool((largest <= LARGEST_RAD).all() and (median <= MEDIAN_RAD).all())
    return ControlReplay(
        setpoints=setpoints,
        compared=len(differences),
        largest_rad=tuple(largest.tolist()),
        median_rad=tuple(median.tolist()),
        largest_at_s=run.differences[worst][0] if run.differences else 0.0,
        new_refusals=new,
        gone_refusals=gone,
        same=near and len(differences) > 0 and not new and not gone,
    )


def _unmatched(stops: Sequence[Stop], others: Sequence[Stop]) -> tuple[Stop, ...]:
    """Return the stops that no other one is near in time."""
    return tuple(stop for stop in stops if not any(abs(stop.at_s - other.at_s) <= NEAR_NS * 1e-9 for other in others))
