"""Which task has which judge."""

from __future__ import annotations

from edge.tasks.pin_insertion.task import PinInsertion
from edge.tasks.push_t.task import PushT
from edge.tasks.task import Task

TASKS: dict[str, type[Task]] = {"push_t": PushT, "pin_insertion": PinInsertion}
