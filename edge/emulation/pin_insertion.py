"""Pin insertion's things: a socket on the table, and a pin whose handle the gripper holds.

- The hole is a ring of 16 boxes with a chamfer of 16 more, without a gap to the block around it; the pin is a cylinder.
- The pin is held for good: nobody commands the jaw in a trial. But it is held softly: it tilts on two springs, and
  where and how it sits in the hand is drawn anew each time that it comes free after having touched something.
- What the camera can find is the marking on the socket's face. The hole is not quite where the marking says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from edge.emulation.hidden import Hidden
from edge.emulation.setting import Truth
from edge.emulation.surfaces import BLUE, DARK, GREEN, GREY, SOLREF, UP
from edge.station import Station
from edge.tasks.pin_insertion.geometry import (
    CHAMFER_M,
    HANDLE_M,
    HOLE_DEPTH_M,
    HOLE_RADIUS_M,
    PIN_LENGTH_M,
    PIN_RADIUS_M,
    SOCKET_AROUND_M,
    SOCKET_SIDE_M,
    SOCKET_TOP_M,
)
from policies.interface import Array

SIDES = 16
WALL_M = 0.006
SOLIMP = [0.99, 0.999, 0.0001, 0.5, 2.0]  # the play is 0.2 mm: softer walls let the pin into them
TOUCHES = 2  # collision bit of pin and socket; the fingers are left out
HINGE_DAMPING, HINGE_ARMATURE = 0.02, 1e-4
FREE_TICKS = 24  # a tenth of a second without contact
CLEAR_M = 0.002  # and so far above the socket: then the hand's grip has settled
PLATE_M = 0.0002


@dataclass(frozen=True)
class HiddenPin:
    """One bench's own deviations beyond the arm's and the camera's."""

    socket_m: Array  # (2,) where the marking is
    socket_yaw_rad: float
    hole_off_m: Array  # (2,) from the marking, in its frame
    height_off_m: float  # of the socket's face
    held_off_m: Array  # (2,) of the pin's tip from the tool's axis, on average
    held_tilt_rad: Array  # (2,)
    grip_sd_m: float  # of a grip around that
    grip_sd_rad: float
    friction: float  # pin on socket
    stiffness_nm_rad: float  # of the hold


def draw_pin(seed: int) -> HiddenPin:
    """Return the deviations of the bench with this seed."""
    rng = np.random.default_rng([seed, 0x9147])
    return HiddenPin(
        socket_m=np.array(SOCKET_AROUND_M) + rng.uniform(-0.012, 0.012, 2),
        socket_yaw_rad=float(rng.uniform(-0.15, 0.15)),
        hole_off_m=rng.normal(0.0, 0.0004, 2),
        height_off_m=float(rng.normal(0.0, 0.0003)),
        held_off_m=rng.normal(0.0, 0.0003, 2),
        held_tilt_rad=rng.normal(0.0, np.radians(0.4), 2),
        grip_sd_m=float(rng.uniform(0.0009, 0.0012)),
        grip_sd_rad=float(np.radians(rng.uniform(0.75, 1.25))),
        friction=float(rng.uniform(0.2, 0.4)),
        stiffness_nm_rad=float(rng.uniform(2.5, 5.0)),
    )


