"""MQTT: the state of circuits and EVSEs on a broker, for whoever subscribes.

    <topic>/status          "online" or "offline" (also the last will)
    <topic>/circuit/<id>    one circuit, as in `/api/v1/state`
    <topic>/evse/<id>       one EVSE, as in `/api/v1/state`

All are retained, so that a new subscriber sees the whole site at once. Entries are published when something other than
the passing of time changed, and every 60 s. Nothing is subscribed to: this driver only shows (C7).

Kept is the latest cycle and, per topic, what was published last; messages wait for each other, so that a broker that
does not read makes no queue grow (C9). Entries go with QoS 0: on one TCP connection they arrive in order or the
connection is lost, and then all are published again. The status goes with QoS 1.

This module imports aiomqtt at its top and is therefore imported late: control starts first.
"""

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from zlib import crc32

import aiomqtt

from controller import state
from controller.config import MqttSection
from controller.ports import Clock, CycleReport

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"

_PROBLEM_SHOWN: Final = 200
_PASSWORD_BYTES: Final = 4096
_READS_TO_END: Final = 1000

_log = logging.getLogger(__name__)
# aiomqtt's own warnings say in more words what `_lost` says once.
_library_log = logging.getLogger(f"{__name__}.client")
_library_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttTiming:
    """How patient the publisher is. A frozen broker is noticed after at most 2 x `keepalive_s` plus `timeout_s`."""

    keepalive_s: int = 15
    timeout_s: float = 5.0
    refresh_s: float = 60.0
    retry_first_s: float = 1.0
    retry_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a topic holds at the broker, without what ages, and since when."""

    settled: object
    at_s: float


class MqttPublisher:
    """A `Publisher` that keeps the retained topics of one site up to date, for as long as `run` runs."""

    def __init__(self, config: MqttSection, clock: Clock, timing: MqttTiming | None = None) -> None:
        self._config = config
        self._clock = clock
        self._timing = timing or MqttTiming()
        self._report: CycleReport | None = None
        self._news = asyncio.Event()
        self._connected = False
        self._problem: str | None = "not connected yet"
        self._told = False
        self._failures = 0
        self._published = 0

    def publish(self, report: CycleReport) -> None:
        """Take note of a cycle; the one before it is forgotten."""
        self._report = report
        self._news.set()

    def status(self) -> Mapping[str, object]:
        """Return how the connection is doing, for `/health`."""
        return {
            "broker": f"{self._config.host}:{self._config.port}",
            "connected": self._connected,
            "problem": self._problem,
            "failures": self._failures,
            "published": self._published,
        }

    async def run(self) -> NoReturn:
        """Publish until cancelled, whatever the broker does; on cancellation say goodbye."""
        delay_s = self._timing.retry_first_s
        while True:
            connected_at_s: float | None = None
            try:
                client = await self._connect()
                connected_at_s = self._clock.now_s()
                await self._session(client)
            # aiomqtt lets ValueError through for a host that cannot be a name, or a password that is too long.
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                self._lost(error)
            held_s = 0.0 if connected_at_s is None else self._clock.now_s() - connected_at_s
            # A broker that accepts and drops at once is as bad as one that is away.
            delay_s = self._timing.retry_first_s if held_s >= self._timing.retry_max_s else delay_s
            await asyncio.sleep(delay_s * self._spread())
            delay_s = min(2 * delay_s, self._timing.retry_max_s)

    # ---------------------------------------------------------------------------------------------------- connection

    async def _connect(self) -> aiomqtt.Client:
        """Return a connected client. Raises MqttError, OSError or ValueError."""
        config, timing = self._config, self._timing
        password = await asyncio.to_thread(_read_secret, config.password_file) if config.password_file else None
        client = aiomqtt.Client(
            config.host,
            config.port,
            username=config.username,
            password=password,
            # The same each time: a new connection ends a half-open old one *before* it speaks. With a random id the
            # old one's will would say "offline" long after the new one said "online".
            identifier=f"laadplein{crc32(config.topic.encode()):08x}",
            will=aiomqtt.Will(self._topic("status"), OFFLINE, qos=1, retain=True),
            keepalive=timing.keepalive_s,
            timeout=timing.timeout_s,
            max_queued_incoming_messages=1,
            logger=_library_log,
        )
        entering = asyncio.create_task(_enter(client))
        try:
            await asyncio.shield(entering)
        except asyncio.CancelledError:
            # A thread is connecting; leaving before it is done would leave its socket open. Both waits are bounded.
            await asyncio.wait([entering])
            if entering.exception() is None:
                await _leave(client)
            raise
        return client

    async def _session(self, client: aiomqtt.Client) -> None:
        """Publish over one connection until it is lost; then raise MqttError. Leaves nothing open."""
        watching = asyncio.create_task(_until_lost(client))
        feeding = asyncio.create_task(self._feed(client))
        try:
            await asyncio.wait([watching, feeding], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _end(feeding)
            await self._say_goodbye(client)
            raise
        finally:
            self._connected = False
            await _end(feeding)
            _drop(client)
            # It ends by itself now that the connection is gone, and takes the reason along.
            await asyncio.wait([watching], timeout=self._timing.timeout_s)
            lost = watching.exception() if watching.done() else None
            watching.cancel()
        if not feeding.cancelled():
            feeding.result()
        if lost is not None:
            raise lost

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        """Publish the status that the last will would; a broker that does not listen costs `timeout_s`."""
        with suppress(aiomqtt.MqttError):
            await client.publish(self._topic("status"), OFFLINE, qos=1, retain=True)
            await _leave(client)

    def _found(self) -> None:
        self._connected, self._problem, self._told = True, None, False
        _log.info("mqtt: connected to %s port %s", self._config.host, self._config.port)

    def _lost(self, error: Exception) -> None:
        self._problem = (str(error) or type(error).__name__)[:_PROBLEM_SHOWN]
        self._failures += 1
        if not self._told:
            place = (self._config.host, self._config.port)
            _log.warning("mqtt: no connection to %s port %s: %s; trying again", *place, self._problem)
        self._told = True

    def _spread(self) -> float:
        """Return this gateway's own factor on waiting times, so that a fleet does not return to its broker in step."""
        return 0.75 + crc32(self._config.topic.encode()) / 2**33

    # ------------------------------------------------------------------------------------------------------ messages

    async def _feed(self, client: aiomqtt.Client) -> NoReturn:
        """Publish what changed, cycle after cycle. Raises MqttError."""
        sent: dict[str, _Sent] = {}
        await self._announce(client, sent)
        self._found()
        while True:
            self._news.clear()
            if self._report is not None:
                await self._publish_changes(client, self._report, sent)
            await self._news.wait()

    async def _announce(self, client: aiomqtt.Client, sent: dict[str, _Sent]) -> None:
        topic = self._topic("status")
        await client.publish(topic, ONLINE, qos=1, retain=True)
        sent[topic] = _Sent(ONLINE, self._clock.now_s())

    async def _publish_changes(self, client: aiomqtt.Client, report: CycleReport, sent: dict[str, _Sent]) -> None:
        now_s = self._clock.now_s()
        status = self._topic("status")
        entries = dict(self._entries(report))
        for topic in [topic for topic in sent if topic != status and topic not in entries]:
            await client.publish(topic, b"", retain=True)  # an empty retained message takes the topic away
            del sent[topic]
        for topic, entry in entries.items():
            settled = state.settled(entry)
            if self._due(sent.get(topic), settled, now_s):
                await client.publish(topic, state.encode(entry), retain=True)
                sent[topic] = _Sent(settled, now_s)
                self._published += 1
        if self._due(sent.get(status), ONLINE, now_s):
            await self._announce(client, sent)

    def _due(self, before: _Sent | None, settled: object, now_s: float) -> bool:
        return before is None or before.settled != settled or now_s - before.at_s >= self._timing.refresh_s

    def _entries(self, report: CycleReport) -> Iterator[tuple[str, state.Document]]:
        for name, circuit in state.circuits(report).items():
            yield self._topic(f"circuit/{name}"), circuit
        for name, evse in state.evses(report).items():
            yield self._topic(f"evse/{name}"), evse

    def _topic(self, rest: str) -> str:
        return f"{self._config.topic}/{rest}"


