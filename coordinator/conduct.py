"""Conducts a campaign: serves the stations until the target, the budget or an interruption, then ends in order.

At the end no more work is handed out; the last recordings come in, the stations end their trials and send them, and
whatever has not ended by then is killed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.agents.crew import Crew
from coordinator.display import Display, View
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import ResearchContext, Researcher
from coordinator.fleet import Fleet, FleetError
from coordinator.journal import Journal
from coordinator.line_up import LineUp
from coordinator.network import Message, Network
from coordinator.publish.publisher import Publisher
from coordinator.reception import Desk, Reception
from coordinator.roster import Roster
from coordinator.scheduling.work import OFFLINE, Attempt
from coordinator.sessions import Session
from policies.space import SpaceError

LOG = logging.getLogger("coordinator.conduct")
TURN_S = 0.1
MOST_AT_ONCE = 64  # messages between two looks at the clock
TEND_PERIOD_S = 1.0
SHOW_PERIOD_S = 0.5
RECORDINGS_GRACE_S = 5.0  # for the last recordings, so that the report can show them
AHEAD_S = 180.0  # compiling takes one minute on two slow cores
HOME_S = 60.0  # for the stations of a campaign that was killed at its very end to start and say so
STOP_GRACE_S = 10.0  # for stations to end their trials and send them
MOST_PROPOSALS = 8  # in a row, should the campaign turn them down
COUNTS = """
SELECT edge, COUNT(*), SUM(outcome = 'success'), SUM(outcome = 'invalid') FROM trials GROUP BY edge
"""
REVOCATIONS = "SELECT DISTINCT bundle FROM pushes WHERE what = 'revoke'"
REACHED, BUDGET, INTERRUPTED = "the target was reached", "the budget was used up", "it was interrupted"
FINISHED = {
    "target": REACHED,
    "starts": "no fresh starts are left to decide on",
    "revoked": "the best policy was revoked",
}


@dataclass(frozen=True)
class Limits:
    """When a campaign ends."""

    title: str
    target: int
    budget_s: float
    interruptions: Callable[[], int]  # how often the user asked to stop: once is in order, twice is now


class Conductor:
    """Everything that a running campaign consists of."""

    def __init__(
        self, task: str, folder: Path, journal: Journal, researcher: Researcher | None, crew: Crew,
        publisher: Publisher, network: Network, fleet: Fleet, display: Display, limits: Limits,
    ) -> None:  # fmt: skip
        """Prepare; `researcher` costs nothing to ask and answers at once, None where it is not wanted."""
        store = publisher.store
        self.roster = Roster(fleet.names)
        desk = Desk(self._next_work, journal.record, journal.expire, journal.station)
        self._reception = Reception(task, store, publisher.lab.repository, self.roster, desk, folder)
        self._task, self._publisher = task, publisher
        self._journal, self._researcher, self._crew = journal, researcher, crew
        self._store, self._network, self._fleet = store, network, fleet
        self._display, self._limits = display, limits
        self._started_unix_s = time.time()
        self._session = Session(store, self._started_unix_s)
        self._trouble = ""  # the last thing that went wrong here while a message was taken in
        self._began_s = time.monotonic()
        self._ready_s: float | None = None  # since when all stations run; no clock that is set spends the budget
        self._line_up = LineUp(not fleet.paced and len(fleet.names) > 1, limits.budget_s)
        self._tend_at_s = self._take_at_s = 0.0
        self._show_at_s = 0.0

    def restore(self) -> None:
        """Go on where an earlier process was: its leases, its counts, and what came that it did not take in.

        Raises:
            CoordinatorError: the store cannot be read or written.
        """
        self._reception.restore()
        self._journal.catch_up(time.time())
        for edge in self._fleet.names:  # until it is heard of, nothing waits for it alone
            self._journal.station(edge, "away", time.time())
        for edge, trials, successes, invalid in self._store.rows(COUNTS):
            view = self.roster.view(edge)
            view.trials, view.successes, view.invalid = trials - invalid, successes, invalid
            self.roster.delivered_count += trials

    def go(self) -> str:
        """Run the campaign and return why it ended; no station runs afterwards.

        Raises:
            CoordinatorError: something failed here; the stations keep what they had not delivered.
        """
        try:
            self._display.say("starting the first station; the first time ever it compiles kernels for a minute")
            self._fleet.start()
            if self._journal.campaign.finished:
                self._bring_home()
            while not (why := self._over()):
                self._turn()
            self._end()
            return why
        finally:
            self._fleet.kill()
            self._crew.close()
            self._display.stop()

    # -- what the reception asks --------------------------------------------------------------------------------------

    def _next_work(self, edge: str, now_unix_s: float, ahead: int) -> Sequence[Attempt]:
        if not self._may_work():
            return ()
        self._ask(now_unix_s)
        work = self._journal.next_work(edge, now_unix_s, ahead)
        attempts = () if work is None else work.attempts
        try:
            for bundle in {item.bundle for item in attempts}:
                self._publisher.offer(self._task, bundle)
        except (CoordinatorError, OSError):
            for item in attempts:  # nobody is told of them
                self._journal.expire(item.assignment_id, now_unix_s)
            raise
        return attempts

    def _may_work(self) -> bool:
        started_for_s = None if self._ready_s is None else time.monotonic() - self._ready_s
        return self._line_up.may_work(started_for_s, bool(self._journal.campaign.waits_for), self._all_ready)

    def _all_ready(self) -> bool:
        views = [self.roster.view(name) for name in self._fleet.able]
        return all(view.here and view.state != "starting" for view in views)

    def _ask(self, now_unix_s: float) -> None:
        """Have researchers think about what the campaign wants; one with nothing left to propose is passed over."""
        self._ask_to_play(now_unix_s)
        for _ in range(MOST_PROPOSALS):
            names = [*self._crew.idle(), *([OFFLINE] if self._researcher is not None else [])]
            context = self._journal.wants(now_unix_s, names[0]) if names else None
            if context is None:
                return
            name = self._crew.choose(names, self._journal.campaign.candidates)
            if name != names[0]:  # its own number of proposals is in what it is shown
                context = self._journal.wants(now_unix_s, name) or context
            if name != OFFLINE:
                self._crew.think(name, context, now_unix_s)
            elif not self._propose(context, now_unix_s):
                return

    def _ask_to_play(self, now_unix_s: float) -> None:
        journal, researcher = self._journal, self._researcher
        if researcher is not None and (context := journal.wants_play(now_unix_s, researcher.name)) is not None:
            play = researcher.play(context)
            if play is not None:
                journal.play(play, researcher.name, now_unix_s)

    def _propose(self, context: ResearchContext, now_unix_s: float) -> bool:
        """Hand in what the researcher that costs nothing proposes; return whether there was anything."""
        assert self._researcher is not None
        try:
            proposal = self._researcher.propose(context)
        except SpaceError as error:
            self._told_once(str(error))
            return False
        self._journal.propose(proposal, self._researcher.name, now_unix_s)
        return True

    def _take_offers(self, now_s: float) -> None:
        """Hand in what agents brought; what cannot be handed in now is tried again a little later."""
        if now_s < self._take_at_s:
            return
        try:
            for line in self._crew.take(self._journal, time.time()):
                self._display.say(line, "yellow")
        except (CoordinatorError, OSError) as error:
            self._take_at_s = now_s + TEND_PERIOD_S
            self._told_once(str(error))

    # -----------------------------------------------------------------------------------------------------------------

    def _over(self) -> str:
        if why := self._journal.campaign.finished:
            return FINISHED[why]
        if self._limits.interruptions():
            return INTERRUPTED
        return BUDGET if self.elapsed_s() >= self._limits.budget_s else ""

    def _turn(self) -> None:
        self._serve()
        if self._ready_s is None:
            self._start_rest()
        now_s = time.monotonic()
        self._take_offers(now_s)
        if now_s >= self._tend_at_s:
            self._tend_at_s = now_s + TEND_PERIOD_S
            self._tend_crew()
            self._reception.tend(time.time())
            self._tend_lab()
            self._tend_fleet()
            self._session.ran(self.elapsed_s() - self._session.before_s)
        self._show()

    def _start_rest(self) -> None:
        """Start the others once the first has brought a trial, and so compiled all; the budget runs from then on.

        They wait no longer than AHEAD_S, as the first one may be the one that fails.
        """
        if self.roster.delivered_count or time.monotonic() - self._began_s > AHEAD_S:
            self._ready_s = time.monotonic()
            self._fleet.start_rest()
            if not self._line_up.over:
                self._display.say("starting the other stations; all begin together")

    def elapsed_s(self) -> float:
        """Return how long the campaign has run, in earlier processes too."""
        return self._session.before_s + (0.0 if self._ready_s is None else time.monotonic() - self._ready_s)

    def _show(self) -> None:
        if time.monotonic() >= self._show_at_s:
            self._show_at_s = time.monotonic() + SHOW_PERIOD_S
            self._display.show(self._view(time.time()))

    def _serve(self) -> None:
        """Answer what has come, waiting a moment for the first."""
        message = self._network.take(TURN_S)
        for _ in range(MOST_AT_ONCE):
            if message is None:
                return
            self._handle(message)
            message = self._network.take(0.0)
        if message is not None:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        """Take in one message; one that cannot be kept here got no answer, and its station keeps what it brought."""
        try:
            self._reception.handle(message, time.time())
        except (CoordinatorError, OSError) as error:  # a full disk, say
            self._told_once(str(error))

    def _told_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            LOG.error("%s", trouble)
            self._display.say(trouble, "red")
        self._trouble = trouble

    def _tend_fleet(self) -> None:
        for edge, sentence in self._fleet.tend():
            LOG.warning("%s %s", edge, sentence)
            self._store.note("warning", sentence, edge, time.time())
            self._display.say(f"{edge} {sentence}", "yellow")
        if self._fleet.hopeless:
            raise FleetError(f"every station refused to run: {self._fleet.last_refusal}")

    def _tend_lab(self) -> None:
        """Keep what is signed from growing stale, and test nothing that a person has revoked: no station runs it."""
        try:
            self._publisher.lab.renew()
            asked = {row[0] for row in self._store.rows(REVOCATIONS)} & self._journal.campaign.bundles
            for bundle in sorted(asked & set(self._publisher.lab.repository.revoked() if asked else ())):
                self._journal.revoke(bundle, time.time())
                self._display.say(f"policy {bundle[:12]} was revoked and is tested no longer", "yellow")
        except (CoordinatorError, OSError) as error:
            self._told_once(str(error))

    def _tend_crew(self) -> None:
        try:
            for line in self._crew.tend(time.time()):
                LOG.info("%s", line)
                self._display.say(line, "yellow")
        except (CoordinatorError, OSError) as error:  # a full disk, say; the next time tries again
            self._told_once(str(error))

    def _bring_home(self) -> None:
        """Start the stations of a campaign that has ended, for what they hold; no work is handed out."""
        self._reception.closed = True
        self._fleet.start_rest()
        started = self.roster.stations
        self._serve_while(lambda: not all(view.here and view.state != "starting" for view in started), HOME_S)

    def _end(self) -> None:
        self._reception.closed = True
        self._crew.halt()
        self._display.say("ending: stations finish what they are doing and send it")
        self._serve_while(lambda: self._store.recordings_missing() > 0, RECORDINGS_GRACE_S)
        self._fleet.ask_stop()
        self._serve_while(lambda: self._fleet.running, STOP_GRACE_S)
        self._serve()
        for station in self.roster.stations:
            self._store.peak_memory(station.edge, station.peak_memory_mb)

    def _serve_while(self, wanted: Callable[[], bool], at_most_s: float) -> None:
        deadline_s = time.monotonic() + at_most_s
        while wanted() and time.monotonic() < deadline_s and self._limits.interruptions() < 2:
            self._serve()
            self._show()

    def _view(self, now_unix_s: float) -> View:
        return View(
            title=self._limits.title,
            elapsed_s=self.elapsed_s(),
            budget_s=self._limits.budget_s,
            trials=self.roster.delivered_count,
            per_minute=self.roster.per_minute(now_unix_s, self._started_unix_s),
            target=self._limits.target,
            snapshot=self._journal.campaign.snapshot(),
            stations=self.roster.stations,
        )
