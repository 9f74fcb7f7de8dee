"""Vehicles: what a battery on wheels draws from the current that its EVSE offers.

Knows the control pilot's manners (IEC 61851-1: 6 A is the least that can be offered, a change is followed within 5 s)
and the shape of a charge. Does not care who decided the offer. A vehicle is data; `step` is a pure function.
"""

from dataclasses import dataclass, replace
from typing import Final

from controller.core.electrical import NOMINAL_V, ZERO, Phases

PILOT_MIN_A: Final = 6.0
"""IEC 61851-1: the lowest current that the control pilot can offer; anything lower means "do not charge"."""
RESPONSE_S: Final = 5.0
"""IEC 61851-1: the time a vehicle has to follow a new offer."""
TRICKLE_RATIO: Final = 0.1
_SECONDS_PER_HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """A vehicle as it arrives.

    `needs_kwh` is what it takes until it is full, `max_a` what its charger draws at most on each phase it uses,
    `phases` how many phases that are (1, 2 or 3). It waits `wait_s` before it reacts, moves by `ramp_a_per_s` (faster
    when the 5 s of IEC 61851-1 would not be met), draws `draw_ratio` of what is offered, and tapers over the last
    `taper_ratio` of its need.
    """

    needs_kwh: float
    max_a: float = 32.0
    phases: int = 3
    wait_s: float = 1.5
    ramp_a_per_s: float = 8.0
    draw_ratio: float = 0.97
    taper_ratio: float = 0.2

    def __post_init__(self) -> None:
        if self.phases not in (1, 2, 3):
            raise ValueError(f"a vehicle uses 1, 2 or 3 phases, not {self.phases}")
        if not 0 <= self.wait_s < RESPONSE_S:
            raise ValueError(f"wait_s {self.wait_s:g} must be below the {RESPONSE_S:g} s of IEC 61851-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleState:
    """Where a charge stands: energy taken, what it draws per phase, and which offer it is following."""

    charged_wh: float = 0.0
    drawn_a: float = 0.0
    following_a: float = 0.0
    unheard_s: float = 0.0


def is_full(vehicle: Vehicle, state: VehicleState) -> bool:
    """Tell whether the vehicle has what it needs."""
    return state.charged_wh >= vehicle.needs_kwh * 1000.0


def step(
    vehicle: Vehicle,
    state: VehicleState,
    offered_a: float,
    dt_s: float,
    *,
    phases: int = 3,
    voltage_v: float = NOMINAL_V,
) -> VehicleState:
    """Return the state `dt_s` later under an offer of `offered_a`, on an EVSE that has `phases` phases."""
    heard = _listen(vehicle, state, offered_a, dt_s)
    target_a = _target_a(vehicle, heard)
    rate_a_per_s = max(vehicle.ramp_a_per_s, vehicle.max_a / (RESPONSE_S - vehicle.wait_s))
    drawn_a = _approach(state.drawn_a, target_a, rate_a_per_s * dt_s)
    energy_wh = drawn_a * min(vehicle.phases, phases) * voltage_v * dt_s / _SECONDS_PER_HOUR
    return replace(heard, drawn_a=drawn_a, charged_wh=state.charged_wh + energy_wh)


def terminals_a(vehicle: Vehicle, state: VehicleState, phases: int = 3) -> Phases:
    """Return the draw on the EVSE's own terminals, of which it has `phases`."""
    used, drawn_a = min(vehicle.phases, phases), state.drawn_a
    if used <= 0:
        return ZERO
    return (drawn_a, drawn_a if used > 1 else 0.0, drawn_a if used > 2 else 0.0)  # noqa: PLR2004 - the three terminals


def _listen(vehicle: Vehicle, state: VehicleState, offered_a: float, dt_s: float) -> VehicleState:
    """Latch a changed offer once `wait_s` have passed. A further change does not start the wait again."""
    if offered_a == state.following_a:
        return replace(state, unheard_s=0.0)
    unheard_s = state.unheard_s + dt_s
    if unheard_s < vehicle.wait_s:
        return replace(state, unheard_s=unheard_s)
    return replace(state, following_a=offered_a, unheard_s=0.0)


def _target_a(vehicle: Vehicle, state: VehicleState) -> float:
    if state.following_a < PILOT_MIN_A or is_full(vehicle, state):
        return 0.0
    return min(state.following_a * vehicle.draw_ratio, vehicle.max_a * _taper(vehicle, state))


def _taper(vehicle: Vehicle, state: VehicleState) -> float:
    """Return the share of its maximum that the battery still takes: 1, falling linearly near full."""
    tail_wh = vehicle.needs_kwh * 1000.0 * vehicle.taper_ratio
    if tail_wh <= 0:
        return 1.0
    left_wh = vehicle.needs_kwh * 1000.0 - state.charged_wh
    return min(1.0, max(TRICKLE_RATIO, left_wh / tail_wh))


def _approach(here_a: float, target_a: float, most_a: float) -> float:
    if target_a > here_a:
        return min(target_a, here_a + most_a)
    return max(target_a, here_a - most_a)
