"""A simulated station's words in OCPP 1.6J. Pure translation; the station decides."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from controller.core.model import EvseState
from drivers.ocpp.frames import CODES_V16, Fault, Payload
from simulators.profiles import WHOLE_STATION, Kind, Period, Profile, ProfileRefused, Purpose
from simulators.station_evse import MEASURANDS, Transaction
from simulators.station_messages import (
    Cause,
    Identity,
    Outgoing,
    Request,
    Snapshot,
    Variable,
    are_measurands,
    instant,
    is_count,
    on_wire,
    timestamp,
)

if TYPE_CHECKING:
    from simulators.station import SimulatedStation

_PURPOSES: Final = {
    "ChargePointMaxProfile": Purpose.STATION_MAX,
    "TxDefaultProfile": Purpose.TX_DEFAULT,
    "TxProfile": Purpose.TX,
}
_STATES: Final = {
    EvseState.AVAILABLE: "Available",
    EvseState.PREPARING: "Preparing",
    EvseState.CHARGING: "Charging",
    EvseState.SUSPENDED_EV: "SuspendedEV",
    EvseState.SUSPENDED_EVSE: "SuspendedEVSE",
    EvseState.FINISHING: "Finishing",
    EvseState.RESERVED: "Reserved",
    EvseState.UNAVAILABLE: "Unavailable",
}
_REASONS: Final = {
    Cause.UNPLUGGED: "EVDisconnected",
    Cause.REMOTE_STOP: "Remote",
    Cause.DEAUTHORISED: "DeAuthorized",
    Cause.POWER_LOSS: "PowerLoss",
    Cause.RESET: "SoftReset",
}
_CONTEXTS: Final = {Cause.SAMPLE: "Sample.Periodic", Cause.TRIGGERED: "Trigger"}
_UNKNOWN_TRANSACTION: Final = -1


class V16:
    """OCPP 1.6J, as `simulators.station_messages.Dialect`."""

    version = "1.6"
    subprotocol = "ocpp1.6"
    codes: Mapping[Fault, str] = CODES_V16
    sample_key = "MeterValueSampleInterval"
    heartbeat_key = "HeartbeatInterval"
    measurands_key = "MeterValuesSampledData"
    names_transactions = False

    def __init__(self) -> None:
        self.handlers: Mapping[str, Callable[[SimulatedStation, Payload], Payload]] = _HANDLERS

    def boot(self, identity: Identity, reason: Cause) -> Request:  # noqa: ARG002 - 1.6 gives no reason
        """Introduce the station."""
        payload = {
            "chargePointVendor": identity.vendor,
            "chargePointModel": identity.model,
            "firmwareVersion": identity.firmware,
        }
        return "BootNotification", payload

    def status_word(self, state: EvseState) -> str:
        """Return the ChargePointStatus of a state."""
        return _STATES.get(state, "Faulted")

    def status(self, number: int, state: EvseState, unix_s: float) -> Request:
        """Tell a connector's state."""
        payload = {
            "connectorId": number,
            "errorCode": "NoError",
            "status": self.status_word(state),
            "timestamp": timestamp(unix_s),
        }
        return "StatusNotification", payload

    def authorize(self, token: str) -> Request:
        """Ask whether a token may charge."""
        return "Authorize", {"idTag": token}

    def is_authorized(self, result: Payload) -> bool:
        """Tell whether an answer leaves the token its right; no word about it is no objection."""
        info = result.get("idTagInfo")
        return not isinstance(info, dict) or info.get("status") in ("Accepted", "ConcurrentTx")

    def started(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:  # noqa: ARG002 - 1.6 gives none
        """Tell that a transaction began."""
        payload = {
            "connectorId": at.evse.number,
            "idTag": transaction.id_token,
            "meterStart": int(at.evse.energy_wh),
            "timestamp": timestamp(at.unix_s),
        }
        return "StartTransaction", payload

    def updated(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request | None:  # noqa: ARG002 - as above
        """Tell readings; a mere change of state has its StatusNotification."""
        if cause is Cause.STATE:
            return None
        return "MeterValues", {"connectorId": at.evse.number, "meterValue": [_meter_value(at, _CONTEXTS[cause])]}

    def ended(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:
        """Tell that a transaction is over."""
        payload = {
            "idTag": transaction.id_token,
            "meterStop": int(at.evse.energy_wh),
            "timestamp": timestamp(at.unix_s),
            "reason": _REASONS.get(cause, "Other"),
        }
        return "StopTransaction", payload

    def sample(self, at: Snapshot) -> Request:
        """Tell readings outside any transaction."""
        return "MeterValues", {"connectorId": at.evse.number, "meterValue": [_meter_value(at, "Trigger")]}

    def named(self, action: str, result: Payload) -> str | None:
        """Return the transaction id that StartTransaction's answer assigns."""
        assigned = result.get("transactionId") if action == "StartTransaction" else None
        return str(assigned) if isinstance(assigned, int) else None

    def completed(self, message: Outgoing) -> Payload:
        """Add the transaction id, which a message queued offline could not know."""
        if message.transaction is None or message.action == "StartTransaction":
            return message.payload
        remote_id = message.transaction.remote_id
        if remote_id is not None:
            return {**message.payload, "transactionId": int(remote_id)}
        if message.action == "StopTransaction":
            return {**message.payload, "transactionId": _UNKNOWN_TRANSACTION}
        return message.payload

    def variables(self, station: "SimulatedStation") -> dict[str, Variable]:
        """Return the configuration keys of a new station."""
        limits = station.store.limits
        units = ",".join({"A": "Current", "W": "Power"}[unit] for unit in limits.units)
        return {
            self.heartbeat_key: Variable(str(station.manners.heartbeat_s), check=is_count),
            self.sample_key: Variable(str(station.manners.sample_interval_s), check=is_count),
            self.measurands_key: Variable(",".join(MEASURANDS), check=are_measurands),
            "ClockAlignedDataInterval": Variable("0", check=is_count),
            "ConnectionTimeOut": Variable("120", check=is_count),
            "WebSocketPingInterval": Variable("0", check=is_count),
            "NumberOfConnectors": Variable(str(len(station.evses)), writable=False),
            "SupportedFeatureProfiles": Variable("Core,RemoteTrigger,SmartCharging", writable=False),
            "ChargeProfileMaxStackLevel": Variable(str(limits.stack_level), writable=False),
            "ChargingScheduleAllowedChargingRateUnit": Variable(units, writable=False),
            "ChargingScheduleMaxPeriods": Variable(str(limits.periods), writable=False),
            "MaxChargingProfilesInstalled": Variable(str(limits.profiles), writable=False),
            "ConnectorSwitch3to1PhaseSupported": Variable("false", writable=False),
        }


def _meter_value(at: Snapshot, context: str) -> dict[str, Any]:
    sampled = []
    for reading in at.readings:
        value = {
            "value": f"{reading.value:.2f}",
            "context": context,
            "measurand": reading.measurand,
            "unit": reading.unit,
            "location": "Outlet",
        }
        sampled.append(value | ({"phase": reading.phase} if reading.phase is not None else {}))
    return {"timestamp": timestamp(at.unix_s), "sampledValue": sampled}


def _profile(connector: int, body: Mapping[str, Any], now_unix_s: float) -> Profile:
    schedule = body["chargingSchedule"]
    start = schedule.get("startSchedule")
    transaction = body.get("transactionId")
    return Profile(
        id=body["chargingProfileId"],
        evse=connector,
        stack_level=body["stackLevel"],
        purpose=_PURPOSES[body["chargingProfilePurpose"]],
        kind=Kind(body["chargingProfileKind"]),
        periods=tuple(
            Period(start_s=period["startPeriod"], limit=float(period["limit"]), phases=period.get("numberPhases", 3))
            for period in schedule["chargingSchedulePeriod"]
        ),
        unit=schedule["chargingRateUnit"],
        start_unix_s=instant(start, now_unix_s) if start is not None else None,
        duration_s=schedule.get("duration"),
        recurrence=body.get("recurrencyKind"),
        valid_from_unix_s=instant(body.get("validFrom"), float("-inf")),
        valid_to_unix_s=instant(body.get("validTo"), float("inf")),
        transaction=str(transaction) if transaction is not None else None,
    )


def _set_charging_profile(station: "SimulatedStation", payload: Payload) -> Payload:
    connector = payload["connectorId"]
    if not 0 <= connector <= len(station.evses):
        return {"status": "Rejected"}
    try:
        profile = _profile(connector, payload["csChargingProfiles"], station.unix_s())
        station.install(profile)
    except ProfileRefused:
        return {"status": "Rejected"}
    return {"status": "Accepted"}


def _clear_charging_profile(station: "SimulatedStation", payload: Payload) -> Payload:
    purpose = payload.get("chargingProfilePurpose")
    cleared = station.store.clear(
        profile_id=payload.get("id"),
        evse=payload.get("connectorId"),
        purpose=_PURPOSES[purpose] if purpose is not None else None,
        stack_level=payload.get("stackLevel"),
    )
    return {"status": "Accepted" if cleared else "Unknown"}


def _get_composite_schedule(station: "SimulatedStation", payload: Payload) -> Payload:
    connector, duration_s = payload["connectorId"], payload["duration"]
    if not 0 <= connector <= len(station.evses) or payload.get("chargingRateUnit", "A") != "A":
        return {"status": "Rejected"}
    now_s, charge = station.unix_s(), station.charge(connector)
    periods = [
        {"startPeriod": second, "limit": on_wire(value_a, station.hardware_max_a(connector))}
        for second, value_a in station.store.composite(connector, now_s, duration_s, charge)
    ]
    return {
        "status": "Accepted",
        "connectorId": connector,
        "scheduleStart": timestamp(now_s),
        "chargingSchedule": {"duration": duration_s, "chargingRateUnit": "A", "chargingSchedulePeriod": periods},
    }


def _trigger_message(station: "SimulatedStation", payload: Payload) -> Payload:
    number, dialect = payload.get("connectorId", WHOLE_STATION), station.dialect
    wanted = payload["requestedMessage"]
    places = station.places(number)
    if wanted == "BootNotification":
        station.trigger(lambda: dialect.boot(station.about, Cause.TRIGGERED))
    elif wanted == "Heartbeat":
        station.trigger(lambda: ("Heartbeat", {}))
    elif wanted == "StatusNotification":
        for chosen in {number, *(place.number for place in places)}:
            station.trigger_status(chosen)
    elif wanted == "MeterValues":
        for place in places:
            (station.trigger_report if place.transaction is not None else station.trigger_sample)(place)
    else:
        return {"status": "NotImplemented"}
    return {"status": "Accepted"}


def _change_configuration(station: "SimulatedStation", payload: Payload) -> Payload:
    if payload["key"] not in station.variables:
        return {"status": "NotSupported"}
    return {"status": "Accepted" if station.set_variable(payload["key"], payload["value"]) else "Rejected"}


def _get_configuration(station: "SimulatedStation", payload: Payload) -> Payload:
    wanted = payload.get("key") or list(station.variables)
    known = [
        {"key": key, "readonly": not station.variables[key].writable, "value": station.variables[key].value}
        for key in wanted
        if key in station.variables
    ]
    return {"configurationKey": known, "unknownKey": [key for key in wanted if key not in station.variables]}


def _remote_start(station: "SimulatedStation", payload: Payload) -> Payload:
    connector, profile = payload.get("connectorId"), None
    if "chargingProfile" in payload:
        profile = _profile(connector or WHOLE_STATION, payload["chargingProfile"], station.unix_s())
    place = station.remote_start(connector, payload["idTag"], None, profile)
    return {"status": "Accepted" if place is not None else "Rejected"}


def _remote_stop(station: "SimulatedStation", payload: Payload) -> Payload:
    return {"status": "Accepted" if station.remote_stop(str(payload["transactionId"])) else "Rejected"}


def _reset(station: "SimulatedStation", payload: Payload) -> Payload:  # noqa: ARG001 - soft and hard are the same here
    station.reset()
    return {"status": "Accepted"}


def _change_availability(station: "SimulatedStation", payload: Payload) -> Payload:
    at_once = station.change_availability(payload["connectorId"], operative=payload["type"] == "Operative")
    return {"status": "Accepted" if at_once else "Scheduled"}


_HANDLERS: Final[Mapping[str, Callable[["SimulatedStation", Payload], Payload]]] = {
    "SetChargingProfile": _set_charging_profile,
    "ClearChargingProfile": _clear_charging_profile,
    "GetCompositeSchedule": _get_composite_schedule,
    "TriggerMessage": _trigger_message,
    "ChangeConfiguration": _change_configuration,
    "GetConfiguration": _get_configuration,
    "RemoteStartTransaction": _remote_start,
    "RemoteStopTransaction": _remote_stop,
    "Reset": _reset,
    "ChangeAvailability": _change_availability,
}
