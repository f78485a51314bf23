"""The last check before a setpoint becomes bytes on the motor bus.

Every setpoint passes `find_refusal`, inside the control kernel; nothing above can switch it off. It refuses and says
why, it never repairs: a clipped command hides the bug that asked for it.

- A number that is not finite is refused.
- A position is allowed from the lower limit to the upper limit, both included.
- A step is allowed that one control period can carry at the velocity limit.
- A feed-forward torque is allowed up to its limit, either sign.
- The limits are the narrowest of site, arm and bundle: `narrow`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_bridge.frames import BridgeError

Floats = NDArray[np.float64]

ALLOWED, NOT_FINITE, TOO_LOW, TOO_HIGH, TOO_FAST, TOO_STRONG = 0, 1, 2, 3, 4, 5
# Steps are differences of numbers of the size of pi: rounding may add this much to an exactly allowed step.
ROUNDING_RAD = 1e-12

RULES = {
    NOT_FINITE: "{value} is not a finite number",
    TOO_LOW: "position {value:.4f} rad is not above its lower limit {limit:.4f} rad",
    TOO_HIGH: "position {value:.4f} rad is not below its upper limit {limit:.4f} rad",
    TOO_FAST: "velocity {value:+.3f} rad/s is not within {limit:.3f} rad/s",
    TOO_STRONG: "feed-forward torque {value:+.3f} N m is not within {limit:.3f} N m",
}


class SetpointRefused(BridgeError):
    """A setpoint that the guard does not let through; holds the first joint at fault (from 1), value and limit."""

    def __init__(self, rule: int, joint: int, value: float, limit: float) -> None:
        super().__init__(refusal_text(rule, joint, value, limit))
        self.rule, self.joint, self.value, self.limit = rule, joint, value, limit


class LimitsImpossible(BridgeError):
    """Limits that allow nothing, or that are not numbers."""


@dataclass(frozen=True)
class JointLimits:
    """What the guard allows each joint; every field is (joints,).

    Raises:
        LimitsImpossible: not finite, lower limit not below the upper one, or a limit that is not above zero.
    """

    lower_rad: Floats
    upper_rad: Floats
    velocity_rad_s: Floats
    torque_nm: Floats

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse limits that allow nothing."""
        for field in fields(self):
            values = np.array(getattr(self, field.name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field.name, values)
            if values.shape != self.lower_rad.shape:
                raise LimitsImpossible(f"{field.name} has shape {values.shape}, lower_rad has {self.lower_rad.shape}")
        for possible, what in (
            (np.isfinite(self.lower_rad) & np.isfinite(self.upper_rad), "a position limit that is not finite"),
            (self.lower_rad < self.upper_rad, "a lower limit that is not below its upper limit"),
            ((self.velocity_rad_s > 0.0) & (self.velocity_rad_s < np.inf), "a velocity limit that is not above zero"),
            ((self.torque_nm > 0.0) & (self.torque_nm < np.inf), "a torque limit that is not above zero"),
        ):
            if not possible.all():
                joint = int(np.argmin(possible))
                given = ", ".join(f"{field.name} {getattr(self, field.name)[joint]:g}" for field in fields(self))
                raise LimitsImpossible(f"joint {joint + 1} has {what} ({given})")


def narrow(*limits: JointLimits) -> JointLimits:
    """Return what all of `limits` allow.

    Raises:
        LimitsImpossible: they leave a joint nothing.
    """
    return JointLimits(
        lower_rad=np.stack([each.lower_rad for each in limits]).max(axis=0),
        upper_rad=np.stack([each.upper_rad for each in limits]).min(axis=0),
        velocity_rad_s=np.stack([each.velocity_rad_s for each in limits]).min(axis=0),
        torque_nm=np.stack([each.torque_nm for each in limits]).min(axis=0),
    )


def refusal_text(rule: int, joint: int, value: float, limit: float) -> str:
    """Return the sentence that says which joint (from 1) broke which rule."""
    return f"joint {joint}: {RULES[rule].format(value=value, limit=limit)}"


def check_setpoint(target_rad: Floats, last_rad: Floats, torque_nm: Floats, limits: JointLimits, dt_s: float) -> None:
    """Raise unless one control period can carry the arm from `last_rad` to `target_rad`.

    Args:
        target_rad: (joints,) asked-for positions.
        last_rad: (joints,) positions admitted one period ago.
        torque_nm: (joints,) feed-forward torques.

    Raises:
        SetpointRefused: names the first joint at fault, its value and its limit.
    """
    rule, joint, value, limit = find_refusal(
        target_rad,
        last_rad,
        torque_nm,
        limits.lower_rad,
        limits.upper_rad,
        limits.velocity_rad_s,
        limits.torque_nm,
        dt_s,
    )
    if rule != ALLOWED:
        raise SetpointRefused(int(rule), int(joint) + 1, float(value), float(limit))


@njit(cache=True)
def find_refusal(
    target_rad: Floats,
    last_rad: Floats,
    torque_nm: Floats,
    lower_rad: Floats,
    upper_rad: Floats,
    velocity_rad_s: Floats,
    torque_limit_nm: Floats,
    dt_s: float,
) -> tuple[int, int, float, float]:
    """Return (ALLOWED, -1, 0, 0), or the broken rule, the first joint at fault (from 0), its value and the limit."""
    for joint in range(target_rad.shape[0]):
        target, last, torque = target_rad[joint], last_rad[joint], torque_nm[joint]
        step_rad = target - last
        # Each rule says what is allowed, so that NaN, which compares false, is refused.
        if not math.isfinite(target):
            return NOT_FINITE, joint, target, 0.0
        if not math.isfinite(torque):
            return NOT_FINITE, joint, torque, 0.0
        if not target >= lower_rad[joint]:
            return TOO_LOW, joint, target, lower_rad[joint]
        if not target <= upper_rad[joint]:
            return TOO_HIGH, joint, target, upper_rad[joint]
        if not abs(step_rad) <= velocity_rad_s[joint] * dt_s + ROUNDING_RAD:
            return TOO_FAST, joint, step_rad / dt_s, velocity_rad_s[joint]
        if not abs(torque) <= torque_limit_nm[joint]:
            return TOO_STRONG, joint, torque, torque_limit_nm[joint]
    return ALLOWED, -1, 0.0, 0.0
