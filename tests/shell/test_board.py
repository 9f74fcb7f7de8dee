"""The board keeps the latest of everything, forgets what a reboot makes doubtful, and kicks when it matters."""

from dataclasses import replace

import pytest

from controller.board import REFUSED_S, Board
from controller.core.model import Circuit, EvseEvidence, EvseState, Limit, Site
from tests.shell.bench import SITE, START_S, ManualClock, RecordingStation, kicked, online, reading


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def board(clock: ManualClock) -> Board:
    return Board(SITE, clock)


@pytest.fixture
async def alpha() -> RecordingStation:
    return RecordingStation("alpha", ["alpha"])


def charge(board: Board, alpha: RecordingStation) -> None:
    """Bring alpha to a running transaction with 16 A confirmed until a lease's end."""
    online(board, alpha)
    board.evse_state("alpha", EvseState.AVAILABLE)
    board.fallback_installed("alpha")
    board.transaction_started("alpha", "tx")
    board.evse_state("alpha", EvseState.CHARGING)
    board.command_sent("alpha", 16.0)
    board.command_accepted("alpha", 16.0, START_S + 600.0)


# ------------------------------------------------------------------------------------ what brings decisions forward


@pytest.mark.parametrize("before", [EvseState.AVAILABLE, EvseState.RESERVED, EvseState.UNAVAILABLE])
@pytest.mark.parametrize("after", [EvseState.PREPARING, EvseState.CHARGING, EvseState.SUSPENDED_EV, EvseState.FAULTED])
def test_a_vehicle_that_plugs_in_is_looked_at_at_once(board: Board, before: EvseState, after: EvseState) -> None:
    board.evse_state("alpha", before)
    assert kicked(board, lambda: board.evse_state("alpha", after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EvseState.PREPARING, EvseState.CHARGING),
        (EvseState.CHARGING, EvseState.SUSPENDED_EV),
        (EvseState.FINISHING, EvseState.AVAILABLE),
        (EvseState.AVAILABLE, EvseState.AVAILABLE),
        (EvseState.AVAILABLE, EvseState.RESERVED),
    ],
)
def test_an_ordinary_change_of_state_waits_for_the_next_tick(board: Board, before: EvseState, after: EvseState) -> None:
    board.evse_state("alpha", before)
    assert not kicked(board, lambda: board.evse_state("alpha", after))


def test_a_reading_above_the_limit_on_one_phase_is_looked_at_at_once(board: Board) -> None:
    assert kicked(board, lambda: board.meter_read("grid", reading((20.0, 100.1, 30.0))))
    assert not kicked(board, lambda: board.meter_read("grid", reading((100.0, 100.0, 100.0))))


def test_a_station_that_goes_or_comes_is_looked_at_at_once(board: Board, alpha: RecordingStation) -> None:
    assert kicked(board, lambda: online(board, alpha))
    assert kicked(board, lambda: board.station_offline(alpha))
    assert not kicked(board, lambda: board.station_offline(alpha))


def test_a_new_transaction_is_looked_at_at_once_and_its_repetition_is_not(board: Board) -> None:
    assert kicked(board, lambda: board.transaction_started("alpha", "tx"))
    assert not kicked(board, lambda: board.transaction_started("alpha", "tx"))


def test_samples_and_failures_wait_for_the_next_tick(board: Board) -> None:
    assert not kicked(board, lambda: board.evse_measured("alpha", (16.0, 16.0, 16.0)))
    assert not kicked(board, lambda: board.meter_failed("grid", "no answer"))


def test_failed_readings_are_counted_by_what_was_wrong(board: Board) -> None:
    for problem in ("no answer", "no answer", "frozen"):
        board.meter_failed("grid", problem)
    assert dict(board.rejected) == {"grid: no answer": 2, "grid: frozen": 1}


# -------------------------------------------------------------------------------------------------------- the snapshot


