import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from controller.clock import SystemClock
from controller.config import ModbusTcpMeter
from controller.core.electrical import Phases
from controller.core.model import MeterReading
from drivers.modbus import regmap
from drivers.modbus.bus import BusError, Connection, Problem
from drivers.modbus.meter import ModbusMeter, RejectedError, interpret, next_slot_s, retry_s
from drivers.modbus.regmap import MapError, PointName
from simulators.meter import MeterServer, MeterValues, Mode

if TYPE_CHECKING:
    from controller.ports import Observer

PATIENCE_S = 10.0
MAPS = ["eastron_sdm630", "cg_em300_em500"]

IMPORTING = MeterValues(
    current_a=(16.0, 8.0, 0.5),
    voltage_v=(230.0, 231.5, 228.0),
    power_w=(3680.0, 1852.0, 114.0),
    import_wh=1_500_000.0,
    export_wh=200.0,
)
EXPORTING = replace(IMPORTING, current_a=(-16.0, -8.0, 4.0), power_w=(-3680.0, -1852.0, 912.0))


class Watcher:
    """The part of an observer that a meter talks to: keeps what it told, in order."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[MeterReading | str] = asyncio.Queue()

    def meter_read(self, circuit: str, reading: MeterReading) -> None:
        assert circuit == "grid"
        self.told.put_nowait(reading)

    def meter_failed(self, circuit: str, problem: str) -> None:
        assert circuit == "grid"
        self.told.put_nowait(problem)

    async def next(self) -> MeterReading | str:
        async with asyncio.timeout(PATIENCE_S):
            return await self.told.get()

    async def reading(self) -> MeterReading:
        """Return the next reading, past any failures."""
        async with asyncio.timeout(PATIENCE_S):
            while not isinstance(told := await self.told.get(), MeterReading):
                pass
        return told

    async def failure(self, problem: str) -> None:
        """Return when this problem is told."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.told.get() != problem:
                pass


def config(port: int, map_name: str = "eastron_sdm630", *, host: str = "127.0.0.1") -> ModbusTcpMeter:
    return ModbusTcpMeter(
        kind="modbus_tcp",
        id="main",
        circuit="grid",
        map=map_name,
        host=host,
        port=port,
        unit_id=1,
        period_s=0.2,
        timeout_s=0.2,
    )


def meter(settings: ModbusTcpMeter, watcher: Watcher) -> ModbusMeter:
    rng = random.Random(1)  # noqa: S311 - seeded, to spread reconnects
    return ModbusMeter(settings, cast("Observer", watcher), SystemClock(), rng=rng)


@asynccontextmanager
async def watching(settings: ModbusTcpMeter) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    task = asyncio.create_task(meter(settings, watcher).run())
    try:
        yield watcher
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------------------------------------------- what is measured


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize("shown", [IMPORTING, EXPORTING])
async def test_a_meter_is_read_as_it_shows(map_name: str, shown: MeterValues) -> None:
    async with MeterServer(map_name, lambda: shown) as server, watching(config(server.port, map_name)) as watcher:
        first, second = await watcher.next(), await watcher.next()
    assert isinstance(first, MeterReading)
    assert isinstance(second, MeterReading)
    assert first.current_a == pytest.approx(shown.current_a)
    assert first.voltage_v == pytest.approx(shown.voltage_v)
    assert first.power_w == pytest.approx(sum(shown.power_w))
    assert first.import_wh == pytest.approx(1_500_000.0)
    assert first.import_step_wh == {"eastron_sdm630": 10.0, "cg_em300_em500": 100.0}[map_name]
    assert first.period_s == 0.2
    assert (first.sample, second.sample) == (1, 2)
    assert second.sampled_at_s > first.sampled_at_s


async def test_the_second_meter_behind_a_gateway_has_its_own_unit_id() -> None:
    async with MeterServer("eastron_sdm630", lambda: IMPORTING, unit_id=7) as server:
        async with watching(config(server.port).model_copy(update={"unit_id": 7})) as watcher:
            assert isinstance(await watcher.next(), MeterReading)
        async with watching(config(server.port)) as watcher:
            assert await watcher.next() == "exception_reply"


