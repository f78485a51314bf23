"""How a role names a file: its path, length and hash, and for a candidate when it was offered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tuf.api.metadata import Metadata, TargetFile, Targets

OFFERED = "offered"  # counts the offers of candidates, so that the oldest are known


def name_target(role: Metadata[Targets], path: str, data: bytes, offered: int | None = None) -> None:
    """Let a role name a file of this content, in the place of what had the same path."""
    target = TargetFile.from_data(path, data, ["sha256"])
    if offered is not None:
        target.unrecognized_fields["custom"] = {OFFERED: offered}
    role.signed.targets[path] = target


def names(role: Metadata[Targets], path: str, data: bytes) -> bool:
    """Return whether a role names this content under this path."""
    target = role.signed.targets.get(path)
    return target is not None and target.hashes["sha256"] == hashlib.sha256(data).hexdigest()


def target_files(role: Metadata[Targets]) -> Iterator[str]:
    """Yield the files of all that a role names."""
    for path in role.signed.targets:
        yield target_file(role, path)


def target_file(role: Metadata[Targets], path: str) -> str:
    """Return the file of what a role names under a path: its hash is in the name, so that no version hides another."""
    [prefixed] = role.signed.targets[path].get_prefixed_paths()
    return f"targets/{prefixed}"


def offer(role: Metadata[Targets], path: str, archive: bytes, most: int) -> None:
    """Let a role name a candidate as its newest, and forget all but the `most` newest ones."""
    named = role.signed.targets
    name_target(role, path, archive, 1 + max((_offered(item) for item in named.values()), default=0))
    for old in sorted(named, key=lambda item: _offered(named[item]))[:-most]:
        del named[old]


def newer_offers(role: Metadata[Targets], path: str) -> int | None:
    """Return how many candidates were offered after this one, None where it is not named."""
    target = role.signed.targets.get(path)
    if target is None:
        return None
    return sum(_offered(other) > _offered(target) for other in role.signed.targets.values())


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return the same bytes for the same content."""
    return json.dumps(content, sort_keys=True).encode()


def _offered(target: TargetFile) -> int:
    return int(target.custom[OFFERED])
