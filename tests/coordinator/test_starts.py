"""The lists of initial states: written the same each time, with splits that share nothing, within the task's bounds."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from coordinator.evolution.starts import HOVER_HEIGHT_M, HOVER_OFF_M, LISTS, SPLITS, Starts, StartsError, write

ROUNDING_M = 1e-4


@pytest.mark.parametrize("task", sorted(LISTS))
def test_a_list_is_written_the_same_each_time_and_is_what_ships(task: str, tmp_path: Path) -> None:
    write(task, tmp_path / "list.csv")
    shipped = files("coordinator") / "evolution" / "initial_states" / f"{task}.csv"
    assert (tmp_path / "list.csv").read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("task", sorted(LISTS))
def test_the_splits_are_full_and_share_nothing(task: str) -> None:
    starts = Starts.load(task)
    every = [start for name in SPLITS for start in getattr(starts, name)]
    assert {name: len(getattr(starts, name)) for name in SPLITS} == SPLITS
    assert len({start.start_id for start in every}) == len(every)
    assert len({tuple(start.coordinates.values()) for start in every}) == len(every)


def test_a_pin_hovers_beside_the_hole_and_above_the_socket() -> None:
    for start in Starts.load("pin_insertion").gate:
        away_m = float(np.hypot(start.coordinates["x_off_m"], start.coordinates["y_off_m"]))
        assert HOVER_OFF_M[0] - ROUNDING_M <= away_m <= HOVER_OFF_M[1] + ROUNDING_M
        assert HOVER_HEIGHT_M[0] <= start.coordinates["height_m"] <= HOVER_HEIGHT_M[1]


def test_a_task_without_a_list_is_refused() -> None:
    with pytest.raises(StartsError, match="knitting"):
        Starts.load("knitting")
