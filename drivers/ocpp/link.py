"""One OCPP-J session over a websocket: answers the peer's calls, and makes ours, one at a time.

Knows the rules of the RPC layer: one outstanding CALL per direction, matching of answers, timeouts, repetitions. Does
not care what actions mean, and not which side of the link it is: the simulated stations use it too.
"""

import asyncio
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from websockets.exceptions import ConnectionClosed

from controller.ports import Clock, StationError, StationGone, StationRefused, StationTimeout
from drivers.ocpp.counters import Count, Counters
from drivers.ocpp.frames import (
    Call,
    CallError,
    CallResult,
    Fault,
    Message,
    Payload,
    Problem,
    encode,
    parse,
)
from drivers.ocpp.turns import Priority, Turns

POLICY_VIOLATION: Final = 1008
_MAX_MALFORMED_PER_MINUTE: Final = 60
_MAX_UNANSWERED: Final = 3
_MAX_WAITING: Final = 64
_MAX_INBOX: Final = 16
_MAX_REMEMBERED: Final = 32
_REMEMBER_S: Final = 60.0
_MINUTE_S: Final = 60.0
_DRAIN_S: Final = 2.0
_YIELD_S: Final = 1.0
_REASON_BYTES: Final = 120


class Socket(Protocol):
    """What a link needs of a websocket; both sides of `websockets` have it."""

    async def recv(self) -> str | bytes:
        """Return the next message."""

    async def send(self, message: str) -> None:
        """Send a text message."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a CALL, and what to do right after it went out."""

    payload: Payload
    then: Callable[[], None] | None = None


class CallFault(Exception):  # noqa: N818 - it becomes a CALLERROR, it is not one of ours
    """A CALL is answered with a CALLERROR."""

    def __init__(self, fault: Fault, text: str) -> None:
        self.fault = fault
        self.text = text
        super().__init__(text)


@dataclass(slots=True)
class _Pending:
    id: str
    priority: Priority
    answer: asyncio.Future[Payload | StationError]
    deadline: asyncio.Timeout
    yielded: bool = False


@dataclass(frozen=True, slots=True)
class _Remembered:
    at_s: float
    frame: str


