"""What a language model's answer says that it cost, read from the three protocols that agents speak.

- Tokens are counted in six categories that do not overlap: fresh input, input read from the vendor's cache, input
  written to it, visible output, reasoning, and whatever a vendor counts in its total but in none of these.
- A figure that is no whole number of tokens counts as none: an answer is never trusted to be well formed.
- A `Meter` is fed the parsed events of a stream, or one whole answer. Vendors tell totals so far: the last one holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

MOST_TOKENS = 1_000_000_000  # of one call; what says more is not believed
BYTES_A_TOKEN = 3  # for answers that were cut off before they said; text and code have more bytes to a token

MESSAGES, RESPONSES, CHAT = "/v1/messages", "/v1/responses", "/v1/chat/completions"
PROTOCOLS = (MESSAGES, RESPONSES, CHAT)


@dataclass(frozen=True)
class Usage:
    """Tokens of one or of many calls."""

    fresh: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    other: int = 0
    kept_for_an_hour: int = 0  # the part of cache_write that costs more

    @property
    def total(self) -> int:
        """All tokens, in and out."""
        return self.fresh + self.cache_read + self.cache_write + self.output + self.reasoning + self.other

    def __add__(self, more: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(astuple(self), astuple(more), strict=True)))


@dataclass
class Meter:
    """What one answer has said so far of its own cost."""

    protocol: str
    told: Usage = field(default_factory=Usage)
    complete: bool = False  # the vendor's final figure has been seen
    began: bool = False  # the vendor has told what the input was
    text_bytes: int = 0  # generated text that went by

    def event(self, data: str) -> bool:
        """Take in one event's data; return whether it is the last one of its stream."""
        if data.strip() == "[DONE]":
            return True
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return self.parsed(event) if isinstance(event, dict) else False

    def parsed(self, event: Mapping[str, Any]) -> bool:
        """Take in one parsed event; return whether it is the last one of its stream."""
        return {MESSAGES: self._messages, RESPONSES: self._responses, CHAT: self._chat}[self.protocol](event)

    def whole(self, body: bytes) -> None:
        """Take in an answer that did not come as a stream."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return
        usage = _table(answer, "usage")
        if usage:
            self._tell(_READ[self.protocol](usage, Usage()))
            self.complete = True

    def guessed(self, input_at_most: int) -> Usage:
        """Return what was probably paid for beside what was told; nothing for a complete answer."""
        if self.complete:
            return Usage()
        seen = -(-self.text_bytes // BYTES_A_TOKEN)
        unsaid = max(0, seen - self.told.output - self.told.reasoning)
        return Usage(fresh=0 if self.began else input_at_most, output=unsaid)

    def _messages(self, event: Mapping[str, Any]) -> bool:
        kind = event.get("type")
        if kind == "message_start":
            self._tell(_messages(_table(_table(event, "message"), "usage"), self.told))
        elif kind == "content_block_delta":
            delta = _table(event, "delta")
            self._heard(delta.get("text"), delta.get("partial_json"), delta.get("thinking"))
        elif kind == "message_delta":
            usage = _table(event, "usage")
            if usage:
                self._tell(_messages(usage, self.told))
            self.complete = self.complete or (bool(usage) and bool(_table(event, "delta").get("stop_reason")))
        return kind == "message_stop"

    def _responses(self, event: Mapping[str, Any]) -> bool:
        kind = str(event.get("type"))
        if kind.endswith(".delta"):
            self._heard(event.get("delta"))
        last = kind in ("response.completed", "response.incomplete", "response.failed")
        usage = _table(_table(event, "response"), "usage")
        if last and usage:
            self._tell(_responses(usage, self.told))
            self.complete = True
        return last

    def _chat(self, event: Mapping[str, Any]) -> bool:
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        delta = _table(choice, "delta")
        self._heard(delta.get("content"), delta.get("reasoning_content"), *_arguments(delta))
        usage = _table(event, "usage") or _table(choice, "usage")
        if usage:
            self._tell(_chat(usage, self.told))
            self.complete = True
        return False

    def _tell(self, usage: Usage) -> None:
        self.told, self.began = usage, True

    def _heard(self, *texts: object) -> None:
        self.text_bytes += sum(len(text.encode("utf-8", "replace")) for text in texts if isinstance(text, str))


def _arguments(delta: Mapping[str, Any]) -> list[object]:
    calls = delta.get("tool_calls")
    calls = calls if isinstance(calls, list) else []
    return [_table(call, "function").get("arguments") for call in calls if isinstance(call, dict)]


def _messages(usage: Mapping[str, Any], before: Usage) -> Usage:
    """Read the usage of /v1/messages: its parts do not overlap, and what is left out stays as it was."""
    hour = _table(usage, "cache_creation").get("ephemeral_1h_input_tokens")
    details = _table(usage, "output_tokens_details")
    thought = _count(details.get("thinking_tokens"), _count(details.get("reasoning_tokens"), 0))
    output = _count(usage.get("output_tokens"), before.output + before.reasoning)
    written = _count(usage.get("cache_creation_input_tokens"), before.cache_write)
    return replace(
        before,
        fresh=_count(usage.get("input_tokens"), before.fresh),
        cache_read=_count(usage.get("cache_read_input_tokens"), before.cache_read),
        cache_write=written,
        output=output - min(thought, output),
        reasoning=min(thought, output),
        kept_for_an_hour=min(written, _count(hour, before.kept_for_an_hour)),
    )


def _responses(usage: Mapping[str, Any], _: Usage) -> Usage:
    return _overlapping(
        usage, "input_tokens", "output_tokens", _table(usage, "input_tokens_details"), "output_tokens_details"
    )


def _chat(usage: Mapping[str, Any], _: Usage) -> Usage:
    details = dict(_table(usage, "prompt_tokens_details"))
    details.setdefault("cached_tokens", usage.get("cached_tokens"))
    return _overlapping(usage, "prompt_tokens", "completion_tokens", details, "completion_tokens_details")


def _overlapping(
    usage: Mapping[str, Any], inside: str, out: str, details: Mapping[str, Any], out_details: str
) -> Usage:
    """Read a usage whose input holds what was cached, and whose output holds the reasoning."""
    all_in, all_out = _count(usage.get(inside), 0), _count(usage.get(out), 0)
    read = min(_count(details.get("cached_tokens"), 0), all_in)
    written = min(_count(details.get("cache_write_tokens"), 0), all_in - read)
    thought = min(_count(_table(usage, out_details).get("reasoning_tokens"), 0), all_out)
    other = max(0, _count(usage.get("total_tokens"), 0) - all_in - all_out)
    return Usage(all_in - read - written, read, written, all_out - thought, thought, other)


_READ = {MESSAGES: _messages, RESPONSES: _responses, CHAT: _chat}


def _table(value: object, name: str) -> Mapping[str, Any]:
    """Return the table of this name, an empty one where there is none."""
    inner = value.get(name) if isinstance(value, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


def _count(value: object, otherwise: int) -> int:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return int(value) if good else otherwise  # type: ignore[call-overload]
