"""A plaza without wires, for tests of the core: vehicles follow setpoints, a meter adds up, evidence is as real drivers give it.

It is deliberately smaller than `simulators/`: one second a step, no sockets, and its own arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from controller.core.decide import decide
from controller.core.electrical import Phases
from controller.core.model import (
    Circuit,
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


def circuit(name: str = "grid", limit_a: float | Phases = 100.0, **options: object) -> Circuit:
    phases = limit_a if isinstance(limit_a, tuple) else (limit_a, limit_a, limit_a)
    defaults: dict[str, object] = {"metered": True, "limits": (Limit(source=f"{name} fuse", value_a=phases),)}
    return Circuit(id=name, **{**defaults, **options})  # type: ignore[arg-type]


def evse(name: str, **options: object) -> Evse:
    defaults: dict[str, object] = {"station": name, "circuit": "grid", "trust": Trust.LEASE}
    return Evse(id=name, **{**defaults, **options})  # type: ignore[arg-type]


def site(evses: list[Evse], *circuits: Circuit, contracts: tuple[Contract, ...] = (), **policy: float) -> Site:
    return Site(
        circuits=circuits or (circuit(),), evses=tuple(evses), contracts=contracts, policy=Policy(**policy)  # type: ignore[arg-type]
    )


def charging(setpoint_a: float, measured_a: float | None = None, **options: object) -> EvseEvidence:
    """An EVSE with a transaction that holds a confirmed setpoint and draws it on three phases."""
    draw_a = setpoint_a if measured_a is None else measured_a
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
        "measured_a": (draw_a, draw_a, draw_a),
        "measured_at_s": 1000.0,
    }
    return EvseEvidence(**{**defaults, **options})  # type: ignore[arg-type]


def reading(current_a: float | Phases, at_s: float = 1000.0, **options: object) -> MeterReading:
    phases = current_a if isinstance(current_a, tuple) else (current_a, current_a, current_a)
    defaults: dict[str, object] = {
        "sampled_at_s": at_s,
        "sample": round(at_s),
        "period_s": 1.0,
        "voltage_v": (VOLTS, VOLTS, VOLTS),
        "power_w": sum(phases) * VOLTS,
    }
    return MeterReading(current_a=phases, **{**defaults, **options})  # type: ignore[arg-type]


def snapshot(
    plan: Site,
    evses: dict[str, EvseEvidence],
    meters: dict[str, MeterReading],
    *,
    now_s: float = 1000.0,
    unix_s: float = 1_800_000_000.0,
    synchronised: bool = True,
) -> Snapshot:
    return Snapshot(
        now_s=now_s,
        unix_s=unix_s,
        clock_synchronised=synchronised,
        started_at_s=0.0,
        site=plan,
        meters=meters,
        evses=evses,
    )


@dataclass
class Car:
    """A vehicle that follows what it is offered with 1 s of delay and 8 A/s, up to `wants_a`, on its phases."""

    wants_a: float = 32.0
    phases: tuple[int, ...] = (0, 1, 2)
    draw_a: float = 0.0
    sampled_at_s: float = -1e9
    offered: list[tuple[float, float]] = field(default_factory=list)

    def step(self, now_s: float) -> None:
        offered_a = next((a for at_s, a in reversed(self.offered) if at_s <= now_s - 1.0), 0.0)
        target_a = min(offered_a, self.wants_a) if offered_a >= 6.0 else 0.0
        self.draw_a += max(-12.0, min(8.0, target_a - self.draw_a))


class Plaza:
    """Runs decide once a second against vehicles and a meter, and keeps what happened."""

    def __init__(
        self,
        plan: Site,
        cars: dict[str, Car],
        base_a: Callable[[float], Phases],
        *,
        sample_every_s: float = 10.0,
        start_unix_s: float = 1_800_000_000.0,
    ) -> None:
        self.plan, self.cars, self.base_a, self.sample_every_s = plan, cars, base_a, sample_every_s
        self.now_s, self.start_unix_s = 1000.0, start_unix_s
        self.memory = Memory()
        self.import_wh = 5_000.0
        self.sample = 0
        self.decisions: list[Decision] = []
        self.history_a: list[Phases] = []
        self.evses = {
            e.id: charging(e.fallback_a, 0.0, measured_at_s=self.now_s, sent_at_s=self.now_s, confirmed_at_s=self.now_s)
            for e in plan.evses
        }

    def load_a(self) -> Phases:
        base = list(self.base_a(self.now_s - 1000.0))
        for car in self.cars.values():
            for phase in car.phases:
                base[phase] += car.draw_a
        return (base[0], base[1], base[2])

    def step(self) -> Decision:
        self.now_s += 1.0
        for car in self.cars.values():
            car.step(self.now_s)
        load = self.load_a()
        self.history_a.append(load)
        self.import_wh += max(0.0, sum(load) * VOLTS) / 3600.0
        self.sample += 1
        meter = reading(load, self.now_s, sample=self.sample, import_wh=self.import_wh, import_step_wh=0.001)
        for index, (name, car) in enumerate(self.cars.items()):
            # Stations report at their own moments, spread over the interval.
            if (self.now_s + index * self.sample_every_s / len(self.cars)) % self.sample_every_s < 1.0:
                draw = [car.draw_a if phase in car.phases else 0.0 for phase in range(3)]
                self.evses[name] = replace(
                    self.evses[name], measured_a=(draw[0], draw[1], draw[2]), measured_at_s=self.now_s
                )
        frozen = snapshot(
            self.plan,
            dict(self.evses),
            {"grid": meter},
            now_s=self.now_s,
            unix_s=self.start_unix_s + self.now_s - 1000.0,
        )
        decision, self.memory = decide(frozen, self.memory)
        self.decisions.append(decision)
        self.carry_out(decision)
        return decision

    def carry_out(self, decision: Decision) -> None:
        for name, setpoint in decision.setpoints.items():
            if setpoint.controllable and setpoint.value_a != self.evses[name].sent_a:
                self.cars[name].offered.append((self.now_s, setpoint.value_a))
                self.evses[name] = replace(
                    self.evses[name],
                    sent_a=setpoint.value_a,
                    sent_at_s=self.now_s,
                    confirmed_a=setpoint.value_a,
                    confirmed_at_s=self.now_s,
                )

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.step()

    def setpoints_a(self) -> dict[str, float]:
        return {name: setpoint.value_a for name, setpoint in self.decisions[-1].setpoints.items()}
