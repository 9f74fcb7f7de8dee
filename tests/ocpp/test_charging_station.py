import asyncio
from pathlib import Path
from typing import Any

import pytest

from controller.core.electrical import Phases
from controller.ports import ChargingStation, Lease, StationGone, StationRefused, StationTimeout
from controller.store import TransactionFile
from drivers.ocpp.station import Timing
from tests.ocpp.plaza_of_stations import (
    NOON,
    V16,
    V201,
    Central,
    central,
    closed,
    event,
    iso,
    meter_values,
    station,
)

LEASE = Lease(value_a=16.0, fallback_a=6.0, lease_s=600)
VERSIONS = pytest.mark.parametrize("version", [V16, V201])
BEAT = '[2,"1","Heartbeat",{}]'


def online(plaza: Central) -> ChargingStation:
    return plaza.seen.stations[-1]


# ------------------------------------------------------------------------------------------------------ coming online


@VERSIONS
async def test_a_station_that_boots_is_online_and_rebooted(version: str) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        answer = await a.boot()
        assert answer == {"status": "Accepted", "currentTime": "2026-01-01T12:00:00Z", "interval": 60}
        ((identity, info, rebooted),) = await plaza.seen.until("online")
        assert (identity, info.vendor, info.model, info.firmware, rebooted) == ("a", "Bay", "M", "1", True)
        assert online(plaza).evses == ("a-1", "a-2")
        assert online(plaza).capabilities.assigns_transaction_ids is (version == V201)
    await plaza.seen.until("offline")


@VERSIONS
async def test_a_station_that_says_something_else_first_has_reconnected(version: str) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        await a.call("Heartbeat", {})
        assert [rebooted for _, _, rebooted in plaza.seen.of("online")] == [False]
        await a.boot()
        assert [rebooted for _, _, rebooted in await plaza.seen.until("online", 2)] == [False, True]


async def test_a_station_that_says_nothing_is_taken_for_reconnected_in_time() -> None:
    async with central(timing=Timing(boot_wait_s=0.05)) as plaza, station(plaza.url(), V16):
        ((_, info, rebooted),) = await plaza.seen.until("online")
        assert (info.vendor, rebooted) == ("", False)


async def test_nothing_is_asked_of_a_station_before_its_boot_is_answered() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        assert (await a.until_asked("ChangeConfiguration"))[0]["key"] == "MeterValueSampleInterval"
        # `boot` takes the next frame for its answer: a call of ours before it would have been asked by then.
        assert a.asked[0][0] == "ChangeConfiguration"


async def test_who_it_is_is_remembered_when_it_reconnects() -> None:
    async with central() as plaza:
        async with station(plaza.url(), V16) as a:
            await a.boot()
        await plaza.seen.until("offline")
        async with station(plaza.url(), V16) as a:
            await a.call("Heartbeat", {})
            assert plaza.seen.of("online")[1][1].vendor == "Bay"


async def test_a_triggered_boot_notification_is_no_reboot() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        await a.call("BootNotification", {"reason": "Triggered", "chargingStation": {"vendorName": "V", "model": "M"}})
        assert [rebooted for _, _, rebooted in await plaza.seen.until("online")] == [False]


# ---------------------------------------------------------------------------------------------------------- settings


async def test_samples_are_asked_for_after_a_boot_in_1_6() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        assert await a.until_asked("ChangeConfiguration", 2) == [
            {"key": "MeterValueSampleInterval", "value": "10"},
            {
                "key": "MeterValuesSampledData",
                "value": "Current.Import,Power.Active.Import,Energy.Active.Import.Register",
            },
        ]


async def test_samples_are_asked_for_after_a_boot_in_2_0_1() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        await a.boot()
        (asked,) = await a.until_asked("SetVariables")
        assert {(one["variable"]["name"], one["attributeValue"]) for one in asked["setVariableData"]} == {
            ("TxUpdatedInterval", "10"),
            ("TxUpdatedMeasurands", "Current.Import,Power.Active.Import,Energy.Active.Import.Register"),
        }


async def test_states_are_asked_for_after_a_reconnect_each_way_a_station_may_want() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.call("Heartbeat", {})
        asked = await a.until_asked("TriggerMessage", 3)  # the raw station rejects every one
        assert [one.get("connectorId") for one in asked] == [None, 1, 2]


