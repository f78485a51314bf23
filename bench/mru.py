"""How much of their wall time a fleet's robots are in use (MRU), with one station killed on the way.

- A real coordinator and its emulated stations, paced at real time, run as processes; one station's session is killed by
  SIGKILL, and the fleet starts it again.
- The window begins when the last station has begun its first trial, and lasts `--minutes`; a while of grace follows, so
  that what began in the window can end and be used. Bringing the fleet up is told apart.
- In use is a reset, a policy's run or a verdict. What the kill cut short counts as lost; useful is what entered a
  decision, a baseline or a measurement. The paper reports 49 / 31 / 30 % for 1 / 4 / 8 robots.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from coordinator.report.measures import PAPER_MRU

EXAMPLES = """examples:
  python bench/mru.py
  python bench/mru.py --edges 4 --minutes 3 --seed 7
  python bench/mru.py --edges 2 --minutes 1 --kill-at -1     nobody is killed
"""
LEAST_ANY, LEAST_USEFUL = 0.95, 0.80
BRING_UP_S = 300.0  # compiling takes one minute on two slow cores, and at real time the first trial another
HANDOVER_S = 1.0  # a longer time between two trials is one without work
BUDGET_MINUTES = 1000.0  # the bench ends the run
UNREACHABLE = ("--target", "200", "--heldout", "200")
TRIALS = """
SELECT edge, outcome, cause, used, reset_s, trial_s, wall_reset_s, wall_trial_s, started_unix_s, ended_unix_s
FROM trials ORDER BY edge, started_unix_s
"""


class BenchFailed(Exception):
    """What is to be measured did not happen; the message says what did."""


@dataclass(frozen=True)
class Row:
    """One trial's times."""

    edge: str
    outcome: str
    cause: str
    used: bool
    reset_s: float
    trial_s: float
    wall_reset_s: float
    wall_trial_s: float
    started_unix_s: float
    ended_unix_s: float


@dataclass
class Spent:
    """Seconds of one station's window."""

    in_use: float = 0.0
    useful: float = 0.0
    bookkeeping: float = 0.0  # opening a trial and sealing its recording, beside the robot's work
    handover: float = 0.0  # from a trial's end to the next one's beginning
    waiting: float = 0.0  # the same where it took longer than HANDOVER_S: there was no work
    cut_short: float = 0.0  # the part of a trial that a kill made worthless
    restart: float = 0.0  # from the kill until the station was back and had begun a trial
    stopped: float = 0.0  # after the window's last trial, for the bench had ended the run


@dataclass(frozen=True)
class Window:
    """The time that is measured; the kill in it, 0 where there was none."""

    begins_s: float
    ends_s: float
    killed: str = ""
    killed_s: float = 0.0

    def overlap(self, begins_s: float, ends_s: float) -> float:
        """Return how many seconds of a stretch lie in the window."""
        return max(0.0, min(ends_s, self.ends_s) - max(begins_s, self.begins_s))


def account(rows: Sequence[Row], window: Window, killed: bool) -> Spent:
    """Return what one station's window went into; the parts add up to the window.

    Args:
        rows: the station's trials in the order in which they began.
        killed: whether this is the station that was killed.
    """
    spent = Spent()
    last_s = window.begins_s
    for row in rows:
        _between(spent, window, last_s, row.started_unix_s, killed)
        if row.cause == "crash":
            # One that ended by itself is worthless until it was sealed, for nobody knows when its process ended.
            by_kill = killed and row.started_unix_s <= window.killed_s <= row.ended_unix_s
            at_s = window.killed_s if by_kill else row.ended_unix_s
            spent.cut_short += window.overlap(row.started_unix_s, at_s)
            spent.restart += window.overlap(at_s, row.ended_unix_s)
        else:
            _trial(spent, window, row)
        last_s = max(last_s, row.ended_unix_s)
    spent.stopped += window.overlap(last_s, window.ends_s)
    return spent


def _between(spent: Spent, window: Window, from_s: float, to_s: float, killed: bool) -> None:
    took_s = window.overlap(from_s, to_s)
    restarting = killed and window.killed_s and to_s > window.killed_s and from_s < window.killed_s + BRING_UP_S
    if restarting and to_s - from_s > HANDOVER_S:
        spent.restart += took_s
    elif to_s - from_s > HANDOVER_S:
        spent.waiting += took_s
    else:
        spent.handover += took_s


def _trial(spent: Spent, window: Window, row: Row) -> None:
    """Robots work from a trial's beginning on; what is left at its end is bookkeeping."""
    worked_to_s = row.started_unix_s + row.wall_reset_s + row.wall_trial_s
    in_use_s = window.overlap(row.started_unix_s, worked_to_s)
    spent.in_use += in_use_s
    spent.useful += in_use_s * row.used
    spent.bookkeeping += window.overlap(worked_to_s, row.ended_unix_s)


