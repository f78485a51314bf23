"""Success over the stations' own time, by number of stations, beside what the paper reports.

Runs come from folders of runs or from files of `bench/fleet_scaling.py`; a run's curve has a step at each incumbent.
`python -m coordinator.report.scaling OUT.html RUN_OR_FILE ...` writes the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from coordinator.report.markup import Markup, element, page, picture, section, table
from coordinator.report.measures import station_count
from coordinator.report.milestones import climb, clock_minutes, to_target
from coordinator.report.run import Campaign, ReportError, load
from coordinator.report.style import DARK, LIGHT, Theme, dress, figure, label, legend, png

# Hours to a score of 1.0 by robots: section 9.1 of the fact sheet on the paper, curves of its project page.
PAPER_HOURS: Mapping[str, Mapping[int, float]] = {
    "push_t": {1: 4.70, 4: 3.12, 8: 1.98},
    "pin_insertion": {1: 2.50, 4: 0.89, 8: 0.67},
}
PAPER_WORDS = "the paper: to a score of 1.0 on real robots, one team each"
CAPTION = (
    "Success of each run's incumbent, held-out where it was measured, over the stations' own time; beside it, where a"
    " run has reached it, that time until the target was measured on held-out starts. Time is the most that the resets"
    " and trials of one station took. Emulated stations wait and think in none of it; the paper's hours are wall time."
)


class NoRunsError(Exception):
    """A file holds no runs of the bench."""


def read_runs(path: Path) -> list[Mapping[str, Any]]:
    """Return the runs in a file of the bench, none where there is no such file; a torn last line is left out."""
    if not path.is_file():
        return []
    runs = []
    for line in path.read_text().splitlines():
        try:
            runs.append(json.loads(line))
        except ValueError:
            continue
    return runs


def runs_of(path: Path) -> list[Mapping[str, Any]]:
    """Return the runs of a file of the bench, or the one in the folder of a run.

    Raises:
        NotARunError: a folder without a readable coordinator.db.
        NoRunsError: a file without runs.
    """
    if path.is_dir():
        return [_of_folder(path)]
    runs = read_runs(path)
    if not runs:
        raise NoRunsError(f"{path} holds no run of bench/fleet_scaling.py")
    return runs


def _of_folder(folder: Path) -> Mapping[str, Any]:
    run = load(folder)
    reached = to_target(run)
    return {
        "task": run.campaign.task if run.campaign else "",
        "target": _asked_of(run.campaign),
        "stations": station_count(run),
        "seed": run.campaign.seed if run.campaign else None,
        "to_target": None if reached is None else {"clock_minutes": reached.clock_minutes},
        "climb": climb(run),
        "clock_minutes": clock_minutes(run),
    }


def _asked_of(campaign: Campaign | None) -> Mapping[str, int] | None:
    return None if campaign is None else {"successes": campaign.target_successes, "trials": campaign.target_trials}


def draw(runs: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Return the picture: success over station-time, and station-time to the target where any run has reached it."""
    drawing, left = figure(theme, 5.0)
    counts = sorted({int(run["stations"]) for run in runs})
    colors = {count: theme.series[index % len(theme.series)] for index, count in enumerate(counts)}
    task = str(runs[0]["task"]) if runs else ""
    reached = any(run["to_target"] for run in runs)
    if reached:
        left.remove()
        left, right = drawing.subplots(1, 2, width_ratios=(1.15, 1.0))
        for axes in (left, right):
            dress(axes, theme)
        _times(right, theme, runs, counts, PAPER_HOURS.get(task, {}))
    _curves(left, theme, runs, colors, PAPER_HOURS.get(task, {}))
    legend(drawing, theme, 2)
    return drawing


def _curves(
    axes: Axes, theme: Theme, runs: Sequence[Mapping[str, Any]], colors: Mapping[int, str], paper: Mapping[int, float]
) -> None:
    named: set[int] = set()
    longest = 0.0
    for run in runs:
        steps = run.get("climb") or []
        hours = [step["clock_minutes"] / 60.0 for step in steps]
        percent = [step["percent"] for step in steps]
        ended = (run.get("to_target") or run).get("clock_minutes")
        if steps and ended is not None:
            hours, percent = [*hours, ended / 60.0], [*percent, percent[-1]]
        count = int(run["stations"])
        if steps and ended is None:  # of a file that does not say how long it went on
            axes.plot(hours[-1:], percent[-1:], "o", color=colors[count], markersize=4)
        axes.step(
            hours, percent, where="post", color=colors[count], linewidth=1.8, alpha=0.85,
            label=None if count in named else f"{count} station{'s' * (count != 1)}",
        )  # fmt: skip
        named.add(count)
        longest = max([longest, *hours])
    for place, (count, hours_to) in enumerate(paper.items()):
        axes.axvline(
            hours_to, color=theme.heldout, linestyle=(0, (4, 3)), linewidth=1.2, label=None if place else PAPER_WORDS
        )
        axes.annotate(
            f"paper, {count}", (hours_to, 2.0), xytext=(3, 0), textcoords="offset points", rotation=90, fontsize=8.5,
            color=theme.heldout, va="bottom",
        )  # fmt: skip
    axes.set_xlim(0.0, 1.05 * max([longest, *paper.values(), 0.1]))
    axes.set_ylim(0.0, 102.0)
    label(axes, theme, "Success of the incumbent", "hours of the stations' own clock", "success, %")