async def test_settings_that_a_station_does_not_take_are_remembered_and_do_no_harm() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        a.answers["ChangeConfiguration"] = {"status": "NotSupported"}
        await a.call("Heartbeat", {})
        await a.until_asked("TriggerMessage", 3)
        assert plaza.server.settings_refused("a")["MeterValuesSampledData"] == "ChangeConfiguration: NotSupported"
        await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)


async def test_variables_that_a_station_does_not_take_are_remembered_by_name() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        refused = {"attributeStatus": "Rejected", "component": {"name": "c"}, "variable": {"name": "TxUpdatedInterval"}}
        a.answers["SetVariables"] = {"setVariableResult": [refused, {**refused, "attributeStatus": "Accepted"}]}
        await a.call("Heartbeat", {})
        await a.until_asked("TriggerMessage")
        assert plaza.server.settings_refused("a")["SampledDataCtrlr"] == "SetVariables: TxUpdatedInterval Rejected"


async def test_a_station_that_is_deaf_to_settings_is_asked_once_and_stays() -> None:
    timing = Timing(setup_timeout_s=0.05)
    async with central(timing=timing) as plaza, station(plaza.url(), V16) as a:
        a.answers["ChangeConfiguration"] = None
        await a.boot()
        await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)
        assert len(await a.until_asked("ChangeConfiguration")) == 1
        assert plaza.server.settings_refused("b") == {}


async def test_settings_are_not_written_again_on_every_reconnect() -> None:
    async with central() as plaza:
        async with station(plaza.url(), V16) as a:
            await a.boot()
            await a.until_asked("ChangeConfiguration", 2)
            await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)
        async with station(plaza.url(), V16) as a:
            await a.call("Heartbeat", {})
            await a.until_asked("TriggerMessage")
            assert [action for action, _ in a.asked if action == "ChangeConfiguration"] == []


# ------------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Available", "available"),
        ("Preparing", "preparing"),
        ("Charging", "charging"),
        ("SuspendedEV", "suspended_ev"),
        ("SuspendedEVSE", "suspended_evse"),
        ("suspendedevse ", "suspended_evse"),
        ("Finishing", "finishing"),
        ("Reserved", "reserved"),
        ("Unavailable", "unavailable"),
        ("Faulted", "faulted"),
        ("Dreaming", "unknown"),
    ],
)
async def test_states_of_1_6(word: str, state: str) -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.call("StatusNotification", {"connectorId": 2, "errorCode": "NoError", "status": word})
        assert plaza.seen.of("state") == [("a-2", state)]


async def test_the_stations_own_state_and_unknown_evses_are_nobodys() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        for connector in (0, 7):
            await a.call("StatusNotification", {"connectorId": connector, "errorCode": "NoError", "status": "Faulted"})
        assert plaza.seen.of("state") == []
        assert plaza.server.counters["messages_about_unknown_evses"] == 1


async def test_occupied_is_split_by_what_the_transaction_says() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:

        async def connector(status: str, number: int = 1) -> None:
            told = {"timestamp": iso(NOON), "connectorStatus": status, "evseId": 1, "connectorId": number}
            await a.call("StatusNotification", told)

        await connector("Available")
        await connector("Available", 2)
        await connector("Occupied")
        await a.call("TransactionEvent", event("Started", "EVConnected"))
        await a.call("TransactionEvent", event("Updated", "Charging"))
        await a.call("TransactionEvent", event("Updated"))
        await a.call("TransactionEvent", event("Updated", "SuspendedEVSE"))
        await a.call("TransactionEvent", event("Updated", "SuspendedEV"))
        await a.call("TransactionEvent", event("Ended"))
        await connector("Available")
        states = [state for _, state in plaza.seen.of("state")]
        assert [state for state, before in zip(states, [None, *states], strict=False) if state != before] == [
            "available",
            "preparing",
            "charging",
            "suspended_evse",
            "suspended_ev",
            "finishing",
            "available",
        ]


# ------------------------------------------------------------------------------------------------------- transactions


async def test_a_transaction_of_1_6_gets_one_id_however_often_it_is_told() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        first, again = await a.start(), await a.start()
        assert first == again
        other = await a.start(connector=2)
        assert other != first
        assert plaza.seen.of("started") == [("a-1", first), ("a-2", other)]
        stop = {"transactionId": int(first), "meterStop": 900, "timestamp": iso(NOON), "idTag": "T"}
        assert await a.call("StopTransaction", stop) == {"idTagInfo": {"status": "Accepted"}}
        assert plaza.seen.of("ended") == [("a-1", first)]
        # A start that comes again after its stop begins nothing.
        assert await a.start() == first
        assert len(plaza.seen.of("started")) == 2
        assert [record.transaction for record in plaza.log.open_transactions()] == [other]


