"""`laadplein check SITE.toml`: validate; show the circuit tree, every implied default and the worst case."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from controller.cli.answer import print_json, say
from controller.cli.shared import site_at
from controller.commissioning import Commissioned
from controller.config import Location, key_of
from controller.core.electrical import Phases
from controller.core.model import Circuit, Evse
from controller.core.worst_case import WorstCase

PHASES = ("L1", "L2", "L3")
PIPE_WIDTH = 200  # characters


def run(options: argparse.Namespace) -> int:
    """Check a site file; a problem ends in a UsageError before anything is shown."""
    ready = site_at(options.site)
    if options.json:
        print_json(_document(ready))
    else:
        _show(ready, Path(options.site))
    return 0


def _document(ready: Commissioned) -> dict[str, Any]:
    return {
        "site": ready.file.site.name,
        "stations": len(ready.file.station),
        "circuits": [
            {
                "id": case.circuit,
                "limit_a": case.limit_a,
                "base_worst_a": case.base_a,
                "fallbacks_a": case.outcome_a,
                "fits": case.fits,
            }
            for case in ready.worst
        ],
        "fallbacks_a": {evse.id: evse.fallback_a for evse in ready.site.evses},
        "defaults": {key_of(location): value for location, value in implied(ready.file)},
        "signed_exception": ready.file.exception is not None,
        "reaction_s": {meter.circuit: reaction_s(meter.period_s) for meter in ready.file.meter},
    }


def reaction_s(period_s: float) -> float:
    """Return how long an overload may last with a meter of this period (invariant C3): 15 s, or 13 s + P above 2 s."""
    return 15.0 if period_s <= 2.0 else 13.0 + period_s  # noqa: PLR2004 - the rule's own number


def implied(section: BaseModel, at: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Yield every key that the file leaves out, with the value that holds."""
    for name in type(section).model_fields:
        value, here = getattr(section, name), (*at, name)
        if isinstance(value, BaseModel):
            yield from implied(value, here)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, inner in enumerate(value):
                yield from implied(inner, (*here, index))
        elif name not in section.model_fields_set and value not in (None, ()):
            yield here, value


def _show(ready: Commissioned, path: Path) -> None:
    # Names are the user's and shown as they are; lines in a file or a pipe are not folded.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    say(f"{path}: {ready.file.site.name}, valid")
    for root in ready.site.circuits:
        if root.parent is None:
            _say_all(console, _branch(ready, root, None))
    _say_all(console, _worst_case_table(ready.worst))
    if ready.file.exception is not None:
        signed = ready.file.exception
        say(f"signed exception to the worst case: {signed.signed_by}: {signed.reason}")
    for meter in ready.file.meter:
        say(
            f"meter {meter.id}: an overload of {meter.circuit} ends within {reaction_s(meter.period_s):g} s "
            f"(period {meter.period_s:g} s)"
        )
    say("implied defaults:")
    for location, value in implied(ready.file):
        say(f"  {key_of(location)} = {value}")


def _say_all(console: Console, shown: Tree | Table) -> None:
    with console.capture() as capture:
        console.print(shown)
    say(capture.get().rstrip("\n"))


def _branch(ready: Commissioned, circuit: Circuit, above: Tree | None) -> Tree:
    bound = circuit.limits[0].value_a or (0.0, 0.0, 0.0)
    label = f"{circuit.id}: {_amperes(bound)}" + (", metered" if circuit.metered else "")
    label += "".join(
        f", contract {contract.id} {contract.import_w / 1000:g} kW per {contract.settlement_interval_s} s"
        for contract in ready.site.contracts
        if contract.circuit == circuit.id
    )
    tree = Tree(label) if above is None else above.add(label)
    for evse in ready.site.evses:
        if evse.circuit == circuit.id:
            tree.add(_leaf(evse))
    for child in ready.site.circuits:
        if child.parent == circuit.id:
            _branch(ready, child, tree)
    return tree


def _leaf(evse: Evse) -> str:
    phases = " ".join(PHASES[phase] for phase in evse.phases)
    can = f"{evse.min_a:g}..{evse.max_a:g} A on {phases}"
    return f"EVSE {evse.id}: {can}, class {evse.trust}, fallback {evse.fallback_a:g} A"


def _amperes(value_a: Phases) -> str:
    return f"3 x {value_a[0]:g} A" if len(set(value_a)) == 1 else " / ".join(f"{value:g} A" for value in value_a)


def _worst_case_table(cases: tuple[WorstCase, ...]) -> Table:
    table = Table(title="Worst case, gateway dead (A on L1 / L2 / L3)", title_justify="left")
    for heading in ("circuit", "base load", "fallbacks and class C", "limit", "fits"):
        table.add_column(heading)
    for case in cases:
        table.add_row(
            case.circuit,
            _three(case.base_a),
            _three(case.outcome_a),
            _three(case.limit_a),
            "yes" if case.fits else "NO",
        )
    return table


def _three(value_a: Phases) -> str:
    return " / ".join(f"{value:g}" for value in value_a)
