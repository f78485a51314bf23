"""Attacks on what a bundle holds: manifests that lie, files that none may hold, a policy.toml that asks too much."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.harness.attacks_on_bytes import MISSING, Attack
from tests.harness.bundle_format import DEFAULTS, FILES, NO_LIMIT, PROVENANCE, as_json, bundle_of, said, sha256

# Manifests that do not describe the files, or not in the one way.


def claims(case: str, manifest: object, text: str) -> Attack:
    return Attack(case, bundle_of(FILES, as_json(manifest)), text)


def written(case: str, manifest: bytes, text: str) -> Attack:
    return Attack(case, bundle_of(FILES, manifest), text)


def param(value: object) -> dict[str, object]:
    return said(params=DEFAULTS | {"speed_m_s": value})


HASHES = said()["files"]
EXACTLY = "manifest.json does not hold exactly api, entry, envelope, files, format,"
FORMAT = "manifest.json is not of format 2"
ABOUT = "manifest.json does not agree with the files about "
NOT_NUMBERS = "params is not a map of numbers, true and false"
PARENT = "parent is neither null nor the name of a bundle"
ODD_PROVENANCE = "provenance does not hold exactly commit, hypothesis, researcher"
ODD_COMMIT = "provenance.commit is not one line of at most 1000 characters"
ODD_MANIFEST = "manifest.json is not in its canonical form"
TEXT = as_json(said())

MANIFESTS = [
    *(
        claims(f"manifest without {name}", {k: v for k, v in said().items() if k != name}, EXACTLY)
        for name in said()
        if name != "format"
    ),
    claims("manifest without a format", {k: v for k, v in said().items() if k != "format"}, FORMAT),
    claims("manifest with one key more", said(signature="x"), EXACTLY),
    claims("manifest is a list", [said()], FORMAT),
    claims("manifest is null", None, FORMAT),
    claims("older format", said(format=1), FORMAT),
    claims("newer format", said(format=3), FORMAT),
    claims("format as a word", said(format="2"), FORMAT),
    claims("format as a float", said(format=2.0), ODD_MANIFEST),
    claims("api as a float", said(api=1.0), ODD_MANIFEST),
    claims("api as true", said(api=True), ODD_MANIFEST),
    claims("resource as a float", said(resources={"memory_mb": 512.0, "longest_s": 300.0}), ODD_MANIFEST),
    claims("number as an integer", said(resources={"memory_mb": 512, "longest_s": 300}), ODD_MANIFEST),
    claims("idea as zero", said(params=DEFAULTS | {"ease": 0}), "it can be true or false"),
    claims("files is a list", said(files=[*HASHES]), ABOUT + "files"),
    claims("files is null", said(files=None), ABOUT + "files"),
    claims("lists no file", said(files={}), ABOUT + "files"),
    claims("lists a file too many", said(files=HASHES | {"zz.py": sha256(b"")}), ABOUT + "files"),
    claims("lists a path", said(files=HASHES | {"../zz.py": sha256(b"")}), ABOUT + "files"),
    claims("wrong hash", said(files=HASHES | {"policy.py": "0" * 64}), ABOUT + "files"),
    claims("hash in capitals", said(files={k: v.upper() for k, v in HASHES.items()}), ABOUT + "files"),
    claims("null for a hash", said(files=HASHES | {"policy.py": None}), ABOUT + "files"),
    claims("another policy", said(policy="other"), ABOUT + "policy"),
    claims("another task", said(task="other"), ABOUT + "task"),
    claims("another api", said(api=2), ABOUT + "api"),
    claims("entry that is not there", said(entry="gone.py"), ABOUT + "entry"),
    claims("entry in the manifest is a path", said(entry="/bin/sh"), ABOUT + "entry"),
    claims("entry and task are others", said(entry=None, task=7), ABOUT + "entry, task"),
    claims("an envelope that policy.toml has not", said(envelope=NO_LIMIT | {"trial_s": 1.0}), ABOUT + "envelope"),
    claims("no envelope", said(envelope=None), ABOUT + "envelope"),
    claims("more memory than policy.toml says", said(resources={"memory_mb": 513, "longest_s": 300.0}), ABOUT + "res"),
    claims("weights that policy.toml has not", said(weights={"a.onnx": ["0" * 64, 1]}), ABOUT + "weights"),
    claims("params is a list", said(params=[]), NOT_NUMBERS),
    claims("params is null", said(params=None), NOT_NUMBERS),
    claims("param is text", param("0.1"), NOT_NUMBERS),
    claims("param is a list", param([0.1]), NOT_NUMBERS),
    claims("param is null", param(None), NOT_NUMBERS),
    claims("param is true", param(True), "parameter speed_m_s is True, which is not a number"),
    claims("param too high", param(0.41), "allowed is 0.05 to 0.4"),
    claims("param too low", param(0.04), "allowed is 0.05 to 0.4"),
    claims("param NaN", param(float("nan")), "speed_m_s is nan"),
    claims("param infinite", param(float("inf")), "speed_m_s is inf"),
    claims("param of 4000 digits", param(10**4000), "speed_m_s is 1000"),
    claims("unknown param", said(params=DEFAULTS | {"haste": 1.0}), "slide has no parameter or idea 'haste'"),
    claims(
        "param in the manifest named in two lines",
        said(params=DEFAULTS | {"a\nb": 1.0}),
        "has no parameter or idea 'a\\nb'",
    ),
    claims("param left out", said(params={"ease": False}), ABOUT + "params"),
    claims("parent is a number", said(parent=7), PARENT),
    claims("parent is a word", said(parent="a"), PARENT),
    claims("parent is a path", said(parent="../" + "a" * 61), PARENT),
    claims("parent in capitals", said(parent="A" * 64), PARENT),
    claims("parent with a line end", said(parent="a" * 64 + "\n"), PARENT),
    claims("provenance is null", said(provenance=None), ODD_PROVENANCE),
    claims("provenance is a list", said(provenance=[*PROVENANCE]), ODD_PROVENANCE),
    claims("provenance with a part more", said(provenance=PROVENANCE | {"approved": "yes"}), ODD_PROVENANCE),
    claims("provenance with a last part more", said(provenance=PROVENANCE | {"zeal": "much"}), ODD_PROVENANCE),
    claims("provenance with a part less", said(provenance={"commit": "", "hypothesis": ""}), ODD_PROVENANCE),
    claims("commit is a number", said(provenance=PROVENANCE | {"commit": 7}), ODD_COMMIT),
    claims("commit is a map", said(provenance=PROVENANCE | {"commit": {}}), ODD_COMMIT),
    claims("commit of 1001 characters", said(provenance=PROVENANCE | {"commit": "c" * 1001}), ODD_COMMIT),
    claims("commit in two lines", said(provenance=PROVENANCE | {"commit": "a\nb"}), ODD_COMMIT),
    claims("commit that colours a terminal", said(provenance=PROVENANCE | {"commit": "\x1b[31m"}), ODD_COMMIT),
    claims("commit written from right to left", said(provenance=PROVENANCE | {"commit": "\u202e"}), ODD_COMMIT),
    claims("commit of half a character", said(provenance=PROVENANCE | {"commit": "\ud800"}), ODD_COMMIT),
    claims("commit with a line separator", said(provenance=PROVENANCE | {"commit": "\u2028"}), ODD_COMMIT),
    claims("commit with a paragraph separator", said(provenance=PROVENANCE | {"commit": "\u2029"}), ODD_COMMIT),
    written("empty manifest", b"", MISSING),
    written("manifest cut short", TEXT[:-1], MISSING),
    written("manifest that is not text", b"\xff\xfe", MISSING),
    written("number of 5000 digits", TEXT.replace(b"0.1", b"1" * 5000, 1), MISSING),
    written("brackets as deep as there is room", b"[" * 400_000, MISSING),
    written("manifest twice", TEXT + TEXT, MISSING),
    written("manifest on one line", json.dumps(said(), sort_keys=True).encode(), ODD_MANIFEST),
    written("manifest not sorted", json.dumps(said(), indent=1).encode(), ODD_MANIFEST),
    written("manifest with a line end", TEXT + b"\n", ODD_MANIFEST),
    written("manifest in utf-16", TEXT.decode().encode("utf-16"), ODD_MANIFEST),
    written("number as a power of ten", TEXT.replace(b"300.0", b"3e2", 1), ODD_MANIFEST),
    written("a key twice, the second one good", TEXT.replace(b"{", b'{\n "task": "other",', 1), ODD_MANIFEST),
    written("a param twice", TEXT.replace(b'"ease": false', b'"ease": true,\n  "ease": false', 1), ODD_MANIFEST),
]

# Files that no bundle may hold.


def holding(case: str, files: Mapping[str, bytes], text: str) -> Attack:
    return Attack(case, bundle_of(FILES | files), text)


def source(case: str, data: bytes, text: str = "policy.py does not compile: ") -> Attack:
    return holding(case, {"policy.py": data}, text)


def importing(module: str, data: str) -> Attack:
    return source(f"imports {module}: {data!r}", data.encode(), f"policy.py imports {module}, which no policy may")


def named(stem: str, text: str) -> Attack:
    return holding(f"a file named {stem}.py", {f"{stem}.py": b""}, f"{stem}.py is named like {text}")


OF_THE_JUDGE = "a file of the judge or the guard, which no bundle carries; rename it"
THERE_ALREADY = "a module that is there already; rename it"

HELD = [
    *(named(s, OF_THE_JUDGE) for s in ("judge", "verdict", "task", "tasks", "ready", "reset", "verify")),
    *(named(s, OF_THE_JUDGE) for s in ("guard", "body")),
    *(named(s, THERE_ALREADY) for s in ("edge", "coordinator", "firmware_bridge", "calibration", "policies")),
    *(named(s, THERE_ALREADY) for s in ("numpy", "msgpack", "math", "os", "random", "__future__", "imp", "distutils")),
    *(named(s, THERE_ALREADY) for s in ("scipy", "numba", "cv2", "mujoco", "zenoh", "serial", "mcap")),
    *(named(s, THERE_ALREADY) for s in ("asynchat", "asyncore", "smtpd")),
    holding("65 files", {f"f{k}.py": b"" for k in range(63)}, "65 files; at most 64 are allowed"),
    holding("source of 64 KiB and a byte", {"zz.py": b"#" * 65537}, "zz.py has 65537 bytes; at most 65536 are allowed"),
    holding(
        "toml of 16 KiB and a byte", {"zz.toml": b"#" * 16385}, "zz.toml has 16385 bytes; at most 16384 are allowed"
    ),
    Attack(
        "JSON of 128 KiB and a byte",
        bundle_of(FILES | {"zz.json": b"1" + b" " * 131072}),
        "zz.json has 131073 bytes; at most 131072 are allowed",
    ),
    Attack("no policy.toml", bundle_of({"policy.py": b""}), "policy.toml is not among its files"),
    Attack("no files", bundle_of({}), "policy.toml is not among its files"),
    source("not Python", b"def run(robot"),
    source("compiled Python under another name", b"\xa7\r\r\n" + bytes(12) + b"\xe3"),
    source("pickle under another name", b"\x80\x04\x95\x0b\0\0\0"),
    source("zero byte", b"x = 1\0"),
    source("text in latin-1", b"x = '\xe9'\n"),
    source("return outside of a function", b"return 1\n"),
    source("brackets too deep", b"(" * 60_000),
    source("signs too deep", b"-" * 60_000 + b"1"),
    source("sums too deep", b"a" + b"+a" * 30_000),
    source("branches too deep", b"if a: 0\n" + b"elif a: 0\n" * 6_000),
    source("unknown encoding", b"# coding: no-such-code\n"),
    source(
        "says that it is latin-1", b"# coding: latin-1\n", "policy.py says that it is iso-8859-1; write it in plain"
    ),
    source("hides an import in utf-7", b"# coding: utf-7\n+AAo-import ctypes", "policy.py says that it is utf-7"),
    source("byte order mark", b"\xef\xbb\xbfx = 1\n", "policy.py says that it is utf-8-sig"),
    importing("pickle", "import pickle"),
    importing("pickle", "import pickle as p"),
    importing("pickle", "import os, pickle"),
    importing("pickle", "from pickle import loads"),
    importing("pickle", "from pickle import *"),
    importing("pickle", "def run(robot, params):\n    import pickle"),
    importing("pickle", "if False:\n    import pickle"),
    importing("pickle", "try:\n    pass\nfinally:\n    from pickle import loads"),
    importing("pickle", "import ｐｉｃｋｌｅ"),
    importing("_pickle", "import _pickle"),
    importing("cloudpickle", "import cloudpickle"),
    importing("dill", "import dill"),
    importing("joblib", "from joblib import load"),
    importing("marshal", "import marshal"),
    importing("shelve", "import shelve"),
    importing("ctypes", "import ctypes.util"),
    importing("ctypes", "from ctypes.util import find_library"),
    importing("_ctypes", "import _ctypes"),
    importing("edge", "from edge.tasks.push_t import task"),
    importing("edge", "import edge"),
    importing("coordinator", "import coordinator.store"),
    importing("firmware_bridge", "from firmware_bridge.guard import narrow"),
    importing("calibration", "import calibration"),
    holding("import in another file", {"zz.py": b"import ctypes"}, "zz.py imports ctypes, which no policy may"),
    holding("not TOML", {"zz.toml": b"\x80\x04."}, "zz.toml is not TOML: UnicodeDecodeError"),
    holding("not JSON", {"zz.json": b"\x80\x04."}, "zz.json is not JSON: UnicodeDecodeError"),
    holding("half of a JSON", {"zz.json": b"[1, "}, "zz.json is not JSON: JSONDecodeError"),
    holding("nothing as JSON", {"zz.json": b""}, "zz.json is not JSON: JSONDecodeError"),
    holding("brackets in JSON too deep", {"zz.json": b"[" * 100_000}, "zz.json is not JSON: RecursionError"),
    holding("a JSON number of too many digits", {"zz.json": b"1" * 5_000}, "zz.json is not JSON: ValueError"),
    holding("brackets in TOML too deep", {"zz.toml": b"a = " + b"[" * 9_000}, "zz.toml is not TOML: RecursionError"),
]

# A policy.toml that asks for what no policy may have.


def toml(case: str, old: str, new: str, text: str) -> Attack:
    assert old.encode() in FILES["policy.toml"]
    return holding(case, {"policy.toml": FILES["policy.toml"].replace(old.encode(), new.encode(), 1)}, text)


def asks(case: str, more: str, text: str) -> Attack:
    return holding(case, {"policy.toml": FILES["policy.toml"] + more.encode()}, text)


WEIGHT = "0" * 64
SIX = "[1, 1, 1, 1, 1, 1]"

TOMLS = [
    holding("policy.toml is not TOML", {"policy.toml": b"name ="}, "policy.toml is not TOML"),
    holding("half a policy.toml", {"policy.toml": b'name = "slide"'}, "task is missing"),
    toml("default outside of its range", "= 0.1", "= 0.9", "parameter speed_m_s is 0.9; allowed is 0.05 to 0.4"),
    toml("policy is a path", '"slide"', '"../slide"', "'../slide' is not a name of at most 61 of a-z"),
    toml("task is a path", '"push_t"', '"../../released/push_t"', "'../../released/push_t' is not a name"),
    toml("task in two lines", '"push_t"', '"push\\nt"', "'push\\nt' is not a name"),
    toml("param named in two lines", "speed_m_s", '"speed\\nm"', "'speed\\nm' is not a name"),
    toml("newer api", "api = 1", "api = 2", "api is 2; this version speaks 1"),
    toml("entry is not a file", '"policy.py"', '"gone.py"', "the entry 'gone.py' is not among its Python files"),
    toml("entry is a path", '"policy.py"', '"../policy.py"', "the entry '../policy.py' is not among"),
    toml("entry is not Python", '"policy.py"', '"policy.toml"', "the entry 'policy.toml' is not among"),
    toml("entry is the manifest", '"policy.py"', '"manifest.json"', "the entry 'manifest.json' is not among"),
    toml("number of 400 digits", "low = 0.05", "low = " + "1" * 400, "holds a number that is too large"),
    asks("unknown table", "[capabilities]\nnetwork = true", "capabilities is not known here"),
    asks("velocity that is negative", "[envelope]\nvelocity_rad_s = [-1, 1, 1, 1, 1, 1]", "holds -1; allowed is more"),
    asks("velocity NaN", "[envelope]\nvelocity_rad_s = [nan, 1, 1, 1, 1, 1]", "velocity_rad_s holds nan"),
    asks("torque infinite", "[envelope]\ntorque_nm = [inf, 1, 1, 1, 1, 1]", "torque_nm holds inf"),
    asks("limits of seven joints", "[envelope]\nlower_rad = [0, 0, 0, 0, 0, 0, 0]", "is not a list of 6 numbers"),
    asks("range upside down", f"[envelope]\nlower_rad = {SIX}\nupper_rad = {SIX}", "which is not below 1 of upper_rad"),
    asks("unknown limit", "[envelope]\nforce_n = 1", "envelope.force_n is not known here"),
    asks("more memory than the edge gives", "[resources]\nmemory_mb = 513", "memory_mb is 513; allowed is 1 to 512"),
    asks("no memory", "[resources]\nmemory_mb = 0", "resources.memory_mb is 0; allowed is 1 to 512"),
    asks("memory as a float", "[resources]\nmemory_mb = 5.5", "resources.memory_mb is 5.5, which is not a int"),
    asks("more time than the edge gives", "[resources]\nlongest_s = 300.1", "longest_s is 300.1; allowed is up to 300"),
    asks("time NaN", "[resources]\nlongest_s = nan", "resources.longest_s is nan; allowed is up to 300"),
    asks("weights as a pickle", f'[weights]\n"a.pt" = ["{WEIGHT}", 1]', "weights named 'a.pt'; names are lower case"),
    asks("weights with a path", f'[weights]\n"../a.onnx" = ["{WEIGHT}", 1]', "weights named '../a.onnx'"),
    asks("weights without a hash", '[weights]\n"a.onnx" = ["", 1]', "weights.a.onnx is not [sha256, bytes]"),
    asks("weights of 9 GB", f'[weights]\n"a.onnx" = ["{WEIGHT}", 9000000000]', "weights.a.onnx is not [sha256, bytes]"),
]
