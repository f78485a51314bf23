"""Reads the recording of one trial back into numbers, in the order in which they were written.

Things of the same time happened in the order of the file, so nothing here is sorted by time.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader
from zstandard import ZstdError

from policies.interface import JOINTS, Array, Scene, SceneObject

VERIFY = "verify"
LATEST_NS = 1 << 62  # no clock of a station has run for so long
# What a damaged file makes the reader raise.
UNREADABLE = (McapError, ZstdError, struct.error, ValueError, KeyError, TypeError, AttributeError, OSError, MemoryError)


class ReplayError(Exception):
    """Files that cannot be replayed; one line that says why and what to do."""


@dataclass(frozen=True)
class Pose:
    """Joints and jaw at one time: measured, or asked for."""

    time_ns: int
    joints_rad: Array  # (6,)
    gripper_m: float
    asked: bool
    at: int  # its place in the file

    @property
    def is_finite(self) -> bool:
        """Whether it holds numbers only."""
        return bool(np.isfinite(self.joints_rad).all()) and math.isfinite(self.gripper_m)


@dataclass(frozen=True)
class Look:
    """What a picture showed then."""

    time_ns: int
    scene: Scene
    at: int


@dataclass(frozen=True)
class Picture:
    """One picture of the top camera, compressed."""

    time_ns: int
    data: bytes


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    time_ns: int
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Recorded:
    """All of one recording, each part in the order of the file."""

    poses: tuple[Pose, ...]
    looks: tuple[Look, ...]
    pictures: tuple[Picture, ...]
    events: tuple[Event, ...]

    @property
    def trial(self) -> Mapping[str, Any]:
        """What the recording says about its trial; empty for one that is older than that event."""
        return self.said("trial")

    @property
    def start_ns(self) -> int:
        """The time of the first thing that was recorded."""
        times = [item.time_ns for part in (self.poses, self.looks, self.pictures, self.events) for item in part]
        return min(times, default=0)

    @property
    def verify_at(self) -> int:
        """Where in the file the judge's work begins: at its stage, or after the last motion where none is noted."""
        stages = [event.at for event in self.events if event.kind == "stage" and event.text == VERIFY]
        moves = [pose.at for pose in self.poses if pose.asked]
        return max(stages or moves, default=0)

    def event(self, kind: str) -> Event | None:
        """Return the last event of a kind, or None."""
        return next((event for event in reversed(self.events) if event.kind == kind), None)

    def said(self, kind: str) -> Mapping[str, Any]:
        """Return the map in the last event of a kind, empty where there is none."""
        event = self.event(kind)
        try:
            found = json.loads(event.text) if event is not None else {}
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def read_recording(path: Path) -> Recorded:
    """Return what a sealed or recovered recording holds.

    Raises:
        ReplayError: no such file, no whole MCAP, or messages that are not a trial's.
    """
    poses: list[Pose] = []
    looks: list[Look] = []
    pictures: list[Picture] = []
    events: list[Event] = []
    try:
        with open(path, "rb") as file:
            found = make_reader(file, validate_crcs=True).iter_messages(log_time_order=False)
            for at, (_, channel, message) in enumerate(found):
                time_ns, said = message.log_time, json.loads(message.data)
                if not time_ns <= LATEST_NS:
                    raise ValueError(f"a message at {time_ns * 1e-9:.3g} s of the station's clock")
                if channel.topic in ("/joints", "/setpoint"):
                    poses.append(_pose(time_ns, said, channel.topic == "/setpoint", at))
                elif channel.topic == "/scene":
                    looks.append(Look(time_ns, _scene(said), at))
                elif channel.topic == "/camera/top":
                    pictures.append(Picture(time_ns, base64.b64decode(said["data"])))
                elif channel.topic == "/events":
                    events.append(Event(time_ns, str(said["kind"]), str(said["text"]), at))
    except FileNotFoundError as error:
        raise ReplayError(f"no recording at {path}: give the path of an .mcap") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ReplayError(f"{path} is not a whole recording of a trial: {reason}; give another") from error
    return Recorded(tuple(poses), tuple(looks), tuple(pictures), tuple(events))


def _pose(time_ns: int, said: Mapping[str, Any], asked: bool, at: int) -> Pose:
    joints = np.array([_number(value) for value in said["position_rad"]])
    if joints.shape != (JOINTS,):
        raise ValueError(f"a pose of {joints.size} joints")
    return Pose(time_ns, joints, _number(said["gripper_m"]), asked, at)


def _scene(said: Mapping[str, Any]) -> Scene:
    return Scene(_number(said["time_s"]), tuple(_thing(item) for item in said["objects"]))


def _thing(said: Mapping[str, Any]) -> SceneObject:
    numbers = [_number(said[name]) for name in ("x_m", "y_m", "yaw_rad", "sigma_m", "sigma_rad")]
    return replace(SceneObject(str(said["name"]), *numbers), z_m=_number(said.get("z_m", 0.0)))


def _number(value: float | None) -> float:
    """Return a recorded number; what was not finite is null in the file."""
    return math.nan if value is None else float(value)
