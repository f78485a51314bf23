"""A policy comes into force step by step, and goes the way back by itself: the table, the journal and the steward."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edge.activation.__main__ import drawing, page
from edge.activation.journal import ActivationError, ArrowRefused, Journal, OrderRefused
from edge.activation.schema import SCHEMA
from edge.activation.series import Attempt
from edge.activation.steward import Steward
from edge.activation.table import (
    ALREADY,
    ARROWS,
    EVENTS,
    GONE,
    NEWCOMER,
    ON_TRIAL,
    STATES,
    TABLE,
    refusal,
)
from edge.records import Outcome
from tests.harness.activation_world import GATES, LATER_S, NOW_S, SUCCESS, World, name, order

ROOT = Path(__file__).parents[2]
A, B, C = name("a"), name("b"), name("c")
FAULT = (Outcome.FAILURE, "crashed")
LOST = (Outcome.FAILURE, "near")
VOID = (Outcome.INVALID, "reset")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make, once, the folders that tests begin with."""
    folder = tmp_path_factory.mktemp("stations")
    for number, bundle in enumerate((A, B), 1):
        with closing(World(folder / "making")) as world:
            world.activate(bundle, number)
        shutil.copytree(folder / "making", folder / bundle)
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(World(tmp_path)) as world:
        yield world


@pytest.fixture
def settled(made: Path, tmp_path: Path) -> Iterator[World]:
    """Return a station on which A is active and nothing is last good."""
    with closing(World(shutil.copytree(made / A, tmp_path / "settled"))) as world:
        yield world


@pytest.fixture
def grown(made: Path, tmp_path: Path) -> Iterator[World]:
    """Return a station on which B is active and A is last good."""
    with closing(World(shutil.copytree(made / B, tmp_path / "grown"))) as world:
        yield world


def events(world: World, bundle: str) -> list[str]:
    """Return the events that a bundle has gone through."""
    return [change.event for change in world.journal.changes() if change.bundle == bundle]


def state(world: World, bundle: str) -> str:
    return world.journal.row(bundle).state


# -- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_event_in_every_state_is_an_arrow_or_has_happened_or_is_refused_with_a_reason(
    state: str, event: str
) -> None:
    answers = ((state, event) in TABLE, (state, event) in ALREADY, bool(refusal(state, event)))
    assert answers.count(True) == 1


def test_the_arrows_lead_from_states_to_states_and_none_is_there_twice() -> None:
    assert len(TABLE) == len(ARROWS)
    assert {arrow.origin for arrow in ARROWS} | {arrow.target for arrow in ARROWS} == set(STATES)
    assert {arrow.event for arrow in ARROWS} == set(EVENTS)
    assert all(arrow.durable and arrow.effect for arrow in ARROWS)


def test_into_force_leads_one_way_only() -> None:
    into = {arrow.target: set() for arrow in ARROWS}  # type: dict[str, set[tuple[str, str]]]
    for arrow in ARROWS:
        if arrow.origin != arrow.target:
            into[arrow.target].add((arrow.origin, arrow.event))
    assert {pair for pair in into["active"] if pair[1] != "return"} == {("probation", "accept")}
    assert into["probation"] == {("canary", "prove"), ("shadow", "skip")}
    assert into["canary"] == {("shadow", "try")}
    assert into["shadow"] == {("staged", "watch")}
    assert all(
        arrow.stage for arrow in ARROWS if arrow.target in NEWCOMER and arrow.event not in ("rebase", "offer", "verify")
    )


def test_what_is_gone_never_comes_back() -> None:
    assert {arrow.target for arrow in ARROWS if arrow.origin in GONE} == {"revoked"}


def test_the_document_is_what_the_table_says() -> None:
    assert (ROOT / "docs" / "activation.md").read_text() == page(), "python -m edge.activation > docs/activation.md"
    assert all(f"| {word} |" in page() for word in (*STATES, *EVENTS))


