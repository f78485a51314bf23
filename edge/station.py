"""One bench, read from `station.toml` into frozen dataclasses and checked before anything moves.

- Units are part of every key; an unknown key is an error, because a misspelt limit must not become no limit.
- The site's limits can only narrow the arm's own.
- A station is either emulated (`[emulation]`) or has a motor bus (`[can]`); or it is a Gymnasium environment
  (`[station] kind = "gymnasium"`), with no arm at all.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from calibration.records import Calibration, load_calibration
from edge.activation.gates import Gates
from edge.arm import ArmModel, Payload, body_of, load_arm
from edge.gym_station.spec import GymSpec, SpecError, read_spec
from edge.messages import CONTROL_HZ
from edge.records import EDGE_NAME
from firmware_bridge import slcan, usb2can
from firmware_bridge.frames import BridgeError
from firmware_bridge.guard import JointLimits, narrow
from policies.interface import JOINTS, POLICY_HZ, Array

FILE = "station.toml"
ARMS = ("yam",)  # with the linear_4310 gripper
TRANSPORTS = ("socketcan", "slcan", "usb2can", "seqpacket")
CAMERA_TIERS = ("full", "small", "none")
# A real station's last 3 GB still hold a thousand trials; an emulated one may run on a laptop that is nearly full.
RESERVE_MB, DISK_MB = 200.0, 64_000.0
EMULATED_RESERVE_MB, EMULATED_DISK_MB = 4.0, 2_000.0
BITRATE = 1_000_000  # of the YAM's motors
# What the guard allows beyond the workspace that the trial runner keeps targets in: targets are met within 2 mm, and
# control brakes 6 mm before the guard's walls.
GUARD_MARGIN_M = 0.008
OPTIONAL_TABLES = {"arena", "emulation", "can", "recording", "storage", "rollout"}
LARGEST = sys.float_info.max  # TOML allows infinity, and whole numbers of any length


class StationError(Exception):
    """A station.toml that is missing or cannot be used; says which key and what to do."""


@dataclass(frozen=True)
class Box:
    """Where the tool may be, in the base frame."""

    lower_m: Array  # (3,)
    upper_m: Array  # (3,)

    def contains(self, position_m: Array) -> bool:
        """Return whether the point is inside; false for NaN."""
        return bool(((position_m >= self.lower_m) & (position_m <= self.upper_m)).all())

    def leads_in(self, from_m: Array, to_m: Array) -> bool:
        """Return whether the way is inside, or leads from outside no further out on any side; false for NaN."""
        lower_m, upper_m = np.minimum(self.lower_m, from_m), np.maximum(self.upper_m, from_m)
        return bool(((to_m >= lower_m) & (to_m <= upper_m)).all())


@dataclass(frozen=True)
class Tool:
    """What the gripper holds for good: its frame's end lies `length_m` beyond the grasp point."""

    name: str
    length_m: float
    mass_kg: float


@dataclass(frozen=True)
class Can:
    """How the motors of a real arm are reached."""

    transport: str  # one of TRANSPORTS
    port: str  # interface, serial port or socket
    bitrate: int
    adapter: str  # of slcan, whose makers number the bitrates differently
    rate_hz: float  # of control


@dataclass(frozen=True)
class Emulation:
    """Present only on an emulated station."""

    seed: int
    faults: Path | None  # a script of faults to inject


@dataclass(frozen=True)
class RecordingTier:
    """How much of a trial its recording keeps."""

    joint_hz: float = POLICY_HZ  # joints and setpoints
    camera: str = "full"  # one of CAMERA_TIERS
    jpeg_quality: int = 80


@dataclass(frozen=True)
class Storage:
    """What the station does with its disk and its link."""

    reserve_mb: float  # kept for the ledger, should the disk be full
    disk_mb: float  # of a larger disk this much counts when its free share is taken
    trial_mb_per_s: float = 4.0  # for recordings on their way to the coordinator while a trial runs


