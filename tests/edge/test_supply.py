"""A lease is taken once what it needs is here, verified by the station's own trust; what is wrong never is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge.records import PROTOCOL, encode
from edge.trust.client import MOST_BUNDLE_BYTES, Unreachable
from edge.uplink.courier import AFTER_REFUSAL_S, STOCK
from edge.uplink.network import Coordinator
from edge.uplink.supply import NotSupplied, StillComing
from edge.uplink.weights import AFTER_NO_ANSWER_S, AFTER_TAMPERED_S
from edge.wire import key_of
from policies.bundle import read_unpacked
from tests.harness.bundle_format import FILES, as_json, bundle_of, compressed, manifest_of, with_member
from tests.harness.lab_folder import TASK
from tests.harness.supply_world import DAY_S, EVERYTHING, TARGETS, TODAY_S, Station, supplied_station
from tests.harness.uplink_world import (
    EDGE,
    NOTHING_KNOWN,
    NOW_S,
    TRIAL,
    Desk,
    Reply,
    lease,
    leases,
    refuse,
    say,
)


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        yield station


# -- leases -----------------------------------------------------------------------------------------------------------


def test_work_is_kept_with_its_verified_bundle_and_no_more_is_asked_for_than_is_needed(here: Station) -> None:
    bundle = here.lab.bundle
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", "a2", sha256=bundle))
    here.courier.memory_mb = 310.0
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 2
    assert read_unpacked(here.settings.bundles / bundle).task == TASK
    row = here.journal.row(bundle)
    assert (row.state, row.role, row.expires_unix_s) == ("verified", "candidates", TODAY_S + DAY_S)
    [(_, question, _)] = [item for item in here.desk.asked if item[0] == key_of(EDGE, "lease")]
    assert msgpack.unpackb(question) == {
        "protocol": PROTOCOL, "edge": EDGE, "epoch": here.ledger.epoch, "task": TASK, "wants": STOCK,
        "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s", "memory_mb": 310.0,
    }  # fmt: skip
    here.desk.asked.clear()
    here.pass_time(60.0)
    here.courier.fetch_work(NOW_S + 60.0)
    assert here.desk.asked == []
    found = here.ledger.next_assignment(NOW_S)
    assert found is not None
    here.ledger.open_trial(*found, NOW_S)
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a3", sha256=bundle, lease_id="l2"))
    here.courier.fetch_work(NOW_S + 60.0)
    [(_, question, _)] = here.desk.asked  # the bundle is here already
    assert msgpack.unpackb(question)["wants"] == 1
    assert here.ledger.pending_count(NOW_S) == 2


def test_the_next_attempt_s_policy_is_here_and_verified_while_the_one_before_it_still_runs(here: Station) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", sha256=here.lab.bundle))
    here.courier.fetch_work(NOW_S)
    found = here.ledger.next_assignment(NOW_S)
    assert found is not None
    here.ledger.open_trial(*found, NOW_S)
    better = here.sign(bundle_of({**FILES, "policy.py": FILES["policy.py"] + b"# better\n"}))
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a2", sha256=better, lease_id="l2"))
    here.pass_time(60.0)
    here.courier.fetch_work(NOW_S)
    assert [item.assignment.assignment_id for item in here.ledger.open_trials()] == ["a1"]
    assert here.journal.row(better).state == "verified"
    assert read_unpacked(here.settings.bundles / better).task == TASK
    following = here.ledger.next_assignment(NOW_S)
    assert following is not None
    assert (following[0].assignment_id, following[0].bundle) == ("a2", better)


@pytest.mark.parametrize("unanswered", [EVERYTHING, TARGETS])
def test_a_lease_whose_bundle_gets_no_answer_is_not_taken_and_asked_for_again_later(
    here: Station, unanswered: tuple[str, ...]
) -> None:
    here.lend(here.lab.bundle)
    here.desk.unanswered = unanswered
    for _ in range(2):
        here.courier.fetch_work(NOW_S)
        assert here.ledger.pending_count(NOW_S) == 0
        assert "is not taken" in here.courier.refusal
        assert not here.settings.bundles.exists()
    assert len(here.desk.keys("lease")) == 1  # another is asked for only after a while
    here.desk.unanswered = ()
    here.pass_time(AFTER_NO_ANSWER_S)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 1
    assert len(here.desk.keys("lease")) == 2


@pytest.mark.parametrize("name", ["", "../ledger.db", "b" * 63, "B" * 64, "b" * 64 + "\n", "*", "b" * 64 + "/.."])
def test_a_bundle_s_name_that_is_no_hash_is_never_asked_for(here: Station, name: str) -> None:
    here.lend(name)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 0
    assert "is not the name of a bundle" in here.courier.refusal
    assert here.desk.keys("trust") == []
    assert here.arrows() == 0


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"task": "knitting"}, "knitting"),
        ({"expires_unix_s": NOW_S}, ""),
        ({"expires_unix_s": NOW_S - 1.0}, ""),
        ({"expires_unix_s": float("nan")}, ""),
    ],
)
def test_a_lease_that_is_not_for_here_and_now_is_not_taken(here: Station, values: dict[str, Any], refusal: str) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", sha256=here.lab.bundle, **values))
    here.courier.fetch_work(NOW_S)
    assert here.ledger.next_assignment(NOW_S - 60.0) is None
    assert here.desk.keys("trust") == []
    assert refusal in here.courier.refusal


@pytest.mark.parametrize(
    "reply", [say(b"\xc1"), say(5), say([5]), say([b"noise"]), say([encode(TRIAL)]), refuse("no room for you")]
)
def test_an_answer_that_is_no_lease_is_said_and_asked_for_again_only_later(here: Station, reply: Reply) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = reply
    for _ in range(3):
        here.courier.fetch_work(NOW_S)
        here.pass_time(0.5 * AFTER_REFUSAL_S)
    assert here.courier.refusal.startswith("no lease: ")
    assert len(here.desk.keys("lease")) == 1
    here.pass_time(10.0)
    here.courier.fetch_work(NOW_S)
    assert len(here.desk.keys("lease")) == 2


# -- wrong bundles ----------------------------------------------------------------------------------------------------


def altered(here: Station, change: Callable[[bytes], bytes]) -> str:
    """Return the name of the lab's bundle, which the coordinator hands out with another content."""
    path = here.carried(here.lab.bundle)
    path.write_bytes(change(path.read_bytes()))
    return here.lab.bundle


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def knitting() -> bytes:
    """Return a bundle for another task."""
    files = {**FILES, "policy.toml": FILES["policy.toml"].replace(b'task = "push_t"', b'task = "knitting"')}
    return bundle_of(files, as_json(manifest_of(files) | {"task": "knitting"}))


