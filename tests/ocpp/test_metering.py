from typing import Any

import pytest

from controller.core.electrical import Phases
from controller.core.model import Evse
from drivers.ocpp import metering
from drivers.ocpp.dialects import v16, v201
from drivers.ocpp.dialects.dialect import Dialect
from drivers.ocpp.events import Metered, Quantity, Reading, Sample

THREE = Evse(id="e", station="s", circuit="c")
ROTATED = Evse(id="e", station="s", circuit="c", phases=(1, 2, 0))
ONE_ON_L2 = Evse(id="e", station="s", circuit="c", phases=(1,))
TWO = Evse(id="e", station="s", circuit="c", phases=(2, 0))

Raw = tuple[str, str, str, str]  # measurand, phase, unit, value


def current(evse: Evse, *raw: Raw) -> Phases | None:
    samples = [
        metering.sample(value, measurand=measurand, phase=phase, unit=unit) for measurand, phase, unit, value in raw
    ]
    found = metering.current_a(Reading("", tuple(one for one in samples if one)), evse)
    return None if found is None else (round(found[0], 2), round(found[1], 2), round(found[2], 2))


def amperes(phase: str, value: str, unit: str = "A") -> Raw:
    return ("Current.Import", phase, unit, value)


def power(phase: str, value: str, unit: str = "W") -> Raw:
    return ("Power.Active.Import", phase, unit, value)


@pytest.mark.parametrize(
    ("evse", "raw", "current_a"),
    [
        (THREE, [amperes("L1", "16"), amperes("L2", "15"), amperes("L3", "14")], (16, 15, 14)),
        (THREE, [amperes("L1-N", "16"), amperes("l2-n", "15"), amperes(" L3 ", " 14.0 ")], (16, 15, 14)),
        (THREE, [("current.import", "L1", "", "16"), amperes("L2", "15000", "mA")], (16, 15, 0)),
        (ROTATED, [amperes("L1", "16"), amperes("L2", "15"), amperes("L3", "14")], (14, 16, 15)),  # own L1 is site L2
        (TWO, [amperes("L1", "16"), amperes("L2", "15"), amperes("L3", "0")], (15, 0, 16)),
        (ONE_ON_L2, [amperes("L1", "16")], (0, 16, 0)),
        (ONE_ON_L2, [amperes("", "16")], (0, 16, 0)),
        (ONE_ON_L2, [amperes("N", "16")], (0, 16, 0)),  # Injet
        (ONE_ON_L2, [amperes("L2", "16"), amperes("L1", "0")], (0, 16, 0)),  # names the site's phase
        (ONE_ON_L2, [power("", "3.68", "kW")], (0, 16, 0)),
        (ONE_ON_L2, [power("L1", "2300")], (0, 10, 0)),
        (ONE_ON_L2, [power("", "2300"), ("Voltage", "", "V", "250")], (0, 9.2, 0)),
        (THREE, [amperes("", "30")], (10, 10, 10)),  # a lone total is spread
        (THREE, [power("", "11040")], (16, 16, 16)),
        (THREE, [amperes("", "16"), power("", "11040")], (16, 16, 16)),  # power tells that 16 A was per phase
        (THREE, [power("L1", "2300"), power("L2", "1150"), power("L3", "0")], (10, 5, 0)),
        (THREE, [amperes("", "15"), power("L1", "2300"), power("L2", "1150"), power("L3", "0")], (10, 5, 0)),
        (THREE, [power("L1", "2300"), ("Voltage", "L1-N", "V", "240")], (9.58, 0, 0)),
        (THREE, [power("L1", "2300"), ("Voltage", "L1", "V", "400")], (10, 0, 0)),  # between phases: not believed
        (THREE, [amperes("L1", "16"), power("", "11040")], (16, 16, 16)),  # the rest is on the phases not named
        (THREE, [amperes("L1", "16"), power("", "3680")], (16, 0, 0)),  # and here there is no rest
        (THREE, [amperes("L1", "-0.3"), amperes("L2", "0"), amperes("L3", "0")], (0, 0, 0)),
        (THREE, [amperes("L1", "16"), amperes("N", "2")], (16, 0, 0)),
        (THREE, [("", "", "", "12345")], None),
        (THREE, [("SoC", "", "Percent", "80")], None),
        (THREE, [amperes("L1", "many")], None),
        (THREE, [amperes("L1", "nan")], None),
        (THREE, [amperes("L1", "16000")], None),  # no EVSE draws that
        (THREE, [amperes("L9", "16")], None),
        (THREE, [amperes("L1", "16", "furlong")], None),
        (THREE, [], None),
    ],
)
def test_samples_become_amperes_on_site_phases(evse: Evse, raw: list[Raw], current_a: Phases | None) -> None:
    assert current(evse, *raw) == current_a


