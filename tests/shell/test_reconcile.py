"""Commands leave in the right order, one at a time for each station, and only evidence says what a station holds."""

import asyncio
from dataclasses import replace

import pytest

from controller.core.model import EvseState, ReasonCode
from controller.ports import StationGone, StationRefused, StationTimeout
from tests.shell.bench import START_S, RecordingStation, bench, decision, online, settle

# ----------------------------------------------------------------------------------------------------------- the order


async def test_of_one_station_the_decrease_leaves_before_the_raise() -> None:
    async with bench() as b:
        await b.charging(b.bravo)
        b.bravo.willing = True
        await b.apply(decision(bravo_2=10.0))
        for _ in range(2):
            await b.apply(decision(bravo_1=16.0, bravo_2=8.0))
        assert b.bravo.told[1:] == [("offer", "bravo-2", 8.0), ("offer", "bravo-1", 16.0)]


async def test_a_decrease_leaves_before_the_installation_of_a_fallback_and_that_before_a_raise() -> None:
    async with bench() as b:
        b.bravo.willing = True
        online(b.board, b.bravo)
        b.board.evse_state("bravo-1", EvseState.PREPARING)
        b.board.fallback_installed("bravo-1")
        b.board.transaction_started("bravo-1", "tx")
        await b.apply(decision(bravo_1=0.0, bravo_2=0.0))
        await b.apply(decision(bravo_1=16.0, bravo_2=0.0))
        await b.apply(decision(bravo_1=16.0, bravo_2=0.0))
        assert b.bravo.told == [("offer", "bravo-1", 0.0), ("install", "bravo-2", 6.0), ("offer", "bravo-1", 16.0)]


async def test_across_stations_the_largest_decrease_is_the_first_on_the_wire() -> None:
    async with bench() as b:
        wire: list[str] = []

        class Wired(RecordingStation):
            async def offer(self, evse: str, *arguments: object, **options: object) -> None:
                wire.append(evse)
                await super().offer(evse, *arguments, **options)  # type: ignore[arg-type]  # as they came

        small, large = Wired("alpha", ["alpha"]), Wired("bravo", ["bravo-1", "bravo-2"])
        for station in (small, large):
            station.willing = True
            await b.charging(station)
        for name in ("alpha", "bravo-1"):
            b.board.command_sent(name, 16.0)
            b.board.command_accepted(name, 16.0, START_S + 600.0)
        await b.apply(decision(alpha=14.0, bravo_1=8.0))
        assert wire == ["bravo-1", "alpha"]


async def test_a_station_has_one_command_in_flight_and_then_gets_the_latest() -> None:
    async with bench() as b:
        await b.charging(b.bravo)
        await b.apply(decision(bravo_1=16.0, bravo_2=16.0))
        assert b.bravo.told == [("offer", "bravo-1", 16.0)]
        await b.apply(decision(bravo_1=16.0, bravo_2=12.0))
        await b.apply(decision(bravo_1=16.0, bravo_2=10.0))
        assert len(b.bravo.calls) == 1
        b.bravo.calls[0].accept()
        await settle()
        await b.apply(decision(bravo_1=16.0, bravo_2=9.0))
        assert b.bravo.told[1:] == [("offer", "bravo-2", 9.0)]


async def test_one_station_does_not_wait_for_another() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.charging(b.bravo)
        await b.apply(decision(alpha=10.0))
        await b.apply(decision(alpha=10.0, bravo_1=11.0))
        assert b.alpha.told == [("offer", "alpha", 10.0)]
        assert b.bravo.told == [("offer", "bravo-1", 11.0)]


async def test_nothing_is_sent_to_a_station_that_is_not_there() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.board.station_offline(b.alpha)
        await b.apply(decision(alpha=10.0))
        assert b.alpha.calls == []
        assert b.reconciler.sent == 0


async def test_nothing_is_sent_without_a_transaction() -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        b.board.fallback_installed("alpha")
        await b.apply(decision(alpha=10.0))
        assert b.alpha.calls == []


