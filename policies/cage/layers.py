"""The layers of the cage: what the host prepares once, and what each child closes behind itself in this order.

- `prepare` runs in the host before any policy; it tries the whole cage on a child of its own and keeps what failed.
- `enter` runs in the child that is to become a policy. It closes every layer that held in the trial or raises.
- A machine may lack layers. It may not lack all that answer one of NEEDS: then no policy runs.
"""

from __future__ import annotations

import ctypes
import os
import platform
import pwd
import resource
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgpack

from policies.cage import calls, files, kernel

NEW_USER, NEW_NETWORK, NEW_IPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
CAPABILITIES_3 = 0x2008_0522
_HELD = ctypes.create_string_buffer(24)  # effective, permitted and inheritable capabilities, twice 32 bits each
# Users that no distribution hands out, between those of systemd-homed and those of systemd's dynamic services.
OWN_USERS = range(60_578, 61_184)
OPEN_FILES = 64
THREADS = 64  # of all policies that run as one user

WHAT = {
    "user": "an ordinary user of its own",
    "network": "a network of its own with nothing in it",
    "root": "a root of its own: the interpreter and the bundle, read-only",
    "ipc": "shared memory and message queues of its own",
    "privileges": "no capabilities, and no way to any",
    "limits": "memory, processor time, open files, threads; no file written, no core left",
    "landlock": "nothing opened but the interpreter and the bundle, nothing for writing",
    "seccomp": "only the system calls that Python and numpy need",
}
# What must hold, and the layers of which one is enough for it.
NEEDS = {
    "memory and files stay bounded": ("limits",),
    "no privilege can be gained": ("privileges",),
    "the edge's files stay closed": ("landlock", "root", "user"),
    "no network is reached": ("seccomp", "network"),
    "other processes are left alone": ("seccomp", "user"),
}


class CageError(Exception):
    """This process could not be locked in, so it must not run a policy."""


@dataclass(frozen=True)
class Layer:
    """One layer of the cage on this machine; `why` says what it does, or why it is missing."""

    name: str
    enforced: bool
    why: str


@dataclass(frozen=True)
class Limits:
    """What one policy may use."""

    memory_mb: int
    cpu_s: int


@dataclass(frozen=True)
class Cage:
    """What the host has prepared, and what this machine does not have."""

    readable: Sequence[tuple[int, int]]  # (descriptor, rights) of what a policy may read besides its bundle
    missing: Mapping[str, str]  # layer -> why
    own_user: int | None  # None: the host is no root, and policies run as its own user
    counted: bool  # the kernel counts this host's threads apart from those of its user

    def layers(self) -> list[Layer]:
        """Return every layer as it stands."""
        return [Layer(name, name not in self.missing, self.missing.get(name, what)) for name, what in WHAT.items()]


def unmet(layers: Sequence[Layer]) -> str:
    """Return why no policy may run with these layers; empty where it may."""
    enforced = {layer.name for layer in layers if layer.enforced}
    why = {layer.name: layer.why for layer in layers}
    for need, enough in NEEDS.items():
        if not enforced.intersection(enough):
            causes = "; ".join(f"{name}: {why.get(name, 'not known')}" for name in enough)
            return f"no policy may run: nothing here makes sure that {need}; cure one of these: {causes}"
    return ""


# In the host.


def prepare() -> Cage:
    """Return the cage of this host; the process keeps the namespaces and mounts, no environment, no new privileges."""
    _go_first_when_memory_is_short()
    os.environ.clear()
    os.umask(0o022)  # what is made here must be readable for the policies' own user
    missing: dict[str, str] = {}
    root = os.geteuid() == 0
    own_user = _own_user() if root else None
    if not root:
        missing["user"] = f"the edge runs as uid {os.geteuid()}; only root can give policies a user of their own"
    allowed = files.view()
    alone = root or _tried(missing, ("network", "root", "ipc"), _new_user)
    if alone:
        _tried(missing, ("network",), lambda: kernel.call("unshare", NEW_NETWORK))
        _tried(missing, ("root",), lambda: files.mount_root(allowed))
    if root and "root" in missing and files.has_landlock():
        missing["user"] = "needs a root of its own: without it, another user may not reach where the bundles lie"
    _tried(missing, ("privileges",), _no_new_privileges)
    readable: list[tuple[int, int]] = []
    _tried(missing, ("landlock",), lambda: readable.extend(files.held(allowed)))
    with suppress(OSError):  # made once here for all children; where it cannot be made, they say so
        calls.template(platform.machine())
    found = _try_on(Cage(readable, missing, own_user, alone))
    return Cage(readable, missing | found, own_user, alone)


