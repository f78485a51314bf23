"""No policy leaves its cage: each script below tries one way out, as root and as an ordinary user, and fails.

A script that gets through says ESCAPED, and most would also be seen from outside: a secret handed over, a file written,
a connection made, a process harmed. After each of them an honest policy runs as if nothing had been.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import numpy as np
import pytest

import edge.tasks
from edge.sandbox.process import PolicyEnd, PolicyHost
from policies.cage import calls
from policies.interface import JointTarget, Observation, Scene, ToolTarget

LONG_S = 60.0  # bound of a wait; nothing is measured by it
SHORT_S = 0.5  # what a policy that must be found hanging is given
NOBODY = pwd.getpwnam("nobody").pw_uid
SEEN = Observation(0.0, np.zeros(6), np.zeros(6), np.zeros(6), np.zeros(3), np.eye(4)[0], 0.0)
ARM = {"x86_64": 0, "aarch64": 1}[platform.machine()]
# Calls that the C library has no function for, by their numbers on x86-64 and AArch64.
NUMBERS = {
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "execveat": (322, 281),
    "pivot_root": (155, 41),
    "rt_sigqueueinfo": (129, 138),
    "init_module": (175, 105),
    "sched_setattr": (314, 274),
    "ptrace": (101, 117),
    "clone": (56, 220),
    "kill": (62, 129),
    "mq_open": (240, 180),
    "openat2": (437, 437),
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "memfd_secret": (447, 447),
}
HEADER = f"""\
import ctypes, os, resource, signal, socket, struct, subprocess, sys, threading, time
from pathlib import Path

import numpy as np
from policies.interface import JointTarget

HERE = Path(__file__).parent
LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = { ({name: numbers[ARM] for name, numbers in NUMBERS.items()})!r}


def c(function, *arguments):
    result = getattr(LIBC, function)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def raw(name, *arguments):
    return c("syscall", NUMBERS[name], *arguments)


