"""Whatever a policy does, its trial ends as the policy's own, and the next policy runs as if nothing had been."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import msgpack
import numpy as np
import pytest

from edge.sandbox.process import KINDS, MOST_ASKED, PolicyEnd, PolicyHost, SandboxError
from policies.interface import (
    JointTarget,
    Observation,
    OutOfReach,
    Params,
    Scene,
    SceneObject,
    ToolTarget,
    TrialOver,
)

LONG_S = 60.0  # bound of a wait; nothing is measured by it
SHORT_S = 0.3  # what a policy that must be found hanging is given
HEADER = """\
import os, signal, sys, threading
import msgpack
import numpy as np
from policies.interface import JointTarget, OutOfReach, ToolTarget, TrialOver
"""
GOOD = "def run(robot, params):\n    robot.step(JointTarget(np.zeros(6)))\n"
SHOWN = Observation(
    0.5, np.arange(6.0), np.arange(6.0) / 7, -np.arange(6.0), np.array([0.3, 0.0, 0.1]), np.eye(4)[2], 0.01
)
SCENE = Scene(0.25, (SceneObject("tee", 0.3, -0.05, 1.0, 1e-4, 1e-3),))


class Arm:
    """A robot that stays where it is, and keeps hold of the processes that a policy names as joint targets."""

    def __init__(self, steps: int = 1_000_000, fault: Exception | None = None, reach_m: float = 10.0) -> None:
        self._steps_left = steps
        self._fault = fault
        self._reach_m = reach_m
        self.watches: dict[int, int] = {}  # process -> descriptor

    def observe(self) -> Observation:
        return SHOWN

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        if self._fault is not None:
            raise self._fault
        if isinstance(target, ToolTarget) and np.linalg.norm(target.position_m) > self._reach_m:
            raise OutOfReach("too far")
        if not self._steps_left:
            raise TrialOver("time is up")
        self._steps_left -= 1
        if isinstance(target, JointTarget):
            new = {int(pid) for pid in target.joints_rad if pid > 0} - set(self.watches)
            self.watches |= {pid: os.pidfd_open(pid) for pid in new}
        return SHOWN

    def scene(self) -> Scene:
        return SCENE

    def outlived(self) -> bool:
        """Wait for the end of every process that was named; return whether one goes on."""
        ended = [select.select([watch], [], [], LONG_S)[0] for watch in self.watches.values()]
        for watch in self.watches.values():
            os.close(watch)
        return not all(ended)


@pytest.fixture(scope="module")
def host() -> Iterator[PolicyHost]:
    with PolicyHost(grace_s=SHORT_S) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the policy at hand lies, as readable as an unpacked bundle is."""
    tmp_path.chmod(0o755)
    return tmp_path


def run(
    host: PolicyHost,
    folder: Path,
    code: str,
    robot: Arm | None = None,
    deadline_s: float = LONG_S,
    params: Params | None = None,
) -> PolicyEnd:
    """Run the policy with this source to its end."""
    (folder / "policy.py").write_text(HEADER + code)
    return host.run(folder, "policy.py", params or {}, robot or Arm(), reply_deadline_s=deadline_s)


def body(*lines: str) -> str:
    """Return a policy that does this and no more."""
    return "def run(robot, params):\n" + "".join(f"    {line}\n" for line in lines)


