"""What a policy may do on a station: the narrowest of site, arm and bundle, and for one that is not proven less of it.

A bundle's envelope can only narrow: nothing it says makes a limit wider. One that leaves a joint nothing is refused,
and so is one that would let the arm fall: the motors' torque carries the arm's own weight first.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
from numpy.typing import ArrayLike

from edge.arm import gravity_torque
from edge.station import Box, Station
from firmware_bridge.guard import JointLimits, LimitsImpossible, narrow
from policies.envelope import Envelope
from policies.interface import JOINTS, Array

# Of the site's speed and acceleration, for a policy that has not proven itself on this station.
UNPROVEN_SHARE = 0.8
LEAST_RAD_S, LEAST_RAD_S2 = 0.05, 1.0  # slower than that no arm gets anywhere, and control divides by it
POSES = 500  # within the site's limits, drawn once and for all, in which the arm is weighed
HOLDING_MARGIN = 1.5  # over the heaviest of them: for friction, for what pushes, for what is not in the model


class EnvelopeImpossible(Exception):
    """A bundle's limits leave this station's arm nothing; says which."""


def narrowed(station: Station, envelope: Envelope, proven: bool) -> Station:
    """Return the station with the limits and the workspace that a policy of this envelope works in: of the arena.

    Raises:
        EnvelopeImpossible: they leave a joint or the tool nothing.
    """
    site = station.limits
    share = 1.0 if proven else UNPROVEN_SHARE
    box = Box(
        np.maximum(_or(envelope.box_lower_m, station.arena.lower_m), station.arena.lower_m),
        np.minimum(_or(envelope.box_upper_m, station.arena.upper_m), station.arena.upper_m),
    )
    if not (box.lower_m < box.upper_m).all():
        raise EnvelopeImpossible("the bundle's box and this station's arena have nothing in common")
    _check_strength(station, envelope)
    try:
        asked = {each.name: _or(getattr(envelope, each.name), getattr(site, each.name)) for each in fields(site)}
        slower = replace(
            site, velocity_rad_s=site.velocity_rad_s * share, acceleration_rad_s2=site.acceleration_rad_s2 * share
        )
        return replace(station, limits=narrow(site, JointLimits(**asked), slower), workspace=box, arena=box)
    except LimitsImpossible as error:
        raise EnvelopeImpossible(f"the bundle's limits leave this arm nothing: {error}") from error


def holding_torque_nm(station: Station) -> Array:
    """Return the torque (6,) that each joint must be able to give to hold the arm and its tool in any pose."""
    chain = station.arm.carrying(station.payload).chain
    limits, factor = station.limits, station.calibration.gravity_factor
    heaviest_nm, torque_nm = np.zeros(JOINTS), np.zeros(JOINTS)
    position, orientation = np.zeros((JOINTS, 3)), np.zeros((JOINTS, 3, 3))
    parts = (chain.joint_pos, chain.joint_rot, chain.joint_axis, chain.link_mass, chain.link_com)
    for pose in np.random.default_rng(0).uniform(limits.lower_rad, limits.upper_rad, (POSES, JOINTS)):
        gravity_torque(pose, *parts, position, orientation, torque_nm)
        heaviest_nm = np.maximum(heaviest_nm, np.abs(torque_nm * factor))
    return np.minimum(HOLDING_MARGIN * heaviest_nm, limits.torque_nm)


def _check_strength(station: Station, envelope: Envelope) -> None:
    """Raise EnvelopeImpossible where an arm of these limits could not hold itself, or could hardly move."""
    _check_least("velocity_rad_s", envelope.velocity_rad_s, np.full(JOINTS, LEAST_RAD_S))
    _check_least("acceleration_rad_s2", envelope.acceleration_rad_s2, np.full(JOINTS, LEAST_RAD_S2))
    if envelope.torque_nm is not None:
        _check_least("torque_nm", envelope.torque_nm, holding_torque_nm(station))


def _check_least(name: str, asked: tuple[float, ...] | None, least: Array) -> None:
    for joint, value in enumerate(asked or ()):
        if not value >= least[joint]:
            needs = f"{value:g}, and this arm needs at least {least[joint]:.2f}"
            raise EnvelopeImpossible(f"the bundle's {name} leaves joint {joint + 1} too little: {needs}")


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
        return replace(station, limits=narrow(station.limits, limits), workspace=box, arena=box)
    except (KeyError, TypeError, ValueError, LimitsImpossible) as error:
        raise EnvelopeImpossible(f"not the limits of a trial: {error}") from error


def _or(value: ArrayLike | None, otherwise: Array) -> Array:
    return otherwise if value is None else np.asarray(value, dtype=np.float64)
