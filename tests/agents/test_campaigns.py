"""Whole campaigns on emulated stations with real agents, whose models follow a script: from naive to the target.

`make test-agents` installs the agents and runs these for some minutes. An agent that is not there is skipped, with the
reason.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.agents.hiring import HiringRefused, Wanted, hire
from coordinator.agents.ledger import FILE as LEDGER
from coordinator.agents.shelf import DEV_TRIALS
from tests.harness.crew_world import MODEL, environment
from tests.harness.model_server import Fault, ModelServer, Step
from tests.harness.person_model import ALL_AT_ONCE, FIXES, PersonModel

pytestmark = pytest.mark.demo
INSTALLED = os.environ.get("AGENTS_VENV", str(Path(__file__).parents[2] / ".venv-agents"))
CAMPAIGN = (sys.executable, "-m", "coordinator", "campaign")
AGENTS = ("claude-api", "claude-code", "codex", "kimi-code")
LONG_S = 1200.0  # bound of a wait for real processes; nothing is measured by it
USE = """
SELECT input_tokens + output_tokens, ended, researcher, hypothesis_id FROM token_use ORDER BY token_use_id
"""
COSTS = "SELECT sentence, SUM(nano_usd) FROM token_use JOIN hypotheses USING (hypothesis_id) GROUP BY sentence"
ACCEPTED = """
SELECT researcher, sentence, hypothesis_id, 5 * incumbent_successes <= incumbent_trials
FROM decisions JOIN candidates USING (candidate_id)
JOIN hypotheses USING (hypothesis_id) WHERE verdict = 'accept' AND stage = 'gate' ORDER BY decision_id
"""


def settings(server: ModelServer, folder: Path) -> dict[str, str]:
    """Return the environment of a campaign's process; what its agents leave behind lies in `folder`."""
    folder.mkdir(exist_ok=True)
    return {**os.environ, **environment(server), "AGENTS_VENV": INSTALLED, "TMPDIR": str(folder)}


def skip_without(name: str, environ: Mapping[str, str]) -> None:
    try:
        hire(Wanted((name,)), environ)
    except HiringRefused as refused:
        pytest.skip(str(refused))


def rows(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{(folder / 'coordinator.db').as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def run(runs: Path, environ: Mapping[str, str], *options: str) -> tuple[Path, dict[str, Any]]:
    """Run a campaign to its end; return its folder and its summary."""
    command = [*CAMPAIGN, "start", "--json", "--no-offline", "--runs", str(runs), *options]
    done = subprocess.run(command, env=dict(environ), stdout=subprocess.PIPE, text=True, check=False, timeout=LONG_S)
    assert done.returncode == 0
    [folder] = [path for path in runs.iterdir() if path.is_dir()]
    return folder, json.loads(done.stdout)


def check_ledger(folder: Path, server: ModelServer) -> None:
    """Check that each whole answer is booked as its vendor billed it; at a campaign's end some are broken off."""
    booked = rows(folder, USE)
    whole = Counter(tokens for tokens, ended, _, _ in booked if ended == "complete")
    billed = Counter(bill.total for bill in server.billed)
    assert whole <= billed
    assert (billed - whole).total() <= sum(ended == "agent gone" for _, ended, _, _ in booked)
    assert len((folder / LEDGER).read_text().splitlines()) == len(booked) == len(server.asked)


def check_nothing_leaked(folder: Path, server: ModelServer) -> None:
    """Check that the key reached the vendor, and no file of the run."""
    assert {asked["headers"].get("x-api-key") or asked["headers"].get("authorization") for asked in server.asked} <= {
        "the-real-key",
        "Bearer the-real-key",
    }
    kept = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".jsonl", ".log", ".db", ".json")]
    assert all(b"the-real-key" not in path.read_bytes() for path in kept)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_s_proposal_is_tested_on_the_fleet_and_accepted(tmp_path: Path, name: str) -> None:
    with PersonModel(fixes=ALL_AT_ONCE) as server:
        environ = settings(server, tmp_path / "t")
        skip_without(name, environ)
        ends = ("--target", "4", "--heldout", "5", "--audit", "0", "--budget-minutes", "20", "--budget-usd", "9")
        folder, summary = run(tmp_path / "runs", environ, "--researcher", name, "--edges", "2", *ends)
        [(researcher, sentence, hypothesis, naive)] = rows(folder, ACCEPTED)
        assert (researcher, sentence) == (f"{name}-1", ALL_AT_ONCE[0].sentence)
        assert naive  # the policy as it ships succeeded in a fifth of its pairs at most
        assert summary["ended_why"] == "the target was reached"
        assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
        assert any(row[3] == hypothesis for row in rows(folder, USE))
        check_ledger(folder, server)
        check_nothing_leaked(folder, server)
        found = subprocess.run(
            [*CAMPAIGN, "transcripts", str(folder), "--grep", "push_speed_m_s"], stdout=subprocess.PIPE, check=True
        )
        assert f"{name}-1-0001".encode() in found.stdout


