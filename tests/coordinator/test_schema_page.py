"""The schema page says of every table, view and column what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.schema_page import Column, SchemaError, comments_in, page, read_schema
from coordinator.store import FILE, Store


@pytest.mark.parametrize(
    ("sql", "about", "comments"),
    [
        ("CREATE TABLE t (a TEXT)", "", {}),
        ("CREATE TABLE t ( -- it\n a TEXT, -- the a\n b TEXT -- the b\n)", "it", {"a": "the a", "b": "the b"}),
        ("CREATE TABLE t (\n a TEXT, b TEXT, -- both\n c TEXT\n)", "", {"a": "both", "b": "both"}),
        ("CREATE TABLE t (\n a TEXT, -- begins\n -- and goes on\n b TEXT\n)", "", {"a": "begins and goes on"}),
        ("CREATE TABLE t (a TEXT\n, b TEXT /* the b */, c TEXT)", "", {"b": "the b"}),
        ("CREATE TABLE t (\n a TEXT DEFAULT '-- no, (', -- yes\n CHECK (a != 'b') -- so\n)", "", {"a": "yes so"}),
        ('CREATE TABLE t (\n "a" TEXT, -- quoted\n [b] TEXT -- too\n)', "", {"a": "quoted", "b": "too"}),
        ("CREATE TABLE t (\n a TEXT REFERENCES b (c), -- the a\n PRIMARY KEY (a, b)\n)", "", {"a": "the a"}),
        ("CREATE VIEW v ( -- it\n a -- one\n) AS SELECT c AS a, -- inside\n d AS b FROM t", "it", {"a": "one"}),
        ("CREATE VIEW v /* it */ AS SELECT COUNT(*) AS a, -- inside\n b FROM t", "it", {}),
        ("CREATE VIRTUAL TABLE t -- the index\nUSING fts5(a, b UNINDEXED, content = 'c')", "the index", {}),
    ],
)  # fmt: skip
def test_comments_are_read_out_of_statements(sql: str, about: str, comments: dict[str, str]) -> None:
    found_about, found = comments_in(sql, ["a", "b", "c"])
    assert found_about == about
    assert {name: text for name, text in found.items() if text} == comments


def test_every_table_view_and_column_says_what_it_means(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    parts = read_schema(tmp_path / FILE)
    silent = [part.name for part in parts if not part.comment]
    silent += [f"{part.name}.{column.name}" for part in parts for column in part.columns if not column.comment]
    assert silent == [], "comment it in its CREATE statement, or in the table schema_comments"


def test_the_page_has_a_section_for_each_part_and_a_row_for_each_column(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    parts = {part.name: part for part in read_schema(tmp_path / FILE)}
    text = page(parts.values())
    for part in parts.values():
        section = text.partition(f"\n## {part.name} ({part.kind})\n")[2].partition("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
        assert [row.split(" | ")[0] for row in rows] == [f"| {column.name}" for column in part.columns]
    assert parts["search"].kind == "full-text index"
    assert not any(name.startswith(("search_", "sqlite_")) for name in parts)
    assert parts["token_use"].columns[4] == Column(
        "hypothesis_id", "INTEGER", "hypotheses", "what came of the call; NULL where nothing did"
    )


def test_what_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"holds no .*; give the folder of a run"):
        read_schema(tmp_path / FILE)
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(SchemaError, match="cannot be read"):
        read_schema(tmp_path / FILE)
