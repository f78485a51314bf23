"""What travels between the edge's processes: measured state and asked-for setpoints.

Times are nanoseconds of the station's own monotonic clock (simulated time on an emulated station).
`Scene` and `Observation`, which a policy may see as well, live in `policies.interface`.
"""

from __future__ import annotations

from dataclasses import dataclass

from policies.interface import Array

CONTROL_HZ = 240.0
MOTORS = 7  # six joints and the gripper
# No setpoint is followed for longer, whatever expiry it brings: one and a half periods of the policy. With the at
# most 50 ms that braking from full speed takes, an arm whose policy is gone stands within 0.1 s.
LONGEST_LIFE_NS = 50_000_000


@dataclass(frozen=True)
class ArmState:
    """The newest measured joints, in the joint frame (offsets and directions applied)."""

    time_ns: int
    position_rad: Array  # (6,)
    velocity_rad_s: Array  # (6,)
    torque_nm: Array  # (6,)
    gripper_m: float  # jaw opening
    fault: str = ""  # one sentence, empty while every motor is enabled and answering


@dataclass(frozen=True)
class Setpoint:
    """Asked-for joints and the time after which they mean `hold`."""

    position_rad: Array  # (6,)
    gripper_m: float
    expires_ns: int
