"""Pushes obey the plane's symmetries and the friction cone, and the chosen one does what was predicted for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies.interface import Array
from policies.push_t.policy import OUTLINE_M
from policies.skills.pushing import (
    Block,
    Choice,
    Contacts,
    Pose,
    choose,
    contacts,
    cost_m,
    distance_m,
    predict,
)

LAW = settings(deadline=None, max_examples=25)
TEE = Block(OUTLINE_M)
SQUARE_M = np.array([[-0.05, -0.05], [0.05, -0.05], [0.05, 0.05], [-0.05, 0.05]])
PLACES = contacts(TEE)
# Fine steps, so that what is left is the model's answer and not the size of a step.
FINE = Choice(step_m=0.0005, longest_m=0.04)
COARSE = Choice()
HERE: Pose = (0.32, 0.02, 0.7)

ANGLES = st.floats(-math.pi, math.pi)
SHIFTS = st.floats(-0.3, 0.3)
# Where a block stands well inside the ring, so that some side of it can be pushed.
POSES = st.builds(lambda r, a, yaw: (r * math.cos(a), r * math.sin(a), yaw), st.floats(0.27, 0.35), ANGLES, ANGLES)


def turned(vectors: Array, angle: float) -> Array:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.asarray(vectors @ np.array([[cosine, sine], [-sine, cosine]]))


def carried(vectors: Array, angle: float, x: float, y: float) -> Array:
    return np.asarray(turned(vectors, angle) + np.array([x, y]))


def place(x_m: float, y_m: float, inward: tuple[float, float], half_m: float = 1.0) -> Contacts:
    """Return one contact place, in the middle of an edge of twice `half_m`."""
    return Contacts(np.array([[x_m, y_m]]), np.array([inward]), np.array([-half_m]), np.array([half_m]))


def starts_of(places: Contacts, owner: Array, pose: Pose, tilt: Array, options: Choice) -> tuple[Array, Array]:
    """Return sticks (n, 2) before contact and their directions (n, 2), at an angle `tilt` (n,) off the normals."""
    normals = turned(places.inward[owner], pose[2])
    directions = np.array([turned(normal, angle) for normal, angle in zip(normals, tilt, strict=True)])
    touching = turned(places.point_m[owner], pose[2]) + pose[:2] - normals * options.stick_radius_m
    return touching - directions * options.standoff_m, directions


def pushed(block: Block, places: Contacts, pose: Pose, tilt_rad: float, options: Choice) -> Array:
    """Return the poses (steps, n, 3) of the block under a push at every one of `places`."""
    owner = np.arange(len(places.point_m))
    starts, directions = starts_of(places, owner, pose, np.full(len(owner), tilt_rad), options)
    return predict(block, places, owner, pose, starts, directions, options)


# Predicting.


@LAW
@given(yaw=ANGLES, x=SHIFTS, y=SHIFTS, friction=st.floats(0.0, 1.0), radius=st.floats(0.01, 0.1))
def test_a_push_through_the_centroid_moves_the_block_along_it_and_turns_nothing(
    yaw: float, x: float, y: float, friction: float, radius: float
) -> None:
    block = Block(OUTLINE_M, radius, friction)
    (poses,) = pushed(block, place(0.0, -0.0407, (0.0, 1.0)), (x, y, yaw), 0.0, FINE).swapaxes(0, 1)
    np.testing.assert_allclose(poses[:, 2], yaw, atol=1e-9)
    travelled = FINE.step_m * np.arange(1, len(poses) + 1)
    along = turned(np.array([[0.0, 1.0]]), yaw)
    np.testing.assert_allclose(poses[:, :2], [x, y] + along * travelled[:, None], atol=1e-9)


@pytest.mark.parametrize(("x_m", "sign"), [(0.04, 1.0), (0.001, 1.0), (-0.001, -1.0), (-0.04, -1.0)])
def test_a_push_beside_the_centroid_turns_the_block_the_way_its_lever_does(x_m: float, sign: float) -> None:
    (poses,) = pushed(TEE, place(x_m, -0.0407, (0.0, 1.0)), HERE, 0.0, FINE).swapaxes(0, 1)
    assert (np.diff(poses[:, 2]) * sign > 0.0).all()


@pytest.mark.parametrize("tilt_rad", [-0.4, 0.0, 0.25])
@pytest.mark.parametrize("options", [FINE, COARSE], ids=["fine", "coarse"])
@settings(deadline=None, max_examples=8)
@given(angle=ANGLES, x=SHIFTS, y=SHIFTS)
def test_pushing_commutes_with_moving_the_world(
    options: Choice, tilt_rad: float, angle: float, x: float, y: float
) -> None:
    before = pushed(TEE, PLACES, HERE, tilt_rad, options)
    moved: Pose = (*carried(np.array(HERE[:2]), angle, x, y).tolist(), HERE[2] + angle)
    after = pushed(TEE, PLACES, moved, tilt_rad, options)
    np.testing.assert_allclose(after[..., :2], carried(before[..., :2], angle, x, y), atol=1e-9)
    np.testing.assert_allclose(after[..., 2], before[..., 2] + angle, atol=1e-9)


def mirrored(places: Contacts) -> Contacts:
    flip = np.array([-1.0, 1.0])
    return Contacts(places.point_m * flip, places.inward * flip, -places.high_m, -places.low_m)


@pytest.mark.parametrize("options", [FINE, COARSE], ids=["fine", "coarse"])
@settings(deadline=None, max_examples=8)
@given(x=SHIFTS, y=SHIFTS, yaw=ANGLES, tilt_rad=st.floats(-0.6, 0.6), friction=st.floats(0.0, 1.0))
def test_the_mirror_of_a_push_moves_the_mirror_of_the_block_as_in_a_mirror(
    options: Choice, x: float, y: float, yaw: float, tilt_rad: float, friction: float
) -> None:
    block = Block(OUTLINE_M, friction=friction)
    plain = pushed(block, PLACES, (x, y, yaw), tilt_rad, options)
    mirror = pushed(block, mirrored(PLACES), (-x, y, -yaw), -tilt_rad, options)
    np.testing.assert_allclose(mirror, plain * [-1.0, 1.0, -1.0], atol=1e-9)


@LAW
@given(pose=POSES, tilt_rad=st.floats(-0.5, 0.5))
def test_the_stick_pushes_the_edge_ahead_and_does_not_sink_in(pose: Pose, tilt_rad: float) -> None:
    owner = np.arange(len(PLACES.point_m))
    starts, directions = starts_of(PLACES, owner, pose, np.full(len(owner), tilt_rad), FINE)
    poses = predict(TEE, PLACES, owner, pose, starts, directions, FINE)
    travel = FINE.standoff_m + FINE.step_m * np.arange(1, len(poses) + 1)
    sticks = starts + directions * travel[:, None, None]
    offset, yaw = sticks - poses[..., :2], poses[..., 2]
    local = np.stack(
        [
            np.cos(yaw) * offset[..., 0] + np.sin(yaw) * offset[..., 1],
            np.cos(yaw) * offset[..., 1] - np.sin(yaw) * offset[..., 0],
        ],
        axis=-1,
    )
    along = np.stack([PLACES.inward[:, 1], -PLACES.inward[:, 0]], axis=1)
    slid = ((local - PLACES.point_m) * along).sum(-1)
    depth = FINE.stick_radius_m + ((local - PLACES.point_m) * PLACES.inward).sum(-1)
    on_edge = (slid > PLACES.low_m + 0.001) & (slid < PLACES.high_m - 0.001)
    assert on_edge.any()
    np.testing.assert_allclose(depth[on_edge], 0.0, atol=FINE.step_m / 10)


def slip_m(friction: float, tilt_rad: float) -> float:
    """Return how far the stick slips along the bar's back, to the right above zero, under a push through its middle."""
    places, owner, origin = place(0.0, -0.0407, (0.0, 1.0)), np.zeros(1, int), (0.0, 0.0, 0.0)
    starts, directions = starts_of(places, owner, origin, np.array([tilt_rad]), FINE)
    x, y, yaw = predict(Block(OUTLINE_M, friction=friction), places, owner, origin, starts, directions, FINE)[-1, 0]
    stick = starts[0] + directions[0] * (FINE.standoff_m + FINE.longest_m)
    # A stick that does not slip still rolls along the edge of a block that turns.
    return float(turned(stick - np.array([x, y]), -yaw)[0] + FINE.stick_radius_m * yaw)


