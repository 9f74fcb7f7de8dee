"""An EVSE of a simulated station: contactor, control pilot, meter, and the vehicle at its plug.

Knows what limit it was given, what it offers, what the vehicle draws, and the state that follows from it. Does not care
how any of it is told to a central system. Currents are on its own terminals.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from controller.core.electrical import NOMINAL_V, ZERO, Phases
from controller.core.model import EvseState
from simulators import vehicle as vehicles
from simulators.profiles import Charge, Profile
from simulators.vehicle import Vehicle, VehicleState

DRAWING_A: Final = 0.5
"""Below this a vehicle is held not to draw."""
_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(slots=True)
class Transaction:
    """A transaction as the station knows it.

    `local_id` is its own name for it; `remote_id` what the central system calls it (None: not told yet). `sequence`
    counts the messages about it.
    """

    local_id: str
    id_token: str
    started_unix_s: float
    remote_id: str | None = None
    remote_start_id: int | None = None
    sequence: int = 0

    def next_sequence(self) -> int:
        """Return the next message's number, from 0."""
        self.sequence += 1
        return self.sequence - 1

    @property
    def charge(self) -> Charge:
        """Return what charging profiles need to know of it."""
        return Charge(transaction=self.remote_id, started_unix_s=self.started_unix_s)


@dataclass(slots=True)
class SimulatedEvse:
    """One EVSE with one connector. It is a `Plug` of the physics.

    `limit_a` asks the station what the profiles allow now (infinite: nothing limits); `changed` is told after every
    step, with the seconds it took. `card` is the token presented for the vehicle, None when nobody asks.
    """

    id: str
    number: int
    limit_a: Callable[["SimulatedEvse"], float]
    changed: Callable[["SimulatedEvse", float], None]
    max_a: float = 32.0
    min_a: float = 6.0
    phases: int = 3
    pilot_hold_s: float = 0.0
    vehicle: Vehicle | None = None
    battery: VehicleState = field(default_factory=VehicleState)
    card: str | None = None
    remote_start_id: int | None = None
    transaction: Transaction | None = None
    operative: bool = True
    powered: bool = True
    state: EvseState = EvseState.AVAILABLE
    energy_wh: float = 0.0
    voltage_v: float = NOMINAL_V
    since_sample_s: float = 0.0
    reported: EvseState = EvseState.AVAILABLE
    """The state that the last message about the transaction told."""
    profile_to_come: Profile | None = None
    """What a remote start brought along for the transaction."""
    _setpoint_a: float | None = None
    _offered_a: float = 0.0
    _pilot_s: float = math.inf
    _quiet_s: float = 0.0

    def step(self, dt_s: float, voltage_v: float) -> None:
        """Live for a moment: offer what the profiles allow, let the vehicle follow, count, and find the state."""
        self.voltage_v = voltage_v
        self._offer(dt_s)
        if self.vehicle is not None:
            self.battery = vehicles.step(
                self.vehicle, self.battery, self._offered_a, dt_s, phases=self.phases, voltage_v=voltage_v
            )
        self.energy_wh += self.power_w() * dt_s / _SECONDS_PER_HOUR
        drawing = max(self.draw_a()) >= DRAWING_A
        self._quiet_s = 0.0 if drawing or self._offered_a == 0 else self._quiet_s + dt_s
        self.refresh()
        self.changed(self, dt_s)

    def draw_a(self) -> Phases:
        """Return what the vehicle draws on each terminal."""
        # An open contactor interrupts at once, whatever the vehicle would like.
        if self.vehicle is None or not self._energised():
            return ZERO
        return vehicles.terminals_a(self.vehicle, self.battery, self.phases)

    def power_w(self) -> float:
        """Return the active power that the vehicle draws."""
        return sum(self.draw_a()) * self.voltage_v

    def offered_a(self) -> float:
        """Return what the control pilot offers."""
        return self._offered_a

    def setpoint_a(self) -> float | None:
        """Return the limit that the running transaction is under; None without one."""
        return self._setpoint_a

    def plug(self, vehicle: Vehicle, card: str | None) -> None:
        """Plug a vehicle in, and present a card for it (None: nobody does)."""
        self.vehicle, self.battery = vehicle, VehicleState()
        self.card = card if card is not None else self.card
        self.refresh()

    def unplug(self) -> None:
        """Take the vehicle away."""
        self.vehicle, self.battery = None, VehicleState()
        self.card, self.remote_start_id, self.profile_to_come = None, None, None
        self.refresh()

    def refresh(self) -> None:
        """Find the state again."""
        self.state = self._find_state()

    def _energised(self) -> bool:
        return self.powered and self.transaction is not None

    def _offer(self, dt_s: float) -> None:
        self._pilot_s += dt_s
        if not self._energised():
            self._setpoint_a, self._offered_a = None, 0.0
            return
        limit_a = self.limit_a(self)
        self._setpoint_a = None if limit_a == math.inf else limit_a
        wanted_a = 0.0 if limit_a < self.min_a else min(limit_a, self.max_a)
        # IEC 61851-1: a new duty cycle is held for a while; stopping is allowed at once.
        if wanted_a != self._offered_a and (wanted_a == 0 or self._pilot_s >= self.pilot_hold_s):
            self._offered_a, self._pilot_s = wanted_a, 0.0

    def _find_state(self) -> EvseState:
        if self.transaction is not None:
            return self._find_charging_state()
        if not self.operative:
            return EvseState.UNAVAILABLE
        if self.card is not None:
            return EvseState.PREPARING
        return EvseState.AVAILABLE if self.vehicle is None else EvseState.FINISHING

    def _find_charging_state(self) -> EvseState:
        if self._offered_a < self.min_a:
            return EvseState.SUSPENDED_EVSE
        full = self.vehicle is not None and vehicles.is_full(self.vehicle, self.battery)
        if self._quiet_s > (0.0 if full else vehicles.RESPONSE_S):
            return EvseState.SUSPENDED_EV
        return EvseState.CHARGING


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One sampled value, in the words both versions share."""

    measurand: str
    value: float
    unit: str
    phase: str | None = None


MEASURANDS: Final = ("Current.Import", "Current.Offered", "Energy.Active.Import.Register", "Power.Active.Import")


def readings(evse: SimulatedEvse, measurands: tuple[str, ...]) -> list[Reading]:
    """Return what the EVSE's meter shows now. It has no phase that the EVSE does not have."""
    drawn_a = evse.draw_a()
    every = [
        Reading(measurand="Current.Import", value=drawn_a[n], unit="A", phase=f"L{n + 1}") for n in range(evse.phases)
    ]
    every += [
        Reading(measurand="Current.Offered", value=evse.offered_a(), unit="A"),
        Reading(measurand="Energy.Active.Import.Register", value=evse.energy_wh, unit="Wh"),
        Reading(measurand="Power.Active.Import", value=evse.power_w(), unit="W"),
    ]
    return [reading for reading in every if reading.measurand in measurands]
