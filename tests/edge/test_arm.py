"""The arm's numbers agree with an independent simulator's, and gravity is the gradient of potential energy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edge.arm import GRAVITY_M_S2, YAM, Payload, body_of, gravity_torque, link_frames, load_arm, rotation
from edge.planning.kinematics import chain_of, reach, tool_pose
from firmware_bridge.body import (
    BOX_ROOMS,
    FACE_ROOMS,
    FACES,
    FLOOR_PARTS,
    PAIRS,
    PART_NAMES,
    ROOMS,
    measure_room,
)
from policies.interface import TOOL_DOWN_WXYZ

CASES: list[dict[str, Any]] = json.loads(YAM.read_text())["check"]
ARM = load_arm()


def frames(q_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the links stand."""
    position, orientation = np.zeros((6, 3)), np.zeros((6, 3, 3))
    link_frames(q_rad, ARM.chain.joint_pos, ARM.chain.joint_rot, ARM.chain.joint_axis, position, orientation)
    return position, orientation


def gravity(q_rad: np.ndarray, arm: Any = ARM) -> np.ndarray:
    """Return the torque that the motors must give."""
    chain, torque = arm.chain, np.zeros(6)
    gravity_torque(
        q_rad,
        chain.joint_pos,
        chain.joint_rot,
        chain.joint_axis,
        chain.link_mass,
        chain.link_com,
        np.zeros((6, 3)),
        np.zeros((6, 3, 3)),
        torque,
    )
    return torque


def potential(q_rad: np.ndarray, arm: Any = ARM) -> float:
    """Return the potential energy of the links."""
    position, orientation = frames(q_rad)
    heights = position[:, 2] + np.einsum("nij,nj->ni", orientation, arm.chain.link_com)[:, 2]
    return float(GRAVITY_M_S2 * (arm.chain.link_mass * heights).sum())


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["q_rad"]))
def test_gravity_equals_the_simulators(case: dict[str, Any]) -> None:
    np.testing.assert_allclose(gravity(np.array(case["q_rad"])), case["gravity_torque_linear_4310_nm"], atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["q_rad"]))
