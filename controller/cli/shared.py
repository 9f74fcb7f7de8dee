"""What several subcommands need: reading a site, running until told to stop, one JSON object."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from controller.cli.main import UsageError
from controller.commissioning import Commissioned, commission
from controller.config import SiteFileError


def site_at(path: str) -> Commissioned:
    """Read a site file. Raises UsageError with every problem."""
    try:
        return commission(Path(path))
    except SiteFileError as error:
        raise UsageError(str(error)) from error


def print_json(value: dict[str, Any]) -> None:
    """Print the one JSON object of a command."""
    print(json.dumps(value))  # noqa: T201 - a command line speaks


def say(text: str) -> None:
    """Print a line of a command's answer."""
    print(text)  # noqa: T201 - a command line speaks


def tell(text: str) -> None:
    """Print a line beside a command's answer, on stderr."""
    print(text, file=sys.stderr)  # noqa: T201 - a command line speaks


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
