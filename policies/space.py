"""What may be varied in a policy: its `policy.toml`, read into parameters with ranges and ideas to switch on.

- A parameter is a number inside [low, high]; an idea is off or on. Both have a default.
- A policy may also bind itself: to limits narrower than the arm's (`envelope`), to less memory and time than the edge
  gives (`resources`), and to files of weights by sha256 and size (`weights`), which travel beside its bundle.
- A policy that is a program of skills says what each needs and gives (`skills`); one that learns by playing says of
  which moves (`play`).
- The file is refused when it holds a key that is not known here, so that a typing error never passes for a setting.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from policies.envelope import Envelope, EnvelopeError, read_envelope
from policies.interface import Value
from policies.space_tables import WORD as WORD
from policies.space_tables import SpaceError as SpaceError
from policies.space_tables import check_word, is_a, table, words
from policies.space_work import Move as Move
from policies.space_work import PlayRules as PlayRules
from policies.space_work import Skill as Skill
from policies.space_work import read_play, read_skills

FILE = "policy.toml"
API = 1  # of policies.interface
SCALES = ("linear", "log", "integer")
WEIGHTS = re.compile(r"[a-z_][a-z0-9_]{0,60}\.(safetensors|onnx)", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_WEIGHTS, MAX_WEIGHTS_BYTES = 16, 8 << 30
LINE_CHARS = 300  # of an error
MEMORY_MB, LONGEST_S = 512, 300.0  # what the edge gives a policy


@dataclass(frozen=True)
class Parameter:
    """A number that may be varied, and where it is said to help."""

    name: str
    default: float
    low: float
    high: float
    scale: str  # one of SCALES: how to step between low and high
    about: str
    helps: tuple[str, ...]  # classes of failure


@dataclass(frozen=True)
class Idea:
    """A piece of behaviour that can be switched on, and the claim that this tests."""

    name: str
    default: bool
    claim: str
    helps: tuple[str, ...]


@dataclass(frozen=True)
class Resources:
    """What the process of a policy may use; at most, and unless said otherwise, what the edge gives."""

    memory_mb: int = MEMORY_MB
    longest_s: float = LONGEST_S  # wall time of one attempt


class Weight(NamedTuple):
    """What a file of weights must be; in a manifest [sha256, bytes]."""

    sha256: str  # hex
    size_bytes: int


@dataclass(frozen=True)
class PolicySpace:
    """All that may be varied in one policy, and what it binds itself to."""

    name: str
    task: str
    api: int
    entry: str  # the file that holds run(robot, params)
    parameters: tuple[Parameter, ...]
    ideas: tuple[Idea, ...]
    envelope: Envelope = field(default_factory=Envelope)
    resources: Resources = field(default_factory=Resources)
    weights: Mapping[str, Weight] = field(default_factory=dict)  # name -> what it must be
    skills: tuple[Skill, ...] = ()
    play: PlayRules | None = None

    @property
    def items(self) -> tuple[Parameter | Idea, ...]:
        """Every parameter, then every idea, in the order of the file."""
        return (*self.parameters, *self.ideas)

    def defaults(self) -> dict[str, Value]:
        """Return every parameter and idea with its default."""
        return {item.name: item.default for item in self.items}

    def validate(self, params: Mapping[str, Value]) -> None:
        """Raise unless every value is one that this policy allows; names may be left out.

        Raises:
            SpaceError: unknown name, wrong type, not finite, outside the range or not whole where it must be.
        """
        known = {item.name: item for item in self.items}
        for name, value in params.items():
            if name not in known:
                raise SpaceError(
                    f"{self.name} has no parameter or idea {name!r:.80}; it has {', '.join(sorted(known))}"
                )
            _check_value(known[name], value)

    def complete(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Return `params` with the defaults filled in, numbers as float, in the order of the file.

        Raises:
            SpaceError: as `validate`.
        """
        self.validate(params)
        merged = self.defaults() | dict(params)
        return {name: value if isinstance(value, bool) else float(value) for name, value in merged.items()}


def load_space(folder: Path) -> PolicySpace:
    """Return the space of the policy in `folder`.

    Raises:
        SpaceError: no policy.toml there, not TOML, an unknown or missing key, or a default outside its own range.
    """
    path = folder / FILE
    try:
        return parse_space(path.read_bytes(), str(path))
    except OSError as error:
        raise SpaceError(f"cannot read {path}: {error.strerror}") from error


def parse_space(data: bytes, origin: str = FILE) -> PolicySpace:
    """Return the space that the bytes of a policy.toml describe; `origin` names them in errors.

    Raises:
        SpaceError: as `load_space`.
    """
    try:
        return _read(tomllib.loads(data.decode()))
    except SpaceError as error:
        raise SpaceError(f"{origin}: {_line(error)}") from error
    except OverflowError as error:
        raise SpaceError(f"{origin}: holds a number that is too large") from error
    except (ValueError, RecursionError) as error:  # also of a whole number of too many digits, or too many brackets
        raise SpaceError(f"{origin}: not TOML: {_line(error)}") from error


