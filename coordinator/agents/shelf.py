"""What stands in an agent's cage to look at: the lab's records, attempts, methods, and a dry run of its policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from coordinator.agents import lab_view
from coordinator.agents.cage import WORK, base_url, interpreter
from coordinator.agents.exchange import LAB as ASKED_AT
from coordinator.agents.trial_files import film_strip, newest, observations, traces
from coordinator.research.literature import FOLDER as METHODS
from coordinator.store import FILE as DATABASE

LAB = Path(lab_view.PLACE).parent  # in the cage
TRIALS, DRY_RUN, SITE = f"{LAB}/trials", f"{LAB}/dry_run", f"{LAB}/site"
DEV_TRIALS = f"{LAB}/dev_trials"
SCRIPT, ASK = Path(__file__).with_name("dry_run.py"), Path(__file__).with_name("ask_fleet.py")
ABOUT = f"""\
{lab_view.ABOUT}

{TRIALS} has attempts of the incumbent on development starts: N-film.jpg (pictures from its beginning to its end),
N-traces.jpg (joints, what was asked less what was measured, torques, tool), N.json (all that the policy saw).

`{DRY_RUN} policies/POLICY` runs your policy on what those attempts saw. It finds what does not run; as nothing moves,
it says nothing of success. Run it before you end.

{LAB}/methods has a card for each method that the lab knows: when it helps, how to apply it, its pitfalls."""

ABOUT_DEV_TRIALS = f"""\
`{DEV_TRIALS} HOW_MANY` runs your unfinished change on the robots, on development starts that the lab draws. It decides
nothing and says what came of each attempt, and where in {TRIALS} its film, traces and observations are. It answers
within a minute; `{DEV_TRIALS}` without a number waits for the rest. How many are left for this change stands above."""


def shows(run: Path, trials: bool = False) -> Callable[[Path], Mapping[str, Path]]:
    """Return what puts all of this into the folder of an agent's run, for `CodingAgent`; `run` is the campaign's.

    Args:
        trials: whether the agent may ask for attempts of its change.
    """

    def made(folder: Path) -> Mapping[str, Path]:
        lab_view.write_view(run / DATABASE, folder / "view.db")
        _write_trials(run, folder / "trials")
        own = {lab_view.PLACE: folder / "view.db", TRIALS: folder / "trials"}
        own |= _program(folder, DRY_RUN, SCRIPT)
        if trials:
            own |= _program(folder, DEV_TRIALS, ASK, f"{base_url()}{ASKED_AT}", WORK)
        return {**own, f"{LAB}/methods": METHODS, **_numpy()}

    return made


def pictures(run: Path) -> Callable[[object], list[bytes]]:
    """Return what makes JPEGs of attempts, for an agent without a cage."""
    return lambda context: [jpeg for shown in newest(run) for jpeg in (film_strip(shown), traces(shown))]


def _write_trials(run: Path, folder: Path) -> None:
    folder.mkdir()
    for number, shown in enumerate(newest(run), 1):
        (folder / f"{number}-film.jpg").write_bytes(film_strip(shown))
        (folder / f"{number}-traces.jpg").write_bytes(traces(shown))
        (folder / f"{number}.json").write_bytes(observations(shown))


def _program(folder: Path, place: str, script: Path, *arguments: str) -> dict[str, Path]:
    """Make what starts a script of ours in the cage, and return where both lie."""
    start = folder / Path(place).name
    words = " ".join((f"{LAB}/{script.name}", *arguments))
    start.write_text(f'#!/bin/sh\nexec {interpreter()} -I -B {words} "$@"\n')
    start.chmod(0o755)
    return {place: start, f"{LAB}/{script.name}": script}


def _numpy() -> Mapping[str, Path]:
    """Return numpy and its libraries, which the interpreter in the cage does not have."""
    package = Path(np.__file__).parent
    beside = (package, package.parent / "numpy.libs")
    return {f"{SITE}/{path.name}": path for path in beside if path.is_dir()}
