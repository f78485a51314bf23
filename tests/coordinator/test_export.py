"""An export holds what the database holds, under its own name only once it is whole, whatever breaks in between."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.export.tables import read_tables
from coordinator.export.write import MARK, ExportError, Request, describe, export, whole_folder
from coordinator.ingest import Batch
from coordinator.store import FILE, Store
from edge.records import Outcome, Sealed, Trial, encode

NOW_S = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.FAILURE, cause="near", detail="2 mm off",
    progress=0.1 + 0.2, measures={"coverage": 0.9}, achieved_start={"x_m": 0.3}, reset_s=8.0, reset_tries=1,
    trial_s=12.0, policy_steps=360, wall_reset_s=0.5, wall_trial_s=0.7, started_unix_s=NOW_S - 1, ended_unix_s=NOW_S,
    station_hash="5" * 64, calibration_hash="6" * 64, software="s 1", recording="", recording_bytes=0,
)  # fmt: skip
TEXTS = [
    "",
    "plain",
    'with "quotes"',
    "a, b",
    "two\nlines",
    "two\r\nlines",
    "Öl – 日本 😀",
    " edges ",
    "=1+1",
    "\\N",
    "null",
]


def quiet(done: int, of: int) -> None:
    """Nobody watches."""


def keep(store: Store, *trials: Trial) -> None:
    sealed = []
    for body in map(encode, trials):
        link = hashlib.sha256(b"before" + body).digest()
        sealed.append(Sealed(body, link, KEY.sign(Sealed(body, link, b"").chain)))
    kept = store.ingest(Batch(KEY.public_key().public_bytes_raw().hex(), tuple(sealed)), NOW_S)
    assert {item.kept for item in kept} == {"new"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with trials of all texts, a bundle, a quarantined body, and nothing in most tables."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Store(folder / FILE) as store:
        keep(store, *[replace(TRIAL, sequence=number, detail=text) for number, text in enumerate(TEXTS, start=1)])
        keep(store, replace(TRIAL, sequence=50, outcome=Outcome.SUCCESS, cause="", progress=1.0, bundle="c" * 64))
        store.add_bundle({
            "bundle": "b" * 64, "parent": None, "task": "push_t", "policy": "push_t", "params": {"speed_m_s": 0.1},
            "manifest": {}, "archive": bytes(range(256)), "created_unix_s": NOW_S,
        })  # fmt: skip
        store.ingest(Batch("0" * 64, (Sealed(b"noise", bytes(32), bytes(64)),)), NOW_S)
        store.note("info", "no edge here", None, NOW_S)
    return folder


def columns(database: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table that can be written, as SQLite and not the export names them."""
    rows = database.execute(f"PRAGMA table_info({table})").fetchall()
    return [row[1] for row in rows if row[2] != "BLOB"]


