"""The decision: from one snapshot and the memory of the one before to setpoints, reasons and alarms."""

from dataclasses import replace
from itertools import pairwise

import pytest
from pydantic import TypeAdapter

from controller.core.decide import decide
from controller.core.electrical import Phases
from controller.core.model import (
    AlarmCode,
    Circuit,
    Contract,
    Decision,
    Evse,
    EvseEvidence,
    EvseMemory,
    EvseState,
    Limit,
    Memory,
    MeterQuality,
    Policy,
    Reason,
    ReasonCode,
    Site,
    Snapshot,
    Trust,
)
from tests.core.plaza import START_S, charging, circuit, evse, phases, reading, site, snapshot, vacant

NO_MARGIN = Policy(hysteresis_ratio=0.0, dead_band_a=0.0)
IMMEDIATE = Policy(raise_interval_s=0.0)


def decided(
    plan: Site,
    evses: dict[str, EvseEvidence],
    base_a: float | Phases,
    *,
    memory: Memory | None = None,
    at_s: float = START_S,
    age_s: float = 0.0,
) -> tuple[Decision, Memory]:
    """Decide with the meter showing the base load and all that the vehicles draw."""
    base = list(phases(base_a))
    for unit in plan.evses:
        drawn = evses.get(unit.id, vacant()).measured_a or (0.0, 0.0, 0.0)
        base = [base[phase] + (drawn[phase] if phase in unit.phases else 0.0) for phase in range(3)]
    meter = reading((base[0], base[1], base[2]), at_s - age_s)
    return decide(snapshot(plan, evses, {"grid": meter}, now_s=at_s), memory or Memory())


def values_a(decision: Decision) -> dict[str, float]:
    return {name: setpoint.value_a for name, setpoint in decision.setpoints.items()}


def reason(decision: Decision, name: str = "e1") -> Reason:
    return decision.setpoints[name].reason


def alarms(decision: Decision) -> set[AlarmCode]:
    return {alarm.code for alarm in decision.alarms}


def on_since(at_s: float, **options: object) -> EvseMemory:
    return replace(EvseMemory(transaction="tx", on_since_s=at_s), **options)  # type: ignore[arg-type]  # options know no types


# ------------------------------------------------------------------------------------------------ raises and decreases


def test_decreases_leave_in_the_same_cycle() -> None:
    plan = site([evse("e1"), evse("e2")], circuit(limit_a=60.0))
    both = {"e1": charging(20.0), "e2": charging(20.0)}
    decision, _ = decided(plan, both, 40.0)  # 80 A on 60 A is 1.33 x
    assert values_a(decision) == {"e1": pytest.approx(9.7), "e2": pytest.approx(9.7)}
    assert alarms(decision) == {AlarmCode.EXCURSION}
    assert decision.circuits["grid"].overloaded
    assert decision.feasible


def test_a_raise_goes_only_into_room_that_is_confirmed() -> None:
    plan = site([evse("e1"), evse("e2", max_a=20.0)], circuit(limit_a=60.0), policy=NO_MARGIN)
    held = Memory(evses={"e2": EvseMemory(transaction="tx", held_a=30.0)})
    lowered = charging(20.0, 30.0, confirmed_at_s=START_S, measured_at_s=START_S - 1)
    decision, memory = decided(plan, {"e1": charging(20.0), "e2": lowered}, 10.0, memory=held)
    assert values_a(decision) == {"e1": 20, "e2": 20}
    assert reason(decision) == Reason(code=ReasonCode.AWAITING_ROOM, source="grid", phase=0)
    followed = replace(lowered, measured_a=phases(22.0), measured_at_s=START_S + 2)  # 80 % of the drop
    evidence = {"e1": charging(20.0, measured_at_s=START_S + 2), "e2": followed}
    decision, _ = decided(plan, evidence, 10.0, memory=memory, at_s=START_S + 2)
    assert values_a(decision) == {"e1": 28, "e2": 20}


