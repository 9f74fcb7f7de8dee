import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import pytest_asyncio

from controller.clock import SystemClock
from controller.config import MqttSection
from drivers.mqtt import MqttPublisher, MqttTiming
from tests.publish.small_site import REPORT, ManualClock, later

pytestmark = pytest.mark.needs_mosquitto

HURRIED = MqttTiming(keepalive_s=1, timeout_s=0.5, retry_first_s=0.05, retry_max_s=0.2)
CALM = MqttTiming(retry_first_s=0.05, retry_max_s=0.2)


class Broker:
    """A mosquitto process on a port of its own, for everybody unless `lines` say otherwise."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        # Started by root it would become a user who cannot read the test's folder.
        settings = [f"listener {self.port} 127.0.0.1", "user root", "log_dest stderr", "log_type information"]
        text = "\n".join([*settings, *(lines or ["allow_anonymous true"]), ""])
        self._file.write_text(text, encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start, and return once it serves."""
        self._process = await asyncio.create_subprocess_exec("mosquitto", "-c", str(self._file), stderr=-1)
        assert self._process.stderr is not None
        async with asyncio.timeout(10):
            while not (line := await self._process.stderr.readline()).rstrip().endswith(b"running"):
                assert line, "mosquitto did not start"

    async def stop(self) -> None:
        """Kill it if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()

    def freeze(self) -> None:
        """Stop its execution; the kernel still accepts connections and bytes for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker that may be started; it is stopped after the test."""
    broker = Broker(tmp_path)
    yield broker
    await broker.stop()


@pytest_asyncio.fixture
async def served(broker: Broker) -> Broker:
    """A broker that runs."""
    await broker.start()
    return broker


class Reader:
    """What a subscriber to everything of the site has seen: the latest text per topic, and how many messages."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client
        self.latest: dict[str, str] = {}
        self.retained: set[str] = set()
        self.count: dict[str, int] = {}

    async def until(self, topic: str, text: str = "") -> None:
        """Read until a message on `topic` holds `text`; at once if it has been read already."""
        async with asyncio.timeout(15):
            while topic not in self.latest or text not in self.latest[topic]:
                message = await anext(self._client.messages)
                name, payload = str(message.topic), message.payload
                assert isinstance(payload, bytes)
                self.latest[name] = payload.decode()
                self.count[name] = self.count.get(name, 0) + 1
                if message.retain:
                    self.retained.add(name)

    def entry(self, topic: str) -> dict[str, Any]:
        """Return the latest JSON on a topic."""
        entry: dict[str, Any] = json.loads(self.latest[topic])
        return entry


@contextlib.asynccontextmanager
async def reading(port: int, **login: str) -> AsyncIterator[Reader]:
    async with aiomqtt.Client("127.0.0.1", port, **login) as client:  # type: ignore[arg-type]  # user name and password
        await client.subscribe("plaza/#", qos=1)
        yield Reader(client)


@contextlib.asynccontextmanager
async def running(publisher: MqttPublisher) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(publisher.run())
    try:
        yield task
    finally:
        assert not task.done(), task
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


def section(port: int, **more: Any) -> MqttSection:  # noqa: ANN401 - members of the section
    return MqttSection(host="127.0.0.1", port=port, topic="plaza", **more)


def publisher_for(broker: Broker, timing: MqttTiming = CALM) -> MqttPublisher:
    return MqttPublisher(section(broker.port), SystemClock(assume_synchronised=True), timing)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - a status is there to be looked at
            await asyncio.sleep(0.01)


async def test_a_new_subscriber_sees_the_whole_site(served: Broker) -> None:
    publisher = publisher_for(served)
    publisher.publish(REPORT)
    async with running(publisher):
        async with reading(served.port) as early:
            await early.until("plaza/evse/e3")
        async with reading(served.port) as late:
            await late.until("plaza/evse/e3")
            await late.until("plaza/status", "online")
    topics = {"plaza/status", *(f"plaza/circuit/{name}" for name in ("grid", "hall-a"))}
    assert late.retained == topics | {f"plaza/evse/{name}" for name in ("e1", "e2", "e3")}
    assert late.entry("plaza/circuit/hall-a")["headroom_a"] == [10.0, -1.5, 10.0]
    assert late.entry("plaza/evse/e1")["reason"]["phase"] == "L2"
    assert late.entry("plaza/evse/e3")["measured_a"] is None


async def test_only_what_changed_is_published_again(served: Broker) -> None:
    publisher = publisher_for(served)
    publisher.publish(REPORT)
    async with running(publisher), reading(served.port) as reader:
        await reader.until("plaza/evse/e3")
        publisher.publish(later(1))  # time passes, nothing happens
        publisher.publish(later(2, measured_a=(12.0, 12.0, 12.0)))
        await reader.until("plaza/evse/e1", "[12.0,12.0,12.0]")
        publisher.publish(later(3))
        await reader.until("plaza/evse/e1", "[15.91,15.87,0.0]")
    assert reader.count == {**dict.fromkeys(reader.count, 1), "plaza/evse/e1": 3}


async def test_everything_is_published_again_after_a_minute(served: Broker) -> None:
    clock = ManualClock()
    publisher = MqttPublisher(section(served.port), clock, CALM)
    publisher.publish(REPORT)
    async with running(publisher), reading(served.port) as reader:
        await reader.until("plaza/evse/e3")
        reader.latest.clear()
        clock.at_s += 59
        publisher.publish(later(59, measured_a=(12.0, 12.0, 12.0)))
        await reader.until("plaza/evse/e1", "[12.0,12.0,12.0]")
        assert set(reader.latest) == {"plaza/evse/e1"}
        clock.at_s += 1
        publisher.publish(later(60, measured_a=(12.0, 12.0, 12.0)))
        await reader.until("plaza/status", "online")
    assert reader.entry("plaza/evse/e3")["id"] == "e3"
    assert reader.count["plaza/circuit/grid"] == 2
    assert reader.count["plaza/evse/e1"] == 2


