"""`python -m edge.emulation.bus STATION_DIR SOCKET`: an emulated arm at the end of a real arm's bus, in real time.

The control process meets the same frames as from an adapter: the motors, their registers, watchdogs and physics are
those of the emulated station. Until a motor is enabled the arm is held, as a stand would; what the machine cannot
keep up with is left out, and said.
"""

from __future__ import annotations

import logging
import select
import signal
import sys
import threading
import time
from pathlib import Path

from edge.emulation.world import TICK_NS, World
from edge.station import Station, load_station
from firmware_bridge.damiao import Special, special_frames
from firmware_bridge.frames import BridgeError
from firmware_bridge.transports import SeqpacketServer

LOG = logging.getLogger("edge.emulation.bus")
FARTHEST_BEHIND_NS = 100_000_000
WAIT_S = 0.002


def compile_world(station: Station) -> None:
    """Have everything compiled that answers frames and moves the arm: a bus that is silent meanwhile looks dead."""
    world = World(station, seed=0)
    world.bus.send(special_frames(station.arm.esc_ids, Special.DISABLE))
    world.bus.receive()
    world.tick()
    world.close()


def serve(station: Station, path: Path, stop: threading.Event) -> None:
    """Answer frames at `path` until `stop`."""
    compile_world(station)
    world, left_out, begun = World(station, seed=0), 0, False
    with SeqpacketServer(path) as server:
        LOG.info("emulated motors of %s at %s", station.name, path)
        due_ns = time.monotonic_ns()
        while not stop.is_set():
            select.select([server], [], [], WAIT_S)
            frames = server.receive()
            if len(frames):
                world.bus.send(frames)
                server.send(world.bus.receive())
            if not begun and world.bank.enabled.any():
                begun, due_ns = True, time.monotonic_ns()
            behind_ns = time.monotonic_ns() - due_ns
            if begun and behind_ns > FARTHEST_BEHIND_NS:
                left_out += 1
                due_ns += behind_ns
            while begun and due_ns < time.monotonic_ns():
                world.tick()
                due_ns += TICK_NS
    world.close()
    if left_out:
        LOG.warning("%d times the machine was too slow, and a while of motion was left out", left_out)


def main(arguments: list[str]) -> int:
    """Serve the station in the folder named on the command line until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        serve(load_station(Path(arguments[0])), Path(arguments[1]), stop)
    except BridgeError as error:
        LOG.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
