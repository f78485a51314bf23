"""Faults of bus, motors and shafts, written down in one TOML text, so that any emulated run can be repeated with them.

    seed = 7                    # of everything random; 0 if absent

    [[fault]]
    kind = "drop"               # a third of motor 3's answers is lost, from 2.0 s to 2.5 s
    motor = 3                   # 1..7; absent: all
    at_s = 2.0                  # 0 if absent
    for_s = 0.5                 # absent: to the end
    probability = 0.33

    [[fault]]
    kind = "over_temperature"
    motor = 2
    at_s = 10.0
    c_per_s = 15.0

- A fault acts from `at_s` until just before `at_s + for_s`, in emulated time, and changes nothing else.
- The same script on the same traffic makes the same bytes: each fault draws from its own generator.
- `FaultyBus` makes the faults of frames, `MotorFaults` those of motors, `garble` those of a serial line; `blocked` and
  `slipping` tell a physics world about the shafts. All read one script, which never changes.
- What a fault changed in a motor is put back when it ends. A latched status stays until it is cleared.
- A script that holds anything unknown or impossible is refused as a whole.

What each kind does stands at `Kind`; what its own keys may hold, at `KEYS`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.damiao import Status
from firmware_bridge.frames import BridgeError
from firmware_bridge.registers import Register

MOTORS = 7
NS_PER_S = 1_000_000_000
FOREVER_NS = 2**63 - 1
# P_M and XOUT are measured, not stored.
REGISTER_NAMES = tuple(register.name for register in Register if register < Register.P_M)


class FaultScriptError(BridgeError):
    """A script that cannot be read, or that holds something unknown or impossible."""


class Kind(StrEnum):
    """What can go wrong."""

    # Answers, each with `probability`, at most `count` of them.
    DROP = "drop"  # does not come
    DUPLICATE = "duplicate"  # comes twice
    LATE = "late"  # comes `delay_s` later, with the first reading after that
    STALE = "stale"  # says what the last one that was let through said
    WRONG_ID = "wrong_id"  # comes on `identifier`
    WRONG_NIBBLE = "wrong_nibble"  # names the next motor in its first byte
    SHORT = "short"  # has `length` bytes
    ERROR_FRAME = "error_frame"  # has an error frame before it
    # The bus.
    WATCHDOG = "watchdog"  # commands to the motor are lost, so that its watchdog starves
    BUS_OFF = "bus_off"  # sending and receiving raise BusOff
    FULL = "full"  # sending raises BusFull
    UNPLUG = "unplug"  # sending and receiving raise BusGone
    # A serial line.
    SERIAL_GARBAGE = "serial_garbage"  # up to `length` random bytes before a piece, with `probability`
    SPLIT = "split"  # a piece comes as several
    # Motors.
    STATUS = "status"  # reports `status` and latches it again when cleared
    OVER_TEMPERATURE = "over_temperature"  # coil and MOSFET warm by `c_per_s` from room temperature
    BOOT_OFFSET = "boot_offset"  # counts `turns` turns too many
    WRONG_SCALE = "wrong_scale"  # holds `factor` times what it should in PMAX, VMAX or TMAX (`register`)
    WRONG_MODE = "wrong_mode"  # is in `mode`
    WRONG_PART = "wrong_part"  # has `gear_ratio`
    NAN_REGISTER = "nan_register"  # answers `register` with unwritten flash
    WATCHDOG_OFF = "watchdog_off"  # has TIMEOUT 0
    # Shafts.
    STALL = "stall"  # cannot turn
    SLIP = "slip"  # the gripper's: turns, and does not move the jaw


@dataclass(frozen=True)
class Key:
    """What a key of a fault may hold: a number in [low, high], whole if `default` is, or one of `words`."""

    default: float | str
    low: float = 0.0
    high: float = 0.0
    words: tuple[str, ...] = ()
    never: tuple[float, ...] = ()

    def allows(self, value: object) -> bool:
        """Return whether `value` is one of these."""
        if isinstance(self.default, str):
            return value in self.words
        whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            return False
        return self.low <= value <= self.high and value not in self.never

    def __str__(self) -> str:
        if self.words:
            return f"one of {', '.join(self.words)}"
        whole = "a whole number" if isinstance(self.default, int) else "a number"
        but = f" but not {', '.join(f'{value:g}' for value in self.never)}" if self.never else ""
        return f"{whole} in {self.low:g}..{self.high:g}{but}"


LONGEST_S = 1e6
SEED = Key(0, 0, 2**63 - 1)
CHANCE = {"probability": Key(1.0, 0.0, 1.0), "count": Key(2**31, 1, 2**31)}
WINDOW = {"at_s": Key(0.0, 0.0, LONGEST_S), "for_s": Key(LONGEST_S, 1e-9, LONGEST_S)}
MOTOR = {"motor": Key(0, 1, MOTORS)}
# The keys of each kind, beside `kind` and those of WINDOW.
KEYS: dict[Kind, dict[str, Key]] = {
    Kind.DROP: MOTOR | CHANCE,
    Kind.DUPLICATE: MOTOR | CHANCE,
    Kind.LATE: MOTOR | CHANCE | {"delay_s": Key(0.01, 0.0, LONGEST_S)},
    Kind.STALE: MOTOR | CHANCE,
    Kind.WRONG_ID: MOTOR | CHANCE | {"identifier": Key(0x50F, 0, 0x7FF)},  # the teaching handle's, where there is one
    Kind.WRONG_NIBBLE: MOTOR | CHANCE,
    Kind.SHORT: MOTOR | CHANCE | {"length": Key(7, 0, 7)},
    Kind.ERROR_FRAME: MOTOR | CHANCE,
    Kind.WATCHDOG: MOTOR,
    Kind.BUS_OFF: {},
    Kind.FULL: {},
    Kind.UNPLUG: {},
    Kind.SERIAL_GARBAGE: {"probability": CHANCE["probability"], "length": Key(8, 1, 64)},
    Kind.SPLIT: {"probability": CHANCE["probability"]},
    Kind.STATUS: MOTOR | {"status": Key(Status.OVERLOAD.value, 0x0, 0xF, never=(Status.ENABLED.value,))},
    Kind.OVER_TEMPERATURE: MOTOR | {"c_per_s": Key(20.0, 0.0, 1e6)},
    Kind.BOOT_OFFSET: MOTOR | {"turns": Key(1, -100, 100, never=(0,))},
    Kind.WRONG_SCALE: MOTOR
    | {"factor": Key(0.8, 1e-3, 1e3, never=(1.0,)), "register": Key("VMAX", words=("PMAX", "VMAX", "TMAX"))},
    Kind.WRONG_MODE: MOTOR | {"mode": Key(2, 2, 4)},
    Kind.WRONG_PART: MOTOR | {"gear_ratio": Key(48.0, 1e-3, 1e3)},
    Kind.NAN_REGISTER: MOTOR | {"register": Key("VMAX", words=REGISTER_NAMES)},
    Kind.WATCHDOG_OFF: MOTOR,
    Kind.STALL: MOTOR,
    Kind.SLIP: {},
}
CHANGED = {
    Kind.WRONG_MODE: Register.CTRL_MODE,
    Kind.WRONG_PART: Register.GR,
    Kind.WATCHDOG_OFF: Register.TIMEOUT,
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong for a while."""

    kind: Kind
    motor: int | None  # from 1; None is all
    from_ns: int
    until_ns: int
    values: Mapping[str, float | str]  # the kind's own keys

    def acts(self, now_ns: int) -> bool:
        """Return whether `now_ns` is in the fault's window."""
        return self.from_ns <= now_ns < self.until_ns

    def motors(self, count: int = MOTORS) -> tuple[int, ...]:
        """Return the motors it concerns, from 0, of an arm with `count`."""
        return tuple(motor for motor in range(count) if self.motor in (None, motor + 1))

    def number(self, key: str) -> float:
        """Return the number under `key`."""
        value = self.values[key]
        assert not isinstance(value, str)
        return value

    def whole(self, key: str) -> int:
        """Return the whole number under `key`."""
        return int(self.number(key))

    @property
    def register(self) -> Register | None:
        """The register that it changes, if any."""
        named = self.values.get("register")
        return Register[str(named)] if named is not None else CHANGED.get(self.kind)


