"""The process of one emulated station: drivers, trial runner and status, over one lock-step world."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import cv2

from calibration.records import CalibrationError
from edge.activation.journal import ActivationError, Journal
from edge.control.loop import ControlError
from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import NoGraphics, World
from edge.ledger import Ledger, LedgerError
from edge.messages import ArmState, Setpoint
from edge.planning.kinematics import chain_of
from edge.retention import Retention
from edge.sandbox.process import PolicyHost, SandboxError
from edge.station import Station, StationError, load_station
from edge.trials.board import Board, open_journal
from edge.trials.judges import TASKS
from edge.trials.robot import Bench, StationRobot
from edge.trials.rollout import Rollout
from edge.trials.runner import VERIFY_LIMIT_S, Rig, work
from firmware_bridge.fault_script import FaultScript, FaultScriptError
from policies.interface import ToolTarget

LOG = logging.getLogger("edge.emulation")
POLL_S = 0.02


def run(station: Station, pace: float) -> None:
    """Work on leases until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    assert station.emulation is not None
    retention = Retention(station)
    with PolicyHost() as host:
        faults = None if station.emulation.faults is None else FaultScript.load(station.emulation.faults)
        world = World(station, station.emulation.seed, faults)
        try:
            bench = EmulatedBench(station, world, pace)
            board = Board(station, lambda: bench.now_s, retention)

            def wait() -> None:
                board.beat()
                stop.wait(POLL_S)

            def again(why: str) -> bool:
                board.say("fault", why, None, 0)
                wait()
                return not stop.is_set()

            # A full disk may have no room for the files that a ledger is opened with.
            with (
                retention.insist(lambda: Ledger(station.folder / "ledger.db", station.name), again) as ledger,
                open_journal(station.folder, again) as journal,
            ):
                work(_rig(station, bench, board, host, ledger, journal, retention, stop, wait))
            board.say("stopped", "", None, 0)
        finally:
            world.close()


def _rig(
    station: Station,
    bench: EmulatedBench,
    board: Board,
    host: PolicyHost,
    ledger: Ledger,
    journal: Journal,
    retention: Retention,
    stop: threading.Event,
    wait: Callable[[], None],
) -> Rig:
    def advance(setpoint: Setpoint) -> ArmState:
        board.beat()
        return bench.advance(setpoint)

    drivers = Bench(advance, bench.state, bench.look, stop.is_set, bench.power_up, bench.limit)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    robot = StationRobot(drivers, chain, station, gripper_m=0.0)
    return Rig(
        station=station,
        task=TASKS[station.task](),
        robot=robot,
        host=host,
        ledger=ledger,
        retention=retention,
        rollout=Rollout(station, host, ledger, journal, robot, chain),
        station_time_s=lambda: bench.now_s,
        stop_asked=stop.is_set,
        say=board.say,
        wait=wait,
    )


def check(folder: Path | None) -> None:
    """Move and look once, in a station of its own where none is given: everything that compiles is then compiled.

    Raises:
        StationError, CalibrationError, NoGraphics: why a station could not run here.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            make_stations(Path(temporary), 1, 1, "push_t", "tcp/127.0.0.1:1")
            folder = Path(temporary) / "station-1"
        station = load_station(folder)
        world = World(station, 1)
        try:
            bench = EmulatedBench(station, world)
            drivers = Bench(bench.advance, bench.state, bench.look, lambda: False, bench.power_up, bench.limit)
            chain = chain_of(station.arm, station.tool.length_m, station.limits)
            robot = StationRobot(drivers, chain, station, gripper_m=0.0)
            robot.begin(1.0)
            robot.step(ToolTarget(robot.observe().tool_position_m))
            robot.begin(VERIFY_LIMIT_S)
            TASKS[station.task]().verify(robot, {})
        finally:
            world.close()


def main(arguments: list[str]) -> int:
    """Run the station in the folder named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    cv2.setNumThreads(1)
    try:
        if arguments[0] == "--check":
            check(Path(arguments[1]) if len(arguments) > 1 else None)
            return 0
        station = load_station(Path(arguments[0]))
        if station.emulation is None:
            raise StationError(f"{station.folder}: not an emulated station: station.toml has no [emulation]")
        if station.task not in TASKS:
            raise StationError(f"{station.folder}: unknown task {station.task!r}; known: {', '.join(TASKS)}")
        run(station, float(arguments[1]) if len(arguments) > 1 else 0.0)
    except (StationError, CalibrationError, NoGraphics, FaultScriptError) as error:
        LOG.error("%s", error)
        return 2
    except (
        LedgerError,
        ActivationError,
        SandboxError,
        ControlError,
        OSError,
    ) as error:  # a new start may find it cured
        LOG.error("%s", error)
        return 1
    return 0
