"""What the benches of use and scaling make of trials: shares that add up, medians that a failed run cannot flatter."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st


def bench(name: str) -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


mru, fleet_scaling = bench("mru"), bench("fleet_scaling")
PARTS = ("in_use", "bookkeeping", "handover", "waiting", "cut_short", "restart", "stopped")


def row(begins_s: float, reset_s: float, trial_s: float, rest_s: float, cause: str = "", used: bool = True) -> Any:
    ends_s = begins_s + reset_s + trial_s + rest_s
    return mru.Row("yam-1", "failure", cause, used, reset_s, trial_s, reset_s, trial_s, begins_s, ends_s)


@given(
    st.lists(
        st.tuples(*[st.floats(0.0, 40.0)] * 4, st.booleans(), st.sampled_from(["", "rotated", "crash"])), max_size=12
    ),
    st.floats(0.0, 100.0),
    st.floats(1.0, 300.0),
    st.booleans(),
)
def test_the_parts_of_a_window_add_up_to_it(
    drawn: list[tuple[float, float, float, float, bool, str]], begins_s: float, length_s: float, killed: bool
) -> None:
    rows, at_s = [], 0.0
    for gap_s, reset_s, trial_s, rest_s, used, cause in drawn:
        rows.append(row(at_s + gap_s, reset_s, trial_s, rest_s, cause, used))
        at_s = rows[-1].ended_unix_s
    window = mru.Window(begins_s, begins_s + length_s, "yam-1" if killed else "", begins_s + length_s / 2)
    spent = asdict(mru.account(rows, window, killed))
    assert sum(spent[name] for name in PARTS) == pytest.approx(length_s, abs=1e-6)
    assert 0.0 <= spent["useful"] <= spent["in_use"] + 1e-9


def test_a_kill_costs_the_trial_that_it_cut_short_and_the_way_back() -> None:
    cut = mru.Row("yam-1", "invalid", "crash", False, 0.0, 0.0, 0.0, 0.0, 30.0, 65.0)
    rows = [row(0.0, 10.0, 19.0, 1.0), cut, row(65.5, 10.0, 19.0, 1.0)]
    spent = mru.account(rows, mru.Window(0.0, 100.0, "yam-1", 50.0), True)
    assert (spent.cut_short, spent.restart, spent.in_use, spent.bookkeeping) == (20.0, 15.0, 58.0, 2.0)
    assert spent.handover + spent.stopped == pytest.approx(5.0)


def test_slip_is_how_much_longer_a_paced_stretch_took() -> None:
    slow = mru.Row("yam-1", "success", "", True, 10.0, 20.0, 11.0, 10.0, 0.0, 21.0)
    assert mru.slip([slow], 1.0) == {"reset": pytest.approx(0.1), "trial": pytest.approx(-0.5)}
    assert mru.slip([slow], 2.0)["trial"] == pytest.approx(0.0)
    assert mru.slip([slow], 0.0) == {"reset": None, "trial": None}


def campaign(stations: int, minutes: float | None, starts: str = "held-out") -> dict[str, Any]:
    to = {"successes": 96, "trials": 100, "starts": starts}
    return {"stations": stations, "to_target": minutes and {"clock_minutes": minutes}, "to": to, "audit": None}


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [([60.0, 120.0, 180.0], 2.0), ([60.0, 120.0, None], 2.0), ([60.0, None, None], None), ([], None)],
)
def test_a_run_that_missed_the_target_counts_as_later_than_all(
    minutes: list[float | None], expected: float | None
) -> None:
    assert fleet_scaling.median_hours([campaign(1, item) for item in minutes]) == expected


def test_speed_up_is_of_medians_and_none_where_one_is_missing() -> None:
    runs = [campaign(1, 240.0), campaign(1, 260.0), campaign(1, 600.0), campaign(8, 52.0)]
    assert fleet_scaling.speed_up(runs, 8) == pytest.approx(5.0)
    assert fleet_scaling.speed_up(runs, 4) is None


def test_held_out_counts_are_not_mixed_with_others() -> None:
    assert fleet_scaling.pooled([campaign(1, 1.0), campaign(1, 1.0, "development and gate")], "to") == (96, 100)
    assert fleet_scaling.pooled([campaign(1, 1.0)], "audit") == (0, 0)
    assert fleet_scaling.seed_policy([{"from": {"successes": 1, "trials": 8}}, {"from": None}]) == (1, 8)
