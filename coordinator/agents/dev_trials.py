"""What an agent may try on the fleet while it works: a few attempts of its unfinished change on development starts.

- The agent says how many and no more: the lab draws the starts. Its change passes the checks of a proposal first, but
  for the sentence that it need not have yet; what fails them is refused with one sentence and costs nothing.
- An answer comes within `WAIT_S`, with what is known then; the rest is there to be asked for. Who waits is not silent.
- What came of them decides nothing. It is told in words, and shown as any attempt is: film strips, traces, and what the
  policy saw.
"""

from __future__ import annotations

import base64
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.agents.admission import HYPOTHESIS, PLAIN_FILE, Edit, Surface, admit_files
from coordinator.agents.pack import fence
from coordinator.agents.trial_files import Told, film_strip, observations, played, show, traces
from coordinator.agents.window import Request, Window, attempts_in_words
from coordinator.evolution.ideas import ProposalRefused, ResearchContext
from edge.records import UNTRIED

TOOL = "dev_trials"
WAIT_S, TICK_S = 50.0, 0.5  # the shells of some agents end a command after two minutes
NOTES_BYTES = 1 << 10
MOST_REFUSALS = 20  # of changes, in a run: looking at one takes time that others need
WORDS = frozenset({"attempts"})
ONLY = f"{TOOL} takes a number of attempts and nothing else; the lab draws the development starts."
DESCRIPTION = (
    "Run your unfinished change on the robots, on development starts that the lab draws. It decides nothing; use it to"
    " see what your change does. Without a number it says what came of the attempts that you asked for last."
)
OFFERED: dict[str, Any] = {
    "name": TOOL,
    "description": DESCRIPTION,
    "input_schema": {"type": "object", "properties": {"attempts": {"type": "integer"}}},
}


@dataclass(frozen=True)
class Answer:
    """What an agent is told."""

    text: str
    pictures: Sequence[bytes] = ()  # JPEGs: a film strip and traces of each attempt that can be looked at


