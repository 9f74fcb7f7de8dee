"""A small site file as text, for tests that spoil one thing in it."""

from pathlib import Path

import pytest

from controller.config import SiteFile, SiteFileError, parse

PATH = Path("site.toml")
HERE = "# here"  # marks the line that a problem must point at

SITE = """\
[site]
name = "Test park"
timezone = "Europe/Amsterdam"

[ocpp]
port = 0

[policy]
lease_s = 600

[[circuit]]
id = "grid"
limit_a = 100
base_worst_a = 40

[[circuit]]
id = "hall-a"
parent = "grid"
limit_a = 63.0

[[circuit]]
id = "hall-b"
parent = "grid"
limit_a = [32, 32.0, 25]

[[meter]]
id = "main"
kind = "modbus_tcp"
circuit = "grid"
map = "eastron_sdm630"
host = "127.0.0.1"

[[contract]]
id = "gtv"
kind = "gtv"
circuit = "grid"
import_kw = 40.0

[[station]]
id = "alpha"
trust = "B"
[[station.evse]]
circuit = "hall-a"
max_a = 32.0

[[station]]
id = "bravo"
trust = "B"
[[station.evse]]
number = 1
circuit = "hall-a"
max_a = 16
[[station.evse]]
number = 2
circuit = "hall-b"
phases = ["L2"]
max_a = 16
"""


def spoilt(*changes: tuple[str, str]) -> str:
    """Return the site with pieces of it replaced, each of which is there exactly once."""
    text = SITE
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def site_file(*changes: tuple[str, str]) -> SiteFile:
    """Return the site with changes that leave it valid."""
    return parse(PATH, spoilt(*changes))


def complaints(source: str) -> list[str]:
    """Return the lines that say what is wrong with a site file."""
    with pytest.raises(SiteFileError) as refused:
        parse(PATH, source)
    assert refused.value.path == PATH
    lines = str(refused.value).splitlines()
    assert len(lines) == len(refused.value.problems)
    return lines


def marked_line(source: str) -> int:
    """Return the number of the one line that is marked."""
    (number,) = [number for number, line in enumerate(source.splitlines(), start=1) if HERE in line]
    return number
