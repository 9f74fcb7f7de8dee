"""The session layer between two peers in memory: what is hard to time over a socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK

from controller.ports import StationGone, StationTimeout
from drivers.ocpp.counters import new_counters
from drivers.ocpp.frames import CODES_V16, Call
from drivers.ocpp.link import Link, Reply
from drivers.ocpp.turns import Priority, Turns
from tests.ocpp.plaza_of_stations import PATIENCE_S, ManualClock


class Wire:
    """A websocket whose other end is the test."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | None] = asyncio.Queue()
        self.sent: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.closed: tuple[int, str] | None = None

    async def recv(self) -> str:
        text = await self.incoming.get()
        if text is None:
            raise ConnectionClosedOK(None, None)
        return text

    async def send(self, message: str) -> None:
        if self.closed is not None:
            raise ConnectionClosedOK(None, None)
        self.sent.put_nowait(json.loads(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)
        self.incoming.put_nowait(None)

    async def next(self) -> list[Any]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.sent.get()


async def echo(call: Call) -> Reply:
    return Reply(call.payload)


@contextlib.asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Wire]]:
    wire = Wire()
    link = Link(wire, echo, codes=CODES_V16.__getitem__, clock=ManualClock(), counters=new_counters())
    task = asyncio.create_task(link.run())
    try:
        yield link, wire
    finally:
        wire.incoming.put_nowait(None)
        async with asyncio.timeout(PATIENCE_S):
            await task


def asking(link: Link, action: str, priority: Priority) -> asyncio.Task[dict[str, Any]]:
    return asyncio.create_task(link.call(action, {}, timeout_s=3600, priority=priority))


async def test_one_call_at_a_time_and_control_before_settings() -> None:
    async with linked() as (link, wire):
        tasks = [
            asking(link, "First", Priority.CONTROL),
            asking(link, "Setting", Priority.SETUP),
            asking(link, "Other setting", Priority.SETUP),
            asking(link, "Control", Priority.CONTROL),
        ]
        order = []
        for _ in tasks:
            _, id_, action, _ = await wire.next()
            assert wire.sent.empty()
            order.append(action)
            wire.incoming.put_nowait(json.dumps([3, id_, {}]))
        await asyncio.gather(*tasks)
        assert order == ["First", "Control", "Setting", "Other setting"]


async def test_a_control_call_waits_no_longer_than_a_second_for_an_unanswered_setting() -> None:
    async with linked() as (link, wire):
        setting = asking(link, "Setting", Priority.SETUP)
        await wire.next()
        control = asking(link, "Control", Priority.CONTROL)
        with pytest.raises(StationTimeout):  # not after its hour
            await setting
        _, id_, action, _ = await wire.next()
        assert action == "Control"
        wire.incoming.put_nowait(json.dumps([3, id_, {}]))
        assert await control == {}


async def test_a_cancelled_call_makes_room_and_its_late_answer_is_nobodys() -> None:
    async with linked() as (link, wire):
        first = asking(link, "First", Priority.CONTROL)
        _, late, _, _ = await wire.next()
        second = asking(link, "Second", Priority.CONTROL)
        first.cancel()
        _, id_, action, _ = await wire.next()
        assert action == "Second"
        wire.incoming.put_nowait(json.dumps([3, late, {"for": "the first"}]))
        wire.incoming.put_nowait(json.dumps([3, id_, {"for": "the second"}]))
        assert await second == {"for": "the second"}


async def test_an_answer_in_between_starts_the_count_of_unanswered_calls_again() -> None:
    async with linked() as (link, wire):
        for _ in range(2):
            with pytest.raises(StationTimeout):
                await link.call("Lost", {}, timeout_s=0.01)
            await wire.next()
        answered = asking(link, "Heard", Priority.CONTROL)
        _, id_, _, _ = await wire.next()
        wire.incoming.put_nowait(json.dumps([4, id_, "InternalError"]))
        await asyncio.wait({answered})
        assert answered.exception() is not None
        for _ in range(2):
            with pytest.raises(StationTimeout):
                await link.call("Lost", {}, timeout_s=0.01)
        assert wire.closed is None
        with pytest.raises(StationTimeout):
            await link.call("Lost", {}, timeout_s=0.01)
        with pytest.raises(StationGone):
            await link.call("Late", {}, timeout_s=0.01)
    assert wire.closed is not None


async def test_what_a_peer_said_before_it_left_is_still_heard() -> None:
    heard: list[str] = []
    wire = Wire()

    async def keep(call: Call) -> Reply:
        await asyncio.sleep(0)
        heard.append(call.action)
        return Reply({})

    link = Link(wire, keep, codes=CODES_V16.__getitem__, clock=ManualClock(), counters=new_counters())
    for number in range(5):
        wire.incoming.put_nowait(json.dumps([2, str(number), f"Word{number}", {}]))
    wire.incoming.put_nowait(None)
    async with asyncio.timeout(PATIENCE_S):
        await link.run()
    assert heard == [f"Word{number}" for number in range(5)]


async def test_a_link_that_was_stopped_before_it_ran_hears_nothing() -> None:
    heard: list[str] = []
    wire = Wire()

    async def keep(call: Call) -> Reply:
        heard.append(call.action)
        return Reply({})

    link = Link(wire, keep, codes=CODES_V16.__getitem__, clock=ManualClock(), counters=new_counters())
    wire.incoming.put_nowait(json.dumps([2, "1", "Word", {}]))
    link.stop(1008, "r\u00e9ason" * 60)
    async with asyncio.timeout(PATIENCE_S):
        await link.run()
    assert heard == []
    assert wire.closed is not None
    assert len(wire.closed[1].encode()) <= 123  # RFC 6455 §5.5


async def test_who_waits_for_a_turn_is_counted() -> None:
    turns = Turns(most=1)
    async with turns.take(Priority.CONTROL):
        waiting = asyncio.create_task(one_turn(turns))
        await asyncio.sleep(0)
        with pytest.raises(StationTimeout, match="too many"):
            await one_turn(turns)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        again = asyncio.create_task(one_turn(turns))
        await asyncio.sleep(0)
        turns.lose()
        with pytest.raises(StationGone):
            await again
    with pytest.raises(StationGone):
        await one_turn(turns)


async def one_turn(turns: Turns) -> None:
    async with turns.take(Priority.CONTROL):
        pass
