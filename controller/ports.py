"""Ports: the few doors between the controller and the outside world.

A driver implements `ChargingStation`, or tells an `Observer` what it saw. Ports speak of capabilities, never of
protocol versions.

Errors a station may raise:

    StationError
     +-- StationGone      the link is down; nothing more will come
     +-- StationTimeout   no answer in time; what the station holds is now uncertain
     +-- StationRefused   the station answered, and said no
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from controller.core.electrical import Phases
from controller.core.model import Decision, Evse, EvseState, MeterReading, Snapshot


class StationError(Exception):
    """A command did not do what it was meant to."""


class StationGone(StationError):  # noqa: N818 - reads as what happened, like the two below
    """The link to the station is down."""


class StationTimeout(StationError):  # noqa: N818
    """The station did not answer in time: it may or may not have taken the command."""


class StationRefused(StationError):  # noqa: N818
    """The station answered that it does not take the command."""


class LeaseKind(StrEnum):
    """How a station falls back by itself when the gateway is silent."""

    SCHEDULE = "schedule"
    """A schedule whose second period is the fallback."""
    EXPIRY = "expiry"
    """A profile that ends, after which a lower one rules."""
    NATIVE = "native"
    """An offline limit of its own."""
    NONE = "none"
    """It does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a station can do, whatever language it speaks."""

    lease_kind: LeaseKind = LeaseKind.SCHEDULE
    accepts_amperes: bool = True
    accepts_watts: bool = False
    per_phase_limits: bool = False
    max_periods: int = 2
    profile_without_transaction: bool = False
    assigns_transaction_ids: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A setpoint on its way to a station: amperes per phase now, and what it falls to when not renewed in time."""

    value_a: float
    fallback_a: float
    lease_s: float


class ChargingStation(Protocol):
    """A connected charging station. One command in flight; a second call while one is unanswered is a caller's bug."""

    @property
    def id(self) -> str:
        """The station's identity, as in the site file."""

    @property
    def evses(self) -> Sequence[str]:
        """The ids of its EVSEs, as in the site."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    async def offer(self, evse: str, transaction: str, lease: Lease, *, timeout_s: float) -> None:
        """Give one EVSE a new lease for its running transaction. Raises a `StationError`; returns when accepted."""

    async def install_fallback(self, evse: str, fallback_a: float, *, timeout_s: float) -> None:
        """Install what holds beneath every transaction and without a gateway. Raises a `StationError`.

        A persistent purpose (flash wear): asked for after a boot or while it is not known what the station holds.
        """

    async def disconnect(self, reason: str) -> None:
        """Drop the link; the station is expected to come back on a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationEntry:
    """A station that may connect: its EVSEs by the number the station gives them (from 1)."""

    id: str
    evses: Mapping[int, Evse]


class StationDirectory(Protocol):
    """Who may connect."""

    def entry(self, identity: str) -> StationEntry | None:
        """Return the station with this identity, giving a guest a place, or None: refuse it."""

    def release(self, identity: str) -> bool:
        """Take back a guest's place and return whether it had one; a station of the site file keeps its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StationInfo:
    """What a station says of itself at boot."""

    vendor: str = ""
    model: str = ""
    firmware: str = ""
    protocol: str = ""


class Observer(Protocol):
    """Where drivers write what they saw. Writing decides nothing; at most it makes the next decision come sooner."""

    def station_online(self, station: ChargingStation, info: StationInfo, *, rebooted: bool) -> None:
        """Tell that a station is ready for commands; `rebooted` when it may have forgotten what it was told."""

    def station_offline(self, station: ChargingStation) -> None:
        """Tell that the link is gone. Ignored when `station` is no longer the live session of its identity."""

    def evse_state(self, evse: str, state: EvseState) -> None:
        """Tell an EVSE's state."""

    def transaction_started(self, evse: str, transaction: str) -> None:
        """Tell that a transaction runs (again: telling it twice changes nothing)."""

    def transaction_ended(self, evse: str, transaction: str) -> None:
        """Tell that a transaction ended."""

    def evse_measured(self, evse: str, current_a: Phases, *, age_s: float = 0.0) -> None:
        """Tell what an EVSE drew, in site phases, `age_s` seconds ago."""

    def meter_read(self, circuit: str, reading: MeterReading) -> None:
        """Tell a meter's sample."""

    def meter_failed(self, circuit: str, problem: str) -> None:
        """Tell that a sample could not be had, or was not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionRecord:
    """One message about a transaction, to be kept before it is acknowledged (C5)."""

    station: str
    evse: str
    event: str
    transaction: str
    id_token: str
    meter_wh: int | None
    station_time: str
    received_unix_s: float


class TransactionLog(Protocol):
    """A durable record of transactions."""

    async def start(self, record: TransactionRecord) -> str:
        """Keep a start and return its transaction id: a new one if the record has none, the first one if repeated."""

    async def append(self, record: TransactionRecord) -> None:
        """Keep an update or an end."""

    def open_transactions(self) -> Sequence[TransactionRecord]:
        """Return the starts that have no end."""


class Clock(Protocol):
    """The only source of time."""

    def now_s(self) -> float:
        """Return monotonic seconds."""

    def unix_s(self) -> float:
        """Return UTC seconds since 1970."""

    def synchronised(self) -> bool:
        """Tell whether UTC is disciplined to within 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """One finished control cycle, for whoever shows or counts it. All counts are since the start of the gateway."""

    number: int
    snapshot: Snapshot
    decision: Decision
    duration_s: float
    overruns: int
    excursion_s: Mapping[str, float]
    setpoints_sent: int
    setpoints_confirmed: int
    setpoints_failed: int
    readings_rejected: Mapping[str, int]


class Publisher(Protocol):
    """Somebody who wants to know. The controller neither waits for it nor depends on it (C7)."""

    def publish(self, report: CycleReport) -> None:
        """Take note of a cycle. Returns at once, raises nothing, keeps at most the latest."""
