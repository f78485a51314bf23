"""A station learns from its lab's repository what it may run, and keeps what it knows when it learns nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coordinator.publish.keys import Keyring, make
from coordinator.publish.repository import Repository
from edge.trust.client import NotGranted, Trust
from edge.trust.folder import FolderFetcher

ARCHIVE = b"a bundle"
NAME = hashlib.sha256(ARCHIVE).hexdigest()
TASK, EDGE = "push_t", "arm-01"


class Lab:
    """A lab of two people and a station, at a time of day that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_800_000_000.0
        make(folder / "keys")
        self.ring = Keyring.open(folder / "keys", humans=True)
        self.repository = Repository.create(folder / "run" / "trust", self.ring, self.clock)
        self.station = folder / "station"
        (self.station / "trust").mkdir(parents=True)
        (self.station / "trust" / "root.json").write_bytes(self.repository.root())

    def clock(self) -> float:
        return self.now

    def trust(self) -> Trust:
        return Trust(self.station / "trust", FolderFetcher(self.repository.folder), self.clock)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_candidate_is_granted_as_a_candidate_and_its_bytes_come(lab: Lab) -> None:
    lab.repository.offer_candidate(TASK, ARCHIVE, lab.ring)
    trust = lab.trust()
    trust.refresh()
    grant, data = trust.bundle(TASK, NAME)
    assert (grant.bundle, grant.task, grant.role, data) == (NAME, TASK, "candidates", ARCHIVE)


def test_a_release_takes_both_people(lab: Lab) -> None:
    one, other = lab.ring.humans
    told = lab.repository.release(TASK, ARCHIVE, [one], lab.ring)
    assert (told.missing, told.published) == (1, False)
    trust = lab.trust()
    trust.refresh()
    with pytest.raises(NotGranted):
        trust.bundle(TASK, NAME)
    assert lab.repository.countersign(NAME, other, lab.ring).published
    trust.refresh()
    assert trust.bundle(TASK, NAME)[0].role == "released"


def test_an_order_is_its_edge_s_own(lab: Lab) -> None:
    lab.repository.assign(EDGE, b'{"number": 1}', lab.ring)
    trust = lab.trust()
    trust.refresh()
    assert trust.order(EDGE) == b'{"number": 1}'
    assert trust.order("arm-02") is None
