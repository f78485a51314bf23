"""How long the views and the documented questions take on a database of 100,000 trials.

A seeded generator writes some three hundred campaigns through the project's own migrations, in every table that a view
reads; a tenth of the trials are the last incumbent's, at play. Then each view is read (its first 1,000 rows, and
counted) and each command of docs/analysis.md is run as SQL, five times each; the figure is the median.
Usage: python bench/analysis_speed.py [TRIALS] [SEED]
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shlex
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.store import FILE, Store
from edge.records import Outcome, Trial

PAGE = Path(__file__).parents[1] / "docs" / "analysis.md"
BOUND_MS = 300.0
REPEATS = 5
FIRST_ROWS = 1000
EDGES = 8
IDEAS = 30  # in one campaign,
IDEAS_TO_GATE = 10  # of which every tenth is accepted
SCREENS, PAIRS, HELDOUT = 8, 8, 50
PLAYED = 0.1  # of all trials
STARTS = 200
BEGAN_UNIX_S = 1_700_000_000.0
TRIAL_S = 25.0
FAULTS = ("undecided", "reset", "stopped", "crash")
CAUSES = ("near", "rotated", "far", "timeout")
SENTENCES = (
    "lines that start and end at rest keep the springy arm from ringing",
    "what a push fell short of its prediction tells how far the encoders are off",
    "a push model can turn the tee as well as move it",
)
Row = dict[str, Any]


def main(trials: int, seed: int) -> None:
    """Write the database, time everything and print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        Store(path).close()  # the migrations
        with closing(sqlite3.connect(path)) as database:
            History(database, random.Random(seed)).write(trials)
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            took_ms = {name: median_ms(database, name, query) for name, query in queries(database)}
    rows = [_row(kind, trials, seed, took_ms) for kind in ("view", "question")]
    print(json.dumps({"name": "analysis_speed", "rows": rows}))


