"""The agents of a running campaign: whom to ask, what they bring, what people told of them, and what they cost.

- Agents think in threads of their own; nothing here waits for one but `close`.
- An agent's proposal is made against the incumbent that it was shown and says so; the campaign merges it. Why it was
  turned down, or why nothing came, is told to the agent the next time that it is asked.
- Each call of a model is in the ledger before its answer goes on. A campaign that goes on fills its purse from the
  ledger and its lanes' time from the table `lanes`, so that no budget begins anew. A thought that was cut short by a
  kill is lost, what it cost is not.
- What people order is in the table `lane_orders`; a campaign that goes on obeys all of it again, in the same order.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coordinator.agents import hiring, orders, scratch, shelf
from coordinator.agents.accounts import Accounts
from coordinator.agents.assignments import assignment
from coordinator.agents.calls import Patience
from coordinator.agents.choice import Record, choose
from coordinator.agents.coding_agent import CodingAgent, Fleet, Model
from coordinator.agents.hiring import Hired, Wanted
from coordinator.agents.lanes import Lanes, Offer
from coordinator.agents.pack import Robots
from coordinator.agents.prices import NANO_USD
from coordinator.agents.purse import Budget, Purse
from coordinator.agents.transcripts import FOLDER, keep_words
from coordinator.agents.trial_desk import TrialDesk
from coordinator.errors import CoordinatorError
from coordinator.evolution.candidate import Candidate
from coordinator.evolution.ideas import ResearchContext, Researcher
from coordinator.journal import Journal
from coordinator.store import Store

UNDECIDED = ("screen", "gate")
TIME_SPENT = "the agents' minutes are used up"
PAUSED = "paused by a person"
CANNOT = "cannot obey"
LAST_REFUSAL = """
SELECT reason FROM refusals WHERE researcher = ? AND unix_s >
    (SELECT COALESCE(MAX(created_unix_s), 0) FROM hypotheses WHERE researcher = ?)
AND kind != 'play' ORDER BY refusal_id DESC LIMIT 1
"""
INTO_LANES = "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Place:
    """Where a crew works."""

    task: str
    folder: Path  # of the run
    seed: int
    minutes_left: Callable[[], float]  # of the campaign; asked from any thread


@dataclass
class _Seat:
    """One lane's row."""

    kind: str
    model: str
    proposals: int = 0  # of earlier processes
    failures: int = 0
    thought_s: float = 0.0  # thoughts that have ended, of all processes
    began_s: float | None = None  # since when it thinks
    began_unix_s: float = 0.0
    refused: str = ""  # why its last change was not taken
    written: tuple[object, ...] = ()  # the row as it is in the database


