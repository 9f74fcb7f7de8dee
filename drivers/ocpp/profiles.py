"""Charging profiles: a lease, or a fallback, as a neutral schedule.

Knows how a setpoint becomes periods on a station's clock. Does not care how a version writes them.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from controller.core.model import Evse
from controller.ports import Lease
from drivers.ocpp.timestamps import to_iso

# A schedule whose start is not yet past is ignored by some stations, and leaves a gap without any limit on others
# (OCPP 1.6 §3.13): the first period begins a minute ago.
BACKDATE_S: Final = 60
_STACK_LEVEL: Final = 0  # several stations take no other level (ABB TAC)
_PROFILE_ID_STEP: Final = 10_000


class Purpose(StrEnum):
    """What a profile is for; the words are the same on every wire."""

    TX_DEFAULT = "TxDefaultProfile"
    TX = "TxProfile"


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_s` after the schedule's start, `limit_a` per phase."""

    start_s: int
    limit_a: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A schedule for one EVSE. `start_unix_s` is on the station's clock; None: relative, in force at once.

    `id` is the same for the same purpose and EVSE, so that a new profile replaces the one before.
    """

    purpose: Purpose
    evse: int
    periods: tuple[Period, ...]
    phases: int
    transaction: str | None = None
    start_unix_s: float | None = None
    stack_level: int = _STACK_LEVEL

    @property
    def id(self) -> int:
        """The profile's id."""
        return (1 if self.purpose is Purpose.TX_DEFAULT else 2) * _PROFILE_ID_STEP + self.evse

    @property
    def start_iso(self) -> str | None:
        """The schedule's start as the wire writes it; None: relative."""
        return None if self.start_unix_s is None else to_iso(self.start_unix_s)


def lease_profile(number: int, evse: Evse, transaction: str, lease: Lease, *, station_unix_s: float) -> Profile:
    """Return the lease as a schedule that falls back by itself: the value now, the fallback when it is not renewed.

    A duration would not do: what holds after a TxProfile's duration is defined in 2.x (K02.FR.08) but not in 1.6.
    """
    value_a, fallback_a = round_down_a(lease.value_a), round_down_a(lease.fallback_a)
    periods = [Period(0, value_a)]
    if fallback_a != value_a:
        periods.append(Period(BACKDATE_S + int(lease.lease_s), fallback_a))
    return Profile(
        purpose=Purpose.TX,
        evse=number,
        periods=tuple(periods),
        phases=len(evse.phases),
        transaction=transaction,
        start_unix_s=math.floor(station_unix_s) - BACKDATE_S,
    )


def fallback_profile(number: int, evse: Evse, fallback_a: float) -> Profile:
    """Return what holds beneath every transaction: one period without an end.

    Relative, because then it holds whatever the station's clock shows (1970, say), where an absolute start might lie
    in its future.
    """
    periods = (Period(0, round_down_a(fallback_a)),)
    return Profile(purpose=Purpose.TX_DEFAULT, evse=number, periods=periods, phases=len(evse.phases))


def round_down_a(value_a: float) -> float:
    """Return amperes rounded down to the 0.1 A that OCPP 1.6 can carry."""
    return math.floor(value_a * 10 + 1e-6) / 10
