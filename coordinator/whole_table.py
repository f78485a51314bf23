"""Prints a table as wide as it is: a name that a narrow terminal would cut short cannot be copied."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def print_whole(table: Table) -> None:
    """Print a table to standard output; the terminal wraps its lines, where it is too narrow for them."""
    console = Console()
    whole = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    console.width = max(console.width, whole)
    console.print(table)
