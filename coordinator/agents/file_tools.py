"""The tools of a model by API: they read and change a table of files in memory, and hand the change in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.agents.admission import HYPOTHESIS, PLAIN_FILE, Edit, Surface, admit
from coordinator.agents.cage import WORK
from coordinator.evolution.ideas import Proposal, ProposalRefused

LONGEST_RESULT = 60_000  # characters of a tool's result
NAME = {"name": {"type": "string", "description": "path in the work tree"}}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "read_file",
        "description": "Read a file of the work tree.",
        "input_schema": {"type": "object", "properties": NAME, "required": ["name"]},
    },
    {
        "name": "write_file",
        "description": "Write a whole file of the policy.",
        "input_schema": {
            "type": "object",
            "properties": {**NAME, "content": {"type": "string"}},
            "required": ["name", "content"],
        },
    },
    {
        "name": "replace",
        "description": "Replace a text that stands once in a file of the policy.",
        "input_schema": {
            "type": "object",
            "properties": {**NAME, "old": {"type": "string"}, "new": {"type": "string"}},
            "required": ["name", "old", "new"],
        },
    },
    {
        "name": "submit",
        "description": "Hand in the change with what it tests and what would prove that wrong, one sentence each.",
        "input_schema": {
            "type": "object",
            "properties": {"sentence": {"type": "string"}, "falsifier": {"type": "string"}},
            "required": ["sentence", "falsifier"],
        },
    },
]


@dataclass
class FileTools:
    """The files of one conversation."""

    files: dict[str, bytes]  # by path in the work tree
    surface: Surface
    changed: set[str] = field(default_factory=set)
    refusals: int = 0  # of what was handed in

    def do(self, tool: str, given: object) -> tuple[str, Proposal | None]:
        """Do what the model asks for; return the result that it is told, and the proposal once one is admitted."""
        values = given if isinstance(given, Mapping) else {}
        words = {name: value for name, value in values.items() if isinstance(value, str)}
        try:
            return ("", self._submit(words)) if tool == "submit" else (self._edit(tool, words), None)
        except ProposalRefused as error:
            self.refusals += 1
            return f"Refused: {error}", None
        except KeyError as error:
            return f"Refused: {tool} needs {error}.", None

    def edits(self) -> list[Edit]:
        """Return what was written so far."""
        return [Edit(name, PLAIN_FILE, self.files[name]) for name in sorted(self.changed)]

    def _edit(self, tool: str, words: Mapping[str, str]) -> str:
        name = words["name"].removeprefix(f"{WORK}/")
        if tool == "write_file":
            return self._write(name, words["content"])
        if name not in self.files:
            return f"Refused: there is no file {name!r:.100}; there are {', '.join(sorted(self.files))}."
        text = self.files[name].decode("utf-8", "replace")
        if tool == "read_file":
            return text[:LONGEST_RESULT]
        if tool != "replace":
            return f"Refused: there is no tool {tool!r:.40}."
        found = text.count(words["old"]) if words["old"] else 0
        if found != 1:
            return f"Refused: the old text stands {found} times in {name}; it must stand there once."
        return self._write(name, text.replace(words["old"], words["new"]))

    def _write(self, name: str, text: str) -> str:
        self.files[name] = text.encode("utf-8", "replace")
        self.changed.add(name)
        return "Written."

    def _submit(self, words: Mapping[str, str]) -> Proposal:
        hypothesis = json.dumps({"sentence": words["sentence"], "falsifier": words["falsifier"]}).encode()
        return admit([*self.edits(), Edit(HYPOTHESIS, PLAIN_FILE, hypothesis)], self.surface)