def test_a_paused_vehicle_jumps_to_its_minimum_only_into_confirmed_room() -> None:
    plan = site([evse("e1"), evse("e2")], circuit(limit_a=32.0))
    lowered = charging(20.0, 32.0, confirmed_at_s=START_S, measured_at_s=START_S - 1)
    held = Memory(evses={"e1": on_since(0, held_a=32.0), "e2": EvseMemory(transaction="tx")})
    decision, memory = decided(plan, {"e1": lowered, "e2": charging(0.0)}, 0.0, memory=held)
    assert values_a(decision) == {"e1": pytest.approx(15.7), "e2": 0}
    assert reason(decision, "e2").code is ReasonCode.AWAITING_ROOM
    followed = charging(15.7, measured_at_s=START_S + 2, confirmed_at_s=START_S + 1)
    decision, _ = decided(plan, {"e1": followed, "e2": charging(0.0)}, 0.0, memory=memory, at_s=START_S + 2)
    assert values_a(decision)["e2"] == pytest.approx(15.7, abs=0.1)


def test_raises_keep_their_interval() -> None:
    plan = site([evse("e1")], circuit(limit_a=100.0))
    memory = Memory()
    sent_a, raised_at = 6.0, []
    for second in range(40):
        base_a = 90.0 - 0.6 * second  # room grows a little every second
        at_s = START_S + second
        evidence = {"e1": charging(sent_a, measured_at_s=at_s)}
        decision, memory = decided(plan, evidence, base_a, memory=memory, at_s=at_s)
        value_a = values_a(decision)["e1"]
        if value_a > sent_a:
            raised_at.append(second)
        elif second and second - raised_at[-1] < 10 and reason(decision).code is ReasonCode.RAMP:
            assert reason(decision).until_s == START_S + raised_at[-1] + 10
        sent_a = value_a
    assert all(later - earlier >= 10 for earlier, later in pairwise(raised_at))
    assert len(raised_at) >= 3


@pytest.mark.parametrize(
    ("room_a", "setpoint_a", "value_a"),
    [
        (20.9, 20.0, 20.0),  # 0.9 A less the margin of 0.5 A: not worth a write
        (21.1, 20.0, 20.6),
        (20.0, 20.0, 20.0),  # inside its band: no write
        (19.9, 20.0, 19.4),  # outside: down, and a little further, so that noise asks for no more
        (6.4, 20.0, 6.0),  # the margin never costs the minimum
    ],
)
def test_small_changes_are_not_worth_a_write(room_a: float, setpoint_a: float, value_a: float) -> None:
    plan = site([evse("e1")], circuit(limit_a=50.0), policy=IMMEDIATE)
    memory = Memory(evses={"e1": on_since(0.0)})
    decision, _ = decided(plan, {"e1": charging(setpoint_a)}, 50.0 - room_a, memory=memory)
    assert values_a(decision)["e1"] == pytest.approx(value_a)


def test_noise_on_the_meter_writes_nothing() -> None:
    plan = site([evse("e1"), evse("e2")], circuit(limit_a=63.0))
    sent = {"e1": 6.0, "e2": 6.0}
    memory, writes = Memory(), 0
    for second in range(300):
        at_s = START_S + second
        noise_a = 0.28 * ((second * 7919) % 3 - 1)
        evidence = {name: charging(value_a, measured_at_s=at_s) for name, value_a in sent.items()}
        decision, memory = decided(plan, evidence, 30.0 + noise_a, memory=memory, at_s=at_s)
        writes += sum(values_a(decision)[name] != value_a for name, value_a in sent.items())
        sent = values_a(decision)
    assert writes <= 4
    assert sum(sent.values()) >= 31


def test_a_step_that_the_station_can_do() -> None:
    plan = site([evse("e1", step_a=1.0), evse("e2")], circuit(limit_a=40.0))
    decision, _ = decided(plan, {"e1": charging(6.0), "e2": charging(6.0)}, 0.3)
    assert values_a(decision) == {"e1": 19, "e2": pytest.approx(19.6)}


def test_a_setpoint_below_the_minimum_is_never_repeated() -> None:
    """The minimum of an EVSE was raised (a vehicle that stumbles below 8 A) while it held 6 A."""
    plan = site([evse("e1", min_a=8.0)])
    just_raised = Memory(evses={"e1": on_since(0.0, raised_at_s=START_S - 1)})
    assert values_a(decided(plan, {"e1": charging(6.0)}, 0.0, memory=just_raised)[0]) == {"e1": 0}
    assert values_a(decided(plan, {"e1": charging(6.0)}, 0.0)[0]) == {"e1": 32}


