"""What a policy leaves of words: all of it up to a limit, no more, and nothing that a reader could be hurt by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sandbox.process import PolicyEnd, PolicyHost
from edge.trials.notes import CUT, Notes
from policies import link
from policies.interface import JointTarget, Observation, Scene, ToolTarget

TEXTS = st.lists(st.text(max_size=400) | st.text(min_size=1, max_size=3).map(lambda part: part * 9_000), max_size=8)


def kept(texts: list[str]) -> Notes:
    notes = Notes()
    for text in texts:
        notes.add(text)
    return notes


@given(TEXTS)
def test_notes_have_room_for_so_much_and_say_where_more_was_cut(texts: list[str]) -> None:
    text = kept(texts).text
    body, cut = text.removesuffix(CUT), text.endswith(CUT)
    assert len(body.encode()) <= link.NOTE_BYTES + 1  # and the end of the line before the last one
    asked = len("\n".join(texts).encode(errors="replace"))
    assert cut or asked <= link.NOTE_BYTES + 2 * sum(len(text) for text in texts)


@given(TEXTS)
def test_what_can_command_a_terminal_or_end_a_string_is_never_kept(texts: list[str]) -> None:
    text = kept(texts).text
    assert all(letter in "\n\t" or (letter >= " " and not "\x7f" <= letter <= "\x9f") for letter in text)
    text.encode()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=100), max_size=20))
def test_notes_that_fit_are_kept_as_they_are(texts: list[str]) -> None:
    assert kept(texts).text == "\n".join(texts)


@pytest.mark.parametrize("letter", ["a", "é", "€", "𝄞"])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_the_limit_is_one_of_bytes(letter: str, beyond: int) -> None:
    size = len(letter.encode())
    text = letter * (link.NOTE_BYTES // size + beyond)
    word, passed = link.note_to_message(text)
    assert word == "note"
    assert kept([passed]).text == (text if beyond <= 0 else f"{letter * (link.NOTE_BYTES // size)}\n{CUT}")


@given(st.text())
def test_a_note_passes_the_link_and_what_cannot_be_sent_is_written_out(text: str) -> None:
    message = msgpack.unpackb(msgpack.packb(link.note_to_message(text)))
    assert link.note_from_message(message) == text.encode(errors="backslashreplace").decode()


@pytest.mark.parametrize("message", [["note"], ["note", b"x"], ["note", 1], ["note", None], ["note", "a", "b"]])
def test_a_request_that_holds_no_text_breaks_the_link(message: list[object]) -> None:
    with pytest.raises(link.LinkError):
        link.note_from_message(message)


class Listener:
    """A robot that only listens, within the limits of one attempt."""

    def __init__(self) -> None:
        self.notes = Notes()

    def observe(self) -> Observation:
        raise NotImplementedError

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        raise NotImplementedError

    def scene(self) -> Scene:
        raise NotImplementedError

    def note(self, text: str) -> None:
        self.notes.add(text)


@pytest.fixture(scope="module")
def host() -> Iterator[PolicyHost]:
    with PolicyHost() as started:
        yield started


def heard(host: PolicyHost, folder: Path, code: str) -> tuple[PolicyEnd, str]:
    """Return how a policy ended that does this, and its notes."""
    folder.chmod(0o755)
    (folder / "policy.py").write_text(f"def run(robot, params):\n    {code}\n")
    listener = Listener()
    return host.run(folder, "policy.py", {}, listener), listener.notes.text


RAW = "import os, msgpack; end = robot._end; end.send({}); end.recv(65536)"


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        ("robot.note('pushed'); robot.note('{\"move\": 1}')", "finished", 'pushed\n{"move": 1}'),
        ("robot.note('')", "finished", ""),
        ("robot.note('a\\x00b\\x1b[2Jc')", "finished", "a\ufffdb\ufffd[2Jc"),
        ("robot.note('\\ud800')", "finished", r"\ud800"),
        ("robot.note('x' * 10_000_000)", "finished", "x" * link.NOTE_BYTES + "\n" + CUT),
        ("[robot.note('y' * 100) for _ in range(900)]", "finished", None),
        ("while True: robot.note('z')", "hung", None),
        ("robot.note(b'bytes')", "crashed", ""),
        ("robot.note(7)", "crashed", ""),
        ("robot.note(None)", "crashed", ""),
        (RAW.format("msgpack.packb(['note', 'q' * 60_000])"), "finished", "q" * link.NOTE_BYTES + "\n" + CUT),
        (RAW.format("msgpack.packb(['note', b'bytes'])"), "crashed", ""),
        (RAW.format("msgpack.packb(['note', ['a'] * 9])"), "crashed", ""),
        (RAW.format("b'\\x92\\xa4note\\xa2\\xff\\xfe'"), "crashed", ""),
    ],
)
def test_whatever_a_policy_leaves_its_notes_stay_text_within_the_limit(
    host: PolicyHost, tmp_path: Path, code: str, kind: str, said: str | None
) -> None:
    end, text = heard(host, tmp_path, code)
    assert end.kind == kind, end
    assert said is None or text == said
    assert len(text.encode()) <= link.NOTE_BYTES + 1 + len(CUT)
