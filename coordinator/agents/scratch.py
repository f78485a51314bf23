"""The folder that one run of an agent works in, and that goes with it; what a killed process left behind is swept.

- Whose folder it is holds a lock in it, which a kill gives back. The lock appears in the folder only once it is held,
  so that nobody takes a new folder for a forsaken one.
- A folder without a lock is left alone for a day.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX, LOCK, NEW_LOCK = "enpire-agent-", "lock", "lock.new"
DAY_S = 86400.0


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder of one's own, and remove it at the end.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / NEW_LOCK).open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            (folder / NEW_LOCK).rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> int:
    """Remove the folders of processes of this user that have ended, and return how many those were."""
    return sum(_swept(folder) for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def _swept(folder: Path) -> bool:
    with suppress(OSError):
        known = folder.lstat()
        if folder.is_symlink() or known.st_uid != os.getuid():
            return False
        if not (folder / LOCK).exists():
            return time.time() - known.st_mtime > DAY_S and _removed(folder)
        with (folder / LOCK).open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or somebody works there
            return _removed(folder)
    return False


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