def test_a_model_that_makes_a_person_s_fixes_takes_push_t_from_naive_to_the_target(tmp_path: Path) -> None:
    with PersonModel(fixes=FIXES) as server:
        environ = settings(server, tmp_path / "t")
        skip_without("claude-api", environ)
        lanes = ["--researcher", "claude-api"]
        try:
            hire(Wanted(("claude-code",)), environ)
            lanes += ["--researcher", "claude-code"]
        except HiringRefused:  # one lane can do it too
            pass
        folder, summary = run(
            tmp_path / "runs", environ, *lanes, "--edges", "3", "--audit", "0", "--budget-minutes", "25"
        )
        assert summary["ended_why"] == "the target was reached"
        accepted = rows(folder, ACCEPTED)
        assert accepted[0][3]  # the policy as it ships succeeded in a fifth of its pairs at most
        assert len(accepted) >= 2
        assert {row[1] for row in accepted} <= {fix.sentence for fix in FIXES}
        [(successes, trials)] = rows(folder, "SELECT successes, trials FROM heldout WHERE complete = 1")[-1:]
        assert successes >= 46
        assert trials == 50
        check_ledger(folder, server)
        # By sentence: an idea that is tested anew on a new incumbent is another hypothesis, which cost nothing more.
        costs = dict(rows(folder, COSTS))
        assert all(costs[row[1]] > 0 for row in accepted)


@dataclass
class TryingModel(PersonModel):
    """A model that has its change tried by robots before it hands it in, and waits for what comes of it."""

    def steps(self, path: str, body: dict[str, Any]) -> Sequence[Step]:
        *change, ending = super().steps(path, body)
        if ending.do == "read":  # by API it reads first, and this is all that it knows
            return [*change, ending]
        ask, wait = Step("run", content=f"{DEV_TRIALS} 2"), Step("run", content=DEV_TRIALS)
        if ending.do == "submit":
            ask, wait = Step("dev_trials", content='{"attempts": 2}'), Step("dev_trials", content="{}")
        return [*change, ask, *[wait] * json.dumps(body).count("Still running: "), ending]


