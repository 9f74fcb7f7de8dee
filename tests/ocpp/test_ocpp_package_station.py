"""Stations of the `ocpp` package: an implementation that is not ours must get on with the server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

from ocpp.routing import on  # type: ignore[import-untyped]  # the package carries no types
from ocpp.v16 import ChargePoint as ChargePoint16  # type: ignore[import-untyped]  # the package carries no types
from ocpp.v16 import call as call16
from ocpp.v16 import call_result as result16
from ocpp.v201 import ChargePoint as ChargePoint201  # type: ignore[import-untyped]  # the package carries no types
from ocpp.v201 import call as call201
from ocpp.v201 import call_result as result201
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from controller.ports import Lease
from tests.ocpp.plaza_of_stations import NOON, PATIENCE_S, V16, V201, Central, central, iso

LEASE = Lease(value_a=16.0, fallback_a=6.0, lease_s=600)


class Station16(ChargePoint16):  # type: ignore[misc]  # the package carries no types
    """Accepts everything and keeps the profiles."""

    profiles: list[dict[str, Any]]

    @on("SetChargingProfile")  # type: ignore[untyped-decorator]  # the package carries no types
    def on_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any]) -> object:
        self.profiles.append(cs_charging_profiles | {"connector": connector_id})
        return result16.SetChargingProfile(status="Accepted")

    @on("ChangeConfiguration")  # type: ignore[untyped-decorator]  # the package carries no types
    def on_change(self, key: str, value: str) -> object:
        del key, value
        return result16.ChangeConfiguration(status="Accepted")


class Station201(ChargePoint201):  # type: ignore[misc]  # the package carries no types
    """Accepts everything and keeps the profiles."""

    profiles: list[dict[str, Any]]

    @on("SetChargingProfile")  # type: ignore[untyped-decorator]  # the package carries no types
    def on_profile(self, evse_id: int, charging_profile: dict[str, Any]) -> object:
        self.profiles.append(charging_profile | {"evse": evse_id})
        return result201.SetChargingProfile(status="Accepted")

    @on("SetVariables")  # type: ignore[untyped-decorator]  # the package carries no types
    def on_set(self, set_variable_data: list[dict[str, Any]]) -> object:
        return result201.SetVariables(
            set_variable_result=[
                {"attribute_status": "Accepted", "component": one["component"], "variable": one["variable"]}
                for one in set_variable_data
            ]
        )


@contextlib.asynccontextmanager
async def running(kind: Any, plaza: Central, version: str) -> AsyncIterator[Any]:  # noqa: ANN401 - an untyped class
    """Connect a station of the package and let it read."""
    async with connect(plaza.url(), subprotocols=[Subprotocol(version)], proxy=None) as socket:
        point = kind("a", socket, response_timeout=PATIENCE_S)
        point.profiles = []
        reader = asyncio.create_task(point.start())
        try:
            yield point
        finally:
            await socket.close()
            with contextlib.suppress(ConnectionClosed):
                await reader


async def test_a_1_6_station_from_boot_to_stop() -> None:
    async with central() as plaza, running(Station16, plaza, V16) as point:
        boot = await point.call(call16.BootNotification(charge_point_model="M", charge_point_vendor="V"))
        assert boot.status == "Accepted"
        begun = await point.call(
            call16.StartTransaction(connector_id=1, id_tag="T", meter_start=0, timestamp=iso(NOON))
        )
        sampled = [{"value": "15.5", "measurand": "Current.Import", "phase": "L1", "unit": "A"}]
        values = [{"timestamp": iso(NOON), "sampled_value": sampled}]
        await point.call(call16.MeterValues(connector_id=1, meter_value=values, transaction_id=begun.transaction_id))
        (server_side,) = plaza.seen.stations
        await server_side.install_fallback("a-1", 6.0, timeout_s=PATIENCE_S)
        await server_side.offer("a-1", str(begun.transaction_id), LEASE, timeout_s=PATIENCE_S)
        stopped = await point.call(
            call16.StopTransaction(meter_stop=900, timestamp=iso(NOON), transaction_id=begun.transaction_id)
        )
        assert stopped is not None
        fallback, lease = cast("list[dict[str, Any]]", point.profiles)
        assert fallback["charging_profile_purpose"] == "TxDefaultProfile"
        periods = lease["charging_schedule"]["charging_schedule_period"]
        assert [(period["start_period"], period["limit"]) for period in periods] == [(0, 16.0), (660, 6.0)]
        assert plaza.seen.of("measured") == [("a-1", (15.5, 0, 0), 0.0)]
        transaction = str(begun.transaction_id)
        assert plaza.seen.of("started") == plaza.seen.of("ended") == [("a-1", transaction)]


async def test_a_2_0_1_station_from_boot_to_stop() -> None:
    async with central() as plaza, running(Station201, plaza, V201) as point:
        boot = await point.call(
            call201.BootNotification(charging_station={"model": "M", "vendor_name": "V"}, reason="PowerUp")
        )
        assert boot.status == "Accepted"

        async def tell(kind: str, state: str, trigger: str, **more: object) -> None:
            answer = await point.call(
                call201.TransactionEvent(
                    event_type=kind,
                    timestamp=iso(NOON),
                    trigger_reason=trigger,
                    seq_no=1,
                    transaction_info={"transaction_id": "tx-1", "charging_state": state},
                    evse={"id": 1},
                    **more,
                )
            )
            assert answer is not None

        await tell("Started", "EVConnected", "CablePluggedIn")
        sampled = [{"value": 15.5, "measurand": "Current.Import", "phase": "L1", "unit_of_measure": {"unit": "A"}}]
        values = [{"timestamp": iso(NOON), "sampled_value": sampled}]
        await tell("Updated", "Charging", "MeterValuePeriodic", meter_value=values)
        (server_side,) = plaza.seen.stations
        await server_side.install_fallback("a-1", 6.0, timeout_s=PATIENCE_S)
        await server_side.offer("a-1", "tx-1", LEASE, timeout_s=PATIENCE_S)
        await tell("Ended", "Idle", "EVDeparted")
        fallback, lease = cast("list[dict[str, Any]]", point.profiles)
        assert fallback["charging_profile_purpose"] == "TxDefaultProfile"
        assert lease["transaction_id"] == "tx-1"
        periods = lease["charging_schedule"][0]["charging_schedule_period"]
        assert [(period["start_period"], period["limit"]) for period in periods] == [(0, 16.0), (660, 6.0)]
        assert plaza.seen.of("measured") == [("a-1", (15.5, 0, 0), 0.0)]
        assert plaza.seen.of("started") == plaza.seen.of("ended") == [("a-1", "tx-1")]
        assert ("a-1", "charging") in plaza.seen.of("state")
