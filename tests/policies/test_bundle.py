"""A bundle opens only where a trusted key signed every byte and `build` could have written it; on disk it is whole or
not there."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import stat
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import bundle, space
from policies.bundle import Bundle, BundleError, BundleMalformed, BundleRefused, open_bundle, read_unpacked, unpack
from policies.interface import Params

PUSH_T = Path(bundle.__file__).parent / "push_t"
FILES = {
    "policy.py": b"def run(robot, params):\n    pass\n",
    "policy.toml": b"""
name = "slide"
task = "push_t"
api = 1
entry = "policy.py"

[parameters.speed_m_s]
default = 0.1
low = 0.05
high = 0.4
scale = "log"
about = "how fast"
helps = []

[ideas.ease]
default = false
claim = "Easing helps."
helps = []
""",
}
DEFAULTS = {"speed_m_s": 0.1, "ease": False}
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


# The format once more, written apart from the code under test, so that each attack is one small change to it.


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def signed(payload: bytes, key: Ed25519PrivateKey = KEY) -> bytes:
    return bundle.pack_signed(payload, key.sign(payload), bundle.key_id(public(key)))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest that `build` gives these files."""
    return {
        "format": 1,
        "policy": "slide",
        "task": "push_t",
        "api": 1,
        "entry": "policy.py",
        "params": DEFAULTS,
        "parent": None,
        "provenance": {},
        "files": {name: sha256(data) for name, data in files.items()},
    }


def said(**changes: object) -> dict[str, Any]:
    """Return the manifest of FILES with `changes` made to it."""
    return manifest_of(FILES) | changes


def as_json(manifest: object) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1).encode()


