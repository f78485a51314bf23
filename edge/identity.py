"""Who this station is to the coordinator: a key that never leaves it, and a short-lived certificate for that key.

`<station>/identity/` holds `key.pem`, which only its owner can read, `ca.pem`, whose certificates are believed, and
`certificate.pem`. The certificate is written last, whole or not at all: where there is one, the rest fits it.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge.wire.tls import OTHERS

PRIVATE_FILE, PUBLIC_FILE, PRIVATE_FOLDER = 0o600, 0o644, 0o700


class IdentityError(Exception):
    """A station's identity is not what it should be; the message is one line that says what to do."""


def load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key in a file, made now if there is none.

    Raises:
        IdentityError: not such a key, one that others can read, or a disk that does not take it.
    """
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        try:
            path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            write_whole(path, made.private_bytes(serialization.Encoding.PEM, form, nothing), PRIVATE_FILE)
        except OSError as error:
            raise IdentityError(f"cannot write {path}: {error.strerror}") from error
    return load_key(path)


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key in a file.

    Raises:
        IdentityError: no such key, or one that others can read.
    """
    try:
        if path.stat().st_mode & OTHERS:
            raise IdentityError(f"others can read {path} and pose as this station; take it away and enrol anew")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise IdentityError(f"cannot use {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path} is not a private key; take it away and enrol anew") from error
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)):
        raise IdentityError(f"{path} is not a P-256 key; take it away and enrol anew")
    return key


def check_certificate(certificate: str, authority: bytes, edge: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a certificate as PEM once it is sure that it is the authority's word for this edge and key.

    Raises:
        IdentityError: it is not.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError("what came is not a certificate of the authority's") from error
    if [item.value for item in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] != [edge]:
        raise IdentityError(f"the certificate that came is for another name than {edge!r}")
    if found.public_key() != key.public_key():
        raise IdentityError("the certificate that came is for another key than this station's")
    return certificate.encode()


def validity(certificate: Path) -> tuple[datetime, datetime]:
    """Return from when and until when a certificate is good.

    Raises:
        IdentityError: it cannot be read.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise IdentityError(f"{certificate} cannot be read; enrol anew") from error
    return found.not_valid_before_utc, found.not_valid_after_utc


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, on the disk once this returns, readable as told from its first byte on."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
