"""Who either end of a link is: PEM files, and the settings that make zenoh ask for them and believe them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "transport/link/tls"
AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "certificate.pem", "key.pem"  # of an edge's identity
IDENTITY_FOLDER = "identity"  # of a station
OTHERS = 0o077  # the permissions that a private file does not have


@dataclass(frozen=True)
class Tls:
    """PEM files with which an end proves who it is."""

    authority: Path  # whose certificates are believed
    certificate: Path
    key: Path

    @staticmethod
    def of(identity: Path) -> Tls:
        """Return the files of an edge's identity, be they there or not."""
        return Tls(*(identity / name for name in (AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE)))


def listening(tls: Tls, mutual: bool = True) -> dict[str, Any]:
    """Return the settings of who listens; `mutual` lets in nobody without a certificate of the authority's."""
    more = {"root_ca_certificate": str(tls.authority), "enable_mtls": True} if mutual else {}
    return _settings({"listen_certificate": str(tls.certificate), "listen_private_key": str(tls.key), **more})


def connecting(authority: Path, own: Tls | None) -> dict[str, Any]:
    """Return the settings of who connects: whose certificates are believed, and what is shown, if anything."""
    more = {}
    if own is not None:
        files = {"connect_certificate": str(own.certificate), "connect_private_key": str(own.key)}
        more = {"enable_mtls": True, **files}
    return _settings({"root_ca_certificate": str(authority), **more})


def _settings(values: dict[str, Any]) -> dict[str, Any]:
    # Without this a link outlives the certificate that it was opened with.
    return {f"{PREFIX}/{name}": value for name, value in {**values, "close_link_on_expiration": True}.items()}
