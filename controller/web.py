"""HTTP: health, state and metrics, to read only.

Knows routes, status codes and what a client may cost. Does not care how the numbers came about, and cannot change any.
Everything a client can make us keep is bounded: connections, header size, time without a finished exchange.

This module imports starlette and uvicorn at its top and is therefore imported late: control starts first, then
`await asyncio.to_thread(importlib.import_module, "controller.web")`.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from controller import state
from controller.config import HttpSection
from controller.metrics import CONTENT_TYPE as METRICS_TYPE
from controller.metrics import Metrics
from controller.ports import Clock, CycleReport

CYCLE_AGE_MAX_S: Final = 5.0
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
EXCHANGE_S: Final = 15.0

_MAX_CONNECTIONS: Final = 64
_KEEP_ALIVE_S: Final = 10
_HEADER_BYTES: Final = 16_384
_BACKLOG: Final = 64
_SHUTDOWN_S: Final = 1
_IDS_NAMED: Final = 20
_ID_SHOWN: Final = 48

_SECURITY_HEADERS: Final = [
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
]

_PATHS: Final = ("/health", "/metrics", "/api/v1/state", "/api/v1/circuits/{id}", "/api/v1/evses/{id}")

Status = Callable[[], Mapping[str, object]]

_log = logging.getLogger(__name__)


class WebServer:
    """A `Publisher` that answers HTTP with the latest cycle.

    `parts` are named status functions of other parts (such as the MQTT publisher), shown in `/health` without any
    influence on it. A client has `exchange_s` to send a request and take the answer. `started` is set while it listens,
    `port` is the port it listens on (None before).
    """

    def __init__(
        self,
        config: HttpSection,
        clock: Clock,
        *,
        metrics: Metrics | None = None,
        parts: Mapping[str, Status] | None = None,
        exchange_s: float = EXCHANGE_S,
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._parts = dict(parts or {})
        self._exchange_s = exchange_s
        self._report: CycleReport | None = None
        self._picture: _Picture | None = None
        self.started = asyncio.Event()
        self.port: int | None = None

    def publish(self, report: CycleReport) -> None:
        """Take note of a cycle. It is encoded when somebody asks for it."""
        self._report = report

    async def run(self) -> None:
        """Serve until cancelled. While the port cannot be had it is tried again, ever slower; that is logged once."""
        delay_s, told = RETRY_FIRST_S, False
        while True:
            try:
                listener = await self._listen()
            except (OSError, UnicodeError) as error:
                if not told:
                    _log.error("http: cannot listen on %s: %s; trying again", self._address(), error)
                told = True
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
                continue
            _log.info("http: listening on %s", self._address())
            await self._serve(listener)
            delay_s, told = RETRY_FIRST_S, False

    def _address(self) -> str:
        return f"{self._config.host} port {self.port or self._config.port}"

    async def _listen(self) -> socket.socket:
        """Return a listening socket. Raises OSError, or UnicodeError on a host that cannot be a name."""
        host, port = self._config.host, self._config.port
        loop = asyncio.get_running_loop()
        [(family, _, _, _, address), *_] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        self.port = listener.getsockname()[1]
        return listener

    async def _serve(self, listener: socket.socket) -> None:
        connections = _Connections(self._exchange_s)
        server = Server(self._uvicorn_config(connections))
        with contextlib.closing(listener):
            # The steps of Server.serve() without its signal handlers: SIGTERM belongs to the application.
            server.lifespan = server.config.lifespan_class(server.config)
            await server.startup(sockets=[listener])
            self.started.set()
            try:
                await server.main_loop()
            finally:
                self.started.clear()
                connections.drop_all()
                await asyncio.sleep(0)  # lets the dropped ones go before the server counts them
                await server.shutdown(sockets=[listener])

    def _uvicorn_config(self, connections: "_Connections") -> Config:
        config = Config(
            self._app(),
            http=partial(_Protocol, connections),  # type: ignore[arg-type]  # it is only called
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # what must be known is logged here, in our words
            access_log=False,
            server_header=False,
            headers=_SECURITY_HEADERS,
            limit_concurrency=2 * _MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
        config.load()
        return config

    # ------------------------------------------------------------------------------------------------------- answers

    def _app(self) -> Starlette:
        answers = (self._health, self._metrics_text, self._state, self._circuit, self._evse)
        routes = [Route(path, answer) for path, answer in zip(_PATHS, answers, strict=True)]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _on_http_error, Exception: _on_crash})
        app.router.redirect_slashes = False
        return app

    async def _health(self, _request: Request) -> Response:
        report = self._report
        age_s = state.cycle_age_s(report, self._clock.now_s()) if report else None
        fresh = age_s is not None and age_s <= CYCLE_AGE_MAX_S
        body = {
            "status": "ok" if fresh else "starting" if report is None else "stale",
            "cycle_age_s": age_s,
            "cycle": report and report.number,
            "feasible": report and report.decision.feasible,
            "alarms": report and len(report.decision.alarms),
            "overruns": report and report.overruns,
            "parts": {name: dict(status()) for name, status in self._parts.items()},
        }
        return _json(state.encode(body), 200 if fresh else 503)

    async def _metrics_text(self, _request: Request) -> Response:
        if self._metrics is None:
            return _no_such_path()
        # A thousand series take tens of milliseconds on a small gateway: not on the loop that controls.
        text = await asyncio.to_thread(self._metrics.render)
        return Response(text, media_type=METRICS_TYPE)

    async def _state(self, _request: Request) -> Response:
        picture = self._latest()
        return _json(picture.whole()) if picture else _not_yet()

    async def _circuit(self, request: Request) -> Response:
        return self._entry("circuit", request, state.circuits)

    async def _evse(self, request: Request) -> Response:
        return self._entry("evse", request, state.evses)

    def _entry(
        self, kind: str, request: Request, entries: Callable[[CycleReport], Mapping[str, state.Document]]
    ) -> Response:
        picture = self._latest()
        if picture is None:
            return _not_yet()
        known = picture.entries(kind, entries)
        name = request.path_params["id"]
        if name in known:
            return _json(known[name])
        more = ", ..." if len(known) > _IDS_NAMED else ""
        remedy = f"use one of: {', '.join(list(known)[:_IDS_NAMED])}{more}" if known else f"the site has no {kind}"
        return _error(404, f"{kind} {name[:_ID_SHOWN]!r} does not exist", remedy)

    def _latest(self) -> "_Picture | None":
        """Return the latest cycle's bodies. A cycle that grows old is encoded again each second, to tell its age."""
        report = self._report
        if report is None:
            return None
        now_s = self._clock.now_s()
        picture = self._picture
        if picture is None or not picture.shows(report, now_s):
            picture = self._picture = _Picture(report, now_s)
        return picture