@dataclass(frozen=True)
class FaultScript:
    """All that goes wrong in one run."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @classmethod
    def load(cls, path: Path) -> FaultScript:
        """Return the script in a file.

        Raises:
            FaultScriptError: it cannot be read, or see `parse`.
        """
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise FaultScriptError(f"{path} cannot be read: {error}") from error
        except FaultScriptError as error:
            raise FaultScriptError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, text: str) -> FaultScript:
        """Return the script in a text.

        Raises:
            FaultScriptError: not TOML, or something in it is unknown or impossible; one line says what is known.
        """
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise FaultScriptError(f"not TOML: {error}") from error
        if unknown := sorted(raw.keys() - {"seed", "fault"}):
            raise FaultScriptError(f"unknown key {unknown[0]!r} (known: seed, and tables [[fault]])")
        tables, seed = raw.get("fault", []), raw.get("seed", 0)
        if not SEED.allows(seed):
            raise FaultScriptError(f"seed is {seed!r}, must be {SEED}")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise FaultScriptError("fault must be tables, each under its own [[fault]]")
        return cls(tuple(_fault(number, table) for number, table in enumerate(tables, start=1)), seed)

    def acting(self, kind: Kind, now_ns: int) -> tuple[Fault, ...]:
        """Return the faults of one kind that act now."""
        return tuple(fault for fault in self.faults if fault.kind is kind and fault.acts(now_ns))

    def blocked(self, now_ns: int) -> NDArray[np.bool_]:
        """Return which shafts cannot turn now, (7,)."""
        blocked = np.zeros(MOTORS, dtype=np.bool_)
        for fault in self.acting(Kind.STALL, now_ns):
            blocked[list(fault.motors())] = True
        return blocked

    def slipping(self, now_ns: int) -> bool:
        """Return whether the gripper's motor turns without moving the jaw now."""
        return bool(self.acting(Kind.SLIP, now_ns))

    def garble(self, chunk: bytes, now_ns: int) -> tuple[bytes, ...]:
        """Return the pieces in which bytes from a serial line are read; the same for the same bytes and time."""
        pieces = [chunk]
        for index, fault in enumerate(self.faults):
            if fault.acts(now_ns) and fault.kind in (Kind.SERIAL_GARBAGE, Kind.SPLIT):
                rng = np.random.default_rng([self.seed, index, now_ns])
                pieces = [new for piece in pieces for new in _garbled(fault, piece, rng)]
        return tuple(pieces)


