"""A run as the report sees it: rows of `coordinator.db` as frozen values, read without writing anything.

- An idea is a candidate together with its hypothesis and its newest decision, where there is one.
- Minutes count from the start of the campaign, or from the first row with a time where no campaign was written, without
  those in which the coordinator was gone: a campaign that was killed and resumed has not run meanwhile.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

LABEL_CHARACTERS = 30
HALVES = """
SELECT pair_id, assignments.candidate_id, outcome, progress FROM assignments JOIN trials USING (assignment_id)
WHERE pair_id IS NOT NULL AND used = 1 ORDER BY received_unix_s
"""
SPANS = (  # of what happened: its begin and its end; a trial that a crash cut short is sealed when its station is back
    ("trials", "started_unix_s", "started_unix_s + wall_reset_s + wall_trial_s"),
    ("decisions", "decided_unix_s", "decided_unix_s"),
    ("heldout", "ended_unix_s", "ended_unix_s"),
    ("candidates", "created_unix_s", "created_unix_s"),
)
# The ends of parameters' names: a longer one before what it ends in itself.
UNITS = {"_m_s2": "m/s²", "_m_s": "m/s", "_rad_s": "rad/s", "_s": "s", "_mm": "mm", "_m": "m", "_rad": "rad"}


class ReportError(Exception):
    """Base of everything that the report raises."""


class NotARunError(ReportError):
    """The folder holds no readable coordinator.db."""


@dataclass(frozen=True)
class Campaign:
    """What was asked of the run."""

    campaign_id: str
    task: str
    seed: int
    stations: int
    target_successes: int
    target_trials: int
    budget_minutes: float
    ended_why: str  # empty while it runs or when it was cut short


@dataclass(frozen=True)
class Decision:
    """What moved, or did not move, the incumbent."""

    verdict: str
    stage: str
    reason: str
    pairs: int
    wins: int
    losses: int
    candidate_successes: int
    candidate_trials: int
    incumbent_successes: int
    incumbent_trials: int
    gain_points: float
    minute: float


@dataclass(frozen=True)
class Idea:
    """One hypothesis and the candidate that tested it."""

    candidate_id: int
    parent_candidate_id: int | None  # None for the seed
    bundle: str
    kind: str
    researcher: str
    sentence: str
    falsifier: str
    changes: Mapping[str, Any]
    state: str
    decision: Decision | None
    minute: float  # when it was made
    merged: tuple[int, ...] = ()  # candidates that it is made of beside the incumbent
    hypothesis_id: int = 0

    @property
    def verdict(self) -> str:
        """accept, reject, inconclusive, superseded, or 'open' while nothing is decided."""
        if self.decision is not None:
            return self.decision.verdict
        return "accept" if self.parent_candidate_id is None else "open"

    @property
    def short(self) -> str:
        """The change in a few words, for a label."""
        if self.parent_candidate_id is None:
            return "seed"
        words = [_change(name, value) for name, value in self.changes.items()] or [self.kind]
        more = f" +{len(words) - 1}" if len(words) > 1 else ""
        room = LABEL_CHARACTERS - len(more)
        return (words[0] if len(words[0]) <= room else words[0][: room - 1] + "…") + more


@dataclass(frozen=True)
class Heldout:
    """A measurement on held-out starts, or on audit starts."""

    candidate_id: int
    successes: int
    trials: int
    complete: bool
    minute: float
    invalid: int = 0  # of `trials`, failures because they could not be judged


@dataclass(frozen=True)
class TrialRow:
    """What the report needs of one trial."""

    edge: str
    sequence: int
    bundle: str
    start_id: str
    purpose: str
    outcome: str
    cause: str
    detail: str
    used: bool
    reset_s: float
    reset_tries: int
    trial_s: float
    start_minute: float
    end_minute: float  # with what opening and sealing took
    wall_reset_min: float
    wall_trial_min: float
    measures: Mapping[str, float]
    seed: int
    station_hash: str
    calibration_hash: str
    recording: str

    @property
    def valid(self) -> bool:
        """Whether it counts in a denominator."""
        return self.outcome != "invalid"


@dataclass(frozen=True)
class Half:
    """One attempt of a pair at the gate."""

    pair_id: str
    candidate_id: int
    outcome: str
    progress: float

    @property
    def success(self) -> bool:
        """Whether it succeeded."""
        return self.outcome == "success"


@dataclass(frozen=True)
class Station:
    """One bench that took part."""

    edge: str
    software: str
    peak_memory_mb: float
    first_seen_minute: float


@dataclass(frozen=True)
class TokenCall:
    """A call of a language model."""

    researcher: str
    model: str
    input_tokens: int  # those from the vendor's cache too
    output_tokens: int
    cached_tokens: int
    seconds: float
    tokens: int  # in and out
    minute: float
    hypothesis_id: int | None = None  # what came of it
    cache_write_tokens: int = 0  # part of the input
    reasoning_tokens: int = 0  # part of the output
    other_tokens: int = 0  # part of the output, of a kind that the vendor does not say
    guessed_tokens: int = 0  # part of all, that no answer told of
    nano_usd: int = 0  # its price, billionths of a dollar

    @property
    def fresh_tokens(self) -> int:
        """The part of the input that no cache had to do with."""
        return self.input_tokens - self.cached_tokens - self.cache_write_tokens

    @property
    def said_tokens(self) -> int:
        """The part of the output that was answered, neither reasoning nor of an unknown kind."""
        return self.output_tokens - self.reasoning_tokens - self.other_tokens


@dataclass(frozen=True)
class Ended:
    """A station's process that ended, as the coordinator noted it."""

    edge: str
    minute: float


