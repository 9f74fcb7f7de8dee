"""Allocation: who may charge, and how much each gets, on a tree of circuits with three phases and a power limit each.

Weighted max-min fairness by progressive filling: one common level rises, every asker's response is
`clip(weight * level, lower, upper)`, and whoever meets a full constraint stays where it is. With free disposal and
coefficients >= 0 this is the exact max-min allocation (Radunovic and Le Boudec, "A unified framework for max-min and
min-max fairness"). O(E log E) for E = askers x constraints on their path.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

EPSILON: Final = 1e-9

Use = tuple[int, float]
"""A constraint's number, and how much of it one ampere of the asker takes (1 for a phase, volts for a power)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One asker: amperes per active phase between `lower_a` and `upper_a`, and the constraints it leans on."""

    lower_a: float
    upper_a: float
    weight: float
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What each asker gets, what stopped it (a constraint's number, or None: its own upper bound), and what is left."""

    values_a: tuple[float, ...]
    bounds: tuple[int | None, ...]
    left: tuple[float, ...]


def admit(
    asks: Sequence[Ask],
    order: Sequence[int],
    capacity: Sequence[float],
    spare: Sequence[Sequence[float] | None],
    *,
    must: Collection[int] = (),
) -> tuple[list[bool], list[int | None]]:
    """Admit askers in `order` at their lower bound, as long as every constraint on their path has room.

    `spare[i]`, if given, is the room per constraint that must remain after letting asker `i` in (a newcomer must not be
    let in on the last ampere). Those in `must` get in even where they do not fit. Returns who is in, and for who is
    not, the constraint that had no room.
    """
    left = list(capacity)
    admitted = [False] * len(asks)
    blockers: list[int | None] = [None] * len(asks)
    for index in order:
        ask, keep = asks[index], spare[index]
        blocker = next(
            (c for c, share in ask.uses if left[c] - (keep[c] if keep else 0.0) < share * ask.lower_a - EPSILON), None
        )
        if blocker is None or index in must:
            admitted[index] = True
            for constraint, share in ask.uses:
                left[constraint] -= share * ask.lower_a
        else:
            blockers[index] = blocker
    return admitted, blockers


def fill(asks: Sequence[Ask], capacity: Sequence[float]) -> Filled:
    """Raise all askers from their lower bounds together until each meets its upper bound or a full constraint.

    A constraint that the lower bounds overfill already lets nobody rise; nobody is pushed below its lower bound.
    """
    return _Filling(asks, capacity).run()


class _Filling:
    """The state of one filling: a rising level, and per constraint its load, its slope and its members."""

    def __init__(self, asks: Sequence[Ask], capacity: Sequence[float]) -> None:
        self.asks = asks
        self.values_a = [ask.lower_a for ask in asks]
        self.bounds: list[int | None] = [None] * len(asks)
        self.rising = [False] * len(asks)
        self.left = list(capacity)
        self.slope = [0.0] * len(capacity)
        self.touched_at = [0.0] * len(capacity)
        self.members: list[list[int]] = [[] for _ in capacity]
        self.full: list[tuple[float, int]] = []  # (level at which it is full, constraint): stale entries are skipped
        for ask in asks:
            for constraint, share in ask.uses:
                self.left[constraint] -= share * ask.lower_a

    def run(self) -> Filled:
        events = [
            (ask.lower_a / ask.weight, 0, index)
            for index, ask in enumerate(self.asks)
            if ask.upper_a > ask.lower_a + EPSILON
        ]
        heapify(events)
        while events or self.full:
            level_events = events[0][0] if events else inf
            level_full = self.full[0][0] if self.full else inf
            if level_full <= level_events:
                self._meet(*heappop(self.full))
                continue
            level, ends, index = heappop(events)
            if ends:
                self._stop(index, level, None)
            elif self._start(index, level):
                heappush(events, (self.asks[index].upper_a / self.asks[index].weight, 1, index))
        return Filled(values_a=tuple(self.values_a), bounds=tuple(self.bounds), left=tuple(self.left))

    def _start(self, index: int, level: float) -> bool:
        """Let an asker rise, unless a constraint on its path is full."""
        ask = self.asks[index]
        for constraint, _ in ask.uses:
            self._settle(constraint, level)
            if self.left[constraint] <= EPSILON:
                self.bounds[index] = constraint
                return False
        self.rising[index] = True
        for constraint, share in ask.uses:
            self.slope[constraint] += share * ask.weight
            self.members[constraint].append(index)
            self._predict(constraint, level)
        return True

    def _stop(self, index: int, level: float, bound: int | None) -> None:
        """End an asker's rise at this level."""
        if not self.rising[index]:
            return
        ask = self.asks[index]
        self.rising[index] = False
        self.bounds[index] = bound
        self.values_a[index] = min(ask.upper_a, max(ask.lower_a, ask.weight * level))
        for constraint, share in ask.uses:
            self._settle(constraint, level)
            self.slope[constraint] -= share * ask.weight
            self._predict(constraint, level)

    def _meet(self, level: float, constraint: int) -> None:
        """Stop everybody on a constraint that has become full."""
        if self.slope[constraint] <= EPSILON or self._full_at(constraint) > level + EPSILON:
            return  # an old prediction
        for index in self.members[constraint]:
            self._stop(index, level, constraint)
        self.left[constraint] = min(self.left[constraint], 0.0)

    def _settle(self, constraint: int, level: float) -> None:
        self.left[constraint] -= self.slope[constraint] * (level - self.touched_at[constraint])
        self.touched_at[constraint] = level

    def _full_at(self, constraint: int) -> float:
        return self.touched_at[constraint] + max(0.0, self.left[constraint]) / self.slope[constraint]

    def _predict(self, constraint: int, level: float) -> None:
        if self.slope[constraint] > EPSILON:
            heappush(self.full, (max(level, self._full_at(constraint)), constraint))
