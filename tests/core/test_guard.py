"""Guard: a violation that was planted in a decision is found before it leaves."""

import pytest

from controller.core import decide as pipeline
from controller.core.facts import Facts, gather
from controller.core.guard import inspect, safe_value_a, unfit
from controller.core.model import AlarmCode, Contract, EvseEvidence, Limit, Memory, ReasonCode, Site
from controller.core.shape import Shaped
from tests.core.plaza import charging, circuit, evse, phases, reading, site, snapshot

POWER = Limit(source="transformer", value_w=30_000)
GTV = Contract(id="gtv", circuit="grid", import_w=30_000)


def facts(plan: Site, base_a: float = 20.0, *, measured_v: float | None = 230.0) -> Facts:
    """Two vehicles at 6 A each beside a base load."""
    evidence: dict[str, EvseEvidence] = {unit.id: charging(6.0) for unit in plan.evses}
    meter = reading(base_a + 12.0, voltage_v=None if measured_v is None else phases(measured_v))
    return gather(snapshot(plan, evidence, {"grid": meter}), Memory())


def two(*circuits: object, contracts: tuple[Contract, ...] = ()) -> Site:
    nodes = [node for node in circuits if isinstance(node, type(circuit()))] or [circuit(limit_a=60.0)]
    inside = nodes[-1].id
    return site([evse("e1", circuit=inside), evse("e2", circuit=inside)], *nodes, contracts=contracts)


@pytest.mark.parametrize("value_a", [0, 6, 20, 32])
def test_what_a_pilot_can_offer_passes(value_a: float) -> None:
    assert inspect(facts(two()), {0: value_a}) == []


@pytest.mark.parametrize("value_a", [-1, 0.1, 5.9, 32.1])
def test_a_setpoint_that_is_neither_0_nor_within_bounds_is_found(value_a: float) -> None:
    (finding,) = inspect(facts(two()), {0: value_a})
    assert (finding.invariant, finding.subject) == ("C2", "e1")
    assert f"{value_a:g} A" in finding.text


@pytest.mark.parametrize(
    ("values_a", "found"),
    [
        ({0: 20, 1: 20}, 0),  # 20 + 20 + 20 A fill the 60 A
        ({0: 20.5, 1: 20}, 3),  # every phase of it
        ({0: 32}, 0),  # 20 + 32 + 6 A
        ({0: 32, 1: 9}, 3),
        ({}, 0),
    ],
)
def test_a_raise_that_does_not_fit_at_worst_is_found_on_every_phase(values_a: dict[int, float], found: int) -> None:
    findings = inspect(facts(two()), values_a)
    assert [(finding.invariant, finding.subject) for finding in findings] == [("C1", "grid")] * found


def test_a_raise_counts_beside_what_the_others_are_committed_to_not_beside_what_they_are_told() -> None:
    assert len(inspect(facts(two(), base_a=30.0), {0: 30, 1: 0})) == 3  # the other may still draw its 6 A


def test_a_decrease_is_never_held_up() -> None:
    overloaded = facts(two(), base_a=80.0)
    assert inspect(overloaded, {0: 0, 1: 6}) == []


def test_an_overload_on_another_phase_is_no_reason_to_hold_a_raise_up() -> None:
    """Else one phase that the building overloads would send the whole site to its fallbacks."""
    plan = site([evse("e1", phases=(0,)), evse("e2", phases=(2,))], circuit(limit_a=60.0))
    evidence = {"e1": charging(6.0, (6.0, 0.0, 0.0)), "e2": charging(6.0, (0.0, 0.0, 6.0))}
    seen = gather(snapshot(plan, evidence, {"grid": reading((26.0, 20.0, 76.0))}), Memory())
    assert inspect(seen, {0: 20, 1: 0}) == []
    assert [finding.text for finding in inspect(seen, {0: 20, 1: 7})] == ["L3 could carry 77.0 A of 60.0 A"]


def test_a_raise_is_checked_on_every_circuit_above_it() -> None:
    plan = two(circuit("grid", 60.0), circuit("hall", 200.0, parent="grid", metered=False))
    assert {finding.subject for finding in inspect(facts(plan), {0: 32, 1: 9})} == {"grid"}


@pytest.mark.parametrize("plan", [two(circuit(limits=(POWER,))), two(contracts=(GTV,))], ids=["equipment", "contract"])
def test_a_raise_beyond_a_power_limit_is_found(plan: Site) -> None:
    # 20 A of base load is 13.8 kW; 2 x 11 A are 15.2 kW more, 2 x 12 A are 16.6 kW more.
    assert inspect(facts(plan), {0: 11, 1: 11}) == []
    (finding,) = inspect(facts(plan), {0: 13, 1: 12})
    assert (finding.invariant, finding.subject) == ("C1", "grid")
    assert "kW" in finding.text


def test_power_is_reckoned_at_the_highest_voltage_where_none_is_measured() -> None:
    plan = two(circuit(limits=(POWER,)))
    assert inspect(facts(plan), {0: 12, 1: 11}) == []
    assert inspect(facts(plan, measured_v=None), {0: 12, 1: 11})
    inside = two(circuit(limits=(POWER,)), circuit("hall", 200.0, parent="grid", metered=False))
    assert inspect(facts(inside), {0: 11, 1: 11}) == []  # the hall has the grid connection's voltage


@pytest.mark.parametrize(
    ("setpoint_a", "committed_a", "value_a"),
    [(16, 20, 16), (16, 16, 16), (16, 10, 6), (16, 0, 0), (3, 20, 6), (3, 5, 0), (40, 40, 6)],
)
def test_the_safe_value_raises_nothing(setpoint_a: float, committed_a: float, value_a: float) -> None:
    assert safe_value_a(evse("a", fallback_a=6.0), setpoint_a, committed_a) == value_a


def test_where_even_the_lowest_does_not_fit_it_is_said_once_per_circuit() -> None:
    (finding,) = unfit(facts(two(), base_a=50.0), [6.0, 6.0])
    assert (finding.subject, finding.text) == (
        "grid",
        "L1 carries 62.0 A of 60.0 A with everything at its lowest",
    )
    assert unfit(facts(two(), base_a=48.0), [6.0, 6.0]) == []


def test_a_power_limit_that_cannot_be_kept_is_said_too() -> None:
    plan = two(circuit(limits=(Limit(source="fuse", value_a=phases(100)), POWER)))
    (finding,) = unfit(facts(plan, base_a=40.0), [6.0, 6.0])
    assert finding.text == "carries 35.9 kW of 30.0 kW with everything at its lowest"
    assert unfit(facts(plan, base_a=31.0), [6.0, 6.0]) == []


def test_a_decision_with_a_planted_violation_is_replaced_by_safe_currents(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = site([evse("e1", fallback_a=6.0), evse("e2")], circuit(limit_a=60.0))
    evidence = {"e1": charging(8.0), "e2": charging(8.0)}
    moment = snapshot(plan, evidence, {"grid": reading(36.0)})
    monkeypatch.setattr(pipeline, "shape", lambda *_: [Shaped(value_a=32.0), Shaped(value_a=32.0)])
    decision, _ = pipeline.decide(moment, Memory())
    assert {name: setpoint.value_a for name, setpoint in decision.setpoints.items()} == {"e1": 8, "e2": 8}
    assert {setpoint.reason.code for setpoint in decision.setpoints.values()} == {ReasonCode.GUARD}
    assert {alarm.code for alarm in decision.alarms} == {AlarmCode.GUARD}
    assert any("C1: L1 could carry 84.0 A of 60.0 A" in alarm.text for alarm in decision.alarms)
