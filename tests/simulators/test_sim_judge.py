from collections.abc import Callable
from dataclasses import replace

import pytest

from simulators.judge import CircuitVerdict, ContractVerdict, Judge
from simulators.physics import CircuitFlow, EvseFlow, Moment

LIMIT_A = (50.0, 50.0, 50.0)
Power = Callable[[float], float]


def flow(current_a: float, vehicles_a: float = 0.0) -> CircuitFlow:
    """L2 carries `current_a`, of which vehicles draw `vehicles_a`."""
    return CircuitFlow(
        limit_a=LIMIT_A,
        current_a=(1.0, current_a, 2.0),
        base_a=(1.0, current_a - vehicles_a, 2.0),
        vehicles_a=(0.0, vehicles_a, 0.0),
        power_w=current_a * 230.0,
        base_w=(current_a - vehicles_a) * 230.0,
    )


@pytest.mark.parametrize(
    ("currents_a", "over_limit_s", "excursions"),
    [
        ([50.0] * 20, 0.0, 0),  # at the limit is not above it
        ([50.0 + 1e-7] * 20, 0.0, 0),
        ([50.1] * 20, 2.0, 1),
        ([50.1] * 3 + [49.0] + [50.1] * 5, 0.5, 2),  # the longest of two spells
        ([49.0] * 5, 0.0, 0),
    ],
)
def test_spells_above_a_limit(currents_a: list[float], over_limit_s: float, excursions: int) -> None:
    verdict = CircuitVerdict(id="grid", limit_a=LIMIT_A)
    for current_a in currents_a:
        verdict.see(flow(current_a), 0.1)
    assert verdict.over_limit_s == pytest.approx(over_limit_s)
    assert verdict.excursions == excursions
    assert verdict.peak_measured_a == (1.0, max(currents_a), 2.0)


@pytest.mark.parametrize(
    ("current_a", "vehicles_a", "seconds", "violations"),
    [
        (60.0, 20.0, 15.0, 0),
        (60.0, 20.0, 15.2, 1),
        (60.0, 20.0, 60.0, 1),  # one spell, one violation
        (60.0, 5.0, 60.0, 0),  # shedding everything would not have helped
    ],
)
def test_c3_is_broken_by_a_spell_of_more_than_15_s_that_shedding_would_have_ended(
    current_a: float, vehicles_a: float, seconds: float, violations: int
) -> None:
    judge = Judge()
    for n in range(round(seconds * 10)):
        judge.watch(Moment(unix_s=n / 10, dt_s=0.1, circuits={"grid": flow(current_a, vehicles_a)}, evses={}))
    assert judge.violations == {"C2": 0, "C3": violations, "C11": 0}
    assert judge.circuits["grid"].over_limit_s == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("setpoint_a", "offered_a", "violations"),
    [
        (None, 16.0, 0),
        (0.0, 0.0, 0),
        (6.0, 6.0, 0),
        (16.0, 16.0, 0),
        (3.0, 0.0, 1),  # told in (0, minimum), though the station makes nothing of it
        (20.0, 16.0, 1),  # told above its maximum
        (None, 5.0, 1),
    ],
)
def test_c2_is_broken_by_a_setpoint_that_must_not_be(
    setpoint_a: float | None, offered_a: float, violations: int
) -> None:
    judge = Judge()
    evse = EvseFlow(setpoint_a=setpoint_a, offered_a=offered_a, draw_a=(0.0, 0.0, 0.0), min_a=6.0, max_a=16.0)
    for _ in range(5):
        judge.watch(Moment(unix_s=0.1, dt_s=0.1, circuits={}, evses={"a": evse}))
    assert judge.violations["C2"] == violations


# ------------------------------------------------------------------------------------- the contract: 60 kW, 60 s


def judged(
    base_w: Power, vehicle_w: Power, *, from_s: float = 0.0, seconds: float = 60.0, step_s: float = 0.1
) -> ContractVerdict:
    """Judge a contract of 60 kW (1000 Wh a minute). Time 0 is the start of an interval."""
    verdict = ContractVerdict(id="gtv", circuit="grid", limit_w=60_000.0, interval_s=60)
    for n in range(round(from_s / step_s), round((from_s + seconds) / step_s)):
        at_s = n * step_s
        power_w = base_w(at_s) + vehicle_w(at_s)
        flow_now = replace(flow(0.0), power_w=power_w, base_w=base_w(at_s))
        verdict.see(flow_now, 6_000.0 + at_s + step_s, step_s)
    return verdict


def steady(value_w: float) -> Power:
    return lambda _: value_w


