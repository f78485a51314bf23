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
from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.enrolment import Enrolment
from coordinator.errors import CoordinatorError
from coordinator.evolution.records import CandidateMade, DecisionMade, HypothesisMade
from coordinator.publish.keys import make
from coordinator.publish.publisher import Lab, Publisher
from coordinator.publish.push import Policy, Pushed, Pusher, PushRefused
from coordinator.publish.repository import Repository
from coordinator.push_watch import Seen, describe, follow, look, table
from coordinator.push_watch import said as told
from coordinator.rollouts import ENDED, FOR_GOOD, ON_THE_WAY, STATES, Rollout, reached, read_rollouts
from coordinator.store import FILE, Store
from edge.activation.table import STATES as EDGE_STATES
from edge.records import RolloutOrder, order_from_json

POLICY = Path(__file__).parents[2] / "policies" / "push_t"
EDGES = ("arm-01", "arm-02")
BUNDLE = "b" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two people that has seen two stations."""
    run = tmp_path_factory.mktemp("lab") / "run"
    make(run / "keys", humans=2, threshold=2)
    Lab.of(run)
    with Store(run / FILE) as store:
        for edge in EDGES:
            row = {"edge": edge, "epoch": "e", "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s"}
            store.station_seen({**row, "peak_memory_mb": 0.0}, 1.7e9)
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def keys_of(run: Path, *people: int) -> list[str]:
    return [str(run / "keys" / f"human-{number}.pem") for number in people]


def pusher(run: Path, *people: int) -> Pusher:
    return Pusher(run, None, keys_of(run, *people))


def push(run: Path, *people: int, stage: str = "active", edges: tuple[str, ...] = EDGES, **values: Any) -> Pushed:
    mine = pusher(run, *people)
    return mine.push(mine.find(str(POLICY), "it works"), edges, stage, 1, 1.0, **values)


def orders(run: Path) -> dict[str, RolloutOrder]:
    found = {edge: Repository.open(run / "trust").order(edge) for edge in EDGES}
    return {edge: order_from_json(data) for edge, data in found.items() if data is not None}


def files(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (run / "trust").rglob("*") if path.is_file()}


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


def test_what_waits_for_a_signature_is_withdrawn_and_another_policy_may_be_proposed(run: Path) -> None:
    waits = push(run, 1).bundle
    mine = pusher(run, 1, 2)
    with pytest.raises(CoordinatorError, match="withdraw it first"):
        mine.push(mine.find(str(POLICY), "another"), EDGES, "active", 1, 1.0)
    assert command(waits[:8], "--run", run, "--withdraw") == (0, f"{waits[:12]} released: withdrawn\n")
    assert Repository.open(run / "trust").waiting() == {}
    with pytest.raises(CoordinatorError, match="nothing about bundle"):
        pusher(run, 2).countersign(waits)
    assert mine.push(mine.find(str(POLICY), "another"), EDGES, "active", 1, 1.0).missing == 0


@pytest.mark.parametrize("words", [("--withdraw",), (BUNDLE, "--withdraw"), (POLICY, "--withdraw", "--dry-run")])
def test_what_cannot_be_withdrawn_is_refused(run: Path, words: tuple[object, ...]) -> None:
    push(run, 1)
    before = files(run)
    code, said = command("--run", run, *words)
    assert (code, len(said.splitlines())) == (2, 1)
    assert files(run) == before


def test_what_is_released_already_cannot_be_withdrawn(run: Path) -> None:
    with pytest.raises(CoordinatorError, match="nothing about bundle"):
        pusher(run, 1).withdraw(push(run, 1, 2).bundle)


def test_a_policy_that_is_no_python_is_refused_with_file_and_line(run: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(POLICY, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__")))
    whole = (source / "policy.py").read_text()
    (source / "policy.py").write_text(whole + "\ndef broken(:\n")
    code, said = command(source, "--run", run)
    assert code == 2
    assert f"policy.py does not compile: SyntaxError in line {len(whole.splitlines()) + 2} (" in said
    assert len(said.splitlines()) == 1


def test_the_public_half_of_a_key_is_no_signer_and_a_missing_one_is_not_made_good_by_others(run: Path) -> None:
    before = files(run)
    public = run / "keys" / "human-1.pub.pem"
    code, said = command(POLICY, "--run", run, "--signer", public)
    assert (code, said) == (2, f"enpire-coord: {public} is the public half of a key, which signs nothing; "
                               "name the private one\n")  # fmt: skip
    code, said = command(POLICY, "--run", run, "--signer", *keys_of(run, 1), "--signer", run / "nobody.pem")
    assert (code, "cannot read the private key" in said, len(said.splitlines())) == (2, True, 1)
    assert files(run) == before


def test_it_is_said_whose_keys_sign_where_nobody_has_named_them(run: Path) -> None:
    (run / "keys" / "human-2.pem").rename(run / "taken.pem")
    words = (POLICY, "--run", run, "--no-watch")
    mine = f"no --signer, so signed by human-1 in {run / 'keys'}"
    assert mine in command(*words)[1]
    [bundle] = {path.split("/")[-1] for path in Repository.open(run / "trust").waiting()["released"]}
    assert "no --signer" not in command(bundle, "--run", run, "--countersign", "--signer", run / "taken.pem")[1]
    assert "no --signer" not in command("--run", run, "--rollback")[1]


# -- stations ---------------------------------------------------------------------------------------------------------


def deny(run: Path, edge: str) -> None:
    with Enrolment(run / FILE) as enrolment:
        enrolment.ticket(edge, 1.0, 1.7e9)
        enrolment.revoke(edge, 1.7e9)


def test_a_revoked_station_is_neither_named_nor_among_all(run: Path) -> None:
    deny(run, "arm-01")
    assert pusher(run, 1).edges(()) == ("arm-02",)
    code, said = command(POLICY, "--run", run, "--edges", "arm-02,arm-01", "--dry-run")
    assert (code, said) == (
        2, "enpire-coord: 'arm-01' was revoked and hears nothing; leave it out, or enrol it anew\n",
    )  # fmt: skip
    deny(run, "arm-02")
    with pytest.raises(CoordinatorError, match="every station of this run was revoked"):
        pusher(run, 1).edges(())


A, B, C = "a" * 64, "b" * 64, "c" * 64


@pytest.mark.parametrize(
    ("rows", "can"),
    [
        ([], False),
        ([(A, "active", 1, 5.0)], False),
        ([(A, "superseded", 2, 9.1), (B, "active", 2, 9.0)], True),
        ([(A, "superseded", 1, 9.1), (B, "active", 2, 9.0)], False),  # said before its newest order
        ([(A, "superseded", 2, 9.1), (B, "active", 2, 20.0), (C, "rolled_back", 2, 20.0)], False),  # B has come back
        ([(A, "active", 2, 5.0), (B, "canary", 2, 9.0)], True),
        ([(B, "offered", 2, 9.0)], True),
        ([(A, "superseded", 2, 9.0)], False),
        ([(A, "revoked", 2, 9.0), (B, "active", 2, 5.0)], False),
    ],
)
def test_a_station_can_go_back_where_something_was_active_before_or_is_on_its_way(
    run: Path, rows: list[tuple[str, str, int, float]], can: bool
) -> None:
    store = Store(run / FILE)
    store.rollouts([Rollout("arm-01", name, number, state, "", "{}", at) for name, state, number, at in rows], 1.7e9)
    store.leave()
    push(run, 1, 2)
    before = orders(run)
    code, said = command("--run", run, "--rollback")
    without = "arm-02" if can else "arm-01, arm-02"
    assert f"nothing good to go back to on {without}" in said
    assert code == (0 if can else 2)
    assert (orders(run) != before) == can


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


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["push-policy", *map(str, words)])
    return done.exit_code, done.output


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


def gates(call: str = "wait") -> str:
    gauge = {"name": "pairs", "value": 3, "rule": "at least", "threshold": 20, "holds": False}
    return json.dumps({"canary": {"gate": "canary", "call": call, "note": "", "gauges": [gauge]}})


def say(run: Path, edge: str, state: str, number: int = 1, call: str = "wait", bundle: str = BUNDLE) -> None:
    store = Store(run / FILE)
    store.rollouts([Rollout(edge, bundle, number, state, "because", gates(call), 1.7e9)], 1.7e9)
    store.leave()


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
        said(state="best"), said(reason=5), said(gates="["), said(gates="[]"), said(gates='"x"'),
        said(gates="[" * 9000), said(gates='{"a": "' + "x" * 20000 + '"}'), said(since_unix_s=1),
    ],
)  # fmt: skip
def test_what_is_no_word_of_a_station_is_passed_over(raw: object) -> None:
    assert read_rollouts("arm-01", raw) == []
