"""The process of one Gymnasium station: the environment, the trial runner and the status.

There is no arm, so there is no control kernel and no guard: nothing here can move anything outside this process.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import cv2

from calibration.records import CalibrationError
from edge.activation.journal import ActivationError, Journal
from edge.gym_station.bench import EnvironmentFault, GymBench, NoEnvironment
from edge.gym_station.task import GymTask
from edge.ledger import Ledger, LedgerError
from edge.messages import ArmState, Setpoint
from edge.retention import Retention
from edge.sandbox.process import PolicyHost, SandboxError
from edge.station import Station, StationError, load_station
from edge.trials.armless import ArmlessRobot
from edge.trials.board import Board, open_journal
from edge.trials.robot import Bench
from edge.trials.rollout import Rollout
from edge.trials.runner import Rig, work

LOG = logging.getLogger("edge.gym_station")
POLL_S = 0.02


def run(station: Station, pace: float) -> None:
    """Work on leases until SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    assert station.gym is not None
    retention = Retention(station)
    bench = GymBench(station.gym, pace, pictures=station.recording.camera != "none")
    LOG.info("%s: %s, no arm, so no control and no guard", station.name, station.gym.environment)
    board = Board(station, lambda: bench.now_s, retention)

    def wait() -> None:
        board.beat()
        stop.wait(POLL_S)

    def again(why: str) -> bool:
        board.say("fault", why, None, 0)
        wait()
        return not stop.is_set()

    try:
        with (
            PolicyHost() as host,
            retention.insist(lambda: Ledger(station.folder / "ledger.db", station.name), again) as ledger,
            open_journal(station.folder, again) as journal,
        ):
            work(rig_of(station, bench, board, host, ledger, journal, retention, stop, wait))
        board.say("stopped", "", None, 0)
    finally:
        bench.close()


def rig_of(
    station: Station,
    bench: GymBench,
    board: Board,
    host: PolicyHost,
    ledger: Ledger,
    journal: Journal,
    retention: Retention,
    stop: threading.Event,
    wait: Callable[[], None],
) -> Rig:
    """Return what the trial runner works with."""
    assert station.gym is not None

    def advance(setpoint: Setpoint) -> ArmState:
        board.beat()
        return bench.advance(setpoint)

    drivers = Bench(advance, bench.state, bench.look, stop.is_set, restart=lambda: None, limit=lambda _: None)
    robot = ArmlessRobot(drivers, station, lambda: bench.episode)
    return Rig(
        station=station,
        task=GymTask(station.task, station.gym, bench),
        robot=robot,
        host=host,
        ledger=ledger,
        retention=retention,
        rollout=Rollout(station, host, ledger, journal, robot, None),
        station_time_s=lambda: bench.now_s,
        stop_asked=stop.is_set,
        say=board.say,
        wait=wait,
    )


def main(arguments: list[str]) -> int:
    """Run the station in the folder named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    cv2.setNumThreads(1)
    try:
        station = load_station(Path(arguments[-1] if arguments[0] == "--check" else arguments[0]))
        if station.gym is None:
            raise StationError(f'{station.folder}: station.toml has no [station] with kind = "gymnasium"')
        if arguments[0] == "--check":
            GymBench(station.gym).close()
            return 0
        run(station, float(arguments[1]) if len(arguments) > 1 else 0.0)
    except (StationError, CalibrationError, NoEnvironment) as error:
        LOG.error("%s", error)
        return 2
    except (LedgerError, ActivationError, SandboxError, EnvironmentFault, OSError) as error:  # a new start may cure it
        LOG.error("%s", error)
        return 1
    return 0
