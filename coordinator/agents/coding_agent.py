"""A coding agent as a researcher: a fresh clone, a caged run, a look at what it left, and its next try if need be.

- It blocks for as long as the agent thinks, minutes or more: call it from a thread of its own (see `lanes`).
- A proposal counts however the run ended: a run that was cut short may have left a good change.
- Each run's output is kept as it came, for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.agents import watch
from coordinator.agents.admission import Surface, admit
from coordinator.agents.cage import Caged, launch
from coordinator.agents.calls import Book, Patience, Provider
from coordinator.agents.clients import Client, Said, read_line
from coordinator.agents.dev_trials import DevTrials
from coordinator.agents.pack import Robots, TaskNotes, build
from coordinator.agents.prices import Prices
from coordinator.agents.proxy import ModelProxy
from coordinator.agents.purse import Purse
from coordinator.agents.scratch import scratch
from coordinator.agents.shelf import TRIALS
from coordinator.agents.transcripts import next_path
from coordinator.agents.window import Window
from coordinator.agents.worktree import Worktree
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, ResearchContext
from policies.interface import Array

TRIES = 3
LINE = 300  # characters of a reason


class AgentFailed(CoordinatorError):
    """An agent brought no proposal; the message is one clear line."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        """Say whether it would fail again: a refused key, a spent budget, a program that is not there."""
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class Model:
    """Which model, where it is, and what asking it may cost."""

    name: str
    provider: Provider
    purse: Purse
    prices: Prices
    book: Book
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True)
class Assignment:
    """What an agent works on."""

    notes: TaskNotes
    beside: Mapping[str, bytes]  # what it may read beside the policy, by path: the interface and the skills
    starts: Array  # of all splits, to find copies of them; see `admission.coordinates`
    robots: Callable[[], Robots] = Robots

    def surface(self, context: ResearchContext) -> Surface:
        """Return what may be changed now."""
        return Surface(self.notes.policy, context.files, self.starts)

    def tree(self, context: ResearchContext) -> dict[str, bytes]:
        """Return the work tree's files by path."""
        own = {f"policies/{self.notes.policy}/{name}": data for name, data in context.files.items()}
        return {**self.beside, **own}


@dataclass(frozen=True)
class Fleet:
    """The robots, as far as an agent may ask for them."""

    window: Window
    run: Path  # the campaign's folder

    def trials(self, work: Assignment, context: ResearchContext, folder: Path, place: str) -> DevTrials:
        """Return the tool for one run of an agent; see `DevTrials` for `folder` and `place`."""
        return DevTrials(self.window, context, work.surface(context), work.tree(context), self.run, folder, place)


class CodingAgent:
    """One lane with a program for an agent."""

    def __init__(
        self,
        name: str,
        client: Client,
        programs: Mapping[str, Path],
        model: Model,
        assignment: Assignment,
        folder: Path,
        limits: watch.Watch | None = None,
        unsafe: bool = False,
        shows: Callable[[Path], Mapping[str, Path]] | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        """Prepare; `folder` keeps transcripts, `programs` is what the client's row found.

        `shows` makes files in a run's folder that the agent may read, and returns where they lie in the cage; with
        `fleet` it makes the program too by which the agent asks for attempts.
        """
        self.name = name
        self._client, self._programs, self._model, self._assignment = client, programs, model, assignment
        self._folder, self._limits, self._unsafe = folder, limits or watch.Watch(), unsafe
        self._shows, self._fleet = shows, fleet
        self.stop: Callable[[], str | None] = lambda: None

    def play(self, context: ResearchContext) -> Play | None:
        """Propose no play."""
        return None

    def propose(self, context: ResearchContext) -> Proposal:
        """Return the agent's change.

        Raises:
            AgentFailed: it brought none in all its tries, or went on in vain; says why in one line.
        """
        why = context.refused
        for number in range(TRIES):
            try:
                return self._try(context, why or None)
            except ProposalRefused as error:
                why = str(error)
            if number + 1 < TRIES and self.stop() is not None:
                break
        raise AgentFailed(f"{self.name} brought nothing that can be tested: {why}")

    def _try(self, context: ResearchContext, refused: str | None) -> Proposal:
        with scratch() as folder:
            return self._run(folder, context, refused)

    def _run(self, folder: Path, context: ResearchContext, refused: str | None) -> Proposal:
        tree = Worktree(folder)
        tree.make(self._assignment.tree(context))
        model = self._model
        model.purse.reopen()
        with ModelProxy(
            folder / "m.sock", self.name, model.provider, model.purse, model.prices, model.book, model.patience
        ) as proxy, self._transcript() as transcript:  # fmt: skip
            left = model.purse.left(time.monotonic())
            prompt = build(self._assignment.notes, context, left, self._assignment.robots(), refused)
            start = launch(self._caged(folder, tree), self._client.arguments(model.name, prompt), self._unsafe)
            trials = self._trials(folder, context, proxy)
            ended = watch.run(start, self._limits, transcript.line, lambda: self._in_vain(proxy), lambda: proxy.heard_s)
            if trials is not None:
                trials.closed = True
            proxy.hang_up()
            in_vain = self._in_vain(proxy)
        try:
            return admit(tree.edits(), self._assignment.surface(context))
        except ProposalRefused as error:
            self._explain(ended, transcript.failed, in_vain, error)
            raise

    def _trials(self, folder: Path, context: ResearchContext, proxy: ModelProxy) -> DevTrials | None:
        """Let the agent ask for attempts through its proxy."""
        if self._fleet is None:
            return None
        trials = self._fleet.trials(self._assignment, context, folder / "trials", TRIALS)
        trials.stop, trials.alive = lambda: self._in_vain(proxy), proxy.alive
        proxy.lab = trials.by_http
        return trials

    def _explain(self, ended: watch.Ended, failed: str, in_vain: str | None, refused: ProposalRefused) -> None:
        """Raise where the reason lies with the run, not with the change."""
        if in_vain is not None:
            raise AgentFailed(f"{self.name} stopped: {in_vain}", lasting=True) from refused
        if ended.why:
            raise AgentFailed(f"{self.name} was {ended.why}") from refused
        if ended.code:
            said = failed or ended.last_words or "it said nothing"
            line = " ".join(said.split())[-LINE:]
            raise AgentFailed(f"{self.name} ended with code {ended.code}: {line}") from refused

    def _in_vain(self, proxy: ModelProxy) -> str | None:
        return self.stop() or proxy.fault or self._model.purse.refused

    def _caged(self, folder: Path, tree: Worktree) -> Caged:
        home = {}
        for place, text in self._client.home(self._model.name).items():
            path = folder / place.replace("/", "_")
            path.write_text(text)
            home[place] = path
        readable = {**self._programs, **(self._shows(folder) if self._shows else {})}
        return Caged(tree.path, folder / "m.sock", readable, self._client.environment, home)

    def _transcript(self) -> Transcript:
        return Transcript(next_path(self._folder, self.name), self._client)


class Transcript:
    """One run's output, line by line as it came, and what of it tells of failure."""

    def __init__(self, path: Path, client: Client) -> None:
        """Write to a new file at `path`."""
        self.path, self._client = path, client
        self.failed = ""
        self.said: list[Said] = []

    def __enter__(self) -> Transcript:
        self._file = self.path.open("w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def line(self, text: str) -> None:
        """Keep a line."""
        self._file.write(text + "\n")
        self._file.flush()
        for said in read_line(self._client, text):
            self.said.append(said)
            if said.kind == "failed":
                self.failed = said.text
