"""What a person reads while a campaign runs and at its end: calm, and claims with their count and interval."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from coordinator.campaign import Snapshot
from coordinator.display import BAR_CELLS, Display, View, clock, interval_bar
from coordinator.evolution.records import CandidateMade, DecisionMade, HypothesisMade
from coordinator.farewell import print_farewell
from coordinator.roster import StationView

SNAPSHOT = Snapshot(
    incumbent_id=1, incumbent_params={}, successes=3, trials=12, low=0.05, high=0.57, tried=4, accepted=(),
    testing=("push slower",), heldout_successes=0, heldout_done=0, heldout_total=50, heldout_running=False, outcomes={},
)  # fmt: skip
DECISION = DecisionMade(
    decision_id=2, candidate_id=5, verdict="accept", stage="gate", reason="", pairs=10, wins=8, losses=0, wealth=22.0,
    candidate_successes=9, candidate_trials=10, incumbent_successes=2, incumbent_trials=10, gain_points=70.0,
    trials_so_far=80, decided_unix_s=0.0,
)  # fmt: skip
CLAIM = {"successes": 32, "trials": 37, "percent": 86.5, "low_percent": 71.2, "high_percent": 95.5, "policy": "ab" * 32}
SUMMARY: dict[str, Any] = {
    "folder": "runs/x", "task": "push_t", "seed": 7, "stations": 4, "ended_why": "the budget was used up",
    "target": {"successes": 46, "trials": 50, "reached": False}, "station_minutes": 100.0, "wall_minutes": 8.2,
    "speed": 9.0, "trials": {"total": 400, "invalid_by_cause": {"undecided": 3}}, "reset_share": 0.4,
    "mru": {"any_experiment": 0.5, "useful": 0.4, "agents": 0.0, "offline_researcher": 0.3}, "reset": None,
    "first_trial_s": 9.0,
    "minutes_to_first_accept": 1.5, "minutes_to_target": None,
    "memory": {"stations_peak_mb": {"station-1": 320.0}, "coordinator_peak_mb": 150.0},
    "integrity": {"lost": 0, "doubled": 0, "invented": 0, "quarantined": 0, "at_stations": 2},
    "ideas": {"tried": 9, "accept": 1, "reject": 5, "inconclusive": 0, "superseded": 2, "open": 1},
    "files": {"report": "report.html"},
    "accepted": [{"gain": "+70 points of progress", "minute": 1.5, "sentence": "push slower", "of_tried": 6}],
    "audit": {"successes": 30, "trials": 40, "percent": 75.0, "low_percent": 59.0, "high_percent": 87.0,
              "complete": False, "invalid": 2},
    "from": {**CLAIM, "starts": "development and gate", "complete": False, "invalid": 0, "heldout_measurements": 3},
    "to": {**CLAIM, "starts": "held-out", "complete": False, "invalid": 1, "heldout_measurements": 3},
}  # fmt: skip


def view(elapsed_s: float) -> View:
    return View("push_t", elapsed_s, 480.0, 40, 60.0, 46, SNAPSHOT, [StationView("station-1")])


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_off_a_terminal_a_line_comes_each_ten_seconds() -> None:
    console = Console(file=io.StringIO(), width=200)
    with Display(console) as display:
        for second in range(25):
            display.show(view(float(second)))
    lines = printed(console).splitlines()
    assert [line.split()[0] for line in lines] == ["0:00", "0:10", "0:20"]
    assert "3/12 = 25 % (95 % interval 5–57 %)" in lines[0]


@pytest.mark.parametrize("width", [60, 100, 200])
def test_on_a_terminal_the_picture_fits_and_shows_what_runs(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with Display(console) as display:
        display.show(view(30.0))
        said = printed(console)
    assert "station-1" in said
    assert "7:30 left of 8:00" in said


def test_an_accepted_idea_is_a_line_that_stays_with_its_counts() -> None:
    console = Console(file=io.StringIO(), width=200)
    with Display(console) as display:
        display.tell(
            [
                HypothesisMade(3, "offline", "parameter", "push slower [bold]now", "", {}, 0.0),
                CandidateMade(5, 3, "b", 1, "screen", 0.0),
                DECISION,
            ],
            90.0,
        )
    assert (
        "1:30 accepted, +70 points (9/10 against 2/10 on fresh starts; 8 pairs won, 0 lost): push slower [bold]now"
        in printed(console)
    )


def test_the_farewell_says_where_a_claim_is_not_whole() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_farewell(console, SUMMARY)
    said = printed(console)
    assert "32/37 = 86 % (95 % interval 71–96 %) on held-out starts, stopped early, after 2 other" in said
    assert "measurements there (1 of the failures could not be judged), policy abababababab" in said
    assert "on development and gate starts, policy" in said
    assert "0 lost, 0 doubled, 2 still at a station; invalid: 3 undecided" in said
    assert "9 tried: 1 accepted, 5 rejected, 2 superseded, 1 undecided at the end" in said
    assert "of the whole run in a trial 50 %" in said
    assert "30/40 = 75 % (95 % interval 59–87 %) on audit starts, stopped early (2 of the" in said
    assert "+70 points of progress after 1.5 min, one of 6 tried  push slower" in said
    assert "9.0 s to the first finished trial, 1.5 min to the first accepted idea" in said


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_bar_is_always_as_long(one: float, two: float, three: float) -> None:
    low, rate, high = sorted((one, two, three))
    assert len(interval_bar(low, rate, high)) == BAR_CELLS


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (187.4, "3:07"), (-3.0, "0:00"), (3600.0, "60:00")])
def test_a_clock_shows_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text
