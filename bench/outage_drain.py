"""How long after an outage begins every trial and recording behind it is acknowledged, and whether all arrived once.

The real uplink, a TCP proxy with faults and a coordinator, all on one machine; the cases run side by side, see
tests/harness/outages.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

OUTAGES = Path(__file__).parents[1] / "tests" / "harness" / "outages.py"
FACTOR, MARGIN_S = 2.0, 5.0


def main() -> None:
    """Print the times; the last line is one JSON object."""
    print("stations behind links that fail, for about half a minute ...", file=sys.stderr)
    done = subprocess.run([sys.executable, str(OUTAGES)], stdout=subprocess.PIPE, text=True, check=True)
    cases = json.loads(done.stdout.splitlines()[-1])["cases"]
    sums = {key: sum(case[key] for case in cases.values()) for key in ("sealed", "recordings")}
    what = f"{sums['sealed']} trials and {sums['recordings']} recordings over links that fail: "
    rows = [
        *(_row(name, case) for name, case in cases.items()),
        _zero(what + "lost", sum(case["lost"] + case["recordings_lost"] + case["waiting"] for case in cases.values())),
        _zero(what + "doubled or invented", sum(case["doubled"] + case["invented"] for case in cases.values())),
    ]
    print(json.dumps({"name": "outage_drain", "rows": rows}))


def _row(name: str, case: dict[str, Any]) -> dict[str, object]:
    figure = f"{case['drained_s']:.1f}"
    if not case["outage_s"]:
        return {"what": f"link: {name}, all acknowledged after, s", "figure": figure, "bound": "", "holds": None}
    bound_s = FACTOR * case["outage_s"] + MARGIN_S
    what = f"link: {name}, {case['outage_s']:.0f} s, all acknowledged after, s"
    return {"what": what, "figure": figure, "bound": f"at most {bound_s:g}", "holds": case["drained_s"] <= bound_s}


def _zero(what: str, count: int) -> dict[str, object]:
    return {"what": what, "figure": f"{count}", "bound": "0", "holds": count == 0}


if __name__ == "__main__":
    main()
