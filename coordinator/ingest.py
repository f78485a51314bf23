"""Reads trials as they came over the network and says which of them can be kept.

- `edge.records` checks names and types; here the values: finite numbers, whole numbers that a database can hold.
- A body that is no trial is still kept, in quarantine, and refused by its identity where it names one, so that its
  edge stops sending it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields

import msgpack

from coordinator.errors import CoordinatorError
from edge.records import Outcome, RecordError, Trial, decode

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
LARGEST_INTEGER = 2**63 - 1  # SQLite's
MOST_TRIALS = 256  # in one batch
LONGEST_BODY = 256 << 10
Identity = tuple[str, str, int]


class BatchRefused(CoordinatorError):
    """A payload that is not a list of trials."""


def read_batch(payload: bytes) -> list[bytes]:
    """Return the bodies in a batch.

    Raises:
        BatchRefused: not a msgpack list of byte strings, or too many.
    """
    try:
        raw = msgpack.unpackb(payload)
    except (ValueError, msgpack.UnpackException) as error:
        raise BatchRefused(f"trials: not msgpack: {error}") from error
    if not isinstance(raw, list) or not all(isinstance(item, bytes) for item in raw):
        raise BatchRefused("trials: not a list of encoded trials")
    if len(raw) > MOST_TRIALS:
        raise BatchRefused(f"trials: {len(raw)} in one batch; send at most {MOST_TRIALS}")
    return raw


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
