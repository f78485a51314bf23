"""The folder of a run with a few recorded attempts of its incumbent, on starts of every list."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from coordinator.store import FILE, Store
from edge.messages import Setpoint
from edge.trials.recording import Recording
from policies.interface import Observation, Scene, SceneObject

PERIOD_NS, STEPS, RESET = 33_333_336, 60, 5
INCUMBENT = "b" * 64
ATTEMPTS = (  # start, purpose, outcome, cause, bundle
    ("dev-0001", "baseline", "failure", "near", INCUMBENT),
    ("dev-0002", "screen", "failure", "near", INCUMBENT),
    ("dev-0003", "baseline", "failure", "far", INCUMBENT),
    ("dev-0004", "baseline", "success", "", INCUMBENT),
    ("dev-0005", "baseline", "invalid", "crash", INCUMBENT),
    ("dev-0006", "baseline", "failure", "lost", "c" * 64),
    ("gate-0001", "gate", "failure", "timeout", INCUMBENT),
    ("heldout-0001", "heldout", "success", "", INCUMBENT),
    ("audit-0001", "audit", "success", "", INCUMBENT),
)


def record(path: Path, base: float) -> str:
    """Write a recording whose numbers follow `base`, and return its hash."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 40)).save(picture, "JPEG")
    with Recording(path / "new.mcap") as tape:
        for step in range(-RESET, STEPS + 2):
            at_ns = 10**9 + (RESET + step) * PERIOD_NS
            if step in (-RESET, 0, STEPS):
                tape.event(at_ns, "stage", {-RESET: "reset", 0: "run", STEPS: "verify"}[step])
            if step % 20 == 0:
                tape.camera(at_ns, picture.getvalue())
                seen = SceneObject("tee", 0.3 + base, step / 1000, 0.1, 1e-4, 1e-3)
                tape.scene(at_ns, Scene(at_ns / 1e9, (seen,)))
            joints = base + np.arange(6.0) / 10 + step / 100
            tape.joints(at_ns, Observation(0.0, joints, joints, joints, joints[:3], np.array([0, 0, 1.0, 0]), 0.0))
            tape.setpoint(at_ns, Setpoint(joints, 0.0, at_ns))
        sha256, _ = tape.seal()
    (path / "new.mcap").rename(path / f"{sha256}.mcap")
    return sha256


def fill(database: sqlite3.Connection, table: str, **values: object) -> None:
    """Insert a row with these values and something for every other column that must have one."""
    row = dict(values)
    for _, name, kind, needed, default, key in database.execute(f"PRAGMA table_info({table})"):
        if name not in row and needed and default is None and not key:
            row[name] = 0 if kind in ("INTEGER", "REAL") else ""
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def make_run(folder: Path) -> Path:
    """Make the folder of a run with attempts on starts of every list, and return it."""
    (folder / "recordings").mkdir()
    Store(folder / FILE).close()
    with closing(sqlite3.connect(folder / FILE)) as database:
        fill(database, "candidates", candidate_id=1, hypothesis_id=1, bundle=INCUMBENT, state="accepted")
        fill(database, "decisions", decision_id=1, candidate_id=1, verdict="accept")
        for number, (start, purpose, outcome, cause, bundle) in enumerate(ATTEMPTS, 1):
            sha256 = record(folder / "recordings", number / 100)
            fill(
                database, "trials", edge="station-1", epoch="e", sequence=number, start_id=start, purpose=purpose,
                outcome=outcome, cause=cause, bundle=bundle, recording=sha256, policy_steps=STEPS, seed=987654321,
                received_unix_s=float(number), measures="{}", notes="{}", achieved_start="{}",
                previous_chain=str(number),
            )  # fmt: skip
            fill(database, "recordings", sha256=sha256, edge="station-1", file=f"{sha256}.mcap")
        database.commit()
    return folder
