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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.damiao import Status
from firmware_bridge.frames import (
    DATA_AT,
    ERROR_FLAG,
    LENGTH_AT,
    BridgeError,
    BusFull,
    BusGone,
    BusOff,
    CanBus,
    Frames,
    can_id,
    no_frames,
)
from firmware_bridge.motors import ROOM_C, MotorBank
from firmware_bridge.registers import UNWRITTEN, Register, from_word, to_word

MOTORS = 7
NS_PER_S = 1_000_000_000
FOREVER_NS = 2**63 - 1
ESC_IDS = tuple(range(1, MOTORS + 1))
MST_IDS = tuple(esc_id + 0x10 for esc_id in ESC_IDS)
BUS_ERROR_ID = ERROR_FLAG | 0x8 | 0x80  # linux/can/error.h: protocol violation, bus error
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
RAISED: dict[Kind, tuple[type[BridgeError], str]] = {
    Kind.UNPLUG: (BusGone, "the adapter was unplugged"),
    Kind.BUS_OFF: (BusOff, "the controller left the bus after too many errors"),
    Kind.FULL: (BusFull, "the queue towards the bus is full"),
}
ANSWER_KINDS = frozenset(kind for kind, keys in KEYS.items() if "count" in keys)


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


class FaultyBus:
    """A bus on which the script's faults of answers and of the bus happen; `script` numbers motors like `esc_ids`."""

    def __init__(
        self,
        inner: CanBus,
        script: FaultScript,
        read_now_ns: Callable[[], int],
        esc_ids: Sequence[int] = ESC_IDS,
        mst_ids: Sequence[int] = MST_IDS,
    ) -> None:
        self._inner, self._script, self._read_now_ns, self._esc_ids = inner, script, read_now_ns, esc_ids
        self._answers = [
            _AnswerFault(fault, [mst_ids[motor] for motor in fault.motors(len(mst_ids))], [script.seed, index])
            for index, fault in enumerate(script.faults)
            if fault.kind in ANSWER_KINDS
        ]

    def send(self, frames: Frames) -> None:
        """Send every row of `frames` (n, 16) that is not lost, in order.

        Raises:
            BusGone, BusOff, BusFull: by the script; then nothing was sent.
        """
        now_ns = self._read_now_ns()
        self._raise(now_ns, Kind.UNPLUG, Kind.BUS_OFF, Kind.FULL)
        starved = {
            self._esc_ids[motor]
            for fault in self._script.acting(Kind.WATCHDOG, now_ns)
            for motor in fault.motors(len(self._esc_ids))
        }
        kept = [can_id(row) & 0xFF not in starved for row in frames] if starved else slice(None)
        self._inner.send(frames[kept])

    def receive(self) -> Frames:
        """Return all frames that wait, oldest first, (n, 16).

        Raises:
            BusGone, BusOff: by the script; then what waited is lost.
        """
        now_ns, frames = self._read_now_ns(), self._inner.receive()
        self._raise(now_ns, Kind.UNPLUG, Kind.BUS_OFF)
        if not self._answers:
            return frames
        rows = list(frames)
        for fault in self._answers:
            rows = fault.spoil(rows, now_ns)
        return np.stack(rows) if rows else no_frames()

    def _raise(self, now_ns: int, *kinds: Kind) -> None:
        for kind in kinds:
            if self._script.acting(kind, now_ns):
                error, why = RAISED[kind]
                raise error(f"{why} (scripted fault, at {now_ns / NS_PER_S:.3f} s)")


class MotorFaults:
    """Makes the script's faults of motors; call `act` once a tick, before frames are exchanged at that time."""

    def __init__(self, bank: MotorBank, script: FaultScript) -> None:
        self._bank = bank
        self._count = len(bank.status)
        self._faults = script.faults
        self._last_ns = -1
        self._changes: dict[tuple[int, Register], tuple[int, tuple[Fault, ...]]] = {}  # the word before, by what
        self._turns = [0] * self._count
        self._warm = [False] * self._count

    def act(self, now_ns: int) -> None:
        """Begin, keep up and end what is due at `now_ns`."""
        for motor in range(self._count):
            mine = [fault for fault in self._faults if motor in fault.motors(self._count)]
            acting = [fault for fault in mine if fault.acts(now_ns)]
            self._change_registers(motor, acting)
            self._turn(motor, acting)
            self._heat(motor, acting, now_ns)
            for fault in mine:
                begins = self._last_ns < fault.from_ns <= now_ns  # a window between two ticks latches too
                if fault.kind is Kind.STATUS and (begins or fault.acts(now_ns)):
                    self._latch(motor, fault.whole("status"))
        self._last_ns = now_ns

    def _change_registers(self, motor: int, acting: Sequence[Fault]) -> None:
        """Put each register to what the faults that act make of what it held before the first of them."""
        registers = {fault.register for fault in acting} | {key[1] for key in self._changes if key[0] == motor}
        for register in registers - {None}:
            assert register is not None
            by = tuple(fault for fault in acting if fault.register is register)
            before, done = self._changes.pop((motor, register), (self._bank.word(motor, register), ()))
            if by != done:
                word = before
                for fault in by:
                    word = _changed(fault, register, word)
                self._bank.set_word(motor, register, word)
            if by:
                self._changes[motor, register] = before, by

    def _turn(self, motor: int, acting: Sequence[Fault]) -> None:
        turns = sum(fault.whole("turns") for fault in acting if fault.kind is Kind.BOOT_OFFSET)
        if turns != self._turns[motor]:
            self._bank.boot_turns(motor, turns - self._turns[motor])
            self._turns[motor] = turns

    def _heat(self, motor: int, acting: Sequence[Fault], now_ns: int) -> None:
        heating = [fault for fault in acting if fault.kind is Kind.OVER_TEMPERATURE]
        if heating or self._warm[motor]:
            rise_c = sum(fault.number("c_per_s") * (now_ns - fault.from_ns) / NS_PER_S for fault in heating)
            self._bank.warm(motor, ROOM_C[0] + rise_c, ROOM_C[1] + rise_c)
        self._warm[motor] = bool(heating)

    def _latch(self, motor: int, status: int) -> None:
        if self._bank.status[motor] != status:
            self._bank.inject(motor, status)


