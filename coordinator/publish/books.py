"""The metadata of a TUF repository in memory: read from its files, changed, signed and written back.

Order of writing: what is named first, then the roles that name it, the snapshot, and the timestamp last of all. A cut
leaves files that nothing points to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from coordinator.errors import CoordinatorError
from coordinator.publish.keys import Keyring
from coordinator.publish.naming import target_files
from coordinator.publish.roles import DELEGATED, PAIR, ROLES, Who
from coordinator.publish.shelf import Shelf
from edge.wire.targets import REVOKED, REVOKED_LIST, ROOT, SIGNED_AT, SNAPSHOT, TARGETS, TIMESTAMP, TOP_LEVEL

COMPACT = JSONSerializer(compact=True)
TIMESTAMP_FILE = f"metadata/{TIMESTAMP}.json"


class RepositoryRefused(CoordinatorError):
    """The repository cannot be used or changed as asked; the message says what to do."""


@dataclass
class Books:
    """Every role's current metadata."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: dict[str, Metadata[Targets]]  # by role: "targets" and those that it delegates to
    changed: set[str] = field(default_factory=set)  # roles signed since they were read, but for the last two

    def role(self, name: str) -> Metadata[Any]:
        """Return the metadata of a role."""
        top: dict[str, Metadata[Any]] = {ROOT: self.root, TIMESTAMP: self.timestamp, SNAPSHOT: self.snapshot}
        return top[name] if name in top else self.targets[name]

    def names(self) -> tuple[str, ...]:
        """Return every role that there is."""
        return (*TOP_LEVEL, *(name for name in self.targets if name != TARGETS))

    def keys(self, name: str) -> list[Key]:
        """Return the keys that may sign a role."""
        delegator = self.delegator(name)
        return [delegator.get_key(keyid) for keyid in delegator.get_delegated_role(name).keyids]

    def people(self) -> list[Key]:
        """Return the keys of people, which are those of the root."""
        return self.keys(ROOT)

    def threshold(self, name: str) -> int:
        """Return how many signatures a role needs."""
        return self.delegator(name).get_delegated_role(name).threshold

    def missing(self, name: str, metadata: Metadata[Any]) -> int:
        """Return how many signatures that metadata lacks to count as the role's."""
        return self.delegator(name).get_verification_result(name, metadata.signed_bytes, metadata.signatures).missing

    def sign(
        self,
        name: str,
        signers: Iterable[Signer],
        now_unix_s: float,
        first: bool = False,
        life_s: float | None = None,
    ) -> None:
        """Make the next version of a role, or the first, signed by those of `signers` who may.

        Raises:
            RepositoryRefused: too few of them may.
        """
        metadata = self.role(name)
        self.date(name, metadata.signed, now_unix_s, life_s)
        metadata.signed.version += not first
        metadata.signatures.clear()
        self.add_signatures(name, metadata, signers)
        if lacking := self.missing(name, metadata):
            raise RepositoryRefused(f"{lacking} more signatures are needed for {name}: {ROLES[name].who}; add --signer")
        if name not in (SNAPSHOT, TIMESTAMP):
            self.changed.add(name)

    def add_signatures(self, name: str, metadata: Metadata[Any], signers: Iterable[Signer]) -> None:
        """Sign with those of `signers` whose keys may sign the role."""
        may = {key.keyid for key in self.keys(name)}
        for signer in signers:
            if signer.public_key.keyid in may:
                metadata.sign(signer, append=True)

    def adopt(self, name: str, metadata: Metadata[Targets]) -> None:
        """Take a next version that was signed elsewhere."""
        self.targets[name] = metadata
        self.changed.add(name)

    def date(self, name: str, signed: Signed, now_unix_s: float, life_s: float | None = None) -> None:
        """Note when metadata was signed and until when it holds, which is what the role's table says by default."""
        until_unix_s = now_unix_s + (ROLES[name].life_s if life_s is None else life_s)
        signed.expires = datetime.fromtimestamp(int(until_unix_s), UTC)
        signed.unrecognized_fields[SIGNED_AT] = int(now_unix_s)

    def publish(
        self, shelf: Shelf, online: Signer, now_unix_s: float, snapshot: bool = False, life_s: float | None = None
    ) -> None:
        """Write what was changed and what names it: a snapshot (where nothing was, only if asked) and a timestamp.

        `life_s` is how long these two hold, if not as usual.
        """
        files = {
            versioned(name, self.role(name).signed.version): self.role(name).to_bytes(COMPACT) for name in self.changed
        }
        for name in self.changed - {ROOT}:
            version = self.role(name).signed.version
            self.snapshot.signed.meta[f"{name}.json"] = _meta_file(version, files[versioned(name, version)])
        if files or snapshot:
            self.sign(SNAPSHOT, [online], now_unix_s, life_s=life_s)
            data = self.snapshot.to_bytes(COMPACT)
            files[versioned(SNAPSHOT, self.snapshot.signed.version)] = data
            self.timestamp.signed.snapshot_meta = _meta_file(self.snapshot.signed.version, data)
        self.sign(TIMESTAMP, [online], now_unix_s, life_s=life_s)
        # A new root may name another online key, so it comes with the timestamp that this one has signed.
        last = {path: files.pop(path) for path in [versioned(ROOT, self.root.signed.version)] if path in files}
        shelf.write(files)
        shelf.write({**last, TIMESTAMP_FILE: self.timestamp.to_bytes(COMPACT)})
        self.changed.clear()

    def files(self) -> Iterator[str]:
        """Yield every file that the newest timestamp leads to, and all roots."""
        yield TIMESTAMP_FILE
        yield from (versioned(ROOT, number) for number in range(1, self.root.signed.version + 1))
        yield versioned(SNAPSHOT, self.snapshot.signed.version)
        for name, metadata in self.targets.items():
            yield versioned(name, metadata.signed.version)
            yield from target_files(metadata)

    def delegator(self, name: str) -> Root | Targets:
        """Return what says who may sign a role."""
        return self.root.signed if name in TOP_LEVEL else self.targets[TARGETS].signed


