"""However a policy ends, the host has one of a few words for it; only a lost edge is not the policy's to explain."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest

from policies import link
from policies.cage.layers import WHAT
from policies.host import PACKAGE, RobotProxy, load_run, run_policy
from policies.interface import JointTarget, Observation, OutOfReach, Scene, SceneObject, ToolTarget, TrialOver

LONG_S = 60.0  # bound of a wait; nothing is measured by it
SEEN = Observation(1.5, np.arange(6.0), np.zeros(6), np.ones(6), np.array([0.3, 0.0, 0.1]), np.array([0, 0, 1.0, 0]), 0)
SCENE = Scene(2.5, (SceneObject("tee", 0.3, 0.0, 0.5, 0.001, 0.01),))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The edge's end and the policy's."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # With nobody at the edge's end, a question without its answer fails instead of waiting.
    far.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture(autouse=True)
def _nothing_loaded_stays() -> Iterator[None]:
    """A child runs one policy and ends; here many run in one process."""
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


Ends = tuple[socket.socket, socket.socket]

# The Robot over the link: the answers stand in the socket before the questions are asked.


def test_each_call_is_one_packet_out_and_its_answer_back(ends: Ends) -> None:
    edge, far = ends
    robot = RobotProxy(far)
    for value in (link.observation_to_bytes(SEEN), link.scene_to_list(SCENE), link.observation_to_bytes(SEEN)):
        link.send(edge, "ok", value)
    observed, scene, stepped = robot.observe(), robot.scene(), robot.step(JointTarget(SEEN.joints_rad))
    assert scene == SCENE
    for seen in (observed, stepped):
        assert link.observation_to_bytes(seen) == link.observation_to_bytes(SEEN)
    asked = [link.receive(edge) for _ in range(3)]
    assert asked == [["observe"], ["scene"], ["step", "joint", SEEN.joints_rad.tobytes()]]


@pytest.mark.parametrize(("word", "error"), [("out_of_reach", OutOfReach), ("trial_over", TrialOver)])
def test_what_the_edge_refuses_is_raised_with_its_sentence(ends: Ends, word: str, error: type[Exception]) -> None:
    edge, far = ends
    link.send(edge, word, "a sentence")
    with pytest.raises(error, match=r"^a sentence$"):
        RobotProxy(far).step(ToolTarget(np.zeros(3)))


def test_a_bad_target_never_leaves_the_process(ends: Ends) -> None:
    edge, far = ends
    with pytest.raises(link.BadTarget):
        RobotProxy(far).step(JointTarget(np.full(6, np.nan)))
    edge.setblocking(False)
    with pytest.raises(TimeoutError):
        link.receive(edge)


# How policies end.


def ended(ends: Ends, folder: Path, body: str, *answers: tuple[str, object]) -> tuple[str, str]:
    """Return how a policy of this body ends where the edge gives these answers."""
    edge, far = ends
    lines = ["import numpy as np", "from policies.interface import *", "def run(robot, params):", f"    {body}"]
    (folder / "policy.py").write_text("\n".join(lines))
    for answer in answers:
        link.send(edge, *answer)
    return run_policy(folder, "policy.py", {"speed": 0.5}, RobotProxy(far))


OVER = ("trial_over", "time is used up")
FAR = ("out_of_reach", "2 m away")


@pytest.mark.parametrize(
    ("body", "answers", "end"),
    [
        ("pass", (), ("finished", "")),
        ("return 7", (), ("finished", "")),
        ("assert params == {'speed': 0.5}", (), ("finished", "")),
        ("robot.scene()", (OVER,), ("over", "time is used up")),
        ("robot.step(ToolTarget(np.zeros(3)))", (OVER,), ("over", "time is used up")),
        (
            "robot.step(ToolTarget(np.zeros(3)))",
            (FAR,),
            ("crashed", "asked for a pose out of reach (policy.py:4): 2 m"),
        ),
        (
            "robot.step(ToolTarget(np.zeros(2)))",
            (),
            ("bad_target", "position_m has the shape (2,), not (3,) (policy.py:"),
        ),
        ("robot.step(7)", (), ("bad_target", "step takes a JointTarget or a ToolTarget, not a int (policy.py:4)")),
        ("1 / 0", (), ("crashed", "ZeroDivisionError: division by zero (policy.py:4)")),
        ("raise SystemExit(0)", (), ("crashed", "SystemExit: 0 (policy.py:4)")),
        ("raise KeyboardInterrupt", (), ("crashed", "KeyboardInterrupt (policy.py:4)")),
        ("raise GeneratorExit", (), ("crashed", "GeneratorExit (policy.py:4)")),
        ("raise BaseException('own')", (), ("crashed", "BaseException: own (policy.py:4)")),
        ("run(robot, params)", (), ("crashed", "RecursionError: ")),
        ("no python at all", (), ("crashed", "SyntaxError: ")),
    ],
)
def test_every_way_to_end_has_its_word_and_its_place(
    ends: Ends, tmp_path: Path, body: str, answers: tuple[tuple[str, object], ...], end: tuple[str, str]
) -> None:
    kind, detail = ended(ends, tmp_path, body, *answers)
    assert kind == end[0]
    assert detail.startswith(end[1])
    assert bool(detail) == bool(end[1])


def test_a_lost_edge_is_not_the_policys_fault(ends: Ends, tmp_path: Path) -> None:
    ends[0].close()
    with pytest.raises(link.LinkClosed):
        ended(ends, tmp_path, "robot.observe()")


@pytest.mark.parametrize(
    ("source", "text"),
    [(None, "FileNotFoundError"), ("", "AttributeError"), ("import no_such_module_anywhere", "ModuleNotFoundError")],
)
def test_a_policy_that_cannot_be_loaded_has_crashed(ends: Ends, tmp_path: Path, source: str | None, text: str) -> None:
    if source is not None:
        (tmp_path / "policy.py").write_text(source)
    kind, detail = run_policy(tmp_path, "policy.py", {}, RobotProxy(ends[1]))
    assert kind == "crashed"
    assert detail.startswith(text)


def test_the_files_of_a_policy_import_each_other_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "policy.py").write_text("from . import geometry\nrun = geometry.run\n")
    (tmp_path / "geometry.py").write_text("def run(robot, params):\n    pass\n")
    assert load_run(tmp_path, "policy.py").__module__ == f"{PACKAGE}.geometry"
    assert sys.modules[f"{PACKAGE}.geometry"].__file__ == str(tmp_path / "geometry.py")


# The host as a process.


@pytest.fixture
def control(tmp_path: Path) -> Iterator[socket.socket]:
    """The edge's end of a host that is ready; a policy that says its number and waits lies in `tmp_path`."""
    lines = [
        "import os, signal",
        "def run(robot, params):",
        "    robot._end.send(os.getpid().to_bytes(4, 'little'))",
        "    signal.pause()",
    ]
    (tmp_path / "policy.py").write_text("\n".join(lines))
    tmp_path.chmod(0o755)  # as an unpacked bundle is
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-I", "-m", "policies.host", str(far.fileno())]
    with far, near, subprocess.Popen(command, pass_fds=[far.fileno()]) as host:
        word, layers = link.receive(near)
        assert (word, [name for name, _, _ in layers]) == ("ready", list(WHAT))
        yield near
        near.close()
        assert host.wait(LONG_S) == 0


