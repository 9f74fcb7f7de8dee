"""The public state: one cycle as plain dicts, the same for HTTP and MQTT.

Knows which numbers people and programs may see, in which order and how precise. Does not care who sends them where.
Amperes are per phase (a list is L1, L2, L3), import is positive. What is unknown is None, never 0. Ages and remaining
times are as of the cycle; `cycle_age_s` tells how old that is. Instants are UTC.
"""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from controller.core.electrical import Phases
from controller.core.explain import DEFAULT_LANGUAGE, explain, phase_name
from controller.core.model import (
    Alarm,
    Circuit,
    CircuitState,
    ContractState,
    Evse,
    EvseEvidence,
    Reason,
    Setpoint,
    Snapshot,
)
from controller.ports import CycleReport

Document = dict[str, Any]

AGEING: Final = frozenset({"reading_age_s", "measured_age_s", "lease_remaining_s", "why"})
"""Members that change by the passing of time alone (`why` may tell a remaining time; its facts are in `reason`)."""

_UNKNOWN: Final = EvseEvidence()


def document(report: CycleReport, *, now_s: float, language: str = DEFAULT_LANGUAGE) -> Document:
    """Return the whole site at one cycle; `now_s` on the monotonic clock dates the answer."""
    return {
        "site": site(report, now_s=now_s),
        "circuits": list(circuits(report).values()),
        "contracts": [contract(state) for state in report.decision.contracts.values()],
        "evses": list(evses(report, language).values()),
    }


def site(report: CycleReport, *, now_s: float) -> Document:
    """Return the head of the document: when, how old, and what is wrong."""
    return {
        "time": utc(report.snapshot.unix_s),
        "cycle": report.number,
        "cycle_age_s": cycle_age_s(report, now_s),
        "clock_synchronised": report.snapshot.clock_synchronised,
        "feasible": report.decision.feasible,
        "alarms": [_alarm(alarm) for alarm in report.decision.alarms],
    }


def cycle_age_s(report: CycleReport, now_s: float) -> float | None:
    """Return how long ago the cycle took its snapshot, in seconds."""
    return number(max(0.0, now_s - report.snapshot.now_s))


def circuits(report: CycleReport) -> Mapping[str, Document]:
    """Return every circuit of the site file, by id, in its order."""
    return {node.id: _circuit(report, node) for node in report.snapshot.site.circuits}


def evses(report: CycleReport, language: str = DEFAULT_LANGUAGE) -> Mapping[str, Document]:
    """Return every EVSE of the site, by id, in its order."""
    return {evse.id: _evse(report, evse, language) for evse in report.snapshot.site.evses}


def contract(state: ContractState) -> Document:
    """Return where a contract stands in its running interval."""
    return {
        "id": state.id,
        "circuit": state.circuit,
        "limit_kw": number(state.limit_w / 1000),
        "allowed_kw": number(state.allowed_w / 1000),
        "used_kwh": number(state.used_wh / 1000, digits=3),
        "remaining_s": number(state.remaining_s, digits=1),
        "interval_start": utc(state.interval_start_unix_s),
    }


def settled(entry: Document) -> Document:
    """Return a circuit or EVSE without what changes by the passing of time alone."""
    return {name: value for name, value in entry.items() if name not in AGEING}


def encode(entry: Mapping[str, object]) -> bytes:
    """Return JSON, the same bytes for the same values. ASCII only: a station's text may hold what UTF-8 cannot."""
    return json.dumps(entry, allow_nan=False, separators=(",", ":")).encode("ascii")


def _circuit(report: CycleReport, node: Circuit) -> Document:
    reading = report.snapshot.meters.get(node.id)
    state = report.decision.circuits.get(node.id)
    return {
        "id": node.id,
        "parent": node.parent,
        "measured_a": phases(reading.current_a) if reading else None,
        "reading_age_s": _age_s(reading.sampled_at_s, report.snapshot) if reading else None,
        **(_circuit_decision(state) if state else dict.fromkeys(_CIRCUIT_DECISION)),
        "excursion_s": number(report.excursion_s.get(node.id, 0.0), digits=1),
    }


