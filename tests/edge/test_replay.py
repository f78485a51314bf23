"""A recorded trial goes through today's control, perception and judge: what is as it was, and what is not, is said."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import base64
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer

from edge.activation.journal import Journal
from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.ledger import Ledger
from edge.planning.kinematics import chain_of
from edge.records import Assignment, Lease
from edge.replay.recorded import ReplayError
from edge.replay.replay import main, replay
from edge.retention import Retention
from edge.sandbox.process import PolicyHost
from edge.station import load_station
from edge.tasks.push_t.task import GOAL, PushT
from edge.trials.recovery import recover_part
from edge.trials.robot import Bench, StationRobot
from edge.trials.rollout import Rollout
from edge.trials.runner import Rig, run_trial
from policies import bundle
from tests.harness import bundles

POLICY = Path(bundle.__file__).parent / "push_t"
START = {"x_m": 0.31, "y_m": -0.04, "yaw_rad": 1.0}
# Looks about, and touches nothing.
CODE = """\
import numpy as np
from policies.interface import ToolTarget
from policies.skills.motion import Mover


def run(robot, params):
    mover = Mover(robot)
    for x, y in ((0.25, 0.15), (0.3, 0.0), (0.2, -0.15)):
        mover.line(np.array([x, y, 0.12]), 0.3)
        robot.scene()
"""


@dataclass(frozen=True)
class Files:
    """A trial of an emulated station, and where the files are."""

    recording: Path
    station: Path


def emulated_trial(folder: Path, faulty_motor: int | None = None) -> Files:
    """Run one trial, its T where the start wants it; a motor may have latched a fault before."""
    make_stations(folder, 1, 5, "push_t", "tcp/127.0.0.1:1")
    station = load_station(folder / "station-1")
    world = World(station, 7)
    world.place_tee((START["x_m"], START["y_m"], START["yaw_rad"]))
    bench = EmulatedBench(station, world)
    if faulty_motor is not None:
        world.bank.inject(faulty_motor, 0xE)
    drivers = Bench(bench.advance, bench.state, bench.look, lambda: False, bench.power_up, bench.limit)
    chain = chain_of(station.arm, station.tool.length_m, station.limits)
    robot = StationRobot(drivers, chain, station, 0.0)
    with (
        PolicyHost() as host,
        Ledger(station.folder / "ledger.db", station.name) as ledger,
        Journal(station.folder / "activation.db") as journal,
    ):
        rig = Rig(
            station=station,
            task=PushT(),
            robot=robot,
            host=host,
            ledger=ledger,
            retention=Retention(station),
            rollout=Rollout(station, host, ledger, journal, robot, chain),
            station_time_s=lambda: bench.now_s,
            stop_asked=lambda: False,
            say=lambda state, detail, assignment, sequence: None,
            wait=lambda: None,
        )
        assignment = Assignment("a1", unpacked(folder, station.folder), "s1", START, 1, "play")
        ledger.add_lease(Lease("l1", "push_t", (assignment,), time.time() + 600))
        run_trial(rig, assignment, "l1")
    world.close()
    [recording] = (station.folder / "recordings").glob("*.mcap")
    return Files(recording, station.folder)


def unpacked(folder: Path, station: Path) -> str:
    """Return the hash of a bundle of CODE that lies at the station."""
    source = folder / "source"
    source.mkdir()
    shutil.copy(POLICY / "policy.toml", source)
    (source / "policy.py").write_text(CODE)
    return bundles.unpacked(source, station)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return emulated_trial(tmp_path_factory.mktemp("trial"))


@pytest.fixture
def station(files: Files, tmp_path: Path) -> Path:
    """A copy of the station's files that a test may change."""
    folder = tmp_path / "station"
    folder.mkdir()
    for name in ("station.toml", "calibration.toml"):
        shutil.copy(files.station / name, folder)
    return folder


Said = dict[str, Any]
Change = Callable[[str, Said], Said | None]


def rewritten(files: Files, path: Path, change: Change) -> Path:
    """Write the recording anew, each message as `change(topic, message)` has it, without those that are None then."""
    with open(files.recording, "rb") as file, open(path, "wb") as out:
        writer, channels = Writer(out), {}
        writer.start()
        for schema, channel, message in make_reader(file).iter_messages(log_time_order=False):
            if channel.id not in channels:
                schema_id = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(channel.topic, channel.message_encoding, schema_id)
            said = change(channel.topic, json.loads(message.data))
            if said is not None:
                data = json.dumps(said).encode()
                writer.add_message(channels[channel.id], message.log_time, data, message.log_time)
        writer.finish()
    return path


