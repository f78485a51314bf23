"""Speaks to a reset aid (a zip-tie feeder, turntable, light or relay) on a USB serial board, in short lines of text.

- Every line carries version, number and checksum; a line that fails any check is treated like silence.
- The host repeats an unanswered line under the same number, and the board answers a repeat from memory: nothing that
  moves is done twice. Whoever gets no answer gets an error, because only eyes can tell whether the board acted.
- A session begins with `hello` and ends when the board restarts or goes safe; the host is told, and never assumes.
- A long action answers `started`; the host polls by repeating its line.
- Values are checked against the ranges that the board announced, before they are sent and again by the board.

`docs/fixture-protocol.md` is the page for whoever writes the firmware.
"""

from __future__ import annotations

import binascii
import re
import secrets
import select
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import serial

from firmware_bridge.frames import BridgeError

VERSION = 1
LINE_BYTES = 96  # with the line feed; small enough for a static buffer on an 8-bit board
SEQUENCE_MAX = 0xFFFF
UNASKED = 0  # the number of a line that answers nobody
TO_BOARD, TO_HOST = ">", "<"
CRC_START = 0xFFFF  # CRC-16/CCITT-FALSE; its check value for b"123456789" is 0x29B1
NS_PER_S = 1_000_000_000

GRAMMAR = re.compile(
    rb"(?P<body>(?P<mark>[<>])(?P<version>[1-9][0-9]?) (?P<sequence>0|[1-9][0-9]{0,4}) (?P<word>[a-z]+)"
    rb"(?P<values>(?: [a-z][a-z0-9_]*=[A-Za-z0-9.+-]+)*) )\*(?P<crc>[0-9A-F]{4})\n"
)
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class FixtureError(BridgeError):
    """Base of everything that a fixture raises."""


class NotALine(FixtureError):
    """Bytes that break the grammar or the checksum."""


class FixtureGone(FixtureError):
    """The serial port does not open, or failed while in use."""


class FixtureSilent(FixtureError):
    """No valid answer after every try; whether the board acted is unknown."""


class FixtureVersion(FixtureError):
    """The board speaks another version of the protocol."""


class FixtureRestarted(FixtureError):
    """The board has restarted and forgotten the session; whether it acted is unknown."""


class FixtureLapsed(FixtureError):
    """The board heard nothing for too long while something was on, and made itself safe."""


class FixtureRefused(FixtureError):
    """A request that the fixture cannot carry out; nothing was done."""


class FixtureBusy(FixtureError):
    """The board still carries out an earlier action; nothing was done."""


class FixtureOverdue(FixtureError):
    """A long action that did not end in time and may still run."""


class FixtureNonsense(FixtureError):
    """A line with a right checksum whose content the protocol does not allow."""


class FixtureFault(FixtureError):
    """An action that began and failed; `why` is the board's word, `done` how far it came."""

    def __init__(self, asked: str, why: str, done: float) -> None:
        super().__init__(f"{asked} failed: {why} after {done:g}; clear the fixture by hand, then ask for the rest")
        self.why, self.done = why, done


# The board's word for why a session ended, with what to do next.
ENDED: dict[str, tuple[type[FixtureError], str]] = {
    "restarted": (FixtureRestarted, "the board has restarted: look at what it did, then say hello()"),
    "lapsed": (FixtureLapsed, "the board went safe: ask for status() more often than its heartbeat, then say hello()"),
}
REFUSALS = frozenset({"unknown", "argument", "range", "stale"})  # the board's words for "nothing was done"


@dataclass(frozen=True)
class Action:
    """What an action is told: the name of its only argument, and whether that is a whole number."""

    argument: str
    whole: bool


ACTIONS = {
    "feed": Action("count", whole=True),
    "turn": Action("angle_deg", whole=False),
    "light": Action("level", whole=False),
    "relay": Action("on", whole=True),
}


@dataclass(frozen=True)
class Line:
    """One line of the protocol without its checksum."""

    mark: str
    version: int
    sequence: int
    word: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Range:
    """The values that an action allows, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Greeting:
    """What a board says that it is; `ranges` has an entry for each action that it can do."""

    kind: str
    name: str
    firmware: str
    heartbeat_s: float
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class FixtureStatus:
    """Whether an action runs, and the outputs that last (`light`, `relay`)."""

    busy: bool
    outputs: Mapping[str, float]


@dataclass(frozen=True)
class Timing:
    """How long the host waits, and how often it tries."""

    reply_s: float = 0.25
    tries: int = 4
    hello_tries: int = 20  # opening the port restarts many boards, and a boot loader takes two seconds
    poll_s: float = 0.1
    action_s: float = 30.0


class Link(Protocol):
    """Carries bytes to and from one board, in order, and owns the clock that waiting is measured with."""

    def write(self, data: bytes) -> None:
        """Send `data`."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Return the bytes that wait; if there are none, those that come within `timeout_s`, perhaps none."""
        ...

    def now_ns(self) -> int:
        """Return the time; it never goes back."""
        ...

    def close(self) -> None:
        """Free the port."""
        ...


