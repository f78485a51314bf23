"""Makes what a person's console shows to listen to all stations: a key, its certificate, and whom to believe."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.enrolment import Enrolment, EnrolmentRefused, console_name, database_of
from coordinator.publish.authority import FOLDER as AUTHORITY_FOLDER
from coordinator.publish.authority import OWNER_ONLY_FILE, OWNER_ONLY_FOLDER, Authority, write_whole
from edge.wire.enrolment import make_csr
from edge.wire.tls import Tls

MOST_DAYS = 366.0
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def enrol_console(run: Path, user: str, into: Path, days: float, now_unix_s: float) -> tuple[Tls, str]:
    """Write a console's identity to a folder that only its owner can read; return it, and the endpoint to connect to.

    A folder that is there already keeps its mode, and only the files are its owner's alone; one that is another's, or
    that others can write to, is refused, as they could put another key or another authority in their place.

    The endpoint is empty where nobody has served the run yet. The key is written last: where it is missing, nothing
    holds the certificate, and the command can be given again.

    Raises:
        CoordinatorError: no run, no such name, a life that is none, or a folder that holds an identity already, is
            another's or can be written to by others.
        OSError: the folder cannot be written.
    """
    if not 0.0 < days <= MOST_DAYS:
        raise EnrolmentRefused(f"a certificate for {days:g} days; give some, at most a year's")
    name, database, tls = console_name(user), database_of(run), Tls.of(into)
    if tls.key.exists():
        raise EnrolmentRefused(f"{into} holds the identity of somebody already; give another --out")
    _check_owned(into)
    authority = Authority(run / AUTHORITY_FOLDER)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(now_unix_s, UTC)
    certificate = authority.issue(make_csr(name, key), name, now, timedelta(days=days))
    with Enrolment(database) as enrolment:
        endpoints = enrolment.endpoints()
        enrolment.console(user, certificate.decode(), now_unix_s + days * 86_400.0, now_unix_s)
    into.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
    _check_owned(into)  # somebody may have made it since
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_whole(tls.authority, authority.file.read_bytes(), OWNER_ONLY_FILE)
    write_whole(tls.certificate, certificate, OWNER_ONLY_FILE)
    write_whole(tls.key, key.private_bytes(serialization.Encoding.PEM, form, nothing), OWNER_ONLY_FILE)
    return tls, endpoints[0] if endpoints else ""


def _check_owned(folder: Path) -> None:
    """Raise EnrolmentRefused where a folder is there and others than its user can write to it, as its owner can."""
    if not folder.exists():
        return
    status, what = folder.stat(), f"{folder}, which is to hold a private key"
    if status.st_uid != os.geteuid():
        raise EnrolmentRefused(f"another user owns {what}; give another --out, or run this as that user")
    if status.st_mode & OTHERS_WRITE:
        raise EnrolmentRefused(f"others can write to {what}; give another --out, or chmod go-w {folder}")