"""
CLOSED = "(FileNotFound|Permission)Error"
GOOD = "from policies.interface import *\n\n\ndef run(robot, params):\n    robot.step(JointTarget(np.zeros(6)))\n"

# name: (the script, how it must end). `p` holds the paths, ports and processes that it is after. What would harm more
# than this test's own things, were it to succeed, is asked for in a form without effect.
ESCAPES: dict[str, tuple[str, str]] = {
    # Files to read.
    "shadow": ("raise OSError(open('/etc/shadow').read())", CLOSED),
    "the edge's key": ("raise OSError(open(p['key']).read())", CLOSED),
    "the ledger": ("raise OSError(open(p['ledger'], 'rb').read())", CLOSED),
    "the judge": ("raise OSError(open(p['judge']).read())", CLOSED),
    "another bundle": ("raise OSError(open(p['other'] + '/policy.py').read())", CLOSED),
    "beside its own folder": ("raise OSError(open(HERE / '..' / 'other' / 'policy.py').read())", CLOSED),
    "a link in its bundle": ("raise OSError((HERE / 'link').read_text())", CLOSED),
    "what there is": ("os.listdir('/etc')", CLOSED),
    "names of files": ("os.stat(p['key'])", "FileNotFoundError"),
    "a path without reading": ("os.open(p['key'], os.O_PATH)", CLOSED),
    "its host's environment": ("raise OSError(open(f\"/proc/{p['host']}/environ\").read())", CLOSED),
    "another's environment": ("raise OSError(open(f\"/proc/{p['victim']}/environ\").read())", CLOSED),
    "its host's memory": ("open(f\"/proc/{p['host']}/mem\", 'r+b')", CLOSED),
    "its own memory by name": ("open('/proc/self/mem', 'r+b')", CLOSED),
    "its host's root": ("os.listdir(f\"/proc/{p['host']}/root/etc\")", CLOSED),
    "its host's descriptors": ("os.listdir(f\"/proc/{p['host']}/fd\")", CLOSED),
    "a file by its handle": (
        """
        handle = struct.pack('=Ii128x', 128, 0)
        c('name_to_handle_at', -100, str(HERE).encode(), handle, ctypes.byref(ctypes.c_int()), 0)
        """,
        "PermissionError",
    ),
    "a handle opened": ("c('open_by_handle_at', -100, struct.pack('=Ii8x', 8, 1), 0)", "PermissionError"),
    "another way to open": ("raw('openat2', -100, p['key'].encode(), bytes(24), 24)", "PermissionError"),
    # Files to write.
    "a file in its bundle": ("(HERE / p['mark']).write_text('x')", "PermissionError"),
    "its own source": ("open(__file__, 'a').write('x')", "PermissionError"),
    "a file in /tmp": ("Path('/tmp', p['mark']).write_text('x')", "PermissionError"),
    "a file in /dev/shm": ("Path('/dev/shm', p['mark']).write_text('x')", "PermissionError"),
    "a file of the station": ("Path(p['station'], p['mark']).write_text('x')", "PermissionError"),
    "the key overwritten": ("os.open(p['key'], os.O_WRONLY | os.O_TRUNC)", "PermissionError"),
    "a file without a name": ("os.open('/tmp', os.O_TMPFILE | os.O_RDWR)", "PermissionError"),
    "a file by the old call": ("c('creat', b'/' + p['mark'].encode(), 0o644)", "PermissionError"),
    "a folder": ("os.mkdir(HERE / p['mark'])", "PermissionError"),
    "a symbolic link": ("os.symlink('/etc', HERE / p['mark'])", "PermissionError"),
    "a hard link": ("os.link(__file__, HERE / p['mark'])", "PermissionError"),
    "a new name": ("os.rename(__file__, HERE / p['mark'])", "PermissionError"),
    "its source removed": ("os.unlink(__file__)", "PermissionError"),
    "its source shortened": ("os.truncate(__file__, 0)", "PermissionError"),
    "other rights": ("os.chmod(__file__, 0o777)", "PermissionError"),
    "another time": ("os.utime(__file__)", "PermissionError"),
    "another owner": ("os.chown(__file__, 0, 0)", "PermissionError"),
    "an attribute": ("os.setxattr(__file__, 'user.mark', b'x')", "PermissionError"),
    "a named pipe": ("os.mkfifo(HERE / p['mark'])", "PermissionError"),
    # Devices.
    "the machine's memory": ("open('/dev/mem', 'rb')", CLOSED),
    "a terminal": ("open('/dev/tty')", CLOSED),
    "a device of its own making": ("os.mknod('/tmp/' + p['mark'], 0o20666, os.makedev(1, 1))", "PermissionError"),
    "a word into a terminal": ("import fcntl; fcntl.ioctl(0, 0x5412, b'x')", "PermissionError"),
    "the arm's bus": ("socket.socket(29, socket.SOCK_RAW, 1)", "PermissionError"),
    # The network.
    "TCP": ("socket.create_connection(('127.0.0.1', p['tcp']))", "PermissionError"),
    "UDP": ("socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', p['udp']))", "PermissionError"),
    "a listener": ("socket.create_server(('0.0.0.0', 0))", "PermissionError"),
    "a named socket": ("socket.socket(socket.AF_UNIX).connect(p['unix'])", "PermissionError"),
    "an abstract socket": (
        "socket.socket(socket.AF_UNIX).connect(bytes(1) + p['abstract'].encode())",
        "PermissionError",
    ),
    "netlink": ("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", "PermissionError"),
    "raw packets": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
    "the virtual machine's host": ("socket.socket(40, socket.SOCK_STREAM)", "PermissionError"),
    "the kernel's ciphers": ("socket.socket(38, socket.SOCK_SEQPACKET)", "PermissionError"),
    "a pair of sockets": ("socket.socketpair()", "PermissionError"),
    # Processes and programs.
    "fork": ("os.fork()", "PermissionError"),
    "vfork": ("subprocess.run(['/bin/true'])", "PermissionError"),
    "spawn": ("os.posix_spawn(sys.executable, ['python'], {})", "(Permission|FileNotFound)Error"),
    "a shell": ("assert os.system('true') == 0", "AssertionError"),
    "a raw fork": ("raw('clone', 17, 0, 0, 0, 0)", "PermissionError"),
    "a process with new namespaces": ("raw('clone', 17 | 0x1000_0000, 0, 0, 0, 0)", "PermissionError"),
    "the newest fork": ("raw('clone3', struct.pack('=8Q', *[0] * 4, 17, 0, 0, 0), 64)", "OSError"),
    "another program": ("os.execv('/lib64/ld-linux-x86-64.so.2', ['ld'])", "(Permission|FileNotFound)Error"),
    "a program by its descriptor": (
        "raw('execveat', os.open(os.__file__, os.O_RDONLY), b'', 0, 0, 0x1000)",
        "PermissionError",
    ),
    "a program in memory": ("os.write(os.memfd_create('x'), b'#!/bin/sh')", "PermissionError"),
    "multiprocessing": (
        "import multiprocessing as m; m.get_context('fork').Process(target=print).start()",
        "Permission",
    ),
    "a bomb of threads": (
        """
        threading.stack_size(32768)
        while True: threading.Thread(target=threading.Event().wait, daemon=True).start()
        """,
        "(RuntimeError: can't start new thread|MemoryError)",
    ),
    # Signals and other processes.
    "its host killed": ("os.kill(p['host'], signal.SIGKILL)", "PermissionError"),
    "its parent stopped": ("os.kill(os.getppid(), signal.SIGSTOP)", "PermissionError"),
    "another killed": ("os.kill(p['victim'], signal.SIGKILL)", "PermissionError"),
    "its group killed": ("os.kill(0, 0)", "PermissionError"),
    "all killed": ("os.kill(-1, 0)", "PermissionError"),
    "a thread of another": ("c('tgkill', p['victim'], p['victim'], 9)", "PermissionError"),
    "a queued signal": (
        "raw('rt_sigqueueinfo', p['victim'], 9, struct.pack('=iiiiii', 9, 0, -1, 0, 0, 0) + bytes(104))",
        "PermissionError",
    ),
    "a signal by a handle": ("signal.pidfd_send_signal(os.pidfd_open(p['victim']), 9)", "PermissionError"),
    "a signal by the link": (
        """
        import fcntl
        fcntl.fcntl(robot._end, 10, signal.SIGKILL)  # F_SETSIG
        fcntl.fcntl(robot._end, 8, p['victim'])  # F_SETOWN
        fcntl.fcntl(robot._end, 4, os.O_ASYNC)
        robot.observe()
        """,
        "PermissionError",
    ),
    "a signal by a timer": (
        "c('timer_create', 0, struct.pack('=QiiI44x', 0, 9, 4, p['victim']), bytes(8))",
        "PermissionError",
    ),
    "another's limits": ("resource.prlimit(p['victim'], resource.RLIMIT_CPU, (1, 1))", "PermissionError"),
    "its host's limits": ("resource.prlimit(p['host'], resource.RLIMIT_NOFILE, (3, 3))", "PermissionError"),
    "another's processors": ("os.sched_setaffinity(p['victim'], {0})", "PermissionError"),
    "real time": ("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", "PermissionError"),
    "real time, the other way": (
        "raw('sched_setattr', 0, struct.pack('=IIQiIQQQ', 48, 1, 0, 0, 1, 0, 0, 0), 0)",
        "PermissionError",
    ),
    "a better place": ("os.setpriority(os.PRIO_PROCESS, 0, -20)", "PermissionError"),
    "another's worse place": ("os.setpriority(os.PRIO_PROCESS, p['victim'], 19)", "PermissionError"),
    "a session of its own": ("os.setsid()", "PermissionError"),
    "tracing its host": ("raw('ptrace', 16, p['host'], 0, 0)", "PermissionError"),
    "tracing another": ("raw('ptrace', 0x4206, p['victim'], 0, 0)", "PermissionError"),
    "memory of its host": (
        """
        mine, there = ctypes.create_string_buffer(8), p['victim']
        here = struct.pack('=QQ', ctypes.addressof(mine), 8)
        c('process_vm_readv', there, here, 1, struct.pack('=QQ', p['secret_at'], 8), 1, 0)
        """,
        "PermissionError",
    ),
    "memory of another written": (
        """
        mine, there = ctypes.create_string_buffer(8), p['victim']
        here = struct.pack('=QQ', ctypes.addressof(mine), 8)
        c('process_vm_writev', there, here, 1, struct.pack('=QQ', p['secret_at'], 8), 1, 0)
        """,
        "PermissionError",
    ),
    "a descriptor of another": ("raw('pidfd_getfd', raw('pidfd_open', p['victim'], 0), 0, 0)", "PermissionError"),
    "advice on another's memory": ("raw('process_madvise', 0, 0, 0, 0, 0)", "PermissionError"),
    "what two processes share": ("raw('kcmp', os.getpid(), p['host'], 0, 0, 0)", "PermissionError"),
    # Memory, time and descriptors.
    "a bomb of memory": ("kept = [bytes(1 << 24) for _ in range(1 << 20)]", "MemoryError"),
    "more memory by request": ("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "(ValueError|PermissionError)"),
    "memory held fast": ("c('mlockall', 3)", "PermissionError"),
    "secret memory": ("raw('memfd_secret', 0)", "PermissionError"),
    "a spin": ("while True: pass", "hung"),
    "a spin on the second thread": (
        "threading.Thread(target=lambda: exec('while True: pass')).start(); threading.Event().wait()",
        "hung",
    ),
    "all descriptors": ("kept = [os.dup(0) for _ in range(100_000)]", "Too many open files"),
    "pipes as a store": ("kept = [os.pipe() for _ in range(100_000)]", "Too many open files"),
    "a larger pipe": ("import fcntl; fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)", "PermissionError"),
    "no end of the stack": (
        """
        class Mirror:
            def __repr__(self): return repr(self)
        sys.setrecursionlimit(1 << 30)
        repr(Mirror())
        """,
        "(SIGSEGV|RecursionError|MemoryError)",
    ),
    # Shared memory.
    "System V memory": ("c('shmget', 0x454E50, 4096, 0o1666)", "PermissionError"),
    "System V messages": ("c('msgget', 0x454E50, 0o1666)", "PermissionError"),
    "System V semaphores": ("c('semget', 0x454E50, 1, 0o1666)", "PermissionError"),
    "named memory": (
        "from multiprocessing.shared_memory import SharedMemory; SharedMemory(p['mark'], True, 64)",
        "PermissionError",
    ),
    "a named queue": ("raw('mq_open', p['mark'].encode(), 0o102, 0o666, 0)", "PermissionError"),
    "an anonymous file": ("os.memfd_create('x')", "PermissionError"),
    # Privileges and the kernel.
    "root again": ("os.setuid(0) or os.setresuid(0, 0, 0)", "PermissionError"),
    "groups again": ("os.setgroups([0])", "PermissionError"),
    "capabilities again": (
        "c('capset', struct.pack('=Ii', 0x2008_0522, 0), struct.pack('=6I', 1 << 21, 1 << 21, 0, 0, 0, 0))",
        "PermissionError",
    ),
    "another root": ("os.chroot(HERE)", "PermissionError"),
    "a mount": ("c('mount', b'none', b'/', b'tmpfs', 0, 0)", "PermissionError"),
    "a mount taken away": ("c('umount2', b'/policy', 2)", "PermissionError"),
    "a root exchanged": ("raw('pivot_root', b'/', b'/')", "PermissionError"),
    "a mount the new way": ("raw('fsopen', b'tmpfs', 0)", "PermissionError"),
    "a copy of a mount": ("raw('open_tree', -100, b'/', 1)", "PermissionError"),
    "namespaces of its own": ("c('unshare', 0x1000_0000)", "PermissionError"),
    "namespaces of another": ("c('setns', 0, 0)", "PermissionError"),
    "a program in the kernel": ("raw('bpf', 0, bytes(128), 128)", "PermissionError"),
    "a module in the kernel": ("raw('init_module', b'', 0, b'')", "PermissionError"),
    "the kernel's counters": ("raw('perf_event_open', bytes(128), 0, -1, -1, 0)", "PermissionError"),
    "faults of pages": ("raw('userfaultfd', 1)", "PermissionError"),
    "rings of the kernel": ("raw('io_uring_setup', 8, bytes(120))", "PermissionError"),
    "a key": ("raw('add_key', b'user', b'x', b'x', 1, -3)", "PermissionError"),
    "a keyring": ("raw('keyctl', 0, -3, 0, 0, 0)", "PermissionError"),
    "the name of the machine": ("socket.sethostname(socket.gethostname())", "PermissionError"),
    "the clock": ("time.clock_settime(time.CLOCK_REALTIME, time.time())", "PermissionError"),
    "the kernel's log": ("c('klogctl', 3, bytes(64), 64)", "PermissionError"),
    "a reboot": ("c('reboot', 0)", "PermissionError"),
    "life after its host": ("c('prctl', 1, 0, 0, 0, 0)", "PermissionError"),
    "open to tracing": ("c('prctl', 4, 1, 0, 0, 0)", "PermissionError"),
    "every other call": (
        """
        through = {}
        for number in set(range(512)) - set(p['allowed']) - {335, 336}:  # uprobes: the kernel itself kills whoever asks
            ctypes.set_errno(0)
            if LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 6) != -1 or ctypes.get_errno() != 1:
                through[number] = ctypes.get_errno()
        raise OSError(f'{through}')
        """,
        r"OSError: \{435: 38\}",  # clone3 is said not to be there
    ),
    "calls of the x32 kind": ("c('syscall', 0x4000_0000 | 39)", "(PermissionError|Errno 38)"),
    "calls of 32 bits": (
        """
        import mmap, platform
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3' if platform.machine() == 'x86_64' else bytes(8))
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
        """,
        "(SIGSYS|SIGSEGV|SIGILL)",
    ),
    # The edge's code and the link.
    "the judge's code": ("import edge.tasks.push_t.task", "(ModuleNotFound|Permission)Error"),
    "the edge's code": ("import edge.ledger", "(ModuleNotFound|Permission)Error"),
    "the bus's code": ("import firmware_bridge.damiao", "(ModuleNotFound|Permission)Error"),
    "the coordinator's code": ("import coordinator.store", "(ModuleNotFound|Permission)Error"),
    "the signatures' code": ("import cryptography", "(ModuleNotFound|Permission)Error"),
    "a rebuilt link": (
        """
        import msgpack
        from policies import link
        link.observation_from_bytes = link._checked = link.target_to_message = lambda *a: ("step", "joint", b"far")
        robot.step(None)
        raise OSError('after that')
        """,
        "broke its link",
    ),
    "a second cage": (
        "import msgpack; robot._end.send(msgpack.packb(['caged'])); threading.Event().wait()",
        "broke its",
    ),
    "a fault of the edge": (
        "import msgpack; robot._end.send(msgpack.packb(['refused', 'ESC'])); threading.Event().wait()",
        "broke its link",
    ),
    "an end of its own wording": (
        "import msgpack; robot._end.send(msgpack.packb(['end', 'over', 'won'])); threading.Event().wait()",
        "although its trial was not over",
    ),
    "a verdict": (
        "import msgpack; robot._end.send(msgpack.packb(['ended', 0])); threading.Event().wait()",
        "broke its link",
    ),
    "descriptors over the link": ("socket.send_fds(robot._end, [b'x'], [0])", "PermissionError"),
    "the control socket": (
        """
        import msgpack
        for n in set(range(3, 1024)) - {robot._end.fileno()}:
            try: os.write(n, msgpack.packb(['ended', 0]))
            except OSError: continue
            raise OSError('ESCAPED')
        raise OSError('none is open')
        """,
        "none is open",
    ),
    "a copy of the link kept": ("os.dup(robot._end.fileno()); robot._end.close(); robot.observe()", "ended by itself"),
    # Ways not to end.
    "deaf to signals": (
        """
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda *_: None)
        threading.Event().wait()
        """,
        "hung",
    ),
    "a stop of its own": ("os.kill(os.getpid(), signal.SIGSTOP)", "hung"),
    "an exit that hangs": ("import atexit; atexit.register(threading.Event().wait); sys.exit()", "SystemExit"),
    "an end that is never reached": (
        """
        while True:
            try: threading.Event().wait(); time.sleep(1)
            except BaseException: pass
        """,
        "hung",
    ),
    "a stack that never unwinds": (
        """
        class Sticky:
            def __del__(self): threading.Event().wait()
        kept = Sticky()
        raise ValueError
        """,
        "(hung|ValueError)",
    ),
}


def script(text: str) -> str:
    """Return a policy that does this, and says so where nothing stopped it."""
    lines = indent(dedent(text).strip("\n"), "    ")
    return f"{HEADER}def run(robot, p):\n{lines}\n    raise RuntimeError('ESCAPED')\n"


class Arm:
    """A robot that stays where it is and keeps the numbers that a policy names as joint targets."""

    def __init__(self) -> None:
        self.named: list[int] = []

    def observe(self) -> Observation:
        return SEEN

    def step(self, target: JointTarget | ToolTarget) -> Observation:
        assert isinstance(target, JointTarget)
        self.named = [int(number) for number in target.joints_rad]
        return SEEN

    def scene(self) -> Scene:
        return Scene(0.0, ())


# What starts instead of Python where the host is to be an ordinary user's: it becomes nobody first. An interpreter in a
# folder that only root may enter is mounted where nobody may reach it, for that process alone.
AS_NOBODY = f"""\
#!{sys.executable} -I
import os, sys
from pathlib import Path
import msgpack, numpy, policies
from policies.cage import kernel

