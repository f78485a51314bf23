"""Makes a lab's authority, and identities of edges as if they had been enrolled.

Usage: python tests/harness/certificates.py FOLDER EDGE ...

FOLDER becomes the authority's, see `coordinator.publish.authority`, and FOLDER/EDGE an edge's identity.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.publish.authority import EDGE_LIFE, Authority
from edge.wire.enrolment import make_csr
from edge.wire.tls import Tls


def make_identity(
    authority: Authority, folder: Path, name: str, life: timedelta = EDGE_LIFE, begins: datetime | None = None
) -> Tls:
    """Make an identity in `folder` that is good for so long from `begins` on, by default from now on."""
    folder.mkdir(parents=True, exist_ok=True)
    key, own = ec.generate_private_key(ec.SECP256R1()), Tls.of(folder)
    own.authority.write_bytes(authority.file.read_bytes())
    own.certificate.write_bytes(authority.issue(make_csr(name, key), name, begins or datetime.now(UTC), life))
    own.key.touch(mode=0o600)
    own.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return own


def main(folder: Path, names: list[str]) -> None:
    """Write the files."""
    authority = Authority(folder)
    for name in names:
        make_identity(authority, folder / name, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
