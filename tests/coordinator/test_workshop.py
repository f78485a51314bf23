"""A draft changes one line a parameter or is refused with one; merges keep both sides; publishing is repeatable."""

from __future__ import annotations

import difflib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution.book import Book
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, Source
from coordinator.evolution.intake import Intake
from coordinator.evolution.lineage import Lineage, LineageError
from coordinator.evolution.workshop import GitWorkshop, message, with_defaults
from coordinator.publish.publisher import Publisher
from coordinator.store import FILE, Store
from policies.bundle import open_bundle
from policies.interface import Value
from policies.skills.program import read_steps, write_steps
from policies.space import parse_space

TOML = b"""# What may be varied.
name = "slide"
task = "push_t"
api = 1
entry = "policy.py"

[parameters.speed_m_s]
default = 0.1  # slow
low = 0.05
high = 0.4
scale = "log"
about = "how fast"
helps = []

[parameters.tries]
default = 2
low = 1
high = 9
scale = "integer"
about = "how often"
helps = []

[ideas.ease]
default = false
claim = "Easing helps."
helps = []

[skills.look]
needs = "start"
gives = "seen"
claim = "One picture shows it."
helps = []

[skills.rest]
needs = "seen"
gives = "seen"
claim = "A tool at rest starts where it was aimed."
helps = []

[skills.push]
needs = "seen"
gives = "moved"
claim = "Pushing moves it."
helps = []

[skills.wait]
needs = "moved"
gives = "moved"
claim = "A thing that slides on comes to rest."
helps = []

[skills.stop]
needs = "moved"
gives = "done"
claim = "It is there."
helps = []
"""
NAIVE = ("look", "push", "stop")
POLICY = {
    "__init__.py": b"",
    "policy.py": b"def run(robot, params):\n    pass\n",
    "policy.toml": TOML,
    "program.toml": write_steps(NAIVE),
}


def idea(changes: Mapping[str, Value] | None = None, **files: bytes) -> Proposal:
    named = {name.replace("__", "."): data for name, data in files.items()}
    return Proposal("hand", changes or {}, "It slides better.", "No gain in a screen of 8.", named)


def folder_of(path: Path, files: Mapping[str, bytes] = POLICY) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> GitWorkshop:
    run = tmp_path_factory.mktemp("run")
    policy = folder_of(run / "policy")
    (policy / "README.md").write_text("words")
    return GitWorkshop(policy, Lineage(run / "policies.git"), Publisher.for_demo(policy, run, Store(run / FILE)))


@pytest.fixture
def seed(shop: GitWorkshop) -> Source:
    return shop.seed()


def changed_lines(one: bytes, other: bytes) -> list[str]:
    diff = difflib.ndiff(one.decode().splitlines(), other.decode().splitlines())
    return [line for line in diff if line[0] in "+-"]


# The seed.


def test_the_seed_is_the_folder_without_what_no_bundle_carries(seed: Source) -> None:
    assert seed.files == POLICY
    assert seed.params == {"speed_m_s": 0.1, "tries": 2.0, "ease": False}


def test_the_seed_stays_what_the_run_began_with(tmp_path: Path) -> None:
    policy = folder_of(tmp_path / "policy")
    publisher = Publisher.for_demo(policy, tmp_path, Store(tmp_path / FILE))
    first = GitWorkshop(policy, Lineage(tmp_path / "policies.git"), publisher).seed()
    folder_of(policy, {"policy.py": b"def run(robot, params):\n    return\n"})
    assert GitWorkshop(policy, Lineage(tmp_path / "policies.git"), publisher).seed() == first


def test_a_folder_without_a_policy_is_refused(tmp_path: Path, shop: GitWorkshop) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ProposalRefused):
            GitWorkshop(folder, Lineage(tmp_path / "policies.git"), shop._publisher).seed()


# Drafts.


def test_a_parameter_is_one_line_of_the_file_and_its_comment_stays(shop: GitWorkshop, seed: Source) -> None:
    made = shop.draft(seed, idea({"speed_m_s": 0.2}))
    assert changed_lines(TOML, made.files["policy.toml"]) == ["- default = 0.1  # slow", "+ default = 0.2  # slow"]
    made = shop.draft(seed, idea({"tries": 3.0, "ease": True}))
    assert changed_lines(TOML, made.files["policy.toml"]) == [
        "- default = 2", "+ default = 3", "- default = false", "+ default = true",
    ]  # fmt: skip
    assert made.params == {"speed_m_s": 0.1, "tries": 3.0, "ease": True}