def checksum(data: bytes) -> int:
    """Return the CRC-16/CCITT-FALSE of `data`: polynomial 0x1021, start 0xFFFF, nothing reflected."""
    return binascii.crc_hqx(data, CRC_START)


def encode_line(line: Line) -> bytes:
    """Return the bytes of one line, line feed included.

    Raises:
        NotALine: it would break the grammar or be longer than `LINE_BYTES`.
    """
    values = "".join(f" {key}={value}" for key, value in line.values.items())
    body = f"{line.mark}{line.version} {line.sequence} {line.word}{values} ".encode()
    data = body + b"*%04X\n" % checksum(body)
    decode_line(data)
    return data


def decode_line(data: bytes) -> Line:
    """Return the line that these bytes, line feed included, are; encoding it gives the same bytes again.

    Raises:
        NotALine: too long, against the grammar, a number out of range, a key twice, or a wrong checksum.
    """
    match = GRAMMAR.fullmatch(data) if len(data) <= LINE_BYTES else None
    if match is None:
        raise NotALine(f"{data!r} is no line of at most {LINE_BYTES} bytes as in docs/fixture-protocol.md")
    if int(match["crc"], 16) != checksum(match["body"]):
        raise NotALine(f"{data!r} was damaged: its checksum would be {checksum(match['body']):04X}")
    pairs = [pair.split("=") for pair in match["values"].decode().split()]
    values = dict(pairs)
    sequence = int(match["sequence"])
    if len(values) != len(pairs) or sequence > SEQUENCE_MAX:
        raise NotALine(f"{data!r} has a key twice, or a number above {SEQUENCE_MAX}")
    return Line(match["mark"].decode(), int(match["version"]), sequence, match["word"].decode(), values)


