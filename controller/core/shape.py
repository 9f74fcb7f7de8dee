"""Shape: from what each EVSE should have to what may be sent to it now.

Decreases are never delayed. Raises wait for confirmed room (invariant C1), keep their interval, and are not worth a
write when they are small.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

from controller.core.allocate import EPSILON, Ask, fill
from controller.core.demand import Want
from controller.core.facts import Facts, room


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """What may be sent. `waits_for` is the constraint whose room is not confirmed yet; `ramping_until_s` a timer."""

    value_a: float
    waits_for: int | None = None
    ramping_until_s: float | None = None


def rounded_down(value_a: float, step_a: float) -> float:
    """Round a setpoint down to what a station can do, and to 0.1 A (OCPP 1.6 edition 2, ChargingSchedulePeriod)."""
    return round(floor(value_a / step_a + EPSILON) * step_a, 1)


def settle(setpoint_a: float, low_a: float, high_a: float) -> float:
    """Keep a setpoint inside its band; outside it, go to the band's lower edge, so that noise asks for no more."""
    return setpoint_a if low_a <= setpoint_a <= high_a else low_a


def shape(facts: Facts, wanted: Sequence[Want], ranked: Sequence[int], goals_a: Sequence[float]) -> list[Shaped]:
    """Turn goals into setpoints: at most the commitment, or what the confirmed room allows above it."""
    uncommitted = room(facts, for_raises=True)
    floors_a = [facts.commitments[want.index].committed_a for want in wanted]
    blocked = _jumps(facts, wanted, ranked, goals_a, floors_a, uncommitted)
    asks = [
        Ask(
            lower_a=floors_a[position],
            upper_a=max(floors_a[position], 0.0 if position in blocked else goals_a[position]),
            weight=facts.evses[want.index].weight,
            uses=facts.uses[want.index],
        )
        for position, want in enumerate(wanted)
    ]
    granted = fill(asks, uncommitted)
    return [
        Shaped(value_a=0.0, waits_for=blocked[position])
        if position in blocked
        else _paced(facts, want, goals_a[position], granted.values_a[position], granted.bounds[position])
        for position, want in enumerate(wanted)
    ]


def _jumps(
    facts: Facts,
    wanted: Sequence[Want],
    ranked: Sequence[int],
    goals_a: Sequence[float],
    floors_a: list[float],
    uncommitted: Sequence[float],
) -> dict[int, int]:
    """Let paused EVSEs jump to their minimum where the room for it is confirmed; return who is blocked, and by what."""
    left = list(uncommitted)
    for position, want in enumerate(wanted):
        for constraint, share in facts.uses[want.index]:
            left[constraint] -= share * floors_a[position]
    blocked: dict[int, int] = {}
    for position in ranked:
        want = wanted[position]
        jump_a = facts.evses[want.index].min_a - floors_a[position]
        if jump_a <= 0.0 or goals_a[position] <= 0.0:
            continue
        uses = facts.uses[want.index]
        blocker = next((c for c, share in uses if left[c] < share * jump_a - EPSILON), None)
        if blocker is not None:
            blocked[position] = blocker
            continue
        floors_a[position] += jump_a
        for constraint, share in uses:
            left[constraint] -= share * jump_a
    return blocked


def _paced(facts: Facts, want: Want, goal_a: float, granted_a: float, bound: int | None) -> Shaped:
    """Hold a raise back for its interval, or when it is too small to be worth a write."""
    evse, policy = facts.evses[want.index], facts.snapshot.site.policy
    setpoint_a, memory = facts.commitments[want.index].setpoint_a, facts.evse_memories[want.index]
    # What a station holds below its minimum (its minimum was raised since) cannot be told to it again.
    held_a = setpoint_a if setpoint_a >= evse.min_a else 0.0
    value_a = rounded_down(min(goal_a, granted_a), evse.step_a)
    waits_for = bound if granted_a < goal_a - EPSILON else None
    if value_a <= setpoint_a:
        kept_a = value_a if goal_a < setpoint_a else held_a
        return Shaped(value_a=kept_a if kept_a >= evse.min_a else 0.0, waits_for=waits_for)
    if value_a < evse.min_a:
        return Shaped(value_a=held_a, waits_for=waits_for)
    if held_a > 0.0 and value_a - held_a < policy.dead_band_a:
        return Shaped(value_a=held_a, waits_for=waits_for)
    if memory.raised_at_s is not None and facts.now_s - memory.raised_at_s < policy.raise_interval_s:
        return Shaped(value_a=held_a, ramping_until_s=memory.raised_at_s + policy.raise_interval_s)
    return Shaped(value_a=value_a, waits_for=waits_for)
