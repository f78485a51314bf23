"""Finds the socket and the pin in the picture of a camera that looks at them from the side.

1. The socket's face is blue: its outline is fitted as a square that lies at the socket's height.
2. The pin is green: row by row its middle, over its rows its foot, its lean and where the handle begins. What stands
   out of the socket is what the camera sees of it.

It places the foot on the socket's face, where a pin that is in the hole or rests on the socket has it; for one in the
air the foot seems to stand further away. It abstains rather than guesses.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.records import CameraCalibration
from edge.perception.outline import normal_equations
from edge.tasks.pin_insertion.geometry import HANDLE_M, SOCKET_TOP_M, face_m
from policies.interface import Array, SceneObject

Image = NDArray[np.uint8]
Share = NDArray[np.float32]
RED, GREEN, BLUE = 0, 1, 2
HALFWAY = 0.5  # a colour's share of the three: between the coloured thing (0.67, 0.70) and anything grey (0.33)
BLACK = 12.0  # keeps black pixels from having a colour
SAMPLES_PER_EDGE = 24
SEARCH_PX = (14.0, 6.0, 3.0, 2.0, 2.0)  # how far along the normals each round looks
LEAST_FACE, MOST_FACE = 0.4, 1.3  # share of the face's area that may be blue: hand and pin hide some of it
LEAST_BORDERS = 0.55  # share of the outline's samples that must find a border
MOST_RESIDUAL_PX = 0.8
LEAST_PIN_PX = 25  # of its area
NEAR_SOCKET_M = 0.15
UNLIT, LIT = 0.36, 0.62  # green share of a pixel without and full of pin
FOOT_M = 0.0010  # from where the pin's last row is half full to its middle, as measured; its radius is 1.8 mm
SIGMA_PX = 0.15  # of the pin's foot, as measured


@dataclass(frozen=True)
class PinSight:
    """What the picture shows of the pin, in pixels."""

    foot_px: tuple[float, float]
    top_px: tuple[float, float]

    @property
    def lean_rad(self) -> float:
        """The pin's lean in the picture, positive to the right."""
        return float(np.arctan2(self.top_px[0] - self.foot_px[0], self.foot_px[1] - self.top_px[1]))


def see_pin(image: Image, camera: CameraCalibration) -> tuple[SceneObject, ...]:
    """Return what one picture (height, width, 3) in red, green, blue shows: socket, pin and handle, where found.

    The pin is where its foot is; the handle is where it begins, at the height `z_m` straight above that.
    """
    objects: list[SceneObject] = []
    socket = find_socket(image, camera)
    if socket is not None:
        objects.append(socket)
    sight = find_pin(image)
    if sight is not None:
        objects += _placed(sight, camera)
    return tuple(objects)


def find_socket(image: Image, camera: CameraCalibration) -> SceneObject | None:
    """Return where the middle of the socket's face is, None where the picture does not show it well."""
    share = _share(image, BLUE)
    moments = cv2.moments((share > HALFWAY).astype(np.uint8), binaryImage=True)
    if moments["m00"] < 1:
        return None
    u, v = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    pose = np.array([*camera.ray_to_plane((u, v), SOCKET_TOP_M)[:2], 0.0])
    if not LEAST_FACE <= moments["m00"] / _face_px(pose, camera) <= MOST_FACE:
        return None
    seen = (
        np.ascontiguousarray(camera.base_from_camera_rotation),
        camera.base_from_camera_position_m,
        camera.focal_px,
        np.asarray(camera.centre_px),
    )
    matrix, vector, heights = np.zeros((3, 3)), np.zeros(3), (SOCKET_TOP_M, SOCKET_TOP_M)
    asked, found, squares = 1, 0, 0.0
    for reach_px in SEARCH_PX:
        asked, found, squares = normal_equations(
            share, pose, face_m(), heights, seen, SAMPLES_PER_EDGE, reach_px, HALFWAY, matrix, vector
        )
        if found < 12:
            return None
        pose = pose + np.linalg.solve(matrix + 1e-9 * np.eye(3), vector)
    residual_px = float(np.sqrt(squares / found))
    if not (found >= LEAST_BORDERS * asked and residual_px <= MOST_RESIDUAL_PX):
        return None
    covariance = np.linalg.inv(matrix) * residual_px**2 * 3  # neighbouring samples share pixels
    x, y, yaw = (float(value) for value in pose)
    sigma_m = float(np.sqrt(max(covariance[0, 0], covariance[1, 1])))
    return SceneObject("socket", x, y, yaw, sigma_m, float(np.sqrt(covariance[2, 2])), SOCKET_TOP_M)


