import asyncio

import pytest

from drivers.modbus.regmap import MapError
from simulators.meter import MAX_CONNECTIONS, MeterServer, MeterValues, Mode

SHOWN = MeterValues(
    current_a=(-16.0, 0.0, 0.0),
    voltage_v=(230.0, 230.0, 230.0),
    power_w=(-3680.0, 0.0, 0.0),
    import_wh=1_500_000.0,
    export_wh=0.0,
)


async def ask(server: MeterServer, request: str) -> str:
    """Send bytes, then end of file; return all that is answered, in hexadecimal."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(bytes.fromhex(request))
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer.hex(" ", 2)


@pytest.mark.parametrize(
    ("map_name", "request_", "answer"),
    [
        # voltage L1: 230.0 as a float, high word first
        ("eastron_sdm630", "0001 0000 0006 01 04 0000 0002", "0001 0000 0007 0104 0443 6600 00"),
        # current L1: 16.0, without its direction
        ("eastron_sdm630", "0002 0000 0006 01 04 0006 0002", "0002 0000 0007 0104 0441 8000 00"),
        # between the points there is nothing
        ("eastron_sdm630", "0003 0000 0006 01 04 0012 0002", "0003 0000 0007 0104 0400 0000 00"),
        # current L1: -16000 mA, low word first
        ("cg_em300_em500", "0004 0000 0006 01 04 000C 0002", "0004 0000 0007 0104 04c1 80ff ff"),
        # import: 15000 x 0.1 kWh
        ("cg_em300_em500", "0005 0000 0006 01 04 0034 0002", "0005 0000 0007 0104 043a 9800 00"),
    ],
)
async def test_bytes_on_the_wire(map_name: str, request_: str, answer: str) -> None:
    async with MeterServer(map_name, lambda: SHOWN) as server:
        assert bytes.fromhex(await ask(server, request_)) == bytes.fromhex(answer)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("0001 0000 0006 01 03 0000 0002", "0001 0000 0003 01 83 01"),  # holding registers: it has none
        ("0001 0000 0006 01 06 0000 0002", "0001 0000 0003 01 86 01"),  # written it cannot be
        ("0001 0000 0006 01 04 0100 0002", "0001 0000 0003 01 84 02"),  # beyond its registers
        ("0001 0000 0006 01 04 0001 0002", "0001 0000 0003 01 84 02"),  # an odd address
        ("0001 0000 0006 01 04 0000 0003", "0001 0000 0003 01 84 03"),  # an odd count
        ("0001 0000 0006 01 04 0000 003E", "0001 0000 0003 01 84 03"),  # 62 registers at once
        ("0001 0000 0006 01 04 0000 0000", "0001 0000 0003 01 84 03"),  # none
        ("0001 0000 0004 01 04 0000", "0001 0000 0003 01 84 03"),  # half a request
        ("0001 0000 0006 09 04 0000 0002", "0001 0000 0003 09 84 0B"),  # nobody has unit id 9
        ("0001 0007 0006 01 04 0000 0002", ""),  # not Modbus
        ("0001 0000 0001 01", ""),  # nothing asked
        ("0001 0000 FFFF 01 04 0000 0002", ""),  # longer than a frame may be
        ("0001 0000 0006 01 04", ""),  # cut off
    ],
)
async def test_what_it_refuses(request_: str, answer: str) -> None:
    async with MeterServer("eastron_sdm630", lambda: SHOWN) as server:
        assert bytes.fromhex(await ask(server, request_)) == bytes.fromhex(answer)


async def test_values_that_its_registers_cannot_show_are_a_failure_of_the_device() -> None:
    huge = MeterValues(
        current_a=(3e6, 0.0, 0.0), voltage_v=(230.0,) * 3, power_w=(0.0,) * 3, import_wh=0.0, export_wh=0.0
    )
    async with MeterServer("cg_em300_em500", lambda: huge) as server:
        answer = await ask(server, "0001 0000 0006 01 04 0000 0002")
    assert bytes.fromhex(answer) == bytes.fromhex("0001 0000 0003 01 84 04")


async def test_no_value_is_shown_as_this_family_shows_it() -> None:
    async with MeterServer("cg_em300_em500", lambda: SHOWN) as server:
        server.mode = Mode.NAN
        answer = await ask(server, "0001 0000 0006 01 04 0000 0002")
    assert bytes.fromhex(answer) == bytes.fromhex("0001 0000 0007 01 04 04 FFFF 7FFF")


async def test_a_client_too_many_is_turned_away() -> None:
    async with MeterServer("eastron_sdm630", lambda: SHOWN) as server, asyncio.timeout(20):
        kept = []
        for _ in range(MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(bytes.fromhex("0001 0000 0006 01 04 0000 0002"))
            assert len(await reader.readexactly(13)) == 13
            kept.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""
        for each in (*kept, writer):
            each.close()


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(MapError, match="available: cg_em300_em500, eastron_sdm630"):
        MeterServer("nothing", lambda: SHOWN)
