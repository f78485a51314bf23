"""The idea tree: one lane for the ideas tried against each incumbent, the lineage of the best drawn thick.

Filled is accepted, hollow rejected, half inconclusive or superseded, small still open. Ideas stand in the order in
which they were made, so that no two share a place; the hill-climb carries the time.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coordinator.report.measures import depth, incumbents, lineage
from coordinator.report.run import Idea, Run
from coordinator.report.style import WIDTH_IN, Theme, empty, figure, label, legend

COLUMN_IN = 0.2  # width that one idea takes
WIDEST_IN = 24.0
LANE_IN = 0.75
MARKER_POINTS = 10.0


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    if not run.ideas:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No idea was written down.")
        return drawing
    places = {idea.candidate_id: (column, -depth(run, idea)) for column, idea in enumerate(run.ideas)}
    lanes = 1 - min(lane for _, lane in places.values())
    width_in = min(max(WIDTH_IN, 3.0 + COLUMN_IN * len(run.ideas)), WIDEST_IN)
    drawing, axes = figure(theme, 1.6 + LANE_IN * lanes, width_in)
    best = incumbents(run)[-1].idea if incumbents(run) else run.ideas[0]
    line = {idea.candidate_id for idea in lineage(run, best)}
    _branches(axes, theme, run, places, line)
    for idea in run.ideas:
        _node(axes, theme, idea, places[idea.candidate_id])
    _lanes(axes, theme, run, lanes)
    axes.set_xlim(-0.8, len(run.ideas) - 0.2)
    axes.set_ylim(0.5 - lanes, 0.6)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    label(axes, theme, "Ideas, in the order in which they were made; a lane is one step away from the seed")
    _key(axes, theme)
    legend(drawing, theme, 5)
    return drawing


def _branches(axes: Axes, theme: Theme, run: Run, places: dict[int, tuple[int, int]], line: set[int]) -> None:
    """Join each idea to its parent: down from the parent, then along the lane."""
    for idea in run.ideas:
        if idea.parent_candidate_id is None:
            continue
        (from_x, from_y), (to_x, to_y) = places[idea.parent_candidate_id], places[idea.candidate_id]
        thick = idea.candidate_id in line
        axes.plot(
            [from_x, from_x, to_x],
            [from_y, to_y, to_y],
            color=theme.line if thick else theme.faint,
            linewidth=3.2 if thick else 0.8,
            alpha=1.0 if thick else 0.6,
            zorder=2 if thick else 1,
            solid_joinstyle="round",
        )


def _node(axes: Axes, theme: Theme, idea: Idea, place: tuple[int, int]) -> None:
    axes.add_line(_marker(theme, idea.verdict, [place[0]], [place[1]]))
    # Neighbours in a lane alternate between above and below, so that three digits fit.
    above = place[0] % 2 == 0
    axes.annotate(
        str(idea.candidate_id),
        place,
        xytext=(0, 9 if above else -9),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize=8.5,
        color=theme.ink,
        zorder=6,
    )


def _marker(theme: Theme, verdict: str, x: list[float], y: list[float], words: str = "") -> Line2D:
    color = {"accept": theme.gain, "reject": theme.loss}.get(verdict, theme.faint)
    half = verdict not in ("accept", "reject")
    return Line2D(
        x,
        y,
        marker="o",
        markersize=MARKER_POINTS if verdict != "open" else 5.0,
        linestyle="none",
        color=color,
        markerfacecolor=theme.paper if verdict == "reject" else color,
        markerfacecoloralt=theme.paper,
        markeredgewidth=1.6,
        fillstyle="left" if half else "full",
        zorder=5,
        label=words,
    )


def _lanes(axes: Axes, theme: Theme, run: Run, lanes: int) -> None:
    """Name each lane by the incumbent that its ideas were tried against."""
    parents = {1 + depth(run, reign.idea): reign.idea for reign in incumbents(run)}
    names = ["seed"] + [f"against {parents[lane].short}" if lane in parents else "" for lane in range(1, lanes)]
    axes.set_yticks([-lane for lane in range(lanes)], names)
    axes.tick_params(axis="y", length=0)
    axes.yaxis.set_tick_params(labelcolor=theme.ink)


def _key(axes: Axes, theme: Theme) -> None:
    for verdict, words in (
        ("accept", "accepted"),
        ("reject", "rejected"),
        ("inconclusive", "inconclusive or superseded"),
        ("open", "still open"),
    ):
        axes.add_line(_marker(theme, verdict, [], [], words))
    axes.plot([], [], color=theme.line, linewidth=3.2, label="lineage of the best")
