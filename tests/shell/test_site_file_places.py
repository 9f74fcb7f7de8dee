"""`line_of` finds the line of a key, whichever of TOML's ways the file is written in."""

import pytest

from controller.config import Location, key_of, line_of

TABLES = """\
[[circuit]]
id = "grid"

[[circuit]]  # the hall
id = "hall"

[[station]]
id = "first"
evse = [{ circuit = "hall", max_a = 16.0 }]

[[station]]
id = "second"
[[station.evse]]
number = 1
circuit = "hall"
[[station.evse]]
number = 2
circuit = "hall"

[policy]
lease_s = 600

[[station]]
id = "third"
[[station.evse]]
circuit = "hall"

[[station]]
id = "fourth"
evse = [
    # two sockets
    { number = 1, circuit = "hall", phases = ["L1"] },
    { number = 2, circuit = "hall", phases = ["L2"] },
]
trust = "B"

[[station]]
id = "fifth"
evse = [{ circuit = "hall" },
        { circuit = "hall" }]
trust = "B"
"""


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (("circuit", 0), "[[circuit]]"),
        (("circuit", 0, "id"), 'id = "grid"'),
        (("circuit", 1), "[[circuit]]  # the hall"),
        (("circuit", 1, "id"), 'id = "hall"'),
        (("circuit", 1, "limit_a"), "[[circuit]]  # the hall"),
        (("policy", "lease_s"), "lease_s = 600"),
        (("station", 0, "evse", 0, "circuit"), 'evse = [{ circuit = "hall", max_a = 16.0 }]'),
        (("station", 3, "id"), 'id = "fourth"'),
        (("station", 3, "evse", 0, "circuit"), '{ number = 1, circuit = "hall", phases = ["L1"] },'),
        (("station", 3, "evse", 1, "phases", 0), '{ number = 2, circuit = "hall", phases = ["L2"] },'),
    ],
)
def test_a_key_is_found_by_its_text(location: Location, text: str) -> None:
    line = line_of(TABLES, location)
    assert line is not None
    assert TABLES.splitlines()[line - 1].strip() == text


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("station", 1, "evse", 0), 13),
        (("station", 1, "evse", 0, "circuit"), 15),
        (("station", 1, "evse", 0, "max_a"), 13),  # not there: its table, not the key of the next one
        (("station", 1, "evse", 1, "circuit"), 18),
        (("station", 1, "evse", 1, "id"), 16),
        (("station", 2, "evse", 0, "circuit"), 26),
        (("station", 2, "trust"), 23),
        (("station", 3, "trust"), 35),
        (("station", 4, "evse", 0, "circuit"), 39),
        (("station", 4, "evse", 1, "circuit"), 40),
        (("station", 4, "trust"), 41),
    ],
)
def test_the_tables_of_one_station_are_not_taken_for_those_of_another(location: Location, line: int) -> None:
    assert line_of(TABLES, location) == line


@pytest.mark.parametrize(
    ("source", "location", "line"),
    [
        ("[ocpp]\nport = 1\n[ocpp.accept_unknown]\ncircuit = 'x'", ("ocpp", "accept_unknown", "circuit"), 4),
        ("[ocpp.accept_unknown]\ncircuit = 'x'", ("ocpp", "accept_unknown", "circuit"), 2),
        ("[ocpp.accept_unknown]\ncircuit = 'x'", ("ocpp", "prot"), 1),
        ("[ocpp]\naccept_unknown = { circuit = 'x' }", ("ocpp", "accept_unknown", "circuit"), 2),
        ("[ocpp]\naccept_unknown.circuit = 'x'", ("ocpp", "accept_unknown", "circuit"), 2),
        ("\nocpp.port = 1", ("ocpp", "port"), 2),
        ("\nocpp = { port = 1 }", ("ocpp", "port"), 2),
        ('\n["ocpp"]\n"port" = 1', ("ocpp", "port"), 3),
        ("  [ ocpp ]\n  port = 1", ("ocpp", "port"), 2),
        ("# [ocpp]\n# port = 2\n[ocpp]\nport = 1", ("ocpp", "port"), 4),
        ("[ocpp]\nportal = 2\nport = 1", ("ocpp", "port"), 3),
        ("[ocpp]\nport = 1", ("http", "port"), None),
        ("", ("site",), None),
        ("", (), None),
    ],
)
def test_every_way_to_write_a_key_is_known(source: str, location: Location, line: int | None) -> None:
    assert line_of(source, location) == line


def test_a_key_is_shown_as_people_write_it() -> None:
    assert key_of(("station", 1, "evse", 0, "max_a")) == "station[1].evse[0].max_a"
    assert key_of(()) == "file"