def test_inside_the_friction_cone_the_contact_sticks_and_outside_it_slips_with_the_push() -> None:
    # A push that is tilted to the left, above zero, slips to the left. A push along the normal needs no friction.
    assert abs(slip_m(0.0, 0.0)) < 1e-9
    for tilt_rad in (-0.3, 0.3):
        assert abs(slip_m(9.0, tilt_rad)) < 1e-4
        assert slip_m(0.05, tilt_rad) * tilt_rad < 0.0
        assert abs(slip_m(0.0, tilt_rad)) > abs(slip_m(0.05, tilt_rad)) > 0.002


@LAW
@given(at=st.floats(-0.05, 0.05), tilt_rad=st.floats(-0.6, 0.6), yaw=ANGLES)
def test_without_friction_the_block_is_moved_along_the_normal_only(at: float, tilt_rad: float, yaw: float) -> None:
    once = Choice(step_m=0.0005, longest_m=0.0005)
    block = Block(OUTLINE_M, friction=0.0)
    moved = pushed(block, place(at, -0.0407, (0.0, 1.0)), (0.0, 0.0, yaw), tilt_rad, once)[0, 0]
    across, along = turned(moved[:2], -yaw)
    assert along > 0.0
    assert abs(across) < 1e-12


@pytest.mark.parametrize("low_or_high", [-1.0, 1.0])
def test_a_stick_past_the_end_of_its_edge_moves_nothing(low_or_high: float) -> None:
    places = place(0.0, -0.0407, (0.0, 1.0), half_m=0.01)
    for beyond_m, moves in ((-1e-6, True), (1e-6, False)):
        start = np.array([[low_or_high * (0.01 + beyond_m), -0.0407 - FINE.stick_radius_m - FINE.standoff_m]])
        poses = predict(TEE, places, np.zeros(1, int), (0.0, 0.0, 0.0), start, np.array([[0.0, 1.0]]), FINE)
        assert bool(poses[0].any()) == moves


