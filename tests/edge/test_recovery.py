"""Of a recording that a crash cut, everything up to the tear is read back, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from edge.messages import Setpoint
from edge.trials import recording as recording_module
from edge.trials.recording import Recording, RecordingError
from edge.trials.recovery import recover_part
from policies.interface import Observation, Scene, SceneObject

PERIOD_NS = 33_333_333
SCENE = Scene(0.25, (SceneObject("tee", 0.3, -0.05, 1.0, 1e-4, 1e-3),))
MAGIC = b"\x89MCAP0\r\n"
Message = tuple[str, int, bytes]
Chunk = tuple[int, int, int]  # where it begins and ends, and how many messages there are up to its end


def record(recording: Recording, periods: int) -> None:
    """Record as a trial does."""
    rng = np.random.default_rng(4)
    recording.event(0, "trial", "{}")
    for number in range(periods):
        time_ns = number * PERIOD_NS
        recording.setpoint(time_ns, Setpoint(rng.normal(size=6), 0.01, time_ns))
        parts = [rng.normal(size=count) for count in (6, 6, 6, 3, 4)]
        recording.joints(time_ns, Observation(0.0, *parts, gripper_m=0.01))
        if number % 40 == 0:
            recording.scene(time_ns, SCENE)
            recording.camera(time_ns, rng.bytes(600))


def read(path: Path) -> list[Message]:
    """Return all messages in the order of the file, by the reader that wants an index and checks every sum."""
    with open(path, "rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        found = [
            (channel.topic, message.log_time, message.data)
            for _, channel, message in reader.iter_messages(log_time_order=False)
        ]
    assert summary.statistics.message_count == len(found)
    return found


def chunks(path: Path) -> list[Chunk]:
    """Return the chunks of a sealed recording by its own index."""
    data = path.read_bytes()
    with open(path, "rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    found, count = [], 0
    for index in summary.chunk_indexes:
        for offset in index.message_index_offsets.values():
            # opcode, u64 length, u16 channel, u32 bytes of the list, 16 bytes for each message
            count += int.from_bytes(data[offset + 11 : offset + 15], "little") // 16
        found.append((index.chunk_start_offset, index.chunk_start_offset + index.chunk_length, count))
    return found


def check(part: Path, torn: bytes, expected: list[Message]) -> None:
    """Recover `torn` and compare with what should be in it."""
    part.write_bytes(torn)
    recovered = recover_part(part)
    name = part.name.removesuffix(".mcap.part")
    if not expected:
        kept = part.with_name(f"{name}.torn")
        assert recovered is None
        assert kept.read_bytes() == torn
        assert os.listdir(part.parent) == [kept.name]
        kept.unlink()
        return
    assert recovered == part.with_name(f"{name}.cut.mcap")
    assert os.listdir(part.parent) == [recovered.name]
    *found, (topic, time_ns, said) = read(recovered)
    assert found == expected
    assert (topic, time_ns) == ("/events", max(time_ns for _, time_ns, _ in expected))
    assert json.loads(said)["kind"] == "cut"
    assert f" {len(expected)} messages" in json.loads(said)["text"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed recording of many small chunks."""
    path = tmp_path_factory.mktemp("whole") / "trial.mcap"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording_module, "CHUNK_BYTES", 6000)
        with Recording(path) as recording:
            record(recording, 150)
            recording.seal()
    assert len(chunks(path)) > 10
    return path


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "e1-000007.mcap.part"


def test_whatever_the_cut_all_whole_chunks_before_it_are_kept_and_nothing_else(whole: Path, part: Path) -> None:
    data, messages, borders = whole.read_bytes(), read(whole), chunks(whole)
    around = {edge + by for begin, end, _ in borders for edge in (begin, end) for by in (-1, 0, 1)}
    cuts = sorted({*range(0, len(data), 97), *around, len(data) - 1, len(data)})
    counts = set()
    for cut in cuts:
        count = max((count for _, end, count in borders if end <= cut), default=0)
        check(part, data[:cut], messages[:count])
        counts.add(count)
    assert counts == {0, *(count for _, _, count in borders)}


