"""A push releases, orders and is followed; what may not be ordered is refused and leaves everything as it was."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coordinator.errors import CoordinatorError
from coordinator.evolution.records import CandidateMade, DecisionMade, HypothesisMade
from coordinator.publish.publisher import Publisher
from coordinator.publish.push import Policy, Pushed, Pusher, PushRefused
from coordinator.publish.repository import Repository
from coordinator.push_watch import Seen, describe, follow, look, table
from coordinator.push_watch import said as told
from coordinator.rollouts import ENDED, FOR_GOOD, ON_THE_WAY, STATES, Rollout, reached, read_rollouts
from coordinator.store import FILE, Store
from edge.activation.table import STATES as EDGE_STATES
from edge.records import NUMBERS_AHEAD
from tests.harness.push_world import (
    BUNDLE,
    EDGES,
    POLICY,
    command,
    files,
    gates,
    keys_of,
    make_run,
    orders,
    push,
    pusher,
    say,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two people that has seen two stations."""
    return make_run(tmp_path_factory.mktemp("lab") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_two_people_release_a_policy_and_each_station_is_ordered_to_bring_it_into_force(run: Path) -> None:
    done = push(run, 1, 2, stage="canary")
    assert (done.missing, done.numbers) == (0, {"arm-01": 1, "arm-02": 1})
    given = orders(run)
    assert {order.bundle for order in given.values()} == {done.bundle}
    first = given["arm-01"]
    assert (first.stage, first.number, first.rollback, first.task) == ("canary", 1, False, "push_t")
    assert len({start.start_id for start in first.starts}) == 40
    assert first.until_unix_s == pytest.approx(first.issued_unix_s + 3600.0)
    with Store(run / FILE) as store:
        kept = store._db.execute("SELECT what, bundle, stage, edges, signers, seed FROM pushes").fetchall()
        assert store.bundle(done.bundle) is not None
    assert kept == [("push", done.bundle, "canary", json.dumps(EDGES), json.dumps(done.signers), 1)]
    assert len(done.signers) == 2


def test_one_of_two_people_orders_nothing_until_the_other_has_signed(run: Path) -> None:
    done = push(run, 1)
    assert done.missing == 1
    assert orders(run) == {}
    assert pusher(run, 2).countersign(done.bundle).missing == 0
    assert push(run, 1).missing == 0
    assert orders(run)["arm-02"].bundle == done.bundle


def test_numbers_rise_with_every_order_and_a_rollback_is_one(run: Path) -> None:
    push(run, 1, 2)
    push(run, 1, 2, edges=("arm-01",))
    mine = pusher(run, 1)
    done = mine.rollback(EDGES, mine.task_of(EDGES))
    assert done.numbers == {"arm-01": 3, "arm-02": 2}
    assert {(order.rollback, order.bundle) for order in orders(run).values()} == {(True, "")}


def test_a_repository_from_a_backup_goes_on_above_what_stations_know(run: Path) -> None:
    say(run, "arm-01", "active", number=7)
    assert push(run, 1, 2).numbers == {"arm-01": 8, "arm-02": 1}


def test_the_same_seed_draws_the_same_starts_and_another_draws_others(run: Path) -> None:
    mine = pusher(run, 1, 2)
    policy = mine.find(str(POLICY), "it works")
    drawn = []
    for seed in (1, 1, 2):
        mine.push(policy, EDGES, "active", seed, 1.0)
        drawn.append(orders(run)["arm-01"].starts)
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_dry_run_writes_nothing(run: Path) -> None:
    before = files(run)
    assert push(run, 1, 2, dry_run=True).numbers == {"arm-01": 1, "arm-02": 1}
    assert push(run, 1, dry_run=True).missing == 1
    mine = pusher(run, 1)
    mine.rollback(EDGES, "push_t", dry_run=True)
    mine.revoke(BUNDLE, "now", EDGES, dry_run=True)
    assert files(run) == before


def test_one_person_revokes_and_what_is_revoked_is_never_pushed_again(run: Path) -> None:
    done = push(run, 1, 2)
    pusher(run, 2).revoke(done.bundle, "now", EDGES)
    assert Repository.open(run / "trust").revoked() == {done.bundle: "now"}
    with pytest.raises(PushRefused, match="revoked for good"):
        push(run, 1, 2)


def test_two_people_may_let_a_policy_skip_its_canary_and_one_may_not(run: Path) -> None:
    done = push(run, 1, 2)
    assert pusher(run, 1).override(done.bundle).missing == 1
    assert pusher(run, 2).countersign(done.bundle).missing == 0


def test_a_policy_of_the_run_is_found_by_how_its_name_begins_and_as_the_incumbent(run: Path) -> None:
    mine = pusher(run, 1)
    built = mine.find(str(POLICY), "it works")
    with Store(run / FILE) as store:
        now = 1.7e9
        row = {
            "bundle": built.bundle, "parent": None, "task": "push_t", "policy": "push_t", "params": {},
            "manifest": built.manifest, "archive": built.archive, "created_unix_s": now,
        }  # fmt: skip
        store.add_bundle(row)
        store.write([
            HypothesisMade(1, "offline", "seed", "It works.", "It does not.", {}, now),
            CandidateMade(1, 1, built.bundle, None, "screen", now),
            DecisionMade(1, 1, "accept", "seed", "first", 0, 0, 0, 1.0, 0, 0, 0, 0, 0.0, 0, now),
        ])  # fmt: skip
    for name in (built.bundle[:8], built.bundle, "incumbent"):
        assert mine.find(name, "") == Policy(
            built.bundle, "push_t", built.archive, json.loads(json.dumps(built.manifest))
        )


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (lambda mine: mine.find("nowhere", ""), "no folder with a policy.toml"),
        (lambda mine: mine.find("incumbent", ""), "no such bundle"),
        (lambda mine: mine.find("abcdef", ""), "no such bundle"),
        (lambda mine: mine.find(str(POLICY.parent), ""), "makes no bundle"),
        (lambda mine: mine.edges(["arm-09"]), "'arm-09' is no station of this run; known: arm-01, arm-02"),
        (lambda mine: mine.push(mine.find(str(POLICY), ""), EDGES, "all", 1, 1.0), "known: shadow, canary, active"),
        (lambda mine: mine.revoke(BUNDLE, "soon", EDGES), "known: next-trial, now"),
        (lambda mine: mine.task_of(EDGES), "never ordered anything"),
        (lambda mine: mine.countersign(BUNDLE), "nothing about bundle"),
        (lambda mine: mine.withdraw(BUNDLE), "nothing about bundle"),
    ],
)
def test_what_may_not_be_ordered_is_refused_in_one_line(
    run: Path, order: Callable[[Pusher], object], says: str
) -> None:
    before = files(run)
    with pytest.raises(CoordinatorError) as caught:
        order(pusher(run, 1, 2))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(run) == before


