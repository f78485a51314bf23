"""Where a model is, how long to wait for it, and the row of the ledger that each call of it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.agents.usage import Usage


@dataclass(frozen=True)
class Provider:
    """Where a model is, and what opens it."""

    base_url: str  # without /v1
    key: str = field(repr=False)
    bearer: bool = False  # how the key is shown: as `authorization: Bearer`, or as `x-api-key`


@dataclass(frozen=True)
class Patience:
    """How long and how often to wait; seconds."""

    connect_s: float = 10.0
    silence_s: float = 180.0  # between two pieces of an answer
    retry_after_s: float = 20.0  # the longest that an agent is told to wait
    repeats: int = 2  # of a question that the vendor was too busy for, before the agent hears of it
    failures: int = 8  # of the vendor, in a row, before it is given up


@dataclass(frozen=True)
class Call:
    """One row of the ledger: a question that was sent on."""

    unix_s: float  # when it was over
    lane: str
    model: str
    protocol: str
    told: Usage  # what the answer said that it cost
    guessed: Usage  # what was probably paid for beside it, where an answer broke off
    nano_usd: int  # both, in billionths of a dollar
    seconds: float
    status: int  # of the answer, 0 for none
    ended: str  # how: "complete", "broken off", "agent gone", "silent", "failed", "asked again"


Book = Callable[[Call], None]
