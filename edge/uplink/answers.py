"""Reads what a coordinator answers; what makes no sense counts as no answer."""

from __future__ import annotations

from typing import Any

import msgpack

from edge.ledger import Identity
from edge.uplink.network import NoAnswer


def unpack_map(data: bytes) -> dict[str, Any]:
    """Return an answer that is a map.

    Raises:
        NoAnswer: it is none.
    """
    try:
        answer = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise NoAnswer(f"an answer that is not msgpack: {error}") from error
    if not isinstance(answer, dict):
        raise NoAnswer("an answer that is not a map")
    return answer


def identity_of(raw: Any) -> Identity:
    """Return the identity that names a trial.

    Raises:
        NoAnswer: it is none.
    """
    match raw:
        case [str(edge), str(epoch), int(sequence)] if 0 < sequence < 2**63:  # what a ledger can hold
            return edge, epoch, sequence
    raise NoAnswer("an answer that does not name trials")


def range_of(raw: Any) -> tuple[int, int]:
    """Return a range of trials, both ends included.

    Raises:
        NoAnswer: it is none.
    """
    match raw:
        case [int(low), int(high)] if 0 <= low <= high < 2**63:
            return low, high
    raise NoAnswer("an answer that does not name ranges of trials")


def refusal_of(raw: Any) -> tuple[Identity, str]:
    """Return which trial is refused, and why.

    Raises:
        NoAnswer: it is none.
    """
    match raw:
        case [*identity, reason]:
            return identity_of(identity), str(reason)
    raise NoAnswer("an answer that does not name what it refuses")
