"""Starts a station's processes, restarts one that dies, and stops them in order.

- All of them are in one process group of their own, so that a Ctrl-C at the terminal reaches only the supervisor.
- The first command is the station: when it ends well, all end. Exit code 2 means a fault that no restart cures, such
  as a file that was refused or an adapter that is not there; all end then.
- A command that dies quickly many times in a row, or cannot be started at all, stops everything, with the reason.
- Stopping: SIGTERM to each in the order given, waiting for it, so that the uplink can still send the last trials.
- When the supervisor itself is killed the kernel kills its children.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

LOG = logging.getLogger("edge.supervisor")
PR_SET_PDEATHSIG = 1
NO_CURE = 2
CANNOT_START = 127  # as a shell says it
HURRY_S = 6.0  # after a second SIGTERM: a control process then lets its arm down
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LIBC = ctypes.CDLL(None)  # loaded before any fork: the child may only call, not load


@dataclass(frozen=True)
class Restarts:
    """When to try again, and when to give up."""

    quick_s: float = 10.0  # a process that dies younger than this died quickly
    most_quick: int = 5
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    stop_grace_s: float = 20.0  # what a process gets between SIGTERM and SIGKILL; to stow and let down takes 16 s


@dataclass
class _Child:
    command: list[str]
    is_station: bool
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    quick_deaths: int = 0
    start_at_s: float = 0.0

    @property
    def name(self) -> str:
        return " ".join(self.command[-3:])


def supervise(commands: Sequence[list[str]], restarts: Restarts | None = None) -> int:
    """Run the commands until the first one ends well, one gives up, or SIGTERM or SIGINT comes.

    Call it from the main thread. Returns 0, or the exit code that stopped everything: 127 where a command could not be
    started.
    """
    restarts = restarts or Restarts()
    watched = {*STOP_SIGNALS, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    children = [_Child(list(command), index == 0) for index, command in enumerate(commands)]
    try:
        while True:
            for child in children:
                if child.process is None and time.monotonic() >= child.start_at_s and not _start(child, children):
                    return CANNOT_START
            came = signal.sigtimedwait(watched, _until_next_start_s(children))
            if came is not None and came.si_signo in STOP_SIGNALS:
                return 0
            for child in children:
                code = _ended(child, restarts)
                if code is not None:
                    return code
    finally:
        _stop(children, restarts.stop_grace_s)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(child: _Child, children: Sequence[_Child]) -> bool:
    """Start a command; return False, having said so, where that cannot be done."""
    alive = next((item.process for item in children if item.process is not None), None)
    supervisor = os.getpid()
    try:
        child.process = subprocess.Popen(
            child.command,
            process_group=0 if alive is None else os.getpgid(alive.pid),
            preexec_fn=lambda: _bind_to(supervisor),
        )
    except OSError as error:
        LOG.error(
            "cannot start %s: %s; stopping, see that it is installed and may be run", child.command[0], error.strerror
        )
        return False
    child.started_s = time.monotonic()
    return True


def _bind_to(supervisor: int) -> None:
    """In the child: die with the supervisor, and take signals again."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it went before the line above
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _until_next_start_s(children: Sequence[_Child]) -> float:
    starts = [child.start_at_s for child in children if child.process is None]
    return max(0.0, min(starts) - time.monotonic()) if starts else 3600.0


def _ended(child: _Child, restarts: Restarts) -> int | None:
    """Note a death and plan the next start; return an exit code where everything must end."""
    code = child.process.poll() if child.process is not None else None
    if code is None:
        return None
    child.process = None
    age_s = time.monotonic() - child.started_s
    if code == 0 and child.is_station:
        return 0
    if code == NO_CURE:
        LOG.error("%s cannot go on and no restart cures that; correct what it said above", child.name)
        return NO_CURE
    child.quick_deaths = child.quick_deaths + 1 if age_s < restarts.quick_s else 1
    if child.quick_deaths >= restarts.most_quick:
        LOG.error(
            "%s ended %d times within %g s of its start, last with %s; stopping, look at its last lines above",
            child.name,
            child.quick_deaths,
            restarts.quick_s,
            _how(code),
        )
        return 1
    wait_s = min(restarts.first_wait_s * 2.0 ** (child.quick_deaths - 1), restarts.longest_wait_s)
    child.start_at_s = time.monotonic() + wait_s
    LOG.warning("%s ended with %s after %.1f s; starting it again in %.1f s", child.name, _how(code), age_s, wait_s)
    return None


def _stop(children: Sequence[_Child], grace_s: float) -> None:
    for child in children:
        if child.process is None:
            continue
        child.process.terminate()
        if not _gone(child.process, grace_s):
            child.process.terminate()
            child.process.send_signal(signal.SIGINT)  # a control process that stows takes it as "at once"
        if not _gone(child.process, HURRY_S, heed=False):
            LOG.warning("%s did not end within %g s, or a second signal came; killing it", child.name, grace_s)
            child.process.kill()
            child.process.wait()
        child.process = None


def _gone(process: subprocess.Popen[bytes], grace_s: float, heed: bool = True) -> bool:
    """Wait for the end of a process; return False at the end of the grace, or, if heeded, when a stop signal comes."""
    deadline_s = time.monotonic() + grace_s
    while process.poll() is None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return False
        came = signal.sigtimedwait({signal.SIGCHLD, *STOP_SIGNALS}, left_s)
        if heed and came is not None and came.si_signo in STOP_SIGNALS:
            return False
    return True


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    # Most real-time signals have no name.
    return next((item.name for item in signal.Signals if item == -code), f"signal {-code}")
