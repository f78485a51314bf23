"""A dataset is laid out as LeRobot publishes it, holds what the recordings hold, and leaves out what they lack."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from coordinator.export import files, lerobot, statistics, video
from coordinator.export.write import Request, export
from coordinator.ingest import Batch
from coordinator.store import FILE, Store
from edge.messages import Setpoint
from edge.records import Outcome, Sealed, Trial, encode
from edge.trials.recording import Recording
from policies.interface import Observation

NOW_S = 1_700_000_000.0
KEY = Ed25519PrivateKey.generate()
PERIOD_NS = 33_333_336  # eight control periods, as a station counts
RESET, VERIFY = 7, 4  # steps before and after the policy's
CAMERA = "observation.images.top"
TRIAL = Trial(
    edge="station-1", epoch="e1", sequence=1, assignment_id="a1", lease_id="l1", task="push_t", bundle="b" * 64,
    start_id="dev-1", purpose="screen", seed=7, outcome=Outcome.FAILURE, cause="near", detail="2 mm off",
    progress=0.5, measures={}, achieved_start={}, reset_s=RESET * PERIOD_NS / 1e9, reset_tries=1, trial_s=1.0,
    policy_steps=30, wall_reset_s=0.5, wall_trial_s=0.7, started_unix_s=NOW_S, ended_unix_s=NOW_S + 2.0,
    station_hash="5" * 64, calibration_hash="6" * 64, software="s 1", recording="", recording_bytes=0,
)  # fmt: skip
RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (10, 40, 220)


@dataclass(frozen=True)
class Tape:
    """What a test's recording shall hold; numbers follow `base`, so that no two recordings are alike."""

    steps: int
    base: float = 0.0
    pictures: tuple[tuple[int, tuple[int, int, int]], ...] = ((-3, RED), (0, GREEN), (10, BLUE))  # (step, colour)
    size: tuple[int, int] = (64, 48)  # width, height
    stages: bool = True
    refused: bool = False  # the last step was not carried out
    bare: bool = False  # no measurement before the policy's first step
    not_a_number_at: int = -1
    broken: bool = False  # pictures are none


