"""The mean rate of the control loop on a bus in another process, with a busy Python thread beside it.

Seven emulated motors answer at the other end of a SEQPACKET socket. Ours is the compiled loop at a target of 400 Hz.
After it, in the same run and on motors like them, comes the loop of the maker's host software as published (PyPI
dreamscale-i2rt, in an environment of its own, made on first use); where it cannot be installed its row says so.
"""

from __future__ import annotations

import json
import multiprocessing
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge.arm import load_arm
from edge.control.loop import ControlLoop
from edge.control.process import enable
from edge.control.realtime import DONE, RUN, claim_real_time, compile_loop, run
from edge.slots import LAYOUT, Slots
from firmware_bridge.frames import no_frames
from firmware_bridge.motors import MotorBank
from firmware_bridge.transports import SeqpacketServer, open_seqpacket

TARGET_HZ, BOUND_HZ = 400.0, 396.0
SECONDS, ROUNDS = 8.0, 3
HOME = np.array([0.0, 1.75, 1.1, -0.93, 0.0, 0.0])
ROOT = Path(__file__).parents[1]
THEIRS = ROOT / ".venv-i2rt"
THEIR_PACKAGES = ["python-can==4.6.1", "numpy", "tyro", "pyyaml", "pydantic", "packaging", "crcmod-plus"]
THEIR_LOOP = '''
import os, socket, struct, sys, threading, time
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # as it comes, not as this bench's own thread
import can

class Bus(can.BusABC):
    """The same socket, as python-can wants a bus."""

    def __init__(self, channel, **kwargs):
        self.channel_info, self.sent = channel, 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(sys.argv[1])
        super().__init__(channel)

    def send(self, message, timeout=None):
        self.sent += 1
        self._socket.send(struct.pack("<IB3x8s", message.arbitration_id, message.dlc, bytes(message.data)))

    def _recv_internal(self, timeout):
        self._socket.settimeout(timeout or 0.0001)
        try:
            identifier, length, data = struct.unpack("<IB3x8s", self._socket.recv(16))
        except (TimeoutError, BlockingIOError):
            return None, False
        return can.Message(arbitration_id=identifier, data=data[:length], is_extended_id=False), False

can.interface.Bus = lambda *args, **kwargs: Bus(kwargs.get("channel"))
from i2rt.motor_drivers.dm_driver import DMChainCanInterface
motors = [(number, "DM4340" if number < 4 else "DM4310") for number in range(1, 8)]
chain = DMChainCanInterface(motors, [0.0] * 7, [1] * 7, channel="can_emulated")
def spin():
    total = 0
    while True:
        total += 1
threading.Thread(target=spin, daemon=True).start()
bus, seconds = chain.motor_interface.bus, float(sys.argv[2])
time.sleep(1.0)
before, began = bus.sent, time.monotonic()
time.sleep(seconds)
print((bus.sent - before) / 7 / (time.monotonic() - began), flush=True)
os._exit(0)
'''


def motors(path: str) -> None:
    """Answer frames at `path` until killed; the shafts stand still."""
    arm = load_arm()
    bank = MotorBank(arm.motor_types, arm.esc_ids, arm.mst_ids)
    shafts, still = np.array([*HOME, -1.0]), np.zeros(7)
    bank.exchange(no_frames(), 0, shafts, still, still)
    with SeqpacketServer(path) as server:
        while True:
            select.select([server], [], [], 0.1)
            frames = server.receive()
            if len(frames):
                server.send(bank.exchange(frames, time.monotonic_ns(), shafts, still, still))


@contextmanager
def on_motors() -> Iterator[str]:
    """Start seven motors in a process of their own and give the path that they answer at."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "bus")
        process = multiprocessing.get_context("spawn").Process(target=motors, args=(path,), daemon=True)
        process.start()
        while not Path(path).exists():
            time.sleep(0.05)
        yield path
        process.terminate()
        process.join()


def ours(path: str) -> tuple[float, int]:
    """Return the mean rate of our loop and how many of its periods began late."""
    arm = load_arm()
    loop = ControlLoop(arm, arm.limits, control_hz=TARGET_HZ)
    compile_loop(*loop.records)
    stop = threading.Event()
    threading.Thread(target=spin, args=(stop,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder, open_seqpacket(path) as bus:
        slots = Slots(Path(folder) / "slots", create=True)
        runs = np.zeros(1, dtype=RUN)
        runs["most_ticks"] = round(SECONDS * TARGET_HZ)
        values = [np.zeros(1, dtype=dtype) for _, dtype in LAYOUT]
        enable(loop, bus, lambda: time.sleep(0.05), time.monotonic_ns())
        words = [slots.words(name) for name, _ in LAYOUT]
        why = run(runs, bus.wires, *loop.records, *words, *values)
    stop.set()
    assert why == DONE, (why, loop.fault)
    assert loop.fault == "", loop.fault
    seconds = (int(runs["now_ns"][0]) - int(runs["began_ns"][0])) * 1e-9
    return (int(runs["ticks"][0]) - 1) / seconds, int(runs["late_ticks"][0])


def spin(stop: threading.Event) -> None:
    """Keep the interpreter busy."""
    total = 0
    while not stop.is_set():
        total += 1


def theirs(path: str) -> float | None:
    """Return the mean rate of the maker's loop, None where it cannot be installed."""
    python = THEIRS / "bin" / "python"
    if not (THEIRS / "installed").exists():
        install = [sys.executable, "-m", "venv", str(THEIRS)]
        packages = [str(python), "-m", "pip", "install", "-q", *THEIR_PACKAGES]
        maker = [str(python), "-m", "pip", "install", "-q", "--no-deps", "dreamscale-i2rt==1.3.6.post1"]
        if any(subprocess.run(command, check=False).returncode for command in (install, packages, maker)):
            return None
        (THEIRS / "installed").touch()
    command = [str(python), "-c", THEIR_LOOP, path, str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        print(done.stderr[-500:], file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the medians of some rounds; the last line is one JSON object."""
    rates, late, rivals = [], 0, []
    refused = claim_real_time()
    for number in range(ROUNDS):
        # Motors of its own for each: the maker's loop does not get past those that have latched "communication lost".
        with on_motors() as path:
            rate, began_late = ours(path)
        with on_motors() as path:
            rival = theirs(path)
        print(f"round {number + 1}: {rate:.1f} Hz, the maker's {rival}", file=sys.stderr)
        rates.append(rate)
        late += began_late
        rivals += [] if rival is None else [rival]
    mean = float(np.median(rates))
    lowest = min(rates)
    rival_text = f"median {np.median(rivals):.1f} Hz (n = {len(rivals)})" if rivals else "did not run here"
    scheduling = "real-time scheduling" if not refused else "no real-time scheduling"
    rows: list[dict[str, Any]] = [
        {
            "what": "control loop at 400 Hz with a busy Python thread, 7 motors over SEQPACKET, mean rate",
            "figure": f"median {mean:.1f} Hz, lowest {lowest:.1f} of {ROUNDS} times {SECONDS:g} s",
            "bound": f"at least {BOUND_HZ:g} Hz",
            "holds": lowest >= BOUND_HZ,
        },
        {"what": "the maker's loop, same bus and thread", "figure": rival_text, "bound": "", "holds": None},
        {
            "what": "periods that began more than half a period late (shared machine)",
            "figure": f"{late} of {round(ROUNDS * SECONDS * TARGET_HZ)}, {scheduling}",
            "bound": "",
            "holds": None,
        },
    ]  # fmt: skip
    print(json.dumps({"name": "control_rate", "rows": rows}))


if __name__ == "__main__":
    main()
