"""Makes a readable recording of what a crash left of one.

- Whole chunks are taken over up to the first that is torn, each checked by its checksum; what came after is lost.
- The recording is written anew, with an index and an event that says that it was cut. The `.part` is deleted only once
  that lies on the disk; the same `.part` always gives the same bytes, so that a crash in between changes nothing.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, McapRecord, Message, MessageIndex, Schema
from mcap.stream_reader import breakup_chunk
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from zstandard import ZstdError

from edge.trials.recording import CHUNK_BYTES, TOPICS, RecordingError, sync_folder

PART = ".mcap.part"
EVENTS = "/events"
HEAD = struct.Struct("<BQ")  # opcode and length of a record
# All that a recording holds before its end; the index behind that is made anew.
KNOWN: dict[int, Callable[[ReadDataStream], McapRecord]] = {
    Opcode.HEADER: Header.read,
    Opcode.CHUNK: Chunk.read,
    Opcode.MESSAGE_INDEX: MessageIndex.read,
}
# What the reader raises on bytes that are torn, or were never an MCAP.
TORN = (McapError, ZstdError, struct.error, ValueError, RuntimeError, MemoryError, OverflowError)


def recover_part(path: Path) -> Path | None:
    """Turn a `<name>.mcap.part` into `<name>.cut.mcap` beside it and return that path.

    One that holds no whole chunk is kept as `<name>.torn`, and None is returned. Of one that is gone already the
    recovered recording is returned, None where there is none: called again after a crash it answers as before.

    Raises:
        RecordingError: another name, or the disk cannot be read or takes no more; the `.part` is still there.
    """
    if not path.name.endswith(PART):
        raise RecordingError(f"{path} is not what a crash leaves: wants a name that ends in {PART}")
    name = path.name.removesuffix(PART)
    recovered, unfinished = path.with_name(f"{name}.cut.mcap"), path.with_name(f"{name}.cut.tmp")
    if not path.exists():
        return recovered if recovered.exists() else None
    try:
        kept = _rewrite(path, unfinished)
        if kept:
            unfinished.replace(recovered)
            sync_folder(path.parent)
            path.unlink()
        else:
            unfinished.unlink()
            path.replace(path.with_name(f"{name}.torn"))
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise RecordingError(f"cannot recover {path}: {error.strerror}; free space there and start again") from error
    return recovered if kept else None


def _rewrite(path: Path, unfinished: Path) -> int:
    """Write what is whole of one file into another, on the disk, and return how many messages that is."""
    with open(path, "rb") as torn, open(unfinished, "wb") as out:
        copy = _Copy(out)
        with suppress(KeyError):  # of a channel that no whole chunk has named: torn too
            for records in _whole_chunks(torn, path.stat().st_size):
                copy.add(records)
        copy.finish()
        out.flush()
        os.fsync(out.fileno())
        return copy.kept


def _whole_chunks(torn: BinaryIO, size: int) -> Iterator[Sequence[McapRecord]]:
    """Yield what each chunk holds, up to the first record that is torn.

    mcap's own reader passes over what it does not know, and so over a chunk of which one byte is wrong.
    """
    if torn.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
        return
    while True:
        head = torn.read(HEAD.size)
        opcode, length = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0)
        # A torn length must not become a request for memory.
        if opcode not in KNOWN or length > size - torn.tell():
            return
        stream = ReadDataStream(io.BytesIO(torn.read(length)))
        try:
            record = KNOWN[opcode](stream)
            records = breakup_chunk(record, validate_crc=True) if isinstance(record, Chunk) else []
        except TORN:
            return
        if stream.count != length:
            return
        yield records


class _Copy:
    """A recording that is written anew from another one's records."""

    def __init__(self, out: BinaryIO) -> None:
        self._writer = Writer(out, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._writer.start(profile="", library="enpire")
        self._schemas = {0: 0}  # number there -> number here; 0 is none
        self._channels: dict[int, int] = {}
        self._topics: dict[str, int] = {}
        self._last_ns = 0
        self.kept = 0  # messages

    def add(self, records: Sequence[McapRecord]) -> None:
        """Take over a chunk."""
        for record in records:
            if isinstance(record, Schema) and record.id not in self._schemas:
                self._schemas[record.id] = self._writer.register_schema(record.name, record.encoding, record.data)
            elif isinstance(record, Channel) and record.id not in self._channels:
                schema_id = self._schemas[record.schema_id]
                channel_id = self._writer.register_channel(
                    record.topic, record.message_encoding, schema_id, record.metadata
                )
                self._channels[record.id] = self._topics[record.topic] = channel_id
            elif isinstance(record, Message):
                self._message(self._channels[record.channel_id], record)

    def finish(self) -> None:
        """Say that what follows is missing, and write the index."""
        text = f"the recording was cut: the station's process ended before its seal; {self.kept} messages are kept"
        event = {"time_s": self._last_ns / 1e9, "kind": "cut", "text": text}
        channel_id = self._topics.get(EVENTS) or self._register_events()
        self._writer.add_message(channel_id, self._last_ns, json.dumps(event).encode(), self._last_ns)
        self._writer.finish()  # type: ignore[no-untyped-call]

    def _message(self, channel_id: int, message: Message) -> None:
        self._writer.add_message(channel_id, message.log_time, message.data, message.publish_time, message.sequence)
        self._last_ns = max(self._last_ns, message.log_time)
        self.kept += 1

    def _register_events(self) -> int:
        name, schema = TOPICS[EVENTS]
        schema_id = self._writer.register_schema(name, SchemaEncoding.JSONSchema, json.dumps(schema).encode())
        channel_id: int = self._writer.register_channel(EVENTS, MessageEncoding.JSON, schema_id)
        return channel_id
