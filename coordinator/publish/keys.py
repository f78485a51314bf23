"""The key pair that signs the bundles of a run: made once, kept in a folder that only its owner can read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from coordinator.errors import CoordinatorError

PRIVATE_FILE = "signing.pem"
OWNER_ONLY_FILE = 0o600
OWNER_ONLY_FOLDER = 0o700
OTHERS = 0o077


class KeyRefused(CoordinatorError):
    """The private key cannot be made, read or trusted to be private."""


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key; `sign` is all that the private half is for."""

    _private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """The 32 raw bytes that stations trust."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over `data`."""
        return self._private.sign(data)


def load_or_make(folder: Path) -> KeyPair:
    """Return the key pair in `folder`, made now if there is none.

    Raises:
        KeyRefused: no Ed25519 key, one that others can read, or a folder that cannot be written.
    """
    path = folder / PRIVATE_FILE
    try:
        folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        if not path.exists():
            _write_new(path, Ed25519PrivateKey.generate())
        if path.stat().st_mode & OTHERS:
            raise KeyRefused(f"others can read the private key {path}; make a new one, or chmod 600 if you trust it")
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise KeyRefused(f"cannot use the private key {path}: {error.strerror}") from error
    except ValueError as error:
        raise KeyRefused(f"{path} is not a private key: {error}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyRefused(f"{path} is not an Ed25519 key; move it away and a new one is made")
    return KeyPair(private)


def _write_new(path: Path, private: Ed25519PrivateKey) -> None:
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Private from its first byte on, and never over a key that another process has just made.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY_FILE)
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
