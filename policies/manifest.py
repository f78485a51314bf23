"""What a bundle says about itself: its manifest, which follows from its files and three things more.

- Those three are the parameters, the parent and the provenance; all else is read from the files and from policy.toml.
- A manifest that was read is made anew from the files and must come out equal, byte for byte: what it claims is never
  used, and a number, a key or a blank that is written in another way is refused.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from policies import contents, space
from policies.archive import BundleMalformed
from policies.envelope import Envelope
from policies.interface import Params
from policies.space import Resources, Weight

FORMAT = 2
MANIFEST = "manifest.json"
PROVENANCE = ("commit", "hypothesis", "researcher")
MAX_CHARS = 1000  # of a hypothesis, a name or a commit


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
    _check_said(params, provenance, parent)
    try:
        policy = space.parse_space(files[space.FILE])
        values = policy.complete(params)
    except space.SpaceError as error:
        raise BundleMalformed(str(error)) from error
    if policy.entry not in files or not policy.entry.endswith(".py"):
        raise BundleMalformed(f"the entry {policy.entry!r:.80} is not among its Python files")
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
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise BundleMalformed(f"{MANIFEST} is not of format {FORMAT}, the one that this version reads")
    names = {item.name for item in fields(Manifest)}
    if set(raw) != names:
        raise BundleMalformed(f"{MANIFEST} does not hold exactly {', '.join(sorted(names))}")
    manifest = describe(files, raw["params"], raw["provenance"], raw["parent"])
    written = to_bytes(manifest)
    wrong = sorted(name for name, value in json.loads(written).items() if raw[name] != value)
    if wrong:
        raise BundleMalformed(f"{MANIFEST} does not agree with the files about {', '.join(wrong)}")
    if data != written:
        raise BundleMalformed(f"{MANIFEST} is not in its canonical form; build it with this version")
    return manifest


def _check_said(params: object, provenance: object, parent: object) -> None:
    if not (isinstance(params, Mapping) and all(isinstance(value, bool | int | float) for value in params.values())):
        raise BundleMalformed("params is not a map of numbers, true and false")
    if not (isinstance(provenance, Mapping) and sorted(provenance) == sorted(PROVENANCE)):
        raise BundleMalformed(f"provenance does not hold exactly {', '.join(PROVENANCE)}")
    for name, text in provenance.items():
        if not (isinstance(text, str) and len(text) <= MAX_CHARS and not any(map(_is_control, text))):
            raise BundleMalformed(f"provenance.{name} is not one line of at most {MAX_CHARS} characters")
    if not (parent is None or (isinstance(parent, str) and space.SHA256.fullmatch(parent))):
        raise BundleMalformed("parent is neither null nor the name of a bundle")


def _is_control(character: str) -> bool:
    """Return whether a terminal or a page would not show the character but obey it, or could not write it at all."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
