"""The uplink carries evidence up and verified work down, over a real loopback to an emulated coordinator."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zenoh
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from edge.records import PROTOCOL, Assignment, Lease, Outcome, Trial, decode, encode
from edge.uplink.__main__ import FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S, back_off_s
from edge.uplink.courier import AFTER_REFUSAL_S, BATCH, STOCK, Courier
from edge.uplink.memory import group_memory_mb
from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.uplink.settings import Settings, UplinkError
from edge.wire import key_of
from policies import bundle

NOW_S = 1_700_000_000.0
EDGE = "station-1"
LONG_S = 60.0  # bound of a wait; nothing is measured by it
KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
POLICY = Path(bundle.__file__).parent / "push_t"
TRIAL = Trial(
    edge="station-1", epoch="", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="", detail="done", progress=1.0,
    measures={"coverage": 0.97}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600,
    wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5, station_hash="5" * 64,
    calibration_hash="6" * 64, software="s", recording="",
)  # fmt: skip
NOTHING_KNOWN = {
    "high": 0, "missing": [], "replicated": [], "recordings_lost": [], "recordings_replicated": [],
}  # fmt: skip
Reply = Callable[[bytes], bytes | None]  # None leaves the question open


@dataclass
class Desk:
    """What an emulated coordinator answers, and what it was asked."""

    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[tuple[str, bytes, bytes]] = field(default_factory=list)  # key, payload, attachment
    statuses: list[Any] = field(default_factory=list)
    here: threading.Event = field(default_factory=threading.Event)
    away: threading.Event = field(default_factory=threading.Event)
    status_came: threading.Event = field(default_factory=threading.Event)
    trial_came: threading.Event = field(default_factory=threading.Event)

    def answer(self, query: zenoh.Query) -> None:
        key = str(query.key_expr)
        payload, attachment = (b"" if part is None else part.to_bytes() for part in (query.payload, query.attachment))
        self.asked.append((key, payload, attachment))
        try:
            said = self.replies.get(key, refuse("nobody knows"))(payload)
        except LookupError as error:
            query.reply_err(str(error.args[0]).encode())
        else:
            if said is not None:
                query.reply(key, said)
        finally:
            query.drop()
        if key == key_of(EDGE, "trials"):
            self.trial_came.set()

    def alive(self, sample: zenoh.Sample) -> None:
        (self.here if sample.kind == zenoh.SampleKind.PUT else self.away).set()

    def status(self, sample: zenoh.Sample) -> None:
        self.statuses.append((str(sample.key_expr), sample.payload.to_bytes()))
        self.status_came.set()

    def keys(self, topic: str) -> list[str]:
        """Return the keys of a topic that were asked for."""
        return [key for key, _, _ in self.asked if key.startswith(key_of(EDGE, topic))]


def unacked(ledger: Ledger, limit: int) -> list[bytes]:
    return [sealed.body for sealed in ledger.unacked(limit)]


def refuse(sentence: str) -> Reply:
    def reply(payload: bytes) -> bytes:
        raise LookupError(sentence)

    return reply


def say(value: object) -> Reply:
    return lambda payload: value if isinstance(value, bytes) else bytes(msgpack.packb(value))


def whole(payload: bytes) -> bytes:
    """Take a piece as all that there is of a recording."""
    return bytes(msgpack.packb({"have": len(payload)}))


def to_pieces(reply: Reply) -> Reply:
    """Answer a piece so, and a question how much is there with nothing."""
    return lambda payload: reply(payload) if payload else bytes(msgpack.packb({"have": 0}))


def leases(*items: Lease) -> Reply:
    return say([encode(item) for item in items])


def open_question(payload: bytes) -> None:
    return None


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp/127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def listening(endpoint: str, desk: Desk) -> Iterator[None]:
    """Answer on an endpoint as a coordinator does."""
    config = zenoh.Config()
    for key, value in (
        ("mode", "router"), ("listen/endpoints", [endpoint]), ("scouting/multicast/enabled", False),
        ("scouting/gossip/enabled", False), ("transport/shared_memory/enabled", False),
    ):  # fmt: skip
        config.insert_json5(key, json.dumps(value))
    with zenoh.open(config) as session:
        declared = [
            session.declare_queryable("enpire/**", desk.answer),
            session.liveliness().declare_subscriber(key_of("*", "alive"), desk.alive, history=True),
            session.declare_subscriber(key_of("*", "status"), desk.status),
        ]
        assert declared
        yield


def until_heard(line: Coordinator, desk: Desk) -> None:
    """Wait until questions of the line reach the desk."""
    desk.replies[key_of(EDGE, "hello")] = say(b"hello")
    deadline_s = time.monotonic() + LONG_S
    while time.monotonic() < deadline_s:
        try:
            assert line.ask(key_of(EDGE, "hello")) == b"hello"
        except NoAnswer:
            continue
        desk.asked.clear()
        return
    pytest.fail("the coordinator was not found")


@dataclass
class Here:
    desk: Desk
    settings: Settings
    ledger: Ledger
    line: Coordinator
    courier: Courier
    clock_s: list[float]  # what the courier's clock shows, steadily

    def pass_time(self, dt_s: float) -> None:
        """Let the courier's clock go on."""
        self.clock_s[0] += dt_s

    def seal(self, count: int, recording: bytes = b"") -> list[Trial]:
        """Put finished trials into the ledger, each with a recording of its own where there is one."""
        names = [f"t{time.monotonic_ns()}-{number}" for number in range(count)]
        self.ledger.add_lease(lease(*names, lease_id=names[0]))
        trials = []
        for name in names:
            found = self.ledger.next_assignment(NOW_S)
            assert found is not None
            _, sequence = self.ledger.open_trial(*found, NOW_S)
            data = recording and recording + name.encode()
            path = self.settings.folder / f"{name}.mcap" if data else None
            if path is not None:
                path.write_bytes(data)
            sha256 = hashlib.sha256(data).hexdigest() if data else ""
            trial = replace(TRIAL, epoch=self.ledger.epoch, sequence=sequence, assignment_id=name, recording=sha256)
            self.ledger.seal(trial, path)
            trials.append(trial)
        return trials


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[Desk, Coordinator]]:
    desk, endpoint = Desk(), free_endpoint()
    with listening(endpoint, desk), Coordinator(endpoint, "station-1") as coordinator:
        until_heard(coordinator, desk)
        yield desk, coordinator