class PinSetting:
    """A socket, and a pin that is held softly."""

    def __init__(self, hidden: Hidden, seed: int) -> None:
        self.hidden = draw_pin(seed)
        self._contact = {
            "condim": 4, "friction": [self.hidden.friction, 0.005, 0.0001], "solref": SOLREF, "solimp": SOLIMP,
            "contype": TOUCHES, "conaffinity": TOUCHES,
        }  # fmt: skip
        self._free_ticks, self._touched = 0, False

    def furnish(self, spec: Any) -> None:
        """Screw the socket down."""
        hidden = self.hidden
        half_yaw = hidden.socket_yaw_rad / 2
        socket = spec.worldbody.add_body(
            name="socket", pos=[*hidden.socket_m, hidden.height_off_m], quat=[np.cos(half_yaw), 0, 0, np.sin(half_yaw)]
        )
        socket.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[SOCKET_SIDE_M / 2, SOCKET_SIDE_M / 2, PLATE_M],
            pos=[0, 0, SOCKET_TOP_M - PLATE_M / 2], rgba=BLUE, contype=0, conaffinity=0,
        )  # fmt: skip
        hole = socket.add_body(name="hole", pos=[*hidden.hole_off_m, 0.0])
        hole.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[HOLE_RADIUS_M, PLATE_M, 0], pos=[0, 0, SOCKET_TOP_M],
            rgba=DARK, contype=0, conaffinity=0,
        )  # fmt: skip
        self._add_walls(hole)

    def _add_walls(self, hole: Any) -> None:
        top, floor = SOCKET_TOP_M, SOCKET_TOP_M - HOLE_DEPTH_M
        self._add_ring(hole, HOLE_RADIUS_M, floor, top - CHAMFER_M)
        self._add_ring(hole, HOLE_RADIUS_M + CHAMFER_M, floor, top)
        slope_m, thick_m = CHAMFER_M * np.sqrt(2.0), 0.001
        for side in range(SIDES):
            yaw = 2 * np.pi * side / SIDES
            middle_m = HOLE_RADIUS_M + CHAMFER_M / 2 + thick_m / 2 * np.sqrt(0.5)
            height_m = top - CHAMFER_M / 2 - thick_m / 2 * np.sqrt(0.5)
            self._add_wall(
                hole, [middle_m * np.cos(yaw), middle_m * np.sin(yaw), height_m],
                [slope_m / 2, (HOLE_RADIUS_M + CHAMFER_M) * np.tan(np.pi / SIDES), thick_m / 2],
                _times(_about(UP, yaw), _about(np.array([0.0, 1.0, 0.0]), -np.pi / 4)),
            )  # fmt: skip
        inner_m, outer_m = HOLE_RADIUS_M + WALL_M - 0.0015, SOCKET_SIDE_M / 2  # the ring's corners reach further
        half_m, middle_m = (outer_m - inner_m) / 2, (outer_m + inner_m) / 2
        for x, y, half_x, half_y in (
            (middle_m, 0.0, half_m, outer_m), (-middle_m, 0.0, half_m, outer_m),
            (0.0, middle_m, inner_m, half_m), (0.0, -middle_m, inner_m, half_m),
        ):  # fmt: skip
            self._add_wall(hole, [x, y, top / 2], [half_x, half_y, top / 2], [1, 0, 0, 0])
        self._add_wall(hole, [0, 0, floor / 2], [inner_m, inner_m, floor / 2], [1, 0, 0, 0])

    def _add_ring(self, hole: Any, radius_m: float, low_m: float, high_m: float) -> None:
        outer_m = HOLE_RADIUS_M + WALL_M
        for side in range(SIDES):
            yaw, middle_m = 2 * np.pi * side / SIDES, (radius_m + outer_m) / 2
            self._add_wall(
                hole, [middle_m * np.cos(yaw), middle_m * np.sin(yaw), (low_m + high_m) / 2],
                [(outer_m - radius_m) / 2, outer_m * np.tan(np.pi / SIDES), (high_m - low_m) / 2], _about(UP, yaw),
            )  # fmt: skip

    def _add_wall(self, hole: Any, pos: list[float], size: list[float], quat: Any) -> None:
        hole.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=size, quat=quat, rgba=GREY, **self._contact)

    def arm(self, hand: Any, station: Station) -> None:
        """Give the pin into the hand."""
        tool, below_m = station.tool, PIN_LENGTH_M - station.tool.length_m
        pin = hand.add_body(name="pin", pos=station.arm.tool_position_m)
        pin.mass, pin.ipos, pin.explicitinertial = tool.mass_kg, [0, 0, -tool.length_m / 2], True
        pin.inertia = [2e-5, 2e-5, 2e-6]
        for number, axis in enumerate(([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])):
            pin.add_joint(
                name=f"hold{number + 1}", type=mujoco.mjtJoint.mjJNT_HINGE, axis=axis,
                stiffness=[self.hidden.stiffness_nm_rad, 0.0, 0.0], damping=[HINGE_DAMPING, 0.0, 0.0],
                armature=HINGE_ARMATURE, range=[-0.3, 0.3], limited=True,
            )  # fmt: skip
        pin.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[side / 2 for side in HANDLE_M],
            pos=[0, 0, below_m + HANDLE_M[2] / 2], rgba=DARK, contype=0, conaffinity=0, mass=0,
        )  # fmt: skip
        touching = {**self._contact, "conaffinity": TOUCHES | 1}  # the table, too
        pin.add_geom(
            name="pin", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[PIN_RADIUS_M, PIN_LENGTH_M / 2, 0],
            pos=[0, 0, below_m - PIN_LENGTH_M / 2], rgba=GREEN, mass=0, **touching,
        )  # fmt: skip
        pin.add_site(name="tool", pos=[0, 0, -tool.length_m], quat=station.arm.tool_quat_wxyz, rgba=[0.0] * 4)

    def begin(self, model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Take the pin into the hand for the first time."""
        self._model, self._data, self._rng = model, data, rng
        self._pin, self._socket, self._hole = (model.body(name).id for name in ("pin", "socket", "hole"))
        self._tip = model.site("tool").id
        self._held_m = model.body_pos[self._pin].copy()
        self._length_m = float(-model.site_pos[self._tip][2])
        mujoco.mj_forward(model, data)
        self._grip()

    def tick(self) -> None:
        """Settle the grip anew where the pin has come free."""
        if self._data.ncon:
            self._touched, self._free_ticks = True, 0
            return
        self._free_ticks += 1
        if self._touched and self._free_ticks >= FREE_TICKS and self.truth()[0] < -CLEAR_M:
            self._grip()

    def place(self, pose: Truth) -> None:
        """Move the socket until the pin's tip is off the hole's axis by the pose's first two numbers, base frame."""
        away_m = self._data.site_xpos[self._tip][:2] - np.asarray(pose[:2]) - self._data.xpos[self._hole][:2]
        self._model.body_pos[self._socket][:2] += away_m
        mujoco.mj_forward(self._model, self._data)

    def truth(self) -> Truth:
        """Return how deep the pin's tip is below the socket's face, how far off the hole's axis, and the pin's lean."""
        tip_m, hole_m = self._data.site_xpos[self._tip], self._data.xpos[self._hole]
        depth_m = float(hole_m[2] + SOCKET_TOP_M - tip_m[2])
        off_m = float(np.hypot(tip_m[0] - hole_m[0], tip_m[1] - hole_m[1]))
        upright = float(self._data.xmat[self._pin][8])
        return depth_m, off_m, float(np.arccos(min(1.0, max(-1.0, upright))))

    def _grip(self) -> None:
        hidden, rng = self.hidden, self._rng
        self._touched = False
        tilt = hidden.held_tilt_rad + rng.normal(0.0, hidden.grip_sd_rad, 2)
        off_m = hidden.held_off_m + rng.normal(0.0, hidden.grip_sd_m, 2)
        # Drawn is where the tip is: the grip goes the other way by what the tilt makes of the pin's length.
        lever_m = self._length_m * np.array([-tilt[1], tilt[0]])
        self._model.body_pos[self._pin] = self._held_m + np.array([*(off_m - lever_m), 0.0])
        across = np.array([tilt[0], tilt[1], 0.0])
        self._model.body_quat[self._pin] = _about(across, float(np.linalg.norm(tilt)))


def _about(axis: Array, angle_rad: float) -> Array:
    """Return the quaternion of a turn about an axis, which need not be of unit length."""
    unit = axis / max(float(np.linalg.norm(axis)), 1e-12)
    return np.array([np.cos(angle_rad / 2), *(np.sin(angle_rad / 2) * unit)])


def _times(one: Array, other: Array) -> Array:
    product = np.empty(4)
    mujoco.mju_mulQuat(product, one, other)
    return product
