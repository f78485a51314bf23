"""What a policy may do on a station: the narrowest of site, arm and bundle, and for one that is not proven less of it.

A bundle's envelope can only narrow: nothing it says makes a limit wider. One that leaves a joint nothing is refused.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
from numpy.typing import ArrayLike

from edge.station import Box, Station
from firmware_bridge.guard import JointLimits, LimitsImpossible, narrow
from policies.envelope import Envelope
from policies.interface import Array

# Of the site's speed and acceleration, for a policy that has not proven itself on this station.
UNPROVEN_SHARE = 0.8


class EnvelopeImpossible(Exception):
    """A bundle's limits leave this station's arm nothing; says which."""


def narrowed(station: Station, envelope: Envelope, proven: bool) -> Station:
    """Return the station with the limits and the workspace that a policy of this envelope works in.

    Raises:
        EnvelopeImpossible: they leave a joint or the tool nothing.
    """
    site = station.limits
    share = 1.0 if proven else UNPROVEN_SHARE
    box = Box(
        np.maximum(_or(envelope.box_lower_m, station.workspace.lower_m), station.workspace.lower_m),
        np.minimum(_or(envelope.box_upper_m, station.workspace.upper_m), station.workspace.upper_m),
    )
    if not (box.lower_m < box.upper_m).all():
        raise EnvelopeImpossible("the bundle's box and this station's workspace have nothing in common")
    try:
        asked = {each.name: _or(getattr(envelope, each.name), getattr(site, each.name)) for each in fields(site)}
        slower = replace(
            site, velocity_rad_s=site.velocity_rad_s * share, acceleration_rad_s2=site.acceleration_rad_s2 * share
        )
        return replace(station, limits=narrow(site, JointLimits(**asked), slower), workspace=box)
    except LimitsImpossible as error:
        raise EnvelopeImpossible(f"the bundle's limits leave this arm nothing: {error}") from error


def to_text(station: Station) -> str:
    """Return the limits and the workspace of a station as JSON, for a recording."""
    limits = {each.name: getattr(station.limits, each.name).tolist() for each in fields(station.limits)}
    box = {"box_lower_m": station.workspace.lower_m.tolist(), "box_upper_m": station.workspace.upper_m.tolist()}
    return json.dumps(limits | box)


def from_text(station: Station, text: str) -> Station:
    """Return the station with the limits and the workspace that `to_text` wrote.

    Raises:
        EnvelopeImpossible: that is not what it wrote.
    """
    try:
        said = json.loads(text)
        limits = JointLimits(**{each.name: np.array(said[each.name], dtype=float) for each in fields(station.limits)})
        box = Box(np.array(said["box_lower_m"], dtype=float), np.array(said["box_upper_m"], dtype=float))
        return replace(station, limits=narrow(station.limits, limits), workspace=box)
    except (KeyError, TypeError, ValueError, LimitsImpossible) as error:
        raise EnvelopeImpossible(f"not the limits of a trial: {error}") from error


def _or(value: ArrayLike | None, otherwise: Array) -> Array:
    return otherwise if value is None else np.asarray(value, dtype=np.float64)
