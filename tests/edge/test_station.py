"""A station.toml that is wrong is refused in one line that names the key."""

from pathlib import Path

import pytest

from calibration.records import CalibrationError
from edge.emulation.stations import make_stations
from edge.station import StationError, load_station


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 3, "push_t", "tcp/127.0.0.1:7447", ["ab" * 32])
    return tmp_path / "station-1"


def test_a_new_station_loads(folder: Path) -> None:
    station = load_station(folder)
    assert (station.name, station.task) == ("station-1", "push_t")
    assert station.coordinator.trusted_keys == ("ab" * 32,)
    assert len(station.station_hash) == 64
    assert station.emulation is not None


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
        ("x_m = [0.05, 0.47]", "x_m = [0.47, 0.05]", "low < high"),
        ("x_m = [0.05, 0.47]", "x_m = [120, 470]", "within 1.5 m"),
        ("length_m = 0.05", "length_m = 50", "tool.length_m"),
        ("length_m = 0.05", 'length_m = "5 cm"', "tool.length_m"),
        ('arm = "yam"', 'arm = "ur5"', "known: yam"),
        ('task = "push_t"', "", "missing key task"),
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


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StationError, match="make-stations"):
        load_station(tmp_path)


def test_a_wrong_calibration_is_refused(folder: Path) -> None:
    path = folder / "calibration.toml"
    path.write_text(path.read_text().replace("[0.32, 0.0, 0.75]", "[0.32, 0.0]"))
    with pytest.raises(CalibrationError, match="position"):
        load_station(folder)