@pytest.fixture
def here(line: tuple[Desk, Coordinator], tmp_path: Path) -> Iterator[Here]:
    desk, coordinator = line
    desk.replies.clear()
    desk.asked.clear()
    trusted = (KEY.public_key().public_bytes_raw(),)
    settings = Settings(tmp_path, "station-1", "push_t", coordinator.endpoint, trusted, "5" * 64, "6" * 64)
    with Ledger(settings.ledger_path, "station-1") as ledger:
        clock_s = [0.0]
        courier = Courier(settings, ledger, coordinator, "s", lambda: clock_s[0])
        yield Here(desk, settings, ledger, coordinator, courier, clock_s)


def signed(key: Ed25519PrivateKey = KEY, task: str = "push_t", folder: Path | None = None) -> bytes:
    """Return a signed bundle of the seed policy, for a task."""
    if folder is not None:
        for file in POLICY.glob("*.*"):
            text = file.read_text()
            (folder / file.name).write_text(text.replace('task = "push_t"', f'task = "{task}"'))
    payload = bundle.build(folder or POLICY, {}, {}, None)
    return bundle.pack_signed(payload, key.sign(payload), bundle.key_id(key.public_key().public_bytes_raw()))


def lease(*names: str, lease_id: str = "l1", sha256: str = "b" * 64, **values: Any) -> Lease:
    items = tuple(Assignment(name, sha256, "dev-1", {"x_m": 0.3}, 7, "screen") for name in names)
    return replace(Lease(lease_id, "push_t", items, NOW_S + 600.0), **values)


def test_work_is_kept_with_its_verified_bundle_and_no_more_is_asked_for_than_is_needed(here: Here) -> None:
    data = signed()
    sha256 = bundle.bundle_id(data)
    here.desk.replies |= {
        key_of(EDGE, "lease"): leases(lease("a1", "a2", sha256=sha256)), key_of(EDGE, f"bundle/{sha256}"): say(data)
    }  # fmt: skip
    here.courier.memory_mb = 310.0
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 2
    assert bundle.read_unpacked(here.settings.bundles / sha256).task == "push_t"
    [(_, question, _)] = [item for item in here.desk.asked if item[0] == key_of(EDGE, "lease")]
    assert msgpack.unpackb(question) == {
        "protocol": PROTOCOL, "edge": "station-1", "epoch": here.ledger.epoch, "task": "push_t", "wants": STOCK,
        "station_hash": "5" * 64, "calibration_hash": "6" * 64, "software": "s", "memory_mb": 310.0,
    }  # fmt: skip
    here.pass_time(60.0)
    here.courier.fetch_work(NOW_S + 60.0)
    assert len(here.desk.asked) == 2
    found = here.ledger.next_assignment(NOW_S)
    assert found is not None
    here.ledger.open_trial(*found, NOW_S)
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a3", sha256=sha256, lease_id="l2"))
    here.courier.fetch_work(NOW_S + 60.0)
    assert msgpack.unpackb(here.desk.asked[-1][1])["wants"] == 1
    assert len(here.desk.keys("bundle")) == 1  # it is here already
    assert here.ledger.pending_count(NOW_S) == 2


def test_a_lease_waits_for_its_bundle_and_is_not_asked_for_again(here: Here) -> None:
    data = signed()
    sha256 = bundle.bundle_id(data)
    here.desk.replies |= {
        key_of(EDGE, "lease"): leases(lease("a1", sha256=sha256)), key_of(EDGE, f"bundle/{sha256}"): open_question
    }  # fmt: skip
    for _ in range(2):
        with pytest.raises(NoAnswer):
            here.courier.fetch_work(NOW_S)
        assert here.ledger.pending_count(NOW_S) == 0
        assert not here.settings.bundles.exists()
    here.desk.replies[key_of(EDGE, f"bundle/{sha256}")] = say(data)
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 1
    assert len(here.desk.keys("lease")) == 1


def named(data: bytes) -> tuple[str, Reply]:
    """Return the name that these bytes rightly have, and the answer that sends them."""
    return bundle.bundle_id(data), say(data)


