"""Synthetic worlds for `proving_ground`, as closed formulas of a policy's parameters.

- `push_world`: single changes pay, most once pushes are chosen by the model.
- `pin_world`: fitted to 12 attempts each of 59 versions of the pin policy on emulated benches. Single changes do next
  to nothing; the encoder loop with the spiral makes half of it; progress of failures says nothing.
- `basin_world`: no ideas; a narrow optimum in six parameters, seen from afar by graded progress, or not at all.
- `tricky_world`: one idea helps only with another, two raise progress and lower success, others do nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

import policies
from coordinator.evolution.evidence import Result
from coordinator.research.scales import canonical, share_of
from policies.space import Idea, Parameter, PolicySpace, load_space
from tests.harness.proving_ground import Params, World

FOLDER = Path(policies.__file__).parent
SHARED_LUCK = 0.5  # how often two attempts from the same start with the same seed share their luck
Rate = Callable[[Params], float]


def push_world() -> World:
    """Return a world like Push-T, seed 5 %."""
    space = load_space(FOLDER / "push_t")

    def rate(params: Params) -> float:
        model, loop = bool(params["choose_by_model"]), bool(params["close_encoder_loop"])
        speed = np.log(float(params["push_speed_m_s"]) / 0.07) / np.log(2.0)
        pushes = np.log(float(params["most_pushes"]) / 8.0) / np.log(2.0)
        height = (float(params["stick_height_m"]) - 0.012) / 0.006
        odds = -1.5 + 2.6 * model - 0.7 * speed**2 - 0.3 * height**2 + (1.2 if model else 0.2) * min(pushes, 1.2)
        odds += (1.1 if model else 0.2) * loop + (0.6 if model else 0.1) * bool(params["ease_motion"])
        odds += 0.3 * bool(params["average_looks"]) + 0.4 * (loop and model and bool(params["fine_last_pushes"]))
        odds += 0.5 * (model and loop and bool(params["learn_reach"]))
        return _chance(odds)

    def seconds(params: Params) -> float:
        return 8.0 * float(params["most_pushes"]) ** 0.5 * (0.3 / float(params["travel_speed_m_s"])) ** 0.5

    def cause(params: Params) -> str:
        return "near" if params["choose_by_model"] else "rotated"

    return World(space, _attempts(rate, seconds, lambda params: 0.2 + 0.6 * rate(params), 0.2, cause), rate)


def pin_world() -> World:
    """Return a world like pin insertion as it was measured, seed 5 %."""
    space = _pin_space()

    def search_s(params: Params) -> float:
        radius, pitch = float(params["search_radius_m"]), float(params["search_pitch_m"])
        return np.pi * radius**2 / (pitch * float(params["search_speed_m_s"])) if params["spiral_search"] else 0.0

    def rate(params: Params) -> float:
        on = {name: bool(params[name]) for name in params if isinstance(params[name], bool)}
        spread_mm = 1.15 if on["close_encoder_loop"] else 1.7
        spread_mm *= 0.93 if on["average_looks"] else 1.0
        steady = on["settle_above"] and on["close_encoder_loop"]
        spread_mm *= (0.75 if steady else 1.2) if on["look_at_touch"] else (0.9 if steady else 1.0)
        reach_mm = 0.5
        if on["spiral_search"]:
            reach_mm = 0.6e3 * float(params["search_radius_m"]) * (1.0 if on["close_encoder_loop"] else 0.75)
            reach_mm *= 0.7 if on["hold_upright"] and not on["look_at_touch"] else 1.0
            reach_mm *= 1.1 if on["wait_at_dips"] else 1.0
            reach_mm *= np.exp(-0.5 * np.log(float(params["search_force_n"]) / 2.5) ** 2)
            reach_mm *= np.exp(-((float(params["search_pitch_m"]) / 1.1e-3) ** 4))
            reach_mm *= np.exp(-((float(params["search_speed_m_s"]) / 0.016) ** 4))
        once = 1.0 - np.exp(-(reach_mm**2) / (2.0 * spread_mm**2))
        tries = min(float(params["tries"]), max(1.0, 36.0 / (4.0 + search_s(params))))
        found = 1.0 - (1.0 - once) ** (1.0 + 0.6 * (tries - 1.0))
        in_time = float(search_s(params) <= 34.0)
        pressed = _chance(6.0 * np.log(float(params["press_force_n"]) / 4.0))
        pressed *= _chance(8.0 * np.log(38.0 / float(params["press_force_n"])))
        return float(found * in_time * pressed)

    def seconds(params: Params) -> float:
        return 7.0 + search_s(params) / 2.0

    return World(space, _attempts(rate, seconds, lambda params: 0.01, 0.03, lambda params: "missed"), rate)


def basin_world(graded: bool = True) -> World:
    """Return six parameters with one narrow optimum; far from it all attempts fail."""
    names = ("depth", "radius", "turn", "pitch", "speed", "wiggle")
    best, wide = (0.8, 0.22, 0.75, 0.3, 0.6, 0.7), (0.33, 0.33, 0.4, 0.8, 0.9, 1.0)
    parameters = tuple(Parameter(name, 5.0, 1.0, 25.0, "log", f"the {name}", ("missed",)) for name in names)
    space = PolicySpace("basin", "basin", 1, "policy.py", parameters, ())

    def away(params: Params) -> float:
        off = [
            (share_of(item, float(params[item.name])) - there) / width
            for item, there, width in zip(parameters, best, wide, strict=True)
        ]
        return float(np.sqrt(np.sum(np.square(off))))

    def rate(params: Params) -> float:
        return float(0.99 * np.exp(-0.9 * away(params) ** 4))

    def progress(params: Params) -> float:
        return max(0.0, 0.9 - 0.3 * away(params)) if graded else 0.02

    return World(space, _attempts(rate, lambda params: 12.0, progress, 0.1, lambda params: "missed"), rate)


def tricky_world() -> World:
    """Return ideas that work together, that deceive and that do nothing, seed 10 %."""
    names = ("first", "second", "third", "lure", "bait", "idle", "vain", "harm")
    ideas = tuple(Idea(name, False, f"{name} makes it better.", ("missed",)) for name in names)
    parameters = tuple(
        Parameter(name, 5.0, 1.0, 25.0, "log", f"the {name}", ("missed",)) for name in ("force", "speed", "reach")
    )
    space = PolicySpace("tricky", "tricky", 1, "policy.py", parameters, ideas)

    def rate(params: Params) -> float:
        first, second = bool(params["first"]), bool(params["second"])
        off = share_of(parameters[0], float(params["force"])) - 0.8
        odds = -2.0 + 3.2 * (first and second) - 0.4 * (first != second) + 0.9 * (second and bool(params["third"]))
        odds += (2.0 if first and second else 0.5) * (0.09 - off**2) / 0.09
        odds -= 0.8 * bool(params["lure"]) + 0.6 * bool(params["bait"]) + 1.5 * bool(params["harm"])
        return _chance(odds)

    def progress(params: Params) -> float:
        return 0.2 + 0.3 * bool(params["lure"]) + 0.2 * bool(params["bait"])

    return World(space, _attempts(rate, lambda params: 20.0, progress, 0.15, lambda params: "missed"), rate)


def _attempts(
    rate: Rate,
    seconds: Rate,
    progress: Rate,
    noise: float,
    cause: Callable[[Params], str],
) -> Callable[[Params, np.random.Generator], Result]:
    """Return attempts that succeed at the rate, and else make progress, noise added."""

    def attempt(params: Params, rng: np.random.Generator) -> Result:
        luck, shared, graded, lasted = rng.random(), rng.random(), rng.standard_normal(), rng.standard_normal()
        if shared > SHARED_LUCK:
            luck = np.random.default_rng([int(luck * 2**31), zlib.crc32(canonical(params).encode())]).random()
        time_s = seconds(params) * float(np.exp(0.1 * lasted))
        if luck < rate(params):
            return Result(True, 1.0, time_s)
        return Result(False, float(np.clip(progress(params) + noise * graded, 0.0, 0.95)), time_s, cause(params))

    return attempt


def _chance(odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-odds)))


def _pin_space() -> PolicySpace:
    """Return the space that the measurements were made in, whatever the pin policy declares by now."""
    ideas = (
        "close_encoder_loop", "hold_upright", "spiral_search", "settle_above", "average_looks", "look_at_touch",
        "wait_at_dips",
    )  # fmt: skip
    numbers: tuple[tuple[str, float, float, float, str], ...] = (
        ("descend_speed_m_s", 0.06, 0.005, 0.1, "log"), ("contact_force_n", 20.0, 2.0, 40.0, "log"),
        ("press_force_n", 20.0, 2.0, 40.0, "log"), ("search_force_n", 3.0, 1.0, 20.0, "log"),
        ("approach_height_m", 0.03, 0.004, 0.04, "linear"), ("travel_speed_m_s", 0.2, 0.03, 0.3, "log"),
        ("search_radius_m", 0.0025, 0.0005, 0.005, "log"), ("search_pitch_m", 0.0006, 0.0002, 0.002, "log"),
        ("search_speed_m_s", 0.006, 0.002, 0.03, "log"), ("tries", 1.0, 1.0, 5.0, "integer"),
    )  # fmt: skip
    return PolicySpace(
        "pin",
        "pin",
        1,
        "policy.py",
        tuple(Parameter(*row, f"the {row[0]}", ("missed",)) for row in numbers),
        tuple(Idea(name, False, f"{name} makes it better.", ("missed",)) for name in ideas),
    )
