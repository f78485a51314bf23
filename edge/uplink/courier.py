"""Carries trials and recordings up and leases with their bundles down, a turn at a time.

- A trial is marked only once the coordinator has named it as kept; a lost answer means that it is sent again.
- Each time that the coordinator is found, and now and then, both compare what they have: whatever the ledger says, what
  the coordinator lacks is sent again, and what a backup holds may be deleted here.
- A lease is kept only once every bundle that it names has been verified and unpacked here. A bundle that is refused
  once is never asked for again, and its lease is not taken.
- What gets no answer is sent again in smaller portions, so that a thin link carries it too.
- Order: trials, then work (a station never waits for an upload), then one piece of one recording.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import msgpack

from edge.ledger import Ledger
from edge.records import PROTOCOL, Lease, RecordError, decode
from edge.uplink.network import TIMEOUT_S, Coordinator, NoAnswer, Refused
from edge.uplink.settings import Settings, UplinkError
from policies.bundle import BundleError, BundleMalformed, bundle_id, open_bundle, unpack

LOG = logging.getLogger("edge.uplink")
BATCH = 32
STOCK = 2  # assignments kept ahead, so that the station has the next one when it ends one
ASK_AGAIN_S = 0.1
AFTER_REFUSAL_S = 1.0
RECORDING_TIMEOUT_S = 20.0
PIECE_BYTES, LEAST_PIECE_BYTES = 1 << 20, 16 << 10
COMPARE_EVERY_S = 600.0
MOST_COMPARED = 256  # recordings
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Courier:
    """One station's exchange with its coordinator."""

    def __init__(self, settings: Settings, ledger: Ledger, coordinator: Coordinator, software: str) -> None:
        self._settings = settings
        self._ledger = ledger
        self._coordinator = coordinator
        self._software = software
        self._offered: list[Lease] = []  # leases whose bundles are not all here yet
        self._refused: dict[str, str] = {}  # bundle -> why
        self._held_back: set[str] = set()  # recordings that the coordinator will not take
        self._have: dict[str, int] = {}  # bytes of the recording under way that the coordinator has
        self._batch, self._piece_bytes = BATCH, PIECE_BYTES
        self._ask_after_s = 0.0
        self._compare_at_unix_s = 0.0
        self._send_after_s = 0.0  # the next piece of a recording, by the monotonic clock
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
        if now_unix_s >= self._compare_at_unix_s:
            self._compare()
            self._held_back.clear()  # e.g. what a power cut had left there damaged is dropped, and wanted anew
            self._compare_at_unix_s = now_unix_s + COMPARE_EVERY_S
        limit = self._batch
        more = self.send_trials(now_unix_s=now_unix_s) == limit
        self.fetch_work(now_unix_s)
        if not more and time.monotonic() >= self._send_after_s:
            sent_bytes = self.send_piece()
            more = sent_bytes > 0
            if self.busy:
                self._send_after_s = time.monotonic() + sent_bytes / (self._settings.trial_mb_per_s * 1e6)
        return more

    def lost_touch(self) -> None:
        """Compare again once the coordinator is found: it may be another, or restored from a backup."""
        self._compare_at_unix_s = 0.0

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
        sent = self._ledger.recordings_sent(MOST_COMPARED)
        for held in self._ledger.held():
            question = {
                "protocol": PROTOCOL, "edge": self._ledger.edge, "epoch": held.epoch, "first": held.first,
                "last": held.last, "recordings": sent,
            }  # fmt: skip
            answer = _unpack_map(self._ask("enpire/reconcile", msgpack.packb(question)))
            match answer:
                case {
                    "high": int(high), "missing": [*missing], "replicated": [*replicated],
                    "recordings_lost": [*lost], "recordings_replicated": [*safe],
                }:  # fmt: skip
                    pass
                case _:
                    raise NoAnswer("an answer that does not say what the coordinator has")
            gaps, safe_trials = [_range(item) for item in missing], [_range(item) for item in replicated]
            reopened = self._ledger.reopen(held.epoch, high, gaps)
            if reopened:
                LOG.warning("the coordinator does not have %d trials that it had; they are sent again", reopened)
            self._ledger.replicated(held.epoch, safe_trials)
            self._ledger.recordings_lost(item for item in lost if isinstance(item, str))
            self._ledger.recordings_replicated(item for item in safe if isinstance(item, str))
            if self._ledger.knows_less_than(held.epoch, high):
                self._begin_epoch("the coordinator has trials of this ledger that it does not know itself")

    def send_trials(self, timeout_s: float = TIMEOUT_S, now_unix_s: float = 0.0) -> int:
        """Send one batch of trials and mark those that were kept; return how many were sent.

        Raises:
            NoAnswer: none came, or one that does not say which trials were kept and refused; none is marked then.
        """
        waiting = self._ledger.unacked(self._batch)
        if not waiting:
            return 0
        trials = [(item.body, item.previous, item.signature) for item in waiting]
        batch = {"protocol": PROTOCOL, "key": self._ledger.unacked_key(), "trials": trials}
        self._batch = max(len(waiting) // 2, 1)  # should this get no answer
        answer = _unpack_map(self._ask("enpire/trials", msgpack.packb(batch), timeout_s=timeout_s))
        self._batch = BATCH
        # The ledger passes over what is not its own, so an answer can only mark what was asked about.
        acked, refused = answer.get("acked", []), answer.get("refused", [])
        if not (isinstance(acked, list) and isinstance(refused, list)):
            raise NoAnswer("an answer that does not list trials")
        kept, unwanted = [_identity(item) for item in acked], [_refusal(item) for item in refused]
        self._ledger.acknowledge(kept, now_unix_s)
        for identity, reason in unwanted:
            self._ledger.refused(identity, reason)
            self._refuse(f"the coordinator refused trial {identity[2]}: {reason}; it is kept here")
        if self._ledger.epoch in answer.get("forked", ()):
            self._begin_epoch("the coordinator has other trials under this ledger's numbers")
        return len(waiting)

    def fetch_work(self, now_unix_s: float) -> None:
        """Ask for assignments where fewer than STOCK are left, and keep those that can be run."""
        pending = self._ledger.pending_count(now_unix_s)
        if not self._offered and pending < STOCK and now_unix_s >= self._ask_after_s:
            self._ask_after_s = now_unix_s + ASK_AGAIN_S
            self._offered = self._ask_for_leases(STOCK - pending)
        while self._offered:
            self._take(self._offered[0], now_unix_s)
            self._offered.pop(0)

    def send_piece(self) -> int:
        """Send the next piece of the oldest recording that is still only here; return how many bytes that was.

        Raises:
            NoAnswer: none came; the piece is sent again.
        """
        for sha256, path in self._ledger.unsent_recordings(1 + len(self._held_back)):
            if sha256 in self._held_back:
                continue
            try:
                size = path.stat().st_size
                offset = self._have.get(sha256, 0)
                with open(path, "rb") as file:
                    file.seek(offset)
                    piece = file.read(self._piece_bytes)
                said = msgpack.packb({"edge": self._settings.name, "size": size, "offset": offset})
                self._piece_bytes = max(self._piece_bytes // 2, LEAST_PIECE_BYTES)  # should this get no answer
                answer = _unpack_map(self._ask(f"enpire/blob/{sha256}", piece, said, RECORDING_TIMEOUT_S))
            except (OSError, Refused) as error:
                self._held_back.add(sha256)
                self._refuse(f"recording {path.name} cannot be sent and stays here: {error}")
                return 0
            self._piece_bytes = min(self._piece_bytes * 4, PIECE_BYTES)
            self._note_have(sha256, size, answer.get("have"))
            return len(piece)
        return 0

    def _note_have(self, sha256: str, size: int, have: object) -> None:
        if not isinstance(have, int) or not 0 <= have <= size:
            raise NoAnswer("an answer that does not say how much of a recording the coordinator has")
        if have == size:
            self._ledger.recording_sent(sha256)
            self._have.clear()
        else:
            self._have = {sha256: have}

    def send_last(self, within_s: float) -> bool:
        """Send what is unacknowledged before this process ends; return whether nothing is left."""
        deadline_s = time.monotonic() + within_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                if not self.send_trials(timeout_s=left_s):
                    return True
            except UplinkError:
                time.sleep(min(left_s, 0.1))
        return not self._ledger.unacked(1)

    def _ask(
        self, key: str, payload: bytes = b"", attachment: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> bytes:
        try:
            answer = self._coordinator.ask(key, payload, attachment, timeout_s)
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
            answer = msgpack.unpackb(self._ask("enpire/lease", msgpack.packb(question)))
            return [decode(Lease, item) for item in answer]
        except (Refused, RecordError, TypeError, ValueError, msgpack.UnpackException) as error:
            self._refuse(f"no lease: {error}")
            self._ask_after_s += AFTER_REFUSAL_S
            return []

    def _take(self, lease: Lease, now_unix_s: float) -> None:
        """Keep a lease once everything that it needs is here.

        Raises:
            NoAnswer: a bundle could not be fetched now.
        """
        if not lease.expires_unix_s > now_unix_s:
            return
        try:
            if lease.task != self._settings.task:
                raise Refused(f"it is for the task {lease.task!r}, this station does {self._settings.task!r}")
            for bundle in {item.bundle: None for item in lease.assignments}:
                self._fetch(bundle)
        except (BundleError, Refused) as error:
            self._refuse(f"lease {lease.lease_id} is not taken: {error}")
            self._ask_after_s = now_unix_s + AFTER_REFUSAL_S
            return
        self._ledger.add_lease(lease)

    def _fetch(self, sha256: str) -> None:
        """Fetch, verify and unpack a bundle that is not here yet."""
        if not SHA256.fullmatch(sha256):
            raise BundleMalformed(f"{sha256!r:.80} is not the name of a bundle")
        if sha256 in self._refused:
            raise BundleMalformed(self._refused[sha256])
        if (self._settings.bundles / sha256).is_dir():
            return
        try:
            data = self._ask(f"enpire/bundle/{sha256}")
            if bundle_id(data) != sha256:
                raise BundleMalformed("the coordinator sent another one")
            bundle = open_bundle(data, self._settings.trusted_keys)
            if bundle.manifest.task != self._settings.task:
                raise BundleMalformed(f"it is for the task {bundle.manifest.task!r}")
        except (BundleError, Refused) as error:
            self._refused[sha256] = f"bundle {sha256[:12]}: {error}"
            raise BundleMalformed(self._refused[sha256]) from error
        unpack(bundle, self._settings.bundles)

    def _begin_epoch(self, why: str) -> None:
        epoch = self._ledger.begin_epoch()
        self._refuse(f"{why}: it was copied, or restored from a copy; its trials are numbered anew as {epoch}")

    def _refuse(self, sentence: str) -> None:
        if sentence != self.refusal:  # the same one again says nothing new
            LOG.warning(sentence)
        self.refusal = sentence


def _unpack_map(data: bytes) -> dict[str, Any]:
    try:
        answer = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise NoAnswer(f"an answer that is not msgpack: {error}") from error
    if not isinstance(answer, dict):
        raise NoAnswer("an answer that is not a map")
    return answer


def _identity(raw: Any) -> tuple[str, str, int]:
    match raw:
        case [str(edge), str(epoch), int(sequence)] if 0 < sequence < 2**63:  # what a ledger can hold
            return edge, epoch, sequence
    raise NoAnswer("an answer that does not name trials")


def _range(raw: Any) -> tuple[int, int]:
    match raw:
        case [int(low), int(high)] if 0 <= low <= high < 2**63:
            return low, high
    raise NoAnswer("an answer that does not name ranges of trials")


def _refusal(raw: Any) -> tuple[tuple[str, str, int], str]:
    match raw:
        case [*identity, reason]:
            return _identity(identity), str(reason)
    raise NoAnswer("an answer that does not name what it refuses")
