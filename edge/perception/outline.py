"""Fits a flat outline to the border of a coloured area, to a tenth of a pixel.

Along each edge of the outline the border is searched on short normals; the caller moves the pose by Gauss-Newton. The
outline may be extruded: then the visible silhouette is the outer one of its two faces at each edge.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _at(share, u, v):  # type: ignore[no-untyped-def]
    """Return the share between four pixels, -1 outside the picture."""
    iu, iv = int(np.floor(u)), int(np.floor(v))
    if iu < 0 or iv < 0 or iu >= share.shape[1] - 1 or iv >= share.shape[0] - 1:
        return -1.0
    fu, fv = u - iu, v - iv
    upper = share[iv, iu] * (1.0 - fu) + share[iv, iu + 1] * fu
    lower = share[iv + 1, iu] * (1.0 - fu) + share[iv + 1, iu + 1] * fu
    return upper * (1.0 - fv) + lower * fv


@njit(cache=True)
def _pixel(pose, x, y, z, rotation, position, focal, centre):  # type: ignore[no-untyped-def]
    """Return the pixel of a point (x, y, z) of the T's frame."""
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    dx = pose[0] + cosine * x - sine * y - position[0]
    dy = pose[1] + sine * x + cosine * y - position[1]
    dz = z - position[2]
    forward = rotation[0, 2] * dx + rotation[1, 2] * dy + rotation[2, 2] * dz
    u = focal * (rotation[0, 0] * dx + rotation[1, 0] * dy + rotation[2, 0] * dz) / forward + centre[0]
    v = focal * (rotation[0, 1] * dx + rotation[1, 1] * dy + rotation[2, 1] * dz) / forward + centre[1]
    return u, v


@njit(cache=True)
def _border(share, u, v, nu, nv, reach, level):  # type: ignore[no-untyped-def]
    """Return how far along the normal the blue ends, nearest crossing first; 1e9 where it does not."""
    step = 0.5
    best = 1e9
    before = _at(share, u - nu * reach, v - nv * reach)
    for k in range(1, int(2 * reach / step) + 1):
        at = -reach + k * step
        here = _at(share, u + nu * at, v + nv * at)
        if before >= level and 0.0 <= here < level:
            cross = at - step * (level - here) / (before - here)
            if abs(cross) < abs(best):
                best = cross
        before = here
    return best


@njit(cache=True)
def normal_equations(share, pose, outline, heights, camera, samples, reach, level, matrix, vector):  # type: ignore[no-untyped-def]
    """Search all borders around `pose`; fill J'J (3, 3) and J'r (3,). Returns (asked, found, sum of squares).

    `heights` are those of the outline's upper and lower face; the same twice for a flat one.
    """
    height, low = heights
    rotation, position, focal, centre = camera
    matrix[:] = 0.0
    vector[:] = 0.0
    asked, found, squares = 0, 0, 0.0
    jacobian = np.empty(3)
    moved = np.empty(3)
    for edge in range(outline.shape[0]):
        ax, ay = outline[edge]
        bx, by = outline[(edge + 1) % outline.shape[0]]
        ua, va = _pixel(pose, ax, ay, height, rotation, position, focal, centre)
        ub, vb = _pixel(pose, bx, by, height, rotation, position, focal, centre)
        # The outline runs counter-clockwise, so outside is to its right; the picture's y points down.
        nu, nv = -(vb - va), ub - ua
        norm = np.hypot(nu, nv)
        nu, nv = nu / norm, nv / norm
        # The silhouette's edge is the face's whose edge lies further out.
        uc, vc = _pixel(pose, ax, ay, low, rotation, position, focal, centre)
        z = low if (uc - ua) * nu + (vc - va) * nv > 0.0 else height
        for k in range(samples):
            t = 0.12 + 0.76 * k / (samples - 1)  # corners are rounded by the walls behind them
            x, y = ax + (bx - ax) * t, ay + (by - ay) * t
            u, v = _pixel(pose, x, y, z, rotation, position, focal, centre)
            asked += 1
            distance = _border(share, u, v, nu, nv, reach, level)
            if distance > 1e8:
                continue
            found += 1
            squares += distance * distance
            for i in range(3):
                delta = 1e-5
                moved[:] = pose
                moved[i] += delta
                um, vm = _pixel(moved, x, y, z, rotation, position, focal, centre)
                jacobian[i] = ((um - u) * nu + (vm - v) * nv) / delta
            for i in range(3):
                vector[i] += jacobian[i] * distance
                for j in range(3):
                    matrix[i, j] += jacobian[i] * jacobian[j]
    return asked, found, squares
