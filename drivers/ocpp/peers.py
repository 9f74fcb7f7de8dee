"""The sockets of the OCPP port: how many there may be, and how long one may make us wait.

Knows transports, from the moment one is accepted until it is lost. Does not care who is behind them (`server`).
"""

import asyncio
from typing import ClassVar, Final

from websockets.asyncio.server import ServerConnection

from drivers.ocpp.counters import Count, Counters

HANDSHAKES: Final = 32
"""How many sockets there may be beyond the sessions: those that still shake hands or are being refused."""


class Door:
    """All sockets of one server: at most `most`, counted before a byte is read.

    One that has not read what we wrote within `stall_s` is cut, and so is one that is still there `hang_up_s` after we
    began to close it.
    """

    def __init__(self, most: int, counters: Counters, *, stall_s: float, hang_up_s: float) -> None:
        self.stall_s = stall_s
        self.hang_up_s = hang_up_s
        self._most = most
        self._counters = counters
        self._inside: set[ServerConnection] = set()

    def __len__(self) -> int:
        return len(self._inside)

    def enter(self, connection: ServerConnection) -> bool:
        """Return False when there are too many: cut it."""
        if len(self._inside) >= self._most:
            self._counters[Count.REFUSED_FULL] += 1
            return False
        self._inside.add(connection)
        return True

    def leave(self, connection: ServerConnection) -> None:
        """Forget a connection that was lost."""
        self._inside.discard(connection)

    def stalled(self, connection: ServerConnection) -> None:
        """Cut a connection whose peer does not read."""
        self._counters[Count.CLOSED_STALLED] += 1
        connection.transport.abort()

    def cut_all(self) -> None:
        """Cut every connection, in whatever state it is."""
        for connection in self._inside:
            connection.transport.abort()

    def connections(self) -> type[ServerConnection]:
        """Return the kind of connection that goes through this door."""

        class Here(_Connection):
            door = self

        return Here


class _Connection(ServerConnection):
    """A connection that counts from its accept, and waits for no peer for ever.

    Inherits, because only the transport's protocol is told of an accept and of a full write buffer, and websockets'
    own waits for that buffer (keepalive, close, answers to a handshake) have no other limit.
    """

    door: ClassVar[Door]
    _entered = False
    _stall: asyncio.TimerHandle | None = None
    _hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a socket that was accepted, or cut it at once."""
        self._entered = self.door.enter(self)
        if self._entered:
            super().connection_made(transport)
        else:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a socket that is closed."""
        for timer in (self._stall, self._hang_up):
            if timer is not None:
                timer.cancel()
        if self._entered:
            self.door.leave(self)
            super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for the peer to read."""
        super().pause_writing()
        self._stall = self.loop.call_later(self.door.stall_s, self.door.stalled, self)

    def resume_writing(self) -> None:
        """Note that the peer has read."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close, politely at first."""
        if self._hang_up is None:
            self._hang_up = self.loop.call_later(self.door.hang_up_s, self.transport.abort)
        await super().close(code, reason)
