"""A calibration projects and unprojects alike, and one that cannot be used is refused in one line."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from calibration.records import Calibration, CalibrationError, CameraCalibration, load_calibration

FILE = """\
day = 2026-11-01
residual_px = 0.25
joint_zero_rad = [0.0, 0.1, 0.0, -0.1, 0.0, 0.0]
gravity_factor = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]

[top_camera]
width_px = 640
height_px = 480
focal_px = 625.0
centre_px = [319.5, 239.5]
base_from_camera_rotation = [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]
base_from_camera_position_m = [0.32, 0.0, 0.75]
"""


def rotation(quat_wxyz: tuple[float, float, float, float]) -> np.ndarray:
    """Return the rotation matrix of a quaternion of any length but zero."""
    w, x, y, z = np.array(quat_wxyz) / np.linalg.norm(quat_wxyz)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def camera(turn: np.ndarray, position_m: np.ndarray) -> CameraCalibration:
    return CameraCalibration(640, 480, 625.0, (319.5, 239.5), turn, position_m)


PARTS = st.floats(-1.0, 1.0)


@settings(deadline=None)
@given(
    quat_wxyz=st.tuples(PARTS, PARTS, PARTS, PARTS),
    position_m=st.tuples(PARTS, PARTS, st.floats(0.3, 2.0)),
    pixel=st.tuples(st.floats(0.0, 639.0), st.floats(0.0, 479.0)),
    z_m=st.floats(-0.1, 0.1),
)
def test_a_pixel_s_ray_meets_the_plane_where_the_pixel_shows_it(
    quat_wxyz: tuple[float, float, float, float],
    position_m: tuple[float, float, float],
    pixel: tuple[float, float],
    z_m: float,
) -> None:
    assume(np.linalg.norm(quat_wxyz) > 0.1)
    seen = camera(rotation(quat_wxyz), np.array(position_m))
    ray = seen.base_from_camera_rotation @ [(pixel[0] - 319.5) / 625, (pixel[1] - 239.5) / 625, 1.0]
    assume(abs(ray[2]) > 0.05)  # a ray along the plane meets it nowhere
    place = seen.ray_to_plane(pixel, z_m)
    assert place[2] == pytest.approx(z_m, abs=1e-9)
    np.testing.assert_allclose(seen.project(place[None])[0], pixel, atol=1e-6)


def test_a_camera_that_looks_down_shows_the_base_frame_from_above(tmp_path: Path) -> None:
    seen = load(tmp_path, FILE).top_camera
    px_per_m = 625.0 / 0.75
    points = np.array([[0.32, 0.0, 0.0], [0.42, 0.0, 0.0], [0.32, 0.1, 0.0]])
    expected = [[319.5, 239.5], [319.5 + 0.1 * px_per_m, 239.5], [319.5, 239.5 - 0.1 * px_per_m]]
    np.testing.assert_allclose(seen.project(points), expected)


def test_what_the_file_says_is_what_comes_out(tmp_path: Path) -> None:
    found = load(tmp_path, FILE)
    assert (found.day, found.residual_px) == (date(2026, 11, 1), 0.25)
    assert found.joint_zero_rad.tolist() == [0.0, 0.1, 0.0, -0.1, 0.0, 0.0]
    assert found.gravity_factor.tolist() == [1.0] * 6
    seen = found.top_camera
    assert (seen.width_px, seen.height_px, seen.focal_px, seen.centre_px) == (640, 480, 625.0, (319.5, 239.5))
    assert seen.base_from_camera_rotation.tolist() == np.diag([1.0, -1.0, -1.0]).tolist()
    assert seen.base_from_camera_position_m.tolist() == [0.32, 0.0, 0.75]


def test_the_hash_is_the_file_s_and_changes_with_every_byte(tmp_path: Path) -> None:
    texts = [FILE, FILE + "\n", FILE.replace("0.25", "0.26")]
    hashes = [load(tmp_path, text).sha256 for text in texts]
    assert hashes == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    assert len(set(hashes)) == len(texts)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("residual_px = 0.25", "residual_px = 0"),
        ("focal_px = 625.0", "focal_px = 625"),
        ("[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0],", "[[0.7071, 0.7071, 0], [0.7071, -0.7071, 0],"),
        ("[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0],", "[[1.0004, 0.0, 0.0], [0.0, -1.0, 0.0],"),
    ],
)
def test_whole_numbers_and_a_rotation_written_with_few_digits_are_good_enough(
    tmp_path: Path, old: str, new: str
) -> None:
    assert old in FILE
    assert load(tmp_path, FILE.replace(old, new, 1)).top_camera.focal_px == 625.0


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[top_camera]", "[top_camera", "not TOML"),
        ("day = 2026-11-01", "day = 2026-13-41", "not TOML"),
        ("residual_px = 0.25", "", "residual_px"),
        ("residual_px = 0.25", "residual_px = 0.25\ncolour = 3", "colour"),
        ("residual_px", "residual_mm", "residual_mm, residual_px"),
        ("[top_camera]", "[bottom_camera]", "bottom_camera, top_camera"),
        ("[top_camera]", "[[top_camera]]", "top_camera is a list, wants one table"),
        ("day = 2026-11-01", "day = 2026-11-01T12:00:00", "day is 2026-11-01 12:00:00, wants a date"),
        ("day = 2026-11-01", 'day = "2026-11-01"', "wants a date"),
        ("day = 2026-11-01", "day = 20261101", "wants a date"),
        ("residual_px = 0.25", "residual_px = nan", "residual_px is nan, wants a zero or positive number"),
        ("residual_px = 0.25", "residual_px = inf", "residual_px is inf"),
        ("residual_px = 0.25", "residual_px = -0.01", "residual_px is -0.01"),
        ("residual_px = 0.25", 'residual_px = "0.25"', "residual_px is '0.25'"),
        ("residual_px = 0.25", "residual_px = true", "residual_px is True"),
        ("residual_px = 0.25", f"residual_px = 1{'0' * 400}", "residual_px is 1000"),
        ("residual_px = 0.25", f"residual_px = 1{'0' * 5000}", "not TOML"),
        ("focal_px = 625.0", "", "missing keys: top_camera.focal_px"),
        ("focal_px = 625.0", "focal_px = 625.0\ncolour = 3", "unknown or missing keys: top_camera.colour"),
        ("focal_px = 625.0", 'focal_px = "long"', "top_camera.focal_px is 'long', wants a positive number"),
        ("focal_px = 625.0", 'focal_px = "625.0"', "top_camera.focal_px is '625.0'"),
        ("focal_px = 625.0", "focal_px = 0.0", "top_camera.focal_px is 0.0"),
        ("focal_px = 625.0", "focal_px = -625.0", "top_camera.focal_px is -625.0"),
        ("focal_px = 625.0", "focal_px = nan", "top_camera.focal_px is nan"),
        ("focal_px = 625.0", "focal_px = inf", "top_camera.focal_px is inf"),
        ("focal_px = 625.0", f"focal_px = 1{'0' * 400}", "top_camera.focal_px is 1000"),
        ("width_px = 640", "width_px = nan", "top_camera.width_px is nan, wants a positive whole number"),
        ("width_px = 640", "width_px = 640.0", "top_camera.width_px is 640.0"),
        ("width_px = 640", 'width_px = "640"', "top_camera.width_px is '640'"),
        ("height_px = 480", "height_px = 0", "top_camera.height_px is 0"),
        ("height_px = 480", "height_px = -480", "top_camera.height_px is -480"),
        ("height_px = 480", "height_px = true", "top_camera.height_px is True"),
        ("[319.5, 239.5]", "[319.5]", "top_camera.centre_px is [319.5], wants 2 finite numbers"),
        ("[319.5, 239.5]", "[319.5, 239.5, 0.0]", "top_camera.centre_px"),
        ("[319.5, 239.5]", "[319.5, nan]", "top_camera.centre_px"),
        ("[319.5, 239.5]", '[319.5, "239.5"]', "top_camera.centre_px"),
        ("[319.5, 239.5]", "319.5", "top_camera.centre_px is 319.5, wants 2 finite numbers"),
        ("[0.32, 0.0, 0.75]", "[0.32, 0.0]", "base_from_camera_position_m is [0.32, 0.0], wants 3 finite numbers"),
        ("[0.32, 0.0, 0.75]", "[0.32, 0.0, nan]", "base_from_camera_position_m"),
        ("[0.0, -1.0, 0.0], ", "", "wants 3 x 3 finite numbers"),
        ("[0.0, -1.0, 0.0]", "[0.0, -1.0]", "wants 3 x 3 finite numbers"),
        ("[0.0, -1.0, 0.0]", "[0.0, inf, 0.0]", "wants 3 x 3 finite numbers"),
        ("[0.0, -1.0, 0.0]", "[0.0, 1.0, 0.0]", "base_from_camera_rotation is not a rotation"),  # a mirror
        ("[0.0, -1.0, 0.0]", "[0.0, -1.01, 0.0]", "not a rotation"),
        ("[0.0, -1.0, 0.0]", "[0.1, -1.0, 0.0]", "not a rotation"),
        ("[0.0, -1.0, 0.0]", "[0.0, -1e300, 0.0]", "not a rotation"),
        ("[0.0, -1.0, 0.0]", "[0.0, 0.0, 0.0]", "not a rotation"),
        ("[0.0, 0.1, ", "[0.1, ", "joint_zero_rad is [0.1, 0.0, -0.1, 0.0, 0.0], wants 6 finite numbers"),
        ("[0.0, 0.1, ", "[0.0, nan, ", "joint_zero_rad"),
        ("[0.0, 0.1, ", '[0.0, "x", ', "joint_zero_rad"),
        ("[0.0, 0.1, ", '[0.0, "0.1", ', "joint_zero_rad"),
        ("[0.0, 0.1, ", "[0.0, false, ", "joint_zero_rad"),
        ("[0.0, 0.1, ", f"[0.0, 1{'0' * 400}, ", "joint_zero_rad"),
        ("[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]", "1.0", "gravity_factor is 1.0, wants 6 finite numbers"),
        ("[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0, 1.0, 1.0, -inf]", "gravity_factor"),
        ("[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]", "wants numbers from 0.5 to 1.6"),
        ("[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]", "[1.0, 11.0, 1.0, 1.0, 1.0, 1.0]", "wants numbers from 0.5 to 1.6"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    assert old in FILE
    with pytest.raises(CalibrationError, match=r"calibration\.toml") as caught:
        load(tmp_path, FILE.replace(old, new, 1))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("camera", ["3", '"top"', "[]"])
def test_a_camera_that_is_no_table_is_refused(tmp_path: Path, camera: str) -> None:
    with pytest.raises(CalibrationError, match=r"top_camera is a .*, wants one table"):
        load(tmp_path, FILE.split("[top_camera]")[0] + f"top_camera = {camera}\n")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CalibrationError, match="not TOML"):
        load_calibration(path)


@pytest.mark.parametrize("name", ["calibration.toml", "."])
def test_a_missing_file_says_how_to_make_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(CalibrationError, match="make-stations"):
        load_calibration(tmp_path / name)


def load(folder: Path, text: str) -> Calibration:
    path = folder / "calibration.toml"
    path.write_text(text)
    return load_calibration(path)
