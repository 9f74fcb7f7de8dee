import pytest

from simulators.vehicle import Vehicle, VehicleState, is_full, step, terminals_a


def driven(vehicle: Vehicle, state: VehicleState, offered_a: float, seconds: float, *, phases: int = 3) -> VehicleState:
    for _ in range(round(seconds * 10)):
        state = step(vehicle, state, offered_a, 0.1, phases=phases)
    return state


@pytest.mark.parametrize(
    ("offered_a", "draws_a"),
    [
        (0.0, 0.0),
        (5.9, 0.0),  # below 6 A the control pilot says "do not charge"
        (6.0, 5.82),  # a little less than offered
        (16.0, 15.52),
        (32.0, 20.0),  # its own charger is the limit
    ],
)
def test_a_vehicle_draws_what_its_offer_and_its_charger_allow(offered_a: float, draws_a: float) -> None:
    vehicle = Vehicle(needs_kwh=50.0, max_a=20.0)
    assert driven(vehicle, VehicleState(), offered_a, 6.0).drawn_a == pytest.approx(draws_a)


@pytest.mark.parametrize("max_a", [16.0, 32.0, 63.0])
@pytest.mark.parametrize("wait_s", [0.0, 1.5, 2.0])
def test_a_vehicle_follows_within_the_five_seconds_of_the_standard(max_a: float, wait_s: float) -> None:
    vehicle = Vehicle(needs_kwh=50.0, max_a=max_a, wait_s=wait_s, draw_ratio=1.0)
    full = driven(vehicle, VehicleState(), max_a, 5.1)
    assert full.drawn_a == max_a
    assert driven(vehicle, full, 0.0, 5.1).drawn_a == 0.0


def test_a_vehicle_hesitates_and_then_moves_gradually() -> None:
    vehicle = Vehicle(needs_kwh=50.0, max_a=32.0)
    assert driven(vehicle, VehicleState(), 16.0, 1.3).drawn_a == 0.0
    assert 0.0 < driven(vehicle, VehicleState(), 16.0, 2.0).drawn_a < 10.0


def test_an_offer_that_keeps_changing_is_followed_all_the_same() -> None:
    vehicle, state = Vehicle(needs_kwh=50.0), VehicleState()
    for n in range(50):
        state = step(vehicle, state, 16.0 + 0.1 * n, 0.1)
    assert state.drawn_a > 14.0


@pytest.mark.parametrize(
    ("vehicle_phases", "evse_phases", "expected_a"),
    [(3, 3, (10.0, 10.0, 10.0)), (2, 3, (10.0, 10.0, 0.0)), (1, 3, (10.0, 0.0, 0.0)), (3, 1, (10.0, 0.0, 0.0))],
)
def test_only_the_phases_that_both_have_carry_current(
    vehicle_phases: int, evse_phases: int, expected_a: tuple[float, float, float]
) -> None:
    vehicle = Vehicle(needs_kwh=50.0, phases=vehicle_phases)
    assert terminals_a(vehicle, VehicleState(drawn_a=10.0), evse_phases) == expected_a


def test_a_battery_tapers_over_its_last_fifth_and_stops_when_full() -> None:
    vehicle = Vehicle(needs_kwh=1.0, max_a=32.0, phases=1)
    before = driven(vehicle, VehicleState(charged_wh=790.0), 32.0, 5.0)
    assert before.drawn_a == pytest.approx(31.04)
    tapered = driven(vehicle, VehicleState(charged_wh=900.0), 32.0, 5.0)
    assert 10.0 < tapered.drawn_a < 16.5
    done = driven(vehicle, VehicleState(charged_wh=999.9), 32.0, 600.0)
    assert is_full(vehicle, done)
    assert done.drawn_a == 0.0


def test_the_energy_taken_is_current_times_voltage_times_phases() -> None:
    state = driven(Vehicle(needs_kwh=50.0, draw_ratio=1.0), VehicleState(drawn_a=10.0, following_a=10.0), 10.0, 360.0)
    assert state.charged_wh == pytest.approx(10.0 * 230.0 * 3 / 10)


@pytest.mark.parametrize("wrong", [{"phases": 0}, {"phases": 4}, {"wait_s": 5.0}])
def test_an_impossible_vehicle_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"phases|wait_s"):
        Vehicle(needs_kwh=1.0, **wrong)  # type: ignore[arg-type]  # one of each type
