"""Writes the pictures and the page of a run into its own folder."""

from __future__ import annotations

from pathlib import Path

from coordinator.report import failures, hillclimb, timeline, tree
from coordinator.report.film import strips
from coordinator.report.page import Picture, render
from coordinator.report.run import load
from coordinator.report.style import DARK, LIGHT, png

DRAWINGS = {
    "hillclimb": hillclimb.draw,
    "idea_tree": tree.draw,
    "utilisation": timeline.draw,
    "failures": failures.draw,
}


def write_report(folder: Path) -> Path:
    """Make report.html and its PNGs in a run folder, and return the path of the page.

    Raises:
        NotARunError: the folder holds no readable coordinator.db.
    """
    run = load(folder)
    pictures = {name: Picture(png(draw(run, LIGHT)), png(draw(run, DARK))) for name, draw in DRAWINGS.items()}
    for name, picture in pictures.items():
        (folder / f"{name}.png").write_bytes(picture.light)
    path = folder / "report.html"
    path.write_text(render(run, pictures, strips(run)), encoding="utf-8")
    return path
