"""Demand: what each EVSE can use, and in which order they are let in when not everybody fits.

Knows sessions, timers and debts. Does not care how much there is to share.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Final

from controller.core.allocate import EPSILON
from controller.core.commit import SETTLE_S, Commitment
from controller.core.facts import Facts
from controller.core.model import Evse, EvseEvidence, EvseMemory, EvseState, Reason, ReasonCode

UNUSED_A: Final = 1.5  # less use than this is reclaimed
KEPT_A: Final = 1.0  # what a vehicle keeps above its draw, to show that it wants more
TAKEN_A: Final = 0.5  # drawing this close to the setpoint shows that it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one controllable EVSE can use: 0 or between `min_a` and `upper_a`; `cap` names what bounds it."""

    index: int
    upper_a: float
    cap: Reason
    reclaimed: bool


def wants(facts: Facts) -> list[Want]:
    """Return what every controllable EVSE can use."""
    return [
        _want(index, facts.evses[index], facts.evidence(index), facts.commitments[index], facts.evse_memories[index])
        for index in facts.controllable()
    ]


def _want(index: int, evse: Evse, evidence: EvseEvidence, commitment: Commitment, memory: EvseMemory) -> Want:
    reclaimed = _reclaimed(evidence, commitment, memory)
    draw_a = max(commitment.draw_a) if commitment.draw_a is not None else 0.0
    upper_a = min(evse.max_a, max(evse.min_a, _kept_a(evse, commitment, draw_a))) if reclaimed else evse.max_a
    if upper_a < evse.max_a:
        return Want(index=index, upper_a=upper_a, cap=_reason(ReasonCode.VEHICLE, upper_a), reclaimed=reclaimed)
    return Want(index=index, upper_a=evse.max_a, cap=_reason(ReasonCode.EVSE_MAX, evse.max_a), reclaimed=reclaimed)


def _kept_a(evse: Evse, commitment: Commitment, draw_a: float) -> float:
    """Return what a vehicle that leaves some of its offer keeps: its draw and a little, without following its noise."""
    unused_a = commitment.setpoint_a - draw_a
    if TAKEN_A < unused_a <= UNUSED_A + KEPT_A:
        return commitment.setpoint_a
    return ceil((draw_a + KEPT_A) / evse.step_a - EPSILON) * evse.step_a


def _reason(code: ReasonCode, value_a: float) -> Reason:
    return Reason(code=code, value=value_a, unit="A")


def _reclaimed(evidence: EvseEvidence, commitment: Commitment, memory: EvseMemory) -> bool:
    """Tell whether a vehicle leaves what it is offered; once it takes all of it again, it may have its full share."""
    if commitment.draw_a is None or evidence.sent_at_s is None or evidence.measured_at_s is None:
        return False
    unused_a = commitment.setpoint_a - max(commitment.draw_a)
    if memory.reclaimed:
        return unused_a > TAKEN_A
    return unused_a > UNUSED_A and evidence.measured_at_s >= evidence.sent_at_s + SETTLE_S


def order(facts: Facts, wanted: list[Want]) -> list[int]:
    """Return positions in `wanted`, who is let in first first.

    Vehicles that must not be paused; higher priority; those that still want power; those within their minimum on-time;
    then debt (least energy relative to the weight, in steps of one rotation at the minimum); then who is on already.
    """
    return sorted(range(len(wanted)), key=lambda position: _rank(facts, wanted[position].index))


def _rank(facts: Facts, index: int) -> tuple[float | bool | str, ...]:
    evse, evidence = facts.evses[index], facts.evidence(index)
    memory, policy = facts.evse_memories[index], facts.snapshot.site.policy
    on = memory.on_since_s is not None
    locked_on = memory.on_since_s is not None and facts.now_s - memory.on_since_s < policy.min_on_s
    turns = memory.served_as // (evse.weight * evse.min_a * policy.rotation_s)
    return (
        not evse.never_zero,
        -evse.priority,
        evidence.state is EvseState.SUSPENDED_EV,
        not locked_on,
        turns,
        not on,
        evidence.transaction_since_s or 0.0,
        evse.id,
    )


def resting_until_s(facts: Facts, index: int) -> float | None:
    """Return until when a paused EVSE stays paused (minimum off-time), or None when it may go on now."""
    since_s = facts.evse_memories[index].off_since_s
    if since_s is None or facts.evses[index].never_zero:
        return None
    until_s = since_s + facts.snapshot.site.policy.min_off_s
    return until_s if facts.now_s < until_s else None


def remember(facts: Facts, index: int, value_a: float, *, reclaimed: bool, elapsed_s: float) -> EvseMemory:
    """Return an EVSE's memory after it was given `value_a`."""
    memory, commitment = facts.evse_memories[index], facts.commitments[index]
    draw_a = commitment.setpoint_a if commitment.draw_a is None else max(commitment.draw_a)
    on = value_a > 0.0
    was_on = memory.on_since_s is not None
    raised = value_a > commitment.setpoint_a
    off_since_s = memory.off_since_s
    if on:
        off_since_s = None
    elif was_on and commitment.setpoint_a > 0.0:
        # A raise that was decided but never sent is no reason to rest.
        off_since_s = facts.now_s
    return replace(
        memory,
        on_since_s=(memory.on_since_s if was_on else facts.now_s) if on else None,
        off_since_s=off_since_s,
        raised_at_s=facts.now_s if raised else memory.raised_at_s,
        reclaimed=reclaimed,
        served_as=memory.served_as + draw_a * elapsed_s,
    )
