"""The store keeps each trial once, never overwrites one, and survives being opened again."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.campaign import Attempt
from coordinator.enrolment import Enrolment
from coordinator.evolution.records import (
    CandidateMade,
    CandidateState,
    DecisionMade,
    HeldoutMeasured,
    HypothesisMade,
    TrialUsed,
)
from coordinator.ingest import Batch, BatchRefused
from coordinator.store import FILE, Known, Store, StoreError
from edge.records import Lease, Outcome, Sealed, Trial, encode, first_link

NOW_S = 1_700_000_000.0
KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.FAILURE, cause="near", detail="2 mm off",
    progress=0.9, measures={"coverage": 0.93}, achieved_start={"x_m": 0.3}, reset_s=9.0, reset_tries=1, trial_s=20.0,
    policy_steps=600, wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5,
    station_hash="5" * 64, calibration_hash="6" * 64, software="s", recording="", notes={"why": "a note"},
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / FILE)


def rows(store: Store, query: str) -> list[Any]:
    return store._db.execute(query).fetchall()


def seal(body: bytes, key: Ed25519PrivateKey = KEY, previous: bytes | None = None) -> Sealed:
    """Seal a body as the edge that holds `key` does; chained to something of its own where nothing is given."""
    previous = previous or hashlib.sha256(b"before" + body).digest()
    return Sealed(body, previous, key.sign(Sealed(body, previous, b"").chain))


def batch(*bodies: bytes, key: Ed25519PrivateKey = KEY) -> Batch:
    return Batch(key.public_key().public_bytes_raw().hex(), tuple(seal(body, key) for body in bodies))


def keep(store: Store, body: bytes, now_s: float) -> str:
    return store.ingest(batch(body), now_s)[0].kept


def altered(body: bytes, **values: object) -> bytes:
    packed: bytes = msgpack.packb(msgpack.unpackb(body) | values)
    return packed


def test_a_trial_sent_twice_is_kept_once(store: Store) -> None:
    body = encode(TRIAL)
    assert [keep(store, body, NOW_S + again) for again in range(3)] == ["new", "same", "same"]
    assert rows(store, "SELECT sequence, received_unix_s FROM trials") == [(1, NOW_S)]
    assert rows(store, "SELECT * FROM quarantine") == []


def test_other_content_under_a_kept_identity_goes_to_quarantine_and_changes_nothing(store: Store) -> None:
    keep(store, encode(TRIAL), NOW_S)
    forged = encode(replace(TRIAL, outcome=Outcome.SUCCESS, cause=""))
    assert [keep(store, forged, NOW_S) for _ in range(2)] == ["conflict", "conflict"]
    assert rows(store, "SELECT outcome FROM trials") == [("failure",)]
    assert rows(store, "SELECT edge, epoch, sequence, body FROM quarantine") == [("station-1", "e1", 1, forged)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"progress": float("nan")}, "progress"),
        ({"progress": 1.0001}, "progress"),
        ({"progress": -0.0001}, "progress"),
        ({"trial_s": float("inf")}, "trial_s"),
        ({"measures": {"coverage": float("nan")}}, "coverage"),
        ({"measures": {"coverage": "high"}}, "coverage"),
        ({"notes": {"a": 1}}, "notes"),
        ({"sequence": 0}, "sequence"),
        ({"sequence": 2**63}, "sequence"),
        ({"seed": 2**64 - 1}, "seed"),
        ({"outcome": "victory"}, "victory"),
        ({"cause": ""}, "cause"),
        ({"edge": "../x"}, "edge"),
        ({"recording": "../../etc/passwd"}, "recording"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_no_station_can_have_measured_is_refused_by_name_and_kept_aside(
    store: Store, values: dict[str, object], named: str
) -> None:
    body = altered(encode(TRIAL), **values)
    [ingested] = store.ingest(batch(body), NOW_S)
    assert ingested.kept == "refused"
    assert named in ingested.reason
    assert rows(store, "SELECT * FROM trials") == []
    assert rows(store, "SELECT body FROM quarantine") == [(body,)]


@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_the_ends_of_the_range_are_allowed(store: Store, progress: float) -> None:
    assert keep(store, encode(replace(TRIAL, progress=progress)), NOW_S) == "new"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x91" * 5000, msgpack.packb([1, 2]), msgpack.packb("x")])
def test_noise_is_refused_without_an_identity(store: Store, body: bytes) -> None:
    [ingested] = store.ingest(batch(body), NOW_S)
    assert (ingested.kept, ingested.identity) == ("refused", None)


def test_a_bad_body_does_not_take_its_batch_with_it(store: Store) -> None:
    second = encode(replace(TRIAL, sequence=2))
    assert [item.kept for item in store.ingest(batch(encode(TRIAL), b"noise", second), NOW_S)] == [
        "new",
        "refused",
        "new",
    ]


def test_a_batch_that_cannot_be_written_leaves_nothing_behind(store: Store) -> None:
    store._db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON trials WHEN NEW.sequence = 2 BEGIN SELECT RAISE(ABORT, 'no room'); END"
    )
    with pytest.raises(StoreError, match="no room"):
        store.ingest(batch(encode(TRIAL), encode(replace(TRIAL, sequence=2))), NOW_S)
    assert rows(store, "SELECT * FROM trials") == []


def test_what_was_kept_is_there_after_a_crash(tmp_path: Path) -> None:
    store = Store(tmp_path / FILE)
    keep(store, encode(TRIAL), NOW_S)
    # The first connection is left as a killed process would leave it: not closed, its log not folded in.
    with Store(tmp_path / FILE) as again:
        assert keep(again, encode(TRIAL), NOW_S) == "same"


def test_a_trial_settles_its_assignment_and_a_late_one_does_not_revive_it(store: Store) -> None:
    prepare_candidate(store)
    attempts = [Attempt(name, 1, "b" * 64, "dev-1", {"x_m": 0.3}, 7, "screen", None) for name in ("a1", "a2")]
    store.lease(Lease("l1", "push_t", (), NOW_S + 600), "station-1", attempts, NOW_S)
    store.void(["a2"], NOW_S)
    for sequence, name in enumerate(("a1", "a2"), start=1):
        keep(store, encode(replace(TRIAL, sequence=sequence, assignment_id=name)), NOW_S)
    assert rows(store, "SELECT assignment_id, state FROM assignments ORDER BY 1") == [("a1", "done"), ("a2", "void")]
    store.write([TrialUsed("station-1", "e1", 1)])
    assert rows(store, "SELECT assignment_id, used FROM trials ORDER BY 1") == [("a1", 1), ("a2", 0)]


def test_a_station_keeps_its_first_day_and_shows_its_newest_epoch(store: Store) -> None:
    row = {
        "edge": "s", "epoch": "e1", "station_hash": "", "calibration_hash": "", "software": "", "peak_memory_mb": 1.0
    }  # fmt: skip
    store.station_seen(row, NOW_S)
    store.station_seen(row | {"epoch": "e2"}, NOW_S + 5)
    assert rows(store, "SELECT epoch, first_seen_unix_s, last_seen_unix_s FROM stations") == [("e2", NOW_S, NOW_S + 5)]
    store.peak_memory("s", 250.0)
    store.peak_memory("stranger", 9.0)
    assert rows(store, "SELECT edge, peak_memory_mb FROM stations") == [("s", 250.0)]


def test_a_recording_is_missing_until_it_has_come(store: Store) -> None:
    keep(store, encode(replace(TRIAL, recording="1" * 64)), NOW_S)
    assert store.recordings_missing() == 1
    store.add_recording("1" * 64, "station-1", "recordings/x.mcap", 10, NOW_S)
    assert store.recordings_missing() == 0


def test_migrations_are_applied_once_and_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    Store(path).close()
    Store(path).close()
    with sqlite3.connect(path) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        assert version >= 1
        database.execute(f"PRAGMA user_version = {version + 1}")
    with pytest.raises(StoreError, match="format"):
        Store(path)


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError) as error:
        Store(tmp_path / FILE)
    assert "\n" not in str(error.value)


def test_what_the_campaign_decides_lands_in_its_tables(store: Store) -> None:
    prepare_candidate(store)
    decided = DecisionMade(1, 1, "accept", "gate", "it wins", 9, 8, 1, 21.0, 8, 9, 1, 9, 77.8, 18, NOW_S)
    store.write([
        CandidateState(1, "accepted", NOW_S), decided, HeldoutMeasured(1, 1, 46, 50, 0.81, 0.98, True, NOW_S)
    ])  # fmt: skip
    assert rows(store, "SELECT state, ended_unix_s FROM candidates") == [("accepted", NOW_S)]
    assert rows(store, "SELECT verdict, gain_points FROM decisions") == [("accept", 77.8)]
    assert rows(store, "SELECT successes, trials, complete FROM heldout") == [(46, 50, 1)]


def test_a_decision_about_nothing_is_refused_with_all_that_came_with_it(store: Store) -> None:
    prepare_candidate(store)
    orphan = HeldoutMeasured(1, 99, 1, 2, 0.0, 1.0, True, NOW_S)
    with pytest.raises(StoreError):
        store.write([CandidateState(1, "accepted", NOW_S), orphan])
    assert rows(store, "SELECT state FROM candidates") == [("screen",)]


def prepare_candidate(store: Store) -> None:
    """Keep a bundle and a candidate that was made from it."""
    store.add_bundle({
        "bundle": "b" * 64, "parent": None, "task": "push_t", "policy": "push_t", "params": {}, "manifest": {},
        "archive": b"", "created_unix_s": NOW_S,
    })  # fmt: skip
    store.write([
        HypothesisMade(1, "offline", "seed", "It works.", "It does not.", {}, NOW_S),
        CandidateMade(1, 1, "b" * 64, None, "screen", NOW_S),
    ])  # fmt: skip


def test_only_what_its_edge_has_sealed_is_kept(store: Store) -> None:
    keep(store, encode(TRIAL), NOW_S)
    second = encode(replace(TRIAL, sequence=2))
    good = seal(second)
    forged = [
        replace(good, signature=bytes(64)),
        replace(good, body=altered(second, progress=1.0)),
        replace(good, previous=bytes(32)),
        seal(second, STRANGER),
    ]
    for item in forged:
        [ingested] = store.ingest(Batch(batch().key, (item,)), NOW_S)
        assert (ingested.kept, ingested.identity) == ("refused", ("station-1", "e1", 2))
        assert "signature" in ingested.reason
    [stranger] = store.ingest(batch(second, key=STRANGER), NOW_S)  # well sealed, by somebody else
    assert (stranger.kept, "another key" in stranger.reason) == ("refused", True)
    assert store.ingest(Batch(batch().key, (good,)), NOW_S)[0].kept == "new"
    assert rows(store, "SELECT COUNT(*) FROM quarantine") == [(2,)]  # the others had the same body as another
    assert rows(store, "SELECT public_key FROM ledgers") == [(batch().key,)]


def test_two_trials_chained_to_the_same_one_are_a_copied_card(store: Store) -> None:
    link = first_link("e1")
    key = batch().key
    first = seal(encode(TRIAL), previous=link)
    second = seal(encode(replace(TRIAL, sequence=2)), previous=first.chain)
    copied = seal(encode(replace(TRIAL, sequence=3)), previous=first.chain)
    assert [item.kept for item in store.ingest(Batch(key, (second, first, copied, second)), NOW_S)] == [
        "new", "new", "conflict", "same",
    ]  # fmt: skip


def test_the_store_tells_an_edge_what_it_lacks_and_what_a_backup_holds(store: Store) -> None:
    assert store.known_of("station-1", "e1") == Known(0, [], [])
    store.ingest(batch(*[encode(replace(TRIAL, sequence=number)) for number in (3, 4, 7, 8, 9)]), NOW_S)
    store._db.execute("UPDATE trials SET replicated = 1 WHERE sequence IN (3, 4, 8)")
    assert store.known_of("station-1", "e1") == Known(9, [(1, 2), (5, 6)], [(3, 4), (8, 8)])
    assert store.known_of("station-2", "e1") == Known(0, [], [])
    store.add_recording("a" * 64, "station-1", "recordings/a", 1, NOW_S)
    store.add_recording("b" * 64, "station-1", "recordings/b", 1, NOW_S)
    store._db.execute("UPDATE recordings SET replicated = 1 WHERE file = 'recordings/b'")
    assert store.recordings_of(["a" * 64, "b" * 64, "c" * 64]) == (["c" * 64], ["b" * 64])
    assert store.recordings_of([]) == ([], [])


def enrol(people: Enrolment, edge: str, key: Ed25519PrivateKey) -> None:
    """Enrol a machine whose ledger has this key."""
    row = people.of_ticket(people.ticket(edge, 1.0, NOW_S))
    assert row is not None
    words = "six words"
    people.bind(row, secrets.token_hex(32), key.public_key().public_bytes_raw().hex(), words, NOW_S)
    people.approve(edge, words, NOW_S)
    people.certified(row, "PEM", NOW_S)


def test_trials_of_an_enrolled_edge_are_signed_with_a_key_that_was_approved(store: Store, tmp_path: Path) -> None:
    def bring(edge: str, epoch: str, sequence: int, key: Ed25519PrivateKey = KEY) -> str:
        body = encode(replace(TRIAL, edge=edge, epoch=epoch, sequence=sequence))
        return store.ingest(batch(body, key=key), NOW_S)[0].kept

    with Enrolment(tmp_path / FILE) as people:
        enrol(people, "station-1", KEY)
        assert [bring("station-1", epoch, 1) for epoch in ("e1", "e2")] == ["new", "new"]
        with pytest.raises(BatchRefused, match="enrolled with another ledger's key"):
            bring("station-1", "e3", 1, STRANGER)
        assert bring("station-2", "e1", 1, STRANGER) == "new"  # nobody enrolled that one; its first key is believed
        enrol(people, "station-1", STRANGER)  # a new machine of that name
        assert bring("station-1", "e3", 1, STRANGER) == "new"
        assert bring("station-1", "e1", 2) == "new"  # what the old one had signed
        people.revoke("station-1", NOW_S)
        for key in (KEY, STRANGER):
            with pytest.raises(BatchRefused, match="was revoked"):
                bring("station-1", "e1", 3, key)
        enrol(people, "station-1", STRANGER)
        with pytest.raises(BatchRefused, match="another ledger's key"):
            bring("station-1", "e1", 3)
        assert bring("station-1", "e3", 2, STRANGER) == "new"
    assert rows(store, "SELECT COUNT(*) FROM quarantine") == [(0,)]


def test_a_ticket_alone_changes_nothing_for_a_ledger(store: Store, tmp_path: Path) -> None:
    with Enrolment(tmp_path / FILE) as people:
        row = people.of_ticket(people.ticket("station-1", 1.0, NOW_S))
        assert row is not None
        people.bind(row, "a", STRANGER.public_key().public_bytes_raw().hex(), "six words", NOW_S)
        assert keep(store, encode(TRIAL), NOW_S) == "new"
        people.deny("station-1", NOW_S)
        assert keep(store, encode(replace(TRIAL, sequence=2)), NOW_S) == "new"
