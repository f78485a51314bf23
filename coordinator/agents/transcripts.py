"""What agents printed: a file for each of their runs, as it came, and its words for search."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.agents.clients import CLIENTS, Said, read_line
from coordinator.rows import insert
from coordinator.store import Store

FOLDER = "transcripts"  # in the folder of a run
MOST_WORDS = 256 << 10  # characters of one transcript that the database finds
SPOKEN = ("says", "does")


@dataclass(frozen=True)
class Line:
    """A line of a transcript, for people."""

    transcript: str
    number: int  # from 1
    kind: str  # as in `clients.Said`
    text: str


def next_path(folder: Path, lane: str) -> Path:
    """Make `folder` and return the lane's next transcript path, one above the highest number there.

    A process that resumes a run thus never writes over what the lane said before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [path.stem.removeprefix(f"{lane}-") for path in folder.glob("*.jsonl")]
    highest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return folder / f"{lane}-{highest + 1:04d}.jsonl"


def read(path: Path) -> Iterator[Line]:
    """Yield what a transcript says; what is not as it should be says nothing."""
    client = next((row for row in CLIENTS if path.stem.startswith(f"{row.name}-")), None)
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, 1):
            for said in _answer(text) if client is None else read_line(client, text):
                yield Line(path.stem, number, said.kind, said.text)


def search(folder: Path, words: str, lane: str = "") -> Iterator[Line]:
    """Yield the lines of a run's transcripts in which these words stand, whatever their case; all without words."""
    for path in sorted((folder / FOLDER).glob("*.jsonl")):
        if not lane or path.stem.rpartition("-")[0] == lane:
            yield from (line for line in read(path) if words.casefold() in line.text.casefold())


def keep_words(folder: Path, store: Store, lane: str, now_unix_s: float) -> None:
    """Let the database find what a lane has said; what it finds already stays as it is.

    Raises:
        StoreError: it cannot be written.
    """
    paths = [path for path in sorted((folder / FOLDER).glob("*.jsonl")) if path.stem.rpartition("-")[0] == lane]
    known = {row[0] for row in store.rows("SELECT name FROM sayings WHERE source = 'transcript'")}
    for path in paths:
        if path.stem not in known:
            row = {"source": "transcript", "name": path.stem, "said_unix_s": now_unix_s, "text": _words(path)}
            with store.transaction() as db:
                insert(db, "sayings", row, or_ignore=True)


def _words(path: Path) -> str:
    """Return what an agent said and did, as much of it as is kept."""
    words, room = [], MOST_WORDS
    for line in read(path):
        if line.kind in SPOKEN and room > 0:
            words.append(line.text[:room])
            room -= len(line.text)
        if room <= 0:
            break
    return "\n".join(words)


def _answer(text: str) -> list[Said]:
    """Return what an answer by API says: its text, and the tools that it calls."""
    try:
        parts = json.loads(text)["content"]
        return [said for part in parts for said in _part(part)]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return []


def _part(part: dict[str, object]) -> Iterator[Said]:
    if part["type"] == "text":
        yield Said("says", str(part["text"]))
    elif part["type"] == "tool_use":
        yield Said("does", f"{part['name']} {json.dumps(part['input'])}")
