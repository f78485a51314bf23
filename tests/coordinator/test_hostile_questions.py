"""Whatever a station writes into a question, it is answered or refused in one line, and nothing else happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
import zenoh

from coordinator.enrolment import Enrolment
from coordinator.network import Question, StatusSaid, free_endpoint
from coordinator.publish.authority import Authority
from coordinator.publish.keys import Keyring, make
from coordinator.publish.repository import Repository
from coordinator.reception import Desk, Reception
from coordinator.registrar import Registrar
from coordinator.roster import Roster
from coordinator.serve import Plan, opened
from coordinator.store import FILE, Store
from edge.records import PROTOCOL
from edge.wire import key_of

NOW_S = 1_700_000_000.0
EDGE = "arm-01"
ROOT = "trust/metadata/1.root.json"
REQUEST = {
    "protocol": PROTOCOL, "edge": EDGE, "epoch": "e1", "task": "push_t", "wants": 1, "station_hash": "5" * 64,
    "calibration_hash": "6" * 64, "software": "s", "memory_mb": 300.0,
}  # fmt: skip
INVENTORY = {"protocol": PROTOCOL, "edge": EDGE, "epoch": "e1", "recordings": []}
STATUS = {
    "wall_unix_s": 1.0, "station_time_s": 1.0, "state": "s", "detail": "", "refusal": "", "sequence": 1,
    "memory_mb": 1.0,
}  # fmt: skip
SEALED = [b"", bytes(32), bytes(64)]
INTEGERS = (-(2**63), -1, 2**31, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (float("nan"), float("inf"), float("-inf"), 1e308)
TEXTS = ("", "\0", "a" * 300, "../" * 20, "\U0010ffff" * 4)
ODD: tuple[Any, ...] = (
    *INTEGERS, *FLOATS, *TEXTS, None, True, b"\xff", [], {}, [[]], msgpack.Timestamp(0), msgpack.ExtType(5, b""),
)  # fmt: skip


class Bytes(bytes):
    """Bytes as zenoh hands them out."""

    def to_bytes(self, *_: Any, **__: Any) -> bytes:
        return bytes(self)


class Query:
    """A query of zenoh's that notes what is said to it."""

    def __init__(self, topic: str, payload: bytes, attachment: bytes) -> None:
        self.key_expr, self.payload, self.attachment = key_of(EDGE, topic), Bytes(payload), Bytes(attachment)
        self.answers: list[bytes] = []
        self.refusals: list[str] = []
        self.dropped = False

    def reply(self, key: str, payload: bytes) -> None:
        self.answers.append(payload)

    def reply_err(self, sentence: bytes) -> None:
        self.refusals.append(sentence.decode())

    def drop(self) -> None:
        self.dropped = True


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("lab")
    return Repository.create(folder / "trust", Keyring.for_demo(folder / "keys"))


@pytest.fixture
def reception(repository: Repository, tmp_path: Path) -> Iterator[Reception]:
    (tmp_path / "recordings").mkdir()
    desk = Desk(lambda edge, now, ahead: [], lambda trial, now: None, lambda name, now: None)
    with Store(tmp_path / FILE) as store:
        yield Reception("push_t", store, repository, Roster([]), desk, tmp_path)


def ask(reception: Reception, topic: str, payload: bytes = b"", attachment: bytes = b"") -> Query:
    query = Query(topic, payload, attachment)
    reception.handle(Question(cast(zenoh.Query, query)), NOW_S)
    assert len(query.answers) + len(query.refusals) == 1, "left without an answer"
    assert query.dropped
    assert all("\n" not in sentence for sentence in query.refusals)
    return query


def nested(deep: int) -> bytes:
    """Return msgpack of a list in a list in a list, as deep as that."""
    return b"\x91" * deep + b"\xc0"


def with_value(known: dict[str, Any], name: str, value: bytes) -> bytes:
    """Return msgpack of a map with one value in the place of what stands under a name."""
    packed = {key: msgpack.packb(item) for key, item in known.items()} | {name: value}
    return bytes([0x80 + len(packed)]) + b"".join(msgpack.packb(key) + item for key, item in packed.items())


@pytest.mark.parametrize("offset", INTEGERS)
def test_an_offset_that_no_file_has_is_refused(reception: Reception, offset: int) -> None:
    assert ask(reception, ROOT, attachment=msgpack.packb({"offset": offset})).refusals != ["404"]


