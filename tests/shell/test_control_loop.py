"""The loop runs on a steady grid, is brought forward by kicks, and survives whatever a cycle meets."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from controller.board import Board
from controller.core.model import AlarmCode, Contract, EvseState, Memory, ReasonCode
from controller.loop import KEPT_DURATIONS, PERIOD_S, SHORTEST_GAP_S, ControlLoop
from controller.ports import CycleReport
from controller.reconcile import Reconciler
from controller.supervisor import Supervisor
from tests.shell.bench import SITE, START_S, ManualClock, RecordingStation, in_virtual_time, online, reading, settle


class Witness:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.reports: list[CycleReport] = []

    def publish(self, report: CycleReport) -> None:
        self.reports.append(report)

    @property
    def at_s(self) -> list[float]:
        return [round(report.snapshot.now_s - START_S, 6) for report in self.reports]


class Broken:
    """A publisher that breaks its word."""

    def __init__(self) -> None:
        self.calls = 0

    def publish(self, report: CycleReport) -> None:
        self.calls += 1
        raise ValueError(f"cannot show cycle {report.number}")


def no_commands(name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
    raise AssertionError(f"nothing is to be sent here: {name} {work}")


def loop_on(board: Board, clock: ManualClock, *publishers: Any, **options: Any) -> ControlLoop:  # noqa: ANN401 - passed on
    return ControlLoop(board, clock, Reconciler(board, clock, no_commands), publishers=publishers, **options)


def played(
    seconds: float,
    script: Callable[[ManualClock, Board], Coroutine[Any, Any, None]] | None = None,
    *more: Any,  # noqa: ANN401
) -> Witness:
    """Run the loop for so many virtual seconds beside a script; return what was published."""
    clock, witness = ManualClock(), Witness()
    board = Board(SITE, clock)

    async def play() -> None:
        running = asyncio.create_task(loop_on(board, clock, witness, *more).run())
        if script is not None:
            beside = asyncio.create_task(script(clock, board))
        await asyncio.sleep(seconds)
        running.cancel()
        if script is not None:
            await beside

    in_virtual_time(clock, play())
    return witness


# ------------------------------------------------------------------------------------------------------------ the grid


def test_cycles_come_once_a_second_without_drifting() -> None:
    witness = played(100.5)
    assert witness.at_s == [float(second) for second in range(101)]
    assert witness.reports[-1].overruns == 0
    assert [report.number for report in witness.reports] == list(range(1, 102))


def test_a_kick_brings_the_next_cycle_forward_and_the_grid_with_it() -> None:
    async def script(_: ManualClock, board: Board) -> None:
        await asyncio.sleep(2.5)
        board.kick.set()

    assert played(5.0, script).at_s == [0.0, 1.0, 2.0, 2.5, 3.5, 4.5]


def test_however_often_it_is_kicked_there_is_a_gap_between_two_cycles() -> None:
    async def script(_: ManualClock, board: Board) -> None:
        for _number in range(100):
            board.kick.set()
            await asyncio.sleep(0.01)

    at_s = played(1.1, script).at_s
    gaps_s = [later - earlier for earlier, later in pairwise(at_s)]
    assert len(at_s) == 6
    assert min(gaps_s) == pytest.approx(SHORTEST_GAP_S)


def test_a_kick_during_a_cycle_is_not_lost() -> None:
    kicks: list[int] = []
    clock, witness = ManualClock(), Witness()
    board = Board(SITE, clock)

    class Kicks:
        def publish(self, report: CycleReport) -> None:
            if not kicks:
                kicks.append(report.number)
                board.kick.set()

    async def play() -> None:
        running = asyncio.create_task(loop_on(board, clock, witness, Kicks()).run())
        await asyncio.sleep(0.5)
        running.cancel()

    in_virtual_time(clock, play())
    assert witness.at_s == [0.0, SHORTEST_GAP_S]


def test_a_cycle_that_comes_late_is_counted_and_not_made_up_for() -> None:
    async def script(clock: ManualClock, _: Board) -> None:
        await asyncio.sleep(2.5)
        clock.advance(3.0)  # the machine was busy elsewhere

    witness = played(8.9, script)
    assert witness.at_s[:4] == [0.0, 1.0, 2.0, 5.5]
    gaps_s = [later - earlier for earlier, later in pairwise(witness.at_s[3:])]
    assert all(SHORTEST_GAP_S <= gap_s <= PERIOD_S for gap_s in gaps_s)
    assert len(witness.reports) <= 8  # three cycles were missed and three are missing
    assert witness.reports[-1].overruns == 1


def test_a_cycle_that_takes_longer_than_its_period_is_counted() -> None:
    class Slow:
        def __init__(self, clock: ManualClock) -> None:
            self.clock = clock

        def publish(self, report: CycleReport) -> None:
            if report.number == 2:
                self.clock.advance(1.5)

    clock, witness = ManualClock(), Witness()
    board = Board(SITE, clock)

    async def play() -> None:
        running = asyncio.create_task(loop_on(board, clock, witness, Slow(clock)).run())
        await asyncio.sleep(6.0)
        running.cancel()

    in_virtual_time(clock, play())
    assert witness.reports[1].overruns == 0
    assert witness.reports[2].overruns == 1
    assert witness.reports[-1].overruns == 1


# --------------------------------------------------------------------------------------------------------- the reports


async def test_a_cycle_hands_its_report_to_every_publisher() -> None:
    clock, one, two = ManualClock(), Witness(), Witness()
    board = Board(SITE, clock)
    board.meter_failed("grid", "no answer")
    loop = loop_on(board, clock, one, two)
    report = loop.cycle()
    assert one.reports == two.reports == [report]
    assert loop.report is report
    assert report.readings_rejected == {"grid: no answer": 1}
    assert set(report.decision.setpoints) == {"alpha", "bravo-1", "bravo-2"}


async def test_a_publisher_that_comes_later_gets_the_reports_from_then_on() -> None:
    clock, late = ManualClock(), Witness()
    loop = loop_on(Board(SITE, clock), clock)
    loop.cycle()
    loop.publishers.append(late)
    clock.advance(1.0)
    loop.cycle()
    assert [report.number for report in late.reports] == [2]


async def test_a_publisher_that_fails_stops_neither_control_nor_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock, broken, witness = ManualClock(), Broken(), Witness()
    loop = loop_on(Board(SITE, clock), clock, broken, witness)
    for _ in range(5):
        loop.cycle()
        clock.advance(1.0)
    assert broken.calls == 5
    assert [report.number for report in witness.reports] == [1, 2, 3, 4, 5]
    assert caplog.text.count("Broken cannot publish") == 1
    assert "cannot show cycle 1" in caplog.text


def test_a_publisher_that_fails_does_not_disturb_the_grid() -> None:
    assert played(3.5, None, Broken()).at_s == [0.0, 1.0, 2.0, 3.0]


async def test_the_time_above_a_limit_is_added_up_for_each_circuit() -> None:
    clock, witness = ManualClock(), Witness()
    board = Board(SITE, clock)
    loop = loop_on(board, clock, witness)
    for second in range(6):
        current_a = 140.0 if 2 <= second <= 4 else 20.0
        board.meter_read("grid", reading(current_a, at_s=clock.now_s()))
        loop.cycle()
        clock.advance(1.0)
    assert [report.excursion_s["grid"] for report in witness.reports] == [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
    assert {report.excursion_s["hall-a"] for report in witness.reports} == {0.0}


async def test_only_the_latest_durations_are_kept() -> None:
    clock = ManualClock()
    loop = loop_on(Board(SITE, clock), clock)
    loop.durations_s.extend([9.0] * KEPT_DURATIONS)
    loop.cycle()
    assert len(loop.durations_s) == KEPT_DURATIONS
    assert loop.durations_s[-1] == 0.0


async def test_setpoints_go_out_and_are_counted() -> None:
    clock = ManualClock()
    board = Board(SITE, clock)
    alpha = RecordingStation("alpha", ["alpha"])
    alpha.willing = True
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        loop = ControlLoop(board, clock, Reconciler(board, clock, supervisor.start))
        online(board, alpha)
        board.evse_state("alpha", EvseState.AVAILABLE)
        for second in range(90):
            board.meter_read("grid", reading(20.0, at_s=clock.now_s()))
            if second == 2:
                board.evse_state("alpha", EvseState.PREPARING)
                board.transaction_started("alpha", "tx")
                board.evse_state("alpha", EvseState.CHARGING)
            held_a = board.evidence("alpha").confirmed_a or 0.0
            board.evse_measured("alpha", (held_a, held_a, held_a))
            loop.cycle()
            await settle()
            clock.advance(1.0)
        supervisor.stop()
    assert loop.report is not None
    offers = [call.value_a for call in alpha.calls if call.what == "offer"]
    assert alpha.told[0] == ("install", "alpha", 6.0)
    assert offers
    assert offers == sorted(offers)
    assert offers[-1] > 6.0
    assert loop.report.setpoints_sent == loop.report.setpoints_confirmed == len(offers)
    assert loop.report.setpoints_failed == 0


# ----------------------------------------------------------------------------------------------- a decision that fails


def spoilt_board(clock: ManualClock) -> Board:
    """Return a board whose snapshots cannot be decided on: its contract lies on a circuit that does not exist."""
    board = Board(SITE, clock)
    contract = Contract(id="lost", circuit="nowhere", import_w=1000.0)
    board.site = replace(SITE, contracts=(contract,))
    return board


async def test_when_the_decision_fails_everybody_gets_the_fallback_and_an_alarm_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    board = spoilt_board(clock)
    alpha = RecordingStation("alpha", ["alpha"])
    alpha.willing = True
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        loop = ControlLoop(board, clock, Reconciler(board, clock, supervisor.start))
        online(board, alpha)
        board.fallback_installed("alpha")
        board.evse_state("alpha", EvseState.PREPARING)
        board.transaction_started("alpha", "tx")
        board.command_sent("alpha", 20.0)
        board.command_accepted("alpha", 20.0, START_S + 600.0)
        report = loop.cycle()
        await settle()
        supervisor.stop()
    assert [(alarm.code, alarm.subject) for alarm in report.decision.alarms] == [
        (AlarmCode.DECIDE_FAILED, "controller")
    ]
    assert {setpoint.reason.code for setpoint in report.decision.setpoints.values()} == {ReasonCode.GUARD}
    assert not report.decision.feasible
    assert alpha.told == [("offer", "alpha", 6.0)]
    assert board.evidence("alpha").confirmed_a == 6.0
    assert "decide failed" in caplog.text


async def test_the_loop_goes_on_after_a_decision_that_failed_and_counts_it(caplog: pytest.LogCaptureFixture) -> None:
    clock, witness = ManualClock(), Witness()
    board = spoilt_board(clock)
    loop = loop_on(board, clock, witness, memory=Memory(decided_at_s=START_S - 1.0))
    for _ in range(3):
        loop.cycle()
        clock.advance(1.0)
    assert loop.failures == 3
    assert caplog.text.count("decide failed") == 1  # once for a row of them
    assert loop.memory == Memory()
    board.site = SITE
    good = loop.cycle()
    assert AlarmCode.DECIDE_FAILED not in {alarm.code for alarm in good.decision.alarms}
    assert loop.failures == 3
    assert loop.memory.decided_at_s == clock.now_s()
    board.site = spoilt_board(clock).site
    loop.cycle()
    assert loop.failures == 4
    assert caplog.text.count("decide failed") == 2


def test_a_decision_that_fails_does_not_disturb_the_grid() -> None:
    async def script(_: ManualClock, board: Board) -> None:
        board.site = spoilt_board(ManualClock()).site

    witness = played(3.5, script)
    assert witness.at_s == [0.0, 1.0, 2.0, 3.0]
    assert witness.reports[-1].decision.alarms[0].code is AlarmCode.DECIDE_FAILED


async def test_every_cycle_is_recorded_with_what_it_started_from() -> None:
    clock = ManualClock()
    recorded: list[tuple[float, float | None, float]] = []
    loop = loop_on(
        Board(SITE, clock),
        clock,
        recorder=lambda snapshot, memory, decision: recorded.append(
            (snapshot.now_s, memory.decided_at_s, decision.decided_at_s)
        ),
    )
    loop.cycle()
    clock.advance(1.0)
    loop.cycle()
    assert recorded == [(START_S, None, START_S), (START_S + 1.0, START_S, START_S + 1.0)]
