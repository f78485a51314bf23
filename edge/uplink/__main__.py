"""`python -m edge.uplink STATION_DIR`: the process that carries a station's work and evidence.

It needs nothing from the station's process but the ledger, and the station needs nothing from it: with the coordinator
away trials stay in the ledger. SIGTERM sends what is left once more and ends.
"""

from __future__ import annotations

import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import msgpack

from edge import software
from edge.activation.journal import ActivationError, Journal
from edge.ledger import DiskFull, Ledger, LedgerError
from edge.ledger_file import NotThisLedger
from edge.status import Status, StatusError, read_status
from edge.trust.client import Trust
from edge.uplink.courier import Courier
from edge.uplink.fetcher import ZenohFetcher
from edge.uplink.late_supply import LateSupply
from edge.uplink.memory import own_group_memory_mb
from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.uplink.settings import Settings, UplinkError, read_settings
from edge.uplink.standing import describe
from edge.uplink.supply import Supply

LOG = logging.getLogger("edge.uplink")
TURN_S = 0.05
STATUS_PERIOD_S = 0.5
STATUSES_A_MEMORY = 4  # walking the page tables of a large process costs milliseconds
FIRST_BACK_OFF_S = 0.1
LONGEST_BACK_OFF_S = 2.0
LAST_WORDS_S = 3.0


def main(arguments: list[str]) -> int:
    """Carry until SIGTERM; return 0, 2 where the station's files are wrong or another's, 1 where the ledger fails."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("tuf").setLevel(logging.WARNING)  # it tells of each key that need not have signed
    if len(arguments) != 1:
        print("usage: python -m edge.uplink STATION_DIR", file=sys.stderr)
        return 2
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: _set(stop, number, frame))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor says when: after the station
    try:
        settings = read_settings(Path(arguments[0]))
        with (
            _open_ledger(settings, stop) as ledger,
            Coordinator(settings.endpoint, settings.name, settings.tls) as coordinator,
            _supply(settings, coordinator) as supply,
        ):
            _carry(settings, ledger, coordinator, supply, stop)
    except (UplinkError, NotThisLedger) as error:
        LOG.error("%s", error)
        return 2
    except LedgerError as error:  # a new start may find it cured
        LOG.error("%s", error)
        return 1
    return 0


def _open_ledger(settings: Settings, stop: threading.Event) -> Ledger:
    """Open the ledger, waiting for room where the disk is full: the station waits for it too.

    Raises:
        LedgerError: it cannot be opened, or a stop came first.
    """
    said = False
    while True:
        try:
            return Ledger(settings.ledger_path, settings.name)
        except DiskFull as error:
            if not said:
                LOG.warning("waiting: %s", error)
            said = True
            if stop.wait(LONGEST_BACK_OFF_S):
                raise


def _supply(settings: Settings, coordinator: Coordinator) -> LateSupply:
    trust = Trust(settings.trust, ZenohFetcher(coordinator, settings.name))
    return LateSupply(settings.journal_path, lambda journal: Supply(settings, trust, journal))


def back_off_s(failures: int, draw: float) -> float:
    """Return how long to wait after so many failures in a row; `draw` in [0, 1) spreads a fleet out."""
    longest_s = min(FIRST_BACK_OFF_S * 2.0 ** min(failures - 1, 16), LONGEST_BACK_OFF_S)
    return longest_s * (0.5 + 0.5 * draw)


def _carry(
    settings: Settings, ledger: Ledger, coordinator: Coordinator, supply: LateSupply, stop: threading.Event
) -> None:
    courier = Courier(settings, ledger, coordinator, supply, software.versions())
    reporter = threading.Thread(target=_report, args=(settings, courier, coordinator, stop), daemon=True)
    reporter.start()
    keep_certificate = _certificate_keeper(settings, coordinator)
    failures = 0
    while not stop.is_set():
        keep_certificate(time.time(), time.monotonic())
        try:
            more = courier.turn(time.time())
            if failures and courier.answered:
                LOG.info("the coordinator at %s answers again", coordinator.endpoint)
                failures = 0
            stop.wait(0.0 if more else TURN_S)
        except (NoAnswer, Refused, LedgerError) as error:
            courier.lost_touch()
            if not failures:
                LOG.warning("%s", _explain(error, coordinator.endpoint))
            failures += 1
            stop.wait(back_off_s(failures, random.random()))
    if not courier.send_last(LAST_WORDS_S, time.time()):
        LOG.warning("some trials could not be sent; they are in %s and go out at the next start", settings.ledger_path)
    reporter.join()


def _certificate_keeper(settings: Settings, coordinator: Coordinator) -> Callable[[float, float], object]:
    """Return what keeps the station's certificate young, given the date and a clock that nobody sets."""
    if settings.tls is None:
        return lambda now_unix_s, now_s: None
    from edge.uplink.renewal import Renewal  # which costs 2 MB

    return Renewal(settings.tls, settings.name, coordinator).tend


def _report(settings: Settings, courier: Courier, coordinator: Coordinator, stop: threading.Event) -> None:
    """Publish what the station does, until stopped."""
    journal: Journal | None = None  # its own, as a connection is of one thread; it may not open
    count = 0
    while not stop.is_set():
        if count % STATUSES_A_MEMORY == 0:
            courier.memory_mb = own_group_memory_mb()
        count += 1
        try:
            status = read_status(settings.status_path)
        except (StatusError, OSError) as error:
            status = _without_status(settings, str(error))
        courier.busy = status is not None and status.state == "trial"
        message = asdict(status or _without_status(settings, "the station has not started yet"))
        message |= {"memory_mb": courier.memory_mb, "refusal": courier.refusal}
        with suppress(ActivationError):  # the next one may say more
            journal = journal or Journal(settings.journal_path)
            message["rollouts"] = describe(journal)
        coordinator.publish_status(msgpack.packb(message))
        stop.wait(STATUS_PERIOD_S)
    if journal is not None:
        journal.close()


def _without_status(settings: Settings, detail: str) -> Status:
    return Status(settings.name, "starting", detail, "", "", 0, 0.0, time.time(), 0.0)


def _explain(error: Exception, endpoint: str) -> str:
    if isinstance(error, NoAnswer):
        return f"no coordinator at {endpoint} ({error}); work goes on, trials are kept here and sent when it is back"
    return str(error)


def _set(stop: threading.Event, number: int, frame: FrameType | None) -> None:
    stop.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
