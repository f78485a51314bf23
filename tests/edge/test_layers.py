"""What a machine lacks of the cage is said; a policy runs in what is left, and none where too little is left.

A kernel that lacks something is emulated by a filter of system calls around the policy host: it refuses what such a
kernel would refuse.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.sandbox.process import PolicyEnd, PolicyHost, SandboxError, layers
from policies.cage.layers import WHAT, Layer, unmet
from policies.interface import JointTarget, Observation, Scene, ToolTarget

LONG_S = 60.0  # bound of a wait; nothing is measured by it
ARM = {"x86_64": 0, "aarch64": 1}[platform.machine()]
PRCTL, UNSHARE, BECOME, LANDLOCK = (157, 167)[ARM], (272, 97)[ARM], (117, 147)[ARM], 444
SEEN = Observation(0.0, np.zeros(6), np.zeros(6), np.zeros(6), np.zeros(3), np.eye(4)[0], 0.0)
HEADER = "import os, signal, threading\nimport numpy as np\nfrom policies.interface import JointTarget\n\n\n"
GOOD = "def run(robot, params):\n    robot.step(JointTarget(np.zeros(6)))\n"
READ = "def run(robot, params):\n    raise ValueError(open(params['key']).read())\n"
OPEN_SECRET = "canary in a file that every user may read"

# (number of a system call, its first argument where only that form is refused)
REFUSED: dict[str, tuple[tuple[int, int | None], ...]] = {
    "seccomp": ((PRCTL, 22),),
    "landlock": ((LANDLOCK, None),),
    "namespaces": ((UNSHARE, None),),
    "users": ((BECOME, None),),
    "no_new_privs": ((PRCTL, 38),),
}
# What is left of the cage where these are refused. Without a root of its own, a policy stays the host's user.
LOST = [
    (("seccomp",), {"seccomp"}),
    (("landlock",), {"landlock"}),
    (("namespaces",), {"network", "root", "ipc", "user"}),
    (("users",), {"user"}),
    (("users", "landlock"), {"user", "landlock"}),
    (("namespaces", "users"), {"network", "root", "ipc", "user"}),
]
TOO_LITTLE = [
    (("no_new_privs",), "no privilege can be gained"),
    (("landlock", "namespaces", "users"), "the edge's files stay closed"),
    (("seccomp", "namespaces"), "no network is reached"),
    (("seccomp", "users"), "other processes are left alone"),
]
EMULATED = """\
#!{python} -I
import ctypes, os, struct, sys
from policies.cage import kernel

steps = [(0x20, 0, 0, 0)]
for number, argument in {refused}:
    tail = [(6, 0, 0, 0x50001)]
    if argument is not None:
        tail = [(0x20, 0, 0, 16), (0x15, 0, 1, argument), *tail, (0x20, 0, 0, 0)]
    steps += [(0x15, 0, len(tail), number), *tail]
code = b"".join(struct.pack("=HBBI", *step) for step in [*steps, (6, 0, 0, 0x7FFF0000)])
held = ctypes.create_string_buffer(code, len(code))
kernel.prctl(38, 1)
kernel.prctl(22, 2, struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(held)))
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


class Arm:
    """A robot that stays where it is, and keeps hold of the processes that a policy names as joint targets."""

    def __init__(self) -> None:
        self.watches: list[int] = []

    def observe(self) -> Observation:
        return SEEN

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        assert isinstance(target, JointTarget)
        self.watches += [os.pidfd_open(int(pid)) for pid in target.joints_rad if pid > 0]
        return SEEN

    def scene(self) -> Scene:
        return Scene(0.0, ())


Machine = Callable[[tuple[str, ...]], None]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Have policy hosts start on a machine that lacks what is named."""
    with pytest.MonkeyPatch.context() as patch:
        real = sys.executable

        def lack(names: tuple[str, ...]) -> None:
            refused = [item for name in names for item in REFUSED[name]]
            python = tmp_path / "python"
            python.write_text(EMULATED.format(python=real, refused=refused))
            python.chmod(0o755)
            patch.setattr(sys, "executable", str(python))

        yield lack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the policy at hand lies, as readable as an unpacked bundle is."""
    made = tmp_path / "bundle"
    made.mkdir(mode=0o755)
    (tmp_path / "key").write_text(OPEN_SECRET)
    return made


