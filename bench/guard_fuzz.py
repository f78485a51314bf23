"""A million random and adversarial setpoints against control and guard: what comes out on the wire is judged.

- Setpoints: anywhere in range, on and just beyond limits, far outside, huge, infinite, not a number, alternating ends.
- The measured arm lags and is pushed about; the walls of a bench stand around it.
- Every frame is decoded. Beyond limits is a position, velocity, acceleration, torque (with what the gains add, unless
  they only damp) or place outside what is allowed by more than the coarseness of the frames' fields.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.arm import body_of, load_arm
from edge.control import kernel
from edge.control.kernel import DAMP, FOLLOW, Record, step, take_setpoint
from edge.control.loop import ControlLoop
from edge.messages import CONTROL_HZ, MOTORS
from firmware_bridge.body import ROOMS, measure_room
from firmware_bridge.damiao import decode_command, encode_feedback, scales
from firmware_bridge.frames import FRAME_BYTES, Frames
from firmware_bridge.guard import ALLOWED, JointLimits, narrow
from policies.interface import JOINTS

Floats = NDArray[np.float64]
SETPOINTS, CHUNK, SEED = 1_000_000, 20_000, 1
TICKS = 4
HOME = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])
TOOL_M, LOWER_M, UPPER_M = 0.05, np.array([0.05, -0.42, 0.0]), np.array([0.62, 0.42, 0.303])
RANGE, VELOCITY, ACCELERATION, TORQUE, PLACE, DAMPED, COUNTS = 0, 1, 2, 3, 4, 5, 6
NAMES = ("position", "velocity", "acceleration", "torque", "place")
COARSE_M = 0.001  # what one step of each position field moves the tool by, at the most


@njit()
def _try(
    targets: Floats,
    pushes: Floats,
    drives: Record,
    bodies: Record,
    memories: Record,
    scale: Floats,
    tally: NDArray[np.int64],
) -> int:
    """Run every target for some periods and count in `tally` what is beyond limits; return how many were refused."""
    drive, memory = drives[0], memories[0]
    feedback, out = np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8), np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8)
    sample, row, before, room = np.zeros(3), np.zeros((MOTORS, 5)), np.zeros((MOTORS, 5)), np.zeros(ROOMS)
    warm = np.array([30, 30], dtype=np.uint8)
    refused, known = 0, False
    for number in range(targets.shape[0]):
        if memory["mode"] != FOLLOW:  # as a driver clears it
            tally[DAMPED] += memory["mode"] == DAMP
            memory["mode"], memory["fault"] = FOLLOW, ALLOWED
        take_setpoint(memory, drive, targets[number], 1 << 60, 0)
        for _ in range(TICKS):
            for motor in range(MOTORS):
                sample[0] = memory["admitted"][motor] + pushes[number, motor]
                sample[1] = memory["admitted_velocity"][motor]
                encode_feedback(
                    feedback[motor], drive["mst_ids"][motor], drive["esc_ids"][motor], 1, sample, scale[motor], warm
                )
            step(feedback, 0, drives, bodies, memories, out)
            for motor in range(MOTORS):
                decode_command(out[motor], scale[motor], row[motor])
            _judge(row, before, known, drive, memory, bodies, scale, room, tally)
            before[:] = row
            known = True
        refused += memory["fault"] != ALLOWED
    return refused


@njit()
def _judge(
    row: Floats, before: Floats, known: bool, drive: Record, memory: Record, bodies: Record,
    scale: Floats, room: Floats, tally: NDArray[np.int64],
) -> None:  # fmt: skip
    """Count each rule that the decoded commands (7, 5) break."""
    for motor in range(JOINTS):
        angle, speed, weight = 2 * scale[motor, 0] / 65535, 2 * scale[motor, 1] / 4095, 2 * scale[motor, 2] / 4095
        position, velocity, kp, kd, torque = row[motor]
        if not (drive["lower_rad"][motor] - angle <= position <= drive["upper_rad"][motor] + angle):
            tally[RANGE] += 1
        if known:
            moved, changed = position - before[motor, 0], velocity - before[motor, 1]
            if not abs(moved) <= drive["velocity_rad_s"][motor] * drive["dt_s"] + 2 * angle:
                tally[VELOCITY] += 1
            if kp > 0.0 and not abs(changed) <= drive["acceleration_rad_s2"][motor] * drive["dt_s"] + 2 * speed:
                tally[ACCELERATION] += 1
        error, slip = position - memory["position"][motor], velocity - memory["velocity"][motor]
        given = torque + kp * error + kd * slip
        coarse = weight + kp * angle + abs(error) * 500.0 / 4095 + kd * speed + abs(slip) * 5.0 / 4095
        driven = kp > 0.0  # damping alone only opposes motion
        within = not driven or abs(given) <= drive["torque_nm"][motor] + coarse
        if not (within and abs(torque) <= drive["torque_nm"][motor] + weight):
            tally[TORQUE] += 1
    measure_room(bodies, row[:JOINTS, 0].copy(), room)
    if not room.min() >= -COARSE_M:
        tally[PLACE] += 1


def draw(rng: np.random.Generator, count: int, limits: JointLimits) -> tuple[Floats, Floats]:
    """Return targets (count, 7) and how far the measured joints stand from where they are told to be (count, 7)."""
    low, high = limits.lower_rad, limits.upper_rad
    inside = rng.uniform(low, high, (count, JOINTS))
    ends = np.where(rng.random((count, JOINTS)) < 0.5, low, high)
    on_limits = ends + rng.choice([-1e-12, 0.0, 1e-12, 1e-6, -1e-6], (count, JOINTS))
    far = rng.normal(0.0, 1.0, (count, JOINTS)) * 10.0 ** rng.uniform(0, 300, (count, 1))
    alternating = np.where(np.arange(count)[:, None] % 2 == 0, low, high) * np.ones((count, JOINTS))
    near_home = HOME + rng.normal(0.0, 0.3, (count, JOINTS))
    kind = rng.integers(0, 6, count)
    targets = np.choose(kind[:, None], [inside, on_limits, far, alternating, near_home, near_home])
    odd = (rng.random((count, JOINTS)) < 0.3) & (kind == 5)[:, None] & (rng.random((count, 1)) < 0.3)
    targets[odd] = rng.choice([np.nan, np.inf, -np.inf, 1e308, -0.0], odd.sum())
    jaw = np.where(rng.random(count) < 0.02, np.nan, rng.uniform(-20.0, 10.0, count))
    pushes = np.column_stack([rng.normal(0.0, 0.06, (count, JOINTS)).clip(-0.24, 0.24), rng.normal(0.0, 0.3, count)])
    return np.column_stack([targets, jaw]), pushes


def main() -> None:
    """Try them all and print the counts; the last line is one JSON object."""
    arm = load_arm()
    site = JointLimits(
        arm.limits.lower_rad, arm.limits.upper_rad, arm.limits.velocity_rad_s,
        np.array([10.0, 20.0, 10.0, 4.0, 4.0, 4.0]), arm.limits.acceleration_rad_s2,
    )  # fmt: skip
    limits = narrow(arm.limits, site)
    loop = ControlLoop(arm, limits, body=body_of(arm, TOOL_M, LOWER_M, UPPER_M, 0.0))
    records, scale = loop.records, scales(arm.motor_types)
    _wake(loop, scale)
    rng, tally, refused, began = np.random.default_rng(SEED), np.zeros(COUNTS, dtype=np.int64), 0, time.monotonic()
    for number in range(SETPOINTS // CHUNK):
        refused += int(_try(*draw(rng, CHUNK, limits), *records, scale, tally))
        print(f"\r{(number + 1) * CHUNK} of {SETPOINTS}", end="", file=sys.stderr, flush=True)
    print(f" in {time.monotonic() - began:.0f} s", file=sys.stderr)
    beyond = int(tally[:DAMPED].sum())
    counts = ", ".join(f"{name} {count}" for name, count in zip(NAMES, tally.tolist(), strict=False))
    held_damped = f"{refused - tally[DAMPED]}, {tally[DAMPED]}"
    rows = [
        {
            "what": f"random and adversarial setpoints, {TICKS} periods each, beyond limits on the wire (seed {SEED})",
            "figure": f"{beyond} of {SETPOINTS} ({counts})", "bound": "0 of 1000000", "holds": beyond == 0,
        },
        {"what": "of these refused: held, damped", "figure": held_damped, "bound": "", "holds": None},
    ]  # fmt: skip
    print(json.dumps({"name": "guard_fuzz", "rows": rows}))


def _wake(loop: ControlLoop, scale: Floats) -> None:
    """Start the loop at home, at full stiffness."""
    drive = loop.records[0][0]
    feedback: Frames = np.zeros((MOTORS, FRAME_BYTES), dtype=np.uint8)
    pose, warm = np.array([*HOME, -1.0]), np.array([30, 30], dtype=np.uint8)

    def say(status: int) -> Frames:
        for motor in range(MOTORS):
            sample = np.array([pose[motor], 0.0, 0.0])
            encode_feedback(
                feedback[motor], drive["mst_ids"][motor], drive["esc_ids"][motor], status, sample, scale[motor], warm
            )
        return feedback

    loop.start(say(kernel.DISABLED))
    for _ in range(round(CONTROL_HZ)):
        loop.step(say(kernel.ENABLED), 0)
    assert not loop.waking


if __name__ == "__main__":
    main()
