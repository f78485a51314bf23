"""Attacks on the bytes of a bundle: others than those named, no small zstd frame, no tar that `build` would write."""

from __future__ import annotations

import struct
import tarfile
from dataclasses import dataclass

import zstandard

from policies.bundle import BundleError, BundleMalformed, BundleRefused
from tests.harness.bundle_format import (
    FILES,
    GOOD,
    TAR,
    bundle_of,
    compressed,
    member,
    members_of,
    sha256,
    tar_of,
    with_member,
)

NAME = sha256(GOOD)
MAX_TAR, MAX_BUNDLE = 520 << 10, 256 << 10
MISSING = "manifest.json is missing or not JSON"


@dataclass(frozen=True)
class Attack:
    """A bundle that must not open, and how it is refused."""

    id: str
    data: bytes
    text: str
    name: str | None = None  # under which it comes, its own unless given
    error: type[BundleError] = BundleMalformed


# The bytes are others than those that were named.

OTHERS_BYTES = "these are not the bytes of bundle"


def altered(case: str, data: bytes) -> Attack:
    return Attack(case, data, OTHERS_BYTES, NAME, BundleRefused)


ALTERED = [
    altered("nothing at all", b""),
    altered("cut short by a byte", GOOD[:-1]),
    altered("a byte added", GOOD + b"\0"),
    altered("a byte before", b"\0" + GOOD),
    altered("first bit changed", bytes([GOOD[0] ^ 1]) + GOOD[1:]),
    altered("last bit changed", GOOD[:-1] + bytes([GOOD[-1] ^ 1])),
    altered("another good bundle", bundle_of(FILES | {"zz.py": b""})),
    altered("the same tar compressed otherwise", zstandard.ZstdCompressor(level=1, write_checksum=True).compress(TAR)),
    Attack("named by the hash of its tar", GOOD, OTHERS_BYTES, sha256(TAR), BundleRefused),
    Attack("named in capitals", GOOD, OTHERS_BYTES, NAME.upper(), BundleRefused),
    Attack("named by nothing", GOOD, OTHERS_BYTES, "", BundleRefused),
]

# Not one whole small zstd frame.


def streamed(size: int) -> bytes:
    """Return `size` zero bytes as a frame that does not say its size."""
    stream = zstandard.ZstdCompressor(level=1, write_content_size=False).compressobj()
    chunk = bytes(1 << 20)
    whole, part = divmod(size, len(chunk))
    return b"".join([*(stream.compress(chunk) for _ in range(whole)), stream.compress(bytes(part)), stream.flush()])


def zeros(size: int) -> bytes:
    return compressed(bytes(size))


def frame(window: int, size: int, content: bytes) -> bytes:
    """Return a frame of one stored block, with a window descriptor and a content size of one's own (RFC 8878)."""
    return struct.pack("<IBBI", zstandard.MAGIC_NUMBER, 0x80, window, size) + stored(content)


def stored(content: bytes) -> bytes:
    return struct.pack("<I", len(content) << 3 | 1)[:3] + content


SKIPPED = struct.pack("<II", 0x184D2A50, 4) + b"more"
TOO_LARGE = "unpacks to more than 532480 bytes, or does not say to how many"
NOT_A_FRAME = "not one whole zstd frame"
WINDOW_512K, WINDOW_576K, WINDOW_2G = 9 << 3, 9 << 3 | 1, 21 << 3

