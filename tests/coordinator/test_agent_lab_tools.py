"""A model by API asks the lab's records and nothing else on the disk, and runs its policy dry in a cage."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.agents import cage
from coordinator.agents.lab_tools import MOST_ROWS, LabTools, query
from coordinator.agents.lab_view import PLACE
from tests.harness.agent_lane import BESIDE, FILES
from tests.harness.attempts_world import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def tools(run: Path, tmp_path: Path) -> LabTools:
    socket = tmp_path / "m.sock"
    socket.touch()
    return LabTools(run, "push_t", tmp_path / "lab", socket, lambda: None)


@pytest.fixture
def view(tools: LabTools) -> Path:
    return tools.shown[PLACE]


def test_rows_come_a_line_each(view: Path) -> None:
    found = query(view, "SELECT start_id, outcome FROM attempts WHERE cause = 'near' ORDER BY start_id").splitlines()
    assert found == ["start_id | outcome", "dev-0001 | failure", "dev-0002 | failure"]
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) SELECT i FROM n"
    assert len(query(view, many).splitlines()) == MOST_ROWS + 2


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{records}' AS lab",
        "DELETE FROM attempts",
        "CREATE TABLE x (y)",
        "DROP TABLE attempts",
        "PRAGMA writable_schema = 1",
        "VACUUM INTO '{records}.copy'",
        "SELECT load_extension('x')",
        "SELECT readfile('{records}')",
        "SELECT 1; SELECT 2",
        "SELECT * FROM trials",
        "not SQL",
        "",
        "SELECT '\x00'",
    ],
)
def test_what_is_no_question_to_the_view_is_refused(run: Path, view: Path, sql: str) -> None:
    before = view.read_bytes()
    assert query(view, sql.format(records=run / "coordinator.db")).startswith("Refused: ")
    assert view.read_bytes() == before
    assert not (run / "coordinator.db.copy").exists()


def test_a_question_without_an_end_ends(view: Path) -> None:
    began_s = time.monotonic()
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
    assert query(view, endless) == "Refused: interrupted"
    assert time.monotonic() - began_s < 60
    with closing(sqlite3.connect(view)) as database:
        assert database.execute("SELECT COUNT(*) FROM attempts").fetchone()[0] > 0


def test_a_policy_is_run_dry_and_an_error_is_told(tools: LabTools) -> None:
    if not cage.has_cage():
        pytest.skip("bubblewrap or prlimit is not installed here")
    skills = Path(__file__).parents[2] / "policies/skills"
    files = {f"policies/skills/{path.name}": path.read_bytes() for path in skills.glob("*.py")} | {
        **BESIDE,
        "policies/__init__.py": b"",
        **{f"policies/push_t/{name}": data for name, data in FILES.items()},
    }
    fine = tools.do("dry_run", {}, files)
    assert fine is not None
    assert "dev-0002: failure, near" in fine
    assert "it failed" not in fine
    spoilt = {**files, "policies/push_t/policy.py": b"def run(robot, params):\n    return undefined\n", "../x.py": b""}
    said = tools.do("dry_run", {}, spoilt)
    assert said is not None
    assert "NameError: name 'undefined' is not defined" in said
    assert not (tools.folder / "x.py").exists()
    outside = b"import os\n\n\ndef run(robot, params):\n    print(os.listdir('/work'), os.environ.get('HOME'))\n"
    said = tools.do("dry_run", {}, {**files, "policies/push_t/policy.py": outside})
    assert said is not None
    assert "FileNotFoundError" in said


def test_another_tool_is_none_of_these(tools: LabTools) -> None:
    assert tools.do("read_file", {}, {}) is None