def altered(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# What stands for a bundle -> (its name, what comes when it is asked for).
Forge = Callable[[Path], tuple[str, Reply]]
ATTACKS: dict[str, Forge] = {
    "signed by a stranger": lambda folder: named(signed(STRANGER)),
    "altered on the way": lambda folder: (bundle.bundle_id(signed()), say(altered(signed()))),
    "altered and renamed": lambda folder: named(altered(signed())),
    "another bundle": lambda folder: ("c" * 64, say(signed())),
    "for another task": lambda folder: named(signed(task="knitting", folder=folder)),
    "noise": lambda folder: named(b"noise"),
    "nothing": lambda folder: named(b""),
    "not there": lambda folder: ("d" * 64, refuse("no bundle of that name")),
}


@pytest.mark.parametrize("forge", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_bundle_that_is_not_right_is_never_unpacked_and_never_asked_for_again(
    here: Here, tmp_path: Path, forge: Forge
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    sha256, reply = forge(source)
    here.desk.replies |= {
        key_of(EDGE, "lease"): leases(lease("a1", sha256=sha256)),
        key_of(EDGE, f"bundle/{sha256}"): reply,
    }
    for turn in range(3):
        here.pass_time(10.0)
        here.courier.fetch_work(NOW_S + 10.0 * turn)
        assert here.ledger.pending_count(NOW_S) == 0
        assert not here.settings.bundles.exists()
        assert sha256[:12] in here.courier.refusal
        assert "\n" not in here.courier.refusal
    assert len(here.desk.keys("lease")) == 3
    assert len(here.desk.keys("bundle")) == 1


@pytest.mark.parametrize("name", ["", "../ledger.db", "b" * 63, "B" * 64, "b" * 64 + "\n", "*", "b" * 64 + "/.."])
def test_a_bundle_s_name_that_is_no_hash_is_not_asked_for(here: Here, name: str) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", sha256=name))
    here.courier.fetch_work(NOW_S)
    assert here.ledger.pending_count(NOW_S) == 0
    assert "is not the name of a bundle" in here.courier.refusal
    assert here.desk.keys("bundle") == []


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"task": "knitting"}, "knitting"),
        ({"expires_unix_s": NOW_S}, ""),
        ({"expires_unix_s": NOW_S - 1.0}, ""),
        ({"expires_unix_s": float("nan")}, ""),
    ],
)
def test_a_lease_that_is_not_for_here_and_now_is_not_taken(here: Here, values: dict[str, Any], refusal: str) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = leases(lease("a1", **values))
    here.courier.fetch_work(NOW_S)
    assert here.ledger.next_assignment(NOW_S - 60.0) is None
    assert here.desk.keys("bundle") == []
    assert refusal in here.courier.refusal


@pytest.mark.parametrize(
    "reply", [say(b"\xc1"), say(5), say([5]), say([b"noise"]), say([encode(TRIAL)]), refuse("no room for you")]
)
def test_an_answer_that_is_no_lease_is_said_and_asked_for_again_only_later(here: Here, reply: Reply) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = reply
    for _ in range(3):
        here.courier.fetch_work(NOW_S)
        here.pass_time(0.5 * AFTER_REFUSAL_S)
    assert here.courier.refusal.startswith("no lease: ")
    assert len(here.desk.keys("lease")) == 1
    here.pass_time(10.0)
    here.courier.fetch_work(NOW_S)
    assert len(here.desk.keys("lease")) == 2


def test_a_trial_is_sent_until_it_is_named_as_kept(here: Here) -> None:
    first, second, third = here.seal(3)
    bodies, key = [encode(trial) for trial in (first, second, third)], here.ledger.unacked_key()
    here.desk.replies[key_of(EDGE, "trials")] = open_question
    for _ in range(2):
        with pytest.raises(NoAnswer):
            here.courier.send_trials(NOW_S)
    strange = ("station-2", first.epoch, third.sequence)
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [strange]})
    assert here.courier.send_trials(NOW_S) == 1
    here.desk.replies[key_of(EDGE, "trials")] = say(
        {"acked": [first.identity, strange], "refused": [[*second.identity, "?"]]}
    )
    assert here.courier.send_trials(NOW_S) == 3
    batches = [msgpack.unpackb(payload) for _, payload, _ in here.desk.asked]
    assert [[body for body, _, _ in batch["trials"]] for batch in batches] == [
        bodies, bodies[:1], bodies[:1], bodies,
    ]  # fmt: skip
    assert {batch["key"] for batch in batches} == {key}
    assert unacked(here.ledger, 9) == bodies[2:]
    assert "refused trial" in here.courier.refusal
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [third.identity], "refused": []})
    assert [here.courier.send_trials(NOW_S) for _ in range(2)] == [1, 0]
    assert len(here.desk.asked) == 5


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xc1", 5, [], None, {"acked": [["station-1"]]}, {"acked": ["station-1"]}, {"acked": [[1, 2, 3]]},
     {"acked": [["station-1", "e", "1"]]}, {"acked": 5}, {"acked": None}, {"acked": {}}, {"acked": [5]},
     {"acked": "station-1"}, {"refused": 7}, {"refused": [7]}, {"refused": [[1]]}, {"refused": [[]]},
     {"refused": ["why"]}, {"refused": [["station-1", "e", 1]]}, {"refused": {"station-1": 1}}],
)  # fmt: skip
def test_an_answer_that_names_no_trials_marks_none(here: Here, answer: object) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = say(answer)
    with pytest.raises(NoAnswer):
        here.courier.send_trials(NOW_S)
    assert unacked(here.ledger, 9) == [encode(trial)]


