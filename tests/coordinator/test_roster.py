"""What stations say is taken in, and nothing that they say can end the coordinator."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from coordinator.roster import MOST_FAILED_RESETS, REST_S, Roster
from edge.records import Outcome, Trial

STATUS = {
    "state": "trial",
    "detail": "",
    "refusal": "",
    "sequence": 3,
    "wall_unix_s": 100.0,
    "station_time_s": 20.0,
    "memory_mb": 250.0,
}
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l", task="push_t", bundle="b", start_id="s",
    purpose="screen", seed=1, outcome=Outcome.SUCCESS, cause="", detail="", progress=1.0, measures={},
    achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=25.0, policy_steps=700, wall_reset_s=0.4, wall_trial_s=0.7,
    started_unix_s=0.0, ended_unix_s=0.0, station_hash="", calibration_hash="", software="", recording="",
)  # fmt: skip


def status(**changes: Any) -> bytes:
    payload: bytes = msgpack.packb({**STATUS, **changes})
    return payload


def test_speed_is_station_time_over_wall_time() -> None:
    roster = Roster(["station-1"])
    roster.status("station-1", status())
    roster.status("station-1", status(wall_unix_s=102.0, station_time_s=36.0))
    assert roster.view("station-1").speed == pytest.approx(8.0)
    roster.status("station-1", status(wall_unix_s=103.0, station_time_s=0.5))  # it started anew
    assert roster.view("station-1").speed == 0.0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x01",
        msgpack.packb({}),
        status(sequence=float("inf")),
        status(sequence=float("nan")),
        status(sequence="three"),
        status(wall_unix_s=None),
    ],
)
def test_a_status_that_is_none_is_passed_over(payload: bytes) -> None:
    roster = Roster(["station-1"])
    roster.status("station-1", payload)
    roster.status("station-1", status())
    assert roster.view("station-1").last_sequence == 3


def test_an_absent_station_is_named_once() -> None:
    roster = Roster(["station-1", "station-2"])
    roster.presence("station-1", True, 0.0)
    roster.presence("station-1", False, 10.0)
    assert roster.away(5.0, 14.0) == []
    assert roster.away(5.0, 16.0) == ["station-1"]
    assert roster.away(5.0, 99.0) == []


def test_a_station_that_cannot_reset_rests_and_a_good_trial_ends_the_count() -> None:
    roster = Roster(["station-1"])
    failed = replace(TRIAL, outcome=Outcome.INVALID, cause="reset")
    for _ in range(MOST_FAILED_RESETS - 1):
        roster.delivered(failed, 50.0)
    roster.delivered(TRIAL, 50.0)
    assert roster.view("station-1").resting_until_unix_s == 0.0
    for _ in range(MOST_FAILED_RESETS):
        roster.delivered(failed, 60.0)
    view = roster.view("station-1")
    assert view.resting_until_unix_s == 60.0 + REST_S
    assert (view.trials, view.successes, view.invalid) == (1, 1, 2 * MOST_FAILED_RESETS - 1)


def test_the_rate_is_over_the_last_minute() -> None:
    roster = Roster(["station-1"])
    for second in range(0, 120, 2):
        roster.delivered(TRIAL, float(second))
    assert roster.per_minute(120.0, 0.0) == pytest.approx(30.0)
    assert Roster([]).per_minute(0.0, 0.0) == 0.0
