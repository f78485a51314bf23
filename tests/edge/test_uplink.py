"""The uplink carries trials up, over a real loopback to an emulated coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from edge.records import Trial, decode, encode
from edge.uplink.courier import Courier
from edge.uplink.network import Coordinator, NoAnswer, Refused
from edge.wire import key_of
from tests.harness.lab_folder import LabFolder
from tests.harness.uplink_world import (
    EDGE,
    LONG_S,
    NOTHING_KNOWN,
    NOW_S,
    Desk,
    Here,
    carrying,
    leases,
    open_question,
    refuse,
    say,
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> LabFolder:
    return LabFolder(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def here(line: tuple[Desk, Coordinator], lab: LabFolder, tmp_path: Path) -> Iterator[Here]:
    with carrying(line, lab, tmp_path) as found:
        yield found


def test_a_trial_is_sent_until_it_is_named_as_kept(here: Here) -> None:
    first, second, third = here.seal(3)
    bodies, key = [encode(trial) for trial in (first, second, third)], here.ledger.unacked_key()
    here.desk.replies[key_of(EDGE, "trials")] = open_question
    for _ in range(2):
        with pytest.raises(NoAnswer):
            here.courier.send_trials(NOW_S)
    strange = ("station-2", first.epoch, third.sequence)
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [strange]})
    assert here.courier.send_trials(NOW_S) == 1
    here.desk.replies[key_of(EDGE, "trials")] = say(
        {"acked": [first.identity, strange], "refused": [[*second.identity, "?"]]}
    )
    assert here.courier.send_trials(NOW_S) == 3
    batches = [msgpack.unpackb(payload) for _, payload, _ in here.desk.asked]
    assert [[body for body, _, _ in batch["trials"]] for batch in batches] == [
        bodies, bodies[:1], bodies[:1], bodies,
    ]  # fmt: skip
    assert {batch["key"] for batch in batches} == {key}
    assert here.unacked() == bodies[2:]
    assert "refused trial" in here.courier.refusal
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [third.identity], "refused": []})
    assert [here.courier.send_trials(NOW_S) for _ in range(2)] == [1, 0]
    assert len(here.desk.asked) == 5


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xc1", 5, [], None, {"acked": [["station-1"]]}, {"acked": ["station-1"]}, {"acked": [[1, 2, 3]]},
     {"acked": [["station-1", "e", "1"]]}, {"acked": 5}, {"acked": None}, {"acked": {}}, {"acked": [5]},
     {"acked": "station-1"}, {"refused": 7}, {"refused": [7]}, {"refused": [[1]]}, {"refused": [[]]},
     {"refused": ["why"]}, {"refused": [["station-1", "e", 1]]}, {"refused": {"station-1": 1}}],
)  # fmt: skip
def test_an_answer_that_names_no_trials_marks_none(here: Here, answer: object) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = say(answer)
    with pytest.raises(NoAnswer):
        here.courier.send_trials(NOW_S)
    assert here.unacked() == [encode(trial)]


def test_an_answer_that_is_wrong_in_one_place_marks_none(here: Here) -> None:
    [trial] = here.seal(1)
    too_many = ("station-1", trial.epoch, 2**63)
    for acked, refused in (([], [[1]]), ([], 7), ([too_many], []), ([], [[*too_many, "why"]])):
        here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity, *acked], "refused": refused})
        with pytest.raises(NoAnswer):
            here.courier.send_trials(NOW_S)
    assert here.unacked() == [encode(trial)]


def test_a_refusal_of_the_whole_batch_leaves_it_to_be_sent_again(here: Here) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = refuse("not a batch")
    with pytest.raises(Refused, match="not a batch"):
        here.courier.send_trials(NOW_S)
    assert here.unacked() == [encode(trial)]


def test_only_what_was_in_the_batch_is_marked(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.uplink.courier.BATCH", 1)
    courier = Courier(here.settings, here.ledger, here.line, here.supply, "s")
    first, second, third = here.seal(3)
    answer = {"acked": [first.identity, second.identity], "refused": [[*third.identity, "no"]]}
    here.desk.replies[key_of(EDGE, "trials")] = say(answer)
    assert courier.send_trials(NOW_S) == 1
    assert here.unacked() == [encode(second), encode(third)]


@pytest.mark.parametrize("forked", [5, None, "all", {"e": 1}])
def test_an_answer_whose_forks_are_no_list_marks_nothing(here: Here, forked: object) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity], "forked": forked})
    with pytest.raises(NoAnswer):
        here.courier.send_trials(NOW_S)
    assert here.unacked() == [encode(trial)]


def test_a_trial_whose_place_is_taken_is_sent_under_a_new_number_and_one_refused_for_another_reason_is_not(
    here: Here,
) -> None:
    old = here.ledger.epoch
    taken, wrong, good = here.seal(3, b"picture")
    kept: list[Trial] = []
    noise: list[Trial] = []

    def judge(payload: bytes) -> bytes:
        answer: dict[str, list[Any]] = {"acked": [], "refused": [], "forked": []}
        for body, _, _ in msgpack.unpackb(payload)["trials"]:
            trial = decode(Trial, body)
            if trial.assignment_id == wrong.assignment_id:
                answer["refused"].append([*trial.identity, "noise"])
                noise.append(trial)
            elif trial.identity == taken.identity:
                answer["refused"].append([*trial.identity, "taken"])
                answer["forked"].append(old)
            else:
                answer["acked"].append(trial.identity)
                kept.append(trial)
        return bytes(msgpack.packb(answer))

    here.desk.replies[key_of(EDGE, "trials")] = judge
    while here.courier.send_trials(NOW_S):
        pass
    assert {trial.identity for trial in noise} == {wrong.identity}
    assert kept[0] == good
    [again] = kept[1:]
    assert again == replace(
        taken, epoch=here.ledger.epoch, sequence=1, notes={"was": f"{old}/{taken.sequence}", "forked": "taken"}
    )
    assert {name for name, _ in here.ledger.unsent_recordings(9)} == {taken.recording, good.recording}


def test_a_clock_that_is_set_back_or_forward_does_not_idle_a_station(here: Here) -> None:
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN)}
    for turn, now_unix_s in enumerate((NOW_S, NOW_S - 3600.0, NOW_S + 1e9, 0.0), start=1):
        here.courier.turn(now_unix_s)
        assert (len(here.desk.keys("lease")), len(here.desk.keys("reconcile"))) == (turn, 1)
        here.pass_time(1.0)


def test_a_copied_or_restored_ledger_numbers_anew(here: Here) -> None:
    [trial] = here.seal(1)
    old = here.ledger.epoch
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN | {"high": 7, "missing": [[1, 7]]})
    here.courier.compare()
    restored = here.ledger.epoch
    assert restored != old
    assert restored in here.courier.refusal
    here.desk.replies[key_of(EDGE, "trials")] = say({"refused": [[*trial.identity, "another"]], "forked": [old]})
    assert here.courier.send_trials(NOW_S) == 1
    assert here.ledger.epoch == restored  # it was numbered anew already
    here.desk.replies[key_of(EDGE, "trials")] = say({"refused": [], "forked": [restored]})
    here.seal(1)
    here.courier.send_trials(NOW_S)
    assert here.ledger.epoch != restored


@pytest.mark.parametrize(
    "values",
    [{"high": "1"}, {"high": None}, {"high": -1}, {"high": 2**63},
     {"missing": 1}, {"missing": [1]}, {"missing": [[2, 1]]}, {"missing": [[1, 2**63]]},
     {"replicated": [["a", "b"]]}, {"recordings_lost": None}],
)  # fmt: skip
def test_a_comparison_that_makes_no_sense_marks_nothing(here: Here, values: dict[str, object]) -> None:
    [trial] = here.seal(1)
    here.ledger.acknowledge([trial.identity], NOW_S)
    here.desk.replies[key_of(EDGE, "reconcile")] = say(NOTHING_KNOWN | {"high": 0} | values)
    with pytest.raises(NoAnswer):
        here.courier.compare()
    assert here.unacked() == []


def test_both_sides_compare_whenever_the_coordinator_is_found_and_now_and_then(here: Here) -> None:
    here.desk.replies |= {key_of(EDGE, "lease"): leases(), key_of(EDGE, "reconcile"): say(NOTHING_KNOWN)}
    for dt_s, compared in ((0.0, 1), (5.0, 1), (594.0, 1), (1.0, 2)):
        here.pass_time(dt_s)
        here.courier.turn(NOW_S)
        assert len(here.desk.keys("reconcile")) == compared
    here.courier.lost_touch()
    here.desk.replies[key_of(EDGE, "reconcile")] = refuse("not today")
    for _ in range(2):
        here.pass_time(10.0)
        here.courier.turn(NOW_S)
    assert len(here.desk.keys("reconcile")) == 3
    assert "not today" in here.courier.refusal


def test_last_words_say_whether_anything_is_left(here: Here) -> None:
    [trial] = here.seal(1)
    here.desk.replies[key_of(EDGE, "trials")] = open_question
    assert not here.courier.send_last(0.1, NOW_S)
    assert here.unacked() == [encode(trial)]
    here.desk.replies[key_of(EDGE, "trials")] = say({"acked": [trial.identity]})
    assert here.courier.send_last(LONG_S, NOW_S)
    assert here.unacked() == []


def test_a_refusal_carries_its_sentence(here: Here) -> None:
    here.desk.replies[key_of(EDGE, "lease")] = refuse("Bänk 7 is not enrolled")
    with pytest.raises(Refused, match="Bänk 7 is not enrolled"):
        here.line.ask(key_of(EDGE, "lease"))


def test_a_turn_that_asks_nothing_is_no_sign_of_the_coordinator(here: Here) -> None:
    here.courier.turn(NOW_S)
    assert here.courier.answered  # a no is one
    here.courier.turn(NOW_S)  # too soon to ask again
    assert not here.courier.answered
    here.pass_time(5.0)
    here.courier.turn(NOW_S)
    assert here.courier.answered
