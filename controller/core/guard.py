"""Guard: an independent second look at a decision before it leaves (invariants C1 and C2).

Shares no arithmetic with the allocation: plain sums over the tree, for every phase of every circuit. What does not pass
is replaced by currents that cannot make anything worse.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final

from controller.core.electrical import HIGHEST_V
from controller.core.facts import Facts
from controller.core.model import Evse

TOLERANCE_A: Final = 0.05
TOLERANCE_RATIO: Final = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that a decision would break, and where."""

    invariant: str
    subject: str
    text: str
    evses: frozenset[int] = frozenset()
    """The EVSEs, by position, whose setpoints must not leave."""


def safe_value_a(evse: Evse, setpoint_a: float, committed_a: float) -> float:
    """Return a setpoint that raises nothing: what it has; the fallback, or a pause, where that is no valid setpoint."""
    for value_a in (setpoint_a, evse.fallback_a):
        if value_a <= committed_a and not _c2(evse, value_a, 0):
            return value_a
    return 0.0


def inspect(facts: Facts, values_a: Mapping[int, float]) -> list[Finding]:
    """Check the setpoints of the controllable EVSEs (by position). An empty list means that they may leave."""
    findings = [finding for index, value_a in values_a.items() for finding in _c2(facts.evses[index], value_a, index)]
    raised = {i for i, value_a in values_a.items() if value_a > facts.commitments[i].committed_a + TOLERANCE_A}
    for index, circuit in enumerate(facts.snapshot.site.circuits):
        below = facts.tree.below[index]
        if raised.isdisjoint(below):
            continue
        worst_a = {evse: max(facts.commitments[evse].committed_a, values_a.get(evse, 0.0)) for evse in below}
        here = raised.intersection(below)
        phases = {phase for evse in here for phase in facts.evses[evse].phases}
        findings += [replace(found, evses=frozenset(here)) for found in _c1(facts, index, circuit.id, worst_a, phases)]
    return findings


def _c2(evse: Evse, value_a: float, index: int) -> list[Finding]:
    if value_a == 0.0 or evse.min_a <= value_a <= evse.max_a:
        return []
    text = f"setpoint {value_a:g} A is neither 0 nor within {evse.min_a:g}..{evse.max_a:g} A"
    return [Finding(invariant="C2", subject=evse.id, text=text, evses=frozenset({index}))]


def _c1(facts: Facts, index: int, name: str, worst_a: Mapping[int, float], phases: Collection[int]) -> list[Finding]:
    """An increase on some phases leaves only if base load and worst-case commitments fit on each of them."""
    base, findings = facts.bases[index].rise, []
    for phase in sorted(phases):
        limit_a = facts.bounds[index].value_a[phase]
        load_a = base[phase] + _sum_on(facts, worst_a, phase)
        if isfinite(limit_a) and load_a > limit_a + TOLERANCE_A + TOLERANCE_RATIO * limit_a:
            text = f"L{phase + 1} could carry {load_a:.1f} A of {limit_a:.1f} A"
            findings.append(Finding(invariant="C1", subject=name, text=text))
    limit_w = min(facts.bounds[index].value_w, facts.contract_w(index))
    load_w = base[3] + sum(_sum_on(facts, worst_a, phase) * _volts(facts, index, phase) for phase in range(3))
    if isfinite(limit_w) and load_w > limit_w * (1.0 + TOLERANCE_RATIO) + TOLERANCE_A * HIGHEST_V:
        text = f"could carry {load_w / 1000:.1f} kW of {limit_w / 1000:.1f} kW"
        findings.append(Finding(invariant="C1", subject=name, text=text))
    return findings


def _sum_on(facts: Facts, worst_a: Mapping[int, float], phase: int) -> float:
    return sum(value_a for evse, value_a in worst_a.items() if phase in facts.evses[evse].phases)


def _volts(facts: Facts, index: int, phase: int) -> float:
    """The voltage at the grid connection, as metered there."""
    circuits, here = facts.snapshot.site.circuits, index
    while facts.tree.parents[here] >= 0:
        here = facts.tree.parents[here]
    reading = facts.snapshot.meters.get(circuits[here].id)
    return HIGHEST_V if reading is None or reading.voltage_v is None else reading.voltage_v[phase]


def unfit(facts: Facts, lowest_a: Sequence[float]) -> list[Finding]:
    """Return where even the lowest possible setpoints, beside base load and fixed loads, exceed an equipment limit."""
    findings = []
    for index, circuit in enumerate(facts.snapshot.site.circuits):
        load_a = {evse: lowest_a[evse] for evse in facts.tree.below[index]}
        text = _overfull(facts, index, load_a)
        if text is not None:
            text = f"{text} with everything at its lowest"
            findings.append(Finding(invariant="C1", subject=circuit.id, text=text))
    return findings


def _overfull(facts: Facts, index: int, load_a: Mapping[int, float]) -> str | None:
    """Describe the first equipment limit of a circuit that base load and EVSEs together exceed."""
    base, bound = facts.bases[index].load, facts.bounds[index]
    for phase, limit_a in enumerate(bound.value_a):
        worst_a = base[phase] + _sum_on(facts, load_a, phase)
        if worst_a > limit_a + TOLERANCE_A:
            return f"L{phase + 1} carries {worst_a:.1f} A of {limit_a:.1f} A"
    worst_w = base[3] + sum(_sum_on(facts, load_a, phase) * _volts(facts, index, phase) for phase in range(3))
    if worst_w > bound.value_w + TOLERANCE_A * HIGHEST_V:
        return f"carries {worst_w / 1000:.1f} kW of {bound.value_w / 1000:.1f} kW"
    return None
