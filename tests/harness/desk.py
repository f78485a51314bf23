"""A coordinator without a campaign: the real store, network and reception, behind them a desk that always has work.

Usage: python tests/harness/desk.py ENDPOINT FOLDER [--authority FOLDER --edges EDGE ...] [--at-once N]

- FOLDER is a lab too, see `lab_folder.py`; its bundle is what all work is about, and stations fetch it here.
- It may be killed and started again on the same folder at any time, once there is a lab in it.
- One JSON line on standard output once it listens; on SIGTERM it closes the store and prints one more, with counts.
- FOLDER/ingested.log gets one line a batch after its commit, so that counts survive a kill: how many trials were new,
  the same again, in conflict and refused.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import get_args

from coordinator.campaign import Attempt
from coordinator.errors import CoordinatorError
from coordinator.evolution.records import CandidateMade, HypothesisMade
from coordinator.ingest import Batch
from coordinator.network import Network
from coordinator.publish.authority import Authority
from coordinator.publish.publisher import Publisher
from coordinator.reception import Desk, Reception
from coordinator.roster import Roster
from coordinator.store import FILE, Ingested, Kept, Store, StoreError
from tests.harness.bundles import PROVENANCE
from tests.harness.lab_folder import POLICY, TASK, LabFolder

START_ID = "dev-0001"
START = {"x_m": 0.3, "y_m": 0.0, "yaw_rad": 0.0}
INGESTED = "ingested.log"
KINDS = get_args(Kept)
TURN_S = 0.05
TEND_EVERY_S = 1.0


class CountingStore(Store):
    """A store that counts what became of the trials it was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE)
        self.counts: Counter[str] = Counter()
        self._log = os.open(folder / INGESTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def ingest(self, batch: Batch, now_unix_s: float) -> list[Ingested]:
        """Keep a batch, then note the counts."""
        ingested = super().ingest(batch, now_unix_s)
        found = Counter(item.kept for item in ingested)
        self.counts.update(found)
        os.write(self._log, (" ".join(str(found[kind]) for kind in KINDS) + "\n").encode())
        return ingested


class Work:
    """Attempts without end, `at_once` of them each time, no name twice even after a kill."""

    def __init__(self, bundle: str, at_once: int) -> None:
        self._bundle, self._at_once = bundle, at_once
        self._token = secrets.token_hex(4)
        self.handed_out = 0

    def take(self, edge: str, now_unix_s: float, ahead: int) -> list[Attempt]:
        """Return the next attempts for whichever edge."""
        first = self.handed_out
        self.handed_out += self._at_once
        return [
            Attempt(f"{self._token}-{number}", 1, self._bundle, START_ID, START, number, "play", None)
            for number in range(first, self.handed_out)
        ]


def prepare(folder: Path, publisher: Publisher) -> str:
    """Make what attempts refer to, unless a desk before this one did; return the name of their bundle."""
    (folder / "recordings").mkdir(exist_ok=True)
    now_unix_s = time.time()
    bundle = publisher.publish({}, PROVENANCE, None)
    with suppress(StoreError):  # they are there
        publisher.store.write([
            HypothesisMade(1, "offline", "seed", "It works.", "It does not.", {}, now_unix_s),
            CandidateMade(1, 1, bundle, None, "screen", now_unix_s),
        ])  # fmt: skip
    return bundle


def serve(network: Network, reception: Reception, publisher: Publisher, stop: threading.Event) -> None:
    """Answer until stopped."""
    tend_at_s = 0.0
    while not stop.is_set():
        message = network.take(TURN_S)
        if message is not None:
            reception.handle(message, time.time())
        if time.monotonic() >= tend_at_s:
            tend_at_s = time.monotonic() + TEND_EVERY_S
            reception.tend(time.time())
            publisher.lab.renew()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s desk %(levelname)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("endpoint", help="e.g. tcp/127.0.0.1:7447, or tls/... with --authority")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--authority", type=Path, help="the folder of whose certificates are believed")
    parser.add_argument("--edges", nargs="+", default=[], help="who may talk, with an authority")
    parser.add_argument("--at-once", type=int, default=1, help="attempts that belong together in a lease")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    tls = Authority(options.authority).server([]) if options.authority else None
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        store = CountingStore(options.folder)
        lab = LabFolder(options.folder)
        publisher = Publisher(POLICY, lab.lab, store)
        with store, Network(options.endpoint, tls, options.edges) as network:
            work = Work(prepare(options.folder, publisher), options.at_once)
            desk = Desk(work.take, lambda trial, now_unix_s: None, lambda assignment_id, now_unix_s: None)
            print(json.dumps({"listens": network.endpoint}), flush=True)
            reception = Reception(TASK, store, lab.repository, Roster([]), desk, options.folder)
            serve(network, reception, publisher, stop)
    except CoordinatorError as error:
        sys.exit(str(error))
    print(json.dumps({**{kind: store.counts[kind] for kind in KINDS}, "handed_out": work.handed_out}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