def _line(error: Exception) -> str:
    """Return what went wrong as one line, however long the names and values are that it quotes."""
    line = " ".join(str(error).split())
    return line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}..."


def _read(raw: dict[str, Any]) -> PolicySpace:
    tables = dict.fromkeys(("parameters", "ideas", "envelope", "resources", "weights", "skills", "play"), dict)
    top = table(raw, {"name": str, "task": str, "api": int, "entry": str}, tables, "")
    for name in (top["name"], top["task"], *top.get("parameters", {}), *top.get("ideas", {})):
        check_word(name)
    if top["api"] != API:
        raise SpaceError(f"api is {top['api']}; this version speaks {API}")
    space = PolicySpace(
        top["name"],
        top["task"],
        top["api"],
        top["entry"],
        tuple(_parameter(name, item) for name, item in top.get("parameters", {}).items()),
        tuple(_idea(name, item) for name, item in top.get("ideas", {}).items()),
        _envelope(top.get("envelope", {})),
        _resources(top.get("resources", {})),
        _weights(top.get("weights", {})),
        read_skills(top.get("skills", {})),
        read_play(top["play"]) if "play" in top else None,
    )
    twice = {item.name for item in space.parameters} & {item.name for item in space.ideas}
    if twice:
        raise SpaceError(f"{', '.join(sorted(twice))} is both a parameter and an idea; rename one")
    space.validate(space.defaults())
    return space


def _parameter(name: str, raw: object) -> Parameter:
    where = f"parameters.{name}"
    keys = {"default": float, "low": float, "high": float, "scale": str, "about": str, "helps": list}
    item = table(raw, keys, {}, where)
    low, high, scale = float(item["low"]), float(item["high"]), item["scale"]
    if scale not in SCALES:
        raise SpaceError(f"{where}.scale is {scale!r}, not one of {', '.join(SCALES)}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(f"{where} runs from {low} to {high}; low must be below high")
    if scale == "log" and not low > 0:
        raise SpaceError(f"{where} is on a log scale and starts at {low}; low must be above 0")
    if scale == "integer" and not (low.is_integer() and high.is_integer()):
        raise SpaceError(f"{where} is on an integer scale and runs from {low} to {high}; both must be whole")
    return Parameter(name, float(item["default"]), low, high, scale, item["about"], words(item["helps"], where))


def _idea(name: str, raw: object) -> Idea:
    where = f"ideas.{name}"
    item = table(raw, {"default": bool, "claim": str, "helps": list}, {}, where)
    return Idea(name, item["default"], item["claim"], words(item["helps"], where))


def _envelope(raw: dict[str, Any]) -> Envelope:
    try:
        return read_envelope(raw)
    except EnvelopeError as error:
        raise SpaceError(str(error)) from error


def _resources(raw: dict[str, Any]) -> Resources:
    item = table(raw, {}, {"memory_mb": int, "longest_s": float}, "resources")
    resources = Resources(item.get("memory_mb", MEMORY_MB), float(item.get("longest_s", LONGEST_S)))
    if not 0 < resources.memory_mb <= MEMORY_MB:
        raise SpaceError(f"resources.memory_mb is {resources.memory_mb}; allowed is 1 to {MEMORY_MB}")
    if not 0 < resources.longest_s <= LONGEST_S:
        raise SpaceError(f"resources.longest_s is {resources.longest_s:g}; allowed is up to {LONGEST_S:g}")
    return resources


def _weights(raw: dict[str, Any]) -> dict[str, Weight]:
    if len(raw) > MAX_WEIGHTS:
        raise SpaceError(f"{len(raw)} files of weights; at most {MAX_WEIGHTS} are allowed")
    return {name: _weight(name, item) for name, item in raw.items()}


def _weight(name: str, raw: object) -> Weight:
    if not WEIGHTS.fullmatch(name):
        raise SpaceError(f"weights named {name!r:.80}; names are lower case words that end in .safetensors or .onnx")
    match raw:
        case [str(sha256), int(size_bytes)] if SHA256.fullmatch(sha256) and is_a(size_bytes, int):
            if 0 < size_bytes <= MAX_WEIGHTS_BYTES:
                return Weight(sha256, size_bytes)
    raise SpaceError(f"weights.{name} is not [sha256, bytes] with at most {MAX_WEIGHTS_BYTES} bytes")


def _check_value(item: Parameter | Idea, value: object) -> None:
    if isinstance(item, Idea):
        if not isinstance(value, bool):
            raise SpaceError(f"idea {item.name} is {value!r}; it can be true or false")
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpaceError(f"parameter {item.name} is {value!r}, which is not a number")
    if not item.low <= value <= item.high:
        raise SpaceError(f"parameter {item.name} is {value!r:.40}; allowed is {item.low} to {item.high}")
    if item.scale == "integer" and not float(value).is_integer():
        raise SpaceError(f"parameter {item.name} is {value}; it must be a whole number")
