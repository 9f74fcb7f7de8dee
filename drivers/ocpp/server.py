"""The OCPP central system: the port that charging stations connect to.

Knows who may connect, in which version, and that one identity has one live session (C6). Does not care what stations
say (`station`).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from controller.config import OcppSection
from controller.ports import Clock, Observer, StationDirectory, StationEntry, TransactionLog
from drivers.ocpp.counters import Count, Counters, new_counters
from drivers.ocpp.dialects import v16, v201
from drivers.ocpp.dialects.dialect import Dialect
from drivers.ocpp.link import POLICY_VIOLATION
from drivers.ocpp.peers import HANDSHAKES, Door
from drivers.ocpp.settings import StationMemory
from drivers.ocpp.station import Site, Station, Timing

DIALECTS: Final[Mapping[str, Dialect]] = {dialect.subprotocol: dialect for dialect in (v16.DIALECT, v201.DIALECT)}
_NO_HEADER: Final = v16.DIALECT  # many old stations send none; they all speak 1.6
_MAX_FRAME_BYTES: Final = 64 * 1024
_PROTOCOL_ERROR: Final = 1002
_TRY_LATER: Final = 1013
_WARN_AGAIN_S: Final = 60.0
_HEADER: Final = "Sec-WebSocket-Protocol"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Session:
    station: Station
    connection: ServerConnection


class OcppServer:
    """The server, as an async context manager. `port` is the one it listens on, `counters` what it counted so far."""

    def __init__(
        self,
        config: OcppSection,
        directory: StationDirectory,
        observer: Observer,
        clock: Clock,
        transactions: TransactionLog,
        *,
        timing: Timing | None = None,
    ) -> None:
        self._config = config
        self._directory = directory
        self.counters: Counters = new_counters()
        self._site = Site(
            config=config,
            observer=observer,
            clock=clock,
            transactions=transactions,
            counters=self.counters,
            timing=timing or Timing(),
        )
        self._door = Door(
            config.max_connections + HANDSHAKES,
            self.counters,
            stall_s=self._site.timing.stall_s,
            hang_up_s=self._site.timing.hang_up_s,
        )
        self._sessions: dict[str, _Session] = {}
        self._memories: OrderedDict[str, StationMemory] = OrderedDict()
        self._open = 0
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on. Raises RuntimeError before it was started."""
        if self._server is None:
            raise RuntimeError("the OCPP server is not running")
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    def settings_refused(self, identity: str) -> Mapping[str, str]:
        """Return the settings that a station did not take, with what it answered."""
        memory = self._memories.get(identity)
        return dict(memory.refused) if memory else {}

    async def __aenter__(self) -> Self:
        timing = self._site.timing
        self._server = await serve(
            self._serve,
            self._config.host,
            self._config.port,
            process_request=self._admit,
            select_subprotocol=_choose,
            compression=None,
            max_size=_MAX_FRAME_BYTES,
            open_timeout=timing.open_timeout_s,
            ping_interval=timing.ping_interval_s,
            ping_timeout=timing.ping_timeout_s,
            close_timeout=timing.close_timeout_s,
            create_connection=self._door.connections(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self._server.close()
        try:
            async with asyncio.timeout(self._site.timing.hang_up_s):
                await self._server.wait_closed()
        except TimeoutError:
            # Some peer reads nothing, or never ended its handshake: websockets would wait for it.
            self._door.cut_all()
            await self._server.wait_closed()

    # ----------------------------------------------------------------------------------------------------- handshake

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse who may not connect, before there is a websocket (OCPP-J: 404 for an unknown identity)."""
        if self._open >= self._config.max_connections:
            self._count(Count.REFUSED_FULL)
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.\n")
        if not self._may_connect(_identity(request)):
            self._count(Count.REFUSED_UNKNOWN)
            return connection.respond(HTTPStatus.NOT_FOUND, "Unknown charging station.\n")
        return None

    def _may_connect(self, identity: str) -> bool:
        """Look whether there is a place, and take none: this may be a browser, or one that never says a word."""
        found = self._entry(identity) is not None
        self._give_back(identity)
        return found

    def _entry(self, identity: str) -> StationEntry | None:
        return self._directory.entry(identity) if identity else None

    def _give_back(self, identity: str) -> None:
        """Free the place of a guest that is not there and never said anything valid."""
        memory = self._memories.get(identity)
        if identity in self._sessions or (memory is not None and memory.heard):
            return
        if self._directory.release(identity):
            self._memories.pop(identity, None)

    # ------------------------------------------------------------------------------------------------------ sessions

    async def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        dialect = _dialect(connection)
        if request is None or dialect is None:
            self._count(Count.REFUSED_SUBPROTOCOL)
            await connection.close(_PROTOCOL_ERROR, "no common OCPP version")
            return
        if self._open >= self._config.max_connections:
            self._count(Count.REFUSED_FULL)
            await connection.close(_TRY_LATER, "too many connections")
            return
        self._open += 1
        try:
            await self._session(_identity(request), dialect, connection)
        finally:
            self._open -= 1

    async def _session(self, identity: str, dialect: Dialect, connection: ServerConnection) -> None:
        if not await self._claim(identity):
            self._count(Count.REFUSED_DUPLICATE)
            self._warn_of_duplicate(identity)
            await connection.close(POLICY_VIOLATION, "this identity is connected already")
            return
        # From the claim to the session nothing is awaited: nobody else can take the identity, or a guest's place.
        entry = self._entry(identity)
        if entry is None:
            self._count(Count.REFUSED_UNKNOWN)
            await connection.close(_TRY_LATER, "no place is left")
            return
        self._count(Count.CONNECTIONS)
        station = Station(entry, dialect, connection, site=self._site, memory=self._memory(entry.id))
        session = _Session(station, connection)
        self._sessions[entry.id] = session
        try:
            await station.run()
        finally:
            station.retire()
            if self._sessions.get(entry.id) is session:
                del self._sessions[entry.id]
            self._give_back(entry.id)

    async def _claim(self, identity: str) -> bool:
        """Make sure that no live session has this identity: one that answers a ping keeps it, a silent one loses it."""
        while (old := self._sessions.get(identity)) is not None:
            if await _answers(old.connection, self._site.timing.probe_s):
                return False
            if self._sessions.get(identity) is old:
                self._count(Count.REPLACED_SILENT)
                _log.info("station %r connected anew: its silent session is replaced", identity)
                old.station.retire(POLICY_VIOLATION, "replaced by a new connection")
                del self._sessions[identity]
        return True

    def _warn_of_duplicate(self, identity: str) -> None:
        memory, now_s = self._memory(identity), self._site.clock.now_s()
        if memory.duplicate_told_at_s is None or now_s - memory.duplicate_told_at_s >= _WARN_AGAIN_S:
            memory.duplicate_told_at_s = now_s
            _log.warning("station %r is connected already: a second connection in its name was refused", identity)

    def _memory(self, identity: str) -> StationMemory:
        memory = self._memories.setdefault(identity, StationMemory())
        self._memories.move_to_end(identity)
        while len(self._memories) > self._config.max_connections:
            self._memories.popitem(last=False)
        return memory

    def _count(self, name: Count) -> None:
        self.counters[name] += 1


def _identity(request: Request) -> str:
    return unquote(request.path.partition("?")[0].rpartition("/")[2])


def _choose(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Return the first of the client's subprotocols that we speak; the list is in its order of preference."""
    return next((name for name in offered if name in DIALECTS), None)


def _dialect(connection: ServerConnection) -> Dialect | None:
    if connection.subprotocol is not None:
        return DIALECTS[connection.subprotocol]
    # OCPP-J: without a common version the handshake is completed all the same, and the socket closed then.
    request = connection.request
    return None if request is None or request.headers.get_all(_HEADER) else _NO_HEADER


async def _answers(connection: ServerConnection, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            pong = await connection.ping()
            await pong
    except (TimeoutError, ConnectionClosed):
        return False
    return True
