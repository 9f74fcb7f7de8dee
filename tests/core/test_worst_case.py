"""The worst case: the gateway dead, everybody at the deaf outcome (invariant C1s), and fallbacks dealt to fit it."""

from collections.abc import Sequence

import pytest

from controller.core.failsafe import failsafe
from controller.core.model import AlarmCode, Circuit, Evse, EvseEvidence, ReasonCode, Trust
from controller.core.worst_case import deal_fallbacks, worst_cases
from tests.core.plaza import charging, circuit, evse, phases, site, snapshot

GRID = circuit("grid", 40.0, base_worst_a=phases(22.0))  # room for three minimums


def dealt(evses: Sequence[Evse], *circuits: Circuit) -> list[float]:
    return [unit.fallback_a for unit in deal_fallbacks(circuits or (GRID,), evses)]


@pytest.mark.parametrize(
    ("evses", "fallbacks_a"),
    [
        ([evse("a"), evse("b"), evse("c")], [6, 6, 6]),
        ([evse("a"), evse("b"), evse("c"), evse("d")], [6, 6, 6, 0]),  # as many as fit, in the order given
        ([evse("a"), evse("b"), evse("c"), evse("d", never_zero=True)], [6, 6, 0, 6]),
        ([evse("a"), evse("b"), evse("c"), evse("d", priority=1)], [6, 6, 0, 6]),
        ([evse("a", priority=9), evse("b", never_zero=True, min_a=16.0)], [0, 16]),  # never zero before priority
        ([evse("a", min_a=13.0), evse("b")], [13, 0]),  # 5 A left
        ([evse("a", never_zero=True, min_a=20.0)], [20]),  # in any case; the worst case shows it
        ([evse(name, phases=(0,)) for name in "abcd"] + [evse("e", phases=(1,))], [6, 6, 6, 0, 6]),
        ([evse("a", trust=Trust.NATIVE), evse("b", trust=Trust.LEASE)], [6, 6]),
        # Of class C the rated maximum is reckoned with: its minimum costs nothing more, and leaves others nothing.
        ([evse("a", trust=Trust.NONE, rated_a=16.0), evse("b")], [6, 0]),
        ([evse("a", trust=Trust.NONE, rated_a=12.0), evse("b")], [6, 6]),
    ],
)
def test_fallbacks_are_dealt_to_fit_the_worst_base_load(evses: list[Evse], fallbacks_a: list[float]) -> None:
    assert dealt(evses) == fallbacks_a


def test_fallbacks_fit_every_circuit_on_their_path() -> None:
    halls = [circuit("hall-a", 12.0, parent="grid"), circuit("hall-b", 12.0, parent="grid")]
    units = [evse(f"a{i}", circuit="hall-a") for i in range(3)] + [evse(f"b{i}", circuit="hall-b") for i in range(3)]
    assert dealt(units, GRID, *halls) == [6, 6, 0, 6, 0, 0]  # two in hall-a, and three on the whole connection


def test_a_fallback_that_just_fits_is_dealt() -> None:
    # 57 % of 100 A is 56.99999999999999 A in binary.
    assert dealt([evse("a")], circuit(limit_a=100.0, continuous_factor=0.57, base_worst_a=phases(51.0))) == [6]


def test_the_worst_case_table() -> None:
    plan = site(
        [
            evse("a", circuit="hall", fallback_a=6.0),
            evse("b", circuit="hall", fallback_a=6.0, trust=Trust.NONE, rated_a=32.0, phases=(2,)),
            evse("c", fallback_a=0.0, trust=Trust.NATIVE),
        ],
        circuit("grid", 60.0, base_worst_a=(10.0, 30.0, 10.0)),
        circuit("hall", 40.0, parent="grid", base_worst_a=(15.0, 5.0, 5.0)),
    )
    grid, hall = worst_cases(plan)
    assert (grid.circuit, grid.base_a, grid.outcome_a) == ("grid", (15, 30, 10), (6, 6, 38))
    assert (grid.limit_a, grid.source, grid.fits) == ((60, 60, 60), "grid fuse", True)
    assert (hall.circuit, hall.base_a, hall.outcome_a, hall.fits) == ("hall", (15, 5, 5), (6, 6, 38), False)


# ------------------------------------------------------------------------------------------ the decision of last resort


@pytest.mark.parametrize(
    ("evidence", "value_a", "controllable"),
    [
        (charging(20.0), 6, True),  # down to its fallback
        (charging(6.0), 6, True),
        (charging(0.0), 0, True),  # nothing is raised, not even to the fallback
        (charging(20.0, in_flight=True), 6, False),
        (charging(20.0, online=False), 6, False),
        (charging(20.0, transaction=None), 6, False),
        (charging(20.0, sent_a=None), 6, True),
        (EvseEvidence(), 6, False),
    ],
)
def test_the_failsafe_is_never_above_the_fallback_or_what_was_sent(
    *, evidence: EvseEvidence, value_a: float, controllable: bool
) -> None:
    plan = site([evse("a", fallback_a=6.0)])
    decision = failsafe(snapshot(plan, {"a": evidence}), "ZeroDivisionError: division by zero")
    setpoint = decision.setpoints["a"]
    assert (setpoint.value_a, setpoint.controllable) == (value_a, controllable)
    assert setpoint.committed_a == 32
    assert setpoint.reason.code is ReasonCode.GUARD
    assert not decision.feasible
    assert [(alarm.code, alarm.text) for alarm in decision.alarms] == [
        (AlarmCode.DECIDE_FAILED, "ZeroDivisionError: division by zero")
    ]


def test_the_failsafe_knows_an_evse_that_nobody_spoke_of() -> None:
    assert failsafe(snapshot(site([evse("a", fallback_a=6.0)])), "why").setpoints["a"].value_a == 6
