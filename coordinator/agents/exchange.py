"""One question and its answer, as it passes through the proxy."""

from __future__ import annotations

import http.client
import json
import logging
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coordinator.agents.asks import Ask, AskRefused, narrowed, read_ask
from coordinator.agents.calls import Call
from coordinator.agents.prices import Price
from coordinator.agents.purse import BudgetSpent, Cost
from coordinator.agents.stream import Events
from coordinator.agents.usage import Meter, Usage

if TYPE_CHECKING:
    from coordinator.agents.proxy import ModelProxy

LOG = logging.getLogger(__name__)
LONGEST_QUESTION = 64 << 20  # bytes
LONGEST_ANSWER = 64 << 20  # bytes of one that does not come as a stream
PIECE = 65536
COUNTING = "/v1/messages/count_tokens"  # costs nothing, so it passes uncounted
LAB = "/lab/dev_trials"  # answered by the lab itself
NOT_PASSED_ON = frozenset(
    {
        "authorization", "x-api-key", "api-key", "cookie", "host", "connection", "content-length", "accept-encoding",
        "transfer-encoding", "keep-alive", "te", "trailer", "upgrade", "proxy-authorization", "proxy-connection",
        "expect", "forwarded",
    }
)  # fmt: skip
NOT_PASSED_BACK = frozenset(
    {"connection", "content-length", "transfer-encoding", "keep-alive", "set-cookie", "date", "server"}
)
BUSY = frozenset({429, 503, 529})
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 502: "api_error"}


