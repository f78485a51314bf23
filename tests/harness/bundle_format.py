"""The format of bundles once more, written apart from the code under test, so that each attack is one small change."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from typing import Any

import zstandard

FILES = {
    "policy.py": b"def run(robot, params):\n    pass\n",
    "policy.toml": b"""
name = "slide"
task = "push_t"
api = 1
entry = "policy.py"

[parameters.speed_m_s]
default = 0.1
low = 0.05
high = 0.4
scale = "log"
about = "how fast"
helps = []

[ideas.ease]
default = false
claim = "Easing helps."
helps = []
""",
}
DEFAULTS = {"speed_m_s": 0.1, "ease": False}
PROVENANCE = {"hypothesis": "Slower is surer.", "researcher": "hand", "commit": "c0ffee"}
NO_LIMIT = {
    "lower_rad": None,
    "upper_rad": None,
    "velocity_rad_s": None,
    "acceleration_rad_s2": None,
    "torque_nm": None,
    "box_lower_m": None,
    "box_upper_m": None,
    "trial_s": None,
}

Member = tuple[tarfile.TarInfo, bytes]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest that `build` gives these files."""
    return {
        "format": 2,
        "policy": "slide",
        "task": "push_t",
        "api": 1,
        "entry": "policy.py",
        "params": DEFAULTS,
        "envelope": NO_LIMIT,
        "resources": {"memory_mb": 512, "longest_s": 300.0},
        "weights": {},
        "parent": None,
        "provenance": PROVENANCE,
        "files": {name: sha256(data) for name, data in files.items()},
    }


def said(**changes: object) -> dict[str, Any]:
    """Return the manifest of FILES with `changes` made to it."""
    return manifest_of(FILES) | changes


def as_json(manifest: object) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()


def member(name: str, data: bytes, **fields: object) -> Member:
    """Return a file as `build` puts it into a tar, with `fields` of its header changed."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(members: Iterable[Member], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Return a tar of the members in the order given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members_of(files: Mapping[str, bytes], manifest: bytes | None = None) -> list[Member]:
    """Return the members of a bundle of `files`, by name; the manifest is theirs unless another is given."""
    everything = {**files, "manifest.json": as_json(manifest_of(files)) if manifest is None else manifest}
    return [member(name, everything[name]) for name in sorted(everything)]


def with_member(name: str, data: bytes = b"", **fields: object) -> bytes:
    """Return a tar with one more member, which its manifest lists like any other file."""
    everything = FILES | {name: data}
    kept = [item for item in members_of(everything) if item[0].name != name]
    return tar_of(sorted([*kept, member(name, data, **fields)], key=lambda item: item[0].name))


def compressed(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(tar)


def bundle_of(files: Mapping[str, bytes], manifest: bytes | None = None) -> bytes:
    return compressed(tar_of(members_of(files, manifest)))


TAR = tar_of(members_of(FILES))
GOOD = compressed(TAR)
