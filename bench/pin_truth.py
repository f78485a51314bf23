"""How often the three-term verdict on a pin agrees with how deep it really is, in the hard band around the threshold.

200 pins that stand still in the hole, their true depth spread over 10 to 18 mm (14 counts), and as many that stand on
the socket beside it, on several benches with their own camera noise, encoder errors and grips. Nothing else reads the
emulator's truth.
Usage: python bench/pin_truth.py [STATES] [SEED] [BENCHES]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from edge.emulation.bench import EmulatedBench
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.planning.kinematics import chain_of
from edge.records import Outcome
from edge.station import load_station
from edge.tasks.pin_insertion.geometry import BESIDE_M, SEATED_M, SOCKET_TOP_M
from edge.tasks.pin_insertion.task import PinInsertion
from edge.tasks.task import Verdict
from edge.trials.robot import Bench, StationRobot
from policies.skills.insertion import Hand, descend

HARD_BAND_M = (SEATED_M - 0.004, SEATED_M + 0.004)
HOVER_M, SLOW_M_S = 0.006, 0.03
TOUCH_N, STEP_M = 4.0, 0.0005
LEAD_M = 0.012  # how far below the wanted depth a pin is sent that does not get there
TRIES = 8
START = {"x_off_m": 0.005, "y_off_m": 0.0, "height_m": 0.012}


def main(states: int, seed: int, benches: int) -> None:
    """Judge the states and print the figures."""
    rng = np.random.default_rng(seed)
    hard: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    seen_mm: list[float] = []
    felt_mm: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(make_stations(Path(folder), benches, seed, "pin_insertion", "tcp/127.0.0.1:1")):
            with_pin = _PinBench(Path(folder) / name)
            for _ in range(states // benches + (number < states % benches)):
                depth_m, seated, verdict = with_pin.in_the_hole(rng)
                hard[_kind(seated, verdict.outcome)] += 1
                felt_mm.append(verdict.measures["felt_depth_mm"] - depth_m * 1e3)
                seen_mm.append(verdict.measures.get("seen_depth_mm", np.nan) - depth_m * 1e3)
                beside[with_pin.beside(rng).outcome] += 1
            with_pin.world.close()
            print(f"{name}: {dict(hard)} {dict(beside)}", file=sys.stderr)
    said, were = (hard["true_success"] + hard[kind] for kind in ("false_success", "false_failure"))
    abstained = hard["abstained"]
    rows = [
        _row("precision of the verdict in the hard band", hard["true_success"], said, 0.98),
        _row("recall of the verdict in the hard band", hard["true_success"], were, 0.98),
        {
            "what": "abstained in the hard band, always as invalid",
            "figure": f"{abstained}/{states} = {100 * abstained / states:.1f} %",
            "bound": "",
            "holds": None,
        },
        _row("of pins that stand beside the hole, judged a failure", beside[Outcome.FAILURE], states, 0.95),
        {
            "what": "of pins that stand beside the hole, judged a success",
            "figure": f"{beside[Outcome.SUCCESS]}/{states}",
            "bound": "0",
            "holds": beside[Outcome.SUCCESS] == 0,
        },
        {
            "what": "error of depth, mm: picture, encoders",
            "figure": f"{_spread(seen_mm)}; {_spread(felt_mm)} (seed {seed}, {benches} benches)",
            "bound": "",
            "holds": None,
        },
    ]
    print(json.dumps({"name": "pin_truth", "rows": rows}))


def _spread(errors_mm: list[float]) -> str:
    errors = np.array(errors_mm)
    errors = errors[np.isfinite(errors)]
    return f"mean {errors.mean():+.2f}, sd {errors.std():.2f}, largest {np.abs(errors).max():.2f}"


def _row(what: str, right: int, said: int, least: float) -> dict[str, object]:
    figure = f"{right}/{said} = {100 * right / max(said, 1):.1f} %"
    return {"what": what, "figure": figure, "bound": f"at least {100 * least:.0f} %", "holds": right >= least * said}


class _PinBench:
    """A bench whose socket is moved under the pin, so that it can be brought to any depth."""

    def __init__(self, folder: Path) -> None:
        station = load_station(folder)
        assert station.emulation is not None
        self.world = World(station, station.emulation.seed)
        bench = EmulatedBench(station, self.world)
        drivers = Bench(bench.advance, bench.state, bench.look, lambda: False, bench.power_up, bench.limit)
        chain = chain_of(station.arm, station.tool.length_m, station.limits)
        self._robot = StationRobot(drivers, chain, station, 0.0)
        self._task = PinInsertion()
        self._place = self.world.model.body("socket").pos.copy()

    def in_the_hole(self, rng: np.random.Generator) -> tuple[float, bool, Verdict]:
        """Return the true depth of a pin in the hard band, whether that is in, and the verdict on it."""
        for _ in range(TRIES):
            wanted_m = rng.uniform(*HARD_BAND_M)
            hand = self._hover()
            hand.feel_nothing()
            descend(hand, SOCKET_TOP_M - HOVER_M, SLOW_M_S, TOUCH_N)
            self._move_socket(0.0, 0.0)  # under the pin that stands on it
            while self.world.truth()[0] < wanted_m and hand.sent_m[2] > SOCKET_TOP_M - wanted_m - LEAD_M:
                hand.send(hand.sent_m - np.array([0.0, 0.0, STEP_M]), pressing=True)
            hand.let_go()
            depth_m, off_m, _ = self.world.truth()
            if HARD_BAND_M[0] <= depth_m <= HARD_BAND_M[1]:
                return depth_m, depth_m >= SEATED_M and off_m <= BESIDE_M, self._judge()
        raise SystemExit("no pin could be brought into the hard band; is the hole blocked?")

    def beside(self, rng: np.random.Generator) -> Verdict:
        """Return the verdict on a pin that presses on the socket a little beside the hole."""
        hand = self._hover()
        side, away_m = rng.uniform(-np.pi, np.pi), rng.uniform(0.002, 0.008)
        self._move_socket(away_m * np.cos(side), away_m * np.sin(side))
        hand.line(hand.sent_m - np.array([0.0, 0.0, HOVER_M + rng.uniform(0.002, 0.012)]), SLOW_M_S)
        return self._judge()

    def _hover(self) -> Hand:
        self._robot.begin(90.0)
        self._task.reset(self._robot, START)
        self.world.model.body("socket").pos[:] = self._place
        hand = Hand(self._robot, 0.2, 0.05)
        hand.line(np.array([*self._place[:2], SOCKET_TOP_M + HOVER_M]), 0.2)
        hand.settle(0.0005, 1.0)
        return hand

    def _move_socket(self, x_m: float, y_m: float) -> None:
        self.world.setting.place((x_m, y_m, 0.0))

    def _judge(self) -> Verdict:
        self._robot.begin(30.0)
        return self._task.verify(self._robot, START)


def _kind(seated: bool, verdict: Outcome) -> str:
    if verdict is Outcome.INVALID:
        return "abstained"
    right = (verdict is Outcome.SUCCESS) == seated
    return f"{'true' if right else 'false'}_{verdict.value}"


if __name__ == "__main__":
    given = [int(value) for value in sys.argv[1:4]]
    main(*given, *(200, 1, 8)[len(given) :])
