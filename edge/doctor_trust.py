"""Checks of whom a station trusts, of its clock and its certificate, and of the policy that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cryptography import x509

from edge.activation.journal import ActivationError, Journal
from edge.finding import FAILED, OK, WARNING, Finding
from edge.station import Station
from edge.trust.errors import TrustError
from edge.trust.floor import FILE, read_floor

DAY_S = 86400.0
ENROL = "get a ticket at the coordinator (enpire-coord enrol ticket), then enpire-edge enrol"


def check_trust(station: Station, now_unix_s: float) -> Iterator[Finding]:
    """Yield the findings of each check; nothing is written."""
    yield _root(station, now_unix_s)
    if station.endpoint.startswith("tls/"):
        yield _certificate(station, now_unix_s)
    yield _policy(station)


def _root(station: Station, now_unix_s: float) -> Finding:
    trust = station.folder / "trust"
    if not (trust / "root.json").exists():
        return Finding("trust", WARNING, "nobody's signature counts here, so that no policy is run", ENROL)
    try:
        floor = read_floor((trust / FILE, station.folder / FILE))
        if floor is None:
            return Finding("trust", OK, "a root of trust, and nothing that was signed has come yet")
        floor.check_clock(now_unix_s)
    except TrustError as error:
        return Finding("trust", FAILED, str(error))
    age_s = now_unix_s - floor.wall_unix_s
    return Finding(
        "trust", OK, f"signed metadata was last kept {age_s / 3600.0:.1f} h ago; {len(floor.revoked)} revoked"
    )


def _certificate(station: Station, now_unix_s: float) -> Finding:
    path = station.folder / "identity" / "certificate.pem"
    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except OSError:
        return Finding(
            "certificate", FAILED, "this station has none, and the coordinator lets nobody in without", ENROL
        )
    except ValueError:
        return Finding("certificate", FAILED, f"{path} is not a certificate", ENROL)
    left_s = (until - datetime.fromtimestamp(now_unix_s, UTC)).total_seconds()
    if left_s <= 0.0:
        return Finding("certificate", FAILED, f"it ended on {until:%Y-%m-%d %H:%M} UTC", ENROL)
    outcome = OK if left_s > DAY_S else WARNING
    remedy = "" if outcome == OK else "it is renewed while the coordinator is in reach; see that it is"
    return Finding("certificate", outcome, f"good until {until:%Y-%m-%d %H:%M} UTC", remedy)


def _policy(station: Station) -> Finding:
    path = station.folder / "activation.db"
    if not path.exists():
        return Finding("policy", OK, "none is in force; leased trials bring their own")
    try:
        with Journal(path) as journal:
            line, newcomer = journal.line(), journal.newcomer()
            missing = line.active != "" and journal.row(line.active).missing
    except ActivationError as error:
        return Finding("policy", FAILED, str(error))
    if missing:
        return Finding(
            "policy", FAILED, f"the files of {line.active[:12]} are gone or damaged", "they are fetched anew"
        )
    active = f"{line.active[:12]} is active" if line.active else "none is in force; leased trials bring their own"
    coming = f"; {newcomer.bundle[:12]} is in {newcomer.state}" if newcomer is not None else ""
    return Finding("policy", OK, active + coming)
