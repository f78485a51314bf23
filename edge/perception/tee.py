"""Finds the T block in the top picture: colour, then moments, then a fit of its visible outline to a tenth of a pixel.

1. How blue each pixel is, as a share of its brightness, so that shaded walls count like the lit top.
2. Moments of the blue area give position and yaw: a T's stem axis is its long axis, its skewness says which way round.
3. Along each visible edge of the extruded T the blue border is searched on short normals; Gauss-Newton moves the pose.

It abstains rather than guesses: when the area is wrong (something hides the T), when too few borders are found, or when
they do not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from calibration.records import CameraCalibration
from edge.perception.outline import normal_equations
from edge.tasks.push_t.geometry import AREA_M2, HEIGHT_M, outline_m
from policies.interface import Array, SceneObject

Image = NDArray[np.uint8]
BLUE_SHARE = 0.5  # of the three channels' sum: halfway between the T (0.67) and anything grey (0.33)
SAMPLES_PER_EDGE = 24
AREA_TOLERANCE = 0.15  # a finger over the T already hides more
MINIMUM_BORDERS = 0.8  # share of the outline's samples that must find a border
MAXIMUM_RESIDUAL_PX = 0.6
SMALLEST_BLOB_PX = 300
BLOB_SIGMAS = (0.02, 0.3)  # metres and radians: enough to push it over, not to judge it
SEARCH_PX = (14.0, 6.0, 3.0, 2.0, 2.0)  # how far along the normals each round looks


@dataclass(frozen=True)
class TeeFit:
    """Where the T stands, or why the picture does not say."""

    found: bool
    x_m: float = 0.0
    y_m: float = 0.0
    yaw_rad: float = 0.0
    residual_px: float = 0.0
    sigma_m: float = 0.0
    sigma_rad: float = 0.0
    why_not: str = ""

    @property
    def pose(self) -> tuple[float, float, float]:
        """(x_m, y_m, yaw_rad)."""
        return (self.x_m, self.y_m, self.yaw_rad)


@njit(cache=True)
def _blue_share(image, share):  # type: ignore[no-untyped-def]
    for v in range(share.shape[0]):
        for u in range(share.shape[1]):
            total = float(image[v, u, 0]) + float(image[v, u, 1]) + float(image[v, u, 2])
            # The constant keeps black pixels from having a colour.
            share[v, u] = image[v, u, 2] / (total + 12.0)


def see_tee(image: Image, camera: CameraCalibration) -> tuple[SceneObject, ...]:
    """Return what one picture shows: the T, or else something of its colour that is not one lying flat."""
    fit = find_tee(image, camera)
    if fit.found:
        return (SceneObject("tee", fit.x_m, fit.y_m, fit.yaw_rad, fit.sigma_m, fit.sigma_rad),)
    blob = find_blob(image, camera)
    if blob is None:
        return ()
    return (SceneObject("blue thing", blob.x_m, blob.y_m, blob.yaw_rad, *BLOB_SIGMAS),)


def find_tee(image: Image, camera: CameraCalibration) -> TeeFit:
    """Return where the T stands on the table, from one picture (height, width, 3) in red, green, blue."""
    share = np.empty(image.shape[:2], dtype=np.float32)
    _blue_share(image, share)
    share = np.asarray(cv2.blur(share, (3, 3)))
    guess, why_not = _guess(share, camera)
    if guess is None:
        return TeeFit(found=False, why_not=why_not)
    return _fit(share, guess, camera)


@dataclass(frozen=True)
class Blob:
    """Something of the T's colour that is not a T lying flat: where it is and along which line it extends."""

    x_m: float
    y_m: float
    yaw_rad: float


