"""A change that a researcher could propose, and how much it deserves a try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.interface import Value


@dataclass(frozen=True)
class Option:
    """One change of one kind."""

    kind: str
    changes: Mapping[str, Value]
    weight: float  # against other options of whatever kind; the kind's own rate comes on top
    files: Mapping[str, bytes] = field(default_factory=dict)
    says: str = ""  # what the changes to parameters and ideas do not say themselves
    parents: tuple[int, ...] = ()
    not_worse: bool = False
