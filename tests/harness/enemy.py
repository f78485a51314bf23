"""Somebody between a station and its lab, perhaps with stolen keys, perhaps with hands on the station's disk.

The lab has three states: `earlier`, `now` (which the station knows) and `later`. An enemy begins with what is served
now and changes it; every forgery is as good as the keys in hand allow.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from coordinator.publish.ceremony import Ceremony
from edge.trust.client import NotGranted, Trust, TrustError
from edge.wire.targets import SIGNED_AT, TOP_LEVEL, bundle_path
from tests.harness.lab import EDGE, OTHER_EDGE, TASK, Files, Lab, Served, sha256

GOOD, CANDIDATE, OLD, EVIL, WEIGHTS, FREED = (
    f"{word} ".encode() * 1000 for word in ("good", "candidate", "revoked", "evil", "weights", "freed")
)
ORDERS = {state: json.dumps({"number": number}).encode() for number, state in enumerate(("earlier", "now", "later"))}
AHEAD = 10
EVIL_ORDER = b'{"number": 99, "bundle": "evil"}'


class World:
    """A lab in three states, and a station that knows the middle one."""

    def __init__(self, folder: Path, now_unix_s: float) -> None:
        """Make all of it in `folder`."""
        self.lab = lab = Lab(folder, now_unix_s)
        self.people: tuple[Signer, ...] = lab.ring.humans  # the third is dropped before `now`
        self.online = lab.ring.online
        self.states: dict[str, Files] = {}
        repository = lab.repository
        for edge in (EDGE, OTHER_EDGE):
            repository.assign(edge, ORDERS["earlier"], lab.ring)
        repository.offer_candidate(TASK, OLD, lab.ring)
        self.states["earlier"] = lab.files()
        Ceremony(repository, lab.ring, self.people[:2]).drop(self.people[2].public_key.keyid)
        repository.release(TASK, GOOD, self.people[:2], lab.ring)
        repository.release_weights(WEIGHTS, self.people[:2], lab.ring)
        repository.override(sha256(FREED), self.people[:2], lab.ring)
        repository.revoke(sha256(OLD), "now", self.people[1], lab.ring)
        repository.offer_candidate(TASK, CANDIDATE, lab.ring)
        repository.assign_all({EDGE: ORDERS["now"], OTHER_EDGE: EVIL_ORDER}, lab.ring)
        self.states["now"] = lab.files()
        trust = lab.trust()
        trust.refresh()
        (lab.station / "bundles" / sha256(GOOD)).mkdir(parents=True)
        repository.revoke(sha256(b"another"), "next-trial", self.people[0], lab.ring)
        repository.assign(EDGE, ORDERS["later"], lab.ring)
        Ceremony(repository, lab.ring, self.people[:2]).renew(everything=True)
        with repository.changing() as books:  # every role has a newer version that holds now
            # Far enough ahead that nothing which an enemy has signed with the online key counts any more.
            for name in ("candidates", "assignments"):
                books.targets[name].signed.version += AHEAD
                books.sign(name, [self.online], now_unix_s)
            books.snapshot.signed.version += AHEAD
            books.timestamp.signed.version += AHEAD
            repository.publish(books, self.online, snapshot=True)
        self.states["later"] = lab.files()


@dataclass
class Enemy:
    """One attack on one copy of the station."""

    world: World
    station: Path
    served: Served
    trust: Trust
    forged: dict[str, Metadata[Any]] = field(default_factory=dict)

    @property
    def online(self) -> Signer:
        """The coordinator's key, stolen."""
        return self.world.online

    def role(self, name: str, state: str = "now") -> Metadata[Any]:
        """Return a role as it is served in a state."""
        return Metadata[Any].from_bytes(self.world.states[state][self.file(name, state)])

    def file(self, name: str, state: str = "now") -> str:
        """Return the file of a role in a state."""
        files = self.world.states[state]
        timestamp = Metadata[Any].from_bytes(files["metadata/timestamp.json"]).signed
        if name == "timestamp":
            return "metadata/timestamp.json"
        if name == "snapshot":
            return f"metadata/{timestamp.snapshot_meta.version}.snapshot.json"
        if name == "root":
            return (
                f"metadata/{max(int(path.split('/')[1].split('.')[0]) for path in files if '.root.' in path)}.root.json"
            )
        snapshot = Metadata[Any].from_bytes(files[f"metadata/{timestamp.snapshot_meta.version}.snapshot.json"]).signed
        return f"metadata/{snapshot.meta[f'{name}.json'].version}.{name}.json"

    def serve(self, state: str, only: Iterable[str] | None = None) -> None:
        """Serve a whole state, or only the files of some roles of it."""
        files = self.world.states[state]
        if only is None:
            self.served.files = dict(files)
        else:
            self.served.files.update({self.file(name, state): files[self.file(name, state)] for name in only})

    def forge(
        self,
        name: str,
        signers: Sequence[Signer],
        edit: Callable[[Any], object] = lambda signed: None,
        version: int | None = None,
    ) -> Metadata[Any]:
        """Make the next version of a role, signed by whom the enemy can, and serve it as if it were real."""
        metadata = copy.deepcopy(self.role(name))
        metadata.signed.version += 1
        if version is not None:
            metadata.signed.version = version
        edit(metadata.signed)
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
        self.put(name, metadata)
        return metadata

    def put(self, name: str, metadata: Metadata[Any]) -> None:
        """Serve a role under the name that its version has."""
        prefix = "" if name == "timestamp" else f"{metadata.signed.version}."
        self.served.files[f"metadata/{prefix}{name}.json"] = metadata.to_bytes()
        self.forged[name] = metadata

    def chain(
        self,
        snapshot: Sequence[Signer] | None = None,
        timestamp: Sequence[Signer] | None = None,
        version: int | None = None,
    ) -> None:
        """Name all forged roles in a snapshot and a timestamp, signed with the stolen online key if not by others."""

        def name_roles(signed: Any) -> None:
            for name in self.forged.keys() - set(TOP_LEVEL) | self.forged.keys() & {"targets"}:
                signed.meta[f"{name}.json"] = meta_file(self.forged[name])

        made = self.forge("snapshot", [self.online] if snapshot is None else snapshot, name_roles, version)
        self.forge(
            "timestamp",
            [self.online] if timestamp is None else timestamp,
            lambda signed: setattr(signed, "snapshot_meta", meta_file(made)),
            version,
        )

    def name_evil(self, signed: Any, path: str, data: bytes = EVIL) -> None:
        """Let a role name the evil bundle under a path, and serve it."""
        target = signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = {"offered": 1}
        self.served.files[f"targets/{target.get_prefixed_paths()[0]}"] = data

    def target_of(self, role: str, path: str, state: str = "now") -> str:
        """Return the file of what a role names."""
        return f"targets/{self.role(role, state).signed.targets[path].get_prefixed_paths()[0]}"

    @property
    def good(self) -> str:
        """The file of the released bundle."""
        return self.target_of("released", bundle_path("released", TASK, sha256(GOOD)))

    @property
    def cache(self) -> Path:
        """The folder of python-tuf's cache."""
        return self.station / "trust" / "metadata"

    def wipe(self, *names: str, how: str = "missing") -> None:
        """Lose files of the cache, all of them without names."""
        if not names:
            shutil.rmtree(self.cache)
        for name in names:
            path = self.cache / f"{name}.json"
            if how == "missing":
                path.unlink()
            else:
                path.write_bytes({"empty": b"", "garbled": b'{"signed": 1}'}[how])

    def lose_floor(self, *copies: str) -> None:
        """Lose copies of the floor."""
        for name in copies:
            (self.station / name).unlink()


