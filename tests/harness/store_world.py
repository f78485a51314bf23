"""A coordinator's real store, and three stations that bring it trials, for `bench/power_cuts.py`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.campaign import Attempt
from coordinator.evolution.records import CandidateMade, Event, HypothesisMade
from coordinator.ingest import Batch
from coordinator.store import FILE, Store
from edge.records import Lease, Sealed, Trial, encode, first_link
from tests.harness.power import Connection
from tests.harness.world import (
    BUNDLE,
    CLOSE_ONE_IN,
    LATER_S,
    MOST_AT_ONCE,
    NOW_S,
    START,
    Chains,
    Facts,
    Step,
    make_trial,
    promise,
    rows,
)


class StoreWorld:
    """A coordinator's store, and three stations that bring it trials."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.first: Facts = {}
        self._assignments = 0
        self._asked: dict[str, str] = {}  # assignment -> the station that it was handed to
        self._notes = 0
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(32))
        self._public_key = self._key.public_key().public_bytes_raw().hex()
        self._sealed: dict[str, list[tuple[Trial, Sealed]]] = {f"station-{number}": [] for number in (1, 2, 3)}
        self._chains = Chains()

    def open(self) -> None:
        """Open the store."""
        self._store = Store(self.path)

    def next_step(self, draw: random.Random, facts: Facts) -> Step:
        """Return what to do next: any of the commits that stations and the campaign cause."""
        if ("bundle", BUNDLE) not in facts:
            return self._add_bundle()
        if ("candidate", 1) not in facts:
            return self._add_candidate()
        if not draw.randrange(CLOSE_ONE_IN):
            return Step(self._reopen, {})
        edge = draw.choice(sorted(self._sealed))
        ready: list[Callable[[], Step]] = [
            lambda: self._lease(draw, edge), lambda: self._ingest(draw, edge, facts), lambda: self._note(),
        ]  # fmt: skip
        kept = [trial for trial, _ in self._sealed[edge] if ("trial", *trial.identity) in facts]
        if kept:
            trial = draw.choice(kept)
            ready += [lambda: self._record(trial), lambda: self._conflict(trial, draw)]
        return draw.choice(ready)()

    def found(self, db: Connection) -> Facts:
        """Return all facts that are in the database."""
        facts: Facts = {("bundle", name): True for (name,) in rows(db, "SELECT bundle FROM bundles")}
        facts |= {("hypothesis", number): True for (number,) in rows(db, "SELECT hypothesis_id FROM hypotheses")}
        facts |= {("candidate", number): True for (number,) in rows(db, "SELECT candidate_id FROM candidates")}
        for name, lease, state in rows(db, "SELECT assignment_id, lease_id, state FROM assignments"):
            facts["assignment", name] = lease
            if state == "done":
                facts["done", name] = True
        for edge, epoch, sequence, sha256 in rows(db, "SELECT edge, epoch, sequence, content_sha256 FROM trials"):
            facts["trial", edge, epoch, sequence] = sha256
        facts |= {("ledger", *row[:2]): row[2] for row in rows(db, "SELECT edge, epoch, public_key FROM ledgers")}
        facts |= {("recording", name): size for name, size in rows(db, "SELECT sha256, bytes FROM recordings")}
        facts |= {("quarantine", body): True for (body,) in rows(db, "SELECT body FROM quarantine")}
        facts |= {("note", text): True for (text,) in rows(db, "SELECT text FROM events")}
        return facts

    def broken_links(self, db: Connection) -> int:
        """Return how many trials are not chained to the one before, or not signed by their edge's key."""
        columns = "content_sha256, previous_chain, chain, signature"
        found = rows(db, f"SELECT edge, epoch, {columns} FROM trials ORDER BY edge, epoch, sequence")
        return self._chains.broken(
            (edge, epoch, *map(bytes.fromhex, (content, previous, chain)), signature, self._public_key)
            for edge, epoch, content, previous, chain, signature in found
        )

    def _reopen(self) -> Facts:
        self._store.close()
        self.open()
        return {}

    def _add_bundle(self) -> Step:
        row: dict[str, Any] = {
            "bundle": BUNDLE, "parent": None, "task": "push_t", "policy": "push_t", "params": {}, "manifest": {},
            "archive": bytes(20_000), "created_unix_s": NOW_S,
        }  # fmt: skip
        return promise({("bundle", BUNDLE): True}, lambda: self._store.add_bundle(row))

    def _add_candidate(self) -> Step:
        events: list[Event] = [
            HypothesisMade(1, "offline", "seed", "It works.", "It does not.", {}, NOW_S),
            CandidateMade(1, 1, BUNDLE, None, "screen", NOW_S),
        ]
        return promise({("hypothesis", 1): True, ("candidate", 1): True}, lambda: self._store.write(events))

    def _lease(self, draw: random.Random, edge: str) -> Step:
        names = [f"a{self._assignments + number}" for number in range(draw.randint(1, MOST_AT_ONCE))]
        self._assignments += len(names)
        self._asked |= dict.fromkeys(names, edge)
        work = [Attempt(name, 1, BUNDLE, "dev-1", START, 7, "screen", None) for name in names]
        lease = Lease(f"lease-{names[0]}", "push_t", (), LATER_S)
        meant: Facts = {("assignment", name): lease.lease_id for name in names}
        return promise(meant, lambda: self._store.lease(lease, edge, work, NOW_S))

    def _ingest(self, draw: random.Random, edge: str, facts: Facts) -> Step:
        """Bring what is not kept, and a few trials more, with one that is kept among them now and then."""
        kept = [item for item in self._sealed[edge] if ("trial", *item[0].identity) in facts]
        sent = [item for item in self._sealed[edge] if ("trial", *item[0].identity) not in facts]
        sent += [self._seal(draw, edge, facts) for _ in range(draw.randint(0 if sent else 1, MOST_AT_ONCE))]
        again = draw.sample(kept, min(len(kept), draw.randrange(2)))
        meant: Facts = {("ledger", edge, "e1"): self._public_key}
        for trial, sealed in sent:
            meant["trial", *trial.identity] = hashlib.sha256(sealed.body).hexdigest()
            if ("assignment", trial.assignment_id) in facts:
                meant["done", trial.assignment_id] = True
        batch = Batch(self._public_key, tuple(sealed for _, sealed in again + sent))
        return promise(meant, lambda: self._store.ingest(batch, NOW_S))

    def _seal(self, draw: random.Random, edge: str, facts: Facts) -> tuple[Trial, Sealed]:
        """Return a trial of one of the assignments that its station has out, as that keeps it."""
        before = self._sealed[edge]
        leased = [key[1] for key in facts if key[0] == "assignment" and ("done", key[1]) not in facts]
        out = [name for name in leased if self._asked[name] == edge]
        trial = make_trial(edge, "e1", len(before) + 1, draw.choice(out) if out else "unasked", draw)
        sealed = self._sign(trial, before[-1][1].chain if before else first_link("e1"))
        before.append((trial, sealed))
        return before[-1]

    def _sign(self, trial: Trial, previous: bytes) -> Sealed:
        unsigned = Sealed(encode(trial), previous, b"")
        return replace(unsigned, signature=self._key.sign(unsigned.chain))

    def _record(self, trial: Trial) -> Step:
        meant: Facts = {("recording", trial.recording): trial.recording_bytes}
        return promise(
            meant,
            lambda: self._store.add_recording(trial.recording, trial.edge, "r.mcap", trial.recording_bytes, NOW_S),
        )

    def _conflict(self, trial: Trial, draw: random.Random) -> Step:
        """Bring another trial under the number of one that is kept."""
        other = self._sign(replace(trial, detail=f"not {draw.random()}"), bytes(32))
        batch = Batch(self._public_key, (other,))
        return promise({("quarantine", other.body): True}, lambda: self._store.ingest(batch, NOW_S))

    def _note(self) -> Step:
        self._notes += 1
        text = f"note {self._notes}"
        return promise({("note", text): True}, lambda: self._store.note("info", text, None, NOW_S))
