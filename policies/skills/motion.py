"""Moving the tool in straight lines at a speed, and waiting for the tool to be where it was sent.

Joint friction holds an arm millimetres from its target for ever. With an encoder gain above zero the mover adds up the
measured error and sends the target that much further (an integral term in tool space); with zero it trusts the arm.
"""

from __future__ import annotations

import numpy as np

from policies.interface import POLICY_HZ, Array, Observation, OutOfReach, Robot, ToolTarget

OFFSET_LIMIT_M = np.array([0.010, 0.010, 0.006])  # more is not friction: something holds the tool
SLOW_M_S = 0.004
LIFT_SLACK_M, LIFT_PATIENCE = 0.006, 15
GENTLE_M_S2 = 1.0
BRISK_M_S2 = 2.5
PEAK_OF_EASED = 5.77  # peak acceleration of a least-jerk line, times time squared over distance
LEARN_BELOW_M_S = 0.25  # faster, the arm's lag looks like an error that is not there
UPRIGHT_M = 0.46  # from the base axis; further out the arm reaches only with a tool that leans,
LEAN_RAD_PER_M, MOST_LEAN_RAD = 4.0, 0.6  # so that its tip goes ahead: to 0.67 m at the table


class Mover:
    """Sends the tool along straight lines; remembers where it was sent and what the encoders said.

    An eased line starts and ends at rest with the least jerk (Flash and Hogan 1985), so that a springy arm hardly
    rings; a plain one jumps to its speed and back. A leaning one tilts the tool where the arm is too short for one that
    stands upright.
    """

    def __init__(self, robot: Robot, encoder_gain: float = 0.0, eased: bool = True, leaning: bool = False) -> None:
        self.robot = robot
        self.encoder_gain = encoder_gain
        self.eased = eased
        self.leaning = leaning
        self.seen: Observation = robot.observe()
        self.sent_m: Array = self.seen.tool_position_m.copy()
        self.offset_m: Array = np.zeros(3)

    def line(self, goal_m: Array, speed_m_s: float, acceleration_m_s2: float = BRISK_M_S2) -> Observation:
        """Send the tool to `goal_m` (3,) in a straight line at this mean speed; does not wait for it to arrive.

        An eased line takes longer where it would otherwise pass the acceleration.
        """
        start = self.sent_m.copy()
        distance_m = float(np.linalg.norm(goal_m - start))
        time_s = distance_m / speed_m_s
        if self.eased:
            time_s = max(time_s, np.sqrt(PEAK_OF_EASED * distance_m / acceleration_m_s2))
        steps = max(1, int(np.ceil(time_s * POLICY_HZ)))
        for k in range(1, steps + 1):
            share = k / steps
            if self.eased:
                share = share**3 * (10.0 - 15.0 * share + 6.0 * share**2)
            self._send(start + (goal_m - start) * share)
        return self.seen

    def lift(self, height_m: float, speed_m_s: float, furthest_m: float = 0.45) -> Observation:
        """Raise the tool, pulling it in to `furthest_m` from the base axis: the arm reaches less far higher up."""
        x, y = self.sent_m[:2]
        share = min(1.0, furthest_m / max(float(np.hypot(x, y)), 1e-9))
        self.line(np.array([x * share, y * share, height_m]), speed_m_s)
        for _ in range(LIFT_PATIENCE):  # a tool that lags behind would drag along what it stands beside
            if self.seen.tool_position_m[2] >= height_m - LIFT_SLACK_M:
                break
            self._send(self.sent_m)
        return self.seen

    def settle(self, tolerance_m: float, timeout_s: float) -> float:
        """Hold the last target until the measured tool is within tolerance and slow; return the error left, in m."""
        for _ in range(max(1, int(timeout_s * POLICY_HZ))):
            before = self.seen.tool_position_m
            self._send(self.sent_m)
            speed = float(np.linalg.norm(self.seen.tool_position_m - before)) * POLICY_HZ
            if self._error_m() <= tolerance_m and speed <= SLOW_M_S:
                break
        return self._error_m()

    def _error_m(self) -> float:
        return float(np.linalg.norm(self.sent_m - self.seen.tool_position_m))

    def _send(self, target_m: Array) -> None:
        before = self.sent_m
        self.sent_m = target_m
        try:
            self.seen = self.robot.step(self._target(target_m + self.offset_m))
        except OutOfReach:  # at the edge of the workspace the correction gives way
            self.offset_m = np.zeros(3)
            self.seen = self.robot.step(self._target(target_m))
        if self.encoder_gain > 0.0 and np.linalg.norm(target_m - before) * POLICY_HZ <= LEARN_BELOW_M_S:
            # The arm follows about half a period late.
            missed = self.encoder_gain * ((target_m + before) / 2 - self.seen.tool_position_m)
            self.offset_m = np.clip(self.offset_m + missed, -OFFSET_LIMIT_M, OFFSET_LIMIT_M)

    def _target(self, position_m: Array) -> ToolTarget:
        return ToolTarget(position_m, lean_wxyz(position_m)) if self.leaning else ToolTarget(position_m)


def lean_wxyz(position_m: Array) -> tuple[float, float, float, float]:
    """Return how a leaning tool stands at a place: straight down near the base, further out with its tip ahead."""
    x, y = float(position_m[0]), float(position_m[1])
    out_m = max(float(np.hypot(x, y)), 1e-9)
    half = 0.5 * min(MOST_LEAN_RAD, max(0.0, LEAN_RAD_PER_M * (out_m - UPRIGHT_M)))
    # Straight down is half a turn about y; before it goes a turn about the horizontal across the way out.
    across_x, across_y = y / out_m, -x / out_m
    return (-across_y * np.sin(half), 0.0, np.cos(half), across_x * np.sin(half))
