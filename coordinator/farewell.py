"""Tells a person what came out of a run, from the same figures that summary.json holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from coordinator.report.measures import idea_words

Figures = Mapping[str, Any]


def print_farewell(console: Console, summary: Figures) -> None:
    """Print a dozen lines: from what to what, at what price, by which ideas, and where to read more."""
    console.print()
    for line in _lines(summary):
        console.print(line, highlight=False, soft_wrap=True)


def _lines(summary: Figures) -> Iterator[Text]:
    yield Text(_headline(summary), "bold green" if summary["target"] and summary["target"]["reached"] else "bold")
    if summary["from"] and summary["to"]:
        yield _row("from", _claim(summary["from"]))
        yield _row("to", _claim(summary["to"]))
    if summary["audit"]:
        early = "" if summary["audit"]["complete"] else ", stopped early"
        yield _row("audit", f"{_count(summary['audit'])} on audit starts{early}{_unjudged(summary['audit'])}")
    trials = summary["trials"]
    yield _row(
        "in",
        f"{trials['total']} trials, {summary['station_minutes']:.0f} station-minutes,"
        f" {summary['wall_minutes']:.1f} minutes of wall time; stations ran at {summary['speed']:.1f} x real time",
    )
    mru = summary["mru"]
    made = mru["agents"] + mru["offline_researcher"]
    yield _row(
        "robots",
        f"of the whole run in a trial {_percent(mru['any_experiment'])}, in a useful one {_percent(mru['useful'])},"
        f" in one for a researcher's candidate {_percent(made)}; resetting {_percent(summary['reset_share'])}",
    )
    if summary["reset"]:
        reset = summary["reset"]
        ready = _count(reset["ready_at_first_try"])
        yield _row("resets", f"ready at first try {ready}, median {reset['median_station_s']:.1f} s of station time")
    yield _row("started", _started(summary))
    yield _row("memory", _memory(summary["memory"]))
    yield _row("trials", _integrity(summary))
    yield _row("ideas", idea_words(summary["ideas"]))
    ideas = summary["accepted"]
    gains = [f"{idea['gain']} after {idea['minute']:.1f} min, one of {idea['of_tried']} tried" for idea in ideas]
    for gain, idea in zip(gains, ideas, strict=True):
        yield Text.assemble("            ", (gain.rjust(max(map(len, gains))), "green"), f"  {idea['sentence']}")
    yield _row("report", str(Path(summary["folder"]) / summary["files"]["report"]))


def _headline(summary: Figures) -> str:
    task, why = summary["task"] or "run", summary["ended_why"] or "it was cut short"
    return f"{task} on {summary['stations']} stations, seed {summary['seed']}: {why}"


def _claim(claim: Figures) -> str:
    stopped = ", stopped early" if claim["starts"] == "held-out" and not claim["complete"] else ""
    measured = claim["heldout_measurements"] if claim["starts"] == "held-out" else 1
    often = f", after {measured - 1} other measurements there" if measured > 1 else ""
    return (
        f"{_count(claim)} on {claim['starts']} starts{stopped}{often}{_unjudged(claim)}, policy {claim['policy'][:12]}"
    )


def _unjudged(claim: Figures) -> str:
    return f" ({claim['invalid']} of the failures could not be judged)" if claim["invalid"] else ""


def _count(count: Figures) -> str:
    if not count["trials"]:
        return "no trials"
    interval = f"95 % interval {count['low_percent']:.0f}–{count['high_percent']:.0f} %"
    return f"{count['successes']}/{count['trials']} = {count['percent']:.0f} % ({interval})"


def _started(summary: Figures) -> str:
    words = [
        (summary["first_trial_s"], "{:.1f} s to the first finished trial"),
        (summary["minutes_to_first_accept"], "{:.1f} min to the first accepted idea"),
        (summary["minutes_to_target"], "{:.1f} min to the target"),
    ]
    return ", ".join(text.format(value) for value, text in words if value is not None) or "no trial was finished"


def _memory(memory: Figures) -> str:
    peak = max(memory["stations_peak_mb"].values(), default=0.0)
    return f"at most {peak:.0f} MB a station, coordinator {memory['coordinator_peak_mb']:.0f} MB"


def _integrity(summary: Figures) -> str:
    integrity = summary["integrity"]
    words = [f"{integrity['lost']} lost", f"{integrity['doubled']} doubled"]
    for name, text in (
        ("invented", "that nobody asked for"),
        ("quarantined", "in quarantine"),
        ("at_stations", "still at a station"),
    ):
        if integrity[name]:
            words.append(f"{integrity[name]} {text}")
    invalid = [f"{count} {cause}" for cause, count in sorted(summary["trials"]["invalid_by_cause"].items())]
    return ", ".join(words) + (f"; invalid: {', '.join(invalid)}" if invalid else "")


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"


def _row(name: str, text: str) -> Text:
    return Text.assemble((f"  {name:<9} ", "bold"), text)