@dataclass(frozen=True)
class Station:
    """Everything that is fixed about one bench."""

    folder: Path
    name: str
    task: str
    arm: ArmModel
    limits: JointLimits
    tool: Tool
    workspace: Box
    arena: Box  # the part of it in which policies work; the appliance's own resets may need more of it
    endpoint: str  # of the coordinator; whose signatures count is in trust/
    calibration: Calibration
    can: Can | None
    emulation: Emulation | None
    recording: RecordingTier
    storage: Storage
    gates: Gates  # that a new policy has to pass here
    station_hash: str
    gym: GymSpec | None = None  # of a station without an arm; its arm, limits and tool then bind nothing

    @property
    def body(self) -> np.ndarray:
        """Where tool and elbow of this arm may be, (1,) of `firmware_bridge.body.BODY`."""
        box, tool = self.workspace, self.tool
        lower_m, upper_m = box.lower_m - GUARD_MARGIN_M, box.upper_m + GUARD_MARGIN_M
        return body_of(self.arm, tool.length_m, lower_m, upper_m, floor_m=0.0)

    @property
    def payload(self) -> Payload:
        """What the gripper holds for good, its mass half way along it."""
        centre_m = self.arm.tool_position_m - np.array([0.0, 0.0, self.tool.length_m / 2])
        return Payload(self.tool.mass_kg, centre_m, np.diag([1e-5, 1e-5, 1e-6]))

    @property
    def calibration_hash(self) -> str:
        """sha256 of the calibration file."""
        return self.calibration.sha256


def load_station(folder: Path) -> Station:
    """Return the station in `folder`.

    Raises:
        StationError: missing file, not TOML, unknown or missing key, wrong type or shape, a limit that is impossible or
            wider than the arm's own.
        CalibrationError: the calibration beside it cannot be used.
    """
    path = folder / FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StationError(_missing(folder)) from error
    try:
        raw = tomllib.loads(text.decode())
    except ValueError as error:  # not TOML, not UTF-8, or a whole number of thousands of digits
        raise StationError(f"{path}: not TOML: {error}; correct the file") from error
    try:
        return _station(folder, raw, hashlib.sha256(text).hexdigest())
    except StationError as error:
        raise StationError(f"{path}: {error}; correct the file") from error


def _missing(folder: Path) -> str:
    """Return what to do where `folder` holds no station."""
    below = sorted(path.parent for path in folder.glob(f"*/{FILE}"))
    if below:
        return f"no {FILE} in {folder}, which holds stations: name one of them, such as {below[0]}"
    return (
        f"no {FILE} in {folder}: give the folder of a station; `enpire-edge make-stations FOLDER` makes emulated ones"
    )


def _station(folder: Path, raw: Mapping[str, Any], sha256: str) -> Station:
    if "station" in raw:
        return _armless(folder, raw, sha256)
    _keys(raw, "", {"name", "task", "arm", "limits", "tool", "workspace", "coordinator"}, OPTIONAL_TABLES)
    if _text(raw["arm"], "arm") not in ARMS:
        raise StationError(f"arm is {raw['arm']!r}; known: {', '.join(ARMS)}")
    arm = load_arm()
    tool = raw["tool"]
    _keys(tool, "tool", {"name", "length_m", "mass_kg"})
    workspace = _box(raw["workspace"], "workspace")
    if ("emulation" in raw) == ("can" in raw):
        raise StationError("wants one of [can] (a real arm) and [emulation], and not both")
    return Station(
        folder=folder,
        name=_name(raw["name"]),
        task=_text(raw["task"], "task"),
        arm=arm,
        limits=_limits(raw["limits"], arm),
        tool=Tool(
            _text(tool["name"], "tool.name"),
            _number(tool["length_m"], "tool.length_m", 0.0, 0.5),
            _number(tool["mass_kg"], "tool.mass_kg", 0.0, 2.0),
        ),
        workspace=workspace,
        arena=_arena(raw["arena"], workspace) if "arena" in raw else workspace,
        endpoint=_endpoint(raw["coordinator"]),
        calibration=load_calibration(folder / "calibration.toml"),
        can=_can(raw["can"]) if "can" in raw else None,
        emulation=_emulation(raw["emulation"], folder) if "emulation" in raw else None,
        recording=_recording(raw.get("recording", {})),
        storage=_storage(raw.get("storage", {}), emulated="emulation" in raw),
        gates=_gates(raw.get("rollout", {})),
        station_hash=sha256,
    )


