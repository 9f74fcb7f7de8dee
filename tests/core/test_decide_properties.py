"""What must be true of every decision, on any site, with any evidence and meters of any age."""

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

import pytest
from hypothesis import HealthCheck, given, settings

from controller.core.decide import decide
from controller.core.failsafe import failsafe
from controller.core.model import AlarmCode, Decision, Memory, MeterQuality, Site, Snapshot
from controller.core.worst_case import deal_fallbacks, worst_cases
from tests.core.sites import histories, sites

ROUNDING_A = 1e-6
bounded = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decisions(history: list[Snapshot]) -> Iterator[tuple[Snapshot, Decision]]:
    memory = Memory()
    for moment in history:
        decision, memory = decide(moment, memory)
        yield moment, decision


def below(moment: Snapshot, circuit: str) -> list[str]:
    """Return the EVSEs under a circuit, by walking up from each."""
    parents = {node.id: node.parent for node in moment.site.circuits}
    found = []
    for unit in moment.site.evses:
        here: str | None = unit.circuit
        while here is not None and here != circuit:
            here = parents[here]
        found += [unit.id] if here == circuit else []
    return found


def sum_a(moment: Snapshot, amperes: dict[str, float], phase: int) -> float:
    return sum(amperes[unit.id] for unit in moment.site.evses if unit.id in amperes and phase in unit.phases)


def no_increase_leaves_unless_the_worst_case_with_it_fits(moment: Snapshot, decision: Decision) -> None:
    """Invariant C1, its second half."""
    for name, state in decision.circuits.items():
        under = {evse: decision.setpoints[evse] for evse in below(moment, name)}
        raised = [p for p in under.values() if p.controllable and p.value_a > p.committed_a + ROUNDING_A]
        worst = {n: max(p.committed_a, p.value_a if p.controllable else 0.0) for n, p in under.items()}
        for phase in range(3):
            load_a = state.base_a[phase] + sum_a(moment, worst, phase)
            on_it = [p for p in raised if phase in next(u.phases for u in moment.site.evses if u.id == p.evse)]
            assert not on_it or load_a <= state.limit_a[phase] + ROUNDING_A
        if raised and state.limit_w is not None:
            assert state.base_w + state.committed_w <= state.limit_w + 1e-3
            assert state.headroom_w == pytest.approx(state.limit_w - state.base_w - state.committed_w)


def setpoints_fit_or_everything_there_is_at_its_lowest(moment: Snapshot, decision: Decision) -> None:
    """Invariant C1, its first half: sufficient decreases leave in the same cycle."""
    units = {unit.id: unit for unit in moment.site.evses}
    for name, state in decision.circuits.items():
        under = {evse: decision.setpoints[evse] for evse in below(moment, name)}
        decided = {n: p.value_a if p.controllable else p.committed_a for n, p in under.items()}
        for phase in range(3):
            if state.base_a[phase] + sum_a(moment, decided, phase) <= state.limit_a[phase] + ROUNDING_A:
                continue
            for evse, setpoint in under.items():
                if setpoint.controllable and phase in units[evse].phases:
                    lowest_a = {0.0, units[evse].min_a} if units[evse].never_zero else {0.0}
                    assert setpoint.value_a in lowest_a


def every_setpoint_can_be_offered(moment: Snapshot, decision: Decision) -> None:
    """Invariant C2."""
    for unit in moment.site.evses:
        setpoint = decision.setpoints[unit.id]
        if setpoint.controllable:
            assert setpoint.value_a == 0 or unit.min_a <= setpoint.value_a <= unit.max_a


def a_meter_that_is_not_fresh_raises_nothing_below_it(moment: Snapshot, decision: Decision) -> None:
    """Invariant C4."""
    stale = {MeterQuality.FROZEN, MeterQuality.STALE, MeterQuality.LOST}
    for name, state in decision.circuits.items():
        if state.quality in stale:
            for evse in below(moment, name):
                setpoint = decision.setpoints[evse]
                assert setpoint.value_a <= setpoint.committed_a + ROUNDING_A


