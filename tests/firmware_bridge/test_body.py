"""Room is what geometry says it is: against plain matrices, against a search along segments, at every wall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config

from firmware_bridge import body
from firmware_bridge.body import (
    BASE,
    BODY,
    BOX_ROOMS,
    CLEARANCE_M,
    FACE_ROOMS,
    FACES,
    FAR_PARTS,
    FLOOR_PARTS,
    NEAR_PARTS,
    PAIRS,
    PART_NAMES,
    POINTS,
    ROOMS,
)

NOWHERE_M = 100.0
FORMS = ("python",) if config.DISABLE_JIT else ("compiled", "python")
SEARCHES = 90  # each takes a third off the interval


@pytest.fixture(params=FORMS, autouse=True)
def _both_forms(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every case on the compiled functions and on their Python source, which coverage can see."""
    if request.param == "python":
        for name, function in vars(body).copy().items():
            if hasattr(function, "py_func"):
                monkeypatch.setattr(body, name, function.py_func)


def turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """Return a rotation (3, 3) by the series of its generator, which needs no formula to copy wrongly."""
    generator = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]]) * angle
    sum_, term = np.eye(3), np.eye(3)
    for power in range(1, 40):
        term = term @ generator / power
        sum_ = sum_ + term
    return sum_


def some_axis(rng: np.random.Generator) -> np.ndarray:
    axis = rng.normal(size=3)
    return np.asarray(axis / np.linalg.norm(axis))


def some_body(seed: int) -> np.ndarray:
    """Return an arm of random shape, (1,) of BODY, whose first two parts stand still."""
    rng = np.random.default_rng(seed)
    bodies = np.zeros(1, BODY)
    row = bodies[0]
    for link in range(6):
        row["joint_pos"][link] = rng.normal(0.0, 0.2, 3)
        row["joint_rot"][link] = turn(some_axis(rng), rng.uniform(-3, 3))
        row["joint_axis"][link] = some_axis(rng)
    row["point_link"] = [5, 2]
    row["point_offset"] = rng.normal(0.0, 0.1, (POINTS, 3))
    row["box_lower"] = rng.uniform(-1.0, 0.0, (POINTS, 3))
    row["box_upper"] = rng.uniform(0.0, 1.0, (POINTS, 3))
    row["capsule_link"] = [BASE, BASE, *rng.integers(0, 6, len(PART_NAMES) - 2)]
    row["capsule_a"] = rng.normal(0.0, 0.2, row["capsule_a"].shape)
    row["capsule_b"] = rng.normal(0.0, 0.2, row["capsule_b"].shape)
    row["capsule_radius"] = rng.uniform(0.01, 0.1, len(PART_NAMES))
    row["floor"] = rng.normal()
    return bodies


def link_poses(row: np.void, q_rad: np.ndarray) -> list[np.ndarray]:
    """Return where the links stand, as 4 x 4 matrices; BASE, which is -1, is the last."""
    here, poses = np.eye(4), []
    for link in range(6):
        step = np.eye(4)
        step[:3, :3] = row["joint_rot"][link] @ turn(row["joint_axis"][link], q_rad[link])
        step[:3, 3] = row["joint_pos"][link]
        here = here @ step
        poses.append(here)
    return [*poses, np.eye(4)]


