"""What is ordered has the disk's room first, and what nobody wants any more goes from it in the end."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from edge.records import RolloutOrder, RolloutStart, order_to_json
from edge.uplink.courier import MAKE_ROOM_EVERY_S, Courier
from edge.uplink.network import Coordinator
from edge.uplink.supply import BUNDLES_KEPT, NotSupplied, StillComing, Supply
from edge.wire import key_of
from edge.wire.targets import PIECE_BYTES
from tests.harness.lab_folder import TASK
from tests.harness.supply_world import DAY_S, Station, supplied_station
from tests.harness.uplink_world import EDGE, NOTHING_KNOWN, NOW_S, Desk, leases, say

ROLL = random.Random(13)
LEASED, ORDERED, OTHER = (ROLL.randbytes(4 * PIECE_BYTES) for _ in range(3))
RESERVE_MB = 1.0


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        station.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN)
        station.desk.replies[key_of(EDGE, "lease")] = leases()
        yield station


def with_room(here: Station, pieces: float) -> None:
    """Start the uplink anew on a disk that holds so many pieces of weights beside what trials need.

    Every turn is too short for more than one of them.
    """
    here.settings = replace(here.settings, reserve_mb=RESERVE_MB, disk_mb=RESERVE_MB)

    def space(folder: Path) -> tuple[float, float]:
        files = [path.stat() for path in folder.rglob("*") if path.suffix == ".onnx" or path.parent.name == "weights"]
        used_mb = sum({status.st_ino: status.st_size for status in files}.values()) / 1e6
        return RESERVE_MB + pieces * PIECE_BYTES / 1e6 - used_mb, 1000.0

    here.supply = Supply(
        here.settings, here.trust, here.journal, lambda: here.clock_s[0], weights_within_s=0.0, space=space
    )
    here.courier = Courier(here.settings, here.ledger, here.line, here.supply, "s", lambda: here.clock_s[0])


def some_turns(here: Station, *leased: str) -> None:
    """Let the courier take turns for long enough to make room twice; bundles are leased all the while."""
    for _ in range(25):
        here.pass_time(MAKE_ROOM_EVERY_S / 10)
        here.courier.turn(NOW_S)
        for bundle in leased:
            with suppress(NotSupplied):
                here.supply.bring(bundle)


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


def weights_of(here: Station, data: bytes) -> Path:
    return here.settings.weights / hashlib.sha256(data).hexdigest()


# -- room -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [0, 2, 4])
def test_what_is_ordered_comes_though_leased_weights_have_its_room(here: Station, begun: int) -> None:
    with_room(here, 6.5)
    leased, ordered = here.release_weights(LEASED), here.release_weights(ORDERED)
    for _ in range(begun):
        with suppress(StillComing):
            here.supply.bring(leased)
    here.order(1, ordered)
    some_turns(here, leased)
    assert here.journal.row(ordered).state == "verified"
    assert (here.settings.bundles / ordered / "net.onnx").read_bytes() == ORDERED
    assert here.journal.row(leased).state in ("none", "fetched") or begun == 4
    assert not weights_of(here, LEASED).exists()


def test_only_as_much_goes_as_is_needed_and_the_oldest_first(here: Station) -> None:
    with_room(here, 12.5)
    older, newer, ordered = (here.release_weights(data) for data in (LEASED, OTHER, ORDERED))
    for days, bundle, data in ((2.0, older, LEASED), (1.0, newer, OTHER)):
        while here.journal.row(bundle).state != "verified":
            with suppress(StillComing):
                here.supply.bring(bundle)
        age(here.settings.bundles / bundle, days)
        age(weights_of(here, data), days + 0.1)
    with_room(here, 8.5)
    here.order(1, ordered)
    some_turns(here)
    assert here.journal.row(ordered).state == "verified"
    assert {path.name for path in here.settings.bundles.iterdir()} == {newer, ordered}


def test_nothing_goes_where_all_of_it_would_be_too_little(here: Station) -> None:
    with_room(here, 3.5)
    leased, ordered = here.release_weights(LEASED[: 2 * PIECE_BYTES]), here.release_weights(ORDERED)
    while here.journal.row(leased).state != "verified":
        with suppress(StillComing):
            here.supply.bring(leased)
    here.order(1, ordered)
    some_turns(here)
    assert here.journal.row(ordered).state == "fetched"
    assert "free some on" in here.courier.refusal
    assert (here.settings.bundles / leased / "net.onnx").exists()
    other = here.release_weights(OTHER[:PIECE_BYTES])  # and it keeps no other bundle out
    some_turns(here, other)
    assert here.journal.row(other).state == "verified"


def test_what_trials_need_stays_though_what_is_ordered_lacks_room(here: Station) -> None:
    with_room(here, 6.5)
    needed, ordered = here.release_weights(LEASED), here.release_weights(ORDERED)
    here.lend(needed)
    for _ in range(9):
        here.pass_time(1.0)
        here.courier.fetch_work(NOW_S)
    assert here.ledger.bundles_needed() == {needed}
    here.order(1, ordered)
    some_turns(here)
    assert (here.settings.bundles / needed / "net.onnx").read_bytes() == LEASED
    assert here.journal.row(ordered).state == "fetched"


# -- what goes in the end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "stays"), [(13.9, True), (14.1, False)])
def test_an_ordered_bundle_that_never_comes_keeps_no_weights_for_ever(here: Station, days: float, stays: bool) -> None:
    starts = (RolloutStart("dev-1", {"x_m": 0.3}, 7),)
    order = RolloutOrder(1, "9" * 64, TASK, "active", starts, here.now(), here.now() + 100 * DAY_S)
    here.lab.repository.assign(EDGE, order_to_json(order), here.lab.ring)
    here.turn()
    assert here.journal.wanted() == {"9" * 64: TASK}
    weights = weights_of(here, OTHER)
    weights.parent.mkdir()
    weights.write_bytes(OTHER)
    age(weights, 30)
    here.now_unix_s[0] += days * DAY_S
    here.supply.prune([])
    assert weights.exists() == stays


@pytest.mark.parametrize(("days", "stays"), [(0.9, True), (1.1, False)])
def test_what_was_unpacked_in_part_goes_after_a_day(here: Station, days: float, stays: bool) -> None:
    unfinished = here.settings.bundles / ".unfinished-k3x_9"
    unfinished.mkdir(parents=True)
    (unfinished / "policy.py").write_bytes(b"pass\n")
    age(unfinished, days)
    here.supply.prune([])
    assert unfinished.exists() == stays


@pytest.mark.parametrize(
    ("form", "days", "stays"),
    [("{}", 13.9, True), ("{}", 14.1, False), (".{}.part", 13.9, True), (".{}.part", 14.1, False)],
)
def test_a_bundle_that_nobody_unpacked_goes_after_a_fortnight(
    here: Station, form: str, days: float, stays: bool
) -> None:
    archive = here.settings.weights.with_name("archives") / form.format("a" * 64)
    archive.parent.mkdir()
    archive.write_bytes(b"a bundle, or a part of it")
    age(archive, days)
    here.supply.prune([])
    assert archive.exists() == stays


def test_a_folder_that_cannot_be_deleted_is_said_and_the_others_go(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:064x}" for number in range(BUNDLES_KEPT + 3)]
    for days, name in enumerate(reversed(names)):
        (here.settings.bundles / name).mkdir(parents=True)
        age(here.settings.bundles / name, days)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == names[1]:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert here.supply.prune([]) == [names[0], names[2]]
    assert here.supply.refusal.startswith(f"cannot delete {here.settings.bundles / names[1]}: ")
    assert {path.name for path in here.settings.bundles.iterdir()} == {names[1], *names[3:]}


def test_only_a_link_goes_where_one_lies_in_a_bundle_s_place(here: Station) -> None:
    names = [f"{number:064x}" for number in range(BUNDLES_KEPT)]
    for name in names:
        (here.settings.bundles / name).mkdir(parents=True)
    (here.settings.bundles / ("f" * 64)).symlink_to(here.settings.trust)
    then = time.time() - DAY_S
    os.utime(here.settings.bundles / ("f" * 64), (then, then), follow_symlinks=False)
    assert here.supply.prune([]) == ["f" * 64]
    assert (here.settings.trust / "root.json").exists()
