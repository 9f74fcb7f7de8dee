"""The judge: says what happened on a site, from the physics alone.

Knows limits, clock-aligned intervals and the invariants of docs/architecture.md that can be seen from outside (C2, C3,
C11). Does not care what the controller believed or intended.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from controller.core.electrical import ZERO, Phases
from simulators.physics import CircuitFlow, EvseFlow, Moment

TOLERANCE_A: Final = 1e-6
MAX_OVER_S: Final = 15.0
"""C3: how long a circuit may stay over its limit while shedding could bring it back."""
REACTION_S: Final = 15.0
SURPRISE_RATIO: Final = 0.05
SURPRISE_WINDOW_S: Final = 2.0
_SECONDS_PER_HOUR: Final = 3600.0
_MAX_SURPRISES: Final = 10_000
_EDGE_S: Final = 1e-6


@dataclass(slots=True)
class CircuitVerdict:
    """One circuit's record: highest current per phase, longest and number of spells above any phase's limit."""

    id: str
    limit_a: Phases
    peak_measured_a: Phases = ZERO
    over_limit_s: float = 0.0
    excursions: int = 0
    overlong: int = 0
    _spell_s: float = 0.0
    _avoidable_s: float = 0.0

    def see(self, flow: CircuitFlow, dt_s: float) -> None:
        """Take note of one step."""
        self.limit_a = flow.limit_a
        one, two, three = (max(pair) for pair in zip(self.peak_measured_a, flow.current_a, strict=True))
        self.peak_measured_a = (one, two, three)
        excess_a = [now_a - most_a for now_a, most_a in zip(flow.current_a, flow.limit_a, strict=True)]
        if max(excess_a) <= TOLERANCE_A:
            self._spell_s = self._avoidable_s = 0.0
            return
        if self._spell_s == 0:
            self.excursions += 1
        self._spell_s += dt_s
        self.over_limit_s = max(self.over_limit_s, self._spell_s)
        self._see_avoidable(flow, excess_a, dt_s)

    def _see_avoidable(self, flow: CircuitFlow, excess_a: list[float], dt_s: float) -> None:
        # C3 promises 15 s only while the vehicles there draw at least the excess.
        if any(over_a > drawn_a + TOLERANCE_A for over_a, drawn_a in zip(excess_a, flow.vehicles_a, strict=True)):
            self._avoidable_s = 0.0
            return
        before_s = self._avoidable_s
        self._avoidable_s += dt_s
        if before_s <= MAX_OVER_S + _EDGE_S < self._avoidable_s:
            self.overlong += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A slice of an interval: net base power and total power at the grid connection, import positive."""

    dt_s: float
    base_w: float
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """A sudden rise of the base load: when, and the base power just before it."""

    unix_s: float
    before_w: float