@VERSIONS
async def test_a_transaction_message_is_kept_before_it_is_acknowledged(version: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    async with central(TransactionFile(kept)) as plaza, station(plaza.url(), version) as a:
        await a.start()
        assert "started" in (kept / "transactions.jsonl").read_text()


@VERSIONS
async def test_a_transaction_message_that_cannot_be_kept_is_not_acknowledged(version: str, tmp_path: Path) -> None:
    broken = tmp_path / "a file, no folder"
    broken.write_text("")
    async with central(TransactionFile(broken / "x")) as plaza, station(plaza.url(), version) as a:
        if version == V16:
            begin = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": iso(NOON)}
            code = await a.refused("StartTransaction", begin)
        else:
            code = await a.refused("TransactionEvent", event("Started"))
        assert code == "InternalError"
        assert plaza.seen.of("started") == []
        assert (await a.say(BEAT))[0] == 3


@pytest.mark.parametrize("transaction", [-1, 0, 4711])
async def test_a_stop_with_an_unknown_id_is_taken_and_no_evse_is_guessed(transaction: int) -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        running = await a.start()
        stop = {"transactionId": transaction, "meterStop": 9, "timestamp": iso(NOON)}
        assert await a.call("StopTransaction", stop) == {}
        assert [ended for ended in plaza.seen.of("ended") if ended[1] == running] == []


async def test_a_stop_without_an_id_ends_what_runs_on_the_only_evse() -> None:
    async with central() as plaza, station(plaza.url("/b"), V16) as b:
        running = await b.start()
        await b.call("StopTransaction", {"transactionId": -1, "meterStop": 9, "timestamp": iso(NOON)})
        assert plaza.seen.of("ended") == [("b", running)]
        assert plaza.log.open_transactions() == ()


async def test_a_transaction_on_an_unknown_connector_is_kept_and_told_to_nobody() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.start(connector=9)
        assert plaza.seen.of("started") == []
        assert [record.evse for record in plaza.log.open_transactions()] == ["a/9"]


async def test_what_ran_before_a_reconnect_runs_after_it() -> None:
    async with central() as plaza:
        async with station(plaza.url(), V16) as a:
            running = await a.start()
        await plaza.seen.until("offline")
        async with station(plaza.url(), V16) as a:
            await a.call("Heartbeat", {})
            assert plaza.seen.of("started") == [("a-1", running)] * 2
            await a.call("StopTransaction", {"transactionId": int(running), "meterStop": 9, "timestamp": iso(NOON)})
            assert plaza.seen.of("ended") == [("a-1", running)]


async def test_after_a_reboot_a_transaction_runs_when_the_station_says_so() -> None:
    async with central() as plaza:
        async with station(plaza.url(), V16) as a:
            running = await a.start()
        await plaza.seen.until("offline")
        async with station(plaza.url(), V16) as a:
            await a.boot()
            assert len(plaza.seen.of("started")) == 1
            unknown = {**meter_values(NOON, "10"), "transactionId": 2**63 - 1}
            await a.call("MeterValues", unknown)
            assert len(plaza.seen.of("started")) == 1
            await a.call("MeterValues", {**meter_values(NOON, "10"), "transactionId": int(running)})
            assert plaza.seen.of("started") == [("a-1", running)] * 2


async def test_a_transaction_of_2_0_1_keeps_the_stations_id() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        token = {"idToken": {"idToken": "T", "type": "ISO14443"}}
        assert await a.call("TransactionEvent", event("Started", **token)) == {"idTokenInfo": {"status": "Accepted"}}
        without_evse = {key: value for key, value in event("Updated", "Charging").items() if key != "evse"}
        assert await a.call("TransactionEvent", without_evse) == {}
        await a.call("TransactionEvent", {**without_evse, "eventType": "Ended"})
        await a.call("TransactionEvent", without_evse)  # an update that comes late
        assert plaza.seen.of("started") == [("a-1", "tx-1")]
        assert plaza.seen.of("ended") == [("a-1", "tx-1")]


async def test_an_update_of_a_transaction_we_never_heard_of_proves_it_in_2_0_1() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        await a.call("TransactionEvent", event("Updated", "Charging"))
        assert plaza.seen.of("started") == [("a-1", "tx-1")]


# ------------------------------------------------------------------------------------------------------------ samples


@pytest.mark.parametrize(
    ("connector", "amperes", "current_a"),
    [(1, ["16", "15", "14"], (16, 15, 14)), (2, ["10"], (0, 10, 0))],
)
async def test_samples_reach_the_board_on_site_phases(connector: int, amperes: list[str], current_a: Phases) -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        assert await a.call("MeterValues", meter_values(NOON, *amperes, connector=connector)) == {}
        assert plaza.seen.of("measured") == [(f"a-{connector}", current_a, 0.0)]


async def test_samples_from_the_offline_queue_do_not_steer() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        running = int(await a.start())
        for minute in range(60, 0, -1):
            await a.call("MeterValues", {**meter_values(NOON - 60 * minute, "32"), "transactionId": running})
        await a.call("MeterValues", {**meter_values(NOON - 3, "10"), "transactionId": running})
        assert [current_a for _, current_a, _ in plaza.seen.of("measured")] == [(10, 0, 0)]
        assert plaza.server.counters["samples_too_old_for_control"] == 60


async def test_samples_marked_offline_do_not_steer() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        sampled = [{"value": 16, "measurand": "Current.Import", "phase": "L1", "unitOfMeasure": {"unit": "A"}}]
        values = {"meterValue": [{"timestamp": iso(NOON), "sampledValue": sampled}]}
        await a.call("TransactionEvent", event("Started", offline=True, **values))
        assert plaza.seen.of("measured") == []
        await a.call("TransactionEvent", event("Updated", **values))
        assert plaza.seen.of("measured") == [("a-1", (16, 0, 0), 0.0)]


async def test_a_wrong_station_clock_is_learned_and_schedules_are_written_in_it() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        running = await a.start(at=iso(NOON - 7200))
        for _ in range(4):
            await a.call("MeterValues", meter_values(plaza.clock.unix - 7200, "10"))
            plaza.clock.pass_s(10)
        await plaza.seen.until("measured")
        await online(plaza).offer("a-1", running, LEASE, timeout_s=5)
        (profile,) = await a.until_asked("SetChargingProfile")
        start = profile["csChargingProfiles"]["chargingSchedule"]["startSchedule"]
        assert start == "2026-01-01T09:59:40Z"  # 12:00:40 is 10:00:40 there, less a minute


async def test_local_time_without_a_zone_says_nothing() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        told = meter_values(NOON, "10")
        told["meterValue"][0]["timestamp"] = "2025-06-01T05:00:00"
        await a.call("MeterValues", told)
        assert plaza.seen.of("measured") == [("a-1", (10, 0, 0), 0.0)]


async def test_the_energy_register_is_kept_with_the_transaction(tmp_path: Path) -> None:
    async with central(TransactionFile(tmp_path)) as plaza, station(plaza.url(), V201) as a:
        sampled = [{"value": 1.5, "unitOfMeasure": {"unit": "kWh"}}]
        await a.call("TransactionEvent", event("Ended", meterValue=[{"timestamp": iso(NOON), "sampledValue": sampled}]))
        assert '"meter_wh":1500' in (tmp_path / "transactions.jsonl").read_text()


# ----------------------------------------------------------------------------------------------------------- commands


@VERSIONS
async def test_a_lease_that_a_station_accepts(version: str) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        running = await a.start()
        await online(plaza).offer("a-1", running, LEASE, timeout_s=5)
        (sent,) = await a.until_asked("SetChargingProfile")
        assert running in str(sent)
        assert "TxProfile" in str(sent)


async def test_a_station_that_has_not_taken_in_its_new_transaction_is_asked_once_more() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        running = await a.start()
        a.answers["SetChargingProfile"] = {"status": "Rejected"}
        offer = asyncio.create_task(online(plaza).offer("a-1", running, LEASE, timeout_s=5))
        await a.until_asked("SetChargingProfile")
        a.answers["SetChargingProfile"] = {"status": "Accepted"}
        await offer
        a.answers["SetChargingProfile"] = {"status": "Rejected"}
        plaza.clock.pass_s(2)
        with pytest.raises(StationRefused):
            await online(plaza).offer("a-1", running, LEASE, timeout_s=5)
        assert len(await a.until_asked("SetChargingProfile")) == 3


@VERSIONS
async def test_a_fallback_that_a_station_accepts(version: str) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        await a.boot()
        await online(plaza).install_fallback("a-2", 6.0, timeout_s=5)
        (sent,) = await a.until_asked("SetChargingProfile")
        assert sent.get("connectorId", sent.get("evseId")) == 2
        assert "TxDefaultProfile" in str(sent)


@VERSIONS
@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"status": "Rejected"}, "Rejected"),
        ({"status": "NotSupported"}, "NotSupported"),
        ({"status": None}, "None"),
        ({}, "None"),
        ('[4,"ID","NotImplemented","",{}]', "NotImplemented"),
        ('[4,"ID","InternalError","out of memory",{}]', "out of memory"),
        ('[3,"ID",null]', "unreadable"),
        ('[3,"ID",{"status":', "unreadable"),
    ],
)
async def test_anything_but_accepted_is_a_refusal(version: str, answer: dict[str, Any] | str, why: str) -> None:
    async with central() as plaza, station(plaza.url(), version) as a:
        await a.boot()
        a.answers["SetChargingProfile"] = answer
        with pytest.raises(StationRefused, match=why):
            await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)


