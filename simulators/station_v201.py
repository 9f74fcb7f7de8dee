"""A simulated station's words in OCPP 2.0.1. Pure translation; the station decides."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from controller.core.model import EvseState
from drivers.ocpp.frames import CODES_V2, Fault, Payload
from simulators.profiles import WHOLE_STATION, Kind, Period, Profile, ProfileRefused, Purpose
from simulators.station_evse import MEASURANDS, SimulatedEvse, Transaction
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

_CONNECTOR: Final = 1
_STATES: Final = {
    EvseState.AVAILABLE: "Available",
    EvseState.RESERVED: "Reserved",
    EvseState.UNAVAILABLE: "Unavailable",
    EvseState.FAULTED: "Faulted",
    EvseState.UNKNOWN: "Faulted",
}
_CHARGING_STATES: Final = {
    EvseState.CHARGING: "Charging",
    EvseState.SUSPENDED_EV: "SuspendedEV",
    EvseState.SUSPENDED_EVSE: "SuspendedEVSE",
}
_TRIGGERS: Final = {
    Cause.PLUGGED: "CablePluggedIn",
    Cause.REMOTE_START: "RemoteStart",
    Cause.SAMPLE: "MeterValuePeriodic",
    Cause.STATE: "ChargingStateChanged",
    Cause.TRIGGERED: "Trigger",
    Cause.UNPLUGGED: "EVDeparted",
    Cause.REMOTE_STOP: "RemoteStop",
    Cause.DEAUTHORISED: "Deauthorized",
    Cause.POWER_LOSS: "AbnormalCondition",
    Cause.RESET: "ResetCommand",
}
_REASONS: Final = {
    Cause.UNPLUGGED: "EVDisconnected",
    Cause.REMOTE_STOP: "Remote",
    Cause.DEAUTHORISED: "DeAuthorized",
    Cause.POWER_LOSS: "PowerLoss",
    Cause.RESET: "ImmediateReset",
}
_BOOT_REASONS: Final = {Cause.RESET: "RemoteReset", Cause.TRIGGERED: "Triggered"}


class V201:
    """OCPP 2.0.1, as `simulators.station_messages.Dialect`. Configuration keys read `Component.Variable`."""

    version = "2.0.1"
    subprotocol = "ocpp2.0.1"
    codes: Mapping[Fault, str] = CODES_V2
    sample_key = "SampledDataCtrlr.TxUpdatedInterval"
    heartbeat_key = "OCPPCommCtrlr.HeartbeatInterval"
    measurands_key = "SampledDataCtrlr.TxUpdatedMeasurands"
    names_transactions = True

    def __init__(self) -> None:
        self.handlers: Mapping[str, Callable[[SimulatedStation, Payload], Payload]] = _HANDLERS

    def boot(self, identity: Identity, reason: Cause) -> Request:
        """Introduce the station."""
        station = {"vendorName": identity.vendor, "model": identity.model, "firmwareVersion": identity.firmware}
        return "BootNotification", {"reason": _BOOT_REASONS.get(reason, "PowerUp"), "chargingStation": station}

    def status_word(self, state: EvseState) -> str:
        """Return the connector status of a state."""
        return _STATES.get(state, "Occupied")

    def status(self, number: int, state: EvseState, unix_s: float) -> Request:
        """Tell a connector's state."""
        payload = {
            "timestamp": timestamp(unix_s),
            "connectorStatus": self.status_word(state),
            "evseId": number,
            "connectorId": _CONNECTOR,
        }
        return "StatusNotification", payload

    def authorize(self, token: str) -> Request:
        """Ask whether a token may charge."""
        return "Authorize", {"idToken": _token(token)}

    def is_authorized(self, result: Payload) -> bool:
        """Tell whether an answer leaves the token its right; no word about it is no objection."""
        info = result.get("idTokenInfo")
        return not isinstance(info, dict) or info.get("status") in ("Accepted", "ConcurrentTx")

    def started(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:
        """Tell that a transaction began."""
        payload = _event("Started", transaction, cause, at, "Transaction.Begin")
        return "TransactionEvent", payload | {"idToken": _token(transaction.id_token)}

    def updated(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request | None:
        """Tell that it goes on."""
        context = "Sample.Periodic" if cause is Cause.SAMPLE else "Trigger" if cause is Cause.TRIGGERED else "Other"
        return "TransactionEvent", _event("Updated", transaction, cause, at, context)

    def ended(self, transaction: Transaction, cause: Cause, at: Snapshot) -> Request:
        """Tell that it is over."""
        payload = _event("Ended", transaction, cause, at, "Transaction.End")
        payload["transactionInfo"]["stoppedReason"] = _REASONS.get(cause, "Other")
        return "TransactionEvent", payload

    def sample(self, at: Snapshot) -> Request:
        """Tell readings in a MeterValues of their own."""
        return "MeterValues", {"evseId": at.evse.number, "meterValue": [_meter_value(at, "Trigger")]}

    def named(self, action: str, result: Payload) -> str | None:  # noqa: ARG002 - the station names its transactions
        """Return nothing: the station names its transactions itself."""
        return None

    def completed(self, message: Outgoing) -> Payload:
        """Return the payload as it is: nothing in it had to wait."""
        return message.payload

    def variables(self, station: "SimulatedStation") -> dict[str, Variable]:
        """Return the device model of a new station, as far as it goes."""
        limits, manners = station.store.limits, station.manners
        fixed = {
            "SmartChargingCtrlr.Enabled": "true",
            "SmartChargingCtrlr.Available": "true",
            "SmartChargingCtrlr.ProfileStackLevel": str(limits.stack_level),
            "SmartChargingCtrlr.RateUnit": ",".join(limits.units),
            "SmartChargingCtrlr.PeriodsPerSchedule": str(limits.periods),
            "SmartChargingCtrlr.Entries": str(limits.profiles),
            "SmartChargingCtrlr.Phases3to1": "false",
            "SampledDataCtrlr.Available": "true",
        }
        return {
            self.heartbeat_key: Variable(str(manners.heartbeat_s), check=is_count),
            self.sample_key: Variable(str(manners.sample_interval_s), check=is_count),
            self.measurands_key: Variable(",".join(MEASURANDS), check=are_measurands),
            "OCPPCommCtrlr.OfflineThreshold": Variable(f"{manners.offline_threshold_s:.0f}", check=is_count),
            "OCPPCommCtrlr.WebSocketPingInterval": Variable("0", check=is_count),
            "AlignedDataCtrlr.Interval": Variable("0", check=is_count),
            **{key: Variable(value, writable=False) for key, value in fixed.items()},
        }


def _token(token: str) -> dict[str, str]:
    return {"idToken": token, "type": "ISO14443"}


def _event(kind: str, transaction: Transaction, cause: Cause, at: Snapshot, context: str) -> dict[str, Any]:
    info: dict[str, Any] = {
        "transactionId": transaction.local_id,
        "chargingState": _CHARGING_STATES.get(at.evse.state, "EVConnected"),
    }
    if transaction.remote_start_id is not None:
        info["remoteStartId"] = transaction.remote_start_id
    return {
        "eventType": kind,
        "timestamp": timestamp(at.unix_s),
        "triggerReason": _TRIGGERS[cause],
        "seqNo": transaction.next_sequence(),
        "offline": at.offline,
        "transactionInfo": info,
        "evse": {"id": at.evse.number, "connectorId": _CONNECTOR},
        "meterValue": [_meter_value(at, context)],
    }


def _meter_value(at: Snapshot, context: str) -> dict[str, Any]:
    sampled: list[dict[str, Any]] = []
    for reading in at.readings:
        value: dict[str, Any] = {
            "value": round(reading.value, 2),
            "context": context,
            "measurand": reading.measurand,
            "location": "Outlet",
            "unitOfMeasure": {"unit": reading.unit},
        }
        sampled.append(value | ({"phase": reading.phase} if reading.phase is not None else {}))
    return {"timestamp": timestamp(at.unix_s), "sampledValue": sampled}


def _profile(evse: int, body: Mapping[str, Any], now_unix_s: float) -> Profile:
    schedule = body["chargingSchedule"][0]
    start = schedule.get("startSchedule")
    kind = Kind(body["chargingProfileKind"])
    # K01.FR.40 and .41: Absolute and Recurring need a start, Relative must not have one.
    if (start is None) is not (kind is Kind.RELATIVE):
        raise ProfileRefused("InvalidSchedule")
    return Profile(
        id=body["id"],
        evse=evse,
        stack_level=body["stackLevel"],
        purpose=_purpose(body["chargingProfilePurpose"]),
        kind=kind,
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
        transaction=body.get("transactionId"),
    )


def _purpose(word: str) -> Purpose:
    if word == "ChargingStationExternalConstraints":
        # K01.FR.22: only the station itself makes those.
        raise ProfileRefused("InvalidProfile")
    return Purpose(word)


def _check_transaction(profile: Profile) -> None:
    # K01.FR.03: outside RequestStartTransaction a TxProfile names its transaction.
    if profile.purpose is Purpose.TX and profile.transaction is None:
        raise ProfileRefused("MissingParam")


def _refusal(reason: str) -> Payload:
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason[:20]}}