def altered(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def events(files: Files, kind: str) -> list[Said]:
    with open(files.recording, "rb") as file:
        found = [json.loads(item.data) for _, _, item in make_reader(file).iter_messages("/events")]
    return [event for event in found if event["kind"] == kind]


def test_a_trial_replays_as_it_was(files: Files) -> None:
    result = replay(files.recording, files.station)
    assert (result.same, result.lacks, result.notes) == (True, (), ())
    assert result.control is not None
    assert result.control.setpoints > 100
    assert result.control.compared >= result.control.setpoints
    assert 0.0 < max(result.control.largest_rad) < 0.1
    assert result.perception is not None
    # Once the arm stands over the T, then as now.
    assert (result.perception.pictures, result.perception.compared) == (9, 8)
    assert result.perception.only_then == result.perception.only_now == ()
    assert 0.0 < result.perception.largest_mm < 0.6
    assert result.verdict is not None
    assert (result.verdict.then, result.verdict.now) == ("failure", "failure")
    assert result.verdict.then_measures == result.verdict.now_measures
    assert result.trial["start"] == START
    assert result.trial["station_hash"] == load_station(files.station).station_hash


def test_a_trial_in_which_the_arm_was_enabled_anew_replays_too(tmp_path: Path) -> None:
    files = emulated_trial(tmp_path, faulty_motor=3)
    [fault], [restart] = events(files, "fault"), events(files, "restart")
    assert fault["text"] == restart["text"] == "motor 4 reports overload"
    result = replay(files.recording, files.station)
    assert result.same
    assert result.lacks == ()
    [note] = result.notes
    assert "was stopped at 0.0" in note
    assert "motor 4 reports overload" in note


def test_the_command_prints_one_object_and_says_by_its_code_whether_all_is_the_same(
    files: Files, station: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(files.recording), str(files.station), "--json"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    said = json.loads(line)
    assert (said["same"], said["verdict"]["then"], said["verdict"]["now"]) == (True, "failure", "failure")
    assert {name: said[name]["same"] for name in ("control", "perception", "verdict")} == dict.fromkeys(
        ("control", "perception", "verdict"), True
    )
    altered(station / "station.toml", "[3.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "[0.2, 3.0, 3.0, 6.0, 6.0, 6.0]")
    assert main([str(files.recording), str(station), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False


def test_the_summary_names_trial_parts_and_verdicts(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(files.recording), str(files.station)]) == 0
    printed = capsys.readouterr().out
    for words in ("station-1/1", "control", "perception", "verdict", "failure", "All is as it was"):
        assert words in printed


def test_a_slower_arm_does_not_go_where_it_went_and_the_other_station_is_named(files: Files, station: Path) -> None:
    altered(station / "station.toml", "[3.0, 3.0, 3.0, 6.0, 6.0, 6.0]", "[0.2, 3.0, 3.0, 6.0, 6.0, 6.0]")
    result = replay(files.recording, station)
    assert result.control is not None
    assert not result.control.same
    assert int(np.argmax(result.control.largest_rad)) == 0
    assert result.control.largest_rad[0] > 0.15
    assert result.perception is not None
    assert result.perception.same
    [note] = result.notes
    assert "station.toml is another one" in note


def test_limits_that_the_arm_stood_outside_of_are_a_refusal(files: Files, station: Path) -> None:
    altered(station / "station.toml", "lower_rad = [-2.6, 0.0", "lower_rad = [-2.6, 2.0")
    result = replay(files.recording, station)
    assert result.control is not None
    assert not result.control.same
    assert "joint 2 stands at" in result.control.new_refusals[0].text


@pytest.mark.parametrize(("off_mm", "same"), [(0.5, True), (3.0, False)])
def test_a_camera_that_stood_elsewhere_shows_in_perception(
    files: Files, station: Path, off_mm: float, same: bool
) -> None:
    altered(station / "calibration.toml", "position_m = [0.32,", f"position_m = [{0.32 + off_mm / 1e3:.4f},")
    result = replay(files.recording, station)
    assert result.perception is not None
    assert result.perception.same is same
    assert abs(result.perception.median_mm - off_mm) < 0.5
    assert any("calibration.toml is another one" in note for note in result.notes)


def test_a_t_that_was_found_nowhere_then_is_found_now(files: Files, tmp_path: Path) -> None:
    def change(topic: str, said: Said) -> Said:
        return {**said, "objects": []} if topic == "/scene" else said

    result = replay(rewritten(files, tmp_path / "blind.mcap", change), files.station)
    assert result.perception is not None
    assert (len(result.perception.only_now), result.perception.compared) == (8, 0)
    assert result.verdict is not None
    # The judge would look once more, for a T that stands on edge, and has no picture of that.
    assert (result.perception.same, result.verdict.same, result.verdict.now) == (False, False, "")


def test_grey_pictures_show_no_t_any_more(files: Files, tmp_path: Path) -> None:
    _, jpeg = cv2.imencode(".jpg", np.full((240, 320, 3), 90, np.uint8))

    def change(topic: str, said: Said) -> Said:
        return {**said, "data": base64.b64encode(jpeg).decode()} if topic == "/camera/top" else said

    result = replay(rewritten(files, tmp_path / "grey.mcap", change), files.station)
    assert result.perception is not None
    assert (len(result.perception.only_then), result.perception.compared) == (8, 0)
    assert "blue area" in result.perception.only_then[0].why
    assert not result.same


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_pictures_of_another_size_are_measured_by_their_own_pixels(files: Files, tmp_path: Path, scale: float) -> None:
    def change(topic: str, said: Said) -> Said:
        if topic != "/camera/top":
            return said
        image = cv2.imdecode(np.frombuffer(base64.b64decode(said["data"]), np.uint8), cv2.IMREAD_COLOR)
        _, png = cv2.imencode(".png", cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        return {**said, "data": base64.b64encode(png).decode(), "format": "png"}

    result = replay(rewritten(files, tmp_path / "scaled.mcap", change), files.station)
    assert result.perception is not None
    assert result.perception.allowed_mm == pytest.approx(1.152 / scale, rel=1e-3)
    if scale <= 1.0:
        assert result.perception.same


def test_pictures_of_another_shape_are_not_segmented(files: Files, tmp_path: Path) -> None:
    _, jpeg = cv2.imencode(".jpg", np.zeros((240, 240, 3), np.uint8))

    def change(topic: str, said: Said) -> Said:
        return {**said, "data": base64.b64encode(jpeg).decode()} if topic == "/camera/top" else said

    result = replay(rewritten(files, tmp_path / "square.mcap", change), files.station)
    assert result.perception is None
    assert "shape of the calibration's camera" in result.lacks[0]


def test_a_judge_that_sees_the_goal_covered_says_so(files: Files, tmp_path: Path) -> None:
    goal = dict(zip(("x_m", "y_m", "yaw_rad"), GOAL, strict=True))

    def change(topic: str, said: Said) -> Said:
        return {**said, "objects": [{**item, **goal} for item in said["objects"]]} if topic == "/scene" else said

    result = replay(rewritten(files, tmp_path / "goal.mcap", change), files.station)
    assert result.verdict is not None
    assert (result.verdict.then, result.verdict.now, result.verdict.same) == ("failure", "success", False)


def test_a_judge_that_wants_to_see_more_than_there_is_comes_to_no_verdict(files: Files, tmp_path: Path) -> None:
    looks = 0

    def change(topic: str, said: Said) -> Said | None:
        nonlocal looks
        looks += topic == "/scene"
        return None if topic == "/scene" and looks == 8 else said

    result = replay(rewritten(files, tmp_path / "short.mcap", change), files.station)
    assert result.verdict is not None
    assert (result.verdict.now, result.verdict.same) == ("", False)
    assert "nothing left to see" in result.verdict.now_detail


def test_another_class_of_failure_is_another_verdict(files: Files, tmp_path: Path) -> None:
    [judged] = [json.loads(event["text"]) for event in events(files, "judged")]

    def change(topic: str, said: Said) -> Said:
        return {**said, "text": json.dumps(judged | {"cause": "tipped"})} if said.get("kind") == "judged" else said

    result = replay(rewritten(files, tmp_path / "class.mcap", change), files.station)
    assert result.verdict is not None
    assert (result.verdict.then_cause, result.verdict.same) == ("tipped", False)


@pytest.mark.parametrize("cause", ["stopped", "verify"])
def test_a_trial_that_was_never_judged_is_not_judged_now(files: Files, tmp_path: Path, cause: str) -> None:
    verdict = {"outcome": "invalid", "progress": 0.0, "cause": cause, "detail": "asked to stop", "measures": {}}

    def change(topic: str, said: Said) -> Said:
        return {**said, "text": json.dumps(verdict)} if said.get("kind") == "judged" else said

    result = replay(rewritten(files, tmp_path / "stopped.mcap", change), files.station)
    assert result.verdict is None
    assert result.lacks == ("no replay of verdict: it was never judged (asked to stop)",)
    assert result.same


def aged(verdict: str | None) -> Change:
    """Return a change to what recordings held before there were events of trial, stages and faults."""

    def change(topic: str, said: Said) -> Said | None:
        if topic != "/events":
            return said
        if said["kind"] != "verdict":
            return None
        return said if verdict is None else {**said, "text": verdict}

    return change


def test_an_old_recording_replays_too_and_says_what_it_lacks(files: Files, tmp_path: Path) -> None:
    result = replay(rewritten(files, tmp_path / "old.mcap", aged(None)), files.station)
    assert result.same
    assert result.control is not None
    assert result.perception is not None
    assert result.verdict is not None
    assert result.verdict.now == "failure"
    [line] = result.lacks
    assert "older than the events" in line


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("failure: 60 s of station time are used up; {detail}", True),  # how the policy ended overruled the judge
        ("failure: {detail}", True),
        ("success: {detail}", False),
        ("invalid: {detail}: too close to the threshold", False),
    ],
)
def test_of_an_old_recording_the_trial_s_outcome_is_compared(
    files: Files, tmp_path: Path, text: str, same: bool
) -> None:
    [judged] = [json.loads(event["text"]) for event in events(files, "judged")]
    change = aged(text.format(detail=judged["detail"]))
    result = replay(rewritten(files, tmp_path / "old.mcap", change), files.station)
    assert result.verdict is not None
    assert result.verdict.same is same


def test_a_cut_recording_replays_up_to_the_tear(files: Files, tmp_path: Path) -> None:
    part = tmp_path / "e-000001.mcap.part"
    part.write_bytes(files.recording.read_bytes()[: files.recording.stat().st_size * 2 // 3])
    recovered = recover_part(part)
    assert recovered is not None
    result = replay(recovered, files.station)
    assert result.control is not None
    assert result.control.same
    assert result.verdict is None
    assert result.lacks == ("no replay of verdict: it holds no verdict: it was cut short",)
    assert "was cut" in result.notes[0]


def test_a_recording_that_left_setpoints_out_is_not_replayed_through_control(files: Files, tmp_path: Path) -> None:
    def change(topic: str, said: Said) -> Said:
        return {**said, "text": json.dumps({"joint_hz": 10.0})} if said.get("kind") == "tier" else said

    result = replay(rewritten(files, tmp_path / "sparse.mcap", change), files.station)
    assert result.control is None
    assert "only 10 a second were kept" in result.lacks[0]
    assert result.same


@pytest.mark.parametrize("content", [None, b"", b"no recording", b"\x89MCAP0\r\n", "torn", "empty", "other"])
def test_files_that_cannot_be_used_are_said_in_one_line(
    files: Files, tmp_path: Path, content: bytes | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mcap"
    if content == "torn":
        path.write_bytes(files.recording.read_bytes()[:-100])
    elif content == "empty":
        rewritten(files, path, lambda topic, said: None)
    elif content == "other":
        rewritten(files, path, lambda topic, said: {"kind": 3} if topic == "/events" else {"position_rad": [1.0]})
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert main([str(path), str(files.station)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("edge.replay: ")
    assert printed.err.count("\n") == 1


def test_a_station_that_is_none_is_said_in_one_line(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(files.recording), str(tmp_path)]) == 2
    assert "no station.toml" in capsys.readouterr().err


def test_a_picture_that_is_none_is_said(files: Files, tmp_path: Path) -> None:
    for number, data in enumerate(("", base64.b64encode(b"no picture").decode())):

        def change(topic: str, said: Said, data: str = data) -> Said:
            return {**said, "data": data} if topic == "/camera/top" else said

        with pytest.raises(ReplayError, match="cannot be decoded"):
            replay(rewritten(files, tmp_path / f"{number}.mcap", change), files.station)
