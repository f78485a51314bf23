"""A model's vendor that answers by a script, in the three protocols that coding agents speak, with faults on request.

- It keeps no conversation: which step of the script comes next is the number of tool results in the question.
- `faults[i]` is how the i-th question is answered, the last one for all that follow; none means well.
- What it billed is in `billed`, question by question, so that a ledger can be compared with it.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted-1"
MESSAGES, RESPONSES, CHAT = "/v1/messages", "/v1/responses", "/v1/chat/completions"
ERRORS = {429: "rate_limit_error", 529: "overloaded_error", 401: "authentication_error", 400: "invalid_request_error"}


@dataclass(frozen=True)
class Fault:
    """A wrong answer: a status, or "silence", "truncated", "garbage", "garbage stream", "endless" or "cut off"."""

    kind: int | str
    retry_after: str | None = None


@dataclass(frozen=True)
class Step:
    """What the model does: "write" a file, "read" one, "run" a command, "submit" its hypothesis, "say" something.

    By API it can also "query" the lab's records, make a "dry_run", and ask for "dev_trials" with words in `content`.
    """

    do: str
    path: str = ""
    content: str = ""


@dataclass(frozen=True)
class Bill:
    """Tokens of one answer, as its vendor counts them."""

    fresh: int
    cache_read: int
    cache_write: int
    output: int
    reasoning: int

    @property
    def total(self) -> int:
        return self.fresh + self.cache_read + self.cache_write + self.output + self.reasoning


@dataclass
class ModelServer:
    """The vendor, on a port of the loopback; use it in a `with`."""

    script: Sequence[Step] = ()
    faults: Sequence[Fault | None] = ()
    asked: list[dict[str, Any]] = field(default_factory=list)  # path, headers, body of each question
    billed: list[Bill] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ModelServer:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.model = self  # type: ignore[attr-defined]
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.http.shutdown()
        self.http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def steps(self, path: str, body: dict[str, Any]) -> Sequence[Step]:
        """Return the script of the conversation that a question belongs to."""
        return self.script

    def next_fault(self) -> Fault | None:
        number = len(self.asked) - 1
        return self.faults[min(number, len(self.faults) - 1)] if self.faults else None

    def bill(self) -> Bill:
        """Return another bill than the last one, so that sums tell which answers were counted."""
        number = len(self.billed)
        self.billed.append(Bill(1000 + number, 100 + number, 10 + number, 40 + number, 7 if number % 2 else 0))
        return self.billed[-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._json(200, None)

    def do_GET(self) -> None:
        self._json(200 if "models" in self.path else 404, {"object": "list", "data": [], "models": []})

    def do_POST(self) -> None:
        model: ModelServer = self.server.model  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        if path.endswith("count_tokens"):
            return self._json(200, {"input_tokens": 123})
        model.asked.append({"path": path, "headers": dict(self.headers), "body": body})
        fault = model.next_fault()
        try:
            return self._answer(model, path, body, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, model: ModelServer, path: str, body: dict[str, Any], fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        if isinstance(kind, int):
            waits = {"retry-after": fault.retry_after} if fault and fault.retry_after else {}
            error = {"type": ERRORS.get(kind, "api_error"), "message": "a fault by the script"}
            return self._json(kind, {"type": "error", "error": error}, waits)
        if kind == "silence":
            model.released.wait(60)
            self.close_connection = True
            return None
        if kind == "garbage":
            return self._raw(200, "application/json", b"\x00\xff{{{ not json")
        if kind == "cut off":
            self.close_connection = True
            return None
        results = count_results(path, body)
        script = model.steps(path, body) if body.get("tools") or in_code(body) else ()
        step = script[results] if results < len(script) else Step("say", content="done")
        if kind == "endless":
            return self._endless(path, body, model)
        bill = model.bill()
        events = list(ANSWERS[path](body, step, bill, len(model.asked)))
        if not body.get("stream"):
            return self._json(200, WHOLE[path](body, step, bill, len(model.asked)))
        if kind == "truncated":
            events = events[:-3] if path == MESSAGES else events[:-2]
        if kind == "garbage stream":
            events = [("", "{{{ not json"), ("ping", "\x00\x01"), *events[:1]]
        self._head(200, "text/event-stream")
        for name, data in events:
            self._event(path, name, data)
        return None

    def _endless(self, path: str, body: dict[str, Any], model: ModelServer) -> None:
        bill = model.bill()
        events = list(ANSWERS[path](body, Step("say", content="and so on "), bill, len(model.asked)))
        talk = next(
            event for event in events if "and so on" in json.dumps(event[1]) and "delta" in json.dumps(event[1])
        )
        self._head(200, "text/event-stream")
        for name, data in events[: events.index(talk)]:
            self._event(path, name, data)
        until = time.monotonic() + 60
        while not model.released.is_set() and time.monotonic() < until:
            self._event(path, *talk)
            time.sleep(0.002)

    def _event(self, path: str, name: str, data: Any) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        head = f"event: {name}\n" if path != CHAT and name else ""
        self.wfile.write(f"{head}data: {text}\n\n".encode())
        self.wfile.flush()

    def _head(self, status: int, kind: str) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("connection", "close")
        self.end_headers()

    def _json(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self._raw(status, "application/json", data, headers)

    def _raw(self, status: int, kind: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def count_results(path: str, body: dict[str, Any]) -> int:
    """Return how many results of tools the question holds."""
    if path == RESPONSES:
        return sum(str(item.get("type", "")).endswith("_output") for item in body.get("input", []) if "type" in item)
    messages = body.get("messages", [])
    if path == CHAT:
        return sum(message.get("role") == "tool" for message in messages)
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return sum(part.get("type") == "tool_result" for part in parts)


def in_code(body: dict[str, Any]) -> bool:
    """Return whether Codex offers its tools to a model of its vendor's: in the conversation, to be called by code."""
    return any(isinstance(item, dict) and item.get("type") == "additional_tools" for item in body.get("input", []))


