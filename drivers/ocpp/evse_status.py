"""The state of one EVSE, put together from what its connectors and its transaction say.

OCPP 1.6 says it in one word. In 2.x a connector is only `Occupied`; what the vehicle does is told by the transaction.
"""

from dataclasses import dataclass, field
from typing import Final

from controller.core.model import EvseState
from drivers.ocpp.events import StatusReported, TransactionStage, TransactionTold

_MAX_CONNECTORS: Final = 8
# An EVSE can be used as long as one of its connectors can.
_PRECEDENCE: Final = (
    EvseState.CHARGING,
    EvseState.SUSPENDED_EV,
    EvseState.SUSPENDED_EVSE,
    EvseState.PREPARING,
    EvseState.FINISHING,
    EvseState.AVAILABLE,
    EvseState.RESERVED,
    EvseState.UNAVAILABLE,
    EvseState.FAULTED,
    EvseState.UNKNOWN,
)


@dataclass(slots=True)
class EvseStatus:
    """What is known of one EVSE within a session."""

    _connectors: dict[int, StatusReported] = field(default_factory=dict)
    _charging: EvseState | None = None

    def report(self, told: StatusReported) -> None:
        """Take a connector's status."""
        if told.connector in self._connectors or len(self._connectors) < _MAX_CONNECTORS:
            self._connectors[told.connector] = told
        if not self._occupied():
            self._charging = None

    def transaction(self, told: TransactionTold) -> None:
        """Take what a transaction message says about the vehicle."""
        if told.stage is TransactionStage.ENDED:
            self._charging = EvseState.FINISHING if self._occupied() else None
        elif told.state is not None:
            self._charging = told.state

    def current(self) -> EvseState | None:
        """Return the EVSE's state; None while nothing was said."""
        if self._charging is not None:
            return self._charging
        states = {told.state for told in self._connectors.values()}
        return next((state for state in _PRECEDENCE if state in states), None)

    def _occupied(self) -> bool:
        return any(told.occupied for told in self._connectors.values())
