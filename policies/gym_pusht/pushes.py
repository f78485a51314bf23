"""Pushes: where one begins, which way it goes, and what it did to the T when it was made before.

A move is a place on the T's perimeter and an angle off the inward normal there. Its outcome is one flat list of
numbers, four for each moment: the tool's way, then the T's motion in its own frame by then, dx, dy and dyaw; metres
and radians.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.interface import Array

from .tee import TOOL_RADIUS_M, distance_m, error_m, moved, on_perimeter, turned

STANDOFF_M, FURTHEST_OFF_M = 0.008, 0.060  # between tool and T where a push begins
GAP_M = 0.005
PASSES_M = 0.12
SECOND_M = 0.002  # what a second push must be better by, or nothing is ever finished
Indices = NDArray[np.intp]
WAYS_M = np.arange(0.010, 0.121, 0.0015)  # lengths of a push that are considered
MIRROR = np.array([-1.0, 1.0, -1.0])


@dataclass(frozen=True)
class Line:
    """A push in the T's frame."""

    start_m: Array  # (2,) tool's centre
    direction: Array  # (2,) unit


@dataclass(frozen=True)
class Library:
    """What pushes did."""

    lines: tuple[Line, ...]
    ways_m: Array  # (n,) length of each
    owner: Indices  # (n,) which line
    motions: Array  # (n, 3) of the T


def line_of(place: float, angle_rad: float) -> Line | None:
    """Return the push at a place, None where the tool has no room to begin it."""
    point, inward = on_perimeter(place)
    direction = turned(inward, angle_rad)
    touch = point - inward * TOOL_RADIUS_M
    for off_m in np.arange(STANDOFF_M, FURTHEST_OFF_M, 0.004):
        start = touch - direction * off_m
        if distance_m(start[None])[0] >= TOOL_RADIUS_M + GAP_M:
            return Line(start, direction)
    return None


def touch_m(line: Line) -> float:
    """Return how far along a push the tool meets the T, infinity where it passes it."""
    ways = np.arange(0.0, PASSES_M, 0.0005)
    meets = distance_m(line.start_m + ways[:, None] * line.direction) <= TOOL_RADIUS_M
    return float(ways[int(meets.argmax())]) if meets.any() else np.inf


def read_rows(path: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a learned file, none where there is no file."""
    rows = json.loads(path.read_text()) if path.exists() else []
    return [row for row in rows if row["outcome"]]


def library_of(rows: Sequence[Mapping[str, Any]], mirrored: bool) -> Library | None:
    """Return what rows of moves and outcomes teach, None where they teach nothing; `mirrored` counts each twice."""
    lines: list[Line] = []
    ways, owner, motions = [], [], []
    for row in rows:
        line = line_of(float(row["move"]["place"]), float(row["move"]["angle_rad"]))
        if line is None:
            continue
        outcome = np.asarray(row["outcome"], dtype=np.float64).reshape(-1, 4)
        # Until the tool touches it the T stays: without this line that place would be guessed between two moments.
        before = [touch for touch in (touch_m(line),) if not outcome.size or touch < outcome[-1, 0]]
        outcome = np.vstack([np.zeros(4), *([touch, 0.0, 0.0, 0.0] for touch in before),
                             outcome[outcome[:, 0] > max(before, default=0.0)]])  # fmt: skip
        asked = WAYS_M[outcome[-1, 0] >= WAYS_M]
        motion = np.stack([np.interp(asked, outcome[:, 0], outcome[:, column]) for column in (1, 2, 3)], axis=1)
        some = np.abs(motion).sum(axis=1) > 1e-4  # before it touches, a push does nothing
        for sign in (1.0, -1.0) if mirrored else (1.0,):
            side = np.array([sign, 1.0])
            lines.append(Line(line.start_m * side, line.direction * side))
            ways.append(asked[some])
            owner.append(np.full(int(some.sum()), len(lines) - 1))
            motions.append(motion[some] * (1.0 if sign > 0 else MIRROR))
    if not lines:
        return None
    return Library(tuple(lines), np.concatenate(ways), np.concatenate(owner), np.concatenate(motions))


def ranked(library: Library, pose: Array, ahead: int) -> Indices:
    """Return the indices of pushes, the one whose end is nearest to the goal first.

    With `ahead` above 0 the best so many are ranked anew by how near one more push after them would come.
    """
    ends = moved(pose, library.motions)
    order = np.argsort(error_m(ends), kind="stable")
    if not ahead:
        return order
    best = np.append(order[:1], _every_third(library, order)[:ahead])
    after = error_m(moved(ends[best][:, None, :], library.motions[None]))
    reached = np.minimum(after.min(axis=1) + SECOND_M, error_m(ends[best]))
    return np.concatenate([best[np.argsort(reached, kind="stable")], order])


def _every_third(library: Library, order: Indices) -> Indices:
    """Return the order with every third length of a line only, so that looking ahead sees many lines."""
    return np.asarray(order[(np.arange(len(library.ways_m))[order] % 3) == 0])