def test_every_way_between_two_states_is_drawn() -> None:
    drawn = set()
    for line in drawing().splitlines():
        if "-->" in line and ":" in line:
            pair, label = line.split(":")
            origin, target = (word.strip() for word in pair.split("-->"))
            for start in ON_TRIAL if origin == "on_trial" else (origin,):
                drawn |= {(start, event.strip(), target) for event in label.split(",")}
    expected = {(arrow.origin, arrow.event, arrow.target) for arrow in ARROWS if arrow.origin != arrow.target}
    assert drawn <= expected
    assert {event for _, event, _ in expected - drawn} == {"revoke", "return"}


# -- up ---------------------------------------------------------------------------------------------------------------

WAY_UP = ["offer", "fetch", "verify", "test", "watch", "try", "prove", "accept"]


def test_a_bundle_passes_every_stage_and_the_former_one_is_what_the_edge_goes_back_to(grown: World) -> None:
    assert events(grown, B) == WAY_UP
    assert events(grown, A) == [*WAY_UP, "replace"]
    line = grown.journal.line()
    assert (line.active, line.last_good, line.floor) == (B, A, 2)


def test_nothing_is_last_good_before_its_probation_has_ended_well(settled: World) -> None:
    settled.journal.offer(order(2, B))
    for target in ("staged", "shadow", "canary", "probation"):
        with suppress(AssertionError):
            settled.advance(target, B, turns=1)
        assert (settled.journal.line().active, settled.journal.line().last_good) == (A, "")
    settled.advance("active", B)
    assert settled.journal.line().last_good == A


@pytest.mark.parametrize(("stage", "end"), [("shadow", "shadow"), ("canary", "canary")])
def test_a_bundle_goes_no_further_than_its_order_and_further_with_the_next(
    settled: World, stage: str, end: str
) -> None:
    settled.journal.offer(order(2, B, stage))
    settled.advance(end, B)
    for _ in range(10):
        settled.steward.tend()
        settled.run_queue()
    assert state(settled, B) == end
    held_up = settled.journal.row(B).evidence["order"]
    assert (held_up["call"], held_up["note"].split(": ")[-1]) == ("wait", f"the order ends at {stage}")
    done = len(settled.trials(B, "canary"))
    settled.journal.offer(order(3, B))
    settled.advance("active", B)
    assert events(settled, B).count("try") == 1
    assert len(settled.trials(B, "canary")) == max(done, GATES.canary_pairs)  # what was done counts
    assert "order" not in settled.journal.row(B).evidence


