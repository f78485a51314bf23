"""What an enemy does, as functions of what is in hand; the table of attacks is in tests/edge/test_trust_attacks.py."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, Root, Targets

from edge.wire.targets import REVOKED_LIST, bundle_path, order_path, override_path, weights_path
from tests.harness.enemy import EVIL, EVIL_ORDER, GOOD, WEIGHTS, Enemy, expired, meta_file, signed_at, stranger
from tests.harness.lab import EDGE, OTHER_EDGE, TASK, sha256

HOUR_S, DAY_S = 3600.0, 86400.0
Act = Callable[[Enemy], object]
HUMAN = ("released", "weights", "overrides")
ONLINE = ("candidates", "assignments")
DELEGATED = (*HUMAN, *ONLINE, "revoked")
EVIL_PATHS = {
    "released": bundle_path("released", TASK, sha256(EVIL)),
    "weights": weights_path(sha256(EVIL)),
    "overrides": override_path(sha256(EVIL)),
    "candidates": bundle_path("candidates", TASK, sha256(EVIL)),
    "assignments": order_path(EDGE),
    "revoked": "revoked/other.json",
    "targets": bundle_path("released", TASK, sha256(EVIL)),
}


def evil_by(role: str, *who: Callable[[Enemy], Any], path: str = "") -> Act:
    """A role names the evil bundle, signed by `who`; everything around it is signed with the stolen online key."""

    def act(enemy: Enemy) -> None:
        data = EVIL_ORDER if role == "assignments" else EVIL
        edit = (lambda signed: enemy.name_evil(signed, path or EVIL_PATHS[role], data)) if role != "root" else repr
        enemy.forge(role, [one(enemy) for one in who], edit)
        if role not in ("root", "snapshot", "timestamp"):
            enemy.chain()

    return act


def person(number: int) -> Callable[[Enemy], Any]:
    """One of the people, whose key was stolen."""
    return lambda enemy: enemy.world.people[number]


def online(enemy: Enemy) -> Any:
    """The stolen online key."""
    return enemy.online


def nobody_known(enemy: Enemy) -> Any:
    """A key of the enemy's own."""
    return stranger()


def only(
    role: str, *who: Callable[[Enemy], Any], edit: Callable[[Any], object] = repr, version: int | None = None
) -> Act:
    """Serve another version of a role of the repository itself, signed by `who`."""

    def act(enemy: Enemy) -> None:
        signers = [one(enemy) for one in who]
        if role == "snapshot":
            enemy.chain(snapshot=signers)
        elif role == "timestamp":
            enemy.forge(role, signers, edit, version)
        else:
            enemy.forge(role, signers, edit, version)

    return act


def signed_twice_by_one(enemy: Enemy) -> None:
    metadata = enemy.forge(
        "released", [enemy.world.people[0]], lambda signed: enemy.name_evil(signed, EVIL_PATHS["released"])
    )
    [signature] = metadata.signatures.values()
    other = enemy.world.people[1].public_key.keyid
    metadata.signatures[other] = type(signature)(other, signature.signature)
    enemy.put("released", metadata)
    enemy.chain()


def rolled_back(*roles: str) -> Act:
    """The stolen online key names earlier versions of some roles."""

    def act(enemy: Enemy) -> None:
        for role in roles:
            metadata = enemy.role(role, "earlier")
            enemy.put(role, metadata)
        enemy.chain()

    return act


def after(*acts: Act) -> Act:
    """One thing after the other."""

    def act(enemy: Enemy) -> None:
        for each in acts:
            each(enemy)

    return act


def wiped(*names: str, how: str = "missing") -> Act:
    return lambda enemy: enemy.wipe(*names, how=how)


def floor_lost(*copies: str) -> Act:
    return lambda enemy: enemy.lose_floor(*copies)


def serving(state: str, *roles: str) -> Act:
    return lambda enemy: enemy.serve(state, roles or None)


def clock_moved(seconds: float) -> Act:
    def act(enemy: Enemy) -> None:
        enemy.world.lab.now_unix_s += seconds

    return act


def frozen_with_the_online_key(days: float) -> Act:
    """The stolen online key goes on signing, and nothing that people sign comes through any more."""

    def act(enemy: Enemy) -> None:
        enemy.world.lab.now_unix_s += days * DAY_S
        now_unix_s = enemy.world.lab.now_unix_s

        def fresh(signed: Any) -> None:
            signed.expires = datetime.fromtimestamp(int(now_unix_s + HOUR_S), UTC)

        for role in ONLINE:
            enemy.forge(role, [enemy.online], fresh)
        enemy.chain()
        for role in ("snapshot", "timestamp"):
            metadata = enemy.forged[role]
            fresh(metadata.signed)
            if role == "timestamp":
                metadata.signed.snapshot_meta = meta_file(enemy.forged["snapshot"])
            metadata.signatures.clear()
            metadata.sign(enemy.online)
            enemy.put(role, metadata)

    return act


