"""Whatever the cable does, a fixture acts once or its caller gets an error; and the protocol's page tells the truth."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from firmware_bridge.fixture import NS_PER_S, Fixture, FixtureStatus, Timing, open_fixture
from firmware_bridge.fixture_board import KINDS, EmulatedBoard, EmulatedLink, Fate, example, spoil
from firmware_bridge.fixture_lines import (
    ACTIONS,
    LINE_BYTES,
    SEQUENCE_MAX,
    TO_BOARD,
    TO_HOST,
    VERSION,
    FixtureBusy,
    FixtureError,
    FixtureFault,
    FixtureGone,
    FixtureLapsed,
    FixtureNonsense,
    FixtureOverdue,
    FixtureRefused,
    FixtureRestarted,
    FixtureSilent,
    FixtureVersion,
    Line,
    NotALine,
    Range,
    check_reply,
    checksum,
    decode_line,
    encode_line,
    number,
    number_text,
    read_greeting,
    read_range,
    split_lines,
)

PAGE = (Path(__file__).parents[2] / "docs" / "fixture-protocol.md").read_text()
LOST = Fate(copies=0)
FEED = Line(TO_BOARD, VERSION, 17, "feed", {"count": "1"})

words = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
keys = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
values = st.dictionaries(keys, st.from_regex(r"[A-Za-z0-9.+-]{1,8}", fullmatch=True), max_size=3)
sequences = st.integers(0, SEQUENCE_MAX)
lines = st.builds(Line, st.sampled_from((TO_BOARD, TO_HOST)), st.integers(1, 99), sequences, words, values)
fates = st.builds(
    Fate,
    copies=st.sampled_from((1, 1, 1, 0, 2)),
    flip_at=st.integers(0, LINE_BYTES),
    flip=st.sampled_from((0, 0, 0, 1, 0x20, 0xFF)),
)
fates_with_restarts = st.builds(replace, fates, restart=st.sampled_from((False, False, False, True)))


def greeted(kind: str = "bench", **board: float) -> tuple[Fixture, EmulatedLink]:
    """Return a fixture in session with a faultless emulated board."""
    link = EmulatedLink(EmulatedBoard(kind, **board))
    fixture = Fixture(link)
    fixture.hello()
    return fixture, link


def send(board: EmulatedBoard, sequence: int, word: str, now_ns: int = 0, **told: str) -> list[Line]:
    """Return what the board answers to one line."""
    answer = board.step(encode_line(Line(TO_BOARD, VERSION, sequence, word, told)), now_ns)
    return [decode_line(data) for data in answer.splitlines(keepends=True)]


def no_more(why: str) -> Iterator[Fate]:
    """Fail when the host sends one more line."""
    pytest.fail(why)
    yield Fate()


class TalkingLink(EmulatedLink):
    """A link whose other end answers each line, whatever it asks, by the same words under its number."""

    def __init__(self, answer: str) -> None:
        super().__init__(EmulatedBoard())
        self._answer, self._said = answer, b""

    def write(self, data: bytes) -> None:
        """Answer one line; an answer of `echo` is the line itself."""
        body = f"<1 {decode_line(data).sequence} {self._answer} ".encode()
        self._said = data if self._answer == "echo" else body + b"*%04X\n" % checksum(body)

    def read(self, timeout_s: float) -> bytes:
        """Return the answer once."""
        said, self._said = self._said, b""
        return said or super().read(timeout_s)[:0]


# Lines


def test_the_checksum_has_its_published_check_value() -> None:
    assert checksum(b"123456789") == 0x29B1


@given(lines)
def test_a_line_comes_back(line: Line) -> None:
    assert decode_line(encode_line(line)) == line


@given(lines, st.integers(0, LINE_BYTES), st.integers(1, 255))
def test_any_single_damaged_byte_is_noticed(line: Line, at: int, flip: int) -> None:
    damaged = bytearray(encode_line(line))
    damaged[at % len(damaged)] ^= flip
    complete, _ = split_lines(bytes(damaged) + encode_line(FEED))
    for data in complete[:-1]:
        with pytest.raises(NotALine):
            decode_line(data)


@given(st.binary(max_size=LINE_BYTES + 4), lines)
def test_what_is_accepted_is_what_would_be_sent(noise: bytes, line: Line) -> None:
    good = encode_line(line)
    for data in (noise, noise + good, good + noise):
        try:
            assert encode_line(decode_line(data)) == data
        except NotALine:
            continue


@given(st.lists(lines, max_size=4), st.lists(st.integers(1, 40), min_size=1), st.sampled_from((b"\n", b"\r\n")))
def test_lines_survive_any_cutting_into_pieces(sent: list[Line], cuts: list[int], ending: bytes) -> None:
    stream, got, rest = b"".join(encode_line(line)[:-1] + ending for line in sent), [], b""
    for size in itertools.cycle(cuts):
        piece, stream = stream[:size], stream[size:]
        complete, rest = split_lines(rest + piece)
        got += complete
        if not stream:
            break
    assert [decode_line(data) for data in got] == sent


def test_an_endless_line_is_forgotten_and_the_next_one_read() -> None:
    rest = b""
    for _ in range(100):
        complete, rest = split_lines(rest + encode_line(FEED)[:-1])
        assert (complete, len(rest) <= LINE_BYTES + 1) == ([], True)
    (endless, good), _ = split_lines(rest + b"\n" + encode_line(FEED))
    assert decode_line(good) == FEED
    with pytest.raises(NotALine):
        decode_line(endless)


@pytest.mark.parametrize(("room", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_line_may_be_just_as_long_as_a_board_can_hold(room: int, fits: bool) -> None:
    padding = LINE_BYTES - len(encode_line(replace(FEED, values={"a": "x"}))) + room
    line = replace(FEED, values={"a": "x" * (1 + padding)})
    if fits:
        rest = b""
        for byte in encode_line(line):
            complete, rest = split_lines(rest + bytes([byte]))
        assert (len(complete[0]), decode_line(complete[0])) == (LINE_BYTES + room, line)
    else:
        with pytest.raises(NotALine, match="96 bytes"):
            encode_line(line)


@pytest.mark.parametrize(
    "line",
    [
        replace(FEED, mark="#"),
        replace(FEED, version=0),
        replace(FEED, version=100),
        replace(FEED, sequence=-1),
        replace(FEED, sequence=SEQUENCE_MAX + 1),
        replace(FEED, word="feed now"),
        replace(FEED, word="feéd"),
        replace(FEED, values={"count": "1 *0000\n>1 18 feed count=9"}),
        replace(FEED, values={"count": ""}),
        replace(FEED, values={"Count": "1"}),
    ],
)
def test_what_would_break_the_grammar_is_never_encoded(line: Line) -> None:
    with pytest.raises(NotALine):
        encode_line(line)


@given(st.floats(-1e6, 1e6))
def test_numbers_come_back_to_four_decimals(value: float) -> None:
    text = number_text(value)
    assert number({"x": text}, "x") == pytest.approx(value, abs=0.5001e-4)
    assert number_text(float(text)) == text


# Exactly once


def outcomes(link: EmulatedLink, actions: list[str]) -> Iterator[tuple[tuple[str, float], bool]]:
    """Yield each action asked for, told apart by its value, and whether the host took it as done."""
    fixture = Fixture(link)
    for value, action in enumerate(actions, start=1):
        try:
            _ = fixture.greeting if value > 1 else fixture.hello()
            fixture.do(action, value)
            yield (action, value), True
        except FixtureError:
            yield (action, value), False
            try:
                fixture.hello()
            except FixtureError:
                return


@given(
    st.lists(st.sampled_from(("feed", "turn")), min_size=1, max_size=5),
    st.lists(fates_with_restarts, max_size=40),
    st.lists(fates, max_size=40),
)
def test_an_action_happens_once_or_its_caller_gets_an_error_and_never_twice(
    actions: list[str], requests: list[Fate], replies: list[Fate]
) -> None:
    link = EmulatedLink(EmulatedBoard("bench"), requests, replies)
    for act, done in outcomes(link, actions):
        assert link.board.acts.count(act) in ((1,) if done else (0, 1))


@given(st.lists(st.sampled_from(("feed", "turn")), min_size=1, max_size=5), st.integers(0, 3), st.integers(0, 3))
def test_fewer_losses_than_tries_are_made_good(actions: list[str], lost_requests: int, lost_replies: int) -> None:
    assume(lost_requests + lost_replies < Timing().tries)
    fixture, link = greeted()
    link.requests = iter([LOST] * lost_requests)
    link.replies = iter([LOST] * lost_replies)
    for value, action in enumerate(actions, start=1):
        assert fixture.do(action, value) == value
    assert link.board.acts == [(action, value) for value, action in enumerate(actions, start=1)]


def test_a_doubled_line_acts_once() -> None:
    link = EmulatedLink(EmulatedBoard("bench"), itertools.repeat(Fate(copies=2)), itertools.repeat(Fate(copies=2)))
    fixture = Fixture(link)
    fixture.hello()
    assert (fixture.feed(2), fixture.turn(-90.0), fixture.feed(1)) == (2, -90.0, 1)
    assert link.board.acts == [("feed", 2.0), ("turn", -90.0), ("feed", 1.0)]


def test_the_numbers_wrap_without_stopping_the_board() -> None:
    fixture, link = greeted("light")
    fixture._sequence = SEQUENCE_MAX - 3
    fixture.hello()
    for level in (0.1, 0.2, 0.3, 0.4):
        fixture.light(level)
    assert fixture._sequence == 3
    assert [value for _, value in link.board.acts] == [0.1, 0.2, 0.3, 0.4]


def test_a_new_host_with_the_number_of_the_old_one_acts_anew() -> None:
    _, link = greeted("feeder")
    for _ in range(2):
        host = Fixture(link)
        host._sequence = 41
        host.hello()
        host.feed(1)
    assert link.board.acts == [("feed", 1.0)] * 2


@pytest.mark.parametrize(
    ("sequence", "word"),
    [(99, "ok"), (100, "error"), (101, "ok"), (100 + 0x7FFF, "ok"), (100 + 0x8000, "error"), (65535, "error")],
)
def test_only_numbers_ahead_of_the_last_one_act(sequence: int, word: str) -> None:
    board = EmulatedBoard("light")
    send(board, 98 if sequence == 99 else 100, "hello", token="A")
    (reply,) = send(board, sequence, "light", level="1")
    assert (reply.word, len(board.acts)) == (word, int(word == "ok"))


def test_a_repeated_greeting_changes_nothing() -> None:
    board = EmulatedBoard("feeder")
    first = send(board, 1, "hello", token="A")[-1]
    send(board, 2, "feed", count="1")
    assert send(board, 1, "hello", token="A") == [first]
    send(board, 2, "feed", count="1")
    assert board.acts == [("feed", 1.0)]


# What the host is told


def test_a_board_says_what_it_is() -> None:
    for kind, ranges in KINDS.items():
        fixture, _ = greeted(kind)
        assert (fixture.greeting.kind, fixture.greeting.ranges) == (kind, ranges)
        assert fixture.greeting.heartbeat_s == 2.0


def test_lights_and_relays_keep_what_they_are_told() -> None:
    fixture, _ = greeted()
    fixture.light(0.25)
    fixture.relay(True)
    assert fixture.status() == FixtureStatus(busy=False, outputs={"light": 0.25, "relay": 1.0})
    fixture.relay(False)
    assert fixture.status().outputs["relay"] == 0.0


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("action", "value"),
    [
        *[("feed", value) for value in (0, 11, -1, 1.5, NAN, INFINITE)],
        *[("turn", value) for value in (360.001, -360.001, NAN, -INFINITE)],
        *[("light", value) for value in (-0.001, 1.001, NAN)],
        *[("relay", value) for value in (0.5, 2, -1, NAN)],
        ("dance", 1),
        ("stop", 1),
    ],
)
def test_what_the_board_does_not_allow_is_never_sent(action: str, value: float) -> None:
    fixture, link = greeted()
    link.requests = no_more(f"sent {action} {value}")
    with pytest.raises(FixtureRefused, match=action):
        fixture.do(action, value)
    assert link.board.acts == []


@pytest.mark.parametrize(
    ("action", "value"), [("feed", 1), ("feed", 10), ("turn", 360), ("turn", -360), ("light", 0), ("light", 1)]
)
def test_the_ends_of_a_range_are_allowed(action: str, value: float) -> None:
    fixture, _ = greeted()
    assert fixture.do(action, value) == value


@pytest.mark.parametrize(
    ("word", "told", "why"),
    [
        ("feed", {"count": "11"}, "range"),
        ("feed", {"count": "1.5"}, "argument"),
        ("feed", {"count": "1e1"}, "argument"),
        ("feed", {"count": "nan"}, "argument"),
        ("feed", {}, "argument"),
        ("turn", {"angle": "5"}, "argument"),
        ("dance", {}, "unknown"),
    ],
)
def test_the_board_does_not_trust_its_host(word: str, told: dict[str, str], why: str) -> None:
    board = EmulatedBoard("bench")
    send(board, 1, "hello", token="A")
    (reply,) = send(board, 2, word, **told)
    assert (reply.word, reply.values["why"], board.acts) == ("error", why, [])


def test_a_silent_board_is_given_up_after_its_tries() -> None:
    fixture, link = greeted()
    link.requests = iter([LOST] * Timing().tries)
    with pytest.raises(FixtureSilent, match="4 tries"):
        fixture.feed(1)
    assert fixture.feed(2) == 2
    assert link.board.acts == [("feed", 2.0)]


@pytest.mark.parametrize("told", [True, False])
def test_a_restart_is_noticed_although_the_boot_line_is_lost(told: bool) -> None:
    fixture, link = greeted()
    after = no_more("the boot line was not heeded") if told else iter([Fate()])
    link.requests = itertools.chain([Fate(restart=True)], after)
    link.replies = iter([Fate() if told else LOST])
    with pytest.raises(FixtureRestarted, match="look"):
        fixture.feed(1)
    with pytest.raises(FixtureRefused, match="hello"):
        fixture.feed(1)
    link.requests = iter(())
    fixture.hello()
    assert fixture.feed(2) == 2
    assert link.board.acts == [("feed", 1.0), ("feed", 2.0)]


def test_a_board_of_another_version_is_named_and_can_still_be_stopped() -> None:
    fixture = Fixture(EmulatedLink(EmulatedBoard(version=2)))
    with pytest.raises(FixtureVersion, match="version 2, this host 1"):
        fixture.hello()
    fixture.stop()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ("echo", FixtureSilent),  # a loop-back plug, or a terminal that echoes
        ("ok token=DEADBEEF kind=feeder name=a firmware=1 heartbeat_s=1", FixtureNonsense),  # meant for an earlier host
        ("ok", FixtureNonsense),
        ("boot", FixtureNonsense),
        ("error why=melted", FixtureFault),
    ],
)
def test_what_is_no_greeting_begins_no_session(answer: str, failure: type[FixtureError]) -> None:
    fixture = Fixture(TalkingLink(answer))
    with pytest.raises(failure):
        fixture.hello()
    with pytest.raises(FixtureRefused, match="hello"):
        fixture.feed(1)


def test_a_jam_says_how_many_came_out() -> None:
    fixture, _ = greeted("feeder", jam_after=2)
    with pytest.raises(FixtureFault, match="jammed after 2") as caught:
        fixture.feed(3)
    assert (caught.value.why, caught.value.done) == ("jammed", 2.0)
    assert fixture.feed(1) == 1


def test_an_overdue_action_makes_later_ones_wait_until_it_is_stopped() -> None:
    link = EmulatedLink(EmulatedBoard("turntable"))
    fixture = Fixture(link, Timing(action_s=0.5))
    fixture.hello()
    with pytest.raises(FixtureOverdue, match="stop"):
        fixture.turn(360.0)
    assert fixture.status().busy
    with pytest.raises(FixtureBusy, match="number"):
        fixture.turn(10.0)
    fixture.stop()
    assert not fixture.status().busy
    assert fixture.turn(20.0) == 20.0
    assert [angle for _, angle in link.board.acts] == [360.0, 20.0]


def test_a_stopped_action_answers_with_all_that_may_have_come_out() -> None:
    board = EmulatedBoard("feeder")
    send(board, 1, "hello", token="A")
    send(board, 2, "feed", count="5")
    send(board, 3, "stop", now_ns=NS_PER_S // 2)  # in the third stroke
    (reply,) = send(board, 2, "feed", now_ns=NS_PER_S, count="5")
    assert reply.values == {"why": "stopped", "done": "3"}


def test_stop_needs_no_session() -> None:
    board = EmulatedBoard("relay")
    Fixture(EmulatedLink(board)).stop()
    send(board, 7, "hello", token="A")
    send(board, 8, "relay", on="1")
    Fixture(EmulatedLink(board)).stop()
    assert board.outputs["relay"] == 0.0


@pytest.mark.parametrize(("silence_ns", "on"), [(2 * NS_PER_S, 1.0), (2 * NS_PER_S + 1, 0.0)])
def test_the_relay_falls_off_when_the_host_is_silent_for_longer_than_the_heartbeat(silence_ns: int, on: float) -> None:
    board = EmulatedBoard("relay")
    send(board, 1, "hello", token="A")
    send(board, 2, "relay", on="1")
    board.step(b"noise\n" + encode_line(FEED)[:-2], silence_ns)
    assert board.outputs["relay"] == on


def test_a_lapse_is_told_and_status_prevents_it() -> None:
    fixture, link = greeted()
    fixture.relay(True)
    for _ in range(5):
        link.read(1.5)
        assert fixture.status().outputs["relay"] == 1.0
    link.read(2.5)
    with pytest.raises(FixtureLapsed, match="heartbeat"):
        fixture.status()
    with pytest.raises(FixtureRefused, match="hello"):
        fixture.relay(True)


def test_an_idle_session_never_lapses() -> None:
    fixture, link = greeted()
    fixture.light(1.0)
    link.read(3600.0)
    assert fixture.status().outputs == {"light": 1.0, "relay": 0.0}


def test_a_new_session_begins_with_the_relay_open() -> None:
    fixture, _ = greeted("relay")
    fixture.relay(True)
    fixture.hello()
    assert fixture.status().outputs == {"relay": 0.0}


@pytest.mark.parametrize(
    "broken",
    [
        lambda: number({}, "done"),
        lambda: number({"done": "nan"}, "done"),
        lambda: number({"done": "1e3"}, "done"),
        lambda: read_range("feed", "1"),
        lambda: read_range("feed", "1...5"),
        lambda: read_range("feed", "1..nan"),
        lambda: read_greeting({"kind": "feeder", "name": "a"}, {"heartbeat_s": "1"}),
        lambda: read_greeting({"kind": "feeder", "name": "a", "firmware": "1"}, {}),
        lambda: check_reply(FEED, Line(TO_HOST, VERSION, 17, "error")),
        lambda: check_reply(FEED, Line(TO_HOST, VERSION, 17, "perhaps")),
    ],
)
def test_a_well_formed_line_without_sense_is_no_answer(broken: Callable[[], object]) -> None:
    with pytest.raises(FixtureNonsense, match="firmware"):
        broken()


def test_actions_of_later_boards_are_passed_over() -> None:
    assert read_range("turn", "-1.5..2") == Range(-1.5, 2.0)
    identity = {"kind": "feeder", "name": "a", "firmware": "1"}
    assert read_greeting(identity, {"heartbeat_s": "1", "feed": "1..2", "vibrate": "0..9"}).ranges == {
        "feed": Range(1, 2)
    }


# Over a real serial line


@pytest.fixture
def pty_path() -> Iterator[str]:
    """A feeder and more behind a pty, with one line in ten lost, one damaged and one doubled."""
    faults = ("--drop", "0.1", "--corrupt", "0.1", "--double", "0.1", "--seed", "3")
    command = (sys.executable, "-m", "firmware_bridge.fixture_board", "--kind", "bench", *faults)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as board:
        assert board.stdout is not None
        try:
            yield board.stdout.readline().strip()
        finally:
            board.terminate()


def test_a_host_and_a_board_meet_over_a_bad_pty(pty_path: str) -> None:
    timing = Timing(tries=20)
    fixture = open_fixture(pty_path, timing=timing)
    assert fixture.greeting.kind == "bench"
    assert (fixture.feed(2), fixture.turn(-20.5)) == (2, -20.5)
    fixture.light(0.5)
    assert fixture.status().outputs == {"light": 0.5, "relay": 0.0}
    with pytest.raises(FixtureGone, match="other users"):
        open_fixture(pty_path)
    fixture.stop()
    fixture.close()
    again = open_fixture(pty_path, timing=timing)
    assert again.feed(1) == 1
    again.close()


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(FixtureGone, match="/dev/no-such-port"):
        open_fixture("/dev/no-such-port")


# The page


def test_the_page_shows_the_exchange_that_the_emulated_board_has() -> None:
    assert f"```\n{example()}```\n" in PAGE


def test_every_line_in_the_exchange_is_valid_and_fits() -> None:
    shown = [line for line in example().splitlines() if not line.startswith("(")]
    assert len([decode_line(f"{line}\n".encode()) for line in shown]) > 30


REFUSED = re.search(r"```refused\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("vector", REFUSED[1].splitlines() if REFUSED else [])
def test_the_lines_that_the_page_calls_wrong_are_refused(vector: str) -> None:
    data = re.sub(r"(\*\w{4})  .*", r"\1", vector)
    with pytest.raises(NotALine):
        decode_line(f"{data}\n".encode())
    assert data != vector


def test_only_the_named_flaw_makes_the_wrong_lines_wrong() -> None:
    data = [re.sub(r"(\*\w{4})  .*", r"\1", vector).encode() for vector in (REFUSED[1].splitlines() if REFUSED else [])]
    right = [int(line[-4:], 16) == checksum(line[: line.index(b"*")]) for line in data]
    assert right == [False] + [True] * (len(data) - 1)


def test_the_page_names_every_action_with_its_argument() -> None:
    for name, action in ACTIONS.items():
        assert f"| `{name}` | `{action.argument}`" in PAGE


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_c_function_on_the_page_computes_the_checksum(tmp_path: Path) -> None:
    block = re.search(r"```c\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    main = 'int main(int n, char **a) { printf("%04X", crc16((const uint8_t *)a[n - 1], strlen(a[n - 1]))); }'
    includes = "".join(f"#include <{name}.h>\n" for name in ("stdint", "stdio", "string"))
    (tmp_path / "crc.c").write_text(f"{includes}{block[1]}{main}\n")
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "crc", tmp_path / "crc.c"], check=True)
    for text in ("123456789", ">1 17 feed count=1 "):
        told = subprocess.run([tmp_path / "crc", text], check=True, capture_output=True, text=True).stdout
        assert int(told, 16) == checksum(text.encode())


def test_damage_to_each_line_is_its_own() -> None:
    assert spoil(b"ab\ncd\n", iter([Fate(copies=2), Fate(flip_at=4, flip=1)])) == b"ab\nab\nce\n"
