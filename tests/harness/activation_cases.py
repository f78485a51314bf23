"""Every arrow of an activation as something that can be made to happen: where to begin, and what happens then.

Three bundles: A was active and is last good, B is active, C comes. D is another that an order may name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edge.activation.series import BASELINE, Series
from edge.activation.series import NEWCOMER as NEW
from edge.activation.table import ARROWS, FOLLOWING_EVENTS, NEWCOMER, UNKNOWN, Arrow
from edge.records import Outcome
from tests.harness.activation_world import GATES, LATER_S, NOW_S, World, name, order

A, B, C, D = (name(word) for word in "abcd")
PRIMARY = {"replace": "accept", "return": "fault"}  # in whose transaction these follow
CASES = {f"{arrow.origin}-{arrow.event}": arrow for arrow in ARROWS}


def event_of(arrow: Arrow) -> str:
    """Return the event whose transaction takes the arrow."""
    return PRIMARY.get(arrow.event, arrow.event)


def subject(arrow: Arrow) -> str:
    """Return the bundle that takes the arrow."""
    if arrow.event == "return" or arrow.origin == "superseded":
        return A
    return B if arrow.origin == "active" else C


def begin(world: World, arrow: Arrow) -> None:
    """Bring a station, on which B is active and A last good, to where the arrow begins."""
    bundle = subject(arrow)
    if arrow.event == "replace":
        world.journal.offer(order(3, C))
        world.advance("probation", C)
    elif arrow.origin in ("none", "superseded", "active"):
        _reach_none(world, bundle, arrow)
    elif arrow.origin == "rejected":
        world.journal.rejected(bundle, "a bomb")
    elif arrow.origin == "rolled_back":
        world.journal.offer(order(3, bundle))
        world.advance("shadow", bundle)
        world.journal.offer(order(4, D))
        world.steward.tend()
    else:
        _reach(world, bundle, arrow.origin)


def happen(world: World, arrow: Arrow) -> None:
    """Let what the arrow answers to happen."""
    event = event_of(arrow)
    EVENTS[event](world, C if arrow.event == "replace" else B if arrow.event == "return" else subject(arrow))


def _reach_none(world: World, bundle: str, arrow: Arrow) -> None:
    if arrow.origin == "none" and arrow.event == "return":  # the last good one, asked for in vain
        world.journal.offer(order(3, bundle))
        world.later(LATER_S - NOW_S)
        world.steward.tend()


def _reach(world: World, bundle: str, state: str) -> None:
    world.journal.offer(order(3, bundle))
    if state == "fetched":
        world.journal.fetched(bundle)
    elif state in ("verified", "staged"):
        world.fetch(bundle)
        if state == "staged":
            world.journal.take("test", bundle, "it passed")
    elif state in NEWCOMER:
        world.advance(state, bundle)


# -- what happens -----------------------------------------------------------------------------------------------------


def _offer(world: World, bundle: str) -> None:
    world.journal.offer(order(9, bundle, until_unix_s=LATER_S + 9_000.0))


def _verify(world: World, bundle: str) -> None:
    if world.journal.row(bundle).state in UNKNOWN:
        world.unpack(bundle)
    world.journal.verified(bundle, "released", NOW_S + 60 * 86_400.0, "push_t")


def _fail(world: World, bundle: str) -> None:
    world.tested = replace(world.tested, ok=False, detail="it does not import")
    world.steward.tend()


def _skip(world: World, bundle: str) -> None:
    world.overrides.add(bundle)
    world.steward.tend()


def _ends(world: World, bundle: str, outcome: Outcome, cause: str, count: int) -> None:
    """Let attempts of a newcomer's stage end, those of its baseline well."""
    row = world.journal.row(bundle)
    assert row.plan is not None
    series = Series(row.plan, row.state, bundle, row.baseline if row.state == "canary" else "")
    for _ in range(count):
        ended = series.pick(world.trials(bundle, row.state), NEW)
        ended += series.pick(world.trials(row.baseline, row.state), BASELINE)
        for item in series.pairs(ended)[1]:
            end = (outcome, cause) if item.bundle == bundle else (Outcome.SUCCESS, "")
            world.end(item.bundle, item.purpose, *end, item.assignment_id, item.start_id)


def _well(world: World, bundle: str) -> None:
    _ends(world, bundle, Outcome.SUCCESS, "", max(GATES.canary_pairs, GATES.probation_trials))
    world.steward.tend()


def _worse(world: World, bundle: str) -> None:
    if world.journal.row(bundle).state == "shadow":
        assert world.stretch is not None
        world.stretch = replace(world.stretch, breaches=1)
    else:
        _ends(world, bundle, Outcome.FAILURE, "near", 2)
    world.steward.tend()


def _fault(world: World, bundle: str) -> None:
    if world.journal.line().active == bundle:
        for _ in range(3):
            world.end(bundle, "play", Outcome.FAILURE, "crashed")
    else:
        _ends(world, bundle, Outcome.FAILURE, "crashed", 3)
    world.steward.tend()


def _crash_loop(world: World, bundle: str) -> None:
    for _ in range(3):
        world.steward.started()


def _rebase(world: World, bundle: str) -> None:
    world.journal.revoke(B, "next-trial")
    world.steward.tend()


def _expire(world: World, bundle: str) -> None:
    world.later(LATER_S - NOW_S)
    world.steward.tend()


def _withdraw(world: World, bundle: str) -> None:
    world.journal.offer(order(9, D))
    world.steward.tend()


def _recall(world: World, bundle: str) -> None:
    world.journal.offer(order(9, "", rollback=True, starts=()))
    world.steward.tend()


def _lose(world: World, bundle: str) -> None:
    (world.folder / "bundles" / bundle).unlink(missing_ok=True)
    world.steward.tend()


def _tend(world: World, bundle: str) -> None:
    world.steward.tend()


EVENTS: dict[str, Callable[[World, str], None]] = {
    "offer": _offer,
    "fetch": lambda world, bundle: (world.journal.fetched(bundle), None)[1],
    "verify": _verify,
    "reject": lambda world, bundle: (world.journal.rejected(bundle, "a bomb"), None)[1],
    "revoke": lambda world, bundle: (world.journal.revoke(bundle, "next-trial"), None)[1],
    "test": _tend,
    "fail": _fail,
    "watch": _tend,
    "try": _tend,
    "skip": _skip,
    "prove": _well,
    "accept": _well,
    "worse": _worse,
    "fault": _fault,
    "crash_loop": _crash_loop,
    "rebase": _rebase,
    "expire": _expire,
    "withdraw": _withdraw,
    "recall": _recall,
    "lose": _lose,
}
assert set(EVENTS) | set(FOLLOWING_EVENTS) == {arrow.event for arrow in ARROWS}
