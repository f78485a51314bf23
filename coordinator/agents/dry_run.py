"""Runs a policy on what an earlier attempt saw, in the cage of the agent that wrote it: a script of its own.

It finds what does not run before a robot has to: an error, a target that is no number, a loop without an end. Nothing
moves: observations and scenes are the recorded ones, whatever the policy asks for, so it says nothing of success.
Usage: dry_run FOLDER_OF_THE_POLICY [RECORDING.json ...]
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import tomllib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST_S = 60
LOOKS_IN_A_ROW = 1000  # without a step


class Recorded:
    """A robot that shows what was recorded, and takes what it is asked for as done (see policies.interface.Robot)."""

    def __init__(self, recording: Mapping[str, Any]) -> None:
        """Begin at the first row."""
        import numpy as np

        from policies import interface

        self._np, self._interface = np, interface
        self._rows = {name: np.array(values) for name, values in recording["steps"].items()}
        self._scenes = [self._scene(scene) for scene in recording["scenes"]]
        self.steps = self.looks = self._looks_in_a_row = 0
        self.targets: list[Any] = []
        self.notes: list[str] = []

    def observe(self) -> Any:
        """Return the row that it has come to."""
        row = min(self.steps, len(self._rows["time_s"]) - 1)
        values = {name: column[row] for name, column in self._rows.items()}
        scalars = {name: float(values[name]) for name in ("time_s", "gripper_m")}
        return self._interface.Observation(**{**values, **scalars})

    def step(self, target: Any) -> Any:
        """Take a target and come to the next row; after the last the trial is over."""
        wanted = target.joints_rad if isinstance(target, self._interface.JointTarget) else target.position_m
        numbers = self._np.asarray(wanted, dtype=float)
        if not self._np.isfinite(numbers).all():
            raise ValueError(f"step {self.steps}: the target {numbers} is not finite")
        if self.steps + 1 >= len(self._rows["time_s"]):
            raise self._interface.TrialOver("the recording ends here")
        self.steps += 1
        self._looks_in_a_row = 0
        self.targets.append(numbers)
        return self.observe()

    def scene(self) -> Any:
        """Return the recorded scenes one after the other, the last one again and again."""
        self._looks_in_a_row += 1
        if self._looks_in_a_row > LOOKS_IN_A_ROW:
            raise RuntimeError(f"{LOOKS_IN_A_ROW} looks without a step between them")
        if not self._scenes:
            raise self._interface.TrialOver("the recording has no scene")
        self.looks += 1
        return self._scenes[min(self.looks, len(self._scenes)) - 1]

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(str(text))

    def _scene(self, scene: Mapping[str, Any]) -> Any:
        objects = tuple(self._interface.SceneObject(**item) for item in scene["objects"])
        return self._interface.Scene(float(scene["time_s"]), objects)


def dry_run(policy: Path, recording: Path) -> tuple[bool, str]:
    """Return whether a policy ran through a recording without an error of its own, and what it did, in words."""
    said = json.loads(recording.read_text())
    robot = Recorded(said)
    over = importlib.import_module("policies.interface").TrialOver
    ended, fine = "it returned", True
    try:
        module = importlib.import_module(f"policies.{policy.name}.{_entry(policy)}")
        module.run(robot, _defaults(policy))
    except over as error:
        ended = str(error)
    except BaseException:
        ended, fine = "it failed:\n" + traceback.format_exc(limit=-6), False
    lines = [f"{said['title']}: {robot.steps} steps, {robot.looks} looks; {ended}"]
    if robot.targets and len({len(target) for target in robot.targets}) == 1:
        targets = robot._np.array(robot.targets)
        low, high = targets.min(axis=0).round(3).tolist(), targets.max(axis=0).round(3).tolist()
        lines.append(f"targets from {low} to {high}")
    lines += [f"note: {note[:200]}" for note in robot.notes[:5]]
    return fine, "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Run the policy on each recording; 0 where it ran through all of them."""
    if not arguments:
        print(__doc__)
        return 2
    policy = Path(arguments[0]).resolve()
    sys.path[:0] = [str(policy.parents[1]), str(HERE / "site")]
    recordings = [Path(name) for name in arguments[1:]] or sorted((HERE / "trials").glob("*.json"))
    if not recordings:
        print("there is no recording yet: nothing was run")
        return 2
    signal.signal(signal.SIGALRM, _too_long)
    results = []
    for recording in recordings:
        signal.alarm(LONGEST_S)
        results.append(dry_run(policy, recording))
        signal.alarm(0)
        print(results[-1][1])
    return 0 if all(fine for fine, _ in results) else 1


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"it did not end within {LONGEST_S} s")


def _entry(policy: Path) -> str:
    return Path(tomllib.loads((policy / "policy.toml").read_text())["entry"]).stem


def _defaults(policy: Path) -> dict[str, float | bool]:
    """Return every parameter and idea with its default, as a station gives them to a policy."""
    said = tomllib.loads((policy / "policy.toml").read_text())
    found = {**said.get("parameters", {}), **said.get("ideas", {})}
    values = {name: item["default"] for name, item in found.items()}
    return {name: value if isinstance(value, bool) else float(value) for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
