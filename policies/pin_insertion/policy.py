"""Puts the pin into the hole that the camera sees, by the skills that program.toml lists, one after the other.

As it ships it is naive: it trusts the picture and its own aim, goes down once until something is felt, and presses.
`policy.toml` says which skills there are and what may be varied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from policies.interface import Array, Params, Robot
from policies.skills.insertion import Hand, Search, descend, press, search
from policies.skills.program import PROGRAM, Steps, read_steps

SOCKET_TOP_M = 0.030
SEATED_M = 0.018  # below the socket's face; 20 mm is the hole's floor, 14 mm counts
ENCODER_GAIN, UPRIGHT_GAIN = 0.2, 0.05
LOWEST_M = 0.004  # below the face: what was not felt there is not felt any more
SETTLED_M, PATIENCE_S = 0.0004, 0.8
PRESS_S = 6.0
LOOKS, LOOKS_BEFORE_GIVING_UP = 5, 4
DIP_M = 0.0002
FARTHEST_MISS_M = 0.006
OFF_M = 0.0015  # higher up the hand's grip on the pin may settle anew, and what was seen is worth nothing
LIFT_M_S, AGAIN_M = 0.1, 0.006
ONCE, AGAIN = "look", "again"


@dataclass
class Work:
    """What one attempt knows as it goes from skill to skill."""

    hand: Hand
    params: Params
    aim_m: Array = field(default_factory=lambda: np.full(2, np.nan))  # the middle of the socket's face
    touched: bool = False  # the pin stands on the socket, and is not in the hole already

    def number(self, name: str) -> float:
        """Return a parameter that is a number."""
        return float(self.params[name])


def run(robot: Robot, params: Params) -> None:
    """Follow the program that lies beside this file."""
    follow(robot, params, read_steps((Path(__file__).parent / PROGRAM).read_bytes()))


def follow(robot: Robot, params: Params, steps: Steps) -> None:
    """Go through the steps until the pin is in; where `again` is among them, from above once more."""
    hand = Hand(
        robot,
        ENCODER_GAIN if params["close_encoder_loop"] else 0.0,
        UPRIGHT_GAIN if params["hold_upright"] else 0.0,
    )
    work = Work(hand, params)
    if not all(SKILLS[step](work) for step in steps if step == ONCE):
        return
    rest = [SKILLS[step] for step in steps if step not in (ONCE, AGAIN)]
    for number in range(int(params["tries"]) if AGAIN in steps else 1):
        if number > 0:
            _lift(work)
        if all(skill(work) for skill in rest):  # up to the first that says that this will not do
            return


def _look(work: Work) -> bool:
    """See where the middle of the socket's face is; return whether it can be seen."""
    wanted = LOOKS if work.params["average_looks"] else 1
    places: list[tuple[float, float]] = []
    for _ in range(wanted + LOOKS_BEFORE_GIVING_UP):
        socket = work.hand.robot.scene().find("socket")
        if socket is not None:
            places.append((socket.x_m, socket.y_m))
        if len(places) == wanted:
            break
        work.hand.send(work.hand.sent_m)
    if places:
        work.aim_m = np.mean(places, axis=0)
    return bool(places)


def _above(work: Work) -> bool:
    height_m = SOCKET_TOP_M + work.number("approach_height_m")
    work.hand.line(np.array([*work.aim_m, height_m]), work.number("travel_speed_m_s"))
    return True


def _settle(work: Work) -> bool:
    work.hand.settle(SETTLED_M, PATIENCE_S)
    return True


def _descend(work: Work) -> bool:
    work.hand.feel_nothing()
    _touch(work)
    return True


def _look_at_touch(work: Work) -> bool:
    """Lift the pin a little, move it by what the picture shows it to be off, and come down again."""
    missed_m = _missed(work.hand) if work.touched else None
    if missed_m is not None:
        hand = work.hand
        hand.let_go()
        hand.line(hand.sent_m + np.array([0.0, 0.0, OFF_M]), LIFT_M_S)
        hand.line(hand.sent_m - np.array([*missed_m, 0.0]), LIFT_M_S)
        hand.settle(SETTLED_M, PATIENCE_S)
        _touch(work)
    return True


def _ease_off(work: Work) -> bool:
    if work.touched:
        work.hand.let_go()
    return True


def _spiral(work: Work) -> bool:
    """Search where the pin touched; return whether it may be in the hole."""
    if not work.touched:
        return True
    work.touched = not search(
        work.hand,
        Search(
            radius_m=work.number("search_radius_m"),
            pitch_m=work.number("search_pitch_m"),
            speed_m_s=work.number("search_speed_m_s"),
            press_n=work.number("search_force_n"),
            dip_m=DIP_M if work.params["wait_at_dips"] else None,
        ),
    )
    return not work.touched


def _press(work: Work) -> bool:
    """Press; return whether the pin went in as far as the encoders say."""
    return press(work.hand, SOCKET_TOP_M - SEATED_M, work.number("press_force_n"), PRESS_S)


SKILLS: dict[str, Callable[[Work], bool]] = {
    "look": _look,
    "above": _above,
    "settle": _settle,
    "descend": _descend,
    "look_at_touch": _look_at_touch,
    "ease_off": _ease_off,
    "spiral": _spiral,
    "press": _press,
}


def _lift(work: Work) -> None:
    """Take the pin off the socket where it is."""
    work.hand.let_go()
    work.hand.line(np.array([*work.hand.sent_m[:2], SOCKET_TOP_M + AGAIN_M]), LIFT_M_S)


def _touch(work: Work) -> None:
    """Come down and note whether the pin stands on the socket."""
    lowest_m = SOCKET_TOP_M - LOWEST_M
    felt = descend(work.hand, lowest_m, work.number("descend_speed_m_s"), work.number("contact_force_n"))
    work.touched = felt and bool(work.hand.seen.tool_position_m[2] > lowest_m)


def _missed(hand: Hand) -> Array | None:
    """Return by how much the pin's foot, where it stands, is off the middle of the socket's face in the picture."""
    misses = []
    for _ in range(LOOKS):
        scene = hand.robot.scene()
        socket, pin = scene.find("socket"), scene.find("pin")
        if socket is not None and pin is not None:
            misses.append((pin.x_m - socket.x_m, pin.y_m - socket.y_m))
    if not misses:
        return None
    missed_m = np.median(misses, axis=0)
    return missed_m if float(np.linalg.norm(missed_m)) <= FARTHEST_MISS_M else None