def _times(
    axes: Axes, theme: Theme, runs: Sequence[Mapping[str, Any]], counts: Sequence[int], paper: Mapping[int, float]
) -> None:
    hours = {
        count: [
            run["to_target"]["clock_minutes"] / 60.0 for run in runs if run["stations"] == count and run["to_target"]
        ]
        for count in counts
    }
    hours = {count: times for count, times in hours.items() if times}
    several = any(len(times) > 1 for times in hours.values())
    for number, (count, times) in enumerate(hours.items() if several else ()):
        axes.plot(
            [count] * len(times), times, "o", color=theme.line, markersize=5, alpha=0.55,
            label=None if number else "one campaign",
        )  # fmt: skip
    middles = [median(times) for times in hours.values()]
    axes.plot(
        list(hours),
        middles,
        "-D",
        color=theme.line,
        linewidth=2.0,
        label="median of those that reached it" if several else "one campaign",
    )
    first = next(iter(hours))
    ideal = [middles[0] * first / count for count in hours]
    if len(hours) > 1:
        axes.plot(list(hours), ideal, color=theme.faint, linestyle=(0, (2, 3)), label="if twice the stations took half")
    axes.plot(list(paper), list(paper.values()), "--s", color=theme.heldout, linewidth=1.4)
    everything = [*middles, *ideal, *paper.values(), *(time for times in hours.values() for time in times)]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(min(everything) / 1.5, max(everything) * 1.5)
    ticks = sorted({*hours, *paper})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    # A decade alone would carry one number, or none.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    label(axes, theme, "Station-time to the target", "stations", "hours of the stations' own clock")


def write(out: Path, places: Iterable[Path]) -> Path:
    """Write one page that compares runs, from their folders or files of the bench.

    Raises:
        NoRunsError, NotARunError: a place holds no run.
    """
    runs = [run for path in places for run in runs_of(path)]
    asked = sorted({_question(run) for run in runs})
    title = f"{', '.join(sorted({str(run['task']) for run in runs}))}: {len(runs)} runs compared"
    parts = [_part(question, [run for run in runs if _question(run) == question]) for question in asked]
    out.write_text(page(title, element("h1", title), *parts), encoding="utf-8")
    return out


def _question(run: Mapping[str, Any]) -> str:
    """Return what a run was asked: times to different targets are not to be compared."""
    target = run.get("target")
    to = f", to {target['successes']} of {target['trials']} held-out starts" if target else ""
    return f"{run['task']}{to}"


def _part(question: str, runs: Sequence[Mapping[str, Any]]) -> Markup:
    shown = picture(png(draw(runs, LIGHT)), png(draw(runs, DARK)), f"Fleet scaling, {question}", CAPTION)
    header = ("Stations", "Seed", "Station-time to the target", "Success at the end", "Paper, as many robots")
    return section(question, shown, table(header, map(_row, runs), none=""))


def _row(run: Mapping[str, Any]) -> tuple[str, ...]:
    reached, steps = run["to_target"], run.get("climb") or []
    paper = PAPER_HOURS.get(str(run["task"]), {}).get(int(run["stations"]))
    last = steps[-1] if steps else None
    return (
        str(run["stations"]),
        str(run["seed"]),
        f"{reached['clock_minutes'] / 60.0:.2f} h" if reached else "not reached",
        f"{last['percent']:.0f} % ({last['low_percent']:.0f}–{last['high_percent']:.0f} %)" if last else "not measured",
        f"{paper:g} h" if paper else "",
    )


def main(arguments: Sequence[str]) -> int:
    """Write OUT.html from folders of runs and files of the bench."""
    if len(arguments) < 2:
        print("usage: python -m coordinator.report.scaling OUT.html RUN_OR_FILE ...", file=sys.stderr)
        return 2
    try:
        print(write(Path(arguments[0]), map(Path, arguments[1:])))
    except (NoRunsError, ReportError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