def queries(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield each view, its count, and each command of the page, by name."""
    for (view,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY name").fetchall():
        yield f"view {view}", f"SELECT * FROM {view} LIMIT {FIRST_ROWS}"
        yield f"view {view}, counted", f"SELECT COUNT(*) FROM {view}"
    for number, block in enumerate(re.findall(r"```sh\n(\S*sqlite-utils .*?)```", PAGE.read_text(), re.DOTALL), 1):
        yield f"question {number}", shlex.split(block)[2]


def median_ms(database: sqlite3.Connection, name: str, query: str) -> float:
    """Return the median time in which a query gives all of its rows, ms."""
    took_ms = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        database.execute(query).fetchall()
        took_ms.append(1e3 * (time.perf_counter() - began_s))
    print(f"{statistics.median(took_ms):8.1f} ms  {name}", file=sys.stderr)
    return statistics.median(took_ms)


def _row(kind: str, trials: int, seed: int, took_ms: Mapping[str, float]) -> Row:
    mine = {name.removeprefix(kind).strip(): took for name, took in took_ms.items() if name.startswith(kind)}
    slowest = max(mine, key=lambda name: mine[name])
    return {
        "what": f"slowest {kind} of {len(mine)} at {trials} trials, ms",
        "figure": f"{mine[slowest]:.0f} ({slowest}); half under {statistics.median(mine.values()):.0f} (seed {seed})",
        "bound": f"under {BOUND_MS:.0f}",
        "holds": mine[slowest] < BOUND_MS,
    }


class History:
    """Campaign after campaign, as a coordinator keeps them."""

    def __init__(self, database: sqlite3.Connection, draw: random.Random) -> None:
        self._database, self._draw = database, draw
        self._rows: defaultdict[str, list[Row]] = defaultdict(list)
        self._unix_s = BEGAN_UNIX_S
        self._trials = 0
        self._ideas = 0
        self._decisions = 0

    def write(self, trials: int) -> None:
        """Write campaigns until there are so many trials."""
        hashes = {"station_hash": _sha256("station"), "calibration_hash": _sha256("calibration"), "software": "s"}
        for number in range(EDGES):
            seen = {"first_seen_unix_s": self._unix_s, "last_seen_unix_s": self._unix_s}
            self._rows["stations"].append({"edge": _edge(number), "epoch": "e1", **hashes, **seen})
        incumbent, rate = 0, 0.0
        while self._trials < (1.0 - PLAYED) * trials:
            incumbent, rate = self._campaign()
            self._flush()
        while self._trials < trials:
            self._attempt(incumbent, "play", self._trials, rate)
        self._flush()

    def _campaign(self) -> tuple[int, float]:
        """Write a campaign, and return who ruled at its end and its chance of success."""
        name, began_unix_s = f"campaign-{self._ideas // (IDEAS + 1):04d}", self._unix_s
        incumbent = self._idea(None)
        rate = 0.05
        self._decide(incumbent, "accept", "seed", 0, 0)
        for k in range(1, IDEAS + 1):
            idea = self._idea(incumbent)
            won = sum(self._attempt(idea, "screen", k * SCREENS + i, rate) for i in range(SCREENS))
            if k % IDEAS_TO_GATE:
                self._decide(idea, "reject", "screen", SCREENS, won)
                continue
            for i in range(PAIRS):
                self._attempt(idea, "gate", i, rate + 0.3, pair=f"pair-{idea}-{i}")
                self._attempt(incumbent, "gate", i, rate, pair=f"pair-{idea}-{i}")
            self._decide(idea, "accept", "gate", PAIRS, PAIRS)
            incumbent, rate = idea, rate + 0.3
        won = sum(self._attempt(incumbent, "heldout", i, rate) for i in range(HELDOUT))
        self._rows["heldout"].append(
            {
                "candidate_id": incumbent, "successes": won, "trials": HELDOUT, "low": 0.0, "high": 1.0,
                "complete": 1, "ended_unix_s": self._unix_s,
            }
        )  # fmt: skip
        self._rows["campaigns"].append(
            {
                "campaign_id": name, "task": "push_t", "seed": 1, "stations": EDGES, "target_successes": 46,
                "target_trials": HELDOUT, "budget_minutes": 8.0, "started_unix_s": began_unix_s,
                "ended_unix_s": self._unix_s, "ended_why": "the target was reached",
            }
        )  # fmt: skip
        return incumbent, rate

    def _idea(self, parent: int | None) -> int:
        """Write a hypothesis, its bundle and its candidate, and return the number that all three share."""
        self._ideas += 1
        number, now = self._ideas, {"created_unix_s": self._unix_s}
        kind = "seed" if parent is None else self._draw.choice(("parameter", "switch", "merge"))
        changes = json.dumps({"push_speed_m_s": round(self._draw.uniform(0.05, 0.3), 3)})
        words = f"push_speed_m_s {changes}: {self._draw.choice(SENTENCES)}"
        self._rows["bundles"].append(
            {
                "bundle": _bundle(number), "parent": parent and _bundle(parent), "task": "push_t",
                "policy": "push_t", "params": changes, "manifest": "{}" * 400, "archive": bytes(4000), **now,
            }
        )  # fmt: skip
        self._rows["hypotheses"].append(
            {
                "hypothesis_id": number, "researcher": f"researcher-{number % 3}", "kind": kind, "sentence": words,
                "falsifier": "no more wins than losses, pair by pair", "changes": changes, **now,
            }
        )  # fmt: skip
        self._rows["candidates"].append(
            {
                "candidate_id": number, "hypothesis_id": number, "bundle": _bundle(number),
                "parent_candidate_id": parent, "state": "screen", **now,
            }
        )  # fmt: skip
        self._rows["token_use"].append(
            {
                "unix_s": self._unix_s, "researcher": f"researcher-{number % 3}", "model": f"model-{number % 2}",
                "hypothesis_id": number, "input_tokens": self._draw.randrange(100_000),
                "output_tokens": self._draw.randrange(10_000), "cached_tokens": 0, "seconds": 20.0,
            }
        )  # fmt: skip
        self._rows["events"].append({"unix_s": self._unix_s, "edge": None, "level": "info", "text": f"idea {number}"})
        return number

    def _decide(self, idea: int, verdict: str, stage: str, pairs: int, wins: int) -> None:
        self._decisions += 1
        self._rows["decisions"].append(
            {
                "decision_id": self._decisions, "candidate_id": idea, "verdict": verdict, "stage": stage,
                "reason": f"{wins} wins of {pairs}", "pairs": pairs, "wins": wins, "losses": pairs - wins,
                "wealth": 1.0, "candidate_successes": wins, "candidate_trials": pairs, "incumbent_successes": 0,
                "incumbent_trials": pairs, "gain_points": 100.0 * wins / max(1, pairs),
                "trials_so_far": self._trials, "decided_unix_s": self._unix_s,
            }
        )  # fmt: skip

    def _attempt(self, idea: int, purpose: str, start: int, rate: float, pair: str | None = None) -> bool:
        """Write one trial with its assignment and recording, and return whether it succeeded."""
        self._trials += 1
        self._unix_s += TRIAL_S / EDGES
        trial = self._trial(idea, purpose, f"{purpose}-{start % STARTS:04d}", rate)
        content = _sha256(f"{trial.identity}")
        self._rows["trials"].append(
            asdict(trial) | {"content_sha256": content, "received_unix_s": self._unix_s, "used": 1}
        )
        self._rows["assignments"].append(
            {
                "assignment_id": trial.assignment_id, "lease_id": trial.lease_id, "edge": trial.edge,
                "candidate_id": idea, "bundle": trial.bundle, "start_id": trial.start_id,
                "start": trial.achieved_start, "seed": trial.seed, "purpose": purpose, "pair_id": pair,
                "state": "done", "leased_unix_s": trial.started_unix_s, "expires_unix_s": trial.ended_unix_s,
                "done_unix_s": self._unix_s,
            }
        )  # fmt: skip
        self._rows["recordings"].append(
            {
                "sha256": trial.recording, "edge": trial.edge, "file": f"recordings/{trial.recording}.mcap",
                "bytes": trial.recording_bytes, "received_unix_s": self._unix_s,
            }
        )  # fmt: skip
        return trial.outcome is Outcome.SUCCESS

    def _trial(self, idea: int, purpose: str, start_id: str, rate: float) -> Trial:
        draw, number = self._draw, self._trials
        outcome, cause = Outcome.SUCCESS, ""
        if draw.random() < 0.06:
            outcome, cause = Outcome.INVALID, draw.choice(FAULTS)
        elif draw.random() >= rate:
            outcome, cause = Outcome.FAILURE, draw.choice(CAUSES)
        progress = 1.0 if outcome is Outcome.SUCCESS else draw.random()
        reset_s, trial_s = draw.uniform(3.0, 20.0), draw.uniform(10.0, 60.0)
        error_mm, error_deg = draw.uniform(0.5, 80.0), draw.uniform(-90.0, 90.0)
        return Trial(
            edge=_edge(number % EDGES), epoch="e1", sequence=number // EDGES + 1, assignment_id=f"run-{number:06d}",
            lease_id=f"lease-{number // 4}", task="push_t", bundle=_bundle(idea), start_id=start_id,
            purpose=purpose, seed=number, outcome=outcome, cause=cause,
            detail=f"coverage {progress:.3f}, {error_mm:.1f} mm and {error_deg:+.1f} deg off", progress=progress,
            measures={"angle_error_deg": error_deg, "coverage": progress, "position_error_mm": error_mm},
            achieved_start={"x_m": draw.random(), "y_m": draw.random(), "yaw_rad": draw.random()},
            reset_s=reset_s, reset_tries=draw.choice((0, 1, 1, 1, 2)), trial_s=trial_s,
            policy_steps=int(30 * trial_s), wall_reset_s=reset_s / 10.0, wall_trial_s=trial_s / 10.0,
            started_unix_s=self._unix_s - 10.0, ended_unix_s=self._unix_s - 0.1, station_hash=_sha256("station"),
            calibration_hash=_sha256(f"calibration {number // 10_000}"), software="enpire 0.1.0, mujoco 3.17.0",
            recording=_sha256(f"recording {number}"), recording_bytes=200_000,
            notes={"operator": "looked at it"} if number % 50 == 0 else {},
        )  # fmt: skip

    def _flush(self) -> None:
        """Write what was drawn, all of a campaign in one transaction."""
        with self._database:
            for table in ("campaigns", "stations", "bundles", "hypotheses", "candidates", *self._rows):
                rows = [_plain(row) for row in self._rows.pop(table, [])]
                if rows:
                    marks = ", ".join(f":{name}" for name in rows[0])
                    self._database.executemany(f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks})", rows)


def _plain(row: Row) -> Row:
    return {name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in row.items()}


def _edge(number: int) -> str:
    return f"station-{number + 1}"


def _bundle(number: int) -> str:
    return _sha256(f"bundle {number}")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, int(sys.argv[2]) if len(sys.argv) > 2 else 1)
