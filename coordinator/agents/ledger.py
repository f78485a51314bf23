"""The calls of all lanes as lines in a file, each on the disk before the answer that it paid for goes on.

- The file outlives whoever writes it: a half line at its end, after a loss of power, is cut off at the next opening.
- `token_use` says of a call what the table of that name in a run's database holds.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from coordinator.agents.calls import Call
from coordinator.agents.usage import Usage

FILE = "calls.jsonl"  # in the folder of a run


class Ledger:
    """The file, open for writing; one writer at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path`, made where it is not there, and cut off what is not a whole line."""
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        kept = path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._file, kept)
        os.lseek(self._file, kept, os.SEEK_SET)

    def __call__(self, call: Call) -> None:
        """Write a call, and return when it is on the disk.

        Raises:
            OSError: it could not be written; nothing of it is left in the file then.
        """
        line = json.dumps(asdict(call), allow_nan=False).encode() + b"\n"
        with self._lock:
            end = os.lseek(self._file, 0, os.SEEK_CUR)
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fdatasync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                os.lseek(self._file, end, os.SEEK_SET)
                raise

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_calls(path: Path) -> Iterator[Call]:
    """Yield the calls in a file in their order."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield parse(line)


def parse(line: bytes) -> Call:
    """Return the call that a line of the ledger tells of."""
    row = json.loads(line)
    return Call(**{**row, "told": Usage(**row["told"]), "guessed": Usage(**row["guessed"])})


def token_use(call: Call) -> dict[str, object]:
    """Return a call as a row of `token_use`, but for its hypothesis; what was guessed counts as what was told."""
    usage = call.told + call.guessed
    return {
        "unix_s": call.unix_s,
        "researcher": call.lane,
        "model": call.model,
        "input_tokens": usage.fresh + usage.cache_read + usage.cache_write,
        "output_tokens": usage.output + usage.reasoning + usage.other,
        "cached_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "reasoning_tokens": usage.reasoning,
        "other_tokens": usage.other,
        "guessed_tokens": call.guessed.total,
        "nano_usd": call.nano_usd,
        "ended": call.ended,
        "seconds": call.seconds,
    }