def split_lines(waiting: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that are complete, carriage returns dropped, and the bytes of the next one.

    The rest is bounded: of a line that is too long anyway, only its beginning is kept.
    """
    *lines, rest = waiting.split(b"\n")
    return [line.removesuffix(b"\r") + b"\n" for line in lines], rest[: LINE_BYTES + 1]


def number_text(value: float) -> str:
    """Return a finite number as lines carry it: at most four decimals, no exponent, no trailing zeros."""
    text = f"{value:.4f}".rstrip("0").removesuffix(".")
    return "0" if text == "-0" else text


def number(values: Mapping[str, str], key: str) -> float:
    """Return the number under `key`.

    Raises:
        FixtureNonsense: it is missing or no plain decimal number.
    """
    text = values.get(key, "")
    if not NUMBER.fullmatch(text):
        raise FixtureNonsense(f"the board said {key}={text!r} where a number is due: correct its firmware")
    return float(text)


def read_range(name: str, text: str) -> Range:
    """Return the range that `low..high` says.

    Raises:
        FixtureNonsense: not two plain decimal numbers.
    """
    low, _, high = text.partition("..")
    ends = {f"{name}.low": low, f"{name}.high": high}
    return Range(*(number(ends, end) for end in ends))


def read_greeting(identity: Mapping[str, str], ranges: Mapping[str, str]) -> Greeting:
    """Return the greeting in the values of the replies to `hello` and `ranges`.

    Raises:
        FixtureNonsense: a value is missing or not what it should be.
    """
    missing = [key for key in ("kind", "name", "firmware") if key not in identity]
    if missing:
        raise FixtureNonsense(f"the greeting lacks {', '.join(missing)}: correct the board's firmware")
    known = {name: read_range(name, text) for name, text in ranges.items() if name in ACTIONS}
    heartbeat_s = number(ranges, "heartbeat_s")
    return Greeting(identity["kind"], identity["name"], identity["firmware"], heartbeat_s, known)


def check_action(greeting: Greeting, action: str, value: float) -> None:
    """Raise unless this board can do `action` with `value`.

    Raises:
        FixtureRefused: it has no such action, or the value is out of its range, not whole or not finite.
    """
    allowed = greeting.ranges.get(action)
    if allowed is None:
        raise FixtureRefused(f"{greeting.name} ({greeting.kind}) cannot {action}; it can {', '.join(greeting.ranges)}")
    if not allowed.low <= value <= allowed.high:
        raise FixtureRefused(
            f"{greeting.name}: {action} {value} is not within {allowed.low:g}..{allowed.high:g}: ask for less"
        )
    if ACTIONS[action].whole and value != round(value):
        raise FixtureRefused(f"{greeting.name}: {action} {value} is no whole number: round it")


def check_reply(request: Line, reply: Line) -> None:
    """Raise what the reply means, unless it is `ok` or `started`.

    Raises:
        FixtureBusy, FixtureRestarted, FixtureLapsed, FixtureRefused, FixtureFault: as the board says.
        FixtureNonsense: a reply that the protocol does not know.
    """
    asked = f"{request.word} (number {request.sequence})"
    why = reply.values.get("why", "")
    if reply.word in ("ok", "started"):
        return
    if reply.word == "busy":
        raise FixtureBusy(f"{asked} came while another action runs: wait until status() says so, or stop()")
    if reply.word != "error" or not why:
        raise FixtureNonsense(f"{asked} was answered by {reply}: correct the board's firmware")
    if why in ENDED:
        failure, remedy = ENDED[why]
        raise failure(f"{asked} found no session: {remedy}")
    if why in REFUSALS:
        raise FixtureRefused(f"{asked} was refused by the board ({why}): compare with its greeting")
    raise FixtureFault(asked, why, number({"done": "0", **reply.values}, "done"))


class SerialLink:
    """A link over a serial port, which it holds alone."""

    def __init__(self, port: str, baud: int) -> None:
        """Open the port and forget what came before.

        Raises:
            FixtureGone: the port cannot be opened.
        """
        self._port = port
        try:
            self._serial = serial.Serial(port, baud, timeout=0, write_timeout=1.0, exclusive=True)
            self._serial.reset_input_buffer()
        except OSError as error:
            raise FixtureGone(f"{port} does not open ({error}): check cable, permission and other users") from error

    def write(self, data: bytes) -> None:
        """Send `data`.

        Raises:
            FixtureGone: the port failed.
        """
        try:
            self._serial.write(data)
        except OSError as error:
            raise FixtureGone(f"{self._port} failed ({error}): check the cable, then open it again") from error

    def read(self, timeout_s: float) -> bytes:
        """Return the bytes that wait; if there are none, those that come within `timeout_s`, perhaps none.

        Raises:
            FixtureGone: the port failed.
        """
        try:
            select.select([self._serial.fileno()], [], [], timeout_s)
            data: bytes = self._serial.read(LINE_BYTES)
        except OSError as error:
            raise FixtureGone(f"{self._port} failed ({error}): check the cable, then open it again") from error
        return data

    def now_ns(self) -> int:
        """Return monotonic time."""
        return time.monotonic_ns()

    def close(self) -> None:
        """Free the port."""
        self._serial.close()


class Fixture:
    """One board, for one thread; say `hello` before anything but `stop`."""

    def __init__(self, link: Link, timing: Timing | None = None) -> None:
        self._link = link
        self._timing = timing or Timing()
        self._sequence = secrets.randbelow(SEQUENCE_MAX) + 1
        self._greeting: Greeting | None = None
        self._inbox: deque[Line] = deque()
        self._rest = b""

    @property
    def greeting(self) -> Greeting:
        """What the board said that it is.

        Raises:
            FixtureRefused: there is no session.
        """
        if self._greeting is None:
            raise FixtureRefused("there is no session with the board: say hello() first")
        return self._greeting

    def hello(self) -> Greeting:
        """Begin a session, which makes the board safe and forgetful, and return what it is.

        Raises:
            FixtureSilent, FixtureVersion: nobody answers, or in another version.
            FixtureRestarted: the board restarted just after it answered.
            FixtureNonsense: the greeting is incomplete or meant for somebody else.
        """
        self._greeting = None
        token = secrets.token_hex(4).upper()
        identity = self._ask("hello", {"token": token}, self._timing.hello_tries).values
        if identity.get("token") != token:
            raise FixtureNonsense(f"the board greets {identity.get('token')}, not {token}: say hello() again")
        self._greeting = read_greeting(identity, self._ask("ranges").values)
        return self._greeting

    def do(self, action: str, value: float) -> float:
        """Do `action` once, wait for its end, and return how much the board says was done.

        Raises:
            FixtureRefused, FixtureBusy: nothing was done.
            FixtureFault: it was done in part.
            FixtureSilent, FixtureRestarted, FixtureLapsed, FixtureOverdue: unknown; look before asking again.
        """
        check_action(self.greeting, action, value)
        request = self._request(action, {ACTIONS[action].argument: number_text(value)})
        deadline_ns = self._link.now_ns() + round(self._timing.action_s * NS_PER_S)
        reply = self._send(request, self._timing.tries)
        while reply.word == "started":
            if self._link.now_ns() >= deadline_ns:
                raise FixtureOverdue(f"{action} runs for more than {self._timing.action_s:g} s: stop() and look")
            # Usually nothing comes by itself, so that this is the pause between two polls.
            reply = self._reply_to(request, self._timing.poll_s) or self._send(request, self._timing.tries)
        return number(reply.values, "done")

    def feed(self, count: int) -> int:
        """Hand out `count` pieces and return how many came; raises like `do`."""
        return int(self.do("feed", count))

    def turn(self, angle_deg: float) -> float:
        """Turn by `angle_deg`, counter-clockwise from above, and return the angle; raises like `do`."""
        return self.do("turn", angle_deg)

    def light(self, level: float) -> None:
        """Set the light to `level`, 0 dark to 1 full; raises like `do`."""
        self.do("light", level)

    def relay(self, on: bool) -> None:
        """Close or open the relay; a closed one needs `status` more often than the heartbeat. Raises like `do`."""
        self.do("relay", float(on))

    def status(self) -> FixtureStatus:
        """Return what the board does now; this is also the heartbeat that keeps a relay closed.

        Raises:
            FixtureSilent, FixtureRestarted, FixtureLapsed: the session is in doubt.
        """
        values = self._ask("status").values
        outputs = {name: number(values, name) for name in values if name in ACTIONS}
        return FixtureStatus(number(values, "busy") != 0, outputs)

    def stop(self) -> None:
        """Halt motion and open the relay: at any time, with or without a session, on boards of every version.

        Raises:
            FixtureSilent: no answer; cut the power.
        """
        self._ask("stop")

    def close(self) -> None:
        """Free the port; a closed relay opens when the board's heartbeat runs out."""
        self._link.close()

    def _request(self, word: str, values: Mapping[str, str]) -> Line:
        self._sequence = self._sequence % SEQUENCE_MAX + 1
        return Line(TO_BOARD, VERSION, self._sequence, word, values)

    def _ask(self, word: str, values: Mapping[str, str] | None = None, tries: int | None = None) -> Line:
        return self._send(self._request(word, values or {}), tries or self._timing.tries)

    def _send(self, request: Line, tries: int) -> Line:
        """Return the reply to `request`, sent at most `tries` times."""
        for _ in range(tries):
            self._link.write(encode_line(request))
            reply = self._reply_to(request, self._timing.reply_s)
            if reply is not None:
                return reply
        raise FixtureSilent(
            f"{request.word} (number {request.sequence}) got no answer in {tries} tries and may have acted: "
            "check cable, power and port, look, then say hello()"
        )

    def _reply_to(self, request: Line, wait_s: float) -> Line | None:
        """Return the reply to `request`, None when none comes in time; raises like `check_reply`."""
        deadline_ns = self._link.now_ns() + round(wait_s * NS_PER_S)
        while (line := self._next_line(deadline_ns)) is not None:
            self._check_board(request, line)
            if line.sequence == request.sequence:
                self._check_session(request, line)
                return line
        return None

    def _next_line(self, deadline_ns: int) -> Line | None:
        """Return the next valid line from the board, None when none comes before the deadline."""
        while not self._inbox and (left_ns := deadline_ns - self._link.now_ns()) > 0:
            lines, self._rest = split_lines(self._rest + self._link.read(left_ns / NS_PER_S))
            self._inbox.extend(line for line in map(valid_line, lines) if line and line.mark == TO_HOST)
        return self._inbox.popleft() if self._inbox else None

    def _check_board(self, request: Line, line: Line) -> None:
        """Raise if any line, whoever it answers, says that the board is another than it was."""
        if request.word == "stop":
            return
        if line.version != VERSION:
            raise FixtureVersion(f"the board speaks version {line.version}, this host {VERSION}: flash one to match")
        if line.word == "boot" and request.word != "hello":
            self._greeting = None
            raise FixtureRestarted(f"{request.word} (number {request.sequence}): {ENDED['restarted'][1]}")

    def _check_session(self, request: Line, reply: Line) -> None:
        """Raise what the reply means, and forget a session that has ended."""
        if reply.values.get("why") in ENDED:
            self._greeting = None
        check_reply(request, reply)


def valid_line(data: bytes) -> Line | None:
    """Return the line, None when it fails a check."""
    try:
        return decode_line(data)
    except NotALine:
        return None


def open_fixture(port: str, baud: int = 115200, timing: Timing | None = None) -> Fixture:
    """Open `port`, greet the board and return it.

    Raises:
        FixtureGone: the port does not open.
        FixtureError: the greeting failed, as in `Fixture.hello`; the port is free again.
    """
    fixture = Fixture(SerialLink(port, baud), timing)
    try:
        fixture.hello()
    except FixtureError:
        fixture.close()
        raise
    return fixture
