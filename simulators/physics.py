"""Site physics: what really flows in every circuit, ten times a second, whatever the controller believes.

Knows a tree of circuits with EVSEs, buildings and PV hanging at them, and sums currents phase by phase. Does not care
about protocols: an EVSE is whatever can tell its draw. Import is positive, export negative.
Currents are in site phases.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from controller.core.electrical import NOMINAL_V, ZERO, Phases
from controller.ports import Clock
from simulators.meter import MeterValues

STEP_S: Final = 0.1
"""The physics never takes a longer step than this."""
_SECONDS_PER_HOUR: Final = 3600.0
_MAX_DEPTH: Final = 64
_STEPS_AT_ONCE: Final = 50
_FREQUENCY_HZ: Final = 50.0
_ROUNDING_S: Final = 1e-7


class Plug(Protocol):
    """An EVSE as the physics meets it."""

    @property
    def id(self) -> str:
        """Its name."""

    def step(self, dt_s: float, voltage_v: float) -> None:
        """Let it and its vehicle live for a moment."""

    def draw_a(self) -> Phases:
        """Return what it draws on its own terminals."""

    def offered_a(self) -> float:
        """Return what its control pilot offers now."""

    def setpoint_a(self) -> float | None:
        """Return the limit it was told, before it makes an offer of it; None when nothing limits it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedEvse:
    """An EVSE at its place: the circuit it hangs at and the site phase behind each of its terminals (rotation)."""

    plug: Plug
    circuit: str
    phases: tuple[int, ...] = (0, 1, 2)
    min_a: float = 6.0
    max_a: float = 32.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalCircuit:
    """A node of the circuit tree.

    `load_a` and `generation_a` give per-phase amperes at a UTC second (both positive numbers). `fed_a` is what vehicles
    of another process draw here, in site phases.
    """

    id: str
    limit_a: Phases
    parent: str | None = None
    load_a: Callable[[float], Phases] | None = None
    generation_a: Callable[[float], Phases] | None = None
    fed_a: Callable[[], Phases] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitFlow:
    """What flowed in one circuit during one step: all of it, and the parts that vehicles and everything else had."""

    limit_a: Phases
    current_a: Phases
    base_a: Phases
    vehicles_a: Phases
    power_w: float
    base_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvseFlow:
    """What one EVSE was told, offered and drew during one step."""

    setpoint_a: float | None
    offered_a: float
    draw_a: Phases
    min_a: float
    max_a: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One step of the physics, over the `dt_s` before `unix_s`."""

    unix_s: float
    dt_s: float
    circuits: Mapping[str, CircuitFlow]
    evses: Mapping[str, EvseFlow]


@dataclass(slots=True)
class _Registers:
    import_wh: float = 0.0
    export_wh: float = 0.0


@dataclass(slots=True)
class SitePhysics:
    """The flows of a whole site. Whoever must see every step (the judge) is one of its `watchers`.

    `source_ohm` lets the voltage sag by what the grid connection carries.
    """

    circuits: tuple[PhysicalCircuit, ...]
    evses: tuple[PlacedEvse, ...] = ()
    unix_s: float = 0.0
    source_ohm: float = 0.01
    watchers: list[Callable[[Moment], None]] = field(default_factory=list)
    delivered_wh: float = 0.0
    _ancestry: dict[str, tuple[str, ...]] = field(init=False)
    _flows: dict[str, CircuitFlow] = field(init=False)
    _registers: dict[str, _Registers] = field(init=False)
    _voltage_v: Phases = field(init=False, default=(NOMINAL_V, NOMINAL_V, NOMINAL_V))

    def __post_init__(self) -> None:
        self._ancestry = _ancestry(self.circuits)
        for evse in self.evses:
            if evse.circuit not in self._ancestry:
                raise ValueError(f"EVSE {evse.plug.id!r}: circuit {evse.circuit!r} does not exist")
        self._registers = {circuit.id: _Registers() for circuit in self.circuits}
        self._flows = {circuit.id: _still(circuit) for circuit in self.circuits}

    @property
    def delivered_kwh(self) -> float:
        """Return the energy that vehicles took since the start (those of other processes included)."""
        return self.delivered_wh / 1000.0

    def step(self, dt_s: float) -> None:
        """Move on by `dt_s`, in steps of at most `STEP_S`."""
        while dt_s > _ROUNDING_S:
            part_s = min(dt_s, STEP_S)
            self._step(part_s)
            dt_s -= part_s

    def flow(self, circuit: str) -> CircuitFlow:
        """Return what flows in a circuit now. Raises KeyError when there is no such circuit."""
        return self._flows[circuit]

    def meter_values(self, circuit: str) -> MeterValues:
        """Return what a meter in a circuit shows now. Raises KeyError when there is no such circuit."""
        flow, registers = self._flows[circuit], self._registers[circuit]
        return MeterValues(
            current_a=flow.current_a,
            voltage_v=self._voltage_v,
            power_w=_each(flow.current_a, self._voltage_v),
            import_wh=registers.import_wh,
            export_wh=registers.export_wh,
            frequency_hz=_FREQUENCY_HZ,
        )

    async def run(self, clock: Clock) -> None:
        """Tick until cancelled. A late tick is made up for in full, step by step: no time is lost or invented."""
        started_unix_s, started_s = clock.unix_s(), clock.now_s()
        self.unix_s, done_s = started_unix_s, started_s
        while True:
            behind = int((clock.now_s() - done_s + _ROUNDING_S) / STEP_S)
            for _ in range(min(behind, _STEPS_AT_ONCE)):
                self._step(STEP_S)
                done_s += STEP_S
                self.unix_s = started_unix_s + (done_s - started_s)  # tenths added to UTC would drift
            await asyncio.sleep(0 if behind > _STEPS_AT_ONCE else max(0.0, done_s + STEP_S - clock.now_s()))

    def _step(self, dt_s: float) -> None:
        self.unix_s += dt_s
        self._sag()
        vehicles_a = {circuit.id: ZERO for circuit in self.circuits}
        evses: dict[str, EvseFlow] = {}
        for placed in self.evses:
            terminal_v = self._voltage_v[placed.phases[0]]
            placed.plug.step(dt_s, terminal_v)
            drawn_a = rotate(placed.plug.draw_a(), placed.phases)
            self._spread(vehicles_a, placed.circuit, drawn_a)
            evses[placed.plug.id] = _evse_flow(placed, drawn_a)
        base_a = {circuit.id: ZERO for circuit in self.circuits}
        for circuit in self.circuits:
            self._spread(base_a, circuit.id, _base_a(circuit, self.unix_s))
            if circuit.fed_a is not None:
                self._spread(vehicles_a, circuit.id, circuit.fed_a())
        for circuit in self.circuits:
            self._flows[circuit.id] = self._flow(circuit, base_a[circuit.id], vehicles_a[circuit.id], dt_s)
        for flow in self._roots():
            self.delivered_wh += (flow.power_w - flow.base_w) * dt_s / _SECONDS_PER_HOUR
        moment = Moment(unix_s=self.unix_s, dt_s=dt_s, circuits=dict(self._flows), evses=evses)
        for watch in self.watchers:
            watch(moment)

    def _spread(self, totals_a: dict[str, Phases], circuit: str, value_a: Phases) -> None:
        for name in self._ancestry[circuit]:
            totals_a[name] = sum_of(totals_a[name], value_a)

    def _flow(self, circuit: PhysicalCircuit, base_a: Phases, vehicles_a: Phases, dt_s: float) -> CircuitFlow:
        current_a = sum_of(base_a, vehicles_a)
        power_w, base_w = sum(_each(current_a, self._voltage_v)), sum(_each(base_a, self._voltage_v))
        registers = self._registers[circuit.id]
        # Phases are netted instant by instant: one register moves at a time.
        registers.import_wh += max(power_w, 0.0) * dt_s / _SECONDS_PER_HOUR
        registers.export_wh += max(-power_w, 0.0) * dt_s / _SECONDS_PER_HOUR
        return CircuitFlow(
            limit_a=circuit.limit_a,
            current_a=current_a,
            base_a=base_a,
            vehicles_a=vehicles_a,
            power_w=power_w,
            base_w=base_w,
        )

    def _roots(self) -> list[CircuitFlow]:
        return [self._flows[circuit.id] for circuit in self.circuits if circuit.parent is None]

    def _sag(self) -> None:
        """Let the voltage follow what the grid connections carried a step ago."""
        one, two, three = (
            NOMINAL_V - self.source_ohm * sum(flow.current_a[phase] for flow in self._roots()) for phase in range(3)
        )
        self._voltage_v = (one, two, three)


def sum_of(left_a: Phases, right_a: Phases) -> Phases:
    """Return the sum, phase by phase."""
    return (left_a[0] + right_a[0], left_a[1] + right_a[1], left_a[2] + right_a[2])


def rotate(terminals_a: Phases, phases: tuple[int, ...]) -> Phases:
    """Return terminal currents as currents of the site's phases: terminal k is wired to site phase `phases[k]`."""
    site_a = [0.0, 0.0, 0.0]
    for value_a, phase in zip(terminals_a, phases, strict=False):
        site_a[phase] += value_a
    return (site_a[0], site_a[1], site_a[2])