def everything(run: Path) -> Iterator[tuple[str, list[str], list[tuple[object, ...]]]]:
    """Yield (table, columns, rows) of all that the database holds, but for bytes."""
    with closing(sqlite3.connect(run / FILE)) as database:
        made = database.execute("SELECT name, sql FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall()
        indexes = tuple(name for name, sql in made if sql and sql.startswith("CREATE VIRTUAL TABLE"))
        for table, _ in made:
            if not table.startswith(("sqlite_", *indexes)):
                wanted = columns(database, table)
                yield table, wanted, database.execute(f"SELECT {', '.join(wanted)} FROM {table}").fetchall()


def test_parquet_gives_back_every_row_of_every_table_and_view(run: Path, tmp_path: Path) -> None:
    told = export(Request(run, "parquet", tmp_path / "out"), quiet)
    seen = set()
    for table, names, rows in everything(run):
        read = pq.read_table(tmp_path / "out" / f"{table}.parquet")
        assert read.column_names == names
        assert list(zip(*read.to_pydict().values(), strict=True)) == rows
        assert told["tables"][table] == len(rows)
        seen.add(table)
    assert {"trials", "bundles", "quarantine", "success_by_policy", "station_utilisation"} <= seen
    assert set(told["tables"]) == seen
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.parquet" for name in seen} | {"schema.md"}
    file = pq.ParquetFile(tmp_path / "out" / "trials.parquet")
    types = {field.name: str(field.type) for field in file.schema_arrow}
    assert (types["sequence"], types["progress"], types["detail"]) == ("int64", "double", "string")
    assert "archive" not in pq.read_schema(tmp_path / "out" / "bundles.parquet").names
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_csv_gives_back_every_text_and_number_and_tells_nothing_from_empty(run: Path, tmp_path: Path) -> None:
    export(Request(run, "csv", tmp_path / "out"), quiet)
    for table, names, rows in everything(run):
        content = (tmp_path / "out" / f"{table}.csv").read_bytes()
        assert not content.startswith(b"\xef\xbb\xbf")
        read = list(csv.reader(content.decode("utf-8").splitlines(keepends=True), strict=True))
        assert read[0] == names
        assert read[1:] == [["" if value is None else str(value) for value in row] for row in rows]
    trials = (tmp_path / "out" / "trials.csv").read_bytes()
    assert trials.count(b"\r\n") == len(TEXTS) + 2 + 1  # rows, header, and the one inside a text
    assert b"0.30000000000000004" in trials  # a double as exactly as it is stored
    assert b',near,"",0.3' in trials
    assert b",,info," in (tmp_path / "out" / "events.csv").read_bytes()


def test_the_page_says_what_each_file_holds_and_lacks(run: Path, tmp_path: Path) -> None:
    export(Request(run, "csv", tmp_path / "out"), quiet)
    text = (tmp_path / "out" / "schema.md").read_text(encoding="utf-8")
    assert "| progress | double | REAL |" in text
    assert "-- sha256 of the archive, hex" in text  # the database's own comments
    assert "Left out: archive." in text
    assert f"`trials.csv`, a table of {len(TEXTS) + 1} rows." in text


@pytest.mark.parametrize(
    ("declared", "values", "kind"),
    [
        ("INTEGER", [1, None, 2**63 - 1], "int64"),
        ("INTEGER", [1, 2.5], "double"),
        ("INTEGER", [1, "one"], "string"),
        ("INTEGER", [], "int64"),
        ("REAL", [1.5, None], "double"),
        ("REAL", [], "double"),
        ("TEXT", ["1", "x"], "string"),
        ("TEXT", [None], "string"),
        ("", [7], "int64"),
        ("", [7.0, 8], "double"),
    ],
)  # fmt: skip
def test_a_column_is_typed_by_what_stands_in_it(tmp_path: Path, declared: str, values: list[object], kind: str) -> None:
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        database.execute(f'CREATE TABLE "odd name" ("a ""b""" {declared}, other BLOB)')
        database.executemany("INSERT INTO \"odd name\" VALUES (?, x'00')", [(value,) for value in values])
        database.commit()
        [table] = read_tables(database)
    assert [(column.name, column.kind) for column in table.columns] == [('a "b"', kind)]
    export(Request(tmp_path, "parquet", tmp_path / "out"), quiet)
    [column] = pq.read_table(tmp_path / "out" / "odd name.parquet").columns
    assert column.to_pylist() == [str(v) if kind == "string" and v is not None else v for v in values]


def test_a_search_index_is_not_exported_beside_what_it_indexes(run: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(run / FILE)) as database:
        database.execute("CREATE VIRTUAL TABLE found_fts USING fts5(text)")
        database.execute("INSERT INTO found_fts VALUES ('the T was pushed')")
        database.commit()
    told = export(Request(run, "csv", tmp_path / "out"), quiet)
    assert not any("fts" in name for name in told["tables"])


def test_a_run_that_goes_on_is_exported_as_it_was_at_one_moment(run: Path, tmp_path: Path) -> None:
    with Store(run / FILE) as store:

        def write_more(done: int, of: int) -> None:
            if done == 0:
                store.note("info", "meanwhile", None, NOW_S)

        told = export(Request(run, "csv", tmp_path / "out"), write_more)
    assert told["tables"]["events"] == 1
    assert b"meanwhile" not in (tmp_path / "out" / "events.csv").read_bytes()


def test_a_dry_run_counts_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    told = export(Request(run, "parquet", tmp_path / "out"), quiet, dry_run=True)
    assert (told["tables"]["trials"], told["dry_run"]) == (len(TEXTS) + 1, True)
    assert export(Request(run, "lerobot", tmp_path / "out"), quiet, dry_run=True)["recordings"] == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"form": "xlsx"}, "--format xlsx is not known; known: parquet, csv, lerobot"),
        ({"outcome": "won"}, "--outcome won is not known"),
        ({"form": "lerobot", "policy": "xyz"}, "first hex digits"),
        ({"form": "lerobot", "policy": "d0"}, "no trial of a policy d0"),
        ({"form": "csv", "outcome": "success"}, "csv holds every trial"),
        ({"form": "csv", "video": False}, "csv holds every trial"),
        ({"form": "lerobot", "outcome": "invalid"}, "no trial fits"),
        ({"form": "lerobot"}, "no episode can be made of 12 trials; station-1/e1/1: it has no recording"),
        ({"run": Path("/nowhere")}, "/nowhere holds no coordinator.db; give the folder of a run"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    run: Path, tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(Exception, match=r"^[^\n]*$") as caught:
        export(replace(Request(run, "parquet", tmp_path / "out"), **changes), quiet)  # type: ignore[arg-type]
    assert named in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_prefix_of_two_policies_is_not_guessed_at(run: Path, tmp_path: Path) -> None:
    with Store(run / FILE) as store:
        keep(store, replace(TRIAL, sequence=60, bundle="c0" + "d" * 62))
    with pytest.raises(ExportError, match="2 policies begin with c; give more digits"):
        export(Request(run, "lerobot", tmp_path / "out", policy="c"), quiet)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be one" * 30])
def test_a_file_that_is_no_database_of_a_run_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ExportError, match="database of a run"):
        export(Request(tmp_path, "csv", tmp_path / "out"), quiet)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_is_there_already_is_never_written_over(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ExportError, match="is there already; delete it or give another --out"):
        export(Request(run, "csv", out), quiet)
    out.rmdir()
    out.symlink_to("nowhere")
    with pytest.raises(ExportError, match="is there already"):
        export(Request(run, "csv", out), quiet)


