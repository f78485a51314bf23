"""A sealed recording holds all that was put into it and opens elsewhere; one that was not sealed is not there."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader

from edge.messages import Setpoint
from edge.trials.recording import BATCH, TOPICS, Recording, RecordingError
from edge.trials.recovery import recover_part
from policies.interface import Observation, Scene, SceneObject

PERIOD_NS = 33_333_333
JPEG = bytes(range(256))
SCENE = Scene(0.25, (SceneObject("tee", 0.3, -0.05, 1.0, 1e-4, 1e-3), SceneObject("blue thing", 1.0, 2, 3, 4, 5)))


def seen(value: float) -> Observation:
    """Return an observation whose numbers are all different and follow `value`."""
    part = value + np.arange(27.0) / 100
    return Observation(0.0, part[:6], part[6:12], part[12:18], part[18:21], part[21:25], float(part[25]))


def record(recording: Recording, periods: int, from_ns: int = 0) -> None:
    """Record as a trial does: each period a setpoint and joints, now and then a picture."""
    for number in range(periods):
        time_ns = from_ns + number * PERIOD_NS
        recording.setpoint(time_ns, Setpoint(np.full(6, float(number)), 0.01, time_ns))
        recording.joints(time_ns, seen(float(number)))
        if number % 50 == 0:
            recording.scene(time_ns, SCENE)
            recording.camera(time_ns, JPEG)
    recording.event(from_ns + periods * PERIOD_NS, "verdict", 'success: "0.97" covered – done\nwell')


def no_json(word: str) -> None:
    """Python reads NaN and Infinity, which are in no JSON."""
    pytest.fail(f"{word} is not JSON")


def messages(path: Path, *topics: str, in_file_order: bool = False) -> list[tuple[str, int, dict[str, Any]]]:
    """Return (topic, time_ns, message) of what the file holds."""
    with open(path, "rb") as file:
        found = make_reader(file, validate_crcs=True).iter_messages(topics or None, log_time_order=not in_file_order)
        return [
            (channel.topic, message.log_time, json.loads(message.data, parse_constant=no_json))
            for _, channel, message in found
        ]


def sealed(path: Path, periods: int = 3) -> tuple[str, int]:
    with Recording(path) as recording:
        record(recording, periods)
        return recording.seal()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recordings" / "trial.mcap"


@pytest.mark.parametrize("periods", [0, 1, BATCH // 2 - 1, BATCH // 2, BATCH // 2 + 1, 1800])
def test_everything_that_was_recorded_is_read_back(path: Path, periods: int) -> None:
    sealed(path, periods)
    pictures = math.ceil(periods / 50)
    expected = {"/joints": periods, "/setpoint": periods, "/scene": pictures, "/camera/top": pictures, "/events": 1}
    assert Counter(topic for topic, _, _ in messages(path)) == Counter(expected)
    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    counts = {
        summary.channels[number].topic: count for number, count in summary.statistics.channel_message_counts.items()
    }
    assert Counter(counts) == Counter(expected)
    assert summary.statistics.message_end_time == periods * PERIOD_NS


def test_times_never_go_back_neither_in_the_file_nor_by_the_clock(path: Path) -> None:
    sealed(path, 400)
    for in_file_order in (True, False):
        times = [time_ns for _, time_ns, _ in messages(path, in_file_order=in_file_order)]
        assert times == sorted(times)
    steps = [time_ns for _, time_ns, _ in messages(path, "/joints")]
    assert steps == [number * PERIOD_NS for number in range(400)]


def test_every_topic_carries_the_schema_that_a_viewer_needs(path: Path) -> None:
    sealed(path)
    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    found = {}
    for channel in summary.channels.values():
        schema = summary.schemas[channel.schema_id]
        assert (channel.message_encoding, schema.encoding) == ("json", "jsonschema")
        found[channel.topic] = (schema.name, json.loads(schema.data))
    assert found == TOPICS
    assert found["/camera/top"][0] == "foxglove.CompressedImage"


def test_every_message_keeps_to_its_schema(path: Path) -> None:
    sealed(path)
    for topic, _, message in messages(path):
        properties = TOPICS[topic][1]["properties"]
        assert list(message) == list(properties)
        for name, rule in properties.items():
            kind: Any = {"number": int | float, "string": str, "array": list, "object": dict}[rule["type"]]
            assert isinstance(message[name], kind)
            if "minItems" in rule:
                assert len(message[name]) == rule["minItems"] == rule["maxItems"]


def test_numbers_come_back_as_they_were_measured(path: Path) -> None:
    rng = np.random.default_rng(0)
    shown = Observation(
        0.0, *(rng.normal(0.0, 10.0 ** rng.integers(-6, 3), count) for count in (6, 6, 6, 3, 4)), gripper_m=0.0123
    )
    asked = Setpoint(rng.normal(0.0, 1.0, 6), 0.07, 0)
    with Recording(path) as recording:
        recording.joints(1_234_500_000_000, shown)
        recording.setpoint(1_234_500_000_000, asked)
        recording.seal()
    [(_, _, joints)] = messages(path, "/joints")
    [(_, _, setpoint)] = messages(path, "/setpoint")
    for name, value in (
        ("position_rad", shown.joints_rad),
        ("velocity_rad_s", shown.joint_velocity_rad_s),
        ("torque_nm", shown.joint_torque_nm),
        ("tool_position_m", shown.tool_position_m),
        ("tool_quat_wxyz", shown.tool_quat_wxyz),
    ):
        np.testing.assert_allclose(joints[name], value, rtol=1e-5)
    np.testing.assert_allclose(setpoint["position_rad"], asked.position_rad, rtol=1e-5)
    assert (joints["gripper_m"], setpoint["gripper_m"]) == (0.0123, 0.07)
    assert joints["time_s"] == setpoint["time_s"] == 1234.5


def test_what_is_recorded_is_what_stood_there_then(path: Path) -> None:
    numbers = np.zeros(6)
    with Recording(path) as recording:
        for number in range(10):
            numbers[:] = number  # as a driver does that reuses its buffers
            recording.setpoint(number, Setpoint(numbers, 0.0, 0))
        recording.seal()
    assert [message["position_rad"][0] for _, _, message in messages(path)] == list(range(10))


def test_pictures_scenes_and_sentences_come_back_as_they_were(path: Path) -> None:
    sealed(path, 1)
    [(_, _, scene)] = messages(path, "/scene")
    assert Scene(scene["time_s"], tuple(SceneObject(**item) for item in scene["objects"])) == SCENE
    [(_, _, event)] = messages(path, "/events")
    assert (event["kind"], event["text"]) == ("verdict", 'success: "0.97" covered – done\nwell')
    with Recording(path) as recording:
        recording.camera(12_000_000_345, JPEG)
        recording.seal()
    [(_, _, picture)] = messages(path, "/camera/top")
    assert base64.b64decode(picture["data"]) == JPEG
    assert picture["timestamp"] == {"sec": 12, "nsec": 345}
    assert picture["format"] == "jpeg"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_left_open_and_the_others_stay(path: Path, number: float) -> None:
    asked = Setpoint(np.array([0.0, number, -1.5, number, 1e-9, 1e9]), number, 0)
    with Recording(path) as recording:
        recording.setpoint(0, asked)
        recording.seal()
    [(_, _, message)] = messages(path)
    assert message["position_rad"] == [0, None, -1.5, None, 1e-9, 1e9]
    assert message["gripper_m"] is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_scene_with_a_number_that_is_none_is_still_json_and_words_stay_words(path: Path, number: float) -> None:
    with Recording(path) as recording:
        recording.scene(0, Scene(0.0, (SceneObject("nan", number, -0.05, number, 1e-4, number),)))
        recording.event(0, "verdict", f"{number}: NaN")
        recording.seal()
    [(_, _, scene)] = messages(path, "/scene")
    expected = {"name": "nan", "x_m": None, "y_m": -0.05, "yaw_rad": None, "sigma_m": 1e-4, "sigma_rad": None}
    assert scene["objects"] == [expected]
    [(_, _, event)] = messages(path, "/events")
    assert event == {"time_s": 0.0, "kind": "verdict", "text": f"{number}: NaN"}


def test_the_schemas_say_where_a_number_may_be_missing_in_words_that_foxglove_opens() -> None:
    measured = {"type": "number", "nullable": True}
    scene = TOPICS["/scene"][1]["properties"]
    assert scene["objects"]["items"]["properties"]["x_m"] == measured
    joints = TOPICS["/joints"][1]["properties"]
    assert joints["position_rad"]["items"] == joints["gripper_m"] == measured
    assert "nullable" not in joints["time_s"]


def test_the_hash_and_the_size_are_the_file_s(path: Path) -> None:
    sha256, size = sealed(path, 100)
    data = path.read_bytes()
    assert (sha256, size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert list(path.parent.iterdir()) == [path]


def test_the_same_trial_gives_the_same_bytes(path: Path) -> None:
    assert sealed(path, 100) == sealed(path, 100)


def interrupted(path: Path, periods: int) -> None:
    with Recording(path) as recording:
        record(recording, periods)
        raise KeyboardInterrupt


@pytest.mark.parametrize("periods", [0, 1, 300])
def test_a_recording_that_was_interrupted_is_left_for_recovery_to_the_last_message(path: Path, periods: int) -> None:
    sealed(path, periods)
    whole = messages(path)
    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path, periods)
    part = path.with_name("trial.mcap.part")
    assert list(path.parent.iterdir()) == [part]
    recovered = recover_part(part)
    assert recovered is not None
    *found, (_, time_ns, last), (_, _, cut) = messages(recovered, in_file_order=True)
    assert sorted(found, key=repr) == sorted(whole, key=repr)
    assert (time_ns, last["kind"], last["text"]) == (periods * PERIOD_NS, "error", "KeyboardInterrupt: ")
    assert cut["kind"] == "cut"


@pytest.mark.parametrize("periods", [3, 5000])
def test_a_recording_that_was_interrupted_on_a_disk_that_takes_nothing_leaves_nothing(path: Path, periods: int) -> None:
    path.parent.mkdir()
    path.with_name("trial.mcap.part").symlink_to("/dev/full")
    with pytest.raises((KeyboardInterrupt, RecordingError)):
        interrupted(path, periods)
    assert list(path.parent.iterdir()) == []


def test_a_recording_that_is_left_without_a_seal_leaves_nothing(path: Path) -> None:
    with Recording(path) as recording:
        record(recording, 300)
    assert list(path.parent.iterdir()) == []


def test_an_interrupted_recording_spares_the_sealed_one_before_it(path: Path) -> None:
    sealed(path)
    before = path.read_bytes()
    with Recording(path) as recording:
        record(recording, 1)
        recording.discard()
    assert path.read_bytes() == before


def test_a_killed_process_leaves_no_sealed_file_and_the_next_one_takes_its_place(path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from edge.trials.recording import Recording
recording = Recording(Path(sys.argv[1]))
for number in range(100):
    recording.camera(number, os.urandom(10_000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert process.returncode == -signal.SIGKILL
    [left] = path.parent.iterdir()
    assert left.suffix == ".part"
    assert left.stat().st_size > 100_000
    sha256, _ = sealed(path)
    assert list(path.parent.iterdir()) == [path]
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("periods", [3, 5000])  # noticed at the seal, and while the trial goes on
def test_a_disk_that_takes_nothing_is_said_and_leaves_nothing(path: Path, periods: int) -> None:
    path.parent.mkdir()
    path.with_name("trial.mcap.part").symlink_to("/dev/full")
    with pytest.raises(RecordingError, match="No space left on device; free space there") as caught:
        sealed(path, periods)
    assert "\n" not in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_a_recording_whose_name_is_taken_by_a_folder_is_said_and_leaves_nothing_else(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(RecordingError, match="cannot record to"):
        sealed(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordingError, match="cannot record to") as caught:
        Recording(tmp_path / "file" / "trial.mcap")
    assert "\n" not in str(caught.value)
