"""Over a real loopback with real certificates: who may say what, and who gets no link at all."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zenoh

from coordinator.access import MOST_AT_THE_DOOR_BYTES, MOST_SMALL_BYTES, QUESTIONS, access_control
from coordinator.network import (
    MOST_WAITING_AT_THE_DOOR,
    Network,
    NetworkError,
    Presence,
    Question,
    StatusSaid,
    free_endpoint,
)
from coordinator.publish.authority import Authority
from edge.uplink.network import CONFIG
from edge.wire import MOST_BYTES, key_of
from edge.wire.tls import Tls, connecting, listening
from tests.harness.certificates import make_identity

ARM, OTHER, CONSOLE = "arm-01", "arm-02", "console:ann"
LONG_S = 30.0  # bound of a wait; nothing is measured by it
SHORT_S = 0.5  # for what is to get no answer; the coordinator answers in milliseconds
REMOTE = zenoh.Locality.REMOTE


def tls_endpoint() -> str:
    return free_endpoint().replace("tcp/", "tls/")


def connect(endpoint: str, settings: Mapping[str, Any]) -> zenoh.Session:
    """Open a session as anybody can who reaches the endpoint."""
    config = zenoh.Config()
    for key, value in {**CONFIG, "scouting/delay": 0, **settings, "connect/endpoints": [endpoint]}.items():
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def ask(session: zenoh.Session, key: str, payload: bytes = b"", timeout_s: float = SHORT_S) -> list[bytes]:
    replies = session.get(key, payload=payload, timeout=timeout_s)
    return [reply.ok.payload.to_bytes() for reply in replies if reply.ok is not None]


def until(happened: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + LONG_S
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


@dataclass
class Lab:
    """A coordinator that answers whatever it hears, and notes it."""

    folder: Path
    authority: Authority
    network: Network
    asked: list[str] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    here: dict[str, bool] = field(default_factory=dict)

    def note(self) -> None:
        message = self.network.take(0.02)
        match message:
            case Question():
                self.asked.append(message.key)
                message.answer(b"yes")
            case StatusSaid():
                self.statuses.append(message.edge)
            case Presence():
                self.here[message.edge] = message.here

    def identity(self, name: str, **values: Any) -> Tls:
        return make_identity(self.authority, self.folder / name.replace(":", "-"), name, **values)

    @contextmanager
    def linked(self, name: str, mode: str = "peer") -> Iterator[zenoh.Session]:
        """Connect as an edge that may talk, and wait until it does."""
        own = self.identity(name)
        with connect(self.network.endpoint, {**connecting(own.authority, own), "mode": mode}) as session:
            until(lambda: ask(session, key_of(name, "lease")))
            self.asked.clear()
            yield session


@contextmanager
def make_lab(folder: Path, door: str | None = None) -> Iterator[Lab]:
    authority = Authority(folder / "authority")
    stop = threading.Event()
    with Network(tls_endpoint(), authority.server([]), [ARM, OTHER], [CONSOLE], door) as network:
        lab = Lab(folder, authority, network)

        def serve() -> None:
            while not stop.is_set():
                lab.note()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield lab
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with make_lab(tmp_path) as made:
        yield made


def test_an_edge_asks_and_reports_under_its_own_keys(lab: Lab) -> None:
    questions = [question(ARM, topic) for topic in QUESTIONS]
    with lab.linked(ARM) as session:
        assert [ask(session, key, timeout_s=LONG_S) for key in questions] == [[b"yes"]] * len(questions)
        token = session.liveliness().declare_token(key_of(ARM, "alive"))
        session.put(key_of(ARM, "status"), b"")
        until(lambda: lab.here.get(ARM) and lab.statuses)
        token.undeclare()
        until(lambda: not lab.here[ARM])
    assert (lab.asked, lab.statuses) == (questions, [ARM])


def question(edge: str, topic: str) -> str:
    return key_of(edge, topic.replace("**", "a/b").replace("*", "a"))


def own_state(session: zenoh.Session) -> list[str]:
    """Return the keys under which a router would tell of itself."""
    return [f"@/{router}/**" for router in session.info.routers_zid()]


# What each hears in return is added to a list.
ATTACKS: dict[str, Callable[[zenoh.Session, list[Any]], object]] = {
    **{
        f"asks {topic} as another": lambda s, heard, t=topic: heard.extend(ask(s, question(OTHER, t)))
        for topic in QUESTIONS
    },
    "asks for all edges": lambda s, heard: heard.extend(ask(s, key_of("*", "lease"))),
    "asks for everything": lambda s, heard: heard.extend(ask(s, "enpire/**")),
    "asks under no edge's key": lambda s, heard: heard.extend(ask(s, "enpire/lease")),
    "asks the door's question": lambda s, heard: heard.extend(ask(s, key_of(ARM, "enrol"))),
    "asks for the router's own state": lambda s, heard: [heard.extend(ask(s, key)) for key in own_state(s)],
    "asks who lives": lambda s, heard: heard.extend(s.liveliness().get("enpire/**", timeout=SHORT_S)),
    "reports as another": lambda s, heard: s.put(key_of(OTHER, "status"), b"forged"),
    "reports as all": lambda s, heard: s.put(key_of("*", "status"), b"forged"),
    "deletes another's status": lambda s, heard: s.delete(key_of(OTHER, "status")),
    "deletes its own status": lambda s, heard: s.delete(key_of(ARM, "status")),
    "puts elsewhere": lambda s, heard: s.put(key_of(ARM, "lease"), b"forged"),
    "lives as another": lambda s, heard: s.liveliness().declare_token(key_of(OTHER, "alive")),
    "lives as a stranger": lambda s, heard: s.liveliness().declare_token(key_of("arm-99", "alive")),
    "listens to all": lambda s, heard: s.declare_subscriber("enpire/**", heard.append, allowed_origin=REMOTE),
    "listens to another": lambda s, heard: s.declare_subscriber(key_of(OTHER, "status"), heard.append),
    "watches all": lambda s, heard: s.liveliness().declare_subscriber("enpire/**", heard.append, history=True),
    "answers for the coordinator": lambda s, heard: s.declare_queryable("enpire/**", heard.append),
    "answers another": lambda s, heard: s.declare_queryable(key_of(OTHER, "lease"), heard.append),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_edge_can_do_nothing_else(lab: Lab, attack: Callable[[zenoh.Session, list[Any]], object]) -> None:
    heard: list[Any] = []
    # A router passes on between clients, and to them, what it does not between peers.
    with lab.linked(ARM, "client") as session, lab.linked(OTHER) as other:
        alive = other.liveliness().declare_token(key_of(OTHER, "alive"))
        until(lambda: lab.here.get(OTHER))
        kept = attack(session, heard)
        # What it said before this, over the same link, would have come before this.
        session.put(key_of(ARM, "status"), b"")
        until(lambda: ARM in lab.statuses)
        other.put(key_of(OTHER, "status"), b"")
        assert ask(other, key_of(OTHER, "lease"), timeout_s=LONG_S) == [b"yes"]
        until(lambda: OTHER in lab.statuses)
        assert (lab.statuses, lab.asked) == ([ARM, OTHER], [key_of(OTHER, "lease")])
        assert (lab.here, heard) == ({OTHER: True}, [])
        del alive, kept


def test_a_token_in_another_s_name_neither_raises_nor_ends_its_life(lab: Lab) -> None:
    with lab.linked(ARM) as session, lab.linked(OTHER) as other:
        forged = session.liveliness().declare_token(key_of(OTHER, "alive"))
        session.put(key_of(ARM, "status"), b"")
        until(lambda: lab.statuses)
        assert lab.here == {}
        alive = other.liveliness().declare_token(key_of(OTHER, "alive"))
        until(lambda: lab.here.get(OTHER))
        forged.undeclare()
        session.put(key_of(ARM, "status"), b"")
        until(lambda: len(lab.statuses) == 2)
        assert lab.here == {OTHER: True}
        assert alive


def test_a_console_hears_what_all_do_and_says_nothing(lab: Lab) -> None:
    own, heard, seen = lab.identity(CONSOLE), [], []
    # zenoh passes nothing on from one peer to another.
    settings = {**connecting(own.authority, own), "mode": "client"}
    with lab.linked(ARM) as session, connect(lab.network.endpoint, settings) as console:
        token = session.liveliness().declare_token(key_of(ARM, "alive"))
        subscribed = [
            console.declare_subscriber(key_of("*", "status"), lambda sample: heard.append(str(sample.key_expr))),
            console.liveliness().declare_subscriber(
                key_of("*", "alive"), lambda sample: seen.append(str(sample.key_expr)), history=True
            ),
        ]
        until(lambda: session.put(key_of(ARM, "status"), b"") or (heard and seen))
        assert {*heard} == {key_of(ARM, "status")}
        assert {*seen} == {key_of(ARM, "alive")}
        assert ask(console, key_of(ARM, "lease")) == []
        console.put(key_of(ARM, "status"), b"")
        assert ask(session, key_of(ARM, "lease"), timeout_s=LONG_S) == [b"yes"]
        assert lab.asked == [key_of(ARM, "lease")]
        assert token
        assert subscribed


# -- links ------------------------------------------------------------------------------------------------------------


def knock(endpoint: str, authority: Path, own: Tls | None) -> None:
    """Open a link as who believes `authority` and shows its own certificate, or none, and wait for a word."""
    context = ssl.create_default_context(cafile=authority)
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    host, _, port = endpoint.removeprefix("tls/").rpartition(":")
    with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=host) as link:
        link.settimeout(LONG_S)
        link.recv(1)


def self_made(lab: Lab) -> Tls:
    """Return an authority's own certificate and key, of another lab, that calls itself by the edge's name."""
    folder = lab.folder / "self-made"
    Authority(folder)
    return Tls(folder / "ca.pem", folder / "ca.pem", folder / "ca.key")


STRANGERS: dict[str, Callable[[Lab], Tls | None]] = {
    "no certificate": lambda lab: None,
    "self-made": self_made,
    "another authority's": lambda lab: make_identity(Authority(lab.folder / "elsewhere"), lab.folder / "stranger", ARM),
    "expired": lambda lab: lab.identity(
        ARM, life=timedelta(minutes=10), begins=datetime.now(UTC) - timedelta(minutes=11)
    ),
    "not yet good": lambda lab: lab.identity(ARM, begins=datetime.now(UTC) + timedelta(hours=1)),
    "the coordinator's": lambda lab: lab.authority.server([]),
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_gets_no_link(lab: Lab, stranger: Callable[[Lab], Tls | None]) -> None:
    own = stranger(lab)
    with pytest.raises(ssl.SSLError, match="alert"):  # as the coordinator says no
        knock(lab.network.endpoint, lab.authority.file, own)
    with (
        connect(lab.network.endpoint, connecting(lab.authority.file, own)) as session,
        lab.linked(OTHER),  # meanwhile others get theirs
    ):
        assert list(session.info.routers_zid()) == []
        assert ask(session, key_of(ARM, "lease")) == []
    assert lab.asked == []


def test_an_enrolled_machine_that_may_not_talk_is_answered_nothing(lab: Lab) -> None:
    own = lab.identity("arm-03")
    with connect(lab.network.endpoint, connecting(own.authority, own)) as session:
        until(lambda: list(session.info.routers_zid()))
        for edge in ("arm-03", ARM):
            assert ask(session, key_of(edge, "lease")) == []
    assert lab.asked == []


def test_a_link_ends_with_its_certificate_and_goes_on_with_a_new_one(lab: Lab) -> None:
    own = lab.identity(ARM, life=timedelta(seconds=3))
    with connect(lab.network.endpoint, connecting(own.authority, own)) as session:
        token = session.liveliness().declare_token(key_of(ARM, "alive"))
        until(lambda: lab.here.get(ARM))
        until(lambda: not lab.here[ARM])
        assert ask(session, key_of(ARM, "lease")) == []
        lab.identity(ARM)  # what a renewal leaves in place of the old one; the session looks at it by itself
        until(lambda: lab.here[ARM])
        assert ask(session, key_of(ARM, "lease"), timeout_s=LONG_S) == [b"yes"]
        assert token


def test_no_edge_can_pose_as_the_coordinator(lab: Lab) -> None:
    endpoint, fraud, victim = tls_endpoint(), lab.identity(OTHER), lab.identity(ARM)
    config = zenoh.Config()
    for key, value in {**CONFIG, **listening(fraud, mutual=False), "listen/endpoints": [endpoint]}.items():
        config.insert_json5(key, json.dumps(value))
    with zenoh.open(config) as false, connect(endpoint, connecting(victim.authority, victim)) as session:
        queryable = false.declare_queryable("enpire/**", lambda query: query.reply(query.key_expr, b"forged"))
        with pytest.raises(ssl.SSLError, match=r"unsuitable certificate purpose|unsupported certificate purpose"):
            knock(endpoint, victim.authority, None)
        assert ask(session, key_of(ARM, "lease")) == []
        assert list(session.info.routers_zid()) + list(session.info.peers_zid()) == []
        assert queryable


def test_who_may_talk_changes_while_others_go_on(lab: Lab) -> None:
    new = lab.identity("arm-03")
    with lab.linked(ARM) as session, connect(lab.network.endpoint, connecting(new.authority, new)) as newcomer:
        until(lambda: list(newcomer.info.routers_zid()))
        token = session.liveliness().declare_token(key_of(ARM, "alive"))
        until(lambda: lab.here.get(ARM))
        lab.network.admit([ARM, "arm-03"])
        until(lambda: ask(newcomer, key_of("arm-03", "lease")))
        until(lambda: ask(session, key_of(ARM, "lease")))
        lab.network.admit(["arm-03"])
        until(lambda: not lab.here[ARM])
        until(lambda: ask(newcomer, key_of("arm-03", "lease")))
        assert ask(session, key_of(ARM, "lease")) == []
        assert token


def test_a_console_comes_and_goes_without_being_taken_for_a_station(lab: Lab) -> None:
    bob, heard = "console:bob", []
    own = lab.identity(bob)
    settings = {**connecting(own.authority, own), "mode": "client"}
    with lab.linked(ARM) as session:
        lab.network.admit([ARM, bob])
        with connect(lab.network.endpoint, settings) as console:
            listener = console.declare_subscriber(key_of("*", "status"), lambda sample: heard.append(sample.key_expr))
            until(lambda: session.put(key_of(ARM, "status"), b"") or heard)
            assert ask(console, key_of(ARM, "lease")) == []
            lab.network.admit([ARM])
            until(lambda: ask(session, key_of(ARM, "lease")))
            heard.clear()
            session.put(key_of(ARM, "status"), b"")
            assert ask(session, key_of(ARM, "lease"), timeout_s=LONG_S) == [b"yes"]
            assert heard == []
            assert listener
    assert bob not in lab.here


def test_a_change_that_fails_is_made_when_it_is_tried_again(tmp_path: Path) -> None:
    authority, endpoint = Authority(tmp_path / "authority"), tls_endpoint()
    own = make_identity(authority, tmp_path / ARM, ARM)
    with (
        Network(tls_endpoint(), authority.server([])) as other,
        Network(endpoint, authority.server([])) as network,
        connect(endpoint, connecting(own.authority, own)) as session,
    ):
        network.endpoint = other.endpoint
        for _ in range(2):
            with pytest.raises(NetworkError):
                network.admit([ARM])
        network.endpoint = endpoint
        network.admit([ARM])
        until(lambda: ask(session, key_of(ARM, "lease"), timeout_s=0.05) or network.take(0.0) is not None)


def test_what_is_too_large_never_arrives(lab: Lab) -> None:
    with lab.linked(ARM) as session:
        for topic, most in (("lease", MOST_SMALL_BYTES), ("blob/a", MOST_BYTES - 1024)):
            assert ask(session, key_of(ARM, topic), bytes(most), LONG_S) == [b"yes"]
        assert ask(session, key_of(ARM, "lease"), bytes(MOST_SMALL_BYTES + 1)) == []
        assert ask(session, key_of(ARM, "blob/b"), bytes(MOST_BYTES + 1)) == []
        session.put(key_of(ARM, "status"), bytes(MOST_SMALL_BYTES + 1))
        session.put(key_of(ARM, "status"), b"")
        until(lambda: lab.statuses)
        assert ask(session, key_of(ARM, "lease"), timeout_s=LONG_S) == [b"yes"]  # the link is as good as before
    assert lab.statuses == [ARM]
    assert lab.asked == [key_of(ARM, topic) for topic in ("lease", "blob/a", "lease")]


# -- the door ---------------------------------------------------------------------------------------------------------


def test_at_the_door_anybody_may_ask_for_a_certificate_and_for_nothing_else(tmp_path: Path) -> None:
    door = tls_endpoint()
    with make_lab(tmp_path, door) as lab, connect(door, connecting(lab.authority.file, None)) as session:
        until(lambda: ask(session, key_of("arm-09", "enrol")))
        lab.asked.clear()
        assert ask(session, key_of("arm-09", "enrol"), bytes(MOST_AT_THE_DOOR_BYTES), LONG_S) == [b"yes"]
        for key in (
            key_of(ARM, "lease"),
            key_of(ARM, "renew"),
            key_of("*", "lease"),
            "enpire/lease",
            *own_state(session),
        ):
            assert ask(session, key) == []
        assert ask(session, key_of("arm-09", "enrol"), bytes(MOST_AT_THE_DOOR_BYTES + 1)) == []
        session.put(key_of(ARM, "status"), b"forged")
        token = session.liveliness().declare_token(key_of(ARM, "alive"))
        assert ask(session, key_of("arm-09", "enrol"), timeout_s=LONG_S) == [b"yes"]
        assert (lab.asked, lab.statuses, lab.here) == ([key_of("arm-09", "enrol")] * 2, [], {})
        assert token


def test_strangers_wait_in_a_short_line_behind_the_edges(tmp_path: Path) -> None:
    authority, door = Authority(tmp_path / "authority"), tls_endpoint()
    with (
        Network(tls_endpoint(), authority.server([]), [ARM], door=door) as network,
        connect(door, connecting(authority.file, None)) as stranger,
        connect(network.endpoint, connecting(authority.file, make_identity(authority, tmp_path / ARM, ARM))) as edge,
    ):
        until(lambda: list(stranger.info.routers_zid()) and list(edge.info.routers_zid()))
        waiting = [
            stranger.get(key_of(f"arm-{number}", "enrol"), timeout=LONG_S)
            for number in range(MOST_WAITING_AT_THE_DOOR + 8)
        ]
        until(lambda: network._at_the_door.full())
        asking = edge.get(key_of(ARM, "lease"), timeout=LONG_S)
        until(lambda: network._queue.qsize() == 1)
        order = []
        while (message := network.take(0.0)) is not None:
            assert isinstance(message, Question)
            order.append(message.topic)
            message.drop()
        assert order == ["lease"] + ["enrol"] * MOST_WAITING_AT_THE_DOOR
        assert len(waiting) > MOST_WAITING_AT_THE_DOOR
        assert asking


# -- rules ------------------------------------------------------------------------------------------------------------


def test_every_subject_is_known_by_a_certificate_and_nobody_is_let_in_by_default() -> None:
    for rules in (access_control([]), access_control([ARM, OTHER], [CONSOLE])):
        assert (rules["enabled"], rules["default_permission"]) == (True, "deny")
        for subject in rules["subjects"]:
            assert subject == {"id": subject["id"], "cert_common_names": [subject["id"]]}
    assert access_control([])["policies"] == []


def test_without_certificates_a_question_under_nobody_s_key_is_left_open(tmp_path: Path) -> None:
    with Network(free_endpoint()) as network, connect(network.endpoint, {}) as session:
        until(lambda: list(session.info.routers_zid()))
        for key in (key_of("*", "lease"), "enpire/**", key_of("a$*", "lease")):
            assert ask(session, key) == []
        assert network.take(0.0) is None
