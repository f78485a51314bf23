"""Over a real loopback: what a station asks is answered after the commit, refused with a reason, or left open."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.blobs import MOST_BYTES
from coordinator.campaign import Attempt
from coordinator.evolution.records import CandidateMade, HypothesisMade
from coordinator.network import Network, NetworkError, Presence, Question, free_endpoint
from coordinator.publish.keys import Keyring
from coordinator.publish.repository import Repository
from coordinator.reception import MOST_HELD, Desk, Reception
from coordinator.roster import Roster
from coordinator.store import FILE, Store
from edge.ledger import Ledger
from edge.records import PROTOCOL, Lease, Outcome, Sealed, Trial, decode, encode
from edge.uplink.courier import MOST_RECORDING_BYTES, Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import FIRST_DOUBT_S, Coordinator, Line, NoAnswer, Refused
from edge.uplink.settings import Settings
from edge.wire import key_of
from edge.wire.targets import PIECE_BYTES
from tests.harness.lab_folder import supplied

NOW_S = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()
LONG_S = 30.0  # bound of a wait; nothing is measured by it
EDGE = "station-1"
BUNDLE = "b" * 64
REQUEST = {
    "protocol": PROTOCOL, "edge": EDGE, "epoch": "e1", "task": "push_t", "wants": 1, "station_hash": "5" * 64,
    "calibration_hash": "6" * 64, "software": "s", "memory_mb": 300.0,
}  # fmt: skip
STATUS = {
    "edge": EDGE, "state": "trial", "detail": "", "bundle": "", "start_id": "", "sequence": 4, "station_time_s": 10.0,
    "wall_unix_s": NOW_S, "memory_mb": 310.0, "refusal": "",
}  # fmt: skip
INVENTORY = {"protocol": PROTOCOL, "edge": EDGE, "epoch": "e1", "recordings": []}
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle=BUNDLE,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.SUCCESS, cause="", detail="done", progress=1.0,
    measures={"coverage": 0.97}, achieved_start={}, reset_s=9.0, reset_tries=1, trial_s=20.0, policy_steps=600,
    wall_reset_s=0.5, wall_trial_s=1.0, started_unix_s=NOW_S, ended_unix_s=NOW_S + 1.5, station_hash="5" * 64,
    calibration_hash="6" * 64, software="s", recording="",
)  # fmt: skip


def batch(*trials: Trial) -> bytes:
    """Return a payload of trials, each chained to something of its own."""
    bodies = [encode(trial) for trial in trials]
    links = [hashlib.sha256(b"before" + body).digest() for body in bodies]
    seals = [(body, link, KEY.sign(Sealed(body, link, b"").chain)) for body, link in zip(bodies, links, strict=True)]
    key = KEY.public_key().public_bytes_raw().hex()
    payload: bytes = msgpack.packb({"protocol": PROTOCOL, "key": key, "trials": seals})
    return payload


@dataclass
class Wanted:
    """A campaign of the simplest kind: a list of attempts, and what became of them."""

    work: list[Attempt] = field(default_factory=list)
    brought: list[Trial] = field(default_factory=list)
    back: list[str] = field(default_factory=list)

    def desk(self) -> Desk:
        return Desk(
            lambda edge, now, ahead: [self.work.pop(0)] if self.work else [],
            lambda trial, now: self.brought.append(trial),
            lambda name, now: self.back.append(name),
        )


@dataclass
class Lab:
    """A coordinator without a campaign, and one station's line to it."""

    folder: Path
    network: Network
    store: Store
    ring: Keyring
    repository: Repository
    reception: Reception
    roster: Roster
    wanted: Wanted
    line: Coordinator

    def serve(self, until: Callable[[], bool], now_s: float = NOW_S) -> None:
        """Serve until something has happened."""
        deadline_s = time.monotonic() + LONG_S
        while not until():
            assert time.monotonic() < deadline_s, "it did not happen"
            message = self.network.take(0.05)
            if message is not None:
                self.reception.handle(message, now_s)

    def ask(
        self, topic: str, payload: Any = b"", attachment: bytes | None = None, now_s: float = NOW_S, edge: str = EDGE
    ) -> bytes:
        """Ask as a station while the coordinator serves, and return its answer."""
        answers: list[bytes | Exception] = []

        def asking() -> None:
            try:
                answers.append(self.line.ask(key_of(edge, topic), payload, attachment, LONG_S))
            except (NoAnswer, Refused) as error:
                answers.append(error)

        thread = threading.Thread(target=asking)
        thread.start()
        self.serve(lambda: bool(answers), now_s)
        thread.join()
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def lease(self, wants: Any, now_s: float = NOW_S, **values: Any) -> list[Lease]:
        answer = self.ask("lease", msgpack.packb(REQUEST | {"wants": wants} | values), now_s=now_s)
        return [decode(Lease, item) for item in msgpack.unpackb(answer)]

    def send(self, *trials: Trial) -> Any:
        return msgpack.unpackb(self.ask("trials", batch(*trials)))

    def piece(self, sha256: str, size: int, offset: int, data: bytes) -> int:
        said = msgpack.packb({"edge": EDGE, "size": size, "offset": offset})
        return int(msgpack.unpackb(self.ask(f"blob/{sha256}", data, said))["have"])

    def compare(self, **values: Any) -> Any:
        return msgpack.unpackb(self.ask("reconcile", msgpack.packb(INVENTORY | values)))


