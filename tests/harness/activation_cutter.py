"""Ends processes of a station at named moments of an arrow, by SIGKILL or by a power cut, and looks at what is left.

Usage: python tests/harness/activation_cutter.py FOLDER    one JSON question a line, one JSON answer a line

- This process has everything imported and opens no journal; every step is a fork of it, so that nothing of a process
  that ended is left but its files.
- First the arrow is taken without a cut. What the journal held before its commit, after it, and at the end of the turn
  is all that may be found after a cut: the old state or the new one, whole.
- Then another process goes on from there: uplink, steward and trials take turns, files that are not pinned are deleted,
  and after each turn there must be an active policy that may run, its files whole.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from edge.activation.schema import ActivationError
from edge.activation.table import Arrow
from tests.harness.activation_cases import CASES, A, B, begin, event_of, happen, subject
from tests.harness.activation_world import World

MOMENTS = ("before commit", "after commit", "after effect")
TURNS = 2
MOST_OPERATIONS = 60  # of one commit
EVERY = 8  # of them is cut, counted on from arrow to arrow, so that each is
Facts = dict[str, Any]


class PowerIsOff(BaseException):
    """The process is gone; not an Exception, so that no code under test handles it."""


@dataclass
class Reference:
    """An arrow that was taken without a cut."""

    folder: Path  # the station before it
    found: dict[str, Facts]  # at each moment


def fork(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run work in a process of its own; return how that ended (negative: the signal) and what it returned."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        with open(sender, "w") as out:
            out.write(json.dumps(work()))
        os._exit(0)
    os.close(sender)
    with open(receiver) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), json.loads(text) if text else None


def facts(world: World) -> Facts:
    """Return all that the journal holds, but for what its log says and how often it is asked."""
    line = world.journal.line()
    order = line.order.number if line.order else 0
    rows = {
        row.bundle[:8]: [row.state, row.role, row.expires_unix_s, row.baseline, row.missing, row.stop, row.denied]
        for row in world.journal.rows()
    }
    return {"line": [line.active, line.last_good, line.floor, order, line.closed], "rows": rows}


def turn(world: World, arrow: Arrow) -> None:
    """Let what the arrow answers to happen, and the station go on for a moment."""
    happen(world, arrow)
    world.fetch_all()
    world.steward.tend()


def take_uncut(folder: Path, arrow: Arrow) -> dict[str, Facts]:
    """Take an arrow, and return what the journal held at each moment."""
    found: dict[str, Facts] = {}

    def note(event: str, moment: str) -> None:
        if event == event_of(arrow) and moment not in found:
            with closing(World(folder)) as other:  # another process, which sees only what is committed
                found[moment] = facts(other)

    with closing(World(folder, note)) as world:
        assert world.journal.row(subject(arrow)).state == arrow.origin
        turn(world, arrow)
        found.setdefault("after effect", facts(world))
    return found


def kill_at(folder: Path, arrow: Arrow, moment: str) -> None:
    """Take an arrow and end this process by SIGKILL at a moment, the last of them when nothing more is due."""

    def cut(event: str, at: str) -> None:
        if (event, at) == (event_of(arrow), moment):
            os.kill(os.getpid(), signal.SIGKILL)

    turn(World(folder, cut), arrow)
    if moment == "after effect":
        os.kill(os.getpid(), signal.SIGKILL)


def cut_power(folder: Path, arrow: Arrow, moment: str, after: int, seed: int, synchronous: str | None) -> bool:
    """Take an arrow and cut the power; return whether its commit had been said to be on the disk.

    Before the commit the power goes at its `after`-th write or sync, counted from 1.
    """
    from tests.harness.power import Disk

    disk = Disk(f"disk-{os.getpid()}", random.Random(seed), synchronous)
    for path in folder.glob("activation.db*"):
        disk.adopt(path)
    said = False

    def cut(event: str, at: str) -> None:
        nonlocal said
        if event != event_of(arrow) or (said and at != moment):
            return
        said = said or at == "after commit"
        if at == "before commit" == moment:
            disk.cut_after(after)
        elif said and moment in (at, "before commit"):
            raise PowerIsOff

    with mock.patch("sqlite3.connect", disk.connect), suppress(PowerIsOff, ActivationError):
        turn(World(folder, cut), arrow)
    disk.restart()
    return said


def go_on(folder: Path, arrow: Arrow, allowed: list[Facts]) -> list[str]:
    """Open a station after a cut, and return what is wrong with it, now or after some turns."""
    with closing(sqlite3.connect(folder / "activation.db")) as db:
        wrong = [] if db.execute("PRAGMA integrity_check").fetchall() == [("ok",)] else ["the file is damaged"]
    with closing(World(folder)) as world:
        found = facts(world)
        if found not in allowed:
            wrong.append(f"neither old nor new: {found}, not one of {allowed}")
        wrong += broken(world)
        for _ in range(TURNS):
            world.fetch_all()
            world.steward.tend()
            world.run_queue()
            there = {path.name for path in (folder / "bundles").iterdir()}
            world.sweep()
            left = {path.name for path in (folder / "bundles").iterdir()}
            line = world.journal.line()
            wrong += [f"{pin[:8]} was deleted" for pin in (line.active, line.last_good) if pin in there - left]
            wrong += broken(world)
    return wrong


def broken(world: World) -> list[str]:
    """Return what does not hold of a station on which something was active."""
    line = world.journal.line()
    if not line.active:
        return ["nothing is active"]
    row, whole = world.journal.row(line.active), world.abilities().present(line.active)
    states = [item.bundle for item in world.journal.among(("active",))]
    permit = world.steward.may_run(line.active, "play")
    return [
        problem
        for fails, problem in (
            (states != [line.active], f"{states} are active, {line.active} should be"),
            (bool(row.denied or row.stop) or row.role != "released", f"{row.bundle} may not be active: {row}"),
            (whole and not row.missing and not permit.allowed, f"{row.bundle} may not run: {permit.why}"),
            (row.missing and row.bundle not in world.journal.wanted(), f"{row.bundle} is missing and not asked for"),
        )
        if fails
    ]


class Cutter:
    """Answers questions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._references: dict[str, Reference] = {}
        self._count = 0
        ended, _ = fork(lambda: self._make(folder / "grown"))
        assert ended == 0

    def answer(self, name: str, how: str, moment: str, synchronous: str | None = None) -> dict[str, Any]:
        """Cut one arrow at one moment, and return how often that was done, and what was wrong then."""
        arrow, reference = CASES[name], self._reference(name)
        if how == "kill":
            return self._kill(arrow, moment, reference)
        return self._power(arrow, moment, reference, synchronous)

    def _kill(self, arrow: Arrow, moment: str, reference: Reference) -> dict[str, Any]:
        folder = self._copy(reference.folder)
        ended, _ = fork(lambda: kill_at(folder, arrow, moment))
        wrong = [] if ended == -signal.SIGKILL else [f"it ended with {ended}, not by the kill"]
        allowed = [reference.found[moment]]
        return {"cuts": 1, "wrong": wrong + self._look(folder, arrow, allowed)}

    def _power(self, arrow: Arrow, moment: str, reference: Reference, synchronous: str | None) -> dict[str, Any]:
        cuts, wrong = 0, []
        first = 1 + list(CASES.values()).index(arrow) % EVERY
        for after in range(first, MOST_OPERATIONS, EVERY) if moment == "before commit" else (first,):
            folder = self._copy(reference.folder)
            ended, said = fork(lambda: cut_power(folder, arrow, moment, after, after, synchronous))  # noqa: B023
            old, new = reference.found["before commit"], reference.found["after commit"]
            allowed = [reference.found[moment]] if moment != "before commit" else [new] if said else [old, new]
            wrong += [] if ended == 0 else [f"it ended with {ended}"]
            wrong += self._look(folder, arrow, allowed)
            cuts += 1
            if said and moment == "before commit":
                break
        return {"cuts": cuts, "wrong": wrong}

    def _look(self, folder: Path, arrow: Arrow, allowed: list[Facts]) -> list[str]:
        ended, wrong = fork(lambda: go_on(folder, arrow, allowed))
        shutil.rmtree(folder)
        return wrong if ended == 0 else [f"the next process ended with {ended}"]

    def _reference(self, name: str) -> Reference:
        if name not in self._references:
            arrow, folder = CASES[name], self._folder / name
            shutil.copytree(self._folder / "grown", folder)
            ended, _ = fork(lambda: self._begin(folder, arrow))
            assert ended == 0, name
            uncut = self._copy(folder)
            ended, found = fork(lambda: take_uncut(uncut, arrow))
            assert ended == 0, name
            short = subject(arrow)[:8]
            states = [found[moment]["rows"].get(short, ["none"])[0] for moment in MOMENTS[:2]]
            assert states == [arrow.origin, arrow.target], (name, states)
            self._references[name] = Reference(folder, found)
        return self._references[name]

    def _copy(self, folder: Path) -> Path:
        self._count += 1
        return Path(shutil.copytree(folder, self._folder / f"case-{self._count}"))

    @staticmethod
    def _make(folder: Path) -> None:
        with closing(World(folder)) as world:
            world.activate(A, 1)
            world.activate(B, 2)

    @staticmethod
    def _begin(folder: Path, arrow: Arrow) -> None:
        with closing(World(folder)) as world:
            begin(world, arrow)


def main(folder: Path) -> None:
    """Answer one question after another."""
    cutter = Cutter(folder)
    for line in sys.stdin:
        print(json.dumps(cutter.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
