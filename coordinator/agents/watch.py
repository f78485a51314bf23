"""Runs an agent's program and ends it with all that it started: when it is done, silent, too big, or told to.

What it prints is handed on line by line as a transcript. Nothing here reads a meaning into it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coordinator.agents.cage import Launch
from coordinator.errors import CoordinatorError

TICK_S, COUNT_S, LAST_WORDS_S = 0.05, 1.0, 2.0
LONGEST_LINE = 1 << 20
LAST_WORDS = 4096  # bytes kept of what it says on its standard error


@dataclass(frozen=True)
class Watch:
    """What a program may take."""

    wall_s: float = 1800.0
    silence_s: float = 300.0  # without a line printed and without anything through its proxy
    output_bytes: int = 64 << 20
    memory_bytes: int = 6 << 30  # of all its processes together
    processes: int = 512


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int | None  # None where it was ended
    why: str  # one sentence; empty where it ended by itself
    last_words: str
    seconds: float


class NotStarted(CoordinatorError):
    """The program cannot be started."""


def run(
    start: Launch,
    watch: Watch,
    on_line: Callable[[str], None],
    stop: Callable[[], str | None],
    heard_s: Callable[[], float],
) -> Ended:
    """Run a program to its end and return how it ended; nothing of it is left then.

    Args:
        on_line: gets each line that it prints.
        stop: says why it shall be ended now, None to let it go on; asked many times a second.
        heard_s: when anything last went through its proxy, of `time.monotonic`.

    Raises:
        NotStarted: it is not there or cannot be run.
    """
    began_s = time.monotonic()
    try:
        program = subprocess.Popen(
            start.command, env=dict(start.environment), cwd=start.cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NotStarted(f"{start.command[0]} cannot be started: {error.strerror}") from error
    listener = _Listener(program, on_line)
    try:
        why = _watched(program, listener, watch, stop, heard_s, began_s)
    finally:
        _end(program)
        listener.finish()
    words = listener.last_words.decode("utf-8", "replace").strip()
    return Ended(None if why else program.returncode, why or "", words, time.monotonic() - began_s)


def _watched(
    program: subprocess.Popen[bytes],
    listener: _Listener,
    watch: Watch,
    stop: Callable[[], str | None],
    heard_s: Callable[[], float],
    began_s: float,
) -> str | None:
    """Return why the program must be ended; None when it has ended by itself."""
    counted_s = began_s
    while program.poll() is None:
        listener.listen(TICK_S)
        now_s = time.monotonic()
        why = stop()
        if why is None and now_s - began_s > watch.wall_s:
            why = f"ended after its {watch.wall_s:g} seconds"
        if why is None and now_s - max(listener.heard_s, heard_s()) > watch.silence_s:
            why = f"ended after {watch.silence_s:g} seconds of silence"
        if why is None and listener.bytes > watch.output_bytes:
            why = f"ended after it had printed {watch.output_bytes} bytes"
        if why is None and now_s - counted_s > COUNT_S:
            counted_s = now_s
            why = _too_big(program.pid, watch)
        if why is not None:
            return why
    return None


def _too_big(pid: int, watch: Watch) -> str | None:
    tree = list(family(pid))
    if len(tree) > watch.processes:
        return f"ended with more than {watch.processes} processes"
    if sum(map(_memory_bytes, tree)) > watch.memory_bytes:
        return f"ended with more than {watch.memory_bytes >> 20} MB of memory"
    return None


def family(pid: int) -> Iterator[int]:
    """Yield a process and all that it started and that has not been adopted, parents first."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                    yield from family(int(child))


def _memory_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _end(program: subprocess.Popen[bytes]) -> None:
    """End the program and its family. In a cage its first process takes all others with it."""
    for pid in [] if program.poll() is not None else list(family(program.pid)):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


class _Listener:
    """Cuts what a program prints into lines, and keeps the end of what it says on its standard error."""

    def __init__(self, program: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
        assert program.stdout is not None
        assert program.stderr is not None
        self._pipes = (program.stdout, program.stderr)
        self._selector = selectors.DefaultSelector()
        self._on_line = on_line
        self._waiting = bytearray()
        self.last_words = b""
        self.bytes = 0
        self.heard_s = time.monotonic()
        for pipe in self._pipes:
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)

    def listen(self, seconds: float) -> bool:
        """Take in what is there, waiting at most this long; return whether there was anything."""
        if not self._selector.get_map():
            time.sleep(seconds)
            return False
        ready = self._selector.select(seconds)
        for key, _ in ready:
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._pipes[0]:
                self._printed(data)
            else:
                self.last_words = (self.last_words + data)[-LAST_WORDS:]
        return bool(ready)

    def finish(self) -> None:
        """Take in what is left and close the pipes; whoever still holds them on the other side is not waited for."""
        until_s = time.monotonic() + LAST_WORDS_S
        while self._selector.get_map() and time.monotonic() < until_s and self.listen(TICK_S):
            pass
        if self._waiting:
            self._printed(b"\n")
        self._selector.close()
        for pipe in self._pipes:
            pipe.close()

    def _printed(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        self.bytes += len(data)
        self._waiting += data
        while (end := self._waiting.find(b"\n")) >= 0 or len(self._waiting) > LONGEST_LINE:
            end = end if end >= 0 else LONGEST_LINE
            line = bytes(self._waiting[:end])
            del self._waiting[: end + 1]
            self._on_line(line.decode("utf-8", "replace"))
