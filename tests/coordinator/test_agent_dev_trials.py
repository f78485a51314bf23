"""An agent has its unfinished change tried: within a budget, checked first, on development starts, deciding nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.agents import dev_trials
from coordinator.agents.crew import Crew
from coordinator.agents.hiring import Wanted
from coordinator.errors import CoordinatorError
from coordinator.rows import insert
from coordinator.scheduling.work import Attempt
from edge.records import Outcome, Trial
from tests.harness.agent_lane import HYPOTHESIS, POLICY, SLOWER
from tests.harness.attempts_world import STEPS, record
from tests.harness.crew_world import LONG_S, MODEL, CrewWorld, environment
from tests.harness.model_server import ModelServer, Step

pytest.importorskip("anthropic", reason="the vendor's library is not installed: the extra `agents`")

LANE = "claude-api-1"
WANTED = Wanted(("claude-api",), models=(MODEL,))
TOML = f"{POLICY}/policy.toml"
CHANGED = (Step("read", TOML), Step("write", TOML, SLOWER))
SUBMIT = Step("submit", content=HYPOTHESIS)
NEVER = [Step("say", content="I am not done.")] * 9  # it hands nothing in


def asks(**words: object) -> Step:
    return Step("dev_trials", content=json.dumps(words))


class Station:
    """Makes the attempts of one campaign, some of them with a recording."""

    def __init__(self, world: CrewWorld) -> None:
        self.world = world
        self.made: list[Attempt] = []
        (world.folder / "recordings").mkdir(exist_ok=True)

    def turn(self) -> None:
        """Make the next attempts."""
        work = self.world.journal.next_work("station-1", self.world.now_s)
        for attempt in () if work is None else work.attempts:
            self.made.append(attempt)
            trial = self._trial(attempt, len(self.made))
            with self.world.store.transaction() as db:
                more = {"content_sha256": "", "received_unix_s": time.time()}
                insert(db, "trials", {**vars(trial), **more})
                row = {"sha256": trial.recording, "edge": trial.edge, "file": f"{trial.recording}.mcap", "bytes": 1}
                insert(db, "recordings", {**row, "received_unix_s": 0.0}, or_ignore=True)
            self.world.journal.record(trial, self.world.now_s)

    def _trial(self, attempt: Attempt, number: int) -> Trial:
        recording = record(self.world.folder / "recordings", number / 100)
        return Trial(
            edge="station-1", epoch="e", sequence=number, assignment_id=attempt.assignment_id, lease_id="l",
            task="push_t", bundle=attempt.bundle, start_id=attempt.start_id, purpose=attempt.purpose,
            seed=attempt.seed, outcome=Outcome.FAILURE, cause="near", detail="stopped short", progress=0.25,
            measures={"distance_mm": 7.5}, achieved_start={}, reset_s=12.0, reset_tries=1, trial_s=25.0,
            policy_steps=STEPS, wall_reset_s=0.4, wall_trial_s=0.7, started_unix_s=0.0, ended_unix_s=0.0,
            station_hash="", calibration_hash="", software="", recording=recording, notes={"policy": "slid off"},
        )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> CrewWorld:
    return CrewWorld(tmp_path)


@contextmanager
def crew_of(
    world: CrewWorld, server: ModelServer, patch: pytest.MonkeyPatch, wanted: Wanted = WANTED
) -> Iterator[Crew]:
    for name, value in environment(server).items():
        patch.setenv(name, value)
    crew = world.crew(wanted)
    try:
        yield crew
    finally:
        crew.close()


def thought(world: CrewWorld, crew: Crew, turn: Callable[[], None], **changed: Any) -> list[str]:
    """Let the agent think to its end while the stations go on; return what people are told."""
    crew._lanes.resume(LANE)  # it need not rest
    crew.think(LANE, replace(world.work_until_wanted(), **changed), time.time())
    said: list[str] = []
    until_s = time.monotonic() + LONG_S
    while time.monotonic() < until_s:
        ended = world.state(crew) != "thinking"
        said += crew.take(world.journal, time.time())
        if ended:
            return said
        turn()
        time.sleep(0.01)
    raise AssertionError("it thinks for ever")


def answers(server: ModelServer) -> list[Any]:
    """Return what each tool said."""
    last = server.asked[-1]["body"]["messages"]
    parts = [part for message in last if message["role"] == "user" for part in message["content"]]
    return [part["content"] for part in parts if part["type"] == "tool_result"]


def plays(world: CrewWorld) -> list[tuple[str, int]]:
    return list(world.store.rows("SELECT researcher, attempts FROM plays ORDER BY play_id"))


def prompt(server: ModelServer, place: int = 0) -> str:
    return str(server.asked[place]["body"]["messages"][0]["content"][-1]["text"])


def test_what_came_of_an_unfinished_change_is_told_and_shown_before_it_is_handed_in(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(world)
    script = [*CHANGED, asks(attempts=2), asks(), SUBMIT]
    with ModelServer(script) as server, crew_of(world, server, monkeypatch) as crew:
        assert thought(world, crew, station.turn) == []
        assert "- 4 attempts of your unfinished change" in prompt(server)
        first, again = answers(server)[2:4]
        assert [part["type"] for part in first] == ["text", *["image"] * 4]
        words = first[0]["text"]
        assert "2 of 2 attempts of your change were made" in words
        assert words.count("failure (near), progress 0.25, 25.0 s, on dev-") == 2
        assert words.count("| distance_mm = 7.5\n| slid off") == 2
        assert words.endswith("Left for this proposal: 2 attempts.")
        assert again[0]["text"] == words
        assert plays(world) == [(LANE, 2)]
        assert world.candidates() == 2
        mine = [attempt for attempt in station.made if attempt.purpose == "play" and attempt.candidate_id == 1]
        bundles = [row[0] for row in world.store.rows("SELECT bundle FROM plays")]
        assert [attempt.bundle for attempt in mine if attempt.bundle in bundles] == bundles * 2
        assert world.store.rows("SELECT SUM(used) FROM trials WHERE bundle IN (SELECT bundle FROM plays)") == [(0,)]
        notes_of_all = len(world.journal.campaign._book.played)
        assert notes_of_all == sum(attempt.bundle not in bundles for attempt in mine)
        tried = world.workshop.source(bundles[0])
        assert tried is not None
        assert tried.key == world.journal.campaign.candidates[-1].source.key
        thought(world, crew, station.turn)  # another proposal has another budget
        assert "- 4 attempts of your unfinished change" in prompt(server, len(script))
    before = len(world.store.rows("SELECT * FROM campaign_log"))
    world.again()
    assert len(world.store.rows("SELECT * FROM campaign_log")) == before


NOTHING = "takes a number of attempts and nothing else"
WORDS: list[tuple[dict[str, object], str]] = [
    ({"attempts": 1, "split": "heldout"}, NOTHING),
    ({"attempts": 1, "starts": ["heldout-0001"]}, NOTHING),
    ({"start_id": "gate-0001"}, NOTHING),
    ({"attempts": 1, "seed": 7}, NOTHING),
    ({"attempts": "1"}, NOTHING),
    ({"attempts": True}, NOTHING),
    ({"attempts": 1.0}, NOTHING),
    ({"attempts": None}, NOTHING),
    ({"attempts": [1]}, NOTHING),
    ({"attempts": 5}, "ask for at least 1 and at most 4 attempts"),
    ({"attempts": 10**30}, "ask for at least 1 and at most 4 attempts"),
    ({"attempts": 0}, "ask for at least 1 and at most 4 attempts"),
    ({"attempts": -1}, "ask for at least 1 and at most 4 attempts"),
]


def written(text: str, path: str = TOML) -> Step:
    return Step("write", path, text)


def code(text: str) -> Step:
    return written(
        f"{(Path(__file__).parents[2] / POLICY / 'policy.py').read_text()}\n\n{text}\n", f"{POLICY}/policy.py"
    )


def changes(world: CrewWorld) -> list[tuple[Step, str]]:
    """Return changes that may not be tried, the last one being the one that stands then."""
    row = tuple(world.starts.heldout[0].coordinates.values())
    return [
        (code("from edge.tasks import push_t"), "imports edge"),
        (code("import socket"), "imports socket"),
        (code("x = open('policy.toml')"), "uses open"),
        (code("RNG = np.random.default_rng(1234)"), "seeds random numbers"),
        (code(f"KNOWN = {row}"), "holds initial states"),
        (code("def f(:"), "does not compile"),
        (written(SLOWER.replace('task = "push_t"', 'task = "pin"')), "does not compile"),
        (code(""), "says another name"),
        (written("#" * 10_000_000, f"{POLICY}/big.py"), "at most 64 and 262144"),
        (written("x = 1\n", "edge/tasks/push_t.py"), "at most 64 and 262144"),
        (written("", f"{POLICY}/big.py"), "lies outside policies/push_t/"),
    ]


def state_of(world: CrewWorld) -> tuple[object, ...]:
    """Return all that an attempt would change."""
    counts = [
        world.store.rows(f"SELECT COUNT(*) FROM {table}")
        for table in ("campaign_log", "plays", "bundles", "refusals", "candidates", "trials")
    ]
    generator = world.journal.campaign._book.rng.bit_generator.state["state"]["state"]
    return (*counts, generator, len(list((world.folder / "policies.git").rglob("*"))))


def test_a_hostile_request_changes_nothing_costs_nothing_and_is_told_why(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = changes(world)
    script = [asks(attempts=1), *CHANGED, *(asks(**words) for words, _ in WORDS)]
    script += [step for change, _ in hostile for step in (change, asks(attempts=1))]
    world.work_until_wanted()
    before = state_of(world)
    with ModelServer([*script, *NEVER]) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, lambda: None)
        told = answers(server)
        assert told[0].startswith("Refused: Nothing in policies/push_t/ was changed")
        for said, (words, why) in zip(told[3:], WORDS, strict=False):
            assert said.startswith("Refused: "), words
            assert why in said, words
            assert "\n" not in said
        for said, (_, why) in zip(told[4 + len(WORDS) :: 2], hostile, strict=True):
            assert said.startswith("Refused: ")
            assert why in said
            assert "\n" not in said
        assert state_of(world) == before
        assert prompt(server).count("- 4 attempts of your unfinished change") == 1


def test_no_kill_gives_back_what_was_used_up_and_a_proposal_does(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(world)
    with ModelServer([*CHANGED, asks(attempts=3), *NEVER]) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, station.turn)
        assert plays(world) == [(LANE, 3)]
    world.again()
    world.journal.catch_up(world.now_s)
    script = [*CHANGED, asks(), asks(attempts=2), asks(attempts=1), asks(attempts=1), SUBMIT]
    with ModelServer(script) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, station.turn)
        assert "- 1 attempt of your unfinished change" in prompt(server)
        told = answers(server)
        assert told[2] == "You have asked for no attempts yet. Left for this proposal: 1 attempt."
        assert told[3] == "Refused: ask for at least 1 and at most 1 attempt, which is what is left for this proposal."
        assert "1 of 1 attempts" in told[4][0]["text"]
        assert told[5].startswith("Refused: the attempts of this proposal are used up")
        assert plays(world) == [(LANE, 3), (LANE, 1)]
    with ModelServer(NEVER) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, station.turn)
        assert "- 4 attempts of your unfinished change" in prompt(server)


def test_what_no_policy_can_be_made_of_is_refused_by_the_lab_and_takes_nothing(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = written("steps = 3\n", f"{POLICY}/program.toml")
    script = [*CHANGED, spoilt, *[asks(attempts=4)] * (dev_trials.MOST_REFUSALS + 1), *NEVER]
    with ModelServer(script) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, lambda: None)
        told = answers(server)[3:]
        assert all(line.startswith("Refused: ") and "program" in line for line in told[:-1])
        assert told[-1].startswith("Refused: too many changes were refused")
        assert plays(world) == []
        assert world.store.rows("SELECT COUNT(*) FROM refusals") == [(dev_trials.MOST_REFUSALS,)]


def test_a_wait_ends_and_the_rest_can_be_asked_for(world: CrewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_trials, "WAIT_S", 0.2)
    monkeypatch.setattr(dev_trials, "TICK_S", 0.05)
    station = Station(world)
    server = ModelServer([*CHANGED, asks(attempts=2), asks(attempts=1), *[asks()] * 90, SUBMIT])

    def turn() -> None:
        if len(server.asked) > 6:  # the first answers come while no station works
            station.turn()

    with server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, turn)
        told = answers(server)
        assert told[2].startswith("Still running: 0 of 2 attempts are there.")
        assert told[3].startswith("Refused: the attempts that you asked for last are not all there yet")
        assert told[4].startswith("Still running: ")
        assert "2 of 2 attempts" in told[-1][0]["text"]
        assert plays(world) == [(LANE, 2)]


def test_a_change_of_an_older_incumbent_is_tried_as_the_agent_has_it(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    station = Station(world)
    shown = world.work_until_wanted()
    old = {**shown.files, "policy.py": b"# older\n" + shown.files["policy.py"]}
    with ModelServer([*CHANGED, asks(attempts=1), *NEVER]) as server, crew_of(world, server, monkeypatch) as crew:
        thought(world, crew, station.turn, files=old, incumbent_id=99)
        [(bundle,)] = world.store.rows("SELECT bundle FROM plays")
        tried = world.workshop.source(bundle)
        assert tried is not None
        assert {**old, "policy.toml": SLOWER.encode()} == dict(tried.files)


def test_what_cannot_be_published_is_told_and_holds_nobody_up(
    world: CrewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise CoordinatorError("the disk\nis full")

    script = [*CHANGED, asks(attempts=1), SUBMIT]
    with ModelServer(script) as server, crew_of(world, server, monkeypatch) as crew:
        monkeypatch.setattr(world.workshop, "publish", fails)

        def mend() -> None:
            if len(server.asked) > 3:
                monkeypatch.undo()

        said = thought(world, crew, mend)
        assert said == [f"{LANE}'s attempts cannot be published: the disk is full"]
        assert answers(server)[2] == "Refused: the lab cannot publish it now"
        assert plays(world) == []
        assert world.candidates() == 2


def test_it_is_not_offered_where_there_is_no_budget_for_it(world: CrewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    script: Sequence[Step] = [*CHANGED, asks(attempts=1), SUBMIT]
    with ModelServer(script) as server, crew_of(world, server, monkeypatch, replace(WANTED, dev_trials=0)) as crew:
        thought(world, crew, lambda: None)
        assert "dev_trials" not in {tool["name"] for tool in server.asked[0]["body"]["tools"]}
        assert "unfinished" not in prompt(server)
        assert answers(server)[2].startswith("Refused: ")
        assert plays(world) == []
