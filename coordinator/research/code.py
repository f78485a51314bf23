"""Code that several candidates changed, as one: each file line by line against the incumbent's.

Programs are joined step by step (see `merge`), and data has no lines that would mean anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coordinator.evolution.ideas import Standing

CODE = ".py"

MergeLines = Callable[[bytes, bytes, bytes], bytes | None]  # base, one, other -> both; None where they clash


def clash(base: bytes, one: bytes, other: bytes) -> None:
    """Merge nothing: where nobody can, whatever two changed clashes."""


def together(
    base: Mapping[str, bytes], items: Sequence[Standing], merge_lines: MergeLines
) -> tuple[list[Standing], dict[str, bytes]]:
    """Return those of `items` whose code does not clash with the code of any before it, and their code as one.

    Args:
        base: the incumbent's files.
    """
    kept: list[Standing] = []
    code: dict[str, bytes] = {}
    for item in items:
        mine = {name: data for name, data in item.files.items() if name.endswith(CODE)}
        twice = [name for name in mine if code.get(name, mine[name]) != mine[name]]
        merged = {name: merge_lines(base.get(name, b""), code[name], mine[name]) for name in twice}
        whole = {name: data for name, data in merged.items() if data is not None}
        if len(whole) == len(twice):
            kept.append(item)
            code = {**mine, **code, **whole}
    return kept, code