def read_rows(database: Path) -> list[Row]:
    """Return all trials; none where the database is not there yet."""
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
            return [Row(*line) for line in db.execute(TRIALS)]
    except sqlite3.OperationalError:  # its tables are being made
        return []


def kill_station(stations: Path, name: str) -> int:
    """Kill every process of a station's session and return how many that were."""
    ends = str(Path(stations.parent.name, stations.name, name))  # the path before may be written in more than one way
    sessions = {os.getsid(number) for number, words in _processes() if any(word.endswith(ends) for word in words)}
    killed = 0
    for number, _ in _processes():
        try:
            if os.getsid(number) in sessions:
                os.kill(number, signal.SIGKILL)
                killed += 1
        except ProcessLookupError:
            continue
    return killed


def _processes() -> Iterable[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue


class Watched:
    """A campaign that runs as a process in a folder of runs."""

    def __init__(self, arguments: argparse.Namespace, runs: Path) -> None:
        self._arguments, self._runs = arguments, runs
        command = [
            sys.executable, "-m", "coordinator", "campaign", "start", "--task", arguments.task, "--edges",
            str(arguments.edges), "--seed", str(arguments.seed), "--pace", str(arguments.pace), "--budget-minutes",
            str(BUDGET_MINUTES), *UNREACHABLE, "--runs", str(runs), "--json",
        ]  # fmt: skip
        self._said = open(runs / "coordinator.txt", "w+")  # noqa: SIM115 - closed by `end`
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._said)

    @property
    def folder(self) -> Path:
        """The run's folder; one that does not exist while it is not made."""
        return next(iter(sorted(path.parent for path in self._runs.glob("*/coordinator.db"))), self._runs / "none")

    def rows(self) -> list[Row]:
        """Return the trials that have come."""
        if self.process.poll() is not None:
            raise BenchFailed(f"the coordinator ended with {self.process.returncode}: {self._last_words()}")
        return read_rows(self.folder / "coordinator.db")

    def end(self) -> None:
        """Ask it to end in order, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=120.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._said.close()

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().strip()[-300:] or "it said nothing"


def measure(arguments: argparse.Namespace, watched: Watched, show: Callable[[str, float, float], None]) -> Window:
    """Let the campaign run through the window, kill a station in it, and return the window.

    Raises:
        BenchFailed: the fleet did not come up, or the coordinator ended.
    """
    began_s = time.time()
    while len(first := _first_begun(watched.rows())) < arguments.edges:
        show(f"bringing up {arguments.edges} stations ({len(first)})", time.time() - began_s, BRING_UP_S)
        if time.time() - began_s > BRING_UP_S:
            raise BenchFailed(f"after {BRING_UP_S:.0f} s only {len(first)} of {arguments.edges} stations had a trial")
        time.sleep(1.0)
    begins_s = max(first.values())
    window = Window(begins_s, begins_s + 60.0 * arguments.minutes)
    kill_at_s = begins_s + arguments.kill_at * (window.ends_s - begins_s)
    victim, killed_s = sorted(first)[-1], 0.0
    while (now_s := time.time()) < window.ends_s + 60.0 * arguments.grace_minutes:
        if arguments.kill_at >= 0.0 and not killed_s and now_s >= kill_at_s:
            killed_s = time.time()
            if not kill_station(watched.folder / "stations", victim):
                raise BenchFailed(f"no process of {victim} was found")
        words = f"measuring, {victim} was killed" if killed_s else "measuring"
        show(words if now_s < window.ends_s else "letting trials end", now_s - begins_s, window.ends_s - begins_s)
        watched.rows()
        time.sleep(1.0)
    return Window(window.begins_s, window.ends_s, victim if killed_s else "", killed_s)


def _first_begun(rows: Iterable[Row]) -> dict[str, float]:
    first: dict[str, float] = {}
    for row in rows:
        first.setdefault(row.edge, row.started_unix_s)
    return first


def figures(rows: Sequence[Row], window: Window, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was measured: shares of the stations' wall time in the window, and what the rest was lost to."""
    edges = sorted({row.edge for row in rows})
    spent = {edge: account([row for row in rows if row.edge == edge], window, edge == window.killed) for edge in edges}
    each_s = window.ends_s - window.begins_s
    whole_s = each_s * len(edges)
    lost = [name for name in asdict(Spent()) if name not in ("in_use", "useful")]
    inside = [row for row in rows if window.overlap(row.started_unix_s, row.ended_unix_s) > 0.0]
    any_share = sum(item.in_use for item in spent.values()) / whole_s
    useful_share = sum(item.useful for item in spent.values()) / whole_s
    return {
        "name": "mru", "task": arguments.task, "edges": len(edges), "pace": arguments.pace, "seed": arguments.seed,
        "minutes": arguments.minutes, "mru_any": any_share, "mru_useful": useful_share,
        "paper_mru": PAPER_MRU.get(len(edges)), "trials": len(inside),
        "invalid": sum(row.outcome == "invalid" for row in inside),
        "killed": window.killed, "back_after_s": _back_after_s(rows, window),
        "lost_share": {name: sum(getattr(item, name) for item in spent.values()) / whole_s for name in lost},
        "between_trials_s": _between_figures(rows),
        "slip": slip(inside, arguments.pace),
        "bring_up_s": window.begins_s - min(row.started_unix_s for row in rows),
        "per_station": {
            edge: {"mru_any": item.in_use / each_s, "mru_useful": item.useful / each_s} for edge, item in spent.items()
        },
        "rows": rows_of_figures(any_share, useful_share, len(edges), arguments),
    }  # fmt: skip