def at(how: str, what: Callable[[Enemy], str], state: str = "later") -> Act:
    """The answer to one file is of another kind, while a later state is served."""

    def act(enemy: Enemy) -> None:
        enemy.serve(state)
        getattr(enemy.served, how).add(what(enemy))

    return act


def replaced(what: Callable[[Enemy], str], data: Callable[[Enemy, bytes], bytes], state: str = "later") -> Act:
    """Other bytes come under a file's name."""

    def act(enemy: Enemy) -> None:
        enemy.serve(state)
        name = what(enemy)
        enemy.served.files[name] = data(enemy, enemy.served.files.get(name, b""))

    return act


def metadata_of(role: str, state: str = "later") -> Callable[[Enemy], str]:
    return lambda enemy: enemy.file(role, state)


def next_root(enemy: Enemy) -> str:
    return "metadata/3.root.json"


def the_good_one(enemy: Enemy) -> str:
    return enemy.good


def the_order(enemy: Enemy) -> str:
    return enemy.target_of("assignments", order_path(EDGE), "later")


def the_list(enemy: Enemy) -> str:
    return enemy.target_of("revoked", REVOKED_LIST, "later")


def the_weights(enemy: Enemy) -> str:
    return enemy.target_of("weights", weights_path(sha256(WEIGHTS)), "later")


def constant(data: bytes) -> Callable[[Enemy, bytes], bytes]:
    return lambda enemy, old: data


def root_of_the_enemy_s_own(enemy: Enemy) -> None:
    """All keys and thresholds are the enemy's, and so are the signatures."""
    own = stranger()

    def edit(signed: Root) -> None:
        for role in signed.roles.values():
            role.keyids, role.threshold = [], 1
        signed.keys.clear()
        for role in signed.roles:
            signed.add_key(own.public_key, role)

    enemy.forge("root", [own], edit)


def root_with_a_threshold_of_one(enemy: Enemy) -> None:
    """One person alone lowers the threshold, which the new root would allow and the old one does not."""

    def edit(signed: Root) -> None:
        signed.roles["root"].threshold = 1

    enemy.forge("root", [enemy.world.people[0]], edit)


def root_that_the_station_was_given_is_exchanged(enemy: Enemy) -> None:
    """With hands on the station, the enemy makes it begin at another root, which leads to metadata of its own."""
    own, path = stranger(), enemy.station / "trust" / "root.json"
    root = Metadata[Root].from_bytes(path.read_bytes())
    for role in root.signed.roles:
        root.signed.roles[role].keyids, root.signed.roles[role].threshold = [], 1
        root.signed.add_key(own.public_key, role)
    root.sign(own)
    path.write_bytes(root.to_bytes())
    enemy.wipe()
    enemy.served.missing.add("metadata/2.root.json")
    enemy.forge("targets", [own])
    enemy.chain([own], [own])


def delegating(count: int, served: bool) -> Act:
    """Candidates hand their paths on to other roles, which are served or not."""

    def act(enemy: Enemy) -> None:
        keys: dict[str, Key] = {"k": Key.from_dict("k", enemy.online.public_key.to_dict())}

        def edit(signed: Any) -> None:
            roles = {
                f"r{number}": DelegatedRole(f"r{number}", ["k"], 1, False, ["candidates/*/*"])
                for number in range(count)
            }
            signed.delegations = Delegations(keys, roles)

        enemy.forge("candidates", [enemy.online], edit)
        for number in range(count if served else 0):
            metadata = Metadata(Targets(expires=enemy.role("candidates").signed.expires))
            metadata.sign(CryptoSigner(enemy.online._private_key, keys["k"]))
            enemy.put(f"r{number}", metadata)
        enemy.chain()

    return act


def candidate_of_other_bytes(enemy: Enemy) -> None:
    """The stolen online key says that the evil bundle's name has other bytes."""
    enemy.forge(
        "candidates",
        [enemy.online],
        lambda signed: enemy.name_evil(signed, EVIL_PATHS["candidates"], b"something else"),
    )
    enemy.chain()


def huge_order(enemy: Enemy) -> None:
    def edit(signed: Any) -> None:
        enemy.name_evil(signed, order_path(EDGE), EVIL_ORDER)
        signed.targets[order_path(EDGE)].length = 100 << 30

    enemy.forge("assignments", [enemy.online], edit)
    enemy.chain()