def carried(pose: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return np.asarray(pose[:3, :3] @ offset + pose[:3, 3])


def searched_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the distance of two segments (2, 3): the least over a share of one of the distance to the other.

    That distance is convex in the share, so that a search by thirds finds the least.
    """
    way = other[1] - other[0]

    def from_other(share: float) -> float:
        here = one[0] + share * (one[1] - one[0])
        length = float(way @ way)
        along = float(np.clip((here - other[0]) @ way / length, 0.0, 1.0)) if length > 0.0 else 0.0
        return float(np.linalg.norm(here - other[0] - along * way))

    low, high = 0.0, 1.0
    for _ in range(SEARCHES):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if from_other(left) <= from_other(right):
            high = right
        else:
            low = left
    return min(from_other(low), from_other(0.0), from_other(1.0))


def measured(bodies: np.ndarray, q_rad: np.ndarray) -> np.ndarray:
    room = np.full(ROOMS, np.nan)
    body.measure_room(bodies, q_rad, room)
    return room


def expected_room(row: np.void, q_rad: np.ndarray) -> np.ndarray:
    """Return the rooms by matrices and search."""
    poses = link_poses(row, q_rad)
    room: list[float] = []
    for point in range(POINTS):
        place = carried(poses[row["point_link"][point]], row["point_offset"][point])
        for axis in range(3):
            room += [place[axis] - row["box_lower"][point, axis], row["box_upper"][point, axis] - place[axis]]
    ends = [
        np.array([carried(poses[link], row["capsule_a"][part]), carried(poses[link], row["capsule_b"][part])])
        for part, link in enumerate(row["capsule_link"])
    ]
    radius = row["capsule_radius"]
    room += [ends[part][:, 2].min() - radius[part] - row["floor"] - CLEARANCE_M for part in FLOOR_PARTS]
    room += [searched_distance(ends[a], ends[b]) - radius[a] - radius[b] - CLEARANCE_M for a, b in PAIRS]
    return np.array(room)


@pytest.mark.parametrize("seed", range(12))
def test_room_is_what_matrices_and_a_search_find(seed: int) -> None:
    bodies = some_body(seed)
    q_rad = np.random.default_rng(seed + 100).uniform(-3.0, 3.0, 6)
    np.testing.assert_allclose(measured(bodies, q_rad), expected_room(bodies[0], q_rad), atol=1e-7)


def standing_body() -> np.ndarray:
    """Return a body whose links all stand at the base's origin, each point and part far from everything."""
    bodies = np.zeros(1, BODY)
    row = bodies[0]
    row["joint_rot"], row["joint_axis"] = np.eye(3), [0.0, 0.0, 1.0]
    row["box_lower"], row["box_upper"], row["floor"] = -NOWHERE_M, NOWHERE_M, -NOWHERE_M
    for part in range(len(PART_NAMES)):
        row["capsule_a"][part] = row["capsule_b"][part] = [part * 10.0, 0.0, 0.0]
    return bodies


@pytest.mark.parametrize("point", range(POINTS))
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("room_m", [-1e-3, 0.0, 1e-3])
def test_each_face_of_each_box_has_its_own_room(point: int, axis: int, side: int, room_m: float) -> None:
    bodies = standing_body()
    field = ("box_lower", "box_upper")[side]
    bodies[0][field][point, axis] = room_m if side == 1 else -room_m
    room = measured(bodies, np.zeros(6))
    row = point * FACES + axis * 2 + side
    assert room[row] == room_m
    assert (np.delete(room, row) > 1.0).all()


@pytest.mark.parametrize("row", range(len(FLOOR_PARTS)))
@pytest.mark.parametrize("end", ["capsule_a", "capsule_b"])
@pytest.mark.parametrize("room_m", [-1e-3, 0.0, 1e-3])
def test_the_lower_end_of_each_part_keeps_off_the_floor(row: int, end: str, room_m: float) -> None:
    bodies = standing_body()
    part = FLOOR_PARTS[row]
    bodies[0]["capsule_radius"][part] = 0.04
    bodies[0][end][part, 2] = -NOWHERE_M + 0.04 + CLEARANCE_M + room_m
    room = measured(bodies, np.zeros(6))
    assert room[BOX_ROOMS + row] == pytest.approx(room_m, abs=1e-12)
    assert (np.delete(room, BOX_ROOMS + row) > 1.0).all()


@pytest.mark.parametrize("pair", range(len(PAIRS)))
@pytest.mark.parametrize("room_m", [-1e-3, 0.0, 1e-3])
def test_each_pair_keeps_its_radii_and_the_clearance_apart(pair: int, room_m: float) -> None:
    bodies = standing_body()
    row, (near, far) = bodies[0], PAIRS[pair]
    row["capsule_radius"][[near, far]] = 0.03, 0.05
    place = row["capsule_a"][near] + [0.0, 0.03 + 0.05 + CLEARANCE_M + room_m, 0.0]
    row["capsule_a"][far] = row["capsule_b"][far] = place
    room = measured(bodies, np.zeros(6))
    assert room[FACE_ROOMS + pair] == pytest.approx(room_m, abs=1e-12)
    assert (np.delete(room, FACE_ROOMS + pair) > 1.0).all()


@pytest.mark.parametrize("joint", range(6))
def test_a_joint_that_is_nan_leaves_room_nowhere(joint: int) -> None:
    bodies = some_body(3)
    row = bodies[0]
    row["point_link"], row["capsule_link"][2:] = 5, 5
    q_rad = np.zeros(6)
    q_rad[joint] = np.nan
    room = measured(bodies, q_rad)
    moving = [not {near, far} <= {0, 1} for near, far in PAIRS]
    assert not (room[:FACE_ROOMS] >= -np.inf).any()
    assert not (room[FACE_ROOMS:][moving] >= -np.inf).any()


def test_the_pairs_are_what_can_meet() -> None:
    names = {(PART_NAMES[near], PART_NAMES[far]) for near, far in PAIRS}
    assert names == {(near, far) for near in NEAR_PARTS for far in FAR_PARTS} | {
        ("base plate", "forearm"),
        ("base", "forearm"),
    }
    assert len(names) == len(PAIRS) == ROOMS - FACE_ROOMS


POINT = [0.0, 0.0, 0.0]
SEGMENTS = [
    ("crossing", [[-1, 0, 0], [1, 0, 0]], [[0, -1, 2], [0, 1, 2]], 2.0),
    ("touching", [[-1, 0, 0], [1, 0, 0]], [[0, -1, 0], [0, 1, 0]], 0.0),
    ("end on middle", [[-1, 0, 0], [1, 0, 0]], [[0, 3, 0], [0, 5, 0]], 3.0),
    ("middle on end", [[0, 3, 0], [0, 5, 0]], [[-1, 0, 0], [1, 0, 0]], 3.0),
    ("end on end", [[0, 0, 0], [1, 0, 0]], [[4, 4, 0], [9, 9, 0]], 5.0),
    ("parallel, overlapping", [[0, 0, 0], [2, 0, 0]], [[1, 1, 0], [3, 1, 0]], 1.0),
    ("parallel, apart", [[0, 0, 0], [1, 0, 0]], [[4, 4, 0], [6, 4, 0]], 5.0),
    ("one line, apart", [[0, 0, 0], [1, 0, 0]], [[3, 0, 0], [5, 0, 0]], 2.0),
    ("one line, overlapping", [[0, 0, 0], [2, 0, 0]], [[1, 0, 0], [5, 0, 0]], 0.0),
    ("the same", [[0, 0, 0], [2, 1, 0]], [[0, 0, 0], [2, 1, 0]], 0.0),
    ("a point and a segment", [POINT, POINT], [[-1, 2, 0], [1, 2, 0]], 2.0),
    ("two points", [POINT, POINT], [[0, 0, 7], [0, 0, 7]], 7.0),
]


@pytest.mark.parametrize(("one", "other", "distance"), [case[1:] for case in SEGMENTS], ids=[c[0] for c in SEGMENTS])
def test_segments_of_every_lie_have_the_distance_that_one_sees(
    one: list[list[float]], other: list[list[float]], distance: float
) -> None:
    a, b = np.array(one, dtype=np.float64), np.array(other, dtype=np.float64)
    for first, second in ((a, b), (b, a), (a[::-1].copy(), b), (a, b[::-1].copy())):
        assert body.segment_distance(first, second) == pytest.approx(distance, abs=1e-12)


# Multiples of a sixteenth: many are parallel, meet or are points, and none is nearly so.
coordinates = st.integers(-16, 16).map(lambda n: n / 16)


@given(st.lists(coordinates, min_size=12, max_size=12))
@settings(max_examples=150)
def test_the_distance_of_any_two_segments_is_the_searched_one(numbers: list[float]) -> None:
    one, other = np.array(numbers).reshape(2, 2, 3)
    assert body.segment_distance(one, other) == pytest.approx(searched_distance(one, other), abs=1e-7)


@given(st.lists(st.floats(-1.0, 1.0), min_size=12, max_size=12))
@settings(max_examples=150)
def test_no_two_segments_come_closer_than_said(numbers: list[float]) -> None:
    one, other = np.array(numbers).reshape(2, 2, 3)
    assert body.segment_distance(one, other) <= searched_distance(one, other) + 1e-7
    assert body.segment_distance(one, other) >= searched_distance(one, other) - 1e-6