def _set_charging_profile(station: "SimulatedStation", payload: Payload) -> Payload:
    number = payload["evseId"]
    if not 0 <= number <= len(station.evses):
        return _refusal("UnknownEvse")
    try:
        profile = _profile(number, payload["chargingProfile"], station.unix_s())
        _check_transaction(profile)
        station.install(profile)
    except ProfileRefused as refused:
        return _refusal(refused.reason)
    return {"status": "Accepted"}


def _clear_charging_profile(station: "SimulatedStation", payload: Payload) -> Payload:
    criteria = payload.get("chargingProfileCriteria", {})
    word = criteria.get("chargingProfilePurpose")
    if word == "ChargingStationExternalConstraints":
        return {"status": "Unknown"}
    cleared = station.store.clear(
        profile_id=payload.get("chargingProfileId"),
        evse=criteria.get("evseId"),
        purpose=Purpose(word) if word is not None else None,
        stack_level=criteria.get("stackLevel"),
    )
    return {"status": "Accepted" if cleared else "Unknown"}


def _get_composite_schedule(station: "SimulatedStation", payload: Payload) -> Payload:
    number, duration_s = payload["evseId"], payload["duration"]
    if not 0 <= number <= len(station.evses):
        return _refusal("UnknownEvse")
    if payload.get("chargingRateUnit", "A") != "A":
        return _refusal("UnsupportedRateUnit")
    now_s = station.unix_s()
    periods = [
        {"startPeriod": second, "limit": on_wire(value_a, station.hardware_max_a(number))}
        for second, value_a in station.store.composite(number, now_s, duration_s, station.charge(number))
    ]
    schedule = {
        "evseId": number,
        "duration": duration_s,
        "scheduleStart": timestamp(now_s),
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": periods,
    }
    return {"status": "Accepted", "schedule": schedule}


