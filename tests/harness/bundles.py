"""Bundles of a few lines of code, as a station has them once they were verified."""

from __future__ import annotations

from pathlib import Path

from policies import bundle

PROVENANCE = {"hypothesis": "it is tested", "researcher": "a test", "commit": ""}


def bundle_of(source: Path) -> tuple[str, bytes]:
    """Return the name and the bytes of the bundle of a policy's folder."""
    data = bundle.build(source, {}, PROVENANCE, None)
    return bundle.bundle_id(data), data


def unpacked(source: Path, station: Path) -> str:
    """Put the bundle of a policy's folder where a station keeps those that it may run; return its name."""
    name, data = bundle_of(source)
    return bundle.unpack(bundle.open_bundle(data, name), station / "bundles").name
