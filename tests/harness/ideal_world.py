"""A made-up fleet whose true success rates are known, and a workshop that keeps policies in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

import policies
from coordinator.campaign import Attempt, Campaign, Work
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, Researcher, Source
from coordinator.evolution.starts import Starts
from coordinator.research.offline import OfflineResearcher, canonical
from edge.records import Outcome, Trial
from policies.interface import Value
from policies.space import PolicySpace, SpaceError, load_space

SPACE = load_space(Path(policies.__file__).parent / "push_t")
STARTS = Starts.load("push_t")
IDEAS = [idea.name for idea in SPACE.ideas]

V = TypeVar("V")
Skill = Callable[[Mapping[str, Value]], float]  # how good a configuration is, 0 to 1


def ladder(params: Mapping[str, Value]) -> float:
    """Four of the declared ideas matter, and one parameter."""
    skill = 0.25 * sum(bool(params[name]) for name in IDEAS[:3])
    return skill + (0.24 if float(params["push_speed_m_s"]) <= 0.13 else 0.0)


def two_locks(params: Mapping[str, Value]) -> float:
    """Two ideas do little alone and nearly all together, as in an insertion; two more changes do the rest."""
    both = sum(bool(params[name]) for name in IDEAS[:2])
    rest = 0.07 * bool(params[IDEAS[2]]) + 0.07 * (float(params["push_speed_m_s"]) <= 0.13)
    return (0.12, 0.31, 0.83)[both] + rest


def nothing_matters(params: Mapping[str, Value]) -> float:
    """Every configuration succeeds every other time."""
    return 0.5


class MemoryWorkshop:
    """Policies that differ in parameters and files, as values; what was published is kept by bundle."""

    def __init__(self, space: PolicySpace = SPACE) -> None:
        self._space = space
        self.sources: dict[str, Source] = {}
        self.published: list[str] = []  # every call's bundle

    def seed(self) -> Source:
        """Return the defaults."""
        return _source({}, self._space.defaults())

    def draft(self, base: Source, proposal: Proposal | Play) -> Source:
        """Return `base` with the changes."""
        params = {**base.params, **proposal.changes}
        try:
            self._space.validate(params)
        except SpaceError as error:
            raise ProposalRefused(str(error)) from error
        return _source({**base.files, **proposal.files}, params)

    def merge(self, base: Source, ours: Source, theirs: Source) -> Source | None:
        """Merge parameters and whole files."""
        params = _merged(base.params, ours.params, theirs.params)
        files = _merged(base.files, ours.files, theirs.files)
        return None if params is None or files is None else _source(files, params)

    def publish(self, source: Source, proposal: Proposal, researcher: str, parents: Sequence[str], now_s: float) -> str:
        """Keep the source under the hash of its key."""
        bundle = hashlib.sha256(source.key.encode()).hexdigest()
        self.sources[bundle] = source
        self.published.append(bundle)
        return bundle


def _source(files: Mapping[str, bytes], params: Mapping[str, Value]) -> Source:
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
    key = canonical(params)
    return Source(files, params, f"{key};{digest}" if files else key)


def _merged(base: Mapping[str, V], ours: Mapping[str, V], theirs: Mapping[str, V]) -> dict[str, V] | None:
    changed = {name: value for name, value in theirs.items() if base.get(name) != value}
    ours_changed = {name for name, value in ours.items() if base.get(name) != value}
    return None if ours_changed & set(changed) else {**ours, **changed}


class World:
    """Stations that answer from a known model, some attempts invalid, with an order of their own."""

    def __init__(
        self, skill: Skill, seed: int, invalid: float = 0.02, graded: bool = True, unjudged: float = 0.0
    ) -> None:
        """Answer attempts.

        Args:
            invalid: share of attempts that are cut short through no fault of their policy.
            unjudged: share of the others of which the judge cannot make anything.
        """
        self.graded = graded  # whether the progress of a failure tells how good a policy is
        self.rng = np.random.default_rng(seed)
        self.workshop = MemoryWorkshop()
        self.sequence = 0
        self.skill, self.invalid, self.unjudged = skill, invalid, unjudged
        self.handicap: dict[str, float] = {}  # by station: of its attempts that share fails for its own fault

    def run(self, attempt: Attempt, edge: str = "station-1") -> Trial:
        """Return how an attempt ends."""
        self.sequence += 1
        skill = self.skill(self.workshop.sources[attempt.bundle].params)
        hard = np.random.default_rng([attempt.seed, 7]).uniform()  # the start's own difficulty, shared by a pair
        success = bool(self.rng.uniform() < skill and (skill > 0.9 or hard < skill + 0.1))
        success = success and not self.rng.uniform() < self.handicap.get(edge, 0.0)
        progress = 1.0 if success else float(np.clip(0.8 * skill * self.graded + self.rng.normal(0.0, 0.15), 0.0, 0.99))
        outcome, cause = (Outcome.SUCCESS, "") if success else (Outcome.FAILURE, "near")
        if self.rng.uniform() < self.invalid:
            outcome, cause = Outcome.INVALID, "crash"
        elif self.unjudged and self.rng.uniform() < self.unjudged:
            outcome, cause = Outcome.INVALID, "undecided"
        return Trial(
            edge=edge, epoch="e", sequence=self.sequence, assignment_id=attempt.assignment_id, lease_id="l",
            task="push_t", bundle=attempt.bundle, start_id=attempt.start_id, purpose=attempt.purpose,
            seed=attempt.seed, outcome=outcome, cause=cause, detail="", progress=progress,
            measures={}, achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=25.0, policy_steps=700,
            wall_reset_s=0.4, wall_trial_s=0.7, started_unix_s=0.0, ended_unix_s=0.0, station_hash="",
            calibration_hash="", software="", recording="",
        )  # fmt: skip


class Lab:
    """A campaign with a researcher, as a conductor drives them."""

    def __init__(self, world: World, seed: int, *, stations: int = 4, heldout: int = 50, audit: int = 0) -> None:
        self.researcher: Researcher = OfflineResearcher(SPACE, seed)
        self.campaign = Campaign(world.workshop, STARTS, seed, stations=stations, heldout=heldout, audit=audit)

    def next_work(self, edge: str = "station-1", now_s: float = 0.0, ahead: int = 0) -> Work | None:
        """Ask the researcher while the campaign wants ideas, then for work."""
        ask(self.campaign, self.researcher, now_s)
        return self.campaign.next_work(edge, now_s, ahead)


def ask(campaign: Campaign, researcher: Researcher, now_s: float, most: int = 20) -> None:
    """Hand proposals in while the campaign wants some."""
    for _ in range(most):
        context = campaign.wants(now_s, researcher.name)
        if context is None:
            return
        campaign.propose(researcher.propose(context), researcher.name, now_s)
