"""What the lab revokes, orders and signs reaches a station's journal, once, and nothing else does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.trust.client import MOST_ORDER_BYTES, Trust, Unreachable
from edge.trust.folder import FolderFetcher
from edge.uplink.network import Coordinator
from edge.uplink.supply import REFRESH_EVERY_S, NotSupplied
from edge.wire import key_of
from edge.wire.targets import NEXT_TRIAL, NOW
from policies.bundle import bundle_id
from tests.harness.bundle_format import FILES, bundle_of
from tests.harness.lab_folder import TASK
from tests.harness.supply_world import DAY_S, EVERYTHING, TODAY_S, Station, supplied_station
from tests.harness.uplink_world import (
    EDGE,
    NOTHING_KNOWN,
    NOW_S,
    Desk,
    lease,
    leases,
    say,
)


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        yield station


# -- revocations ------------------------------------------------------------------------------------------------------


def test_a_revoked_bundle_is_noted_once_and_its_lease_refused(here: Station) -> None:
    bundle, ring = here.lab.bundle, here.lab.ring
    here.supply.bring(bundle)
    for when in (NEXT_TRIAL, NOW, NEXT_TRIAL):
        here.lab.repository.revoke(bundle, when, ring.humans[1], ring)
        here.turn()
        row = here.journal.row(bundle)
        assert (row.state, row.stop) == ("revoked", NEXT_TRIAL if when == NEXT_TRIAL and row.stop != NOW else NOW)
    assert row.stop == NOW  # what must stop now does not become less urgent
    arrows = here.arrows()
    here.turn()
    assert here.arrows() == arrows
    here.lend(bundle)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 0
    assert f"bundle {bundle[:12]} is revoked" in here.courier.refusal


def test_a_bundle_that_is_revoked_before_it_was_heard_of_is_never_asked_for(here: Station) -> None:
    bundle, ring = here.lab.bundle, here.lab.ring
    here.lab.repository.revoke(bundle, NEXT_TRIAL, ring.humans[0], ring)
    here.order(1, bundle)
    here.turn()
    with pytest.raises(NotSupplied, match="is revoked"):
        here.supply.bring(bundle)
    assert here.downloads() == 0
    assert "is revoked" in here.supply.refusal  # and so is the order


def test_what_was_once_learned_to_be_revoked_is_noted_without_an_answer(here: Station) -> None:
    bundle, ring = here.lab.bundle, here.lab.ring
    here.supply.bring(bundle)
    here.lab.repository.revoke(bundle, NOW, ring.humans[0], ring)
    # E.g. from a USB stick, or this process has ended before it could write the journal.
    Trust(here.settings.trust, FolderFetcher(here.lab.repository.folder), here.now).refresh()
    here.desk.unanswered = EVERYTHING
    here.start()
    with pytest.raises(Unreachable):
        here.turn()
    assert here.journal.row(bundle).stop == NOW


# -- orders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_an_order_is_taken_once_and_its_bundle_fetched(here: Station, restarted: bool) -> None:
    order = here.order(3, here.lab.bundle)
    here.turn()
    assert here.journal.line().order == order
    assert [change.event for change in here.journal.changes()] == ["offer", "fetch", "verify"]
    for _ in range(3):
        if restarted:
            here.start()
        here.turn()
    assert (here.arrows(), here.downloads(), here.supply.refusal) == (3, 1, "")


def test_an_order_with_a_lower_number_is_refused_and_the_status_says_so(here: Station) -> None:
    standing = here.order(5, here.lab.bundle)
    here.turn()
    arrows = here.arrows()
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN)
    here.desk.replies[key_of(EDGE, "lease")] = leases()
    for number in (4, 5):
        here.order(number, here.sign(bundle_of(FILES)))
        here.pass_time(REFRESH_EVERY_S)
        here.courier.turn(NOW_S)
        assert here.courier.refusal.startswith(f"order {number} is refused: orders up to 5 were seen here")
    assert (here.journal.line().order, here.arrows()) == (standing, arrows)


GARBAGE = {
    "nothing": b"",
    "half a map": b"{",
    "no map": b"[]",
    "an empty map": b"{}",
    "a number": b"7",
    "no text": b"\xff\xfe",
    "deep": b"[" * 20_000,
    "too large": b" " * (MOST_ORDER_BYTES + 1),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_an_order_that_is_none_changes_nothing(here: Station, garbage: bytes) -> None:
    standing = here.order(1, here.lab.bundle)
    here.turn()
    arrows = here.arrows()
    here.lab.repository.assign(EDGE, garbage, here.lab.ring)
    here.desk.asked.clear()
    for _ in range(3):
        here.turn()
        assert here.supply.refusal
        assert "\n" not in here.supply.refusal
    assert sum("/targets/" in key for key in here.desk.keys("trust")) == (len(garbage) <= MOST_ORDER_BYTES)
    assert (here.journal.line().order, here.arrows()) == (standing, arrows)
    following = here.order(2, here.lab.bundle)
    here.turn()
    assert here.journal.line().order == following


def test_an_order_for_another_station_is_not_taken(here: Station) -> None:
    here.order(1, here.lab.bundle, edge="station-2")
    here.turn()
    assert (here.journal.line().order, here.arrows(), here.supply.refusal) == (None, 0, "")


def test_an_order_for_a_bundle_that_nobody_signs_waits_and_says_why(here: Station) -> None:
    bundle = bundle_id(bundle_of(FILES))
    here.order(1, bundle)
    here.turn()
    assert here.journal.row(bundle).state == "offered"
    assert "no role names" in here.supply.refusal
    here.sign(bundle_of(FILES))
    here.turn()
    assert here.journal.row(bundle).state == "verified"


# -- what people sign -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_a_candidate_that_people_release_is_upgraded_and_not_fetched_again(here: Station, ordered: bool) -> None:
    bundle, ring = here.lab.bundle, here.lab.ring
    if ordered:
        here.order(1, bundle)
    else:
        here.supply.bring(bundle)
    here.turn()
    assert here.journal.row(bundle).role == "candidates"
    one, other = ring.humans
    here.lab.repository.release(TASK, here.lab.archive, [one], ring)
    here.turn()
    assert here.journal.row(bundle).role == "candidates"  # one is not enough
    here.lab.repository.countersign(bundle, other, ring)
    here.turn()
    if not ordered:
        here.supply.bring(bundle)  # as its next lease does
    row = here.journal.row(bundle)
    assert (row.state, row.role, row.expires_unix_s) == ("verified", "released", TODAY_S + 30 * DAY_S)
    assert here.downloads() == 1


def test_an_override_reaches_the_journal_once_two_have_signed_it(here: Station) -> None:
    bundle, ring = here.lab.bundle, here.lab.ring
    here.order(1, bundle)
    one, other = ring.humans
    here.lab.repository.override(bundle, [one], ring)
    here.turn()
    assert not here.journal.overridden(bundle)
    here.lab.repository.countersign(bundle, other, ring)
    here.turn()
    assert here.journal.overridden(bundle)


def test_an_override_ends_with_its_signature(here: Station) -> None:
    bundle = here.lab.bundle
    here.order(1, bundle)
    here.turn()
    here.journal.override(bundle, True)  # of two who had signed it once; nobody does now
    here.turn()
    assert not here.journal.overridden(bundle)


# -- the lab's own troubles -------------------------------------------------------------------------------------------


def test_metadata_that_is_refused_is_said_and_what_is_here_goes_on(here: Station) -> None:
    bundle = here.lab.bundle
    here.supply.bring(bundle)
    timestamp = here.lab.repository.folder / "metadata" / "timestamp.json"
    timestamp.write_bytes(timestamp.read_bytes().replace(b'"version":', b'"version": 9'))
    here.turn()
    assert here.supply.refusal
    here.supply.bring(bundle)
    assert here.journal.row(bundle).state == "verified"


def test_a_station_that_trusts_nobody_says_so_and_takes_no_lease(here: Station) -> None:
    (here.settings.trust / "root.json").unlink()
    here.lend(here.lab.bundle)
    here.turn()
    assert "trusts nobody" in here.supply.refusal
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 0
    assert "trusts nobody" in here.courier.refusal


def test_the_lab_is_asked_once_a_second_whatever_comes_of_it(here: Station) -> None:
    here.turn()
    here.desk.asked.clear()
    for _ in range(5):
        here.supply.turn()
    assert here.desk.asked == []
    here.desk.unanswered = EVERYTHING
    with pytest.raises(Unreachable):
        here.turn()
    here.supply.turn()
    assert len(here.desk.asked) == 1


# -- what a lease may not ask for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "purpose"),
    [("a1", "canary"), ("a1", "probation"), ("a1", "shadow"), ("rollout-1-canary-n-o-000-old-0", "play")],
)
def test_no_lease_makes_evidence_of_a_roll_out(here: Station, name: str, purpose: str) -> None:
    bundle = here.lab.bundle
    [made] = lease(name, sha256=bundle).assignments
    forged = replace(lease(name, sha256=bundle), assignments=(replace(made, purpose=purpose),))
    here.desk.replies[key_of(EDGE, "lease")] = leases(forged)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 0
    assert "this station's own" in here.courier.refusal


# -- what serves nothing any more -------------------------------------------------------------------------------------


def test_only_what_is_needed_and_the_newest_of_the_rest_are_kept(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.uplink.supply.BUNDLES_KEPT", 2)
    bundle = here.lab.bundle
    here.order(1, bundle)
    here.turn()
    os.utime(here.settings.bundles / bundle, (1.0, 1.0))
    spare = [f"{number}" * 64 for number in range(5)]
    for age, name in enumerate(spare):
        (here.settings.bundles / name).mkdir()
        os.utime(here.settings.bundles / name, (100.0 - age, 100.0 - age))
    assert here.supply.prune([spare[4]]) == [spare[3], spare[2]]
    assert {path.name for path in here.settings.bundles.iterdir()} == {bundle, spare[0], spare[1], spare[4]}
    assert here.supply.prune([]) == [spare[4]]


def test_weights_go_once_no_bundle_links_to_them(here: Station) -> None:
    here.settings.weights.mkdir()
    for name in ("linked", "unused", "new"):
        (here.settings.weights / name).write_bytes(b"weights")
    os.link(here.settings.weights / "linked", here.settings.folder / "link")
    for name in ("linked", "unused"):
        os.utime(here.settings.weights / name, (1.0, 1.0))
    here.supply.prune([])
    assert {path.name for path in here.settings.weights.iterdir()} == {"linked", "new"}
