"""Pin insertion: the arm pulls the pin out and returns to a hover near the hole; three terms say how an attempt ended.

- The camera says how much of the pin stands out of the socket, and whether it stands at the hole at all.
- The encoders say how low the tip is.
- The force says how hard the arm pressed when the attempt ended, and whether a nudge sideways meets the hole's walls.

A success needs all three. A failure needs camera and encoders to agree that the pin is not in; what does not agree, or
lies too close to the threshold, is invalid: the judge abstains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.records import Outcome
from edge.tasks.pin_insertion.geometry import PIN_LENGTH_M, SEATED_M, SOCKET_TOP_M
from edge.tasks.task import Readiness, Start, Verdict
from policies.interface import Array, Robot
from policies.skills.insertion import Hand
from policies.skills.wrench import force_n

ENCODER_GAIN, UPRIGHT_GAIN = 0.2, 0.05
CLEAR_M = 0.020  # of the tip above the socket before anything moves sideways
PULL_M_S, TRAVEL_M_S = 0.05, 0.25
VERDICT_LOOKS = 5
READY_M = 0.003
READY_FORCE_N = 5.0
LIFT_M = 0.003
WHOLE_PIN_M = 0.026  # so much of it shows when it is out
NUDGE_M, NUDGE_STEPS = 0.014, 20  # from one side to the other: far beyond what joints' friction swallows
LEAST_WAY_M = 0.0002  # of a nudge: less is noise
HELD_N_M = 500.0  # walls measure 1100 and more; a pin that stands beside the hole slides, and meets nothing
FORCE_LIMIT_N = 35.0  # with more the pin or the socket would have been damaged
ABSTAIN_BAND_M = 0.001  # around the depth that counts; bench/pin_truth.py measures what it buys and costs
AGREE_M = 0.004  # camera and encoders may differ by so much
ALIGNED_M = 0.004  # the pin's foot from the middle of the marking, which is not quite the hole's
IN_AIR_M = 0.005  # so far above the face by the encoders, which may be 3 mm off, the attempt ended in the air
ENTERED_M = 0.0025  # so much of the pin hidden, it is in the hole's mouth


@dataclass(frozen=True)
class Terms:
    """What the judge found out."""

    seen_depth_m: float | None  # by the camera; None where it does not show pin and socket
    seen_off_m: float  # of the pin's foot from the marking's middle
    felt_depth_m: float  # by the encoders
    pressed_n: float  # when the attempt ended
    stiffness_n_m: float  # sideways, the less of two directions: force by way of a nudge

    @property
    def held(self) -> bool:
        """Whether walls held the pin sideways."""
        return self.stiffness_n_m >= HELD_N_M


class PinInsertion:
    """The task as the trial runner sees it."""

    name = "pin_insertion"
    time_limit_s = 40.0

    def ready(self, robot: Robot, start: Start) -> Readiness:
        """Look and feel, and say whether the whole pin is out and hovers at the start."""
        hand = Hand(robot, ENCODER_GAIN, UPRIGHT_GAIN)
        socket_m, out_m = _look(robot, 1)[:2]
        if socket_m is None or out_m is None:
            return Readiness(False, {}, "the camera does not see the socket and the pin")
        tip_m = hand.seen.tool_position_m
        measured = {
            "x_off_m": float(tip_m[0] - socket_m[0]),
            "y_off_m": float(tip_m[1] - socket_m[1]),
            "height_m": float(tip_m[2] - SOCKET_TOP_M),
        }
        away_m = float(np.linalg.norm([measured[name] - start[name] for name in measured]))
        if not away_m <= READY_M:
            return Readiness(False, measured, f"the pin is {away_m * 1e3:.1f} mm from where it shall hover")
        if not out_m >= WHOLE_PIN_M:
            return Readiness(False, measured, f"only {out_m * 1e3:.0f} mm of the pin show")
        force = _force_of_a_lift(hand)
        ready = force <= READY_FORCE_N
        return Readiness(ready, measured, f"{away_m * 1e3:.1f} mm from the start, {force:.1f} N felt")

    def reset(self, robot: Robot, start: Start) -> None:
        """Pull the pin out, straight up, and hover at the start."""
        hand = Hand(robot, ENCODER_GAIN, UPRIGHT_GAIN)
        hand.let_go()
        _pull_out(hand)
        socket_m = _look(robot, 1)[0]
        if socket_m is None:
            return
        high_m = SOCKET_TOP_M + max(CLEAR_M, start["height_m"])
        goal_m = np.array([socket_m[0] + start["x_off_m"], socket_m[1] + start["y_off_m"], high_m])
        hand.line(goal_m, TRAVEL_M_S)
        goal_m[2] = SOCKET_TOP_M + start["height_m"]
        hand.line(goal_m, TRAVEL_M_S)
        hand.settle(0.001, 1.5)

    def verify(self, robot: Robot, start: Start) -> Verdict:
        """Look, let go, and nudge the pin sideways; judge by what was seen and felt."""
        return judge(_terms(robot))


def judge(terms: Terms) -> Verdict:
    """Return the verdict on what was found out."""
    seen_m, felt_m = terms.seen_depth_m, terms.felt_depth_m
    measures = {
        "felt_depth_mm": felt_m * 1e3,
        "pressed_n": terms.pressed_n,
        "stiffness_n_mm": terms.stiffness_n_m * 1e-3,
    }
    progress = _progress(terms)
    if seen_m is None:
        return Verdict(Outcome.INVALID, progress, "unseen", "the camera does not show pin and socket", measures)
    measures |= {"seen_depth_mm": seen_m * 1e3, "off_mm": terms.seen_off_m * 1e3}
    detail = (
        f"{seen_m * 1e3:.1f} mm in by the picture, {felt_m * 1e3:.1f} mm by the encoders, "
        f"{'held' if terms.held else 'free'} sideways, pressed with {terms.pressed_n:.0f} N"
    )
    if min(abs(seen_m - SEATED_M), abs(felt_m - SEATED_M)) <= ABSTAIN_BAND_M:
        return Verdict(Outcome.INVALID, progress, "undecided", f"{detail}: too close to the threshold", measures)
    if felt_m > SEATED_M and seen_m > SEATED_M and terms.seen_off_m <= ALIGNED_M and terms.held:
        if not terms.pressed_n <= FORCE_LIMIT_N:
            return Verdict(Outcome.FAILURE, progress, "forced", detail, measures)
        return Verdict(Outcome.SUCCESS, 1.0, "", detail, measures)
    cause = _failure_class(terms, seen_m)
    if not cause:
        return Verdict(Outcome.INVALID, progress, "disagreement", f"{detail}: these do not agree", measures)
    return Verdict(Outcome.FAILURE, progress, cause, detail, measures)


def _progress(terms: Terms) -> float:
    """Return how deep the pin is by picture and encoders both; how near a miss came says nothing that lasts."""
    if terms.seen_depth_m is None:
        return 0.0
    return float(np.clip(min(terms.seen_depth_m, terms.felt_depth_m) / SEATED_M, 0.0, 0.99))


def _failure_class(terms: Terms, seen_m: float) -> str:
    """Return what an attempt lacked, empty where the terms tell different stories."""
    felt_m = terms.felt_depth_m
    if felt_m > SEATED_M and seen_m < ENTERED_M and not terms.held:
        return "beside"  # the whole pin shows, and is lower than the socket's face
    if felt_m > SEATED_M or seen_m > SEATED_M:
        return ""
    if felt_m < -IN_AIR_M:
        return "" if terms.held else "short"
    if abs(seen_m - felt_m) > AGREE_M:
        return ""
    return "shallow" if seen_m > ENTERED_M else "missed"


def _terms(robot: Robot) -> Terms:
    hand = Hand(robot)
    socket_m, out_m, foot_m = _look(robot, VERDICT_LOOKS)
    felt_m = SOCKET_TOP_M - float(hand.seen.tool_position_m[2])
    pressing_nm = hand.seen.joint_torque_nm
    hand.let_go()  # after the look: an arm that is let go may rise by millimetres
    pressed_n = float(np.linalg.norm(force_n(hand.seen, pressing_nm)))
    stiffness_n_m = _nudge(hand)
    if socket_m is None or out_m is None or foot_m is None:
        return Terms(None, 0.0, felt_m, pressed_n, stiffness_n_m)
    off_m = float(np.linalg.norm(foot_m - socket_m))
    return Terms(PIN_LENGTH_M - out_m, off_m, felt_m, pressed_n, stiffness_n_m)


def _nudge(hand: Hand) -> float:
    """Send the tip a little to either side, in two directions; return the lesser stiffness that it met, in N/m."""
    here_m = hand.sent_m.copy()
    stiffness = []
    for direction in (np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])):
        ends = []
        for side in (1.0, -1.0):
            for _ in range(NUDGE_STEPS):
                hand.send(here_m + side * NUDGE_M / 2 * direction, pressing=True)
            ends.append(hand.seen)
        way_m = float(direction @ (ends[0].tool_position_m - ends[1].tool_position_m))
        pressed_n = float(direction @ force_n(ends[0], ends[1].joint_torque_nm))
        stiffness.append(pressed_n / max(way_m, LEAST_WAY_M))
        for _ in range(NUDGE_STEPS):
            hand.send(here_m, pressing=True)
    return min(stiffness)


def _force_of_a_lift(hand: Hand) -> float:
    """Return by how much the force on the tip changes when it is lifted a little and put back."""
    here_m = hand.seen.tool_position_m.copy()
    hand.feel_nothing()
    hand.line(here_m + np.array([0.0, 0.0, LIFT_M]), 0.02)
    hand.line(here_m, 0.02)
    return float(np.linalg.norm(hand.force_n))


def _pull_out(hand: Hand) -> None:
    """Lift the tip straight up until it is clear of the socket."""
    up_m = np.array([*hand.seen.tool_position_m[:2], SOCKET_TOP_M + CLEAR_M])
    if hand.seen.tool_position_m[2] < up_m[2]:
        hand.line(up_m, PULL_M_S)
        hand.settle(0.003, 1.0)


def _look(robot: Robot, looks: int) -> tuple[Array | None, float | None, Array | None]:
    """Return the socket's middle (2,), how much of the pin shows, its foot (2,): means, None where most show none."""
    sockets, outs, feet = [], [], []
    for _ in range(looks):
        scene = robot.scene()
        socket, pin, handle = (scene.find(name) for name in ("socket", "pin", "handle"))
        if socket is not None:
            sockets.append((socket.x_m, socket.y_m))
        if pin is not None and handle is not None:
            outs.append(handle.z_m - pin.z_m)
            feet.append((pin.x_m, pin.y_m))
    found = [np.mean(item, axis=0) if 2 * len(item) > looks else None for item in (sockets, outs, feet)]
    return found[0], None if found[1] is None else float(found[1]), found[2]
