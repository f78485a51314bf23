"""A scripted model that makes, one after the other, the fixes that a person would make to the naive Push-T policy.

It reads the prompt as a model would: what the incumbent already does tells which fix comes next. A fix that it has
proposed for the same incumbent before is left to whoever decides about it, and the next one is proposed.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.harness.model_server import ModelServer, Step, count_results

FILE = "policies/push_t/policy.toml"
HYPOTHESIS = "/repo/hypothesis.json"
FALSIFIER = "No more wins than losses, pair by pair, on starts that nobody has seen."
STANDS = re.compile(r"^\| (\w+) = (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Fix:
    """One idea: what it changes, and why."""

    changes: Mapping[str, str]  # parameter or idea -> its new default, as TOML has it
    sentence: str


FIXES = (
    Fix(
        {"choose_by_model": "true", "stick_height_m": "0.005"},
        "Pushes chosen by a model turn the T, and a low stick does not slip over its edge.",
    ),
    Fix({"push_speed_m_s": "0.08"}, "Slow pushes keep the T from sliding past its goal."),
    Fix(
        {"close_encoder_loop": "true", "ease_motion": "true"},
        "Lines that are closed on the encoders and eased put the stick where it was planned.",
    ),
    Fix(
        {"learn_reach": "true", "fine_last_pushes": "true", "average_looks": "true"},
        "Learning the reach, finer last pushes and averaged pictures take out what is left.",
    ),
    Fix({"most_pushes": "20"}, "More pushes finish what a dozen leave undone."),
    Fix({"travel_speed_m_s": "0.45"}, "Quicker travel leaves time for more pushes."),
)
ALL_AT_ONCE = (
    Fix({name: value for fix in FIXES for name, value in fix.changes.items()}, "All that is known to help, at once."),
)


@dataclass
class PersonModel(ModelServer):
    """The vendor whose model makes the fixes."""

    fixes: Sequence[Fix] = FIXES
    proposed: Counter[tuple[str, str]] = field(default_factory=Counter)  # incumbent, sentence
    talks: dict[str, Fix] = field(default_factory=dict)  # by what a conversation began with
    lock: threading.Lock = field(default_factory=threading.Lock)

    def steps(self, path: str, body: dict[str, Any]) -> Sequence[Step]:
        """Return what the model does in this conversation."""
        fix = self._fix(body)
        words = json.dumps({"sentence": fix.sentence, "falsifier": FALSIFIER})
        if "submit" not in {tool.get("name") for tool in body.get("tools", [])}:
            return [Step("run", content=_sed(fix.changes)), Step("write", HYPOTHESIS, words)]
        read = Step("read", FILE)
        if count_results(path, body) == 0:
            return [read]
        return [read, Step("write", FILE, _edited(_last_result(body), fix.changes)), Step("submit", content=words)]

    def _fix(self, body: dict[str, Any]) -> Fix:
        text = _prompt(body)
        with self.lock:
            name = hashlib.sha256(text.encode()).hexdigest()
            if name not in self.talks:
                stands = dict(STANDS.findall(text))
                incumbent = json.dumps(stands, sort_keys=True)
                open_fixes = [fix for fix in self.fixes if not _stands(fix, stands)] or [self.fixes[-1]]
                fix = min(open_fixes, key=lambda item: self.proposed[incumbent, item.sentence])
                self.proposed[incumbent, fix.sentence] += 1
                self.talks[name] = fix
            return self.talks[name]


def _stands(fix: Fix, stands: Mapping[str, str]) -> bool:
    return all(_same(stands.get(name, ""), value) for name, value in fix.changes.items())


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one.lower() == other.lower()


def _prompt(body: dict[str, Any]) -> str:
    """Return the first message with the task in it: all that the model was told before it did anything."""
    told = body.get("input") or body.get("messages", [])
    texts = [text for item in told if item.get("role") == "user" for text in _texts(item.get("content"))]
    return next((text for text in texts if "## The incumbent" in text), "")


def _texts(content: object) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [str(part.get("text", "")) for part in content or [] if isinstance(part, dict)]  # type: ignore[attr-defined]


def _last_result(body: dict[str, Any]) -> str:
    """Return the first result of a tool, which is the file that was read."""
    parts = [part for item in body["messages"] if isinstance(item["content"], list) for part in item["content"]]
    return next(str(part["content"]) for part in parts if part.get("type") == "tool_result")


def _edited(text: str, changes: Mapping[str, str]) -> str:
    for name, value in changes.items():
        text = re.sub(rf"(\[\w+\.{name}\]\n)default = \S+", rf"\g<1>default = {value}", text)
    return text


def _sed(changes: Mapping[str, str]) -> str:
    rules = [rf"/\.{name}\]/,/^default/s/^default = .*/default = {value}/" for name, value in changes.items()]
    parts = " ".join(f"-e '{rule}'" for rule in rules)
    return f"cd /repo && sed -i {parts} {FILE}"