@contextmanager
def make_lab(folder: Path) -> Iterator[Lab]:
    (folder / "recordings").mkdir()
    ring = Keyring.for_demo(folder / "keys")
    repository = Repository.create(folder / "trust", ring)
    with Store(folder / FILE) as store, Network(free_endpoint()) as network:
        store.add_bundle({
            "bundle": BUNDLE, "parent": None, "task": "push_t", "policy": "push_t", "params": {}, "manifest": {},
            "archive": b"archive", "created_unix_s": NOW_S,
        })  # fmt: skip
        store.write([
            HypothesisMade(1, "offline", "seed", "It works.", "It does not.", {}, NOW_S),
            CandidateMade(1, 1, BUNDLE, None, "screen", NOW_S),
        ])  # fmt: skip
        roster, wanted = Roster([]), Wanted()
        reception = Reception("push_t", store, repository, roster, wanted.desk(), folder)
        with Coordinator(network.endpoint, "station-1") as line:
            lab = Lab(folder, network, store, ring, repository, reception, roster, wanted, line)
            lab.serve(lambda: roster.view("station-1").here)
            yield lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with make_lab(tmp_path) as made:
        yield made


def work(*names: str) -> list[Attempt]:
    return [Attempt(name, 1, BUNDLE, "dev-1", {"x_m": 0.3}, 7, "screen", None) for name in names]


def states(lab: Lab) -> dict[str, str]:
    return dict(lab.store._db.execute("SELECT assignment_id, state FROM assignments").fetchall())


def test_a_trial_is_acknowledged_once_it_is_kept_and_again_when_it_comes_again(lab: Lab) -> None:
    for _ in range(2):
        assert lab.send(TRIAL) == {"acked": [["station-1", "e1", 1]], "refused": [], "forked": []}
    assert [trial.sequence for trial in lab.wanted.brought] == [1]


def test_a_forged_trial_is_refused_by_name_and_the_campaign_never_hears_of_it(lab: Lab) -> None:
    lab.send(TRIAL)
    answer = lab.send(replace(TRIAL, detail="other"), replace(TRIAL, sequence=2))
    assert answer["acked"] == [["station-1", "e1", 2]]
    assert answer["forked"] == ["e1"]
    [(edge, epoch, sequence, reason)] = answer["refused"]
    assert (edge, epoch, sequence) == ("station-1", "e1", 1)
    assert reason
    assert [trial.detail for trial in lab.wanted.brought] == ["done", "done"]


def test_a_disk_that_takes_nothing_leaves_the_question_open(lab: Lab) -> None:
    lab.store._db.execute("CREATE TRIGGER full BEFORE INSERT ON trials BEGIN SELECT RAISE(ABORT, 'no room'); END")
    answers: list[str] = []

    def asking() -> None:
        try:
            lab.line.ask(key_of("station-1", "trials"), batch(TRIAL), timeout_s=LONG_S)
            answers.append("answer")
        except NoAnswer:
            answers.append("none")

    thread = threading.Thread(target=asking)
    thread.start()
    with pytest.raises(Exception, match="no room"):
        lab.serve(lambda: False)
    thread.join()
    assert answers == ["none"]


