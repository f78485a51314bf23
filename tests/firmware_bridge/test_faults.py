"""Every fault acts on its motor in its window only, the same in every run, and a wrong script is refused whole."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge import fault_script
from firmware_bridge.damiao import Special, Status, encode_commands, scales, special_frames
from firmware_bridge.fault_script import KEYS, FaultScript, FaultScriptError, Kind
from firmware_bridge.faults import FaultyBus, MotorFaults
from firmware_bridge.frames import (
    ERROR_FLAG,
    BridgeError,
    BusFull,
    BusGone,
    BusOff,
    CanBus,
    Frames,
    can_id,
    data,
    no_frames,
)
from firmware_bridge.motors import EmulatedBus, MotorBank
from firmware_bridge.registers import UNWRITTEN, Register, from_word

KINDS = ["DM4340"] * 3 + ["DM4310"] * 4
ESC = list(range(1, 8))
MST = [identifier + 0x10 for identifier in ESC]
TICK_NS = 4_000_000
FROM, UNTIL, END = 10, 20, 30  # ticks: the fault acts from 10 until before 20
WINDOW = "at_s = 0.040\nfor_s = 0.040"
STILL = np.zeros(7)


def script(kind: str, rest: str = "", window: str = WINDOW, seed: int = 3) -> FaultScript:
    return FaultScript.parse(f'seed = {seed}\n[[fault]]\nkind = "{kind}"\n{window}\n{rest}')


class Line:
    """Seven enabled motors on a bus with faults, one exchange a tick."""

    def __init__(self, plan: FaultScript) -> None:
        self.tick = 0
        self.bank = MotorBank(KINDS, ESC, MST)
        self.inner = EmulatedBus(self.bank, self._shafts, self.now_ns)
        self.inner.send(special_frames(ESC, Special.ENABLE))
        self.inner.receive()
        self.bus: CanBus = FaultyBus(self.inner, plan, self.now_ns)
        self.motors = MotorFaults(self.bank, plan)
        self.heard: list[Frames] = []
        self.raised: list[tuple[type[BridgeError] | None, type[BridgeError] | None]] = []

    def now_ns(self) -> int:
        return self.tick * TICK_NS

    def _shafts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.full(7, 0.01 * self.tick), STILL, STILL

    def run(self, ticks: int = END) -> Line:
        for _ in range(ticks):
            self.motors.act(self.now_ns())
            self.bank.tick(self.now_ns())
            sent, _ = attempt(lambda: self.bus.send(commands()))
            received, frames = attempt(self.bus.receive)
            self.raised.append((sent, received))
            self.heard.append(no_frames() if frames is None else frames)
            self.tick += 1
        return self


def attempt(call: Callable[[], Frames | None]) -> tuple[type[BridgeError] | None, Frames | None]:
    try:
        return None, call()
    except BridgeError as error:
        return type(error), None


def commands() -> Frames:
    out = np.zeros((7, 16), dtype=np.uint8)
    encode_commands(np.tile([0.5, 0.0, 10.0, 1.0, 0.0], (7, 1)), scales(KINDS), np.array(ESC), out)
    return out


CLEAN = Line(FaultScript()).run().heard


def same(one: list[Frames], other: list[Frames]) -> bool:
    return [frames.tobytes() for frames in one] == [frames.tobytes() for frames in other]


def others(frames: Frames, motor: int) -> bytes:
    """Return the frames that are not of `motor` (from 1)."""
    return b"".join(row.tobytes() for row in frames if can_id(row) != motor + 0x10)


def of(frames: Frames, motor: int) -> list[Frames]:
    return [row for row in frames if can_id(row) == motor + 0x10]


def test_without_faults_the_bus_is_the_bus() -> None:
    line = Line(FaultScript()).run()
    assert same(line.heard, CLEAN)
    assert set(line.raised) == {(None, None)}


# What becomes of an answer of motor 3 at tick 15, given the one that a clean bus would bring and the one of tick 9.
SPOILT: dict[Kind, Callable[[Frames, Frames], list[bytes]]] = {
    Kind.DROP: lambda row, old: [],
    Kind.DUPLICATE: lambda row, old: [row.tobytes()] * 2,
    Kind.STALE: lambda row, old: [old.tobytes()],
    Kind.WRONG_ID: lambda row, old: [b"\x0f\x05" + row.tobytes()[2:]],
    Kind.WRONG_NIBBLE: lambda row, old: [row.tobytes()[:8] + b"\x14" + row.tobytes()[9:]],
    Kind.SHORT: lambda row, old: [row.tobytes()[:4] + b"\x07" + row.tobytes()[5:15] + b"\0"],
    Kind.ERROR_FRAME: lambda row, old: [
        (ERROR_FLAG | 0x88).to_bytes(4, "little") + b"\x08" + bytes(11),
        row.tobytes(),
    ],
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_fault_of_answers_spoils_its_motors_in_its_window_and_nothing_else(kind: Kind) -> None:
    heard = Line(script(kind, "motor = 3")).run().heard
    assert same(heard[:FROM], CLEAN[:FROM])
    assert same(heard[UNTIL:], CLEAN[UNTIL:])
    old = of(CLEAN[FROM - 1], 3)[0]
    for tick in range(FROM, UNTIL):
        rows = [row.tobytes() for row in CLEAN[tick]]
        expected = rows[:2] + SPOILT[kind](CLEAN[tick][2], old) + rows[3:]
        assert [row.tobytes() for row in heard[tick]] == expected


@pytest.mark.parametrize("kind", [*SPOILT, Kind.LATE])
def test_without_a_motor_all_are_concerned(kind: Kind) -> None:
    heard = Line(script(kind)).run().heard
    unspoilt = {row.tobytes() for row in CLEAN[15]} & {row.tobytes() for row in heard[15]}
    assert len(unspoilt) == (7 if kind in (Kind.DUPLICATE, Kind.ERROR_FRAME) else 0)


def test_a_late_answer_comes_whole_and_after_its_delay() -> None:
    heard = Line(script("late", "motor = 3\ndelay_s = 0.010")).run().heard
    for tick in range(FROM, UNTIL):
        assert of(CLEAN[tick], 3)[0].tobytes() in {row.tobytes() for row in heard[tick + 3]}
    assert [len(of(frames, 3)) for frames in heard] == [1] * 10 + [0] * 3 + [1] * 7 + [2] * 3 + [1] * 7
    assert all(others(one, 3) == others(clean, 3) for one, clean in zip(heard, CLEAN, strict=True))


@pytest.mark.parametrize("kind", [*SPOILT, Kind.LATE])
def test_a_count_bounds_how_many_answers_are_spoilt(kind: Kind) -> None:
    heard = Line(script(kind, "motor = 3\ncount = 2")).run().heard
    changed = [tick for tick in range(END) if heard[tick].tobytes() != CLEAN[tick].tobytes()]
    expected = [FROM, FROM + 1]
    assert changed == ([*expected, FROM + 3, FROM + 4] if kind is Kind.LATE else expected)


def test_chance_spoils_its_share_the_same_in_every_run_and_otherwise_with_another_seed() -> None:
    rest = "probability = 0.5"
    runs = [Line(script("drop", rest, "", seed)).run().heard for seed in (3, 3, 4)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert 70 <= sum(map(len, runs[0])) <= 140  # of 210
    assert same(Line(script("drop", "probability = 0.0")).run().heard, CLEAN)


def test_one_fault_draws_nothing_from_another() -> None:
    plain = '[[fault]]\nkind = "drop"\nmotor = 2\nprobability = 0.5\n'
    more = plain + '[[fault]]\nkind = "duplicate"\nmotor = 5\nprobability = 0.5\n'
    one, both = (Line(FaultScript.parse(text)).run().heard for text in (plain, more))
    assert all(others(a, 5) == others(b, 5) for a, b in zip(one, both, strict=True))


@pytest.mark.parametrize(
    ("kind", "sending", "receiving"),
    [(Kind.BUS_OFF, BusOff, BusOff), (Kind.UNPLUG, BusGone, BusGone), (Kind.FULL, BusFull, None)],
)
def test_a_fault_of_the_bus_raises_and_sends_nothing(
    kind: Kind, sending: type[BridgeError], receiving: type[BridgeError] | None
) -> None:
    line = Line(script(kind)).run()
    assert set(line.raised[:FROM] + line.raised[UNTIL:]) == {(None, None)}
    assert set(line.raised[FROM:UNTIL]) == {(sending, receiving)}
    assert {len(frames) for frames in line.heard[FROM:UNTIL]} == {0}
    assert same(line.heard[UNTIL:], CLEAN[UNTIL:])


def test_what_waited_when_the_bus_went_is_lost() -> None:
    line = Line(script("unplug", window="at_s = 0.001\nfor_s = 0.005"))
    line.bus.send(commands())
    line.tick = 1
    assert attempt(line.bus.receive)[0] is BusGone
    line.tick = 2
    assert len(line.bus.receive()) == 0


def test_a_motor_whose_commands_are_lost_starves() -> None:
    line = Line(script("watchdog", "motor = 3", "at_s = 0.040"))
    line.run(FROM + 99)
    assert line.bank.enabled.all()
    line.run(1)
    assert line.bank.status.tolist() == [1, 1, Status.COMMUNICATION_LOST, 1, 1, 1, 1]
    assert {len(of(frames, 3)) for frames in line.heard[FROM:]} == {0}


@pytest.mark.parametrize("status", [status for status in range(16) if status != Status.ENABLED])
def test_a_status_latches_and_stays_until_it_is_cleared_after_the_window(status: int) -> None:
    line = Line(script("status", f"motor = 3\nstatus = {status}")).run(FROM)
    assert line.bank.enabled.all()
    line.run(5)
    assert line.bank.status.tolist() == [1, 1, status, 1, 1, 1, 1]
    for code in (Special.CLEAR_ERROR, Special.ENABLE):
        line.bus.send(special_frames([3], code))
    line.run(1)
    assert line.bank.status[2] == status  # its cause still stands
    line.run(UNTIL - line.tick)
    for code in (Special.CLEAR_ERROR, Special.ENABLE):
        line.bus.send(special_frames([3], code))
    line.run(1)
    assert line.bank.enabled.all()


def test_a_status_between_two_ticks_latches_too() -> None:
    line = Line(script("status", "motor = 3", "at_s = 0.041\nfor_s = 0.001")).run()
    assert line.bank.status.tolist() == [1, 1, Status.OVERLOAD, 1, 1, 1, 1]


def test_a_motor_warms_from_room_trips_and_cools() -> None:
    line = Line(script("over_temperature", "motor = 3\nc_per_s = 100.0", "at_s = 0.0\nfor_s = 1.2"))
    line.run(171)  # 0.680 s: the coil reached its 100 degrees
    assert line.heard[-1][2][15] == 100
    line.run(99)
    assert line.bank.enabled.all()
    line.run(2)
    assert line.bank.status.tolist() == [1, 1, Status.COIL_TOO_HOT, 1, 1, 1, 1]
    line.run(60)
    assert line.heard[-1][2][14:].tolist() == line.heard[-1][1][14:].tolist() == [30, 32]


REGISTERS = {
    Kind.WRONG_SCALE: ("factor = 0.5\nregister = 'TMAX'", Register.TMAX, 14.0),
    Kind.WRONG_MODE: ("mode = 3", Register.CTRL_MODE, 3),
    Kind.WRONG_PART: ("gear_ratio = 10.0", Register.GR, 10.0),
    Kind.NAN_REGISTER: ("register = 'SW_VER'", Register.SW_VER, UNWRITTEN),
    Kind.WATCHDOG_OFF: ("", Register.TIMEOUT, 0),
}


@pytest.mark.parametrize("kind", REGISTERS)
def test_a_wrong_register_is_wrong_in_its_window_and_put_back(kind: Kind) -> None:
    rest, register, expected = REGISTERS[kind]
    line = Line(script(kind, "motor = 3\n" + rest))
    before = words(line.bank)
    line.run(FROM)
    assert words(line.bank) == before
    line.run(1)
    assert from_word(register, line.bank.word(2, register)) == expected
    assert {key for key, word in words(line.bank).items() if word != before[key]} == {(2, register)}
    line.run(UNTIL - line.tick)
    assert from_word(register, line.bank.word(2, register)) == expected
    line.run(1)
    assert words(line.bank) == before


def words(bank: MotorBank) -> dict[tuple[int, Register], int]:
    return {(motor, register): bank.word(motor, register) for motor in range(7) for register in Register}


def test_faults_of_one_register_compose_and_leave_in_any_order() -> None:
    text = """
    [[fault]]
    kind = "wrong_scale"
    motor = 3
    for_s = 0.040
    factor = 0.5
    [[fault]]
    kind = "wrong_scale"
    at_s = 0.020
    for_s = 0.040
    factor = 0.1
    """
    line = Line(FaultScript.parse(textwrap.dedent(text)))
    seen = []
    for _ in range(4):
        line.run(5)
        seen.append(round(float(from_word(Register.VMAX, line.bank.word(2, Register.VMAX))), 5))
    assert seen == [5.0, 0.5, 1.0, 10.0]


@pytest.mark.parametrize("turns", [1, -2])
def test_a_boot_offset_is_told_in_its_window(turns: int) -> None:
    line = Line(script("boot_offset", f"motor = 3\nturns = {turns}")).run()
    told = [int.from_bytes(bytes(frames[2][9:11]), "big") for frames in line.heard]
    clean = [int.from_bytes(bytes(frames[2][9:11]), "big") for frames in CLEAN]
    shifts = [(a - b + 0x8000) % 0x10000 - 0x8000 for a, b in zip(told, clean, strict=True)]
    # -2 turns are outside the range of the field, 25 rad, and wrap.
    expected = (turns * 2 * np.pi + 12.5) % 25.0 - 12.5
    assert shifts[:FROM] + shifts[UNTIL:] == [0] * 20
    np.testing.assert_allclose(np.array(shifts[FROM:UNTIL]) * 25 / 65535, expected, atol=0.002)
    assert all(others(a, 3) == others(b, 3) for a, b in zip(line.heard, CLEAN, strict=True))


SHAFT_OR_SERIAL = [Kind.STALL, Kind.SLIP, Kind.SERIAL_GARBAGE, Kind.SPLIT]


@pytest.mark.parametrize("kind", SHAFT_OR_SERIAL)
def test_faults_of_shafts_and_serial_lines_leave_frames_and_motors_alone(kind: Kind) -> None:
    assert same(Line(script(kind)).run().heard, CLEAN)


def test_shafts_stall_and_slip_in_their_windows() -> None:
    stall, slip = script("stall", "motor = 3"), script("slip")
    inside = [tick for tick in range(END) if stall.blocked(tick * TICK_NS).any()]
    assert inside == [tick for tick in range(END) if slip.slipping(tick * TICK_NS)] == list(range(FROM, UNTIL))
    assert stall.blocked(FROM * TICK_NS).tolist() == [False, False, True] + [False] * 4
    assert script("stall").blocked(FROM * TICK_NS).all()


CHUNK = bytes(range(48))


@pytest.mark.parametrize("kind", [Kind.SERIAL_GARBAGE, Kind.SPLIT])
@pytest.mark.parametrize("chunk", [b"", b"\x55", CHUNK])
def test_a_serial_line_is_garbled_in_its_window_the_same_every_time(kind: Kind, chunk: bytes) -> None:
    plan = script(kind)
    for tick in range(END):
        pieces = plan.garble(chunk, tick * TICK_NS)
        assert pieces == plan.garble(chunk, tick * TICK_NS)
        joined = b"".join(pieces)
        if not FROM <= tick < UNTIL:
            assert pieces == (chunk,)
        elif kind is Kind.SPLIT:
            assert joined == chunk
        else:
            assert joined.endswith(chunk)
            assert 1 <= len(joined) - len(chunk) <= 8
    assert any(len(plan.garble(CHUNK, tick * TICK_NS)) > 1 for tick in range(FROM, UNTIL)) == (kind is Kind.SPLIT)


def test_every_kind_is_tested_here_and_has_a_comment_and_keys() -> None:
    tested = {*SPOILT, *REGISTERS, *SHAFT_OR_SERIAL, Kind.LATE, Kind.BUS_OFF, Kind.FULL, Kind.UNPLUG, Kind.WATCHDOG}
    tested |= {Kind.STATUS, Kind.OVER_TEMPERATURE, Kind.BOOT_OFFSET}
    assert tested == set(Kind) == set(KEYS)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_runs_with_nothing_but_its_name_and_repeats_itself(kind: Kind) -> None:
    plan = script(kind, window="")
    one, other = Line(plan).run(), Line(plan).run()
    assert same(one.heard, other.heard)
    assert one.raised == other.raised


def test_the_example_in_the_docstring_is_a_script() -> None:
    assert fault_script.__doc__ is not None
    example = "\n".join(line for line in fault_script.__doc__.splitlines() if line.startswith("    ") or not line)
    plan = FaultScript.parse(textwrap.dedent(example))
    assert [(fault.kind, fault.motor) for fault in plan.faults] == [(Kind.DROP, 3), (Kind.OVER_TEMPERATURE, 2)]
    assert (plan.seed, plan.faults[0].from_ns, plan.faults[0].until_ns) == (7, 2_000_000_000, 2_500_000_000)


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text('[[fault]]\nkind = "drop"\n')
    assert FaultScript.load(path) == FaultScript.parse(path.read_text())
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path / "missing.toml", tmp_path):
        with pytest.raises(FaultScriptError, match=re.escape(str(wrong))):
            FaultScript.load(wrong)


def test_an_empty_script_lets_nothing_go_wrong() -> None:
    assert FaultScript.parse("") == FaultScript()


REFUSED = {
    "not TOML": ("fault = [", "not TOML"),
    "unknown top-level key": ("speed = 3", "unknown key 'speed' .known: seed"),
    "negative seed": ("seed = -1", "seed is -1, must be a whole number in 0.."),
    "seed that is not whole": ("seed = 1.5", "seed is 1.5"),
    "seed that is true": ("seed = true", "seed is True"),
    "a single table": ("[fault]\nkind = 'drop'", "each under its own"),
    "faults that are no tables": ("fault = [3]", "each under its own"),
    "no kind": ("[[fault]]\nmotor = 3", "fault 1: unknown kind None .known: drop, duplicate, .*slip"),
    "unknown kind": ("[[fault]]\nkind = 'gremlin'", "fault 1: unknown kind 'gremlin' .known: drop"),
    "a kind that is no text": ("[[fault]]\nkind = ['drop']", "unknown kind"),
    "the second fault": ("[[fault]]\nkind = 'drop'\n[[fault]]\nkind = 'x'", "fault 2: unknown kind 'x'"),
}
VALUES = [
    ("drop", "motor = 0", "motor is 0, must be a whole number in 1..7"),
    ("drop", "motor = 8", "motor is 8"),
    ("drop", "motor = 3.0", "motor is 3.0"),
    ("drop", "motor = true", "motor is True"),
    ("drop", "motor = '3'", "motor is '3'"),
    ("drop", "at_s = -0.1", "at_s is -0.1"),
    ("drop", "at_s = nan", "at_s is nan"),
    ("drop", "at_s = inf", "at_s is inf"),
    ("drop", "at_s = 1979-05-27", "at_s is datetime"),
    ("drop", "for_s = 0.0", "for_s is 0.0"),
    ("drop", "for_s = nan", "for_s is nan"),
    ("drop", "probability = 1.1", "probability is 1.1, must be a number in 0..1"),
    ("drop", "probability = -0.1", "probability is -0.1"),
    ("drop", "count = 0", "count is 0"),
    ("drop", "turns = 1", "unknown key 'turns' .known: kind, at_s, for_s, motor, probability, count"),
    ("drop", "fro_s = 1", "unknown key 'fro_s'"),
    ("late", "delay_s = -1", "delay_s is -1"),
    ("wrong_id", "identifier = 0x800", "identifier is 2048"),
    ("short", "length = 8", "length is 8"),
    ("status", "status = 1", "status is 1, must be a whole number in 0..15 but not 1"),
    ("status", "status = 16", "status is 16"),
    ("over_temperature", "c_per_s = nan", "c_per_s is nan"),
    ("boot_offset", "turns = 0", "turns is 0"),
    ("boot_offset", "turns = 0.5", "turns is 0.5"),
    ("wrong_scale", "factor = 1.0", "factor is 1.0"),
    ("wrong_scale", "factor = 0.0", "factor is 0.0"),
    ("wrong_scale", "register = 'GR'", "register is 'GR', must be one of PMAX, VMAX, TMAX"),
    ("wrong_mode", "mode = 1", "mode is 1"),
    ("wrong_mode", "mode = 5", "mode is 5"),
    ("wrong_part", "gear_ratio = -1.0", "gear_ratio is -1.0"),
    ("nan_register", "register = 'XOUT'", "register is 'XOUT'"),
    ("nan_register", "register = 21", "register is 21"),
    ("bus_off", "motor = 1", "unknown key 'motor'"),
    ("slip", "motor = 7", "unknown key 'motor'"),
    ("serial_garbage", "length = 0", "length is 0"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_script_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(FaultScriptError, match=says) as refused:
        FaultScript.parse(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "line", "says"), VALUES, ids=[f"{kind} {line}" for kind, line, _ in VALUES])
def test_a_value_that_cannot_be_is_refused_in_one_line(kind: str, line: str, says: str) -> None:
    with pytest.raises(FaultScriptError, match=says) as refused:
        FaultScript.parse(f"[[fault]]\nkind = '{kind}'\n{line}")
    assert str(refused.value).startswith(f"fault 1 ({kind}): ")
    assert "\n" not in str(refused.value)


def test_spoilt_frames_are_copies() -> None:
    line = Line(script("wrong_nibble", window=""))
    line.bus.send(commands())
    clean = line.inner.receive()
    before = clean.copy()

    class Once:
        def send(self, frames: Frames) -> None: ...

        def receive(self) -> Frames:
            return clean

    spoilt = FaultyBus(Once(), script("wrong_nibble", window=""), lambda: 0).receive()
    assert data(spoilt[0]) != data(clean[0])
    assert (clean == before).all()
