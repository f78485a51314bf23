"""What a lane of a coding agent takes beside the model's own time, a proposal: clone, cage, program, proxy, checks.

A scripted model on the loopback answers without thinking, so that all of a proposal's time is the lane's and the
agent's program's. Each installed client makes the same change in four turns, through the real proxy, in the real cage;
the model's side is what the proxy waited for answers. "A lane alone" has a shell that makes the change in the place of
a client. A client that is not installed is left out and named; `AGENTS_VENV` says where
`make test-agents` has installed them.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from coordinator.agents import cage
from coordinator.agents.calls import Call
from coordinator.agents.clients import CLIENTS, Client
from coordinator.agents.messages import MessagesResearcher
from coordinator.evolution.ideas import Researcher
from tests.harness.agent_lane import GOOD, HYPOTHESIS, POLICY, SLOWER, assignment, context, lane, model
from tests.harness.model_server import ModelServer, Step

ROOT = Path(__file__).parents[1]
INSTALLED = Path(os.environ.get("AGENTS_VENV", ROOT / ".venv-agents")).absolute()
PROPOSALS = 9
MOST_S = 2.0
BY_API = (
    Step("read", f"{POLICY}/policy.toml"),
    Step("write", f"{POLICY}/policy.toml", SLOWER),
    Step("submit", content=HYPOTHESIS),
)
CHANGE = f"sed -i 's/default = 0.20/default = 0.10/' {POLICY}/policy.toml; echo '{HYPOTHESIS}' > hypothesis.json"
ALONE = Client(
    "alone",
    "",
    lambda folder: {},
    lambda *asked: ["/bin/sh", "-c", CHANGE],
    {},
    lambda name: {},
    lambda event: iter(()),
)
Make = Callable[[ModelServer, Path], tuple[Researcher, Sequence[Call]]]


def main() -> None:
    """Print the figures; the last line is one JSON object."""
    rows = [_row(name, _measured(script, make)) for name, script, make in _lanes()]
    print(json.dumps({"name": "agent_overhead", "rows": rows}))


def _row(name: str, took_s: Sequence[float]) -> dict[str, object]:
    median = statistics.median(took_s)
    figure = f"median {median:.2f}, {min(took_s):.2f} to {max(took_s):.2f} (n = {len(took_s)})"
    print(f"{name}: {figure}", flush=True)
    what = f"{name}: a proposal beside the model's own time, s"
    return {"what": what, "figure": figure, "bound": f"at most {MOST_S:g}", "holds": median <= MOST_S}


def _lanes() -> Iterator[tuple[str, Sequence[Step], Make]]:
    yield "claude-api", BY_API, _by_api
    if cage.has_cage():
        yield "a lane alone", (), partial(_by_program, ALONE, {})
    for client in CLIENTS:
        programs = client.programs(INSTALLED)
        if programs is None or not cage.has_cage():
            print(f"{client.name:12} is left out: {'no bubblewrap' if programs else 'not installed: make test-agents'}")
            continue
        yield client.name, GOOD, partial(_by_program, client, dict(programs))


def _by_program(
    client: Client, programs: dict[str, Path], server: ModelServer, folder: Path
) -> tuple[Researcher, Sequence[Call]]:
    made = lane(server, client, programs, folder)
    return made.agent, made.rows


def _by_api(server: ModelServer, folder: Path) -> tuple[Researcher, Sequence[Call]]:
    rows: list[Call] = []
    return MessagesResearcher("claude-api", model(server, rows), assignment(), folder), rows


def _measured(script: Sequence[Step], make: Make) -> list[float]:
    """Return for each proposal the seconds beside the model's answers; the first one goes uncounted."""
    beside_s = []
    for _ in range(PROPOSALS + 1):
        with ModelServer(script) as server, tempfile.TemporaryDirectory() as folder:
            researcher, rows = make(server, Path(folder))
            began_s = time.perf_counter()
            researcher.propose(context())
            took_s = time.perf_counter() - began_s
            waited_s = sum(row.seconds for row in rows)
        beside_s.append(took_s - waited_s)
    return beside_s[1:]


if __name__ == "__main__":
    main()
