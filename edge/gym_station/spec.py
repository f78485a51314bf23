"""What `[gymnasium]` in a station.toml says: an environment, and how its numbers map to a tool and things on a table.

- An entry of the observation is its number (`2`) or, in a dictionary, `"key"` or `"key.2"`.
- Lengths of the environment times `unit_m` are metres; angles are radians. Its x and y are the base frame's, so for an
  environment whose y points down in the picture the base frame's z points into the picture.
- The action is the place that the tool shall go to, or, where `relative`, the way to it from where the tool is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AXES = ("x", "y", "z")
Entry = tuple[str | int, ...]  # the way to one number in an observation


class SpecError(Exception):
    """A [gymnasium] table that cannot be used; says which key."""


@dataclass(frozen=True)
class Spot:
    """Which entries of an observation are a thing's place and yaw; what is None is always 0."""

    x: Entry
    y: Entry | None
    z: Entry | None
    yaw: Entry | None


@dataclass(frozen=True)
class Resetting:
    """How an attempt begins where its start says."""

    option: (
        str  # of the environment's reset, which gets the entries as a list; empty: the start's `seed` is all there is
    )
    entries: tuple[str, ...]  # names of the start's coordinates, in order


@dataclass(frozen=True)
class Rule:
    """How the environment's own information decides."""

    info: str  # the key
    above: float | None  # success is a value above this; None: the value itself is true or false
    progress: str  # the key of a number, empty for none
    full: float  # its value at full progress


@dataclass(frozen=True)
class GymSpec:
    """One environment as a station."""

    environment: str  # id, with the module that registers it where needed: `module:id`
    arguments: Mapping[str, Any]
    rate_hz: float  # steps a second of station time
    steps: int  # an attempt may take
    unit_m: float  # metres in one unit of the environment's lengths
    tool: Spot
    objects: Mapping[str, Spot]
    action: tuple[str, ...]  # axes of the tool's target, in the order of the action's entries
    relative: bool
    reset: Resetting
    success: Rule

    @property
    def time_limit_s(self) -> float:
        """Station time that one attempt may take."""
        return self.steps / self.rate_hz


def read_spec(raw: object) -> GymSpec:
    """Return what a [gymnasium] table says.

    Raises:
        SpecError: a key is missing or unknown, or a value cannot be.
    """
    table = _table(raw, "gymnasium", {"environment", "rate_hz", "steps", "unit_m", "tool", "action", "success"},
                   {"arguments", "objects", "reset"})  # fmt: skip
    action = _table(table["action"], "gymnasium.action", {"axes"}, {"relative"})
    objects = table.get("objects", {})
    if not isinstance(objects, dict):
        raise SpecError("gymnasium.objects is not a table")
    arguments = table.get("arguments", {})
    if not isinstance(arguments, dict):
        raise SpecError("gymnasium.arguments is not a table")
    relative = action.get("relative", False)
    if not isinstance(relative, bool):
        raise SpecError("gymnasium.action.relative is not true or false")
    return GymSpec(
        environment=_text(table["environment"], "gymnasium.environment"),
        arguments=arguments,
        rate_hz=_number(table["rate_hz"], "gymnasium.rate_hz", 0.1, 1_000.0),
        steps=int(_number(table["steps"], "gymnasium.steps", 1, 100_000)),
        unit_m=_number(table["unit_m"], "gymnasium.unit_m", 1e-6, 1_000.0),
        tool=_spot(table["tool"], "gymnasium.tool"),
        objects={name: _spot(item, f"gymnasium.objects.{name}") for name, item in objects.items()},
        action=_axes(action["axes"]),
        relative=relative,
        reset=_resetting(table.get("reset", {})),
        success=_rule(table["success"]),
    )


def _spot(raw: object, where: str) -> Spot:
    table = _table(raw, where, {"x"}, {"y", "z", "yaw"})
    found = {name: _entry(value, f"{where}.{name}") for name, value in table.items()}
    return Spot(found["x"], found.get("y"), found.get("z"), found.get("yaw"))


def _entry(value: object, where: str) -> Entry:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return (value,)
    if isinstance(value, str) and value:
        return tuple(int(part) if part.isdecimal() else part for part in value.split("."))
    raise SpecError(f"{where} is {value!r}, wants the number of an entry, a key or key.number")


def _axes(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and value and all(axis in AXES for axis in value) and len(set(value)) == len(value):
        return tuple(value)
    raise SpecError(f"gymnasium.action.axes is {value!r}, wants some of {', '.join(AXES)} in the action's order")


def _resetting(raw: object) -> Resetting:
    table = _table(raw, "gymnasium.reset", set(), {"option", "entries"})
    if not table:
        return Resetting("", ("seed",))
    if set(table) != {"option", "entries"}:
        raise SpecError("gymnasium.reset wants option and entries, or neither: an attempt's start is then a seed")
    entries = table["entries"]
    if not isinstance(entries, list) or not entries or not all(isinstance(name, str) and name for name in entries):
        raise SpecError(f"gymnasium.reset.entries is {entries!r}, wants the names of a start's coordinates")
    return Resetting(_text(table["option"], "gymnasium.reset.option"), tuple(entries))


def _rule(raw: object) -> Rule:
    table = _table(raw, "gymnasium.success", {"info"}, {"above", "progress", "full"})
    above = table.get("above")
    return Rule(
        info=_text(table["info"], "gymnasium.success.info"),
        above=None if above is None else _number(above, "gymnasium.success.above", -1e9, 1e9),
        progress=_text(table["progress"], "gymnasium.success.progress") if "progress" in table else "",
        full=_number(table.get("full", 1.0), "gymnasium.success.full", 1e-9, 1e9),
    )


def _table(raw: object, where: str, wanted: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise SpecError(f"{where} is not a table")
    for key in sorted(set(raw) - wanted - optional):
        raise SpecError(f"unknown key {where}.{key}; known: {', '.join(sorted(wanted | optional))}")
    for key in sorted(wanted - set(raw)):
        raise SpecError(f"missing key {where}.{key}")
    return raw


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise SpecError(f"{where} is {value!r}, wants text")
    return value


def _number(value: object, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(f"{where} is {value!r}, wants a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise SpecError(f"{where} is {value!r}, wants a number from {low:g} to {high:g}")
    return float(value)