def test_room_below_the_next_step_above_nothing_waits() -> None:
    """A minimum that is no multiple of the step cannot be offered rounded down."""
    plan = site([evse("e1", min_a=6.5, step_a=1.0)], circuit(limit_a=6.9), policy=NO_MARGIN)
    decision, _ = decided(plan, {"e1": charging(0.0)}, 0.0)
    assert values_a(decision) == {"e1": 0}


# ------------------------------------------------------------------------------------------------------- who may charge


def three(limit_a: float, *units: Evse) -> Site:
    return site(units or [evse("e1"), evse("e2"), evse("e3")], circuit(limit_a=limit_a))


PAUSED = {"e1": charging(0.0), "e2": charging(0.0), "e3": charging(0.0)}


def test_priority_goes_first() -> None:
    plan = three(13.0, evse("e1"), evse("e2", priority=1), evse("e3"))
    decision, _ = decided(plan, PAUSED, 0.0)
    assert values_a(decision) == {"e1": pytest.approx(6.2), "e2": pytest.approx(6.2), "e3": 0}
    assert reason(decision, "e3").code is ReasonCode.MIN_CURRENT_PAUSE


@pytest.mark.parametrize(
    ("served_as", "gets_in"),
    [
        ({"e1": 5400.0, "e2": 0.0, "e3": 0.0}, {"e2", "e3"}),  # a turn is 15 min at 6 A
        ({"e1": 5399.0, "e2": 0.0, "e3": 0.0}, {"e1", "e2"}),  # less than a turn is no debt
        ({"e1": 20_000.0, "e2": 11_000.0, "e3": 6_000.0}, {"e2", "e3"}),
    ],
)
def test_who_has_had_least_goes_first(served_as: dict[str, float], gets_in: set[str]) -> None:
    kept = {name: EvseMemory(transaction="tx", served_as=served) for name, served in served_as.items()}
    decision, _ = decided(three(13.0), PAUSED, 0.0, memory=Memory(evses=kept))
    assert {name for name, value_a in values_a(decision).items() if value_a} == gets_in


def test_who_is_on_stays_on_for_its_minimum_time_whatever_its_debt() -> None:
    plan = three(13.0)
    evidence = {"e1": charging(6.0), "e2": charging(6.0), "e3": charging(0.0)}
    for on_for_s, stays in [(1799.0, True), (1801.0, False)]:
        kept = {name: on_since(START_S - on_for_s, served_as=9000.0) for name in ("e1", "e2")}
        decision, memory = decided(plan, evidence, 0.0, memory=Memory(evses=kept))
        assert (values_a(decision)["e2"] > 0) == stays
        assert (memory.evses["e2"].off_since_s == START_S) != stays


def test_a_vehicle_that_asks_for_nothing_lets_others_go_first() -> None:
    evidence = {**PAUSED, "e1": charging(0.0, state=EvseState.SUSPENDED_EV)}
    decision, _ = decided(three(13.0), evidence, 0.0)
    assert values_a(decision) == {"e1": 0, "e2": pytest.approx(6.2), "e3": pytest.approx(6.2)}


@pytest.mark.parametrize(("off_for_s", "value_a"), [(599, 0), (600, 32)])
def test_a_pause_lasts_its_minimum_time(off_for_s: float, value_a: float) -> None:
    paused = EvseMemory(transaction="tx", off_since_s=START_S - off_for_s)
    decision, _ = decided(site([evse("e1")]), {"e1": charging(0.0)}, 0.0, memory=Memory(evses={"e1": paused}))
    assert values_a(decision) == {"e1": value_a}
    if not value_a:
        assert reason(decision) == Reason(code=ReasonCode.MIN_OFF, until_s=START_S + 1)


def test_a_newcomer_needs_a_little_more_than_its_minimum() -> None:
    plan = three(18.4)
    decision, _ = decided(plan, PAUSED, 0.0)
    assert list(values_a(decision).values()).count(0) == 1
    on = Memory(evses={name: on_since(0.0) for name in PAUSED})
    decision, _ = decided(plan, {name: charging(6.0) for name in PAUSED}, 0.0, memory=on)
    assert values_a(decision) == {"e1": 6, "e2": 6, "e3": 6}


def test_an_evse_that_must_not_be_paused_goes_first_and_is_never_made_to_rest() -> None:
    plan = three(7.0, evse("e1", priority=5), evse("e2"), evse("e3", never_zero=True, fallback_a=6.0))
    rested = Memory(evses={"e3": EvseMemory(transaction="tx", off_since_s=START_S - 1)})
    decision, _ = decided(plan, PAUSED, 0.0, memory=rested)
    assert values_a(decision) == {"e1": 0, "e2": 0, "e3": pytest.approx(6.5)}


