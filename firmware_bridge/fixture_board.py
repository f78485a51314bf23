"""An emulated fixture board: the same protocol as real firmware, with faults on request, in a test or behind a pty.

- `EmulatedBoard.step` is all of the firmware: bytes and time in, bytes out; `acts` lists what moved in the world.
- Faults of the cable are a `Fate` for each line; `restart` and `jam_after` are faults of the board.
- `EmulatedLink` joins host and board on simulated time; nothing sleeps.

`python -m firmware_bridge.fixture_board --kind feeder` prints the path of a pty to try by hand; `--example` prints the
example of docs/fixture-protocol.md.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import select
import time
import tty
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from firmware_bridge.fixture import NS_PER_S
from firmware_bridge.fixture_lines import (
    ACTIONS,
    LINE_BYTES,
    NUMBER,
    TO_BOARD,
    TO_HOST,
    UNASKED,
    VERSION,
    Line,
    Range,
    encode_line,
    number_text,
    split_lines,
    valid_line,
)

KINDS: dict[str, dict[str, Range]] = {
    "feeder": {"feed": Range(1, 10)},
    "turntable": {"turn": Range(-360, 360)},
    "light": {"light": Range(0, 1)},
    "relay": {"relay": Range(0, 1)},
    "bench": {"feed": Range(1, 10), "turn": Range(-360, 360), "light": Range(0, 1), "relay": Range(0, 1)},
}
LASTING = ("light", "relay")
# How long one tie and one degree take.
UNIT_NS = {"feed": 200_000_000, "turn": 10_000_000}
HEARTBEAT_S = 2.0
PTY_POLL_S = 0.01
HALF_CIRCLE = 0x8000  # a number less than half of all numbers ahead is newer, else older (RFC 1982)


@dataclass(frozen=True)
class Job:
    """A long action that runs."""

    request: Line
    amount: float
    reach: float  # how far it will come without its sign; less than `amount` when it jams
    start_ns: int
    end_ns: int


@dataclass
class Session:
    """What the board remembers of one host: its last action's number and the reply to that."""

    token: str
    last: int
    reply: Line | None = None


@dataclass(frozen=True)
class Fate:
    """What happens to one line on its way; a flipped byte may be the line feed."""

    copies: int = 1  # 0 loses the line, 2 doubles it
    flip_at: int = 0
    flip: int = 0
    restart: bool = False  # to the board only: it acts, then restarts before its answer leaves


