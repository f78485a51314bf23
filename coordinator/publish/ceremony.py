"""What people do with the lab's keys: replace one, drop one, sign anew what grows old, and look.

- A new root is signed by enough people of the old one and of the new one, so that stations follow from one to the next.
- Whatever a key could sign is signed anew once the key is gone; stations then forget how far the old key had counted.
- A new private key is on the disk before anything names it, and takes its final name afterwards. After a cut in
  between, the same command goes on with the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.metadata import Metadata, Root

from coordinator.publish.books import Books, RepositoryRefused
from coordinator.publish.keys import (
    ONLINE,
    RING,
    Ask,
    Keyring,
    make,
    read_file,
    read_public,
    read_ring,
    signer_of,
    write_new,
    write_public,
    write_ring,
)
from coordinator.publish.publisher import FOLDER
from coordinator.publish.repository import Repository
from coordinator.publish.roles import ROLES, Who
from edge.wire.targets import ROOT, SIGNED_AT, SNAPSHOT, TARGETS, TIMESTAMP

NEW = ".new"
Plan = dict[str, tuple[int, int]]  # role -> version before and after


class _Rehearsed(Exception):
    """Leaves the repository as it was."""


@dataclass(frozen=True)
class Ceremony:
    """A run's keys and repository, with the people who take part."""

    repository: Repository
    ring: Keyring
    signers: tuple[Signer, ...]
    dry_run: bool = False

    @classmethod
    def of(cls, run: Path, keys: Path, signers: Sequence[str], ask: Ask, dry_run: bool) -> Ceremony:
        """Return the ceremony of `signers` (key files or URIs) on the run in a folder.

        Raises:
            KeyRefused, RepositoryRefused: a key or the repository cannot be used.
        """
        repository = Repository.open(run)
        people = repository.books().people()
        return cls(
            repository, Keyring.open(keys, ask), tuple(signer_of(item, people, ask) for item in signers), dry_run
        )

    def rotate_online(self) -> Plan:
        """Replace the coordinator's key."""
        return self._rotate(self.ring.folder / ONLINE, self.ring.online.public_key.keyid, None)

    def rotate_person(self, name: str, public: Path | None, passphrase: str | None) -> Plan:
        """Replace a person's key by the one whose public half is in `public`, or by a new one in the folder of keys.

        Raises:
            RepositoryRefused: nobody has that name, or too few have signed.
        """
        if name not in self.ring.people:
            raise RepositoryRefused(f"no person's key is named {name!r}; these are: {', '.join(self.ring.people)}")
        old = self.ring.people[name].keyid
        if public is None:
            return self._rotate(self.ring.folder / f"{name}.pem", old, name, passphrase)
        key = read_public(public)
        plan = self._replace(old, key, self.ring.online)
        self._rewrite_ring({**self.ring.people, name: key})
        return plan

    def drop(self, keyid: str) -> Plan:
        """Take a person's key out of every role.

        Raises:
            RepositoryRefused: no such key, or too few would be left.
        """
        books = self.repository.books()
        # In any role: where an earlier try was cut, the root may be the only one to have forgotten it.
        found = {key.keyid for name in books.names() for key in books.keys(name) if key.keyid.startswith(keyid)}
        if len(found) != 1:
            raise RepositoryRefused(f"{len(found)} keys begin with {keyid!r:.80}; see: enpire-coord keys show --json")
        [whole] = found
        plan = self._reform(lambda books: _drop(books, whole), self.ring.online)
        self._rewrite_ring({name: key for name, key in self.ring.people.items() if key.keyid != whole})
        return plan

    def renew(self, everything: bool) -> Plan:
        """Sign anew what people sign, past half of its life or all of it.

        Raises:
            RepositoryRefused: too few have signed.
        """
        now_unix_s = self.repository.now()

        def edit(books: Books) -> Iterable[str]:
            for name in books.names():
                left_s = books.role(name).signed.expires.timestamp() - now_unix_s
                if ROLES[name].who != Who.ONLINE and (everything or left_s < ROLES[name].life_s / 2):
                    yield name

        return self._reform(lambda books: set(edit(books)), self.ring.online)

    def _rotate(self, path: Path, old: str, name: str | None, passphrase: str | None = None) -> Plan:
        unfinished = path.with_name(path.name + NEW)
        if unfinished.exists():
            signer = read_file(unfinished, lambda _: passphrase or "")
        else:
            signer = CryptoSigner.generate_ed25519()
            if not self.dry_run:
                write_new(unfinished, signer, passphrase)
        plan = self._replace(old, signer.public_key, signer if name is None else self.ring.online)
        if not self.dry_run:
            self._finish(unfinished, path, name, signer.public_key)
        return plan

    def _finish(self, unfinished: Path, path: Path, name: str | None, key: Key) -> None:
        unfinished.replace(path)
        if name is not None:
            write_public(path.with_suffix(".pub.pem"), key)
        self._rewrite_ring(self.ring.people if name is None else {**self.ring.people, name: key})

    def _rewrite_ring(self, people: Mapping[str, Key]) -> None:
        if not self.dry_run:
            write_ring(self.ring.folder, self.ring.threshold, people)

    def _replace(self, old: str, new: Key, online: Signer) -> Plan:
        return self._reform(lambda books: _replace(books, old, new), online)

    def _reform(self, edit: Callable[[Books], set[str]], online: Signer) -> Plan:
        """Sign anew the roles that `edit` names, after it has changed who may sign."""
        plan: Plan = {}
        try:
            with self.repository.changing() as books:
                before = {name: books.role(name).signed.version for name in books.names()}
                old_root = Metadata[Root].from_bytes(books.root.to_bytes()).signed
                roles = edit(books)
                now_unix_s = self.repository.now()
                if ROOT in roles:
                    self._sign_root(books, old_root, now_unix_s)
                for name in (TARGETS, *sorted(roles - {ROOT, TARGETS, SNAPSHOT, TIMESTAMP})):
                    if name in roles:
                        books.sign(name, [online, *self.signers], now_unix_s)
                after = {name: books.role(name).signed.version for name in books.names()}
                plan = {name: (before[name], after[name]) for name in after if after[name] != before[name]}
                if self.dry_run or not plan:
                    raise _Rehearsed
                self.repository.publish(books, online, now_unix_s, snapshot=True)
        except _Rehearsed:
            pass
        return plan

    def _sign_root(self, books: Books, old: Root, now_unix_s: float) -> None:
        metadata = books.root
        books.date(ROOT, metadata.signed, now_unix_s)
        metadata.signed.version += 1
        metadata.signatures.clear()
        for signer in self.signers:
            metadata.sign(signer, append=True)
        result = metadata.signed.get_root_verification_result(old, metadata.signed_bytes, metadata.signatures)
        if lacking := max(result.first.missing, result.second.missing):
            raise RepositoryRefused(f"{lacking} more signatures are needed for a new root; add --signer")
        books.changed.add(ROOT)


