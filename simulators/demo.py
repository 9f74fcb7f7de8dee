"""The demo: a whole business park on real sockets in one process, with the shipping controller in the middle.

Stations speak OCPP over websockets, the meter Modbus TCP, and the physics alone says what happened in the end.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any, Final, Self

from controller.app import Gateway
from controller.clock import SystemClock
from controller.commissioning import Commissioned, assemble
from controller.config import SiteFile, parse
from controller.core.model import Evse
from simulators.building import Building, LoadStep
from simulators.judge import ContractVerdict, Judge
from simulators.meter import MeterServer
from simulators.physics import STEP_S, PhysicalCircuit, PlacedEvse, SitePhysics
from simulators.pv import PvPlant
from simulators.station import DIALECTS, SimulatedStation
from simulators.station_manners import EvseRating
from simulators.vehicle import Vehicle

SITE: Final = "demo.toml"
ARRIVALS_S: Final = 1.0
BUILDING: Final = Building(
    steps=(
        LoadStep(duration_s=14.0, load_a=(9.0, 11.0, 10.0)),
        LoadStep(duration_s=9.0, load_a=(37.0, 39.0, 38.0)),
        LoadStep(duration_s=16.0, load_a=(12.0, 9.0, 11.0)),
        LoadStep(duration_s=12.0, load_a=(40.0, 37.0, 39.0)),
    ),
    noise_a=0.4,
    seed=7,
)
PV: Final = PvPlant(peak_a=6.0, day_s=240.0, cloud_ratio=0.3, cloud_s=12.0, seed=7)
# (station, second, seconds away): a cut link that returns soon, and later a radio that goes silent.
DROPS: Final = (("van-3", 12.0, 8.0, False), ("truck-2", 50.0, 20.0, True))


@dataclass(frozen=True, slots=True)
class Session:
    """A vehicle that arrives at a station at some second."""

    station: str
    at_s: float
    vehicle: Vehicle


def _fleet(evses: Sequence[Evse], rng: Random) -> list[Session]:
    """One vehicle for each station, a few of them nearly full, so that tapering is seen too."""
    sessions = []
    for number, evse in enumerate(evses):
        needs_kwh = 0.15 if number % 5 == 2 else rng.uniform(8.0, 60.0)  # noqa: PLR2004 - every fifth
        vehicle = Vehicle(needs_kwh=needs_kwh, max_a=evse.max_a, phases=len(evse.phases), wait_s=rng.uniform(0.5, 2.0))
        sessions.append(Session(evse.station, ARRIVALS_S * number, vehicle))
    return sessions


class Demo:
    """One demo. Enter it as an async context manager, watch `gateway.loop`, and ask for the `summary` at the end."""

    def __init__(self, *, http_port: int = 0, seed: int = 1) -> None:
        self.clock = SystemClock(assume_synchronised=True)
        self.started_at_s = self.clock.now_s()
        self.sessions_started = 0
        self._rng, self._http_port = Random(seed), http_port
        self.file = demo_site()
        self.ready: Commissioned = assemble(self.file)
        versions = cycle(DIALECTS)
        self.stations = {evse.station: self._station(evse, next(versions)) for evse in self.ready.site.evses}
        self.judge = Judge(contracts=tuple(_verdict(self.ready)))
        self.physics = self._physics()
        self.physics.unix_s = self.clock.unix_s()
        self.physics.step(STEP_S)  # so that the meter never shows a site without its building
        self.physics.watchers.append(self.judge.watch)
        self.gateway: Gateway | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        meter = self.file.meter[0]
        server = MeterServer(meter.map, lambda: self.physics.meter_values(meter.circuit), unit_id=meter.unit_id)
        await self._stack.enter_async_context(server)
        gateway = Gateway(assemble(self._with_ports(server.port)), self.clock)
        self._run("physics", self.physics.run(self.clock))
        running = self._run("gateway", gateway.run())
        waiting = asyncio.create_task(gateway.ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            waiting.cancel()
            running.result()
        self.gateway = gateway
        for station in self.stations.values():
            station.url = f"ws://127.0.0.1:{gateway.server.port}/{station.id}"
            self._run(station.id, station.run())
        self._run("scenario", self._play())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self.gateway is not None:
            self.gateway.stop.set()
        await self._stack.aclose()

    def summary(self) -> dict[str, Any]:
        """Return what happened, as the physics and the judge saw it."""
        assert self.gateway is not None  # noqa: S101 - there is nothing to sum up before it ran
        loop, contract = self.gateway.loop, self.judge.contracts[0]
        report = loop.report if loop else None
        durations_ms = sorted(1000.0 * duration_s for duration_s in loop.durations_s) if loop else []
        return {
            "stations": len(self.stations),
            "sessions_started": self.sessions_started,
            "energy_delivered_kwh": round(self.physics.delivered_kwh, 3),
            "circuits": [
                {
                    "id": verdict.id,
                    "limit_a": list(verdict.limit_a),
                    "peak_measured_a": [round(value_a, 2) for value_a in verdict.peak_measured_a],
                    "over_limit_s": round(verdict.over_limit_s, 1),
                    "excursions": verdict.excursions,
                }
                for verdict in self.judge.circuits.values()
            ],
            "contract": {
                "limit_kw": contract.limit_kw,
                "interval_s": contract.interval_s,
                "intervals_completed": contract.intervals_completed,
                "worst_interval_kw": round(contract.worst_interval_kw, 2),
                "used_ratio": round(contract.used_ratio, 3),
                "breaches": contract.breaches,
            },
            "setpoints_sent": report.setpoints_sent if report else 0,
            "setpoints_confirmed": report.setpoints_confirmed if report else 0,
            "cycle_ms": _percentiles(durations_ms),
            "violations": dict(self.judge.violations),
        }

    def _with_ports(self, meter_port: int) -> SiteFile:
        meters = tuple(meter.model_copy(update={"port": meter_port}) for meter in self.file.meter)
        http = self.file.http and self.file.http.model_copy(update={"port": self._http_port})
        return self.file.model_copy(update={"meter": meters, "http": http})

    def _station(self, evse: Evse, ocpp: str) -> SimulatedStation:
        return SimulatedStation(
            f"ws://127.0.0.1/{evse.station}",
            ocpp=ocpp,
            evses=(EvseRating(max_a=evse.max_a, min_a=evse.min_a, phases=len(evse.phases)),),
            clock=self.clock,
            rng=Random(self._rng.getrandbits(64)),
        )

    def _physics(self) -> SitePhysics:
        circuits = tuple(
            PhysicalCircuit(
                id=circuit.id,
                parent=circuit.parent,
                limit_a=circuit.limits[0].value_a or (0.0, 0.0, 0.0),
                load_a=BUILDING.load_a if circuit.parent is None else None,
                generation_a=PV.generation_a if circuit.parent is None else None,
            )
            for circuit in self.ready.site.circuits
        )
        placed = tuple(
            PlacedEvse(
                plug=self.stations[evse.station].evse(),
                circuit=evse.circuit,
                phases=evse.phases,
                min_a=evse.min_a,
                max_a=evse.max_a,
            )
            for evse in self.ready.site.evses
        )
        return SitePhysics(circuits=circuits, evses=placed)

    async def _play(self) -> None:
        """Let vehicles arrive and stations drop off, each at its second."""
        async with asyncio.TaskGroup() as group:
            for session in _fleet(self.ready.site.evses, self._rng):
                group.create_task(self._arrive(session))
            for station, at_s, for_s, silent in DROPS:
                group.create_task(self._drop(station, at_s, for_s, silent=silent))

    async def _arrive(self, session: Session) -> None:
        await asyncio.sleep(session.at_s)
        self.stations[session.station].plug_in(session.vehicle)
        self.sessions_started += 1

    async def _drop(self, station: str, at_s: float, for_s: float, *, silent: bool) -> None:
        await asyncio.sleep(at_s)
        await self.stations[station].drop(for_s, silent=silent)

    def _run(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._stack.push_async_callback(_end, task)
        return task


def demo_site() -> SiteFile:
    """Return the demo's site file."""
    return parse(Path(SITE), files("simulators").joinpath(SITE).read_text(encoding="utf-8"))


def _verdict(ready: Commissioned) -> list[ContractVerdict]:
    return [
        ContractVerdict(
            id=contract.id,
            circuit=contract.circuit,
            limit_w=contract.import_w,
            interval_s=contract.settlement_interval_s,
        )
        for contract in ready.site.contracts
    ]


def _percentiles(durations_ms: list[float]) -> dict[str, float]:
    if len(durations_ms) < 2:  # noqa: PLR2004 - quantiles need two
        return {"p50": 0.0, "p99": 0.0}
    cuts = quantiles(durations_ms, n=100, method="inclusive")
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


async def _end(task: asyncio.Task[None]) -> None:
    """Let a task that stops by itself do so; cancel the others."""
    if task.get_name() == "gateway":
        await asyncio.wait({task}, timeout=5.0)
    while not task.done():
        # Until Python 3.13 a task group that fails at that moment swallows a cancellation.
        task.cancel()
        await asyncio.wait({task}, timeout=1.0)
    if not task.cancelled():
        task.exception()  # whoever needed the result has had it
