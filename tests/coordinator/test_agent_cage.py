"""The cage of an agent: what a program in it cannot see, cannot change, cannot reach, and cannot outlive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.agents import cage, watch
from coordinator.agents.cage import Caged, NoCage, launch

ROOT = Path(__file__).parents[2]
STARTS = ROOT / "coordinator/evolution/initial_states/push_t.csv"
PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
needs_cage = pytest.mark.skipif(not cage.has_cage(), reason="bubblewrap or prlimit is not installed here")
SECRET = "a-secret-of-the-launcher"


@pytest.fixture
def caged(tmp_path: Path) -> Caged:
    (tmp_path / "work").mkdir()
    (tmp_path / "m.sock").touch()
    (tmp_path / "key").write_text(SECRET)
    return Caged(tmp_path / "work", tmp_path / "m.sock", environment={"SHOWN": "yes"})


def run(caged: Caged, code: str, limits: watch.Watch | None = None) -> tuple[watch.Ended, list[str]]:
    lines: list[str] = []
    start = launch(caged, [PYTHON, "-c", code])
    ended = watch.run(start, limits or watch.Watch(wall_s=30), lines.append, lambda: None, lambda: 0.0)
    return ended, lines


@needs_cage
def test_a_program_runs_and_what_it_writes_into_its_work_tree_lasts(caged: Caged) -> None:
    ended, lines = run(caged, "open('made', 'w').write('x'); import os; print(os.getcwd(), os.environ['SHOWN'])")
    assert (ended.code, ended.why, lines) == (0, "", ["/repo yes"])
    assert (caged.work / "made").read_text() == "x"


ESCAPES = {
    "reads the project": f"print(open({str(ROOT / 'pyproject.toml')!r}).read())",
    "reads the held-out starts": f"print(open({str(STARTS)!r}).read())",
    "imports the coordinator": "import coordinator",
    "reads the passwords": "print(open('/etc/shadow').read())",
    "writes the system": "open('/usr/bin/made', 'w')",
    "writes its own forwarder": "open('/opt/agent/forward.py', 'a')",
    "writes beside its work tree": "open('/made', 'w')",
    "reaches an address outside": "import socket; socket.create_connection(('192.0.2.1', 80), 2)",
    "resolves a name": "import socket; socket.getaddrinfo('localhost.example', 80)",
    "reaches the abstract sockets": "import socket; socket.socket(socket.AF_UNIX).connect('\\0lab')",
    "sees other processes": "import os; p = [x for x in os.listdir('/proc') if x.isdecimal()]; assert len(p) > 9",
    "mounts": "import subprocess; subprocess.run(['mount', '-t', 'tmpfs', 'x', '/mnt'], check=True)",
    "makes a device": "import os; os.mknod('/repo/disk', 0o60600, os.makedev(8, 0)); open('/repo/disk', 'rb').read(1)",
    "sets the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "loads a module of the kernel": "import subprocess; subprocess.run(['insmod', '/x.ko'], check=True)",
    "writes a huge file": "f = open('/repo/big', 'wb'); f.seek(1 << 30); f.write(b'x'); f.flush()",
    "fills its home": "f = open('/home/agent/big', 'wb'); [f.write(bytes(1 << 20)) for _ in range(300)]; f.flush()",
}  # fmt: skip


@needs_cage
@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_fails(caged: Caged, name: str) -> None:
    ended, _ = run(caged, ESCAPES[name])
    assert ended.code not in (0, None)
    assert not Path("/usr/bin/made").exists()
    assert not Path("/made").exists()


@needs_cage
def test_nothing_of_the_launcher_is_in_sight(caged: Caged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_KEY", SECRET)
    code = """
import os, glob
for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    try: print(open(path, 'rb').read())
    except OSError: pass