def _face_px(pose: Array, camera: CameraCalibration) -> float:
    """Return how many pixels the socket's face has at a pose, by Gauss's area formula."""
    corners = np.column_stack([face_m() + pose[:2], np.full(4, SOCKET_TOP_M)])
    u, v = camera.project(corners).T
    return max(1.0, 0.5 * abs(float(u @ np.roll(v, -1) - v @ np.roll(u, -1))))


def find_pin(image: Image) -> PinSight | None:
    """Return the green pin in the picture, None where there is too little of it."""
    share = _share(image, GREEN)
    count, _, stats, _ = cv2.connectedComponentsWithStats((share > HALFWAY).astype(np.uint8))
    if count < 2:
        return None
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    left, top, width, height, area = (int(value) for value in stats[largest])
    if area < LEAST_PIN_PX:
        return None
    rows = slice(max(0, top - 4), min(share.shape[0], top + height + 4))
    columns = slice(max(0, left - 4), min(share.shape[1], left + width + 4))
    cover = np.clip((share[rows, columns] - UNLIT) / (LIT - UNLIT), 0.0, 1.0).astype(np.float64)
    widths = cover.sum(axis=1)
    full = float(np.median(widths[widths > 0.5 * widths.max()]))
    inside = np.flatnonzero(widths > 0.5 * full)
    if inside.size < 2:
        return None
    first, last = int(inside[0]), int(inside[-1])
    upper, lower = _crossing(widths, first, -1, 0.5 * full), _crossing(widths, last, 1, 0.5 * full)
    middle = (cover * np.arange(cover.shape[1])).sum(axis=1)[inside] / widths[inside]
    slope, at_zero = np.polyfit(inside, middle, 1) if inside.size > 3 else (0.0, float(middle.mean()))
    foot, head = (at_zero + slope * row for row in (lower, upper))
    return PinSight(
        (columns.start + float(foot), rows.start + lower), (columns.start + float(head), rows.start + upper)
    )


def _crossing(widths: Array, row: int, step: int, level: float) -> float:
    """Return, to a fraction of a row, where the width falls to `level` from `row` on outwards."""
    beyond = row + step
    if not 0 <= beyond < widths.size or widths[row] <= widths[beyond]:
        return row + 0.5 * step
    return float(row + step * (widths[row] - level) / (widths[row] - widths[beyond]))


def _placed(sight: PinSight, camera: CameraCalibration) -> tuple[SceneObject, ...]:
    """Return pin and handle in the base frame, none where the pin's foot would be nowhere near a socket."""
    eye_m = camera.base_from_camera_position_m
    front_m = camera.ray_to_plane(sight.foot_px, SOCKET_TOP_M)
    away = front_m[:2] - eye_m[:2]
    distance_m = float(np.linalg.norm(away))
    if not (0.0 < distance_m < 2.0 and front_m[2] < eye_m[2]):
        return ()
    foot_m = front_m[:2] + away / distance_m * FOOT_M
    # The handle begins where its lower front edge hides the pin.
    top_m = _at_distance(sight.top_px, camera, distance_m + FOOT_M - HANDLE_M[0] / 2)
    sigma_m = SIGMA_PX * distance_m / camera.focal_px
    lean_rad = sight.lean_rad
    x, y = float(foot_m[0]), float(foot_m[1])
    return (
        SceneObject("pin", x, y, lean_rad, sigma_m, 0.02, SOCKET_TOP_M),
        SceneObject("handle", x, y, lean_rad, sigma_m, 0.02, float(top_m)),
    )


def _at_distance(pixel: tuple[float, float], camera: CameraCalibration, distance_m: float) -> float:
    """Return at which height the ray of a pixel is, so far from the camera along the ground."""
    eye_m = camera.base_from_camera_position_m
    ray = camera.ray_to_plane(pixel, float(eye_m[2]) - 1.0) - eye_m
    return float(eye_m[2] + ray[2] * distance_m / max(float(np.linalg.norm(ray[:2])), 1e-9))


def _share(image: Image, channel: int) -> Share:
    """Return each pixel's share of one colour, slightly blurred."""
    total = image[..., 0].astype(np.float32)  # a sum along the last axis takes forty times as long
    total += image[..., 1]
    total += image[..., 2]
    share = image[..., channel] / (total + BLACK)
    return np.asarray(cv2.blur(share, (3, 3)), dtype=np.float32)