CHANGES = st.fixed_dictionaries(
    {},
    optional={"speed_m_s": st.floats(0.05, 0.4), "tries": st.integers(1, 9).map(float), "ease": st.booleans()},
)


@settings(deadline=None, max_examples=60)
@given(CHANGES)
def test_a_policy_toml_has_the_defaults_that_were_written_and_no_other_line_changed(changes: dict[str, Value]) -> None:
    written = with_defaults(TOML, changes)
    before = parse_space(TOML).defaults()
    assert parse_space(written).defaults() == before | changes
    assert parse_space(written).complete({}) == before | changes
    moved = sum(before[name] != value for name, value in changes.items())
    assert len(changed_lines(TOML, written)) == 2 * moved
    assert with_defaults(written, changes) == written


def test_an_empty_change_is_the_same_policy_and_a_change_and_back_too(shop: GitWorkshop, seed: Source) -> None:
    assert shop.draft(seed, idea()) == seed
    there = shop.draft(seed, idea({"speed_m_s": 0.3, "ease": True}))
    assert there.key != seed.key
    assert shop.draft(there, idea({"speed_m_s": 0.1, "ease": False})) == seed


def test_what_was_drafted_before_is_refused_where_another_kind_of_value_is_equal(
    shop: GitWorkshop, seed: Source
) -> None:
    assert shop.draft(seed, idea({"ease": True})) is shop.draft(seed, idea({"ease": True}))
    with pytest.raises(ProposalRefused, match=r"idea ease is 1\.0"):
        shop.draft(seed, idea({"ease": 1.0}))


def test_a_comment_is_no_other_policy(shop: GitWorkshop, seed: Source) -> None:
    made = shop.draft(seed, idea(policy__py=b"# why\ndef run(robot, params): pass\n"))
    assert made.files != seed.files
    assert made.key == seed.key


def test_files_are_replaced_and_added_whole(shop: GitWorkshop, seed: Source) -> None:
    made = shop.draft(seed, idea({"tries": 4.0}, pushes__json=b"[1]", geometry__py=b"X = 1\n"))
    assert made.files["pushes.json"] == b"[1]"
    assert made.files["geometry.py"] == b"X = 1\n"
    assert made.params["tries"] == 4.0
    played = shop.draft(seed, Play({"play.json": b"[]"}, {}, 3))
    assert played.files == {**POLICY, "play.json": b"[]"}