def test_an_evse_that_must_not_be_paused_keeps_its_minimum_where_nothing_fits() -> None:
    plan = three(60.0, evse("e1"), evse("e2"), evse("e3", never_zero=True, fallback_a=6.0))
    evidence = {name: charging(16.0) for name in PAUSED}
    decision, _ = decided(plan, evidence, 70.0)
    assert values_a(decision) == {"e1": 0, "e2": 0, "e3": 6}
    assert not decision.feasible
    assert alarms(decision) == {AlarmCode.INFEASIBLE, AlarmCode.EXCURSION}


def test_where_nothing_fits_everything_is_at_its_lowest_and_an_alarm_says_so() -> None:
    plan = site([evse("e1"), evse("e2", trust=Trust.NONE)], circuit(limit_a=60.0))
    silent = charging(20.0, online=False)
    decision, _ = decided(plan, {"e1": charging(20.0), "e2": silent}, 40.0)
    assert values_a(decision) == {"e1": 0, "e2": 32}
    assert not decision.feasible
    assert {AlarmCode.INFEASIBLE, AlarmCode.STATION_DEAF} <= alarms(decision)
    (text,) = [alarm.text for alarm in decision.alarms if alarm.code is AlarmCode.INFEASIBLE]
    assert text == "L1 carries 72.0 A of 60.0 A with everything at its lowest"


def test_what_is_not_used_is_reclaimed_and_given_back_when_it_is_wanted() -> None:
    plan = site([evse("e1"), evse("e2")], circuit(limit_a=40.0), policy=NO_MARGIN)
    memory, sent, offered = Memory(), {"e1": 20.0, "e2": 20.0}, []
    for number, e1_draws_a in enumerate([18.5, 10.0, 10.0, 10.4, 10.4, 11.4, 11.4]):
        at_s = START_S + 20 * number
        evidence = {
            "e1": charging(sent["e1"], e1_draws_a, sent_at_s=at_s - 15, confirmed_at_s=at_s - 15, measured_at_s=at_s),
            "e2": charging(sent["e2"], sent_at_s=at_s - 15, confirmed_at_s=at_s - 15, measured_at_s=at_s),
        }
        decision, memory = decided(plan, evidence, 0.0, memory=memory, at_s=at_s)
        sent = values_a(decision)
        offered.append((round(sent["e1"], 1), round(sent["e2"], 1)))
    assert offered == [
        (20, 20),  # 1.5 A unused is kept
        (11, 20),  # its draw and 1 A; what it gave up is not seen to be free yet
        (11, 29),
        (11, 29),  # its offer does not follow its noise
        (11, 29),
        (11.4, 20),  # it takes more than it is offered: its share comes back
        (20, 20),
    ]


def test_a_vehicle_gets_10_s_before_its_offer_is_reclaimed() -> None:
    plan = site([evse("e1")])
    for waited_s, value_a in [(9.0, 32), (10.0, 7)]:
        ramping = charging(32.0, 6.0, sent_at_s=START_S - waited_s)
        assert values_a(decided(plan, {"e1": ramping}, 0.0)[0]) == {"e1": value_a}


def test_a_vehicle_that_draws_less_than_the_minimum_keeps_the_minimum() -> None:
    decision, _ = decided(site([evse("e1")]), {"e1": charging(32.0, 0.0)}, 0.0)
    assert values_a(decision) == {"e1": 6}
    assert reason(decision) == Reason(code=ReasonCode.VEHICLE, value=6.0)


# ------------------------------------------------------------------------------------------------- reasons and ladders

GTV = Contract(id="gtv", circuit="grid", import_w=20_000)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (charging(20.0, online=False, lease_until_s=START_S + 60), Reason(code=ReasonCode.COMMS_FAILSAFE, value=20.0)),
        (charging(20.0, verified=False), Reason(code=ReasonCode.COMMS_FAILSAFE, value=20.0)),
        (charging(20.0, refused=True), Reason(code=ReasonCode.CHARGER_REFUSED, value=20.0)),
        (charging(20.0, in_flight=True), Reason(code=ReasonCode.COMMAND_PENDING, value=20.0)),
        (vacant(), Reason(code=ReasonCode.NO_VEHICLE)),
        (vacant(state=EvseState.PREPARING), Reason(code=ReasonCode.AWAITING_TRANSACTION, value=6.0)),
    ],
)
def test_why_an_evse_gets_no_setpoint(evidence: EvseEvidence, expected: Reason) -> None:
    decision, _ = decided(site([evse("e1", fallback_a=6.0)]), {"e1": evidence}, 0.0)
    setpoint = decision.setpoints["e1"]
    assert (setpoint.reason, setpoint.ladder, setpoint.controllable) == (expected, (), False)


