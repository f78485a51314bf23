"""What a station and the coordinator must agree on to hear each other; here the names of keys.

- Every question is asked under `enpire/edge/<edge>/<topic>`, so that access control can hold an edge to its own keys.
- Nothing in this package opens a connection; the coordinator may import it.
"""

from __future__ import annotations

from edge.records import EDGE_NAME

ROOT = "enpire/edge"
STATUS, ALIVE, ENROL, RENEW = "status", "alive", "enrol", "renew"
MOST_BYTES = 2 << 20  # of one message


def key_of(edge: str, topic: str) -> str:
    """Return the key of an edge's topic, e.g. `lease` or `blob/<sha256>`; `*` for any edge."""
    return f"{ROOT}/{edge}/{topic}"


def parse_key(key: str) -> tuple[str, str, str]:
    """Return edge, topic and the rest of a key that `key_of` made, the rest empty where there is none.

    Raises:
        ValueError: no such key.
    """
    prefix, _, rest = key.partition(f"{ROOT}/")
    edge, _, named = rest.partition("/")
    topic, _, name = named.partition("/")
    if prefix or not EDGE_NAME.fullmatch(edge) or not topic:
        raise ValueError(f"{key!r:.200} is not {ROOT}/<edge>/<topic>")
    return edge, topic, name