def _armless(folder: Path, raw: Mapping[str, Any], sha256: str) -> Station:
    """Return a station that is a Gymnasium environment."""
    wanted = {"name", "task", "station", "gymnasium", "workspace", "coordinator"}
    _keys(raw, "", wanted, {"recording", "storage", "rollout"})
    _keys(raw["station"], "station", {"kind"})
    if raw["station"]["kind"] != "gymnasium":
        raise StationError(f"station.kind is {raw['station']['kind']!r}; known: gymnasium")
    try:
        spec = read_spec(raw["gymnasium"])
    except SpecError as error:
        raise StationError(str(error)) from error
    arm = load_arm()
    workspace = _box(raw["workspace"], "workspace")
    return Station(
        folder=folder,
        name=_name(raw["name"]),
        task=_text(raw["task"], "task"),
        arm=arm,
        limits=arm.limits,
        tool=Tool("none", 0.0, 0.0),
        workspace=workspace,
        arena=workspace,
        endpoint=_endpoint(raw["coordinator"]),
        calibration=load_calibration(folder / "calibration.toml"),
        can=None,
        emulation=None,
        recording=_recording(raw.get("recording", {})),
        storage=_storage(raw.get("storage", {}), emulated=True),
        gates=_gates(raw.get("rollout", {})),
        station_hash=sha256,
        gym=spec,
    )


def _box(box: Any, table: str) -> Box:
    _keys(box, table, {"x_m", "y_m", "z_m"})
    ranges = [_numbers(box[axis], f"{table}.{axis}", 2) for axis in ("x_m", "y_m", "z_m")]
    for axis, (low, high) in zip("xyz", ranges, strict=True):
        if not -1.5 <= low < high <= 1.5:
            raise StationError(f"{table}.{axis}_m is [{low}, {high}]: wants low < high within 1.5 m of the base")
    return Box(np.array([low for low, _ in ranges]), np.array([high for _, high in ranges]))


def _arena(raw: Any, workspace: Box) -> Box:
    box = _box(raw, "arena")
    for axis, low, high, least, most in zip(
        "xyz", box.lower_m, box.upper_m, workspace.lower_m, workspace.upper_m, strict=True
    ):
        if low < least or high > most:
            raise StationError(f"arena.{axis}_m is [{low}, {high}], which leaves the workspace's [{least}, {most}]")
    return box


def _endpoint(coordinator: Any) -> str:
    _keys(coordinator, "coordinator", {"endpoint"})
    return _text(coordinator["endpoint"], "coordinator.endpoint")


def _can(raw: Mapping[str, Any]) -> Can:
    _keys(raw, "can", {"transport", "port"}, {"bitrate", "adapter", "rate_hz"})
    transport = _text(raw["transport"], "can.transport")
    if transport not in TRANSPORTS:
        raise StationError(f"can.transport is {transport!r}; known: {', '.join(TRANSPORTS)}")
    if ("adapter" in raw) != (transport == "slcan"):
        raise StationError(
            "can.adapter is for slcan and needed there: lawicel or damiao, which number bitrates differently"
        )
    can = Can(
        transport=transport,
        port=_text(raw["port"], "can.port"),
        bitrate=int(_number(raw.get("bitrate", BITRATE), "can.bitrate", 10_000, BITRATE)),
        adapter=_text(raw.get("adapter", "none"), "can.adapter"),
        rate_hz=_number(raw.get("rate_hz", CONTROL_HZ), "can.rate_hz", 100.0, 500.0),
    )
    try:  # as it will be opened: an adapter that is not known, or has no such bitrate, is refused here and not later
        if transport == "slcan":
            slcan.opening(can.adapter, can.bitrate)
        elif transport == "usb2can":
            usb2can.opening(can.bitrate)
    except BridgeError as error:
        raise StationError(f"[can]: {error}") from error
    return can


def _emulation(raw: Mapping[str, Any], folder: Path) -> Emulation:
    _keys(raw, "emulation", {"seed"}, {"faults"})
    faults = folder / _text(raw["faults"], "emulation.faults") if "faults" in raw else None
    return Emulation(int(_number(raw["seed"], "emulation.seed", 0, 2**53)), faults)


def _recording(raw: Mapping[str, Any]) -> RecordingTier:
    _keys(raw, "recording", set(), {"joint_hz", "camera", "jpeg_quality"})
    camera = _text(raw.get("camera", RecordingTier.camera), "recording.camera")
    if camera not in CAMERA_TIERS:
        raise StationError(f"recording.camera is {camera!r}; known: {', '.join(CAMERA_TIERS)}")
    return RecordingTier(
        _number(raw.get("joint_hz", RecordingTier.joint_hz), "recording.joint_hz", 1.0, POLICY_HZ),
        camera,
        int(_number(raw.get("jpeg_quality", RecordingTier.jpeg_quality), "recording.jpeg_quality", 1, 100)),
    )