def _fault(number: int, table: dict[str, Any]) -> Fault:
    """Return the fault in one table.

    Raises:
        FaultScriptError: something in it is unknown or impossible.
    """
    name = table.get("kind")
    if name not in list(Kind):
        raise FaultScriptError(f"fault {number}: unknown kind {name!r} (known: {', '.join(Kind)})")
    kind = Kind(name)
    keys = WINDOW | KEYS[kind]
    for key, value in table.items():
        if key != "kind" and key not in keys:
            raise FaultScriptError(f"fault {number} ({kind}): unknown key {key!r} (known: kind, {', '.join(keys)})")
        if key != "kind" and not keys[key].allows(value):
            raise FaultScriptError(f"fault {number} ({kind}): {key} is {value!r}, must be {keys[key]}")
    values = {key: table.get(key, rule.default) for key, rule in KEYS[kind].items() if key != "motor"}
    from_ns = round(table.get("at_s", 0.0) * NS_PER_S)
    until_ns = from_ns + round(table["for_s"] * NS_PER_S) if "for_s" in table else FOREVER_NS
    return Fault(kind, table.get("motor"), from_ns, until_ns, values)


def _garbled(fault: Fault, piece: bytes, rng: np.random.Generator) -> list[bytes]:
    if rng.random() >= fault.number("probability"):
        return [piece]
    if fault.kind is Kind.SERIAL_GARBAGE:
        return [rng.bytes(int(rng.integers(1, fault.whole("length"), endpoint=True))) + piece]
    cuts = sorted({0, len(piece), *rng.integers(0, len(piece), 2, endpoint=True).tolist()})
    return [piece[start:end] for start, end in pairwise(cuts)] or [piece]
