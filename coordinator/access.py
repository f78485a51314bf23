"""Who may say what to the coordinator, as zenoh's access control wants it: everything is denied but what stands here.

- A subject is the common name in a certificate of the lab's authority, never an address or a name that it gives itself.
- An edge may ask under its own keys, publish its own status and raise its own sign of life. It hears answers to its own
  questions and nothing of any other edge.
- A console's name begins with `console:`, which no edge's can. It may listen to status and signs of
  life, and say nothing.
- Who has no certificate may ask for one at the door, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from edge.wire import ALIVE, ENROL, MOST_BYTES, RENEW, STATUS, key_of

CONSOLE = "console:"
QUESTIONS = ("lease", "trials", "reconcile", RENEW, "blob/*", "trust/**")  # topics
SMALL = ("lease", "reconcile", RENEW, "trust/**")  # questions without much to say
MOST_SMALL_BYTES = 64 << 10
MOST_AT_THE_DOOR_BYTES = 16 << 10
DENIED: dict[str, Any] = {"enabled": True, "default_permission": "deny", "rules": [], "subjects": [], "policies": []}


def access_control(edges: Collection[str], consoles: Collection[str] = ()) -> dict[str, Any]:
    """Return zenoh's `access_control` for edges and consoles by the common names of their certificates.

    Consoles may also stand among the edges: their names tell them apart.
    """
    consoles = {*consoles, *filter(is_console, edges)}
    edges = set(edges) - consoles
    rules = [
        # What the coordinator declares goes out to all: without it nobody would send it anything.
        _rule("asks", "egress", ["declare_queryable"], [key_of("*", topic) for topic in QUESTIONS]),
        _rule("listens", "egress", ["declare_subscriber"], [key_of("*", STATUS)]),
        _rule("watches", "egress", ["declare_liveliness_subscriber", "liveliness_query"], [key_of("*", ALIVE)]),
        _rule("hear", "ingress", ["declare_subscriber"], [key_of("*", STATUS)]),
        _rule("see", "ingress", ["declare_liveliness_subscriber", "liveliness_query"], [key_of("*", ALIVE)]),
        _rule("heard", "egress", ["put"], [key_of("*", STATUS)]),
        _rule("seen", "egress", ["liveliness_token"], [key_of("*", ALIVE)]),
    ]
    subjects, policies = [], []
    for edge in sorted(edges):
        own = _rules_of(edge)
        rules += own
        subjects.append({"id": edge, "cert_common_names": [edge]})
        policies.append({"rules": ["asks", "listens", "watches", *(rule["id"] for rule in own)], "subjects": [edge]})
    for console in sorted(consoles):
        subjects.append({"id": console, "cert_common_names": [console]})
        policies.append({"rules": ["hear", "see", "heard", "seen"], "subjects": [console]})
    return DENIED | {"rules": rules, "subjects": subjects, "policies": policies} if subjects else DENIED


def is_console(name: str) -> bool:
    """Return whether this is the common name of a console, not of an edge."""
    return name.startswith(CONSOLE)


def door_access() -> dict[str, Any]:
    """Return zenoh's `access_control` for where those ask who have no certificate."""
    keys = [key_of("*", ENROL)]
    rules = [
        _rule("asks", "egress", ["declare_queryable"], keys),
        _rule("ask", "ingress", ["query"], keys),
        _rule("answer", "egress", ["reply"], keys),
    ]
    policies = [{"rules": ["asks", "ask", "answer"], "subjects": ["anybody"]}]
    return DENIED | {"rules": rules, "subjects": [{"id": "anybody"}], "policies": policies}


def size_limits() -> list[dict[str, Any]]:
    """Return zenoh's `low_pass_filter`: how large what an edge says may be; what is larger never arrives."""
    small = [key_of("*", topic) for topic in (STATUS, *SMALL)]
    return [
        {"id": "small", "flows": ["ingress"], "messages": ["put", "query"], "key_exprs": small,
         "size_limit": MOST_SMALL_BYTES},
        {"id": "any", "flows": ["ingress"], "messages": ["put", "delete", "query"], "key_exprs": ["**"],
         "size_limit": MOST_BYTES},
    ]  # fmt: skip


def door_size_limits() -> list[dict[str, Any]]:
    """Return the same for where those ask who have no certificate."""
    return [
        {"id": "any", "flows": ["ingress"], "messages": ["put", "delete", "query"], "key_exprs": ["**"],
         "size_limit": MOST_AT_THE_DOOR_BYTES},
    ]  # fmt: skip


def _rules_of(edge: str) -> list[dict[str, Any]]:
    questions = [key_of(edge, topic) for topic in QUESTIONS]
    return [
        _rule(f"{edge} asks", "ingress", ["query"], questions),
        _rule(f"{edge} is answered", "egress", ["reply"], questions),
        _rule(f"{edge} reports", "ingress", ["put"], [key_of(edge, STATUS)]),
        _rule(f"{edge} lives", "ingress", ["liveliness_token"], [key_of(edge, ALIVE)]),
    ]


def _rule(name: str, flow: str, messages: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    return {"id": name, "permission": "allow", "flows": [flow], "messages": messages, "key_exprs": keys}
