"""The arm as numbers: motors, gains, limits and the chain of links, and the torque that gravity asks of each joint.

- The base stands upright: gravity points along -z of the base frame.
- A link frame is the maker's: the joint turns about `axis` through the link's origin.
- The mount is link 6. The tool centre (`tool_position_m`) lies 0.1347 m beyond the mount, between the finger tips; its
  z axis leaves the gripper.
- The gripper's linear map: jaw opening 0 is closed, `stroke_m` is open, motor angle = `rad_per_m` * opening. Zero of
  the motor is the closed jaw; positive rotation closes, so `rad_per_m` is negative (-68.4375 rad/m, 14.6 mm/rad).

Source of the constants: `yam.json`, which names its own.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from firmware_bridge.guard import JointLimits
from policies.interface import JOINTS, Array

GRAVITY_M_S2 = 9.81
YAM = Path(__file__).with_name("yam.json")


@dataclass(frozen=True)
class Payload:
    """A rigid thing fixed to the mount, in the mount's frame."""

    mass_kg: float
    com_m: Array  # (3,)
    inertia_kgm2: Array  # (3, 3) about its centre of mass, mount axes


@dataclass(frozen=True)
class Body:
    """One rigid body as the maker's model has it; `joint` is "hinge", "slide" or "" for a fixed one."""

    name: str
    parent: str
    position_m: Array  # (3,) in the parent
    quat_wxyz: Array  # (4,) in the parent
    joint: str
    axis: Array  # (3,) in the body, zeros for a fixed one
    joint_range: Array  # (2,) rad or m
    mass_kg: float
    com_m: Array  # (3,) in the body
    inertia_kgm2: Array  # (3, 3) about the centre of mass, body axes


@dataclass(frozen=True)
class Chain:
    """The six moving links as contiguous arrays; all that the last one carries is folded into it."""

    joint_pos: Array  # (6, 3) link origin in the link before
    joint_rot: Array  # (6, 3, 3) link frame in the link before, at joint angle 0
    joint_axis: Array  # (6, 3) unit, in the link
    link_mass: Array  # (6,)
    link_com: Array  # (6, 3) in the link
    link_inertia: Array  # (6, 3, 3) about the centre of mass, link axes

    def carrying(self, payload: Payload) -> Chain:
        """Return the chain with `payload` fixed to its last link."""
        mass, com, inertia = self.link_mass.copy(), self.link_com.copy(), self.link_inertia.copy()
        whole = _fold(Payload(float(mass[-1]), com[-1], inertia[-1]), payload)
        mass[-1], com[-1], inertia[-1] = whole.mass_kg, whole.com_m, whole.inertia_kgm2
        return replace(self, link_mass=mass, link_com=com, link_inertia=inertia)


@dataclass(frozen=True)
class Gripper:
    """The jaw and its linear map from opening to motor angle."""

    stroke_m: float
    rad_per_m: float  # negative: positive motor rotation closes
    velocity_m_s: float
    torque_nm: float  # bound of what the controller asks of its motor

    def motor_rad(self, opening_m: float) -> float:
        """Return the motor angle of a jaw opening."""
        return opening_m * self.rad_per_m

    def opening_m(self, motor_rad: float) -> float:
        """Return the jaw opening at a motor angle."""
        return motor_rad / self.rad_per_m


@dataclass(frozen=True)
class ArmModel:
    """One type of arm; motor arrays have seven rows, the gripper last."""

    name: str
    motor_types: tuple[str, ...]
    esc_ids: tuple[int, ...]
    mst_ids: tuple[int, ...]
    direction: Array  # (7,) joint angle per motor angle, +1 or -1
    kp: Array  # (7,)
    kd: Array  # (7,)
    gravity_factor: Array  # (6,) the maker's, for the real arm, whose model is short; an emulated arm wants ones
    coulomb_nm: Array  # (6,)
    limits: JointLimits  # (6,) what the arm itself allows
    gripper: Gripper
    bodies: tuple[Body, ...]  # base, six links, gripper, two finger tips
    chain: Chain
    tool_position_m: Array  # (3,) tool centre in the mount
    tool_quat_wxyz: Array  # (4,)

    def carrying(self, payload: Payload) -> ArmModel:
        """Return the arm with `payload` fixed to its mount."""
        return replace(self, chain=self.chain.carrying(payload))


