"""The control process of a real arm: wakes the motors, runs the compiled loop, and never leaves the arm to fall.

- Before anything is enabled every motor must be the right part with the right scales, mode and watchdog.
- The arm starts at its measured pose: gravity compensation first, then stiffness.
- A fault is never cured by itself: an order to clear or to restart comes from outside, and an arm whose bus went is not
  woken again before a person has looked.
- Every end stows the arm and damps it there. Where it cannot be stowed it is let down from where it is: less and less
  of its weight is borne, and its dampers brake it. A second signal skips the stowing, and not that. Should this
  process be killed, the motors' own watchdog damps them.
"""

from __future__ import annotations

import ctypes
import logging
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np

from calibration.records import CalibrationError
from edge.control.loop import LET_DOWN_S, ControlError, ControlLoop, loop_of
from edge.control.realtime import AT_REST, BUS_GONE, ORDERED, RUN, claim_real_time, compile_loop, run
from edge.slots import CLEAR, ORDER, RESTART, SETPOINT, STATE, STOW, ArmTaken, Slots, claim_arm, slots_path
from edge.station import Can, Station, StationError, load_station
from firmware_bridge.damiao import Special, special_frames
from firmware_bridge.frames import BridgeError, BusGone, CanBus, no_frames
from firmware_bridge.inspection import MotorExpectation, expectations, inspect_arm
from firmware_bridge.transports import WireBus, open_seqpacket, open_slcan, open_socketcan, open_usb2can

LOG = logging.getLogger("edge.control")
PR_SET_PDEATHSIG = 1
ANSWER_S = 0.002
PROBE_S = 0.05
STOW_LIMIT_S = 12.0  # the longest way at stowing speed takes 7.3 s
DAMPED_S = 0.5  # for the arm to settle before the motors are let go
PATIENCE_S = 180.0  # for an emulated bus to appear, which may have to be compiled first
BORNE_S = 0.02  # a twentieth of the motors' watchdog
LOOK_S = 0.1
ONE_REQUEST_S = 2.0
AT_REST_RAD = 0.1
SEEN = ["silent_ticks", "blind_ticks"]  # what the kernel's memory holds of motors that do not answer
ANSWERS = ["lost", "extra", "rejected"]  # counts of the kernel's memory