@dataclass(frozen=True)
class Run:
    """All of it."""

    folder: Path
    campaign: Campaign | None
    minutes: float  # from the start to the end, or to the newest row
    stations: tuple[Station, ...]
    ideas: tuple[Idea, ...]  # in the order they were made
    heldout: tuple[Heldout, ...]
    audits: tuple[Heldout, ...]
    trials: tuple[TrialRow, ...]  # in the order they began
    halves: tuple[Half, ...]  # that entered a decision
    quarantined: int
    token_calls: tuple[TokenCall, ...]
    ended: tuple[Ended, ...]
    summary: Mapping[str, Any]

    def idea(self, candidate_id: int) -> Idea:
        """Return the idea of that candidate."""
        return next(item for item in self.ideas if item.candidate_id == candidate_id)


def _change(name: str, value: object) -> str:
    """Return one changed parameter or idea in words; a pair is old and new."""
    if isinstance(value, list) and len(value) == 2:
        value = value[1]
    suffix = next((suffix for suffix in UNITS if name.endswith(suffix)), "")
    words = name.removesuffix(suffix).replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    number = f"{value:.3g}" if isinstance(value, float | int) else f"{value}"
    return f"{words} {number} {UNITS[suffix]}" if suffix else f"{words} {number}"


def load(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        NotARunError: coordinator.db is missing, or is not a database of a run.
    """
    path = folder / "coordinator.db"
    if not path.is_file():
        raise NotARunError(f"{folder} holds no coordinator.db; give the folder of a run, such as runs/<id>")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return _load(folder, database)
    except sqlite3.Error as error:
        raise NotARunError(f"{path} cannot be read as the database of a run: {error}") from error


def _load(folder: Path, database: sqlite3.Connection) -> Run:
    campaign = database.execute("SELECT * FROM campaigns ORDER BY started_unix_s LIMIT 1").fetchone()
    times = [time for time in _times(database) if time is not None]
    started = campaign["started_unix_s"] if campaign else min(times, default=0.0)
    ended = campaign["ended_unix_s"] if campaign and campaign["ended_unix_s"] else max(times, default=started)

    rests = list(_rests(database))

    def minute(unix_s: float) -> float:
        rested = sum(max(0.0, min(unix_s, end) - begin) for begin, end in rests)
        return (unix_s - started - rested) / 60.0

    return Run(
        folder=folder,
        campaign=_read(Campaign, campaign, ended_why=campaign["ended_why"] or "") if campaign else None,
        minutes=max(minute(ended), 0.0),
        stations=tuple(
            _read(Station, row, first_seen_minute=minute(row["first_seen_unix_s"]))
            for row in database.execute("SELECT * FROM stations ORDER BY edge")
        ),
        ideas=tuple(_ideas(database, minute)),
        heldout=tuple(_measured(database, "heldout", minute)),
        audits=tuple(_measured(database, "audits", minute)),
        trials=tuple(
            _read(
                TrialRow,
                row,
                used=bool(row["used"]),
                measures=json.loads(row["measures"]),
                start_minute=minute(row["started_unix_s"]),
                end_minute=minute(row["ended_unix_s"]),
                wall_reset_min=row["wall_reset_s"] / 60.0,
                wall_trial_min=row["wall_trial_s"] / 60.0,
            )
            for row in database.execute("SELECT * FROM trials ORDER BY started_unix_s, edge, sequence")
        ),
        halves=tuple(_read(Half, row) for row in database.execute(HALVES)),
        quarantined=database.execute("SELECT COUNT(*) FROM quarantine").fetchone()[0],
        token_calls=tuple(
            _read(TokenCall, row, tokens=row["input_tokens"] + row["output_tokens"], minute=minute(row["unix_s"]))
            for row in _rows(database, "token_use", "unix_s")
        ),
        ended=tuple(
            Ended(row["edge"], minute(row["unix_s"]))
            for row in _rows(database, "events", "unix_s")
            if row["edge"] and row["text"].startswith("ended with")
        ),
        summary=_summary(folder / "summary.json"),
    )


def _rows(database: sqlite3.Connection, table: str, order: str) -> list[sqlite3.Row]:
    """Return the rows of a table, none where the database is from before it was kept."""
    kept = database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return database.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall() if kept else []


def _measured(database: sqlite3.Connection, table: str, minute: Callable[[float], float]) -> Iterator[Heldout]:
    for row in _rows(database, table, "ended_unix_s"):
        yield _read(Heldout, row, complete=bool(row["complete"]), minute=minute(row["ended_unix_s"]))


def _rests(database: sqlite3.Connection) -> Iterator[tuple[float, float]]:
    """Return when nothing ran, as the coordinator was gone: from the last thing before it came back to its return."""
    began = [row["began_unix_s"] for row in _rows(database, "campaign_sessions", "began_unix_s")]
    for before, back in pairwise(began):
        queries = [f"SELECT MAX(MIN({column}, ?)) FROM {table} WHERE {before} < ?" for table, before, column in SPANS]
        last = [database.execute(query, (back, back)).fetchone()[0] for query in queries]
        yield max(before, *(time for time in last if time is not None)), back


def _times(database: sqlite3.Connection) -> Iterator[float | None]:
    for table, begin, end in SPANS:
        yield from database.execute(f"SELECT MIN({begin}), MAX({end}) FROM {table}").fetchone()


def _ideas(database: sqlite3.Connection, minute: Callable[[float], float]) -> Iterator[Idea]:
    decisions = {
        row["candidate_id"]: _read(Decision, row, minute=minute(row["decided_unix_s"]))
        for row in database.execute("SELECT * FROM decisions ORDER BY decision_id")
    }
    merged: dict[int, tuple[int, ...]] = {}
    for row in _rows(database, "merges", "candidate_id, merged_candidate_id"):
        merged[row["candidate_id"]] = (*merged.get(row["candidate_id"], ()), row["merged_candidate_id"])
    for row in database.execute(
        "SELECT *, candidates.created_unix_s AS made_unix_s FROM hypotheses JOIN candidates USING (hypothesis_id)"
        " ORDER BY candidates.created_unix_s, candidate_id"
    ):
        yield _read(
            Idea,
            row,
            changes=json.loads(row["changes"]),
            decision=decisions.get(row["candidate_id"]),
            minute=minute(row["made_unix_s"]),
            merged=merged.get(row["candidate_id"], ()),
        )


Row = TypeVar("Row")


def _read(kind: type[Row], row: sqlite3.Row, **computed: Any) -> Row:
    """Return a value whose fields are the row's columns of the same names, but for those that are given.

    A field with a default keeps it where the database is from before its column.
    """
    there = set(row.keys())
    names = [
        item.name
        for item in fields(kind)  # type: ignore[arg-type]
        if item.name not in computed and (item.name in there or item.default is MISSING)
    ]
    return kind(**{name: row[name] for name in names}, **computed)


def _summary(path: Path) -> Mapping[str, Any]:
    """Return the run's own summary, empty where there is none or where the run was cut while writing it."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