class _Picture:
    """The bodies of one cycle, each encoded when it is first asked for."""

    def __init__(self, report: CycleReport, now_s: float) -> None:
        self._report = report
        self._now_s = now_s
        self._whole: bytes | None = None
        self._entries: dict[str, Mapping[str, bytes]] = {}

    def shows(self, report: CycleReport, now_s: float) -> bool:
        return self._report is report and now_s - self._now_s < 1.0

    def whole(self) -> bytes:
        if self._whole is None:
            self._whole = state.encode(state.document(self._report, now_s=self._now_s))
        return self._whole

    def entries(self, kind: str, of: Callable[[CycleReport], Mapping[str, state.Document]]) -> Mapping[str, bytes]:
        if kind not in self._entries:
            self._entries[kind] = {name: state.encode(entry) for name, entry in of(self._report).items()}
        return self._entries[kind]


class _Connections:
    """The open connections, at most `_MAX_CONNECTIONS`.

    uvicorn bounds idle time after an answer only. Here silent clients, slow senders and slow readers are dropped
    after `exchange_s`, and a new connection pushes out the one that has waited longest: nobody keeps others out.
    """

    def __init__(self, exchange_s: float) -> None:
        self._exchange_s = exchange_s
        # Oldest opening or answer first; the value drops the connection when its time is up.
        self._deadlines: dict[asyncio.Transport, asyncio.TimerHandle] = {}

    def opened(self, transport: asyncio.Transport) -> None:
        if len(self._deadlines) >= _MAX_CONNECTIONS:
            self._drop(next(iter(self._deadlines)))
        self._arm(transport)

    def answered(self, transport: asyncio.Transport) -> None:
        if self._forget(transport):
            self._arm(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        self._forget(transport)

    def drop_all(self) -> None:
        for transport in list(self._deadlines):
            self._drop(transport)

    def _arm(self, transport: asyncio.Transport) -> None:
        self._deadlines[transport] = asyncio.get_running_loop().call_later(self._exchange_s, self._drop, transport)

    def _forget(self, transport: asyncio.Transport) -> bool:
        deadline = self._deadlines.pop(transport, None)
        if deadline is not None:
            deadline.cancel()
        return deadline is not None

    def _drop(self, transport: asyncio.Transport) -> None:
        self._forget(transport)
        transport.abort()


class _Protocol(H11Protocol):
    """uvicorn's protocol, counted. It offers no hook for this, hence the inheritance."""

    def __init__(self, among: _Connections, **of_uvicorn: Any) -> None:  # noqa: ANN401 - handed on as it comes
        super().__init__(**of_uvicorn)
        self._among = among

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._among.opened(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._among.closed(self.transport)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._among.answered(self.transport)
        super().on_response_complete()


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _error(status: int, text: str, remedy: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json(state.encode({"error": text, "remedy": remedy}), status, headers)


def _not_yet() -> Response:
    return _error(503, "no control cycle has finished yet", "ask again in a second; see /health")


def _no_such_path() -> Response:
    return _error(404, "there is nothing at this path", f"use one of: {', '.join(_PATHS)}")


async def _on_http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _no_such_path()
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _error(405, "this method is not allowed", "everything here is read with GET", error.headers)
    return _error(error.status_code, error.detail, "mend the request", error.headers)


async def _on_crash(_request: Request, problem: Exception) -> Response:
    _log.error("a request failed", exc_info=problem)
    return _error(500, "the request failed", "see the log of the gateway")
