"""What tokens cost: a dated table in TOML, and sums in whole billionths of a dollar so that they add up exactly."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from coordinator.agents.usage import Usage
from coordinator.errors import CoordinatorError

NANO_USD = 1_000_000_000  # in a dollar
KINDS = ("fresh", "cache_read", "cache_write", "output")


class PricesError(CoordinatorError):
    """A table of prices that is none, or a model that is not in it."""


@dataclass(frozen=True)
class Price:
    """What one model costs from a day on, in billionths of a dollar a token."""

    model: str
    as_of: date
    fresh: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    output: int

    def cost(self, usage: Usage) -> int:
        """Return what this much costs, in billionths of a dollar; tokens of no known kind cost as output does."""
        kept = usage.kept_for_an_hour
        inside = usage.fresh * self.fresh + usage.cache_read * self.cache_read
        written = (usage.cache_write - kept) * self.cache_write + kept * self.cache_write_1h
        return inside + written + (usage.output + usage.reasoning + usage.other) * self.output

    @property
    def dearest_input(self) -> int:
        """The most that one token of input can cost."""
        return max(self.fresh, self.cache_read, self.cache_write, self.cache_write_1h)

    def fits(self, model: str, day: date) -> bool:
        """Return whether this is a price of that model on that day."""
        named = model.startswith(self.model[:-1]) if self.model.endswith("*") else model == self.model
        return named and self.as_of <= day


FREE = Price("", date.min, 0, 0, 0, 0, 0)  # for a model of one's own, with a budget in tokens


@dataclass(frozen=True)
class Prices:
    """A table of prices."""

    rows: Sequence[Price]

    def of(self, model: str, day: date) -> Price | None:
        """Return what a model costs on that day; None where the table does not say."""
        fitting = [row for row in self.rows if row.fits(model, day)]
        return max(fitting, key=lambda row: (len(row.model), row.as_of), default=None)


def load_prices(path: Path | None = None) -> Prices:
    """Return the table in a file, the one that ships where none is named.

    Raises:
        PricesError: it cannot be read, or a row is not one; says which.
    """
    origin = str(path) if path else "prices.toml"
    try:
        text = path.read_text() if path else (files("coordinator") / "agents" / "prices.toml").read_text()
        rows = tomllib.loads(text, parse_float=Decimal).get("price", [])
        return Prices(tuple(_price(row) for row in rows))
    except OSError as error:
        raise PricesError(f"cannot read {origin}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PricesError(f"{origin} holds a row that is no price: {error}") from error


def _price(row: Mapping[str, Any]) -> Price:
    usd = dict(row["usd"])
    usd.setdefault("cache_write_1h", usd.get("cache_write"))
    unknown = set(usd) - {*KINDS, "cache_write_1h"}
    if unknown or type(row["as_of"]) is not date:
        raise ValueError(f"{row['model']}: {', '.join(sorted(unknown)) or 'as_of is no date'}")
    return Price(str(row["model"]), row["as_of"], **{kind: _nano(usd[kind]) for kind in (*KINDS, "cache_write_1h")})


def _nano(usd_a_million: Decimal | int) -> int:
    """Turn dollars a million tokens into billionths of a dollar a token."""
    nano = Decimal(usd_a_million) * 1000
    if nano < 0 or nano != nano.to_integral_value():
        raise ValueError(f"{usd_a_million} dollars a million tokens; at most three decimals are counted")
    return int(nano)