def _trigger_message(station: "SimulatedStation", payload: Payload) -> Payload:
    wanted, dialect = payload["requestedMessage"], station.dialect
    number = payload["evse"]["id"] if "evse" in payload else WHOLE_STATION
    places = station.places(number)
    if wanted == "BootNotification":
        station.trigger(lambda: dialect.boot(station.about, Cause.TRIGGERED))
    elif wanted == "Heartbeat":
        station.trigger(lambda: ("Heartbeat", {}))
    elif wanted == "StatusNotification":
        for place in places:
            station.trigger_status(place.number)
    elif wanted == "MeterValues":
        for place in places:
            station.trigger_sample(place)
    elif wanted == "TransactionEvent":
        return _trigger_transactions(station, places)
    else:
        return {"status": "NotImplemented"}
    return {"status": "Accepted"}


def _trigger_transactions(station: "SimulatedStation", places: tuple[SimulatedEvse, ...]) -> Payload:
    running = [place for place in places if place.transaction is not None]
    for place in running:
        station.trigger_report(place)
    return {"status": "Accepted" if running else "Rejected"}


def _set_variables(station: "SimulatedStation", payload: Payload) -> Payload:
    results = []
    for item in payload["setVariableData"]:
        status = _known(station, item)
        if status == "Accepted" and not station.set_variable(_key(item), item["attributeValue"]):
            status = "Rejected"
        results.append(_echo(item) | {"attributeStatus": status})
    return {"setVariableResult": results}