NAME_ITSELF = "robot.step(JointTarget(np.array([os.getpid(), 0.0, 0.0, 0.0, 0.0, 0.0])))"
NAME_BOTH = "robot.step(JointTarget(np.array([os.getpid(), os.getppid(), 0.0, 0.0, 0.0, 0.0])))"
FAULTS = [
    ("raise ValueError('no\\n idea')", "crashed", "ValueError: no idea (policy.py:7)"),
    ("raise ValueError('\\ud800 \\udcff')", "crashed", r"ValueError: \ud800 \udcff (policy.py:7)"),
    ("raise KeyboardInterrupt", "crashed", "KeyboardInterrupt (policy.py:7)"),
    ("sys.exit(0)", "crashed", "SystemExit: 0"),
    ("os._exit(0)", "crashed", "exit code 0 before the policy returned"),
    ("os._exit(3)", "crashed", "exit code 3 before the policy returned"),
    ("os.abort()", "crashed", "SIGABRT"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", "SIGKILL"),
    ("os.kill(os.getpid(), 40)", "crashed", "ended by signal 40"),
    ("(lambda again: again(again))(lambda again: again(again))", "crashed", "RecursionError"),
    ("raise TrialOver('I have won')", "crashed", "although its trial was not over"),
    ("raise OutOfReach('there')", "crashed", "out of reach"),
    ("bytearray(1 << 40)", "crashed", "MemoryError"),
    ("kept = [bytes(1 << 24) for _ in range(1 << 20)]", "crashed", "MemoryError"),
    ("kept = [os.dup(0) for _ in range(1000)]", "crashed", "Too many open files"),
    ("robot.step(ToolTarget(np.array([np.nan, 0.0, 0.1])))", "bad_target", "not finite"),
    ("robot.step(ToolTarget(np.array([0.3, np.inf, 0.1])))", "bad_target", "not finite"),
    ("robot.step(ToolTarget(np.zeros(3), (0.0, 0.0, 0.0, 0.0)))", "bad_target", "quat_wxyz has the length"),
    ("robot.step(JointTarget(np.full(6, np.nan)))", "bad_target", "not finite"),
    ("robot.step(JointTarget(np.zeros(5)))", "bad_target", "the shape (5,)"),
    ("robot.step(JointTarget('home'))", "bad_target", "not numbers"),
    ("robot.step(np.zeros(6))", "bad_target", "not a ndarray"),
    ("robot.step(None)", "bad_target", "not a NoneType"),
]
RAW = [
    (b"\xc1", "broke its link"),
    (b"\0" * 70_000, "broke its link"),
    (b"\xdd\xff\xff\xff\xff", "broke its link"),
    ([], "broke its link"),
    (5, "broke its link"),
    ({"step": "joint"}, "broke its link"),
    ([3, "observe"], "broke its link"),
    (["launch"], "broke its link"),
    (["observe", "truth"], "broke its link"),
    (["step"], "broke its link"),
    (["step", "joint", b"short"], "broke its link"),
    (["step", "wheel", bytes(48)], "broke its link"),
    (["end"], "broke its link"),
    (["end", "won", ""], "broke its link"),
    (["end", "finished", 3], "broke its link"),
    (["end", "over", "I have won"], "not over"),
    (b"", ""),
]


@pytest.mark.parametrize(("line", "kind", "detail"), FAULTS)
def test_a_policy_s_fault_ends_as_its_own_and_the_next_one_runs(
    host: PolicyHost, folder: Path, line: str, kind: str, detail: str
) -> None:
    arm = Arm()
    end = run(host, folder, body(NAME_ITSELF, line), arm)
    assert (end.kind, end.steps) == (kind, 1), end.detail
    assert detail in end.detail
    assert "\n" not in end.detail
    assert not arm.outlived()
    assert run(host, folder, GOOD) == PolicyEnd("finished", "", 1)


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("", "no attribute 'run'"),
        ("def run(robot, params)\n", "SyntaxError"),
        ("import edges_of_the_world\n", "ModuleNotFoundError"),
        ("raise RuntimeError('at import')\n", "at import (policy.py:5)"),
        ("def run():\n    pass\n", "TypeError"),
    ],
)
def test_a_policy_that_cannot_begin_has_crashed(host: PolicyHost, folder: Path, code: str, detail: str) -> None:
    end = run(host, folder, code)
    assert (end.kind, end.steps) == ("crashed", 0)
    assert detail in end.detail


@pytest.mark.parametrize(
    "line", ["while True: pass", "threading.Event().wait()", "os.kill(os.getpid(), signal.SIGSTOP)"]
)
def test_a_policy_that_asks_for_nothing_hangs_and_is_killed(host: PolicyHost, folder: Path, line: str) -> None:
    arm = Arm()
    end = run(host, folder, body(NAME_ITSELF, line), arm, SHORT_S)
    assert end.kind == "hung", end.detail
    assert not arm.outlived()
    assert run(host, folder, GOOD).kind == "finished"


