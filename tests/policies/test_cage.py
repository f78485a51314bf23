"""What the cage's lists say: which system calls pass on either architecture, what may be read, what must hold."""

from __future__ import annotations

import itertools
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from policies.cage import calls, files
from policies.cage.layers import NEEDS, WHAT, Layer, unmet

PID = 4711
MACHINES = list(calls.ARCHITECTURES)
EPERM, ENOSYS, ALLOW, KILL = calls.EPERM, calls.ENOSYS, calls.ALLOW, calls.KILL
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}


def answer(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """Return what the filter answers to a call, as the kernel's interpreter of it would."""
    told = calls.ARCHITECTURES[machine] if architecture is None else architecture
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, told, 0, *(value & (1 << 64) - 1 for value in arguments))
    steps = list(struct.iter_unpack("=HBBI", calls.program(machine, PID)))
    at = value = 0
    while True:
        code, yes, no, constant = steps[at]
        at += 1
        if code == calls.RETURN:
            return int(constant)
        if code == calls.LOAD:
            value = struct.unpack_from("<I", data, constant)[0]
        else:
            holds = value == constant if code == calls.EQUAL else bool(value & constant)
            at += yes if holds else no


def numbers(machine: str) -> dict[str, int]:
    """Return the calls of the list that this architecture has."""
    column = MACHINES.index(machine)
    return {name: number for name, both in calls.NUMBERS.items() if (number := both[column]) is not None}


# System calls.


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_in_the_list_and_harmless_passes(machine: str) -> None:
    free = {name: number for name, number in numbers(machine).items() if name not in calls.forms(PID)}
    assert {name: answer(machine, number, -1, -1, -1) for name, number in free.items()} == dict.fromkeys(free, ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_not_in_the_list_fails_whatever_its_number(machine: str) -> None:
    listed = set(numbers(machine).values())
    others = {*range(600), 1 << 31, (1 << 32) - 1, *(0x4000_0000 | number for number in listed)} - listed
    signed = {number: answer(machine, number - (1 << 32) if number >> 31 else number) for number in others}
    assert {number for number, said in signed.items() if said != EPERM} == {calls.CLONE3}
    assert signed[calls.CLONE3] == ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_another_instruction_set_ends_the_process(machine: str) -> None:
    for architecture in (0, 0x4000_0003, *calls.ARCHITECTURES.values()):
        if architecture != calls.ARCHITECTURES[machine]:
            for number in range(600):
                assert answer(machine, number, architecture=architecture) == KILL


THREAD, FORK = 0x3D_0F00, 0x0120_0011
FORMS = [
    ("clone", (THREAD,), ALLOW),
    ("clone", (0x7D_0F00,), ALLOW),
    ("clone", (FORK,), EPERM),
    ("clone", (0,), EPERM),
    ("clone", (THREAD | 17,), EPERM),
    *(
        ("clone", (THREAD | new,), EPERM)
        for new in (0x2_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0800_0000, 0x80)
    ),
    ("kill", (PID, 9), ALLOW),
    *(("kill", (pid, 0), EPERM) for pid in (PID - 1, PID + 1, 0, 1, -1, -PID)),
    ("tgkill", (PID, PID + 1, 6), ALLOW),
    ("tgkill", (PID + 1, PID, 6), EPERM),
    ("prlimit64", (0, 7), ALLOW),
    ("prlimit64", (PID, 7), EPERM),
    ("prlimit64", (1, 7), EPERM),
    *(("fcntl", (3, command), ALLOW) for command in (0, 1, 2, 3, 4, 1030)),
    *(("fcntl", (3, command), EPERM) for command in (5, 6, 7, 8, 10, 15, 1024, 1031, 1033)),
    *(("ioctl", (0, command), ALLOW) for command in (0x5401, 0x541B, 0x5450, 0x5451)),
    *(("ioctl", (0, command), EPERM) for command in (0, 0x5412, 0x8901, 0x8902, 0x5452)),
    *(("open", (0, flags), ALLOW) for flags in (0, 0x8_0000, 0x1_0000, 0x20_0000)),
    *(("open", (0, flags), EPERM) for flags in (1, 2, 3, 0x40, 0x200, 0x41_0002)),
    *(("openat", (-100, 0, flags), ALLOW) for flags in (0, 0x8_0000, 0x1_0000, 0x4000)),
    *(("openat", (-100, 0, flags), EPERM) for flags in (1, 2, 3, 0x40, 0x200, 0x40_4000, 0x8_0241)),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("name", "arguments", "said"), FORMS)
def test_a_call_that_is_harmless_in_some_forms_only_passes_in_those(
    machine: str, name: str, arguments: tuple[int, ...], said: int
) -> None:
    if (number := numbers(machine).get(name)) is None:
        assert (machine, name) == ("aarch64", "open")
        return
    assert answer(machine, number, *arguments) == said
    # The kernel reads 32 bits of each of these arguments, so the rest must not change the answer.
    assert answer(machine, number, *((0xDEAD << 32) | value & 0xFFFF_FFFF for value in arguments)) == said


def test_every_call_with_a_form_is_in_the_list_and_tried_here() -> None:
    assert set(calls.forms(PID)) == {name for name, _, _ in FORMS}
    assert set(calls.forms(PID)) <= set(calls.NUMBERS)


@pytest.mark.parametrize("machine", MACHINES)
def test_no_two_calls_have_one_number_and_the_kernel_takes_the_program(machine: str) -> None:
    assert len(set(numbers(machine).values())) == len(numbers(machine))
    assert len(calls.program(machine, PID)) % 8 == 0
    assert len(calls.program(machine, PID)) // 8 <= 4096


@pytest.mark.parametrize("machine", MACHINES)
def test_the_process_s_number_stands_where_signals_are_checked_and_nowhere_else(machine: str) -> None:
    assert calls.template(machine).count(struct.pack("=I", calls.OWN_PID)) == 2  # kill, tgkill
    assert calls.OWN_PID > 4 << 20  # the most that Linux gives out


def test_a_machine_without_a_list_is_said() -> None:
    with pytest.raises(OSError, match="no list of system calls for riscv64"):
        calls.program("riscv64", PID)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernel_s_headers(machine: str) -> None:
    header = next((Path(path) for path in HEADERS[machine] if Path(path).exists()), None)
    if header is None:
        pytest.skip(f"none of {', '.join(HEADERS[machine])} is here")
    found = dict(re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text(), re.MULTILINE))
    known = {**found, "newfstatat": found.get("fstatat", found.get("newfstatat"))}
    assert {name: str(number) for name, number in numbers(machine).items()} == {
        name: known[name] for name in numbers(machine)
    }


