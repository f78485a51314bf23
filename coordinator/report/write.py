"""Writes the pictures and the page of a run into its own folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coordinator.report import failures, hillclimb, scaling, timeline, tree
from coordinator.report.film import gallery, strips
from coordinator.report.page import Picture, render
from coordinator.report.run import load
from coordinator.report.style import DARK, LIGHT, png

COMPARISON = "comparison.html"
DRAWINGS = {
    "hillclimb": hillclimb.draw,
    "idea_tree": tree.draw,
    "utilisation": timeline.draw,
    "failures": failures.draw,
}


def write_reports(folders: Sequence[Path]) -> Path:
    """Make the report of each run; of several also a page beside them that compares them. Return the last page.

    Raises:
        NotARunError: a folder holds no readable coordinator.db.
    """
    pages = [write_report(folder) for folder in folders]
    return pages[0] if len(pages) == 1 else scaling.write(folders[0].resolve().parent / COMPARISON, folders)


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
    shown = strips(run)
    path.write_text(render(run, pictures, shown, gallery(run, shown)), encoding="utf-8")
    return path
