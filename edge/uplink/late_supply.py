"""A supply whose journal may not open: what needs none goes on, and each use tries to open it again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.activation.journal import Journal
from edge.uplink.supply import Supply


class LateSupply:
    """One station's supply, from the moment that its journal opens; until then all of its methods raise."""

    def __init__(self, journal_path: Path, supply_of: Callable[[Journal], Supply]) -> None:
        """Open the journal at `journal_path` at the first use, and make the supply of it."""
        self._journal_path, self._supply_of = journal_path, supply_of
        self._opened: tuple[Journal, Supply] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._opened is not None:
            self._opened[0].close()

    @property
    def refusal(self) -> str:
        """What was refused last, for the status."""
        return "" if self._opened is None else self._opened[1].refusal

    @property
    def lacks_room(self) -> bool:
        """Whether a bundle does; `prune` makes it some."""
        return self._opened is not None and self._opened[1].lacks_room

    def turn(self) -> None:
        """Do as `Supply.turn`; ActivationError also where the journal does not open."""
        self._supply().turn()

    def bring(self, bundle: str) -> None:
        """Do as `Supply.bring`; ActivationError also where the journal does not open."""
        self._supply().bring(bundle)

    def prune(self, needed: Collection[str]) -> list[str]:
        """Do as `Supply.prune`; ActivationError also where the journal does not open."""
        return self._supply().prune(needed)

    def _supply(self) -> Supply:
        if self._opened is None:
            journal = Journal(self._journal_path)
            self._opened = journal, self._supply_of(journal)
        return self._opened[1]