@dataclass
class DevTrials:
    """The tool, as one run of an agent has it; safe to use from several threads."""

    window: Window
    context: ResearchContext
    surface: Surface
    given: Mapping[str, bytes]  # the work tree as the agent was given it, by path
    run: Path  # the campaign's folder
    folder: Path  # where films, traces and observations are put
    place: str  # how the agent calls it; empty where it cannot look into it
    stop: Callable[[], str | None] = lambda: None
    alive: Callable[[], None] = lambda: None  # told all the time while an agent waits
    closed: bool = False  # the agent's run is over
    refusals: int = 0  # of changes
    _answers: dict[int, Answer] = field(default_factory=dict)  # by request, once it is over
    _asking: threading.Lock = field(default_factory=threading.Lock)
    _showing: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, words: Mapping[str, object], edits: Callable[[], Sequence[Edit]]) -> Answer:
        """Ask for attempts where `words` says how many, wait a little, and say what came of what was asked for last."""
        try:
            if "attempts" in words or not words.keys() <= WORDS:
                self._ask(words, edits)
            return self._came()
        except ProposalRefused as error:
            return Answer(f"Refused: {error}")
        except (OSError, sqlite3.Error):
            return Answer("The lab cannot look at your attempts now; ask again without a number.")

    def by_http(self, body: bytes) -> str:
        """Answer what the program in an agent's cage sends: a number or none, and all files of its work tree."""
        try:
            asked = json.loads(body)
            tree = {str(path): _file(entry) for path, entry in asked.pop("files").items()}
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return f"Refused: {ONLY}"
        return self.answer(asked, lambda: list(self._edits(tree))).text

    def _came(self) -> Answer:
        request = self.window.last
        if request is None:
            return Answer(f"You have asked for no attempts yet. {self._left()}")
        if not self._over(request):
            return Answer(self._still(request))
        with self._showing:  # the pictures are made once, however often and by how many it is asked
            if request.number not in self._answers:
                self._answers[request.number] = self._told(request)
            return self._answers[request.number]

    def _ask(self, words: Mapping[str, object], edits: Callable[[], Sequence[Edit]]) -> None:
        attempts = words.get("attempts")
        if words.keys() != WORDS or not isinstance(attempts, int) or isinstance(attempts, bool):
            raise ProposalRefused(ONLY)
        with self._asking:
            why = "your run is over." if self.closed else self.window.why_not(attempts)
            if not why:
                why = self.window.ask(attempts, self._admitted(edits), self.context)
        if why:
            raise ProposalRefused(why)

    def _admitted(self, edits: Callable[[], Sequence[Edit]]) -> dict[str, bytes]:
        if self.refusals >= MOST_REFUSALS:
            raise ProposalRefused("too many changes were refused in this run; finish yours and hand it in.")
        try:
            return admit_files(edits(), self.surface)
        except ProposalRefused:
            self.refusals += 1
            raise

    def _over(self, request: Request) -> bool:
        until_s = time.monotonic() + WAIT_S
        while not self.window.wait(request, TICK_S):
            self.alive()
            if time.monotonic() > until_s or self.closed or self.stop() is not None:
                return False
        return True

    def _still(self, request: Request) -> str:
        came = len(played(self.run, request.bundle)) if request.bundle else 0
        return (
            f"Still running: {came} of {request.attempts} attempts are there. Go on with something else or wait, and"
            " ask again without a number."
        )

    def _told(self, request: Request) -> Answer:
        self.refusals += bool(request.refused)
        if request.refused or not request.bundle:
            return Answer(f"Refused: {request.refused or 'this assignment is over.'}")
        found = [told for told in played(self.run, request.bundle) if told.trial.cause not in UNTRIED]
        shown = [self._one(f"own-{request.number}-{number}", told) for number, told in enumerate(found, 1)]
        lines = [f"{len(found)} of {request.attempts} attempts of your change were made; they decide nothing."]
        for number, (text, _) in enumerate(shown, 1):
            lines.append(f"Attempt {number}: {text}")
        lines.append(self._left())
        return Answer("\n".join(lines), [picture for _, pictures in shown for picture in pictures])

    def _left(self) -> str:
        return f"Left for this proposal: {attempts_in_words(self.window.left)}."

    def _one(self, name: str, told: Told) -> tuple[str, Sequence[bytes]]:
        """Return one attempt in words and in pictures, and put what can be looked at into the folder."""
        trial = told.trial
        ended = f"{trial.outcome} ({trial.cause})" if trial.cause else trial.outcome
        lines = [f"{ended}, progress {trial.progress:.2f}, {trial.trial_s:.1f} s, on {trial.start_id}"]
        said = [told.detail, *(f"{key} = {value}" for key, value in told.measures.items()), told.notes]
        text = "\n".join(line for line in said if line)
        lines += [fence(text, NOTES_BYTES)] if text else []
        found = show(self.run, trial)
        if found is None:
            return "\n".join([*lines, "there is no recording of it to look at"]), ()
        pictures = (film_strip(found), traces(found))
        files = {"film.jpg": pictures[0], "traces.jpg": pictures[1], "json": observations(found)}
        names = {end: f"{name}{'.' if end == 'json' else '-'}{end}" for end in files}
        for end, data in files.items():
            (self.folder / names[end]).write_bytes(data)
        if self.place:
            lines.append("look at " + ", ".join(f"{self.place}/{name}" for name in names.values()))
        return "\n".join(lines), pictures

    def _edits(self, tree: Mapping[str, tuple[str, bytes]]) -> Iterator[Edit]:
        """Yield every file of a work tree that is not as the agent was given it."""
        for path, (mode, data) in sorted(tree.items()):
            if path != HYPOTHESIS and (self.given.get(path) != data or mode != PLAIN_FILE):
                yield Edit(path, mode, data)
        yield from (Edit(path, PLAIN_FILE, None) for path in sorted(self.given) if path not in tree)


def _file(entry: object) -> tuple[str, bytes]:
    """Return the mode and the content of a file as it was sent.

    Raises:
        TypeError, ValueError: it is not as it should be.
    """
    if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
        raise TypeError
    return entry[0], base64.b64decode(entry[1], validate=True)