def test_an_answer_that_is_wrong_in_one_place_marks_none(here: Here) -> None:
    [trial] = here.seal(1)
    too_many = ("station-1", trial.epoch, 2**63)
    for acked, refused in (([], [[1]]), ([], 7), ([too_many], []), ([], [[*too_many, "why"]])):
        here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity, *acked], "refused": refused})
        with pytest.raises(NoAnswer):
            here.courier.send_trials(NOW_S)
    assert unacked(here.ledger, 9) == [encode(trial)]


def test_a_refusal_of_the_whole_batch_leaves_it_to_be_sent_again(here: Here) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = refuse("not a batch")
    with pytest.raises(Refused, match="not a batch"):
        here.courier.send_trials(NOW_S)
    assert unacked(here.ledger, 9) == [encode(trial)]


def test_many_trials_go_in_batches_before_recordings(here: Here) -> None:
    trials = here.seal(BATCH + 3, b"picture")
    kept: list[bytes] = []

    def keep(payload: bytes) -> bytes:
        bodies = [body for body, _, _ in msgpack.unpackb(payload)["trials"]]
        kept.extend(bodies)
        return bytes(msgpack.packb({"acked": [decode(Trial, body).identity for body in bodies]}))

    here.desk.replies |= {
        key_of(EDGE, "trials"): keep,
        key_of(EDGE, "lease"): leases(),
        key_of(EDGE, "reconcile"): say(NOTHING_KNOWN),
    }
    here.desk.replies |= {key_of(EDGE, f"blob/{trial.recording}"): whole for trial in trials}
    assert here.courier.turn(NOW_S)
    assert here.desk.keys("blob") == []
    assert here.courier.turn(NOW_S)
    assert len(here.desk.keys("blob")) == 1
    assert kept == [encode(trial) for trial in trials]


def test_recordings_of_kept_trials_are_sent_one_a_time_and_once(here: Here) -> None:
    trials = here.seal(2, b"picture")
    here.courier.send_piece(NOW_S)
    assert here.desk.asked == []
    here.ledger.acknowledge([trial.identity for trial in trials], NOW_S)
    here.desk.replies |= {key_of(EDGE, f"blob/{trial.recording}"): whole for trial in trials}
    for _ in range(3):
        here.courier.send_piece(NOW_S)
    assert [(key, hashlib.sha256(payload).hexdigest()) for key, payload, _ in here.desk.asked] == [
        (key_of(EDGE, f"blob/{trial.recording}"), trial.recording) for trial in trials
    ]
    assert {msgpack.unpackb(said)["edge"] for _, _, said in here.desk.asked} == {"station-1"}
    assert here.ledger.unsent_recordings(9) == []


def test_a_large_recording_goes_in_pieces_from_where_the_coordinator_is(here: Here) -> None:
    [trial] = here.seal(1, b"picture" * 400_000)
    here.ledger.acknowledge([trial.identity], NOW_S)
    [(_, path)] = here.ledger.unsent_recordings(9)
    data, have = path.read_bytes(), 1_000_000  # an earlier attempt came as far
    forgets = iter([False, False, True, False, False, False, False])

    def take(payload: bytes) -> bytes:
        nonlocal have
        said = msgpack.unpackb(here.desk.asked[-1][2])
        assert said["size"] == len(data)
        if next(forgets):
            have = 0
        elif said["offset"] == have:
            assert data[have : have + len(payload)] == payload
            have += len(payload)
        return bytes(msgpack.packb({"have": have}))

    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = take
    for _ in range(7):
        here.courier.send_piece(NOW_S)
    assert have == len(data)
    assert here.ledger.unsent_recordings(9) == []
    assert here.courier.send_piece(NOW_S) == 0


def test_what_gets_no_answer_is_sent_again_in_smaller_portions(here: Here) -> None:
    trials = here.seal(8, b"picture" * 400_000)
    here.desk.replies[key_of(EDGE, "trials")] = open_question
    for _ in range(4):
        with pytest.raises(NoAnswer):
            here.courier.send_trials(NOW_S)
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trials[0].identity]})
    for _ in range(2):
        here.courier.send_trials(NOW_S)
    sizes = [len(msgpack.unpackb(payload)["trials"]) for _, payload, _ in here.desk.asked]
    assert sizes == [8, 4, 2, 1, 1, 7]

    here.ledger.acknowledge([trials[0].identity], NOW_S)
    here.desk.asked.clear()
    key, nothing_yet = key_of(EDGE, f"blob/{trials[0].recording}"), say({"have": 0})
    for reply in (open_question, open_question, nothing_yet, nothing_yet, nothing_yet):
        here.desk.replies[key] = to_pieces(reply)
        with suppress(NoAnswer):
            here.courier.send_piece(NOW_S)
    assert [len(payload) >> 10 for _, payload, _ in here.desk.asked] == [0, 1024, 512, 256, 512, 1024]


@pytest.mark.parametrize("answer", [{}, {"have": -1}, {"have": "all"}, {"have": 10**9}, 5])
def test_an_answer_that_does_not_say_how_much_is_there_marks_nothing(here: Here, answer: object) -> None:
    [trial] = here.seal(1, b"picture")
    here.ledger.acknowledge([trial.identity], NOW_S)
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = say(answer)
    with pytest.raises(NoAnswer):
        here.courier.send_piece(NOW_S)
    assert len(here.ledger.unsent_recordings(9)) == 1


