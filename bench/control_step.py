"""How long one control period takes: decode 7 replies, gravity, heat, limits, walls, guard, encode 7 commands.

Figures: the kernel called from Python (what the emulated station pays) and inside a compiled loop (what the real-time
process pays), the driver's `step`, and the emulated motors' answer to the seven commands.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from numba import njit

from edge.arm import load_arm
from edge.control import kernel
from edge.control.kernel import Record
from edge.control.loop import ControlLoop
from edge.messages import Setpoint
from firmware_bridge.frames import Frames
from firmware_bridge.motors import MotorBank

CALLS = 20_000
BATCHES = 200
BATCH = 500
BOUND_US = 25.0
HOME = np.array([0.0, 1.75, 1.1, -0.93, 0.0, 0.0])


@njit()  # not kept on disk, where it would go on calling the kernel of today
def _repeat(feedback: Frames, drives: Record, bodies: Record, memories: Record, out: Frames, times: int) -> None:
    for _ in range(times):
        kernel.step(feedback, 0, drives, bodies, memories, out)


def median_us(call: Callable[[], object], calls: int, per_call: int = 1) -> float:
    """Return the median time of one call in microseconds."""
    call()
    taken = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1e3 / per_call


def main() -> None:
    """Print the medians; the last line is one JSON object."""
    arm = load_arm()
    loop = ControlLoop(arm, arm.limits)
    bank = MotorBank(arm.motor_types, arm.esc_ids, arm.mst_ids)
    shafts, still = np.array([*HOME, -1.0]), np.zeros(7)
    feedback = bank.exchange(loop.probe(), 0, shafts, still, still)
    feedback = bank.exchange(loop.start(feedback), 0, shafts, still, still)
    while loop.waking:
        feedback = bank.exchange(loop.step(feedback, 0), 0, shafts, still, still)
    loop.set(Setpoint(HOME + 0.01, 0.02, 10**15), 0)
    commands = loop.step(feedback, 0)
    assert loop.fault == "", loop.fault
    records, out = loop.records, commands.copy()
    figures = {
        "median_us": median_us(lambda: kernel.step(feedback, 0, *records, out), CALLS),
        "compiled_loop_us": median_us(lambda: _repeat(feedback, *records, out, BATCH), BATCHES, BATCH),
        "driver_us": median_us(lambda: loop.step(feedback, 0), CALLS),
        "emulated_motors_us": median_us(lambda: bank.exchange(commands, 0, shafts, still, still), CALLS),
    }
    assert loop.fault == "", loop.fault
    rows = [
        _row("control kernel and guard called from Python, median us", figures["median_us"], BOUND_US),
        _row("control kernel and guard inside a compiled loop, median us", figures["compiled_loop_us"], BOUND_US),
        _row("control kernel with its driver, median us", figures["driver_us"], None),
        _row("emulated motors' answer to seven commands, median us", figures["emulated_motors_us"], None),
    ]
    print(json.dumps({"name": "control_step", "rows": rows}))


def _row(what: str, value_us: float, bound_us: float | None) -> dict[str, object]:
    bound = "" if bound_us is None else f"at most {bound_us:g}"
    holds = None if bound_us is None else value_us <= bound_us
    return {"what": what, "figure": f"{value_us:.2f}", "bound": bound, "holds": holds}


if __name__ == "__main__":
    main()
