"""What a station and the coordinator tell each other: leases of work down, trials up.

These are the only edge types that the coordinator may import. All are frozen, all travel as msgpack maps.

- A trial's identity is (edge, epoch, sequence); the same identity with other content is an error, never an update.
- A trial travels as it was sealed: chained to the trial sealed before it and signed by its edge, so that none can be
  altered, and none moved or taken out without the chain showing it. Whose key a ledger's is, a person has said at the
  enrolment; of an edge that was not enrolled the coordinator believes it the first time that it sees it.
- `assignment_id` names one attempt that the coordinator asked for. A crash makes the attempt invalid; the coordinator
  asks again with a new assignment on the same start.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgpack

PROTOCOL = 3
EDGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)  # part of the keys under which edges are known


class Outcome(StrEnum):
    """How a trial ended; an invalid one was cut short, or could not be judged, as its cause says."""

    SUCCESS = "success"
    FAILURE = "failure"
    INVALID = "invalid"


UNTRIED = ("reset", "stopped", "crash", "disk", "bundle")  # causes of attempts that say nothing of their policy


def is_tried(outcome: Outcome, cause: str) -> bool:
    """Return whether an attempt says something of its policy, if only that what it left could not be judged.

    Otherwise a policy would choose when it is counted: by leaving the scene so that the judge sees too little.
    """
    return outcome is not Outcome.INVALID or cause not in UNTRIED


@dataclass(frozen=True)
class Assignment:
    """One attempt: a bundle on a start."""

    assignment_id: str
    bundle: str  # sha256 of the bundle, hex
    start_id: str
    start: Mapping[str, float]  # the task's own coordinates, e.g. x_m, y_m, yaw_rad
    seed: int  # shared by a pair; a label so far, as nothing in a trial is drawn at random from it
    purpose: str  # "screen", "gate", "bank", "heldout", "baseline", "play"


@dataclass(frozen=True)
class Lease:
    """Authority to run some attempts, in order, until a time."""

    lease_id: str
    task: str
    assignments: tuple[Assignment, ...]
    expires_unix_s: float


@dataclass(frozen=True)
class Trial:
    """The unit of evidence: one attempt, how it ended and everything needed to believe it."""

    edge: str
    epoch: str  # drawn anew when a ledger is made, so that a cloned card cannot reuse numbers
    sequence: int
    assignment_id: str
    lease_id: str
    task: str
    bundle: str
    start_id: str
    purpose: str
    seed: int
    outcome: Outcome
    cause: str  # why invalid, or the failure class; empty for a success
    detail: str  # one sentence for a person
    progress: float  # [0, 1]
    measures: Mapping[str, float]  # coverage, position_error_mm, angle_error_deg, ...
    achieved_start: Mapping[str, float]  # what the ready check measured
    reset_s: float  # station time
    reset_tries: int  # 0 when the scene was found ready
    trial_s: float  # station time
    policy_steps: int
    wall_reset_s: float
    wall_trial_s: float
    started_unix_s: float  # when the reset began
    ended_unix_s: float
    station_hash: str
    calibration_hash: str
    software: str  # versions that change the physics or the judge
    recording: str  # sha256 of the sealed recording, empty where there is none
    recording_bytes: int = 0
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, str, int]:
        """(edge, epoch, sequence)."""
        return (self.edge, self.epoch, self.sequence)


@dataclass(frozen=True)
class Sealed:
    """An encoded trial with its seal."""

    body: bytes
    previous: bytes  # (32,) chain of the trial sealed before it in its epoch, `first_link` for the first
    signature: bytes  # (64,) Ed25519 over `chain`, by the edge

    @property
    def chain(self) -> bytes:
        """sha256(previous + sha256(body)), (32,): names this trial and every one before it."""
        return hashlib.sha256(self.previous + hashlib.sha256(self.body).digest()).digest()


@dataclass(frozen=True)
class RolloutStart:
    """Where an attempt of a roll-out begins."""

    start_id: str
    start: Mapping[str, float]  # the task's own coordinates, e.g. x_m, y_m, yaw_rad
    seed: int  # shared by a pair


@dataclass(frozen=True)
class RolloutOrder:
    """What an edge is to do about the policy that it runs by itself: `assign/<edge>.json` in the trust repository.

    An order says how far a bundle may go, never how: each edge passes its own gates. One with a lower number than an
    edge has seen is refused. `rollback` asks for the last good policy now: `bundle` is then the one to leave, empty for
    whichever is on its way or, where none is, active.
    """

    number: int  # from 1, rises with every order
    bundle: str  # sha256 of the bundle, hex
    task: str
    stage: str  # how far it may go, one of ROLLOUT_STAGES
    starts: tuple[RolloutStart, ...]  # of the canary's pairs and of the probation, used again and again in this order
    issued_unix_s: float
    until_unix_s: float  # from here on it allows nothing
    rollback: bool = False
    parent: str = ""  # the bundle that it shall replace; empty: whichever is active


ROLLOUT_STAGES = ("shadow", "canary", "active")
CANARY, PROBATION, SHADOW = "canary", "probation", "shadow"  # purposes of attempts that a station asks itself for,
OWN_PURPOSES = (CANARY, PROBATION, SHADOW)  # and no lease may
BUNDLE_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)
MOST_STARTS = 1_000
NUMBERS_AHEAD = 1_000  # of an edge's newest order: one number far ahead would be the last that it ever takes
MOST_NUMBER = 2**53  # beyond it not every reader of JSON tells two whole numbers apart


def first_link(epoch: str) -> bytes:
    """Return what the first trial of an epoch is chained to, (32,)."""
    return hashlib.sha256(epoch.encode()).digest()


Record = TypeVar("Record", Assignment, Lease, Trial)
# Kept, as to compile the annotations takes longer than to read a trial.
HINTS: dict[type, dict[str, Any]] = {
    kind: get_type_hints(kind) for kind in (Assignment, Lease, Trial, RolloutStart, RolloutOrder)
}
Part = TypeVar("Part", Assignment, Lease, Trial, RolloutStart, RolloutOrder)


class RecordError(Exception):
    """Bytes that are not the record they should be."""


def encode(record: Assignment | Lease | Trial) -> bytes:
    """Return the canonical bytes of a record: a msgpack map with the keys in field order."""
    return msgpack.packb(asdict(record), use_bin_type=True)  # type: ignore[no-any-return]


def decode(kind: type[Record], data: bytes) -> Record:
    """Return the record in `data`.

    Raises:
        RecordError: not msgpack, an unknown or missing key, or a value of the wrong type, also inside a map or a list.
    """
    try:
        raw = msgpack.unpackb(data, raw=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordError(f"not a {kind.__name__}: {error}") from error
    return _from_map(kind, raw)


def content_hash(record: Assignment | Lease | Trial) -> str:
    """Return the sha256 of the canonical bytes, hex."""
    return hashlib.sha256(encode(record)).hexdigest()


def order_to_json(order: RolloutOrder) -> bytes:
    """Return the canonical JSON of an order: ASCII, keys sorted, no spaces; the coordinator's online key signs it.

    People sign what may run at all; an order only says which of it, and how far.
    """
    return json.dumps(asdict(order), allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def order_from_json(data: bytes) -> RolloutOrder:
    """Return the order in `data`.

    Raises:
        RecordError: not JSON, a key unknown, missing or there twice, a value of the wrong type or out of its range.
    """
    try:
        raw = json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not a RolloutOrder: {error or type(error).__name__}") from error
    order = _from_map(RolloutOrder, raw)
    for allowed, rule in _rules(order):
        if not allowed:
            raise RecordError(f"not a RolloutOrder that can be followed: {rule}")
    return order


def _rules(order: RolloutOrder) -> tuple[tuple[bool, str], ...]:
    """Return what holds of an order, each rule with its sentence."""
    numbers = [
        order.issued_unix_s,
        order.until_unix_s,
        *(value for item in order.starts for value in item.start.values()),
    ]
    names = [order.parent] * bool(order.parent) + [order.bundle] * bool(order.bundle or not order.rollback)
    return (
        (1 <= order.number <= MOST_NUMBER, f"number {order.number} is not from 1 to 2^53"),
        (all(BUNDLE_NAME.fullmatch(name) is not None for name in names), "a bundle is not 64 hexadecimal digits"),
        (order.stage in ROLLOUT_STAGES, f"stage {order.stage!r} is not one of {', '.join(ROLLOUT_STAGES)}"),
        (all(map(math.isfinite, numbers)), "a number is not finite"),
        (all(-(2**63) <= item.seed < 2**63 for item in order.starts), "a seed has more than 64 bits"),
        (bool(order.starts) or order.rollback or order.stage == "shadow", f"{order.stage} needs starts"),
        (len(order.starts) <= MOST_STARTS, f"more than {MOST_STARTS} starts"),
        (order.issued_unix_s <= order.until_unix_s, "it ends before it was issued"),
    )


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _from_map(kind: type[Part], raw: object) -> Part:
    if not isinstance(raw, dict):
        raise RecordError(f"not a {kind.__name__}: a {type(raw).__name__} where a map should be")
    known = {item.name for item in fields(kind)}
    if set(raw) != known:
        wrong = sorted(map(str, set(raw) ^ known))
        raise RecordError(f"{kind.__name__} has unknown or missing keys: {', '.join(wrong)}")
    hints = HINTS[kind]
    return kind(**{name: _coerce(f"{kind.__name__}.{name}", hints[name], value) for name, value in raw.items()})


def _coerce(where: str, hint: Any, value: Any) -> Any:
    """Return a value as a field with that hint holds it."""
    if hint is Outcome:
        try:
            return Outcome(value)
        except ValueError as error:
            raise RecordError(f"{where} is {value!r}, not one of {', '.join(Outcome)}") from error
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _whole(where, value)
    expected = get_origin(hint) or hint
    if expected is tuple and isinstance(value, list):
        return tuple(_from_map(get_args(hint)[0], item) for item in value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise RecordError(f"{where} is {type(value).__name__}, not {expected.__name__}")
    if expected is Mapping:
        of_key, of_item = get_args(hint)
        return {
            _coerce(f"a key of {where}", of_key, key): _coerce(f"{where}[{key!r}]", of_item, item)
            for key, item in value.items()
        }
    return value


def _whole(where: str, value: int) -> float:
    """Return a whole number where a number should be; JSON's may have any length."""
    try:
        return float(value)
    except OverflowError as error:
        raise RecordError(f"{where} is beyond any number") from error
