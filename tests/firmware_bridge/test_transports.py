"""The same motors answer the same bytes over every transport, and every transport says when it ends."""

from __future__ import annotations

import os
import pty
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from numba import njit

from firmware_bridge import wire
from firmware_bridge.damiao import Special, encode_commands, scales, special_frames
from firmware_bridge.frames import ERROR_FLAG, BridgeError, BusFull, BusGone, BusOff, CanBus, Frames, can_id, no_frames
from firmware_bridge.motors import EmulatedBus, MotorBank, Shafts
from firmware_bridge.transports import (
    SeqpacketServer,
    WireBus,
    open_seqpacket,
    open_slcan,
    open_socketcan,
    open_usb2can,
)

pytestmark = pytest.mark.filterwarnings("error::numba.core.errors.NumbaWarning")

KINDS = ["DM4340"] * 3 + ["DM4310"] * 4
ESC = list(range(1, 8))
MST = [identifier + 0x10 for identifier in ESC]
PATIENCE_S = 10.0  # a wait that fails, never one that is slept through
BUS_OFF, RESTARTED = 0x40, 0x100
MEGABIT = 1_000_000


def shafts() -> Shafts:
    return np.linspace(-1.0, 1.0, 7), np.zeros(7), np.linspace(0.0, 3.0, 7)


def commands(position: float) -> Frames:
    """Return one MIT command for each motor."""
    out = np.zeros((7, 16), dtype=np.uint8)
    encode_commands(np.tile([position, 0.1, 10.0, 1.0, 0.3], (7, 1)), scales(KINDS), np.array(ESC), out)
    return out


def numbered(count: int) -> Frames:
    """Return frames that hold their own number."""
    out = np.zeros((count, 16), dtype=np.uint8)
    out[:, 0], out[:, 4] = 0x11, 8
    out[:, 8:12] = np.arange(count, dtype=np.uint32).view(np.uint8).reshape(-1, 4)
    return out


class Waitable(Protocol):
    """What `select` takes."""

    def fileno(self) -> int:
        """Return a file descriptor."""
        ...


def wait_for(device: Waitable) -> None:
    assert select.select([device], [], [], PATIENCE_S)[0], "nothing came"


class PacketEnd:
    """The far end of a socket pair."""

    noise = b"?"

    def __init__(self) -> None:
        near, self._socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.bus = WireBus("pair", wire.SOCKET, near)

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> Frames:
        """Return a frame that has come, waiting for it."""
        wait_for(self)
        return np.frombuffer(self._socket.recv(16), dtype=np.uint8).reshape(1, 16).copy()

    def give(self, frames: Frames) -> None:
        for row in frames:
            self._socket.send(row.tobytes())

    def give_bytes(self, packet: bytes) -> None:
        self._socket.send(packet)

    def unplug(self) -> None:
        self._socket.close()


class PtyEnd:
    """An adapter at the far end of a pseudo-terminal; what it speaks is up to the subclass."""

    noise = b"?"

    def __init__(self, open_bus: Callable[[str], WireBus]) -> None:
        master, slave = pty.openpty()
        self._master = os.fdopen(master, "r+b", buffering=0)
        self.bus = open_bus(os.ttyname(slave))
        os.close(slave)
        self._tail = b""

    def fileno(self) -> int:
        return self._master.fileno()

    def take(self) -> Frames:
        """Return the frames that bytes complete which have come, waiting for some bytes."""
        wait_for(self)
        frames, self._tail = self.parse(self._tail + self._master.read(65536))
        return frames.copy()

    def give(self, frames: Frames) -> None:
        for row in frames:
            self.give_bytes(self.say(row))

    def give_bytes(self, data: bytes) -> None:
        assert self._master.write(data) == len(data)

    def unplug(self) -> None:
        self._master.close()

    def say(self, row: Frames) -> bytes:
        raise NotImplementedError

    def parse(self, data: bytes) -> tuple[Frames, bytes]:
        raise NotImplementedError


class SlcanEnd(PtyEnd):
    """An adapter that speaks SLCAN, written without the codec under test."""

    def __init__(self) -> None:
        super().__init__(lambda port: open_slcan(port, "damiao", MEGABIT))
        self.opened: list[str] = []

    def say(self, row: Frames) -> bytes:
        return f"t{can_id(row):03X}{row[4]}{row[8 : 8 + row[4]].tobytes().hex()}\r".encode()

    def parse(self, data: bytes) -> tuple[Frames, bytes]:
        *lines, tail = data.decode().split("\r")
        self.opened += [line for line in lines if line[0] != "t"]
        rows = [
            int(line[1:4], 16).to_bytes(4, "little") + bytes([int(line[4]), 0, 0, 0]) + bytes.fromhex(line[5:])
            for line in lines
            if line[0] == "t"
        ]
        return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 16), tail.encode()


