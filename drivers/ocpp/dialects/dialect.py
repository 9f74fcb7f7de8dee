"""What a version of OCPP must be able to say: a table of pure functions, one table per version."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.ports import Capabilities
from drivers.ocpp.events import Command, Event, TransactionTold
from drivers.ocpp.frames import Fault, Payload
from drivers.ocpp.profiles import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupStep:
    """A setting to ask of a station: `alternatives` are sent, all of them, only when the station refuses `command`."""

    name: str
    command: Command
    alternatives: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One version of OCPP.

    `decoders` raise a pydantic ValidationError on a payload that cannot be understood. `fixed_answers` are for actions
    that a station may send and that change nothing here. `refusal` returns why an answer means no, or None for yes.
    """

    subprotocol: str
    version: str
    capabilities: Capabilities
    fault_codes: Mapping[Fault, str]
    decoders: Mapping[str, Callable[[Payload], Event]]
    fixed_answers: Mapping[str, Payload]
    answer_boot: Callable[[str, int], Payload]
    """(current time, heartbeat interval in s)."""
    answer_heartbeat: Callable[[str], Payload]
    """(current time)."""
    answer_token: Callable[[], Payload]
    answer_transaction: Callable[[TransactionTold, str], Payload]
    """(the message, its transaction)."""
    set_profile: Callable[[Profile], Command]
    configure: Callable[[int], Sequence[SetupStep]]
    """(sample interval in s): what to ask once."""
    refresh: Callable[[Sequence[int]], Sequence[SetupStep]]
    """(EVSE numbers): what to ask a station that reconnects, to learn its state."""
    refusal: Callable[[Command, Mapping[str, Any]], str | None]
