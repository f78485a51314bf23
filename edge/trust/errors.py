"""Why something is not trusted; each message is one line for a person."""

from __future__ import annotations


class TrustError(Exception):
    """Base of everything that is raised about trust."""


class Unreachable(TrustError):
    """No answer: nothing is known, and everything stays as it was."""


class NotGranted(TrustError):
    """The repository is sound, and nothing in it names what was asked for."""


class Tampered(TrustError):
    """Metadata or a file is refused; what was trusted before still is."""


class Stale(Tampered):
    """Sound once, and its time is over: either nobody renews it, or somebody keeps newer metadata from us."""


class ClockSuspect(TrustError):
    """The clock is earlier than it can be: expiry means nothing, and nothing new may be activated."""
