"""Keeps every call of a campaign with what it gave, so that the campaign can be had again after a kill.

- A call and its events are written in one transaction, before anybody hears of them. A call that the disk did not take
  is written with the next one.
- `chain` names a call and all before it together with the events and the work that they gave. A version of this program
  that decides differently is found by it, and refused.
- A resumed campaign takes in what came meanwhile: trials that were kept and not recorded, and attempts that nobody
  holds. What was decided is not decided again.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from coordinator.campaign import Campaign
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import Play, Proposal, ResearchContext
from coordinator.evolution.records import CandidateMade, Event, HypothesisMade
from coordinator.rows import write_event
from coordinator.scheduling.work import Work
from coordinator.store import Store
from edge.records import Outcome, Trial

Payload = dict[str, Any]
Given = Work | str | None  # what a call returned
Told = Callable[[Sequence[Event], float], None]  # events, now
TEXTS = ("measures", "achieved_start", "notes")  # of a trial, JSON in the database
# Trials that were kept and whose recording by the campaign was not, in the order in which they came.
UNRECORDED = """
SELECT edge, epoch, sequence FROM trials
WHERE json_array(edge, epoch, sequence) NOT IN
    (SELECT json_extract(payload, '$.trial') FROM campaign_log WHERE call = 'record')
ORDER BY received_unix_s, rowid
"""


class JournalRefused(CoordinatorError):
    """A campaign cannot be had again from its journal."""


@dataclass(frozen=True)
class Entry:
    """A row of `campaign_log`."""

    seq: int
    unix_s: float
    call: str
    payload: str
    chain: str


class Journal:
    """A campaign whose calls are kept; use it in the campaign's place."""

    def __init__(self, campaign: Campaign, store: Store, told: Told, last: Entry | None = None) -> None:
        """Go on after `last`."""
        self.campaign = campaign
        self._store, self._told = store, told
        self._seq, self._chain = (0, "") if last is None else (last.seq, last.chain)
        self._unkept: list[tuple[Entry, list[Event]]] = []  # what the disk has not taken yet

    @classmethod
    def begin(
        cls, make: Callable[[Payload, float], Campaign], options: Payload, now_s: float, store: Store, told: Told
    ) -> Journal:
        """Begin a campaign and its journal.

        Raises:
            CoordinatorError: the first policy cannot be published, or the disk takes nothing.
        """
        journal = cls(make(options, now_s), store, told)
        journal._took("begin", options, None, now_s)
        return journal

    # -- the campaign's calls -----------------------------------------------------------------------------------------

    def wants(self, now_s: float, researcher: str) -> ResearchContext | None:
        """As `Campaign.wants`; nothing changes."""
        return self.campaign.wants(now_s, researcher)

    def wants_play(self, now_s: float, researcher: str) -> ResearchContext | None:
        """As `Campaign.wants_play`; nothing changes."""
        return self.campaign.wants_play(now_s, researcher)

    def propose(self, proposal: Proposal, researcher: str, now_s: float) -> str:
        """As `Campaign.propose`."""
        reason = self.campaign.propose(proposal, researcher, now_s)
        self._took("propose", {"researcher": researcher, "proposal": _packed(proposal)}, reason, now_s)
        return reason

    def play(self, play: Play, researcher: str, now_s: float) -> str:
        """As `Campaign.play`."""
        reason = self.campaign.play(play, researcher, now_s)
        self._took("play", {"researcher": researcher, "play": _packed(play)}, reason, now_s)
        return reason

    def next_work(self, edge: str, now_s: float, ahead: int = 0) -> Work | None:
        """As `Campaign.next_work`; what the disk does not take is not handed out.

        Raises:
            StoreError: the disk does not take it; the attempts are asked for again.
        """
        work = self.campaign.next_work(edge, now_s, ahead)
        events = self.campaign.drain()
        if work is None and not events:
            return None
        try:
            self._took("next_work", {"edge": edge, "ahead": ahead}, work, now_s, events)
        except CoordinatorError:
            for attempt in () if work is None else work.attempts:
                self.campaign.expire(attempt.assignment_id, now_s)
                self._add("expire", {"assignment": attempt.assignment_id}, None, now_s, self.campaign.drain())
            raise
        return work

    def record(self, trial: Trial, now_s: float) -> None:
        """As `Campaign.record`."""
        self.campaign.record(trial, now_s)
        self._took("record", {"trial": list(trial.identity)}, None, now_s)

    def expire(self, assignment_id: str, now_s: float) -> None:
        """As `Campaign.expire`."""
        self.campaign.expire(assignment_id, now_s)
        self._took("expire", {"assignment": assignment_id}, None, now_s)

    def station(self, edge: str, what: str, now_s: float) -> None:
        """As `Campaign.station`."""
        self.campaign.station(edge, what, now_s)
        self._took("station", {"edge": edge, "what": what}, None, now_s)

    def revoke(self, bundle: str, now_s: float) -> None:
        """As `Campaign.revoke`."""
        self.campaign.revoke(bundle, now_s)
        self._took("revoke", {"bundle": bundle}, None, now_s)

    # -----------------------------------------------------------------------------------------------------------------

    def catch_up(self, now_s: float) -> None:
        """Take in what happened between the last entry and now, and wait no longer for what nobody holds."""
        for identity in self._store.rows(UNRECORDED):
            self.record(_trial(self._store, identity), now_s)
        held = {row[0] for row in self._store.rows("SELECT assignment_id FROM assignments WHERE state = 'leased'")}
        for assignment_id in self.campaign.waits_for:
            if assignment_id not in held:
                self.expire(assignment_id, now_s)

    def _took(self, call: str, payload: Payload, given: Given, now_s: float, events: list[Event] | None = None) -> None:
        self._add(call, payload, given, now_s, self.campaign.drain() if events is None else events)
        with self._store.transaction() as db:
            for entry, told in self._unkept:
                db.execute("INSERT INTO campaign_log VALUES (?, ?, ?, ?, ?)", tuple(asdict(entry).values()))
                for event in told:
                    write_event(db, event)
        kept, self._unkept = self._unkept, []
        for entry, told in kept:
            if told:
                self._told(told, entry.unix_s)

    def _add(self, call: str, payload: Payload, given: Given, now_s: float, events: list[Event]) -> None:
        text = json.dumps(payload, sort_keys=True)
        self._chain = link(self._chain, call, text, now_s, events, given)
        self._seq += 1
        self._unkept.append((Entry(self._seq, now_s, call, text, self._chain), events))