FAR = "ToolTarget(np.array([9.0, 0.0, 0.1]))"


@pytest.mark.parametrize(
    "lines",
    [
        ("while True: robot.observe()",),
        ("while True: robot.scene()",),
        ("while True:", f"    try: robot.step({FAR})", "    except OutOfReach: robot.observe()"),
    ],
)
def test_a_policy_that_asks_for_ever_without_a_step_is_ended(
    host: PolicyHost, folder: Path, lines: tuple[str, ...]
) -> None:
    arm = Arm(reach_m=1.0)
    end = run(host, folder, body(NAME_ITSELF, *lines), arm)
    assert (end.kind, end.steps) == ("hung", 1)
    assert end.detail == f"asked {MOST_ASKED + 1} times in a row without a step that was carried out"
    assert not arm.outlived()
    assert run(host, folder, GOOD).kind == "finished"


def test_a_policy_may_ask_a_thousand_times_between_two_steps(host: PolicyHost, folder: Path) -> None:
    # The step that ends the questions is a request of its own.
    lines = ("for _ in range(2):", f"    for _ in range({MOST_ASKED - 1}): robot.observe()", f"    {NAME_ITSELF}")
    assert run(host, folder, body(*lines)) == PolicyEnd("finished", "", 2)


def test_a_policy_that_only_now_and_then_asks_without_a_step_is_ended_by_the_clock(folder: Path) -> None:
    arm = Arm()
    with PolicyHost(standstill_s=SHORT_S) as host:
        end = run(host, folder, body(NAME_ITSELF, "while True: threading.Event().wait(0.01); robot.observe()"), arm)
    assert (end.kind, end.detail, end.steps) == ("hung", f"took no step for {SHORT_S:g} s of wall time", 1)
    assert not arm.outlived()


def test_a_policy_that_takes_for_ever_is_ended_by_the_clock(folder: Path) -> None:
    arm = Arm()
    with PolicyHost(longest_s=SHORT_S) as host:
        end = run(host, folder, body(NAME_ITSELF, "while True: robot.step(JointTarget(np.zeros(6)))"), arm)
    assert (end.kind, end.detail) == ("hung", f"took longer than {SHORT_S:g} s of wall time")
    assert not arm.outlived()


@pytest.mark.parametrize(("said", "detail"), RAW)
def test_garbage_on_the_link_is_a_crash(host: PolicyHost, folder: Path, said: object, detail: str) -> None:
    packet = repr(said if isinstance(said, bytes) else msgpack.packb(said))
    end = run(host, folder, body(f"robot._end.send({packet})", "threading.Event().wait()"))
    assert (end.kind, end.steps) == ("crashed", 0), end.detail
    assert detail in end.detail
    assert run(host, folder, GOOD).kind == "finished"


def test_a_target_is_checked_again_behind_the_policy_s_back(host: PolicyHost, folder: Path) -> None:
    for kind, count in (("joint", 6), ("tool", 7)):
        packet = f"msgpack.packb(['step', '{kind}', np.full({count}, np.nan).tobytes()])"
        end = run(host, folder, body(f"robot._end.send({packet})", "robot._end.recv(9)"))
        assert (end.kind, end.steps) == ("bad_target", 0)


def test_a_policy_that_never_reads_its_answers_is_a_crash(host: PolicyHost, folder: Path) -> None:
    flood = "while True: robot._end.send(msgpack.packb(['observe']))"
    assert run(host, folder, body(flood), deadline_s=1.0).kind == "crashed"
    assert run(host, folder, GOOD).kind == "finished"


