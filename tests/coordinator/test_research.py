"""Laws of the offline researcher: what it proposes, and that it keeps no state."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import policies
from coordinator.evolution.ideas import DevResult, ResearchContext, Standing, Tried
from coordinator.research import reading
from coordinator.research.offline import OfflineResearcher
from coordinator.research.persistence import persisted, shifts
from coordinator.research.rates import PRIORS, drawn_rates
from coordinator.research.scales import at_share, canonical, share_of
from policies.interface import Value
from policies.space import Parameter, PolicySpace, SpaceError, load_space

SPACE = load_space(Path(policies.__file__).parent / "push_t")


def context(**changes: object) -> ResearchContext:
    blank = {"incumbent": SPACE.defaults(), "tried": (), "known": frozenset(), "failures": {}, "standings": ()}
    return ResearchContext(**{**blank, **changes})  # type: ignore[arg-type]


def tried(number: int, kind: str, changes: Mapping[str, Value], verdict: str, **more: object) -> Tried:
    made = Tried(number, 1, kind, changes, (), f"idea {number}", verdict, "screen", 0.0, 0.0, 2.0)
    return replace(made, **more)  # type: ignore[arg-type]


def results(successes: int, failures: int, cause: str = "near") -> tuple[DevResult, ...]:
    return tuple(
        DevResult(f"dev-{k:04d}", k < successes, float(k < successes), "" if k < successes else cause, 10.0)
        for k in range(successes + failures)
    )


def proposals(researcher: OfflineResearcher, shown: ResearchContext, count: int) -> list[object]:
    return [researcher.propose(replace(shown, proposals=k)) for k in range(count)]


def test_every_proposal_is_allowed_new_and_a_readable_sentence() -> None:
    researcher = OfflineResearcher(SPACE, 1)
    known: set[str] = {canonical(SPACE.defaults())}
    for number in range(300):
        proposal = researcher.propose(context(known=frozenset(known), proposals=number))
        params = {**SPACE.defaults(), **proposal.changes}
        SPACE.validate(params)
        assert canonical(params) not in known
        known.add(canonical(params))
        assert proposal.changes
        assert len(proposal.sentence) > 15
        assert proposal.falsifier


def test_the_same_context_gives_the_same_proposal_whatever_was_asked_before() -> None:
    fresh, used = OfflineResearcher(SPACE, 4), OfflineResearcher(SPACE, 4)
    seen = context(
        tried=(tried(2, "switch", {"choose_by_model": True}, "reject", lead=1.0, dev=results(3, 5)),),
        standings=(Standing({"choose_by_model": True}, 1.0, 2, {}, results(3, 5)),),
        dev=results(2, 6),
        failures={"near": 6},
    )
    for _ in range(5):
        used.propose(context(proposals=77))
    for number in range(40):
        shown = replace(seen, proposals=number)
        assert fresh.propose(shown) == used.propose(shown)
    assert len({proposal.sentence for proposal in proposals(fresh, seen, 40)}) > 10  # type: ignore[attr-defined]


def test_a_change_that_cannot_be_made_is_not_proposed_and_keys_are_the_makers() -> None:
    asked: list[Mapping[str, Value]] = []

    def key_of(changes: Mapping[str, Value], files: Mapping[str, bytes]) -> str | None:
        asked.append(changes)
        return None if "choose_by_model" in changes else f"key of {sorted(changes)}"

    researcher = OfflineResearcher(SPACE, 5, key_of)
    closed = frozenset({"key of ['push_speed_m_s']"})
    for number in range(100):
        proposal = researcher.propose(context(known=closed, proposals=number))
        assert "choose_by_model" not in proposal.changes
        assert sorted(proposal.changes) != ["push_speed_m_s"]
    assert asked


def test_what_claims_to_help_against_the_failures_seen_comes_more_often() -> None:
    researcher = OfflineResearcher(SPACE, 2)
    helping = {idea.name for idea in SPACE.ideas if "near" in idea.helps}
    counts: Counter[bool] = Counter()
    for number in range(300):
        proposal = researcher.propose(context(failures={"near": 8}, proposals=number))
        if proposal.kind == "switch":
            counts[next(iter(proposal.changes)) in helping] += 1
    share_of_ideas = len(helping) / len(SPACE.ideas)
    assert counts[True] / counts.total() > share_of_ideas


def test_a_kind_that_never_pays_is_tried_less_and_one_that_pays_more() -> None:
    def share(verdict: str, gain: float) -> float:
        shown = tuple(
            tried(k, "switch", {"average_looks": True}, verdict, gain_points=gain, parent_id=90 + k) for k in range(30)
        )
        rng = np.random.default_rng(3)
        draws = [drawn_rates(context(tried=shown), rng) for _ in range(200)]
        return float(np.mean([draw["switch"] / sum(draw.values()) for draw in draws]))

    before = float(np.mean([PRIORS["switch"][0] / PRIORS["switch"][1]])) / sum(a / b for a, b in PRIORS.values())
    assert share("reject", 0.0) < before / 2
    assert share("accept", 25.0) > before


def test_robot_time_counts_and_not_the_number_of_tests() -> None:
    tests = [
        tried(k, "switch" if k % 2 else "parameter", {}, "reject", robot_minutes=9.0 - 8.0 * (k % 2)) for k in range(20)
    ]
    tests += [tried(30 + k, kind, {}, "accept", gain_points=20.0) for k, kind in enumerate(("switch", "parameter"))]
    rng = np.random.default_rng(0)
    draws = [drawn_rates(context(tried=tuple(tests)), rng) for _ in range(400)]
    cheap, dear = (np.mean([draw[kind] for draw in draws]) for kind in ("switch", "parameter"))
    assert cheap > 2 * dear


def test_it_never_runs_dry_even_with_every_idea_on_and_much_closed() -> None:
    researcher = OfflineResearcher(SPACE, 5)
    all_on = {**SPACE.defaults(), **{idea.name: True for idea in SPACE.ideas}}
    closed: set[str] = set()
    for _ in range(150):  # no proposal is ever made from a later count
        proposal = researcher.propose(context(incumbent=all_on, known=frozenset(closed)))
        key = canonical({**all_on, **proposal.changes})
        assert key not in closed
        closed.add(key)


def test_a_space_that_would_run_dry_is_refused() -> None:
    whole = tuple(item for item in SPACE.parameters if item.scale == "integer")
    with pytest.raises(SpaceError, match="continuous"):
        OfflineResearcher(PolicySpace("short", "short", 1, "policy.py", whole, SPACE.ideas), 1)


def test_what_leads_is_merged_and_the_stronger_has_a_parameter_that_two_want() -> None:
    leading = (
        Standing({"choose_by_model": True}, 6.0, 11),
        Standing({"push_speed_m_s": 0.08}, 4.0, 12),
        Standing({"push_speed_m_s": 0.3}, 2.0, 13),
        Standing({"ease_motion": True}, 1.0, 14),
    )
    researcher = OfflineResearcher(SPACE, 6)
    merged = [item for item in proposals(researcher, context(standings=leading), 50) if item.kind == "merge"]  # type: ignore[attr-defined]
    assert merged
    for item in merged:
        assert item.changes == {"choose_by_model": True, "push_speed_m_s": 0.08}  # type: ignore[attr-defined]
        assert item.parents == (11, 12)  # of the third nothing is in it  # type: ignore[attr-defined]


def test_a_lead_that_a_gate_did_not_bear_out_is_not_merged() -> None:
    leading = (Standing({"choose_by_model": True}, 3.0, 11), Standing({"push_speed_m_s": 0.08}, 3.0, 12))
    lost = tried(12, "parameter", {"push_speed_m_s": 0.08}, "inconclusive", stage="gate", lead=3.0)
    researcher = OfflineResearcher(SPACE, 6)
    made = proposals(researcher, context(standings=leading, tried=(lost,)), 50)
    assert not [item for item in made if item.kind == "merge"]  # type: ignore[attr-defined]


def test_a_gain_that_a_gate_saw_and_could_not_show_is_merged_and_weighs_more_than_one_that_it_did_not_see() -> None:
    leading = (Standing({"choose_by_model": True}, 3.0, 11), Standing({"push_speed_m_s": 0.08}, 1.0, 12))
    dev = results(9, 1)
    merged, effect = [], []
    for gain in (-1.0, 1.0, 8.0):
        shown = tried(
            12, "parameter", {"push_speed_m_s": 0.08}, "inconclusive", stage="gate", pairs=160, gain_points=gain
        )
        seen = context(standings=leading, tried=(shown,), dev=dev)
        made = proposals(OfflineResearcher(SPACE, 6), seen, 50)
        merged.append(any(item.kind == "merge" for item in made))  # type: ignore[attr-defined]
        effect.append(reading.effects(seen)[-1].lead)
    assert merged == [False, False, True]
    assert effect[0] < 0.0 < effect[1] < effect[2]


def test_what_failed_on_an_earlier_incumbent_soon_gets_another_chance() -> None:
    failed = [
        tried(k, "parameter", {"push_speed_m_s": 0.08}, "reject", lead=-1.0, dev=results(0, 4)) for k in (5, 6, 7)
    ]
    counts = []
    for earlier in (False, True):
        parent = 1 if earlier else 9
        accepted = tried(9, "switch", {"choose_by_model": True}, "accept", parent_id=1)
        tests = [replace(item, parent_id=parent) for item in failed]
        shown = (*tests, accepted) if earlier else (accepted, *tests)
        made = proposals(OfflineResearcher(SPACE, 7), context(tried=shown), 400)
        counts.append(sum(item.changes.get("push_speed_m_s", 1.0) < 0.2 for item in made))  # type: ignore[attr-defined]
    assert counts[1] > counts[0]


def test_a_failure_that_outlasts_generations_favours_kinds_that_were_not_tried_against_it() -> None:
    vain = tuple(tried(k, "parameter", {"push_speed_m_s": 0.08}, "reject") for k in range(2, 32))
    fresh, stuck = context(failures={"near": 6}), context(failures={"near": 6}, tried=vain)
    assert persisted(fresh) == 0.0
    assert persisted(stuck) > 0.0
    assert set(shifts(fresh, ("parameter", "sobol")).values()) == {1.0}
    shifted = shifts(stuck, ("parameter", "sobol"))
    assert shifted["sobol"] > shifted["parameter"] == 1.0


def test_generations_with_the_same_dominant_failure_add_up() -> None:
    line = [tried(k, "switch", {}, "accept", parent_id=k - 1, dev=results(2, 6, "far")) for k in (2, 3, 4)]
    assert persisted(context(failures={"near": 6}, tried=tuple(line))) < persisted(
        context(failures={"far": 6}, tried=tuple(line))
    )


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_shares_and_values_are_one_another_s_inverse(scale: str) -> None:
    parameter = Parameter("x", 5.0, 1.0, 25.0, scale, "a number", ())
    for share in np.linspace(0.0, 1.0, 21):
        assert share_of(parameter, at_share(parameter, float(share))) == pytest.approx(share, abs=0.01)
    assert (share_of(parameter, 1.0), share_of(parameter, 25.0)) == (0.0, 1.0)