class Usb2canEnd(PtyEnd):
    """An adapter that speaks USB2CAN, written without the codec under test."""

    def __init__(self) -> None:
        super().__init__(lambda port: open_usb2can(port, MEGABIT))

    def say(self, row: Frames) -> bytes:
        return bytes([0xAA, 0x11, row[4]]) + row[:4].tobytes() + row[8:].tobytes() + b"\x55"

    def parse(self, data: bytes) -> tuple[Frames, bytes]:
        data = data.removeprefix(bytes.fromhex("550500aa55"))
        whole = len(data) // 30 * 30
        records = np.frombuffer(data[:whole], dtype=np.uint8).reshape(-1, 30)
        assert (records[:, :4] == [0x55, 0xAA, 30, 3]).all()
        frames = np.zeros((len(records), 16), dtype=np.uint8)
        frames[:, :4], frames[:, 4], frames[:, 8:] = records[:, 13:17], records[:, 18], records[:, 21:29]
        return frames, data[whole:]


class Motors(Protocol):
    """A bus with seven motors at its end."""

    bus: CanBus

    def answer(self, count: int) -> None:
        """Let the motors answer `count` frames."""
        ...


class MotorsBehind:
    """Motors at the far end of a wire."""

    def __init__(self, end: PacketEnd | PtyEnd) -> None:
        self.bus: CanBus = end.bus
        self._end = end
        self._bank = MotorBank(KINDS, ESC, MST)

    def answer(self, count: int) -> None:
        while count > 0:
            frames = self._end.take()
            self._end.give(self._bank.exchange(frames, 0, *shafts()))
            count -= len(frames)


class MotorsInside:
    """Motors in the same process, which answer at once."""

    def __init__(self) -> None:
        self.bus: CanBus = EmulatedBus(MotorBank(KINDS, ESC, MST), shafts, lambda: 0)

    def answer(self, count: int) -> None:
        pass


WIRES: list[type[PacketEnd] | type[SlcanEnd] | type[Usb2canEnd]] = [PacketEnd, SlcanEnd, Usb2canEnd]


@pytest.fixture(params=[*WIRES, MotorsInside], ids=lambda kind: kind.__name__)
def motors(request: pytest.FixtureRequest) -> Iterator[Motors]:
    if request.param is MotorsInside:
        yield MotorsInside()
        return
    end = request.param()
    with end.bus:
        yield MotorsBehind(end)
        end.unplug()


@pytest.fixture(params=WIRES, ids=lambda kind: kind.__name__)
def end(request: pytest.FixtureRequest) -> Iterator[PacketEnd | PtyEnd]:
    opened = request.param()
    with opened.bus:
        yield opened
        opened.unplug()


def gather(bus: CanBus, count: int) -> Frames:
    """Receive until `count` frames came; none may come beyond."""
    frames = bus.receive()
    while len(frames) < count:
        assert isinstance(bus, WireBus), "nothing came"
        wait_for(bus)
        frames = np.concatenate([frames, bus.receive()])
    assert len(frames) == count
    return frames


def take(end: PacketEnd | PtyEnd, count: int) -> Frames:
    frames = end.take()
    while len(frames) < count:
        frames = np.concatenate([frames, end.take()])
    assert len(frames) == count
    return frames


def test_the_same_motors_answer_the_same_bytes(motors: Motors) -> None:
    reference = MotorBank(KINDS, ESC, MST)
    for frames in (special_frames(ESC, Special.ENABLE), commands(0.5), commands(-0.5), no_frames()):
        motors.bus.send(frames)
        motors.answer(len(frames))
        expected = reference.exchange(frames, 0, *shafts())
        np.testing.assert_array_equal(gather(motors.bus, len(frames)), expected)


def test_answers_wait_in_order(motors: Motors) -> None:
    for step in range(20):
        motors.bus.send(commands(step / 100))
    motors.answer(140)
    assert [can_id(row) for row in gather(motors.bus, 140)] == MST * 20


def test_nothing_to_receive_is_an_empty_array(motors: Motors) -> None:
    frames = motors.bus.receive()
    assert frames.shape == (0, 16)
    assert frames.dtype == np.uint8