def test_a_recording_that_cannot_be_sent_does_not_hold_up_the_others(here: Here) -> None:
    lost, unwanted, good = here.seal(3, b"picture")
    here.ledger.acknowledge([trial.identity for trial in (lost, unwanted, good)], NOW_S)
    [path] = [path for sha256, path in here.ledger.unsent_recordings(9) if sha256 == lost.recording]
    path.unlink()
    here.desk.replies |= {
        key_of(EDGE, f"blob/{unwanted.recording}"): refuse("too large"), key_of(EDGE, f"blob/{good.recording}"): whole
    }  # fmt: skip
    said = []
    for _ in range(4):
        here.courier.send_piece(NOW_S)
        said.append(here.courier.refusal)
    assert "No such file" in said[0]
    assert "too large" in said[1]
    assert here.desk.keys("blob") == [key_of(EDGE, f"blob/{trial.recording}") for trial in (unwanted, good)]
    assert [sha256 for sha256, _ in here.ledger.unsent_recordings(9)] == [lost.recording, unwanted.recording]


def test_a_recording_without_an_answer_is_sent_again(here: Here) -> None:
    [trial] = here.seal(1, b"picture")
    here.ledger.acknowledge([trial.identity], NOW_S)
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = open_question
    with pytest.raises(NoAnswer):
        here.courier.send_piece(NOW_S)
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = whole
    here.courier.send_piece(NOW_S)
    assert here.ledger.unsent_recordings(9) == []


def test_what_the_coordinator_lacks_is_sent_again_and_what_a_backup_holds_may_go(here: Here) -> None:
    trials = here.seal(3, b"picture")
    here.ledger.acknowledge([trial.identity for trial in trials], NOW_S)
    for trial in trials:
        here.ledger.recording_sent(trial.recording, NOW_S)
    first, second, _ = (trial.recording for trial in trials)
    here.desk.replies[key_of(EDGE, "reconcile")] = say({
        "high": 2, "missing": [], "replicated": [[1, 1]], "recordings_lost": [second], "recordings_replicated": [first],
    })  # fmt: skip
    here.courier.compare()
    assert msgpack.unpackb(here.desk.asked[-1][1])["recordings"] == [trial.recording for trial in trials]
    assert unacked(here.ledger, 9) == [encode(trials[2])]
    assert [sha256 for sha256, _ in here.ledger.unsent_recordings(9)] == [second]
    assert [path.read_bytes() for _, path in here.ledger.purgeable(False, NOW_S)] == [
        b"picture" + trials[0].assignment_id.encode()
    ]


def test_every_recording_that_the_coordinator_should_have_is_asked_about(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.uplink.courier.MOST_COMPARED", 2)
    trials = here.seal(5, b"picture")
    here.ledger.acknowledge([trial.identity for trial in trials], NOW_S)
    names = [trial.recording for trial in trials]
    for name in names[:4]:
        here.ledger.recording_sent(name, NOW_S)
    here.ledger.recordings_replicated(names[1:2])
    lost = {"high": 5, "recordings_lost": [names[1], names[3]]}
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN | lost)
    here.courier.compare()
    asked = [msgpack.unpackb(payload)["recordings"] for _, payload, _ in here.desk.asked]
    assert asked == [names[:2], names[2:4], []]
    assert [name for name, _ in here.ledger.unsent_recordings(9)] == [names[1], names[3], names[4]]


def test_what_is_said_of_recordings_that_were_not_asked_about_marks_none(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.uplink.courier.MOST_COMPARED", 1)
    trials = here.seal(2, b"picture")
    here.ledger.acknowledge([trial.identity for trial in trials], NOW_S)
    for trial in trials:
        here.ledger.recording_sent(trial.recording, NOW_S)
    first, second = (trial.recording for trial in trials)

    def speak_of_the_other(payload: bytes) -> bytes:
        others = {first: second, second: first}
        said = [others[name] for name in msgpack.unpackb(payload)["recordings"]]
        answer = {"high": 2, "recordings_lost": said, "recordings_replicated": [*said, 5, [first]]}
        return bytes(msgpack.packb(NOTHING_KNOWN | answer | {"replicated": [[1, 2]]}))

    here.desk.replies[key_of(EDGE, "reconcile")] = speak_of_the_other
    here.courier.compare()
    assert len(here.desk.asked) == 3
    assert (here.ledger.unsent_recordings(9), here.ledger.purgeable(False, NOW_S)) == ([], [])


def test_only_what_was_in_the_batch_is_marked(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.uplink.courier.BATCH", 1)
    courier = Courier(here.settings, here.ledger, here.line, "s")
    first, second, third = here.seal(3)
    answer = {"acked": [first.identity, second.identity], "refused": [[*third.identity, "no"]]}
    here.desk.replies[key_of(EDGE, "trials")] = say(answer)
    assert courier.send_trials(NOW_S) == 1
    assert unacked(here.ledger, 9) == [encode(second), encode(third)]


@pytest.mark.parametrize("forked", [5, None, "all", {"e": 1}])
def test_an_answer_whose_forks_are_no_list_marks_nothing(here: Here, forked: object) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity], "forked": forked})
    with pytest.raises(NoAnswer):
        here.courier.send_trials(NOW_S)
    assert unacked(here.ledger, 9) == [encode(trial)]


