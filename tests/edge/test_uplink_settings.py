"""The uplink reads a station's files as the station does, and refuses those that do not say whom to talk to."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.emulation.stations import make_stations
from edge.station import load_station
from edge.uplink.settings import SettingsError, read_settings
from edge.wire.tls import Tls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_stations(tmp_path, 1, 3, "push_t", "tcp/10.0.0.1:7447")
    return tmp_path / "station-1"


def be_known(folder: Path) -> Tls:
    """Leave what an enrolment leaves, as far as the settings look at it."""
    identity = Tls.of(folder / "identity")
    identity.key.parent.mkdir()
    for path in (identity.authority, identity.certificate, identity.key):
        path.touch(mode=0o600)
    return identity


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ('name = "station-1"', 'name = "Bench_7"'),
        ("tcp/10.0.0.1:7447", "tls/coordinator.example:443"),
        ("# One emulated bench", "# Another comment is another file"),
    ],
)
def test_both_read_the_same_from_the_same_files(folder: Path, old: str, new: str) -> None:
    path = folder / "station.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    be_known(folder)
    mine, station = read_settings(folder), load_station(folder)
    assert (mine.folder, mine.name, mine.task) == (station.folder, station.name, station.task)
    assert mine.endpoint == station.endpoint
    assert (mine.station_hash, mine.calibration_hash) == (station.station_hash, station.calibration_hash)


def test_a_station_s_files_lie_in_its_folder(folder: Path) -> None:
    mine = read_settings(folder)
    assert {mine.ledger_path.parent, mine.bundles.parent, mine.status_path.parent} == {folder}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("endpoint", "end_point", "endpoint"),
        ("[coordinator]", "[supervisor]", "coordinator"),
        ('name = "station-1"', "", "name"),
        ('task = "push_t"', "", "task"),
        ("[tool]", "[tool", "Expected"),
    ],
)
def test_a_file_that_does_not_say_whom_to_talk_to_is_refused_in_one_line(
    folder: Path, old: str, new: str, complaint: str
) -> None:
    path = folder / "station.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(SettingsError, match=r"station\.toml") as caught:
        read_settings(folder)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "station.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="rightly"):
        read_settings(folder)


def test_a_missing_station_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*station\.toml"):
        read_settings(tmp_path)


def test_a_missing_or_wrong_calibration_is_refused(folder: Path) -> None:
    path = folder / "calibration.toml"
    for text in (path.read_text().replace("[0.32, 0.0, 0.75]", "[0.32, 0.0]"), None):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(SettingsError, match=r"calibration\.toml") as caught:
            read_settings(folder)
        assert "\n" not in str(caught.value)


def test_a_station_shows_its_identity_where_the_endpoint_wants_one(folder: Path) -> None:
    path = folder / "station.toml"
    assert read_settings(folder).tls is None
    path.write_text(path.read_text().replace("tcp/", "tls/"))
    with pytest.raises(SettingsError, match=f"run enpire-edge enrol {folder} TICKET") as error:
        read_settings(folder)
    assert "\n" not in str(error.value)
    identity = be_known(folder)
    assert read_settings(folder).tls == identity
    for part in (identity.authority, identity.certificate, identity.key):
        part.rename(folder / "elsewhere")
        with pytest.raises(SettingsError, match="no identity"):
            read_settings(folder)
        (folder / "elsewhere").rename(part)
    identity.key.chmod(0o640)
    with pytest.raises(SettingsError, match="others can read"):
        read_settings(folder)