async def test_accepted_may_come_with_more_than_the_schema_knows() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        a.answers["SetChargingProfile"] = {"status": "accepted", "vendorInfo": 1}
        await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)


async def test_no_answer_is_a_timeout_and_three_of_them_close_the_socket() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        await a.until_asked("ChangeConfiguration", 2)
        a.answers["SetChargingProfile"] = None
        for _ in range(3):
            with pytest.raises(StationTimeout):
                await online(plaza).install_fallback("a-1", 6.0, timeout_s=0.05)
        assert await closed(a) == (1008, "3 calls unanswered")
        await plaza.seen.until("offline")
        with pytest.raises(StationGone):
            await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)


async def test_a_link_that_dies_fails_its_call_at_once() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        a.answers["SetChargingProfile"] = None
        call = asyncio.create_task(online(plaza).install_fallback("a-1", 6.0, timeout_s=3600))
        waiting = asyncio.create_task(online(plaza).install_fallback("a-2", 6.0, timeout_s=3600))
        await a.until_asked("SetChargingProfile")
        a.socket.transport.abort()
        async with asyncio.timeout(10):
            for task in (call, waiting):
                with pytest.raises(StationGone):
                    await task


async def test_an_answer_reaches_us_while_a_message_of_the_station_waits_for_the_disk() -> None:
    class SlowLog(TransactionFile):
        written = asyncio.Event()

        async def start(self, record: Any) -> str:  # noqa: ANN401 - as the port has it
            await self.written.wait()
            return await super().start(record)

    log = SlowLog(None)
    async with central(log) as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        starting = asyncio.create_task(a.start())
        await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)
        assert not starting.done()
        log.written.set()
        assert await starting


