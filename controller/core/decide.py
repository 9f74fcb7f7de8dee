"""The decision: `decide(snapshot, memory) -> (decision, memory)`. Pure; everything it needs is in its arguments.

The steps: gather the facts, ask who wants what, let in by order, share out, shape into what may be sent now, have it
checked by the guard, and say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from controller.core.allocate import Ask, Filled, admit, fill
from controller.core.demand import Want, order, remember, resting_until_s, wants
from controller.core.electrical import WATTS, Load, amperes, load_of, on_phases, total
from controller.core.facts import BELIEVED, CHANNELS, Facts, gather, margins, room, voltage_v
from controller.core.guard import inspect, safe_value_a, unfit
from controller.core.limits import Bound
from controller.core.model import (
    MEMORY_VERSION,
    Alarm,
    AlarmCode,
    CircuitState,
    Decision,
    EvseMemory,
    Memory,
    MeterQuality,
    Reason,
    ReasonCode,
    Setpoint,
    Snapshot,
)
from controller.core.reasons import Verdict, fixed_reason, ladder_of, reason_of
from controller.core.shape import settle, shape

LONGEST_CYCLE_S = 60.0  # a longer pause between two decisions is not counted as service


def decide(snapshot: Snapshot, memory: Memory) -> tuple[Decision, Memory]:
    """Decide every setpoint of the site anew, from one snapshot and the memory of the decision before."""
    if memory.version != MEMORY_VERSION:
        memory = Memory()
    facts = gather(snapshot, memory)
    verdicts, left = _share(facts)
    values_a = {verdict.want.index: verdict.shaped.value_a for verdict in verdicts}
    findings = inspect(facts, values_a)
    stopped = frozenset(index for finding in findings for index in finding.evses)
    for index in stopped:
        held = facts.commitments[index]
        values_a[index] = safe_value_a(facts.evses[index], held.setpoint_a, held.committed_a)
    infeasible = unfit(facts, _lowest(facts))
    alarms = [Alarm(code=AlarmCode.GUARD, subject=f.subject, text=f"{f.invariant}: {f.text}") for f in findings]
    alarms += [Alarm(code=AlarmCode.INFEASIBLE, subject=f.subject, text=f.text) for f in infeasible]
    alarms += _alarms(facts)
    decision = Decision(
        decided_at_s=snapshot.now_s,
        setpoints=_setpoints(facts, verdicts, values_a | _fenced(facts), left, stopped),
        circuits=_circuits(facts, values_a),
        contracts={budget.state.id: budget.state for budget in facts.budgets},
        alarms=tuple(alarms),
        feasible=not infeasible,
    )
    return decision, _remembered(facts, memory, verdicts, values_a)


# -------------------------------------------------------------------------------------------------------- the sharing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shares:
    """Two fillings: the most that fits, and the same with the margin that raises leave free."""

    high: Filled
    low: Filled


def _share(facts: Facts) -> tuple[list[Verdict], list[float]]:
    """Let in, share out and shape; also return what every constraint has left."""
    wanted = wants(facts)
    ranked = order(facts, wanted)
    capacity, margin = room(facts, for_raises=False), margins(facts)
    asks = [_ask(facts, want) for want in wanted]
    resting = [resting_until_s(facts, want.index) for want in wanted]
    newcomers = [margin if facts.evse_memories[want.index].on_since_s is None else None for want in wanted]
    awake = [position for position in ranked if resting[position] is None]
    must = {i for i, want in enumerate(wanted) if facts.evses[want.index].never_zero}
    admitted, blockers = admit(asks, awake, capacity, newcomers, must=must)
    shares = _fill_both(asks, admitted, capacity, margin)
    goals_a = [
        settle(facts.commitments[want.index].setpoint_a, shares.low.values_a[i], shares.high.values_a[i])
        if admitted[i]
        else 0.0
        for i, want in enumerate(wanted)
    ]
    shaped = shape(facts, wanted, ranked, goals_a)
    verdicts = [
        Verdict(
            want=want,
            admitted=admitted[i],
            goal_a=goals_a[i],
            bound=shares.low.bounds[i],
            blocker=blockers[i],
            resting_until_s=resting[i],
            shaped=shaped[i],
        )
        for i, want in enumerate(wanted)
    ]
    return verdicts, list(shares.high.left)


def _ask(facts: Facts, want: Want) -> Ask:
    evse = facts.evses[want.index]
    return Ask(lower_a=evse.min_a, upper_a=want.upper_a, weight=evse.weight, uses=facts.uses[want.index])


def _fill_both(
    asks: Sequence[Ask], admitted: Sequence[bool], capacity: Sequence[float], margin: Sequence[float]
) -> _Shares:
    """Fill with and without the margin. Who is not in asks for nothing."""
    nobody = Ask(lower_a=0.0, upper_a=0.0, weight=1.0, uses=())
    asking = [ask if isin else nobody for ask, isin in zip(asks, admitted, strict=True)]
    reduced = [c - m for c, m in zip(capacity, margin, strict=True)]
    return _Shares(high=fill(asking, capacity), low=fill(asking, reduced))


def _fenced(facts: Facts) -> dict[int, float]:
    """Return what disobedient EVSEs are told: what they were, or their lowest where pausing others does not suffice."""
    left, told_a = room(facts, for_raises=False), {}
    for index, commitment in enumerate(facts.commitments):
        if not commitment.disobedient:
            continue
        evse = facts.evses[index]
        if any(left[constraint] < 0.0 for constraint, _ in facts.uses[index]):
            told_a[index] = evse.min_a if evse.never_zero else 0.0
        else:
            told_a[index] = commitment.setpoint_a
    return told_a


def _lowest(facts: Facts) -> list[float]:
    """The least each EVSE can be brought to now: what it is committed to, or a pause, or the minimum it must keep."""
    return [
        commitment.committed_a if not commitment.controllable else evse.min_a if evse.never_zero else 0.0
        for evse, commitment in zip(facts.evses, facts.commitments, strict=True)
    ]


# --------------------------------------------------------------------------------------------------------- the answer


def _setpoints(
    facts: Facts, verdicts: Sequence[Verdict], values_a: dict[int, float], left: list[float], stopped: frozenset[int]
) -> dict[str, Setpoint]:
    by_index = {verdict.want.index: verdict for verdict in verdicts}
    lease_s, result = facts.snapshot.site.policy.lease_s, {}
    for index, evse in enumerate(facts.evses):
        verdict, commitment = by_index.get(index), facts.commitments[index]
        ladder: tuple[Reason, ...] = ()
        if verdict is None:
            reason = fixed_reason(facts, index)
        else:
            reason, ladder = reason_of(facts, verdict), ladder_of(facts, verdict, left)
            reason = Reason(code=ReasonCode.GUARD) if index in stopped else reason
        result[evse.id] = Setpoint(
            evse=evse.id,
            value_a=values_a.get(index, commitment.setpoint_a),
            fallback_a=evse.fallback_a,
            lease_s=lease_s,
            committed_a=commitment.committed_a,
            controllable=verdict is not None,
            reason=reason,
            ladder=ladder,
        )
    return result


def _circuits(facts: Facts, values_a: dict[int, float]) -> dict[str, CircuitState]:
    """Sum up every circuit as it will stand, at worst, once the decision is out."""
    loads = [_worst_load(facts, index, values_a) for index in range(len(facts.evses))]
    result = {}
    for index, circuit in enumerate(facts.snapshot.site.circuits):
        base, bound, limit = facts.bases[index], facts.bounds[index], facts.limit(index)
        committed = total(loads[evse] for evse in facts.tree.below[index])
        left = [limit[channel] - base.load[channel] - committed[channel] for channel in range(CHANNELS)]
        result[circuit.id] = CircuitState(
            id=circuit.id,
            limit_a=bound.value_a,
            limit_source=bound.source,
            base_a=amperes(base.load),
            committed_a=amperes(committed),
            headroom_a=(left[0], left[1], left[2]),
            limit_w=limit[3] if isfinite(limit[3]) else None,
            base_w=base.load[3],
            committed_w=committed[3],
            headroom_w=left[3] if isfinite(limit[3]) else None,
            quality=base.quality,
            overloaded=_excess(base.measured, bound) is not None,
        )
    return result


def _worst_load(facts: Facts, index: int, values_a: dict[int, float]) -> Load:
    worst_a = max(facts.commitments[index].committed_a, values_a.get(index, 0.0))
    root = facts.snapshot.site.circuits[facts.tree.roots_of_evses[index]]
    return load_of(on_phases(worst_a, facts.evses[index].phases), voltage_v(facts.snapshot, root.id))


def _alarms(facts: Facts) -> list[Alarm]:
    alarms = []
    for circuit, base, bound in zip(facts.snapshot.site.circuits, facts.bases, facts.bounds, strict=True):
        if base.quality in (MeterQuality.STALE, MeterQuality.LOST):
            text = "no believable reading: reckoning with the worst base load"
            alarms.append(Alarm(code=AlarmCode.METER_LOST, subject=circuit.id, text=text))
        elif (excess := _excess(base.measured, bound)) is not None:
            alarms.append(Alarm(code=AlarmCode.EXCURSION, subject=circuit.id, text=excess))
    return alarms + _station_alarms(facts) + _contract_alarms(facts)


def _excess(measured: Load | None, bound: Bound) -> str | None:
    """Describe the phase that is most above its limit, or the power that is."""
    if measured is None:
        return None
    excess_a, phase = max((measured[phase] - bound.value_a[phase], phase) for phase in range(3))
    if excess_a > 0.0:
        return f"L{phase + 1} carries {measured[phase]:.1f} A of {bound.value_a[phase]:.1f} A"
    if measured[WATTS] > bound.value_w:
        return f"carries {measured[WATTS] / 1000:.1f} kW of {bound.value_w / 1000:.1f} kW"
    return None


def _station_alarms(facts: Facts) -> list[Alarm]:
    alarms = []
    for index, commitment in enumerate(facts.commitments):
        evse, evidence = facts.evses[index].id, facts.evidence(index)
        if commitment.deaf:
            text = f"no proof of what it holds: {commitment.committed_a:g} A are kept free for it"
            alarms.append(Alarm(code=AlarmCode.STATION_DEAF, subject=evse, text=text))
        elif commitment.disobedient:
            text = f"draws more than its setpoint: fenced at {commitment.committed_a:.1f} A"
            alarms.append(Alarm(code=AlarmCode.DISOBEDIENT, subject=evse, text=text))
        elif evidence.refused:
            alarms.append(Alarm(code=AlarmCode.CHARGER_REFUSED, subject=evse, text="refuses its charging profile"))
    return alarms


def _contract_alarms(facts: Facts) -> list[Alarm]:
    alarms = []
    position = {circuit.id: index for index, circuit in enumerate(facts.snapshot.site.circuits)}
    for budget in facts.budgets:
        base = facts.bases[position[budget.state.circuit]]
        if base.quality in BELIEVED and base.load[3] > budget.state.allowed_w:
            text = f"the base load of {base.load[3] / 1000:.1f} kW alone is above what is left"
            alarms.append(Alarm(code=AlarmCode.CONTRACT_AT_RISK, subject=budget.state.id, text=text))
    if facts.snapshot.site.contracts and not facts.snapshot.clock_synchronised:
        text = "the clock is not synchronised: contracts are kept at every instant instead of on average"
        alarms.append(Alarm(code=AlarmCode.CLOCK_UNSYNCHRONISED, subject="clock", text=text))
    return alarms


def _remembered(facts: Facts, memory: Memory, verdicts: Sequence[Verdict], values_a: dict[int, float]) -> Memory:
    before_s = facts.now_s if memory.decided_at_s is None else memory.decided_at_s
    elapsed_s = min(max(0.0, facts.now_s - before_s), LONGEST_CYCLE_S)
    evses: dict[str, EvseMemory] = {evse.id: kept for evse, kept in zip(facts.evses, facts.evse_memories, strict=True)}
    for verdict in verdicts:
        index = verdict.want.index
        evses[facts.evses[index].id] = remember(
            facts, index, values_a[index], reclaimed=verdict.want.reclaimed, elapsed_s=elapsed_s
        )
    return Memory(
        decided_at_s=facts.now_s,
        evses=evses,
        circuits=facts.circuit_memories,
        contracts=facts.contract_memories,
    )
