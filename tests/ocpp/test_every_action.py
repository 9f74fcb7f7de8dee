from pathlib import Path
from typing import Any

import ocpp  # type: ignore[import-untyped]  # the package carries no types
import pytest
from ocpp.messages import get_validator  # type: ignore[import-untyped]  # the package carries no types

from drivers.ocpp.dialects import v16, v201
from drivers.ocpp.dialects.dialect import Dialect
from tests.ocpp.plaza_of_stations import NOON, central, event, meter_values, station

WHEN = "2026-01-01T12:00:00Z"
REQUESTS_V16: dict[str, dict[str, Any]] = {
    "Authorize": {"idTag": "T"},
    "BootNotification": {"chargePointVendor": "V", "chargePointModel": "M"},
    "DataTransfer": {"vendorId": "V", "data": "x"},
    "DiagnosticsStatusNotification": {"status": "Idle"},
    "FirmwareStatusNotification": {"status": "Idle"},
    "Heartbeat": {},
    "LogStatusNotification": {"status": "Idle"},
    "MeterValues": meter_values(NOON, "1"),
    "SecurityEventNotification": {"type": "FirmwareUpdated", "timestamp": WHEN},
    "SignCertificate": {"csr": "x"},
    "SignedFirmwareStatusNotification": {"status": "Idle"},
    "StartTransaction": {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": WHEN},
    "StatusNotification": {"connectorId": 1, "errorCode": "NoError", "status": "Available"},
    "StopTransaction": {"transactionId": 1, "meterStop": 0, "timestamp": WHEN, "idTag": "T"},
}
TOKEN = {"idToken": "T", "type": "ISO14443"}
SOURCE = {"chargingLimitSource": "EMS"}
REQUESTS_V201: dict[str, dict[str, Any]] = {
    "Authorize": {"idToken": TOKEN},
    "BootNotification": {"reason": "PowerUp", "chargingStation": {"model": "M", "vendorName": "V"}},
    "ClearedChargingLimit": SOURCE,
    "DataTransfer": {"vendorId": "V"},
    "FirmwareStatusNotification": {"status": "Idle"},
    "Get15118EVCertificate": {"iso15118SchemaVersion": "2", "action": "Install", "exiRequest": "x"},
    "GetCertificateStatus": {
        "ocspRequestData": {
            "hashAlgorithm": "SHA256",
            "issuerNameHash": "x",
            "issuerKeyHash": "x",
            "serialNumber": "x",
            "responderURL": "x",
        }
    },
    "Heartbeat": {},
    "LogStatusNotification": {"status": "Idle"},
    "MeterValues": {"evseId": 1, "meterValue": [{"timestamp": WHEN, "sampledValue": [{"value": 1}]}]},
    "NotifyChargingLimit": {"chargingLimit": SOURCE},
    "NotifyCustomerInformation": {"data": "x", "seqNo": 0, "generatedAt": WHEN, "requestId": 1},
    "NotifyDisplayMessages": {"requestId": 1},
    "NotifyEVChargingNeeds": {"evseId": 1, "chargingNeeds": {"requestedEnergyTransfer": "AC_three_phase"}},
    "NotifyEVChargingSchedule": {
        "timeBase": WHEN,
        "evseId": 1,
        "chargingSchedule": {
            "id": 1,
            "chargingRateUnit": "A",
            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6}],
        },
    },
    "NotifyEvent": {
        "generatedAt": WHEN,
        "seqNo": 0,
        "eventData": [
            {
                "eventId": 1,
                "timestamp": WHEN,
                "trigger": "Alerting",
                "actualValue": "x",
                "eventNotificationType": "HardWiredNotification",
                "component": {"name": "c"},
                "variable": {"name": "v"},
            }
        ],
    },
    "NotifyMonitoringReport": {"requestId": 1, "seqNo": 0, "generatedAt": WHEN},
    "NotifyReport": {"requestId": 1, "seqNo": 0, "generatedAt": WHEN},
    "PublishFirmwareStatusNotification": {"status": "Idle"},
    "ReportChargingProfiles": {
        "requestId": 1,
        "chargingLimitSource": "CSO",
        "evseId": 1,
        "chargingProfile": [
            {
                "id": 1,
                "stackLevel": 0,
                "chargingProfilePurpose": "TxProfile",
                "chargingProfileKind": "Relative",
                "chargingSchedule": [
                    {"id": 1, "chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 6}]}
                ],
            }
        ],
    },
    "ReservationStatusUpdate": {"reservationId": 1, "reservationUpdateStatus": "Expired"},
    "SecurityEventNotification": {"type": "FirmwareUpdated", "timestamp": WHEN},
    "SignCertificate": {"csr": "x"},
    "StatusNotification": {"timestamp": WHEN, "connectorStatus": "Available", "evseId": 1, "connectorId": 1},
    "TransactionEvent": event("Started", "Charging", idToken=TOKEN),
}


