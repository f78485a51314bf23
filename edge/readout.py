"""The joints of an arm as a table for a person, made from what the motors say of themselves."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from edge.control.process import motors_of
from edge.station import Station
from firmware_bridge.damiao import Feedback, status_name


def table(station: Station, feedback: Mapping[int, Feedback]) -> Table:
    """Return one row a motor, whole in 80 columns; a motor that did not answer says so."""
    # Units below their names, and a box without sides: the longest state, "communication lost", is then not cut.
    heads = ("motor", "type", "state", "angle\nrad", "velocity\nrad/s", "torque\nN m", "MOSFET\nC", "coil\nC")
    shown = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for motor in motors_of(station):
        said = feedback.get(motor.number)
        if said is None:
            shown.add_row(str(motor.number), motor.motor_type, "no answer")
            continue
        shown.add_row(
            str(motor.number), motor.motor_type, status_name(said.status), f"{said.position_rad:+.3f}",
            f"{said.velocity_rad_s:+.3f}", f"{said.torque_nm:+.2f}", str(said.mosfet_c), str(said.coil_c),
        )  # fmt: skip
    return shown
