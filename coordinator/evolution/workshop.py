"""Makes policies of ideas: a policy's folder as it ships, drafts of changes to it, merges, and bundles.

- A change of a parameter is a change of its default in policy.toml, one line of it, so that a policy is its files and
  nothing else, and two changes of different parameters merge.
- A draft is refused with one line for whoever proposed it: a file outside the policy, Python that does not compile, a
  value out of range, a program whose steps do not fit together, or what no bundle may hold.
- What is published is a commit with its parents' commits before it, and a bundle that names the commit.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError

from coordinator.evolution import novelty
from coordinator.evolution.ideas import Play, Proposal, ProposalRefused, Source
from coordinator.evolution.lineage import Lineage
from coordinator.publish.publisher import Publisher
from policies import archive, contents, manifest, space
from policies.bundle import SUFFIXES, build, bundle_id
from policies.interface import Value
from policies.skills import program
from policies.space import PolicySpace, SpaceError

NOTHING_SAID = dict.fromkeys(manifest.PROVENANCE, "")
FIXED = ("name", "task", "api", "entry")  # what a candidate may not change of its policy.toml
SUBJECT_CHARS, SAID_CHARS = 200, 1000
DRAFTS = 1024  # that are remembered: a researcher asks again and again what it has not tried
REMEMBERED = 256  # files that were looked at: a draft changes one or two of a policy's


class GitWorkshop:
    """The workshop of one run (see `ideas.Workshop`)."""

    def __init__(self, policy: Path, lineage: Lineage, publisher: Publisher) -> None:
        """Make policies out of the one in the folder `policy`, unless the run began with another one already."""
        self._policy, self._lineage, self._publisher = policy, lineage, publisher

    def seed(self) -> Source:
        """Return the policy as it shipped when the run began; a folder that changed since then changes nothing.

        Raises:
            ProposalRefused: the folder does not hold a policy.
            LineageError: it cannot be kept.
        """
        kept = self._lineage.seed
        if kept is not None:
            return _source(self._lineage.files(kept))
        try:
            found = {path.name: path.read_bytes() for path in self._policy.iterdir() if path.suffix in SUFFIXES}
        except OSError as error:
            raise ProposalRefused(f"cannot read the policy in {self._policy}: {error.strerror}") from error
        source = _source(found)
        self._lineage.keep_seed(source.files)
        return source

    def draft(self, base: Source, proposal: Proposal | Play) -> Source:
        """Return what a proposal makes of `base`; nothing is kept.

        Raises:
            ProposalRefused: an unknown or impossible value, a file outside the policy, or one that does not compile.
        """
        for name, value in proposal.changes.items():
            if not isinstance(value, bool | int | float):
                raise ProposalRefused(f"{name!r:.80} is {value!r:.40}, which is neither a number nor true or false")
        # The kind of a value is part of it: true is equal to 1 and is allowed elsewhere.
        changes = tuple((name, type(value), value) for name, value in sorted(proposal.changes.items()))
        return _draft(*(tuple(sorted(files.items())) for files in (base.files, proposal.files)), changes)

    def merge(self, base: Source, ours: Source, theirs: Source) -> Source | None:
        """Return `ours` with what `theirs` changed against `base`; None where that cannot be, or is no policy.

        Raises:
            LineageError: git cannot be run.
        """
        files = self._lineage.merge(base.files, ours.files, theirs.files)
        if files is None:
            return None
        try:
            return _source(files)
        except ProposalRefused:  # each side is a policy, and both together are none
            return None

    def publish(self, source: Source, proposal: Proposal, researcher: str, parents: Sequence[str], now_s: float) -> str:
        """Commit `source` with its parents' commits before it, let stations try it, return the name of its bundle.

        The same call gives the same bundle, so publishing twice changes nothing. `parents` are names of bundles; where
        there is none, what the run began with comes before it.

        Raises:
            ProposalRefused: a parent that was not published.
            LineageError, BundleError, StoreError, RepositoryRefused: it cannot be kept or signed.
        """
        before = [self._commit_of(bundle) for bundle in parents] or [self._lineage.keep_seed(self.seed().files)]
        commit = self._lineage.commit(source.files, before, message(proposal, researcher, source.key), now_s)
        said = {"hypothesis": one_line(proposal.sentence), "researcher": one_line(researcher), "commit": commit}
        parent = parents[0] if parents else None
        with tempfile.TemporaryDirectory() as folder:
            for name, data in source.files.items():
                Path(folder, name).write_bytes(data)
            bundle = bundle_id(build(Path(folder), source.params, said, parent))
            if self._lineage.commit_of(bundle) != commit:
                replace(self._publisher, policy=Path(folder)).publish(source.params, said, parent)
                # Last, so that a bundle whose commit has a name was offered to the stations.
                self._lineage.name(bundle, commit)
        return bundle

    def accepted(self, bundle: str) -> None:
        """Let the incumbent's branch stand on the commit of this bundle; again changes nothing.

        Raises:
            LineageError: it was not published here.
        """
        self._lineage.accept(bundle)

    def source(self, bundle: str) -> Source | None:
        """Return what a bundle was published from, None where it was not published here.

        Raises:
            LineageError: the repository cannot be read.
        """
        commit = self._lineage.commit_of(bundle)
        return None if commit is None else _source(self._lineage.files(commit))

    def _commit_of(self, bundle: str) -> str:
        commit = self._lineage.commit_of(bundle)
        if commit is None:
            raise ProposalRefused(f"its parent {bundle:.12} was never published in this run")
        return commit


@lru_cache(DRAFTS)
def _draft(
    base: tuple[tuple[str, bytes], ...],
    files: tuple[tuple[str, bytes], ...],
    changes: tuple[tuple[str, type, Value], ...],
) -> Source:
    for name, _ in files:
        if not contents.NAME.fullmatch(name) or name == contents.BUNDLES_OWN:
            raise ProposalRefused(
                f"{name!r:.80} is no file of a policy; they are lower case words that end in .py, .toml or .json"
            )
    before = dict(base)
    changed = {**before, **dict(files)}
    changed[space.FILE] = with_defaults(changed[space.FILE], {name: value for name, _, value in changes})
    source = _source(changed)
    for word in FIXED:
        if getattr(_space(before[space.FILE]), word) != getattr(_space(source.files[space.FILE]), word):
            raise ProposalRefused(f"{space.FILE} changes {word}, which is this policy's and stays")
    return source


def with_defaults(data: bytes, changes: Mapping[str, Value]) -> bytes:
    """Return a policy.toml with other defaults; every other byte of it stays.

    Raises:
        ProposalRefused: not a policy.toml, or a value that it does not allow.
    """
    known = _space(data)
    try:
        known.validate(changes)
        document = tomlkit.parse(data)
    except (SpaceError, TOMLKitError, RecursionError) as error:
        raise ProposalRefused(str(error)) from error
    whole = {item.name for item in known.parameters if item.scale == "integer"}
    defaults = known.defaults()
    parameters = {item.name for item in known.parameters}
    for name, value in changes.items():
        if value != defaults[name]:
            table = document["parameters" if name in parameters else "ideas"]
            written = value if isinstance(value, bool) else int(value) if name in whole else float(value)
            table[name]["default"] = written
    return document.as_string().encode()


def message(proposal: Proposal, researcher: str, key: str) -> str:
    """Return the message of a candidate's commit: the sentence, then what git calls trailers."""
    sentence = one_line(proposal.sentence)
    subject = sentence if len(sentence) <= SUBJECT_CHARS else f"{sentence[: SUBJECT_CHARS - 3]}..."
    body = "" if subject == sentence else f"\n{sentence}\n"
    trailers = {
        "Hypothesis-Kind": proposal.kind,
        "Researcher": researcher,
        "Falsifier": proposal.falsifier,
        "Policy-Key": key,
    }
    lines = "".join(f"{name}: {one_line(value) or '-'}\n" for name, value in trailers.items())
    return f"{subject or '-'}\n{body}\n{lines}"


