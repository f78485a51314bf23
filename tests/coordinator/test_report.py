"""A report tells what the database holds, escapes it, reaches for nothing outside, and bears a run cut short."""

from __future__ import annotations

import base64
import io
import json
import re
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from mcap.writer import Writer
from PIL import Image

from coordinator.report.film import gallery, read_frames, strips
from coordinator.report.hillclimb import spread
from coordinator.report.measures import Count, depth, idea_counts, incumbents, pass_at, resets, robot_use
from coordinator.report.run import NotARunError, load
from coordinator.report.timeline import away
from coordinator.report.tree import lane_names, place
from coordinator.report.verdicts import Verdicts, verdicts
from coordinator.report.write import write_report
from tests.harness.run_world import HOSTILE, STARTED_S, add_idea, add_trial, insert, make_database

PICTURES = ("hillclimb.png", "idea_tree.png", "utilisation.png", "failures.png")
SEED, BETTER, WORSE, BEST = "a" * 64, "b" * 64, "c" * 64, "d" * 64
BUNDLES = (SEED, BETTER, WORSE, BEST)
RECORDING_FAILURE, RECORDING_SUCCESS = "1" * 64, "2" * 64


def write_recording(path: Path, frames: int) -> None:
    """Write a real recording: two pictures each 0.5 s of the station's clock, beside another topic."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedImage", "jsonschema", b"{}")
        camera = writer.register_channel("/camera/top", "json", schema)
        joints = writer.register_channel("/joints", "json", schema)
        for index in range(frames):
            time_ns = 3_000_000_000 + index * 500_000_000
            buffer = io.BytesIO()
            Image.new("RGB", (320, 240), (10 * index, 80, 120)).save(buffer, "JPEG")
            body = {"format": "jpeg", "data": base64.b64encode(buffer.getvalue()).decode()}
            for _ in range(2):
                writer.add_message(camera, time_ns, json.dumps(body).encode(), time_ns)
            writer.add_message(joints, time_ns, b"{}", time_ns)
        writer.finish()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of ten minutes: a seed, one accepted, one rejected and again one accepted idea, on two stations."""
    with make_database(tmp_path) as database:
        insert(
            database, "campaigns", campaign_id="c1", task="push_t", seed=7, stations=2, target_successes=46,
            target_trials=50, budget_minutes=10.0, started_unix_s=STARTED_S, ended_unix_s=STARTED_S + 600,
            ended_why="the target was reached",
        )  # fmt: skip
        for edge in ("yam-1", "yam-2"):
            insert(
                database, "stations", edge=edge, epoch="e", station_hash="5" * 64, calibration_hash="6" * 64,
                software="s", first_seen_unix_s=STARTED_S, last_seen_unix_s=STARTED_S + 600, peak_memory_mb=321.0,
            )  # fmt: skip
        add_idea(database, 1, None, SEED, "accept", 0.0)
        add_idea(database, 2, 1, BETTER, "accept", 1.0, sentence=HOSTILE, changes={HOSTILE: True})
        add_idea(database, 3, 2, WORSE, "reject", 2.5)
        add_idea(database, 4, 2, BEST, "accept", 4.0, changes={"push_speed_m_s": 0.12})
        for sequence in range(20):
            edge = f"yam-{1 + sequence % 2}"
            recording = RECORDING_FAILURE if sequence == 1 else ""
            outcome = "success" if sequence == 0 else "failure"
            add_trial(database, sequence, SEED, outcome, edge=edge, recording=recording)
        for sequence in range(20, 40):
            recording = RECORDING_SUCCESS if sequence == 38 else ""
            outcome = "failure" if sequence == 39 else "success"
            add_trial(database, sequence, BEST, outcome, recording=recording, purpose="gate")
        add_trial(database, 40, BEST, "invalid", cause="camera_dark", used=0)
        add_trial(database, 41, BEST, "failure", purpose="heldout")
        insert(
            database, "heldout", candidate_id=4, successes=47, trials=50, low=0.0, high=1.0, complete=1,
            ended_unix_s=STARTED_S + 590,
        )  # fmt: skip
    write_recording(tmp_path / "recordings" / f"{RECORDING_FAILURE}.mcap", frames=11)
    write_recording(tmp_path / "recordings" / f"{RECORDING_SUCCESS}.mcap", frames=2)
    return tmp_path