def load_arm(path: Path = YAM) -> ArmModel:
    """Return the arm in a constants file."""
    raw = json.loads(path.read_text())
    joints, gripper = raw["joints"], raw["gripper"]
    motors = [*joints, gripper]
    links = tuple(_body(item) for item in raw["links"])
    tips = tuple(_body(item) for item in raw["gripper_bodies"])
    return ArmModel(
        name=raw["name"],
        motor_types=tuple(motor["motor_type"] for motor in motors),
        esc_ids=tuple(motor["can_id"] for motor in motors),
        mst_ids=tuple(motor["reply_id"] for motor in motors),
        direction=np.array([*(float(joint["direction"]) for joint in joints), 1.0]),
        kp=np.array([motor["kp"] for motor in motors]),
        kd=np.array([motor["kd"] for motor in motors]),
        gravity_factor=np.array([joint["gravity_factor"] for joint in joints]),
        coulomb_nm=np.array([joint["coulomb_nm"] for joint in joints]),
        limits=JointLimits(
            lower_rad=np.array([joint["limits_rad"][0] for joint in joints]),
            upper_rad=np.array([joint["limits_rad"][1] for joint in joints]),
            velocity_rad_s=np.array([joint["velocity_rad_s"] for joint in joints]),
            torque_nm=np.array([joint["torque_nm"] for joint in joints]),
        ),
        gripper=Gripper(gripper["stroke_m"], gripper["rad_per_m"], gripper["velocity_m_s"], gripper["torque_nm"]),
        bodies=links + tips,
        chain=_chain(links[1:], tips),
        tool_position_m=np.array(raw["tool_pos_m"]),
        tool_quat_wxyz=np.array(raw["tool_quat_wxyz"]),
    )


