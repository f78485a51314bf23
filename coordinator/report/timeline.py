"""The use of the stations: when each one reset, ran a trial (coloured by its purpose) or stood idle."""

from __future__ import annotations

from matplotlib.figure import Figure

from coordinator.report.run import Run, TrialRow
from coordinator.report.style import Theme, class_colors, empty, figure, label, legend

BAR_HEIGHT = 0.62


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    edges = sorted({trial.edge for trial in run.trials} | {station.edge for station in run.stations})
    if not run.trials:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No trial was recorded.")
        return drawing
    drawing, axes = figure(theme, 1.9 + 0.5 * len(edges))
    colors = class_colors(theme, sorted({trial.purpose for trial in run.trials}))
    rows = {edge: -index for index, edge in enumerate(edges)}
    for edge, row in rows.items():
        axes.broken_barh(
            [(0.0, run.minutes)], (row - BAR_HEIGHT / 2, BAR_HEIGHT), color=theme.idle, label=None if row else "idle"
        )
        own = [trial for trial in run.trials if trial.edge == edge]
        axes.broken_barh(
            [(trial.start_minute, trial.wall_reset_min) for trial in own],
            (row - BAR_HEIGHT / 2, BAR_HEIGHT),
            color=theme.faint,
            label=None if row else "reset",
        )
        for purpose, color in colors.items():
            axes.broken_barh(
                [_span(trial) for trial in own if trial.purpose == purpose],
                (row - BAR_HEIGHT / 2, BAR_HEIGHT),
                color=color,
                label=None if row else purpose,
            )
    axes.set_yticks(list(rows.values()), list(rows))
    axes.set_xlim(0.0, max(run.minutes, 0.1))
    axes.grid(visible=False)
    label(axes, theme, "What each station did", "wall minutes")
    legend(drawing, theme, 8)
    return drawing


def _span(trial: TrialRow) -> tuple[float, float]:
    return (trial.start_minute + trial.wall_reset_min, trial.wall_trial_min)