async def test_a_reading_never_claims_to_be_newer_than_what_the_meter_measured() -> None:
    clock = SystemClock()
    measured_at_s: list[float] = []

    def source() -> MeterValues:
        measured_at_s.append(clock.now_s())
        return IMPORTING

    async with MeterServer("eastron_sdm630", source) as server, watching(config(server.port)) as watcher:
        assert (await watcher.reading()).sampled_at_s <= measured_at_s[0]


@pytest.mark.parametrize(
    ("map_name", "current_a", "power_w", "read_a"),
    [
        ("eastron_sdm630", (10.0, 10.0, 10.0), (2300.0, -2300.0, 0.0), (10.0, -10.0, 10.0)),  # unsigned: power tells
        ("eastron_sdm630", (-10.0, 10.0, 0.0), (2300.0, -2300.0, 0.0), (10.0, -10.0, 0.0)),
        ("cg_em300_em500", (10.0, -10.0, 10.0), (2300.0, 2300.0, -2300.0), (10.0, 10.0, -10.0)),  # power outranks it
        ("eastron_sdm630", (22.0, 22.0, 22.0), (-460.0, -460.0, 460.0), (-2.0, -2.0, 22.0)),  # mostly reactive: no room
    ],
)
def test_the_direction_of_a_current(map_name: str, current_a: Phases, power_w: Phases, read_a: Phases) -> None:
    assert read(map_name, current_a=current_a, power_w=power_w, total_w=sum(power_w)).current_a == read_a


# ------------------------------------------------------------------------------------------------ what is not believed


def read(
    map_name: str = "cg_em300_em500",
    *,
    current_a: Phases = (10.0, 10.0, 10.0),
    voltage_v: Phases = (230.0, 230.0, 230.0),
    power_w: Phases | None = (2300.0, 2300.0, 2300.0),
    total_w: float | None = 6900.0,
) -> MeterReading:
    values: dict[PointName, float] = {
        **dict(zip(regmap.CURRENT_A, current_a, strict=True)),
        **dict(zip(regmap.VOLTAGE_V, voltage_v, strict=True)),
    }
    if power_w is not None:
        values |= dict(zip(regmap.POWER_W, power_w, strict=True))
    if total_w is not None:
        values["power_w"] = total_w
    return interpret(regmap.load(map_name), values, sampled_at_s=1.0, sample=1, period_s=1.0)


@pytest.mark.parametrize(
    ("reading", "problem"),
    [
        (lambda: read(current_a=(0.0, 10_001.0, 0.0)), "implausible_current"),
        (lambda: read(current_a=(0.0, 0.0, -10_001.0)), "implausible_current"),
        (lambda: read(current_a=(math.nan, 0.0, 0.0)), "implausible_current"),
        (lambda: read(voltage_v=(149.0, 230.0, 230.0)), "implausible_voltage"),
        (lambda: read(voltage_v=(230.0, 230.0, 301.0)), "implausible_voltage"),
        (lambda: read(voltage_v=(230.0, math.nan, 230.0)), "implausible_voltage"),
        (lambda: read(total_w=-6900.0), "implausible_power"),  # the total counts the other way
        (lambda: read(total_w=9300.0), "implausible_power"),
        (lambda: read(total_w=math.nan), "implausible_power"),
        (lambda: read(power_w=(math.nan, 0.0, 0.0)), "implausible_power"),
        (lambda: read(power_w=(1e30, 1e30, 1e30), total_w=3e30), "implausible_power"),
        (lambda: read(power_w=None, total_w=None), "implausible_power"),
    ],
)
def test_what_cannot_be_true_is_rejected(reading: Callable[[], MeterReading], problem: str) -> None:
    with pytest.raises(RejectedError) as rejected:
        reading()
    assert rejected.value.problem == problem


@pytest.mark.parametrize(
    ("power_w", "total_w", "read_w"),
    [
        ((2300.0, 2300.0, 2300.0), 6900.0, 6900.0),
        ((2300.0, 2300.0, 2300.0), 9100.0, 9100.0),  # a 2.2 kW load came between the two reads
        ((200.0, 0.0, 0.0), -700.0, -700.0),  # small power, small difference
        ((2300.0, -2000.0, 0.0), None, 300.0),  # no total: added up
        (None, -5000.0, -5000.0),  # no phases
    ],
)
def test_total_power(power_w: Phases | None, total_w: float | None, read_w: float) -> None:
    assert read(power_w=power_w, total_w=total_w).power_w == read_w


