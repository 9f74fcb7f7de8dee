"""Runs `laadplein` as a user does: in a process of its own."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from tests.house.source import ROOT

COMMAND = (sys.executable, "-m", "controller.cli.main")
PATIENCE_S = 60.0  # a process that has not answered by then hangs


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def laadplein(*arguments: str) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, timeout=PATIENCE_S, check=False
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


class Running:
    """A command that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        self._process, self._told = process, process.stderr
        self._lines: list[str] = []

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line on stderr."""
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self._told.readline()).decode():
                self._lines.append(line)
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"it ended without saying {pattern!r}:\n{''.join(self._lines)}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Raises ProcessLookupError when it has ended."""
        self._process.send_signal(number)

    async def ended(self, number: signal.Signals | None = None) -> Ended:
        """Wait for its end, after a signal if there is one to be sent."""
        if number is not None:
            self.send(number)
        async with asyncio.timeout(PATIENCE_S):
            stdout, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return Ended(self._process.returncode, stdout.decode(), "".join(self._lines) + stderr.decode())


@asynccontextmanager
async def started(*arguments: str) -> AsyncIterator[Running]:
    """Start a command; it does not outlive the test."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@contextmanager
def taken_port() -> Iterator[int]:
    """Hold a port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]
