"""Putting a pin into a hole by touch: go down until something is felt, search in a spiral, press until it is in.

- The hand goes where it is told with two loops that can be left open: one adds up where the encoders say that the tip
  is off (joint friction), one how far the tool leans (a pressed tool tilts, and a tilted pin jams).
- Force is measured, not commanded: pressing moves the target down until the joints' torques say that it is enough.
- Each skill ends by what was felt, by a bound in space and by a number of steps; it says what happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.interface import POLICY_HZ, TOOL_DOWN_WXYZ, Array, Observation, OutOfReach, Robot, ToolTarget
from policies.skills.wrench import force_n

OFFSET_LIMIT_M = np.array([0.015, 0.015, 0.010])  # the arm is soft: a newton of friction holds it 6 mm off
LEAN_LIMIT_RAD = 0.2
LEARN_BELOW_M_S = 0.25  # faster, the arm's lag looks like an error that is not there
PEAK_OF_EASED = 5.77  # peak acceleration of a least-jerk line, times time squared over distance
ACCELERATION_M_S2 = 1.5
SLOW_M_S = 0.004
YIELD_M_PER_N = 0.00006  # how far the target moves in one step for each newton that is missing
DEEPEST_LEAD_M, DEEPEST_M = 0.030, -0.018  # of the target below the tip, and above the table
STUCK_STEPS, STUCK_M = 20, 0.0003
WAIT_STEPS, WAIT_HARDER = 8, 2.0
STILL_STEPS = 3
FOLLOW = 0.2  # share of the sideways miss that a pin in the hole gives way to, each step


class Hand:
    """Moves the tip, remembers where it was sent, and feels."""

    def __init__(self, robot: Robot, encoder_gain: float = 0.0, upright_gain: float = 0.0) -> None:
        self.robot = robot
        self.encoder_gain, self.upright_gain = encoder_gain, upright_gain
        self.seen: Observation = robot.observe()
        self.sent_m: Array = self.seen.tool_position_m.copy()
        self.offset_m: Array = np.zeros(3)
        self.lean_rad: Array = np.zeros(3)
        self._free_nm: Array = self.seen.joint_torque_nm.copy()
        self._free_offset_m: Array = np.zeros(3)

    @property
    def force_n(self) -> Array:
        """The tip's force on the world (3,), against what was felt when `feel_nothing` was called."""
        return force_n(self.seen, self._free_nm)

    @property
    def push_n(self) -> float:
        """How hard the tip presses down."""
        return float(-self.force_n[2])

    def line(self, goal_m: Array, speed_m_s: float) -> Observation:
        """Send the tip to `goal_m` in a straight line, eased at both ends; does not wait for it to arrive."""
        start = self.sent_m.copy()
        distance_m = float(np.linalg.norm(goal_m - start))
        time_s = max(distance_m / speed_m_s, float(np.sqrt(PEAK_OF_EASED * distance_m / ACCELERATION_M_S2)))
        steps = max(1, int(np.ceil(time_s * POLICY_HZ)))
        for k in range(1, steps + 1):
            self.send(start + (goal_m - start) * _eased(k / steps))
        return self.seen

    def settle(self, tolerance_m: float, timeout_s: float) -> float:
        """Hold until the tip is measured within tolerance and slow; return the error left, in m."""
        for _ in range(max(1, int(timeout_s * POLICY_HZ))):
            before = self.seen.tool_position_m
            self.send(self.sent_m)
            speed = float(np.linalg.norm(self.seen.tool_position_m - before)) * POLICY_HZ
            if self._error_m() <= tolerance_m and speed <= SLOW_M_S:
                break
        return self._error_m()

    def feel_nothing(self, steps: int = 5) -> None:
        """Take the torques of now, over some steps of holding, for those of a tip that touches nothing."""
        torques = []
        for _ in range(steps):
            self.send(self.sent_m)
            torques.append(self.seen.joint_torque_nm)
        self._free_nm = np.mean(torques, axis=0)
        self._free_offset_m = self.offset_m.copy()

    def let_go(self, steps: int = 12) -> None:
        """Send the tip to where it is, so that it presses no more against what holds it, and gently: springs rebound.

        What this takes against friction and gravity is what it took where nothing was felt.
        """
        here_m = self.seen.tool_position_m.copy()
        pressed_m = self.sent_m + self.offset_m - self._free_offset_m
        self.offset_m = self._free_offset_m.copy()
        for k in range(1, steps + 1):
            self.send(pressed_m + (here_m - pressed_m) * _eased(k / steps), pressing=True)
        for _ in range(STILL_STEPS):
            self.send(here_m, pressing=True)

    def send(self, target_m: Array, pressing: bool = False) -> Observation:
        """Send one target; a pressing hand takes an error of height for what it is, and not for friction."""
        before, self.sent_m = self.sent_m, target_m
        try:
            self.seen = self.robot.step(ToolTarget(target_m + self.offset_m, self._turned()))
        except OutOfReach:  # at the edge of the workspace the corrections give way
            self.offset_m, self.lean_rad = np.zeros(3), np.zeros(3)
            self.seen = self.robot.step(ToolTarget(target_m))
        if np.linalg.norm(target_m[:2] - before[:2]) * POLICY_HZ <= LEARN_BELOW_M_S:
            missed = self.encoder_gain * ((target_m + before) / 2 - self.seen.tool_position_m)
            missed[2] *= not pressing
            self.offset_m = np.clip(self.offset_m + missed, -OFFSET_LIMIT_M, OFFSET_LIMIT_M)
        leans = self.upright_gain * _lean(self.seen.tool_quat_wxyz)
        self.lean_rad = np.clip(self.lean_rad + leans, -LEAN_LIMIT_RAD, LEAN_LIMIT_RAD)
        return self.seen

    def _turned(self) -> tuple[float, float, float, float]:
        angle = float(np.linalg.norm(self.lean_rad))
        if angle < 1e-9:
            return TOOL_DOWN_WXYZ
        turn = np.array([np.cos(angle / 2), *(np.sin(angle / 2) / angle * self.lean_rad)])
        w, x, y, z = _times(turn, np.asarray(TOOL_DOWN_WXYZ))
        return (float(w), float(x), float(y), float(z))

    def _error_m(self) -> float:
        return float(np.linalg.norm(self.sent_m - self.seen.tool_position_m))


