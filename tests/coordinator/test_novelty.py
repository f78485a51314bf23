"""A policy's key is blind to comments and layout only; likeness is between 0 and 1, and 1 for the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.evolution.novelty import key, normalised

LAW = settings(deadline=None, max_examples=60)
POLICY = '''"""Says what it does."""

import math

class Hand:
    """A hand."""

    def close(self, force_n: float = 2.0) -> bool:
        """Close it."""
        return force_n > {limit}


def run(robot, params):
    """Run."""
'''
PLAIN = """import math
class Hand:
  def close(self, force_n: float=2.0)->bool:  # a comment
    return (force_n>{limit})
def run(robot,params): pass
"""
VALUES = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text("ab ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=5,
)
TABLES = st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9) | st.booleans() | st.floats(-2, 2), max_size=3)


def toml(table: dict[str, object], names: list[str], blank: str, comment: str) -> bytes:
    """Write a flat table with its keys in some order and some layout."""
    written = {name: str(value).lower() if isinstance(value, bool) else repr(value) for name, value in table.items()}
    return "".join(f"{blank}{name}{blank} = {written[name]} {comment}\n" for name in names if name in table).encode()


def python(limit: object, style: str) -> bytes:
    return style.format(limit=limit).encode()


@LAW
@given(st.integers(0, 9) | st.floats(0, 1), st.integers(0, 9) | st.floats(0, 1))
def test_comments_docstrings_and_layout_of_python_never_count_and_a_value_does(one: float, other: float) -> None:
    assert key({"a.py": python(one, POLICY)}) == key({"a.py": python(one, PLAIN)})
    same = repr(one) == repr(other)
    assert (key({"a.py": python(one, POLICY)}) == key({"a.py": python(other, PLAIN)})) == same


@LAW
@given(TABLES, TABLES, st.permutations("abc"), st.sampled_from(["", " ", "\t"]))
def test_order_blanks_and_comments_of_toml_never_count_and_a_value_does(
    one: dict[str, object], other: dict[str, object], names: list[str], blank: str
) -> None:
    assert key({"a.toml": toml(one, names, blank, "# why")}) == key({"a.toml": toml(one, list("abc"), "", "")})
    same = [(name, type(value) is bool, value) for name, value in sorted(one.items())] == [
        (name, type(value) is bool, value) for name, value in sorted(other.items())
    ]
    assert (key({"a.toml": toml(one, names, blank, "")}) == key({"a.toml": toml(other, names, "", "#")})) == same


@LAW
@given(VALUES)
def test_the_layout_of_json_never_counts(value: object) -> None:
    one, other = json.dumps(value, indent=3, sort_keys=True), json.dumps(value, separators=(",", ":"))
    assert key({"a.json": one.encode()}) == key({"a.json": other.encode()})


@LAW
@given(st.binary(max_size=40), st.sampled_from(["a.py", "a.toml", "a.json", "a.bin"]))
def test_any_bytes_have_a_key(data: bytes, name: str) -> None:
    assert len(key({name: data})) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a.py": b"x = 1"}, {"b.py": b"x = 1"}),
        ({"a.py": b"x = 1"}, {"a.py": b"x = 1", "b.py": b""}),
        ({"a.py": b"x = 1"}, {"a.py": b"x = True"}),
        ({"a.py": b"x = '1'"}, {"a.py": b"x = 1"}),
        ({"a.py": b"x = ("}, {"a.py": b"x = (("}),
        ({"a.bin": b"1"}, {"a.bin": b"1 "}),
        ({"a.json": b"[1, 2]"}, {"a.json": b"[2, 1]"}),
        ({"a.json": b"true"}, {"a.json": b"1"}),
        ({"a.json": b'"1"'}, {"a.json": b"1"}),
        ({"a.toml": b"a = nan"}, {"a.toml": b"a = inf"}),
        ({"a.toml": b"a = 2026-01-01"}, {"a.toml": b"a = 2026-01-02"}),
        ({"a.py": b"def f():\n    'text'"}, {"a.py": b"def f():\n    return 'text'"}),
    ],
)
def test_what_differs_has_another_key(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert key(one) != key(other)


def test_a_whole_number_is_the_same_with_a_point() -> None:
    assert key({"a.toml": b"a = 1.0"}) == key({"a.toml": b"a = 1"})
    assert key({"a.json": b"[1e3, true]"}) == key({"a.json": b"[1000, true]"})


@pytest.mark.parametrize("name", ["a.py", "a.toml", "a.json"])
def test_what_cannot_be_read_counts_as_its_bytes(name: str) -> None:
    for data in (b"\xff(", b"a = [" + b"[" * 50_000):
        assert normalised(name, data) == data