@dataclass(frozen=True)
class Wrong:
    """Something that stands for a bundle."""

    forge: Callable[[Station], str]  # returns its name
    refusal: str
    rejected: bool  # for good, as these are its own bytes
    downloads: int = 1


WRONG = {
    "named by nobody": Wrong(lambda here: "c" * 64, "no role names", False, 0),
    "signed for another task": Wrong(lambda here: here.sign(knitting(), "knitting"), "no role names", False, 0),
    "altered on the way": Wrong(lambda here: altered(here, flipped), "hash", False),
    "cut short": Wrong(lambda here: altered(here, lambda data: data[:-1]), "too early", False),
    "longer than was signed": Wrong(lambda here: altered(here, lambda data: data + b"\0"), "bytes", False),
    "nothing on the way": Wrong(lambda here: altered(here, lambda data: b""), "too early", False),
    "another bundle's bytes": Wrong(lambda here: here.sign(bundle_of(FILES), name="c" * 64), "other bytes", False, 0),
    "another's over the right name": Wrong(
        lambda here: here.sign(bundle_of(FILES), name=here.lab.bundle), "other bytes", False, 0
    ),
    "larger than any": Wrong(lambda here: here.sign(bytes(MOST_BUNDLE_BYTES + 1)), "at most", False, 0),
    "of another task": Wrong(lambda here: here.sign(knitting()), "'knitting'", True),
    "not as `build` makes them": Wrong(
        lambda here: here.sign(compressed(with_member("../sitecustomize.py"))), "sitecustomize", True
    ),
    "noise": Wrong(lambda here: here.sign(b"noise"), "", True),
    "nothing": Wrong(lambda here: here.sign(b""), "", True),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_bundle_that_is_not_right_is_never_unpacked_and_not_asked_for_every_turn(here: Station, wrong: Wrong) -> None:
    bundle = wrong.forge(here)
    here.lend(bundle)
    for turn in range(3):
        here.pass_time(AFTER_TAMPERED_S / 4)
        here.courier.fetch_work(NOW_S + turn)
        assert here.ledger.pending_count(NOW_S) == 0
        assert not here.settings.bundles.exists()
        assert bundle[:12] in here.courier.refusal
        assert wrong.refusal in here.courier.refusal
        assert "\n" not in here.courier.refusal
    assert len(here.desk.keys("lease")) == 3
    assert here.downloads() == wrong.downloads
    assert here.journal.row(bundle).state == ("rejected" if wrong.rejected else "none")


def test_a_rejected_bundle_is_not_asked_for_after_a_restart_either(here: Station) -> None:
    bundle = here.sign(b"noise")
    for _ in range(2):
        with pytest.raises(NotSupplied, match=bundle[:12]):
            here.supply.bring(bundle)
        here.start()
    assert here.downloads() == 1


def test_bytes_that_were_altered_on_the_way_are_asked_for_again_after_a_while(here: Station) -> None:
    good = here.carried(here.lab.bundle).read_bytes()
    bundle = altered(here, flipped)
    with suppress(NotSupplied):
        here.supply.bring(bundle)
    here.carried(bundle).write_bytes(good)
    here.pass_time(AFTER_TAMPERED_S / 2)
    with pytest.raises(NotSupplied, match="hash"):
        here.supply.bring(bundle)
    here.pass_time(AFTER_TAMPERED_S / 2)
    here.supply.bring(bundle)
    assert here.downloads() == 2
    assert here.journal.row(bundle).state == "verified"


def test_files_that_are_gone_or_damaged_are_fetched_anew(here: Station) -> None:
    bundle = here.lab.bundle
    here.order(1, bundle)
    here.turn()
    for downloads, damage in ((2, shutil.rmtree), (3, lambda folder: (folder / "policy.py").unlink())):
        damage(here.settings.bundles / bundle)
        here.journal.take("lose", bundle, "its unpacked files are gone or damaged")
        here.turn()
        assert here.downloads() == downloads
        assert read_unpacked(here.settings.bundles / bundle).task == TASK
        assert (here.journal.row(bundle).state, here.journal.row(bundle).missing) == ("verified", False)


# -- out of reach -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_verified_goes_on_out_of_reach_until_its_signature_expires_and_not_after(
    here: Station, restarted: bool
) -> None:
    bundle = here.lab.bundle
    here.supply.bring(bundle)
    expires_unix_s = here.journal.row(bundle).expires_unix_s
    here.desk.unanswered = EVERYTHING
    for before_s in (DAY_S - 1.0, 2.0, 1.0, 0.001):
        here.now_unix_s[0] = expires_unix_s - before_s
        if restarted:
            here.start()
        here.supply.bring(bundle)
        with pytest.raises(Unreachable):
            here.turn()
    for after_s in (0.0, 1.0, DAY_S):
        here.now_unix_s[0] = expires_unix_s + after_s
        if restarted:
            here.start()
        with pytest.raises(Unreachable):
            here.supply.bring(bundle)
    assert here.journal.row(bundle).state == "verified"
    here.lab.repository.renew(here.lab.ring)
    here.desk.unanswered = ()
    here.supply.bring(bundle)
    assert here.journal.row(bundle).expires_unix_s > here.now()
    assert here.downloads() == 1


def test_a_bundle_that_was_never_here_cannot_be_had_out_of_reach(here: Station) -> None:
    here.turn()
    here.desk.unanswered = TARGETS
    with pytest.raises(StillComing, match="no answer"):
        here.supply.bring(here.lab.bundle)
    assert here.arrows() == 0


def test_no_answer_changes_nothing_and_stops_no_trials(here: Station) -> None:
    here.desk.unanswered = EVERYTHING
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN)
    here.desk.replies[key_of(EDGE, "lease")] = leases()
    for _ in range(9):  # within the pause
        here.courier.turn(NOW_S)
        here.pass_time(1.0)
    assert len(here.desk.keys("trust")) == 1
    assert here.arrows() == 0
    assert here.courier.refusal.startswith("nothing new is known of what may run here: ")
