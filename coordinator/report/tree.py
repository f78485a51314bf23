"""The idea tree: a trunk of incumbents, a lane for each researcher's family of ideas, the lineage of the best thick.

- A node is an idea; ideas stand in the order in which they were made, so that no two share a place.
- Filled is accepted, and its lane comes back to the trunk there; hollow was tested and is not better; half is
  inconclusive or superseded; small is still open.
- A dotted line goes to an idea from each other one that it took over.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, PathPatch
from matplotlib.path import Path

from coordinator.report import gains
from coordinator.report.measures import incumbents, lineage
from coordinator.report.run import Idea, Run
from coordinator.report.style import WIDTH_IN, Theme, empty, figure, label, legend

COLUMN_IN = 0.24  # width that one idea takes
WIDEST_IN = 24.0
LANE_IN = 0.62
MARKER_POINTS = 10.0
FAMILIES = {  # of the kinds of ideas that researchers name; a kind that is not here is a family of its own
    "parameter": "parameters",
    "sobol": "parameters",
    "cma": "parameters",
    "switch": "one change",
    "combine": "combined",
    "merge": "combined",
    "crossover": "combined",
    "program": "program of skills",
    "simplify": "simpler",
    "play": "learned by play",
}
Places = Mapping[int, tuple[int, int]]


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    if not run.ideas:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No idea was written down.")
        return drawing
    lanes = lane_names(run)
    places = place(run, lanes)
    width_in = min(max(WIDTH_IN, 3.0 + COLUMN_IN * len(run.ideas)), WIDEST_IN)
    drawing, axes = figure(theme, 2.4 + LANE_IN * len(lanes), width_in)
    reigns = incumbents(run)
    best = {idea.candidate_id for idea in lineage(run, reigns[-1].idea if reigns else run.ideas[0])}
    _trunk(axes, theme, run, places, best)
    _branches(axes, theme, run, places, best)
    _borrowed(axes, theme, run, places)
    for idea in run.ideas:
        _node(axes, theme, idea, places[idea.candidate_id])
    _gains(axes, theme, run, places)
    axes.set_yticks([0, *(-lane for lane in range(1, len(lanes) + 1))], ["incumbents", *lanes])
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-1.0, len(run.ideas) + 0.6)
    axes.set_ylim(-0.6 - len(lanes), 1.2)
    axes.set_xticks([])
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=False)
    label(axes, theme, "Ideas by family", "ideas in the order in which they were made, numbered")
    _key(axes, theme, any(idea.merged for idea in run.ideas))
    legend(drawing, theme, 5)
    return drawing


def lane_names(run: Run) -> list[str]:
    """Return the families of ideas, each with its researcher where there are several, in the order of their first."""
    made = [idea for idea in run.ideas if idea.parent_candidate_id is not None]
    researchers = list(dict.fromkeys(idea.researcher for idea in made))
    together = sorted(made, key=lambda idea: researchers.index(idea.researcher))
    return list(dict.fromkeys(_lane(idea, len(researchers) > 1) for idea in together))


def _lane(idea: Idea, several: bool) -> str:
    family = FAMILIES.get(idea.kind, idea.kind)
    return f"{idea.researcher}: {family}" if several else family


def place(run: Run, lanes: list[str]) -> dict[int, tuple[int, int]]:
    """Return column and lane of each idea by its candidate; lane 0 is the trunk, on which the seed stands."""
    several = len({idea.researcher for idea in run.ideas if idea.parent_candidate_id is not None}) > 1
    return {
        idea.candidate_id: (
            column,
            0 if idea.parent_candidate_id is None else -1 - lanes.index(_lane(idea, several)),
        )
        for column, idea in enumerate(run.ideas)
    }


def _returns(run: Run, places: Places) -> dict[int, float]:
    """Return where on the trunk each accepted idea came in: after what was made before, before what it led to."""
    came = {}
    for idea in run.ideas:
        if idea.verdict == "accept":
            led_to = [
                places[item.candidate_id][0] for item in run.ideas if item.parent_candidate_id == idea.candidate_id
            ]
            came[idea.candidate_id] = min(led_to, default=len(run.ideas)) - 0.5
    return came


def _trunk(axes: Axes, theme: Theme, run: Run, places: Places, best: set[int]) -> None:
    came = _returns(run, places)
    axes.plot([0, len(run.ideas)], [0, 0], color=theme.faint, linewidth=1.0, zorder=1)
    ends = [x for candidate_id, x in came.items() if candidate_id in best]
    if ends:
        axes.plot([0, max(ends)], [0, 0], color=theme.line, linewidth=3.2, zorder=2, solid_capstyle="round")


def _branches(axes: Axes, theme: Theme, run: Run, places: Places, best: set[int]) -> None:
    """Join the ideas against one incumbent that stand in one lane, from the trunk on; accepted ones go back to it."""
    came = _returns(run, places)
    last: dict[tuple[int, int], tuple[float, float]] = {}
    for idea in run.ideas:
        if idea.parent_candidate_id is None:
            continue
        x, y = places[idea.candidate_id]
        key = (idea.parent_candidate_id, y)
        before = last.get(key)
        if before:
            axes.plot([before[0], x], [y, y], color=theme.faint, linewidth=0.9, alpha=0.8, zorder=1)
        else:
            _curve(axes, (came.get(idea.parent_candidate_id, 0.0), 0.0), (x, y), theme.faint, 0.9, 1)
        last[key] = (x, y)
        if idea.candidate_id in came:
            thick = idea.candidate_id in best
            color, width = (theme.line, 3.2) if thick else (theme.gain, 1.4)
            _curve(axes, (x, y), (came[idea.candidate_id], 0.0), color, width, 2)


def _curve(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float, z: int) -> None:
    """Draw a line that leaves and arrives upright."""
    middle = (start[1] + end[1]) / 2.0
    path = Path([start, (start[0], middle), (end[0], middle), end], [Path.MOVETO, *[Path.CURVE4] * 3])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor=color, linewidth=width, zorder=z, capstyle="round"))


def _borrowed(axes: Axes, theme: Theme, run: Run, places: Places) -> None:
    for idea in run.ideas:
        for source in idea.merged:
            if source in places:
                axes.add_patch(
                    FancyArrowPatch(
                        places[source],
                        places[idea.candidate_id],
                        connectionstyle="arc3,rad=-0.25",
                        arrowstyle="-",
                        linestyle=(0, (1, 2)),
                        linewidth=1.6,
                        color=theme.heldout,
                        zorder=3,
                    )
                )


def _gains(axes: Axes, theme: Theme, run: Run, places: Places) -> None:
    """Say on the trunk what each accepted idea gained, each above or below its neighbour."""
    came = _returns(run, places)
    accepted = [idea for idea in run.ideas if idea.candidate_id in came and idea.parent_candidate_id is not None]
    for number, idea in enumerate(accepted):
        x = came[idea.candidate_id]
        axes.plot([x], [0], marker="|", markersize=9, color=theme.gain, markeredgewidth=2.2, zorder=6)
        if idea.decision is not None:
            axes.annotate(
                gains.points(run, idea, idea.decision),
                (x, 0),
                xytext=(0, 10 + 13 * (number % 2)),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=theme.gain,
                zorder=7,
            )


def _node(axes: Axes, theme: Theme, idea: Idea, at: tuple[int, int]) -> None:
    axes.add_line(_marker(theme, idea.verdict, [at[0]], [at[1]]))
    axes.annotate(
        str(idea.candidate_id),
        at,
        xytext=(0, -9),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=8.5,
        color=theme.ink,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.6},
        zorder=4,
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


def _key(axes: Axes, theme: Theme, borrowed: bool) -> None:
    for verdict, words in (
        ("accept", "accepted"),
        ("reject", "not better"),
        ("inconclusive", "inconclusive or superseded"),
        ("open", "still open"),
    ):
        axes.add_line(_marker(theme, verdict, [], [], words))
    axes.plot([], [], color=theme.line, linewidth=3.2, label="lineage of the best")
    if borrowed:
        axes.plot(
            [], [], color=theme.heldout, linewidth=1.6, linestyle=(0, (1, 2)), label="took over from another idea"
        )