def test_a_snapshot_is_not_changed_by_what_comes_after_it(board: Board, clock: ManualClock) -> None:
    board.meter_read("grid", reading(10.0))
    before = board.take()
    clock.advance(5.0)
    board.meter_read("grid", reading(20.0))
    board.transaction_started("alpha", "tx")
    assert before.now_s == START_S
    assert before.meters["grid"].current_a == (10.0, 10.0, 10.0)
    assert before.evses["alpha"].transaction is None
    after = board.take()
    assert (after.now_s, after.started_at_s) == (START_S + 5.0, START_S)
    assert after.meters["grid"].current_a == (20.0, 20.0, 20.0)
    assert after.evses["alpha"].transaction == "tx"


def test_a_snapshot_says_whether_utc_can_be_believed(board: Board, clock: ManualClock) -> None:
    assert board.take().clock_synchronised
    clock.disciplined = False
    assert not board.take().clock_synchronised


def test_an_older_sample_never_replaces_a_newer_one(board: Board, clock: ManualClock) -> None:
    board.evse_measured("alpha", (10.0, 10.0, 10.0))
    clock.advance(4.0)
    board.evse_measured("alpha", (7.0, 7.0, 7.0), age_s=4.5)
    assert board.evidence("alpha").measured_a == (10.0, 10.0, 10.0)
    board.evse_measured("alpha", (8.0, 8.0, 8.0), age_s=3.5)
    assert board.evidence("alpha").measured_a == (8.0, 8.0, 8.0)
    assert board.evidence("alpha").measured_at_s == START_S + 0.5


# ------------------------------------------------------------------------------------------- sessions come and go (C6)


