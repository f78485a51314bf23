"""Film strips: a few camera frames out of a trial's recording, with the station's own time under each.

A recording is an MCAP file; its topic /camera/top holds foxglove.CompressedImage messages as JSON, the JPEG in base64.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import make_reader
from PIL import Image, UnidentifiedImageError

from coordinator.report.measures import incumbents
from coordinator.report.run import Run, TrialRow

TOPIC = "/camera/top"
FRAMES = 6
HEIGHT_PIXELS = 180
JPEG_QUALITY = 80
GALLERY = 10  # classes that are shown


@dataclass(frozen=True)
class Frame:
    """One picture of the strip."""

    station_s: float  # the station's clock
    since_start_s: float
    jpeg: bytes


@dataclass(frozen=True)
class Strip:
    """A trial and what its camera saw; `problem` says why there are no frames."""

    title: str
    trial: TrialRow
    frames: tuple[Frame, ...]
    problem: str = ""


def strips(run: Run) -> tuple[Strip, ...]:
    """Return the first recorded failure of the seed and the last recorded success of the incumbent, if any."""
    reigns = incumbents(run)
    if not reigns:
        return ()
    failures = _recorded(run, reigns[0].idea.bundle, "failure")
    successes = _recorded(run, reigns[-1].idea.bundle, "success")
    found = []
    if failures:
        found.append(_strip(run, "A first failure of the seed", failures[0]))
    if successes:
        found.append(_strip(run, "A last success of the incumbent", successes[-1]))
    return tuple(found)


def gallery(run: Run, shown: Iterable[Strip], most: int = GALLERY) -> tuple[Strip, ...]:
    """Return a newest recorded trial of each way to fail, the commonest first, then of each fault of the harness.

    Where `shown` has the only recorded trial of a class, that class has no strip here.
    """
    seen = {(strip.trial.edge, strip.trial.recording) for strip in shown}
    classes = Counter((trial.outcome, trial.cause) for trial in run.trials if trial.outcome != "success")
    found: list[Strip] = []
    for (outcome, cause), hits in sorted(classes.items(), key=lambda item: (item[0][0], -item[1])):
        trials = [
            trial
            for trial in run.trials
            if (trial.outcome, trial.cause) == (outcome, cause)
            and (trial.edge, trial.recording) not in seen
            and recording_path(run, trial).is_file()
        ]
        if trials and len(found) < most:
            found.append(
                _strip(run, f"{outcome}: {cause or 'unnamed'} ({hits} of {len(run.trials)} trials)", trials[-1])
            )
    return tuple(found)


def _recorded(run: Run, bundle: str, outcome: str) -> list[TrialRow]:
    return [
        trial
        for trial in run.trials
        if trial.bundle == bundle and trial.outcome == outcome and recording_path(run, trial).is_file()
    ]


def recording_path(run: Run, trial: TrialRow) -> Path:
    """Return where the recording of a trial is kept."""
    return run.folder / "recordings" / f"{trial.recording}.mcap"


def _strip(run: Run, title: str, trial: TrialRow) -> Strip:
    try:
        return Strip(title, trial, read_frames(recording_path(run, trial)))
    except (McapError, OSError, ValueError, KeyError, binascii.Error, UnidentifiedImageError) as error:
        return Strip(title, trial, (), f"its recording cannot be read: {error}")


def read_frames(path: Path, wanted: int = FRAMES) -> tuple[Frame, ...]:
    """Return up to `wanted` frames, evenly spread over the recording, the first and the last among them.

    Of pictures of one moment, as the judge takes them, one is shown.
    """
    times_ns = _times(path)
    missing = {times_ns[index] for index in _even(len(times_ns), wanted)}
    frames = []
    with path.open("rb") as stream:
        for _, _, message in make_reader(stream).iter_messages(topics=[TOPIC]):
            if message.log_time in missing:
                missing.remove(message.log_time)
                jpeg = _small(base64.b64decode(json.loads(message.data)["data"]))
                frames.append(Frame(message.log_time / 1e9, (message.log_time - times_ns[0]) / 1e9, jpeg))
    return tuple(frames)


def _times(path: Path) -> list[int]:
    with path.open("rb") as stream:
        return sorted({message.log_time for _, _, message in make_reader(stream).iter_messages(topics=[TOPIC])})


def _even(length: int, wanted: int) -> list[int]:
    if length <= wanted:
        return list(range(length))
    return [round(index * (length - 1) / (wanted - 1)) for index in range(wanted)]


def _small(jpeg: bytes) -> bytes:
    """Return the picture at the strip's height, so that a page of many frames stays light."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        width = max(1, round(picture.width * HEIGHT_PIXELS / picture.height))
        buffer = io.BytesIO()
        picture.convert("RGB").resize((width, HEIGHT_PIXELS)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