print(os.environ)
"""
    ended, lines = run(caged, code)
    assert ended.code == 0
    assert lines
    assert SECRET not in "".join(lines)


@needs_cage
def test_the_model_is_reached_by_the_one_socket(tmp_path: Path, caged: Caged) -> None:
    caged.socket.unlink()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(caged.socket))
    listener.listen()

    def answer() -> None:
        line, _ = listener.accept()
        line.sendall(b"you said " + line.recv(99))
        line.close()

    threading.Thread(target=answer, daemon=True).start()
    connect = f"s = socket.create_connection(('127.0.0.1', {cage.PORT}))"
    code = f"import socket; {connect}; s.sendall(b'hi'); print(s.recv(99))"
    assert run(caged, code)[1] == ["b'you said hi'"]
    listener.close()


def alive(marker: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


LIVES_ON = """
import subprocess, sys, time
for _ in range(3):
    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}], start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print('started', flush=True)
{then}
"""


@needs_cage
@pytest.mark.parametrize(
    ("then", "limits", "why"),
    [
        ("time.sleep(600)", watch.Watch(wall_s=1), "ended after its 1 seconds"),
        ("time.sleep(600)", watch.Watch(wall_s=60, silence_s=1), "ended after 1 seconds of silence"),
        ("while True: print('so ' * 9999)", watch.Watch(output_bytes=99), "ended after it had printed 99 bytes"),
        (
            "x = bytearray(4 << 28); time.sleep(600)",
            watch.Watch(memory_bytes=300 << 20),
            "ended with more than 300",
        ),
        ("time.sleep(600)", watch.Watch(processes=4), "ended with more than 4 processes"),
        ("sys.exit(3)", watch.Watch(), ""),
    ],
)
def test_nothing_of_a_program_lives_on(caged: Caged, then: str, limits: watch.Watch, why: str) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    ended, lines = run(caged, LIVES_ON.format(marker=marker, then=then), limits)
    assert ended.why.startswith(why)
    assert bool(ended.why) == bool(why)
    assert ended.code == (None if why else 3)
    assert lines[0] == "started"
    until = time.monotonic() + 5
    while alive(marker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(marker)


@needs_cage
def test_an_agent_goes_with_its_coordinator(caged: Caged) -> None:
    marker = f"marker-{time.monotonic_ns()}"
    start = launch(caged, [PYTHON, "-c", "import time; print('up', flush=True); time.sleep(600)", marker])
    code = f"import subprocess, time; subprocess.Popen({list(start.command)!r}, env={{}}); time.sleep(600)"
    parent = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, cwd=caged.work)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 5
    while alive(marker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(marker)


def test_without_a_cage_no_agent_runs_unless_it_is_said(caged: Caged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(NoCage, match="bubblewrap; install it"):
        launch(caged, ["true"])
    start = launch(caged, [PYTHON, "-c", "import os; print(os.getcwd(), os.environ['SHOWN'])"], unsafe=True)
    lines: list[str] = []
    ended = watch.run(start, watch.Watch(wall_s=30), lines.append, lambda: None, lambda: 0.0)
    assert (ended.code, lines) == (0, [f"{caged.work} yes"])


def test_without_a_cage_what_an_agent_is_told_of_lies_where_it_is_told(caged: Caged) -> None:
    folder = caged.work.parent
    start = folder / "ask"
    start.write_text(f'#!/bin/sh\ncat /lab/shown/card; echo {cage.base_url()}/lab/ask /repo /repository "$@"\n')
    start.chmod(0o755)
    (folder / "cards").mkdir()
    (folder / "cards/card").write_text("a card\n")
    readable = {"/lab/ask": start, "/lab/shown": folder / "cards"}
    told = "Run `/lab/ask 2` or see /lab/shown, /labels and x/lab/y."
    loose = launch(replace(caged, readable=readable), ["/bin/sh", "-c", f"echo '{told}'; /lab/ask 2"], unsafe=True)
    lines: list[str] = []
    ended = watch.run(loose, watch.Watch(wall_s=30), lines.append, lambda: None, lambda: 0.0)
    assert (ended.code, ended.last_words) == (0, "")
    lab = folder / "lab"
    assert lines[:2] == [f"Run `{lab}/ask 2` or see {lab}/shown, /labels and x/lab/y.", "a card"]
    url, work, *rest = lines[2].split()
    assert (work, rest) == (str(caged.work), ["/repository", "2"])
    assert url.endswith("/lab/ask")
    assert url.removesuffix("/lab/ask") == f"http://127.0.0.1:{loose.command[4]}"


def test_a_program_that_is_not_there_is_said(caged: Caged) -> None:
    start = cage.Launch(["/nonexistent/agent"], {}, caged.work)
    with pytest.raises(watch.NotStarted, match="cannot be started"):
        watch.run(start, watch.Watch(), lambda line: None, lambda: None, lambda: 0.0)
