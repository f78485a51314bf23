"""Why the policy failed: the share of each failure class in the valid trials of every incumbent."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure

from coordinator.report.measures import count, failure_classes, incumbents, tried_for_itself
from coordinator.report.run import Run
from coordinator.report.style import Theme, class_colors, empty, figure, label, legend

NAMED_CLASSES = 7
REST = "all other classes"


def draw(run: Run, theme: Theme) -> Figure:
    """Return the picture; an empty one says why it is empty."""
    rows = [
        (f"{reign.generation}  {reign.idea.short}", tried.trials, failure_classes(run, reign.idea.bundle))
        for reign in incumbents(run)
        if (tried := count(tried_for_itself(run, reign.idea.bundle))).trials
    ]
    total = sum((classes for _, _, classes in rows), Counter[str]())
    if not total:
        drawing, axes = figure(theme, 3.0)
        empty(axes, theme, "No failure of an incumbent was recorded.")
        return drawing
    drawing, axes = figure(theme, 2.0 + 0.42 * len(rows))
    shown = [name for name, _ in total.most_common(NAMED_CLASSES)]
    shown += [REST] if len(total) > NAMED_CLASSES else []
    colors = class_colors(theme, shown)
    for row, (_, trials, classes) in enumerate(rows):
        left = 0.0
        for name in shown:
            hits = classes[name] if name != REST else sum(classes.values()) - sum(classes[item] for item in shown)
            share = 100.0 * hits / trials
            axes.barh(-row, share, left=left, height=0.62, color=colors[name], label=None if row else name)
            left += share
        axes.annotate(
            f"{sum(classes.values())} of {trials} trials failed",
            (left, -row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=theme.ink,
        )
    axes.set_yticks([-row for row in range(len(rows))], [name for name, _, _ in rows])
    axes.set_xlim(0.0, 125.0)  # room for the words beside a full bar
    axes.set_xticks(range(0, 101, 20))
    axes.grid(visible=False)
    label(axes, theme, "Failures of each incumbent by class", "share of its valid trials, %")
    legend(drawing, theme, 4)
    return drawing