def ask(control: socket.socket, folder: Path) -> socket.socket:
    """Ask for a trial of the policy in `folder` and return the edge's end of its link."""
    trial, policy = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with policy:
        socket.send_fds(control, [msgpack.packb(["run", str(folder), "policy.py", {}, 512, 60])], [policy.fileno()])
    return trial


def test_when_the_edge_goes_the_policy_ends(control: socket.socket, tmp_path: Path) -> None:
    with ask(control, tmp_path) as trial:
        assert link.receive(trial) == ["caged"]
        watch = os.pidfd_open(int.from_bytes(trial.recv(4), "little"))
        control.close()
        assert select.select([watch], [], [], LONG_S)[0]
        os.close(watch)


def test_a_bundle_that_cannot_be_reached_is_refused_before_a_policy_runs(
    control: socket.socket, tmp_path: Path
) -> None:
    with ask(control, tmp_path / "nowhere") as trial:
        word, why = link.receive(trial)
        assert word == "refused"
        assert "No such file or directory" in why
        with pytest.raises(link.LinkClosed):
            link.receive(trial)
    assert link.receive(control) == ["ended", 0]
    with ask(control, tmp_path) as trial:
        assert link.receive(trial) == ["caged"]
        link.send(control, "kill")
        assert link.receive(control) == ["ended", -signal.SIGKILL]


def test_a_caged_policy_reads_its_program_and_what_it_learned(control: socket.socket, tmp_path: Path) -> None:
    lines = [
        "import json",
        "from pathlib import Path",
        "from policies.skills.program import read_steps",
        "HERE = Path(__file__).parent",
        "def run(robot, params):",
        "    steps = read_steps((HERE / 'program.toml').read_bytes())",
        "    raise ValueError(f\"{steps} {json.loads((HERE / 'pushes.json').read_bytes())}\")",
    ]
    for name, text in (("policy.py", "\n".join(lines)), ("program.toml", "steps = ['look']"), ("pushes.json", "[1.5]")):
        (tmp_path / name).write_text(text)
    with ask(control, tmp_path) as trial:
        assert link.receive(trial) == ["caged"]
        word, kind, text = link.receive(trial)
        assert (word, kind) == ("end", "crashed")
        assert text.startswith("ValueError: ('look',) [1.5]")
