"""Which transaction runs where, as far as one session of a station knows."""

from collections import OrderedDict, deque
from typing import Final

from controller.core.model import Evse

_MOST: Final = 64


class Running:
    """The transactions of a station: where each belongs, which one runs on an EVSE, which ones ended. Bounded."""

    def __init__(self) -> None:
        self._on: dict[str, str] = {}
        self._evse_of: OrderedDict[str, Evse] = OrderedDict()
        self._ended: deque[str] = deque(maxlen=_MOST)

    def know(self, transaction: str, evse: Evse) -> None:
        """Remember where a transaction belongs."""
        self._evse_of[transaction] = evse
        while len(self._evse_of) > _MOST:
            self._evse_of.popitem(last=False)

    def begin(self, transaction: str, evse: Evse) -> bool:
        """Note that it runs; return whether that is new."""
        self.know(transaction, evse)
        new = self._on.get(evse.id) != transaction
        self._on[evse.id] = transaction
        return new

    def end(self, transaction: str, evse: Evse) -> None:
        """Note that it ended. Another one that runs on the EVSE meanwhile is left alone."""
        if self._on.get(evse.id) == transaction:
            del self._on[evse.id]
        self._evse_of.pop(transaction, None)
        self._ended.append(transaction)

    def forget(self) -> None:
        """Forget what runs; after a reboot only the station can tell."""
        self._on.clear()

    def where(self, transaction: str) -> Evse | None:
        """Return the EVSE of a transaction that has not ended."""
        return self._evse_of.get(transaction)

    def on(self, evse: Evse) -> str | None:
        """Return what runs on an EVSE."""
        return self._on.get(evse.id)

    def ended(self, transaction: str) -> bool:
        """Tell whether it ended within this session."""
        return transaction in self._ended
