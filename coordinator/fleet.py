"""Starts emulated stations as processes, starts one again that ends, and stops them all.

- Each station is a session of its own: a Ctrl-C at the terminal reaches only the coordinator, and whatever a station
  has started can be found and ended, even when the station itself was killed.
- The first station goes ahead: it compiles the kernels that all share, and finds out whether stations can run here.
- When the coordinator dies the kernel tells the stations to stop.
- What a station says goes to `log.txt` in its folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import CoordinatorError

PR_SET_PDEATHSIG = 1
CONFIGURATION_REFUSED = 2
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 20.0
MOST_DOUBLINGS = 16
STEADY_S = 30.0  # a station that ran for longer than this is started again at once
SUPERVISOR = " edge.supervisor "  # it only repeats that something ended
SESSION_FIELD = 3  # of what follows the command's name in /proc/<pid>/stat: state, parent, group, session
EDGE = (sys.executable, "-m", "edge.cli")
_LIBC = ctypes.CDLL(None)  # loaded before any fork: the child may only call, not load


class FleetError(CoordinatorError):
    """Stations cannot be made or started."""


@dataclass
class _Member:
    name: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    session: int = 0
    started_s: float = 0.0
    start_at_s: float = 0.0
    quick_ends: int = 0
    refused: str = ""  # what it said


def make_stations(folder: Path, count: int, seed: int, task: str, endpoint: str, root: Path) -> list[str]:
    """Write the folders of emulated stations, which trust `root`, and return their names.

    Raises:
        FleetError: that did not work; the message is what the command said.
    """
    options = ["--count", count, "--seed", seed, "--task", task, "--connect", endpoint, "--trust", root]
    command = [*EDGE, "make-stations", str(folder), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode != 0:
        raise FleetError(_last_line(done.stderr) or f"enpire-edge make-stations ended with {done.returncode}")
    names: list[str] = json.loads(done.stdout)
    return names


def point_to(folder: Path, names: Sequence[str], endpoint: str) -> None:
    """Tell stations where their coordinator listens now.

    Raises:
        FleetError: their files cannot be read or written.
    """
    for name in names:
        path = folder / name / "station.toml"
        try:
            lines = [
                f'endpoint = "{endpoint}"' if line.startswith("endpoint = ") else line
                for line in path.read_text().splitlines()
            ]
            unfinished = path.with_suffix(".part")
            unfinished.write_text("\n".join(lines) + "\n")
            unfinished.replace(path)
        except OSError as error:
            raise FleetError(f"cannot tell {name} where its coordinator listens: {error.strerror}") from error


def wait_for_stations(folder: Path, names: Sequence[str], at_most_s: float) -> None:
    """Wait until the stations of a run that was killed have ended; they were told to stop when it died.

    Raises:
        FleetError: one still runs.
    """
    folders = {(folder / name).resolve() for name in names}
    deadline_s = time.monotonic() + at_most_s
    while running := [number for number, station in _stations_running() if station in folders]:
        if time.monotonic() >= deadline_s:
            raise FleetError(f"a station of this run still runs (process {running[0]}); end it first")
        time.sleep(FIRST_WAIT_S)


def _stations_running() -> Iterator[tuple[int, Path]]:
    """Yield the process and the folder of every station that runs on this machine."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if EDGE[2] in words and "run" in words:
                yield int(entry.name), (entry / "cwd").resolve() / words[words.index("run") + 1]
        except (OSError, IndexError):
            continue


