"""Charging profiles as a station evaluates them: OCPP 1.6 §3.13 and 2.0.1 part 2 block K.

Knows purposes, stack levels, kinds, validity and persistence, on the station's own clock. Does not care about either
version's spelling (station_v16, station_v201), nor about what the EVSE then does with the limit.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from controller.core.electrical import NOMINAL_V

WHOLE_STATION: Final = 0
"""The EVSE (connector) number that stands for the station itself."""
UNLIMITED_A: Final = math.inf
DAY_S: Final = 86_400.0
_RECURRENCE_S: Final = {"Daily": DAY_S, "Weekly": 7 * DAY_S}


class Purpose(StrEnum):
    """What a profile is for, in the words of OCPP 2.x."""

    STATION_MAX = "ChargingStationMaxProfile"
    TX_DEFAULT = "TxDefaultProfile"
    TX = "TxProfile"


class Kind(StrEnum):
    """What the start of a schedule is counted from."""

    ABSOLUTE = "Absolute"
    RECURRING = "Recurring"
    RELATIVE = "Relative"


class ProfileRefused(Exception):  # noqa: N818 - reads as what happened
    """The station does not take a profile. `reason` fits OCPP 2.x's reasonCode (20 characters)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start_s` into the schedule on: a limit, in the schedule's unit."""

    start_s: float
    limit: float
    phases: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A charging profile. `evse` 0 is the whole station; `unit` is "A" (per phase) or "W" (all phases together).

    `transaction` only narrows a TxProfile. Instants are UTC seconds, to be compared with the station's clock.
    """

    id: int
    evse: int
    stack_level: int
    purpose: Purpose
    kind: Kind
    periods: tuple[Period, ...]
    unit: str = "A"
    start_unix_s: float | None = None
    duration_s: float | None = None
    recurrence: str | None = None
    valid_from_unix_s: float = -math.inf
    valid_to_unix_s: float = math.inf
    transaction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A running transaction, as far as profiles care: its id (None: not known yet) and when it began."""

    transaction: str | None
    started_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """What a station can hold, and which of the two versions' rules it goes by.

    `refuse_duplicates`: 2.x K01 refuses another id in an occupied slot, 1.6 §5.16 replaces what is there.
    """

    profiles: int = 32
    periods: int = 24
    stack_level: int = 8
    units: tuple[str, ...] = ("A", "W")
    refuse_duplicates: bool = False


@dataclass(slots=True)
class ProfileStore:
    """The profiles installed on one station."""

    limits: StoreLimits = field(default_factory=StoreLimits)
    voltage_v: float = NOMINAL_V
    _profiles: dict[int, Profile] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._profiles)

    def __iter__(self) -> Iterator[Profile]:
        return iter(tuple(self._profiles.values()))

    def install(self, profile: Profile, charge: Charge | None) -> None:
        """Install a profile, replacing what it replaces; `charge` runs on its EVSE now. Raises ProfileRefused."""
        self._check_shape(profile)
        _check_purpose(profile, charge)
        if self.limits.refuse_duplicates and any(other.id != profile.id for other in self._same_slot(profile)):
            raise ProfileRefused("DuplicateProfile")
        replaced = {other.id for other in self._same_slot(profile)} | {profile.id}
        kept = {key: other for key, other in self._profiles.items() if key not in replaced}
        if len(kept) >= self.limits.profiles:
            raise ProfileRefused("TooManyProfiles")
        self._profiles = {**kept, profile.id: profile}

    def clear(
        self,
        *,
        profile_id: int | None = None,
        evse: int | None = None,
        purpose: Purpose | None = None,
        stack_level: int | None = None,
    ) -> bool:
        """Remove the profile with an id, else all that match what is given (nothing: all). Tell whether any went."""
        gone = [
            profile.id
            for profile in self._profiles.values()
            if (
                profile.id == profile_id
                if profile_id is not None
                else evse in (None, profile.evse)
                and purpose in (None, profile.purpose)
                and stack_level in (None, profile.stack_level)
            )
        ]
        for key in gone:
            del self._profiles[key]
        return bool(gone)

    def end_transaction(self, evse: int) -> None:
        """Forget the TxProfiles of an EVSE: they live and die with the transaction."""
        self.clear(evse=evse, purpose=Purpose.TX)

    def reboot(self) -> None:
        """Do what a power cycle does: only persistent purposes are left (1.6 errata 3.37, 2.0.1 K01.FR.27)."""
        self.clear(purpose=Purpose.TX)

    def evse_limit_a(self, evse: int, unix_s: float, charge: Charge | None, *, phases: int = 3) -> float:
        """Return what TxProfile, else TxDefaultProfile allows one EVSE in amperes per phase; infinity without."""
        own = [profile for profile in self if profile.evse == evse]
        general = [profile for profile in self if profile.evse == WHOLE_STATION]
        # An own TxDefaultProfile stands before one for all EVSEs, whatever their stack levels.
        candidates = (
            [profile for profile in own if profile.purpose is Purpose.TX and charge is not None],
            [profile for profile in own if profile.purpose is Purpose.TX_DEFAULT],
            [profile for profile in general if profile.purpose is Purpose.TX_DEFAULT],
        )
        for group in candidates:
            leading_a = self._leading_a(group, unix_s, charge, phases)
            if leading_a is not None:
                return leading_a
        return UNLIMITED_A

    def station_limit_a(self, unix_s: float, *, phases: int = 3) -> float:
        """Return what ChargingStationMaxProfile allows the station as a whole; infinity when there is none."""
        group = [profile for profile in self if profile.purpose is Purpose.STATION_MAX]
        leading_a = self._leading_a(group, unix_s, None, phases)
        return UNLIMITED_A if leading_a is None else leading_a

    def limit_a(self, evse: int, unix_s: float, charge: Charge | None, *, phases: int = 3) -> float:
        """Return the composite limit now: the minimum over purposes. For EVSE 0 that of the station as a whole."""
        station_a = self.station_limit_a(unix_s, phases=phases)
        if evse == WHOLE_STATION:
            return station_a
        return min(station_a, self.evse_limit_a(evse, unix_s, charge, phases=phases))

    def composite(
        self, evse: int, unix_s: float, duration_s: int, charge: Charge | None, *, phases: int = 3
    ) -> list[tuple[int, float]]:
        """Return the composite schedule from now on: (second from now, amperes per phase), one entry per change."""
        seconds = {0} | {
            math.ceil(at_s)
            for profile in self
            for at_s in (edge - unix_s for edge in _edges(profile, unix_s, duration_s, charge))
            if 0 < at_s < duration_s
        }
        schedule: list[tuple[int, float]] = []
        for second in sorted(seconds):
            value_a = self.limit_a(evse, unix_s + second, charge, phases=phases)
            if not schedule or schedule[-1][1] != value_a:
                schedule.append((second, value_a))
        return schedule

    def _same_slot(self, profile: Profile) -> list[Profile]:
        return [
            other
            for other in self._profiles.values()
            if (other.evse, other.purpose, other.stack_level) == (profile.evse, profile.purpose, profile.stack_level)
        ]

    def _leading_a(self, group: Iterable[Profile], unix_s: float, charge: Charge | None, phases: int) -> float | None:
        """Return the limit of the highest stack level that says anything now."""
        for profile in sorted(group, key=lambda one: -one.stack_level):
            period = period_at(profile, unix_s, charge)
            if period is not None:
                return self._amperes(profile, period, phases)
        return None

    def _amperes(self, profile: Profile, period: Period, phases: int) -> float:
        if profile.unit == "A":
            return period.limit
        return period.limit / (self.voltage_v * min(period.phases, phases))

    def _check_shape(self, profile: Profile) -> None:
        starts = [period.start_s for period in profile.periods]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ProfileRefused("InvalidSchedule")
        if any(period.limit < 0 or not 1 <= period.phases <= 3 for period in profile.periods):  # noqa: PLR2004 - phases
            raise ProfileRefused("InvalidSchedule")
        if len(starts) > self.limits.periods:
            raise ProfileRefused("TooManyPeriods")
        if not 0 <= profile.stack_level <= self.limits.stack_level:
            raise ProfileRefused("InvalidStackLevel")
        if profile.unit not in self.limits.units:
            raise ProfileRefused("UnsupportedRateUnit")


def period_at(profile: Profile, unix_s: float, charge: Charge | None) -> Period | None:
    """Return the period of a profile that holds at an instant of the station's clock, or None when it says nothing."""
    if not profile.valid_from_unix_s <= unix_s < profile.valid_to_unix_s:
        return None
    start_unix_s = _start_unix_s(profile, unix_s, charge)
    if start_unix_s is None:
        return None
    elapsed_s = unix_s - start_unix_s
    if elapsed_s < 0 or (profile.duration_s is not None and elapsed_s >= profile.duration_s):
        return None
    return next((period for period in reversed(profile.periods) if period.start_s <= elapsed_s), None)


