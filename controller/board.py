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

ABANDONED_S: Final = 10.0  # available for so long with a transaction: the message of its end was lost
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
        self._bounds = {c.id: b for c, b in zip(site.circuits, bounds_of(site.circuits, 0.0), strict=True)}
        self._evses: dict[str, Evse] = {evse.id: evse for evse in site.evses}
        self._by_station: dict[str, list[str]] = {}
        for evse in site.evses:
            self._by_station.setdefault(evse.station, []).append(evse.id)
        self._evidence = {name: (remembered or {}).get(name, EvseEvidence()) for name in self._evses}
        self._refused_until_s: dict[str, float] = {}
        self._before: dict[str, tuple[float | None, float | None]] = {}
        self._busy: set[str] = set()
        self._available_since_s: dict[str, float] = {}
        self._meters: dict[str, MeterReading] = {}

    def take(self) -> Snapshot:
        """Freeze what is known into a snapshot."""
        now_s = self._clock.now_s()
        for name, until_s in list(self._refused_until_s.items()):
            if now_s >= until_s:
                del self._refused_until_s[name]
                self._update(name, refused=False)
        self._expire_leases(now_s)
        self._end_abandoned(now_s)
        return Snapshot(
            now_s=now_s,
            unix_s=self._clock.unix_s(),
            clock_synchronised=self._clock.synchronised(),
            started_at_s=self._started_at_s,
            site=self.site,
            meters=dict(self._meters),
            evses={
                name: replace(evidence, in_flight=True) if self._evses[name].station in self._busy else evidence
                for name, evidence in self._evidence.items()
            },
        )

    def evidence(self, evse: str) -> EvseEvidence:
        """Return what is known of one EVSE."""
        return self._evidence[evse]

    def station_of(self, evse: str) -> Live | None:
        """Return the live station that an EVSE belongs to."""
        return self.live.get(self._evses[evse].station)

    # ------------------------------------------------------------------------------------------ told by the drivers

    def station_online(self, station: ChargingStation, info: StationInfo, *, rebooted: bool) -> None:
        """Tell that a station is ready for commands.

        After a reboot it may hold what it was told, or nothing: its fallback is installed and its setpoint sent anew.
        """
        key = self._slot(station)
        self.live[key] = Live(station=station, info=info)
        for name in self._by_station.get(key, ()):
            # Without a transaction that we know of, a vehicle may have come while nobody was listening.
            known = self._evidence[name].transaction is not None and not rebooted
            self._update(
                name,
                online=True,
                in_flight=False,
                state=self._evidence[name].state if known else EvseState.UNKNOWN,
            )
            if rebooted:
                may_hold_a = max(self._evidence[name].may_hold_a or 0.0, self._evses[name].fallback_a)
                self._update(name, verified=False, may_hold_a=may_hold_a, lease_until_s=None)
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
        if state is EvseState.AVAILABLE:
            self._available_since_s.setdefault(evse, self._clock.now_s())
        else:
            self._available_since_s.pop(evse, None)
        if before in VACANT and state not in VACANT:
            self.kick.set()

    def transaction_started(self, evse: str, transaction: str) -> None:
        """Tell that a transaction runs. It begins under the fallback, where that is known to be installed."""
        evidence = self._evidence[evse]
        if evidence.transaction == transaction:
            return
        now_s = self._clock.now_s()
        self._available_since_s.pop(evse, None)
        self._update(evse, transaction=transaction, transaction_since_s=now_s)
        # A transaction that was running before we knew of it may be under any profile.
        if evidence.verified and evidence.state in (*VACANT, EvseState.PREPARING, EvseState.FINISHING):
            self._hold_fallback(evse, now_s)
        else:
            self._forget_setpoint(evse)
        self.kick.set()

    def transaction_ended(self, evse: str, transaction: str) -> None:
        """Tell that a transaction ended, and its profile with it; the fallback rules again."""
        evidence = self._evidence[evse]
        if evidence.transaction != transaction:
            return
        state = evidence.state if evidence.state in VACANT else EvseState.FINISHING
        self._update(evse, transaction=None, transaction_since_s=None, state=state)
        if evidence.verified:
            self._hold_fallback(evse, evidence.confirmed_at_s)
        else:
            self._forget_setpoint(evse)

    def evse_measured(self, evse: str, current_a: Phases, *, age_s: float = 0.0) -> None:
        """Tell what an EVSE drew; an older sample never replaces a newer one."""
        measured_at_s = self._clock.now_s() - age_s
        before_s = self._evidence[evse].measured_at_s
        if before_s is None or measured_at_s >= before_s:
            self._update(evse, measured_a=current_a, measured_at_s=measured_at_s)

    def meter_read(self, circuit: str, reading: MeterReading) -> None:
        """Tell a meter's sample; one above the circuit's limit brings the next decision forward."""
        self._meters[circuit] = reading
        bound = self._bounds[circuit]
        over = any(reading.current_a[phase] > bound.value_a[phase] for phase in range(3))
        if over or reading.power_w > bound.value_w:
            self.kick.set()

    def meter_failed(self, circuit: str, problem: str) -> None:
        """Tell that a sample could not be had: counted, and the last one grows old."""
        self.rejected[f"{circuit}: {problem}"] += 1

    # ----------------------------------------------------------------------------------------- told by the reconciler

    def fallback_installed(self, evse: str) -> None:
        """Note that a station has confirmed its fallback; without a transaction that is what it holds."""
        self._update(evse, verified=True)
        if self._evidence[evse].transaction is None:
            self._hold_fallback(evse, self._clock.now_s())

    def command_sent(self, evse: str, value_a: float, lease_until_s: float | None = None) -> None:
        """Note that a setpoint is on its way, and until when it may hold by itself if the answer never comes."""
        evidence, now_s = self._evidence[evse], self._clock.now_s()
        # Past its lease a station is at its fallback: the same value again is a change to it.
        lapsed = evidence.lease_until_s is not None and now_s > evidence.lease_until_s
        changed = lapsed or evidence.sent_a != value_a
        self._before[evse] = (evidence.may_hold_a, evidence.lease_latest_s)
        ends_s = [at_s for at_s in (evidence.lease_latest_s, evidence.lease_until_s, lease_until_s) if at_s is not None]
        self._update(
            evse,
            sent_a=value_a,
            sent_at_s=now_s if changed else evidence.sent_at_s,
            may_hold_a=max(evidence.may_hold_a or 0.0, value_a),
            lease_latest_s=max(ends_s, default=None),
            in_flight=True,
        )

    def command_accepted(self, evse: str, value_a: float, lease_until_s: float | None) -> None:
        """Note that a station accepted a setpoint, and until when it holds it by itself."""
        evidence, confirmed_at_s = self._evidence[evse], self._evidence[evse].confirmed_at_s
        if evidence.confirmed_a != value_a or confirmed_at_s is None or (evidence.sent_at_s or 0.0) > confirmed_at_s:
            confirmed_at_s = self._clock.now_s()
        self._update(
            evse,
            confirmed_a=value_a,
            confirmed_at_s=confirmed_at_s,
            may_hold_a=None,
            lease_until_s=lease_until_s,
            lease_latest_s=lease_until_s,
            in_flight=False,
        )

    def command_refused(self, evse: str) -> None:
        """Note a refusal: the station holds what it held before."""
        self._refused_until_s[evse] = self._clock.now_s() + REFUSED_S
        may_hold_a, lease_latest_s = self._before.get(evse, (None, None))
        self._update(
            evse,
            sent_a=self._evidence[evse].confirmed_a,
            may_hold_a=may_hold_a,
            lease_latest_s=lease_latest_s,
            in_flight=False,
            refused=True,
        )

    def command_unanswered(self, evse: str) -> None:
        """Note that no answer came: either value may hold, so both stay."""
        self._update(evse, in_flight=False)

    def occupy(self, evse: str) -> None:
        """Note that the station of an EVSE has a command to answer: until then none of its EVSEs can be commanded."""
        self._busy.add(self._evses[evse].station)

    def release(self, evse: str) -> None:
        """Note that the station of an EVSE can be commanded again."""
        self._busy.discard(self._evses[evse].station)

    def remembered(self) -> dict[str, EvseEvidence]:
        """Return the evidence that outlives this process: what was told, never that somebody is online."""
        return {
            name: replace(evidence, online=False, in_flight=False, refused=False)
            for name, evidence in self._evidence.items()
        }

    def _expire_leases(self, now_s: float) -> None:
        """Past its last lease, and the grace that its clock and vehicle need, an EVSE holds its fallback."""
        for name, evidence in self._evidence.items():
            ends_s = evidence.lease_until_s if evidence.lease_latest_s is None else evidence.lease_latest_s
            if ends_s is None or evidence.confirmed_a is None or now_s <= ends_s + LEASE_GRACE_S:
                continue
            self._hold_fallback(name, now_s)

    def _hold_fallback(self, name: str, at_s: float | None) -> None:
        fallback_a = self._evses[name].fallback_a
        self._update(
            name,
            sent_a=fallback_a,
            sent_at_s=at_s,
            confirmed_a=fallback_a,
            confirmed_at_s=at_s,
            may_hold_a=None,
            lease_until_s=None,
            lease_latest_s=None,
        )

    def _forget_setpoint(self, name: str) -> None:
        self._update(
            name,
            sent_a=None,
            sent_at_s=None,
            confirmed_a=None,
            confirmed_at_s=None,
            may_hold_a=None,
            lease_until_s=None,
            lease_latest_s=None,
        )

    def _end_abandoned(self, now_s: float) -> None:
        """An EVSE that has been available for a while has no transaction: its end was lost."""
        for name, since_s in list(self._available_since_s.items()):
            transaction = self._evidence[name].transaction
            if transaction is not None and now_s - since_s >= ABANDONED_S:
                self.transaction_ended(name, transaction)

    def _slot(self, station: ChargingStation) -> str:
        """A guest's EVSEs belong to the slot it was given, not to its own identity."""
        evses = station.evses
        return self._evses[evses[0]].station if evses else station.id

    def _update(self, evse: str, **changes: object) -> None:
        self._evidence[evse] = replace(self._evidence[evse], **changes)  # type: ignore[arg-type]  # the callers are all above
