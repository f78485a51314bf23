"""Finds the starts of a task among the numbers of a proposal: a policy that knows its exam has learned nothing.

A list of starts is hundreds of rows of three numbers with four decimals. A policy's own numbers meet one of them by
chance now and then, three of one row in its order hardly ever. So it is a copy when:

- one row stands there exactly, its numbers in order and close together;
- or three rows do, their numbers close together in any order;
- or two rows do, in order, rounded to a five hundredth of what the lists range over.

Numbers are looked for in metres, millimetres and ten thousandths, the last one of a row in degrees too, and in texts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from policies.interface import Array

Flags = NDArray[np.bool_]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
EXACT = 0.6e-4  # the lists have four decimals
ROUGH = 2e-3  # of the range
SPAN = 8  # numbers that are close together
PIECE = 2000  # numbers at a time
SCALES = (1.0, 1e-3, 1e-4)


def copied(files: Mapping[str, bytes], base: Mapping[str, bytes], starts: Array) -> str | None:
    """Return the name of the first file that holds starts which `base` does not hold; None where none does.

    Args:
        starts: (rows, coordinates) of all splits, angles last and in radians.
    """
    if not starts.size:
        return None
    for name in sorted(files):
        if _holds(_numbers(name, files[name]), starts) and not (
            name in base and _holds(_numbers(name, base[name]), starts)
        ):
            return name
    return None


def _holds(found: Sequence[float], starts: Array) -> bool:
    if len(found) < starts.shape[1]:
        return False
    numbers = np.array(found)
    exactly, loosely, roughly = set[int](), set[int](), set[int]()
    rough = np.maximum(np.ptp(starts, axis=0) * ROUGH, EXACT)
    for first in range(0, len(numbers), PIECE - SPAN):
        piece = numbers[first : first + PIECE]
        for scales in _scales(starts.shape[1]):
            near = [np.abs(piece[None] * scale - starts[:, i, None]) for i, scale in enumerate(scales)]
            exact = [distance <= EXACT for distance in near]
            exactly |= _rows(_in_order(exact))
            loosely |= _rows(_together(exact))
            roughly |= _rows(_in_order([distance <= rough[i] for i, distance in enumerate(near)]))
    return len(exactly) >= 1 or len(loosely) >= 3 or len(roughly) >= 2


def _scales(coordinates: int) -> Iterator[Sequence[float]]:
    for scale in SCALES:
        yield (scale,) * coordinates
        yield (*(scale,) * (coordinates - 1), np.pi / 180)


def _in_order(matches: Sequence[Flags]) -> Flags:
    """Return (rows,): is there a place where a row's numbers follow each other with at most one between two."""
    ends = matches[0]
    for match in matches[1:]:
        ends = match & (_later(ends, 1) | _later(ends, 2))
    return np.asarray(ends.any(axis=1))


def _together(matches: Sequence[Flags]) -> Flags:
    """Return (rows,): are a row's numbers within SPAN numbers, in any order."""
    within = np.ones_like(matches[0])
    for match in matches:
        within &= np.any([_later(match, by) for by in range(SPAN)], axis=0)
    return np.asarray(within.any(axis=1))


def _later(flags: Flags, by: int) -> Flags:
    moved = np.zeros_like(flags)
    moved[:, by:] = flags[:, : max(0, flags.shape[1] - by)]
    return moved


def _rows(flags: Flags) -> set[int]:
    return set(np.flatnonzero(flags).tolist())


def _numbers(name: str, data: bytes) -> list[float]:
    """Return the numbers of a file in their order, but for 0 and 1, which say nothing."""
    if name.endswith(".py"):
        found = [number for _, numbers in sorted(_constants(ast.parse(data, name))) for number in numbers]
    else:
        found = [float(text) for text in NUMBER.findall(data.decode("utf-8", "replace"))]
    return [number for number in found if number not in (0.0, 1.0) and np.isfinite(number)]


def _constants(tree: ast.AST) -> Iterator[tuple[tuple[int, int], list[float]]]:
    """Yield where each constant stands, and the numbers in it."""
    negative = set[int]()
    for node in ast.walk(tree):  # from the outside to the inside, so a minus comes before what it stands before
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            negative.add(id(node.operand))
        elif isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                number = float(value) if abs(value) < 1e9 else np.nan
                yield (node.lineno, node.col_offset), [-number if id(node) in negative else number]
            elif isinstance(value, (str, bytes)):
                text = value if isinstance(value, str) else value.decode("latin-1")
                yield (node.lineno, node.col_offset), [float(found) for found in NUMBER.findall(text)]