def test_a_disobedient_vehicle_is_named() -> None:
    memory = Memory(evses={"e1": EvseMemory(transaction="tx", overdrawn_since_s=START_S - 15)})
    decision, _ = decided(site([evse("e1")]), {"e1": charging(10.0, 16.0)}, 0.0, memory=memory)
    assert reason(decision) == Reason(code=ReasonCode.DISOBEDIENT, value=16.0)
    assert alarms(decision) == {AlarmCode.DISOBEDIENT}


def test_a_refusing_station_is_an_alarm() -> None:
    assert alarms(decided(site([evse("e1")]), {"e1": charging(10.0, refused=True)}, 0.0)[0]) == {
        AlarmCode.CHARGER_REFUSED
    }


POWER = Limit(source="transformer", value_w=15_000)
FUSE = Limit(source="fuse", value_a=phases(63))


@pytest.mark.parametrize(
    ("plan", "base_a", "expected"),
    [
        (site([evse("e1")]), 0.0, Reason(code=ReasonCode.EVSE_MAX, value=32.0)),
        (
            site([evse("e1")], circuit(limit_a=(60.0, 40.0, 50.0))),
            20.0,
            Reason(code=ReasonCode.CIRCUIT, source="grid", value=40.0, phase=1),
        ),
        (
            site([evse("e1", circuit="hall")], circuit(), circuit("hall", 20.0, parent="grid", metered=False)),
            20.0,
            Reason(code=ReasonCode.CIRCUIT, source="hall", value=20.0, phase=0),
        ),
        (
            site([evse("e1")], circuit(limits=(FUSE, POWER))),
            5.0,
            Reason(code=ReasonCode.CIRCUIT, source="grid", value=15_000.0, unit="W"),
        ),
    ],
    ids=["its own maximum", "a phase", "a feeder", "a power limit"],
)
def test_the_binding_reason_is_named(plan: Site, base_a: float, expected: Reason) -> None:
    assert reason(decided(plan, {"e1": charging(6.0)}, base_a)[0]) == expected


def test_a_contract_that_binds_is_named_with_what_it_allows_now() -> None:
    decision, _ = decided(site([evse("e1")], circuit(), contracts=(GTV,)), {"e1": charging(6.0)}, 10.0)
    named = reason(decision)
    assert (named.code, named.source, named.unit) == (ReasonCode.CONTRACT, "gtv", "W")
    assert named.value == pytest.approx(0.98 * 20_000)
    assert decision.contracts["gtv"].allowed_w == named.value


def test_a_power_limit_tighter_than_the_contract_is_named_instead() -> None:
    node = circuit(limits=(FUSE, Limit(source="transformer", value_w=12_000)))
    decision, _ = decided(site([evse("e1")], node, contracts=(GTV,)), {"e1": charging(6.0)}, 5.0)
    assert (reason(decision).code, reason(decision).value) == (ReasonCode.CIRCUIT, 12_000)


def test_no_room_for_the_minimum_names_the_phase() -> None:
    plan = site([evse("e1")], circuit(limit_a=(60.0, 60.0, 60.0)))
    decision, _ = decided(plan, {"e1": charging(0.0)}, (10.0, 10.0, 55.0))
    expected = Reason(code=ReasonCode.MIN_CURRENT_PAUSE, source="grid", value=60.0, phase=2)
    assert reason(decision) == expected


@pytest.mark.parametrize("setpoint_a", [0.0, 10.0])
def test_a_stale_meter_is_the_reason_for_every_raise_that_does_not_come(setpoint_a: float) -> None:
    plan = site([evse("e1")], circuit(limit_a=60.0))
    _, memory = decided(plan, {"e1": charging(setpoint_a)}, 55.0 - setpoint_a, at_s=START_S - 5)
    decision, _ = decided(plan, {"e1": charging(setpoint_a)}, 30.0 - setpoint_a, memory=memory, age_s=4.0)
    assert decision.circuits["grid"].quality is MeterQuality.FROZEN
    assert values_a(decision) == {"e1": setpoint_a}
    assert reason(decision) == Reason(code=ReasonCode.METER_STALE, source="grid")


