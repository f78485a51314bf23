"""Success over the stations' own time, by number of stations, beside what the paper reports.

Runs come from folders of runs or from a file of `bench/fleet_scaling.py`; a run's curve is a step at each measurement
on held-out starts. `python -m coordinator.report.scaling OUT.png RUN_OR_FILE ...` draws it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from coordinator.report.style import DARK, LIGHT, Theme, empty, figure, label, legend, png

# Hours to a score of 1.0 by robots: section 9.1 of the fact sheet on the paper, curves of its project page.
PAPER_HOURS: Mapping[str, Mapping[int, float]] = {
    "push_t": {1: 4.70, 4: 3.12, 8: 1.98},
    "pin_insertion": {1: 2.50, 4: 0.89, 8: 0.67},
}
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


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


def draw(runs: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    """Return the picture: each run's station-time to the target by number of stations, medians and the paper's line."""
    reached = [run for run in runs if run.get("to_target")]
    if not reached:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No run has reached its target.")
        return drawing
    drawing, axes = figure(theme, 4.6)
    task = str(reached[0]["task"])
    counts = sorted({int(run["stations"]) for run in reached})
    hours = {
        count: [run["to_target"]["clock_minutes"] / 60.0 for run in reached if run["stations"] == count]
        for count in counts
    }
    for count, times in hours.items():
        axes.plot(
            [count] * len(times), times, "o", color=theme.line, markersize=6, alpha=0.6,
            label="one campaign" if count == counts[0] else None,
        )  # fmt: skip
    middles = [median(times) for times in hours.values()]
    axes.plot(
        counts, middles, "-D", color=theme.line, linewidth=2.2, markersize=8, label="median of those that reached it"
    )
    axes.plot(
        counts, [middles[0] * counts[0] / count for count in counts], color=theme.faint, linestyle=(0, (2, 3)),
        label="if twice the stations took half the time",
    )  # fmt: skip
    paper = PAPER_HOURS.get(task, {})
    axes.plot(
        list(paper), list(paper.values()), "--s", color=theme.heldout, linewidth=1.6, markersize=7,
        label="the paper, real robots, one team each",
    )  # fmt: skip
    everything = [*middles, *paper.values(), *(time for times in hours.values() for time in times)]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(min(everything) / 1.6, max(everything) * 1.6)
    ticks = sorted({*counts, *paper})
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(f"{value:.0e}")[0] in "25" else "")
    axes.tick_params(which="both", colors=theme.ink)
    label(axes, theme, f"Station-time to the target, {task}", "stations", "hours of the stations' own clock")
    legend(drawing, theme, 2)
    return drawing


def write(out: Path, files: Iterable[Path]) -> None:
    """Draw the runs of some files into a PNG, and one for dark pages beside it.

    Raises:
        NoRunsError: no file holds a run.
    """
    runs = [run for path in files for run in read_runs(path)]
    if not runs:
        raise NoRunsError("no run of bench/fleet_scaling.py in the files that were given")
    out.write_bytes(png(draw(runs, LIGHT)))
    out.with_stem(f"{out.stem}-dark").write_bytes(png(draw(runs, DARK)))


def main(arguments: Sequence[str]) -> int:
    """Draw OUT.png from FILES."""
    if len(arguments) < 2:
        print("usage: python -m coordinator.report.scaling OUT.png FILE ...", file=sys.stderr)
        return 2
    try:
        write(Path(arguments[0]), map(Path, arguments[1:]))
    except (NoRunsError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