def test_the_canary_runs_in_pairs_on_the_same_starts_in_turns(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    queued: list[Attempt] = []
    for _ in range(GATES.canary_pairs):
        settled.steward.tend()
        assert len(list((settled.folder / "queue").iterdir())) == 2
        settled.run_queue(lambda attempt: queued.append(attempt) or SUCCESS)  # type: ignore[func-returns-value]
    assert [attempt.start_id for attempt in queued] == ["dev-0", "dev-0", "dev-1", "dev-1"]
    assert [attempt.bundle for attempt in queued] == [B, A, A, B]
    assert [attempt.seed for attempt in queued] == [0, 0, 1, 1]
    assert {attempt.purpose for attempt in queued} == {"canary"}
    names = [attempt.assignment_id for attempt in queued]
    assert names[0] == f"rollout-2-canary-{B[:12]}-{A[:12]}-000-new-0"
    assert len(set(names)) == 4


def test_no_trial_of_the_newcomer_stands_in_for_the_active_one(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    prefix = f"rollout-2-canary-{B[:12]}-{A[:12]}-"
    for number in range(GATES.canary_pairs):
        settled.end(B, "canary", *SUCCESS, f"{prefix}{number:03d}-new-0")
        settled.end(B, "canary", *LOST, f"{prefix}{number:03d}-old-0")  # forged, by a lease
    assert settled.steward.tend() == []
    assert state(settled, B) == "canary"
    assert " in 0 pairs" in settled.journal.row(B).evidence["canary"]["note"]


def test_an_invalid_attempt_is_asked_for_again_on_its_start(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    settled.run_queue(lambda attempt: VOID if attempt.bundle == B else SUCCESS)
    settled.steward.tend()
    [path] = (settled.folder / "queue").iterdir()
    again = json.loads(path.read_text())
    assert (again["assignment_id"].split("-")[-3:], again["start_id"]) == (["000", "new", "1"], "dev-0")


def test_the_same_attempts_are_asked_for_however_often(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    names = {path.name for path in (settled.folder / "queue").iterdir()}
    for _ in range(3):
        settled.steward.tend()
    assert {path.name for path in (settled.folder / "queue").iterdir()} == names


def test_with_nothing_active_only_the_newcomer_runs_and_the_ruling_says_so(world: World) -> None:
    world.activate(A, 1)
    assert "nothing is active" in world.journal.row(A).evidence["canary"]["note"]
    assert {item.assignment_id.split("-")[4] for item in world.trials(A, "canary")} == {"alone"}


def test_canary_evidence_can_only_be_skipped_where_two_people_have_signed(settled: World) -> None:
    settled.overrides.add(B)
    settled.activate(B, 2)
    assert "skip" in events(settled, B)
    assert "prove" not in events(settled, B)
    assert "no canary" in settled.journal.row(B).evidence["probation"]["note"]
    settled.activate(C, 3)
    assert "prove" in events(settled, C)


def test_a_signed_override_does_not_widen_an_order_for_a_canary(settled: World) -> None:
    settled.overrides.add(B)
    settled.journal.offer(order(2, B, "canary"))
    settled.advance("canary", B)
    assert "skip" not in events(settled, B)


@pytest.mark.parametrize("event", ["prove", "accept", "watch", "try", "skip"])
def test_no_arrow_can_be_jumped(settled: World, event: str) -> None:
    settled.journal.offer(order(2, B))
    settled.fetch(B)
    with pytest.raises(ArrowRefused, match="only"):
        settled.journal.take(event, B, "I want it")
    assert state(settled, B) == "verified"


def test_a_candidate_is_never_staged_and_goes_on_once_people_release_it(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.fetch(B, "candidates")
    assert settled.steward.tend() == []
    assert "only a released bundle" in settled.journal.row(B).evidence["order"]["note"]
    assert settled.journal.wanted() == {B: "push_t"}
    settled.journal.verified(B, "released", LATER_S + 1.0)
    assert settled.journal.wanted() == {}
    settled.advance("active", B)


def test_an_expired_release_takes_no_further_step(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.journal.verified(B, "released", NOW_S)
    settled.unpack(B)
    assert settled.steward.tend() == []
    assert "expired" in settled.journal.row(B).evidence["order"]["note"]


def test_only_the_child_of_the_active_one_goes_on_where_the_order_names_a_parent(settled: World) -> None:
    settled.journal.offer(order(2, B, parent=C))
    settled.fetch_all()
    assert settled.steward.tend() == []
    assert "parent" in settled.journal.row(B).evidence["order"]["note"]
    settled.journal.offer(order(3, B, parent=A))
    settled.advance("active", B)


# -- down -------------------------------------------------------------------------------------------------------------


def test_a_failed_self_test_rejects_for_good(settled: World) -> None:
    settled.tested = replace(settled.tested, p99_s=math.nan)
    settled.journal.offer(order(2, B))
    settled.fetch_all()
    settled.steward.tend()
    assert state(settled, B) == "rejected"
    with pytest.raises(OrderRefused, match="rejected"):
        settled.journal.offer(order(3, B))
    assert settled.journal.line().floor == 2


def test_a_busy_moment_damns_nothing_and_is_looked_at_again_after_a_while(settled: World) -> None:
    good, tests = settled.tested, []
    settled.tested = replace(good, p99_s=GATES.step_p99_s)
    can = replace(settled.abilities(), self_test=lambda bundle: (tests.append(bundle), settled.tested)[1])
    now_s = [0.0]
    steward = Steward(settled.journal, GATES, can, settled.clock, lambda: now_s[0])
    settled.journal.offer(order(2, B))
    settled.fetch_all()
    for now_s[0], made in ((0.0, 1), (29.9, 1), (30.0, 2), (59.0, 2)):
        assert steward.tend() == []
        assert (state(settled, B), len(tests)) == ("verified", made)
    assert settled.journal.row(B).evidence["self-test"]["call"] == "wait"
    settled.tested, now_s[0] = good, 60.0
    assert [change.event for change in steward.tend()][:2] == ["test", "watch"]


@pytest.mark.parametrize(
    "change", [{"breaches": 1}, {"ok": False, "detail": "it crashed"}, {"p99_s": math.inf}, {"p99_s": math.nan}]
)
def test_what_is_bad_in_the_shadow_never_moves_the_arm(settled: World, change: dict[str, float]) -> None:
    assert settled.stretch is not None
    settled.stretch = replace(settled.stretch, **change)  # type: ignore[arg-type]
    settled.journal.offer(order(2, B))
    settled.advance("rolled_back", B)
    assert settled.trials(B, "") == []
    assert settled.journal.line().active == A


def test_the_shadow_adds_up_over_trials_and_processes(settled: World) -> None:
    assert settled.stretch is not None
    settled.stretch = replace(settled.stretch, steps=GATES.shadow_steps // 2)
    settled.journal.offer(order(2, B))
    settled.fetch_all()
    settled.steward.tend()
    assert (state(settled, B), settled.journal.row(B).watched.steps) == ("shadow", GATES.shadow_steps // 2)
    settled.stretch = None  # no new trial of the active one
    assert settled.steward.tend() == []
    with closing(World(settled.folder)) as again:
        again.steward.tend()
        assert state(again, B) == "canary"


def test_a_worse_newcomer_goes_and_may_be_pushed_again(settled: World) -> None:
    settled.journal.offer(order(2, B))
    for _ in range(8):
        settled.fetch_all()
        settled.steward.tend()
        settled.run_queue(lambda attempt: LOST if attempt.bundle == B else SUCCESS)
    assert (state(settled, B), settled.journal.line().active) == ("rolled_back", A)
    assert settled.journal.row(B).evidence["canary"]["call"] == "fail"
    assert settled.steward.tend() == []  # the order is done with
    settled.activate(B, 3)


def test_a_newcomer_with_three_faults_is_denied_here(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("probation", B)
    series = settled.trials(B, "probation") or [None]
    assert series == [None]
    settled.steward.tend()
    prefix = f"rollout-2-probation-{B[:12]}-alone-"
    for number in range(3):
        settled.end(B, "probation", *FAULT, f"{prefix}{number:03d}-new-0")
    settled.steward.tend()
    assert state(settled, B) == "rolled_back"
    assert not settled.steward.may_run(B, "screen").allowed
    with pytest.raises(OrderRefused, match="denies"):
        settled.journal.offer(order(3, B))


def test_three_faults_in_ten_trials_of_the_active_one_bring_back_the_last_good_one_unasked(grown: World) -> None:
    for end in (FAULT, SUCCESS, FAULT, SUCCESS, SUCCESS, SUCCESS, FAULT):
        assert grown.steward.tend() == []
        grown.end(B, "play", *end)
    [change] = grown.steward.tend()
    assert (change.bundle, change.event, state(grown, B)) == (B, "fault", "rolled_back")
    line = grown.journal.line()
    assert (line.active, line.last_good, state(grown, A)) == (A, "", "active")
    with pytest.raises(OrderRefused, match="3 policy faults"):
        grown.journal.offer(order(3, B))


def test_old_faults_of_the_last_good_one_do_not_count_when_it_comes_back(settled: World) -> None:
    settled.later(10.0)
    for _ in range(2):
        settled.end(A, "play", *FAULT)
    settled.activate(B, 2)
    settled.later(10.0)
    settled.end(A, "baseline", *FAULT)  # while B is active
    for _ in range(3):
        settled.end(B, "play", *FAULT)
    settled.later(10.0)
    settled.steward.tend()
    assert settled.journal.line().active == A
    assert settled.steward.tend() == []


@pytest.mark.parametrize("ahead_s", [400 * 86_400.0, -400 * 86_400.0])
@pytest.mark.parametrize("restarted", [False, True])
def test_faults_count_whatever_the_clock_said_when_the_policy_became_active(
    settled: World, ahead_s: float, restarted: bool
) -> None:
    settled.later(ahead_s)
    now = settled.clock()
    settled.journal.offer(order(2, B, issued_unix_s=now, until_unix_s=now + 3_600.0))
    settled.advance("active", B)
    settled.later(-ahead_s)
    for _ in range(3):
        settled.end(B, "play", *FAULT)
    with closing(World(settled.folder)) as again:
        [change] = (again if restarted else settled).steward.tend()
    assert (change.event, settled.journal.line().active) == ("fault", A)


def test_trials_of_a_new_ledger_count_though_their_numbers_begin_anew(grown: World) -> None:
    shutil.rmtree(grown.folder / "trials")
    (grown.folder / "trials").mkdir()
    for _ in range(3):
        grown.end(B, "play", *FAULT)
    assert [change.event for change in grown.steward.tend()] == ["fault"]


def test_the_only_policy_of_an_edge_stays_and_its_faults_are_told(settled: World) -> None:
    for _ in range(3):
        settled.end(A, "play", *FAULT)
    assert settled.steward.tend() == []
    assert settled.journal.line().active == A
    assert "none to go back to" in settled.journal.row(A).evidence["faults"]["note"]
    assert settled.steward.may_run(A, "play").allowed


@pytest.mark.parametrize("target", ["shadow", "canary", "probation"])
def test_three_starts_in_a_minute_roll_back_what_is_on_trial_unasked(settled: World, target: str) -> None:
    if target == "shadow":
        settled.stretch = None
    settled.journal.offer(order(2, B))
    settled.advance(target, B)
    assert settled.steward.started() is None
    settled.later(59.0)
    assert settled.steward.started() is None
    change = settled.steward.started()
    assert change is not None
    assert (change.event, state(settled, B), settled.journal.line().active) == ("crash_loop", "rolled_back", A)


def test_starts_long_ago_or_with_nothing_on_trial_are_no_crash_loop(settled: World) -> None:
    for _ in range(5):
        assert settled.steward.started() is None
    settled.stretch = None
    settled.journal.offer(order(2, B))
    settled.advance("shadow", B)
    for _ in range(6):
        assert settled.steward.started() is None
        settled.later(31.0)
    assert state(settled, B) == "shadow"


@pytest.mark.parametrize("target", ["offered", "staged", "shadow", "canary", "probation"])
def test_when_an_order_ends_its_newcomer_goes_and_the_active_one_stays(settled: World, target: str) -> None:
    settled.stretch = None if target == "shadow" else settled.stretch
    settled.journal.offer(order(2, B))
    if target == "staged":
        settled.fetch_all()
        settled.journal.take("test", B, "passed")
    elif target != "offered":
        settled.advance(target, B)
    settled.later(LATER_S - NOW_S)
    [change] = settled.steward.tend()
    assert (change.event, change.target) == (
        "expire",
        {"offered": "none", "staged": "verified"}.get(target, "rolled_back"),
    )
    assert settled.journal.line().active == A
    assert settled.journal.wanted() == {}
    assert not settled.steward.may_run(B, "canary").allowed


def test_a_newer_order_takes_the_place_of_one_on_its_way(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    settled.journal.offer(order(3, C))
    settled.advance("active", C)
    assert (state(settled, B), events(settled, B)[-1]) == ("rolled_back", "withdraw")
    settled.activate(B, 4)


def test_an_offer_that_was_never_fetched_is_withdrawn_too(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.journal.offer(order(3, C))
    settled.steward.tend()
    assert state(settled, B) == "none"


def test_an_order_to_roll_back_takes_the_newcomer_first_then_the_active_one_and_each_once(grown: World) -> None:
    grown.journal.offer(order(3, C))
    grown.advance("canary", C)
    grown.journal.offer(order(4, "", rollback=True, starts=()))
    assert [(item.bundle, item.event) for item in grown.steward.tend()] == [(C, "recall")]
    assert grown.steward.tend() == []
    grown.journal.offer(order(5, "", rollback=True, starts=()))
    assert [(item.bundle, item.event) for item in grown.steward.tend()] == [(B, "recall")]
    assert grown.journal.line().active == A
    grown.journal.offer(order(6, "", rollback=True, starts=()))
    assert grown.steward.tend() == []
    assert (grown.journal.line().active, "none to go back to" in grown.journal.line().closed) == (A, True)
    grown.activate(B, 7)  # a rollback denies nothing


def test_an_order_to_roll_back_a_bundle_that_is_not_there_changes_nothing(grown: World) -> None:
    grown.journal.offer(order(3, C, rollback=True))
    assert grown.steward.tend() == []
    assert grown.journal.line().active == B
    grown.journal.offer(order(4, B, rollback=True))
    grown.steward.tend()
    assert grown.journal.line().active == A


def test_a_canary_begins_anew_when_the_one_it_was_compared_with_has_to_go(grown: World) -> None:
    grown.journal.offer(order(3, C))
    grown.advance("canary", C)
    grown.journal.revoke(B, "next-trial")
    assert [item.event for item in grown.steward.tend()] == ["rebase", "watch"]
    assert [item.event for item in grown.steward.tend()] == ["try"]
    assert grown.journal.row(C).baseline == A
    grown.advance("active", C)
    assert (grown.journal.line().active, grown.journal.line().last_good) == (C, A)


def test_damaged_files_are_fetched_anew_and_an_intact_last_good_one_steps_in(grown: World) -> None:
    (grown.folder / "bundles" / B).write_text("damaged")
    [change] = grown.steward.tend()
    assert (change.event, grown.journal.line().active) == ("lose", A)
    (grown.folder / "bundles" / A).unlink()
    assert grown.steward.tend() == []
    assert (grown.journal.line().active, grown.journal.wanted()) == (A, {A: "push_t"})
    assert not grown.steward.may_run(A, "play").allowed
    grown.fetch_all()
    assert grown.steward.may_run(A, "play").allowed
    assert grown.journal.wanted() == {}


def test_a_newcomer_whose_files_are_lost_is_fetched_again_and_goes_on(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.advance("canary", B)
    (settled.folder / "bundles" / B).unlink()
    settled.steward.tend()
    assert state(settled, B) == "offered"
    settled.advance("active", B)


# -- revocation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["next-trial", "now"])
def test_a_revoked_active_one_makes_way_at_once(grown: World, when: str) -> None:
    assert grown.journal.revoke(B, when)
    assert not grown.journal.revoke(B, when)
    assert grown.journal.revoked() == {B: when}
    assert (grown.journal.line().active, grown.journal.line().last_good) == (A, "")
    assert not grown.steward.may_run(B, "screen").allowed
    for again in (lambda: grown.journal.offer(order(3, B)), lambda: grown.journal.verified(B, "released", LATER_S)):
        with pytest.raises(ActivationError, match="revoked"):
            again()


def test_a_revocation_can_become_more_urgent_but_not_less(grown: World) -> None:
    grown.journal.revoke(B, "next-trial")
    assert grown.journal.revoke(B, "now")
    assert not grown.journal.revoke(B, "next-trial")
    assert grown.journal.revoked() == {B: "now"}


def test_what_is_revoked_is_known_whatever_is_written_of_the_others(grown: World) -> None:
    grown.journal.revoke(A, "now")
    with closing(sqlite3.connect(grown.journal.path)) as db, db:
        db.execute(f"UPDATE bundles SET evidence = '{{' WHERE bundle = '{B}'")
    assert grown.journal.revoked() == {A: "now"}


def test_a_bundle_can_be_revoked_before_it_was_ever_seen(world: World) -> None:
    world.journal.revoke(A, "next-trial")
    with pytest.raises(OrderRefused, match="revoked"):
        world.journal.offer(order(1, A))


def test_a_revoked_last_good_one_is_nothing_to_go_back_to(grown: World) -> None:
    grown.journal.revoke(A, "next-trial")
    assert (grown.journal.line().active, grown.journal.line().last_good) == (B, "")
    grown.journal.revoke(B, "next-trial")
    assert grown.journal.line().active == ""


def test_the_last_good_one_comes_back_also_where_an_order_has_asked_for_it_again(grown: World) -> None:
    grown.journal.offer(order(3, A))
    grown.advance("canary", A)
    grown.journal.revoke(B, "now")
    assert (grown.journal.line().active, state(grown, A)) == (A, "active")
    assert grown.steward.tend() == []


def test_a_revocation_for_another_moment_is_an_error(world: World) -> None:
    with pytest.raises(ValueError, match="next-trial or now"):
        world.journal.revoke(A, "later")


# -- orders -----------------------------------------------------------------------------------------------------------


def test_orders_are_taken_once_and_never_from_below_the_floor(world: World) -> None:
    first = order(5, A)
    assert world.journal.offer(first)
    assert not world.journal.offer(first)
    for refused in (order(5, B), order(4, A), order(1, A)):
        with pytest.raises(OrderRefused, match="up to 5"):
            world.journal.offer(refused)
    assert world.journal.offer(order(6, B))
    with pytest.raises(OrderRefused, match="up to 6"):
        world.journal.offer(first)
    assert world.journal.line().floor == 6


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"until_unix_s": NOW_S}, "over"),
        ({"issued_unix_s": NOW_S + 301.0}, "future"),
        ({"until_unix_s": math.inf}, "JSON"),
        ({"issued_unix_s": math.nan}, "JSON"),
        ({"task": "pin"}, "for push_t"),
        ({"stage": "probation"}, "stage"),
        ({"starts": ()}, "starts"),
        ({"number": 0}, "number"),
    ],
)
def test_an_order_that_cannot_be_followed_leaves_everything_as_it_was(
    settled: World, changes: dict[str, object], why: str
) -> None:
    settled.fetch(B)
    before = (settled.journal.line(), settled.journal.rows())
    with pytest.raises(OrderRefused, match=why):
        settled.journal.offer(replace(order(2, B), **changes))  # type: ignore[arg-type]
    assert (settled.journal.line(), settled.journal.rows()) == before


def test_nothing_goes_on_while_the_clock_stands_before_the_issue_of_its_order(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.fetch(B)
    settled.later(-301.0)
    assert settled.steward.tend() == []
    assert "clock" in settled.journal.row(B).evidence["order"]["note"]
    settled.later(2.0)
    assert settled.steward.tend()


def test_what_was_written_while_the_clock_was_ahead_holds_nothing_up(settled: World) -> None:
    settled.later(400 * 86_400.0)
    settled.journal.fetched(C)
    settled.later(-400 * 86_400.0)
    settled.activate(B, 2)


def test_no_order_is_so_far_ahead_that_it_would_be_the_last(settled: World) -> None:
    for number in (1_002, 2**40, 2**53, 2**53 + 1, 2**63 - 1):
        with pytest.raises(OrderRefused, match=r"number it 2$" if number <= 2**53 else r"2\^53"):
            settled.journal.offer(order(number, B))
    assert settled.journal.line().floor == 1
    assert settled.journal.offer(order(1_001, B))


# -- who may run ------------------------------------------------------------------------------------------------------


def may(world: World, bundle: str, purpose: str) -> tuple[bool, bool]:
    permit = world.steward.may_run(bundle, purpose)
    assert permit.why
    return permit.allowed, permit.full_envelope


def test_what_nobody_has_verified_here_never_runs(world: World) -> None:
    assert may(world, A, "screen") == (False, False)
    world.journal.fetched(A)
    assert may(world, A, "screen") == (False, False)


def test_a_candidate_runs_leased_trials_in_a_reduced_envelope_until_it_expires(world: World) -> None:
    world.journal.verified(A, "candidates", LATER_S)
    assert may(world, A, "screen") == (True, False)
    assert may(world, A, "canary") == may(world, A, "probation") == (False, False)
    world.later(LATER_S - NOW_S)
    assert may(world, A, "screen") == (False, False)
    world.journal.verified(A, "candidates", LATER_S + 86_400.0)
    assert may(world, A, "screen") == (True, False)


def test_only_probation_active_and_last_good_have_the_full_envelope(settled: World) -> None:
    settled.journal.offer(order(2, B))
    settled.fetch_all()
    assert may(settled, B, "screen") == (True, False)
    settled.advance("canary", B)
    assert may(settled, B, "canary") == (True, False)
    assert may(settled, A, "canary") == (True, False)  # both sides alike
    assert may(settled, B, "probation") == (False, False)
    settled.advance("probation", B)
    assert may(settled, B, "probation") == may(settled, B, "gate") == (True, True)
    settled.advance("active", B)
    assert may(settled, B, "play") == may(settled, A, "play") == (True, True)
    assert may(settled, A, "probation") == (False, False)


def test_the_active_and_the_last_good_one_outlive_their_release(grown: World) -> None:
    grown.later(40 * 86_400.0)
    assert may(grown, A, "play") == may(grown, B, "play") == (True, True)
    grown.journal.verified(B, "candidates", LATER_S + 50 * 86_400.0)  # no candidate has a word here
    assert may(grown, B, "play") == (True, True)


# -- the file ---------------------------------------------------------------------------------------------------------


def test_nothing_pinned_is_deleted_and_the_rest_may_be(grown: World) -> None:
    grown.fetch(C, "candidates")
    grown.sweep()
    assert {path.name for path in (grown.folder / "bundles").iterdir()} == {A, B} == grown.journal.pinned()
    grown.journal.offer(order(3, C))
    grown.fetch_all()
    grown.sweep()
    grown.advance("active", C)
    grown.sweep()
    assert {path.name for path in (grown.folder / "bundles").iterdir()} == {B, C}


def test_two_processes_see_the_same_and_the_slower_one_is_refused(settled: World) -> None:
    with closing(World(settled.folder)) as uplink:
        settled.journal.offer(order(2, B))
        uplink.fetch(B)
        uplink.journal.revoke(B, "next-trial")
        with pytest.raises(ArrowRefused, match="revoked"):
            settled.journal.take("test", B, "it passed")
        assert settled.steward.tend() == []


def test_at_most_one_is_active_and_one_on_its_way_whatever_is_written(grown: World) -> None:
    with closing(sqlite3.connect(grown.journal.path)) as db:
        for text in (f"UPDATE bundles SET state = 'active' WHERE bundle = '{A}'", "UPDATE line SET last_good = active"):
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(text)
        db.execute("INSERT INTO bundles (bundle, state, since_unix_s) VALUES ('x', 'staged', 0)")
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO bundles (bundle, state, since_unix_s) VALUES ('y', 'probation', 0)")
        db.rollback()


def test_every_table_is_strict_and_says_what_it_is() -> None:
    assert all("--" in line for line in SCHEMA.splitlines() if line.startswith("CREATE TABLE"))
    assert SCHEMA.count(") STRICT;") == SCHEMA.count("CREATE TABLE") >= 5


def test_a_journal_of_another_format_or_a_damaged_one_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "activation.db"
    Journal(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(ActivationError, match="format 9"):
        Journal(path)
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(ActivationError, match="cannot use"):
        Journal(path)


def test_what_the_uplink_says_twice_is_written_once(world: World) -> None:
    world.journal.offer(order(1, A))
    assert world.journal.fetched(A)
    assert not world.journal.fetched(A)
    assert world.journal.verified(A, "released", LATER_S, "push_t")
    assert not world.journal.verified(A, "released", LATER_S, "push_t")
    assert not world.journal.verified(A, "released", LATER_S)
    assert world.journal.rejected(B, "a bomb")
    assert not world.journal.rejected(B, "a bomb")
    assert world.journal.row(B).reason == "a bomb"
    assert len(world.journal.changes()) == 4