def test_the_end_of_a_file_can_be_asked_for_and_nothing_beyond_it(reception: Reception, repository: Repository) -> None:
    size = len(repository.root())
    assert msgpack.unpackb(ask(reception, ROOT, attachment=msgpack.packb({"offset": size})).answers[0]) == {
        "total": size, "data": b"",
    }  # fmt: skip
    [said] = ask(reception, ROOT, attachment=msgpack.packb({"offset": size + 1})).refusals
    assert f"{size} bytes" in said


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_file_that_the_disk_does_not_give_is_refused_and_never_said_to_be_missing(
    reception: Reception, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr("coordinator.publish.shelf.os.open", fail)
        query = ask(reception, ROOT, attachment=msgpack.packb({"offset": 0}))
    [said] = query.refusals
    assert os.strerror(code) in said


@pytest.mark.parametrize(
    ("topic", "known"),
    [("lease", REQUEST), ("reconcile", INVENTORY), ("trials", {"protocol": PROTOCOL, "key": "0" * 64, "trials": []})],
)
def test_no_value_under_any_name_does_more_than_be_refused(
    reception: Reception, topic: str, known: dict[str, Any]
) -> None:
    values = [*map(msgpack.packb, ODD), *(nested(deep) for deep in (900, 1000, 1020, 5000)), b"\xc1", b"\xd9\xff"]
    for name in (*known, "more"):
        for value in values:
            ask(reception, topic, with_value(known, name, value))
    ask(reception, topic, msgpack.packb(known))


@pytest.mark.parametrize("name", [*TEXTS, "a" * 64])
def test_nothing_but_the_name_of_a_recording_is_looked_for_on_the_disk(reception: Reception, name: str) -> None:
    query = ask(reception, "reconcile", msgpack.packb(INVENTORY | {"recordings": [name]}))
    assert bool(query.answers) == (name == "a" * 64)


@pytest.mark.parametrize("body", [*map(msgpack.packb, ODD), nested(1000), nested(5000), b"\xc1", bytes(300_000)])
def test_a_body_of_anything_is_kept_apart_or_refused(reception: Reception, body: bytes) -> None:
    question = {"protocol": PROTOCOL, "key": "0" * 64, "trials": [[body, *SEALED[1:]]]}
    ask(reception, "trials", msgpack.packb(question))
    for name in ("edge", "epoch", "sequence", "progress", "measures"):
        body_with = with_value({"edge": EDGE, "epoch": "e1", "sequence": 1}, name, body)
        ask(reception, "trials", msgpack.packb(question | {"trials": [[body_with, *SEALED[1:]]]}))


@pytest.mark.parametrize("topic", ["blob/" + "a" * 64, "blob/" + "a" * 300, "blob", "blob/..", ROOT, "trust"])
def test_what_is_said_of_a_piece_may_be_anything(reception: Reception, topic: str) -> None:
    for name in ("edge", "size", "offset"):
        for value in (*map(msgpack.packb, ODD), nested(1000)):
            ask(reception, topic, b"piece", with_value({"edge": EDGE, "size": 9, "offset": 0}, name, value))


def test_so_is_what_a_stranger_says_at_the_door(tmp_path: Path) -> None:
    make(tmp_path / "keys", humans=1, threshold=1)
    plan = Plan(tmp_path, "push_t", free_endpoint(), "", (), None)
    with opened(plan) as service, Enrolment(tmp_path / FILE) as enrolment:
        service._registrar = Registrar(enrolment, Authority(tmp_path / "authority"))
        for value in (*map(msgpack.packb, ODD), nested(1000), nested(5000)):
            for payload in (value, with_value({}, "format", value)):
                query = Query("enrol", payload, b"")
                assert service._took(Question(cast(zenoh.Query, query)))
                assert query.dropped
                assert not query.answers


def test_a_status_may_be_anything(reception: Reception) -> None:
    for name in (*STATUS, "rollouts"):
        for value in (*map(msgpack.packb, ODD), nested(1000), b"\xc1"):
            reception.handle(StatusSaid(EDGE, with_value(STATUS, name, value)), NOW_S)
    rollout = {"bundle": "a" * 64, "state": "active", "reason": "", "gates": "{}", "since_unix_s": 1.0}
    for name in rollout:
        for value in (*ODD, 2**64 - 1):
            said = STATUS | {"rollouts": {"number": 1, "bundles": [rollout | {name: value}]}}
            reception.handle(StatusSaid(EDGE, msgpack.packb(said)), NOW_S)
    ask(reception, "lease", msgpack.packb(REQUEST))  # what was said of its memory can be written down
