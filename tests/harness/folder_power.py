"""A folder on a disk that loses power, under code that seals files by `os.fsync` and a rename.

- The power can be cut before each fsync, rename and deletion, and after the last one.
- What was synced of a file is there. Of what was written since, the disk has nothing, the beginning, all of it, or the
  length with nothing in it.
- Which names there are is as it was at some moment since the folder was last synced: names change one after another.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

Names = dict[str, int]  # the inode of each file


class PowerIsOff(BaseException):
    """The process is gone; not an Exception, so that no code under test handles it."""


class FolderDisk:
    """A folder, and the power of its disk, while this context lasts."""

    def __init__(self, folder: Path, cut_before: int, lies: bool = False) -> None:
        """Cut before the n-th operation, counted from 0; a disk that lies syncs nothing."""
        self.on = True
        self._folder = folder
        self._left = cut_before
        self._lies = lies
        self._patches = ExitStack()
        self._held: dict[int, int] = {}  # open descriptors by inode, so that no inode is used again
        self._contents: dict[int, bytes] = {}
        self._synced: dict[int, bytes] = {}
        self._names: list[Names] = [{}]  # since the folder was last synced

    def __enter__(self) -> FolderDisk:
        self._look()
        self._names, self._synced = self._names[-1:], dict(self._contents)
        for name in ("fsync", "rename", "replace", "unlink"):
            self._patches.enter_context(mock.patch.object(os, name, self._operation(getattr(os, name))))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._patches.close()
        if self.on:
            self._look()
        for descriptor in self._held.values():
            os.close(descriptor)

    def restart(self, draw: random.Random) -> None:
        """Leave in the folder what is on the disk; call it once the context has ended."""
        for path in self._folder.iterdir():
            path.unlink()
        for name, inode in draw.choice(self._names).items():
            (self._folder / name).write_bytes(self._survivor(inode, draw))

    def _operation(self, real: Callable[..., None]) -> Callable[..., None]:
        def operation(*arguments: Any) -> None:
            if self.on:
                self._look()
            self.on = self.on and self._left > 0
            if not self.on:
                raise PowerIsOff
            self._left -= 1
            if real.__name__ == "fsync":
                self._sync(arguments[0])
            else:
                real(*arguments)

        return operation

    def _sync(self, descriptor: int) -> None:
        if self._lies:
            return
        status = os.fstat(descriptor)
        if status.st_ino in self._contents:
            self._synced[status.st_ino] = self._contents[status.st_ino]
        else:  # the folder's own
            self._names = self._names[-1:]

    def _look(self) -> None:
        """Note which files there are, and what is in them, as the process sees it."""
        names: Names = {}
        for path in self._folder.iterdir():
            names[path.name] = inode = path.stat().st_ino
            self._contents[inode] = path.read_bytes()
            if inode not in self._held:
                self._held[inode] = os.open(path, os.O_RDONLY)
        self._names.append(names)

    def _survivor(self, inode: int, draw: random.Random) -> bytes:
        written, synced = self._contents[inode], self._synced.get(inode, b"")
        if written == synced:
            return synced
        return draw.choice([synced, written, written[: draw.randrange(len(written) + 1)], bytes(len(written))])
