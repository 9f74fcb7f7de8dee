"""A simulated station's life on the network: connect, boot, say what is to be said, fall silent, come back.

Knows links, back-off and outages. Does not care what the messages mean (the station makes and settles them).
"""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from drivers.ocpp.frames import Payload
from simulators.station_link import CallFailed, LinkDown, StationLink, open_connection
from simulators.station_messages import Cause, Outgoing

if TYPE_CHECKING:
    from simulators.station import SimulatedStation

_MAX_ATTEMPTS: Final = 3
_LONGEST_WAIT_S: Final = 86_400.0


@dataclass(slots=True)
class Outage:
    """A time without a link. `silent` leaves the other side a dead connection; `reboot` takes the power as well."""

    for_s: float
    reboot: bool
    silent: bool
    boot_reason: Cause = Cause.POWER_LOSS
    done: asyncio.Event = field(default_factory=asyncio.Event)


class StationNetwork:
    """The network side of one station. `online` is set while the link is up and the boot was accepted."""

    def __init__(self, station: "SimulatedStation") -> None:
        self._station = station
        self.online = asyncio.Event()
        self.booted = False
        self._wake = asyncio.Event()
        self._cut = asyncio.Event()
        self._outage: Outage | None = None
        self._link: StationLink | None = None
        self._failures = 0
        self._offline_since_s = station.clock.now_s()

    def wake(self) -> None:
        """Tell that there may be something to say."""
        self._wake.set()

    async def run(self) -> None:
        """Live on the network until cancelled: connect, boot, report, and come back whenever the link is lost."""
        try:
            while True:
                self._cut.clear()
                if self._outage is not None:
                    await self._sit_out(self._outage)
                    continue
                try:
                    await self._session()
                except* LinkDown:
                    self._failures += 1
                    await self._pause()
        finally:
            self.online.clear()

    async def _session(self) -> None:
        """Be connected, until the link is down. Raises a group of LinkDown."""
        station = self._station
        try:
            connection = await open_connection(
                station.url, station.dialect.subprotocol, timeout_s=station.manners.connect_timeout_s
            )
        except LinkDown:
            station.statistics.failed_connects += 1
            raise
        station.statistics.connects += 1
        link = StationLink(connection, station.answer, station.answered, call_timeout_s=station.manners.call_timeout_s)
        self._link = link
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(link.read(), name=f"{station.id} reads")
                group.create_task(self._work(link), name=f"{station.id} reports")
                group.create_task(self._await_cut(link), name=f"{station.id} may be cut off")
        finally:
            if self.online.is_set():
                self._offline_since_s = self._station.clock.now_s()
            self.online.clear()
            if not link.silent:
                self._link = None
                await link.close()

    async def _await_cut(self, link: StationLink) -> None:
        await self._cut.wait()
        if self._outage is not None and self._outage.silent:
            link.mute()
        else:
            link.abort()
        raise LinkDown("cut off")

    async def _work(self, link: StationLink) -> None:
        """Boot, then say what is to be said, one call at a time; a heartbeat when there is nothing."""
        station = self._station
        if not self.booted:
            await self._boot(link)
        elif self._station.clock.now_s() - self._offline_since_s >= station.manners.offline_threshold_s:
            station.forget_told()
        self._failures = 0
        self.online.set()
        while True:
            self._wake.clear()
            await self._flush(link)
            try:
                async with asyncio.timeout(max(1, int(station.variables[station.dialect.heartbeat_key].value))):
                    await self._wake.wait()
            except TimeoutError:
                await self._deliver(link, Outgoing("Heartbeat", {}, lambda _: None))

    async def _boot(self, link: StationLink) -> None:
        """Introduce ourselves until we are accepted."""
        station = self._station
        while not self.booted:
            result = await self._try(link, *station.dialect.boot(station.about, station.boot_reason)) or {}
            interval_s = result.get("interval", 0)
            if not isinstance(interval_s, int) or interval_s <= 0:
                interval_s = station.manners.heartbeat_s
            if result.get("status") == "Accepted":
                station.variables[station.dialect.heartbeat_key].value = str(interval_s)
                station.statistics.boots += 1
                self.booted = True
                station.forget_told()
            else:
                await asyncio.sleep(min(interval_s, _LONGEST_WAIT_S))

    async def _flush(self, link: StationLink) -> None:
        """Send everything that waits: what was promised, states, cards, then the outbox in order."""
        while (message := self._station.next_message()) is not None:
            await self._deliver(link, message)

    async def _deliver(self, link: StationLink, message: Outgoing) -> None:
        """Send one message. One about a transaction is tried three times before it is given up."""
        station = self._station
        result = await self._try(link, message.action, station.dialect.completed(message))
        message.attempts += 1
        if result is None and message.transaction is not None and message.attempts < _MAX_ATTEMPTS:
            await asyncio.sleep(station.manners.retry_s)
            return
        station.delivered(message)
        message.settle(result)

    async def _try(self, link: StationLink, action: str, payload: Payload) -> Payload | None:
        """Return the answer, or None when the central system gave an error."""
        station = self._station
        station.statistics.sent[action] += 1
        try:
            return await link.call(action, payload)
        except CallFailed:
            station.statistics.failed[action] += 1
            return None

    async def _pause(self) -> None:
        """Wait before the next attempt: longer each time, up to a bound, and never in step with other stations."""
        station = self._station
        if self._outage is not None:
            return
        longest_s = min(station.manners.backoff_max_s, station.manners.backoff_s * 2 ** min(self._failures - 1, 16))
        try:
            async with asyncio.timeout(longest_s * station.rng.uniform(0.5, 1.0)):
                await self._cut.wait()
        except TimeoutError:
            return

    async def go_dark(self, outage: Outage) -> None:
        """Be away for a while. Returns when the station may connect again."""
        while self._outage is not None:
            await self._outage.done.wait()
        self.start_outage(outage)
        await outage.done.wait()

    def start_outage(self, outage: Outage) -> None:
        """Begin to be away; nothing when the station is away already."""
        if self._outage is not None:
            return
        self._outage = outage
        self._offline_since_s = self._station.clock.now_s()
        self.online.clear()
        if outage.reboot:
            self._station.lose_power(outage.boot_reason)
            self.booted = False
        self._cut.set()

    async def _sit_out(self, outage: Outage) -> None:
        try:
            await asyncio.sleep(outage.for_s)
        finally:
            if self._link is not None:
                self._link.abort()
                self._link = None
            self._station.regain_power()
            self._outage = None
            outage.done.set()
