"""What crosses between a policy's process and the edge: one packet a request, one packet a reply.

- Packets are msgpack lists on a sequenced-packet socket, so a packet is whole or not there.
- Requests: `["observe"]`, `["step", "joint" | "tool", floats]`, `["scene"]`, `["note", text]`, and last
  `["end", kind, detail]`.
- Replies: `["ok", value]`, `["out_of_reach", sentence]` or `["trial_over", sentence]`.
- Arrays travel as little-endian float64 bytes. Neither side believes the other: what comes in is checked before use.
"""

from __future__ import annotations

import socket
from typing import Any

import msgpack
import numpy as np

from policies.interface import (
    Array,
    JointTarget,
    Observation,
    PolicyError,
    Scene,
    SceneObject,
    ToolTarget,
)

PACKET_BYTES = 65_536
OBSERVATION_FLOATS = 27
NOTE_BYTES = 16_384  # of all notes in one attempt
UNIT_QUATERNION_SLACK = 0.01


class BadTarget(PolicyError):
    """A target that is not finite numbers of the right shape."""


class BadNote(PolicyError):
    """A note that is not text."""


class LinkError(PolicyError):
    """The other side said something that is not in the language above."""


class LinkClosed(LinkError):
    """The other side is gone."""


def send(end: socket.socket, *message: object) -> None:
    """Send one packet.

    Raises:
        LinkClosed: the other side is gone or no longer reads.
    """
    try:
        end.send(msgpack.packb(message))
    except OSError as error:
        raise LinkClosed(f"the other side is gone: {error.strerror}") from error


def receive(end: socket.socket) -> list[Any]:
    """Return one packet; the socket's own receive timeout, where set, is the deadline.

    Raises:
        TimeoutError: nothing came before the deadline.
        LinkClosed: the other side is gone.
        LinkError: the packet is not a list that begins with a word.
    """
    try:
        data = end.recv(PACKET_BYTES)
    except BlockingIOError as error:  # how the kernel reports SO_RCVTIMEO
        raise TimeoutError("nothing came before the deadline") from error
    except OSError as error:
        raise LinkClosed(f"the other side is gone: {error.strerror}") from error
    if not data:
        raise LinkClosed("the other side is gone")
    try:
        message = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise LinkError(f"a packet that is not msgpack: {error}") from error
    if not (isinstance(message, list) and message and isinstance(message[0], str)):
        raise LinkError("a packet that does not begin with a word")
    return message


def observation_to_bytes(seen: Observation) -> bytes:
    """Return the floats of an observation in field order."""
    parts = (
        (seen.time_s,),
        seen.joints_rad,
        seen.joint_velocity_rad_s,
        seen.joint_torque_nm,
        seen.tool_position_m,
        seen.tool_quat_wxyz,
        (seen.gripper_m,),
    )
    return np.concatenate(parts, dtype="<f8").tobytes()


def observation_from_bytes(data: object) -> Observation:
    """Return the observation in `data`.

    Raises:
        LinkError: not the right number of bytes.
    """
    flat = _floats(data, OBSERVATION_FLOATS)
    return Observation(
        time_s=float(flat[0]),
        joints_rad=flat[1:7],
        joint_velocity_rad_s=flat[7:13],
        joint_torque_nm=flat[13:19],
        tool_position_m=flat[19:22],
        tool_quat_wxyz=flat[22:26],
        gripper_m=float(flat[26]),
    )


def target_to_message(target: object) -> tuple[str, str, bytes]:
    """Return the step request for a target.

    Raises:
        BadTarget: not a target, the wrong shape, not finite, or a quaternion that is not of unit length.
    """
    if isinstance(target, JointTarget):
        return ("step", "joint", _checked(target.joints_rad, (6,), "joints_rad").tobytes())
    if isinstance(target, ToolTarget):
        position_m = _checked(target.position_m, (3,), "position_m")
        quat_wxyz = _checked(target.quat_wxyz, (4,), "quat_wxyz")
        _check_unit(quat_wxyz)
        return ("step", "tool", position_m.tobytes() + quat_wxyz.tobytes())
    raise BadTarget(f"step takes a JointTarget or a ToolTarget, not a {type(target).__name__}")


def target_from_message(message: list[Any]) -> JointTarget | ToolTarget:
    """Return the target that a step request holds.

    Raises:
        BadTarget: not finite, or a quaternion that is not of unit length.
        LinkError: not a step request.
    """
    match message:
        case ["step", "joint", data]:
            return JointTarget(_checked(_floats(data, 6), (6,), "joints_rad"))
        case ["step", "tool", data]:
            flat = _floats(data, 7)
            quat_wxyz = _checked(flat[3:], (4,), "quat_wxyz")
            _check_unit(quat_wxyz)
            w, x, y, z = quat_wxyz.tolist()
            return ToolTarget(_checked(flat[:3], (3,), "position_m"), (w, x, y, z))
    raise LinkError("a step request without a joint or tool target")


def note_to_message(text: object) -> tuple[str, str]:
    """Return the note request for a text; what no attempt has room for stays here.

    Raises:
        BadNote: not text.
    """
    if not isinstance(text, str):
        raise BadNote(f"note takes text, not a {type(text).__name__}")
    # A character too many, so that the other side sees that there was more.
    data = text[: NOTE_BYTES + 4].encode(errors="backslashreplace")[: NOTE_BYTES + 4]
    return ("note", data.decode(errors="ignore"))


def note_from_message(message: list[Any]) -> str:
    """Return the text that a note request holds.

    Raises:
        LinkError: not a note request.
    """
    match message:
        case ["note", str(text)]:
            return text
    raise LinkError("a note that is not text")


def scene_to_list(scene: Scene) -> list[Any]:
    """Return a scene as plain values."""
    objects = [[o.name, o.x_m, o.y_m, o.yaw_rad, o.sigma_m, o.sigma_rad, o.z_m] for o in scene.objects]
    return [scene.time_s, objects]


def scene_from_list(raw: list[Any]) -> Scene:
    """Return the scene that `scene_to_list` wrote."""
    time_s, objects = raw
    return Scene(time_s, tuple(SceneObject(*item) for item in objects))


def _floats(data: object, count: int) -> Array:
    if not isinstance(data, bytes) or len(data) != 8 * count:
        raise LinkError(f"not {count} float64")
    return np.frombuffer(data, "<f8").astype(np.float64)


def _checked(value: object, shape: tuple[int, ...], name: str) -> Array:
    try:
        array = np.asarray(value, dtype="<f8")
    except (TypeError, ValueError) as error:
        raise BadTarget(f"{name} is not numbers") from error
    if array.shape != shape:
        raise BadTarget(f"{name} has the shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        raise BadTarget(f"{name} is not finite: {np.array2string(array, precision=3)}")
    return array


def _check_unit(quat_wxyz: Array) -> None:
    length = float(np.sqrt(quat_wxyz @ quat_wxyz))
    if not abs(length - 1.0) <= UNIT_QUATERNION_SLACK:
        raise BadTarget(f"quat_wxyz has the length {length:.3f}, not 1")
