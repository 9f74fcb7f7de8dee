"""`laadplein demo`: a whole example site on real sockets, with a live table when there is a terminal to show it on."""

import argparse
import asyncio
import logging
import sys
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller import state
from controller.cli.main import UsageError
from controller.cli.shared import print_json, say, stop_on_signals, tell, until
from simulators.demo import Demo

REFRESH_S = 0.5
PROGRESS_S = 10.0


def run(options: argparse.Namespace) -> int:
    """Run the demo for its time; exit 1 when the physics saw an invariant broken."""
    live = sys.stdout.isatty() and not options.json
    logging.getLogger("laadplein").setLevel(logging.ERROR if live else logging.WARNING)
    try:
        summary = asyncio.run(_play(options, live=live))
    except OSError as error:
        raise UsageError(f"the demo could not start: {error}; choose another --port") from error
    if options.json:
        print_json(summary)
    else:
        _sum_up(summary)
    return 1 if any(summary["violations"].values()) or summary["contract"]["breaches"] else 0


async def _play(options: argparse.Namespace, *, live: bool) -> dict[str, Any]:
    stop = asyncio.Event()
    stop_on_signals(stop)
    async with Demo(http_port=options.port, seed=options.seed) as demo:
        if live:
            await _watch(demo, stop, options.seconds)
        else:
            telling = asyncio.create_task(_tell_progress(demo, options.seconds))
            await until(stop, options.seconds)
            telling.cancel()
        return demo.summary()


async def _watch(demo: Demo, stop: asyncio.Event, seconds: float | None) -> None:
    ends_at_s = None if seconds is None else demo.started_at_s + seconds
    with Live(_screen(demo, ends_at_s), console=Console(), screen=False, auto_refresh=False) as live:
        while not stop.is_set() and (ends_at_s is None or demo.clock.now_s() < ends_at_s):
            live.update(_screen(demo, ends_at_s), refresh=True)
            await until(stop, REFRESH_S)


async def _tell_progress(demo: Demo, seconds: float | None) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        passed_s, of = demo.clock.now_s() - demo.started_at_s, f" of {seconds:g}" if seconds else ""
        tell(f"{passed_s:4.0f}{of} s: {demo.physics.delivered_kwh:.2f} kWh delivered")


def _screen(demo: Demo, ends_at_s: float | None) -> Group:
    """Return the live picture: how the circuits and the contract stand, and a line for each EVSE with its reason."""
    report = demo.gateway.loop.report if demo.gateway and demo.gateway.loop else None
    if report is None:
        return Group(Text("starting ..."))
    document = state.document(report, now_s=demo.clock.now_s())
    return Group(_heading(demo, ends_at_s), *_circuit_lines(document), _evse_table(document))


def _heading(demo: Demo, ends_at_s: float | None) -> Text:
    port = demo.gateway.http_port() if demo.gateway else None
    left = "" if ends_at_s is None else f", {max(0.0, ends_at_s - demo.clock.now_s()):.0f} s left"
    return Text(
        f"{demo.file.site.name}: 12 stations over OCPP 1.6 and 2.0.1, meter over Modbus TCP{left}\n"
        f"shortened for the demo: contract interval 60 s, leases 20 s"
        + (f"; state at http://127.0.0.1:{port}/api/v1/state" if port else ""),
        style="bold",
    )


def _circuit_lines(document: state.Document) -> list[Text]:
    lines = []
    for circuit in document["circuits"]:
        measured = circuit["measured_a"] or circuit["base_a"]
        figures = "  ".join(f"{now:5.1f}/{limit:g}" for now, limit in zip(measured, circuit["limit_a"], strict=True))
        what = "measured" if circuit["measured_a"] else "base load"
        lines.append(Text(f"{circuit['id']:8} {what:9} A {figures}", style="red" if circuit["overloaded"] else ""))
    return lines + [
        Text(
            f"contract {contract['used_kwh']:.3f} kWh used, {contract['allowed_kw']:.1f} kW allowed for the last "
            f"{contract['remaining_s']:.0f} s, {contract['limit_kw']:g} kW on average"
        )
        for contract in document["contracts"]
    ]


def _evse_table(document: state.Document) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("EVSE", "left"), ("state", "left"), ("offered A", "right"), ("measured A", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("why", no_wrap=True, overflow="ellipsis")
    for evse in document["evses"]:
        measured = evse["measured_a"]
        where = evse["state"] if evse["online"] else "OFFLINE"
        table.add_row(
            evse["id"],
            where,
            "-" if evse["confirmed_a"] is None else f"{evse['confirmed_a']:.1f}",
            "-" if measured is None else " ".join(f"{value:4.1f}" for value in measured),
            evse["why"] or "",
        )
    return table


def _sum_up(summary: dict[str, Any]) -> None:
    contract = summary["contract"]
    say(f"{summary['sessions_started']} sessions, {summary['energy_delivered_kwh']:.2f} kWh delivered")
    for circuit in summary["circuits"]:
        peaks = " / ".join(f"{value:.1f}" for value in circuit["peak_measured_a"])
        say(
            f"{circuit['id']}: peak {peaks} A of {circuit['limit_a'][0]:g} A, "
            f"above its limit {circuit['excursions']} times, {circuit['over_limit_s']:.1f} s at the longest"
        )
    say(
        f"contract: {contract['intervals_completed']} intervals of {contract['interval_s']} s, worst "
        f"{contract['worst_interval_kw']:.1f} kW of {contract['limit_kw']:g} kW, "
        f"{100 * contract['used_ratio']:.0f} % used, {contract['breaches']} breaches"
    )
    broken = {name: count for name, count in summary["violations"].items() if count}
    say(f"invariants broken: {broken or 'none'}")
