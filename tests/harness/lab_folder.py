"""A lab in a folder: keys, a repository that names one real bundle, and the root of trust that stations are given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.ngclient import FetcherInterface

from coordinator.publish.keys import RING, Keyring, make
from coordinator.publish.publisher import FOLDER, KEYS, Lab
from coordinator.publish.repository import Repository, RepositoryRefused
from edge.activation.journal import Journal
from edge.trust.client import ROOT_FILE, Trust
from edge.uplink.settings import Settings
from edge.uplink.supply import Supply
from policies import bundle
from policies.interface import Params
from tests.harness.bundles import PROVENANCE

TASK = "push_t"
POLICY = Path(bundle.__file__).parent / TASK


class LabFolder:
    """One lab, and the bundle that stations may try there."""

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.time, people: int = 1, params: Params | None = None
    ) -> None:
        """Open the lab in `folder`, making it where there is none.

        Args:
            people: how many there are, all of whom must sign what they release; their keys are at hand.
            params: of the policy in its bundle.
        """
        if not (folder / KEYS / RING).exists():
            make(folder / KEYS, people, people)
        self.ring = Keyring.open(folder / KEYS, humans=True)
        try:
            self.repository = Repository.open(folder / FOLDER, clock)
        except RepositoryRefused:  # there is none yet
            self.repository = Repository.create(folder / FOLDER, self.ring, clock)
        self.lab = Lab(folder / KEYS, self.ring, self.repository)
        self.archive = bundle.build(POLICY, params or {}, PROVENANCE, None)
        self.bundle = self.repository.offer_candidate(TASK, self.archive, self.ring)
        self.root = folder / ROOT_FILE
        self.root.write_bytes(self.repository.root())

    def admit(self, station: Path) -> None:
        """Give a station this lab's root of trust."""
        trust = station / "trust"
        trust.mkdir(parents=True, exist_ok=True)
        (trust / ROOT_FILE).write_bytes(self.root.read_bytes())


@contextmanager
def supplied(settings: Settings, fetcher: FetcherInterface) -> Iterator[Supply]:
    """Open a station's supply, which asks its lab through `fetcher`."""
    with Journal(settings.journal_path) as journal:
        yield Supply(settings, Trust(settings.trust, fetcher), journal)
