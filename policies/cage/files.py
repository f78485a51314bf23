"""Which files a policy may read: the interpreter's, numpy's and its own, and none to write.

Two layers keep to the same list. Landlock refuses to open anything else; a root of its own, where only those folders
are mounted, does not even name anything else. Neither needs the other.
"""

from __future__ import annotations

import importlib.util
import os
import struct
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import policies
from policies.cage import kernel

# Found without being imported; a policy may import these and the standard library.
LIBRARIES = ("numpy", "msgpack")
# The host mounts a policy's root over this folder, in its own mount namespace: it is on every Linux, and a host that
# has numpy loaded needs nothing in it.
ROOT = Path("/sys")
BUNDLE = Path("/policy")  # where a bundle stands in that root

READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
RULE_PATH_BENEATH = 1
# By the version of Landlock: the rights over files that it knows, and the sizes of its attributes.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NETWORK_SINCE, BIND_AND_CONNECT = 4, 3
SCOPES_SINCE, ABSTRACT_SOCKETS_AND_SIGNALS = 6, 3

NEW_MOUNTS = 0x2_0000  # CLONE_NEWNS
BIND, RECURSIVE, SLAVE, DETACH = 0x1000, 0x4000, 0x8_0000, 2
AT_CWD, AT_RECURSIVE = -100, 0x8000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8


@dataclass(frozen=True)
class View:
    """What may be read besides the bundle: all of these folders and files, but nothing in `hidden`."""

    trees: tuple[Path, ...]  # no links in them; parents before what they hold
    aliases: Mapping[Path, Path]  # links by which the interpreter knows some of them
    hidden: Path | None  # where the edge's own packages lie, in case that is inside one of the trees


def view() -> View:
    """Return what this interpreter needs to go on importing its standard library and LIBRARIES."""
    extensions = Path(str(sysconfig.get_config_var("DESTSHARED")))
    wanted = [Path(os.__file__).parent, extensions, *_system_libraries(), *_libraries()]
    return view_of([path for path in wanted if os.path.exists(path)], Path(policies.__file__).resolve().parents[1])


def view_of(wanted: Iterable[Path], home: Path) -> View:
    """Return the view that holds all that is wanted but what else is in `home`, the edge's own packages."""
    names = {path: path.resolve() for path in wanted}
    found = sorted(set(names.values()))
    hidden = home if any(home.is_relative_to(tree) for tree in found) else None
    trees: list[Path] = []
    for tree in found:
        above = [other for other in trees if tree.is_relative_to(other)]
        # What lies in the hidden folder is not shown by what lies above that.
        if not above or (hidden and tree.is_relative_to(hidden) and not above[-1].is_relative_to(hidden)):
            trees.append(tree)
    return View(tuple(trees), {name: tree for name, tree in names.items() if name != tree}, hidden)


def _system_libraries() -> Iterator[Path]:
    triplet = sysconfig.get_config_var("MULTIARCH")
    yield from [Path("/usr/lib64"), Path("/lib64"), Path("/etc/ld.so.cache")]
    yield from [Path(lib, triplet) for lib in ("/usr/lib", "/lib")] if triplet else [Path("/usr/lib"), Path("/lib")]


def _libraries() -> Iterator[Path]:
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        for place in (spec and spec.submodule_search_locations) or []:
            folder = Path(place)
            yield from (folder, folder.with_name(f"{name}.libs"))


# Landlock.


def has_landlock() -> bool:
    """Return whether this kernel offers Landlock."""
    try:
        return _landlock_version() > 0
    except OSError:
        return False


def _landlock_version() -> int:
    return kernel.call("syscall", kernel.LANDLOCK_CREATE_RULESET, None, 0, 1)


def held(allowed: View) -> list[tuple[int, int]]:
    """Return what may be opened as (descriptor, rights), for `lock`."""
    opened = []
    for tree in allowed.trees:
        for path, rights in openings(tree, allowed.hidden):
            with suppress(FileNotFoundError):  # it went since the list was made; then nothing needs it
                opened.append((os.open(path, os.O_PATH), rights))
    return opened


def openings(tree: Path, hidden: Path | None) -> Iterator[tuple[Path, int]]:
    """Yield what gives all of the tree but the hidden folder; its names alone can still be listed."""
    if not tree.is_dir():
        yield tree, READ_FILE
    elif hidden is None or not hidden.is_relative_to(tree):
        yield tree, READ_FILE | READ_FOLDER
    else:
        yield tree, READ_FOLDER
        for inner in tree.iterdir():
            if inner != hidden and not inner.is_symlink():  # a link's target is not part of the tree
                yield from openings(inner, hidden)


