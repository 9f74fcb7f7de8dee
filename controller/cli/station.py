"""`laadplein station --url URL`: simulated charging stations against any central system."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from random import Random
from typing import Any

from controller.cli.answer import print_json, tell
from controller.cli.shared import alongside, end, stop_on_signals
from controller.cli.usage import UsageError
from controller.clock import SystemClock
from simulators.feed import FeedSender
from simulators.physics import PhysicalCircuit, PlacedEvse, SitePhysics
from simulators.station import SimulatedStation
from simulators.station_manners import EvseRating
from simulators.vehicle import Vehicle

REPORT_S = 0.5
NOTICED_A = 0.5
ROTATIONS = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def run(options: argparse.Namespace) -> int:
    """Run stations until told to stop."""
    if not options.url.startswith(("ws://", "wss://")):
        raise UsageError(f"--url {options.url}: not a websocket address; write ws://HOST:PORT/PATH/IDENTITY")
    asyncio.run(_live(options))
    return 0


async def _live(options: argparse.Namespace) -> None:
    clock, stop = SystemClock(assume_synchronised=True), asyncio.Event()
    stop_on_signals(stop)
    rng = Random(options.seed)
    stations = [_station(options, number, clock, Random(rng.getrandbits(64))) for number in range(options.count)]
    physics = _physics(options, stations)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(station.run(), name=station.id) for station in stations]
        tasks.append(group.create_task(_report(stations, clock)))
        if options.feed:
            tasks.append(group.create_task(_feed(options.feed, physics)))
        await alongside(physics.run(clock), stop, options.seconds)
        summary = _summary(stations, physics)  # while they are still online
        await end(tasks)
    if options.json:
        print_json(summary)


def _station(options: argparse.Namespace, number: int, clock: SystemClock, rng: Random) -> SimulatedStation:
    url = options.url if options.count == 1 else f"{options.url}-{number + 1}"
    rating = EvseRating(max_a=options.max_a, phases=options.phases)
    station = SimulatedStation(url, ocpp=options.ocpp, evses=(rating,), clock=clock, rng=rng)
    if not options.empty:
        station.plug_in(Vehicle(needs_kwh=options.needs_kwh, max_a=options.max_a, phases=options.phases))
    return station


def _physics(options: argparse.Namespace, stations: Sequence[SimulatedStation]) -> SitePhysics:
    placed = tuple(
        PlacedEvse(
            plug=station.evse(),
            circuit="site",
            phases=ROTATIONS[number % 3 if options.rotate else 0][: options.phases],
            max_a=options.max_a,
        )
        for number, station in enumerate(stations)
    )
    return SitePhysics(circuits=(PhysicalCircuit(id="site", limit_a=(1e6, 1e6, 1e6)),), evses=placed)


async def _feed(address: tuple[str, int], physics: SitePhysics) -> None:
    sender = FeedSender(*address, source=f"stations-{os.getpid()}")
    await sender.run(lambda: physics.flow("site").vehicles_a)


async def _report(stations: Sequence[SimulatedStation], clock: SystemClock) -> None:
    """Tell on stderr whenever a station goes, comes back, or offers something else."""
    started_at_s = clock.now_s()
    told: dict[str, tuple[bool, str, int]] = {}
    while True:
        for station in stations:
            place, online = station.evse(), station.online.is_set()
            now = (online, str(place.state), round(place.offered_a() / NOTICED_A))
            if told.get(station.id) != now:
                told[station.id] = now
                tell(
                    f"{clock.now_s() - started_at_s:7.1f} s {station.id}: {'online' if online else 'OFFLINE'}, "
                    f"{place.state}, offers {place.offered_a():.1f} A"
                )
        await asyncio.sleep(REPORT_S)


def _summary(stations: Sequence[SimulatedStation], physics: SitePhysics) -> dict[str, Any]:
    return {
        "stations": len(stations),
        "online": sum(station.online.is_set() for station in stations),
        "energy_delivered_kwh": round(physics.delivered_kwh, 3),
        "offered_a": {station.id: round(station.evse().offered_a(), 2) for station in stations},
        "connects": sum(station.statistics.connects for station in stations),
    }
