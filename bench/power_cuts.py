"""Cuts the power under the real ledger and the real store, then looks for what they had said was on the disk.

- The disk (`tests/harness/power.py`) loses and tears what was not synced. The cut comes at a random write or sync, also
  while the file is made, opened or closed.
- What a call (`tests/harness/*_world.py`) says once it returns is promised. After the cut the real code opens the file
  again; then all that was promised must be there, the call in flight wholly or not at all, and nothing else.
- The same again with synchronous=NORMAL must lose something: a test that cannot fail shows nothing.
Usage: python bench/power_cuts.py [--cuts 250] [--seed 1]    so many cuts of the ledger and as many of the store
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from coordinator.errors import CoordinatorError
from edge.ledger import LedgerError
from tests.harness.ledger_world import LedgerWorld
from tests.harness.power import Disk
from tests.harness.store_world import StoreWorld
from tests.harness.world import ANY, Facts, Step, World

LONGEST_RUN = 3_000  # writes and syncs up to a cut; SQLite folds its log into the file every few hundred
CUTS_A_DISK = 10  # then a new one, so that the making of the file is cut too
WORLDS: dict[str, Callable[[Path], World]] = {"ledger": LedgerWorld, "store": StoreWorld}
Counts = Counter[str]


def cut(world: World, disk: Disk, draw: random.Random, cuts: int) -> Counts:
    """Let a world work on a disk through some cuts, or until its file is of no use, and return what was found."""
    counts: Counts = Counter()
    promised: Facts = {}
    in_flight = Step(dict, world.first)
    for left in range(cuts, -1, -1):
        if left:
            disk.cut_after(round(math.exp(draw.uniform(0.0, math.log(LONGEST_RUN)))))
        try:
            world.open()
            db = disk.connect(world.path, isolation_level=None)
            found = world.found(db)
            damaged = db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
            counts += Counter(damaged=damaged, links=world.broken_links(db)) + compare(promised, in_flight, found)
            db.close()
            counts["promised"] += len(found.keys() - promised.keys())  # whoever reads it now may rely on it
            promised, in_flight = found, Step(dict, {})
            while left:
                in_flight = world.next_step(draw, promised)
                said = in_flight.call()
                if not disk.on:
                    break
                counts["promised"] += len(said.keys() - promised.keys())
                promised |= said
                in_flight = Step(dict, {})
        except (LedgerError, CoordinatorError, sqlite3.Error) as error:
            if disk.on and left == cuts:
                raise  # there was no cut yet
            if disk.on:
                print(error, file=sys.stderr)
                return counts + Counter(damaged=1)
        disk.restart()
        counts["cuts"] += left > 0
    return counts


def compare(promised: Facts, in_flight: Step, found: Facts) -> Counts:
    """Return how many facts were lost and invented, and whether the step in flight was cut in two."""
    meant = {key: value for key, value in in_flight.meant.items() if key not in promised}
    came = [key for key, value in meant.items() if key in found and value in (ANY, found[key])]
    return Counter(
        lost=sum(key not in found or found[key] != value for key, value in promised.items()),
        invented=sum(key not in promised and key not in came for key in found),
        halved=in_flight.is_one and 0 < len(came) < len(meant),
    )


def cut_all(what: str, synchronous: str | None, cuts: int, seed: int) -> Counts:
    """Cut one kind of world's power so many times, on a new disk now and then, and return what was found."""
    draw = random.Random(f"{what} {seed}")
    counts: Counts = Counter()
    while counts["cuts"] < cuts:
        disk = Disk(f"disk-{counts['cuts']}", draw, synchronous)
        with tempfile.TemporaryDirectory() as folder, mock.patch("sqlite3.connect", disk.connect):
            counts += cut(WORLDS[what](Path(folder)), disk, draw, min(CUTS_A_DISK, cuts - counts["cuts"]))
            disk.restart()
        disk.unregister()
        print(f"{what}, synchronous={synchronous or 'as it is'}: {dict(counts)}", file=sys.stderr)
    return counts


def judge(as_it_is: dict[str, Counts], normal: dict[str, Counts], cuts: int) -> list[dict[str, Any]]:
    """Return the rows of the figure."""
    both = sum(as_it_is.values(), Counts())
    rows: list[dict[str, Any]] = [
        {
            "what": "power cuts under the ledger and the coordinator's store, with unsynced sectors lost and torn",
            "figure": f"{both['cuts']}",
            "bound": f"{2 * cuts}",
            "holds": both["cuts"] == 2 * cuts,
        },
        {
            "what": "rows and marks lost after a call had said that they are on the disk",
            "figure": f"{both['lost']} of {both['promised']}",
            "bound": "0",
            "holds": both["lost"] == 0 < both["promised"],
        },
    ]
    for what, count in (
        ("rows and marks that nobody had asked for", both["invented"]),
        ("commits of which a part was there", both["halved"]),
        ("links of the trials' chains that do not hold, or are not signed", both["links"]),
        ("files that SQLite finds damaged, or that the code cannot open or use", both["damaged"]),
    ):
        rows.append({"what": what, "figure": f"{count}", "bound": "0", "holds": count == 0})
    parts = ", ".join(f"{item['lost']} of {item['promised']} in the {what}" for what, item in normal.items())
    rows.append(
        {
            "what": "the same with synchronous=NORMAL, which must lose some or the test is void",
            "figure": parts,
            "bound": "at least 1 in each",
            "holds": all(item["lost"] > 0 for item in normal.values()),
        }
    )
    return rows


def main(arguments: list[str]) -> None:
    """Print what the cuts left; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cuts", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    as_it_is = {what: cut_all(what, None, options.cuts, options.seed) for what in WORLDS}
    normal = {what: cut_all(what, "NORMAL", options.cuts, options.seed) for what in WORLDS}
    print(json.dumps({"name": "power_cuts", "rows": judge(as_it_is, normal, options.cuts)}))


if __name__ == "__main__":
    main(sys.argv[1:])
