"""The ledger of agents' calls: nothing that was written is lost, and nothing is half there."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.agents.calls import Call
from coordinator.agents.ledger import Ledger, read_calls, token_use
from coordinator.agents.usage import MESSAGES, Usage
from coordinator.store import FILE, Store

COUNTS = st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
CALLS = st.builds(
    Call,
    unix_s=st.floats(0, 2e9),
    lane=st.text(max_size=20),
    model=st.text(max_size=20),
    protocol=st.just(MESSAGES),
    told=USAGES,
    guessed=USAGES,
    nano_usd=COUNTS,
    seconds=st.floats(0, 1e6),
    status=st.integers(0, 599),
    ended=st.just("complete"),
)
CALL = Call(1.0, "lane", "m", MESSAGES, Usage(100, 20, 3, 40, 5, 6), Usage(1, 0, 0, 2), 77, 1.5, 200, "complete")


@given(st.lists(CALLS, max_size=5), st.integers(0, 400))
def test_what_was_written_comes_back_and_a_half_line_does_not(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Call], torn: int
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "calls.jsonl"
    ledger = Ledger(path)
    for call in calls:
        ledger(call)
    ledger.close()
    assert list(read_calls(path)) == calls
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - torn)])
    again = Ledger(path)
    again(CALL)
    again.close()
    left = list(read_calls(path))
    assert left[-1] == CALL
    assert left[:-1] == calls[: len(left) - 1]


def test_a_row_is_on_the_disk_when_it_is_booked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(os.fstat(file).st_size))
    ledger = Ledger(tmp_path / "calls.jsonl")
    ledger(CALL)
    assert synced == [(tmp_path / "calls.jsonl").stat().st_size]
    ledger.close()


def test_a_full_disk_is_said_and_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calls.jsonl"
    ledger = Ledger(path)
    ledger(CALL)
    write = os.write

    def full(file: int, data: bytes) -> int:
        write(file, data[:10])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        ledger(CALL)
    monkeypatch.setattr(os, "write", write)
    ledger(replace(CALL, lane="later"))
    ledger.close()
    assert [call.lane for call in read_calls(path)] == ["lane", "later"]


def test_a_call_is_a_row_of_the_database(tmp_path: Path) -> None:
    Store(tmp_path / FILE).close()
    row = token_use(CALL)
    with sqlite3.connect(tmp_path / FILE) as database:
        names = ", ".join(row)
        database.execute(f"INSERT INTO token_use ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        [cost] = database.execute("SELECT input_tokens, output_tokens, cached_tokens FROM researcher_cost").fetchall()
    database.close()
    assert cost == (124, 53, 20)
    assert cost[0] + cost[1] == (CALL.told + CALL.guessed).total
