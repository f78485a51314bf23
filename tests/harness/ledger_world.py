"""A station and its uplink on the real ledger, for `bench/power_cuts.py`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

from edge.ledger import Ledger
from edge.records import Assignment, Lease, Trial, decode, encode
from tests.harness.power import Connection
from tests.harness.world import (
    ANY,
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

NEW_EPOCH_ONE_IN = 60


class LedgerWorld:
    """A station and its uplink on one ledger."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.first: Facts = {("epoch", 1): ANY}
        self._leases = 0
        self._chains = Chains()

    def open(self) -> None:
        """Open the ledger twice, as station and uplink do."""
        self._station, self._uplink = Ledger(self.path, "station-1"), Ledger(self.path, "station-1")
        self._recovered = False

    def next_step(self, draw: random.Random, facts: Facts) -> Step:
        """Return what to do next: as a station does, recover first, then any of its commits and its uplink's."""
        if not self._recovered:
            return self._recover()
        if not draw.randrange(CLOSE_ONE_IN):
            return Step(self._reopen, {})
        if not draw.randrange(NEW_EPOCH_ONE_IN):
            return self._begin_epoch(facts)
        found = self._station.next_assignment(NOW_S)
        open_trials, unacked = self._station.open_trials(), self._uplink.unacked(MOST_AT_ONCE)
        unsent = self._uplink.unsent_recordings(1)
        ready: list[Callable[[], Step]] = [lambda: self._lease(draw)] if found is None else []
        if found is not None and not open_trials:
            ready.append(lambda: self._open(*found))
        if open_trials:
            item = draw.choice(open_trials)
            trial = make_trial("station-1", item.epoch, item.sequence, item.assignment.assignment_id, draw)
            ready.append(lambda: self._seal(trial))
        if unacked:
            ready.append(lambda: self._acknowledge([decode(Trial, sealed.body) for sealed in unacked]))
        if unsent:
            ready.append(lambda: self._send(unsent[0][0]))
        return draw.choice(ready)()

    def found(self, db: Connection) -> Facts:
        """Return all facts that are in the ledger."""
        facts: Facts = {("epoch", number): epoch for number, epoch in rows(db, "SELECT number, epoch FROM epochs")}
        facts |= {("lease", name): until for name, until in rows(db, "SELECT lease_id, expires_unix_s FROM leases")}
        for name, body, state in rows(db, "SELECT assignment_id, body, state FROM assignments"):
            facts["assignment", name] = body
            if state in ("open", "done"):
                facts["taken", name] = True
        columns = "epoch, sequence, assignment, body, state, recording, recording_state"
        for epoch, sequence, assignment, body, state, recording, recording_state in rows(
            db, f"SELECT {columns} FROM trials"
        ):
            facts["opened", decode(Assignment, assignment).assignment_id] = (epoch, sequence)
            if body is not None:
                facts["sealed", epoch, sequence] = body
            if state == "acked":
                facts["acked", epoch, sequence] = True
            if recording_state == "sent":
                facts["sent", recording] = True
        return facts

    def broken_links(self, db: Connection) -> int:
        """Return how many trials are not chained to the one sealed before, or not signed by the edge's key."""
        columns = "body, previous, chain, signature, public_key"
        sealed = f"SELECT epoch, {columns} FROM trials WHERE body IS NOT NULL"
        return self._chains.broken(
            (epoch, epoch, hashlib.sha256(body).digest(), previous, chain, signature, key)
            for epoch, body, previous, chain, signature, key in rows(db, f"{sealed} ORDER BY epoch, seal")
        )

    def _recover(self) -> Step:
        meant = {("sealed", item.epoch, item.sequence): ANY for item in self._station.open_trials()}

        def call() -> Facts:
            crashed = self._station.recover(
                NOW_S, task="push_t", station_hash="5" * 64, calibration_hash="6" * 64, software="s"
            )
            self._recovered = True
            return {("sealed", trial.epoch, trial.sequence): encode(trial) for trial in crashed}

        return Step(call, meant, is_one=False)

    def _reopen(self) -> Facts:
        self._station.close()
        self._uplink.close()
        self.open()
        return {}

    def _begin_epoch(self, facts: Facts) -> Step:
        name = ("epoch", 1 + sum(key[0] == "epoch" for key in facts))
        return Step(lambda: {name: self._uplink.begin_epoch()}, {name: ANY})

    def _lease(self, draw: random.Random) -> Step:
        self._leases += 1
        names = [f"{self._leases}-{number}" for number in range(draw.randint(1, MOST_AT_ONCE))]
        items = tuple(Assignment(name, BUNDLE, "dev-1", START, 7, "screen") for name in names)
        lease = Lease(f"lease-{self._leases}", "push_t", items, LATER_S)
        meant: Facts = {("lease", lease.lease_id): LATER_S}
        meant |= {("assignment", item.assignment_id): encode(item) for item in items}
        return promise(meant, lambda: self._uplink.add_lease(lease))

    def _open(self, assignment: Assignment, lease_id: str) -> Step:
        name = assignment.assignment_id

        def call() -> Facts:
            return {("opened", name): self._station.open_trial(assignment, lease_id, NOW_S), ("taken", name): True}

        return Step(call, {("opened", name): ANY, ("taken", name): True})

    def _seal(self, trial: Trial) -> Step:
        path = self.path.with_name("r.mcap")
        return promise(
            {("sealed", trial.epoch, trial.sequence): encode(trial)}, lambda: self._station.seal(trial, path)
        )

    def _acknowledge(self, trials: list[Trial]) -> Step:
        names = [trial.identity for trial in trials]
        meant: Facts = {("acked", trial.epoch, trial.sequence): True for trial in trials}
        return promise(meant, lambda: self._uplink.acknowledge(names, NOW_S))

    def _send(self, recording: str) -> Step:
        return promise({("sent", recording): True}, lambda: self._uplink.recording_sent(recording, NOW_S))
