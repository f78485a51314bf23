"""What comes of replaying one recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge.replay.control import ControlReplay
from edge.replay.perception import PerceptionReplay
from edge.replay.verdict import VerdictReplay


@dataclass(frozen=True)
class Replay:
    """The three parts, None where the recording lacks what one needs; `lacks` says what, a line each."""

    trial: Mapping[str, Any]
    control: ControlReplay | None
    perception: PerceptionReplay | None
    verdict: VerdictReplay | None
    lacks: tuple[str, ...]
    notes: tuple[str, ...]  # what a reader must know to judge the differences

    @property
    def same(self) -> bool:
        """Whether all that could be replayed is as it was."""
        return all(part is None or part.same for part in (self.control, self.perception, self.verdict))

    def as_map(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        parts = {"control": self.control, "perception": self.perception, "verdict": self.verdict}
        return {
            "trial": dict(self.trial) or None,
            **{name: None if part is None else asdict(part) for name, part in parts.items()},
            "lacks": list(self.lacks),
            "notes": list(self.notes),
            "same": self.same,
        }
