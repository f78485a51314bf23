"""Budgets in tokens, money, calls and time: what a call may cost at most is set aside before it is made.

- What is spent and what is set aside never exceed the budget together, so calls at the same time cannot overspend it.
- A purse may draw on another one: a lane's on the campaign's. Both must have it.
- When a call is over, what it cost is booked and the rest of what was set aside is given back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TypeVar

from coordinator.agents.prices import NANO_USD
from coordinator.errors import CoordinatorError

Number = TypeVar("Number", int, float)


class BudgetSpent(CoordinatorError):
    """There is not enough left for this call; the message says of what."""


@dataclass(frozen=True)
class Budget:
    """What may be used up; None is without limit."""

    tokens: int | None = None
    nano_usd: int | None = None
    calls: int | None = None
    seconds: float | None = None  # from the opening of the purse on


@dataclass(frozen=True)
class Cost:
    """What a call costs, or may cost at most."""

    tokens: int = 0
    nano_usd: int = 0
    calls: int = 1


@dataclass(frozen=True)
class Left:
    """What may still be set aside; None is without limit."""

    tokens: int | None
    nano_usd: int | None
    calls: int | None
    seconds: float | None


class Purse:
    """One budget and what has become of it; safe to use from several threads."""

    def __init__(self, budget: Budget, opened_s: float = 0.0, parent: Purse | None = None) -> None:
        """Open a purse at `opened_s` of whichever clock its callers use."""
        self._budget, self._opened_s, self._parent = budget, opened_s, parent
        self._lock = threading.Lock()
        self._spent = Cost(calls=0)
        self._aside = Cost(calls=0)
        self._refused: str | None = None

    @property
    def budget(self) -> Budget:
        """What may be used up, this purse's own."""
        return self._budget

    def allow(self, budget: Budget) -> None:
        """Put another budget in this one's place; what was spent and set aside stays so."""
        with self._lock:
            self._budget = budget

    @property
    def spent(self) -> Cost:
        """What was booked."""
        return self._spent

    @property
    def refused(self) -> str | None:
        """Why the last call was refused, None where none was: then whoever asks here may stop."""
        return self._refused

    def refuse(self, why: str) -> None:
        """Note that a call was refused before anything was set aside."""
        self._refused = why

    def reopen(self) -> None:
        """Forget that a call was refused."""
        self._refused = None

    def left(self, now_s: float) -> Left:
        """Return what may still be set aside, of this purse and of the one that it draws on."""
        with self._lock:
            mine = self._left(now_s)
        if self._parent is None:
            return mine
        above = self._parent.left(now_s)
        return Left(
            _least(mine.tokens, above.tokens),
            _least(mine.nano_usd, above.nano_usd),
            _least(mine.calls, above.calls),
            _least(mine.seconds, above.seconds),
        )

    def set_aside(self, most: Cost, now_s: float) -> None:
        """Set aside what a call may cost at most; to be given to `book` again.

        Raises:
            BudgetSpent: this purse or the one that it draws on has not so much; nothing is set aside then.
        """
        with self._lock:
            lacking = _lacking(self._left(now_s), most)
            if lacking is None:
                self._aside = _sum(self._aside, most)
        if lacking is not None:
            self._refused = lacking
            raise BudgetSpent(lacking)
        if self._parent is not None:
            try:
                self._parent.set_aside(most, now_s)
            except BudgetSpent as error:
                with self._lock:
                    self._aside = _difference(self._aside, most)
                self._refused = str(error)
                raise

    def book(self, most: Cost, cost: Cost) -> None:
        """Book what a call did cost, and give the rest of what was set aside for it back."""
        with self._lock:
            self._aside = _difference(self._aside, most)
            self._spent = _sum(self._spent, cost)
        if self._parent is not None:
            self._parent.book(most, cost)

    def _left(self, now_s: float) -> Left:
        budget, spent, aside = self._budget, self._spent, self._aside
        return Left(
            None if budget.tokens is None else budget.tokens - spent.tokens - aside.tokens,
            None if budget.nano_usd is None else budget.nano_usd - spent.nano_usd - aside.nano_usd,
            None if budget.calls is None else budget.calls - spent.calls - aside.calls,
            None if budget.seconds is None else self._opened_s + budget.seconds - now_s,
        )


def _lacking(left: Left, most: Cost) -> str | None:
    """Return what there is not enough of, as a sentence; None where there is enough of all."""
    if left.seconds is not None and not left.seconds > 0:
        return "the time budget is spent"
    if left.calls is not None and most.calls > left.calls:
        return f"the budget of calls is spent: {max(0, left.calls)} left"
    if left.tokens is not None and most.tokens > left.tokens:
        return f"the token budget is spent: {max(0, left.tokens)} left, this call may need {most.tokens}"
    if left.nano_usd is not None and most.nano_usd > left.nano_usd:
        dollars = (max(0, left.nano_usd) / NANO_USD, most.nano_usd / NANO_USD)
        return f"the money budget is spent: {dollars[0]:.4f} dollars left, this call may need {dollars[1]:.4f}"
    return None


def _least(one: Number | None, other: Number | None) -> Number | None:
    known = [value for value in (one, other) if value is not None]
    return min(known) if known else None


def _sum(one: Cost, more: Cost) -> Cost:
    return Cost(one.tokens + more.tokens, one.nano_usd + more.nano_usd, one.calls + more.calls)


def _difference(one: Cost, less: Cost) -> Cost:
    return Cost(one.tokens - less.tokens, one.nano_usd - less.nano_usd, one.calls - less.calls)
