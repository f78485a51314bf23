"""Compares who says what about which trials after a run of desks, workers and uplinks.

Three accounts, each written by somebody else: the ledgers of the stations, the coordinator's database, and the plain
log that each worker wrote before and after each commit.
"""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.records import first_link

Identity = tuple[str, str, int]
Account = dict[Identity, str]  # sha256 of each trial's body


@dataclass
class Accounts:
    """What each of the three says."""

    begun: set[str] = field(default_factory=set)  # the workers: assignments that they were about to open
    opened: set[Identity] = field(default_factory=set)  # the workers
    about_to_seal: Account = field(default_factory=dict)  # the workers; the last that each said
    sealed: Account = field(default_factory=dict)  # the workers
    ledgers: Account = field(default_factory=dict)
    left_open: int = 0  # in the ledgers
    refused: int = 0  # in the ledgers
    database: Account = field(default_factory=dict)
    assignments: list[str] = field(default_factory=list)  # of the trials in the database
    crashed: set[Identity] = field(default_factory=set)  # in the database, as invalid with the cause crash

    @property
    def lost(self) -> int:
        """Trials that a station has sealed and the coordinator does not have."""
        return len(self.ledgers.keys() - self.database.keys())

    @property
    def forgotten(self) -> int:
        """Trials that a worker has opened, or sealed with this content, and the coordinator does not have so."""
        return len(self.opened - self.database.keys()) + len(self.sealed.items() - self.database.items())

    @property
    def doubled(self) -> int:
        """Attempts that count more than once."""
        return len(self.assignments) - len(set(self.assignments))

    @property
    def invented(self) -> int:
        """Trials of the coordinator that no ledger holds so, or that no worker has begun or meant to seal so."""
        finished = {identity: sha256 for identity, sha256 in self.database.items() if identity not in self.crashed}
        return (
            len(self.database.items() - self.ledgers.items())
            + len(finished.items() - self.about_to_seal.items())
            + len(set(self.assignments) - self.begun)
        )


def read_accounts(folder: Path, edges: list[str]) -> Accounts:
    """Return what is said in a coordinator's folder that holds its stations' folders."""
    found = Accounts()
    for edge in edges:
        _read_log(found, edge, folder / edge / "worker.log")
        for epoch, number, state, body in _rows(
            folder / edge / "ledger.db", "SELECT epoch, sequence, state, body FROM trials"
        ):
            found.left_open += state == "open"
            found.refused += state == "refused"
            if body is not None:
                found.ledgers[edge, epoch, number] = hashlib.sha256(body).hexdigest()
    for edge, epoch, number, sha256, assignment, cause in _rows(
        folder / "coordinator.db", "SELECT edge, epoch, sequence, content_sha256, assignment_id, cause FROM trials"
    ):
        found.database[edge, epoch, number] = sha256
        found.assignments.append(assignment)
        if cause == "crash":
            found.crashed.add((edge, epoch, number))
    return found


def _read_log(found: Accounts, edge: str, path: Path) -> None:
    for words in map(str.split, path.read_text().splitlines()):
        match words:
            case ["begin", assignment]:
                found.begun.add(assignment)
            case ["opened", epoch, number]:
                found.opened.add((edge, epoch, int(number)))
            case ["seal", epoch, number, sha256]:
                found.about_to_seal[edge, epoch, int(number)] = sha256
            case ["sealed", epoch, number, sha256]:
                found.sealed[edge, epoch, int(number)] = sha256
            case _:
                raise ValueError(f"{path} holds {' '.join(words)!r:.80}, which no worker writes")


def broken_links(folder: Path) -> int:
    """Return how many of the coordinator's trials are not chained to the one before, or not signed by their edge."""
    broken, database = 0, folder / "coordinator.db"
    for edge, epoch, key in _rows(database, "SELECT edge, epoch, public_key FROM ledgers"):
        query = "SELECT previous_chain, content_sha256, chain, signature FROM trials WHERE edge = ? AND epoch = ?"
        following = {row[0]: row[1:] for row in _rows(database, query, edge, epoch)}
        link = first_link(epoch)
        while found := following.pop(link.hex(), None):
            content, chain, signature = found
            link = hashlib.sha256(link + bytes.fromhex(content)).digest()
            broken += chain != link.hex() or not _signed(key, signature, link)
        broken += len(following)  # the chain does not lead to them
    return broken


def _signed(key: str, signature: bytes, link: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, link)
    except InvalidSignature:
        return False
    return True


def torn_recordings(folder: Path) -> int:
    """Return how many of the coordinator's recordings do not hash to their names."""
    files = (folder / "recordings").glob("*.mcap")
    return sum(hashlib.sha256(path.read_bytes()).hexdigest() != path.stem for path in files)


def missing_recordings(folder: Path) -> int:
    """Return how many recordings the coordinator's trials name that it does not have, as a file and as a row."""
    database = folder / "coordinator.db"
    named = {row[0] for row in _rows(database, "SELECT recording FROM trials WHERE recording != ''")}
    noted = {row[0] for row in _rows(database, "SELECT sha256 FROM recordings")}
    files = {path.stem for path in (folder / "recordings").glob("*.mcap")}
    return len(named - (noted & files))


def quarantined(folder: Path) -> int:
    """Return how many trials the coordinator has put aside."""
    return len(_rows(folder / "coordinator.db", "SELECT 1 FROM quarantine"))


def _rows(path: Path, query: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query, values).fetchall()
