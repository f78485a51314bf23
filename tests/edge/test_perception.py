"""The T is found to half a millimetre wherever it stands in full view, and where it does not the fit says so."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import mujoco
import numpy as np
import pytest

from calibration.records import CameraCalibration
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.perception.tee import Image, TeeFit, find_blob, find_tee
from edge.station import load_station
from edge.tasks.push_t.geometry import AREA_M2, HEIGHT_M, Pose, outline_m, wrap

SEED = 11
MISS_M, MISS_RAD = 0.5e-3, np.radians(0.3)  # what a fit of a T in full view may miss by
# With something over a border the fit may follow that a little before it notices.
DISTURBED_M, DISTURBED_RAD = 1.0e-3, np.radians(1.5)
MIDDLE: Pose = (0.34, 0.02, 0.6)


@dataclass
class View:
    """What one bench's camera shows, and what can be painted over it."""

    world: World
    camera: CameraCalibration

    def of(self, pose: Pose) -> Image:
        """Return a picture of the T at a pose."""
        self.world.place_tee(pose)
        return self.world.picture()

    def table(self, image: Image) -> list[int]:
        return [int(value) for value in np.median(image.reshape(-1, 3), axis=0)]

    def blue(self, image: Image, pose: Pose) -> list[int]:
        """Return the T's colour at its middle."""
        u, v = self.camera.project(np.array([[pose[0], pose[1], HEIGHT_M]]))[0].round().astype(int)
        return [int(value) for value in image[v, u]]

    def painted(self, image: Image, pose: Pose, corners_m: np.ndarray, colour: list[int]) -> Image:
        """Return the picture with a polygon, (n, 2) in the frame of the T's top face, in a colour."""
        cosine, sine = np.cos(pose[2]), np.sin(pose[2])
        places = corners_m @ np.array([[cosine, sine], [-sine, cosine]]) + pose[:2]
        pixels = self.camera.project(np.column_stack([places, np.full(len(places), HEIGHT_M)]))
        return np.asarray(cv2.fillPoly(image.copy(), [pixels.round().astype(np.int32)], colour), dtype=np.uint8)


def rectangle(left_m: float, right_m: float, near_m: float, far_m: float) -> np.ndarray:
    """Return the corners of a rectangle in the T's frame: x to the side, y along the stem."""
    return np.array([[left_m, near_m], [right_m, near_m], [right_m, far_m], [left_m, far_m]])


def is_right(fit: TeeFit, pose: Pose, miss_m: float = MISS_M, miss_rad: float = MISS_RAD) -> bool:
    away_m = np.hypot(fit.x_m - pose[0], fit.y_m - pose[1])
    return bool(fit.found and away_m < miss_m and abs(wrap(fit.yaw_rad - pose[2])) < miss_rad)


