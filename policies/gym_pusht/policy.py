"""Pushes the T of gym-pusht to its goal, one straight push at a time: look, choose, go round, push, look again.

As it ships it is naive: it pushes through the T's middle towards the goal's. Where there is a file of learned pushes it
makes the one that would bring the T nearest. Where there is a file of moves it makes these instead, and notes what each
did to the T. `policy.toml` says what may be varied.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from policies.interface import Array, Params, Robot, ToolTarget

from .detour import clear, way
from .pushes import Library, Line, library_of, line_of, ranked, read_rows
from .tee import (
    GOAL,
    HIGH_M,
    LOW_M,
    MIDDLE_M,
    OUTLINE_M,
    TOOL_RADIUS_M,
    corners_apart_m,
    distance_m,
    is_free_of_walls,
    motion_between,
    moved,
    to_tee,
    to_world,
    turned,
)

HERE = Path(__file__).parent
LEARNED, ASKED = HERE / "pushes.json", HERE / "play.json"
PLAY_WAY_M = 0.100
ARRIVED_M, STILL_M = 0.0015, 0.0008
PATIENCE = 8  # steps to come to rest
LOOK_AHEADS_M = (0.110, 0.080, 0.055, 0.035, 0.020)  # along a way, the first whose straight line is clear
DENSE_M = 0.005  # between two points of a way
RAYS = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], axis=1)

TOUCHED_M = 0.001
SURPRISE_M, SURPRISE_SHARE = 0.006, 0.3
OUTCOME_M = 0.003  # of the tool's way between two moments of an outcome


def run(robot: Robot, params: Params) -> None:
    """Play where that is asked, else push until the attempt ends."""
    hand = Hand(robot, params)
    if ASKED.exists():
        _play(hand, json.loads(ASKED.read_text()))
        return
    library = library_of(read_rows(LEARNED), bool(params["mirror_pushes"]))
    for _ in range(int(params["most_pushes"])):
        if library is None:
            made = _through_the_middle(hand)
        else:
            made = _nearest(hand, library, int(params["look_ahead_over"]) if params["look_ahead"] else 0)
        if not made:
            return


class Hand:
    """The tool and what it knows of the T."""

    def __init__(self, robot: Robot, params: Params) -> None:
        self._robot = robot
        self._push_step_m = float(params["push_step_m"])
        self.place = robot.observe().tool_position_m[:2]
        self.pose = self._look()
        self.distrusted: set[int] = set()  # lines of the library that did something else than before

    def make(self, line: Line, way_m: float, log: list[tuple[float, Array]] | None = None) -> bool:
        """Go to where a push begins and push so far; return whether there was a way. `log` gets (way, T's pose)."""
        if not self._go(to_world(self.pose, line.start_m)):
            return False
        seen = self._look()
        if corners_apart_m(self.pose, seen) > TOUCHED_M:  # on the way there: the push would not be the one meant
            self.pose = seen
            return True
        direction = turned(line.direction, float(self.pose[2]))
        begun = self.place
        for asked_m in [*np.arange(self._push_step_m, way_m, self._push_step_m), *[way_m] * PATIENCE]:
            before = self.place
            self._step(to_inside(begun + direction * asked_m))
            done_m = float(direction @ (self.place - begun))
            if log is not None:
                self.pose = self._look()
                log.append((done_m, self.pose))
            if way_m - done_m < ARRIVED_M and np.hypot(*(self.place - before)) < STILL_M:
                break
        self.pose = self._look()
        return True

    def can_reach(self, line: Line) -> bool:
        """Return whether there is a way to where a push begins."""
        start = to_world(self.pose, line.start_m)
        return bool(((start >= LOW_M) & (start <= HIGH_M)).all()) and self._way(line.start_m) is not None

    def note(self, move: dict[str, float], outcome: list[float]) -> None:
        """Leave what a move did."""
        self._robot.note(json.dumps({"move": move, "outcome": outcome}, separators=(",", ":")))

    def _way(self, goal: Array) -> list[Array] | None:
        """Return the way in the T's frame, from where the tool may be touching the T."""
        here = to_tee(self.pose, self.place)
        off = self._off(here)
        rest = way(self.pose, off, goal)
        return None if rest is None else [off, *rest]

    def _off(self, here: Array) -> Array:
        """Return a place nearby that keeps clear of the T."""
        for away_m in (0.0, 0.006, 0.012, 0.020, 0.030, 0.045):
            around = here + away_m * RAYS
            gaps = distance_m(around) - TOOL_RADIUS_M
            at = to_world(self.pose, around)
            gaps = np.where(((at >= LOW_M) & (at <= HIGH_M)).all(axis=1), gaps, -1.0)
            best = int(gaps.argmax())
            if gaps[best] >= 0.006:
                return np.asarray(around[best])
        return here

    def _go(self, goal: Array) -> bool:
        points = self._way(to_tee(self.pose, goal))
        if points is None:
            return False
        corners = [self.place, *(to_world(self.pose, point) for point in points)]
        self._follow(np.array(corners))
        for _ in range(PATIENCE):
            before = self.place
            if np.hypot(*(goal - before)) < ARRIVED_M:
                break
            self._step(goal)
        return True

    def _follow(self, corners: Array) -> None:
        """Run along a line of points (n, 2), each target so far ahead as the straight way there is clear."""
        dense = _dense(corners)
        at = 0
        for _ in range(60):
            near = np.hypot(*(dense[at : at + 60] - self.place).T)
            at += int(near.argmin())
            if at >= len(dense) - 4:
                return
            self._step(dense[self._furthest(dense, at)])

    def _furthest(self, dense: Array, at: int) -> int:
        here = to_tee(self.pose, self.place)
        for ahead_m in LOOK_AHEADS_M:
            to = min(len(dense) - 1, at + int(ahead_m / DENSE_M))
            if clear(here, to_tee(self.pose, dense[to])):
                return to
        return min(len(dense) - 1, at + int(LOOK_AHEADS_M[-1] / DENSE_M))

    def _step(self, place: Array) -> None:
        seen = self._robot.step(ToolTarget(np.array([place[0], place[1], 0.0])))
        self.place = seen.tool_position_m[:2]

    def _look(self) -> Array:
        tee = self._robot.scene().find("tee")
        if tee is None:
            return self.pose
        return np.array([tee.x_m, tee.y_m, tee.yaw_rad])


def _dense(corners: Array) -> Array:
    """Return points every DENSE_M along a line of corners, its last one included."""
    parts = [corners[:1]]
    for a, b in pairwise(corners):
        count = max(1, int(np.hypot(*(b - a)) / DENSE_M))
        parts.append(a + (np.arange(1, count + 1) / count)[:, None] * (b - a))
    return np.concatenate(parts)


def to_inside(place: Array) -> Array:
    """Return the nearest place within the walls."""
    return np.clip(place, LOW_M, HIGH_M)


def _through_the_middle(hand: Hand) -> bool:
    """Push along the line from the T's middle to the goal's; return whether there was one."""
    here, goal = to_world(hand.pose, MIDDLE_M), to_world(GOAL, MIDDLE_M)
    away_m = float(np.hypot(*(goal - here)))
    if away_m < 0.002:
        return False
    direction = turned((goal - here) / away_m, -float(hand.pose[2]))
    back = np.arange(0.02, 0.2, 0.002)
    behind = MIDDLE_M - direction * back[:, None]
    room = distance_m(behind) >= TOOL_RADIUS_M + 0.008
    start = next((place for place, free in zip(behind, room, strict=True) if free), None)
    return start is not None and hand.make(Line(start, direction), away_m + 0.008)


def _nearest(hand: Hand, library: Library, ahead: int) -> bool:
    """Make the learned push that ends nearest to the goal and can be begun; return whether there was one."""
    known = dict.fromkeys(hand.distrusted, False)
    for index in ranked(library, hand.pose, ahead):
        owner = int(library.owner[index])
        line = library.lines[owner]
        if owner not in known:
            known[owner] = hand.can_reach(line)
        end = to_world(hand.pose, line.start_m + line.direction * library.ways_m[index])
        inside = bool(((end >= LOW_M) & (end <= HIGH_M)).all())
        before = hand.pose
        if known[owner] and inside and hand.make(line, float(library.ways_m[index])):
            meant = moved(before, library.motions[index])
            if corners_apart_m(meant, hand.pose) > SURPRISE_M + SURPRISE_SHARE * corners_apart_m(before, meant):
                hand.distrusted.add(owner)  # for this attempt
            return True
    return False


def _play(hand: Hand, moves: list[dict[str, float]]) -> None:
    """Make the moves that can be made from here, those first that lead the T to the table's middle."""
    left = list(moves)
    while left:
        lines = [(move, line_of(move["place"], move["angle_rad"])) for move in left]
        for move, line in lines:
            if line is None:  # nobody needs to ask for it again
                hand.note(move, [])
        left = [move for move, line in lines if line is not None]
        middle = to_world(hand.pose, OUTLINE_M.mean(axis=0))
        home = np.array([0.256, 0.256]) - middle
        found = [(float(turned(line.direction, float(hand.pose[2])) @ home), move, line)
                 for move, line in lines if line is not None and hand.can_reach(line)]  # fmt: skip
        if not found:
            return
        _, move, line = max(found, key=lambda item: item[0])
        left.remove(move)
        before = hand.pose
        log: list[tuple[float, Array]] = []
        if hand.make(line, PLAY_WAY_M, log) and (outcome := _outcome(before, log)):
            hand.note(move, outcome)


def _outcome(before: Array, log: list[tuple[float, Array]]) -> list[float]:
    """Return an outcome, up to where a wall may have taken part."""
    found: list[float] = []
    last_m = 0.0
    for done_m, pose in log:
        if not is_free_of_walls(pose):
            break
        if done_m >= last_m + OUTCOME_M:
            found += [round(float(value), 5) for value in (done_m, *motion_between(before, pose))]
            last_m = done_m
    return found
