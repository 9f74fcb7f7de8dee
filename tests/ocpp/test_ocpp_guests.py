"""Who gets a guest's place, and who only knocks."""

import asyncio
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from controller.commissioning import Directory, assemble
from controller.config import parse
from drivers.ocpp.station import Timing
from tests.ocpp.plaza_of_stations import PATIENCE_S, V16, Central, central, closed, station

SITE = """\
[site]
name = "Test park"
timezone = "Europe/Amsterdam"

[ocpp.accept_unknown]
circuit = "grid"
max_stations = 1
installer_max_a = 13

[[circuit]]
id = "grid"
limit_a = 100
base_worst_a = 40
"""
SOON_ONLINE = Timing(boot_wait_s=0.05)


def one_place() -> Directory:
    return Directory(assemble(parse(Path("site.toml"), SITE)))


async def asks_without_upgrade(plaza: Central, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", plaza.server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


async def is_refused(plaza: Central, path: str) -> bool:
    try:
        async with station(plaza.url(path), V16):
            return False
    except InvalidStatus as refused:
        return refused.response.status_code == HTTPStatus.NOT_FOUND


async def test_a_browser_takes_no_guests_place() -> None:
    async with central(directory=one_place()) as plaza:
        assert b" 426 " in await asks_without_upgrade(plaza, "/favicon.ico")
        async with station(plaza.url("/guest"), V16) as guest:
            assert (await guest.boot())["status"] == "Accepted"


async def test_who_speaks_no_common_version_takes_no_guests_place() -> None:
    async with central(directory=one_place()) as plaza:
        async with station(plaza.url("/other"), "ocpp9.9") as other:
            assert (await closed(other))[0] == 1002
        async with station(plaza.url("/guest"), V16) as guest:
            assert (await guest.boot())["status"] == "Accepted"


@pytest.mark.parametrize("nonsense", [None, "hello", '[2,"1","MakeCoffee",{}]', '[2,"1","StatusNotification",{}]'])
async def test_a_guest_that_said_nothing_valid_gives_its_place_back_when_it_goes(nonsense: str | None) -> None:
    async with central(directory=one_place(), timing=SOON_ONLINE) as plaza:
        async with station(plaza.url("/mute"), V16) as mute:
            # It answers none of our calls either: those would prove a station.
            mute.answers = dict.fromkeys(mute.answers)
            if nonsense is not None:
                await mute.socket.send(nonsense)
            await plaza.seen.until("online")
            assert await is_refused(plaza, "/guest")  # as long as it is there, the place is its own
        await plaza.seen.until("offline")
        async with station(plaza.url("/guest"), V16) as guest:
            assert (await guest.boot())["status"] == "Accepted"


async def test_a_guest_that_was_a_station_keeps_its_place_when_it_goes() -> None:
    async with central(directory=one_place()) as plaza:
        async with station(plaza.url("/guest"), V16) as guest:
            await guest.boot()
        await plaza.seen.until("offline")
        assert b" 426 " in await asks_without_upgrade(plaza, "/guest")
        assert await is_refused(plaza, "/other")
        async with station(plaza.url("/guest"), V16) as guest:
            assert (await guest.boot())["status"] == "Accepted"
