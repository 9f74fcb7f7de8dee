"""`run`, `station` and `meter` as three processes on loopback, and `kill -9` of the gateway in the middle."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

STATIONS = ("SIM-1", "SIM-2", "SIM-3")
# The worst base load of 50 A leaves 13 A: the minimum for two stations, nothing for the third.
FALLBACKS_A = {"SIM-1": 6.0, "SIM-2": 6.0, "SIM-3": 0.0}
SITE = """
[site]
name = "three stations"
clock = "assumed"
[ocpp]
port = {ocpp}
sample_interval_s = 2
[http]
port = {http}
[state]
directory = "{state}"
[policy]
lease_s = {lease_s}
raise_interval_s = 1
[[circuit]]
id = "grid"
limit_a = 63
base_worst_a = 50
[[meter]]
kind = "modbus_tcp"
id = "main"
circuit = "grid"
map = "cg_em300_em500"
host = "127.0.0.1"
port = {meter}
[[contract]]
kind = "gtv"
id = "gtv"
circuit = "grid"
import_kw = 60
"""
STATION = """
[[station]]
id = "{name}"
trust = "B"
[[station.evse]]
circuit = "grid"
max_a = 16
"""


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Program:
    """A `laadplein` process and the lines it has written to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            self.news.set()

    async def end(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        await self.process.wait()
        await self._reading


class Plaza:
    """The three processes of one site."""

    def __init__(self, directory: Path, lease_s: int, ocpp: str) -> None:
        self.ports = {"ocpp": free_port(), "http": free_port(), "meter": free_port()}
        self.feed_port = free_port(socket.SOCK_DGRAM)
        self.ocpp = ocpp
        self.site = directory / "site.toml"
        head = SITE.format(state=directory / "state", lease_s=lease_s, **self.ports)
        self.site.write_text(head + "".join(STATION.format(name=name) for name in STATIONS))
        self.programs: list[Program] = []

    async def start(self, *arguments: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "controller.cli.main", *arguments,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.programs.append(Program(process))
        return self.programs[-1]

    async def start_world(self) -> Program:
        await self.start(
            "meter", "--map", "cg_em300_em500", "--port", str(self.ports["meter"]),
            "--feed-port", str(self.feed_port), "--base-a", "15",
        )  # fmt: skip
        return await self.start(
            "station", "--url", f"ws://127.0.0.1:{self.ports['ocpp']}/SIM", "--count", str(len(STATIONS)),
            "--ocpp", self.ocpp, "--max-a", "16", "--feed", f"127.0.0.1:{self.feed_port}",
        )  # fmt: skip

    async def state(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            with contextlib.suppress(httpx.TransportError):
                answer = await client.get(f"http://127.0.0.1:{self.ports['http']}/api/v1/state")
                if answer.status_code == httpx.codes.OK:
                    document: dict[str, Any] = json.loads(answer.text)
                    return document
        return {"evses": []}

    async def until_charging(self) -> dict[str, float]:
        """Wait until every station holds more than its fallback, and draws it; return the confirmed setpoints."""
        while True:
            evses = {evse["id"]: evse for evse in (await self.state())["evses"]}
            if all(name in evses and _follows(evses[name]) for name in STATIONS):
                return {name: evses[name]["confirmed_a"] for name in STATIONS}
            await asyncio.sleep(0.2)


def _follows(evse: dict[str, Any]) -> bool:
    confirmed_a, measured_a = evse["confirmed_a"], evse["measured_a"]
    if confirmed_a is None or measured_a is None or confirmed_a <= FALLBACKS_A[evse["id"]] + 1.0:
        return False
    return bool(0.9 * confirmed_a < max(measured_a) <= 1.05 * confirmed_a)


@pytest.fixture
async def plaza(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Plaza]:
    lease_s, ocpp = request.param
    site = Plaza(tmp_path, lease_s, ocpp)
    try:
        yield site
    finally:
        for program in site.programs:
            await program.end(signal.SIGKILL)


def offered_a(stations: Program, since: int = 0) -> dict[str, float]:
    """The last offer of each station, going by what the station process wrote."""
    last = {}
    for line in stations.lines[since:]:
        match = re.search(r"(SIM-\d): .* offers (\d+\.\d) A", line)
        if match:
            last[match[1]] = float(match[2])
    return last


async def until_offered(stations: Program, expected_a: dict[str, float]) -> None:
    while offered_a(stations) != expected_a:
        stations.news.clear()
        await stations.news.wait()


@pytest.mark.parametrize("plaza", [(10, "1.6"), (10, "2.0.1")], indirect=True)
async def test_every_station_falls_back_when_its_lease_ends_and_recovers_when_the_gateway_returns(plaza: Plaza) -> None:
    gateway = await plaza.start("run", str(plaza.site))
    stations = await plaza.start_world()
    async with asyncio.timeout(40):
        await plaza.until_charging()
    await gateway.end(signal.SIGKILL)
    # At most a whole lease, and the 5 s that a vehicle may take to follow.
    async with asyncio.timeout(30):
        await until_offered(stations, FALLBACKS_A)
    await plaza.start("run", str(plaza.site))
    async with asyncio.timeout(60):
        await plaza.until_charging()


@pytest.mark.parametrize("plaza", [(60, "1.6"), (60, "2.0.1")], indirect=True)
async def test_a_restart_within_the_lease_tears_nothing_down(plaza: Plaza) -> None:
    gateway = await plaza.start("run", str(plaza.site))
    stations = await plaza.start_world()
    async with asyncio.timeout(40):
        before_a = await plaza.until_charging()
    await gateway.end(signal.SIGKILL)
    seen = len(stations.lines)
    await plaza.start("run", str(plaza.site))
    async with asyncio.timeout(60):
        after_a = await plaza.until_charging()
    assert all(after_a[name] >= before_a[name] for name in STATIONS), (before_a, after_a)
    lowest_a = {name: min(_offers(stations, name, seen), default=before_a[name]) for name in STATIONS}
    assert all(lowest_a[name] >= before_a[name] - 0.5 for name in STATIONS), stations.lines[seen:]
    async with asyncio.timeout(10):
        state = await plaza.state()
    assert state["site"]["feasible"] is True


def _offers(stations: Program, name: str, since: int) -> list[float]:
    matches = [re.search(rf"{name}: .* offers (\d+\.\d) A", line) for line in stations.lines[since:]]
    return [float(match[1]) for match in matches if match]