@pytest.mark.parametrize("map_name", MAPS)
@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        (Mode.SILENT, "timeout"),
        (Mode.LATE, "timeout"),
        (Mode.EXCEPTION, "exception_reply"),
        (Mode.SHORT, "wrong_reply"),
        (Mode.NAN, "no_value"),
    ],
)
async def test_a_misbehaving_meter_is_never_believed_and_believed_again_when_it_behaves(
    map_name: str, mode: Mode, problem: str
) -> None:
    async with MeterServer(map_name, lambda: IMPORTING) as server:
        server.mode = mode
        async with watching(config(server.port, map_name)) as watcher:
            assert [await watcher.next(), await watcher.next()] == [problem, problem]
            server.mode = Mode.OK
            reading = await watcher.reading()
    assert reading.sample == 1
    assert reading.current_a == pytest.approx((16.0, 8.0, 0.5))


def _with(reply: bytes, position: int, byte: int) -> bytes:
    return reply[:position] + bytes([byte]) + reply[position + 1 :]


def _longer(reply: bytes, extra: bytes, *, counted: int) -> bytes:
    """Return the reply with extra bytes at its end, of which `counted` are in the byte count."""
    return _with(_with(reply, 5, reply[5] + len(extra)), 8, reply[8] + counted) + extra


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (lambda reply: _with(reply, 7, 3), "wrong_reply"),  # answers function 3 to function 4
        (lambda reply: _with(reply, 7, 1), "wrong_reply"),  # coils
        (lambda reply: _with(reply, 6, 2), "timeout"),  # another unit's answer
        (lambda reply: _with(reply, 1, reply[1] ^ 0x55), "timeout"),  # another transaction's answer
        (lambda reply: _with(reply, 3, 1), "timeout"),  # not Modbus
        (lambda reply: reply[:-2], "timeout"),  # the end never comes
        (lambda reply: _longer(reply, b"\0\0", counted=2), "wrong_reply"),  # a register too many
        (lambda reply: _longer(reply, b"\0", counted=1), "wrong_reply"),  # half a register too many
        (lambda reply: _longer(reply, b"\0\0", counted=0), "wrong_reply"),  # more than it counts
        (lambda reply: _with(reply, 8, 200), "connection_lost"),  # counts more than it has
        (lambda reply: reply + reply, "wrong_reply"),  # answers twice
        (lambda _: bytes(300), "timeout"),
    ],
)
async def test_a_reply_of_the_wrong_shape_is_never_believed(tamper: Callable[[bytes], bytes], problem: str) -> None:
    server = MeterServer("eastron_sdm630", lambda: IMPORTING, tamper=tamper)
    async with server, watching(config(server.port)) as watcher:
        assert [await watcher.next(), await watcher.next()] == [problem, problem]
        server.tamper = None
        assert (await watcher.reading()).sample == 1


@pytest.mark.parametrize("echoes_transaction_ids", [True, False])
async def test_a_late_reply_is_never_taken_for_that_of_the_next_request(*, echoes_transaction_ids: bool) -> None:
    shown = replace(IMPORTING, current_a=(99.0, 99.0, 99.0))

    def tamper(reply: bytes) -> bytes:
        return reply if echoes_transaction_ids else b"\0\0" + reply[2:]

    async with MeterServer("eastron_sdm630", lambda: shown, tamper=tamper) as server:
        server.mode = Mode.LATE
        async with watching(config(server.port)) as watcher:
            assert await watcher.next() == "timeout"
            shown = IMPORTING
            server.mode = Mode.OK  # from here, what was held back would come first
            reading = await watcher.next()
    assert isinstance(reading, MeterReading)
    assert reading.current_a == pytest.approx((16.0, 8.0, 0.5))
    assert server.connections_seen == 2


