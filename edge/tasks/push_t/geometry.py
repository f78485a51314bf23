"""The T block: its shape, where its frame sits, and how much of one T covers another.

The shape is that of gym-pusht at one millimetre a pixel: a bar of 120 x 30 mm and a stem of 30 x 90 mm, 30 mm high.
The frame's origin is the centroid of the area, the stem runs along +y. Success there is coverage above 0.95.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from policies.interface import Array

BAR_M = (0.120, 0.030)
STEM_M = (0.030, 0.090)
HEIGHT_M = 0.030
AREA_M2 = BAR_M[0] * BAR_M[1] + STEM_M[0] * STEM_M[1]
# The centroid's distance from the outer edge of the bar, 40.7 mm.
CENTROID_M = (BAR_M[0] * BAR_M[1] * BAR_M[1] / 2 + STEM_M[0] * STEM_M[1] * (BAR_M[1] + STEM_M[1] / 2)) / AREA_M2
GRID = 400  # cells a side of the square around the T, 0.3 mm each

Pose = tuple[float, float, float]  # x_m, y_m, yaw_rad


def boxes_m() -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return (centre y, half width, half depth) of bar and stem in the T's frame."""
    bar = (BAR_M[1] / 2 - CENTROID_M, BAR_M[0] / 2, BAR_M[1] / 2)
    stem = (BAR_M[1] + STEM_M[1] / 2 - CENTROID_M, STEM_M[0] / 2, STEM_M[1] / 2)
    return bar, stem


def outline_m() -> Array:
    """Return the eight corners (8, 2) of the T in its own frame, counter-clockwise."""
    half_bar, half_stem = BAR_M[0] / 2, STEM_M[0] / 2
    bottom, shoulder, top = -CENTROID_M, BAR_M[1] - CENTROID_M, BAR_M[1] + STEM_M[1] - CENTROID_M
    return np.array(
        [
            [-half_bar, bottom],
            [half_bar, bottom],
            [half_bar, shoulder],
            [half_stem, shoulder],
            [half_stem, top],
            [-half_stem, top],
            [-half_stem, shoulder],
            [-half_bar, shoulder],
        ]
    )


@njit(cache=True)
def _covered(dx: float, dy: float, yaw: float, boxes: Array, corner: Array, cell: float, cells: int) -> float:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    wanted = 0
    covered = 0
    for i in range(cells):
        for j in range(cells):
            x, y = corner[0] + (i + 0.5) * cell, corner[1] + (j + 0.5) * cell
            u = cosine * (x - dx) + sine * (y - dy)
            v = -sine * (x - dx) + cosine * (y - dy)
            inside = False
            under = False
            for b in range(2):
                inside |= abs(x) <= boxes[b, 1] and abs(y - boxes[b, 0]) <= boxes[b, 2]
                under |= abs(u) <= boxes[b, 1] and abs(v - boxes[b, 0]) <= boxes[b, 2]
            wanted += inside
            covered += inside and under
    return covered / wanted


def coverage(block: Pose, goal: Pose) -> float:
    """Return the share of the goal's area that the block covers, [0, 1].

    Counted on a grid of 0.3 mm, exact to about 0.001.
    """
    dx, dy = block[0] - goal[0], block[1] - goal[1]
    cosine, sine = np.cos(goal[2]), np.sin(goal[2])
    corner = np.array([-BAR_M[0] / 2, -CENTROID_M])
    along, across = cosine * dx + sine * dy, -sine * dx + cosine * dy
    return float(_covered(along, across, block[2] - goal[2], np.array(boxes_m()), corner, BAR_M[0] / GRID, GRID))


def wrap(angle_rad: float) -> float:
    """Return the angle in (-pi, pi]."""
    return float(np.pi - (np.pi - angle_rad) % (2 * np.pi))
