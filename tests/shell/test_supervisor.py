"""A task that fails is started again after a growing pause, and never ends the others."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from controller.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, Supervisor
from tests.shell.bench import START_S, ManualClock, in_virtual_time


def starts_of(work_s: Callable[[int], float], for_s: float, *, fails: bool = True) -> list[float]:
    """Keep a task that works for so many seconds, then fails or ends; return the seconds at which it was started."""
    clock = ManualClock()
    at_s: list[float] = []

    async def work() -> None:
        at_s.append(round(clock.now_s() - START_S, 3))
        await asyncio.sleep(work_s(len(at_s)))
        if fails:
            raise ValueError("worn out")

    async def play() -> None:
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(group)
            supervisor.keep("worker", work)
            await asyncio.sleep(for_s)
            supervisor.stop()

    in_virtual_time(clock, play())
    return at_s


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_that_fails_or_ends_is_started_again_after_a_growing_pause(
    caplog: pytest.LogCaptureFixture, *, fails: bool
) -> None:
    at_s = starts_of(lambda _: 0.0, 150.0, fails=fails)
    pauses_s = [later - earlier for earlier, later in pairwise(at_s)]
    assert pauses_s == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert (pauses_s[0], pauses_s[-1]) == (FIRST_PAUSE_S, LONGEST_PAUSE_S)
    assert caplog.text.count("worker ended; again in") == len(at_s)
    assert ("worker failed" in caplog.text) is fails


def test_a_task_that_worked_for_long_is_started_again_soon() -> None:
    at_s = starts_of(lambda start: 3600.0 if start == 5 else 0.0, 3700.0)
    assert at_s[:5] == [0.0, 0.5, 1.5, 3.5, 7.5]
    assert at_s[5] == 7.5 + 3600.0 + FIRST_PAUSE_S


def test_a_failure_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    ticks: list[float] = []

    async def good() -> None:
        while True:
            ticks.append(clock.now_s())
            await asyncio.sleep(1.0)

    async def bad() -> None:
        raise OSError("no such device")

    async def once() -> None:
        raise RuntimeError("only once")

    async def play() -> int:
        async with asyncio.TaskGroup() as group:
            supervisor = Supervisor(group)
            supervisor.keep("bad", bad)
            supervisor.keep("good", good)
            supervisor.start("once", once())
            await asyncio.sleep(10.2)
            supervisor.stop()
        return supervisor.failures

    failures = in_virtual_time(clock, play())
    assert len(ticks) == 11
    assert failures == 5 + 1  # bad at 0, 0.5, 1.5, 3.5 and 7.5 s
    assert caplog.text.count("once failed") == 1
    assert "only once" in caplog.text


async def test_stop_ends_everything_even_what_has_not_begun() -> None:
    begun = asyncio.Event()

    async def works() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def never_begins() -> None:
        raise AssertionError("it was stopped before")

    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        kept, started = supervisor.keep("kept", works), supervisor.start("started", works())
        await begun.wait()
        late = supervisor.start("late", never_begins())
        supervisor.stop()
    assert kept.cancelled()
    assert started.cancelled()
    assert late.cancelled()
    assert supervisor.failures == 0


async def test_finished_work_is_forgotten() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        for _ in range(100):
            await supervisor.start("short", work())
        assert supervisor._tasks == set()


async def test_work_that_swallows_its_cancellation_does_not_hold_up_the_end() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
            raise RuntimeError("failed while it was stopped") from None

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        supervisor.keep("stubborn", stubborn)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await supervisor.end()
    assert swallowed == 1
