"""What lies in a station's folders, and what room its disk has or could have."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edge.trust.floor import sync_folder

UNFINISHED = ".unfinished-"  # begins the name of a folder that is not whole, as also `unpack` does it

Found = tuple[Path, os.stat_result]  # of the file itself, where it is a link


def free_and_total_mb(folder: Path) -> tuple[float, float]:
    """Return what is free of the disk that holds a folder and how large that is, as its user sees it."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize / 1e6, (disk.f_blocks - disk.f_bfree + disk.f_bavail) * disk.f_frsize / 1e6


def listed(folder: Path) -> list[Found]:
    """Return what lies in a folder; none where that is missing, nor what goes while it is looked at."""
    found = []
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                found.append((path, path.lstat()))
    return found


def freeable_mb(files: Iterable[Found], folders: Iterable[Found], kept: Iterable[Path]) -> float:
    """Return how much of the disk is free once these files have gone, and unpacked bundles with the weights they want.

    Weights that another bundle links to stay, and those that are `kept`.
    """
    of_folders = [item for folder, _ in folders for item in listed(folder)]
    links = Counter(status.st_ino for _, status in of_folders)
    # One link more is that of the folder of weights, from where those go that no bundle links to.
    gone = {status.st_ino: status.st_size for _, status in of_folders if links[status.st_ino] + 1 >= status.st_nlink}
    for path in kept:
        with suppress(FileNotFoundError):
            gone.pop(path.stat().st_ino, None)
    return (sum(gone.values()) + sum(status.st_size for _, status in files)) / 1e6


def remove(path: Path) -> None:
    """Delete a file, a link or a folder.

    A folder loses its name first, in one step, so that what is left of it is never taken for the whole.

    Raises:
        OSError: the disk does not let it go; some of a folder may be left, under a name that begins with `UNFINISHED`.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if not path.name.startswith(UNFINISHED):
        path = path.rename(path.with_name(f"{UNFINISHED}{path.name[:12]}-{secrets.token_hex(4)}"))
        sync_folder(path.parent)
    shutil.rmtree(path)