async def test_what_comes_unasked_makes_the_connection_worthless() -> None:
    block = regmap.Block(address=0, count=2)
    async with MeterServer("eastron_sdm630", lambda: IMPORTING) as server:
        connection = Connection("127.0.0.1", server.port)
        await connection.open()
        assert await connection.read(1, 4, block) == [0x4366, 0x0000]
        (writer,) = server._open.values()
        writer.write(bytes.fromhex("0000 0000 0007 01 04 04 4396 0000"))  # 300 V, without a transaction id
        async with asyncio.timeout(PATIENCE_S):
            while not connection._heard:  # noqa: ASYNC110 - pymodbus tells nobody that something came unasked
                await asyncio.sleep(0)
        with pytest.raises(BusError) as refused:
            await connection.read(1, 4, block)
        connection.close()
    assert refused.value.problem is Problem.WRONG_REPLY


# ------------------------------------------------------------------------------------------------------ away and back


async def test_a_meter_that_goes_away_and_returns_is_read_again() -> None:
    server = MeterServer("eastron_sdm630", lambda: IMPORTING)
    async with server:
        settings = config(server.port)
    async with watching(settings) as watcher:
        assert await watcher.next() == "unreachable"  # at the start already: it stops nothing
        async with server:
            before = await watcher.reading()
        await watcher.failure("unreachable")
        async with server:
            after = await watcher.reading()
    assert after.sample > before.sample == 1


async def test_a_meter_that_is_read_seldom_is_not_given_up_for_a_whole_period() -> None:
    server = MeterServer("eastron_sdm630", lambda: IMPORTING)
    async with server:
        settings = config(server.port).model_copy(update={"period_s": 60.0})
    async with watching(settings) as watcher:
        await watcher.failure("unreachable")
        await watcher.failure("unreachable")
        async with server:
            assert (await watcher.reading()).sample == 1


async def test_a_connection_closed_between_two_reads_costs_no_reading() -> None:
    async with MeterServer("eastron_sdm630", lambda: IMPORTING) as server, watching(config(server.port)) as watcher:
        assert isinstance(await watcher.next(), MeterReading)
        for writer in server._open.values():
            writer.close()
        assert isinstance(await watcher.next(), MeterReading)
    assert server.connections_seen == 2


async def test_a_host_name_that_cannot_be_one_is_unreachable() -> None:
    async with watching(config(502, host="meter" * 20 + ".example")) as watcher:
        assert await watcher.next() == "unreachable"


async def test_the_reader_is_cancelled_in_the_middle_of_a_request_and_leaves_no_connection() -> None:
    asked = asyncio.Event()

    def source() -> MeterValues:
        asked.set()
        return IMPORTING

    async with MeterServer("eastron_sdm630", source) as server, asyncio.timeout(PATIENCE_S):
        server.mode = Mode.LATE
        task = asyncio.create_task(meter(config(server.port), Watcher()).run())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait(server._open)  # the server saw the connection end


def test_an_unknown_map_is_told_before_anything_runs() -> None:
    with pytest.raises(MapError, match="did you mean 'cg_em300_em500'"):
        meter(config(502, "cg_em300"), Watcher())


@pytest.mark.parametrize(
    ("now_s", "next_s"),
    [
        (100.02, 101.0),
        (100.99, 101.0),
        (101.0, 102.0),
        (100.999_999_999, 102.0),  # the timer fired a hair early: this slot is being read
        (103.5, 104.0),  # slow read: the slots at 101, 102 and 103 are gone
        (5000.25, 5001.0),
    ],
)
def test_reads_stay_on_the_grid_and_do_not_pile_up(now_s: float, next_s: float) -> None:
    assert next_slot_s(100.0, 1.0, now_s) == next_s


def test_the_grid_does_not_drift_in_a_month() -> None:
    assert next_slot_s(0.3, 0.2, 2_592_000.31) == pytest.approx(2_592_000.5, abs=1e-6)


def test_pauses_before_connecting_again() -> None:
    assert [retry_s(failures, None) for failures in (1, 2, 3, 4, 5, 6, 1000)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    rng = random.Random(7)  # noqa: S311 - seeded, to spread reconnects
    jittered = [retry_s(1000, rng) for _ in range(100)]
    assert len(set(jittered)) == 100
    assert all(2.5 <= pause_s <= 5.0 for pause_s in jittered)
