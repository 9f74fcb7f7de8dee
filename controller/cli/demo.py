"""`laadplein demo`: a whole example site on real sockets, with a live table when there is a terminal to show it on."""

import argparse
import asyncio
import io
import logging
import socket
import sys
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controller import state
from controller.cli.answer import print_json, say, tell
from controller.cli.shared import stop_on_signals, until
from controller.cli.usage import UsageError
from simulators.demo import Demo

REFRESH_S = 0.5
PROGRESS_S = 10.0


def run(options: argparse.Namespace) -> int:
    """Run the demo for its time; exit 1 when the physics saw an invariant broken."""
    live = sys.stdout.isatty() and not options.json
    # The demo cuts links and makes surprises: what a gateway warns of is what is shown here.
    logging.getLogger().setLevel(logging.ERROR)
    try:
        _probe(options.port)
        summary = asyncio.run(_play(options, live=live))
    except OSError as error:
        raise UsageError(f"the demo could not start: {error}; choose another --port") from error
    if options.json:
        print_json(summary)
    else:
        _sum_up(summary)
    return 1 if any(summary["violations"].values()) or summary["contract"]["breaches"] else 0


def _probe(port: int) -> None:
    """Raise OSError where the HTTP port cannot be had: a gateway goes on without it, but here it was asked for."""
    socket.create_server(("127.0.0.1", port)).close()


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
        if options.picture:
            _save_picture(demo, options.picture)
        return demo.summary()


def _save_picture(demo: Demo, path: str) -> None:
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(_screen(demo, None))
    console.save_svg(path, title="laadplein demo")


async def _watch(demo: Demo, stop: asyncio.Event, seconds: float | None) -> None:
    ends_at_s = None if seconds is None else demo.started_at_s + seconds
    with Live(_screen(demo, ends_at_s), console=Console(), screen=False, auto_refresh=False) as live:
        while not stop.is_set() and (ends_at_s is None or demo.clock.now_s() < ends_at_s):
            live.update(_screen(demo, ends_at_s), refresh=True)
            await until(stop, REFRESH_S)


async def _tell_progress(demo: Demo, seconds: float | None) -> None:
    while not (port := demo.gateway.http_port() if demo.gateway else None):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(REFRESH_S)
    tell(f"state at http://127.0.0.1:{port}/api/v1/state")
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
    return Group(_heading(demo, ends_at_s), _circuit_table(document), *_contract_lines(document), _evse_table(document))


def _heading(demo: Demo, ends_at_s: float | None) -> Text:
    port = demo.gateway.http_port() if demo.gateway else None
    left = "" if ends_at_s is None else f", {max(0.0, ends_at_s - demo.clock.now_s()):.0f} s left"
    return Text(
        f"{demo.file.site.name}: 12 stations over OCPP 1.6 and 2.0.1, meter over Modbus TCP{left}\n"
        f"shortened for the demo: contract interval 60 s, leases 20 s"
        + (f"; state at http://127.0.0.1:{port}/api/v1/state" if port else ""),
        style="bold",
    )


def _circuit_table(document: state.Document) -> Table:
    """Return a line for each circuit: what its meter shows, or what it may carry at most where it has none."""
    table = Table(box=None, pad_edge=False)
    for heading in ("circuit", "L1", "L2", "L3", ""):
        table.add_column(heading, no_wrap=True, justify="right" if heading.startswith("L") else "left")
    for circuit in document["circuits"]:
        shown_a = circuit["measured_a"] or _most_a(circuit)
        figures = [f"{now_a:5.1f} of {limit_a:g} A" for now_a, limit_a in zip(shown_a, circuit["limit_a"], strict=True)]
        what = "measured" if circuit["measured_a"] else "at most (no meter)"
        table.add_row(circuit["id"], *figures, what, style="red" if circuit["overloaded"] else "")
    return table


def _most_a(circuit: state.Document) -> list[float]:
    return [base_a + all_a for base_a, all_a in zip(circuit["base_a"], circuit["committed_a"], strict=True)]


def _contract_lines(document: state.Document) -> list[Text]:
    return [
        Text(
            f"contract of {contract['limit_kw']:g} kW: {contract['used_kwh']:.3f} kWh used in this interval, "
            f"{contract['allowed_kw']:.1f} kW allowed for its last {contract['remaining_s']:.0f} s"
        )
        for contract in document["contracts"]
    ]


def _evse_table(document: state.Document) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("EVSE", no_wrap=True, min_width=8)
    table.add_column("state", no_wrap=True, min_width=14)
    table.add_column("offered A", no_wrap=True, justify="right", min_width=9)
    table.add_column("measured A", no_wrap=True, justify="right", min_width=15)
    table.add_column("why", no_wrap=True, overflow="ellipsis")
    for evse in document["evses"]:
        measured_a = evse["measured_a"]
        table.add_row(
            evse["id"],
            evse["state"].replace("_", " ") if evse["online"] else "OFFLINE",
            "-" if evse["confirmed_a"] is None else f"{evse['confirmed_a']:.1f}",
            "-" if measured_a is None else " ".join(f"{value_a:4.1f}" for value_a in measured_a),
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
