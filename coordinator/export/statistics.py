"""Statistics of a column as LeRobot normalises by them: extremes, mean, deviation, quantiles, count.

Of pictures they are taken over all pixels of all frames, each colour by itself and scaled to [0, 1], out of a count of
how often each of the 256 values occurs; so they are exact, however often a picture is held.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
VALUES = 256  # of one colour of a pixel
COLOURS = 3

Statistics = dict[str, list[Any]]
Histogram = NDArray[np.int64]  # (COLOURS, VALUES)


def of_rows(values: NDArray[Any]) -> Statistics:
    """Return the statistics of (rows, numbers) over its rows; there is at least one."""
    columns = [_of_column(column.astype(np.float64)) for column in values.T]  # one at a time, for the memory's sake
    return {name: [column[name] for column in columns] for name in columns[0]} | {"count": [len(values)]}


def _of_column(numbers: NDArray[np.float64]) -> dict[str, float]:
    quantiles = np.quantile(numbers, QUANTILES)
    extremes = {"min": float(numbers.min()), "max": float(numbers.max())}
    moments = {"mean": float(numbers.mean()), "std": float(numbers.std())}
    return {**extremes, **moments, **{_name(q): float(value) for q, value in zip(QUANTILES, quantiles, strict=True)}}


def nothing_counted() -> Histogram:
    """Return the histogram of no pictures."""
    return np.zeros((COLOURS, VALUES), dtype=np.int64)


def histogram(picture: NDArray[np.uint8]) -> Histogram:
    """Return how often each value of each colour occurs in (height, width, COLOURS)."""
    return np.stack([np.bincount(picture[..., colour].ravel(), minlength=VALUES) for colour in range(COLOURS)])


def of_pictures(counts: Histogram, frames: int) -> Statistics:
    """Return the statistics of the pixels that were counted in some frames, each (COLOURS, 1, 1)."""
    values = np.arange(VALUES) / (VALUES - 1)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    up_to = np.cumsum(counts, axis=1)
    last = up_to[:, -1:] - 1
    found = {
        name: values[np.sum(up_to <= rank * last, axis=1)]
        for name, rank in {"min": 0.0, "max": 1.0, **{_name(share): share for share in QUANTILES}}.items()
    }
    found |= {"mean": mean, "std": np.sqrt(np.sum(shares * (values - mean[:, None]) ** 2, axis=1))}
    return {name: colours.reshape(-1, 1, 1).tolist() for name, colours in found.items()} | {"count": [frames]}


def _name(share: float) -> str:
    return f"q{round(100 * share):02d}"
