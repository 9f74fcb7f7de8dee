"""Peers that vanish, never read, never finish a handshake, or keep knocking."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from controller.ports import TransactionRecord
from controller.store import TransactionFile
from drivers.ocpp.peers import HANDSHAKES
from drivers.ocpp.station import Timing
from tests.ocpp.plaza_of_stations import PATIENCE_S, V16, Central, central, closed, handshake, masked, station

SMALL_BYTES = 4096
START = '[2,"%d","StartTransaction",{"connectorId":1,"idTag":"T","meterStart":%d,"timestamp":"2026-01-01T12:00:00Z"}]'


class HeldLog(TransactionFile):
    """A disk that takes its time with the first record."""

    def __init__(self) -> None:
        super().__init__(None)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def start(self, record: TransactionRecord) -> str:
        self.reached.set()
        await self.go_on.wait()
        return await super().start(record)


async def test_a_station_whose_link_is_reset_with_much_unanswered_is_offline() -> None:
    log = HeldLog()
    async with central(log) as plaza:
        reader, writer = await asyncio.open_connection("127.0.0.1", plaza.server.port)
        assert b"101" in await handshake(reader, writer)
        writer.write(b"".join(masked(START % (number, number)) for number in range(60)))
        async with asyncio.timeout(PATIENCE_S):
            await log.reached.wait()
        reset(writer)
        log.go_on.set()
        assert await plaza.seen.until("offline") == [(0,)]


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop a connection without a word."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@contextlib.asynccontextmanager
async def one_that_never_reads(plaza: Central) -> AsyncIterator[None]:
    """Connect a station that asks and asks, and reads no answer; leave when the server has noticed it cannot write."""
    assert plaza.server._server is not None
    for listening in plaza.server._server.sockets:
        # Or the kernel would take megabytes before anybody has to wait.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BYTES)
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        raw.setblocking(False)  # noqa: FBT003 - the standard library takes it so
        await loop.sock_connect(raw, ("127.0.0.1", plaza.server.port))
        reader, writer = await asyncio.open_connection(sock=raw)
        assert b"101" in await handshake(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamWriter types it as a bare transport
        asking = asyncio.create_task(ask_for_ever(writer))
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            writer.transport.abort()


async def ask_for_ever(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        number = 0
        while True:
            number += 1
            writer.write(masked(f'[2,"{number}","Heartbeat",{{}}]'))
            await writer.drain()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - nobody tells when the server knows
            await asyncio.sleep(0.01)


async def until_it_cannot_write(plaza: Central) -> None:
    await until(lambda: any(connection.paused for connection in plaza.server._door._inside))


async def test_a_peer_that_never_reads_is_cut() -> None:
    async with central(timing=Timing(stall_s=0.1)) as plaza, one_that_never_reads(plaza):
        assert await plaza.seen.until("offline") == [(0,)]
        assert plaza.server.counters["closed_peer_does_not_read"] == 1


async def test_a_session_that_is_closed_ends_though_its_peer_never_reads() -> None:
    timing = Timing(stall_s=3600, ping_interval_s=3600, hang_up_s=0.1)
    async with central(timing=timing) as plaza, one_that_never_reads(plaza):
        await until_it_cannot_write(plaza)
        await plaza.seen.stations[0].disconnect("enough")
        assert await plaza.seen.until("offline") == [(0,)]


async def test_a_server_can_be_closed_though_a_peer_never_reads() -> None:
    timing = Timing(stall_s=3600, ping_interval_s=3600, hang_up_s=0.1)
    async with central(timing=timing) as plaza, one_that_never_reads(plaza):
        await until_it_cannot_write(plaza)
        async with asyncio.timeout(PATIENCE_S):
            await plaza.server.__aexit__(None, None, None)
        assert plaza.seen.of("offline") == [(0,)]


async def test_a_server_can_be_closed_though_a_handshake_never_ends() -> None:
    async with central(timing=Timing(open_timeout_s=3600, hang_up_s=0.1)) as plaza:
        reader, writer = await silent(plaza)
        await until_inside(plaza, 1)
        async with asyncio.timeout(PATIENCE_S):
            await plaza.server.__aexit__(None, None, None)
        assert await is_cut(reader)
        writer.close()


async def silent(plaza: Central) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", plaza.server.port)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read() == b""
    return True


async def until_inside(plaza: Central, many: int) -> None:
    await until(lambda: len(plaza.server._door) == many)


async def test_sockets_are_bounded_before_their_handshake() -> None:
    async with central(timing=Timing(open_timeout_s=3600), max_connections=1) as plaza:
        waiting = [await silent(plaza) for _ in range(1 + HANDSHAKES)]
        await until_inside(plaza, 1 + HANDSHAKES)
        reader, writer = await silent(plaza)
        assert await is_cut(reader)
        writer.close()
        assert plaza.server.counters["refused_too_many_connections"] == 1
        for _, other in waiting:
            other.close()
        await until_inside(plaza, 0)
        async with station(plaza.url(), V16) as a:
            assert (await a.boot())["status"] == "Accepted"


async def test_a_station_that_is_tried_again_and_again_is_written_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warnings() -> int:
        ours = [record for record in caplog.records if record.name == "drivers.ocpp.server"]
        return sum(record.levelno == logging.WARNING for record in ours)

    async with central() as plaza, station(plaza.url(), V16) as first:
        await first.boot()
        for passed_s, written in [(0, 1), (30, 1), (29, 1), (2, 2), (1, 2)]:
            plaza.clock.pass_s(passed_s)
            async with station(plaza.url(), V16) as second:
                assert (await closed(second))[0] == 1008
            assert warnings() == written
        assert plaza.server.counters["refused_duplicate_identity"] == 5