def rotation(quat_wxyz: Array) -> Array:
    """Return the rotation matrix (3, 3) of a quaternion, which need not be of unit length."""
    w, x, y, z = quat_wxyz / np.linalg.norm(quat_wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@njit(cache=True)
def link_frames(
    q_rad: Array, joint_pos: Array, joint_rot: Array, joint_axis: Array, position: Array, orientation: Array
) -> None:
    """Write where each link stands in the base frame: `position` (6, 3), `orientation` (6, 3, 3)."""
    for link in range(q_rad.shape[0]):
        x, y, z = joint_axis[link]
        c, s = math.cos(q_rad[link]), math.sin(q_rad[link])
        turn = (  # Rodrigues' formula
            (c + x * x * (1 - c), x * y * (1 - c) - z * s, x * z * (1 - c) + y * s),
            (y * x * (1 - c) + z * s, c + y * y * (1 - c), y * z * (1 - c) - x * s),
            (z * x * (1 - c) - y * s, z * y * (1 - c) + x * s, c + z * z * (1 - c)),
        )
        fixed, offset = joint_rot[link], joint_pos[link]
        for row in range(3):
            if link == 0:
                before = (fixed[row, 0], fixed[row, 1], fixed[row, 2])
                position[0, row] = offset[row]
            else:
                up = orientation[link - 1]
                before = (
                    up[row, 0] * fixed[0, 0] + up[row, 1] * fixed[1, 0] + up[row, 2] * fixed[2, 0],
                    up[row, 0] * fixed[0, 1] + up[row, 1] * fixed[1, 1] + up[row, 2] * fixed[2, 1],
                    up[row, 0] * fixed[0, 2] + up[row, 1] * fixed[1, 2] + up[row, 2] * fixed[2, 2],
                )
                position[link, row] = (
                    position[link - 1, row] + up[row, 0] * offset[0] + up[row, 1] * offset[1] + up[row, 2] * offset[2]
                )
            for column in range(3):
                orientation[link, row, column] = (
                    before[0] * turn[0][column] + before[1] * turn[1][column] + before[2] * turn[2][column]
                )


@njit(cache=True)
def gravity_torque(
    q_rad: Array,
    joint_pos: Array,
    joint_rot: Array,
    joint_axis: Array,
    link_mass: Array,
    link_com: Array,
    position: Array,
    orientation: Array,
    torque_nm: Array,
) -> None:
    """Write the torque (6,) that the motors must give to stand still; `position` and `orientation` are scratch.

    The torque is the gradient of the potential energy: for each joint, the weight of all that it carries times the
    horizontal lever about its axis.
    """
    link_frames(q_rad, joint_pos, joint_rot, joint_axis, position, orientation)
    mass, moment_x, moment_y = 0.0, 0.0, 0.0
    for link in range(q_rad.shape[0] - 1, -1, -1):
        turn, com, here = orientation[link], link_com[link], link_mass[link]
        mass += here
        moment_x += here * (position[link, 0] + turn[0, 0] * com[0] + turn[0, 1] * com[1] + turn[0, 2] * com[2])
        moment_y += here * (position[link, 1] + turn[1, 0] * com[0] + turn[1, 1] * com[1] + turn[1, 2] * com[2])
        axis = joint_axis[link]
        axis_x = turn[0, 0] * axis[0] + turn[0, 1] * axis[1] + turn[0, 2] * axis[2]
        axis_y = turn[1, 0] * axis[0] + turn[1, 1] * axis[1] + turn[1, 2] * axis[2]
        lever_x = moment_x - mass * position[link, 0]
        lever_y = moment_y - mass * position[link, 1]
        torque_nm[link] = GRAVITY_M_S2 * (axis_x * lever_y - axis_y * lever_x)


def _body(raw: dict[str, Any]) -> Body:
    joint = raw["joint"] or {"type": "", "axis": [0.0] * 3, "range": [0.0] * 2}
    return Body(
        name=raw["name"],
        parent=raw["parent"],
        position_m=np.array(raw["pos_m"]),
        quat_wxyz=np.array(raw["quat_wxyz"]),
        joint=joint["type"],
        axis=np.array(joint["axis"]),
        joint_range=np.array(joint["range"]),
        mass_kg=raw["mass_kg"],
        com_m=np.array(raw["com_m"]),
        inertia_kgm2=np.array(raw["inertia_kgm2"]),
    )


def _chain(links: tuple[Body, ...], tips: tuple[Body, ...]) -> Chain:
    """Return the chain of `links` with the gripper bodies, fingers closed, folded into the last link."""
    assert len(links) == JOINTS
    chain = Chain(
        joint_pos=np.array([link.position_m for link in links]),
        joint_rot=np.array([rotation(link.quat_wxyz) for link in links]),
        joint_axis=np.array([link.axis / np.linalg.norm(link.axis) for link in links]),
        link_mass=np.array([link.mass_kg for link in links]),
        link_com=np.array([link.com_m for link in links]),
        link_inertia=np.array([link.inertia_kgm2 for link in links]),
    )
    placed = {links[-1].name: (np.zeros(3), np.eye(3))}
    for tip in tips:
        at, turn = placed[tip.parent]
        placed[tip.name] = at + turn @ tip.position_m, turn @ rotation(tip.quat_wxyz)
        at, turn = placed[tip.name]
        chain = chain.carrying(Payload(tip.mass_kg, at + turn @ tip.com_m, turn @ tip.inertia_kgm2 @ turn.T))
    return chain


def _fold(one: Payload, other: Payload) -> Payload:
    """Return two rigid parts as one, inertia by the parallel axis theorem."""
    mass = one.mass_kg + other.mass_kg
    com = (one.mass_kg * one.com_m + other.mass_kg * other.com_m) / mass
    inertia = np.zeros((3, 3))
    for part in (one, other):
        arm = part.com_m - com
        inertia += part.inertia_kgm2 + part.mass_kg * ((arm @ arm) * np.eye(3) - np.outer(arm, arm))
    return Payload(mass, com, inertia)