def stranger() -> Signer:
    """Return a key that nobody trusts."""
    return CryptoSigner.generate_ed25519()


def expired(world: World) -> Callable[[Any], None]:
    """Return an edit that lets metadata have been good until a minute ago."""

    def edit(signed: Any) -> None:
        signed.expires = datetime.fromtimestamp(int(world.lab.now_unix_s - 60), UTC)

    return edit


def signed_at(value: object) -> Callable[[Any], None]:
    """Return an edit that lets metadata say when it was signed."""
    return lambda signed: signed.unrecognized_fields.update({SIGNED_AT: value})


def meta_file(metadata: Metadata[Any]) -> MetaFile:
    data = metadata.to_bytes()
    return MetaFile(metadata.signed.version, len(data), {"sha256": sha256(data)})


@dataclass
class Outcome:
    """What a station under attack raised, and what it took that it must not."""

    raised: list[TrustError] = field(default_factory=list)  # in the order of asking
    accepted: list[str] = field(default_factory=list)


def ask_everything(trust: Trust, weights: Path) -> Outcome:
    """Do all that a station does, each whether or not the one before worked."""
    outcome = Outcome()

    def ask(what: Callable[[], object]) -> Any:
        try:
            return what()
        except TrustError as error:
            outcome.raised.append(error)
            return None

    ask(trust.refresh)
    for bundle in (GOOD, CANDIDATE):
        found = ask(lambda bundle=bundle: trust.bundle(TASK, sha256(bundle)))  # type: ignore[misc]
        if found and found[1] != bundle:
            outcome.accepted.append("other bytes")
    order = ask(lambda: trust.order(EDGE))
    if order not in (None, ORDERS["now"], ORDERS["later"]):
        outcome.accepted.append(f"the order {order!r}")
    path = ask(lambda: trust.weights(sha256(WEIGHTS), weights))
    if path and path.read_bytes() != WEIGHTS:
        outcome.accepted.append("other weights")
    if ask(lambda: trust.overridden(sha256(EVIL))):
        outcome.accepted.append("an override")
    if trust_revoked(trust).get(sha256(OLD)) != "now":
        outcome.accepted.append("a bundle that was revoked")
    for evil in (EVIL, OLD):
        found = ask(lambda evil=evil: trust.bundle(TASK, sha256(evil)))  # type: ignore[misc]
        if found and (evil == EVIL or found[0].role == "released"):
            outcome.accepted.append(f"an evil bundle as {found[0].role}")
    return outcome


def trust_revoked(trust: Trust) -> dict[str, str]:
    """Return what is revoked; where the floor itself is refused, nothing new can run, and the journal still knows."""
    try:
        return dict(trust.revoked())
    except TrustError:
        return {sha256(OLD): "now"}


def unexpected(outcome: Outcome) -> list[TrustError]:
    """Return what was raised for another reason than that nobody names the evil bundle."""
    return [error for error in outcome.raised if not isinstance(error, NotGranted)]
