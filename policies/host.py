"""Where policies run: a small parent that has numpy ready and forks one child a trial, which locks itself in.

Started by the edge as `python -m policies.host FD`, with FD a sequenced-packet socket to it.

- Edge to host: `["run", folder, entry, params, memory_mb, cpu_s]` with the trial's own socket, and `["kill"]`.
- Host to edge: `["ready", layers]` once, and `["ended", exit code]` after each child (negative: what signal ended it).
- The child's first word on the trial's socket is `["caged"]` or `["refused", why]`. Before it nothing of the bundle is
  read, after it the child speaks the language of `policies.link`. It inherits no other descriptor.
- The host holds no threads and no secrets. When the edge goes the host ends; when the host goes its child is killed.
- What a child has started itself is killed with it, however it was detached: the host is where orphans come to.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

import policies.skills
from policies import link
from policies.cage import files, kernel
from policies.cage.layers import Cage, CageError, Limits, enter, prepare
from policies.interface import JointTarget, Observation, OutOfReach, Params, Robot, Scene, ToolTarget, TrialOver

PR_SET_CHILD_SUBREAPER = 36
DETAIL_CHARS = 400
# The files of a policy are modules of this package, so that `from . import geometry` finds the bundle's own file.
PACKAGE = "candidate"


class RobotProxy:
    """The Robot as the child sees it: each call is one packet out and one back."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def observe(self) -> Observation:
        """See `Robot.observe`."""
        return link.observation_from_bytes(self._ask("observe"))

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        """See `Robot.step`.

        Raises:
            BadTarget: the target is not finite numbers of the right shape.
        """
        return link.observation_from_bytes(self._ask(*link.target_to_message(target)))

    def scene(self) -> Scene:
        """See `Robot.scene`."""
        return link.scene_from_list(self._ask("scene"))

    def note(self, text: str) -> None:
        """See `Robot.note`.

        Raises:
            BadNote: that is not text.
        """
        self._ask(*link.note_to_message(text))

    def _ask(self, *request: object) -> Any:
        link.send(self._end, *request)
        kind, value = link.receive(self._end)
        if kind == "out_of_reach":
            raise OutOfReach(value)
        if kind == "trial_over":
            raise TrialOver(value)
        return value


def run_policy(folder: Path, entry: str, params: Params, robot: Robot) -> tuple[str, str]:
    """Run one policy to its end and return (kind, detail) of that end.

    Raises:
        LinkError: the edge is gone.
    """
    try:
        load_run(folder, entry)(robot, params)
    except TrialOver as error:
        return "over", str(error)
    except link.BadTarget as error:
        return "bad_target", f"{error}{_where(error, folder)}"
    except OutOfReach as error:
        return "crashed", f"asked for a pose out of reach{_where(error, folder)}: {error}"
    except link.LinkError:
        raise
    except BaseException as error:  # a policy may raise anything at all, sys.exit() among it
        last = traceback.format_exception_only(error)[-1].strip()
        return "crashed", f"{last}{_where(error, folder)}"
    return "finished", ""


def load_run(folder: Path, entry: str) -> Callable[[Robot, Params], None]:
    """Return the `run` function of the policy in `folder`."""
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder)]
    sys.modules[PACKAGE] = package
    name = f"{PACKAGE}.{Path(entry).stem}"
    spec = importlib.util.spec_from_file_location(name, folder / entry)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    run: Callable[[Robot, Params], None] = module.run
    return run


def serve(control: socket.socket, cage: Cage) -> None:
    """Fork a child for each trial that the edge sends, until the edge is gone."""
    kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)
    link.send(control, "ready", [[layer.name, layer.enforced, layer.why] for layer in cage.layers()])
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, link.PACKET_BYTES, 1)
        if not data:
            return
        message = msgpack.unpackb(data)
        if message[0] != "run":
            continue  # a kill that crossed the end of its child
        trial = socket.socket(fileno=descriptors[0])
        host = os.getpid()
        child = os.fork()
        if child == 0:
            control.close()
            folder, entry, params, memory_mb, cpu_s = message[1:]
            _be_child(trial, host, cage, Path(folder), entry, params, Limits(memory_mb, cpu_s))
        trial.close()
        link.send(control, "ended", _wait(child, control))
        files.hide()


def _be_child(
    trial: socket.socket, host: int, cage: Cage, folder: Path, entry: str, params: Params, limits: Limits
) -> None:
    try:
        for said in (1, 2):  # what a policy prints goes nowhere
            os.dup2(0, said)
        try:
            seen_at = enter(cage, folder, limits, host, trial.fileno())
        except CageError as error:
            link.send(trial, "refused", str(error))
        else:
            link.send(trial, "caged")
            link.send(trial, "end", *_short(run_policy(seen_at, entry, params, RobotProxy(trial))))
    finally:
        os._exit(0)  # nothing of the parent's may run in the child, whatever happened


def _wait(child: int, control: socket.socket) -> int:
    """Return the exit code of the child once all that it started is gone; kill it when the edge asks or goes."""
    watch = os.pidfd_open(child)
    while True:
        if watch in select.select([watch, control.fileno()], [], [])[0]:
            os.close(watch)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            _end_orphans()
            return code
        data = control.recv(link.PACKET_BYTES)
        os.kill(child, signal.SIGKILL)
        if not data:
            os.waitpid(child, 0)
            _end_orphans()
            sys.exit(0)


def _end_orphans() -> None:
    """Kill and reap what the child has left behind; each that dies may leave its own children to this process."""
    with suppress(ChildProcessError):  # at once where nothing is left, as nearly always
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                for orphan in _children():
                    os.kill(orphan, signal.SIGKILL)
                os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    me = str(os.getpid()).encode()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # "number (name) state parent ...", where the name may hold anything.
            if path.read_bytes().rpartition(b")")[2].split()[1] == me:
                yield int(path.parent.name)


def _where(error: BaseException, folder: Path) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).parent == folder:
            return f" ({Path(frame.filename).name}:{frame.lineno})"
    return ""


def _short(end: tuple[str, str]) -> tuple[str, str]:
    kind, detail = end
    sendable = detail.encode(errors="backslashreplace").decode()  # a policy's words may hold lone surrogates
    return kind, " ".join(sendable.split())[:DETAIL_CHARS]


def _preload() -> None:
    for item in pkgutil.walk_packages(policies.skills.__path__, "policies.skills."):
        importlib.import_module(item.name)
    gc.collect()
    gc.freeze()  # the collector then leaves the shared pages of the parent alone


def main() -> None:
    """Serve the edge at the other end of the descriptor named on the command line."""
    # Signals to the process group are for the edge, which then ends this process by closing its socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    _preload()
    try:
        serve(control, prepare())
    except link.LinkClosed:
        return


if __name__ == "__main__":
    main()
