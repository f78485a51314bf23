"""Who holds which assignment, and when one that will not be run any more is taken back.

An assignment is taken back, so that the campaign can ask again on the same start, when

- its edge has delivered one that it was given later: edges work in order, so the answer with the earlier one got lost;
- its edge has made itself a new ledger, which knows nothing of it;
- its edge has been away for longer than `AWAY_S`, or holds many and says that it has nothing to do;
- its lease ended a while ago.

A trial that comes all the same is kept as evidence and enters no decision.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import msgpack

from coordinator.errors import CoordinatorError
from coordinator.ingest import NAME
from coordinator.scheduling.work import Attempt
from edge.records import PROTOCOL, Assignment, Lease, Trial

LEASE_S = 600.0
AFTER_LEASE_S = 120.0  # an attempt that was begun in time may end later
AWAY_S = 20.0
MOST_WANTED = 16
MOST_MEMORY_MB = 1e6


class RequestRefused(CoordinatorError):
    """A request for work that this coordinator cannot serve."""


@dataclass(frozen=True)
class Request:
    """What a station says of itself when it asks for work."""

    protocol: int
    edge: str
    epoch: str
    task: str
    wants: int
    station_hash: str
    calibration_hash: str
    software: str
    memory_mb: float


def read_request(payload: bytes, task: str) -> Request:
    """Return the request in `payload`.

    Raises:
        RequestRefused: not a request of this protocol, or for another task.
    """
    try:
        request = Request(**msgpack.unpackb(payload))
        named = NAME.fullmatch(request.edge) and NAME.fullmatch(request.epoch)
        sane = request.wants >= 0 and 0.0 <= request.memory_mb <= MOST_MEMORY_MB
        texts = all(
            isinstance(text, str) for text in (request.station_hash, request.calibration_hash, request.software)
        )
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise RequestRefused(f"not a request for work: {error}") from error
    if request.protocol != PROTOCOL:
        raise RequestRefused(f"protocol {request.protocol!r:.20}; this coordinator speaks {PROTOCOL}")
    if not (named and sane and texts):
        raise RequestRefused("a request for work with a name, count or memory that cannot be")
    if request.task != task:
        raise RequestRefused(f"this campaign is about {task}, not {request.task!r:.80}")
    return request


@dataclass(frozen=True)
class _Held:
    order: int
    edge: str
    epoch: str
    expires_unix_s: float


class Leases:
    """The assignments that are out."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._held: dict[str, _Held] = {}
        self._order = 0

    def restore(self, held: Iterable[tuple[str, str, str, float]]) -> None:
        """Know again what an earlier process handed out: (assignment, edge, epoch, end of its lease), in that order."""
        for name, edge, epoch, expires_unix_s in held:
            self._order += 1
            self._held[name] = _Held(self._order, edge, epoch, expires_unix_s)

    def grant(self, request: Request, work: Sequence[Attempt], now_unix_s: float) -> Lease:
        """Hand attempts out and return the lease that says so."""
        lease = Lease(secrets.token_hex(8), self._task, tuple(map(_assignment, work)), now_unix_s + LEASE_S)
        for item in work:
            self._order += 1
            self._held[item.assignment_id] = _Held(self._order, request.edge, request.epoch, lease.expires_unix_s)
        return lease

    def settle(self, trials: Iterable[Trial]) -> list[str]:
        """Note delivered trials; return the assignments that their edges must have lost on the way."""
        newest: dict[tuple[str, str], int] = {}
        for trial in trials:
            held = self._held.get(trial.assignment_id)
            if held is not None and held.edge == trial.edge:
                del self._held[trial.assignment_id]
                key = (held.edge, held.epoch)
                newest[key] = max(newest.get(key, 0), held.order)
        return self._take_back(lambda item: item.order < newest.get((item.edge, item.epoch), 0))

    def renewed(self, edge: str, epoch: str) -> list[str]:
        """Return what was held by earlier ledgers of that edge."""
        return self._take_back(lambda item: item.edge == edge and item.epoch != epoch)

    def count(self, edge: str) -> int:
        """Return how many assignments an edge holds."""
        return sum(item.edge == edge for item in self._held.values())

    def left(self, edges: Iterable[str]) -> list[str]:
        """Return what was held by edges that are away."""
        away = set(edges)
        return self._take_back(lambda item: item.edge in away)

    def expired(self, now_unix_s: float) -> list[str]:
        """Return what should have been delivered by now."""
        return self._take_back(lambda item: not item.expires_unix_s + AFTER_LEASE_S > now_unix_s)

    def _take_back(self, matches: Callable[[_Held], bool]) -> list[str]:
        taken = [name for name, held in self._held.items() if matches(held)]
        for name in taken:
            del self._held[name]
        return taken


def _assignment(attempt: Attempt) -> Assignment:
    """Return what a station is told of an attempt: not whose candidate it is, nor which pair it belongs to."""
    return Assignment(**{item.name: getattr(attempt, item.name) for item in fields(Assignment)})
