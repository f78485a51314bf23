"""Whether two policies are the same, whatever their comments and layout.

Python counts as its syntax tree without docstrings, TOML and JSON as their content whatever the order of their keys,
anything else as its bytes. A key is compared within one run only: another Python may write its trees in another way.
"""

from __future__ import annotations

import ast
import hashlib
import json
import tomllib
import warnings
from collections.abc import Mapping
from functools import lru_cache

REMEMBERED = 256  # files: of two policies that are compared, most are the same
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def key(files: Mapping[str, bytes]) -> str:
    """Return the sha256, hex, of the files without what has no part in how they work."""
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), normalised(name, files[name])):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


@lru_cache(REMEMBERED)
def normalised(name: str, data: bytes) -> bytes:
    """Return the content of a file without its layout; its bytes where it cannot be read as what its name says."""
    try:
        match name.rpartition(".")[2]:
            case "py":
                return ast.dump(_tree(data)).encode(errors="surrogatepass")
            case "toml":
                return _canonical(tomllib.loads(data.decode()))
            case "json":
                return _canonical(json.loads(data.decode()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return data


def _tree(data: bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(data)
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            rest = node.body[1:]
            node.body = rest or ([] if isinstance(node, ast.Module) else [ast.Pass()])
    return tree


def _canonical(content: object) -> bytes:
    return json.dumps(_plain(content), sort_keys=True, default=repr).encode()


def _plain(content: object) -> object:
    """Return the content with whole numbers written as such, so that 1.0 is 1."""
    match content:
        case float() if content.is_integer():
            return int(content)
        case dict():
            return {name: _plain(value) for name, value in content.items()}
        case list():
            return [_plain(value) for value in content]
    return content