def with_weights(folder: Path, weights: bytes) -> Path:
    source = Path(shutil.copytree(POLICY, folder / "source", ignore=shutil.ignore_patterns("__pycache__")))
    name = hashlib.sha256(weights).hexdigest()
    toml = source / "policy.toml"
    toml.write_text(toml.read_text() + f'\n[weights]\n"net.onnx" = ["{name}", {len(weights)}]\n')
    return source


def test_weights_are_released_with_their_policy(run: Path, tmp_path: Path) -> None:
    weights = b"the weights of a net"
    source = with_weights(tmp_path, weights)
    mine = pusher(run, 1, 2)
    with pytest.raises(PushRefused, match=r"net\.onnx is not in"):
        mine.find(str(source), "")
    (source / "net.onnx").write_bytes(weights)
    policy = mine.find(str(source), "")
    with pytest.raises(CoordinatorError, match="add every --signer"):
        pusher(run, 1).push(policy, EDGES, "active", 1, 1.0)
    Repository.open(run / "trust").withdraw("weights")
    assert mine.push(policy, EDGES, "active", 1, 1.0).missing == 0
    name = hashlib.sha256(weights).hexdigest()
    assert Repository.open(run / "trust").file(f"targets/weights/{name}.{name}") == weights


def test_a_demo_s_own_person_needs_no_signer(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        publisher = Publisher.for_demo(POLICY, tmp_path, store)
        name = publisher.publish({}, {"hypothesis": "it works", "researcher": "a test"}, None)
        row = {"edge": "arm-01", "epoch": "e", "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s"}
        store.station_seen({**row, "peak_memory_mb": 0.0}, 1.7e9)
    mine = Pusher(tmp_path)
    assert mine.push(mine.find(name[:10], ""), mine.edges(()), "active", 1, 1.0).missing == 0


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_would_be_ordered(run: Path) -> None:
    code, said = command(POLICY, "--run", run, "--dry-run", "--edges", "arm-02")
    assert (code, said.startswith("arm-02 would be ordered to bring")) == (0, True)
    code, said = command(POLICY, "--run", run, "--dry-run", "--json")
    assert json.loads(said)["edges"] == list(EDGES)


def test_the_command_asks_for_the_signature_that_is_missing(run: Path) -> None:
    code, said = command(POLICY, "--run", run, "--signer", *keys_of(run, 1))
    assert code == 1
    assert "is not ordered yet: 1 more signature needed" in said
    [words] = re.findall(r"enpire-coord (push-policy .*) KEY", said)
    _, bundle, *others = words.split()
    code, said = command(bundle, *others, *keys_of(run, 2))  # what it says works, without the policy's folder
    assert (code, said) == (0, f"{bundle} released: signed, complete\n")


@pytest.mark.parametrize("option", ["--countersign", "--override"])
def test_a_dry_run_signs_nothing(run: Path, option: str) -> None:
    push(run, 1)
    before = files(run)
    code, said = command(POLICY, "--run", run, option, "--dry-run", "--signer", *keys_of(run, 2))
    assert (code, "signs nothing" in said) == (2, True)
    assert files(run) == before


def test_a_watching_that_ran_out_says_so_and_has_a_code_of_its_own(run: Path) -> None:
    words = (POLICY, "--run", run, "--timeout-s", 0.1)
    code, said = command(*words, *[part for key in keys_of(run, 1, 2) for part in ("--signer", key)])
    assert code == 3
    assert "the order stands" in said


def test_what_is_said_of_a_stage_is_its_own_gate_s_sentence() -> None:
    ruling = json.loads(gates())
    ruling["canary"]["note"] = "3 successes beside 2"
    assert told(Seen("canary", "the shadow's sentence", ruling, False, False)) == (
        "3 successes beside 2 (- pairs 3 (at least 20))"
    )
    assert told(Seen("rolled_back", "it was worse", ruling, True, False)) == "it was worse"


@pytest.mark.parametrize("words", [(), ("nowhere",), ("abcdef", "--revoke"), (POLICY, "--edges", "arm-09")])
def test_the_command_refuses_in_one_line(run: Path, words: tuple[object, ...]) -> None:
    code, said = command(*words, "--run", run)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert said.startswith("enpire-coord: ")


def test_no_run_is_refused(tmp_path: Path) -> None:
    assert command(POLICY, "--run", tmp_path) == (
        2, f"enpire-coord: no run in {tmp_path}: name the folder of one with --run\n",
    )  # fmt: skip


# -- watching ---------------------------------------------------------------------------------------------------------


def test_a_station_that_claims_a_far_order_uses_up_no_numbers(run: Path) -> None:
    push(run, 1, 2)
    say(run, "arm-01", "active", number=2**53)
    assert push(run, 1, 2).numbers == {"arm-01": 1 + NUMBERS_AHEAD + 1, "arm-02": 2}
    assert orders(run)["arm-01"].number == 1 + NUMBERS_AHEAD + 1  # one that can be read, and so taken


def pushed(stage: str = "active", numbers: int = 1) -> Pushed:
    return Pushed("push", BUNDLE, "push_t", stage, EDGES, dict.fromkeys(EDGES, numbers), (), 0, 1)


def test_states_are_the_stations_own() -> None:
    assert set(STATES) == {*EDGE_STATES, "denied"}
    assert STATES[: len(ON_THE_WAY)] == ON_THE_WAY
    assert set(FOR_GOOD) < set(ENDED) < set(STATES)


@pytest.mark.parametrize(
    ("state", "call", "stage", "ended", "good"),
    [
        ("offered", "wait", "active", False, False),
        ("canary", "wait", "active", False, False),
        ("canary", "pass", "active", False, False),
        ("active", "pass", "active", True, True),
        ("canary", "wait", "canary", False, True),
        ("canary", "pass", "canary", True, True),
        ("probation", "pass", "canary", True, True),
        ("shadow", "wait", "canary", False, False),
        ("rolled_back", "fail", "active", True, False),
        ("rolled_back", "fail", "canary", True, False),
        ("rejected", "fail", "shadow", True, False),
        ("denied", "fail", "active", True, False),
        ("superseded", "pass", "active", False, False),
    ],
)
def test_a_station_is_watched_until_it_has_come_through_or_gone_back(
    run: Path, state: str, call: str, stage: str, ended: bool, good: bool
) -> None:
    say(run, "arm-01", state, call=call)
    seen = look(run, pushed(stage))
    assert (seen["arm-01"].ended, seen["arm-01"].good) == (ended, good)
    assert (seen["arm-02"].state, seen["arm-02"].ended) == ("ordered", False)


def test_what_a_station_said_of_an_older_order_is_no_answer_but_what_it_refuses_for_good_is(run: Path) -> None:
    say(run, "arm-01", "rolled_back", number=1)
    say(run, "arm-02", "denied", number=1)
    seen = look(run, pushed(numbers=2))
    assert (seen["arm-01"].state, seen["arm-01"].ended) == ("ordered", False)
    assert (seen["arm-02"].state, seen["arm-02"].ended, seen["arm-02"].good) == ("denied", True, False)


def test_the_watching_ends_when_all_have_ended_and_shows_values_beside_thresholds(run: Path) -> None:
    say(run, "arm-01", "active", call="pass")
    say(run, "arm-02", "rolled_back", call="fail")
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    seen = follow(run, pushed(), 60.0, console)
    assert {edge: item.good for edge, item in seen.items()} == {"arm-01": True, "arm-02": False}
    console.print(table(pushed(), seen))
    assert "rolled_back" in console.export_text()
    waiting = Seen("canary", "", json.loads(gates()), False, False)
    assert describe(waiting) == "- pairs 3 (at least 20)"


def test_a_watching_that_may_take_no_longer_ends(run: Path) -> None:
    seen = follow(run, pushed(), 0.05, Console(file=open("/dev/null", "w")))  # noqa: SIM115
    assert not any(item.ended for item in seen.values())


def said(**values: Any) -> dict[str, Any]:
    item = {"bundle": BUNDLE, "state": "shadow", "reason": "r", "gates": "{}", "since_unix_s": 1.0, **values}
    return {"number": 1, "bundles": [item]}


def test_a_station_s_word_is_read() -> None:
    assert read_rollouts("arm-01", said()) == [Rollout("arm-01", BUNDLE, 1, "shadow", "r", "{}", 1.0)]
    assert reached("canary", "shadow")
    assert not reached("shadow", "canary")
    assert not reached("rolled_back", "shadow")


@pytest.mark.parametrize(
    "raw",
    [
        None, 5, [], {}, {"number": 1}, {"number": -1, "bundles": []}, {"number": "1", "bundles": []},
        {"number": 1, "bundles": [5]}, {"number": 1, "bundles": [{}] * 9}, said(bundle="b"), said(bundle=5),
        {**said(), "number": 2**53 + 1}, {**said(), "number": 2**63},
        said(state="best"), said(reason=5), said(gates="["), said(gates="[]"), said(gates='"x"'),
        said(gates="[" * 9000), said(gates='{"a": "' + "x" * 20000 + '"}'), said(since_unix_s=1),
    ],
)  # fmt: skip
def test_what_is_no_word_of_a_station_is_passed_over(raw: object) -> None:
    assert read_rollouts("arm-01", raw) == []
