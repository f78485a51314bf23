"""A station that a steward tends, without an arm: files stand for bundles, queued attempts and trials.

Everything that outlives a process is in one folder, so that any process may end at any moment and another go on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.activation.gates import Ended, Gates, Tested
from edge.activation.journal import Journal
from edge.activation.rows import Change
from edge.activation.schema import Cut
from edge.activation.series import Attempt
from edge.activation.steward import Abilities, Steward
from edge.records import Outcome, RolloutOrder, RolloutStart

NOW_S = 1_700_000_000.0
LATER_S = NOW_S + 3_600.0
TASK = "push_t"
STARTS = tuple(RolloutStart(f"dev-{number}", {"x_m": 0.01 * number}, number) for number in range(3))
GATES = Gates(shadow_steps=100, canary_pairs=2, probation_trials=2)  # short ones
SUCCESS = (Outcome.SUCCESS, "")


def name(word: str) -> str:
    """Return the name of a bundle that is known by a word."""
    return hashlib.sha256(word.encode()).hexdigest()


def order(number: int, bundle: str, stage: str = "active", **changes: Any) -> RolloutOrder:
    """Return an order for now."""
    return replace(RolloutOrder(number, bundle, TASK, stage, STARTS, NOW_S, LATER_S), **changes)


class World:
    """One station's folder, and the processes that have it open."""

    def __init__(self, folder: Path, cut: Cut = lambda event, moment: None, gates: Gates = GATES) -> None:
        self.folder = folder
        for part in ("bundles", "queue", "trials", "shadow"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.tested = Tested(True, "imports and steps", 50, 0.002, 0)
        self.stretch: Tested | None = Tested(True, "as asked", 60, 0.003, 0)
        self.overrides: set[str] = set()
        self.journal = Journal(folder / "activation.db", self.clock, cut)
        self.steward = Steward(self.journal, gates, self.abilities(), self.clock, steady=self.clock)

    def clock(self) -> float:
        """Return the time, which passes only by `later`."""
        path = self.folder / "clock"
        return float(path.read_text()) if path.exists() else NOW_S

    def later(self, seconds: float) -> None:
        """Let time pass."""
        (self.folder / "clock").write_text(repr(self.clock() + seconds))

    def abilities(self) -> Abilities:
        """Return what a station would lend."""
        return Abilities(
            self_test=lambda bundle: self.tested,
            shadow=lambda bundle: self.stretch,
            trials=self.trials,
            enqueue=self.enqueue,
            overridden=lambda bundle: bundle in self.overrides,
            present=lambda bundle: self._file(bundle).exists() and self._file(bundle).read_text() == bundle,
        )

    # -- the uplink ---------------------------------------------------------------------------------------------------

    def fetch(self, bundle: str, role: str = "released") -> None:
        """Fetch, verify and unpack a bundle, as the uplink does."""
        self.journal.fetched(bundle)
        self.journal.cut("offer", "after effect")
        self.unpack(bundle)
        self.journal.cut("fetch", "after effect")
        self.journal.verified(bundle, role, self.clock() + 30 * 86_400.0, TASK)

    def unpack(self, bundle: str) -> None:
        """Put the files of a bundle where they belong, whole or not at all."""
        part = self._file(bundle).with_suffix(".part")
        part.write_text(bundle)
        os.replace(part, self._file(bundle))

    def fetch_all(self) -> None:
        """Fetch what the journal wants."""
        for bundle in self.journal.wanted():
            self.fetch(bundle)

    def sweep(self) -> None:
        """Delete the files of every bundle that is not pinned, as a full disk makes an uplink do."""
        pinned = self.journal.pinned()
        for path in (self.folder / "bundles").iterdir():
            if path.name not in pinned:
                path.unlink()

    # -- the trials process -------------------------------------------------------------------------------------------

    def run_queue(self, how: Callable[[Attempt], tuple[Outcome, str]] = lambda attempt: SUCCESS) -> int:
        """Run what is queued and may run; return how many attempts have ended."""
        count = 0
        for path in sorted((self.folder / "queue").iterdir(), key=lambda item: item.stat().st_mtime_ns):
            attempt = Attempt(**json.loads(path.read_text()))
            if self.steward.may_run(attempt.bundle, attempt.purpose).allowed:
                self.end(attempt.bundle, attempt.purpose, *how(attempt), attempt.assignment_id, attempt.start_id)
                count += 1
            path.unlink()
        return count

    def end(self, bundle: str, purpose: str, outcome: Outcome, cause: str, name: str = "", start_id: str = "s") -> None:
        """Seal a trial."""
        folder = self.folder / "trials"
        sequence = len(list(folder.iterdir()))
        trial = {
            "assignment_id": name or f"play-{sequence}", "outcome": outcome, "cause": cause, "start_id": start_id,
            "sequence": sequence, "ended_unix_s": self.clock(), "bundle": bundle, "purpose": purpose,
        }  # fmt: skip
        (folder / f"{sequence:06d}").write_text(json.dumps(trial))

    def trials(self, bundle: str, purpose: str) -> list[Ended]:
        """Return the trials of a bundle, oldest first."""
        found = []
        for path in sorted((self.folder / "trials").iterdir()):
            trial = json.loads(path.read_text())
            if trial.pop("bundle") == bundle and purpose in ("", trial["purpose"]):
                del trial["purpose"]
                found.append(Ended(**{**trial, "outcome": Outcome(trial["outcome"])}))
        return found

    def enqueue(self, attempts: Sequence[Attempt]) -> None:
        """Queue attempts that neither wait nor have ended."""
        ended = {json.loads(path.read_text())["assignment_id"] for path in (self.folder / "trials").iterdir()}
        for attempt in attempts:
            if attempt.assignment_id not in ended:
                path = self.folder / "queue" / attempt.assignment_id
                part = self.folder / "queue.part"
                part.write_text(json.dumps(vars(attempt)))
                os.replace(part, path)

    # -- all of it ----------------------------------------------------------------------------------------------------

    def advance(self, until: str, bundle: str, turns: int = 40) -> list[Change]:
        """Let uplink, steward and trials take turns until a bundle is in a state."""
        changes = []
        for _ in range(turns):
            self.fetch_all()
            changes += self.steward.tend()
            if self.journal.row(bundle).state == until:
                return changes
            self.run_queue()
        raise AssertionError(f"{bundle[:8]} stays {self.journal.row(bundle).state}, it does not become {until}")

    def activate(self, bundle: str, number: int) -> None:
        """Take a bundle all the way."""
        self.journal.offer(order(number, bundle))
        self.advance("active", bundle)

    def close(self) -> None:
        """End the processes."""
        self.journal.close()

    def _file(self, bundle: str) -> Path:
        return self.folder / "bundles" / bundle
