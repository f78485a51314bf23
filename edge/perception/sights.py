"""Which task has which eyes: what turns a picture of its bench into the things that stand there."""

from __future__ import annotations

from collections.abc import Callable

from calibration.records import CameraCalibration
from edge.perception.pin import Image, see_pin
from edge.perception.tee import see_tee
from policies.interface import SceneObject

See = Callable[[Image, CameraCalibration], tuple[SceneObject, ...]]
SIGHTS: dict[str, See] = {"push_t": see_tee, "pin_insertion": see_pin}
