"""Stations that run as fast as they can begin together, and nobody waits for ever for one that does not come."""

from coordinator.line_up import LONGEST_S, LineUp


def test_the_first_station_has_one_attempt_and_gets_another_only_where_that_was_lost() -> None:
    line_up = LineUp(wanted=True, budget_s=3600.0)
    assert line_up.may_work(None, False, lambda: True)
    assert not line_up.may_work(None, True, lambda: True)
    assert line_up.may_work(None, False, lambda: True)
    assert not line_up.over


def test_nobody_works_until_all_are_ready_and_everybody_from_then_on() -> None:
    line_up = LineUp(wanted=True, budget_s=3600.0)
    assert not line_up.may_work(1.0, False, lambda: False)
    assert line_up.may_work(2.0, False, lambda: True)
    assert line_up.may_work(3.0, True, lambda: False)
    assert line_up.over


def test_a_station_that_does_not_come_is_waited_for_a_while() -> None:
    line_up = LineUp(wanted=True, budget_s=3600.0)
    assert not line_up.may_work(LONGEST_S, False, lambda: False)
    assert line_up.may_work(LONGEST_S + 0.1, False, lambda: False)


def test_a_short_campaign_waits_for_a_quarter_of_its_time_at_most() -> None:
    line_up = LineUp(wanted=True, budget_s=60.0)
    assert not line_up.may_work(15.0, False, lambda: False)
    assert line_up.may_work(15.1, False, lambda: False)


def test_stations_that_keep_a_pace_do_not_line_up() -> None:
    line_up = LineUp(wanted=False, budget_s=3600.0)
    assert line_up.may_work(None, True, lambda: False)
    assert line_up.may_work(0.0, True, lambda: False)
