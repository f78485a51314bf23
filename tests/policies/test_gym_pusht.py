"""The policy of gym-pusht: its geometry against plain definitions, its ways round the T, what playing teaches."""

from __future__ import annotations

import json
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import gym_pusht
from policies.gym_pusht import policy
from policies.gym_pusht.detour import CLOSEST_M, way
from policies.gym_pusht.pushes import MIRROR, library_of, line_of, ranked
from policies.gym_pusht.tee import (
    GOAL,
    LENGTHS_M,
    OUTLINE_M,
    TOOL_RADIUS_M,
    corners_apart_m,
    distance_m,
    error_m,
    motion_between,
    moved,
    on_perimeter,
    to_tee,
    to_world,
)
from policies.interface import Array, TrialOver
from policies.space import load_space

FOLDER = Path(gym_pusht.__path__[0])
ANGLES = st.floats(-np.pi, np.pi)
PLACES = st.tuples(st.floats(0.1, 0.4), st.floats(0.1, 0.4))
POSES = st.builds(lambda place, yaw: np.array([*place, yaw]), PLACES, ANGLES)
SHARES = st.floats(0.0, 1.0, exclude_max=True)


def corners(pose: Array) -> Array:
    return to_world(pose, OUTLINE_M)


@given(SHARES)
def test_the_perimeter_runs_along_the_outline_and_its_normals_lead_inside(place: float) -> None:
    point, inward = on_perimeter(place)
    if np.hypot(*(OUTLINE_M - point).T).min() < 1e-3:
        return  # at a corner there is no one normal
    assert distance_m((point - 1e-4 * inward)[None])[0] == pytest.approx(1e-4, rel=1e-3)
    assert distance_m((point + 1e-4 * inward)[None])[0] == 0.0
    assert np.hypot(*inward) == pytest.approx(1.0)


def test_the_perimeter_is_gone_round_once_at_one_speed() -> None:
    points = np.array([on_perimeter(place)[0] for place in np.arange(0.0, 1.0, 1 / 960)])
    steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    assert steps.max() <= LENGTHS_M.sum() / 960 + 1e-9


@given(POSES, POSES)
def test_the_motion_between_two_poses_leads_from_one_to_the_other(before: Array, after: Array) -> None:
    assert corners(moved(before, motion_between(before, after))) == pytest.approx(corners(after), abs=1e-9)


@given(POSES)
def test_the_error_is_that_of_the_corners(pose: Array) -> None:
    plain = np.sqrt(((corners(pose) - corners(GOAL)) ** 2).sum(axis=1).mean())
    assert plain - 1e-9 <= error_m(pose) <= np.pi / 2 * plain + 1e-9
    near = moved(GOAL, np.array([0.001, -0.002, 0.01]))
    assert error_m(near) == pytest.approx(corners_apart_m(near, GOAL), rel=1e-3)


@given(POSES, PLACES)
def test_frames_are_each_other_s_inverse(pose: Array, place: tuple[float, float]) -> None:
    assert to_tee(pose, to_world(pose, np.array(place))) == pytest.approx(np.array(place))


@given(POSES, SHARES, SHARES, st.floats(-0.9, 0.9))
def test_a_way_round_the_t_never_touches_it(pose: Array, one: float, other: float, angle: float) -> None:
    lines = [line_of(one, 0.0), line_of(other, angle)]
    if lines[0] is None or lines[1] is None:
        return
    start, end = lines[0].start_m, lines[1].start_m
    points = way(pose, start, end)
    if points is None:
        return
    assert points[-1] is end
    at = start
    for point in points:
        dense = at + np.linspace(0.0, 1.0, 60)[:, None] * (point - at)
        assert distance_m(dense).min() >= TOOL_RADIUS_M + min(CLOSEST_M, 0.004) - 0.0015
        at = point


def test_a_t_in_the_middle_can_be_got_at_from_all_sides() -> None:
    pose = np.array([0.256, 0.2, 0.3])
    starts = [line.start_m for place in np.arange(0, 1, 0.05) if (line := line_of(place, 0.0)) is not None]
    assert len(starts) >= 16
    assert all(way(pose, one, other) is not None for one in starts for other in starts)


def row(place: float, angle: float, *outcome: float) -> dict[str, Any]:
    return {"move": {"place": place, "angle_rad": angle}, "outcome": list(outcome)}


def test_a_mirrored_push_moves_a_mirrored_t() -> None:
    rows = [row(0.1, 0.2, 0.02, 0.0, 0.004, 0.1, 0.06, 0.01, 0.03, 0.2)]
    plain, both = library_of(rows, False), library_of(rows, True)
    assert plain is not None
    assert both is not None
    half = len(plain.motions)
    assert len(both.motions) == 2 * half
    assert both.motions[half:] == pytest.approx(both.motions[:half] * MIRROR)
    assert both.lines[1].start_m == pytest.approx(both.lines[0].start_m * [-1, 1])
    # Pushing the mirror image of a pose gives the mirror image of the result.
    assert plain.motions[-1] == pytest.approx([0.01, 0.03, 0.2], abs=0.01)


def test_moves_without_an_outcome_teach_nothing() -> None:
    assert library_of([], True) is None
    assert library_of([row(0.1, 0.2, 0.05, 0.0, 0.0, 0.0)], False) is not None


