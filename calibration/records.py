"""Calibration of one bench: where the camera stands, how it projects, where the joints' zeros are.

A record carries its date, its residual and a hash; every trial names the hash, so that a stale or changed calibration
can never hide behind a success rate.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
        CalibrationError: missing, not TOML, a key missing or unknown, a value of the wrong shape, not finite.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CalibrationError(f"no calibration at {path}: run `enpire-edge make-stations` or calibrate") from error
    try:
        raw = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: not TOML: {error}") from error
    wanted = {"day", "residual_px", "top_camera", "joint_zero_rad", "gravity_factor"}
    if set(raw) != wanted:
        raise CalibrationError(f"{path}: unknown or missing keys: {', '.join(sorted(set(raw) ^ wanted))}")
    camera = raw["top_camera"]
    try:
        return Calibration(
            day=raw["day"],
            residual_px=float(raw["residual_px"]),
            top_camera=CameraCalibration(
                width_px=int(camera["width_px"]),
                height_px=int(camera["height_px"]),
                focal_px=float(camera["focal_px"]),
                centre_px=(float(camera["centre_px"][0]), float(camera["centre_px"][1])),
                base_from_camera_rotation=_array(camera["base_from_camera_rotation"], (3, 3), "rotation"),
                base_from_camera_position_m=_array(camera["base_from_camera_position_m"], (3,), "position"),
            ),
            joint_zero_rad=_array(raw["joint_zero_rad"], (6,), "joint_zero_rad"),
            gravity_factor=_array(raw["gravity_factor"], (6,), "gravity_factor"),
            sha256=hashlib.sha256(text).hexdigest(),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CalibrationError(f"{path}: {error}") from error


def _array(value: object, shape: tuple[int, ...], name: str) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be {shape} finite numbers")
    return array
