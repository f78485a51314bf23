"""Prints what a database holds: its tables, views and columns, each with a comment.

SQLite keeps the text of every CREATE statement, comments included. What has none there may have one in the table
`schema_comments`. In a statement

- `-- a comment` is about all columns that begin on its line; on a line of its own it goes on from the line before;
- `/* a comment */` is about the column before it, which is how ALTER TABLE can carry one;
- before the first column either is about the table or view itself.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import CoordinatorError

TOKEN = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\[[^\]]*\]|`[^`]*`|\w+|\S", re.DOTALL)
KINDS = {"table": "table", "view": "view", "virtual": "full-text index"}
# Shadow tables are the inside of a full-text index; those named sqlite_ are SQLite's own.
PARTS = """
SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type != 'shadow' AND SUBSTR(name, 1, 7) != 'sqlite_'
"""


class SchemaError(CoordinatorError):
    """There is no database, or none that can be read."""


@dataclass(frozen=True)
class Column:
    """One column of a table or view."""

    name: str
    kind: str  # INTEGER, REAL, TEXT, BLOB; empty where SQLite declares none
    refers_to: str  # the table that its values are keys of, or empty
    comment: str


@dataclass(frozen=True)
class Part:
    """A table, a view or a full-text index."""

    name: str
    kind: str
    comment: str
    columns: tuple[Column, ...]


def read_schema(database: Path) -> tuple[Part, ...]:
    """Return the parts of a database: tables, then views, each by name.

    Raises:
        SchemaError: no such file, or not a database.
    """
    if not database.is_file():
        raise SchemaError(f"{database.parent} holds no {database.name}; give the folder of a run, such as runs/<id>")
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
            found = sorted(db.execute(PARTS).fetchall(), key=lambda row: (row[1] == "view", row[0]))
            return tuple(_part(db, name, KINDS[kind]) for name, kind in found)
    except sqlite3.Error as error:
        raise SchemaError(f"{database} cannot be read: {error}") from error


def page(parts: Iterable[Part]) -> str:
    """Return the parts as one page of markdown."""
    lines = ["# What the coordinator's database holds", *(line for part in parts for line in _section(part))]
    return "\n".join(lines) + "\n"


def _section(part: Part) -> Iterator[str]:
    yield from ("", f"## {part.name} ({part.kind})", "")
    if part.comment:
        yield from (part.comment, "")
    yield "| column | type | meaning |"
    yield "| --- | --- | --- |"
    for column in part.columns:
        reference = f"→ {column.refers_to}" if column.refers_to else ""
        cells = (column.name, " ".join(filter(None, (column.kind, reference))), column.comment)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _part(db: sqlite3.Connection, name: str, kind: str) -> Part:
    [sql] = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    rows = db.execute("SELECT name, type FROM pragma_table_info(?)", (name,)).fetchall()
    references = dict(db.execute('SELECT "from", "table" FROM pragma_foreign_key_list(?)', (name,)).fetchall())
    about, inside = comments_in(sql, [row[0] for row in rows])
    beside = _comments_beside(db, name)
    columns = (
        Column(column, of, references.get(column, ""), inside[column] or beside.get(column, "")) for column, of in rows
    )
    return Part(name, kind, about or beside.get("", ""), tuple(columns))


def _comments_beside(db: sqlite3.Connection, part: str) -> Mapping[str, str]:
    """Return the comments on a part that the database keeps as rows, by column; one of an older format keeps none."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_comments'").fetchone():
        return {}
    return dict(db.execute("SELECT name, comment FROM schema_comments WHERE part = ?", (part,)).fetchall())


def comments_in(sql: str, columns: Sequence[str]) -> tuple[str, Mapping[str, str]]:
    """Return the comment on a table or view, and those on its columns, out of its CREATE statement."""
    about: list[str] = []
    found: dict[str, list[str]] = {name: [] for name in columns}
    begun: list[str] = []  # the columns of the newest line that has any
    begun_at, depth, item_begins = -1, 0, False
    for match in TOKEN.finditer(sql):
        token, line = match[0], sql.count("\n", 0, match.start())
        if (text := _comment(token)) is not None:
            for texts in [found[name] for name in (begun if token[0] == "-" else begun[-1:])] or [about]:
                texts.append(text)
        elif depth == 0 and token.upper() == "AS":
            break  # the query of a view, whose comments are about something else
        elif token in "()":
            depth += 1 if token == "(" else -1
            item_begins = token == "(" and depth == 1
        elif token == ",":
            item_begins = depth == 1
        elif item_begins:
            item_begins = False
            if (name := token.strip('"`[]')) in found:
                begun = [*begun, name] if line == begun_at else [name]
                begun_at = line
    return " ".join(about), {name: " ".join(texts) for name, texts in found.items()}


def _comment(token: str) -> str | None:
    """Return the words of a comment, or None where the token is none."""
    if token.startswith("--"):
        return token[2:].strip()
    return token[2:-2].strip() if token.startswith("/*") else None
