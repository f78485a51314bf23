"""Candidates as commits: the same content is the same commit, refs move whole, and merges keep both sides' changes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution import lineage
from coordinator.evolution.lineage import Lineage, LineageError

FILES = {
    "policy.py": b"def run(robot, params):\n    pass\n",
    "policy.toml": b'name = "slide"\r\nbytes = 1',
    "e.json": b"",
}
ONE, TWO = "1" * 64, "2" * 64
LINES = [f"line {k}\n".encode() for k in range(9)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Lineage:
    return Lineage(tmp_path_factory.mktemp("lineage") / "policies.git")


def log(folder: Path, *words: str) -> str:
    """What a person sees who looks with plain git."""
    return subprocess.run(
        ["git", "-C", str(folder), "-c", f"safe.directory={folder}", "log", *words],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_files_come_back_byte_for_byte(shared: Lineage) -> None:
    assert shared.files(shared.commit(FILES, (), "First.\n", 12.9)) == FILES
    assert shared.files(shared.commit({}, (), "Nothing.\n", 0)) == {}


@settings(deadline=None, max_examples=8)
@given(st.dictionaries(st.from_regex(r"[a-z_]{1,9}\.(py|toml|json)", fullmatch=True), st.binary(), max_size=4))
def test_any_bytes_come_back(shared: Lineage, files: dict[str, bytes]) -> None:
    assert shared.files(shared.commit(files, (), "Bytes.\n", 0)) == files


def test_the_same_call_gives_the_same_commit_in_any_repository_whatever_the_user_has_set(
    tmp_path: Path, shared: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shared.commit(FILES, (), "First.\n", 100)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[user]\n name = "me"\n[core]\n autocrlf = true\n[commit]\n gpgsign = true\n')
    for name, value in (("HOME", str(home)), ("GIT_AUTHOR_NAME", "other"), ("GIT_DIR", "/"), ("TZ", "Asia/Tokyo")):
        monkeypatch.setenv(name, value)
    other = Lineage(tmp_path / "other.git")
    assert other.commit(FILES, (), "First.\n", 100) == first
    assert other.commit(FILES, (first,), "Second.\n", 101) == shared.commit(FILES, (first,), "Second.\n", 101)


@pytest.mark.parametrize("changed", ["files", "parents", "message", "time"])
def test_another_content_is_another_commit(shared: Lineage, changed: str) -> None:
    first = shared.commit(FILES, (), "First.\n", 100)
    other = shared.commit(
        FILES | ({"policy.py": b""} if changed == "files" else {}),
        (first,) if changed == "parents" else (),
        "Other.\n" if changed == "message" else "First.\n",
        101 if changed == "time" else 100,
    )
    assert other != first


def test_refs_name_bundles_and_the_incumbent_and_last(tmp_path: Path) -> None:
    made = Lineage(tmp_path / "policies.git")
    assert (made.incumbent, made.commit_of(ONE), made.seed) == (None, None, None)
    first = made.commit(FILES, (), "First.\n\nResearcher: hand\n", 100)
    second = made.commit(FILES, (first,), "Second.\n", 101)
    with pytest.raises(LineageError, match="publish it first"):
        made.accept(ONE)
    made.name(ONE, first)
    made.name(TWO, second)
    made.accept(ONE)
    assert (made.incumbent, made.commit_of(TWO)) == (first, second)
    made.accept(TWO)
    again = Lineage(tmp_path / "policies.git")
    assert (again.incumbent, again.commit_of(ONE)) == (second, first)
    assert log(made.folder, "--format=%s|%an|%at|%D").splitlines() == [
        f"Second.|enpire|101|HEAD -> incumbent, refs/candidates/{'2' * 12}",
        f"First.|enpire|100|refs/candidates/{'1' * 12}",
    ]
    assert log(made.folder, "--format=%(trailers:key=Researcher,valueonly)").strip() == "hand"


def test_the_seed_is_kept_once(tmp_path: Path) -> None:
    made = Lineage(tmp_path / "policies.git")
    kept = made.keep_seed(FILES)
    assert made.keep_seed({}) == kept == made.seed
    assert made.files(kept) == FILES


# A kill at any moment.


@pytest.mark.parametrize("lock", ["refs/heads/incumbent.lock", "packed-refs.lock", "HEAD.lock", "config.lock"])
def test_what_a_killed_git_left_locked_is_opened(tmp_path: Path, lock: str) -> None:
    made = Lineage(tmp_path / "policies.git")
    made.name(ONE, made.commit(FILES, (), "First.\n", 100))
    made.accept(ONE)
    (made.folder / lock).parent.mkdir(exist_ok=True, parents=True)
    (made.folder / lock).write_bytes(b"half")
    again = Lineage(tmp_path / "policies.git")
    again.name(TWO, again.commit(FILES, (), "Second.\n", 101))
    again.accept(TWO)
    assert again.incumbent == again.commit_of(TWO)


@pytest.mark.parametrize("kept", [(), ("HEAD",), ("HEAD", "config"), ("objects",)])
def test_a_repository_whose_making_was_cut_off_is_finished(tmp_path: Path, kept: tuple[str, ...]) -> None:
    made = Lineage(tmp_path / "policies.git")
    for path in made.folder.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = Lineage(tmp_path / "policies.git")
    again.name(ONE, again.commit(FILES, (), "First.\n", 100))
    again.accept(ONE)
    assert again.files(again.incumbent or "") == FILES


def test_a_commit_cut_off_before_its_ref_is_made_again_with_the_same_id(tmp_path: Path) -> None:
    made = Lineage(tmp_path / "policies.git")
    cut_off = made.commit(FILES, (), "First.\n", 100)
    again = Lineage(tmp_path / "policies.git")
    assert again.commit_of(ONE) is None
    assert again.commit(FILES, (), "First.\n", 100) == cut_off
    again.name(ONE, cut_off)
    assert again.commit_of(ONE) == cut_off


# Merging.


def text(**changed: bytes) -> dict[str, bytes]:
    lines = list(LINES)
    for key, line in changed.items():
        lines[int(key[1:])] = line
    return {"a.py": b"".join(lines)}


def test_both_sides_changes_are_in_a_merge(shared: Lineage) -> None:
    base = text() | {"left.json": b"1", "right.json": b"1", "gone.toml": b""}
    ours = text(n1=b"ours\n") | {"left.json": b"2", "right.json": b"1", "ours.py": b"", "gone.toml": b""}
    theirs = text(n7=b"theirs\n") | {"left.json": b"1", "right.json": b"3", "theirs.py": b""}
    assert shared.merge(base, ours, theirs) == text(n1=b"ours\n", n7=b"theirs\n") | {
        "left.json": b"2", "right.json": b"3", "ours.py": b"", "theirs.py": b"",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        (text(), text(n4=b"ours\n"), text(n4=b"theirs\n")),
        (text(), text(n4=b"ours\n"), {}),
        ({}, {"a.py": b"ours\n"}, {"a.py": b"theirs\n"}),
        ({"a.json": b"\0one"}, {"a.json": b"\0two"}, {"a.json": b"\0three"}),
    ],
)
def test_what_both_changed_is_not_merged(
    shared: Lineage, base: dict[str, bytes], ours: dict[str, bytes], theirs: dict[str, bytes]
) -> None:
    assert shared.merge(base, ours, theirs) is None
    assert shared.merge(base, theirs, ours) is None


def test_a_git_that_was_killed_has_not_said_that_two_changes_clash(tmp_path: Path) -> None:
    git = tmp_path / "git"
    real = shutil.which("git")
    git.write_text(f'#!/bin/sh\ncase $1 in merge-file|rev-parse) kill -9 $$ ;; esac\nexec {real} "$@"\n')
    git.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lineage.shutil, "which", lambda name: str(git))
        killed = Lineage(tmp_path / "policies.git")
    with pytest.raises(LineageError, match=r"merge-file .* was killed by signal 9"):
        killed.merge_lines(b"1", b"2", b"3")
    with pytest.raises(LineageError, match=r"rev-parse .* was killed by signal 9"):
        killed.commit_of(ONE)


SIDES = st.dictionaries(st.sampled_from(["a.py", "b.toml", "c.json"]), st.binary(max_size=3))


@settings(deadline=None, max_examples=40)
@given(SIDES, SIDES)
def test_a_merge_with_nothing_or_with_the_same_is_the_other_side(
    shared: Lineage, base: dict[str, bytes], ours: dict[str, bytes]
) -> None:
    assert shared.merge(base, ours, base) == ours
    assert shared.merge(base, base, ours) == ours
    assert shared.merge(base, ours, ours) == ours


# Refusals.


def test_without_a_git_that_can_do_it_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage.shutil, "which", lambda name: None)
    with pytest.raises(LineageError, match=r"^there is no git here; install git 2\.38 or newer$"):
        Lineage(tmp_path / "policies.git")
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.37.9\n")
    old.chmod(0o755)
    monkeypatch.setattr(lineage.shutil, "which", lambda name: str(old))
    with pytest.raises(LineageError, match=r"says 'git version 2\.37\.9'; install git 2\.38 or newer$"):
        Lineage(tmp_path / "policies.git")


@pytest.mark.parametrize("commit", ["0" * 40, "main", "--all", ""])
def test_what_is_no_commit_is_refused_in_one_line(shared: Lineage, commit: str) -> None:
    for use in (shared.files, lambda commit: shared.name(ONE, commit)):
        with pytest.raises(LineageError) as caught:
            use(commit)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bundle", ["", "../heads/x", "g" * 64, "1" * 11])
def test_what_is_no_bundle_s_name_is_refused(shared: Lineage, bundle: str) -> None:
    with pytest.raises(LineageError, match="is no bundle's name"):
        shared.commit_of(bundle)


CHILD = """
import sys
from pathlib import Path
from coordinator.evolution.lineage import Lineage
made = Lineage(Path(sys.argv[1]))
print("open", flush=True)
for number in range(1000):
    commit = made.commit({"a.py": b"x" * number}, [made.incumbent] if made.incumbent else [], "Step.\\n", number)
    made.name(f"{number:064x}", commit)
    made.accept(f"{number:064x}")
"""


def test_a_kill_at_any_moment_leaves_every_ref_whole_and_the_next_process_goes_on(tmp_path: Path) -> None:
    rng = random.Random(3)
    folder = tmp_path / "policies.git"
    for _ in range(8):
        command = [sys.executable, "-c", CHILD, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"open\n"
            with suppress(subprocess.TimeoutExpired):
                child.wait(rng.uniform(0.0, 0.4))
            os.killpg(child.pid, signal.SIGKILL)  # its git too
        made = Lineage(folder)
        refs = log(folder, "--all", "--format=%H").split() if made.incumbent else []
        for commit in refs[:3]:
            assert set(made.files(commit)) in ({"a.py"}, set(FILES))
        last = made.commit(FILES, refs[:1], "Goes on.\n", 1)
        made.name(ONE, last)
        made.accept(ONE)
        assert made.incumbent == last
    assert made.commit_of("0" * 64) is not None  # it was not always killed too soon
    subprocess.run(
        ["git", "-C", str(folder), "-c", f"safe.directory={folder}", "fsck", "--strict"],
        check=True,
        capture_output=True,
    )
