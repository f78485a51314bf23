"""Trials as a LeRobotDataset v3.0: what policies saw and asked for, at 30 steps a second, for those who train on it.

- An episode is one policy's attempt; the reset before it and the judge's look after it are not in it.
- Many episodes share one file, of numbers as of pictures; `meta/episodes` says where each stands. Another file is begun
  where the next episode might make one longer than it should be; an episode is never split.
- Frames are numbered through; a frame's timestamp is its number in the episode over 30, whatever the clock said.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coordinator.errors import CoordinatorError
from coordinator.export import statistics
from coordinator.export.card import card
from coordinator.export.files import (
    CAMERA,
    DATA_FILE_MB,
    DATA_PATH,
    EPISODES_PATH,
    FILES_IN_A_CHUNK,
    VIDEO_FILE_MB,
    VIDEO_PATH,
    ParquetFiles,
)
from coordinator.export.recording import HZ, Attempt, RecordedTrial, RecordingUnusable, read_attempt
from coordinator.export.video import VideoFiles

VERSION = "v3.0"
LEFT_OUT = "meta/left_out.json"
ROBOT = "yam"
EPISODES_AT_ONCE = 200  # rows of meta/episodes held before they are written

JOINTS = [f"joint_{number}" for number in range(1, 7)]
JOINTS_AND_GRIPPER = [f"{joint}_rad" for joint in JOINTS] + ["gripper_m"]
# feature -> (type, names of its numbers)
FEATURES: dict[str, tuple[str, list[str] | None]] = {
    "observation.state": ("float32", JOINTS_AND_GRIPPER),
    "observation.velocity": ("float32", [f"{joint}_rad_s" for joint in JOINTS]),
    "observation.effort": ("float32", [f"{joint}_nm" for joint in JOINTS]),
    "observation.tool_pose": ("float32", ["x_m", "y_m", "z_m", "quat_w", "quat_x", "quat_y", "quat_z"]),
    "action": ("float32", JOINTS_AND_GRIPPER),
    "next.done": ("bool", None),
    "next.success": ("bool", None),
    "station_time_s": ("float32", None),
    "timestamp": ("float32", None),
    "frame_index": ("int64", None),
    "episode_index": ("int64", None),
    "index": ("int64", None),
    "task_index": ("int64", None),
}
ABOUT_TRIAL = (
    "edge", "epoch", "sequence", "bundle", "start_id", "purpose", "seed", "outcome", "cause", "progress",
    "started_unix_s", "station_hash", "calibration_hash", "software", "recording",
)  # fmt: skip

Progress = Callable[[int, int], None]  # done, of
Columns = Mapping[str, NDArray[Any]]  # feature -> (frames, numbers)


class NothingToWrite(CoordinatorError):
    """No trial is left of which an episode can be made."""


@dataclass(frozen=True)
class Written:
    """What became of the trials."""

    episodes: tuple[RecordedTrial, ...]
    frames: int
    left_out: Mapping[str, str]  # name of a trial -> why


def write_dataset(
    folder: Path, trials: Sequence[RecordedTrial], recordings: Path, with_video: bool, progress: Progress
) -> Written:
    """Write the dataset of some trials into an existing folder, in their order.

    Raises:
        NothingToWrite: no trial has a recording that can be used.
        VideoFailed: the encoder or the disk did not take a video.
        OSError: the disk did not take a file.
    """
    left_out: dict[str, str] = {}
    with _Dataset(folder, with_video) as dataset:
        for number, trial in enumerate(trials):
            progress(number, len(trials))
            try:
                dataset.add(trial, read_attempt(recordings / f"{trial.recording}.mcap", trial, with_video))
            except RecordingUnusable as why:
                left_out[trial.name] = str(why)
    if not dataset.episodes:
        raise NothingToWrite(nothing(left_out))
    written = Written(tuple(dataset.episodes), dataset.frames, left_out)
    dataset.finish(left_out)
    (folder / "README.md").write_text(card(written.episodes, written.frames, left_out, with_video), encoding="utf-8")
    progress(len(trials), len(trials))
    return written


def nothing(left_out: Mapping[str, str]) -> str:
    """Return the one line that says why there is no episode."""
    if not left_out:
        return "no trial fits; choose other --outcome or --policy"
    name, why = next(iter(left_out.items()))
    remedy = "; --no-video does without pictures" if "picture" in why else ""
    return f"no episode can be made of {len(left_out)} trials; {name}: {why}{remedy}"


class _Dataset:
    """A dataset that is being written: files of numbers, files of pictures, and where each episode stands in them."""

    def __init__(self, folder: Path, with_video: bool) -> None:
        self._folder = folder
        self._data = ParquetFiles(folder, DATA_PATH)
        self._where = ParquetFiles(folder, EPISODES_PATH)
        self._videos = VideoFiles(folder) if with_video else None
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self.episodes: list[RecordedTrial] = []
        self.frames = 0

    def __enter__(self) -> _Dataset:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with ExitStack() as closing:
            closing.callback(self._where.close)
            closing.callback(self._data.close)
            if self._videos is not None:
                closing.callback(self._videos.close, failed=kind is not None)
            if kind is None:
                self._flush()

    def add(self, trial: RecordedTrial, attempt: Attempt) -> None:
        """Write one episode.

        Raises:
            RecordingUnusable: its pictures cannot be put beside those of the others; nothing of it is written.
        """
        row: dict[str, Any] = {}
        stats: dict[str, statistics.Statistics] = {}
        if self._videos is not None:
            place, stats[CAMERA] = self._videos.add(attempt)
            row |= {f"videos/{CAMERA}/{name}": value for name, value in place.items()}
        columns = self._columns(trial, attempt)
        stats |= {name: statistics.of_rows(values) for name, values in columns.items()}
        row |= {f"data/{name}": value for name, value in self._data.begin()._asdict().items()}
        self._data.write(_table(columns))
        steps = len(attempt.time_s)
        self._rows.append({
            "episode_index": len(self.episodes),
            "tasks": [trial.task],
            "length": steps,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + steps,
            **row,
            **{f"trial/{name}": value for name, value in asdict(trial).items() if name in ABOUT_TRIAL},
            **{f"stats/{name}/{of}": value for name, found in stats.items() for of, value in found.items()},
        })  # fmt: skip
        self.episodes.append(trial)
        self.frames += steps
        if len(self._rows) >= EPISODES_AT_ONCE:
            self._flush()

    def _columns(self, trial: RecordedTrial, attempt: Attempt) -> Columns:
        steps = len(attempt.time_s)
        frame = np.arange(steps)
        done = frame == steps - 1
        task = self._tasks.setdefault(trial.task, len(self._tasks))
        values: dict[str, NDArray[Any]] = {
            "observation.state": np.hstack([attempt.joints_rad, attempt.gripper_m]),
            "observation.velocity": attempt.velocity_rad_s,
            "observation.effort": attempt.torque_nm,
            "observation.tool_pose": attempt.tool_pose,
            "action": attempt.setpoint,
            "next.done": done,
            "next.success": done & (trial.outcome == "success"),
            "station_time_s": attempt.time_s,
            "timestamp": frame / HZ,
            "frame_index": frame,
            "episode_index": np.full(steps, len(self.episodes)),
            "index": self.frames + frame,
            "task_index": np.full(steps, task),
        }
        return {name: values[name].reshape(steps, -1).astype(of_type) for name, (of_type, _) in FEATURES.items()}

    def _flush(self) -> None:
        if self._rows:
            place = {f"meta/episodes/{name}": value for name, value in self._where.begin()._asdict().items()}
            self._where.write(pa.Table.from_pylist([row | place for row in self._rows]))
            self._rows = []

    def finish(self, left_out: Mapping[str, str]) -> None:
        """Write what is said of the whole; the files must have been closed."""
        stats = {name: statistics.of_rows(self._column(name)) for name in FEATURES}
        if self._videos is not None:
            stats[CAMERA] = statistics.of_pictures(self._videos.histogram, self.frames)
        tasks = pa.table({"task_index": list(self._tasks.values()), "task": list(self._tasks)})
        pq.write_table(
            tasks.replace_schema_metadata({"pandas": json.dumps(PANDAS)}), self._folder / "meta/tasks.parquet"
        )
        _write_json(self._folder / "meta/stats.json", stats)
        _write_json(self._folder / LEFT_OUT, left_out)
        _write_json(self._folder / "meta/info.json", self._info())

    def _column(self, name: str) -> NDArray[Any]:
        """Return one feature of all frames, (frames, numbers)."""
        files = sorted((self._folder / "data").glob("*/*.parquet"))
        values = [pq.read_table(path, columns=[name])[name] for path in files]
        flat = [(v.combine_chunks().flatten() if FEATURES[name][1] else v).to_numpy() for v in values]
        return np.concatenate(flat).reshape(self.frames, -1)

    def _info(self) -> dict[str, Any]:
        features = {
            name: {"dtype": of_type, "shape": [len(names or [name])], "names": names}
            for name, (of_type, names) in FEATURES.items()
        }
        return {
            "codebase_version": VERSION,
            "robot_type": ROBOT,
            "total_episodes": len(self.episodes),
            "total_frames": self.frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_IN_A_CHUNK,
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "fps": HZ,
            "splits": {"train": f"0:{len(self.episodes)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": ({CAMERA: self._videos.feature()} if self._videos else {}) | features,
        }


# Tells pandas, with which LeRobot reads the table, that the task is its index.
PANDAS = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
    ],
    "pandas_version": "2.2.0",
}


def _table(columns: Columns) -> pa.Table:
    """Return columns of one number as such, and those of more as lists of a fixed length."""
    arrays = {}
    for name, values in columns.items():
        flat = pa.array(values.ravel())
        width = len(FEATURES[name][1] or [])
        arrays[name] = pa.FixedSizeListArray.from_arrays(flat, width) if width else flat
    return pa.table(arrays)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False), encoding="utf-8")
