"""How a simulated station is built and behaves, and what it has lived through."""

from collections import Counter
from dataclasses import dataclass, field

from simulators.profiles import StoreLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class EvseRating:
    """One EVSE of a station: hardware maximum, minimum, and how many phases it is wired with."""

    max_a: float = 32.0
    min_a: float = 6.0
    phases: int = 3
    id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a station behaves. `skew_s` is how far its clock is ahead; it never corrects it.

    `backoff_s` doubles up to `backoff_max_s`, jittered. `pilot_hold_s` is how long an offer is held (IEC
    61851-1; up to 5 s). A station that may `charge_unbooted` starts transactions before any central system accepted it.
    """

    skew_s: float = 0.0
    sample_interval_s: int = 30
    heartbeat_s: int = 300
    pilot_hold_s: float = 0.0
    backoff_s: float = 1.0
    backoff_max_s: float = 30.0
    connect_timeout_s: float = 10.0
    call_timeout_s: float = 30.0
    retry_s: float = 1.0
    reboot_s: float = 2.0
    charges_unauthorised_offline: bool = True
    charges_unbooted: bool = False
    offline_threshold_s: float = 60.0
    profiles: StoreLimits = field(default_factory=StoreLimits)


@dataclass(slots=True)
class StationStatistics:
    """What a station has lived through. `sent` and `received` count calls by action, `refused` its own refusals."""

    connects: int = 0
    failed_connects: int = 0
    boots: int = 0
    drops: int = 0
    reboots: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    bad_frames: int = 0
    profiles_accepted: int = 0
    profiles_rejected: int = 0
    transactions_started: int = 0
    transactions_ended: int = 0
    messages_lost: int = 0