class Fleet:
    """Station processes."""

    def __init__(self, folder: Path, names: Sequence[str], pace: float) -> None:
        self._members = [_Member(name, folder / name) for name in names]
        self._begun = self._members[:1]
        self._pace = pace
        self._stopping = False

    def start(self) -> None:
        """Start the first station."""
        self._start(self._members[0])

    def start_rest(self) -> None:
        """Start the others, now that the first one runs."""
        for member in self._members[len(self._begun) :]:
            self._start(member)
        self._begun = self._members

    def tend(self) -> list[tuple[str, str]]:
        """Start again what has ended; return (station, sentence) for what happened."""
        if self._stopping:
            return []
        happened = []
        for member in self._begun:
            if member.process is not None and member.process.poll() is not None:
                happened.append((member.name, self._ended(member)))
            if member.process is None and not member.refused and time.monotonic() >= member.start_at_s:
                self._start(member)
        return happened

    @property
    def paced(self) -> bool:
        """Whether stations keep to a pace, rather than run as fast as they can."""
        return self._pace > 0.0

    @property
    def names(self) -> list[str]:
        """The stations by name."""
        return [member.name for member in self._members]

    @property
    def able(self) -> list[str]:
        """Those that have not refused to run."""
        return [member.name for member in self._members if not member.refused]

    @property
    def hopeless(self) -> bool:
        """Whether every station that was started has refused to run."""
        return all(member.refused for member in self._begun)

    @property
    def last_refusal(self) -> str:
        """What a station said when it refused."""
        return next((member.refused for member in self._members if member.refused), "")

    @property
    def running(self) -> bool:
        """Whether any station still runs."""
        return any(member.process is not None and member.process.poll() is None for member in self._members)

    def ask_stop(self) -> None:
        """Ask every station to finish what it is doing and end; `running` says when they have."""
        self._stopping = True
        for member in self._members:
            if member.process is not None and member.process.poll() is None:
                member.process.terminate()

    def kill(self) -> None:
        """End whatever is left of every station, and wait for that."""
        self._stopping = True
        for member in self._members:
            if member.process is not None:
                member.process.kill()
                member.process.wait()
                _kill_session(member.session)

    def _start(self, member: _Member) -> None:
        command = [*EDGE, "run", str(member.folder), "--pace", str(self._pace)]
        try:
            with open(member.folder / "log.txt", "ab") as log:
                member.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_bind_to(os.getpid()),
                )
        except OSError as error:
            raise FleetError(f"cannot start {member.name}: {error.strerror}") from error
        member.session = member.process.pid
        member.started_s = time.monotonic()

    def _ended(self, member: _Member) -> str:
        assert member.process is not None
        code = member.process.returncode
        member.process = None
        # A station that was killed may leave processes that still hold its ledger.
        _kill_session(member.session)
        if code == CONFIGURATION_REFUSED:
            member.refused = _last_error(_read(member.folder / "log.txt")) or "without a word"
            return f"refused to run: {member.refused}"
        steady = time.monotonic() - member.started_s > STEADY_S
        member.quick_ends = 1 if steady else member.quick_ends + 1
        wait_s = wait_after(member.quick_ends)
        member.start_at_s = time.monotonic() + wait_s
        return f"ended with {_how(code)}; starting it again in {wait_s:.1f} s"


def wait_after(quick_ends: int) -> float:
    """Return how long a station is left alone that has ended so often in a row, seconds."""
    return min(FIRST_WAIT_S * 2.0 ** min(quick_ends - 1, MOST_DOUBLINGS), LONGEST_WAIT_S)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = {item.value: item.name for item in signal.Signals}  # most real-time signals have no name
    return known.get(-code, f"signal {-code}")


def _bind_to(coordinator: int) -> Callable[[], None]:
    """Return what a child does first: ask the kernel to be told to stop when the coordinator dies."""

    def bind() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != coordinator:  # it went before the line above
            os._exit(1)

    return bind


def _kill_session(session: int) -> None:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _session_of(entry) == session:
            try:
                os.kill(int(entry.name), signal.SIGKILL)
            except ProcessLookupError:
                continue


def _session_of(entry: Path) -> int:
    try:
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[SESSION_FIELD])


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _last_error(log: str) -> str:
    """Return the last line of a log that tells of an error, the last one where none does."""
    said = [line for line in log.splitlines() if " ERROR " in line and SUPERVISOR not in line]
    return _last_line("\n".join(said) or log)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
