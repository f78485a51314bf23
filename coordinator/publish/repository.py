"""The lab's TUF repository: what stations believe, as files that anybody may carry to them.

- Candidates and orders are signed at once by the coordinator's online key. What people sign waits in a folder beside it
  until enough of them have, and until the online key has named it in a snapshot.
- Many processes may write, one at a time; each reads the files anew when another has changed them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, TargetFile, Targets

from coordinator.publish.books import (
    COMPACT,
    TIMESTAMP_FILE,
    Books,
    RepositoryRefused,
    new_books,
    read_books,
    target_files,
    versioned,
)
from coordinator.publish.keys import Keyring
from coordinator.publish.roles import (
    ASSIGNMENTS,
    CANDIDATES,
    OVERRIDES,
    RELEASED,
    REVOKED,
    REVOKED_LIST,
    ROLES,
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    WEIGHTS,
    candidate_path,
    order_path,
    override_path,
    released_path,
    weights_path,
)
from coordinator.publish.shelf import Shelf

FOLDER, PENDING = "trust", "trust-pending"
MOST_CANDIDATES = 64
GRACE_S = 600.0  # for how long a replaced file may still be asked for
WHEN = ("next-trial", "now")
OFFERED = "offered"  # counts the offers of candidates, so that the oldest are known


@dataclass(frozen=True)
class Released:
    """How far a release, or another thing that people sign, has come."""

    what: str  # sha256 of the bundle
    role: str
    missing: int  # signatures
    published: bool  # stations can see it


class Repository:
    """The repository in one folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Name the folder; `open` and `create` also look into it."""
        self._shelf = Shelf(folder)
        self._pending = Shelf(folder.with_name(f"{folder.name}-pending"))
        self._clock = clock
        self._books: Books | None = None
        self._stamp: object = None

    @classmethod
    def create(cls, folder: Path, ring: Keyring, clock: Callable[[], float] = time.time) -> Repository:
        """Make an empty repository signed by the keys of `ring`.

        Raises:
            RepositoryRefused: there is one, or too few people's private keys are in the ring.
        """
        made = cls(folder, clock)
        with made._shelf.locked():
            if made._shelf.stamp(TIMESTAMP_FILE):
                raise RepositoryRefused(f"there is a repository in {folder} already")
            nothing = _json({"bundles": {}})
            books = new_books(ring, nothing, clock())
            made._shelf.write(_target_file(books.targets[REVOKED], REVOKED_LIST, nothing))
            books.publish(made._shelf, ring.online, clock())
        return made

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float] = time.time) -> Repository:
        """Return the repository in `folder`.

        Raises:
            RepositoryRefused: there is none, or it cannot be read.
        """
        found = cls(folder, clock)
        if not found._shelf.stamp(TIMESTAMP_FILE):
            raise RepositoryRefused(f"there is no repository in {folder}; serve the run once, or make one")
        found.books()
        return found

    def books(self) -> Books:
        """Return the current metadata of all roles, to read.

        Raises:
            RepositoryRefused: it cannot be read.
        """
        stamp = self._shelf.stamp(TIMESTAMP_FILE)
        if self._books is None or stamp != self._stamp:
            self._books, self._stamp = read_books(self._shelf), stamp
        return self._books

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._shelf.folder

    def root(self) -> bytes:
        """Return the newest root, which a new station is given."""
        data = self.file(versioned(ROOT, self.books().root.signed.version))
        assert data is not None
        return data

    def file(self, path: str) -> bytes | None:
        """Return a public file by its path in the repository, None where there is none; nothing outside is reached."""
        found = self._shelf.piece(path)
        return None if found is None else found[1]

    def piece(self, path: str, offset: int, most: int) -> tuple[int, bytes] | None:
        """Return the size of a public file and at most `most` bytes from `offset` on; None where there is none."""
        return self._shelf.piece(path, offset, most)

    def offer_candidate(self, task: str, archive: bytes, ring: Keyring) -> str:
        """Let stations try a bundle in leased trials; return its name. The newest 64 are kept.

        To offer one again makes it one of the newest; nothing is written where it is among the newer half.
        """
        name = hashlib.sha256(archive).hexdigest()
        path = candidate_path(task, name)
        if _rank(self.books().targets[CANDIDATES], path) < MOST_CANDIDATES // 2:
            return name
        with self._changing() as books:
            role = books.targets[CANDIDATES]
            newest = max((_offer(item) for item in role.signed.targets.values()), default=0)
            _name_target(role, path, archive, {OFFERED: newest + 1})
            for old in sorted(role.signed.targets, key=lambda item: _offer(role.signed.targets[item]))[
                :-MOST_CANDIDATES
            ]:
                del role.signed.targets[old]
            self._shelf.write(_target_file(role, path, archive))
            self._sign_online(books, CANDIDATES, ring)
        return name

    def assign(self, edge: str, order_json: bytes, ring: Keyring) -> None:
        """Tell an edge what to run; the same order again writes nothing."""
        self.assign_all({edge: order_json}, ring)

    def assign_all(self, orders: Mapping[str, bytes], ring: Keyring) -> None:
        """Tell several edges at once what to run."""
        with self._changing() as books:
            role = books.targets[ASSIGNMENTS]
            files = {}
            for edge, data in orders.items():
                path = order_path(edge)
                if not _names(role, path, data):
                    _name_target(role, path, data)
                    files.update(_target_file(role, path, data))
            if files:
                self._shelf.write(files)
                self._sign_online(books, ASSIGNMENTS, ring)

    def release(self, task: str, archive: bytes, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let stations run a bundle for good once enough people have signed; with `ring` they see it at once.

        Raises:
            RepositoryRefused: something else of this role waits for signatures.
        """
        name = hashlib.sha256(archive).hexdigest()
        return self._propose(RELEASED, name, {released_path(task, name): archive}, signers, ring)

    def release_weights(self, data: bytes, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let stations fetch a file of weights once enough people have signed."""
        name = hashlib.sha256(data).hexdigest()
        return self._propose(WEIGHTS, name, {weights_path(name): data}, signers, ring)

    def override(self, bundle: str, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let a bundle become active without the evidence of a canary; two people must sign."""
        if OVERRIDES not in self.books().targets:
            raise RepositoryRefused("an override takes two people, and this lab's keys are one person's")
        return self._propose(OVERRIDES, bundle, {override_path(bundle): _json({"bundle": bundle})}, signers, ring)

    def revoke(self, bundle: str, when: str, signer: Signer, ring: Keyring | None = None) -> Released:
        """Forbid a bundle for ever, from the next trial on or now; one person is enough."""
        if when not in WHEN:
            raise RepositoryRefused(f"a bundle is revoked {' or '.join(WHEN)}, not {when!r}")
        with self._changing() as books:
            base = dict(self._waiting(books)).get(REVOKED, books.targets[REVOKED])
            bundles = {**self._revoked(base), bundle: when}
            return self._sign_next(
                books, REVOKED, bundle, base, {REVOKED_LIST: _json({"bundles": bundles})}, [signer], ring
            )

    def revoked(self) -> dict[str, str]:
        """Return every revoked bundle that stations are told of, and when it must stop."""
        return self._revoked(self.books().targets[REVOKED])

    def countersign(self, bundle: str, signer: Signer, ring: Keyring | None = None) -> Released:
        """Add a signature to what waits for it.

        Raises:
            RepositoryRefused: nothing about this bundle waits, or the key may not sign it.
        """
        with self._changing() as books:
            for role, metadata in self._waiting(books):
                if not any(
                    bundle in path for path in metadata.signed.targets.keys() - books.targets[role].signed.targets
                ):
                    continue
                before = books.missing(role, metadata)
                books.add_signatures(role, metadata, [signer])
                if before and books.missing(role, metadata) == before:
                    raise RepositoryRefused(f"key {signer.public_key.keyid[:12]} may not sign {role}, or has signed")
                return self._settle(books, role, bundle, metadata, ring)
        raise RepositoryRefused(f"nothing about bundle {bundle[:12]} waits for a signature")

    def withdraw(self, role: str) -> None:
        """Drop what waits for signatures in a role."""
        with self._shelf.locked():
            (self._pending.folder / f"{role}.json").unlink(missing_ok=True)

    def renew(self, ring: Keyring, now: float | None = None) -> bool:
        """Publish what people have finished signing, and sign anew what is past half of its life; to be called often.

        Roles of people are signed anew only where the ring holds enough of their keys, as in a demo; the root never.
        Returns whether anything was written.
        """
        now_unix_s = self._clock() if now is None else now
        if not self._due(self.books(), ring, now_unix_s) and not self._any_waiting():
            return False
        with self._changing() as books:
            for role, metadata in self._waiting(books):
                if not books.missing(role, metadata):
                    self._adopt(books, role, metadata)
            due = self._due(books, ring, now_unix_s)
            for name in due:
                if name not in (SNAPSHOT, TIMESTAMP):
                    books.sign(name, [ring.online, *ring.humans], now_unix_s)
            if not due and not books.changed:
                return False
            self._publish(books, ring, now_unix_s, snapshot=SNAPSHOT in due)
            keep = {*books.files(), *(path for _, waits in self._waiting(books) for path in target_files(waits))}
            self._shelf.forget(keep, now_unix_s - GRACE_S)
        return True

    def _due(self, books: Books, ring: Keyring, now_unix_s: float) -> list[str]:
        """Return the roles past half of their life that the ring can sign."""
        may = {signer.public_key.keyid for signer in (ring.online, *ring.humans)}
        due = []
        for name in books.names():
            left_s = books.role(name).signed.expires.timestamp() - now_unix_s
            quorum = books.root.signed.roles[ROOT].threshold
            able = sum(key.keyid in may for key in books.keys(name)) >= ROLES[name].threshold(quorum)
            if name != ROOT and able and left_s < ROLES[name].life_s / 2:
                due.append(name)
        return due

    @contextmanager
    def _changing(self) -> Iterator[Books]:
        """Hold the lock and the newest books; if anything goes wrong, they are read anew."""
        with self._shelf.locked():
            try:
                yield self.books()
            except BaseException:
                self._books = None
                raise

    def _publish(self, books: Books, ring: Keyring, now_unix_s: float, snapshot: bool = False) -> None:
        books.publish(self._shelf, ring.online, now_unix_s, snapshot)
        self._stamp = self._shelf.stamp(TIMESTAMP_FILE)

    def _sign_online(self, books: Books, role: str, ring: Keyring) -> None:
        books.sign(role, [ring.online], self._clock())
        self._publish(books, ring, self._clock())

    def _propose(
        self, role: str, what: str, files: Mapping[str, bytes], signers: Iterable[Signer], ring: Keyring | None
    ) -> Released:
        with self._changing() as books:
            if role in dict(self._waiting(books)):
                raise RepositoryRefused(
                    f"something else waits for a signature of {role}; countersign or withdraw it first"
                )
            current = books.targets[role]
            if all(_names(current, path, data) for path, data in files.items()):
                return Released(what, role, 0, True)
            return self._sign_next(books, role, what, current, files, signers, ring)

    def _sign_next(
        self,
        books: Books,
        role: str,
        what: str,
        base: Metadata[Targets],
        files: Mapping[str, bytes],
        signers: Iterable[Signer],
        ring: Keyring | None,
    ) -> Released:
        """Sign the next version of a role, which names what `base` does and `files`."""
        metadata = Metadata[Targets].from_bytes(base.to_bytes(COMPACT))
        for path, data in files.items():
            _name_target(metadata, path, data)
            self._shelf.write(_target_file(metadata, path, data))
        metadata.signed.version = books.targets[role].signed.version + 1
        metadata.signatures.clear()
        books.date(role, metadata.signed, self._clock())
        books.add_signatures(role, metadata, signers)
        return self._settle(books, role, what, metadata, ring)

    def _settle(
        self, books: Books, role: str, what: str, metadata: Metadata[Targets], ring: Keyring | None
    ) -> Released:
        """Publish what has all signatures, where there is an online key to name it; keep it as waiting otherwise."""
        missing = books.missing(role, metadata)
        if missing or ring is None:
            self._pending.write({f"{role}.json": metadata.to_bytes(COMPACT)})
            return Released(what, role, missing, False)
        self._adopt(books, role, metadata)
        self._publish(books, ring, self._clock())
        return Released(what, role, 0, True)

    def _adopt(self, books: Books, role: str, metadata: Metadata[Targets]) -> None:
        books.targets[role] = metadata
        books.changed.add(role)

    def _waiting(self, books: Books) -> list[tuple[str, Metadata[Targets]]]:
        """Return what waits for signatures or for the online key; what has been overtaken is dropped."""
        found = []
        for path in sorted(self._pending.folder.glob("*.json")):
            try:
                metadata = Metadata[Targets].from_bytes(path.read_bytes())
            except (TufError, OSError):
                metadata = None
            current = books.targets.get(path.stem)
            if metadata and current and metadata.signed.version == current.signed.version + 1:
                found.append((path.stem, metadata))
            else:
                path.unlink(missing_ok=True)
        return found

    def _any_waiting(self) -> bool:
        return any(self._pending.folder.glob("*.json"))

    def _revoked(self, role: Metadata[Targets]) -> dict[str, str]:
        [path] = role.signed.targets[REVOKED_LIST].get_prefixed_paths()
        data = self.file(f"targets/{path}")
        if data is None:
            raise RepositoryRefused(f"targets/{path} is missing; restore the repository from a backup")
        return dict(json.loads(data)["bundles"])


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _name_target(role: Metadata[Targets], path: str, data: bytes, custom: Mapping[str, Any] | None = None) -> None:
    target = TargetFile.from_data(path, data, ["sha256"])
    if custom:
        target.unrecognized_fields["custom"] = dict(custom)
    role.signed.targets[path] = target


def _names(role: Metadata[Targets], path: str, data: bytes) -> bool:
    target = role.signed.targets.get(path)
    return target is not None and target.hashes["sha256"] == hashlib.sha256(data).hexdigest()


def _target_file(role: Metadata[Targets], path: str, data: bytes) -> dict[str, bytes]:
    return {f"targets/{prefixed}": data for prefixed in role.signed.targets[path].get_prefixed_paths()}


def _offer(target: TargetFile) -> int:
    return int(target.custom[OFFERED])


def _rank(role: Metadata[Targets], path: str) -> int:
    """Return how many candidates were offered after this one; more than there can be where it is not listed."""
    target = role.signed.targets.get(path)
    if target is None:
        return MOST_CANDIDATES
    return sum(_offer(other) > _offer(target) for other in role.signed.targets.values())
