"""How long it takes from a bundle's folder to a policy that asks its first question, and how long each question takes.

In that time the policy's process is forked from the host, closes its cage and imports the policy. A question is one
step of a loop at full speed: target checked, sent, checked again, answered by a robot that costs nothing, answer read.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

import policies.push_t
from edge.sandbox.process import PolicyHost
from policies import space
from policies.interface import JointTarget, Observation, Scene, ToolTarget, TrialOver

STARTS = 300
STEPS = 20_000
START_BOUND_MS = 10.0
TRIP_BOUND_US = 200.0
SEEN = Observation(0.0, np.zeros(6), np.zeros(6), np.zeros(6), np.zeros(3), np.eye(4)[0], 0.0)
STEPPER = f"""\
import statistics, time

import numpy as np
from policies.interface import JointTarget


def run(robot, params):
    target, taken_us = JointTarget(np.zeros(6)), []
    for _ in range({STEPS}):
        began = time.perf_counter_ns()
        robot.step(target)
        taken_us.append((time.perf_counter_ns() - began) / 1e3)
    cuts = statistics.quantiles(taken_us, n=100)
    raise ValueError(f"{{cuts[49]}} {{cuts[98]}}")
"""


class FirstQuestion:
    """A robot that is over at the first question and keeps when that came."""

    def __init__(self) -> None:
        self.asked_s = 0.0

    def observe(self) -> Observation:
        raise self._over()

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        raise self._over()

    def scene(self) -> Scene:
        raise self._over()

    def note(self, text: str) -> None:
        raise self._over()

    def _over(self) -> TrialOver:
        self.asked_s = time.perf_counter()
        return TrialOver("asked")


class Still:
    """A robot that answers at once; it looks at how much memory the policy and its host use when asked for a scene."""

    def __init__(self) -> None:
        self.memory_mb: dict[str, float] = {}

    def observe(self) -> Observation:
        return SEEN

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        return SEEN

    def scene(self) -> Scene:
        host = next(iter(_children("self")))
        policy = next(iter(_children(host)))
        self.memory_mb = {"host": _memory_mb(host, "Pss"), "policy": _memory_mb(policy, "Private_Dirty")}
        return Scene(0.0, ())

    def note(self, text: str) -> None:
        """Do nothing."""


def main() -> None:
    """Print the medians; the last line is one JSON object."""
    push_t = Path(policies.push_t.__path__[0])
    params = space.load_space(push_t).complete({})
    with tempfile.TemporaryDirectory() as made, PolicyHost() as host:
        folder = Path(made)
        folder.chmod(0o755)  # as an unpacked bundle is
        (folder / "empty.py").write_text("def run(robot, params):\n    robot.observe()\n")
        (folder / "stepper.py").write_text(STEPPER)
        (folder / "looker.py").write_text("def run(robot, params):\n    robot.scene()\n")
        missing = [layer.name for layer in host.layers() if not layer.enforced]
        empty_ms = start_ms(host, folder, "empty.py", {})
        push_t_ms = start_ms(host, push_t, "policy.py", params)
        end = host.run(folder, "stepper.py", {}, Still(), reply_deadline_s=60.0)
        assert (end.kind, end.steps) == ("crashed", STEPS), end
        trip_us, slow_us = map(float, end.detail.split()[1:3])
        still = Still()
        assert host.run(folder, "looker.py", {}, still).kind == "finished"
    rows = [
        _row(
            "bundle to running policy, push_t: fork, cage, import to its first question, median ms",
            push_t_ms,
            START_BOUND_MS,
        ),
        _row("the same of a policy of two lines, median ms", empty_ms, None),
        _row("observation-action round trip, median us", trip_us, TRIP_BOUND_US),
        _row("observation-action round trip, 99th percentile, us", slow_us, None),
        _row("memory of the host and its share of the policy's, MB", still.memory_mb["host"], None),
        _row("memory of a policy's own, MB", still.memory_mb["policy"], None),
        {
            "what": "layers of the cage missing on this machine",
            "figure": ", ".join(missing) or "none",
            "bound": "",
            "holds": None,
        },
    ]
    print(json.dumps({"name": "sandbox", "rows": rows}))


def start_ms(host: PolicyHost, folder: Path, entry: str, params: Mapping[str, float | bool]) -> float:
    """Return the median time from asking for a trial to the policy's first question, in milliseconds."""
    taken = []
    for _ in range(STARTS):
        robot, began = FirstQuestion(), time.perf_counter()
        end = host.run(folder, entry, params, robot)
        assert end.kind == "over", end
        taken.append(robot.asked_s - began)
    return statistics.median(taken) * 1e3


def _children(process: str) -> Iterator[str]:
    for task in Path("/proc", process, "task").iterdir():
        yield from (task / "children").read_text().split()


def _memory_mb(process: str, field: str) -> float:
    """Return one line of the kernel's sum over a process's memory."""
    lines = Path("/proc", process, "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def _row(what: str, value: float, bound: float | None) -> dict[str, object]:
    held = None if bound is None else value <= bound
    return {
        "what": what,
        "figure": f"{value:.1f}",
        "bound": "" if bound is None else f"at most {bound:g}",
        "holds": held,
    }


if __name__ == "__main__":
    main()