@dataclass(slots=True)
class ContractVerdict:
    """The record of a contracted mean import power (GTV), interval by interval.

    Only whole intervals count, those observed from their start to their end. Energy is imported energy: phases are
    netted instant by instant, and export gives no credit.

    An interval over its limit by more than `resolution_wh` is a *breach* when it was avoidable (C11), and a mere
    overrun otherwise. The definition:

    `used(t)` is the energy imported until t. `shed(t)` is `used(t)` plus the energy of the base load alone from t to
    the end: what the interval would have come to had every vehicle been shed from t on. A *surprise* is a rise of the
    base load by more than 5 % of the contracted power within 2 s (in a longer rise, every further 5 %). A surprise at
    s *made shedding necessary* if just before it the interval could still be kept, as far as anyone could know:
    `used(s) + base power before the surprise x time left <= limit`. Surprises in the last 15 s before the interval
    count too, with `used = 0`. Then:

    - with s the last surprise that made shedding necessary: avoidable if `shed(s + 15 s) <= limit`;
    - without one: avoidable if `shed(start) <= limit`, which is to say unless the base load alone was over.
    """

    id: str
    circuit: str
    limit_w: float
    interval_s: int = 900
    resolution_wh: float = 1.0
    intervals_completed: int = 0
    worst_interval_kw: float = 0.0
    breaches: int = 0
    overruns: int = 0
    _energy_sum_wh: float = 0.0
    _start_unix_s: float | None = None
    _last_unix_s: float | None = None
    _samples: list[Sample] = field(default_factory=list)
    _recent: deque[tuple[float, float]] = field(default_factory=deque)
    _surprises: deque[Surprise] = field(default_factory=lambda: deque(maxlen=_MAX_SURPRISES))

    @property
    def limit_kw(self) -> float:
        """Return the contracted mean power."""
        return self.limit_w / 1000.0

    @property
    def limit_wh(self) -> float:
        """Return the energy that an interval may hold."""
        return self.limit_w * self.interval_s / _SECONDS_PER_HOUR

    @property
    def used_ratio(self) -> float:
        """Return the mean share of the contract that was used, over the completed intervals (0 when there is none)."""
        if self.intervals_completed == 0:
            return 0.0
        return self._energy_sum_wh / (self.limit_wh * self.intervals_completed)

    def see(self, flow: CircuitFlow, unix_s: float, dt_s: float) -> None:
        """Take note of one step, cutting it where a clock interval ends inside it."""
        self._look_for_surprise(unix_s - dt_s, flow.base_w)
        here_unix_s = unix_s - dt_s if self._last_unix_s is None else self._last_unix_s
        self._last_unix_s = unix_s
        if self._start_unix_s is None and self._is_edge(here_unix_s):
            self._start_unix_s = here_unix_s
        while here_unix_s < unix_s - _EDGE_S:
            edge_unix_s = self._next_edge(here_unix_s)
            until_unix_s = min(edge_unix_s, unix_s)
            if self._start_unix_s is not None:
                self._samples.append(Sample(dt_s=until_unix_s - here_unix_s, base_w=flow.base_w, power_w=flow.power_w))
            if until_unix_s >= edge_unix_s - _EDGE_S:
                self._complete(edge_unix_s)
            here_unix_s = until_unix_s

    def _next_edge(self, unix_s: float) -> float:
        return (math.floor((unix_s + _EDGE_S) / self.interval_s) + 1) * float(self.interval_s)

    def _is_edge(self, unix_s: float) -> bool:
        return abs(unix_s - round(unix_s / self.interval_s) * self.interval_s) <= _EDGE_S

    def _look_for_surprise(self, unix_s: float, base_w: float) -> None:
        while self._recent and self._recent[0][0] < unix_s - SURPRISE_WINDOW_S - _EDGE_S:
            self._recent.popleft()
        before_w = min((value_w for _, value_w in self._recent), default=base_w)
        if base_w - before_w > SURPRISE_RATIO * self.limit_w:
            self._surprises.append(Surprise(unix_s=unix_s, before_w=before_w))
            self._recent.clear()  # the same rise is not told twice, a further one is
        self._recent.append((unix_s, base_w))

    def _complete(self, end_unix_s: float) -> None:
        if self._start_unix_s is not None:
            self._account(self._start_unix_s)
        self._samples = []
        self._start_unix_s = end_unix_s
        while self._surprises and self._surprises[0].unix_s < end_unix_s - REACTION_S:
            self._surprises.popleft()

    def _account(self, start_unix_s: float) -> None:
        energy_wh = _imported_wh(self._samples)
        self.intervals_completed += 1
        self._energy_sum_wh += energy_wh
        self.worst_interval_kw = max(self.worst_interval_kw, energy_wh * _SECONDS_PER_HOUR / self.interval_s / 1000.0)
        if energy_wh <= self.limit_wh + self.resolution_wh:
            return
        self.overruns += 1
        limit_wh = self.limit_wh + self.resolution_wh
        if was_avoidable(self._samples, list(self._surprises), start_unix_s, self.interval_s, limit_wh):
            self.breaches += 1


