"""What the OCPP tests share: a running server, what it told, and a station of a few lines that is not ours."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from controller.config import OcppSection
from controller.core.electrical import Phases
from controller.core.model import Evse, EvseState, MeterReading
from controller.ports import ChargingStation, StationDirectory, StationEntry, StationInfo, TransactionLog
from controller.store import TransactionFile
from drivers.ocpp.server import OcppServer
from drivers.ocpp.station import Timing

V16, V201 = "ocpp1.6", "ocpp2.0.1"
NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z
PATIENCE_S = 10.0

TWO_EVSES = {
    1: Evse(id="a-1", station="a", circuit="grid"),
    2: Evse(id="a-2", station="a", circuit="grid", phases=(1,)),
}
ONE_EVSE = {1: Evse(id="b", station="b", circuit="grid")}


@dataclass
class ManualClock:
    """Time that passes when a test says so."""

    now: float = 1000.0
    unix: float = NOON

    def now_s(self) -> float:
        return self.now

    def unix_s(self) -> float:
        return self.unix

    def synchronised(self) -> bool:
        return True

    def pass_s(self, seconds: float) -> None:
        self.now += seconds
        self.unix += seconds


class Directory:
    """Stations "a" (two EVSEs), "b" (one) and "c d" may connect."""

    def entry(self, identity: str) -> StationEntry | None:
        evses = {"a": TWO_EVSES, "b": ONE_EVSE, "c d": {}}.get(identity)
        return None if evses is None else StationEntry(id=identity, evses=evses)

    def release(self, identity: str) -> bool:  # noqa: ARG002 - there are no guests
        return False


@dataclass
class Seen:
    """Everything the server told, in order; a test can wait for a word of it."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    stations: list[ChargingStation] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, *words: object) -> None:
        self.told.append(words)
        self.news.set()

    def station_online(self, station: ChargingStation, info: StationInfo, *, rebooted: bool) -> None:
        self.stations.append(station)
        self.tell("online", station.id, info, rebooted)

    def station_offline(self, station: ChargingStation) -> None:
        self.tell("offline", self.stations.index(station))

    def evse_state(self, evse: str, state: EvseState) -> None:
        self.tell("state", evse, state.value)

    def transaction_started(self, evse: str, transaction: str) -> None:
        self.tell("started", evse, transaction)

    def transaction_ended(self, evse: str, transaction: str) -> None:
        self.tell("ended", evse, transaction)

    def evse_measured(self, evse: str, current_a: Phases, *, age_s: float = 0.0) -> None:
        self.tell("measured", evse, current_a, age_s)

    def meter_read(self, circuit: str, reading: MeterReading) -> None:
        self.tell("meter", circuit, reading)

    def meter_failed(self, circuit: str, problem: str) -> None:
        self.tell("meter failed", circuit, problem)

    def of(self, word: str) -> list[tuple[Any, ...]]:
        return [told[1:] for told in self.told if told[0] == word]

    async def until(self, word: str, times: int = 1) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.of(word)) < times:
                self.news.clear()
                await self.news.wait()
        return self.of(word)


@dataclass
class Central:
    """A running server with what it told."""

    server: OcppServer
    seen: Seen
    clock: ManualClock
    log: TransactionLog

    def url(self, path: str = "/a") -> str:
        return f"ws://127.0.0.1:{self.server.port}{path}"


@contextlib.asynccontextmanager
async def central(
    log: TransactionLog | None = None,
    *,
    timing: Timing | None = None,
    max_connections: int = 512,
    directory: StationDirectory | None = None,
) -> AsyncIterator[Central]:
    """Run a server on a free port."""
    seen, clock, kept = Seen(), ManualClock(), log or TransactionFile(None)
    section = OcppSection(port=0, max_connections=max_connections)
    async with OcppServer(section, directory or Directory(), seen, clock, kept, timing=timing) as server:
        yield Central(server, seen, clock, kept)


