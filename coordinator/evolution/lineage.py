"""Where a policy's candidates come from: each is a commit in a bare git repository of the run, `policies.git`.

- The same files, parents, message and time give the same commit, whoever's machine it is: nothing of a user's
  configuration, no hook and no clock has a part in it.
- `refs/candidates/<bundle>` names the commit of a bundle by the first twelve letters of its name,
  `refs/heads/incumbent` the one that the campaign stands on. A commit that nothing names is harmless, so a kill at any
  moment leaves the repository as it was or with the change whole.
- One process writes to it. A person may look at any time: `git -C policies.git log --graph --all --oneline`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from coordinator.errors import CoordinatorError

FOLDER = "policies.git"
# 2.36 has core.fsync; from 2.38 on settings given by the caller say which folders are safe.
LEAST = (2, 38)
AUTHOR = ("enpire", "enpire@enpire.invalid")
SHORT = 12  # letters of a bundle's name in a ref
INCUMBENT, SEED = "refs/heads/incumbent", "refs/seed"
CANDIDATES = "refs/candidates"
TIMEOUT_S = 60.0
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)


class LineageError(CoordinatorError):
    """The repository of policies cannot be used; the message is one line that says what to do."""


class Lineage:
    """The commits of one run."""

    def __init__(self, folder: Path) -> None:
        """Open the repository in `folder`; it is made now where there is none, or finished where making it was cut off.

        Raises:
            LineageError: no git that can do this, or the folder cannot be written.
        """
        self.folder = folder.absolute()
        self._git_path = _find_git()
        # Locks of a git that was killed: nobody else writes here.
        for lock in (*self.folder.glob("*.lock"), *self.folder.glob("refs/**/*.lock")):
            with suppress(FileNotFoundError):
                lock.unlink()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LineageError(f"cannot make {self.folder}: {error.strerror}") from error
        self._git("init", "--bare", "--quiet", "--template=", "--initial-branch=incumbent")
        self._git("config", "log.initialDecorationSet", "all")  # a person's log shows the names of bundles

    def commit(self, files: Mapping[str, bytes], parents: Sequence[str], message: str, now_s: float) -> str:
        """Keep these files with the commits `parents` before them; return the commit's id.

        Raises:
            LineageError: a parent that is no commit here, or the disk is full.
        """
        before = [word for parent in parents for word in ("-p", parent)]
        return self._git("commit-tree", self._tree(files), *before, "-F", "-", given=message.encode(), now_s=now_s)

    def files(self, commit: str) -> dict[str, bytes]:
        """Return the files of a commit by name.

        Raises:
            LineageError: there is no such commit.
        """
        listed = self._git_bytes("ls-tree", "-z", "--full-tree", self._known(commit)).split(b"\0")[:-1]
        rows = [entry.split(b"\t", 1) for entry in listed]
        blobs = [meta.split()[2] for meta, _ in rows]
        out = self._git_bytes("cat-file", "--batch", given=b"".join(blob + b"\n" for blob in blobs))
        found, at = {}, 0
        for _, name in rows:
            line_end = out.index(b"\n", at)
            size = int(out[at:line_end].split()[2])
            found[name.decode()] = out[line_end + 1 : line_end + 1 + size]
            at = line_end + 1 + size + 1
        return found

    def merge(
        self, base: Mapping[str, bytes], ours: Mapping[str, bytes], theirs: Mapping[str, bytes]
    ) -> dict[str, bytes] | None:
        """Return `ours` with what `theirs` changed against `base`, file by file and line by line.

        None where both changed the same lines, or one removed what the other changed.

        Raises:
            LineageError: git cannot be run.
        """
        merged: dict[str, bytes] = {}
        for name in sorted({*base, *ours, *theirs}):
            before, one, other = base.get(name), ours.get(name), theirs.get(name)
            if one in (before, other):
                chosen = other
            elif other == before:
                chosen = one
            else:
                if one is None or other is None or before is None:
                    return None
                chosen = self.merge_lines(before, one, other)
                if chosen is None:
                    return None
            if chosen is not None:
                merged[name] = chosen
        return merged

    def merge_lines(self, base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
        """Return `ours` with the lines that `theirs` changed against `base`; None where both changed the same.

        Raises:
            LineageError: git cannot be run.
        """
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, side) for side in ("ours", "base", "theirs")]
            for path, data in zip(paths, (ours, base, theirs), strict=True):
                path.write_bytes(data)
            ran = self._run("merge-file", "-p", "-q", *map(str, paths))
        return ran.stdout if ran.returncode == 0 else None

    def name(self, bundle: str, commit: str) -> None:
        """Let the bundle's ref name a commit.

        Raises:
            LineageError: it cannot be written, or there is no such commit.
        """
        self._point(_ref(bundle), commit)

    def commit_of(self, bundle: str) -> str | None:
        """Return the commit of a bundle, None where the bundle has none here."""
        return self._resolve(_ref(bundle))

    def accept(self, bundle: str) -> None:
        """Let the incumbent be the commit of this bundle.

        Raises:
            LineageError: the bundle has no commit here.
        """
        commit = self.commit_of(bundle)
        if commit is None:
            raise LineageError(f"bundle {bundle:.12} has no commit in {self.folder}; publish it first")
        self._point(INCUMBENT, commit)

    @property
    def incumbent(self) -> str | None:
        """The commit of the incumbent, None before the first."""
        return self._resolve(INCUMBENT)

    @property
    def seed(self) -> str | None:
        """The commit that the run began with, None before it was kept."""
        return self._resolve(SEED)

    def keep_seed(self, files: Mapping[str, bytes]) -> str:
        """Keep the files that the run begins with; later calls change nothing. Return the commit's id.

        Raises:
            LineageError: they cannot be written.
        """
        kept = self.seed
        if kept is None:
            kept = self.commit(files, (), "The policy as it ships\n", 0.0)
            self._point(SEED, kept)
        return kept

    def _tree(self, files: Mapping[str, bytes]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            names = sorted(files)
            paths = [Path(folder, str(number)) for number in range(len(names))]
            for path, name in zip(paths, names, strict=True):
                path.write_bytes(files[name])
            given = "".join(f"{path}\n" for path in paths).encode()
            blobs = self._git("hash-object", "-w", "--no-filters", "--stdin-paths", given=given).split()
        entries = [f"100644 blob {blob}\t{name}\0" for blob, name in zip(blobs, names, strict=True)]
        return self._git("mktree", "-z", given="".join(entries).encode())

    def _known(self, commit: str) -> str:
        if not COMMIT.fullmatch(commit) or not int(commit, 16):  # to git, nothing but zeros means no commit at all
            raise LineageError(f"{commit!r:.60} is no commit's id")
        return commit

    def _point(self, ref: str, commit: str) -> None:
        self._git("update-ref", ref, self._known(commit))

    def _resolve(self, ref: str) -> str | None:
        ran = self._run("rev-parse", "--verify", "--quiet", ref)
        return ran.stdout.decode().strip() if ran.returncode == 0 else None

    def _git(self, *words: str, given: bytes = b"", now_s: float = 0.0) -> str:
        return self._git_bytes(*words, given=given, now_s=now_s).decode().strip()

    def _git_bytes(self, *words: str, given: bytes = b"", now_s: float = 0.0) -> bytes:
        ran = self._run(*words, given=given, now_s=now_s)
        if ran.returncode != 0:
            said = " ".join(ran.stderr.decode(errors="replace").split())
            raise LineageError(f"git {words[0]} in {self.folder} failed: {said:.300}")
        return ran.stdout

    def _run(self, *words: str, given: bytes = b"", now_s: float = 0.0) -> subprocess.CompletedProcess[bytes]:
        try:
            ran = subprocess.run(
                [self._git_path, *words],
                input=given,
                capture_output=True,
                cwd=self.folder,
                env=_environment(self.folder, now_s),
                timeout=TIMEOUT_S,
                check=False,
                start_new_session=True,  # a Ctrl-C is for the coordinator, which ends in order
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LineageError(f"git {words[0]} in {self.folder} did not run: {error}") from error
        if ran.returncode < 0:  # no answer to what it was asked, such as whether two changes clash
            raise LineageError(f"git {words[0]} in {self.folder} was killed by signal {-ran.returncode}")
        return ran


def _find_git() -> str:
    path = shutil.which("git")
    if path is None:
        raise LineageError(f"there is no git here; install git {_dotted(LEAST)} or newer")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < LEAST:
        raise LineageError(f"{path} says {said.strip()!r:.80}; install git {_dotted(LEAST)} or newer")
    return path


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _ref(bundle: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{12,64}", bundle):
        raise LineageError(f"{bundle!r:.80} is no bundle's name")
    return f"{CANDIDATES}/{bundle[:SHORT]}"


def _environment(folder: Path, now_s: float) -> dict[str, str]:
    """Return all that a git process is told: the same on every machine but for where the repository is."""
    settings = {
        "core.hooksPath": os.devnull,
        "core.fsync": "committed,reference",  # what a ref names is on the disk before the ref is
        "safe.directory": str(folder),  # also where another user made the run
        "core.autocrlf": "false",
    }
    date = f"@{int(now_s)} +0000"
    said = {
        "PATH": os.defpath,
        "HOME": os.devnull,
        "LC_ALL": "C",
        "GIT_DIR": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (key, value) in enumerate(settings.items()):
        said |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    for who in ("AUTHOR", "COMMITTER"):
        said |= {f"GIT_{who}_NAME": AUTHOR[0], f"GIT_{who}_EMAIL": AUTHOR[1], f"GIT_{who}_DATE": date}
    return said
