"""OCPP 1.6J: pure translations between its payloads and the neutral vocabulary.

A connector of 1.6 is an EVSE of ours. Field names and values: OCPP 1.6 edition 2 §6 and the security whitepaper.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field

from controller.ports import Capabilities, LeaseKind, StationInfo
from drivers.ocpp import metering
from drivers.ocpp.dialects.dialect import Dialect, SetupStep
from drivers.ocpp.dialects.wire import EvseNumber, Text, Whole, Wire, accepted, state_named
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
from drivers.ocpp.frames import CODES_V16, Payload
from drivers.ocpp.profiles import Profile

_MEASURANDS: Final = "Current.Import,Power.Active.Import,Energy.Active.Import.Register"
_DONE: Final = frozenset({"accepted", "rebootrequired"})


# ------------------------------------------------------------------------------------------------- what a station says


class _Boot(Wire):
    vendor: Text = Field("", alias="chargePointVendor")
    model: Text = Field("", alias="chargePointModel")
    firmware: Text = Field("", alias="firmwareVersion")


class _Status(Wire):
    connector: EvseNumber = Field(alias="connectorId")
    status: Text
    timestamp: Text = ""


class _Authorize(Wire):
    id_tag: Text = Field("", alias="idTag")


class _Sampled(Wire):
    value: Text
    measurand: Text = ""
    phase: Text = ""
    unit: Text = ""
    location: Text = ""
    format: Text = ""


class _MeterValue(Wire):
    timestamp: Text = ""
    sampled: tuple[_Sampled, ...] = Field((), alias="sampledValue")


class _MeterValues(Wire):
    connector: EvseNumber = Field(alias="connectorId")
    transaction: Whole | None = Field(None, alias="transactionId")
    values: tuple[_MeterValue, ...] = Field((), alias="meterValue")


class _Start(Wire):
    connector: EvseNumber = Field(alias="connectorId")
    id_tag: Text = Field("", alias="idTag")
    meter_wh: Whole | None = Field(None, alias="meterStart")
    timestamp: Text = ""


class _Stop(Wire):
    transaction: Whole = Field(alias="transactionId")
    id_tag: Text = Field("", alias="idTag")
    meter_wh: Whole | None = Field(None, alias="meterStop")
    timestamp: Text = ""


def _boot(payload: Payload) -> Event:
    boot = _Boot.model_validate(payload)
    return Booted(
        StationInfo(vendor=boot.vendor, model=boot.model, firmware=boot.firmware, protocol=DIALECT.subprotocol)
    )


def _heartbeat(_payload: Payload) -> Event:
    return HeartbeatReceived()


def _authorize(payload: Payload) -> Event:
    return TokenPresented(_Authorize.model_validate(payload).id_tag)


def _status(payload: Payload) -> Event:
    told = _Status.model_validate(payload)
    return StatusReported(told.connector, told.connector, state_named(told.status), told.timestamp)


def _start(payload: Payload) -> Event:
    told = _Start.model_validate(payload)
    return TransactionTold(
        stage=TransactionStage.STARTED,
        evse=told.connector,
        transaction=None,
        at=told.timestamp,
        id_token=told.id_tag,
        meter_wh=told.meter_wh,
        wants_token_status=True,
    )


def _stop(payload: Payload) -> Event:
    told = _Stop.model_validate(payload)
    return TransactionTold(
        stage=TransactionStage.ENDED,
        evse=None,
        transaction=_known(told.transaction),
        at=told.timestamp,
        id_token=told.id_tag,
        meter_wh=told.meter_wh,
        wants_token_status=bool(told.id_tag),
    )


def _meter_values(payload: Payload) -> Event:
    told = _MeterValues.model_validate(payload)
    readings = tuple(_reading(value) for value in told.values)
    transaction = None if told.transaction is None else _known(told.transaction)
    if transaction is None:
        return Metered(told.connector, readings)
    return TransactionTold(
        stage=TransactionStage.UPDATED,
        evse=told.connector,
        transaction=transaction,
        at=readings[-1].at if readings else "",
        meter_wh=metering.energy_wh(readings),
        readings=readings,
    )


def _known(transaction: int) -> str | None:
    # Stations that started offline stop with -1 or 0: they never learnt an id.
    return str(transaction) if transaction > 0 else None


def _reading(value: _MeterValue) -> Reading:
    samples = (
        metering.sample(one.value, measurand=one.measurand, phase=one.phase, unit=one.unit, location=one.location)
        for one in value.sampled
        if one.format.lower() != "signeddata"
    )
    return Reading(value.timestamp, tuple(one for one in samples if one is not None))


# ------------------------------------------------------------------------------------------------------ what we answer


def _answer_boot(now: str, interval_s: int) -> Payload:
    return {"status": "Accepted", "currentTime": now, "interval": interval_s}


def _answer_heartbeat(now: str) -> Payload:
    return {"currentTime": now}


def _answer_token() -> Payload:
    return {"idTagInfo": {"status": "Accepted"}}


def _answer_transaction(told: TransactionTold, transaction: str) -> Payload:
    answer: Payload = _answer_token() if told.wants_token_status else {}
    if told.stage is TransactionStage.STARTED:
        answer["transactionId"] = int(transaction)
    return answer


# -------------------------------------------------------------------------------------------------------- what we send


def _set_profile(profile: Profile) -> Command:
    start = profile.start_iso
    schedule: Payload = {
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [
            {"startPeriod": period.start_s, "limit": period.limit_a, "numberPhases": profile.phases}
            for period in profile.periods
        ],
    }
    body: Payload = {
        "chargingProfileId": profile.id,
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": profile.purpose.value,
        "chargingProfileKind": "Relative" if start is None else "Absolute",
        "chargingSchedule": schedule,
    }
    if start is not None:
        schedule["startSchedule"] = start
    if profile.transaction is not None:
        body["transactionId"] = int(profile.transaction)
    return Command("SetChargingProfile", {"connectorId": profile.evse, "csChargingProfiles": body})


def _configure(sample_interval_s: int) -> Sequence[SetupStep]:
    return (
        _setting("MeterValueSampleInterval", str(sample_interval_s)),
        _setting("MeterValuesSampledData", _MEASURANDS),
    )


def _setting(key: str, value: str) -> SetupStep:
    return SetupStep(name=key, command=Command("ChangeConfiguration", {"key": key, "value": value}))


def _refresh(evses: Sequence[int]) -> Sequence[SetupStep]:
    # Some stations refuse a trigger without a connector, others one with it (evcc #7424).
    wanted: Payload = {"requestedMessage": "StatusNotification"}
    each = tuple(Command("TriggerMessage", {**wanted, "connectorId": number}) for number in evses)
    return (SetupStep(name="StatusNotification", command=Command("TriggerMessage", wanted), alternatives=each),)


def _refusal(command: Command, answer: Mapping[str, Any]) -> str | None:
    status = answer.get("status")
    if command.action == "ChangeConfiguration" and isinstance(status, str) and status.lower() in _DONE:
        return None
    return None if accepted(status) else f"{command.action}: {status}"


DIALECT: Final = Dialect(
    subprotocol="ocpp1.6",
    version="1.6",
    capabilities=Capabilities(lease_kind=LeaseKind.SCHEDULE),
    fault_codes=CODES_V16,
    decoders={
        "Authorize": _authorize,
        "BootNotification": _boot,
        "Heartbeat": _heartbeat,
        "MeterValues": _meter_values,
        "StartTransaction": _start,
        "StatusNotification": _status,
        "StopTransaction": _stop,
    },
    fixed_answers={
        "DataTransfer": {"status": "UnknownVendorId"},
        "DiagnosticsStatusNotification": {},
        "FirmwareStatusNotification": {},
        "LogStatusNotification": {},
        "SecurityEventNotification": {},
        "SignCertificate": {"status": "Rejected"},
        "SignedFirmwareStatusNotification": {},
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
