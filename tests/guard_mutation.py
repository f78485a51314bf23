"""Checks the tests of the guard: every line and branch of it runs in them, and a changed guard fails them.

- Everything happens on copies in a temporary folder, one a worker; the working tree is only read.
- The tests run without numba's compiler, so that a mutant costs no compilation and coverage sees the code.
- Left out is what says nothing about the tests (`LEFT_OUT`).
- What survives is printed; too much of it, or a line that no test runs, ends in exit status 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

HOME = Path(__file__).parents[1]
FILES = (
    "pyproject.toml",
    "firmware_bridge",
    "tests/conftest.py",
    "tests/guard_mutation.toml",
    "tests/firmware_bridge/test_guard.py",
    "tests/firmware_bridge/test_body.py",
)
COVERED = "firmware_bridge/guard.py,firmware_bridge/body.py"
TESTS = ("tests/firmware_bridge/test_guard.py", "tests/firmware_bridge/test_body.py")
CONFIG, SESSION = "tests/guard_mutation.toml", "mutants.sqlite"
WORKERS = 2
SCORE = 0.95
LEFT_OUT = re.compile(
    "core/RemoveDecorator"  # numba's decorators do nothing without the compiler, without a dataclass's nothing works
    "|.*_(BitAnd|BitOr|BitXor|LShift|RShift)"  # floats have none of these: they would only flatter the score
    "|.*_(Is|IsNot)"  # whether equal numbers are the same object is up to the interpreter
)


def main() -> int:
    """Return the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        copies = [_copy(Path(scratch) / f"worker-{worker}") for worker in range(WORKERS)]
        if not _is_covered(copies[0]):
            return 1
        for worker, copy in enumerate(copies):
            _call(copy, "cosmic_ray.cli", "init", CONFIG, SESSION).check_returncode()
            _leave_to_others(copy, worker)
        running = [_start(copy, "cosmic_ray.cli", "exec", CONFIG, SESSION) for copy in copies]
        statuses = [process.wait() for process in running]
        if any(statuses):
            return 1
        return _judge([result for copy in copies for result in _results(copy)])


def _copy(folder: Path) -> Path:
    """Copy what the tests need into a new folder, without compiled files."""
    for name in FILES:
        source, target = HOME / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


def _is_covered(copy: Path) -> bool:
    """Run the tests as they are; return whether they pass and run every line and branch."""
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS)
    passed = _call(copy, "coverage", "run", "--branch", f"--include={COVERED}", *tests).returncode == 0
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
    """Mark as skipped what this worker has not to run: every worker lists the same mutants in the same order."""
    with use_db(copy / SESSION, WorkDB.Mode.open) as session:
        for number, item in enumerate(list(session.work_items)):
            if number % WORKERS != worker or LEFT_OUT.fullmatch(item.mutations[0].operator_name):
                session.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _results(copy: Path) -> list[tuple[WorkItem, WorkResult]]:
    with use_db(copy / SESSION, WorkDB.Mode.open) as session:
        done = [(item, result) for item, result in session.completed_work_items]
    return [(item, result) for item, result in done if result.worker_outcome != WorkerOutcome.SKIPPED]


def _judge(results: list[tuple[WorkItem, WorkResult]]) -> int:
    """Print what survived and the score; return the exit status."""
    survivors = [(item, result) for item, result in results if result.test_outcome == TestOutcome.SURVIVED]
    for item, result in survivors:
        changed = [
            line for line in (result.diff or "").splitlines() if line[:1] in "-+" and line[:3] not in ("---", "+++")
        ]
        print(
            f"survived: {item.mutations[0].operator_name} in line {item.mutations[0].start_pos[0]}",
            *changed,
            sep="\n  ",
        )
    score = 1.0 - len(survivors) / len(results)
    print(f"{len(results)} mutants of the guard, {len(survivors)} survived: score {score:.1%}, wanted {SCORE:.0%}")
    return 0 if score >= SCORE else 1


if __name__ == "__main__":
    sys.exit(main())