def _tried(missing: dict[str, str], names: Sequence[str], step: Callable[[], object]) -> bool:
    try:
        step()
    except OSError as error:
        missing.update(dict.fromkeys(names, _said(error)))
        return False
    return True


def _try_on(cage: Cage) -> dict[str, str]:
    """Let a child close the cage behind itself and return what it could not close."""
    near, far = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            failed: dict[str, str] = {}
            _close_all(cage, Path(os.__file__).parent, Limits(1024, 60), os.getppid(), far, failed)
            os.write(far, msgpack.packb(failed))
        finally:
            os._exit(0)
    os.close(far)
    with open(near, "rb") as answer:
        told = answer.read()
    os.waitpid(child, 0)
    files.hide()
    found = msgpack.unpackb(told) if told else dict.fromkeys(WHAT, "a process that tried it on died of it")
    return {str(name): str(why) for name, why in found.items()}


def _go_first_when_memory_is_short() -> None:
    with suppress(OSError):  # inherited by every policy; where it cannot be set, the limit of memory still holds
        Path("/proc/self/oom_score_adj").write_text("1000")


def _own_user() -> int:
    """Return a user that nobody is, another one for nearly every host on this machine."""
    first = os.getpid() % len(OWN_USERS)
    uids: list[int] = [*OWN_USERS[first:], *OWN_USERS[:first]]
    for uid in uids:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid
    return uids[0]


def _new_user() -> None:
    """Become, in a user namespace of this process's own, the same user with all capabilities over that namespace."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.call("unshare", NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _no_new_privileges() -> None:
    kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
    with suppress(OSError):  # the first number past the last capability, or a process that holds none
        for capability in range(64):
            kernel.prctl(PR_CAPBSET_DROP, capability)


# In the child.


def enter(cage: Cage, bundle: Path, limits: Limits, host: int, link: int) -> Path:
    """Close the cage behind this process, and return where it sees the bundle from now on.

    `host` is the parent without which it ends, `link` the one descriptor past the third that it keeps.

    Raises:
        CageError: a layer that this machine has could not be closed, or the machine has too few.
    """
    if why := unmet(cage.layers()):
        raise CageError(why)
    try:
        return _close_all(cage, bundle, limits, host, link, None)
    except OSError as error:
        raise CageError(_said(error)) from error


def _close_all(cage: Cage, bundle: Path, limits: Limits, host: int, link: int, failed: dict[str, str] | None) -> Path:
    """Close each layer that is not known to be missing; one that fails is kept in `failed`, or raised without that."""
    seen_at = bundle if "root" in cage.missing else files.BUNDLE
    readable = [*cage.readable, files.hold(bundle)]
    steps: list[tuple[str, Callable[[], object]]] = [
        ("ipc", lambda: kernel.call("unshare", NEW_IPC)),
        ("root", lambda: _enter_root(bundle)),
        ("user", lambda: _become(cage.own_user, seen_at)),
        ("privileges", lambda: _drop_capabilities(host)),
        ("landlock", lambda: files.lock(readable)),
        ("limits", lambda: _limit(limits, cage.counted, link)),
        ("seccomp", calls.filter_calls),
    ]
    for name, step in steps:
        if name in cage.missing:
            continue
        try:
            step()
        except OSError as error:
            if failed is None:
                raise OSError(f"{name}: {_said(error)}") from error
            failed[name] = _said(error)
    return seen_at


def _enter_root(bundle: Path) -> None:
    files.show(bundle)
    files.change_root()


def _become(uid: int | None, bundle: Path) -> None:
    """Become this user for good, unless it could not reach its interpreter and its bundle."""
    assert uid is not None
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        os.listdir(bundle)
        open(os.__file__, "rb").close()
    except PermissionError as error:
        raise OSError(f"another user may not read {error.filename}; let all users read it") from error
    finally:
        os.seteuid(0)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _drop_capabilities(host: int) -> None:
    header = struct.pack("=Ii", CAPABILITIES_3, 0)
    kernel.call("capset", header, bytes(24))
    kernel.call("capget", header, _HELD)
    if any(_HELD.raw):
        raise OSError("capabilities are still held after they were dropped")
    # A change of user had undone both.
    kernel.prctl(PR_SET_DUMPABLE, 0)
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host:  # it went before the line above
        os._exit(0)


def _limit(limits: Limits, counted: bool, link: int) -> None:
    os.closerange(3, link)
    os.closerange(link + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    size = limits.memory_mb << 20
    for what, value in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_RTPRIO, 0),
        *([(resource.RLIMIT_NPROC, THREADS)] if counted else []),
    ):
        hard = resource.getrlimit(what)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (least, least))


def _said(error: OSError) -> str:
    return str(error.strerror or error) if error.filename is None else str(error)
