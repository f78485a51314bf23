"""A thin link, a silent lab and a disk that fails hold up no trial and no recording, and heal without a person."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from edge.uplink.courier import AFTER_REFUSAL_S
from edge.uplink.network import Coordinator, NoAnswer
from edge.uplink.supply import NotSupplied, StillComing
from edge.uplink.weights import AFTER_NO_ANSWER_S, AFTER_TAMPERED_S, PAUSE_S
from edge.wire import key_of
from edge.wire.targets import PIECE_BYTES
from policies.bundle import BundleMalformed, read_unpacked
from tests.harness.bundle_format import FILES, bundle_of
from tests.harness.supply_world import EVERYTHING, Station, seal, supplied_station, weighty
from tests.harness.uplink_world import EDGE, NOTHING_KNOWN, NOW_S, Desk, leases, say

ROLL = random.Random(11)
FIRST, SECOND = (ROLL.randbytes(2 * PIECE_BYTES + size) for size in (1, 2))
LARGE = bundle_of({**FILES, **{f"moves{name}.py": b"# " + ROLL.randbytes(30_000).hex().encode() for name in "abc"}})
ARCHIVES = ("targets/candidates/",)


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        station.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN)
        station.desk.replies[key_of(EDGE, "lease")] = leases()
        yield station


def weights_of(here: Station, data: bytes) -> Path:
    return here.settings.weights / hashlib.sha256(data).hexdigest()


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86_400.0
    os.utime(path, (then, then))


# -- no answer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unanswered", [ARCHIVES, EVERYTHING])
def test_a_leased_bundle_without_an_answer_holds_up_no_recording(here: Station, unanswered: tuple[str, ...]) -> None:
    trial = seal(here)
    here.lend(here.sign(weighty(FIRST)))
    here.desk.unanswered = unanswered
    for _ in range(2):
        here.pass_time(AFTER_REFUSAL_S)
        with suppress(NoAnswer):
            here.courier.turn(NOW_S)
    assert len(here.desk.keys(f"blob/{trial.recording}")) == 1
    assert here.ledger.unsent_recordings(1) == []
    assert here.ledger.unacked(1) == []


@pytest.mark.parametrize("unanswered", [ARCHIVES, ("targets/weights/",), EVERYTHING])
def test_work_for_a_bundle_without_an_answer_is_asked_for_now_and_then(
    here: Station, unanswered: tuple[str, ...]
) -> None:
    here.lend(here.release_weights(FIRST))
    here.desk.unanswered = unanswered
    while here.clock_s[0] < 3 * PAUSE_S:
        here.courier.fetch_work(NOW_S)
        here.pass_time(AFTER_REFUSAL_S)
    assert len(here.desk.keys("lease")) == 3


def test_nor_does_one_keep_work_with_another_bundle_waiting(here: Station) -> None:
    here.lend(here.sign(weighty(FIRST)))
    here.desk.unanswered = ARCHIVES
    here.courier.fetch_work(NOW_S)
    here.desk.unanswered = ()
    here.lend(here.lab.bundle)
    here.pass_time(PAUSE_S)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 1


def test_a_bundle_that_gets_no_answer_is_asked_for_now_and_then(here: Station) -> None:
    here.order(1, here.lab.bundle)
    here.desk.unanswered = ARCHIVES
    here.turn()
    asked, since_s = here.downloads(), here.clock_s[0]
    assert asked == 1
    while here.clock_s[0] < since_s + 3 * AFTER_NO_ANSWER_S:
        here.turn()
        here.supply.turn()
    assert asked + 1 <= here.downloads() <= asked + 2  # the waits grow
    here.desk.unanswered = ()
    here.pass_time(4 * AFTER_NO_ANSWER_S)
    here.turn()
    assert here.journal.row(here.lab.bundle).state == "verified"


def test_weights_that_get_no_answer_pause_no_bundle_that_wants_none(here: Station) -> None:
    silent = here.release_weights(FIRST)
    here.desk.unanswered = ("targets/weights/",)
    with pytest.raises(StillComing, match="no answer"):
        here.supply.bring(silent)
    here.supply.bring(here.lab.bundle)
    assert here.journal.row(here.lab.bundle).state == "verified"


# -- a thin link ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_a_bundle_comes_a_piece_a_turn_and_none_twice_while_recordings_go_on(here: Station, restarted: bool) -> None:
    pieces = -(-len(LARGE) // PIECE_BYTES)
    assert pieces >= 3
    bundle = here.sign(LARGE)
    here.order(1, bundle)
    here.hurry()
    for piece in range(1, pieces):
        trial = seal(here)
        here.pass_time(1.0)
        here.courier.turn(NOW_S)
        assert here.downloads() == piece
        assert here.ledger.unsent_recordings(1) == []
        assert len(here.desk.keys(f"blob/{trial.recording}")) == 1
        assert f"bundle {bundle[:12]} is on its way" in here.courier.refusal
        assert not here.settings.bundles.exists()
        if restarted:
            here.hurry()
    here.turn()
    assert here.downloads() == pieces
    assert (read_unpacked(here.settings.bundles / bundle).task, here.journal.row(bundle).state) == (
        "push_t",
        "verified",
    )


# -- a disk that fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EROFS, errno.EIO, errno.EPERM])
def test_what_a_disk_does_not_let_go_holds_up_no_trial(
    here: Station, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal(here)
    here.settings.weights.mkdir()
    for data in (FIRST, SECOND):
        weights_of(here, data).write_bytes(data)
        age(weights_of(here, data), 15)
    unlink = Path.unlink

    def failing(path: Path, missing_ok: bool = False) -> None:
        if path == weights_of(here, FIRST):
            raise OSError(code, os.strerror(code), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", failing)
    here.courier.turn(NOW_S)
    assert (here.ledger.unacked(1), here.ledger.unsent_recordings(1)) == ([], [])
    assert [path.name for path in here.settings.weights.iterdir()] == [weights_of(here, FIRST).name]
    assert f"cannot delete {weights_of(here, FIRST)}" in here.supply.refusal


def test_folders_that_cannot_be_read_hold_up_no_trial_and_are_said(here: Station) -> None:
    bundle = here.release_weights(FIRST)
    here.order(1, bundle)
    here.settings.weights.write_bytes(b"a file in its place")
    seal(here)
    for _ in range(2):
        here.courier.turn(NOW_S)
        here.pass_time(1.0)
    assert (here.ledger.unacked(1), here.ledger.unsent_recordings(1)) == ([], [])
    with pytest.raises(NotSupplied, match=f"bundle {bundle[:12]}: .*Not a directory"):
        here.supply.bring(bundle)
    here.settings.weights.unlink()
    here.pass_time(AFTER_TAMPERED_S)
    here.turn()
    assert here.journal.row(bundle).state == "verified"


def test_bytes_that_changed_unseen_come_anew_though_another_bundle_has_found_them_whole(here: Station) -> None:
    lost, waits = here.release_weights(FIRST), here.release_weights(FIRST, SECOND)
    here.desk.unanswered = (f"targets/weights/{weights_of(here, SECOND).name}.",)
    with pytest.raises(StillComing):
        here.supply.bring(waits)  # has found the first file whole
    here.order(1, lost)
    here.pass_time(PAUSE_S)
    here.turn()
    before = weights_of(here, FIRST).stat()
    with open(weights_of(here, FIRST), "r+b") as file:
        file.write(bytes([FIRST[0] ^ 1]))
    os.utime(weights_of(here, FIRST), ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleMalformed):
        read_unpacked(here.settings.bundles / lost)
    here.journal.take("lose", lost, "its unpacked files are gone or damaged")
    here.turn()
    assert here.journal.row(lost).state == "verified"
    assert read_unpacked(here.settings.bundles / lost).weights["net.onnx"].size_bytes == len(FIRST)


def failing_reads(monkeypatch: pytest.MonkeyPatch, code: int, fails: Callable[[int], bool]) -> list[int]:
    """Let the disk not read files of some inodes; return the inodes that were read, as that goes on."""
    real, read = TargetFile.verify_length_and_hashes, list[int]()

    def verify(target: TargetFile, data: object) -> None:
        inode = os.fstat(data.fileno()).st_ino if hasattr(data, "fileno") else 0
        read.append(inode)
        if inode and fails(inode):
            raise OSError(code, os.strerror(code))
        real(target, data)  # type: ignore[arg-type]

    monkeypatch.setattr(TargetFile, "verify_length_and_hashes", verify)
    return read


def test_a_file_with_a_bad_sector_is_deleted_and_comes_anew(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = here.release_weights(FIRST)
    here.trust.weights(weights_of(here, FIRST).name, here.settings.weights)
    with open(weights_of(here, FIRST), "rb") as file:  # so that no other file is given its inode
        bad = os.fstat(file.fileno()).st_ino
        failing_reads(monkeypatch, errno.EIO, lambda inode: inode == bad)
        here.supply.bring(bundle)
    assert (here.settings.bundles / bundle / "net.onnx").read_bytes() == FIRST


def test_so_does_one_whose_bad_sector_is_found_as_it_gets_its_name(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = here.release_weights(FIRST)
    final = weights_of(here, FIRST)
    part, bad = final.with_name(f".{final.name}.part"), list[int]()

    def fails(inode: int) -> bool:
        if not bad and part.exists() and part.stat().st_ino == inode:
            bad.append(inode)
            return True
        return False

    failing_reads(monkeypatch, errno.EIO, fails)
    with pytest.raises(NotSupplied, match=f"{final.name}.* cannot be read any more"):
        here.supply.bring(bundle)
    assert not part.exists()
    here.pass_time(AFTER_TAMPERED_S)
    here.supply.bring(bundle)
    assert here.pieces() == 2 * 3


def test_a_disk_that_does_not_read_is_left_alone_for_a_while(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = here.release_weights(FIRST)
    here.trust.weights(weights_of(here, FIRST).name, here.settings.weights)
    bad = weights_of(here, FIRST).stat().st_ino
    read = failing_reads(monkeypatch, errno.EACCES, lambda inode: inode == bad)
    for _ in range(5):
        with pytest.raises(NotSupplied) as refused:
            here.supply.bring(bundle)
    assert read.count(bad) == 1
    assert str(weights_of(here, FIRST)) in str(refused.value)
    here.pass_time(AFTER_TAMPERED_S)
    with pytest.raises(NotSupplied):
        here.supply.bring(bundle)
    assert read.count(bad) == 2


def test_a_file_is_on_the_disk_before_it_gets_its_name(here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    here.release_weights(FIRST)
    here.trust.refresh()
    final = weights_of(here, FIRST)
    final.parent.mkdir()
    part = final.with_name(f".{final.name}.part")
    part.write_bytes(FIRST)  # by a process that ended before it was on the disk
    synced, fsync = [], os.fsync

    def noting(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    assert here.trust.more_weights(final.name, final.parent, 1) == 0
    assert synced == [part.name, final.parent.name]
