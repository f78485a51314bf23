"""The hill-climb: success of the incumbent over wall time, with held-out measurements as markers of their own."""

from __future__ import annotations

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coordinator.report import gains
from coordinator.report.measures import Count, Incumbent, incumbents, tried_against
from coordinator.report.run import Run
from coordinator.report.style import Theme, empty, figure, label, legend

NUMBERS_PERCENT = 108.0  # where the numbers of the steps stand
NUMBER_GAP_SHARE = 0.035  # of the plot's width that one number takes
LISTED = 9  # names that fit beside the plot, two lines each
LINE_POINTS, GAP_POINTS = 13.0, 6.0  # of a name's lines, and between names


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    reigns = incumbents(run)
    if not any(reign.pooled.trials for reign in reigns) and not run.heldout:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No valid trial of an incumbent was recorded.")
        return drawing
    minutes = max(run.minutes, 0.1)
    drawing, axes = figure(theme, 5.2)
    _target(axes, theme, run, minutes)
    _steps(axes, theme, [reign for reign in reigns if reign.pooled.trials])
    _markers(axes, theme, run)
    _names(axes, theme, run, reigns, minutes)
    axes.set_xlim(0.0, minutes * 1.02)
    axes.set_ylim(-3.0, NUMBERS_PERCENT + 5.0)
    axes.set_yticks(range(0, 101, 20))
    label(axes, theme, "Success of the incumbent", "wall minutes", "success, %")
    legend(drawing, theme, 3)
    return drawing


def _steps(axes: Axes, theme: Theme, reigns: list[Incumbent]) -> None:
    for index, reign in enumerate(reigns):
        span = [reign.from_minute, reign.to_minute]
        low, high = reign.pooled.bounds_percent
        first = index == 0
        axes.fill_between(
            span, low, high, color=theme.line, alpha=0.16, linewidth=0, label="95 % interval" if first else None
        )
        axes.plot(
            span,
            [reign.pooled.percent] * 2,
            color=theme.line,
            linewidth=2.6,
            solid_capstyle="butt",
            label="incumbent, its trials that also chose policies" if first else None,
        )
    for before, after in pairwise(reigns):
        axes.plot(
            [after.from_minute] * 2, [before.pooled.percent, after.pooled.percent], color=theme.line, linewidth=1.2
        )


def _markers(axes: Axes, theme: Theme, run: Run) -> None:
    named: set[bool] = set()
    for row in run.heldout:
        measured = Count(row.successes, row.trials)
        low, high = measured.bounds_percent
        words = "held-out starts" if row.complete else "held-out starts, stopped early"
        axes.errorbar(
            [row.minute],
            [measured.percent],
            yerr=[[measured.percent - low], [high - measured.percent]],
            fmt="D",
            markersize=8,
            color=theme.heldout,
            markerfacecolor=theme.heldout if row.complete else theme.paper,
            capsize=4,
            linewidth=1.4,
            zorder=5,
            label=None if row.complete in named else words,
        )
        named.add(row.complete)
        axes.annotate(
            f"{row.successes}/{row.trials}",
            (row.minute, measured.percent),
            xytext=(-9, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=10,
            color=theme.heldout,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1.0},
            zorder=6,
        )


def _target(axes: Axes, theme: Theme, run: Run, minutes: float) -> None:
    if run.campaign is None or not run.campaign.target_trials:
        return
    goal = Count(run.campaign.target_successes, run.campaign.target_trials)
    axes.axhline(
        goal.percent,
        color=theme.gain,
        linewidth=1.2,
        linestyle=(0, (5, 4)),
        label=f"target, {goal.successes} of {goal.trials} held-out starts",
    )


def _names(axes: Axes, theme: Theme, run: Run, reigns: tuple[Incumbent, ...], minutes: float) -> None:
    """Number the steps above the plot and say beside it what each number changed."""
    numbers_at = spread([reign.from_minute for reign in reigns], NUMBER_GAP_SHARE * minutes, minutes)
    for reign, number_at in zip(reigns, numbers_at, strict=True):
        start = (reign.from_minute, reign.pooled.percent)
        axes.plot([start[0], number_at], [start[1], NUMBERS_PERCENT], color=theme.faint, linewidth=0.7, zorder=1)
        axes.plot(
            [number_at], [NUMBERS_PERCENT], "o", markersize=15, color=theme.paper, markeredgecolor=theme.line, zorder=7,
            clip_on=False,
        )  # fmt: skip
        axes.annotate(
            str(reign.generation),
            (number_at, NUMBERS_PERCENT),
            ha="center",
            va="center",
            fontsize=10,
            color=theme.ink,
            zorder=8,
        )
    lines = [_line(run, reign) for reign in reigns[:LISTED]]
    if len(reigns) > LISTED:
        lines.append(f"and {len(reigns) - LISTED} more")
    above_points = 0.0
    for line in lines:
        axes.annotate(
            line,
            (1.0, 1.0),
            xycoords="axes fraction",
            xytext=(16, -above_points),
            textcoords="offset points",
            va="top",
            fontsize=10,
            color=theme.ink,
            annotation_clip=False,
        )
        above_points += LINE_POINTS * (line.count("\n") + 1) + GAP_POINTS


def _line(run: Run, reign: Incumbent) -> str:
    decision, parent = reign.idea.decision, reign.idea.parent_candidate_id
    if decision is None or parent is None:
        return f"{reign.generation}  {reign.idea.short}"
    tried = tried_against(run, parent)
    return (
        f"{reign.generation}  {reign.idea.short}\n    {gains.points(run, reign.idea, decision)}, one of {tried} tried"
    )


def spread(positions: list[float], gap: float, high: float) -> list[float]:
    """Return the sorted positions moved apart by at least `gap`, none above `high` while there is room below."""
    moved: list[float] = []
    for position in positions:
        moved.append(max(position, moved[-1] + gap) if moved else position)
    for index in reversed(range(len(moved))):
        ceiling = moved[index + 1] - gap if index + 1 < len(moved) else high
        moved[index] = min(moved[index], ceiling)
    return moved
