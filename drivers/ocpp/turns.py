"""Taking turns: one at a time, the more urgent first, in order of arrival otherwise."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from enum import IntEnum

from controller.ports import StationGone, StationTimeout


class Priority(IntEnum):
    """Who goes first when several calls wait for the one that is outstanding."""

    CONTROL = 0
    SETUP = 1


class Turns:
    """A lock whose waiters have a priority; at most `most` of them wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: list[tuple[Priority, int, asyncio.Future[bool]]] = []
        self._arrivals = 0
        self._taken = False
        self._lost = False

    @contextlib.asynccontextmanager
    async def take(self, priority: Priority) -> AsyncIterator[None]:
        """Hold the turn. Raises StationTimeout when too many wait, StationGone once `lose` was called."""
        if len(self._waiting) >= self._most:
            raise StationTimeout("too many calls wait for this station")
        self._arrivals += 1
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (priority, self._arrivals, turn)
        heapq.heappush(self._waiting, entry)
        self._next()
        try:
            if self._lost or not await turn:
                raise StationGone("the link was lost")
            yield
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            elif turn.done() and not turn.cancelled() and turn.result():
                self._taken = False
            self._next()

    def lose(self) -> None:
        """Send everybody away, for good."""
        self._lost = True
        for _, _, turn in self._waiting:
            if not turn.done():
                turn.set_result(False)

    def _next(self) -> None:
        while self._waiting and not self._taken and not self._lost:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._taken = True
                turn.set_result(True)