def _circuit_decision(state: CircuitState) -> Document:
    return {
        "limit_a": phases(state.limit_a),
        "limit_source": state.limit_source,
        "quality": state.quality.value,
        "base_a": phases(state.base_a),
        "committed_a": phases(state.committed_a),
        "headroom_a": phases(state.headroom_a),
        "limit_w": number(state.limit_w, digits=0),
        "headroom_w": number(state.headroom_w, digits=0),
        "overloaded": state.overloaded,
    }


_CIRCUIT_DECISION: Final = (
    *("limit_a", "limit_source", "quality", "base_a", "committed_a", "headroom_a"),
    *("limit_w", "headroom_w", "overloaded"),
)


def _evse(report: CycleReport, evse: Evse, language: str) -> Document:
    snapshot = report.snapshot
    evidence = snapshot.evses.get(evse.id, _UNKNOWN)
    setpoint = report.decision.setpoints.get(evse.id)
    return {
        "id": evse.id,
        "station": evse.station,
        "circuit": evse.circuit,
        "state": evidence.state.value,
        "online": evidence.online,
        "transaction": evidence.transaction,
        "setpoint_a": number(setpoint.value_a) if setpoint else None,
        "confirmed_a": number(evidence.confirmed_a),
        "measured_a": phases(evidence.measured_a),
        "measured_age_s": _age_s(evidence.measured_at_s, snapshot),
        "lease_remaining_s": _remaining_s(evidence.lease_until_s, snapshot),
        "fallback_a": number(setpoint.fallback_a if setpoint else evse.fallback_a),
        **_why(setpoint, snapshot, language),
    }


def _why(setpoint: Setpoint | None, snapshot: Snapshot, language: str) -> Document:
    if setpoint is None:
        return {"reason": None, "ladder": [], "why": None}
    return {
        "reason": _reason(setpoint.reason, snapshot),
        "ladder": [_reason(bound, snapshot) for bound in setpoint.ladder],
        "why": explain(setpoint.reason, snapshot.now_s, language),
    }


def _reason(reason: Reason, snapshot: Snapshot) -> Document:
    return {
        "code": reason.code.value,
        "source": reason.source or None,
        "value": number(reason.value),
        "unit": None if reason.value is None else reason.unit,
        "phase": phase_name(reason.phase),
        "until_unix_s": _instant_unix_s(reason.until_s, snapshot),
    }


def _alarm(alarm: Alarm) -> Document:
    return {"code": alarm.code.value, "subject": alarm.subject, "text": alarm.text}


def number(value: float | None, *, digits: int = 2) -> float | int | None:
    """Return a number fit for JSON: rounded, never -0.0; None for what is unknown or without bound."""
    if value is None or not math.isfinite(value):
        return None
    # 0 digits gives an int, so that watts read 12345 and not 12345.0.
    return round(value, digits) + 0.0 if digits else round(value)


def phases(value_a: Phases | None) -> list[float | int | None] | None:
    """Return amperes on L1, L2, L3; None when nothing is known."""
    return None if value_a is None else [number(current_a) for current_a in value_a]


def utc(unix_s: float) -> str:
    """Return an instant as RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _age_s(at_s: float | None, snapshot: Snapshot) -> float | None:
    return None if at_s is None else number(max(0.0, snapshot.now_s - at_s))


def _remaining_s(until_s: float | None, snapshot: Snapshot) -> float | None:
    return None if until_s is None else number(max(0.0, until_s - snapshot.now_s), digits=1)


def _instant_unix_s(at_s: float | None, snapshot: Snapshot) -> float | None:
    """Put an instant of the gateway's monotonic clock, which means nothing outside, on UTC."""
    return None if at_s is None else number(snapshot.unix_s + at_s - snapshot.now_s, digits=0)
