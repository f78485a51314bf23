"""Weights lie beside a policy's files, as the manifest names them, and nothing else does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.bundle import Bundle, BundleError, BundleMalformed, build, bundle_id, open_bundle, read_unpacked, unpack

POLICY = Path(__file__).parents[2] / "policies" / "push_t"
NET, EYE = b"the weights of a net", b"those of an eye"
FILES = {"net.onnx": NET, "eye.safetensors": EYE}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    source = tmp_path / "source"
    source.mkdir()
    lines = "".join(f'"{name}" = ["{sha256(data)}", {len(data)}]\n' for name, data in FILES.items())
    (source / "policy.toml").write_text(f"{(POLICY / 'policy.toml').read_text()}\n[weights]\n{lines}")
    (source / "policy.py").write_text("def run(robot, params):\n    pass\n")
    data = build(source, {}, {"hypothesis": "", "researcher": "", "commit": ""}, None)
    return open_bundle(data, bundle_id(data))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for data in FILES.values():
        (folder / sha256(data)).write_bytes(data)
    return folder


def test_they_are_linked_to_and_take_no_room_of_their_own(bundle: Bundle, weights: Path, tmp_path: Path) -> None:
    there = unpack(bundle, tmp_path / "bundles", weights)
    assert read_unpacked(there) == bundle.manifest
    assert {name: (there / name).read_bytes() for name in FILES} == FILES
    assert os.path.samefile(there / "net.onnx", weights / sha256(NET))


@pytest.mark.parametrize("gone", [NET, EYE])
def test_where_one_is_missing_nothing_is_unpacked(bundle: Bundle, weights: Path, tmp_path: Path, gone: bytes) -> None:
    (weights / sha256(gone)).unlink()
    with pytest.raises(BundleError, match="cannot unpack"):
        unpack(bundle, tmp_path / "bundles", weights)
    with pytest.raises(BundleError, match="cannot unpack"):
        unpack(bundle, tmp_path / "bundles")
    assert list((tmp_path / "bundles").iterdir()) == []


CHANGES: dict[str, Callable[[Path], object]] = {
    "one gone": lambda there: (there / "net.onnx").unlink(),
    "one more": lambda there: (there / "more.onnx").write_bytes(NET),
    "one empty": lambda there: replaced(there / "net.onnx", b""),
    "one longer": lambda there: replaced(there / "net.onnx", NET + b"\0"),
    "one altered": lambda there: replaced(there / "eye.safetensors", EYE[:-1] + b"?"),
    "two swapped": lambda there: (replaced(there / "net.onnx", EYE), replaced(there / "eye.safetensors", NET)),
    "one renamed": lambda there: (there / "net.onnx").rename(there / "nets.onnx"),
}


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_others_beside_its_files_are_refused(
    bundle: Bundle, weights: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    there = unpack(bundle, tmp_path / "bundles", weights)
    change(there)
    with pytest.raises(BundleMalformed, match="the weights beside its files are not those that it names"):
        read_unpacked(there)