def hold(bundle: Path) -> tuple[int, int]:
    """Return the same for a bundle's folder; to be called while it can be reached under its own name."""
    return os.open(bundle, os.O_PATH), READ_FILE | READ_FOLDER


def lock(opened: Iterable[tuple[int, int]]) -> None:
    """Leave this process nothing else to open, for good; it must have set no_new_privs.

    Raises:
        OSError: the kernel has no Landlock, or has one and does not keep to it.
    """
    version = _landlock_version()
    files = FILE_RIGHTS[min(version, max(FILE_RIGHTS))]
    attributes = struct.pack("=Q", files)
    if version >= NETWORK_SINCE:
        attributes += struct.pack("=Q", BIND_AND_CONNECT)
    if version >= SCOPES_SINCE:
        attributes += struct.pack("=Q", ABSTRACT_SOCKETS_AND_SIGNALS)
    rules = kernel.call("syscall", kernel.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    for descriptor, rights in opened:
        rule = struct.pack("=Qi", rights, descriptor)
        kernel.call("syscall", kernel.LANDLOCK_ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
    kernel.call("syscall", kernel.LANDLOCK_RESTRICT_SELF, rules, 0)
    os.close(rules)
    with suppress(PermissionError):
        os.listdir("/")
        raise OSError("the kernel took Landlock's rules and does not keep to them")


# A root of its own.


def mount_root(allowed: View) -> None:
    """Leave this process the mounts as they are, and mount over ROOT, for it alone, what a policy may read.

    Raises:
        OSError: the kernel or the container that this runs in does not let it.
    """
    kernel.call("unshare", NEW_MOUNTS)
    # What is mounted later, a stick with bundles for one, is still seen; what is mounted here stays here.
    kernel.call("mount", None, b"/", None, RECURSIVE | SLAVE, None)
    kernel.call("mount", b"tmpfs", bytes(ROOT), b"tmpfs", NO_SUID | NO_DEVICES, b"mode=0755,size=1m")
    try:
        for tree in allowed.trees:
            _bind(tree)
            if allowed.hidden and allowed.hidden.is_relative_to(tree):
                kernel.call("mount", b"tmpfs", bytes(_inside(allowed.hidden)), b"tmpfs", 0, b"mode=0755,size=1m")
        for name, tree in sorted(allowed.aliases.items()):  # parents first
            _link(name, tree)
        _inside(BUNDLE).mkdir()
        _restrict(ROOT, READ_ONLY | NO_SUID | NO_DEVICES, AT_RECURSIVE)
    except OSError:
        unmount(ROOT)
        raise


def show(bundle: Path) -> None:
    """Mount a bundle's folder in the policy's root, to be read.

    Raises:
        OSError: it is not a folder that can be reached, or another one is still mounted.
    """
    if os.path.ismount(_inside(BUNDLE)):
        raise OSError("the last policy's bundle is still mounted; restart the edge")
    kernel.call("mount", os.fsencode(bundle), bytes(_inside(BUNDLE)), None, BIND, None)
    _restrict(_inside(BUNDLE), READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC, 0)


def hide() -> None:
    """Take the bundle out of the policy's root again, if one is there."""
    while os.path.ismount(_inside(BUNDLE)):
        unmount(_inside(BUNDLE))


def change_root() -> None:
    """Make the policy's root this process's own, for good once it holds no capabilities."""
    os.chroot(ROOT)
    os.chdir("/")


def unmount(path: Path) -> None:
    """Take away the topmost mount at this path, whatever still uses it."""
    kernel.call("umount2", bytes(path), DETACH)


def _inside(path: Path) -> Path:
    return ROOT / path.relative_to("/")


def _bind(tree: Path) -> None:
    target = _inside(tree)
    if tree.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.call("mount", bytes(tree), bytes(target), None, BIND | RECURSIVE, None)


def _link(name: Path, tree: Path) -> None:
    """Make the tree known by this name too, unless the name is in a folder that is shown as it is."""
    link = _inside(name)
    if not os.path.lexists(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tree)


def _restrict(path: Path, flags: int, at: int) -> None:
    """Add to the restrictions of a mount; unlike a remount this leaves those that are there, as the kernel demands."""
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    kernel.call("syscall", kernel.MOUNT_SETATTR, AT_CWD, bytes(path), at, attributes, len(attributes))
