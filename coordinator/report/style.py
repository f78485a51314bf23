"""The look of every picture: two themes, one palette that colour-blind readers can tell apart, and saving.

A colour means the same thing in all pictures: green is gain, red is loss, blue is the incumbent, amber is held-out.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 130
WIDTH_IN = 10.0


@dataclass(frozen=True)
class Theme:
    """Colours of paper, ink and the things that are drawn."""

    name: str
    paper: str
    ink: str
    faint: str  # grids and secondary text
    line: str  # incumbent
    heldout: str
    gain: str
    loss: str
    idle: str
    series: tuple[str, ...]  # classes without a meaning of their own


# Okabe and Ito 2008 hues, lightened for the dark paper until each has a contrast of at least 4.5 against it.
LIGHT = Theme(
    "light", "#ffffff", "#1f2933", "#8a94a0", "#1f6fb2", "#b26a00", "#12805c", "#b3392f", "#e6e9ed",
    ("#1f6fb2", "#d08a1d", "#12805c", "#b3392f", "#8a5aa8", "#4c9fbf", "#8c6d46", "#77808a"),
)  # fmt: skip
DARK = Theme(
    "dark", "#14181d", "#e3e8ee", "#7d8894", "#64b1f0", "#f0b04a", "#4fc79a", "#f0857a", "#2b333c",
    ("#64b1f0", "#f0b04a", "#4fc79a", "#f0857a", "#bf9add", "#8ad4ea", "#c9a77c", "#9aa4af"),
)  # fmt: skip


def figure(theme: Theme, height_in: float, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """Return an empty picture with one plot in the theme's look."""
    with matplotlib.rc_context({"font.size": 11.0}):
        drawing = Figure(figsize=(width_in, height_in), facecolor=theme.paper, layout="constrained")
        axes = drawing.add_subplot()
    dress(axes, theme)
    return drawing, axes


def dress(axes: Axes, theme: Theme) -> None:
    """Give a plot the theme's look."""
    axes.set_facecolor(theme.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=10.5, length=3)
    axes.grid(axis="y", color=theme.faint, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)


def label(axes: Axes, theme: Theme, title: str, x: str = "", y: str = "") -> None:
    """Set the words around a plot."""
    axes.set_title(title, loc="left", color=theme.ink, fontsize=12.5, pad=12)
    axes.set_xlabel(x, color=theme.ink)
    axes.set_ylabel(y, color=theme.ink)


def legend(drawing: Figure, theme: Theme, columns: int) -> None:
    """Put the legend of all plots below them, where it can cover nothing."""
    drawing.legend(loc="outside lower left", ncols=columns, frameon=False, labelcolor=theme.ink, fontsize=10)


def empty(axes: Axes, theme: Theme, words: str) -> None:
    """Say in an empty plot why it is empty."""
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=theme.faint, fontsize=13)
    axes.set_xticks([])
    axes.set_yticks([])


def png(drawing: Figure) -> bytes:
    """Return the picture as PNG bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=DPI, facecolor=drawing.get_facecolor())
    return buffer.getvalue()


def class_colors(theme: Theme, names: list[str]) -> dict[str, str]:
    """Return one colour a name, in the order of the names; the last colour serves all that are left."""
    last = len(theme.series) - 1
    return {name: theme.series[min(index, last)] for index, name in enumerate(names)}