class _AnswerFault:
    """One fault of answers at work."""

    def __init__(self, fault: Fault, mst_ids: Sequence[int], seed: Sequence[int]) -> None:
        self._fault, self._mst_ids = fault, mst_ids
        self._rng = np.random.default_rng(list(seed))
        self._left = fault.whole("count")
        self._late: list[tuple[int, Frames]] = []  # due when, and what
        self._last: dict[int, Frames] = {}  # the last answer that was let through, by identifier

    def spoil(self, rows: Sequence[Frames], now_ns: int) -> list[Frames]:
        """Return what comes in place of the frames `rows`, (16,) each."""
        out = [row for due_ns, row in self._late if due_ns <= now_ns]
        self._late = [(due_ns, row) for due_ns, row in self._late if due_ns > now_ns]
        for row in rows:
            if self._hits(row, now_ns):
                out += self._spoilt(row, now_ns)
            else:
                self._last[can_id(row)] = row
                out.append(row)
        return out

    def _hits(self, row: Frames, now_ns: int) -> bool:
        if not (self._fault.acts(now_ns) and self._left > 0 and can_id(row) in self._mst_ids):
            return False
        hit = bool(self._rng.random() < self._fault.number("probability"))
        self._left -= hit
        return hit

    def _spoilt(self, row: Frames, now_ns: int) -> list[Frames]:
        match self._fault.kind:
            case Kind.DUPLICATE:
                return [row, row]
            case Kind.LATE:
                self._late.append((now_ns + round(self._fault.number("delay_s") * NS_PER_S), row))
                return []
            case Kind.STALE:
                return [self._last.setdefault(can_id(row), row)]
            case Kind.WRONG_ID:
                return [_with_id(row, self._fault.whole("identifier"))]
            case Kind.WRONG_NIBBLE:
                return [_with_next_nibble(row)]
            case Kind.SHORT:
                return [_shortened(row, self._fault.whole("length"))]
            case Kind.ERROR_FRAME:
                return [_with_id(_shortened(row, 0), BUS_ERROR_ID, length=8), row]
        return []  # DROP


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


def _changed(fault: Fault, register: Register, word: int) -> int:
    """Return what the fault puts where a register held `word`."""
    match fault.kind:
        case Kind.WRONG_SCALE:
            return word if word == UNWRITTEN else to_word(register, from_word(register, word) * fault.number("factor"))
        case Kind.WRONG_MODE:
            return fault.whole("mode")
        case Kind.WRONG_PART:
            return to_word(register, fault.number("gear_ratio"))
        case Kind.WATCHDOG_OFF:
            return 0
    return UNWRITTEN  # NAN_REGISTER


def _garbled(fault: Fault, piece: bytes, rng: np.random.Generator) -> list[bytes]:
    if rng.random() >= fault.number("probability"):
        return [piece]
    if fault.kind is Kind.SERIAL_GARBAGE:
        return [rng.bytes(int(rng.integers(1, fault.whole("length"), endpoint=True))) + piece]
    cuts = sorted({0, len(piece), *rng.integers(0, len(piece), 2, endpoint=True).tolist()})
    return [piece[start:end] for start, end in pairwise(cuts)] or [piece]


def _with_id(row: Frames, identifier: int, length: int | None = None) -> Frames:
    changed = row.copy()
    changed[:LENGTH_AT] = np.frombuffer(identifier.to_bytes(LENGTH_AT, "little"), dtype=np.uint8)
    changed[LENGTH_AT] = row[LENGTH_AT] if length is None else length
    return changed


def _with_next_nibble(row: Frames) -> Frames:
    changed, first = row.copy(), int(row[DATA_AT])
    changed[DATA_AT] = first & 0xF0 | (first + 1) & 0x0F
    return changed


def _shortened(row: Frames, length: int) -> Frames:
    changed = row.copy()
    changed[LENGTH_AT] = min(length, int(row[LENGTH_AT]))
    changed[DATA_AT + length :] = 0
    return changed