def test_what_is_sent_arrives_in_order(end: PacketEnd | PtyEnd) -> None:
    frames = numbered(100)  # more than one write carries
    end.bus.send(frames)
    np.testing.assert_array_equal(take(end, 100), frames)


def test_more_bytes_than_the_buffer_holds_arrive_in_order(end: PacketEnd | PtyEnd) -> None:
    frames, arrived = numbered(600), no_frames()  # more than a buffer, in portions that a terminal takes
    for part in np.array_split(frames, 10):
        end.give(part)
        arrived = np.concatenate([arrived, gather(end.bus, len(part))])
    np.testing.assert_array_equal(arrived, frames)


def test_a_full_batch_does_not_end_the_receiving() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far.setblocking(False)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with WireBus("pair", wire.SOCKET, near) as bus, far:
        frames = numbered(256)
        for row in frames:
            far.send(row.tobytes())
        np.testing.assert_array_equal(bus.receive(), frames)


def test_counters_tell_what_was_carried(end: PacketEnd | PtyEnd) -> None:
    end.bus.send(numbered(3))
    end.give(numbered(5))
    gather(end.bus, 5)
    counters = end.bus.counters()
    assert (counters.sent, counters.received, counters.unsent) == (3, 5, 0)
    assert (counters.error_frames, counters.garbage_bytes) == (0, 0)


def test_garbage_between_frames_costs_only_itself(end: PacketEnd | PtyEnd) -> None:
    frames = numbered(9)
    for row in frames:
        end.give_bytes(end.noise)
        end.give(row.reshape(1, 16))
    np.testing.assert_array_equal(gather(end.bus, 9), frames)
    assert end.bus.counters().garbage_bytes == 9


@pytest.mark.parametrize("kind", [SlcanEnd, Usb2canEnd])
def test_frames_come_in_pieces(kind: type[SlcanEnd] | type[Usb2canEnd]) -> None:
    end, frames = kind(), numbered(2)
    with end.bus as bus:
        stream = b"".join(end.say(row) for row in frames)
        for at in range(len(stream)):
            end.give_bytes(stream[at : at + 1])
            if at < len(end.say(frames[0])) - 1:
                wait_for(bus)
                assert len(bus.receive()) == 0
        np.testing.assert_array_equal(gather(bus, 2), frames)


def test_an_unplugged_bus_is_gone(end: PacketEnd | PtyEnd) -> None:
    end.unplug()
    with pytest.raises(BusGone, match="plugged in"):
        end.bus.receive()
    with pytest.raises(BusGone, match="plugged in"):
        end.bus.send(numbered(1))


def test_what_came_before_the_end_is_received() -> None:
    end = PacketEnd()
    with end.bus as bus:
        end.give(numbered(3))
        end.unplug()
        assert len(bus.receive()) == 3
        with pytest.raises(BusGone):
            bus.receive()


def test_a_closed_bus_is_gone(end: PacketEnd | PtyEnd) -> None:
    end.bus.close()
    end.bus.close()
    with pytest.raises(BusGone):
        end.bus.receive()
    with pytest.raises(BusGone):
        end.bus.send(numbered(1))


def fill(bus: CanBus, frames: Frames) -> None:
    """Send until the queue is full, by far."""
    for _ in range(10_000):
        bus.send(frames)


def drain(end: PacketEnd | PtyEnd, count: int) -> Frames:
    """Take `count` frames; the rest of one that was cut comes with a sending, here an empty one, once there is room."""
    frames, until_s = no_frames(), time.monotonic() + PATIENCE_S
    while len(frames) < count:
        assert time.monotonic() < until_s, "nothing came"
        end.bus.send(no_frames())
        if select.select([end], [], [], 0)[0]:
            frames = np.concatenate([frames, end.take()])
    return frames


