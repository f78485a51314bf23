"""Writes the video files of a dataset: as many frames a second as there are steps, a picture held until the next."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coordinator.errors import CoordinatorError
from coordinator.export import statistics
from coordinator.export.files import VIDEO_FILE_MB, VIDEO_PATH, Place
from coordinator.export.recording import HZ, Attempt, RecordingUnusable

CODEC, CODEC_NAME, PIXELS = "libx264", "h264", "yuv420p"
# Each second frame stands alone, so that a loader that jumps decodes at most two; no frame waits for a later one.
OPTIONS = {"g": "2", "bf": "0", "crf": "23", "preset": "veryfast"}
INDEX_BYTES = 16  # of a frame in the file's index, at most

Picture = NDArray[np.uint8]  # (height, width, 3)


class PictureBroken(CoordinatorError):
    """Bytes that show nothing."""


class VideoFailed(CoordinatorError):
    """The encoder or the disk did not take it."""


def decode(jpeg: bytes) -> Picture:
    """Return a picture with even sides, as the encoder wants them; an odd last row or column is cut off.

    Raises:
        PictureBroken: it cannot be decoded, or is smaller than two by two pixels.
    """
    try:
        with Image.open(io.BytesIO(jpeg)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureBroken("a picture of it cannot be decoded") from error
    height, width = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
    if not height * width > 0:
        raise PictureBroken(f"a picture of it is {pixels.shape[1]} by {pixels.shape[0]} pixels")
    return pixels[:height, :width]


class Video:
    """One file that is being written."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        self._path = path
        self.frames = 0
        self.bytes = 0
        with self._explained():
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
            stream: Any = self._container.add_stream(CODEC, rate=HZ, options=OPTIONS)
            stream.height, stream.width, stream.pix_fmt = height, width, PIXELS
        self._stream = stream

    def close(self, failed: bool) -> None:
        """Write the end of the file, of one that shall be kept with the frames that the encoder still holds."""
        with self._explained():
            if not failed:
                self._write(self._stream.encode())
            self._container.close()

    def add(self, pictures: Iterable[tuple[Picture, int]]) -> None:
        """Add pictures, each with how many frames it is held.

        Raises:
            VideoFailed: they are not written.
        """
        for picture, held in pictures:
            with self._explained():
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=PIXELS)
                for _ in range(held):
                    frame.pts, frame.time_base = self.frames, Fraction(1, HZ)
                    self._write(self._stream.encode(frame))
                    self.frames += 1

    def _write(self, packets: list[Any]) -> None:
        for packet in packets:
            self.bytes += packet.size + INDEX_BYTES
            self._container.mux(packet)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoFailed(f"cannot write {self._path}: {reason}; make room there or give another --out") from error


class VideoFiles:
    """Video files of the camera, one after another; all pictures have the size of the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._video: Video | None = None
        self._last_bytes = 0
        self._place = Place(0, 0)
        self._size = (0, 0)  # height, width
        self.histogram = statistics.nothing_counted()

    def close(self, failed: bool) -> None:
        """Write the end of the file, without which it cannot be read."""
        if self._video is not None:
            self._video.close(failed)
            self._video = None

    def add(self, attempt: Attempt) -> tuple[dict[str, float], statistics.Statistics]:
        """Write the pictures of an episode and return where they stand, and their statistics.

        Raises:
            RecordingUnusable: one is broken or of another size; none is written.
        """
        counts = self._check(attempt)
        video = self._begin()
        began, before = video.frames, video.bytes
        video.add((decode(jpeg), held) for jpeg, held in zip(attempt.pictures, attempt.held, strict=True))
        self._last_bytes = video.bytes - before
        self.histogram += counts
        times = {"from_timestamp": began / HZ, "to_timestamp": video.frames / HZ}
        return {**self._place._asdict(), **times}, statistics.of_pictures(counts, video.frames - began)

    def _check(self, attempt: Attempt) -> statistics.Histogram:
        """Return how often each value of a colour occurs in an episode."""
        counts = statistics.nothing_counted()
        size = self._size
        for jpeg, held in zip(attempt.pictures, attempt.held, strict=True):
            try:
                picture = decode(jpeg)
            except PictureBroken as error:
                raise RecordingUnusable(str(error)) from error
            height, width = picture.shape[:2]
            size = size if any(size) else (height, width)
            if (height, width) != size:
                raise RecordingUnusable(
                    f"a picture of it is {width} by {height} pixels, those of the others are {size[1]} by {size[0]}"
                )
            counts += held * statistics.histogram(picture)
        self._size = size
        return counts

    def _begin(self) -> Video:
        if self._video is not None and self._video.bytes + self._last_bytes >= VIDEO_FILE_MB << 20:
            self.close(failed=False)
            self._place = self._place.after()
        if self._video is None:
            self._video = Video(self._place.path(self._folder, VIDEO_PATH), *self._size)
        return self._video

    def feature(self) -> dict[str, Any]:
        """Return what meta/info.json says of the pictures."""
        height, width = self._size
        return {
            "dtype": "video",
            "shape": [height, width, statistics.COLOURS],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": CODEC_NAME,
                "video.pix_fmt": PIXELS,
                "video.is_depth_map": False,
                "video.fps": HZ,
                "video.channels": statistics.COLOURS,
                "has_audio": False,
            },
        }
