"""What a policy learns by playing: moves that cover what it can do, and candidates that use what came of them.

- A play is one attempt of the incumbent with a list of moves to make; it notes each with its outcome.
- The next moves are those farthest from all that were made: covering moves teach more than random ones do.
- Once there are rows enough, and again at twice and four times as many, all of them together are a candidate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from coordinator.evolution.ideas import Play, Played, ResearchContext
from coordinator.research.option import Option
from coordinator.research.reading import WHOLE
from policies.interface import Array
from policies.space import PolicySpace
from policies.space_work import PlayRules

KIND = "play"
MOST_TIMES = 4  # as many rows as are enough; more teach little
CANDIDATES = 256  # moves to choose each from
DIGITS = 4

Row = dict[str, object]


def asked(space: PolicySpace, context: ResearchContext, rng: np.random.Generator) -> Play | None:
    """Return one attempt's moves; None where a policy does not play or has rows enough, or notes none of them."""
    rules = space.play
    if rules is None:
        return None
    done = [_place(rules, row) for row in rows(rules, context.played)]
    if max(len(done), context.proposals) >= MOST_TIMES * rules.enough:
        return None
    moves = []
    for _ in range(rules.per_attempt):
        drawn = rng.random((CANDIDATES, len(rules.moves)))
        place = drawn[int(np.argmax(_distance(rules, drawn, done)))]
        done.append(place)
        moves.append(_move(rules, place))
    return Play({rules.asks: json.dumps(moves).encode()}, {}, 1)


def learned(space: PolicySpace, context: ResearchContext) -> list[Option]:
    """Return the candidate that uses all that was learned, where there is more of it than the last one had."""
    rules = space.play
    if rules is None:
        return []
    known = rows(rules, context.played)
    level = _levels(rules, context)
    if 2**level > MOST_TIMES or len(known) < rules.enough * 2**level:
        return []
    data = json.dumps(known, indent=0).encode()
    if data == context.files.get(rules.file):
        return []
    return [Option(KIND, {}, WHOLE, {rules.file: data}, f"{rules.claim} (from {len(known)} moves)")]


def rows(rules: PlayRules, played: Sequence[Played]) -> list[Row]:
    """Return the rows that attempts noted, in order; lines that are no rows are passed over."""
    return [row for item in played for line in item.notes.splitlines() if (row := _row(rules, line)) is not None]


def _row(rules: PlayRules, line: str) -> Row | None:
    try:
        match json.loads(line):
            case {"move": dict(move), "outcome": list(outcome)}:
                finite = all(_is_finite(move.get(item.name)) for item in rules.moves) and all(map(_is_finite, outcome))
                return {"move": move, "outcome": outcome} if finite else None
    except (ValueError, RecursionError, OverflowError):  # the last of a whole number beyond any float
        pass
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _levels(rules: PlayRules, context: ResearchContext) -> int:
    """Return how many candidates were made of rows so far, those in test among them."""
    ids = {item.candidate_id for item in context.tried}
    tried = sum(rules.file in item.files for item in context.tried)
    return tried + sum(rules.file in item.files for item in context.standings if item.candidate_id not in ids)


def _place(rules: PlayRules, row: Row) -> Array:
    """Return a row's move in shares of the ranges (moves,)."""
    move = row["move"]
    assert isinstance(move, dict)
    return np.array([(move[item.name] - item.low) / (item.high - item.low) for item in rules.moves])


def _move(rules: PlayRules, place: Array) -> Mapping[str, float]:
    values: Iterator[tuple[str, float]] = (
        (item.name, item.low + float(share) * (item.high - item.low))
        for item, share in zip(rules.moves, place, strict=True)
    )
    return {name: round(value, DIGITS) for name, value in values}


def _distance(rules: PlayRules, drawn: Array, done: Sequence[Array]) -> Array:
    """Return how far each drawn place (n, moves) is from the nearest that was done (n,), the short way round wraps."""
    if not done:
        return np.zeros(len(drawn))
    apart = np.abs(drawn[:, None, :] - np.array(done)[None, :, :])
    wraps = np.array([item.wraps for item in rules.moves])
    apart = np.where(wraps, np.minimum(apart % 1.0, 1.0 - apart % 1.0), apart)
    return np.asarray(np.linalg.norm(apart, axis=2).min(axis=1))
