"""From what an agent left behind to a proposal, or to the one sentence that it is told instead.

- Only files of the policy may have been changed, and the hypothesis beside them must be there.
- Nothing that the agent printed plays a part. What is admitted is no better than any other idea: trials decide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from coordinator.agents.copies import copied
from coordinator.agents.python_rules import first_fault
from coordinator.evolution.ideas import Proposal, ProposalRefused
from coordinator.evolution.starts import Starts
from policies.archive import BundleMalformed
from policies.contents import check as check_contents
from policies.interface import Array
from policies.space import FILE as SPACE_FILE
from policies.space import PolicySpace, SpaceError, parse_space

HYPOTHESIS = "hypothesis.json"
KIND = "agent"
PLAIN_FILE = "100644"
MODES = {"120000": "a symbolic link", "160000": "a repository of its own", "100755": "marked as a program"}
MOST_FILES, MOST_BYTES = 64, 256 << 10
SHORTEST, LONGEST = 20, 300  # characters of a sentence
SENTENCES = re.compile(r"[.!?]\s+\S")


@dataclass(frozen=True)
class Edit:
    """One file that is not as it was."""

    path: str  # from the top of the work tree
    mode: str  # as git has it
    data: bytes | None  # None where it was deleted


@dataclass(frozen=True)
class Surface:
    """What may be changed, and what the change is held against."""

    policy: str  # its folder is policies/<policy>
    base: Mapping[str, bytes]  # the incumbent's files by name
    starts: Array = field(default_factory=lambda: np.zeros((0, 3)))  # (rows, coordinates), of all splits

    @property
    def folder(self) -> str:
        """The only folder that may be changed, with a slash at its end."""
        return f"policies/{self.policy}/"


def coordinates(starts: Starts) -> Array:
    """Return all initial states of a task as (rows, coordinates)."""
    splits = (*starts.dev, *starts.gate, *starts.heldout, *starts.audit)
    return np.array([list(start.coordinates.values()) for start in splits])


def admit(edits: Sequence[Edit], surface: Surface) -> Proposal:
    """Return the proposal that a work tree holds.

    Raises:
        ProposalRefused: one sentence on what is wrong, for the agent.
    """
    files = admit_files(edits, surface)
    sentence, falsifier = read_hypothesis(next((edit.data for edit in edits if edit.path == HYPOTHESIS), None))
    return Proposal(kind=KIND, changes={}, sentence=sentence, falsifier=falsifier, files=files)


def admit_files(edits: Sequence[Edit], surface: Surface) -> dict[str, bytes]:
    """Return the files that a change gives the policy, which need no hypothesis as yet.

    Raises:
        ProposalRefused: one sentence on what is wrong, for the agent.
    """
    changed = [edit for edit in edits if edit.path != HYPOTHESIS]
    size = sum(len(edit.data or b"") for edit in changed)
    if len(changed) > MOST_FILES or size > MOST_BYTES:
        raise ProposalRefused(
            f"The change has {len(changed)} files and {size} bytes; at most {MOST_FILES} and {MOST_BYTES} are allowed."
        )
    files = dict(_file(edit, surface) for edit in changed)
    check_files(files, surface)
    return files


def check_files(files: Mapping[str, bytes], surface: Surface) -> None:
    """Raise unless these files may take the place of the policy's.

    Raises:
        ProposalRefused: one sentence on what is wrong.
    """
    if all(surface.base.get(name) == data for name, data in files.items()):
        raise ProposalRefused(f"Nothing in {surface.folder} was changed; make one change there.")
    for name, data in files.items():
        if not _is_text(data):
            raise ProposalRefused(f"{name} is not UTF-8 text; a policy's files are text.")
    try:
        check_contents({**surface.base, **files})
    except BundleMalformed as error:
        raise ProposalRefused(f"{_one_line(str(error))}.") from error
    _check_space(files, surface)
    try:
        fault = first_fault(files, surface.base, surface.policy)
        held = copied(files, surface.base, surface.starts)
    except RecursionError as error:
        raise ProposalRefused("The Python is nested too deeply to be read; write it plainly.") from error
    if fault is not None:
        raise ProposalRefused(f"{_one_line(fault)}.")
    if held is not None:
        raise ProposalRefused(f"{held} holds initial states of the lists that candidates are judged on; take them out.")


def read_hypothesis(data: bytes | None) -> tuple[str, str]:
    """Return the sentence that is tested and the one that says what would prove it wrong.

    Raises:
        ProposalRefused: it is not there or not as it must be.
    """
    form = f'{HYPOTHESIS} must hold {{"sentence": "...", "falsifier": "..."}}'
    if data is None:
        raise ProposalRefused(f"{form}; the file is not there.")
    try:
        content = json.loads(data.decode()) if len(data) <= 16 * LONGEST else None
    except (ValueError, RecursionError) as error:
        raise ProposalRefused(f"{form}; it is not JSON.") from error
    if not isinstance(content, dict) or set(content) != {"sentence", "falsifier"}:
        raise ProposalRefused(f"{form} and nothing else.")
    return _sentence("sentence", content["sentence"]), _sentence("falsifier", content["falsifier"])


def _file(edit: Edit, surface: Surface) -> tuple[str, bytes]:
    name = edit.path.removeprefix(surface.folder)
    if not edit.path.startswith(surface.folder) or "/" in name or name in ("", ".", ".."):
        raise ProposalRefused(
            f"{_one_line(edit.path)} lies outside {surface.folder}, the only place where files may be changed."
        )
    if edit.data is None:
        raise ProposalRefused(f"{name} was deleted; a file that is not needed may be left empty, but stays.")
    if edit.mode != PLAIN_FILE:
        raise ProposalRefused(f"{name} is {MODES.get(edit.mode, 'no plain file')}; only plain files are taken.")
    return name, edit.data


def _check_space(files: Mapping[str, bytes], surface: Surface) -> None:
    """Raise where policy.toml says another policy, task or entry, or lets seeds be varied."""
    if SPACE_FILE not in files:
        return
    try:
        new = parse_space(files[SPACE_FILE])
    except SpaceError as error:
        raise ProposalRefused(f"{_one_line(str(error))}.") from error
    seeds = {item.name for item in new.items if "seed" in item.name}
    if SPACE_FILE in surface.base:
        old = parse_space(surface.base[SPACE_FILE])
        seeds -= {item.name for item in old.items}
        if _identity(new) != _identity(old):
            raise ProposalRefused(
                f"{SPACE_FILE} says another name, task, api, entry, weights or resources; leave these."
            )
    if seeds:
        raise ProposalRefused(f"{SPACE_FILE} lets {min(seeds)} be varied; a lucky draw is no improvement.")


def _identity(space: PolicySpace) -> tuple[object, ...]:
    return space.name, space.task, space.api, space.entry, space.weights, space.resources, space.envelope


def _sentence(name: str, value: object) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not SHORTEST <= len(text) <= LONGEST or not text.isprintable():
        raise ProposalRefused(f"The {name} in {HYPOTHESIS} must be text of {SHORTEST} to {LONGEST} characters.")
    if SENTENCES.search(text):
        raise ProposalRefused(f"The {name} in {HYPOTHESIS} must be one sentence: test one thing at a time.")
    return text


def _is_text(data: bytes) -> bool:
    try:
        return "\x00" not in data.decode()
    except UnicodeDecodeError:
        return False


def _one_line(text: str) -> str:
    """Return text as one printable line of at most LONGEST characters, without a full stop at its end."""
    line = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return line[:LONGEST].rstrip(".")
