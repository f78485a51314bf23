"""Pin insertion: laws of its judge, and one emulated bench from the inside against the truth."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("MUJOCO_GL", "egl")

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edge.arm import load_arm
from edge.emulation.bench import EmulatedBench
from edge.emulation.pin_insertion import PinSetting
from edge.emulation.stations import make_stations
from edge.emulation.world import World
from edge.perception.pin import see_pin
from edge.planning.kinematics import chain_of, tool_pose
from edge.records import Outcome
from edge.station import Station, StationError, load_station
from edge.tasks.pin_insertion.geometry import SEATED_M, SOCKET_TOP_M
from edge.tasks.pin_insertion.task import (
    ABSTAIN_BAND_M,
    AGREE_M,
    ALIGNED_M,
    FORCE_LIMIT_N,
    HELD_N_M,
    PinInsertion,
    Terms,
    judge,
)
from edge.trials.robot import Bench, StationRobot
from policies.bundle import build, bundle_id, open_bundle, read_unpacked, unpack
from policies.host import load_run
from policies.pin_insertion.policy import AGAIN, SKILLS, follow
from policies.skills.insertion import Hand, descend
from policies.skills.program import PROGRAM, check, insertions, read_steps, write_steps
from policies.skills.wrench import jacobian
from policies.space import load_space

SEATED = Terms(0.018, 0.001, 0.018, 10.0, 2000.0)
MISSED = Terms(0.0, 0.003, 0.001, 10.0, 0.0)
START = {"x_off_m": 0.012, "y_off_m": -0.008, "height_m": 0.015}
POLICY = Path(__file__).parents[2] / "policies" / "pin_insertion"
TUNED = {
    "close_encoder_loop": True, "hold_upright": True, "average_looks": True, "wait_at_dips": True,
    "descend_speed_m_s": 0.02, "contact_force_n": 5.0, "press_force_n": 8.0, "search_force_n": 2.0,
    "approach_height_m": 0.008, "search_radius_m": 0.003, "search_pitch_m": 0.0006, "search_speed_m_s": 0.005,
    "tries": 3.0,
}  # fmt: skip
TUNED_STEPS = ("look", "above", "settle", "descend", "look_at_touch", "spiral", "press", "again")


@pytest.mark.parametrize(
    ("terms", "outcome", "cause"),
    [
        (SEATED, Outcome.SUCCESS, ""),
        (MISSED, Outcome.FAILURE, "missed"),
        (replace(SEATED, pressed_n=FORCE_LIMIT_N), Outcome.SUCCESS, ""),
        (replace(SEATED, pressed_n=FORCE_LIMIT_N + 0.1), Outcome.FAILURE, "forced"),
        (replace(SEATED, pressed_n=float("nan")), Outcome.FAILURE, "forced"),
        (replace(SEATED, stiffness_n_m=HELD_N_M), Outcome.SUCCESS, ""),
        (replace(SEATED, stiffness_n_m=HELD_N_M - 1), Outcome.INVALID, "disagreement"),
        (replace(SEATED, stiffness_n_m=float("nan")), Outcome.INVALID, "disagreement"),
        (replace(SEATED, seen_off_m=ALIGNED_M + 1e-6), Outcome.INVALID, "disagreement"),
        (replace(SEATED, seen_depth_m=None), Outcome.INVALID, "unseen"),
        (replace(MISSED, seen_depth_m=None), Outcome.INVALID, "unseen"),
        (replace(SEATED, seen_depth_m=0.010), Outcome.INVALID, "disagreement"),
        (replace(SEATED, felt_depth_m=0.010), Outcome.INVALID, "disagreement"),
        (replace(SEATED, seen_depth_m=0.0, stiffness_n_m=0.0), Outcome.FAILURE, "beside"),
        (replace(SEATED, seen_depth_m=0.008, felt_depth_m=0.009), Outcome.FAILURE, "shallow"),
        (replace(MISSED, felt_depth_m=-0.010), Outcome.FAILURE, "short"),
        (replace(MISSED, felt_depth_m=-0.010, stiffness_n_m=2000.0), Outcome.INVALID, "disagreement"),
        (replace(MISSED, felt_depth_m=MISSED.seen_depth_m + AGREE_M + 1e-6), Outcome.INVALID, "disagreement"),
        (replace(SEATED, felt_depth_m=float("nan")), Outcome.INVALID, "disagreement"),
    ],
)  # fmt: skip
def test_the_judge_wants_three_terms_for_a_success_and_names_what_a_failure_lacked(
    terms: Terms, outcome: Outcome, cause: str
) -> None:
    verdict = judge(terms)
    assert (verdict.outcome, verdict.cause) == (outcome, cause)
    assert (verdict.progress == 1.0) == (outcome is Outcome.SUCCESS)


def test_the_judge_abstains_in_the_band_around_the_threshold() -> None:
    for depth_m in np.linspace(0.010, 0.018, 161):
        verdict = judge(replace(SEATED, seen_depth_m=float(depth_m), felt_depth_m=float(depth_m)))
        if abs(depth_m - SEATED_M) <= ABSTAIN_BAND_M:
            assert (verdict.outcome, verdict.cause) == (Outcome.INVALID, "undecided")
        else:
            assert verdict.outcome is (Outcome.SUCCESS if depth_m > SEATED_M else Outcome.FAILURE)


def test_the_deeper_pin_shows_more_progress_and_one_beside_the_socket_none() -> None:
    shallow = [judge(replace(SEATED, seen_depth_m=d, felt_depth_m=d)).progress for d in (0.004, 0.008, 0.012)]
    assert shallow == sorted(set(shallow))
    assert judge(replace(SEATED, seen_depth_m=0.0, stiffness_n_m=0.0)).progress == 0.0


@dataclass
class Here:
    station: Station
    world: World
    setting: PinSetting
    robot: StationRobot


def bench(folder: Path, seed: int) -> Here:
    make_stations(folder, 1, seed, "pin_insertion", "tcp/127.0.0.1:1")
    station = load_station(folder / "station-1")
    assert station.emulation is not None
    world = World(station, station.emulation.seed)
    drivers = EmulatedBench(station, world)
    robot = StationRobot(
        Bench(drivers.advance, drivers.state, drivers.look, lambda: False, drivers.power_up, drivers.limit),
        chain_of(station.arm, station.tool.length_m, station.limits), station, 0.0,
    )  # fmt: skip
    assert isinstance(world.setting, PinSetting)
    return Here(station, world, world.setting, robot)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = bench(tmp_path, 1)
    yield made
    made.world.close()


def test_a_policy_s_jacobian_is_the_arm_s() -> None:
    arm = load_arm()
    chain = chain_of(arm, 0.045, arm.limits)
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints_rad = rng.uniform(arm.limits.lower_rad, arm.limits.upper_rad)
        tip_m, _ = tool_pose(chain, joints_rad)
        moved = [tool_pose(chain, joints_rad + 1e-6 * np.eye(6)[joint])[0] - tip_m for joint in range(6)]
        np.testing.assert_allclose(jacobian(joints_rad, tip_m), np.array(moved).T * 1e6, atol=2e-5)


def test_no_bench_is_made_for_a_task_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(StationError, match="knitting"):
        make_stations(tmp_path, 1, 1, "knitting", "tcp/127.0.0.1:1")
    assert not list(tmp_path.iterdir())


def test_the_arm_hovers_where_the_start_says_with_the_whole_pin_in_view(here: Here) -> None:
    task = PinInsertion()
    here.robot.begin(90.0)
    assert not task.ready(here.robot, START).ready
    task.reset(here.robot, START)
    readiness = task.ready(here.robot, START)
    assert readiness.ready, readiness.detail
    depth_m, off_m, _ = here.world.truth()
    assert -depth_m == pytest.approx(START["height_m"], abs=0.004)
    assert off_m == pytest.approx(np.hypot(START["x_off_m"], START["y_off_m"]), abs=0.005)


def test_the_socket_and_what_stands_out_of_it_are_found_to_a_millimetre_or_two(here: Here) -> None:
    here.robot.begin(90.0)
    PinInsertion().reset(here.robot, START)
    hand = Hand(here.robot, 0.2, 0.05)
    camera, world = here.station.calibration.top_camera, here.world
    marking_m = world.data.body("socket").xpos[:2]
    found = {item.name: item for item in see_pin(world.picture(), camera)}
    assert np.hypot(found["socket"].x_m - marking_m[0], found["socket"].y_m - marking_m[1]) < 0.0015
    here.setting.place((0.008, 0.0, 0.0))
    assert descend(hand, 0.026, 0.02, 6.0)
    found = {item.name: item for item in see_pin(world.picture(), camera)}
    tip_m = world.data.site("tool").xpos
    assert np.hypot(found["pin"].x_m - tip_m[0], found["pin"].y_m - tip_m[1]) < 0.002
    assert found["handle"].z_m - found["pin"].z_m == pytest.approx(0.030, abs=0.002)


@pytest.mark.parametrize("picture", [np.zeros((480, 640, 3), np.uint8), np.full((480, 640, 3), 255, np.uint8)])
def test_a_blind_camera_shows_nothing(here: Here, picture: np.ndarray) -> None:
    assert see_pin(picture, here.station.calibration.top_camera) == ()


def test_a_hidden_socket_is_not_guessed(here: Here) -> None:
    picture = here.world.picture()
    camera = here.station.calibration.top_camera
    corners = camera.project(np.array([[*here.setting.hidden.socket_m, SOCKET_TOP_M]]))
    u, v = (int(value) for value in corners[0])
    picture[v - 60 : v + 60, u - 80 : u + 10] = 120
    assert all(item.name != "socket" for item in see_pin(picture, camera))


def test_pressing_on_the_socket_is_felt_as_the_force_that_physics_has_there(here: Here) -> None:
    here.robot.begin(90.0)
    PinInsertion().reset(here.robot, START)
    hand = Hand(here.robot, 0.2, 0.05)
    here.setting.place((0.008, 0.0, 0.0))
    hand.feel_nothing()
    assert descend(hand, 0.020, 0.02, 8.0)
    hand.settle(0.0, 0.5)
    force = np.zeros(6)
    world, pressed_n = here.world, 0.0
    import mujoco

    for contact in range(world.data.ncon):
        mujoco.mj_contactForce(world.model, world.data, contact, force)
        pressed_n += force[0]
    assert pressed_n > 4.0
    assert hand.push_n == pytest.approx(pressed_n, abs=3.0)


def test_the_grip_settles_anew_only_after_the_pin_has_touched_and_come_free(here: Here) -> None:
    pin = here.world.model.body("pin")
    here.robot.begin(90.0)
    hand = Hand(here.robot, 0.2)
    held = [pin.pos.copy()]
    PinInsertion().reset(here.robot, START)
    assert (pin.pos == held[0]).all()
    here.setting.place((0.008, 0.0, 0.0))
    hand = Hand(here.robot, 0.2)
    hand.settle(0.0005, 1.0)
    hand.feel_nothing()
    assert descend(hand, 0.020, 0.02, 5.0)
    hand.let_go()
    assert (pin.pos == held[0]).all()
    hand.line(hand.sent_m + np.array([0.0, 0.0, 0.02]), 0.1)
    hand.settle(0.001, 1.0)
    assert not (pin.pos == held[0]).all()


def test_the_same_seed_gives_the_same_pin(tmp_path: Path) -> None:
    ends = []
    for folder in ("a", "b"):
        made = bench(tmp_path / folder, 3)
        made.robot.begin(60.0)
        PinInsertion().reset(made.robot, START)
        ends.append((made.world.truth(), made.world.picture().tobytes()))
        made.world.close()
    assert ends[0] == ends[1]


def tuned_bundle(into: Path) -> Path:
    """Write the policy with its tuned program as a station unpacks it, and return its folder."""
    source = into / "source"
    shutil.copytree(POLICY, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / PROGRAM).write_bytes(write_steps(TUNED_STEPS))
    archive = build(source, TUNED, {"hypothesis": "", "researcher": "", "commit": ""}, None)
    return unpack(open_bundle(archive, bundle_id(archive)), into / "bundles")


def test_a_tuned_policy_puts_the_pin_in_the_judge_agrees_and_the_reset_pulls_it_out(here: Here, tmp_path: Path) -> None:
    task = PinInsertion()
    here.robot.begin(90.0)
    task.reset(here.robot, START)
    here.robot.begin(task.time_limit_s)
    folder = tuned_bundle(tmp_path)
    load_run(folder, "policy.py")(here.robot, read_unpacked(folder).params)
    assert here.world.truth()[0] > SEATED_M
    here.robot.begin(30.0)
    verdict = task.verify(here.robot, START)
    assert verdict.outcome is Outcome.SUCCESS, verdict.detail
    here.robot.begin(90.0)
    assert not task.ready(here.robot, START).ready
    task.reset(here.robot, START)
    assert task.ready(here.robot, START).ready
    assert here.world.truth()[0] < 0.0


def test_what_ships_says_what_may_be_varied() -> None:
    space = load_space(POLICY)
    assert (space.name, space.task) == ("pin_insertion", "pin_insertion")
    assert not any(space.defaults()[idea.name] for idea in space.ideas)
    space.validate(TUNED)
    classes = {"missed", "shallow", "short", "beside", "forced", "timeout"}
    assert {word for item in (*space.items, *space.skills) for word in item.helps} <= classes


def test_the_program_that_ships_is_naive_and_the_tuned_one_is_four_single_steps_away() -> None:
    skills = load_space(POLICY).skills
    assert {skill.name for skill in skills} == {*SKILLS, AGAIN}
    steps = read_steps((POLICY / PROGRAM).read_bytes())
    assert steps == ("look", "above", "descend", "press")
    for name in ("settle", "look_at_touch", "spiral", "again"):
        [steps] = [
            longer
            for longer in insertions(steps, skills)
            if tuple(step for step in TUNED_STEPS if step in (*steps, name)) == longer
        ]
    check(steps, skills)
    assert steps == TUNED_STEPS


def test_every_program_that_is_one_step_longer_comes_down_on_the_socket(here: Here) -> None:
    space = load_space(POLICY)
    naive = read_steps((POLICY / PROGRAM).read_bytes())
    params = space.complete(TUNED | {"search_radius_m": 0.0005, "tries": 2.0})
    for steps in insertions(naive, space.skills):
        here.robot.begin(90.0)
        PinInsertion().reset(here.robot, START)
        here.robot.begin(60.0)
        follow(here.robot, params, steps)
        assert here.robot.observe().tool_position_m[2] < SOCKET_TOP_M + 0.003
