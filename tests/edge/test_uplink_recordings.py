"""The uplink carries recordings up, over a real loopback to an emulated coordinator."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge.records import Trial, decode, encode
from edge.uplink.courier import BATCH
from edge.uplink.network import Coordinator, NoAnswer
from edge.wire import key_of
from tests.harness.lab_folder import LabFolder
from tests.harness.uplink_world import (
    EDGE,
    NOTHING_KNOWN,
    NOW_S,
    Desk,
    Here,
    Reply,
    carrying,
    leases,
    open_question,
    refuse,
    say,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabFolder:
    return LabFolder(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: LabFolder, tmp_path: Path) -> Iterator[Here]:
    with carrying(line, lab, tmp_path) as found:
        yield found


def whole(payload: bytes) -> bytes:
    """Take a piece as all that there is of a recording."""
    return bytes(msgpack.packb({"have": len(payload)}))


def to_pieces(reply: Reply) -> Reply:
    """Answer a piece so, and a question how much is there with nothing."""
    return lambda payload: reply(payload) if payload else bytes(msgpack.packb({"have": 0}))


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
    assert here.unacked() == [encode(trials[2])]
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
