"""Laws of the offline researcher."""

from collections import Counter
from pathlib import Path

import policies
from coordinator.research.offline import OfflineResearcher, ResearchContext, Standing, Tried, canonical
from policies.space import load_space

SPACE = load_space(Path(policies.__file__).parent / "push_t")


def context(**changes: object) -> ResearchContext:
    blank = {"incumbent": SPACE.defaults(), "tried": (), "known": frozenset(), "failures": {}, "standings": ()}
    return ResearchContext(**{**blank, **changes})  # type: ignore[arg-type]


def test_every_proposal_is_allowed_new_and_a_readable_sentence() -> None:
    researcher = OfflineResearcher(SPACE, 1)
    known: set[str] = {canonical(SPACE.defaults())}
    for _ in range(300):
        proposal = researcher.propose(context(known=frozenset(known)))
        params = {**SPACE.defaults(), **proposal.changes}
        SPACE.validate(params)
        assert canonical(params) not in known
        known.add(canonical(params))
        assert proposal.changes
        assert len(proposal.sentence) > 15
        assert proposal.falsifier


def test_the_same_seed_proposes_the_same() -> None:
    one, other = OfflineResearcher(SPACE, 4), OfflineResearcher(SPACE, 4)
    assert [one.propose(context()) for _ in range(20)] == [other.propose(context()) for _ in range(20)]


def test_what_claims_to_help_against_the_failures_seen_comes_more_often() -> None:
    researcher = OfflineResearcher(SPACE, 2)
    helping = {idea.name for idea in SPACE.ideas if "near" in idea.helps}
    counts: Counter[bool] = Counter()
    for _ in range(300):
        proposal = researcher.propose(context(failures={"near": 8}))
        if proposal.kind == "switch":
            counts[next(iter(proposal.changes)) in helping] += 1
    share_of_ideas = len(helping) / len(SPACE.ideas)
    assert counts[True] / counts.total() > share_of_ideas


def test_a_kind_that_never_pays_is_tried_less() -> None:
    failed = tuple(Tried("switch", {SPACE.ideas[0].name: True}, "reject") for _ in range(30))
    kinds = []
    for tried in ((), failed):
        researcher = OfflineResearcher(SPACE, 3)
        kinds.append(sum(researcher.propose(context(tried=tried)).kind == "switch" for _ in range(100)))
    assert kinds[1] < kinds[0] / 2


def test_it_never_runs_dry_even_with_every_idea_on() -> None:
    researcher = OfflineResearcher(SPACE, 5)
    all_on = {**SPACE.defaults(), **{idea.name: True for idea in SPACE.ideas}}
    for _ in range(50):
        assert researcher.propose(context(incumbent=all_on)).changes


def test_what_leads_is_merged_and_the_stronger_has_a_parameter_that_two_want() -> None:
    leading = (
        Standing({"choose_by_model": True}, 6.0),
        Standing({"push_speed_m_s": 0.08}, 4.0),
        Standing({"push_speed_m_s": 0.3}, 2.0),
        Standing({"ease_motion": True}, 1.0),
    )
    researcher = OfflineResearcher(SPACE, 6)
    proposals = [researcher.propose(context(standings=leading)) for _ in range(50)]
    merged = [proposal.changes for proposal in proposals if proposal.kind == "merge"]
    assert merged
    assert all(changes == {"choose_by_model": True, "push_speed_m_s": 0.08} for changes in merged)


def test_what_failed_on_an_earlier_incumbent_soon_gets_another_chance() -> None:
    failed = Tried("parameter", {"push_speed_m_s": 0.08}, "reject")
    accepted = Tried("switch", {"choose_by_model": True}, "accept")
    counts = []
    for tried in ((accepted, failed, failed), (failed, failed, accepted)):
        researcher = OfflineResearcher(SPACE, 7)
        proposals = [researcher.propose(context(tried=tried)) for _ in range(400)]
        counts.append(sum(item.changes.get("push_speed_m_s", 1.0) < 0.2 for item in proposals))
    assert counts[1] > counts[0]