async def test_nothing_is_sent_when_the_station_holds_what_it_should() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=10.0))
        for _ in range(5):
            b.clock.advance(1.0)
            await b.apply(decision(alpha=10.0))
        assert b.alpha.told == [("offer", "alpha", 10.0)]
        assert (b.reconciler.sent, b.reconciler.confirmed, b.reconciler.failed) == (1, 1, 0)


# --------------------------------------------------------------------------------------------------------- the fallback


async def test_the_fallback_is_installed_before_anything_is_offered() -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        b.board.transaction_started("alpha", "tx")
        await b.apply(decision(alpha=10.0))
        assert b.alpha.told == [("install", "alpha", 6.0)]
        b.alpha.calls[0].accept()
        await settle()
        assert b.board.evidence("alpha").verified
        await b.apply(decision(alpha=10.0))
        assert b.alpha.told[1:] == [("offer", "alpha", 10.0)]


@pytest.mark.parametrize("error", [StationRefused("no"), StationTimeout("nothing")])
async def test_a_fallback_that_was_not_taken_is_tried_again_after_half_a_minute(error: Exception) -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        await b.apply(decision(alpha=10.0))
        b.alpha.calls[0].fail(error)
        await settle()
        for _ in range(29):
            b.clock.advance(1.0)
            await b.apply(decision(alpha=10.0))
        assert len(b.alpha.calls) == 1
        assert not b.board.evidence("alpha").verified
        b.clock.advance(1.0)
        await b.apply(decision(alpha=10.0))
        assert b.alpha.told == [("install", "alpha", 6.0)] * 2
        assert b.reconciler.failed == 1


async def test_a_fallback_that_was_refused_is_tried_at_once_on_a_new_connection() -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        await b.apply(decision(alpha=10.0))
        b.alpha.calls[0].fail(StationRefused("no"))
        await settle()
        b.board.station_offline(b.alpha)
        again = RecordingStation("alpha", ["alpha"])
        online(b.board, again, rebooted=False)
        b.clock.advance(1.0)
        await b.apply(decision(alpha=10.0))
        assert again.told == [("install", "alpha", 6.0)]


async def test_a_link_that_broke_while_the_fallback_was_sent_is_no_refusal() -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        await b.apply(decision(alpha=10.0))
        b.alpha.calls[0].fail(StationGone("cut"))
        await settle()
        await b.apply(decision(alpha=10.0))
        assert b.alpha.told == [("install", "alpha", 6.0)] * 2


async def test_a_transaction_that_starts_meanwhile_does_not_cost_a_second_installation() -> None:
    async with bench() as b:
        online(b.board, b.alpha)
        await b.apply(decision(alpha=10.0))
        b.board.transaction_started("alpha", "tx")
        b.alpha.calls[0].accept()
        await settle()
        known = b.board.evidence("alpha")
        assert (known.verified, known.confirmed_a) == (True, None)
        await b.apply(decision(alpha=10.0))
        assert b.alpha.told[1:] == [("offer", "alpha", 10.0)]


async def test_a_reconnect_does_not_write_the_fallback_again_but_a_reboot_does() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        b.board.station_offline(b.alpha)
        online(b.board, b.alpha, rebooted=False)
        await b.apply(decision(alpha=6.0))
        assert b.alpha.told == []
        online(b.board, b.alpha, rebooted=True)
        await b.apply(decision(alpha=6.0))
        assert b.alpha.told == [("install", "alpha", 6.0)]


# --------------------------------------------------------------------------------------------------------- the outcomes


