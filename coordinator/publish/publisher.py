"""Makes a policy with some parameters into a signed bundle that stations may fetch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordinator.publish.keys import KeyPair, load_or_make
from coordinator.store import Store
from policies.bundle import build, bundle_id, open_bundle
from policies.interface import Params


@dataclass(frozen=True)
class Publisher:
    """One policy folder, one key, one store."""

    policy: Path
    keys: KeyPair
    store: Store

    @staticmethod
    def of(policy: Path, keys: Path, store: Store) -> Publisher:
        """Return a publisher that signs with the key in the folder `keys`, made now if there is none.

        Raises:
            KeyRefused: that key cannot be used.
        """
        return Publisher(policy, load_or_make(keys), store)

    @property
    def public_key(self) -> bytes:
        """The 32 raw bytes that stations trust."""
        return self.keys.public

    def publish(self, params: Params, provenance: Mapping[str, Any], parent: str | None) -> str:
        """Build, sign and store the policy with `params`; return the sha256 that names the bundle.

        The same content gives the same name, so publishing twice changes nothing.

        Raises:
            SpaceError: a parameter outside what the policy allows.
            BundleError: the policy's files cannot go into a bundle.
            StoreError: the bundle cannot be kept.
        """
        words = {name: str(provenance.get(name, "")) for name in ("hypothesis", "researcher", "commit")}
        archive = build(self.policy, params, words, parent)
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
        return name