def was_avoidable(
    samples: list[Sample], surprises: list[Surprise], start_unix_s: float, interval_s: float, limit_wh: float
) -> bool:
    """Tell whether an interval over its limit could have been kept, as `ContractVerdict` defines it."""
    for surprise in reversed(surprises):
        into_s = surprise.unix_s - start_unix_s
        if not -REACTION_S < into_s < interval_s:
            continue
        used_wh = _imported_wh(_cut(samples, max(into_s, 0.0))[0])
        left_s = interval_s - max(into_s, 0.0)
        if used_wh + max(surprise.before_w, 0.0) * left_s / _SECONDS_PER_HOUR <= limit_wh:
            return _shed_wh(samples, into_s + REACTION_S) <= limit_wh
    return _shed_wh(samples, 0.0) <= limit_wh


def _shed_wh(samples: list[Sample], into_s: float) -> float:
    """Return the energy of an interval in which every vehicle is shed from `into_s` on."""
    before, after = _cut(samples, into_s)
    base_wh = sum(max(sample.base_w, 0.0) * sample.dt_s for sample in after) / _SECONDS_PER_HOUR
    return _imported_wh(before) + base_wh


def _imported_wh(samples: list[Sample]) -> float:
    return sum(max(sample.power_w, 0.0) * sample.dt_s for sample in samples) / _SECONDS_PER_HOUR


def _cut(samples: list[Sample], into_s: float) -> tuple[list[Sample], list[Sample]]:
    """Return the samples before and after a second of the interval; one that lies across is divided."""
    at_s = 0.0
    for index, sample in enumerate(samples):
        if at_s + sample.dt_s > into_s:
            head_s = max(0.0, into_s - at_s)
            head = Sample(dt_s=head_s, base_w=sample.base_w, power_w=sample.power_w)
            tail = Sample(dt_s=sample.dt_s - head_s, base_w=sample.base_w, power_w=sample.power_w)
            return [*samples[:index], head], [tail, *samples[index + 1 :]]
        at_s += sample.dt_s
    return samples, []


@dataclass(slots=True)
class Judge:
    """Watches a site: give its `watch` to the physics."""

    contracts: tuple[ContractVerdict, ...] = ()
    circuits: dict[str, CircuitVerdict] = field(default_factory=dict)
    steps: int = 0
    _setpoint_faults: int = 0
    _faulty: set[str] = field(default_factory=set)

    def watch(self, moment: Moment) -> None:
        """Take note of one step of the physics."""
        self.steps += 1
        for name, flow in moment.circuits.items():
            if name not in self.circuits:
                self.circuits[name] = CircuitVerdict(id=name, limit_a=flow.limit_a)
            self.circuits[name].see(flow, moment.dt_s)
        for contract in self.contracts:
            contract.see(moment.circuits[contract.circuit], moment.unix_s, moment.dt_s)
        for name, evse in moment.evses.items():
            self._see_evse(name, evse)

    @property
    def violations(self) -> Counter[str]:
        """Return the violations so far by invariant; an invariant that held is there with 0."""
        return Counter(
            {
                "C2": self._setpoint_faults,
                "C3": sum(circuit.overlong for circuit in self.circuits.values()),
                "C11": sum(contract.breaches for contract in self.contracts),
            }
        )

    def _see_evse(self, name: str, evse: EvseFlow) -> None:
        """Count a setpoint or an offer that must not be (C2), once until it is mended."""
        told_a = [evse.offered_a] if evse.setpoint_a is None else [evse.offered_a, evse.setpoint_a]
        wrong = any(0 < value_a < evse.min_a - TOLERANCE_A or value_a > evse.max_a + TOLERANCE_A for value_a in told_a)
        if wrong and name not in self._faulty:
            self._setpoint_faults += 1
        (self._faulty.add if wrong else self._faulty.discard)(name)