@dataclass
class EmulatedBoard:
    """One board; `acts` outlives its restarts, because what moved has moved."""

    kind: str = "feeder"
    version: int = VERSION
    jam_after: float | None = None
    acts: list[tuple[str, float]] = field(default_factory=list)
    outputs: dict[str, float] = field(default_factory=dict)
    _session: Session | None = None
    _ended: str = "restarted"
    _job: Job | None = None
    _heard_ns: int = 0
    _rest: bytes = b""
    _announced: bool = False

    def step(self, received: bytes, now_ns: int) -> bytes:
        """Take bytes from the host and return those for it."""
        self._advance(now_ns)
        lines, self._rest = split_lines(self._rest + received)
        answers = [self._answer(line, now_ns) for data in lines if (line := valid_line(data)) and line.mark == TO_BOARD]
        boot = [] if self._announced else [self._say(UNASKED, "boot")]
        self._announced = True
        return b"".join(map(encode_line, boot + answers))

    def restart(self) -> None:
        """Lose power for a moment."""
        self._job, self.outputs = None, {}
        self._session, self._ended, self._rest, self._announced = None, "restarted", b"", False

    def _say(self, sequence: int, word: str, **values: str) -> Line:
        return Line(TO_HOST, self.version, sequence, word, values)

    def _advance(self, now_ns: int) -> None:
        """Let time pass: end the job that is due, go safe when the host has been silent for too long."""
        if self._job is not None and now_ns >= self._job.end_ns:
            self._end_job("jammed" if self._job.reach < abs(self._job.amount) else "", self._job.reach)
        energised = self._job is not None or self.outputs.get("relay", 0) != 0
        if energised and now_ns - self._heard_ns > HEARTBEAT_S * NS_PER_S:
            self._make_safe(now_ns)
            self._session, self._ended = None, "lapsed"

    def _make_safe(self, now_ns: int) -> None:
        """Halt motion and open the relay; a light may stay on."""
        if self._job is not None:
            self._end_job("stopped", self._progress(self._job, now_ns))
        self.outputs["relay"] = 0.0

    def _progress(self, job: Job, now_ns: int) -> float:
        """Return how far a job has come, without its sign; a piece that has begun counts, it may have come out."""
        reached = min(job.reach, (now_ns - job.start_ns) / UNIT_NS[job.request.word])
        return math.ceil(reached) if ACTIONS[job.request.word].whole else reached

    def _end_job(self, why: str, done: float) -> None:
        """End the job and turn the remembered `started` into its outcome."""
        job, self._job = self._job, None
        if job is None or self._session is None or self._session.last != job.request.sequence:
            return
        sequence, text = job.request.sequence, number_text(done if job.amount > 0 else -done)
        outcome = self._say(sequence, "error", why=why, done=text) if why else self._say(sequence, "ok", done=text)
        self._session.reply = outcome

    def _answer(self, request: Line, now_ns: int) -> Line:
        """Return the reply to one valid line."""
        if request.word == "stop":
            self._make_safe(now_ns)
            return self._say(request.sequence, "ok")
        if request.version != self.version:
            return self._say(request.sequence, "error", why="version")
        if request.word == "hello":
            self._greet(request, now_ns)
        if self._session is None:
            return self._say(request.sequence, "error", why=self._ended)
        self._heard_ns = now_ns
        question = {"hello": self._identity, "ranges": self._ranges, "status": self._status}.get(request.word)
        if question is not None:
            return self._say(request.sequence, "ok", **question())
        return self._remembered(self._session, request, now_ns)

    def _greet(self, request: Line, now_ns: int) -> None:
        """Begin a session, unless this is a repeat of the greeting that began the present one."""
        token = request.values.get("token", "")
        if self._session is None or self._session.token != token:
            self._make_safe(now_ns)
            self._session = Session(token, request.sequence)

    def _identity(self) -> dict[str, str]:
        token = self._session.token if self._session else ""
        return {"token": token, "kind": self.kind, "name": f"emulated-{self.kind}"[:16], "firmware": "1.0.0"}

    def _ranges(self) -> dict[str, str]:
        ranges = {name: f"{number_text(r.low)}..{number_text(r.high)}" for name, r in KINDS[self.kind].items()}
        return {"heartbeat_s": number_text(HEARTBEAT_S), **ranges}

    def _status(self) -> dict[str, str]:
        lasting = {name: number_text(self.outputs.get(name, 0)) for name in LASTING if name in KINDS[self.kind]}
        return {"busy": str(int(self._job is not None)), **lasting}

    def _remembered(self, session: Session, request: Line, now_ns: int) -> Line:
        """Act on a new number, answer the last one from memory, refuse an older one."""
        ahead = (request.sequence - session.last) & 0xFFFF
        if 0 < ahead < HALF_CIRCLE:
            session.last = request.sequence
            session.reply = self._begin(request, now_ns)
        elif ahead or session.reply is None:
            return self._say(request.sequence, "error", why="stale")
        return session.reply

    def _begin(self, request: Line, now_ns: int) -> Line:
        """Check an action and do it, or begin it if it is long."""
        allowed = KINDS[self.kind].get(request.word)
        if allowed is None:
            return self._say(request.sequence, "error", why="unknown")
        action = ACTIONS[request.word]
        text = request.values.get(action.argument, "")
        if not NUMBER.fullmatch(text) or (action.whole and not float(text).is_integer()):
            return self._say(request.sequence, "error", why="argument")
        if not allowed.low <= float(text) <= allowed.high:
            return self._say(request.sequence, "error", why="range")
        if self._job is not None:
            return self._say(request.sequence, "busy")
        return self._move(request, float(text), now_ns)

    def _move(self, request: Line, amount: float, now_ns: int) -> Line:
        """Change the world."""
        self.acts.append((request.word, amount))
        if request.word in LASTING:
            self.outputs[request.word] = amount
            return self._say(request.sequence, "ok", done=number_text(amount))
        reach = abs(amount) if self.jam_after is None else min(abs(amount), self.jam_after)
        self._job = Job(request, amount, reach, now_ns, now_ns + round(reach * UNIT_NS[request.word]))
        return self._say(request.sequence, "started")


def deliver(line: bytes, fate: Fate) -> bytes:
    """Return what arrives of one line."""
    at = fate.flip_at % len(line)
    return (line[:at] + bytes([line[at] ^ fate.flip]) + line[at + 1 :]) * fate.copies


