"""Attempts that nothing is decided on: a researcher learns from them, or an agent sees what its unfinished change does.

- What is noted in the offline researcher's is shown to every researcher. What is noted in an agent's is shown to nobody
  else: its own policy wrote it, and could teach the others anything.
- They take turns with screens while both wait.
- One that was lost, or that says nothing of its policy, is asked for again, though not for ever.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace

from coordinator.evolution.candidate import Slot
from coordinator.evolution.ideas import Played
from coordinator.scheduling.work import OFFLINE
from edge.records import Trial

MOST_REFILLS = 4  # of one place; a candidate that cannot be tried there is given up, a measurement counts a failure


class Plays:
    """The places of plays that wait, and how many of each agent's are still to be made."""

    def __init__(self) -> None:
        self._waiting: deque[Slot] = deque()
        self._asked = self._screens_asked = 0
        self._unmade: Counter[str] = Counter()  # of agents' plays, by bundle

    @property
    def wait(self) -> bool:
        """Whether some wait to be handed out."""
        return bool(self._waiting)

    def add(self, places: Iterable[Slot], researcher: str) -> None:
        """Let places be filled."""
        added = list(places)
        self._waiting.extend(added)
        if researcher != OFFLINE:
            self._unmade.update(slot.bundle for slot in added)

    def of_agent(self, slot: Slot) -> bool:
        """Return whether a place is of an agent's play."""
        return slot.bundle in self._unmade

    def unmade(self, bundle: str) -> int:
        """Return how many attempts of an agent's play are still to come."""
        return self._unmade[bundle]

    def screened(self) -> None:
        """Note that a place of a screen was handed out."""
        self._screens_asked += 1

    def next(self, screens_wait: bool) -> Slot | None:
        """Return the next place; None where there is none, or it is the screens' turn."""
        if not self._waiting or (self._asked > self._screens_asked and screens_wait):
            return None
        self._asked += 1
        return self._waiting.popleft()

    def took(self, slot: Slot, trial: Trial, counts: bool) -> Played | None:
        """Take in an attempt; return what its policy noted, if that is for all researchers."""
        notes = trial.notes.get("policy", "")
        if notes and not self.of_agent(slot):
            return Played(notes, trial.outcome)
        if slot.bundle and not counts:
            self.again(slot)
        else:
            self._made(slot)
        return None

    def again(self, slot: Slot) -> None:
        """Ask for an attempt again, unless that was done often."""
        if slot.refills < MOST_REFILLS:
            self._waiting.append(replace(slot, assignment_id="", refills=slot.refills + 1))
        else:
            self._made(slot)

    def clear(self) -> None:
        """Let none be made that was not handed out."""
        for slot in self._waiting:
            self._made(slot)
        self._waiting.clear()

    def _made(self, slot: Slot) -> None:
        if self.of_agent(slot):
            self._unmade[slot.bundle] -= 1
