"""An evidence card: what one candidate changed and what came of it, small enough to hand to every researcher.

Lanes learn from one another by cards and not by reading each other's code: a card holds the sentence, the difference in
short, the success with its interval, the development starts that it wins and loses against its incumbent, and the
verdict with its reason. Its text is at most 2 KiB; every word of it is one line of what can be printed.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from coordinator.evolution.archive import success_by_start
from coordinator.evolution.ideas import DevResult, Tried
from coordinator.evolution.rates import exact_interval
from policies.interface import Value
from policies.skills.program import PROGRAM, read_steps
from policies.space import FILE, SpaceError

MAX_BYTES = 2048
SENTENCE_CHARS, DIFF_CHARS, REASON_CHARS = 300, 600, 300
MOST_STARTS = 12


@dataclass(frozen=True)
class Card:
    """What is known of one candidate."""

    candidate_id: int
    parent_id: int
    kind: str
    sentence: str
    diff: str
    successes: int  # on development starts
    attempts: int
    low: float  # of the success rate, 95 %
    high: float
    wins: tuple[str, ...]  # development starts where it succeeds oftener than its incumbent
    losses: tuple[str, ...]
    verdict: str
    stage: str
    reason: str
    gain_points: float
    robot_minutes: float


def make(
    tried: Tried,
    incumbent_dev: Sequence[DevResult],
    reason: str = "",
    before: Mapping[str, bytes] | None = None,
    after: Mapping[str, bytes] | None = None,
) -> Card:
    """Return the card of a candidate.

    Args:
        incumbent_dev: attempts of the incumbent that it was tested against.
        before, after: the incumbent's files and the candidate's, where they are at hand.
    """
    mine, theirs = success_by_start(tried.dev), success_by_start(incumbent_dev)
    common = sorted(mine.keys() & theirs.keys())
    successes = sum(result.success for result in tried.dev)
    low, high = exact_interval(successes, len(tried.dev))
    return Card(
        candidate_id=tried.candidate_id,
        parent_id=tried.parent_id,
        kind=_short(tried.kind, 60),
        sentence=_short(tried.sentence, SENTENCE_CHARS),
        diff=_short(difference(tried.changes, before or {}, after or {}, tried.files), DIFF_CHARS),
        successes=successes,
        attempts=len(tried.dev),
        low=low,
        high=high,
        wins=tuple(name for name in common if mine[name] > theirs[name]),
        losses=tuple(name for name in common if mine[name] < theirs[name]),
        verdict=_short(tried.verdict, 30),
        stage=_short(tried.stage, 30),
        reason=_short(reason, REASON_CHARS),
        gain_points=tried.gain_points,
        robot_minutes=tried.robot_minutes,
    )


def difference(
    changes: Mapping[str, Value], before: Mapping[str, bytes], after: Mapping[str, bytes], names: Sequence[str] = ()
) -> str:
    """Return in short what a change does: parameters, steps of a program, and lines of other files."""
    said = [f"{name} = {_value(value)}" for name, value in sorted(changes.items())]
    for name in sorted({*before, *after} if before and after else names):
        if before.get(name) == after.get(name) and before and after:
            continue
        if name == PROGRAM:
            said.append(_steps_changed(before.get(name), after.get(name)))
        elif name != FILE or not changes:
            said.append(f"{name} {_lines_changed(before.get(name), after.get(name))}".strip())
    return "; ".join(item for item in said if item)


def text(card: Card) -> str:
    """Return the card as a few lines, at most 2 KiB."""
    rate = f"{card.successes}/{card.attempts} on development starts ({card.low:.0%} to {card.high:.0%})"
    lines = [
        f"candidate {card.candidate_id} of {card.parent_id}, {card.kind}: {card.sentence}",
        f"  change: {card.diff or 'none'}",
        f"  success: {rate}, {card.gain_points:+.1f} points, {card.robot_minutes:.1f} robot minutes",
        f"  wins on: {_listed(card.wins)}; loses on: {_listed(card.losses)}",
        f"  verdict: {card.verdict} in the {card.stage}{f', {card.reason}' if card.reason else ''}",
    ]
    return _at_most("\n".join(lines))


def to_json(card: Card) -> str:
    """Return the card as one line of JSON."""
    return json.dumps(asdict(card), sort_keys=True)


def from_json(line: str) -> Card:
    """Return the card that `to_json` wrote.

    Raises:
        ValueError: it is no card.
    """
    raw = json.loads(line)
    if not isinstance(raw, dict) or set(raw) != {item.name for item in fields(Card)}:
        raise ValueError("not an evidence card")
    return Card(**raw | {name: tuple(raw[name]) for name in ("wins", "losses")})


def _listed(starts: Sequence[str]) -> str:
    more = f" and {len(starts) - MOST_STARTS} more" if len(starts) > MOST_STARTS else ""
    return ", ".join(_short(name, 40) for name in starts[:MOST_STARTS]) + more if starts else "none"


def _value(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"


def _steps_changed(before: bytes | None, after: bytes | None) -> str:
    try:
        old, new = (read_steps(data) if data else () for data in (before, after))
    except SpaceError:
        return f"{PROGRAM} {_lines_changed(before, after)}".strip()
    if not new:
        return PROGRAM
    moves = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    said = [f"-{step}" for tag, i, j, _, _ in moves if tag != "equal" for step in old[i:j]]
    said += [f"+{step}" for tag, _, _, i, j in moves if tag != "equal" for step in new[i:j]]
    return f"program {' '.join(said)} ({' > '.join(new)})"


def _lines_changed(before: bytes | None, after: bytes | None) -> str:
    if before is None and after is None:
        return ""
    old, new = ((data or b"").decode(errors="replace").splitlines() for data in (before, after))
    moves = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    gone = sum(j - i for tag, i, j, _, _ in moves if tag != "equal")
    come = sum(j - i for tag, _, _, i, j in moves if tag != "equal")
    return f"+{come} -{gone} lines"


def _short(words: str, most: int) -> str:
    plain = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def _at_most(words: str) -> str:
    data = words.encode()
    return words if len(data) <= MAX_BYTES else data[: MAX_BYTES - 3].decode(errors="ignore") + "..."