def test_a_trial_whose_place_is_taken_is_sent_under_a_new_number_and_one_refused_for_another_reason_is_not(
    here: Here,
) -> None:
    old = here.ledger.epoch
    taken, wrong, good = here.seal(3, b"picture")
    kept: list[Trial] = []
    noise: list[Trial] = []

    def judge(payload: bytes) -> bytes:
        answer: dict[str, list[Any]] = {"acked": [], "refused": [], "forked": []}
        for body, _, _ in msgpack.unpackb(payload)["trials"]:
            trial = decode(Trial, body)
            if trial.assignment_id == wrong.assignment_id:
                answer["refused"].append([*trial.identity, "noise"])
                noise.append(trial)
            elif trial.identity == taken.identity:
                answer["refused"].append([*trial.identity, "taken"])
                answer["forked"].append(old)
            else:
                answer["acked"].append(trial.identity)
                kept.append(trial)
        return bytes(msgpack.packb(answer))

    here.desk.replies[key_of(EDGE, "trials")] = judge
    while here.courier.send_trials(NOW_S):
        pass
    assert {trial.identity for trial in noise} == {wrong.identity}
    assert kept[0] == good
    [again] = kept[1:]
    assert again == replace(
        taken, epoch=here.ledger.epoch, sequence=1, notes={"was": f"{old}/{taken.sequence}", "forked": "taken"}
    )
    assert {name for name, _ in here.ledger.unsent_recordings(9)} == {taken.recording, good.recording}


def test_a_clock_that_is_set_back_or_forward_does_not_idle_a_station(here: Here) -> None:
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN)}
    for turn, now_unix_s in enumerate((NOW_S, NOW_S - 3600.0, NOW_S + 1e9, 0.0), start=1):
        here.courier.turn(now_unix_s)
        assert (len(here.desk.keys("lease")), len(here.desk.keys("reconcile"))) == (turn, 1)
        here.pass_time(1.0)


def test_a_recording_of_which_nothing_is_known_is_asked_about_before_a_piece_is_sent(here: Here) -> None:
    [trial] = here.seal(1, b"picture" * 10_000)
    here.ledger.acknowledge([trial.identity], NOW_S)
    size = len(b"picture" * 10_000 + trial.assignment_id.encode())
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = say({"have": size - 5})
    here.courier.send_piece(NOW_S)
    here.courier.send_piece(NOW_S)
    here.courier.lost_touch()  # it may be another that answers now
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = say({"have": size})
    assert here.courier.send_piece(NOW_S) == 0
    sent = [(len(payload), msgpack.unpackb(said)["offset"]) for _, payload, said in here.desk.asked]
    assert sent == [(0, 0), (5, size - 5), (5, size - 5), (0, 0)]
    assert here.ledger.unsent_recordings(9) == []


@pytest.mark.parametrize(
    ("data", "fault"), [(b"other bytes", "not those that its trial was sealed with"), (b"", "it has 0 bytes")]
)
def test_a_recording_that_is_not_what_its_trial_says_is_found_here_and_read_once(
    here: Here, monkeypatch: pytest.MonkeyPatch, data: bytes, fault: str
) -> None:
    bad, good = here.seal(2, b"picture")
    here.ledger.acknowledge([bad.identity, good.identity], NOW_S)
    path = dict(here.ledger.unsent_recordings(9))[bad.recording]
    path.write_bytes(data)
    here.desk.replies |= {key_of(EDGE, f"blob/{item.recording}"): whole for item in (bad, good)}
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN | {"high": 2})}
    read: list[str] = []
    real = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        read.append(file.name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for _ in range(4):  # it is tried again, but not read again
        here.pass_time(600.0)
        for _ in range(3):
            here.courier.turn(NOW_S)
        assert fault in here.courier.refusal
    assert [name for name, _ in here.ledger.unsent_recordings(9)] == [bad.recording]
    assert here.desk.keys("blob") == [key_of(EDGE, f"blob/{good.recording}")]
    assert read.count(str(path)) == (1 if data else 0)
    path.write_bytes(b"picture" + bad.assignment_id.encode())  # put back from elsewhere
    here.pass_time(600.0)
    here.courier.turn(NOW_S)
    assert here.ledger.unsent_recordings(9) == []


def test_a_recording_that_is_too_large_is_not_sent(here: Here) -> None:
    [trial] = here.seal(1, b"picture")
    here.ledger.acknowledge([trial.identity], NOW_S)
    [(_, path)] = here.ledger.unsent_recordings(9)
    with open(path, "r+b") as file:
        file.truncate((256 << 20) + 1)
    assert here.courier.send_piece(NOW_S) == 0
    assert "it has 268435457 bytes" in here.courier.refusal
    assert here.desk.asked == []


def test_what_was_held_back_is_tried_again_after_a_while_and_not_at_each_reconnection(here: Here) -> None:
    [trial] = here.seal(1, b"picture")
    here.ledger.acknowledge([trial.identity], NOW_S)
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN | {"high": 1})}
    here.desk.replies[key_of(EDGE, f"blob/{trial.recording}")] = refuse("damaged here")
    for dt_s, tries in ((0.0, 1), (5.0, 1), (590.0, 1), (5.0, 2), (599.0, 2)):
        here.pass_time(dt_s)
        here.courier.turn(NOW_S)
        assert len(here.desk.keys("blob")) == tries
        here.courier.lost_touch()