def _start_unix_s(profile: Profile, unix_s: float, charge: Charge | None) -> float | None:
    """Return when the schedule that counts now began."""
    if profile.kind is Kind.RELATIVE or profile.start_unix_s is None:
        # 1.6: a schedule without startSchedule is relative to the start of charging.
        return charge.started_unix_s if charge is not None else None
    if profile.kind is Kind.ABSOLUTE:
        return profile.start_unix_s
    every_s = _RECURRENCE_S[profile.recurrence or "Daily"]
    return profile.start_unix_s + math.floor((unix_s - profile.start_unix_s) / every_s) * every_s


def _edges(profile: Profile, unix_s: float, ahead_s: float, charge: Charge | None) -> Iterator[float]:
    """Yield the instants at which a profile may change what it says, between `unix_s` and `ahead_s` later."""
    yield profile.valid_from_unix_s
    yield profile.valid_to_unix_s
    first_unix_s = _start_unix_s(profile, unix_s, charge)
    if first_unix_s is None:
        return
    starts = [first_unix_s]
    if profile.kind is Kind.RECURRING:
        every_s = _RECURRENCE_S[profile.recurrence or "Daily"]
        starts += [first_unix_s + n * every_s for n in range(1, math.ceil(ahead_s / every_s) + 1)]
    for start_unix_s in starts:
        yield from (start_unix_s + period.start_s for period in profile.periods)
        if profile.duration_s is not None:
            yield start_unix_s + profile.duration_s


def _check_purpose(profile: Profile, charge: Charge | None) -> None:
    """Refuse what 1.6 §3.13 and 2.0.1 K01 refuse."""
    whole = profile.evse == WHOLE_STATION
    if profile.purpose is Purpose.STATION_MAX and (not whole or profile.kind is Kind.RELATIVE):
        raise ProfileRefused("InvalidProfile")
    if profile.kind is Kind.RECURRING and (profile.recurrence not in _RECURRENCE_S or profile.start_unix_s is None):
        raise ProfileRefused("InvalidProfile")
    if profile.purpose is not Purpose.TX:
        return
    if whole:
        raise ProfileRefused("InvalidProfile")
    if charge is None:
        raise ProfileRefused("TxNotFound")
    if profile.transaction is not None and profile.transaction != charge.transaction:
        raise ProfileRefused("TxNotFound")