needed = {{sys.prefix, sys.base_prefix, Path(policies.__file__).parents[1], Path({sys.executable!r}).parent}}
paths = {{Path(path).resolve() for path in needed}}
closed = {{above for path in paths for above in path.parents if not above.stat().st_mode & 1}}
if closed:
    kernel.call("unshare", 0x2_0000)
    kernel.call("mount", None, b"/", None, 0x4000 | 0x4_0000, None)
for folder in sorted(closed, key=lambda folder: len(folder.parts))[:1]:
    held = {{path: os.open(path, os.O_PATH) for path in paths if path.is_relative_to(folder)}}
    kernel.call("mount", b"tmpfs", bytes(folder), b"tmpfs", 0, b"mode=0755")
    for path, descriptor in sorted(held.items()):
        path.mkdir(parents=True, exist_ok=True)
        kernel.call("mount", f"/proc/self/fd/{{descriptor}}".encode(), bytes(path), None, 0x5000, None)
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])
"""
VICTIM = """\
import ctypes, os, sys, time
secret = ctypes.create_string_buffer(sys.stdin.readline().strip().encode())
print(os.getpid(), ctypes.addressof(secret), flush=True)
time.sleep(3600)
"""


@dataclass(frozen=True)
class Prey:
    """All that the policies are after, and where it would be seen that they got it."""

    host: PolicyHost
    base: Path
    secret: str
    params: dict[str, object]
    listeners: tuple[socket.socket, ...]
    missing: dict[str, str]  # layers of the cage that this machine does not have

    def run(self, code: str, deadline_s: float = LONG_S, robot: Arm | None = None) -> PolicyEnd:
        """Run a policy in its cage, beside the prey."""
        source = self.base / "bundle" / "policy.py"
        source.write_text(code)
        source.chmod(0o644)
        params: Any = self.params
        return self.host.run(source.parent, source.name, params, robot or Arm(), reply_deadline_s=deadline_s)

    def seen(self) -> list[object]:
        """Return all that a policy could have changed."""
        mark = str(self.params["mark"])
        written = [folder for folder in ("/", "/tmp", "/dev/shm") if Path(folder, mark).exists()]
        files = {path: (path.read_bytes(), path.stat().st_mode) for path in self.base.glob("*/*")}
        processes = [_condition(int(str(self.params[name]))) for name in ("host", "victim")]
        called = select.select(self.listeners, [], [], 0)[0]
        return [written, files, processes, called, socket.gethostname()]


def _condition(pid: int) -> object:
    """Return what others can do to a process: end or stop it, or move its limits, its place and its processors."""
    running = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"S", b"R", b"D")
    limits = Path(f"/proc/{pid}/limits").read_text()
    return running, limits, os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid)


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def prey(request: pytest.FixtureRequest) -> Iterator[Prey]:
    """A station's files, a process and sockets of this user, and a policy host that runs as the same user."""
    as_nobody = request.param == "ordinary user" and os.geteuid() == 0
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("these tests do not run as root")
    secret = f"canary-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="enpire-cage-"))  # every user may enter it, unlike pytest's own folders
        stack.callback(shutil.rmtree, base)
        base.chmod(0o755)
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(sys, "executable", _python(base, as_nobody))
        _furnish(base, secret, NOBODY if as_nobody else os.geteuid())
        victim = stack.enter_context(subprocess.Popen([sys.executable, "-c", VICTIM], stdin=-1, stdout=-1, text=True))
        stack.callback(victim.kill)
        assert victim.stdin is not None
        assert victim.stdout is not None
        print(secret, file=victim.stdin, flush=True)
        pid, secret_at = map(int, victim.stdout.readline().split())
        tcp, udp, named, abstract = _listeners(stack, base, secret)
        host = stack.enter_context(PolicyHost(grace_s=SHORT_S))
        missing = {layer.name: layer.why for layer in host.layers() if not layer.enforced}
        if "seccomp" in missing:
            pytest.skip(f"this kernel filters no system calls: {missing['seccomp']}")
        params: dict[str, object] = {
            "station": str(base / "station"),
            "key": str(base / "station" / "edge.key"),
            "ledger": str(base / "station" / "ledger.db"),
            "other": str(base / "other"),
            "judge": str(Path(edge.tasks.__path__[0], "push_t", "task.py")),
            "mark": f"enpire-mark-{secret[-8:]}",
            "tcp": tcp.getsockname()[1],
            "udp": udp.getsockname()[1],
            "unix": named.getsockname(),
            "abstract": abstract.getsockname()[1:].decode(),
            "victim": pid,
            "secret_at": secret_at,
            "allowed": [numbers[ARM] for numbers in calls.NUMBERS.values()],
        }
        found, arm = Prey(host, base, secret, params, (tcp, udp, named, abstract), missing), Arm()
        who = "robot.step(JointTarget(np.array([os.getppid(), os.getuid(), 0.0, 0.0, 0.0, 0.0])))"
        found.run(script(who), robot=arm)
        params["host"] = arm.named[0]
        assert (arm.named[1] == NOBODY) == as_nobody or os.geteuid() != 0
        yield found


