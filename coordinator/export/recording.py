"""Reads what a policy saw and asked for out of the recording of its trial, one row a step.

- A recording holds the reset and the judge's look as well; only the policy's own attempt is taken, from the stage "run"
  to the stage "verify". Recordings without these events are older; there the trial's own times say the same.
- What was seen at a step is the newest measurement and the newest picture at or before the moment of its setpoint: what
  the policy can have known when it asked.
- A recording that is not all of what its trial promises is not used at all, and the reason is one line.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from numpy.typing import NDArray
from zstandard import ZstdError

from coordinator.errors import CoordinatorError
from coordinator.report.film import TOPIC as CAMERA

Array = NDArray[np.float64]

HZ = 30
HALF_PERIOD_NS = round(0.5e9 / HZ)
JOINTS, SETPOINT, EVENTS = "/joints", "/setpoint", "/events"
# What a damaged file makes the reader raise.
UNREADABLE = (McapError, ZstdError, struct.error, ValueError, KeyError, TypeError, EOFError, AssertionError, OSError)


class RecordingUnusable(CoordinatorError):
    """Nothing can be made of this recording; the message says why."""


@dataclass(frozen=True)
class RecordedTrial:
    """What the database says of a trial; its fields are the columns of the same names."""

    edge: str
    epoch: str
    sequence: int
    task: str
    bundle: str
    start_id: str
    purpose: str
    seed: int
    outcome: str
    cause: str
    progress: float
    reset_s: float
    trial_s: float
    policy_steps: int
    started_unix_s: float
    station_hash: str
    calibration_hash: str
    software: str
    recording: str

    @property
    def name(self) -> str:
        """Its identity in one word."""
        return f"{self.edge}/{self.epoch}/{self.sequence}"


@dataclass(frozen=True)
class Attempt:
    """One policy's attempt; rows are its steps, in order."""

    time_s: Array  # (steps,) the station's clock, since the first step
    joints_rad: Array  # (steps, 6) measured
    gripper_m: Array  # (steps, 1)
    velocity_rad_s: Array  # (steps, 6)
    torque_nm: Array  # (steps, 6)
    tool_pose: Array  # (steps, 7) position in metres, quaternion w x y z
    setpoint: Array  # (steps, 7) asked-for joints in radians, gripper in metres
    pictures: tuple[bytes, ...]  # JPEGs, in order, those that were the newest at some step
    held: tuple[int, ...]  # at how many steps each of them was