def state_at(base: float, step: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What was measured when a step was asked for: 6 positions, velocities, torques, 3 + 4 of the pose, the jaws."""
    return base + step / 100 + np.arange(26.0) / 1000


def action_at(base: float, step: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What was asked for at a step: 6 positions and the jaws."""
    return -base - step / 100 - np.arange(7.0) / 1000


def jpeg(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def record(path: Path, tape: Tape, began_ns: int = 5_000_000_000) -> tuple[str, int]:
    """Write a recording as a station does: reset, the policy's steps, the judge's look."""
    pictures = dict(tape.pictures)
    with Recording(path) as recording:

        def measured(step: int) -> None:
            numbers = state_at(tape.base, step)
            if step == tape.not_a_number_at:
                numbers[7] = np.nan
            parts = (numbers[:6], numbers[6:12], numbers[12:18], numbers[18:21], numbers[21:25])
            recording.joints(began_ns + (RESET + step) * PERIOD_NS, Observation(0.0, *parts, float(numbers[25])))

        def stage(name: str, step: int) -> None:
            if tape.stages:
                recording.event(began_ns + (RESET + step) * PERIOD_NS, "stage", name)

        stage("reset", -RESET)
        for step in range(-RESET, tape.steps + VERIFY):
            at_ns = began_ns + (RESET + step) * PERIOD_NS
            if step == 0:
                stage("run", step)
            if step == tape.steps:
                stage("verify", step)
            if step in pictures:
                picture = jpeg(pictures[step], tape.size)
                recording.camera(at_ns, picture[:90] if tape.broken else picture)
            asked = action_at(tape.base, step)
            recording.setpoint(at_ns, Setpoint(asked[:6], float(asked[6]), at_ns))
            if not (tape.bare and step < 0):
                measured(step + 1)
        recording.event(began_ns + 10_000_000_000, "verdict", "done")
        return recording.seal()


def add(run: Path, trial: Trial, tape: Tape | None) -> Trial:
    """Keep a trial and its recording as the coordinator does."""
    if tape is not None:
        path = run / "recordings" / "new.mcap"
        sha256, size = record(path, tape)
        path.rename(path.with_name(f"{sha256}.mcap"))
        steps = tape.steps - tape.refused
        station_s = tape.steps * PERIOD_NS / 1e9
        trial = replace(trial, recording=sha256, recording_bytes=size, policy_steps=steps, trial_s=station_s)
    link = hashlib.sha256(b"before" + encode(trial)).digest()
    sealed = Sealed(encode(trial), link, KEY.sign(Sealed(encode(trial), link, b"").chain))
    with Store(run / FILE) as store:
        [kept] = store.ingest(Batch(KEY.public_key().public_bytes_raw().hex(), (sealed,)), NOW_S)
    assert kept.kept == "new"
    return trial


def quiet(done: int, of: int) -> None:
    """Nobody watches."""


def export_to(run: Path, out: Path, **wishes: Any) -> dict[str, Any]:
    return export(Request(run, "lerobot", out, **wishes), quiet)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three episodes, the second a success of another policy at another task, on another station."""
    folder = tmp_path / "run"
    folder.mkdir()
    add(folder, TRIAL, Tape(30))
    second = replace(TRIAL, edge="station-2", outcome=Outcome.SUCCESS, cause="", progress=1.0, bundle="c" * 64)
    add(folder, replace(second, task="pin_insertion", started_unix_s=NOW_S + 1), Tape(17, base=1.0))
    add(folder, replace(TRIAL, sequence=2, started_unix_s=NOW_S + 2), Tape(1, base=2.0, pictures=((0, BLUE),)))
    return folder


LENGTHS = (30, 17, 1)


def data(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "data").glob("*/*.parquet"))])


def episodes(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "meta" / "episodes").glob("*/*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def numbers(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array(table[name].to_pylist()).reshape(len(table), -1)


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def frames(path: Path) -> list[tuple[float, np.ndarray[Any, np.dtype[np.uint8]]]]:
    """Return (time in s, picture) of a video."""
    with closing(av.open(str(path))) as container:
        stream = container.streams.video[0]
        assert (stream.codec.canonical_name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 30)
        return [(float(frame.time or 0.0), frame.to_ndarray(format="rgb24")) for frame in container.decode(stream)]


def test_the_files_are_those_of_the_published_layout(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = export_to(run, out)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "README.md", "meta/info.json", "meta/stats.json", "meta/tasks.parquet", "meta/left_out.json",
        "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet",
        f"videos/{CAMERA}/chunk-000/file-000.mp4",
    }  # fmt: skip
    info = load(out / "meta/info.json")
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0", "robot_type": "yam", "total_episodes": 3, "total_frames": 48, "total_tasks": 2,
        "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": 30,
        "splits": {"train": "0:3"}, "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }  # fmt: skip
    assert (told["episodes"], told["frames"], told["left_out"]) == (3, 48, {})
    picture = features.pop(CAMERA)
    assert (picture["dtype"], picture["shape"], picture["names"][2]) == ("video", [48, 64, 3], "channels")
    assert picture["info"]["video.codec"] == "h264"
    schema = data(out).schema
    assert list(features) == schema.names
    kinds = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
    for name, feature in features.items():
        [width], kind = feature["shape"], kinds[feature["dtype"]]
        assert schema.field(name).type == (kind if feature["names"] is None else pa.list_(kind, width))
        assert feature["names"] is None or len(feature["names"]) == width
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        assert features[name] == {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}


def test_tasks_have_the_index_by_which_pandas_finds_them(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    tasks = pq.read_table(tmp_path / "out/meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "task": ["push_t", "pin_insertion"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_frames_are_numbered_through_and_episodes_say_where_they_stand(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    table, rows = data(tmp_path / "out"), episodes(tmp_path / "out")
    assert table["index"].to_pylist() == list(range(48))
    assert table["frame_index"].to_pylist() == [frame for length in LENGTHS for frame in range(length)]
    assert table["timestamp"].to_numpy() == pytest.approx(table["frame_index"].to_numpy() / 30, abs=1e-6)
    assert table["task_index"].to_pylist() == [0] * 30 + [1] * 17 + [0]
    begins = [0, 30, 47]
    for number, (row, length, begin) in enumerate(zip(rows, LENGTHS, begins, strict=True)):
        assert (row["episode_index"], row["length"]) == (number, length)
        assert (row["dataset_from_index"], row["dataset_to_index"]) == (begin, begin + length)
        assert set(table["episode_index"].to_pylist()[begin : begin + length]) == {number}
        assert row[f"videos/{CAMERA}/from_timestamp"] == pytest.approx(begin / 30)
        assert row[f"videos/{CAMERA}/to_timestamp"] == pytest.approx((begin + length) / 30)
        places = ("data", f"videos/{CAMERA}", "meta/episodes")
        assert {row[f"{kind}/{of}_index"] for kind in places for of in ("chunk", "file")} == {0}
    assert [row["tasks"] for row in rows] == [["push_t"], ["pin_insertion"], ["push_t"]]
    assert [row["trial/edge"] for row in rows] == ["station-1", "station-2", "station-1"]
    assert [row["trial/outcome"] for row in rows] == ["failure", "success", "failure"]
    assert rows[1]["trial/bundle"] == "c" * 64
    assert table["next.done"].to_pylist() == [frame == length - 1 for length in LENGTHS for frame in range(length)]
    assert table["next.success"].to_pylist() == [number == 46 for number in range(48)]


@pytest.mark.parametrize("stages", [True, False])
def test_a_step_pairs_what_was_known_with_what_was_asked(tmp_path: Path, stages: bool) -> None:
    add(tmp_path, TRIAL, Tape(25, base=0.5, stages=stages))
    export_to(tmp_path, tmp_path / "out")
    table = data(tmp_path / "out")
    seen = np.array([state_at(0.5, step) for step in range(25)])
    asked = np.array([action_at(0.5, step) for step in range(25)])
    expected = {
        "observation.state": seen[:, [0, 1, 2, 3, 4, 5, 25]], "observation.velocity": seen[:, 6:12],
        "observation.effort": seen[:, 12:18], "observation.tool_pose": seen[:, 18:25], "action": asked,
    }  # fmt: skip
    for name, values in expected.items():
        assert numbers(table, name) == pytest.approx(values, abs=1e-5)
    assert table["station_time_s"].to_numpy() == pytest.approx(np.arange(25) * PERIOD_NS / 1e9, abs=1e-6)


def test_a_step_that_was_not_carried_out_is_no_frame(tmp_path: Path) -> None:
    add(tmp_path, TRIAL, Tape(25, refused=True))
    assert export_to(tmp_path, tmp_path / "out")["frames"] == 24
    assert numbers(data(tmp_path / "out"), "action")[-1] == pytest.approx(action_at(0.0, 23), abs=1e-5)


def test_a_frame_of_the_video_is_the_newest_picture_of_its_step(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    shown = frames(tmp_path / "out" / "videos" / CAMERA / "chunk-000" / "file-000.mp4")
    assert len(shown) == len(data(tmp_path / "out"))
    colours = [GREEN] * 10 + [BLUE] * 20 + [GREEN] * 10 + [BLUE] * 7 + [BLUE]
    for number, ((time_s, picture), colour) in enumerate(zip(shown, colours, strict=True)):
        assert time_s == pytest.approx(number / 30, abs=1e-4)  # what LeRobot allows a frame to be off
        assert picture.shape == (48, 64, 3)
        assert np.abs(picture.reshape(-1, 3).mean(axis=0) - colour).max() < 8.0


def test_a_picture_from_before_the_attempt_is_held_and_one_of_odd_size_is_cut(tmp_path: Path) -> None:
    add(tmp_path, TRIAL, Tape(5, pictures=((-5, RED),), size=(65, 49)))
    export_to(tmp_path, tmp_path / "out")
    shown = frames(tmp_path / "out" / "videos" / CAMERA / "chunk-000" / "file-000.mp4")
    assert [picture.shape for _, picture in shown] == [(48, 64, 3)] * 5
    assert load(tmp_path / "out/meta/info.json")["features"][CAMERA]["shape"] == [48, 64, 3]


def test_statistics_are_those_of_the_numbers(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    table, stats = data(tmp_path / "out"), load(tmp_path / "out/meta/stats.json")
    assert set(stats) == {*table.column_names, CAMERA}
    for row in episodes(tmp_path / "out"):
        part = table.slice(row["dataset_from_index"], row["length"])
        for name in table.column_names:
            of = {key.rpartition("/")[2]: value for key, value in row.items() if key.startswith(f"stats/{name}/")}
            check_statistics(of, numbers(part, name))
    for name in table.column_names:
        check_statistics(stats[name], numbers(table, name))


def check_statistics(found: dict[str, list[float]], values: np.ndarray[Any, np.dtype[Any]]) -> None:
    assert set(found) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    assert found["count"] == [len(values)]
    values = values.astype(np.float64)
    for name in ("min", "max", "mean", "std"):
        assert found[name] == pytest.approx(getattr(np, name)(values, axis=0).tolist(), abs=1e-6)
    assert found["q50"] == pytest.approx(np.median(values, axis=0).tolist(), abs=1e-6)
    assert found["q90"] == pytest.approx(np.quantile(values, 0.9, axis=0).tolist(), abs=1e-6)


def test_statistics_of_pictures_are_those_of_all_pixels_of_all_frames() -> None:
    random = np.random.default_rng(3)
    pictures = random.integers(0, 256, (4, 6, 10, 3), dtype=np.uint8)
    held = (1, 5, 2, 9)
    counts = sum(
        (n * statistics.histogram(p) for p, n in zip(pictures, held, strict=True)), statistics.nothing_counted()
    )
    found = statistics.of_pictures(counts, sum(held))
    pixels = np.repeat(pictures, held, axis=0).reshape(-1, 3) / 255
    assert found.pop("count") == [17]
    assert {np.shape(value) for value in found.values()} == {(3, 1, 1)}
    flat = {name: np.ravel(value).tolist() for name, value in found.items()}
    for name in ("min", "max", "mean", "std"):
        assert flat[name] == pytest.approx(getattr(np, name)(pixels, axis=0).tolist())
    for name, share in {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}.items():
        assert flat[name] == pytest.approx(np.quantile(pixels, share, axis=0, method="lower").tolist())


def test_statistics_of_the_video_reach_the_files(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    [first, *_] = episodes(tmp_path / "out")
    whole = load(tmp_path / "out/meta/stats.json")[CAMERA]
    mean = (10 * np.array(GREEN) + 20 * np.array(BLUE)) / 30 / 255
    assert np.ravel(first[f"stats/{CAMERA}/mean"]) == pytest.approx(mean, abs=0.02)
    assert np.ravel(whole["max"]) == pytest.approx(np.maximum(GREEN, BLUE) / 255, abs=0.02)
    assert (first[f"stats/{CAMERA}/count"], whole["count"]) == ([30], [48])


@pytest.mark.parametrize(("per_chunk", "data_mb", "video_mb"), [(2, 0, 0), (1000, 0, 200), (1000, 100, 0)])
def test_full_files_are_followed_by_others(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, per_chunk: int, data_mb: int, video_mb: int
) -> None:
    monkeypatch.setattr(files, "FILES_IN_A_CHUNK", per_chunk)
    monkeypatch.setattr(files, "DATA_FILE_MB", data_mb)
    monkeypatch.setattr(video, "VIDEO_FILE_MB", video_mb)
    monkeypatch.setattr(lerobot, "EPISODES_AT_ONCE", 1)
    export_to(run, tmp_path / "out")
    table = data(tmp_path / "out")
    assert table["index"].to_pylist() == list(range(48))
    for row in episodes(tmp_path / "out"):
        number, length = row["episode_index"], row["length"]
        every_second = (number // per_chunk, number % per_chunk)
        where = {"data": data_mb, f"videos/{CAMERA}": video_mb, "meta/episodes": data_mb}
        for kind, limit in where.items():
            place = (row[f"{kind}/chunk_index"], row[f"{kind}/file_index"])
            assert place == ((0, 0) if limit else every_second)
        chunk, file = row["data/chunk_index"], row["data/file_index"]
        path = tmp_path / "out" / f"data/chunk-{chunk:03d}/file-{file:03d}.parquet"
        assert number in pq.read_table(path)["episode_index"].to_pylist()
        chunk, file = row[f"videos/{CAMERA}/chunk_index"], row[f"videos/{CAMERA}/file_index"]
        shown = frames(tmp_path / "out" / "videos" / CAMERA / f"chunk-{chunk:03d}/file-{file:03d}.mp4")
        begin = round(30 * row[f"videos/{CAMERA}/from_timestamp"])
        assert begin == (0 if video_mb == 0 else row["dataset_from_index"])
        assert begin + length <= len(shown)


def test_without_video_nothing_is_said_of_one(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out", video=False)
    info = load(tmp_path / "out/meta/info.json")
    assert info["video_path"] is None
    assert CAMERA not in info["features"]
    assert not (tmp_path / "out/videos").exists()
    assert not any(CAMERA in name for name in episodes(tmp_path / "out")[0])


def test_episodes_are_chosen_by_outcome_and_by_policy(run: Path, tmp_path: Path) -> None:
    assert export_to(run, tmp_path / "won", outcome="success", video=False)["frames"] == 17
    assert export_to(run, tmp_path / "b", policy="bbb", video=False)["frames"] == 31
    assert "| success |" in (tmp_path / "won" / "README.md").read_text(encoding="utf-8")


def cut(path: Path) -> bytes:
    return path.read_bytes()[:-400]


def flipped(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("spoil", "video", "why"),
    [
        (lambda run: add(run, BAD, None), True, "it has no recording"),
        (lambda run: add(run, replace(BAD, recording="9" * 64), None), True, "its recording has not come"),
        (lambda run: add(run, BAD, Tape(9, pictures=())), True, "its recording holds no picture before its first step"),
        (lambda run: add(run, BAD, Tape(9, pictures=((1, RED),))), True, "holds no picture before its first step"),
        (lambda run: add(run, BAD, Tape(9, size=(32, 32))), True, "is 32 by 32 pixels, those of the others are 64"),
        (lambda run: add(run, BAD, Tape(9, broken=True)), True, "a picture of it cannot be decoded"),
        (lambda run: add(run, BAD, Tape(9, size=(1, 1))), True, "a picture of it is 1 by 1 pixels"),
        (lambda run: add(run, BAD, Tape(9, bare=True)), False, "holds no measurement before its first step"),
        (lambda run: add(run, BAD, Tape(9, not_a_number_at=4)), False, "its velocity_rad_s was not a number at a step"),
        (lambda run: short(run), False, "its recording holds 9 of its 12 steps"),
        (lambda run: spoiled(run, flipped, False), False, "another hash"),
        (lambda run: spoiled(run, cut, True), False, "its recording cannot be read: "),
        (lambda run: spoiled(run, cut, False), False, "another hash"),
        (lambda run: spoiled(run, lambda path: b"", True), False, "its recording cannot be read: "),
    ],
)  # fmt: skip
def test_a_trial_that_makes_no_episode_is_left_out_by_name(
    run: Path, tmp_path: Path, spoil: Callable[[Path], object], video: bool, why: str
) -> None:
    spoil(run)
    told = export_to(run, tmp_path / "out", video=video)
    [(name, reason)] = told["left_out"].items()
    assert name == "station-9/e9/1"
    assert why in reason
    assert "\n" not in reason
    assert load(tmp_path / "out/meta/left_out.json") == told["left_out"]
    assert (told["episodes"], told["frames"]) == (3, 48)
    assert [row["trial/edge"] for row in episodes(tmp_path / "out")] == ["station-1", "station-2", "station-1"]
    assert why in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    if video:
        assert len(frames(tmp_path / "out" / "videos" / CAMERA / "chunk-000" / "file-000.mp4")) == 48


BAD = replace(TRIAL, edge="station-9", epoch="e9", started_unix_s=NOW_S + 0.5)


def short(run: Path) -> Trial:
    """Keep a trial of more steps than its recording holds, as a thinned one does."""
    path = run / "recordings" / "new.mcap"
    sha256, size = record(path, Tape(9))
    path.rename(path.with_name(f"{sha256}.mcap"))
    station_s = 9 * PERIOD_NS / 1e9
    return add(run, replace(BAD, recording=sha256, recording_bytes=size, policy_steps=12, trial_s=station_s), None)


def spoiled(run: Path, spoil: Callable[[Path], bytes], renamed: bool) -> Trial:
    """Keep a trial whose recording is damaged, under the hash of what is left of it or of what it was."""
    path = run / "recordings" / "new.mcap"
    sha256, size = record(path, Tape(9))
    path.write_bytes(spoil(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if renamed else sha256
    path.rename(path.with_name(f"{sha256}.mcap"))
    return add(run, replace(BAD, recording=sha256, recording_bytes=size, policy_steps=9), None)


def test_an_interrupted_dataset_leaves_nothing(run: Path, tmp_path: Path) -> None:
    def interrupt(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(Request(run, "lerobot", tmp_path / "out"), interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize("limit_bytes", [100, 3000, 12_000])
def test_a_disk_that_takes_no_more_is_said_in_one_line_and_nothing_stays(
    run: Path, tmp_path: Path, video: bool, limit_bytes: int
) -> None:
    code = f"""
import resource, signal, sys
from pathlib import Path
from coordinator.errors import CoordinatorError
from coordinator.export.write import Request, export
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then the write fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
try:
    request = Request(Path({str(run)!r}), "lerobot", Path({str(tmp_path / "out")!r}), video={video})
    export(request, lambda done, of: None)
except CoordinatorError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["run"]


def test_the_card_says_how_the_pictures_came_about(run: Path, tmp_path: Path) -> None:
    export_to(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "holds the newest picture at each step until the next was taken" in text
    assert f"| `{'c' * 64}` | 1 | 1 | 0 | 0 |" in text
