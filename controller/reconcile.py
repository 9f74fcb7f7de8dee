"""Reconcile: from what should hold to what the stations hold, by evidence. Decreases first, one command in flight each.

Level-triggered: every cycle compares anew, and what could not be sent now is seen again in the next. Does not decide
amounts; that a raise fits beside everything unconfirmed was decided before (invariant C1).
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from controller.board import Board
from controller.core.model import Decision, EvseEvidence, ReasonCode, Setpoint, Site
from controller.core.tree import Tree
from controller.ports import ChargingStation, Clock, Lease, StationError, StationGone, StationRefused

ANSWER_S: Final = 5.0
OVERLOAD_ANSWER_S: Final = 1.0  # a raise in flight does not hold a decrease up
RETRY_S: Final = 30.0  # for an uninstalled fallback, and for repeating a setpoint that is not obeyed
RENEW_SHARE: Final = 1.0 / 3.0  # renewed when a third of the lease is left

Starter = Callable[[str, Coroutine[object, object, None]], asyncio.Task[None]]


class Urgency(IntEnum):
    """The order in which commands leave."""

    DECREASE = 0
    FALLBACK = 1
    RAISE = 2
    RENEWAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command that is due. `drop_a` orders decreases: the largest first."""

    urgency: Urgency
    drop_a: float
    evse: str
    station: ChargingStation
    transaction: str
    lease: Lease


@dataclass(slots=True, kw_only=True)
class _Flight:
    job: Job
    since_s: float
    task: asyncio.Task[None]


