"""Laws of the leases: what is out is known, and what will not be run any more comes back exactly once."""

from dataclasses import asdict, replace
from typing import Any

import msgpack
import pytest

from coordinator.campaign import Attempt
from coordinator.leases import AFTER_LEASE_S, LEASE_S, Leases, Request, RequestRefused, read_request
from edge.records import PROTOCOL, Outcome, Trial

NOW_S = 1000.0
REQUEST = Request(PROTOCOL, "station-1", "e1", "push_t", 2, "", "", "", 300.0)
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l", task="push_t", bundle="b", start_id="s",
    purpose="screen", seed=1, outcome=Outcome.FAILURE, cause="near", detail="", progress=0.5, measures={},
    achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=25.0, policy_steps=700, wall_reset_s=0.4, wall_trial_s=0.7,
    started_unix_s=0.0, ended_unix_s=0.0, station_hash="", calibration_hash="", software="", recording="",
)  # fmt: skip


def attempts(*names: str) -> list[Attempt]:
    return [Attempt(name, 7, "b", f"start-{name}", {"x_m": 0.3}, 5, "gate", "pair-1") for name in names]


def brought(*names: str) -> list[Trial]:
    return [replace(TRIAL, assignment_id=name) for name in names]


def test_a_station_is_not_told_whose_candidate_it_runs() -> None:
    lease = Leases("push_t").grant(REQUEST, attempts("a1"), NOW_S)
    assert lease.expires_unix_s == NOW_S + LEASE_S
    [assignment] = lease.assignments
    assert set(asdict(assignment)) == {"assignment_id", "bundle", "start_id", "start", "seed", "purpose"}


def test_what_was_delivered_is_settled_and_what_came_before_it_was_lost() -> None:
    leases = Leases("push_t")
    leases.grant(REQUEST, attempts("a1", "a2"), NOW_S)
    leases.grant(REQUEST, attempts("a3"), NOW_S)
    assert leases.settle(brought("a2")) == ["a1"]
    assert leases.settle(brought("a2", "stranger")) == []
    assert leases.settle(brought("a3")) == []
    assert leases.expired(NOW_S + 1e6) == []


def test_a_trial_of_one_station_takes_nothing_from_another() -> None:
    leases = Leases("push_t")
    leases.grant(REQUEST, attempts("a1"), NOW_S)
    leases.grant(replace(REQUEST, edge="station-2"), attempts("a2"), NOW_S)
    assert leases.settle(brought("a2")) == []
    assert leases.left(["station-1"]) == ["a1"]
    assert leases.left(["station-1"]) == []


def test_a_new_ledger_gives_back_what_the_old_one_held() -> None:
    leases = Leases("push_t")
    leases.grant(REQUEST, attempts("a1"), NOW_S)
    leases.grant(replace(REQUEST, epoch="e2"), attempts("a2"), NOW_S)
    assert leases.renewed("station-1", "e2") == ["a1"]


def test_a_lease_comes_back_some_time_after_its_end_only() -> None:
    leases = Leases("push_t")
    leases.grant(REQUEST, attempts("a1"), NOW_S)
    assert leases.expired(NOW_S + LEASE_S + AFTER_LEASE_S - 1.0) == []
    assert leases.expired(NOW_S + LEASE_S + AFTER_LEASE_S) == ["a1"]


def test_a_request_survives_its_way() -> None:
    assert read_request(msgpack.packb(asdict(REQUEST)), "push_t") == REQUEST


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": PROTOCOL + 1}, "protocol"),
        ({"task": "pin"}, "about push_t"),
        ({"edge": "a/b"}, "cannot be"),
        ({"edge": 5}, "not a request"),
        ({"wants": -1}, "cannot be"),
        ({"wants": "two"}, "not a request"),
        ({"memory_mb": float("nan")}, "cannot be"),
        ({"software": 5}, "cannot be"),
        ({"unknown": 1}, "not a request"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestRefused, match=said):
        read_request(msgpack.packb({**asdict(REQUEST), **change}), "push_t")


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x01", b"\x90"])
def test_bytes_that_are_no_request_are_refused(payload: bytes) -> None:
    with pytest.raises(RequestRefused, match="not a request"):
        read_request(payload, "push_t")
