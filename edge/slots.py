"""Newest-value slots in shared memory, through which the edge's processes tell one another what is so now.

- A slot has one writer and any number of readers; a reader gets the newest value, never a queue.
- A value is whole or not taken: its checksum is written after it; a reader that meets a half-written one looks again.
  That needs no lock and no memory barrier, so a real-time loop never waits for a reader.
- The number that comes with a value grows by one each time it is written; 0 means that none was.
- The memory is a file that lives in RAM where the system has such a place, and belongs to one user.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edge.messages import MOTORS

Words = NDArray[np.uint64]
Record = NDArray[Any]

RAM = Path("/dev/shm")
NUMBER, CHECK, HEADER_WORDS = 0, 1, 2
TRIES = 4

CLEAR, RESTART, STOW = 1, 2, 3  # what an order may ask for
SETPOINT = np.dtype([("target", np.float64, MOTORS), ("expires_ns", np.int64)])  # joints, then the gripper motor, rad
ORDER = np.dtype([("what", np.int64)])
STATE = np.dtype(
    [
        ("time_ns", np.int64),  # of the measurement, CLOCK_MONOTONIC
        ("position", np.float64, MOTORS),  # joint frame, rad
        ("velocity", np.float64, MOTORS),
        ("torque", np.float64, MOTORS),
        ("mosfet_c", np.float64, MOTORS),
        ("coil_c", np.float64, MOTORS),
        ("status", np.int64, MOTORS),
        ("mode", np.int64),
        ("fault", np.int64),
        ("fault_motor", np.int64),
        ("fault_value", np.float64),
        ("fault_limit", np.float64),
        ("ticks", np.int64),
        ("late_ticks", np.int64),  # periods that began more than half a period late
        ("lost", np.int64),
        ("extra", np.int64),
        ("rejected", np.int64),
    ]
)
LAYOUT = (("setpoint", SETPOINT), ("order", ORDER), ("state", STATE))


class SlotsMissing(Exception):
    """No control process has made the slots of this station."""


class Slots:
    """The three slots of one arm: `setpoint` and `order` to the control process, `state` from it.

    Each attribute is the slot's words; `put` and `newest` move records of SETPOINT, ORDER and STATE.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        """Map the slots at `path`, emptied when `create` says so.

        Raises:
            SlotsMissing: nobody made them.
        """
        words = sum(HEADER_WORDS + dtype.itemsize // 8 for _, dtype in LAYOUT)
        try:
            descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
        except FileNotFoundError as error:
            raise SlotsMissing(f"no control process runs at this station ({path} is missing)") from error
        try:
            if create:
                os.ftruncate(descriptor, 8 * words)
            if os.fstat(descriptor).st_size != 8 * words:
                raise SlotsMissing(f"{path} was made by another version; start the control process again")
            self._memory = mmap.mmap(descriptor, 8 * words)
        finally:
            os.close(descriptor)
        everything = np.frombuffer(self._memory, dtype=np.uint64)
        if create:
            everything[:] = 0
        self._words = {}
        at = 0
        for name, dtype in LAYOUT:
            length = HEADER_WORDS + dtype.itemsize // 8
            self._words[name] = everything[at : at + length]
            at += length

    def words(self, name: str) -> Words:
        """Return the words of one slot, for `publish` and `fetch`."""
        return self._words[name]

    def put(self, name: str, value: Record) -> None:
        """Make `value` (1,) the newest of a slot; only its writer may."""
        publish(self._words[name], value.view(np.uint64))

    def newest(self, name: str) -> tuple[int, Record]:
        """Return the number and the newest value (1,) of a slot; number 0 when there is none, or none whole."""
        dtype = dict(LAYOUT)[name]
        value = np.zeros(1, dtype=dtype)
        return int(fetch(self._words[name], value.view(np.uint64))), value


class ArmTaken(Exception):
    """Another process moves or examines this arm."""


@contextmanager
def claim_arm(station: str, folder: Path) -> Iterator[None]:
    """Keep every other process of this user from the arm of that name; `folder` is whose station asks.

    Raises:
        ArmTaken: one has it; says which, and whether another folder holds a station of the same name.
    """
    # Opened without emptying it: what stands in it is the holder's.
    with open(slots_path(station).with_suffix(".lock"), "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise ArmTaken(_taken(station, folder, lock.read())) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()} {folder.resolve()}")
        lock.flush()
        yield


def _taken(station: str, folder: Path, said: str) -> str:
    """Return who has the arm, as its holder wrote it, and what to do."""
    process, _, other = said.partition(" ")
    if not other:  # it has not written yet
        return f"another process has the arm of {station}: stop `enpire-edge run` or the doctor first"
    if other == str(folder.resolve()):
        return f"process {process} has the arm of {station}: stop that `enpire-edge run` or doctor first"
    return (
        f"process {process} runs another station named {station}, that of {other}: two stations of one machine need two"
        f" names, so change `name` in {folder / 'station.toml'}, or stop that one first if both are the same arm"
    )


def slots_path(station: str) -> Path:
    """Return where a station's slots are: in RAM where there is such a place."""
    folder = RAM if RAM.is_dir() else Path(tempfile.gettempdir())
    return folder / f"enpire-{os.getuid()}-{station}.slots"


@njit(cache=True, nogil=True)
def publish(slot: Words, value: Words) -> None:
    """Write `value` into a slot, its checksum last."""
    number = slot[NUMBER] + np.uint64(1)
    slot[CHECK] = np.uint64(0)
    for word in range(value.shape[0]):
        slot[HEADER_WORDS + word] = value[word]
    slot[NUMBER] = number
    slot[CHECK] = _checksum(number, value)


@njit(cache=True, nogil=True)
def fetch(slot: Words, value: Words) -> int:
    """Copy the newest value and return its number, or 0 when there is none or it was half-written every time."""
    for _ in range(TRIES):
        number = slot[NUMBER]
        for word in range(value.shape[0]):
            value[word] = slot[HEADER_WORDS + word]
        if number != 0 and slot[CHECK] == _checksum(number, value):
            return int(number)
    return 0


@njit(cache=True)
def _checksum(number: int, value: Words) -> int:
    """Return FNV-1a over 64-bit words, never 0."""
    prime = np.uint64(0x100000001B3)
    total = (np.uint64(0xCBF29CE484222325) ^ number) * prime
    for word in range(value.shape[0]):
        total = (total ^ value[word]) * prime
    return int(total | np.uint64(1))
