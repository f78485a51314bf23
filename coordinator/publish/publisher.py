"""Makes a policy with some parameters into a bundle, and lets stations try it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.publish.books import RepositoryRefused
from coordinator.publish.keys import Ask, Keyring
from coordinator.publish.repository import Repository
from coordinator.store import Store
from policies.bundle import build, bundle_id, open_bundle
from policies.interface import Params

KEYS, FOLDER = "keys", "trust"
WORDS = ("hypothesis", "researcher", "commit")


class Lab:
    """The coordinator's key and the repository of a run."""

    def __init__(self, keys: Path, ring: Keyring, repository: Repository, ask: Ask | None = None) -> None:
        """Sign with `ring`, which was opened from the folder `keys`."""
        self.repository = repository
        self.ring = ring
        self._keys, self._ask = keys, ask

    @classmethod
    def of(cls, run: Path, keys: Path | None = None, ask: Ask | None = None) -> Lab:
        """Open the keys and the repository of a run; the repository is made now where there is none.

        Raises:
            KeyRefused: no keys, or they cannot be used.
            RepositoryRefused: it cannot be read, or people's keys are not there to sign a new one.
        """
        ring = Keyring.open(keys or run / KEYS, ask, humans=True)
        folder = run / FOLDER
        repository = Repository.open(folder) if folder.is_dir() else Repository.create(folder, ring)
        return cls(keys or run / KEYS, ring, repository, ask)

    @classmethod
    def for_demo(cls, run: Path) -> Lab:
        """Make keys and a repository in the folder of a run, for one person whose word is enough.

        Raises:
            KeyRefused, RepositoryRefused: they cannot be made.
        """
        ring = Keyring.for_demo(run / KEYS)
        return cls(run / KEYS, ring, Repository.create(run / FOLDER, ring))

    def offer(self, task: str, archive: bytes) -> None:
        """Let stations try a bundle.

        Raises:
            RepositoryRefused: it cannot be signed.
        """
        self._sign(lambda ring: self.repository.offer_candidate(task, archive, ring))

    def renew(self) -> None:
        """Sign anew what is past half of its life, and publish what people have signed; to be called often.

        Raises:
            RepositoryRefused: the repository cannot be read or written.
        """
        self._sign(self.repository.renew)

    def _sign(self, sign: Callable[[Keyring], object]) -> None:
        """Sign, with the online key that there is now should the one that is known have been rotated."""
        try:
            sign(self.ring)
        except RepositoryRefused:
            self.ring = Keyring.open(self._keys, self._ask, humans=True)
            sign(self.ring)


@dataclass(frozen=True)
class Publisher:
    """One policy folder, one lab, one store."""

    policy: Path
    lab: Lab
    store: Store

    @classmethod
    def for_demo(cls, policy: Path, run: Path, store: Store) -> Publisher:
        """Return a publisher whose keys and repository lie in the folder of the run, made now.

        Raises:
            KeyRefused, RepositoryRefused: they cannot be made.
        """
        return cls(policy, Lab.for_demo(run), store)

    def publish(self, params: Params, provenance: Mapping[str, Any], parent: str | None) -> str:
        """Build and keep the policy with `params`, and let stations try it; return the sha256 that names the bundle.

        The same content gives the same name, so publishing twice changes nothing.

        Raises:
            SpaceError: a parameter outside what the policy allows.
            BundleError: the policy's files cannot go into a bundle.
            StoreError: the bundle cannot be kept.
            RepositoryRefused: it cannot be signed.
        """
        archive = build(self.policy, params, {name: str(provenance.get(name, "")) for name in WORDS}, parent)
        name = bundle_id(archive)
        # Opened as a station would, so that what no station would take is never offered.
        manifest = open_bundle(archive, name).manifest
        self.store.add_bundle(
            {
                "bundle": name,
                "parent": parent,
                "task": manifest.task,
                "policy": manifest.policy,
                "params": manifest.params,
                "manifest": asdict(manifest),
                "archive": archive,
                "created_unix_s": time.time(),
            }
        )
        self.lab.offer(manifest.task, archive)
        return name

    def offer(self, task: str, bundle: str) -> None:
        """Let stations try a bundle of the store, which they may have been offered long ago.

        Raises:
            StoreError, RepositoryRefused: it cannot be read or signed.
        """
        archive = self.store.bundle(bundle)
        if archive is not None:
            self.lab.offer(task, archive)
