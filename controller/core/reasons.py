"""Reasons: why an EVSE gets what it gets, as data. Every setpoint has one, and a ladder of all bounds considered."""

from dataclasses import dataclass
from math import isfinite

from controller.core.demand import Want
from controller.core.electrical import WATTS
from controller.core.facts import BELIEVED, CHANNELS, Facts
from controller.core.model import Reason, ReasonCode
from controller.core.shape import Shaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the steps of the decision said of one controllable EVSE.

    `bound` is the constraint that stopped its share (None: its own cap); `blocker` the one that left no room for its
    minimum; `resting_until_s` its minimum off-time; `left` what every constraint has left after everybody's share.
    """

    want: Want
    admitted: bool
    goal_a: float
    bound: int | None
    blocker: int | None
    resting_until_s: float | None
    shaped: Shaped


def constraint_reason(facts: Facts, constraint: int) -> Reason:
    """Name a constraint: the circuit's limit on a phase, its power limit, or the contract on it."""
    index, channel = divmod(constraint, CHANNELS)
    circuit, bound = facts.snapshot.site.circuits[index], facts.bounds[index]
    if facts.bases[index].quality not in BELIEVED:
        return Reason(code=ReasonCode.METER_STALE, source=circuit.id)
    if channel != WATTS:
        return Reason(code=ReasonCode.CIRCUIT, source=circuit.id, value=bound.value_a[channel], unit="A", phase=channel)
    for budget in facts.budgets:
        if budget.state.circuit == circuit.id and budget.state.allowed_w < bound.value_w:
            return Reason(code=ReasonCode.CONTRACT, source=budget.state.id, value=budget.state.allowed_w, unit="W")
    return Reason(code=ReasonCode.CIRCUIT, source=circuit.id, value=bound.value_w, unit="W")


def reason_of(facts: Facts, verdict: Verdict) -> Reason:
    """Return the one reason that binds."""
    if not verdict.admitted:
        return _not_admitted(facts, verdict)
    shaped = verdict.shaped
    if shaped.waits_for is not None and shaped.value_a < verdict.goal_a:
        binding = constraint_reason(facts, shaped.waits_for)
        if binding.code is ReasonCode.METER_STALE:
            return binding
        return Reason(code=ReasonCode.AWAITING_ROOM, source=binding.source, unit=binding.unit, phase=binding.phase)
    if shaped.ramping_until_s is not None:
        return Reason(code=ReasonCode.RAMP, value=verdict.goal_a, until_s=shaped.ramping_until_s)
    return verdict.want.cap if verdict.bound is None else constraint_reason(facts, verdict.bound)


def _not_admitted(facts: Facts, verdict: Verdict) -> Reason:
    if verdict.blocker is None:
        # Nothing was in its way: it did not ask, because it rests.
        return Reason(code=ReasonCode.MIN_OFF, until_s=verdict.resting_until_s)
    binding = constraint_reason(facts, verdict.blocker)
    if binding.code is ReasonCode.METER_STALE:
        return binding
    return Reason(
        code=ReasonCode.MIN_CURRENT_PAUSE,
        source=binding.source,
        value=binding.value,
        unit=binding.unit,
        phase=binding.phase,
    )


def ladder_of(facts: Facts, verdict: Verdict, left: list[float]) -> tuple[Reason, ...]:
    """Return every bound of one EVSE as the amperes it alone would allow, lowest first."""
    index = verdict.want.index
    rungs = [Reason(code=ReasonCode.EVSE_MAX, value=facts.evses[index].max_a)]
    if verdict.want.cap.code is not ReasonCode.EVSE_MAX:
        rungs.append(verdict.want.cap)
    for constraint, share in facts.uses[index]:
        named = constraint_reason(facts, constraint)
        allows_a = max(0.0, verdict.goal_a + left[constraint] / share)
        if isfinite(allows_a):
            rungs.append(Reason(code=named.code, source=named.source, value=allows_a, unit="A", phase=named.phase))
    return tuple(sorted(rungs, key=lambda rung: rung.value or 0.0))


def fixed_reason(facts: Facts, index: int) -> Reason:
    """Return why an EVSE cannot be given a setpoint now."""
    evidence, commitment = facts.evidence(index), facts.commitments[index]
    if not evidence.online or not evidence.verified:
        return Reason(code=ReasonCode.COMMS_FAILSAFE, value=commitment.committed_a)
    if commitment.disobedient:
        return Reason(code=ReasonCode.DISOBEDIENT, value=commitment.committed_a)
    if evidence.refused:
        return Reason(code=ReasonCode.CHARGER_REFUSED, value=commitment.committed_a)
    if evidence.in_flight:
        return Reason(code=ReasonCode.COMMAND_PENDING, value=commitment.committed_a)
    if commitment.committed_a <= 0.0:
        return Reason(code=ReasonCode.NO_VEHICLE)
    return Reason(code=ReasonCode.AWAITING_TRANSACTION, value=commitment.committed_a)
