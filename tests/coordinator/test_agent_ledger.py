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
from coordinator.agents.mirror import LedgerDiffers, Mirror, led_to
from coordinator.agents.usage import MESSAGES, Usage
from coordinator.evolution.records import HypothesisMade
from coordinator.store import FILE, Store, StoreError

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


def table(store: Store) -> list[tuple[object, ...]]:
    return store.rows("SELECT * FROM token_use ORDER BY token_use_id")


@given(st.lists(CALLS, max_size=6), st.lists(st.integers(0, 6), max_size=4))
def test_however_often_and_by_whomever_it_is_copied_each_call_is_in_the_table_once(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Call], stops: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    path = folder / "calls.jsonl"
    with Store(folder / FILE) as store:
        mirror = Mirror(path, store)
        assert mirror.follow() == []
        ledger = Ledger(path)
        seen: list[Call] = []
        for number, call in enumerate(calls):
            ledger(call)
            if number in stops:
                seen += mirror.follow()
        seen += mirror.follow()
        assert seen == calls
        assert mirror.follow() == []
        once = table(store)
        assert Mirror(path, store).follow() == calls  # as after a kill
        assert table(store) == once
        ledger.close()
        [told] = store.rows("SELECT COUNT(*), SUM(input_tokens + output_tokens), SUM(nano_usd) FROM token_use")
    assert told[0] == len(calls)
    assert (told[1] or 0) == sum((call.told + call.guessed).total for call in calls)
    assert (told[2] or 0) == sum(call.nano_usd for call in calls)


def test_a_half_written_line_is_copied_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    ledger = Ledger(path)
    ledger(CALL)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    with Store(tmp_path / FILE) as store:
        mirror = Mirror(path, store)
        assert mirror.follow() == [CALL]
        path.write_bytes(whole + whole)
        assert mirror.follow() == [CALL]
        assert len(table(store)) == 2


def test_what_the_table_does_not_take_is_copied_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    ledger = Ledger(path)
    ledger(CALL)
    ledger.close()
    with Store(tmp_path / FILE) as store:
        mirror = Mirror(path, store)
        store._db.execute("CREATE TRIGGER full BEFORE INSERT ON token_use BEGIN SELECT RAISE(ABORT, 'full'); END")
        with pytest.raises(StoreError, match="full"):
            mirror.follow()
        store._db.execute("DROP TRIGGER full")
        assert mirror.follow() == [CALL]


def test_the_ledger_of_another_run_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / FILE) as store:
        for name, unix_s in (("calls.jsonl", 1.0), ("other.jsonl", 2.0)):
            ledger = Ledger(tmp_path / name)
            ledger(replace(CALL, unix_s=unix_s))
            ledger.close()
        Mirror(tmp_path / "calls.jsonl", store).follow()
        before = table(store)
        with pytest.raises(LedgerDiffers, match=r"call 1 in .*other\.jsonl is not the one"):
            Mirror(tmp_path / "other.jsonl", store).follow()
        assert table(store) == before


def test_calls_are_of_the_hypothesis_that_they_led_to_and_what_came_to_nothing_is_told_apart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.jsonl")
    for unix_s, lane in ((1.0, "a"), (2.0, "a"), (3.0, "a"), (3.5, "b")):
        ledger(replace(CALL, unix_s=unix_s, lane=lane))
    ledger.close()
    with Store(tmp_path / FILE) as store:
        Mirror(tmp_path / "calls.jsonl", store).follow()
        store.write([HypothesisMade(number, "a", "program", f"h{number}", "", {}, 0.0) for number in (1, 2)])
        led_to(store, "a", 1, 2.0)
        led_to(store, "a", 2, 0.0)  # takes nothing from the one before
        query = (
            "SELECT researcher, hypothesis_id, calls, tokens, usd, guessed_tokens FROM hypothesis_cost"
            " ORDER BY researcher, hypothesis_id"
        )
        total, guessed = (CALL.told + CALL.guessed).total, CALL.guessed.total
        assert store.rows(query) == [
            ("a", 1, 2, 2 * total, round(154e-9, 6), 2 * guessed),
            ("a", 2, 1, total, round(77e-9, 6), guessed),
            ("b", None, 1, total, round(77e-9, 6), guessed),
        ]
        [parts] = store.rows(
            "SELECT fresh_tokens, cached_tokens, cache_write_tokens, output_tokens - reasoning_tokens - other_tokens,"
            " reasoning_tokens, other_tokens FROM hypothesis_cost WHERE researcher = 'b'"
        )
        both = CALL.told + CALL.guessed
        assert parts == (both.fresh, both.cache_read, both.cache_write, both.output, both.reasoning, both.other)
        with pytest.raises(StoreError):
            led_to(store, "b", 9, 0.0)