def test_before_it_touches_the_stick_moves_nothing() -> None:
    owner = np.arange(len(PLACES.point_m))
    starts, directions = starts_of(PLACES, owner, HERE, np.zeros(len(owner)), FINE)
    poses = predict(TEE, PLACES, owner, HERE, starts - directions * 0.02, directions, FINE)
    still = round(0.02 / FINE.step_m) - 1
    np.testing.assert_array_equal(poses[:still], np.broadcast_to(HERE, poses[:still].shape))
    assert (np.abs(poses[-1] - HERE).max(axis=1) > 0.001).all()


def test_each_stick_pushes_as_if_alone() -> None:
    together = pushed(TEE, PLACES, HERE, 0.2, COARSE)
    for k in range(len(PLACES.point_m)):
        alone = Contacts(*(part[k : k + 1] for part in vars(PLACES).values()))
        np.testing.assert_allclose(pushed(TEE, alone, HERE, 0.2, COARSE)[:, 0], together[:, k], atol=1e-12)


# Contact places.


@pytest.mark.parametrize("outline_m", [OUTLINE_M, SQUARE_M], ids=["tee", "square"])
def test_contact_places_lie_on_the_edges_off_the_corners_and_look_inwards(outline_m: Array) -> None:
    spacing_m, margin_m = 0.012, 0.006
    found = contacts(Block(outline_m), spacing_m, margin_m)
    np.testing.assert_allclose(distance_m(outline_m, found.point_m), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.inward, axis=1), 1.0)
    assert (distance_m(outline_m, found.point_m + found.inward * 1e-4) < 0.0).all()
    assert (distance_m(outline_m, found.point_m - found.inward * 1e-4) > 0.0).all()
    corners = np.linalg.norm(found.point_m[:, None] - outline_m[None], axis=-1).min(1)
    assert (corners >= margin_m - 1e-12).all()
    along = np.stack([found.inward[:, 1], -found.inward[:, 0]], axis=1)
    for slide in (found.low_m, found.high_m):
        ends = np.linalg.norm((found.point_m + along * slide[:, None])[:, None] - outline_m[None], axis=-1).min(1)
        np.testing.assert_allclose(ends, 0.0, atol=1e-12)
    assert (found.low_m < 0.0).all()
    assert (found.high_m > 0.0).all()


def test_contact_places_stand_about_as_far_apart_as_was_asked() -> None:
    for spacing_m in (0.005, 0.012, 0.03):
        found = contacts(Block(SQUARE_M), spacing_m)
        gaps = np.linalg.norm(np.diff(found.point_m.reshape(4, -1, 2), axis=1), axis=-1)
        np.testing.assert_allclose(gaps, spacing_m, rtol=0.25)


# Choosing.