class Crew:
    """All agents of one campaign; to be used by the thread that conducts it."""

    def __init__(self, wanted: Wanted, place: Place, store: Store, patience: Patience | None = None) -> None:
        """Open the lanes that are wanted, and obey what was ordered before.

        Args:
            patience: with the models' vendors.

        Raises:
            HiringRefused: one of them cannot run here.
            StoreError, OSError: what they have cost cannot be read or kept.
        """
        hired = hiring.hire(wanted)
        scratch.sweep()
        self._wanted, self._place, self._store = wanted, place, store
        self._patience = patience or Patience()
        self._purse = Purse(_budget(wanted), time.monotonic())
        self._minutes = wanted.minutes
        self._accounts = Accounts(place.folder, store, self._purse)
        self._prices = hiring.prices_of(wanted)
        self._trials = TrialDesk(store, wanted.dev_trials)
        self._lanes, self._seats, self._counted = Lanes(), dict[str, _Seat](), Counter[str]()
        self._offers: deque[Offer] = deque()
        self._rng = np.random.default_rng([place.seed, 0xA6])
        self._obeyed = 0
        for one in hired:
            self._open(one)
        self._said = [line for line in self._obey() if line.startswith(CANNOT)]
        if wanted.unsafe:
            self._said.append("agents run without a cage: what they find proves nothing")

    # -- asking -------------------------------------------------------------------------------------------------------

    def idle(self) -> list[str]:
        """Return who may be asked: who thinks about nothing, and whose last thought was taken."""
        if self._out_of_time():
            return []
        return [name for name in self._lanes.idle(time.monotonic()) if self._seats[name].began_s is None]

    def choose(self, names: Sequence[str], candidates: Iterable[Candidate]) -> str:
        """Return whom to ask of these, agents or others: who brought most for what it cost, as far as is known."""
        if len(names) == 1:
            return names[0]
        decided = [item for item in candidates if item.state not in UNDECIDED]
        return choose([self._record(name, decided) for name in names], self._rng)

    def think(self, name: str, context: ResearchContext, now_unix_s: float) -> None:
        """Let an agent think about this.

        Raises:
            StoreError: what it has used up cannot be read; it does not think then.
        """
        self._trials.begin(name)
        seat = self._seats[name]
        self._lanes.think(name, replace(context, refused=seat.refused), time.monotonic())
        seat.began_s, seat.began_unix_s, seat.refused = time.monotonic(), now_unix_s, ""

    def take(self, journal: Journal, now_unix_s: float) -> Iterator[str]:
        """Hand what the agents brought or asked for to the campaign, and yield what people are to be told.

        Raises:
            CoordinatorError: it could not be published or written; it is handed in the next time.
        """
        self._offers.extend(self._lanes.offers())
        while self._offers:
            offer = self._offers[0]
            self._ended(offer)
            self._accounts.follow()
            reason = self._hand_in(offer, journal, now_unix_s)
            self._offers.popleft()
            seat = self._seats[offer.lane]
            seat.refused = reason
            keep_words(self._place.folder, self._store, offer.lane, now_unix_s)
            if reason:
                if offer.proposal is not None:
                    self._lanes.turned_down(offer.lane, reason, time.monotonic())
                self._store.note("warning", reason, None, now_unix_s)
                yield reason
            else:
                self._lanes.taken(offer.lane)
                self._accounts.led_to(offer.lane, seat.began_unix_s)
        yield from self._trials.serve(journal, now_unix_s)

    def tend(self, now_unix_s: float) -> list[str]:
        """Obey new orders, bring the tables up to date, and return what people are to be told."""
        said, self._said = [*self._said, *self._obey()], []
        self._accounts.follow()
        if self._out_of_time():
            self._lanes.halt(TIME_SPENT)
        self._write_rows()
        return said

    def halt(self) -> None:
        """End all thinking without waiting for it."""
        self._lanes.halt("the campaign is over")

    def close(self) -> None:
        """End all thinking; no agent runs afterwards."""
        ended = self._lanes.close()
        for offer in self._lanes.offers():
            self._ended(offer)
        with suppress(CoordinatorError, OSError):  # a full disk takes this no more than the rest; the ledger has it
            self._accounts.follow()
            self._write_rows()
        if ended:
            self._accounts.close()

    # -- what came ----------------------------------------------------------------------------------------------------

    def _hand_in(self, offer: Offer, journal: Journal, now_unix_s: float) -> str:
        """Return why an offer is not tested; nothing where it is."""
        if offer.proposal is None:
            return offer.failure
        proposal = replace(offer.proposal, base=offer.context.incumbent_id)
        reason = journal.propose(proposal, offer.lane, now_unix_s)
        return reason and f"{offer.lane}'s proposal is not tested: {' '.join(reason.split())}"

    def _ended(self, offer: Offer) -> None:
        """Book a thought's time, and let its lane ask for nothing more; again changes nothing."""
        self._trials.end(offer.lane)
        seat = self._seats[offer.lane]
        if seat.began_s is not None:
            seat.thought_s += offer.seconds
            seat.began_s = None

    def _record(self, name: str, decided: Sequence[Candidate]) -> Record:
        mine = [item for item in decided if item.researcher == name]
        seat = self._seats.get(name)
        return Record(
            name,
            len(mine),
            sum(item.state == "accepted" for item in mine),
            self._accounts.nano_usd[name] / NANO_USD,
            0.0 if seat is None else seat.thought_s / 60.0,
            sum(item.station_s for item in mine) / 60.0
            + (0.0 if seat is None else self._trials.station_s(name) / 60.0),
        )

    # -- lanes --------------------------------------------------------------------------------------------------------

    def _open(self, one: Hired) -> None:
        for _ in range(one.count):
            self._counted[one.kind] += 1
            name = f"{one.kind}-{self._counted[one.kind]}"
            query = "SELECT proposals, failures, thought_s FROM lanes WHERE lane = ?"
            before = self._store.rows(query, name)
            refused = self._store.rows(LAST_REFUSAL, name, name)
            self._seats[name] = _Seat(one.kind, one.model, *(before[0] if before else ()))
            self._seats[name].refused = refused[0][0] if refused else ""
            self._lanes.add(self._agent(name, one))

    def _agent(self, name: str, one: Hired) -> Researcher:
        place, folder = self._place, self._place.folder / FOLDER
        purse = Purse(Budget(), time.monotonic(), parent=self._purse)
        model = Model(one.model, one.provider, purse, self._prices, self._accounts.book, self._patience)
        window = self._trials.window(name)
        fleet = None if window is None else Fleet(window, place.folder)

        def robots() -> Robots:
            return Robots(minutes=max(0.0, place.minutes_left()), dev_trials=None if window is None else window.left)

        work = assignment(
            place.task,
            place.task,
            robots=robots,
            records=one.client is not None,
            dev_trials=fleet is not None,
        )
        if one.client is None:
            from coordinator.agents.messages import MessagesResearcher  # an optional package

            pictures = shelf.pictures(place.folder)
            return MessagesResearcher(name, model, work, folder, pictures, run=place.folder, fleet=fleet)
        shown, unsafe = shelf.shows(place.folder, fleet is not None), self._wanted.unsafe
        return CodingAgent(name, one.client, one.programs, model, work, folder, unsafe=unsafe, shows=shown, fleet=fleet)

    def _obey(self) -> list[str]:
        """Obey the orders that are new; one that cannot be obeyed costs a line."""
        said = []
        for order in orders.after(self._store, self._obeyed):
            self._obeyed = order.order_id
            try:
                self._obey_one(order)
                said.append(f"ordered of the agents: {order.what} {order.about}")
            except (CoordinatorError, ValueError) as error:
                said.append(f"{CANNOT} {order.what} {order.about}: {error}")
        return said

    def _obey_one(self, order: orders.Order) -> None:
        match order.what:
            case "pause":
                self._lanes.pause(order.about, PAUSED)
            case "go":
                self._lanes.resume(order.about)
            case "stop":
                self._stop(order.about)
            case "add":
                for one in hiring.hire(replace(self._wanted, researchers=(order.about,))):
                    self._open(one)
            case _:
                self._allow(order)

    def _stop(self, name: str) -> None:
        self._lanes.remove(name)
        self._trials.end(name)
        seat = self._seats[name]
        if seat.began_s is not None:
            seat.thought_s += time.monotonic() - seat.began_s
            seat.began_s = None

    def _allow(self, order: orders.Order) -> None:
        """Change a budget, and let those go on who had stopped for it."""
        if order.what == "minutes":
            self._minutes = order.amount
        elif order.what == "usd":
            self._purse.allow(replace(self._purse.budget, nano_usd=round(order.amount * NANO_USD)))
        else:
            self._purse.allow(replace(self._purse.budget, tokens=int(order.amount)))
        for lane in self._lanes.states(time.monotonic()):
            if lane.state == "halted" and lane.why != PAUSED:
                self._lanes.resume(lane.lane)

    def _thought_s(self, seat: _Seat) -> float:
        return seat.thought_s + (0.0 if seat.began_s is None else time.monotonic() - seat.began_s)

    def _out_of_time(self) -> bool:
        thought_s = sum(map(self._thought_s, self._seats.values()))
        return self._minutes is not None and not thought_s < 60.0 * self._minutes

    def _write_rows(self) -> None:
        """Write the lanes that are not as they were written."""
        known = {lane.lane: lane for lane in self._lanes.states(time.monotonic())}
        changed = []
        for name, seat in self._seats.items():
            lane = known.get(name)
            state, why = ("stopped", "stopped by a person") if lane is None else (lane.state, lane.why)
            done = (0, 0) if lane is None else (lane.proposals, lane.failures)
            counts = (seat.proposals + done[0], seat.failures + done[1], round(self._thought_s(seat), 1))
            row = (name, seat.kind, seat.model, state, why, *counts)
            if row != seat.written:
                changed.append((seat, row))
        if changed:
            with self._store.transaction() as db:
                db.executemany(
                    "INSERT OR REPLACE INTO lanes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [row for _, row in changed]
                )
        for seat, row in changed:
            seat.written = row


def _budget(wanted: Wanted) -> Budget:
    return Budget(wanted.tokens, None if wanted.usd is None else round(wanted.usd * NANO_USD))
