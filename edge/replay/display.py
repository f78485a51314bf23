"""Prints a replay for a person: one table, and one line for all that the recording lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge.replay.control import LARGEST_RAD, MEDIAN_RAD, ControlReplay
from edge.replay.perception import ALLOWED_MISSES, PerceptionReplay
from edge.replay.result import Replay
from edge.replay.verdict import VerdictReplay

MOST_LINES = 3  # of a kind


def print_summary(console: Console, result: Replay) -> None:
    """Print what came of one recording."""
    table = Table("replayed", "what", "found", "allowed", title=_title(result), title_justify="left")
    if result.control is not None:
        _add_control(table, result.control)
    if result.perception is not None:
        _add_perception(table, result.perception)
    if result.verdict is not None:
        _add_verdict(table, result.verdict)
    console.print(table)
    for line in (*result.notes, *result.lacks):
        console.print(Text(line))
    console.print("All is as it was, within tolerance." if result.same else "Something differs from what was recorded.")


def _title(result: Replay) -> Text:
    trial = result.trial
    if not trial:
        return Text("a trial of an older recording")
    return Text(f"{trial.get('edge')}/{trial.get('sequence')}, {trial.get('task')} from {trial.get('start_id')}")


def _add_control(table: Table, part: ControlReplay) -> None:
    for name, values, allowed in (
        ("largest difference", part.largest_rad, LARGEST_RAD),
        ("median difference", part.median_rad, MEDIAN_RAD),
    ):
        joint = int(np.argmax(values))
        when = f" at {part.largest_at_s:.2f} s" if name.startswith("largest") else ""
        _add(table, "control", name, f"{values[joint]:.3f} rad, joint {joint + 1}{when}", f"{allowed} rad")
    _add(table, "", "setpoints, measured poses", f"{part.setpoints}, {part.compared}", "")
    _add_lines(
        table, "refused now, not then", [f"{stop.at_s:.2f} s: {stop.text}" for stop in part.new_refusals], "none"
    )
    _add_lines(
        table, "refused then, not now", [f"{stop.at_s:.2f} s: {stop.text}" for stop in part.gone_refusals], "none"
    )


def _add_perception(table: Table, part: PerceptionReplay) -> None:
    for name, median, largest, most, unit in (
        ("position", part.median_mm, part.largest_mm, part.allowed_mm, "mm"),
        ("yaw", part.median_deg, part.largest_deg, part.allowed_deg, "deg"),
    ):
        found = f"{largest:.2f} {unit} at most, median {median:.2f}"
        _add(table, "perception", name, found, f"{most:.2f} {unit}")
    _add(table, "", "pictures, T found then and now", f"{part.pictures}, {part.compared}", "")
    allowed = f"{ALLOWED_MISSES:.0%} of the pictures"
    _add_lines(table, "found then, not now", [f"{miss.at_s:.2f} s: {miss.why}" for miss in part.only_then], allowed)
    _add_lines(table, "found now, not then", [f"{miss.at_s:.2f} s: {miss.why}" for miss in part.only_now], allowed)


def _add_verdict(table: Table, part: VerdictReplay) -> None:
    _add(table, "verdict", "then", _said(part.then, part.then_cause, part.then_detail), "")
    _add(table, "", "now", _said(part.now or "none", part.now_cause, part.now_detail), "the same")


def _said(outcome: str, cause: str, detail: str) -> str:
    return f"{outcome} ({cause}): {detail}" if cause else f"{outcome}: {detail}"


def _add_lines(table: Table, name: str, lines: Sequence[str], allowed: str) -> None:
    for number, line in enumerate(lines[:MOST_LINES]):
        more = f" (and {len(lines) - MOST_LINES} more)" if number == MOST_LINES - 1 and len(lines) > MOST_LINES else ""
        _add(table, "", name, line + more, allowed)


def _add(table: Table, part: str, name: str, found: str, allowed: str) -> None:
    table.add_row(part, name, Text(found), allowed)
