"""Laws of forward and inverse kinematics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.arm import load_arm, rotation
from edge.planning.kinematics import chain_of, quat_of, reach, tool_pose

ARM = load_arm()
CHAIN = chain_of(ARM, 0.05, ARM.limits)
DOWN = rotation(np.array([0.0, 0.0, 1.0, 0.0]))
HOME = np.array([0.0, 1.1, 0.95, -1.4, 0.0, 0.0])
joints = st.tuples(
    *(st.floats(float(a), float(b)) for a, b in zip(ARM.limits.lower_rad, ARM.limits.upper_rad, strict=True))
)


@given(joints)
@settings(max_examples=50)
def test_inverse_undoes_forward_from_nearby(angles: tuple[float, ...]) -> None:
    q = np.array(angles)
    place, turn = tool_pose(CHAIN, q)
    start = np.clip(q + 0.02, CHAIN.lower_rad, CHAIN.upper_rad)
    found = reach(CHAIN, place, turn, start)
    assert found.position_error_m < 1e-3
    assert (found.joints_rad >= CHAIN.lower_rad).all()
    assert (found.joints_rad <= CHAIN.upper_rad).all()


@pytest.mark.parametrize("place", [(0.155, 0.0, 0.075), (0.32, 0.1, 0.012), (0.45, -0.1, 0.012), (0.2, 0.28, 0.055)])
def test_the_table_is_reached_with_the_tool_straight_down(place: tuple[float, float, float]) -> None:
    found = reach(CHAIN, np.array(place), DOWN, HOME)
    assert found.position_error_m < 1e-4
    np.testing.assert_allclose(tool_pose(CHAIN, found.joints_rad)[0], place, atol=1e-4)


def test_a_place_out_of_reach_is_not_claimed() -> None:
    assert reach(CHAIN, np.array([0.9, 0.0, 0.1]), DOWN, HOME).position_error_m > 0.1


@given(st.tuples(*[st.floats(-1.0, 1.0)] * 4).filter(lambda q: sum(x * x for x in q) > 0.01))
def test_quaternions_survive_the_round_trip(raw: tuple[float, ...]) -> None:
    turn = rotation(np.array(raw))
    np.testing.assert_allclose(rotation(quat_of(turn)), turn, atol=1e-9)
