import pytest

from controller.core.model import Evse
from controller.ports import Lease
from drivers.ocpp import schemas
from drivers.ocpp.dialects import v16, v201
from drivers.ocpp.dialects.dialect import Dialect
from drivers.ocpp.profiles import Period, fallback_profile, lease_profile, round_down_a

EVSE = Evse(id="e", station="s", circuit="c", phases=(0, 1))
NOON = 1_767_268_800.0


@pytest.mark.parametrize(
    ("value_a", "on_the_wire_a"),
    [(16.0, 16.0), (16.05, 16.0), (10.29, 10.2), (16.3, 16.3), (2.3, 2.3), (0.3, 0.3), (0.0, 0.0), (31.9999, 31.9)],
)
def test_a_setpoint_is_never_rounded_up(value_a: float, on_the_wire_a: float) -> None:
    assert round_down_a(value_a) == on_the_wire_a


@pytest.mark.parametrize(
    ("lease", "periods"),
    [
        (Lease(value_a=16.0, fallback_a=6.0, lease_s=600), (Period(0, 16.0), Period(660, 6.0))),
        (Lease(value_a=0.0, fallback_a=6.0, lease_s=20), (Period(0, 0.0), Period(80, 6.0))),
        (Lease(value_a=6.04, fallback_a=6.0, lease_s=600), (Period(0, 6.0),)),  # nothing to fall to
    ],
)
def test_a_lease_falls_back_by_itself(lease: Lease, periods: tuple[Period, ...]) -> None:
    profile = lease_profile(3, EVSE, "7", lease, station_unix_s=NOON + 0.9)
    assert profile.periods == periods
    assert profile.start_iso == "2026-01-01T11:59:00Z"
    assert profile.phases == 2


def test_a_profile_keeps_its_id_and_no_two_share_one() -> None:
    lease = Lease(value_a=16.0, fallback_a=6.0, lease_s=600)
    first = [lease_profile(number, EVSE, "7", lease, station_unix_s=NOON).id for number in range(1, 65)]
    again = [lease_profile(number, EVSE, "8", lease, station_unix_s=0).id for number in range(1, 65)]
    fallbacks = [fallback_profile(number, EVSE, 6.0).id for number in range(1, 65)]
    assert first == again
    assert len({*first, *fallbacks}) == 128


def test_a_lease_in_the_words_of_1_6() -> None:
    lease = Lease(value_a=10.29, fallback_a=6.0, lease_s=600)
    command = v16.DIALECT.set_profile(lease_profile(2, EVSE, "7", lease, station_unix_s=NOON))
    assert command.action == "SetChargingProfile"
    assert command.payload == {
        "connectorId": 2,
        "csChargingProfiles": {
            "chargingProfileId": 20_002,
            "transactionId": 7,
            "stackLevel": 0,
            "chargingProfilePurpose": "TxProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": {
                "startSchedule": "2026-01-01T11:59:00Z",
                "chargingRateUnit": "A",
                "chargingSchedulePeriod": [
                    {"startPeriod": 0, "limit": 10.2, "numberPhases": 2},
                    {"startPeriod": 660, "limit": 6.0, "numberPhases": 2},
                ],
            },
        },
    }


def test_a_lease_in_the_words_of_2_0_1() -> None:
    lease = Lease(value_a=10.29, fallback_a=6.0, lease_s=600)
    command = v201.DIALECT.set_profile(lease_profile(2, EVSE, "tx-7", lease, station_unix_s=NOON))
    assert command.payload == {
        "evseId": 2,
        "chargingProfile": {
            "id": 20_002,
            "transactionId": "tx-7",
            "stackLevel": 0,
            "chargingProfilePurpose": "TxProfile",
            "chargingProfileKind": "Absolute",
            "chargingSchedule": [
                {
                    "id": 20_002,
                    "startSchedule": "2026-01-01T11:59:00Z",
                    "chargingRateUnit": "A",
                    "chargingSchedulePeriod": [
                        {"startPeriod": 0, "limit": 10.2, "numberPhases": 2},
                        {"startPeriod": 660, "limit": 6.0, "numberPhases": 2},
                    ],
                }
            ],
        },
    }


@pytest.mark.parametrize("dialect", [v16.DIALECT, v201.DIALECT], ids=lambda dialect: dialect.subprotocol)
@pytest.mark.parametrize("tenths", range(0, 640, 7))
def test_every_command_is_schema_valid(dialect: Dialect, tenths: int) -> None:
    lease = Lease(value_a=tenths / 10, fallback_a=tenths / 20, lease_s=600)
    fallback = fallback_profile(1, EVSE, tenths / 10)
    commands = [
        dialect.set_profile(lease_profile(1, EVSE, "7", lease, station_unix_s=NOON)),
        dialect.set_profile(fallback),
        *(step.command for step in dialect.configure(10)),
        *(step.command for step in dialect.refresh([1, 2])),
        *(command for step in dialect.refresh([1, 2]) for command in step.alternatives),
    ]
    for command in commands:
        schemas.check_call(dialect.version, command.action, command.payload)


@pytest.mark.parametrize("dialect", [v16.DIALECT, v201.DIALECT], ids=lambda dialect: dialect.subprotocol)
def test_a_fallback_holds_whatever_the_station_clock_shows(dialect: Dialect) -> None:
    text = str(dialect.set_profile(fallback_profile(1, EVSE, 6.0)).payload)
    assert "'Relative'" in text
    assert "startSchedule" not in text
    assert "TxDefaultProfile" in text
    assert "transactionId" not in text


@pytest.mark.parametrize(
    ("version", "action", "payload"),
    [
        ("1.6", "SetChargingProfile", {"connectorId": 1}),
        ("1.6", "SetChargingProfyle", {}),
        ("1.6", "ChangeConfiguration", {"key": "k", "value": 5}),
        ("2.0.1", "TriggerMessage", {"requestedMessage": "Nonsense"}),
    ],
)
def test_what_is_not_schema_valid_is_noticed(version: str, action: str, payload: dict[str, object]) -> None:
    with pytest.raises(schemas.NotSchemaValid, match=action):
        schemas.check_call(version, action, payload)
