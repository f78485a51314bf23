"""Whatever goes wrong with what may run here, trials and recordings go, and nothing half or unverified is used."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge.records import NUMBERS_AHEAD
from edge.trials.runner import Rig, _policy
from edge.uplink.courier import MAKE_ROOM_EVERY_S, Courier
from edge.uplink.late_supply import LateSupply
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.supply import NotSupplied, Supply
from edge.uplink.weights import AFTER_TAMPERED_S, PAUSE_S
from edge.wire import key_of
from edge.wire.targets import PIECE_BYTES
from policies.bundle import BundleError, read_unpacked
from tests.harness.bundle_format import FILES, bundle_of
from tests.harness.supply_world import DAY_S, Station, seal, supplied_station
from tests.harness.uplink_world import (
    EDGE,
    NOTHING_KNOWN,
    NOW_S,
    Desk,
    lease,
    leases,
    open_question,
    say,
)

ROLL = random.Random(17)
ONE, TWO, LARGE = ROLL.randbytes(4 * PIECE_BYTES), ROLL.randbytes(4 * PIECE_BYTES), ROLL.randbytes(8 * PIECE_BYTES)
RESERVE_MB = 1.0


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        station.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN)
        station.desk.replies[key_of(EDGE, "lease")] = leases()
        yield station


def take_turns(here: Station, count: int, dt_s: float = MAKE_ROOM_EVERY_S) -> None:
    for _ in range(count):
        here.pass_time(dt_s)
        here.courier.turn(NOW_S)


def all_sent(here: Station) -> bool:
    return (here.ledger.unacked(1), here.ledger.unsent_recordings(1)) == ([], [])


def with_room(here: Station, pieces: float) -> None:
    """Start the uplink anew on a disk that holds so many pieces of weights beside what trials need."""
    here.settings = replace(here.settings, reserve_mb=RESERVE_MB, disk_mb=RESERVE_MB)

    def space(folder: Path) -> tuple[float, float]:
        files = [path.stat() for path in folder.rglob("*") if path.suffix == ".onnx" or path.parent.name == "weights"]
        used_mb = sum({status.st_ino: status.st_size for status in files}.values()) / 1e6
        return RESERVE_MB + pieces * PIECE_BYTES / 1e6 - used_mb, 1000.0

    here.supply = Supply(here.settings, here.trust, here.journal, lambda: here.clock_s[0], space=space)
    here.courier = Courier(here.settings, here.ledger, here.line, here.supply, "s", lambda: here.clock_s[0])


def bring(here: Station, bundle: str) -> None:
    while here.journal.row(bundle).state != "verified":
        with suppress(NotSupplied):
            here.supply.bring(bundle)


def lose_active(here: Station, bundle: str) -> None:
    """Let a bundle be the active one whose files are gone, its weights too."""
    for change in (
        "UPDATE bundles SET state = 'active', missing = 1 WHERE bundle = ?",
        "UPDATE line SET active = ?",
    ):
        here.journal._db.execute(change, (bundle,))
    shutil.rmtree(here.settings.bundles / bundle)
    for path in here.settings.weights.glob("*"):
        if path.stat().st_nlink == 1:
            path.unlink()


def weights_of(here: Station, data: bytes) -> Path:
    return here.settings.weights / hashlib.sha256(data).hexdigest()


# -- the journal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
def test_a_journal_that_cannot_be_written_holds_up_no_trial_and_no_recording(here: Station, ordered: bool) -> None:
    seal(here)
    here.order(1, here.lab.bundle) if ordered else here.lend(here.lab.bundle)
    here.journal._db.execute("PRAGMA query_only = 1")
    take_turns(here, 2)
    assert all_sent(here)
    assert "activation journal" in here.courier.refusal
    here.journal._db.execute("PRAGMA query_only = 0")
    take_turns(here, 2)
    assert here.journal.row(here.lab.bundle).state == "verified"


def test_nor_does_one_that_does_not_open_and_it_is_used_once_it_does(here: Station) -> None:
    path = here.settings.folder / "other.db"
    path.write_bytes(b"x" * 8192)
    with LateSupply(path, lambda journal: Supply(here.settings, here.trust, journal)) as supply:
        here.courier = Courier(here.settings, here.ledger, here.line, supply, "s", lambda: here.clock_s[0])
        seal(here)
        here.lend(here.lab.bundle)
        take_turns(here, 2)
        assert all_sent(here)
        assert here.ledger.pending_count(NOW_S) == 0
        assert str(path) in here.courier.refusal
        path.unlink()
        take_turns(here, 2)
        assert here.ledger.pending_count(NOW_S) == 1


# -- what lies in a bundle's place ------------------------------------------------------------------------------------


def test_what_lies_in_a_bundle_s_place_is_never_taken_for_it(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    here.turn()
    there = here.settings.bundles / here.lab.bundle
    there.mkdir(parents=True)
    (there / "policy.py").write_bytes(b"another's\n")
    unlink = os.unlink

    def failing(path: str | Path, *, dir_fd: int | None = None) -> None:
        if Path(path).name == "policy.py":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", failing)
    for _ in range(2):
        with suppress(NotSupplied):
            here.supply.bring(here.lab.bundle)
        verified = here.journal.row(here.lab.bundle).state == "verified"
        assert not verified or read_unpacked(there).task == "push_t"
    assert verified


def test_a_spare_that_could_only_be_deleted_in_part_comes_anew(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.uplink.supply.BUNDLES_KEPT", 1)
    bundle, other = here.lab.bundle, here.sign(bundle_of(FILES))
    for name in (bundle, other):
        here.supply.bring(name)
    os.utime(here.settings.bundles / bundle, (1.0, 1.0))

    def failing(path: str | Path, *, dir_fd: int | None = None) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", failing)
        here.supply.prune([])
    here.supply.bring(bundle)
    assert read_unpacked(here.settings.bundles / bundle).task == "push_t"


def test_a_leased_bundle_that_a_trial_finds_damaged_comes_anew(here: Station) -> None:
    bundle = here.lab.bundle
    here.supply.bring(bundle)
    (here.settings.bundles / bundle / "policy.py").unlink()
    rig = cast(Rig, SimpleNamespace(station=SimpleNamespace(folder=here.settings.folder)))
    with pytest.raises(BundleError):
        _policy(rig, lease("a1", sha256=bundle).assignments[0])
    here.supply.bring(bundle)
    assert read_unpacked(here.settings.bundles / bundle).task == "push_t"


# -- room -------------------------------------------------------------------------------------------------------------


def test_spares_make_room_for_what_is_leased(here: Station) -> None:
    with_room(here, 6.5)
    spare, leased = here.release_weights(ONE), here.release_weights(TWO)
    bring(here, spare)
    here.lend(leased)
    take_turns(here, 4)
    assert here.ledger.bundles_needed() == {leased}
    assert not (here.settings.bundles / spare).exists()


def test_an_order_that_is_too_large_keeps_no_room_from_the_active_one_that_was_lost(here: Station) -> None:
    with_room(here, 100.0)
    spare, active = here.release_weights(ONE), here.release_weights(TWO)
    bring(here, active)
    lose_active(here, active)
    bring(here, spare)
    with_room(here, 6.5)
    here.order(1, here.release_weights(LARGE))
    take_turns(here, 6, MAKE_ROOM_EVERY_S / 2)
    assert not here.journal.row(active).missing


def test_no_spare_goes_while_its_weights_would_be_kept(here: Station) -> None:
    with_room(here, 100.0)
    spares = {here.release_weights(data) for data in (ONE, TWO)}
    here.supply.bring(here.lab.bundle)
    for spare in spares:
        bring(here, spare)
    lose_active(here, here.lab.bundle)
    with_room(here, 9.5)
    here.desk.unanswered = (f"targets/candidates/{here.carried(here.lab.bundle).relative_to(candidates(here))}",)
    here.order(1, here.release_weights(LARGE[: 4 * PIECE_BYTES]))
    take_turns(here, 4)
    assert here.journal.row(here.lab.bundle).missing
    assert {path.name for path in here.settings.bundles.iterdir()} >= spares


def candidates(here: Station) -> Path:
    return here.lab.repository.folder / "targets" / "candidates"


def test_weights_that_a_leased_bundle_waits_with_stay_over_a_restart(here: Station) -> None:
    here.settings.weights.mkdir()
    weights_of(here, ONE).write_bytes(ONE)
    then = time.time() - 2 * DAY_S
    os.utime(weights_of(here, ONE), (then, then))
    take_turns(here, 1)
    assert weights_of(here, ONE).exists()


# -- no answer --------------------------------------------------------------------------------------------------------


def test_silent_metadata_is_no_lost_coordinator_and_is_left_alone_for_a_while(here: Station) -> None:
    take_turns(here, 1)
    here.desk.asked.clear()
    here.desk.unanswered = ("metadata/",)
    take_turns(here, 9, PAUSE_S / 9)
    assert (len(here.desk.keys("reconcile")), len(here.desk.keys("trust"))) == (0, 1)


def test_an_order_s_file_without_an_answer_keeps_no_lost_bundle_away(here: Station) -> None:
    here.supply.bring(here.lab.bundle)
    lose_active(here, here.lab.bundle)
    here.order(1, here.sign(bundle_of(FILES)))
    here.desk.unanswered = ("targets/assign",)
    here.turn()
    assert not here.journal.row(here.lab.bundle).missing
    assert "the order for station-1 does not come" in here.supply.refusal
    here.desk.unanswered = ()
    here.pass_time(PAUSE_S)
    here.turn()
    assert here.journal.line().order is not None


def test_files_that_are_not_there_pause_no_others(here: Station) -> None:
    here.hurry()
    missing = [here.release_weights(bytes([number]) * 50) for number in range(3)]
    good = here.release_weights(ONE)
    for number in range(3):
        name = hashlib.sha256(bytes([number]) * 50).hexdigest()
        (here.lab.repository.folder / "targets" / "weights" / f"{name}.{name}").unlink()
    for _ in range(20):
        for bundle in (*missing, good):
            with suppress(NotSupplied):
                here.supply.bring(bundle)
    assert here.clock_s[0] == 0.0
    assert here.journal.row(good).state == "verified"


def test_an_unanswered_question_for_work_holds_up_no_recording(here: Station) -> None:
    seal(here)
    here.desk.replies[key_of(EDGE, "lease")] = open_question
    with pytest.raises(NoAnswer):
        here.courier.turn(NOW_S)
    assert all_sent(here)


# -- and besides ------------------------------------------------------------------------------------------------------


def test_an_order_that_is_refused_now_is_taken_once_a_person_brings_word_of_its_number(here: Station) -> None:
    order = here.order(NUMBERS_AHEAD + 5, here.lab.bundle)
    here.turn()
    assert "above" in here.supply.refusal
    here.journal.begin(order.number - 1)
    here.turn()
    assert here.journal.line().order == order


def test_a_disk_that_does_not_read_a_bundle_back_is_left_alone_for_a_while(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.order(1, here.lab.bundle)
    read: Any = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.parent.name == "archives":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return bytes(read(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", failing)
        for _ in range(5):
            here.turn()
        assert here.downloads() == 1
    here.pass_time(AFTER_TAMPERED_S)
    here.turn()
    assert here.journal.row(here.lab.bundle).state == "verified"