def jump(at_s: float, before_w: float, after_w: float) -> Power:
    return lambda now_s: before_w if now_s < at_s - 1e-9 else after_w


@pytest.mark.parametrize(
    ("from_s", "seconds", "completed"),
    [(0.0, 59.9, 0), (0.0, 60.0, 1), (-5.0, 65.0, 1), (5.0, 60.0, 0), (5.0, 120.0, 1), (0.0, 180.0, 3)],
)
def test_only_whole_intervals_count(from_s: float, seconds: float, completed: int) -> None:
    assert judged(steady(10_000.0), steady(0.0), from_s=from_s, seconds=seconds).intervals_completed == completed


def test_an_interval_is_cut_where_the_clock_says() -> None:
    verdict = judged(jump(60.0, 30_000.0, 15_000.0), steady(0.0), seconds=120.0, step_s=0.07)
    assert verdict.worst_interval_kw == pytest.approx(30.0, abs=0.05)
    assert judged(steady(30_000.0), steady(6_000.0), seconds=120.0).used_ratio == pytest.approx(0.6)


def test_export_gives_no_credit() -> None:
    verdict = judged(jump(30.0, -60_000.0, 60_000.0), steady(0.0))
    assert verdict.worst_interval_kw == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("what", "base_w", "vehicle_w", "overruns", "breaches"),
    [
        ("within the contract", steady(20_000.0), steady(39_000.0), 0, 0),
        ("exactly used up", steady(20_000.0), steady(40_000.0), 0, 0),
        ("vehicles alone at fault", steady(20_000.0), steady(45_000.0), 1, 1),
        ("the building alone is over", steady(70_000.0), steady(10_000.0), 1, 0),
        ("a jump early on, ignored", jump(10.0, 20_000.0, 35_000.0), steady(39_000.0), 1, 1),
        ("a jump early on, shed 10 s later", jump(10.0, 20_000.0, 45_000.0), jump(20.0, 39_000.0, 0.0), 0, 0),
        # 40 s at 59 kW leave 345 Wh; 20 s at 70 kW alone take 389 Wh: nothing could have helped.
        ("a jump too late to mend", jump(40.0, 20_000.0, 70_000.0), jump(40.0, 39_000.0, 0.0), 1, 0),
        ("a jump too late to mend, vehicles still on", jump(40.0, 20_000.0, 70_000.0), steady(39_000.0), 1, 0),
        # 30 s at 59 kW and 15 s of reaction at 89 kW: 863 Wh; 15 s of 50 kW make it 1071 Wh.
        ("a jump that shedding at once would mend, 15 s later would not",
         jump(30.0, 20_000.0, 50_000.0), steady(39_000.0), 1, 0),
        # 10 s at 59 kW, 15 s at 89 kW, 35 s at 50 kW: 1021 Wh, but at 40 kW: 880 Wh.
        ("a jump with time to react, vehicles never shed", jump(10.0, 20_000.0, 40_000.0), steady(39_000.0), 1, 1),
        ("a slow rise is no surprise", lambda t: 20_000.0 + 500.0 * t, steady(39_000.0), 1, 1),
        # The vehicles had used up everything 50 s in; a jump after that excuses nobody.
        ("lost before the jump", jump(55.0, 20_000.0, 30_000.0), steady(60_000.0), 1, 1),
        ("a jump in the last seconds of a full interval", jump(57.0, 20_000.0, 40_000.0), steady(39_900.0), 1, 0),
    ],
)  # fmt: skip
def test_a_breach_is_an_overrun_that_shedding_15_s_after_the_surprise_would_have_avoided(
    what: str, base_w: Power, vehicle_w: Power, overruns: int, breaches: int
) -> None:
    verdict = judged(base_w, vehicle_w)
    assert (verdict.overruns, verdict.breaches) == (overruns, breaches), what


def test_a_surprise_just_before_the_interval_leaves_time_to_react_inside_it() -> None:
    # From 5 s before the interval the building takes 59 kW; the vehicles are shed within 15 s of that, 10 s into it.
    verdict = judged(jump(-5.0, 10_000.0, 59_000.0), jump(9.0, 40_000.0, 0.0), from_s=-60.0, seconds=120.0)
    assert (verdict.intervals_completed, verdict.overruns, verdict.breaches) == (2, 1, 0)
    # The same with a building that was there all along: the controller knew.
    verdict = judged(steady(59_000.0), jump(9.0, 40_000.0, 0.0), from_s=0.0)
    assert (verdict.overruns, verdict.breaches) == (1, 1)
