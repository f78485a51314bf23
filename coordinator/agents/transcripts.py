"""Where a lane's next transcript lies."""

from __future__ import annotations

from pathlib import Path


def next_path(folder: Path, lane: str) -> Path:
    """Make `folder` and return the lane's next transcript path, one above the highest number there.

    A process that resumes a run thus never writes over what the lane said before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [path.stem.removeprefix(f"{lane}-") for path in folder.glob("*.jsonl")]
    highest = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return folder / f"{lane}-{highest + 1:04d}.jsonl"