def test_no_room_beside_a_lost_meter_names_the_meter() -> None:
    plan = site([evse("e1")], circuit(limit_a=60.0, base_worst_a=phases(58.0)))
    decision, _ = decide(snapshot(plan, {"e1": charging(16.0)}), Memory())
    assert values_a(decision) == {"e1": 0}
    assert reason(decision) == Reason(code=ReasonCode.METER_STALE, source="grid")
    assert AlarmCode.METER_LOST in alarms(decision)


def test_the_ladder_tells_what_each_bound_alone_would_allow_lowest_first() -> None:
    plan = site(
        [evse("e1", circuit="hall", max_a=24.0)],
        circuit(limit_a=(60.0, 50.0, 60.0)),
        circuit("hall", 20.0, parent="grid", metered=False),
        policy=NO_MARGIN,
    )
    decision, _ = decided(plan, {"e1": charging(6.0)}, 20.0)
    ladder = decision.setpoints["e1"].ladder
    assert [(rung.code, rung.source, rung.phase, rung.value) for rung in ladder] == [
        (ReasonCode.CIRCUIT, "hall", 0, 20),
        (ReasonCode.CIRCUIT, "hall", 1, 20),
        (ReasonCode.CIRCUIT, "hall", 2, 20),
        (ReasonCode.EVSE_MAX, "", None, 24),
        (ReasonCode.CIRCUIT, "grid", 1, 30),
        (ReasonCode.CIRCUIT, "grid", 0, 40),
        (ReasonCode.CIRCUIT, "grid", 2, 40),
    ]


def test_the_ladder_names_the_vehicle_and_leaves_out_what_has_no_bound() -> None:
    plan = site([evse("e1", phases=(1,))], circuit(limits=(POWER,)))
    decision, _ = decided(plan, {"e1": charging(20.0, (0.0, 9.0, 0.0))}, 0.0)
    codes = [(rung.code, rung.source) for rung in decision.setpoints["e1"].ladder]
    assert codes == [(ReasonCode.VEHICLE, ""), (ReasonCode.EVSE_MAX, ""), (ReasonCode.CIRCUIT, "grid")]


# ---------------------------------------------------------------------------------------------------------- the answer


def test_a_circuit_tells_what_it_carries_at_worst_and_what_is_left() -> None:
    plan = site([evse("e1", phases=(0,)), evse("e2", trust=Trust.NATIVE)])
    evidence = {"e1": charging(20.0, (20.0, 0.0, 0.0)), "e2": charging(16.0, 0.0, online=False)}
    decision, _ = decided(plan, evidence, 30.0)
    state = decision.circuits["grid"]
    assert (state.limit_a, state.limit_source) == ((100, 100, 100), "grid fuse")
    assert (state.base_a, state.committed_a, state.headroom_a) == ((30, 30, 30), (32, 0, 0), (38, 70, 70))
    assert (state.limit_w, state.headroom_w, state.overloaded) == (None, None, False)
    assert state.committed_w == pytest.approx(32 * 230)


@pytest.mark.parametrize(("base_a", "overloaded"), [(6.0, False), (20.0, True)])
def test_a_power_limit_that_is_exceeded_is_an_excursion(*, base_a: float, overloaded: bool) -> None:
    plan = site([evse("e1")], circuit(limits=(FUSE, POWER)))
    decision, _ = decided(plan, {"e1": charging(10.0)}, base_a)
    assert decision.circuits["grid"].overloaded == overloaded
    assert (AlarmCode.EXCURSION in alarms(decision)) == overloaded
    assert decision.circuits["grid"].limit_w == 15_000


def test_an_undisciplined_clock_is_an_alarm_where_a_contract_depends_on_it() -> None:
    for contracts, expected in [((GTV,), {AlarmCode.CLOCK_UNSYNCHRONISED}), ((), set())]:
        plan = site([evse("e1")], contracts=contracts)
        moment = snapshot(plan, {"e1": charging(6.0)}, {"grid": reading(6.0)}, synchronised=False)
        assert alarms(decide(moment, Memory())[0]) == expected


