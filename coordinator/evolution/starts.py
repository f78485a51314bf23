"""The initial states of a task, as explicit lists: development, gate, held-out and audit.

`python -m coordinator.evolution.starts` writes the lists anew, the same ones every time. Researchers see results by
start for development only; a gate start is used once; held-out and audit starts are for measuring only.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

SPLITS = {"dev": 40, "gate": 1000, "heldout": 200, "audit": 200}
SEED = 20260619
GOAL = (0.32, 0.0, np.pi / 4)
# Corners of the T in its own frame, metres.
CORNERS = (
    np.array([(-60, -40.7), (60, -40.7), (60, -10.7), (15, -10.7), (15, 79.3), (-15, 79.3), (-15, -10.7), (-60, -10.7)])
    * 1e-3
)
RING_M = (0.17, 0.47)  # where the arm can get at the T from all sides
HOVER_OFF_M, HOVER_HEIGHT_M = (0.005, 0.020), (0.008, 0.025)  # of a pin's tip, from the middle of its socket's face


class StartsError(Exception):
    """A list of initial states that cannot be used."""


@dataclass(frozen=True)
class Start:
    """One initial state."""

    start_id: str
    coordinates: Mapping[str, float]


@dataclass(frozen=True)
class Starts:
    """The splits of one task."""

    task: str
    dev: tuple[Start, ...]
    gate: tuple[Start, ...]
    heldout: tuple[Start, ...]
    audit: tuple[Start, ...]
    sha256: str

    @staticmethod
    def load(task: str) -> Starts:
        """Return the list that ships for a task.

        Raises:
            StartsError: there is none.
        """
        path = files("coordinator") / "evolution" / "initial_states" / f"{task}.csv"
        try:
            text = path.read_text()
        except OSError as error:
            raise StartsError(f"no initial states for task {task!r}") from error
        splits: dict[str, list[Start]] = {name: [] for name in SPLITS}
        for row in csv.DictReader(io.StringIO(text)):
            split, start_id = row.pop("split"), row.pop("start_id")
            splits[split].append(Start(start_id, {name: float(value) for name, value in row.items()}))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Starts(task=task, sha256=digest, **{name: tuple(listed) for name, listed in splits.items()})


def draw_push_t(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a T that the arm can get at from all sides and that is not nearly done: 40 mm or half a radian away."""
    while True:
        x, y, yaw = rng.uniform(0.25, 0.39), rng.uniform(-0.13, 0.13), rng.uniform(-np.pi, np.pi)
        cosine, sine = np.cos(yaw), np.sin(yaw)
        corners = CORNERS @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]
        radius = np.linalg.norm(corners, axis=1)
        turned = abs((yaw - GOAL[2] + np.pi) % (2 * np.pi) - np.pi)
        far = np.hypot(x - GOAL[0], y - GOAL[1]) > 0.04 or turned > 0.5
        if far and (radius >= RING_M[0]).all() and (radius <= RING_M[1]).all() and (corners[:, 0] > 0.13).all():
            return round(x, 4), round(y, 4), round(yaw, 4)


def draw_pin_insertion(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a hover of the pin's tip over the socket: beside the hole by up to 20 mm, on any side, 8 to 25 mm up."""
    away, side, height = rng.uniform(*HOVER_OFF_M), rng.uniform(-np.pi, np.pi), rng.uniform(*HOVER_HEIGHT_M)
    return round(away * np.cos(side), 4), round(away * np.sin(side), 4), round(height, 4)


def draw_gym_pusht(rng: np.random.Generator) -> tuple[float, ...]:
    """Return what gym-pusht's own reset draws, in pixels: where the tool and the block are put down, and how turned."""
    tool, block = rng.integers(50, 450, 2), rng.integers(100, 400, 2)
    return *map(float, tool), *map(float, block), round(rng.uniform(-np.pi, np.pi), 4)


Draw = Callable[[np.random.Generator], tuple[float, ...]]
LISTS: dict[str, tuple[tuple[str, ...], Draw]] = {
    "push_t": (("x_m", "y_m", "yaw_rad"), draw_push_t),
    "pin_insertion": (("x_off_m", "y_off_m", "height_m"), draw_pin_insertion),
    "gym_pusht": (("agent_x", "agent_y", "block_x", "block_y", "block_angle"), draw_gym_pusht),
}


def write(task: str, path: Path) -> None:
    """Write the list of one task."""
    names, draw = LISTS[task]
    rng = np.random.default_rng(SEED)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("split", "start_id", *names))
        for split, count in SPLITS.items():
            for number in range(count):
                writer.writerow((split, f"{split}-{number:04d}", *draw(rng)))


if __name__ == "__main__":
    for task in LISTS:
        write(task, Path(__file__).with_name("initial_states") / f"{task}.csv")
