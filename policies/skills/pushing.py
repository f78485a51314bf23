"""Predicting and choosing planar pushes: where a flat block goes when a round stick pushes one of its edges.

Quasi-static pushing with an ellipsoidal limit surface (Goyal, Ruina and Papadopoulos 1991; motion equations of Lynch,
Maekawa and Tanie 1992): inside the friction cone the contact sticks, outside it slides along the edge.
All candidates are simulated at once, each a straight push at an edge, in steps of a few millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.interface import Array

Pose = tuple[float, float, float]  # x_m, y_m, yaw_rad of the block


@dataclass(frozen=True)
class Block:
    """A flat block seen from above and how it answers a push."""

    outline_m: Array  # (corners, 2) in its own frame, counter-clockwise
    radius_m: float = 0.045  # ratio of turning to sliding resistance, about the block's gyration radius
    friction: float = 0.3  # stick on block


@dataclass(frozen=True)
class Contacts:
    """Places where the stick can touch the block, in the block's frame."""

    point_m: Array  # (n, 2)
    inward: Array  # (n, 2) unit normals
    low_m: Array  # (n,) how far along the edge the contact may slide back
    high_m: Array  # (n,)


@dataclass(frozen=True)
class Push:
    """One chosen push, in the base frame."""

    start_m: Array  # (2,) stick centre before contact
    end_m: Array  # (2,) stick centre at the end
    predicted: Pose
    cost_m: float


@dataclass(frozen=True)
class Choice:
    """What `choose` may consider."""

    stick_radius_m: float = 0.0075
    standoff_m: float = 0.015
    clearance_m: float = 0.006  # between stick and block where the stick comes down
    step_m: float = 0.004
    longest_m: float = 0.12
    shortest_m: float = 0.0
    angle_weight_m: float = 0.05  # metres that one radian of yaw error counts for
    ring_m: tuple[float, float] = (0.17, 0.46)  # where the stick can stand, from the base axis
    tilts_rad: tuple[float, ...] = (0.0,)  # push directions off the normal


def contacts(block: Block, spacing_m: float = 0.012, margin_m: float = 0.006) -> Contacts:
    """Return contact places every `spacing_m` along each edge, at least `margin_m` from its corners."""
    points, normals, lows, highs = [], [], [], []
    corners = block.outline_m
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.linalg.norm(b - a))
        along = (b - a) / length
        inward = np.array([-along[1], along[0]])
        count = max(1, round((length - 2 * margin_m) / spacing_m))
        for at in np.linspace(margin_m, length - margin_m, count + 1):
            points.append(a + along * at)
            normals.append(inward)
            lows.append(-at)
            highs.append(length - at)
    return Contacts(np.array(points), np.array(normals), np.array(lows), np.array(highs))


def choose(block: Block, places: Contacts, pose: Pose, goal: Pose, options: Choice) -> Push | None:
    """Return the push whose predicted end is closest to the goal, or None where no push can start."""
    starts, directions, owner = _starts(places, pose, options)
    usable = _reachable(block, pose, starts, options)
    if not usable.any():
        return None
    starts, directions, owner = starts[usable], directions[usable], owner[usable]
    ends = predict(block, places, owner, pose, starts, directions, options)  # (steps, n, 3)
    cost = cost_m(ends, goal, options.angle_weight_m)
    first = int(np.ceil(options.shortest_m / options.step_m))
    cost[:first] = np.inf
    travel = options.standoff_m + options.step_m * np.arange(1, len(ends) + 1)
    finish = starts[None] + directions[None] * travel[:, None, None]
    distance = np.linalg.norm(finish, axis=-1)
    cost[(distance < options.ring_m[0]) | (distance > options.ring_m[1])] = np.inf
    step, which = np.unravel_index(int(np.argmin(cost)), cost.shape)
    if not np.isfinite(cost[step, which]):
        return None
    x, y, yaw = ends[step, which]
    return Push(starts[which], finish[step, which], (float(x), float(y), float(yaw)), float(cost[step, which]))


def cost_m(poses: Array, goal: Pose, angle_weight_m: float) -> Array:
    """Return the distance (...,) of poses (..., 3) to the goal, with yaw counted in metres."""
    away = np.hypot(poses[..., 0] - goal[0], poses[..., 1] - goal[1])
    turned = (poses[..., 2] - goal[2] + np.pi) % (2 * np.pi) - np.pi
    return np.asarray(np.hypot(away, angle_weight_m * turned))


