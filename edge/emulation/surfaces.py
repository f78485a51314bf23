"""What all things on an emulated bench share: the step of physics, how hard contacts are, and colours."""

from __future__ import annotations

import numpy as np

PHYSICS_DT_S = 1.0 / 480.0
# Contacts are mass-scaled and must be stiff: solref is two steps.
SOLREF = [2.0 * PHYSICS_DT_S, 1.0]
SOLIMP = [0.95, 0.99, 0.0005, 0.5, 2.0]
GREY, ORANGE, BLUE = [0.32, 0.33, 0.35, 1.0], [0.86, 0.47, 0.13, 1.0], [0.10, 0.32, 0.85, 1.0]
GREEN, DARK = [0.10, 0.70, 0.20, 1.0], [0.10, 0.10, 0.10, 1.0]
TABLE, GOAL_GREEN = [0.82, 0.80, 0.77, 1.0], [0.62, 0.74, 0.60, 1.0]
UP = np.array([0.0, 0.0, 1.0])
