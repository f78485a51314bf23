"""The buses that a CAN adapter, or an emulated bus in another process, stands behind.

- Every one is a `WireBus`; the openers differ in what they open. Its record `wires` is for a real-time loop, which
  calls `firmware_bridge.wire` itself.
- Nothing waits. Who wants to wait for frames gives the bus to `select`.
- The end of a bus is an exception, not silence: `BusGone`, `BusOff`, `BusFull`.
- SocketCAN has never been opened by the project's tests, for want of a kernel with CAN; what is tested is the same code
  over SOCK_SEQPACKET, whose packets are the same sixteen bytes.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import serial

from firmware_bridge import slcan, usb2can
from firmware_bridge.frames import FRAME_BYTES, BridgeError, BusFull, BusGone, BusOff, Frames, no_frames
from firmware_bridge.wire import SLCAN, SOCKET, USB2CAN, new_wire, read_frames, write_frames

USB_BAUD = 115_200  # USB-CDC adapters ignore it
CAN_RAW_ERR_FILTER = 2  # linux/can/raw.h; some builds of Python lack the name
BATCH_FRAMES = 256


class Device(Protocol):
    """An open socket or serial port."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@dataclass(frozen=True)
class Counters:
    """What a bus has carried and lost since it was opened."""

    sent: int
    received: int
    unsent: int
    error_frames: int
    garbage_bytes: int


