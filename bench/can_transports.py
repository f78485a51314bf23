"""How long seven motors take to be asked and to answer, over each transport: send seven frames, gather seven.

Behind each transport a peer process answers, the same echo behind own SLCAN and python-can's; all take turns, cycle by
cycle. Figures of a pseudo-terminal are the host's share: no adapter, no CAN and no UART is in them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pty
import select
import socket
import statistics
import time
import tty
from collections.abc import Callable
from contextlib import ExitStack

import can
import numpy as np

from firmware_bridge.frames import Frames
from firmware_bridge.transports import WireBus, open_slcan, open_usb2can
from firmware_bridge.usb2can import SENT_BYTES
from firmware_bridge.wire import SOCKET

MOTORS = 7
CYCLES = 2000
PATIENCE_S = 5.0
BOUND = 3.0
MEGABIT = 1_000_000
PAYLOAD = bytes.fromhex("7fff7ff0000007ff")

Cycle = Callable[[], None]
Peer = Callable[[int], None]


def echo(fd: int) -> None:
    """Send back whatever comes, for ever."""
    while True:
        os.write(fd, os.read(fd, 4096))


def answer_usb2can(fd: int) -> None:
    """Send back every frame as the adapter's record of a received one, for ever."""
    tail = b""
    while True:
        tail += os.read(fd, 4096)
        tail = tail[max(tail.find(b"\x55\xaa\x1e"), 0) :]
        whole = len(tail) // SENT_BYTES * SENT_BYTES
        records = [tail[at : at + SENT_BYTES] for at in range(0, whole, SENT_BYTES)]
        os.write(fd, b"".join(b"\xaa\x11\x08" + record[13:17] + record[21:29] + b"\x55" for record in records))
        tail = tail[whole:]


def start_peer(stack: ExitStack, peer: Peer, fd: int) -> None:
    """Run `peer` on `fd` in a process of its own until the stack unwinds."""
    process = multiprocessing.get_context("fork").Process(target=peer, args=(fd,), daemon=True)
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)


def start_pty(stack: ExitStack, peer: Peer) -> str:
    """Return the port that `peer` answers at."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    start_peer(stack, peer, master)
    return os.ttyname(slave)


def own_cycle(bus: WireBus, frames: Frames) -> Cycle:
    """Return one send-and-gather over an own bus."""

    def cycle() -> None:
        bus.send(frames)
        count = 0
        while count < MOTORS:
            assert select.select([bus], [], [], PATIENCE_S)[0], "no answer"
            count += len(bus.receive())

    return cycle


def python_can_cycle(bus: can.BusABC) -> Cycle:
    """Return one send-and-gather over a bus of python-can."""
    messages = [can.Message(arbitration_id=motor + 1, data=PAYLOAD, is_extended_id=False) for motor in range(MOTORS)]

    def cycle() -> None:
        for message in messages:
            bus.send(message)
        for _ in messages:
            assert bus.recv(PATIENCE_S) is not None, "no answer"

    return cycle


def start_cycles(stack: ExitStack) -> dict[str, Cycle]:
    """Return one cycle of each transport, its peer running."""
    frames = np.zeros((MOTORS, 16), dtype=np.uint8)
    frames[:, 0], frames[:, 4] = np.arange(1, MOTORS + 1), len(PAYLOAD)
    frames[:, 8:] = np.frombuffer(PAYLOAD, dtype=np.uint8)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start_peer(stack, echo, far.fileno())
    ports = [start_pty(stack, peer) for peer in (echo, echo, answer_usb2can)]
    theirs = can.Bus(interface="slcan", channel=ports[1], bitrate=MEGABIT)
    stack.callback(theirs.shutdown)
    buses = {
        "slcan": open_slcan(ports[0], "lawicel", MEGABIT),
        "usb2can": open_usb2can(ports[2], MEGABIT),
        "seqpacket": WireBus("pair", SOCKET, near),
    }
    cycles = {name: own_cycle(stack.enter_context(bus), frames) for name, bus in buses.items()}
    return {**cycles, "python-can slcan": python_can_cycle(theirs)}


def median_us(cycles: dict[str, Cycle]) -> dict[str, float]:
    """Return the median time of each cycle in microseconds, measured in turns."""
    taken: dict[str, list[int]] = {name: [] for name in cycles}
    for _ in range(CYCLES):
        for name, cycle in cycles.items():
            began = time.perf_counter_ns()
            cycle()
            taken[name].append(time.perf_counter_ns() - began)
    return {name: statistics.median(times) / 1e3 for name, times in taken.items()}


def main() -> None:
    """Print the medians; the last line is one JSON object."""
    with ExitStack() as stack:
        cycles = start_cycles(stack)
        for cycle in cycles.values():
            cycle()  # compiles
        us = median_us(cycles)
    ratio = us["python-can slcan"] / us["slcan"]
    rows: list[dict[str, object]] = [
        {
            "what": f"seven motors over {name} at a local peer, median us",
            "figure": f"{value:.0f}",
            "bound": "",
            "holds": None,
        }
        for name, value in us.items()
    ]
    what = "python-can's slcan over own slcan, ratio of medians"
    rows.append({"what": what, "figure": f"{ratio:.1f}", "bound": f"at least {BOUND:g}", "holds": ratio >= BOUND})
    print(json.dumps({"name": "can_transports", "rows": rows}))


if __name__ == "__main__":
    main()