def member(name: str, data: bytes, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return a file as `build` puts it into a tar, with `fields` of its header changed."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o444
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def members_of(files: Mapping[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    manifest = member("manifest.json", as_json(manifest_of(files)))
    return [manifest, *(member(name, files[name]) for name in sorted(files))]


def with_member(name: str, data: bytes = b"", **fields: object) -> bytes:
    """Return an archive with one more member, which its manifest lists like any other file."""
    everything = FILES | {name: data}
    first = member("manifest.json", as_json(manifest_of(everything)))
    rest = [member(each, FILES[each]) for each in FILES]
    return tar_of([first, *sorted([*rest, member(name, data, **fields)], key=lambda item: item[0].name)])


def compressed(archive: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=9).compress(archive)


def streamed(size: int, window_log: int) -> bytes:
    """Return `size` zero bytes compressed in a stream, which asks its reader for no more memory than the window."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=window_log)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    chunk = bytes(1 << 20)
    whole, part = divmod(size, len(chunk))
    return b"".join([*(stream.compress(chunk) for _ in range(whole)), stream.compress(bytes(part)), stream.flush()])


ARCHIVE = tar_of(members_of(FILES))
PAYLOAD = compressed(ARCHIVE)
GOOD = signed(PAYLOAD)
SIGNATURE = KEY.sign(PAYLOAD)


def refusal(call: Callable[[], object]) -> tuple[type[BundleError], str]:
    """Return how `call` was refused: the very class, and its one line."""
    with pytest.raises(BundleError) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return type(caught.value), message


def refusal_of(data: bytes) -> tuple[type[BundleError], str]:
    return refusal(lambda: open_bundle(data, [public(KEY)]))


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policy", FILES)


# Making and opening.


def test_build_writes_the_format_byte_for_byte(folder: Path) -> None:
    assert bundle.build(folder, {}, {}, None) == PAYLOAD


def test_the_signed_bytes_are_a_map_of_three_and_a_key_is_named_by_its_hash() -> None:
    wanted = {"payload": PAYLOAD, "signature": SIGNATURE, "key_id": sha256(public(KEY))[:16]}
    assert msgpack.packb(wanted) == GOOD


def test_what_was_built_and_signed_opens_to_the_same_content() -> None:
    opened = open_bundle(GOOD, [public(OTHER_KEY), public(KEY)])
    assert opened.files == FILES
    assert vars(opened.manifest) == said()
    assert opened.id == sha256(GOOD)


def test_what_was_opened_cannot_be_changed() -> None:
    opened = open_bundle(GOOD, [public(KEY)])
    for item, field in ((opened, "id"), (opened.manifest, "entry")):
        with pytest.raises(FrozenInstanceError):
            setattr(item, field, "other")


def test_the_shipped_policy_survives_the_journey() -> None:
    opened = open_bundle(signed(bundle.build(PUSH_T, {"most_pushes": 7}, {"by": "hand"}, "a" * 64)), [public(KEY)])
    assert opened.manifest.params == space.load_space(PUSH_T).defaults() | {"most_pushes": 7.0}
    assert (opened.manifest.parent, opened.manifest.provenance) == ("a" * 64, {"by": "hand"})
    assert opened.files["policy.py"] == (PUSH_T / "policy.py").read_bytes()


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,60}\.(py|toml)", fullmatch=True).filter(lambda name: name != space.FILE)
PROVENANCE = st.dictionaries(
    st.text(max_size=8), st.recursive(st.none() | st.booleans() | st.text(max_size=8), st.lists, max_leaves=5)
)


@settings(deadline=None, max_examples=10)
@given(
    extra=st.dictionaries(NAMES, st.binary(max_size=2000), max_size=5),
    params=st.fixed_dictionaries({}, optional={"speed_m_s": st.floats(0.05, 0.4), "ease": st.booleans()}),
    provenance=PROVENANCE,
    parent=st.none() | st.text(max_size=8),
)
def test_any_files_params_and_provenance_come_back(
    extra: dict[str, bytes], params: Params, provenance: dict[str, Any], parent: str | None
) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = write(Path(place) / "source", FILES | extra)
        opened = open_bundle(signed(bundle.build(source, params, provenance, parent)), [public(KEY)])
        assert opened.files == FILES | extra
        assert opened.manifest.params == DEFAULTS | dict(params)
        assert (opened.manifest.provenance, opened.manifest.parent) == (provenance, parent)
        assert read_unpacked(unpack(opened, Path(place) / "bundles")) == opened.manifest


def test_the_same_content_and_key_give_the_same_name_whenever_and_wherever_it_is_built(tmp_path: Path) -> None:
    one = write(tmp_path / "one", FILES)
    two = write(tmp_path / "elsewhere" / "two", dict(reversed(FILES.items())))
    for path in two.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o755)
    built = [
        signed(bundle.build(one, {"speed_m_s": 0.2, "ease": True}, {"a": 1, "b": 2}, None)),
        signed(bundle.build(two, {"ease": True, "speed_m_s": 0.2}, {"b": 2, "a": 1}, None)),
    ]
    assert built[0] == built[1]
    assert bundle.bundle_id(built[0]) == bundle.bundle_id(built[1])


@pytest.mark.parametrize(
    ("params", "provenance", "parent"),
    [({"ease": True}, {}, None), ({"speed_m_s": 0.2}, {}, None), ({}, {"by": "hand"}, None), ({}, {}, "a" * 64)],
)
def test_other_content_has_another_name(
    folder: Path, params: Params, provenance: Mapping[str, Any], parent: str | None
) -> None:
    assert bundle.bundle_id(signed(bundle.build(folder, params, provenance, parent))) != bundle.bundle_id(GOOD)


def test_another_key_gives_the_same_payload_another_name() -> None:
    assert bundle.bundle_id(signed(PAYLOAD, OTHER_KEY)) != bundle.bundle_id(GOOD)
    assert open_bundle(signed(PAYLOAD, OTHER_KEY), [public(OTHER_KEY)]).files == FILES


def test_only_python_and_toml_files_travel(folder: Path) -> None:
    write(folder / "__pycache__", {"policy.pyc": b"old"})
    write(folder, {"README.md": b"words", "policy.py~": b"backup"})
    assert bundle.build(folder, {}, {}, None) == PAYLOAD


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"Policy.py": b""}, "a file named 'Policy.py'"),
        ({"two words.py": b""}, "a file named 'two words.py'"),
        ({"2.py": b""}, "a file named '2.py'"),
        ({f"a{'b' * 61}.py": b""}, "a file named 'abbb"),
        ({"naïve.py": b""}, "a file named 'naïve.py'"),
        ({f"f{k}.py": b"" for k in range(bundle.MAX_FILES - 1)}, "65 files; at most 64"),
        ({"large.py": bytes(bundle.MAX_TAR_BYTES)}, f"more than {bundle.MAX_TAR_BYTES} bytes of files"),
        ({"policy.toml": FILES["policy.toml"].replace(b"policy.py", b"gone.py")}, "'gone.py' or policy.toml is not"),
        ({"policy.toml": FILES["policy.toml"].replace(b"policy.py", b"../policy.py")}, "'../policy.py' or policy.toml"),
    ],
)
def test_what_cannot_go_into_a_bundle_is_not_built(folder: Path, files: dict[str, bytes], text: str) -> None:
    write(folder, files)
    kind, message = refusal(lambda: bundle.build(folder, {}, {}, None))
    assert kind is BundleError
    assert message.startswith(f"cannot bundle {folder}: ")
    assert text in message


@pytest.mark.parametrize("params", [{"speed_m_s": 0.5}, {"speed_m_s": float("nan")}, {"ease": 1}, {"haste": 1.0}])
def test_params_that_the_policy_does_not_allow_are_not_built(folder: Path, params: Params) -> None:
    with pytest.raises(space.SpaceError):
        bundle.build(folder, params, {}, None)


def test_as_many_files_as_are_allowed_travel(folder: Path) -> None:
    write(folder, {f"f{k}.py": b"" for k in range(bundle.MAX_FILES - 2)})
    assert len(open_bundle(signed(bundle.build(folder, {}, {}, None)), [public(KEY)]).files) == bundle.MAX_FILES


def test_as_many_bytes_as_are_allowed_travel_and_not_one_more(folder: Path) -> None:
    # A tar is made of blocks and filled up to whole records.
    empty = FILES | {"large.py": b""}
    contents = [as_json(manifest_of(empty)), *empty.values()]
    blocks = sum(1 + math.ceil(len(data) / tarfile.BLOCKSIZE) for data in contents) + 2
    room = bundle.MAX_TAR_BYTES // tarfile.RECORDSIZE * tarfile.RECORDSIZE - blocks * tarfile.BLOCKSIZE
    write(folder, {"large.py": bytes(room)})
    assert len(open_bundle(signed(bundle.build(folder, {}, {}, None)), [public(KEY)]).files["large.py"]) == room
    write(folder, {"large.py": bytes(room + 1)})
    assert refusal(lambda: bundle.build(folder, {}, {}, None))[0] is BundleError


# Attacks on the signed bytes.


def span(part: bytes) -> range:
    return range(GOOD.index(part), GOOD.index(part) + len(part))


def test_no_byte_can_be_altered() -> None:
    covered = {*span(PAYLOAD), *span(SIGNATURE)}
    for at in range(len(GOOD)):
        for flip in (0x01, 0x80, 0xFF):
            kind, _ = refusal_of(GOOD[:at] + bytes([GOOD[at] ^ flip]) + GOOD[at + 1 :])
            assert kind is BundleRefused if at in covered else kind in (BundleRefused, BundleMalformed), at


def test_no_byte_can_be_missing_from_the_end() -> None:
    for length in range(len(GOOD)):
        assert refusal_of(GOOD[:length])[0] is BundleMalformed, length


OUTER: dict[str, Any] = msgpack.unpackb(GOOD)
NOT_SIGNED = "not a signed bundle; fetch it again"
AROUND = "a bundle with something around it; fetch it again"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"", NOT_SIGNED, id="nothing"),
        pytest.param(b"\xc1", NOT_SIGNED, id="not msgpack"),
        pytest.param(PAYLOAD, NOT_SIGNED, id="unsigned"),
        pytest.param(msgpack.packb(list(OUTER.values())), NOT_SIGNED, id="a list"),
        pytest.param(msgpack.packb("payload"), NOT_SIGNED, id="a word"),
        pytest.param(msgpack.packb(7), NOT_SIGNED, id="a number"),
        pytest.param(msgpack.packb(None), NOT_SIGNED, id="nil"),
        *(
            pytest.param(msgpack.packb({k: v for k, v in OUTER.items() if k != name}), NOT_SIGNED, id=f"no {name}")
            for name in OUTER
        ),
        pytest.param(msgpack.packb(OUTER | {"payload": "text"}), NOT_SIGNED, id="payload is text"),
        pytest.param(msgpack.packb(OUTER | {"signature": "text"}), NOT_SIGNED, id="signature is text"),
        pytest.param(msgpack.packb(OUTER | {"signature": None}), NOT_SIGNED, id="signature is nil"),
        pytest.param(msgpack.packb(OUTER | {"key_id": b"bytes"}), NOT_SIGNED, id="key_id is bytes"),
        pytest.param(msgpack.packb(OUTER | {"key_id": [OUTER["key_id"]]}), NOT_SIGNED, id="key_id is a list"),
        pytest.param(GOOD + b"\0", NOT_SIGNED, id="trailing byte"),
        pytest.param(b"\0" + GOOD, NOT_SIGNED, id="leading byte"),
        pytest.param(GOOD + GOOD, NOT_SIGNED, id="twice"),
        pytest.param(msgpack.packb(OUTER | {"note": "x"}), AROUND, id="extra key"),
        pytest.param(msgpack.packb(dict(reversed(OUTER.items()))), AROUND, id="other order"),
        pytest.param(b"\x84" + GOOD[1:] + msgpack.packb("payload") + msgpack.packb(PAYLOAD), AROUND, id="key twice"),
        pytest.param(b"\xde\x00\x03" + GOOD[1:], AROUND, id="longer encoding"),
    ],
)
def test_what_is_not_a_signed_bundle_is_malformed(data: bytes, text: str) -> None:
    assert refusal_of(data) == (BundleMalformed, text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(signed(PAYLOAD, OTHER_KEY), "not trusted here", id="untrusted key"),
        pytest.param(msgpack.packb(OUTER | {"key_id": ""}), "key '', which is not trusted", id="empty key id"),
        pytest.param(msgpack.packb(OUTER | {"key_id": "a\nb" * 40}), "not trusted here", id="key id of many lines"),
        pytest.param(
            msgpack.packb(OUTER | {"signature": OTHER_KEY.sign(PAYLOAD)}), "altered", id="wrong key under a trusted id"
        ),
        pytest.param(msgpack.packb(OUTER | {"signature": b""}), "altered", id="empty signature"),
        pytest.param(msgpack.packb(OUTER | {"signature": SIGNATURE + b"\0"}), "altered", id="long signature"),
        pytest.param(msgpack.packb(OUTER | {"signature": bytes(64)}), "altered", id="zero signature"),
        pytest.param(msgpack.packb(OUTER | {"payload": compressed(b"other")}), "altered", id="another payload"),
        pytest.param(msgpack.packb(OUTER | {"payload": b""}), "altered", id="empty payload"),
    ],
)
def test_what_no_trusted_key_signed_is_refused_before_it_is_looked_into(data: bytes, text: str) -> None:
    kind, message = refusal_of(data)
    assert kind is BundleRefused
    assert text in message


def test_where_no_key_is_trusted_nothing_opens() -> None:
    assert refusal(lambda: open_bundle(GOOD, []))[0] is BundleRefused


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (bundle.MAX_BUNDLE_BYTES, NOT_SIGNED),
        (bundle.MAX_BUNDLE_BYTES + 1, "a bundle of 4194305 bytes; at most 4194304 are allowed"),
    ],
)
def test_a_bundle_may_have_the_allowed_size_and_not_one_byte_more(size: int, text: str) -> None:
    assert refusal_of(bytes(size)) == (BundleMalformed, text)


# Attacks with a good signature: what a trusted key should never have signed.


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        pytest.param(b"", "manifest.json is missing", id="empty payload"),
        pytest.param(b"not zstd", "the payload is not zstd", id="not zstd"),
        pytest.param(ARCHIVE, "the payload is not zstd", id="not compressed"),
        pytest.param(PAYLOAD[:-1], "manifest.json is missing", id="cut short"),
        pytest.param(compressed(b""), "manifest.json is missing", id="nothing inside"),
        pytest.param(compressed(PAYLOAD), "the payload is not a tar archive", id="compressed twice"),
        pytest.param(streamed(bundle.MAX_TAR_BYTES, 20), "manifest.json is missing", id="as large as is allowed"),
        pytest.param(streamed(bundle.MAX_TAR_BYTES + 1, 20), "unpacks to more than 8388608", id="one byte larger"),
        pytest.param(streamed(1 << 20, 24), "the payload is not zstd", id="wants a window of 16 MiB"),
    ],
)
def test_a_payload_that_is_no_small_zstd_is_malformed(payload: bytes, text: str) -> None:
    kind, message = refusal_of(signed(payload))
    assert kind is BundleMalformed
    assert text in message


def test_a_bomb_is_refused_without_being_unpacked() -> None:
    bomb = signed(streamed(128 << 20, 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        kind, message = refusal_of(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (kind, message) == (BundleMalformed, "the payload unpacks to more than 8388608 bytes")
    assert peak < 4 * bundle.MAX_TAR_BYTES


def patched(archive: bytes, at: int, new: bytes) -> bytes:
    return archive[:at] + new + archive[at + len(new) :]


NOT_CANONICAL = "the archive is not in its canonical form"
NOT_LISTED = "the files are not those that the manifest lists"
BAD_NAME = "names are lower case words"
END = tarfile.BLOCKSIZE * 2  # a tar ends with two empty blocks, then is filled up with empty ones


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        pytest.param(with_member("zz.py", type=tarfile.SYMTYPE, linkname="/etc/passwd"), NOT_CANONICAL, id="symlink"),
        pytest.param(with_member("zz.py", type=tarfile.LNKTYPE, linkname="policy.py"), NOT_CANONICAL, id="hard link"),
        pytest.param(with_member("zz.py", type=tarfile.FIFOTYPE), NOT_CANONICAL, id="fifo"),
        pytest.param(with_member("zz.py", type=tarfile.CHRTYPE, devmajor=1, devminor=3), NOT_CANONICAL, id="device"),
        pytest.param(with_member("zz.py", type=tarfile.GNUTYPE_SPARSE), NOT_CANONICAL, id="sparse file"),
        pytest.param(with_member("zz.py", type=tarfile.AREGTYPE), NOT_CANONICAL, id="old file type"),
        pytest.param(with_member("sub.py", type=tarfile.DIRTYPE), BAD_NAME, id="folder"),
        pytest.param(
            patched(with_member("zz.py"), with_member("zz.py").index(b"zz.py\0") + 156, tarfile.DIRTYPE),
            NOT_CANONICAL,
            id="folder named like a file",
        ),
        pytest.param(with_member("/etc/zz.py"), BAD_NAME, id="absolute path"),
        pytest.param(with_member("../zz.py"), BAD_NAME, id="path upwards"),
        pytest.param(with_member("./zz.py"), BAD_NAME, id="dotted path"),
        pytest.param(with_member("sub/zz.py"), BAD_NAME, id="path downwards"),
        pytest.param(with_member("sub\\zz.py"), BAD_NAME, id="backslash"),
        pytest.param(with_member(".py"), BAD_NAME, id="hidden file"),
        pytest.param(with_member("zz.py\n"), BAD_NAME, id="line end after the name"),
        pytest.param(with_member("Zz.py"), BAD_NAME, id="capital"),
        pytest.param(with_member("zz.so"), BAD_NAME, id="library"),
        pytest.param(with_member("zz.pyc"), BAD_NAME, id="compiled file"),
        pytest.param(with_member("zz"), BAD_NAME, id="no suffix"),
        pytest.param(patched(with_member("zz.py"), with_member("zz.py").index(b"zz.py\0"), b"z\0"), BAD_NAME, id="nul"),
        pytest.param(
            patched(with_member("zz.py"), with_member("zz.py").index(b"zz.py\0"), b"\xff"), "not a tar", id="not ascii"
        ),
        pytest.param(with_member("zz.py", mtime=1), NOT_CANONICAL, id="time"),
        pytest.param(with_member("zz.py", uid=1), NOT_CANONICAL, id="owner"),
        pytest.param(with_member("zz.py", gname="root"), NOT_CANONICAL, id="group name"),
        pytest.param(with_member("zz.py", mode=0o4755), NOT_CANONICAL, id="mode"),
        pytest.param(
            tar_of([*members_of(FILES), member("policy.py", FILES["policy.py"])]), NOT_CANONICAL, id="a name twice"
        ),
        pytest.param(
            tar_of([*members_of(FILES)[:1], member("policy.py", b"bad"), *members_of(FILES)[1:]]),
            NOT_CANONICAL,
            id="a name twice, the second one good",
        ),
        pytest.param(
            tar_of([*members_of(FILES), *members_of(FILES)[:1]]), NOT_CANONICAL, id="a manifest before and after"
        ),
        pytest.param(tar_of(reversed(members_of(FILES))), NOT_CANONICAL, id="manifest last"),
        pytest.param(tar_of(members_of(FILES)[1:]), "manifest.json is missing", id="no manifest"),
        pytest.param(tar_of(members_of(FILES)[:-1]), NOT_LISTED, id="missing file"),
        pytest.param(tar_of([*members_of(FILES), member("zz.py", b"")]), NOT_LISTED, id="file not listed"),
        pytest.param(
            tar_of([*members_of(FILES)[:1], member("policy.py", b"bad"), *members_of(FILES)[2:]]),
            NOT_LISTED,
            id="file with another hash",
        ),
        pytest.param(ARCHIVE + bytes(tarfile.BLOCKSIZE), NOT_CANONICAL, id="padding after the end"),
        pytest.param(ARCHIVE[:-1] + b"x", NOT_CANONICAL, id="a byte hidden after the end"),
        pytest.param(
            patched(ARCHIVE, ARCHIVE.index(FILES["policy.py"]) + len(FILES["policy.py"]), b"x"),
            NOT_CANONICAL,
            id="a byte hidden between files",
        ),
        pytest.param(patched(ARCHIVE, 500, b"x"), NOT_CANONICAL, id="a byte hidden in a header"),
        pytest.param(ARCHIVE[: ARCHIVE.rindex(b"helps") + 1024], NOT_CANONICAL, id="no empty blocks"),
        pytest.param(ARCHIVE[: ARCHIVE.rindex(b"helps")], NOT_LISTED, id="last file cut short"),
        pytest.param(ARCHIVE[:100], "not a tar archive", id="header cut short"),
        pytest.param(patched(ARCHIVE, 124, b"x" * 11), "not a tar archive", id="size is not a number"),
        pytest.param(patched(ARCHIVE, 124, b"-0000000001"), "a file of -1 bytes", id="size below zero"),
        pytest.param(patched(ARCHIVE, 124, b"7" * 11), "a file of 8589934591 bytes", id="size of 8 GiB"),
        pytest.param(b"PK\3\4" + bytes(600), "not a tar archive", id="zip"),
        pytest.param(
            tar_of([member("n" * 120 + ".py", b""), *members_of(FILES)], tarfile.GNU_FORMAT), BAD_NAME, id="long name"
        ),
        pytest.param(
            tar_of([member("zz.py", b"", pax_headers={"path": "/etc/zz.py"}), *members_of(FILES)], tarfile.PAX_FORMAT),
            BAD_NAME,
            id="pax header",
        ),
    ],
)
def test_an_archive_that_build_would_not_write_is_malformed(archive: bytes, text: str) -> None:
    kind, message = refusal_of(signed(compressed(archive)))
    assert kind is BundleMalformed
    assert text in message


def test_the_parts_of_the_attacks_are_good_until_they_are_changed() -> None:
    plain = signed(compressed(with_member("zz.py", b"x = 1\n")))
    assert open_bundle(plain, [public(KEY)]).files == FILES | {"zz.py": b"x = 1\n"}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in said().items() if key != name}


HASHES = said()["files"]
DISAGREES = "the manifest does not agree with policy.toml"


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        *(pytest.param(without(name), "does not hold exactly", id=f"no {name}") for name in said()),
        pytest.param(said(note="x"), "does not hold exactly", id="extra key"),
        pytest.param([said()], "does not hold exactly", id="a list"),
        pytest.param(None, "does not hold exactly", id="null"),
        pytest.param("manifest", "does not hold exactly", id="a word"),
        pytest.param(said(format=0), "bundle format 0; this version reads 1", id="older format"),
        pytest.param(said(format=2), "bundle format 2; this version reads 1", id="newer format"),
        pytest.param(said(format="1"), "bundle format '1'", id="format as a word"),
        pytest.param(said(format="\n" * 99), "bundle format '", id="format of many lines"),
        pytest.param(said(files=[*HASHES]), "files or params", id="files is a list"),
        pytest.param(said(files=None), "files or params", id="files is null"),
        pytest.param(said(params=[]), "files or params", id="params is a list"),
        pytest.param(said(params=None), "files or params", id="params is null"),
        pytest.param(said(provenance=None), "provenance or parent", id="provenance is null"),
        pytest.param(said(provenance="me"), "provenance or parent", id="provenance is a word"),
        pytest.param(said(parent=7), "provenance or parent", id="parent is a number"),
        pytest.param(said(parent=["a"]), "provenance or parent", id="parent is a list"),
        pytest.param(said(files={}), NOT_LISTED, id="lists nothing"),
        pytest.param(said(files=HASHES | {"zz.py": sha256(b"")}), NOT_LISTED, id="lists one too many"),
        pytest.param(said(files=HASHES | {"policy.py": "0" * 64}), NOT_LISTED, id="wrong hash"),
        pytest.param(said(files={k: v.upper() for k, v in HASHES.items()}), NOT_LISTED, id="hash in capitals"),
        pytest.param(said(files=HASHES | {"policy.py": None}), NOT_LISTED, id="null hash"),
        pytest.param(said(files=HASHES | {"../zz.py": sha256(b"")}), BAD_NAME, id="lists a path"),
        pytest.param(said(files=HASHES | {"a\nb.py": sha256(b"")}), BAD_NAME, id="lists two lines"),
        pytest.param(said(entry="gone.py"), "'gone.py' or policy.toml is not among", id="missing entry"),
        pytest.param(said(entry=""), "'' or policy.toml is not among", id="empty entry"),
        pytest.param(said(entry="/bin/sh"), "'/bin/sh' or policy.toml", id="entry is a path"),
        pytest.param(said(entry=None), "None or policy.toml is not among", id="entry is null"),
        pytest.param(said(entry="manifest.json"), "'manifest.json' or", id="entry is the manifest"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": 0.41}), "allowed is 0.05 to 0.4", id="high"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": 0.04}), "allowed is 0.05 to 0.4", id="low"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": float("nan")}), "speed_m_s is nan", id="nan"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": True}), "not a number", id="bool for number"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": "0.1"}), "not a number", id="word for number"),
        pytest.param(said(params=DEFAULTS | {"speed_m_s": [0.1]}), "not a number", id="list for number"),
        pytest.param(said(params=DEFAULTS | {"ease": 1}), "true or false", id="number for bool"),
        pytest.param(said(params=DEFAULTS | {"haste": 1.0}), "has no parameter", id="unknown param"),
        pytest.param(said(params=DEFAULTS | {"a\nb": 1.0}), "has no parameter", id="two-line param"),
        pytest.param(said(params={"ease": False}), DISAGREES, id="param left out"),
        pytest.param(said(params={}), DISAGREES, id="all params left out"),
        pytest.param(said(policy="other"), DISAGREES, id="another policy"),
        pytest.param(said(task="other"), DISAGREES, id="another task"),
        pytest.param(said(task=None), DISAGREES, id="no task"),
        pytest.param(said(api=2), DISAGREES, id="another api"),
        pytest.param(said(api="1"), DISAGREES, id="api as a word"),
        pytest.param(said(entry="policy.toml"), DISAGREES, id="another entry"),
    ],
)
def test_a_manifest_that_does_not_describe_the_files_is_malformed(manifest: object, text: str) -> None:
    rest = members_of(FILES)[1:]
    kind, message = refusal_of(signed(compressed(tar_of([member("manifest.json", as_json(manifest)), *rest]))))
    assert kind is BundleMalformed
    assert text in message


@pytest.mark.parametrize(
    ("written", "text"),
    [
        pytest.param(b"", "manifest.json is missing or not JSON", id="empty"),
        pytest.param(b"{", "manifest.json is missing or not JSON", id="cut short"),
        pytest.param(b"\xff\xfe", "manifest.json is missing or not JSON", id="not text"),
        pytest.param(json.dumps(said(), sort_keys=True).encode(), NOT_CANONICAL, id="on one line"),
        pytest.param(json.dumps(said(), indent=1).encode(), NOT_CANONICAL, id="not sorted"),
        pytest.param(as_json(said()) + b"\n", NOT_CANONICAL, id="line end"),
        pytest.param(as_json(said()).replace(b"{", b'{\n "task": "other",', 1), NOT_CANONICAL, id="a key twice"),
    ],
)
def test_a_manifest_that_is_written_in_another_way_is_malformed(written: bytes, text: str) -> None:
    archive = tar_of([member("manifest.json", written), *members_of(FILES)[1:]])
    kind, message = refusal_of(signed(compressed(archive)))
    assert kind is BundleMalformed
    assert text in message


@pytest.mark.parametrize(
    ("files", "text"),
    [
        pytest.param({"policy.py": b""}, "'policy.py' or policy.toml is not among its files", id="no policy.toml"),
        pytest.param(FILES | {"policy.toml": b"name ="}, "not TOML", id="not toml"),
        pytest.param(FILES | {"policy.toml": b'name = "slide"'}, "task is missing", id="half a policy.toml"),
        pytest.param(
            FILES | {"policy.toml": FILES["policy.toml"].replace(b"= 0.1", b"= 0.9")}, "allowed is", id="bad default"
        ),
        pytest.param(FILES | {f"f{k}.py": b"" for k in range(63)}, "65 files; at most 64", id="too many files"),
    ],
)
def test_files_that_are_no_policy_are_malformed(files: dict[str, bytes], text: str) -> None:
    kind, message = refusal_of(signed(compressed(tar_of(members_of(files)))))
    assert kind is BundleMalformed
    assert text in message


def test_a_manifest_that_grows_past_the_limit_when_remade_is_malformed() -> None:
    # Canonically each item stands on its own line, behind a blank for every bracket.
    depth = 100
    lists = (
        b'"provenance": {"a": ' + b"[" * depth + b"0," * (bundle.MAX_TAR_BYTES // depth) + b"0" + b"]" * depth + b"}"
    )
    manifest = as_json(said()).replace(b'"provenance": {}', lists)
    archive = tar_of([member("manifest.json", manifest), *members_of(FILES)[1:]])
    assert len(archive) < bundle.MAX_TAR_BYTES
    kind, message = refusal_of(signed(compressed(archive)))
    assert (kind, message) == (BundleMalformed, f"more than {bundle.MAX_TAR_BYTES} bytes of files")


# On disk.


OPENED = open_bundle(GOOD, [public(KEY)])
ON_DISK = FILES | {"manifest.json": as_json(said())}


def test_an_unpacked_bundle_lies_under_its_name_and_is_read_only(tmp_path: Path) -> None:
    into = tmp_path / "not" / "there" / "yet"
    final = unpack(OPENED, into)
    assert final == into / OPENED.id
    assert {path.name: path.read_bytes() for path in final.iterdir()} == ON_DISK
    assert {stat.S_IMODE(path.stat().st_mode) for path in final.iterdir()} == {0o444}
    assert stat.S_IMODE(final.stat().st_mode) == 0o755
    assert list(into.iterdir()) == [final]
    assert read_unpacked(final) == OPENED.manifest


def test_unpacking_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    unpack(OPENED, tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_unpacking_again_changes_nothing(tmp_path: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.stat().st_ino, path.stat().st_mtime_ns) for path in [tmp_path, *tmp_path.rglob("*")]
        )

    final = unpack(OPENED, tmp_path)
    before = state()
    assert unpack(OPENED, tmp_path) == final
    assert state() == before


class WrittenBySomeoneElse(Mapping[str, bytes]):
    """Files of a bundle that another process unpacks in the moment in which they are asked for."""

    def __init__(self, into: Path) -> None:
        self.into = into

    def __getitem__(self, name: str) -> bytes:
        return FILES[name]

    def __iter__(self) -> Iterator[str]:
        unpack(OPENED, self.into)
        return iter(FILES)

    def __len__(self) -> int:
        return len(FILES)


def test_two_processes_may_unpack_the_same_bundle_at_once(tmp_path: Path) -> None:
    final = unpack(replace(OPENED, files=WrittenBySomeoneElse(tmp_path)), tmp_path)
    assert list(tmp_path.iterdir()) == [final]
    assert read_unpacked(final) == OPENED.manifest


def into_a_file(place: Path) -> Bundle:
    place.write_bytes(b"")
    return OPENED


def onto_a_dangling_link(place: Path) -> Bundle:
    place.mkdir()
    (place / OPENED.id).symlink_to(place / "nowhere")
    return OPENED


def with_a_last_file_that_cannot_be_written(place: Path) -> Bundle:
    place.mkdir()
    return replace(OPENED, files=FILES | {"no/such/folder.py": b""})


@pytest.mark.parametrize("prepare", [into_a_file, onto_a_dangling_link, with_a_last_file_that_cannot_be_written])
def test_what_cannot_be_unpacked_whole_leaves_nothing_behind(tmp_path: Path, prepare: Callable[[Path], Bundle]) -> None:
    place = tmp_path / "bundles"
    given_bundle = prepare(place)
    before = sorted(tmp_path.rglob("*"))
    kind, message = refusal(lambda: unpack(given_bundle, place))
    assert kind is BundleError
    assert message.startswith(f"cannot unpack bundle {OPENED.id[:12]} into {place}: ")
    assert sorted(tmp_path.rglob("*")) == before


def put(name: str, data: bytes) -> Callable[[Path], None]:
    def change(final: Path) -> None:
        (final / name).unlink(missing_ok=True)
        (final / name).write_bytes(data)

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda final: (final / name).unlink()


MISSING = "manifest.json is missing or not JSON"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        pytest.param(put("policy.py", b"bad"), BundleMalformed, NOT_LISTED, id="changed file"),
        pytest.param(put("policy.py", FILES["policy.py"] + b"\n"), BundleMalformed, NOT_LISTED, id="longer file"),
        pytest.param(put("policy.py", b""), BundleMalformed, NOT_LISTED, id="emptied file"),
        pytest.param(put("policy.toml", b""), BundleMalformed, NOT_LISTED, id="emptied policy.toml"),
        pytest.param(remove("policy.py"), BundleMalformed, NOT_LISTED, id="missing file"),
        pytest.param(remove("policy.toml"), BundleMalformed, NOT_LISTED, id="missing policy.toml"),
        pytest.param(put("zz.py", b""), BundleMalformed, NOT_LISTED, id="added file"),
        pytest.param(put("zz.so", b""), BundleMalformed, BAD_NAME, id="added library"),
        pytest.param(put(".zz", b""), BundleMalformed, BAD_NAME, id="added hidden file"),
        pytest.param(remove("manifest.json"), BundleMalformed, MISSING, id="missing manifest"),
        pytest.param(put("manifest.json", b""), BundleMalformed, MISSING, id="emptied manifest"),
        pytest.param(put("manifest.json", as_json(without("task"))), BundleMalformed, "exactly", id="shorter manifest"),
        pytest.param(
            put("manifest.json", as_json(said(params=DEFAULTS | {"speed_m_s": 9.0}))),
            BundleMalformed,
            "allowed is",
            id="manifest with a value outside its range",
        ),
        pytest.param(lambda final: (final / "sub").mkdir(), BundleError, "cannot read", id="added folder"),
        pytest.param(shutil.rmtree, BundleError, "No such file", id="not there"),
    ],
)
def test_a_bundle_that_changed_on_disk_is_not_read(
    tmp_path: Path, change: Callable[[Path], None], error: type[BundleError], text: str
) -> None:
    final = unpack(OPENED, tmp_path)
    change(final)
    kind, message = refusal(lambda: read_unpacked(final))
    assert kind is error
    assert text in message
