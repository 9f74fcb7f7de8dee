"""Stations against a tiny central system over real sockets; every frame is held against the schemas."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from controller.clock import SystemClock
from simulators.physics import PhysicalCircuit, PlacedEvse, SitePhysics
from simulators.station import SimulatedStation
from simulators.station_manners import EvseRating, Manners
from simulators.station_messages import timestamp
from simulators.vehicle import Vehicle
from tests.simulators.simulated_csms import PATIENCE_S, TinyCsms, tiny_csms

RNG = Random(1)  # noqa: S311 - nothing here is secret
VERSIONS = ("1.6", "2.0.1")
QUICK = Manners(backoff_s=0.02, backoff_max_s=0.05, retry_s=0.01, reboot_s=0.05, sample_interval_s=1)
CAR = Vehicle(needs_kwh=50.0, wait_s=0.0, ramp_a_per_s=1000.0)
both_versions = pytest.mark.parametrize("version", VERSIONS)


class Lot:
    """A central system, a station connected to it, and the physics below."""

    def __init__(self, csms: TinyCsms, manners: Manners, evses: int) -> None:
        self.csms = csms
        self.clock = SystemClock(assume_synchronised=True)
        self.station = SimulatedStation(
            csms.url, ocpp=csms.version, evses=(EvseRating(),) * evses, clock=self.clock, rng=RNG, manners=manners
        )
        self.site = SitePhysics(
            circuits=(PhysicalCircuit(id="grid", limit_a=(80.0, 80.0, 80.0)),),
            evses=tuple(PlacedEvse(plug=evse, circuit="grid") for evse in self.station.evses),
            watchers=[lambda _: self._stepped.set()],
        )
        self._stepped = asyncio.Event()

    async def charging(self) -> str:
        """Plug a car in and wait until its transaction has its name; return that name."""
        self.station.plug_in(CAR)
        action = "StartTransaction" if self.csms.version == "1.6" else "TransactionEvent"
        await self.csms.until_heard(action)
        return await self.running()

    async def running(self) -> str:
        await self.until(lambda: self._name() is not None)
        return str(self._name())

    def _name(self) -> str | None:
        charge = self.station.charge(1)
        return charge.transaction if charge is not None else None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true; looked at after every step of the physics."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._stepped.clear()
                await self._stepped.wait()

    async def drawing(self, current_a: float) -> None:
        """Wait until L1 carries a current."""
        await self.until(lambda: abs(self.site.flow("grid").current_a[0] - current_a) < 0.01)

    async def limit(self, transaction: str, limit_a: float, **changes: object) -> dict[str, Any]:
        """Set a TxProfile, as a gateway does."""
        periods = [{"startPeriod": 0, "limit": limit_a}]
        start = timestamp(self.clock.unix_s() - 60.0)
        schedule = {"startSchedule": start, "chargingRateUnit": "A", "chargingSchedulePeriod": periods}
        rest = {"stackLevel": 0, "chargingProfilePurpose": "TxProfile", "chargingProfileKind": "Absolute", **changes}
        if self.csms.version == "1.6":
            profile = {"chargingProfileId": 5, "transactionId": int(transaction), "chargingSchedule": schedule, **rest}
            return await self.csms.call("SetChargingProfile", {"connectorId": 1, "csChargingProfiles": profile})
        profile = {"id": 5, "transactionId": transaction, "chargingSchedule": [{"id": 1, **schedule}], **rest}
        return await self.csms.call("SetChargingProfile", {"evseId": 1, "chargingProfile": profile})


@contextlib.asynccontextmanager
async def lot(version: str, *, manners: Manners = QUICK, evses: int = 1) -> AsyncIterator[Lot]:
    async with tiny_csms(version) as csms, living(Lot(csms, manners, evses)) as place:
        yield place


@contextlib.asynccontextmanager
async def living(place: Lot) -> AsyncIterator[Lot]:
    tasks = [asyncio.create_task(place.station.run()), asyncio.create_task(place.site.run(place.clock))]
    try:
        yield place
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def energy_wh(payload: dict[str, Any]) -> float:
    return next(
        float(value["value"])
        for value in payload["meterValue"][0]["sampledValue"]
        if value["measurand"] == "Energy.Active.Import.Register"
    )


@both_versions
async def test_a_station_boots_reports_charges_and_ends_its_transaction(version: str) -> None:
    async with lot(version) as place:
        await place.csms.until_heard("StatusNotification", 2 if version == "1.6" else 1)
        assert place.csms.actions()[0] == "BootNotification"
        await place.charging()
        await place.drawing(31.04)
        if version == "1.6":
            await place.csms.until_heard("StatusNotification", status="Charging")
            await place.csms.until_heard("MeterValues", transactionId=7)
            place.station.unplug()
            stop = await place.csms.until_heard("StopTransaction")
            assert (stop["transactionId"], stop["reason"]) == (7, "EVDisconnected")
            assert stop["meterStop"] > 0
        else:
            await place.csms.until_heard("StatusNotification", connectorStatus="Occupied")
            first = await place.csms.until_heard("TransactionEvent", eventType="Started")
            await place.csms.until_heard("TransactionEvent", triggerReason="MeterValuePeriodic")
            place.station.unplug()
            ended = await place.csms.until_heard("TransactionEvent", eventType="Ended")
            assert ended["transactionInfo"]["transactionId"] == first["transactionInfo"]["transactionId"]
            assert ended["transactionInfo"]["stoppedReason"] == "EVDisconnected"
            events = [body["seqNo"] for action, body in place.csms.heard if action == "TransactionEvent"]
            assert events == list(range(len(events)))
        assert "Authorize" in place.csms.actions()


@both_versions
async def test_meter_values_carry_every_terminal_the_offer_power_and_energy(version: str) -> None:
    async with lot(version) as place:
        await place.limit(await place.charging(), 16.0)
        await place.drawing(15.52)
        seen = len(place.csms.heard)

        def samples() -> list[dict[str, Any]]:
            return [body for _, body in place.csms.heard[seen:] if "meterValue" in body]

        await place.csms.until(lambda: len(samples()) >= 2)
        shown = {
            (value["measurand"], value.get("phase")): float(value["value"])
            for value in samples()[-1]["meterValue"][0]["sampledValue"]
        }
        assert [shown["Current.Import", f"L{n}"] for n in (1, 2, 3)] == [15.52] * 3
        assert shown["Current.Offered", None] == 16.0
        assert shown["Power.Active.Import", None] == pytest.approx(15.52 * 3 * 230, rel=0.01)
        assert energy_wh(samples()[-1]) > 0.0
        assert samples()[-1]["meterValue"][0]["timestamp"].endswith("Z")


@both_versions
async def test_a_profile_is_obeyed_until_it_is_cleared(version: str) -> None:
    async with lot(version) as place:
        transaction = await place.charging()
        await place.drawing(31.04)
        assert (await place.limit(transaction, 10.0))["status"] == "Accepted"
        await place.drawing(9.7)
        composite = await place.csms.call(
            "GetCompositeSchedule", {"connectorId" if version == "1.6" else "evseId": 1, "duration": 60}
        )
        schedule = composite["chargingSchedule" if version == "1.6" else "schedule"]
        assert schedule["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 10.0}]
        key = "id" if version == "1.6" else "chargingProfileId"
        assert await place.csms.call("ClearChargingProfile", {key: 5}) == {"status": "Accepted"}
        assert await place.csms.call("ClearChargingProfile", {key: 5}) == {"status": "Unknown"}
        await place.drawing(31.04)


@both_versions
async def test_a_tx_profile_for_another_transaction_is_refused(version: str) -> None:
    async with lot(version) as place:
        await place.charging()
        assert (await place.limit("99", 10.0))["status"] == "Rejected"
        assert place.station.statistics.profiles_rejected == 1


async def test_2x_wants_a_start_for_absolute_and_none_for_relative() -> None:
    async with lot("2.0.1") as place:
        transaction = await place.charging()
        refused = await place.limit(transaction, 10.0, chargingProfileKind="Relative")
        assert refused == {"status": "Rejected", "statusInfo": {"reasonCode": "InvalidSchedule"}}
        refused = await place.limit(transaction, 10.0, chargingProfilePurpose="ChargingStationExternalConstraints")
        assert refused["status"] == "Rejected"


@both_versions
@pytest.mark.parametrize("silent", [True, False])
async def test_a_dropped_station_keeps_its_profile_and_comes_back_without_a_boot(version: str, *, silent: bool) -> None:
    async with lot(version) as place:
        await place.limit(await place.charging(), 16.0)
        await place.drawing(15.52)
        before = len(place.csms.heard)
        outage = asyncio.create_task(place.station.drop(1.5, silent=silent))
        await place.until(lambda: not (place.station.online.is_set() or place.station.queued == 0))
        assert place.site.flow("grid").current_a[0] == pytest.approx(15.52)
        assert len(place.csms.connections) == 1
        place.station.unplug()
        await outage
        if version == "1.6":
            await place.csms.until_heard("StopTransaction", transactionId=7)
        else:
            ended = await place.csms.until_heard("TransactionEvent", eventType="Ended")
            assert ended["offline"] is True
        assert len(place.csms.connections) == 2
        assert "BootNotification" not in [action for action, _ in place.csms.heard[before:]]
        samples = [body for _, body in place.csms.heard[before:] if "meterValue" in body]
        assert samples, "what was measured while away arrives as well"
        assert place.station.statistics.drops == 1


async def test_a_silent_drop_leaves_the_central_system_a_connection_on_which_nothing_answers() -> None:
    async with lot("1.6") as place:
        await place.csms.until_heard("StatusNotification", 2)
        connection = place.csms.connections[0]
        outage = asyncio.create_task(place.station.drop(0.5))
        await place.until(lambda: not (place.station.online.is_set()))
        pong = await connection.ping()
        await outage
        async with asyncio.timeout(PATIENCE_S):
            await connection.wait_closed()
        with pytest.raises(ConnectionClosed):
            await pong  # the ping was never answered
        assert connection.close_code == 1006  # and no close frame was seen


@both_versions
async def test_a_charge_that_began_offline_is_told_in_order_afterwards(version: str) -> None:
    async with lot(version) as place:
        await place.csms.until_heard("StatusNotification", 2 if version == "1.6" else 1)
        outage = asyncio.create_task(place.station.drop(0.6))
        await place.until(lambda: not (place.station.online.is_set()))
        place.station.plug_in(CAR)
        await place.drawing(31.04)
        place.station.unplug()
        await outage
        if version == "1.6":
            stop = await place.csms.until_heard("StopTransaction")
            assert stop["transactionId"] == 7, "known only from the answer to the start"
            told = [action for action in place.csms.actions() if action.endswith("Transaction")]
            assert told == ["StartTransaction", "StopTransaction"]
        else:
            await place.csms.until_heard("TransactionEvent", eventType="Ended", offline=True)
            kinds = [body["eventType"] for action, body in place.csms.heard if action == "TransactionEvent"]
            assert (kinds[0], kinds[-1]) == ("Started", "Ended")


@both_versions
async def test_a_reboot_ends_the_transaction_keeps_the_default_and_charges_again(version: str) -> None:
    async with lot(version) as place:
        transaction = await place.charging()
        await place.limit(transaction, 16.0)
        schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 8.0}]}
        default = {"stackLevel": 0, "chargingProfilePurpose": "TxDefaultProfile", "chargingProfileKind": "Relative"}
        if version == "1.6":
            profile = {"chargingProfileId": 1, **default, "chargingSchedule": schedule}
            await place.csms.call("SetChargingProfile", {"connectorId": 0, "csChargingProfiles": profile})
            assert await place.csms.call("Reset", {"type": "Hard"}) == {"status": "Accepted"}
        else:
            profile = {"id": 1, **default, "chargingSchedule": [{"id": 1, **schedule}]}
            await place.csms.call("SetChargingProfile", {"evseId": 0, "chargingProfile": profile})
            assert await place.csms.call("Reset", {"type": "Immediate"}) == {"status": "Accepted"}
        await place.csms.until_heard("BootNotification", 2)
        if version == "1.6":
            await place.csms.until_heard("StopTransaction", reason="SoftReset")
            await place.csms.until_heard("StartTransaction", 2)
        else:
            await place.csms.until_heard("TransactionEvent", eventType="Ended")
            await place.csms.until_heard("TransactionEvent", 2, eventType="Started")
        await place.drawing(7.76)
        assert place.station.statistics.reboots == 1


@both_versions
async def test_the_sample_interval_is_configured_from_afar(version: str) -> None:
    async with lot(version, manners=replace(QUICK, sample_interval_s=3600)) as place:
        await place.charging()
        if version == "1.6":
            for value, status in (("1", "Accepted"), ("soon", "Rejected")):
                change = {"key": "MeterValueSampleInterval", "value": value}
                assert await place.csms.call("ChangeConfiguration", change) == {"status": status}
            unknown = await place.csms.call("ChangeConfiguration", {"key": "Colour", "value": "red"})
            assert unknown == {"status": "NotSupported"}
            answer = await place.csms.call("GetConfiguration", {"key": ["MeterValueSampleInterval", "Colour"]})
            assert answer["configurationKey"][0] == {"key": "MeterValueSampleInterval", "readonly": False, "value": "1"}
            assert answer["unknownKey"] == ["Colour"]
            await place.csms.until_heard("MeterValues")
        else:
            variable = {"component": {"name": "SampledDataCtrlr"}, "variable": {"name": "TxUpdatedInterval"}}
            other = {"component": {"name": "Colour"}, "variable": {"name": "Red"}}
            data = [variable | {"attributeValue": "1"}, other | {"attributeValue": "1"}]
            answer = await place.csms.call("SetVariables", {"setVariableData": data})
            statuses = [result["attributeStatus"] for result in answer["setVariableResult"]]
            assert statuses == ["Accepted", "UnknownComponent"]
            answer = await place.csms.call("GetVariables", {"getVariableData": [variable]})
            assert answer["getVariableResult"][0]["attributeValue"] == "1"
            await place.csms.until_heard("TransactionEvent", triggerReason="MeterValuePeriodic")


@both_versions
@pytest.mark.parametrize("wanted", ["BootNotification", "Heartbeat", "StatusNotification", "MeterValues"])
async def test_a_triggered_message_follows_the_reply(version: str, wanted: str) -> None:
    async with lot(version) as place:
        await place.csms.until_heard("StatusNotification", 2 if version == "1.6" else 1)
        before = place.csms.actions().count(wanted)
        assert await place.csms.call("TriggerMessage", {"requestedMessage": wanted}) == {"status": "Accepted"}
        await place.csms.until_heard(wanted, before + 1)


@both_versions
async def test_a_transaction_is_started_and_stopped_from_afar(version: str) -> None:
    async with lot(version, evses=2) as place:
        place.station.plug_in(CAR, card=None)
        schedule = {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 12.0}]}
        brought = {"stackLevel": 0, "chargingProfilePurpose": "TxProfile", "chargingProfileKind": "Relative"}
        await place.csms.until_heard("StatusNotification", 3 if version == "1.6" else 2)
        if version == "1.6":
            profile = {"chargingProfileId": 9, **brought, "chargingSchedule": schedule}
            start = {"connectorId": 1, "idTag": "REMOTE", "chargingProfile": profile}
            assert await place.csms.call("RemoteStartTransaction", start) == {"status": "Accepted"}
            await place.csms.until_heard("StartTransaction", idTag="REMOTE")
            await place.drawing(11.64)
            assert await place.csms.call("RemoteStopTransaction", {"transactionId": 8}) == {"status": "Rejected"}
            assert await place.csms.call("RemoteStopTransaction", {"transactionId": 7}) == {"status": "Accepted"}
            await place.csms.until_heard("StopTransaction", reason="Remote")
            await place.csms.until_heard("StatusNotification", status="Finishing")
        else:
            profile = {"id": 9, **brought, "chargingSchedule": [{"id": 1, **schedule}]}
            token = {"idToken": "REMOTE", "type": "Central"}
            start = {"evseId": 1, "remoteStartId": 3, "idToken": token, "chargingProfile": profile}
            assert (await place.csms.call("RequestStartTransaction", start))["status"] == "Accepted"
            begun = await place.csms.until_heard("TransactionEvent", triggerReason="RemoteStart")
            assert begun["transactionInfo"]["remoteStartId"] == 3
            await place.drawing(11.64)
            stop = {"transactionId": begun["transactionInfo"]["transactionId"]}
            assert await place.csms.call("RequestStopTransaction", stop) == {"status": "Accepted"}
            await place.csms.until_heard("TransactionEvent", triggerReason="RemoteStop")
        await place.drawing(0.0)


@both_versions
async def test_a_card_that_is_refused_charges_nothing(version: str) -> None:
    async with lot(version) as place:
        refusal = {"status": "Blocked"}
        key = "idTagInfo" if version == "1.6" else "idTokenInfo"
        place.csms.answers["Authorize"] = lambda _: {key: refusal}
        place.station.plug_in(CAR)
        await place.csms.until_heard("Authorize")
        if version == "1.6":
            await place.csms.until_heard("StatusNotification", status="Finishing")
        await place.until(lambda: not (place.station.evse().card is not None))
        assert place.station.statistics.transactions_started == 0


@both_versions
async def test_availability_is_changed_from_afar(version: str) -> None:
    async with lot(version) as place:
        await place.csms.until_heard("StatusNotification")
        if version == "1.6":
            change = {"connectorId": 1, "type": "Inoperative"}
            assert await place.csms.call("ChangeAvailability", change) == {"status": "Accepted"}
            await place.csms.until_heard("StatusNotification", status="Unavailable")
        else:
            change = {"operationalStatus": "Inoperative", "evse": {"id": 1}}
            assert await place.csms.call("ChangeAvailability", change) == {"status": "Accepted"}
            await place.csms.until_heard("StatusNotification", connectorStatus="Unavailable")


@both_versions
async def test_what_a_station_cannot_do_or_read_it_answers_with_an_error(version: str) -> None:
    async with lot(version) as place:
        await place.csms.until_heard("StatusNotification")
        assert await place.csms.call("UnlockConnector", {"connectorId": 1}) == {"error": "NotImplemented"}
        assert await place.csms.call("SetChargingProfile", {"nonsense": 1}) == {"error": "PropertyConstraintViolation"}
        await place.csms.connections[-1].send("[[[")
        assert "error" not in await place.csms.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        assert place.station.statistics.bad_frames == 1


async def test_a_pending_boot_is_repeated_until_it_is_accepted() -> None:
    answers = iter(["Pending", "Accepted"])
    async with tiny_csms("1.6") as csms:
        csms.answers["BootNotification"] = lambda _: {
            "status": next(answers),
            "currentTime": "2027-01-15T08:00:00Z",
            "interval": 1,
        }
        async with living(Lot(csms, QUICK, 1)) as place:
            await csms.until_heard("Heartbeat")
            assert csms.actions()[:3] == ["BootNotification", "BootNotification", "StatusNotification"]
            assert place.station.statistics.boots == 1


async def test_a_station_waits_for_a_central_system_that_is_not_there_yet() -> None:
    csms = TinyCsms("1.6")
    await csms.open()
    port = int(csms.url.split(":")[2].split("/")[0])
    await csms.close()
    async with living(Lot(csms, QUICK, 1)) as place:
        await place.until(lambda: place.station.statistics.failed_connects >= 2)
        await csms.open(port)
        await csms.until_heard("BootNotification")
    await csms.close()


async def test_a_central_system_that_speaks_another_version_is_not_talked_to() -> None:
    async with tiny_csms("2.0.1") as csms, tiny_csms("1.6") as other:
        other.url = csms.url
        async with living(Lot(other, QUICK, 1)) as place:
            await place.until(lambda: place.station.statistics.failed_connects >= 2)
            assert csms.heard == []


async def test_a_2x_station_refuses_a_second_profile_in_an_occupied_slot() -> None:
    async with lot("2.0.1") as place:
        transaction = await place.charging()
        assert (await place.limit(transaction, 10.0))["status"] == "Accepted"
        assert (await place.limit(transaction, 11.0))["status"] == "Accepted"
        assert (await place.limit(transaction, 12.0, id=6))["status"] == "Rejected"


@both_versions
async def test_a_message_about_a_transaction_is_tried_three_times_before_it_is_given_up(version: str) -> None:
    async with lot(version) as place:
        action = "StartTransaction" if version == "1.6" else "TransactionEvent"
        place.csms.answers[action] = lambda _: {"error": "InternalError"}
        place.station.plug_in(CAR)
        await place.csms.until_heard(action, 4 if version == "2.0.1" else 3)
        await place.until(lambda: place.station.statistics.messages_lost >= 1)
        tries = [body for name, body in place.csms.heard if name == action][:4]
        assert tries[0] == tries[1] == tries[2]
        if version == "1.6":
            place.station.unplug()
            stop = await place.csms.until_heard("StopTransaction")
            assert stop["transactionId"] == -1  # nobody ever told it a name
        else:
            assert tries[3]["seqNo"] == 1


@both_versions
async def test_a_central_system_that_does_not_answer_is_left_and_told_again(version: str) -> None:
    async with lot(version, manners=replace(QUICK, call_timeout_s=0.3)) as place:
        action = "StartTransaction" if version == "1.6" else "TransactionEvent"
        await place.csms.until_heard("StatusNotification")
        place.csms.answers[action] = lambda _: None
        place.station.plug_in(CAR)
        first = await place.csms.until_heard(action)
        second = await place.csms.until_heard(action, 2)
        assert (first, len(place.csms.connections)) == (second, 2)
        del place.csms.answers[action]
        await place.running()
        await place.until(lambda: place.station.queued == 0)
        assert place.station.statistics.messages_lost == 0


@both_versions
async def test_a_transaction_whose_card_is_refused_is_ended(version: str) -> None:
    async with lot(version) as place:
        if version == "1.6":
            refusal = {"transactionId": 7, "idTagInfo": {"status": "Invalid"}}
            place.csms.answers["StartTransaction"] = lambda _: refusal
        else:
            place.csms.answers["TransactionEvent"] = lambda _: {"idTokenInfo": {"status": "Invalid"}}
        place.station.plug_in(CAR)
        if version == "1.6":
            await place.csms.until_heard("StopTransaction", reason="DeAuthorized", transactionId=7)
        else:
            await place.csms.until_heard("TransactionEvent", eventType="Ended", triggerReason="Deauthorized")
        await place.drawing(0.0)


async def test_2x_tells_of_a_transaction_when_asked_and_resets_when_it_is_over() -> None:
    async with lot("2.0.1", manners=replace(QUICK, sample_interval_s=3600)) as place:
        wanted = {"requestedMessage": "TransactionEvent", "evse": {"id": 1}}
        await place.csms.until_heard("StatusNotification")
        assert await place.csms.call("TriggerMessage", wanted) == {"status": "Rejected"}
        await place.charging()
        assert await place.csms.call("TriggerMessage", wanted) == {"status": "Accepted"}
        await place.csms.until_heard("TransactionEvent", triggerReason="Trigger")
        assert await place.csms.call("Reset", {"type": "OnIdle"}) == {"status": "Scheduled"}
        assert place.station.statistics.reboots == 0
        place.station.unplug()
        boot = await place.csms.until_heard("BootNotification", 2)
        assert boot["reason"] == "RemoteReset"
