"""What a person can take back, and is told before anything is pushed: of signatures, of keys and of stations."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.enrolment import Enrolment
from coordinator.errors import CoordinatorError
from coordinator.publish.repository import Repository
from coordinator.rollouts import Rollout
from coordinator.store import FILE, Store
from tests.harness.push_world import BUNDLE, EDGES, POLICY, command, files, keys_of, make_run, orders, push, pusher


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two people that has seen two stations."""
    return make_run(tmp_path_factory.mktemp("lab") / "run")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


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