class AgentGone(Exception):
    """The agent does not listen any more."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection of an agent's."""

    protocol_version = "HTTP/1.1"
    timeout = 900.0  # seconds; for an agent that opens a connection and says nothing

    def setup(self) -> None:
        self.proxy: ModelProxy = self.server.proxy  # type: ignore[attr-defined]
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        LOG.debug("%s: " + format, self.proxy.lane, *args)

    def flush_headers(self) -> None:
        """Send the head of an answer.

        Raises:
            AgentGone: nobody takes it.
        """
        try:
            super().flush_headers()
        except OSError as error:
            raise AgentGone from error

    def do_HEAD(self) -> None:
        """Say that somebody is here."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """List no models, and have nothing else to be fetched."""
        if "models" in self.path:
            self._reply(200, {"object": "list", "data": [], "models": []})
        else:
            self._refuse(404, "there is nothing to be fetched here")

    def do_POST(self) -> None:
        """Pass a question on."""
        self.proxy.heard_s = time.monotonic()
        try:
            self._question()
        except AskRefused as error:
            self._refuse(400, str(error))
        except BudgetSpent as error:
            self._refuse(400, f"stop now: {error}")
        except (AgentGone, ConnectionError, TimeoutError):
            self.close_connection = True

    def _question(self) -> None:
        body = self._body()
        if self.proxy.fault:
            raise AskRefused(f"stop now: {self.proxy.fault}")
        if self.path == LAB:
            return self._ask_lab(body)
        if self.path.partition("?")[0] == COUNTING:
            return self._pass_uncounted(body)
        ask = read_ask(self.path, body)
        price = self.proxy.price(ask.model)
        now_s = time.monotonic()
        try:
            ask = narrowed(ask, price, self.proxy.purse.left(now_s))
        except BudgetSpent as error:
            self.proxy.purse.refuse(str(error))
            raise
        most = ask.cost_at_most(price)
        self.proxy.purse.set_aside(most, now_s)
        return Exchange(self, ask, price, most).run()

    def _ask_lab(self, body: bytes) -> None:
        if self.proxy.lab is None:
            return self._refuse(404, "the lab runs no attempts of unfinished changes")
        return self.send_whole(
            200, {"content-type": "text/plain; charset=utf-8"}, self.proxy.lab(body).encode("utf-8", "replace")
        )

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_QUESTION:
            self.close_connection = True
            raise AskRefused(f"a question needs a content-length of at most {LONGEST_QUESTION} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise AgentGone
        return body

    def _pass_uncounted(self, body: bytes) -> None:
        line = connect(self.proxy)
        try:
            line.request(
                "POST", upstream_path(self.proxy, self.path), body, passed_on(dict(self.headers.items()), self.proxy)
            )
            answer = line.getresponse()
            data = answer.read(LONGEST_ANSWER)
        except (OSError, http.client.HTTPException):
            return self._refuse(502, "the model's vendor does not answer")
        finally:
            line.close()
        return self.send_whole(answer.status, dict(answer.getheaders()), data)

    def send_whole(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        """Send an answer of known length."""
        self.send_head(status, headers)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.send_bytes(data)

    def send_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the vendor's headers but for those of the connection; none but short waits are asked for."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in NOT_PASSED_BACK:
                self.send_header(name, shorter_wait(name.lower(), value, self.proxy.patience.retry_after_s))

    def send_bytes(self, data: bytes) -> None:
        """Send a piece of an answer.

        Raises:
            AgentGone: nobody takes it.
        """
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError as error:
            raise AgentGone from error
        self.proxy.heard_s = time.monotonic()

    def _refuse(self, status: int, why: str) -> None:
        self._reply(status, {"type": "error", "error": {"type": KINDS[status], "message": why}})

    def _reply(self, status: int, content: object) -> None:
        try:
            self.send_whole(status, {"content-type": "application/json"}, json.dumps(content).encode())
        except (AgentGone, OSError):
            self.close_connection = True


class Exchange:
    """A question that was paid for, from sending it on to its row in the ledger."""

    def __init__(self, handler: Handler, ask: Ask, price: Price, most: Cost) -> None:
        """Begin with what was set aside for it."""
        self._handler, self._proxy, self._ask, self._price, self._most = handler, handler.proxy, ask, price, most
        self._meter = Meter(ask.protocol)
        self._began_s = time.monotonic()
        self._status = 0
        self._booked = self._sent = False

    def run(self) -> None:
        """Send the question on, the answer back, and book it, whatever happens in between.

        A vendor that is too busy is asked again before the agent hears of it: some agents give up at the first time.
        """
        for left in range(self._proxy.patience.repeats, -1, -1):
            wait_s = self._once(left > 0)
            if wait_s is None:
                return
            self._pause(wait_s)

    def _once(self, may_repeat: bool) -> float | None:
        """Ask once; return how long to wait before asking again, None where that is not to be done."""
        line = connect(self._proxy)
        ended, wait_s = "failed", None
        self._proxy.in_air(self, None)
        try:
            line.connect()
            self._proxy.in_air(self, line.sock)
            ended, wait_s = self._through(line, may_repeat)
        except AgentGone:
            ended = "agent gone"
            raise
        except TimeoutError:
            ended = "silent" if self._sent else "failed"
            self._give_up(ended, "the model's vendor said nothing for too long")
        except (OSError, http.client.HTTPException):
            ended = "broken off" if self._status else "failed"
            self._give_up(ended, "the model's vendor cannot be reached or broke off")
        finally:
            try:
                if wait_s is None:
                    self._book(ended)
            finally:
                self._proxy.landed(self)
                line.close()
        return wait_s

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s and not (self._proxy.hung_up or self._proxy.fault):
            self._proxy.heard_s = time.monotonic()  # waiting is no silence
            time.sleep(0.02)

    def _through(self, line: http.client.HTTPConnection, may_repeat: bool) -> tuple[str, float | None]:
        """Return how the answer ended, and how long to wait before asking again if that is to be done."""
        handler = self._handler
        headers = passed_on(dict(handler.headers.items()), self._proxy)
        self._sent = True
        line.request("POST", upstream_path(self._proxy, handler.path), self._ask.body(), headers)
        if line.sock is not None:
            line.sock.settimeout(self._proxy.patience.silence_s)
        answer = line.getresponse()
        self._status = answer.status
        self._proxy.answered(answer.status)
        given = dict(answer.getheaders())
        streams = answer.status == 200 and "event-stream" in (answer.getheader("content-type") or "")
        if streams:
            return self._stream(answer, given), None
        data = answer.read(LONGEST_ANSWER)
        if answer.status == 200:
            self._meter.whole(data)
        ended = "failed" if answer.status != 200 else self._ended()
        if may_repeat and answer.status in BUSY and not (self._proxy.fault or self._proxy.hung_up):
            self._proxy.keep(self._ask, self._row(Usage(), Usage(), 0, "asked again"))
            longest_s = self._proxy.patience.retry_after_s
            return ended, float(shorter_wait("retry-after", answer.getheader("retry-after") or "1", longest_s))
        self._book(ended)
        handler.send_whole(answer.status, given, data)
        return ended, None

    def _stream(self, answer: http.client.HTTPResponse, headers: Mapping[str, str]) -> str:
        """Send events on as they come; the row is written before the last one, or before the end is told."""
        self._handler.send_head(200, headers)
        self._handler.send_header("transfer-encoding", "chunked")
        self._handler.end_headers()
        events = Events()
        for piece in _pieces(answer):
            for raw, data in events.feed(piece):
                if self._meter.event(data):
                    self._book(self._ended())
                self._handler.send_bytes(_chunk(raw))
        self._book(self._ended())
        rest = events.rest()
        self._handler.send_bytes((_chunk(rest) if rest else b"") + b"0\r\n\r\n")
        return self._ended()

    def _ended(self) -> str:
        return "complete" if self._meter.complete else "broken off"

    def _book(self, ended: str) -> None:
        """Book this call once: in the ledger, then in the purse."""
        if self._booked:
            return
        self._booked = True
        told = self._meter.told
        if self._proxy.hung_up and self._sent and ended != "complete":
            ended = "agent gone"
        billed = self._status == 200 or ended in ("silent", "agent gone")
        guessed = self._meter.guessed(self._ask.input_at_most) if billed else Usage()
        cost = self._price.cost(told + guessed)
        try:
            self._proxy.keep(self._ask, self._row(told, guessed, cost, ended))
        finally:
            self._proxy.purse.book(self._most, Cost((told + guessed).total, cost))

    def _row(self, told: Usage, guessed: Usage, cost: int, ended: str) -> Call:
        seconds = time.monotonic() - self._began_s
        ask = self._ask
        return Call(
            time.time(), self._proxy.lane, ask.model, ask.protocol, told, guessed, cost, seconds, self._status, ended
        )

    def _give_up(self, ended: str, why: str) -> None:
        """Book it and tell the agent, unless it has part of the answer already: then the connection just ends."""
        self._book(ended)
        if not self._proxy.hung_up:
            self._proxy.answered(0)
        self._handler.close_connection = True
        if not self._status:
            self._handler._refuse(502, why)


def connect(proxy: ModelProxy) -> http.client.HTTPConnection:
    """Return a connection to the vendor's that is not yet open."""
    parts = urlsplit(proxy.provider.base_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=proxy.patience.connect_s)


