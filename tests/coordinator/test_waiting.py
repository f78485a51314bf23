"""An edge that asks without end is dropped beyond its share; nobody else notices."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from coordinator.network import Network, Question, free_endpoint
from coordinator.waiting import MOST_BYTES, MOST_QUESTIONS, Waiting
from edge.uplink.network import Coordinator
from edge.wire import key_of

LONG_S = 30.0  # bound of a wait; nothing is measured by it
LOUD, OTHER = "arm-01", "arm-02"


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(free_endpoint()) as made:
        yield made


def next_question(network: Network) -> Question:
    deadline_s = time.monotonic() + LONG_S
    while not isinstance(message := network.take(0.02), Question):
        assert time.monotonic() < deadline_s, "no question came"
    return message


@pytest.mark.parametrize(
    ("payload", "most"),
    [(b"", MOST_QUESTIONS), (bytes(1 << 20), MOST_BYTES >> 20)],
    ids=["small ones", "large ones"],
)
def test_what_an_edge_asks_beyond_its_share_is_dropped_and_others_are_not(
    network: Network, caplog: pytest.LogCaptureFixture, payload: bytes, most: int
) -> None:
    caplog.set_level(logging.WARNING, "coordinator.network")
    with ExitStack() as stack:
        loud, other = (stack.enter_context(Coordinator(network.endpoint, edge)) for edge in (LOUD, OTHER))
        for line, edge in ((loud, LOUD), (other, OTHER)):  # until both are linked
            while not any(True for _ in answered_once(network, line, edge)):
                pass
        asked = [loud._session.get(key_of(LOUD, "blob/a"), payload=payload, timeout=LONG_S) for _ in range(3 * most)]
        # Dropped, so each ends without a reply, not even of a timeout.
        assert [reply for receiver in asked[most:] for reply in receiver] == []
        waiting = other._session.get(key_of(OTHER, "blob/a"), payload=payload, timeout=LONG_S)
        order = []
        while OTHER not in order:
            question = next_question(network)
            order.append(question.edge)
            question.answer(b"yes")
        assert order == [LOUD] * most + [OTHER]
        assert [reply.ok is not None for receiver in (*asked[:most], waiting) for reply in receiver] == [True] * (
            most + 1
        )
        assert [record.getMessage() for record in caplog.records] == [
            f"{LOUD} asked more than may wait; some of it was dropped, it will ask again"
        ]
        again = loud._session.get(key_of(LOUD, "blob/a"), payload=payload, timeout=LONG_S)
        next_question(network).answer(b"yes")
        assert [reply.ok is not None for reply in again] == [True]


def answered_once(network: Network, line: Coordinator, edge: str) -> Iterator[bytes]:
    """Ask once and answer whatever comes meanwhile; yield the answer, if there is one."""
    receiver = line._session.get(key_of(edge, "lease"), timeout=0.5)
    deadline_s = time.monotonic() + 0.5
    while time.monotonic() < deadline_s:
        message = network.take(0.02)
        if isinstance(message, Question):
            message.answer(b"yes")
            break
    yield from (reply.ok.payload.to_bytes() for reply in receiver if reply.ok is not None)


def test_shares_are_counted_to_the_byte_and_given_back() -> None:
    waiting = Waiting()
    assert waiting.enter(LOUD, MOST_BYTES)
    assert waiting.enter(LOUD, 0)
    assert not waiting.enter(LOUD, 1)
    assert waiting.enter(OTHER, 1)
    assert [waiting.leave(LOUD, 0), waiting.leave(LOUD, MOST_BYTES), waiting.leave(OTHER, 1)] == [True, False, False]
    assert waiting._shares == {}
    assert waiting.enter(LOUD, MOST_BYTES)
    assert not waiting.leave(LOUD, MOST_BYTES)


def test_threads_count_right() -> None:
    waiting = Waiting()

    def come_and_go() -> None:
        for _ in range(5000):
            if waiting.enter(LOUD, 7):
                waiting.leave(LOUD, 7)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waiting._shares == {}
