"""What one side of the link sends the other reads unchanged; what is not in the language is refused on both sides."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from policies import link
from policies.interface import (
    TOOL_DOWN_WXYZ,
    Array,
    JointTarget,
    Observation,
    PolicyError,
    Scene,
    SceneObject,
    ToolTarget,
)
from policies.link import BadTarget, LinkClosed, LinkError

Ends = tuple[socket.socket, socket.socket]
LAW = settings(deadline=None, max_examples=50)
# The fixture is only a pair of sockets, and every example leaves it empty.
SHARED = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def ends() -> Iterator[Ends]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        yield near, far


def vectors(count: int, finite: bool = True) -> st.SearchStrategy[Array]:
    return hnp.arrays(np.float64, count, elements=st.floats(allow_nan=not finite, allow_infinity=not finite))


def unit(quat: Array) -> Array:
    return np.asarray(quat / np.linalg.norm(quat))


UNIT_QUATERNIONS = hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: (q @ q) > 1e-3).map(unit)
OBSERVATIONS = st.builds(
    Observation,
    time_s=st.floats(),
    joints_rad=vectors(6, finite=False),
    joint_velocity_rad_s=vectors(6, finite=False),
    joint_torque_nm=vectors(6, finite=False),
    tool_position_m=vectors(3, finite=False),
    tool_quat_wxyz=vectors(4, finite=False),
    gripper_m=st.floats(),
)
NUMBERS = st.floats(allow_nan=False)
SCENES = st.builds(
    Scene,
    NUMBERS,
    st.lists(st.builds(SceneObject, st.text(), NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4).map(tuple),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def same(one: object, two: object) -> bool:
    """Return whether two plain values are equal, NaN equal to itself."""
    return bool(msgpack.packb(one) == msgpack.packb(two))


# Round trips.


@LAW
@given(OBSERVATIONS)
def test_an_observation_comes_back_bit_for_bit(seen: Observation) -> None:
    data = link.observation_to_bytes(seen)
    back = link.observation_from_bytes(data)
    for field, value in vars(seen).items():
        np.testing.assert_array_equal(getattr(back, field), value, err_msg=field)
    assert link.observation_to_bytes(back) == data


@LAW
@given(vectors(6))
def test_a_joint_target_comes_back_bit_for_bit(joints_rad: Array) -> None:
    back = link.target_from_message(list(link.target_to_message(JointTarget(joints_rad))))
    assert isinstance(back, JointTarget)
    assert back.joints_rad.tobytes() == joints_rad.tobytes()


@LAW
@given(vectors(3), UNIT_QUATERNIONS)
def test_a_tool_target_comes_back_bit_for_bit(position_m: Array, quat: Array) -> None:
    w, x, y, z = quat.tolist()
    back = link.target_from_message(list(link.target_to_message(ToolTarget(position_m, (w, x, y, z)))))
    assert isinstance(back, ToolTarget)
    assert back.position_m.tobytes() == position_m.tobytes()
    assert back.quat_wxyz == (w, x, y, z)


def test_a_tool_target_points_down_unless_said_otherwise() -> None:
    back = link.target_from_message(list(link.target_to_message(ToolTarget(np.zeros(3)))))
    assert isinstance(back, ToolTarget)
    assert back.quat_wxyz == TOOL_DOWN_WXYZ


@LAW
@given(SCENES)
def test_a_scene_comes_back_over_the_wire(scene: Scene) -> None:
    assert link.scene_from_list(msgpack.unpackb(msgpack.packb(link.scene_to_list(scene)))) == scene


def test_a_scene_finds_its_objects_by_name() -> None:
    tee, cup = (SceneObject(name, 0.3, 0.0, 0.0, 0.001, 0.01) for name in ("tee", "cup"))
    scene = Scene(1.0, (tee, cup))
    assert (scene.find("tee"), scene.find("cup"), scene.find("pin")) == (tee, cup, None)


@SHARED
@given(messages=st.lists(st.tuples(st.text(), PLAIN), min_size=1, max_size=4))
def test_packets_arrive_whole_and_in_order(ends: Ends, messages: list[tuple[str, Any]]) -> None:
    near, far = ends
    for word, value in messages:
        link.send(near, word, value)
    assert same([link.receive(far) for _ in messages], messages)


def test_the_largest_requests_fit_in_a_packet(ends: Ends) -> None:
    near, far = ends
    detail = "x" * (link.PACKET_BYTES // 2)
    link.send(near, "end", "crashed", detail)
    assert link.receive(far) == ["end", "crashed", detail]


# Bad targets.


class NotATarget:
    joints_rad = np.zeros(6)


def joints(value: object) -> JointTarget:
    return JointTarget(value)  # type: ignore[arg-type]


def tool(position_m: object, quat_wxyz: object = TOOL_DOWN_WXYZ) -> ToolTarget:
    return ToolTarget(position_m, quat_wxyz)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (joints(np.zeros(5)), "joints_rad has the shape (5,), not (6,)"),
        (joints(np.zeros(7)), "joints_rad has the shape (7,), not (6,)"),
        (joints(np.zeros((1, 6))), "joints_rad has the shape (1, 6), not (6,)"),
        (joints(0.0), "joints_rad has the shape (), not (6,)"),
        (joints([]), "joints_rad has the shape (0,), not (6,)"),
        (joints("still"), "joints_rad is not numbers"),
        (joints([[0.0], [0.0, 1.0]]), "joints_rad is not numbers"),
        (joints({}), "joints_rad is not numbers"),
        (joints(None), "joints_rad"),
        (joints([None] * 6), "joints_rad is not finite"),
        (tool(np.zeros(2)), "position_m has the shape (2,), not (3,)"),
        (tool(np.zeros((3, 1))), "position_m has the shape (3, 1), not (3,)"),
        (tool("here"), "position_m is not numbers"),
        (tool(np.zeros(3), (1.0, 0.0, 0.0)), "quat_wxyz has the shape (3,), not (4,)"),
        (tool(np.zeros(3), None), "quat_wxyz"),
        (tool(np.zeros(3), np.zeros(4)), "quat_wxyz has the length 0.000, not 1"),
        (tool(np.zeros(3), (1.0, 1.0, 0.0, 0.0)), "quat_wxyz has the length 1.414, not 1"),
        (tool(np.zeros(3), (1e200, 0.0, 0.0, 0.0)), "quat_wxyz has the length"),
        (NotATarget(), "step takes a JointTarget or a ToolTarget, not a NotATarget"),
        (np.zeros(6), "step takes a JointTarget or a ToolTarget, not a ndarray"),
        (None, "step takes a JointTarget or a ToolTarget, not a NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")  # of the length of 1e200
def test_a_bad_target_is_not_sent(target: object, text: str) -> None:
    with pytest.raises(BadTarget) as caught:
        link.target_to_message(target)
    assert text in str(caught.value)


NOT_FINITE = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(("kind", "count"), [("joint", 6), ("tool", 7)])
def test_no_number_of_a_target_may_be_other_than_finite_on_either_side(kind: str, count: int, value: float) -> None:
    for at in range(count):
        flat = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0][:count])
        flat[at] = value
        target = joints(flat) if kind == "joint" else tool(flat[:3], flat[3:])
        with pytest.raises(BadTarget, match="is not finite"):
            link.target_to_message(target)
        with pytest.raises(BadTarget, match="is not finite"):
            link.target_from_message(["step", kind, flat.tobytes()])


JUST = 1e-9


@pytest.mark.parametrize("length", [1 - link.UNIT_QUATERNION_SLACK, 1 + link.UNIT_QUATERNION_SLACK])
def test_a_quaternion_may_be_as_long_as_the_slack_allows_and_no_longer(length: float) -> None:
    inwards = math.copysign(JUST, 1 - length)
    for axis in range(4):
        for sign in (-1.0, 1.0):
            quat = np.zeros(4)
            quat[axis] = sign * (length + inwards)
            inside = np.concatenate([np.zeros(3), quat])
            assert isinstance(link.target_from_message(["step", "tool", inside.tobytes()]), ToolTarget)
            link.target_to_message(tool(np.zeros(3), quat))
            quat[axis] = sign * (length - inwards)
            outside = np.concatenate([np.zeros(3), quat])
            with pytest.raises(BadTarget, match="not 1"):
                link.target_from_message(["step", "tool", outside.tobytes()])
            with pytest.raises(BadTarget, match="not 1"):
                link.target_to_message(tool(np.zeros(3), quat))


@pytest.mark.parametrize(
    "message",
    [
        [],
        ["step"],
        ["step", "joint"],
        ["step", "joint", np.zeros(6).tobytes(), 1],
        ["step", "tools", np.zeros(7).tobytes()],
        ["Step", "joint", np.zeros(6).tobytes()],
        ["step", "joint", np.zeros(7).tobytes()],
        ["step", "joint", np.zeros(6).tobytes()[:-1]],
        ["step", "joint", b""],
        ["step", "joint", [0.0] * 6],
        ["step", "joint", "0" * 48],
        ["step", "joint", None],
        ["step", "tool", np.zeros(6).tobytes()],
        ["step", None, np.zeros(6).tobytes()],
    ],
)
def test_what_is_not_a_step_request_is_a_fault_of_the_link(message: list[Any]) -> None:
    with pytest.raises(LinkError) as caught:
        link.target_from_message(message)
    assert type(caught.value) is LinkError


@LAW
@given(PLAIN)
def test_no_step_request_raises_anything_but_policy_errors(value: object) -> None:
    for message in (["step", value], ["step", "joint", value], ["step", "tool", value], [value]):
        with pytest.raises(PolicyError):
            link.target_from_message(message)


@pytest.mark.parametrize(
    "data", [b"", bytes(8 * 27 - 1), bytes(8 * 27 + 1), bytes(8 * 26), bytes(8 * 28), "0" * 216, [0.0] * 27, None]
)
def test_an_observation_of_another_size_is_a_fault_of_the_link(data: object) -> None:
    with pytest.raises(LinkError, match="not 27 float64"):
        link.observation_from_bytes(data)


def test_floats_travel_little_endian_in_field_order() -> None:
    flat = [float(k) for k in range(27)]
    seen = link.observation_from_bytes(struct.pack("<27d", *flat))
    assert (seen.time_s, seen.gripper_m) == (0.0, 26.0)
    assert [seen.joints_rad[0], seen.joint_velocity_rad_s[0], seen.joint_torque_nm[0]] == [1.0, 7.0, 13.0]
    assert [seen.tool_position_m[0], seen.tool_quat_wxyz[0]] == [19.0, 22.0]
    assert link.target_to_message(JointTarget(np.arange(6.0)))[2] == struct.pack("<6d", *range(6))


# Bad packets.


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (b"\xc1", "a packet that is not msgpack"),
        (b"\x91", "a packet that is not msgpack"),
        (msgpack.packb(["observe"]) + b"\0", "a packet that is not msgpack"),
        (msgpack.packb(["observe"]) * 2, "a packet that is not msgpack"),
        (b"\x91" * 5000, "a packet that is not msgpack"),
        (b"\xdd\xff\xff\xff\xff", "a packet that is not msgpack"),
        (b"\x91\xa1\xff", "a packet that is not msgpack"),
        (msgpack.packb([]), "a packet that does not begin with a word"),
        (msgpack.packb("observe"), "a packet that does not begin with a word"),
        (msgpack.packb(None), "a packet that does not begin with a word"),
        (msgpack.packb({"observe": 1}), "a packet that does not begin with a word"),
        (msgpack.packb([b"observe"]), "a packet that does not begin with a word"),
        (msgpack.packb([1, "observe"]), "a packet that does not begin with a word"),
        (msgpack.packb([["observe"]]), "a packet that does not begin with a word"),
        (msgpack.packb(["x" * link.PACKET_BYTES]), "a packet that is not msgpack"),
    ],
)
def test_a_malformed_packet_is_a_fault_of_the_link(ends: Ends, packet: bytes, text: str) -> None:
    near, far = ends
    near.send(packet)
    with pytest.raises(LinkError) as caught:
        link.receive(far)
    assert type(caught.value) is LinkError
    assert text in str(caught.value)


def read(end: socket.socket) -> list[Any] | None:
    """Return the packet, or None where it is not in the language."""
    try:
        return link.receive(end)
    except LinkClosed:
        raise
    except LinkError:
        return None


@SHARED
@given(packet=st.binary(min_size=1, max_size=60) | PLAIN.map(msgpack.packb))
def test_whatever_comes_is_a_list_that_begins_with_a_word_or_a_fault_of_the_link(ends: Ends, packet: bytes) -> None:
    near, far = ends
    near.send(packet)
    message = read(far)
    assert message is None or (isinstance(message[0], str) and same(message, msgpack.unpackb(packet)))


def test_a_side_that_has_gone_is_told_apart_from_one_that_is_silent(ends: Ends) -> None:
    near, far = ends
    far.setblocking(False)
    with pytest.raises(TimeoutError):
        link.receive(far)
    link.send(near, "observe")
    near.close()
    assert link.receive(far) == ["observe"]
    for _ in range(2):
        with pytest.raises(LinkClosed):
            link.receive(far)
    with pytest.raises(LinkClosed):
        link.send(far, "observe")


def test_a_side_that_went_without_reading_has_gone(ends: Ends) -> None:
    near, far = ends
    link.send(near, "observe")
    far.close()
    with pytest.raises(LinkClosed, match="Connection reset"):
        link.receive(near)


def test_a_side_that_no_longer_reads_counts_as_gone(ends: Ends) -> None:
    near, _ = ends
    near.setblocking(False)

    def fill() -> None:
        while True:
            link.send(near, "end", "crashed", "x" * 4096)

    with pytest.raises(LinkClosed):
        fill()
