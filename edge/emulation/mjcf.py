"""The bench as a MuJoCo model: the arm from its measured constants, primitive shapes, table, camera, a task's things.

- Masses, inertias and axes are the maker's; shapes are capsules and boxes, which render much faster than meshes.
- Only the tool, the finger pads, the task's things and the table touch each other: nothing keeps the arm off itself.
- Contacts are mass-scaled and must be stiff; cones are elliptic.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from edge.arm import ArmModel, Body, rotation
from edge.emulation.hidden import Hidden
from edge.emulation.setting import Setting
from edge.emulation.surfaces import GREY, ORANGE, PHYSICS_DT_S, SOLIMP, SOLREF, TABLE
from edge.station import Station
from policies.interface import Array

# Rotor inertia seen at the joint: rotor inertia times gear ratio squared.
ARMATURE_KGM2 = {"DM4340": 0.032, "DM4310": 0.0018}
PAD_SIZE_M = [0.006, 0.006, 0.012]


def build(station: Station, hidden: Hidden, setting: Setting) -> mujoco.MjModel:
    """Return the compiled bench with a task's things on it."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = PHYSICS_DT_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.option.gravity = [0.0, 0.0, -9.81 * (1.0 + hidden.gravity_error)]
    spec.visual.quality.offsamples = 0
    spec.visual.quality.shadowsize = 0
    spec.visual.headlight.active = 0
    _add_table(spec, hidden)
    setting.furnish(spec)
    _add_arm(spec, station, hidden, setting)
    _add_camera(spec, station)
    return spec.compile()


def _add_table(spec: Any, hidden: Hidden) -> None:
    world = spec.worldbody
    world.add_light(
        pos=[0.1, -0.6, 1.6], dir=[0.1, 0.4, -1.0], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, castshadow=False,
        diffuse=[0.55 * hidden.light] * 3, ambient=[0.4 * hidden.light] * 3, specular=[0.05] * 3,
    )  # fmt: skip
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.6, 0.6, 0.02], pos=[0.3, 0.0, -0.02], rgba=TABLE,
        contype=1, conaffinity=1, condim=4, friction=[hidden.table_friction, 0.005, 0.0001],
        solref=SOLREF, solimp=SOLIMP,
    )  # fmt: skip


def _add_arm(spec: Any, station: Station, hidden: Hidden, setting: Setting) -> None:
    arm = station.arm
    bodies: dict[str, Any] = {"world": spec.worldbody}
    children = {body.parent: body for body in arm.bodies}
    motors = iter(range(7))
    for link in arm.bodies:
        body = _add_body(bodies[link.parent], link)
        bodies[link.name] = body
        if link.joint == "hinge":
            motor = next(motors)
            joint = body.add_joint(
                name=f"joint{motor + 1}", type=mujoco.mjtJoint.mjJNT_HINGE, axis=link.axis,
                range=link.joint_range + np.array([-0.05, 0.05]), limited=True,
                armature=ARMATURE_KGM2[arm.motor_types[motor]], frictionloss=hidden.friction_nm[motor],
            )  # fmt: skip
            _add_motor(spec, joint.name, 1.0, f"motor{motor + 1}")
        if link.joint != "slide" and link.name in children and link.name != "link6":
            _add_capsule(body, children[link.name].position_m, 0.034 if len(bodies) < 6 else 0.028, len(bodies) % 2)
    _add_gripper(spec, bodies, station)
    setting.arm(bodies["gripper"], station)


def _add_body(parent: Any, body: Body) -> Any:
    inertia = body.inertia_kgm2
    return parent.add_body(
        name=body.name, pos=body.position_m, quat=body.quat_wxyz, mass=body.mass_kg, ipos=body.com_m,
        fullinertia=[inertia[0, 0], inertia[1, 1], inertia[2, 2], inertia[0, 1], inertia[0, 2], inertia[1, 2]],
        explicitinertial=True,
    )  # fmt: skip


def _add_gripper(spec: Any, bodies: dict[str, Any], station: Station) -> None:
    arm = station.arm
    for number, tip in enumerate((body for body in arm.bodies if body.joint == "slide"), start=7):
        finger = bodies[tip.name]
        finger.add_joint(
            name=f"joint{number}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=tip.axis, range=tip.joint_range,
            limited=True, armature=0.1, damping=[5.0, 0.0, 0.0], frictionloss=0.3,
        )  # fmt: skip
        finger.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=PAD_SIZE_M, pos=_pad_position_m(tip, arm),
            quat=_inverse(tip.quat_wxyz), rgba=ORANGE, mass=0, contype=1, conaffinity=1, condim=4,
            friction=[1.2, 0.005, 0.0001], solref=SOLREF, solimp=SOLIMP,
        )  # fmt: skip
    left, right = (body.name for body in arm.bodies if body.joint == "slide")
    spec.add_exclude(bodyname1=left, bodyname2=right)  # the joints' own ends stop the jaw; no need to solve it twice
    spec.add_equality(
        name="jaws", type=mujoco.mjtEq.mjEQ_JOINT, name1="joint7", name2="joint8", data=[0, 1] + [0] * 10,
        solref=[0.005, 1.0],
    )  # fmt: skip
    _add_motor(spec, "joint7", 2 * arm.gripper.rad_per_m, "motor7")  # the jaw opens by both slides
    _add_box(bodies["gripper"], [0, 0, -0.035], [0.025, 0.06, 0.028], GREY)


def _pad_position_m(tip: Body, arm: ArmModel) -> Array:
    """Return where the finger's pad sits in the finger's frame: beside the grasp point, closed jaw at slide 0."""
    side = 1.0 if tip.position_m[1] > 0 else -1.0
    in_gripper = np.array([0.0, side * PAD_SIZE_M[1], arm.tool_position_m[2] + 0.004])
    return np.asarray(rotation(tip.quat_wxyz).T @ (in_gripper - tip.position_m))


def _inverse(quat_wxyz: Array) -> Array:
    return np.asarray(quat_wxyz * np.array([1.0, -1.0, -1.0, -1.0]))


def _add_motor(spec: Any, joint: str, gear: float, name: str) -> None:
    """Add an actuator whose law the motor's own frames program: force = bias0 + bias1 * angle + bias2 * speed."""
    spec.add_actuator(
        name=name, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT, gear=[gear, 0, 0, 0, 0, 0],
        gaintype=mujoco.mjtGain.mjGAIN_FIXED, biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        gainprm=[0.0] * 10, biasprm=[0.0] * 10, ctrllimited=False, forcelimited=True, forcerange=[-28.0, 28.0],
    )  # fmt: skip


def _add_camera(spec: Any, station: Station) -> None:
    camera = station.calibration.top_camera
    # MuJoCo's camera looks along its own -z with y up.
    rotation = camera.base_from_camera_rotation @ np.diag([1.0, -1.0, -1.0])
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation).flatten())
    fovy = 2 * np.degrees(np.arctan2(camera.height_px / 2, camera.focal_px))
    spec.worldbody.add_camera(name="top", pos=camera.base_from_camera_position_m, quat=quat, fovy=fovy)
    spec.visual.global_.offwidth = camera.width_px
    spec.visual.global_.offheight = camera.height_px


def _add_capsule(body: Any, end: Array, radius_m: float, dark: int) -> None:
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=[0, 0, 0, *end], size=[radius_m, 0, 0], contype=0, conaffinity=0,
        rgba=GREY if dark else ORANGE, mass=0,
    )  # fmt: skip


def _add_box(body: Any, pos: list[float], size: list[float], rgba: list[float]) -> None:
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, rgba=rgba, contype=0, conaffinity=0, mass=0)