class Reconciler:
    """Sends what is due. `start` runs a command as a supervised task."""

    def __init__(self, board: Board, clock: Clock, start: Starter) -> None:
        self.sent = self.confirmed = self.failed = 0
        self._board, self._clock, self._start = board, clock, start
        self._flights: dict[str, _Flight] = {}
        self._install_refused: dict[str, tuple[ChargingStation, float]] = {}
        self._repeat_after_s: dict[str, float] = {}
        self._circuits_above = _circuits_above(board.site)

    def apply(self, decision: Decision) -> None:
        """Start every command that is due and whose station has none in flight."""
        overloaded = {circuit.id for circuit in decision.circuits.values() if circuit.overloaded}
        if overloaded:
            self._hurry(overloaded)
        for job in sorted(self._due(decision), key=lambda job: (job.urgency, -job.drop_a, job.evse)):
            if job.station.id not in self._flights:
                self._launch(job)

    def _due(self, decision: Decision) -> Iterator[Job]:
        for setpoint in decision.setpoints.values():
            live = self._board.station_of(setpoint.evse)
            if live is None:
                continue
            evidence = self._board.evidence(setpoint.evse)
            urgency = self._urgency(setpoint, evidence, live.station)
            if urgency is not None:
                yield Job(
                    urgency=urgency,
                    drop_a=(evidence.confirmed_a or 0.0) - setpoint.value_a,
                    evse=setpoint.evse,
                    station=live.station,
                    transaction=evidence.transaction or "",
                    lease=Lease(value_a=setpoint.value_a, fallback_a=setpoint.fallback_a, lease_s=setpoint.lease_s),
                )

    def _urgency(self, setpoint: Setpoint, evidence: EvseEvidence, station: ChargingStation) -> Urgency | None:
        """Return how urgent the next command to an EVSE is, or None when it holds what it should."""
        now_s, evse = self._clock.now_s(), setpoint.evse
        if not evidence.verified:
            refused_by, again_s = self._install_refused.get(evse, (station, now_s))
            # A station on a new connection may have been repaired: it is asked at once.
            return Urgency.FALLBACK if refused_by is not station or now_s >= again_s else None
        if evidence.transaction is None:
            return None
        if setpoint.reason.code is ReasonCode.DISOBEDIENT and not evidence.in_flight:
            lower = evidence.confirmed_a is None or setpoint.value_a < evidence.confirmed_a
            return Urgency.DECREASE if lower or now_s >= self._repeat_after_s.get(evse, now_s) else None
        return _difference(setpoint, evidence, now_s) if setpoint.controllable else None

    def _launch(self, job: Job) -> None:
        work = self._install(job) if job.urgency is Urgency.FALLBACK else self._offer(job)
        task = self._start(f"command {job.evse}", work)
        self._flights[job.station.id] = _Flight(job=job, since_s=self._clock.now_s(), task=task)
        self._board.occupy(job.evse)
        task.add_done_callback(lambda _: self._landed(job))

    def _landed(self, job: Job) -> None:
        del self._flights[job.station.id]
        self._board.release(job.evse)
        if self._is_live(job) and self._board.evidence(job.evse).in_flight:
            # Its transaction ended meanwhile, or the driver failed: no answer will come that says more.
            self._board.command_unanswered(job.evse)

    async def _offer(self, job: Job) -> None:
        lease, asked_at_s = job.lease, self._clock.now_s()
        self._repeat_after_s[job.evse] = asked_at_s + RETRY_S
        lease_until_s = asked_at_s + lease.lease_s if lease.value_a != lease.fallback_a else None
        self._board.command_sent(job.evse, lease.value_a, lease_until_s)
        self.sent += 1
        try:
            await job.station.offer(job.evse, job.transaction, lease, timeout_s=ANSWER_S)
        except StationRefused:
            self.failed += 1
            self._if_current(job, lambda: self._board.command_refused(job.evse))
        except (StationError, asyncio.CancelledError) as unanswered:
            self.failed += 1
            self._if_current(job, lambda: self._board.command_unanswered(job.evse))
            if isinstance(unanswered, asyncio.CancelledError):
                raise
        else:
            self.confirmed += 1
            self._if_current(job, lambda: self._board.command_accepted(job.evse, lease.value_a, lease_until_s))

    async def _install(self, job: Job) -> None:
        try:
            await job.station.install_fallback(job.evse, job.lease.fallback_a, timeout_s=ANSWER_S)
        except StationGone:
            self.failed += 1
        except StationError:
            self.failed += 1
            self._install_refused[job.evse] = (job.station, self._clock.now_s() + RETRY_S)
        else:
            self._install_refused.pop(job.evse, None)
            if self._is_live(job):
                self._board.fallback_installed(job.evse)

    def _if_current(self, job: Job, note: Callable[[], None]) -> None:
        """Note an outcome only while the session and transaction that it belongs to are the live ones (C6)."""
        if self._is_live(job) and (self._board.evidence(job.evse).transaction or "") == job.transaction:
            note()

    def _is_live(self, job: Job) -> bool:
        live = self._board.station_of(job.evse)
        return live is not None and live.station is job.station

    def _hurry(self, overloaded: Collection[str]) -> None:
        """Give up waiting for a raise below an overload after a second without an answer: its station is needed."""
        for flight in list(self._flights.values()):
            late = self._clock.now_s() - flight.since_s >= OVERLOAD_ANSWER_S
            below = not self._circuits_above[flight.job.evse].isdisjoint(overloaded)
            if late and below and flight.job.urgency is Urgency.RAISE:
                flight.task.cancel()


def _circuits_above(site: Site) -> dict[str, frozenset[str]]:
    tree = Tree.of(site)
    names = [circuit.id for circuit in site.circuits]
    return {
        evse.id: frozenset(names[circuit] for circuit in path)
        for evse, path in zip(site.evses, tree.paths, strict=True)
    }


def _difference(setpoint: Setpoint, evidence: EvseEvidence, now_s: float) -> Urgency | None:
    """Compare what should hold with what was confirmed, and failing that with what was sent."""
    if evidence.confirmed_a is None or setpoint.value_a < evidence.confirmed_a:
        return Urgency.DECREASE
    if setpoint.value_a > evidence.confirmed_a:
        return Urgency.RAISE
    if evidence.sent_a != setpoint.value_a or (evidence.may_hold_a or 0.0) > setpoint.value_a:
        return Urgency.DECREASE
    # After a command without an answer nothing is certain until one was answered.
    if evidence.may_hold_a is not None:
        return Urgency.RENEWAL
    return Urgency.RENEWAL if _expiring(setpoint, evidence, now_s) else None


def _expiring(setpoint: Setpoint, evidence: EvseEvidence, now_s: float) -> bool:
    """Tell whether a lease must be renewed: any value but the fallback itself decays when it is not."""
    if setpoint.value_a == setpoint.fallback_a:
        return False
    return evidence.lease_until_s is None or evidence.lease_until_s - now_s <= RENEW_SHARE * setpoint.lease_s