async def test_what_left_the_site_leaves_the_broker(served: Broker) -> None:
    publisher = publisher_for(served)
    publisher.publish(REPORT)
    async with running(publisher), reading(served.port) as reader:
        await reader.until("plaza/evse/e3")
        site = replace(REPORT.snapshot.site, evses=REPORT.snapshot.site.evses[:2])
        publisher.publish(replace(REPORT, snapshot=replace(REPORT.snapshot, site=site)))
        del reader.latest["plaza/evse/e3"]
        await reader.until("plaza/evse/e3")
        assert reader.latest["plaza/evse/e3"] == ""  # the empty message that takes a retained one away


async def test_a_gateway_that_stops_in_good_order_says_offline(served: Broker) -> None:
    async with reading(served.port) as reader:
        async with running(publisher_for(served)):
            await reader.until("plaza/status", "online")
        await reader.until("plaza/status", "offline")


async def test_the_last_will_tells_that_a_gateway_was_killed(served: Broker) -> None:
    gateway = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, str(served.port), cwd=Path(__file__).parents[2]
    )
    try:
        async with reading(served.port) as reader:
            await reader.until("plaza/status", "online")
            gateway.kill()
            await reader.until("plaza/status", "offline")
    finally:
        with contextlib.suppress(ProcessLookupError):
            gateway.kill()
        await gateway.wait()


GATEWAY = """
import asyncio, sys
from controller.clock import SystemClock
from controller.config import MqttSection
from drivers.mqtt import MqttPublisher
section = MqttSection(host="127.0.0.1", port=int(sys.argv[1]), topic="plaza")
asyncio.run(MqttPublisher(section, SystemClock(assume_synchronised=True)).run())
"""


async def test_a_broker_that_comes_late_gets_the_latest_and_is_told_of_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "drivers.mqtt")
    publisher = publisher_for(broker, HURRIED)
    publisher.publish(REPORT)
    async with running(publisher):
        await until(lambda: publisher.status()["failures"] == 3)
        assert publisher.status()["connected"] is False
        assert "refused" in str(publisher.status()["problem"])
        publisher.publish(later(1, confirmed_a=11.0))
        await broker.start()
        async with reading(broker.port) as reader:
            await reader.until("plaza/evse/e1", '"confirmed_a":11.0')
        assert (publisher.status()["connected"], publisher.status()["problem"]) == (True, None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_frozen_broker_holds_nothing_up_and_is_caught_up_with(served: Broker) -> None:
    publisher = publisher_for(served, HURRIED)
    async with running(publisher):
        await until(lambda: publisher.status()["connected"])
        open_before, tasks_before = open_files(), len(asyncio.all_tasks())
        served.freeze()
        number = 0
        while (failures := publisher.status()["failures"]) != 5:
            assert isinstance(failures, int)
            number += 1
            publisher.publish(later(number, confirmed_a=6.0 + number))  # returns, though nobody reads
            await asyncio.sleep(0.01)
        # Five connections were lost or timed out; not one of them is still around.
        assert open_files() <= open_before + 1
        assert len(asyncio.all_tasks()) <= tasks_before + 1
        served.thaw()
        async with reading(served.port) as reader:
            await reader.until("plaza/evse/e1", f'"confirmed_a":{6.0 + number}')
        async with reading(served.port) as reader:
            await reader.until("plaza/status", "online")


async def test_a_gateway_can_stop_while_its_broker_is_frozen(served: Broker) -> None:
    publisher = publisher_for(served, HURRIED)
    publisher.publish(REPORT)
    open_before = open_files()
    async with running(publisher):
        await until(lambda: publisher.status()["published"] == 5)
        served.freeze()
    async with running(publisher_for(served, HURRIED)) as connecting:
        await asyncio.sleep(0)  # has begun to connect
        assert not connecting.done()
    assert open_files() <= open_before


async def test_the_password_is_read_again_at_each_connection(tmp_path: Path) -> None:
    accounts, secret = tmp_path / "accounts", tmp_path / "secret"
    maker = await asyncio.create_subprocess_exec("mosquitto_passwd", "-b", "-c", str(accounts), "gateway", "s3cret")
    assert await maker.wait() == 0
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {accounts}")
    config = section(broker.port, username="gateway", password_file=secret)
    publisher = MqttPublisher(config, SystemClock(assume_synchronised=True), HURRIED)
    try:
        await broker.start()
        async with running(publisher):
            await until(lambda: "No such file" in str(publisher.status()["problem"]))
            secret.write_text("wrong\n", encoding="utf-8")
            await until(lambda: "authori" in str(publisher.status()["problem"]))
            secret.write_text("s3cret\n", encoding="utf-8")
            await until(lambda: publisher.status()["connected"])
    finally:
        await broker.stop()


async def test_a_host_that_cannot_be_one_is_a_problem_and_not_a_crash() -> None:
    config = MqttSection(host="no..host", topic="plaza")
    publisher = MqttPublisher(config, SystemClock(assume_synchronised=True), HURRIED)
    async with running(publisher):
        await until(lambda: publisher.status()["failures"] == 2)