class ControlProcess:
    """One arm's loop on its bus; `halt` may be called from any thread, `work` runs in a thread of its own."""

    def __init__(self, loop: ControlLoop, bus: WireBus, slots: Slots, station: Station) -> None:
        self._loop, self._bus, self._station = loop, bus, station
        self._runs = np.zeros(1, dtype=RUN)
        self._slots = [slots.words(name) for name in ("setpoint", "order", "state")]
        self._values = [np.zeros(1, dtype=dtype) for dtype in (SETPOINT, ORDER, STATE)]
        self._halts = 0
        self._bear_at_s = 0.0
        self.error = ""

    def wake(self) -> bool:
        """Inspect the motors and enable them where they are; return False, with nothing enabled, if halted meanwhile.

        Raises:
            MotorRefused: a motor is not what the arm needs.
            ControlError: a motor is silent, or the arm stands outside its limits or walls.
        """
        inspect_arm(self._bus, motors_of(self._station), self._await_answer)
        if self._halts:
            return False
        enable(self._loop, self._bus, lambda: time.sleep(PROBE_S), time.monotonic_ns())
        self._runs["next_ns"] = 0  # the motors answer to being enabled in the period before the first
        return True

    def halt(self) -> None:
        """Ask for the end: stow, then damp; a second time damps at once."""
        self._halts += 1
        self._runs["halt"] = 1

    def fault(self) -> str:
        """One sentence about what stopped the arm, empty while nothing has."""
        return self._loop.fault

    def work(self) -> None:
        """Wake the arm, run until halted or until the bus is gone, and leave the arm safe."""
        try:
            for refusal in claim_real_time():
                LOG.warning("%s", refusal)
            if self._halts or not self.wake():
                LOG.info("%s: ended before any motor was enabled", self._station.name)
                return
            LOG.info("%s: awake at its measured pose, and holding it", self._station.name)
            while (why := self._go()) == ORDERED or why == AT_REST:
                if why == ORDERED:
                    self._obey(int(self._values[1]["what"][0]))
            self._leave(why)
            self._say_how_it_went()
        except (BridgeError, ControlError) as error:
            self.error = str(error)
        except Exception:
            LOG.exception("the control loop failed; the arm is let go")
            self.error = "the control loop failed, see above"
            self._let_go()

    def _await_answer(self) -> None:
        """Let a moment pass in which an answer may come; an arm that is damped by a fault is borne on meanwhile."""
        time.sleep(ANSWER_S)
        if self._runs["ticks"][0] and time.monotonic() >= self._bear_at_s:
            self._bear_at_s = time.monotonic() + BORNE_S
            self._bus.send(self._loop.step(no_frames(), time.monotonic_ns()))

    def _go(self, most_s: float = 0.0) -> int:
        rate_hz = 1.0 / float(self._loop.records[0]["dt_s"][0])
        self._runs["most_ticks"] = self._runs["ticks"] + round(most_s * rate_hz) if most_s else 0
        return int(run(self._runs, self._bus.wires, *self._loop.records, *self._slots, *self._values))

    def _obey(self, what: int) -> None:
        try:
            if what == CLEAR:
                self._loop.clear()
            elif what == RESTART and not self._loop.damped:
                LOG.error("not restarted: the arm is not damped, and waking it would drop it; stow it first")
            elif what == RESTART:
                self._wake_again()
            elif what == STOW:
                self._loop.stow()
        except (BridgeError, ControlError) as error:
            LOG.error("an order was not obeyed: %s", error)

    def _wake_again(self) -> None:
        """Wake the arm; the counts of answers go on, without those that the inspection took for its own.

        Raises:
            MotorRefused, ControlError: see `wake`.
        """
        memory = self._loop.records[2]
        counted, seen = memory[ANSWERS].copy(), memory[SEEN].copy()
        try:
            self.wake()
        except (BridgeError, ControlError):
            memory[SEEN] = seen
            raise
        finally:
            memory[ANSWERS] = counted

    def _leave(self, why: int) -> None:
        """Stow, then damp, then let the motors go; a bus that is gone leaves that to their watchdog."""
        if why == BUS_GONE:
            raise BusGone("the bus is gone; the motors' watchdog damps them: see that the adapter is plugged in and up")
        self._loop.stow()
        stowed_by = time.monotonic() + STOW_LIMIT_S
        while not (self._loop.damped or self._halts > 1) and time.monotonic() < stowed_by:
            self._runs["halt"] = 0
            if self._go(LOOK_S) == BUS_GONE:
                raise BusGone("the bus went while the arm was being stowed; the motors' watchdog damps them")
        self._loop.damp()
        if self._is_at_rest():
            self._stay(DAMPED_S)
            how = "stowed at its rest"
        else:
            LOG.warning("the arm is not at its rest: it is let down where it is, within %g s", LET_DOWN_S)
            for share in np.linspace(1.0, 0.0, round(LET_DOWN_S / LOOK_S)):
                self._loop.bear(share)
                self._stay(LOOK_S)
            how = "let down where it was"
        self._let_go()
        LOG.info("%s: %s and damped; its motors are disabled", self._station.name, how)

    def _stay(self, seconds: float) -> None:
        """Run on for so long, whoever halts or orders meanwhile.

        Raises:
            BusGone: the bus went.
        """
        rate_hz = 1.0 / float(self._loop.records[0]["dt_s"][0])
        end = int(self._runs["ticks"][0]) + round(seconds * rate_hz)
        while (left := end - int(self._runs["ticks"][0])) > 0:
            self._runs["halt"] = 0
            if self._go(left / rate_hz) == BUS_GONE:
                raise BusGone("the bus went while the arm was damped; the motors' watchdog brakes them")

    def _is_at_rest(self) -> bool:
        """Return whether the arm lies where it lies by itself, which limits of the site may keep it from."""
        rest_rad = self._station.arm.rest_rad
        away_rad = self._loop.records[2]["position"][0, : len(rest_rad)] - rest_rad
        return bool(np.abs(away_rad).max() <= AT_REST_RAD)

    def _let_go(self) -> None:
        with suppress(BridgeError):  # a bus that is gone leaves it to the motors' watchdog
            self._bus.send(special_frames(self._station.arm.esc_ids, Special.DISABLE))

    def _say_how_it_went(self) -> None:
        went, memory = self._runs[0], self._loop.records[2][0]
        seconds = max((int(went["now_ns"]) - int(went["began_ns"])) * 1e-9, 1e-9)
        LOG.info(
            "%d periods at %.1f Hz; %d began late; answers: %s; %d commands not sent",
            went["ticks"], went["ticks"] / seconds, went["late_ticks"],
            answers_text(*(int(memory[name]) for name in ANSWERS)), went["unsent"],
        )  # fmt: skip


