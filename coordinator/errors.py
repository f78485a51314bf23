"""The base of everything that the coordinator raises; each message is one line that says what to do."""

from __future__ import annotations


class CoordinatorError(Exception):
    """Base of everything that the coordinator raises."""
