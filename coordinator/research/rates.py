"""Which kind of change pays, learned from accepted gains per robot-minute.

Accepted gains of a kind are taken for events of a Poisson process in the robot time that its tests took. A Gamma
distribution is the conjugate belief about its rate; one draw from it weighs the kind (Thompson 1933; Chapelle and Li
2011 on why a draw does). A kind without tests draws from its prior, which is given in tests, as tasks differ in how
long a test takes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coordinator.evolution.ideas import ResearchContext

# Gains and tests that each kind starts with: ideas are written because somebody believes in them.
PRIORS = {
    "switch": (3.0, 5.0),
    "parameter": (1.5, 5.0),
    "merge": (4.0, 5.0),
    "crossover": (1.0, 5.0),
    "combine": (4.0, 5.0),
    "program": (3.0, 5.0),
    "play": (8.0, 9.0),
    "sobol": (0.5, 5.0),
    "cma": (0.5, 5.0),
    "simplify": (1.0, 5.0),
}
GAIN_POINTS = 20.0  # an accepted gain of so many counts as one
LEAST_GAIN, MOST_GAIN = 0.3, 2.0  # what any accepted gain counts
DEFAULT_MINUTES = 2.0  # of a test, before any was seen


def drawn_rates(context: ResearchContext, rng: np.random.Generator) -> Mapping[str, float]:
    """Return one draw of each kind's accepted gain, in robot time that a typical test takes."""
    minutes = [item.robot_minutes for item in context.tried if item.robot_minutes > 0.0]
    typical = float(np.mean(minutes)) if minutes else DEFAULT_MINUTES
    rates = {}
    for kind, (gains, tests) in PRIORS.items():
        for tried in context.tried:
            if tried.kind == kind and tried.verdict != "superseded":
                gains += gain(tried.verdict, tried.gain_points)
                tests += (tried.robot_minutes or typical) / typical
        rates[kind] = float(rng.gamma(gains, 1.0 / tests))
    return rates


def gain(verdict: str, gain_points: float) -> float:
    """Return what a decision counts as gained."""
    return float(np.clip(gain_points / GAIN_POINTS, LEAST_GAIN, MOST_GAIN)) if verdict == "accept" else 0.0
