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

    `committed_a` is its worst credible draw, `draw_a` what it was last seen to draw (None: silent, so unknown).
    `controllable` means that a setpoint can be sent now and would be believed; otherwise it is a fixed load.
    """

    committed_a: float
    setpoint_a: float
    draw_a: Phases | None
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
    unknown = evidence.sent_a is None or evidence.confirmed_a is None
    if unknown and now_s - snapshot.started_at_s <= lease_s + LEASE_GRACE_S:
        # Nobody remembers what it was told, so it may hold the lease of a gateway before this one.
        return evse.rated_a
    ended = now_s > _lease_until_s(evidence, lease_s) + LEASE_GRACE_S
    return evse.fallback_a if ended else max(told_a(evidence), evse.fallback_a)


def told_a(evidence: EvseEvidence) -> float:
    """Return the most of what was sent and what was confirmed: a command without an answer may have arrived."""
    return max(evidence.sent_a or 0.0, evidence.confirmed_a or 0.0)


def _lease_until_s(evidence: EvseEvidence, lease_s: float) -> float:
    """Return when the last lease that a station may hold ends. One that was not answered may have begun as well."""
    if evidence.sent_a == evidence.confirmed_a or evidence.sent_at_s is None:
        return inf if evidence.lease_until_s is None else evidence.lease_until_s
    return max(evidence.lease_until_s or -inf, evidence.sent_at_s + lease_s)


def commit(evse: Evse, evidence: EvseEvidence, memory: EvseMemory, snapshot: Snapshot) -> tuple[Commitment, EvseMemory]:
    """Judge one EVSE and remember what is still held for it."""
    now_s = snapshot.now_s
    if memory.transaction != evidence.transaction:
        memory = EvseMemory(transaction=evidence.transaction, held_a=memory.held_a)
    vacant = evidence.online and evidence.transaction is None and evidence.state in VACANT
    draw = ZERO if vacant else fresh_sample(snapshot.site.policy, evidence, now_s)
    if vacant:
        return _fixed(0.0, draw, memory, deaf=False)
    measured_a = 0.0 if draw is None else max(draw)
    deaf = not (evidence.online and evidence.verified)
    if deaf or (evidence.transaction is None and evidence.state in UNEXPLAINED):
        return _fixed(max(deaf_outcome_a(evse, evidence, snapshot), measured_a), draw, memory, deaf=deaf)
    if evidence.transaction is None:
        # Its fallback (TxDefaultProfile) is what a vehicle would start with.
        return _fixed(max(evse.fallback_a, measured_a), draw, memory, deaf=False)
    return _commanded(evse, evidence, draw, memory, snapshot)


def commit_all(snapshot: Snapshot, memories: Mapping[str, EvseMemory]) -> list[tuple[Commitment, EvseMemory]]:
    """Judge every EVSE of the site, in its order."""
    nothing, fresh = EvseEvidence(), EvseMemory()
    return [
        commit(evse, snapshot.evses.get(evse.id, nothing), memories.get(evse.id, fresh), snapshot)
        for evse in snapshot.site.evses
    ]


def _fixed(
    committed_a: float, draw_a: Phases | None, memory: EvseMemory, *, deaf: bool
) -> tuple[Commitment, EvseMemory]:
    commitment = Commitment(
        committed_a=committed_a,
        setpoint_a=committed_a,
        draw_a=draw_a,
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
    if evidence.sent_a is None or evidence.confirmed_a is None:
        allowed_a = max(allowed_a, deaf_outcome_a(evse, evidence, snapshot))
    # A sample from before the last change says nothing about obedience to it.
    age_s = _sampled_after_s(evidence)
    measured_a = max(draw_a) if draw_a is not None and age_s >= 0.0 else 0.0
    held_a = _held(evse, evidence, memory.held_a, allowed_a, measured_a, now_s)
    overdrawn_since_s = _overdrawn_since(memory, measured_a if age_s >= SETTLE_S else 0.0, allowed_a, now_s)
    if draw_a is None and memory.overdrawn_since_s is not None:
        # Whoever drew too much and then sends no samples is not taken for obedient.
        held_a, overdrawn_since_s = max(memory.held_a, allowed_a), memory.overdrawn_since_s
    disobedient = overdrawn_since_s is not None and now_s - overdrawn_since_s >= OVERDRAW_S
    commitment = Commitment(
        committed_a=held_a,
        setpoint_a=allowed_a if evidence.sent_a is None else evidence.sent_a,
        draw_a=draw_a,
        controllable=not (evidence.in_flight or evidence.refused or disobedient),
        deaf=False,
        disobedient=disobedient,
    )
    return commitment, replace(memory, held_a=held_a, overdrawn_since_s=overdrawn_since_s)


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


def _overdrawn_since(memory: EvseMemory, measured_a: float, allowed_a: float, now_s: float) -> float | None:
    if measured_a <= allowed_a + max(OVERDRAW_A, OVERDRAW_RATIO * allowed_a):
        return None
    return now_s if memory.overdrawn_since_s is None else memory.overdrawn_since_s