@pytest.mark.parametrize(
    ("raw", "energy_wh"),
    [
        ([("", "", "", "1234")], 1234),
        ([("Energy.Active.Import.Register", "", "kWh", "1.5")], 1500),
        (
            [("Energy.Active.Import.Register", "L1", "Wh", "10"), ("Energy.Active.Import.Register", "L2", "Wh", "20")],
            30,
        ),
        ([("Energy.Active.Import.Register", "", "Wh", "9"), ("Energy.Active.Import.Register", "L1", "Wh", "1")], 9),
        ([("Current.Import", "", "A", "9")], None),
    ],
)
def test_the_energy_register_is_in_watt_hours(raw: list[Raw], energy_wh: int | None) -> None:
    samples = [metering.sample(value, measurand=name, phase=phase, unit=unit) for name, phase, unit, value in raw]
    assert metering.energy_wh([Reading("", tuple(one for one in samples if one))]) == energy_wh


def test_the_power_of_ten_of_a_unit_counts() -> None:
    sample = metering.sample(1.6, measurand="Current.Import", unit="A", multiplier=1)
    assert sample is not None
    assert sample.value == pytest.approx(16)
    assert metering.sample(1, measurand="Current.Import", unit="A", multiplier=400) is None


@pytest.mark.parametrize("location", ["EV", "Body"])
def test_what_is_measured_elsewhere_is_not_what_the_outlet_gives(location: str) -> None:
    assert metering.sample("16", measurand="Current.Import", location=location) is None


def test_readings_of_one_moment_belong_together() -> None:
    readings = [
        Reading("12:00", (Sample(Quantity.CURRENT_A, 1.0, 0),)),
        Reading("12:10", (Sample(Quantity.CURRENT_A, 2.0, 0),)),
        Reading("12:10", (Sample(Quantity.CURRENT_A, 3.0, 1),)),
    ]
    newest = metering.newest(readings)
    assert newest is not None
    assert [sample.value for sample in newest.samples] == [2.0, 3.0]
    assert metering.newest([]) is None


@pytest.mark.parametrize(
    ("dialect", "payload"),
    [
        (
            v16.DIALECT,
            {
                "connectorId": "1",
                "vendorField": 1,
                "meterValue": [
                    {
                        "timestamp": "2026-01-01T12:00:00Z",
                        "sampledValue": [
                            {
                                "value": " 16.0 ",
                                "measurand": "Current.Import",
                                "phase": "L1",
                                "unit": "A",
                                "format": "Raw",
                            },
                            {"value": "aa55", "measurand": "Current.Import", "phase": "L1", "format": "SignedData"},
                        ],
                    }
                ],
            },
        ),
        (
            v201.DIALECT,
            {
                "evseId": 1,
                "meterValue": [
                    {
                        "timestamp": "2026-01-01T12:00:00Z",
                        "sampledValue": [
                            {"value": 16, "measurand": "Current.Import", "phase": "L1", "unitOfMeasure": {"unit": "A"}}
                        ],
                    }
                ],
            },
        ),
    ],
)
def test_both_versions_say_the_same(dialect: Dialect, payload: dict[str, Any]) -> None:
    at = "2026-01-01T12:00:00Z"
    expected = Metered(1, (Reading(at, (Sample(Quantity.CURRENT_A, 16.0, 0),)),))
    assert dialect.decoders["MeterValues"](payload) == expected
