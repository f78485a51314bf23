"""Reads trials as they came over the network and says which of them can be kept.

- `edge.records` checks names and types; here the seal, and the values: finite numbers, whole numbers that a database
  can hold.
- A body that is no trial is still kept, in quarantine, and refused by its identity where it names one, so that its
  edge stops sending it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from coordinator.errors import CoordinatorError
from edge.records import PROTOCOL, Outcome, RecordError, Sealed, Trial, decode

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
LARGEST_INTEGER = 2**63 - 1  # SQLite's
MOST_TRIALS = 256  # in one batch
LONGEST_BODY = 256 << 10
MOST_RECORDINGS = 512  # in one inventory
Identity = tuple[str, str, int]


class BatchRefused(CoordinatorError):
    """A payload that is not a list of trials."""


@dataclass(frozen=True)
class Batch:
    """Trials as an edge sends them."""

    key: str  # the edge's public key, hex
    trials: tuple[Sealed, ...]


def read_batch(payload: bytes) -> Batch:
    """Return the trials in a payload.

    Raises:
        BatchRefused: not a batch of this protocol, or too many.
    """
    try:
        raw = msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException) as error:
        raise BatchRefused(f"trials: not msgpack: {error}") from error
    match raw:
        case {"protocol": protocol} if protocol != PROTOCOL:
            raise BatchRefused(f"trials: protocol {protocol!r:.20}; this coordinator speaks {PROTOCOL}")
        case {"key": str(key), "trials": [*items]} if SHA256.fullmatch(key):
            pass
        case _:
            raise BatchRefused("trials: not a batch of sealed trials")
    if len(items) > MOST_TRIALS:
        raise BatchRefused(f"trials: {len(items)} in one batch; send at most {MOST_TRIALS}")
    return Batch(key, tuple(_sealed(item) for item in items))


def _sealed(raw: object) -> Sealed:
    match raw:
        case [bytes(body), bytes(previous), bytes(signature)] if len(previous) == 32:
            return Sealed(body, previous, signature)
    raise BatchRefused("trials: not a list of sealed trials")


@dataclass(frozen=True)
class Piece:
    """What an edge says of the bytes that it sends with it."""

    edge: str
    size: int  # of the whole
    offset: int


def read_piece(attachment: bytes) -> Piece:
    """Return what is said of a piece of a recording.

    Raises:
        BatchRefused: nothing that makes sense.
    """
    match _map(attachment):
        case {"edge": str(edge), "size": int(size), "offset": int(offset)} if NAME.fullmatch(edge):
            return Piece(edge, size, offset)
    raise BatchRefused("recording: does not say whose, how long and from where on")


def read_offset(attachment: bytes) -> int:
    """Return from where on a file is asked for.

    Raises:
        BatchRefused: nothing that makes sense.
    """
    match _map(attachment):
        case {"offset": int(offset)} if offset >= 0:
            return offset
    raise BatchRefused("file: does not say from where on")


@dataclass(frozen=True)
class Inventory:
    """What an edge says that it has sent."""

    edge: str
    epoch: str
    recordings: list[str]  # sha256


def read_inventory(payload: bytes) -> Inventory:
    """Return what an edge asks to be compared.

    Raises:
        BatchRefused: nothing that makes sense, or too much.
    """
    match _map(payload):
        case {"protocol": protocol} if protocol != PROTOCOL:
            raise BatchRefused(f"reconcile: protocol {protocol!r:.20}; this coordinator speaks {PROTOCOL}")
        case {"edge": str(edge), "epoch": str(epoch), "recordings": [*recordings]} if len(
            recordings
        ) <= MOST_RECORDINGS and all(isinstance(item, str) and SHA256.fullmatch(item) for item in recordings):
            return Inventory(edge, epoch, recordings)
    raise BatchRefused("reconcile: does not say which edge, epoch and recordings")


def _map(data: bytes) -> object:
    try:
        return msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException):
        return None


def check_seal(sealed: Sealed, key: str) -> None:
    """Check that a trial is as the holder of `key` sealed it.

    Raises:
        RecordError: it is not.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(sealed.signature, sealed.chain)
    except (InvalidSignature, ValueError) as error:
        raise RecordError("its signature is not its edge's: it was altered, or signed by somebody else") from error


def read_trial(body: bytes) -> Trial:
    """Return the trial in `body`.

    Raises:
        RecordError: not a trial, or a value that no station can have measured.
    """
    if len(body) > LONGEST_BODY:
        raise RecordError(f"a trial of {len(body)} bytes; at most {LONGEST_BODY} are allowed")
    trial = decode(Trial, body)
    for item in fields(trial):
        _check(item.name, getattr(trial, item.name))
    for name in ("edge", "epoch"):
        if not NAME.fullmatch(getattr(trial, name)):
            raise RecordError(f"{name} is {getattr(trial, name)!r:.80}, which is no name")
    if not trial.sequence >= 1:
        raise RecordError(f"sequence is {trial.sequence}; it counts from 1")
    if not 0.0 <= trial.progress <= 1.0:
        raise RecordError(f"progress is {trial.progress}; it lies in [0, 1]")
    if trial.recording and not SHA256.fullmatch(trial.recording):
        raise RecordError(f"recording is {trial.recording!r:.80}, which is no sha256")
    if trial.outcome is not Outcome.SUCCESS and not trial.cause:
        raise RecordError(f"a trial that ended as {trial.outcome} names no cause")
    return trial


def identity_in(body: bytes) -> Identity | None:
    """Return the identity that a body names even where the rest of it is no trial."""
    try:
        raw = msgpack.unpackb(body)
        identity = (raw["edge"], raw["epoch"], raw["sequence"])
    except (ValueError, KeyError, TypeError, msgpack.UnpackException):
        return None
    match identity:
        case (str(), str(), int(sequence)) if abs(sequence) <= LARGEST_INTEGER:
            return identity
    return None


def _check(name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{name} is {value}")
    if isinstance(value, int) and not abs(value) <= LARGEST_INTEGER:
        raise RecordError(f"{name} is {value}, which is too large")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(f"{name}.{key}", item)
