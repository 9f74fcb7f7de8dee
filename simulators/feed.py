"""Feed: lets the stations of one process load the physics of another.

Knows small UDP datagrams on loopback: `{"source": "...", "sequence": 7, "current_a": [1.0, 2.0, 3.0]}`, ten a second. A
datagram carries a present value, not a change, so losing one costs a tenth of a second and nothing else.
"""

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controller.core.electrical import Phases
from controller.ports import Clock

LOOPBACK: Final = "127.0.0.1"
PERIOD_S: Final = 0.1
SILENCE_S: Final = 3.0
"""A source that says nothing for so long draws nothing any more."""
MAX_SOURCES: Final = 64
_MAX_BYTES: Final = 512
_MAX_NAME: Final = 64
_MAX_A: Final = 100_000.0
_REORDERED: Final = 10
"""A sequence number at most so far back is an overtaken datagram; further back the source has started again."""
_PHASES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """What one source draws, in site phases."""

    source: str
    sequence: int
    current_a: Phases

    def encode(self) -> bytes:
        """Return the bytes on the wire."""
        body = {
            "source": self.source,
            "sequence": self.sequence,
            "current_a": [round(value_a, 3) for value_a in self.current_a],
        }
        return json.dumps(body, separators=(",", ":")).encode()


def decode(data: bytes) -> Datagram | None:
    """Return what a datagram says, or None for anything that is not one of ours."""
    try:
        body = json.loads(data) if len(data) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    source, sequence, current_a = body.get("source"), body.get("sequence"), body.get("current_a")
    if not isinstance(source, str) or not 0 < len(source) <= _MAX_NAME:
        return None
    if type(sequence) is not int or sequence < 0:
        return None
    if not isinstance(current_a, list) or len(current_a) != _PHASES or not all(map(_is_current, current_a)):
        return None
    one, two, three = (float(value_a) for value_a in current_a)
    return Datagram(source=source, sequence=sequence, current_a=(one, two, three))


def _is_current(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MAX_A and math.isfinite(value)


class FeedSender:
    """Sends what a process's stations draw. `source` must differ between processes."""

    def __init__(self, host: str = LOOPBACK, port: int = 0, *, source: str) -> None:
        self._address = (host, port)
        self._source = source[:_MAX_NAME]
        self._sequence = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """Make the socket. Nobody needs to listen yet. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(_Deaf, remote_addr=self._address)

    def send(self, current_a: Phases) -> None:
        """Send one value; never waits. Nothing happens when the socket is not open."""
        if self._transport is None or self._transport.is_closing():
            return
        self._sequence += 1
        self._transport.sendto(Datagram(source=self._source, sequence=self._sequence, current_a=current_a).encode())

    async def run(self, read: Callable[[], Phases]) -> None:
        """Send what `read` returns ten times a second, until cancelled."""
        await self.open()
        try:
            while True:
                self.send(read())
                await asyncio.sleep(PERIOD_S)
        finally:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


class _Deaf(asyncio.DatagramProtocol):
    """Takes no notice of "port unreachable": the other process may not be there yet."""


@dataclass(slots=True)
class _Source:
    sequence: int
    current_a: Phases
    heard_at_s: float


class FeedReceiver(asyncio.DatagramProtocol):
    """Sums the latest value of every source. `ignored` counts malformed, surplus and overtaken datagrams."""

    def __init__(self, clock: Clock, port: int = 0, *, host: str = LOOPBACK, max_sources: int = MAX_SOURCES) -> None:
        self._clock = clock
        self._address = (host, port)
        self._max_sources = max_sources
        self._sources: dict[str, _Source] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self.received = 0
        self.ignored = 0

    async def open(self) -> int:
        """Listen, and return the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=self._address)
        self._transport = transport
        port: int = transport.get_extra_info("sockname")[1]
        return port

    def close(self) -> None:
        """Stop listening."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def current_a(self) -> Phases:
        """Return the sum over the sources that were heard in the last 3 s."""
        self._forget_silent()
        one, two, three = (sum(source.current_a[phase] for source in self._sources.values()) for phase in range(3))
        return (one, two, three)

    def sources(self) -> tuple[str, ...]:
        """Return the sources that were heard in the last 3 s."""
        self._forget_silent()
        return tuple(self._sources)

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio's signature
        """Take a datagram from the socket."""
        self.receive(data)

    def receive(self, data: bytes) -> None:
        """Take one datagram; anything odd is ignored and counted."""
        datagram = decode(data)
        if datagram is None or not self._is_news(datagram):
            self.ignored += 1
            return
        self.received += 1
        self._sources[datagram.source] = _Source(datagram.sequence, datagram.current_a, self._clock.now_s())

    def _is_news(self, datagram: Datagram) -> bool:
        known = self._sources.get(datagram.source)
        if known is None:
            self._forget_silent()
            return len(self._sources) < self._max_sources
        return not 0 <= known.sequence - datagram.sequence <= _REORDERED

    def _forget_silent(self) -> None:
        now_s = self._clock.now_s()
        silent = [name for name, source in self._sources.items() if now_s - source.heard_at_s > SILENCE_S]
        for name in silent:
            del self._sources[name]
