"""A station's disk: which rung it is on, what is recorded there, what may be deleted, and how long the rest will do."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.disk import Rung, Space, Usage, disk_space, rung_of, tier_of, usage
from edge.doctor import examine
from edge.emulation.stations import make_stations
from edge.finding import FAILED, OK, WARNING, Finding
from edge.ledger import DiskFull, Ledger, LedgerError
from edge.records import Assignment, Lease, Outcome, Trial
from edge.retention import (
    KEPT_FOR_PEOPLE,
    PURGED_AT_ONCE,
    TRIAL_ROOM_MB,
    Reserve,
    Retention,
    outlook_of,
    purge,
    reserve_of,
)
from edge.station import RecordingTier, Station, Storage, load_station

NOW_S = 1_800_000_000.0
WEEK_S = 7 * 86400.0
PLENTY = Space(50_000.0, 60_000.0)
NAN = float("nan")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Station:
    folder = tmp_path_factory.mktemp("stations")
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return load_station(folder / "station-1")


@pytest.fixture
def station(made: Station, tmp_path: Path) -> Station:
    return replace(made, folder=tmp_path)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", "station-1") as ledger:
        yield ledger


def seal(ledger: Ledger, recordings: Path, count: int) -> list[Path]:
    """Seal `count` trials with a recording each and return their files."""
    items = [Assignment(f"a{n}", "0" * 64, "s1", {}, 1, "play") for n in range(count)]
    ledger.add_lease(Lease("l1", "push_t", tuple(items), NOW_S + 1e6))
    recordings.mkdir(exist_ok=True)
    files = []
    for item in items:
        epoch, sequence = ledger.open_trial(item, "l1", NOW_S)
        path = recordings / f"{epoch}-{sequence:06d}.mcap"
        path.write_bytes(bytes(1000))
        ledger.seal(trial_of(epoch, sequence, item), path)
        files.append(path)
    return files


def trial_of(epoch: str, sequence: int, item: Assignment) -> Trial:
    return Trial(
        edge="station-1", epoch=epoch, sequence=sequence, assignment_id=item.assignment_id, lease_id="l1",
        task="push_t", bundle=item.bundle, start_id="s1", purpose="play", seed=1, outcome=Outcome.SUCCESS, cause="",
        detail="", progress=1.0, measures={}, achieved_start={}, reset_s=0.0, reset_tries=0, trial_s=1.0,
        policy_steps=1, wall_reset_s=0.0, wall_trial_s=0.0, started_unix_s=NOW_S, ended_unix_s=NOW_S,
        station_hash="", calibration_hash="", software="", recording=f"{sequence:064x}", recording_bytes=1000,
    )  # fmt: skip


def recording_states(ledger: Ledger, folder: Path) -> list[str]:
    """Return what the ledger says of each recording, oldest first."""
    db = sqlite3.connect(folder / "ledger.db")
    rows = db.execute("SELECT recording_state FROM trials ORDER BY number").fetchall()
    db.close()
    return [row[0] for row in rows]


def acknowledge(ledger: Ledger, sequences: range) -> None:
    """Mark trials as kept by the coordinator, and their recordings as sent."""
    ledger.acknowledge([("station-1", ledger.epoch, sequence) for sequence in sequences], NOW_S)
    for sequence in sequences:
        ledger.recording_sent(f"{sequence:064x}", NOW_S)


def back_up(ledger: Ledger, sequences: range) -> None:
    """Mark trials and recordings as held by a backup."""
    ledger.replicated(ledger.epoch, [(sequences[0], sequences[-1])])
    ledger.recordings_replicated(f"{sequence:064x}" for sequence in sequences)


# -- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free_mb", "total_mb", "room_mb", "rung"),
    [
        (1000, 1000, 64, Rung.FULL),
        (200, 1000, 64, Rung.FULL),
        (199.9, 1000, 64, Rung.SMALL),
        (100, 1000, 64, Rung.SMALL),
        (99.9, 1000, 64, Rung.LOW),
        (64, 1000, 64, Rung.LOW),
        (63.9, 1000, 64, Rung.PARKED),
        (50, 1000, 1, Rung.LOW),
        (49.9, 1000, 1, Rung.PARKED),
        (0, 1000, 0, Rung.PARKED),
        (63.9, 64, 64, Rung.PARKED),  # nearly empty, and too small for a trial
        (NAN, 1000, 64, Rung.PARKED),
        (1000, NAN, 64, Rung.PARKED),
        (1000, 0, 64, Rung.PARKED),  # a disk that does not tell
        (1000, 1000, NAN, Rung.PARKED),
    ],
)
def test_the_free_share_decides_the_rung(free_mb: float, total_mb: float, room_mb: float, rung: Rung) -> None:
    assert rung_of(Space(free_mb, total_mb), room_mb) is rung


@pytest.mark.parametrize(
    ("free_mb", "rung"),
    [(12_800, Rung.FULL), (12_799, Rung.SMALL), (6_400, Rung.SMALL), (3_200, Rung.LOW), (3_199, Rung.PARKED)],
)
def test_of_a_large_disk_only_a_part_counts(station: Station, free_mb: float, rung: Rung) -> None:
    large = replace(station, storage=Storage(reserve_mb=1.0, disk_mb=64_000.0))
    assert reserve_of(large).make()
    assert outlook_of(large, Space(free_mb, 4e6), reserve_of(large), 64.0, Usage(None, None)).rung is rung


@pytest.mark.parametrize(
    ("rung", "wanted", "kept"),
    [
        (Rung.FULL, RecordingTier(30, "full", 80), RecordingTier(30, "full", 80)),
        (Rung.SMALL, RecordingTier(30, "full", 80), RecordingTier(30, "small", 80)),
        (Rung.SMALL, RecordingTier(2, "none", 80), RecordingTier(2, "none", 80)),
        (Rung.LOW, RecordingTier(30, "full", 80), RecordingTier(5, "none", 80)),
        (Rung.LOW, RecordingTier(2, "small", 80), RecordingTier(2, "none", 80)),
        (Rung.PARKED, RecordingTier(30, "full", 80), RecordingTier(5, "none", 80)),
    ],
)
def test_a_rung_never_records_more_than_the_station_wants(
    rung: Rung, wanted: RecordingTier, kept: RecordingTier
) -> None:
    assert tier_of(rung, wanted) == kept


def test_the_disk_here_has_a_size(tmp_path: Path) -> None:
    space = disk_space(tmp_path)
    assert 0 <= space.free_mb <= space.total_mb
    assert space.total_mb > 0


# -- the forecast -----------------------------------------------------------------------------------------------------


def record(folder: Path, sizes_mb: list[float], period_s: float) -> None:
    """Leave recordings of those sizes, one each period."""
    folder.mkdir(exist_ok=True)
    for number, size_mb in enumerate(sizes_mb):
        path = folder / f"{number}.mcap"
        with open(path, "wb") as out:
            out.truncate(round(size_mb * 1e6))
        os.utime(path, (0, NOW_S + number * period_s))


def test_the_forecast_goes_by_the_last_recordings(tmp_path: Path, station: Station) -> None:
    recordings = tmp_path / "recordings"
    record(recordings, [50.0] * 5 + [1.98] * 20, period_s=90.0)
    (recordings / "unsealed.mcap.part").write_bytes(bytes(10))
    spent = usage(recordings)
    assert spent.trial_mb == pytest.approx(2.0)
    assert spent.period_s == pytest.approx(90.0)
    reserve = reserve_of(station)
    assert reserve.make()
    outlook = outlook_of(station, Space(150.0, 1000.0), reserve, 64.0, spent)
    # A trial begins while 64 MB are free: with 150, 148 .. 64.
    assert outlook.trials_left == 44
    assert outlook.hours_left == pytest.approx(44 * 90 / 3600)
    assert "150 MB free, 15% of what counts of the disk; recording small; room for 44 trials" in outlook.sentence
    assert outlook_of(station, Space(64.0, 1000.0), reserve, 64.0, spent).trials_left == 1
    assert outlook_of(station, Space(63.0, 1000.0), reserve, 64.0, spent).trials_left == 0


def test_without_recordings_nothing_is_foretold(tmp_path: Path, station: Station) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        assert usage(folder) == Usage(None, None)
    record(tmp_path, [1.0], 1.0)
    assert usage(tmp_path).period_s is None
    outlook = outlook_of(station, PLENTY, reserve_of(station), 64.0, Usage(None, None))
    assert (outlook.trials_left, outlook.hours_left) == (None, None)
    assert "no trial was recorded yet" in outlook.sentence


# -- the reserve ------------------------------------------------------------------------------------------------------


def test_a_reserve_takes_up_its_room_until_it_is_given_up(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve.bin", 4.0)
    assert not reserve.stands
    assert not reserve.give_up()
    assert reserve.make()
    assert reserve.stands
    assert (tmp_path / "reserve.bin").stat().st_blocks * 512 >= 4_000_000
    assert reserve.give_up()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 3_999_999, 4_000_000, 8_000_000])
def test_a_reserve_of_another_size_or_full_of_holes_is_none(tmp_path: Path, size: int) -> None:
    path = tmp_path / "reserve.bin"
    with open(path, "wb") as out:
        out.truncate(size)
    reserve = Reserve(path, 4.0)
    assert not reserve.stands
    assert reserve.make()
    assert reserve.stands
    assert list(tmp_path.iterdir()) == [path]


def test_a_reserve_that_cannot_be_made_says_why(tmp_path: Path, station: Station, ledger: Ledger) -> None:
    (tmp_path / "reserve.bin").mkdir()
    retention = Retention(station, lambda _: PLENTY)
    for _ in range(2):
        outlook = retention.look(ledger, NOW_S)
        assert outlook.rung is Rung.PARKED
        assert "no trial is begun without a reserve for the ledger" in outlook.sentence
        assert f"cannot make {tmp_path / 'reserve.bin'}: Is a directory; let this user write to" in outlook.sentence
        assert outlook.trials_left == 0
    (tmp_path / "reserve.bin").rmdir()
    assert retention.look(ledger, NOW_S).rung is Rung.FULL


@pytest.mark.parametrize("site", ["posix_fallocate", "fsync", "replace"])
def test_a_reserve_that_is_cut_short_leaves_nothing_and_is_made_at_the_next_look(
    tmp_path: Path, station: Station, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    retention = Retention(station, lambda _: PLENTY)
    with monkeypatch.context() as patch:
        patch.setattr(os, site, full)
        assert retention.look(ledger, NOW_S).rung is Rung.PARKED
    assert not list(tmp_path.glob("reserve*"))
    assert retention.look(ledger, NOW_S).rung is Rung.FULL


def test_a_reserve_whose_folder_could_not_be_synced_stands_all_the_same(
    tmp_path: Path, station: Station, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = os.fsync

    def second_fails(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)
    assert Retention(station, lambda _: PLENTY).look(ledger, NOW_S).rung is Rung.FULL
    assert len(calls) == 2


def test_no_trial_begins_before_the_reserve_stands_again(tmp_path: Path, station: Station, ledger: Ledger) -> None:
    free_mb = [TRIAL_ROOM_MB + 3.9]
    retention = Retention(station, lambda _: Space(free_mb[0], 200.0))
    assert retention.look(ledger, NOW_S).rung is Rung.PARKED
    assert not (tmp_path / "reserve.bin").exists()
    free_mb[0] = TRIAL_ROOM_MB + 4.0
    assert retention.look(ledger, NOW_S).rung is Rung.FULL
    free_mb[0] = TRIAL_ROOM_MB
    assert retention.look(ledger, NOW_S).rung is Rung.FULL
    free_mb[0] = TRIAL_ROOM_MB - 0.1
    outlook = retention.look(ledger, NOW_S)
    assert outlook.rung is Rung.PARKED
    assert "disk nearly full" in outlook.sentence
    assert "nothing was lost" in outlook.sentence
    assert str(tmp_path) in outlook.sentence


@pytest.mark.parametrize(("free_mb", "stands"), [(0.1, True), (0.09, False), (0.0, False)])
def test_on_a_disk_without_room_for_a_mark_the_ledger_gets_the_reserve_between_trials(
    tmp_path: Path, station: Station, ledger: Ledger, free_mb: float, stands: bool
) -> None:
    now_mb = [500.0]
    retention = Retention(station, lambda _: Space(now_mb[0], 1000.0))
    retention.look(ledger, NOW_S)
    now_mb[0] = free_mb
    assert retention.look(ledger, NOW_S).rung is Rung.PARKED
    assert reserve_of(station).stands is stands
    now_mb[0] = free_mb + (0.0 if stands else 4.0)  # what it gave up is free now, and stays so
    assert retention.look(ledger, NOW_S).rung is Rung.PARKED
    assert reserve_of(station).stands is stands


def test_a_write_that_finds_the_disk_full_gets_the_reserve_then_waits(station: Station, ledger: Ledger) -> None:
    retention = Retention(station, lambda _: PLENTY)
    retention.look(ledger, NOW_S)
    reserve = reserve_of(station)
    tries: list[bool] = []
    waits: list[str] = []

    def write() -> str:
        tries.append(reserve.stands)
        if len(tries) < 5:
            raise DiskFull("disk full")
        return "written"

    def again(why: str) -> bool:
        waits.append(why)
        return True

    assert retention.insist(write, again) == "written"
    assert tries == [True, False, False, False, False]
    assert waits == ["disk full"] * 3
    tries.clear()
    with pytest.raises(DiskFull):
        retention.insist(write, lambda why: False)


def test_what_more_space_does_not_cure_is_not_insisted_on(station: Station, ledger: Ledger) -> None:
    retention = Retention(station, lambda _: PLENTY)
    retention.look(ledger, NOW_S)

    def write() -> None:
        raise LedgerError("it was sealed before")

    with pytest.raises(LedgerError, match="sealed before"):
        retention.insist(write, lambda why: True)
    assert reserve_of(station).stands


# -- what may be deleted ----------------------------------------------------------------------------------------------


def test_nothing_that_is_only_here_is_deleted_however_full_the_disk(tmp_path: Path, ledger: Ledger) -> None:
    files = seal(ledger, tmp_path / "recordings", 40)
    ledger.acknowledge([("station-1", ledger.epoch, sequence) for sequence in range(1, 41)], 0.0)
    for pressure in (False, True):
        assert purge(tmp_path / "recordings", ledger, pressure, NOW_S + 1e9) == (0, 0)
    assert all(path.exists() for path in files)


@pytest.mark.parametrize(
    ("under_pressure", "age_s", "gone"),
    [(False, 1e9, 0), (True, WEEK_S, 0), (True, WEEK_S + 1, 3)],
)
def test_what_no_backup_holds_stays_for_a_week_and_goes_only_under_pressure(
    tmp_path: Path, ledger: Ledger, under_pressure: bool, age_s: float, gone: int
) -> None:
    files = seal(ledger, tmp_path / "recordings", 5)
    acknowledge(ledger, range(1, 4))
    assert purge(tmp_path / "recordings", ledger, under_pressure, NOW_S + age_s) == (gone, gone * 1000)
    assert [path.exists() for path in files] == [False] * gone + [True] * (5 - gone)
    assert recording_states(ledger, tmp_path) == ["purged" if gone else "sent"] * 3 + ["here"] * 2


def test_what_a_backup_holds_goes_oldest_first_and_the_newest_stay_while_there_is_room(
    tmp_path: Path, ledger: Ledger
) -> None:
    count = KEPT_FOR_PEOPLE + PURGED_AT_ONCE + 3
    files = seal(ledger, tmp_path / "recordings", count)
    acknowledge(ledger, range(1, count + 1))
    back_up(ledger, range(1, count + 1))
    recordings = tmp_path / "recordings"
    for gone in (PURGED_AT_ONCE, PURGED_AT_ONCE + 3, PURGED_AT_ONCE + 3):
        purge(recordings, ledger, False, NOW_S)
        assert [path.exists() for path in files] == [False] * gone + [True] * (count - gone)
    assert purge(recordings, ledger, True, NOW_S)[0] == KEPT_FOR_PEOPLE
    assert list(recordings.iterdir()) == []
    assert recording_states(ledger, tmp_path) == ["purged"] * count


def test_a_file_that_a_crash_left_unmarked_counts_as_deleted(tmp_path: Path, ledger: Ledger) -> None:
    files = seal(ledger, tmp_path / "recordings", 3)
    acknowledge(ledger, range(1, 4))
    back_up(ledger, range(1, 4))
    files[0].unlink()
    files[1].unlink()
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (1, 1000)
    assert recording_states(ledger, tmp_path) == ["purged"] * 3
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (0, 0)


def test_what_the_coordinator_turns_out_to_have_lost_is_not_deleted_even_at_the_last_moment(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = seal(ledger, tmp_path / "recordings", 2)
    acknowledge(ledger, range(1, 3))
    back_up(ledger, range(1, 3))
    real = ledger.purgeable

    def overtaken(under_pressure: bool, now_unix_s: float) -> list[tuple[int, Path]]:
        found = real(under_pressure, now_unix_s)
        with Ledger(tmp_path / "ledger.db", "station-1") as uplink:
            uplink.recordings_lost([f"{1:064x}"])
        return found

    monkeypatch.setattr(ledger, "purgeable", overtaken)
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (1, 1000)
    assert [path.exists() for path in files] == [True, False]
    assert recording_states(ledger, tmp_path) == ["here", "purged"]


def test_a_deletion_that_a_crash_cut_short_is_finished(tmp_path: Path, ledger: Ledger) -> None:
    files = seal(ledger, tmp_path / "recordings", 3)
    acknowledge(ledger, range(1, 4))
    back_up(ledger, range(1, 3))
    for row in (1, 2):
        assert ledger.begin_purge(row, True, NOW_S)
    files[0].unlink()
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (1, 1000)
    assert [path.exists() for path in files] == [False, False, True]
    assert recording_states(ledger, tmp_path) == ["purged", "purged", "sent"]


def test_where_not_even_a_deletion_can_be_noted_the_ledger_gets_the_reserve(
    tmp_path: Path, station: Station, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = seal(ledger, tmp_path / "recordings", 1)
    acknowledge(ledger, range(1, 2))
    back_up(ledger, range(1, 2))
    assert reserve_of(station).make()
    retention = Retention(station, lambda _: Space(60.0, 1000.0))
    real = ledger.begin_purge

    def full(row: int, under_pressure: bool, now_unix_s: float) -> bool:
        if reserve_of(station).stands:
            raise DiskFull("disk full")
        return real(row, under_pressure, now_unix_s)

    monkeypatch.setattr(ledger, "begin_purge", full)
    assert retention.look(ledger, NOW_S).rung is Rung.PARKED
    assert (files[0].exists(), reserve_of(station).stands) == (True, False)
    retention.look(ledger, NOW_S)
    assert not files[0].exists()


def test_a_ledger_without_a_folder_of_recordings_is_marked_all_the_same(tmp_path: Path, ledger: Ledger) -> None:
    for path in seal(ledger, tmp_path / "recordings", 2):
        path.unlink()
    (tmp_path / "recordings").rmdir()
    acknowledge(ledger, range(1, 3))
    back_up(ledger, range(1, 3))
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (0, 0)
    assert recording_states(ledger, tmp_path) == ["purged"] * 2


@pytest.mark.parametrize("path", ["../ledger.db", "/etc/passwd", "", "."])
def test_nothing_outside_the_folder_of_recordings_is_ever_deleted(tmp_path: Path, ledger: Ledger, path: str) -> None:
    seal(ledger, tmp_path / "recordings", 1)
    acknowledge(ledger, range(1, 2))
    back_up(ledger, range(1, 2))
    db = sqlite3.connect(tmp_path / "ledger.db")
    with db:
        db.execute("UPDATE trials SET recording_path = ?", (path,))
    db.close()
    assert purge(tmp_path / "recordings", ledger, True, NOW_S) == (0, 0)
    assert (tmp_path / "ledger.db").exists()
    assert len(list((tmp_path / "recordings").iterdir())) == 1


def test_a_full_disk_is_emptied_of_what_may_go_before_the_rung_is_read(
    tmp_path: Path, station: Station, ledger: Ledger
) -> None:
    files = seal(ledger, tmp_path / "recordings", 10)
    acknowledge(ledger, range(1, 9))
    back_up(ledger, range(1, 9))

    def space(folder: Path) -> Space:
        return Space(1000.0 - 100.0 * len(list((folder / "recordings").iterdir())), 1000.0)

    retention = Retention(station, space)
    assert retention.look(ledger, NOW_S).rung is Rung.FULL
    assert [path.exists() for path in files] == [False] * 8 + [True] * 2
    assert retention.tier == station.recording


# -- the doctor -------------------------------------------------------------------------------------------------------


def disk_line(folder: Path, space: Space) -> Finding:
    """Return what the doctor says of the disk; it is not let go on to the arm."""
    checks = examine(folder, False, space=lambda _: space)
    return next(finding for finding in checks if finding.check == "disk")


@pytest.mark.parametrize(
    ("space", "outcome", "detail"),
    [
        (PLENTY, OK, "50.0 GB free, 100% of what counts of the disk; recording full; no trial was recorded yet"),
        (Space(300.0, 1e6), WARNING, "300 MB free, 15% of what counts of the disk; recording small"),
        (Space(180.0, 1e6), WARNING, "recording low"),
        (Space(80.0, 1e6), FAILED, "disk nearly full, no trial is begun and nothing was lost: 80 MB free, 4%"),
    ],
)
def test_the_doctor_says_how_full_the_disk_is_and_what_to_do(
    made: Station, space: Space, outcome: str, detail: str
) -> None:
    found = disk_line(made.folder, replace(space, free_mb=space.free_mb + made.storage.reserve_mb))
    assert (found.outcome, detail in found.detail) == (outcome, True), found
    assert found.remedy == "" if outcome == OK else str(made.folder) in found.remedy
    assert ("commits a second" in found.detail) == (outcome != FAILED)
    assert not list(made.folder.glob("doctor-*"))


def test_the_doctor_writes_no_reserve_and_deletes_nothing(made: Station) -> None:
    before = sorted(made.folder.iterdir())
    disk_line(made.folder, Space(1.0, 10_000.0))
    assert sorted(made.folder.iterdir()) == before
