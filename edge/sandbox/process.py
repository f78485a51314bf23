"""Runs a policy in a process of its own and answers what it asks, one trial at a time.

- What the policy does wrong comes back as a `PolicyEnd`; what the edge does wrong is raised.
- Whatever the child does to its host or to itself counts as the policy's failure: no policy can choose `invalid`. Only
  a child that could not be locked in, and so has read nothing of its bundle, is the edge's fault.
- Every request is checked again here. The child has been killed and reaped when `run` returns or raises.
"""

from __future__ import annotations

import logging
import math
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack

from policies import link
from policies.cage.layers import Layer
from policies.interface import OutOfReach, Params, Robot, TrialOver
from policies.space import Resources

KINDS = ("finished", "crashed", "hung", "bad_target", "over")
DETAIL_CHARS = 400
START_DEADLINE_S = 30.0
CAGE_DEADLINE_S = 10.0
REAP_DEADLINE_S = 5.0
CPU_MARGIN_S = 60  # the processor time of a policy is limited by its wall time; this is for when the edge is gone
MOST_ASKED = 1000  # requests in a row that are not a step carried out
NO_START = "the policy host does not start; run `python -m policies.host 0` here to see why"
LOG = logging.getLogger(__name__)
# The host's whole environment, a policy has none: one thread each keeps the fork cheap and honest.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class SandboxError(Exception):
    """The policy's process could not be started: a fault of the edge, not of the policy."""


@dataclass(frozen=True)
class PolicyEnd:
    """How a policy ended: one of KINDS, one sentence for a person, and the targets that were carried out."""

    kind: str
    detail: str
    steps: int


class PolicyHost:
    """One `policies.host` process, restarted when it dies."""

    def __init__(
        self, memory_mb: int = 512, grace_s: float = 1.0, standstill_s: float = 60.0, longest_s: float = 300.0
    ) -> None:
        """Limit each policy to `memory_mb` of address space and to some wall time.

        `grace_s` is for ending once its trial is over, `standstill_s` for all that it does between two steps, and
        `longest_s` for the whole: emulated time passes only with steps, so that the trial's own limit is none for a
        policy that takes few.
        """
        self._memory_mb = memory_mb
        self._grace_s = grace_s
        self._standstill_s = standstill_s
        self._longest_s = longest_s
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._layers: list[Layer] | None = None

    def __enter__(self) -> PolicyHost:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Start the host; its preparation goes on while the caller does other things."""
        if self._process is not None:
            return
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            command = [sys.executable, "-I", "-B", "-m", "policies.host", str(far.fileno())]
            try:
                self._process = subprocess.Popen(
                    command, pass_fds=[far.fileno()], env=ENVIRONMENT, stdin=subprocess.DEVNULL
                )
            except OSError as error:
                near.close()
                raise SandboxError(f"cannot start the policy host: {error.strerror}") from error
        self._control = near
        self._greeted = False

    def layers(self) -> list[Layer]:
        """Return each layer of the cage as the host has found it.

        Raises:
            SandboxError: the host does not start.
        """
        self.start()
        try:
            self._greet()
        except (OSError, link.LinkError) as error:
            self.close()
            raise SandboxError(NO_START) from error
        assert self._layers is not None
        return self._layers

    def close(self) -> None:
        """Kill the host and with it whatever still runs in it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(
        self,
        bundle_dir: Path,
        entry: str,
        params: Params,
        robot: Robot,
        resources: Resources | None = None,
        reply_deadline_s: float = 5.0,
    ) -> PolicyEnd:
        """Run one policy to its end, answering from `robot`.

        `reply_deadline_s` is the wall time that the policy may compute between two requests; `resources` can only
        narrow what every policy is given.

        Raises:
            SandboxError: no policy process can be started here.
            Exception: whatever `robot` raises other than OutOfReach and TrialOver, after the child was killed.
        """
        asked = resources or Resources()
        memory_mb, longest_s = min(asked.memory_mb, self._memory_mb), min(asked.longest_s, self._longest_s)
        near = self._launch(bundle_dir, entry, params, memory_mb, longest_s)
        with near:
            try:
                _await_cage(near)
                end = _Trial(near, robot, reply_deadline_s, self._grace_s, self._standstill_s, longest_s).serve()
            finally:
                exit_code = self._reap()
        return end if end.kind != "vanished" else PolicyEnd("crashed", _obituary(exit_code), end.steps)

    def _launch(self, bundle_dir: Path, entry: str, params: Params, memory_mb: int, longest_s: float) -> socket.socket:
        limits = (memory_mb, math.ceil(longest_s) + CPU_MARGIN_S)
        request = msgpack.packb(["run", str(bundle_dir.absolute()), entry, dict(params), *limits])
        for _ in range(2):  # the host may have died since the last trial
            self.start()
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with far:
                try:
                    control = self._greet()
                    socket.send_fds(control, [request], [far.fileno()])
                    return near
                except (OSError, link.LinkError):
                    near.close()
                    self.close()
        raise SandboxError(NO_START)

    def _greet(self) -> socket.socket:
        assert self._control is not None
        if not self._greeted:
            _set_timeout(self._control, START_DEADLINE_S)
            layers = [Layer(*item) for item in link.receive(self._control)[1]]
            missing = "; ".join(f"{layer.name} ({layer.why})" for layer in layers if not layer.enforced)
            if missing and layers != self._layers:
                LOG.warning("policies run here without these layers of their cage: %s", missing)
            self._greeted, self._layers = True, layers
        return self._control

    def _reap(self) -> int | None:
        """Return the child's exit code, or None where the host is gone and has been replaced."""
        assert self._control is not None
        try:
            _set_timeout(self._control, REAP_DEADLINE_S)
            # A child that has just ended gets no kill: its own exit code is then the one reported.
            if not select.select([self._control], [], [], 0)[0]:
                link.send(self._control, "kill")
            return int(link.receive(self._control)[1])
        except (TimeoutError, link.LinkError):
            self.close()
            self.start()
            return None