async def test_an_accepted_setpoint_is_confirmed_with_its_lease() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        call = b.alpha.calls[0]
        assert call.transaction == "tx-alpha"
        assert call.lease is not None
        assert (call.lease.fallback_a, call.lease.lease_s) == (6.0, 600.0)
        known = b.board.evidence("alpha")
        assert (known.in_flight, known.sent_a, known.confirmed_a) == (True, 16.0, 6.0)
        b.clock.advance(2.0)
        call.accept()
        await settle()
        known = b.board.evidence("alpha")
        # The lease runs from the asking, not from the answer: the station may have started it at any time between.
        assert (known.in_flight, known.confirmed_a, known.lease_until_s) == (False, 16.0, START_S + 600.0)
        assert (b.reconciler.sent, b.reconciler.confirmed, b.reconciler.failed) == (1, 1, 0)


async def test_a_setpoint_that_is_the_fallback_has_no_lease_to_run_out() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=10.0))
        await b.apply(decision(alpha=6.0))
        assert b.board.evidence("alpha").lease_until_s is None


async def test_a_refused_setpoint_leaves_what_was_confirmed() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].fail(StationRefused("no"))
        await settle()
        known = b.board.evidence("alpha")
        assert (known.sent_a, known.confirmed_a, known.in_flight, known.refused) == (6.0, 6.0, False, True)
        assert (b.reconciler.confirmed, b.reconciler.failed) == (0, 1)


async def test_after_a_timeout_either_value_may_hold_and_the_wanted_one_is_sent_again() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].fail(StationTimeout("nothing"))
        await settle()
        known = b.board.evidence("alpha")
        assert (known.sent_a, known.confirmed_a, known.in_flight, known.refused) == (16.0, 6.0, False, False)
        await b.apply(decision(alpha=6.0))  # it may hold 16 A: 6 A must be made sure
        assert b.alpha.told[1:] == [("offer", "alpha", 6.0)]


async def test_a_link_that_broke_leaves_both_values_possible() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.board.station_offline(b.alpha)
        b.alpha.calls[0].fail(StationGone("cut"))
        await settle()
        known = b.board.evidence("alpha")
        assert (known.online, known.sent_a, known.confirmed_a, known.in_flight) == (False, 16.0, 6.0, False)


async def test_the_answer_of_an_old_session_says_nothing_of_the_new_one() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        late = b.alpha.calls[0]
        again = RecordingStation("alpha", ["alpha"])
        online(b.board, again, rebooted=True)
        b.board.fallback_installed("alpha")
        before = b.board.evidence("alpha")
        late.accept()
        await settle()
        assert b.board.evidence("alpha") == before
        await b.apply(decision(alpha=10.0))
        assert again.told == [("offer", "alpha", 10.0)]


async def test_the_answer_to_an_old_transaction_says_nothing_of_the_new_one_and_does_not_block_it() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.board.transaction_ended("alpha", "tx-alpha")
        b.board.transaction_started("alpha", "next")
        b.alpha.calls[0].accept()
        await settle()
        known = b.board.evidence("alpha")
        assert (known.transaction, known.confirmed_a, known.in_flight) == ("next", 6.0, False)
        await b.apply(decision(alpha=12.0))
        assert (b.alpha.calls[1].transaction, b.alpha.calls[1].value_a) == ("next", 12.0)


async def test_an_evse_whose_transaction_ended_with_a_command_in_flight_can_be_commanded_again() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.board.transaction_ended("alpha", "tx-alpha")
        b.alpha.calls[0].fail(StationRefused("no such transaction"))
        await settle()
        known = b.board.evidence("alpha")
        assert (known.in_flight, known.refused, known.confirmed_a) == (False, False, 6.0)


async def test_a_driver_that_fails_leaves_its_station_to_be_commanded_again(caplog: pytest.LogCaptureFixture) -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].fail(ZeroDivisionError("a bug in a driver"))
        await settle()
        known = b.board.evidence("alpha")
        assert (known.in_flight, known.sent_a, known.confirmed_a) == (False, 16.0, 6.0)
        assert b.supervisor.failures == 1
        assert "command alpha failed" in caplog.text
        await b.apply(decision(alpha=12.0))
        assert b.alpha.told[1:] == [("offer", "alpha", 12.0)]