def _get_variables(station: "SimulatedStation", payload: Payload) -> Payload:
    results = []
    for item in payload["getVariableData"]:
        status = _known(station, item)
        value = {"attributeValue": station.variables[_key(item)].value} if status == "Accepted" else {}
        results.append(_echo(item) | {"attributeStatus": status} | value)
    return {"getVariableResult": results}


def _key(item: Mapping[str, Any]) -> str:
    return f"{item['component']['name']}.{item['variable']['name']}"


def _echo(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("component", "variable", "attributeType") if name in item}


def _known(station: "SimulatedStation", item: Mapping[str, Any]) -> str:
    if item.get("attributeType", "Actual") != "Actual":
        return "NotSupportedAttributeType"
    if _key(item) in station.variables:
        return "Accepted"
    components = {key.partition(".")[0] for key in station.variables}
    return "UnknownVariable" if item["component"]["name"] in components else "UnknownComponent"


def _request_start(station: "SimulatedStation", payload: Payload) -> Payload:
    number = payload.get("evseId")
    profile = None
    try:
        if "chargingProfile" in payload:
            profile = _profile(number or WHOLE_STATION, payload["chargingProfile"], station.unix_s())
    except ProfileRefused as refused:
        return _refusal(refused.reason)
    place = station.remote_start(number, payload["idToken"]["idToken"], payload["remoteStartId"], profile)
    if place is None:
        return _refusal("NotAvailable")
    return {"status": "Accepted"}


def _request_stop(station: "SimulatedStation", payload: Payload) -> Payload:
    return {"status": "Accepted"} if station.remote_stop(payload["transactionId"]) else _refusal("TxNotFound")


def _reset(station: "SimulatedStation", payload: Payload) -> Payload:
    if "evseId" in payload:
        return _refusal("UnsupportedParam")
    if payload["type"] == "OnIdle" and any(evse.transaction is not None for evse in station.evses):
        station.reset(when_idle=True)
        return {"status": "Scheduled"}
    station.reset()
    return {"status": "Accepted"}


def _change_availability(station: "SimulatedStation", payload: Payload) -> Payload:
    number = payload["evse"]["id"] if "evse" in payload else WHOLE_STATION
    at_once = station.change_availability(number, operative=payload["operationalStatus"] == "Operative")
    return {"status": "Accepted" if at_once else "Scheduled"}


_HANDLERS: Final[Mapping[str, Callable[["SimulatedStation", Payload], Payload]]] = {
    "SetChargingProfile": _set_charging_profile,
    "ClearChargingProfile": _clear_charging_profile,
    "GetCompositeSchedule": _get_composite_schedule,
    "TriggerMessage": _trigger_message,
    "SetVariables": _set_variables,
    "GetVariables": _get_variables,
    "RequestStartTransaction": _request_start,
    "RequestStopTransaction": _request_stop,
    "Reset": _reset,
    "ChangeAvailability": _change_availability,
}