KEY_HEX = "a" * 64
NO_BATCHES = [
    {"a": 1}, [1], {"key": "short", "trials": []}, {"key": KEY_HEX, "trials": 1}, {"key": KEY_HEX, "trials": [b"body"]},
    {"key": KEY_HEX, "trials": [[b"body", b"short", b""]]}, {"protocol": PROTOCOL + 1, "key": KEY_HEX, "trials": []},
    {"key": KEY_HEX, "trials": [[b"", bytes(32), b""]] * 257},
]  # fmt: skip


@pytest.mark.parametrize("payload", [b"", b"noise", *map(msgpack.packb, NO_BATCHES)])
def test_a_payload_that_is_no_batch_is_refused_in_one_line(lab: Lab, payload: bytes) -> None:
    with pytest.raises(Refused) as error:
        lab.ask("trials", payload)
    assert "\n" not in str(error.value)


def test_work_is_handed_out_in_order_and_noted_before(lab: Lab) -> None:
    lab.wanted.work = work("a1", "a2", "a3")
    [lease] = lab.lease(2)
    assert [item.assignment_id for item in lease.assignments] == ["a1", "a2"]
    assert lease.expires_unix_s > NOW_S
    assert states(lab) == {"a1": "leased", "a2": "leased"}
    [(edge, memory_mb)] = lab.store._db.execute("SELECT edge, peak_memory_mb FROM stations").fetchall()
    assert (edge, memory_mb) == ("station-1", 300.0)


