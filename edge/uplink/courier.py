"""Carries trials and recordings up and leases with their bundles down, a turn at a time.

- A trial is marked only once it was sent and the coordinator has named it as kept; a lost answer means that it is sent
  again.
- Where the coordinator has another trial under a trial's number, what it says is sealed anew under a number of a new
  epoch, and sent as that.
- Each time that the coordinator is found, and now and then, both compare what they have: whatever the ledger says, what
  the coordinator lacks is sent again, every recording whose file is still here included, and what a backup holds may be
  deleted here.
- A lease is kept only if every bundle that it names is here (see `edge.uplink.supply`); one that may not run here, or
  has not come yet, makes its lease refused, and holds up nothing else.
- Trouble of the supply, as a silent lab or a journal that a full disk does not take, is said, and the supply is left
  alone for a while: trials and recordings go on.
- What gets no answer is sent again in smaller portions, so that a thin link carries it too.
- A recording is checked here before its first piece, and goes on from where the coordinator is. One that cannot be sent
  is held back, so that the others are not, and tried again some minutes later.
- Order: trials, then work (a station never waits for an upload), then one piece of one recording.
- When to ask again goes by a clock that never steps; whether a lease still holds, and when something was marked, by the
  time of day.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from io import BufferedReader

import msgpack

from edge.activation.journal import ActivationError
from edge.activation.series import OWN
from edge.ledger import Held, Identity, Ledger
from edge.records import OWN_PURPOSES, PROTOCOL, Lease, RecordError, decode
from edge.trust.errors import Unreachable
from edge.uplink.answers import identity_of, range_of, refusal_of, unpack_map
from edge.uplink.late_supply import LateSupply
from edge.uplink.network import TIMEOUT_S, Coordinator, NoAnswer, Refused
from edge.uplink.settings import Settings, UplinkError
from edge.uplink.supply import NotSupplied, Supply
from edge.uplink.weights import PAUSE_S, Unanswered
from edge.wire import key_of

LOG = logging.getLogger("edge.uplink")
BATCH = 32
STOCK = 2  # assignments kept ahead, so that the station has the next one when it ends one
ASK_AGAIN_S = 0.1
AFTER_REFUSAL_S = 1.0
RECORDING_TIMEOUT_S = 20.0
PIECE_BYTES, LEAST_PIECE_BYTES = 1 << 20, 16 << 10
MOST_RECORDING_BYTES = 256 << 20  # the coordinator takes no larger ones
MAKE_ROOM_EVERY_S = 10.0
COMPARE_EVERY_S = TRY_HELD_BACK_EVERY_S = PRUNE_EVERY_S = 600.0
MOST_COMPARED = 256  # recordings a question
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Unfit(UplinkError):
    """A recording that the coordinator would not take."""


class Courier:
    """One station's exchange with its coordinator."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        coordinator: Coordinator,
        supply: Supply | LateSupply,
        software: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Carry between `ledger` and `coordinator`; what is done when goes by `clock`, in seconds from anywhere."""
        self._settings = settings
        self._ledger = ledger
        self._coordinator = coordinator
        self._supply = supply
        self._software = software
        self._clock = clock
        self._offered: list[Lease] = []  # leases that are not in the ledger yet
        self._held_back: set[str] = set()  # recordings that could not be sent
        self._checked: dict[str, tuple[tuple[int, int], str]] = {}  # recording -> size and time of the file, its fault
        self._have: dict[str, int] = {}  # bytes of the recording under way that the coordinator has
        self._batch, self._piece_bytes = BATCH, PIECE_BYTES
        # By the clock.
        self._ask_after_s = self._compare_at_s = self._try_held_back_at_s = float("-inf")
        self._pruned_at_s = self._follow_at_s = float("-inf")
        self._send_after_s = float("-inf")  # the next piece of a recording
        self.refusal = ""  # the newest thing that was refused on either side, for the status
        self.answered = False  # whether the coordinator has answered, or refused, in this turn
        self.busy = False  # whether a trial runs, in which recordings are held back to the station's rate
        self.memory_mb = 0.0  # what the station's processes use, for the coordinator's record

    def turn(self, now_unix_s: float) -> bool:
        """Do one of everything that is due; return whether more trials wait.

        Raises:
            NoAnswer: the coordinator is not there.
            LedgerError: the ledger cannot be used.
        """
        self.answered = False
        self._tidy()
        if self._clock() >= self._compare_at_s:
            self._compare()
            self._compare_at_s = self._clock() + COMPARE_EVERY_S
        if self._clock() >= self._try_held_back_at_s:
            self._held_back.clear()  # e.g. what a power cut had left there damaged is dropped, and wanted anew
            self._try_held_back_at_s = self._clock() + TRY_HELD_BACK_EVERY_S
        limit = self._batch
        more = self.send_trials(now_unix_s) == limit
        if self._clock() >= self._follow_at_s:
            self._supplied(self._supply.turn)
        try:
            self.fetch_work(now_unix_s)
        finally:  # no answer about work holds up no recording
            if not more and self._clock() >= self._send_after_s:
                sent_bytes = self.send_piece(now_unix_s)
                more = sent_bytes > 0
                if self.busy:
                    self._send_after_s = self._clock() + sent_bytes / (self._settings.trial_mb_per_s * 1e6)
        return more

    def _tidy(self) -> None:
        """Let the supply delete what serves nothing any more, now and then, and soon where it lacks room."""
        every_s = MAKE_ROOM_EVERY_S if self._supply.lacks_room else PRUNE_EVERY_S
        if self._clock() >= self._pruned_at_s + every_s:
            self._pruned_at_s = self._clock()
            needed = self._ledger.bundles_needed()
            self._supplied(lambda: self._supply.prune(needed))

    def _supplied(self, step: Callable[[], object]) -> None:
        """Let the supply take a step; trouble is said and leaves the supply alone for a while."""
        before = self._supply.refusal
        try:
            step()
        except (Unreachable, ActivationError) as error:
            self._follow_at_s = self._clock() + PAUSE_S
            self._refuse(f"nothing new is known of what may run here: {error}")
        if self._supply.refusal != before:
            self.refusal = self._supply.refusal

    def lost_touch(self) -> None:
        """Compare again once the coordinator is found: it may be another, or restored from a backup."""
        self._compare_at_s = float("-inf")
        self._have.clear()

    def _compare(self) -> None:
        try:
            self.compare()
        except Refused as error:
            self._refuse(f"the coordinator does not compare: {error}")

    def compare(self) -> None:
        """Put the ledger's marks right by what the coordinator really has.

        Raises:
            NoAnswer: none came, or one that makes no sense; nothing is marked then.
            Refused: the coordinator does not speak of this.
        """
        *past, newest = self._ledger.held()
        for held in past:
            self._compare_with(held, [])
        row = 0
        while True:
            page = self._ledger.recordings_away(row, MOST_COMPARED)
            self._compare_with(newest, [sha256 for _, sha256 in page])
            if len(page) < MOST_COMPARED:
                return
            row = page[-1][0]

    def _compare_with(self, held: Held, recordings: Sequence[str]) -> None:
        """Compare the trials of an epoch and some recordings, whosever they are."""
        question = {
            "protocol": PROTOCOL, "edge": self._ledger.edge, "epoch": held.epoch, "first": held.first,
            "last": held.last, "recordings": recordings,
        }  # fmt: skip
        answer = unpack_map(self._ask("reconcile", msgpack.packb(question)))
        match answer:
            case {
                "high": int(high), "missing": [*missing], "replicated": [*replicated],
                "recordings_lost": [*lost], "recordings_replicated": [*safe],
            } if 0 <= high < 2**63:  # fmt: skip  # what a ledger can hold
                pass
            case _:
                raise NoAnswer("an answer that does not say what the coordinator has")
        gaps, safe_trials = [range_of(item) for item in missing], [range_of(item) for item in replicated]
        reopened = self._ledger.reopen(held.epoch, high, gaps)
        if reopened:
            LOG.warning("the coordinator does not have %d trials that it had; they are sent again", reopened)
        self._ledger.replicated(held.epoch, safe_trials)
        self._ledger.recordings_lost(item for item in recordings if item in lost)
        self._ledger.recordings_replicated(item for item in recordings if item in safe)
        if self._ledger.knows_less_than(held.epoch, high):
            self._begin_epoch("the coordinator has trials of this ledger that it does not know itself")

    def send_trials(self, now_unix_s: float, timeout_s: float = TIMEOUT_S) -> int:
        """Send one batch of trials and mark those that were kept; return how many were sent.

        Raises:
            NoAnswer: none came, or one that does not say which trials were kept and refused; none is marked then.
        """
        batch = self._ledger.batch(self._batch)
        if not batch.trials:
            return 0
        trials = [(item.body, item.previous, item.signature) for item in batch.trials.values()]
        question = {"protocol": PROTOCOL, "key": batch.key, "trials": trials}
        self._batch = max(len(trials) // 2, 1)  # should this get no answer
        answer = unpack_map(self._ask("trials", msgpack.packb(question), timeout_s=timeout_s))
        self._batch = BATCH
        acked, refused, forked = (answer.get(name, []) for name in ("acked", "refused", "forked"))
        if not (isinstance(acked, list) and isinstance(refused, list) and isinstance(forked, list)):
            raise NoAnswer("an answer that does not list trials")
        kept, unwanted = [identity_of(item) for item in acked], [refusal_of(item) for item in refused]
        # An answer can only mark what was asked about.
        self._ledger.acknowledge([item for item in kept if item in batch.trials], now_unix_s)
        self._give_up([item for item in unwanted if item[0] in batch.trials], forked)
        return len(trials)

    def _give_up(self, refused: Sequence[tuple[Identity, str]], forked: Sequence[object]) -> None:
        """Mark what the coordinator refused; where another stands in a trial's place, seal what it says anew.

        Args:
            forked: the epochs in which another stands in a trial's place.
        """
        if self._ledger.epoch in forked:
            self._begin_epoch("the coordinator has other trials under this ledger's numbers")
        if len(refused) > 1 and any(identity[1] in forked for identity, _ in refused):
            self._batch = 1  # the answer does not say which of them it means; asked about one alone, it does
            return
        for identity, reason in refused:
            again = None
            if identity[1] in forked:
                again = self._ledger.forked(identity, reason)
            else:
                self._ledger.refused(identity, reason)
            then = "it is kept here" if again is None else f"it goes as {again.epoch}/{again.sequence}"
            self._refuse(f"the coordinator refused trial {identity[2]}: {reason}; {then}")

    def fetch_work(self, now_unix_s: float) -> None:
        """Ask for assignments where fewer than STOCK are left, and keep those that can be run."""
        pending = self._ledger.pending_count(now_unix_s)
        if not self._offered and pending < STOCK and self._clock() >= self._ask_after_s:
            self._ask_after_s = self._clock() + ASK_AGAIN_S
            self._offered = self._ask_for_leases(STOCK - pending)
        while self._offered:
            self._take(self._offered[0], now_unix_s)
            self._offered.pop(0)

    def send_piece(self, now_unix_s: float) -> int:
        """Send the next piece of the oldest recording that is still only here; return how many bytes that was.

        Raises:
            NoAnswer: none came; the piece is sent again.
        """
        for sha256, path in self._ledger.unsent_recordings(1 + len(self._held_back)):
            if sha256 in self._held_back:
                continue
            try:
                with open(path, "rb") as file:
                    return self._send_piece_of(sha256, file, now_unix_s)
            except (OSError, Refused, Unfit) as error:
                self._held_back.add(sha256)
                self._have.pop(sha256, None)
                self._refuse(f"recording {path.name} cannot be sent and stays here: {error}")
                return 0
        return 0

    def _send_piece_of(self, sha256: str, file: BufferedReader, now_unix_s: float) -> int:
        """Send the next piece of a recording.

        Raises:
            Unfit: the coordinator would not take it.
        """
        size = self._check(sha256, file)
        # To ask how much is there costs no more than the least piece, and may save all of the others.
        if sha256 not in self._have and size > LEAST_PIECE_BYTES:
            self._carry_piece(sha256, size, 0, b"", now_unix_s)
            if sha256 not in self._have:
                return 0  # all of it
        offset = self._have.get(sha256, 0)
        file.seek(offset)
        piece = file.read(self._piece_bytes)
        self._piece_bytes = max(self._piece_bytes // 2, LEAST_PIECE_BYTES)  # should this get no answer
        self._carry_piece(sha256, size, offset, piece, now_unix_s)
        self._piece_bytes = min(self._piece_bytes * 4, PIECE_BYTES)
        return len(piece)

    def _carry_piece(self, sha256: str, size: int, offset: int, piece: bytes, now_unix_s: float) -> None:
        """Send a piece, or none, and note how much the coordinator has of the whole."""
        said = msgpack.packb({"edge": self._settings.name, "size": size, "offset": offset})
        have = unpack_map(self._ask(f"blob/{sha256}", piece, said, RECORDING_TIMEOUT_S)).get("have")
        if not isinstance(have, int) or not 0 <= have <= size:
            raise NoAnswer("an answer that does not say how much of a recording the coordinator has")
        if have == size:
            self._ledger.recording_sent(sha256, now_unix_s)
            self._have.clear()
            self._checked.pop(sha256, None)
        else:
            self._have = {sha256: have}

    def _check(self, sha256: str, file: BufferedReader) -> int:
        """Return the size of a recording that can be sent; its content is read once.

        Raises:
            Unfit: it is empty or too large, or other than its trial says.
        """
        status = os.fstat(file.fileno())
        stamp = (status.st_size, status.st_mtime_ns)
        if self._checked.get(sha256, (None, ""))[0] != stamp:
            self._checked[sha256] = (stamp, _fault(sha256, file, status.st_size))
        fault = self._checked[sha256][1]
        if fault:
            raise Unfit(fault)
        return status.st_size

    def send_last(self, within_s: float, now_unix_s: float) -> bool:
        """Send what is unacknowledged before this process ends; return whether nothing is left."""
        deadline_s = time.monotonic() + within_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                if not self.send_trials(now_unix_s, left_s):
                    return True
            except UplinkError:
                time.sleep(min(left_s, 0.1))
        return not self._ledger.unacked(1)

    def _ask(
        self, topic: str, payload: bytes = b"", attachment: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        try:
            answer = self._coordinator.ask(key_of(self._settings.name, topic), payload, attachment, timeout_s)
        except Refused:
            self.answered = True
            raise
        self.answered = True
        return answer

    def _ask_for_leases(self, wants: int) -> list[Lease]:
        question = {
            "protocol": PROTOCOL,
            "edge": self._settings.name,
            "epoch": self._ledger.epoch,
            "task": self._settings.task,
            "wants": wants,
            "station_hash": self._settings.station_hash,
            "calibration_hash": self._settings.calibration_hash,
            "software": self._software,
            "memory_mb": self.memory_mb,
        }
        try:
            answer = msgpack.unpackb(self._ask("lease", msgpack.packb(question)))
            return [decode(Lease, item) for item in answer]
        except (Refused, RecordError, TypeError, ValueError, msgpack.UnpackException) as error:
            self._refuse(f"no lease: {error}")
            self._ask_after_s += AFTER_REFUSAL_S
            return []

    def _take(self, lease: Lease, now_unix_s: float) -> None:
        """Keep a lease once everything that it needs is here; else it is not taken, and others are asked for later."""
        if not lease.expires_unix_s > now_unix_s:
            return
        try:
            if lease.task != self._settings.task:
                raise Refused(f"it is for the task {lease.task!r}, this station does {self._settings.task!r}")
            if any(item.purpose in OWN_PURPOSES or item.assignment_id.startswith(OWN) for item in lease.assignments):
                raise Refused("evidence of a roll-out is this station's own, and nobody else's to ask for")
            for bundle in {item.bundle: None for item in lease.assignments}:
                self._supply.bring(bundle)
        except (NotSupplied, Refused, Unreachable, ActivationError) as error:
            self._refuse(f"lease {lease.lease_id} is not taken: {error}")
            # To wait for an answer takes seconds of a turn, and what was lent is lent to no other station for minutes.
            silent = isinstance(error, Unreachable | Unanswered | ActivationError)
            self._ask_after_s = self._clock() + (PAUSE_S if silent else AFTER_REFUSAL_S)
            return
        self._ledger.add_lease(lease)

    def _begin_epoch(self, why: str) -> None:
        epoch = self._ledger.begin_epoch()
        self._refuse(f"{why}: it was copied, or restored from a copy; its trials are numbered anew as {epoch}")

    def _refuse(self, sentence: str) -> None:
        if sentence != self.refusal:  # the same one again says nothing new
            LOG.warning(sentence)
        self.refusal = sentence


def _fault(sha256: str, file: BufferedReader, size: int) -> str:
    """Return why the coordinator would not take a recording; empty where it would."""
    if not 0 < size <= MOST_RECORDING_BYTES:
        return f"it has {size} bytes; 1 to {MOST_RECORDING_BYTES} can be sent"
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        return "its bytes are not those that its trial was sealed with; the disk may be damaged"
    return ""
