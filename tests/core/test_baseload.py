"""Base load: what is not ours to control, told from raw meters and from EVSE samples of another age."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from controller.core.baseload import quality_of
from controller.core.electrical import Phases
from controller.core.facts import Facts, gather
from controller.core.model import (
    CircuitMemory,
    EvseEvidence,
    Memory,
    MeterQuality,
    MeterReading,
    Site,
)
from tests.core.plaza import charging, circuit, evse, phases, reading, site, snapshot, vacant

HALL = circuit("hall", 63.0, parent="grid")
LONG_AGO_S = 1000.0


class Watch:
    """Shows a site one second after another what its meters and stations say, and keeps the estimate."""

    def __init__(self, plan: Site) -> None:
        self.plan, self.memory = plan, Memory()
        self.facts: Facts | None = None

    def see(
        self,
        at_s: float,
        meters: Mapping[str, MeterReading] | float | Phases,
        evses: Mapping[str, EvseEvidence] | None = None,
    ) -> dict[str, Phases]:
        """Return the base load of every circuit, in amperes."""
        if not isinstance(meters, Mapping):
            meters = {"grid": reading(meters, at_s)}
        facts = gather(snapshot(self.plan, evses, meters, now_s=at_s), self.memory)
        kept = {e.id: m for e, m in zip(facts.evses, facts.evse_memories, strict=True)}
        self.memory = Memory(evses=kept, circuits=facts.circuit_memories)
        self.facts = facts
        return {
            node.id: (round(base.load[0], 6), round(base.load[1], 6), round(base.load[2], 6))
            for node, base in zip(self.plan.circuits, facts.bases, strict=True)
        }

    def grid(self, at_s: float, meter_a: float | Phases, evses: Mapping[str, EvseEvidence] | None = None) -> float:
        """Return the base load of the grid connection on L1."""
        return self.see(at_s, meter_a, evses)["grid"][0]

    def quality(self) -> MeterQuality:
        assert self.facts is not None
        return self.facts.bases[0].quality


def one_evse() -> Watch:
    return Watch(site([evse("e1")]))


def car(drawn_a: float, sampled_at_s: float, **options: object) -> dict[str, EvseEvidence]:
    """One vehicle, at its setpoint of 16 A for long unless told otherwise."""
    return {"e1": charging(16.0, drawn_a, measured_at_s=sampled_at_s, **options)}


# -------------------------------------------------------------------------------------------- what the meter contains


def test_base_load_is_the_meter_less_what_the_vehicles_draw() -> None:
    watch = Watch(site([evse("e1"), evse("e2", phases=(1,))]))
    drawn = {
        "e1": charging(16.0, (15.0, 16.0, 14.0), measured_at_s=2000),
        "e2": charging(20.0, (0.0, 20.0, 0.0), measured_at_s=2000),
    }
    assert watch.see(2000, (55.0, 76.0, 34.0), drawn)["grid"] == (40, 40, 20)


@pytest.mark.parametrize(
    ("evidence", "base_a"),
    [
        (car(16, 2000)["e1"], 40),
        (car(16, 1971)["e1"], 40),  # 29 s old: still its last known draw
        (car(16, 1969)["e1"], 40),  # silent: its last draw, as long as its setpoint is reckoned with
        (car(16, 1400, online=False)["e1"], 40),  # gone: for a lease of 600 s
        (car(16, 1399, online=False)["e1"], 56),
        (car(16, 1969, sent_a=6.0, confirmed_a=6.0)["e1"], 50),  # at most what it was told since
        (replace(car(16, 1969)["e1"], measured_a=None, measured_at_s=None), 56),
        (vacant(measured_a=(16.0, 16.0, 16.0), measured_at_s=2000.0), 56),  # nobody there to draw
    ],
)
def test_a_silent_evse_is_subtracted_at_its_lowest_credible_draw(evidence: EvseEvidence, base_a: float) -> None:
    assert one_evse().grid(2000, 56, {"e1": evidence}) == base_a


def test_an_evse_that_is_not_in_the_snapshot_draws_nothing_that_we_know() -> None:
    assert one_evse().grid(2000, 56, {}) == 56


def test_export_is_a_negative_base_load() -> None:
    watch = one_evse()
    assert watch.see(2000, (-20.0, 6.0, -14.0), car(16, 2000))["grid"] == (-36, -10, -30)


# ------------------------------------------------------------------------------------------------- falls and rises


def test_a_vehicle_that_stops_is_not_taken_for_a_fall_of_the_base_load() -> None:
    watch = one_evse()
    assert watch.grid(2000, 56, car(16, 2000)) == 40
    for second in range(1, 10):
        assert watch.grid(2000 + second, 40, car(16, 2000)) == 40  # it stopped; its sample is from before
    for second in range(10, 30):
        assert watch.grid(2000 + second, 40, car(0, 2010)) == 40  # its sample says so now


def test_a_fall_of_the_base_load_is_seen_once_every_drawing_evse_was_sampled_since() -> None:
    watch = Watch(site([evse("e1"), evse("e2")]))

    def both(first_at_s: float, second_at_s: float) -> dict[str, EvseEvidence]:
        first = charging(16.0, 16.0, measured_at_s=first_at_s)
        return {"e1": first, "e2": charging(8.0, 8.0, measured_at_s=second_at_s)}

    assert watch.grid(2000, 84, both(1996, 1996)) == 60
    for second in range(3, 9):
        assert watch.grid(2000 + second, 68, both(1996, 1996)) == 60  # a vehicle may be what fell
    assert watch.grid(2009, 68, both(2006, 1996)) == 60  # one of two was sampled
    assert watch.grid(2010, 68, both(2006, 2007)) == 60  # both were, but before the fall for all we know
    assert watch.grid(2017, 68, both(2016, 2007)) == 60
    assert watch.grid(2018, 68, both(2016, 2017)) == 44


def test_the_base_load_never_exceeds_what_the_meter_shows_beside_sampled_vehicles() -> None:
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    assert watch.grid(2001, 30, car(16, 2000)) == 40  # a vehicle may be what fell
    assert watch.grid(2005, 30, car(16, 2000)) == 30  # but whatever did, no more than 30 A are left


def test_a_rise_of_the_base_load_counts_in_the_second_sample() -> None:
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    assert watch.grid(2001, 76, car(16, 2000)) == 40
    assert watch.facts is not None
    assert watch.facts.bases[0].rise[0] == 60  # raises of ours have to fit beside it already
    assert watch.grid(2002, 76, car(16, 2000)) == 60


@pytest.mark.parametrize(
    ("meter_a", "base_after_one_sample_a"),
    [
        (116, 40),  # 1.16 x the limit of 100 A: may be a motor that starts
        (130, 40),  # 1.3 x
        (130.1, 114.1),  # above: at once
        (200, 184),
    ],
)
def test_an_overload_up_to_1_3_times_the_limit_is_debounced(meter_a: float, base_after_one_sample_a: float) -> None:
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    assert watch.grid(2001, meter_a, car(16, 2000)) == pytest.approx(base_after_one_sample_a)
    assert watch.grid(2002, meter_a, car(16, 2000)) == pytest.approx(meter_a - 16)


def test_a_motor_start_of_one_sample_leaves_no_trace() -> None:
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    assert watch.grid(2001, 120, car(16, 2000)) == 40
    assert watch.grid(2002, 56, car(16, 2000)) == 40
    assert watch.grid(2003, 56, car(16, 2000)) == 40


def test_the_same_sample_seen_twice_is_one_sample() -> None:
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    high = {"grid": reading(116, 2001)}
    for moment_s in (2001.0, 2001.2, 2001.4, 2002.0):
        assert watch.see(moment_s, high, car(16, 2000))["grid"][0] == 40
    assert watch.grid(2002, 116, car(16, 2000)) == 100


def test_the_power_is_debounced_like_the_currents() -> None:
    watch = one_evse()
    watch.grid(2000, 40)
    watch.grid(2001, 60)
    assert watch.facts is not None
    assert watch.facts.bases[0].load[3] == pytest.approx(40 * 690)
    watch.grid(2002, 60)
    assert watch.facts.bases[0].load[3] == pytest.approx(60 * 690)


# ------------------------------------------------------------------------------------------------------ our own raises


def raised(drawn_a: float, sampled_at_s: float, raised_at_s: float) -> dict[str, EvseEvidence]:
    """A vehicle whose setpoint went from 6 to 16 A."""
    return car(drawn_a, sampled_at_s, sent_at_s=raised_at_s, confirmed_at_s=raised_at_s)


@pytest.mark.parametrize(
    ("rise_a", "base_a"),
    [
        (10, 40),  # as much as we raised
        (15, 45),  # what is above our setpoint is not
        (4, 40),  # on its way
    ],
)
def test_a_rise_of_matching_size_after_our_own_raise_is_that_raise(rise_a: float, base_a: float) -> None:
    watch = one_evse()
    watch.grid(2000, 46, raised(6, 2000, 1000))
    for second in range(1, 9):
        assert watch.grid(2000 + second, 46 + rise_a, raised(6, 2000, 2000)) == pytest.approx(
            base_a if second > 1 else 40
        )
    sampled = 6 + min(rise_a, 10)  # the station says now what was its own
    for second in range(9, 20):
        base = watch.grid(2000 + second, 46 + rise_a, raised(sampled, 2009, 2000))
    assert base == pytest.approx(40 + max(0, rise_a - 10))


def test_a_rise_later_than_15_s_after_our_raise_is_base_load() -> None:
    watch = one_evse()
    for second in range(16):
        assert watch.grid(2000 + second, 46, raised(6, 2000, 2000)) == 40
    watch.grid(2016, 56, raised(6, 2000, 2000))
    assert watch.grid(2017, 56, raised(6, 2000, 2000)) == 50


def test_a_rise_above_the_limit_is_never_explained_away() -> None:
    watch = one_evse()
    watch.grid(2000, 96, raised(6, 2000, 2000))
    watch.grid(2001, 104, raised(6, 2000, 2000))
    assert watch.grid(2002, 104, raised(6, 2000, 2000)) == 98


def test_a_rise_on_a_phase_that_the_evse_does_not_use_is_base_load() -> None:
    watch = Watch(site([evse("e1", phases=(0,))]))
    evidence = {"e1": charging(16.0, (6.0, 0.0, 0.0), measured_at_s=2000, sent_at_s=2000.0, confirmed_at_s=2000.0)}
    watch.see(2000, (46.0, 40.0, 40.0), evidence)
    watch.see(2001, (56.0, 50.0, 40.0), evidence)
    assert watch.see(2002, (56.0, 50.0, 40.0), evidence)["grid"] == (40, 50, 40)


def test_the_start_of_a_transaction_explains_a_rise_up_to_the_fallback() -> None:
    watch = Watch(site([evse("e1", fallback_a=6.0)]))
    plugged_in = {"e1": charging(0.0, 0.0, sent_a=None, sent_at_s=None, transaction_since_s=2000.0, measured_at_s=2000)}
    watch.grid(2000, 40, plugged_in)
    assert watch.grid(2001, 46, plugged_in) == 40
    assert watch.grid(2002, 46, plugged_in) == 40


def test_after_our_own_restart_the_meters_rise_is_what_was_adopted() -> None:
    watch = one_evse()
    adopted = {"e1": replace(charging(16.0), measured_a=None, measured_at_s=None)}
    plan = watch.plan
    first = replace(snapshot(plan, adopted, {"grid": reading(40, 2000)}, now_s=2000), started_at_s=2000.0)
    facts = gather(first, Memory())
    kept = Memory(circuits=facts.circuit_memories, evses={"e1": facts.evse_memories[0]})
    for second in (1, 2):
        later = replace(
            snapshot(plan, adopted, {"grid": reading(56, 2000.0 + second)}, now_s=2000.0 + second), started_at_s=2000.0
        )
        facts = gather(later, kept)
        kept = Memory(circuits=facts.circuit_memories, evses={"e1": facts.evse_memories[0]})
    assert facts.bases[0].load[0] == 40


def test_a_credit_stands_until_a_sample_says_better() -> None:
    watch = one_evse()
    watch.grid(2000, 46, raised(6, 2000, 2000))
    for second in range(1, 120):
        # 6 A sampled and 10 A credited, however long no sample comes: or the plaza would shed for its own raise.
        assert watch.grid(2000 + second, 56, raised(6, 2000, 2000)) == 40


def test_while_a_vehicle_is_silent_the_base_load_does_not_fall() -> None:
    """What it leaves is not free: it may take it again without telling."""
    watch = one_evse()
    watch.grid(2000, 56, car(16, 2000))
    assert all(watch.grid(2000 + second, 40, car(16, 2000)) == 40 for second in range(1, 300))


# ----------------------------------------------------------------------------------------------------- trees of meters


def test_a_feeder_meter_explains_the_raises_of_its_own_evses_to_the_grid_meter() -> None:
    watch = Watch(site([evse("e1", circuit="hall")], circuit(), HALL))

    def both(grid_a: float, hall_a: float, at_s: float) -> dict[str, MeterReading]:
        return {"grid": reading(grid_a, at_s), "hall": reading(hall_a, at_s)}

    watch.see(2000, both(60, 26, 2000), raised(6, 2000, 2000))
    for second in (1, 2):
        # The hall shows a raise of 10 A; the grid connection 30 A: the other 20 A are no vehicle of the hall.
        base = watch.see(2000 + second, both(90, 36, 2000 + second), raised(6, 2000, 2000))
    assert base == {"grid": (74, 74, 74), "hall": (20, 20, 20)}


def test_an_unmetered_circuit_carries_its_worst_load_or_more_where_its_feeders_say_so() -> None:
    quiet = circuit("yard", 100.0, metered=False, base_worst_a=(30.0, 30.0, 10.0))
    plan = site([], quiet, replace(HALL, parent="yard"))
    watch = Watch(plan)
    assert watch.see(2000, {"hall": reading((20.0, 40.0, 20.0), 2000)})["yard"] == (30, 40, 20)
    assert watch.quality() is MeterQuality.UNMETERED


def test_an_unmetered_circuit_above_a_lost_meter_is_frozen() -> None:
    plan = site([], circuit("yard", metered=False), replace(HALL, parent="yard", base_worst_a=(50.0, 50.0, 50.0)))
    watch = Watch(plan)
    assert watch.see(2000, {})["yard"] == (50, 50, 50)
    assert watch.quality() is MeterQuality.FROZEN


# --------------------------------------------------------------------------------------------------------- stale meters


@pytest.mark.parametrize(
    ("period_s", "age_s", "quality"),
    [
        (1, 0, MeterQuality.FRESH),
        (1, 3, MeterQuality.FRESH),
        (1, 3.1, MeterQuality.FROZEN),  # raises stop at max(3 s, 2.5 periods)
        (1, 10, MeterQuality.FROZEN),
        (1, 10.1, MeterQuality.STALE),
        (1, 59.9, MeterQuality.STALE),
        (1, 60, MeterQuality.LOST),
        (2, 5, MeterQuality.FRESH),
        (2, 5.1, MeterQuality.FROZEN),
        (10, 25, MeterQuality.FRESH),  # a P1 port of DSMR 4
        (10, 25.1, MeterQuality.STALE),
        (10, 60, MeterQuality.LOST),
    ],
)
def test_a_meter_is_believed_by_its_age_and_its_period(period_s: float, age_s: float, quality: MeterQuality) -> None:
    sampled = reading(40, 2000, period_s=period_s)
    assert quality_of(sampled, CircuitMemory(), 2000 + age_s) is quality


WORST_A = 80.0


def stale_site() -> Watch:
    return Watch(site([], circuit(base_worst_a=phases(WORST_A))))


def test_a_meter_that_was_never_read_counts_as_the_worst_base_load() -> None:
    watch = stale_site()
    assert watch.see(2000, {})["grid"] == phases(WORST_A)
    assert watch.quality() is MeterQuality.LOST


def test_a_meter_that_falls_silent_without_history_counts_as_the_worst_base_load() -> None:
    watch = stale_site()
    last = {"grid": reading(40, 2000)}
    assert [watch.see(2000.0 + age_s, last)["grid"][0] for age_s in (0, 4, 10, 11, 60)] == [40, 40, 40, 80, 80]


def test_a_base_load_above_the_configured_worst_stays() -> None:
    watch = stale_site()
    last = {"grid": reading(95, 2000)}
    assert [watch.see(2000.0 + age_s, last)["grid"][0] for age_s in (0, 11, 60)] == [95, 95, 95]


def test_a_silent_meters_last_value_grows_with_the_rises_it_was_seen_to_make() -> None:
    watch = stale_site()
    for second in range(1, 1000):
        watch.grid(1000 + second, 40 if second < 980 else 44)  # a rise of 4 A, after a quarter of an hour of history
    last = {"grid": reading(44, 1999)}
    grown_a = [watch.see(1999.0 + age_s, last)["grid"][0] for age_s in (10, 11, 15, 30, 59, 60)]
    assert grown_a == pytest.approx([44, 48, 52, 55, 59, 80], abs=0.5)


@pytest.mark.parametrize(("silent_s", "frozen_s"), [(9, 0), (11, 30), (70, 30)])
def test_a_meter_that_was_lost_proves_itself_for_30_s(silent_s: int, frozen_s: int) -> None:
    watch = stale_site()
    last = {"grid": reading(40, 2000)}
    for second in range(silent_s + 1):
        watch.see(2000.0 + second, last)
    frozen = 0
    for second in range(60):
        at_s = 2001.0 + silent_s + second
        assert watch.grid(at_s, 40) == 40
        frozen += watch.quality() is MeterQuality.FROZEN
    assert frozen == pytest.approx(frozen_s, abs=1)
    assert watch.quality() is MeterQuality.FRESH


def test_a_surge_is_remembered_for_some_ten_minutes() -> None:
    watch = stale_site()
    for second in range(20):
        watch.grid(2000 + second, 40)
    for second in range(20, 40):
        watch.grid(2000 + second, 60)
    for second in range(40, 60):
        watch.grid(2000 + second, 40)
    assert watch.facts is not None
    assert watch.facts.bases[0].surge_w == pytest.approx(20 * 690, rel=0.1)
    for second in range(60, 3000):
        watch.grid(2000 + second, 40)
    assert watch.facts.bases[0].surge_w < 1500
