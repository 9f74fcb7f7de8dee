"""The worst case: what a site draws when the gateway is dead (invariant C1s), and fallbacks dealt to fit it.

Knows static facts only: worst base load, fallbacks, trust classes, equipment limits. A contract excess only warns here:
a dead gateway cannot keep an energy budget.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from controller.core.baseload import worst_load
from controller.core.electrical import Load, Phases, amperes, higher, total
from controller.core.limits import bounds_of
from controller.core.model import Circuit, Evse, Site, Trust
from controller.core.tree import Tree

ROUNDING_A: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """One circuit with the gateway dead: base load and deaf outcomes against the limit, per phase."""

    circuit: str
    base_a: Phases
    outcome_a: Phases
    limit_a: Phases
    source: str

    @property
    def fits(self) -> bool:
        """Tell whether every phase fits."""
        return all(self.base_a[p] + self.outcome_a[p] <= self.limit_a[p] + ROUNDING_A for p in range(3))


def deal_fallbacks(circuits: Sequence[Circuit], evses: Sequence[Evse]) -> tuple[Evse, ...]:
    """Give each EVSE its fallback: its minimum where it fits beside the worst base load, else 0.

    EVSEs that must never get 0 come first and get theirs in any case (`worst_cases` then shows that it does not fit);
    the others follow by priority and in the order given. Of a class C station the rated maximum is reckoned with, so
    that its minimum costs nothing more.
    """
    site = Site(circuits=tuple(circuits), evses=tuple(evses))
    tree = Tree.of(site)
    left = [_free_a(case) for case in worst_cases(replace(site, evses=_dealt(evses, {})))]
    dealt: dict[str, float] = {}
    ranked = sorted(range(len(evses)), key=lambda i: (not evses[i].never_zero, -evses[i].priority, i))
    for index in ranked:
        evse = evses[index]
        if evse.trust is Trust.NONE:
            dealt[evse.id] = evse.min_a
            continue
        need_a = evse.min_a - ROUNDING_A
        fits = all(left[circuit][phase] >= need_a for circuit in tree.paths[index] for phase in evse.phases)
        if not (fits or evse.never_zero):
            continue
        dealt[evse.id] = evse.min_a
        for circuit in tree.paths[index]:
            for phase in evse.phases:
                left[circuit][phase] -= evse.min_a
    return _dealt(evses, dealt)


def worst_cases(site: Site) -> tuple[WorstCase, ...]:
    """Return the worst case of every circuit, with the fallbacks that the site's EVSEs hold."""
    tree, bounds = Tree.of(site), bounds_of(site.circuits, 0.0)
    bases: list[Load] = [worst_load(circuit) for circuit in site.circuits]
    for index in reversed(range(len(site.circuits))):
        children = [bases[child] for child, parent in enumerate(tree.parents) if parent == index]
        bases[index] = higher(bases[index], total(children))
    result = []
    for index, circuit in enumerate(site.circuits):
        outcome = [0.0, 0.0, 0.0]
        for evse in tree.below[index]:
            for phase in site.evses[evse].phases:
                outcome[phase] += _outcome_a(site.evses[evse])
        result.append(
            WorstCase(
                circuit=circuit.id,
                base_a=amperes(bases[index]),
                outcome_a=(outcome[0], outcome[1], outcome[2]),
                limit_a=bounds[index].value_a,
                source=bounds[index].source,
            )
        )
    return tuple(result)


def _outcome_a(evse: Evse) -> float:
    return evse.rated_a if evse.trust is Trust.NONE else evse.fallback_a


def _dealt(evses: Sequence[Evse], fallbacks_a: Mapping[str, float]) -> tuple[Evse, ...]:
    return tuple(replace(evse, fallback_a=fallbacks_a.get(evse.id, 0.0)) for evse in evses)


def _free_a(case: WorstCase) -> list[float]:
    return [case.limit_a[phase] - case.base_a[phase] - case.outcome_a[phase] for phase in range(3)]
