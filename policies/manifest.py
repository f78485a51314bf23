"""What a bundle says about itself: its manifest, which follows from its files and three things more.

- Those three are the parameters, the parent and the provenance; all else is read from the files and from policy.toml.
- A manifest that was read is made anew from the files and must come out equal, byte for byte: what it claims is never
  used, and a number, a key or a blank that is written in another way is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from policies import contents, space
from policies.archive import BundleMalformed
from policies.envelope import Envelope
from policies.interface import Params
from policies.space import Resources, Weight

FORMAT = 2
MANIFEST = "manifest.json"
PROVENANCE = ("commit", "hypothesis", "researcher")
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself."""

    format: int
    policy: str
    task: str
    api: int
    entry: str
    params: Params  # every parameter and idea of the policy with its value
    envelope: Envelope  # limits that can only narrow
    resources: Resources  # what its process may use, at most what the edge gives
    weights: Mapping[str, Weight]  # files beside the bundle
    parent: str | None  # the bundle that this one was made from
    provenance: Mapping[str, str]  # exactly PROVENANCE; not used by the edge
    files: Mapping[str, str]  # name -> sha256, hex


def describe(files: Mapping[str, bytes], params: Params, provenance: Mapping[str, str], parent: str | None) -> Manifest:
    """Return the manifest of a policy's files with `params`, the rest at their defaults.

    Raises:
        BundleMalformed: files, parameters or words that no bundle may hold.
    """
    contents.check(files)
    if space.FILE not in files:
        raise BundleMalformed(f"{space.FILE} is not among its files")
    _check_words(provenance, parent)
    if not isinstance(params, Mapping):
        raise BundleMalformed("params is not a map")
    try:
        policy = space.parse_space(files[space.FILE])
        values = policy.complete(params)
    except space.SpaceError as error:
        raise BundleMalformed(" ".join(str(error).split())) from error
    if policy.entry not in files:
        raise BundleMalformed(f"the entry {policy.entry!r:.80} is not among its files")
    return Manifest(
        format=FORMAT,
        policy=policy.name,
        task=policy.task,
        api=policy.api,
        entry=policy.entry,
        params=values,
        envelope=policy.envelope,
        resources=policy.resources,
        weights=policy.weights,
        parent=parent,
        provenance=dict(provenance),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )


def to_bytes(manifest: Manifest) -> bytes:
    """Return the one way in which a manifest is written."""
    return json.dumps(asdict(manifest), sort_keys=True, indent=1).encode()


def read(data: bytes, files: Mapping[str, bytes]) -> Manifest:
    """Return the manifest of `files`, which must be written in `data`.

    Raises:
        BundleMalformed: not a manifest of this format, or not that of these files.
    """
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleMalformed(f"{MANIFEST} is missing or not JSON") from error
    known = {item.name for item in fields(Manifest)}
    if not isinstance(raw, dict):
        raise BundleMalformed(f"{MANIFEST} is not a map")
    if raw.get("format") != FORMAT:
        raise BundleMalformed(f"bundle format {raw.get('format')!r:.20}; this version reads {FORMAT}")
    if set(raw) != known:
        raise BundleMalformed(f"{MANIFEST} does not hold exactly {', '.join(sorted(known))}")
    manifest = describe(files, raw["params"], raw["provenance"], raw["parent"])
    written = to_bytes(manifest)
    said: dict[str, Any] = json.loads(written)
    for name in sorted(known):
        if raw[name] != said[name]:
            raise BundleMalformed(f"{MANIFEST} does not agree with the files about {name}")
    if data != written:
        raise BundleMalformed(f"{MANIFEST} is not in its canonical form; build it with this version")
    return manifest


def _check_words(provenance: object, parent: object) -> None:
    if not (isinstance(provenance, Mapping) and sorted(provenance) == sorted(PROVENANCE)):
        raise BundleMalformed(f"provenance does not hold exactly {', '.join(PROVENANCE)}")
    for name in PROVENANCE:
        if not isinstance(provenance[name], str):
            raise BundleMalformed(f"provenance.{name} is not text")
    if not (parent is None or (isinstance(parent, str) and SHA256.fullmatch(parent))):
        raise BundleMalformed("parent is neither null nor the name of a bundle")
