"""Random sites and what is known of them: trees, phases, evidence, meters of any age."""

from hypothesis import strategies as st

from controller.core.model import (
    Circuit,
    Contract,
    Evse,
    EvseEvidence,
    EvseState,
    Limit,
    MeterReading,
    Policy,
    Site,
    Snapshot,
    Trust,
)
from tests.core.plaza import START_S, VOLTS

ROTATIONS = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0,), (1,), (2,), (0, 1), (1, 2), (2, 0)]
CURRENTS_A = st.sampled_from([-40.0, 0.0, 5.0, 20.0, 40.0, 63.0, 100.0, 140.0]) | st.floats(-50.0, 150.0)
SETPOINTS_A = st.sampled_from([0.0, 6.0, 6.1, 8.0, 10.3, 16.0, 20.0, 32.0])
DRAWN_A = st.sampled_from([0.0, 1.0, 5.9, 6.0, 10.0, 16.0, 20.0, 32.0])


@st.composite
def limits(draw: st.DrawFn, name: str, *, always: bool) -> tuple[Limit, ...]:
    found = []
    if always or draw(st.booleans()):
        amperes = st.sampled_from([16.0, 25.0, 40.0, 63.0, 100.0])
        same = draw(amperes)
        each = (draw(amperes), draw(amperes), draw(amperes)) if draw(st.booleans()) else (same, same, same)
        found.append(Limit(source=f"{name} fuse", value_a=each))
    if draw(st.integers(0, 3)) == 0:
        until_s = draw(st.sampled_from([None, START_S - 1, START_S + 600]))
        found.append(
            Limit(source="signal", value_w=draw(st.floats(0, 60_000)), fallback_w=4_000.0, valid_until_s=until_s)
        )
    return tuple(found)


@st.composite
def circuits(draw: st.DrawFn) -> tuple[Circuit, ...]:
    """A grid connection with up to two levels below it."""
    nodes: list[Circuit] = []
    for number in range(draw(st.integers(1, 4))):
        name = "grid" if number == 0 else f"c{number}"
        parents = [node.id for node in nodes if node.parent in (None, "grid")]
        worst_a = draw(st.sampled_from([0.0, 10.0, 30.0]))
        nodes.append(
            Circuit(
                id=name,
                parent=draw(st.sampled_from(parents)) if parents else None,
                limits=draw(limits(name, always=number == 0)),
                continuous_factor=draw(st.sampled_from([1.0, 0.8])),
                metered=number == 0 or draw(st.booleans()),
                base_worst_a=(worst_a, worst_a, worst_a),
            )
        )
    return tuple(nodes)


@st.composite
def evses(draw: st.DrawFn, nodes: tuple[Circuit, ...]) -> tuple[Evse, ...]:
    found = []
    for number in range(draw(st.integers(1, 6))):
        min_a = draw(st.sampled_from([6.0, 8.0]))
        max_a = draw(st.sampled_from([10.0, 16.0, 32.0]))
        found.append(
            Evse(
                id=f"e{number}",
                station=f"s{number}",
                circuit=draw(st.sampled_from(nodes)).id,
                phases=draw(st.sampled_from(ROTATIONS)),
                min_a=min_a,
                max_a=max_a,
                rated_a=max_a,
                step_a=draw(st.sampled_from([0.1, 1.0])),
                fallback_a=draw(st.sampled_from([0.0, min_a])),
                trust=draw(st.sampled_from(list(Trust))),
                weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
                priority=draw(st.sampled_from([0, 0, 1])),
                never_zero=draw(st.integers(0, 5)) == 0,
            )
        )
    return tuple(found)


@st.composite
def sites(draw: st.DrawFn) -> Site:
    nodes = draw(circuits())
    contract = Contract(id="gtv", circuit="grid", import_w=draw(st.sampled_from([10_000.0, 30_000.0, 60_000.0])))
    return Site(
        circuits=nodes,
        evses=draw(evses(nodes)),
        contracts=(contract,) if draw(st.booleans()) else (),
        policy=Policy(
            min_off_s=draw(st.sampled_from([0.0, 600.0])), raise_interval_s=draw(st.sampled_from([0.0, 10.0]))
        ),
    )


@st.composite
def evidence(draw: st.DrawFn, unit: Evse, now_s: float) -> EvseEvidence:
    sent_a = draw(st.none() | SETPOINTS_A)
    confirmed_a = draw(st.sampled_from([sent_a, sent_a, sent_a, None, 6.0, 16.0]))
    drawn_a = draw(DRAWN_A)
    l1, l2, l3 = (drawn_a if phase in unit.phases else 0.0 for phase in range(3))
    ago_s = st.sampled_from([0.0, 1.0, 5.0, 12.0, 40.0, 700.0])
    measured = draw(st.integers(0, 4)) > 0
    charging = draw(st.integers(0, 3)) > 0
    return EvseEvidence(
        online=draw(st.integers(0, 5)) > 0,
        verified=draw(st.integers(0, 5)) > 0,
        state=EvseState.CHARGING if charging else draw(st.sampled_from(list(EvseState))),
        transaction=draw(st.sampled_from(["tx1", "tx2"])) if charging else None,
        transaction_since_s=now_s - draw(ago_s) if charging else None,
        sent_a=sent_a,
        sent_at_s=None if sent_a is None else now_s - draw(ago_s),
        confirmed_a=confirmed_a,
        confirmed_at_s=None if confirmed_a is None else now_s - draw(ago_s),
        lease_until_s=now_s + draw(st.sampled_from([-20.0, 5.0, 400.0])) if draw(st.booleans()) else None,
        in_flight=draw(st.integers(0, 5)) == 0,
        refused=draw(st.integers(0, 9)) == 0,
        measured_a=(l1, l2, l3) if measured else None,
        measured_at_s=now_s - draw(ago_s) if measured else None,
    )


@st.composite
def readings(draw: st.DrawFn, now_s: float) -> MeterReading:
    current_a = (draw(CURRENTS_A), draw(CURRENTS_A), draw(CURRENTS_A))
    at_s = now_s - draw(st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, 4.0, 12.0, 70.0]))
    register_wh = draw(st.sampled_from([None, 1000.0 + at_s, 5.0]))
    return MeterReading(
        sampled_at_s=at_s,
        sample=round(at_s * 10),
        period_s=draw(st.sampled_from([1.0, 10.0])),
        current_a=current_a,
        power_w=sum(current_a) * VOLTS,
        voltage_v=draw(st.sampled_from([None, (VOLTS, VOLTS, VOLTS), (225.0, 235.0, 241.0)])),
        import_wh=register_wh,
        import_step_wh=draw(st.sampled_from([None, 1.0, 1000.0])),
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """Up to four cycles of one site: setpoints are not obeyed in them, so that every evidence can follow any other."""
    plan, now_s, found = draw(sites()), START_S, []
    started_at_s = draw(st.sampled_from([0.0, START_S - 5]))
    for _ in range(draw(st.integers(1, 4))):
        seen = [unit for unit in plan.evses if draw(st.integers(0, 9)) > 0]
        read = [node for node in plan.circuits if node.metered and draw(st.integers(0, 9)) > 0]
        found.append(
            Snapshot(
                now_s=now_s,
                unix_s=1_800_000_000.0 + now_s,
                clock_synchronised=draw(st.integers(0, 9)) > 0,
                started_at_s=started_at_s,
                site=plan,
                meters={node.id: draw(readings(now_s)) for node in read},
                evses={unit.id: draw(evidence(unit, now_s)) for unit in seen},
            )
        )
        now_s += draw(st.sampled_from([0.2, 1.0, 1.0, 15.0, 900.0]))
    return found