def test_a_copied_or_restored_ledger_numbers_anew(here: Here) -> None:
    [trial] = here.seal(1)
    old = here.ledger.epoch
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN | {"high": 7, "missing": [[1, 7]]})
    here.courier.compare()
    restored = here.ledger.epoch
    assert restored != old
    assert restored in here.courier.refusal
    here.desk.replies[key_of(EDGE, "trials")] = say({"refused": [[*trial.identity, "another"]], "forked": [old]})
    assert here.courier.send_trials(NOW_S) == 1
    assert here.ledger.epoch == restored  # it was numbered anew already
    here.desk.replies[key_of(EDGE, "trials")] = say({"refused": [], "forked": [restored]})
    here.seal(1)
    here.courier.send_trials(NOW_S)
    assert here.ledger.epoch != restored


@pytest.mark.parametrize(
    "values",
    [{"high": "1"}, {"high": None}, {"missing": 1}, {"missing": [1]}, {"missing": [[2, 1]]}, {"missing": [[1, 2**63]]},
     {"replicated": [["a", "b"]]}, {"recordings_lost": None}],
)  # fmt: skip
def test_a_comparison_that_makes_no_sense_marks_nothing(here: Here, values: dict[str, object]) -> None:
    [trial] = here.seal(1)
    here.ledger.acknowledge([trial.identity], NOW_S)
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN | {"high": 0} | values)
    with pytest.raises(NoAnswer):
        here.courier.compare()
    assert unacked(here.ledger, 9) == []


def test_both_sides_compare_whenever_the_coordinator_is_found_and_now_and_then(here: Here) -> None:
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN)}
    for dt_s, compared in ((0.0, 1), (5.0, 1), (594.0, 1), (1.0, 2)):
        here.pass_time(dt_s)
        here.courier.turn(NOW_S)
        assert len(here.desk.keys("reconcile")) == compared
    here.courier.lost_touch()
    here.desk.replies[key_of(EDGE, "reconcile")] = refuse("not today")
    for _ in range(2):
        here.pass_time(10.0)
        here.courier.turn(NOW_S)
    assert len(here.desk.keys("reconcile")) == 3
    assert "not today" in here.courier.refusal


def test_last_words_say_whether_anything_is_left(here: Here) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = open_question
    assert not here.courier.send_last(0.1, NOW_S)
    assert unacked(here.ledger, 9) == [encode(trial)]
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity]})
    assert here.courier.send_last(LONG_S, NOW_S)
    assert unacked(here.ledger, 9) == []


def test_a_refusal_carries_its_sentence(here: Here) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = refuse("Bänk 7 is not enrolled")
    with pytest.raises(Refused, match="Bänk 7 is not enrolled"):
        here.line.ask(key_of(EDGE, "lease"))


def test_the_coordinator_may_come_later_and_sees_who_is_there(tmp_path: Path) -> None:
    desk, endpoint = Desk(), free_endpoint()
    with Coordinator(endpoint, "station-1") as line:
        with pytest.raises(NoAnswer):
            line.ask(key_of(EDGE, "lease"))
        line.publish_status(b"nobody hears this")
        with listening(endpoint, desk):
            until_heard(line, desk)
            assert desk.here.wait(LONG_S)
            assert not desk.away.is_set()
            deadline_s = time.monotonic() + LONG_S
            while not desk.status_came.is_set() and time.monotonic() < deadline_s:
                line.publish_status(b"resetting")
            assert desk.statuses[0] == (key_of(EDGE, "status"), b"resetting")
            line.close()
            assert desk.away.wait(LONG_S)


@pytest.mark.parametrize("endpoint", ["pigeon/127.0.0.1:1", "nonsense", "", "tcp/", "a\nb/c:1"])
def test_an_endpoint_that_is_none_is_refused_in_one_line(endpoint: str) -> None:
    with pytest.raises(UplinkError, match=r"write it as tcp/HOST:PORT") as caught:
        Coordinator(endpoint, "station-1")
    assert repr(endpoint) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a#", "a/b", "$*", "a?", "*", "a*", "a b", "", "a\n", "Bänk"])