def versioned(name: str, version: int) -> str:
    """Return the file of one version of a role."""
    return f"metadata/{version}.{name}.json"


def read_books(shelf: Shelf) -> Books:
    """Return the metadata that the newest timestamp leads to.

    Raises:
        RepositoryRefused: a file is missing or damaged.
    """
    try:
        timestamp = Metadata[Timestamp].from_bytes(_read(shelf, TIMESTAMP_FILE))
        snapshot = Metadata[Snapshot].from_bytes(
            _read(shelf, versioned(SNAPSHOT, timestamp.signed.snapshot_meta.version))
        )
        targets = {
            name.removesuffix(".json"): Metadata[Targets].from_bytes(
                _read(shelf, versioned(name.removesuffix(".json"), meta.version))
            )
            for name, meta in snapshot.signed.meta.items()
        }
        number = 1
        while shelf.stamp(versioned(ROOT, number + 1)):
            number += 1
        root = Metadata[Root].from_bytes(_read(shelf, versioned(ROOT, number)))
    except (TufError, OSError) as error:
        raise RepositoryRefused(f"the repository in {shelf.folder} cannot be read: {error}") from error
    return Books(root, timestamp, snapshot, targets)


def new_books(ring: Keyring, revoked_list: bytes, now_unix_s: float) -> Books:
    """Return the first metadata of a lab, signed.

    Raises:
        RepositoryRefused: too few people's private keys are in the ring.
    """
    root, delegations = Root(consistent_snapshot=True), Delegations({}, {})
    targets = Targets(delegations=delegations)
    for key in ring.people.values():
        for name in (ROOT, TARGETS):
            root.add_key(key, name)
    root.roles[ROOT].threshold = root.roles[TARGETS].threshold = ring.threshold
    for name in (SNAPSHOT, TIMESTAMP):
        root.add_key(ring.online.public_key, name)
    for role in DELEGATED:
        signs = list(ring.people.values()) if role.who != Who.ONLINE else [ring.online.public_key]
        if role.who == Who.TWO and len(signs) < PAIR:
            continue  # a lab of one person has no second to ask
        _delegate(targets, role.name, signs, role.threshold(ring.threshold), role.paths)
    named = {REVOKED: {REVOKED_LIST: TargetFile.from_data(REVOKED_LIST, revoked_list)}}
    roles = {name: Metadata(Targets(targets=named.get(name))) for name in delegations.roles or {}}
    books = Books(
        Metadata(root), Metadata(Timestamp()), Metadata(Snapshot(meta={})), {TARGETS: Metadata(targets), **roles}
    )
    for name in books.names():
        if name not in (SNAPSHOT, TIMESTAMP):
            books.sign(name, [ring.online, *ring.humans], now_unix_s, first=True)
    return books


def _delegate(targets: Targets, name: str, keys: Sequence[Key], threshold: int, paths: Sequence[str]) -> None:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    # Terminating: what this role does not name, no later role may name under the same path.
    targets.delegations.roles[name] = DelegatedRole(name, [], threshold, True, list(paths))
    for key in keys:
        targets.add_key(key, name)


def _meta_file(version: int, data: bytes) -> MetaFile:
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def _read(shelf: Shelf, path: str) -> bytes:
    found = shelf.piece(path)
    if found is None:
        raise FileNotFoundError(f"{path} is missing")
    return found[1]
