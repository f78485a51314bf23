"""The list of what the coordinator may not see of the edge names everything there but the records and the wire."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_part_of_the_edge_is_missing_from_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [listed] = [item["forbidden_modules"] for item in contracts if item.get("source_modules") == ["coordinator"]]
    there = {path.stem for path in (ROOT / "edge").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(listed) == sorted(f"edge.{name}" for name in there - {"__init__", "records", "wire"})
