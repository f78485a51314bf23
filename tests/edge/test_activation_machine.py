"""Whatever happens in whatever order, what an edge stands on keeps its laws."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.activation.journal import ActivationError
from edge.activation.rows import Line
from edge.activation.table import GONE, NEWCOMER, TABLE
from edge.records import Outcome
from tests.harness.activation_cases import CASES, A, B, C, D, begin, happen, subject
from tests.harness.activation_world import World, order

MEMORY = Path("/dev/shm")  # nothing here asks for a disk
BUNDLES = [A, B, C, D]
STAGES = ["shadow", "canary", "active", "active"]
ANY = st.sampled_from(BUNDLES)
ENDS = st.sampled_from(
    [(Outcome.SUCCESS, "")] * 2
    + [(Outcome.FAILURE, "near"), (Outcome.FAILURE, "crashed"), (Outcome.FAILURE, "safety"), (Outcome.INVALID, "reset")]
)
MOST_CHANGES = 10_000


@cache
def grown() -> str:
    """Make, once, a station on which B is active and A last good, and return its folder."""
    folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
    atexit.register(shutil.rmtree, folder)
    with closing(World(Path(folder))) as world:
        world.activate(A, 1)
        world.activate(B, 2)
    return folder


class Edge(RuleBasedStateMachine):
    """An edge, its uplink, its trials, its people and its bad luck."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.world = World(self.folder)
        self.before = Line()
        self.signed: set[str] = set()  # overrides
        self.steps = 0

    def teardown(self) -> None:
        self.world.close()
        shutil.rmtree(self.folder)

    # -- the lab ------------------------------------------------------------------------------------------------------

    @rule(
        bundle=ANY,
        stage=st.sampled_from(STAGES),
        ahead=st.sampled_from([-1, 0, 1, 1, 1, 3]),
    )
    def order_it(self, bundle: str, stage: str, ahead: int) -> None:
        self._order(ahead_of(self.before.floor, ahead), bundle, stage, False)

    @rule(bundle=ANY | st.just(""), ahead=st.sampled_from([0, 1, 1, 1]))
    def order_back(self, bundle: str, ahead: int) -> None:
        self._order(ahead_of(self.before.floor, ahead), bundle, "active", True)

    @initialize(name=st.none() | st.sampled_from(list(CASES)), goes_on=st.sampled_from([True, True, False]))
    def begin(self, name: str | None, goes_on: bool) -> None:
        """Begin with nothing, or where an arrow begins or ends."""
        if name is None:
            return
        self.world.close()
        shutil.copytree(grown(), self.folder, dirs_exist_ok=True)
        self.world = World(self.folder)
        begin(self.world, CASES[name])
        if goes_on:
            self.signed |= {subject(CASES[name])} if CASES[name].event == "skip" else set()
            happen(self.world, CASES[name])

    @rule(
        bundle=ANY,
        stage=st.sampled_from(STAGES),
        role=st.sampled_from(["released", "released", "candidates"]),
        turns=st.sampled_from([0, 1, 2, 3, 4, 8]),
    )
    def climb(self, bundle: str, stage: str, role: str, turns: int) -> None:
        """Let a bundle climb for some turns, in which nothing goes wrong."""
        self._order(self.world.journal.line().floor + 1, bundle, stage, False)
        self.fetch(bundle, role)
        for _ in range(turns):
            self.world.steward.tend()
            self.world.run_queue()

    @rule(bundle=ANY)
    def sign_override(self, bundle: str) -> None:
        self.signed.add(bundle)
        self.world.overrides.add(bundle)

    @precondition(lambda self: self.steps % 8 == 0)  # else nothing is soon left to play with
    @rule(bundle=ANY, when=st.sampled_from(["next-trial", "now"]))
    def revoke(self, bundle: str, when: str) -> None:
        if not self.world.journal.revoked():
            self.world.journal.revoke(bundle, when)

    # -- the uplink ---------------------------------------------------------------------------------------------------

    @rule()
    def fetch_what_is_wanted(self) -> None:
        self.world.fetch_all()

    @rule(bundle=ANY, role=st.sampled_from(["released", "candidates"]))
    def fetch(self, bundle: str, role: str) -> None:
        with suppress(ActivationError):
            self.world.fetch(bundle, role)

    @precondition(lambda self: self.steps % 8 == 1)
    @rule(bundle=ANY)
    def reject(self, bundle: str) -> None:
        if not self.world.journal.among(("rejected",)):
            with suppress(ActivationError):
                self.world.journal.rejected(bundle, "a bomb")

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    # -- the station --------------------------------------------------------------------------------------------------

    @rule()
    def tend(self) -> None:
        self.world.steward.tend()

    @rule(end=ENDS, turns=st.integers(1, 4))
    def run(self, end: tuple[Outcome, str], turns: int) -> None:
        """Let the newcomer's attempts end so, and those of the active one well."""
        active = self.world.journal.line().active
        for _ in range(turns):
            self.world.run_queue(lambda attempt: (Outcome.SUCCESS, "") if attempt.bundle == active else end)
            self.world.steward.tend()

    @rule(end=ENDS, count=st.sampled_from([1, 3]))
    def play(self, end: tuple[Outcome, str], count: int) -> None:
        for _ in range(count if self.world.journal.line().active else 0):
            self.world.end(self.world.journal.line().active, "play", *end)
        self.world.steward.tend()

    @rule(good=st.sampled_from([True, True, False]))
    def shadow_goes(self, good: bool) -> None:
        assert self.world.stretch is not None
        self.world.stretch = replace(self.world.stretch, breaches=int(not good))

    @rule(minutes=st.sampled_from([1.0, 1.0, 30.0, 70.0, -30.0]))
    def time_passes(self, minutes: float) -> None:
        self.world.later(60.0 * minutes)
        self.world.steward.tend()

    @precondition(lambda self: self.steps % 4 == 2)
    @rule(bundle=ANY)
    def files_are_lost(self, bundle: str) -> None:
        (self.folder / "bundles" / bundle).unlink(missing_ok=True)

    @rule(starts=st.integers(1, 3))
    def start_anew(self, starts: int) -> None:
        overrides, stretch = self.world.overrides, self.world.stretch
        self.world.close()
        self.world = World(self.folder)
        self.world.overrides, self.world.stretch = overrides, stretch
        for _ in range(starts):
            self.world.steward.started()

    # -- laws ---------------------------------------------------------------------------------------------------------

    @invariant()
    def the_line_holds(self) -> None:
        self.steps += 1
        journal, before = self.world.journal, self.before
        line = self.before = journal.line()
        rows = {row.bundle: row for row in journal.rows()}
        assert [row.bundle for row in rows.values() if row.state == "active"] == [line.active] * bool(line.active)
        assert sum(row.state in NEWCOMER for row in rows.values()) <= 1
        assert all(row.role == "released" for row in rows.values() if row.state in (*NEWCOMER, "active"))
        assert line.floor >= before.floor
        for bundle in filter(None, (line.active, line.last_good)):
            assert rows[bundle].state not in GONE
            assert not rows[bundle].denied
            assert bundle in journal.pinned()
        assert line.active != line.last_good or not line.active
        if before.active and not line.active:  # never without, unless a person has forbidden the only one
            assert rows[before.active].state == "revoked"

    @invariant()
    def the_log_tells_all_of_it(self) -> None:
        changes = self.world.journal.changes(MOST_CHANGES)
        states: dict[str, str] = {}
        accepted = set()
        for change in changes:
            assert change.origin == states.get(change.bundle, "none")
            assert TABLE[change.origin, change.event].target == change.target
            states[change.bundle] = change.target
            if change.event == "accept":
                accepted.add(change.bundle)
            assert change.event != "return" or change.bundle in accepted
            assert change.event != "skip" or change.bundle in self.signed
            assert change.event != "fault" or self.world.journal.row(change.bundle).denied
        assert states == {row.bundle: row.state for row in self.world.journal.rows()}
        line = self.world.journal.line()
        assert {line.active, line.last_good} - {""} <= accepted  # nothing stands here without its probation

    @invariant()
    def nothing_runs_that_may_not(self) -> None:
        line = self.world.journal.line()
        for bundle in BUNDLES:
            row = self.world.journal.row(bundle)
            for purpose in ("screen", "canary", "probation"):
                permit = self.world.steward.may_run(bundle, purpose)
                if row.state in GONE or row.denied or not row.role or row.missing:
                    assert not permit.allowed
                if permit.full_envelope:
                    assert row.role == "released"
                    assert purpose != "canary"
                    assert row.state == "probation" or bundle in (line.active, line.last_good)

    def _order(self, number: int, bundle: str, stage: str, rollback: bool) -> None:
        now = self.world.clock()
        floor = self.world.journal.line().floor
        standing = self.world.journal.line().order
        new = order(number, bundle, stage, rollback=rollback, issued_unix_s=now, until_unix_s=now + 3_600.0)
        try:
            taken = self.world.journal.offer(new)
        except ActivationError:
            assert self.world.journal.line().order == standing
            return
        assert number > floor if taken else new == standing


def ahead_of(floor: int, ahead: int) -> int:
    """Return an order's number, so far ahead of the floor."""
    return max(floor + ahead, 1)


TestEdge = Edge.TestCase
TestEdge.settings = settings(
    max_examples=200, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
