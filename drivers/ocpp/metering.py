"""Meter values: from what stations write to amperes per site phase.

Knows the spellings of phases and units that stations use, and what to make of values without them. Does not care which
message carried them. Currents are drawn from the grid: positive.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from controller.core.electrical import HIGHEST_V, LOWEST_V, NOMINAL_V, Phases
from controller.core.model import Evse
from drivers.ocpp.events import Quantity, Reading, Sample

# The widest current and power of any EVSE (MCS: 3000 A, 3.75 MW); beyond is a wrong unit, or no measurement.
_CREDIBLE: Final[Mapping[Quantity, float]] = {
    Quantity.CURRENT_A: 3_000.0,
    Quantity.POWER_W: 4e6,
    Quantity.VOLTAGE_V: 1_500.0,
    Quantity.ENERGY_WH: 1e12,
}
_QUANTITIES: Final[Mapping[str, Quantity]] = {
    "current.import": Quantity.CURRENT_A,
    "power.active.import": Quantity.POWER_W,
    "voltage": Quantity.VOLTAGE_V,
    "energy.active.import.register": Quantity.ENERGY_WH,
    "": Quantity.ENERGY_WH,  # OCPP: the measurand that is meant when none is named
}
_FACTORS: Final[Mapping[tuple[Quantity, str], float]] = {
    (Quantity.CURRENT_A, ""): 1.0,
    (Quantity.CURRENT_A, "a"): 1.0,
    (Quantity.CURRENT_A, "ma"): 0.001,
    (Quantity.POWER_W, ""): 1.0,
    (Quantity.POWER_W, "w"): 1.0,
    (Quantity.POWER_W, "kw"): 1000.0,
    (Quantity.VOLTAGE_V, ""): 1.0,
    (Quantity.VOLTAGE_V, "v"): 1.0,
    (Quantity.ENERGY_WH, ""): 1.0,
    (Quantity.ENERGY_WH, "wh"): 1.0,
    (Quantity.ENERGY_WH, "kwh"): 1000.0,
}
# Injet reports the only current of its one-phase stations on "N".
_TERMINALS: Final[Mapping[str, int | None]] = {"": None, "n": None, "l1": 0, "l2": 1, "l3": 2}
_ELSEWHERE: Final = frozenset({"ev", "body"})
_MAX_MULTIPLIER: Final = 12
_NOISE_A: Final = 1.0


def sample(
    value: str | float,
    *,
    measurand: str = "",
    phase: str = "",
    unit: str = "",
    location: str = "",
    multiplier: int = 0,
) -> Sample | None:
    """Return a sampled value in A, W, V or Wh; None when it is not one of these or not credible.

    `multiplier` is the power of ten of OCPP 2.x.
    """
    quantity = _QUANTITIES.get(_plain(measurand))
    factor = _FACTORS.get((quantity, _plain(unit))) if quantity else None
    terminal = _plain(phase).removesuffix("-n")
    number = _number(value)
    if quantity is None or factor is None or number is None or terminal not in _TERMINALS:
        return None
    if _plain(location) in _ELSEWHERE or abs(multiplier) > _MAX_MULTIPLIER:
        return None
    number *= factor * 10.0**multiplier
    return Sample(quantity, number, _TERMINALS[terminal]) if abs(number) <= _CREDIBLE[quantity] else None


def _plain(name: str) -> str:
    return name.strip(" '\"").lower()


def _number(value: str | float) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def newest(readings: Sequence[Reading]) -> Reading | None:
    """Return the last moment's samples; stations that write each measurand as a reading of its own are put together."""
    if not readings:
        return None
    at = readings[-1].at
    return Reading(at, tuple(one for reading in readings if reading.at == at for one in reading.samples))


def energy_wh(readings: Iterable[Reading]) -> int | None:
    """Return the last energy register; where only phases are given, their sum."""
    found: int | None = None
    for reading in readings:
        by_terminal = _by_terminal(reading, Quantity.ENERGY_WH)
        if by_terminal:
            found = round(by_terminal.get(None, sum(by_terminal.values())))
    return found


def current_a(reading: Reading, evse: Evse) -> Phases | None:
    """Return what an EVSE draws on each site phase; None when the reading does not tell.

    The EVSE's own L1, L2, L3 are the site phases that `evse.phases` lists. Without currents they are derived from power
    and voltage (measured, else 230 V).
    """
    amperes = _terminal_currents(reading, len(evse.phases))
    if amperes is None:
        return None
    site = [0.0, 0.0, 0.0]
    for phase, value_a in zip(evse.phases, amperes, strict=True):
        site[phase] = max(0.0, value_a)
    return (site[0], site[1], site[2])


def _terminal_currents(reading: Reading, wired: int) -> list[float] | None:
    currents = _by_terminal(reading, Quantity.CURRENT_A)
    volts = _voltages(reading)
    powers = _by_terminal(reading, Quantity.POWER_W)
    for terminal, power_w in powers.items():
        if terminal is not None and terminal not in currents and (wired > 1 or not currents):
            currents[terminal] = power_w / volts[terminal]
    named = {terminal: value_a for terminal, value_a in currents.items() if terminal is not None}
    total_a = powers[None] / volts[0] if None in powers else currents.get(None)
    if wired == 1:
        # Whatever it calls its only phase: some name the site's phase, not their own terminal.
        given = list(currents.values()) or ([total_a] if total_a is not None else [])
        return [max(given)] if given else None
    if named:
        return _with_the_rest(named, total_a if None in powers else None, wired)
    return None if total_a is None else [total_a / wired] * wired


def _with_the_rest(named: Mapping[int, float], total_a: float | None, wired: int) -> list[float]:
    """Fill in the phases that are not named: from the total where there is one, else they draw nothing."""
    missing = [terminal for terminal in range(wired) if terminal not in named]
    rest_a = 0.0 if total_a is None else total_a - sum(named.values())
    share_a = rest_a / len(missing) if missing and rest_a > _NOISE_A else 0.0
    return [named.get(terminal, share_a) for terminal in range(wired)]


def _voltages(reading: Reading) -> list[float]:
    by_terminal = _by_terminal(reading, Quantity.VOLTAGE_V)
    credible = {key: value_v for key, value_v in by_terminal.items() if LOWEST_V <= value_v <= HIGHEST_V}
    common_v = credible.get(None, NOMINAL_V)
    return [credible.get(terminal, common_v) for terminal in range(3)]


def _by_terminal(reading: Reading, quantity: Quantity) -> dict[int | None, float]:
    return {one.terminal: one.value for one in reading.samples if one.quantity is quantity}