def test_an_edge_whose_name_is_no_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UplinkError, match=r"letters, digits, - and _") as caught:
        Coordinator("tcp/127.0.0.1:1", name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_waits_after_failures_grow_to_a_limit_and_differ_across_a_fleet() -> None:
    for draw in (0.0, 0.5, 0.999):
        waits = [back_off_s(failures, draw) for failures in range(1, 2000)]
        assert waits == sorted(waits)
        assert FIRST_BACK_OFF_S / 2 <= waits[0] <= FIRST_BACK_OFF_S
        assert LONGEST_BACK_OFF_S / 2 <= waits[-1] <= LONGEST_BACK_OFF_S
    assert len({back_off_s(3, draw / 10) for draw in range(10)}) == 10


@pytest.mark.parametrize("arguments", [[], ["/nowhere"]])
def test_an_uplink_without_a_station_says_so_and_refuses_its_configuration(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "edge.uplink", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1


def test_the_process_carries_until_sigterm_and_reports_meanwhile(tmp_path: Path) -> None:
    desk, endpoint = Desk(), free_endpoint()
    make_stations(tmp_path, 1, 3, "push_t", endpoint)
    folder = tmp_path / "station-1"
    with Ledger(folder / "ledger.db", "station-1") as ledger:
        ledger.add_lease(lease("a1", "a2"))
        for sequence in (1, 2):
            found = ledger.next_assignment(NOW_S)
            assert found is not None
            assert ledger.open_trial(*found, NOW_S) == (ledger.epoch, sequence)
        trials = [replace(TRIAL, epoch=ledger.epoch, sequence=n, assignment_id=f"a{n}") for n in (1, 2)]
        ledger.seal(trials[0], None)
        desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity for trial in trials]})
        desk.replies[key_of(EDGE, "lease")] = leases()
        with (
            listening(endpoint, desk),
            subprocess.Popen([sys.executable, "-m", "edge.uplink", str(folder)], stderr=subprocess.PIPE) as uplink,
        ):
            try:
                assert desk.trial_came.wait(LONG_S)
                assert desk.status_came.wait(LONG_S)
                ledger.seal(trials[1], None)
                uplink.send_signal(signal.SIGINT)  # a Ctrl-C is for the supervisor
                uplink.terminate()
                uplink.communicate(timeout=LONG_S)
            finally:
                uplink.kill()
        assert uplink.returncode == 0
        assert desk.away.wait(LONG_S)
        assert unacked(ledger, 9) == []
    status = msgpack.unpackb(desk.statuses[0][1])
    assert (status["edge"], status["detail"]) == ("station-1", "the station has not started yet")
    assert status["memory_mb"] > 0


@contextmanager
def group(code: str, processes: int = 1) -> Iterator[int]:
    """Run a program in a process group of its own, and give the group's number once all its processes are there."""
    command = [sys.executable, "-S", "-c", f"{code}\nprint(flush=True)\ninput()"]
    with subprocess.Popen(
        command, process_group=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(processes)] == [b"\n"] * processes
        yield process.pid


def test_a_group_s_memory_is_what_its_processes_hold() -> None:
    with group("") as idle, group("kept = b'x' * 50_000_000") as busy:
        difference_mb = group_memory_mb(busy) - group_memory_mb(idle)
        assert 45.0 < difference_mb < 60.0
    assert group_memory_mb(busy) == 0.0


def test_pages_that_processes_share_are_counted_once() -> None:
    forks = "import os\nkept = b'x' * 50_000_000\nos.fork() and os.fork()"
    with group("") as idle, group(forks, processes=3) as shared:
        assert 50.0 < group_memory_mb(shared) < 100.0 + group_memory_mb(idle)


def test_the_uplink_counts_its_group_and_the_supervisor_outside() -> None:
    counting = "from edge.uplink.memory import own_group_memory_mb as own; print(own())"
    supervisor = "import subprocess, sys\nkept = b'x' * {}\n" + (
        f"subprocess.run([sys.executable, '-c', {counting!r}], process_group=0, check=True)"
    )
    counted_mb = [
        float(subprocess.run([sys.executable, "-c", supervisor.format(size)], capture_output=True, check=True).stdout)
        for size in (0, 50_000_000)
    ]
    assert counted_mb[0] > 0.0
    assert 45.0 < counted_mb[1] - counted_mb[0] < 60.0


def test_a_turn_that_asks_nothing_is_no_sign_of_the_coordinator(here: Here) -> None:
    here.courier.turn(NOW_S)
    assert here.courier.answered  # a no is one
    here.courier.turn(NOW_S)  # too soon to ask again
    assert not here.courier.answered
    here.pass_time(5.0)
    here.courier.turn(NOW_S)
    assert here.courier.answered


@contextmanager
def forwarding(endpoints: list[str]) -> Iterator[str]:
    """Give an endpoint from which each new link goes to the last of some endpoints, and stays there."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as links:

        def copy(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)

        def take() -> None:
            with suppress(OSError):
                while True:
                    near = links.enter_context(server.accept()[0])
                    host, _, port = endpoints[-1].removeprefix("tcp/").rpartition(":")
                    far = links.enter_context(socket.create_connection((host, int(port))))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=copy, args=ends, daemon=True).start()

        threading.Thread(target=take, daemon=True).start()
        yield f"tcp/127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_a_link_to_nobody_is_opened_anew(tmp_path: Path) -> None:
    gone, back, endpoints = Desk(), Desk(), [free_endpoint()]
    silent = dict.fromkeys((key_of(EDGE, "hello"), key_of(EDGE, "lease")), open_question)
    gone.replies |= silent
    with listening(endpoints[0], gone), forwarding(endpoints) as endpoint, Coordinator(endpoint, EDGE) as line:
        assert gone.here.wait(LONG_S)
        endpoints.append(free_endpoint())
        with listening(endpoints[1], back):
            for _ in range(3):
                with pytest.raises(NoAnswer):
                    line.ask(key_of(EDGE, "lease"), timeout_s=0.1)
            assert not back.here.is_set()  # it is not impatient
            line.doubt_s = 0.1
            until_heard(line, back)
            assert back.here.wait(LONG_S)
            while not back.status_came.wait(0.01):  # until this line knows that somebody listens
                line.publish_status(b"resetting")
