"""How long a policy takes from a person's signature to staged on eight emulated stations, and a look for news costs.

A coordinator that serves a lab and eight whole stations, with arm, camera and sandbox, on one machine. A push counts
from before the release is signed until every station has said that its own self-test has passed; the order goes up to
the shadow, so that no arm moves. A look for news is one TUF refresh over the network, of a station that knows all there
is; another is one that finds a new order.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from coordinator.fleet import Fleet, make_stations
from coordinator.network import free_endpoint
from coordinator.publish.keys import Keyring, make
from coordinator.publish.publisher import FOLDER
from coordinator.publish.push import Policy, Pushed, Pusher
from coordinator.publish.repository import Repository
from coordinator.push_watch import look
from coordinator.rollouts import ENDED, STATES
from coordinator.serve import ROOT_FILE
from coordinator.store import FILE
from edge.trust.client import Trust, Unreachable
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import Coordinator
from policies.bundle import build, bundle_id

ROOT = Path(__file__).parents[1]
STATIONS, PUSHES, LOOKS = 8, 5, 60
TASK, SEED = "push_t", 1
MOST_S, MOST_MS = 3.0, 20.0
PATIENCE_S = 300.0
STAGED = STATES.index("staged")


def main() -> None:
    """Print the figures; the last line is one JSON object."""
    with tempfile.TemporaryDirectory() as temporary:
        run, endpoint = Path(temporary) / "lab", free_endpoint()
        make(run / "keys", humans=2, threshold=2)
        with _serving(run, endpoint):
            warm_ms, news_ms = _looks(run, endpoint)
            took_s = _pushes(run, endpoint)
    rows = [
        _row(f"signed to staged on all of {STATIONS} emulated stations, s", took_s, MOST_S),
        _row("a look that finds nothing new, ms", warm_ms, MOST_MS),
        _row("a look that finds a new order, ms", news_ms, None),
    ]
    print(json.dumps({"name": "push_policy", "rows": rows}))


@contextmanager
def _serving(run: Path, endpoint: str) -> Iterator[None]:
    """Let a coordinator serve the lab in a process of its own."""
    command = [sys.executable, "-m", "coordinator.cli", "serve", str(run), "--task", TASK, "--listen", endpoint]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as coordinator:
        try:
            _until((run / ROOT_FILE).exists)
            yield
        finally:
            coordinator.terminate()


def _looks(run: Path, endpoint: str) -> tuple[list[float], list[float]]:
    """Return what refreshes took, in ms: those that found nothing, and those that found an order."""
    ring = Keyring.open(run / "keys")
    repository = Repository.open(run / FOLDER)
    station = run / "looker"
    (station / "trust").mkdir(parents=True)
    (station / "trust" / "root.json").write_bytes((run / ROOT_FILE).read_bytes())
    warm_ms, news_ms = [], []
    with Coordinator(endpoint, "looker") as line:
        trust = Trust(station / "trust", ZenohFetcher(line, "looker"))
        _until(lambda: _is_there(trust))
        for number in range(LOOKS):
            warm_ms.append(_time_ms(trust.refresh))
            repository.assign("looker", json.dumps({"number": number}).encode(), ring)
            news_ms.append(_time_ms(lambda: _look(trust)))
    return warm_ms, news_ms


def _pushes(run: Path, endpoint: str) -> list[float]:
    """Return what each push took, in s."""
    print(f"starting {STATIONS} stations ...", file=sys.stderr)
    stations = run / "stations"
    names = make_stations(stations, STATIONS, SEED, TASK, endpoint, run / ROOT_FILE)
    fleet = Fleet(stations, names, 0.0)
    try:
        fleet.start()
        _until(lambda: _idle(stations, names[:1]))  # it compiles the kernels that all share
        fleet.start_rest()
        _until(lambda: _idle(stations, names) and len(_known(run)) == STATIONS)
        return [_push(run, number) for number in range(PUSHES)]
    finally:
        fleet.kill()


def _push(run: Path, number: int) -> float:
    """Push a policy that no station has seen, and return how long it took."""
    people = [str(run / "keys" / f"human-{human}.pem") for human in (1, 2)]
    words = {"hypothesis": "", "researcher": "", "commit": ""}
    archive = build(ROOT / "policies" / TASK, {"push_speed_m_s": 0.1 + 0.01 * number}, words, None)
    policy = Policy(bundle_id(archive), TASK, archive, {"policy": TASK, "params": {}})
    began_s = time.monotonic()
    pusher = Pusher(run, None, people)
    done = pusher.push(policy, pusher.edges(()), "shadow", SEED, 1.0)
    _until(lambda: _staged(run, done) == STATIONS)
    took_s = time.monotonic() - began_s
    print(f"push {number + 1}: {took_s:.2f} s", file=sys.stderr)
    return took_s


def _staged(run: Path, done: Pushed) -> int:
    seen = look(run, done).values()
    if gone := [item.reason for item in seen if item.state in ENDED]:
        sys.exit(f"a station took {done.bundle[:12]} back: {gone[0]}")
    return sum(item.state in STATES and STATES.index(item.state) >= STAGED for item in seen)


def _idle(stations: Path, names: Sequence[str]) -> bool:
    """Return whether these stations are at rest."""
    found = [stations / name / "status.json" for name in names]
    return all(path.exists() and json.loads(path.read_text())["state"] == "waiting" for path in found)


def _known(run: Path) -> list[str]:
    """Return the stations that the coordinator has heard of."""
    with closing(sqlite3.connect(f"file:{run / FILE}?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT edge FROM stations")]


def _until(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > until_s:
            sys.exit(f"waited {PATIENCE_S:.0f} s for nothing")
        time.sleep(0.02)


def _look(trust: Trust) -> None:
    trust.refresh()
    trust.order("looker")


def _is_there(trust: Trust) -> bool:
    try:
        trust.refresh()
    except Unreachable:
        return False
    return True


def _time_ms(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began_s)


def _row(what: str, took: list[float], bound: float | None) -> dict[str, object]:
    median = statistics.median(took)
    figure = f"median {median:.2f}, {min(took):.2f} to {max(took):.2f} (n = {len(took)})"
    holds = None if bound is None else median <= bound
    return {"what": what, "figure": figure, "bound": "" if bound is None else f"at most {bound:g}", "holds": holds}


if __name__ == "__main__":
    main()
