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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from firmware_bridge import body as body_module
from firmware_bridge.body import BODY, PART_NAMES, link_frames
from firmware_bridge.compiled import sources_of
from firmware_bridge.guard import JointLimits
from policies.interface import JOINTS, Array

SOURCES = sources_of(body_module)
GRAVITY_M_S2 = 9.81
YAM = Path(__file__).with_name("yam.json")
ANYWHERE_M = 10.0  # no arm reaches a wall so far away
ELBOW, TOOL = PART_NAMES.index("upper arm"), PART_NAMES.index("tool")


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
    acceleration_rad_s2: float  # of its motor

    def motor_rad(self, opening_m: float) -> float:
        """Return the motor angle of a jaw opening."""
        return opening_m * self.rad_per_m

    def opening_m(self, motor_rad: float) -> float:
        """Return the jaw opening at a motor angle."""
        return motor_rad / self.rad_per_m


@dataclass(frozen=True)
class Capsules:
    """What covers the arm's body: all that is within a radius of a segment; a row a part, in `PART_NAMES`' order."""

    link: Array  # (parts,) whole numbers, BASE for what does not move
    start_m: Array  # (parts, 3) in the link
    end_m: Array  # (parts, 3)
    radius_m: Array  # (parts,)


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
    rated_nm: Array  # (7,) what each motor can give for good
    rest_rad: Array  # (6,) where the arm lies on its stops without power
    limits: JointLimits  # (6,) what the arm itself allows
    gripper: Gripper
    bodies: tuple[Body, ...]  # base, six links, gripper, two finger tips
    chain: Chain
    capsules: Capsules
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
        rated_nm=np.array([motor["rated_nm"] for motor in motors]),
        rest_rad=np.array(raw["rest_rad"]),
        limits=JointLimits(
            lower_rad=np.array([joint["limits_rad"][0] for joint in joints]),
            upper_rad=np.array([joint["limits_rad"][1] for joint in joints]),
            velocity_rad_s=np.array([joint["velocity_rad_s"] for joint in joints]),
            torque_nm=np.array([joint["torque_nm"] for joint in joints]),
            acceleration_rad_s2=np.array([joint["acceleration_rad_s2"] for joint in joints]),
        ),
        gripper=Gripper(
            gripper["stroke_m"],
            gripper["rad_per_m"],
            gripper["velocity_m_s"],
            gripper["torque_nm"],
            gripper["acceleration_rad_s2"],
        ),
        bodies=links + tips,
        chain=_chain(links[1:], tips),
        capsules=_capsules(raw["capsules"], links),
        tool_position_m=np.array(raw["tool_pos_m"]),
        tool_quat_wxyz=np.array(raw["tool_quat_wxyz"]),
    )


def body_of(arm: ArmModel, tool_length_m: float, box_lower_m: Array, box_upper_m: Array, floor_m: float) -> np.ndarray:
    """Return the arm's body and its walls for `measure_room`, (1,) of BODY.

    Args:
        tool_length_m: how far the tool's tip lies beyond the tool centre, along the tool's z.
        box_lower_m, box_upper_m: (3,) where the tool's tip may be, in the base frame.
        floor_m: height of the bench in the base frame; the body stays above it.
    """
    bodies = np.zeros(1, BODY)
    body, chain, capsules = bodies[0], arm.chain, arm.capsules
    body["joint_pos"], body["joint_rot"], body["joint_axis"] = chain.joint_pos, chain.joint_rot, chain.joint_axis
    body["floor"] = floor_m
    body["capsule_link"], body["capsule_radius"] = capsules.link, capsules.radius_m
    body["capsule_a"], body["capsule_b"] = capsules.start_m, capsules.end_m
    tip_m = arm.tool_position_m + rotation(arm.tool_quat_wxyz) @ np.array([0.0, 0.0, tool_length_m])
    body["capsule_b"][TOOL] = tip_m
    elbow_lowest_m = floor_m + capsules.radius_m[ELBOW]
    body["point_link"] = JOINTS - 1, capsules.link[ELBOW]
    body["point_offset"] = tip_m, capsules.end_m[ELBOW]
    body["box_lower"] = box_lower_m, (-ANYWHERE_M, -ANYWHERE_M, elbow_lowest_m)
    body["box_upper"] = box_upper_m, np.full(3, ANYWHERE_M)
    return bodies


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
    sources: int = SOURCES,  # keys the compiled code's cache (see `firmware_bridge.compiled`)
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


def _capsules(raw: dict[str, Any], links: tuple[Body, ...]) -> Capsules:
    """Return the capsules in `PART_NAMES`' order; those of the base, which is the first link, get BASE."""
    names = [link.name for link in links]
    parts = [raw[name] for name in PART_NAMES]
    return Capsules(
        link=np.array([names.index(part["link"]) - 1 for part in parts]),
        start_m=np.array([part["start_m"] for part in parts]),
        end_m=np.array([part["end_m"] for part in parts]),
        radius_m=np.array([part["radius_m"] for part in parts]),
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