class RawStation:
    """A station: what it is asked is kept and answered from a table (None: never)."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.answers: dict[str, Mapping[str, Any] | str | None] = {
            "ChangeConfiguration": {"status": "Accepted"},
            "TriggerMessage": {"status": "Rejected"},
            "SetVariables": {"setVariableResult": []},
            "SetChargingProfile": {"status": "Accepted"},
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answered: asyncio.Queue[list[Any]] = asyncio.Queue()
        self._news = asyncio.Event()
        self._calls = 0

    async def read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                frame = json.loads(text)
                if frame[0] == 2:
                    await self._asked(frame)
                else:
                    self.answered.put_nowait(frame)

    async def _asked(self, frame: list[Any]) -> None:
        self.asked.append((frame[2], frame[3]))
        self._news.set()
        answer = self.answers[frame[2]]
        if isinstance(answer, str):
            await self.socket.send(answer.replace("ID", frame[1]))
        elif answer is not None:
            await self.socket.send(json.dumps([3, frame[1], answer]))

    async def say(self, text: str) -> list[Any]:
        """Send a text as it is and return the next answer."""
        await self.socket.send(text)
        async with asyncio.timeout(PATIENCE_S):
            return await self.answered.get()

    async def call(self, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Send a CALL and return the payload of its result."""
        answer = await self._exchange(action, payload)
        assert answer[0] == 3, answer
        result: dict[str, Any] = answer[2]
        return result

    async def refused(self, action: str, payload: Mapping[str, Any]) -> str:
        """Send a CALL and return the code of its CALLERROR."""
        answer = await self._exchange(action, payload)
        assert answer[0] == 4, answer
        return str(answer[2])

    async def _exchange(self, action: str, payload: Mapping[str, Any]) -> list[Any]:
        self._calls += 1
        answer = await self.say(json.dumps([2, f"s{self._calls}", action, payload]))
        assert answer[1] == f"s{self._calls}"
        return answer

    async def until_asked(self, action: str, times: int = 1) -> list[dict[str, Any]]:
        """Return the payloads of all calls of an action so far, once there are enough."""
        async with asyncio.timeout(PATIENCE_S):
            while len(payloads := [payload for name, payload in self.asked if name == action]) < times:
                self._news.clear()
                await self._news.wait()
        return payloads

    async def boot(self) -> dict[str, Any]:
        if self.socket.subprotocol == V201:
            station = {"vendorName": "Bay", "model": "M", "firmwareVersion": "1"}
            return await self.call("BootNotification", {"reason": "PowerUp", "chargingStation": station})
        boot = {"chargePointVendor": "Bay", "chargePointModel": "M", "firmwareVersion": "1"}
        return await self.call("BootNotification", boot)

    async def start(self, connector: int = 1, at: str = "2026-01-01T12:00:00Z") -> str:
        """Begin a transaction and return its id."""
        if self.socket.subprotocol == V201:
            event = {"eventType": "Started", "timestamp": at, "triggerReason": "Authorized", "seqNo": 0}
            info = {"transactionInfo": {"transactionId": "tx-1"}, "evse": {"id": connector, "connectorId": 1}}
            await self.call("TransactionEvent", {**event, **info})
            return "tx-1"
        begin = {"connectorId": connector, "idTag": "T", "meterStart": 100, "timestamp": at}
        return str((await self.call("StartTransaction", begin))["transactionId"])


@contextlib.asynccontextmanager
async def station(url: str, *subprotocols: str) -> AsyncIterator[RawStation]:
    """Connect a station."""
    offered = [Subprotocol(name) for name in subprotocols] or None
    async with connect(url, subprotocols=offered, compression=None, proxy=None, close_timeout=1) as socket:
        raw = RawStation(socket)
        reader = asyncio.create_task(raw.read())
        try:
            yield raw
        finally:
            await socket.close()
            await reader


async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: str = "") -> bytes:
    """Open a websocket by hand, as one that will never answer a ping."""
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        f"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: ocpp1.6\r\n{headers}\r\n".encode()
    )
    async with asyncio.timeout(5):
        return await reader.readuntil(b"\r\n\r\n")


def masked(text: str) -> bytes:
    """Return a text frame as a client writes it."""
    data = text.encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126, *len(data).to_bytes(2, "big")])
    return bytes([0x81]) + size + bytes(4) + data


async def closed(raw: RawStation) -> tuple[int | None, str | None]:
    """Return the code and reason with which the server closed."""
    async with asyncio.timeout(PATIENCE_S):
        await raw.socket.wait_closed()
    return raw.socket.close_code, raw.socket.close_reason


def iso(unix_s: float) -> str:
    """Return a timestamp as stations write it."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def event(kind: str, state: str | None = None, /, **more: object) -> dict[str, Any]:
    info = {"transactionId": "tx-1"} | ({"chargingState": state} if state else {})
    told = {"eventType": kind, "timestamp": iso(NOON), "triggerReason": "Trigger", "seqNo": 1, "transactionInfo": info}
    return told | {"evse": {"id": 1, "connectorId": 1}} | more


def meter_values(at_s: float, *amperes: str, connector: int = 1) -> dict[str, Any]:
    sampled = [
        {"value": value, "measurand": "Current.Import", "phase": f"L{number}", "unit": "A"}
        for number, value in enumerate(amperes, start=1)
    ]
    return {"connectorId": connector, "meterValue": [{"timestamp": iso(at_s), "sampledValue": sampled}]}
