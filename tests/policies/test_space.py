"""A policy.toml is read whole or refused with one line; a value is allowed up to its limit and on it, never beyond."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import space
from policies.envelope import Envelope
from policies.interface import Value
from policies.space import Idea, Parameter, PolicySpace, Resources, SpaceError, Weight, load_space, parse_space

PUSH_T = Path(space.__file__).parent / "push_t"
GOOD = """
name = "slide"
task = "push_t"
api = 1
entry = "policy.py"

[parameters.speed_m_s]
default = 0.1
low = 0.05
high = 0.4
scale = "log"
about = "how fast"
helps = ["near", "far"]

[parameters.offset_m]
default = 0
low = -1
high = 1
scale = "linear"
about = "how far beside"
helps = []

[parameters.tries]
default = 5
low = 1
high = 9
scale = "integer"
about = "how often"
helps = []

[ideas.ease]
default = true
claim = "Easing helps."
helps = ["near"]
"""
SPACE = parse_space(GOOD.encode())


def with_line(old: str, new: str) -> bytes:
    """Return the good file with the first `old` replaced."""
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


def refusal(data: bytes) -> str:
    with pytest.raises(SpaceError) as caught:
        parse_space(data, "here.toml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_every_line_of_the_file_is_in_the_space() -> None:
    wanted = PolicySpace(
        "slide",
        "push_t",
        1,
        "policy.py",
        (
            Parameter("speed_m_s", 0.1, 0.05, 0.4, "log", "how fast", ("near", "far")),
            Parameter("offset_m", 0.0, -1.0, 1.0, "linear", "how far beside", ()),
            Parameter("tries", 5.0, 1.0, 9.0, "integer", "how often", ()),
        ),
        (Idea("ease", True, "Easing helps.", ("near",)),),
    )
    assert wanted == SPACE
    assert [item.name for item in SPACE.items] == ["speed_m_s", "offset_m", "tries", "ease"]


@pytest.mark.parametrize("field", ["name", "default", "entry"])
def test_a_space_cannot_be_changed(field: str) -> None:
    for item in (SPACE, *SPACE.items):
        if hasattr(item, field):
            with pytest.raises(FrozenInstanceError):
                setattr(item, field, "other")


def test_a_policy_may_have_nothing_to_vary() -> None:
    bare = parse_space(GOOD[: GOOD.index("[")].encode())
    assert (bare.parameters, bare.ideas, bare.complete({})) == ((), (), {})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"name = ", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"[parameters.a]\n[parameters.a]", "not TOML"),
        (b"", "name is missing"),
        (with_line('name = "slide"', ""), "name is missing"),
        (with_line('task = "push_t"', ""), "task is missing"),
        (with_line("api = 1", ""), "api is missing"),
        (with_line('entry = "policy.py"', ""), "entry is missing"),
        (with_line("api = 1", "api = 1\nnote = 1"), "note is not known here; known are name, task, api, entry, "),
        (with_line("api = 1", 'api = "1"'), "api is '1', which is not a int"),
        (with_line("api = 1", "api = 1.0"), "api is 1.0, which is not a int"),
        (with_line("api = 1", "api = true"), "api is True, which is not a int"),
        (with_line("api = 1", "api = 0"), "api is 0; this version speaks 1"),
        (with_line("api = 1", "api = 2"), "api is 2; this version speaks 1"),
        (with_line('name = "slide"', "name = 1"), "name is 1, which is not a str"),
        (with_line('name = "slide"', 'name = ""'), "'' is not a name of at most 61 of a-z, 0-9 and _"),
        (with_line('name = "slide"', 'name = "2slide"'), "'2slide' is not a name"),
        (with_line('name = "slide"', 'name = "Slide"'), "'Slide' is not a name"),
        (with_line('name = "slide"', f'name = "{"s" * 62}"'), "is not a name of at most 61"),
        (with_line('task = "push_t"', 'task = "../push_t"'), "'../push_t' is not a name"),
        (with_line('task = "push_t"', 'task = "push_t\\n"'), "'push_t\\n' is not a name"),
        (with_line("[parameters.tries]", '[parameters."how often"]'), "'how often' is not a name"),
        (with_line("[ideas.ease]", '[ideas."a\\nb"]'), "'a\\nb' is not a name"),
        (b"a = " + b"[" * 9000, "not TOML: "),
        (with_line("api = 1", "api" + ".a" * 4000 + " = 1"), "not TOML: "),
        (b"a = " + b"1" * 5000, "not TOML: "),
        (with_line("low = 0.05", "low = 1" + "0" * 400), "holds a number that is too large"),
        (with_line("api = 1", "api = 1\n" + "n" * 1000 + " = 1"), "nnn..."),
        (with_line("[parameters.speed_m_s]", "[parameter.speed_m_s]"), "parameter is not known here"),
        (with_line("[ideas.ease]", "[[ideas]]"), "ideas is [{"),
        (with_line("api = 1", "api = 1\nparameters.a = 1"), "parameters.a is not a table"),
        (with_line("api = 1", "api = 1\nideas.a = true"), "ideas.a is not a table"),
        (with_line("default = 0.1", ""), "parameters.speed_m_s.default is missing"),
        (with_line("low = 0.05", ""), "parameters.speed_m_s.low is missing"),
        (with_line("high = 0.4", ""), "parameters.speed_m_s.high is missing"),
        (with_line('scale = "log"', ""), "parameters.speed_m_s.scale is missing"),
        (with_line('about = "how fast"', ""), "parameters.speed_m_s.about is missing"),
        (with_line('helps = ["near", "far"]', ""), "parameters.speed_m_s.helps is missing"),
        (with_line("low = 0.05", "low = 0.05\nlowest = 0"), "parameters.speed_m_s.lowest is not known here"),
        (with_line("low = 0.05", 'low = "0.05"'), "parameters.speed_m_s.low is '0.05', which is not a float"),
        (with_line("low = 0.05", "low = false"), "parameters.speed_m_s.low is False, which is not a float"),
        (with_line("default = 0.1", "default = true"), "parameters.speed_m_s.default is True, which is not a float"),
        (with_line('scale = "log"', 'scale = "cubic"'), "scale is 'cubic', not one of linear, log, integer"),
        (with_line('scale = "log"', "scale = 1"), "parameters.speed_m_s.scale is 1, which is not a str"),
        (with_line('helps = ["near", "far"]', 'helps = "near"'), "helps is 'near', which is not a list"),
        (with_line('helps = ["near", "far"]', 'helps = ["near", 1]'), "helps holds something that is not a string"),
        (with_line("low = 0.05", "low = 0.4"), "speed_m_s runs from 0.4 to 0.4; low must be below high"),
        (with_line("low = 0.05", "low = 0.5"), "speed_m_s runs from 0.5 to 0.4; low must be below high"),
        (with_line("low = 0.05", "low = nan"), "speed_m_s runs from nan to 0.4"),
        (with_line("high = 0.4", "high = nan"), "speed_m_s runs from 0.05 to nan"),
        (with_line("high = 0.4", "high = inf"), "speed_m_s runs from 0.05 to inf"),
        (with_line("low = -1", "low = -inf"), "offset_m runs from -inf to 1.0"),
        (with_line("low = 0.05", "low = 0"), "on a log scale and starts at 0.0; low must be above 0"),
        (with_line("low = 0.05", "low = -0.05"), "on a log scale and starts at -0.05; low must be above 0"),
        (with_line("low = 1\n", "low = 1.5\n"), "on an integer scale and runs from 1.5 to 9.0; both must be whole"),
        (with_line("high = 9", "high = 9.5"), "on an integer scale and runs from 1.0 to 9.5; both must be whole"),
        (with_line("default = 0.1", "default = 0.41"), "parameter speed_m_s is 0.41; allowed is 0.05 to 0.4"),
        (with_line("default = 0.1", "default = 0.04"), "parameter speed_m_s is 0.04; allowed is 0.05 to 0.4"),
        (with_line("default = 0.1", "default = nan"), "parameter speed_m_s is nan; allowed is 0.05 to 0.4"),
        (with_line("default = 5", "default = 5.5"), "parameter tries is 5.5; it must be a whole number"),
        (with_line("default = true", "default = 1"), "ideas.ease.default is 1, which is not a bool"),
        (with_line("default = true", ""), "ideas.ease.default is missing"),
        (with_line('claim = "Easing helps."', ""), "ideas.ease.claim is missing"),
        (with_line('claim = "Easing helps."', "claim = []"), "ideas.ease.claim is [], which is not a str"),
        (with_line("default = true", "default = true\nlow = 0"), "ideas.ease.low is not known here"),
        (with_line('helps = ["near"]', "helps = [[]]"), "ideas.ease.helps holds something that is not a string"),
        (with_line("[ideas.ease]", "[ideas.tries]"), "tries is both a parameter and an idea; rename one"),
    ],
)
def test_a_file_that_is_not_quite_a_policy_is_refused(data: bytes, text: str) -> None:
    message = refusal(data)
    assert message.startswith("here.toml: ")
    assert text in message


def test_a_folder_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path)
    assert str(caught.value) == f"cannot read {tmp_path / 'policy.toml'}: No such file or directory"


def test_an_error_in_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / space.FILE).write_bytes(with_line("api = 1", ""))
    with pytest.raises(SpaceError) as caught:
        load_space(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'policy.toml'}: api is missing"


# What a policy binds itself to.


def bound(more: str) -> PolicySpace:
    return parse_space(f"{GOOD}\n{more}".encode())


def test_what_is_not_said_is_what_the_edge_gives() -> None:
    assert (SPACE.envelope, SPACE.resources, SPACE.weights) == (Envelope(), Resources(512, 300.0), {})
    assert bound("[envelope]\n[resources]\n[weights]") == SPACE


def test_an_envelope_is_read() -> None:
    assert bound("[envelope]\ntrial_s = 20\nbox_lower_m = [0, -1, 0]").envelope == Envelope(
        box_lower_m=(0.0, -1.0, 0.0), trial_s=20.0
    )


@pytest.mark.parametrize(
    ("line", "resources"),
    [
        ("memory_mb = 512", Resources(512, 300.0)),
        ("memory_mb = 1", Resources(1, 300.0)),
        ("longest_s = 300", Resources(512, 300.0)),
        ("longest_s = 1e-3", Resources(512, 0.001)),
        ("memory_mb = 64\nlongest_s = 9.5", Resources(64, 9.5)),
    ],
)
def test_resources_are_allowed_up_to_what_the_edge_gives(line: str, resources: Resources) -> None:
    found = bound(f"[resources]\n{line}").resources
    assert found == resources
    assert (type(found.memory_mb), type(found.longest_s)) == (int, float)


def test_weights_are_allowed_up_to_their_number_and_size() -> None:
    lines = [f'"w{k}.onnx" = ["{k:064x}", {1 if k else 8 << 30}]' for k in range(16)]
    lines[1] = lines[1].replace(".onnx", ".safetensors")
    found = bound("[weights]\n" + "\n".join(lines)).weights
    assert len(found) == 16
    assert found["w0.onnx"] == Weight("0" * 64, 8 << 30)
    assert found["w1.safetensors"] == Weight(f"{1:064x}", 1)
    assert refusal(f"{GOOD}\n[weights]\n".encode() + "\n".join([*lines, '"x.onnx" = []']).encode()).endswith(
        "17 files of weights; at most 16 are allowed"
    )


HASH = "0123456789abcdef" * 4
NOT_A_WEIGHT = "weights.a.onnx is not [sha256, bytes] with at most 8589934592 bytes"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("envelope = 1", "envelope is 1, which is not a dict"),
        ("[envelope]\nspeed = 1", "envelope.speed is not known here"),
        ("[envelope]\ntrial_s = nan", "envelope.trial_s holds nan; allowed is more than 0 to 3600"),
        ("resources = 1", "resources is 1, which is not a dict"),
        ("[resources]\ncpus = 1", "resources.cpus is not known here; known are memory_mb, longest_s"),
        ("[resources]\nmemory_mb = 513", "resources.memory_mb is 513; allowed is 1 to 512"),
        ("[resources]\nmemory_mb = 0", "resources.memory_mb is 0; allowed is 1 to 512"),
        ("[resources]\nmemory_mb = -1", "resources.memory_mb is -1; allowed is 1 to 512"),
        ("[resources]\nmemory_mb = 64.0", "resources.memory_mb is 64.0, which is not a int"),
        ("[resources]\nmemory_mb = true", "resources.memory_mb is True, which is not a int"),
        ("[resources]\nlongest_s = 300.1", "resources.longest_s is 300.1; allowed is up to 300"),
        ("[resources]\nlongest_s = 0", "resources.longest_s is 0; allowed is up to 300"),
        ("[resources]\nlongest_s = -1", "resources.longest_s is -1; allowed is up to 300"),
        ("[resources]\nlongest_s = nan", "resources.longest_s is nan; allowed is up to 300"),
        ("[resources]\nlongest_s = inf", "resources.longest_s is inf; allowed is up to 300"),
        ("[resources]\nlongest_s = '9'", "resources.longest_s is '9', which is not a float"),
        ("weights = 1", "weights is 1, which is not a dict"),
        (
            f'[weights]\n"a.pt" = ["{HASH}", 1]',
            "weights named 'a.pt'; names are lower case words that end in .safetens",
        ),
        (f'[weights]\n"a/b.onnx" = ["{HASH}", 1]', "weights named 'a/b.onnx'"),
        (f'[weights]\n"A.onnx" = ["{HASH}", 1]', "weights named 'A.onnx'"),
        (f'[weights]\n"a.onnx\\n" = ["{HASH}", 1]', "weights named 'a.onnx\\n'"),
        (f'[weights]\n"a.onnx" = ["{HASH}"]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH}", 1, 1]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = [1, "{HASH}"]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH}", 0]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH}", 1.0]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH}", true]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH}", {(8 << 30) + 1}]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH[1:]}", 1]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = ["{HASH.upper()}", 1]', NOT_A_WEIGHT),
        (f'[weights]\n"a.onnx" = "{HASH}"', NOT_A_WEIGHT),
    ],
)
def test_a_policy_cannot_ask_for_what_the_edge_does_not_give(more: str, text: str) -> None:
    data = f"{GOOD}\n{more}".encode() if more.startswith("[") else with_line("api = 1", f"api = 1\n{more}")
    assert refusal(data).startswith(f"here.toml: {text}")


# Values.

SPEED, OFFSET, TRIES = SPACE.parameters


@pytest.mark.parametrize("item", SPACE.parameters, ids=lambda item: str(item.name))
def test_a_number_is_allowed_up_to_and_on_its_limits_and_refused_beyond(item: Parameter) -> None:
    for limit, outwards in ((item.low, -math.inf), (item.high, math.inf)):
        SPACE.validate({item.name: limit})
        inside = limit - math.copysign(1.0, outwards) if item.scale == "integer" else math.nextafter(limit, -outwards)
        SPACE.validate({item.name: inside})
        for beyond in (math.nextafter(limit, outwards), limit + math.copysign(1.0, outwards), outwards):
            with pytest.raises(SpaceError, match=rf"^parameter {item.name} is \S+; allowed is"):
                SPACE.validate({item.name: beyond})


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"speed_m_s": math.nan}, "parameter speed_m_s is nan; allowed is 0.05 to 0.4"),
        ({"offset_m": True}, "parameter offset_m is True, which is not a number"),
        ({"offset_m": "0"}, "parameter offset_m is '0', which is not a number"),
        ({"offset_m": None}, "parameter offset_m is None, which is not a number"),
        ({"tries": 5.5}, "parameter tries is 5.5; it must be a whole number"),
        ({"ease": 1}, "idea ease is 1; it can be true or false"),
        ({"ease": 1.0}, "idea ease is 1.0; it can be true or false"),
        ({"ease": None}, "idea ease is None; it can be true or false"),
        ({"haste": 1.0}, "slide has no parameter or idea 'haste'; it has ease, offset_m, speed_m_s, tries"),
        ({"speed_m_s": 0.1, "Ease": True}, "slide has no parameter or idea 'Ease'"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(params: dict[str, Value], text: str) -> None:
    for check in (SPACE.validate, SPACE.complete):
        with pytest.raises(SpaceError) as caught:
            check(params)
        assert text in str(caught.value)


ALLOWED = st.fixed_dictionaries(
    {},
    optional={
        "speed_m_s": st.floats(0.05, 0.4),
        "offset_m": st.floats(-1, 1) | st.integers(-1, 1),
        "tries": st.integers(1, 9),
        "ease": st.booleans(),
    },
)


@settings(deadline=None)
@given(ALLOWED)
def test_completing_keeps_what_was_given_and_fills_in_the_rest(params: dict[str, Value]) -> None:
    whole = SPACE.complete(params)
    assert whole == SPACE.defaults() | params
    assert list(whole) == [item.name for item in SPACE.items]
    assert [type(value) for value in whole.values()] == [float, float, float, bool]
    assert SPACE.complete(whole) == whole


# What ships.


def test_the_shipped_policy_loads_and_its_defaults_are_allowed() -> None:
    shipped = load_space(PUSH_T)
    assert (shipped.name, shipped.task) == ("push_t", "push_t")
    assert (PUSH_T / shipped.entry).is_file()
    assert shipped.parameters
    assert shipped.ideas
    shipped.validate(shipped.defaults())


def test_the_shipped_policy_ships_naive() -> None:
    assert not any(idea.default for idea in load_space(PUSH_T).ideas)


def test_the_shipped_policy_asks_for_no_name_that_is_not_in_its_file() -> None:
    source = (PUSH_T / load_space(PUSH_T).entry).read_text()
    asked = {piece.split('"')[0] for piece in source.split('params["')[1:]}
    assert asked == set(load_space(PUSH_T).defaults())
