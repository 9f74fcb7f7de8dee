"""A simulated Modbus TCP meter: real sockets, registers from the map that the driver loads.

Knows the wire (Modbus Application Protocol V1.1b3, Messaging on TCP/IP V1.0b) as far as a meter needs it: one request
to read registers, one reply or exception. Does not care where the values come from.

It is a server of its own and not pymodbus's, because a meter that can be told to misbehave must own its bytes: that of
pymodbus cannot send half a reply, hold one back, or answer for another unit.
"""

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import TracebackType
from typing import Final, Self

from controller.core.electrical import Phases
from drivers.modbus import regmap
from drivers.modbus.regmap import CURRENT_A, POWER_W, VOLTAGE_V, PointName, RegisterMap

MAX_CONNECTIONS: Final = 8
_MBAP: Final = struct.Struct(">HHHB")  # transaction id, protocol id, length (unit id included), unit id
_READ: Final = struct.Struct(">BHH")  # function code, address, count
_LONGEST: Final = 254  # unit id and a PDU of at most 253 bytes


class Mode(StrEnum):
    """How the meter behaves."""

    OK = "ok"
    SILENT = "silent"
    """It does not answer."""
    EXCEPTION = "exception"
    """It answers that it failed."""
    NAN = "nan"
    """It answers that it has no values, in its own way (NaN, or its sentinel)."""
    SHORT = "short"
    """It leaves out the last register."""
    LATE = "late"
    """It answers only when the next request is there, first the old one, as if nothing had happened."""


class _Refusal(IntEnum):
    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    NO_SUCH_UNIT = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterValues:
    """What a meter measures, in the site's L1, L2, L3: import positive, export negative."""

    current_a: Phases
    voltage_v: Phases
    power_w: Phases
    import_wh: float
    export_wh: float
    frequency_hz: float = 50.0


class MeterServer:
    """A meter of the family `map_name` that shows `source()` at each request. Raises `regmap.MapError` for no such map.

    Use it as an async context manager; with port 0, `port` is the one that it got. It answers for `unit_id` and, as the
    TCP gateway before a serial meter does, tells for any other that there is no such device behind it. `mode` may be
    changed at any time. `tamper`, where given, sees each finished reply and returns the bytes to send in its place.
    """

    def __init__(
        self,
        map_name: str,
        source: Callable[[], MeterValues],
        port: int = 0,
        unit_id: int = 1,
        *,
        host: str = "127.0.0.1",
        tamper: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.port = port
        self.mode = Mode.OK
        self.tamper = tamper
        self.connections_seen = 0
        self._host = host
        self._map = regmap.load(map_name)
        self._source = source
        self._unit_id = unit_id
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._converse, self._host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        conversations = list(self._open)
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*conversations)
        await server.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._server is None or len(self._open) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open[task] = writer
        self.connections_seen += 1
        held_back = b""
        try:
            while (request := await _request(reader)) is not None:
                reply = self._reply(*request)
                if self.mode is Mode.LATE:
                    reply, held_back = held_back, reply
                else:
                    reply, held_back = held_back + reply, b""
                writer.write(reply)
                await writer.drain()
        except ConnectionError:
            pass  # the client went away, as clients do
        finally:
            del self._open[task]
            writer.close()

    def _reply(self, transaction: int, unit_id: int, request: bytes) -> bytes:
        if self.mode is Mode.SILENT:
            return b""
        answer = self._answer(unit_id, request)
        reply = _MBAP.pack(transaction, 0, len(answer) + 1, unit_id) + answer
        return reply if self.tamper is None else self.tamper(reply)

    def _answer(self, unit_id: int, request: bytes) -> bytes:
        function = request[0]
        if unit_id != self._unit_id:
            return _refuse(function, _Refusal.NO_SUCH_UNIT)
        if function != self._map.function:
            return _refuse(function, _Refusal.ILLEGAL_FUNCTION)
        if len(request) != _READ.size:
            return _refuse(function, _Refusal.ILLEGAL_VALUE)
        _, address, count = _READ.unpack(request)
        refusal = self._objection(address, count)
        if refusal is not None:
            return _refuse(function, refusal)
        try:
            registers = regmap.encode(self._map, _shown(self._map, self._source()))
        except ValueError:  # a value that this meter's registers cannot show
            return _refuse(function, _Refusal.DEVICE_FAILURE)
        if self.mode is Mode.NAN:
            registers |= regmap.encode_invalid(self._map)
        words = [registers.get(register, 0) for register in range(address, address + count)]
        if self.mode is Mode.SHORT:
            words.pop()
        return struct.pack(f">BB{len(words)}H", function, 2 * len(words), *words)

    def _objection(self, address: int, count: int) -> _Refusal | None:
        if self.mode is Mode.EXCEPTION:
            return _Refusal.DEVICE_FAILURE
        if not 1 <= count <= self._map.max_registers_per_read or (self._map.even_reads and count % 2):
            return _Refusal.ILLEGAL_VALUE
        end = max(point.end for point in self._map.points.values())
        if address + count > end + end % 2 or (self._map.even_reads and address % 2):
            return _Refusal.ILLEGAL_ADDRESS
        return None


async def _request(reader: asyncio.StreamReader) -> tuple[int, int, bytes] | None:
    """Return transaction id, unit id and PDU of the next request; None at the end, or of what is not Modbus."""
    try:
        transaction, protocol, length, unit_id = _MBAP.unpack(await reader.readexactly(_MBAP.size))
        if protocol != 0 or not 1 < length <= _LONGEST:
            return None
        return transaction, unit_id, await reader.readexactly(length - 1)
    except asyncio.IncompleteReadError:
        return None


def _refuse(function: int, refusal: _Refusal) -> bytes:
    return bytes([function | 0x80, refusal])


def _shown(register_map: RegisterMap, values: MeterValues) -> dict[PointName, float]:
    """Return the values as this family shows them: some show currents without a direction."""
    signed = register_map.current_signed
    shown: dict[PointName, float] = {
        **dict(zip(VOLTAGE_V, values.voltage_v, strict=True)),
        **dict(zip(CURRENT_A, (a if signed else abs(a) for a in values.current_a), strict=True)),
        **dict(zip(POWER_W, values.power_w, strict=True)),
        "power_w": sum(values.power_w),
        "frequency_hz": values.frequency_hz,
        "import_wh": values.import_wh,
        "export_wh": values.export_wh,
    }
    return {name: value for name, value in shown.items() if name in register_map.points}
