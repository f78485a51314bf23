"""Laws of proposals that were made against an incumbent which has been followed by another one since."""

from __future__ import annotations

from pathlib import Path

from coordinator.evolution.ideas import Proposal
from coordinator.journal import resume
from tests.harness.ideal_world import IDEAS
from tests.harness.journaled_lab import JournaledLab

MOST_TURNS = 400


def moved(folder: Path) -> JournaledLab:
    """Return a lab whose incumbent is another one than the first, and which wants ideas."""
    lab = JournaledLab(folder)
    for number in range(MOST_TURNS):
        if lab.journal.campaign.incumbent.candidate_id != 1:
            return lab
        lab.turn(float(number))
    raise AssertionError("the incumbent never moved")


def stale(**changes: bool) -> Proposal:
    return Proposal("agent", changes, "It helps.", "It does not.", {"note.json": b"[1]"}, base=1)


def test_a_stale_proposal_is_merged_onto_the_incumbent_and_is_had_again_from_the_journal(tmp_path: Path) -> None:
    lab = moved(tmp_path)
    before = lab.journal.campaign.incumbent.source
    free = next(name for name in IDEAS if not before.params[name])
    assert lab.journal.propose(stale(**{free: True}), "codex-1", 9.0) == ""
    made = lab.journal.campaign._book.testing[-1]
    assert made.source.params == {**before.params, free: True}
    assert made.source.files == {**before.files, "note.json": b"[1]"}
    again = resume(lab.make, lab.store, lambda events, now_s: None).campaign
    assert again._book.testing[-1].source == made.source


def test_a_stale_proposal_that_changes_what_the_incumbent_changed_is_refused_in_words(tmp_path: Path) -> None:
    lab = moved(tmp_path)
    first = lab.workshop.seed().params
    taken = next(name for name, value in lab.journal.campaign.incumbent.source.params.items() if value != first[name])
    change = {taken: lab.journal.campaign.incumbent.source.params[taken]}
    reason = lab.journal.propose(Proposal("agent", change, "It helps.", "No.", base=1), "codex-1", 9.0)
    number = lab.journal.campaign.incumbent.candidate_id
    assert reason == f"candidate {number} became the incumbent meanwhile, and both change the same lines"
    unknown = lab.journal.propose(Proposal("agent", change, "It helps.", "No.", base=999), "codex-1", 9.0)
    assert unknown == "there is no candidate 999 to change"
