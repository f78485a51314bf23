"""Each cell keeps its best whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution.archive import (
    NO_FAILURE,
    Cell,
    approach,
    dominant,
    elites,
    success_by_start,
)
from coordinator.evolution.ideas import DevResult, Tried

LAW = settings(deadline=None, max_examples=60)
CAUSES = {"m": "missed", "f": "forced", "s": "", "u": ""}


def attempts(outcomes: str) -> tuple[DevResult, ...]:
    return tuple(DevResult(f"dev-{k}", x == "s", float(x == "s"), CAUSES[x], 7.0) for k, x in enumerate(outcomes))


def tried(
    number: int, outcomes: str, kind: str = "switch", verdict: str = "reject", files: tuple[str, ...] = ()
) -> Tried:
    return Tried(number, 0, kind, {}, files, "S.", verdict, "screen", 0.0, 0.0, 1.0, attempts(outcomes))


def test_an_approach_is_its_operator_and_its_files() -> None:
    assert approach("switch", ()) == "switch: policy.toml"
    assert approach("skill", ("program.toml", "policy.toml", "program.toml")) == "skill: policy.toml, program.toml"


@pytest.mark.parametrize(
    ("outcomes", "cause"),
    [("", NO_FAILURE), ("ss", NO_FAILURE), ("mmf", "missed"), ("mf", "forced"), ("u", "unknown")],
)
def test_the_dominant_class_is_the_commonest_and_the_first_by_name_of_several(outcomes: str, cause: str) -> None:
    assert dominant(attempts(outcomes)) == cause


def test_each_cell_keeps_its_best() -> None:
    found = elites(
        [
            tried(1, "mmms"), tried(2, "mss"), tried(3, "fss"), tried(4, "mss"), tried(5, "ss", "sobol"),
            tried(6, "sssm", verdict="superseded"), tried(7, ""),
        ]
    )  # fmt: skip
    assert {(cell.approach, cell.failure): elite.candidate_id for cell, elite in found.items()} == {
        ("sobol: policy.toml", NO_FAILURE): 5,
        ("switch: policy.toml", "forced"): 3,
        ("switch: policy.toml", "missed"): 2,
    }
    assert found[Cell("switch: policy.toml", "missed")].posterior == pytest.approx(3 / 5)


@LAW
@given(st.lists(st.tuples(st.sampled_from("ab"), st.text("mfs", max_size=5)), max_size=8).flatmap(
    lambda rows: st.tuples(st.just(rows), st.permutations(range(len(rows))))
))  # fmt: skip
def test_the_elites_are_the_same_whatever_the_order_and_nobody_in_their_cell_is_better(
    drawn: tuple[list[tuple[str, str]], list[int]],
) -> None:
    rows, order = drawn
    line = [tried(k, outcomes, kind) for k, (kind, outcomes) in enumerate(rows)]
    found = elites(line)
    assert elites([line[k] for k in order]) == found
    for item in line:
        if item.dev:
            best = found[Cell(approach(item.kind, item.files), dominant(item.dev))]
            assert best.posterior >= (sum(r.success for r in item.dev) + 1) / (len(item.dev) + 2)


def test_success_by_start_is_a_rate() -> None:
    assert success_by_start((*attempts("sm"), *attempts("mm"))) == {"dev-0": 0.5, "dev-1": 0.0}
