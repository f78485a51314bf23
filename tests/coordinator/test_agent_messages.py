"""The researcher by API against a scripted model: it proposes, is counted exactly, and recovers or says why not."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.agents.calls import Call
from coordinator.agents.coding_agent import AgentFailed, Model
from coordinator.agents.purse import Budget
from tests.harness.agent_lane import HYPOTHESIS, POLICY, QUICK, SENTENCE, SLOWER, assignment, context, model
from tests.harness.model_server import Fault, ModelServer, Step

pytest.importorskip("anthropic", reason="the vendor's library is not installed: the extra `agents`")
from coordinator.agents.messages import MessagesResearcher

GOOD = (
    Step("read", f"{POLICY}/policy.toml"),
    Step("write", f"{POLICY}/policy.toml", SLOWER),
    Step("submit", content=HYPOTHESIS),
)
PATIENCE = replace(QUICK, silence_s=1.0)


def researcher(
    server: ModelServer, folder: Path, budget: Budget | None = None, **more: Any
) -> tuple[MessagesResearcher, Model, list[Call]]:
    rows: list[Call] = []
    asked = model(server, rows, budget, PATIENCE)
    return MessagesResearcher("claude-api", asked, assignment(), folder, **more), asked, rows


def test_it_makes_a_proposal_and_is_counted_exactly(tmp_path: Path) -> None:
    with ModelServer(GOOD) as server:
        lane, asked, rows = researcher(server, tmp_path, pictures=lambda shown: [b"\xff\xd8jpeg"] * 9)
        proposal = lane.propose(context())
        assert proposal.sentence == SENTENCE
        assert dict(proposal.files) == {"policy.toml": SLOWER.encode()}
        assert [row.told.total for row in rows] == [bill.total for bill in server.billed]
        assert asked.purse.spent.tokens == sum(bill.total for bill in server.billed)
        first = server.asked[0]["body"]["messages"][0]["content"]
        assert [part["type"] for part in first] == ["image"] * 4 + ["text"]
        assert len(next(tmp_path.glob("*.jsonl")).read_text().splitlines()) == 3


def test_each_turn_reads_what_the_one_before_left_in_the_cache(tmp_path: Path) -> None:
    reads = [Step("read", f"{POLICY}/policy.py")] * 6
    with ModelServer([*reads, *GOOD[1:]]) as server:
        researcher(server, tmp_path)[0].propose(context())
        before = 0
        for asked in server.asked:
            marked = [
                place
                for place, message in enumerate(asked["body"]["messages"])
                if any("cache_control" in part for part in message["content"])
            ]
            assert len(marked) <= 4
            assert marked[-1] == len(asked["body"]["messages"]) - 1
            assert before in marked
            before = marked[-1]


RECOVERS: list[tuple[str, Sequence[Fault | None]]] = [
    ("429 with Retry-After", [Fault(429, "0.1"), None]),
    ("429 that asks to wait for an hour", [Fault(429, "3600"), None]),
    ("529 twice", [None, Fault(529, "0"), Fault(529, "0"), None]),
    ("500", [None, Fault(500, "0"), None]),
    ("silence", [None, Fault("silence"), None]),
    ("cut off", [Fault("cut off"), None]),
    ("truncated", [None, Fault("truncated"), None]),
    ("garbage stream", [None, Fault("garbage stream"), None]),
    ("garbage", [None, Fault("garbage"), None]),
]


@pytest.mark.parametrize(("name", "faults"), RECOVERS)
def test_it_recovers(tmp_path: Path, name: str, faults: Sequence[Fault | None]) -> None:
    with ModelServer(GOOD, faults) as server:
        lane, asked, rows = researcher(server, tmp_path)
        assert lane.propose(context()).sentence == SENTENCE
        assert len(rows) == len(server.asked)
        assert asked.purse.spent.tokens == sum((row.told + row.guessed).total for row in rows)
        assert asked.purse.spent.nano_usd == sum(row.nano_usd for row in rows)


STOPS: list[tuple[str, Sequence[Fault | None], str, bool]] = [
    ("401", [Fault(401)], "claude-api stopped: the model's vendor refuses the key (401)", True),
    ("400", [Fault(400)], "claude-api gave up: the model answered 400", False),
    ("500 for ever", [Fault(500, "0")], "claude-api stopped: the model's vendor failed 4 times in a row", True),
    ("truncated for ever", [Fault("truncated")], "claude-api gave up: the model's answer broke off", False),
    ("garbage for ever", [Fault("garbage")], "claude-api gave up: the model's answer broke off", False),
    ("endless talk", [Fault("endless")], "claude-api was ended after its time", False),
]


@pytest.mark.parametrize(("name", "faults", "says", "lasting"), STOPS)
def test_it_stops_with_one_clear_line(
    tmp_path: Path, name: str, faults: Sequence[Fault | None], says: str, lasting: bool
) -> None:
    with ModelServer(GOOD, faults) as server:
        lane, asked, rows = researcher(server, tmp_path, wall_s=2 if name == "endless talk" else 60)
        with pytest.raises(AgentFailed) as failed:
            lane.propose(context())
        assert str(failed.value).startswith(says)
        assert "\n" not in str(failed.value)
        assert failed.value.lasting == lasting
        assert asked.purse.spent.tokens == sum((row.told + row.guessed).total for row in rows)
        assert len(rows) == len(server.asked)


def test_a_budget_ends_it_exactly(tmp_path: Path) -> None:
    with ModelServer([Step("read", f"{POLICY}/policy.py")] * 99) as server:
        lane, asked, rows = researcher(server, tmp_path, Budget(tokens=60_000))
        with pytest.raises(AgentFailed, match="budget is spent"):
            lane.propose(context())
        assert sum(row.told.total for row in rows) == sum(bill.total for bill in server.billed)
        assert 0 < asked.purse.spent.tokens <= 60_000


def test_a_tool_call_for_a_missing_file_is_answered(tmp_path: Path) -> None:
    with ModelServer([Step("read", "nothing/there.py"), *GOOD]) as server:
        lane, _, _ = researcher(server, tmp_path)
        assert lane.propose(context()).sentence == SENTENCE
        result = server.asked[1]["body"]["messages"][-1]["content"][0]["content"]
        assert "there is no file 'nothing/there.py'" in result


def test_what_is_refused_is_explained_and_can_be_put_right(tmp_path: Path) -> None:
    two = json.dumps(
        {"sentence": "Slower is better. And stronger too.", "falsifier": "No more wins than losses in pairs."}
    )
    steps = [
        Step("submit", content=HYPOTHESIS),
        GOOD[1],
        Step("submit", content=two),
        Step("submit", content=HYPOTHESIS),
    ]
    with ModelServer(steps) as server:
        lane, _, _ = researcher(server, tmp_path)
        assert lane.propose(context()).sentence == SENTENCE
        told = [asked["body"]["messages"][-1]["content"][0]["content"] for asked in server.asked[1:]]
        assert "Nothing in policies/push_t/ was changed" in told[0]
        assert "must be one sentence" in told[2]


def test_a_file_outside_the_policy_is_refused(tmp_path: Path) -> None:
    steps = [Step("write", "../../etc/passwd", "x"), *[Step("submit", content=HYPOTHESIS)] * 3]
    with ModelServer(steps) as server:
        lane, _, _ = researcher(server, tmp_path)
        with pytest.raises(AgentFailed, match="lies outside policies/push_t/"):
            lane.propose(context())


def test_talk_without_a_change_ends(tmp_path: Path) -> None:
    with ModelServer([Step("say", content="I am done.")] * 9) as server:
        lane, _, _ = researcher(server, tmp_path)
        began = time.monotonic()
        with pytest.raises(AgentFailed, match="nothing was handed in"):
            lane.propose(context())
        assert len(server.asked) == 3
        assert time.monotonic() - began < 30
