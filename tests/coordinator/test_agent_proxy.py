"""The proxy of an agent: every paid answer is in the ledger, exactly, and no call is made that is not paid for."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from coordinator.agents.calls import Call, Patience, Provider
from coordinator.agents.prices import Price, Prices
from coordinator.agents.proxy import ModelProxy
from coordinator.agents.purse import Budget, Cost, Purse
from coordinator.agents.usage import PROTOCOLS, Usage
from tests.harness.model_server import CHAT, MESSAGES, MODEL, RESPONSES, Bill, Fault, ModelServer, Step

KEY = "the-real-key"
PRICES = Prices((Price(MODEL, date(2026, 1, 1), 3000, 300, 3750, 6000, 15000),))
PATIENCE = Patience(connect_s=2, silence_s=0.5, retry_after_s=3, repeats=0, failures=3)


class Ledger:
    """Rows of calls, as they were written."""

    def __init__(self) -> None:
        self.rows: list[Call] = []
        self.broken = False

    def __call__(self, call: Call) -> None:
        if self.broken:
            raise OSError("the disk is full")
        self.rows.append(call)


@contextmanager
def proxied(
    folder: Path, server: ModelServer, budget: Budget | None = None, patience: Patience = PATIENCE
) -> Iterator[tuple[ModelProxy, Ledger]]:
    ledger = Ledger()
    purse = Purse(budget or Budget(), time.monotonic())
    with ModelProxy(folder / "s", "lane", Provider(server.url, KEY), purse, PRICES, ledger, patience) as proxy:
        yield proxy, ledger


class Line(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("model", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def question(protocol: str, stream: bool = True, **more: Any) -> dict[str, Any]:
    text = {"role": "user", "content": "hello"}
    asked: dict[str, Any] = {"model": MODEL, "stream": stream, **more}
    return {**asked, **({"input": [text]} if protocol == RESPONSES else {"messages": [text]})}


def ask(
    proxy: ModelProxy, protocol: str, body: dict[str, Any] | bytes, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    line = Line(proxy.path)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    line.request("POST", protocol, data, {"x-api-key": "sk-placeholder", **headers})
    answer = line.getresponse()
    try:
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        line.close()


def as_usage(*bills: Bill) -> Usage:
    total = Usage()
    for bill in bills:
        total += Usage(*astuple(bill))
    return total


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_ledger_counts_is_what_the_vendor_billed(tmp_path: Path, protocol: str, stream: bool) -> None:
    with ModelServer([Step("say", content="well")]) as server, proxied(tmp_path, server) as (proxy, ledger):
        for _ in range(3):
            status, data, _ = ask(proxy, protocol, question(protocol, stream))
            assert status == 200
            assert b"done" in data
        told = [row.told for row in ledger.rows]
        assert told == [as_usage(bill) for bill in server.billed]
        assert proxy.purse.spent == Cost(sum(t.total for t in told), sum(PRICES.rows[0].cost(t) for t in told), 3)
        assert {(row.ended, row.status, row.guessed) for row in ledger.rows} == {("complete", 200, Usage())}


def test_the_vendor_sees_the_real_key_and_the_agent_does_not(tmp_path: Path) -> None:
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        _, data, headers = ask(proxy, MESSAGES, question(MESSAGES), authorization="Bearer sk-placeholder")
        sent = server.asked[0]["headers"]
        assert sent["x-api-key"] == KEY
        assert "authorization" not in {name.lower() for name in sent}
        assert KEY not in data.decode() + str(headers) + repr(proxy.provider)


def test_a_row_is_written_before_the_last_byte_goes_on(tmp_path: Path) -> None:
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, ledger):
        ledger.broken = True
        for protocol in PROTOCOLS:
            proxy.fault = None
            with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionError)):
                ask(proxy, protocol, question(protocol))
            assert proxy.fault == "the ledger of tokens cannot be written"
        proxy.fault = None
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            ask(proxy, MESSAGES, question(MESSAGES, stream=False))
        assert b"cannot be written" in ask(proxy, MESSAGES, question(MESSAGES))[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_truncated_answer_is_booked_as_told_and_its_rest_as_a_guess(tmp_path: Path, protocol: str) -> None:
    faults = [Fault("truncated")]
    with ModelServer(faults=faults) as server, proxied(tmp_path, server) as (proxy, ledger):
        ask(proxy, protocol, question(protocol))
        [row] = ledger.rows
        assert row.ended == "broken off"
        assert row.guessed.total > 0
        if protocol == MESSAGES:  # the only one that tells what the input was at the start
            assert replace(row.told, output=0) == replace(as_usage(server.billed[0]), output=0, reasoning=0)
        else:
            assert row.told == Usage()
            assert row.guessed.fresh > 0
        assert proxy.purse.spent.tokens == (row.told + row.guessed).total


def test_an_agent_that_is_killed_while_it_listens_is_booked(tmp_path: Path) -> None:
    with ModelServer(faults=[Fault("endless")]) as server, proxied(tmp_path, server) as (proxy, ledger):
        line = Line(proxy.path)
        line.request("POST", MESSAGES, json.dumps(question(MESSAGES)).encode())
        line.getresponse().read(2000)
        line.sock.shutdown(socket.SHUT_RDWR)
        line.close()
        until = time.monotonic() + 10
        while not ledger.rows and time.monotonic() < until:
            time.sleep(0.01)
        [row] = ledger.rows
        assert row.ended == "agent gone"
        assert row.told.fresh == server.billed[0].fresh
        assert row.guessed.output > 0
        assert proxy.fault is None


def test_hanging_up_books_what_is_in_the_air(tmp_path: Path) -> None:
    patience = replace(PATIENCE, silence_s=60)
    with ModelServer(faults=[Fault("silence")]) as server, proxied(tmp_path, server, None, patience) as (proxy, ledger):
        asking = threading.Thread(target=lambda: ask(proxy, MESSAGES, question(MESSAGES)), daemon=True)
        asking.start()
        while not server.asked:
            time.sleep(0.01)
        proxy.hang_up()
        assert [(row.ended, row.told) for row in ledger.rows] == [("agent gone", Usage())]
        assert ledger.rows[0].guessed.fresh > 0
        assert proxy.fault is None


FAULTS = [
    # fault, status that the agent sees, how it ended, whether anything may have been paid for
    (Fault(401), 401, "failed", False),
    (Fault(402), 402, "failed", False),
    (Fault(403), 403, "failed", False),
    (Fault(429, "2"), 429, "failed", False),
    (Fault(500), 500, "failed", False),
    (Fault(529, "1"), 529, "failed", False),
    (Fault("silence"), 502, "silent", True),
    (Fault("cut off"), 502, "failed", False),
    (Fault("garbage"), 200, "broken off", True),
    (Fault("garbage stream"), 200, "broken off", True),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("fault", "status", "ended", "paid"), FAULTS)
def test_each_fault_leaves_a_row_and_an_exact_purse(
    tmp_path: Path, protocol: str, fault: Fault, status: int, ended: str, paid: bool
) -> None:
    with ModelServer(faults=[fault]) as server, proxied(tmp_path, server, Budget(tokens=100_000)) as (proxy, ledger):
        assert ask(proxy, protocol, question(protocol))[0] == status
        [row] = ledger.rows
        assert row.ended == ended
        spent = (row.told + row.guessed).total
        assert (spent > 0) == paid
        assert proxy.purse.spent.tokens == spent
        assert proxy.purse.left(0).tokens == 100_000 - spent  # nothing stays set aside


@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_is_given_up_at_once(tmp_path: Path, status: int) -> None:
    with ModelServer(faults=[Fault(status)]) as server, proxied(tmp_path, server) as (proxy, _):
        ask(proxy, MESSAGES, question(MESSAGES))
        assert proxy.fault
        assert str(status) in proxy.fault
        assert ask(proxy, MESSAGES, question(MESSAGES))[0] == 400
        assert len(server.asked) == 1


def test_a_vendor_that_fails_again_and_again_is_given_up_and_one_that_recovers_is_not(tmp_path: Path) -> None:
    faults = [Fault(529), Fault(500), None, Fault(500), Fault(529), Fault(500)]
    with ModelServer(faults=faults) as server, proxied(tmp_path, server) as (proxy, _):
        for _ in range(5):
            ask(proxy, MESSAGES, question(MESSAGES))
            assert proxy.fault is None
        ask(proxy, MESSAGES, question(MESSAGES))
        assert proxy.fault == "the model's vendor failed 3 times in a row, the last time with 500"


@pytest.mark.parametrize(("said", "passed"), [("1", "1"), ("90", "3"), ("nonsense", "3"), ("-5", "3")])
def test_no_agent_is_told_to_wait_for_long(tmp_path: Path, said: str, passed: str) -> None:
    with ModelServer(faults=[Fault(429, said)]) as server, proxied(tmp_path, server) as (proxy, _):
        assert ask(proxy, MESSAGES, question(MESSAGES))[2]["retry-after"] == passed


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        (Budget(tokens=200), "does not pay for another answer"),
        (Budget(nano_usd=1000), "does not pay for another answer"),
        (Budget(calls=0), "budget of calls"),
        (Budget(seconds=0), "time budget"),
    ],
)
def test_a_call_that_is_not_paid_for_is_not_made(tmp_path: Path, budget: Budget, says: str) -> None:
    with ModelServer() as server, proxied(tmp_path, server, budget) as (proxy, ledger):
        status, data, _ = ask(proxy, MESSAGES, question(MESSAGES))
        assert status == 400
        assert says in data.decode()
        assert says in str(proxy.purse.refused)
        assert not server.asked
        assert not ledger.rows


@pytest.mark.parametrize(
    ("protocol", "name"), [(MESSAGES, "max_tokens"), (RESPONSES, "max_output_tokens"), (CHAT, "max_tokens")]
)
def test_an_answer_may_be_no_longer_than_the_budget_pays_for(tmp_path: Path, protocol: str, name: str) -> None:
    with ModelServer() as server, proxied(tmp_path, server, Budget(tokens=2000)) as (proxy, _):
        ask(proxy, protocol, question(protocol, **{name: 32_000}))
        assert 256 <= server.asked[0]["body"][name] < 2000


def test_many_agents_at_once_do_not_overspend(tmp_path: Path) -> None:
    budget = Budget(tokens=30_000)
    with ModelServer() as server, proxied(tmp_path, server, budget) as (proxy, ledger):

        def spend() -> None:
            for _ in range(12):
                ask(proxy, MESSAGES, question(MESSAGES, max_tokens=1200, padding="x" * 2200))

        agents = [threading.Thread(target=spend) for _ in range(4)]
        for agent in agents:
            agent.start()
        for agent in agents:
            agent.join()
        assert sum(row.told.total for row in ledger.rows) == proxy.purse.spent.tokens
        assert proxy.purse.spent.tokens == sum(bill.total for bill in server.billed)
        assert 25_000 < proxy.purse.spent.tokens <= 30_000
        assert proxy.purse.refused


def test_tools_that_run_at_the_vendors_are_taken_out(tmp_path: Path) -> None:
    tools = [{"type": "web_search_20250305", "name": "web_search"}, {"name": "Edit", "input_schema": {}}]
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        ask(proxy, MESSAGES, question(MESSAGES, tools=tools, mcp_servers=[{"url": "x"}]))
        ask(proxy, MESSAGES, question(MESSAGES, tools=tools[:1], tool_choice={"type": "any"}))
        assert server.asked[0]["body"]["tools"] == tools[1:]
        assert not {"tools", "tool_choice"} & set(server.asked[1]["body"])
        assert "mcp_servers" not in server.asked[0]["body"]


def test_tools_that_run_at_the_vendors_are_taken_out_of_the_conversation_too(tmp_path: Path) -> None:
    own, vendors = {"type": "custom", "name": "exec"}, {"type": "web_search", "external_web_access": True}
    group = {"type": "namespace", "name": "functions", "tools": [own, vendors]}
    offered = {"type": "additional_tools", "role": "developer", "tools": [vendors, group, own]}
    deep: dict[str, object] = vendors
    for _ in range(200):
        deep = {"type": "namespace", "tools": [deep]}
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        body = question(RESPONSES)
        ask(proxy, RESPONSES, {**body, "input": [offered, {"type": "additional_tools", "tools": [deep]}]})
        [first, second] = server.asked[0]["body"]["input"]
        assert first["tools"] == [{**group, "tools": [own]}, own]
        assert "web_search" not in str(second)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/files", b"{}"),
        (MESSAGES, b"[]"),
        (MESSAGES, b"{"),
        (MESSAGES, b'{"model": 3}'),
        (CHAT, b'{"model":"m","n":9}'),
    ],
)
def test_what_cannot_be_counted_is_not_sent_on(tmp_path: Path, path: str, body: bytes) -> None:
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, ledger):
        assert ask(proxy, path, body)[0] == 400
        assert not server.asked
        assert not ledger.rows


def test_a_model_without_a_price_is_refused_where_money_is_counted(tmp_path: Path) -> None:
    body = {**question(MESSAGES), "model": "unheard-of"}
    with ModelServer() as server:
        with proxied(tmp_path, server, Budget(nano_usd=10**9)) as (proxy, _):
            assert b"no price is known" in ask(proxy, MESSAGES, body)[1]
        with proxied(tmp_path, server, Budget(tokens=10**6)) as (proxy, _):
            assert ask(proxy, MESSAGES, body)[0] == 200


def test_a_vendor_that_is_busy_is_asked_again_before_the_agent_hears_of_it(tmp_path: Path) -> None:
    patience = replace(PATIENCE, repeats=2, failures=9, retry_after_s=0.1)
    faults = [Fault(429, "3600"), Fault(529), None, *[Fault(429)] * 3, None]
    with ModelServer(faults=faults) as server, proxied(tmp_path, server, None, patience) as (proxy, ledger):
        assert [ask(proxy, CHAT, question(CHAT))[0] for _ in range(3)] == [200, 429, 200]
        again = ["asked again", "asked again"]
        assert [row.ended for row in ledger.rows] == [*again, "complete", *again, "failed", "complete"]
        assert proxy.purse.spent.tokens == sum(bill.total for bill in server.billed)
        assert proxy.purse.spent.calls == 3


def content(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


URL = "https://example.test/x.png"
LINKED: list[tuple[str, dict[str, Any]]] = [
    (MESSAGES, content({"type": "image", "source": {"type": "url", "url": URL}})),
    (MESSAGES, content({"type": "document", "source": {"type": "file", "file_id": "f1"}})),
    (MESSAGES, content({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]})),
    (CHAT, content({"type": "image_url", "image_url": {"url": URL}})),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": URL}]}]}),
    (RESPONSES, {"previous_response_id": "r1"}),
    (RESPONSES, {"conversation": "c1"}),
]


@pytest.mark.parametrize(("protocol", "more"), LINKED)
def test_what_the_vendor_would_fetch_or_has_kept_is_not_sent_on(
    tmp_path: Path, protocol: str, more: dict[str, Any]
) -> None:
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        assert ask(proxy, protocol, question(protocol) | more)[0] == 400
        assert not server.asked


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        (MESSAGES, content({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}})),
        (CHAT, content({"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}})),
        (
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png,"}]}]},
        ),
    ],
)
def test_pictures_are_sent_on_and_what_costs_more_is_not(tmp_path: Path, protocol: str, more: dict[str, Any]) -> None:
    dearer = {"service_tier": "priority", "speed": "fast", "background": True}
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        assert ask(proxy, protocol, question(protocol) | more | dearer)[0] == 200
        assert not set(dearer) & set(server.asked[0]["body"])
        assert server.asked[0]["body"] | more == server.asked[0]["body"]


def test_more_connections_than_an_agent_needs_are_closed(tmp_path: Path) -> None:
    with ModelServer() as server, proxied(tmp_path, server) as (proxy, _):
        lines = []
        for _ in range(80):
            line = socket.socket(socket.AF_UNIX)
            line.connect(str(proxy.path))
            lines.append(line)
        assert lines[-1].recv(1) == b""
        for line in lines:
            line.close()
        until = time.monotonic() + 10
        status = 0
        while status != 200 and time.monotonic() < until:
            with contextlib.suppress(http.client.HTTPException, ConnectionError):
                status = ask(proxy, MESSAGES, question(MESSAGES))[0]
        assert status == 200
