"""What an agent may look at of attempts on development starts: film strips, traces as pictures, and the observations.

- The attempts are the incumbent's: the newest of its commonest ways to fail, and one success; or those that an agent
  asked for of a change of its own. No gate, held-out or audit start is among them.
- A recording that is damaged, or has not come, is passed over.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from mcap.reader import make_reader
from PIL import Image, ImageDraw

from coordinator.export.recording import UNREADABLE, Array, Attempt, RecordedTrial, RecordingUnusable, read_attempt

MOST = 3  # attempts
FRAMES, HEIGHT_PIXELS = 6, 180
PANEL_PIXELS, MARGIN_PIXELS = (720, 120), 16
QUALITY = 80
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")
COLUMNS = ", ".join(item.name for item in fields(RecordedTrial))
INCUMBENT = "SELECT candidate_id FROM decisions WHERE verdict = 'accept' ORDER BY decision_id DESC LIMIT 1"
ATTEMPTS = """
SELECT {columns} FROM trials
WHERE bundle = (SELECT bundle FROM candidates WHERE candidate_id = ({incumbent}))
    AND start_id GLOB 'dev-[0-9]*' AND purpose NOT IN ('heldout', 'gate', 'audit')
    AND outcome IN ('success', 'failure') AND recording IN (SELECT sha256 FROM recordings)
ORDER BY received_unix_s DESC LIMIT 200
"""
PLAYED = """
SELECT {columns}, detail, measures, notes FROM trials
WHERE bundle = ? AND start_id GLOB 'dev-[0-9]*' AND purpose = 'play' ORDER BY received_unix_s
"""


@dataclass(frozen=True)
class Told:
    """What the database tells of one attempt of a play."""

    trial: RecordedTrial
    detail: str
    measures: Mapping[str, float]
    notes: str  # of its policy


@dataclass(frozen=True)
class Shown:
    """One attempt, as it can be looked at."""

    title: str
    trial: RecordedTrial
    attempt: Attempt
    scenes: Sequence[Mapping[str, Any]]  # what its pictures showed, in order


def newest(run: Path, most: int = MOST) -> Iterator[Shown]:
    """Yield attempts of the incumbent of a run, which may be running: failures of different kinds, and a success."""
    found = (show(run, trial) for trial in _chosen(run, most))
    return (shown for shown in found if shown is not None)


def show(run: Path, trial: RecordedTrial) -> Shown | None:
    """Return an attempt of a run as it can be looked at; None where its recording is damaged or has not come."""
    path = run / "recordings" / f"{trial.recording}.mcap"
    try:
        return Shown(_title(trial), trial, read_attempt(path, trial, pictures=True), _scenes(path))
    except (RecordingUnusable, *UNREADABLE):
        return None


def played(run: Path, bundle: str) -> list[Told]:
    """Return the attempts of a play in the order in which they came."""
    with closing(_opened(run)) as database:
        rows = database.execute(PLAYED.format(columns=COLUMNS), (bundle,)).fetchall()
    return [
        Told(RecordedTrial(*row[:-3]), row[-3], json.loads(row[-2]), str(json.loads(row[-1]).get("policy", "")))
        for row in rows
    ]


def film_strip(shown: Shown) -> bytes:
    """Return a JPEG with a few of an attempt's pictures side by side, from its beginning to its end."""
    pictures = shown.attempt.pictures
    rows = np.unique(np.linspace(0, len(pictures) - 1, FRAMES).round().astype(int))
    frames = [_scaled(pictures[row]) for row in rows]
    strip = Image.new("RGB", (sum(frame.width for frame in frames), HEIGHT_PIXELS + MARGIN_PIXELS), "white")
    ImageDraw.Draw(strip).text((4, 2), shown.title, fill="black")
    x = 0
    for frame in frames:
        strip.paste(frame, (x, MARGIN_PIXELS))
        x += frame.width
    return _jpeg(strip)


