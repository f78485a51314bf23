"""A station with a motor bus: its control process, the doctor and the commands, on emulated motors at a real socket.

The clock is real here, so nothing is asserted about time.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest

from edge.control.loop import loop_of
from edge.control.process import ControlProcess, Requests, answers_text, open_bus
from edge.control.realtime import DONE, RUN, compile_loop, run
from edge.emulation.stations import make_stations
from edge.ledger import Ledger
from edge.messages import LONGEST_LIFE_NS
from edge.slots import LAYOUT, ORDER, RESTART, SETPOINT, STOW, Slots
from edge.station import Station, StationError, load_station
from firmware_bridge.damiao import Status

IDEAL_MOTORS = Path(__file__).with_name("ideal_motors.py")
POSE = np.array([0.0, 1.114, 0.948, -1.406, 0.0, 0.0])


def make_station(folder: Path, can: str) -> Path:
    """Write an emulated station and give it a motor bus instead of its emulation."""
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    station = folder / "station-1"
    text = (station / "station.toml").read_text().split("[emulation]")[0]
    # Only one process of a machine may have the arm of a name, and tests run beside each other.
    text = text.replace('name = "station-1"', f'name = "s{zlib.crc32(str(folder).encode()):x}"')
    (station / "station.toml").write_text(text + can)
    return station


class Motors:
    """Seven motors on ideal shafts that answer at `path`, in a process of their own; see ideal_motors.py."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, IDEAL_MOTORS, path.parent / "station-1", path, theirs.fileno()]
            self._process = subprocess.Popen([str(part) for part in command], pass_fds=[theirs.fileno()])
        assert self._connection.recv() == "ready"

    def read(self, name: str) -> np.ndarray:
        """Return an array of the motors."""
        return self._ask("read", name)

    def call(self, name: str, *arguments: object) -> None:
        """Call a method of the motors."""
        self._ask("call", name, *arguments)

    def close(self) -> None:
        """End them, and with them the bus."""
        self._connection.close()
        self._process.wait()

    def _ask(self, *order: object) -> np.ndarray:
        self._connection.send(order)
        answer: np.ndarray = self._connection.recv()
        return answer


@pytest.fixture
def motors(tmp_path: Path) -> Iterator[Motors]:
    make_station(tmp_path, f'[can]\ntransport = "seqpacket"\nport = "{tmp_path}/bus"\n')
    made = Motors(tmp_path / "bus")
    yield made
    made.close()


@dataclass
class Running:
    """A control process in a thread."""

    station: Station
    slots: Slots
    process: ControlProcess
    thread: threading.Thread

    def wait_for(self, what: Callable[[np.ndarray], bool]) -> np.ndarray:
        """Return the first state for which `what` holds."""
        for _ in range(4000):
            number, state = self.slots.newest("state")
            if number and what(state[0]):
                return state[0]
            time.sleep(0.005)
        raise AssertionError(f"never came: {self.process.fault()} {self.process.error}")

    def order(self, what: int) -> None:
        made = np.zeros(1, dtype=ORDER)
        made["what"] = what
        self.slots.put("order", made)


@pytest.fixture
def running(motors: Motors, tmp_path: Path) -> Iterator[Running]:
    station = load_station(tmp_path / "station-1")
    assert station.can is not None
    loop = loop_of(station, station.can.rate_hz)
    compile_loop(*loop.records)
    slots = Slots(tmp_path / "slots", create=True)
    with open_bus(station.can) as bus:
        process = ControlProcess(loop, bus, slots, station)
        thread = threading.Thread(target=process.work)
        thread.start()
        yield Running(station, slots, process, thread)
        process.halt()
        process.halt()
        thread.join()


def test_the_arm_wakes_where_it_is_and_follows_setpoints(running: Running) -> None:
    state = running.wait_for(lambda state: bool((state["status"] == Status.ENABLED).all()))
    np.testing.assert_allclose(state["position"][:6], POSE, atol=2e-3)
    goal = np.array([*(POSE + 0.05), -0.5])
    for _ in range(200):
        setpoint = np.zeros(1, dtype=SETPOINT)
        setpoint["target"][0], setpoint["expires_ns"] = goal, time.monotonic_ns() + LONGEST_LIFE_NS
        running.slots.put("setpoint", setpoint)
        time.sleep(0.01)
        if np.allclose(running.slots.newest("state")[1]["position"][0, :6], goal[:6], atol=2e-3):
            break
    running.wait_for(lambda state: np.allclose(state["position"][:6], goal[:6], atol=2e-3))
    assert running.process.fault() == ""


