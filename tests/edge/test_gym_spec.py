"""What a [gymnasium] table may say, and what a station of it is; nothing here needs Gymnasium."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edge.doctor import examine
from edge.gym_station.bench import GymBench, NoEnvironment
from edge.gym_station.spec import SpecError, read_spec
from edge.gym_station.stations import ENVIRONMENTS, make_gym_stations
from edge.station import StationError, load_station
from edge.uplink.settings import read_settings


def table(**changes: Any) -> dict[str, Any]:
    """Return the table of gym-pusht with some keys changed; None takes one out."""
    whole: dict[str, Any] = tomllib.loads(ENVIRONMENTS["gym_pusht"])["gymnasium"]
    return {key: value for key, value in (whole | changes).items() if value is not None}


def test_the_station_that_ships_is_read_as_it_is_written(tmp_path: Path) -> None:
    [name] = make_gym_stations(tmp_path, 1, "gym_pusht", "tcp/127.0.0.1:1")
    station, settings = load_station(tmp_path / name), read_settings(tmp_path / name)
    assert station.gym is not None
    assert station.gym.time_limit_s == 30.0
    assert station.gym.reset.entries == ("agent_x", "agent_y", "block_x", "block_y", "block_angle")
    assert (station.can, station.emulation) == (None, None)
    assert (settings.name, settings.task, settings.station_hash, settings.calibration_hash) == (
        station.name, station.task, station.station_hash, station.calibration_hash,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"environment": None}, "missing key gymnasium.environment"),
        ({"environment": ""}, "wants text"),
        ({"speed": 2}, "unknown key gymnasium.speed"),
        ({"rate_hz": 0}, "rate_hz is 0"),
        ({"rate_hz": float("nan")}, "rate_hz is nan"),
        ({"rate_hz": True}, "rate_hz is True"),
        ({"steps": 0}, "steps is 0"),
        ({"unit_m": -1.0}, "unit_m is -1"),
        ({"unit_m": float("inf")}, "unit_m is inf"),
        ({"arguments": 3}, "arguments is not a table"),
        ({"tool": {}}, "missing key gymnasium.tool.x"),
        ({"tool": {"x": -1}}, "tool.x is -1"),
        ({"tool": {"x": True}}, "tool.x is True"),
        ({"tool": {"x": 1.5}}, "tool.x is 1.5"),
        ({"tool": 0}, "tool is not a table"),
        ({"objects": []}, "objects is not a table"),
        ({"objects": {"tee": {"x": 0, "roll": 1}}}, "unknown key gymnasium.objects.tee.roll"),
        ({"action": {"axes": []}}, "axes is []"),
        ({"action": {"axes": ["x", "x"]}}, "axes"),
        ({"action": {"axes": ["w"]}}, "axes"),
        ({"action": {"axes": ["x"], "relative": 1}}, "relative is not true or false"),
        ({"reset": {"option": "state"}}, "wants option and entries"),
        ({"reset": {"option": "state", "entries": []}}, "entries is []"),
        ({"reset": {"option": "state", "entries": [1]}}, "entries is [1]"),
        ({"success": {}}, "missing key gymnasium.success.info"),
        ({"success": {"info": "done", "above": "much"}}, "above is 'much'"),
        ({"success": {"info": "done", "full": 0}}, "full is 0"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_spec(table(**changes))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "gymnasium"', 'kind = "isaac"', "known: gymnasium"),
        ("[gymnasium]", 'arm = "yam"\n[gymnasium]', "unknown key"),
        ("unit_m = 0.001", "unit_m = 0", "unit_m is 0"),
        ("x_m = [0.0, 0.512]", "x_m = [0.5, 0.2]", "wants low < high"),
        ('name = "station-1"', 'name = "a/b"', "use only letters"),
    ],
)
def test_a_station_file_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    make_gym_stations(tmp_path, 1, "gym_pusht", "tcp/127.0.0.1:1")
    path = tmp_path / "station-1" / "station.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StationError) as refused:
        load_station(tmp_path / "station-1")
    assert said in str(refused.value)


def test_without_gymnasium_a_station_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_gym_stations(tmp_path, 1, "gym_pusht", "tcp/127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(NoEnvironment) as refused:
        GymBench(read_spec(table()))
    assert "enpire[gymnasium]" in str(refused.value)
    assert "\n" not in str(refused.value)
    found = {item.check: item for item in examine(tmp_path / "station-1", confirm_motion=False)}
    assert found["environment"].outcome == "failed"
    assert "none" in found["arm"].detail
