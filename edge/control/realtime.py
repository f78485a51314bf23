"""The control loop on a real clock: compiled, without the interpreter, at a fixed rate over any wire.

- Each period: sleep to its absolute beginning, gather the replies to the last commands, take the newest setpoint, run
  the kernel, send seven commands, publish the state.
- A period that begins late is counted; the loop does not hurry to catch up, it goes on from now.
- The loop returns to Python for what is rare: an order, a request to halt, a bus that is gone, the end of stowing. It
  goes on with the period that was due: one that began at once would find no answers, and the next one twice as many.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from edge import slots
from edge.control import kernel
from edge.control.kernel import DAMP, STOW, step, take_setpoint
from edge.messages import LONGEST_LIFE_NS, MOTORS
from edge.slots import HEADER_WORDS, LAYOUT, fetch, publish
from firmware_bridge import wire
from firmware_bridge.compiled import sources_of
from firmware_bridge.frames import FRAME_BYTES, no_frames
from firmware_bridge.wire import SOCKET, new_wire, read_frames, write_frames

LOG = logging.getLogger("edge.control")
SOURCES = sources_of(kernel, wire, slots)
Record = NDArray[Any]
Words = NDArray[np.uint64]

HALTED, ORDERED, BUS_GONE, AT_REST, DONE = 1, 2, 3, 4, 5
MOST_REPLIES = 64  # of one period; seven are expected
MONOTONIC, ABSOLUTE = 1, 1
SECOND_NS = 1_000_000_000
PRIORITY = 80  # of SCHED_FIFO: below the kernel's own threads, above everything of ours
MCL_CURRENT_AND_FUTURE = 3

RUN = np.dtype(
    [
        ("halt", np.int64),  # set by another thread
        ("most_ticks", np.int64),  # 0 for no end
        ("order", np.int64),  # number of the last order obeyed
        ("setpoint", np.int64),  # number of the last setpoint taken
        ("errno", np.int64),
        ("ticks", np.int64),
        ("late_ticks", np.int64),
        ("unsent", np.int64),
        ("now_ns", np.int64),
        ("began_ns", np.int64),
        ("next_ns", np.int64),  # when the next period is due; 0 for one period from now
        (f"sources_{SOURCES:08x}", np.uint8),
    ],
    align=True,
)

_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.voidptr))
_clock_nanosleep: Any = types.ExternalFunction(
    "clock_nanosleep", types.intc(types.intc, types.intc, types.voidptr, types.voidptr)
)


@njit(cache=True, nogil=True)
def run(
    runs: Record,
    wires: Record,
    drives: Record,
    bodies: Record,
    memories: Record,
    setpoint_slot: Words,
    order_slot: Words,
    state_slot: Words,
    setpoints: Record,
    orders: Record,
    states: Record,
) -> int:
    """Run control periods until something rare happens, and return what: HALTED, ORDERED, BUS_GONE, AT_REST or DONE.

    Args:
        runs: (1,) of RUN.
        wires: (1,) of `firmware_bridge.wire.WIRE`.
        setpoints, orders, states: (1,) each, room for the slots' values.
    """
    go, drive, memory = runs[0], drives[0], memories[0]
    period_ns = int(drive["dt_s"] * SECOND_NS)
    clock = np.zeros(2, dtype=np.int64)
    replies = np.zeros((MOST_REPLIES, FRAME_BYTES), dtype=np.uint8)
    commands = np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8)
    if go["next_ns"] == 0:
        go["next_ns"] = _now_ns(clock) + period_ns
    if go["began_ns"] == 0:
        go["began_ns"] = go["next_ns"]
    while True:
        now_ns = _sleep_until(clock, go["next_ns"])
        late = now_ns - go["next_ns"] > period_ns // 2
        go["late_ticks"] += late
        go["next_ns"] = (now_ns if late else go["next_ns"]) + period_ns
        go["now_ns"] = now_ns
        count = read_frames(wires, replies)
        if count < 0:
            go["errno"] = -count
            return BUS_GONE
        number = fetch(setpoint_slot, setpoints.view(np.uint64))
        if number > go["setpoint"]:
            go["setpoint"] = number
            expires_ns = min(setpoints[0]["expires_ns"], now_ns + LONGEST_LIFE_NS)
            take_setpoint(memory, drive, setpoints[0]["target"], expires_ns, now_ns)
        was = memory["mode"]
        step(replies[:count], now_ns, drives, bodies, memories, commands)
        sent = write_frames(wires, commands)
        if sent < 0:
            go["errno"] = -sent
            return BUS_GONE
        go["unsent"] += MOTORS - sent
        go["ticks"] += 1
        _report(go, memory, states[0])
        publish(state_slot, states.view(np.uint64))
        if was == STOW and memory["mode"] == DAMP:
            return AT_REST
        if go["halt"]:
            return HALTED
        number = fetch(order_slot, orders.view(np.uint64))
        if number > go["order"]:
            go["order"] = number
            return ORDERED
        if go["most_ticks"] > 0 and go["ticks"] >= go["most_ticks"]:
            return DONE


@njit(cache=True)
def _report(go: Record, memory: Record, state: Record) -> None:
    """Fill the state that other processes see."""
    state["time_ns"] = memory["sampled_ns"]
    for motor in range(MOTORS):
        state["position"][motor] = memory["position"][motor]
        state["velocity"][motor] = memory["velocity"][motor]
        state["torque"][motor] = memory["torque"][motor]
        state["mosfet_c"][motor] = memory["temperature"][motor, 0]
        state["coil_c"][motor] = memory["temperature"][motor, 1]
        state["status"][motor] = memory["status"][motor]
    state["mode"], state["fault"], state["fault_motor"] = memory["mode"], memory["fault"], memory["fault_motor"]
    state["fault_value"], state["fault_limit"] = memory["fault_value"], memory["fault_limit"]
    state["ticks"], state["late_ticks"] = go["ticks"], go["late_ticks"]
    state["lost"], state["extra"], state["rejected"] = memory["lost"], memory["extra"], memory["rejected"]


@njit(cache=True)
def _now_ns(clock: NDArray[np.int64]) -> int:
    _clock_gettime(MONOTONIC, clock.ctypes)
    return int(clock[0]) * SECOND_NS + int(clock[1])


@njit(cache=True)
def _sleep_until(clock: NDArray[np.int64], until_ns: int) -> int:
    """Sleep to an absolute time, also through signals, and return the time then."""
    now_ns = _now_ns(clock)
    while now_ns < until_ns:
        clock[0], clock[1] = until_ns // SECOND_NS, until_ns % SECOND_NS
        _clock_nanosleep(MONOTONIC, ABSOLUTE, clock.ctypes, clock[2:].ctypes)
        now_ns = _now_ns(clock)
    return now_ns


def compile_loop(drives: Record, bodies: Record, memories: Record) -> None:
    """Have the loop compiled, or read from numba's cache: that takes seconds, and enabled motors wait for 0.4 s only.

    It runs one period on copies of the arm's records, over a socket at whose other end is nobody's motor.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        runs = np.zeros(1, dtype=RUN)
        runs["halt"] = 1
        values = [np.zeros(1, dtype=dtype) for _, dtype in LAYOUT]
        words = [np.zeros(HEADER_WORDS + dtype.itemsize // 8, dtype=np.uint64) for _, dtype in LAYOUT]
        records = [record.copy() for record in (drives, bodies, memories)]
        run(runs, new_wire(ours.fileno(), SOCKET), *records, *words, *values)
        # As it is called from Python, while motors are inspected.
        drive, body, memory = records
        step(no_frames(), 0, drive, body, memory, np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8))


def claim_real_time() -> list[str]:
    """Ask for SCHED_FIFO on this thread and for locked memory; return a sentence for each that was refused."""
    refused = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except OSError as error:
        refused.append(
            f"no real-time scheduling ({error.strerror}): periods may begin milliseconds late; "
            "allow it with `LimitRTPRIO=90` in the service or `rtprio 90` in /etc/security/limits.conf"
        )
    if ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT_AND_FUTURE) != 0:
        why = os.strerror(ctypes.get_errno())
        refused.append(
            f"memory is not locked ({why}): a page fault may delay a period; "
            "allow it with `LimitMEMLOCK=infinity` or `memlock unlimited` in /etc/security/limits.conf"
        )
    return refused
