"""The task supervisor: every task has a name, a failure of one is logged and never ends the others.

One of the two places where any exception is caught (the other is the loop's guard around `decide`): a bug in a
publisher or in one station's driver must not stop the control of the rest.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
CANCEL_AGAIN_S: Final = 0.5

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs named tasks in one TaskGroup."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.failures = 0
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run something once; a failure is logged and counted."""
        task = self._watched(self._group.create_task(self._once(name, work), name=name))
        # Cancelled before its first step, it would never have been awaited.
        task.add_done_callback(lambda _: work.close())
        return task

    def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run something for ever: when it fails or ends it is started again, after a growing pause."""
        return self._watched(self._group.create_task(self._again(name, work), name=name))

    def stop(self) -> None:
        """Cancel everything that runs; nothing is started again."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Cancel everything, again and again: work that fails at that moment swallows a cancellation."""
        self.stop()
        while self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CANCEL_AGAIN_S)
            self.stop()

    def _watched(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _once(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - this is the task supervisor
            self.failures += 1
            _log.exception("%s failed", name)

    async def _again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while not self._stopping:
            started_at_s = loop.time()
            await self._once(name, work())
            if loop.time() - started_at_s > LONGEST_PAUSE_S:
                pause_s = FIRST_PAUSE_S  # it had worked for long: not the failure of before
            _log.warning("%s ended; again in %.1f s", name, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2.0 * pause_s)