# Files.


def tree(base: Path, *names: str) -> Mapping[str, Path]:
    """Make these folders and return them by name."""
    for name in names:
        (base / name).mkdir(parents=True, exist_ok=True)
    return {name: base / name for name in names}


def test_a_library_inside_the_standard_library_s_folder_is_seen_with_it(tmp_path: Path) -> None:
    made = tree(tmp_path, "lib", "lib/numpy")
    assert files.view_of(made.values(), tmp_path / "home") == files.View((made["lib"],), {}, None)


def test_the_edge_s_packages_stay_hidden_where_they_lie_beside_a_library(tmp_path: Path) -> None:
    made = tree(tmp_path, "lib", "lib/json", "lib/site", "lib/site/numpy", "lib/site/edge")
    site, numpy = made["lib/site"], made["lib/site/numpy"]
    seen = files.view_of([made["lib"], numpy], site)
    assert seen == files.View((made["lib"], numpy), {}, site)
    (made["lib"] / "os.py").touch()
    (made["lib"] / "shortcut").symlink_to(made["lib/site/edge"])
    shown = {path: rights for entry in seen.trees for path, rights in files.openings(entry, seen.hidden)}
    both = files.READ_FILE | files.READ_FOLDER
    assert shown == {
        made["lib"]: files.READ_FOLDER,
        made["lib"] / "os.py": files.READ_FILE,
        made["lib/json"]: both,
        numpy: both,
    }


