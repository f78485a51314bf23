"""Writes the folders of new emulated stations: `station.toml` and `calibration.toml`, as one would for a real bench."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edge.station import StationError

STATION = """\
# One emulated bench. Units are part of every key; the site's limits can only narrow the arm's own.
name = "{name}"
task = "{task}"
arm = "yam"

[limits]
lower_rad = [-2.6, 0.0, 0.0, -1.69, -1.57, -2.09]
upper_rad = [2.6, 3.66, 3.14, 1.57, 1.57, 2.09]
velocity_rad_s = [3.0, 3.0, 3.0, 6.0, 6.0, 6.0]
torque_nm = [10.0, 20.0, 10.0, 4.0, 4.0, 4.0]

{tool}
[coordinator]
endpoint = "{endpoint}"

[recording]  # of each trial; less where the disk fills up
joint_hz = 30
camera = "full"
jpeg_quality = 80

[storage]
reserve_mb = 4  # for the ledger, should the disk be full; a real station wants 200
disk_mb = 2000  # of a larger disk this much counts: below 20 % of it free less is recorded, below 5 % no trial begins
trial_mb_per_s = 4.0  # for recordings on their way to the coordinator while a trial runs

[rollout]  # what a new policy has to pass here; the other gates are as everywhere
step_p99_s = 2.0  # this station's time waits for its policy; a real one wants 0.033

[emulation]
seed = {seed}
"""

CALIBRATION = """\
# Where the {camera} and how it projects; joint zeros and gravity factors of this arm.
day = 2026-11-01
residual_px = 0.0
joint_zero_rad = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
gravity_factor = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

[top_camera]
width_px = 640
height_px = 480
{lens}"""


@dataclass(frozen=True)
class Bench:
    """What of a bench's files depends on its task."""

    tool: str  # and workspace
    camera: str
    lens: str


BENCHES = {
    "push_t": Bench(
        tool="""\
[tool]  # a stick, fixed to the gripper
name = "stick"
length_m = 0.05
mass_kg = 0.03

[workspace]  # of the tool's tip: so far out that a reset gets behind what a policy has pushed away
x_m = [0.05, 0.62]
y_m = [-0.42, 0.42]
z_m = [0.003, 0.30]

[arena]  # the part of it in which policies work
x_m = [0.05, 0.47]
y_m = [-0.42, 0.42]
z_m = [0.003, 0.30]
""",
        camera="top camera stands",
        lens="""\
focal_px = 625.0
centre_px = [319.5, 239.5]
base_from_camera_rotation = [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
base_from_camera_position_m = [0.32, 0.0, 0.75]
""",
    ),
    "pin_insertion": Bench(
        tool="""\
[tool]  # a pin with a handle, in the gripper for good
name = "pin"
length_m = 0.045
mass_kg = 0.1

[workspace]  # of the tool's tip as it is sent; a pin that is pressed is sent to somewhere below where it stands
x_m = [0.05, 0.45]
y_m = [-0.25, 0.25]
z_m = [-0.02, 0.20]
""",
        # In front of the arm and 30 degrees down: it sees the pin below the gripper all the time.
        camera="camera stands, before the socket and above it,",
        lens="""\
focal_px = 900.0
centre_px = [319.5, 239.5]
base_from_camera_rotation = [[0.0, 0.5, -0.8660254], [1.0, 0.0, 0.0], [0.0, -0.8660254, -0.5]]
base_from_camera_position_m = [0.66, 0.0, 0.24]
""",
    ),
}


def make_stations(folder: Path, count: int, seed: int, task: str, endpoint: str, root: Path | None = None) -> list[str]:
    """Write `count` station folders below `folder` and return their names; existing ones are left as they are.

    `root` is the lab's root of trust, a file, without which a station runs nothing.

    Raises:
        StationError: there is no emulated bench for that task.
    """
    if task not in BENCHES:
        raise StationError(f"no emulated bench for task {task!r}; known: {', '.join(BENCHES)}")
    bench = BENCHES[task]
    names = [f"station-{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names, start=1):
        station = folder / name
        station.mkdir(parents=True, exist_ok=True)
        text = STATION.format(name=name, task=task, tool=bench.tool, endpoint=endpoint, seed=seed * 1000 + number)
        calibration = CALIBRATION.format(camera=bench.camera, lens=bench.lens)
        for file, content in (("station.toml", text), ("calibration.toml", calibration)):
            if not (station / file).exists():
                (station / file).write_text(content)
        trusted = station / "trust" / "root.json"
        if root is not None and not trusted.exists():
            trusted.parent.mkdir(exist_ok=True)
            shutil.copyfile(root, trusted)
    return names