def resume(make: Callable[[Payload, float], Campaign], store: Store, told: Told) -> Journal:
    """Return the campaign that a store's journal tells of, at its last entry.

    Raises:
        JournalRefused: there is none, or this version decides differently.
    """
    entries = [Entry(*row) for row in store.rows("SELECT * FROM campaign_log ORDER BY seq")]
    if not entries or entries[0].call != "begin":
        raise JournalRefused("no campaign was begun here, or a version before journals began it; start a new one")
    campaign = make(json.loads(entries[0].payload), entries[0].unix_s)
    chain = ""
    for entry in entries:
        given = None if entry.call == "begin" else apply(campaign, entry, lambda name: _trial(store, name))
        events = campaign.drain()
        told([event for event in events if isinstance(event, HypothesisMade | CandidateMade)], entry.unix_s)
        chain = link(chain, entry.call, entry.payload, entry.unix_s, events, given)
        if chain != entry.chain:
            raise JournalRefused(
                f"this version decides differently from the one that ran the campaign (call {entry.seq}, {entry.call});"
                " resume it with that version, or start a new one"
            )
    return Journal(campaign, store, told, entries[-1])


def apply(campaign: Campaign, entry: Entry, trial_of: Callable[[Sequence[Any]], Trial]) -> Given:
    """Make the call of an entry."""
    payload, now_s = json.loads(entry.payload), entry.unix_s
    match entry.call:
        case "propose":
            return campaign.propose(_proposal(payload["proposal"]), payload["researcher"], now_s)
        case "play":
            return campaign.play(_play(payload["play"]), payload["researcher"], now_s)
        case "next_work":
            return campaign.next_work(payload["edge"], now_s, payload["ahead"])
        case "record":
            campaign.record(trial_of(payload["trial"]), now_s)
        case "expire":
            campaign.expire(payload["assignment"], now_s)
        case "station":
            campaign.station(payload["edge"], payload["what"], now_s)
        case "revoke":
            campaign.revoke(payload["bundle"], now_s)
    return None


def link(chain: str, call: str, payload: str, now_s: float, events: Iterable[Event], given: Given) -> str:
    """Return the chain after a call."""
    told = [[type(event).__name__, asdict(event)] for event in events]
    gave = asdict(given) if isinstance(given, Work) else given
    text = json.dumps([chain, call, payload, now_s, told, gave], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _packed(idea: Proposal | Play) -> Payload:
    """Return an idea as JSON takes it."""
    row = {item.name: getattr(idea, item.name) for item in fields(idea)}
    files = {name: base64.b64encode(data).decode() for name, data in idea.files.items()}
    return {**row, "changes": dict(idea.changes), "files": files}


def _files(packed: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in packed["files"].items()}


def _proposal(packed: Payload) -> Proposal:
    return Proposal(**{**packed, "files": _files(packed), "parents": tuple(packed["parents"])})


def _play(packed: Payload) -> Play:
    return Play(**{**packed, "files": _files(packed)})


def _trial(store: Store, identity: Sequence[Any]) -> Trial:
    """Return a kept trial.

    Raises:
        JournalRefused: it is not there.
    """
    names = [item.name for item in fields(Trial)]
    query = f"SELECT {', '.join(names)} FROM trials WHERE edge = ? AND epoch = ? AND sequence = ?"
    found = store.rows(query, *identity)
    if not found:
        raise JournalRefused("trial {} {} {} is in the journal and not in the database".format(*identity))
    row = dict(zip(names, found[0], strict=True))
    texts = {name: json.loads(row[name]) for name in TEXTS}
    return Trial(**{**row, **texts, "outcome": Outcome(row["outcome"])})
