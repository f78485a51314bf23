"""Answers what stations ask, one question at a time, and passes on what they bring.

- A trial is acknowledged once it is on the disk, and only then does the campaign hear of it.
- Work is noted as handed out before it is handed out.
- Where the disk does not take a trial the question is left without an answer, so that its station keeps the trial.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack

from coordinator.blobs import BlobRefused, Blobs
from coordinator.errors import CoordinatorError
from coordinator.ingest import SHA256, BatchRefused, identity_in, read_batch, read_inventory, read_offset, read_piece
from coordinator.leases import AWAY_S, MOST_WANTED, Leases, Request, RequestRefused, read_request
from coordinator.network import Message, Presence, Question, StatusSaid
from coordinator.publish.repository import Repository
from coordinator.roster import MOST_FAILED_RESETS, Roster
from coordinator.scheduling.work import Attempt
from coordinator.store import Ingested, Store
from edge.records import Trial, encode
from edge.wire.targets import PIECE_BYTES

LOG = logging.getLogger("coordinator.reception")
# A station's newest ledger holds them: what an older one held was taken back before the newer was written down.
LEASED = """
SELECT assignment_id, assignments.edge, epoch, expires_unix_s FROM assignments JOIN stations USING (edge)
WHERE state = 'leased' ORDER BY assignments.rowid
"""
MOST_HELD = 16  # attempts by a station that says it has nothing to do: it cannot bring what they need, or never heard
EMPTY_WANTS = 2  # a station that wants so many holds none beyond the one that it runs
NO_SUCH_FILE = "404"  # the one refusal that stations take as a no
NESTED = "it is nested too deeply to be looked at"


@dataclass(frozen=True)
class Desk:
    """What the reception asks of the campaign."""

    # Edge, now, attempts that it holds beyond the one that it runs; empty where there is nothing to do.
    next_work: Callable[[str, float, int], Sequence[Attempt]]
    brought: Callable[[Trial, float], None]  # a new trial, now
    taken_back: Callable[[str, float], None]  # assignment id, now
    station: Callable[[str, str, float], None] = lambda edge, what, now_unix_s: None  # "here" or "away"


class Reception:
    """Between the network on one side and store, leases and campaign on the other."""

    def __init__(
        self, task: str, store: Store, repository: Repository, roster: Roster, desk: Desk, folder: Path
    ) -> None:
        self._task = task
        self._store = store
        self._repository = repository
        self._roster = roster
        self._desk = desk
        self._folder = folder
        self._blobs = Blobs(folder / "recordings")
        self._leases = Leases(task)
        self._epochs: dict[str, str] = {}
        self.closed = False  # once the run ends no more work is handed out

    def restore(self) -> None:
        """Know again what an earlier process on this store handed out, and to which ledgers.

        Raises:
            StoreError: it cannot be read.
        """
        self._epochs.update(self._store.rows("SELECT edge, epoch FROM stations"))
        self._leases.restore(self._store.rows(LEASED))

    def handle(self, message: Message, now_unix_s: float) -> None:
        """Take in one message; a question is answered, refused or dropped.

        Raises:
            CoordinatorError: something here failed, not at the station; its question got no answer.
        """
        match message:
            case StatusSaid():
                self._store.rollouts(self._roster.status(message.edge, message.payload), now_unix_s)
            case Presence():
                self._presence(message, now_unix_s)
            case Question():
                try:
                    self._answer(message, now_unix_s)
                finally:
                    message.drop()

    def tend(self, now_unix_s: float) -> None:
        """Take back what will not be run any more."""
        away = self._roster.away(AWAY_S, now_unix_s)
        for edge in away:
            self._store.note("warning", f"away for more than {AWAY_S:.0f} s; its work goes to others", edge, now_unix_s)
            self._desk.station(edge, "away", now_unix_s)
        self._take_back([*self._leases.left(away), *self._leases.expired(now_unix_s)], now_unix_s)

    def _answer(self, question: Question, now_unix_s: float) -> None:
        try:
            match question.topic:
                case "lease":
                    self._lease(question, now_unix_s)
                case "trials":
                    self._trials(question, now_unix_s)
                case "trust":
                    self._trust(question)
                case "blob":
                    self._blob(question, now_unix_s)
                case "reconcile":
                    self._reconcile(question)
        except (RequestRefused, BatchRefused, BlobRefused) as error:
            LOG.warning("%s refused: %s", question.key, error)
            question.refuse(str(error))
        except RecursionError:
            LOG.warning("%s refused: %s", question.key, NESTED)
            question.refuse(NESTED)

    def _lease(self, question: Question, now_unix_s: float) -> None:
        request = read_request(question.payload, self._task)
        _check_asker(question, request.edge)
        self._register(request, now_unix_s)
        if request.wants >= EMPTY_WANTS and self._leases.count(request.edge) >= MOST_HELD:
            text = f"it holds {MOST_HELD} attempts by now and runs none of them; they go to others"
            self._store.note("warning", text, request.edge, now_unix_s)
            self._take_back(self._leases.left([request.edge]), now_unix_s)
        resting = now_unix_s < self._roster.view(request.edge).resting_until_unix_s
        work = [] if self.closed or resting else self._work(request, now_unix_s)
        if not work:
            question.answer(msgpack.packb([]))
            return
        lease = self._leases.grant(request, work, now_unix_s)
        self._store.lease(lease, request.edge, work, now_unix_s)
        question.answer(msgpack.packb([encode(lease)]))

    def _work(self, request: Request, now_unix_s: float) -> list[Attempt]:
        """Return about as much as was wanted; what belongs together stays together."""
        found: list[Attempt] = []
        try:
            while len(found) < min(request.wants, MOST_WANTED):
                ahead = len(found) if request.wants >= EMPTY_WANTS else 1 + len(found)
                more = self._desk.next_work(request.edge, now_unix_s, ahead)
                if not more:
                    break
                found += more
        except (CoordinatorError, OSError):
            self._take_back([item.assignment_id for item in found], now_unix_s)  # nobody is told of them
            raise
        return found

    def _register(self, request: Request, now_unix_s: float) -> None:
        self._roster.memory(request.edge, request.memory_mb)
        known = self._epochs.get(request.edge)
        if known == request.epoch:
            return
        if known is not None:
            self._take_back(self._leases.renewed(request.edge, request.epoch), now_unix_s)
            self._roster.view(request.edge).last_sequence = 0  # a new ledger counts from 1 again
        self._epochs[request.edge] = request.epoch
        row = asdict(request)
        names = ("edge", "epoch", "station_hash", "calibration_hash", "software")
        peak_mb = self._roster.view(request.edge).peak_memory_mb
        self._store.station_seen({name: row[name] for name in names} | {"peak_memory_mb": peak_mb}, now_unix_s)
        text = "is here" if known is None else "is here with a new ledger; what it held goes to others"
        self._store.note("info", text, request.edge, now_unix_s)

    def _trials(self, question: Question, now_unix_s: float) -> None:
        batch = read_batch(question.payload)
        for sealed in batch.trials:
            if (named := identity_in(sealed.body)) is not None:
                _check_asker(question, named[0])
        ingested = self._store.ingest(batch, now_unix_s)
        kept = [item for item in ingested if item.kept in ("new", "same")]
        turned_away = [item for item in ingested if item.kept in ("conflict", "refused")]
        answer = {
            "acked": [item.identity for item in kept],
            "refused": [(*item.identity, item.reason) for item in turned_away if item.identity is not None],
            "forked": [item.identity[1] for item in turned_away if item.kept == "conflict" and item.identity],
        }
        question.answer(msgpack.packb(answer))
        self._pass_on([item.trial for item in ingested if item.kept == "new" and item.trial is not None], now_unix_s)
        for item in turned_away:
            self._report_refusal(item, now_unix_s)

    def _pass_on(self, trials: Sequence[Trial], now_unix_s: float) -> None:
        """Tell the campaign of every trial, whatever goes wrong with one: they are kept, and come no second time."""
        trouble: CoordinatorError | None = None
        for trial in trials:
            self._roster.delivered(trial, now_unix_s)
            try:
                self._desk.brought(trial, now_unix_s)
                self._report_failed_resets(trial, now_unix_s)
            except CoordinatorError as error:
                trouble = error
        self._take_back(self._leases.settle(trials), now_unix_s)
        if trouble is not None:
            raise trouble

    def _report_failed_resets(self, trial: Trial, now_unix_s: float) -> None:
        if self._roster.view(trial.edge).failed_resets == MOST_FAILED_RESETS:
            text = (
                f"{MOST_FAILED_RESETS} resets in a row failed ({trial.detail}); it gets little work until one succeeds"
            )
            LOG.warning("%s: %s", trial.edge, text)
            self._store.note("error", text, trial.edge, now_unix_s)

    def _report_refusal(self, item: Ingested, now_unix_s: float) -> None:
        named = "a trial without a name" if item.identity is None else "trial {} {} {}".format(*item.identity)
        self._store.note("error", f"{named} is in quarantine: {item.reason}", None, now_unix_s)

    def _trust(self, question: Question) -> None:
        """Answer with a piece of a public file of the repository."""
        offset = read_offset(question.attachment)
        try:
            found = self._repository.piece(question.name, offset, PIECE_BYTES)
        except OSError as error:
            raise RequestRefused(f"file: it cannot be read here: {error.strerror}") from error
        if found is None:
            question.refuse(NO_SUCH_FILE)
        elif not offset <= found[0]:
            raise RequestRefused(f"file: it has {found[0]} bytes, none from {offset} on")
        else:
            question.answer(msgpack.packb({"total": found[0], "data": found[1]}))

    def _blob(self, question: Question, now_unix_s: float) -> None:
        # The name becomes a file's name, and only what a trial here refers to may fill this disk.
        size = self._store.recording_bytes(question.name) if SHA256.fullmatch(question.name) else None
        if size is None:
            raise BlobRefused("no trial here refers to it; send the trial first")
        piece = read_piece(question.attachment)
        _check_asker(question, piece.edge)
        if piece.size != size:
            raise BlobRefused(f"{piece.size} bytes, but its trial says {size}")
        here = self._blobs.take(question.name, size, piece.offset, question.payload)
        if here == size:
            file = str(self._blobs.path(question.name).relative_to(self._folder))
            self._store.add_recording(question.name, piece.edge, file, size, now_unix_s)
        question.answer(msgpack.packb({"have": here}))

    def _reconcile(self, question: Question) -> None:
        """Say what is kept of an edge's ledger; nothing is changed here."""
        asked = read_inventory(question.payload)
        _check_asker(question, asked.edge)
        known = self._store.known_of(asked.edge, asked.epoch)
        lost, replicated = self._store.recordings_of(asked.recordings)
        gone = [name for name in asked.recordings if name not in lost and not self._blobs.path(name).exists()]
        answer = {**asdict(known), "recordings_lost": lost + gone, "recordings_replicated": replicated}
        question.answer(msgpack.packb(answer))

    def _presence(self, message: Presence, now_unix_s: float) -> None:
        if message.here != self._roster.view(message.edge).here:
            self._store.note("info", "came" if message.here else "went", message.edge, now_unix_s)
            if message.here:
                self._desk.station(message.edge, "here", now_unix_s)
        self._roster.presence(message.edge, message.here, now_unix_s)

    def _take_back(self, assignment_ids: Iterable[str], now_unix_s: float) -> None:
        taken = list(assignment_ids)
        if taken:
            self._store.void(taken, now_unix_s)
        for item in taken:
            self._desk.taken_back(item, now_unix_s)


def _check_asker(question: Question, named: str) -> None:
    """Check that what is said in a question is said by the edge under whose key it is asked.

    Raises:
        RequestRefused: it is said by another.
    """
    if named != question.edge:
        raise RequestRefused(f"{question.topic}: asked as {question.edge!r:.80}, but in the name of {named!r:.80}")
