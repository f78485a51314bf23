"""A policy as it travels: a deterministic archive of its files and of a manifest that hashes each.

- `manifest.json` lies among the files; see `policies.archive` for the bytes.
- The sha256 of the bytes is the bundle's name everywhere. Who may name a bundle is said elsewhere, in signed metadata;
  a bundle itself carries no signature.
- Opening compares the name before it looks inside, then allows only what `build` itself would have written.
- Large weights are never inside: the manifest names them by sha256 and size.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from policies import archive, manifest, space
from policies.archive import BundleError as BundleError
from policies.archive import BundleMalformed as BundleMalformed
from policies.archive import BundleRefused as BundleRefused
from policies.interface import Params
from policies.manifest import MANIFEST
from policies.manifest import Manifest as Manifest

SUFFIXES = (".py", ".toml", ".json")  # of what belongs to a policy in its folder


@dataclass(frozen=True)
class Bundle:
    """A bundle whose name and hashes were found right."""

    id: str
    manifest: Manifest
    files: Mapping[str, bytes]


def build(folder: Path, params: Params, provenance: Mapping[str, str], parent: str | None) -> bytes:
    """Return the bytes of the policy in `folder` with `params` (the rest at their defaults).

    Args:
        provenance: exactly hypothesis, researcher and commit.

    Raises:
        SpaceError: the policy.toml is wrong, or a value is outside what it allows.
        BundleError: a file that cannot go into a bundle, or too many bytes.
    """
    space.load_space(folder).validate(params)
    try:
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}
        described = manifest.describe(files, params, provenance, parent)
        _check_weights(folder, described.weights)
        return archive.pack({MANIFEST: manifest.to_bytes(described), **files})
    except OSError as error:
        raise BundleError(f"cannot bundle {folder}: {error.strerror}") from error
    except BundleMalformed as error:
        raise BundleError(f"cannot bundle {folder}: {error}") from error


def bundle_id(data: bytes) -> str:
    """Return the name of a bundle: the sha256 of its bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def open_bundle(data: bytes, name: str) -> Bundle:
    """Return the bundle in `data`, which must be the one of that `name`.

    Raises:
        BundleRefused: these bytes have another name.
        BundleMalformed: not a bundle that `build` could have made.
    """
    if bundle_id(data) != name:
        raise BundleRefused(f"these are not the bytes of bundle {name!r:.14}; fetch it again, and look who altered it")
    files = archive.read(data)
    described = manifest.read(files.pop(MANIFEST, b""), files)
    return Bundle(name, described, files)


def unpack(bundle: Bundle, into: Path, weights: Path | None = None) -> Path:
    """Write the bundle to `into`/<id> as read-only files and return that folder; all of it is there or none.

    Args:
        weights: where its files of weights lie, each under its sha256, on the same disk; they are linked to.

    Raises:
        BundleError: it cannot be written, or weights that it needs are not there.
    """
    final = into / bundle.id
    if final.exists():
        return final
    try:
        into.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=into))
        try:
            for name, weight in bundle.manifest.weights.items():
                os.link((weights or into) / weight.sha256, unfinished / name)
            _write_all(unfinished, {MANIFEST: manifest.to_bytes(bundle.manifest), **bundle.files})
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
        BundleMalformed: a file is missing, added or changed, weights among them.
    """
    try:
        paths = {path.name: path for path in folder.iterdir()}
        weights = {name: _weigh(path) for name, path in paths.items() if space.WEIGHTS.fullmatch(name)}
        files = {name: path.read_bytes() for name, path in paths.items() if name not in weights}
    except OSError as error:
        raise BundleError(f"cannot read the bundle in {folder}: {error.strerror}") from error
    described = manifest.read(files.pop(MANIFEST, b""), files)
    if weights != described.weights:
        raise BundleMalformed("the weights beside its files are not those that it names; fetch it again")
    return described


def _weigh(path: Path) -> space.Weight:
    """Return what a file of weights is."""
    with open(path, "rb") as file:
        return space.Weight(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)


def _check_weights(folder: Path, weights: Mapping[str, space.Weight]) -> None:
    """Raise where a file of weights lies beside the policy and is not what policy.toml says; it may lie elsewhere."""
    for path in (folder / name for name in weights):
        if path.exists():
            found = _weigh(path)
            if found != weights[path.name]:
                raise BundleError(f"{path} is not what {space.FILE} says; it is [{found.sha256!r}, {found.size_bytes}]")


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
