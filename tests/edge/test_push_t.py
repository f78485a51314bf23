"""Laws of the Push-T judge: coverage, classes, abstention."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.records import Outcome
from edge.tasks.push_t.geometry import AREA_M2, CENTROID_M, coverage, outline_m, wrap
from edge.tasks.push_t.task import ABSTAIN_BAND, GOAL, SUCCESS_COVERAGE, judge

angles = st.floats(-np.pi, np.pi)
places = st.floats(-0.2, 0.2)
settings.register_profile("shared machine", deadline=None)  # the first call compiles
settings.load_profile("shared machine")


def test_outline_is_the_t_of_gym_pusht() -> None:
    corners = outline_m()
    x, y = corners[:, 0], corners[:, 1]
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    assert area == pytest.approx(AREA_M2)  # positive, so counter-clockwise
    assert pytest.approx(0.0407142857) == CENTROID_M


def test_the_frame_s_origin_is_the_centroid() -> None:
    corners = outline_m()
    x, y = corners[:, 0], corners[:, 1]
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    assert float(np.sum((x + np.roll(x, -1)) * cross)) == pytest.approx(0.0, abs=1e-12)
    assert float(np.sum((y + np.roll(y, -1)) * cross)) == pytest.approx(0.0, abs=1e-12)


@given(places, places, angles)
def test_a_t_covers_itself_wherever_it_lies(x_m: float, y_m: float, yaw_rad: float) -> None:
    assert coverage((x_m, y_m, yaw_rad), (x_m, y_m, yaw_rad)) == pytest.approx(1.0, abs=2e-3)


@given(st.floats(-0.01, 0.01), st.floats(-0.01, 0.01), st.floats(-0.2, 0.2), places, places, angles)
def test_coverage_depends_on_the_difference_only(
    dx: float, dy: float, turn: float, x: float, y: float, yaw: float
) -> None:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    moved = (x + cosine * dx - sine * dy, y + sine * dx + cosine * dy, yaw + turn)
    assert coverage(moved, (x, y, yaw)) == pytest.approx(coverage((dx, dy, turn), (0.0, 0.0, 0.0)), abs=4e-3)


@pytest.mark.parametrize(
    ("shift_m", "turn_deg", "covered"), [(0.002, 0.0, 0.96), (0.0, 2.4, 0.951), (0.2, 0.0, 0.0), (0.0, 180.0, 0.387)]
)
def test_coverage_of_known_poses(shift_m: float, turn_deg: float, covered: float) -> None:
    assert coverage((shift_m, 0.0, np.radians(turn_deg)), (0.0, 0.0, 0.0)) == pytest.approx(covered, abs=0.03)


@given(st.floats(-20.0, 20.0))
def test_wrapped_angles_keep_their_direction(angle_rad: float) -> None:
    wrapped = wrap(angle_rad)
    assert -np.pi < wrapped <= np.pi
    assert np.cos(wrapped) == pytest.approx(np.cos(angle_rad), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle_rad), abs=1e-9)


@pytest.mark.parametrize(
    ("away_m", "turned_rad", "outcome", "cause"),
    [
        (0.0, 0.0, Outcome.SUCCESS, ""),
        (0.0010, 0.0, Outcome.SUCCESS, ""),
        (0.005, 0.0, Outcome.FAILURE, "near"),
        (0.05, 0.0, Outcome.FAILURE, "far"),
        (0.005, 1.0, Outcome.FAILURE, "rotated"),
        (0.016, 3.0, Outcome.FAILURE, "rotated"),
    ],
)
def test_the_judge_names_what_was_missing(away_m: float, turned_rad: float, outcome: Outcome, cause: str) -> None:
    verdict = judge((GOAL[0] + away_m, GOAL[1], GOAL[2] + turned_rad))
    assert (verdict.outcome, verdict.cause) == (outcome, cause)
    assert verdict.measures["position_error_mm"] == pytest.approx(away_m * 1e3, abs=1e-6)


def test_the_judge_abstains_in_the_band_around_the_threshold_and_only_there() -> None:
    for away_m in np.linspace(0.0, 0.006, 200):
        pose = (GOAL[0] + float(away_m), GOAL[1], GOAL[2])
        covered, verdict = coverage(pose, GOAL), judge(pose)
        inside = abs(covered - SUCCESS_COVERAGE) <= ABSTAIN_BAND
        assert (verdict.outcome is Outcome.INVALID) == inside
        if not inside:
            assert (verdict.outcome is Outcome.SUCCESS) == (covered > SUCCESS_COVERAGE)
            assert (verdict.progress == 1.0) == (verdict.outcome is Outcome.SUCCESS)
