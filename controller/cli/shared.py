"""What several subcommands need: reading a site, running until told to stop."""

import asyncio
import signal
from collections.abc import Awaitable, Iterable, Iterator
from pathlib import Path

from controller.cli.usage import UsageError
from controller.commissioning import Commissioned, commission
from controller.config import Problem, SiteFile, SiteFileError, did_you_mean
from drivers.modbus import regmap

CANCEL_AGAIN_S = 1.0


def site_at(path: str) -> Commissioned:
    """Read a site file. Raises UsageError with every problem."""
    try:
        return commission(Path(path), _problems)
    except SiteFileError as error:
        raise UsageError(str(error)) from error


def _problems(file: SiteFile) -> Iterator[Problem]:
    """Find what the file alone cannot show: what this machine and the drivers do not have."""
    yield from _state_problems(file)
    yield from _meter_problems(file)


def _state_problems(file: SiteFile) -> Iterator[Problem]:
    directory = file.state.directory
    if directory is None:
        return
    for place in (directory, *directory.parents):
        try:
            place.stat()
        except OSError:  # it is made at the first write, or what is wrong with it passes
            continue
        if not place.is_dir():
            text = f"{place} exists and is not a directory"
            remedy = "name a directory, or move away what is there"
            yield Problem(location=("state", "directory"), text=text, remedy=remedy)
        return


def _meter_problems(file: SiteFile) -> Iterator[Problem]:
    maps = regmap.available()
    for index, meter in enumerate(file.meter):
        if meter.map not in maps:
            text = f"there is no register map {meter.map!r}"
            yield Problem(location=("meter", index, "map"), text=text, remedy=did_you_mean(meter.map, maps))


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` on SIGTERM and SIGINT instead of dying."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def until(stop: asyncio.Event, seconds: float | None) -> None:
    """Wait until `stop` is set, or for so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def alongside(work: Awaitable[None], stop: asyncio.Event, seconds: float | None) -> None:
    """Run `work` until told to stop or for so many seconds; an error of it ends the command."""
    running = asyncio.ensure_future(work)
    waiting = asyncio.create_task(until(stop, seconds))
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
    else:
        running.cancel()
        await asyncio.wait({running})


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end.

    More than once where it takes that: up to Python 3.12 a TaskGroup that is just failing swallows a cancellation.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
