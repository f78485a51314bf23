"""The doctor finds what is wrong with a station and its arm, and says what to do; its motors here are emulated ones."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from rich.console import Console

from edge.activation.journal import Journal
from edge.control.process import motors_of
from edge.doctor import examine
from edge.doctor_trust import check_trust
from edge.emulation.patient import EmulatedArm
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.finding import CHECK_COLUMNS, FAILED, OK, SKIPPED, WARNING, Finding, line_of, verdict_of
from edge.ledger import Ledger
from edge.readout import table
from edge.records import RolloutOrder, RolloutStart
from edge.station import Station, load_station
from edge.trust.floor import FILE as FLOOR
from edge.trust.floor import Floor, write_floor
from firmware_bridge.damiao import Feedback, Status
from firmware_bridge.fault_script import FaultScript
from policies import bundle
from tests.harness.bundles import unpacked

POLICY = Path(bundle.__file__).parent / "push_t"


def findings(folder: Path, faults: str = "", confirm_motion: bool = False) -> list[Finding]:
    def arm(station: Station) -> EmulatedArm:
        patient = EmulatedArm(station)
        if faults:
            world = World(station, 1, FaultScript.parse(faults))
            patient._world, patient.bus = world, world.bus
        return patient

    return list(examine(folder, confirm_motion, arm))


@pytest.fixture
def emulated(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return tmp_path / "station-1"


def with_a_bus(folder: Path, can: str) -> Path:
    """Give an emulated station a motor bus instead of its emulation."""
    path = folder / "station.toml"
    path.write_text(path.read_text().split("[emulation]")[0] + can)
    return folder


def test_the_doctor_finds_a_sound_arm_sound(emulated: Path) -> None:
    found = findings(emulated, confirm_motion=True)
    spared = ("limit", "lock", "trust")  # the machine's own, and a station that nobody has given a root
    assert {finding.outcome for finding in found if not any(word in finding.check for word in spared)} == {OK}
    assert [finding.check for finding in found][-1] == "gravity"


@pytest.mark.parametrize(
    ("fault", "check", "detail", "remedy"),
    [
        ('kind = "wrong_part"\nmotor = 2', "motor 2 (DM4340)", "GR is 48", "another motor is fitted"),
        ('kind = "wrong_scale"\nmotor = 3', "motor 3 (DM4340)", "VMAX is 8", "maker's tool"),
        ('kind = "watchdog_off"\nmotor = 4', "motor 4 (DM4310)", "TIMEOUT is 0", "maker's tool"),
        ('kind = "wrong_mode"\nmotor = 5', "motor 5 (DM4310)", "CTRL_MODE is 2", "maker's tool"),
        ('kind = "drop"', "bitrate", "no motor answers", "termination"),
    ],
)
def test_the_doctor_names_what_is_wrong_and_what_to_do(
    emulated: Path, fault: str, check: str, detail: str, remedy: str
) -> None:
    failed = [finding for finding in findings(emulated, f"[[fault]]\n{fault}\n") if finding.outcome == FAILED]
    assert any(finding.check == check and detail in finding.detail and remedy in finding.remedy for finding in failed)


def test_the_doctor_moves_nothing_without_leave(emulated: Path) -> None:
    last = findings(emulated)[-1]
    assert (last.check, last.outcome) == ("gravity", SKIPPED)
    assert "--confirm-motion" in last.remedy


def test_the_doctor_s_lines_stand_in_columns_and_the_last_one_sums_up(emulated: Path) -> None:
    found = findings(emulated, '[[fault]]\nkind = "wrong_part"\nmotor = 2\n')
    column = {line_of(each).index(each.detail) for each in found if each.detail}
    assert column == {9 + CHECK_COLUMNS}
    assert verdict_of(found).startswith("1 check failed: motor 2 (DM4340)")
    assert verdict_of(found).endswith("not checked: gravity")
    assert verdict_of([Finding("disk", OK, "room")]) == "ready"
    assert verdict_of([Finding("disk", WARNING, "little room")]) == "ready; warnings: disk"
    assert verdict_of([Finding("disk", FAILED, "none"), Finding("port", FAILED, "")]) == "2 checks failed: disk, port"


def test_the_doctor_knows_a_copied_folder(emulated: Path) -> None:
    def identity(folder: Path) -> list[tuple[str, str]]:
        return [(each.outcome, each.detail) for each in findings(folder) if each.check == "identity"]

    copy = emulated.with_name("copy")
    shutil.copytree(emulated, copy)
    assert identity(emulated) == [(WARNING, f"{copy} is named station-1 too")]
    Ledger(emulated / "ledger.db", "station-1").close()
    shutil.copytree(emulated, copy, dirs_exist_ok=True)
    assert identity(copy) == [(WARNING, f"{emulated} has the same key: one is a copy of the other")]
    text = (copy / "station.toml").read_text()
    (copy / "station.toml").write_text(text.replace("station-1", "station-9"))
    assert identity(copy) == [(FAILED, "the ledger here belongs to station-1, not to station-9")]
    for path in (*copy.glob("ledger.db*"), copy / "edge.key"):
        path.unlink()
    assert identity(copy) == identity(emulated) == []


def test_the_doctor_knows_a_real_arm_with_an_emulated_bench_s_calibration(emulated: Path) -> None:
    folder = with_a_bus(emulated, '[can]\ntransport = "socketcan"\nport = "can0"\n')
    assert [each.outcome for each in findings(folder) if each.check == "calibration"] == [WARNING]
    text = (folder / "calibration.toml").read_text()
    (folder / "calibration.toml").write_text(text.replace("residual_px = 0.0", "residual_px = 0.3"))
    assert [each for each in findings(folder) if each.check == "calibration"] == []


def test_the_table_of_the_joints_is_whole_in_80_columns(emulated: Path) -> None:
    station = load_station(emulated)
    told = {
        each.number: Feedback(Status.COMMUNICATION_LOST, -12.5, -45.0, -28.0, 128, 128) for each in motors_of(station)
    }
    console = Console(width=80, file=io.StringIO())
    console.print(table(station, told))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert text.count("communication lost") == text.count("-45.000") == 7


def test_the_doctor_says_that_a_port_is_missing(emulated: Path) -> None:
    folder = with_a_bus(emulated, '[can]\ntransport = "slcan"\nadapter = "damiao"\nport = "/nowhere"\n')
    found = list(examine(folder, False))
    assert ("port", FAILED) in [(finding.check, finding.outcome) for finding in found]
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", "doctor", str(folder), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)[-1]["outcome"] == SKIPPED


# -- whom it trusts ---------------------------------------------------------------------------------------------------

NOW_S = 2.0e9


def trusting(folder: Path, endpoint: str = "tcp/127.0.0.1:1") -> Station:
    make_stations(folder, 1, 1, "push_t", endpoint)
    (folder / "station-1" / "trust").mkdir()
    (folder / "station-1" / "trust" / "root.json").write_text("{}")
    return load_station(folder / "station-1")


def outcomes(station: Station, now_s: float = NOW_S) -> dict[str, str]:
    return {finding.check: finding.outcome for finding in check_trust(station, now_s)}


def certified(station: Station, until_s: float) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1).not_valid_before(datetime.fromtimestamp(1e9, UTC))
    pem = made.not_valid_after(datetime.fromtimestamp(until_s, UTC)).sign(key, hashes.SHA256())
    path = station.folder / "identity" / "certificate.pem"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pem.public_bytes(serialization.Encoding.PEM))


def test_a_station_without_a_root_of_trust_is_told_how_to_get_one(tmp_path: Path) -> None:
    station = trusting(tmp_path)
    (station.folder / "trust" / "root.json").unlink()
    [trust, policy] = check_trust(station, NOW_S)
    assert (trust.outcome, policy.outcome) == (WARNING, OK)
    assert "enpire-edge enrol" in trust.remedy


def test_a_clock_behind_what_was_signed_fails(tmp_path: Path) -> None:
    station = trusting(tmp_path)
    write_floor((station.folder / "trust" / FLOOR, station.folder / FLOOR), Floor(wall_unix_s=NOW_S))
    assert outcomes(station) == {"trust": OK, "policy": OK}
    assert outcomes(station, NOW_S - 86400.0)["trust"] == FAILED


@pytest.mark.parametrize(
    ("until_s", "outcome"), [(None, FAILED), (NOW_S - 1, FAILED), (NOW_S + 3600, WARNING), (NOW_S + 6 * 86400, OK)]
)
def test_a_certificate_is_looked_at_where_one_is_needed(tmp_path: Path, until_s: float | None, outcome: str) -> None:
    station = trusting(tmp_path, "tls/lab.example:7447")
    if until_s is not None:
        certified(station, until_s)
    assert outcomes(station)["certificate"] == outcome


def test_what_is_active_is_said_and_a_lost_one_fails(tmp_path: Path) -> None:
    station = trusting(tmp_path)
    name = unpacked(POLICY, station.folder, "released")
    with Journal(station.folder / "activation.db") as journal:
        now = time.time()
        start = RolloutStart("s1", {"x_m": 0.3}, 1)
        journal.offer(RolloutOrder(1, name, "push_t", "active", (start,), now, now + 600.0))
        for event in ("test", "watch", "try", "prove", "accept"):
            journal.take(event, name, "a test")
        assert next(item for item in check_trust(station, now) if item.check == "policy").detail.startswith(name[:12])
        journal.missing(name)
    assert outcomes(station, now)["policy"] == FAILED
