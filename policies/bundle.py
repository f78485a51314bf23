"""A policy as it travels: a deterministic archive of its files, a manifest that hashes each, and one signature.

- The payload is a zstd-compressed tar: `manifest.json` first, then the files by name, all times and owners zero.
- The final bytes are a msgpack map {payload, signature, key_id}; their sha256 is the bundle's name everywhere. Ed25519
  is deterministic, so the same content signed with the same key has the same name.
- Opening verifies the signature before it looks inside, then allows only what `build` itself would have written: the
  tar is made anew from what was read and must come out equal, which leaves no room for links, paths or padding.
- Signing is not here: the private key stays with `coordinator.publish`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgpack
import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies import space
from policies.interface import Params, PolicyError

FORMAT = 1
MANIFEST = "manifest.json"
NAME = re.compile(r"[a-z_][a-z0-9_]{0,60}\.(py|toml)", re.ASCII)
MAX_BUNDLE_BYTES = 4 << 20
MAX_TAR_BYTES = 8 << 20
MAX_FILES = 64
COMPRESSION_LEVEL = 9


class BundleError(PolicyError):
    """A bundle that cannot be made or used; the message is one line that says what to do."""


class BundleRefused(BundleError):
    """The signature does not cover these bytes, or its key is not trusted here."""


class BundleMalformed(BundleError):
    """Not a bundle, or one that holds what `build` would never write."""


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself."""

    format: int
    policy: str
    task: str
    api: int
    entry: str
    params: Params  # every parameter and idea of the policy with its value
    parent: str | None  # the bundle that this one was made from
    provenance: Mapping[str, Any]  # who made it and why; not used by the edge
    files: Mapping[str, str]  # name -> sha256, hex


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature and hashes were found right."""

    id: str
    manifest: Manifest
    files: Mapping[str, bytes]


def build(folder: Path, params: Params, provenance: Mapping[str, Any], parent: str | None) -> bytes:
    """Return the unsigned payload of the policy in `folder` with `params` (the rest at their defaults).

    Raises:
        SpaceError: the policy.toml is wrong, or a value is outside what it allows.
        BundleError: a file that cannot go into a bundle, or too many bytes.
    """
    policy = space.load_space(folder)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".py", ".toml")}
    manifest = Manifest(
        format=FORMAT,
        policy=policy.name,
        task=policy.task,
        api=policy.api,
        entry=policy.entry,
        params=policy.complete(params),
        parent=parent,
        provenance=dict(provenance),
        files={name: _sha256(data) for name, data in files.items()},
    )
    try:
        _check(manifest, files)
        archive = _tar(manifest, files)
    except BundleMalformed as error:
        raise BundleError(f"cannot bundle {folder}: {error}") from error
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(archive)


def key_id(public_key: bytes) -> str:
    """Return the short name of a public key: the first 16 hex digits of its sha256."""
    return _sha256(public_key)[:16]


def pack_signed(unsigned: bytes, signature: bytes, key_id: str) -> bytes:
    """Return the final bytes of a bundle; `signature` is Ed25519 over `unsigned` as it is."""
    packed: bytes = msgpack.packb({"payload": unsigned, "signature": signature, "key_id": key_id})
    return packed


def bundle_id(data: bytes) -> str:
    """Return the name of a bundle: the sha256 of its final bytes, hex."""
    return _sha256(data)


def open_bundle(data: bytes, trusted: Sequence[bytes]) -> Bundle:
    """Return the bundle in `data`, signed by one of the `trusted` public keys (32 raw bytes each).

    Raises:
        BundleRefused: the signature is not one of theirs, or the bytes were altered after it.
        BundleMalformed: not a bundle, or properly signed and still not one that `build` could have made.
    """
    payload = _verified_payload(data, trusted)
    return _read_tar(_decompress(payload), bundle_id(data))


def unpack(bundle: Bundle, into: Path) -> Path:
    """Write the bundle to `into`/<id> as read-only files and return that folder; all of it is there or none.

    Raises:
        BundleError: it cannot be written.
    """
    final = into / bundle.id
    if final.exists():
        return final
    try:
        into.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=into))
        try:
            _write_all(unfinished, {MANIFEST: _manifest_bytes(bundle.manifest), **bundle.files})
            _rename(unfinished, final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"cannot unpack bundle {bundle.id[:12]} into {into}: {error.strerror}") from error
    return final


def read_unpacked(folder: Path) -> Manifest:
    """Return the manifest of an unpacked bundle after comparing every file with its hash.

    Raises:
        BundleError: not there.
        BundleMalformed: a file is missing, added or changed.
    """
    try:
        raw = {path.name: path.read_bytes() for path in folder.iterdir()}
    except OSError as error:
        raise BundleError(f"cannot read the bundle in {folder}: {error.strerror}") from error
    manifest = _parse_manifest(raw.pop(MANIFEST, b""))
    _check(manifest, raw)
    return manifest


def _verified_payload(data: bytes, trusted: Sequence[bytes]) -> bytes:
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleMalformed(f"a bundle of {len(data)} bytes; at most {MAX_BUNDLE_BYTES} are allowed")
    try:
        outer = msgpack.unpackb(data)
        payload, signature, key = outer["payload"], outer["signature"], outer["key_id"]
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise BundleMalformed("not a signed bundle; fetch it again") from error
    if not (isinstance(payload, bytes) and isinstance(signature, bytes) and isinstance(key, str)):
        raise BundleMalformed("not a signed bundle; fetch it again")
    if data != pack_signed(payload, signature, key):
        raise BundleMalformed("a bundle with something around it; fetch it again")
    public = next((item for item in trusted if key_id(item) == key), None)
    if public is None:
        raise BundleRefused(
            f"signed with key {key!r:.40}, which is not trusted here; trust it in station.toml if you do"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, payload)
    except InvalidSignature as error:
        raise BundleRefused("altered after it was signed; fetch it again, and look who altered it") from error
    return payload


def _decompress(payload: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=MAX_TAR_BYTES).stream_reader(payload) as reader:
            archive: bytes = reader.read(MAX_TAR_BYTES + 1)
    except zstandard.ZstdError as error:
        raise BundleMalformed(f"the payload is not zstd: {error}") from error
    if len(archive) > MAX_TAR_BYTES:
        raise BundleMalformed(f"the payload unpacks to more than {MAX_TAR_BYTES} bytes")
    return archive


def _read_tar(archive: bytes, name: str) -> Bundle:
    files = dict(_members(archive))
    manifest = _parse_manifest(files.pop(MANIFEST, b""))
    _check(manifest, files)
    if _tar(manifest, files) != archive:
        raise BundleMalformed("the archive is not in its canonical form; build it with this version")
    return Bundle(name, manifest, files)


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a tar, reading no header field but these two; the caller checks the rest by remaking it.

    The standard library's reader follows links, sparse files and chained long names, none of which `build` writes.
    """
    offset = 0
    while archive[offset : offset + 1].strip(b"\0"):
        header = archive[offset : offset + tarfile.BLOCKSIZE]
        try:
            name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        except ValueError as error:
            raise BundleMalformed("the payload is not a tar archive") from error
        if not 0 <= size <= len(archive):
            raise BundleMalformed(f"a file of {size} bytes in an archive of {len(archive)}")
        start = offset + tarfile.BLOCKSIZE
        yield name, archive[start : start + size]
        offset = start + size + -size % tarfile.BLOCKSIZE


