"""`python ideal_motors.py STATION_DIR SOCKET CONTROL`: seven motors on ideal shafts that answer frames at SOCKET.

They have a process to themselves, so that no test keeps the interpreter from them. Over the pipe at file descriptor
CONTROL they take orders: ("read", name) answers with an array of the motors, ("call", name, arguments...) calls one of
their methods. Closing the pipe ends them.
"""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from edge.station import load_station
from firmware_bridge.damiao import Special, special_frames
from firmware_bridge.motors import EmulatedBus, MotorBank
from firmware_bridge.registers import Register, read_request
from firmware_bridge.transports import SeqpacketServer

POSE = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0, -0.5])
STILL = np.zeros(7)
WAIT_S = 0.02


class Motors:
    """The motors, their shafts and their bus."""

    def __init__(self, station: Path) -> None:
        self._arm = load_station(station).arm
        self.bank = MotorBank(self._arm.motor_types, self._arm.esc_ids, self._arm.mst_ids)
        self.shafts, self.heard = POSE.copy(), 0  # frames
        self._bus = EmulatedBus(self.bank, lambda: (self.shafts, STILL, STILL), time.monotonic_ns)

    def compile(self) -> None:
        """Have everything compiled that answers: a bus that is silent for seconds is a dead one."""
        for esc_id in self._arm.esc_ids:
            self._bus.send(read_request(esc_id, Register.ESC_ID)[None])
        self._bus.send(special_frames(self._arm.esc_ids, Special.DISABLE))
        assert len(self._bus.receive()) == 14
        self.bank.tick(time.monotonic_ns())

    def serve(self, path: str, control: Connection) -> None:
        """Answer until the other end of `control` is closed."""
        with SeqpacketServer(path) as server:
            control.send("ready")
            while True:
                ready, _, _ = select.select([server, control], [], [], WAIT_S)
                frames = server.receive()
                if len(frames):
                    self.heard += len(frames)
                    self._bus.send(frames)
                    server.send(self._bus.receive())
                self.bank.tick(time.monotonic_ns())  # after what came in time, should this process have been held up
                stiff = self.bank.kp > 0
                self.shafts[stiff] = self.bank.p_des[stiff]
                if control in ready:
                    self._obey(control)

    def _obey(self, control: Connection) -> None:
        what, name, *arguments = control.recv()
        if what == "call":
            getattr(self.bank, name)(*arguments)
            control.send(None)
        else:
            control.send(np.copy(getattr(self if name in ("shafts", "heard") else self.bank, name)))


if __name__ == "__main__":
    motors = Motors(Path(sys.argv[1]))
    motors.compile()
    with suppress(OSError):  # where that is allowed, nothing that else runs here makes motors fall silent
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with Connection(int(sys.argv[3])) as connection:
        try:
            motors.serve(sys.argv[2], connection)
        except EOFError:
            sys.exit(0)