def test_a_policy_whose_host_is_killed_has_crashed_and_nothing_of_it_goes_on(host: PolicyHost, folder: Path) -> None:
    class Killer(Arm):
        def step(self, target: JointTarget | ToolTarget) -> Observation:
            seen = super().step(target)
            assert isinstance(target, JointTarget)
            os.kill(int(target.joints_rad[1]), signal.SIGKILL)
            return seen

    arm = Killer()
    end = run(host, folder, body(NAME_BOTH, "while True: pass"), arm)
    assert (end.kind, end.steps) == ("crashed", 1)
    assert "host" in end.detail
    assert len(arm.watches) == 2
    assert not arm.outlived()
    assert run(host, folder, GOOD).kind == "finished"


def test_a_host_that_dies_between_two_trials_is_replaced(host: PolicyHost, folder: Path) -> None:
    arm = Arm()
    run(host, folder, body("robot.step(JointTarget(np.array([os.getppid(), 0, 0, 0, 0, 0])))"), arm)
    [watch] = arm.watches.values()
    signal.pidfd_send_signal(watch, signal.SIGKILL)
    assert not arm.outlived()
    assert run(host, folder, GOOD) == PolicyEnd("finished", "", 1)


def test_what_a_policy_prints_goes_nowhere(host: PolicyHost, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = ("for _ in range(100):", "    print('x' * 100_000)", "    os.write(2, b'y' * 100_000)")
    assert run(host, folder, body(*lines)) == PolicyEnd("finished", "", 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "line",
    ["return", "return float('nan')", "return 'success'", "threading.Thread(target=threading.Event().wait).start()"],
)
def test_a_policy_that_returns_has_finished_whatever_it_returns(host: PolicyHost, folder: Path, line: str) -> None:
    arm = Arm()
    assert run(host, folder, body(NAME_ITSELF, NAME_ITSELF, line), arm) == PolicyEnd("finished", "", 2)
    assert not arm.outlived()


@pytest.mark.parametrize(
    "then",
    ["raise", "return", "os._exit(1)", "raise ValueError", "continue", "threading.Event().wait()"],
)
def test_once_the_trial_is_over_that_is_how_it_ended(host: PolicyHost, folder: Path, then: str) -> None:
    lines = ("while True:", f"    try: {NAME_ITSELF}", f"    except TrialOver: {then}")
    arm = Arm(steps=2)
    assert run(host, folder, body(*lines), arm) == PolicyEnd("over", "time is up", 2)
    assert not arm.outlived()


def test_a_pose_out_of_reach_can_be_caught_and_is_a_crash_where_it_is_not(host: PolicyHost, folder: Path) -> None:
    step = "robot.step(ToolTarget(np.array([9.0, 0.0, 0.1])))"
    far = OutOfReach("9 m away")
    end = run(host, folder, body(step), Arm(fault=far))
    assert (end.kind, end.steps) == ("crashed", 0)
    assert "9 m away" in end.detail
    caught = body(f"try: {step}", "except OutOfReach: pass")
    assert run(host, folder, caught, Arm(fault=far)) == PolicyEnd("finished", "", 0)


def test_the_robot_s_own_fault_is_raised_and_the_policy_is_gone(host: PolicyHost, folder: Path) -> None:
    class Broken(Arm):
        def scene(self) -> Scene:
            raise RuntimeError("no camera")

    arm = Broken()
    with pytest.raises(RuntimeError, match="no camera"):
        run(host, folder, body(NAME_ITSELF, "robot.scene()"), arm)
    assert not arm.outlived()
    assert run(host, folder, GOOD).kind == "finished"


def test_a_bundle_that_cannot_be_reached_is_the_edge_s_fault_and_the_next_one_runs(
    host: PolicyHost, folder: Path
) -> None:
    with pytest.raises(SandboxError, match="No such file or directory") as caught:
        host.run(folder / "nowhere", "policy.py", {}, Arm())
    assert "\n" not in str(caught.value)
    assert run(host, folder, GOOD).kind == "finished"


def test_a_policy_sees_what_the_robot_shows(host: PolicyHost, folder: Path) -> None:
    code = body(
        "seen, found = robot.step(JointTarget(np.zeros(6))), robot.scene()",
        "assert (seen.time_s, seen.gripper_m, found.time_s) == (0.5, 0.01, 0.25)",
        "assert (seen.joints_rad == np.arange(6.0)).all() and (seen.joint_torque_nm == -np.arange(6.0)).all()",
        "assert (seen.joint_velocity_rad_s == np.arange(6.0) / 7).all()",
        "assert seen.tool_position_m.tolist() == [0.3, 0.0, 0.1]",
        "assert seen.tool_quat_wxyz.tolist() == robot.observe().tool_quat_wxyz.tolist() == [0.0, 0.0, 1.0, 0.0]",
        "assert repr(found.objects) == params['found']",
        "assert params['speed_m_s'] == 0.1 and params['careful'] is True",
    )
    params: Params = {"found": repr(SCENE.objects), "speed_m_s": 0.1, "careful": True}  # type: ignore[dict-item]
    assert run(host, folder, code, params=params) == PolicyEnd("finished", "", 1)


def test_a_policy_may_import_its_own_files_and_changes_nothing_for_the_next(host: PolicyHost, folder: Path) -> None:
    (folder / "geometry.py").write_text("SIDE_M = 0.1\n")
    spoil = dedent("""\
        from . import geometry
        from policies import interface

        def run(robot, params):
            assert geometry.SIDE_M == 0.1 and interface.POLICY_HZ == 30.0
            interface.POLICY_HZ = geometry.SIDE_M = 0.0
            os.environ["LEFT"] = "behind"
            os.chdir("/")
            assert "behind" == os.environ["LEFT"]
        """)
    check = spoil.replace("    assert geometry", "    assert 'LEFT' not in os.environ\n    assert geometry")
    assert [run(host, folder, code).kind for code in (spoil, check)] == ["finished", "finished"]


def test_a_policy_holds_no_secret_no_file_of_the_edge_and_none_of_its_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENPIRE_TEST_TOKEN", "open sesame")
    packages = "{'edge', 'coordinator', 'firmware_bridge', 'calibration', 'zenoh', 'sqlite3', 'mujoco', 'cv2'}"
    asked = {
        "os.environ": "dict(os.environ)",
        "modules": f"sorted({{name.partition('.')[0] for name in sys.modules}} & {packages})",
        "files": "[stat.filemode(os.fstat(n).st_mode)[0] for n in range(64) if opened(n)]",
    }
    opened = dedent("""\
        import stat

        def opened(n):
            try: os.fstat(n)
            except OSError: return False
            return True

        """)
    with open(folder / "held.txt", "w") as held, PolicyHost() as host:
        os.set_inheritable(held.fileno(), True)
        told = {
            name: run(host, folder, opened + body(f"raise ValueError({what})")).detail for name, what in asked.items()
        }
    assert told["os.environ"].startswith("ValueError: {} ")
    assert told["modules"].startswith("ValueError: [] ")
    assert told["files"].startswith("ValueError: ['c', 'c', 'c', 's'] ")


def test_trials_leave_no_descriptor_and_closing_leaves_no_process(folder: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    arm = Arm()
    with PolicyHost() as host:
        for line in ("pass", "os._exit(1)", "robot._end.send(b'noise')", "while True: pass"):
            run(host, folder, body(NAME_BOTH, line), arm, 1.0)
    assert len(arm.watches) == 5  # four policies and their host
    assert not arm.outlived()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_closing_twice_or_before_the_start_is_nothing_special(folder: Path) -> None:
    host = PolicyHost()
    host.close()
    host.start()
    host.close()
    host.close()
    assert run(host, folder, GOOD).kind == "finished"
    host.close()


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_a_host_that_cannot_start_is_the_edge_s_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    host = PolicyHost()
    with pytest.raises(SandboxError, match="start") as caught:
        run(host, folder, GOOD)
    host.close()
    assert "\n" not in str(caught.value)


def test_every_kind_of_end_is_known() -> None:
    assert {kind for _, kind, _ in FAULTS} | {"finished", "hung", "over"} == set(KINDS)
