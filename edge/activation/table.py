"""The states of a bundle on one edge and every arrow between them: all there is to know of an activation.

- An arrow is one durable transaction, and its effect comes after. A restart looks at the state alone and does the
  effect again, so every effect is idempotent.
- What is neither an arrow nor `already` is refused, and says why.
- At most one bundle is active, and at most one is on its way between staged and probation: the newcomer.
- The last good one is what the line goes back to. It was active until the active one took its place; it is always
  `superseded` unless an order has asked for it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

STATES = {
    "none": "nothing is known of it, or nothing counts any more",
    "offered": "an order names it; its bytes are to be fetched",
    "fetched": "its bytes are here, not looked at",
    "verified": "signed, whole, unpacked; may run leased trials within a reduced envelope",
    "staged": "its self-test in the sandbox passed",
    "shadow": "runs beside the active one on what that one saw; its outputs are counted, never followed",
    "canary": "moves the arm within a reduced envelope, in pairs with the active one on the same starts",
    "probation": "moves the arm within its full envelope; the line still goes back to the active one",
    "active": "the policy of this edge",
    "superseded": "was active until another took its place",
    "rolled_back": "was on its way or active, and had to go; an order may ask for it again unless it is denied here",
    "revoked": "a person has forbidden it, for good",
    "rejected": "not what it should be, for good",
}
UNKNOWN = ("none", "offered", "fetched")
NEWCOMER = ("staged", "shadow", "canary", "probation")
ON_TRIAL = ("shadow", "canary", "probation")
FORMER = ("superseded", "rolled_back")
GONE = ("revoked", "rejected")

EVENTS = {
    "offer": "an order names the bundle",
    "fetch": "its bytes have come",
    "verify": "signatures, hashes and the unpacked files are good",
    "reject": "they are not",
    "revoke": "a person has revoked it",
    "test": "its self-test passed",
    "fail": "its self-test failed",
    "watch": "a moment between two trials, and no other newcomer",
    "try": "the shadow gate passed",
    "skip": "the shadow gate passed, and two people have signed that it needs no canary",
    "prove": "the canary gate passed",
    "accept": "the probation gate passed",
    "worse": "a gate failed",
    "fault": "three policy faults in its last ten trials",
    "crash_loop": "the station's process started three times in 60 s while it was on trial",
    "rebase": "another one has become active since its canary began",
    "expire": "the order's time is over",
    "withdraw": "the standing order does not name it",
    "recall": "an order asks for the last good one now",
    "lose": "its unpacked files are gone or damaged",
    "replace": "another one has become active",
    "return": "the one that took its place had to go",
}
UPLINK_EVENTS = ("offer", "fetch", "verify", "reject", "revoke")
FOLLOWING_EVENTS = ("replace", "return")  # only inside the transaction of another bundle's arrow


ORDER = "the order, its number as the floor"
ROLE = "its role, and when that ends"
PLAN = "the order's number and starts"


@dataclass(frozen=True)
class Arrow:
    """One way from a state to another."""

    origin: str
    event: str
    target: str
    durable: str  # what the transaction writes beside the state, its time and its reason
    effect: str  # what is done after it, again after every restart for as long as the state lasts
    stage: str = ""  # the standing order must name the bundle and allow this stage; empty: no order is needed
    takes_over: bool = False  # becomes the active one; the one that was becomes the last good one
    gives_up: bool = False  # was the active one; the last good one is it again
    denies: bool = False  # put on the local list of what may never run here again


def _arrows(origins: Iterable[str], event: str, target: str, durable: str, effect: str, stage: str = "") -> list[Arrow]:
    return [Arrow(origin, event, target, durable, effect, stage) for origin in origins]


def _back(event: str, denies: bool = False, origins: Iterable[str] = ON_TRIAL) -> list[Arrow]:
    """Return the arrows by which a newcomer leaves the trial stages."""
    durable = "on the local deny list" if denies else "-"
    effect = "its attempts may no longer begin; the active one stays"
    return [Arrow(origin, event, "rolled_back", durable, effect, denies=denies) for origin in origins]


def _fall(event: str, target: str = "rolled_back", denies: bool = False) -> Arrow:
    """Return the arrow by which the active one goes."""
    durable = "the last good one is active, and none is last good" + ("; on the local deny list" * denies)
    effect = "the next trial runs the one that is active now"
    return Arrow("active", event, target, durable, effect, gives_up=True, denies=denies)


ARROWS: tuple[Arrow, ...] = (
    # The uplink's.
    *_arrows(("none", "offered", *FORMER), "offer", "offered", ORDER, "the uplink fetches it"),
    *(
        Arrow(state, "offer", state, ORDER, "what was done so far counts")
        for state in ("fetched", "verified", *NEWCOMER, "active")
    ),
    *_arrows(("none", "offered"), "fetch", "fetched", "-", "the uplink verifies and unpacks it"),
    *_arrows(UNKNOWN, "verify", "verified", ROLE, "the steward tests it if an order asks for it"),
    *(
        Arrow(state, "verify", state, ROLE, "-")
        for state in ("verified", *NEWCOMER, "active", *FORMER)
    ),
    *_arrows((*UNKNOWN, "verified"), "reject", "rejected", "-", "never fetched again"),
    *_arrows(
        (*UNKNOWN, "verified", *NEWCOMER, *FORMER, "rejected"), "revoke", "revoked",
        "when it must stop: next-trial or now", "nothing of it begins any more",
    ),
    _fall("revoke", "revoked"),
    # The steward's: up.
    *_arrows(("verified",), "test", "staged", "the self-test's values", "-", "shadow"),
    *_arrows(("verified",), "fail", "rejected", "the self-test's values", "never tested again"),
    *_arrows(("staged",), "watch", "shadow", "nothing counted yet", "runs on what the active one saw", "shadow"),
    *_arrows(
        ("shadow",), "try", "canary", f"{PLAN}, the active one as the baseline",
        "the next pair of attempts is queued", "canary",
    ),
    *_arrows(
        ("shadow",), "skip", "probation", f"{PLAN}; no canary evidence",
        "the next attempt is queued", "active",
    ),
    *_arrows(("canary",), "prove", "probation", "the canary's values", "the next attempt is queued", "active"),
    Arrow(
        "probation", "accept", "active", "it is active, and the one that was is the last good one",
        "the next trial runs it", "active", takes_over=True,
    ),
    # The steward's: down.
    *_back("worse"),
    *_back("fault", denies=True, origins=("canary", "probation")),
    _fall("fault", denies=True),
    *_back("crash_loop"),
    *_arrows(("canary",), "rebase", "staged", "-", "it begins anew beside the one that is active now"),
    *_arrows(("offered",), "expire", "none", "-", "it is fetched no more"),
    *_arrows(("offered",), "withdraw", "none", "-", "it is fetched no more"),
    *(
        arrow
        for event in ("expire", "withdraw", "recall")
        for arrow in (*_arrows(("staged",), event, "verified", "-", "-"), *_back(event))
    ),
    _fall("recall"),
    *_arrows(("verified", *NEWCOMER), "lose", "offered", "its files are missing", "the uplink fetches it anew"),
    _fall("lose"),
    # What follows for another bundle in the same transaction.
    *_arrows(("active",), "replace", "superseded", "it is the last good one", "its files stay pinned"),
    *_arrows(
        (*FORMER, *UNKNOWN, "verified", *NEWCOMER), "return", "active", "it is active",
        "the next trial runs it; were its files gone, the uplink fetches it anew",
    ),
)  # fmt: skip

TABLE: dict[tuple[str, str], Arrow] = {(arrow.origin, arrow.event): arrow for arrow in ARROWS}

# What has happened before; nothing is written, and nothing is wrong.
ALREADY: frozenset[tuple[str, str]] = frozenset(
    [(state, "fetch") for state in ("fetched", "verified", *NEWCOMER, "active", *FORMER)]
    + [("rejected", "reject"), ("revoked", "revoke")]
)

# Why an event is refused where there is no arrow for it.
WHY_NOT = {
    "reject": "it was verified: damaged files are seen by their hashes, and what else is wrong is for people to revoke",
    "test": "only a verified bundle is tested",
    "fail": "only a verified bundle is tested",
    "watch": "only a staged bundle enters the shadow",
    "try": "only what ran in the shadow moves the arm",
    "skip": "only what ran in the shadow moves the arm",
    "prove": "only a canary gives canary evidence",
    "accept": "only what was on probation becomes active",
    "worse": "only what is on trial is judged by a gate",
    "fault": "only what moves the arm without a lease is judged by its faults here",
    "crash_loop": "only what is on trial is blamed for a crash loop",
    "rebase": "only a canary is compared with the active one",
    "expire": "it is not on its way",
    "withdraw": "it is not on its way",
    "recall": "it is neither on its way nor active",
    "lose": "none of its files have to be here",
    "replace": "it is not active",
    "return": "it is active, or was never",
}


def refusal(state: str, event: str) -> str:
    """Return why there is no arrow; empty where there is one, or where it has happened already."""
    if (state, event) in TABLE or (state, event) in ALREADY:
        return ""
    return f"it is {state}: {STATES[state]}" if state in GONE else f"it is {state}; {WHY_NOT[event]}"
