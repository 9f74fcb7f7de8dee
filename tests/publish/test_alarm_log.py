"""Whoever reads the log learns of an alarm once when it rises and once when it clears, and is not flooded."""

import logging
from dataclasses import replace

import pytest

from controller.core.model import Alarm, AlarmCode
from controller.loop import ALARM_GAP_S, AlarmLog
from tests.publish.small_site import NOW_S, REPORT

LOST = Alarm(code=AlarmCode.METER_LOST, subject="grid", text="no reading for 12 s")
DEAF = Alarm(code=AlarmCode.STATION_DEAF, subject="e1", text="3 commands unanswered")
RISES = ("WARNING", "alarm meter_lost on grid: no reading for 12 s")
CLEARS = ("INFO", "alarm meter_lost on grid: cleared")


class Log:
    """An alarm log, cycle by cycle."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.alarm_log, self._caplog = AlarmLog(), caplog

    def says(self, at_s: float, *alarms: Alarm) -> list[tuple[str, str]]:
        """Return the lines that a cycle with these alarms adds."""
        self._caplog.clear()
        snapshot = replace(REPORT.snapshot, now_s=NOW_S + at_s)
        decision = replace(REPORT.decision, alarms=alarms)
        self.alarm_log.publish(replace(REPORT, snapshot=snapshot, decision=decision))
        return [(record.levelname, record.message) for record in self._caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


def test_an_alarm_is_told_once_when_it_rises_and_once_when_it_clears(log: Log) -> None:
    assert log.says(0.0, LOST) == [RISES]
    assert [log.says(float(second), LOST) for second in range(1, 300)] == [[]] * 299
    assert log.says(300.0) == [CLEARS]
    assert [log.says(300.0 + second) for second in range(1, 300)] == [[]] * 299
    assert log.says(600.0, LOST) == [RISES]


def test_a_changing_text_is_no_new_alarm_but_another_subject_is(log: Log) -> None:
    assert log.says(0.0, LOST) == [RISES]
    assert log.says(1.0, replace(LOST, text="no reading for 13 s")) == []
    assert len(log.says(2.0, LOST, replace(LOST, subject="hall-a"), DEAF)) == 2
    assert len(log.says(100.0)) == 3


def test_an_alarm_that_is_soon_gone_is_cleared_a_minute_after_it_rose(log: Log) -> None:
    log.says(0.0, LOST)
    assert log.says(3.0) == []
    assert log.says(ALARM_GAP_S - 0.1) == []
    assert log.says(ALARM_GAP_S) == [CLEARS]


def test_an_alarm_that_flaps_gets_a_line_a_minute_at_most_and_its_last_state_in_the_end(log: Log) -> None:
    lines = [log.says(float(second), *([LOST] if second % 2 == 0 else [])) for second in range(600)]
    assert 2 <= sum(map(len, lines)) <= 10
    last = [log.says(600.0 + second) for second in range(121)]
    told = [line for cycle in [*lines, *last] for line in cycle]
    assert told[-1] == CLEARS
    assert told == [RISES, CLEARS] * (len(told) // 2)


def test_nothing_is_kept_of_alarms_long_gone(log: Log) -> None:
    for number in range(5):
        log.says(0.0, *(replace(LOST, subject=f"evse-{each}") for each in range(number)))
    for second in range(0, 200, 20):
        log.says(float(second))
    assert log.alarm_log._told == {}
