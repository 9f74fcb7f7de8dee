"""Limits: what each circuit may carry now, and who says so.

Knows amperes, watts and validity. Does not care how a limit arrived (site file, API, grid signal) or who uses it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from controller.core.electrical import Phases
from controller.core.model import Circuit, Limit

UNLIMITED_A: Final[Phases] = (inf, inf, inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The tightest of all limits of one circuit, per phase and in total, with the name of each."""

    value_a: Phases
    sources_a: tuple[str, str, str]
    value_w: float
    source_w: str

    @property
    def source(self) -> str:
        """The name of the tightest current limit."""
        return self.sources_a[min(range(3), key=lambda phase: self.value_a[phase])]


def bound_of(circuit: Circuit, now_s: float) -> Bound:
    """Fold the limits of a circuit: restrictions take the minimum, and the binding one keeps its name."""
    tightest, sources = list(UNLIMITED_A), ["", "", ""]
    watts, source_w = inf, ""
    for limit in circuit.limits:
        value_a, value_w = _at(limit, now_s)
        if value_a is not None:
            for phase in range(3):
                value = value_a[phase] * circuit.continuous_factor
                if value < tightest[phase]:
                    tightest[phase], sources[phase] = value, limit.source
        if value_w is not None and value_w < watts:
            watts, source_w = value_w, limit.source
    return Bound(
        value_a=(tightest[0], tightest[1], tightest[2]),
        sources_a=(sources[0], sources[1], sources[2]),
        value_w=watts,
        source_w=source_w,
    )


def bounds_of(circuits: Iterable[Circuit], now_s: float) -> tuple[Bound, ...]:
    """Fold the limits of every circuit."""
    return tuple(bound_of(circuit, now_s) for circuit in circuits)


def _at(limit: Limit, now_s: float) -> tuple[Phases | None, float | None]:
    if limit.valid_until_s is None or now_s <= limit.valid_until_s:
        return limit.value_a, limit.value_w
    # A lapsed limit fails closed: its fallback, or 0 where it has none.
    lapsed_a = limit.fallback_a or (0.0, 0.0, 0.0)
    lapsed_w = limit.fallback_w or 0.0
    return (
        None if limit.value_a is None else lapsed_a,
        None if limit.value_w is None else lapsed_w,
    )