def _read_secret(path: Path) -> str:
    """Return the first line of a file, read anew at each connection. Raises OSError or UnicodeError."""
    with path.open(encoding="utf-8") as file:
        return file.readline(_PASSWORD_BYTES).rstrip("\r\n")


async def _enter(client: aiomqtt.Client) -> None:
    """Connect. Raises MqttError, OSError or ValueError, and leaves nothing open then."""
    try:
        await client.__aenter__()
    except (aiomqtt.MqttError, OSError, ValueError):
        _drop(client)
        raise


async def _leave(client: aiomqtt.Client) -> None:
    """Disconnect in good order, so that the broker does not publish the last will."""
    with suppress(aiomqtt.MqttError):
        await client.__aexit__(None, None, None)


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait until the connection is lost; then raise MqttError."""
    try:
        async for _ in client.messages:
            pass  # nothing is subscribed to
    except aiomqtt.MqttError as error:
        raise aiomqtt.MqttError(f"connection lost ({error.__cause__ or 'closed'})") from error


async def _end(task: asyncio.Task[NoReturn]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _drop(client: aiomqtt.Client) -> None:
    """Close the connection without the broker's help, which a frozen one does not give."""
    paho = client._client  # noqa: SLF001 - aiomqtt waits for the broker, or leaves the socket open until the keepalive
    connection = paho.socket()
    if not isinstance(connection, socket.socket):
        return
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    for _ in range(_READS_TO_END):
        if paho.socket() is None:
            break
        paho.loop_read()  # reads on until the end of the stream, where paho closes the socket and tells aiomqtt