def test_a_stranger_s_folder_is_not_taken_for_the_rest_of_an_export(run: Path, tmp_path: Path) -> None:
    part = tmp_path / "out.part"
    part.mkdir()
    (part / "thesis.md").write_text("years of work")
    with pytest.raises(ExportError, match="holds something else; move it away"):
        export(Request(run, "csv", tmp_path / "out"), quiet)
    assert (part / "thesis.md").read_text() == "years of work"


def test_of_two_exports_to_one_place_the_second_is_sent_away(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with whole_folder(out) as part:
        (part / "here.csv").write_text("the first one's")
        with pytest.raises(ExportError, match="another export is writing"):
            export(Request(run, "csv", out), quiet)
    assert [path.name for path in out.iterdir()] == ["here.csv"]
    assert not part.exists()


def test_a_folder_that_comes_to_stand_there_meanwhile_stays_as_it_is(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def take_the_name(done: int, of: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "other").touch()

    with pytest.raises(ExportError, match="cannot write"):
        export(Request(run, "csv", out), take_the_name)
    assert [path.name for path in out.iterdir()] == ["other"]
    assert not out.with_name("out.part").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_export_leaves_nothing(run: Path, tmp_path: Path, error: BaseException) -> None:
    def interrupt(done: int, of: int) -> None:
        if done:
            raise error

    with pytest.raises(type(error)):
        export(Request(run, "parquet", tmp_path / "out"), interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def in_a_process(run: Path, out: Path, form: str, before: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import os, resource, signal, sys
from pathlib import Path
from coordinator.export.write import Request, export
def progress(done, of):
    {before}
try:
    export(Request(Path({str(run)!r}), {form!r}, Path({str(out)!r})), progress)
except Exception as error:
    sys.exit(f"{{type(error).__name__}}: {{error}}")
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_killed_export_has_no_name_and_the_next_one_clears_it_away(run: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "out", tmp_path / "out.part"
    done = in_a_process(run, out, "csv", "done and os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert (part / MARK).exists()
    (part / "left").mkdir()
    export(Request(run, "csv", out), quiet)
    assert not part.exists()
    assert not (out / "left").exists()
    assert not (out / MARK).exists()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_disk_that_takes_no_more_is_said_in_one_line_and_nothing_stays(run: Path, tmp_path: Path, form: str) -> None:
    # A limit on the size of files refuses a write as a full disk does.
    full = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    done = in_a_process(run, tmp_path / "out", form, full)
    assert done.returncode == 1
    assert done.stderr.startswith(f"ExportError: cannot write {tmp_path}/out: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["run"]


def test_a_person_reads_how_much_was_written_and_where(run: Path, tmp_path: Path) -> None:
    told = export(Request(run, "csv", tmp_path / "out"), quiet)
    [line] = describe(told)
    assert line.startswith(f"{tmp_path}/out: {len(told['tables'])} tables of {sum(told['tables'].values())} rows, ")
    [line] = describe(export(Request(run, "lerobot", tmp_path / "other"), quiet, dry_run=True))
    assert line == f"would write {tmp_path}/other: up to 0 episodes of 0 frames out of {len(TEXTS) + 1} trials"
    left_out = {f"station-1/e1/{number}": "it has no recording" for number in range(13)}
    lines = describe({"out": "x", "episodes": 1, "frames": 2, "bytes": 3, "left_out": left_out})
    assert lines[1] == "left out station-1/e1/0: it has no recording"
    assert lines[-1] == "left out 3 more; x/meta/left_out.json names them all"
    assert len(lines) == 12