def test_a_full_queue_refuses_and_cuts_no_frame(end: PacketEnd | PtyEnd) -> None:
    frames = numbered(7)
    with pytest.raises(BusFull, match="of 7 frames not sent"):
        fill(end.bus, frames)
    counters = end.bus.counters()
    assert 0 < counters.unsent <= 7
    assert (counters.sent + counters.unsent) % 7 == 0
    arrived = drain(end, counters.sent)
    np.testing.assert_array_equal(arrived, np.tile(frames, (counters.sent // 7 + 1, 1))[: counters.sent])
    end.bus.send(frames)
    np.testing.assert_array_equal(take(end, 7), frames)


def test_frames_of_another_size_are_garbage() -> None:
    end = PacketEnd()
    with end.bus as bus:
        end.give_bytes(bytes(7))
        end.give(numbered(1))
        assert len(gather(bus, 1)) == 1
        assert bus.counters().garbage_bytes == 7


def test_a_controller_leaves_the_bus_and_comes_back() -> None:
    def error(kind: int) -> bytes:
        return (ERROR_FLAG | kind).to_bytes(4, "little") + bytes([8]) + bytes(11)

    end = PacketEnd()
    with end.bus as bus:
        end.give_bytes(error(BUS_OFF))
        end.give(numbered(1))
        assert len(bus.receive()) == 1
        with pytest.raises(BusOff, match="restart-ms 100"):
            bus.send(numbered(1))
        end.give_bytes(error(RESTARTED))
        assert len(bus.receive()) == 0
        bus.send(numbered(1))
        assert bus.counters().error_frames == 2


def test_a_refusal_of_the_adapter_is_an_error() -> None:
    end = SlcanEnd()
    with end.bus as bus:
        end.give_bytes(b"\x07\rz\r")
        wait_for(bus)
        assert len(bus.receive()) == 0
        assert bus.counters().error_frames == 1


def test_an_adapter_is_opened_at_its_own_bitrate() -> None:
    end = SlcanEnd()
    with end.bus as bus:
        bus.send(numbered(1))
        take(end, 1)
        assert end.opened == ["C", "S5", "O"]


def test_a_port_is_for_one_process() -> None:
    end = SlcanEnd()
    with end.bus as bus, pytest.raises(BridgeError, match="lock"):
        open_slcan(os.ttyname(bus.fileno()), "damiao", MEGABIT)


@pytest.mark.parametrize(
    ("open_bus", "remedy"),
    [
        (lambda path: open_slcan(str(path), "damiao", MEGABIT), "by-id"),
        (lambda path: open_usb2can(str(path), MEGABIT), "by-id"),
        (lambda path: open_usb2can("/dev/null", MEGABIT), "by-id"),
        (open_seqpacket, "start it first"),
        (lambda path: open_socketcan("nocan9"), "modprobe|ip link"),
        (lambda path: SeqpacketServer(path / "socket"), "free path"),
    ],
)
def test_what_cannot_be_opened_says_what_to_do(open_bus: Callable[[Path], object], remedy: str, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=remedy) as refused:
        open_bus(tmp_path / "nothing")
    assert "\n" not in str(refused.value)


def test_a_client_leaves_an_emulated_bus_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    with SeqpacketServer(path) as server:
        server.send(numbered(2))
        assert server.unsent == 2
        assert server.receive().shape == (0, 16)
        for _ in range(2):
            with open_seqpacket(path) as bus:
                bus.send(numbered(3))
                np.testing.assert_array_equal(server.receive(), numbered(3))
                server.send(numbered(4))
                np.testing.assert_array_equal(bus.receive(), numbered(4))
            assert server.receive().shape == (0, 16)
        with open_seqpacket(path):
            server.receive()
        server.send(numbered(1))
        assert server.unsent == 3


def test_a_server_that_closes_takes_its_bus_away(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    server = SeqpacketServer(path)
    with open_seqpacket(path) as bus:
        server.receive()
        server.close()
        server.close()
        assert not path.exists()
        with pytest.raises(BusGone):
            bus.receive()


def test_a_server_takes_an_abandoned_path_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
        killed.bind(str(path))
    with SeqpacketServer(path), pytest.raises(BridgeError, match="free path"):
        SeqpacketServer(path)
    path.write_text("a file")
    with pytest.raises(BridgeError, match="free path"):
        SeqpacketServer(path)
    assert path.read_text() == "a file"


@njit(nogil=True)
def _turn_around(wires: wire.Record, frames: Frames) -> int:
    wire.write_frames(wires, frames)
    return wire.read_frames(wires, frames)


def test_a_compiled_loop_uses_the_same_wire() -> None:
    end = PacketEnd()
    with end.bus as bus:
        end.give(numbered(2))
        frames = commands(0.5)
        assert _turn_around(bus.wires, frames) == 2
        np.testing.assert_array_equal(frames[:2], numbered(2))
        np.testing.assert_array_equal(take(end, 7), commands(0.5))
        assert (bus.counters().sent, bus.counters().received) == (7, 2)
