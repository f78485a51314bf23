"""Between uplink and coordinator: whatever a link does all arrives, and once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HARNESS = Path(__file__).parents[1] / "harness"
LONG_S = 600.0  # bound of a wait; nothing is measured by it
NOTHING_AMISS = dict.fromkeys(("waiting", "lost", "doubled", "invented", "recordings_lost"), 0)


def suffer() -> Any:
    """Run every case of `outages.py` and return what became of it."""
    command = [sys.executable, str(HARNESS / "outages.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            said, _ = process.communicate(timeout=LONG_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    return json.loads(said.splitlines()[-1])


def test_whatever_a_link_does_every_trial_and_recording_arrives_once() -> None:
    said = suffer()
    for name, case in said["cases"].items():
        print(f"{name}: all acknowledged {case['drained_s']:.1f} s after an outage of {case['outage_s']:.0f} s began")
    amiss = {name: {key: case[key] for key in NOTHING_AMISS} for name, case in said["cases"].items()}
    assert amiss == dict.fromkeys(amiss, NOTHING_AMISS)
    assert said["desk"]["new"] == sum(case["sealed"] for case in said["cases"].values())
    assert (said["desk"]["conflict"], said["desk"]["refused"]) == (0, 0)
    # The faults did take place, amid the work.
    assert said["desk"]["same"] > 0  # answers got lost, and their trials came again
    for name, case in said["cases"].items():
        assert case["recordings"] > 0, name
        assert not case["outage_s"] or (case["links"] > 1 and case["sealed"] > 40), name
        assert ("half open" in name) == (case["swallowed"] > 0), name
        assert ("single bytes" in name) == (case["carried"] == case["sends"]), name
