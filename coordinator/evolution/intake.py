"""From ideas to candidates: drafts, merges and publishes them, and says why not where it does not.

Nothing is written down before it is published, so that a failure to publish leaves the campaign as it was. What was
tried already is told by the policy that would be tested, before anything is published.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.evolution.book import SEED, Book
from coordinator.evolution.candidate import Candidate
from coordinator.evolution.evidence import Call, Stage
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, Source, Workshop
from policies.bundle import BundleError


class Intake:
    """Takes ideas in."""

    def __init__(self, workshop: Workshop, book: Book) -> None:
        self._workshop, self._book = workshop, book

    def ship(self, now_s: float) -> None:
        """Make the policy as it ships the first incumbent."""
        book = self._book
        shipped = Proposal(SEED, {}, "the policy as it ships", "")
        source = self._workshop.seed()
        bundle = self._workshop.publish(source, shipped, SEED, (), now_s)
        book.incumbent = book.enter(shipped, SEED, source, bundle, None, now_s)
        book.decide(book.incumbent, "accept", SEED, Stage(Call.PASS, "the first incumbent", 0, 0, 0), now_s)

    def take(self, proposal: Proposal, researcher: str, now_s: float) -> str:
        """Take a proposal into test; return why not where it is not."""
        book = self._book
        try:
            source = self._draft(proposal)
            if proposal.base:  # as they are tested, which is not as they were handed in where another file went before
                proposal = replace(proposal, files={name: source.files[name] for name in proposal.files})
            if reason := book.why_closed(source.key):
                return self.refuse(proposal, researcher, reason, now_s)
            merged = [book.candidates[number].bundle for number in proposal.parents]
            self._test(source, proposal, researcher, (book.incumbent.bundle, *merged), now_s)
        except (ProposalRefused, BundleError) as error:
            return self.refuse(proposal, researcher, str(error), now_s)
        book.proposals[researcher] += 1
        return ""

    def refuse(self, proposal: Proposal, researcher: str, reason: str, now_s: float) -> str:
        """Say why a proposal is not tested, and return it."""
        self._book.proposals[researcher] += 1
        self._book.turn_down(researcher, proposal, reason, now_s)
        return reason

    def play(self, play: Play, researcher: str, now_s: float) -> str:
        """Publish what the attempts of a play run and return its bundle.

        Raises:
            ProposalRefused: no policy can be made of it; that is written down.
        """
        book, incumbent = self._book, self._book.incumbent
        told = Proposal("play", play.changes, f"{play.attempts} attempts to learn from", "", play.files)
        try:
            source = self._workshop.draft(incumbent.source, play)
            bundle = self._workshop.publish(source, told, researcher, (incumbent.bundle,), now_s)
        except (ProposalRefused, BundleError) as error:
            book.plays[researcher] += 1  # else the next would be drawn the same
            book.turn_down(researcher, told, str(error), now_s)
            raise ProposalRefused(str(error)) from error
        book.enter_play(researcher, source, bundle, play.attempts, now_s)
        return bundle

    def rebase(self, other: Candidate, old: Candidate, now_s: float) -> None:
        """Test an idea that was tested against `old` anew on the incumbent, or say why not."""
        book = self._book
        proposal = replace(other.proposal, parents=())
        source = self._workshop.merge(old.source, book.incumbent.source, other.source)
        if source is None:
            reason = "it changes what the new incumbent has changed"
        else:  # its files as they are tested, with what the incumbent changed in them
            proposal = replace(proposal, files={name: source.files[name] for name in proposal.files})
            reason = book.why_closed(source.key)
        if source is not None and not reason:
            try:
                self._test(source, proposal, other.researcher, (book.incumbent.bundle, other.bundle), now_s)
            except (ProposalRefused, BundleError) as error:
                reason = str(error)
        if reason:
            book.turn_down(other.researcher, proposal, reason, now_s)

    def _test(
        self, source: Source, proposal: Proposal, researcher: str, parents: tuple[str, ...], now_s: float
    ) -> None:
        book = self._book
        bundle = self._workshop.publish(source, proposal, researcher, parents, now_s)
        book.testing.append(book.enter(proposal, researcher, source, bundle, book.incumbent, now_s))

    def _draft(self, proposal: Proposal) -> Source:
        """Make a proposal's changes, and merge them onto the incumbent where that moved since they were made.

        Raises:
            ProposalRefused: no policy can be made of it, or it changes what the incumbent has changed meanwhile.
        """
        book = self._book
        incumbent = book.incumbent.source
        if proposal.base in (0, book.incumbent.candidate_id):
            return self._changed(incumbent, proposal)
        old = book.candidates.get(proposal.base)
        if old is None:
            raise ProposalRefused(f"there is no candidate {proposal.base} to change")
        merged = self._workshop.merge(old.source, incumbent, self._changed(old.source, proposal))
        if merged is None:
            number = book.incumbent.candidate_id
            raise ProposalRefused(f"candidate {number} became the incumbent meanwhile, and both change the same lines")
        return merged

    def _changed(self, source: Source, proposal: Proposal) -> Source:
        book = self._book
        for number in proposal.parents:
            other = book.candidates.get(number)
            if other is None or other.parent is None:
                raise ProposalRefused(f"there is no candidate {number} to merge")
            merged = self._workshop.merge(other.parent.source, source, other.source)
            if merged is not None:
                source = merged
            elif not (proposal.changes or proposal.files):  # which say what comes of what both change
                raise ProposalRefused(f"candidate {number} changes what another parent changes too")
        if proposal.parents and not (proposal.changes or proposal.files):
            return source
        return self._workshop.draft(source, proposal)
