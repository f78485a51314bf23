"""What people sign, until enough of them have and the online key has named it: one next version of each role."""

from __future__ import annotations

from pathlib import Path

from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, Targets

from coordinator.publish.books import COMPACT, Books
from coordinator.publish.shelf import Shelf


class Pending:
    """The folder of what waits, beside the repository and never served."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is touched."""
        self._shelf = Shelf(folder)

    def put(self, role: str, metadata: Metadata[Targets]) -> None:
        """Keep the next version of a role."""
        self._shelf.write({f"{role}.json": metadata.to_bytes(COMPACT)})

    def drop(self, role: str) -> None:
        """Forget what waits in a role."""
        (self._shelf.folder / f"{role}.json").unlink(missing_ok=True)

    def any(self) -> bool:
        """Return whether there may be something."""
        return any(self._shelf.folder.glob("*.json"))

    def read(self, books: Books) -> dict[str, Metadata[Targets]]:
        """Return what waits, by role; what a published version has overtaken is dropped."""
        found = {}
        for path in sorted(self._shelf.folder.glob("*.json")):
            try:
                metadata = Metadata[Targets].from_bytes(path.read_bytes())
            except (TufError, OSError):
                self.drop(path.stem)
                continue
            current = books.targets.get(path.stem)
            if current is not None and metadata.signed.version == current.signed.version + 1:
                found[path.stem] = metadata
            else:
                self.drop(path.stem)
        return found
