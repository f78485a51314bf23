"""Laws of the journal: after any kill a campaign goes on as it would have, loses nothing and decides nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.campaign import Attempt
from coordinator.evolution import gating
from coordinator.journal import Entry, JournalRefused, resume
from coordinator.store import StoreError
from edge.records import Lease
from tests.harness.journaled_lab import JournaledLab, Killed

EVERY = 6  # turns from kill to kill
TURNS = 60


def log_of(lab: JournaledLab) -> list[Entry]:
    return [Entry(*row) for row in lab.store.rows("SELECT * FROM campaign_log ORDER BY seq")]


def unbroken(lab: JournaledLab) -> bool:
    """Return whether a fresh campaign gives the whole chain again."""
    resume(lab.make, lab.store, lambda events, now_s: None)
    return [entry.seq for entry in log_of(lab)] == list(range(1, len(log_of(lab)) + 1))


def check_evidence(lab: JournaledLab) -> None:
    """Check that no trial is lost or doubled, and that nothing was decided twice."""
    kept = [json.dumps(list(row)) for row in lab.store.rows("SELECT edge, epoch, sequence FROM trials")]
    recorded = [json.dumps(json.loads(entry.payload)["trial"]) for entry in log_of(lab) if entry.call == "record"]
    assert sorted(kept) == sorted(recorded)
    assert len(set(kept)) == len(kept)
    assert lab.store.rows("SELECT COUNT(*) - COUNT(DISTINCT assignment_id) FROM trials") == [(0,)]
    decided = lab.store.rows("SELECT candidate_id FROM decisions")
    assert len(set(decided)) == len(decided)
    numbers = [row[0] for row in lab.store.rows("SELECT decision_id FROM decisions ORDER BY decision_id")]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("where", ["before it was recorded", "before the lease was written", ""])
def test_a_campaign_that_is_killed_again_and_again_loses_nothing_and_decides_nothing_twice(
    where: str, tmp_path: Path
) -> None:
    lab = JournaledLab(tmp_path)
    number = kills = 0
    while not lab.journal.campaign.finished and number < 500:
        number += 1
        try:
            lab.turn(float(number), where if number % EVERY == 0 else "")
            if not where and number % EVERY == 0:
                raise Killed
        except Killed:
            kills += 1
            lab.open(float(number))
    assert lab.journal.campaign.finished == "target"
    assert kills > 5
    check_evidence(lab)
    assert unbroken(lab)


def test_a_kill_after_every_turn_changes_no_decision(tmp_path: Path) -> None:
    told = []
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        lab = JournaledLab(tmp_path / name)
        for number in range(1, TURNS):
            lab.turn(float(number))
            if name == "killed":
                lab.open(float(number))
        told.append([tuple(row) for row in lab.store.rows("SELECT * FROM decisions ORDER BY decision_id")])
    assert len(told[0]) > 4
    assert told[0] == told[1]


def test_a_version_that_decides_differently_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = JournaledLab(tmp_path)
    lab.finish(1)
    assert unbroken(lab)
    monkeypatch.setattr(gating, "SCREENED_FIRST", 2)
    with pytest.raises(JournalRefused, match="decides differently"):
        lab.open(0.0)


def test_an_entry_that_was_altered_or_taken_out_is_found(tmp_path: Path) -> None:
    lab = JournaledLab(tmp_path)
    for number in range(20):
        lab.turn(float(number))
    for change in (
        "DELETE FROM campaign_log WHERE seq = 9",
        "UPDATE campaign_log SET unix_s = unix_s + 1 WHERE seq = 7",
    ):
        with lab.store.transaction() as db:
            db.execute(change)
        with pytest.raises(JournalRefused):
            lab.open(30.0)


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    lab = JournaledLab(tmp_path)
    with lab.store.transaction() as db:
        db.execute("DELETE FROM campaign_log")
    with pytest.raises(JournalRefused, match="no campaign was begun here"):
        lab.open(1.0)


def test_publishing_again_on_the_way_back_changes_nothing(tmp_path: Path) -> None:
    lab = JournaledLab(tmp_path)
    lab.finish(1)
    before = lab.store.rows("SELECT * FROM bundles ORDER BY rowid")
    lab.open(1e6)
    assert lab.store.rows("SELECT * FROM bundles ORDER BY rowid") == before


def test_work_that_the_disk_does_not_take_is_not_handed_out_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = JournaledLab(tmp_path)

    def full() -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(lab.store, "transaction", full)
        with pytest.raises(StoreError):
            lab.journal.next_work("station-1", 1.0)
    assert lab.journal.campaign.waits_for == ()
    work = lab.journal.next_work("station-1", 2.0)
    assert work is not None
    assert unbroken(lab)
    again: tuple[Attempt, ...] = work.attempts
    lab.store.lease(Lease("l", "push_t", (), 1e9), "station-1", again, 2.0)
    lab.open(3.0)
    assert lab.journal.campaign.waits_for == tuple(item.assignment_id for item in again)
