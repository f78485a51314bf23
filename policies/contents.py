"""Which files a bundle may hold: plainly named TOML, JSON and Python, none of them in the place of something else's.

- Nothing but `.py`, `.toml` and `.json`: no data that could be unpickled, no compiled code, no library.
- No file is named like one of the judge's, of reset's or of the guard's, nor like a module that the edge has already.
  `geometry.py` is allowed: any task's policy may want one, and it is a module of the policy's own package.
- Python is UTF-8, says so or nothing, compiles, and imports neither another room nor what turns bytes into code.

What is refused here is refused early and with a sentence. It is not what keeps a policy in: that is the cage.
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
import tomllib
import warnings
from collections.abc import Iterator, Mapping

from policies.archive import BundleMalformed

NAME = re.compile(r"[a-z_][a-z0-9_]{0,60}\.(py|toml|json)", re.ASCII)
MAX_FILES = 64
# The worst that was found at these sizes: compiling takes 1.5 s, a TOML key of 8,000 parts 1 s and 0.3 GB; both grow
# with the square of the size.
MAX_BYTES = {"py": 64 << 10, "toml": 16 << 10, "json": 128 << 10}  # JSON holds what was learned by playing

BUNDLES_OWN = "manifest.json"
JUDGES = frozenset({"judge", "verdict", "task", "tasks", "ready", "reset", "verify", "guard", "body"})
ROOMS = frozenset({"edge", "coordinator", "firmware_bridge", "calibration"})
LIBRARIES = frozenset({"policies", "numpy", "msgpack", "scipy", "numba", "cv2", "mujoco", "zenoh", "serial", "mcap"})
# What Python 3.11 has and 3.12 has no more: a bundle is the same on both.
GONE = frozenset({"asynchat", "asyncore", "distutils", "imp", "smtpd"})
TAKEN = {*ROOMS, *LIBRARIES, *GONE, *sys.stdlib_module_names}
# Other rooms, and what turns bytes into code.
FORBIDDEN = {*ROOMS, "pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "ctypes", "_ctypes"}


def check(files: Mapping[str, bytes]) -> None:
    """Raise unless a bundle may hold these files.

    Raises:
        BundleMalformed: too many, or one that may not be in a bundle; the first at fault is named.
    """
    if len(files) > MAX_FILES:
        raise BundleMalformed(f"{len(files)} files; at most {MAX_FILES} are allowed")
    for name, data in files.items():
        if not NAME.fullmatch(name):
            raise BundleMalformed(
                f"a file named {name!r:.80}; names are lower case words that end in .py, .toml or .json"
            )
        stem, _, suffix = name.partition(".")
        if len(data) > MAX_BYTES[suffix]:
            raise BundleMalformed(f"{name} has {len(data)} bytes; at most {MAX_BYTES[suffix]} are allowed")
        if suffix == "py":
            _check_stem(stem)
            _check_source(name, data)
        elif suffix == "toml":
            _check_toml(name, data)
        else:
            _check_json(name, data)


def _check_stem(stem: str) -> None:
    if stem in JUDGES:
        raise BundleMalformed(
            f"{stem}.py is named like a file of the judge or the guard, which no bundle carries; rename it"
        )
    if stem in TAKEN:
        raise BundleMalformed(f"{stem}.py is named like a module that is there already; rename it")


def _check_source(name: str, data: bytes) -> None:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        if encoding != "utf-8":
            raise BundleMalformed(f"{name} says that it is {encoding}; write it in plain utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data, name)
            compile(data, name, "exec", dont_inherit=True)
    # What a compiler says to hostile input: not Python, not text, nested too deeply, too large for it.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BundleMalformed(f"{name} does not compile: {type(error).__name__}") from error
    for module in _imports(tree):
        root = module.partition(".")[0]
        if root in FORBIDDEN:
            raise BundleMalformed(f"{name} imports {root}, which no policy may")


def _check_toml(name: str, data: bytes) -> None:
    try:
        tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BundleMalformed(f"{name} is not TOML: {type(error).__name__}") from error


def _check_json(name: str, data: bytes) -> None:
    if name == BUNDLES_OWN:
        raise BundleMalformed(f"{name} is the bundle's own; rename it")
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise BundleMalformed(f"{name} is not JSON: {type(error).__name__}") from error


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the name of each module that is imported anywhere in the tree, without the dots of a relative one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