def _python(base: Path, as_nobody: bool) -> str:
    """Return what to start the host with."""
    if not as_nobody:
        return sys.executable
    python = base / "python"
    python.write_text(AS_NOBODY)
    python.chmod(0o755)
    ran = subprocess.run([python, "-c", "import numpy"], capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"this machine does not let nobody run Python: {ran.stderr.strip().splitlines()[-1]}")
    return str(python)


def _furnish(base: Path, secret: str, owner: int) -> None:
    """Write a bundle, another one, and a station whose files only their owner may read."""
    for folder in ("bundle", "other", "station"):
        (base / folder).mkdir(mode=0o755)
    (base / "other" / "policy.py").write_text(f"# {secret}\n")
    (base / "bundle" / "link").symlink_to(base / "station" / "edge.key")
    for name in ("edge.key", "ledger.db"):
        path = base / "station" / name
        path.write_text(f"{secret}\n")
        path.chmod(0o600)
    for path in (base, *base.rglob("*")):
        os.chown(path, owner, -1, follow_symlinks=False)


def _listeners(stack: ExitStack, base: Path, secret: str) -> list[socket.socket]:
    tcp, udp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM))
    named, abstract = (socket.socket(socket.AF_UNIX) for _ in range(2))
    for end, address in (
        (tcp, ("127.0.0.1", 0)),
        (udp, ("127.0.0.1", 0)),
        (named, str(base / "socket")),
        (abstract, f"\0enpire-{secret[-8:]}"),
    ):
        stack.enter_context(end).bind(address)
        if end is not udp:
            end.listen()
    (base / "socket").chmod(0o777)
    return [tcp, udp, named, abstract]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_script_leaves_the_cage(prey: Prey, name: str) -> None:
    text, expected = ESCAPES[name]
    if name == "names of files" and "root" in prey.missing:
        pytest.skip(f"only a root of its own hides names: {prey.missing['root']}")
    prey.run(GOOD)
    before = prey.seen()
    assert before[2:4] == [[(True, *rest) for _, *rest in before[2]], []]
    end = prey.run(script(text), SHORT_S if "hung" in expected else LONG_S)
    told = f"{end.kind}: {end.detail}"
    assert "ESCAPED" not in told
    assert prey.secret not in told
    assert re.search(expected, told), told
    assert prey.run(GOOD) == PolicyEnd("finished", "", 1)
    assert prey.seen() == before


SPOIL = """
import builtins, threading
from policies import interface, link
np.zeros = link.send = interface.POLICY_HZ = builtins.sorted = None
sys.path.insert(0, '/tmp')
sys.modules['json'] = np
signal.signal(signal.SIGTERM, lambda *_: None)
resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
threading.Thread(target=threading.Event().wait).start()
os.chdir(HERE)
raise OSError('spoilt')
"""
INTACT = """
import json
from policies import interface, link
assert np.zeros(1) == 0 and link.send and interface.POLICY_HZ == 30.0 and sorted
assert json is not np and sys.path[0] != '/tmp' and threading.active_count() == 1 and os.getcwd() != str(HERE)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 64
raise OSError('intact')
"""


def test_a_policy_leaves_nothing_behind_for_the_next(prey: Prey) -> None:
    assert "spoilt" in prey.run(script(SPOIL)).detail
    assert "intact" in prey.run(script(INTACT)).detail
