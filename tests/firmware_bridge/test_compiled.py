"""A change in any source changes the key under which numba keeps what was compiled from it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from firmware_bridge import damiao, guard
from firmware_bridge.compiled import sources_of


def test_the_key_follows_the_text(tmp_path: Path) -> None:
    module, path = ModuleType("callee"), tmp_path / "callee.py"
    module.__file__ = str(path)
    path.write_text("LIMIT = 1\n")
    before = sources_of(damiao, module)
    path.write_text("LIMIT = 2\n")
    assert sources_of(damiao, module) != before


def test_the_key_stays_while_the_text_stays() -> None:
    assert sources_of(damiao, guard) == sources_of(damiao, guard)