class WireBus:
    """A bus behind one open device; it owns the device and closes it after sending it `closing`.

    `wires` is its record (1,) of `firmware_bridge.wire.WIRE`.
    """

    def __init__(self, name: str, kind: int, device: Device, closing: bytes = b"") -> None:
        self._name = name
        self._device = device
        self._closing = closing
        self._batch = np.zeros((BATCH_FRAMES, FRAME_BYTES), dtype=np.uint8)
        os.set_blocking(device.fileno(), False)
        self.wires = new_wire(device.fileno(), kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the file descriptor to wait on, -1 once closed."""
        return int(self.wires["fd"][0])

    def send(self, frames: Frames) -> None:
        """Send every row of `frames` (n, 16), in order.

        Raises:
            BusOff: the controller had left the bus when frames were last received; nothing is sent.
            BusFull: only the first of them could be sent.
            BusGone: adapter, interface or other end is gone.
        """
        if self.wires["bus_off"][0]:
            raise BusOff(
                f"{self._name}: the controller left the bus after too many errors; check wiring and termination, then "
                f"`ip link set {self._name} type can restart` (by itself with `restart-ms 100`, set before `up`)"
            )
        sent = int(write_frames(self.wires, _own(frames)))
        self._refuse_error(sent)
        if sent < len(frames):
            raise BusFull(
                f"{self._name}: {len(frames) - sent} of {len(frames)} frames not sent, the queue is full; "
                "send slower, or see whether anybody acknowledges (power, wiring, bitrate)"
            )

    def receive(self) -> Frames:
        """Return all frames that wait, oldest first, (n, 16); (0, 16) when there are none.

        Raises:
            BusGone: adapter, interface or other end is gone, and all that it sent was received.
        """
        batches: list[Frames] = []
        count = BATCH_FRAMES
        while count == BATCH_FRAMES:
            count = int(read_frames(self.wires, self._batch))
            if count < 0 and batches:
                break
            self._refuse_error(count)
            batches.append(self._batch[:count].copy())
        return batches[0] if len(batches) == 1 else np.concatenate(batches)

    def counters(self) -> Counters:
        """Return what was carried and lost so far."""
        row = self.wires[0]
        return Counters(
            sent=int(row["sent"]),
            received=int(row["received"]),
            unsent=int(row["unsent"]),
            error_frames=int(row["error_frames"]),
            garbage_bytes=int(row["garbage_bytes"]),
        )

    def close(self) -> None:
        """Close the device; a second time does nothing."""
        if self.fileno() < 0:
            return
        with suppress(OSError):  # an unplugged adapter needs no closing
            os.write(self.fileno(), self._closing)
        # The number may soon be another file's.
        self.wires["fd"] = -1
        self._device.close()

    def _refuse_error(self, result: int) -> None:
        if result < 0:
            raise BusGone(
                f"{self._name}: the bus is gone ({os.strerror(-result)}); "
                "see that it is plugged in and up, then open it again"
            )


class SeqpacketServer:
    """The emulated end of a bus: a socket at `path` that one client at a time connects to.

    The client may leave and come back; what is sent while nobody is there is lost and counted in `unsent`.
    """

    def __init__(self, path: str | Path) -> None:
        """Listen at `path`, in place of a socket file that nobody listens at any more.

        Raises:
            BridgeError: the path is taken, too long or in a folder that does not exist.
        """
        self.unsent = 0
        self._path = Path(path)
        self._client: WireBus | None = None
        _remove_abandoned(self._path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise BridgeError(f"cannot listen at {path}: {error}; choose a short, free path") from error
        self._listener.listen(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the file descriptor to wait on: the client's, or the listening one while nobody is there."""
        return self._listener.fileno() if self._client is None else self._client.fileno()

    def receive(self) -> Frames:
        """Return all frames that wait, oldest first, (n, 16); (0, 16) when there are none or nobody is there."""
        self._accept()
        if self._client is None:
            return no_frames()
        try:
            return self._client.receive()
        except BusGone:
            self._drop_client()
            return no_frames()

    def send(self, frames: Frames) -> None:
        """Send every row of `frames` (n, 16) to the client, error frames too; count what it does not take."""
        self._accept()
        if self._client is None:
            self.unsent += len(frames)
            return
        sent = int(write_frames(self._client.wires, _own(frames)))
        self.unsent += len(frames) - max(sent, 0)
        if sent < 0:
            self._drop_client()

    def close(self) -> None:
        """Leave the client and take the socket file away; a second time does nothing."""
        self._drop_client()
        if self._listener.fileno() >= 0:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        if self._client is None:
            with suppress(BlockingIOError):  # nobody is waiting
                self._client = WireBus(str(self._path), SOCKET, self._listener.accept()[0])

    def _drop_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def open_socketcan(interface: str) -> WireBus:
    """Return the bus of a kernel CAN interface, with the kernel's error frames switched on.

    Raises:
        BridgeError: the kernel has no CAN, or no such interface.
    """
    try:
        device = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    except OSError as error:
        raise BridgeError(
            f"{interface}: no CAN in this kernel ({error}); `modprobe can_raw`, or use an adapter on a serial port"
        ) from error
    try:
        device.setsockopt(socket.SOL_CAN_RAW, CAN_RAW_ERR_FILTER, socket.CAN_ERR_MASK)
        device.bind((interface,))
    except OSError as error:
        device.close()
        raise BridgeError(
            f"{interface}: no such CAN interface ({error}); `ip link` lists them, "
            f"`ip link set {interface} up type can bitrate 1000000 restart-ms 100` starts one"
        ) from error
    return WireBus(interface, SOCKET, device)


def open_seqpacket(path: str | Path) -> WireBus:
    """Return the bus that another process emulates at `path`.

    Raises:
        BridgeError: nobody listens there.
    """
    device = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        device.connect(str(path))
    except OSError as error:
        device.close()
        raise BridgeError(f"{path}: no emulated bus ({error}); start it first") from error
    return WireBus(str(path), SOCKET, device)


def open_slcan(port: str, adapter: str, bitrate: int, baud: int = USB_BAUD) -> WireBus:
    """Return the bus behind an SLCAN adapter at a serial port, its channel opened at `bitrate` bit/s.

    Args:
        adapter: "lawicel" or "damiao"; they number the bitrates differently.
        baud: of the port; matters only where a real UART is inside.

    Raises:
        BridgeError: unknown adapter or bitrate, no such port, or another process has it.
    """
    return _open_adapter(port, SLCAN, baud, slcan.opening(adapter, bitrate), slcan.CLOSING)


def open_usb2can(port: str, bitrate: int, baud: int = usb2can.BAUD) -> WireBus:
    """Return the bus behind a DaMiao USB2CAN adapter at a serial port, its CAN side set to `bitrate` bit/s.

    Raises:
        BridgeError: unknown bitrate, no such port, or another process has it.
    """
    return _open_adapter(port, USB2CAN, baud, usb2can.opening(bitrate), usb2can.CLOSING)


def _open_adapter(port: str, kind: int, baud: int, opening: bytes, closing: bytes) -> WireBus:
    try:
        # An inter-byte time-out of zero makes pyserial set VMIN 1: a read of nothing is then EAGAIN, and of an
        # unplugged adapter 0; with VMIN 0 both are 0.
        device = serial.Serial(port, baud, exclusive=True, inter_byte_timeout=0)
        device.write(opening)
    except (OSError, ValueError) as error:  # pyserial's own errors are OSErrors
        raise BridgeError(
            f"{port}: cannot open the serial port ({error}); `ls /dev/serial/by-id` lists adapters, "
            "`fuser` who holds one, and reading one takes the group dialout"
        ) from error
    return WireBus(port, kind, device, closing)


def _own(frames: Frames) -> Frames:
    """Return a plain copy: for a read-only or strided array numba would compile anew, for seconds."""
    return np.array(frames, dtype=np.uint8, order="C")


def _remove_abandoned(path: Path) -> None:
    """Remove a socket file that nobody listens at, as a killed process leaves it."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
