"""The last check before a setpoint becomes bytes on the motor bus.

Every setpoint passes `find_refusal` and `find_trespass`, inside the control kernel; nothing above can switch them off.
They refuse and say why, they never repair: a clipped command hides the bug that asked for it.

- A number that is not finite is refused.
- A position is allowed from the lower limit to the upper limit, both included.
- A step is allowed that one control period can carry at the velocity limit.
- A change of velocity is allowed that one control period can carry at the acceleration limit.
- A torque is allowed up to its limit, either sign.
- A place is allowed that leaves the arm's body room to every wall (see `firmware_bridge.body`), or, where it stands
  outside already, as much room as the place before: it must be able to come back in.
- The limits are the narrowest of site, arm and bundle: `narrow`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

from firmware_bridge import body
from firmware_bridge.body import APART_NAMES, BOX_ROOMS, CLEARANCE_M, FACE_NAMES, FACE_ROOMS, FACES, POINT_NAMES
from firmware_bridge.compiled import sources_of
from firmware_bridge.frames import BridgeError

Floats = NDArray[np.float64]

SOURCES = sources_of(body)
ALLOWED, NOT_FINITE, TOO_LOW, TOO_HIGH, TOO_FAST, TOO_STRONG = 0, 1, 2, 3, 4, 5
TOO_ABRUPT, OUTSIDE_BOX, COLLIDING = 6, 7, 8
# Steps are differences of numbers of the size of pi: rounding may add this much to an exactly allowed step.
ROUNDING_RAD = 1e-12

JOINT_RULES = {
    NOT_FINITE: "{value} is not a finite number",
    TOO_LOW: "position {value:.4f} rad is not above its lower limit {limit:.4f} rad",
    TOO_HIGH: "position {value:.4f} rad is not below its upper limit {limit:.4f} rad",
    TOO_FAST: "velocity {value:+.3f} rad/s is not within {limit:.3f} rad/s",
    TOO_ABRUPT: "acceleration {value:+.1f} rad/s^2 is not within {limit:.1f} rad/s^2",
    TOO_STRONG: "torque {value:+.3f} N m is not within {limit:.3f} N m",
}


class SetpointRefused(BridgeError):
    """A setpoint that the guard does not let through; holds the rule, what broke it, its value and the limit.

    `which` is the first joint at fault, from 1, or the first row of the rooms at fault, from 0.
    """

    def __init__(self, rule: int, which: int, value: float, limit: float) -> None:
        super().__init__(refusal_text(rule, which, value, limit))
        self.rule, self.which, self.value, self.limit = rule, which, value, limit


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
    acceleration_rad_s2: Floats

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse limits that allow nothing."""
        for field in fields(self):
            values = np.array(getattr(self, field.name), dtype=np.float64)
            values.flags.writeable = False
            object.__setattr__(self, field.name, values)
            if values.shape != self.lower_rad.shape:
                raise LimitsImpossible(f"{field.name} has shape {values.shape}, lower_rad has {self.lower_rad.shape}")
        finite = [(np.isfinite(getattr(self, each.name)), f"{each.name} that is not finite") for each in fields(self)]
        for possible, what in (
            *finite,
            (self.lower_rad < self.upper_rad, "a lower limit that is not below its upper limit"),
            (self.velocity_rad_s > 0.0, "a velocity limit that is not above zero"),
            (self.torque_nm > 0.0, "a torque limit that is not above zero"),
            (self.acceleration_rad_s2 > 0.0, "an acceleration limit that is not above zero"),
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
        acceleration_rad_s2=np.stack([each.acceleration_rad_s2 for each in limits]).min(axis=0),
    )


