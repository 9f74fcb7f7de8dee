"""The neutral vocabulary between the dialects and the station: OCPP 2.x's words, whatever the wire says.

EVSEs are numbered as the station does, from 1; number 0 is the station itself. Timestamps are the station's own text.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from controller.core.model import EvseState
from controller.ports import StationInfo
from drivers.ocpp.frames import Payload


class Quantity(Enum):
    """What a sample measures; the unit is A, W, V or Wh."""

    CURRENT_A = auto()
    POWER_W = auto()
    VOLTAGE_V = auto()
    ENERGY_WH = auto()


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value. `terminal` is the EVSE's own L1, L2, L3 (0, 1, 2); None when the station names no phase."""

    quantity: Quantity
    value: float
    terminal: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The samples a station took at one moment."""

    at: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Booted:
    """The station started, or says who it is (`rebooted` False: it was only asked to)."""

    info: StationInfo
    rebooted: bool = True


@dataclass(frozen=True, slots=True)
class HeartbeatReceived:
    """The station is there and wants the time."""


@dataclass(frozen=True, slots=True)
class TokenPresented:
    """Somebody wants to charge."""

    id_token: str


@dataclass(frozen=True, slots=True)
class StatusReported:
    """A connector's state. With `occupied` the station says no more than that a vehicle is there."""

    evse: int
    connector: int
    state: EvseState
    at: str
    occupied: bool = False


class TransactionStage(StrEnum):
    """Where in its life a transaction message stands; the word kept in the transaction log."""

    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionTold:
    """A message about a transaction. `evse` and `transaction` are None when the message does not say."""

    stage: TransactionStage
    evse: int | None
    transaction: str | None
    at: str
    id_token: str = ""
    meter_wh: int | None = None
    state: EvseState | None = None
    readings: tuple[Reading, ...] = ()
    offline: bool = False
    wants_token_status: bool = False


@dataclass(frozen=True, slots=True)
class Metered:
    """Readings outside any transaction."""

    evse: int
    readings: tuple[Reading, ...]


Event = Booted | HeartbeatReceived | TokenPresented | StatusReported | TransactionTold | Metered


@dataclass(frozen=True, slots=True)
class Command:
    """A CALL to be sent: already in the words of a version."""

    action: str
    payload: Payload