def _eased(share: float) -> float:
    """Return how far a line of least jerk is after a share of its time (Flash and Hogan 1985)."""
    return share**3 * (10.0 - 15.0 * share + 6.0 * share**2)


def descend(hand: Hand, lowest_m: float, speed_m_s: float, until_n: float) -> bool:
    """Lower the tip until it presses with `until_n` or is at `lowest_m`; return whether something was felt."""
    while hand.seen.tool_position_m[2] > lowest_m and hand.sent_m[2] > DEEPEST_M:
        hand.send(hand.sent_m - np.array([0.0, 0.0, speed_m_s / POLICY_HZ]))
        if hand.push_n >= until_n:
            return True
    return False


@dataclass(frozen=True)
class Search:
    """A spiral around where the tip touched."""

    radius_m: float
    pitch_m: float
    speed_m_s: float
    press_n: float
    drop_m: float = 0.0015  # so far below where it touched the tip is in the mouth of the hole
    dip_m: float | None = None  # and so far, it may be on its brim: it waits there a moment


def search(hand: Hand, how: Search) -> bool:
    """Press and go round in a growing spiral until the tip drops into something; return whether it did."""
    middle_m = hand.sent_m[:2].copy()
    touched_m = float(hand.seen.tool_position_m[2])
    angle = 0.0
    while (radius_m := how.pitch_m * angle / (2 * np.pi)) <= how.radius_m:
        angle += how.speed_m_s / POLICY_HZ / max(radius_m, how.pitch_m / 2)
        around_m = middle_m + radius_m * np.array([np.cos(angle), np.sin(angle)])
        _press(hand, around_m, how.press_n)
        if how.dip_m is not None and hand.seen.tool_position_m[2] < touched_m - how.dip_m:
            _wait(hand, how, touched_m)
        if hand.seen.tool_position_m[2] < touched_m - how.drop_m:
            return True
    return False


def _wait(hand: Hand, how: Search, touched_m: float) -> None:
    """Press a little harder where the tip has dipped for a moment, giving way sideways."""
    for _ in range(WAIT_STEPS):
        _press(hand, hand.seen.tool_position_m[:2], WAIT_HARDER * how.press_n)
        if hand.seen.tool_position_m[2] < touched_m - how.drop_m:
            return


def press(hand: Hand, seated_m: float, press_n: float, timeout_s: float) -> bool:
    """Press the pin down, giving way sideways, until the tip is at `seated_m` or stuck; return whether it is there."""
    lowest_m, since = float(hand.seen.tool_position_m[2]), 0
    for _ in range(int(timeout_s * POLICY_HZ)):
        here_m = hand.seen.tool_position_m
        if here_m[2] <= seated_m:
            return True
        aside_m = hand.sent_m[:2] + FOLLOW * (here_m[:2] - hand.sent_m[:2])
        _press(hand, aside_m, press_n)
        since += 1
        if hand.seen.tool_position_m[2] < lowest_m - STUCK_M:
            lowest_m, since = float(hand.seen.tool_position_m[2]), 0
        if since > STUCK_STEPS and hand.push_n >= press_n:
            return False
    return False


def _press(hand: Hand, place_m: Array, press_n: float) -> None:
    """Send the tip to a place, so much lower than before as it presses too little."""
    lower_m = YIELD_M_PER_N * (press_n - hand.push_n)
    deepest_m = max(hand.seen.tool_position_m[2] - DEEPEST_LEAD_M, DEEPEST_M) - hand.offset_m[2]
    hand.send(np.array([*place_m, max(hand.sent_m[2] - lower_m, deepest_m)]), pressing=True)


def _lean(quat_wxyz: Array) -> Array:
    """Return the small turn (3,), in the base frame, that a tool has to be given to point straight down."""
    turn = _times(np.asarray(TOOL_DOWN_WXYZ), quat_wxyz * np.array([1.0, -1.0, -1.0, -1.0]))
    return np.asarray(2.0 * np.sign(turn[0] or 1.0) * turn[1:])


def _times(one: Array, other: Array) -> Array:
    w, v = one[0], one[1:]
    return np.array([w * other[0] - v @ other[1:], *(w * other[1:] + other[0] * v + np.cross(v, other[1:]))])
