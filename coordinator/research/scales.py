"""Numbers on the scales of a policy's parameters, and configurations as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from policies.interface import Value
from policies.space import Parameter

LOG_STEPS = (2.5, 1.6)
LINEAR_STEPS = (0.35, 0.15)  # of the range
DIGITS = 3


def canonical(params: Mapping[str, Value]) -> str:
    """Return one text for one configuration."""
    return ";".join(f"{name}={text(params[name])}" for name in sorted(params))


def text(value: Value) -> str:
    """Return a value as people read it."""
    return ("on" if value else "off") if isinstance(value, bool) else f"{value:g}"


def stepped(parameter: Parameter, now: float, up: bool, size: int) -> float:
    """Return the parameter a step up or down, inside its range; the larger `size`, the shorter the step."""
    if parameter.scale == "linear":
        step = LINEAR_STEPS[size] * (parameter.high - parameter.low)
        value = now + step if up else now - step
    else:
        value = now * LOG_STEPS[size] if up else now / LOG_STEPS[size]
        if parameter.scale == "integer":
            value = max(now + 1, round(value)) if up else min(now - 1, round(value))
    return tidy(parameter, value)


def share_of(parameter: Parameter, value: float) -> float:
    """Return where in its range a value lies, on the parameter's own scale: 0 at the low end, 1 at the high one."""
    if parameter.scale == "log":
        return math.log(value / parameter.low) / math.log(parameter.high / parameter.low)
    return (value - parameter.low) / (parameter.high - parameter.low)


def at_share(parameter: Parameter, share: float) -> float:
    """Return the value at a share of the parameter's range, on its own scale."""
    if parameter.scale == "log":
        value = parameter.low * (parameter.high / parameter.low) ** share
    else:
        value = parameter.low + (parameter.high - parameter.low) * share
    return tidy(parameter, value)


def tidy(parameter: Parameter, value: float) -> float:
    """Return the value with three significant digits, or whole, still inside the range."""
    rounded = float(round(value)) if parameter.scale == "integer" else float(f"{value:.{DIGITS}g}")
    return min(max(rounded, parameter.low), parameter.high)
