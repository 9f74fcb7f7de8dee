import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from controller.config import OcppSection
from controller.store import TransactionFile
from drivers.ocpp.server import OcppServer
from drivers.ocpp.station import Timing
from tests.ocpp.plaza_of_stations import (
    V16,
    V201,
    Directory,
    ManualClock,
    RawStation,
    Seen,
    central,
    closed,
    handshake,
    masked,
    station,
)

QUICK = Timing(probe_s=0.2, boot_wait_s=0.05)
BEAT = '[2,"1","Heartbeat",{}]'


@pytest.mark.parametrize("path", ["/a", "//a", "/ocpp/a", "/deep/er/a?token=/x"])
async def test_a_known_station_may_connect_under_any_prefix(path: str) -> None:
    async with central() as plaza, station(plaza.url(path), V16) as a:
        assert (await a.boot())["status"] == "Accepted"


async def test_an_identity_may_hold_what_a_path_may_not() -> None:
    async with central() as plaza, station(plaza.url("/c%20d"), V16) as odd:
        assert (await odd.boot())["status"] == "Accepted"


@pytest.mark.parametrize("path", ["/x", "/a/", "/", "/A", "/a/x", "//[a", "/%ff", "/?a"])
async def test_an_unknown_station_gets_404(path: str) -> None:
    async with central() as plaza:
        with pytest.raises(InvalidStatus) as refused:
            async with station(plaza.url(path), V16):
                pass
        assert refused.value.response.status_code == 404
        assert plaza.server.counters["refused_unknown_identity"] == 1
        assert plaza.seen.told == []


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        ((V16,), V16),
        ((V201,), V201),
        ((V16, V201), V16),  # the client's order, not ours
        ((V201, V16), V201),
        (("ocpp2.7", V16), V16),
    ],
)
async def test_the_client_chooses_the_version(offered: tuple[str, ...], spoken: str) -> None:
    async with central() as plaza, station(plaza.url(), *offered) as a:
        assert a.socket.subprotocol == spoken
        await a.boot()
        assert plaza.seen.of("online")[0][1].protocol == spoken


async def test_a_station_without_the_header_speaks_1_6() -> None:
    async with central() as plaza, station(plaza.url()) as a:
        assert a.socket.subprotocol is None
        await a.boot()
        assert plaza.seen.of("online")[0][1].protocol == V16


async def test_without_a_common_version_the_handshake_is_completed_and_the_socket_closed() -> None:
    async with central() as plaza, station(plaza.url(), "ocpp9.9") as a:
        assert a.socket.subprotocol is None
        assert (await closed(a))[0] == 1002
        assert plaza.server.counters["refused_no_common_subprotocol"] == 1


async def test_more_connections_than_configured_get_503() -> None:
    async with central(max_connections=1) as plaza, station(plaza.url("/a"), V16) as a:
        await a.boot()
        with pytest.raises(InvalidStatus) as refused:
            async with station(plaza.url("/b"), V16):
                pass
        assert refused.value.response.status_code == 503
        assert plaza.server.counters["refused_too_many_connections"] == 1


