"""Trouble while stations are served ends no campaign and leaves no attempt behind; a revocation is heeded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import Mock

import msgpack
import pytest

from coordinator.conduct import FINISHED, INTERRUPTED, Conductor, Limits
from coordinator.journal import resume
from coordinator.network import Question
from coordinator.publish.books import RepositoryRefused
from edge.records import PROTOCOL
from tests.harness.journaled_lab import JournaledLab

EDGE = "station-1"
REQUEST = {
    "protocol": PROTOCOL, "edge": EDGE, "epoch": "e1", "task": "push_t", "wants": 2, "station_hash": "5" * 64,
    "calibration_hash": "6" * 64, "software": "s", "memory_mb": 300.0,
}  # fmt: skip


@dataclass
class Bench:
    """A conductor on a real journal and store, whose stations ask for work and bring nothing."""

    lab: JournaledLab
    publisher: Mock
    answers: list[bytes] = field(default_factory=list)

    def run(self, turns: int) -> str:
        """Serve for so many turns, in each of which the station asks for work, and return why it ended."""
        left = [turns]

        def interruptions() -> int:
            left[0] -= 1
            return int(left[0] < 0)

        fleet = Mock(names=(EDGE,), able=(EDGE,), paced=False, running=False, hopeless=False)
        fleet.tend.return_value = []
        crew = Mock()
        crew.idle.return_value, crew.tend.return_value, crew.take.return_value = [], [], []
        network = Mock()
        network.take.side_effect = lambda wait_s: self._question() if wait_s else None
        limits = Limits("a test", 8, 3600.0, interruptions)
        conductor = Conductor(
            "push_t",
            Path(),
            self.lab.journal,
            self.lab.researcher,
            crew,
            self.publisher,
            network,
            fleet,
            Mock(),
            limits,
        )
        return conductor.go()

    def _question(self) -> Question:
        asked = Mock(spec=Question, key="k", edge=EDGE, topic="lease", payload=msgpack.packb(REQUEST))
        asked.answer.side_effect = self.answers.append
        return asked


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    lab = JournaledLab(tmp_path)
    publisher = Mock(store=lab.store)
    publisher.lab.repository.revoked.return_value = {}
    return Bench(lab, publisher)


def leased(bench: Bench) -> Iterable[str]:
    return [row[0] for row in bench.lab.store.rows("SELECT assignment_id FROM assignments WHERE state = 'leased'")]


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), RepositoryRefused("the keys change")])
def test_attempts_whose_policy_cannot_be_offered_are_asked_for_again(bench: Bench, trouble: Exception) -> None:
    bench.publisher.offer.side_effect = [trouble, *[None] * 99]
    assert bench.run(3) == INTERRUPTED
    handed_out = list(bench.lab.journal.campaign.waits_for)
    assert handed_out
    assert sorted(leased(bench)) == sorted(handed_out)
    bench.lab.open(time.time())  # by its journal it is the same campaign
    assert list(bench.lab.journal.campaign.waits_for) == handed_out


def test_a_lab_that_cannot_be_renewed_for_a_while_is_tried_again(bench: Bench) -> None:
    bench.publisher.lab.renew.side_effect = OSError(28, "No space left on device")
    assert bench.run(3) == INTERRUPTED
    assert bench.answers


def revoke(bench: Bench, bundle: str) -> None:
    row = (0.0, "revoke", bundle, "", "now", "[]", "[]")
    with bench.lab.store.transaction() as db:
        db.execute("INSERT INTO pushes (unix_s, what, bundle, task, stage, edges, signers) VALUES (?,?,?,?,?,?,?)", row)
    bench.publisher.lab.repository.revoked.return_value = {bundle: "now"}


def test_a_candidate_that_a_person_revokes_is_tested_no_longer(bench: Bench) -> None:
    lab = bench.lab
    number = 0
    while not (tested := lab.journal.campaign.bundles - {lab.journal.campaign.incumbent.bundle}):
        number += 1
        lab.turn(float(number))
    bundle = min(tested)
    revoke(bench, bundle)
    assert bench.run(2) == INTERRUPTED
    assert bundle not in lab.journal.campaign.bundles
    query = "SELECT verdict, reason FROM decisions JOIN candidates USING (candidate_id) WHERE bundle = ?"
    assert lab.store.rows(query, bundle) == [("reject", "a person has revoked it")]
    resume(lab.make, lab.store, lambda events, now_s: None)  # whose journal says so too


def test_a_campaign_whose_best_policy_a_person_revokes_has_ended(bench: Bench) -> None:
    revoke(bench, bench.lab.journal.campaign.incumbent.bundle)
    assert bench.run(3) == FINISHED["revoked"]
