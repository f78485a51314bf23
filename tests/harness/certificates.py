"""Makes a certificate authority and certificates for 127.0.0.1, all good for a day.

Usage: python tests/harness/certificates.py FOLDER NAME ...

FOLDER gets `authority.pem` and for each name NAME.pem and NAME.key. The authority's own key is not kept.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AUTHORITY = "authority"
VALID = timedelta(days=1)
EARLIER = timedelta(hours=1)  # for clocks that differ
PEM = serialization.Encoding.PEM


def sign(name: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the certificate of a key, signed by the authority's."""
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, AUTHORITY))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=key is by, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(by, hashes.SHA256())
    )
    return certificate.public_bytes(PEM)


def main(folder: Path, names: list[str]) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    (folder / f"{AUTHORITY}.pem").write_bytes(sign(AUTHORITY, authority, authority))
    for name in names:
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.pem").write_bytes(sign(name, key, authority))
        private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(private)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
