"""What an agent asks of a model, and how that is narrowed before it is sent on.

- The answer may be no longer than what is left of the budget pays for.
- Tools that run at the vendor's are taken out: they would be a way round the cage, and are billed apart from tokens.
- So are wishes that cost more than the table of prices says. What the vendor would fetch from a link, or has kept from
  an earlier call so that nobody here can count it, is refused.
- A stream of chat completions is asked to tell its usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.agents.prices import Price
from coordinator.agents.purse import BudgetSpent, Cost, Left
from coordinator.agents.usage import CHAT, MESSAGES, PROTOCOLS, RESPONSES
from coordinator.errors import CoordinatorError

FEWEST_BYTES_A_TOKEN = 2  # of a request; its JSON has three to four in English and in code
LONGEST_ANSWER = 32_000  # tokens, where a request does not say
SHORTEST_ANSWER = 256  # tokens; less is not worth a call
AT_THE_VENDORS = (
    "web_search", "web_fetch", "code_execution", "code_interpreter", "mcp", "file_search", "image_generation",
    "computer", "tool_search",
)  # fmt: skip
DEEPEST_GROUP = 8  # of tools in tools
DEARER = ("service_tier", "speed", "inference_geo", "background", "mcp_servers", "web_search_options")
KEPT_THERE = ("previous_response_id", "conversation", "prompt")
PICTURES = frozenset({"image", "document", "image_url", "input_image", "input_file", "file", "input_audio"})
LENGTHS = {
    MESSAGES: ("max_tokens",),
    RESPONSES: ("max_output_tokens",),
    CHAT: ("max_completion_tokens", "max_tokens"),
}


class AskRefused(CoordinatorError):
    """A request that is not sent on; the message says why."""


@dataclass(frozen=True)
class Ask:
    """One request for an answer."""

    protocol: str
    model: str
    stream: bool
    input_at_most: int  # tokens
    output_at_most: int  # tokens
    content: Mapping[str, Any]

    def cost_at_most(self, price: Price) -> Cost:
        """Return what this may cost."""
        nano = self.input_at_most * price.dearest_input + self.output_at_most * price.output
        return Cost(self.input_at_most + self.output_at_most, nano)

    def body(self) -> bytes:
        """Return the request as it is sent on."""
        return json.dumps(self.content, ensure_ascii=False).encode("utf-8", "surrogatepass")


def read_ask(path: str, body: bytes) -> Ask:
    """Return the request in a body that was sent to `path`, without the vendor's own tools.

    Raises:
        AskRefused: another path, or no JSON object with a model.
    """
    protocol = path.partition("?")[0]
    if protocol not in PROTOCOLS:
        raise AskRefused(f"this proxy answers {', '.join(PROTOCOLS)} only")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AskRefused("the request is not JSON") from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, str) or not model:
        raise AskRefused("the request names no model")
    kept = [name for name in KEPT_THERE if content.get(name) is not None]
    if kept:
        raise AskRefused(f"{kept[0]} is not sent on: send the whole conversation, so that it can be counted")
    if any(_is_link(part) for part in _parts([content.get("messages"), content.get("input")])):
        raise AskRefused("pictures and files are sent as they are, not as links")
    content = _without_vendors_tools(content)
    stream = content.get("stream") is True
    if protocol == CHAT and stream:
        options = content.get("stream_options")
        content["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    asked = [content[name] for name in LENGTHS[protocol] if _is_length(content.get(name))]
    longest = min(asked, default=LONGEST_ANSWER)
    choices = content.get("n", 1)
    if protocol == CHAT and choices not in (1, None):
        raise AskRefused("ask for one answer, not for several")
    return Ask(protocol, model, stream, -(-len(body) // FEWEST_BYTES_A_TOKEN), longest, content)


def narrowed(ask: Ask, price: Price, left: Left) -> Ask:
    """Return the request with an answer that is no longer than what is left pays for.

    Raises:
        BudgetSpent: not even a short answer is paid for, or one that is shorter than the thinking that was asked for.
    """
    longest = ask.output_at_most
    if left.tokens is not None:
        longest = min(longest, left.tokens - ask.input_at_most)
    if left.nano_usd is not None and price.output:
        longest = min(longest, (left.nano_usd - ask.input_at_most * price.dearest_input) // price.output)
    thinking = ask.content.get("thinking")
    thought = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    shortest = min(ask.output_at_most, SHORTEST_ANSWER) + (int(thought) if thought and _is_length(thought) else 0)
    if longest >= ask.output_at_most:
        return ask
    if longest < shortest:
        raise BudgetSpent("the budget is spent: what is left does not pay for another answer")
    names = [name for name in LENGTHS[ask.protocol] if name in ask.content] or [LENGTHS[ask.protocol][-1]]
    content = {**ask.content, **dict.fromkeys(names, longest)}
    return Ask(ask.protocol, ask.model, ask.stream, ask.input_at_most, longest, content)


def _without_vendors_tools(content: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in content.items() if name not in DEARER}
    if isinstance(kept.get("tools"), list):
        kept["tools"] = _own_tools(kept["tools"])
        if not kept["tools"]:
            del kept["tools"]
            kept.pop("tool_choice", None)
    if isinstance(kept.get("input"), list):  # Codex offers its tools in the conversation
        kept["input"] = [_with_own_tools(item) for item in kept["input"]]
    return kept


def _own_tools(tools: list[Any], deep: int = 0) -> list[Any]:
    """Return tools without those that run at the vendor's, in groups of tools too; groups far down are left out."""
    return [_with_own_tools(tool, deep + 1) for tool in tools if deep <= DEEPEST_GROUP and not _is_vendors(tool)]


def _with_own_tools(item: Any, deep: int = 0) -> Any:
    has_tools = isinstance(item, dict) and isinstance(item.get("tools"), list)
    return {**item, "tools": _own_tools(item["tools"], deep)} if has_tools else item


def _is_vendors(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, dict) else None
    return isinstance(kind, str) and kind.startswith(AT_THE_VENDORS)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _parts(content: object) -> Iterator[Mapping[str, Any]]:
    """Yield every part of a conversation that has a type, at whatever depth the protocols allow."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if "type" in value:
                yield value
            waiting.extend(value.get(name) for name in ("content", "output"))


def _is_link(part: Mapping[str, Any]) -> bool:
    """Return whether a picture or file is somewhere else: at an address, or kept at the vendor's."""
    if part.get("type") not in PICTURES:
        return False
    places = [part, *(part[name] for name in ("source", "image_url", "file") if isinstance(part.get(name), dict))]
    texts = [place.get(name) for place in places for name in ("url", "image_url", "file_url", "file_id")]
    return any(isinstance(text, str) and not text.startswith("data:") for text in texts)
