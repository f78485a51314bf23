"""Hands what happens in a trial to its recording, as much of it as the disk has room for.

A recording that the disk does not take is given up, never the trial: `lost` then says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.messages import Setpoint
from edge.station import RecordingTier
from edge.trials.recording import Recording, RecordingError
from policies.interface import POLICY_HZ, Observation, Scene

LOG = logging.getLogger("edge.trials")
# A person looks at the pictures; the verdict has used all of what the camera gave.
PICTURE_SCALE = {"full": 0.5, "small": 0.25}


class Recorder:
    """The recording of the trial at hand; none of its methods raises for the disk's sake."""

    def __init__(self, path: Path, tier: RecordingTier) -> None:
        """Begin the recording that will stand at `path` once sealed."""
        self.lost = ""  # why there is no recording
        self._path = path
        self._tier = tier
        self._slots: dict[str, int] = {}
        self._recording: Recording | None = None
        try:
            self._recording = Recording(path)
        except RecordingError as error:
            self._lose(error)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._recording is not None:
            self._recording.__exit__(kind, error, at)

    def joints(self, time_ns: int, seen: Observation) -> None:
        """Record one measured moment, where it is due."""
        if self._due("joints", time_ns):
            self._write(lambda recording: recording.joints(time_ns, seen))

    def setpoint(self, time_ns: int, setpoint: Setpoint) -> None:
        """Record one asked-for moment, where it is due."""
        if self._due("setpoint", time_ns):
            self._write(lambda recording: recording.setpoint(time_ns, setpoint))

    def scene(self, time_ns: int, scene: Scene) -> None:
        """Record what a picture showed."""
        self._write(lambda recording: recording.scene(time_ns, scene))

    def picture(self, time_ns: int, picture: NDArray[np.uint8]) -> None:
        """Record a picture (height, width, 3) of the top camera, where pictures are kept."""
        if self._tier.camera != "none" and not self.lost:
            jpeg = _jpeg(picture, PICTURE_SCALE[self._tier.camera], self._tier.jpeg_quality)
            self._write(lambda recording: recording.camera(time_ns, jpeg))

    def event(self, time_ns: int, kind: str, text: str) -> None:
        """Record a sentence about something that happened."""
        self._write(lambda recording: recording.event(time_ns, kind, text))

    def seal(self) -> tuple[str, int]:
        """Put the recording on the disk and return (sha256, bytes), ("", 0) where it was lost."""
        if self._recording is not None:
            try:
                return self._recording.seal()
            except RecordingError as error:
                self._lose(error)
        return "", 0

    def _due(self, what: str, time_ns: int) -> bool:
        """Return whether so much time has passed since the last one that the next is to be kept."""
        if self._tier.joint_hz >= POLICY_HZ:
            return True
        # Counted from a fixed raster, so that 20 Hz out of 30 keeps two of three.
        slot = int(time_ns * self._tier.joint_hz // 1e9)
        due = self._slots.get(what) != slot
        self._slots[what] = slot
        return due

    def _write(self, write: Callable[[Recording], None]) -> None:
        if self._recording is not None:
            try:
                write(self._recording)
            except RecordingError as error:
                self._lose(error)

    def _lose(self, error: RecordingError) -> None:
        """Give the recording up, which leaves its room to the ledger."""
        self.lost = str(error)
        LOG.error("this trial goes on without a recording: %s", error)
        if self._recording is not None:
            with suppress(OSError):
                self._recording.discard()
                self._path.unlink(missing_ok=True)  # renamed already, and then the folder could not be synced
            self._recording = None


def _jpeg(picture: NDArray[np.uint8], scale: float, quality: int) -> bytes:
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    options = (cv2.IMWRITE_JPEG_QUALITY, quality)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), options)
    assert done
    return bytes(data)
