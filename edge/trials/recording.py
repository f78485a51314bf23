"""Writes what happened in one trial to one MCAP file that Foxglove and Rerun open as it is.

- Topics: /joints and /setpoint at the policy's rate, /scene and /camera/top when a picture was taken, /events.
- An event is of the kind trial, tier, stage, limits, restart, fault, over, note, policy, judged or verdict; one that an
  exception ended has error as its last, and cut ends a recovered one.
- Times are the station's clock in nanoseconds. The file is `<path>.part` until `seal` has put all of it on the disk.
- A number that is not finite is written as null, because JSON has no other word for it.
- Joint samples are kept as numbers and turned into JSON in batches, so that one costs microseconds while the arm moves.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer
from numpy.typing import ArrayLike

from edge.messages import Setpoint
from policies.interface import Array, Observation, Scene

BATCH = 256  # joint samples
# Before compression. A crash takes the last, unfinished chunk: some three seconds. Larger ones would save 4 %.
CHUNK_BYTES = 64 << 10
FRAME = "base"
CAMERA_FRAME = "top_camera"

_TIME = {"type": "number"}
# Anything but a time can be null. JSON Schema spells that ["number", "null"], but Foxglove then opens nothing of
# the topic; it passes over this word of OpenAPI's.
_NUMBER = {"type": "number", "nullable": True}
_TEXT = {"type": "string"}


def _numbers(count: int) -> dict[str, Any]:
    return {"type": "array", "items": _NUMBER, "minItems": count, "maxItems": count}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


# topic -> (schema name, JSON schema); units end the names, lengths in metres, angles in radians.
TOPICS: dict[str, tuple[str, dict[str, Any]]] = {
    "/joints": (
        "enpire.Joints",
        _object(
            time_s=_TIME,
            position_rad=_numbers(6),
            velocity_rad_s=_numbers(6),
            torque_nm=_numbers(6),
            tool_position_m=_numbers(3),
            tool_quat_wxyz=_numbers(4),
            gripper_m=_NUMBER,
        ),
    ),
    "/setpoint": ("enpire.Setpoint", _object(time_s=_TIME, position_rad=_numbers(6), gripper_m=_NUMBER)),
    "/scene": (
        "enpire.Scene",
        _object(
            time_s=_TIME,
            objects={
                "type": "array",
                "items": _object(
                    name=_TEXT,
                    x_m=_NUMBER,
                    y_m=_NUMBER,
                    yaw_rad=_NUMBER,
                    sigma_m=_NUMBER,
                    sigma_rad=_NUMBER,
                    z_m=_NUMBER,  # left out where it is 0
                ),
            },
        ),
    ),
    "/camera/top": (
        "foxglove.CompressedImage",
        _object(
            timestamp=_object(sec={"type": "integer"}, nsec={"type": "integer"}),
            frame_id=_TEXT,
            data={"type": "string", "contentEncoding": "base64"},
            format=_TEXT,
        ),
    ),
    "/events": ("enpire.Event", _object(time_s=_TIME, kind=_TEXT, text=_TEXT)),
}

_NOT_FINITE = re.compile(r"-?(?:nan|inf)")


def _line(topic: str) -> str:
    """Return the % pattern that writes a message of a topic that holds numbers only, in the order of its schema."""
    parts = []
    for name, item in TOPICS[topic][1]["properties"].items():
        count = item.get("minItems", 0)
        parts.append(f'"{name}":[{",".join(["%.6g"] * count)}]' if count else f'"{name}":%.6g')
    return "{" + ",".join(parts).replace('"time_s":%.6g', '"time_s":%.4f') + "}"


_LINES = {topic: _line(topic) for topic in ("/joints", "/setpoint")}


class RecordingError(Exception):
    """A recording cannot be written; the message is one line that says what to do."""


class Recording:
    """The recording of one trial, from its first message to `seal`, `leave` or `discard`."""

    def __init__(self, path: Path) -> None:
        """Begin a recording that will stand at `path` once sealed.

        Raises:
            RecordingError: the file cannot be made.
        """
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._waiting: list[tuple[str, int, Array]] = []
        self._last_ns = 0
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._part, "wb")  # noqa: SIM115 - closed by seal, leave or discard
            self._writer = Writer(self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
            self._writer.start(profile="", library="enpire")
            self._channels = {topic: self._register(topic) for topic in TOPICS}

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file.closed:
            return
        if error is None:
            self.discard()
        else:
            self.leave(f"{type(error).__name__}: {error}")

    def joints(self, time_ns: int, seen: Observation) -> None:
        """Record one measured moment."""
        parts = (
            seen.joints_rad,
            seen.joint_velocity_rad_s,
            seen.joint_torque_nm,
            seen.tool_position_m,
            seen.tool_quat_wxyz,
            (seen.gripper_m,),
        )
        self._later("/joints", time_ns, parts)

    def setpoint(self, time_ns: int, setpoint: Setpoint) -> None:
        """Record one asked-for moment."""
        self._later("/setpoint", time_ns, (setpoint.position_rad, (setpoint.gripper_m,)))

    def scene(self, time_ns: int, scene: Scene) -> None:
        """Record what a picture showed."""
        objects = [
            {name: value for name, value in vars(item).items() if name != "z_m" or value} for item in scene.objects
        ]
        self._now("/scene", time_ns, {"time_s": scene.time_s, "objects": objects})

    def camera(self, time_ns: int, jpeg: bytes) -> None:
        """Record one picture of the top camera."""
        sec, nsec = divmod(time_ns, 1_000_000_000)
        data = base64.b64encode(jpeg).decode()
        message = {
            "timestamp": {"sec": sec, "nsec": nsec},
            "frame_id": CAMERA_FRAME,
            "data": data,
            "format": "jpeg",
        }
        self._now("/camera/top", time_ns, message)

    def event(self, time_ns: int, kind: str, text: str) -> None:
        """Record a sentence about something that happened."""
        self._now("/events", time_ns, {"time_s": time_ns / 1e9, "kind": kind, "text": text})

    def seal(self) -> tuple[str, int]:
        """Put the recording on the disk under its final name and return (sha256, bytes).

        Raises:
            RecordingError: the disk did not take it; what was written is discarded.
        """
        try:
            with self._explained():
                self._flush()
                self._writer.finish()  # type: ignore[no-untyped-call]
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                with open(self._part, "rb") as written:
                    digest = hashlib.file_digest(written, "sha256").hexdigest()
                size = self._part.stat().st_size
                self._part.replace(self._path)
                sync_folder(self._path.parent)
        except RecordingError:
            self.discard()
            raise
        return digest, size

    def leave(self, why: str) -> None:
        """End with an event of the kind error and leave the `.part` on the disk, for `recover_part` to make readable.

        What the disk does not take is discarded.
        """
        try:
            self.event(self._last_ns, "error", why)
            with self._explained():
                self._writer.finish()  # type: ignore[no-untyped-call]
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                sync_folder(self._part.parent)
        except RecordingError:
            self.discard()

    def discard(self) -> None:
        """Delete what was written."""
        with suppress(OSError):  # the last buffered bytes may not fit on a full disk, and are not wanted
            self._file.close()
        self._part.unlink(missing_ok=True)

    def _register(self, topic: str) -> int:
        name, schema = TOPICS[topic]
        schema_id = self._writer.register_schema(name, SchemaEncoding.JSONSchema, json.dumps(schema).encode())
        channel: int = self._writer.register_channel(topic, MessageEncoding.JSON, schema_id)
        return channel

    def _later(self, topic: str, time_ns: int, parts: Sequence[ArrayLike]) -> None:
        self._last_ns = time_ns
        self._waiting.append((topic, time_ns, np.concatenate(parts)))
        if len(self._waiting) >= BATCH:
            self._flush()

    def _now(self, topic: str, time_ns: int, message: dict[str, Any]) -> None:
        self._last_ns = time_ns
        self._flush()
        with self._explained():
            self._writer.add_message(self._channels[topic], time_ns, _json(message), time_ns)
            self._file.flush()  # so that every whole chunk outlives this process

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        with self._explained():
            for topic, time_ns, numbers in waiting:
                text = _LINES[topic] % (time_ns / 1e9, *numbers.tolist())
                if "nan" in text or "inf" in text:  # in no key, and not in JSON
                    text = _NOT_FINITE.sub("null", text)
                self._writer.add_message(self._channels[topic], time_ns, text.encode(), time_ns)
            self._file.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordingError(f"cannot record to {self._part}: {error.strerror}; free space there") from error


def _json(message: dict[str, Any]) -> bytes:
    return json.dumps(_without_nan(message), separators=(",", ":"), allow_nan=False).encode()


def _without_nan(value: Any) -> Any:
    """Return the value with None in place of every number that JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
