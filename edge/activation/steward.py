"""Takes the arrows that are not the uplink's: between two trials, and never moves the arm.

- `tend` is called by the trials process between two trials only: that is the update lock.
- All that there is to do is derived from the journal and the ledger, so that a restart goes on where the last process
  ended. The attempts of a canary and of a probation carry names that say which they are: asked for twice they run once.
- Attempts are asked for one pair at a time, the newcomer first in every other pair; nothing of a newcomer that had to
  go is left in the queue but at most one pair, and `may_run` refuses that.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edge.activation import gates as gate
from edge.activation.gates import Call, Ended, Gates, Ruling, Tested
from edge.activation.journal import HELD_UP, ActivationError, ArrowRefused, Journal
from edge.activation.permit import Permit, permit
from edge.activation.rows import Change, Line, Row
from edge.activation.series import BASELINE, NAME_CHARS, Attempt, Series
from edge.activation.series import NEWCOMER as NEW
from edge.activation.table import NEWCOMER
from edge.records import CANARY, PROBATION, Outcome, RolloutOrder

LOG = logging.getLogger("edge.activation")
CRASH_LOOP_STARTS, CRASH_LOOP_S = 3, 60.0
TESTED_AGAIN_S = 30.0  # after a self-test that was only too slow
MOST_ARROWS = 64  # in one call; there are never so many to take


@dataclass(frozen=True)
class Abilities:
    """What the station lends to the steward."""

    self_test: Callable[[str], Tested]  # in the sandbox
    shadow: Callable[[str], Tested | None]  # on what the active one saw in its last trial; None: nothing new
    trials: Callable[[str, str], Sequence[Ended]]  # of a bundle, with a purpose or "" for all; in the order they ended
    enqueue: Callable[[Sequence[Attempt]], None]  # the same assignment_id again is no second attempt
    overridden: Callable[[str], bool]  # two people have signed that it may become active without a canary
    present: Callable[[str], bool]  # unpacked, and every hash is right


class Steward:
    """Follows the table for one edge."""

    def __init__(
        self,
        journal: Journal,
        gates: Gates,
        abilities: Abilities,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        tested_again_s: float = TESTED_AGAIN_S,
    ) -> None:
        """Follow the table by what the station lends.

        Signatures and orders end by `clock`, unix seconds. A self-test that was only too slow is made again no sooner
        than `tested_again_s` later by `steady`, in seconds from anywhere.
        """
        self._steady, self._tested_again_s = steady, tested_again_s
        self._test_at_s: dict[str, float] = {}  # bundle -> when its self-test may be made again, by `steady`
        self._journal = journal
        self._gates = gates
        self._can = abilities
        self._clock = clock

    def started(self) -> Change | None:
        """Note that the station's process starts; the third start in a minute rolls back what is on trial."""
        count = self._journal.started(CRASH_LOOP_S)
        newcomer = self._journal.newcomer()
        if newcomer is None or count < CRASH_LOOP_STARTS:
            return None
        return self._take("crash_loop", newcomer.bundle, f"{count} starts in {CRASH_LOOP_S:.0f} s")

    def tend(self) -> list[Change]:
        """Advance what can be advanced and return what has changed."""
        changes: list[Change] = []
        while len(changes) < MOST_ARROWS:
            change = self._step()
            if change is None:
                break
            changes.append(change)
        return changes

    def may_run(self, bundle: str, purpose: str) -> Permit:
        """Say whether an attempt of a bundle may begin now, and within which envelope."""
        return permit(self._journal.row(bundle), self._journal.line(), purpose, self._clock())

    # -- one arrow ----------------------------------------------------------------------------------------------------

    def _step(self) -> Change | None:
        """Take the first arrow that is due, None where there is none."""
        line = self._journal.line()
        newcomer = self._journal.newcomer()
        change = self._recall(line, newcomer) or self._outdated(line, newcomer) or self._standing(line)
        if change is not None or line.order is None or line.order.rollback:
            return change
        row = self._journal.row(line.order.bundle)
        if row.state in ("verified", *NEWCOMER) and row.role and not self._can.present(row.bundle):
            return self._take("lose", row.bundle, "its unpacked files are gone or damaged")
        follow = {
            "verified": self._test,
            "staged": self._watch,
            "shadow": self._shadow,
            "canary": self._canary,
            "probation": self._probation,
        }.get(row.state)
        return None if follow is None else follow(row, line)

    def _take(self, event: str, bundle: str, reason: str, ruling: Ruling | None = None) -> Change | None:
        """Take an arrow; None where the uplink was faster, and what is due is then something else."""
        try:
            change = self._journal.take(event, bundle, reason, ruling)
        except ArrowRefused as refused:
            LOG.info("%s", refused)
            return None
        LOG.info("%s %s: %s > %s, %s", event, bundle[:NAME_CHARS], change.origin, change.target, reason)
        return change

    # -- down ---------------------------------------------------------------------------------------------------------

    def _recall(self, line: Line, newcomer: Row | None) -> Change | None:
        """Follow an order to roll back, once."""
        order = line.order
        if order is None or not order.rollback or line.closed:
            return None
        going = newcomer.bundle if newcomer is not None else line.active
        if order.bundle:
            going = order.bundle if order.bundle in (going, line.active) else ""
        why = self._journal.why_not("recall", going) if going else "it is neither on its way nor active"
        if why:
            self._journal.close_order(why)
            return None
        return self._take("recall", going, f"order {order.number} asks for the last good one")

    def _outdated(self, line: Line, newcomer: Row | None) -> Change | None:
        """Take back what the standing order does not name, or not any more."""
        order = line.order
        named = "" if order is None or order.rollback else order.bundle
        for row in [newcomer] if newcomer is not None else self._journal.among(("offered",)):
            if row.bundle != named:
                return self._take("withdraw", row.bundle, f"order {line.floor} does not name it")
            if order is not None and not self._clock() < order.until_unix_s:
                return self._take("expire", row.bundle, f"the time of order {line.floor} is over")
        return None

    def _standing(self, line: Line) -> Change | None:
        """Look after the active and the last good one."""
        for bundle in filter(None, (line.active, line.last_good)):
            if self._journal.row(bundle).missing or self._can.present(bundle):
                continue
            if (
                bundle == line.active
                and not self._journal.why_not("lose", bundle)
                and self._can.present(line.last_good)
            ):
                return self._take("lose", bundle, "its unpacked files are gone or damaged")
            LOG.error("the files of %s are gone or damaged; they are fetched anew", bundle[:NAME_CHARS])
            self._journal.missing(bundle)
        if not line.active:
            return None
        return self._blame(line.active, self._since_active(line))

    def _since_active(self, line: Line) -> Sequence[Ended]:
        """Return the active one's trials since it became so; no clock has a say in which these are."""
        trials = list(self._can.trials(line.active, ""))
        names = [f"{item.sequence} {item.assignment_id}" for item in trials]
        if line.begun_after is None:
            self._journal.begun(line.active, names[-1] if names else "")
            return []
        # One that the station does not remember any more is older than all that it does.
        return trials[names.index(line.begun_after) + 1 :] if line.begun_after in names else trials

    def _blame(self, bundle: str, trials: Sequence[Ended]) -> Change | None:
        """Take back a bundle with too many policy faults."""
        ruling = gate.faults(trials, self._gates)
        if ruling.call is not Call.FAIL:
            return None
        why = self._journal.why_not("fault", bundle)
        if why:
            LOG.error("%s of %s, but %s", ruling.note, bundle[:NAME_CHARS], why)
            self._note(bundle, replace(ruling, note=f"{ruling.note}; {why}"))
            return None
        return self._take("fault", bundle, ruling.note, ruling)

    # -- up -----------------------------------------------------------------------------------------------------------

    def _test(self, row: Row, line: Line) -> Change | None:
        if self._steady() < self._test_at_s.get(row.bundle, -math.inf) or not self._ready("test", row):
            return None
        ruling = gate.self_test(self._can.self_test(row.bundle), self._gates)
        self._journal.cut("verify", "after effect")
        if ruling.call is Call.WAIT:
            self._test_at_s[row.bundle] = self._steady() + self._tested_again_s
            self._note(row.bundle, ruling)
            return None
        return self._take("test" if ruling.call is Call.PASS else "fail", row.bundle, ruling.note, ruling)

    def _watch(self, row: Row, line: Line) -> Change | None:
        return self._take("watch", row.bundle, "between two trials") if self._ready("watch", row) else None

    def _shadow(self, row: Row, line: Line) -> Change | None:
        counted: Tested | None = None
        if line.active:
            stretch = self._can.shadow(row.bundle)
            self._journal.cut("watch", "after effect")
            if stretch is not None and math.isfinite(stretch.p99_s):
                self._journal.watched(row.bundle, stretch)
            counted = self._journal.row(row.bundle).watched
            if stretch is not None and not (stretch.ok and math.isfinite(stretch.p99_s)):
                counted = replace(counted, ok=False, detail=stretch.detail)
        ruling = gate.shadow(counted, self._gates)
        if ruling.call is Call.FAIL:
            return self._take("worse", row.bundle, ruling.note, ruling)
        may_skip = line.order is not None and line.order.stage == "active"
        skips = ruling.call is Call.PASS and may_skip and self._can.overridden(row.bundle)
        event = "skip" if skips else "try"
        if ruling.call is Call.WAIT or not self._ready(event, row):
            self._note(row.bundle, ruling)
            return None
        return self._take(event, row.bundle, "no canary, as two people have signed" if skips else ruling.note, ruling)

    def _canary(self, row: Row, line: Line) -> Change | None:
        if row.baseline != line.active:
            return self._take("rebase", row.bundle, "another one is active than the one it was compared with")
        series = Series(_plan(row), CANARY, row.bundle, row.baseline)
        trials = series.pick(self._can.trials(row.bundle, CANARY), NEW)
        change = self._blame(row.bundle, trials)
        if change is not None:
            return change
        baseline = series.pick(self._can.trials(row.baseline, CANARY), BASELINE) if row.baseline else []
        pairs, lacking = series.pairs([*trials, *baseline])
        change = self._judge(row, gate.canary(pairs, trials, bool(row.baseline), self._gates), "prove", lacking)
        self._journal.cut("try", "after effect")
        return change

    def _probation(self, row: Row, line: Line) -> Change | None:
        series = Series(_plan(row), PROBATION, row.bundle)
        trials = series.pick(self._can.trials(row.bundle, PROBATION), NEW)
        change = self._blame(row.bundle, trials)
        if change is not None:
            return change
        _, lacking = series.pairs(trials)
        ruling = gate.probation(trials, self._canary_share(row), self._gates)
        change = self._judge(row, ruling, "accept", lacking)
        for event in ("skip", "prove"):
            self._journal.cut(event, "after effect")
        return change

    def _judge(self, row: Row, ruling: Ruling, event: str, lacking: Sequence[Attempt]) -> Change | None:
        """Take a newcomer further or back as a gate says, or ask for the attempts that it lacks."""
        if ruling.call is Call.FAIL:
            return self._take("worse", row.bundle, ruling.note, ruling)
        if ruling.call is Call.PASS and self._ready(event, row):
            return self._take(event, row.bundle, ruling.note, ruling)
        self._note(row.bundle, ruling)
        if ruling.call is Call.WAIT:
            self._can.enqueue(lacking)
        return None

    def _canary_share(self, row: Row) -> float | None:
        """Return the newcomer's share of successes in its canary, None where it had none."""
        series = Series(_plan(row), CANARY, row.bundle, row.baseline)
        trials = series.pick(self._can.trials(row.bundle, CANARY), NEW)
        valid = [item for item in trials if item.counts]
        return sum(item.outcome is Outcome.SUCCESS for item in valid) / len(valid) if valid else None

    # -- helpers ------------------------------------------------------------------------------------------------------

    def _ready(self, event: str, row: Row) -> bool:
        """Return whether an arrow would be taken; what stands against it is kept with the bundle."""
        why = self._journal.why_not(event, row.bundle)
        if why:
            self._note(row.bundle, Ruling(HELD_UP, Call.WAIT, (), why))
        return not why

    def _note(self, bundle: str, ruling: Ruling) -> None:
        """Keep what a gate says, where that has changed."""
        if self._journal.row(bundle).evidence.get(ruling.gate) != json.loads(json.dumps(ruling.as_map())):
            self._journal.note(bundle, ruling)


def _plan(row: Row) -> RolloutOrder:
    """Return the order that a canary or a probation began under."""
    if row.plan is None:
        raise ActivationError(f"{row.bundle} is on trial without a plan; the journal was written by other hands")
    return row.plan