def find_blob(image: Image, camera: CameraCalibration) -> Blob | None:
    """Return the blue thing in the picture, as if it lay on the table; None where there is hardly any blue."""
    share = np.empty(image.shape[:2], dtype=np.float32)
    _blue_share(image, share)
    moments = cv2.moments((np.asarray(cv2.blur(share, (3, 3))) > BLUE_SHARE).astype(np.uint8), binaryImage=True)
    if moments["m00"] < SMALLEST_BLOB_PX:
        return None
    u, v = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    axis = 0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    here = camera.ray_to_plane((u, v), HEIGHT_M)
    ahead = camera.ray_to_plane((u + 20 * np.cos(axis), v + 20 * np.sin(axis)), HEIGHT_M)
    return Blob(float(here[0]), float(here[1]), float(np.arctan2(ahead[1] - here[1], ahead[0] - here[0])))


def _guess(share: NDArray[np.float32], camera: CameraCalibration) -> tuple[Array | None, str]:
    """Return the pose that the moments of the blue area suggest, or why they suggest none."""
    mask = (share > BLUE_SHARE).astype(np.uint8)
    moments = cv2.moments(mask, binaryImage=True)
    area_px = moments["m00"]
    distance_m = camera.base_from_camera_position_m[2] - HEIGHT_M
    expected_px = AREA_M2 * (camera.focal_px / distance_m) ** 2
    # The walls add to the top face's area, up to a quarter far off the picture's centre.
    if not expected_px * (1 - AREA_TOLERANCE) <= area_px <= expected_px * (1.3 + AREA_TOLERANCE):
        return None, f"blue area is {area_px:.0f} px, a T in full view has about {expected_px:.0f}"
    u, v = moments["m10"] / area_px, moments["m01"] / area_px
    axis = 0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])
    cosine, sine = np.cos(axis), np.sin(axis)
    skew = (
        moments["mu30"] * cosine**3
        + 3 * moments["mu21"] * cosine**2 * sine
        + 3 * moments["mu12"] * cosine * sine**2
        + moments["mu03"] * sine**3
    )
    if skew < 0:  # the stem is the tail
        cosine, sine = -cosine, -sine
    here = camera.ray_to_plane((u, v), HEIGHT_M)
    ahead = camera.ray_to_plane((u + 20 * cosine, v + 20 * sine), HEIGHT_M)
    yaw = np.arctan2(ahead[1] - here[1], ahead[0] - here[0]) - np.pi / 2
    return np.array([here[0], here[1], yaw]), ""


def _fit(share: NDArray[np.float32], pose: Array, camera: CameraCalibration) -> TeeFit:
    seen = (
        np.ascontiguousarray(camera.base_from_camera_rotation),
        camera.base_from_camera_position_m,
        camera.focal_px,
        np.asarray(camera.centre_px),
    )
    matrix, vector = np.zeros((3, 3)), np.zeros(3)
    outline = outline_m()
    asked, found, squares = 1, 0, 0.0
    for reach_px in SEARCH_PX:
        asked, found, squares = normal_equations(
            share, pose, outline, (HEIGHT_M, 0.0), seen, SAMPLES_PER_EDGE, reach_px, BLUE_SHARE, matrix, vector
        )
        if found < 12:
            return TeeFit(found=False, why_not="no border of a T where the colour suggests one")
        pose = pose + np.linalg.solve(matrix + 1e-9 * np.eye(3), vector)
    residual_px = float(np.sqrt(squares / found))
    if found < MINIMUM_BORDERS * asked:
        return TeeFit(found=False, why_not=f"only {found} of {asked} border samples found: something hides the T")
    if residual_px > MAXIMUM_RESIDUAL_PX:
        return TeeFit(
            found=False, why_not=f"the outline misses by {residual_px:.2f} px, more than {MAXIMUM_RESIDUAL_PX}"
        )
    # Neighbouring samples share pixels; every third counts as independent.
    covariance = np.linalg.inv(matrix) * residual_px**2 * 3
    yaw = float((pose[2] + np.pi) % (2 * np.pi) - np.pi)
    return TeeFit(
        found=True,
        x_m=float(pose[0]),
        y_m=float(pose[1]),
        yaw_rad=yaw,
        residual_px=residual_px,
        sigma_m=float(np.sqrt(max(covariance[0, 0], covariance[1, 1]))),
        sigma_rad=float(np.sqrt(covariance[2, 2])),
    )
