"""Calibration of one bench: where the camera stands, how it projects, where the joints' zeros are.

A record carries its date, its residual and a hash; every trial names the hash, so that a stale or changed calibration
can never hide behind a success rate.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST = sys.float_info.max  # TOML allows infinity, and whole numbers of any length
ROTATION_SLACK = 1e-3  # of a matrix written by hand with four digits
GRAVITY_FACTORS = (0.5, 1.6)  # of the model's; the maker's are 1.0 to 1.2
KEYS = {"day", "residual_px", "top_camera", "joint_zero_rad", "gravity_factor"}
CAMERA_KEYS = {
    "width_px",
    "height_px",
    "focal_px",
    "centre_px",
    "base_from_camera_rotation",
    "base_from_camera_position_m",
}


class CalibrationError(Exception):
    """A calibration that cannot be used; says why and what to do."""


@dataclass(frozen=True)
class CameraCalibration:
    """A pinhole camera without distortion, fixed in the base frame (x right, y down, z forward in the camera frame)."""

    width_px: int
    height_px: int
    focal_px: float
    centre_px: tuple[float, float]
    base_from_camera_rotation: Array  # (3, 3)
    base_from_camera_position_m: Array  # (3,)

    def project(self, points_m: Array) -> Array:
        """Return the pixels (n, 2) of points (n, 3) in the base frame."""
        in_camera = (points_m - self.base_from_camera_position_m) @ self.base_from_camera_rotation
        return np.asarray(self.focal_px * in_camera[:, :2] / in_camera[:, 2:] + np.asarray(self.centre_px))

    def ray_to_plane(self, pixel: tuple[float, float], z_m: float) -> Array:
        """Return where the ray of a pixel meets the horizontal plane at `z_m`, (3,) in the base frame."""
        in_camera = np.array([(pixel[i] - self.centre_px[i]) / self.focal_px for i in (0, 1)] + [1.0])
        ray = self.base_from_camera_rotation @ in_camera
        scale = (z_m - self.base_from_camera_position_m[2]) / ray[2]
        return np.asarray(self.base_from_camera_position_m + scale * ray)


@dataclass(frozen=True)
class Calibration:
    """All that was measured on one bench."""

    day: date
    residual_px: float
    top_camera: CameraCalibration
    joint_zero_rad: Array  # (6,) subtracted from what the encoders say
    gravity_factor: Array  # (6,)
    sha256: str


def load_calibration(path: Path) -> Calibration:
    """Return the calibration in a TOML file.

    Raises:
        CalibrationError: missing, not TOML, a key missing or unknown, a value of the wrong type or shape, not finite,
            or one that cannot be, such as a negative focal length or a rotation that is none.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"no calibration at {path}: run `enpire-edge make-stations` or calibrate") from error
    try:
        raw = tomllib.loads(text.decode())
    except ValueError as error:  # not TOML, not UTF-8, or a whole number of thousands of digits
        raise CalibrationError(f"{path}: not TOML: {error}") from error
    try:
        return _calibration(raw, hashlib.sha256(text).hexdigest())
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}; correct the file or calibrate again") from error


def _calibration(raw: dict[str, Any], sha256: str) -> Calibration:
    _check_keys(raw, "", KEYS)
    if type(raw["day"]) is not date:  # a datetime is one too, by inheritance
        raise CalibrationError(f"day is {raw['day']!s:.80}, wants a date such as 2026-11-01")
    gravity_factor = _array(raw["gravity_factor"], "gravity_factor", (6,))
    low, high = GRAVITY_FACTORS
    if not ((gravity_factor >= low) & (gravity_factor <= high)).all():  # a damped arm is fed this much, whatever it is
        raise CalibrationError(f"gravity_factor is {gravity_factor.tolist()}, wants numbers from {low} to {high}")
    return Calibration(
        day=raw["day"],
        residual_px=_pixels(raw["residual_px"], "residual_px", positive=False),
        top_camera=_camera(raw["top_camera"]),
        joint_zero_rad=_array(raw["joint_zero_rad"], "joint_zero_rad", (6,)),
        gravity_factor=gravity_factor,
        sha256=sha256,
    )


def _camera(raw: object) -> CameraCalibration:
    if not isinstance(raw, dict):
        raise CalibrationError(f"top_camera is a {type(raw).__name__}, wants one table")
    _check_keys(raw, "top_camera.", CAMERA_KEYS)
    centre = _array(raw["centre_px"], "top_camera.centre_px", (2,))
    return CameraCalibration(
        width_px=_count(raw["width_px"], "top_camera.width_px"),
        height_px=_count(raw["height_px"], "top_camera.height_px"),
        focal_px=_pixels(raw["focal_px"], "top_camera.focal_px", positive=True),
        centre_px=(float(centre[0]), float(centre[1])),
        base_from_camera_rotation=_rotation(raw["base_from_camera_rotation"], "top_camera.base_from_camera_rotation"),
        base_from_camera_position_m=_array(
            raw["base_from_camera_position_m"], "top_camera.base_from_camera_position_m", (3,)
        ),
    )


def _check_keys(raw: dict[str, Any], prefix: str, wanted: set[str]) -> None:
    if wrong := sorted(set(raw) ^ wanted):
        raise CalibrationError(f"unknown or missing keys: {', '.join(prefix + key for key in wrong)}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _pixels(value: Any, key: str, positive: bool) -> float:
    if not (_is_finite(value) and (value > 0 if positive else value >= 0)):
        rule = "positive" if positive else "zero or positive"
        raise CalibrationError(f"{key} is {value!r:.80}, wants a {rule} number of pixels")
    return float(value)


def _count(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not value > 0:
        raise CalibrationError(f"{key} is {value!r:.80}, wants a positive whole number of pixels")
    return value


def _array(value: object, key: str, shape: tuple[int, ...]) -> Array:
    if not _fits(value, shape):
        raise CalibrationError(f"{key} is {value!r:.80}, wants {' x '.join(map(str, shape))} finite numbers")
    return np.array(value, dtype=np.float64)


def _fits(value: object, shape: tuple[int, ...]) -> bool:
    """Return whether lists of lists hold numbers in that shape; numpy would also take text and booleans for numbers."""
    if not shape:
        return _is_finite(value)
    return isinstance(value, list) and len(value) == shape[0] and all(_fits(part, shape[1:]) for part in value)


def _rotation(value: object, key: str) -> Array:
    matrix = _array(value, key, (3, 3))
    with np.errstate(over="ignore", invalid="ignore"):  # of absurd numbers, which are then refused
        orthonormal = (np.abs(matrix.T @ matrix - np.eye(3)) <= ROTATION_SLACK).all()
    if not (orthonormal and np.linalg.det(matrix) > 0):
        raise CalibrationError(f"{key} is not a rotation: wants columns of length 1, at right angles, right-handed")
    return matrix
