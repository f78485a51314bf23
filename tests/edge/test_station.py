"""A station.toml that is wrong is refused in one line that names the key."""

from pathlib import Path

import pytest

from calibration.records import CalibrationError
from edge.activation.gates import Gates
from edge.emulation.stations import make_stations
from edge.station import RecordingTier, StationError, Storage, load_station


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 3, "push_t", "tcp/127.0.0.1:7447")
    return tmp_path / "station-1"


def test_a_new_station_loads(folder: Path) -> None:
    station = load_station(folder)
    assert (station.name, station.task) == ("station-1", "push_t")
    assert station.gates == Gates(step_p99_s=2.0)
    assert len(station.station_hash) == 64
    assert station.emulation is not None
    assert station.recording == RecordingTier(joint_hz=30.0, camera="full", jpeg_quality=80)
    assert station.storage == Storage(reserve_mb=4.0, disk_mb=2000.0, trial_mb_per_s=4.0)


@pytest.mark.parametrize(
    ("tables", "recording", "storage"),
    [
        ("", RecordingTier(30.0, "full", 80), Storage(4.0, 2000.0, 4.0)),
        ("[recording]\n[storage]\n", RecordingTier(30.0, "full", 80), Storage(4.0, 2000.0, 4.0)),
        ('[recording]\njoint_hz = 1\ncamera = "none"\n', RecordingTier(1.0, "none", 80), Storage(4.0, 2000.0, 4.0)),
        ("[recording]\njpeg_quality = 100\n", RecordingTier(30.0, "full", 100), Storage(4.0, 2000.0, 4.0)),
        (
            "[storage]\nreserve_mb = 1\ntrial_mb_per_s = 0.01\n",
            RecordingTier(30.0, "full", 80),
            Storage(1.0, 2000.0, 0.01),
        ),
    ],
)
def test_what_is_kept_of_a_trial_may_be_said_in_part(
    folder: Path, tables: str, recording: RecordingTier, storage: Storage
) -> None:
    path = folder / "station.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[recording]")] + tables + text[text.index("[emulation]") :])
    station = load_station(folder)
    assert (station.recording, station.storage) == (recording, storage)


def test_a_station_with_a_real_arm_keeps_a_larger_reserve(folder: Path) -> None:
    path = folder / "station.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[recording]")] + '[can]\ntransport = "socketcan"\nport = "can0"\n')
    assert load_station(folder).storage == Storage(reserve_mb=200.0, disk_mb=64_000.0, trial_mb_per_s=4.0)


def test_the_gates_of_a_new_policy_may_be_said_in_part(folder: Path) -> None:
    path = folder / "station.toml"
    path.write_text(path.read_text().replace("step_p99_s = 2.0", "canary_pairs = 4\ndelta = 0.1"))
    assert load_station(folder).gates == Gates(canary_pairs=4, delta=0.1)


def test_policies_work_in_the_arena_or_in_all_of_the_workspace(folder: Path) -> None:
    assert load_station(folder).arena.upper_m.tolist() == [0.47, 0.42, 0.30]
    path = folder / "station.toml"
    without = path.read_text().split("[arena]")
    path.write_text(without[0] + without[1][without[1].index("[coordinator]") :])
    station = load_station(folder)
    assert (station.arena.lower_m == station.workspace.lower_m).all()
    assert station.arena.upper_m.tolist() == [0.62, 0.42, 0.30]


