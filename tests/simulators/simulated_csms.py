"""A tiny central system for the tests: accepts and keeps everything, and holds every frame against the schemas."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from typing import Any

from jsonschema import Draft4Validator  # type: ignore[import-untyped]  # the package carries no types
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Payload = dict[str, Any]
PATIENCE_S = 10.0
SUBPROTOCOLS = {"1.6": "ocpp1.6", "2.0.1": "ocpp2.0.1"}


class ManualClock:
    """A clock that only moves when told."""

    def __init__(self, unix_s: float = 1_800_000_000.0) -> None:
        self.at_s = 0.0
        self.start_unix_s = unix_s

    def now_s(self) -> float:
        return self.at_s

    def unix_s(self) -> float:
        return self.start_unix_s + self.at_s

    def synchronised(self) -> bool:
        return True

    def advance(self, by_s: float) -> None:
        self.at_s += by_s


@dataclass
class TinyCsms:
    """`heard` holds (action, payload) of everything the stations called, in order of arrival."""

    version: str
    heard: list[tuple[str, Payload]] = field(default_factory=list)
    schema_faults: list[str] = field(default_factory=list)
    # An action's answer; {"error": code} is sent as a CALLERROR, None is silence.
    answers: dict[str, Callable[[Payload], Payload | None]] = field(default_factory=dict)
    connections: list[ServerConnection] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""
    _server: Server | None = None
    _waiting: dict[str, tuple[str, asyncio.Future[list[Any]]]] = field(default_factory=dict)
    _calls: int = 0

    async def open(self, port: int = 0) -> None:
        self._server = await serve(
            self._serve, "127.0.0.1", port, subprotocols=[Subprotocol(SUBPROTOCOLS[self.version])], ping_interval=None
        )
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/ocpp/CS-1"

    async def close(self) -> None:
        for connection in self.connections:
            connection.transport.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is true; looked at whenever a message or a connection comes or goes."""
        async with asyncio.timeout(PATIENCE_S), self.news:
            await self.news.wait_for(condition)

    async def until_heard(self, action: str, count: int = 1, **fields: object) -> Payload:
        """Wait for the count-th call of an action with these fields, and return its payload."""

        def found() -> list[Payload]:
            return [body for name, body in self.heard if name == action and fields.items() <= body.items()]

        await self.until(lambda: len(found()) >= count)
        return found()[count - 1]

    def actions(self) -> list[str]:
        return [action for action, _ in self.heard]

    async def call(self, action: str, payload: Payload) -> Payload:
        """Call the station on its newest connection; return its result, or {"error": code}."""
        self._calls += 1
        key = f"c{self._calls}"
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[key] = (action, answer)
        await self.connections[-1].send(json.dumps([2, key, action, payload]))
        async with asyncio.timeout(PATIENCE_S):
            frame = await answer
        return frame[2] if frame[0] == 3 else {"error": frame[2]}

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await self._tell()
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                await self._take(connection, text)
        await self._tell()

    async def _take(self, connection: ServerConnection, text: str | bytes) -> None:
        frame = json.loads(text, parse_float=Decimal)
        if frame[0] == 2:
            _, key, action, payload = frame
            self._check(action, payload, "Request")
            answer = self.answers.get(action, self._accept)(json.loads(text)[3])
            if answer is not None:
                frame = [4, key, answer["error"], "", {}] if "error" in answer else [3, key, answer]
                await connection.send(json.dumps(frame))
            self.heard.append((action, json.loads(text)[3]))
        else:
            action, future = self._waiting.pop(frame[1])
            if frame[0] == 3:
                self._check(action, frame[2], "Response")
            future.set_result(json.loads(text))
        await self._tell()

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()

    def _accept(self, payload: Payload) -> Payload:
        if "chargePointVendor" in payload or "chargingStation" in payload:
            return {"status": "Accepted", "currentTime": "2027-01-15T08:00:00Z", "interval": 300}
        if "meterStart" in payload:
            return {"transactionId": 7, "idTagInfo": {"status": "Accepted"}}
        if "idTag" in payload:
            return {"idTagInfo": {"status": "Accepted"}}
        if "idToken" in payload:
            return {"idTokenInfo": {"status": "Accepted"}}
        return {}

    def _check(self, action: str, payload: Payload, kind: str) -> None:
        if self.version == "1.6":
            name = action if kind == "Request" else f"{action}Response"
            path = files("ocpp") / "v16" / "schemas" / f"{name}.json"
        else:
            path = files("ocpp") / "v201" / "schemas" / f"{action}{kind}.json"
        schema = json.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal)
        self.schema_faults += [
            f"{action} {kind}: {fault.message}" for fault in Draft4Validator(schema).iter_errors(payload)
        ]


@contextlib.asynccontextmanager
async def tiny_csms(version: str) -> AsyncIterator[TinyCsms]:
    csms = TinyCsms(version)
    await csms.open()
    try:
        yield csms
    finally:
        await csms.close()
    assert csms.schema_faults == []
