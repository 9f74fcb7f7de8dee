"""One hand-built cycle of a small site: a grid connection, a metered hall and three EVSEs.

On-site clock: the cycle is at 1000 s, which is 2026-11-21 10:00:00 UTC. `e1` charges, bound by L2 of the hall; `e2` is
paused for nine more minutes; nothing is known of `e3`, whose station never came.
"""

from dataclasses import replace
from typing import Any

from controller.core.model import (
    Alarm,
    AlarmCode,
    Circuit,
    CircuitState,
    Contract,
    ContractState,
    Decision,
    Evse,
    EvseEvidence,
    EvseState,
    MeterQuality,
    MeterReading,
    Reason,
    ReasonCode,
    Setpoint,
    Site,
    Snapshot,
)
from controller.ports import CycleReport

NOW_S = 1000.0
UNIX_S = 1_795_255_200.0

BOUND_BY_HALL = Reason(code=ReasonCode.CIRCUIT, source="hall-a", value=32.0, unit="A", phase=1)
RESTING = Reason(code=ReasonCode.MIN_OFF, until_s=NOW_S + 540)
SILENT = Reason(code=ReasonCode.COMMS_FAILSAFE, value=6.0)

SITE = Site(
    circuits=(Circuit(id="grid", metered=True), Circuit(id="hall-a", parent="grid")),
    evses=tuple(Evse(id=name, station=f"station-{name}", circuit="hall-a") for name in ("e1", "e2", "e3")),
    contracts=(Contract(id="gtv", circuit="grid", import_w=55_000),),
)

SNAPSHOT = Snapshot(
    now_s=NOW_S,
    unix_s=UNIX_S,
    clock_synchronised=True,
    started_at_s=400.0,
    site=SITE,
    meters={
        "grid": MeterReading(
            sampled_at_s=NOW_S - 0.4, sample=7, period_s=1, current_a=(41.234, 50.0, -3.006), power_w=20_000
        )
    },
    evses={
        "e1": EvseEvidence(
            online=True,
            verified=True,
            state=EvseState.CHARGING,
            transaction="t-1",
            sent_a=16.0,
            confirmed_a=16.0,
            lease_until_s=NOW_S + 123.4,
            measured_a=(15.91, 15.87, 0.0),
            measured_at_s=NOW_S - 2.5,
        ),
        "e2": EvseEvidence(online=True, state=EvseState.SUSPENDED_EVSE, transaction="t-2", confirmed_a=0.0),
    },
)

CIRCUITS = {
    "grid": CircuitState(
        id="grid",
        limit_a=(80.0, 80.0, 80.0),
        limit_source="fuse",
        base_a=(25.0, 34.0, -3.0),
        committed_a=(22.0, 22.0, 22.0),
        headroom_a=(33.0, 24.0, 61.0),
        limit_w=55_200.4,
        base_w=13_000.0,
        committed_w=15_180.0,
        headroom_w=27_020.4,
        quality=MeterQuality.FRESH,
        overloaded=False,
    ),
    "hall-a": CircuitState(
        id="hall-a",
        limit_a=(32.0, 32.0, 32.0),
        limit_source="cable",
        base_a=(0.0, 0.0, 0.0),
        committed_a=(22.0, 22.0, 22.0),
        headroom_a=(10.0, -1.5, 10.0),
        limit_w=None,
        base_w=0.0,
        committed_w=15_180.0,
        headroom_w=None,
        quality=MeterQuality.UNMETERED,
        overloaded=True,
    ),
}


def _setpoint(evse: str, value_a: float, reason: Reason, *ladder: Reason) -> Setpoint:
    return Setpoint(
        evse=evse,
        value_a=value_a,
        fallback_a=6.0 if evse == "e1" else 0.0,
        lease_s=600,
        committed_a=value_a,
        controllable=True,
        reason=reason,
        ladder=ladder,
    )


DECISION = Decision(
    decided_at_s=NOW_S,
    setpoints={
        "e1": _setpoint("e1", 16.0, BOUND_BY_HALL, BOUND_BY_HALL, Reason(code=ReasonCode.EVSE_MAX, value=32.0)),
        "e2": _setpoint("e2", 0.0, RESTING),
        "e3": _setpoint("e3", 0.0, SILENT),
    },
    circuits=CIRCUITS,
    contracts={
        "gtv": ContractState(
            id="gtv",
            circuit="grid",
            limit_w=55_000,
            allowed_w=61_234.5,
            used_wh=4567.8,
            interval_start_unix_s=UNIX_S - 300,
            remaining_s=600,
        )
    },
    alarms=(Alarm(code=AlarmCode.EXCURSION, subject="hall-a", text="hall-a L2 is 1.5 A over its limit"),),
)

REPORT = CycleReport(
    number=600,
    snapshot=SNAPSHOT,
    decision=DECISION,
    duration_s=0.004,
    overruns=2,
    excursion_s={"hall-a": 12.0},
    setpoints_sent=40,
    setpoints_confirmed=38,
    setpoints_failed=1,
    readings_rejected={"timeout": 3},
)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at_s = NOW_S

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return self.at_s

    def unix_s(self) -> float:
        """Return UTC seconds since 1970."""
        return UNIX_S + self.at_s - NOW_S

    def synchronised(self) -> bool:
        """Tell that UTC can be believed."""
        return True


def later(seconds_s: float, **evidence: Any) -> CycleReport:  # noqa: ANN401 - members of EvseEvidence
    """Return the cycle some seconds after it, in which nothing but the named members of `e1`'s evidence changed."""
    evses = {**SNAPSHOT.evses, "e1": replace(SNAPSHOT.evses["e1"], **evidence)}
    snapshot = replace(SNAPSHOT, now_s=NOW_S + seconds_s, unix_s=UNIX_S + seconds_s, evses=evses)
    return replace(REPORT, number=REPORT.number + int(seconds_s), snapshot=snapshot)
