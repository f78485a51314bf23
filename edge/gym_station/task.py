"""The judge of a Gymnasium station: the environment's own rule, at the end of an attempt.

It is the one judge that asks the world itself: an environment is its own referee, and its figures are only comparable
with other people's as it says them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edge.gym_station.bench import EnvironmentFault, GymBench
from edge.gym_station.spec import GymSpec
from edge.records import Outcome
from edge.tasks.task import Readiness, Start, Verdict
from policies.interface import Robot

FAR = 0.5  # progress below which an attempt was far from its goal
MOST_MEASURES = 32


class GymTask:
    """Reset, ready, verify, by the environment itself."""

    def __init__(self, name: str, spec: GymSpec, bench: GymBench) -> None:
        self.name = name
        self.time_limit_s = spec.time_limit_s
        self._spec, self._bench = spec, bench

    def ready(self, robot: Robot, start: Start) -> Readiness:
        """Say whether the environment was reset to `start` and has not been stepped since."""
        missing = [name for name in self._spec.reset.entries if name not in start]
        if missing:
            return Readiness(False, {}, f"the start has no {', '.join(missing)}, which this environment is reset by")
        if self._bench.start != dict(start):
            return Readiness(False, {}, "the environment stands somewhere else")
        tool, scene = robot.observe().tool_position_m, robot.scene()
        measured = {"tool_x_m": float(tool[0]), "tool_y_m": float(tool[1])}
        for item in scene.objects:
            place = {"x_m": item.x_m, "y_m": item.y_m, "yaw_rad": item.yaw_rad}
            measured |= {f"{item.name}_{name}": value for name, value in place.items()}
        return Readiness(True, measured)

    def reset(self, robot: Robot, start: Start) -> None:
        """Reset the environment to `start`; `ready` says whether that could be."""
        if all(name in start for name in self._spec.reset.entries):
            self._bench.reset(start)

    def verify(self, robot: Robot, start: Start) -> Verdict:
        """Return what the environment said last.

        Raises:
            EnvironmentFault: what it says of success decides nothing. One that says nothing of it has not solved it.
        """
        info, rule = self._bench.info, self._spec.success
        measures = _numbers(info)
        solved = rule.info in info and _solved(info[rule.info], rule.info, rule.above)
        progress = 0.0
        if rule.progress:
            progress = min(1.0, max(0.0, measures.get(rule.progress, 0.0) / rule.full))
        detail = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        if rule.info not in info:
            detail = f"nothing said of {rule.info}; {detail}"
        if solved:
            return Verdict(Outcome.SUCCESS, 1.0, "", detail, measures)
        cause = "far" if progress < FAR else "near"
        return Verdict(Outcome.FAILURE, min(progress, 0.99), cause, detail, measures)


def _solved(value: Any, key: str, above: float | None) -> bool:
    try:
        return bool(value) if above is None else float(value) > above
    except (TypeError, ValueError) as error:
        raise EnvironmentFault(f"the environment's {key} is {value!r:.80}, which decides nothing") from error


def _numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers among what the environment says, booleans as 0 and 1."""
    found: dict[str, float] = {}
    for name, value in info.items():
        if len(found) == MOST_MEASURES:
            break
        try:
            number = float(value) if not isinstance(value, str) else math.nan
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            found[str(name)] = number
    return found