def cost_of(pose: Pose, goal: Pose, options: Choice) -> float:
    return float(cost_m(np.array(pose), goal, options.angle_weight_m))


@LAW
@given(pose=POSES, shift=st.floats(0.02, 0.08), towards=ANGLES)
def test_where_the_goal_lies_beside_the_block_the_choice_is_better_than_nothing(
    pose: Pose, shift: float, towards: float
) -> None:
    goal: Pose = (pose[0] + shift * math.cos(towards), pose[1] + shift * math.sin(towards), pose[2])
    push = choose(TEE, PLACES, pose, goal, COARSE)
    assert push is not None
    assert push.cost_m < cost_of(pose, goal, COARSE)
    assert push.cost_m == pytest.approx(cost_of(push.predicted, goal, COARSE))


@LAW
@given(pose=POSES, wish=POSES, tilts=st.sampled_from([(0.0,), (-0.3, 0.0, 0.3)]))
def test_where_one_push_reaches_the_goal_it_is_found(pose: Pose, wish: Pose, tilts: tuple[float, ...]) -> None:
    options = Choice(tilts_rad=tilts)
    some = choose(TEE, PLACES, pose, wish, options)
    assert some is not None
    push = choose(TEE, PLACES, pose, some.predicted, options)
    assert push is not None
    assert push.cost_m == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(push.predicted, some.predicted)


@LAW
@given(pose=POSES, goal=POSES, tilts=st.sampled_from([(0.0,), (-0.3, 0.0, 0.3)]))
def test_the_chosen_push_can_be_carried_out(pose: Pose, goal: Pose, tilts: tuple[float, ...]) -> None:
    options = Choice(tilts_rad=tilts)
    push = choose(TEE, PLACES, pose, goal, options)
    assert push is not None
    low_m, high_m = options.ring_m
    for point in (push.start_m, push.end_m):
        assert low_m <= float(np.linalg.norm(point)) <= high_m
    local = turned(push.start_m - np.array(pose[:2]), -pose[2])
    assert distance_m(OUTLINE_M, local[None])[0] > options.stick_radius_m + options.clearance_m
    pushing_m = float(np.linalg.norm(push.end_m - push.start_m)) - options.standoff_m
    assert options.step_m - 1e-9 <= pushing_m <= options.longest_m + 1e-9


@pytest.mark.parametrize(("goal_x_m", "ring_m"), [(0.9, (0.0, 0.38)), (0.0, (0.26, 1.0))])
def test_a_push_stops_at_the_ring_where_the_goal_lies_past_it(goal_x_m: float, ring_m: tuple[float, float]) -> None:
    pose, goal = (0.32, 0.0, 0.0), (goal_x_m, 0.0, 0.0)
    inside = []
    for allowed_m in ((0.0, 1.0), ring_m):
        push = choose(TEE, PLACES, pose, goal, Choice(ring_m=allowed_m))
        assert push is not None
        inside.append(ring_m[0] <= float(np.linalg.norm(push.end_m)) <= ring_m[1])
    assert inside == [False, True]


@LAW
@given(pose=POSES, goal=POSES, angle=ANGLES)
def test_choosing_commutes_with_turning_the_world_about_the_base(pose: Pose, goal: Pose, angle: float) -> None:
    def about_base(item: Pose) -> Pose:
        x, y = turned(np.array(item[:2]), angle)
        return (float(x), float(y), item[2] + angle)

    plain = choose(TEE, PLACES, pose, goal, COARSE)
    other = choose(TEE, PLACES, about_base(pose), about_base(goal), COARSE)
    assert plain is not None
    assert other is not None
    # Of two pushes that are equally good either may be chosen, so it is the cost that is the same.
    assert other.cost_m == pytest.approx(plain.cost_m, abs=1e-9)


def test_a_longer_shortest_push_leaves_only_longer_ones() -> None:
    goal: Pose = (HERE[0] + 0.008, HERE[1], HERE[2])
    for shortest_m in (0.02, 0.06):
        push = choose(TEE, PLACES, HERE, goal, Choice(shortest_m=shortest_m))
        assert push is not None
        assert float(np.linalg.norm(push.end_m - push.start_m)) - COARSE.standoff_m >= shortest_m - 1e-9