FRAMES = [
    Attack("empty", b"", NOT_A_FRAME),
    Attack("not zstd", b"not zstd", NOT_A_FRAME),
    Attack("a tar that is not compressed", TAR, NOT_A_FRAME),
    Attack("a signed bundle of format 1", b"\x83\xa7payload\xc4\x00\xa9signature\xc4\x00\xa6key_id\xa0", NOT_A_FRAME),
    Attack("only the magic number", GOOD[:4], NOT_A_FRAME),
    Attack("frame cut short", GOOD[:-1], NOT_A_FRAME),
    Attack("frame with a byte after it", GOOD + b"\0", NOT_A_FRAME),
    Attack("two frames", GOOD + GOOD, NOT_A_FRAME),
    Attack("an empty frame after it", GOOD + compressed(b""), NOT_A_FRAME),
    Attack("a frame to be skipped after it", GOOD + SKIPPED, NOT_A_FRAME),
    Attack("a frame to be skipped before it", SKIPPED + GOOD, NOT_A_FRAME),
    Attack("compressed twice", compressed(GOOD), "not a tar archive inside"),
    Attack("nothing inside", compressed(b""), "not in its canonical form"),
    Attack("as many zeros as are allowed", zeros(MAX_TAR), "not in its canonical form"),
    Attack("one zero more", zeros(MAX_TAR + 1), TOO_LARGE),
    Attack("a bomb of 64 MiB", zeros(64 << 20), TOO_LARGE),
    Attack("a bomb that does not say its size", streamed(64 << 20), TOO_LARGE),
    Attack("a good size that is not said", streamed(1024), TOO_LARGE),
    Attack("a bomb that says a small size", frame(WINDOW_512K, 10, b"a" * 100_000), NOT_A_FRAME),
    Attack("says more than it holds", frame(WINDOW_512K, len(TAR) + 1, TAR), NOT_A_FRAME),
    Attack("as large a window as is allowed", frame(WINDOW_512K, 1024, bytes(1024)), "not in its canonical form"),
    Attack("a window of 576 KiB", frame(WINDOW_576K, len(TAR), TAR), TOO_LARGE),
    Attack("a window of 2 GiB", frame(WINDOW_2G, len(TAR), TAR), TOO_LARGE),
    Attack("as many bytes as are allowed", bytes(MAX_BUNDLE), NOT_A_FRAME),
    Attack("one byte more than allowed", bytes(MAX_BUNDLE + 1), "a bundle of 262145 bytes; at most 262144 are allowed"),
]

# Tars that `build` would not write.


def patched(tar: bytes, at: int, new: bytes) -> bytes:
    return tar[:at] + new + tar[at + len(new) :]


def in_tar(case: str, tar: bytes, text: str) -> Attack:
    return Attack(case, compressed(tar), text)


MEMBERS = members_of(FILES)
NOT_CANONICAL = "the archive is not in its canonical form"
NOT_A_TAR = "not a tar archive inside"
BAD_NAME = "names are lower case words that end in .py, .toml or .json"
ZZ = with_member("zz.py")
ZZ_AT = ZZ.index(b"zz.py\0")
LAST_AT = TAR.rindex(b"helps")

