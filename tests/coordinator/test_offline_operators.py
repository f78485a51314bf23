"""Laws of the offline researcher's kinds of change, each alone."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.evolution.ideas import DevResult, Played, ResearchContext, Standing, Tried
from coordinator.evolution.lineage import Lineage
from coordinator.research import combine, crossover, local, merge, play, programs, racing, simplify
from coordinator.research.code import clash
from coordinator.research.offline import OfflineResearcher
from coordinator.research.persistence import lasting
from coordinator.research.scales import canonical, share_of
from policies.interface import Value
from policies.skills.program import PROGRAM, check, read_steps, write_steps
from policies.space import Idea, Parameter, PolicySpace
from policies.space_work import Move, PlayRules, Skill

NUMBERS = tuple(Parameter(name, 5.0, 1.0, 25.0, "log", f"the {name}", ("missed",)) for name in ("a", "b", "c"))
IDEAS = tuple(Idea(name, False, f"{name} helps.", ("missed",)) for name in ("good", "mate", "idle", "bad"))
SKILLS = (
    Skill("look", "start", "seen", "It looks.", ()),
    Skill("go", "seen", "above", "It goes.", ()),
    Skill("wait", "above", "above", "Waiting rests the arm.", ("missed",)),
    Skill("find", "above", "above", "A search finds the hole.", ("missed",)),
    Skill("press", "above", "done", "It presses.", ()),
    Skill("shove", "above", "done", "It shoves.", ("shallow",)),
)
RULES = PlayRules(
    "rows.json", "asks.json", 6, 10, "Rows say what a push does.", ("near",),
    (Move("turn", -3.0, 3.0, True), Move("far", 0.0, 1.0, False)),
)  # fmt: skip
SPACE = PolicySpace("box", "box", 1, "policy.py", NUMBERS, IDEAS, skills=SKILLS, play=RULES)
FILES = {PROGRAM: write_steps(("look", "go", "press"))}


def context(**changes: object) -> ResearchContext:
    blank = {"incumbent": SPACE.defaults(), "tried": (), "known": frozenset(), "failures": {}, "standings": ()}
    return ResearchContext(**{**blank, **changes})  # type: ignore[arg-type]


def results(wins: str, cause: str = "missed") -> tuple[DevResult, ...]:
    """Return results from starts 0, 1, ...: + for a success, . for a failure, a space for none."""
    return tuple(
        DevResult(str(k), mark == "+", float(mark == "+"), "" if mark == "+" else cause, 10.0)
        for k, mark in enumerate(wins)
        if mark != " "
    )


def tried(number: int, kind: str, changes: Mapping[str, Value], lead: float, wins: str = "........") -> Tried:
    return Tried(number, 1, kind, changes, (), "", "reject", "screen", lead, 0.0, 2.0, results(wins))


# -- programs ---------------------------------------------------------------------------------------------------------


def test_every_edit_of_a_program_is_valid_and_one_step_away() -> None:
    edits = programs.edits(SPACE, context(files=FILES))
    now = read_steps(FILES[PROGRAM])
    assert edits
    for option in edits:
        steps = read_steps(option.files[PROGRAM])
        check(steps, SKILLS)
        assert programs.gained(now, steps).total() <= 1
        assert programs.gained(steps, now).total() <= 1
        assert option.says
    assert {tuple(programs.gained(now, read_steps(item.files[PROGRAM]))) for item in edits} >= {("find",), ("shove",)}


def test_an_edit_that_was_tried_deserves_less_and_one_that_helps_more() -> None:
    shown = context(files=FILES, failures={"missed": 8})

    def weight(name: str, shown: ResearchContext) -> float:
        now = read_steps(FILES[PROGRAM])
        return sum(
            item.weight
            for item in programs.edits(SPACE, shown)
            if programs.gained(now, read_steps(item.files[PROGRAM]))[name]
        )

    done = Standing({}, -1.0, 7, {PROGRAM: write_steps(("look", "go", "find", "press"))}, results("...."))
    assert weight("find", shown) > weight("shove", shown)
    assert weight("find", replace(shown, standings=(done,))) < weight("find", shown)


def test_two_insertions_join_into_one_valid_program_and_a_replacement_does_not() -> None:
    base = ("look", "go", "press")
    both = programs.joined(base, ("look", "go", "wait", "press"), ("look", "go", "find", "press"), SKILLS)
    assert both == ("look", "go", "wait", "find", "press")
    assert programs.joined(base, ("look", "go", "shove"), ("look", "go", "find", "press"), SKILLS) is None


def test_merged_candidates_keep_the_steps_of_both() -> None:
    standings = (
        Standing({}, 2.0, 7, {PROGRAM: write_steps(("look", "go", "find", "press"))}),
        Standing({"good": True}, 2.5, 8, {PROGRAM: write_steps(("look", "go", "wait", "press"))}),
    )
    (option,) = merge.merges(SPACE, context(files=FILES, standings=standings), clash)
    assert set(read_steps(option.files[PROGRAM])) == {"look", "go", "find", "wait", "press"}
    assert option.changes == {"good": True}


CODE = b"a = 1\n\n\ndef run() -> None:\n    pass\n\n\nz = 1\n"
TOP, END, TOP_TOO = CODE.replace(b"a = 1", b"a = 2"), CODE.replace(b"z = 1", b"z = 2"), CODE.replace(b"a = 1", b"a = 3")
BOTH = TOP.replace(b"z = 1", b"z = 2")


def coded(*codes: bytes) -> tuple[Standing, ...]:
    """Return candidates that change a file of code, each to one of `codes` and stronger than those before it."""
    wins = ("++++....", "....++++", "..++++..")
    return tuple(
        Standing({}, 2.0 + 0.1 * place, 7 + place, {"policy.py": code}, results(wins[place]))
        for place, code in enumerate(codes)
    )


def test_code_that_two_changed_in_different_places_is_merged_and_crossed_line_by_line(tmp_path: Path) -> None:
    merge_lines = Lineage(tmp_path).merge_lines
    shown = context(files={**FILES, "policy.py": CODE}, standings=coded(TOP, END), dev=results("........"))
    options = [*merge.merges(SPACE, shown, merge_lines), *crossover.crossings(shown, merge_lines)]
    assert [(item.kind, item.parents, item.files) for item in options] == [
        (kind, (7, 8), {"policy.py": BOTH}) for kind in ("merge", "crossover")
    ]


def test_of_clashing_code_the_stronger_s_is_merged_and_nothing_is_crossed(tmp_path: Path) -> None:
    merge_lines = Lineage(tmp_path).merge_lines
    files = {**FILES, "policy.py": CODE}
    shown = context(files=files, standings=coded(TOP, TOP_TOO), dev=results("........"))
    assert not merge.merges(SPACE, shown, merge_lines)
    assert not crossover.crossings(shown, merge_lines)
    (option,) = merge.merges(SPACE, replace(shown, standings=coded(TOP, TOP_TOO, END)), merge_lines)
    assert option.parents == (8, 9)
    assert option.files == {"policy.py": TOP_TOO.replace(b"z = 1", b"z = 2")}


# -- several at once --------------------------------------------------------------------------------------------------


def groups(shown: ResearchContext, count: int = 200) -> list[set[str]]:
    options = combine.combinations(SPACE, shown, np.random.default_rng(1), count)
    now = read_steps(FILES[PROGRAM])
    steps = [read_steps(item.files[PROGRAM]) if item.files else now for item in options]
    return [{*item.changes, *programs.gained(now, after)} for item, after in zip(options, steps, strict=True)]


def test_groups_hold_two_pieces_or_more_and_steps_of_programs_too() -> None:
    made = groups(context(files=FILES, failures={"missed": 8}))
    assert all(len(group) >= 2 for group in made)
    assert any("find" in group and group & {"good", "mate"} for group in made)


def test_what_led_in_company_comes_again_and_what_spoiled_its_groups_stays_out() -> None:
    tests = [
        tried(2, "switch", {"good": True}, 0.0),
        tried(3, "switch", {"mate": True}, 0.0),
        tried(4, "combine", {"good": True, "mate": True}, 4.0, "++++++.."),
        tried(5, "combine", {"good": True, "mate": True, "bad": True}, -3.0, "........"),
        tried(6, "combine", {"idle": True, "bad": True}, -3.0, "........"),
    ]
    made = groups(context(tried=tuple(tests), failures={"missed": 8}))
    share = {name: np.mean([name in group for group in made]) for name in ("good", "mate", "bad")}
    assert min(share["good"], share["mate"]) > 3 * share["bad"]


# -- points and the local search --------------------------------------------------------------------------------------


def test_points_are_new_each_time_and_the_best_third_races_on() -> None:
    done: list[Tried] = []
    for number in range(12):
        (option,) = racing.races(SPACE, context(tried=tuple(done)), 3)
        again = canonical(option.changes) in {canonical(item.changes) for item in done}
        if again:
            assert option.changes == done[1].changes
            break
        done.append(tried(10 + number, "sobol", option.changes, 0.0, "++......" if number == 1 else "........"))
    assert again, "no point went on"


def test_a_point_whose_second_test_runs_is_not_promoted_again() -> None:
    first = [tried(10 + k, "sobol", {"a": 2.0 + k}, 0.0, "++......" if k == 1 else "........") for k in range(3)]
    assert racing.promoted(context(tried=tuple(first))) == {"a": 3.0}
    running = Standing({"a": 3.0}, 0.0, 99)
    assert racing.promoted(context(tried=tuple(first), standings=(running,))) is None


def test_points_fill_the_space_on_every_parameter() -> None:
    stream = racing.points(SPACE, context(), 3)
    shares: dict[str, list[float]] = {item.name: [] for item in NUMBERS}
    for _ in range(96):
        for name, value in next(stream).items():
            shares[name].append(share_of(NUMBERS[0], float(value)))
    for values in shares.values():
        assert len(values) > 20
        assert min(values) < 0.1 < 0.9 < max(values)
        assert np.mean(values) == pytest.approx(0.5, abs=0.1)


def test_the_local_search_finds_its_way_by_what_it_is_told() -> None:
    """It is rebuilt from the context each time, so this is also a test of the replay."""
    best = np.array([0.75, 0.25, 0.6])

    def share(changes: Mapping[str, Value]) -> np.ndarray:
        params = {**SPACE.defaults(), **changes}
        return np.array([share_of(item, float(params[item.name])) for item in NUMBERS])

    done: list[Tried] = []
    for number in range(160):
        (option,) = local.climbs(SPACE, context(tried=tuple(done), dev=results("....")), 5)
        near = 1.0 - float(np.linalg.norm(share(option.changes) - best))
        dev = tuple(replace(item, progress=max(0.0, near)) for item in results("...."))
        done.append(replace(tried(10 + number, "cma", option.changes, 0.0), dev=dev))
    last = np.mean([share(item.changes) for item in done[-16:]], axis=0)
    assert np.linalg.norm(last - best) < np.linalg.norm(share({}) - best) / 2


def test_the_local_search_waits_for_its_generation() -> None:
    standings: list[Standing] = []
    while options := local.climbs(SPACE, context(standings=tuple(standings)), 5):
        standings.append(Standing(options[0].changes, 0.0, 50 + len(standings)))
    assert len(standings) == local.POPULATION


# -- crossover and simplification -------------------------------------------------------------------------------------


def test_winners_from_different_starts_are_crossed_and_both_are_parents() -> None:
    standings = (
        Standing({"good": True}, 1.0, 5, {}, results("++++....")),
        Standing({"mate": True, "a": 2.0}, 1.1, 6, {}, results("....++++")),
        Standing({"idle": True}, 1.2, 7, {}, results("++......")),
    )
    best = crossover.crossings(context(standings=standings, dev=results("........")), clash)[0]
    assert best.changes == {"good": True, "mate": True, "a": 2.0}
    assert best.parents == (5, 6)


def test_nothing_is_crossed_where_one_wins_wherever_the_other_does() -> None:
    standings = (
        Standing({"good": True}, 1.0, 5, {}, results("++++....")),
        Standing({"mate": True}, 1.1, 6, {}, results("++......")),
    )
    assert not crossover.crossings(context(standings=standings, dev=results("........")), clash)


def test_pieces_are_taken_out_only_of_what_succeeds_often_and_need_not_gain() -> None:
    changed = {**SPACE.defaults(), "good": True, "a": 9.0}
    files = {PROGRAM: write_steps(("look", "go", "wait", "press"))}
    poor = context(incumbent=changed, dev=results("+++.....+++."), files=files)
    assert not simplify.simplifications(SPACE, SPACE, poor)
    options = simplify.simplifications(SPACE, SPACE, replace(poor, dev=results("+" * 12)))
    assert all(item.not_worse for item in options)
    assert [item.changes for item in options if item.changes] == [{"a": 5.0}, {"good": False}]
    assert [read_steps(item.files[PROGRAM]) for item in options if item.files] == [("look", "go", "press")]


# -- play -------------------------------------------------------------------------------------------------------------


def notes(moves: list[dict[str, float]]) -> Played:
    return Played("\n".join(json.dumps({"move": move, "outcome": [1.0, 0.0]}) for move in moves), "success")


def played(researcher: OfflineResearcher, plays: int) -> list[Played]:
    done: list[Played] = []
    for _ in range(plays):
        asked = researcher.play(context(played=tuple(done)))
        assert asked is not None
        done.append(notes(json.loads(asked.files["asks.json"])))
    return done


def test_moves_lie_in_their_ranges_and_cover_them_better_than_chance() -> None:
    places = np.array(
        [
            [(move["turn"] + 3.0) / 6.0, move["far"]]
            for item in played(OfflineResearcher(SPACE, 1), 5)
            for move in (json.loads(line)["move"] for line in item.notes.splitlines())
        ]
    )
    assert len(places) == 30
    assert places.min() >= 0.0
    assert places.max() <= 1.0

    def hole(done: np.ndarray) -> float:
        grid = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 21)] * 2), axis=-1).reshape(-1, 2)
        apart = np.abs(grid[:, None] - done[None])
        apart[..., 0] = np.minimum(apart[..., 0], 1.0 - apart[..., 0])  # the turn wraps
        return float(np.linalg.norm(apart, axis=2).min(axis=1).max())

    chance = [hole(np.random.default_rng(k).random((30, 2))) for k in range(20)]
    assert hole(places) < min(chance)


def test_a_move_at_one_end_of_a_range_that_wraps_is_done_at_the_other() -> None:
    drawn, done = np.array([[0.99, 0.5], [0.5, 0.5]]), [np.array([0.01, 0.5])]
    near, far = play._distance(RULES, drawn, done)
    assert near == pytest.approx(0.02)
    assert far == pytest.approx(0.49)


def test_rows_that_are_enough_are_proposed_and_again_at_twice_as_many() -> None:
    researcher = OfflineResearcher(SPACE, 2)
    done = played(researcher, 7)
    assert not play.learned(SPACE, context(played=tuple(done[:1])))
    (first,) = play.learned(SPACE, context(played=tuple(done[:2])))
    assert len(json.loads(first.files["rows.json"])) == 12
    once = replace(tried(5, "play", {}, 0.0), files=("rows.json",))
    assert not play.learned(SPACE, context(played=tuple(done[:3]), tried=(once,)))
    (second,) = play.learned(SPACE, context(played=tuple(done[:4]), tried=(once,)))
    assert len(json.loads(second.files["rows.json"])) == 24
    assert researcher.play(context(played=tuple(done))) is None, "there is nothing left to learn"


def test_a_policy_that_notes_nothing_is_not_played_with_for_ever() -> None:
    researcher = OfflineResearcher(SPACE, 2)
    most = play.MOST_TIMES * RULES.enough
    assert researcher.play(context(proposals=most - 1)) is not None
    assert researcher.play(context(proposals=most)) is None


@pytest.mark.parametrize(
    "text",
    ["", "no row", "[]", '{"move": 3, "outcome": []}', '{"move": {"turn": 1}, "outcome": [1]}',
     '{"move": {"turn": NaN, "far": 0}, "outcome": [1]}', '{"move": {"turn": 1, "far": true}, "outcome": [1]}',
     '{"move": {"turn": 1, "far": 0}, "outcome": ["x"]}', "[" * 100_000],
)  # fmt: skip
def test_notes_that_are_no_rows_are_passed_over(text: str) -> None:
    assert play.rows(RULES, (Played(text, "success"),)) == []
    good = notes([{"turn": 1.0, "far": 0.5}]).notes
    assert len(play.rows(RULES, (Played(f"{text}\n{good}", "failure"),))) == 1


def test_a_policy_that_does_not_play_is_not_asked_to() -> None:
    assert OfflineResearcher(replace(SPACE, play=None), 1).play(context()) is None


def test_failures_that_are_new_count_twice_when_a_cure_is_chosen() -> None:
    before = replace(tried(1, "switch", {}, 0.0, "+" * 18 + ".."), verdict="accept", parent_id=0)
    shown = context(tried=(before,), dev=(*results("+" * 8 + "...."), *results("." * 8, "forced")))
    shown = replace(shown, failures={"missed": 4, "forced": 8, "late": 1})
    assert lasting(shown) == {"missed": 4.0, "forced": 16.0, "late": 1.0}
    assert lasting(replace(shown, tried=())) == {"missed": 4.0, "forced": 8.0, "late": 1.0}
