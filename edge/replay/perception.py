"""Looks for the T in every recorded picture anew and compares it with where it was seen then.

The pictures are smaller than those that were judged, and compressed: what may differ is a share of their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from calibration.records import CameraCalibration
from edge.perception.tee import Image, TeeFit, find_tee
from edge.replay.recorded import Look, Picture, Recorded, ReplayError
from edge.station import Station
from edge.tasks.push_t.geometry import HEIGHT_M, wrap
from policies.interface import SceneObject

# Of a recorded picture's pixels. Pictures of half size, their colour at a quarter, are off by at most a third of one.
ALLOWED_PX = 0.5
ARM_M = 0.06  # from the T's middle to its ends: so far out the same error turns it
# Of the pictures. Where colour was kept at a quarter, up to 4 of 18 lost a T that had only just passed; none since.
ALLOWED_MISSES = 0.25
TASK = "push_t"
NEAR_NS = 20_000_000  # a picture and a scene that belong together


@dataclass(frozen=True)
class Miss:
    """A picture in which the T was found only then, or only now."""

    at_s: float
    why: str


@dataclass(frozen=True)
class PerceptionReplay:
    """How far the T is now from where it was seen then."""

    pictures: int
    compared: int  # in which the T is found now as then
    largest_mm: float
    median_mm: float
    largest_deg: float
    median_deg: float
    allowed_mm: float
    allowed_deg: float
    only_then: tuple[Miss, ...]
    only_now: tuple[Miss, ...]
    unpaired: int  # pictures beside which no scene was recorded
    same: bool


def replay_perception(station: Station, recorded: Recorded) -> PerceptionReplay | str:
    """Return how today's segmentation sees the recorded pictures, or one line about what the recording lacks.

    Raises:
        ReplayError: a picture cannot be decoded.
    """
    if station.task != TASK:
        return f"its task is {station.task}: only {TASK}'s pictures are looked at anew"
    pairs = _pairs(recorded.pictures, recorded.looks)
    if not pairs:
        return "it holds no pictures with a scene beside them: nothing to segment anew"
    sights = _Sights(unpaired=len(recorded.pictures) - len(pairs))
    for picture, look in pairs:
        image = _decoded(picture)
        camera = _scaled(station.calibration.top_camera, image)
        if camera is None:
            return "its pictures do not have the shape of the calibration's camera: give the station that took them"
        sights.add((look.time_ns - recorded.start_ns) * 1e-9, find_tee(image, camera), _tee(look))
        sights.allowed_m = max(sights.allowed_m, _allowed_m(camera))
    return sights.compared()


@dataclass
class _Sights:
    """What was seen in the pictures so far, then and now."""

    unpaired: int
    allowed_m: float = 0.0
    neither: int = 0
    apart: list[tuple[float, float]] = field(default_factory=list)  # mm, degrees
    only_then: list[Miss] = field(default_factory=list)
    only_now: list[Miss] = field(default_factory=list)

    def add(self, at_s: float, now: TeeFit, then: SceneObject | None) -> None:
        """Take another picture."""
        if now.found and then is not None:
            self.apart.append(_apart(now, then))
        elif then is not None:
            self.only_then.append(Miss(at_s, now.why_not))
        elif now.found:
            self.only_now.append(Miss(at_s, f"found with {now.residual_px:.2f} px left"))
        else:
            self.neither += 1

    def compared(self) -> PerceptionReplay:
        """Return what came of all pictures."""
        mm, deg = np.array(self.apart).reshape(-1, 2).T
        allowed_mm, allowed_deg = self.allowed_m * 1e3, float(np.degrees(self.allowed_m / ARM_M))
        misses = len(self.only_then) + len(self.only_now)
        pictures = len(self.apart) + misses + self.neither
        near = bool((mm <= allowed_mm).all() and (deg <= allowed_deg).all())
        return PerceptionReplay(
            pictures=pictures + self.unpaired,
            compared=len(self.apart),
            largest_mm=float(mm.max(initial=0.0)),
            median_mm=float(np.median(mm)) if self.apart else 0.0,
            largest_deg=float(deg.max(initial=0.0)),
            median_deg=float(np.median(deg)) if self.apart else 0.0,
            allowed_mm=allowed_mm,
            allowed_deg=allowed_deg,
            only_then=tuple(self.only_then),
            only_now=tuple(self.only_now),
            unpaired=self.unpaired,
            same=near and misses <= ALLOWED_MISSES * pictures,
        )


def _tee(look: Look) -> SceneObject | None:
    """Return where the T was seen, None where it was not."""
    tee = look.scene.find("tee")
    return tee if tee is not None and np.isfinite((tee.x_m, tee.y_m, tee.yaw_rad)).all() else None


def _pairs(pictures: Sequence[Picture], looks: Sequence[Look]) -> list[tuple[Picture, Look]]:
    """Return each picture with the scene nearest to it in time; of several at one time each belongs to one picture."""
    free, pairs = list(looks), []
    for picture in pictures:
        nearest = min(free, key=lambda look: abs(look.time_ns - picture.time_ns), default=None)
        if nearest is not None and abs(nearest.time_ns - picture.time_ns) <= NEAR_NS:
            free.remove(nearest)
            pairs.append((picture, nearest))
    return pairs


def _decoded(picture: Picture) -> Image:
    """Return a picture (height, width, 3) in red, green, blue.

    Raises:
        ReplayError: it cannot be decoded.
    """
    try:
        image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ReplayError(f"the picture at {picture.time_ns * 1e-9:.2f} s cannot be decoded: give another recording")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _scaled(camera: CameraCalibration, image: Image) -> CameraCalibration | None:
    """Return the calibration of the camera for a picture of another size, None for one of another shape."""
    height, width = image.shape[:2]
    scale = width / camera.width_px
    if abs(height - camera.height_px * scale) > 1.0:
        return None
    # The middle of the first pixel is at 0, its edge at -0.5.
    u, v = ((value + 0.5) * scale - 0.5 for value in camera.centre_px)
    return replace(camera, width_px=width, height_px=height, focal_px=camera.focal_px * scale, centre_px=(u, v))


def _allowed_m(camera: CameraCalibration) -> float:
    """Return how far apart two sights of the T may be, in pictures of this size."""
    return ALLOWED_PX * float(camera.base_from_camera_position_m[2] - HEIGHT_M) / camera.focal_px


def _apart(fit: TeeFit, then: SceneObject) -> tuple[float, float]:
    """Return (mm, degrees)."""
    distance_m = float(np.hypot(fit.x_m - then.x_m, fit.y_m - then.y_m))
    return distance_m * 1e3, abs(float(np.degrees(wrap(fit.yaw_rad - then.yaw_rad))))
