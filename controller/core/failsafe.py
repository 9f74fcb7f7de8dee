"""Failsafe: the decision of last resort, for when `decide` itself fails. It raises nothing."""

from controller.core.model import (
    Alarm,
    AlarmCode,
    Decision,
    EvseEvidence,
    Reason,
    ReasonCode,
    Setpoint,
    Snapshot,
)


def failsafe(snapshot: Snapshot, problem: str) -> Decision:
    """Return a decision that brings every controlled EVSE to its fallback, or leaves it lower where it is already."""
    unknown = EvseEvidence()
    setpoints = {}
    for evse in snapshot.site.evses:
        evidence = snapshot.evses.get(evse.id, unknown)
        value_a = evse.fallback_a if evidence.sent_a is None else min(evidence.sent_a, evse.fallback_a)
        setpoints[evse.id] = Setpoint(
            evse=evse.id,
            value_a=value_a,
            fallback_a=evse.fallback_a,
            lease_s=snapshot.site.policy.lease_s,
            committed_a=max(evse.rated_a, value_a),
            controllable=evidence.online and evidence.transaction is not None and not evidence.in_flight,
            reason=Reason(code=ReasonCode.GUARD),
        )
    alarm = Alarm(code=AlarmCode.DECIDE_FAILED, subject="controller", text=problem)
    return Decision(
        decided_at_s=snapshot.now_s, setpoints=setpoints, circuits={}, contracts={}, alarms=(alarm,), feasible=False
    )
