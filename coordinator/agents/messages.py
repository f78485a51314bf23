"""A model by its vendor's own library as a researcher: it reads and writes the policy's files with tools of ours.

- No program of the agent's runs but in a dry run of its policy, which is caged: its tools change a table of files in
  memory, and the change is admitted like any other agent's.
- It asks through the same proxy: the key, the count and the budgets are there. The prompt is marked to be kept in the
  vendor's cache, and so is the conversation's end, so that each turn pays for what is new.
- Film strips of development trials are shown as pictures where the lab offers some.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anthropic
import httpx2
from anthropic.types import Message

from coordinator.agents.coding_agent import TRIES, AgentFailed, Assignment, Fleet, Model
from coordinator.agents.dev_trials import OFFERED, TOOL, Answer, DevTrials
from coordinator.agents.file_tools import TOOLS, FileTools
from coordinator.agents.lab_tools import LabTools
from coordinator.agents.pack import build
from coordinator.agents.proxy import ModelProxy
from coordinator.agents.scratch import scratch
from coordinator.agents.transcripts import next_path
from coordinator.evolution.ideas import Play, Proposal, ResearchContext

LONGEST_ANSWER = 16_000  # tokens
TURNS = 60
RETRIES = 4
TIMEOUT_S = 600.0
WATCH_S = 0.1
PICTURES = 4
CACHED = {"cache_control": {"type": "ephemeral"}}
SYSTEM = "You are a careful researcher in a robot lab. You work with the tools that you have and end with `submit`."


class MessagesResearcher:
    """One lane with a model by API."""

    def __init__(
        self,
        name: str,
        model: Model,
        assignment: Assignment,
        folder: Path,
        pictures: Callable[[ResearchContext], Sequence[bytes]] | None = None,
        wall_s: float = 1800.0,
        run: Path | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        """Prepare; `folder` keeps transcripts, `pictures` returns JPEG film strips of development trials.

        Args:
            wall_s: how long one conversation may take.
            run: the folder of the campaign whose records may be asked; none without it.
            fleet: where attempts of an unfinished change may be asked for, which needs `run` too.
        """
        self.name, self._run, self._fleet = name, run, fleet
        self._model, self._assignment, self._folder, self._pictures = model, assignment, folder, pictures
        self._wall_s = wall_s
        self.stop: Callable[[], str | None] = lambda: None

    def play(self, context: ResearchContext) -> Play | None:
        """Propose no play."""
        return None

    def propose(self, context: ResearchContext) -> Proposal:
        """Return the model's change.

        Raises:
            AgentFailed: it brought none, or went on in vain; says why in one line.
        """
        model = self._model
        model.purse.reopen()
        path = next_path(self._folder, self.name)
        with (
            scratch() as folder,
            path.open("w", encoding="utf-8") as transcript,
            self._proxy(folder / "m.sock") as proxy,
            _client(proxy.path) as client,
        ):
            tools = FileTools(self._assignment.tree(context), self._assignment.surface(context))
            until_s = time.monotonic() + self._wall_s
            lab = self._lab(folder)
            trials = None if lab is None else self._trials(context, lab.folder / "trials", until_s)
            talk = _Talk(self, model, client, proxy, transcript, tools, until_s, lab, trials)
            with talk.watched():
                return talk.proposal(self._first_message(context))

    def _proxy(self, path: Path) -> ModelProxy:
        model = self._model
        return ModelProxy(path, self.name, model.provider, model.purse, model.prices, model.book, model.patience)

    def _lab(self, folder: Path) -> LabTools | None:
        if self._run is None:
            return None
        policy = self._assignment.notes.policy
        return LabTools(self._run, policy, folder / "lab", folder / "m.sock", lambda: self.stop())

    def _trials(self, context: ResearchContext, folder: Path, until_s: float) -> DevTrials | None:
        if self._fleet is None:
            return None
        trials = self._fleet.trials(self._assignment, context, folder, "")
        trials.stop = lambda: self.stop() or ("its time is over" if time.monotonic() > until_s else None)
        return trials

    def _first_message(self, context: ResearchContext) -> list[dict[str, Any]]:
        left = self._model.purse.left(time.monotonic())
        text = build(self._assignment.notes, context, left, self._assignment.robots(), context.refused or None)
        pictures = list(self._pictures(context))[:PICTURES] if self._pictures else []
        return [*map(_picture, pictures), {"type": "text", "text": text, **CACHED}]


@dataclass
class _Talk:
    """One conversation."""

    owner: MessagesResearcher
    model: Model
    client: anthropic.Anthropic
    proxy: ModelProxy
    transcript: TextIO
    tools: FileTools
    until_s: float
    lab: LabTools | None = None
    trials: DevTrials | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End what is asked of the model as soon as it is in vain: an answer that does not come checks nothing."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(WATCH_S):
                if self.owner.stop() is not None or time.monotonic() > self.until_s:
                    self.proxy.hang_up()

        watcher = threading.Thread(target=watch, name=f"watch of {self.owner.name}", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def proposal(self, question: list[dict[str, Any]]) -> Proposal:
        """Talk until a change is handed in and admitted."""
        name = self.owner.name
        messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
        for _ in range(TURNS):
            answer = self._ask(messages)
            results, proposal = self._results(answer)
            if proposal is not None:
                return proposal
            if self.tools.refusals >= TRIES:
                why = str(results[-1].get("content", "nothing was handed in")).removeprefix("Refused: ")
                raise AgentFailed(f"{name} brought nothing that can be tested: {why}")
            results[-1].update(CACHED)
            messages += [{"role": "assistant", "content": _said(answer)}, {"role": "user", "content": results}]
            _keep_two_marks(messages)
        raise AgentFailed(f"{name} talked for {TURNS} turns and handed nothing in")

    def _results(self, answer: Message) -> tuple[list[dict[str, Any]], Proposal | None]:
        results: list[dict[str, Any]] = []
        for call in answer.content:
            if call.type != "tool_use":
                continue
            told, proposal = self._do(call.name, call.input)
            if proposal is not None:
                return [], proposal
            results.append({"type": "tool_result", "tool_use_id": call.id, "content": _content(told)})
        if not results:
            self.tools.refusals += 1
            results = [{"type": "text", "text": "Nothing was handed in: make your change and call submit."}]
        return results, None

    def _do(self, tool: str, given: object) -> tuple[Answer, Proposal | None]:
        words = given if isinstance(given, Mapping) else {}
        if tool == TOOL and self.trials is not None:
            return self.trials.answer(words, self.tools.edits), None
        said = None if self.lab is None else self.lab.do(tool, words, self.tools.files)
        text, proposal = self.tools.do(tool, given) if said is None else (said, None)
        return Answer(text), proposal

    def _ask(self, messages: Sequence[Mapping[str, Any]]) -> Message:
        """Return a whole answer; one that broke off is asked for again.

        Raises:
            AgentFailed: there is none to be had, or it is in vain to go on.
        """
        failure = ""
        for _ in range(RETRIES):
            self._check()
            try:
                answer = self._stream(messages)
            except anthropic.APIStatusError as error:
                failure = f"the model answered {error.status_code}"
                self._check()
                if error.status_code < 429 and error.status_code not in (408, 409):
                    break
                self._wait(error.response.headers.get("retry-after"))
            except (anthropic.AnthropicError, httpx2.HTTPError, ValueError) as error:
                failure = f"the model's answer broke off ({type(error).__name__})"
            else:
                if answer.stop_reason is not None:
                    return answer
                failure = "the model's answer broke off"
        self._check()
        raise AgentFailed(f"{self.owner.name} gave up: {failure}")

    def _stream(self, messages: Sequence[Mapping[str, Any]]) -> Message:
        with self.client.messages.stream(
            model=self.model.name,
            max_tokens=LONGEST_ANSWER,
            system=[{"type": "text", "text": SYSTEM}],
            tools=self._offered(),  # type: ignore[arg-type]
            messages=messages,  # type: ignore[arg-type]
        ) as stream:
            for _ in stream:
                self._check()
            answer = stream.get_final_message()
        self.transcript.write(answer.model_dump_json() + "\n")
        self.transcript.flush()
        return answer

    def _offered(self) -> list[dict[str, Any]]:
        return [*TOOLS, *(self.lab.offered if self.lab else ()), *([OFFERED] if self.trials else ())]

    def _check(self) -> None:
        why = self._in_vain()
        if why is not None:
            raise AgentFailed(f"{self.owner.name} stopped: {why}", lasting=True)
        if time.monotonic() > self.until_s:
            raise AgentFailed(f"{self.owner.name} was ended after its time")

    def _in_vain(self) -> str | None:
        return self.owner.stop() or self.proxy.fault or self.model.purse.refused

    def _wait(self, seconds: str | None) -> None:
        try:
            wait_s = min(float(seconds or 1.0), self.model.patience.retry_after_s)
        except ValueError:
            wait_s = 1.0
        until_s = time.monotonic() + wait_s
        while time.monotonic() < until_s and self._in_vain() is None:
            time.sleep(0.05)


def _client(path: Path) -> anthropic.Anthropic:
    """Return a client that speaks through the proxy's socket; it has no key, and leaves repeating to `_ask`."""
    transport = httpx2.HTTPTransport(uds=str(path))
    http = anthropic.DefaultHttpxClient(transport=transport, timeout=TIMEOUT_S)
    return anthropic.Anthropic(base_url="http://model", api_key="sk-placeholder", http_client=http, max_retries=0)


def _said(answer: Message) -> list[dict[str, Any]]:
    """Return an answer as the vendor wants it back."""
    kept = {"text": ("text",), "tool_use": ("id", "name", "input"), "thinking": ("thinking", "signature")}
    kept["redacted_thinking"] = ("data",)
    parts = [(part.type, part.model_dump()) for part in answer.content]
    said = [{"type": kind, **{name: part[name] for name in kept[kind]}} for kind, part in parts if kind in kept]
    return said or [{"type": "text", "text": "(nothing)"}]


def _content(answer: Answer) -> str | list[dict[str, Any]]:
    """Return what a tool says as the vendor wants it."""
    pictures = [_picture(jpeg) for jpeg in answer.pictures[:PICTURES]]
    return [{"type": "text", "text": answer.text}, *pictures] if pictures else answer.text


def _picture(jpeg: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/jpeg", "data": base64.b64encode(jpeg).decode()}
    return {"type": "image", "source": source}


def _keep_two_marks(messages: Sequence[Mapping[str, Any]]) -> None:
    """Leave the marks for the cache at the prompt and at the last two ends only: the vendor allows four."""
    for message in [item for item in messages[1:] if item["role"] == "user"][:-2]:
        for part in message["content"]:
            part.pop("cache_control", None)
