"""What `build` wrote opens under its own name to the same content, and lies on disk whole or not at all."""

from __future__ import annotations

import base64
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import archive, bundle, contents, space
from policies.bundle import Bundle, BundleError, BundleMalformed, BundleRefused, open_bundle, read_unpacked, unpack
from policies.envelope import Envelope
from policies.interface import Params
from policies.space import Resources, Weight
from tests.harness.bundle_format import (
    DEFAULTS,
    FILES,
    GOOD,
    PROVENANCE,
    TAR,
    as_json,
    bundle_of,
    manifest_of,
    said,
    sha256,
)

PUSH_T = Path(bundle.__file__).parent / "push_t"
NAME = sha256(GOOD)
WEIGHTS = {"grip.onnx": b"weights", "see.safetensors": b""}


def opened(data: bytes) -> Bundle:
    return open_bundle(data, sha256(data))


def build(folder: Path, params: Params = {}, parent: str | None = None, **words: str) -> bytes:  # noqa: B006
    return bundle.build(folder, params, PROVENANCE | words, parent)


def refusal(call: Callable[[], object]) -> tuple[type[BundleError], str]:
    """Return how `call` was refused: the very class, and its one line."""
    with pytest.raises(BundleError) as caught:
        call()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return type(caught.value), message


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def saying(more: str) -> dict[str, bytes]:
    """Return the good policy with `more` in its policy.toml."""
    return FILES | {"policy.toml": FILES["policy.toml"] + more.encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "policy", FILES)


# Making and opening.


def test_build_writes_the_format_byte_for_byte(folder: Path) -> None:
    assert build(folder) == GOOD


def test_what_was_built_opens_to_the_same_content() -> None:
    found = open_bundle(GOOD, NAME)
    assert found.files == FILES
    assert asdict(found.manifest) == said()
    assert found.id == NAME == bundle.bundle_id(GOOD)


def test_what_was_opened_cannot_be_changed() -> None:
    found = open_bundle(GOOD, NAME)
    for item, field in ((found, "id"), (found.manifest, "entry")):
        with pytest.raises(FrozenInstanceError):
            setattr(item, field, "other")


@pytest.mark.parametrize("name", ["", "0" * 64, NAME.upper(), NAME[:-1], NAME + "\n", sha256(TAR)])
def test_a_bundle_opens_under_no_other_name(name: str) -> None:
    kind, message = refusal(lambda: open_bundle(GOOD, name))
    assert kind is BundleRefused
    assert message.startswith(f"these are not the bytes of bundle {name!r:.14}; fetch it again")


def test_the_shipped_policy_survives_the_journey() -> None:
    found = opened(build(PUSH_T, {"most_pushes": 7}, "a" * 64, researcher="me"))
    assert found.manifest.params == space.load_space(PUSH_T).defaults() | {"most_pushes": 7.0}
    assert (found.manifest.parent, found.manifest.provenance) == ("a" * 64, PROVENANCE | {"researcher": "me"})
    assert found.files["policy.py"] == (PUSH_T / "policy.py").read_bytes()


def test_what_a_policy_binds_itself_to_is_in_its_manifest(folder: Path) -> None:
    more = """
[envelope]
lower_rad = [-1, -1, -1, -1, -1, -1]
box_upper_m = [0.5, 0.25, 1]
trial_s = 20

[resources]
memory_mb = 256
longest_s = 30

[weights]
"""
    lines = [f'"{name}" = ["{sha256(data)}", {len(data) + 1}]\n' for name, data in WEIGHTS.items()]
    write(folder, saying(more + "".join(lines)))
    found = opened(build(folder)).manifest
    assert found.envelope == Envelope(lower_rad=(-1.0,) * 6, box_upper_m=(0.5, 0.25, 1.0), trial_s=20.0)
    assert found.resources == Resources(256, 30.0)
    assert found.weights == {name: Weight(sha256(data), len(data) + 1) for name, data in WEIGHTS.items()}


def test_the_same_content_has_the_same_name_whenever_and_wherever_it_is_built(tmp_path: Path) -> None:
    one = write(tmp_path / "one", FILES)
    two = write(tmp_path / "elsewhere" / "two", dict(reversed(FILES.items())))
    for path in two.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o755)
    built = [
        bundle.build(one, {"speed_m_s": 0.2, "ease": True}, PROVENANCE, None),
        bundle.build(two, {"ease": True, "speed_m_s": 0.2}, dict(reversed(PROVENANCE.items())), None),
    ]
    assert built[0] == built[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: build(folder, {"ease": True}),
        lambda folder: build(folder, {"speed_m_s": 0.2}),
        lambda folder: build(folder, parent="a" * 64),
        lambda folder: build(folder, hypothesis="Faster is surer."),
        lambda folder: build(write(folder, {"more.py": b""})),
        lambda folder: build(write(folder, saying("# a comment"))),
    ],
)
def test_other_content_has_another_name(folder: Path, change: Callable[[Path], bytes]) -> None:
    assert bundle.bundle_id(change(folder)) != NAME