def test_a_recording_of_real_size_is_cut_at_every_border(tmp_path: Path, part: Path) -> None:
    path = tmp_path / "real" / "trial.mcap"
    with Recording(path) as recording:
        record(recording, 900)
        recording.seal()
    data, messages, borders = path.read_bytes(), read(path), chunks(path)
    path.unlink()
    path.parent.rmdir()
    assert len(borders) > 4
    for before, (begin, end, count) in zip([0, *(count for _, _, count in borders)], borders, strict=False):
        check(part, data[: begin + (end - begin) // 2], messages[:before])
        check(part, data[:end], messages[:count])


def test_a_recording_that_was_whole_but_for_its_name_keeps_everything(whole: Path, part: Path) -> None:
    check(part, whole.read_bytes(), read(whole))


@pytest.mark.parametrize("damage", ["a bit", "zeros", "noise", "unknown kind", "another kind"])
def test_a_damaged_chunk_ends_what_is_believed(whole: Path, part: Path, damage: str) -> None:
    data, messages, borders = bytearray(whole.read_bytes()), read(whole), chunks(whole)
    (begin, end, _), count = borders[5], borders[4][2]
    middle = (begin + end) // 2
    if damage == "a bit":
        data[middle] ^= 0x10
    elif damage == "zeros":  # a page that was promised to the file and never written
        data[middle:] = bytes(len(data) - middle)
    elif damage.endswith("kind"):  # what follows is well formed: a gap would be passed over
        data[begin] = 0xF5 if damage == "unknown kind" else 0x07
    else:
        data[middle:] = np.random.default_rng(1).bytes(len(data) - middle)
    check(part, bytes(data), messages[:count])


def test_bits_turned_anywhere_never_raise_and_never_invent(whole: Path, part: Path) -> None:
    data, messages, rng = whole.read_bytes(), read(whole), np.random.default_rng(2)
    for _ in range(150):
        bad = bytearray(data)
        for at in rng.integers(0, len(data), size=3):
            bad[at] ^= 1 << rng.integers(0, 8)
        part.write_bytes(bytes(bad))
        recovered = recover_part(part)
        if recovered is not None:
            found = read(recovered)[:-1]
            assert found == messages[: len(found)]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=400), magic=st.booleans())
def test_garbage_is_kept_under_another_name_and_nothing_is_raised(part: Path, garbage: bytes, magic: bool) -> None:
    check(part, MAGIC * magic + garbage, [])


def test_a_length_of_terabytes_asks_for_no_memory(whole: Path, part: Path) -> None:
    data, messages, borders = bytearray(whole.read_bytes()), read(whole), chunks(whole)
    begin, count = borders[3][0], borders[2][2]
    data[begin + 1 : begin + 9] = (1 << 45).to_bytes(8, "little")
    check(part, bytes(data), messages[:count])


def test_a_crash_between_the_new_name_and_the_deletion_changes_nothing(whole: Path, part: Path) -> None:
    torn = whole.read_bytes()[: chunks(whole)[6][1] + 5]
    part.write_bytes(torn)
    recovered = recover_part(part)
    assert recovered is not None
    first = recovered.read_bytes()
    part.write_bytes(torn)
    part.with_name("e1-000007.cut.tmp").write_bytes(b"half of it")
    assert recover_part(part) == recovered
    assert recovered.read_bytes() == first
    assert os.listdir(part.parent) == [recovered.name]


def test_what_was_recovered_before_is_found_again(whole: Path, part: Path) -> None:
    assert recover_part(part) is None
    part.write_bytes(whole.read_bytes())
    assert recover_part(part) == recover_part(part) == part.with_name("e1-000007.cut.mcap")
    assert not part.exists()


def test_a_full_disk_is_said_in_one_line_and_the_part_stays(whole: Path, part: Path) -> None:
    part.write_bytes(whole.read_bytes())
    part.with_name("e1-000007.cut.tmp").symlink_to("/dev/full")
    with pytest.raises(RecordingError, match="No space left on device; free space there") as caught:
        recover_part(part)
    assert "\n" not in str(caught.value)
    assert os.listdir(part.parent) == [part.name]
    assert part.read_bytes() == whole.read_bytes()


def test_only_parts_are_recovered(whole: Path) -> None:
    before = whole.read_bytes()
    with pytest.raises(RecordingError, match="wants a name that ends in"):
        recover_part(whole)
    assert whole.read_bytes() == before


def test_a_killed_process_loses_at_most_the_chunk_it_was_at(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from edge.trials.recording import Recording
recording = Recording(Path(sys.argv[1]))
for number in range(100):
    recording.camera(number, os.urandom(10_000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "trial.mcap"
    process = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert process.returncode == -signal.SIGKILL
    recovered = recover_part(path.with_name("trial.mcap.part"))
    assert recovered is not None
    found = read(recovered)[:-1]
    chunk = recording_module.CHUNK_BYTES // 13_000 + 1  # pictures, in base64
    assert [time_ns for _, time_ns, _ in found] == list(range(len(found)))
    assert len(found) >= 100 - chunk
