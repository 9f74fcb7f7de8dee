"""The board: the latest observation of everything, with its age. Drivers write to it; `take` freezes it for a decision.

Writing decides nothing. A few things only ask for the next decision to come sooner: a meter above a limit, a vehicle
that plugged in, a station that went away.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from controller.core.commit import LEASE_GRACE_S
from controller.core.electrical import Phases
from controller.core.limits import bounds_of
from controller.core.model import VACANT, Evse, EvseEvidence, EvseState, MeterReading, Site, Snapshot
from controller.ports import ChargingStation, Clock, StationInfo

REFUSED_S: Final = 10.0  # how long a refusal is respected before the command is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A connected station."""

    station: ChargingStation
    info: StationInfo


class Board:
    """What is known now. Implements the `Observer` port; single-threaded, like the loop that reads it."""

    def __init__(self, site: Site, clock: Clock, remembered: Mapping[str, EvseEvidence] | None = None) -> None:
        self.site = site
        self.kick = asyncio.Event()
        self.live: dict[str, Live] = {}
        self.rejected: Counter[str] = Counter()
        self._clock = clock
        self._started_at_s = clock.now_s()
        self._limits_a = {c.id: b.value_a for c, b in zip(site.circuits, bounds_of(site.circuits, 0.0), strict=True)}
        self._evses: dict[str, Evse] = {evse.id: evse for evse in site.evses}
        self._by_station: dict[str, list[str]] = {}
        for evse in site.evses:
            self._by_station.setdefault(evse.station, []).append(evse.id)
        self._evidence = {name: (remembered or {}).get(name, EvseEvidence()) for name in self._evses}
        self._refused_until_s: dict[str, float] = {}
        self._meters: dict[str, MeterReading] = {}

    def take(self) -> Snapshot:
        """Freeze what is known into a snapshot."""
        now_s = self._clock.now_s()
        for name, until_s in list(self._refused_until_s.items()):
            if now_s >= until_s:
                del self._refused_until_s[name]
                self._update(name, refused=False)
        self._expire_leases(now_s)
        return Snapshot(
            now_s=now_s,
            unix_s=self._clock.unix_s(),
            clock_synchronised=self._clock.synchronised(),
            started_at_s=self._started_at_s,
            site=self.site,
            meters=dict(self._meters),
            evses=dict(self._evidence),
        )

    def evidence(self, evse: str) -> EvseEvidence:
        """Return what is known of one EVSE."""
        return self._evidence[evse]

    def station_of(self, evse: str) -> Live | None:
        """Return the live station that an EVSE belongs to."""
        return self.live.get(self._evses[evse].station)

    # ------------------------------------------------------------------------------------------ told by the drivers

    def station_online(self, station: ChargingStation, info: StationInfo, *, rebooted: bool) -> None:
        """Tell that a station is ready for commands; after a reboot nothing is assumed of what it holds."""
        key = self._slot(station)
        self.live[key] = Live(station=station, info=info)
        for name in self._by_station.get(key, ()):
            if rebooted:
                self._evidence[name] = replace(
                    self._evidence[name],
                    online=True,
                    verified=False,
                    sent_a=None,
                    sent_at_s=None,
                    confirmed_a=None,
                    confirmed_at_s=None,
                    lease_until_s=None,
                    in_flight=False,
                )
            else:
                # Without a transaction that we know of, a vehicle may have come while nobody was listening.
                known = self._evidence[name].transaction is not None
                state = self._evidence[name].state if known else EvseState.UNKNOWN
                self._update(name, online=True, in_flight=False, state=state)
        self.kick.set()

    def station_offline(self, station: ChargingStation) -> None:
        """Tell that a link is gone; ignored when another session has taken its place (invariant C6)."""
        key = self._slot(station)
        live = self.live.get(key)
        if live is None or live.station is not station:
            return
        del self.live[key]
        for name in self._by_station.get(key, ()):
            self._update(name, online=False, in_flight=False)
        self.kick.set()

    def evse_state(self, evse: str, state: EvseState) -> None:
        """Tell an EVSE's state."""
        before = self._evidence[evse].state
        self._update(evse, state=state)
        if before in VACANT and state not in VACANT:
            self.kick.set()

    def transaction_started(self, evse: str, transaction: str) -> None:
        """Tell that a transaction runs. It begins under the fallback, where that is known to be installed."""
        evidence = self._evidence[evse]
        if evidence.transaction == transaction:
            return
        # A transaction that was running before we knew of it may be under any profile.
        fresh = evidence.verified and evidence.state in (*VACANT, EvseState.PREPARING, EvseState.FINISHING)
        now_s = self._clock.now_s()
        self._evidence[evse] = replace(
            evidence,
            transaction=transaction,
            transaction_since_s=now_s,
            sent_a=self._evses[evse].fallback_a if fresh else None,
            sent_at_s=now_s if fresh else None,
            confirmed_a=self._evses[evse].fallback_a if fresh else None,
            confirmed_at_s=now_s if fresh else None,
            lease_until_s=None,
        )
        self.kick.set()

    def transaction_ended(self, evse: str, transaction: str) -> None:
        """Tell that a transaction ended, and its profile with it; the fallback rules again."""
        evidence = self._evidence[evse]
        if evidence.transaction != transaction:
            return
        fallback_a = self._evses[evse].fallback_a if evidence.verified else None
        self._evidence[evse] = replace(
            evidence,
            transaction=None,
            transaction_since_s=None,
            sent_a=fallback_a,
            confirmed_a=fallback_a,
            lease_until_s=None,
            state=EvseState.FINISHING if evidence.state not in VACANT else evidence.state,
        )

    def evse_measured(self, evse: str, current_a: Phases, *, age_s: float = 0.0) -> None:
        """Tell what an EVSE drew; an older sample never replaces a newer one."""
        measured_at_s = self._clock.now_s() - age_s
        before_s = self._evidence[evse].measured_at_s
        if before_s is None or measured_at_s >= before_s:
            self._update(evse, measured_a=current_a, measured_at_s=measured_at_s)

    def meter_read(self, circuit: str, reading: MeterReading) -> None:
        """Tell a meter's sample; one above the circuit's limit brings the next decision forward."""
        self._meters[circuit] = reading
        limit_a = self._limits_a[circuit]
        if any(reading.current_a[phase] > limit_a[phase] for phase in range(3)):
            self.kick.set()

    def meter_failed(self, circuit: str, problem: str) -> None:
        """Tell that a sample could not be had: counted, and the last one grows old."""
        self.rejected[f"{circuit}: {problem}"] += 1

    # ----------------------------------------------------------------------------------------- told by the reconciler

    def fallback_installed(self, evse: str) -> None:
        """Note that a station has confirmed its fallback; without a transaction that is what it holds."""
        evidence, now_s = self._evidence[evse], self._clock.now_s()
        if evidence.transaction is None:
            fallback_a = self._evses[evse].fallback_a
            evidence = replace(evidence, sent_a=fallback_a, confirmed_a=fallback_a, confirmed_at_s=now_s)
        self._evidence[evse] = replace(evidence, verified=True)

    def command_sent(self, evse: str, value_a: float) -> None:
        """Note that a setpoint is on its way."""
        evidence, now_s = self._evidence[evse], self._clock.now_s()
        # Past its lease a station is at its fallback: the same value again is a change to it.
        lapsed = evidence.lease_until_s is not None and now_s > evidence.lease_until_s
        changed = lapsed or evidence.sent_a != value_a
        self._update(evse, sent_a=value_a, sent_at_s=now_s if changed else evidence.sent_at_s, in_flight=True)

    def command_accepted(self, evse: str, value_a: float, lease_until_s: float | None) -> None:
        """Note that a station accepted a setpoint, and until when it holds it by itself."""
        evidence = self._evidence[evse]
        changed = evidence.confirmed_a != value_a or evidence.confirmed_at_s is None
        confirmed_at_s = self._clock.now_s() if changed else evidence.confirmed_at_s
        self._update(
            evse, confirmed_a=value_a, confirmed_at_s=confirmed_at_s, lease_until_s=lease_until_s, in_flight=False
        )

    def command_refused(self, evse: str) -> None:
        """Note a refusal: the station holds what it held before."""
        self._refused_until_s[evse] = self._clock.now_s() + REFUSED_S
        self._update(evse, sent_a=self._evidence[evse].confirmed_a, in_flight=False, refused=True)

    def command_unanswered(self, evse: str) -> None:
        """Note that no answer came: either value may hold, so both stay."""
        self._update(evse, in_flight=False)

    def remembered(self) -> dict[str, EvseEvidence]:
        """Return the evidence that outlives this process: what was told, never that somebody is online."""
        return {
            name: replace(evidence, online=False, in_flight=False, refused=False)
            for name, evidence in self._evidence.items()
        }

    def _expire_leases(self, now_s: float) -> None:
        """Past its lease, and the grace that its clock and vehicle need, an EVSE holds its fallback."""
        for name, evidence in self._evidence.items():
            if evidence.lease_until_s is None or now_s <= evidence.lease_until_s + LEASE_GRACE_S:
                continue
            fallback_a = self._evses[name].fallback_a
            self._update(
                name,
                sent_a=fallback_a,
                sent_at_s=now_s,
                confirmed_a=fallback_a,
                confirmed_at_s=now_s,
                lease_until_s=None,
            )

    def _slot(self, station: ChargingStation) -> str:
        """A guest's EVSEs belong to the slot it was given, not to its own identity."""
        evses = station.evses
        return self._evses[evses[0]].station if evses else station.id

    def _update(self, evse: str, **changes: object) -> None:
        self._evidence[evse] = replace(self._evidence[evse], **changes)  # type: ignore[arg-type]  # the callers are all above
