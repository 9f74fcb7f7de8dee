"""OCPP 2.0.1: pure translations between its payloads and the neutral vocabulary.

Field names and values: OCPP 2.0.1 edition 3 part 2 §1-3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from controller.core.model import EvseState
from controller.ports import Capabilities, LeaseKind, StationInfo
from drivers.ocpp import metering
from drivers.ocpp.dialects.dialect import Dialect, SetupStep
from drivers.ocpp.dialects.wire import EvseNumber, Number, Text, Whole, Wire, accepted, state_named
from drivers.ocpp.events import (
    Booted,
    Command,
    Event,
    HeartbeatReceived,
    Metered,
    Reading,
    StatusReported,
    TokenPresented,
    TransactionStage,
    TransactionTold,
)
from drivers.ocpp.frames import CODES_V2, Payload
from drivers.ocpp.profiles import Profile

_MEASURANDS: Final = "Current.Import,Power.Active.Import,Energy.Active.Import.Register"
_DONE: Final = frozenset({"accepted", "rebootrequired"})
_STAGES: Final[Mapping[str, TransactionStage]] = {
    "started": TransactionStage.STARTED,
    "updated": TransactionStage.UPDATED,
    "ended": TransactionStage.ENDED,
}
# What "Occupied" means while a transaction runs. Idle: authorised, and no vehicle any more or yet.
_CHARGING_STATES: Final[Mapping[str, EvseState]] = {
    "charging": EvseState.CHARGING,
    "evconnected": EvseState.PREPARING,
    "suspendedev": EvseState.SUSPENDED_EV,
    "suspendedevse": EvseState.SUSPENDED_EVSE,
    "idle": EvseState.PREPARING,
}


# ------------------------------------------------------------------------------------------------- what a station says


class _Station(Wire):
    vendor: Text = Field("", alias="vendorName")
    model: Text = ""
    firmware: Text = Field("", alias="firmwareVersion")


class _Boot(Wire):
    reason: Text = ""
    station: _Station = Field(default_factory=lambda: _Station.model_validate({}), alias="chargingStation")


class _Status(Wire):
    evse: EvseNumber = Field(alias="evseId")
    connector: EvseNumber = Field(0, alias="connectorId")
    status: Text = Field(alias="connectorStatus")
    timestamp: Text = ""


class _Token(Wire):
    id_token: Text = Field("", alias="idToken")


class _Authorize(Wire):
    token: _Token = Field(default_factory=lambda: _Token.model_validate({}), alias="idToken")


class _Unit(Wire):
    unit: Text = ""
    multiplier: Whole = 0


class _Sampled(Wire):
    value: Number
    measurand: Text = ""
    phase: Text = ""
    location: Text = ""
    unit: _Unit = Field(_Unit(), alias="unitOfMeasure")


class _MeterValue(Wire):
    timestamp: Text = ""
    sampled: tuple[_Sampled, ...] = Field((), alias="sampledValue")


class _MeterValues(Wire):
    evse: EvseNumber = Field(alias="evseId")
    values: tuple[_MeterValue, ...] = Field((), alias="meterValue")


class _Evse(Wire):
    id: EvseNumber


class _Transaction(Wire):
    id: Text = Field(alias="transactionId", min_length=1, max_length=64)
    charging_state: Text = Field("", alias="chargingState")


class _TransactionEvent(Wire):
    kind: Text = Field(alias="eventType")
    timestamp: Text = ""
    transaction: _Transaction = Field(alias="transactionInfo")
    evse: _Evse | None = None
    token: _Token | None = Field(None, alias="idToken")
    offline: bool = False
    values: tuple[_MeterValue, ...] = Field((), alias="meterValue")


def _boot(payload: Payload) -> Event:
    boot = _Boot.model_validate(payload)
    station = boot.station
    info = StationInfo(
        vendor=station.vendor, model=station.model, firmware=station.firmware, protocol=DIALECT.subprotocol
    )
    return Booted(info, rebooted=boot.reason.lower() != "triggered")


def _heartbeat(_payload: Payload) -> Event:
    return HeartbeatReceived()


def _authorize(payload: Payload) -> Event:
    return TokenPresented(_Authorize.model_validate(payload).token.id_token)


def _status(payload: Payload) -> Event:
    told = _Status.model_validate(payload)
    occupied = told.status.strip().lower() == "occupied"
    state = EvseState.PREPARING if occupied else state_named(told.status)
    return StatusReported(told.evse, told.connector, state, told.timestamp, occupied=occupied)


def _transaction_event(payload: Payload) -> Event:
    told = _TransactionEvent.model_validate(payload)
    readings = tuple(_reading(value) for value in told.values)
    return TransactionTold(
        stage=_STAGES.get(told.kind.strip().lower(), TransactionStage.UPDATED),
        evse=told.evse.id if told.evse else None,
        transaction=told.transaction.id,
        at=told.timestamp,
        id_token=told.token.id_token if told.token else "",
        meter_wh=metering.energy_wh(readings),
        state=_CHARGING_STATES.get(told.transaction.charging_state.strip().lower()),
        readings=readings,
        offline=told.offline,
        wants_token_status=told.token is not None,
    )


def _meter_values(payload: Payload) -> Event:
    told = _MeterValues.model_validate(payload)
    return Metered(told.evse, tuple(_reading(value) for value in told.values))


def _reading(value: _MeterValue) -> Reading:
    samples = (
        metering.sample(
            one.value,
            measurand=one.measurand,
            phase=one.phase,
            unit=one.unit.unit,
            location=one.location,
            multiplier=one.unit.multiplier,
        )
        for one in value.sampled
    )
    return Reading(value.timestamp, tuple(one for one in samples if one is not None))


# ------------------------------------------------------------------------------------------------------ what we answer


def _answer_boot(now: str, interval_s: int) -> Payload:
    return {"status": "Accepted", "currentTime": now, "interval": interval_s}


def _answer_heartbeat(now: str) -> Payload:
    return {"currentTime": now}


def _answer_token() -> Payload:
    return {"idTokenInfo": {"status": "Accepted"}}


def _answer_transaction(told: TransactionTold, _transaction: str) -> Payload:
    return _answer_token() if told.wants_token_status else {}


# -------------------------------------------------------------------------------------------------------- what we send


def _set_profile(profile: Profile) -> Command:
    schedule: Payload = {
        "id": profile.id,
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [
            {"startPeriod": period.start_s, "limit": period.limit_a, "numberPhases": profile.phases}
            for period in profile.periods
        ],
    }
    start = profile.start_iso
    body: Payload = {
        "id": profile.id,
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": profile.purpose.value,
        "chargingProfileKind": "Relative" if start is None else "Absolute",
        "chargingSchedule": [schedule],
    }
    # K01: an absolute schedule needs its start, a relative one must not have it.
    if start is not None:
        schedule["startSchedule"] = start
    if profile.transaction is not None:
        body["transactionId"] = profile.transaction
    return Command("SetChargingProfile", {"evseId": profile.evse, "chargingProfile": body})


def _configure(sample_interval_s: int) -> Sequence[SetupStep]:
    wanted = {"TxUpdatedInterval": str(sample_interval_s), "TxUpdatedMeasurands": _MEASURANDS}
    settings = [
        {"component": {"name": "SampledDataCtrlr"}, "variable": {"name": name}, "attributeValue": value}
        for name, value in wanted.items()
    ]
    return (SetupStep(name="SampledDataCtrlr", command=Command("SetVariables", {"setVariableData": settings})),)


def _refresh(evses: Sequence[int]) -> Sequence[SetupStep]:
    # F06: a status is asked for with its connector. The transaction event tells the finer state.
    return tuple(
        SetupStep(
            name=f"{message} {number}", command=Command("TriggerMessage", {"requestedMessage": message, "evse": evse})
        )
        for number in evses
        for message, evse in (
            ("StatusNotification", {"id": number, "connectorId": 1}),
            ("TransactionEvent", {"id": number}),
        )
    )


def _refusal(command: Command, answer: Mapping[str, Any]) -> str | None:
    if command.action == "SetVariables":
        return _refused_variables(answer.get("setVariableResult"))
    status = answer.get("status")
    return None if accepted(status) else f"{command.action}: {status}{_why(answer)}"


def _refused_variables(results: object) -> str | None:
    if not isinstance(results, list):
        return "SetVariables: no result"
    refused = [
        f"{_name(result.get('variable'))} {result.get('attributeStatus')}"
        for result in results
        if isinstance(result, dict) and str(result.get("attributeStatus")).lower() not in _DONE
    ]
    return f"SetVariables: {', '.join(refused)}" if refused else None


def _name(variable: object) -> str:
    return str(variable.get("name")) if isinstance(variable, dict) else "?"


def _why(answer: Mapping[str, Any]) -> str:
    info = answer.get("statusInfo")
    return f" ({info.get('reasonCode')})" if isinstance(info, dict) else ""


DIALECT: Final = Dialect(
    subprotocol="ocpp2.0.1",
    version="2.0.1",
    capabilities=Capabilities(lease_kind=LeaseKind.SCHEDULE, assigns_transaction_ids=True),
    fault_codes=CODES_V2,
    decoders={
        "Authorize": _authorize,
        "BootNotification": _boot,
        "Heartbeat": _heartbeat,
        "MeterValues": _meter_values,
        "StatusNotification": _status,
        "TransactionEvent": _transaction_event,
    },
    fixed_answers={
        "ClearedChargingLimit": {},
        "DataTransfer": {"status": "UnknownVendorId"},
        "FirmwareStatusNotification": {},
        "Get15118EVCertificate": {"status": "Failed", "exiResponse": ""},
        "GetCertificateStatus": {"status": "Failed"},
        "LogStatusNotification": {},
        "NotifyChargingLimit": {},
        "NotifyCustomerInformation": {},
        "NotifyDisplayMessages": {},
        "NotifyEVChargingNeeds": {"status": "Rejected"},
        "NotifyEVChargingSchedule": {"status": "Accepted"},
        "NotifyEvent": {},
        "NotifyMonitoringReport": {},
        "NotifyReport": {},
        "PublishFirmwareStatusNotification": {},
        "ReportChargingProfiles": {},
        "ReservationStatusUpdate": {},
        "SecurityEventNotification": {},
        "SignCertificate": {"status": "Rejected"},
    },
    answer_boot=_answer_boot,
    answer_heartbeat=_answer_heartbeat,
    answer_token=_answer_token,
    answer_transaction=_answer_transaction,
    set_profile=_set_profile,
    configure=_configure,
    refresh=_refresh,
    refusal=_refusal,
)