def upstream_path(proxy: ModelProxy, path: str) -> str:
    """Return the path at the vendor's."""
    return urlsplit(proxy.provider.base_url).path.rstrip("/") + path


def passed_on(headers: Mapping[str, str], proxy: ModelProxy) -> dict[str, str]:
    """Return an agent's headers with the real key in the place of its own."""
    kept = {name: value for name, value in headers.items() if name.lower() not in NOT_PASSED_ON}
    provider = proxy.provider
    key = {"authorization": f"Bearer {provider.key}"} if provider.bearer else {"x-api-key": provider.key}
    return {**kept, **key, "accept-encoding": "identity", "connection": "close"}


def shorter_wait(name: str, value: str, longest_s: float) -> str:
    """Return the value of a header; where it asks to wait, for no longer than `longest_s`."""
    if name == "retry-after-ms":
        return str(int(min(_number(value, longest_s * 1000), longest_s * 1000)))
    if name != "retry-after":
        return value
    wait_s = _number(value, -1.0)
    if wait_s < 0:
        try:
            wait_s = max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            wait_s = longest_s
    return f"{min(wait_s, longest_s):g}"


def _number(value: str, otherwise: float) -> float:
    try:
        number = float(value)
    except ValueError:
        return otherwise
    return number if number >= 0 else otherwise


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := answer.read1(PIECE):
        yield piece
    if answer.length:  # read1 says nothing of an answer that is shorter than its own length
        raise http.client.IncompleteRead(b"", answer.length)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