def order_by_another_hash(enemy: Enemy) -> None:
    def edit(signed: Any) -> None:
        enemy.name_evil(signed, order_path(EDGE), EVIL_ORDER)
        signed.targets[order_path(EDGE)].hashes = {"md5": "0" * 32}

    enemy.forge("assignments", [enemy.online], edit)
    enemy.chain()


def list_of(data: bytes) -> Act:
    """One person signs something that is no list of bundles."""

    def act(enemy: Enemy) -> None:
        enemy.forge("revoked", [enemy.world.people[0]], lambda signed: enemy.name_evil(signed, REVOKED_LIST, data))
        enemy.chain()

    return act


def list_left_out(enemy: Enemy) -> None:
    enemy.forge("revoked", [enemy.world.people[0]], lambda signed: signed.targets.clear())
    enemy.chain()


def two_timestamps(enemy: Enemy) -> None:
    """The stolen online key signs another timestamp of the version that the station knows."""
    version = enemy.role("timestamp").signed.version
    enemy.forge("timestamp", [enemy.online], lambda signed: signed.unrecognized_fields.update({"x": 1}), version)


def two_snapshots(enemy: Enemy) -> None:
    """The same for a snapshot, and the cache that would tell is gone."""
    enemy.wipe("snapshot", "timestamp")
    version = enemy.role("snapshot").signed.version
    made = enemy.forge("snapshot", [enemy.online], lambda signed: signed.unrecognized_fields.update({"x": 1}), version)
    enemy.chain(version=None)
    enemy.put("snapshot", made)
    enemy.forge("timestamp", [enemy.online], lambda signed: setattr(signed, "snapshot_meta", meta_file(made)))


def collision(enemy: Enemy) -> None:
    """Assignments and candidates name the released bundle's path too, with other bytes."""
    for role in ONLINE:
        path = bundle_path("released", TASK, sha256(GOOD))
        enemy.forge(role, [enemy.online], lambda signed, path=path: enemy.name_evil(signed, path))  # type: ignore[misc]
    enemy.chain()


def fast_forward_and_back(enemy: Enemy) -> None:
    """The stolen online key counts far ahead; then the lab is served honestly, which now looks old."""
    enemy.chain(version=1 << 31)
    enemy.trust.refresh()
    enemy.serve("later")


def odd_date(value: object) -> Act:
    return lambda enemy: enemy.forge("timestamp", [enemy.online], signed_at(value))


def rollback_snapshot(enemy: Enemy) -> None:
    old = enemy.role("snapshot", "earlier")
    enemy.put("snapshot", old)
    enemy.forge("timestamp", [enemy.online], lambda signed: setattr(signed, "snapshot_meta", meta_file(old)))


def expire(enemy: Enemy, role: str) -> None:
    enemy.forge(role, [enemy.online, *enemy.world.people[:2]], expired(enemy.world))
    enemy.chain()


def expire_snapshot(enemy: Enemy) -> None:
    made = enemy.forge("snapshot", [enemy.online], expired(enemy.world))
    enemy.forge("timestamp", [enemy.online], lambda signed: setattr(signed, "snapshot_meta", meta_file(made)))


def snapshot_of_now(enemy: Enemy) -> bytes:
    return enemy.world.states["now"][enemy.file("snapshot")]


def serve_root(enemy: Enemy, name: str) -> None:
    enemy.served.files["metadata/3.root.json"] = enemy.served.files[name]


def skip_root(enemy: Enemy) -> None:
    made = enemy.forge("root", enemy.world.people[:2], version=4)
    enemy.served.files["metadata/3.root.json"] = made.to_bytes()


def endless_root(enemy: Enemy) -> None:
    enemy.served.files["metadata/3.root.json"] = b"{}"
    enemy.served.endless.add("metadata/3.root.json")


def with_version(data: bytes, version: bytes) -> bytes:
    head, _, tail = data.partition(b'"version":')  # of the snapshot that it names, or its own: both are signed
    return head + b'"version":' + version + tail.lstrip(b"0123456789")


def duplicate_key(enemy: Enemy) -> None:
    """The signature still fits, as the last of two equal keys counts; the bytes are not those of the lab."""
    enemy.wipe()
    data = enemy.served.files["metadata/timestamp.json"]
    enemy.served.files["metadata/timestamp.json"] = b'{"signed":{"evil":true},' + data.lstrip()[1:]


def order_of_the_other(enemy: Enemy) -> bytes:
    return enemy.served.files[enemy.target_of("assignments", order_path(OTHER_EDGE), "later")]
