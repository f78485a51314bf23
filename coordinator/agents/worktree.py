"""The folder that an agent works in: a clone of the incumbent, and what of it is different afterwards.

- What is different is read by git outside of the cage, with a repository and an index that the agent never saw, no
  hooks, no filters and no configuration but what stands here. The agent's own `.git` is not looked at.
- Before git is let at the folder its size is looked at, so that neither a flood of files nor a pipe holds anybody up.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from coordinator.agents.admission import MOST_BYTES, Edit
from coordinator.errors import CoordinatorError
from coordinator.evolution.ideas import ProposalRefused

GIT_S = 60.0
MOST_ENTRIES = 2000  # of the whole work tree
MOST_TREE_BYTES = 8 << 20
NOT_LOOKED_AT = frozenset({".git", "__pycache__"})
PLAIN = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.attributesFile=/dev/null",
    "-c", "core.excludesFile=/dev/null", "-c", "core.autocrlf=false", "-c", "core.symlinks=true",
    "-c", "core.fileMode=true", "-c", "core.quotePath=false", "-c", "protocol.allow=never", "-c", "gc.auto=0",
    "-c", "user.name=enpire", "-c", "user.email=enpire@localhost", "-c", "commit.gpgSign=false",
)  # fmt: skip


class WorktreeError(CoordinatorError):
    """Git cannot do what it must; the message is its own."""


class Worktree:
    """One clone, for one try of one agent."""

    def __init__(self, folder: Path) -> None:
        """Have the clone in `folder`/work; what is read from it afterwards lies beside it, out of reach."""
        self.path = folder / "work"
        self._git, self._index = folder / "seen.git", folder / "seen.index"
        self._before: dict[str, tuple[str, str]] = {}

    def make(self, files: Mapping[str, bytes]) -> None:
        """Make the clone, with these files by path from its top, as its first commit.

        Raises:
            WorktreeError: git fails.
        """
        for name, data in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._run("init", "-q", "--template=", "-b", "main", str(self.path), where=None)
        own = ("--git-dir", str(self.path / ".git"), "--work-tree", str(self.path))
        self._run(*own, "add", "-A", "-f", ".", where=self.path)
        self._run(*own, "commit", "-q", "--no-verify", "-m", "The incumbent", where=self.path)
        shutil.copytree(self.path / ".git", self._git)
        self._before = dict(self._listed())

    def edits(self) -> list[Edit]:
        """Return every file that is not as it was, and the hypothesis if it is there.

        Raises:
            ProposalRefused: there is far too much, or something that is neither file, folder nor link.
            WorktreeError: git fails.
        """
        self._look()
        try:
            after = dict(self._listed())
        except WorktreeError as error:
            raise ProposalRefused(f"The work tree cannot be read: {' '.join(str(error).split())}.") from error
        changed = [path for path, entry in after.items() if self._before.get(path) != entry]
        gone = [path for path in self._before if path not in after]
        edits = [Edit(path, after[path][0], self._content(*after[path])) for path in sorted(changed)]
        return edits + [Edit(path, self._before[path][0], None) for path in sorted(gone)]

    def _listed(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yield the path, mode and object of everything in the work tree, read afresh."""
        self._index.unlink(missing_ok=True)
        seen = ("--git-dir", str(self._git), "--work-tree", str(self.path))
        leave_out = [f":(exclude,glob)**/{name}/**" for name in sorted(NOT_LOOKED_AT - {".git"})]
        self._run(*seen, "add", "-A", "-f", "--", ".", *leave_out, where=self.path)
        for line in self._run(*seen, "ls-files", "-s", "-z", where=self.path).split(b"\0")[:-1]:
            entry, _, path = line.partition(b"\t")
            mode, number, _ = entry.decode().split(" ")
            yield os.fsdecode(path), (mode, number)

    def _content(self, mode: str, number: str) -> bytes:
        if mode == "160000":  # a repository inside of this one; its commit is not here
            return b""
        return self._run("--git-dir", str(self._git), "cat-file", "blob", number, where=None)

    def _look(self) -> None:
        """Raise where the folder is too much to be read, without following a link."""
        size = 0
        for entries, entry in enumerate(_walk(self.path), 1):
            info = entry.stat(follow_symlinks=False)
            size += info.st_size if stat.S_ISREG(info.st_mode) else 0
            name = os.path.relpath(entry.path, self.path)
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                raise ProposalRefused(f"{name!r:.80} is neither a file nor a folder; leave plain files only.")
            if entry.name == ".git":
                raise ProposalRefused(f"{name!r:.80} makes a repository of its own; leave plain files only.")
            if entries > MOST_ENTRIES or size > MOST_TREE_BYTES:
                raise ProposalRefused(
                    f"The work tree holds more than {MOST_ENTRIES} files or {MOST_TREE_BYTES >> 20} MB;"
                    f" a change has at most {MOST_BYTES} bytes."
                )

    def _run(self, *arguments: str, where: Path | None) -> bytes:
        environment = {
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "0",
            "GIT_ATTR_NOSYSTEM": "1",
            "LC_ALL": "C",
        }
        if "--work-tree" in arguments and str(self._git) in arguments:
            environment["GIT_INDEX_FILE"] = str(self._index)
        command = ["git", *PLAIN, *arguments]
        try:
            done = subprocess.run(command, cwd=where, env=environment, capture_output=True, timeout=GIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise WorktreeError(f"git cannot be run: {error}") from error
        if done.returncode:
            raise WorktreeError(f"git {arguments[-1]}: {done.stderr.decode('utf-8', 'replace').strip()[:300]}")
        return done.stdout


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder but its own repository, without following a link."""
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.path == str(folder / ".git"):
                    continue
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