def numbers(decision: Decision) -> Iterator[float]:
    for setpoint in decision.setpoints.values():
        yield from (setpoint.value_a, setpoint.fallback_a, setpoint.committed_a, setpoint.lease_s)
        yield from (rung.value for rung in (setpoint.reason, *setpoint.ladder) if rung.value is not None)
    for state in decision.circuits.values():
        yield from (*state.base_a, *state.committed_a, state.base_w, state.committed_w)
        yield from (value for value in (state.limit_w, state.headroom_w) if value is not None)
        yield from (left for left, limit in zip(state.headroom_a, state.limit_a, strict=True) if isfinite(limit))
    for contract in decision.contracts.values():
        yield from (contract.allowed_w, contract.used_wh, contract.remaining_s)


def every_setpoint_has_a_reason_and_all_numbers_are_finite(moment: Snapshot, decision: Decision) -> None:
    """Invariant C8."""
    assert set(decision.setpoints) == {unit.id for unit in moment.site.evses}
    for setpoint in decision.setpoints.values():
        values = [rung.value for rung in setpoint.ladder]
        assert values == sorted(value for value in values if value is not None)
        assert bool(values) == setpoint.controllable
    assert all(isfinite(value) for value in numbers(decision))


def the_guard_finds_nothing(_: Snapshot, decision: Decision) -> None:
    assert AlarmCode.GUARD not in {alarm.code for alarm in decision.alarms}


def the_last_resort_raises_nothing(moment: Snapshot, _: Decision) -> None:
    for unit in moment.site.evses:
        setpoint = failsafe(moment, "planted").setpoints[unit.id]
        assert setpoint.value_a <= unit.fallback_a
        known = moment.evses.get(unit.id)
        assert known is None or known.sent_a is None or setpoint.value_a <= known.sent_a


INVARIANTS = (
    no_increase_leaves_unless_the_worst_case_with_it_fits,
    setpoints_fit_or_everything_there_is_at_its_lowest,
    every_setpoint_can_be_offered,
    a_meter_that_is_not_fresh_raises_nothing_below_it,
    every_setpoint_has_a_reason_and_all_numbers_are_finite,
    the_guard_finds_nothing,
    the_last_resort_raises_nothing,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(histories())
def test_every_decision_keeps_the_invariants(history: list[Snapshot]) -> None:
    for moment, decision in decisions(history):
        for holds in INVARIANTS:
            holds(moment, decision)


@bounded
@given(histories())
def test_the_same_input_gives_the_same_output(history: list[Snapshot]) -> None:
    memory = Memory()
    for moment in history:
        first = decide(moment, memory)
        assert decide(moment, memory) == first
        memory = first[1]


@bounded
@given(histories())
def test_the_order_of_evses_in_the_site_does_not_matter(history: list[Snapshot]) -> None:
    turned = [replace(m, site=replace(m.site, evses=tuple(reversed(m.site.evses)))) for m in history]
    for (_, straight), (_, other) in zip(decisions(history), decisions(turned), strict=True):
        for name, setpoint in straight.setpoints.items():
            assert other.setpoints[name].value_a == setpoint.value_a
            assert other.setpoints[name].committed_a == setpoint.committed_a
            assert other.setpoints[name].reason.code is setpoint.reason.code


@settings(max_examples=60, deadline=None)
@given(sites())
def test_dealt_fallbacks_fit_unless_something_must_not_be_paused_or_is_not_proven(plan: Site) -> None:
    dealt = deal_fallbacks(plan.circuits, plan.evses)
    nothing = replace(plan, evses=tuple(replace(unit, fallback_a=0.0) for unit in dealt))
    for case, least in zip(worst_cases(replace(plan, evses=dealt)), worst_cases(nothing), strict=True):
        kept = [unit for unit in dealt if unit.never_zero]
        assert case.fits or not least.fits or kept
        assert all(unit.fallback_a in (0, unit.min_a) for unit in dealt)
        assert all(unit.fallback_a == unit.min_a for unit in kept)
