"""Where an agent's thread and the conductor's meet over attempts that the agent asks for while it works.

- The agent's side asks, one request at a time, and waits; the conductor's side hands in and says when all is over.
- A window is open for one assignment; what was asked for before is forgotten with it.
- Nothing here looks at files or at the database, and nobody waits with the lock held.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.evolution.ideas import ResearchContext


@dataclass
class Request:
    """Attempts of one state of a change."""

    number: int  # in this assignment, from 1
    attempts: int
    files: Mapping[str, bytes] = field(repr=False)  # that it changes, by name in the policy's folder
    context: ResearchContext = field(repr=False)  # what the agent was shown
    bundle: str = ""  # what runs, once it was handed in
    refused: str = ""  # why it was not handed in
    over: bool = False  # there is nothing to wait for
    made_unix_s: float | None = None  # since when no attempt is still to come; the conductor's


class Window:
    """One lane's; safe to use from several threads."""

    def __init__(self) -> None:
        """Begin closed."""
        self._changed = threading.Condition()
        self._open = False
        self._left = 0
        self._last: Request | None = None

    @property
    def left(self) -> int:
        """How many attempts may still be asked for."""
        return self._left

    @property
    def last(self) -> Request | None:
        """What was asked for last in this assignment."""
        return self._last

    # -- the agent's side ---------------------------------------------------------------------------------------------

    def ask(self, attempts: int, files: Mapping[str, bytes], context: ResearchContext) -> str:
        """Ask for attempts; return why not, nothing where they are asked for."""
        with self._changed:
            if why := self._why_not(attempts):
                return why
            number = 1 if self._last is None else self._last.number + 1
            self._last = Request(number, attempts, files, context)
            return ""

    def why_not(self, attempts: int) -> str:
        """Return why so many attempts cannot be asked for now, nothing where they can."""
        with self._changed:
            return self._why_not(attempts)

    def _why_not(self, attempts: int) -> str:
        if not self._open:
            return "this assignment is over."
        if self._last is not None and not self._last.over:
            return "the attempts that you asked for last are not all there yet; see what came of them first."
        return "" if 1 <= attempts <= self._left else _over_budget(self._left)

    def wait(self, request: Request, seconds: float) -> bool:
        """Wait this long at most for a request to be over; return whether there is nothing left to wait for."""
        with self._changed:
            self._changed.wait_for(lambda: self._done(request), seconds)
            return self._done(request)

    def _done(self, request: Request) -> bool:
        return request.over or not self._open

    # -- the conductor's side -----------------------------------------------------------------------------------------

    def begin(self, left: int) -> None:
        """Open it for an assignment with so many attempts left."""
        with self._changed:
            self._open, self._left, self._last = True, left, None

    def end(self) -> None:
        """Close it; whoever waits goes on."""
        with self._changed:
            self._open, self._left = False, 0
            self._changed.notify_all()

    def pending(self) -> Request | None:
        """Return the request that is not over."""
        with self._changed:
            return self._last if self._open and self._last is not None and not self._last.over else None

    def handed_in(self, request: Request, bundle: str) -> None:
        """Note what is run for a request, and take it from what is left."""
        with self._changed:
            request.bundle = bundle
            self._left = max(0, self._left - request.attempts)

    def end_request(self, request: Request, refused: str = "") -> None:
        """Note that there is nothing to wait for any more, or why nothing was handed in."""
        with self._changed:
            request.refused, request.over = refused, True
            self._changed.notify_all()


def _over_budget(left: int) -> str:
    if left == 0:
        return "the attempts of this proposal are used up; finish your change and hand it in."
    return f"ask for at least 1 and at most {attempts_in_words(left)}, which is what is left for this proposal."


def attempts_in_words(number: int) -> str:
    """Return so many attempts in words."""
    return f"{number} attempt{'s' * (number != 1)}"
