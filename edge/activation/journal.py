"""The durable memory of an edge's activations: who is active, what it goes back to, who is on the way, and why.

- One SQLite file (WAL, every commit on the disk before it returns), which uplink and trials process have open at once.
- One transaction is one arrow of `edge.activation.table`, with what follows from it for the bundle that steps aside or
  comes back. What the table, the standing order or a bundle's role does not allow is refused inside the transaction, so
  that neither process can act on what the other has just changed.
- The number of the newest order is a floor: an older one is never taken again, nor another one with that number.
- The active and the last good one are pinned: their files may not be deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge.activation.gates import Ruling, Tested
from edge.activation.reader import Reader
from edge.activation.rows import Change, Line, Row, read_line, read_row
from edge.activation.schema import ActivationError, ArrowRefused, Cut, OrderRefused, connect, explained, transaction
from edge.activation.table import ALREADY, FORMER, GONE, NEWCOMER, ON_TRIAL, TABLE, UNKNOWN, Arrow, refusal
from edge.records import NUMBERS_AHEAD, ROLLOUT_STAGES, RecordError, RolloutOrder, order_from_json, order_to_json

__all__ = ["ActivationError", "ArrowRefused", "Change", "Journal", "Line", "OrderRefused", "Row"]

ROLES = ("released", "candidates")
STOPS = ("next-trial", "now")
CLOCK_SLACK_S = 300.0  # that a clock may stand before the issue of an order
STARTS_KEPT = 16
HELD_UP = "order"  # stands in a bundle's evidence for why the order does not let it go on


class Journal(Reader):
    """One connection to the activation journal of a station."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.time, cut: Cut = lambda event, moment: None
    ) -> None:
        """Open the journal at `path`, making it where there is none.

        `cut` is called with each arrow's event before and after its commit, and after its effect: tests end the process
        there.

        Raises:
            ActivationError: it cannot be opened.
        """
        super().__init__(path, clock, connect(path))
        self.cut = cut

    # -- the uplink's arrows ------------------------------------------------------------------------------------------

    def offer(self, order: RolloutOrder) -> bool:
        """Take an order; return False where it is the one that stands.

        Raises:
            OrderRefused: its number is not above the floor or too far above it, its time is over or to come, or its
                bundle is not allowed.
        """
        try:
            body = order_to_json(order).decode()
            order_from_json(body.encode())
        except (RecordError, ValueError) as error:
            raise OrderRefused(str(error)) from error
        with self._writing("offer"):
            line = read_line(self._db)
            if line.order == order:
                return False
            self._check_order(order, line)
            if not order.rollback:
                row = read_row(self._db, order.bundle)
                fresh = {"evidence": "{}", "plan": "", "baseline": ""} if row.state in FORMER else {}
                self._take("offer", order.bundle, f"order {order.number}", {"task": order.task, **fresh})
            self._db.execute("UPDATE line SET floor = ?, standing = ?, closed = ''", (order.number, body))
        return True

    def begin(self, floor: int) -> None:
        """Take no order numbered up to `floor`, as a person has brought word of; a higher floor stays."""
        with self._writing("note"):
            self._db.execute("UPDATE line SET floor = MAX(floor, ?)", (floor,))

    def fetched(self, bundle: str) -> bool:
        """Note that the bytes are here; return False where they were."""
        return self._told("fetch", bundle, "its bytes have come")

    def verified(self, bundle: str, role: str, expires_unix_s: float, task: str = "") -> bool:
        """Note that signatures, hashes and the unpacked files are good; return False where nothing has changed.

        What is released stays so until that ends, and while the edge stands on it, whatever candidates say.

        Raises:
            ArrowRefused: it is revoked or rejected.
            ValueError: no such role, or an end that is no number.
        """
        if role not in ROLES or not expires_unix_s < float("inf"):
            raise ValueError(f"role {role!r} until {expires_unix_s}: wants one of {', '.join(ROLES)} and a time")
        with self._writing("verify"):
            row = read_row(self._db, bundle)
            line = read_line(self._db)
            stands = row.state in NEWCOMER or bundle in (line.active, line.last_good)
            if role == "candidates" and row.role == "released" and (stands or self.clock() < row.expires_unix_s):
                role, expires_unix_s = row.role, row.expires_unix_s
            said = (role, expires_unix_s, task or row.task, False)
            if row.state not in (*UNKNOWN, *GONE) and said == (row.role, row.expires_unix_s, row.task, row.missing):
                return False
            columns = {"role": role, "expires_unix_s": expires_unix_s, "task": task or row.task, "missing": 0}
            self._take("verify", bundle, f"signed by {role}", columns)
        return True

    def rejected(self, bundle: str, why: str) -> bool:
        """Note that the bytes are not what they should be; return False where that is known."""
        return self._told("reject", bundle, why)

    def revoke(self, bundle: str, when: str) -> bool:
        """Forbid a bundle for good; an active one makes way for the last good one. Return False where it was revoked.

        Raises:
            ValueError: `when` is neither "next-trial" nor "now".
        """
        if when not in STOPS:
            raise ValueError(f"a revocation is for {' or '.join(STOPS)}, not {when!r}")
        with self._writing("revoke"):
            if when == "now" and read_row(self._db, bundle).stop == "next-trial":  # more urgent than before
                self._db.execute("UPDATE bundles SET stop = 'now' WHERE bundle = ?", (bundle,))
                return True
            return self._take("revoke", bundle, f"revoked: {when}", {"stop": when}) is not None

    def override(self, bundle: str, allowed: bool) -> None:
        """Note whether two people let a bundle become active without a canary, as is signed now."""
        with self._writing("note"):
            change = (
                "INSERT OR IGNORE INTO overrides VALUES (?)" if allowed else "DELETE FROM overrides WHERE bundle = ?"
            )
            self._db.execute(change, (bundle,))

    # -- the steward's ------------------------------------------------------------------------------------------------

    def take(self, event: str, bundle: str, reason: str, ruling: Ruling | None = None) -> Change:
        """Take one arrow, with what a gate said.

        Raises:
            ArrowRefused: the table, the standing order or the bundle's role does not allow it now.
        """
        with self._writing(event):
            columns = self._columns(event, bundle, ruling)
            change = self._take(event, bundle, reason, columns)
        if change is None:
            raise ArrowRefused(f"{event} of {bundle[:12]} has happened already")
        return change

    def why_not(self, event: str, bundle: str) -> str:
        """Return why an arrow would be refused, empty where it would be taken."""
        with explained(self.path):
            try:
                self._arrow(event, read_row(self._db, bundle), read_line(self._db))
            except ArrowRefused as refused:
                return str(refused)
        return ""

    def note(self, bundle: str, ruling: Ruling) -> None:
        """Keep what a gate says while it waits."""
        with self._writing("note"):
            evidence = _with(read_row(self._db, bundle).evidence, ruling)
            self._db.execute("UPDATE bundles SET evidence = ? WHERE bundle = ?", (evidence, bundle))

    def watched(self, bundle: str, tested: Tested) -> None:
        """Add a stretch that a bundle ran in the shadow."""
        with self._writing("note"):
            self._db.execute(
                "UPDATE bundles SET shadow_steps = shadow_steps + ?, shadow_breaches = shadow_breaches + ?,"
                " shadow_p99_s = MAX(shadow_p99_s, ?) WHERE bundle = ? AND state = 'shadow'",
                (tested.steps, tested.breaches, tested.p99_s, bundle),
            )

    def missing(self, bundle: str) -> None:
        """Note that the files of a pinned bundle are gone or damaged and there is none to go back to."""
        with self._writing("note"):
            self._db.execute("UPDATE bundles SET missing = 1 WHERE bundle = ?", (bundle,))

    def begun(self, active: str, after: str) -> None:
        """Note which trial of the active one was its newest when it became so, empty where it had none."""
        with self._writing("note"):
            self._db.execute("UPDATE line SET begun_after = ? WHERE active = ?", (after, active))

    def close_order(self, what: str) -> None:
        """Note what came of an order to roll back that no arrow answers."""
        with self._writing("note"):
            self._db.execute("UPDATE line SET closed = ?", (what,))

    def started(self, within_s: float) -> int:
        """Note a start of the station's process; return how many there were lately while its newcomer was on trial."""
        with self._writing("note"):
            newcomer = self.newcomer()
            bundle = newcomer.bundle if newcomer is not None and newcomer.state in ON_TRIAL else ""
            now_unix_s = self.clock()
            self._db.execute("INSERT INTO starts (unix_s, bundle) VALUES (?, ?)", (now_unix_s, bundle))
            self._db.execute("DELETE FROM starts WHERE number <= (SELECT MAX(number) FROM starts) - ?", (STARTS_KEPT,))
            count = self._db.execute(
                "SELECT COUNT(*) FROM starts WHERE bundle = ? AND ABS(? - unix_s) <= ?", (bundle, now_unix_s, within_s)
            ).fetchone()[0]
        return int(count) if bundle else 0

    # -- inside a transaction -----------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, event: str) -> Iterator[None]:
        with explained(self.path), transaction(self._db, event, self.cut):
            yield

    def _told(self, event: str, bundle: str, reason: str) -> bool:
        with self._writing(event):
            return self._take(event, bundle, reason, {}) is not None

    def _check_order(self, order: RolloutOrder, line: Line) -> None:
        """Raise OrderRefused unless the order may stand."""
        row, now_unix_s = read_row(self._db, order.bundle), self.clock()
        other_task = bool(order.bundle and row.task and row.task != order.task)
        for allowed, rule in (
            (order.number > line.floor, f"orders up to {line.floor} were seen here; number it higher"),
            (
                order.number <= line.floor + NUMBERS_AHEAD,
                f"it is over {NUMBERS_AHEAD:,} above {line.floor}, the newest seen here; if this edge was set up anew, "
                "enrol it, and its ticket tells it the present number (enpire-coord enrol ticket, enpire-edge enrol); "
                f"else number it {line.floor + 1}",
            ),
            (now_unix_s < order.until_unix_s, "its time is over; issue it anew"),
            (now_unix_s >= order.issued_unix_s - CLOCK_SLACK_S, "it is from the future; set this edge's clock"),
            (order.rollback or not row.denied, f"this edge denies the bundle: {row.denied}"),
            (order.rollback or row.state not in GONE, f"the bundle is {row.state}: {row.reason}"),
            (order.rollback or not other_task, f"the bundle is for {row.task}, the order for {order.task}"),
        ):
            if not allowed:
                raise OrderRefused(f"order {order.number} is refused: {rule}")

    def _take(self, event: str, bundle: str, reason: str, columns: Mapping[str, object]) -> Change | None:
        """Take one arrow inside a transaction; return None where it has happened already."""
        row, line = read_row(self._db, bundle), read_line(self._db)
        if (row.state, event) in ALREADY:
            return None
        arrow = self._arrow(event, row, line)
        now_unix_s = self.clock()
        if arrow.takes_over and line.active:
            self._move(line.active, TABLE["active", "replace"], f"{bundle[:12]} took its place", {})
        moved = (
            {"since_unix_s": now_unix_s, "reason": reason} if arrow.target != row.state or row.state == "none" else {}
        )
        self._move(bundle, arrow, reason, {**moved, **columns})
        if arrow.denies:
            self._db.execute("INSERT OR REPLACE INTO denied VALUES (?, ?, ?)", (bundle, reason, now_unix_s))
        if arrow.takes_over:
            self._db.execute(
                "UPDATE line SET active = ?, last_good = ?, begun_after = NULL", (bundle, line.active or None)
            )
        if arrow.gives_up:
            self._fall_back(line, f"{bundle[:12]} had to go")
        elif bundle == line.last_good and (arrow.denies or arrow.target in GONE):
            self._db.execute("UPDATE line SET last_good = NULL")
        if event == "recall":
            self._db.execute("UPDATE line SET closed = ?", (reason,))
        return Change(bundle, arrow.origin, event, arrow.target, now_unix_s, reason)

    def _move(self, bundle: str, arrow: Arrow, reason: str, columns: Mapping[str, object]) -> None:
        """Write a bundle's new state, and the arrow."""
        if arrow.event in ("replace", "return"):
            columns = {"since_unix_s": self.clock(), "reason": reason, **columns}
        columns = {"state": arrow.target, **columns}
        self._db.execute(
            "INSERT OR IGNORE INTO bundles (bundle, state, since_unix_s) VALUES (?, 'none', ?)", (bundle, self.clock())
        )
        names = ", ".join(f"{name} = ?" for name in columns)
        self._db.execute(f"UPDATE bundles SET {names} WHERE bundle = ?", (*columns.values(), bundle))
        self._db.execute(
            "INSERT INTO arrows (bundle, origin, event, target, unix_s, reason) VALUES (?, ?, ?, ?, ?, ?)",
            (bundle, arrow.origin, arrow.event, arrow.target, self.clock(), reason),
        )

    def _fall_back(self, line: Line, reason: str) -> None:
        """Make the last good one active again, none where there is none."""
        back = line.last_good
        if back:
            self._move(back, TABLE[read_row(self._db, back).state, "return"], reason, {})
        self._db.execute("UPDATE line SET active = ?, last_good = NULL, begun_after = NULL", (back or None,))

    def _arrow(self, event: str, row: Row, line: Line) -> Arrow:
        """Return the arrow that an event takes.

        Raises:
            ArrowRefused: the table, the standing order or the bundle's role does not allow it.
        """
        arrow = TABLE.get((row.state, event))
        why = refusal(row.state, event) if arrow is None else self._hindrance(arrow, row, line)
        if arrow is None or why:
            raise ArrowRefused(f"{event} of {row.bundle[:12]} is refused: {why or 'it has happened already'}")
        return arrow

    def _hindrance(self, arrow: Arrow, row: Row, line: Line) -> str:
        """Return what stands against an arrow of the table, empty where nothing does."""
        if (
            arrow.gives_up
            and arrow.event != "revoke"
            and (not line.last_good or read_row(self._db, line.last_good).missing)
        ):
            return "there is none to go back to"
        if not arrow.stage:
            return ""
        newcomer = self.newcomer()
        order, now_unix_s = line.order, self.clock()
        if order is None or order.rollback or order.bundle != row.bundle or not now_unix_s < order.until_unix_s:
            return "no standing order names it"
        for allowed, rule in (
            (now_unix_s >= order.issued_unix_s - CLOCK_SLACK_S, "the clock stands before the order's issue; set it"),
            (
                ROLLOUT_STAGES.index(order.stage) >= ROLLOUT_STAGES.index(arrow.stage),
                f"the order ends at {order.stage}",
            ),
            (row.role == "released", f"signed by {row.role or 'nobody'}: only a released bundle goes beyond verified"),
            (now_unix_s < row.expires_unix_s, "its release has expired; sign it anew"),
            (not row.denied, f"this edge denies it: {row.denied}"),
            (newcomer is None or newcomer.bundle == row.bundle, "another newcomer is on its way"),
            (line.active in (order.parent or line.active, "", row.bundle), "its parent is not the active one"),
        ):
            if not allowed:
                return rule
        return ""

    def _columns(self, event: str, bundle: str, ruling: Ruling | None) -> dict[str, object]:
        """Return what an arrow of the steward writes beside the state."""
        said = {gate: item for gate, item in read_row(self._db, bundle).evidence.items() if gate != HELD_UP}
        columns: dict[str, object] = {"evidence": _with(said, ruling)}
        if event == "watch":
            columns |= {"shadow_steps": 0, "shadow_p99_s": 0.0, "shadow_breaches": 0}
        if event in ("try", "skip"):
            line = read_line(self._db)
            plan = order_to_json(line.order).decode() if line.order else ""
            columns |= {"plan": plan, "baseline": line.active if event == "try" else ""}
        if event == "lose":
            columns["missing"] = 1
        return columns


def _with(evidence: Mapping[str, object], ruling: Ruling | None) -> str:
    """Return what the gates have said, with one more, as JSON."""
    return json.dumps({**evidence, **({} if ruling is None else {ruling.gate: ruling.as_map()})}, sort_keys=True)
