"""Commitment: what each EVSE must be reckoned with, from evidence. "Accepted" is not proof; a measurement is.

The rules are docs/control.md, "Commitment": max(last sent, last confirmed, measured); of a silent station its deaf
outcome; room counts as free only when a measurement shows the drop, or when a proven station has had time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from controller.core.electrical import ZERO, Phases
from controller.core.model import VACANT, Evse, EvseEvidence, EvseMemory, EvseState, Policy, Snapshot, Trust

RELEASE_AFTER_S: Final = 10.0
RELEASE_SHARE: Final = 0.8
LEASE_GRACE_S: Final = 10.0  # a station's clock may be late, and its vehicle needs a moment to follow
FOLLOW_S: Final = 5.0  # what a vehicle may take to follow (IEC 61851-1)
SETTLE_S: Final = 10.0  # a vehicle has followed by then: 5 s for the station, 5 s for the vehicle (IEC 61851-1)
OVERDRAW_A: Final = 1.0
OVERDRAW_RATIO: Final = 0.05
OVERDRAW_S: Final = 15.0
# Without a transaction that we know of, a vehicle in these states may charge under any profile.
UNEXPLAINED: Final = frozenset(
    {EvseState.UNKNOWN, EvseState.CHARGING, EvseState.SUSPENDED_EV, EvseState.SUSPENDED_EVSE}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """One EVSE as the rest of the decision sees it. Amperes per active phase unless a phase vector.

    `committed_a` is its worst credible draw, `draw_a` what it was last seen to draw (None: silent, so unknown), and
    `known_a` its lowest credible draw.
    `controllable` means that a setpoint can be sent now and would be believed; otherwise it is a fixed load.
    """

    committed_a: float
    setpoint_a: float
    draw_a: Phases | None
    known_a: Phases
    controllable: bool
    deaf: bool
    disobedient: bool


def oldest_sample_s(policy: Policy) -> float:
    """Return the age past which a station's sample says nothing: two missed samples and 10 s."""
    return 2.0 * policy.sample_interval_s + 10.0


def fresh_sample(policy: Policy, evidence: EvseEvidence, now_s: float) -> Phases | None:
    """Return the last metered current, unless it is too old."""
    if evidence.measured_at_s is None or now_s - evidence.measured_at_s > oldest_sample_s(policy):
        return None
    return evidence.measured_a


def deaf_outcome_a(evse: Evse, evidence: EvseEvidence, snapshot: Snapshot) -> float:
    """Return what a silent or unverified station may draw: by its trust class (design, invariants C1 and C1s)."""
    if evse.trust is Trust.NATIVE:
        return evse.fallback_a
    if evse.trust is Trust.NONE:
        return evse.rated_a
    now_s, lease_s = snapshot.now_s, snapshot.site.policy.lease_s
    if _unknown(evidence) and now_s - snapshot.started_at_s <= lease_s + LEASE_GRACE_S:
        # Nobody remembers what it was told, so it may hold the lease of a gateway before this one.
        return evse.rated_a
    ended = now_s > _lease_ends_s(evidence) + LEASE_GRACE_S
    return evse.fallback_a if ended else max(told_a(evidence), evse.fallback_a)


def told_a(evidence: EvseEvidence) -> float:
    """Return the most that it may have been told: a command without an answer may have arrived."""
    return max(evidence.sent_a or 0.0, evidence.confirmed_a or 0.0, evidence.may_hold_a or 0.0)


def _unknown(evidence: EvseEvidence) -> bool:
    return evidence.sent_a is None or evidence.confirmed_a is None


def _lease_ends_s(evidence: EvseEvidence) -> float:
    """Return when the last lease that it may hold ends; never, when what it was told is no lease."""
    if evidence.lease_latest_s is not None:
        return evidence.lease_latest_s
    return inf if evidence.lease_until_s is None else evidence.lease_until_s


