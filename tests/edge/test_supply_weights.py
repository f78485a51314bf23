"""Weights come a part at a time beside other work; a cut, a full disk or an enemy never makes other bytes of them."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edge.uplink.courier import AFTER_REFUSAL_S
from edge.uplink.network import Coordinator
from edge.uplink.supply import NotSupplied, StillComing, Supply
from edge.uplink.weights import AFTER_TAMPERED_S
from edge.wire.targets import PIECE_BYTES
from policies.bundle import BundleMalformed, read_unpacked
from tests.harness.supply_world import Station, supplied_station, weighty
from tests.harness.uplink_world import NOW_S, Desk


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: Path, tmp_path: Path) -> Iterator[Station]:
    with supplied_station(line, lab, tmp_path) as station:
        yield station


def test_weights_come_once_and_lie_beside_the_files_of_their_policy(here: Station) -> None:
    weights = b"the weights of a net"
    bundle = here.sign(weighty(weights))
    for _ in range(2):
        with pytest.raises(NotSupplied, match="no role names weights"):
            here.supply.bring(bundle)
    assert here.downloads() == 1
    assert not (here.settings.bundles / bundle).exists()
    here.lab.repository.release_weights(weights, here.lab.ring.humans, here.lab.ring)
    here.turn()
    here.supply.bring(bundle)
    assert here.downloads() == 1  # of the bundle, which has waited
    net = here.settings.bundles / bundle / "net.onnx"
    assert net.read_bytes() == weights
    assert read_unpacked(net.parent).weights["net.onnx"].size_bytes == len(weights)
    net.chmod(0o644)
    net.write_bytes(weights[:-1] + b"T")
    with pytest.raises(BundleMalformed, match="weights"):
        read_unpacked(net.parent)


LARGE = random.Random(5).randbytes(4 * PIECE_BYTES + 1000)


@pytest.fixture
def large(here: Station) -> str:
    """A bundle with weights of five parts, for which every turn of the clock's is too short for more than one."""
    here.hurry()
    return here.release_weights(LARGE)


def test_large_weights_come_a_part_a_turn_while_orders_and_leases_go_on(here: Station, large: str) -> None:
    here.order(1, large)
    sizes = []
    here.turn()
    while here.journal.row(large).state != "verified":
        sizes.append(here.arrived_bytes())
        assert f"bundle {large[:12]} waits for its weights" in here.supply.refusal
        assert not (here.settings.bundles / large).exists()
        here.lend(here.lab.bundle)
        here.courier.fetch_work(NOW_S)
        assert here.ledger.pending_count(NOW_S) == 1  # other work is not held up
        here.supply.turn()
    assert sizes == [number * PIECE_BYTES for number in range(1, 5)]
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE
    assert [path.name for path in here.settings.weights.iterdir()] == [hashlib.sha256(LARGE).hexdigest()]


def test_a_lease_that_wants_them_is_refused_until_they_are_here(here: Station, large: str) -> None:
    here.lend(large)
    for _ in range(5):
        assert here.ledger.pending_count(NOW_S) == 0
        here.courier.fetch_work(NOW_S)
        here.pass_time(AFTER_REFUSAL_S)
    assert here.ledger.pending_count(NOW_S) == 1


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_cut_after_any_part_loses_nothing_and_asks_for_no_byte_twice(here: Station, large: str, cut: int) -> None:
    for _ in range(cut):
        with pytest.raises(StillComing):
            here.supply.bring(large)
    here.desk.unanswered = ("targets/weights/",)
    with pytest.raises(StillComing, match="no answer"):
        here.supply.bring(large)
    assert here.arrived_bytes() == cut * PIECE_BYTES
    here.desk.unanswered = ()
    here.hurry()  # a power cut, besides
    for _ in range(4 - cut):
        with pytest.raises(StillComing):
            here.supply.bring(large)
    asked = here.pieces()
    here.supply.bring(large)
    assert here.pieces() == asked + 1
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE


