"""`laadplein meter --map NAME`: a simulated Modbus TCP meter with a building behind it."""

import argparse
import asyncio
from contextlib import AsyncExitStack

from controller.cli.answer import tell
from controller.cli.shared import alongside, stop_on_signals
from controller.cli.usage import UsageError
from controller.clock import SystemClock
from controller.core.electrical import Phases
from drivers.modbus.regmap import MapError
from simulators.building import Building, LoadStep
from simulators.feed import FeedReceiver
from simulators.meter import MeterServer
from simulators.physics import PhysicalCircuit, SitePhysics

FUSE_A: Phases = (1e6, 1e6, 1e6)  # a meter alone judges nothing


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    try:
        asyncio.run(_serve(options))
    except MapError as error:
        raise UsageError(f"--map {options.map}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot listen: {error}; choose another --port or --feed-port") from error
    return 0


async def _serve(options: argparse.Namespace) -> None:
    clock, stop = SystemClock(assume_synchronised=True), asyncio.Event()
    stop_on_signals(stop)
    async with AsyncExitStack() as stack:
        feed = None
        if options.feed_port is not None:
            feed = FeedReceiver(clock, options.feed_port)
            port = await feed.open()
            stack.callback(feed.close)
            tell(f"adding what stations send to UDP port {port}")
        circuit = PhysicalCircuit(
            id="grid", limit_a=FUSE_A, load_a=_building(options).load_a, fed_a=feed.current_a if feed else None
        )
        physics = SitePhysics(circuits=(circuit,))
        server = MeterServer(
            options.map,
            lambda: physics.meter_values("grid"),
            port=options.port,
            host=options.host,
            unit_id=options.unit_id,
        )
        await stack.enter_async_context(server)
        tell(f"{options.map} at {options.host}:{server.port}, unit {options.unit_id}")
        await alongside(physics.run(clock), stop, options.seconds)


def _building(options: argparse.Namespace) -> Building:
    low_a, high_a = options.base_a, options.base_a + options.step_a
    return Building(
        steps=(
            LoadStep(duration_s=options.step_s, load_a=(low_a, low_a, low_a)),
            LoadStep(duration_s=options.step_s, load_a=(high_a, high_a, high_a)),
        )
    )