def tool_call(path: str, body: dict[str, Any], step: Step) -> tuple[str, dict[str, Any]]:
    """Return the name and the input of the offered tool that does a step."""
    offered = {}
    for tool in body.get("tools", []):
        inner = tool.get("function", tool)
        schema = inner.get("input_schema") or inner.get("parameters") or {}
        offered[inner.get("name", "")] = schema.get("properties", {})
    if "exec_command" in offered:
        return "exec_command", {"cmd": _command(step)}
    if step.do == "submit":
        return "submit", json.loads(step.content)
    if step.do == "dev_trials":
        return step.do, json.loads(step.content)
    if step.do in ("query", "dry_run"):
        return step.do, {"sql": step.content} if step.do == "query" else {}
    if step.do == "run":
        return "Bash", {"command": step.content, "description": "as the script says"}
    for name in {"write": ("Write", "write", "write_file"), "read": ("Read", "read", "read_file")}[step.do]:
        if name in offered:
            key = next(key for key in ("file_path", "filePath", "path", "name") if key in offered[name])
            return name, {key: step.path, **({"content": step.content} if step.do == "write" else {})}
    raise AssertionError(f"no tool for {step.do} among {sorted(offered)}")


def _command(step: Step) -> str:
    """Return a shell command that does a step."""
    if step.do == "write":
        return f"echo {base64.b64encode(step.content.encode()).decode()} | base64 -d > {step.path}"
    return f"cat {step.path}" if step.do == "read" else step.content


Events = Iterator[tuple[str, Any]]


