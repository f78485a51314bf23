"""When a newcomer may go on: pure functions over counted evidence, each with every value beside its threshold.

- A gate says pass, fail or wait. It fails as soon as it cannot pass any more.
- The canary compares the newcomer with the active one on this edge, on the same starts, in turns: a bad camera damns
  both alike. Only pairs of which both attempts say something of their policy count; one that was cut short is asked for
  again on its start. One that could not be judged is no success, or a policy would hide what it leaves.
- With nothing active there is no baseline: then faults, safety stops and a least share of successes count, and the
  ruling says so.
- Whatever it is compared with, a newcomer that succeeds less often than `floor_share` goes no further: a camera that
  damns both alike makes nobody active.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from edge.records import Outcome, is_tried

FAULT_CAUSES = ("crashed", "hung", "safety", "bad_target")  # a policy's own; a timeout is a failure like any other
FAULT_WINDOW = 10
POLICY_PERIOD_S = 1.0 / 30.0


@dataclass(frozen=True)
class Gates:
    """The thresholds."""

    shadow_steps: int = 2_000
    breaches: int = 0  # targets outside the envelope, in the self-test and in the shadow
    step_p99_s: float = POLICY_PERIOD_S
    canary_pairs: int = 20
    delta: float = 0.15  # by this share of pairs the newcomer may succeed less often than the active one
    safety_stops: int = 0  # of the newcomer's canary
    least_share: float = 0.5  # of successes, where there is no baseline
    floor_share: float = 0.2  # of a newcomer's own successes, in its canary and in its probation, whatever else counts
    probation_trials: int = 20
    probation_drop: float = 0.30  # by this share probation, in the full envelope, may fall short of the canary
    faults: int = 3  # in FAULT_WINDOW trials in a row are too many


@dataclass(frozen=True)
class Tested:
    """What a stretch of a policy's steps showed, in the self-test or in the shadow."""

    ok: bool
    detail: str  # one sentence for a person
    steps: int
    p99_s: float  # of the time that a step took
    breaches: int  # targets outside its envelope


@dataclass(frozen=True)
class Ended:
    """How one attempt ended, as the ledger says."""

    assignment_id: str
    outcome: Outcome
    cause: str
    start_id: str
    sequence: int
    ended_unix_s: float

    @property
    def counts(self) -> bool:
        """Whether it says something of its policy; what could not be judged is no success."""
        return is_tried(self.outcome, self.cause)

    @property
    def faulty(self) -> bool:
        """Whether the policy did something that no sound one does."""
        return self.outcome is Outcome.FAILURE and self.cause in FAULT_CAUSES


@dataclass(frozen=True)
class Pair:
    """Two valid attempts from the same start; without a baseline the newcomer's alone."""

    newcomer: Ended
    baseline: Ended | None


class Call(StrEnum):
    """What a gate says."""

    PASS = "pass"
    FAIL = "fail"
    WAIT = "wait"


@dataclass(frozen=True)
class Gauge:
    """One value beside its threshold."""

    name: str
    value: float
    rule: str  # "at least", "at most" or "below"
    threshold: float
    holds: bool  # false also while more is needed


@dataclass(frozen=True)
class Ruling:
    """What a gate says, and from what."""

    gate: str
    call: Call
    gauges: tuple[Gauge, ...]
    note: str  # one sentence for a person

    def as_map(self) -> Mapping[str, object]:
        """Return it as what JSON can hold: no value where there is no number."""
        gauges = [
            {**asdict(gauge), "value": gauge.value if math.isfinite(gauge.value) else None} for gauge in self.gauges
        ]
        return {"gate": self.gate, "call": str(self.call), "gauges": gauges, "note": self.note}


def self_test(tested: Tested, gates: Gates) -> Ruling:
    """Say whether a verified bundle may be staged; wait where it was too slow and nothing else is wrong.

    A busy moment of the machine looks the same as a slow policy, and whoever fails here is rejected for good.
    """
    gauges = (_below("step p99 s", tested.p99_s, gates.step_p99_s), _most("breaches", tested.breaches, gates.breaches))
    time, breaches = gauges
    possible = tested.ok and breaches.holds and math.isfinite(tested.p99_s)
    return Ruling("self-test", _call(possible, time.holds), gauges, _said(tested, gauges))


def shadow(counted: Tested | None, gates: Gates) -> Ruling:
    """Say whether a newcomer may move the arm, from all that it did in the shadow; None where nothing is active."""
    if counted is None:
        note = "nothing is active that it could run beside: only its self-test speaks for it"
        return Ruling("shadow", Call.PASS, (), note)
    gauges = (
        _least("steps", counted.steps, gates.shadow_steps),
        _most("breaches", counted.breaches, gates.breaches),
        _below("step p99 s", counted.p99_s, gates.step_p99_s),
    )
    if not (counted.ok and all(gauge.holds for gauge in gauges[1:])):
        return Ruling("shadow", Call.FAIL, gauges, _said(counted, gauges[1:]))
    return Ruling("shadow", Call.PASS if gauges[0].holds else Call.WAIT, gauges, counted.detail)