def run(host: PolicyHost, folder: Path, code: str, robot: Arm | None = None, deadline_s: float = LONG_S) -> PolicyEnd:
    """Run the policy with this source to its end."""
    (folder / "policy.py").write_text(HEADER + code)
    params = {"key": str(folder.parent / "key")}
    return host.run(folder, "policy.py", params, robot or Arm(), reply_deadline_s=deadline_s)  # type: ignore[arg-type]


def test_every_layer_is_named_with_what_it_does_or_why_it_is_missing() -> None:
    found = layers()
    assert [layer.name for layer in found] == list(WHAT)
    assert all(layer.why for layer in found)
    assert all(layer.enforced == (layer.why == WHAT[layer.name]) for layer in found)


@pytest.mark.parametrize(("refused", "lost"), LOST)
def test_a_policy_runs_in_what_is_left_of_its_cage(
    machine: Machine, folder: Path, caplog: pytest.LogCaptureFixture, refused: tuple[str, ...], lost: set[str]
) -> None:
    lost = lost | {layer.name for layer in layers() if not layer.enforced}
    if why := unmet([Layer(name, name not in lost, "missing") for name in WHAT]):
        pytest.skip(f"this machine has too little to lose these too: {why}")
    caplog.clear()
    machine(refused)
    with PolicyHost() as host:
        assert run(host, folder, GOOD) == PolicyEnd("finished", "", 1)
        assert {layer.name for layer in host.layers() if not layer.enforced} == lost
        told = run(host, folder, READ)
        assert told.kind == "crashed"
        assert OPEN_SECRET not in told.detail
        assert run(host, folder, GOOD) == PolicyEnd("finished", "", 1)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert all(f"{name} (" in record.getMessage() for name in lost)
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(("refused", "need"), TOO_LITTLE)
def test_no_policy_runs_where_too_little_is_left(
    machine: Machine, folder: Path, refused: tuple[str, ...], need: str
) -> None:
    complete = all(layer.enforced for layer in layers())  # a machine that lacks more may fail another need first
    machine(refused)
    with PolicyHost() as host:
        for _ in range(2):
            with pytest.raises(SandboxError, match=need if complete else "no policy may run") as caught:
                run(host, folder, GOOD)
            assert "\n" not in str(caught.value)
        assert not all(layer.enforced for layer in host.layers())


def test_a_cage_that_holds_everywhere_is_not_worth_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with PolicyHost() as host:
        complete = all(layer.enforced for layer in host.layers())
        run(host, folder, GOOD)
    assert complete == (not caplog.records)


BROOD = """\
def stay(pipe, generations):
    os.write(pipe, os.getpid().to_bytes(4, "little"))
    if generations and os.fork() == 0:
        os.setsid()
        stay(pipe, generations - 1)
    threading.Event().wait()


def run(robot, params):
    near, far = os.pipe()
    if os.fork() == 0:  # detached as a daemon is
        os.setsid()
        if os.fork() == 0:
            stay(far, 4)
        os._exit(0)
    born = [int.from_bytes(os.read(near, 4), "little") for _ in range(5)]
    robot.step(JointTarget(np.array([0.0, *born])))
    """


@pytest.mark.parametrize(
    ("line", "kind"),
    [("pass", "finished"), ("raise ValueError", "crashed"), ("os._exit(3)", "crashed"), ("while True: pass", "hung")],
)
def test_what_a_policy_could_start_ends_with_its_trial(machine: Machine, folder: Path, line: str, kind: str) -> None:
    if not next(layer for layer in layers() if layer.name == "user").enforced:
        pytest.skip("policies have no user of their own here, which they need where a kernel filters no calls")
    machine(("seccomp",))
    arm = Arm()
    with PolicyHost() as host:
        end = run(host, folder, BROOD + line, arm, 2.0 if kind == "hung" else LONG_S)
        assert (end.kind, end.steps) == (kind, 1), end.detail
        assert len(arm.watches) == 5
        for watch in arm.watches:
            with pytest.raises(ProcessLookupError):  # not even a zombie is left
                signal.pidfd_send_signal(watch, 0)
            os.close(watch)
        assert run(host, folder, GOOD).kind == "finished"
