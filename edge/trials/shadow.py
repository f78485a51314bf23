"""Runs a policy on what another has seen: its targets go nowhere, and are only looked at.

- The tape is what a trial's policy was shown: the arm once a policy period, and every picture's scene.
- The shadow is shown the same, step by step, whatever it asks for; where the tape ends its trial is over. The arm does
  not follow it, so that its convergence says nothing. What counts is that it neither ends with a fault nor asks for
  what its limits forbid, and that it answers within the policy period.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.messages import ArmState, Setpoint
from edge.planning.kinematics import ToolChain
from edge.sandbox.process import PolicyEnd, PolicyHost
from edge.station import Station
from edge.trials.armless import ArmlessRobot
from edge.trials.robot import Bench, StationRobot, Tape, TimeUp, TrialRobot
from policies.bundle import Manifest
from policies.interface import POLICY_HZ, Array, Scene

FAULTS = ("crashed", "hung", "bad_target")
NO_PICTURE: NDArray[np.uint8] = np.zeros((1, 1, 3), dtype=np.uint8)
STILL_STEPS = 300


@dataclass(frozen=True)
class ShadowRun:
    """How a policy did on a tape."""

    end: PolicyEnd
    steps: int
    breaches: int  # setpoints beyond the joints' limits; what is out of reach the policy is told, pace is the guard's
    gaps_s: Array  # (steps - 1,) from an answer to the next target, the edge's own share included

    @property
    def fault(self) -> str:
        """What the policy did wrong, empty for nothing."""
        return f"{self.end.kind}: {self.end.detail}" if self.end.kind in FAULTS else ""


def still(state: ArmState, scene: Scene, steps: int = STILL_STEPS) -> Tape:
    """Return the tape of an arm that stands still before one scene."""
    period_ns = round(1e9 / POLICY_HZ)
    states = [replace(state, time_ns=state.time_ns + step * period_ns, fault="") for step in range(steps + 1)]
    return Tape(states, [(state.time_ns, scene)])


def run_shadow(
    host: PolicyHost, folder: Path, manifest: Manifest, tape: Tape, station: Station, chain: ToolChain | None
) -> ShadowRun:
    """Run the policy in `folder` on a tape, within the limits of `station`, already narrowed by its envelope.

    `chain` is None where the station has no arm.

    Raises:
        SandboxError: no policy process can be started here.
    """
    player = _Player(tape, station)
    robot: TrialRobot = (
        ArmlessRobot(player.bench, station)
        if chain is None
        else StationRobot(player.bench, chain, station, gripper_m=0.0)
    )
    robot.begin(len(tape.states) / POLICY_HZ + 1.0)
    end = host.run(folder, manifest.entry, manifest.params, robot, manifest.resources)
    return ShadowRun(end, player.at, player.breaches, np.array(player.gaps_s))


class _Player:
    """Plays a tape as a bench."""

    def __init__(self, tape: Tape, station: Station) -> None:
        self._tape, self._limits, self._has_arm = tape, station.limits, station.gym is None
        self._seen_ns = [time_ns for time_ns, _ in tape.scenes]
        self._answered_s = 0.0
        self.at = 0
        self.breaches = 0
        self.gaps_s: list[float] = []

    @property
    def bench(self) -> Bench:
        return Bench(self._advance, self._state, self._look, lambda: False, lambda: None, lambda _: None)

    def _state(self) -> ArmState:
        return self._tape.states[self.at]

    def _advance(self, setpoint: Setpoint) -> ArmState:
        if self._answered_s:
            self.gaps_s.append(time.monotonic() - self._answered_s)
        if self.at + 1 >= len(self._tape.states):
            raise TimeUp("the tape is over")
        limits = self._limits
        inside = (limits.lower_rad <= setpoint.position_rad) & (setpoint.position_rad <= limits.upper_rad)
        self.breaches += self._has_arm and not inside.all()
        self.at += 1
        self._answered_s = time.monotonic()
        return self._state()

    def _look(self) -> tuple[NDArray[np.uint8], Scene]:
        newest = bisect_right(self._seen_ns, self._state().time_ns) - 1
        return NO_PICTURE, self._tape.scenes[newest][1] if newest >= 0 else Scene(0.0, ())
