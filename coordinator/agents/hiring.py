"""Which researchers a campaign is to have, as a person names them, and whether this machine can run them.

Keys and addresses come from the environment and are written nowhere; where an agent cannot run, one line says why.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coordinator.agents.cage import has_cage
from coordinator.agents.calls import Provider
from coordinator.agents.clients import CLIENTS, Client
from coordinator.agents.prices import Prices, load_prices
from coordinator.run_folder import CampaignRefused
from coordinator.scheduling.work import OFFLINE

API = "claude-api"
OTHERWISE = {"kimi": "kimi-code", "claude": "claude-code"}  # what people may write instead
MOST = 16  # of one kind
INSTALLED = ".venv-agents"  # where `make test-agents` installs the programs


class HiringRefused(CampaignRefused):
    """A researcher cannot be had; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Vendor:
    """Where a model is had."""

    name: str
    url: str
    model: str  # if none is named
    bearer: bool

    def variable(self, what: str) -> str:
        """Return the environment's name of its API_KEY or BASE_URL."""
        return f"{self.name.upper()}_{what}"


VENDORS = {
    vendor.name: vendor
    for vendor in (
        Vendor("anthropic", "https://api.anthropic.com", "claude-opus-5-5", False),
        Vendor("openai", "https://api.openai.com", "gpt-6.1-sol", True),
        Vendor("moonshot", "https://api.moonshot.ai", "kimi-k3", True),
    )
}


@dataclass(frozen=True)
class Wanted:
    """What a person asks for; kept with the run."""

    researchers: Sequence[str] = ()  # "NAME" or "NAME:COUNT"
    offline: bool = True  # whether the researcher that costs nothing is one of them, whatever the others are
    models: Sequence[str] = ()  # "MODEL" for all agents, or "NAME=MODEL"
    prices: str = ""  # a table of prices in TOML; the one that ships without it
    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None  # of thinking, all agents together
    unsafe: bool = False
    dev_trials: int = 4  # attempts of an unfinished change that an agent may ask for, a proposal

    def to_json(self) -> dict[str, Any]:
        """Return it as the run's row keeps it."""
        return {**asdict(self), "researchers": list(self.researchers), "models": list(self.models)}


@dataclass(frozen=True)
class Hired:
    """One kind of agent that can be run."""

    kind: str
    count: int
    model: str
    provider: Provider = field(repr=False)
    client: Client | None = None  # None for the researcher by API
    programs: Mapping[str, Path] = field(default_factory=dict)


def hire(wanted: Wanted, environment: Mapping[str, str] | None = None) -> tuple[Hired, ...]:
    """Return the agents that were asked for, the offline researcher not among them.

    Raises:
        HiringRefused: one is unknown or cannot be run here, or nobody is left to ask.
        PricesError: the table of prices cannot be read.
    """
    known = os.environ if environment is None else environment
    counts = counted(wanted.researchers)
    if not counts and not wanted.offline:
        raise HiringRefused("--no-offline leaves nobody to ask; name an agent by --researcher")
    hired = tuple(_one(kind, count, wanted, known) for kind, count in counts.items())
    if wanted.usd is not None:
        _check_prices(hired, prices_of(wanted))
    return hired


def prices_of(wanted: Wanted) -> Prices:
    """Return the table of prices that a campaign counts by.

    Raises:
        PricesError: it cannot be read.
    """
    return load_prices(Path(wanted.prices) if wanted.prices else None)


def counted(words: Sequence[str]) -> dict[str, int]:
    """Return how many of each kind of agent are named.

    Raises:
        HiringRefused: a word names none, or too many.
    """
    counts: dict[str, int] = {}
    names = (OFFLINE, API, *(client.name for client in CLIENTS))
    for word in words:
        name, mark, number = word.partition(":")
        name = OTHERWISE.get(name, name)
        if name not in names:
            raise HiringRefused(f"there is no researcher {name!r:.40}; there are {', '.join(names)}")
        if mark and (name == OFFLINE or not number.isdecimal() or not 1 <= int(number) <= MOST):
            raise HiringRefused(f"--researcher {word:.60}: write NAME, or NAME:COUNT of agents with at most {MOST}")
        if name != OFFLINE:
            counts[name] = counts.get(name, 0) + int(number or 1)
    if any(count > MOST for count in counts.values()):
        raise HiringRefused(f"at most {MOST} lanes of one agent; name fewer by --researcher")
    return counts


def _one(kind: str, count: int, wanted: Wanted, environment: Mapping[str, str]) -> Hired:
    client = next((row for row in CLIENTS if row.name == kind), None)
    vendor = VENDORS[client.vendor if client else "anthropic"]
    key = environment.get(vendor.variable("API_KEY"), "").strip()
    programs, lacking = _programs(client, wanted, environment)
    if not key:
        lacking.insert(0, f"{vendor.variable('API_KEY')} is not set")
    if lacking:
        raise HiringRefused(f"{kind} cannot run: {'; '.join(lacking)}. --researcher offline needs none of this.")
    url = environment.get(vendor.variable("BASE_URL"), "").strip() or vendor.url
    provider = Provider(url.rstrip("/").removesuffix("/v1"), key, vendor.bearer)
    return Hired(kind, count, _model(kind, wanted, vendor), provider, client, programs)


def _programs(
    client: Client | None, wanted: Wanted, environment: Mapping[str, str]
) -> tuple[Mapping[str, Path], list[str]]:
    """Return where an agent's programs are, and what it lacks on this machine."""
    if client is None:
        missing = find_spec("anthropic") is None
        return {}, ["the package anthropic is not installed (pip install 'enpire[agents]')"] if missing else []
    lacking = []
    folder = Path(environment.get("AGENTS_VENV") or INSTALLED).absolute()
    programs = client.programs(folder)
    if programs is None:
        lacking.append(f"its program is not in {folder} (make test-agents installs it; AGENTS_VENV names the folder)")
    if not wanted.unsafe and not has_cage():
        lacking.append("bubblewrap is not installed (apt-get install bubblewrap)")
    return programs or {}, lacking


def _model(kind: str, wanted: Wanted, vendor: Vendor) -> str:
    named = {}
    for word in wanted.models:
        name, mark, model = word.rpartition("=")
        named[OTHERWISE.get(name, name) if mark else ""] = model
    return named.get(kind) or named.get("") or vendor.model


def _check_prices(hired: Sequence[Hired], prices: Prices) -> None:
    for one in hired:
        if prices.of(one.model, datetime.now(UTC).date()) is None:
            raise HiringRefused(
                f"no price of {one.model!r:.60} is known, so --budget-usd cannot be kept; give --prices, or"
                " --budget-tokens instead"
            )
