"""What an agent may look at of attempts: development only, pictures that open, and a dry run that finds what fails."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coordinator.agents import shelf, trial_files
from tests.harness.agent_lane import BESIDE, FILES
from tests.harness.attempts_world import STEPS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def lab(run: Path, tmp_path: Path) -> Path:
    """Return a folder laid out as an agent finds it in its cage, with a policy beside."""
    (tmp_path / "made").mkdir()
    found = shelf.shows(run)(tmp_path / "made")
    for place, path in found.items():
        target = tmp_path / place.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    for name, data in {**BESIDE, "policies/__init__.py": b""}.items():
        write(tmp_path / "repo" / name, data)
    (tmp_path / "repo/policies/skills").symlink_to(Path(__file__).parents[2] / "policies/skills")
    for name, data in FILES.items():
        write(tmp_path / "repo/policies/push_t" / name, data)
    return tmp_path


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def dry_run(lab: Path) -> subprocess.CompletedProcess[str]:
    script = lab / "lab" / "dry_run.py"
    copy = script.with_name("copy.py")  # so that it looks for its files beside itself, as in the cage
    copy.write_bytes(script.read_bytes())
    command = [sys.executable, "-I", "-B", str(copy), str(lab / "repo/policies/push_t")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_an_agent_sees_failures_of_different_kinds_and_a_success_on_development_starts_only(run: Path) -> None:
    shown = [(item.trial.start_id, item.trial.cause) for item in trial_files.newest(run)]
    assert shown == [("dev-0002", "near"), ("dev-0003", "far"), ("dev-0004", "")]


def test_pictures_open_and_say_what_they_show(run: Path) -> None:
    jpegs = shelf.pictures(run)(None)
    sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs]
    assert sizes == [(3 * 240, 196), (720, 560)] * 3
    assert all(len(jpeg) < 200_000 for jpeg in jpegs)


def test_observations_are_the_recorded_ones_and_hold_no_seed(run: Path) -> None:
    [first, *_] = trial_files.newest(run)
    said = json.loads(trial_files.observations(first))
    assert len(said["steps"]["time_s"]) == STEPS
    assert said["steps"]["joints_rad"][0] == pytest.approx(0.02 + np.arange(6) / 10, abs=1e-4)
    assert [scene["objects"][0]["y_m"] for scene in said["scenes"]] == [0.0, 0.02, 0.04]
    assert not re.search(r"987654321|gate-|heldout-|audit-", json.dumps(said))


def test_a_damaged_recording_is_passed_over(run: Path) -> None:
    [first, second, *_] = trial_files.newest(run)
    path = run / "recordings" / f"{first.trial.recording}.mcap"
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-200])
        assert next(iter(trial_files.newest(run))).trial.start_id == second.trial.start_id
    finally:
        path.write_bytes(whole)


def test_the_shipped_policy_runs_dry(lab: Path) -> None:
    done = dry_run(lab)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("steps,") == 3
    assert "dev-0002: failure, near" in done.stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("def run(robot, params):\n    return undefined\n", "NameError: name 'undefined' is not defined"),
        ("def run(robot, params):\n    return params['nothing']\n", "KeyError: 'nothing'"),
        ("import nothing_there\n", "ModuleNotFoundError"),
        (
            "import numpy as np\nfrom policies.interface import ToolTarget\n\n\n"
            "def run(robot, params):\n    robot.step(ToolTarget(np.array([np.nan, 0, 0])))\n",
            "is not finite",
        ),
        ("def run(robot, params):\n    while True:\n        robot.scene()\n", "looks without a step"),
        ("import sys\n\n\ndef run(robot, params):\n    sys.exit(0)\n", "SystemExit"),
    ],
)
def test_a_dry_run_finds_what_fails(lab: Path, change: str, says: str) -> None:
    write(lab / "repo/policies/push_t/policy.py", change.encode())
    done = dry_run(lab)
    assert done.returncode == 1
    assert says in done.stdout


def test_without_a_recording_nothing_is_run(lab: Path, tmp_path: Path) -> None:
    (lab / "lab/trials").unlink()
    done = dry_run(lab)
    assert done.returncode == 2
    assert "no recording yet" in done.stdout
