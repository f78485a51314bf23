"""The use of the stations: when each one reset, ran a trial (coloured by its purpose), waited for work or was away.

Away is before the coordinator first heard of a station, and from the last trial before its process ended, the one that
was cut short included, to the next. What is in no trial otherwise is waiting.
"""

from __future__ import annotations

from itertools import pairwise

from matplotlib.figure import Figure

from coordinator.report.run import Run, TrialRow
from coordinator.report.style import Theme, empty, figure, label, legend

BAR_HEIGHT = 0.62
CRASH = "crash"  # the cause of a trial that the end of its station's process cut short
# Purposes keep their colour from run to run; hues by their place in the theme's series.
PURPOSES = {
    "screen": 0, "gate": 1, "heldout": 2, "audit": 5, "baseline": 4, "bank": 6, "play": 7, "check": 3,
}  # fmt: skip
WORDS = {"heldout": "held-out", "check": "check of the station"}
Span = tuple[float, float]  # beginning and length, minutes


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    edges = sorted({trial.edge for trial in run.trials} | {station.edge for station in run.stations})
    if not run.trials:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No trial was recorded.")
        return drawing
    drawing, axes = figure(theme, 2.0 + 0.5 * len(edges))
    rows = {edge: -index for index, edge in enumerate(edges)}
    met = {trial.purpose for trial in run.trials}
    purposes = [name for name in PURPOSES if name in met] + sorted(met - set(PURPOSES))
    for edge, row in rows.items():
        at = (row - BAR_HEIGHT / 2, BAR_HEIGHT)
        own = [trial for trial in run.trials if trial.edge == edge]
        axes.broken_barh([(0.0, run.minutes)], at, color=theme.idle, label=None if row else "waiting")
        axes.broken_barh(
            away(run, edge), at, facecolor=theme.paper, edgecolor=theme.faint, hatch="////", linewidth=0.6,
            label=None if row else "away",
        )  # fmt: skip
        worked = [trial for trial in own if trial.cause != CRASH]
        axes.broken_barh(
            [(trial.start_minute, trial.wall_reset_min) for trial in worked], at, color=theme.faint,
            linewidth=0, label=None if row else "reset",
        )  # fmt: skip
        for purpose in purposes:
            axes.broken_barh(
                [_span(trial) for trial in worked if trial.purpose == purpose], at, linewidth=0,
                color=theme.series[PURPOSES.get(purpose, len(theme.series) - 1)],
                label=None if row else WORDS.get(purpose, purpose),
            )  # fmt: skip
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_xlim(0.0, max(run.minutes, 0.1))
    axes.grid(visible=False)
    label(axes, theme, "What each station did; trials by their purpose", "wall minutes")
    legend(drawing, theme, 6)
    return drawing


def away(run: Run, edge: str) -> list[Span]:
    """Return when a station was not there."""
    spans = [(0.0, station.first_seen_minute) for station in run.stations if station.edge == edge]
    own = [trial for trial in run.trials if trial.edge == edge]
    spans += [(trial.start_minute, trial.end_minute - trial.start_minute) for trial in own if trial.cause == CRASH]
    for before, after in pairwise(own):
        gap = (before.end_minute, after.start_minute)
        if any(gap[0] <= ended.minute <= gap[1] for ended in run.ended if ended.edge == edge):
            spans.append((gap[0], gap[1] - gap[0]))
    return [(begins, length) for begins, length in spans if length > 0.0]


def away_minutes(run: Run, edge: str) -> float:
    """Return for how long a station was not there."""
    return sum(length for _, length in away(run, edge))


def _span(trial: TrialRow) -> Span:
    return (trial.start_minute + trial.wall_reset_min, trial.wall_trial_min)
