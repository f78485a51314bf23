"""The repository comes over zenoh a piece at a time, and only "404" says that a file does not exist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edge.trust.bounded import rest_of
from edge.trust.folder import FolderFetcher
from edge.trust.parts import LEAST_BYTES_PER_S
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.network import TIMEOUT_S, Coordinator
from edge.wire import key_of
from edge.wire.targets import MOST_PIECE_BYTES, PIECE_BYTES
from tests.harness.uplink_world import EDGE, Desk, connected, open_question, refuse, say

URL = "metadata/1.root.json"
KEY = key_of(EDGE, f"trust/{URL}")


@pytest.fixture(scope="module")
def link() -> Iterator[tuple[Desk, Coordinator]]:
    with connected() as both:
        yield both


@pytest.fixture
def desk(link: tuple[Desk, Coordinator]) -> Desk:
    link[0].forget()
    return link[0]


@pytest.fixture
def fetcher(link: tuple[Desk, Coordinator]) -> ZenohFetcher:
    return ZenohFetcher(link[1], EDGE)


@pytest.mark.parametrize("length", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_a_file_comes_in_pieces(desk: Desk, fetcher: ZenohFetcher, length: int) -> None:
    content = os.urandom(length)

    def piece(payload: bytes) -> bytes:
        offset = msgpack.unpackb(desk.asked[-1][2])["offset"]
        return bytes(msgpack.packb({"total": length, "data": content[offset : offset + PIECE_BYTES]}))

    desk.replies[KEY] = piece
    assert b"".join(fetcher.fetch(URL)) == content
    assert len(desk.asked) == max(1, -(-length // PIECE_BYTES))
    assert {key for key, _, _ in desk.asked} == {KEY}


@pytest.mark.parametrize("piece_bytes", [1000, 64 << 10, 256 << 10])
def test_a_coordinator_of_another_version_may_give_pieces_of_another_size(
    desk: Desk, fetcher: ZenohFetcher, piece_bytes: int
) -> None:
    content = os.urandom(2 * piece_bytes + 5)

    def piece(payload: bytes) -> bytes:
        offset = msgpack.unpackb(desk.asked[-1][2])["offset"]
        return bytes(msgpack.packb({"total": len(content), "data": content[offset : offset + piece_bytes]}))

    desk.replies[KEY] = piece
    assert b"".join(fetcher.fetch(URL)) == content
    assert len(desk.asked) == 3


def test_only_404_says_that_there_is_no_such_file(desk: Desk, fetcher: ZenohFetcher) -> None:
    desk.replies[KEY] = refuse("404")
    with pytest.raises(DownloadHTTPError) as caught:
        list(fetcher.fetch(URL))
    assert caught.value.status_code == 404


@pytest.mark.parametrize("text", ["403", "404 ", "not found", "", "Timeout!", "busy"])
def test_any_other_refusal_does_not(desk: Desk, fetcher: ZenohFetcher, text: str) -> None:
    desk.replies[KEY] = refuse(text)
    with pytest.raises(DownloadError) as caught:
        list(fetcher.fetch(URL))
    assert not isinstance(caught.value, DownloadHTTPError)


def test_no_answer_is_not_a_no(desk: Desk, fetcher: ZenohFetcher) -> None:
    desk.replies[KEY] = open_question
    with pytest.raises(DownloadError, match="no answer") as caught:
        list(fetcher.fetch(URL))
    assert not isinstance(caught.value, DownloadHTTPError)


def test_nobody_there_is_not_a_no() -> None:
    with Coordinator("tcp/127.0.0.1:1", EDGE) as alone, pytest.raises(DownloadError, match="no answer") as caught:
        list(ZenohFetcher(alone, EDGE).fetch(URL))
    assert not isinstance(caught.value, DownloadHTTPError)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xc1",
        {},
        [],
        7,
        {"total": 5},
        {"total": "5", "data": b"12345"},
        {"total": 5, "data": "12345"},
        {"total": 5, "data": b""},
        {"total": 1 << 40, "data": bytes(MOST_PIECE_BYTES + 1)},
    ],
)
def test_an_answer_that_is_no_piece_is_no_file(desk: Desk, fetcher: ZenohFetcher, answer: object) -> None:
    desk.replies[KEY] = say(answer)
    with pytest.raises(DownloadError) as caught:
        list(fetcher.fetch(URL))
    assert not isinstance(caught.value, DownloadHTTPError)


@pytest.mark.parametrize("offset", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 4, 2 * PIECE_BYTES + 5])
def test_a_file_is_gone_on_from_any_byte_whoever_fetches_it(
    desk: Desk, fetcher: ZenohFetcher, tmp_path: Path, offset: int
) -> None:
    content = os.urandom(2 * PIECE_BYTES + 5)
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "a").write_bytes(content)

    def piece(payload: bytes) -> bytes:
        at = msgpack.unpackb(desk.asked[-1][2])["offset"]
        return bytes(msgpack.packb({"total": len(content), "data": content[at : at + PIECE_BYTES]}))

    class FromTheStart(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            yield from (content[:7], b"", content[7:])

    desk.replies[key_of(EDGE, "trust/targets/a")] = piece
    for one in (fetcher, FolderFetcher(tmp_path), FromTheStart()):
        assert b"".join(rest_of(one, "targets/a", offset)) == content[offset:]
    assert len(desk.asked) == max(-(-(len(content) - offset) // PIECE_BYTES), 1)  # of what was there, nothing again


def test_a_piece_comes_within_a_questions_time_on_the_slowest_link_that_is_borne() -> None:
    assert PIECE_BYTES / LEAST_BYTES_PER_S < TIMEOUT_S