def test_a_base_load_above_the_contract_is_an_alarm() -> None:
    decision, _ = decided(site([evse("e1")], contracts=(GTV,)), {"e1": charging(6.0)}, 40.0)
    (alarm,) = decision.alarms
    assert (alarm.code, alarm.subject) == (AlarmCode.CONTRACT_AT_RISK, "gtv")
    assert alarm.text == "the base load of 27.6 kW alone is above what is left"


def test_service_is_counted_by_what_is_drawn_and_not_over_long_pauses() -> None:
    plan = site([evse("e1")])
    _, memory = decided(plan, {"e1": charging(16.0, 10.0)}, 0.0)
    for at_s, served_as in [(1.0, 10.0), (2.5, 25.0), (1000.0, 625.0)]:
        evidence = {"e1": charging(16.0, 10.0, measured_at_s=START_S + at_s)}
        _, memory = decided(plan, evidence, 0.0, memory=memory, at_s=START_S + at_s)
        assert memory.evses["e1"].served_as == pytest.approx(served_as)


def test_an_evse_without_samples_is_served_its_setpoint() -> None:
    plan = site([evse("e1")])
    unmeasured = {"e1": replace(charging(16.0), measured_a=None, measured_at_s=None)}
    _, memory = decided(plan, unmeasured, 0.0)
    _, memory = decided(plan, unmeasured, 0.0, memory=memory, at_s=START_S + 2)
    assert memory.evses["e1"].served_as == 32


def busy() -> tuple[Snapshot, Memory]:
    """A site with a bit of everything, three cycles on."""
    nodes: list[Circuit] = [
        circuit(limits=(FUSE, POWER), base_worst_a=phases(20.0)),
        circuit("hall", 40.0, parent="grid", metered=False),
    ]
    plan = site([evse("e1", circuit="hall"), evse("e2", phases=(2,)), evse("e3")], *nodes, contracts=(GTV,))
    evidence = {"e1": charging(6.0), "e2": charging(10.0, (0.0, 0.0, 9.9)), "e3": charging(8.0, online=False)}
    memory = Memory()
    for second in range(3):
        at_s = START_S + second
        meter = reading((7.1, 7.3, 20.7 + second), at_s, import_wh=1234.5 + second, import_step_wh=0.1)
        moment = snapshot(plan, evidence, {"grid": meter}, now_s=at_s, unix_s=1_800_000_123.0 + second)
        before, (_, memory) = memory, decide(moment, memory)
    return moment, before


def test_snapshot_memory_and_decision_survive_json_bit_by_bit() -> None:
    moment, memory = busy()
    decision, after = decide(moment, memory)
    again, later = TypeAdapter(Snapshot), TypeAdapter(Memory)
    decision_again, after_again = decide(
        again.validate_json(again.dump_json(moment)), later.validate_json(later.dump_json(memory))
    )
    assert (decision_again, after_again) == (decision, after)
    answer = TypeAdapter(Decision)
    written = answer.dump_json(decision)
    assert answer.validate_json(written) == decision
    assert answer.dump_json(decision_again) == written


def test_deciding_twice_gives_the_same() -> None:
    moment, memory = busy()
    assert decide(moment, memory) == decide(moment, memory)


def test_a_memory_of_another_version_is_ignored() -> None:
    moment, memory = busy()
    assert decide(moment, memory) != decide(moment, Memory())
    assert decide(moment, replace(memory, version=0)) == decide(moment, Memory())


def test_an_unknown_circuit_is_no_site() -> None:
    with pytest.raises(KeyError):
        decide(snapshot(site([evse("e1", circuit="nowhere")])), Memory())


@pytest.mark.parametrize(("waited_s", "value_a"), [(3.0, 14), (4.0, 0)])
def test_nobody_is_paused_in_place_of_a_decrease_that_left_a_moment_ago(waited_s: float, value_a: float) -> None:
    plan = site([evse("e1"), evse("e2")], circuit(limit_a=40.0), policy=NO_MARGIN)
    sent_at_s = START_S - waited_s
    evidence = {
        "e1": charging(20.0, sent_a=6.0, may_hold_a=6.0, sent_at_s=sent_at_s, in_flight=True),
        "e2": charging(20.0),
    }
    assert values_a(decided(plan, evidence, 20.0)[0])["e2"] == value_a
