"""What the campaign has decided, as the store writes it: each record is the image of a row, ids counted from 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policies.interface import Value


@dataclass(frozen=True)
class HypothesisMade:
    """A row of `hypotheses`."""

    hypothesis_id: int
    researcher: str
    kind: str
    sentence: str
    falsifier: str
    changes: Mapping[str, Value]
    created_unix_s: float
    files: tuple[str, ...] = ()  # that it changes, by name
    not_worse: bool = False  # a simplification


@dataclass(frozen=True)
class CandidateMade:
    """A row of `candidates`."""

    candidate_id: int
    hypothesis_id: int
    bundle: str
    parent_candidate_id: int | None
    state: str
    created_unix_s: float


@dataclass(frozen=True)
class CandidateMerged:
    """A row of `merges`."""

    candidate_id: int
    merged_candidate_id: int


@dataclass(frozen=True)
class ProposalTurnedDown:
    """A row of `refusals`."""

    refusal_id: int
    researcher: str
    kind: str
    sentence: str
    reason: str
    unix_s: float


@dataclass(frozen=True)
class PlayMade:
    """A row of `plays`."""

    play_id: int
    researcher: str
    candidate_id: int
    bundle: str
    changes: Mapping[str, Value]
    files: tuple[str, ...]
    attempts: int
    created_unix_s: float


@dataclass(frozen=True)
class CandidateState:
    """A candidate's new state; `ended_unix_s` is None while it is still being tested."""

    candidate_id: int
    state: str
    ended_unix_s: float | None


@dataclass(frozen=True)
class DecisionMade:
    """A row of `decisions`."""

    decision_id: int
    candidate_id: int
    verdict: str
    stage: str
    reason: str
    pairs: int
    wins: int
    losses: int
    wealth: float
    candidate_successes: int
    candidate_trials: int
    incumbent_successes: int
    incumbent_trials: int
    gain_points: float
    trials_so_far: int
    decided_unix_s: float


@dataclass(frozen=True)
class HeldoutMeasured:
    """A row of `heldout`."""

    heldout_id: int
    candidate_id: int
    successes: int
    trials: int
    low: float
    high: float
    complete: bool
    ended_unix_s: float
    invalid: int = 0  # of `trials`, failures because what the policy left could not be judged


@dataclass(frozen=True)
class AuditMeasured:
    """A row of `audits`."""

    audit_id: int
    candidate_id: int
    successes: int
    trials: int
    low: float
    high: float
    complete: bool
    ended_unix_s: float
    invalid: int = 0  # of `trials`, failures because what the policy left could not be judged


@dataclass(frozen=True)
class StationTold:
    """A row of `events`: something about a station that people should know."""

    unix_s: float
    edge: str
    level: str
    text: str


@dataclass(frozen=True)
class TrialUsed:
    """A trial entered a decision, a held-out measurement or a baseline."""

    edge: str
    epoch: str
    sequence: int


Event = (
    HypothesisMade
    | CandidateMade
    | CandidateMerged
    | CandidateState
    | ProposalTurnedDown
    | PlayMade
    | DecisionMade
    | HeldoutMeasured
    | AuditMeasured
    | StationTold
    | TrialUsed
)
