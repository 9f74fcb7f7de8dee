"""A plaza without wires, for tests of the core: vehicles follow setpoints, a meter adds up, stations tell of both.

It is deliberately smaller than `simulators/`: one second a step, no sockets, and its own arithmetic.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from controller.core.decide import decide
from controller.core.electrical import Phases
from controller.core.model import (
    Circuit,
    CircuitState,
    Contract,
    Decision,
    Evse,
    EvseEvidence,
    EvseState,
    Limit,
    Memory,
    MeterReading,
    Policy,
    Site,
    Snapshot,
    Trust,
)

VOLTS = 230.0
START_S = 1000.0
QUARTER_UNIX_S = 1_800_000_000.0  # a clock quarter-hour begins here


def phases(value_a: float | Phases) -> Phases:
    return value_a if isinstance(value_a, tuple) else (value_a, value_a, value_a)


def circuit(name: str = "grid", limit_a: float | Phases = 100.0, **options: object) -> Circuit:
    limits = (Limit(source=f"{name} fuse", value_a=phases(limit_a)),)
    defaults: dict[str, object] = {"metered": True, "limits": limits}
    return Circuit(id=name, **{**defaults, **options})  # type: ignore[arg-type]  # defaults and options know no types


def evse(name: str, **options: object) -> Evse:
    defaults: dict[str, object] = {"station": name, "circuit": "grid", "trust": Trust.LEASE}
    return Evse(id=name, **{**defaults, **options})  # type: ignore[arg-type]


def site(
    evses: Sequence[Evse], *circuits: Circuit, contracts: tuple[Contract, ...] = (), policy: Policy | None = None
) -> Site:
    return Site(circuits=circuits or (circuit(),), evses=tuple(evses), contracts=contracts, policy=policy or Policy())


def charging(setpoint_a: float, measured_a: float | Phases | None = None, **options: object) -> EvseEvidence:
    """An EVSE with a transaction that holds a confirmed setpoint and draws it on three phases."""
    defaults: dict[str, object] = {
        "online": True,
        "verified": True,
        "state": EvseState.CHARGING,
        "transaction": "tx",
        "transaction_since_s": 0.0,
        "sent_a": setpoint_a,
        "sent_at_s": 0.0,
        "confirmed_a": setpoint_a,
        "confirmed_at_s": 0.0,
        "measured_a": phases(setpoint_a if measured_a is None else measured_a),
        "measured_at_s": START_S,
    }
    return EvseEvidence(**{**defaults, **options})  # type: ignore[arg-type]


def vacant(**options: object) -> EvseEvidence:
    """An EVSE that answers, with no vehicle."""
    defaults: dict[str, object] = {"online": True, "verified": True, "state": EvseState.AVAILABLE}
    return EvseEvidence(**{**defaults, **options})  # type: ignore[arg-type]


def reading(current_a: float | Phases, at_s: float = START_S, **options: object) -> MeterReading:
    current = phases(current_a)
    defaults: dict[str, object] = {
        "sampled_at_s": at_s,
        "sample": round(at_s),
        "period_s": 1.0,
        "voltage_v": (VOLTS, VOLTS, VOLTS),
        "power_w": sum(current) * VOLTS,
    }
    return MeterReading(current_a=current, **{**defaults, **options})  # type: ignore[arg-type]


def snapshot(
    plan: Site,
    evses: Mapping[str, EvseEvidence] | None = None,
    meters: Mapping[str, MeterReading] | None = None,
    *,
    now_s: float = START_S,
    unix_s: float = QUARTER_UNIX_S,
    synchronised: bool = True,
) -> Snapshot:
    return Snapshot(
        now_s=now_s,
        unix_s=unix_s,
        clock_synchronised=synchronised,
        started_at_s=0.0,
        site=plan,
        meters=meters or {},
        evses=evses or {},
    )


@dataclass
class Car:
    """A vehicle that follows what it is offered after 1 s, up 8 A/s and down 12 A/s, to `wants_a`, on its phases."""

    wants_a: float = 32.0
    phases: tuple[int, ...] = (0, 1, 2)
    draw_a: float = 0.0
    offered: list[tuple[float, float]] = field(default_factory=list)

    def step(self, now_s: float) -> None:
        offered_a = next((a for at_s, a in reversed(self.offered) if at_s <= now_s - 1.0), 0.0)
        target_a = min(offered_a, self.wants_a) if offered_a >= 6.0 else 0.0
        self.draw_a += max(-12.0, min(8.0, target_a - self.draw_a))

    def on_phases(self) -> Phases:
        l1, l2, l3 = (self.draw_a if phase in self.phases else 0.0 for phase in range(3))
        return (l1, l2, l3)


class Plaza:
    """Runs decide once a second against vehicles and a meter, and keeps what happened.

    `base_a` gives the building's load by the seconds since the start. Set `meter_frozen` to lose the meter, and put
    names in `silent` (answers nothing) or `unmetered` (sends no samples) to lose stations.
    """

    def __init__(
        self,
        plan: Site,
        cars: Mapping[str, Car],
        base_a: Callable[[float], float | Phases],
        *,
        start_unix_s: float = QUARTER_UNIX_S,
    ) -> None:
        self.plan, self.cars, self.base_a = plan, cars, base_a
        self.now_s, self.start_unix_s = START_S, start_unix_s
        self.memory = Memory()
        self.import_wh = 5_000.0
        self.sample = 0
        self.meter: MeterReading | None = None
        self.meter_frozen = False
        self.silent: set[str] = set()
        self.unmetered: set[str] = set()
        self.decisions: list[Decision] = []
        self.loads_a: list[Phases] = []
        self.writes: dict[str, int] = dict.fromkeys(cars, 0)
        self.evses = {
            e.id: charging(e.fallback_a, 0.0, measured_at_s=self.now_s, sent_at_s=self.now_s, confirmed_at_s=self.now_s)
            for e in plan.evses
        }

    @property
    def elapsed_s(self) -> float:
        return self.now_s - START_S

    @property
    def grid(self) -> CircuitState:
        """The grid connection as last decided."""
        return self.decisions[-1].circuits["grid"]

    def load_a(self) -> Phases:
        base, drawn = phases(self.base_a(self.elapsed_s)), [car.on_phases() for car in self.cars.values()]
        l1, l2, l3 = (base[phase] + sum(draw[phase] for draw in drawn) for phase in range(3))
        return (l1, l2, l3)

    def step(self) -> Decision:
        self.now_s += 1.0
        for car in self.cars.values():
            car.step(self.now_s)
        self._measure()
        frozen = snapshot(
            self.plan,
            dict(self.evses),
            {} if self.meter is None else {"grid": self.meter},
            now_s=self.now_s,
            unix_s=self.start_unix_s + self.elapsed_s,
        )
        decision, self.memory = decide(frozen, self.memory)
        self.decisions.append(decision)
        self._carry_out(decision)
        return decision

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step()

    def setpoints_a(self) -> dict[str, float]:
        return {name: setpoint.value_a for name, setpoint in self.decisions[-1].setpoints.items()}

    def _measure(self) -> None:
        load, interval_s = self.load_a(), self.plan.policy.sample_interval_s
        self.loads_a.append(load)
        self.import_wh += max(0.0, sum(load) * VOLTS) / 3600.0
        if not self.meter_frozen:
            self.sample += 1
            self.meter = reading(load, self.now_s, sample=self.sample, import_wh=self.import_wh, import_step_wh=0.001)
        for index, (name, car) in enumerate(self.cars.items()):
            # Stations report at their own moments, spread over the interval.
            if name in self.unmetered or (self.now_s + index * interval_s / len(self.cars)) % interval_s >= 1.0:
                continue
            self.evses[name] = replace(self.evses[name], measured_a=car.on_phases(), measured_at_s=self.now_s)

    def _carry_out(self, decision: Decision) -> None:
        for name, setpoint in decision.setpoints.items():
            evidence = self.evses[name]
            if not setpoint.controllable or setpoint.value_a == evidence.sent_a:
                continue
            self.writes[name] += 1
            if name in self.silent:
                self.evses[name] = replace(evidence, sent_a=setpoint.value_a, sent_at_s=self.now_s, in_flight=True)
                continue
            self.cars[name].offered.append((self.now_s, setpoint.value_a))
            self.evses[name] = replace(
                evidence,
                sent_a=setpoint.value_a,
                sent_at_s=self.now_s,
                confirmed_a=setpoint.value_a,
                confirmed_at_s=self.now_s,
            )