def test_the_mount_and_the_tool_centre_stand_where_the_simulator_puts_them(case: dict[str, Any]) -> None:
    position, orientation = frames(np.array(case["q_rad"]))
    np.testing.assert_allclose(position[5], case["link6_pos_m"], atol=1e-9)
    np.testing.assert_allclose(orientation[5], case["link6_rot_rows"], atol=1e-9)
    np.testing.assert_allclose(position[5] + orientation[5] @ ARM.tool_position_m, case["grasp_site_pos_m"], atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_gravity_is_the_gradient_of_potential_energy_with_any_payload(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arm = ARM.carrying(Payload(float(rng.uniform(0.1, 1.0)), rng.normal(0.0, 0.05, 3), np.eye(3) * 1e-3))
    q_rad, step = rng.uniform(ARM.limits.lower_rad, ARM.limits.upper_rad), 1e-6
    slope = [
        (potential(q_rad + step * unit, arm) - potential(q_rad - step * unit, arm)) / (2 * step) for unit in np.eye(6)
    ]
    np.testing.assert_allclose(gravity(q_rad, arm), slope, atol=1e-6)


def test_a_payload_adds_its_mass_and_leaves_the_arm_alone() -> None:
    carrying = ARM.carrying(Payload(0.3, np.array([0.0, 0.0, -0.2]), np.zeros((3, 3))))
    assert carrying.chain.link_mass[5] == pytest.approx(ARM.chain.link_mass[5] + 0.3)
    assert ARM.chain.link_mass[5] == pytest.approx(0.6952284)


def test_inertia_follows_the_parallel_axis_theorem() -> None:
    # Two equal points 0.2 m apart have m d^2 / 2 across their line and none along it.
    one = Payload(1.0, np.array([0.0, 0.0, 0.1]), np.zeros((3, 3)))
    other = Payload(1.0, np.array([0.0, 0.0, -0.1]), np.zeros((3, 3)))
    bare = np.zeros(6)
    empty = ARM.chain.__class__(
        ARM.chain.joint_pos, ARM.chain.joint_rot, ARM.chain.joint_axis, bare, np.zeros((6, 3)), np.zeros((6, 3, 3))
    )
    both = empty.carrying(one).carrying(other)
    np.testing.assert_allclose(both.link_inertia[5], np.diag([0.02, 0.02, 0.0]), atol=1e-12)
    np.testing.assert_allclose(both.link_com[5], 0.0, atol=1e-12)


def test_the_jaw_map_runs_from_closed_to_open_and_back() -> None:
    grip = ARM.gripper
    assert grip.motor_rad(0.0) == 0.0
    assert grip.motor_rad(grip.stroke_m) == pytest.approx(-6.5015625)  # positive rotation closes
    assert grip.opening_m(grip.motor_rad(0.04)) == pytest.approx(0.04)


def test_the_arm_has_seven_motors_and_its_mass() -> None:
    assert len(ARM.motor_types) == len(ARM.esc_ids) == len(ARM.mst_ids) == 7
    assert sum(body.mass_kg for body in ARM.bodies) == pytest.approx(4.292 + 0.695, abs=1e-3)


def test_full_speed_is_reached_in_a_twentieth_of_a_second_at_most() -> None:
    np.testing.assert_allclose(ARM.limits.velocity_rad_s / ARM.limits.acceleration_rad_s2, 0.02)
    gripper_rad_s = ARM.gripper.velocity_m_s * abs(ARM.gripper.rad_per_m)
    assert gripper_rad_s / ARM.gripper.acceleration_rad_s2 == pytest.approx(0.05)


def test_each_motor_has_a_rated_torque_by_its_type_and_the_arm_a_rest_within_its_limits() -> None:
    rated = {"DM4340": 9.0, "DM4310": 3.0}
    assert ARM.rated_nm.tolist() == [rated[motor] for motor in ARM.motor_types]
    assert ((ARM.rest_rad >= ARM.limits.lower_rad) & (ARM.rest_rad <= ARM.limits.upper_rad)).all()


TOOL_M = 0.05
BOX_M = np.array([0.05, -0.42, 0.003]), np.array([0.47, 0.42, 0.3])
BODY_OF_YAM = body_of(ARM, TOOL_M, *BOX_M, floor_m=0.0)
CHAIN = chain_of(ARM, TOOL_M, ARM.limits)
DOWN = rotation(np.array(TOOL_DOWN_WXYZ))


def room_at(q_rad: Any) -> np.ndarray:
    """Return the rooms of a yam with a stick on a bench."""
    room = np.full(ROOMS, np.nan)
    measure_room(BODY_OF_YAM, np.asarray(q_rad, dtype=np.float64), room)
    return room


def room_between(near: str, far: str, q_rad: Any) -> float:
    pair = PAIRS.index((PART_NAMES.index(near), PART_NAMES.index(far)))
    return float(room_at(q_rad)[FACE_ROOMS + pair])


@pytest.mark.parametrize("seed", range(5))
def test_the_tools_box_holds_the_point_that_kinematics_calls_the_tools_tip(seed: int) -> None:
    q_rad = np.random.default_rng(seed).uniform(ARM.limits.lower_rad, ARM.limits.upper_rad)
    place = tool_pose(CHAIN, q_rad)[0]
    room = room_at(q_rad)
    np.testing.assert_allclose(room[0:FACES:2], place - BOX_M[0], atol=1e-9)
    np.testing.assert_allclose(room[1:FACES:2], BOX_M[1] - place, atol=1e-9)


def test_the_elbow_is_kept_from_the_floor_only() -> None:
    upright = [0.0, np.pi / 2, 0.0, 0.0, 0.0, 0.0]
    elbow = room_at(upright)[FACES : 2 * FACES]
    radius_m = ARM.capsules.radius_m[PART_NAMES.index("upper arm")]
    assert elbow[4] == pytest.approx(0.1135 + 0.264 - radius_m, abs=1e-3)
    assert (np.delete(elbow, 4) > 5.0).all()
    assert room_at([0.0, 3.5, 1.5, 0.0, 0.0, 0.0])[FACES + 4] < 0.0


REST_AND_WORK = [
    ARM.rest_rad,
    [0.0, 1.75, 1.1, -0.93, 0.0, 0.0],
    [0.0, 1.114, 0.948, -1.406, 0.0, 0.0],
    [0.0, 1.1, 0.95, -1.4, 0.0, 0.0],
]


@pytest.mark.parametrize("q_rad", REST_AND_WORK, ids=str)
def test_the_arm_may_rest_and_work(q_rad: Any) -> None:
    assert (room_at(q_rad)[BOX_ROOMS:] >= 0.0).all()


@pytest.mark.parametrize("x", [0.125, 0.155, 0.25, 0.35, 0.45])
@pytest.mark.parametrize("y", [-0.4, -0.2, -0.05, 0.0, 0.05, 0.2, 0.4])
@pytest.mark.parametrize("z", [0.005, 0.05, 0.15, 0.28])
def test_the_arm_may_be_wherever_it_reaches_the_bench_with_the_tool_straight_down(x: float, y: float, z: float) -> None:
    start = np.array([np.arctan2(y, x), 1.1, 0.95, -1.4, 0.0, 0.0])
    found = reach(CHAIN, np.array([x, y, z]), DOWN, start)
    if found.position_error_m < 1e-3 and found.rotation_error_rad < 1e-2:
        assert (room_at(found.joints_rad)[BOX_ROOMS:] >= 0.0).all()


# Poses in which the maker's meshes (convex hulls, jaw half open) run 3 to 20 mm into one another, and where.
MESHES_MEET = [
    ("base plate", "fingers", [0.8, 2.5, 0.8, -1.4, -0.8, -0.7]),
    ("base plate", "gripper", [1.6, 1.6, 0.0, 0.4, -0.3, -1.6]),
    ("base plate", "wrist", [2.1, 2.9, 0.6, -1.2, -1.2, -1.7]),
    ("base", "forearm", [2.3, 3.5, 0.3, 0.5, -0.7, -1.9]),
    ("base", "tool", [0.6, 3.4, 1.2, -1.69, -0.2, -1.0]),
    ("shoulder motor", "wrist", [-0.6, 0.5, 0.1, -0.7, 0.0, -2.0]),
    ("shoulder motor", "gripper", [-1.4, 0.6, 0.2, -0.9, -0.9, -0.8]),
    ("upper arm", "fingers", [1.3, 1.6, 0.7, -1.6, -0.4, -0.1]),
]


@pytest.mark.parametrize(("near", "far", "q_rad"), MESHES_MEET)
def test_where_the_arms_meshes_meet_there_is_no_room(near: str, far: str, q_rad: list[float]) -> None:
    assert room_between(near, far, q_rad) < 0.0


@pytest.mark.parametrize("seed", range(5))
def test_turning_the_whole_arm_changes_no_room_within_it(seed: int) -> None:
    # The maker's first axis is upright to 1e-6 only.
    rng = np.random.default_rng(seed)
    q_rad = rng.uniform(ARM.limits.lower_rad, ARM.limits.upper_rad)
    turned = q_rad.copy()
    turned[0] = rng.uniform(ARM.limits.lower_rad[0], ARM.limits.upper_rad[0])
    for row, (near, _) in enumerate(PAIRS):
        if PART_NAMES[near] != "base plate":
            assert room_at(q_rad)[FACE_ROOMS + row] == pytest.approx(room_at(turned)[FACE_ROOMS + row], abs=1e-5)
    np.testing.assert_allclose(room_at(q_rad)[BOX_ROOMS:FACE_ROOMS], room_at(turned)[BOX_ROOMS:FACE_ROOMS], atol=1e-5)


def test_the_floor_is_where_it_is_said_to_be() -> None:
    lower = body_of(ARM, TOOL_M, *BOX_M, floor_m=-0.3)
    room = np.zeros(ROOMS)
    measure_room(lower, ARM.rest_rad, room)
    floor_rows = [FACES + 4, *range(BOX_ROOMS, BOX_ROOMS + len(FLOOR_PARTS))]
    np.testing.assert_allclose(room[floor_rows], room_at(ARM.rest_rad)[floor_rows] + 0.3)
    np.testing.assert_allclose(np.delete(room, floor_rows), np.delete(room_at(ARM.rest_rad), floor_rows))


def test_the_tools_capsule_is_as_long_as_the_tool() -> None:
    tool = PART_NAMES.index("tool")
    for length_m in (0.0, 0.05, 0.2):
        body = body_of(ARM, length_m, *BOX_M, floor_m=0.0)[0]
        assert np.linalg.norm(body["capsule_b"][tool] - body["capsule_a"][tool]) == pytest.approx(length_m)