def rows_of_figures(
    any_share: float, useful_share: float, edges: int, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return the rows for docs/figures.md."""
    where = f"{edges} stations at {arguments.pace:g} x real time, {arguments.minutes:g} min, one killed"
    paper = f"; the paper {100 * PAPER_MRU[edges]:.0f} %" if edges in PAPER_MRU else ""
    return [
        {
            "what": f"robots in use (MRU), any experiment, {where}", "figure": f"{100 * any_share:.1f} %{paper}",
            "bound": f"at least {100 * LEAST_ANY:.0f} %", "holds": any_share >= LEAST_ANY,
        },
        {
            "what": f"robots in use (MRU), useful, {where}", "figure": f"{100 * useful_share:.1f} %",
            "bound": f"at least {100 * LEAST_USEFUL:.0f} %", "holds": useful_share >= LEAST_USEFUL,
        },
    ]  # fmt: skip


def _back_after_s(rows: Iterable[Row], window: Window) -> float | None:
    """Return how long after the kill the station began a trial again; None where it was not killed or not back."""
    begun = [row.started_unix_s for row in rows if row.edge == window.killed and row.started_unix_s > window.killed_s]
    return min(begun) - window.killed_s if window.killed and begun else None


def _between_figures(rows: Sequence[Row]) -> dict[str, float]:
    """Return the time from one trial's end to the next one's beginning, and what sealing took at a trial's end."""
    gaps = [
        later.started_unix_s - row.ended_unix_s
        for row, later in pairwise(rows)
        if row.edge == later.edge and "crash" not in (row.cause, later.cause)
    ]
    sealing = [
        row.ended_unix_s - row.started_unix_s - row.wall_reset_s - row.wall_trial_s
        for row in rows
        if row.cause != "crash"
    ]
    return {
        "median": statistics.median(gaps or [0.0]),
        "longest": max(gaps, default=0.0),
        "bookkeeping_median": statistics.median(sealing or [0.0]),
    }


def slip(rows: Iterable[Row], pace: float) -> Mapping[str, float | None]:
    """Return how much longer than asked for resets and trials took, as shares; None where no pace is kept."""
    told: dict[str, float | None] = {}
    for name in ("reset", "trial"):
        ratios = [
            getattr(row, f"wall_{name}_s") / (getattr(row, f"{name}_s") / pace) - 1.0
            for row in rows
            if pace > 0.0 and getattr(row, f"{name}_s") > 1.0
        ]
        told[name] = statistics.median(ratios) if ratios else None
    return told


def main() -> int:
    """Print the figures; the last line is one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=int, default=8, help="stations (8)")
    parser.add_argument("--pace", type=float, default=1.0, help="emulated time over real time (1.0)")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the window (10)")
    parser.add_argument(
        "--kill-at", type=float, default=0.4, help="when to kill one, as a share of the window; -1: never"
    )
    parser.add_argument("--grace-minutes", type=float, default=1.0, help="after the window, for trials to end (1)")
    parser.add_argument("--task", default="push_t", help="push_t or pin_insertion (push_t)")
    parser.add_argument("--seed", type=int, default=1, help="of the campaign and its stations (1)")
    parser.add_argument("--runs", type=Path, help="a folder to keep the run in; without it, it is deleted")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console, disable=not console.is_terminal) as bars:
        runs = Path(arguments.runs or temporary)
        runs.mkdir(parents=True, exist_ok=True)
        bar = bars.add_task("starting", total=None)
        watched = Watched(arguments, Path(tempfile.mkdtemp(prefix="mru-", dir=runs)))
        try:
            window = measure(
                arguments,
                watched,
                lambda words, done, of: bars.update(bar, description=words, completed=done, total=of),
            )
            watched.end()
            told = figures(read_rows(watched.folder / "coordinator.db"), window, arguments)
        except BenchFailed as error:
            print(f"mru: {error}", file=sys.stderr)
            return 1
        finally:
            watched.end()
    for row in told["rows"]:
        print(f"{row['what']}: {row['figure']} ({row['bound']})")
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