def poses(count: int) -> list[Pose]:
    """Return places in full view, any way round."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    drawn = rng.uniform([0.25, -0.15, -np.pi], [0.41, 0.15, np.pi], (count, 3))
    return [(float(x), float(y), float(yaw)) for x, y, yaw in drawn]


@pytest.fixture(scope="module", params=[1, 2])
def view(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    folder: Path = tmp_path_factory.mktemp("stations")
    make_stations(folder, 2, 5, "push_t", "tcp/127.0.0.1:1")
    station = load_station(folder / f"station-{request.param}")
    assert station.emulation is not None
    world = World(station, station.emulation.seed)
    yield View(world, station.calibration.top_camera)
    world.close()


def test_the_t_is_found_where_it_stands(view: View) -> None:
    for pose in poses(20):
        fit = find_tee(view.of(pose), view.camera)
        assert is_right(fit, pose), (pose, fit)
        assert -np.pi <= fit.yaw_rad < np.pi
        assert fit.pose == (fit.x_m, fit.y_m, fit.yaw_rad)
        assert (fit.why_not, fit.sigma_m > 0, fit.sigma_rad > 0) == ("", True, True)


@pytest.mark.parametrize(
    "hidden",
    [
        rectangle(-0.03, 0.03, 0.03, 0.09),  # the stem's end
        rectangle(-0.03, 0.03, -0.01, 0.09),  # all of the stem
        rectangle(-0.07, -0.02, -0.05, 0.0),  # one arm of the bar
        rectangle(0.02, 0.07, -0.05, 0.0),  # the other
        rectangle(-0.03, 0.03, -0.05, 0.02),  # the middle
        rectangle(-0.07, 0.0, -0.05, 0.09),  # its left half
        rectangle(-0.07, 0.07, -0.05, -0.025),  # the bar's outer half
        rectangle(-0.07, 0.07, -0.05, 0.09),  # all of it
    ],
)
def test_a_t_that_something_hides_is_not_guessed(view: View, hidden: np.ndarray) -> None:
    for pose in poses(4):
        picture = view.of(pose)
        fit = find_tee(view.painted(picture, pose, hidden, view.table(picture)), view.camera)
        assert not fit.found, (pose, fit)
        assert fit.why_not


def test_whatever_is_painted_over_the_picture_the_fit_is_right_or_abstains(view: View) -> None:
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    found = []
    for pose in poses(4):
        picture = view.of(pose)
        for colour in (view.table(picture), view.blue(picture, pose)):
            for _ in range(25):
                (left, near), (wide, deep) = rng.uniform(-0.09, 0.09, 2), rng.uniform(0.003, 0.06, 2)
                spot = rectangle(left, left + wide, near, near + deep)
                fit = find_tee(view.painted(picture, pose, spot, colour), view.camera)
                right = is_right(fit, pose, DISTURBED_M, DISTURBED_RAD)
                assert right or not fit.found, (pose, spot, colour, fit)
                found.append(fit.found)
    assert True in found
    assert False in found


@pytest.mark.parametrize("edge", [(0.689, 0.0), (0.32, 0.276), (0.32, -0.276), (0.68, 0.27)])
@pytest.mark.parametrize("yaw_rad", [0.0, 1.0, np.pi / 2, np.pi, -2.0])
def test_a_t_that_the_picture_s_edge_cuts_is_not_guessed(view: View, edge: tuple[float, float], yaw_rad: float) -> None:
    picture = view.of((*edge, yaw_rad))
    fit = find_tee(picture, view.camera)
    assert not fit.found, fit
    assert "area" in fit.why_not
    assert find_blob(picture, view.camera) is not None


def test_more_blue_than_a_t_has_is_not_guessed(view: View) -> None:
    picture = view.of(MIDDLE)
    assert is_right(find_tee(picture, view.camera), MIDDLE)
    side_m = np.sqrt(AREA_M2)
    beside = rectangle(0.07, 0.07 + side_m, 0.0, side_m)
    fit = find_tee(view.painted(picture, MIDDLE, beside, view.blue(picture, MIDDLE)), view.camera)
    assert (fit.found, "area" in fit.why_not) == (False, True)


@pytest.mark.parametrize(
    "shape",
    [
        rectangle(-0.04, 0.04, -0.04, 0.04),
        rectangle(-0.08, 0.08, -0.02, 0.02),
        np.array([[-0.06, -0.04], [0.06, -0.04], [0.06, -0.01], [-0.03, -0.01], [-0.03, 0.08], [-0.06, 0.08]]),  # an L
        outline_m() * [1.02, 1.02],
        outline_m() * [1.07, 1.07],
        outline_m() * [0.93, 0.93],
        outline_m() * [1.3, 0.77],
    ],
)
def test_a_blue_thing_as_large_as_a_t_is_no_t(view: View, shape: np.ndarray) -> None:
    empty = view.of((0.9, 0.9, 0.0))  # the T is far out of view
    for pose in poses(4):
        fit = find_tee(view.painted(empty, pose, shape, [30, 77, 212]), view.camera)
        assert not fit.found, (pose, fit)
        assert fit.why_not


def test_an_empty_table_shows_nothing(view: View) -> None:
    picture = view.of((0.9, 0.9, 0.0))
    assert find_tee(picture, view.camera).why_not
    assert find_blob(picture, view.camera) is None


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (0, 0, 255), (255, 0, 0), (128, 128, 128)])
def test_a_picture_of_one_colour_shows_no_t(view: View, colour: tuple[int, int, int]) -> None:
    picture = np.full((480, 640, 3), colour, dtype=np.uint8)
    fit = find_tee(picture, view.camera)
    assert (fit.found, fit.why_not != "") == (False, True)
    assert (find_blob(picture, view.camera) is not None) == (colour == (0, 0, 255))


@pytest.mark.parametrize(
    ("hidden", "along_rad"),
    [(rectangle(-0.03, 0.03, -0.01, 0.09), 0.0), (rectangle(-0.07, -0.015, -0.05, 0.0), None)],
)
def test_a_partly_hidden_t_is_found_as_a_blob(view: View, hidden: np.ndarray, along_rad: float | None) -> None:
    for pose in poses(10):
        picture = view.of(pose)
        covered = view.painted(picture, pose, hidden, view.table(picture))
        assert not find_tee(covered, view.camera).found
        blob = find_blob(covered, view.camera)
        assert blob is not None
        assert np.hypot(blob.x_m - pose[0], blob.y_m - pose[1]) < 0.035  # somewhere on the T
        if along_rad is not None:  # the bar that is left, either way round
            assert abs(np.sin(blob.yaw_rad - pose[2] - along_rad)) < 0.1


@pytest.mark.parametrize("tilt_rad", [np.pi / 2, 0.5])
def test_a_t_that_does_not_lie_flat_is_a_blob_and_no_t(view: View, tilt_rad: float) -> None:
    data, at = view.world.data, view.world.model.joint("tee").qposadr[0]
    view.world.place_tee(MIDDLE)
    data.qpos[at + 2] = 0.06
    data.qpos[at + 3 : at + 7] = [np.cos(tilt_rad / 2), np.sin(tilt_rad / 2), 0.0, 0.0]
    mujoco.mj_forward(view.world.model, data)
    picture = view.world.picture()
    assert not find_tee(picture, view.camera).found
    blob = find_blob(picture, view.camera)
    assert blob is not None
    assert np.hypot(blob.x_m - MIDDLE[0], blob.y_m - MIDDLE[1]) < 0.05