def test_its_limits_are_never_wider_than_the_arm_s(folder: Path) -> None:
    station = load_station(folder)
    assert (station.limits.lower_rad >= station.arm.limits.lower_rad).all()
    assert (station.limits.velocity_rad_s <= station.arm.limits.velocity_rad_s).all()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "station-1"', 'name = "station-1"\ncolour = "red"', "unknown key colour"),
        ("velocity_rad_s", "velocity_deg_s", "unknown key limits.velocity_deg_s"),
        ("[3.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "[172.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "in degrees"),
        ("[3.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "[0.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "not positive"),
        ("[3.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "[nan, 3.0, 3.0, 6.0, 6.0, 6.0]", "finite"),
        ("[-2.6, 0.0,", "[-9.0, 0.0,", "below the arm's own"),
        ("[-2.6, 0.0,", "[2.7, 0.0,", "not below upper_rad"),
        ("[-2.6, 0.0, 0.0, -1.69,", "[-2.6, 0.0, -1.69,", "wants 6 numbers"),
        ("[-2.6, 0.0,", '["a", 0.0,', "limits.lower_rad holds 'a', wants finite numbers"),
        ("[-2.6, 0.0,", '["0.0", 0.0,', "limits.lower_rad holds '0.0', wants finite numbers"),
        ("[-2.6, 0.0,", "[[-2.6], 0.0,", "limits.lower_rad holds [-2.6], wants finite numbers"),
        ("[-2.6, 0.0,", "[true, 0.0,", "limits.lower_rad holds True, wants finite numbers"),
        ("[-2.6, 0.0,", f"[-1{'0' * 400}, 0.0,", "wants finite numbers"),
        ("[-2.6, 0.0,", f"[-1{'0' * 5000}, 0.0,", "not TOML"),
        ("x_m = [0.05, 0.62]", 'x_m = [0.05, "a"]', "workspace.x_m holds 'a', wants finite numbers"),
        ("x_m = [0.05, 0.62]", 'x_m = "ab"', "workspace.x_m is 'ab', wants 2 numbers"),
        ("x_m = [0.05, 0.62]", "x_m = [0.62, 0.05]", "low < high"),
        ("x_m = [0.05, 0.62]", "x_m = [120, 470]", "within 1.5 m"),
        ("x_m = [0.05, 0.47]", "x_m = [0.05, 0.63]", "arena.x_m is [0.05, 0.63], which leaves the workspace's"),
        ("x_m = [0.05, 0.47]", "x_m = [0.04, 0.47]", "arena.x_m is [0.04, 0.47], which leaves the workspace's"),
        ("x_m = [0.05, 0.47]", "x_m = [0.47, 0.05]", "arena.x_m is [0.47, 0.05]: wants low < high"),
        ("length_m = 0.05", "length_m = 50", "tool.length_m"),
        ("length_m = 0.05", 'length_m = "5 cm"', "tool.length_m"),
        ('arm = "yam"', 'arm = "ur5"', "known: yam"),
        ("step_p99_s = 2.0", "canaries = 3", "unknown key rollout.canaries"),
        ("step_p99_s = 2.0", "faults = -1", "rollout.faults is -1"),
        ("step_p99_s = 2.0", "delta = nan", "rollout.delta is nan"),
        ('name = "station-1"', 'name = "station#1"', "name is 'station#1', use only letters, digits, - and _"),
        ('name = "station-1"', 'name = "a/b"', "letters, digits, - and _"),
        ('name = "station-1"', 'name = "Bänk 7"', "letters, digits, - and _"),
        ('name = "station-1"', 'name = "station-1\\n"', "letters, digits, - and _"),
        ('name = "station-1"', 'name = ""', "name is '', wants text"),
        ('name = "station-1"', "name = 1", "name is 1, wants text"),
        ('task = "push_t"', "", "missing key task"),
        ("joint_hz = 30", "joint_hz = 0.99", "recording.joint_hz is 0.99, wants a number from 1 to 30"),
        ("joint_hz = 30", "joint_hz = 30.1", "recording.joint_hz"),
        ("joint_hz = 30", "joint_hz = nan", "recording.joint_hz"),
        ("joint_hz = 30", "joints_hz = 30", "unknown key recording.joints_hz"),
        ('camera = "full"', 'camera = "half"', "recording.camera is 'half'; known: full, small, none"),
        ('camera = "full"', "camera = false", "recording.camera is False, wants text"),
        ("jpeg_quality = 80", "jpeg_quality = 0", "recording.jpeg_quality"),
        ("jpeg_quality = 80", "jpeg_quality = 101", "recording.jpeg_quality"),
        ("reserve_mb = 4", "reserve_mb = 0", "storage.reserve_mb is 0, wants a number from 1 to 10000"),
        ("reserve_mb = 4", 'reserve_mb = "4"', "storage.reserve_mb is '4'"),
        ("reserve_mb = 4", "reserve_gb = 4", "unknown key storage.reserve_gb"),
        ("trial_mb_per_s = 4.0", "trial_mb_per_s = 0", "storage.trial_mb_per_s"),
        ("disk_mb = 2000", "disk_mb = 0", "storage.disk_mb"),
        ("[storage]", "[[storage]]", "storage is not a table"),
        ("[tool]", "[tool", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(folder: Path, old: str, new: str, complaint: str) -> None:
    path = folder / "station.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StationError, match=r"station\.toml") as caught:
        load_station(folder)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("correct the file") == 1


def test_a_missing_file_says_how_to_make_one_and_not_to_correct_it(tmp_path: Path) -> None:
    with pytest.raises(StationError, match="make-stations") as caught:
        load_station(tmp_path)
    assert "correct" not in str(caught.value)


def test_who_names_the_folder_of_all_stations_is_told_so(folder: Path) -> None:
    with pytest.raises(StationError, match=f"holds stations: name one of them, such as {folder}"):
        load_station(folder.parent)


def test_a_wrong_calibration_is_refused(folder: Path) -> None:
    path = folder / "calibration.toml"
    path.write_text(path.read_text().replace("[0.32, 0.0, 0.75]", "[0.32, 0.0]"))
    with pytest.raises(CalibrationError, match="position"):
        load_station(folder)
