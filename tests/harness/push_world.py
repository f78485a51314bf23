"""A run of two people that has seen two stations, and what is pushed to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from coordinator.cli import app
from coordinator.publish.keys import make
from coordinator.publish.publisher import Lab
from coordinator.publish.push import Pushed, Pusher
from coordinator.publish.repository import Repository
from coordinator.rollouts import Rollout
from coordinator.store import FILE, Store
from edge.records import RolloutOrder, order_from_json

POLICY = Path(__file__).parents[2] / "policies" / "push_t"
EDGES = ("arm-01", "arm-02")
BUNDLE = "b" * 64


def make_run(run: Path) -> Path:
    """Make the run in a folder."""
    make(run / "keys", humans=2, threshold=2)
    Lab.of(run)
    with Store(run / FILE) as store:
        for edge in EDGES:
            row = {"edge": edge, "epoch": "e", "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s"}
            store.station_seen({**row, "peak_memory_mb": 0.0}, 1.7e9)
    return run


def keys_of(run: Path, *people: int) -> list[str]:
    return [str(run / "keys" / f"human-{number}.pem") for number in people]


def pusher(run: Path, *people: int) -> Pusher:
    return Pusher(run, None, keys_of(run, *people))


def push(run: Path, *people: int, stage: str = "active", edges: tuple[str, ...] = EDGES, **values: Any) -> Pushed:
    mine = pusher(run, *people)
    return mine.push(mine.find(str(POLICY), "it works"), edges, stage, 1, 1.0, **values)


def orders(run: Path) -> dict[str, RolloutOrder]:
    found = {edge: Repository.open(run / "trust").order(edge) for edge in EDGES}
    return {edge: order_from_json(data) for edge, data in found.items() if data is not None}


def files(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (run / "trust").rglob("*") if path.is_file()}


def command(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["push-policy", *map(str, words)])
    return done.exit_code, done.output


def gates(call: str = "wait") -> str:
    gauge = {"name": "pairs", "value": 3, "rule": "at least", "threshold": 20, "holds": False}
    return json.dumps({"canary": {"gate": "canary", "call": call, "note": "", "gauges": [gauge]}})


def say(run: Path, edge: str, state: str, number: int = 1, call: str = "wait", bundle: str = BUNDLE) -> None:
    store = Store(run / FILE)
    store.rollouts([Rollout(edge, bundle, number, state, "because", gates(call), 1.7e9)], 1.7e9)
    store.leave()