def test_halting_stows_the_arm_damps_it_and_lets_the_motors_go(running: Running, motors: Motors) -> None:
    running.wait_for(lambda state: bool((state["status"] == Status.ENABLED).all()))
    running.process.halt()
    running.thread.join()
    assert running.process.fault() == ""
    assert (motors.read("status") == Status.DISABLED).all()
    np.testing.assert_allclose(motors.read("shafts")[:6], running.station.arm.rest_rad, atol=5e-3)
    assert running.process.error == ""


def test_an_arm_that_its_site_keeps_from_its_rest_is_let_down_before_its_motors_go(
    motors: Motors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    station = load_station(tmp_path / "station-1")
    assert station.can is not None
    lower_rad = station.limits.lower_rad.copy()
    lower_rad[1:3] = 0.4  # it stands upright no further down than this
    station = replace(station, limits=replace(station.limits, lower_rad=lower_rad))
    loop = loop_of(station, station.can.rate_hz)
    compile_loop(*loop.records)
    slots = Slots(tmp_path / "slots", create=True)
    with open_bus(station.can) as bus, caplog.at_level(logging.INFO):
        process = ControlProcess(loop, bus, slots, station)
        thread = threading.Thread(target=process.work)
        thread.start()
        made = Running(station, slots, process, thread)
        made.wait_for(lambda state: bool((state["status"] == Status.ENABLED).all()))
        process.halt()
        thread.join()
    assert process.error == ""
    assert "let down where it was and damped" in caplog.text


def test_a_faulted_motor_damps_the_arm_until_an_order_to_restart(running: Running, motors: Motors) -> None:
    running.wait_for(lambda state: bool((state["status"] == Status.ENABLED).all()))
    motors.call("inject", 2, Status.OVERLOAD)
    running.wait_for(lambda state: state["fault"] != 0)
    assert not motors.read("kp").any()
    running.process._loop.records[2]["extra"] += 1000  # what was counted before is still told after
    running.order(RESTART)
    awake = running.wait_for(lambda state: state["fault"] == 0 and bool((state["status"] == Status.ENABLED).all()))
    assert awake["extra"] >= 1000
    running.order(STOW)
    running.wait_for(lambda state: np.allclose(state["position"][:6], running.station.arm.rest_rad, atol=5e-3))


def test_a_bus_that_goes_ends_the_process_with_the_reason(running: Running, motors: Motors) -> None:
    running.wait_for(lambda state: bool((state["status"] == Status.ENABLED).all()))
    motors.close()
    running.thread.join()
    assert "the motors' watchdog damps them" in running.process.error


def test_a_wrong_motor_is_refused_before_anything_is_enabled(motors: Motors, tmp_path: Path) -> None:
    from firmware_bridge.registers import Register, to_word

    motors.call("set_word", 4, Register.TMAX, to_word(Register.TMAX, 28.0))
    station = load_station(tmp_path / "station-1")
    assert station.can is not None
    with open_bus(station.can) as bus:
        process = ControlProcess(loop_of(station, 240.0), bus, Slots(tmp_path / "slots", create=True), station)
        process.work()
    assert "motor 5 (DM4310): TMAX is 28, expected 10" in process.error
    assert not motors.read("enabled").any()


@pytest.fixture
def emulated(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return tmp_path / "station-1"


@pytest.mark.parametrize(
    ("can", "message"),
    [
        ("", "wants one of"),
        ('[can]\ntransport = "wifi"\nport = "x"\n', "known: socketcan"),
        ('[can]\ntransport = "slcan"\nport = "x"\n', "can.adapter is for slcan"),
        ('[can]\ntransport = "slcan"\nport = "x"\nadapter = "canable"\n', "adapter 'canable' .known: lawicel, damiao"),
        ('[can]\ntransport = "slcan"\nport = "x"\nadapter = "damiao"\nbitrate = 800000\n', "has no bitrate 800000"),
        ('[can]\ntransport = "usb2can"\nport = "x"\nbitrate = 12345\n', "USB2CAN has no bitrate 12345"),
        ('[can]\ntransport = "usb2can"\nport = "x"\nadapter = "damiao"\n', "can.adapter is for slcan"),
        ('[can]\ntransport = "socketcan"\nport = "can0"\nrate_hz = 2000\n', "can.rate_hz"),
        ('[can]\ntransport = "socketcan"\nport = "can0"\n[emulation]\nseed = 1\n', "wants one of"),
    ],
)
def test_a_motor_bus_that_makes_no_sense_is_refused(tmp_path: Path, can: str, message: str) -> None:
    with pytest.raises(StationError, match=message):
        load_station(make_station(tmp_path, can))


def test_a_real_arm_is_moved_only_with_leave(tmp_path: Path) -> None:
    folder = make_station(tmp_path, '[can]\ntransport = "socketcan"\nport = "can0"\n')
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "run", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--confirm-motion" in done.stderr


def test_two_signals_at_once_are_one_request_and_a_later_one_is_another() -> None:
    now_s = [0.0]
    requests = Requests(lambda: now_s[0])
    counts = []
    for now_s[0] in (0.0, 0.01, 1.9, 4.0, 4.1, 30.0):
        requests.heed(signal.SIGTERM)
        counts.append(requests.count)
    assert counts == [1, 1, 1, 2, 2, 3]
    requests.heed(signal.SIGINT)  # its supervisor hurries
    assert requests.count == 4


def test_a_mocked_station_wakes_and_is_stowed_when_it_is_stopped(tmp_path: Path) -> None:
    folder = make_station(tmp_path, '[can]\ntransport = "socketcan"\nport = "can0"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", "run", str(folder), "--mock"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "awake at its measured pose" in line:
            process.send_signal(signal.SIGTERM)
            break
    lines += process.stderr.readlines()
    assert process.wait() == 0, "".join(lines)
    told = [words for line in lines for words in TOLD if words in line]
    assert told == list(TOLD)


TOLD = ("about to be woken", "awake at its measured pose", "stowed at its rest and damped", "periods at")  # in order
MISSING = "/nowhere/adapter: cannot open the serial port"


def test_run_and_doctor_say_the_same_of_a_missing_adapter_and_nothing_is_tried_again(tmp_path: Path) -> None:
    folder = make_station(tmp_path, '[can]\ntransport = "usb2can"\nport = "/nowhere/adapter"\n')
    done = enpire_edge("run", folder, "--confirm-motion")
    assert (done.returncode, done.stderr.count(MISSING), "starting it again" in done.stderr) == (2, 1, False)
    assert "no restart cures that" in done.stderr.splitlines()[-1]
    read = enpire_edge("run", folder, "--read-only")
    assert (read.returncode, MISSING in read.stderr) == (2, True)
    examined = enpire_edge("doctor", folder).stdout
    assert MISSING in examined
    [sentence] = [line for line in done.stderr.splitlines() if MISSING in line]
    assert sentence[sentence.index(MISSING) :] in examined


def enpire_edge(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_station_that_is_both_is_refused_before_anything_is_started(emulated: Path) -> None:
    with (emulated / "station.toml").open("a") as file:
        file.write('[can]\ntransport = "socketcan"\nport = "can0"\n')
    done = enpire_edge("run", emulated)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert "and not both" in line


def test_a_station_with_another_s_ledger_is_not_started_again_and_again(emulated: Path) -> None:
    Ledger(emulated / "ledger.db", "other").close()
    done = enpire_edge("run", emulated)
    lines = done.stderr.splitlines()
    assert (done.returncode, "no restart cures that" in lines[-1]) == (2, True)
    assert f"{emulated}: an emulated station runs the trials" in lines[0]
    assert any("belongs to edge 'other', not 'station-1'" in line for line in lines)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((0, 0, 0), "0 late, 0 lost, 0 doubled, 0 of nobody"),
        ((91, 91, 0), "91 late, 0 lost, 0 doubled, 0 of nobody"),
        ((9, 7, 1), "7 late, 2 lost, 0 doubled, 1 of nobody"),
        ((7, 10, 0), "7 late, 0 lost, 3 doubled, 0 of nobody"),
    ],
)
def test_a_late_answer_is_told_as_late_and_neither_lost_nor_doubled(counts: tuple[int, int, int], text: str) -> None:
    assert answers_text(*counts) == text


def test_the_loop_goes_on_with_the_period_that_was_due(motors: Motors, tmp_path: Path) -> None:
    """A loop that began a period at each return would find no answers in it, and count them lost."""
    station = load_station(tmp_path / "station-1")
    loop = loop_of(station)
    runs = np.zeros(1, dtype=RUN)
    slots = Slots(tmp_path / "slots", create=True)
    words = [slots.words(name) for name, _ in LAYOUT]
    values = [np.zeros(1, dtype=dtype) for _, dtype in LAYOUT]
    assert station.can is not None
    with open_bus(station.can) as bus:
        began_ns = time.monotonic_ns()
        for ticks in range(1, 25):
            runs["most_ticks"] = ticks
            assert run(runs, bus.wires, *loop.records, *words, *values) == DONE
            assert int(runs["now_ns"][0]) - began_ns >= ticks * int(loop.records[0]["dt_s"][0] * 1e9)


def test_reading_only_shows_the_joints_and_enables_nothing(motors: Motors, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge.cli", "run", str(tmp_path / "station-1"), "--read-only"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while motors.read("heard") < 5 * 7:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert "+1.114" in out
    assert not motors.read("enabled").any()
