"""The contract of a task: how a scene is reset, when it is ready and what counts as success.

A task is the judge. It sees the station only as a policy could (camera, encoders, forces) and never a simulator, and
no bundle can carry or change one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge.records import Outcome
from policies.interface import Robot

Start = Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended."""

    outcome: Outcome
    progress: float  # [0, 1]
    cause: str = ""  # failure class or why invalid
    detail: str = ""  # one sentence for a person
    measures: Mapping[str, float] = field(default_factory=dict)  # mm, deg, N


@dataclass(frozen=True)
class Readiness:
    """Whether the scene stands where the start asks, and where it stands."""

    ready: bool
    measured: Start
    detail: str = ""


class Task(Protocol):
    """Reset, ready, verify."""

    name: str
    time_limit_s: float  # station time that one attempt may take

    def ready(self, robot: Robot, start: Start) -> Readiness:
        """Look, and say whether an attempt may begin from `start`."""
        ...

    def reset(self, robot: Robot, start: Start) -> None:
        """Move the scene to `start` with the arm; `ready` then says whether that worked."""
        ...

    def verify(self, robot: Robot, start: Start) -> Verdict:
        """Look, and judge. Abstains as invalid where the picture does not decide."""
        ...