def test_a_part_that_was_torn_within_a_piece_is_gone_on_from(here: Station, large: str) -> None:
    with pytest.raises(StillComing):
        here.supply.bring(large)
    [part] = here.settings.weights.iterdir()
    os.truncate(part, 12_345)
    for _ in range(4):
        with suppress(StillComing):
            here.supply.bring(large)
    here.supply.bring(large)
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE


@pytest.mark.parametrize("torn", [b"", b"X", bytes(len(LARGE)), LARGE + b"X", LARGE[:-1] + b"X"])
def test_whatever_lies_in_a_part_file_only_the_signed_bytes_get_their_name(
    here: Station, large: str, torn: bytes
) -> None:
    here.settings.weights.mkdir()
    name = hashlib.sha256(LARGE).hexdigest()
    (here.settings.weights / f".{name}.part").write_bytes(torn)
    for _ in range(12):
        with suppress(NotSupplied):
            here.supply.bring(large)
        assert not (here.settings.weights / name).exists() or (here.settings.weights / name).read_bytes() == LARGE
        here.pass_time(AFTER_TAMPERED_S)
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda data: data[:-1] + b"X", "hash"), (lambda data: b"X" + data[1:], "hash"),
        (lambda data: data + bytes(1 << 20), "more than the"), (lambda data: data[:-1], "too early"),
        (lambda data: b"", "too early"),
    ],
)  # fmt: skip
def test_weights_of_other_bytes_are_refused_and_asked_for_again_after_a_while(
    here: Station, large: str, forge: Callable[[bytes], bytes], says: str
) -> None:
    name = hashlib.sha256(LARGE).hexdigest()
    file = here.lab.repository.folder / "targets" / "weights" / f"{name}.{name}"
    file.write_bytes(forge(LARGE))
    caught = []
    for _ in range(6):
        with pytest.raises(NotSupplied) as error:
            here.supply.bring(large)
        caught.append(str(error.value))
    assert says in caught[-1]
    assert not (here.settings.weights / name).exists()
    assert here.arrived_bytes() <= len(LARGE)
    asked = here.pieces()
    with pytest.raises(NotSupplied, match=says):
        here.supply.bring(large)
    assert here.pieces() == asked  # not again and again
    file.write_bytes(LARGE)
    for _ in range(7):
        here.pass_time(AFTER_TAMPERED_S)
        with suppress(NotSupplied):
            here.supply.bring(large)
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE


def test_weights_that_would_take_what_trials_need_of_the_disk_are_not_begun(here: Station, large: str) -> None:
    need_mb = len(LARGE) / 1e6
    settings = replace(here.settings, reserve_mb=4.0, disk_mb=1000.0)
    for free_mb, total_mb, fits in (
        (need_mb + 50.1, 1e6, True), (need_mb + 49.9, 1e6, False),  # 5 % of what counts of the disk
        (need_mb + 4.1, 50.0, True), (need_mb + 3.9, 50.0, False),  # the reserve
        (0.0, 1e6, False),
    ):  # fmt: skip
        space = partial(lambda free_mb, total_mb, _: (free_mb, total_mb), free_mb, total_mb)
        supply = Supply(settings, here.trust, here.journal, lambda: 0.0, weights_within_s=0.0, space=space)
        shutil.rmtree(settings.weights, ignore_errors=True)
        with pytest.raises(NotSupplied, match="waits for its weights" if fits else "beside what trials need"):
            supply.bring(large)
        assert settings.weights.exists() == fits


def test_a_disk_that_fills_up_is_said_and_what_has_come_stays(
    here: Station, large: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StillComing):
        here.supply.bring(large)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("edge.trust.parts.os.fsync", full)
        with pytest.raises(NotSupplied, match="No space left"):
            here.supply.bring(large)
    had = here.arrived_bytes()
    assert had >= PIECE_BYTES
    with pytest.raises(NotSupplied, match="No space left"):
        here.supply.bring(large)  # the disk is left alone for a while
    assert here.arrived_bytes() == had
    here.pass_time(AFTER_TAMPERED_S)
    for _ in range(3):
        with suppress(StillComing):
            here.supply.bring(large)
    here.supply.bring(large)
    assert (here.settings.bundles / large / "net.onnx").read_bytes() == LARGE