def _messages(body: dict[str, Any], step: Step, bill: Bill, number: int) -> Events:
    whole = _messages_whole(body, step, bill, number)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    block = whole["content"][0]
    if block["type"] == "text":
        empty, deltas = {"type": "text", "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    else:
        text = json.dumps(block["input"])
        halves = (text[: len(text) // 2], text[len(text) // 2 :])
        empty, deltas = {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": half} for half in halves]
    yield "message_start", {"type": "message_start", "message": begun}
    yield "ping", {"type": "ping"}
    yield "content_block_start", {"type": "content_block_start", "index": 0, "content_block": empty}
    for delta in deltas:
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": whole["usage"]["output_tokens"], "output_tokens_details": _thought(bill)}
    yield "message_delta", {"type": "message_delta", "delta": ending, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _thought(bill: Bill) -> dict[str, int]:
    return {"thinking_tokens": bill.reasoning}


def _messages_whole(body: dict[str, Any], step: Step, bill: Bill, number: int) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": step.content}
    if step.do != "say":
        name, given = tool_call(MESSAGES, body, step)
        block = {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": given}
    usage = {
        "input_tokens": bill.fresh,
        "cache_read_input_tokens": bill.cache_read,
        "cache_creation_input_tokens": bill.cache_write,
        "output_tokens": bill.output + bill.reasoning,
        "output_tokens_details": _thought(bill),
    }
    return {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"], "content": [block],
        "stop_reason": "end_turn" if step.do == "say" else "tool_use", "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _responses(body: dict[str, Any], step: Step, bill: Bill, number: int) -> Events:
    whole = _responses_whole(body, step, bill, number)
    [item] = whole["output"]
    begun = {**whole, "status": "in_progress", "output": []}
    del begun["usage"]
    events: list[tuple[str, dict[str, Any]]] = [("response.created", {"response": begun})]
    events.append(("response.output_item.added", {"output_index": 0, "item": item}))
    if step.do == "say":
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events.append(("response.output_text.delta", {**place, "delta": step.content}))
    events.append(("response.output_item.done", {"output_index": 0, "item": item}))
    events.append(("response.completed", {"response": whole}))
    for place_in, (kind, event) in enumerate(events):
        yield kind, {"type": kind, "sequence_number": place_in, **event}


def _responses_whole(body: dict[str, Any], step: Step, bill: Bill, number: int) -> dict[str, Any]:
    if step.do == "say":
        part = {"type": "output_text", "text": step.content, "annotations": []}
        item = {"type": "message", "id": f"m{number}", "role": "assistant", "status": "completed", "content": [part]}
    elif in_code(body):
        script = f"text(await tools.exec_command({json.dumps({'cmd': _command(step)})}))"
        call = {"id": f"f{number}", "call_id": f"c{number}", "name": "exec", "input": script}
        item = {"type": "custom_tool_call", "status": "completed", **call}
    else:
        name, given = tool_call(RESPONSES, body, step)
        call = {"id": f"f{number}", "call_id": f"c{number}", "name": name, "arguments": json.dumps(given)}
        item = {"type": "function_call", **call}
    inside, outside = bill.fresh + bill.cache_read + bill.cache_write, bill.output + bill.reasoning
    usage = {
        "input_tokens": inside,
        "input_tokens_details": {"cached_tokens": bill.cache_read, "cache_write_tokens": bill.cache_write},
        "output_tokens": outside,
        "output_tokens_details": {"reasoning_tokens": bill.reasoning},
        "total_tokens": inside + outside,
    }
    return {
        "id": f"r{number}", "object": "response", "created_at": 0, "status": "completed", "model": body["model"],
        "output": [item], "usage": usage,
    }  # fmt: skip


def _chat(body: dict[str, Any], step: Step, bill: Bill, number: int) -> Events:
    whole = _chat_whole(body, step, bill, number)
    message = whole["choices"][0]["message"]
    calls = [{"index": 0, **call} for call in message.get("tool_calls", [])]
    delta = {"role": "assistant", "content": message["content"], **({"tool_calls": calls} if calls else {})}
    chunk = {"id": whole["id"], "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    ending = whole["choices"][0]["finish_reason"]
    yield "", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield "", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": ending}]}
    yield "", {**chunk, "choices": [], "usage": whole["usage"]}
    yield "", "[DONE]"


def _chat_whole(body: dict[str, Any], step: Step, bill: Bill, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": step.content if step.do == "say" else None}
    if step.do != "say":
        name, given = tool_call(CHAT, body, step)
        function = {"name": name, "arguments": json.dumps(given)}
        message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": function}]
    inside, outside = bill.fresh + bill.cache_read + bill.cache_write, bill.output + bill.reasoning
    usage = {
        "prompt_tokens": inside,
        "completion_tokens": outside,
        "total_tokens": inside + outside,
        "prompt_tokens_details": {"cached_tokens": bill.cache_read, "cache_write_tokens": bill.cache_write},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning},
    }
    choice = {"index": 0, "message": message, "finish_reason": "stop" if step.do == "say" else "tool_calls"}
    head = {"id": f"chat{number}", "object": "chat.completion", "created": 0, "model": body["model"]}
    return {**head, "choices": [choice], "usage": usage}


ANSWERS = {MESSAGES: _messages, RESPONSES: _responses, CHAT: _chat}
WHOLE = {MESSAGES: _messages_whole, RESPONSES: _responses_whole, CHAT: _chat_whole}