def _parse_manifest(data: bytes) -> Manifest:
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise BundleMalformed(f"{MANIFEST} is missing or not JSON") from error
    known = {item.name for item in fields(Manifest)}
    if not isinstance(raw, dict) or set(raw) != known:
        raise BundleMalformed(f"{MANIFEST} does not hold exactly {', '.join(sorted(known))}")
    if raw["format"] != FORMAT:
        raise BundleMalformed(f"bundle format {raw['format']!r:.20}; this version reads {FORMAT}")
    return Manifest(**raw)


def _check(manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Raise BundleMalformed unless the manifest and the files are those of one policy, whole and plainly named."""
    if not (isinstance(manifest.files, dict) and isinstance(manifest.params, dict)):
        raise BundleMalformed(f"files or params in {MANIFEST} is not a map")
    if not (isinstance(manifest.provenance, dict) and isinstance(manifest.parent, str | None)):
        raise BundleMalformed(f"provenance or parent in {MANIFEST} is not what it should be")
    if len(files) > MAX_FILES:
        raise BundleMalformed(f"{len(files)} files; at most {MAX_FILES} are allowed")
    for name in (*manifest.files, *files):
        if not NAME.fullmatch(name):
            raise BundleMalformed(f"a file named {name!r:.80}; names are lower case words that end in .py or .toml")
    if manifest.files != {name: _sha256(data) for name, data in files.items()}:
        raise BundleMalformed("the files are not those that the manifest lists")
    if manifest.entry not in files or space.FILE not in files:
        raise BundleMalformed(f"{manifest.entry!r:.80} or {space.FILE} is not among its files")
    try:
        policy = space.parse_space(files[space.FILE])
        params = policy.complete(manifest.params)
    except space.SpaceError as error:
        raise BundleMalformed(str(error)) from error
    said = (manifest.policy, manifest.task, manifest.api, manifest.entry, dict(manifest.params))
    if said != (policy.name, policy.task, policy.api, policy.entry, params):
        raise BundleMalformed(f"the manifest does not agree with {space.FILE}")


def _manifest_bytes(manifest: Manifest) -> bytes:
    return json.dumps(asdict(manifest), sort_keys=True, indent=1).encode()


def _tar(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [(MANIFEST, _manifest_bytes(manifest)), *sorted(files.items())]:
            member = tarfile.TarInfo(name)  # its times and owners are zero from the start
            member.size, member.mode = len(data), 0o444
            tar.addfile(member, io.BytesIO(data))
    if len(out.getbuffer()) > MAX_TAR_BYTES:
        raise BundleMalformed(f"more than {MAX_TAR_BYTES} bytes of files")
    return out.getvalue()


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        with open(folder / name, "xb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), 0o444)
            os.fsync(out.fileno())
    folder.chmod(0o755)
    _sync_folder(folder)


def _rename(unfinished: Path, final: Path) -> None:
    try:
        unfinished.rename(final)
    except OSError:
        if not final.is_dir():  # otherwise another process finished the same bundle first
            raise
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
