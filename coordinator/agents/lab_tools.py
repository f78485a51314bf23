"""The tools by which a model by API looks into the lab: its records in SQL, and a dry run of its policy in a cage.

- What SQL may do is read the copy that was made for it: no other file can be attached, nothing is written, and a
  question that takes too long ends.
- The policy that is run dry is the model's own work, so it runs in bubblewrap; where there is none, the tool is not
  offered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.agents import watch
from coordinator.agents.cage import Caged, has_cage, launch
from coordinator.agents.lab_view import PLACE
from coordinator.agents.shelf import DRY_RUN, shows

MOST_ROWS, LONGEST = 200, 20_000  # characters of an answer
STEPS_A_LOOK, MOST_LOOKS = 100_000, 200  # of SQLite's own steps; a second or two
ALLOWED = frozenset({sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
DRY = watch.Watch(wall_s=240.0, silence_s=120.0, output_bytes=1 << 20, memory_bytes=2 << 30)
QUERY_TOOL: dict[str, Any] = {
    "name": "query",
    "description": "Ask the lab's records in SQL (SQLite): tables attempts, ideas and decisions. Read only.",
    "input_schema": {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]},
}
DRY_RUN_TOOL: dict[str, Any] = {
    "name": "dry_run",
    "description": "Run your policy on what earlier attempts saw. Finds what does not run; says nothing of success.",
    "input_schema": {"type": "object", "properties": {}},
}


@dataclass
class LabTools:
    """The tools of one conversation."""

    run: Path  # the campaign's folder
    policy: str
    folder: Path  # to work in; new and empty
    socket: Path  # of the conversation's proxy
    stop: Callable[[], str | None]
    shown: Mapping[str, Path] = field(init=False)

    def __post_init__(self) -> None:
        """Put what can be looked at into the folder."""
        self.folder.mkdir()
        self.shown = shows(self.run)(self.folder)

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools, as the vendor wants them described."""
        return [QUERY_TOOL, DRY_RUN_TOOL] if has_cage() else [QUERY_TOOL]

    def do(self, tool: str, words: Mapping[str, object], files: Mapping[str, bytes]) -> str | None:
        """Return what a tool says; None where it is not one of these."""
        if tool not in {offered["name"] for offered in self.offered}:
            return None
        text = query(self.shown[PLACE], str(words.get("sql", ""))) if tool == "query" else self._dry_run(files)
        return text if len(text) <= LONGEST else text[:LONGEST] + "\n[cut here]"

    def _dry_run(self, files: Mapping[str, bytes]) -> str:
        work = self.folder / "work"
        for name, data in files.items():
            path = (work / name).resolve()
            if path.is_relative_to(work.resolve()):  # what lies elsewhere is refused when it is handed in
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        lines: list[str] = []
        start = launch(Caged(work, self.socket, self.shown), [DRY_RUN, f"policies/{self.policy}"])
        ended = watch.run(start, DRY, lines.append, self.stop, lambda: 0.0)
        return "\n".join([*lines, ended.why or ended.last_words]).strip() or "it said nothing"


def query(view: Path, sql: str) -> str:
    """Return what a question finds in an agent's view, a line a row, or why it cannot be asked."""
    looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return int(looks > MOST_LOOKS)

    with closing(sqlite3.connect(f"{view.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        database.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY)
        database.set_progress_handler(look, STEPS_A_LOOK)
        try:
            found = database.execute(sql)
            rows = found.fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
            return f"Refused: {error}"
    if found.description is None:
        return "Refused: only SELECT is answered."
    lines = [" | ".join(column[0] for column in found.description)]
    lines += [" | ".join("" if value is None else str(value) for value in row) for row in rows[:MOST_ROWS]]
    return "\n".join([*lines, f"[more than {MOST_ROWS} rows]"] if len(rows) > MOST_ROWS else lines)
