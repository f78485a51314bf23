"""Brings a policy into force: released by people, ordered by the coordinator's key, followed by each station.

- An order says how far a policy may go. Every station passes its own gates, and goes back by itself where one fails.
- Numbers of orders rise on each station, so that no older order comes back.
- What lacks a person's signature waits in the repository: no station is told before it is complete.
- What was ordered is kept in the run's database, with the keys that signed.
"""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from securesystemslib.signer import Signer

from coordinator.errors import CoordinatorError
from coordinator.evolution.starts import Starts, StartsError
from coordinator.publish import stations
from coordinator.publish.keys import Ask, KeyRefused, Keyring, signer_of
from coordinator.publish.publisher import FOLDER, KEYS
from coordinator.publish.repository import Released, Repository
from coordinator.rollouts import STAGES
from coordinator.store import FILE, Store
from edge.records import RecordError, RolloutOrder, RolloutStart, order_from_json, order_to_json
from policies.bundle import BundleError, build, bundle_id, open_bundle
from policies.space import FILE as SPACE_FILE
from policies.space import SpaceError

PREFIX = re.compile(r"[0-9a-f]{6,64}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
INCUMBENT = "incumbent"
WHEN = ("next-trial", "now")
HOUR_S = 3600.0
MOST_STARTS = 200


class PushRefused(CoordinatorError):
    """What was asked for cannot be ordered; the message says what to do."""


@dataclass(frozen=True)
class Policy:
    """The bundle that is to come into force."""

    bundle: str
    task: str
    archive: bytes
    manifest: Mapping[str, Any]
    weights: tuple[Path, ...] = ()  # files that travel beside it


@dataclass(frozen=True)
class Pushed:
    """What was ordered, or would be."""

    what: str  # push, rollback or revoke
    bundle: str
    task: str
    stage: str
    edges: tuple[str, ...]
    numbers: Mapping[str, int]  # of the order, by edge
    signers: tuple[str, ...]  # key ids
    missing: int  # signatures, before stations are told
    seed: int | None


class Pusher:
    """One person at one run's repository."""

    def __init__(
        self, run: Path, keys: Path | None = None, signers: Sequence[str] = (), ask: Ask | None = None
    ) -> None:
        """Open the run's repository with the people's keys that are named, or else lie with the coordinator's.

        Raises:
            CoordinatorError: no run, no repository, or a key that cannot be used.
        """
        if not (run / FILE).is_file():
            raise PushRefused(f"no run in {run}: name the folder of one with --run")
        self._run = run
        self._ring = Keyring.open(keys or run / KEYS, ask, humans=not signers)
        self._repository = Repository.open(run / FOLDER)
        known = list(self._ring.people.values())
        self._signers: tuple[Signer, ...] = tuple(signer_of(item, known, ask) for item in signers) or self._ring.humans
        self.named_by_nobody = "" if signers or not self._signers else self._names()

    # -- what a person orders -----------------------------------------------------------------------------------------

    def find(self, what: str, why: str) -> Policy:
        """Return the policy that a person names: its folder, how its bundle's name begins, or `incumbent`.

        Raises:
            PushRefused: there is none, or it makes no bundle.
        """
        folder = Path(what)
        if folder.is_dir():
            return self._built(folder, why)
        with self._reading() as db:
            if what == INCUMBENT:
                rows = db.execute(
                    "SELECT bundle, task, archive, manifest FROM bundles WHERE bundle = (SELECT bundle FROM decisions"
                    " JOIN candidates USING (candidate_id) WHERE verdict = 'accept' ORDER BY decision_id DESC LIMIT 1)"
                ).fetchall()
            elif PREFIX.fullmatch(what):
                rows = db.execute(
                    "SELECT bundle, task, archive, manifest FROM bundles WHERE substr(bundle, 1, ?) = ?",
                    (len(what), what),
                ).fetchall()
            else:
                raise PushRefused(f"{what}: no folder with a {SPACE_FILE}, no bundle of this run, nor `{INCUMBENT}`")
        if len(rows) != 1:
            found = "several bundles begin so" if rows else "this run has no such bundle"
            raise PushRefused(f"{what}: {found}")
        bundle, task, archive, manifest = rows[0]
        return Policy(bundle, task, bytes(archive), json.loads(manifest))

    def named(self, what: str, why: str) -> str:
        """Return the bundle that a person names, which may still wait for signatures.

        Raises:
            PushRefused: there is none, or several.
        """
        if not PREFIX.fullmatch(what):
            return self.find(what, why).bundle
        paths = [path for waits in self._repository.waiting().values() for path in waits]
        found = {name for path in paths for name in SHA256.findall(path) if name.startswith(what)}
        if len(found) > 1:
            raise PushRefused(f"{what}: several bundles that wait begin so")
        return found.pop() if found else self.find(what, why).bundle

    def edges(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the stations that are named, or all that this run has seen and nobody has revoked.

        Raises:
            CoordinatorError: none, or a name that this run has not seen or that was revoked.
        """
        with self._reading() as db:
            return stations.choose(db, wanted)

    def with_nothing_good(self, edges: Sequence[str]) -> tuple[str, ...]:
        """Return the stations that could follow no order to roll back, by what they have said last."""
        with self._reading() as db:
            return stations.with_nothing_good(db, edges)

    def task_of(self, edges: Sequence[str]) -> str:
        """Return the task that stations were ordered to do last.

        Raises:
            PushRefused: one was never ordered anything.
        """
        orders = {edge: self._repository.order(edge) for edge in edges}
        for edge, data in orders.items():
            if data is None:
                raise PushRefused(f"{edge} was never ordered anything: nothing to go back from")
        return order_from_json(next(data for data in orders.values() if data is not None)).task

    def push(
        self, policy: Policy, edges: Sequence[str], stage: str, seed: int, hours: float, dry_run: bool = False
    ) -> Pushed:
        """Release a policy and order stations to bring it into force.

        Raises:
            CoordinatorError: it cannot be signed, or nobody may.
        """
        if stage not in STAGES:
            raise PushRefused(f"--stage is {stage!r}; known: {', '.join(STAGES)}")
        if self._repository.revoked().get(policy.bundle):
            raise PushRefused(f"{policy.bundle[:12]} is revoked for good; build another one")
        starts = _starts(policy.task, seed)
        numbers = self._next_numbers(edges)
        keyids = self._keyids()
        if dry_run:
            short = max(self._ring.threshold - len(keyids), 0)
            return Pushed("push", policy.bundle, policy.task, stage, tuple(edges), numbers, keyids, short, seed)
        if not self._signers:
            raise KeyRefused("a release needs people's keys: add --signer FILE, one a person")
        for path in policy.weights:
            if self._repository.release_weights(path.read_bytes(), self._signers, self._ring).missing:
                raise KeyRefused("weights are released by all that it takes at once: add every --signer")
        released = self._repository.release(policy.task, policy.archive, self._signers, self._ring)
        now_unix_s = time.time()
        done = Pushed("push", policy.bundle, policy.task, stage, tuple(edges), numbers, keyids, released.missing, seed)
        if released.published:
            self._assign(
                {
                    edge: RolloutOrder(
                        numbers[edge],
                        policy.bundle,
                        policy.task,
                        stage,
                        starts,
                        now_unix_s,
                        now_unix_s + hours * HOUR_S,
                    )
                    for edge in edges
                }
            )
            self._note(done, now_unix_s, policy)
        return done

    def rollback(self, edges: Sequence[str], task: str, dry_run: bool = False) -> Pushed:
        """Order stations to go back to what was good before, now.

        Raises:
            CoordinatorError: it cannot be signed.
        """
        numbers, now_unix_s = self._next_numbers(edges), time.time()
        done = Pushed("rollback", "", task, "active", tuple(edges), numbers, (), 0, None)
        if not dry_run:
            self._assign(
                {
                    edge: RolloutOrder(
                        numbers[edge], "", task, "active", (), now_unix_s, now_unix_s + HOUR_S, rollback=True
                    )
                    for edge in edges
                }
            )
            self._note(done, now_unix_s)
        return done

    def revoke(self, bundle: str, when: str, edges: Sequence[str], dry_run: bool = False) -> Pushed:
        """Forbid a policy for ever, everywhere; one person is enough.

        Raises:
            CoordinatorError: nobody's key is here, or it may not.
        """
        if when not in WHEN:
            raise PushRefused(f"--when is {when!r}; known: {', '.join(WHEN)}")
        if not self._signers:
            raise KeyRefused("a revocation needs one person's key: add --signer FILE")
        done = Pushed("revoke", bundle, "", when, tuple(edges), {}, self._keyids()[:1], 0, None)
        if not dry_run:
            self._repository.revoke(bundle, when, self._signers[0], self._ring)
            self._note(done, time.time())
        return done

    def countersign(self, bundle: str) -> Released:
        """Add the named people's signatures to a release that waits for them.

        Raises:
            CoordinatorError: nothing waits, or a key may not sign it.
        """
        if not self._signers:
            raise KeyRefused("a signature needs a key: add --signer FILE")
        signed = [self._repository.countersign(bundle, item, self._ring) for item in self._signers]
        return signed[-1]

    def withdraw(self, bundle: str) -> str:
        """Drop what waits for signatures of a bundle, or of weights; return the role that it waited in.

        Raises:
            CoordinatorError: nothing about it waits.
        """
        return self._repository.withdraw_of(bundle)

    def override(self, bundle: str) -> Released:
        """Let a policy become active without a canary; two people must sign.

        Raises:
            CoordinatorError: this lab has no two people, or their keys are not here.
        """
        return self._repository.override(bundle, self._signers, self._ring)

    # -----------------------------------------------------------------------------------------------------------------

    def _built(self, folder: Path, why: str) -> Policy:
        words = {"hypothesis": why, "researcher": "a person", "commit": _commit(folder)}
        try:
            archive = build(folder, {}, words, None)
            name = bundle_id(archive)
            manifest = open_bundle(archive, name).manifest
        except (BundleError, SpaceError) as error:
            raise PushRefused(f"{folder} makes no bundle: {error}{_where(error)}") from error
        weights = tuple(folder / name for name in manifest.weights)
        if missing := [path.name for path in weights if not path.is_file()]:
            raise PushRefused(f"{missing[0]} is not in {folder}, and the policy needs it; put it there")
        return Policy(name, manifest.task, archive, asdict(manifest), weights)

    def _next_numbers(self, edges: Sequence[str]) -> dict[str, int]:
        """Return a number for each station above any that it was ordered by, or has said that it knows."""
        numbers = {}
        with self._reading() as db:
            for edge in edges:
                try:
                    numbers[edge] = stations.newest_number(db, edge, self._repository.order(edge)) + 1
                except RecordError as error:
                    raise PushRefused(f"the order of {edge} in {self._run / FOLDER} is damaged: {error}") from error
        return numbers

    def _assign(self, orders: Mapping[str, RolloutOrder]) -> None:
        self._repository.assign_all({edge: order_to_json(order) for edge, order in orders.items()}, self._ring)

    def _names(self) -> str:
        names = {key.keyid: name for name, key in self._ring.people.items()}
        return f"{', '.join(names[keyid] for keyid in self._keyids())} in {self._ring.folder}"

    def _keyids(self) -> tuple[str, ...]:
        return tuple(item.public_key.keyid for item in self._signers)

    def _note(self, done: Pushed, now_unix_s: float, policy: Policy | None = None) -> None:
        store = Store(self._run / FILE)
        try:
            if policy is not None:
                store.add_bundle(
                    {
                        "bundle": policy.bundle, "parent": None, "task": policy.task,
                        "policy": policy.manifest["policy"], "params": policy.manifest["params"],
                        "manifest": policy.manifest, "archive": policy.archive, "created_unix_s": now_unix_s,
                    }
                )  # fmt: skip
            store.add_push(
                {
                    "unix_s": now_unix_s, "what": done.what, "bundle": done.bundle, "task": done.task,
                    "stage": done.stage, "edges": json.dumps(done.edges), "signers": json.dumps(done.signers),
                    "seed": done.seed,
                }
            )  # fmt: skip
        finally:
            store.leave()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(f"file:{self._run / FILE}?mode=ro", uri=True)) as db:
                yield db
        except sqlite3.Error as error:
            raise PushRefused(f"cannot read {self._run / FILE}: {error}") from error


def _starts(task: str, seed: int) -> tuple[RolloutStart, ...]:
    """Return the starts of canary and probation, in an order drawn by `seed`."""
    try:
        dev = Starts.load(task).dev
    except StartsError as error:
        raise PushRefused(str(error)) from error
    rng = np.random.default_rng([seed, 0xCA7])
    chosen = [dev[int(index)] for index in rng.permutation(len(dev))[:MOST_STARTS]]
    return tuple(RolloutStart(item.start_id, dict(item.coordinates), int(rng.integers(2**31))) for item in chosen)


def _where(error: BaseException) -> str:
    """Return in which line a file is no Python, empty where that is not what is wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SyntaxError) and cause.lineno:
            return f" in line {cause.lineno} ({cause.msg})"
        cause = cause.__cause__
    return ""


def _commit(folder: Path) -> str:
    """Return the commit that a folder's files are of, empty where they are in none or were changed since."""
    git = ["git", "-C", str(folder)]
    try:
        changed = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return "" if changed.stdout.strip() else head.stdout.strip()
