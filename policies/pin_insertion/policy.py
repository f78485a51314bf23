"""Puts the pin into the hole that the camera sees: above it, down until something is felt, and press.

As it ships it is naive: it trusts the picture and its own aim, and goes down once. `policy.toml` says what may be
varied.
"""

from __future__ import annotations

import numpy as np

from policies.interface import Array, Params, Robot
from policies.skills.insertion import Hand, Search, descend, press, search

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


def run(robot: Robot, params: Params) -> None:
    """Try until the pin is in or the tries are used up."""
    hand = Hand(
        robot,
        ENCODER_GAIN if params["close_encoder_loop"] else 0.0,
        UPRIGHT_GAIN if params["hold_upright"] else 0.0,
    )
    aim_m = _look(hand, LOOKS if params["average_looks"] else 1)
    if aim_m is None:
        return
    for attempt in range(int(params["tries"])):
        if attempt > 0:
            hand.let_go()
            hand.line(np.array([*hand.sent_m[:2], SOCKET_TOP_M + AGAIN_M]), LIFT_M_S)
        if _insert(hand, aim_m, params):
            return


def _insert(hand: Hand, aim_m: Array, params: Params) -> bool:
    """Come from above and press; return whether the pin went in as far as the encoders say."""
    hand.line(np.array([*aim_m, SOCKET_TOP_M + float(params["approach_height_m"])]), float(params["travel_speed_m_s"]))
    if params["settle_above"]:
        hand.settle(SETTLED_M, PATIENCE_S)
    hand.feel_nothing()
    touched = _touch(hand, params)
    if touched and params["look_at_touch"]:
        missed_m = _missed(hand)
        if missed_m is not None:
            hand.let_go()
            hand.line(hand.sent_m + np.array([0.0, 0.0, OFF_M]), LIFT_M_S)
            hand.line(hand.sent_m - np.array([*missed_m, 0.0]), LIFT_M_S)
            hand.settle(SETTLED_M, PATIENCE_S)
            touched = _touch(hand, params)
    if touched and params["spiral_search"] and not search(hand, _search(params)):
        return False
    return press(hand, SOCKET_TOP_M - SEATED_M, float(params["press_force_n"]), PRESS_S)


def _touch(hand: Hand, params: Params) -> bool:
    """Come down; return whether the pin stands on the socket, and is not in the hole already."""
    lowest_m = SOCKET_TOP_M - LOWEST_M
    felt = descend(hand, lowest_m, float(params["descend_speed_m_s"]), float(params["contact_force_n"]))
    return felt and bool(hand.seen.tool_position_m[2] > lowest_m)


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


def _search(params: Params) -> Search:
    return Search(
        radius_m=float(params["search_radius_m"]),
        pitch_m=float(params["search_pitch_m"]),
        speed_m_s=float(params["search_speed_m_s"]),
        press_n=float(params["search_force_n"]),
        dip_m=DIP_M if params["wait_at_dips"] else None,
    )


def _look(hand: Hand, wanted: int) -> Array | None:
    """Return where the middle of the socket's face is, None where it cannot be seen."""
    places: list[tuple[float, float]] = []
    for _ in range(wanted + LOOKS_BEFORE_GIVING_UP):
        socket = hand.robot.scene().find("socket")
        if socket is not None:
            places.append((socket.x_m, socket.y_m))
        if len(places) == wanted:
            break
        hand.send(hand.sent_m)
    return np.mean(places, axis=0) if places else None