class EmulatedLink:
    """A `Link` to an emulated board on simulated time; each line meets the next fate, later ones none."""

    def __init__(self, board: EmulatedBoard, requests: Iterable[Fate] = (), replies: Iterable[Fate] = ()) -> None:
        self.board = board
        self.requests, self.replies = iter(requests), iter(replies)
        self._waiting = b""
        self._now_ns = 0

    def write(self, data: bytes) -> None:
        """Carry one line to the board, and its answer back."""
        fate = next(self.requests, Fate())
        self._carry_back(self.board.step(deliver(data, fate), self._now_ns), lost=fate.restart)
        if fate.restart:
            self.board.restart()

    def read(self, timeout_s: float) -> bytes:
        """Return what waits; if nothing does, let `timeout_s` pass first."""
        if not self._waiting:
            self._now_ns += round(timeout_s * NS_PER_S)
            self._carry_back(self.board.step(b"", self._now_ns), lost=False)
        data, self._waiting = self._waiting, b""
        return data

    def now_ns(self) -> int:
        """Return simulated time."""
        return self._now_ns

    def close(self) -> None:
        """Do nothing."""

    def _carry_back(self, answer: bytes, lost: bool) -> None:
        if not lost:
            self._waiting += spoil(answer, self.replies)


def spoil(data: bytes, fates: Iterator[Fate]) -> bytes:
    """Return what arrives of whole lines, each of which meets the next fate."""
    return b"".join(deliver(line, next(fates, Fate())) for line in data.splitlines(keepends=True))


# Seconds since the line before, number, word, values: what the example of the protocol's page sends.
EXAMPLE: tuple[tuple[float, int, str, Mapping[str, str]], ...] = (
    (0.0, 65534, "feed", {"count": "1"}),
    (0.0, 65534, "hello", {"token": "C0FFEE01"}),
    (0.0, 65535, "ranges", {}),
    (0.0, 1, "feed", {"count": "2"}),
    (0.1, 1, "feed", {"count": "2"}),
    (0.0, 2, "status", {}),
    (0.4, 1, "feed", {"count": "2"}),
    (0.0, 1, "feed", {"count": "2"}),
    (0.0, 3, "turn", {"angle_deg": "90"}),
    (0.8, 4, "light", {"level": "0.25"}),
    (0.2, 5, "relay", {"on": "1"}),
    (0.0, 6, "feed", {"count": "11"}),
    (0.0, 7, "dance", {}),
    (0.0, 5, "relay", {"on": "1"}),
    (2.5, 8, "status", {}),
    (0.0, 9, "stop", {}),
)


def example() -> str:
    """Return the exchange on the protocol's page: one line sent or received a line, and the time that passes."""
    board, now_ns = EmulatedBoard("bench"), 0
    told = [board.step(b"", now_ns)]
    for pause_s, sequence, word, values in EXAMPLE:
        now_ns += round(pause_s * NS_PER_S)
        request = encode_line(Line(TO_BOARD, VERSION, sequence, word, values))
        told += [b"(%.1f s later)\n" % pause_s] if pause_s else []
        told += [request, board.step(request, now_ns)]
    return b"".join(told).decode()


def random_fates(rng: random.Random, drop: float, corrupt: float, double: float) -> Iterator[Fate]:
    """Yield fates without end; each fault comes with its own probability."""
    while True:
        copies = 0 if rng.random() < drop else 2 if rng.random() < double else 1
        flip = rng.randrange(1, 256) if rng.random() < corrupt else 0
        yield Fate(copies, rng.randrange(LINE_BYTES), flip)


def serve(board: EmulatedBoard, requests: Iterator[Fate], replies: Iterator[Fate]) -> None:
    """Print the path of a new pty and be the board behind it until interrupted."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)  # held open too, so that hosts may come and go
    print(os.ttyname(theirs), flush=True)
    while True:
        readable, _, _ = select.select([ours], [], [], PTY_POLL_S)
        received = os.read(ours, 4096) if readable else b""
        os.write(ours, spoil(board.step(spoil(received, requests), time.monotonic_ns()), replies))


def main() -> None:
    """Run the emulated board behind a pty, or print the example."""
    parser = argparse.ArgumentParser(description="An emulated fixture board behind a pty, whose path is printed.")
    parser.add_argument("--kind", choices=sorted(KINDS), default="feeder")
    parser.add_argument("--drop", type=float, default=0.0, help="probability that a line is lost")
    parser.add_argument("--corrupt", type=float, default=0.0, help="probability that a byte of a line is damaged")
    parser.add_argument("--double", type=float, default=0.0, help="probability that a line comes twice")
    parser.add_argument("--jam-after", type=float, help="ties or degrees after which every long action jams")
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument("--example", action="store_true", help="print the example exchange and exit")
    asked = parser.parse_args()
    if asked.example:
        print(example(), end="")
        return
    faults = (asked.drop, asked.corrupt, asked.double)
    board = EmulatedBoard(asked.kind, jam_after=asked.jam_after)
    serve(board, *(random_fates(random.Random(asked.seed + way), *faults) for way in range(2)))


if __name__ == "__main__":
    main()
