"""The bytes of a bundle: one zstd frame around one tar, and exactly one way to write them.

- The tar holds plain files by name, all times and owners zero, mode 0444.
- Reading takes only what `pack` itself would have put into the tar: it is made anew from what was read and must come
  out equal, which leaves no room for links, devices, folders, paths, padding or a name twice.
- The zstd frame is not made anew: another version of the compressor may write another one for the same tar, and a
  bundle must outlive that version. Nothing is lost by it: a bundle is named by the sha256 of the frame, so that a frame
  written otherwise is another bundle, which nobody has named.
- The frame must say how large the tar is and end where the bytes end; nothing is unpacked before both limits hold.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping

import zstandard

from policies.interface import PolicyError

MAX_BUNDLE_BYTES = 256 << 10
MAX_TAR_BYTES = 520 << 10  # a whole number of a tar's records
COMPRESSION_LEVEL = 9
MODE = 0o444


class BundleError(PolicyError):
    """A bundle that cannot be made or used; the message is one line that says what to do."""


class BundleRefused(BundleError):
    """These bytes are not those that were named."""


class BundleMalformed(BundleError):
    """Not a bundle, or one that holds what `build` would never write."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a bundle of `files`, whose names are at most 100 ASCII characters.

    Raises:
        BundleMalformed: too many bytes.
    """
    data = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(_tar(files))
    _check_size(data)
    return data


def read(data: bytes) -> dict[str, bytes]:
    """Return the files in the bytes of a bundle, in their order.

    Raises:
        BundleMalformed: not written by `pack`, or too large.
    """
    _check_size(data)
    tar = _decompress(data)
    files = dict(_members(tar))
    if _tar(files) != tar:
        raise BundleMalformed("the archive is not in its canonical form; build it with this version")
    return files


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleMalformed(f"a bundle of {len(data)} bytes; at most {MAX_BUNDLE_BYTES} are allowed")


def _decompress(data: bytes) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(data)
        # A frame that does not say its size says the largest number there is.
        if frame.content_size > MAX_TAR_BYTES or frame.window_size > MAX_TAR_BYTES:
            raise BundleMalformed(f"unpacks to more than {MAX_TAR_BYTES} bytes, or does not say to how many")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BundleMalformed(f"not one whole zstd frame: {error}") from error


def _members(tar: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a tar, reading no header field but these two; the caller checks the rest by remaking it.

    The standard library's reader follows links, sparse files and chained long names, none of which `pack` writes.
    """
    offset = 0
    while any(header := tar[offset : offset + tarfile.BLOCKSIZE]):  # up to an empty block
        try:
            name, size = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        except ValueError as error:
            raise BundleMalformed("not a tar archive inside") from error
        if not 0 <= size <= len(tar):
            raise BundleMalformed(f"a file of {size} bytes in an archive of {len(tar)}")
        start = offset + tarfile.BLOCKSIZE
        yield name, tar[start : start + size]
        offset = start + size + -size % tarfile.BLOCKSIZE


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            member = tarfile.TarInfo(name)  # its times and owners are zero from the start
            member.size, member.mode = len(data), MODE
            tar.addfile(member, io.BytesIO(data))
    if len(out.getbuffer()) > MAX_TAR_BYTES:
        raise BundleMalformed(f"more than {MAX_TAR_BYTES} bytes of files")
    return out.getvalue()
