"""Ways round the T that do not touch it: shortest paths over points beside its corners.

Everything is in the T's frame but for the walls, which are where the T's pose puts them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.interface import Array

from .tee import EDGES_M, HIGH_M, LENGTHS_M, LOW_M, OUTLINE_M, TOOL_RADIUS_M, distance_m, to_world

BESIDE_M = 0.012  # between tool and corner on the way round it
CLOSEST_M = 0.004  # between tool and T on the way
SAMPLE_M = 0.006


def _corners() -> Array:
    """Return where the way may bend, (n, 2): three points round each corner that sticks out."""
    inward = np.stack([-EDGES_M[:, 1], EDGES_M[:, 0]], axis=1) / LENGTHS_M[:, None]
    found = []
    for corner, before, after in zip(OUTLINE_M, np.roll(inward, 1, axis=0), inward, strict=True):
        turn = before[0] * after[1] - before[1] * after[0]
        if turn > 0.0:  # it sticks out
            for direction in (before, before + after, after):
                found.append(corner - direction / np.hypot(*direction) * (TOOL_RADIUS_M + BESIDE_M))
    return np.array(found)


def clear(a: Array, b: Array, closest_m: float = CLOSEST_M) -> bool:
    """Return whether the tool passes the T on the straight way from a to b; where an end is nearer, that will do."""
    count = max(2, int(np.hypot(*(b - a)) / SAMPLE_M) + 2)
    gaps = distance_m(a + np.linspace(0.0, 1.0, count)[:, None] * (b - a)) - TOOL_RADIUS_M
    return bool(gaps.min() >= min(closest_m, gaps[0] - 1e-4, gaps[-1] - 1e-4))


BENDS_M = _corners()
SEEN = np.array([[clear(a, b) for b in BENDS_M] for a in BENDS_M])
GAPS_M = np.where(SEEN, np.hypot(*(BENDS_M[:, None] - BENDS_M[None]).transpose(2, 0, 1)), np.inf)


def way(pose: Array, start: Array, end: Array) -> list[Array] | None:
    """Return the points (2,) of the T's frame from `start` to `end`, the first left out; None where there is no way."""
    if clear(start, end):
        return [end]
    at = to_world(pose, BENDS_M)
    usable = np.asarray(((at >= LOW_M) & (at <= HIGH_M)).all(axis=1))
    left = _straight_m(end, usable)
    after = np.full(len(BENDS_M), -1)
    for _ in range(len(BENDS_M)):  # Bellman and Ford
        through = GAPS_M + left[None]
        best = through.argmin(axis=1)
        shorter = through[np.arange(len(best)), best]
        better = usable & (shorter < left - 1e-9)
        if not better.any():
            break
        left = np.where(better, shorter, left)
        after = np.where(better, best, after)
    first = _straight_m(start, usable) + left
    node = int(first.argmin())
    if not np.isfinite(first[node]):
        return None
    points = []
    while node >= 0:
        points.append(BENDS_M[node])
        node = int(after[node])
    return [*points, end]


def _straight_m(place: Array, usable: NDArray[np.bool_]) -> Array:
    """Return how far (bends,) each bend is from a place, infinity where the straight way is not clear."""
    sees = [bool(free) and clear(place, bend) for bend, free in zip(BENDS_M, usable.tolist(), strict=True)]
    return np.where(sees, np.hypot(*(BENDS_M - place).T), np.inf)
