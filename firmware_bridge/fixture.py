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

import secrets
import select
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import serial

from firmware_bridge.fixture_lines import (
    ACTIONS,
    ENDED,
    LINE_BYTES,
    SEQUENCE_MAX,
    TO_BOARD,
    TO_HOST,
    VERSION,
    FixtureError,
    FixtureGone,
    FixtureNonsense,
    FixtureOverdue,
    FixtureRefused,
    FixtureRestarted,
    FixtureSilent,
    FixtureVersion,
    Greeting,
    Line,
    check_action,
    check_reply,
    encode_line,
    number,
    number_text,
    read_greeting,
    split_lines,
    valid_line,
)

NS_PER_S = 1_000_000_000


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
