"""The lines of text that host and board exchange: their grammar and checksum, and what greetings and replies mean.

`docs/fixture-protocol.md` is the page for whoever writes the firmware.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from firmware_bridge.frames import BridgeError

VERSION = 1
LINE_BYTES = 96  # with the line feed; small enough for a static buffer on an 8-bit board
SEQUENCE_MAX = 0xFFFF
UNASKED = 0  # the number of a line that answers nobody
TO_BOARD, TO_HOST = ">", "<"
CRC_START = 0xFFFF  # CRC-16/CCITT-FALSE; its check value for b"123456789" is 0x29B1

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


def valid_line(data: bytes) -> Line | None:
    """Return the line, None when it fails a check."""
    try:
        return decode_line(data)
    except NotALine:
        return None
