"""The summary's figures are those that the rows give, and a claim of success carries all that it must."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.campaign import Attempt
from coordinator.evolution.records import (
    CandidateMade,
    DecisionMade,
    Event,
    HeldoutMeasured,
    HypothesisMade,
    TrialUsed,
)
from coordinator.ingest import Batch
from coordinator.store import FILE, Store
from coordinator.summary import Integrity, Observed, check_integrity, summarise, write_summary
from edge.records import Lease, Outcome, Sealed, Trial, encode

START_S = 1_700_000_000.0
SEED, BETTER = "a" * 64, "b" * 64
OBSERVED = Observed(START_S - 5.0, 0.0, {"station-1": 310.0}, 120.0, {})
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle=SEED,
    start_id="dev-1", purpose="baseline", seed=7, outcome=Outcome.FAILURE, cause="near", detail="", progress=0.5,
    measures={}, achieved_start={}, reset_s=10.0, reset_tries=1, trial_s=20.0, policy_steps=600, wall_reset_s=3.0,
    wall_trial_s=6.0, started_unix_s=START_S + 1.0, ended_unix_s=START_S + 10.0, station_hash="5" * 64,
    calibration_hash="6" * 64, software="s", recording="",
)  # fmt: skip


KEY = Ed25519PrivateKey.generate()


def batch(*trials: Trial) -> Batch:
    """Return sealed trials, each chained to something of its own."""
    sealed = []
    for body in map(encode, trials):
        link = hashlib.sha256(b"before" + body).digest()
        sealed.append(Sealed(body, link, KEY.sign(Sealed(body, link, b"").chain)))
    return Batch(KEY.public_key().public_bytes_raw().hex(), tuple(sealed))


def begin(folder: Path, task: str = "push_t") -> Store:
    store = Store(folder / FILE)
    store.begin_campaign({
        "campaign_id": "c", "task": task, "seed": 7, "stations": 1, "target_successes": 46, "target_trials": 50,
        "budget_minutes": 8.0, "started_unix_s": START_S,
    })  # fmt: skip
    for name in (SEED, BETTER):
        store.add_bundle({
            "bundle": name, "parent": None, "task": task, "policy": task, "params": {}, "manifest": {},
            "archive": b"", "created_unix_s": START_S,
        })  # fmt: skip
    store.station_seen({
        "edge": "station-1", "epoch": "e1", "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s",
        "peak_memory_mb": 310.0,
    }, START_S)  # fmt: skip
    store.write(seed_events())
    return store


def seed_events() -> list[Event]:
    return [
        HypothesisMade(1, "offline", "seed", "It pushes.", "It does not.", {}, START_S),
        CandidateMade(1, 1, SEED, None, "accepted", START_S),
        HypothesisMade(2, "offline", "switch", "Softer is better.", "No gain.", {"ease": True}, START_S),
        CandidateMade(2, 2, BETTER, 1, "gate", START_S),
    ]


def ask_for(store: Store, names: list[str]) -> None:
    attempts = [Attempt(name, 1, SEED, "dev-1", {}, 7, "baseline", None) for name in names]
    store.lease(Lease("l1", "push_t", (), START_S + 600.0), "station-1", attempts, START_S)


@pytest.fixture
def finished(tmp_path: Path) -> dict[str, Any]:
    """Ten minutes on one station: the seed fails, one idea is accepted in minute four and reaches the target."""
    with begin(tmp_path) as store:
        ask_for(store, [f"a{number}" for number in range(1, 9)])
        good = replace(TRIAL, outcome=Outcome.SUCCESS, cause="", bundle=BETTER, purpose="heldout")
        trials = [
            TRIAL,
            replace(TRIAL, outcome=Outcome.INVALID, cause="reset", reset_tries=3, reset_s=40.0),
            replace(TRIAL, reset_tries=0, reset_s=1.0),
            *[good] * 5,
        ]
        numbered = [replace(t, sequence=n, assignment_id=f"a{n}") for n, t in enumerate(trials, start=1)]
        store.ingest(batch(*numbered), START_S + 20.0)
        store.write([
            DecisionMade(1, 2, "accept", "gate", "", 9, 8, 1, 21.0, 8, 9, 1, 9, 77.8, 18, START_S + 240.0),
            HeldoutMeasured(1, 2, 46, 50, 0.81, 0.98, True, START_S + 540.0),
            *[TrialUsed("station-1", "e1", number) for number in range(4, 9)],
        ])  # fmt: skip
        store.end_campaign("c", "the target was reached", START_S + 600.0)
    return summarise(tmp_path, OBSERVED)


def test_counts_times_and_shares_follow_from_the_rows(finished: dict[str, Any]) -> None:
    trials = finished["trials"]
    assert (trials["total"], trials["valid"], trials["successes"], trials["used"]) == (8, 7, 5, 5)
    assert trials["invalid_by_cause"] == {"reset": 1}
    assert finished["wall_minutes"] == pytest.approx(10.0)
    assert finished["station_minutes"] == pytest.approx((8 * 20 + 6 * 10 + 40 + 1) / 60)
    assert finished["mru"]["any_experiment"] == pytest.approx(8 * 6 / 600)
    assert finished["mru"]["useful"] == pytest.approx(5 * 6 / 600)
    assert finished["reset_share"] == pytest.approx(8 * 3 / 600)
    assert finished["first_trial_s"] == pytest.approx(15.0)
    assert finished["minutes_to_first_accept"] == pytest.approx(4.0)
    assert finished["minutes_to_target"] == pytest.approx(9.0)


def test_resets_count_those_that_needed_the_arm(finished: dict[str, Any]) -> None:
    ready = finished["reset"]["ready_at_first_try"]
    assert (ready["successes"], ready["trials"]) == (6, 7)
    assert finished["reset"]["median_station_s"] == 10.0


def test_a_claim_of_success_carries_its_count_interval_hashes_station_and_seed(finished: dict[str, Any]) -> None:
    claim = finished["to"]
    assert (claim["successes"], claim["trials"], claim["starts"]) == (46, 50, "held-out")
    assert claim["low_percent"] < 92.0 < claim["high_percent"]
    assert (claim["policy"], claim["seed"]) == (BETTER, 7)
    assert (claim["station_hashes"], claim["calibration_hashes"]) == (["5" * 64], ["6" * 64])
    assert finished["from"]["successes"] == 0
    assert [(item["sentence"], item["gain_points"]) for item in finished["accepted"]] == [("Softer is better.", 77.8)]
    assert [item["of_tried"] for item in finished["accepted"]] == [1]
    assert finished["audit"] is None
    assert finished["to_target"]["minute"] == finished["minutes_to_target"]
    assert finished["climb"][-1]["percent"] == finished["to"]["percent"]
    assert finished["verdicts"]["canaries"]["trials"] == 0


def test_a_run_in_which_nothing_happened_still_has_a_summary(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    summary = summarise(tmp_path, OBSERVED)
    assert (summary["trials"]["total"], summary["from"], summary["reset"], summary["first_trial_s"]) == (
        0, None, None, None,
    )  # fmt: skip
    assert json.loads(write_summary(tmp_path, summary).read_text()) == summary


@pytest.mark.parametrize(
    ("trials", "begun", "expected"),
    [
        ([(1, "a1"), (2, "a2")], {"station-1": 2}, Integrity(0, 0, 0, 0, 0)),
        ([(1, "a1"), (3, "a2")], {"station-1": 3}, Integrity(1, 0, 0, 0, 0)),
        ([(2, "a1")], {}, Integrity(1, 0, 0, 0, 0)),
        ([(1, "a1")], {"station-1": 2}, Integrity(0, 1, 0, 0, 0)),
        ([(1, "a1"), (2, "a1")], {}, Integrity(0, 0, 1, 0, 0)),
        ([(1, "a1"), (2, "other")], {}, Integrity(0, 0, 0, 1, 0)),
        ([], {"station-1": 1}, Integrity(0, 1, 0, 0, 0)),
    ],
)
def test_what_is_missing_or_too_much_is_counted(
    tmp_path: Path, trials: list[tuple[int, str]], begun: dict[str, int], expected: Integrity
) -> None:
    with begin(tmp_path) as store:
        ask_for(store, ["a1", "a2"])
        store.ingest(batch(*[replace(TRIAL, sequence=n, assignment_id=name) for n, name in trials]), START_S)
        assert check_integrity(tmp_path / FILE, begun) == expected


def test_a_quarantined_trial_is_counted(tmp_path: Path) -> None:
    with begin(tmp_path) as store:
        ask_for(store, ["a1"])
        store.ingest(batch(TRIAL, replace(TRIAL, detail="forged")), START_S)
        assert check_integrity(tmp_path / FILE, {}).quarantined == 1