def traces(shown: Shown) -> bytes:
    """Return a JPEG with an attempt's joints, joint torques, tool position and how far it is from what was asked."""
    attempt = shown.attempt
    panels = (
        ("joints, rad", attempt.joints_rad),
        ("joints asked for less measured, rad", attempt.setpoint[:, :6] - attempt.joints_rad),
        ("joint torques, N m", attempt.torque_nm),
        ("tool position x y z, m", attempt.tool_pose[:, :3]),
    )
    width, height = PANEL_PIXELS
    sheet = Image.new("RGB", (width, MARGIN_PIXELS + len(panels) * (height + MARGIN_PIXELS)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), f"{shown.title}; {attempt.time_s[-1]:.1f} s across; {_legend()}", fill="black")
    for place, (name, rows) in enumerate(panels):
        _panel(draw, MARGIN_PIXELS + place * (height + MARGIN_PIXELS), name, rows)
    return _jpeg(sheet)


def observations(shown: Shown) -> bytes:
    """Return what the policy saw in an attempt, as JSON: columns of a row a step, and the scenes in their order."""
    attempt = shown.attempt
    rows = {
        "time_s": attempt.time_s,
        "joints_rad": attempt.joints_rad,
        "joint_velocity_rad_s": attempt.velocity_rad_s,
        "joint_torque_nm": attempt.torque_nm,
        "tool_position_m": attempt.tool_pose[:, :3],
        "tool_quat_wxyz": attempt.tool_pose[:, 3:],
        "gripper_m": attempt.gripper_m[:, 0],
    }
    columns = {name: np.round(values, 5).tolist() for name, values in rows.items()}
    return json.dumps({"title": shown.title, "steps": columns, "scenes": list(shown.scenes)}).encode()


def _chosen(run: Path, most: int) -> list[RecordedTrial]:
    query = ATTEMPTS.format(columns=COLUMNS, incumbent=INCUMBENT)
    with closing(_opened(run)) as database:
        found = [RecordedTrial(*row) for row in database.execute(query)]
    failed: dict[str, list[RecordedTrial]] = {}
    for trial in found:
        if trial.outcome == "failure":
            failed.setdefault(trial.cause, []).append(trial)
    commonest = sorted(failed.values(), key=lambda trials: -len(trials))[: most - 1]
    return [trials[0] for trials in commonest] + [trial for trial in found if trial.outcome == "success"][:1]


def _opened(run: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{(run / 'coordinator.db').resolve().as_uri()}?mode=ro", uri=True)


def _scenes(path: Path) -> list[Mapping[str, Any]]:
    """Return the scenes between the attempt's beginning and its verdict."""
    found, inside = [], False
    with path.open("rb") as file:
        for _, channel, message in make_reader(file).iter_messages(topics=["/events", "/scene"]):
            said = json.loads(message.data)
            if channel.topic == "/events" and said["kind"] == "stage":
                inside = said["text"] == "run"
            elif channel.topic == "/scene" and inside:
                found.append(said)
    return found


def _title(trial: RecordedTrial) -> str:
    ended = "success" if trial.outcome == "success" else f"failure, {trial.cause}"
    return f"{trial.start_id}: {ended}, progress {trial.progress:.2f}, {trial.trial_s:.0f} s"


def _scaled(jpeg: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    return picture.resize((round(picture.width * HEIGHT_PIXELS / picture.height), HEIGHT_PIXELS))


def _panel(draw: ImageDraw.ImageDraw, top: int, name: str, rows: Array) -> None:
    """Draw columns of numbers over their rows, with the range that the panel spans."""
    width, height = PANEL_PIXELS
    low, high = float(rows.min()), float(rows.max())
    span = high - low or 1.0
    draw.text((4, top), f"{name}: {low:.3f} to {high:.3f}", fill="black")
    draw.rectangle((0, top + MARGIN_PIXELS, width - 1, top + MARGIN_PIXELS + height - 1), outline="#cccccc")
    x = np.linspace(0, width - 1, len(rows))
    for column, colour in zip(rows.T, COLOURS, strict=False):
        y = top + MARGIN_PIXELS + (high - column) / span * (height - 1)
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour)


def _legend() -> str:
    names = ("blue", "red", "green", "violet", "orange", "cyan")
    return ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
