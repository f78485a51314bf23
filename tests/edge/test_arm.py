"""The arm's numbers agree with an independent simulator's, and gravity is the gradient of potential energy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edge.arm import GRAVITY_M_S2, YAM, Payload, gravity_torque, link_frames, load_arm

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
