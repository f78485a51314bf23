"""The pin and the socket: their shapes, and how deep is deep enough.

A pin of 3.6 x 30 mm below a handle goes into a blind hole of 4.0 x 20 mm whose mouth is chamfered by 0.5 mm: 0.2 mm of
play on each side. The socket is a block whose top face carries the marking that the camera finds; it stands on the
table. The tool's tip is the pin's tip.
"""

from __future__ import annotations

import numpy as np

from policies.interface import Array

PIN_RADIUS_M, PIN_LENGTH_M = 0.0018, 0.030
HANDLE_M = (0.010, 0.012, 0.016)
TOOL_LENGTH_M = 0.045  # from the grasp point to the pin's tip: 15 mm of handle, then the pin
HOLE_RADIUS_M, HOLE_DEPTH_M, CHAMFER_M = 0.0020, 0.020, 0.0005
SOCKET_SIDE_M, SOCKET_TOP_M = 0.044, 0.030
SOCKET_AROUND_M = (0.32, 0.0)  # where on the bench it is screwed down, by eye
SEATED_M = 0.014  # so deep is in
BESIDE_M = 0.0015  # further off the hole's axis is not


def face_m() -> Array:
    """Return the four corners (4, 2) of the socket's top face in its own frame, counter-clockwise."""
    half = SOCKET_SIDE_M / 2
    return np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
