"""The folder of a run, the lock of the folder of runs, and what ends a run in order."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

from coordinator.errors import CoordinatorError

ASKED_TO_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOCK = "demo.lock"
LEAST_FREE_MB = 1024  # a run writes about half of that


class CampaignRefused(CoordinatorError):
    """A campaign cannot begin, or go on, here."""


@dataclass
class Interrupt:
    """How often the user asked to stop."""

    count: int = 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Interrupt]:
        """Count SIGINT, SIGTERM and SIGHUP instead of dying of them."""
        before = {number: signal.signal(number, self._came) for number in ASKED_TO_STOP}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def make_folder(runs: Path, seed: int) -> Path:
    """Return a new run folder, named by the time and the seed.

    Raises:
        CampaignRefused: the disk is full, or it cannot be made.
    """
    check_space(runs)
    folder = runs / f"{datetime.now():%Y-%m-%d-%H%M%S}-seed{seed}"
    try:
        (folder / "recordings").mkdir(parents=True)
    except OSError as error:
        raise CampaignRefused(f"cannot make the run folder {folder}: {error.strerror}") from error
    return folder


def check_space(runs: Path) -> None:
    """Check that a run has room.

    Raises:
        CampaignRefused: the disk is full.
    """
    free_mb = shutil.disk_usage(runs).free / 1e6
    if not free_mb >= LEAST_FREE_MB:
        raise CampaignRefused(f"{free_mb:.0f} MB free at {runs}; a run needs {LEAST_FREE_MB} MB, free some first")


@contextlib.contextmanager
def locked(runs: Path) -> Iterator[None]:
    """Hold the folder of runs: two campaigns on one machine would measure each other.

    The lock goes with the process that holds it, however that ends.
    """
    with _open_lock(runs) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise CampaignRefused(
                f"another campaign runs in {runs} (process {lock.read().strip()}); wait for it, or give another --runs"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _open_lock(runs: Path) -> TextIO:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        return open(runs / LOCK, "a+")
    except OSError as error:
        raise CampaignRefused(f"cannot use {runs} for runs: {error.strerror}; give another folder by --runs") from error
