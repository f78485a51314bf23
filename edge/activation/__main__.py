"""Prints docs/activation.md from the table: `python -m edge.activation`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from edge.activation.table import ARROWS, EVENTS, FOLLOWING_EVENTS, ON_TRIAL, STATES, UPLINK_EVENTS, Arrow

TOP = """# How a policy comes into force on an edge

Written by `python -m edge.activation > docs/activation.md`; a test compares the two.

An order of the coordinator (`assign/<edge>.json`) says how far a bundle may go; the edge goes there by its own gates,
between two trials, and back by itself. The journal `<station>/activation.db` holds the state of every bundle. Each
arrow is one transaction on the disk **before** its effect; after a crash the edge looks at the state alone and does the
effect again. So an edge that had an active policy has one after any crash: the old one or the new one.
"""
NOT_DRAWN = """
Not drawn: arrows that lead back to where they began; `revoke`, which leads from every state but `revoked` to `revoked`;
`return` from other states than `superseded`, where an order had asked for the last good one again.
"""


def drawing() -> str:
    """Return the states and the ways between them as a Mermaid diagram."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for arrow in ARROWS:
        if _drawn(arrow):
            ways[arrow.origin, arrow.target].append(arrow.event)
    lines = ["stateDiagram-v2", "    [*] --> none", "    state on_trial {"]
    inside = {pair: events for pair, events in ways.items() if set(pair) <= set(ON_TRIAL)}
    lines += [f"        {_way(*pair, events)}" for pair, events in inside.items()]
    lines.append("    }")
    for pair, events in ways.items():
        if pair not in inside:
            lines += [f"    {_way(*pair, own)}" for own in [_own(pair, events, ways)] if own]
    for target in STATES:
        shared = _shared(target, ways)
        lines += [f"    {_way('on_trial', target, shared)}"] * bool(shared)
    return "\n".join(lines)


def page() -> str:
    """Return the document."""
    return "\n".join([TOP, "```mermaid", drawing(), "```", NOT_DRAWN, *_states(), *_events(), *_arrows()]) + "\n"


def _drawn(arrow: Arrow) -> bool:
    elsewhere = arrow.event == "return" and arrow.origin != "superseded"
    return arrow.target != arrow.origin and arrow.event != "revoke" and not elsewhere


def _shared(target: str, ways: dict[tuple[str, str], list[str]]) -> list[str]:
    """Return the events that lead to a target from every state on trial."""
    return [event for event in EVENTS if all(event in ways.get((origin, target), ()) for origin in ON_TRIAL)]


def _own(pair: tuple[str, str], events: list[str], ways: dict[tuple[str, str], list[str]]) -> list[str]:
    """Return the events of a way but those that are drawn from all states on trial at once."""
    shared = _shared(pair[1], ways) if pair[0] in ON_TRIAL else []
    return [event for event in events if event not in shared]


def _way(origin: str, target: str, events: list[str]) -> str:
    return f"{origin} --> {target}: {', '.join(events)}"


def _states() -> Iterator[str]:
    yield from ("## States", "", "| state | is |", "|---|---|")
    yield from (f"| {state} | {what} |" for state, what in STATES.items())
    yield ""


def _events() -> Iterator[str]:
    yield from ("## Events", "", "| event | happens when | noticed by |", "|---|---|---|")
    for event, when in EVENTS.items():
        by = "the uplink" if event in UPLINK_EVENTS else "what follows" if event in FOLLOWING_EVENTS else "the steward"
        yield f"| {event} | {when} | {by} |"
    yield ""


def _arrows() -> Iterator[str]:
    yield from ("## Arrows", "", "An order must allow the stage that an arrow names, where it names one.", "")
    yield from ("| from | event | to | order's stage | in the same transaction | effect, once it is on the disk |",)
    yield "|---|---|---|---|---|---|"
    rows: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for arrow in ARROWS:
        target = "the same" if arrow.target == arrow.origin else arrow.target
        rows[arrow.event, target, arrow.stage, arrow.durable, arrow.effect].append(arrow.origin)
    for cells, origins in rows.items():
        yield f"| {' | '.join(cell if cell != '-' else '' for cell in (', '.join(origins), *cells))} |"


if __name__ == "__main__":
    print(page(), end="")
