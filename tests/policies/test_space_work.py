"""Skills and play are read whole or refused with one line."""

from __future__ import annotations

import pytest

from policies.space import Move, PlayRules, PolicySpace, Skill, SpaceError, parse_space

GOOD = """
name = "slide"
task = "push_t"
api = 1
entry = "policy.py"

[skills.look]
needs = "start"
gives = "seen"
claim = "One picture shows it."
helps = ["missed"]

[skills.push]
needs = "seen"
gives = "done"
claim = "Pushing moves it."
helps = []

[play]
file = "pushes.json"
asks = "play.json"
per_attempt = 8
enough = 40
claim = "Pushes that were seen tell of pushes to come."
helps = ["off_goal"]

[play.moves.place]
low = 0
high = 1
wraps = true

[play.moves.angle_rad]
low = -0.9
high = 0.9
"""


def read(old: str = "", new: str = "") -> PolicySpace:
    assert old in GOOD
    return parse_space(GOOD.replace(old, new, 1).encode(), "here.toml")


def test_skills_and_play_are_read_in_the_order_of_the_file() -> None:
    space = read()
    assert space.skills == (
        Skill("look", "start", "seen", "One picture shows it.", ("missed",)),
        Skill("push", "seen", "done", "Pushing moves it.", ()),
    )
    assert space.play == PlayRules(
        "pushes.json",
        "play.json",
        8,
        40,
        "Pushes that were seen tell of pushes to come.",
        ("off_goal",),
        (Move("place", 0.0, 1.0, True), Move("angle_rad", -0.9, 0.9, False)),
    )


def test_a_policy_may_have_neither() -> None:
    bare = parse_space(GOOD[: GOOD.index("[")].encode())
    assert (bare.skills, bare.play) == ((), None)


def test_as_many_skills_and_moves_as_are_allowed_are_read_and_not_one_more() -> None:
    skill = '\n[skills.s{}]\nneeds = "a"\ngives = "b"\nclaim = "c"\nhelps = []\n'
    move = "\n[play.moves.m{}]\nlow = 0\nhigh = 1\n"
    more = "".join([*(skill.format(k) for k in range(62)), *(move.format(k) for k in range(14))])
    space = parse_space(f"{GOOD}{more}".encode())
    assert space.play is not None
    assert (len(space.skills), len(space.play.moves)) == (64, 16)
    for beyond, text in (("".join([more, skill.format(62)]), "65 skills"), (f"{more}{move.format(14)}", "17 numbers")):
        with pytest.raises(SpaceError, match=text):
            parse_space(f"{GOOD}{beyond}".encode())


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("[skills.look]", "[skills.Look]", "'Look' is not a name of at most 61"),
        ('needs = "start"', 'needs = "at start"', "'at start' is not a name"),
        ('gives = "seen"', 'gives = ""', "'' is not a name"),
        ('gives = "seen"', "", "skills.look.gives is missing"),
        ('gives = "seen"', 'gives = "seen"\nlow = 0', "skills.look.low is not known here"),
        ("helps = []", "helps = [1]", "skills.push.helps holds something that is not a string"),
        ("[skills.push]", "[[skills.push]]", "skills.push is not a table"),
        ('"pushes.json"', '"../pushes.json"', "play.file is '../pushes.json'; wanted is a lower case word"),
        ('"pushes.json"', '"pushes.py"', "play.file is 'pushes.py'"),
        ('"pushes.json"', '"pushes.json\\n"', "play.file is 'pushes.json\\n'"),
        ('"play.json"', '"manifest.json"', "play.asks is 'manifest.json'"),
        ('"play.json"', '"pushes.json"', "play.file and play.asks are both pushes.json; they must differ"),
        ("per_attempt = 8", "per_attempt = 0", "play.per_attempt is 0; allowed is 1 to 10000"),
        ("enough = 40", "enough = 10001", "play.enough is 10001; allowed is 1 to 10000"),
        ("enough = 40", "enough = 40.0", "play.enough is 40.0, which is not a int"),
        ("enough = 40", "enough = 40\nmore = 1", "play.more is not known here"),
        ("high = 0.9", "high = -0.9", "play.moves.angle_rad runs from -0.9 to -0.9"),
        ("high = 0.9", "high = nan", "play.moves.angle_rad runs from -0.9 to nan"),
        ("high = 0.9", "high = 0.9\nstep = 1", "play.moves.angle_rad.step is not known here"),
        ("wraps = true", "wraps = 1", "play.moves.place.wraps is 1, which is not a bool"),
        ("[play.moves.place]", '[play.moves."a b"]', "'a b' is not a name"),
    ],
)
def test_what_is_not_quite_one_is_refused(old: str, new: str, text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        read(old, new)
    assert str(caught.value).startswith(f"here.toml: {text}")


def test_a_play_without_moves_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"play\.moves holds 0 numbers; allowed is 1 to 16"):
        parse_space(f"{GOOD[: GOOD.index('[play.moves.place]')]}moves = {{}}\n".encode())