def one_line(text: str) -> str:
    """Return a text as one line of what can be printed, at most as long as a bundle's manifest takes."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:SAID_CHARS]


def _source(files: Mapping[str, bytes]) -> Source:
    """Return the policy of these files after looking whether a bundle could hold it.

    Raises:
        ProposalRefused: none could; the message is one line.
    """
    for name, data in sorted(files.items()):
        if name.endswith(".py"):
            _compile(name, data)
    try:
        described = manifest.describe(files, {}, NOTHING_SAID, None)
        archive.pack({**files, manifest.MANIFEST: manifest.to_bytes(described)})
        if program.PROGRAM in files:
            program.check(program.read_steps(files[program.PROGRAM]), _space(files[space.FILE]).skills)
    except (archive.BundleError, SpaceError) as error:
        raise ProposalRefused(str(error)) from error
    return Source(dict(sorted(files.items())), described.params, novelty.key(files))


@lru_cache(REMEMBERED)
def _compile(name: str, data: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ProposalRefused(f"{name}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProposalRefused(f"{name} does not compile: {type(error).__name__}") from error


@lru_cache(REMEMBERED)
def _space(data: bytes) -> PolicySpace:
    try:
        return space.parse_space(data)
    except SpaceError as error:
        raise ProposalRefused(str(error)) from error