async def test_compression_is_off() -> None:
    async with central() as plaza:
        reader, writer = await asyncio.open_connection("127.0.0.1", plaza.server.port)
        head = await handshake(reader, writer, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert b"101" in head
        assert b"permessage-deflate" not in head
        writer.close()


async def test_a_second_live_session_of_one_identity_is_refused() -> None:
    async with central(timing=QUICK) as plaza, station(plaza.url(), V16) as first:
        await first.boot()
        async with station(plaza.url(), V16) as second:
            assert (await closed(second))[0] == 1008
        assert (await first.call("Heartbeat", {}))["currentTime"]
        assert plaza.server.counters["refused_duplicate_identity"] == 1
        assert len(plaza.seen.of("online")) == 1
        assert plaza.seen.of("offline") == []


async def test_a_silent_session_is_replaced_and_never_acts_again() -> None:
    async with central(timing=QUICK) as plaza:
        reader, writer = await asyncio.open_connection("127.0.0.1", plaza.server.port)
        assert b"101" in await handshake(reader, writer)
        await plaza.seen.until("online")
        async with station(plaza.url(), V16) as second:
            await second.boot()
            old, new = plaza.seen.stations
            assert old is not new
            # First the old one is offline, then the new one online; the old one's late end says nothing any more.
            assert [told[0] for told in plaza.seen.told] == ["online", "offline", "online"]
            with pytest.raises(Exception, match="not online"):
                await old.install_fallback("a-1", 6.0, timeout_s=1)
            writer.write(
                masked('[2,"1","StatusNotification",{"connectorId":1,"status":"Faulted","errorCode":"NoError"}]')
            )
            async with asyncio.timeout(5):
                await reader.read()  # to its end: the server has closed it
            assert (await second.call("Heartbeat", {}))["currentTime"]
            assert [told[0] for told in plaza.seen.told] == ["online", "offline", "online"]
        await plaza.seen.until("offline", 2)
        assert plaza.seen.of("offline") == [(0,), (1,)]
        writer.close()


async def test_a_station_that_left_may_come_back_at_once() -> None:
    async with central(timing=QUICK) as plaza:
        for _ in range(3):
            async with station(plaza.url(), V16) as a:
                await a.boot()
        await plaza.seen.until("offline", 3)
        assert [told[0] for told in plaza.seen.told] == ["online", "offline"] * 3


@pytest.mark.parametrize(
    ("version", "text", "answer"),
    [
        (V16, '[2,"1","Heartbeat",{', [4, "1", "FormationViolation"]),
        (V201, '[2,"1","Heartbeat",{', [4, "1", "FormatViolation"]),
        (V16, '[2,"1","Heartbeat"]', [4, "1", "FormationViolation"]),
        (V201, '[2,"1","Heartbeat"]', [4, "1", "RpcFrameworkError"]),
        (V16, '[2,"1",["Heartbeat"],{}]', [4, "1", "FormationViolation"]),
        (V16, '[2,"1","Heartbeat",{"a":' + "[" * 100 + "]" * 100 + "}]", [4, "1", "FormationViolation"]),
        (V16, '[2,"1","Heartbeat",{"a":' + "[" * 50_000, [4, "1", "FormationViolation"]),
        (V16, '[2,"1","Heartbeat",{"a":' + "9" * 5_000 + "}]", [4, "1", "FormationViolation"]),
        (V16, '[2,"1","Heartbeat",{"a":NaN}]', [4, "1", "FormationViolation"]),
        (V16, '[2,"1","MakeCoffee",{}]', [4, "1", "NotImplemented"]),
        (V201, '[2,"1","MakeCoffee",{}]', [4, "1", "NotImplemented"]),
        (V16, '[2,"1","SetChargingProfile",{}]', [4, "1", "NotImplemented"]),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused_and_the_session_lives(
    version: str, text: str, answer: list[Any]
) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        assert (await a.say(text))[:3] == answer
        assert (await a.say(BEAT))[0] == 3


@pytest.mark.parametrize(
    ("version", "action", "payload", "code"),
    [
        (V16, "StatusNotification", {"connectorId": "first", "status": "Available"}, "TypeConstraintViolation"),
        (V16, "StatusNotification", {"connectorId": [], "status": "Available"}, "TypeConstraintViolation"),
        (V16, "StatusNotification", {"connectorId": -1, "status": "Available"}, "PropertyConstraintViolation"),
        (V16, "StatusNotification", {"connectorId": 1}, "OccurenceConstraintViolation"),
        (V201, "StatusNotification", {"evseId": 1}, "OccurrenceConstraintViolation"),
        (V16, "MeterValues", {"connectorId": 1, "meterValue": 5}, "TypeConstraintViolation"),
        (V16, "StopTransaction", {"transactionId": "all of them"}, "TypeConstraintViolation"),
        (V201, "TransactionEvent", {"eventType": "Started", "transactionInfo": 7}, "TypeConstraintViolation"),
        (V201, "TransactionEvent", {"eventType": "Started"}, "OccurrenceConstraintViolation"),
        (
            V201,
            "TransactionEvent",
            {"eventType": "Started", "transactionInfo": {"transactionId": ""}},
            "PropertyConstraintViolation",
        ),
    ],
)
async def test_a_payload_that_cannot_be_understood_is_refused_by_its_kind(
    version: str, action: str, payload: dict[str, Any], code: str
) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        assert await a.refused(action, payload) == code
        assert (await a.say(BEAT))[0] == 3


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{}", "[]", "[" * 60_000, '[5,"1","x",{}]', '[2,null,"Heartbeat",{}]', '[3,"99",{}]', '[4,"99"]'],
)
async def test_what_cannot_be_answered_is_counted_and_ignored(text: str) -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.socket.send(text)
        assert (await a.say(BEAT))[0] == 3
        counters = plaza.server.counters
        assert counters["frames_malformed"] + counters["frames_unsolicited"] == 1


async def test_a_binary_frame_is_counted_and_ignored() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.socket.send(BEAT.encode())
        assert (await a.say(BEAT))[0] == 3
        assert plaza.server.counters["frames_malformed"] == 1
        assert plaza.server.counters["calls_received"] == 1


async def test_an_oversize_frame_closes_the_socket() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.socket.send(json.dumps([2, "1", "DataTransfer", {"data": "x" * 70_000}]))
        assert (await closed(a))[0] == 1009


async def flood(a: RawStation, text: str, times: int) -> None:
    for _ in range(times):
        await a.socket.send(text)


async def test_a_flood_of_malformed_frames_closes_the_socket() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await flood(a, "hello", 61)
        assert await closed(a) == (1008, "too many malformed frames")
        assert plaza.server.counters["closed_flood_of_malformed_frames"] == 1


async def test_now_and_then_a_malformed_frame_is_borne() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        for _ in range(3):
            await flood(a, "hello", 50)
            assert (await a.say(BEAT))[0] == 3
            plaza.clock.pass_s(61)
        assert plaza.server.counters["frames_malformed"] == 150


async def test_a_repeated_message_gets_its_answer_again_and_acts_once() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        message = '[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Charging"}]'
        beat = await a.say(BEAT)
        first = await a.say(message)
        plaza.clock.pass_s(30)
        assert await a.say(message) == first
        assert await a.say(BEAT) == beat
        assert plaza.seen.of("state") == [("a-1", "charging")]
        assert plaza.server.counters["frames_repeated"] == 2


async def test_a_station_that_uses_one_id_for_ever_is_served() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        status = '[2,"1","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"%s"}]'
        await a.say(status % "Preparing")
        await a.say(status % "Charging")
        beat = await a.say(BEAT)
        plaza.clock.pass_s(61)
        assert await a.say(BEAT) != beat  # an old time would set its clock wrong
        assert plaza.seen.of("state") == [("a-1", "preparing"), ("a-1", "charging")]


async def test_what_is_remembered_of_repetitions_is_bounded() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        for number in range(100):
            await a.say(f'[2,"h{number}","Heartbeat",{{}}]')
        link = plaza.seen.stations[0]._link  # type: ignore[attr-defined]  # a bound without a public reader
        assert len(link._remembered) == 32


async def test_a_server_that_is_closed_has_closed_its_sessions() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        await plaza.server.__aexit__(None, None, None)
        assert (await closed(a))[0] == 1001
        assert plaza.seen.of("offline") == [(0,)]


async def test_there_is_no_port_before_the_start() -> None:
    server = OcppServer(OcppSection(), Directory(), Seen(), ManualClock(), TransactionFile(None))
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.port