def test_the_page_and_its_pictures_hold_the_figures_of_the_database(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    for name in PICTURES:
        with Image.open(run_dir / name) as picture:
            assert picture.width > 600
    best = Count(47, 50)
    for expected in ("1/20 = 5 %", best.text, "push speed 0.12 m/s", "42 trials", "10.0 wall minutes", "camera_dark"):
        assert expected in page
    assert page.count("data:image/png;base64,") == 2 * len(PICTURES)
    assert page.count("data:image/jpeg;base64,") == 6 + 2


def test_the_ideas_add_up_whatever_became_of_them(run_dir: Path) -> None:
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        for number, verdict in enumerate(("superseded", "superseded", "inconclusive", ""), start=5):
            add_idea(database, number, 4, f"{number}" * 64, verdict, 6.0)
    counts = idea_counts(load(run_dir))
    assert counts.pop("tried") == sum(counts.values()) == 7
    words = "7 tried: 2 accepted, 1 rejected, 1 inconclusive, 2 superseded, 1 undecided at the end"
    assert words in write_report(run_dir).read_text()


@pytest.mark.parametrize(("stage", "compared"), [("gate", "12 pairs"), ("screen", "12 attempts"), ("smoke", "")])
def test_the_page_says_what_was_compared_and_what_a_win_is(run_dir: Path, stage: str, compared: str) -> None:
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        database.execute("UPDATE decisions SET stage = ?", (stage,))
    page = write_report(run_dir).read_text()
    assert page.count(f"<td>{compared}</td><td>7 / 1</td>") == 3
    for said in ("Wins and losses count comparisons", "over different sets of starts", "station_utilisation"):
        assert said in page


def test_what_was_never_tried_has_no_gain(run_dir: Path) -> None:
    assert write_report(run_dir).read_text().count("<td>+50 points</td>") == 3
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        database.execute("UPDATE decisions SET candidate_successes = 0, candidate_trials = 0 WHERE candidate_id = 3")
    assert write_report(run_dir).read_text().count("<td>+50 points</td>") == 2


def test_the_page_reaches_for_nothing_outside_itself(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    assert "://" not in page
    assert not re.search(r"<(script|link|iframe)", page)
    for source in re.findall(r'(?:src|srcset|href)="([^"]*)"', page):
        assert source.startswith("data:image/")


def test_a_gain_stands_beside_how_many_candidates_were_tried_for_it(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    for expected in ("+50 points, one of 1 tried", "+50 points, one of 2 tried"):
        assert expected in page


def test_each_way_to_fail_has_a_strip_of_its_newest_recorded_trial(run_dir: Path) -> None:
    recordings = {"slipped": "3" * 64, "undecided": "4" * 64}
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        for sequence, (cause, recording) in enumerate(recordings.items(), start=50):
            outcome = "invalid" if cause == "undecided" else "failure"
            for earlier in (0, 10):
                add_trial(database, sequence + earlier, BEST, outcome, cause=cause, recording=recording)
            write_recording(run_dir / "recordings" / f"{recording}.mcap", frames=2)
    run = load(run_dir)
    shown = gallery(run, strips(run))
    assert [(item.trial.cause, item.trial.sequence) for item in shown] == [("slipped", 60), ("undecided", 61)]
    assert "failure: slipped (2 of 46 trials)" in write_report(run_dir).read_text()


def test_the_judge_is_told_by_abstentions_repeats_and_canaries(run_dir: Path) -> None:
    assert verdicts(load(run_dir)) == Verdicts(Count(0, 41), Count(0, 0), Count(0, 0))
    page = write_report(run_dir).read_text()
    assert "nothing was tried twice" in page
    assert "no canary was run" in page
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        outcomes = ("success", "success", "success", "failure", "failure")  # two pairs, and one that has no partner
        for sequence, outcome in enumerate(outcomes, start=50):
            add_trial(database, sequence, BEST, outcome, start_id="dev-x")
        add_trial(database, 60, BEST, "invalid", cause="undecided", start_id="dev-x")
        add_trial(database, 61, BEST, "success", purpose="check")
    told = verdicts(load(run_dir))
    assert told == Verdicts(abstentions=Count(1, 48), agreement=Count(1, 2), canaries=Count(1, 1))


@pytest.mark.parametrize("purpose", ["heldout", "audit", "check"])
def test_what_chose_no_policy_is_pooled_with_nothing(run_dir: Path, purpose: str) -> None:
    before = [reign.pooled for reign in incumbents(load(run_dir))]
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        add_trial(database, 50, BEST, "success", purpose=purpose)
    assert [reign.pooled for reign in incumbents(load(run_dir))] == before


def test_without_a_language_model_the_page_says_that_no_tokens_were_used(run_dir: Path) -> None:
    assert "the offline researcher uses no tokens" in write_report(run_dir).read_text()


def test_a_station_is_away_until_it_comes_and_from_a_cut_trial_until_it_is_back(run_dir: Path) -> None:
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        database.execute("UPDATE stations SET first_seen_unix_s = ?", (STARTED_S + 6.0,))
        add_trial(database, 44, BEST, "invalid", edge="yam-2", cause="crash", ended_unix_s=STARTED_S + 12.0 * 44 + 24.0)
    run = load(run_dir)
    assert away(run, "yam-1") == [(0.0, pytest.approx(0.1))]
    assert away(run, "yam-2") == [(0.0, pytest.approx(0.1)), (pytest.approx(8.8), pytest.approx(0.4))]


def test_a_lane_holds_a_family_and_names_the_researcher_where_there_are_several(run_dir: Path) -> None:
    run = load(run_dir)
    lanes = lane_names(run)
    assert lanes == ["one change"]
    assert place(run, lanes) == {1: (0, 0), 2: (1, -1), 3: (2, -1), 4: (3, -1)}
    with sqlite3.connect(run_dir / "coordinator.db") as database:
        database.execute("UPDATE hypotheses SET kind = 'sobol', researcher = 'claude' WHERE hypothesis_id = 3")
    assert lane_names(load(run_dir)) == ["offline: one change", "claude: parameters"]


def test_words_from_the_database_are_escaped(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(" in page


def test_incumbents_rule_from_their_decision_and_keep_heldout_trials_apart(run_dir: Path) -> None:
    run = load(run_dir)
    reigns = incumbents(run)
    assert [(reign.idea.candidate_id, reign.from_minute, reign.to_minute) for reign in reigns] == [
        (1, 0.0, 2.0),
        (2, 2.0, 5.0),
        (4, 5.0, 10.0),
    ]
    assert [reign.pooled for reign in reigns] == [Count(1, 20), Count(0, 0), Count(19, 20)]
    assert [reign.heldout for reign in reigns] == [None, None, Count(47, 50)]
    assert [depth(run, idea) for idea in run.ideas] == [0, 1, 2, 2]


def test_use_of_the_robots_is_told_three_ways(run_dir: Path) -> None:
    use = robot_use(load(run_dir))
    station_seconds = 2 * 600.0
    assert use.any_experiment == pytest.approx(42 * 8.0 / station_seconds)
    assert use.useful == pytest.approx(41 * 8.0 / station_seconds)
    assert use.candidates == pytest.approx(22 * 8.0 / station_seconds)
    assert use.resetting == pytest.approx(42 * 2.0 / station_seconds)
    assert use.any_at_work == pytest.approx(42 * 10.0 / station_seconds)
    assert use.useful_at_work == pytest.approx(41 * 10.0 / station_seconds)


def test_resets_that_needed_more_tries_or_never_got_ready_are_not_first_tries(tmp_path: Path) -> None:
    with make_database(tmp_path) as database:
        add_trial(database, 0, SEED, "failure")
        add_trial(database, 1, SEED, "failure", reset_tries=0, reset_s=0.5)  # found ready: nothing to reset
        add_trial(database, 2, SEED, "failure", reset_tries=2, reset_s=30.0)
        add_trial(database, 3, SEED, "invalid", cause="reset_failed", reset_s=40.0)
        add_trial(database, 4, SEED, "invalid", cause="stopped", trial_s=0.0, reset_s=1.0)  # broken off: neither
    measured = resets(load(tmp_path))
    assert measured is not None
    assert measured.first_try == Count(1, 3)
    assert measured.median_s == 30.0


@pytest.mark.parametrize(
    ("attempts", "measured", "expected"),
    [
        (8, Count(0, 50), 0.0),
        (8, Count(50, 50), 1.0),
        (8, Count(43, 50), 1.0),  # seven failures cannot fill eight attempts
        (1, Count(3, 50), 0.06),
        (8, Count(7, 7), None),
    ],
)
def test_pass_at_k_is_the_unbiased_estimate(attempts: int, measured: Count, expected: float | None) -> None:
    assert pass_at(attempts, measured) == (expected if expected is None else pytest.approx(expected))


def test_a_strip_holds_evenly_spread_frames_with_the_stations_time(run_dir: Path) -> None:
    failure, success = strips(load(run_dir))
    assert [frame.since_start_s for frame in failure.frames] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert failure.frames[0].station_s == 3.0
    assert [frame.since_start_s for frame in success.frames] == [0.0, 0.5]
    assert failure.trial.outcome == "failure"
    assert success.trial.sequence == 38


def test_a_broken_recording_is_said_and_spoils_nothing(run_dir: Path) -> None:
    path = run_dir / "recordings" / f"{RECORDING_FAILURE}.mcap"
    path.write_bytes(path.read_bytes()[:200])
    assert "its recording cannot be read" in write_report(run_dir).read_text()


def test_a_recording_without_camera_frames_gives_none(tmp_path: Path) -> None:
    path = tmp_path / "recordings" / "x.mcap"
    write_recording(path, frames=0)
    assert read_frames(path) == ()


@pytest.mark.parametrize("content", ["nothing", "campaign", "seed"])
def test_a_run_that_was_cut_short_still_gives_a_page(tmp_path: Path, content: str) -> None:
    with make_database(tmp_path) as database:
        if content != "nothing":
            insert(
                database, "campaigns", campaign_id="c1", task="push_t", seed=7, stations=4, target_successes=46,
                target_trials=50, budget_minutes=8.0, started_unix_s=STARTED_S,
            )  # fmt: skip
        if content == "seed":
            add_idea(database, 1, None, SEED, "", 0.0)
            add_trial(database, 0, SEED, "invalid", cause="power_cut")
    page = write_report(tmp_path).read_text()
    if content == "seed":
        assert "no trials" in page
    else:
        assert "This run ended before any trial was recorded." in page
    assert all((tmp_path / name).is_file() for name in PICTURES)


def test_a_torn_summary_is_left_out(run_dir: Path) -> None:
    summary = run_dir / "summary.json"
    summary.write_text('{"first_trial_s": 12.5, "memory": {"edge_mb": [1, 2]}}')
    assert "memory.edge_mb[1]" in write_report(run_dir).read_text()
    summary.write_text('{"first_trial_s": 12')
    assert "summary.json" not in write_report(run_dir).read_text()


@pytest.mark.parametrize("content", [None, b"this is no database, not even a small one"])
def test_a_folder_that_is_no_run_gives_one_line_and_a_failure(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "coordinator.db").write_bytes(content)
    with pytest.raises(NotARunError):
        load(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.report", str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "coordinator.db" in done.stderr


@pytest.mark.parametrize("positions", [[0.0, 0.0, 0.1, 5.0], [9.9, 9.95, 10.0], [1.0, 4.0, 8.0], []])
def test_numbers_above_the_hill_climb_never_touch(positions: list[float]) -> None:
    moved = spread(positions, 1.0, 10.0)
    assert len(moved) == len(positions)
    assert all(after - before >= 1.0 - 1e-9 for before, after in pairwise(moved))
    assert all(place <= 10.0 for place in moved)
