"""The policy's side knows nothing of the edge, the coordinator or the hardware, and its process loads little."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import policies
from policies import contents

MODULES = sorted(item.name for item in pkgutil.walk_packages(policies.__path__, "policies.") if not item.ispkg)
OTHER_ROOMS = {"edge", "firmware_bridge", "coordinator", "calibration", "bench"}
# Heavy, or a way to the world: the host has none of them ready for a policy.
NOT_IN_THE_HOST = {"cryptography", "zstandard", "zenoh", "mujoco", "cv2", "numba", "mcap", "sqlite3", "typer", "scipy"}


def loaded_by(modules: Sequence[str]) -> set[str]:
    """Return the names of all modules that a fresh interpreter holds after importing these."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-B", "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_every_part_of_the_policies_is_checked_here() -> None:
    parts = {
        "interface",
        "bundle",
        "contents",
        "space",
        "link",
        "host",
        "skills.motion",
        "skills.pushing",
        "push_t.policy",
    }
    assert {f"policies.{part}" for part in parts} <= set(MODULES)


def test_no_module_of_the_policies_imports_another_room() -> None:
    loaded = loaded_by(MODULES)
    assert set(MODULES) <= loaded
    assert {name.split(".")[0] for name in loaded} & OTHER_ROOMS == set()


def test_the_check_would_see_another_room() -> None:
    rooms = ["edge", "firmware_bridge", "coordinator"]
    assert set(rooms) <= loaded_by(["policies.host", *rooms])


def test_the_process_of_a_policy_starts_with_numpy_and_little_else() -> None:
    loaded = loaded_by(["policies.host", "policies.skills.motion", "policies.skills.pushing"])
    assert "numpy" in loaded
    assert {name.split(".")[0] for name in loaded} & NOT_IN_THE_HOST == set()
    assert "policies.bundle" not in loaded


def test_no_bundle_can_carry_a_file_named_like_one_of_the_judges_or_the_guards() -> None:
    top = Path(contents.__file__).parents[1]
    theirs = {path.stem for path in (top / "edge" / "tasks").rglob("*.py")} - {"__init__", "geometry"}
    assert "task" in theirs
    assert theirs | {"guard", "body"} <= contents.JUDGES
    assert OTHER_ROOMS - {"bench"} == contents.ROOMS
