"""What a station lends to the steward of its roll-outs, and what it asks of it before and after every trial.

Everything here happens between two trials, so that nothing changes under a policy that runs.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.activation.gates import Ended, Tested
from edge.activation.journal import ActivationError, Journal
from edge.activation.permit import Permit
from edge.activation.series import NAME_CHARS, OWN, Attempt
from edge.activation.steward import Abilities, Steward
from edge.envelope import EnvelopeImpossible, narrowed
from edge.ledger import Ledger
from edge.planning.kinematics import ToolChain
from edge.records import OWN_PURPOSES, SHADOW, Assignment, Lease, Trial
from edge.sandbox.process import PolicyHost
from edge.station import Station
from edge.trials.robot import Tape, TrialRobot
from edge.trials.shadow import ShadowRun, run_shadow, still
from edge.trust.errors import TrustError
from edge.trust.floor import FILE as FLOOR
from edge.trust.floor import read_floor
from policies.bundle import BundleError, Manifest, read_unpacked

LOG = logging.getLogger("edge.trials")
REMEMBERED = 4_000  # trials of either kind: a canary's pairs, and all that failed in a night between them
LOOKED_BACK = 8_000  # trials, at the start
TEND_EVERY_S = 0.1  # while there is nothing to do
HASHED_EVERY_S = 10.0  # the files of a bundle that stands; each trial hashes its own besides
ASKED_EVERY_S = 0.5  # whether the bundle that runs was revoked


class Rollout:
    """One station's roll-outs, as its trials see them."""

    def __init__(
        self,
        station: Station,
        host: PolicyHost,
        ledger: Ledger,
        journal: Journal,
        robot: TrialRobot,
        chain: ToolChain | None,
    ) -> None:
        """Take up what the ledger knows; the robot only ever shows where the arm stands, None the chain of no arm."""
        self._station, self._host, self._ledger, self._journal = station, host, ledger, journal
        self._robot, self._chain = robot, chain
        # Number in order, bundle, purpose, how; apart, so that no lease pushes out what a canary has shown.
        self._remembered = 0
        self._own: deque[tuple[int, str, str, Ended]] = deque(maxlen=REMEMBERED)
        self._leased: deque[tuple[int, str, str, Ended]] = deque(maxlen=REMEMBERED)
        for trial in ledger.newest(LOOKED_BACK):
            self._remember(trial)
        self._tape: Tape | None = None
        self._whole: dict[str, float] = {}  # bundle -> when its files were last found good
        self._tend_at_s = self._ask_at_s = float("-inf")
        can = Abilities(self._self_test, self._shadow, self._trials, self._enqueue, journal.overridden, self._present)
        self._steward = Steward(journal, station.gates, can)

    def started(self) -> None:
        """Note that the station's process starts."""
        self._steward.started()

    def permit(self, assignment: Assignment) -> Permit:
        """Say whether an attempt may begin, and within which limits.

        With a clock that cannot be right, signatures end at no time: then only what stands here already may run.

        Raises:
            ActivationError: the journal cannot be read.
        """
        given = self._steward.may_run(assignment.bundle, assignment.purpose)
        line = self._journal.line()
        if not given.allowed or assignment.bundle in (line.active, line.last_good):
            return given
        try:
            floor = read_floor((self._station.folder / "trust" / FLOOR, self._station.folder / FLOOR))
            if floor is not None:
                floor.check_clock(time.time())
        except TrustError as error:
            return Permit(False, str(error), False)
        return given

    def tape_for(self, assignment: Assignment) -> Tape | None:
        """Return an empty tape where what this attempt's policy sees is wanted for a shadow."""
        try:
            newcomer = self._journal.newcomer()
            wanted = newcomer is not None and newcomer.state in ("staged", "shadow")
            return Tape() if wanted and assignment.bundle == self._journal.line().active else None
        except ActivationError:  # the next trial is as good
            return None

    def why_stop(self, bundle: str) -> str:
        """Return why a trial must not go on, empty where it may; looks twice a second."""
        if time.monotonic() < self._ask_at_s:
            return ""
        self._ask_at_s = time.monotonic() + ASKED_EVERY_S
        try:
            row = self._journal.row(bundle)
        except ActivationError:  # a disk that fails for a moment ends no trial; the next look is soon
            return ""
        return f"its bundle was revoked: {row.reason}" if row.stop == "now" else ""

    def sealed(self, trial: Trial, tape: Tape | None) -> None:
        """Take in how a trial ended."""
        self._remember(trial)
        self._tape = tape if tape is not None and tape.states else self._tape
        self._tend_at_s = float("-inf")

    def tend(self) -> None:
        """Advance what can be advanced; call it between two trials.

        Raises:
            ActivationError: the journal cannot be used.
            SandboxError: no policy process can be started here.
        """
        if time.monotonic() >= self._tend_at_s:
            self._steward.tend()
            self._feed_shadow()
            self._tend_at_s = time.monotonic() + TEND_EVERY_S

    def _feed_shadow(self) -> None:
        """Let the active one run where a newcomer waits in its shadow and nobody else has work for it."""
        line, newcomer = self._journal.line(), self._journal.newcomer()
        if newcomer is None or newcomer.state != "shadow" or line.order is None or not line.active:
            return
        if self._ledger.pending_count(time.time()):
            return
        prefix = f"{OWN}{line.order.number}-shadow-{newcomer.bundle[:NAME_CHARS]}-"
        count = sum(how.assignment_id.startswith(prefix) for *_, how in self._own)
        start = line.order.starts[count % len(line.order.starts)]
        self._enqueue([Attempt(f"{prefix}{count}", line.active, start.start_id, start.start, start.seed, SHADOW)])

    # -- what the steward asks for ------------------------------------------------------------------------------------

    def _self_test(self, bundle: str) -> Tested:
        state, scene = self._robot.glance()
        return self._run(bundle, still(state, scene), "its self-test")

    def _shadow(self, bundle: str) -> Tested | None:
        if self._tape is None:
            return None
        tape, self._tape = self._tape, None
        return self._run(bundle, tape, "the shadow")

    def _run(self, bundle: str, tape: Tape, where: str) -> Tested:
        try:
            manifest = self._manifest(bundle)
            station = narrowed(self._station, manifest.envelope, proven=False)
        except (BundleError, EnvelopeImpossible) as error:
            return Tested(False, str(error), 0, 0.0, 0)
        return _tested(run_shadow(self._host, self._folder(bundle), manifest, tape, station, self._chain), where)

    def _trials(self, bundle: str, purpose: str) -> Sequence[Ended]:
        ended = [*self._own, *([] if purpose else self._leased)]
        mine = [(number, how) for number, ran, why, how in ended if ran == bundle and purpose in ("", why)]
        return [how for _, how in sorted(mine, key=lambda item: item[0])]  # not by a clock, which may be set back

    def _enqueue(self, attempts: Sequence[Attempt]) -> None:
        order = self._journal.line().order
        if order is None:
            return
        for item in attempts:
            one = Assignment(item.assignment_id, item.bundle, item.start_id, item.start, item.seed, item.purpose)
            self._ledger.add_lease(Lease(item.assignment_id, self._station.task, (one,), order.until_unix_s))

    def _present(self, bundle: str) -> bool:
        if time.monotonic() - self._whole.get(bundle, float("-inf")) < HASHED_EVERY_S:
            return True
        try:
            self._manifest(bundle)
        except BundleError as error:
            LOG.error("%s", error)
            self._whole.pop(bundle, None)
            return False
        self._whole[bundle] = time.monotonic()
        return True

    # -----------------------------------------------------------------------------------------------------------------

    def _remember(self, trial: Trial) -> None:
        how = Ended(trial.assignment_id, trial.outcome, trial.cause, trial.start_id, trial.sequence, trial.ended_unix_s)
        ended = self._own if trial.purpose in OWN_PURPOSES else self._leased
        self._remembered += 1
        ended.append((self._remembered, trial.bundle, trial.purpose, how))

    def _manifest(self, bundle: str) -> Manifest:
        manifest = read_unpacked(self._folder(bundle))
        if manifest.task != self._station.task:
            raise BundleError(
                f"bundle {bundle[:12]} is for task {manifest.task}, this station does {self._station.task}"
            )
        return manifest

    def _folder(self, bundle: str) -> Path:
        return self._station.folder / "bundles" / bundle


def _tested(run: ShadowRun, where: str) -> Tested:
    """Return a run on a tape as the gates count it."""
    p99_s = float(np.percentile(run.gaps_s, 99)) if run.gaps_s.size else 0.0
    detail = f"in {where} {run.fault or f'{run.steps} steps without a fault'}"
    return Tested(not run.fault and math.isfinite(p99_s), detail, run.steps, p99_s, run.breaches)
