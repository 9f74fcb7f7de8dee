"""What a station does without a network: the physics steps it, a manual clock moves it."""

from random import Random

import pytest

from controller.core.model import EvseState
from simulators.judge import Judge
from simulators.physics import PhysicalCircuit, PlacedEvse, SitePhysics
from simulators.profiles import Kind, Period, Profile, Purpose
from simulators.station import SimulatedStation
from simulators.station_manners import EvseRating, Manners
from simulators.vehicle import Vehicle
from tests.simulators.simulated_csms import ManualClock

ALONE = Manners(charges_unbooted=True)
RNG = Random(1)  # noqa: S311 - nothing here is secret
URL = "ws://127.0.0.1:9/ocpp/CS-1"


class Bench:
    """A station with the clock and the physics under it."""

    def __init__(self, *evses: EvseRating, manners: Manners = ALONE, ocpp: str = "1.6") -> None:
        self.clock = ManualClock()
        self.station = SimulatedStation(
            URL, ocpp=ocpp, evses=evses or (EvseRating(),), clock=self.clock, rng=RNG, manners=manners
        )
        placed = tuple(PlacedEvse(plug=evse, circuit="grid") for evse in self.station.evses)
        self.judge = Judge()
        self.site = SitePhysics(
            circuits=(PhysicalCircuit(id="grid", limit_a=(80.0, 80.0, 80.0)),),
            evses=placed,
            watchers=[self.judge.watch],
            source_ohm=0.0,
        )

    def live(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.site.step(0.1)

    def install(self, number: int, purpose: Purpose, *limits_a: float, every_s: int = 20, start_s: float = 0.0) -> None:
        now_s = self.station.unix_s()
        profile = Profile(
            id=10 * list(Purpose).index(purpose) + number, evse=number, stack_level=0, purpose=purpose,
            kind=Kind.ABSOLUTE, start_unix_s=now_s + start_s,
            periods=tuple(Period(start_s=n * every_s, limit=value_a) for n, value_a in enumerate(limits_a)),
        )  # fmt: skip
        self.station.install(profile)


def test_an_offline_station_without_a_profile_charges_as_if_nothing_limited_it() -> None:
    bench = Bench(EvseRating(max_a=20.0))
    bench.station.plug_in(Vehicle(needs_kwh=50.0, max_a=32.0))
    bench.live(10.0)
    assert bench.station.evse().offered_a() == 20.0
    assert bench.site.flow("grid").current_a == pytest.approx((19.4, 19.4, 19.4))
    assert bench.station.evse().setpoint_a() is None


def test_a_station_that_no_central_system_ever_accepted_starts_nothing() -> None:
    bench = Bench(manners=Manners())
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(10.0)
    assert bench.station.evse().state is EvseState.PREPARING
    assert bench.site.flow("grid").current_a == (0.0, 0.0, 0.0)


def test_a_lease_of_two_periods_decays_on_the_station_s_own_clock() -> None:
    ahead, behind = Bench(manners=Manners(charges_unbooted=True, skew_s=15.0)), Bench()
    for bench in (ahead, behind):
        bench.station.plug_in(Vehicle(needs_kwh=50.0))
        bench.live(0.1)
        # The gateway writes the start of the schedule by its own clock, as it would by an uncorrected skew.
        bench.install(1, Purpose.TX, 16.0, 6.0, start_s=-bench.station.manners.skew_s)
        bench.live(4.0)
        assert bench.station.evse().offered_a() == 16.0
        bench.live(2.0)
    assert (ahead.station.evse().offered_a(), behind.station.evse().offered_a()) == (6.0, 16.0)
    behind.live(14.5)
    assert behind.station.evse().offered_a() == 6.0
    behind.live(5.0)
    assert behind.site.flow("grid").current_a[0] == pytest.approx(5.82)


def test_the_states_of_a_charge() -> None:
    bench = Bench()
    evse = bench.station.evse()
    seen = [evse.state]
    bench.station.plug_in(Vehicle(needs_kwh=0.05, taper_ratio=0.0))
    seen.append(evse.state)
    bench.live(6.0)
    seen.append(evse.state)
    bench.install(1, Purpose.TX, 0.0)
    bench.live(1.0)
    seen.append(evse.state)
    bench.install(1, Purpose.TX, 16.0)
    bench.live(60.0)
    seen.append(evse.state)
    bench.station.unplug()
    seen.append(evse.state)
    assert seen == [
        EvseState.AVAILABLE,
        EvseState.PREPARING,
        EvseState.CHARGING,
        EvseState.SUSPENDED_EVSE,
        EvseState.SUSPENDED_EV,
        EvseState.AVAILABLE,
    ]
    assert bench.site.delivered_kwh == pytest.approx(0.05, abs=0.004)  # it ramps down, and takes a little more
    assert (bench.station.statistics.transactions_started, bench.station.statistics.transactions_ended) == (1, 1)


@pytest.mark.parametrize(("limit_a", "offers_a"), [(5.9, 0.0), (6.0, 6.0), (40.0, 32.0)])
def test_an_offer_is_nothing_or_at_least_the_minimum_and_at_most_the_hardware(limit_a: float, offers_a: float) -> None:
    bench = Bench()
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(0.1)
    bench.install(1, Purpose.TX, limit_a)
    bench.live(1.0)
    assert bench.station.evse().offered_a() == offers_a
    assert bench.judge.violations["C2"] == (0 if limit_a == 6.0 else 1)


@pytest.mark.parametrize(("limit_a", "shares_a"), [(20.0, [10.0, 10.0]), (10.0, [10.0, 0.0]), (64.0, [32.0, 32.0])])
def test_a_limit_of_the_whole_station_is_shared_by_its_evses(limit_a: float, shares_a: list[float]) -> None:
    bench = Bench(EvseRating(), EvseRating())
    for number in (1, 2):
        bench.station.plug_in(Vehicle(needs_kwh=50.0), evse=number)
    bench.install(0, Purpose.STATION_MAX, limit_a)
    bench.live(1.0)
    assert [evse.offered_a() for evse in bench.station.evses] == shares_a


def test_an_offer_is_held_for_a_while_except_to_stop() -> None:
    bench = Bench(manners=Manners(charges_unbooted=True, pilot_hold_s=5.0))
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(6.0)
    bench.install(1, Purpose.TX, 10.0)
    bench.live(0.1)
    bench.install(1, Purpose.TX, 16.0)
    bench.live(1.0)
    assert bench.station.evse().offered_a() == 10.0
    bench.live(5.0)
    assert bench.station.evse().offered_a() == 16.0
    bench.install(1, Purpose.TX, 0.0)
    bench.live(0.1)
    assert bench.station.evse().offered_a() == 0.0


@pytest.mark.parametrize("ocpp", ["1.6", "2.0.1"])
def test_what_waits_for_the_network_is_bounded_and_samples_make_room_first(ocpp: str) -> None:
    bench = Bench(manners=Manners(charges_unbooted=True, sample_interval_s=1), ocpp=ocpp)
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(600.0)
    bench.station.unplug()
    waiting = [message.action for message in bench.station._outbox]
    assert len(waiting) == 500
    assert bench.station.statistics.messages_lost >= 100
    assert (waiting[0], waiting[-1]) == (
        ("StartTransaction", "StopTransaction") if ocpp == "1.6" else ("TransactionEvent", "TransactionEvent")
    )


def test_an_inoperative_evse_finishes_its_charge_and_starts_no_other() -> None:
    bench = Bench()
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(6.0)
    assert bench.station.change_availability(1, operative=False) is False
    bench.live(1.0)
    assert bench.station.evse().state is EvseState.CHARGING
    bench.station.unplug()
    assert bench.station.evse().state is EvseState.UNAVAILABLE
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    bench.live(6.0)
    assert bench.site.flow("grid").current_a == (0.0, 0.0, 0.0)
    assert bench.station.change_availability(1, operative=True) is True
    bench.live(6.0)
    assert bench.station.evse().state is EvseState.CHARGING


def test_two_vehicles_do_not_fit_one_plug() -> None:
    bench = Bench()
    bench.station.plug_in(Vehicle(needs_kwh=50.0))
    with pytest.raises(ValueError, match="already"):
        bench.station.plug_in(Vehicle(needs_kwh=50.0))