def make_keys(
    folder: Path, humans: int, threshold: int, passphrase: str | None, hardware: Mapping[str, Path]
) -> dict[str, str]:
    """Make the keys of a lab, see `keys.make`; return the key ids by name."""
    make(folder, humans, threshold, passphrase, hardware)
    ring = Keyring.open(folder)
    return {"online": ring.online.public_key.keyid, **{name: key.keyid for name, key in ring.people.items()}}


def look(folder: Path, keys: Path, now_unix_s: float) -> dict[str, Any]:
    """Return the keys' names and ids, every role, and what waits, of a run or of a folder of keys.

    Raises:
        KeyRefused, RepositoryRefused: neither is there.
    """
    if (folder / RING).exists():
        _, people = read_ring(folder)
        return {"people": _ids(people), "roles": [], "waiting": {}}
    repository = Repository.open(folder / FOLDER)
    books = repository.books()
    people = read_ring(keys)[1] if (keys / RING).exists() else {key.keyid[:12]: key for key in books.people()}
    names = {key.keyid: name for name, key in people.items()}
    names.update({key.keyid: "online" for key in books.keys(TIMESTAMP)})
    return {
        "people": _ids(people),
        "roles": describe(books, names, now_unix_s),
        "waiting": repository.waiting(),
    }


def describe(books: Books, names: Mapping[str, str], now_unix_s: float) -> list[dict[str, Any]]:
    """Return one map a role: who signs it, how many must, its version, when it was signed and for how long it holds.

    `names` gives people's names by key id.
    """
    return [
        {
            "role": name,
            "keys": [names.get(key.keyid, key.keyid[:12]) for key in books.keys(name)],
            "keyids": [key.keyid for key in books.keys(name)],
            "threshold": books.threshold(name),
            "version": books.role(name).signed.version,
            "signed_unix_s": books.role(name).signed.unrecognized_fields[SIGNED_AT],
            "expires_unix_s": books.role(name).signed.expires.timestamp(),
            "left_s": books.role(name).signed.expires.timestamp() - now_unix_s,
        }
        for name in books.names()
    ]


def _ids(people: Mapping[str, Key]) -> dict[str, str]:
    return {name: key.keyid for name, key in people.items()}


def _roles_of(books: Books, keyid: str) -> set[str]:
    return {name for name in books.names() if keyid in (key.keyid for key in books.keys(name))}


def _replace(books: Books, old: str, new: Key) -> set[str]:
    roles = _roles_of(books, old)
    for name in roles:
        books.delegator(name).add_key(new, name)
        books.delegator(name).revoke_key(old, name)
    return roles | {ROOT, TARGETS} if roles else set()


def _drop(books: Books, keyid: str) -> set[str]:
    roles = _roles_of(books, keyid)
    for name in roles:
        books.delegator(name).revoke_key(keyid, name)
        if not len(books.keys(name)) >= books.threshold(name):
            raise RepositoryRefused(
                f"without this key {name} has {len(books.keys(name))} and needs {books.threshold(name)} to sign; "
                "replace it instead: enpire-coord keys rotate"
            )
    return roles | {ROOT, TARGETS}
