"""The limits that a policy sets itself: it can only narrow what its station and its arm allow.

- Every limit is optional; what is used on an arm is the narrowest of site, arm and bundle.
- Joints are counted from the base; lengths are in the base frame of the arm.
- A limit is written as what is allowed, so that NaN is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from policies.interface import JOINTS, PolicyError

Numbers = tuple[float, ...]
AXES = 3
# A limit beyond these narrows nothing on any arm of this size: somebody wrote degrees, millimetres or milliseconds.
MOST = {
    "lower_rad": 10.0,
    "upper_rad": 10.0,
    "velocity_rad_s": 100.0,
    "acceleration_rad_s2": 10_000.0,
    "torque_nm": 1_000.0,
    "box_lower_m": 5.0,
    "box_upper_m": 5.0,
    "trial_s": 3_600.0,
}
SIGNED = ("lower_rad", "upper_rad", "box_lower_m", "box_upper_m")


class EnvelopeError(PolicyError):
    """Limits that are not numbers, that allow nothing, or in another unit; the message is one line."""


@dataclass(frozen=True)
class Envelope:
    """What a policy promises to stay within; None where it promises nothing."""

    lower_rad: Numbers | None = None  # (6,)
    upper_rad: Numbers | None = None  # (6,)
    velocity_rad_s: Numbers | None = None  # (6,)
    acceleration_rad_s2: Numbers | None = None  # (6,)
    torque_nm: Numbers | None = None  # (6,)
    box_lower_m: Numbers | None = None  # (3,) of the tool
    box_upper_m: Numbers | None = None  # (3,) of the tool
    trial_s: float | None = None  # station time of one attempt


def read_envelope(table: Mapping[str, Any]) -> Envelope:
    """Return the envelope that a table holds, with lists of 6 or 3 numbers and one number for `trial_s`.

    Raises:
        EnvelopeError: an unknown key, not so many finite numbers, out of range, or a lower limit not below its upper.
    """
    for name in table:
        if name not in MOST:
            raise EnvelopeError(f"envelope.{name} is not known here; known are {', '.join(MOST)}")
    known = [item.name for item in fields(Envelope)]
    envelope = Envelope(**{name: _limit(name, table[name]) for name in known if name in table})
    _check_order("lower_rad", envelope.lower_rad, "upper_rad", envelope.upper_rad)
    _check_order("box_lower_m", envelope.box_lower_m, "box_upper_m", envelope.box_upper_m)
    return envelope


def _limit(name: str, value: object) -> Any:
    if name == "trial_s":
        return _number(name, value)
    count = AXES if name.startswith("box") else JOINTS
    if not (isinstance(value, list) and len(value) == count):
        raise EnvelopeError(f"envelope.{name} is not a list of {count} numbers")
    return tuple(_number(name, item) for item in value)


def _number(name: str, value: object) -> float:
    most = MOST[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EnvelopeError(f"envelope.{name} holds something that is not a number")
    if not (abs(value) <= most and (value > 0 or name in SIGNED)):
        least = f"{-most:g}" if name in SIGNED else "more than 0"
        raise EnvelopeError(f"envelope.{name} holds {value!r:.30}; allowed is {least} to {most:g}")
    return float(value)


def _check_order(low_name: str, low: Numbers | None, high_name: str, high: Numbers | None) -> None:
    for below, above in zip(low or (), high or (), strict=False):
        if not below < above:
            raise EnvelopeError(f"envelope.{low_name} holds {below:g}, which is not below {above:g} of {high_name}")
