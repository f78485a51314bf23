"""The lab's keys: one online key that the coordinator uses, and keys that people keep.

- A private key is a PEM file of PKCS8 with Ed25519 that only its owner can read, under a passphrase or not.
- A person's key may lie in hardware instead: its URI is handed to securesystemslib, which knows hsm:, awskms: and more.
- `ring.json` lists the public halves, so that people's private halves may be taken elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import Error as SslibError
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key, Signer, SSlibKey

from coordinator.errors import CoordinatorError

RING, ONLINE = "ring.json", "online.pem"
OWNER_ONLY_FILE, OWNER_ONLY_FOLDER, OTHERS = 0o600, 0o700, 0o077
FILE_SCHEME = "file2"
PUBLIC_HALF = b"-----BEGIN PUBLIC KEY-----"
MAX_KEY_BYTES = 16 << 10
PROBE = b"ENPIRE: which key is this?"
Ask = Callable[[str], str]  # the name of a key -> its passphrase or PIN


class KeyRefused(CoordinatorError):
    """A private key cannot be made, read or trusted to be private."""


@dataclass(frozen=True)
class Keyring:
    """The keys of a lab: the public halves of all, and the private halves that are at hand."""

    folder: Path
    threshold: int  # how many people it takes to release something
    online: Signer
    people: Mapping[str, Key]  # name -> public half
    humans: tuple[Signer, ...] = ()  # of those people, whose private halves are at hand

    @classmethod
    def open(cls, folder: Path, ask: Ask | None = None, humans: bool = False) -> Keyring:
        """Return the ring in `folder` with the online key, and with people's keys that lie there where `humans`.

        Raises:
            KeyRefused: no ring, or a key in it cannot be used.
        """
        threshold, people = read_ring(folder)
        files = [folder / f"{name}.pem" for name in people] if humans else []
        signers = tuple(read_file(path, ask) for path in files if path.exists())
        return cls(folder, threshold, read_file(folder / ONLINE, ask), people, signers)

    @classmethod
    def for_demo(cls, folder: Path) -> Keyring:
        """Return the ring in `folder`, made now if there is none: one person, whose word is enough."""
        if not (folder / RING).exists():
            make(folder, humans=1, threshold=1)
        return cls.open(folder, humans=True)


def read_ring(folder: Path) -> tuple[int, dict[str, Key]]:
    """Return the threshold and the public keys of people of the ring in `folder`.

    Raises:
        KeyRefused: there is none, or it is not one.
    """
    try:
        raw = json.loads((folder / RING).read_bytes())
        return int(raw["threshold"]), {str(name): _key_from(item) for name, item in raw["humans"].items()}
    except OSError as error:
        raise KeyRefused(f"no keys in {folder} ({error.strerror}); make them: enpire-coord keys make") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise KeyRefused(f"{folder / RING} is not a list of keys ({error!r:.80})") from error


def make(
    folder: Path,
    humans: int = 2,
    threshold: int = 2,
    passphrase: str | None = None,
    hardware: Mapping[str, Path] | None = None,
) -> None:
    """Make a ring in `folder`: an online key, `humans` keys in files, and those whose public PEM `hardware` names.

    The passphrase covers people's keys alone: the coordinator starts again by itself after a power cut.

    Raises:
        KeyRefused: there are keys already, fewer keys than the threshold, or a file that cannot be written or read.
    """
    named = {f"human-{number}": CryptoSigner.generate_ed25519() for number in range(1, humans + 1)}
    people: dict[str, Key] = {name: signer.public_key for name, signer in named.items()}
    for name, path in (hardware or {}).items():
        people[name] = read_public(path)
    if not 1 <= threshold <= len(people):
        raise KeyRefused(f"{len(people)} keys of people cannot reach a threshold of {threshold}; make more keys")
    if (folder / RING).exists():
        raise KeyRefused(f"{folder} holds keys already; choose another folder, or rotate: enpire-coord keys rotate")
    try:
        folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)
        write_new(folder / ONLINE, CryptoSigner.generate_ed25519())
        for name, signer in named.items():
            write_new(folder / f"{name}.pem", signer, passphrase)
            write_public(folder / f"{name}.pub.pem", signer.public_key)
        write_ring(folder, threshold, people)
    except OSError as error:
        raise KeyRefused(f"cannot make keys in {folder}: {error.strerror}") from error


def write_ring(folder: Path, threshold: int, people: Mapping[str, Key]) -> None:
    """Write the list of people's public keys, all of it or none."""
    listed = {name: {"keyid": key.keyid, **key.to_dict()} for name, key in people.items()}
    unfinished = folder / f".{RING}"
    _write(unfinished, json.dumps({"threshold": threshold, "humans": listed}, indent=1).encode(), os.O_TRUNC)
    unfinished.replace(folder / RING)
    sync_folder(folder)