# -------------------------------------------------------------------------------------------------------- the renewals


async def test_a_lease_is_renewed_when_a_third_of_it_is_left() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=16.0))
        b.clock.advance(399.0)
        await b.apply(decision(alpha=16.0))
        assert len(b.alpha.calls) == 1
        b.clock.advance(1.0)
        await b.apply(decision(alpha=16.0))
        assert b.alpha.told == [("offer", "alpha", 16.0)] * 2
        assert b.board.evidence("alpha").lease_until_s == START_S + 400.0 + 600.0


async def test_a_pause_below_the_fallback_is_renewed_too_or_it_would_decay_upwards() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=0.0))
        b.clock.advance(400.0)
        await b.apply(decision(alpha=0.0))
        assert b.alpha.told == [("offer", "alpha", 0.0)] * 2


async def test_the_fallback_itself_is_never_renewed() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=10.0))
        await b.apply(decision(alpha=6.0))
        b.clock.advance(5_000.0)
        await b.apply(decision(alpha=6.0))
        assert b.alpha.told == [("offer", "alpha", 10.0), ("offer", "alpha", 6.0)]


async def test_any_new_setpoint_is_a_renewal() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        await b.apply(decision(alpha=16.0))
        b.clock.advance(300.0)
        await b.apply(decision(alpha=14.0))
        b.clock.advance(399.0)
        await b.apply(decision(alpha=14.0))
        assert len(b.alpha.calls) == 2


async def test_a_renewal_without_an_answer_may_have_begun_a_new_lease() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].accept()
        await settle()
        b.clock.advance(400.0)
        await b.apply(decision(alpha=16.0))
        b.board.station_offline(b.alpha)  # the link broke with the renewal under way
        b.alpha.calls[1].fail(StationGone("cut"))
        await settle()
        assert b.board.evidence("alpha").lease_latest_s == START_S + 400.0 + 600.0
        b.clock.advance(300.0)  # the first lease is over, the second may run
        assert b.board.take().evses["alpha"].confirmed_a == 16.0
        b.clock.advance(311.0)
        assert b.board.take().evses["alpha"].confirmed_a == 6.0


async def test_a_raise_without_an_answer_may_hold_beyond_the_lease_before_it() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=10.0))
        b.alpha.calls[0].accept()
        await settle()
        b.clock.advance(390.0)
        await b.apply(decision(alpha=16.0))
        b.board.station_offline(b.alpha)
        b.alpha.calls[1].fail(StationGone("cut"))
        await settle()
        b.clock.advance(500.0)
        known = b.board.take().evses["alpha"]
        assert (known.sent_a, known.confirmed_a) == (16.0, 10.0)


async def test_a_renewal_without_an_answer_is_sent_again_at_once() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].accept()
        await settle()
        b.clock.advance(400.0)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[1].fail(StationTimeout("nothing"))
        await settle()
        await b.apply(decision(alpha=16.0))
        assert b.alpha.told == [("offer", "alpha", 16.0)] * 3
        b.alpha.calls[2].accept()
        await settle()
        await b.apply(decision(alpha=16.0))
        assert len(b.alpha.calls) == 3


async def test_a_refused_renewal_leaves_the_lease_that_was_held() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[0].accept()
        await settle()
        b.clock.advance(400.0)
        await b.apply(decision(alpha=16.0))
        b.alpha.calls[1].fail(StationRefused("no"))
        await settle()
        assert b.board.evidence("alpha").lease_until_s == START_S + 600.0


# ------------------------------------------------------------------------------------------------------- the overloads