def _ancestry(circuits: Iterable[PhysicalCircuit]) -> dict[str, tuple[str, ...]]:
    """Return for each circuit itself and everything above it. Raises ValueError for a tree that is none."""
    parents = {circuit.id: circuit.parent for circuit in circuits}
    found: dict[str, tuple[str, ...]] = {}
    for name in parents:
        path: list[str] = []
        here: str | None = name
        while here is not None:
            if here not in parents:
                raise ValueError(f"circuit {path[-1]!r}: parent {here!r} does not exist")
            if here in path or len(path) >= _MAX_DEPTH:
                raise ValueError(f"circuit {name!r} is its own ancestor, or too deep")
            path.append(here)
            here = parents[here]
        found[name] = tuple(path)
    return found


def _base_a(circuit: PhysicalCircuit, unix_s: float) -> Phases:
    load_a = circuit.load_a(unix_s) if circuit.load_a is not None else ZERO
    if circuit.generation_a is None:
        return load_a
    one, two, three = circuit.generation_a(unix_s)
    return (load_a[0] - one, load_a[1] - two, load_a[2] - three)


def _evse_flow(placed: PlacedEvse, drawn_a: Phases) -> EvseFlow:
    return EvseFlow(
        setpoint_a=placed.plug.setpoint_a(),
        offered_a=placed.plug.offered_a(),
        draw_a=drawn_a,
        min_a=placed.min_a,
        max_a=placed.max_a,
    )


def _still(circuit: PhysicalCircuit) -> CircuitFlow:
    return CircuitFlow(limit_a=circuit.limit_a, current_a=ZERO, base_a=ZERO, vehicles_a=ZERO, power_w=0.0, base_w=0.0)


def _each(current_a: Phases, voltage_v: Phases) -> Phases:
    return (current_a[0] * voltage_v[0], current_a[1] * voltage_v[1], current_a[2] * voltage_v[2])
