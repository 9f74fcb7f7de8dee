"""The control loop: tick or kick, snapshot, decide, journal, reconcile, publish. Once a second, sooner if asked."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from controller.board import Board
from controller.core.decide import decide
from controller.core.failsafe import failsafe
from controller.core.model import Alarm, Decision, Memory, Snapshot
from controller.ports import Clock, CycleReport, Publisher
from controller.reconcile import Reconciler

PERIOD_S: Final = 1.0
SHORTEST_GAP_S: Final = 0.2  # between two cycles, however often the loop is kicked
KEPT_DURATIONS: Final = 3600
ALARM_GAP_S: Final = 60.0  # between two lines of the log about the same alarm

_log = logging.getLogger(__name__)

Recorder = Callable[[Snapshot, Memory, Decision], None]
_T = TypeVar("_T")


class ControlLoop:
    """Runs the cycles and hands each one's report to the publishers."""

    def __init__(
        self,
        board: Board,
        clock: Clock,
        reconciler: Reconciler,
        *,
        memory: Memory | None = None,
        recorder: Recorder | None = None,
        publishers: Sequence[Publisher] = (),
    ) -> None:
        self.memory = memory or Memory()
        self.publishers = list(publishers)
        self.durations_s: deque[float] = deque(maxlen=KEPT_DURATIONS)
        self.report: CycleReport | None = None
        self.failures = 0
        self._board, self._clock, self._reconciler, self._recorder = board, clock, reconciler, recorder
        self._number = self._overruns = 0
        self._failing = False
        self._complained: set[int] = set()
        self._excursion_s = {circuit.id: 0.0 for circuit in board.site.circuits}

    async def run(self) -> None:
        """Run cycles for ever, on a steady grid; a late cycle is counted and not made up for."""
        due_s = self._clock.now_s()
        while True:
            self.cycle()
            now_s = self._clock.now_s()
            due_s += PERIOD_S
            if now_s > due_s:
                self._overruns += 1
                due_s = now_s
            await asyncio.sleep(SHORTEST_GAP_S)
            try:
                async with asyncio.timeout(max(0.0, due_s - self._clock.now_s())):
                    await self._board.kick.wait()
            except TimeoutError:
                continue
            due_s = self._clock.now_s()

    def cycle(self) -> CycleReport:
        """Decide once and carry it out."""
        self._board.kick.clear()
        started_s = self._clock.now_s()
        snapshot, before = self._board.take(), self.memory
        decision, self.memory = self._decide(snapshot, before)
        self._reconciler.apply(decision)
        if self._recorder is not None:
            self._recorder(snapshot, before, decision)
        duration_s = self._clock.now_s() - started_s
        self.durations_s.append(duration_s)
        self._number += 1
        self._count_excursions(decision, before)
        self.report = CycleReport(
            number=self._number,
            snapshot=snapshot,
            decision=decision,
            duration_s=duration_s,
            overruns=self._overruns,
            excursion_s=dict(self._excursion_s),
            setpoints_sent=self._reconciler.sent,
            setpoints_confirmed=self._reconciler.confirmed,
            setpoints_failed=self._reconciler.failed,
            readings_rejected=dict(self._board.rejected),
        )
        self._publish(self.report)
        return self.report

    def _decide(self, snapshot: Snapshot, memory: Memory) -> tuple[Decision, Memory]:
        decision, after, error = decide_or_fail_safe(snapshot, memory)
        if error is not None:
            self.failures += 1
            if not self._failing:
                _log.critical("decide failed: fallback currents for everybody", exc_info=error)
        self._failing = error is not None
        return decision, after

    def _publish(self, report: CycleReport) -> None:
        """Hand a report out. A publisher that raises, against its word, is logged once and stops nobody (C7)."""
        for publisher in list(self.publishers):
            outcome = _attempt(partial(publisher.publish, report))
            if isinstance(outcome, Exception) and id(publisher) not in self._complained:
                self._complained.add(id(publisher))
                _log.error("%s cannot publish; told once", type(publisher).__name__, exc_info=outcome)

    def _count_excursions(self, decision: Decision, before: Memory) -> None:
        """Add the time since the last cycle to every circuit that is above its limit."""
        since_s = PERIOD_S if before.decided_at_s is None else decision.decided_at_s - before.decided_at_s
        for circuit in decision.circuits.values():
            if circuit.overloaded:
                self._excursion_s[circuit.id] += max(0.0, min(since_s, 2.0 * PERIOD_S))


class AlarmLog:
    """A `Publisher` that logs each alarm once when it rises and once when it clears.

    One that flaps gets a line a minute at most, and its last state in the end. What is kept is bounded: alarms are
    codes on subjects of the site file.
    """

    def __init__(self) -> None:
        # The last line about each alarm: whether it said that the alarm stands, and when it was written.
        self._told: dict[tuple[str, str], tuple[bool, float]] = {}

    def publish(self, report: CycleReport) -> None:
        """Take note of a cycle."""
        now_s = report.snapshot.now_s
        standing = {(alarm.code.value, alarm.subject): alarm for alarm in report.decision.alarms}
        for key in [*standing, *(known for known in self._told if known not in standing)]:
            said, at_s = self._told.get(key, (False, now_s - ALARM_GAP_S))
            if now_s - at_s < ALARM_GAP_S:
                continue
            alarm = standing.get(key)
            if said != (alarm is not None):
                _tell_alarm(key, alarm)
                self._told[key] = (alarm is not None, now_s)
            elif not said:
                self._told.pop(key, None)


def _tell_alarm(key: tuple[str, str], alarm: Alarm | None) -> None:
    if alarm is None:
        _log.info("alarm %s on %s: cleared", *key)
    else:
        _log.warning("alarm %s on %s: %s", *key, alarm.text)


def decide_or_fail_safe(snapshot: Snapshot, memory: Memory) -> tuple[Decision, Memory, Exception | None]:
    """Decide. Where that fails: fallback currents with an alarm, nothing remembered, and what went wrong."""
    outcome = _attempt(partial(decide, snapshot, memory))
    if isinstance(outcome, Exception):
        return failsafe(snapshot, f"{type(outcome).__name__}: {outcome}"), Memory(), outcome
    return *outcome, None


def _attempt(work: Callable[[], _T]) -> _T | Exception:
    """Return what `work` returns or raises: the one guard around `decide`, and around those who only look on."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever fails, the next cycle comes
        return error
