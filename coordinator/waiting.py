"""How much of what each edge asks may wait: one that asks without end fills neither memory nor the others' time.

Thread-safe; it holds its lock only to count, so that zenoh's threads may call it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

MOST_QUESTIONS = 64
MOST_BYTES = 16 << 20


@dataclass
class _Share:
    questions: int = 0
    size: int = 0
    turned_away: bool = False
    said: bool = False


class Waiting:
    """What waits, counted by edge."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: dict[str, _Share] = {}

    def enter(self, edge: str, size: int) -> bool:
        """Count a question of `size` bytes in and return True; return False where its edge has no room left."""
        with self._lock:
            share = self._shares.setdefault(edge, _Share())
            if share.questions < MOST_QUESTIONS and share.size + size <= MOST_BYTES:
                share.questions += 1
                share.size += size
                return True
            share.turned_away = True
            return False

    def leave(self, edge: str, size: int) -> bool:
        """Count a question out; return whether it is to be said now that others of its edge were turned away.

        That is once until nothing of the edge waits any more.
        """
        with self._lock:
            share = self._shares[edge]
            share.questions -= 1
            share.size -= size
            if not share.questions:
                del self._shares[edge]
            say = share.turned_away and not share.said
            share.said |= say
            return say
