"""The real clients against a scripted model: each makes a proposal, is counted exactly, and recovers or says why not.

`make test-agents` installs the clients. A client that is not installed is skipped, with the reason.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.agents import cage, shelf, watch
from coordinator.agents.clients import CLIENTS, Client
from coordinator.agents.coding_agent import AgentFailed
from coordinator.agents.lab_view import PLACE
from coordinator.agents.purse import Budget
from tests.harness.agent_lane import GOOD, HYPOTHESIS, LIMITS, POLICY, QUICK, SENTENCE, SLOWER, Lane, context, lane
from tests.harness.attempts_world import make_run
from tests.harness.model_server import Fault, ModelServer, Step

INSTALLED = Path(os.environ.get("AGENTS_VENV", Path(__file__).parents[2] / ".venv-agents")).absolute()
BY_NAME = {client.name: client for client in CLIENTS}


def started(name: str, server: ModelServer, folder: Path, **more: object) -> Lane:
    """Return a lane with a client, or skip the test."""
    if not cage.has_cage():
        pytest.skip("bubblewrap or prlimit is not installed here")
    client: Client = BY_NAME[name]
    programs = client.programs(INSTALLED)
    if programs is None:
        pytest.skip(f"{name} is not installed in {INSTALLED}: make test-agents")
    return lane(server, client, dict(programs), folder, **more)  # type: ignore[arg-type]


def exact(made: Lane, server: ModelServer) -> None:
    """Check that the ledger is the vendor's own count, answer by answer, and the purse is the ledger's sum."""
    told = [row.told for row in made.rows if row.ended == "complete"]
    billed = [bill.total for bill in server.billed]
    assert sorted(usage.total for usage in told) == sorted(billed)
    assert made.purse.spent.tokens == sum((row.told + row.guessed).total for row in made.rows)
    assert made.purse.spent.nano_usd == sum(row.nano_usd for row in made.rows)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_client_makes_a_proposal_and_is_counted_exactly(tmp_path: Path, name: str) -> None:
    with ModelServer(GOOD) as server:
        made = started(name, server, tmp_path)
        proposal = made.agent.propose(context())
        assert proposal.sentence == SENTENCE
        assert dict(proposal.files) == {"policy.toml": SLOWER.encode()}
        exact(made, server)
        assert "the-real-key" not in "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))


def test_kimi_code_starts_from_what_was_compiled_where_it_was_installed(tmp_path: Path) -> None:
    client = BY_NAME["kimi-code"]
    environment = {**client.environment, "NODE_DEBUG_NATIVE": "COMPILE_CACHE"}
    if (programs := client.programs(INSTALLED)) is None or not cage.has_cage():
        pytest.skip("kimi-code or bubblewrap is not installed here")
    (tmp_path / "work").mkdir()
    (tmp_path / "socket").touch()
    caged = cage.Caged(tmp_path / "work", tmp_path / "socket", programs, environment)
    command = cage.launch(caged, [*client.arguments("", "")[:2], "--version"])
    done = subprocess.run(command.command, env=command.environment, capture_output=True, text=True, check=True)
    assert "kimi-code/dist/main.mjs was accepted" in done.stdout + done.stderr


@pytest.mark.parametrize("name", BY_NAME)
def test_a_transcript_can_be_read(tmp_path: Path, name: str) -> None:
    from coordinator.agents.clients import read_line

    with ModelServer(GOOD) as server:
        started(name, server, tmp_path).agent.propose(context())
    lines = next(tmp_path.glob("*.jsonl")).read_text().splitlines()
    said = [found for line in lines for found in read_line(BY_NAME[name], line)]
    assert "done" in [found.text for found in said if found.kind == "says"]
    assert sum(found.kind == "does" for found in said) == len(GOOD)


RECOVERS: list[tuple[str, Sequence[Fault | None]]] = [
    ("429 once, with Retry-After", [Fault(429, "1"), None]),
    ("429 that asks to wait for an hour", [None, Fault(429, "3600"), None]),
    ("529 twice", [Fault(529), Fault(529), None]),
    ("500 in the middle", [None, Fault(500), None]),
    ("a line that is cut off", [None, Fault("cut off"), None]),
    ("silence once", [None, Fault("silence"), None]),
]


@pytest.mark.parametrize(("fault", "faults"), RECOVERS)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_lane_recovers(tmp_path: Path, name: str, fault: str, faults: Sequence[Fault | None]) -> None:
    with ModelServer(GOOD, faults) as server:
        made = started(name, server, tmp_path)
        assert made.agent.propose(context()).sentence == SENTENCE
        exact(made, server)


STOPS: list[tuple[str, Sequence[Fault | None], str, bool]] = [
    ("401", [Fault(401)], "stopped: the model's vendor refuses the key (401)", True),
    ("402", [Fault(402)], "stopped: the account at the model's vendor is empty (402)", True),
    ("500 for ever", [Fault(500)], "stopped: the model's vendor failed 4 times in a row, the last time with 500", True),
    ("529 for ever", [Fault(529, "0")], "stopped: the model's vendor failed 4 times in a row", True),
    ("429 for ever", [Fault(429, "0")], "stopped: the model's vendor failed 4 times in a row", True),
    ("endless talk", [Fault("endless")], "ended after its 6 seconds", False),
]


@pytest.mark.parametrize(("fault", "faults", "says", "lasting"), STOPS)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_lane_stops_with_one_clear_line(
    tmp_path: Path, name: str, fault: str, faults: Sequence[Fault | None], says: str, lasting: bool
) -> None:
    limits = replace(LIMITS, wall_s=6) if fault == "endless talk" else LIMITS
    with ModelServer(GOOD, faults) as server:
        made = started(name, server, tmp_path, limits=limits)
        with pytest.raises(AgentFailed) as failed:
            made.agent.propose(context())
        assert says in str(failed.value)
        assert "\n" not in str(failed.value)
        assert failed.value.lasting == lasting
        assert made.purse.spent.tokens == sum((row.told + row.guessed).total for row in made.rows)
        assert made.purse.spent.nano_usd == sum(row.nano_usd for row in made.rows)


@pytest.mark.parametrize("kind", ["truncated", "garbage", "garbage stream"])
@pytest.mark.parametrize("name", BY_NAME)
def test_a_bad_answer_is_survived_or_named_and_always_booked(tmp_path: Path, name: str, kind: str) -> None:
    with ModelServer(GOOD, [None, Fault(kind), None]) as server:
        made = started(name, server, tmp_path)
        with suppress(AgentFailed):
            assert made.agent.propose(context()).sentence == SENTENCE
        bad = [row for row in made.rows if row.ended == "broken off"]
        assert bad
        assert all((row.told + row.guessed).total > 0 for row in bad)
        assert made.purse.spent.tokens == sum((row.told + row.guessed).total for row in made.rows)
        assert len(made.rows) == len(server.asked)


def test_silence_ends_a_lane(tmp_path: Path) -> None:
    patience, limits = replace(QUICK, silence_s=60), watch.Watch(wall_s=60, silence_s=3)
    with ModelServer(GOOD, [Fault("silence")]) as server:
        made = started("claude-code", server, tmp_path, patience=patience, limits=limits)
        with pytest.raises(AgentFailed, match="ended after 3 seconds of silence"):
            made.agent.propose(context())
        assert [row.ended for row in made.rows] == ["agent gone"] * len(server.asked)
        assert made.purse.spent.tokens == sum(row.guessed.total for row in made.rows)


def test_a_budget_ends_a_lane_exactly(tmp_path: Path) -> None:
    with ModelServer([Step("run", content="true")] * 99) as server:
        made = started("claude-code", server, tmp_path, budget=Budget(tokens=40_000))
        with pytest.raises(AgentFailed, match=r"stopped: the (token )?budget is spent") as failed:
            made.agent.propose(context())
        assert failed.value.lasting
        exact(made, server)
        assert 0 < made.purse.spent.tokens <= 40_000


def test_a_call_of_a_tool_for_a_missing_file_is_survived(tmp_path: Path) -> None:
    with ModelServer([Step("read", "/repo/nothing/there.py"), *GOOD]) as server:
        made = started("claude-code", server, tmp_path)
        assert made.agent.propose(context()).sentence == SENTENCE
        exact(made, server)


def test_an_agent_is_told_why_and_tries_again(tmp_path: Path) -> None:
    bad = [Step("write", "/repo/edge/judge.py", "x = 1\n"), Step("write", "/repo/hypothesis.json", HYPOTHESIS)]
    with ModelServer(bad) as server:
        made = started("claude-code", server, tmp_path)
        with pytest.raises(AgentFailed, match=r"edge/judge\.py lies outside policies/push_t/"):
            made.agent.propose(context())
        prompts = [str(asked["body"]["messages"]) for asked in server.asked]
        assert sum("was not taken" in prompt for prompt in prompts) == 2 * 3
        assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_exit_0_and_no_diff_is_no_proposal(tmp_path: Path) -> None:
    with ModelServer([Step("say", content="I have improved everything.")]) as server:
        made = started("claude-code", server, tmp_path)
        with pytest.raises(AgentFailed, match=f"Nothing in {POLICY}/ was changed"):
            made.agent.propose(context())


def test_an_agent_that_is_told_to_stop_stops(tmp_path: Path) -> None:
    with ModelServer([Step("run", content="sleep 50")] * 9) as server:
        made = started("claude-code", server, tmp_path)
        began = time.monotonic()
        made.agent.stop = lambda: "paused by a person" if server.asked else None
        with pytest.raises(AgentFailed, match="stopped: paused by a person"):
            made.agent.propose(context())
        assert time.monotonic() - began < 40


def test_an_agent_tests_its_change_in_the_cage_but_reaches_nobody(tmp_path: Path) -> None:
    check = (
        "python3 -c 'import ast; ast.parse(open(\"/repo/policies/push_t/policy.py\").read())' && touch /tmp/parsed;"
        " (echo > /dev/tcp/192.0.2.1/80) 2>/dev/null && touch /repo/reached;"
        f" cp /tmp/parsed /repo/{POLICY}/parsed.toml"
    )
    with ModelServer([*GOOD, Step("run", content=check)]) as server:
        proposal = started("claude-code", server, tmp_path).agent.propose(context())
        assert set(proposal.files) == {"policy.toml", "parsed.toml"}


def test_an_agent_asks_the_lab_s_records_in_its_cage(tmp_path: Path) -> None:
    def shows(folder: Path) -> dict[str, Path]:
        with closing(sqlite3.connect(folder / "view.db")) as view:
            view.execute("CREATE TABLE attempts (start_id)")
            view.execute("INSERT INTO attempts VALUES ('dev-0001')")
            view.commit()
        return {PLACE: folder / "view.db"}

    opened = f"sqlite3.connect('file:{PLACE}?mode=ro&immutable=1', uri=True)"
    asks = f"import sqlite3; print({opened}.execute('SELECT * FROM attempts').fetchall())"
    with ModelServer([Step("run", content=f'python3 -c "{asks}"'), *GOOD]) as server:
        made = started("claude-code", server, tmp_path, shows=shows)
        made.agent.propose(context())
        assert "dev-0001" in str(server.asked[1]["body"]["messages"][-1])


def test_an_agent_runs_its_policy_dry_in_its_cage_and_looks_at_attempts(tmp_path: Path) -> None:
    look = "/lab/dry_run policies/push_t; head -c 3 /lab/trials/1-film.jpg | xxd -p; ls /lab/methods | wc -l"
    spoils = Step("write", f"/repo/{POLICY}/policy.py", "def run(robot, params):\n    return undefined\n")
    checks = Step("run", content=look)
    (tmp_path / "run").mkdir()
    with ModelServer([checks, spoils, checks, *GOOD]) as server:
        made = started("claude-code", server, tmp_path, shows=shelf.shows(make_run(tmp_path / "run")))
        made.agent.propose(context())
        told = [str(asked["body"]["messages"][-1]) for asked in server.asked]
        assert "dev-0002: failure, near" in told[1]
        assert "ffd8ff" in told[1]
        assert "NameError: name" in told[3]