def write_new(path: Path, signer: CryptoSigner, passphrase: str | None = None) -> None:
    """Write a private key, private from its first byte on, and never over another.

    Raises:
        KeyRefused: there is a file already.
        OSError: it cannot be written.
    """
    cover: KeySerializationEncryption = NoEncryption()
    data = signer.private_bytes
    if passphrase:
        cover = BestAvailableEncryption(passphrase.encode())
        private = load_pem_private_key(data, None)
        data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cover)
    try:
        _write(path, data, os.O_EXCL)
    except FileExistsError:
        raise KeyRefused(f"there is a key in {path} already; move it away") from None


def write_public(path: Path, key: Key) -> None:
    """Write the public half of an Ed25519 key, to be handed to others."""
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def read_file(path: Path, ask: Ask | None = None) -> CryptoSigner:
    """Return the signer whose private key is in `path`; `ask` gives its passphrase where it has one.

    Raises:
        KeyRefused: no Ed25519 key, one that others can read, or a wrong passphrase.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_KEY_BYTES)
            if PUBLIC_HALF in data:
                raise KeyRefused(f"{path} is the public half of a key, which signs nothing; name the private one")
            if os.fstat(file.fileno()).st_mode & OTHERS:
                raise KeyRefused(
                    f"others can read the private key {path}; make a new one, or chmod 600 if you trust it"
                )
        private = _load(data, path, ask)
    except OSError as error:
        raise KeyRefused(f"cannot read the private key {path}: {error.strerror}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyRefused(f"{path} is not an Ed25519 key; make keys with: enpire-coord keys make")
    return CryptoSigner(private)


def read_public(path: Path) -> Key:
    """Return the public key in a PEM file.

    Raises:
        KeyRefused: no public key of a kind that TUF knows.
    """
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except OSError as error:
        raise KeyRefused(f"cannot read the public key {path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused(f"{path} is not a public key in PEM: {error}") from error


def signer_of(what: str, keys: Iterable[Key], ask: Ask | None = None) -> Signer:
    """Return the signer that a person names: a file of theirs, or the URI of a key in hardware.

    A URI does not say which of `keys` it holds, so it signs a probe for each until one fits.

    Raises:
        KeyRefused: it cannot be used, or it is none of `keys`.
    """
    scheme, colon, rest = what.partition(":")
    known = list(keys)
    if not colon or scheme not in SIGNER_FOR_URI_SCHEME or scheme == FILE_SCHEME:
        signer: Signer = read_file(Path(rest if scheme == FILE_SCHEME else what), ask)
        if signer.public_key.keyid not in {key.keyid for key in known}:
            raise KeyRefused(f"{what} is key {signer.public_key.keyid[:12]}, which signs nothing here; see: keys show")
        return signer
    why = "no key of a person is known"
    for key in known:
        try:
            signer = Signer.from_priv_key_uri(what, key, ask)
            key.verify_signature(signer.sign(PROBE), PROBE)
        except Exception as error:  # securesystemslib documents that a signer may raise anything
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        return signer
    raise KeyRefused(f"{what} is none of the keys that sign here ({why:.200})")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _load(data: bytes, path: Path, ask: Ask | None) -> object:
    try:
        return load_pem_private_key(data, None)
    except TypeError:  # it has a passphrase
        if ask is None:
            raise KeyRefused(f"the key {path} has a passphrase; set ENPIRE_KEY_PASSPHRASE") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefused(f"{path} is not a private key: {error}") from error
    try:
        return load_pem_private_key(data, ask(path.name).encode())
    except ValueError:
        raise KeyRefused(f"that is not the passphrase of {path}") from None


def _key_from(item: Mapping[str, Any]) -> Key:
    fields = dict(item)
    try:
        return Key.from_dict(str(fields.pop("keyid")), fields)
    except SslibError as error:
        raise ValueError(str(error)) from error


def _write(path: Path, data: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | how, OWNER_ONLY_FILE)
    with open(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
