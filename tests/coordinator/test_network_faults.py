"""Between uplink and coordinator: whatever a link does all arrives, and once; a stranger gets no link."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from coordinator.network import Network, Question, Tls, free_endpoint
from edge.uplink import network as uplink
from edge.wire import key_of

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


def certify(folder: Path, *names: str) -> list[uplink.Tls]:
    """Make an authority in `folder` and certificates of these names."""
    subprocess.run([sys.executable, HARNESS / "certificates.py", folder, *names], check=True)
    return [uplink.Tls(folder / "authority.pem", folder / f"{name}.pem", folder / f"{name}.key") for name in names]


def knock(endpoint: str, authority: Path, own: uplink.Tls | None) -> None:
    """Open a link as who believes `authority` and shows its own certificate, or none, and wait for a word."""
    context = ssl.create_default_context(cafile=authority)
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    host, _, port = endpoint.removeprefix("tls/").rpartition(":")
    with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=host) as link:
        link.settimeout(LONG_S)
        link.recv(1)


def test_a_station_is_known_by_its_certificate_and_a_stranger_gets_no_link(tmp_path: Path) -> None:
    desk, station = certify(tmp_path / "lab", "desk", "station-1")
    [stranger] = certify(tmp_path / "elsewhere", "station-1")
    endpoint = free_endpoint().replace("tcp/", "tls/")
    with (
        Network(endpoint, Tls(desk.authority, desk.certificate, desk.key)) as network,
        uplink.Coordinator(endpoint, "station-1", station) as line,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(ask_until_answered, line)
        while not asked.done():
            message = network.take(0.05)
            if isinstance(message, Question):
                message.answer(b"yes")
        assert asked.result() == b"yes"
        for own in (stranger, None):
            with pytest.raises(ssl.SSLError, match="alert"):  # as the coordinator says no
                knock(endpoint, desk.authority, own)


def ask_until_answered(line: uplink.Coordinator) -> bytes:
    deadline_s = time.monotonic() + LONG_S
    while True:
        try:
            return line.ask(key_of("station-1", "lease"))
        except uplink.NoAnswer:
            assert time.monotonic() < deadline_s, "no answer"
