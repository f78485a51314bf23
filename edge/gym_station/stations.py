"""Writes the folders of stations that are Gymnasium environments: `station.toml`, and a calibration of nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

STATION = """\
# One Gymnasium environment as a station. There is no arm: nothing moves but what the environment moves.
name = "{name}"
task = "{task}"

[station]
kind = "gymnasium"

{environment}
[coordinator]
endpoint = "{endpoint}"

[recording]  # of each trial; less where the disk fills up
joint_hz = 30
camera = "none"  # "small" or "full" has it rendered twice a second, at the cost of several steps a picture
jpeg_quality = 80

[storage]
reserve_mb = 4  # for the ledger, should the disk be full
disk_mb = 2000  # of a larger disk this much counts: below 20 % of it free less is recorded, below 5 % no trial begins
trial_mb_per_s = 4.0  # for recordings on their way to the coordinator while a trial runs

[rollout]  # what a new policy has to pass here; the other gates are as everywhere
step_p99_s = 2.0  # this station's time waits for its policy
"""

CALIBRATION = """\
# Nothing is measured on a station without arm and camera; these are the numbers of no change.
day = 2026-11-01
residual_px = 0.0
joint_zero_rad = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
gravity_factor = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

[top_camera]
width_px = 640
height_px = 480
focal_px = 625.0
centre_px = [319.5, 239.5]
base_from_camera_rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
base_from_camera_position_m = [0.0, 0.0, 0.0]
"""

ENVIRONMENTS = {
    "gym_pusht": """\
[gymnasium]
environment = "gym_pusht:gym_pusht/PushT-v0"  # the module that registers it, and its id
rate_hz = 10.0
steps = 300  # an attempt may take
unit_m = 0.001  # a pixel counts as a millimetre
arguments = { obs_type = "state" }
tool = { x = 0, y = 1 }  # entries of the observation

[gymnasium.objects.tee]  # its origin lies in the middle of the bar's outer edge, the stem along +y
x = 2
y = 3
yaw = 4

[gymnasium.action]  # where the tool shall go
axes = ["x", "y"]

[gymnasium.reset]  # the names of a start's coordinates, in the order in which the option takes them
option = "reset_to_state"
entries = ["agent_x", "agent_y", "block_x", "block_y", "block_angle"]

[gymnasium.success]  # the environment's own rule: coverage of the goal above 0.95
info = "is_success"
progress = "coverage"
full = 0.95

[workspace]  # of the tool
x_m = [0.0, 0.512]
y_m = [0.0, 0.512]
z_m = [-0.01, 0.01]
""",
}


def make_gym_stations(folder: Path, count: int, task: str, endpoint: str, root: Path | None = None) -> list[str]:
    """Write `count` station folders below `folder` and return their names; existing ones are left as they are.

    `root` is the lab's root of trust, a file, without which a station runs nothing. `task` is one of ENVIRONMENTS.
    """
    names = [f"station-{number}" for number in range(1, count + 1)]
    for name in names:
        station = folder / name
        station.mkdir(parents=True, exist_ok=True)
        environment = ENVIRONMENTS[task]
        text = STATION.format(name=name, task=task, environment=environment, endpoint=endpoint)
        for file, content in (("station.toml", text), ("calibration.toml", CALIBRATION)):
            if not (station / file).exists():
                (station / file).write_text(content)
        trusted = station / "trust" / "root.json"
        if root is not None and not trusted.exists():
            trusted.parent.mkdir(exist_ok=True)
            shutil.copyfile(root, trusted)
    return names