class _Trial:
    """The conversation of one trial, as the edge holds it."""

    def __init__(
        self,
        end: socket.socket,
        robot: Robot,
        deadline_s: float,
        grace_s: float,
        standstill_s: float,
        longest_s: float,
    ) -> None:
        self._end = end
        self._robot = robot
        self._deadline_s = deadline_s
        self._grace_s = grace_s
        self._standstill_s = standstill_s
        self._longest_s = longest_s
        self._steps = 0
        self._asked = 0  # since the last step
        self._began_s = self._stepped_s = time.monotonic()
        self._over: TrialOver | None = None
        self._over_since_s = 0.0
        _set_timeout(end, deadline_s)

    def serve(self) -> PolicyEnd:
        """Answer until the policy ends, must be ended or is gone ("vanished")."""
        while True:
            try:
                message = link.receive(self._end)
                if message[0] == "end":
                    return self._ended(message)
                link.send(self._end, *self._reply(message))
                if self._over is not None and not self._grace_left():
                    return self._close("over", "")
                if why := self._standstill():
                    return self._close("hung", why)
            except TimeoutError:
                return self._close("hung", f"asked for nothing for {self._deadline_s:g} s of wall time")
            except link.LinkClosed:
                return self._close("vanished", "")
            except link.LinkError as error:
                return self._close("crashed", f"broke its link to the edge: {error}")
            except link.BadTarget as error:
                return self._close("bad_target", str(error))

    def _standstill(self) -> str:
        """Return why a policy that asks without moving, or takes for ever, is ended; empty where it may go on."""
        if self._asked > MOST_ASKED:
            return f"asked {self._asked} times in a row without a step that was carried out"
        if time.monotonic() - self._stepped_s > self._standstill_s:
            return f"took no step for {self._standstill_s:g} s of wall time"
        if time.monotonic() - self._began_s > self._longest_s:
            return f"took longer than {self._longest_s:g} s of wall time"
        return ""

    def _reply(self, message: list[Any]) -> tuple[str, object]:
        self._asked += 1
        try:
            if self._over is not None:
                raise self._over
            return "ok", self._do(message)
        except OutOfReach as error:
            return "out_of_reach", str(error)
        except TrialOver as error:
            if self._over is None:
                self._over, self._over_since_s = error, time.monotonic()
            return "trial_over", str(error)

    def _do(self, message: list[Any]) -> object:
        if message[0] == "step":
            seen = self._robot.step(link.target_from_message(message))
            self._steps += 1
            self._asked, self._stepped_s = 0, time.monotonic()
            return link.observation_to_bytes(seen)
        if message == ["observe"]:
            return link.observation_to_bytes(self._robot.observe())
        if message == ["scene"]:
            return link.scene_to_list(self._robot.scene())
        if message[0] == "note":
            self._robot.note(link.note_from_message(message))
            return None
        raise link.LinkError("a request that is not known")

    def _grace_left(self) -> bool:
        left_s = self._grace_s - (time.monotonic() - self._over_since_s)
        if left_s > 0:
            _set_timeout(self._end, left_s)
        return left_s > 0

    def _ended(self, message: list[Any]) -> PolicyEnd:
        match message:
            case ["end", "over", _] if self._over is None:
                return self._close("crashed", "raised TrialOver although its trial was not over")
            case ["end", ("finished" | "crashed" | "bad_target" | "over") as kind, str(detail)]:
                return self._close(kind, " ".join(detail.split())[:DETAIL_CHARS])
        raise link.LinkError("an end that is not known")

    def _close(self, kind: str, detail: str) -> PolicyEnd:
        """Return the end; once the trial is over, that is how it ended, whatever the policy did then."""
        if self._over is not None:
            return PolicyEnd("over", str(self._over), self._steps)
        return PolicyEnd(kind, detail, self._steps)


def layers() -> list[Layer]:
    """Return each layer of the cage that policies run in on this machine, as a policy host here finds it.

    Raises:
        SandboxError: no policy host starts.
    """
    with PolicyHost() as host:
        return host.layers()


def _await_cage(near: socket.socket) -> None:
    """Wait until the child has locked itself in; what it says after that is the policy's."""
    _set_timeout(near, CAGE_DEADLINE_S)
    try:
        message = link.receive(near)
    except (TimeoutError, link.LinkError) as error:
        raise SandboxError(f"a policy's process did not lock itself in: {error}; look for memory or load") from error
    if message != ["caged"]:
        raise SandboxError(f"a policy's process could not lock itself in: {message[-1]}")


def _set_timeout(end: socket.socket, seconds: float) -> None:
    """Let the kernel time out reads and writes, which costs no system call a packet."""
    whole, part = divmod(max(int(seconds * 1e6), 1), 1_000_000)
    value = struct.pack("ll", whole, part)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _obituary(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended together with its host process"
    if exit_code < 0:
        # Most real-time signals have no name.
        name = next((item.name for item in signal.Signals if item == -exit_code), f"signal {-exit_code}")
        return f"its process was ended by {name}"
    return f"its process ended by itself with exit code {exit_code} before the policy returned"
