"""Eight stations reach the target much sooner than one, and none waits for work."""

from __future__ import annotations

import statistics

import pytest

from tests.harness.station_time import campaign_time

pytestmark = pytest.mark.demo
SEEDS = range(20)
LEAST_SPEED_UP = 5.0
TOLERANCE = 0.8  # of the bound: the ratio of two medians of twenty varies by about a tenth


def test_eight_stations_are_nearly_as_much_faster_as_they_are_more() -> None:
    one, eight = ([campaign_time(seed, stations) for seed in SEEDS] for stations in (1, 8))
    speed_up = statistics.median(item.target_s for item in one) / statistics.median(item.target_s for item in eight)
    work = statistics.median(item.attempts for item in eight) / statistics.median(item.attempts for item in one)
    print(f"seeds {SEEDS}: {speed_up:.2f} times sooner with eight stations, for {work:.2f} times the attempts")
    assert speed_up >= TOLERANCE * LEAST_SPEED_UP
    assert max(item.waited_s for item in [*one, *eight]) == 0.0
