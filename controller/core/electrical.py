"""Electrical arithmetic: per-phase vectors, and watts that go with them.

Phase values are 3-tuples in the site's L1, L2, L3. A `Load` adds the total power: (L1 A, L2 A, L3 A, W). Import is
positive, export negative.
"""

from collections.abc import Iterable
from typing import Final

Phases = tuple[float, float, float]
Load = tuple[float, float, float, float]

ZERO: Final[Phases] = (0.0, 0.0, 0.0)
NO_LOAD: Final[Load] = (0.0, 0.0, 0.0, 0.0)
WATTS: Final = 3  # the position of the total power in a Load
NOMINAL_V: Final = 230.0
# EN 50160 bounds of a 230 V supply (+-10 %): where the voltage is not measured, the one that makes the answer larger.
HIGHEST_V: Final = 253.0
LOWEST_V: Final = 207.0


def on_phases(value_a: float, phases: Iterable[int]) -> Phases:
    """Return `value_a` on each of `phases` (0, 1, 2 for L1, L2, L3) and zero elsewhere."""
    used = frozenset(phases)
    l1, l2, l3 = (value_a if phase in used else 0.0 for phase in range(3))
    return (l1, l2, l3)


def load_of(current_a: Phases, voltage_v: Phases) -> Load:
    """Return a current with the power it carries, at unity power factor."""
    watts = current_a[0] * voltage_v[0] + current_a[1] * voltage_v[1] + current_a[2] * voltage_v[2]
    return (current_a[0], current_a[1], current_a[2], watts)


def amperes(load: Load) -> Phases:
    """Return the phases of a load."""
    return (load[0], load[1], load[2])


def plus(left: Load, right: Load) -> Load:
    """Return the sum, channel by channel."""
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3])


def minus(left: Load, right: Load) -> Load:
    """Return `left` less `right`, channel by channel."""
    return (left[0] - right[0], left[1] - right[1], left[2] - right[2], left[3] - right[3])


def lower(left: Load, right: Load) -> Load:
    """Return the smaller value of each channel."""
    return (min(left[0], right[0]), min(left[1], right[1]), min(left[2], right[2]), min(left[3], right[3]))


def higher(left: Load, right: Load) -> Load:
    """Return the larger value of each channel."""
    return (max(left[0], right[0]), max(left[1], right[1]), max(left[2], right[2]), max(left[3], right[3]))


def total(loads: Iterable[Load]) -> Load:
    """Return the sum of loads, channel by channel."""
    l1 = l2 = l3 = watts = 0.0
    for load in loads:
        l1 += load[0]
        l2 += load[1]
        l3 += load[2]
        watts += load[3]
    return (l1, l2, l3, watts)