def _storage(raw: Mapping[str, Any], emulated: bool) -> Storage:
    _keys(raw, "storage", set(), {"reserve_mb", "disk_mb", "trial_mb_per_s"})
    reserve_mb, disk_mb = (EMULATED_RESERVE_MB, EMULATED_DISK_MB) if emulated else (RESERVE_MB, DISK_MB)
    return Storage(
        _number(raw.get("reserve_mb", reserve_mb), "storage.reserve_mb", 1.0, 10_000.0),
        _number(raw.get("disk_mb", disk_mb), "storage.disk_mb", 1.0, 1e9),
        _number(raw.get("trial_mb_per_s", Storage.trial_mb_per_s), "storage.trial_mb_per_s", 0.01, 10_000.0),
    )


def _gates(raw: Mapping[str, Any]) -> Gates:
    """Return the thresholds of `edge.activation.gates`, those that are named here in place of the usual ones."""
    known = {item.name: item for item in fields(Gates)}
    _keys(raw, "rollout", set(), set(known))
    given = {name: _number(value, f"rollout.{name}", 0.0, 1e6) for name, value in raw.items()}
    typed: Any = {name: int(value) if known[name].type == "int" else value for name, value in given.items()}
    return Gates(**typed)


def _limits(raw: Mapping[str, Any], arm: ArmModel) -> JointLimits:
    _keys(raw, "limits", {"lower_rad", "upper_rad", "velocity_rad_s", "torque_nm"}, {"acceleration_rad_s2"})
    own = arm.limits
    given = {"acceleration_rad_s2": list(own.acceleration_rad_s2), **raw}
    site = {key: np.array(_numbers(given[key], f"limits.{key}", JOINTS)) for key in given}
    for key, allowed, rule in (
        ("lower_rad", site["lower_rad"] >= own.lower_rad, "below the arm's own"),
        ("upper_rad", site["upper_rad"] <= own.upper_rad, "above the arm's own"),
        ("lower_rad", site["lower_rad"] < site["upper_rad"], "not below upper_rad"),
        ("velocity_rad_s", site["velocity_rad_s"] > 0, "not positive"),
        ("velocity_rad_s", site["velocity_rad_s"] <= own.velocity_rad_s, "above the motor's (is it in degrees?)"),
        ("torque_nm", site["torque_nm"] > 0, "not positive"),
        ("torque_nm", site["torque_nm"] <= own.torque_nm, "above the motor's"),
        ("acceleration_rad_s2", site["acceleration_rad_s2"] > 0, "not positive"),
        ("acceleration_rad_s2", site["acceleration_rad_s2"] <= own.acceleration_rad_s2, "above the arm's own"),
    ):
        if not allowed.all():
            joint = int(np.argmin(allowed))
            limit = own.lower_rad[joint] if key == "lower_rad" else getattr(own, key)[joint]
            raise StationError(f"limits.{key} of joint {joint + 1} is {site[key][joint]:g}, {rule} ({limit:g})")
    return narrow(own, JointLimits(**site))


def _keys(raw: Any, where: str, wanted: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    if not isinstance(raw, dict):
        raise StationError(f"{where or 'the file'} is not a table")
    prefix = f"{where}." if where else ""
    for key in sorted(set(raw) - wanted - optional):
        raise StationError(f"unknown key {prefix}{key}; known: {', '.join(sorted(wanted | optional))}")
    for key in sorted(wanted - set(raw)):
        raise StationError(f"missing key {prefix}{key}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise StationError(f"{where} is {value!r}, wants text")
    return value


def _name(value: Any) -> str:
    if not EDGE_NAME.fullmatch(_text(value, "name")):
        raise StationError(f"name is {value!r}, use only letters, digits, - and _")
    return str(value)


def _number(value: Any, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise StationError(f"{where} is {value!r}, wants a number from {low:g} to {high:g}")
    return float(value)


def _numbers(value: Any, where: str, count: int) -> list[float]:
    if not isinstance(value, list) or len(value) != count:
        raise StationError(f"{where} is {value!r}, wants {count} numbers")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int | float) or not -LARGEST <= item <= LARGEST:
            raise StationError(f"{where} holds {item!r}, wants finite numbers")
    return [float(item) for item in value]
