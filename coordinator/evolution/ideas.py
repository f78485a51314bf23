"""What passes between a campaign, its researchers and the workshop that makes candidates of their ideas.

- A researcher is shown a `ResearchContext` and returns a `Proposal`: one sentence that can be wrong, and a change.
- A `Workshop` makes a `Source` of it, which is a policy's files and parameters, and publishes that as a bundle.
- Nothing here tells of gate, held-out or audit starts: researchers see results by start for development only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from policies.interface import Value


class ProposalRefused(Exception):
    """A proposal that cannot be made into a policy; the message is one line for whoever proposed it."""


@dataclass(frozen=True)
class Proposal:
    """A change to the incumbent and the sentence that it tests."""

    kind: str  # which operator of the researcher's made it
    changes: Mapping[str, Value]  # parameters and ideas
    sentence: str
    falsifier: str
    files: Mapping[str, bytes] = field(default_factory=dict)  # whole files of the policy, by name, as they shall be
    parents: tuple[int, ...] = ()  # candidates that it is made of beside the incumbent
    not_worse: bool = False  # a simplification: it is enough that it is not worse
    base: int = 0  # the incumbent that it changes, if that may have been followed by another one; 0 is the present one


@dataclass(frozen=True)
class Play:
    """Attempts that nothing is decided on, for what the policy notes of them."""

    files: Mapping[str, bytes]  # whole files that the incumbent gets for these attempts only
    changes: Mapping[str, Value]
    attempts: int


@dataclass(frozen=True)
class Played:
    """One attempt of a play, as its policy noted it."""

    notes: str  # whatever text the policy left
    outcome: str


@dataclass(frozen=True)
class DevResult:
    """One valid attempt on a development start."""

    start_id: str
    success: bool
    progress: float  # [0, 1]
    cause: str  # the failure class, empty for a success
    seconds: float  # station time


@dataclass(frozen=True)
class Tried:
    """A candidate that was tested, against whatever was the incumbent then."""

    candidate_id: int
    parent_id: int  # the incumbent it was made from
    kind: str
    changes: Mapping[str, Value]
    files: tuple[str, ...]  # names of the files that it changed
    sentence: str
    verdict: str  # of its decision: accept, reject, inconclusive, superseded
    stage: str  # in which it was decided: screen, gate
    lead: float  # in the screen, in standard deviations
    gain_points: float
    robot_minutes: float  # of station time that its attempts took
    dev: tuple[DevResult, ...] = ()
    pairs: int = 0  # that the gate looked at


@dataclass(frozen=True)
class Standing:
    """How a change has done against the present incumbent so far, whatever came of it."""

    changes: Mapping[str, Value]
    lead: float  # in the screen, in standard deviations
    candidate_id: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    dev: tuple[DevResult, ...] = ()


@dataclass(frozen=True)
class ResearchContext:
    """What a researcher is shown."""

    incumbent: Mapping[str, Value]
    tried: Sequence[Tried]
    known: frozenset[str]  # keys of the sources that are closed: in test, or turned down often
    failures: Mapping[str, float]  # class -> count, the incumbent's on development starts
    standings: Sequence[Standing]
    files: Mapping[str, bytes] = field(default_factory=dict)  # of the incumbent
    dev: tuple[DevResult, ...] = ()  # the incumbent's
    played: Sequence[Played] = ()
    proposals: int = 0  # made so far by this researcher; a researcher's draws are seeded with it, so it keeps no state
    incumbent_id: int = 0  # which candidate the incumbent is
    refused: str = ""  # why this researcher's last proposal was not tested, where whoever asks says so


@dataclass(frozen=True)
class Source:
    """A policy as it would be tested."""

    files: Mapping[str, bytes]  # by name within the policy's folder, policy.toml with the defaults of `params`
    params: Mapping[str, Value]  # every parameter and idea
    key: str  # the same for two policies that differ in comments and layout only


class Researcher(Protocol):
    """Whoever proposes changes."""

    name: str

    def propose(self, context: ResearchContext) -> Proposal:
        """Return a change to the incumbent that was not tried."""
        ...

    def play(self, context: ResearchContext) -> Play | None:
        """Return attempts that would teach something and decide nothing; None where there is nothing to learn."""
        ...


class Workshop(Protocol):
    """Where ideas become policies."""

    def seed(self) -> Source:
        """Return the policy as it ships."""
        ...

    def draft(self, base: Source, proposal: Proposal | Play) -> Source:
        """Return what a proposal makes of `base`; nothing is kept.

        Raises:
            ProposalRefused: an unknown or impossible value, a file outside the policy, or one that does not compile.
        """
        ...

    def merge(self, base: Source, ours: Source, theirs: Source) -> Source | None:
        """Return `ours` with what `theirs` changed against `base`; None where both changed the same."""
        ...

    def publish(self, source: Source, proposal: Proposal, researcher: str, parents: Sequence[str], now_s: float) -> str:
        """Commit `source` with its parents' commits before it, let stations try it, return the name of its bundle.

        The same call gives the same bundle, so publishing twice changes nothing. `parents` are names of bundles.
        """
        ...
