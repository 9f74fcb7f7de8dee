"""`laadplein run SITE.toml`: the service."""

import argparse
import asyncio

from controller.app import Gateway
from controller.cli.shared import site_at, stop_on_signals
from controller.cli.usage import UsageError
from controller.clock import SystemClock
from controller.commissioning import Commissioned


def run(options: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT."""
    ready = site_at(options.site)
    try:
        asyncio.run(_serve(ready))
    except OSError as error:
        ocpp = ready.file.ocpp
        raise UsageError(
            f"{options.site}: ocpp.port: cannot listen on {ocpp.host}:{ocpp.port}: {error}; "
            "choose a free port, or stop what uses it"
        ) from error
    return 0


async def _serve(ready: Commissioned) -> None:
    gateway = Gateway(ready, SystemClock(assume_synchronised=ready.file.site.clock == "assumed"))
    stop_on_signals(gateway.stop)
    await gateway.run()
