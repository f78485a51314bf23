"""What people tell a running campaign of its agents: rows that whoever conducts it reads, now or after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.agents import hiring
from coordinator.errors import CoordinatorError
from coordinator.store import Store

OF_LANES = ("pause", "go", "stop")
OF_BUDGETS = ("usd", "tokens", "minutes")
ADD = "add"


class OrderRefused(CoordinatorError):
    """An order that means nothing; the message says what does."""


@dataclass(frozen=True)
class Order:
    """One row of `lane_orders`."""

    order_id: int
    what: str
    about: str

    @property
    def amount(self) -> float:
        """How much, of an order about a budget."""
        return float(self.about)


def give(store: Store, what: str, about: str) -> None:
    """Write an order down.

    Raises:
        OrderRefused: there is no such lane, or no such amount.
        HiringRefused: there is no such researcher.
        StoreError: it cannot be written.
    """
    if what in OF_LANES:
        lanes = [row[0] for row in store.rows("SELECT lane FROM lanes ORDER BY lane")]
        if about not in lanes:
            raise OrderRefused(f"there is no lane {about!r:.60}; there are {', '.join(lanes) or 'none'}")
    elif what == ADD:
        hiring.counted((about,))
    elif what in OF_BUDGETS and not _is_amount(about):
        raise OrderRefused(f"a budget of {about!r:.40} is none; give a number from 0 on")
    with store.transaction() as db:
        row = (time.time(), what, about)
        db.execute("INSERT INTO lane_orders (ordered_unix_s, what, about) VALUES (?, ?, ?)", row)


def after(store: Store, order_id: int) -> Iterable[Order]:
    """Return the orders that came after this one.

    Raises:
        StoreError: they cannot be read.
    """
    query = "SELECT order_id, what, about FROM lane_orders WHERE order_id > ? ORDER BY order_id"
    return [Order(*row) for row in store.rows(query, order_id)]


def _is_amount(text: str) -> bool:
    try:
        amount = float(text)
    except ValueError:
        return False
    return math.isfinite(amount) and amount >= 0
