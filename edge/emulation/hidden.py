"""What a real bench has and nobody tells you: drawn once per emulated station from its seed, shown to no one else.

Ranges follow what hardly any real arm escapes: joint friction, encoder zeros set by hand, a gravity model that is a few
per cent off, a bus and motor drive that act milliseconds late, a camera that is never noiseless.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.interface import Array

# Coulomb friction of the DaMiao joints in the maker's own configuration.
COULOMB_NM = np.array([0.3, 0.3, 0.3, 0.06, 0.06, 0.06])


@dataclass(frozen=True)
class Hidden:
    """One bench's own deviations."""

    friction_nm: Array  # (6,) Coulomb friction
    zero_bias_rad: Array  # (6,) what the encoders add to the true angle
    gravity_error: float  # share of gravity that the model does not know of
    latency_ticks: int  # control ticks between a frame and its effect
    table_friction: float
    pixel_noise: float  # grey levels, one standard deviation
    light: float  # brightness factor


def draw(seed: int) -> Hidden:
    """Return the deviations of the bench with this seed."""
    rng = np.random.default_rng([seed, 0xB3C4])
    return Hidden(
        friction_nm=COULOMB_NM * rng.uniform(0.7, 1.3, 6),
        zero_bias_rad=rng.normal(0.0, np.radians(0.1), 6),
        gravity_error=float(rng.uniform(-0.05, 0.05)),
        latency_ticks=int(rng.integers(0, 3)),
        table_friction=float(rng.uniform(0.35, 0.5)),
        pixel_noise=float(rng.uniform(2.0, 5.0)),
        light=float(rng.uniform(0.85, 1.1)),
    )
