import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from controller.config import HttpSection
from controller.metrics import Metrics
from controller.web import WebServer
from tests.publish.small_site import NOW_S, REPORT, ManualClock, later


@contextlib.asynccontextmanager
async def serving(server: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    """Run a server on a free port, and a client that talks to it."""
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(10):
            await server.started.wait()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            yield client
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(clock: ManualClock) -> WebServer:
    return WebServer(HttpSection(port=0), clock)


@pytest_asyncio.fixture
async def client(server: WebServer) -> AsyncIterator[httpx.AsyncClient]:
    """Ask a server that knows the hand-built cycle."""
    server.publish(REPORT)
    async with serving(server) as client:
        yield client


async def test_health_is_fine_while_cycles_finish(client: httpx.AsyncClient, clock: ManualClock) -> None:
    clock.at_s = NOW_S + 4.9
    answer = await client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "cycle_age_s": 4.9,
        "cycle": 600,
        "feasible": True,
        "alarms": 1,
        "overruns": 2,
        "parts": {},
    }


async def test_health_fails_when_no_cycle_finished_for_five_seconds(
    client: httpx.AsyncClient, server: WebServer, clock: ManualClock
) -> None:
    clock.at_s = NOW_S + 5.1
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["cycle_age_s"]) == (503, "stale", 5.1)
    server.publish(later(5))
    assert (await client.get("/health")).status_code == 200


async def test_before_the_first_cycle_nothing_is_healthy_or_known(server: WebServer) -> None:
    async with serving(server) as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "starting")
        assert health.json()["cycle_age_s"] is None
        for path in ("/api/v1/state", "/api/v1/circuits/grid", "/api/v1/evses/e1"):
            assert (await client.get(path)).status_code == 503


async def test_health_shows_other_parts_and_does_not_depend_on_them(clock: ManualClock) -> None:
    server = WebServer(HttpSection(port=0), clock, parts={"mqtt": lambda: {"connected": False}})
    server.publish(REPORT)
    async with serving(server) as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["parts"]) == (200, {"mqtt": {"connected": False}})


async def test_a_failing_part_fails_its_answer_and_nothing_else(clock: ManualClock) -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("no status today")

    server = WebServer(HttpSection(port=0), clock, parts={"broken": broken})
    server.publish(REPORT)
    async with serving(server) as client:
        answer = await client.get("/health")
        assert (answer.status_code, answer.json()["error"]) == (500, "the request failed")
        assert (await client.get("/api/v1/state")).status_code == 200


async def test_the_state_is_the_latest_cycle(client: httpx.AsyncClient, server: WebServer, clock: ManualClock) -> None:
    state = (await client.get("/api/v1/state")).json()
    assert state["site"]["cycle"] == 600
    assert [circuit["id"] for circuit in state["circuits"]] == ["grid", "hall-a"]
    assert [evse["setpoint_a"] for evse in state["evses"]] == [16.0, 0.0, 0.0]
    server.publish(later(1))
    clock.at_s = NOW_S + 1
    site = (await client.get("/api/v1/state")).json()["site"]
    assert (site["cycle"], site["cycle_age_s"]) == (601, 0.0)


async def test_the_age_of_a_cycle_grows_when_no_other_follows(client: httpx.AsyncClient, clock: ManualClock) -> None:
    await client.get("/api/v1/state")
    clock.at_s = NOW_S + 90
    assert (await client.get("/api/v1/state")).json()["site"]["cycle_age_s"] == 90.0


async def test_one_circuit_or_evse_can_be_asked_for(client: httpx.AsyncClient) -> None:
    state = (await client.get("/api/v1/state")).json()
    assert (await client.get("/api/v1/circuits/hall-a")).json() == state["circuits"][1]
    assert (await client.get("/api/v1/evses/e1")).json() == state["evses"][0]


@pytest.mark.parametrize(
    ("path", "error", "remedy"),
    [
        ("/api/v1/circuits/hall-b", "circuit 'hall-b' does not exist", "use one of: grid, hall-a"),
        ("/api/v1/evses/e9", "evse 'e9' does not exist", "use one of: e1, e2, e3"),
    ],
)
async def test_an_unknown_id_is_answered_with_the_known_ones(
    client: httpx.AsyncClient, path: str, error: str, remedy: str
) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": error, "remedy": remedy})


@pytest.mark.parametrize("path", ["/", "/admin", "/health/", "/api/v1/circuits/", "/api/v1/evses/e1/x", "/metrics"])
async def test_an_unknown_path_is_answered_with_the_known_ones(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)  # without metrics there is no /metrics either
    assert answer.status_code == 404
    assert "/api/v1/state" in answer.json()["remedy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/health", "/api/v1/state", "/api/v1/evses/e1"])
async def test_nothing_can_be_changed_here(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["remedy"]) == (405, "everything here is read with GET")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/health", "/api/v1/state", "/api/v1/evses/e9", "/nowhere"])
async def test_every_answer_is_json_and_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


async def test_metrics_are_served_as_prometheus_text(clock: ManualClock) -> None:
    metrics = Metrics()
    metrics.publish(REPORT)
    async with serving(WebServer(HttpSection(port=0), clock, metrics=metrics)) as client:
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'laadplein_evse_setpoint_amperes{evse="e1"} 16.0' in answer.text.splitlines()


async def test_a_port_in_use_is_told_once_and_tried_again(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "controller.web")
    told = asyncio.Event()

    def notice(_record: logging.LogRecord) -> bool:
        told.set()
        return True

    logging.getLogger("controller.web").addFilter(notice)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = WebServer(HttpSection(port=taken.getsockname()[1]), clock)
        task = asyncio.create_task(server.run())
        async with asyncio.timeout(10):
            await told.wait()
        assert not server.started.is_set()
    async with asyncio.timeout(10):
        await server.started.wait()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "in use" in caplog.records[0].getMessage()
    logging.getLogger("controller.web").removeFilter(notice)
    task.cancel()
    await asyncio.wait([task])


async def test_signals_stay_with_the_application(server: WebServer) -> None:
    before = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    async with serving(server):
        assert [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)] == before


async def test_a_cancelled_server_is_gone(server: WebServer) -> None:
    async with serving(server) as client:
        await client.get("/health")
        port = server.port
    assert not server.started.is_set()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_silent_clients_are_dropped(clock: ManualClock) -> None:
    async with serving(WebServer(HttpSection(port=0), clock, exchange_s=0.1)) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"GET /health HTTP/1.1\r\nx-slow: ")
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                assert await reader.read() == b""
        writer.close()


async def test_two_hundred_silent_clients_keep_nobody_out(client: httpx.AsyncClient) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", client.base_url.port) for _ in range(200)]
    assert (await client.get("/health")).status_code == 200
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            assert await silent[0][0].read() == b""  # the oldest had to make room
    for _, writer in silent:
        writer.close()


async def test_an_endless_header_is_refused(client: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
    writer.write(b"GET /health HTTP/1.1\r\nx-long: " + b"a" * 100_000)
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 4")
    writer.close()
    assert (await client.get("/health")).status_code == 200