def refusal_text(rule: int, which: int, value: float, limit: float) -> str:
    """Return the sentence that says what broke which rule.

    Args:
        which: a joint, from 1, or a row of the rooms, from 0.
    """
    if rule in JOINT_RULES:
        return f"joint {which}: {JOINT_RULES[rule].format(value=value, limit=limit)}"
    if which < BOX_ROOMS:
        point, face = divmod(which, FACES)
        past, allowed = _mm(0.0 - value), _mm(0.0 - limit)
        return f"the {POINT_NAMES[point]} would be {past} {FACE_NAMES[face]} its box; allowed is {allowed}"
    part, other = APART_NAMES[which - BOX_ROOMS]
    nearest, allowed = _mm(value + CLEARANCE_M), _mm(limit + CLEARANCE_M)
    return f"the {part} would come within {nearest} of the {other}; allowed is {allowed}"


def _mm(length_m: float) -> str:
    return f"{1e3 * length_m:.1f} mm"


def check_setpoint(
    target_rad: Floats,
    last_rad: Floats,
    last_velocity_rad_s: Floats,
    torque_nm: Floats,
    limits: JointLimits,
    dt_s: float,
) -> None:
    """Raise unless one control period can carry the arm from `last_rad` to `target_rad`.

    Args:
        target_rad: (joints,) asked-for positions.
        last_rad: (joints,) positions admitted one period ago.
        last_velocity_rad_s: (joints,) velocities of the period before.
        torque_nm: (joints,) torques that the motors are to give.

    Raises:
        SetpointRefused: names the first joint at fault, its value and its limit.
    """
    rule, joint, value, limit = find_refusal(
        target_rad,
        last_rad,
        last_velocity_rad_s,
        torque_nm,
        limits.lower_rad,
        limits.upper_rad,
        limits.velocity_rad_s,
        limits.acceleration_rad_s2,
        limits.torque_nm,
        dt_s,
    )
    if rule:  # ALLOWED is 0
        raise SetpointRefused(int(rule), int(joint) + 1, float(value), float(limit))


def check_place(room_m: Floats, last_room_m: Floats) -> None:
    """Raise unless the arm's body may go from where it has `last_room_m` (rooms,) to where it has `room_m` (rooms,).

    Raises:
        SetpointRefused: names the first wall at fault.
    """
    rule, which, value, limit = find_trespass(room_m, last_room_m)
    if rule:  # ALLOWED is 0
        raise SetpointRefused(int(rule), int(which), float(value), float(limit))


@njit(cache=True)
def find_refusal(
    target_rad: Floats,
    last_rad: Floats,
    last_velocity_rad_s: Floats,
    torque_nm: Floats,
    lower_rad: Floats,
    upper_rad: Floats,
    velocity_rad_s: Floats,
    acceleration_rad_s2: Floats,
    torque_limit_nm: Floats,
    dt_s: float,
) -> tuple[int, int, float, float]:
    """Return (ALLOWED, -1, 0, 0), or the broken rule, the first joint at fault (from 0), its value and the limit."""
    for joint in range(len(target_rad)):
        target, torque = target_rad[joint], torque_nm[joint]
        step_rad = target - last_rad[joint]
        change_rad = step_rad - last_velocity_rad_s[joint] * dt_s
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
        if not abs(change_rad) <= acceleration_rad_s2[joint] * dt_s * dt_s + ROUNDING_RAD:
            return TOO_ABRUPT, joint, change_rad / (dt_s * dt_s), acceleration_rad_s2[joint]
        if not abs(torque) <= torque_limit_nm[joint]:
            return TOO_STRONG, joint, torque, torque_limit_nm[joint]
    return ALLOWED, -1, 0.0, 0.0


@njit(cache=True)
def find_trespass(room_m: Floats, last_room_m: Floats, sources: int = SOURCES) -> tuple[int, int, float, float]:
    """Return (ALLOWED, -1, 0, 0), or the broken rule, the first row of the rooms at fault, its room and the least.

    `sources` keys the compiled code's cache (see `firmware_bridge.compiled`).
    """
    for which in range(len(room_m)):
        room, least = room_m[which], last_room_m[which]
        # Outside already, the arm may go wherever that leaves it no less room; NaN compares false and is refused.
        if not (room >= 0.0 or room >= least):
            return OUTSIDE_BOX if which < FACE_ROOMS else COLLIDING, which, room, min(0.0, least)
    return ALLOWED, -1, 0.0, 0.0
