"""How much memory a station's processes use together, shared pages counted once."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
GROUP_FIELD = 2  # of what follows the command's name in /proc/<pid>/stat: state, parent, group


def group_memory_mb(group: int) -> float:
    """Return the proportional set size of every process of a process group, in megabytes.

    A process that ends while it is looked at, or that belongs to another user, counts nothing.
    """
    total_kb = 0
    for folder in PROC.iterdir():
        if folder.name.isdigit() and _group_of(folder) == group:
            total_kb += _pss_kb(folder)
    return total_kb * 1024 / 1e6


def own_group_memory_mb() -> float:
    """Return the memory of this process's group and, as its supervisor stays outside, of its parent."""
    return group_memory_mb(os.getpgrp()) + _pss_kb(PROC / str(os.getppid())) * 1024 / 1e6


def _group_of(folder: Path) -> int:
    try:
        after_name = (folder / "stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return -1
    fields = after_name.split()
    return int(fields[GROUP_FIELD]) if len(fields) > GROUP_FIELD else -1


def _pss_kb(folder: Path) -> int:
    try:
        lines = (folder / "smaps_rollup").read_bytes().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(b"Pss:")), 0)