def predict(
    block: Block, places: Contacts, owner: Array, pose: Pose, starts: Array, directions: Array, options: Choice
) -> Array:
    """Return the block's poses (steps, n, 3) while n sticks, each alone, push it from their starts.

    Args:
        owner: (n,) index of the contact place that each stick pushes at.
        starts: (n, 2) stick centres before contact, `standoff_m` off the edge.
        directions: (n, 2) unit push directions in the base frame.
    """
    point, inward = places.point_m[owner], places.inward[owner]
    along = np.stack([inward[:, 1], -inward[:, 0]], axis=1)
    low, high = places.low_m[owner], places.high_m[owner]
    state = np.tile(np.asarray(pose, dtype=np.float64), (len(owner), 1))
    steps = round(options.longest_m / options.step_m)
    history = np.empty((steps, len(owner), 3))
    stick = starts + directions * options.standoff_m
    square = block.radius_m**2
    slope = block.friction
    for k in range(steps):
        stick = stick + directions * options.step_m
        cosine, sine = np.cos(state[:, 2]), np.sin(state[:, 2])
        offset = stick - state[:, :2]
        local = np.stack(
            [cosine * offset[:, 0] + sine * offset[:, 1], -sine * offset[:, 0] + cosine * offset[:, 1]], axis=1
        )
        depth = options.stick_radius_m + ((local - point) * inward).sum(1)
        slid = ((local - point) * along).sum(1)
        touching = (depth > 0) & (slid >= low) & (slid <= high)
        push = np.stack(
            [
                cosine * directions[:, 0] + sine * directions[:, 1],
                -sine * directions[:, 0] + cosine * directions[:, 1],
            ],
            axis=1,
        )
        # Scale so that the normal motion of the contact resolves the depth.
        normal_push = (push * inward).sum(1)
        push = push * (depth / np.maximum(normal_push, 0.2))[:, None]
        contact = local + inward * options.stick_radius_m
        x, y = contact[:, 0], contact[:, 1]
        total = square + x * x + y * y
        vx = ((square + x * x) * push[:, 0] + x * y * push[:, 1]) / total
        vy = (x * y * push[:, 0] + (square + y * y) * push[:, 1]) / total
        # The force is parallel to the centre's motion; outside the cone it lies on the cone and the contact slides.
        fn, ft = vx * inward[:, 0] + vy * inward[:, 1], vx * along[:, 0] + vy * along[:, 1]
        sliding = np.abs(ft) > slope * np.maximum(fn, 1e-12)
        edge = inward + along * (np.sign(ft) * slope)[:, None]
        turn = (x * edge[:, 1] - y * edge[:, 0]) / square
        reach = (edge * inward).sum(1) + turn * (x * inward[:, 1] - y * inward[:, 0])
        scale = depth / np.maximum(reach, 1e-6)
        vx = np.where(sliding, edge[:, 0] * scale, vx)
        vy = np.where(sliding, edge[:, 1] * scale, vy)
        spin = (x * vy - y * vx) / square
        moved = np.where(touching, 1.0, 0.0)
        state = state + moved[:, None] * np.stack([cosine * vx - sine * vy, sine * vx + cosine * vy, spin], axis=1)
        history[k] = state
    return history


def _starts(places: Contacts, pose: Pose, options: Choice) -> tuple[Array, Array, Array]:
    """Return stick centres (n, 2), directions (n, 2) and the contact each belongs to (n,)."""
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    turn = np.array([[cosine, -sine], [sine, cosine]])
    points = places.point_m @ turn.T + np.asarray(pose[:2])
    normals = places.inward @ turn.T
    starts, directions, owners = [], [], []
    for tilt in options.tilts_rad:
        c, s = np.cos(tilt), np.sin(tilt)
        direction = normals @ np.array([[c, -s], [s, c]]).T
        starts.append(points - normals * options.stick_radius_m - direction * options.standoff_m)
        directions.append(direction)
        owners.append(np.arange(len(points)))
    return np.concatenate(starts), np.concatenate(directions), np.concatenate(owners)


def _reachable(block: Block, pose: Pose, starts: Array, options: Choice) -> Array:
    """Return which starts (n,) the stick can stand at: inside the ring and clear of the block."""
    radius = np.linalg.norm(starts, axis=1)
    inside_ring = (radius >= options.ring_m[0]) & (radius <= options.ring_m[1])
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    offset = starts - np.asarray(pose[:2])
    local = np.stack(
        [cosine * offset[:, 0] + sine * offset[:, 1], -sine * offset[:, 0] + cosine * offset[:, 1]], axis=1
    )
    return np.asarray(inside_ring & (distance_m(block.outline_m, local) > options.stick_radius_m + options.clearance_m))


def distance_m(outline_m: Array, points: Array) -> Array:
    """Return the distance (n,) of points (n, 2) to a polygon, negative inside."""
    a, b = outline_m, np.roll(outline_m, -1, axis=0)
    edge = b - a
    offset = points[:, None] - a[None]
    share = np.clip((offset * edge).sum(-1) / (edge * edge).sum(-1), 0.0, 1.0)
    nearest = np.linalg.norm(offset - share[..., None] * edge, axis=-1).min(1)
    crosses = (a[:, 1] > points[:, None, 1]) != (b[:, 1] > points[:, None, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[:, 0] + (points[:, None, 1] - a[:, 1]) * edge[:, 0] / edge[:, 1]
    inside = (crosses & (points[:, None, 0] < at)).sum(1) % 2 == 1
    return np.asarray(np.where(inside, -nearest, nearest))
