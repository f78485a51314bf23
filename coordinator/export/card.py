"""The page that lies in a dataset: what its numbers are, what is in it, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from coordinator.export.recording import RecordedTrial

MOST_REASONS = 10
HEAD = """\
---
task_categories:
- robotics
tags:
- LeRobot
- robotics
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# Trials of ENPIRE on YAM arms

A LeRobotDataset v3.0 of {episodes} episodes and {frames} frames at 30 a second. An episode is one policy's attempt; the
reset before it and the judge's look after it are not in it. Load it with
`LeRobotDataset("enpire/trials", root="<this folder>")`.

| feature | holds |
|---|---|
| `observation.state` | six joint positions (rad) and the jaw opening (m), measured when the policy asked for the step |
| `observation.velocity`, `observation.effort` | joint velocities (rad/s) and torques (N m) at that moment |
| `observation.tool_pose` | tool centre in the arm's base frame: position (m), quaternion w x y z |
| `action` | the setpoint of the same step: six joint positions (rad) and jaw opening (m) |
| `next.done`, `next.success` | true at the last frame; success only where the judge found it |
| `station_time_s` | the station's clock since the first frame; `timestamp` is the frame's number over 30 |

`meta/episodes` says of each episode which trial it is: `trial/edge`, `trial/epoch`, `trial/sequence`, its policy
(`trial/bundle`), start, seed, calibration and station hash, outcome and cause. A policy that waited between two steps
shows it in `station_time_s` only. A step that the guard refused is not in an episode.
"""

VIDEO = """
## Pictures

The stations take a picture when somebody looks, a few times a trial, not 30 times a second. `observation.images.top`
holds the newest picture at each step until the next was taken, so most of its frames repeat the one before, and it is
no film of the motion. Do not learn motion from it. An export with `--no-video` leaves it out.
"""

NO_VIDEO = """
## Pictures

Left out; an export without `--no-video` has them.
"""

COUNTS = """
## Policies

Counted are the episodes in this dataset, as it was selected: no success rates.

| policy | episodes | success | failure | invalid |
|---|---|---|---|---|
"""


def card(episodes: Sequence[RecordedTrial], frames: int, left_out: Mapping[str, str], with_video: bool) -> str:
    """Return the page."""
    text = HEAD.format(episodes=len(episodes), frames=frames) + (VIDEO if with_video else NO_VIDEO) + COUNTS
    outcomes = Counter((trial.bundle, trial.outcome) for trial in episodes)
    for bundle, count in Counter(trial.bundle for trial in episodes).items():
        by_outcome = [str(outcomes[bundle, outcome]) for outcome in ("success", "failure", "invalid")]
        text += f"| `{bundle}` | {count} | {' | '.join(by_outcome)} |\n"
    if left_out:
        text += "\n## Left out\n\n`meta/left_out.json` names them.\n\n"
        text += "".join(f"- {count}: {why}\n" for why, count in Counter(left_out.values()).most_common(MOST_REASONS))
    return text
