"""The offline literature: cards of methods that improve robot policies, each with when it helps and how to apply it.

- A card is a Markdown file in `method_cards/` that begins with a header in TOML between lines of `+++`.
- `helps` holds failure classes as verdicts name them, and words that somebody may look for.
- Nothing here reaches a network; see `coordinator.research.papers` for that.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from coordinator.errors import CoordinatorError

FOLDER = Path(__file__).parent / "method_cards"
FENCE = "+++\n"
TASKS = ("push_t", "pin_insertion", "gpu_insertion", "zip_tie")
KINDS = (
    "heuristic", "behaviour cloning", "offline RL", "online RL", "search", "perception", "statistics",
)  # fmt: skip
SECTIONS = ("When it helps", "How to apply it", "Pitfalls", "Sources")
KEYS = {"name", "kind", "tasks", "helps", "knobs", "cost"}
SOURCE = re.compile(r"- (.+), (\d{4})")
# What a word counts where it stands in a part of a card.
NAME_WEIGHT, HELPS_WEIGHT, HEADER_WEIGHT, TEXT_WEIGHT = 6.0, 4.0, 2.0, 1.0
ENDINGS = ("ings", "ing", "ed", "es", "s", "e")
LEAST_STEM = 3


class CardRefused(CoordinatorError):
    """A file that is not a method card; the message names it."""


@dataclass(frozen=True)
class Card:
    """One method."""

    card: str  # the file's name without its ending
    name: str
    kind: str  # one of KINDS
    tasks: tuple[str, ...]  # of TASKS
    helps: tuple[str, ...]  # failure classes and words
    knobs: tuple[str, ...]  # what there is to vary
    cost: str  # in robot time, data or processor time
    text: str  # Markdown, without the header

    @property
    def when(self) -> str:
        """When it helps, as one line."""
        return " ".join(self._section(SECTIONS[0]).split())

    @property
    def sources(self) -> tuple[str, ...]:
        """Author, title and year of each source."""
        section = self._section(SECTIONS[-1]).replace("\n  ", " ")
        return tuple(line.removeprefix("- ") for line in section.splitlines() if line)

    def _section(self, title: str) -> str:
        return self.text.partition(f"## {title}\n")[2].partition("\n## ")[0]


@lru_cache(maxsize=4)
def load(folder: Path = FOLDER) -> tuple[Card, ...]:
    """Return the cards in a folder, in the order of their names.

    Raises:
        CardRefused: there is none, or a file is not one.
    """
    try:
        cards = tuple(parse_card(path.stem, path.read_text()) for path in sorted(folder.glob("*.md")))
    except (OSError, UnicodeDecodeError) as error:
        raise CardRefused(f"cannot read the method cards in {folder}: {error}") from error
    if not cards:
        raise CardRefused(f"there is no method card in {folder}; install enpire anew")
    return cards


def parse_card(card: str, text: str) -> Card:
    """Return the card in a file's text.

    Raises:
        CardRefused: it is none.
    """
    opening, _, rest = text.partition(FENCE)
    header, closed, body = rest.partition(FENCE)
    if opening or not closed:
        raise CardRefused(f"{card}: a card begins with a header between lines of +++")
    try:
        raw = tomllib.loads(header)
    except tomllib.TOMLDecodeError as error:
        raise CardRefused(f"{card}: its header is not TOML: {error}") from error
    if raw.keys() != KEYS:
        raise CardRefused(f"{card}: its header has {sorted(raw)}, and wants {sorted(KEYS)}")
    made = Card(
        card, _text(card, raw, "name"), _text(card, raw, "kind"), _words(card, raw, "tasks"),
        _words(card, raw, "helps"), _words(card, raw, "knobs"), _text(card, raw, "cost"), body.strip() + "\n",
    )  # fmt: skip
    _check(made)
    return made


@dataclass(frozen=True)
class Found:
    """A card and how well it fits what was looked for."""

    card: Card
    score: float


def search(words: str, cards: Sequence[Card] | None = None) -> list[Found]:
    """Return the cards that hold some of the words, best first.

    A word counts for more the fewer cards have it, and the nearer to a card's name it stands.
    """
    among = load() if cards is None else cards
    wanted = set(tokens(words))
    weighed = [(card, _weights(card)) for card in among]
    spread = {word: sum(word in weights for _, weights in weighed) for word in wanted}
    found = [
        Found(card, sum(weights[word] * _rarity(spread[word], len(weighed)) for word in wanted if word in weights))
        for card, weights in weighed
    ]
    return sorted((item for item in found if item.score > 0.0), key=lambda item: (-item.score, item.card.card))


def cards_for(
    failures: Mapping[str, float], task: str = "", most: int = 5, cards: Sequence[Card] | None = None
) -> list[Card]:
    """Return the cards that claim to help against the failures seen, those that meet most of them first.

    Args:
        failures: how often each failure class was seen.
        task: only cards for this one; all without it.
    """
    among = [card for card in (load() if cards is None else cards) if not task or task in card.tasks]
    met = [(sum(max(failures.get(cause, 0), 0) for cause in set(card.helps)), card) for card in among]
    # Of two that meet as many, the one that claims less: it is the more particular.
    ranked = sorted(((count, card) for count, card in met if count), key=lambda item: _rank(*item))
    return [card for _, card in ranked[:most]]


def tokens(text: str) -> list[str]:
    """Return the words of a text without case and the commonest endings, an underscore being a space."""
    return [_stem(word) for word in re.findall(r"[^\W_]+", text.lower())]


def _rank(count: float, card: Card) -> tuple[float, int, str]:
    return -count, len(card.helps), card.card


def _rarity(cards_with: int, cards: int) -> float:
    return math.log(1.0 + cards / cards_with) if cards_with else 0.0


@lru_cache(maxsize=256)
def _weights(card: Card) -> dict[str, float]:
    """Return each word of a card with the greatest weight that it has there."""
    weights: dict[str, float] = {}
    header = " ".join((card.kind, card.cost, *card.tasks, *card.knobs))
    for text, weight in (
        (card.text, TEXT_WEIGHT),
        (header, HEADER_WEIGHT),
        (" ".join(card.helps), HELPS_WEIGHT),
        (f"{card.name} {card.card}", NAME_WEIGHT),
    ):
        weights |= dict.fromkeys(tokens(text), weight)
    return weights


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= LEAST_STEM:
            return word.removesuffix(ending)
    return word


def _text(card: str, raw: Mapping[str, object], key: str) -> str:
    value = raw[key]
    if not (isinstance(value, str) and value.strip()):
        raise CardRefused(f"{card}: {key} is no text")
    return value


def _words(card: str, raw: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = raw[key]
    if not (isinstance(value, list) and value and all(isinstance(item, str) and item for item in value)):
        raise CardRefused(f"{card}: {key} is no list of words")
    return tuple(value)


def _check(card: Card) -> None:
    if card.kind not in KINDS:
        raise CardRefused(f"{card.card}: kind {card.kind!r} is none of {', '.join(KINDS)}")
    if strange := sorted(set(card.tasks) - set(TASKS)):
        raise CardRefused(f"{card.card}: {strange[0]!r} is no task; known: {', '.join(TASKS)}")
    titles = tuple(re.findall(r"^## (.+)$", card.text, re.MULTILINE))
    if titles != SECTIONS:
        raise CardRefused(f"{card.card}: its sections are {titles}, and want to be {SECTIONS}")
    if not card.sources or not all(SOURCE.fullmatch(f"- {item}") for item in card.sources):
        raise CardRefused(f"{card.card}: a source is an author, a title and a year, one a line")