@pytest.mark.parametrize(
    ("proposal", "text"),
    [
        (idea({"speed_m_s": 0.5}), "parameter speed_m_s is 0.5; allowed is 0.05 to 0.4"),
        (idea({"speed_m_s": float("nan")}), "parameter speed_m_s is nan"),
        (idea({"tries": 2.5}), "parameter tries is 2.5; it must be a whole number"),
        (idea({"ease": 1.0}), "idea ease is 1.0; it can be true or false"),
        (idea({"ease": ["on"]}), "'ease' is ['on'], which is neither a number nor true or false"),  # type: ignore[dict-item]
        (idea({"haste": 1.0}), "slide has no parameter or idea 'haste'"),
        (Proposal("k", {}, "S.", "F.", {"../edge/tasks/task.py": b""}), "'../edge/tasks/task.py' is no file of"),
        (Proposal("k", {}, "S.", "F.", {"/etc/passwd": b""}), "'/etc/passwd' is no file of a policy"),
        (Proposal("k", {}, "S.", "F.", {"sub/a.py": b""}), "'sub/a.py' is no file of a policy"),
        (Proposal("k", {}, "S.", "F.", {"a.so": b""}), "'a.so' is no file of a policy"),
        (idea(manifest__json=b"{}"), "'manifest.json' is no file of a policy"),
        (idea(judge__py=b""), "judge.py is named like a file of the judge or the guard"),
        (idea(policy__py=b"import edge.tasks\n"), "policy.py imports edge, which no policy may"),
        (idea(policy__py=b"import pickle\n"), "policy.py imports pickle, which no policy may"),
        (idea(policy__py=b"def run(robot, params):\n    return (\n"), "policy.py, line 2: '(' was never closed"),
        (idea(policy__py=b"x = 1\ny = = 2\n"), "policy.py, line 2: invalid syntax"),
        (idea(policy__py=b"\0"), "policy.py"),
        (idea(policy__py=b"#" * 65537), "policy.py has 65537 bytes; at most 65536"),
        (idea(pushes__json=b"[1,"), "pushes.json is not JSON"),
        (idea(policy__toml=b"name ="), "not TOML"),
        (idea(policy__toml=TOML.replace(b'task = "push_t"', b'task = "pin"')), "policy.toml changes task, which"),
        (idea(policy__toml=TOML.replace(b'"slide"', b'"glide"')), "policy.toml changes name"),
        (idea(program__toml=write_steps(("look", "stop"))), "step 2, stop, needs 'moved', and there it is 'seen'"),
        (idea(program__toml=write_steps(("look", "dance"))), "step 2 is 'dance', which is no skill"),
        (idea(program__toml=b"steps = 1"), "program.toml: it must hold `steps`"),
        (Proposal("k", {}, "S.", "F.", {f"f{n}.py": b"" for n in range(61)}), "65 files; at most 64 are allowed"),
        (Proposal("k", {}, "S.", "F.", {f"f{n}.json": b"1" + b" " * 131071 for n in range(5)}), "more than 532480 byt"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_policy_is_refused_in_one_line(
    shop: GitWorkshop, seed: Source, proposal: Proposal, text: str
) -> None:
    with pytest.raises(ProposalRefused) as caught:
        shop.draft(seed, proposal)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# Merges.


def steps_of(source: Source) -> tuple[str, ...]:
    return read_steps(source.files["program.toml"])


def test_two_parameters_and_two_steps_merge(shop: GitWorkshop, seed: Source) -> None:
    rest, wait = ("look", "rest", "push", "stop"), ("look", "push", "wait", "stop")
    ours = shop.draft(seed, idea({"speed_m_s": 0.2}, program__toml=write_steps(rest)))
    theirs = shop.draft(seed, idea({"tries": 5.0, "ease": True}, program__toml=write_steps(wait)))
    both = shop.merge(seed, ours, theirs)
    assert both is not None
    assert both.params == {"speed_m_s": 0.2, "tries": 5.0, "ease": True}
    assert steps_of(both) == ("look", "rest", "push", "wait", "stop")
    other = shop.merge(seed, theirs, ours)
    assert other is not None
    assert other.key == both.key


def test_what_both_changed_otherwise_or_what_is_no_policy_together_does_not_merge(
    shop: GitWorkshop, seed: Source
) -> None:
    fast, faster = (shop.draft(seed, idea({"speed_m_s": speed})) for speed in (0.2, 0.3))
    assert shop.merge(seed, fast, faster) is None
    assert shop.merge(seed, fast, fast) == fast
    # One takes a skill out of the file, the other puts it into the program.
    at, end = TOML.index(b"[skills.wait]"), TOML.index(b"[skills.stop]")
    without = shop.draft(seed, idea(policy__toml=TOML[:at] + TOML[end:]))
    waits = shop.draft(seed, idea(program__toml=write_steps(("look", "push", "wait", "stop"))))
    assert shop.merge(seed, without, waits) is None


def test_an_idea_that_is_tested_anew_on_a_new_incumbent_is_told_with_the_code_that_is_tested(
    shop: GitWorkshop, seed: Source
) -> None:
    book = Book(1)
    intake = Intake(shop, book)
    intake.ship(1_000.0)
    shipped, code = book.incumbent, POLICY["policy.py"]
    for changed in (b"FIRST = True\n" + code, code + b"LAST = True\n"):
        assert intake.take(idea(policy__py=changed), "agent", 1_001.0) == ""
    book.incumbent, other = book.testing
    book.testing.clear()
    intake.rebase(other, shipped, 1_002.0)
    [again] = book.testing
    assert again.standing.files == {"policy.py": b"FIRST = True\n" + code + b"LAST = True\n"}
    assert again.source.files["policy.py"] == again.standing.files["policy.py"]


# Publishing.


def test_what_is_published_is_a_commit_after_its_parents_and_a_bundle_that_names_it(
    shop: GitWorkshop, seed: Source
) -> None:
    first = shop.publish(seed, idea(), "hand", (), 1_000.0)
    faster = idea({"speed_m_s": 0.2})
    child = shop.publish(shop.draft(seed, faster), faster, "offline", (first,), 1_001.0)
    other = shop.publish(shop.draft(seed, idea({"tries": 4.0})), idea({"tries": 4.0}), "offline", (first,), 1_002.0)
    both = shop.publish(shop.draft(seed, idea({"ease": True})), faster, "offline", (child, other), 1_003.0)
    lineage = shop._lineage
    archive = shop._publisher.store.bundle(child)
    assert archive is not None
    manifest = open_bundle(archive, child).manifest
    assert manifest.params == {"speed_m_s": 0.2, "tries": 2.0, "ease": False}
    assert manifest.parent == first
    assert manifest.provenance == {
        "hypothesis": "It slides better.", "researcher": "offline", "commit": lineage.commit_of(child),
    }  # fmt: skip
    shop.accepted(both)
    shown = subprocess.run(
        ["git", "-C", str(lineage.folder), "-c", f"safe.directory={lineage.folder}", "log", "--format=%p|%D|%at"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert [line.split("|")[1] for line in shown] == [
        f"HEAD -> incumbent, refs/candidates/{both[:12]}", f"refs/candidates/{other[:12]}",
        f"refs/candidates/{child[:12]}", f"refs/candidates/{first[:12]}", "refs/seed",
    ]  # fmt: skip
    assert [len(line.split("|")[0].split()) for line in shown] == [2, 1, 1, 1, 0]
    assert shop.source(child) == shop.draft(seed, faster)
    assert shop.source("0" * 64) is None


def test_publishing_again_gives_the_same_bundle_and_signs_nothing(shop: GitWorkshop, seed: Source) -> None:
    slow = idea({"speed_m_s": 0.06})
    source = shop.draft(seed, slow)
    first = shop.publish(source, slow, "offline", (), 2_000.0)
    signed = shop._publisher.lab.repository.books().timestamp.signed.version
    reopened = GitWorkshop(shop._policy, Lineage(shop._lineage.folder), shop._publisher)
    assert reopened.publish(source, slow, "offline", (), 2_000.0) == first
    assert shop._publisher.lab.repository.books().timestamp.signed.version == signed
    assert shop.publish(source, slow, "offline", (), 2_001.0) != first


@pytest.mark.parametrize("last", ["commit", "publish", "name"])
def test_a_publication_cut_off_anywhere_is_finished_by_the_same_call(
    tmp_path: Path, last: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = folder_of(tmp_path / "policy")
    publisher = Publisher.for_demo(policy, tmp_path, Store(tmp_path / FILE))
    shop = GitWorkshop(policy, Lineage(tmp_path / "policies.git"), publisher)
    source = shop.draft(shop.seed(), idea({"tries": 7.0}))

    class Killed(BaseException):
        pass

    def then_killed(what: object, *given: object) -> None:
        raise Killed

    where = Publisher if last == "publish" else Lineage
    with monkeypatch.context() as cut:
        cut.setattr(where, last, then_killed)
        with pytest.raises(Killed):
            shop.publish(source, idea({"tries": 7.0}), "offline", (), 50.0)
    again = GitWorkshop(policy, Lineage(tmp_path / "policies.git"), publisher)
    bundle = again.publish(source, idea({"tries": 7.0}), "offline", (), 50.0)
    assert again.source(bundle) == source
    assert publisher.store.bundle(bundle) is not None


def test_what_was_not_published_is_neither_a_parent_nor_the_incumbent(shop: GitWorkshop, seed: Source) -> None:
    with pytest.raises(ProposalRefused, match="was never published in this run"):
        shop.publish(seed, idea(), "hand", ("f" * 64,), time.time())
    with pytest.raises(LineageError, match="publish it first"):
        shop.accepted("f" * 64)


def test_a_message_is_the_sentence_and_trailers_each_on_one_line() -> None:
    proposal = Proposal("switch\x1b[2J", {}, "Slow\nis\u2028sure. " + "x" * 300, "It\r\nfails.")
    lines = message(proposal, "hand", "c0ffee").splitlines()
    assert len(lines[0]) == 200
    assert lines[1:2] == [""]
    assert lines[-4:] == [
        "Hypothesis-Kind: switch [2J",
        "Researcher: hand",
        "Falsifier: It fails.",
        "Policy-Key: c0ffee",
    ]