@dataclass
class _Topic:
    """Messages of one topic, still encoded."""

    times_ns: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def take(self, rows: Iterable[np.intp | int]) -> list[dict[str, Any]]:
        """Return some of the messages."""
        return [json.loads(self.bodies[row]) for row in rows]

    def newest(self, at_ns: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return which message is the newest at each of some moments, -1 where there is none yet."""
        return np.searchsorted(np.array(self.times_ns, dtype=np.int64), at_ns, side="right") - 1


def read_attempt(path: Path, trial: RecordedTrial, pictures: bool) -> Attempt:
    """Read the attempt of a trial.

    Raises:
        RecordingUnusable: there is none, or the recording is damaged or lacks steps, measurements or pictures of it.
    """
    if trial.policy_steps < 1:
        raise RecordingUnusable("its policy took no step")
    if not trial.recording:
        raise RecordingUnusable("it has no recording")
    if not path.is_file():
        raise RecordingUnusable("its recording has not come")
    try:
        first_ns, topics = _read(path, trial.recording, pictures)
        return _attempt(first_ns, topics, trial, pictures)
    except UNREADABLE as error:
        raise RecordingUnusable(f"its recording cannot be read: {error or type(error).__name__}") from error


def _read(path: Path, sha256: str, pictures: bool) -> tuple[int, dict[str, _Topic]]:
    """Return the time of the first message, and the messages by topic."""
    wanted = [JOINTS, SETPOINT, EVENTS, *([CAMERA] if pictures else [])]
    topics = {topic: _Topic() for topic in wanted}
    first_ns = -1
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise RecordingUnusable("its recording is not the one that was sealed: another hash")
        file.seek(0)
        for _, channel, message in make_reader(file).iter_messages():
            first_ns = message.log_time if first_ns < 0 else first_ns
            if channel.topic in topics:
                topics[channel.topic].times_ns.append(message.log_time)
                topics[channel.topic].bodies.append(message.data)
    return first_ns, topics


def _attempt(first_ns: int, topics: dict[str, _Topic], trial: RecordedTrial, pictures: bool) -> Attempt:
    steps = _steps(first_ns, topics, trial)
    at_ns = np.array(topics[SETPOINT].times_ns, dtype=np.int64)[steps]
    before = topics[JOINTS].newest(at_ns)
    if before[0] < 0:
        raise RecordingUnusable("its recording holds no measurement before its first step")
    measured, asked = topics[JOINTS].take(before), topics[SETPOINT].take(steps)
    jpegs, held = _pictures(topics[CAMERA], at_ns) if pictures else ((), ())
    return Attempt(
        time_s=(at_ns - at_ns[0]) / 1e9,
        joints_rad=_numbers(measured, position_rad=6),
        gripper_m=_numbers(measured, gripper_m=1),
        velocity_rad_s=_numbers(measured, velocity_rad_s=6),
        torque_nm=_numbers(measured, torque_nm=6),
        tool_pose=_numbers(measured, tool_position_m=3, tool_quat_wxyz=4),
        setpoint=_numbers(asked, position_rad=6, gripper_m=1),
        pictures=jpegs,
        held=held,
    )


def _numbers(messages: list[dict[str, Any]], **widths: int) -> Array:
    """Return some fields of messages side by side, (messages, sum of the widths)."""
    parts = [np.array([message[name] for message in messages], dtype=np.float64) for name in widths]
    columns = [part.reshape(len(messages), -1) for part in parts]
    for column, (name, width) in zip(columns, widths.items(), strict=True):
        if column.shape[1] != width:
            raise RecordingUnusable(f"its {name} holds {column.shape[1]} numbers, not {width}")
    values = np.hstack(columns)
    if not np.isfinite(values).all():  # null in the recording
        raise RecordingUnusable(f"its {' or '.join(widths)} was not a number at a step")
    return values


def _steps(first_ns: int, topics: dict[str, _Topic], trial: RecordedTrial) -> NDArray[np.intp]:
    """Return which setpoints are the steps of the attempt that were carried out."""
    begin_ns, end_ns = _stretch(first_ns, topics[EVENTS], trial)
    times_ns = np.array(topics[SETPOINT].times_ns, dtype=np.int64)
    found = np.flatnonzero((times_ns >= begin_ns) & (times_ns < end_ns))
    # One more than the steps that the policy saw the end of: the one in which guard or control stopped it.
    if not trial.policy_steps <= len(found) <= trial.policy_steps + 1:
        raise RecordingUnusable(f"its recording holds {len(found)} of its {trial.policy_steps} steps")
    return found[: trial.policy_steps]


def _stretch(first_ns: int, events: _Topic, trial: RecordedTrial) -> tuple[int, int]:
    """Return when the attempt began and ended, on the station's clock."""
    told = zip(events.times_ns, events.take(range(len(events.bodies))), strict=True)
    stages = {event["text"]: time_ns for time_ns, event in told if event["kind"] == "stage"}
    if "run" in stages and "verify" in stages:
        return stages["run"], stages["verify"]
    # A recording begins with the reset, and no step is nearer to a stage's end than one period.
    begin_ns = first_ns + round(trial.reset_s * 1e9) - HALF_PERIOD_NS
    return begin_ns, begin_ns + round(trial.trial_s * 1e9)


def _pictures(camera: _Topic, at_ns: NDArray[np.int64]) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Return the pictures that were the newest at some step, and at how many steps each was."""
    newest = camera.newest(at_ns)
    if newest[0] < 0:
        raise RecordingUnusable("its recording holds no picture before its first step")
    used, held = np.unique(newest, return_counts=True)
    return tuple(base64.b64decode(picture["data"]) for picture in camera.take(used)), tuple(held.tolist())