def test_only_python_toml_and_json_files_travel(folder: Path) -> None:
    write(folder / "__pycache__", {"policy.pyc": b"old"})
    write(folder, {"README.md": b"words", "policy.py~": b"backup", "grip.onnx": b"weights"})
    assert build(folder) == GOOD
    learned = {"grips.json": b"{}", "program.toml": b"steps = []\n", "pushes.json": b"[1.5]\n"}
    write(folder, learned)
    assert opened(build(folder)).files == FILES | learned


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"Policy.py": b""}, "a file named 'Policy.py'; names are lower case words"),
        ({"two words.py": b""}, "a file named 'two words.py'"),
        ({"2.py": b""}, "a file named '2.py'"),
        ({f"a{'b' * 61}.py": b""}, "a file named 'abbb"),
        ({"naïve.py": b""}, "a file named 'naïve.py'"),
        ({f"f{k}.py": b"" for k in range(63)}, "65 files; at most 64"),
        ({f"f{k}.py": b"#" * 65536 for k in range(8)}, "more than 532480 bytes of files"),
        ({"manifest.json": b"{}"}, "manifest.json is the bundle's own; rename it"),
        ({"pushes.json": b"[1,"}, "pushes.json is not JSON: JSONDecodeError"),
        ({"guard.py": b""}, "guard.py is named like a file of the judge or the guard"),
        ({"policy.py": b"import ctypes"}, "policy.py imports ctypes, which no policy may"),
        ({"policy.toml": FILES["policy.toml"].replace(b"policy.py", b"gone.py")}, "the entry 'gone.py' is not among"),
    ],
)
def test_what_cannot_go_into_a_bundle_is_not_built(folder: Path, files: dict[str, bytes], text: str) -> None:
    write(folder, files)
    kind, message = refusal(lambda: build(folder))
    assert kind is BundleError
    assert message.startswith(f"cannot bundle {folder}: {text}")


@pytest.mark.parametrize("params", [{"speed_m_s": 0.5}, {"speed_m_s": float("nan")}, {"ease": 1}, {"haste": 1.0}])
def test_params_that_the_policy_does_not_allow_are_not_built(folder: Path, params: Params) -> None:
    with pytest.raises(space.SpaceError):
        build(folder, params)


@pytest.mark.parametrize("provenance", [{}, {"by": "me"}, PROVENANCE | {"kind": "seed"}, PROVENANCE | {"commit": None}])
def test_provenance_is_three_words_or_nothing_is_built(folder: Path, provenance: Any) -> None:
    assert refusal(lambda: bundle.build(folder, {}, provenance, None))[1].startswith(f"cannot bundle {folder}: proven")


def test_a_file_that_cannot_be_read_is_not_left_out(folder: Path) -> None:
    (folder / "skill.py").mkdir()
    assert refusal(lambda: build(folder)) == (BundleError, f"cannot bundle {folder}: Is a directory")


def test_weights_beside_the_policy_must_be_those_that_it_names(folder: Path) -> None:
    here = sha256(b"weights")
    for line in (f'["{here}", 7]', f'["{"0" * 64}", 7]', f'["{"f" * 64}", 7]', f'["{here}", 6]', f'["{here}", 8]'):
        write(folder, saying(f'[weights]\n"grip.onnx" = {line}\n'))
        (folder / "grip.onnx").unlink(missing_ok=True)
        without = build(folder)
        write(folder, {"grip.onnx": b"weights"})
        if line == f'["{here}", 7]':
            assert build(folder) == without
        else:
            text = f"{folder / 'grip.onnx'} is not what policy.toml says; it is ['{here}', 7]"
            assert refusal(lambda: build(folder)) == (BundleError, text)


def test_as_many_files_as_are_allowed_travel(folder: Path) -> None:
    write(folder, {f"f{k}.py": b"" for k in range(62)})
    assert len(opened(build(folder)).files) == 64