async def test_on_overload_a_raise_is_given_up_after_a_second_and_the_decrease_follows() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.clock.advance(0.9)
        await b.apply(decision(overloaded=True, alpha=6.0))
        assert not b.alpha.calls[0].answer.cancelled()
        b.clock.advance(0.1)
        await b.apply(decision(overloaded=True, alpha=6.0))
        assert b.alpha.calls[0].answer.cancelled()
        known = b.board.evidence("alpha")
        assert (known.sent_a, known.confirmed_a, known.in_flight) == (16.0, 6.0, False)  # it may have been taken
        await b.apply(decision(overloaded=True, alpha=6.0))
        assert b.alpha.told == [("offer", "alpha", 16.0), ("offer", "alpha", 6.0)]
        assert b.reconciler.failed == 1


async def test_without_an_overload_a_raise_has_its_time() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=16.0))
        b.clock.advance(4.0)
        await b.apply(decision(alpha=6.0))
        assert not b.alpha.calls[0].answer.cancelled()
        assert len(b.alpha.calls) == 1


async def test_on_overload_a_decrease_in_flight_is_not_given_up() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=0.0))
        b.clock.advance(4.0)
        await b.apply(decision(overloaded=True, alpha=0.0))
        assert not b.alpha.calls[0].answer.cancelled()


# --------------------------------------------------------------------------------------------------- the disobedient


async def test_a_setpoint_that_is_not_obeyed_is_repeated_every_half_minute() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        b.alpha.willing = True
        fenced = decision(reason=ReasonCode.DISOBEDIENT, alpha=6.0)
        await b.apply(fenced)
        for _ in range(29):
            b.clock.advance(1.0)
            await b.apply(fenced)
        assert b.alpha.told == [("offer", "alpha", 6.0)]
        b.clock.advance(1.0)
        await b.apply(fenced)
        assert b.alpha.told == [("offer", "alpha", 6.0)] * 2


async def test_nothing_is_offered_to_an_evse_that_cannot_be_controlled_now() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        wanted = decision(alpha=16.0)
        fixed = replace(wanted.setpoints["alpha"], controllable=False)
        await b.apply(replace(wanted, setpoints={"alpha": fixed}))
        assert b.alpha.calls == []


async def test_commands_that_are_still_in_flight_when_the_gateway_stops_are_ended() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.charging(b.bravo)
        b.reconciler.apply(decision(alpha=16.0))
        await settle()
        b.reconciler.apply(decision(alpha=16.0, bravo_1=16.0))  # has not even begun when the bench is cleared
    assert b.alpha.calls[0].answer.cancelled()
    assert b.bravo.calls == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_refused_retry_does_not_undo_a_command_without_an_answer() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        await b.apply(decision(alpha=30.0))
        b.alpha.calls[0].fail(StationTimeout("lost"))
        await settle()
        await b.apply(decision(alpha=30.0))
        b.alpha.calls[1].fail(StationRefused("no"))
        await settle()
        assert b.board.evidence("alpha").may_hold_a == 30.0


async def test_a_lower_command_without_an_answer_does_not_hide_a_higher_one() -> None:
    async with bench() as b:
        await b.charging(b.alpha)
        for number, value_a in enumerate((30.0, 10.0)):
            await b.apply(decision(alpha=value_a))
            b.alpha.calls[number].fail(StationTimeout("lost"))
            await settle()
        assert b.board.evidence("alpha").may_hold_a == 30.0
        b.clock.advance(20.0)
        await b.apply(decision(alpha=10.0))  # nothing is certain until one was answered
        b.alpha.calls[2].accept()
        await settle()
        known = b.board.evidence("alpha")
        assert known.may_hold_a is None
        assert known.confirmed_at_s == b.clock.now_s()  # the room of the drop counts from here


async def test_every_evse_of_a_station_with_a_command_to_answer_is_in_flight() -> None:
    async with bench() as b:
        await b.charging(b.bravo)
        await b.apply(decision(bravo_1=16.0))
        evses = b.board.take().evses
        assert [evses[name].in_flight for name in ("alpha", "bravo-1", "bravo-2")] == [False, True, True]
        b.bravo.calls[0].accept()
        await settle()
        assert not b.board.take().evses["bravo-2"].in_flight