@pytest.mark.parametrize("name", ["claude-api", "claude-code"])
def test_an_agent_has_its_change_tried_by_robots_before_it_hands_it_in(tmp_path: Path, name: str) -> None:
    with TryingModel(fixes=ALL_AT_ONCE) as server:
        environ = settings(server, tmp_path / "t")
        skip_without(name, environ)
        ends = ("--target", "4", "--heldout", "5", "--audit", "0", "--budget-minutes", "20", "--dev-trials", "3")
        folder, summary = run(tmp_path / "runs", environ, "--researcher", name, "--edges", "2", *ends)
        asked, *_ = rows(folder, "SELECT researcher, attempts, bundle, created_unix_s FROM plays ORDER BY play_id")
        assert asked[:2] == (f"{name}-1", 2)
        made = rows(folder, f"SELECT start_id, purpose, outcome, used FROM trials WHERE bundle = '{asked[2]}'")
        assert len([row for row in made if row[2] != "invalid"]) >= 2
        assert all(start.startswith("dev-") and (purpose, used) == ("play", 0) for start, purpose, _, used in made)
        told = next(text for question in server.asked if "2 of 2 attempts" in (text := json.dumps(question["body"])))
        assert "3 attempts of your unfinished change" in told
        assert "Left for this proposal: 1 attempt." in told
        assert all(start in told for start, _, outcome, _ in made if outcome != "invalid")
        assert ('"type": "image"' if name == "claude-api" else "/lab/trials/own-1-1-film.jpg") in told
        [(researcher, sentence, _, naive)] = rows(folder, ACCEPTED)
        assert (researcher, sentence) == (f"{name}-1", ALL_AT_ONCE[0].sentence)
        assert naive
        assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
        check_ledger(folder, server)
        check_nothing_leaked(folder, server)


def wait_for(process: subprocess.Popen[bytes], true: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not true():
        assert process.poll() is None, "the campaign ended by itself"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def left_behind(folder: Path) -> Sequence[str]:
    """Return the programs whose command names a place in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command:
            found.append(command.decode("utf-8", "replace"))
    return found


def test_a_campaign_that_is_killed_in_the_middle_of_a_thought_keeps_its_budgets_and_its_orders(tmp_path: Path) -> None:
    place = tmp_path / "t"
    with ModelServer((), [Fault("silence")]) as silent, PersonModel(fixes=ALL_AT_ONCE) as server:
        environ = settings(silent, place)
        name = "claude-api"
        try:
            hire(Wanted(("claude-code",)), environ)
            name = "claude-code"
        except HiringRefused:
            skip_without(name, environ)
        lane = f"{name}-1"
        options = ["--researcher", name, "--model", MODEL, "--edges", "2", "--budget-tokens", "900000"]
        start = [*CAMPAIGN, "start", "--runs", str(tmp_path / "runs"), "--budget-minutes", "30", *options]
        process = subprocess.Popen(start, env=environ, stderr=subprocess.DEVNULL)
        wait_for(process, lambda: silent.asked)
        [folder] = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
        wait_for(process, lambda: rows(folder, "SELECT * FROM lanes WHERE state = 'thinking' AND thought_s > 1"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline_s = time.monotonic() + 20
        while left_behind(place) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert left_behind(place) == []
        thought_s = rows(folder, "SELECT thought_s FROM lanes")[0][0]
        order = [*CAMPAIGN, "agents", str(folder)]
        subprocess.run([*order, "--pause", lane, "--budget-tokens", "800000"], check=True, stdout=subprocess.DEVNULL)

        resume = [*CAMPAIGN, "resume", str(folder)]
        process = subprocess.Popen(resume, env=settings(server, place), stderr=subprocess.DEVNULL)
        wait_for(process, lambda: rows(folder, "SELECT why FROM lanes") == [("paused by a person",)])
        before = rows(folder, "SELECT COUNT(*) FROM trials")[0][0]
        wait_for(process, lambda: rows(folder, "SELECT COUNT(*) FROM trials")[0][0] > before)
        assert server.asked == []
        subprocess.run([*order, "--go", lane], check=True, stdout=subprocess.DEVNULL)
        proposed = f"SELECT * FROM candidates JOIN hypotheses USING (hypothesis_id) WHERE researcher = '{lane}'"
        wait_for(process, lambda: rows(folder, proposed))
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_S) == 130
        assert left_behind(place) == []
        assert rows(folder, "SELECT thought_s FROM lanes")[0][0] >= thought_s
        check_ledger(folder, server)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["integrity"] == dict.fromkeys(summary["integrity"], 0)
