"""A policy's limits are the narrowest of site, arm and bundle, and no bundle makes one wider."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.arm import gravity_torque
from edge.emulation.stations import make_stations
from edge.envelope import UNPROVEN_SHARE, EnvelopeImpossible, from_text, holding_torque_nm, narrowed, to_text
from edge.station import Station, load_station
from policies.envelope import Envelope

SIX = st.lists(st.floats(1e-300, 50.0), min_size=6, max_size=6).map(tuple)


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Station:
    folder = tmp_path_factory.mktemp("stations")
    make_stations(folder, 1, 1, "push_t", "tcp/127.0.0.1:1")
    return load_station(folder / "station-1")


def test_a_bundle_that_promises_nothing_works_within_the_site_s_limits_and_the_arena(station: Station) -> None:
    given = narrowed(station, Envelope(), proven=True)
    for each in fields(station.limits):
        np.testing.assert_array_equal(getattr(given.limits, each.name), getattr(station.limits, each.name))
    np.testing.assert_array_equal(given.workspace.lower_m, station.arena.lower_m)
    np.testing.assert_array_equal(given.workspace.upper_m, station.arena.upper_m)
    assert station.arena.upper_m[0] < station.workspace.upper_m[0]


def test_an_unproven_policy_is_slower_and_may_go_as_far(station: Station) -> None:
    given = narrowed(station, Envelope(), proven=False)
    np.testing.assert_allclose(given.limits.velocity_rad_s, UNPROVEN_SHARE * station.limits.velocity_rad_s)
    np.testing.assert_allclose(given.limits.acceleration_rad_s2, UNPROVEN_SHARE * station.limits.acceleration_rad_s2)
    np.testing.assert_array_equal(given.limits.torque_nm, station.limits.torque_nm)
    np.testing.assert_array_equal(given.limits.upper_rad, station.limits.upper_rad)


@given(velocity=SIX, acceleration=SIX, torque=SIX, upper=SIX, proven=st.booleans())
def test_no_envelope_makes_a_limit_wider(
    station: Station,
    velocity: tuple[float, ...],
    acceleration: tuple[float, ...],
    torque: tuple[float, ...],
    upper: tuple[float, ...],
    proven: bool,
) -> None:
    envelope = Envelope(
        velocity_rad_s=velocity,
        acceleration_rad_s2=acceleration,
        torque_nm=torque,
        upper_rad=upper,
        box_upper_m=(9.0, 9.0, 9.0),
        box_lower_m=(-9.0, -9.0, -9.0),
    )
    try:
        given = narrowed(station, envelope, proven)
    except EnvelopeImpossible:
        return
    site = station.limits
    assert (given.limits.velocity_rad_s <= np.minimum(site.velocity_rad_s, velocity)).all()
    assert (given.limits.acceleration_rad_s2 <= np.minimum(site.acceleration_rad_s2, acceleration)).all()
    assert (given.limits.torque_nm <= np.minimum(site.torque_nm, torque)).all()
    assert (given.limits.upper_rad <= np.minimum(site.upper_rad, upper)).all()
    assert (given.workspace.upper_m == station.arena.upper_m).all()


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        (Envelope(upper_rad=(-5.0,) * 6), "joint 1"),
        (Envelope(lower_rad=(3.0,) * 6), "joint 1"),
        (Envelope(box_lower_m=(0.6, 0.0, 0.0)), "nothing in common"),
    ],
)
def test_an_envelope_that_leaves_nothing_is_refused(station: Station, envelope: Envelope, says: str) -> None:
    with pytest.raises(EnvelopeImpossible, match=says):
        narrowed(station, envelope, proven=True)


def test_limits_come_back_from_a_recording_as_they_were(station: Station) -> None:
    given = narrowed(station, Envelope(velocity_rad_s=(0.5,) * 6, box_upper_m=(0.4, 0.1, 0.2)), proven=False)
    back = from_text(station, to_text(given))
    for each in fields(station.limits):
        np.testing.assert_array_equal(getattr(back.limits, each.name), getattr(given.limits, each.name))
    np.testing.assert_array_equal(back.workspace.upper_m, given.workspace.upper_m)
    np.testing.assert_array_equal(back.body, given.body)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lower_rad": 1}', to_text.__doc__ or ""])
def test_what_are_no_limits_is_refused(station: Station, text: str) -> None:
    with pytest.raises(EnvelopeImpossible, match="not the limits"):
        from_text(station, text)


def test_limits_from_a_recording_are_never_wider_than_the_station_s(station: Station) -> None:
    wider = replace(station, limits=replace(station.limits, velocity_rad_s=station.limits.velocity_rad_s * 3.0))
    np.testing.assert_array_equal(
        from_text(station, to_text(wider)).limits.velocity_rad_s, station.limits.velocity_rad_s
    )


def test_an_envelope_never_leaves_the_motors_too_little_to_hold_the_arm(station: Station) -> None:
    holding = holding_torque_nm(station)
    assert (holding > 0.0).all()
    assert (holding <= station.limits.torque_nm).all()
    narrowed(station, Envelope(torque_nm=tuple(holding)), proven=True)
    for joint in range(6):
        weak = holding.copy()
        weak[joint] *= 0.99
        with pytest.raises(EnvelopeImpossible, match=f"torque_nm leaves joint {joint + 1} too little"):
            narrowed(station, Envelope(torque_nm=tuple(weak)), proven=True)


def test_the_holding_torque_is_more_than_the_arm_ever_weighs(station: Station) -> None:
    """In poses that it was not computed from."""
    limits, chain = station.limits, station.arm.carrying(station.payload).chain
    parts = (chain.joint_pos, chain.joint_rot, chain.joint_axis, chain.link_mass, chain.link_com)
    torque_nm, room = np.zeros(6), (np.zeros((6, 3)), np.zeros((6, 3, 3)))
    holding = holding_torque_nm(station)
    for pose in np.random.default_rng(7).uniform(limits.lower_rad, limits.upper_rad, (3000, 6)):
        gravity_torque(pose, *parts, *room, torque_nm)
        assert (np.abs(torque_nm * station.calibration.gravity_factor) <= holding).all()


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope(acceleration_rad_s2=(1e-323,) * 6),
        Envelope(velocity_rad_s=(1e-300,) * 6),
        Envelope(torque_nm=(1e-323,) * 6),
        Envelope(acceleration_rad_s2=(150.0, 150.0, 0.9, 150.0, 150.0, 150.0)),
    ],
)
def test_limits_so_small_that_control_could_not_work_are_refused(station: Station, envelope: Envelope) -> None:
    with pytest.raises(EnvelopeImpossible, match="too little"):
        narrowed(station, envelope, proven=True)
