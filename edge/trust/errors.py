"""Why something is not trusted; each message is one line for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)


class TrustError(Exception):
    """Base of everything that is raised about trust."""


class Unreachable(TrustError):
    """No answer: nothing is known, and everything stays as it was."""


class NotThere(Unreachable):
    """Whoever was asked is there and has no such file: nothing is known of it, and other files may come."""


class NotGranted(TrustError):
    """The repository is sound, and nothing in it names what was asked for."""


class Tampered(TrustError):
    """Metadata or a file is refused; what was trusted before still is."""


class Stale(Tampered):
    """Sound once, and its time is over: either nobody renews it, or somebody keeps newer metadata from us."""


class ClockSuspect(TrustError):
    """The clock is earlier than it can be: expiry means nothing, and nothing new may be activated."""


@contextmanager
def told() -> Iterator[None]:
    """Say in this package's words why python-tuf refuses, or that it knows nothing."""
    try:
        yield
    except ExpiredMetadataError as error:
        raise Stale(f"{_line(error)}; is the clock right, and does somebody sign it anew?") from error
    except (RepositoryError, DownloadLengthMismatchError) as error:
        raise Tampered(_line(error)) from error
    except DownloadHTTPError as error:
        raise NotThere(_line(error)) from error
    except DownloadError as error:
        raise Unreachable(_line(error)) from error
    except OSError as error:
        raise TrustError(f"cannot use {error.filename}: {error.strerror}") from error


def _line(error: Exception) -> str:
    """Return one line with the cause: python-tuf's own message may only say that something failed."""
    cause = f" ({error.__cause__})" if error.__cause__ else ""
    return " ".join(f"{error}{cause}".split())[:300]