def test_a_folder_known_by_a_link_is_seen_under_both_names(tmp_path: Path) -> None:
    made = tree(tmp_path, "usr", "usr/lib")
    link = tmp_path / "lib"
    link.symlink_to(made["usr/lib"])
    assert files.view_of([link, made["usr/lib"]], tmp_path / "home") == files.View(
        (made["usr/lib"],), {link: made["usr/lib"]}, None
    )


def test_what_this_interpreter_needs_holds_nothing_of_the_edge() -> None:
    seen = files.view()
    home = Path(files.policies.__file__).resolve().parents[1]
    assert all(entry.exists() for entry in seen.trees)
    if seen.hidden is None:
        assert not any(home.is_relative_to(entry) for entry in seen.trees)
    else:
        assert seen.hidden == home


# A process that takes part of the standard library for the edge's packages, and shuts itself in with one layer.
SHUT_IN = """
import os, sys
from pathlib import Path
from policies.cage import files, kernel, layers

standard, bundle = Path(os.__file__).resolve().parent, Path(sys.argv[1])
home = standard / "json"
edge, other = home / "decoder.py", Path(files.__file__)
paths = [edge, standard / "os.py", standard / "email" / "message.py", other, "/etc/passwd"]


def reached(paths):
    for path in paths:
        try:
            open(path).close()
        except OSError as error:
            yield type(error).__name__
        else:
            yield "open"


seen = files.view()
seen = files.view_of([*seen.trees, *seen.aliases], home)
if sys.argv[2] == "landlock":
    kernel.prctl(38, 1)
    files.lock([*files.held(seen), files.hold(bundle)])
else:
    if os.geteuid():
        layers._new_user()
    files.mount_root(seen)
    files.show(bundle)
    files.change_root()
    bundle = files.BUNDLE
print(*reached([*paths, bundle / "policy.py"]))
"""


@pytest.mark.parametrize(("layer", "refusal"), [("landlock", "PermissionError"), ("root", "FileNotFoundError")])
def test_each_layer_shows_the_interpreter_and_the_bundle_and_hides_the_edge(
    tmp_path: Path, layer: str, refusal: str
) -> None:
    (tmp_path / "policy.py").touch()
    ran = subprocess.run([sys.executable, "-c", SHUT_IN, tmp_path, layer], capture_output=True, text=True)
    if "Operation not permitted" in ran.stderr or "not supported" in ran.stderr:
        pytest.skip(f"this machine has no {layer}: {ran.stderr.strip().splitlines()[-1]}")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [refusal, "open", "open", refusal, refusal, "open"]


# What must hold.


def lacking(*missing: str) -> list[Layer]:
    """Return the layers of a machine that lacks these."""
    return [Layer(name, name not in missing, f"why {name}") for name in WHAT]


@pytest.mark.parametrize(
    ("missing", "need"),
    [
        ((), ""),
        *(((name,), "") for name in WHAT if name not in ("limits", "privileges")),
        (("limits",), "memory and files stay bounded"),
        (("privileges",), "no privilege can be gained"),
        (("landlock", "root"), ""),
        (("landlock", "root", "user"), "the edge's files stay closed"),
        (("seccomp",), ""),
        (("seccomp", "network"), "no network is reached"),
        (("seccomp", "user"), "other processes are left alone"),
        (("user", "network", "ipc", "root"), ""),
        (("user", "network", "ipc", "landlock"), ""),
        (tuple(WHAT), "memory and files stay bounded"),
    ],
)
def test_a_policy_runs_only_where_every_need_is_met(missing: tuple[str, ...], need: str) -> None:
    said = unmet(lacking(*missing))
    assert bool(said) == bool(need)
    assert need in said
    assert "\n" not in said
    if need:
        assert f"why {NEEDS[need][0]}" in said


def test_no_layer_that_is_there_makes_it_worse() -> None:
    names = sorted(WHAT)
    for count in range(len(names)):
        for missing in itertools.combinations(names, count):
            if unmet(lacking(*missing)):
                assert all(unmet(lacking(*missing, other)) for other in names)


def test_needs_name_layers_that_there_are() -> None:
    assert {name for enough in NEEDS.values() for name in enough} <= set(WHAT)
    assert unmet([])