def requests(dialect: Dialect) -> dict[str, dict[str, Any]]:
    return REQUESTS_V16 if dialect is v16.DIALECT else REQUESTS_V201


@pytest.mark.parametrize("dialect", [v16.DIALECT, v201.DIALECT], ids=lambda dialect: dialect.subprotocol)
async def test_every_action_of_a_station_gets_a_schema_valid_answer(dialect: Dialect) -> None:
    async with central() as plaza, station(plaza.url(), dialect.subprotocol) as a:
        for action, payload in requests(dialect).items():
            get_validator(2, action, dialect.version).validate(payload)
            answer = await a.call(action, payload)
            get_validator(3, action, dialect.version).validate(answer)


@pytest.mark.parametrize("dialect", [v16.DIALECT, v201.DIALECT], ids=lambda dialect: dialect.subprotocol)
def test_no_action_of_a_station_is_forgotten(dialect: Dialect) -> None:
    assert set(dialect.decoders) | set(dialect.fixed_answers) == set(requests(dialect))


# What only a central system sends (OCPP 1.6 §5, security whitepaper; 2.0.1 part 2).
TO_STATIONS_V16 = {
    "CancelReservation",
    "CertificateSigned",
    "ChangeAvailability",
    "ChangeConfiguration",
    "ClearCache",
    "ClearChargingProfile",
    "DeleteCertificate",
    "ExtendedTriggerMessage",
    "GetCompositeSchedule",
    "GetConfiguration",
    "GetDiagnostics",
    "GetInstalledCertificateIds",
    "GetLocalListVersion",
    "GetLog",
    "InstallCertificate",
    "RemoteStartTransaction",
    "RemoteStopTransaction",
    "ReserveNow",
    "Reset",
    "SendLocalList",
    "SetChargingProfile",
    "SignedUpdateFirmware",
    "TriggerMessage",
    "UnlockConnector",
    "UpdateFirmware",
}
TO_STATIONS_V201 = {
    "CancelReservation",
    "CertificateSigned",
    "ChangeAvailability",
    "ClearCache",
    "ClearChargingProfile",
    "ClearDisplayMessage",
    "ClearVariableMonitoring",
    "CostUpdated",
    "CustomerInformation",
    "DeleteCertificate",
    "GetBaseReport",
    "GetChargingProfiles",
    "GetCompositeSchedule",
    "GetDisplayMessages",
    "GetInstalledCertificateIds",
    "GetLocalListVersion",
    "GetLog",
    "GetMonitoringReport",
    "GetReport",
    "GetTransactionStatus",
    "GetVariables",
    "InstallCertificate",
    "PublishFirmware",
    "RequestStartTransaction",
    "RequestStopTransaction",
    "ReserveNow",
    "Reset",
    "SendLocalList",
    "SetChargingProfile",
    "SetDisplayMessage",
    "SetMonitoringBase",
    "SetMonitoringLevel",
    "SetNetworkProfile",
    "SetVariableMonitoring",
    "SetVariables",
    "TriggerMessage",
    "UnlockConnector",
    "UnpublishFirmware",
    "UpdateFirmware",
}


@pytest.mark.parametrize(
    ("folder", "ours"),
    [("v16", TO_STATIONS_V16 | set(REQUESTS_V16)), ("v201", TO_STATIONS_V201 | set(REQUESTS_V201))],
)
def test_the_table_holds_every_action_of_the_schemas(folder: str, ours: set[str]) -> None:
    schemas = Path(ocpp.__file__).parent / folder / "schemas"
    answers = {path.stem.removesuffix("Response") for path in schemas.glob("*Response.json")}
    assert answers == ours
