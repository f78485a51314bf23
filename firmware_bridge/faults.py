"""Makes the faults of a script happen on a bus of frames and in its motors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from firmware_bridge.fault_script import KEYS, MOTORS, NS_PER_S, Fault, FaultScript, Kind
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

ESC_IDS = tuple(range(1, MOTORS + 1))
MST_IDS = tuple(esc_id + 0x10 for esc_id in ESC_IDS)
BUS_ERROR_ID = ERROR_FLAG | 0x8 | 0x80  # linux/can/error.h: protocol violation, bus error
RAISED: dict[Kind, tuple[type[BridgeError], str]] = {
    Kind.UNPLUG: (BusGone, "the adapter was unplugged"),
    Kind.BUS_OFF: (BusOff, "the controller left the bus after too many errors"),
    Kind.FULL: (BusFull, "the queue towards the bus is full"),
}
ANSWER_KINDS = frozenset(kind for kind, keys in KEYS.items() if "count" in keys)


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