class Link:
    """One session. `handler` answers the peer's calls one after the other; it must not wait for a call of ours.

    `codes` gives the wire code of a fault in the version spoken.
    """

    def __init__(
        self,
        socket: Socket,
        handler: Callable[[Call], Awaitable[Reply]],
        *,
        codes: Callable[[Fault], str],
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._socket = socket
        self._handler = handler
        self._codes = codes
        self._clock = clock
        self._counters = counters
        self._inbox: asyncio.Queue[tuple[Call, bytes]] = asyncio.Queue(_MAX_INBOX)
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._pending: _Pending | None = None
        self._turns = Turns(_MAX_WAITING)
        self._calls = 0
        self._unanswered = 0
        self._malformed = 0
        self._malformed_since_s = clock.now_s()
        self._closing: asyncio.Future[tuple[int, str]] | None = None
        self._stopped: tuple[int, str] | None = None
        self._dead = False

    # ------------------------------------------------------------------------------------------------ the session

    async def run(self) -> None:
        """Serve the session until the socket is closed by either side; returns then."""
        self._closing = asyncio.get_running_loop().create_future()
        if self._stopped is not None:
            self._closing.set_result(self._stopped)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._receive())
                worker = tasks.create_task(self._work())
                closer = tasks.create_task(self._close_when_told(self._closing, reader, worker))
                # Either may be the first to find the socket closed; the other may wait for it then.
                await asyncio.wait({reader, worker}, return_when=asyncio.FIRST_COMPLETED)
                self._die()
                if self._stopped is None:
                    await self._drain(worker)
                    for task in (reader, worker, closer):
                        task.cancel()
        finally:
            self._die()

    def stop(self, code: int = 1000, reason: str = "") -> None:
        """Close the session soon; nothing that came from the peer is acted on any more."""
        if self._stopped is None:
            self._stopped = (code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
            self._die()
            if self._closing is not None and not self._closing.done():
                self._closing.set_result(self._stopped)

    async def _close_when_told(self, told: asyncio.Future[tuple[int, str]], *others: asyncio.Task[None]) -> None:
        code, reason = await told
        for other in others:
            other.cancel()
        await self._socket.close(code, reason)

    async def _receive(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await self._socket.recv()
                if self._stopped is None:
                    await self._take(frame)

    async def _drain(self, worker: asyncio.Task[None]) -> None:
        """Let the worker finish what the peer said before it left: a status is not said twice."""
        empty = asyncio.create_task(self._inbox.join())
        try:
            await asyncio.wait({worker, empty}, timeout=_DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            empty.cancel()

    def _die(self) -> None:
        """Fail the call in flight and all that wait, at once."""
        self._dead = True
        self._turns.lose()
        if self._pending is not None and not self._pending.answer.done():
            self._pending.answer.set_result(StationGone("the link was lost"))

    # --------------------------------------------------------------------------------------------- what the peer says

    async def _take(self, frame: str | bytes) -> None:
        message = parse(frame) if isinstance(frame, str) else Problem(Fault.FRAME, "a binary frame")
        match message:
            case Call():
                self._count(Count.CALLS_RECEIVED)
                await self._inbox.put((message, _fingerprint(frame)))
            case CallResult(id=id_, payload=payload):
                self._settle(id_, payload)
            case CallError(id=id_, code=code, text=text):
                self._settle(id_, StationRefused(f"{code}: {text}" if text else code))
            case Problem():
                await self._complain(message)

    def _settle(self, id_: str, outcome: Payload | StationRefused) -> None:
        pending = self._awaiting(id_)
        if pending is None:
            self._count(Count.FRAMES_UNSOLICITED)
            self._suffer()
            return
        self._unanswered = 0
        pending.answer.set_result(outcome)

    def _awaiting(self, id_: str) -> _Pending | None:
        pending = self._pending
        return pending if pending is not None and pending.id == id_ and not pending.answer.done() else None

    async def _complain(self, problem: Problem) -> None:
        self._count(Count.FRAMES_MALFORMED)
        self._suffer()
        if problem.answer_id is not None and self._awaiting(problem.answer_id):
            self._settle(problem.answer_id, StationRefused(f"unreadable answer: {problem.text}"))
        if problem.call_id is not None and self._stopped is None:
            await self._socket.send(encode(CallError(problem.call_id, self._codes(problem.fault), problem.text)))

    def _suffer(self) -> None:
        """Count one nonsensical frame; too many within a minute end the session."""
        now_s = self._clock.now_s()
        if now_s - self._malformed_since_s > _MINUTE_S:
            self._malformed, self._malformed_since_s = 0, now_s
        self._malformed += 1
        if self._malformed > _MAX_MALFORMED_PER_MINUTE and self._stopped is None:
            self._count(Count.CLOSED_FLOOD)
            self.stop(POLICY_VIOLATION, "too many malformed frames")

    async def _work(self) -> None:
        """Answer calls in the order they came, apart from the receive loop: an answer to us never waits behind them."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._answer(*await self._inbox.get())
                self._inbox.task_done()

    async def _answer(self, call: Call, fingerprint: bytes) -> None:
        before = self._recall(fingerprint)
        if before is not None:
            self._count(Count.FRAMES_REPEATED)
            await self._socket.send(before)
            return
        then: Callable[[], None] | None = None
        try:
            reply = await self._handler(call)
            message: Message = CallResult(call.id, reply.payload)
            then = reply.then
        except CallFault as fault:
            self._count(Count.CALLS_FAULTED)
            message = CallError(call.id, self._codes(fault.fault), fault.text)
        frame = encode(message)
        # A fault is not remembered: what failed here (a full disk) may be tried again.
        if isinstance(message, CallResult):
            self._remember(fingerprint, frame)
        await self._socket.send(frame)
        if then is not None and self._stopped is None:
            then()

    def _recall(self, fingerprint: bytes) -> str | None:
        found = self._remembered.get(fingerprint)
        if found is None or self._clock.now_s() - found.at_s > _REMEMBER_S:
            return None
        return found.frame

    def _remember(self, fingerprint: bytes, frame: str) -> None:
        self._remembered.pop(fingerprint, None)
        self._remembered[fingerprint] = _Remembered(self._clock.now_s(), frame)
        while len(self._remembered) > _MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    # -------------------------------------------------------------------------------------------------- what we say

    async def call(
        self, action: str, payload: Payload, *, timeout_s: float, priority: Priority = Priority.CONTROL
    ) -> Payload:
        """Send a CALL and return the payload of its answer.

        `timeout_s` includes the wait for a call before it. Raises StationGone, StationTimeout, or StationRefused on a
        CALLERROR or an answer that cannot be read.
        """
        if self._dead:
            raise StationGone("the link is down")
        if priority is Priority.CONTROL:
            self._hurry()
        pending: _Pending | None = None
        try:
            async with asyncio.timeout(timeout_s) as deadline, self._turns.take(priority):
                pending = self._begin(priority, deadline)
                await self._send(Call(pending.id, action, payload))
                outcome = await pending.answer
        except TimeoutError as late:
            if pending is not None:
                self._missed(pending)
            raise StationTimeout(f"no answer to {action} in {timeout_s:g} s") from late
        finally:
            if pending is not None and self._pending is pending:
                self._pending = None
        if isinstance(outcome, StationError):
            raise outcome
        return outcome

    def _begin(self, priority: Priority, deadline: asyncio.Timeout) -> _Pending:
        self._calls += 1
        self._count(Count.CALLS_SENT)
        self._pending = _Pending(str(self._calls), priority, asyncio.get_running_loop().create_future(), deadline)
        return self._pending

    def _hurry(self) -> None:
        """A control call waits at most a second for a setting to be answered (C3)."""
        pending = self._pending
        if pending is None or pending.priority is Priority.CONTROL or pending.deadline.expired():
            return
        soon_s = asyncio.get_running_loop().time() + _YIELD_S
        when_s = pending.deadline.when()
        if when_s is not None and when_s > soon_s:
            pending.deadline.reschedule(soon_s)
            pending.yielded = True

    def _missed(self, pending: _Pending) -> None:
        self._count(Count.CALLS_UNANSWERED)
        if pending.yielded:
            return
        self._unanswered += 1
        if self._unanswered >= _MAX_UNANSWERED and self._stopped is None:
            self._count(Count.CLOSED_DEAF)
            self.stop(POLICY_VIOLATION, f"{_MAX_UNANSWERED} calls unanswered")

    async def _send(self, message: Message) -> None:
        try:
            await self._socket.send(encode(message))
        except ConnectionClosed as closed:
            raise StationGone("the link was lost") from closed

    def _count(self, name: Count) -> None:
        self._counters[name] = self._counters.get(name, 0) + 1


def _fingerprint(frame: str | bytes) -> bytes:
    """Return what tells a repetition from a new call: the whole frame, as some stations use the same id for ever."""
    data = frame.encode() if isinstance(frame, str) else frame
    return hashlib.blake2b(data, digest_size=16).digest()
