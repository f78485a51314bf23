"""What `bench/power_cuts.py` runs on a disk that loses power: real code on a file, and facts about the file.

Facts are what a caller was told is on the disk, and what is found there: a name and its value.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.records import Outcome, Trial, first_link
from tests.harness.power import Connection

NOW_S = 1_700_000_000.0
LATER_S = 2.0 * NOW_S
BUNDLE = "b" * 64
START = {"x_m": 0.3, "y_m": 0.0, "yaw_rad": 0.0}
CLOSE_ONE_IN = 40
MOST_AT_ONCE = 8  # assignments in a lease, trials in a batch
ANY = object()  # a value that a caller cannot know before the call returns
Facts = dict[tuple[Any, ...], Any]


@dataclass(frozen=True)
class Step:
    """A call, and what will be there once it has returned."""

    call: Callable[[], Facts]  # returns what it promises
    meant: Facts  # what may be there should it not return
    is_one: bool = True  # one commit: all of `meant` or nothing


class World(Protocol):
    """Real code on a file."""

    path: Path
    first: Facts  # what opening it the first time means

    def open(self) -> None:
        """Open the file, making it where there is none."""

    def next_step(self, draw: random.Random, facts: Facts) -> Step:
        """Return what to do next where these facts stand."""

    def found(self, db: Connection) -> Facts:
        """Return all facts that are in the file."""

    def broken_links(self, db: Connection) -> int:
        """Return how many trials are not chained to the one before, or not signed."""


class Chains:
    """Walks chains; a signature that was found good once is not verified again."""

    def __init__(self) -> None:
        self._good: set[tuple[bytes, bytes]] = set()

    def broken(self, rows: Iterable[tuple[str, str, bytes, bytes, bytes, bytes, str]]) -> int:
        """Return how many of (whose, epoch, content, previous, chain, signature, key) do not follow the one before."""
        count, whose, link = 0, "", b""
        for owner, epoch, content, previous, chain, signature, key in rows:
            if owner != whose:
                whose, link = owner, first_link(epoch)
            follows = previous == link
            link = hashlib.sha256(previous + content).digest()
            count += not (follows and chain == link and self._signed(key, signature, chain))
        return count

    def _signed(self, key: str, signature: bytes, chain: bytes) -> bool:
        if (signature, chain) not in self._good:
            try:
                Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, chain)
            except InvalidSignature:
                return False
            self._good.add((signature, chain))
        return True


def promise(meant: Facts, call: Callable[[], object]) -> Step:
    """Return the step whose call promises all that was meant."""

    def said() -> Facts:
        call()
        return meant

    return Step(said, meant)


def rows(db: Connection, query: str) -> list[Any]:
    return db.execute(query).fetchall()


def make_trial(edge: str, epoch: str, sequence: int, assignment_id: str, draw: random.Random) -> Trial:
    return Trial(
        edge=edge, epoch=epoch, sequence=sequence, assignment_id=assignment_id, lease_id="l1", task="push_t",
        bundle=BUNDLE, start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="",
        detail="x" * draw.randrange(4_000), progress=1.0, measures={"coverage": draw.random()}, achieved_start=START,
        reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0,
        started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5, station_hash="5" * 64, calibration_hash="6" * 64, software="s",
        recording=draw.randbytes(32).hex(), recording_bytes=draw.randint(1, 1_000_000),
    )  # fmt: skip
