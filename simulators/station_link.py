"""A simulated station's side of one websocket: calls, answers, and ways to fall silent.

Knows OCPP-J's rule of one unanswered CALL at a time. Does not care what the actions mean.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from drivers.ocpp.frames import Call, CallError, CallResult, Payload, Problem, encode, parse

_MAX_FRAME_BYTES: Final = 256 * 1024
_CLOSE_S: Final = 1.0


class LinkDown(Exception):  # noqa: N818 - reads as what happened
    """The link is gone, or so silent that the station takes it for gone."""


class CallFailed(Exception):  # noqa: N818
    """The other side answered a call with a CALLERROR, or with something that is no answer. `code` says which."""

    def __init__(self, action: str, code: str) -> None:
        super().__init__(f"{action}: {code}")
        self.code = code


class StationLink:
    """One connection to a central system.

    `answer` turns a CALL (or a broken one) into its reply, at once; `answered` is told when the reply has left.
    """

    def __init__(
        self,
        connection: ClientConnection,
        answer: Callable[[Call | Problem], CallResult | CallError | None],
        answered: Callable[[], None],
        *,
        call_timeout_s: float,
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._answered = answered
        self._call_timeout_s = call_timeout_s
        self._calls = 0
        self._waiting: tuple[str, asyncio.Future[Payload]] | None = None
        self._turn = asyncio.Lock()
        self.silent = False

    async def read(self) -> None:
        """Serve what arrives until the link is down. Raises LinkDown, always."""
        try:
            async for text in self._connection:
                message = parse(text) if isinstance(text, str) else None
                if isinstance(message, CallResult | CallError):
                    self._resolve(message)
                elif isinstance(message, Problem) and message.answer_id is not None:
                    self._resolve(CallError(message.answer_id, "FormatViolation", message.text))
                elif message is not None:
                    await self._reply(message)
        except ConnectionClosed as closed:
            raise LinkDown(str(closed)) from closed
        raise LinkDown("closed by the central system")

    async def call(self, action: str, payload: Payload) -> Payload:
        """Send a CALL and return its result. Raises CallFailed, or LinkDown when nothing comes in time."""
        async with self._turn:
            self._calls += 1
            key = f"{id(self):x}-{self._calls}"
            answer: asyncio.Future[Payload] = asyncio.get_running_loop().create_future()
            self._waiting = (key, answer)
            try:
                async with asyncio.timeout(self._call_timeout_s):
                    await self._send(encode(Call(key, action, payload)))
                    return await answer
            except TimeoutError as late:
                raise LinkDown(f"no answer to {action} within {self._call_timeout_s:g} s") from late
            finally:
                self._waiting = None

    def mute(self) -> None:
        """Fall silent without a word: nothing is read, answered or closed, as when the radio link is gone."""
        self.silent = True
        self._connection.transport.pause_reading()

    def abort(self) -> None:
        """Cut the TCP connection, without a close frame."""
        self._connection.transport.abort()

    async def close(self) -> None:
        """Say goodbye properly. An aborted connection stays aborted."""
        await self._connection.close()

    async def _reply(self, message: Call | Problem) -> None:
        reply = self._answer(message)
        if reply is not None:
            await self._send(encode(reply))
        self._answered()

    def _resolve(self, message: CallResult | CallError) -> None:
        if self._waiting is None or self._waiting[0] != message.id or self._waiting[1].done():
            return
        if isinstance(message, CallResult):
            self._waiting[1].set_result(message.payload)
        else:
            self._waiting[1].set_exception(CallFailed("CALLERROR", message.code))

    async def _send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise LinkDown(str(closed)) from closed


async def open_connection(url: str, subprotocol: str, *, timeout_s: float) -> ClientConnection:
    """Connect to a central system, which must agree to the subprotocol. Raises LinkDown."""
    try:
        connection = await connect(
            url,
            subprotocols=[Subprotocol(subprotocol)],
            compression=None,
            open_timeout=timeout_s,
            close_timeout=_CLOSE_S,
            ping_interval=None,
            max_size=_MAX_FRAME_BYTES,
            proxy=None,
        )
    except (OSError, InvalidHandshake, TimeoutError, ConnectionClosed) as failed:
        raise LinkDown(f"cannot connect to {url}: {failed}") from failed
    if connection.subprotocol != subprotocol:
        await connection.close(1002)
        raise LinkDown(f"{url} does not speak {subprotocol}")
    return connection
