"""What `enpire-edge doctor` looks at where a station is a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Iterator

from edge.finding import FAILED, OK, SKIPPED, Finding
from edge.gym_station.bench import GymBench, NoEnvironment
from edge.gym_station.spec import GymSpec


def check_environment(spec: GymSpec) -> Iterator[Finding]:
    """Yield whether the environment can be made and is as the station's file says, and that there is no arm."""
    try:
        GymBench(spec).close()
        yield Finding("environment", OK, f"{spec.environment}: {spec.steps} steps at {spec.rate_hz:g} Hz")
    except NoEnvironment as error:
        yield Finding("environment", FAILED, str(error))
    yield Finding("arm", SKIPPED, "this station has none, so neither motors nor control nor guard")
