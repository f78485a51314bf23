"""What the Python of a proposal may not do, found without running it.

- Imports are allowed by name: arithmetic and data structures of the standard library, numpy's arithmetic, the robot's
  interface, skills, and the policy's own files. All else is named in the refusal.
- No file is opened, no code is made out of text, no way is taken through the interpreter's own attributes, no text
  names the starts that candidates are judged on or a place outside the policy.
- A generator of random numbers gets no number that was chosen: a lucky seed is no improvement.

What the incumbent does already is no fault of a proposal's. This refuses early and with a sentence; what keeps a policy
in is the sandbox of the station.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

STANDARD = frozenset(
    {
        "__future__", "abc", "array", "bisect", "cmath", "collections", "contextlib", "copy", "dataclasses", "decimal",
        "enum", "fractions", "functools", "heapq", "itertools", "json", "math", "numbers", "operator", "random", "re",
        "statistics", "string", "struct", "textwrap", "time", "typing",
    }
)  # fmt: skip
NUMPY = frozenset(f"numpy{part}" for part in ("", ".fft", ".linalg", ".ma", ".polynomial", ".random", ".typing"))
ROBOTS = re.compile(r"policies\.interface|policies\.skills(\.\w+)?")
NAMES = frozenset(
    {
        "open", "exec", "eval", "compile", "__import__", "__builtins__", "__loader__", "__spec__", "globals", "locals",
        "vars", "input", "breakpoint", "delattr", "setattr",
    }
)  # fmt: skip
ATTRIBUTES = frozenset(
    {
        "load", "fromfile", "memmap", "open_memmap", "loadtxt", "genfromtxt", "fromregex", "save", "savez", "savetxt",
        "savez_compressed", "tofile", "DataSource", "ctypes", "ctypeslib", "open", "system", "popen", "read_text",
        "read_bytes", "write_text", "write_bytes", "f_globals", "f_locals", "f_back", "f_builtins", "gi_frame",
        "tb_frame", "cr_frame", "modules", "f2py", "npyio",
    }
)  # fmt: skip
HARMLESS = frozenset({"__init__", "__name__", "__doc__", "__post_init__", "__len__", "__file__"})
PLACES = re.compile(
    r"/(proc|sys|dev|etc|tmp|home|root|run|var|usr|opt)\b|\.\./|initial_states|held[-_ ]?out|\baudit\b|coordinator"
    r"|\.(db|sqlite)\b|\b(dev|gate|heldout|audit)-\d{4}\b",
    re.IGNORECASE,
)
SEEDED = frozenset(
    {"seed", "default_rng", "RandomState", "SeedSequence", "Random", "PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}
)


def faults(name: str, data: bytes, policy: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong in a file of `policy`: a key, the same for the same fault elsewhere, and a sentence."""
    tree = ast.parse(data, name)
    documented = set(_documentation(tree))
    for node in ast.walk(tree):
        yield from _imports(node, name, policy)
        yield from _ways_out(node, name)
        yield from _seeds(node, name)
        if id(node) not in documented:
            yield from _texts(node, name)


def first_fault(files: Mapping[str, bytes], base: Mapping[str, bytes], policy: str) -> str | None:
    """Return the first sentence about the Python in `files` that would not be said of `base` too; None for none."""
    known = {key for name, data in base.items() if name.endswith(".py") for key, _ in faults(name, data, policy)}
    found = (fault for name in sorted(files) if name.endswith(".py") for fault in faults(name, files[name], policy))
    return next((sentence for key, sentence in found if key not in known), None)


def _imports(node: ast.AST, name: str, policy: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        if node.level > 1:
            yield "import ..", f"{name} imports from above its own folder; only the policy's own files are beside it"
            return
        if node.level == 1:
            return
        module = node.module or ""
        # `from policies import bundle` and `from numpy import ctypeslib` import modules too.
        modules = [f"{module}.{alias.name}" for alias in node.names] if module in ("policies", "numpy") else [module]
        modules = [module if module == "numpy" and not part.endswith("lib") else part for part in modules]
    else:
        return
    for imported in modules:
        allowed = imported.split(".")[0] in STANDARD or imported in NUMPY or ROBOTS.fullmatch(imported)
        if not allowed and not f"{imported}.".startswith(f"policies.{policy}."):
            why = (
                "a policy may import numpy, arithmetic of the standard library, policies.interface and policies.skills"
            )
            yield f"import {imported}", f"{name} imports {imported:.60}; {why}"


def _ways_out(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield f"name {node.id}", f"{name} uses {node.id}, which no policy needs: it opens files or makes code of text"
    elif isinstance(node, ast.Attribute):
        hidden = node.attr.startswith("__") and node.attr not in HARMLESS
        if hidden or node.attr in ATTRIBUTES:
            yield f"attribute {node.attr}", f"{name} uses .{node.attr}, a way to files or into the interpreter"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
        named = len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str)
        attribute = node.args[1].value if named else "__"  # type: ignore[attr-defined]
        if str(attribute).startswith("__") or attribute in ATTRIBUTES:
            yield "getattr", f"{name} looks up an attribute by a name that cannot be read in the source"


def _texts(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    text = _folded(node)
    found = PLACES.search(text) if text else None
    if found:
        place = found.group().strip()
        why = "a policy reads no file outside itself and knows no starts but what the robot sees"
        yield f"text {place}", f"{name} names {place!r}; {why}"


def _folded(node: ast.AST) -> str | None:
    """Return the text of a constant, or of constants that are added up; None where it is no text."""
    if isinstance(node, ast.Constant):
        value = node.value
        return value if isinstance(value, str) else value.decode("latin-1") if isinstance(value, bytes) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _folded(node.left), _folded(node.right)
        return left + right if left is not None and right is not None else None
    return None


def _seeds(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if not isinstance(node, ast.Call):
        return
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    given = [*node.args, *(word.value for word in node.keywords)] if called in SEEDED else []
    given += [word.value for word in node.keywords if word.arg and "seed" in word.arg]
    for argument in given:
        if any(isinstance(part, ast.Constant) and part.value is not None for part in ast.walk(argument)):
            why = "a lucky draw is no improvement; leave the seed out"
            yield f"seed {ast.dump(argument)}", f"{name} seeds random numbers with a chosen number; {why}"


def _documentation(tree: ast.AST) -> Iterator[int]:
    """Yield the identities of the docstrings' nodes."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield id(first.value)
