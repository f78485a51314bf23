"""A lab is served without a campaign: what stations trust, their trials, and who may talk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from coordinator.errors import CoordinatorError
from coordinator.network import free_endpoint
from coordinator.publish.keys import make
from coordinator.rollouts import Rollout
from coordinator.roster import StationView
from coordinator.serve import ROOT_FILE, Plan, opened, row
from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.wire import key_of

LONG_S = 60.0
DOOR = "tls/127.0.0.1:7448"


def plan(run: Path, listen: str, door: str = DOOR) -> Plan:
    return Plan(run, "push_t", listen, door, (), None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make(tmp_path / "keys", humans=1, threshold=1)
    return tmp_path


@contextmanager
def served(run: Path, endpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "coordinator.cli", "serve", str(run), "--listen", endpoint]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(line: Coordinator, path: str, offset: object = 0) -> bytes:
    """Ask for a piece of a file until the coordinator is there."""
    until_s = time.monotonic() + LONG_S
    while True:
        try:
            return line.ask(key_of("arm-01", f"trust/{path}"), attachment=msgpack.packb({"offset": offset}))
        except NoAnswer:
            if time.monotonic() > until_s:
                raise


def test_it_serves_what_stations_trust_and_nothing_else_of_the_run_and_ends_in_order(run: Path) -> None:
    endpoint = free_endpoint()
    with served(run, endpoint) as process, Coordinator(endpoint, "arm-01") as line:
        answer = msgpack.unpackb(ask(line, "metadata/1.root.json"))
        root = (run / "trust" / "metadata" / "1.root.json").read_bytes()
        assert answer == {"total": len(root), "data": root}
        assert (run / ROOT_FILE).read_bytes() == root
        assert msgpack.unpackb(ask(line, "metadata/1.root.json", len(root) - 5))["data"] == root[-5:]
        for path in ("metadata/2.root.json", "keys/online.pem", "coordinator.db", "metadata"):
            with pytest.raises(Refused, match=r"^404$"):
                ask(line, path)
        for offset in (-1, "0", None):
            with pytest.raises(Refused, match="from where on"):
                ask(line, "metadata/1.root.json", offset)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert said.decode().splitlines() == [f"serving push_t at {endpoint}"]


def test_a_second_start_on_the_same_folder_goes_on(run: Path) -> None:
    endpoint = free_endpoint()
    for _ in range(2):
        with served(run, endpoint), Coordinator(endpoint, "arm-01") as line:
            assert msgpack.unpackb(ask(line, "metadata/1.root.json"))["total"] > 0


@pytest.mark.parametrize(
    ("listen", "door", "says"),
    [
        ("tcp/0.0.0.0:7447", DOOR, "others could speak for any station"),
        ("tcp/10.0.0.5:7447", DOOR, "others could speak for any station"),
        ("tcp/lab.example:7447", DOOR, "others could speak for any station"),
        ("udp/127.0.0.1:7447", DOOR, "is no endpoint"),
        ("tls/0.0.0.0", DOOR, "is no endpoint"),
        ("tls/127.0.0.1:7447", "tcp/127.0.0.1:7448", "is no door"),
        ("tls/127.0.0.1:7447", "", "is no door"),
    ],
)
def test_where_others_could_reach_it_certificates_are_a_must(run: Path, listen: str, door: str, says: str) -> None:
    with pytest.raises(CoordinatorError, match=says) as caught, opened(plan(run, listen, door)):
        pass
    assert "\n" not in str(caught.value)
    assert not (run / "trust").exists()


def test_without_keys_it_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(CoordinatorError, match="enpire-coord keys make"), opened(plan(tmp_path, free_endpoint())):
        pass


def test_a_station_s_line_says_what_is_active_and_what_is_on_its_way() -> None:
    view = StationView("arm-01", state="trial", here=True, trials=4, successes=3, invalid=1)
    for number, state in enumerate(("active", "canary")):
        bundle = f"{number}" * 64
        view.rollouts[bundle] = Rollout("arm-01", bundle, 1, state, "", "{}", 0.0)
    assert row(view) == ("arm-01", "trial", "5", "3/4", "0" * 12, f"{'1' * 12} canary")
    view.here = False
    assert row(view)[1] == "away"