@pytest.mark.parametrize(
    ("pose", "options"),
    [
        pytest.param((2.0, 0.0, 0.0), COARSE, id="no start inside the ring"),
        pytest.param(HERE, Choice(ring_m=(math.nan, math.nan)), id="a ring of nan"),
        pytest.param(HERE, Choice(clearance_m=0.02), id="no room for the stick"),
        pytest.param(HERE, Choice(shortest_m=0.5), id="asks for more than the longest"),
        pytest.param((math.nan, 0.0, 0.0), COARSE, id="a block nowhere"),
    ],
)
def test_where_nothing_can_be_pushed_nothing_is_chosen(pose: Pose, options: Choice) -> None:
    assert choose(TEE, PLACES, pose, HERE, options) is None


@LAW
@given(pose=POSES, goal=POSES, turns=st.integers(-3, 3))
def test_the_cost_counts_no_whole_turn_and_is_zero_at_the_goal_only(pose: Pose, goal: Pose, turns: int) -> None:
    again: Pose = (pose[0], pose[1], pose[2] + 2 * math.pi * turns)
    assert cost_of(again, goal, COARSE) == pytest.approx(cost_of(pose, goal, COARSE), abs=1e-9)
    assert cost_of(again, pose, COARSE) == pytest.approx(0.0, abs=1e-9)
    assert cost_of(pose, goal, COARSE) == pytest.approx(cost_of(goal, pose, COARSE))
    assert cost_of(pose, goal, COARSE) <= math.dist(pose[:2], goal[:2]) + COARSE.angle_weight_m * math.pi


def test_the_cost_weighs_yaw_in_metres_a_radian() -> None:
    assert cost_of((0.03, 0.0, 0.0), (0.0, 0.0, 0.0), COARSE) == pytest.approx(0.03)
    assert cost_of((0.0, 0.0, -0.8), (0.0, 0.0, 0.0), COARSE) == pytest.approx(0.04)
    assert cost_of((0.03, 0.0, 0.8), (0.0, 0.0, 0.0), COARSE) == pytest.approx(0.05)


# Distance to an outline.


@pytest.mark.parametrize(
    ("point", "wanted"),
    [
        ((0.0, 0.0), -0.05),
        ((0.03, 0.0), -0.02),
        ((0.0, -0.04), -0.01),
        ((0.05, 0.0), 0.0),
        ((0.05, 0.05), 0.0),
        ((-0.05, -0.05), 0.0),
        ((0.06, 0.0), 0.01),
        ((0.0, -0.09), 0.04),
        ((0.08, 0.09), 0.05),  # past a corner
        ((-0.2, 0.05), 0.15),  # level with an edge
        ((-0.2, -0.05), 0.15),
    ],
)
def test_the_distance_to_a_square_is_negative_inside_zero_on_it_and_positive_outside(
    point: tuple[float, float], wanted: float
) -> None:
    assert distance_m(SQUARE_M, np.array([point]))[0] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("point", "inside"),
    [((0.0, 0.0), True), ((0.0, 0.07), True), ((0.05, -0.03), True), ((0.03, 0.02), False), ((-0.03, 0.02), False)],
)
def test_the_corners_beside_the_stem_are_outside_the_tee(point: tuple[float, float], inside: bool) -> None:
    assert (distance_m(OUTLINE_M, np.array([point]))[0] < 0.0) == inside


POINTS = hnp.arrays(np.float64, (20, 2), elements=st.floats(-0.2, 0.2))


@LAW
@given(points=POINTS)
def test_the_distance_changes_no_faster_than_the_point(points: Array) -> None:
    found = distance_m(OUTLINE_M, points)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert (np.abs(found[:, None] - found[None]) <= apart + 1e-12).all()


@LAW
@given(points=POINTS, angle=ANGLES, x=SHIFTS, y=SHIFTS)
def test_the_distance_does_not_depend_on_where_the_world_stands(
    points: Array, angle: float, x: float, y: float
) -> None:
    moved = distance_m(carried(OUTLINE_M, angle, x, y), carried(points, angle, x, y))
    np.testing.assert_allclose(moved, distance_m(OUTLINE_M, points), atol=1e-9)


@LAW
@given(points=POINTS)
def test_the_distance_does_not_depend_on_the_first_corner_or_the_sense(points: Array) -> None:
    wanted = distance_m(OUTLINE_M, points)
    np.testing.assert_allclose(distance_m(np.roll(OUTLINE_M, 3, axis=0), points), wanted, atol=1e-12)
    np.testing.assert_allclose(distance_m(OUTLINE_M[::-1], points), wanted, atol=1e-12)
