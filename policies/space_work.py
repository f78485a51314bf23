"""What a policy says of its skills and of its play: the tables `skills` and `play` of its policy.toml.

- A skill is a step that a program (`policies.skills.program`) may have; it needs a state before it and gives one after.
- Play is attempts that nothing is decided on: the policy makes the moves that it is asked for and notes what came of
  each. What was learned lies in a file of the policy's own.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from policies.space_tables import SpaceError, check_word, table, words

JSON_FILE = re.compile(r"[a-z_][a-z0-9_]{0,60}\.json", re.ASCII)
BUNDLES_OWN = "manifest.json"
MAX_SKILLS, MAX_MOVES, MAX_ROWS = 64, 16, 10_000


@dataclass(frozen=True)
class Skill:
    """A step of a program."""

    name: str
    needs: str  # the state that must hold before it
    gives: str  # the state after it
    claim: str
    helps: tuple[str, ...]  # classes of failure


@dataclass(frozen=True)
class Move:
    """One number of a move of a play."""

    name: str
    low: float
    high: float
    wraps: bool  # high is the same as low, as with angles


@dataclass(frozen=True)
class PlayRules:
    """How a policy plays, and where it keeps what it learned."""

    file: str  # a JSON list of {"move": {...}, "outcome": [...]}
    asks: str  # a JSON list of moves: the policy makes these instead of its task
    per_attempt: int  # moves
    enough: int  # rows that are worth a first candidate
    claim: str
    helps: tuple[str, ...]  # classes of failure
    moves: tuple[Move, ...]


def read_skills(raw: dict[str, Any]) -> tuple[Skill, ...]:
    """Return the skills of the table `skills`.

    Raises:
        SpaceError: too many, or one that is not a skill.
    """
    if len(raw) > MAX_SKILLS:
        raise SpaceError(f"{len(raw)} skills; at most {MAX_SKILLS} are allowed")
    return tuple(_skill(name, item) for name, item in raw.items())


def read_play(raw: dict[str, Any]) -> PlayRules:
    """Return the play of the table `play`.

    Raises:
        SpaceError: a missing or unknown key, a file that has no plain name, a count or a range that is none.
    """
    keys = {
        "file": str, "asks": str, "per_attempt": int, "enough": int, "claim": str, "helps": list, "moves": dict,
    }  # fmt: skip
    item = table(raw, keys, {}, "play")
    for key in ("file", "asks"):
        if not JSON_FILE.fullmatch(item[key]) or item[key] == BUNDLES_OWN:
            raise SpaceError(f"play.{key} is {item[key]!r:.80}; wanted is a lower case word that ends in .json")
    if item["file"] == item["asks"]:
        raise SpaceError(f"play.file and play.asks are both {item['file']}; they must differ")
    for key in ("per_attempt", "enough"):
        if not 1 <= item[key] <= MAX_ROWS:
            raise SpaceError(f"play.{key} is {item[key]}; allowed is 1 to {MAX_ROWS}")
    if not 1 <= len(item["moves"]) <= MAX_MOVES:
        raise SpaceError(f"play.moves holds {len(item['moves'])} numbers; allowed is 1 to {MAX_MOVES}")
    moves = tuple(_move(name, move) for name, move in item["moves"].items())
    counts = (item["per_attempt"], item["enough"])
    return PlayRules(item["file"], item["asks"], *counts, item["claim"], words(item["helps"], "play"), moves)


def _skill(name: str, raw: object) -> Skill:
    where = f"skills.{name}"
    item = table(raw, {"needs": str, "gives": str, "claim": str, "helps": list}, {}, where)
    for word in (name, item["needs"], item["gives"]):
        check_word(word)
    return Skill(name, item["needs"], item["gives"], item["claim"], words(item["helps"], where))


def _move(name: str, raw: object) -> Move:
    where = f"play.moves.{name}"
    check_word(name)
    item = table(raw, {"low": float, "high": float}, {"wraps": bool}, where)
    low, high = float(item["low"]), float(item["high"])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(f"{where} runs from {low} to {high}; low must be below high")
    return Move(name, low, high, item.get("wraps", False))
