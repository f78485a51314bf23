"""A journaled campaign on the real store, with made-up stations whose trials depend on nothing but the attempt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.campaign import Attempt, Campaign
from coordinator.evolution.ideas import Proposal, Source
from coordinator.journal import Journal, resume
from coordinator.research.offline import OfflineResearcher
from coordinator.rows import insert
from coordinator.store import FILE, Store
from edge.records import Lease, Trial
from tests.harness.ideal_world import SPACE, STARTS, MemoryWorkshop, World, ladder

OPTIONS = {"seed": 3, "target": 8, "heldout": 8, "audit": 4}
STATIONS = ("station-1", "station-2")
HELD = 3  # attempts that a station runs or holds
LEASED = """
SELECT assignment_id, edge, candidate_id, bundle, start_id, start, seed, purpose, pair_id
FROM assignments WHERE state = 'leased' AND edge = ? ORDER BY rowid
"""


class Killed(Exception):
    """The process is killed here."""


class StoredWorkshop(MemoryWorkshop):
    """Keeps the bundles' names in a store, as candidates refer to them."""

    def __init__(self, store: Store) -> None:
        super().__init__(SPACE)
        self._store = store

    def publish(self, source: Source, proposal: Proposal, researcher: str, parents: Sequence[str], now_s: float) -> str:
        """Keep a bundle; again changes nothing."""
        bundle = super().publish(source, proposal, researcher, parents, now_s)
        row = {"bundle": bundle, "parent": None, "task": "push_t", "policy": "push_t", "params": dict(source.params)}
        self._store.add_bundle({**row, "manifest": "{}", "archive": b"", "created_unix_s": now_s})
        return bundle


class JournaledLab:
    """One process after another on one store; each ends by `Killed`, and `open` begins the next."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / FILE)
        self.workshop = StoredWorkshop(self.store)
        self.researcher = OfflineResearcher(SPACE, 3)
        self.journal = Journal.begin(self.make, OPTIONS, 0.0, self.store, lambda events, now_s: None)

    def make(self, options: Mapping[str, Any], now_s: float) -> Campaign:
        """Return a fresh campaign."""
        seed, target, heldout, audit = (options[name] for name in ("seed", "target", "heldout", "audit"))
        return Campaign(self.workshop, STARTS, seed, target=target, heldout=heldout, audit=audit, stations=2)

    def open(self, now_s: float) -> None:
        """Forget the process before, and go on from the store."""
        self.journal = resume(self.make, self.store, lambda events, now_s: None)
        self.journal.catch_up(now_s)

    def turn(self, now_s: float, killed: str = "") -> None:
        """Let each station run one attempt and ask for more; `killed` says where the process ends on the way."""
        for edge in STATIONS:
            held = self.store.rows(LEASED, edge)
            if held:
                self._run(held[0], now_s, killed)
            while len(self.store.rows(LEASED, edge)) < HELD and self._hand_out(edge, now_s, killed):
                pass

    def finish(self, from_turn: int, most: int = 2000) -> int:
        """Go on to the end and return the last turn."""
        for number in range(from_turn, most):
            if self.journal.campaign.finished:
                return number
            self.turn(float(number))
        raise AssertionError("the campaign did not end")

    def _run(self, row: tuple[Any, ...], now_s: float, killed: str) -> None:
        name, edge, candidate_id, bundle, start_id, start, seed, purpose, pair_id = row
        attempt = Attempt(name, candidate_id, bundle, start_id, json.loads(start), seed, purpose, pair_id)
        number = int(name.rpartition("-")[2])
        world = World(ladder, 0, invalid=0.05)
        world.workshop, world.rng = self.workshop, np.random.default_rng([seed, number])
        trial = replace(world.run(attempt, edge), sequence=number)
        self._keep(trial, now_s)
        if killed == "before it was recorded":
            raise Killed
        self.journal.record(trial, now_s)

    def _keep(self, trial: Trial, now_s: float) -> None:
        with self.store.transaction() as db:
            insert(db, "trials", {**vars(trial), "content_sha256": "", "received_unix_s": now_s})
            db.execute("UPDATE assignments SET state = 'done' WHERE assignment_id = ?", (trial.assignment_id,))

    def _hand_out(self, edge: str, now_s: float, killed: str) -> bool:
        while (context := self.journal.wants(now_s, self.researcher.name)) is not None:
            self.journal.propose(self.researcher.propose(context), self.researcher.name, now_s)
        work = self.journal.next_work(edge, now_s)
        if work is None:
            return False
        if killed == "before the lease was written":
            raise Killed
        self.store.lease(Lease("l", "push_t", (), now_s + 600.0), edge, work.attempts, now_s)
        return True
