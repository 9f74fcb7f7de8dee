"""What a simulated station has to say, before it is put into the words of a version."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from controller.core.model import EvseState
from drivers.ocpp.frames import Fault, Payload
from simulators.station_evse import MEASURANDS, Reading, SimulatedEvse, Transaction

Request = tuple[str, Payload]
"""An action and its payload."""

MAX_OUTBOX: Final = 500


class Cause(StrEnum):
    """Why a message about a transaction is sent."""

    PLUGGED = "plugged"
    REMOTE_START = "remote_start"
    SAMPLE = "sample"
    STATE = "state"
    TRIGGERED = "triggered"
    UNPLUGGED = "unplugged"
    REMOTE_STOP = "remote_stop"
    DEAUTHORISED = "deauthorised"
    POWER_LOSS = "power_loss"
    RESET = "reset"


@dataclass(slots=True)
class Outgoing:
    """A message on its way. `settle` gets the answer, or None when the central system does not want it.

    `droppable` ones (samples) make room when the outbox is full.
    """

    action: str
    payload: Payload
    settle: Callable[[Payload | None], None]
    transaction: Transaction | None = None
    droppable: bool = False
    attempts: int = 0


@dataclass(slots=True)
class Variable:
    """A configuration key, as text. `check` says whether a new value would do."""

    value: str
    writable: bool = True
    check: Callable[[str], bool] = field(default=lambda _: True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a message about an EVSE says of its moment: time on the station's clock, readings, whether offline."""

    evse: SimulatedEvse
    unix_s: float
    readings: tuple[Reading, ...]
    offline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How a station introduces itself."""

    vendor: str = "Laadplein"
    model: str = "Simulator"
    firmware: str = "1.0"


class Dialect(Protocol):
    """One version's words. Holds no state of its own."""

    version: str
    subprotocol: str
    codes: Mapping[Fault, str]
    sample_key: str
    heartbeat_key: str
    measurands_key: str
    names_transactions: bool
    handlers: Mapping[str, Callable[[Any, Payload], Payload]]

    def boot(self, identity: Identity, reason: Cause) -> Request:
        """Introduce the station."""

    def status_word(self, state: EvseState) -> str:
        """Return what a StatusNotification calls a state."""

    def status(self, number: int, state: EvseState, unix_s: float) -> Request:
        """Tell a state; EVSE 0 is the station itself."""

    def authorize(self, token: str) -> Request:
        """Ask whether a token may charge."""

    def is_authorized(self, result: Payload) -> bool:
        """Read the answer of `authorize`, or what an answer about a transaction says of its token."""

    def started(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:
        """Tell that a transaction began."""

    def updated(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request | None:
        """Tell that it goes on; None when the version has no message for this cause."""

    def ended(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:
        """Tell that it is over."""

    def sample(self, at: Snapshot) -> Request:
        """Tell readings outside any transaction."""

    def named(self, action: str, result: Payload) -> str | None:
        """Return the transaction id that an answer assigns, if it does."""

    def completed(self, message: Outgoing) -> Payload:
        """Return a payload with what is only known when it leaves."""

    def variables(self, station: Any) -> dict[str, Variable]:  # noqa: ANN401 - a SimulatedStation; it imports this module
        """Return the configuration of a new station."""


def is_count(text: str) -> bool:
    """Tell whether a configuration value is a number of seconds or things."""
    return text.isascii() and text.isdigit() and len(text) <= len("999999999")


def are_measurands(text: str) -> bool:
    """Tell whether a configuration value lists measurands that the station has."""
    return all(name in MEASURANDS for name in text.split(","))


def timestamp(unix_s: float) -> str:
    """Return an instant as OCPP writes it, in milliseconds of UTC."""
    moment = datetime.fromtimestamp(max(0.0, unix_s), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(text: str | None, default_unix_s: float) -> float:
    """Return the UTC seconds of a timestamp, a zone missing taken for UTC. Raises ValueError."""
    if text is None:
        return default_unix_s
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def on_wire(value_a: float, highest_a: float) -> float:
    """Return a limit as the wire carries it: one decimal, never rounded up, at most `highest_a`."""
    return math.floor(min(value_a, highest_a) * 10 + 1e-6) / 10