async def test_a_command_that_cannot_be_written_is_refused_and_not_sent() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        with pytest.raises(StationRefused, match="cannot be written"):
            await online(plaza).offer("a-1", "not a number", LEASE, timeout_s=5)
        with pytest.raises(StationRefused, match="no EVSE"):
            await online(plaza).offer("b", "1", LEASE, timeout_s=5)
        assert "SetChargingProfile" not in [action for action, _ in a.asked]


async def test_a_command_that_is_not_schema_valid_is_refused_and_not_sent() -> None:
    async with central() as plaza, station(plaza.url(), V201) as a:
        await a.boot()
        with pytest.raises(StationRefused, match="too long"):
            await online(plaza).offer("a-1", "x" * 37, LEASE, timeout_s=5)
        assert plaza.server.counters["calls_not_schema_valid"] == 1


async def test_a_station_can_be_disconnected() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        await online(plaza).disconnect("come back later")
        assert await closed(a) == (1000, "come back later")
        await plaza.seen.until("offline")


async def test_answers_to_nobody_are_dropped_and_counted() -> None:
    async with central() as plaza, station(plaza.url(), V16) as a:
        await a.boot()
        await a.socket.send('[3,"no such call",{"status":"Accepted"}]')
        await online(plaza).install_fallback("a-1", 6.0, timeout_s=5)
        assert plaza.server.counters["frames_unsolicited"] == 1