def test_after_a_reboot_a_station_may_hold_what_it_was_told_or_nothing(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    told = board.evidence("alpha")
    online(board, alpha, rebooted=True)
    known = board.evidence("alpha")
    assert known.online
    assert not known.verified
    assert known.state is EvseState.UNKNOWN
    assert (known.sent_a, known.confirmed_a, known.lease_latest_s) == (
        told.sent_a,
        told.confirmed_a,
        told.lease_latest_s,
    )
    assert known.lease_until_s is None  # so that its setpoint is sent again
    assert known.may_hold_a == 6.0  # a profile that was lost leaves it at its fallback


def test_a_vacant_station_that_rebooted_is_not_vacant_for_sure(board: Board, alpha: RecordingStation) -> None:
    online(board, alpha)
    board.evse_state("alpha", EvseState.AVAILABLE)
    board.station_offline(alpha)
    online(board, alpha, rebooted=True)
    assert board.evidence("alpha").state is EvseState.UNKNOWN


def test_an_evse_that_stays_available_has_lost_its_transaction(
    board: Board, alpha: RecordingStation, clock: ManualClock
) -> None:
    charge(board, alpha)
    board.evse_state("alpha", EvseState.AVAILABLE)
    clock.advance(9.0)
    assert board.take().evses["alpha"].transaction is not None
    clock.advance(1.0)
    assert board.take().evses["alpha"].transaction is None


def test_a_power_above_the_limit_asks_for_a_decision_too(clock: ManualClock) -> None:
    grid = Circuit(id="grid", metered=True, limits=(Limit(source="power", value_w=20_000.0),))
    board = Board(Site(circuits=(grid,), evses=()), clock)
    board.meter_read("grid", reading(28.0))
    assert not board.kick.is_set()
    board.meter_read("grid", reading(30.0))
    assert board.kick.is_set()


def test_a_reconnect_keeps_what_the_station_was_told(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    told = board.evidence("alpha")
    board.station_offline(alpha)
    assert board.evidence("alpha") == replace(told, online=False)
    again = RecordingStation("alpha", ["alpha"])
    online(board, again, rebooted=False)
    assert board.evidence("alpha") == told


def test_after_a_reconnect_without_a_transaction_the_state_is_unknown(board: Board, alpha: RecordingStation) -> None:
    online(board, alpha)
    board.evse_state("alpha", EvseState.AVAILABLE)
    board.station_offline(alpha)
    online(board, alpha, rebooted=False)
    assert board.evidence("alpha").state is EvseState.UNKNOWN


def test_the_end_of_an_old_session_says_nothing_of_the_one_that_took_its_place(
    board: Board, alpha: RecordingStation
) -> None:
    online(board, alpha)
    newer = RecordingStation("alpha", ["alpha"])
    online(board, newer, rebooted=False)
    assert not kicked(board, lambda: board.station_offline(alpha))
    live = board.station_of("alpha")
    assert live is not None
    assert live.station is newer
    assert board.evidence("alpha").online
    board.station_offline(newer)
    assert board.station_of("alpha") is None
    assert not board.evidence("alpha").online


def test_all_evses_of_a_station_go_with_it(board: Board) -> None:
    bravo = RecordingStation("bravo", ["bravo-1", "bravo-2"])
    online(board, bravo)
    assert [board.evidence(name).online for name in ("alpha", "bravo-1", "bravo-2")] == [False, True, True]
    board.station_offline(bravo)
    assert not any(board.evidence(name).online for name in ("bravo-1", "bravo-2"))


def test_a_guest_is_known_by_the_place_it_was_given(board: Board) -> None:
    guest = RecordingStation("a-name-nobody-knows", ["alpha"])
    online(board, guest)
    live = board.station_of("alpha")
    assert live is not None
    assert live.station is guest


# -------------------------------------------------------------------------------------------------------- transactions


@pytest.mark.parametrize("state", [EvseState.AVAILABLE, EvseState.PREPARING, EvseState.FINISHING, EvseState.RESERVED])
def test_a_transaction_begins_under_a_fallback_that_is_known_to_be_there(
    board: Board, clock: ManualClock, state: EvseState
) -> None:
    board.evse_state("alpha", state)
    board.fallback_installed("alpha")
    clock.advance(7.0)
    board.transaction_started("alpha", "tx")
    known = board.evidence("alpha")
    assert (known.transaction, known.transaction_since_s) == ("tx", START_S + 7.0)
    assert (known.sent_a, known.confirmed_a) == (6.0, 6.0)
    assert known.confirmed_at_s == START_S + 7.0
    assert known.lease_until_s is None


@pytest.mark.parametrize("state", [EvseState.UNKNOWN, EvseState.CHARGING, EvseState.SUSPENDED_EV])
def test_a_transaction_that_ran_before_we_knew_may_be_under_any_profile(board: Board, state: EvseState) -> None:
    board.evse_state("alpha", state)
    board.fallback_installed("alpha")
    board.transaction_started("alpha", "tx")
    known = board.evidence("alpha")
    assert (known.sent_a, known.confirmed_a) == (None, None)


def test_without_a_verified_fallback_a_transaction_may_be_under_any_profile(board: Board) -> None:
    board.evse_state("alpha", EvseState.PREPARING)
    board.transaction_started("alpha", "tx")
    assert board.evidence("alpha").confirmed_a is None


def test_telling_a_start_again_changes_nothing(board: Board, alpha: RecordingStation, clock: ManualClock) -> None:
    charge(board, alpha)
    before = board.evidence("alpha")
    clock.advance(30.0)
    board.transaction_started("alpha", "tx")
    assert board.evidence("alpha") == before


def test_when_a_transaction_ends_the_fallback_rules_again(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    board.transaction_ended("alpha", "tx")
    known = board.evidence("alpha")
    assert known.transaction is None
    assert (known.sent_a, known.confirmed_a, known.lease_until_s) == (6.0, 6.0, None)
    assert known.state is EvseState.FINISHING


def test_the_end_of_another_transaction_is_not_the_end_of_this_one(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    before = board.evidence("alpha")
    board.transaction_ended("alpha", "yesterday's")
    assert board.evidence("alpha") == before


def test_an_end_that_comes_after_unplugging_leaves_the_evse_vacant(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    board.evse_state("alpha", EvseState.AVAILABLE)
    board.transaction_ended("alpha", "tx")
    assert board.evidence("alpha").state is EvseState.AVAILABLE


# ------------------------------------------------------------------------------------------------------------ commands


def test_a_command_is_in_flight_until_it_is_answered(board: Board, alpha: RecordingStation, clock: ManualClock) -> None:
    charge(board, alpha)
    clock.advance(5.0)
    board.command_sent("alpha", 20.0)
    known = board.evidence("alpha")
    assert (known.in_flight, known.sent_a, known.sent_at_s) == (True, 20.0, START_S + 5.0)
    assert (known.confirmed_a, known.confirmed_at_s) == (16.0, START_S)
    clock.advance(1.0)
    board.command_accepted("alpha", 20.0, START_S + 605.0)
    known = board.evidence("alpha")
    assert (known.in_flight, known.confirmed_a, known.confirmed_at_s) == (False, 20.0, START_S + 6.0)
    assert known.lease_until_s == START_S + 605.0


def test_a_renewal_does_not_make_the_last_change_younger(
    board: Board, alpha: RecordingStation, clock: ManualClock
) -> None:
    charge(board, alpha)
    clock.advance(400.0)
    board.command_sent("alpha", 16.0)
    board.command_accepted("alpha", 16.0, START_S + 1000.0)
    known = board.evidence("alpha")
    assert (known.sent_at_s, known.confirmed_at_s, known.lease_until_s) == (START_S, START_S, START_S + 1000.0)


def test_past_its_lease_and_a_grace_an_evse_is_known_to_hold_its_fallback(
    board: Board, alpha: RecordingStation, clock: ManualClock
) -> None:
    charge(board, alpha)
    board.station_offline(alpha)
    clock.advance(610.0)
    assert board.take().evses["alpha"].confirmed_a == 16.0
    clock.advance(0.1)
    known = board.take().evses["alpha"]
    assert (known.sent_a, known.confirmed_a, known.lease_until_s) == (6.0, 6.0, None)
    assert known.confirmed_at_s == START_S + 610.1


def test_a_refusal_leaves_what_held_before_and_is_forgotten_after_a_while(
    board: Board, alpha: RecordingStation, clock: ManualClock
) -> None:
    charge(board, alpha)
    board.command_sent("alpha", 20.0)
    board.command_refused("alpha")
    known = board.evidence("alpha")
    assert (known.sent_a, known.confirmed_a, known.in_flight) == (16.0, 16.0, False)
    assert board.take().evses["alpha"].refused
    clock.advance(REFUSED_S - 0.1)
    assert board.take().evses["alpha"].refused
    clock.advance(0.1)
    assert not board.take().evses["alpha"].refused


def test_without_an_answer_either_value_may_hold(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    board.command_sent("alpha", 20.0)
    board.command_unanswered("alpha")
    known = board.evidence("alpha")
    assert (known.sent_a, known.confirmed_a, known.in_flight) == (20.0, 16.0, False)


def test_a_confirmed_fallback_is_what_an_idle_station_holds(board: Board, alpha: RecordingStation) -> None:
    online(board, alpha)
    assert not board.evidence("alpha").verified
    board.fallback_installed("alpha")
    known = board.evidence("alpha")
    assert (known.verified, known.sent_a, known.confirmed_a) == (True, 6.0, 6.0)


def test_a_confirmed_fallback_says_nothing_of_a_running_transaction(board: Board, alpha: RecordingStation) -> None:
    online(board, alpha)
    board.transaction_started("alpha", "tx")
    board.fallback_installed("alpha")
    known = board.evidence("alpha")
    assert (known.verified, known.sent_a, known.confirmed_a) == (True, None, None)


# -------------------------------------------------------------------------------------------------- what is remembered


def test_what_is_remembered_never_says_that_somebody_is_there(board: Board, alpha: RecordingStation) -> None:
    charge(board, alpha)
    board.command_sent("alpha", 20.0)
    board.command_refused("alpha")
    board.command_sent("alpha", 12.0)
    remembered = board.remembered()
    assert set(remembered) == {"alpha", "bravo-1", "bravo-2"}
    assert not any(known.online or known.in_flight or known.refused for known in remembered.values())
    kept = remembered["alpha"]
    assert (kept.sent_a, kept.confirmed_a, kept.transaction, kept.verified) == (12.0, 16.0, "tx", True)


def test_a_new_board_starts_from_what_was_remembered_and_leaves_out_who_is_gone(clock: ManualClock) -> None:
    board = Board(SITE, clock, {"alpha": EvseEvidence(sent_a=9.0, verified=True), "sold": EvseEvidence(sent_a=7.0)})
    assert board.evidence("alpha").sent_a == 9.0
    assert board.evidence("bravo-1") == EvseEvidence()
    assert set(board.take().evses) == {"alpha", "bravo-1", "bravo-2"}