@pytest.mark.parametrize("ahead", [0, 5])
def test_the_push_that_ends_at_the_goal_is_ranked_first(ahead: int) -> None:
    rows = [row(0.1, 0.0, 0.06, 0.0, 0.03, 0.0), row(0.6, 0.3, 0.06, 0.01, -0.02, 0.3)]
    library = library_of(rows, False)
    assert library is not None
    best = int(np.argmax(library.ways_m * (library.owner == 1)))
    # The pose from which this very push leads to the goal.
    motion = library.motions[best]
    yaw = GOAL[2] - motion[2]
    turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    pose = np.array([*(GOAL[:2] - turn @ motion[:2]), yaw])
    assert error_m(moved(pose, motion)) == pytest.approx(0.0, abs=1e-7)
    assert int(ranked(library, pose, ahead)[0]) == best


def test_what_the_policy_says_of_itself_is_read_and_its_play_is_its_own() -> None:
    space = load_space(FOLDER)
    assert space.play is not None
    assert (space.play.file, space.play.asks) == (policy.LEARNED.name, policy.ASKED.name)
    assert [item.name for item in space.play.moves] == ["place", "angle_rad"]


class Lab:
    """gym-pusht as a station's robot, without the station."""

    def __init__(self, folder: Path) -> None:
        from edge.gym_station.bench import GymBench
        from edge.gym_station.spec import read_spec
        from edge.gym_station.stations import ENVIRONMENTS, make_gym_stations
        from edge.station import load_station
        from edge.trials.armless import ArmlessRobot
        from edge.trials.robot import Bench

        make_gym_stations(folder, 1, "gym_pusht", "tcp/127.0.0.1:1")
        self.bench = GymBench(read_spec(tomllib.loads(ENVIRONMENTS["gym_pusht"])["gymnasium"]))
        never = Bench(
            self.bench.advance, self.bench.state, self.bench.look, lambda: False, lambda: None, lambda _: None
        )
        self.robot = ArmlessRobot(never, load_station(folder / "station-1"), lambda: self.bench.episode)
        self.params = load_space(FOLDER).complete({})

    def attempt(self, start: list[float], **params: bool) -> bool:
        """Run the policy once and return whether the environment calls it a success."""
        names = ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
        self.bench.reset(dict(zip(names, start, strict=True)))
        self.robot.begin(30.0)
        with suppress(TrialOver):
            policy.run(self.robot, {**self.params, **params})
        return bool(self.bench.info["is_success"])


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    pytest.importorskip("gym_pusht")
    monkeypatch.setattr(policy, "LEARNED", tmp_path / "pushes.json")
    monkeypatch.setattr(policy, "ASKED", tmp_path / "play.json")
    return Lab(tmp_path)


def starts(rng: np.random.Generator, count: int) -> list[list[float]]:
    """Return starts as the environment draws them."""
    return [
        [*rng.integers(50, 450, 2).tolist(), *rng.integers(100, 400, 2).tolist(), rng.uniform(-np.pi, np.pi)]
        for _ in range(count)
    ]


def test_the_seed_policy_is_naive(lab: Lab) -> None:
    assert sum(lab.attempt(start) for start in starts(np.random.default_rng(3), 12)) <= 3


def test_a_travel_round_the_t_leaves_it_where_it_was(lab: Lab) -> None:
    lab.bench.reset({"agent_x": 60, "agent_y": 60, "block_x": 256, "block_y": 240, "block_angle": 0.7})
    lab.robot.begin(30.0)
    hand = policy.Hand(lab.robot, lab.params)
    before = hand.pose
    for place in np.random.default_rng(0).uniform(size=12):
        line = line_of(float(place), 0.0)
        assert line is not None
        assert hand._go(to_world(hand.pose, line.start_m))
        assert np.hypot(*(hand.place - to_world(before, line.start_m))) <= 0.002
        tee = lab.robot.scene().find("tee")
        assert tee is not None
        assert (tee.x_m, tee.y_m, tee.yaw_rad) == pytest.approx(tuple(before), abs=1e-9)


def test_a_push_before_which_the_t_was_touched_is_not_made(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.bench.reset({"agent_x": 60, "agent_y": 60, "block_x": 256, "block_y": 240, "block_angle": 0.7})
    lab.robot.begin(30.0)
    hand = policy.Hand(lab.robot, lab.params)
    line = line_of(0.1, 0.0)
    assert line is not None
    hand.pose = moved(hand.pose, np.array([0.004, 0.0, 0.0]))  # where it was before it was touched
    log: list[tuple[float, Array]] = []
    steps = lab.bench.now_s
    assert hand.make(line, 0.05, log)
    assert log == []
    assert (hand.pose == policy.Hand(lab.robot, lab.params).pose).all()
    assert lab.bench.now_s > steps


def test_what_was_learned_by_playing_solves_fresh_starts(lab: Lab) -> None:
    rng = np.random.default_rng(7)
    rows: list[dict[str, Any]] = []
    places = (np.arange(32) * 0.618) % 1.0
    moves = [{"place": float(place), "angle_rad": float(rng.uniform(-0.9, 0.9))} for place in places]
    for first in range(0, 32, 8):
        policy.ASKED.write_text(json.dumps(moves[first : first + 8]))
        lab.attempt(starts(rng, 1)[0])
        rows += [json.loads(line) for line in lab.robot.notes.text.splitlines()]
    policy.ASKED.unlink()
    assert len(rows) >= 24
    assert all(len(item["outcome"]) % 4 == 0 for item in rows)
    # A row that is not true must not hold an attempt up for long.
    lie = rows[0]["move"] | {"angle_rad": 0.0}
    rows.append({"move": lie, "outcome": [0.02, 0.05, 0.1, 1.3, 0.1, 0.05, 0.1, 1.3]})
    policy.LEARNED.write_text(json.dumps(rows))
    for idea in ({}, {"mirror_pushes": True, "look_ahead": True}):
        assert sum(lab.attempt(start, **idea) for start in starts(rng, 8)) >= 7
