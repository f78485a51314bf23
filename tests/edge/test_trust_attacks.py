"""What an enemy can do to a station's trust, one row each: what is raised, and that nothing evil is ever taken.

Each attack meets a station that is running and one that was just started again. Afterwards the lab is served honestly
again, and the station goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.trust.client import ClockSuspect, NotGranted, Stale, Tampered, TrustError, Unreachable
from edge.trust.errors import NotThere
from tests.harness.attacks import (
    DAY_S,
    DELEGATED,
    EVIL_PATHS,
    HOUR_S,
    ONLINE,
    Act,
    after,
    at,
    candidate_of_other_bytes,
    clock_moved,
    collision,
    constant,
    delegating,
    duplicate_key,
    endless_root,
    evil_by,
    expire,
    expire_snapshot,
    fast_forward_and_back,
    floor_lost,
    frozen_with_the_online_key,
    huge_order,
    list_left_out,
    list_of,
    metadata_of,
    next_root,
    nobody_known,
    odd_date,
    online,
    only,
    order_by_another_hash,
    order_of_the_other,
    person,
    replaced,
    rollback_snapshot,
    rolled_back,
    root_of_the_enemy_s_own,
    root_that_the_station_was_given_is_exchanged,
    root_with_a_threshold_of_one,
    serve_root,
    serving,
    signed_twice_by_one,
    skip_root,
    snapshot_of_now,
    the_good_one,
    the_list,
    the_order,
    the_weights,
    two_snapshots,
    two_timestamps,
    wiped,
    with_version,
)
from tests.harness.enemy import CANDIDATE, EVIL, EVIL_ORDER, Enemy, Outcome, World, ask_everything, expired, unexpected


@dataclass(frozen=True)
class Attack:
    """One row."""

    name: str
    raised: type[TrustError]
    says: str  # a part of the sentence
    act: Act


ATTACKS = [
    # --- signatures that are missing, too few or somebody else's ---
    Attack("root unsigned", Tampered, "signed by 0/2", evil_by("root")),
    Attack("timestamp unsigned", Tampered, "signed by 0/1", only("timestamp")),
    Attack("snapshot unsigned", Tampered, "signed by 0/1", only("snapshot")),
    Attack("targets unsigned", Tampered, "signed by 0/2", evil_by("targets")),
    *(Attack(f"{role} unsigned", Tampered, "signed by 0/", evil_by(role)) for role in DELEGATED),
    Attack("root of one person", Tampered, "signed by 1/2", evil_by("root", person(0))),
    Attack("targets of one person", Tampered, "signed by 1/2", evil_by("targets", person(0))),
    Attack("release by one person", Tampered, "signed by 1/2", evil_by("released", person(0))),
    Attack("weights of one person", Tampered, "signed by 1/2", evil_by("weights", person(1))),
    Attack("override by one person", Tampered, "signed by 1/2", evil_by("overrides", person(0))),
    Attack("one person signs twice", Tampered, "signed by 1/2", signed_twice_by_one),
    Attack("removed person signs a release", Tampered, "signed by 1/2", evil_by("released", person(0), person(2))),
    Attack("removed person signs a root", Tampered, "signed by 1/2", evil_by("root", person(1), person(2))),
    Attack("removed person revokes", Tampered, "signed by 0/1", evil_by("revoked", person(2))),
    Attack("removed person overrides", Tampered, "signed by 1/2", evil_by("overrides", person(1), person(2))),
    Attack("online key signs a release", Tampered, "signed by 0/2", evil_by("released", online)),
    Attack("online key and one person release", Tampered, "signed by 1/2", evil_by("released", online, person(0))),
    Attack("online key overrides", Tampered, "signed by 0/2", evil_by("overrides", online)),
    Attack("online key revokes", Tampered, "signed by 0/1", evil_by("revoked", online)),
    Attack("online key signs the root", Tampered, "signed by 0/2", evil_by("root", online)),
    Attack("online key signs targets", Tampered, "signed by 0/2", evil_by("targets", online)),
    Attack("online key signs weights", Tampered, "signed by 0/2", evil_by("weights", online)),
    Attack("people sign the timestamp", Tampered, "signed by 0/1", only("timestamp", person(0), person(1))),
    Attack("people sign candidates", Tampered, "signed by 0/1", evil_by("candidates", person(0), person(1))),
    Attack("people sign an order", Tampered, "signed by 0/1", evil_by("assignments", person(0), person(1))),
    Attack("stranger signs the timestamp", Tampered, "signed by 0/1", only("timestamp", nobody_known)),
    Attack("stranger signs the snapshot", Tampered, "signed by 0/1", only("snapshot", nobody_known)),
    Attack("stranger signs candidates", Tampered, "signed by 0/1", evil_by("candidates", nobody_known)),
    # --- names where the signer may not name ---
    Attack(
        "candidates name a release", NotGranted, "no role", evil_by("candidates", online, path=EVIL_PATHS["released"])
    ),
    Attack("orders name a release", NotGranted, "no role", evil_by("assignments", online, path=EVIL_PATHS["released"])),
    Attack(
        "orders name a candidate", NotGranted, "no role", evil_by("assignments", online, path=EVIL_PATHS["candidates"])
    ),
    Attack(
        "one person names a release", NotGranted, "no role", evil_by("revoked", person(0), path=EVIL_PATHS["released"])
    ),
    Attack(
        "one person names an override",
        NotGranted,
        "no role",
        evil_by("revoked", person(0), path=EVIL_PATHS["overrides"]),
    ),
    Attack(
        "orders name an override", NotGranted, "no role", evil_by("assignments", online, path=EVIL_PATHS["overrides"])
    ),
    Attack("targets name a file", Tampered, "names files", evil_by("targets", person(0), person(1))),
    Attack("name collision", NotGranted, "no role", collision),
    Attack("candidates delegate to nowhere", Tampered, "not part of snapshot", delegating(1, served=False)),
    Attack("candidates delegate", Tampered, "lets others sign", delegating(1, served=True)),
    Attack("candidates delegate to 20 roles", Tampered, "lets others sign", delegating(20, served=True)),
    Attack("candidates delegate to 20000 roles", Tampered, "more than the", delegating(20000, served=False)),
    # --- back to what was ---
    Attack("old repository", Tampered, "must be >=", serving("earlier")),
    Attack("old timestamp", Tampered, "must be >=", serving("earlier", "timestamp")),
    Attack("old snapshot named anew", Tampered, "snapshot version must be >=", rollback_snapshot),
    *(Attack(f"old {role} named anew", Tampered, "Expected", rolled_back(role)) for role in ("targets", *DELEGATED)),
    *(
        Attack(f"old {role} named anew, cache wiped", Tampered, "", after(wiped(), rolled_back(role)))
        for role in ("targets", *DELEGATED)
    ),
    Attack("old revocations, snapshot wiped", Tampered, "went back", after(wiped("snapshot"), rolled_back("revoked"))),
    *(
        Attack(
            f"old repository, {' and '.join(names)} {how}",
            Tampered,
            "",
            after(wiped(*names, how=how), serving("earlier")),
        )
        for names in (("timestamp",), ("timestamp", "snapshot"), ("timestamp", "snapshot", "targets"))
        for how in ("missing", "empty", "garbled")
    ),
    Attack("old repository, cache wiped", Tampered, "went back", after(wiped(), serving("earlier"))),
    Attack("two timestamps of one version", Tampered, "somebody signs two", two_timestamps),
    Attack("two timestamps, cache wiped", Tampered, "somebody signs two", after(wiped(), two_timestamps)),
    Attack("two snapshots of one version", Tampered, "somebody signs two", two_snapshots),
    # --- the floor ---
    *(
        Attack(
            f"old repository, cache and {copy} wiped",
            Tampered,
            "went back",
            after(wiped(), floor_lost(copy), serving("earlier")),
        )
        for copy in ("floor.json", "trust/floor.json")
    ),
    Attack(
        "both floors lost", Tampered, "are lost", after(floor_lost("floor.json", "trust/floor.json"), serving("later"))
    ),
    Attack(
        "both floors and the cache lost",
        Tampered,
        "are lost",
        after(floor_lost("floor.json", "trust/floor.json"), wiped(), serving("earlier")),
    ),
    # --- time stands still ---
    Attack("frozen for two hours", Stale, "timestamp", clock_moved(2 * HOUR_S)),
    Attack("frozen for eight days with the online key", Stale, "revoked", frozen_with_the_online_key(8)),
    Attack("frozen for 31 days with the online key", Stale, "revoked", frozen_with_the_online_key(31)),
    Attack("frozen for 91 days with the online key", Stale, "targets", frozen_with_the_online_key(91)),
    Attack(
        "expired timestamp",
        Stale,
        "timestamp",
        lambda enemy: enemy.forge("timestamp", [enemy.online], expired(enemy.world)),
    ),
    Attack("expired snapshot", Stale, "snapshot", expire_snapshot),
    *(
        Attack(f"expired {role}", Stale, role, lambda enemy, role=role: expire(enemy, role))  # type: ignore[misc]
        for role in ("targets", "revoked", "released", *ONLINE)
    ),
    Attack(
        "expired root", Stale, "root", lambda enemy: enemy.forge("root", enemy.world.people[:2], expired(enemy.world))
    ),
    Attack("clock back a year", ClockSuspect, "behind", clock_moved(-365 * DAY_S)),
    Attack("clock back ten minutes", ClockSuspect, "behind", clock_moved(-600.0)),
    Attack("clock forward a year", Stale, "good until", clock_moved(366 * DAY_S)),
    Attack(
        "clock frozen in 1970", ClockSuspect, "behind", lambda enemy: clock_moved(-enemy.world.lab.now_unix_s)(enemy)
    ),
    *(
        Attack(f"signed at {value!r:.20}", kind, says, odd_date(value))
        for value, kind, says in (
            (None, Tampered, "does not say"),
            ("tomorrow", Tampered, "does not say"),
            (10**300, Tampered, "does not say"),
            (-1, Tampered, "does not say"),
            (1 << 39, ClockSuspect, "behind"),
        )
    ),
    # --- ahead, and mixed ---
    Attack("fast-forward unsigned", Tampered, "signed by 0/1", only("timestamp", version=1 << 31)),
    Attack("fast-forward with the online key", Tampered, "must be >=", fast_forward_and_back),
    Attack("later timestamp, snapshot of now", NotThere, "not in the repository", serving("later", "timestamp")),
    Attack(
        "snapshot of another time",
        Tampered,
        "",
        replaced(metadata_of("snapshot"), lambda enemy, old: snapshot_of_now(enemy)),
    ),
    *(
        Attack(
            f"{role} of another time",
            Tampered,
            "",
            replaced(metadata_of(role), lambda enemy, old, role=role: enemy.role(role).to_bytes()),  # type: ignore[misc]
        )
        for role in ("targets", *DELEGATED)
    ),
    Attack(
        "candidates in the place of released",
        Tampered,
        "",
        replaced(metadata_of("released"), lambda enemy, old: enemy.role("candidates", "later").to_bytes()),
    ),
    # --- roots ---
    Attack("root of the enemy's own", Tampered, "signed by 0/2", root_of_the_enemy_s_own),
    Attack("root with a threshold of one", Tampered, "signed by 1/2", root_with_a_threshold_of_one),
    Attack("stale root", Tampered, "Expected root version 3", lambda enemy: serve_root(enemy, "metadata/2.root.json")),
    Attack("first root again", Tampered, "", lambda enemy: serve_root(enemy, "metadata/1.root.json")),
    Attack("root version skipped", Tampered, "Expected root version 3", skip_root),
    Attack("root given is exchanged", Tampered, "went back", root_that_the_station_was_given_is_exchanged),
    Attack(
        "old root, cache wiped",
        Tampered,
        "went back",
        after(wiped(), at("missing", lambda enemy: "metadata/2.root.json", "earlier")),
    ),
    # --- answers that never end, or never come ---
    *(
        Attack(f"endless {name}", Tampered, "more than the", at("endless", what))
        for name, what in (
            *((role, metadata_of(role)) for role in ("timestamp", "snapshot", "targets", *DELEGATED)),
            ("bundle", the_good_one),
            ("order", the_order),
            ("list", the_list),
            ("weights file", the_weights),
        )
    ),
    Attack("endless root", Tampered, "more than the", endless_root),
    *(
        Attack(f"{how} {name}", raised, says, at(how, what))
        for how, raised, says in (
            ("silent", Unreachable, "no answer"),
            ("refused", Unreachable, "busy"),
            ("missing", NotThere, "not in"),
            ("cut", Unreachable, "in the middle"),
        )
        for name, what in (
            ("timestamp", metadata_of("timestamp")),
            ("snapshot", metadata_of("snapshot")),
            ("targets", metadata_of("targets")),
            ("released", metadata_of("released")),
            ("revoked", metadata_of("revoked")),
            ("bundle", the_good_one),
            ("weights", the_weights),
        )
        if (how, name) != ("cut", "timestamp")  # too small to be cut here
    ),
    Attack("no answer about the next root", Unreachable, "no answer", at("silent", next_root)),
    Attack("busy instead of the next root", Unreachable, "busy", at("refused", next_root)),
    Attack("no answer about an order", Unreachable, "no answer", at("silent", the_order)),
    Attack("no answer about the list", Unreachable, "no answer", at("silent", the_list)),
    Attack(
        "nothing answers",
        Unreachable,
        "no answer",
        lambda enemy: enemy.served.silent.update(enemy.served.files, [next_root(enemy)]),
    ),
    Attack("slow snapshot", Unreachable, "too long", at("slow", metadata_of("snapshot"))),
    Attack("slow bundle", Unreachable, "too long", at("slow", the_good_one)),
    Attack("slow weights", Unreachable, "too long", at("slow", the_weights)),
    # --- bytes that are not what they should be ---
    *(
        Attack(f"timestamp is {name}", Tampered, "", replaced(metadata_of("timestamp"), data))
        for name, data in (
            ("empty", constant(b"")),
            ("not JSON", constant(b"not JSON")),
            ("binary", constant(bytes(range(256)))),
            ("a list", constant(b"[]")),
            ("nested 4000 deep", constant(b"[" * 4000)),
            ("an object nested 1000 deep", constant(b'{"a":' * 1000)),
            ("UTF-16", lambda enemy, old: old.decode().encode("utf-16")),
            ("in two parts", lambda enemy, old: old + old),
            ("of version 10^3000", lambda enemy, old: with_version(old, b"1" + b"0" * 3000)),
            ("of version 10^5000", lambda enemy, old: with_version(old, b"1" + b"0" * 5000)),
            ("of version 1.5", lambda enemy, old: with_version(old, b"1.5")),
            ("of version -1", lambda enemy, old: with_version(old, b"-1")),
            ("of version NaN", lambda enemy, old: with_version(old, b"NaN")),
            ("of a version twice", lambda enemy, old: with_version(old, b'7,"version":1000')),
            ("of an old specification", lambda enemy, old: old.replace(b'"1.0.', b'"0.9.')),
            ("a snapshot", lambda enemy, old: enemy.role("snapshot", "later").to_bytes()),
        )
    ),
    Attack("timestamp with a key twice, cache wiped", Tampered, "somebody signs two", duplicate_key),
    Attack("bundle of other bytes", Tampered, "", replaced(the_good_one, lambda enemy, old: b"X" + old[1:])),
    Attack("bundle is evil", Tampered, "", replaced(the_good_one, constant(EVIL))),
    Attack("bundle too long", Tampered, "more than the", replaced(the_good_one, lambda enemy, old: old + b"X")),
    Attack("bundle cut short", Tampered, "", replaced(the_good_one, lambda enemy, old: old[:-1])),
    Attack("bundle empty", Tampered, "", replaced(the_good_one, constant(b""))),
    Attack("bundles swapped", Tampered, "", replaced(the_good_one, constant(CANDIDATE))),
    Attack("weights of other bytes", Tampered, "", replaced(the_weights, lambda enemy, old: b"X" + old[1:])),
    Attack("order of another edge", Tampered, "", replaced(the_order, lambda enemy, old: order_of_the_other(enemy))),
    Attack("order of other bytes", Tampered, "", replaced(the_order, constant(EVIL_ORDER))),
    Attack("list of other bytes", Tampered, "", replaced(the_list, constant(b'{"bundles": {}}'))),
    Attack("candidate's name for other bytes", Tampered, "other bytes than its name", candidate_of_other_bytes),
    Attack("order of 100 GiB", Tampered, "at most", huge_order),
    Attack("order by another hash", Tampered, "not named by a sha256", order_by_another_hash),
    *(
        Attack(f"list is {name}", Tampered, "not a list", list_of(data))
        for name, data in (
            ("not JSON", b"{"),
            ("nested deep", b"[" * 100_000),
            ("of no bundles", b'{"bundles": {"x": "now"}}'),
            ("of no times", b'{"bundles": {"' + b"0" * 64 + b'": "never"}}'),
            ("a number", b"7"),
        )
    ),
    Attack("list left out", Tampered, "has no revoked/list.json", list_left_out),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), float(int(time.time())))


@pytest.fixture
def station(world: World, tmp_path: Path) -> Iterator[Path]:
    before = world.lab.now_unix_s
    yield world.lab.clone(tmp_path / "station")
    world.lab.now_unix_s = before


def attack(row: Attack, world: World, station: Path, restarted: bool) -> tuple[Outcome, Outcome]:
    """Return what the station did under attack, and afterwards with an honest lab."""
    lab = world.lab
    now_unix_s = lab.now_unix_s
    served = lab.served(world.states["now"])
    trust = lab.trust(served, station)
    if not restarted:
        trust.refresh()
    enemy = Enemy(world, station, served, trust)
    row.act(enemy)
    if restarted:
        trust = lab.trust(served, station)
    under = ask_everything(trust, station / "weights")
    lab.now_unix_s = now_unix_s
    honest = lab.served(world.states["later"])
    again = lab.trust(honest, station) if restarted else trust
    if not restarted:
        served.__dict__.update(honest.__dict__)
    return under, ask_everything(again, station / "weights")


ACCEPTED: list[str] = []  # by all attacks of this process

# What cannot go on by itself once the enemy is gone, and why that is right.
LASTING = {
    "both floors lost": "a person must look why",
    "both floors and the cache lost": "a person must look why",
    "root given is exchanged": "the station has no root of its lab any more",
    "fast-forward with the online key": "the lab rotates the online key, see test_trust.py",
    "expired root": "the lab signs the next root",
}


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("row", ATTACKS, ids=[row.name for row in ATTACKS])
def test_an_attack_is_refused_and_what_was_trusted_still_is(
    row: Attack, restarted: bool, world: World, station: Path
) -> None:
    under, afterwards = attack(row, world, station, restarted)
    first = (unexpected(under) or under.raised)[0]
    assert type(first) is row.raised, repr(first)
    assert row.says in str(first)
    assert "\n" not in str(first)
    ACCEPTED.extend(under.accepted + afterwards.accepted)
    assert under.accepted + afterwards.accepted == []
    if row.name not in LASTING:
        assert unexpected(afterwards) == []


def test_many_attacks_were_made_and_none_was_accepted() -> None:
    assert len({row.name for row in ATTACKS}) == len(ATTACKS) >= 60
    assert len(ACCEPTED) == 0