def commit(evse: Evse, evidence: EvseEvidence, memory: EvseMemory, snapshot: Snapshot) -> tuple[Commitment, EvseMemory]:
    """Judge one EVSE and remember what is still held for it."""
    now_s = snapshot.now_s
    if memory.transaction != evidence.transaction:
        memory = EvseMemory(transaction=evidence.transaction, held_a=memory.held_a)
    vacant = evidence.online and evidence.transaction is None and evidence.state in VACANT
    draw = ZERO if vacant else fresh_sample(snapshot.site.policy, evidence, now_s)
    if vacant:
        return _fixed(0.0, draw, ZERO, memory, deaf=False)
    measured_a = 0.0 if draw is None else max(draw)
    deaf = not (evidence.online and evidence.verified)
    if deaf or (evidence.transaction is None and evidence.state in UNEXPLAINED):
        outcome_a = max(deaf_outcome_a(evse, evidence, snapshot), measured_a)
        return _fixed(outcome_a, draw, _known_a(evidence, draw, outcome_a, snapshot), memory, deaf=deaf)
    if evidence.transaction is None:
        # Its fallback (TxDefaultProfile) is what a vehicle would start with.
        return _fixed(max(evse.fallback_a, measured_a), draw, draw or ZERO, memory, deaf=False)
    return _commanded(evse, evidence, draw, memory, snapshot)


def commit_all(snapshot: Snapshot, memories: Mapping[str, EvseMemory]) -> list[tuple[Commitment, EvseMemory]]:
    """Judge every EVSE of the site, in its order."""
    nothing, fresh = EvseEvidence(), EvseMemory()
    return [
        commit(evse, snapshot.evses.get(evse.id, nothing), memories.get(evse.id, fresh), snapshot)
        for evse in snapshot.site.evses
    ]


def _fixed(
    committed_a: float, draw_a: Phases | None, known_a: Phases, memory: EvseMemory, *, deaf: bool
) -> tuple[Commitment, EvseMemory]:
    commitment = Commitment(
        committed_a=committed_a,
        setpoint_a=committed_a,
        draw_a=draw_a,
        known_a=known_a,
        controllable=False,
        deaf=deaf,
        disobedient=False,
    )
    return commitment, replace(memory, held_a=committed_a, overdrawn_since_s=None)


def _commanded(
    evse: Evse, evidence: EvseEvidence, draw_a: Phases | None, memory: EvseMemory, snapshot: Snapshot
) -> tuple[Commitment, EvseMemory]:
    """Judge an EVSE whose transaction we control."""
    now_s = snapshot.now_s
    allowed_a = told_a(evidence)
    if _unknown(evidence):
        allowed_a = max(allowed_a, evse.rated_a if evse.trust is not Trust.NATIVE else evse.fallback_a)
    if evidence.lease_until_s is not None and now_s > evidence.lease_until_s - LEASE_GRACE_S:
        # A lease that nobody renewed may end any moment, and its fallback may be more than a pause.
        allowed_a = max(allowed_a, evse.fallback_a)
    # A sample from before the last change says nothing about obedience to it.
    measured_a = max(draw_a) if draw_a is not None and _sampled_after_s(evidence) >= 0.0 else 0.0
    memory = _judge_obedience(evidence, memory, draw_a, allowed_a, now_s)
    held_a = _held(evse, evidence, memory.held_a, allowed_a, measured_a, now_s)
    if draw_a is None and memory.overdrawn_since_s is not None:
        # Whoever drew too much and then sends no samples is not taken for obedient.
        held_a = max(memory.held_a, allowed_a)
    overdrawn_since_s = memory.overdrawn_since_s
    disobedient = overdrawn_since_s is not None and now_s - overdrawn_since_s >= OVERDRAW_S
    if disobedient and draw_a is not None:
        held_a = max(held_a, *draw_a)
    draw_a = _lowest_credible_a(evidence, draw_a, allowed_a, now_s)
    commitment = Commitment(
        committed_a=held_a,
        setpoint_a=allowed_a if evidence.sent_a is None else evidence.sent_a,
        draw_a=draw_a,
        known_a=_known_a(evidence, draw_a, held_a, snapshot),
        controllable=not (evidence.in_flight or evidence.refused or disobedient),
        deaf=False,
        disobedient=disobedient,
    )
    return commitment, replace(memory, held_a=held_a)


