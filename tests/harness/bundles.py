"""Bundles of a few lines of code, as a station has them once they were verified."""

from __future__ import annotations

import time
from pathlib import Path

from edge.activation.journal import Journal
from policies import bundle

PROVENANCE = {"hypothesis": "it is tested", "researcher": "a test", "commit": ""}


def bundle_of(source: Path) -> tuple[str, bytes]:
    """Return the name and the bytes of the bundle of a policy's folder."""
    data = bundle.build(source, {}, PROVENANCE, None)
    return bundle.bundle_id(data), data


def unpacked(source: Path, station: Path, role: str = "candidates") -> str:
    """Put the bundle of a policy's folder where a station keeps those that it may run, and note it so; return its name.

    This is what the uplink does once the lab's signatures were found good.
    """
    name, data = bundle_of(source)
    bundle.unpack(bundle.open_bundle(data, name), station / "bundles")
    with Journal(station / "activation.db") as journal:
        journal.verified(name, role, time.time() + 3600.0, "push_t")
    return name
