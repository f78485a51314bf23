"""Runs the benches and writes docs/figures.md: what was asked, what was measured, by which command.

Results are kept beside it in docs/figures.json, by bench. Whole campaigns take hours, so they are run on request only.
Usage: python bench/figures.py [BENCH ...]    without names all but the slow ones; e.g. control_step demo_seeds
       BENCH=FILE takes what that bench printed into FILE instead of running it, e.g. mru=runs/mru.log
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "figures.json"
PAGE = ROOT / "docs" / "figures.md"
SLOW = {"demo_seeds", "mru", "fleet_scaling", "fleet_scaling_pin_insertion"}
# Benches whose rows are another bench's with these options.
OPTIONS = {
    "fleet_scaling_pin_insertion": (
        "fleet_scaling", "--task", "pin_insertion", "--stations", "4", "--out", "runs/fleet_scaling_pin.jsonl",
    ),
}  # fmt: skip
NOT_A_BENCH = {"figures"}
OPENING = """\
# Figures

Written by `make figures`; each row by the command beside it, whose last line holds the same figures as JSON. Shared
machines are noisy: figures of time are medians.
"""


def main(names: list[str]) -> None:
    """Run the named benches, or all quick ones, and write the page."""
    found = {path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_A_BENCH
    known = sorted(found | OPTIONS.keys())
    asked = dict(name.partition("=")[::2] for name in names)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        sys.exit(f"no bench {', '.join(unknown)}; known: {', '.join(known)}")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, file in (asked or {name: "" for name in known if name not in SLOW}).items():
        print(f"{name} ...", file=sys.stderr)
        try:
            results[name] = _result(Path(file).read_text() if file else _run(name))
        except (OSError, ValueError, KeyError, IndexError) as error:
            sys.exit(f"{name}: no rows in the last line of {file or 'what it printed'}: {error}")
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(OPENING + "".join(_section(name, results[name]) for name in sorted(results)))
    print(PAGE.relative_to(ROOT))


def _run(name: str) -> str:
    """Run a bench and return what it printed."""
    script, *options = OPTIONS.get(name, (name,))
    command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), *options]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def _result(printed: str) -> dict[str, Any]:
    """Return the rows in a bench's last line, with the day and the machine."""
    rows = json.loads(printed.strip().splitlines()[-1])["rows"]
    machine = f"{os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}"
    return {"rows": rows, "machine": machine, "day": f"{date.today()}"}


def _section(name: str, result: Mapping[str, Any]) -> str:
    script, *options = OPTIONS.get(name, (name,))
    command = " ".join(["python", f"bench/{script}.py", *options])
    return "\n".join(["", f"## `{command}`", "", *_table(result), ""])


def _table(result: Mapping[str, Any]) -> Iterator[str]:
    yield "| what | measured | asked for | holds |"
    yield "| --- | --- | --- | --- |"
    for row in result["rows"]:
        holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
        yield f"| {row['what']} | {row['figure']} | {row['bound']} | {holds} |"
    yield ""
    yield f"{result['day']}, {result['machine']}."


if __name__ == "__main__":
    main(sys.argv[1:])