def _judge_obedience(
    evidence: EvseEvidence, memory: EvseMemory, draw_a: Phases | None, allowed_a: float, now_s: float
) -> EvseMemory:
    """Hold each new sample against the most that was allowed of late: a vehicle has 10 s to follow a decrease."""
    high_a, high_at_s = memory.told_high_a, memory.told_high_at_s
    # Without a memory of what was allowed before, only a sample from well after the last change says anything.
    judgeable = high_at_s is not None or _sampled_after_s(evidence) >= SETTLE_S
    if high_at_s is None or allowed_a >= high_a or now_s - high_at_s > SETTLE_S:
        high_a, high_at_s = allowed_a, now_s
    overdrawn_since_s = memory.overdrawn_since_s
    if draw_a is not None and judgeable and _is_new(evidence, memory):
        over = max(draw_a) > high_a + max(OVERDRAW_A, OVERDRAW_RATIO * high_a)
        overdrawn_since_s = (overdrawn_since_s or now_s) if over else None
    return replace(memory, told_high_a=high_a, told_high_at_s=high_at_s, overdrawn_since_s=overdrawn_since_s)


def _is_new(evidence: EvseEvidence, memory: EvseMemory) -> bool:
    """Tell whether the last sample has not been judged yet, and belongs to this transaction."""
    sampled_at_s, since_s = evidence.measured_at_s, evidence.transaction_since_s
    if sampled_at_s is None or sampled_at_s == memory.credited_sample_at_s:
        return False
    return since_s is None or sampled_at_s >= since_s


def _lowest_credible_a(evidence: EvseEvidence, draw_a: Phases | None, allowed_a: float, now_s: float) -> Phases | None:
    """Return the last sample, or less where the station has had time to follow a decrease that came after it."""
    confirmed_at_s = evidence.confirmed_at_s
    if draw_a is None or confirmed_at_s is None or _sampled_after_s(evidence) >= 0.0:
        return draw_a
    if now_s - confirmed_at_s < FOLLOW_S:
        return draw_a
    return (min(draw_a[0], allowed_a), min(draw_a[1], allowed_a), min(draw_a[2], allowed_a))


def _known_a(evidence: EvseEvidence, draw_a: Phases | None, committed_a: float, snapshot: Snapshot) -> Phases:
    """Return the lowest credible draw: the last sample; of a silent station at most what it is reckoned with.

    While a silent station's draw is reckoned with here, the base load may not fall (`baseload`), so that nothing it
    leaves is counted as free. A station that is gone is given up after a lease: the base load then contains it.
    """
    if draw_a is not None:
        return draw_a
    sample, sampled_at_s, since_s = evidence.measured_a, evidence.measured_at_s, evidence.transaction_since_s
    if sample is None or sampled_at_s is None or (since_s is not None and sampled_at_s < since_s):
        return ZERO
    if not evidence.online and snapshot.now_s - sampled_at_s > snapshot.site.policy.lease_s:
        return ZERO
    return (min(sample[0], committed_a), min(sample[1], committed_a), min(sample[2], committed_a))


def _sampled_after_s(evidence: EvseEvidence) -> float:
    """Return how long after the last confirmed change the last sample was taken; negative before it."""
    if evidence.measured_at_s is None or evidence.confirmed_at_s is None:
        return 0.0
    return evidence.measured_at_s - evidence.confirmed_at_s


def _held(
    evse: Evse, evidence: EvseEvidence, held_a: float, allowed_a: float, measured_a: float, now_s: float
) -> float:
    """Let go of the room of a decrease only on evidence."""
    floor_a = max(allowed_a, measured_a)
    if floor_a >= held_a:
        return floor_a
    confirmed_at_s = evidence.confirmed_at_s
    if confirmed_at_s is None or evidence.in_flight:
        return held_a
    proven = evse.trust is not Trust.NONE and now_s - confirmed_at_s >= RELEASE_AFTER_S
    seen = (
        evidence.measured_a is not None
        and _sampled_after_s(evidence) >= 0.0
        and max(evidence.measured_a) <= held_a - RELEASE_SHARE * (held_a - allowed_a)
    )
    return floor_a if proven or seen else held_a
