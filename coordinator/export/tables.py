"""A run's database as files: every table and view as one Parquet or CSV file, and a page that says what is in them.

- Columns of bytes (a bundle's archive, a signature, a refused body) are left out; so is what SQLite keeps for itself.
- A column is int64, double or string by its declared type and by what is stored in it, because SQLite stores anything
  anywhere; a column of numbers and texts is text, so that nothing is lost. JSON stays text.
- CSV is RFC 4180 in UTF-8: CRLF, a header, every text that needs it in quotes; NULL is nothing, "" is empty text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

Format = Literal["parquet", "csv"]
Kind = Literal["int64", "double", "string"]
Progress = Callable[[int, int], None]  # done, of

BATCH = 20_000  # rows held at once; a row group of Parquet
PAGE = "schema.md"
# Declared types whose columns are numbers even where no row stands.
DECLARED: dict[str, Kind] = {"INTEGER": "int64", "INT": "int64", "REAL": "double", "NUM": "double"}
MUST_QUOTE = frozenset('",\r\n')


@dataclass(frozen=True)
class Column:
    """One column that is written."""

    name: str
    kind: Kind
    declared: str  # SQLite's type, empty for what a view computes

    @property
    def expression(self) -> str:
        """SQL that gives the column as its kind."""
        as_type = {"int64": "INTEGER", "double": "REAL", "string": "TEXT"}[self.kind]
        return f"CAST({quoted(self.name)} AS {as_type})"


@dataclass(frozen=True)
class Table:
    """One table or view."""

    name: str
    kind: str  # "table" or "view"
    columns: tuple[Column, ...]
    left_out: tuple[str, ...]  # columns of bytes
    rows: int
    sql: str  # the statement that made it, with its comments


def quoted(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def read_tables(database: sqlite3.Connection) -> list[Table]:
    """Return what there is to write, by name."""
    found = database.execute("PRAGMA table_list").fetchall()
    names = sorted(
        (name, kind)
        for schema, name, kind, *_ in found
        if schema == "main" and kind in ("table", "view") and not name.startswith("sqlite_")
    )
    return [_table(database, name, kind) for name, kind in names]


def _table(database: sqlite3.Connection, name: str, kind: str) -> Table:
    declared = [(row[1], str(row[2]).upper()) for row in database.execute(f"PRAGMA table_xinfo({quoted(name)})")]
    asked = ", ".join(f"group_concat(DISTINCT typeof({quoted(column)}))" for column, _ in declared)
    count, *stored = database.execute(f"SELECT COUNT(*), {asked} FROM {quoted(name)}").fetchone()
    columns, left_out = [], []
    for (column, of_type), kinds in zip(declared, stored, strict=True):
        here = set((kinds or "null").split(",")) - {"null"}
        # Of what a view computes newer SQLites say BLOB where they mean that it can be anything.
        if "blob" in here or (of_type == "BLOB" and kind == "table"):
            left_out.append(column)
        else:
            columns.append(Column(column, _kind(of_type, here), of_type))
    sql = database.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (name,)).fetchone()[0]
    return Table(name, kind, tuple(columns), tuple(left_out), count, sql)


def _kind(declared: str, stored: set[str]) -> Kind:
    if not stored:
        return DECLARED.get(declared, "string")
    if stored == {"integer"}:
        return "double" if declared == "REAL" else "int64"
    return "double" if stored <= {"integer", "real"} else "string"


def write_tables(
    database: sqlite3.Connection, tables: Sequence[Table], folder: Path, form: Format, progress: Progress
) -> None:
    """Write one file a table and the page beside them into an existing folder.

    Raises:
        OSError: the disk does not take them.
        sqlite3.Error: the database cannot be read.
    """
    total, done = sum(table.rows for table in tables), 0
    for table in tables:
        progress(done, total)
        write = _write_parquet if form == "parquet" else _write_csv
        with closing(_batches(database, table)) as batches:  # a failed write must not leave it to a closed database
            for rows in write(folder / f"{table.name}.{form}", table, batches):
                done += rows
                progress(done, total)
    (folder / PAGE).write_text(page(tables, form), encoding="utf-8")


def _batches(database: sqlite3.Connection, table: Table) -> Generator[list[tuple[Any, ...]], None, None]:
    names = ", ".join(column.expression for column in table.columns)
    with closing(database.execute(f"SELECT {names} FROM {quoted(table.name)}")) as cursor:
        while rows := cursor.fetchmany(BATCH):
            yield rows


def _write_parquet(path: Path, table: Table, batches: Iterable[list[tuple[Any, ...]]]) -> Iterator[int]:
    kinds = {"int64": pa.int64(), "double": pa.float64(), "string": pa.string()}
    schema = pa.schema([(column.name, kinds[column.kind]) for column in table.columns])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in batches:
            columns = [
                pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
            yield len(rows)


def _write_csv(path: Path, table: Table, batches: Iterable[list[tuple[Any, ...]]]) -> Iterator[int]:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(_line([column.name for column in table.columns]))
        for rows in batches:
            file.writelines(map(_line, rows))
            yield len(rows)


def _line(values: Iterable[object]) -> str:
    return ",".join(map(_field, values)) + "\r\n"


def _field(value: object) -> str:
    if value is None:
        return ""
    text = str(value)  # of a float the shortest that reads back as the same
    if isinstance(value, str) and (not text or not MUST_QUOTE.isdisjoint(text)):
        return '"' + text.replace('"', '""') + '"'
    return text


def page(tables: Sequence[Table], form: Format) -> str:
    """Return the page that says what the files hold."""
    parts = [
        "# The database of a run, table by table",
        "",
        "Times are unix seconds; other units end the names. Columns of JSON are text. Columns of bytes are left out.",
        "A trial is named by (edge, epoch, sequence), a policy by `bundle`, the sha256 of its archive.",
    ]
    for table in tables:
        parts += ["", f"## {table.name}", "", f"`{table.name}.{form}`, a {table.kind} of {table.rows} rows.", ""]
        parts += ["| column | type | in SQLite |", "|---|---|---|"]
        parts += [f"| {column.name} | {column.kind} | {column.declared or 'computed'} |" for column in table.columns]
        if table.left_out:
            parts += ["", f"Left out: {', '.join(table.left_out)}."]
        parts += ["", "```sql", table.sql, "```"]
    return "\n".join(parts) + "\n"