TARS = [
    in_tar("symbolic link", with_member("zz.py", type=tarfile.SYMTYPE, linkname="/etc/passwd"), NOT_CANONICAL),
    in_tar("hard link", with_member("zz.py", type=tarfile.LNKTYPE, linkname="policy.py"), NOT_CANONICAL),
    in_tar("named pipe", with_member("zz.py", type=tarfile.FIFOTYPE), NOT_CANONICAL),
    in_tar("character device", with_member("zz.py", type=tarfile.CHRTYPE, devmajor=1, devminor=3), NOT_CANONICAL),
    in_tar("block device", with_member("zz.py", type=tarfile.BLKTYPE, devmajor=8), NOT_CANONICAL),
    in_tar("sparse file", with_member("zz.py", type=tarfile.GNUTYPE_SPARSE), NOT_CANONICAL),
    in_tar("old file type", with_member("zz.py", type=tarfile.AREGTYPE), NOT_CANONICAL),
    in_tar("folder", with_member("sub.py", type=tarfile.DIRTYPE), NOT_CANONICAL),
    in_tar("folder named like a file", patched(ZZ, ZZ_AT + 156, tarfile.DIRTYPE), NOT_CANONICAL),
    in_tar("absolute path", with_member("/etc/zz.py"), BAD_NAME),
    in_tar("path upwards", with_member("../zz.py"), BAD_NAME),
    in_tar("path that goes down and up", with_member("a/../../zz.py"), BAD_NAME),
    in_tar("dotted path", with_member("./zz.py"), BAD_NAME),
    in_tar("path downwards", with_member("sub/zz.py"), BAD_NAME),
    in_tar("backslash", with_member("sub\\zz.py"), BAD_NAME),
    in_tar("drive letter", with_member("c:zz.py"), BAD_NAME),
    in_tar("no name", with_member(""), BAD_NAME),
    in_tar("hidden file", with_member(".py"), BAD_NAME),
    in_tar("blank in the name", with_member("z z.py"), BAD_NAME),
    in_tar("line end after the name", with_member("zz.py\n"), BAD_NAME),
    in_tar("names that differ in case only", with_member("Policy.py"), BAD_NAME),
    in_tar("suffix in capitals", with_member("zz.PY"), BAD_NAME),
    in_tar("name of 62 letters", with_member("z" * 62 + ".py"), BAD_NAME),
    in_tar("library", with_member("zz.so"), BAD_NAME),
    in_tar("compiled file", with_member("zz.pyc"), BAD_NAME),
    in_tar("path file", with_member("zz.pth"), BAD_NAME),
    in_tar("pickle", with_member("zz.pkl", b"\x80\x04."), BAD_NAME),
    in_tar("weights inside", with_member("zz.onnx", b"weights"), BAD_NAME),
    in_tar("no suffix", with_member("zz"), BAD_NAME),
    in_tar("zero byte in the name", patched(ZZ, ZZ_AT, b"z\0"), NOT_CANONICAL),
    in_tar("name that is not ascii", patched(ZZ, ZZ_AT, b"\xff"), NOT_A_TAR),
    in_tar("time", with_member("zz.py", mtime=1), NOT_CANONICAL),
    in_tar("owner", with_member("zz.py", uid=1), NOT_CANONICAL),
    in_tar("group", with_member("zz.py", gid=1), NOT_CANONICAL),
    in_tar("owner's name", with_member("zz.py", uname="root"), NOT_CANONICAL),
    in_tar("set-user-id", with_member("zz.py", mode=0o4755), NOT_CANONICAL),
    in_tar("a name twice", tar_of([*MEMBERS, MEMBERS[1]]), NOT_CANONICAL),
    in_tar("a name twice, the second one good", tar_of([member("policy.py", b"bad"), *MEMBERS]), NOT_CANONICAL),
    in_tar("two manifests", tar_of([member("manifest.json", b"{}"), *MEMBERS]), NOT_CANONICAL),
    in_tar("other order", tar_of(reversed(MEMBERS)), NOT_CANONICAL),
    in_tar("no manifest", tar_of(MEMBERS[1:]), MISSING),
    in_tar("padding after the end", TAR + bytes(512), NOT_CANONICAL),
    in_tar("a second tar after the end", TAR + TAR, NOT_CANONICAL),
    in_tar("a byte hidden after the end", TAR[:-1] + b"x", NOT_CANONICAL),
    in_tar(
        "a byte hidden between files",
        patched(TAR, TAR.index(FILES["policy.py"]) + len(FILES["policy.py"]), b"x"),
        NOT_CANONICAL,
    ),
    in_tar("a byte hidden in a header", patched(TAR, 500, b"x"), NOT_CANONICAL),
    in_tar("wrong check sum", patched(TAR, 148, b"000000"), NOT_CANONICAL),
    in_tar(
        "size written with an underscore",
        patched(TAR, 124, b"%08o_%02o" % divmod(len(MEMBERS[0][1]), 64)),
        NOT_CANONICAL,
    ),
    in_tar("no empty blocks at the end", TAR[: LAST_AT + 512], NOT_CANONICAL),
    in_tar("last file cut short", TAR[:LAST_AT], NOT_CANONICAL),
    in_tar("header cut short", TAR[:100], NOT_A_TAR),
    in_tar("size is not a number", patched(TAR, 124, b"x" * 11), NOT_A_TAR),
    in_tar("size below zero", patched(TAR, 124, b"-0000000001"), f"a file of -1 bytes in an archive of {len(TAR)}"),
    in_tar("size of 8 GiB", patched(TAR, 124, b"7" * 11), "a file of 8589934591 bytes"),
    in_tar("one byte larger than the tar", patched(TAR, 124, b"%011o" % (len(TAR) + 1)), "bytes in an archive of"),
    in_tar("as large as the tar", patched(TAR, 124, b"%011o" % len(TAR)), NOT_CANONICAL),
    in_tar("zip", b"PK\3\4" + bytes(600), NOT_A_TAR),
    in_tar("long name", tar_of([member("n" * 120 + ".py", b""), *MEMBERS], tarfile.GNU_FORMAT), NOT_CANONICAL),
    in_tar(
        "path in a pax header",
        tar_of([member("zz.py", b"", pax_headers={"path": "/etc/zz.py"}), *MEMBERS], tarfile.PAX_FORMAT),
        NOT_CANONICAL,
    ),
    in_tar("a thousand empty files", tar_of([member(f"f{k}.py", b"") for k in range(1000)] + MEMBERS), NOT_CANONICAL),
]