def test_a_station_that_holds_many_attempts_and_has_nothing_to_do_gives_them_back(lab: Lab) -> None:
    names = [f"a{number}" for number in range(MOST_HELD + 4)]
    lab.wanted.work = work(*names)
    for _ in range(MOST_HELD // 2):
        lab.lease(2)
    [lease] = lab.lease(1)  # it runs one and holds one
    assert lab.wanted.back == []
    [lease] = lab.lease(2)
    assert lab.wanted.back == names[: MOST_HELD + 1]
    assert [item.assignment_id for item in lease.assignments] == names[MOST_HELD + 1 : MOST_HELD + 3]


def test_nothing_is_handed_out_once_the_reception_is_closed(lab: Lab) -> None:
    lab.wanted.work = work("a1")
    lab.reception.closed = True
    assert lab.lease(2) == []


def test_a_station_that_cannot_reset_its_scene_rests_and_is_tried_again(lab: Lab) -> None:
    lab.wanted.work = work("a1", "a2")
    failed = replace(TRIAL, outcome=Outcome.INVALID, cause="reset", detail="the T is gone")
    lab.send(*[replace(failed, sequence=number) for number in (1, 2, 3)])
    assert lab.lease(1) == []
    [(text,)] = lab.store._db.execute("SELECT text FROM events WHERE level = 'error'").fetchall()
    assert "the T is gone" in text
    [lease] = lab.lease(1, now_s=NOW_S + 31.0)
    assert [item.assignment_id for item in lease.assignments] == ["a1"]
    lab.send(replace(TRIAL, sequence=4))
    assert lab.roster.view("station-1").failed_resets == 0


@pytest.mark.parametrize(
    "values",
    [
        {"protocol": PROTOCOL + 1}, {"task": "knitting"}, {"wants": -1}, {"edge": "a/b"}, {"edge": 3}, {"more": 1},
        {"wants": "two"}, {"memory_mb": float("nan")}, {"software": 1},
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_served_is_refused(lab: Lab, values: dict[str, Any]) -> None:
    lab.wanted.work = work("a1")
    with pytest.raises(Refused):
        lab.lease(**({"wants": 2} | values))
    assert len(lab.wanted.work) == 1


def test_an_answer_that_got_lost_is_noticed_by_what_is_delivered_next(lab: Lab) -> None:
    lab.wanted.work = work("lost", "a1", "a2")
    lab.lease(1)
    lab.lease(2)
    lab.send(replace(TRIAL, assignment_id="a1"))
    assert lab.wanted.back == ["lost"]
    assert states(lab) == {"lost": "void", "a1": "done", "a2": "leased"}


def test_a_new_ledger_knows_nothing_of_the_old_one_s_work(lab: Lab) -> None:
    lab.wanted.work = work("a1", "a2")
    lab.lease(1)
    lab.lease(1, epoch="e2")
    assert lab.wanted.back == ["a1"]
    assert states(lab) == {"a1": "void", "a2": "leased"}


def test_work_of_a_station_that_stays_away_goes_to_others(lab: Lab) -> None:
    lab.wanted.work = work("a1")
    lab.lease(1)
    lab.line.close()
    lab.serve(lambda: not lab.roster.view("station-1").here)
    lab.reception.tend(NOW_S + 19.0)
    assert lab.wanted.back == []
    lab.reception.tend(NOW_S + 21.0)
    assert lab.wanted.back == ["a1"]


def test_a_lease_that_ended_long_ago_is_taken_back_and_a_late_trial_is_kept_all_the_same(lab: Lab) -> None:
    lab.wanted.work = work("a1")
    [lease] = lab.lease(1)
    lab.reception.tend(lease.expires_unix_s)
    assert lab.wanted.back == []
    lab.reception.tend(lease.expires_unix_s + 3600.0)
    assert lab.wanted.back == ["a1"]
    assert lab.send(TRIAL)["acked"]
    assert states(lab) == {"a1": "void"}


def test_what_stations_trust_is_sent_file_by_file_and_piece_by_piece(lab: Lab) -> None:
    def piece(path: str, offset: int) -> Any:
        return msgpack.unpackb(lab.ask(f"trust/{path}", b"", msgpack.packb({"offset": offset})))

    large = lab.repository.offer_candidate("push_t", secrets.token_bytes(PIECE_BYTES + 5), lab.ring)
    path = f"targets/candidates/push_t/{large}.{large}.tar.zst"
    whole = lab.repository.file(path)
    assert whole is not None
    assert piece(path, 0) == {"total": len(whole), "data": whole[:PIECE_BYTES]}
    assert piece(path, PIECE_BYTES) == {"total": len(whole), "data": whole[PIECE_BYTES:]}
    assert piece("metadata/timestamp.json", 0)["data"] == lab.repository.file("metadata/timestamp.json")


@pytest.mark.parametrize("path", ["metadata/99.root.json", "keys/online.pem", "targets", "metadata/..", "../keys/x"])
def test_what_is_no_public_file_is_refused_as_404(lab: Lab, path: str) -> None:
    with pytest.raises(Refused, match=r"^404$"):
        lab.ask(f"trust/{path}", b"", msgpack.packb({"offset": 0}))


def test_a_recording_comes_in_pieces_and_is_kept_only_where_a_trial_names_it(lab: Lab) -> None:
    data = b"recording" * 1000
    sha256, size = hashlib.sha256(data).hexdigest(), len(data)
    with pytest.raises(Refused, match="no trial"):
        lab.piece(sha256, size, 0, data)
    lab.send(replace(TRIAL, recording=sha256, recording_bytes=size))
    with pytest.raises(Refused, match="its trial says"):
        lab.piece(sha256, size + 1, 0, data)
    with pytest.raises(Refused, match="does not say"):
        lab.ask(f"blob/{sha256}", data, b"station-1")
    assert lab.piece(sha256, size, 0, data[:4000]) == 4000
    assert lab.piece(sha256, size, 0, data) == 4000  # it goes on from there, whoever forgot
    assert lab.piece(sha256, size, 5000, data[5000:]) == 4000
    assert lab.store.recordings_missing() == 1
    assert lab.piece(sha256, size, 4000, data[4000:]) == size
    assert lab.piece(sha256, size, 0, data) == size
    [path] = (lab.folder / "recordings").iterdir()
    assert (path.name, path.read_bytes()) == (f"{sha256}.mcap", data)
    assert lab.store.recordings_missing() == 0


def test_a_recording_with_other_content_is_dropped_and_may_come_again(lab: Lab) -> None:
    data = b"recording" * 1000
    sha256, size = hashlib.sha256(data).hexdigest(), len(data)
    lab.send(replace(TRIAL, recording=sha256, recording_bytes=size))
    with pytest.raises(Refused, match="hash"):
        lab.piece(sha256, size, 0, bytes(size))
    with pytest.raises(Refused, match="more than"):
        lab.piece(sha256, size, 0, data + b"more")
    assert lab.piece(sha256, size, 0, data) == size


def test_an_edge_is_told_what_is_not_here(lab: Lab) -> None:
    data = b"recording"
    sha256 = hashlib.sha256(data).hexdigest()
    lab.send(replace(TRIAL, sequence=2, recording=sha256, recording_bytes=len(data)))
    lab.piece(sha256, len(data), 0, data)
    assert lab.compare(recordings=[sha256, "c" * 64]) == {
        "high": 2, "missing": [[1, 1]], "replicated": [], "recordings_lost": ["c" * 64], "recordings_replicated": [],
    }  # fmt: skip
    assert lab.compare(epoch="e2")["high"] == 0
    for values in ({"edge": 1}, {"recordings": [1]}, {"recordings": ["a"] * 513}, {"protocol": 1}):
        with pytest.raises(Refused):
            lab.compare(**values)


def test_a_status_is_shown_and_noise_in_its_place_is_passed_over(lab: Lab) -> None:
    view = lab.roster.view("station-1")
    lab.line.publish_status(b"noise")
    lab.line.publish_status(msgpack.packb(STATUS))
    lab.serve(lambda: view.state == "trial")
    lab.line.publish_status(msgpack.packb(STATUS | {"station_time_s": 40.0, "wall_unix_s": NOW_S + 2.0}))
    lab.serve(lambda: len(view.clocks) == 2)
    assert (view.speed, view.last_sequence, view.peak_memory_mb) == (15.0, 4, 310.0)


def test_the_real_uplink_delivers_a_ledger_and_its_recording(lab: Lab, tmp_path: Path) -> None:
    settings = Settings(tmp_path / "edge", EDGE, "push_t", lab.network.endpoint, "5" * 64, "6" * 64)
    settings.trust.mkdir(parents=True)
    (settings.trust / "root.json").write_bytes(lab.repository.root())
    recording = settings.folder / "r.mcap"
    recording.write_bytes(b"what happened")
    sha256 = hashlib.sha256(b"what happened").hexdigest()
    lab.wanted.work = work("a1")
    [lease] = lab.lease(1)
    with Ledger(settings.ledger_path, "station-1") as ledger:
        ledger.add_lease(lease)
        _, sequence = ledger.open_trial(lease.assignments[0], lease.lease_id, NOW_S)
        trial = replace(TRIAL, epoch=ledger.epoch, sequence=sequence, recording=sha256, recording_bytes=13)
        ledger.seal(trial, recording)

    def carry() -> None:
        with (
            Ledger(settings.ledger_path, "station-1") as mine,
            supplied(settings, ZenohFetcher(lab.line, EDGE)) as supply,
        ):
            courier = Courier(settings, mine, lab.line, supply, "s")
            courier.send_trials(NOW_S)
            courier.send_piece(NOW_S)

    carrier = threading.Thread(target=carry)
    carrier.start()
    lab.serve(lambda: not carrier.is_alive())
    assert [item.identity for item in lab.wanted.brought] == [trial.identity]
    assert (tmp_path / "recordings" / f"{sha256}.mcap").read_bytes() == b"what happened"
    with Ledger(settings.ledger_path, "station-1") as ledger:
        assert (ledger.unacked(10), ledger.unsent_recordings(10)) == ([], [])


def test_a_session_that_does_not_find_the_coordinator_is_opened_anew(lab: Lab) -> None:
    now_s = 0.0
    with Line(free_endpoint(), {}, lambda: now_s) as line:
        line.endpoint = lab.network.endpoint  # which the session that is open never looks at
        now_s = FIRST_DOUBT_S
        with pytest.raises(NoAnswer):
            line.ask(key_of(EDGE, "lease"))
        deadline_s = time.monotonic() + LONG_S
        while not list(line._session.info.routers_zid()):
            assert time.monotonic() < deadline_s, "it is not linked"
            time.sleep(0.02)


def doubt(line: Coordinator) -> None:
    """Let a line that is of no use be opened anew."""
    line._doubt_at_s = 0.0
    with pytest.raises(NoAnswer):
        line.ask(key_of(EDGE, "lease"))


def test_a_line_that_is_opened_anew_is_as_good_as_before(lab: Lab) -> None:
    lab.line.close()
    lab.serve(lambda: not lab.roster.view(EDGE).here)
    doubt(lab.line)
    assert lab.line._patience_s > FIRST_DOUBT_S
    lab.serve(lambda: lab.roster.view(EDGE).here)  # its sign of life
    lab.line.publish_status(msgpack.packb(STATUS))
    lab.serve(lambda: lab.roster.view(EDGE).state == STATUS["state"])
    assert lab.lease(0) == []
    assert lab.line._patience_s == FIRST_DOUBT_S


def test_a_line_that_cannot_be_opened_anew_is_tried_again(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    endpoint, lab.line.endpoint = lab.line.endpoint, "nonsense"
    lab.line.close()
    doubt(lab.line)
    assert "it is tried again later" in caplog.text
    lab.line.publish_status(b"to nobody")
    lab.line.endpoint = endpoint
    doubt(lab.line)
    lab.serve(lambda: lab.roster.view(EDGE).here)
    assert lab.lease(0) == []


def test_a_line_that_was_closed_stays_closed() -> None:
    now_s = 0.0
    with Line(free_endpoint(), {}, lambda: now_s) as line:
        line.close()
        now_s = 1e6
        with pytest.raises(NoAnswer):
            line.ask(key_of(EDGE, "lease"))
        assert line._session.is_closed()


def test_a_line_that_is_of_no_use_is_opened_anew_ever_more_rarely() -> None:
    now_s = 0.0
    opened_s = []
    with Line(free_endpoint(), {}, lambda: now_s) as line:
        for second in range(0, 2000, 10):
            now_s, before = float(second), line._session
            with pytest.raises(NoAnswer):
                line.ask(key_of(EDGE, "lease"))
            if line._session is not before:
                opened_s.append(second)
    assert opened_s == [10, 30, 70, 150, 310, 630, 1230, 1830]


def test_both_ends_agree_on_the_largest_recording() -> None:
    assert MOST_RECORDING_BYTES == MOST_BYTES


def test_an_endpoint_that_is_taken_is_refused_in_one_line(lab: Lab) -> None:
    with pytest.raises(NetworkError) as error:
        Network(lab.network.endpoint)
    assert "\n" not in str(error.value)


def test_a_question_that_was_answered_takes_no_second_answer(lab: Lab) -> None:
    questions: list[Question] = []

    def asking() -> None:
        assert lab.line.ask(key_of("station-1", "lease"), b"", timeout_s=LONG_S) == b"first"

    thread = threading.Thread(target=asking)
    thread.start()
    while not questions:
        message = lab.network.take(LONG_S)
        if isinstance(message, Question):
            questions.append(message)
        assert not isinstance(message, Presence)
    questions[0].answer(b"first")
    questions[0].refuse("second")
    thread.join()


NO_TRIAL = msgpack.packb({
    "protocol": PROTOCOL, "key": "a" * 64,
    "trials": [[msgpack.packb({"edge": EDGE, "epoch": "e1", "sequence": 1}), bytes(32), b""]],
})  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "payload", "attachment"),
    [
        ("lease", msgpack.packb(REQUEST), b""),
        ("trials", batch(replace(TRIAL, edge="station-2"), TRIAL), b""),
        ("trials", NO_TRIAL, b""),
        ("reconcile", msgpack.packb(INVENTORY), b""),
        ("blob", b"data", msgpack.packb({"edge": EDGE, "size": 4, "offset": 0})),
    ],
    ids=["lease", "trials", "a trial that is none", "reconcile", "blob"],
)
def test_nobody_speaks_in_the_name_of_another(lab: Lab, topic: str, payload: bytes, attachment: bytes) -> None:
    lab.wanted.work = work("a1")
    data = hashlib.sha256(b"data").hexdigest()
    lab.send(replace(TRIAL, epoch="e0", recording=data, recording_bytes=4))
    with pytest.raises(Refused, match="asked as 'station-2', but in the name of 'station-1'"):
        lab.ask(f"blob/{data}" if topic == "blob" else topic, payload, attachment, edge="station-2")
    assert len(lab.wanted.work) == 1
    assert (len(lab.wanted.brought), lab.store.recordings_missing()) == (1, 1)
    assert lab.store._db.execute("SELECT COUNT(*) FROM quarantine").fetchall() == [(0,)]