def enable(loop: ControlLoop, bus: CanBus, wait: Callable[[], object], now_ns: int) -> None:
    """Ask the motors where they are, and enable them there.

    Raises:
        ControlError: a motor is silent, or the arm stands outside its limits or walls.
    """
    bus.receive()  # what still waits answers other questions
    bus.send(loop.probe())
    wait()
    bus.send(loop.start(bus.receive(), now_ns))


def answers_text(missing: int, extra: int, rejected: int) -> str:
    """Return what became of the motors' answers.

    One that comes after its period is missing in that one and too many in the next: as many as both counts have in
    common were late, and only the rest was lost, or came twice.
    """
    late = min(missing, extra)
    return f"{late} late, {missing - late} lost, {extra - late} doubled, {rejected} of nobody"


def motors_of(station: Station) -> tuple[MotorExpectation, ...]:
    """Return what the motors of a station's arm must be."""
    arm = station.arm
    return expectations(arm.motor_types, arm.esc_ids, arm.mst_ids)


def open_bus(can: Can) -> WireBus:
    """Open the bus that station.toml names.

    Raises:
        BridgeError: it cannot be opened; says why.
    """
    if can.transport == "socketcan":
        return open_socketcan(can.port)
    if can.transport == "slcan":
        return open_slcan(can.port, can.adapter, can.bitrate)
    if can.transport == "usb2can":
        return open_usb2can(can.port, can.bitrate)
    return open_seqpacket(can.port)


def serve(station: Station, bus: WireBus, slots: Slots, stop: threading.Event) -> int:
    """Run the arm until `stop`; return 0, or 2, which no restart cures, when it was not woken or the bus went."""
    assert station.can is not None
    LOG.info("preparing the control loop; the first time ever it is compiled, which takes a minute")
    loop = loop_of(station, station.can.rate_hz)
    compile_loop(*loop.records)
    # Only now: until here nothing is enabled, and a signal may just end this.
    requests = Requests(time.monotonic)

    def heed(number: int, _: FrameType | None) -> None:
        requests.heed(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, heed)
    process = ControlProcess(loop, bus, slots, station)
    worker = threading.Thread(target=process.work, name="control")
    worker.start()
    _halt_when(stop, requests, process, worker)
    if process.error:
        LOG.error("%s", process.error)
        return 2
    return 0


class Requests:
    """Counts requests to end: a service's manager and its supervisor send SIGTERM at once, and mean one thing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Count by `clock`, seconds."""
        self._clock, self._last_s = clock, -math.inf
        self.count = 0

    def heed(self, number: int) -> None:
        """Take a signal; SIGINT, by which a supervisor hurries, is always a request of its own."""
        now_s = self._clock()
        if number == signal.SIGINT or now_s - self._last_s > ONE_REQUEST_S:
            self.count += 1
        self._last_s = now_s


def _halt_when(stop: threading.Event, requests: Requests, process: ControlProcess, worker: threading.Thread) -> None:
    """Wait for the worker's end; halt for each request, which `stop` tells of."""
    said, halts = "", 0
    while worker.is_alive():
        if stop.wait(LOOK_S) and worker.is_alive():
            stop.clear()
            for _ in range(requests.count - halts):
                halts += 1
                process.halt()
        fault = process.fault()
        if fault != said:
            LOG.log(logging.ERROR if fault else logging.INFO, "%s", fault or "the fault is cleared")
            said = fault
    worker.join()


def main(arguments: list[str]) -> int:
    """Run the arm of the station in the folder named on the command line, on an emulated bus if one is named too."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # The supervisor has its children killed when it is killed itself; this one is to stow first.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    stop = threading.Event()
    try:
        station = load_station(Path(arguments[0]))
        if station.can is None:
            raise StationError(f"{station.folder}: an emulated station needs no control process")
        can = station.can
        if len(arguments) > 1:
            can = replace(can, transport="seqpacket", port=arguments[1])
        with claim_arm(station.name, station.folder), _wait_for_bus(can, stop) as bus:
            slots = Slots(slots_path(station.name), create=True)
            return serve(station, bus, slots, stop)
    # A bus that cannot be opened waits for a person: an adapter to plug in, an interface to set up, a group to join.
    except (StationError, CalibrationError, ArmTaken, BridgeError, ControlError) as error:
        LOG.error("%s", error)
        return 2
    except OSError as error:  # a new start may find it cured
        LOG.error("%s", error)
        return 1


def _wait_for_bus(can: Can, stop: threading.Event) -> WireBus:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return open_bus(can)
        except BridgeError:
            if stop.wait(LOOK_S) or time.monotonic() > deadline or can.transport != "seqpacket":
                raise
