"""What waits for its weights waits alone: for an answer, for the other files, for days, and keeps what has come."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from edge.trust.client import Tampered, Trust
from edge.trust.folder import FolderFetcher
from edge.trust.parts import verify
from edge.uplink.network import Coordinator
from edge.uplink.supply import NotSupplied, StillComing, Supply
from edge.uplink.weights import AFTER_NO_ANSWER_S, PAUSE_S
from edge.wire.targets import PIECE_BYTES
from policies.bundle import read_unpacked
from tests.harness.supply_world import DAY_S, Station, supplied_station, weighty
from tests.harness.uplink_world import NOW_S, Desk

ROLL = random.Random(7)
FIRST, SECOND, THIRD = (ROLL.randbytes(2 * PIECE_BYTES + size) for size in (1, 2, 3))


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        station.hurry()
        yield station


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def silent(here: Station, *files: bytes) -> None:
    """Let the coordinator answer everything but questions about these weights."""
    here.desk.unanswered = tuple(f"targets/weights/{name_of(data)}." for data in files)


def bring_whole(here: Station, bundle: str) -> None:
    """Bring a bundle that nothing is in the way of, in as many turns as it has parts and some more."""
    for _ in range(40):
        with suppress(StillComing):
            here.supply.bring(bundle)
            break
    assert read_unpacked(here.settings.bundles / bundle)


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


# -- no answer --------------------------------------------------------------------------------------------------------


def test_weights_that_get_no_answer_hold_up_nothing_else(here: Station) -> None:
    bundle = here.release_weights(FIRST)
    here.order(1, bundle)
    silent(here, FIRST)
    here.lend(here.lab.bundle)
    for _ in range(3):
        here.pass_time(1.0)
        here.courier.turn(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 1
    assert f"bundle {bundle[:12]} waits for its weights" in here.supply.refusal
    assert "no answer" in here.supply.refusal
    silent(here)
    here.pass_time(AFTER_NO_ANSWER_S)
    for _ in range(3):
        here.courier.turn(NOW_S)
    assert here.journal.row(bundle).state == "verified"


def test_nor_does_a_bundle_that_is_ordered(here: Station) -> None:
    bundle = here.sign(weighty(FIRST))
    here.supply.bring(here.lab.bundle)
    here.lend(here.lab.bundle)
    here.order(1, bundle)
    here.desk.unanswered = ("targets/candidates/",)
    for _ in range(3):
        here.pass_time(1.0)
        here.courier.turn(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 1
    assert f"bundle {bundle[:12]} is on its way" in here.supply.refusal
    assert "no answer" in here.supply.refusal


def test_what_gets_no_answer_is_asked_for_now_and_then_however_much_of_it_there_is(here: Station) -> None:
    bundles = [here.release_weights(data) for data in (FIRST, SECOND, THIRD)]
    silent(here, FIRST, SECOND, THIRD)
    for bundle in bundles:
        with suppress(StillComing):
            here.supply.bring(bundle)
    asked, since_s = here.pieces(), here.clock_s[0]
    assert asked == 1
    while here.clock_s[0] < since_s + 10 * PAUSE_S:
        here.turn()
        for _ in range(3):
            here.supply.turn()
    assert asked + 3 <= here.pieces() <= asked + 10


@pytest.mark.parametrize("first", [0, 1])
def test_a_file_without_an_answer_starves_no_other_bundle(here: Station, first: int) -> None:
    never, other = here.release_weights(FIRST), here.release_weights(SECOND)
    silent(here, FIRST)
    for bundle in (never, other)[:: -1 if first else 1]:
        with pytest.raises(StillComing):
            here.supply.bring(bundle)
    here.supply.turn()
    for _ in range(6):
        here.pass_time(PAUSE_S)
        here.supply.turn()  # the lab is asked
        for _ in range(3):
            here.supply.turn()
    assert here.journal.row(other).state == "verified"
    assert here.journal.row(never).state == "fetched"


def test_nor_does_it_starve_the_other_files_of_its_bundle(here: Station) -> None:
    bundle = here.release_weights(FIRST, SECOND)
    silent(here, FIRST)
    for _ in range(5):
        with pytest.raises(StillComing):
            here.supply.bring(bundle)
        here.pass_time(PAUSE_S)
    assert (here.settings.weights / name_of(SECOND)).read_bytes() == SECOND
    assert not (here.settings.weights / name_of(FIRST)).exists()


def test_bundles_that_wait_take_turns_and_each_says_so_but_once(
    here: Station, caplog: pytest.LogCaptureFixture
) -> None:
    bundles = [here.release_weights(data) for data in (FIRST, SECOND, THIRD)]
    for bundle in bundles:
        with pytest.raises(StillComing):
            here.supply.bring(bundle)
    here.turn()
    assert here.arrived_bytes() == 3 * PIECE_BYTES
    with caplog.at_level(logging.INFO, logger="edge.uplink"):
        for _ in bundles:
            here.supply.turn()
        assert [path.stat().st_size for path in here.settings.weights.iterdir()] == [2 * PIECE_BYTES] * 3
        silent(here, FIRST, SECOND, THIRD)
        for _ in range(30):
            here.supply.turn()
    waits = [record.getMessage() for record in caplog.records]
    assert len(waits) == len(set(waits)) <= 6


# -- bounded work -----------------------------------------------------------------------------------------------------


def test_a_file_that_was_found_whole_is_read_again_only_where_it_changed(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(target: TargetFile, path: Path) -> None:
        if path.parent == here.settings.weights:
            read.append(path.name)
        verify(target, path)

    monkeypatch.setattr("edge.trust.parts.verify", counting)
    bundle = here.release_weights(FIRST, SECOND)
    silent(here, SECOND)
    first = here.settings.weights / name_of(FIRST)

    def some_turns() -> list[str]:
        read.clear()
        here.pass_time(AFTER_NO_ANSWER_S)
        for _ in range(5):
            with pytest.raises(StillComing):
                here.supply.bring(bundle)
        return list(read)

    assert some_turns() == [f".{first.name}.part"]  # as it got its name
    assert some_turns() == []
    os.utime(first, (1.0, 1.0))
    assert some_turns() == [first.name]
    assert some_turns() == []
    first.unlink()
    assert some_turns() == [f".{first.name}.part"]  # came anew
    here.hurry()
    assert some_turns() == [first.name]  # of a new process
    silent(here)
    here.pass_time(AFTER_NO_ANSWER_S)
    bring_whole(here, bundle)


@pytest.mark.parametrize("chunk_bytes", [1, 1000, PIECE_BYTES])
def test_a_turn_ends_with_the_first_bytes_that_come_after_its_time(here: Station, chunk_bytes: int) -> None:
    class Thin(FolderFetcher):
        """A link over which every few bytes take a second."""

        def fetch_from(self, url: str, offset: int) -> Iterator[bytes]:
            for chunk in super().fetch_from(url, offset):
                if not url.startswith("targets/weights/"):
                    yield chunk
                    continue
                for start in range(0, len(chunk), chunk_bytes):
                    here.pass_time(1.0)
                    yield chunk[start : start + chunk_bytes]

    bundle = here.release_weights(FIRST)
    trust = Trust(here.settings.trust, Thin(here.lab.repository.folder), here.now)
    supply = Supply(here.settings, trust, here.journal, lambda: here.clock_s[0])
    for turn in (1, 2):
        with pytest.raises(StillComing):
            supply.bring(bundle)
        assert (here.arrived_bytes(), here.clock_s[0]) == (turn * chunk_bytes, turn)


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", FIRST[:-1], FIRST + b"X", FIRST[:-1] + bytes([FIRST[-1] ^ 1])])
def test_a_finished_file_that_a_disk_damaged_comes_anew(here: Station, damaged: bytes) -> None:
    bundle = here.release_weights(FIRST, SECOND)
    first = here.settings.weights / name_of(FIRST)
    while not first.exists():
        with suppress(StillComing):
            here.supply.bring(bundle)
    first.write_bytes(damaged)
    bring_whole(here, bundle)
    assert (here.settings.bundles / bundle / "net.onnx").read_bytes() == FIRST


@pytest.mark.parametrize("cut", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, len(FIRST) - 1])
def test_a_copy_that_ends_too_early_leaves_what_has_come_and_the_rest_comes_from_another(
    here: Station, tmp_path: Path, cut: int
) -> None:
    name = name_of(FIRST)
    here.release_weights(FIRST)
    here.trust.more_weights(name, here.settings.weights, PIECE_BYTES)
    had = here.arrived_bytes()
    file = here.lab.repository.folder / "targets" / "weights" / f"{name}.{name}"
    file.write_bytes(FIRST[:cut])  # as on a stick that was full
    stick = Trust(here.settings.trust, FolderFetcher(here.lab.repository.folder), here.now)
    with pytest.raises(Tampered, match="too early"):
        stick.weights(name, here.settings.weights)
    assert here.arrived_bytes() == max(had, cut)
    file.write_bytes(FIRST)
    assert here.trust.weights(name, here.settings.weights).read_bytes() == FIRST


def test_what_has_come_goes_where_more_comes_than_was_signed(here: Station) -> None:
    name = name_of(FIRST)
    here.release_weights(FIRST)
    here.trust.more_weights(name, here.settings.weights, PIECE_BYTES)
    (here.lab.repository.folder / "targets" / "weights" / f"{name}.{name}").write_bytes(FIRST + b"X")
    with pytest.raises(Tampered, match="more than the"):
        here.trust.weights(name, here.settings.weights)
    assert here.arrived_bytes() == 0


@pytest.mark.parametrize("off", [-len(FIRST) + 1, -1, 1, 1 << 30])
def test_a_bundle_whose_weights_are_not_as_large_as_it_says_is_rejected_unasked(here: Station, off: int) -> None:
    here.release_weights(FIRST, SECOND)
    bundle = here.sign(weighty(SECOND, FIRST, sizes=[len(SECOND), len(FIRST) + off]))
    with pytest.raises(NotSupplied, match=f"net1.onnx has {len(FIRST) + off} bytes, and {len(FIRST)} were signed"):
        here.supply.bring(bundle)
    assert here.journal.row(bundle).state == "rejected"
    assert here.pieces() == 0
    asked = len(here.desk.asked)
    with pytest.raises(NotSupplied, match="rejected"):
        here.supply.bring(bundle)
    assert len(here.desk.asked) == asked


# -- what stays, and what goes ----------------------------------------------------------------------------------------


def waiting(here: Station, *, ordered: bool) -> tuple[str, list[Path]]:
    """Have a bundle wait with one file of weights whole and one begun; return it and both, a month old."""
    bundle = here.release_weights(FIRST, SECOND)
    if ordered:
        here.order(1, bundle)
        here.turn()
    files = [here.settings.weights / name_of(FIRST), here.settings.weights / f".{name_of(SECOND)}.part"]
    while not all(path.exists() for path in files):
        with pytest.raises(StillComing):
            here.supply.bring(bundle)
    for path in files:
        age(path, 30)
    return bundle, files


@pytest.mark.parametrize("ordered", [True, False])
def test_what_a_bundle_that_waits_has_here_is_kept_however_long_the_lab_is_away(here: Station, ordered: bool) -> None:
    bundle, files = waiting(here, ordered=ordered)
    here.desk.unanswered = ("metadata/", "targets/")
    for _ in range(3):
        here.supply.prune([])
    assert all(path.exists() for path in files)
    here.desk.unanswered = ()
    asked = here.pieces()
    bring_whole(here, bundle)
    assert here.pieces() == asked + 2  # of three parts one was here


def test_so_it_is_after_a_restart_before_it_is_known_what_an_ordered_bundle_wants(here: Station) -> None:
    bundle, files = waiting(here, ordered=True)
    here.hurry()
    here.supply.prune([])
    assert all(path.exists() for path in files)
    bring_whole(here, bundle)


def test_what_a_revoked_bundle_waited_for_goes(here: Station) -> None:
    bundle, files = waiting(here, ordered=True)
    here.lab.repository.revoke(bundle, "now", here.lab.ring.humans[0], here.lab.ring)
    here.turn()
    here.supply.prune([])
    assert not any(path.exists() for path in files)


def test_what_nobody_waits_for_goes_after_a_fortnight_whole_or_in_part(here: Station) -> None:
    folder = here.settings.weights
    folder.mkdir()
    for number, (form, days, stays) in enumerate(
        (("{}", 13.9, True), ("{}", 14.1, False), (".{}.part", 13.9, True), (".{}.part", 14.1, False))
    ):
        path = folder / form.format(f"{number}" * 64)
        path.write_bytes(b"weights")
        age(path, days)
        here.supply.prune([])
        assert path.exists() == stays


def test_what_goes_while_it_is_looked_at_is_passed_over(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([*real(folder), folder / ("a" * 64)]))
    here.settings.weights.mkdir()
    here.settings.bundles.mkdir()
    assert here.supply.prune([]) == []
