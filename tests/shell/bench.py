"""What tests of the shell stand on: a clock moved by hand, stations that answer when told to, a site of three EVSEs.

`alpha` is a station with one EVSE on hall-a; `bravo` has two, `bravo-1` on hall-a and `bravo-2` on L2 of hall-b.
Everybody's fallback is 6 A. The grid connection carries 100 A per phase.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from controller.board import Board
from controller.commissioning import assemble
from controller.core.electrical import Phases
from controller.core.model import (
    CircuitState,
    Decision,
    EvseState,
    MeterQuality,
    MeterReading,
    Reason,
    ReasonCode,
    Setpoint,
    Site,
)
from controller.ports import Capabilities, ChargingStation, Lease, StationInfo
from controller.reconcile import Reconciler
from controller.supervisor import Supervisor
from tests.shell.site_text import site_file

START_S = 1000.0
UNIX_S = 1_795_255_200.0  # 2026-11-21 10:00:00 UTC
PATIENCE_S = 10.0  # real seconds that a test waits for what must come

T = TypeVar("T")


class ManualClock:
    """A clock that stands still until a test moves it. UTC moves along, unless it is set."""

    def __init__(self, now_s: float = START_S, unix_s: float = UNIX_S) -> None:
        self.at_s, self.utc_s, self.disciplined = now_s, unix_s, True

    def now_s(self) -> float:
        """Return monotonic seconds."""
        return self.at_s

    def unix_s(self) -> float:
        """Return UTC seconds since 1970."""
        return self.utc_s

    def synchronised(self) -> bool:
        """Tell whether UTC can be believed."""
        return self.disciplined

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at_s += seconds
        self.utc_s += seconds


class _Jumping(selectors.SelectSelector):
    """Moves the clock instead of sleeping."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self._clock.advance(timeout)
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: ManualClock) -> None:
        super().__init__(_Jumping(clock))
        self._manual = clock

    def time(self) -> float:
        return self._manual.now_s()