def test_as_many_bytes_of_files_as_are_allowed_travel_and_not_one_more(folder: Path) -> None:
    # A tar is made of blocks of 512 bytes, ends with two empty ones and is filled up to whole records of 20.
    full = {f"f{k}.py": b"#" * 65536 for k in range(7)}
    everything = FILES | full | {"last.py": b""}
    contents_of_all = [as_json(manifest_of(everything)), *everything.values()]
    used = sum(1 + -(-len(data) // 512) for data in contents_of_all) + 2
    room = (532480 // 10240 * 20 - used) * 512
    write(folder, full | {"last.py": b"#" * room})
    assert len(opened(build(folder)).files["last.py"]) == room
    write(folder, {"last.py": b"#" * (room + 1)})
    assert refusal(lambda: build(folder))[1].endswith("more than 532480 bytes of files")


def test_what_does_not_get_small_enough_is_not_built(folder: Path) -> None:
    noise = [b"# " + base64.b64encode(random.Random(k).randbytes(48_000)) for k in range(6)]
    write(folder, {f"f{k}.py": data for k, data in enumerate(noise[:5])})
    assert opened(build(folder)).files["f4.py"] == noise[4]
    write(folder, {"f5.py": noise[5]})
    kind, message = refusal(lambda: build(folder))
    assert kind is BundleError
    assert message.endswith("bytes; at most 262144 are allowed")


def test_an_archive_takes_the_longest_name_that_a_tar_has_room_for() -> None:
    files = {"n" * 100: b"data"}
    assert archive.read(archive.pack(files)) == files


# On disk.


OPENED = open_bundle(GOOD, NAME)
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


def test_everything_is_on_the_disk_before_the_name_is_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    unpack(OPENED, tmp_path / "bundles")
    *files, unfinished, renamed, into = done
    assert sorted(files) == sorted(ON_DISK)
    assert unfinished.startswith(".unfinished-")
    assert (renamed, into) == ("rename", "bundles")


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


ABOUT_FILES = "manifest.json does not agree with the files about files"
BAD_NAME = "names are lower case words"
MISSING = "manifest.json is missing or not JSON"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        pytest.param(put("policy.py", b"import os\n"), BundleMalformed, ABOUT_FILES, id="changed file"),
        pytest.param(put("policy.py", FILES["policy.py"] + b"\n"), BundleMalformed, ABOUT_FILES, id="longer file"),
        pytest.param(put("policy.py", b""), BundleMalformed, ABOUT_FILES, id="emptied file"),
        pytest.param(put("policy.toml", b""), BundleMalformed, "name is missing", id="emptied policy.toml"),
        pytest.param(remove("policy.py"), BundleMalformed, "the entry 'policy.py' is not", id="missing file"),
        pytest.param(remove("policy.toml"), BundleMalformed, "policy.toml is not among", id="missing policy.toml"),
        pytest.param(put("zz.py", b""), BundleMalformed, ABOUT_FILES, id="added file"),
        pytest.param(put("zz.so", b""), BundleMalformed, BAD_NAME, id="added library"),
        pytest.param(put(".zz", b""), BundleMalformed, BAD_NAME, id="added hidden file"),
        pytest.param(remove("manifest.json"), BundleMalformed, MISSING, id="missing manifest"),
        pytest.param(put("manifest.json", b""), BundleMalformed, MISSING, id="emptied manifest"),
        pytest.param(
            put("manifest.json", as_json(said(params=DEFAULTS | {"speed_m_s": 9.0}))),
            BundleMalformed,
            "allowed is",
            id="manifest with a value outside its range",
        ),
        pytest.param(
            put("manifest.json", as_json(said()) + b"\n"), BundleMalformed, "canonical", id="manifest with a blank"
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


def test_the_format_written_apart_is_the_one_under_test() -> None:
    assert opened(bundle_of(FILES | {"zz.py": b"x = 1\n"})).files == FILES | {"zz.py": b"x = 1\n"}


# The whole way.


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,60}\.py", fullmatch=True).filter(
    lambda name: name != "policy.py" and name[:-3] not in {*contents.TAKEN, *contents.JUDGES}
)
# What a line of text may be made of.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp"))
SOURCE = st.lists(st.text(CHARACTERS, max_size=40).map(lambda line: f"# {line}\n"), max_size=20)


@settings(max_examples=20)
@given(
    extra=st.dictionaries(NAMES, SOURCE.map("".join).map(str.encode), max_size=5),
    params=st.fixed_dictionaries({}, optional={"speed_m_s": st.floats(0.05, 0.4), "ease": st.booleans()}),
    provenance=st.fixed_dictionaries(dict.fromkeys(PROVENANCE, st.text(CHARACTERS, max_size=40))),
    parent=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_any_files_params_and_provenance_come_back(
    extra: dict[str, bytes], params: Params, provenance: dict[str, str], parent: str | None
) -> None:
    with tempfile.TemporaryDirectory() as place:
        source = write(Path(place) / "source", FILES | extra)
        found = opened(bundle.build(source, params, provenance, parent))
        assert found.files == FILES | extra
        assert found.manifest.params == DEFAULTS | dict(params)
        assert (found.manifest.provenance, found.manifest.parent) == (provenance, parent)
        assert read_unpacked(unpack(found, Path(place) / "bundles")) == found.manifest
