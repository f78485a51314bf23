"""Checks the tests of what must never fail: every line and branch of it runs in them, and changed code fails them.

Usage: python tests/mutation.py CONFIG    for example tests/guard_mutation.toml

- Everything happens on copies in a temporary folder, one a worker; the working tree is only read.
- The tests run without numba's compiler, so that a mutant costs no compilation and coverage sees the code.
- Left out is what says nothing about the tests: some operators (`LEFT_OUT`), and annotations, which nothing evaluates.
- What survives is printed; too much of it, or a line that no test runs, ends in exit status 1.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

HOME = Path(__file__).parents[1]
SESSION = "mutants.sqlite"
WORKERS = 2
LEFT_OUT = re.compile(
    "core/RemoveDecorator"  # numba's decorators do nothing without the compiler, without a dataclass's nothing works
    "|.*_(BitAnd|BitOr|BitXor|LShift|RShift)"  # no float has these and no sum survives them: they flatter the score
    "|.*_(Is|IsNot)"  # whether equal values are the same object is up to the interpreter
)


@dataclass(frozen=True)
class Gate:
    """What a configuration asks for."""

    config: str
    what: str
    copied: tuple[str, ...]  # files and folders that the tests need
    covered: tuple[str, ...]  # files all of whose lines and branches the tests must run
    tests: tuple[str, ...]
    score: float  # share of the mutants that must fail the tests


def load(config: str) -> Gate:
    """Return the gate in the table of that name in a configuration of cosmic-ray, given from the top of the tree."""
    raw = tomllib.loads((HOME / config).read_text())["gate"]
    lists = {name: tuple(raw[name]) for name in ("copied", "covered", "tests")}
    return Gate(config, raw["what"], score=raw["score"], **lists)


def main(config: str) -> int:
    """Return the exit status."""
    gate = load(config)
    with tempfile.TemporaryDirectory() as scratch:
        copies = [_copy(Path(scratch) / f"worker-{worker}", gate) for worker in range(WORKERS)]
        if not _is_covered(copies[0], gate):
            return 1
        _call(copies[0], "cosmic_ray.cli", "init", config, SESSION).check_returncode()
        for copy in copies[1:]:  # one list for all: made anew, it would come in another order
            shutil.copy(copies[0] / SESSION, copy)
        for worker, copy in enumerate(copies):
            _leave_to_others(copy, worker)
        running = [_start(copy, "cosmic_ray.cli", "exec", config, SESSION) for copy in copies]
        statuses = [process.wait() for process in running]
        if any(statuses):
            return 1
        return _judge([result for copy in copies for result in _results(copy)], gate)


def _copy(folder: Path, gate: Gate) -> Path:
    """Copy what the tests need into a new folder, without compiled files."""
    for name in (gate.config, "pyproject.toml", "tests/conftest.py", *gate.copied, *gate.tests):
        source, target = HOME / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def _is_covered(copy: Path, gate: Gate) -> bool:
    """Run the tests as they are; return whether they pass and run every line and branch."""
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *gate.tests)
    passed = _call(copy, "coverage", "run", "--branch", f"--include={','.join(gate.covered)}", *tests).returncode == 0
    return _call(copy, "coverage", "report", "--show-missing", "--fail-under=100").returncode == 0 and passed


def _start(copy: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    # The copy must come before the installed tree, and a mutant of the same size and second before its cached bytecode.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"PATH": path, "PYTHONPATH": str(copy), "NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    settings["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=copy, env=os.environ | settings)


def _call(copy: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    process = _start(copy, module, *arguments)
    return subprocess.CompletedProcess(process.args, process.wait())


def _leave_to_others(copy: Path, worker: int) -> None:
    """Mark as skipped what this worker has not to run: all have the same list of mutants, in the same order."""
    with use_db(copy / SESSION, WorkDB.Mode.open) as session:
        items = list(session.work_items)
        annotations = {
            path: list(_annotations(copy / path)) for path in {item.mutations[0].module_path for item in items}
        }
        for number, item in enumerate(items):
            mutation = item.mutations[0]
            says_nothing = LEFT_OUT.fullmatch(mutation.operator_name) or _is_inside(
                mutation, annotations[mutation.module_path]
            )
            if number % WORKERS != worker or says_nothing:
                session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _annotations(path: Path) -> Iterator[ast.expr]:
    """Yield the annotations in a module that postpones them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if found is not None:
                yield found


def _is_inside(mutation: MutationSpec, places: list[ast.expr]) -> bool:
    at = mutation.start_pos
    return any((e.lineno, e.col_offset) <= at < (e.end_lineno, e.end_col_offset) for e in places)


def _results(copy: Path) -> list[tuple[WorkItem, WorkResult]]:
    with use_db(copy / SESSION, WorkDB.Mode.open) as session:
        done = [(item, result) for item, result in session.completed_work_items]
    return [(item, result) for item, result in done if result.worker_outcome != WorkerOutcome.SKIPPED]


def _judge(results: list[tuple[WorkItem, WorkResult]], gate: Gate) -> int:
    """Print what survived and the score; return the exit status."""
    survivors = [(item, result) for item, result in results if result.test_outcome == TestOutcome.SURVIVED]
    for item, result in survivors:
        changed = [
            line for line in (result.diff or "").splitlines() if line[:1] in "-+" and line[:3] not in ("---", "+++")
        ]
        mutation = item.mutations[0]
        print(
            f"survived: {mutation.operator_name} in {mutation.module_path}:{mutation.start_pos[0]}",
            *changed,
            sep="\n  ",
        )
    score = 1.0 - len(survivors) / len(results)
    said = f"{len(results)} mutants of {gate.what}, {len(survivors)} survived"
    print(f"{said}: score {score:.1%}, wanted {gate.score:.0%}")
    return 0 if score >= gate.score else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
