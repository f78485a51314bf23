"""A program in its cage asks the fleet through the one address that it reaches, and is not ended while it waits."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.agents import ask_fleet, cage, dev_trials, shelf
from coordinator.agents.clients import Client
from coordinator.agents.coding_agent import AgentFailed, Fleet
from coordinator.agents.dev_trials import DevTrials
from coordinator.agents.trial_files import Told
from coordinator.agents.window import Request, Window
from tests.harness.agent_lane import FILES, HYPOTHESIS, LIMITS, POLICY, SENTENCE, assignment, context, lane
from tests.harness.attempts_world import make_run
from tests.harness.model_server import ModelServer

CHANGE = f"sed -i 's/default = 0.20/default = 0.10/' {POLICY}/policy.toml"
MADE = "b" * 64  # whose attempts the run has


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def window() -> Window:
    window = Window()
    window.begin(4)
    return window


@pytest.fixture
def trials(window: Window, run: Path, tmp_path: Path) -> DevTrials:
    return Fleet(window, run).trials(assignment(), context(), tmp_path, "/lab/trials")


def program(script: str) -> Client:
    """Return an agent that is a shell, and says what its commands say."""
    return Client(
        "shell", "", lambda folder: {}, lambda *asked: ["/bin/sh", "-c", script], {}, lambda name: {},
        lambda event: iter(()),
    )  # fmt: skip


def conducted(window: Window, served: Callable[[Request], None]) -> threading.Thread:
    """Serve the first request of a window in a thread of its own."""

    def serve() -> None:
        while (request := window.pending()) is None:
            time.sleep(0.01)
        served(request)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*.jsonl")))


def test_an_agent_that_waits_for_the_fleet_is_not_silent_and_sees_what_came(
    tmp_path: Path, run: Path, window: Window
) -> None:
    if not cage.has_cage():
        pytest.skip("bubblewrap or prlimit is not installed here")

    def slowly(request: Request) -> None:
        time.sleep(4.0)  # longer than the lane may be silent
        window.handed_in(request, "d" * 64)
        window.end_request(request)

    script = (
        f"{CHANGE}; {shelf.DEV_TRIALS} 2; cd /tmp; {shelf.DEV_TRIALS}; {shelf.DEV_TRIALS} 9;"
        f" {shelf.DEV_TRIALS} --heldout 1; echo '{HYPOTHESIS}' > /repo/hypothesis.json"
    )
    server = conducted(window, slowly)
    with ModelServer() as vendor:
        limits = replace(LIMITS, silence_s=2.0)
        made = lane(vendor, program(script), {}, tmp_path, limits=limits, shows=shelf.shows(run, trials=True))
        made.agent._fleet = Fleet(window, run)
        proposal = made.agent.propose(context())
    server.join()
    assert proposal.sentence == SENTENCE
    assert vendor.asked == []
    request = window.last
    assert request is not None
    assert dict(request.files) == dict(proposal.files)
    lines = said(tmp_path).splitlines()
    assert lines.count("0 of 2 attempts of your change were made; they decide nothing.") == 2
    assert lines[-2] == "Refused: ask for at least 1 and at most 2 attempts, which is what is left for this proposal."
    assert lines[-1] == f"Refused: {dev_trials.ONLY}"


def test_an_agent_that_is_told_to_stop_stops_waiting(tmp_path: Path, run: Path, window: Window) -> None:
    if not cage.has_cage():
        pytest.skip("bubblewrap or prlimit is not installed here")
    with ModelServer() as vendor:
        script = f"{CHANGE}; {shelf.DEV_TRIALS} 2"
        made = lane(vendor, program(script), {}, tmp_path, shows=shelf.shows(run, trials=True))
        made.agent._fleet = Fleet(window, run)
        made.agent.stop = lambda: "paused by a person" if window.pending() else None
        with pytest.raises(AgentFailed, match="stopped: paused by a person"):
            made.agent.propose(context())


def body(**words: object) -> bytes:
    """Return what the program in the cage sends of an unchanged work tree, with other words than it would."""
    tree = assignment().tree(context())
    files = {path: ("100644", base64.b64encode(data).decode()) for path, data in tree.items()}
    return json.dumps({"files": files, "attempts": 1, **words}).encode()


def sent(path: str, data: bytes, mode: str = "100644") -> bytes:
    asked = json.loads(body())
    asked["files"][path] = (mode, base64.b64encode(data).decode())
    return json.dumps(asked).encode()


def without(path: str) -> bytes:
    asked = json.loads(body())
    del asked["files"][path]
    return json.dumps(asked).encode()


TOML = f"{POLICY}/policy.toml"
HOSTILE: list[tuple[str, bytes, str]] = [
    ("nothing", b"", dev_trials.ONLY),
    ("no JSON", b"\xff\x00{", dev_trials.ONLY),
    ("deep JSON", b"[" * 100_000, dev_trials.ONLY),
    ("a list", b"[1, 2]", dev_trials.ONLY),
    ("no files", b'{"attempts": 1}', dev_trials.ONLY),
    ("files that are none", b'{"attempts": 1, "files": {"a": "b"}}', dev_trials.ONLY),
    ("no base64", b'{"attempts": 1, "files": {"a": ["100644", "%%"]}}', dev_trials.ONLY),
    ("another split", body(split="audit"), dev_trials.ONLY),
    ("a start", body(starts=["heldout-0001"]), dev_trials.ONLY),
    ("half an attempt", body(attempts=0.5), dev_trials.ONLY),
    (
        "too many",
        body(attempts=5),
        "ask for at least 1 and at most 4 attempts, which is what is left for this proposal.",
    ),
    ("nothing changed", body(), "Nothing in policies/push_t/ was changed; make one change there."),
    ("the judge", sent("edge/tasks/push_t.py", b"x = 1\n"), "lies outside policies/push_t/"),
    ("a skill", sent("policies/interface.py", b"x = 1\n"), "lies outside policies/push_t/"),
    ("dots", sent(f"{POLICY}/../../edge/x.py", b"x = 1\n"), "lies outside policies/push_t/"),
    ("the root", sent("/etc/passwd", b"x"), "lies outside policies/push_t/"),
    ("half a letter", sent("\ud800", b"x"), "lies outside policies/push_t/"),
    ("a link", sent(f"{POLICY}/a.py", b"/etc/passwd", "120000"), "a.py is a symbolic link"),
    ("a program", sent(f"{POLICY}/a.py", b"x = 1\n", "100755"), "a.py is marked as a program"),
    ("no mode", sent(f"{POLICY}/a.py", b"x = 1\n", ""), "a.py is no plain file"),
    ("gone", without(TOML), "policy.toml was deleted"),
    ("bytes", sent(f"{POLICY}/a.py", b"\xff\xfe"), "a.py is not UTF-8 text"),
    ("ten megabytes", sent(f"{POLICY}/a.py", b"#" * 10_000_000), "at most 64 and 262144 are allowed"),
    ("the network", sent(f"{POLICY}/a.py", b"import socket\n"), "imports socket"),
]


@pytest.mark.parametrize(("name", "asked", "why"), HOSTILE, ids=[row[0] for row in HOSTILE])
def test_what_a_hostile_program_sends_asks_for_nothing(
    trials: DevTrials, window: Window, name: str, asked: bytes, why: str
) -> None:
    told = trials.by_http(asked)
    assert told.startswith("Refused: ")
    assert why in told
    assert "\n" not in told
    told.encode()
    assert window.last is None
    assert window.left == 4


def test_changes_that_are_refused_again_and_again_are_looked_at_no_more(trials: DevTrials, window: Window) -> None:
    bad = sent(f"{POLICY}/a.py", b"import socket\n")
    told = [trials.by_http(bad) for _ in range(dev_trials.MOST_REFUSALS + 1)]
    assert all("imports socket" in line for line in told[:-1])
    assert told[-1].startswith("Refused: too many changes were refused in this run")
    assert window.last is None


def test_a_run_that_is_over_asks_for_nothing_more(trials: DevTrials, window: Window) -> None:
    trials.closed = True
    good = sent(TOML, FILES["policy.toml"] + b"\n# slower\n")
    assert trials.by_http(good) == "Refused: your run is over."
    trials.closed = False
    window.end()
    assert trials.by_http(good) == "Refused: this assignment is over."
    assert window.pending() is None


def test_only_attempts_of_play_on_development_starts_are_told(trials: DevTrials, window: Window) -> None:
    good = sent(TOML, FILES["policy.toml"] + b"\n# slower\n")

    def other(request: Request) -> None:  # the run has baseline, gate, held-out and audit attempts of it
        window.handed_in(request, MADE)
        window.end_request(request)

    server = conducted(window, other)
    assert trials.by_http(good).splitlines()[0].startswith("0 of 1 attempts of your change were made")
    server.join()


def test_what_came_is_made_to_be_seen_once(trials: DevTrials, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def watched(run: Path, bundle: str) -> list[Told]:
        looked.append(bundle)
        return []

    def served(request: Request) -> None:
        window.handed_in(request, MADE)
        window.end_request(request)

    monkeypatch.setattr(dev_trials, "played", watched)
    server = conducted(window, served)
    trials.by_http(sent(TOML, FILES["policy.toml"] + b"\n# slower\n"))
    server.join()
    assert len({trials.by_http(b'{"files": {}}') for _ in range(5)}) == 1
    assert looked == [MADE]


def test_the_program_sends_the_tree_as_git_would_see_it(tmp_path: Path) -> None:
    for folder in ("a", ".git", "a/__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_bytes(b"x\xff")
    (tmp_path / "a/link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "run").write_text("y")
    (tmp_path / "run").chmod(0o755)
    assert dict(ask_fleet.files(tmp_path)) == {
        "a/x.py": ("100644", b"x\xff"),
        "a/link": ("120000", b"/etc/passwd"),
        "loop": ("120000", bytes(tmp_path)),
        "run": ("100755", b"y"),
    }