def in_virtual_time(clock: ManualClock, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in an event loop whose sleeping moves the clock. It must start no threads."""
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(work)


SITE: Site = assemble(site_file()).site


@dataclass(eq=False)
class Call:
    """One command that a station has received, and how it may be answered."""

    what: str
    evse: str
    value_a: float
    transaction: str = ""
    lease: Lease | None = None
    answer: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def accept(self) -> None:
        self.answer.set_result(None)

    def fail(self, error: Exception) -> None:
        self.answer.set_exception(error)


class RecordingStation:
    """A charging station of the port's kind: it keeps every command and answers when the test says so."""

    def __init__(self, name: str, evses: Sequence[str]) -> None:
        self.calls: list[Call] = []
        self.willing = False
        self._id, self._evses = name, tuple(evses)
        self._called = asyncio.Event()

    @property
    def id(self) -> str:
        return self._id

    @property
    def evses(self) -> Sequence[str]:
        return self._evses

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def offer(self, evse: str, transaction: str, lease: Lease, *, timeout_s: float) -> None:
        assert timeout_s > 0
        await self._received(Call("offer", evse, lease.value_a, transaction, lease))

    async def install_fallback(self, evse: str, fallback_a: float, *, timeout_s: float) -> None:
        assert timeout_s > 0
        await self._received(Call("install", evse, fallback_a))

    async def disconnect(self, reason: str) -> None:
        raise AssertionError(f"nobody asked for it: {reason}")

    @property
    def told(self) -> list[tuple[str, str, float]]:
        """What it was told so far."""
        return [(call.what, call.evse, call.value_a) for call in self.calls]

    async def call(self, number: int) -> Call:
        """Wait for its n-th command, from 1."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.calls) < number:
                self._called.clear()
                await self._called.wait()
        return self.calls[number - 1]

    async def _received(self, call: Call) -> None:
        assert all(other.answer.done() for other in self.calls), "a second command while one is unanswered"
        self.calls.append(call)
        self._called.set()
        if self.willing:
            call.accept()
        try:
            await call.answer
        except asyncio.CancelledError:
            call.answer.cancel()
            raise


async def settle() -> None:
    """Let every task that can go on do so: nothing here waits for anything outside the event loop."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Bench:
    """A board and a reconciler with two stations, none of which is online yet."""

    clock: ManualClock
    board: Board
    reconciler: Reconciler
    supervisor: Supervisor
    alpha: RecordingStation
    bravo: RecordingStation

    async def apply(self, decision: Decision) -> None:
        """Carry a decision out, as far as it goes without further answers."""
        self.reconciler.apply(decision)
        await settle()

    async def charging(self, station: RecordingStation) -> None:
        """Bring a station online with its fallback installed and a transaction on every EVSE."""
        online(self.board, station)
        for evse in station.evses:
            self.board.evse_state(evse, EvseState.AVAILABLE)
            self.board.fallback_installed(evse)
            self.board.transaction_started(evse, f"tx-{evse}")
            self.board.evse_state(evse, EvseState.CHARGING)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Set the bench up, and end what still runs on it."""
    clock = ManualClock()
    board = Board(SITE, clock)
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(group)
        alpha, bravo = RecordingStation("alpha", ["alpha"]), RecordingStation("bravo", ["bravo-1", "bravo-2"])
        yield Bench(clock, board, Reconciler(board, clock, supervisor.start), supervisor, alpha, bravo)
        supervisor.stop()


def online(board: Board, station: ChargingStation, *, rebooted: bool = True) -> None:
    """Tell the board that a station is there."""
    board.station_online(station, StationInfo(vendor="Recorder"), rebooted=rebooted)


def reading(current_a: float | Phases, at_s: float = START_S, **options: object) -> MeterReading:
    """Return a meter's sample."""
    phases = current_a if isinstance(current_a, tuple) else (current_a, current_a, current_a)
    sample = MeterReading(
        sampled_at_s=at_s,
        sample=round(at_s),
        period_s=1.0,
        current_a=phases,
        power_w=230.0 * sum(phases),
        voltage_v=(230.0, 230.0, 230.0),
    )
    return replace(sample, **options)  # type: ignore[arg-type]  # whatever a test wants to be otherwise


def decision(*, overloaded: bool = False, reason: ReasonCode = ReasonCode.FAIRNESS, **values_a: float) -> Decision:
    """Return a decision with setpoints for the EVSEs named (`bravo_1` is bravo-1)."""
    names = {name.replace("_", "-"): value_a for name, value_a in values_a.items()}
    grid = CircuitState(
        id="grid",
        limit_a=(100.0, 100.0, 100.0),
        limit_source="grid fuse",
        base_a=(0.0, 0.0, 0.0),
        committed_a=(0.0, 0.0, 0.0),
        headroom_a=(0.0, 0.0, 0.0),
        limit_w=None,
        base_w=0.0,
        committed_w=0.0,
        headroom_w=None,
        quality=MeterQuality.FRESH,
        overloaded=overloaded,
    )
    return Decision(
        decided_at_s=START_S,
        setpoints={
            name: Setpoint(
                evse=name,
                value_a=value_a,
                fallback_a=6.0,
                lease_s=600.0,
                committed_a=value_a,
                controllable=reason is not ReasonCode.DISOBEDIENT,
                reason=Reason(code=reason),
            )
            for name, value_a in names.items()
        },
        circuits={"grid": grid},
        contracts={},
    )


def files_in(folder: Path) -> dict[str, int]:
    """Return the names of the files in a folder, with their sizes in bytes."""
    return {file.name: file.stat().st_size for file in folder.iterdir()}


def kicked(board: Board, event: Callable[[], None]) -> bool:
    """Tell whether an event asks for the next decision to come sooner."""
    board.kick.clear()
    event()
    return board.kick.is_set()