def canary(pairs: Sequence[Pair], trials: Sequence[Ended], compared: bool, gates: Gates) -> Ruling:
    """Say whether a newcomer is safe, and no worse than the active one by more than delta.

    It passes where, after `canary_pairs` pairs, the newcomer's successes are fewer than the active one's by at most
    `delta` of the pairs, that is by at most 3 of 20, and are at least `floor_share` of its own attempts, that is 4.
    With independent attempts this passes, of 4,000 drawn each,

        equal, both succeed in .5           87 %
        equal, both succeed in .9           97 %
        .2 beside .5, 30 points worse       18 %
        .6 beside .9, 30 points worse       16 %

    Starts that are hard for both bring the first two up and the others down. What slips through moves the arm in the
    full envelope for the whole of its probation before anything stands on it.

    Args:
        pairs: the valid ones, in their order.
        trials: all that the newcomer did in this canary, oldest first.
        compared: whether there is a baseline.
    """
    count = len(pairs)
    stops = sum(item.outcome is Outcome.FAILURE and item.cause == "safety" for item in trials)
    won = sum(item.newcomer.outcome is Outcome.SUCCESS for item in pairs)
    lost_to = sum(item.baseline is not None and item.baseline.outcome is Outcome.SUCCESS for item in pairs)
    safe = (_most("safety stops", stops, gates.safety_stops), _faults(trials, gates))
    enough = _least("pairs" if compared else "attempts", count, gates.canary_pairs)
    # Every pair to come can gain at most one.
    to_come, most = max(gates.canary_pairs - count, 0), max(gates.canary_pairs, count)
    least = gates.floor_share if compared else max(gates.least_share, gates.floor_share)
    shares = [_least("success share", won / max(count, 1), least)]
    hopeless = not (won + to_come) / most >= least
    if compared:
        more = (won - lost_to) / max(count, 1)
        shares.append(_least("successes more than the active one's, share", more, -gates.delta))
        hopeless = hopeless or not (won - lost_to + to_come) / most >= -gates.delta
    note = f"{won} successes beside {lost_to} of the active one in {count} pairs"
    if not compared:
        note = f"{won} successes in {count} attempts; nothing is active to compare with"
    possible = all(gauge.holds for gauge in safe) and not hopeless
    call = _call(possible, enough.holds and all(gauge.holds for gauge in shares))
    return Ruling("canary", call, (enough, *shares, *safe), note)


def probation(trials: Sequence[Ended], canary_share: float | None, gates: Gates) -> Ruling:
    """Say whether a newcomer holds in its full envelope.

    Args:
        trials: of its probation, oldest first.
        canary_share: of successes in its canary; None where it had none.
    """
    valid = [item for item in trials if item.counts]
    won = sum(item.outcome is Outcome.SUCCESS for item in valid)
    enough, faults = _least("trials", len(valid), gates.probation_trials), _faults(trials, gates)
    note = f"{won} successes in {len(valid)} trials"
    least = gates.floor_share
    if canary_share is None:
        note = f"{note}; it had no canary to compare with"
    else:
        least = max(least, round(canary_share - gates.probation_drop, 9))
    successes = _least("success share", won / max(len(valid), 1), least)
    best = (won + max(gates.probation_trials - len(valid), 0)) / max(len(valid), gates.probation_trials)
    call = _call(faults.holds and best >= least, enough.holds and successes.holds)
    return Ruling("probation", call, (enough, successes, faults), note)


def faults(trials: Sequence[Ended], gates: Gates) -> Ruling:
    """Say whether a bundle had too many policy faults in its last ten valid trials, given oldest first."""
    gauge = _faults(trials, gates)
    note = f"{gauge.value:.0f} policy faults in its last {FAULT_WINDOW} trials"
    return Ruling("faults", Call.PASS if gauge.holds else Call.FAIL, (gauge,), note)


def _faults(trials: Sequence[Ended], gates: Gates) -> Gauge:
    valid = [item for item in trials if item.counts][-FAULT_WINDOW:]
    return _most(f"faults in {FAULT_WINDOW} trials", sum(item.faulty for item in valid), gates.faults - 1)


def _said(tested: Tested, gauges: Sequence[Gauge]) -> str:
    """Return what a stretch of steps showed, and which values are beyond their thresholds."""
    beyond = [
        f"{item.name} is {item.value:.3g}, wants {item.rule} {item.threshold:.3g}" for item in gauges if not item.holds
    ]
    return "; ".join([tested.detail, *beyond])


def _call(possible: bool, reached: bool) -> Call:
    if not possible:
        return Call.FAIL
    return Call.PASS if reached else Call.WAIT


# Each rule says what is allowed, so that NaN, which compares false, is not.


def _least(name: str, value: float, threshold: float) -> Gauge:
    return Gauge(name, value, "at least", threshold, value >= threshold)


def _most(name: str, value: float, threshold: float) -> Gauge:
    return Gauge(name, value, "at most", threshold, value <= threshold)


def _below(name: str, value: float, threshold: float) -> Gauge:
    return Gauge(name, value, "below", threshold, value < threshold)
