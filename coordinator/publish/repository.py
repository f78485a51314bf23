"""The lab's TUF repository: what stations believe, as files that anybody may carry to them.

- Candidates and orders are signed at once by the coordinator's online key. What people sign waits in a folder beside
  the repository until enough of them have, and until the online key has named it in a snapshot.
- Several processes may write, one at a time; each reads the files anew where another has changed them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from coordinator.publish.books import (
    COMPACT,
    TIMESTAMP_FILE,
    Books,
    RepositoryRefused,
    new_books,
    read_books,
    versioned,
)
from coordinator.publish.keys import Keyring
from coordinator.publish.naming import name_target, names, newer_offers, offer, target_file, target_files, to_json
from coordinator.publish.pending import Pending
from coordinator.publish.roles import ROLES
from coordinator.publish.shelf import Shelf
from edge.wire.targets import (
    ASSIGNMENTS,
    CANDIDATES,
    NEXT_TRIAL,
    NOW,
    OVERRIDES,
    RELEASED,
    REVOKED,
    REVOKED_LIST,
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    WEIGHTS,
    bundle_path,
    order_path,
    override_path,
    weights_path,
)

__all__ = ["Released", "Repository", "RepositoryRefused"]

MOST_CANDIDATES = 64
CARRIED_S = 7 * 86400.0
GRACE_S = 600.0  # for how long a replaced file may still be asked for


@dataclass(frozen=True)
class Released:
    """How far something that people sign has come."""

    what: str  # sha256 of the bundle or the weights
    role: str
    missing: int  # signatures
    published: bool  # stations can see it


class Repository:
    """The repository in one folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        """Name the folder; `open` and `create` also look into it."""
        self._shelf = Shelf(folder)
        self._pending = Pending(folder.with_name(f"{folder.name}-pending"))
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
            nothing = to_json({"bundles": {}})
            books = new_books(ring, nothing, clock())
            made._shelf.write({target_file(books.targets[REVOKED], REVOKED_LIST): nothing})
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
            raise RepositoryRefused(f"there is no repository in {folder}; start the run that it belongs to")
        found.books()
        return found

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._shelf.folder

    def books(self) -> Books:
        """Return the current metadata of all roles, to read.

        Raises:
            RepositoryRefused: it cannot be read.
        """
        stamp = self._shelf.stamp(TIMESTAMP_FILE)
        if self._books is None or stamp != self._stamp:
            self._books, self._stamp = read_books(self._shelf), stamp
        return self._books

    @contextmanager
    def changing(self) -> Iterator[Books]:
        """Hold the lock and the newest books; if anything goes wrong, they are read anew."""
        with self._shelf.locked():
            try:
                yield self.books()
            except BaseException:
                self._books = None
                raise

    def publish(self, books: Books, online: Signer, now_unix_s: float | None = None, snapshot: bool = False) -> None:
        """Write what was changed in the books that `changing` gave."""
        books.publish(self._shelf, online, self._clock() if now_unix_s is None else now_unix_s, snapshot)
        self._stamp = self._shelf.stamp(TIMESTAMP_FILE)

    def now(self) -> float:
        """Return the time of day by this repository's clock, in seconds."""
        return self._clock()

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
        path = bundle_path(CANDIDATES, task, name)
        newer = newer_offers(self.books().targets[CANDIDATES], path)
        if newer is None or newer >= MOST_CANDIDATES // 2:
            with self.changing() as books:
                role = books.targets[CANDIDATES]
                offer(role, path, archive, MOST_CANDIDATES)
                self._shelf.write({target_file(role, path): archive})
                self._sign_online(books, CANDIDATES, ring)
        return name

    def assign(self, edge: str, order_json: bytes, ring: Keyring) -> None:
        """Tell an edge what to run; the same order again writes nothing."""
        self.assign_all({edge: order_json}, ring)

    def assign_all(self, orders: Mapping[str, bytes], ring: Keyring) -> None:
        """Tell several edges at once what to run."""
        with self.changing() as books:
            role = books.targets[ASSIGNMENTS]
            new = {order_path(edge): data for edge, data in orders.items()}
            new = {path: data for path, data in new.items() if not names(role, path, data)}
            for path, data in new.items():
                name_target(role, path, data)
                self._shelf.write({target_file(role, path): data})
            if new:
                self._sign_online(books, ASSIGNMENTS, ring)

    def order(self, edge: str) -> bytes | None:
        """Return what an edge is told to run, None where it was never told anything."""
        role, path = self.books().targets[ASSIGNMENTS], order_path(edge)
        return self.file(target_file(role, path)) if path in role.signed.targets else None

    def release(self, task: str, archive: bytes, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let stations run a bundle for good once enough people have signed.

        With `ring` they see it at once; without, once the coordinator has called `renew`.

        Raises:
            RepositoryRefused: something else of this role waits for signatures.
        """
        name = hashlib.sha256(archive).hexdigest()
        return self._propose(RELEASED, name, {bundle_path(RELEASED, task, name): archive}, signers, ring)

    def release_weights(self, data: bytes, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let stations fetch a file of weights once enough people have signed; otherwise as `release`."""
        name = hashlib.sha256(data).hexdigest()
        return self._propose(WEIGHTS, name, {weights_path(name): data}, signers, ring)

    def override(self, bundle: str, signers: Iterable[Signer], ring: Keyring | None = None) -> Released:
        """Let a bundle become active without the evidence of a canary; two people must sign. Otherwise as `release`."""
        if OVERRIDES not in self.books().targets:
            raise RepositoryRefused("an override takes two people, and the keys of this lab are one person's")
        return self._propose(OVERRIDES, bundle, {override_path(bundle): to_json({"bundle": bundle})}, signers, ring)

    def revoke(self, bundle: str, when: str, signer: Signer, ring: Keyring | None = None) -> Released:
        """Forbid a bundle for ever, by its next trial or now; one person is enough."""
        if when not in (NEXT_TRIAL, NOW):
            raise RepositoryRefused(f"a bundle is revoked by its {NEXT_TRIAL} or {NOW}, not {when!r:.40}")
        with self.changing() as books:
            # Upon what waits for the online key, as one person's word is enough for that too.
            base = self._pending.read(books).get(REVOKED, books.targets[REVOKED])
            listed = to_json({"bundles": {**self._read_revoked(base), bundle: when}})
            return self._sign_next(books, REVOKED, bundle, base, {REVOKED_LIST: listed}, [signer], ring)

    def revoked(self) -> dict[str, str]:
        """Return every revoked bundle that stations are told of, and when it must stop."""
        return self._read_revoked(self.books().targets[REVOKED])

    def waiting(self) -> dict[str, list[str]]:
        """Return the paths of what waits for people or for the online key, by role."""
        with self.changing() as books:
            pending = self._pending.read(books)
            return {role: sorted(_new_paths(books, role, metadata)) for role, metadata in pending.items()}

    def countersign(self, bundle: str, signer: Signer, ring: Keyring | None = None) -> Released:
        """Add a signature to what waits for it.

        Raises:
            RepositoryRefused: nothing about this bundle waits, or the key may not sign it or has.
        """
        with self.changing() as books:
            for role, metadata in self._pending.read(books).items():
                if any(bundle in path for path in _new_paths(books, role, metadata)):
                    before = books.missing(role, metadata)
                    books.add_signatures(role, metadata, [signer])
                    if before and books.missing(role, metadata) == before:
                        raise RepositoryRefused(f"key {signer.public_key.keyid[:12]} has signed this, or may not")
                    return self._settle(books, role, bundle, metadata, ring)
        raise RepositoryRefused(f"nothing about bundle {bundle[:12]} waits for a signature")

    def withdraw(self, role: str) -> None:
        """Drop what waits for signatures in a role."""
        with self._shelf.locked():
            self._pending.drop(role)

    def withdraw_of(self, bundle: str) -> str:
        """Drop what waits for signatures of a bundle; return the role that it waited in.

        Raises:
            RepositoryRefused: nothing about it waits.
        """
        with self.changing() as books:
            for role, metadata in self._pending.read(books).items():
                if any(bundle in path for path in _new_paths(books, role, metadata)):
                    self._pending.drop(role)
                    return role
        raise RepositoryRefused(f"nothing about bundle {bundle[:12]} waits for a signature")

    def renew(self, ring: Keyring, now: float | None = None) -> bool:
        """Publish what people have finished signing, and sign anew what is past half of its life; to be called often.

        Roles of people are signed anew only where the ring holds enough of their keys, as in a demo; the root never.
        Returns whether anything was written.
        """
        now_unix_s = self._clock() if now is None else now
        if not self._due(self.books(), ring, now_unix_s) and not self._pending.any():
            return False
        with self.changing() as books:
            for role, metadata in self._pending.read(books).items():
                if not books.missing(role, metadata):
                    books.adopt(role, metadata)
            due = self._due(books, ring, now_unix_s)
            for name in due:
                if name not in (SNAPSHOT, TIMESTAMP):
                    books.sign(name, [ring.online, *ring.humans], now_unix_s)
            if not due and not books.changed:
                return False
            self.publish(books, ring.online, now_unix_s, snapshot=SNAPSHOT in due)
            waiting = self._pending.read(books).values()
            keep = {*books.files(), *(path for metadata in waiting for path in target_files(metadata))}
            self._shelf.forget(keep, now_unix_s - GRACE_S)
        return True

    def carry(self, into: Path, ring: Keyring, life_s: float = CARRIED_S) -> int:
        """Copy the repository to a folder, a USB stick perhaps, where it holds for `life_s`; return the bytes.

        What is served has to be signed anew each hour. What is carried holds longer, so it is a version of its own, and
        what is served from then on is newer: a station may go from one to the other, and not back.

        Raises:
            OSError: it cannot be written.
        """
        stick = Shelf(into)
        with self.changing() as books:
            copied = 0
            for path in books.files():
                if path != TIMESTAMP_FILE and (data := self.file(path)) is not None:
                    stick.write({path: data})
                    copied += len(data)
            books.publish(stick, ring.online, self._clock(), snapshot=True, life_s=life_s)
            self.publish(books, ring.online, snapshot=True)
        return copied

    def _due(self, books: Books, ring: Keyring, now_unix_s: float) -> list[str]:
        """Return the roles past half of their life that the ring can sign."""
        may = {signer.public_key.keyid for signer in (ring.online, *ring.humans)}
        return [
            name
            for name in books.names()
            if name != ROOT
            and books.role(name).signed.expires.timestamp() - now_unix_s < ROLES[name].life_s / 2
            and sum(key.keyid in may for key in books.keys(name)) >= books.threshold(name)
        ]

    def _sign_online(self, books: Books, role: str, ring: Keyring) -> None:
        books.sign(role, [ring.online], self._clock())
        self.publish(books, ring.online)

    def _propose(
        self, role: str, what: str, files: Mapping[str, bytes], signers: Iterable[Signer], ring: Keyring | None
    ) -> Released:
        with self.changing() as books:
            base = books.targets[role]
            if all(names(base, path, data) for path, data in files.items()):
                return Released(what, role, 0, True)
            if waits := self._pending.read(books).get(role):
                if books.missing(role, waits):
                    raise RepositoryRefused(
                        f"something waits for a signature of {role}; countersign or withdraw it first"
                    )
                raise RepositoryRefused(
                    f"something of {role} waits for the coordinator to name it; start it, and try again"
                )
            return self._sign_next(books, role, what, base, files, signers, ring)

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
            name_target(metadata, path, data)
            self._shelf.write({target_file(metadata, path): data})
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
        if missing == books.threshold(role):
            raise RepositoryRefused(f"none of these keys may sign {role}; see: enpire-coord keys show")
        if missing or ring is None:
            self._pending.put(role, metadata)
            return Released(what, role, missing, False)
        books.adopt(role, metadata)
        self.publish(books, ring.online)
        return Released(what, role, 0, True)

    def _read_revoked(self, role: Metadata[Targets]) -> dict[str, str]:
        path = target_file(role, REVOKED_LIST)
        data = self.file(path)
        if data is None:
            raise RepositoryRefused(f"{path} is missing; restore the repository from a backup")
        return dict(json.loads(data)["bundles"])


def _new_paths(books: Books, role: str, metadata: Metadata[Targets]) -> set[str]:
    return {path for path in metadata.signed.targets if path not in books.targets[role].signed.targets}
