"""The cage of a coding agent: bubblewrap with one folder to write that lasts, and one socket to speak through.

- It sees the system's programs, an interpreter, what it is given to read, and its work tree. No other process, no
  network but its own empty loopback, none of the launcher's environment, no key.
- Its home and its temporary files are memory of limited size and go with it.
- Where there is no bubblewrap it refuses. `unsafe` runs an agent as an ordinary program of this user instead: it could
  then read the held-out lists and rewrite the judge, so its results prove nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.errors import CoordinatorError

PORT = 8080  # inside
HOME, WORK, SOCKET, TOOLS, LAB = "/home/agent", "/repo", "/run/model.sock", "/opt/agent", "/lab"
SPOKEN_OF = re.compile(rf"(?<![\w./])({WORK}|{LAB})(?![\w.-])")  # in a prompt or a script; not within another path
FORWARD = Path(__file__).with_name("forward.py")
NAMES = Path(__file__).with_name("resolv.conf")
MEMORY_FILES = 1 << 30  # bytes of each file system in memory
LARGEST_FILE = 256 << 20
LIMITS = ("--core=0", f"--fsize={LARGEST_FILE}", "--nofile=8192", "--nproc=2048")
ETC = ("passwd", "group", "nsswitch.conf", "alternatives", "localtime")


class NoCage(CoordinatorError):
    """An agent cannot be caged here; the message says what to do."""


@dataclass(frozen=True)
class Caged:
    """What an agent is given."""

    work: Path  # to write
    socket: Path  # of its proxy
    readable: Mapping[str, Path] = field(default_factory=dict)  # place in the cage -> file or folder out here
    environment: Mapping[str, str] = field(default_factory=dict)
    home: Mapping[str, Path] = field(default_factory=dict)  # place in its home -> file out here


@dataclass(frozen=True)
class Launch:
    """What is to be started, from `cwd` and with nothing but `environment`."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path


def has_cage() -> bool:
    """Return whether this machine has what a cage is made of."""
    return shutil.which("bwrap") is not None and shutil.which("prlimit") is not None


def launch(caged: Caged, arguments: Sequence[str], unsafe: bool = False) -> Launch:
    """Return how to start a program with these arguments in a cage.

    Raises:
        NoCage: there is no bubblewrap, and `unsafe` was not said.
    """
    if unsafe:
        return _loose(caged, arguments)
    bwrap, prlimit = shutil.which("bwrap"), shutil.which("prlimit")
    if bwrap is None or prlimit is None:
        missing = "bubblewrap" if bwrap is None else "prlimit (of util-linux)"
        raise NoCage(f"no coding agent runs here without {missing}; install it, or say --unsafe-agent if you must")
    inside = [str(interpreter()), "-I", f"{TOOLS}/forward.py", SOCKET, str(PORT), *arguments]
    # The whole command can be read from inside, in /proc/1/cmdline: there is no secret in it.
    command = [prlimit, *LIMITS, "--", bwrap, *_walls(), *_openings(caged), "--", *inside]
    return Launch(command, {}, caged.work)


def base_url(port: int = PORT) -> str:
    """Return where the model is, as a program in the cage sees it."""
    return f"http://127.0.0.1:{port}"


def _walls() -> list[str]:
    size = ["--size", str(MEMORY_FILES)]
    return [
        "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
        "--symlink", "usr/lib64", "/lib64", "--symlink", "usr/sbin", "/sbin",
        *(part for name in ETC for part in ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")),
        "--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", "/tmp", *size, "--tmpfs", "/home",
        "--dir", HOME, *size, "--tmpfs", "/run",
    ]  # fmt: skip


def _openings(caged: Caged) -> list[str]:
    base = Path(sys.base_prefix)
    readable = {f"{TOOLS}/forward.py": FORWARD, "/etc/resolv.conf": NAMES, **caged.readable}
    if not base.is_relative_to("/usr") or base.is_relative_to("/usr/local"):
        readable = {str(base): base, **readable}
    path = f"/usr/bin:/bin:{base}/bin"
    settings = {"HOME": HOME, "PATH": path, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    return [
        *(part for place, path in readable.items() for part in ("--ro-bind", str(path), place)),
        *(part for place, path in caged.home.items() for part in ("--ro-bind", str(path), f"{HOME}/{place}")),
        "--bind", str(caged.work), WORK, "--chdir", WORK, "--bind", str(caged.socket), SOCKET, "--remount-ro", "/",
        *(part for pair in {**settings, **caged.environment}.items() for part in ("--setenv", *pair)),
    ]  # fmt: skip


def interpreter() -> Path:
    """Return the interpreter without its virtual environment, whose folder is not in the cage."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Path(sys.base_prefix) / "bin" / name


def _loose(caged: Caged, arguments: Sequence[str]) -> Launch:
    """Return how to start the program without a cage: with the places of the cage put back to those out here."""
    home = caged.work.parent / "home"
    for place, path in caged.home.items():
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, home / place)
    home.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    places = {place: str(path) for place, path in caged.readable.items() if not place.startswith(f"{LAB}/")}
    places |= {HOME: str(home), WORK: str(caged.work), LAB: str(caged.work.parent / "lab")}

    def outside(text: str) -> str:
        text = SPOKEN_OF.sub(lambda found: places[found[1]], text)
        for place, path in sorted(places.items(), key=lambda item: -len(item[0])):
            if text == place or text.startswith(f"{place}/"):
                return path + text.removeprefix(place)
        return text.replace(base_url(), base_url(port))

    settings = {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**settings, **{name: outside(value) for name, value in caged.environment.items()}}
    for place in caged.home:
        path = home / place
        path.write_text(path.read_text().replace(base_url(), base_url(port)))
    _lay_out(caged, Path(places[LAB]), outside)
    command = [str(interpreter()), "-I", str(FORWARD), str(caged.socket), str(port), *map(outside, arguments)]
    return Launch(command, environment, caged.work)


def _lay_out(caged: Caged, lab: Path, outside: Callable[[str], str]) -> None:
    """Put what the lab shows into a folder; scripts that were made for this run are told the places out here."""
    for place, path in caged.readable.items():
        if place.startswith(f"{LAB}/"):
            target = lab / place.removeprefix(f"{LAB}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            if path.parent == caged.work.parent and path.is_file() and path.read_bytes().startswith(b"#!"):
                target.write_text(outside(path.read_text()))
                target.chmod(0o755)
            else:
                target.symlink_to(path.absolute())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
