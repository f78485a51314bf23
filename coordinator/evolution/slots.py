"""The attempts that are out, and those that have to be made again.

An attempt that was lost or invalid leaves its place open, and the place is asked for again under a new assignment,
first by a station that has neither failed at it nor let it lie. A pair stays on the station that it was handed to;
where that one is gone, no longer believed, or has not delivered in time, both halves are made anew on whichever asks
first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from coordinator.evolution.candidate import Slot
from coordinator.scheduling.work import Attempt, Work
from edge.records import Trial


class Slots:
    """Places whose attempt is out, by assignment, and places that wait for another attempt."""

    def __init__(self, run: str) -> None:
        """Name assignments after `run`, so that no two campaigns share one."""
        self._run = run
        self._count = 0
        self._out: dict[str, Slot] = {}
        self._again: list[Slot] = []
        self._late: dict[str, Slot] = {}  # forgotten, and still on their way

    @property
    def out(self) -> Iterator[str]:
        """The assignments that are waited for."""
        return iter(self._out)

    def hand_out(self, slots: Iterable[Slot], edge: str) -> Work:
        """Return the attempts that fill `slots`, for one station."""
        return Work(tuple(self._attempt(slot, edge) for slot in slots))

    def answered(self, trial: Trial) -> Slot | None:
        """Return the place that a trial fills, which is then no longer waited for; None where nobody asked for it.

        No station fills a place that was handed to another.
        """
        return _taken(self._out, trial)

    def late(self, trial: Trial) -> Slot | None:
        """Return the place that a trial would have filled, had its test not ended before; None where there is none."""
        return _taken(self._late, trial)

    def lost(self, assignment_id: str) -> Slot | None:
        """Return the place of an attempt that will not be made; None where nobody waits for it."""
        self._late.pop(assignment_id, None)
        return self._out.pop(assignment_id, None)

    def ask_again(self, slot: Slot) -> None:
        """Let a place be filled by another attempt."""
        slot.assignment_id = ""
        self._again.append(slot)

    def again(self, edge: str, stations: Collection[str]) -> list[Slot]:
        """Return places for this station to fill again, what belongs together at once; none where there is nothing.

        Args:
            stations: those that are there and to be believed.
        """
        for slot in self._again:
            without = slot.failed_on | slot.lost_on
            if edge in without and not without.issuperset(stations):
                continue  # another one may do it
            if slot.pair is None or slot.edge == edge:
                self._again.remove(slot)
                return [slot]
            if slot.edge not in stations or slot.edge in without:
                return self._both(slot)
        return []

    def forget(self, slots: Iterable[Slot]) -> None:
        """Wait for these no longer."""
        for slot in slots:
            if self._out.pop(slot.assignment_id, None) is not None:
                self._late[slot.assignment_id] = replace(slot, pair=None)
            if slot in self._again:
                self._again.remove(slot)

    def _both(self, slot: Slot) -> list[Slot]:
        pair = slot.pair
        assert pair is not None
        both = [pair.candidate, pair.incumbent]
        self.forget(both)
        for half in both:
            if half.result is not None:
                half.candidate.results.remove(half.result)
            half.result, half.invalid, half.assignment_id = None, False, ""
        return both

    def _attempt(self, slot: Slot, edge: str) -> Attempt:
        self._count += 1
        slot.assignment_id, slot.edge = f"{self._run}-{self._count:06d}", edge
        self._out[slot.assignment_id] = slot
        return Attempt(
            assignment_id=slot.assignment_id,
            candidate_id=slot.candidate.candidate_id,
            bundle=slot.policy,
            start_id=slot.start.start_id,
            start=dict(slot.start.coordinates),
            seed=slot.seed,
            purpose=slot.purpose,
            pair_id=None if slot.pair is None else slot.pair.name,
        )


def _taken(places: dict[str, Slot], trial: Trial) -> Slot | None:
    slot = places.get(trial.assignment_id)
    if slot is None or (trial.edge, trial.bundle, trial.start_id) != (slot.edge, slot.policy, slot.start.start_id):
        return None
    return places.pop(trial.assignment_id)
