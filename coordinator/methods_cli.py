"""`enpire-coord methods`: finds methods that may cure a failure, in the cards that come along or, if asked, online."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from coordinator.errors import CoordinatorError

if TYPE_CHECKING:
    from coordinator.research.literature import Card

REFUSED = 2
MOST = 8


def methods(
    words: Annotated[
        list[str] | None, typer.Argument(help="failure classes, words, or the name of one card; all cards without any")
    ] = None,
    task: Annotated[str, typer.Option(help="only cards for this task")] = "",
    online: Annotated[
        bool, typer.Option("--online", help="also ask Semantic Scholar, which learns the words that you look for")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Find methods that improve a policy: when each helps, how to apply it, its pitfalls and its sources.

    Nothing leaves this machine without --online.

    Examples:

      enpire-coord methods missed shallow --task pin_insertion

      enpire-coord methods spiral_search

      enpire-coord methods peg in hole --online
    """
    from coordinator.research import literature
    from coordinator.research.papers import fenced, look_up

    asked = " ".join(words or ())
    try:
        if task and task not in literature.TASKS:
            raise CoordinatorError(f"{task!r} is no task; known: {', '.join(literature.TASKS)}")
        cards = [card for card in literature.load() if not task or task in card.tasks]
        whole = [card for card in cards if card.card == asked]
        found = whole or _ranked(asked, cards)
        papers = look_up(asked) if online else []
    except CoordinatorError as error:
        print(f"enpire-coord: {error}", file=sys.stderr)
        raise typer.Exit(REFUSED) from None
    if as_json:
        listed = [{**asdict(card), "sources": card.sources} for card in found]
        print(json.dumps({"cards": listed, "untrusted_papers": [asdict(paper) for paper in papers]}))
        return
    if whole:
        print(_whole(whole[0]), end="")
    elif found:
        Console().print(_table(found))
    else:
        print(f"no card speaks of {asked}; see all of them: enpire-coord methods", file=sys.stderr)
    if online:
        print("\n" + fenced(papers), end="")


def _ranked(asked: str, cards: list[Card]) -> list[Card]:
    from coordinator.research.literature import search

    return [found.card for found in search(asked, cards)[:MOST]] if asked else cards


def _table(cards: list[Card]) -> Table:
    table = Table("card", "kind", "helps", "when", box=None, pad_edge=False)
    for card in cards:
        first = card.when.split(". ")[0].rstrip(".") + "."
        table.add_row(card.card, card.kind, ", ".join(card.helps), first)
    return table


def _whole(card: Card) -> str:
    facts = (("kind", card.kind), ("tasks", ", ".join(card.tasks)), ("helps", ", ".join(card.helps)),
             ("knobs", ", ".join(card.knobs)), ("cost", card.cost))  # fmt: skip
    return f"# {card.name}\n\n" + "\n".join(f"{name}: {text}" for name, text in facts) + f"\n\n{card.text}"
